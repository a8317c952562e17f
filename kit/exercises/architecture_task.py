"""The open task of the notebook on architecture search."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from kit.exercises.verdict import Wrong, ahead_of_random, answered, checked
from kit.measure import Estimate
from kit.search import Random, architecture

TRAININGS = 30
LIMITS = (114_000, 160_000, 215_000)  # FLOPs; one of them for each search
table = functools.cache(architecture.load)
Search = Callable[[Mapping[str, int], "Read", int, np.random.Generator], str]


class Read(Protocol):
    """What the open task trains a network by."""

    def __call__(self, cell: str, epochs: int = 8) -> float:
        """Validation accuracy after so many epochs; what was trained before is not paid again."""
        ...


@checked
def best_small_cell(answer: Search, *, seeds: Sequence[int] = range(100, 300)) -> str:
    """The open task: the best cell under a limit for 30 trainings, against random search at the same cost.

    Each search has one of three limits on FLOPs, and reads other trainings of the table.

    Right is a search whose cells are better on trainings that it did not read: the whole 95 % interval of the mean
    difference of accuracies is above 0.

    Args:
        answer: takes the FLOPs of each network within the limit, by the text of its cell; a `Read`; the budget in
            epochs; and a NumPy generator. Returns the text of the cell that it chooses.
        seeds: of the searches.
    """
    found = [(_judged(answer, seed), _rival(seed)) for seed in seeds]
    return ahead_of_random("cells", Estimate.from_pairs(*zip(*found, strict=True)), 2)


def _judged(answer: Search, seed: int) -> float:
    """What the other trainings of the chosen cell reach."""
    within = table().within(flops=LIMITS[seed % len(LIMITS)])
    cells = {
        str(cell): int(flops) for cell, flops, is_in in zip(table().cells, table().flops, within, strict=True) if is_in
    }
    objective, budget = table().objective(seed), TRAININGS * table().epochs
    trained: dict[str, int] = {}

    def read(cell: str, epochs: int = 8) -> float:
        if cell not in cells:
            raise Wrong(f"Read one of the cells that you are given, by its text; got {cell!r}.")
        value = objective({"cell": cell}, epochs=epochs)
        trained[cell] = max(epochs, trained.get(cell, 0))
        if (spent := sum(trained.values())) > budget:
            raise Wrong(f"You spend {spent} epochs; the budget is {budget}.")
        return value

    chosen = answered(answer(dict(cells), read, budget, np.random.default_rng(seed)))
    if chosen not in cells:
        raise Wrong(f"Return one of the cells that you are given, by its text; got {chosen!r}.")
    return objective.retest({"cell": chosen})


@functools.cache
def _rival(seed: int) -> float:
    """What random search finds."""
    limits = {"flops": LIMITS[seed % len(LIMITS)]}
    found = architecture.search(table(), Random(seed=seed), budget=TRAININGS, repeat=seed, limits=limits)
    return found.retested[-1] or 0.0
