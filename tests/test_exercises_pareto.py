"""The exercises on fronts: other right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kit import exercises
from kit.exercises import Verdict


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- crowding distance -----------------------------------------------------------------------------------------------


def lonely(
    losses: np.ndarray, *, scale: bool = True, ends: float = np.inf, before: int = 1, after: int = 1, columns: int = 9
) -> np.ndarray:
    """By a look at each trial for itself, or slips of it."""
    found = []
    for row in losses:
        total = 0.0
        for column, value in list(zip(losses.T, row, strict=True))[:columns]:
            ordered = sorted(column)
            at = ordered.index(value)
            if at in (0, len(ordered) - 1):
                total += ends
            else:
                total += (ordered[at + after] - ordered[at - before]) / (np.ptp(column) if scale else 1.0)
        found.append(total)
    return np.array(found)


def guarded(losses: np.ndarray) -> np.ndarray:
    """An objective of equal values has two ends, whichever, and no gaps: as of an ascending sort that keeps order."""
    moved = losses + np.linspace(0, 1e-9, len(losses))[:, None] * (np.ptp(losses, axis=0) == 0)
    total = np.zeros(len(losses))
    for at, column in enumerate(moved.T):
        total += lonely(column[:, None], scale=bool(np.ptp(losses[:, at])))
    return total


def test_an_unusual_crowding_distance_is_right() -> None:
    verdict = exercises.crowding_distance(guarded)
    assert verdict.right, verdict


def without_the_equal(losses: np.ndarray) -> np.ndarray:
    """An objective of equal values has no ends."""
    return guarded(losses[:, np.ptp(losses, axis=0) > 0])


def other_breaks_ties(losses: np.ndarray) -> np.ndarray:
    """Of equal values in an objective the first is the one that is best in the others."""
    places = [np.lexsort([*np.delete(losses, at, 1).T, losses[:, at]]) for at in range(losses.shape[1])]
    total = np.zeros(len(losses))
    for order, column in zip(places, losses.T, strict=True):
        total[order[[0, -1]]] = np.inf
        total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / (np.ptp(column) or 1.0)
    return total


@pytest.mark.parametrize("answer", [without_the_equal, other_breaks_ties])
def test_ends_of_equal_values_may_be_any(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    verdict = exercises.crowding_distance(answer)
    assert verdict.right, verdict


def sorted_out(losses: np.ndarray) -> np.ndarray:
    return guarded(losses[np.argsort(losses[:, 0])])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda losses: ..., "Nothing is answered"),
        (lambda losses: lonely(losses, scale=False), "range of its objective"),
        (lambda losses: lonely(losses, ends=0.0), "infinite distance"),
        (lambda losses: lonely(losses, after=0), "one \\*after\\*"),
        (lambda losses: lonely(losses, before=0), "neighbour \\*before\\*"),
        (lambda losses: guarded(losses) / losses.shape[1], "the sum is asked for"),
        (lambda losses: guarded(losses) / 2, "the sum is asked for|not half"),
        (lambda losses: guarded(losses)[:-1], "one number for each"),
        (lambda losses: np.full(len(losses), np.inf), "no end of any objective"),
        (lambda losses: guarded(losses) * np.nan, "NaN"),
        (sorted_out, "infinite distance|order of the first"),
        (lambda losses: guarded(losses) + 0.1, "gaps between both neighbours"),
        (lambda losses: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_wrong_crowding_distance(wrong: Callable[[np.ndarray], Any], reason: str) -> None:
    refused(exercises.crowding_distance(wrong), reason)


def test_equal_values_must_not_divide_by_zero() -> None:
    def careless(losses: np.ndarray) -> np.ndarray:
        total = np.zeros(len(losses))
        for column in losses.T:
            order = np.argsort(column, kind="stable")
            total[order[[0, -1]]] = np.inf
            with np.errstate(invalid="ignore"):
                total[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / np.ptp(column)
        return total

    refused(exercises.crowding_distance(careless), "equal: there is a NaN")


# -- the area that only each network adds -----------------------------------------------------------------------------


def cells(losses: np.ndarray, corner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who covers each cell between all sizes and all errors, and its area: [n, c], [c]."""
    xs, ys = (np.unique(np.append(np.minimum(losses[:, at], corner[at]), corner[at])) for at in (0, 1))
    covered = (losses[:, 0, None, None] <= xs[:-1, None]) & (losses[:, 1, None, None] <= ys[None, :-1])
    return covered.reshape(len(losses), -1), np.outer(np.diff(xs), np.diff(ys)).ravel()


def alone(losses: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Cells that one network covers: without a sort, and without an area of all."""
    covered, areas = cells(losses, corner)
    return (covered & (covered.sum(0) == 1)) @ areas


def left(losses: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """What is covered without each."""
    covered, areas = cells(losses, corner)
    return np.array([np.delete(covered, at, axis=0).any(0) @ areas for at in range(len(losses))])


def to_the_next(losses: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The rectangle up to both neighbours on the front; dominated networks are not looked at."""
    found = np.zeros(len(losses))
    inside = [at for at, row in enumerate(losses) if (row < corner).all()]
    ahead = [at for at in inside if not any((losses[o] <= losses[at]).all() and o != at for o in inside)]
    ahead.sort(key=lambda at: losses[at, 0])
    for place, at in enumerate(ahead):
        right = losses[ahead[place + 1], 0] if place + 1 < len(ahead) else corner[0]
        top = losses[ahead[place - 1], 1] if place else corner[1]
        found[at] = (right - losses[at, 0]) * (top - losses[at, 1])
    return found


def test_an_unusual_area_alone_is_right() -> None:
    verdict = exercises.area_alone(alone)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda losses, corner: ..., "Nothing is answered"),
        (lambda losses, corner: np.maximum(corner - losses, 0).prod(1), "others cover parts"),
        (left, "what is lost is asked for"),
        (to_the_next, "With C and E.*comes forward"),
        (lambda losses, corner: alone(losses, corner) / corner.prod(), "share of the whole"),
        (lambda losses, corner: -alone(losses, corner), "positive"),
        (lambda losses, corner: alone(losses[np.argsort(losses[:, 0])], corner), "order of the rows"),
        (lambda losses, corner: alone(losses, corner)[:-1], "one number for each of the 4"),
        (lambda losses, corner: alone(losses, corner) + np.arange(len(losses)), "network 3 .8 and 8. adds 8"),
        (lambda losses, corner: alone(losses, corner) * np.nan, "got nan"),
        (lambda losses, corner: alone(losses, np.array([15.0, 25.0])), "A and F outside"),
        (lambda losses, corner: ["much"] * len(losses), "ValueError"),
    ],
)
def test_a_wrong_area_alone(wrong: Callable[..., Any], reason: str) -> None:
    refused(exercises.area_alone(wrong), reason)
