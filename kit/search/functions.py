"""Test functions with known optima, so that a search can be told how far it is from the best: its regret.

Each is to be minimised over its usual domain, and is called with a configuration {"x1": ..., "x2": ...}. Those of two
objectives give {"f1": ..., "f2": ...}; their best hypervolume is known.

| function | dimensions | minimum | source |
|---|---|---|---|
| Branin | 2 | 0.397887 | Dixon & Szegö (1978) |
| Hartmann | 3 or 6 | -3.86278, -3.32237 | Dixon & Szegö (1978) |
| Ackley | any | 0 | Ackley (1987); Bäck (1996) for d dimensions |
| Levy | any | 0 | Levy & Montalvo (1985) |

| of two objectives | dimensions | the front | source |
|---|---|---|---|
| ZDT1 | 2 or more | f2 = 1 - sqrt(f1): bulges towards the best | Zitzler, Deb & Thiele (2000) |
| ZDT2 | 2 or more | f2 = 1 - f1^2: bulges away, so no weighted sum has its minimum inside | the same |
| Branin-Currin | 2 | between a minimum of Branin's and one of Currin's | Belakaria et al. (2019) |

Formulas and optima as collected by Surjanovic & Bingham, Virtual Library of Simulation Experiments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kit import checks
from kit.search.pareto import Goal, Goals
from kit.search.space import Float, Space


@dataclass(frozen=True)
class Function:
    """An objective whose best value is known.

    Attributes:
        name: of the function.
        bounds: low and high of each coordinate.
        minimum: its smallest value.
        minimisers: where it is reached, [m][d].
        formula: maps x [d] to a number.
        noise: standard deviation of normal noise that is added; 0 for none.
        seed: of the noise.
    """

    name: str
    bounds: tuple[tuple[float, float], ...]
    minimum: float
    minimisers: tuple[tuple[float, ...], ...]
    formula: Callable[[np.ndarray], float]
    noise: float = 0.0
    seed: int = 0
    _calls: Any = field(default_factory=itertools.count, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse noise that is no standard deviation, and what is no seed."""
        checks.number("noise", self.noise, least=0)
        checks.whole("seed", self.seed)

    @property
    def space(self) -> Space:
        """x1, x2 ... over the function's domain."""
        return Space({f"x{at}": Float(low, high) for at, (low, high) in enumerate(self.bounds, start=1)})

    def exact(self, config: Mapping[str, Any]) -> float:
        """The value without noise."""
        return self.formula(np.array([float(config[name]) for name in self.space.names]))

    def regret(self, config: Mapping[str, Any]) -> float:
        """Simple regret: how far the value without noise lies above the minimum."""
        return self.exact(config) - self.minimum

    def __call__(self, config: Mapping[str, Any]) -> float:
        """The value, with fresh noise at each call where there is noise."""
        if not self.noise:
            return self.exact(config)
        rng = np.random.default_rng([self.seed, next(self._calls)])
        return self.exact(config) + self.noise * float(rng.standard_normal())


def branin(*, noise: float = 0.0, seed: int = 0) -> Function:
    """Branin's function: three equal minima."""

    def formula(x: np.ndarray) -> float:
        bend = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
        return float(bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10)

    where = ((-math.pi, 12.275), (math.pi, 2.275), (3 * math.pi, 2.475))
    minimum = 10 / (8 * math.pi)  # the bend is 0 and the cosine -1 in all three
    return Function("Branin", ((-5.0, 10.0), (0.0, 15.0)), minimum, where, formula, noise, seed)


_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
# Steepness and centre (in 1/10000) of each of the four terms; the minimum, and where it is.
_HARTMANN: dict[int, tuple[list[list[float]], list[list[float]], float, tuple[float, ...]]] = {
    3: (
        [[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]],
        [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]],
        *(-3.86278, (0.114614, 0.555649, 0.852547)),
    ),
    6: (
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]],
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ],
        *(-3.32237, (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)),
    ),
}


def hartmann(d: int, *, noise: float = 0.0, seed: int = 0) -> Function:
    """Hartmann's function: several local minima; a ValueError for another `d` than 3 or 6."""
    if d not in tuple(_HARTMANN):
        raise ValueError(f"d must be 3 or 6; got {d!r}.")
    steep, centres, minimum, where = _HARTMANN[d]
    steepness, centre = np.array(steep), 1e-4 * np.array(centres)  # [4, d]

    def formula(x: np.ndarray) -> float:
        return float(-_ALPHA @ np.exp(-(steepness * (x - centre) ** 2).sum(1)))

    return Function(f"Hartmann-{d}", ((0.0, 1.0),) * d, minimum, (where,), formula, noise, seed)


