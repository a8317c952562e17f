"""A finished search under smaller budgets, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from kit.search import Config
from kit.search.replay import Track, track
from kit.search.trials import Status, Trial

WORTH = {"a": 0.55, "b": 0.5, "c": 0.65, "d": 0.45, "e": 0.6}  # of each configuration, measured anew


def fresh(config: Config) -> float:
    return WORTH[config["name"]]


def trial(number: int, name: str, value: float | None, spent: int, status: Status | None = None) -> Trial:
    return Trial(
        number,
        {"name": name},
        status or ("failed" if value is None else "done"),
        epochs=spent,
        value=value,
        spent=spent,
    )


# Told after 2, 5, 6, 10 and 11 epochs.
TRIALS = (
    trial(0, "a", None, 2),
    trial(1, "b", 0.6, 3),
    trial(2, "c", 0.5, 1),
    trial(3, "d", 0.8, 4),
    trial(4, "e", 0.8, 1),
)


def walk(trials: Any = TRIALS, *, maximise: bool = True, epochs: bool = True) -> Track:
    return track(trials, fresh, maximise=maximise, epochs=epochs)


def test_the_best_so_far_where_more_is_better() -> None:
    found = walk()
    assert found.trials == TRIALS
    assert found.spent == (2, 5, 6, 10, 11)
    assert found.chosen == (None, 1, 1, 3, 3)  # the first of equal ones stays
    assert found.worth == (None, 0.5, 0.5, 0.45, 0.45)  # what it is worth may fall where the value rises


def test_the_best_so_far_where_less_is_better() -> None:
    found = walk(maximise=False)
    assert found.spent == (2, 5, 6, 10, 11)
    assert found.chosen == (None, 1, 2, 2, 2)
    assert found.worth == (None, 0.5, 0.65, 0.65, 0.65)


def test_a_budget_in_trials_counts_each_as_one() -> None:
    found = walk(epochs=False)
    assert found.spent == (1, 2, 3, 4, 5)
    assert found.chosen == walk().chosen
    assert [found.within(budget) for budget in (0, 1, 3, 9)] == [0, 1, 3, 5]


@pytest.mark.parametrize(
    ("budget", "count"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (9, 3), (10, 4), (11, 5), (99, 5)]
)
def test_trials_within_a_budget(budget: int, count: int) -> None:
    assert walk().within(budget) == count


@pytest.mark.parametrize(("budget", "number"), [(0, None), (2, None), (4, None), (5, 1), (9, 1), (10, 3), (99, 3)])
def test_what_is_chosen_under_a_budget(budget: int, number: int | None) -> None:
    found = walk().at(budget)
    if number is None:
        assert found is None
    else:
        assert found == (TRIALS[number], WORTH[TRIALS[number].config["name"]])


def test_trials_that_nobody_told_are_left_out() -> None:
    """The chosen one is found even where the study's numbers have gaps."""
    gaps = (
        trial(0, "a", None, 7, "lost"),
        trial(1, "b", 0.6, 3),
        trial(2, "c", None, 7, "asked"),
        trial(3, "d", 0.9, 2),
    )
    found = walk(gaps)
    assert found.trials == (gaps[1], gaps[3])
    assert found.spent == (3, 5)
    assert found.at(4) == (gaps[1], WORTH["b"])
    assert found.at(5) == (gaps[3], WORTH["d"])


def test_trials_that_failed_or_took_too_long_cost_and_are_never_chosen() -> None:
    broken = (trial(0, "a", None, 4), trial(1, "b", None, 3, "timed out"))
    for maximise in (True, False):
        found = walk(broken, maximise=maximise)
        assert found.spent == (4, 7)
        assert found.chosen == found.worth == (None, None)
        assert found.at(100) is None


def test_no_trials() -> None:
    found = walk(())
    assert found == Track((), (), (), ())
    assert found.within(5) == 0
    assert found.at(5) is None


def test_only_what_is_chosen_is_measured_anew() -> None:
    asked: list[str] = []

    def counted(config: Config) -> float:
        asked.append(config["name"])
        return 0.5

    track(TRIALS, counted, maximise=True)
    assert asked == ["b", "d"]
