"""Successive halving, Hyperband, ASHA: their rungs by hand and by the paper, and who goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest

from kit.search import ASHA, Config, Float, Hyperband, Int, Method, Random, Space, Study, SuccessiveHalving, Trial
from kit.search.trials import Proposal
from tests.searches import ask

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


def searched(
    method: Method, budget: int, objective: Any = loss, maximise: bool = False, **settings: Any
) -> tuple[Trial, ...]:
    return Study(SPACE, maximise=maximise).run(objective, method, budget=budget, **settings).trials


def continued(trials: Sequence[Trial]) -> list[tuple[int | None, int | None]]:
    """Epochs, and the trial that each goes on from."""
    return [(trial.epochs, trial.continues) for trial in trials]


def rungs_of(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of each rung, in the order in which they were tried."""
    return [list(rung) for _, rung in groupby(trials, key=lambda trial: (trial.bracket, trial.epochs))]


def sizes(trials: Sequence[Trial]) -> list[tuple[int, int | None]]:
    return [(len(rung), rung[0].epochs) for rung in rungs_of(trials)]


# Rungs


def test_rungs_by_hand() -> None:
    for least, most, eta, wanted in (
        (1, 27, 3, (1, 3, 9, 27)),
        (2, 27, 3, (3, 9, 27)),
        (1, 1, 2, (1,)),
        (1, 100, 3, (1, 3, 11, 33, 100)),
        (5, 40, 2, (5, 10, 20, 40)),
        (6, 40, 2, (10, 20, 40)),
    ):
        assert ASHA(min_epochs=least, max_epochs=most, eta=eta).rungs == wanted


@pytest.mark.parametrize("maximise", [False, True])
def test_successive_halving_by_hand(maximise: bool) -> None:
    trials = searched(SuccessiveHalving(n=9, min_epochs=1, max_epochs=9), budget=13, maximise=maximise)
    assert sizes(trials) == [(9, 1), (3, 3), (1, 9)]
    first, second, third = rungs_of(trials)
    best = sorted(first, key=lambda trial: trial.config["x"], reverse=maximise)
    assert [(trial.continues, trial.config) for trial in second] == [(trial.number, trial.config) for trial in best[:3]]
    assert (third[0].continues, third[0].config) == (second[0].number, best[0].config)
    assert all(trial.continues is None for trial in first)
    fewer = searched(SuccessiveHalving(n=4, min_epochs=1, max_epochs=27), budget=10, maximise=maximise)
    assert sizes(fewer) == [(4, 1), (1, 3), (4, 1), (1, 3)]  # a rung for which no trial is left is left out


def test_new_configurations_are_those_of_random_search() -> None:
    trials = searched(SuccessiveHalving(n=4, min_epochs=1, max_epochs=4, eta=2, seed=7), budget=14)
    new = [trial.config for trial in trials if trial.continues is None]
    drawn = searched(Random(7), budget=8, objective=lambda config: 0.0)
    assert new == [trial.config for trial in drawn]


def test_hyperband_is_the_papers() -> None:
    method = Hyperband(min_epochs=1, max_epochs=81)
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
def test_hyperband_begins_as_many_trials_as_the_formula_says(eta: int) -> None:
    for s_max in range(12):
        method = Hyperband(min_epochs=1, max_epochs=eta**s_max, eta=eta)
        for s in range(s_max + 1):
            plan = method.plan(s_max - s)
            assert plan[0] == (math.ceil(Fraction(s_max + 1, s + 1) * eta**s), eta ** (s_max - s))
            assert (len(plan), plan[-1][1]) == (s + 1, eta**s_max)


# Who goes on


@pytest.mark.parametrize("method", [SuccessiveHalving(n=9, max_epochs=9), Hyperband(max_epochs=9)])
def test_trials_that_failed_never_go_on_before_those_that_are_done(method: Method) -> None:
    def fails_where_it_is_best(config: Config, epochs: int) -> float:
        return config["x"] / (config["x"] >= 0.5)

    first, second, *_ = rungs_of(searched(method, 13, fails_where_it_is_best))
    done = sorted((trial for trial in first if trial.status == "done"), key=lambda trial: trial.config["x"])
    assert 3 <= len(done) < len(first)
    assert [trial.continues for trial in second] == [trial.number for trial in done[:3]]


