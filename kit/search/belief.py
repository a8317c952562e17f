"""What a Gaussian process believes of one hyper-parameter, in accuracies; and where it would try next."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from kit.search import acquisition as acquisitions
from kit.search.surrogate import Kernel, Posterior, fit

Acquisition = Literal["expected improvement", "probability of improvement", "confidence bound", "Thompson"]
ACQUISITIONS: tuple[Acquisition, ...] = get_args(Acquisition)

LEAST_SPREAD = 0.01  # values that are nearly equal must not make the process sure of everything else


@dataclass(frozen=True)
class Belief:
    """A Gaussian process that has seen accuracies.

    The process itself looks for the smallest value, as the kit's search does: it sees (centre - accuracy) / spread.

    Attributes:
        posterior: of the standardised values.
        centre: mean of the accuracies seen.
        spread: their standard deviation, `LEAST_SPREAD` or more.
    """

    posterior: Posterior
    centre: float
    spread: float

    @classmethod
    def of(cls, places: np.ndarray, accuracies: np.ndarray, kernel: Kernel | None) -> Belief:
        """Look at what was seen.

        Args:
            places: on the unit interval, [n].
            accuracies: [n], shares.
            kernel: how near places go together; None fits it.
        """
        centre, spread = float(accuracies.mean()), max(float(accuracies.std()), LEAST_SPREAD)
        y = (centre - accuracies) / spread
        kernel = kernel or _fitted(tuple(places.tolist()), tuple(y.tolist()))
        return cls(Posterior(kernel, places[:, None], y), centre, spread)

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the accuracy at places. [m] -> [m], [m]."""
        mean, std = self.posterior.at(places[:, None])
        return self.centre - self.spread * mean, self.spread * std

    def samples(self, places: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Functions drawn from what is believed. [m] -> [count, m]."""
        return self.centre - self.spread * self.posterior.samples(places[:, None], count, seed)

    def wanted(self, acquisition: Acquisition, exploration: float, places: np.ndarray, seed: int) -> Wanted:
        """How much a trial is worth at places, [m].

        Args:
            acquisition: which function says so.
            exploration: xi of the improvements, beta of the confidence bound; Thompson has none.
            places: on the unit interval, [m].
            seed: of Thompson's function.
        """
        if acquisition == "Thompson":
            return Wanted(self.samples(places, 1, seed)[0], lambda drawn: drawn)
        mean, std = self.posterior.at(places[:, None])
        if acquisition == "confidence bound":
            bound = acquisitions.confidence_bound(mean, std, exploration)
            return Wanted(self.centre + self.spread * bound, lambda bound: bound)
        best = float(self.posterior.at(self.posterior.x)[0].min())  # by the model: a single value may be luck
        if acquisition == "probability of improvement":
            return Wanted(acquisitions.log_probability_of_improvement(mean, std, best, exploration), np.exp)
        # E[max(best - xi - f, 0)]: expected improvement over what is better than the best by xi.
        logs = acquisitions.log_expected_improvement(mean, std, best - exploration)
        return Wanted(logs, lambda log: self.spread * np.exp(log))


class Wanted(NamedTuple):
    """Values of an acquisition function.

    Attributes:
        score: more is better, [m]; a logarithm where the value itself may underflow.
        plain: a score as a share: an improvement, a probability, or an accuracy.
    """

    score: np.ndarray
    plain: Callable[[float], float]


@functools.lru_cache(maxsize=512)
def _fitted(places: tuple[float, ...], y: tuple[float, ...]) -> Kernel:
    return fit(np.array(places)[:, None], np.array(y))
