from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from kit import data
from kit.cells import networks, parse
from kit.data import Dataset
from kit.explorers import ArchitectureExplorer
from kit.explorers import architecture as room
from kit.measure import Estimate
from kit.plots import architecture as plots
from kit.search import Bayes, Random, SuccessiveHalving, architecture
from kit.search.architecture import Evolution, LocalSearch
from kit.search.architecture import supernet as supernets
from kit.search.architecture.table import Table
from kit.search.replay import Trajectory
from kit.search.trials import Method
from kit.training import Cancelled
from tests.hands import PATIENCE, is_error, recover, settle, words

TOP = 12  # trainings of the largest budget
SEEDS = range(4)


def method(name: str, seed: int) -> Method:
    if name == "halving":
        return SuccessiveHalving(n=16, min_epochs=1, max_epochs=8, eta=2, seed=seed)
    kinds: dict[str, Callable[[], Method]] = {
        "random": lambda: Random(seed),
        "local search": lambda: LocalSearch(seed=seed),
        "evolution": lambda: Evolution(seed=seed),
        "Bayesian": lambda: Bayes(seed=seed, bounds=(0, 1)),
    }
    return kinds[name]()


@pytest.fixture(scope="module")
def table() -> Table:
    return architecture.load()


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return data.mnist()


@pytest.fixture(scope="module")
def shared(table: Table) -> Iterator[ArchitectureExplorer]:
    with contextlib.closing(ArchitectureExplorer(table, trainings=TOP)) as explorer:
        yield explorer


@pytest.fixture
def explorer(shared: ArchitectureExplorer) -> ArchitectureExplorer:
    recover(shared)
    shared.repeats.value = len(SEEDS)
    shared.wait(PATIENCE)
    return shared


def by_hand(table: Table, name: str, seed: int, budget: int, **limits: float) -> Trajectory:
    return architecture.search(table, method(name, seed), budget=budget, repeat=seed, limits=limits)


def said(trajectory: Trajectory) -> list[Any]:
    """What the trials are, without how long each took."""
    return [(trial.config, trial.epochs, trial.value, trial.continues) for trial in trajectory.trials]


def traced(explorer: ArchitectureExplorer, figure: str, name: str) -> Any:
    return next(trace for trace in explorer.figures[figure].data if trace.name == name)


@pytest.mark.parametrize("name", list(room.METHODS))
@pytest.mark.parametrize("budget", [1, 5, TOP])
def test_a_search_cut_short_is_the_search_of_the_smaller_budget(
    explorer: ArchitectureExplorer, table: Table, name: str, budget: int
) -> None:
    settle(explorer, method=name, seed=3, budget=budget)
    smaller = by_hand(table, name, 3, budget)
    assert said(smaller) == said(explorer.trajectory)[: len(explorer.trials)]
    assert len(explorer.trials) == len(smaller.trials) > 0
    found = smaller.at(budget * table.epochs)
    assert found is not None and explorer.retested == found[1]
    assert str(explorer.incumbent) == found[0].config["cell"]


def test_the_bands_are_those_of_searches_by_hand(explorer: ArchitectureExplorer, table: Table) -> None:
    settle(explorer, cost="parameters", limit=0.5)
    explorer.wait_curves(PATIENCE)
    ((what, limit),) = explorer.limits.items()
    assert what == "parameters" and np.mean(table.parameters <= limit) >= 0.5 > np.mean(table.parameters < limit)
    for name in room.METHODS:
        finals = []
        for seed in SEEDS:
            found = by_hand(table, name, seed, TOP, parameters=limit).at(TOP * table.epochs)
            assert found is not None
            finals.append(found[1])
        wanted = Estimate.from_values(finals)
        assert explorer.race(TOP)[name].value == pytest.approx(wanted.value)
        line, band = traced(explorer, "race", name), traced(explorer, "race", f"interval of {name}")
        assert (line.x[-1], line.y[-1]) == (TOP, pytest.approx(100 * wanted.value))
        top = band.y[len(line.x) - 1]
        assert top == pytest.approx(100 * min(1.0, wanted.high))
        assert f"{name} {explorer.race()[name].percent}" in explorer.in_words or name not in ("random", "evolution")
    with pytest.raises(ValueError, match="^budget must be 1 or more; got 0"):
        explorer.race(0)


