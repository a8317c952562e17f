"""Networks as objectives, against networks trained alone; landscapes, against the networks that they are made of."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import pytest

from kit import measure, models, training
from kit.data import Dataset
from kit.search import Choice, Config, Float, Int, Method, Random, Space, Study, SuccessiveHalving, Trial, networks
from kit.search import landscape as landscapes
from kit.search.grid import Listed
from kit.search.landscape import Landscape
from kit.search.networks import Networks
from tests import landscapes as unreal
from tests.nets import already_set

pytestmark = pytest.mark.usefixtures("one_thread")

PLANE = Space({"lr": Float(1e-3, 1, log=True), "dropout": Float(0.0, 0.6)})
LINE = Space({"lr": Float(1e-3, 1, log=True)})
WIDTHS = Space({"lr": Float(1e-3, 1, log=True), "width": Int(2, 6)})
TINY: dict[str, Any] = {"points": 4, "seeds": 2, "epochs": 2, "hidden": 4}
SLOW: Config = {"lr": 0.02}
FAST: Config = {"lr": 0.05}
DROPPING: Config = {"lr": 0.05, "dropout": 0.3}
BROKEN: Config = {"lr": 1e30}  # it diverges in the first step
made_up = partial(unreal.made_up, points=3, seeds=6, epochs=4, space=PLANE)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch; networks of few seeds differ much."""
    return dataclasses.replace(digits, train=digits.train.first(200))


