from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import board, measure, models, training
from kit.data import Dataset
from kit.explorers import SearchExplorer
from kit.explorers import search as room
from kit.measure import Estimate
from kit.search import Bayes, Float, Grid, Int, Method, Random, Space, Study, SuccessiveHalving, Trial
from kit.search import landscape as landscapes
from kit.search.landscape import Landscape
from tests.hands import PATIENCE, settle, words
from tests.landscapes import made_up

FULL, TOP = 4, 36  # epochs of one training, and of the largest budget
METHODS = ("grid", "random", "halving", "Bayesian")
BEST = 8  # the race's last trace; before it a band and a line for each method
WIDTHS = Space({"lr": Float(1e-3, 1, log=True), "width": Int(2, 8)})

pytestmark = pytest.mark.usefixtures("own_board")

Open = Callable[[SearchExplorer], SearchExplorer]


@pytest.fixture(scope="module", autouse=True)
def quick_bayes() -> Iterator[None]:
    """Bayesian search whose nine trials all come before it asks its model, which takes long; one test asks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "Bayes", lambda seed, bounds: Bayes(start=9, seed=seed, bounds=bounds))
        yield


@pytest.fixture(scope="module")
def shared(few_digits: Dataset, board_apart: None) -> Iterator[SearchExplorer]:
    with contextlib.closing(SearchExplorer(few_digits, points=5, epochs=FULL, trainings=9)) as explorer:
        explorer.repeats.value = 4
        explorer.wait(PATIENCE)
        yield explorer


@pytest.fixture
def explorer(shared: SearchExplorer, own_board: Path) -> SearchExplorer:
    """The explorer that the tests share, its controls and board as at the beginning; four repeats, as few as can be."""
    shared.stop()
    with contextlib.suppress(Exception):  # an error of the test before
        shared.wait(PATIENCE)
    shared.read_board()
    with measure.computing(patient=True):  # the repeats that nobody wants are not searched
        shared.reset()
        shared.repeats.value = 4
        shared.wait(PATIENCE)
    return shared


def arrays(figure: Any, trace: int) -> tuple[list[Any], list[Any]]:
    drawn = figure.data[trace]
    return list(drawn.x if drawn.x is not None else ()), list(drawn.y if drawn.y is not None else ())


def methods(seed: int) -> dict[str, Method]:
    """For nine trainings of four epochs; as in `quick_bayes`."""
    return {
        "grid": Grid(3, order="shuffled", seed=seed),
        "random": Random(seed),
        "halving": SuccessiveHalving(n=9, min_epochs=1, max_epochs=FULL, eta=3, seed=seed),
        "Bayesian": Bayes(start=9, seed=seed),
    }


# With each landscape itself, so that no other one takes its id.
_known: dict[tuple[int, str, int], tuple[Landscape, list[Trial]]] = {}


def search(landscape: Landscape, method: str, seed: int) -> list[Trial]:
    """The same search, without any explorer."""
    key = (id(landscape), method, seed)
    if key not in _known:
        study = Study(landscape.space, maximise=True)
        study.run(landscape.objective(seed), methods(seed)[method], budget=TOP, unit="epochs", epochs=FULL)
        _known[key] = landscape, [dataclasses.replace(trial, seconds=0) for trial in study.trials]
    return _known[key][1]


def within(trials: list[Trial], budget: int) -> list[Trial]:
    return [trial for trial, spent in zip(trials, np.cumsum([t.spent for t in trials]), strict=True) if spent <= budget]


def winner(landscape: Landscape, method: str, seed: int, budget: int) -> tuple[Trial, float] | None:
    """The best trial within a budget, and the mean of its cell's other networks at the end."""
    done = [trial for trial in within(search(landscape, method, seed), budget) if trial.value is not None]
    if not done:
        return None
    best = max(done, key=lambda trial: trial.value or 0)  # the first of equal ones
    cell = tuple(
        min(range(len(axis)), key=lambda at: abs(parameter.encode(axis[at]) - parameter.encode(best.config[name])))
        for (name, parameter), axis in zip(landscape.space.parameters.items(), landscape.axes, strict=True)
    )
    read = landscape.objective(seed).seed(best.config)
    others = [landscape.curves[(other, *cell, -1)] for other in range(landscape.seeds) if other != read]
    return best, float(np.mean(others))


