"""Several objectives at once: what dominates what, the front of what nothing dominates, and the volume it dominates.

A trial dominates another where it is at least as good in every objective, and better in one. Inside, less is better:
a loss is an objective's value, its negative where more is better, or the logarithm of either way's size (`Goal.log`).

| symbol | meaning | shape |
|---|---|---|
| losses | of each trial, infinity unless it is done | [n, m] |
| corner | where the dominated volume ends: the worst that counts | [m] |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from kit import checks
from kit.search.trials import Trial


@dataclass(frozen=True)
class Goal:
    """What is wanted of one objective.

    Attributes:
        maximise: whether more is better.
        limit: the worst value that counts: at most this, or where more is better at least this; None for no limit.
        log: whether steps are factors, as for bytes: models and volumes then see the logarithm, and values must be
            above 0.

    Raises:
        TypeError: an attribute of another kind.
        ValueError: a limit that is not finite, or has no logarithm where one is needed.
    """

    maximise: bool = False
    limit: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be reached for."""
        checks.instance("maximise", self.maximise, bool, "True or False")
        checks.instance("log", self.log, bool, "True or False")
        if self.limit is not None:
            checks.number("limit", self.limit, **({"above": 0} if self.log else {}))

    def loss(self, value: float) -> float:
        """Less is better; of a value that has no logarithm, where one is needed, a ValueError."""
        found = math.log(value) if self.log else value
        return -found if self.maximise else found

    def value(self, loss: float) -> float:
        """A loss back in the objective's own unit."""
        found = -loss if self.maximise else loss
        return math.exp(found) if self.log else found