@pytest.mark.parametrize("cost", ["flops", "parameters", "latency"])
def test_a_limit_keeps_the_cheapest_networks(explorer: ArchitectureExplorer, table: Table, cost: str) -> None:
    settle(explorer, cost=cost, limit=0.3, method="random")
    limit, costs = explorer.limits[cost], table.costs(cost)
    assert explorer.bound.at == limit and explorer.bound.text == f"limit {plots.said(cost, limit)}"
    assert explorer.kept.value == f"{plots.said(cost, limit)}, {(costs <= limit).sum():,} of {len(costs):,} networks"
    seen = np.array(traced(explorer, "cloud", "networks").marker.opacity) == plots.SEEN
    assert (seen == (costs <= limit)).all()
    assert all(costs[table.row(trial.config["cell"])] <= limit for trial in explorer.trajectory.trials)
    assert table.mean[table.row(explorer.best)] == table.mean[costs <= limit].max()
    assert explorer.regret == pytest.approx(table.mean[seen].max() - table.mean[table.row(explorer.incumbent)])
    settle(explorer, limit=1.0)
    assert (
        explorer.limits == {}
        and explorer.kept.value == explorer.bound.text == "no limit"
        and explorer.bound.at == costs.max()
    )


def test_where_few_networks_are_left_all_are_tried(table: Table) -> None:
    with contextlib.closing(ArchitectureExplorer(table, trainings=40)) as explorer:
        explorer.set(cost="latency", limit=0.01, budget=40)
        explorer.wait(PATIENCE)
        kept = int((table.latency[:, 0] <= explorer.limits["latency"]).sum())
        assert kept == len({trial.config["cell"] for trial in explorer.trials}) < 40
        assert f"All {kept} networks are tried." in explorer.in_words


def test_trials_lie_on_the_cloud_in_their_order(explorer: ArchitectureExplorer, table: Table) -> None:
    settle(explorer, method="halving", budget=3)
    dots = explorer.dots.values
    assert explorer.dots.at == explorer.cursor.at * table.epochs == 3 * table.epochs
    shown = [dot for dot in dots if dot[2] <= explorer.dots.at]
    assert len(shown) == len(explorer.trials) < len(dots)
    for dot, trial in zip(dots, explorer.trajectory.trials, strict=True):
        row = table.row(trial.config["cell"])
        assert dot[:2] == [table.flops[row], pytest.approx(100 - 100 * table.mean[row])]
        assert dot[3:5] == [trial.value, (trial.epochs or 0) / table.epochs]
    best = max(shown, key=lambda dot: dot[3])  # the star
    assert best[1] == pytest.approx(100 - 100 * table.mean[table.row(explorer.incumbent)])


def test_a_known_search_is_not_made_again(explorer: ArchitectureExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, method="random")
    explorer.wait_curves(PATIENCE)
    monkeypatch.setattr(room, "replay", None)
    settle(explorer, budget=5)
    settle(explorer, method="evolution", budget=2, cost="latency")
    explorer.wait_curves(PATIENCE)
    assert not is_error(explorer)