def ackley(d: int = 2, *, noise: float = 0.0, seed: int = 0) -> Function:
    """Ackley's function: nearly flat with ripples, and one deep hole."""

    def formula(x: np.ndarray) -> float:
        far, ripples = math.sqrt(float(np.mean(x**2))), float(np.mean(np.cos(2 * math.pi * x)))
        return -20 * math.exp(-0.2 * far) - math.exp(ripples) + 20 + math.e

    bounds = ((-32.768, 32.768),) * checks.whole("d", d, 1)
    return Function(f"Ackley-{d}", bounds, 0.0, ((0.0,) * d,), formula, noise, seed)


def levy(d: int = 2, *, noise: float = 0.0, seed: int = 0) -> Function:
    """Levy's function: waves on a bowl."""

    def formula(x: np.ndarray) -> float:
        w = 1 + (x - 1) / 4
        inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
        last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
        return float(math.sin(math.pi * w[0]) ** 2 + inner.sum() + last)

    return Function(f"Levy-{d}", ((-10.0, 10.0),) * checks.whole("d", d, 1), 0.0, ((1.0,) * d,), formula, noise, seed)


@dataclass(frozen=True)
class ManyFunction:
    """Two objectives, both to be minimised over the unit cube, whose best hypervolume is known.

    Attributes:
        name: of the function.
        d: coordinates, each in [0, 1].
        formula: maps x [d] to f1 and f2.
        corner: where hypervolume ends, by name of the objective.
        best: hypervolume of the true front.
    """

    name: str
    d: int
    formula: Callable[[np.ndarray], tuple[float, float]]
    corner: Mapping[str, float]
    best: float

    @property
    def space(self) -> Space:
        """x1, x2 ... in [0, 1]."""
        return Space({f"x{at}": Float(0, 1) for at in range(1, self.d + 1)})

    @property
    def goals(self) -> Goals:
        """f1 and f2, without limits."""
        return Goals({"f1": Goal(), "f2": Goal()})

    def __call__(self, config: Mapping[str, Any]) -> dict[str, float]:
        """Both values, by name."""
        f1, f2 = self.formula(np.array([float(config[name]) for name in self.space.names]))
        return {"f1": float(f1), "f2": float(f2)}


_FAR_CORNER = {"f1": 11.0, "f2": 11.0}  # of the ZDT functions, as in most comparisons


def zdt1(d: int = 6) -> ManyFunction:
    """ZDT1: a convex front, reached where all but x1 are 0; an area of 1/3 below it is out of reach."""

    def formula(x: np.ndarray) -> tuple[float, float]:
        g = 1 + 9 * x[1:].mean()
        return x[0], g * (1 - math.sqrt(x[0] / g))

    return ManyFunction("ZDT1", checks.whole("d", d, 2), formula, _FAR_CORNER, 11**2 - 1 / 3)


def zdt2(d: int = 6) -> ManyFunction:
    """ZDT2: a hollow front, reached where all but x1 are 0; an area of 2/3 below it is out of reach."""

    def formula(x: np.ndarray) -> tuple[float, float]:
        g = 1 + 9 * x[1:].mean()
        return x[0], g * (1 - (x[0] / g) ** 2)

    return ManyFunction("ZDT2", checks.whole("d", d, 2), formula, _FAR_CORNER, 11**2 - 2 / 3)


def branin_currin() -> ManyFunction:
    """Branin's function against Currin's (Currin et al. 1991), both over the unit square."""
    first = branin()
    low, high = np.array(first.bounds).T

    def formula(x: np.ndarray) -> tuple[float, float]:
        a, b = x
        share = 1 - math.exp(-1 / (2 * b)) if b else 1.0
        currin = share * (2300 * a**3 + 1900 * a**2 + 2092 * a + 60) / (100 * a**3 + 500 * a**2 + 4 * a + 20)
        return first.formula(low + (high - low) * x), currin

    return ManyFunction("Branin-Currin", 2, formula, {"f1": 18.0, "f2": 6.0}, 59.36011874867746)