@pytest.fixture(scope="module")
def plane(few: Dataset) -> Landscape:
    return landscapes.train(few, PLANE, **TINY)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A landscape of 32 networks grows in four parts."""
    monkeypatch.setattr(landscapes, "CHUNK", 9)


def close(one: Any, other: Any, dataset: Dataset) -> bool:
    """Equal but for two samples: in another batch, numbers are added in another order."""
    return bool(np.allclose(one, other, rtol=0, atol=2.1 / len(dataset.validation)))


def alone(dataset: Dataset, seed: int, order: int, *, width: int = 4, epochs: int = 2, lr: float = 1e-3) -> float:
    """What one network reaches, trained by the ordinary loop."""
    net = models.MLP((64, width, 10), seed=seed)
    training.fit(net, dataset, epochs=epochs, seed=order, lr=lr)
    return measure.accuracy(net, dataset.validation).value


# Networks


@pytest.mark.parametrize("config", [SLOW, FAST, {"lr": 0.05, "width": 8}])
def test_scores_are_those_of_networks_trained_alone(few: Dataset, config: Config) -> None:
    (scores,) = Networks(few, hidden=4, epochs=2, n=2)([config])
    first = networks.drawn_seed(0, config)
    wanted = [alone(few, first + number, number, **({"width": 4} | config)) for number in range(2)]
    assert close(scores, wanted, few)
    assert not close(wanted[0], wanted[1], few)  # the two seeds can be told apart


@pytest.mark.parametrize("config", [FAST, DROPPING, {**DROPPING, "width": 6}])
def test_a_configuration_scores_the_same_whatever_its_batch(few: Dataset, config: Config) -> None:
    objective = Networks(few, hidden=4, epochs=2, n=2)
    (single,) = objective([config])
    others = [SLOW, {**DROPPING, "width": 9}, BROKEN]
    together = objective([*others, config, {"width": 12}])
    assert close(together[3], single, few)
    assert close(objective([config, config]), [single, single], few)
    assert not close(together[0], single, few)


def test_another_seed_gives_fresh_numbers_and_so_does_another_configuration(few: Dataset) -> None:
    untested = dataclasses.replace(few, test=few.test.first(1))  # which is not read
    cases = ((few, 0), (untested, 0), (few, 1))
    found = [Networks(dataset, hidden=4, epochs=2, n=2, seed=seed)([SLOW, FAST]) for dataset, seed in cases]
    assert found[0] == found[1]
    first, other = ({round(score, 6) for scores in found[at] for score in scores} for at in (0, 2))
    assert len(first & other) < 2  # of four; one may be equal by chance
    assert len({networks.drawn_seed(0, config) for config in (SLOW, FAST, DROPPING)}) == 3


def test_more_epochs_where_the_trial_says_so(few: Dataset) -> None:
    objective = Networks(few, hidden=4, epochs=1)
    (longer,) = objective([FAST], epochs=6)
    assert close(longer, [alone(few, networks.drawn_seed(0, FAST), 0, epochs=6, **FAST)], few)
    assert longer[0] > objective([FAST])[0][0]


def test_a_study_trains_batches(few: Dataset) -> None:
    objective = Networks(few, hidden=4, epochs=1, n=2)
    study = Study(WIDTHS, maximise=True).run(objective, Random(0), budget=5, batch=3, epochs=2)
    assert [trial.status for trial in study.trials] == ["done"] * 5
    for trial in study.trials:
        assert trial.value == pytest.approx(np.mean(trial.scores))
        assert close(trial.scores, objective([trial.config], epochs=2)[0], few)
    assert len(objective([])) == 0


def test_a_configuration_that_diverges_fails_alone(few: Dataset) -> None:
    assert np.isnan(Networks(few, hidden=4, epochs=1, n=2)([BROKEN])[0]).all()
    space = Space({"lr": Float(1e-3, 1e30, log=True)})
    study = Study(space, maximise=True)
    study.run(Networks(few, hidden=4, epochs=1), Listed([FAST, BROKEN, SLOW]), budget=3, batch=3)
    assert [trial.status for trial in study.trials] == ["done", "failed", "done"]
    assert "finite number is needed" in study.trials[1].error


def scoring(*configs: Any) -> Callable[[Dataset], Any]:
    return lambda few: Networks(few, hidden=4, epochs=1)([SLOW, *configs])


def growing(space: Space, **settings: Any) -> Callable[[Dataset], Any]:
    return lambda few: landscapes.train(few, space, **settings, cancel=already_set())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (scoring({"lr": 0.1, "momentum": 0.5}), "networks can be tuned by lr, weight_decay, .* beta2; got 'momentum'"),
        (scoring({"lr": -1}), "lr must be above 0; got -1"),
        (scoring({"dropout": 1.0}), r"dropout must lie in \[0, 1\); got 1.0"),
        (scoring({"width": 0}), "width must be 1 or more; got 0"),
        (lambda few: Networks(few)(SLOW), "configs must be a list of configurations: call `run` with batch"),  # type: ignore[arg-type]
        *(
            (lambda few, name=name: Networks(few, **{name: 0}), f"{name} must be 1 or more; got 0")
            for name in ("hidden", "epochs", "n", "batch_size")
        ),
        (lambda few: Networks(few, hidden=1.5), "hidden must be a whole number; got 1.5"),  # type: ignore[arg-type]
        (lambda few: Networks(few, seed=-1), "seed must be 0 or more; got -1"),
        (lambda few: Networks(None), "dataset must be a Dataset.*got None"),  # type: ignore[arg-type]
        (
            growing(Space({**PLANE.parameters, "width": Int(1, 3)})),
            "one or two parameters, .*; got lr, dropout, width",
        ),
        (growing(Space({"width": Choice(2, 4)})), "one or two parameters, Float or Int; got width"),
        (growing(Space({"batch": Int(1, 3)})), "networks can be tuned by .*; got 'batch'"),
        (growing(Space({"dropout": Float(0.0, 1.0)})), r"dropout must lie in \[0, 1\); got 1.0"),
        (growing(Space({"lr": Float(0.0, 1.0)})), "lr must be above 0; got 0.0"),
        (growing(Space({"width": Float(2, 8)})), "width must be a whole number; got 2.0"),
        (growing({"lr": Float(1e-3, 1)}), "space must be a Space; got {'lr': "),  # type: ignore[arg-type]
        (
            lambda few: landscapes.search(landscapes.blank(LINE), Random(), budget=99),
            "landscape must be complete; 60 net",
        ),
        (lambda few: landscapes.search(None, Random(), budget=99), "landscape must be a Landscape; got None"),  # type: ignore[arg-type]
        (lambda few: made_up().objective("1"), "repeat must be a whole number; got '1'"),  # type: ignore[arg-type]
        (lambda few: landscapes.network(few, made_up(), (0, 5), 0), r"cell must lie in 0 .. 2; got 5"),
        (
            lambda few: landscapes.network(few, made_up(), (0,), 0),
            r"cell must be 2 numbers, one for each axis; got \(0,\)",
        ),
        (lambda few: landscapes.network(few, made_up(), 3, 0), "cell must be a number for each axis; got 3"),  # type: ignore[arg-type]
        (growing(PLANE, points=2.5), "points must be a whole number; got 2.5"),
        *((growing(PLANE, **{name: 1}), f"{name} must be 2 or more; got 1") for name in ("points", "seeds")),
        *((growing(PLANE, **{name: 0}), f"{name} must be 1 or more; got 0") for name in ("epochs", "hidden")),
    ],
)
def test_what_trains_nobody_is_refused_before_any_training(
    few: Dataset, call: Callable[[Dataset], Any], sentence: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call(few)


def test_training_can_be_cancelled(few: Dataset) -> None:
    with pytest.raises(training.Cancelled, match="cancelled in epoch 1 of 2, before batch 1"):
        Networks(few, hidden=4, epochs=2)([SLOW], cancel=already_set())
    event, objective = Event(), Networks(few, hidden=4, epochs=1)
    study = Study(LINE, maximise=True)
    study.run(objective, Random(0), budget=9, batch=2, cancel=event, on_trial=lambda _: event.set())
    assert len(study.trials) == 2


# Landscapes: their cells


def test_a_blank_landscape_has_its_axes_and_the_mean_is_over_the_networks_that_are_trained() -> None:
    blank = landscapes.blank(WIDTHS, points=3, seeds=2, epochs=5)
    assert blank.axes == (pytest.approx((1e-3, 10**-1.5, 1)), (2, 4, 6))
    assert blank.curves.shape == (2, 3, 3, 5)
    assert (blank.seeds, blank.epochs, blank.missing) == (2, 5, 18)
    assert np.isnan(blank.curves).all() and np.isnan(blank.mean).all()
    assert blank.config((1, 2)) == {"lr": pytest.approx(10**-1.5), "width": 6}
    assert (blank.widest, landscapes.blank(LINE, hidden=9).widest) == (6, 9)
    assert landscapes.blank(WIDTHS, points=20).axes[1] == (2, 3, 4, 5, 6)  # each whole number once
    curves = blank.curves.copy()
    curves[0, 0, 0, -1], curves[1, 0, 0, -1], curves[1, 0, 1, -1] = 0.4, 0.6, 0.3
    curves[:, 0, :2, :-1] = np.where(np.isnan(curves[:, 0, :2, -1:]), np.nan, 0.1)
    part = dataclasses.replace(blank, curves=curves)
    assert part.missing == 15
    assert part.mean[0] == pytest.approx([0.5, 0.3, math.nan], nan_ok=True)
    assert np.isnan(part.mean[1:]).all()


# Landscapes: growing


@pytest.mark.usefixtures("small_chunks")
def test_each_part_adds_networks_until_every_cell_is_filled(few: Dataset, plane: Landscape) -> None:
    grown = list(landscapes.grow(few, landscapes.blank(PLANE, **TINY)))
    assert [each.missing for each in grown] == [23, 14, 5, 0]
    for before, after in itertools.pairwise(grown):
        known = np.isfinite(before.curves)
        assert np.array_equal(before.curves[known], after.curves[known])  # nothing is trained twice
    assert np.isfinite(grown[-1].curves).all()
    assert close(grown[-1].curves, plane.curves, few)  # which was trained all at once
    assert len(np.unique(plane.curves)) > 20


@pytest.mark.parametrize("points", [4, 5])
def test_every_fourth_of_each_axis_comes_first(few: Dataset, monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    monkeypatch.setattr(landscapes, "CHUNK", 1)
    order: list[tuple[int, ...]] = []
    before = landscapes.blank(PLANE, points=points, seeds=2, epochs=1, hidden=1)
    for after in landscapes.grow(few, before):
        order += [tuple(map(int, new)) for new in np.argwhere(np.isnan(before.curves) & np.isfinite(after.curves))]
        before = after
    cells = [place[1:3] for place in order]
    assert [place[0] for place in order] == [0] * points**2 + [1] * points**2  # one network each, then the second
    assert cells[: points**2] == cells[points**2 :]
    spacings = [next(step for step in (4, 2, 1) if all(at % step == 0 for at in cell)) for cell in cells[: points**2]]
    assert spacings == sorted(spacings, reverse=True)
    corners = {(0, 0)} if points == 4 else {(0, 0), (0, 4), (4, 0), (4, 4)}
    assert set(cells[: len(corners)]) == corners


@pytest.mark.usefixtures("small_chunks")
def test_a_landscape_goes_on_where_it_stopped(few: Dataset, plane: Landscape) -> None:
    event = Event()
    growing = landscapes.grow(few, landscapes.blank(PLANE, **TINY), cancel=event)
    kept = next(growing)
    event.set()
    with pytest.raises(training.Cancelled):
        next(growing)
    assert kept.missing == 32 - 9
    assert np.isfinite(kept.curves).all(-1).sum() == 9  # what was yielded is whole
    untouched = kept.curves.copy()
    rest = list(landscapes.grow(few, kept))
    assert [each.missing for each in rest] == [14, 5, 0]
    assert close(rest[-1].curves, plane.curves, few)
    assert np.array_equal(kept.curves, untouched, equal_nan=True)
    (again,) = landscapes.grow(few, rest[-1], cancel=already_set())  # nothing is left to train
    assert again is rest[-1]


OTHERS = Space({"label_smoothing": Float(0, 0.5), "weight_decay": Float(0, 1)})


@pytest.mark.parametrize(
    ("space", "cells"),
    [(PLANE, [(2, 1), (1, 3)]), (WIDTHS, [(1, 0), (2, 3)]), (LINE, [(1,), (3,)]), (OTHERS, [(1, 2)])],
)
def test_each_network_is_trained_again_as_it_was(few: Dataset, space: Space, cells: list[tuple[int, ...]]) -> None:
    made = landscapes.train(few, space, **TINY)
    assert made.curves.shape == (2, *(4,) * len(space), 2)
    assert (made.missing, made.mean.shape) == (0, (4,) * len(space))
    assert len(np.unique(made.curves)) > 5
    for cell, seed in itertools.product(cells, (0, 1)):
        net, config = landscapes.network(few, made, cell, seed), made.config(cell)
        assert net.sizes == (64, config.get("width", 4), 10)
        assert close(measure.accuracy(net, few.validation).value, made.curves[(seed, *cell, -1)], few)
        if config.keys() <= {"lr", "width"}:
            wanted = [alone(few, seed, seed, epochs=epochs, **config) for epochs in (1, 2)]
            assert close(made.curves[(seed, *cell)], wanted, few)
    with pytest.raises(ValueError, match=r"seed must lie in 0 \.\. 1; got 2"):
        landscapes.network(few, made, cells[0], 2)


@pytest.mark.parametrize("finite", [0, 1])
def test_a_network_that_diverged_counts_as_trained_and_knows_nothing(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, finite: int
) -> None:
    """At once, and after an epoch: what is measured of it then is NaN."""
    measured = networks.accuracies
    calls: list[np.ndarray] = []

    def broken(together: Any, dataset: Dataset) -> np.ndarray:
        calls.append(measured(together, dataset))
        found = calls[-1].copy()
        if len(calls) > finite:
            found[0] = np.nan
        return found

    monkeypatch.setattr(landscapes, "accuracies", broken)
    made = landscapes.train(few, LINE, **TINY)
    assert made.missing == 0
    assert made.curves[0, 0].tolist() == [calls[0][0], 0] if finite else [0, 0]
    assert np.isfinite(made.mean).all()
    objective = made.objective()
    assert np.isfinite([objective(made.config((0,))), objective.retest(made.config((0,)))]).all()


def test_a_cell_that_diverges_is_trained_once(few: Dataset) -> None:
    wild = Space({"lr": Float(1e-2, 1e30, log=True)})
    made = landscapes.train(few, wild, **TINY | {"points": 2, "epochs": 1})
    assert made.missing == 0
    assert made.mean[1] == 0 < made.mean[0]


# Landscapes: searching them


def read_from(landscape: Landscape, value: float) -> tuple[int, ...]:
    """Seed, cell and epoch that hold a number."""
    (place,) = np.argwhere(landscape.curves == value)
    return tuple(place.tolist())


@pytest.mark.parametrize(
    ("lr", "dropout", "cell"),
    [
        (1e-3, 0.0, (0, 0)),
        (1.0, 0.6, (2, 2)),
        (10**-2.3, 0.1, (0, 0)),
        (10**-2.2, 0.2, (1, 1)),  # by the logarithm; on a plain axis it were the first
        (0.2, 0.44, (2, 1)),
        (0.17, 0.46, (1, 2)),
    ],
)
def test_a_trial_reads_the_nearest_cell(lr: float, dropout: float, cell: tuple[int, ...]) -> None:
    made, config = made_up(), {"lr": lr, "dropout": dropout}
    assert made.objective().cell(config) == read_from(made, made.objective()(config))[1:3] == cell


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
    halving = SuccessiveHalving(2, min_epochs=2, max_epochs=4, eta=2)
    study = Study(PLANE, maximise=True).run(made_up().objective(), halving, budget=6, unit="epochs")
    assert [(trial.epochs, trial.spent) for trial in study.trials] == [(2, 2), (2, 2), (4, 2)]


def test_fresh_is_the_mean_of_the_other_networks() -> None:
    made = made_up()
    for repeat in range(5):
        objective = made.objective(repeat)
        for cell in ((0, 0), (1, 2)):
            config = made.config(cell)
            own = read_from(made, objective(config))[0]
            others = [float(made.curves[(seed, *cell, 3)]) for seed in range(6) if seed != own]
            assert objective.retest(config) == pytest.approx(sum(others) / 5)


def test_a_search_that_comes_back_to_a_cell_never_reads_what_its_retest_measures() -> None:
    made = made_up()
    for repeat in range(20):
        objective, read = made.objective(repeat), set[tuple[int, ...]]()
        for place in np.random.default_rng(repeat).random((40, 2)):  # several in each of the nine cells
            config = made.space.decode(place)
            read.add((objective.seed(config), *objective.cell(config)))
        assert len(read) == len({place[1:] for place in read})


def test_another_repeat_reads_other_networks() -> None:
    made = made_up()
    configs = [made.config(cell) for cell in np.ndindex(3, 3)]
    seeds = {repeat: [made.objective(repeat).seed(config) for config in configs] for repeat in range(60)}
    assert seeds[4] == [made.objective(4).seed(config) for config in configs]  # the same again
    assert len({tuple(each) for each in seeds.values()}) == 60
    for at in range(9):
        assert {each[at] for each in seeds.values()} == set(range(6))  # every network has its turn
    assert all(len(set(each)) > 1 for each in seeds.values())  # cells do not share a number


@pytest.mark.parametrize("method", [Random(3), SuccessiveHalving(3, max_epochs=4, eta=2, seed=3)])
def test_a_search_is_that_of_a_study_with_each_choice_measured_anew(method: Method) -> None:
    made = made_up()
    seen: list[tuple[Trial, ...]] = []
    found = landscapes.search(made, method, budget=22, repeat=2, on_trial=seen.append)
    study = Study(PLANE, maximise=True)
    study.run(made.objective(2), method, budget=22, unit="epochs", epochs=4)
    compared = zip(found.trials, study.trials, strict=True)
    assert all((one.config, one.value, one.spent) == (two.config, two.value, two.spent) for one, two in compared)
    assert [[each.number for each in trials] for trials in seen] == [list(range(at + 1)) for at in range(len(seen))]
    assert seen[-1][-1].number == found.trials[-1].number
    assert 18 < found.spent[-1] == sum(trial.spent for trial in study.trials) <= 22
    best = max(study.trials, key=lambda trial: trial.value or 0)
    assert found.at(22) == (found.trials[best.number], pytest.approx(made.objective(2).retest(best.config)))
    other = landscapes.search(made, method, budget=22)
    assert other.trials[0].config == found.trials[0].config
    assert [each.value for each in other.trials] != [each.value for each in found.trials]  # other networks are read


def test_a_search_can_be_cancelled_and_needs_a_budget() -> None:
    event = Event()
    told: list[int] = []

    def stop(trials: tuple[Trial, ...]) -> None:
        told.append(len(trials))
        event.set()

    with pytest.raises(training.Cancelled, match="cancelled in the middle of a search"):
        landscapes.search(made_up(), Random(0), budget=40, on_trial=stop, cancel=event)
    assert told == [1]
    with pytest.raises(ValueError, match="budget must be 4 epochs or more, for one trial; got 3"):
        landscapes.search(made_up(), Random(0), budget=3)


def test_a_line_is_searched_too() -> None:
    made, config = unreal.made_up(space=LINE, points=4), {"lr": 0.09}
    objective = made.objective()
    assert objective.cell(config) == (2,)  # 0.1
    assert objective(config, epochs=1) == made.curves[objective.seed(config), 2, 0]


def test_other_data_than_images(tiny: Dataset) -> None:
    made = landscapes.train(tiny, Space({"width": Int(1, 3)}), points=3, seeds=2, epochs=80)
    assert landscapes.network(tiny, made, (2,), 1).sizes == (6, 3, 3)
    assert made.mean[2] > 0.4


def test_another_data_set_than_the_landscapes_is_refused(few: Dataset, digits: Dataset, plane: Landscape) -> None:
    for call in (lambda: landscapes.network(digits, plane, (0, 0), 0), lambda: next(landscapes.grow(digits, plane))):
        with pytest.raises(ValueError, match=f"dataset must be that of the landscape, {few.key}; got {digits.key}"):
            call()
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        next(landscapes.grow(few.train, plane))  # type: ignore[arg-type]
