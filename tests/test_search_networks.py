"""Networks as objectives, against networks trained alone; landscapes, against the networks that they are made of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from threading import Event
from typing import Any

import numpy as np
import pytest

from kit import data, measure, models, training
from kit.data import Dataset
from kit.search import Choice, Config, Float, Int, Method, Random, Space, Study, SuccessiveHalving, Trial, networks
from kit.search.grid import Listed
from kit.search.networks import Landscape, LandscapeObjective, Networks

pytestmark = pytest.mark.usefixtures("one_thread")

PLANE = Space({"lr": Float(1e-3, 1, log=True), "dropout": Float(0.0, 0.6)})
LINE = Space({"lr": Float(1e-3, 1, log=True)})
WIDTHS = Space({"lr": Float(1e-3, 1, log=True), "width": Int(2, 6)})
TINY: dict[str, Any] = {"points": 4, "seeds": 2, "epochs": 2, "hidden": 4}
SLOW: Config = {"lr": 0.02}
FAST: Config = {"lr": 0.05}
DROPPING: Config = {"lr": 0.05, "dropout": 0.3}
BROKEN: Config = {"lr": 1e30}  # it diverges in the first step


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch; networks of few seeds differ much."""
    return dataclasses.replace(digits, train=digits.train.first(200))


