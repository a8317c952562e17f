"""The exercises on architecture search: other right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from scipy.stats import binom, hypergeom

from kit import exercises
from kit.cells import EDGES, Cell
from kit.exercises import Verdict


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- which cells are the same function ---------------------------------------------------------------------------------


def as_text(cell: Cell, *, linear: Any = ("pool",), ordered: Any = sorted) -> Any:
    """Node by node, with texts."""
    sums: list[list[str]] = [["x"], [], [], []]
    for (start, end), operation in zip(EDGES, cell.operations, strict=True):
        terms = sums[start]
        if operation == "skip":
            sums[end] = ordered(sums[end] + terms)
        elif operation in linear:
            sums[end] = ordered(sums[end] + [f"{operation}({term})" for term in terms])
        elif operation != "none" and terms:
            sums[end] = ordered([*sums[end], f"{operation}({' + '.join(terms)})"])
    return tuple(sums[3])


def as_counts(cell: Cell, node: int = 3) -> frozenset[tuple[Any, int]]:
    """The other way round, with no text and no order: from the output back, each sum a count of its terms."""
    if node == 0:
        return frozenset({("x", 1)})
    found: Counter[Any] = Counter()
    for (start, end), operation in zip(EDGES, cell.operations, strict=True):
        if end == node and operation != "none" and (before := as_counts(cell, start)):
            if operation == "skip":
                found.update(dict(before))
            elif operation == "pool":
                found.update({("pool", term): count for term, count in before})
            else:
                found[operation, before] += 1
    return frozenset(found.items())


@pytest.mark.parametrize("right", [as_text, as_counts, lambda cell: hash(as_counts(cell))])
def test_the_same_function(right: Any) -> None:
    verdict = exercises.same_function(right)
    assert verdict.right and "627 different functions. The table has 34" in verdict.message, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda cell: cell.formula, r"tell pool\(.* apart. Take the pool of each term"),
        (str, "in another order of its sums"),
        (lambda cell: as_text(cell, ordered=list), "in another order of its sums"),
        (lambda cell: as_text(cell, linear=("pool", "conv1")), "behind a ReLU"),
        (lambda cell: as_text(cell, ordered=lambda terms: sorted(set(terms))), "counts twice"),
        (lambda cell: cell.formula.count("conv3"), "are different, and you say that they are the same"),
        (lambda cell: list(as_text(cell)), "key of a dict.*got list"),
        (lambda cell: ..., "Nothing is answered"),
        (lambda cell: cell.missing, "AttributeError"),
    ],
)
def test_another_function(wrong: Any, reason: str) -> None:
    refused(exercises.same_function(wrong), reason)


# -- trainings for one of the best -------------------------------------------------------------------------------------


def by_fractions(n: int, good: int, wanted: int, chance: float, *, above: bool = False) -> int:
    """Draw by draw: the chance of each number of good ones so far, exact; `above` asks for more than the chance."""
    found, b = {0: Fraction(1)}, 0
    while True:
        reached = sum(share for k, share in found.items() if k >= wanted)
        if reached > chance or (reached == chance and not above):
            return b
        new: dict[int, Fraction] = {}
        for k, share in found.items():
            new[k + 1] = new.get(k + 1, Fraction(0)) + share * Fraction(good - k, n - b)
            new[k] = new.get(k, Fraction(0)) + share * Fraction(n - good - b + k, n - b)
        found, b = new, b + 1


def by_scipy(n: int, good: int, wanted: int, chance: float) -> int:
    return next(b for b in range(1, n + 1) if hypergeom(n, good, b).sf(wanted - 1) >= chance)


def with_repeats(n: int, good: int, wanted: int, chance: float) -> int:
    return next(b for b in range(1, 9 * n) if binom(b, good / n).sf(wanted - 1) >= chance)


@pytest.mark.parametrize("right", [by_fractions, by_scipy])
def test_trainings_for_the_best(right: Any) -> None:
    verdict = exercises.trainings_for_the_best(right)
    assert verdict.right, verdict
    assert [right(1217, 12, wanted, 0.5) for wanted in (1, 2)] == [68, 166]  # what the notebook says


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (with_repeats, "if a network could be drawn twice"),
        (lambda n, good, wanted, p: by_scipy(n, good, wanted, p) - 1 or 1, "one training more is needed"),
        (lambda n, good, wanted, p: by_scipy(n, good, wanted, p) + 1, "one training fewer is enough"),
        (lambda *case: by_fractions(*case, above=True), "2 good ones among 4.* one training fewer is enough"),
        (lambda n, good, wanted, p: min(n, by_scipy(n, good, wanted, p) + 5), "more than needed"),
        (lambda n, good, wanted, p: by_scipy(n, good, 1, p), "is right for one good network; 2 are wanted"),
        (lambda n, good, wanted, p: wanted * by_scipy(n, good, 1, p), "2 times the trainings for one is no rule"),
        (lambda n, good, wanted, p: math.ceil(p * n / good), "chances do not add up"),
        (lambda n, good, wanted, p: 10, "are not enough: they have a chance of"),
        (lambda n, good, wanted, p: p * n + 0.5, "must be a whole number"),
        (lambda n, good, wanted, p: 0, "must be a whole number from 1 to"),
        (lambda n, good, wanted, p: None, "Nothing is answered"),
    ],
)
def test_another_number_of_trainings(wrong: Any, reason: str) -> None:
    refused(exercises.trainings_for_the_best(wrong), reason)
