"""What every method for several objectives keeps to, and how far each is ahead of chance."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kit.search import (
    EHVI,
    NSGA2,
    Choice,
    Config,
    Float,
    Goal,
    Goals,
    Int,
    ParEGO,
    Random,
    Space,
    Study,
    Trial,
    functions,
)
from kit.search.functions import ManyFunction
from kit.search.space import key
from kit.search.trials import ParetoMethod

METHODS: dict[str, Any] = {"NSGA2": NSGA2, "ParEGO": ParEGO, "EHVI": EHVI}
QUICK: dict[str, ParetoMethod] = {"NSGA2": NSGA2(population=6), "ParEGO": ParEGO(start=6), "EHVI": EHVI(start=6)}
each_method = pytest.mark.parametrize("method", QUICK.values(), ids=QUICK)

MIXED = Space({"n": Int(0, 30), "rate": Float(1e-4, 1, log=True), "kind": Choice("a", "b", "c", "d")})
SMALL = Space({"n": Int(1, 4), "kind": Choice("a", "b", "c")})
GOALS = {"right": Goal(maximise=True), "bytes": Goal(log=True)}
ZDT1 = functions.zdt1(3)


def mixed(config: Mapping[str, Any]) -> dict[str, float]:
    cost = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0}[config["kind"]]
    return {"right": 1 - 1 / (config["n"] + cost), "bytes": 100.0 * (1 + config["n"]) * cost + config.get("rate", 0)}


def by_chance(space: Space = MIXED, n: int = 20, objective: Any = mixed, goals: Any = GOALS) -> tuple[Trial, ...]:
    return Study(space, objectives=goals).run(objective, Random(seed=3), budget=n).trials


def proposed(method: ParetoMethod, space: Space, trials: Sequence[Trial], goals: Goals) -> Config:
    proposal = method.propose(space, trials, goals=goals)
    assert proposal is not None
    return space.check(proposal.config)


def volume(function: ManyFunction, method: Any, n: int) -> float:
    study = Study(function.space, objectives=function.goals.goals).run(function, method, budget=n)
    return study.hypervolume(**function.corner)


@pytest.mark.parametrize(("name", "n", "closer"), [("NSGA2", 200, 1.5), ("ParEGO", 24, 4.0), ("EHVI", 24, 4.0)])
def test_it_finds_more_of_the_front_than_chance(name: str, n: int, closer: float) -> None:
    """Over three seeds, and by a factor: what is missing of the hypervolume of the true front."""
    missing = [
        sum(ZDT1.best - volume(ZDT1, method(seed=seed), n) for seed in range(3)) for method in (METHODS[name], Random)
    ]
    assert 0 < closer * missing[0] < missing[1]


@each_method
def test_it_does_not_matter_which_way_an_objective_looks(method: ParetoMethod) -> None:
    """More of one is less of its negative, in any order of the names; a logarithm is that of the value."""
    trials, goals = by_chance(), Goals(GOALS)
    here = proposed(method, MIXED, trials, goals)
    turned = [replace(t, values={"bytes": t.values["bytes"], "right": -t.values["right"]}) for t in trials]
    assert proposed(method, MIXED, turned, Goals({"right": Goal(), "bytes": Goal(log=True)})) == here
    logs = [replace(t, values={**t.values, "bytes": float(np.log(t.values["bytes"]))}) for t in trials]
    assert proposed(method, MIXED, logs, Goals({"right": Goal(maximise=True), "bytes": Goal()})) == here
    if not isinstance(method, ParEGO):  # its weights are drawn in the order of the names
        assert proposed(method, MIXED, trials, Goals(dict(reversed(GOALS.items())))) == here


@each_method
def test_it_is_determined_by_the_trials_and_its_seed(method: Any) -> None:
    trials, goals = by_chance(), Goals(GOALS)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    here = proposed(method, MIXED, trials, goals)
    assert proposed(method, MIXED, list(trials), goals) == here
    assert proposed(replace(method, seed=1), MIXED, (), goals) != proposed(method, MIXED, (), goals)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


@each_method
def test_a_batch_does_not_repeat_itself_and_what_failed_is_no_end(method: Any) -> None:
    trials = list(by_chance(n=15))
    trials[4] = Trial(4, trials[4].config, "failed", error="no")
    trials[9] = Trial(9, trials[9].config, "timed out")
    places = []
    for number in range(15, 22):
        config = proposed(method, MIXED, trials, Goals(GOALS))
        places.append(MIXED.encode(config))
        trials.append(Trial(number, config))
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(places, 2)]
    assert min(apart) > 1e-6 and statistics.median(apart) > 0.05


@each_method
def test_a_finite_space_is_gone_through_once(method: ParetoMethod) -> None:
    study = Study(SMALL, objectives=GOALS).run(mixed, method, budget=50)
    assert len({key(trial.config) for trial in study.trials}) == len(study.trials) == 12
    waiting = [replace(trial, status="asked", values={}) for trial in study.trials]
    assert method.propose(SMALL, waiting, goals=Goals(GOALS)) is None


@each_method
def test_trials_that_all_fail_or_are_all_equal_are_no_obstacle(method: ParetoMethod) -> None:
    failed = [replace(trial, status="failed", values={}) for trial in by_chance(n=8)]
    assert key(proposed(method, MIXED, failed, Goals(GOALS))) not in {key(trial.config) for trial in failed}
    same = [replace(trial, values={"right": 0.5, "bytes": 10.0}) for trial in by_chance(n=8)]
    assert key(proposed(method, MIXED, same, Goals(GOALS))) not in {key(trial.config) for trial in same}
    huge = [replace(trial, values={"right": 1e300 * at, "bytes": 10.0**at}) for at, trial in enumerate(same)]
    assert key(proposed(method, MIXED, huge, Goals(GOALS))) not in {key(trial.config) for trial in huge}
    assert proposed(method, MIXED, (), Goals(GOALS))


@pytest.mark.parametrize(("name", "n"), [("NSGA2", 120), ("ParEGO", 24), ("EHVI", 24)])
def test_limits_draw_it_to_what_keeps_them(name: str, n: int) -> None:
    """Both limits leave a corner of the plane that chance seldom finds: the later half of the trials is there often."""
    limits = {"f1": Goal(limit=0.5), "f2": Goal(limit=1.5)}
    for seed in range(2):
        kept = []
        for method in (replace(QUICK[name], seed=seed), Random(seed)):  # type: ignore[type-var]
            study = Study(ZDT1.space, objectives=limits).run(ZDT1, method, budget=n)
            assert study.goals is not None
            kept.append(study.goals.within(study.goals.losses(study.trials[n // 2 :])).mean())
        assert kept[0] > 0.4 and kept[1] < 0.2


@pytest.mark.parametrize(("name", "n"), [("NSGA2", 120), ("ParEGO", 40)])
def test_three_objectives(name: str, n: int) -> None:
    """Closeness to each corner of a triangle: over two seeds its volume is larger than that of chance."""
    corners = dict(zip("abc", np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]]), strict=True))
    space, objectives = Space({f"x{at}": Float(0, 1) for at in range(4)}), {name: Goal() for name in corners}

    def far(config: Config) -> dict[str, float]:
        x = np.array(list(config.values()))
        return {name: float(((x[:2] - corner) ** 2).sum() + x[2] + x[3]) for name, corner in corners.items()}

    found = []
    for method in (METHODS[name], Random):
        studies = [Study(space, objectives=objectives).run(far, method(seed=seed), budget=n) for seed in range(2)]
        found.append(sum(study.hypervolume(a=1, b=1, c=1) for study in studies))
    assert found[0] > 1.2 * found[1]