@pytest.fixture(scope="module")
def plane(few: Dataset) -> Landscape:
    return networks.landscape(few, PLANE, **TINY)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A landscape of 32 networks grows in four parts."""
    monkeypatch.setattr(networks, "CHUNK", 9)


def close(one: Any, other: Any, dataset: Dataset) -> bool:
    """Equal but for two samples: in another batch, numbers are added in another order."""
    return bool(np.allclose(one, other, rtol=0, atol=2.1 / len(dataset.validation)))


def alone(dataset: Dataset, seed: int, order: int, *, width: int = 4, epochs: int = 2, lr: float = 1e-3) -> float:
    """What one network reaches, trained by the ordinary loop."""
    net = models.MLP((64, width, 10), seed=seed)
    training.fit(net, dataset, epochs=epochs, seed=order, lr=lr)
    return measure.accuracy(net, dataset.validation).value


def numbers(scores: Iterable[Iterable[float]]) -> set[float]:
    return {round(score, 6) for each in scores for score in each}


# Networks


@pytest.mark.parametrize("config", [SLOW, FAST, {"lr": 0.05, "width": 8}])
def test_scores_are_those_of_networks_trained_alone(few: Dataset, config: Config) -> None:
    (scores,) = Networks(few, hidden=4, epochs=2, n=2)([config])
    first = networks._drawn(0, config)
    wanted = [alone(few, first + number, number, **({"width": 4} | config)) for number in range(2)]
    assert close(scores, wanted, few)
    assert not close(wanted[0], wanted[1], few)  # the two seeds can be told apart


def test_each_configuration_has_n_scores(few: Dataset) -> None:
    scores = Networks(few, hidden=4, epochs=1, n=3)([SLOW, FAST])
    assert [len(each) for each in scores] == [3, 3]
    assert all(0 <= score <= 1 for each in scores for score in each)
    assert len(Networks(few, hidden=4, epochs=1)([SLOW])[0]) == 1
    assert Networks(few, hidden=4, epochs=1)([]) == []


@pytest.mark.parametrize("config", [FAST, DROPPING, {**DROPPING, "width": 6}])
def test_a_configuration_scores_the_same_whatever_its_batch(few: Dataset, config: Config) -> None:
    objective = Networks(few, hidden=4, epochs=2, n=2)
    (single,) = objective([config])
    others = [SLOW, {**DROPPING, "width": 9}, BROKEN]
    together = objective([*others, config, {"width": 12}])
    assert close(together[3], single, few)
    assert close(objective([config, config]), [single, single], few)
    assert not close(together[0], single, few)


def test_another_seed_gives_fresh_numbers(few: Dataset) -> None:
    configs = [SLOW, FAST]
    found = [Networks(few, hidden=4, epochs=2, n=2, seed=seed)(configs) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert len(numbers(found[0]) & numbers(found[2])) < 2  # of four; one may be equal by chance


def test_configurations_share_no_seed(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    fit = networks.cohort.fit

    def spy(together: Any, *args: Any, **settings: Any) -> Any:
        seeds.extend(member.seed for member in together.members)
        return fit(together, *args, **settings)

    monkeypatch.setattr(networks.cohort, "fit", spy)
    Networks(few, hidden=4, epochs=1, n=3)([SLOW, FAST, DROPPING])
    assert len(set(seeds)) == 9


def test_more_epochs_where_the_trial_says_so(few: Dataset) -> None:
    objective = Networks(few, hidden=4, epochs=1)
    (longer,) = objective([FAST], epochs=6)
    assert close(longer, [alone(few, networks._drawn(0, FAST), 0, epochs=6, **FAST)], few)
    assert longer[0] > objective([FAST])[0][0]


def test_the_test_split_is_not_read(few: Dataset) -> None:
    without = dataclasses.replace(few, test=few.test.first(1))
    assert Networks(without, hidden=4, epochs=1)([FAST]) == Networks(few, hidden=4, epochs=1)([FAST])


def test_a_study_trains_batches(few: Dataset) -> None:
    calls: list[int] = []

    class Counted(Networks):
        def __call__(self, configs: Any, **settings: Any) -> list[list[float]]:
            calls.append(len(configs))
            return super().__call__(configs, **settings)

    objective = Counted(few, hidden=4, epochs=1, n=2)
    study = Study(WIDTHS, maximise=True).run(objective, Random(0), budget=5, batch=3, epochs=2)
    assert calls == [3, 2]
    assert [trial.status for trial in study.trials] == ["done"] * 5
    for trial in study.trials:
        assert trial.value == pytest.approx(np.mean(trial.scores))
        assert close(trial.scores, objective([trial.config], epochs=2)[0], few)


def test_a_configuration_that_diverges_fails_alone(few: Dataset) -> None:
    assert np.isnan(Networks(few, hidden=4, epochs=1, n=2)([BROKEN])[0]).all()
    space = Space({"lr": Float(1e-3, 1e30, log=True)})
    study = Study(space, maximise=True)
    study.run(Networks(few, hidden=4, epochs=1), Listed([FAST, BROKEN, SLOW]), budget=3, batch=3)
    assert [trial.status for trial in study.trials] == ["done", "failed", "done"]
    assert "finite number is needed" in study.trials[1].error


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"lr": 0.1, "momentum": 0.5}, "networks can be tuned by lr, weight_decay, .* beta2; got 'momentum'"),
        ({"seed": 1}, "networks can be tuned by .*; got 'seed'"),
        ({"lr": -1}, "lr must be above 0; got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"width": 0}, "width must be 1 or more; got 0"),
    ],
)
def test_a_configuration_that_no_network_can_have_is_refused(few: Dataset, config: Config, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Networks(few, hidden=4, epochs=1)([SLOW, config])


@pytest.mark.parametrize("name", ["hidden", "epochs", "n", "batch_size"])
def test_sizes_must_be_whole_and_1_or_more(few: Dataset, name: str) -> None:
    none: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be 1 or more; got 0"):
        Networks(few, **none)
    part: dict[str, Any] = {name: 1.5}
    with pytest.raises(TypeError, match=f"{name} must be a whole number; got 1.5"):
        Networks(few, **part)


def test_a_negative_seed_and_no_data_set_are_refused(few: Dataset) -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more; got -1"):
        Networks(few, seed=-1)
    with pytest.raises(TypeError, match=r"dataset must be a Dataset.*got Split"):
        Networks(few.train)  # type: ignore[arg-type]


def set_event() -> Event:
    event = Event()
    event.set()
    return event


def test_training_can_be_cancelled(few: Dataset) -> None:
    with pytest.raises(training.Cancelled, match="cancelled in epoch 1 of 2, before batch 1"):
        Networks(few, hidden=4, epochs=2)([SLOW], cancel=set_event())
    study = Study(LINE, maximise=True)
    event = Event()
    study.run(
        Networks(few, hidden=4, epochs=1), Random(0), budget=9, batch=2, cancel=event, on_trial=lambda _: event.set()
    )
    assert len(study.trials) == 2


# Landscapes: their cells


def test_a_blank_landscape_has_its_axes_and_nothing_trained() -> None:
    blank = networks.blank(WIDTHS, points=3, seeds=2, epochs=5)
    assert blank.axes[0] == pytest.approx((1e-3, 10**-1.5, 1))
    assert blank.axes[1] == (2, 4, 6)
    assert all(isinstance(width, int) for width in blank.axes[1])
    assert blank.curves.shape == (2, 3, 3, 5)
    assert (blank.seeds, blank.epochs, blank.missing) == (2, 5, 18)
    assert np.isnan(blank.curves).all()
    assert np.isnan(blank.mean).all()
    assert blank.config((1, 2)) == {"lr": pytest.approx(10**-1.5), "width": 6}
    assert (blank.widest, networks.blank(LINE, hidden=9).widest) == (6, 9)


def test_whole_numbers_stand_once_on_an_axis() -> None:
    assert networks.blank(WIDTHS, points=20).axes[1] == (2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("space", "settings", "sentence"),
    [
        (Space({**PLANE.parameters, "width": Int(1, 3)}), {}, "one or two parameters, .*; got lr, dropout, width"),
        (Space({"width": Choice(2, 4)}), {}, "one or two parameters, Float or Int; got width"),
        (Space({"batch": Int(1, 3)}), {}, "networks can be tuned by .*; got 'batch'"),
        (Space({"dropout": Float(0.0, 1.0)}), {}, r"dropout must lie in \[0, 1\); got 1.0"),
        (Space({"lr": Float(0.0, 1.0)}), {}, "lr must be above 0; got 0.0"),
        (PLANE, {"points": 1}, "points must be 2 or more; got 1"),
        (PLANE, {"seeds": 1}, "seeds must be 2 or more; got 1"),
        (PLANE, {"epochs": 0}, "epochs must be 1 or more; got 0"),
        (PLANE, {"hidden": 0}, "hidden must be 1 or more; got 0"),
    ],
)
def test_what_makes_no_landscape_is_refused_before_any_training(
    few: Dataset, space: Space, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        networks.blank(space, **settings)
    with pytest.raises(ValueError, match=sentence):
        networks.landscape(few, space, **settings, cancel=set_event())


def test_half_a_point_and_no_data_set_are_refused(few: Dataset) -> None:
    with pytest.raises(TypeError, match="points must be a whole number; got 2.5"):
        networks.blank(PLANE, points=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="width must be a whole number; got 2.0"):
        networks.blank(Space({"width": Float(2, 8)}))
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        next(networks.grow(few.train, networks.blank(PLANE)))  # type: ignore[arg-type]


# Landscapes: growing


@pytest.mark.usefixtures("small_chunks")
def test_each_part_adds_networks_until_every_cell_is_filled(few: Dataset, plane: Landscape) -> None:
    grown = list(networks.grow(few, networks.blank(PLANE, **TINY)))
    assert [each.missing for each in grown] == [23, 14, 5, 0]
    for before, after in itertools.pairwise(grown):
        known = np.isfinite(before.curves)
        assert np.array_equal(before.curves[known], after.curves[known])  # nothing is trained twice
    assert np.isfinite(grown[-1].curves).all()
    assert close(grown[-1].curves, plane.curves, few)  # which was trained all at once
    assert len(np.unique(plane.curves)) > 20


@pytest.mark.parametrize("points", [4, 5])
def test_every_fourth_of_each_axis_comes_first(few: Dataset, monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    monkeypatch.setattr(networks, "CHUNK", 1)
    order: list[tuple[int, ...]] = []
    before = networks.blank(PLANE, points=points, seeds=2, epochs=1, hidden=1)
    for after in networks.grow(few, before):
        order += [tuple(map(int, new)) for new in np.argwhere(np.isnan(before.curves) & np.isfinite(after.curves))]
        before = after
    cells = [place[1:3] for place in order]
    assert [place[0] for place in order] == [0] * points**2 + [1] * points**2  # one network each, then the second

    def spacing(cell: tuple[int, ...]) -> int:
        return next(step for step in (4, 2, 1) if all(at % step == 0 for at in cell))

    spacings = [spacing(cell) for cell in cells[: points**2]]
    assert spacings == sorted(spacings, reverse=True)
    corners = {(0, 0)} if points == 4 else {(0, 0), (0, 4), (4, 0), (4, 4)}
    assert set(cells[: len(corners)]) == corners
    assert cells[: points**2] == cells[points**2 :]


@pytest.mark.usefixtures("small_chunks")
def test_a_landscape_goes_on_where_it_stopped(few: Dataset, plane: Landscape) -> None:
    event = Event()
    growing = networks.grow(few, networks.blank(PLANE, **TINY), cancel=event)
    kept = next(growing)
    event.set()
    with pytest.raises(training.Cancelled):
        next(growing)
    assert kept.missing == 32 - 9
    assert np.isfinite(kept.curves).all(-1).sum() == 9  # what was yielded is whole
    untouched = kept.curves.copy()
    rest = list(networks.grow(few, kept))
    assert [each.missing for each in rest] == [14, 5, 0]
    assert close(rest[-1].curves, plane.curves, few)
    assert np.array_equal(kept.curves, untouched, equal_nan=True)
    (again,) = networks.grow(few, rest[-1], cancel=set_event())  # nothing is left to train
    assert again is rest[-1]


@pytest.mark.parametrize(
    "space", [LINE, WIDTHS, Space({"label_smoothing": Float(0, 0.5), "weight_decay": Float(0, 1)})]
)
def test_one_axis_or_two(few: Dataset, space: Space) -> None:
    made = networks.landscape(few, space, **TINY)
    assert made.curves.shape == (2, *(4,) * len(space), 2)
    assert made.missing == 0
    assert made.mean.shape == (4,) * len(space)
    assert len(np.unique(made.curves)) > 5


def test_the_curves_hold_what_networks_reach_after_each_epoch(few: Dataset) -> None:
    made = networks.landscape(few, WIDTHS, **TINY)
    for cell in ((1, 0), (2, 3)):
        config = made.config(cell)
        for seed in (0, 1):
            wanted = [alone(few, seed, seed, epochs=epochs, **config) for epochs in (1, 2)]
            assert close(made.curves[(seed, *cell)], wanted, few)


@pytest.mark.parametrize(("space", "cells"), [(PLANE, [(2, 1), (1, 3)]), (WIDTHS, [(2, 0), (1, 3)])])
def test_a_network_is_trained_again_as_it_was(few: Dataset, space: Space, cells: list[tuple[int, int]]) -> None:
    made = networks.landscape(few, space, **TINY)
    for cell in cells:
        for seed in (0, 1):
            net = networks.network(few, made, cell, seed)
            assert net.sizes == (64, made.config(cell).get("width", 4), 10)
            reached = measure.accuracy(net, few.validation).value
            assert close(reached, made.curves[(seed, *cell, -1)], few)
    with pytest.raises(ValueError, match=r"seed must lie in 0 \.\. 1; got 2"):
        networks.network(few, made, cells[0], 2)


def test_the_mean_is_over_the_networks_that_are_trained() -> None:
    blank = networks.blank(PLANE, points=2, seeds=2, epochs=2, hidden=4)
    curves = blank.curves.copy()
    curves[0, 0, 0], curves[1, 0, 0], curves[1, 0, 1] = (0.1, 0.4), (0.9, 0.6), (0.2, 0.3)
    part = dataclasses.replace(blank, curves=curves)
    assert part.missing == 5
    assert part.mean[0] == pytest.approx([0.5, 0.3])
    assert np.isnan(part.mean[1]).all()


@pytest.mark.parametrize("finite", [0, 1])
def test_a_network_that_diverged_counts_as_trained_and_knows_nothing(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, finite: int
) -> None:
    """At once, and after an epoch: what is measured of it then is NaN."""
    measured = networks._accuracies
    calls: list[np.ndarray] = []

    def broken(together: Any, dataset: Dataset) -> np.ndarray:
        calls.append(measured(together, dataset))
        found = calls[-1].copy()
        if len(calls) > finite:
            found[0] = np.nan
        return found

    monkeypatch.setattr(networks, "_accuracies", broken)
    made = networks.landscape(few, LINE, **TINY)
    assert made.missing == 0
    assert made.curves[0, 0].tolist() == [calls[0][0], 0] if finite else [0, 0]
    assert np.isfinite(made.mean).all()
    objective = made.objective()
    assert np.isfinite([objective(made.config((0,))), objective.fresh(made.config((0,)))]).all()


def test_a_cell_that_diverges_is_trained_once(few: Dataset) -> None:
    wild = Space({"lr": Float(1e-2, 1e30, log=True)})
    made = networks.landscape(few, wild, points=2, seeds=2, epochs=1, hidden=4)
    assert made.missing == 0
    assert made.mean[1] == 0 < made.mean[0]


# Landscapes: searching them


def made_up(places: int = 3, seeds: int = 6, epochs: int = 4) -> Landscape:
    """A landscape made up: each of its numbers is another one, and so tells which network was read."""
    blank = networks.blank(PLANE, points=places, seeds=seeds, epochs=epochs)
    count = blank.curves.size
    return dataclasses.replace(
        blank, curves=np.random.default_rng(0).permutation(count).reshape(blank.curves.shape) / count
    )


def read_from(landscape: Landscape, value: float) -> tuple[int, ...]:
    """Seed, cell and epoch that hold a number."""
    (place,) = np.argwhere(landscape.curves == value)
    return tuple(place.tolist())


@pytest.mark.parametrize(
    ("config", "cell"),
    [
        ({"lr": 1e-3, "dropout": 0.0}, (0, 0)),
        ({"lr": 1.0, "dropout": 0.6}, (2, 2)),
        ({"lr": 10**-2.3, "dropout": 0.1}, (0, 0)),
        ({"lr": 10**-2.2, "dropout": 0.2}, (1, 1)),  # by the logarithm; on a plain axis it were the first
        ({"lr": 0.2, "dropout": 0.44}, (2, 1)),
        ({"lr": 0.17, "dropout": 0.46}, (1, 2)),
    ],
)
def test_a_trial_reads_the_nearest_cell(config: Config, cell: tuple[int, ...]) -> None:
    made = made_up()
    objective = made.objective()
    assert isinstance(objective, LandscapeObjective)
    assert objective.cell(config) == cell
    assert read_from(made, objective(config))[1:3] == cell


def test_fewer_epochs_are_an_earlier_value_of_the_same_run() -> None:
    made, config = made_up(), {"lr": 0.03, "dropout": 0.1}
    objective = made.objective(3)
    places = [read_from(made, objective(config, epochs=epochs)) for epochs in (1, 2, 3, 4)]
    assert len({place[:3] for place in places}) == 1
    assert [place[3] for place in places] == [0, 1, 2, 3]
    assert places[0][0] == objective.seed(config)
    assert objective(config) == objective(config, epochs=4)
    assert objective.resumes
    for epochs in (0, 5):
        with pytest.raises(ValueError, match=rf"epochs must lie in 1 \.\. 4; got {epochs}"):
            objective(config, epochs=epochs)


def test_a_study_spends_only_new_epochs() -> None:
    study = Study(PLANE, maximise=True)
    study.run(made_up().objective(), SuccessiveHalving(2, 2, 4, 2), budget=6, unit="epochs")
    assert [(trial.epochs, trial.spent) for trial in study.trials] == [(2, 2), (2, 2), (4, 2)]


def test_fresh_is_the_mean_of_the_other_networks() -> None:
    made = made_up()
    for repeat in range(5):
        objective = made.objective(repeat)
        for cell in ((0, 0), (1, 2)):
            config = made.config(cell)
            own = read_from(made, objective(config))[0]
            others = [float(made.curves[(seed, *cell, 3)]) for seed in range(6) if seed != own]
            assert objective.fresh(config) == pytest.approx(sum(others) / 5)


def test_another_repeat_reads_other_networks() -> None:
    made = made_up()
    configs = [made.config(cell) for cell in np.ndindex(3, 3)]
    seeds = {repeat: [made.objective(repeat).seed(config) for config in configs] for repeat in range(60)}
    assert seeds[4] == [made.objective(4).seed(config) for config in configs]  # the same again
    assert len({tuple(each) for each in seeds.values()}) == 60
    for at in range(9):
        assert {each[at] for each in seeds.values()} == set(range(6))  # every network has its turn
    assert all(len(set(each)) > 1 for each in seeds.values())  # cells do not share a number


@pytest.mark.parametrize("method", [Random(3), SuccessiveHalving(3, 1, 4, 2, seed=3)])
def test_a_search_is_that_of_a_study_with_each_choice_measured_anew(method: Method) -> None:
    made = made_up()
    seen: list[tuple[Trial, ...]] = []
    found = networks.search(made, method, budget=22, repeat=2, on_trial=seen.append)
    study = Study(PLANE, maximise=True)
    study.run(made.objective(2), method, budget=22, unit="epochs", epochs=4)
    assert [(each.config, each.value, each.spent) for each in found.trials] == [
        (each.config, each.value, each.spent) for each in study.trials
    ]
    assert [tuple(each.number for each in trials) for trials in seen] == [
        tuple(range(count)) for count in range(1, len(found.trials) + 1)
    ]
    assert 18 < found.spent[-1] == sum(trial.spent for trial in study.trials) <= 22
    best = max(study.trials, key=lambda trial: trial.value or 0)
    assert found.at(22) == (found.trials[best.number], pytest.approx(made.objective(2).fresh(best.config)))
    other = networks.search(made, method, budget=22)
    assert other.trials[0].config == found.trials[0].config
    assert [each.value for each in other.trials] != [each.value for each in found.trials]  # other networks are read


def test_a_search_can_be_cancelled_and_needs_a_budget() -> None:
    event = Event()
    told: list[int] = []

    def stop(trials: tuple[Trial, ...]) -> None:
        told.append(len(trials))
        event.set()

    with pytest.raises(training.Cancelled, match="cancelled in the middle of a search"):
        networks.search(made_up(), Random(0), budget=40, on_trial=stop, cancel=event)
    assert told == [1]
    with pytest.raises(ValueError, match="budget must be 4 epochs or more, for one trial; got 3"):
        networks.search(made_up(), Random(0), budget=3)


def test_a_line_is_searched_too(few: Dataset) -> None:
    made = networks.landscape(few, LINE, **TINY)
    objective = made.objective()
    seed, (at,) = objective.seed({"lr": 0.09}), objective.cell({"lr": 0.09})
    assert made.axes[0][at] == pytest.approx(0.1)
    assert objective({"lr": 0.09}, epochs=1) == made.curves[seed, at, 0]
    assert objective.fresh({"lr": 0.09}) == made.curves[1 - seed, at, -1]


def test_other_data_than_images(one_thread: None) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    flat = data.from_arrays(rng.normal(size=(120, 5)) + 2 * labels[:, None], labels)
    made = networks.landscape(flat, Space({"width": Int(1, 3)}), points=3, seeds=2, epochs=20)
    assert networks.network(flat, made, (2,), 1).sizes == (5, 3, 3)
    assert made.mean[2] > 1 / 3


def test_another_data_set_than_the_landscapes_is_refused(few: Dataset, digits: Dataset, plane: Landscape) -> None:
    assert plane.trained_on == few.key
    with pytest.raises(ValueError, match=f"dataset must be that of the landscape, {few.key}; got {digits.key}"):
        networks.network(digits, plane, (0, 0), 0)
    with pytest.raises(ValueError, match="dataset must be that of the landscape"):
        next(networks.grow(digits, plane))


def test_one_configuration_is_no_batch(few: Dataset) -> None:
    with pytest.raises(TypeError, match="configs must be a list of configurations: call `run` with batch"):
        Networks(few)(FAST)  # type: ignore[arg-type]
