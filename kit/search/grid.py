"""Grid search: some values of each parameter, in all combinations."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from kit import checks
from kit.search.space import Choice, Config, Float, Space, combination, key
from kit.search.trials import Proposal, Trial, untried

if TYPE_CHECKING:
    from kit.search.pareto import Goals

Order = Literal["sorted", "shuffled"]

MOST_SHUFFLED = 10_000_000  # combinations


@dataclass(frozen=True)
class Grid:
    """All combinations of some values of each parameter; the search ends when all are tried.

    Attributes:
        points: values of each parameter, 2 or more; or a number for each name. Parameters with fewer values give all.
            They lie evenly on the unit interval, both ends included.
        order: "sorted", the last parameter changing quickest; or "shuffled", so that a grid which is left half way has
            been everywhere.
        seed: of the shuffling.

    An attribute out of range is a ValueError.
    """

    points: int | Mapping[str, int] = 5
    order: Order = "sorted"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no grid."""
        for count in self.points.values() if isinstance(self.points, Mapping) else [self.points]:
            checks.whole("points", count, 2)
        checks.whole("seed", self.seed)
        checks.one_of("order", self.order, get_args(Order))

    def values(self, space: Space) -> dict[str, list[Any]]:
        """The values of each parameter, in order; a ValueError where points are for other names than the space has."""
        counts = self.points if isinstance(self.points, Mapping) else dict.fromkeys(space.names, self.points)
        if set(counts) != set(space.names):
            raise ValueError(f"points must name {', '.join(space.names)}; got {', '.join(counts) or 'nothing'}.")
        found: dict[str, list[Any]] = {}
        for name, parameter in space.parameters.items():
            if not isinstance(parameter, Float) and (parameter.count <= counts[name] or isinstance(parameter, Choice)):
                found[name] = list(parameter.values)
            else:
                found[name] = list(dict.fromkeys(map(parameter.decode, np.linspace(0, 1, counts[name]).tolist())))
        return found

    def config(self, space: Space, number: int) -> Config:
        """The combination of that number, from 0, in the grid's order."""
        values = self.values(space)
        total = math.prod(map(len, values.values()))
        if self.order == "shuffled" and total > MOST_SHUFFLED:
            raise ValueError(f"points make {total} combinations, too many to shuffle: give fewer, or order='sorted'.")
        return combination(values, number if self.order == "sorted" else int(_permutation(total, self.seed)[number]))

    def propose(
        self, space: Space, trials: Sequence[Trial], *, maximise: bool = False, goals: Goals | None = None
    ) -> Proposal | None:
        """As in `trials.Method`: a combination that is not tried; errors as in `values`."""
        total = math.prod(len(each) for each in self.values(space).values())
        # Number len(trials) is mostly it. Else look backwards, where one was lost, then at those after it.
        ahead = min(len(trials), total - 1)
        numbers = itertools.chain(range(ahead, -1, -1), range(ahead + 1, total))
        return untried((self.config(space, number) for number in numbers), trials)


@dataclass(frozen=True)
class Listed:
    """The given configurations in their order, where one may come again; to try what another search chose.

    One that is tried already, whoever proposed it, is not tried again, unless it is given more often than it was tried.
    """

    configs: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Refuse what is no list."""
        checks.instance("configs", self.configs, Sequence, "a list of configurations")

    def propose(
        self, space: Space, trials: Sequence[Trial], *, maximise: bool = False, goals: Goals | None = None
    ) -> Proposal | None:
        """As in `trials.Method`."""
        tried = Counter(key(trial.config) for trial in trials)
        for config in map(space.check, self.configs):
            if not tried[key(config)]:
                return Proposal(config)
            tried[key(config)] -= 1
        return None


@functools.lru_cache(maxsize=64)
def _permutation(total: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(total)