@dataclass(frozen=True)
class Goals:
    """Two objectives or more by name, the one that matters most first.

    Attributes:
        goals: what is wanted of each.

    Raises:
        TypeError: no mapping from texts to `Goal`.
        ValueError: fewer than two, or an empty name.
    """

    goals: Mapping[str, Goal]

    def __post_init__(self) -> None:
        """Refuse what names no objectives; keep a copy that nobody can change."""
        if not isinstance(self.goals, Mapping):
            raise TypeError(f"objectives must map names to a Goal each; got {self.goals!r}.")
        for name, goal in self.goals.items():
            if not isinstance(name, str) or not name:
                raise TypeError(f"objectives: a name must be text, and not empty; got {name!r}.")
            if not isinstance(goal, Goal):
                raise TypeError(f"objectives: {name} must be a Goal, such as Goal(maximise=True); got {goal!r}.")
        if len(self.goals) < 2:
            only = ", ".join(self.goals) or "none"
            raise ValueError(f"objectives must be two or more (for one, leave them out and say maximise=); got {only}.")
        object.__setattr__(self, "goals", MappingProxyType(dict(self.goals)))

    def __reduce__(self) -> tuple[type[Goals], tuple[dict[str, Goal]]]:
        """Pickle, so that other processes can be given it; a MappingProxyType cannot be pickled."""
        return Goals, (dict(self.goals),)

    def __len__(self) -> int:
        """How many objectives, m."""
        return len(self.goals)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self.goals)

    @property
    def limits(self) -> np.ndarray:
        """The losses that count at most, infinity where there is no limit. -> [m]."""
        return self.at({}, missing=math.inf)

    def losses(self, trials: Sequence[Trial]) -> np.ndarray:
        """Less is better; infinity in every column unless a trial is done. -> [n, m]."""
        rows = [
            [goal.loss(trial.values[name]) for name, goal in self.goals.items()] for trial in trials if trial.values
        ]
        found = np.full((len(trials), len(self)), np.inf)
        found[[bool(trial.values) for trial in trials]] = np.array(rows).reshape(-1, len(self))
        return found

    def values(self, losses: np.ndarray) -> np.ndarray:
        """Losses back in the objectives' own units. [k, m] -> [k, m]."""
        columns = zip(self.goals.values(), np.asarray(losses, float).T, strict=True)
        return np.array([[goal.value(loss) for loss in column] for goal, column in columns]).T

    def within(self, losses: np.ndarray) -> np.ndarray:
        """Which trials are done and keep every limit. [n, m] -> bool [n]."""
        return np.asarray(np.isfinite(losses).all(1) & (losses <= self.limits).all(1))

    def front(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """What keeps every limit and is dominated by nothing, by the last objective, best first."""
        found = self.losses(trials)
        found[~self.within(found)] = math.inf
        ahead = np.flatnonzero(front(found))
        return tuple(trials[at] for at in ahead[np.argsort(found[ahead, -1], kind="stable")])

    def corner(self, losses: np.ndarray, beyond: float = 0.1) -> np.ndarray:
        """Where volume is counted from while a search runs: each limit, or a tenth beyond the front. [n, m] -> [m].

        The tenth, or `beyond`, is of the front's own range (of that of all that is done, where the front is one value).
        """
        done = losses[np.isfinite(losses).all(1)]
        if not len(done):
            return self.limits
        best = done[front(done)]
        reach = np.where(np.ptp(best, 0) > 0, np.ptp(best, 0), np.ptp(done, 0))
        return np.where(np.isfinite(self.limits), self.limits, best.max(0) + beyond * np.where(reach > 0, reach, 1.0))

    def given(self, corner: Mapping[str, float]) -> np.ndarray:
        """A corner in the objectives' own units, where one is left out its limit. -> [m].

        Raises:
            ValueError: a name that is no objective, or none for an objective without a limit; a value that is not
                finite, or has no logarithm where one is needed.
        """
        found = self.at(corner, missing=math.nan)
        for name, loss in zip(self.names, found, strict=True):
            if math.isnan(loss):
                raise ValueError(f"corner needs the worst {name} that counts, such as {name}=...: it has no limit.")
        return found

    def judged(self, result: Any) -> dict[str, Any]:
        """What an objective gave for each name; of anything but a mapping with just these names a TypeError."""
        if not isinstance(result, Mapping):
            raise TypeError(f"gave {result!r}, where a mapping of {', '.join(self.names)} is needed")
        missing = [name for name in self.names if name not in result]
        unknown = [str(name) for name in result if name not in self.goals]
        if missing or unknown:
            what = [f"no {name}" for name in missing] + [f"{name}, which is no objective" for name in unknown]
            raise TypeError(f"gave {', '.join(what)}; the study has {', '.join(self.names)}")
        return {name: result[name] for name in self.names}

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The goals in plain values, to be compared and kept."""
        return {name: asdict(goal) for name, goal in self.goals.items()}

    def at(self, given: Mapping[str, float], *, missing: float) -> np.ndarray:
        """Losses of values by name: where one is left out its limit, or `missing`; errors as of `given`. -> [m]."""
        for name in given:
            if name not in self.goals:
                raise ValueError(f"{name} is no objective; the study has {', '.join(self.names)}.")
        found = []
        for name, goal in self.goals.items():
            worst = given.get(name, goal.limit)
            if name in given:
                checks.number(name, worst, **({"above": 0} if goal.log else {}))
            found.append(missing if worst is None else goal.loss(worst))
        return np.array(found)


def dominates(losses: np.ndarray) -> np.ndarray:
    """Which row dominates which: `found[a, b]` where a does b. [n, m] -> bool [n, n]."""
    first, second = losses[:, None], losses[None]
    return np.asarray((first <= second).all(2) & (first < second).any(2))


def front(losses: np.ndarray) -> np.ndarray:
    """Which rows are finite and dominated by none; equal rows are on it together. [n, m] -> bool [n]."""
    return np.asarray(np.isfinite(losses).all(1) & ~dominates(losses).any(0))


def fronts(losses: np.ndarray) -> np.ndarray:
    """The rank of each row: 0 on the front, 1 on the front of the others, and so on. [n, m] -> int [n].

    Source: Deb et al. (2002), A fast and elitist multiobjective genetic algorithm: NSGA-II, section III.A.
    """
    beaten, ranks, rank = dominates(losses), np.full(len(losses), -1), 0
    while (ranks < 0).any():
        here = (ranks < 0) & ~beaten[ranks < 0].any(0)
        ranks[here] = rank
        rank += 1
    return ranks


def hypervolume(losses: np.ndarray, corner: np.ndarray) -> float:
    """The volume between the corner and what the rows dominate, exactly. [n, m], [m] -> ; m is 1, 2 or 3.

    In three dimensions a plane falls through the third: between two rows it cuts out the area of all rows below it
    (Fonseca et al. 2006, the simplest case). A ValueError for other m.
    """
    losses, corner = np.asarray(losses, float), np.asarray(corner, float)
    m = len(corner)
    if losses.ndim != 2 or losses.shape[1] != m or m not in (1, 2, 3):
        raise ValueError(
            f"losses must be [n, m] and corner [m], m being 1, 2 or 3; got {losses.shape} and {corner.shape}."
        )
    inside = losses[(losses < corner).all(1)]
    if not len(inside):
        return 0.0
    if m == 1:
        return float(corner[0] - inside.min())
    if m == 2:
        inside = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
        lowest = np.minimum.accumulate(inside[:, 1])
        widths = np.diff(np.append(inside[:, 0], corner[0]))
        return float(widths @ (corner[1] - lowest))
    inside = inside[np.argsort(inside[:, 2], kind="stable")]
    depths = np.diff(np.append(inside[:, 2], corner[2]))
    areas = (hypervolume(inside[: at + 1, :2], corner[:2]) if depth else 0.0 for at, depth in enumerate(depths))
    return float(sum(area * depth for area, depth in zip(areas, depths, strict=True)))
