"""Successive halving, Hyperband, ASHA: their rungs by hand and by the paper, and who goes on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest

from kit.search import ASHA, Config, Float, Hyperband, Int, Method, Random, Space, Study, SuccessiveHalving, Trial
from kit.search.halving import rungs

SPACE = Space({"x": Float(0, 1)})
HYPERBAND_81 = (  # Li et al. (2018), R = 81, eta = 3: trials and epochs of each rung, with n of algorithm 1
    ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81)),
    ((34, 3), (11, 9), (3, 27), (1, 81)),
    ((15, 9), (5, 27), (1, 81)),
    ((8, 27), (2, 81)),
    ((5, 81),),
)


def loss(config: Config, epochs: int) -> float:
    """Falls with the epochs; at any of them the order is that of x."""
    return config["x"] + 1 / epochs


def searched(method: Method, budget: int, objective: Any = loss, **settings: Any) -> tuple[Trial, ...]:
    return (
        Study(SPACE, maximise=settings.pop("maximise", False)).run(objective, method, budget=budget, **settings).trials
    )


def rungs_of(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of each rung, in the order in which they were tried."""
    return [list(rung) for _, rung in groupby(trials, key=lambda trial: (trial.bracket, trial.epochs))]


def sizes(trials: Sequence[Trial]) -> list[tuple[int, int | None]]:
    return [(len(rung), rung[0].epochs) for rung in rungs_of(trials)]


# Rungs


@pytest.mark.parametrize(
    ("least", "most", "eta", "wanted"),
    [
        (1, 27, 3, (1, 3, 9, 27)),
        (2, 27, 3, (3, 9, 27)),
        (1, 1, 2, (1,)),
        (1, 100, 3, (1, 3, 11, 33, 100)),
        (5, 40, 2, (5, 10, 20, 40)),
        (6, 40, 2, (10, 20, 40)),
    ],
)
def test_rungs_by_hand(least: int, most: int, eta: int, wanted: tuple[int, ...]) -> None:
    assert rungs(least, most, eta) == wanted


def test_successive_halving_by_hand() -> None:
    trials = searched(SuccessiveHalving(n=9, least=1, most=9), budget=13)
    assert sizes(trials) == [(9, 1), (3, 3), (1, 9)]
    first, second, third = rungs_of(trials)
    best = sorted(first, key=lambda trial: trial.config["x"])
    assert [trial.continues for trial in second] == [trial.number for trial in best[:3]]
    assert [trial.config for trial in second] == [trial.config for trial in best[:3]]
    assert third[0].continues == second[0].number
    assert third[0].config == best[0].config
    assert all(trial.continues is None for trial in first)


def test_more_may_be_better() -> None:
    trials = searched(SuccessiveHalving(n=9, least=1, most=9), budget=13, maximise=True)
    first, second, _ = rungs_of(trials)
    best = sorted(first, key=lambda trial: -trial.config["x"])
    assert [trial.config for trial in second] == [trial.config for trial in best[:3]]


def test_a_rung_for_which_no_trial_is_left_is_left_out() -> None:
    trials = searched(SuccessiveHalving(n=4, least=1, most=27), budget=10)
    assert sizes(trials) == [(4, 1), (1, 3), (4, 1), (1, 3)]


def test_new_configurations_are_those_of_random_search() -> None:
    trials = searched(SuccessiveHalving(n=4, least=1, most=4, eta=2, seed=7), budget=14)
    new = [trial.config for trial in trials if trial.continues is None]
    drawn = searched(Random(7), budget=8, objective=lambda config: 0.0)
    assert new == [trial.config for trial in drawn]


def test_hyperband_is_the_papers() -> None:
    method = Hyperband(least=1, most=81)
    assert tuple(method.plan(bracket) for bracket in range(5)) == HYPERBAND_81
    assert method.plan(5) == HYPERBAND_81[0]  # and it begins again
    trials = searched(method, budget=206 + 3)
    assert sizes(trials) == [rung for bracket in HYPERBAND_81 for rung in bracket] + [(3, 1)]
    brackets = [trial.bracket for trial in trials if trial.bracket is not None]
    assert len(brackets) == len(trials) and brackets == sorted(brackets)
    for below, above in zip(rungs_of(trials), rungs_of(trials)[1:], strict=False):
        if above[0].continues is None:
            assert above[0].bracket == (below[0].bracket or 0) + 1
            continue
        best = sorted(below, key=lambda trial: trial.config["x"])[: len(above)]
        assert [trial.continues for trial in above] == [trial.number for trial in best]


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("s_max", range(12))
def test_hyperband_begins_as_many_trials_as_the_formula_says(eta: int, s_max: int) -> None:
    method = Hyperband(least=1, most=eta**s_max, eta=eta)
    for s in range(s_max + 1):
        plan = method.plan(s_max - s)
        assert plan[0] == (math.ceil(Fraction(s_max + 1, s + 1) * eta**s), eta ** (s_max - s))
        assert len(plan) == s + 1
        assert plan[-1][1] == eta**s_max