def assert_race(explorer: SearchExplorer, budgets: tuple[int, ...]) -> None:
    """What each method's choice is worth over all repeats, by hand."""
    for budget in budgets:
        by_hand = {}
        for method in METHODS:
            pairs = [winner(explorer.landscape, method, seed, budget) for seed in explorer.settings.seeds]
            if all(pairs):
                by_hand[method] = Estimate.from_values([pair[1] for pair in pairs if pair is not None]).share
        found = explorer.race(budget)
        assert list(found) == list(by_hand)
        for method, worth in found.items():
            assert dataclasses.astuple(worth) == pytest.approx(dataclasses.astuple(by_hand[method]))


def assert_shows(explorer: SearchExplorer) -> None:
    """Search, choice, worth, dots and words agree with each other and with a search made by hand."""
    settings, landscape = explorer.settings, explorer.landscape
    seed, budget, told = settings.seeds[0], settings.budget, search(landscape, settings.method, settings.seeds[0])
    assert [dataclasses.replace(each, seconds=0) for each in explorer.trajectory.trials] == told
    found = winner(landscape, settings.method, seed, budget)
    assert found is not None
    best, worth = found
    assert (explorer.incumbent.number, explorer.incumbent.config) == (best.number, best.config)
    assert explorer.value == best.value
    assert explorer.retested == pytest.approx(worth)
    assert explorer.dots.at == explorer.cursor.at == budget
    places = [list(landscape.space.encode(each.config)) for each in told]
    totals = np.cumsum([each.spent for each in told])
    rest = [[total, each.value or 0, (each.epochs or 0) / FULL] for total, each in zip(totals, told, strict=True)]
    assert np.array(explorer.dots.values) == pytest.approx(np.hstack([places, rest]))
    shown, count = arrays(explorer.figures["projection"], 2)[1], len(within(told, budget))
    assert shown == pytest.approx([100 * (trial.value or 0) for trial in told[:count]])
    assert sum(arrays(explorer.figures["rungs"], 0)[0]) == totals[count - 1]
    said = words(explorer)
    assert said.startswith(f"{settings.method}, {budget} epochs (as many as {budget // FULL} whole training")
    assert f": {count} trial{'s' * (count > 1)}." in said
    assert ("The grid is 3 x 3, for the largest budget, in shuffled order." in said) == (settings.method == "grid")
    assert f"it scored {100 * explorer.value:.1f} % after {best.epochs} epoch{'s' * (best.epochs != 1)}." in said
    assert (
        f"on {landscape.seeds - 1} other networks of its cell, trained in full, it reaches {100 * worth:.1f} %." in said
    )
    assert f"learning rate {best.config['lr']:.3g}, " in said
    assert "kit-error" not in explorer.status.value


