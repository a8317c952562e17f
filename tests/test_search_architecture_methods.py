"""Evolution and local search of cells: trial by trial against loops written from their papers; limits; failures."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.cells import networks, parse
from kit.search import Choice, Config, Float, Int, Random, Space, Study, Trial
from kit.search.architecture import Evolution, LocalSearch, space_of
from tests.searches import ask

SPACE = space_of(networks())
FEW = space_of(networks()[::25])

METHODS = [Evolution(8, 3, 1), LocalSearch(1)]
each_method = pytest.mark.parametrize("method", METHODS, ids=["evolution", "local search"])
Accuracy = Callable[[str], float]


def rugged(cell: str) -> float:
    """Many convolutions are good, and the rest is chance: several peaks, some equal values."""
    luck = np.random.default_rng([len(cell), *map(ord, cell)]).integers(0, 4)
    return float(cell.count("conv3") * 0.1 + cell.count("conv1") * 0.05 + luck * 0.05)


def objective(config: Config) -> float:
    return rugged(config["cell"])


def by_chance(space: Space, tried: list[str], seed: int) -> str | None:
    trials = [Trial(number, {"cell": cell}, "done", value=0.0) for number, cell in enumerate(tried)]
    proposal = Random(seed).propose(space, trials, maximise=True)
    return None if proposal is None else str(proposal.config["cell"])


def evolved(space: Space, accuracy: Accuracy, budget: int, size: int, sample: int, seed: int) -> list[str]:
    """Algorithm 1 of Real et al. 2019, but that no network is trained twice."""
    population: deque[tuple[str, float]] = deque()
    history: list[str] = []
    known = set(space.parameters["cell"].values)  # type: ignore[union-attr]
    while len(history) < budget:
        child: str | None = None
        if len(population) == size:
            rng = np.random.default_rng([seed, len(history)])
            contest = [population[at] for at in rng.choice(size, sample, replace=False)]
            parent = contest[0]
            for other in contest:
                if other[1] > parent[1]:
                    parent = other
            near = [str(cell) for cell in parse(parent[0]).neighbours()]
            new = [cell for cell in near if cell in known and cell not in history]
            child = str(rng.choice(new)) if new else None
        child = child or by_chance(space, history, seed)
        if child is None:
            break
        history.append(child)
        population.append((child, accuracy(child)))
        if len(population) > size:
            population.popleft()
    return history


def climbed(space: Space, accuracy: Accuracy, budget: int, seed: int) -> list[tuple[str, int]]:
    """Hill climbing from random networks, each with the number of its climb; no network is trained twice."""
    history: list[tuple[str, int]] = []
    known = set(space.parameters["cell"].values)  # type: ignore[union-attr]
    for climb in itertools.count():
        here = by_chance(space, [cell for cell, _ in history], seed)
        if here is None:
            return history
        history.append((here, climb))
        while len(history) < budget:
            tried = {cell for cell, _ in history}
            near = [str(cell) for cell in parse(here).neighbours()]
            new = [cell for cell in near if cell in known and cell not in tried]
            if not new:
                break
            other = str(np.random.default_rng([seed, len(history)]).choice(new))
            history.append((other, climb))
            if accuracy(other) > accuracy(here):
                here = other
        if len(history) >= budget:
            return history
    raise AssertionError


@pytest.mark.parametrize("space", [SPACE, FEW], ids=["all", "few"])
@pytest.mark.parametrize(("size", "sample", "seed"), [(10, 5, 0), (2, 2, 1), (30, 1, 2), (5, 3, 3)])
def test_evolution_is_that_of_the_paper(space: Space, size: int, sample: int, seed: int) -> None:
    study = Study(space, maximise=True).run(objective, Evolution(size, sample, seed), budget=150)
    assert [trial.config["cell"] for trial in study.trials] == evolved(space, rugged, 150, size, sample, seed)


@pytest.mark.parametrize("space", [SPACE, FEW], ids=["all", "few"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_local_search_is_hill_climbing(space: Space, seed: int) -> None:
    study = Study(space, maximise=True).run(objective, LocalSearch(seed), budget=150)
    found = [(trial.config["cell"], trial.bracket) for trial in study.trials]
    assert found == climbed(space, rugged, 150, seed)
    assert len({bracket for _, bracket in found}) > 1


def test_a_climb_ends_on_a_peak() -> None:
    trials = Study(SPACE, maximise=True).run(objective, LocalSearch(4), budget=300).trials
    tried = {trial.config["cell"] for trial in trials}
    climbs = [list(group) for _, group in itertools.groupby(trials, key=lambda trial: trial.bracket)]
    assert len(climbs) > 2
    for climb in climbs[:-1]:
        top = max(climb, key=lambda trial: trial.value or 0.0).config["cell"]
        assert {str(cell) for cell in parse(top).neighbours()} <= tried


@each_method
def test_to_minimise_is_to_maximise_the_opposite(method: Any) -> None:
    up = Study(SPACE, maximise=True).run(objective, method, budget=60).trials
    down = Study(SPACE).run(lambda config: -objective(config), method, budget=60).trials
    assert [trial.config for trial in up] == [trial.config for trial in down]


@each_method
def test_it_is_better_than_chance(method: Any) -> None:
    """After 60 trials, on average over ten seeds."""
    kind = type(method)

    def reached(one: Any) -> float:
        return float(Study(SPACE, maximise=True).run(objective, one, budget=60).best.value or 0)

    mine = [reached(kind(seed=seed)) for seed in range(10)]
    chance = [reached(Random(seed)) for seed in range(10)]
    assert np.mean(mine) > np.mean(chance) + 0.01


@each_method
def test_a_space_is_tried_once_and_to_the_end(method: Any) -> None:
    study = Study(FEW, maximise=True).run(objective, method, budget=1000)
    tried = [trial.config["cell"] for trial in study.trials]
    assert len(tried) == len(set(tried)) == FEW.count
    assert study.ask(method) is None


@each_method
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(method: Any, tmp_path: Path) -> None:
    whole = Study(SPACE, maximise=True).run(objective, method, budget=70).trials
    for budget in (1, 7, 9, 40, 70):
        again = type(method)(**vars(method))
        part = Study(SPACE, maximise=True, path=tmp_path / "study.sqlite").run(objective, again, budget=budget).trials
    assert [(each.config, each.bracket) for each in part] == [(each.config, each.bracket) for each in whole]


@each_method
def test_what_fails_is_never_a_parent_and_ends_nothing(method: Any) -> None:
    def fails(config: Config) -> float:
        if config["cell"].count("pool") >= 2:
            raise RuntimeError("too much pooling")
        return objective(config)

    study = Study(SPACE, maximise=True).run(fails, method, budget=120, failures=None)
    failed = [trial.config["cell"] for trial in study.trials if trial.status == "failed"]
    tried = [trial.config["cell"] for trial in study.trials]
    assert 0 < len(failed) < 60
    assert len(set(tried)) == len(tried) == 120
    last = [trial.value is None for trial in study.trials[-40:]]
    assert sum(last) < sum(parse(cell.config["cell"]).operations.count("pool") >= 2 for cell in by_random(40))


def by_random(n: int) -> tuple[Trial, ...]:
    return Study(SPACE).run(objective, Random(0), budget=n).trials


@each_method
def test_all_that_fail_are_no_end(method: Any) -> None:
    study = Study(SPACE, maximise=True).run(lambda config: float("nan"), method, budget=40, failures=None)
    assert len({trial.config["cell"] for trial in study.trials}) == 40


@each_method
def test_asked_trials_are_not_asked_again(method: Any) -> None:
    study = Study(SPACE, maximise=True).run(objective, method, budget=20)
    asked = [ask(study, method) for _ in range(15)]
    cells = [trial.config["cell"] for trial in study.trials]
    assert len(set(cells)) == len(cells) == 35
    for trial in reversed(asked):
        study.tell(trial.number, objective(trial.config))
    assert ask(study, method).config["cell"] not in cells


@each_method
def test_a_network_of_ones_own_joins(method: Any) -> None:
    """One that is better than all others has the next children."""
    study = Study(SPACE, maximise=True).run(objective, method, budget=12)
    best = max(SPACE.parameters["cell"].values, key=rugged)  # type: ignore[union-attr]
    study.enqueue({"cell": best})
    study.run(lambda config: 9.0 if config["cell"] == best else objective(config), method, budget=20)
    greedy = Evolution(8, 8, 1) if isinstance(method, Evolution) else method
    child = ask(study, greedy).config["cell"]
    assert child in map(str, parse(best).neighbours())


@each_method
@pytest.mark.parametrize(
    "parameters",
    [
        {"lr": Float(0, 1)},
        {"cell": Int(0, 9)},
        {"cell": Choice("adam", "sgd")},
        {"cell": Choice(1, 2)},
        {"kind": SPACE.parameters["cell"]},
        {**SPACE.parameters, "lr": Float(0, 1)},
    ],
)
def test_a_space_of_something_else_is_refused_before_any_trial(method: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^space must be one of cells, as of `space_of`; got \{[^\n]{10,200}\}.$"):
        Study(Space(parameters)).run(objective, method, budget=5)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"population": 1}, ValueError, r"population must be 2 or more; got 1"),
        ({"sample": 0}, ValueError, r"sample must lie in 1 .. 10; got 0"),
        ({"sample": 11}, ValueError, r"sample must lie in 1 .. 10; got 11"),
        ({"population": 4}, ValueError, r"sample must lie in 1 .. 4; got 5"),
        ({"population": 2.5}, TypeError, r"population must be a whole number; got 2.5"),
        ({"sample": "3"}, TypeError, r"sample must be a whole number; got '3'"),
        ({"seed": -1}, ValueError, r"seed must be 0 or more; got -1"),
        ({"seed": None}, TypeError, r"seed must be a whole number; got None"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{sentence}"):
        Evolution(**settings)
    if "seed" in settings:
        with pytest.raises(error, match=f"^{sentence}"):
            LocalSearch(**settings)