# Who goes on


@pytest.mark.parametrize("method", [SuccessiveHalving(n=9, most=9), Hyperband(most=9)])
def test_trials_that_failed_never_go_on_before_those_that_are_done(method: Method) -> None:
    def fails_where_it_is_best(config: Config, epochs: int) -> float:
        if config["x"] < 0.5:
            raise ArithmeticError
        return config["x"]

    first, second, *_ = rungs_of(searched(method, 13, fails_where_it_is_best))
    statuses = Counter(trial.status for trial in first)
    assert statuses["failed"] >= 1
    assert statuses["done"] >= 3
    done = sorted((trial for trial in first if trial.status == "done"), key=lambda trial: trial.config["x"])
    assert [trial.continues for trial in second] == [trial.number for trial in done[:3]]


def test_a_bracket_of_failures_still_ends() -> None:
    trials = searched(SuccessiveHalving(n=3, most=3), 8, lambda config, epochs: math.nan)
    assert sizes(trials) == [(3, 1), (1, 3)] * 2
    assert {trial.status for trial in trials} == {"failed"}


def test_equal_trials_go_on_in_their_order() -> None:
    first, second, third = rungs_of(searched(SuccessiveHalving(n=9, most=9), 13, lambda config, epochs: 1.0))
    assert [trial.continues for trial in second] == [0, 1, 2]
    assert [trial.continues for trial in third] == [9]
    assert len(first) == 9


@pytest.mark.parametrize("method", [SuccessiveHalving(n=3, most=3), Hyperband(most=3)])
def test_a_rung_waits_for_trials_that_are_asked(method: Method) -> None:
    study = Study(SPACE)
    asked = [study.ask(method) for _ in range(3)]
    assert [trial.epochs for trial in asked if trial] == [1, 1, 1]
    for number, value in enumerate((0.5, 0.1)):
        assert study.ask(method) is None
        study.tell(number, value)
    assert study.ask(method) is None
    study.tell(2, 0.3)
    above = study.ask(method)
    assert above is not None
    assert (above.epochs, above.continues, above.config) == (3, 1, study.trials[1].config)
    assert study.ask(method) is None  # the next bracket waits for this one
    study.tell(above.number, 0.1)
    new = study.ask(method)
    assert new is not None
    assert (new.bracket, new.continues) == (1, None)


def test_a_lost_trial_of_a_rung_is_tried_again() -> None:
    method = SuccessiveHalving(n=3, most=3)
    trials = searched(method, budget=4)
    without = [trial for trial in trials if trial.number != 3]
    again = method.propose(SPACE, without, maximise=False)
    assert again is not None
    assert (again.config, again.continues, again.epochs) == (trials[3].config, trials[3].continues, 3)
    again = method.propose(SPACE, [trial for trial in trials[:3] if trial.number != 1], maximise=False)
    assert again is not None
    assert (again.config, again.continues) == (trials[1].config, None)


def test_batches_stop_at_the_end_of_a_rung() -> None:
    batches: list[tuple[int, int]] = []

    def many(configs: list[Config], epochs: int) -> Iterator[float]:
        batches.append((len(configs), epochs))
        return (loss(config, epochs) for config in configs)

    trials = searched(SuccessiveHalving(n=9, most=9), 13, many, batch=6)
    assert batches == [(6, 1), (3, 1), (3, 3), (1, 9)]
    one_by_one = searched(SuccessiveHalving(n=9, most=9), 13)
    assert [(trial.config, trial.value) for trial in trials] == [(trial.config, trial.value) for trial in one_by_one]


# ASHA


def test_asha_by_hand() -> None:
    values = iter([0.5, 0.3, 0.4, 0.2, 0.9, 0.8, 0.1, 0.05, 0.3, 0.01])
    study = Study(SPACE)
    method = ASHA(least=1, most=9)
    seen = []
    for value in values:
        trial = study.ask(method)
        assert trial is not None
        seen.append((trial.epochs, trial.continues))
        study.tell(trial.number, value)
    assert seen == [
        *[(1, None)] * 3,
        (3, 1),  # the best 1 of 3, which has 0.3; told 0.2
        *[(1, None)] * 3,  # 0.9, 0.8, 0.1: now there are 6
        (3, 6),  # the best 2 of 6: number 6 with 0.1, and number 1, which went on; told 0.05
        (1, None),
        (1, None),
    ]
    last = study.ask(method)
    assert last is not None
    assert (last.epochs, last.continues) == (3, 9)  # the best 2 of 8 are number 9, and number 6, which went on


