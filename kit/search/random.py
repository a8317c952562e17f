"""Random search: independent draws, or quasi-random Sobol points."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from kit import checks
from kit.search.space import Float, Space, combination, key
from kit.search.trials import Proposal, Trial, untried

if TYPE_CHECKING:
    from kit.search.pareto import Goals

SOBOL_BLOCK = 1024  # points made at once
MOST_DRAWS = 1000  # in vain, before the configurations of a finite space are gone through in order


@dataclass(frozen=True)
class Random:
    """Every configuration drawn on its own, evenly over the unit cube.

    Where the space is finite, none is tried twice, and the search ends when all are tried.

    Attributes:
        seed: of the draws; trial number i draws by (seed, i).

    Source: Bergstra & Bengio (2012), Random search for hyper-parameter optimization, JMLR 13.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no seed."""
        checks.whole("seed", self.seed, 0)

    def propose(
        self, space: Space, trials: Sequence[Trial], *, maximise: bool = False, goals: Goals | None = None
    ) -> Proposal | None:
        """As in `trials.Method`."""
        return drawn(space, trials, self.seed)


@dataclass(frozen=True)
class Sobol:
    """Quasi-random points: every dyadic box of the cube gets its share of them, so that they cover it more evenly.

    Attributes:
        seed: of the scrambling, which makes each point uniform by itself.

    Source: Sobol (1967); Matousek (1998), On the L2-discrepancy for anchored boxes. The points are SciPy's.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no seed."""
        checks.whole("seed", self.seed, 0)

    def propose(
        self, space: Space, trials: Sequence[Trial], *, maximise: bool = False, goals: Goals | None = None
    ) -> Proposal | None:
        """As in `trials.Method`."""
        n = len(trials)
        numbers = (*range(n, -1, -1), *range(n + 1, n + SOBOL_BLOCK))  # backwards: a lost trial's point comes again
        points = (sobol_points(len(space), at + 1, self.seed)[at] for at in numbers)
        return untried(map(space.decode, points), trials) or drawn(space, trials, self.seed)


def drawn(space: Space, trials: Sequence[Trial], seed: int) -> Proposal | None:
    """A random configuration that is not tried; None where all are."""
    d, rng = len(space), np.random.default_rng([seed, len(trials)])
    config = space.decode(rng.random(d))
    if space.count == np.inf and all(trial.config != config for trial in trials):
        return Proposal(config)  # nearly always, and quick
    if len(trials) >= space.count and len({key(trial.config) for trial in trials}) >= space.count:
        return None
    earlier = (np.random.default_rng([seed, at]).random(d) for at in range(len(trials), -1, -1))
    more = (rng.random(d) for _ in range(MOST_DRAWS))  # backwards first: a lost trial's draw comes again
    values = {name: each.values for name, each in space.parameters.items() if not isinstance(each, Float)}
    rest = map(functools.partial(combination, values), itertools.count() if len(values) == d else ())
    return untried(itertools.chain(map(space.decode, itertools.chain(earlier, more)), rest), trials)


def sobol_points(d: int, n: int, seed: int) -> np.ndarray:
    """The first points of a scrambled Sobol sequence, at least `n`. -> [n or more, d]."""
    return _sobol(d, -(-n // SOBOL_BLOCK) * SOBOL_BLOCK, seed)


@functools.lru_cache(maxsize=64)
def _sobol(d: int, n: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():  # SciPy warns of numbers of points that are no power of 2
        warnings.filterwarnings("ignore", "The balance properties of Sobol' points", UserWarning)
        points = qmc.Sobol(d, scramble=True, rng=np.random.default_rng(seed)).random(n)
    points.setflags(write=False)
    return points