def test_a_bracket_of_failures_still_ends_and_equal_trials_go_on_in_their_order() -> None:
    trials = searched(SuccessiveHalving(n=3, max_epochs=3), 8, lambda config, epochs: math.nan, failures=None)
    assert sizes(trials) == [(3, 1), (1, 3)] * 2
    assert {trial.status for trial in trials} == {"failed"}
    trials = searched(SuccessiveHalving(n=9, max_epochs=9), 13, lambda config, epochs: 1.0)
    assert continued(trials) == [*[(1, None)] * 9, (3, 0), (3, 1), (3, 2), (9, 9)]


@pytest.mark.parametrize("method", [SuccessiveHalving(n=3, max_epochs=3), Hyperband(max_epochs=3)])
def test_a_rung_waits_for_trials_that_are_asked(method: Method) -> None:
    study = Study(SPACE)
    assert [ask(study, method).epochs for _ in range(3)] == [1, 1, 1]
    for number, value in enumerate((0.5, 0.1, 0.3)):
        assert study.ask(method) is None
        study.tell(number, value)
    above = ask(study, method)
    assert (above.epochs, above.continues, above.config) == (3, 1, study.trials[1].config)
    assert study.ask(method) is None  # the next bracket waits for this one
    study.tell(above.number, 0.1)
    new = ask(study, method)
    assert (new.bracket, new.continues) == (1, None)


def test_a_lost_trial_of_a_rung_is_tried_again() -> None:
    method = SuccessiveHalving(n=3, max_epochs=3)
    trials = searched(method, budget=4)
    for lost, known in ((3, trials), (1, trials[:3])):
        again = method.propose(SPACE, [trial for trial in known if trial.number != lost], maximise=False)
        was = trials[lost]
        assert again == Proposal(was.config, was.epochs, was.continues, was.bracket)


def test_batches_stop_at_the_end_of_a_rung() -> None:
    batches: list[tuple[int, int]] = []

    def many(configs: list[Config], epochs: int) -> Iterator[float]:
        batches.append((len(configs), epochs))
        return (loss(config, epochs) for config in configs)

    trials = searched(SuccessiveHalving(n=9, max_epochs=9), 13, many, batch=6)
    assert batches == [(6, 1), (3, 1), (3, 3), (1, 9)]
    one_by_one = searched(SuccessiveHalving(n=9, max_epochs=9), 13)
    assert [(trial.config, trial.value) for trial in trials] == [(trial.config, trial.value) for trial in one_by_one]


# ASHA


def test_asha_by_hand() -> None:
    study, method = Study(SPACE), ASHA(min_epochs=1, max_epochs=9)
    for value in (0.5, 0.3, 0.4, 0.2, 0.9, 0.8, 0.1, 0.05, 0.3, 0.01):
        study.tell(ask(study, method).number, value)
    assert continued(study.trials) == [
        *[(1, None)] * 3,
        (3, 1),  # the best 1 of 3, which has 0.3; told 0.2
        *[(1, None)] * 3,  # 0.9, 0.8, 0.1: now there are 6
        (3, 6),  # the best 2 of 6: number 6 with 0.1, and number 1, which went on; told 0.05
        *[(1, None)] * 2,
    ]
    # The best 2 of 8 are number 9, and number 6, which went on.
    assert continued([ask(study, method)]) == [(3, 9)]


def test_asha_never_waits() -> None:
    study, method = Study(SPACE), ASHA(min_epochs=1, max_epochs=27)
    assert all(ask(study, method).epochs == 1 for _ in range(50))
    for number in range(9):
        study.tell(number, float(number))
    assert continued([ask(study, method) for _ in range(4)]) == [(3, 0), (3, 1), (3, 2), (1, None)]