def test_asha_never_waits() -> None:
    study = Study(SPACE)
    method = ASHA(least=1, most=27)
    asked = [study.ask(method) for _ in range(50)]
    assert all(trial is not None and trial.epochs == 1 for trial in asked)
    for number in range(9):
        study.tell(number, float(number))
    above = [study.ask(method) for _ in range(4)]
    assert [(trial.epochs, trial.continues) for trial in above if trial] == [(3, 0), (3, 1), (3, 2), (1, None)]


def test_asha_looks_at_the_upper_rungs_first() -> None:
    study = Study(SPACE)
    method = ASHA(least=1, most=9)
    first = [study.ask(method) for _ in range(9)]
    for number in range(len(first)):
        study.tell(number, float(number))
    asked = [study.ask(method) for _ in range(6)]
    assert [trial.epochs for trial in asked if trial] == [3, 3, 3, 1, 1, 1]
    for number in range(9, 15):
        study.tell(number, float(number))
    above = [study.ask(method) for _ in range(3)]  # 1 of 3 may leave the second rung, the 4th of 12 the first
    assert [(trial.epochs, trial.continues) for trial in above if trial] == [(9, 9), (3, 3), (1, None)]


def test_asha_sends_on_only_the_best_of_each_rung() -> None:
    trials = searched(ASHA(least=1, most=27), budget=400)
    for epochs, above in ((1, 3), (3, 9), (9, 27)):
        rung = [trial for trial in trials if trial.epochs == epochs]
        gone = {trial.continues for trial in trials if trial.epochs == above}
        assert len(gone) == sum(trial.epochs == above for trial in trials)  # none twice
        best = {trial.number for trial in sorted(rung, key=lambda trial: trial.config["x"])[: len(rung) // 3]}
        assert best <= gone | {trials[-1].number}  # those that are the best now have gone on; so have some that were
        for trial in trials:
            if trial.epochs == above:
                before = [each for each in rung if each.number < trial.number]
                better = sum(each.config["x"] < trial.config["x"] for each in before)
                assert better < len(before) // 3
    assert {trial.epochs for trial in trials} == {1, 3, 9, 27}


# Epochs that are spent


class Resuming:
    """An objective that goes on from where the trial before stopped."""

    resumes = True

    def __init__(self) -> None:
        self.at: dict[float, int] = {}
        self.trained = 0

    def __call__(self, config: Config, epochs: int) -> float:
        self.trained += epochs - self.at.get(config["x"], 0)
        self.at[config["x"]] = epochs
        return loss(config, epochs)


@pytest.mark.parametrize("method", [SuccessiveHalving(n=9, most=9), Hyperband(most=27), ASHA(most=27)])
def test_what_resumes_spends_only_new_epochs(method: Method) -> None:
    objective = Resuming()
    resumed = searched(method, 100, objective, unit="epochs")
    assert sum(trial.spent for trial in resumed) == objective.trained <= 100
    for trial in resumed:
        before = 0 if trial.continues is None else resumed[trial.continues].epochs or 0
        assert trial.spent == (trial.epochs or 0) - before
    anew = searched(method, 100, unit="epochs")
    assert all(trial.spent == trial.epochs for trial in anew)
    assert sum(trial.spent for trial in anew) <= 100
    assert len(resumed) > len(anew)
    assert [trial.config for trial in resumed[: len(anew)]] == [trial.config for trial in anew]


def test_a_small_space_ends_the_search() -> None:
    space = Space({"x": Int(1, 5)})
    for method in (SuccessiveHalving(n=9, most=9), Hyperband(most=9), ASHA(most=9)):
        trials = Study(space).run(loss, method, budget=1000).trials
        new = [trial.config["x"] for trial in trials if trial.continues is None]
        assert sorted(new) == [1, 2, 3, 4, 5]


# What is refused


@pytest.mark.parametrize("method", [SuccessiveHalving, Hyperband, ASHA])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"least": 0}, "least must be 1 or more; got 0."),
        ({"least": 4, "most": 3}, "most must be at least 4, the epochs of the first rung; got 3."),
        ({"eta": 1}, "eta must be 2 or more; got 1."),
        ({"seed": -1}, "seed must be 0 or more; got -1."),
        ({"least": 1.5}, "least must be a whole number; got 1.5."),
        ({"most": "9"}, "most must be a whole number; got '9'."),
        ({"eta": True}, "eta must be a whole number; got True."),
    ],
)
def test_what_makes_no_rungs_is_refused(method: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        method(**arguments)


def test_a_bracket_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be 2 or more; got 1."):
        SuccessiveHalving(n=1)
