"""ParEGO: Bayesian optimisation of one number made of all objectives, weighed anew for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kit import checks, cores
from kit.search.bayes import Bayes
from kit.search.pareto import Goals
from kit.search.space import Space
from kit.search.trials import Proposal, Trial

SUM = 0.05  # weight of the sum beside the largest loss (the paper's rho): of equal largest losses the smaller sum wins


@dataclass(frozen=True)
class ParEGO:
    """The method of Knowles (2006), IEEE Trans. Evol. Comput. 10(1), with the process and the promise of `Bayes`.

    Each proposal draws weights w, evenly from those that sum to 1, and makes one loss of each trial:
    max(w_i f_i) + 0.05 sum(w_i f_i), the augmented Tchebycheff norm, f_i running from 0 at the best value so far to 1
    at `Goals.corner`. So the middle of a hollow front is found too, where no weighted sum has its minimum. A batch
    spreads out twice: each trial of it has weights of its own, and those under way count as the best so far (`Bayes`).

    Attributes:
        start: quasi-random trials before the model is asked, 1 or more; None takes 2 (d + 1), at most 8.
        seed: of the first trials, of the weights and of the candidates; trial number i draws by (seed, i).

    Beyond a limit the loss grows by 1 and by how far out the trial is. A failed trial counts as the worst. An attribute
    out of range is a ValueError, one that is no number a TypeError.
    """

    start: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        Bayes(start=self.start, seed=checks.whole("seed", self.seed))

    @cores.one_thread()
    def propose(self, space: Space, trials: Sequence[Trial], *, goals: Goals) -> Proposal | None:
        """As in `trials.ParetoMethod`."""
        weights = np.random.default_rng([self.seed, len(trials)]).dirichlet(np.ones(len(goals.names)))
        return Bayes(start=self.start, seed=self.seed).propose(space, scalars(trials, weights, goals), maximise=False)


def scalars(trials: Sequence[Trial], weights: np.ndarray, goals: Goals) -> list[Trial]:
    """The trials with one value each, less is better; weights [m]."""
    losses = goals.losses(trials)  # [n, m]
    done = np.isfinite(losses).all(1)
    if not done.any():
        return list(trials)
    ideal = losses[done].min(0)
    width = goals.corner(losses) - ideal
    width = np.where(width > 0, width, 1.0)
    weighed = weights * (losses[done] - ideal) / width
    over = (np.maximum(losses[done] - goals.limits, 0) / width).sum(1)
    found = weighed.max(1) + SUM * weighed.sum(1) + over + (over > 0)
    values = iter(found.tolist())
    return [replace(trial, value=next(values)) if fine else trial for trial, fine in zip(trials, done, strict=True)]
