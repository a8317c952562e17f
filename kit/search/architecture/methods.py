"""Methods of their own for cells: evolution and local search, which change one operation at a time.

Both search any space of `space_of`, so they keep every limit that its cells keep, and never try a network twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from kit import checks
from kit.cells import parse
from kit.search.random import drawn
from kit.search.space import Choice, Space
from kit.search.trials import Proposal, Trial, losses


@dataclass(frozen=True)
class Evolution:
    """Regularised evolution: the best of a few drawn from the population has a child, and the oldest dies.

    The first `population` networks are random. A child is a neighbour that is not tried; where all are, a random
    network takes its place.

    Attributes:
        population: networks that live at one time, 2 or more.
        sample: how many of them are drawn for each contest, 1 to `population`; 1 does not select at all.
        seed: of the draws.

    An attribute out of range is a ValueError, one that is no whole number a TypeError.

    Source: Real et al. 2019, arXiv:1802.01548, algorithm 1.
    """

    population: int = 10
    sample: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot evolve."""
        checks.whole("population", self.population, 2)
        checks.whole("sample", self.sample, 1, self.population)
        checks.whole("seed", self.seed)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`; a ValueError where the space is not one of cells."""
        choice = _cells(space)
        if len(trials) < self.population:
            return drawn(space, trials, self.seed)
        alive = trials[-self.population :]
        rng = np.random.default_rng([self.seed, len(trials)])
        contest = rng.choice(len(alive), self.sample, replace=False)
        values = losses(alive, maximise=maximise)
        parent = alive[min(contest, key=values.__getitem__)]
        children = _children(choice, parent, trials)
        return Proposal({"cell": str(rng.choice(children))}) if children else drawn(space, trials, self.seed)


@dataclass(frozen=True)
class LocalSearch:
    """Hill climbing: try the neighbours of the best network in any order, and go on from the first that is better.

    Where all neighbours of the best are tried, the next climb (the `bracket` of its trials) begins at a random network.

    Attributes:
        seed: of the draws.

    Source: White et al. 2021, arXiv:2005.02960; theirs tries all neighbours before it moves.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no seed."""
        checks.whole("seed", self.seed)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`; a ValueError where the space is not one of cells."""
        choice = _cells(space)
        climb = max((trial.bracket or 0 for trial in trials), default=0)
        here = [trial for trial in trials if (trial.bracket or 0) == climb]
        if here:
            values = losses(here, maximise=maximise)
            if children := _children(choice, here[values.index(min(values))], trials):
                rng = np.random.default_rng([self.seed, len(trials)])
                return Proposal({"cell": str(rng.choice(children))}, bracket=climb)
        proposal = drawn(space, trials, self.seed)
        return proposal and proposal._replace(bracket=climb + 1 if here else climb)


def _cells(space: Space) -> Choice:
    choice = space.parameters.get("cell")
    if len(space) == 1 and isinstance(choice, Choice):
        with suppress(TypeError, ValueError):  # where the options are no cells
            parse(choice.options[0])
            return choice
    raise ValueError(f"space must be one of cells, as of `space_of`; got {dict(space.parameters)}.")


def _children(choice: Choice, parent: Trial, trials: Sequence[Trial]) -> list[str]:
    """The neighbours of a trial's network that the space holds and no trial has."""
    tried = {trial.config["cell"] for trial in trials}
    found = map(str, parse(parent.config["cell"]).neighbours())
    return [cell for cell in found if cell not in tried and choice.holds(cell)]
