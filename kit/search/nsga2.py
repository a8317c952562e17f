"""NSGA-II: a population whose front moves ahead, and spreads out, by selection, crossover and mutation.

Of parents and children together the best `population` live on: sorted by fronts first (who is dominated by nobody, who
only by those, ...), and inside a front by how lonely a trial is, so that the ends and the gaps of a front live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from kit import checks
from kit.search.pareto import Goals, fronts
from kit.search.random import MOST_DRAWS, Sobol, drawn
from kit.search.space import Choice, Config, Int, Parameter, Space
from kit.search.trials import Proposal, Trial, untried

TINY = float(np.finfo(float).tiny)  # against division by zero
CROSSED = 0.9  # share of the children that have two parents


@dataclass(frozen=True)
class NSGA2:
    """The genetic algorithm of Deb, Pratap, Agarwal & Meyarivan (2002), IEEE Trans. Evol. Comput. 6(2).

    A child is simulated binary crossover of two parents, each the winner of a tournament of two, and polynomial
    mutation of one coordinate in `d`, both in the unit cube; an option of a `Choice` comes from either parent, and
    mutates to any other. A trial out of a limit loses against one that keeps them all; of two such the one wins that
    is less far out (constrained domination, section VI). Failed trials have no children.

    Generation g is made of the trials from g `population` on. Trials that are still under way when a child is made are
    not among its parents, so nobody waits, whatever the batch. The first generation are Sobol points.

    Attributes:
        population: trials of a generation, 2 or more. Few, as here, where trials cost much; 100 in the paper.
        crossover: how close children are to their parents, above 0 (the paper's eta_c).
        mutation: how close a mutant is to what it was, above 0 (eta_m).
        seed: of the draws; trial number i draws by (seed, i).

    An attribute out of range is a ValueError, one that is no number a TypeError.
    """

    population: int = 20
    crossover: float = 15.0
    mutation: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        checks.whole("population", self.population, 2)
        checks.number("crossover", self.crossover, above=0)
        checks.number("mutation", self.mutation, above=0)
        checks.whole("seed", self.seed, 0)

    def propose(self, space: Space, trials: Sequence[Trial], *, goals: Goals) -> Proposal | None:
        """As in `trials.ParetoMethod`."""
        parents = self.parents(trials, goals)
        if len(parents) < 2:
            return Sobol(self.seed).propose(space, trials, goals=goals)
        places = np.array([space.encode(parent.config) for parent in parents])  # [population, d]
        rng = np.random.default_rng([self.seed, len(trials)])
        children = (self._child(space, places, rng) for _ in range(MOST_DRAWS))
        return untried(children, trials) or drawn(space, trials, self.seed)

    def parents(self, trials: Sequence[Trial], goals: Goals) -> list[Trial]:
        """Who may have children after these trials, the best first: at most `population`, none in the first generation.

        Selection begins anew at the first generation, so the trials alone say who lives.
        """
        losses, kept = goals.losses(trials), np.empty(0, int)
        done = np.isfinite(losses).all(1)
        for begin in range(0, len(trials) - self.population + 1, self.population):
            born = np.arange(begin, begin + self.population)
            both = np.concatenate([kept, born[done[born]]])
            kept = both[ranked(losses[both], goals.limits)[: self.population]]
        return [trials[at] for at in kept]

    def _child(self, space: Space, places: np.ndarray, rng: np.random.Generator) -> Config:
        a, b = places[rng.integers(len(places), size=(2, 2)).min(1)]  # two tournaments: parents stand in order
        child, parameters = a.copy(), list(space.parameters.values())
        if rng.random() < CROSSED:
            chosen = [isinstance(parameter, Choice) for parameter in parameters]
            found = np.where(chosen, b, crossed(a, b, self.crossover, rng))
            child = np.where(rng.random(len(a)) < 0.5, found, a)
        moved = np.where(rng.random(len(a)) < 1 / len(a), mutated(child, self.mutation, rng), child)
        for at in np.flatnonzero(moved != child):
            moved[at] = _moved(parameters[at], child[at], moved[at], rng)
        return space.decode(moved)


def ranked(losses: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Numbers of trials, the best first: by front, and by crowding inside of a front. [n, m], [m] -> [n].

    Beyond a limit each trial has a front of its own kind, after all that keep the limits: by the sum over objectives of
    how far out it is, as a share of the farthest one.
    """
    over = np.maximum(losses - limits, 0.0)
    out = (over / np.maximum(over.max(0, initial=0.0), TINY)).sum(1)
    rank = np.empty(len(losses), int)
    rank[out == 0] = fronts(losses[out == 0])
    rank[out > 0] = len(losses) + rankdata(out[out > 0], "dense")
    lonely = np.empty(len(losses))
    for each in np.unique(rank):
        lonely[rank == each] = crowding(losses[rank == each])
    return np.lexsort([-lonely, rank])


def crowding(losses: np.ndarray) -> np.ndarray:
    """How far the two neighbours of each trial are apart, summed over objectives, as shares of their ranges.

    Infinity at the ends of each objective (Deb et al. 2002, section III-B). [n, m] -> [n]
    """
    found = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        ascending = column[order]
        found[order[1:-1]] += (ascending[2:] - ascending[:-2]) / (float(np.ptp(column)) or 1.0)
        found[order[[0, -1]]] = np.inf
    return found


def crossed(a: np.ndarray, b: np.ndarray, eta: float, rng: np.random.Generator) -> np.ndarray:
    """Simulated binary crossover inside of [0, 1] (Deb & Agrawal 1995): a child beside a parent. [d], [d] -> [d]."""
    low, gap = np.minimum(a, b), np.abs(a - b)
    side, u = np.where(rng.random(len(a)) < 0.5, -1, 1), rng.random(len(a))
    room = np.where(side < 0, low, 1 - np.maximum(a, b))
    # The area of the density up to the child; it is 1 between the parents.
    area = u * (2 - (1 + 2 * room / np.maximum(gap, TINY)) ** -(eta + 1))
    far = np.where(area <= 1, area, 1 / (2 - area)) ** (1 / (eta + 1))
    return np.clip((a + b + side * far * gap) / 2, 0, 1)


def mutated(places: np.ndarray, eta: float, rng: np.random.Generator) -> np.ndarray:
    """Polynomial mutation inside of [0, 1] (Deb & Goyal 1996). [d] -> [d]."""
    u = rng.random(len(places))
    down = (2 * u + (1 - 2 * u) * (1 - places) ** (eta + 1)) ** (1 / (eta + 1)) - 1
    up = 1 - (2 * (1 - u) + (2 * u - 1) * places ** (eta + 1)) ** (1 / (eta + 1))
    return np.clip(places + np.where(u < 0.5, down, up), 0, 1)


def _moved(parameter: Parameter, before: float, after: float, rng: np.random.Generator) -> float:
    """A mutation that is one: another option, and a whole number by a step at least."""
    was, now = parameter.decode(before), parameter.decode(after)
    if isinstance(parameter, Choice):
        others = [option for option in parameter.options if parameter.index(option) != parameter.index(was)]
        return parameter.encode(others[rng.integers(len(others))])
    if isinstance(parameter, Int) and was == now:
        step = 1 if after > before else -1
        return parameter.encode(was + (step if parameter.holds(was + step) else -step))
    return after
