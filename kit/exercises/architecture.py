"""Checks of the notebook on architecture search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Hashable
from typing import Any

from kit.cells import EDGES, OUTPUT, Cell, all_cells
from kit.exercises.verdict import Wrong, answered, checked, compare


@checked
def same_function(answer: Callable[[Cell], Any]) -> str:
    """Say which cells compute the same function, knowing that the pool of a sum is the sum of the pools.

    Cells in which the answer of a convolution goes two ways are left out.

    Args:
        answer: takes a connected `Cell`, and returns anything that can be the key of a dict: equal for two cells where
            they are the same function by that rule and by the order of sums, and else different.
    """
    cells = [cell for cell in all_cells() if cell.is_connected and ", a = " not in cell.formula]
    keys, functions = [], [_terms(cell, ("pool",)) for cell in cells]
    for cell in cells:
        key = answered(answer(cell))
        if not isinstance(key, Hashable):
            raise Wrong(f"Return what can be the key of a dict, such as a text or a tuple; got {type(key).__name__}.")
        keys.append(key)
    if apart := _clash(cells, functions, keys):
        a, b = apart
        if _terms(a) == _terms(b):
            raise Wrong(f"{a} and {b} are {a.formula}, in another order of its sums; you tell them apart.")
        raise Wrong(f"You tell {a.formula} and {b.formula} apart. Take the pool of each term: they are the same.")
    if merged := _clash(cells, keys, functions):
        a, b = merged
        if set(_terms(a, ("pool",))) == set(_terms(b, ("pool",))):
            why = "a term that comes twice counts twice"
        elif _terms(a, ("pool", "conv1", "conv3")) == _terms(b, ("pool", "conv1", "conv3")):
            why = "a convolution stands behind a ReLU, and ReLU(a + b) is not ReLU(a) + ReLU(b)"
        else:
            why = "write out what each node adds up"
        raise Wrong(f"{a.formula} and {b.formula} are different, and you say that they are the same: {why}.")
    count = len(set(keys))
    return (
        f"{count:,} different functions. The table has {len({cell.formula for cell in cells}) - count} of them twice."
    )


def _clash(
    cells: Collection[Cell], same: Collection[Hashable], other: Collection[Hashable]
) -> tuple[Cell, Cell] | None:
    """Two cells that are alike in `same` and not in `other`."""
    first: dict[Hashable, tuple[Cell, Hashable]] = {}
    for cell, key, word in zip(cells, same, other, strict=True):
        known, said = first.setdefault(key, (cell, word))
        if said != word:
            return known, cell
    return None


def _terms(cell: Cell, spread: Collection[str] = ()) -> tuple[str, ...]:
    """What the output adds up, sorted; the operations in `spread` are applied to each term of a sum by itself."""
    sums: dict[int, tuple[str, ...]] = {0: ("x",)}
    for node in range(1, OUTPUT + 1):
        terms: list[str] = []
        for (start, end), operation in zip(EDGES, cell.operations, strict=True):
            before = sums.get(start, ())
            if end != node or operation == "none" or not before:
                continue
            pieces = [(term,) for term in before] if operation in spread else [before]
            terms += before if operation == "skip" else [f"{operation}({' + '.join(piece)})" for piece in pieces]
        sums[node] = tuple(sorted(terms))
    return sums[OUTPUT]


@checked
def trainings_for_the_best(answer: Callable[[int, int, int, float], Any]) -> str:
    """How many random networks must be trained, none twice, to have some of the best among them?

    Args:
        answer: takes the number of networks n, how many of them are good, how many of these are wanted, and a chance
            above 0 and below 1; returns the fewest trainings b for which at least so many good ones are among b random
            networks with at least that chance: a sum of the hypergeometric distribution.
    """
    cases = ((100, 5, 1, 0.9), (1217, 12, 1, 0.5), (4, 2, 1, 0.5), (1217, 12, 2, 0.5), (1217, 12, 3, 0.9))
    for n, good, wanted, chance in (*cases, (20, 5, 5, 0.3)):
        got = float(answered(answer(n, good, wanted, chance)))
        case = f"For {wanted} of {good} good ones among {n:,}, with a chance of {chance:g},"
        if got != round(got) or not 1 <= got <= n:
            raise Wrong(f"{case} you say {got:g}: it must be a whole number from 1 to {n:,}.")
        want = _fewest(lambda b: _drawn(n, good, wanted, b), chance)  # noqa: B023  (called at once)
        again = _fewest(lambda b: _drawn_again(good / n, wanted, b), chance)  # noqa: B023
        one = _fewest(lambda b: _drawn(n, good, 1, b), chance)  # noqa: B023
        mistakes = [
            (
                want - 1,
                f"one training more is needed: {want - 1} have a chance of {_drawn(n, good, wanted, want - 1):.3f}.",
            ),
            (want + 1, f"one training fewer is enough: {want} have a chance of {_drawn(n, good, wanted, want):.3f}."),
            (again, f"{again} would be right if a network could be drawn twice; here none is."),
            (one, f"{one} is right for one good network; {wanted} are wanted."),
            (wanted * one, f"{wanted} times the trainings for one is no rule; sum the chances of fewer than {wanted}."),
            (math.ceil(chance * n / good), "chances do not add up: two draws may both be good."),
        ]
        few = "are not enough" if got < want else "are more than needed"
        reached = _drawn(n, good, wanted, int(got))
        compare(got, want, case, mistakes, f"{got:g} {few}: they have a chance of {reached:.3f}.")
    return "At a chance of one half, two of the best 12 need more than twice the trainings of one."


def _fewest(reached: Callable[[int], float], chance: float) -> int:
    return next(b for b in itertools.count(1) if reached(b) >= chance)


def _drawn(n: int, good: int, wanted: int, trainings: int) -> float:
    """The chance of so many good ones or more, none drawn twice."""
    fewer = sum(math.comb(good, k) * math.comb(n - good, trainings - k) for k in range(min(wanted, trainings + 1)))
    return 1 - fewer / math.comb(n, trainings)


def _drawn_again(share: float, wanted: int, trainings: int) -> float:
    """The same where each draw is from all."""
    each = range(min(wanted, trainings + 1))
    return 1 - sum(math.comb(trainings, k) * share**k * (1 - share) ** (trainings - k) for k in each)