def test_asha_looks_at_the_upper_rungs_first() -> None:
    study, method = Study(SPACE), ASHA(min_epochs=1, max_epochs=9)
    for count in (9, 6):
        for number in [ask(study, method).number for _ in range(count)]:
            study.tell(number, float(number))
    assert [trial.epochs for trial in study.trials] == [1] * 9 + [3, 3, 3, 1, 1, 1]
    # 1 of 3 may leave the second rung, the 4th of 12 the first.
    assert continued([ask(study, method) for _ in range(3)]) == [(9, 9), (3, 3), (1, None)]


def test_asha_sends_on_only_the_best_of_each_rung() -> None:
    trials = searched(ASHA(min_epochs=1, max_epochs=27), budget=400)
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


@pytest.mark.parametrize(
    "method", [SuccessiveHalving(n=9, max_epochs=9), Hyperband(max_epochs=27), ASHA(max_epochs=27)]
)
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
    for method in (SuccessiveHalving(n=9, max_epochs=9), Hyperband(max_epochs=9), ASHA(max_epochs=9)):
        trials = Study(space).run(loss, method, budget=1000).trials
        new = [trial.config["x"] for trial in trials if trial.continues is None]
        assert sorted(new) == [1, 2, 3, 4, 5]


def test_a_bracket_that_cannot_be_filled_by_hand() -> None:
    """4 configurations for 9 places: 3 go on, then 1; then the others follow, the best first."""
    method = SuccessiveHalving(n=9, max_epochs=9)
    trials = Study(Space({"x": Int(1, 4)})).run(loss, method, budget=300, unit="epochs").trials
    assert sizes(trials)[:3] == [(4, 1), (3, 3), (1, 9)]
    later = [(trial.config["x"], trial.epochs) for trial in trials[4:]]
    assert later == [(1, 3), (2, 3), (3, 3), (1, 9), (2, 9), (3, 9), (4, 3), (4, 9)]


@pytest.mark.parametrize("method", [SuccessiveHalving(n=9, max_epochs=9), Hyperband(max_epochs=9), ASHA(max_epochs=9)])
@pytest.mark.parametrize("count", [2, 4, 11])
@pytest.mark.parametrize("batch", [None, 4])
def test_all_of_a_small_space_goes_on_to_the_last_rung(method: Method, count: int, batch: int | None) -> None:
    def fails_once(config: Config, epochs: int) -> float:
        return math.nan if config["x"] == 2 else loss(config, epochs)

    def many(configs: list[Config], epochs: int) -> list[float]:
        return [fails_once(config, epochs) for config in configs]

    study = Study(Space({"x": Int(1, count)}))
    study.run(fails_once if batch is None else many, method, budget=10_000, unit="epochs", batch=batch)
    trained = [(trial.config["x"], trial.epochs) for trial in study.trials]
    assert len(set(trained)) == len(trained)  # none twice
    assert {x for x, epochs in trained if epochs == 9} >= {x for x in range(1, count + 1) if x != 2}
    assert study.ask(method) is None


# What is refused


@pytest.mark.parametrize("method", [SuccessiveHalving, Hyperband, ASHA])
def test_what_makes_no_rungs_is_refused(method: Any) -> None:
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (method, {"min_epochs": 0}, "min_epochs must be 1 or more; got 0."),
        (method, {"min_epochs": 4, "max_epochs": 3}, "max_epochs must be at least min_epochs, 4; got 3."),
        (method, {"eta": 1}, "eta must be 2 or more; got 1."),
        (method, {"seed": -1}, "seed must be 0 or more; got -1."),
        (method, {"max_epochs": "9"}, "max_epochs must be a whole number; got '9'."),
        (SuccessiveHalving, {"n": 1}, "n must be 2 or more; got 1."),
    ]
    for make, arguments, sentence in wrong:
        with pytest.raises((TypeError, ValueError), match=sentence):
            make(**arguments)
