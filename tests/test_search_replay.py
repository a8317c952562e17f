"""A finished search under smaller budgets, counted by hand."""

from __future__ import annotations

from typing import Any

from kit.search import Config
from kit.search.replay import Trajectory, replay
from kit.search.trials import Status, Trial

WORTH = {"a": 0.55, "b": 0.5, "c": 0.65, "d": 0.45, "e": 0.6}  # of each configuration, measured anew


def retest(config: Config) -> float:
    return WORTH[config["name"]]


def trial(number: int, name: str, value: float | None, spent: int, status: Status | None = None) -> Trial:
    status = status or ("failed" if value is None else "done")
    return Trial(number, {"name": name}, status, epochs=spent, value=value, spent=spent)


# Told after 2, 5, 6, 10 and 11 epochs.
TRIALS = (
    trial(0, "a", None, 2),
    trial(1, "b", 0.6, 3),
    trial(2, "c", 0.5, 1),
    trial(3, "d", 0.8, 4),
    trial(4, "e", 0.8, 1),
)


def walk(trials: Any = TRIALS, *, maximise: bool = True, epochs: bool = True) -> Trajectory:
    return replay(trials, retest, maximise=maximise, epochs=epochs)


def test_the_best_so_far() -> None:
    found = walk()
    assert found.trials == TRIALS
    assert found.spent == (2, 5, 6, 10, 11)
    assert found.incumbent == (None, 1, 1, 3, 3)  # the first of equal ones stays
    assert found.retested == (None, 0.5, 0.5, 0.45, 0.45)  # what it is worth may fall where the value rises
    less = walk(maximise=False)
    assert less.incumbent == (None, 1, 2, 2, 2)
    assert less.retested == (None, 0.5, 0.65, 0.65, 0.65)
    in_trials = walk(epochs=False)
    assert (in_trials.spent, in_trials.incumbent) == ((1, 2, 3, 4, 5), found.incumbent)
    assert [in_trials.within(budget) for budget in (0, 1, 3, 9)] == [0, 1, 3, 5]


def test_what_is_told_and_chosen_under_a_budget() -> None:
    for budget, count in ((0, 0), (1, 0), (2, 1), (5, 2), (9, 3), (10, 4), (11, 5), (99, 5)):
        assert walk().within(budget) == count
        chosen = TRIALS[1 if budget < 10 else 3]
        assert walk().at(budget) == (None if budget < 5 else (chosen, WORTH[chosen.config["name"]]))


def test_trials_that_nobody_told_are_left_out() -> None:
    """The chosen one is found even where the study's numbers have gaps."""
    told = trial(1, "b", 0.6, 3), trial(3, "d", 0.9, 2)
    found = walk((trial(0, "a", None, 7, "lost"), told[0], trial(2, "c", None, 7, "asked"), told[1]))
    assert (found.trials, found.spent) == (told, (3, 5))
    assert found.at(4) == (told[0], WORTH["b"])
    assert found.at(5) == (told[1], WORTH["d"])


def test_trials_that_failed_or_took_too_long_cost_and_are_never_chosen() -> None:
    broken = (trial(0, "a", None, 4), trial(1, "b", None, 3, "timed out"))
    for maximise in (True, False):
        found = walk(broken, maximise=maximise)
        assert found.spent == (4, 7)
        assert found.incumbent == found.retested == (None, None)
        assert found.at(100) is None
    found = walk(())
    assert (found, found.within(5), found.at(5)) == (Trajectory((), (), (), ()), 0, None)


def test_only_what_is_chosen_is_measured_anew() -> None:
    asked: list[str] = []

    def counted(config: Config) -> float:
        asked.append(config["name"])
        return 0.5

    replay(TRIALS, counted, maximise=True)
    assert asked == ["b", "d"]