def test_a_search_that_is_cancelled_goes_on(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, asked = Event(), list[str]()
    objective = type(table.objective())
    call = objective.__call__

    def counted(self: Any, config: Any, **epochs: Any) -> float:
        asked.append(config["cell"])
        if len(asked) == 4:
            cancel.set()
        return call(self, config, **epochs)

    with contextlib.closing(ArchitectureExplorer(table, trainings=TOP, method="random")) as explorer:
        explorer.stop()
        explorer.wait_curves(PATIENCE)  # what ran beside has ended, too
        monkeypatch.setattr(objective, "__call__", counted)
        key = ("random", 77, np.full(len(table.cells), True).tobytes())
        with pytest.raises(Cancelled):
            explorer._search(key, cancel)
        trajectory = explorer._search(key, Event())
        assert len(asked) == TOP == len(trajectory.trials)
        monkeypatch.undo()
        assert said(trajectory) == said(by_hand(table, "random", 77, TOP))


def test_a_click_chooses_what_is_drawn(explorer: ArchitectureExplorer, table: Table) -> None:
    cell, row = "conv3 | none conv1 | none pool", table.row("conv3 | none conv1 | none pool")
    settle(explorer, cost="latency", cell="best")
    assert str(explorer.best) in explorer.figures["cell"].layout.title.text
    explorer._clicked("cloud", "networks", float(table.latency[row, 0]), float(100 - 100 * table.mean[row]))
    explorer.wait(PATIENCE)
    assert explorer.cell.value == cell
    assert explorer.figures["cell"].layout.title.text == f"Chosen: {cell}"
    assert explorer.chosen.values[:2] == [table.latency[row, 0], pytest.approx(100 - 100 * table.mean[row])]
    settle(explorer, limit=0.01)
    assert explorer.figures["cell"].layout.title.text == f"Beyond the limit: {cell}"
    explorer._clicked("cloud", "", 0.2, 50.0)
    explorer._clicked("race", "random", 3, 90.0)
    explorer.wait(PATIENCE)
    assert (explorer.method.value, explorer.budget.value, explorer.cell.value) == ("random", 3, cell)
    settle(explorer, cell="incumbent")
    assert explorer.chosen.values == []  # the star is there
    with pytest.raises(ValueError, match=r"^cell must be one of incumbent, best, .* and 1,1\d\d more; got 'none'"):
        explorer.set(cell="none")


def test_a_b_pairs_the_repeats(explorer: ArchitectureExplorer, table: Table) -> None:
    settle(explorer, method="random")
    explorer.wait_curves(PATIENCE)
    explorer.keep()
    settle(explorer, method="local search", budget=5)
    explorer.wait_curves(PATIENCE)
    gains = []
    for seed in SEEDS:
        first, second = (
            by_hand(table, *each).at(each[2] * 8) for each in (("local search", seed, 5), ("random", seed, TOP))
        )
        assert first is not None and second is not None
        gains.append(first[1] - second[1])
    wanted = Estimate.from_values(gains)
    assert wanted.points in explorer.in_words and "n = 4" in explorer.in_words
    settle(explorer, seed=50)
    assert "paired" not in explorer.in_words
    explorer.keep()
    explorer.wait(PATIENCE)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Supernets that are not trained, and score a network by the number of its parameters."""
    seen = list[str]()
    at = {str(cell): number for number, cell in enumerate(networks())}
    parameters = architecture.load().parameters

    def share(dataset: Dataset, *, seed: int, on_epoch: Callable[[int, Any], None], cancel: Event) -> Any:
        seen.append(f"seed {seed}")
        for epoch in range(1, 21):
            on_epoch(epoch, epoch)
            if cancel.is_set():
                raise Cancelled("stopped.")
        return 20

    def scores(supernet: Any, dataset: Dataset, cells: Any, *, cancel: Event) -> np.ndarray:
        seen.append(f"{len(cells)} at {supernet}")
        return np.array([parameters[at[str(cell)]] for cell in cells]) / 2e4

    monkeypatch.setattr(supernets, "share", share)
    monkeypatch.setattr(supernets, "scores", scores)
    return seen


def test_a_supernet_is_held_against_the_table(table: Table, mnist: Dataset, untrained: list[str]) -> None:
    with contextlib.closing(ArchitectureExplorer(table, mnist, trainings=10)) as explorer:
        cell = str(parse("conv3 | none none | conv3 none").canonical)
        explorer.set(repeats=4, seed=3, cell=cell)
        assert np.isnan(explorer.tau) and not len(traced(explorer, "shared", "networks").x)
        explorer.train_supernet_button.click()
        explorer.wait_curves(PATIENCE)
        every = len(table.cells)
        assert untrained == ["seed 3", f"{room.SOME} at 10", f"{room.SOME} at 20", f"{every} at 20"]
        assert explorer.tau == pytest.approx(kendalltau(table.parameters, table.mean).statistic)
        assert len(traced(explorer, "shared", "networks").x) == every
        title = explorer.figures["shared"].layout.title.text
        assert title == f"Shared weights, trained: Kendall's tau {explorer.tau:.2f}"
        score = 100 * table.parameters[table.row(cell)] / 2e4
        assert traced(explorer, "shared", "shown").x == pytest.approx([score])
        assert explorer.code().startswith("ArchitectureExplorer(table, dataset, ")
        assert explorer.stop_button.disabled


def test_a_supernet_goes_on_while_controls_move_and_stops_when_told(
    table: Table, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = Event(), list[str]()

    def share(dataset: Dataset, *, cancel: Event, **settings: Any) -> Any:
        began.set()
        assert cancel.wait(PATIENCE)
        ended.append("cancelled")
        raise Cancelled("stopped.")

    monkeypatch.setattr(supernets, "share", share)
    with contextlib.closing(ArchitectureExplorer(table, mnist, trainings=10)) as explorer:
        explorer.wait_curves(PATIENCE)
        assert explorer.stop_button.disabled and "Train supernet" in traced(explorer, "shared", "words").text[0]
        explorer.train_supernet()
        assert began.wait(PATIENCE)
        settle(explorer, budget=3)
        assert "3 trainings" in words(explorer) and not ended
        assert "first scores" in traced(explorer, "shared", "words").text[0]
        assert not explorer.stop_button.disabled
        explorer.stop_button.click()
        explorer.wait_curves(PATIENCE)
        assert ended == ["cancelled"] and explorer.stop_button.disabled
        assert "Train supernet" in traced(explorer, "shared", "words").text[0]
        began.clear()
        explorer.train_supernet()
        assert began.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    while len(ended) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_of_a_supernet_is_said_and_raised(
    table: Table, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(*_: Any, **settings: Any) -> Any:
        raise RuntimeError("out of <memory>.")

    monkeypatch.setattr(supernets, "share", share)
    with contextlib.closing(ArchitectureExplorer(table, mnist, trainings=10)) as explorer:
        explorer.wait(PATIENCE)
        explorer.train_supernet()
        with pytest.raises(RuntimeError, match="out of <memory>"):
            explorer.wait_curves(PATIENCE)
        assert is_error(explorer) and "out of <memory>." in words(explorer) and explorer.stop_button.disabled


def test_without_images_there_is_no_supernet(explorer: ArchitectureExplorer) -> None:
    assert "shared" not in explorer.figures and not hasattr(explorer, "train_supernet_button")
    assert "no dataset was given" in explorer.unshared.value
    with pytest.raises(ValueError, match="^dataset is needed to train a supernet; got None"):
        explorer.train_supernet()


def test_wrong_arguments_are_refused(table: Table, mnist: Dataset, digits: Dataset) -> None:
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        (("table",), {}, TypeError, "^table must be a table, as of .*; got 'table'"),
        ((table, "mnist"), {}, TypeError, "^dataset must be a Dataset"),
        ((table, digits), {}, ValueError, "^dataset must be the one of the table, .*; got digits"),
        ((table,), {"method": "grid"}, ValueError, "^method must be one of random, .*; got 'grid'"),
        ((table,), {"trainings": 9}, ValueError, "^trainings must lie in 10"),
        (
            (table,),
            {"trainings": len(table.cells) + 1},
            ValueError,
            f"^trainings must lie in 10 .. {len(table.cells)};",
        ),
        ((table,), {"trainings": 20.5}, TypeError, "^trainings must be a whole number"),
    ]
    for arguments, settings, kind, sentence in wrong:
        with pytest.raises(kind, match=sentence):
            ArchitectureExplorer(*arguments, **settings)
    other = dataclasses.replace(table, made={**table.made, "data": "other"})
    with pytest.raises(ValueError, match="^dataset must be the one of the table, other"):
        ArchitectureExplorer(other, mnist)
