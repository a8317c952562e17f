from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import matplotlib.image
import numpy as np
import pytest

from kit import board, measure, models, training
from kit.data import Dataset
from kit.explorers import SearchExplorer
from kit.explorers import base as base_room
from kit.explorers import search as room
from kit.explorers import worker as worker_room
from kit.explorers.page import Cursor, Trials
from kit.measure import Estimate
from kit.search import Bayes, Float, Grid, Int, Method, Random, Space, Study, SuccessiveHalving, Trial, networks
from kit.search.networks import Landscape
from tests.hands import PATIENCE, settle, words

FULL, TOP = 4, 36  # epochs of one training, and of the largest budget
METHODS = ("grid", "random", "halving", "Bayesian")
BEST = 8  # the race's last trace; before it a band and a line for each method
WIDTHS = Space({"lr": Float(1e-3, 1, log=True), "width": Int(2, 8)})

pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def few_digits(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch."""
    return dataclasses.replace(digits, train=digits.train.first(200))


@pytest.fixture(scope="module", autouse=True)
def quick_bayes() -> Iterator[None]:
    """Bayesian search whose nine trials all come before it asks its model, which takes long; one test asks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "Bayes", lambda seed: Bayes(start=9, seed=seed))
        yield


@pytest.fixture(scope="module")
def shared(few_digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchExplorer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_BOARD", str(tmp_path_factory.mktemp("shared") / "board.sqlite"))
        explorer = SearchExplorer(few_digits, points=5, epochs=FULL, trainings=9)
        explorer.repeats.value = 4
        explorer.wait(PATIENCE)
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(shared: SearchExplorer, own_board: Path) -> SearchExplorer:
    """The explorer that the tests share, its controls and board as at the beginning; four repeats, as few as can be."""
    shared.stop()
    with contextlib.suppress(Exception):  # an error of the test before
        shared.wait(PATIENCE)
    shared.read_board()
    with worker_room.quiet():  # the repeats that nobody wants are not searched
        shared.reset()
        shared.repeats.value = 4
        shared.wait(PATIENCE)
    return shared


@pytest.fixture
def opened() -> Iterator[Callable[..., SearchExplorer]]:
    """Make explorers that are closed at the end of the test."""
    made: list[SearchExplorer] = []

    def make(*args: Any, **settings: Any) -> SearchExplorer:
        made.append(SearchExplorer(*args, **{"trainings": 9, **settings}))
        return made[-1]

    yield make
    for explorer in made:
        explorer.close()


def made_up(*, points: int = 5, seeds: int = 4, space: Space = room.PLANE) -> Landscape:
    """A complete landscape of numbers that are all different: each tells which network was read."""
    blank = networks.blank(space, points=points, seeds=seeds, epochs=FULL)
    order = np.random.default_rng(5).permutation(blank.curves.size)
    return dataclasses.replace(blank, curves=order.reshape(blank.curves.shape) / order.size)


def is_error(explorer: SearchExplorer) -> bool:
    return "kit-error" in explorer.status.value


def arrays(figure: Any, trace: int) -> tuple[list[Any], list[Any]]:
    drawn = figure.data[trace]
    return list(drawn.x if drawn.x is not None else ()), list(drawn.y if drawn.y is not None else ())


def methods(seed: int) -> dict[str, Method]:
    """For nine trainings of four epochs; as in `quick_bayes`."""
    return {
        "grid": Grid(3, order="shuffled", seed=seed),
        "random": Random(seed),
        "halving": SuccessiveHalving(n=9, least=1, most=FULL, eta=3, seed=seed),
        "Bayesian": Bayes(start=9, seed=seed),
    }


class Told(NamedTuple):
    trial: Trial
    spent: int  # epochs, when it was told


# With each landscape itself, so that no other one takes its id.
_known: dict[tuple[int, str, int], tuple[Landscape, list[Told]]] = {}


def search(landscape: Landscape, method: str, seed: int) -> list[Told]:
    """The same search, without any explorer."""
    key = (id(landscape), method, seed)
    if key not in _known:
        study = Study(landscape.space, maximise=True)
        study.run(landscape.objective(seed), methods(seed)[method], budget=TOP, unit="epochs", epochs=FULL)
        totals = np.cumsum([trial.spent for trial in study.trials]).tolist()
        _known[key] = landscape, [Told(*pair) for pair in zip(study.trials, totals, strict=True)]
    return _known[key][1]


def winner(landscape: Landscape, method: str, seed: int, budget: int) -> tuple[Trial, float] | None:
    """The best trial within a budget, and the mean of its cell's other networks at the end."""
    within = [told.trial for told in search(landscape, method, seed) if told.spent <= budget]
    done = [trial for trial in within if trial.value is not None]
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


def assert_shows(explorer: SearchExplorer) -> None:
    """Search, choice, worth, dots, pictures and words agree with each other and with a search made by hand."""
    settings, landscape = explorer.settings, explorer.landscape
    seed, budget, space = settings.seeds[0], settings.budget, landscape.space
    told = search(landscape, settings.method, seed)
    within = [each.trial for each in told if each.spent <= budget]
    assert [dataclasses.replace(each, seconds=0) for each in explorer.track.trials] == [
        dataclasses.replace(each.trial, seconds=0) for each in told
    ]
    found = winner(landscape, settings.method, seed, budget)
    assert found is not None
    best, worth = found
    assert (explorer.chosen.number, explorer.chosen.config) == (best.number, best.config)
    assert explorer.value == best.value
    assert explorer.worth == pytest.approx(worth)
    # The overlays.
    assert explorer.dots.budget == explorer.cursor.x == budget
    places = [list(space.encode(each.trial.config)) for each in told]
    rest = [[each.spent, each.trial.value or 0, (each.trial.epochs or 0) / FULL] for each in told]
    assert np.array(explorer.dots.trials) == pytest.approx(np.hstack([places, rest]))
    # The pictures.
    assert np.array(explorer._plane.data[0].z, dtype=float) == pytest.approx(100 * landscape.mean.T)
    projected = space.names.index(settings.project)
    x, y = arrays(explorer._projection, 2)
    assert x == pytest.approx([place[projected] for place in places[: len(within)]])
    assert y == pytest.approx([100 * (trial.value or 0) for trial in within])
    spent = {epochs: sum(trial.spent for trial in within if trial.epochs == epochs) for epochs in (1, FULL)}
    bars = dict(zip(*reversed(arrays(explorer._rungs, 0)), strict=True))
    for epochs, name in ((1, "1 epoch"), (FULL, f"{FULL} epochs")):
        assert bars.get(name, 0) == spent[epochs]
    assert_course(explorer, settings.method)
    # The words.
    said = words(explorer)
    assert said.startswith(f"{settings.method}, {budget} epochs (as many as {budget // FULL} whole training")
    assert f": {len(within)} trial{'s' * (len(within) > 1)}." in said
    assert f"it scored {100 * explorer.value:.1f} % after {best.epochs} epochs." in said
    assert f"on {landscape.seeds - 1} other networks trained in full, such a one is worth {100 * worth:.1f} %." in said
    assert f"learning rate {best.config['lr']:.3g}, " in said
    assert not is_error(explorer)


def assert_course(explorer: SearchExplorer, method: str) -> None:
    """The painted line of a method is the mean worth, over those of its repeats that are searched."""
    known = [seed for seed in explorer.settings.seeds if (method, seed) in explorer._tracks]
    course: dict[int, float] = {}
    for budget in range(FULL, TOP + 1, FULL):
        found = [winner(explorer.landscape, method, seed, budget) for seed in known]
        if all(found):
            course[budget] = 100 * float(np.mean([pair[1] for pair in found if pair is not None]))
    x, y = arrays(explorer._race_plot, 2 * METHODS.index(method) + 1)
    assert x == list(course)
    assert y == pytest.approx(list(course.values()))


def count_searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method of each search that an explorer makes from now on."""
    counted: list[str] = []
    search_it = networks.search

    def spy(landscape: Landscape, method: Method, **settings: Any) -> Any:
        counted.append(type(method).__name__)
        return search_it(landscape, method, **settings)

    monkeypatch.setattr(networks, "search", spy)
    return counted


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def never(*args: Any, **settings: Any) -> Any:
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(networks, name, never)


# --- the controls -----------------------------------------------------------------------------------------------


def test_the_first_answer_comes_unasked(explorer: SearchExplorer) -> None:
    assert_shows(explorer)
    assert explorer.settings == room.Settings("random", TOP, (0, 1, 2, 3), "lr")
    landscape = explorer.landscape
    assert landscape.space.names == ("lr", "dropout")
    assert landscape.curves.shape == (3, 5, 5, FULL)
    assert landscape.missing == 0
    assert explorer._plane.layout.title.text == "★ chosen, of 75 trained networks"
    best = 100 * landscape.curves[..., -1].mean(0).max()
    assert arrays(explorer._race_plot, BEST) == ([0, TOP], pytest.approx([best, best]))


def test_the_landscape_is_really_trained(explorer: SearchExplorer, few_digits: Dataset) -> None:
    cell, seed = (2, 0), 1
    config = explorer.landscape.config(cell)
    assert config["dropout"] == 0  # that the ordinary loop can do
    net = models.MLP((64, 16, 10), seed=seed)
    training.fit(net, few_digits, epochs=FULL, lr=config["lr"], seed=seed)
    reached = measure.accuracy(net, few_digits.validation).value
    assert explorer.landscape.curves[(seed, *cell, -1)] == pytest.approx(reached, abs=0.005)


def test_the_overlays_stand_over_the_first_two_figures(explorer: SearchExplorer) -> None:
    _, cursor, dots = explorer.children[1].children
    assert (cursor, dots) == (explorer.cursor, explorer.dots)
    assert isinstance(cursor, Cursor) and isinstance(dots, Trials)
    assert (explorer.cursor.figure, explorer.dots.figure) == (0, 1)
    assert explorer.cursor.text == "budget"
    assert Trials().trials == []


@pytest.mark.parametrize("method", METHODS)
def test_method(explorer: SearchExplorer, method: str) -> None:
    settle(explorer, method=method)
    assert_shows(explorer)
    counts = {"grid": 9, "random": 9, "Bayesian": 9, "halving": 24}  # 9 x 1 + 3 x 3 new epochs, twice
    assert len(explorer.dots.trials) == counts[method]
    colours = {drawn.marker.color for drawn in (explorer._projection.data[2], explorer._rungs.data[0])}
    assert colours == {explorer._race_plot.data[2 * METHODS.index(method) + 1].line.color}


def test_bayesian_search_asks_its_model(
    opened: Callable[..., SearchExplorer], few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    landscape = made_up()
    study = Study(landscape.space, maximise=True)
    study.run(landscape.objective(), Bayes(seed=0), budget=9, epochs=FULL)
    with worker_room.quiet(), monkeypatch.context() as patch:  # no other explorer searches meanwhile
        patch.setattr(room, "Bayes", Bayes)
        explorer = opened(few_digits, landscape=landscape, method="Bayesian")
        assert [trial.config for trial in explorer.track.trials] == [trial.config for trial in study.trials]
        assert study.trials[-1].config != search(landscape, "Bayesian", 0)[-1].trial.config


@pytest.mark.parametrize("method", ["random", "halving"])
@pytest.mark.parametrize("budget", [4, 8, 20, 32])
def test_budget(explorer: SearchExplorer, method: str, budget: int) -> None:
    settle(explorer, method=method, budget=budget)
    assert_shows(explorer)


def test_a_budget_of_one_training_is_said_in_the_singular(explorer: SearchExplorer) -> None:
    settle(explorer, budget=4)
    assert words(explorer).startswith("random, 4 epochs (as many as 1 whole training): 1 trial.")
    assert explorer._projection.layout.title.text == "1 trial, 1 value of learning rate"


def test_the_budget_moves_points_and_cursor_before_any_answer(
    explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [list(each) for each in explorer.dots.trials]
    monkeypatch.setattr(explorer, "_request", lambda *args, **settings: None)  # the worker is asked for nothing
    for budget in (8, 4, 28):
        explorer.budget.value = budget
        assert (explorer.dots.budget, explorer.cursor.x) == (budget, budget)
    assert explorer.dots.trials == before  # one number is sent, not the trials


def test_a_move_of_the_budget_searches_nothing(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, method="halving")
    explorer.wait_sweep(PATIENCE)
    race = [arrays(explorer._race_plot, trace) for trace in range(9)]
    track, searches = explorer.track, count_searches(monkeypatch)
    forbid(monkeypatch, "grow")
    for budget in (4, 16, 36, 12):
        settle(explorer, budget=budget)
        assert explorer.track is track
        assert_shows(explorer)
    explorer.wait_sweep(PATIENCE)
    settle(explorer, method="Bayesian", project="dropout")  # known from the race
    assert not searches
    assert [arrays(explorer._race_plot, trace) for trace in range(9)] == race


def test_a_burst_of_moves_ends_at_the_last(explorer: SearchExplorer) -> None:
    for budget in (*explorer.budget.stops, 16):
        explorer.budget.value = int(budget)
    explorer.wait(PATIENCE)
    assert explorer.settings.budget == 16
    assert_shows(explorer)


def test_project(explorer: SearchExplorer) -> None:
    settle(explorer, method="grid")
    assert explorer._projection.layout.title.text == "9 trials, 3 values of learning rate"
    ridge = 100 * explorer.landscape.mean.max(1)
    assert arrays(explorer._projection, 0)[1] == pytest.approx(ridge.tolist())
    settle(explorer, project="dropout")
    assert_shows(explorer)
    assert explorer._projection.layout.title.text == "9 trials, 3 values of dropout"
    assert explorer._projection.layout.xaxis.title.text == "dropout"
    assert arrays(explorer._projection, 0)[1] == pytest.approx((100 * explorer.landscape.mean.max(0)).tolist())
    settle(explorer, method="random")
    assert explorer._projection.layout.title.text == "9 trials, 9 values of dropout"


def test_seed(explorer: SearchExplorer) -> None:
    before = explorer.track
    settle(explorer, seed=2)
    assert explorer.settings.seeds == (2, 3, 4, 5)
    assert_shows(explorer)
    assert explorer.track.trials[0].config != before.trials[0].config


def test_new_seeds_are_searched_anew(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    used, before = set(explorer.settings.seeds), explorer.track
    with worker_room.quiet():
        searches = count_searches(monkeypatch)
        explorer.new_seeds_button.click()
        explorer.wait(PATIENCE)
        assert searches == ["Random"]
        assert not used & set(explorer.settings.seeds)
        assert explorer.seed.value == 1000
        assert {trial.config["lr"] for trial in explorer.track.trials}.isdisjoint(
            trial.config["lr"] for trial in before.trials
        )
        assert_shows(explorer)
        assert "Mean worth" not in words(explorer)  # of one repeat there is none


def test_reset(explorer: SearchExplorer) -> None:
    with worker_room.quiet():
        settle(explorer, method="grid", budget=8, project="dropout", seed=3)
        explorer.pin_name.value = "some"
        explorer.reset_button.click()
        assert (explorer.dots.budget, explorer.cursor.x) == (TOP, TOP)
        explorer.wait(PATIENCE)
        assert explorer.settings == room.Settings("random", TOP, tuple(range(8)), "lr")
        assert explorer.pin_name.value == ""
        assert_shows(explorer)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "anneal"}, "method must be one of grid, random, halving, Bayesian; got 'anneal'"),
        ({"trainings": 8}, "trainings must be 9 or more; got 8"),
        ({"points": 1}, "points must be 2 or more; got 1"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"space": Space({"lr": Float(0.1, 1)})}, "space must have two parameters, Float or Int; got lr"),
        ({"space": Space({"lr": Float(0.1, 1), "batch": Int(1, 9)})}, "networks can be tuned by .*; got 'batch'"),
        (
            {"landscape": networks.blank(room.PLANE, points=2)},
            "landscape must be complete; 12 networks are not trained",
        ),
        ({"landscape": made_up(space=Space({"lr": Float(0.1, 1)}))}, "space must have two parameters; got lr"),
    ],
)
def test_a_start_that_cannot_be_is_refused(few_digits: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SearchExplorer(few_digits, **settings)


def test_what_is_no_data_set_is_refused(few_digits: Dataset) -> None:
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        SearchExplorer(few_digits.train)  # type: ignore[arg-type]


def test_a_value_that_no_control_has_is_refused_and_changes_nothing(explorer: SearchExplorer) -> None:
    before = explorer.settings
    with pytest.raises(ValueError, match=r"budget must be one of the slider's 9 stops from 4 to 36; got 5, .* 4 and 8"):
        explorer.budget.value = 5
    with pytest.raises(ValueError, match="repeats must be one of the slider's 4 stops from 4 to 32; got 5"):
        explorer.repeats.value = 5
    for control in (explorer.method, explorer.project):
        with pytest.raises(Exception, match="(?i)invalid selection"):
            control.value = "nonsense"
    with pytest.raises(AttributeError, match=r"budget is a control: set budget\.value = 8 instead"):
        explorer.budget = 8  # type: ignore[assignment]
    assert explorer.settings == before


# --- what a choice is worth -------------------------------------------------------------------------------------


def test_worth_is_measured_on_other_networks_than_value(
    opened: Callable[..., SearchExplorer], few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "grow")  # a ready landscape trains nothing
    landscape = made_up()
    with worker_room.quiet():
        explorer = opened(few_digits, landscape=landscape)
        for controls in ({"method": "random"}, {"method": "halving", "budget": 8}, {"seed": 7}, {"method": "grid"}):
            settle(explorer, **controls)
            assert_shows(explorer)
            ((seed, *cell, epoch),) = np.argwhere(landscape.curves == explorer.value).tolist()
            assert epoch + 1 == explorer.chosen.epochs
            others = [landscape.curves[(other, *cell, FULL - 1)] for other in range(4) if other != seed]
            assert explorer.worth == pytest.approx(sum(others) / 3)
            assert not np.isclose(others, explorer.value).any()


def test_the_model_is_the_network_that_was_read(explorer: SearchExplorer, few_digits: Dataset) -> None:
    settle(explorer, method="halving", budget=8)
    chosen, landscape = explorer.chosen, explorer.landscape
    objective = landscape.objective(0)
    cell, seed = objective.cell(chosen.config), objective.seed(chosen.config)
    in_full = landscape.curves[(seed, *cell, -1)]
    assert in_full != explorer.value  # it was read after one epoch
    assert training.evaluate(explorer.model, few_digits.validation).correct / len(
        few_digits.validation
    ) == pytest.approx(in_full, abs=0.005)
    profile = explorer.profile
    assert profile.parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert profile.accuracy.value == pytest.approx(in_full, abs=0.005)
    assert profile.accuracy.n == len(few_digits.validation)


def test_a_trial_that_failed_is_not_chosen(opened: Callable[..., SearchExplorer], few_digits: Dataset) -> None:
    landscape = made_up()
    across, up = landscape.objective().cell(search(landscape, "random", 0)[0].trial.config)
    curves = landscape.curves.copy()
    curves[:, across, up, -1] = np.nan
    landscape = dataclasses.replace(landscape, curves=curves)
    with worker_room.quiet():
        explorer = opened(few_digits, landscape=landscape)
        settle(explorer, budget=4)
        assert words(explorer) == "random, 4 epochs (as many as 1 whole training): 1 trial. None is done so far."
        for read in (lambda: explorer.chosen, lambda: explorer.value, lambda: explorer.worth, lambda: explorer.model):
            with pytest.raises(RuntimeError, match="no trial of random is done within 4 epochs"):
                read()
        assert explorer.race() == {}
        explorer.pin("nothing")
        with pytest.raises(RuntimeError, match="no trial of random is done within 4 epochs"):
            explorer.wait(PATIENCE)
        assert board.frame().empty
        settle(explorer, budget=20)
        found = winner(landscape, "random", 0, 20)
        assert found is not None
        assert explorer.chosen.number == found[0].number > 0


def test_two_other_hyper_parameters(opened: Callable[..., SearchExplorer], few_digits: Dataset) -> None:
    with worker_room.quiet():
        explorer = opened(few_digits, space=WIDTHS, points=3, epochs=FULL, method="grid")
        explorer.wait(PATIENCE)
        assert_shows(explorer)
        assert explorer.title == "SearchExplorer: lr and width on digits"
        assert explorer.landscape.axes[1] == (2, 5, 8)
        assert [name for _, name in explorer.project.options] == ["lr", "width"]
        settle(explorer, project="width")
        assert explorer._projection.layout.xaxis.title.text == "hidden units"
        width = explorer.chosen.config["width"]
        assert measure.parameters(explorer.model) == 64 * width + width + 10 * width + 10


# --- the race ---------------------------------------------------------------------------------------------------


def by_hand(explorer: SearchExplorer, budget: int) -> dict[str, Estimate]:
    """What each method's choice is worth over all repeats."""
    found = {}
    for method in METHODS:
        pairs = [winner(explorer.landscape, method, seed, budget) for seed in explorer.settings.seeds]
        if all(pairs):
            found[method] = Estimate.from_values([pair[1] for pair in pairs if pair is not None]).share
    return found


def test_the_race_is_over_all_repeats(explorer: SearchExplorer) -> None:
    explorer.wait_sweep(PATIENCE)
    assert explorer.sweep_note.value == "curves complete: 16 searches"
    assert explorer.stop_button.disabled
    assert list(explorer.race()) == list(METHODS)
    for budget in (2, 4, 20, TOP):
        wanted = by_hand(explorer, budget)
        found = explorer.race(budget)
        assert list(found) == list(wanted)
        for method, estimate in found.items():
            assert dataclasses.astuple(estimate) == pytest.approx(dataclasses.astuple(wanted[method]))
    assert list(explorer.race(2)) == ["halving"]  # the others train one network in full first
    for at, method in enumerate(METHODS):
        assert_course(explorer, method)
        (x, y), (line_x, line_y) = arrays(explorer._race_plot, 2 * at), arrays(explorer._race_plot, 2 * at + 1)
        assert x == [*line_x, *line_x[::-1]]
        last = explorer.race(int(line_x[-1]))[method]
        assert (y[len(line_x)], y[len(line_x) - 1]) == pytest.approx((100 * last.low, 100 * last.high))
        assert line_y[-1] == pytest.approx(100 * last.value)
    said = "; ".join(f"{method} {estimate.percent}" for method, estimate in explorer.race().items())
    assert words(explorer).endswith(f"Mean worth over up to 4 repeats: {said}.")
    assert_shows(explorer)


def test_a_budget_changes_the_race_in_the_words(explorer: SearchExplorer) -> None:
    explorer.wait_sweep(PATIENCE)
    settle(explorer, budget=8)
    assert explorer.race() == explorer.race(8) != explorer.race(TOP)
    assert f"halving {explorer.race(8)['halving'].percent}" in words(explorer)


def test_repeats(explorer: SearchExplorer) -> None:
    explorer.wait_sweep(PATIENCE)
    settle(explorer, repeats=8)
    assert explorer.settings.seeds == tuple(range(8))
    explorer.wait_sweep(PATIENCE)
    assert explorer.sweep_note.value == "curves complete: 32 searches"
    assert {estimate.n for estimate in explorer.race().values()} == {8}
    for method in METHODS:
        assert_course(explorer, method)
    settle(explorer, repeats=4)
    assert {estimate.n for estimate in explorer.race().values()} == {4}
    assert_course(explorer, "random")


def test_stop_ends_the_race_until_a_control_moves(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    known = room.SearchExplorer._known

    def stop_when_it_grows(self: SearchExplorer, method: str, seeds: tuple[int, ...]) -> Any:
        if method == "halving" and ("halving", 2000) in self._tracks and not self._worker.asked:
            self.stop_button.click()
        return known(self, method, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(room.SearchExplorer, "_known", stop_when_it_grows)
        settle(explorer, seed=2000)
        explorer.wait_sweep(PATIENCE)
        assert explorer.sweep_note.value == "curves stopped: 3 of 16 searches"
        assert explorer.stop_button.disabled
        searched = len(explorer._tracks)
        time.sleep(0.4)  # longer than a hand rests before the others are searched
        assert len(explorer._tracks) == searched
        assert list(explorer.race()) == ["grid", "random", "halving"]
    settle(explorer, budget=20)
    explorer.wait_sweep(PATIENCE)
    assert explorer.sweep_note.value == "curves complete: 16 searches"
    assert set(explorer.race()) == set(METHODS)


def test_the_trials_of_a_search_appear_as_they_are_told(
    explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "APPEAR_SECONDS", -1.0)
    seen: list[list[list[float]]] = []
    explorer.dots.observe(lambda change: seen.append(change["new"]), "trials")
    with worker_room.quiet():
        settle(explorer, seed=3000)
    explorer.dots.unobserve_all("trials")
    assert [len(each) for each in seen] == list(range(1, 10))
    assert all(each == seen[-1][: len(each)] for each in seen)
    assert_shows(explorer)


def test_a_newer_move_cancels_a_search(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "APPEAR_SECONDS", -1.0)

    def move(change: Any) -> None:
        explorer.dots.unobserve_all("trials")
        explorer.method.value = "grid"

    with worker_room.quiet():
        explorer.dots.observe(move, "trials")
        explorer.seed.value = 4000
        explorer.wait(PATIENCE)
        assert explorer.settings.method == "grid"
        assert ("random", 4000) not in explorer._tracks
        assert_shows(explorer)


# --- the landscape grows ----------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """75 networks grow in four parts."""
    monkeypatch.setattr(networks, "CHUNK", 20)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """No worker begins before this is set."""
    begin = Event()
    answer = room.SearchExplorer._answer

    def later(self: SearchExplorer, *args: Any) -> None:
        assert begin.wait(PATIENCE)
        answer(self, *args)

    monkeypatch.setattr(room.SearchExplorer, "_answer", later)
    yield begin
    begin.set()


@pytest.mark.usefixtures("small_chunks")
def test_the_landscape_grows_before_the_readers_eyes(
    opened: Callable[..., SearchExplorer], few_digits: Dataset, held: Event
) -> None:
    explorer = opened(few_digits, points=5, epochs=FULL)
    assert [list(row) for row in explorer._plane.data[0].z] == [[None] * 5] * 5
    assert explorer._plane.layout.title.text == "0 of 75 networks trained"
    assert arrays(explorer._race_plot, BEST) == ([], [])
    seen: list[Any] = []

    def moved(change: Any) -> None:
        filled = sum(value is not None for row in explorer._plane.data[0].z for value in row)
        busy = ("kit-busy" in explorer._dom_classes, not explorer.stop_button.disabled)
        seen.append((explorer._plane.layout.title.text, filled, change["new"], busy))

    explorer.progress.observe(moved, "value")
    held.set()
    explorer.wait(PATIENCE)
    assert [each[0] for each in seen[:3]] == [f"{count} of 75 networks trained" for count in (20, 40, 60)]
    assert [each[1] for each in seen] == [20, 25, 25, 25, 25]  # one network a cell first
    assert [each[2] for each in seen] == pytest.approx([20 / 75, 40 / 75, 60 / 75, 1, 0])
    assert all(each[3] == (True, True) for each in seen[:4])
    assert "kit-busy" not in explorer._dom_classes
    assert explorer._plane.layout.title.text == "★ chosen, of 75 trained networks"
    assert_shows(explorer)


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_landscape_goes_on_with_the_next_move(
    opened: Callable[..., SearchExplorer], explorer: SearchExplorer, few_digits: Dataset, held: Event
) -> None:
    other = opened(few_digits, points=5, epochs=FULL)

    def stop(change: Any) -> None:
        other.progress.unobserve_all("value")
        other.stop_button.click()

    other.progress.observe(stop, "value")
    held.set()
    other.wait(PATIENCE)
    assert words(other) == "Stopped. Move a control to go on with the training."
    assert not is_error(other)
    assert other.stop_button.disabled
    assert "kit-busy" not in other._dom_classes
    assert (other.progress.value, other.dots.trials) == (0, [])
    part = other.landscape
    assert part.missing == 55
    for read in (lambda: other.track, lambda: other.chosen, lambda: other.model, lambda: other.race()):
        with pytest.raises(RuntimeError, match="no answer yet: the work was stopped before the first one"):
            read()
    other.pin("nothing")
    with pytest.raises(RuntimeError, match="nothing to pin yet: wait for the first answer"):
        other.wait(PATIENCE)
    other.wait_sweep(PATIENCE)
    assert other.landscape is part  # nothing goes on in the background
    with worker_room.quiet():
        settle(other, budget=20, repeats=4)
        assert other.landscape.missing == 0
        known = np.isfinite(part.curves)
        assert np.array_equal(other.landscape.curves[known], part.curves[known])  # nothing is trained twice
        assert np.allclose(other.landscape.curves, explorer.landscape.curves, rtol=0, atol=0.005)
        assert_shows(other)


@pytest.mark.usefixtures("small_chunks")
def test_a_move_while_the_landscape_grows_stops_nothing(
    opened: Callable[..., SearchExplorer], few_digits: Dataset, held: Event
) -> None:
    explorer = opened(few_digits, points=5, epochs=FULL)
    said: list[str] = []
    explorer.status.observe(lambda change: said.append(words(explorer)), "value")

    def move(change: Any) -> None:
        explorer.progress.unobserve_all("value")
        explorer.method.value = "grid"

    explorer.progress.observe(move, "value")
    held.set()
    explorer.wait(PATIENCE)
    assert said[0] == "Training 75 networks: 3 at every cell, with different seeds."
    assert not any("Stopped" in line for line in said)
    assert explorer.settings.method == "grid"
    assert_shows(explorer)


# --- the board --------------------------------------------------------------------------------------------------


def test_pin_by_button_with_a_name(explorer: SearchExplorer, few_digits: Dataset) -> None:
    explorer.wait_sweep(PATIENCE)
    settle(explorer, method="halving", budget=20)
    explorer.pin_name.value = "  my <b>best</b>  "
    explorer.pin_button.click()
    explorer.wait(PATIENCE)
    row = board.frame(few_digits.key).iloc[0]
    assert (row["name"], row["technique"]) == ("my <b>best</b>", "search")
    chosen = explorer.chosen
    assert row["settings"] == {**chosen.config, "method": "halving", "budget": 20, "seed": 0}
    right = training.evaluate(explorer.model, few_digits.validation).correct
    wilson = Estimate.from_counts(right, len(few_digits.validation))  # the network's own interval
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (wilson.value, wilson.low, wilson.high)
    assert (row["nonzeros"], row["batch_size"]) == (measure.nonzeros(explorer.model), 1)
    said = words(explorer)
    assert said.startswith(
        "Pinned the chosen network as my <b>best</b>, trained in full, with its own interval: "
        f"{wilson.percent}. halving, 20 epochs"
    )
    explorer.wait_sweep(PATIENCE)
    assert words(explorer) == said  # the background work does not talk over it
    settle(explorer, budget=24)
    assert words(explorer).startswith("halving, 24 epochs")


def test_a_name_is_made_from_the_settings(explorer: SearchExplorer) -> None:
    with worker_room.quiet():
        explorer.pin()
        explorer.wait(PATIENCE)
        config = explorer.chosen.config
        assert list(board.frame()["name"]) == [
            f"MLP found by random search, 36 epochs: learning rate {config['lr']:.3g}, dropout {config['dropout']:.3g}"
        ]


def test_a_pin_asked_right_after_a_move_pins_what_was_moved_to(explorer: SearchExplorer) -> None:
    with worker_room.quiet():
        for method in ("grid", "halving", "random"):
            explorer.method.value = method
            explorer.pin(f"by {method}")
        explorer.wait(PATIENCE)
        pinned = board.frame()
        assert [record["method"] for record in pinned["settings"]] == ["grid", "halving", "random"]
        for record in pinned["settings"]:
            found = winner(explorer.landscape, record["method"], 0, TOP)
            assert found is not None
            assert record["lr"] == found[0].config["lr"]
        assert_shows(explorer)


def test_a_name_taken_twice_is_refused_or_replaced(explorer: SearchExplorer) -> None:
    explorer.wait_sweep(PATIENCE)
    explorer.pin("mine")
    explorer.wait(PATIENCE)
    explorer.pin("mine")
    with pytest.raises(ValueError, match="name 'mine' is taken"):
        explorer.wait(PATIENCE)
    explorer.wait_sweep(PATIENCE)
    assert is_error(explorer)  # still
    assert "name 'mine' is taken" in words(explorer)
    settle(explorer, method="grid")
    explorer.pin("mine", replace=True)
    explorer.wait(PATIENCE)
    assert [record["method"] for record in board.frame()["settings"]] == ["grid"]
    assert not is_error(explorer)


def test_a_board_that_cannot_be_used_is_said_and_stops_nothing(
    opened: Callable[..., SearchExplorer], few_digits: Dataset, own_board: Path
) -> None:
    own_board.write_bytes(b"not a board at all" * 50)
    with worker_room.quiet():
        explorer = opened(few_digits, landscape=made_up())
        with pytest.raises(board.BoardError, match="is damaged or not a board"):
            explorer.wait(PATIENCE)
        settle(explorer, budget=8)
        assert words(explorer).startswith("random, 8 epochs")
        assert "is damaged or not a board" in words(explorer)
        assert explorer.chosen.number in (0, 1)


# --- errors, and what is shown ----------------------------------------------------------------------------------


def test_an_error_while_answering_is_shown_and_raised(
    explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **settings: Any) -> Any:
        raise RuntimeError("<nothing> works & all is lost.")

    with worker_room.quiet():
        with monkeypatch.context() as patch:
            patch.setattr(Landscape, "objective", broken)
            explorer.seed.value = 5000
            with pytest.raises(RuntimeError, match="all is lost"):
                explorer.wait(PATIENCE)
            assert is_error(explorer)
            assert words(explorer) == "<nothing> works & all is lost."
        settle(explorer, budget=8)
        assert explorer.settings.seeds[0] == 5000
        assert_shows(explorer)


def test_a_closed_explorer_does_not_answer_and_does_not_hang(few_digits: Dataset) -> None:
    explorer = SearchExplorer(few_digits, landscape=made_up(), trainings=9)
    explorer.wait(PATIENCE)
    explorer.close()
    with pytest.raises(RuntimeError, match="closed"):
        explorer.budget.value = 4
    explorer.close()  # twice is no harm


def test_what_is_painted_is_strict_json(explorer: SearchExplorer) -> None:
    for controls in ({"method": "halving"}, {"budget": 4}, {"project": "dropout"}):
        settle(explorer, **controls)
        for figure in (explorer._race_plot, explorer._plane, explorer._projection, explorer._rungs):
            state = figure.to_plotly_json()
            assert json.dumps({"data": state["data"], "layout": state["layout"]}, allow_nan=False, default=list)


def test_the_display_bundle_has_a_stable_text(explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base_room.STILLS, raising=False)
    first, _ = explorer._repr_mimebundle_()
    settle(explorer, method="grid", budget=8)
    second, _ = explorer._repr_mimebundle_()
    assert first["text/plain"] == second["text/plain"] == "SearchExplorer: lr and dropout on digits"
    assert "application/vnd.jupyter.widget-view+json" in first
    assert "image/png" not in first


def test_the_display_bundle_has_a_still_where_one_is_asked_for(
    explorer: SearchExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(base_room.STILLS, "1")
    bundle, _ = explorer._repr_mimebundle_()
    png = base64.b64decode(bundle["image/png"], validate=True)
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20  # something is drawn
    assert set(explorer.race()) == set(METHODS)  # and the race was complete


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"space": {"lr": 1}}, "space must be a Space; got"),
        ({"landscape": 3}, "landscape must be a Landscape; got 3"),
        ({"trainings": "9"}, "trainings must be a whole number; got '9'"),
    ],
)
def test_a_start_of_a_wrong_kind_is_refused(few_digits: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        SearchExplorer(few_digits, **settings)