def count(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The second argument of each call of a function of `networks` from now on."""
    calls, called = list[Any](), getattr(landscapes, name)

    def spy(*args: Any, **settings: Any) -> Any:
        calls.append(args[1])
        return called(*args, **settings)

    monkeypatch.setattr(landscapes, name, spy)
    return calls


def test_the_first_answer_comes_unasked_from_really_trained_networks(
    explorer: SearchExplorer, few_digits: Dataset
) -> None:
    assert_shows(explorer)
    assert explorer.settings == room.Settings("random", TOP, (0, 1, 2, 3), "lr")
    landscape = explorer.landscape
    assert landscape.curves.shape == (3, 5, 5, FULL) and landscape.missing == 0
    best = 100 * landscape.curves[..., -1].mean(0).max()
    assert arrays(explorer.figures["race"], BEST) == ([0, TOP], pytest.approx([best, best]))
    config = landscape.config((2, 0))
    assert config["dropout"] == 0  # that the ordinary loop can do
    net = models.MLP((64, 16, 10), seed=1)
    training.fit(net, few_digits, epochs=FULL, lr=config["lr"], seed=1)
    reached = measure.accuracy(net, few_digits.validation).value
    assert landscape.curves[1, 2, 0, -1] == pytest.approx(reached, abs=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_method(explorer: SearchExplorer, method: str) -> None:
    for budget in (20, 32, TOP):
        settle(explorer, method=method, budget=budget)
        assert_shows(explorer)
    counts = {"grid": 9, "random": 9, "Bayesian": 9, "halving": 24}  # 9 x 1 + 3 x 3 new epochs, twice
    assert len(explorer.dots.values) == counts[method]


def test_bayesian_search_asks_its_model(opened: Open, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = made_up()
    method = Bayes(seed=0, bounds=(0, 1))
    study = Study(landscape.space, maximise=True).run(landscape.objective(), method, budget=9, epochs=FULL)
    with measure.computing(patient=True), monkeypatch.context() as patch:  # no other explorer searches meanwhile
        patch.setattr(room, "Bayes", Bayes)
        explorer = opened(SearchExplorer(few_digits, trainings=9, landscape=landscape, method="Bayesian"))
        assert [trial.config for trial in explorer.trajectory.trials] == [trial.config for trial in study.trials]
        assert study.trials[-1].config != search(landscape, "Bayesian", 0)[-1].config


def test_a_move_of_the_budget_searches_nothing(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, method="halving")
    explorer.wait_curves(PATIENCE)
    race, dots = explorer.figures["race"]._panel, [list(each) for each in explorer.dots.values]
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_request", lambda *args, **settings: None)  # the worker is asked for nothing
        for budget in (8, 4, 28):  # points and cursor move before any answer
            explorer.budget.value = budget
            assert (explorer.dots.at, explorer.cursor.at, explorer.dots.values) == (budget, budget, dots)
    trajectory, searches, grown = explorer.trajectory, count(monkeypatch, "search"), count(monkeypatch, "grow")
    for budget in (4, 16, 36, 12):
        settle(explorer, budget=budget)
        assert explorer.trajectory is trajectory
        assert_shows(explorer)
    explorer.wait_curves(PATIENCE)
    settle(explorer, method="Bayesian", project="dropout")  # known from the race
    assert searches == grown == []
    assert explorer.figures["race"]._panel == race


def test_new_seeds_are_searched_anew(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    used, before = set(explorer.settings.seeds), explorer.trajectory
    with measure.computing(patient=True):
        searches = count(monkeypatch, "search")
        explorer.new_seeds_button.click()
        explorer.wait(PATIENCE)
        assert searches == [Random(1000)]
        assert not used & set(explorer.settings.seeds)
        assert explorer.seed.value == 1000
        new, old = ({trial.config["lr"] for trial in each.trials} for each in (explorer.trajectory, before))
        assert not new & old
        assert_shows(explorer)
        assert "Retested, mean" not in words(explorer)  # of one repeat there is none


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "anneal"}, "method must be one of grid, random, halving, Bayesian; got 'anneal'"),
        ({"trainings": 8}, "trainings must be 9 or more; got 8"),
        ({"points": 1}, "points must be 2 or more; got 1"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"space": Space({"lr": Float(0.1, 1)})}, "space must have two parameters, Float or Int; got lr"),
        ({"space": Space({"lr": Float(0.1, 1), "batch": Int(1, 9)})}, "networks can be tuned by .*; got 'batch'"),
        ({"landscape": landscapes.blank(room.PLANE, points=2)}, "must be complete; 12 networks are not trained"),
        ({"landscape": made_up(space=Space({"lr": Float(0.1, 1)}))}, "space must have two parameters, .*; got lr"),
        ({"landscape": made_up(), "space": WIDTHS}, "space must be left out where a landscape is given"),
        ({"space": {"lr": 1}}, "space must be a Space or None; got"),
        ({"landscape": 3}, "landscape must be a Landscape or None; got 3"),
        ({"trainings": "9"}, "trainings must be a whole number; got '9'"),
        ({"dataset": 3}, "dataset must be a Dataset"),
    ],
)
def test_a_start_that_cannot_be_is_refused(few_digits: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        SearchExplorer(**{"dataset": few_digits, **settings})


def test_worth_is_measured_on_other_networks_than_value(
    opened: Open, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = count(monkeypatch, "grow")
    landscape = made_up()
    with measure.computing(patient=True):
        explorer = opened(SearchExplorer(few_digits, trainings=9, landscape=landscape))
        for controls in ({"method": "random"}, {"method": "halving", "budget": 8}, {"seed": 7}, {"method": "grid"}):
            settle(explorer, **controls)
            assert_shows(explorer)
            ((seed, *cell, epoch),) = np.argwhere(landscape.curves == explorer.value).tolist()
            assert epoch + 1 == explorer.incumbent.epochs
            others = [landscape.curves[(other, *cell, FULL - 1)] for other in range(4) if other != seed]
            assert explorer.retested == pytest.approx(sum(others) / 3)
            assert not np.isclose(others, explorer.value).any()
        assert grown == []  # a ready landscape trains nothing


def test_a_trial_that_failed_is_not_chosen(opened: Open, few_digits: Dataset) -> None:
    landscape = made_up()
    across, up = landscape.objective().cell(search(landscape, "random", 0)[0].config)
    curves = landscape.curves.copy()
    curves[:, across, up, -1] = np.nan
    landscape = dataclasses.replace(landscape, curves=curves)
    with measure.computing(patient=True):
        explorer = opened(SearchExplorer(few_digits, trainings=9, landscape=landscape))
        settle(explorer, budget=4)
        assert words(explorer) == "random, 4 epochs (as many as 1 whole training): 1 trial. None is done so far."
        explorer.pin("nothing")
        asks: list[Callable[[], Any]] = [
            partial(getattr, explorer, name) for name in ("incumbent", "retested", "model")
        ]
        for ask in (explorer.wait, *asks):
            with pytest.raises(RuntimeError, match="no trial of random is done within 4 epochs"):
                ask()
        assert explorer.race() == {} and board.frame().empty
        settle(explorer, budget=20)
        found = winner(landscape, "random", 0, 20)
        assert found is not None
        assert explorer.incumbent.number == found[0].number > 0


def test_two_other_hyper_parameters(opened: Open, few_digits: Dataset) -> None:
    with measure.computing(patient=True):
        explorer = opened(SearchExplorer(few_digits, trainings=9, space=WIDTHS, points=3, epochs=FULL, method="grid"))
        explorer.wait(PATIENCE)
        assert_shows(explorer)
        assert explorer.code() == "SearchExplorer(dataset, space=space, method='grid', trainings=9, points=3, epochs=4)"
        assert explorer.landscape.axes[1] == (2, 5, 8)
        settle(explorer, project="width")
        assert explorer.figures["projection"].layout.xaxis.title.text == "hidden units"
        width = explorer.incumbent.config["width"]
        assert measure.parameters(explorer.model) == 64 * width + width + 10 * width + 10


def test_the_race_is_over_all_repeats(explorer: SearchExplorer) -> None:
    explorer.wait_curves(PATIENCE)
    assert explorer.curves_note.value == "curves complete: 16 searches"
    assert_race(explorer, (2, 4, 20, TOP))
    assert list(explorer.race(2)) == ["halving"]  # the others train one network in full first
    assert set(explorer.race()) == set(METHODS) and {worth.n for worth in explorer.race().values()} == {4}
    table = explorer.table().set_index(["curve", "x"])
    for method, worth in explorer.race(20).items():
        assert tuple(table.loc[method, 20]) == pytest.approx((100 * worth.value, 100 * worth.low, 100 * worth.high))
    said = "; ".join(f"{method} {worth.percent}" for method, worth in explorer.race().items())
    assert words(explorer).endswith(f"Retested, mean over up to 4 repeats: {said}.")
    settle(explorer, budget=8)
    assert explorer.race() == explorer.race(8) != explorer.race(TOP)
    assert f"halving {explorer.race(8)['halving'].percent}" in words(explorer)


def test_the_trials_of_a_search_appear_as_they_are_told(
    explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "APPEAR_SECONDS", -1.0)
    seen: list[list[list[float]]] = []
    explorer.dots.observe(lambda change: seen.append(change["new"]), "values")
    with measure.computing(patient=True):
        settle(explorer, seed=3000)
    explorer.dots.unobserve_all("values")
    assert [len(each) for each in seen] == list(range(1, 10))
    assert all(each == seen[-1][: len(each)] for each in seen)
    assert_shows(explorer)


def test_the_landscape_grows_before_the_readers_eyes(
    opened: Open, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscapes, "CHUNK", 20)  # 75 networks grow in four parts
    seen = list[Any]()
    with measure._alone(None):  # no worker begins yet
        explorer = opened(SearchExplorer(few_digits, trainings=9, points=5, epochs=FULL))
        plane = explorer.figures["plane"]

        def moved(change: Any) -> None:
            filled = sum(value is not None for row in plane.data[0].z for value in row)
            seen.append((plane.layout.title.text, filled, change["new"], words(explorer)))

        explorer.progress.observe(moved, "value")
    explorer.wait(PATIENCE)
    titles, filled, shares, said = zip(*seen, strict=True)
    assert [*dict.fromkeys(titles)][:4] == [f"{count} of 75 networks trained" for count in (0, 20, 40, 60)]
    assert [*dict.fromkeys(filled)] == [0, 20, 25]  # one network a cell first
    assert list(shares[:-1]) == sorted(shares[:-1]) and shares[-1] == 0
    assert 0 < shares[0] < 20 / 75 and {20 / 75, 40 / 75, 60 / 75, 1} <= set(shares)  # it moves within a part, too
    assert set(said[:-1]) == {"Training 75 networks: 3 at every cell, with different seeds."}
    assert explorer.figures["plane"].layout.title.text == "★ chosen, of 75 trained networks"


def test_a_stopped_landscape_goes_on_with_the_next_move(
    opened: Open, explorer: SearchExplorer, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscapes, "CHUNK", 20)

    def stop(change: Any) -> None:
        if change["new"] >= 20 / 75:  # a whole part
            other.progress.unobserve_all("value")
            other.stop_button.click()

    with measure._alone(None):  # no worker begins yet
        other = opened(SearchExplorer(few_digits, trainings=9, points=5, epochs=FULL))
        other.progress.observe(stop, "value")
    other.wait(PATIENCE)
    assert (other.progress.value, other.dots.values) == (0, [])
    part = other.landscape
    assert part.missing == 55
    other.wait_curves(PATIENCE)
    assert other.landscape is part  # nothing goes on in the background
    with measure.computing(patient=True):
        settle(other, budget=20, repeats=4)
        assert other.landscape.missing == 0
        known = np.isfinite(part.curves)
        assert np.array_equal(other.landscape.curves[known], part.curves[known])  # nothing is trained twice
        assert np.allclose(other.landscape.curves, explorer.landscape.curves, rtol=0, atol=0.005)
        assert_shows(other)


def test_a_pin_is_the_chosen_network_with_what_found_it(explorer: SearchExplorer, few_digits: Dataset) -> None:
    explorer.wait_curves(PATIENCE)
    settle(explorer, method="halving", budget=20)
    explorer.pin()
    explorer.wait(PATIENCE)
    (row,) = board.frame(few_digits.key).to_dict("records")
    chosen, landscape, objective = explorer.incumbent.config, explorer.landscape, explorer.landscape.objective(0)
    said = f"learning rate {chosen['lr']:.3g}, dropout {chosen['dropout']:.3g}"
    assert row["name"] == f"MLP found by halving search, 20 epochs: {said}"
    assert row["settings"] == {**chosen, "method": "halving", "budget": 20, "seed": 0}
    right = training.evaluate(explorer.model, few_digits.validation).correct
    wilson = Estimate.from_counts(right, len(few_digits.validation))  # the network's own interval
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (wilson.value, wilson.low, wilson.high)
    start = f"Pinned the chosen network, trained in full, as {row['name']}, {wilson.percent}. halving, 20 epochs"
    assert words(explorer).startswith(start)
    settle(explorer, budget=8)
    chosen = explorer.incumbent.config
    in_full = landscape.curves[(objective.seed(chosen), *objective.cell(chosen), -1)]
    assert in_full != explorer.value  # it was read after one epoch, and the model is that network in full
    assert measure.accuracy(explorer.model, few_digits.validation).value == pytest.approx(in_full, abs=0.005)
    assert explorer.profile.accuracy.value == pytest.approx(in_full, abs=0.005)
    assert explorer.profile.parameters == 64 * 16 + 16 + 16 * 10 + 10
