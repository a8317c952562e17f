"""Bayesian optimisation: fit a Gaussian process to the trials, and try where its acquisition function is largest.

`Bayes(...).propose(...)` searches; `Bayes(...).model(...)` is the process behind a proposal, to look at.

One proposal takes a bounded time, however many trials there are: the kernel is fitted to at most `surrogate.MAX_FIT`
of them and, from 60 on, not for each new one; the process itself sees at most `MAX_SEEN`, the best half and the latest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

from kit import checks, cores
from kit.search.acquisition import ACQUISITIONS, Acquisition, AcquisitionFunction, function
from kit.search.places import Encoding, best_places, proposed
from kit.search.space import Space
from kit.search.surrogate import MAX_FIT, Kernel, Posterior, fit
from kit.search.trials import Proposal, Trial, losses

Liar = Literal["best", "mean", "worst"]

MAX_SEEN = 200  # trials that the process sees, at most
BIG = 1e100  # larger values are cut to it, so that no sum overflows
EDGE = 1e-2  # added to a share and to its rest before the logarithm, which is infinite at known bounds


@dataclass(frozen=True)
class Bayes:
    """Bayesian optimisation with a Gaussian process.

    Attributes:
        acquisition: "ei" (expected improvement, in its logarithm), "pi" (probability of improvement), "ucb"
            (confidence bound), "thompson" (the best place of a function drawn from the model).
        start: quasi-random trials before the model is asked, 1 or more; None takes 2 (d + 1), at most 8.
        beta: standard deviations of the confidence bound, 0 or more; None takes that of `acquisition.ACQUISITIONS`.
        xi: improvement that "ei" and "pi" ask for, in standard deviations of the values, 0 or more; None as for beta.
        liar: the value that a trial under way is given, until it is told: the best, mean or worst one so far
            (Ginsbourger et al. 2010, constant liar). So a batch of proposals spreads out.
        seed: of the first trials, of the candidates and of the functions that are drawn.
        bounds: the lowest and the highest value that there can be, such as (0, 1) of an accuracy. The process is then
            one of log-odds, so it believes in nothing outside, and a step from 98 % to 99 % is as large as one from
            50 % to 67 %. None takes the values as they are.

    A failed trial counts as the worst value so far, so that the search keeps away from it. A finite space is never
    asked twice for one configuration. An attribute out of range is a ValueError, one that is no number a TypeError.
    """

    acquisition: Acquisition = "ei"
    start: int | None = None
    beta: float | None = None
    xi: float | None = None
    liar: Liar = "best"
    seed: int = 0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        checks.one_of("acquisition", self.acquisition, ACQUISITIONS)
        checks.one_of("liar", self.liar, get_args(Liar))
        checks.whole("seed", self.seed)
        if self.bounds is not None:
            if not isinstance(self.bounds, tuple) or len(self.bounds) != 2:
                raise TypeError(f"bounds must be a pair of numbers or None; got {self.bounds!r}.")
            low, high = (checks.number("bounds", each) for each in self.bounds)
            if not 0 < high - low < math.inf:
                raise ValueError(f"bounds must be a lower and a higher number; got {self.bounds!r}.")
        if self.start is not None:
            checks.whole("start", self.start, 1)
        for name in ("beta", "xi"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), least=0)

    @property
    def exploration(self) -> float:
        """The xi or beta of the acquisition function."""
        kind = ACQUISITIONS[self.acquisition]
        given = getattr(self, kind.parameter) if kind.parameter else None
        return kind.default if given is None else float(given)

    @cores.one_thread()
    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`; a ValueError where a trial gave a value out of `bounds`."""
        return proposed(
            space, trials, self.start, self.seed, lambda: self.model(space, trials, maximise=maximise).best_places()
        )

    @cores.one_thread()
    def model(
        self,
        space: Space,
        trials: Sequence[Trial],
        *,
        maximise: bool,
        kernel: Kernel | None = None,
        clip: bool = True,
        least_spread: float = 0.0,
    ) -> Model:
        """What the trials say of all other places.

        Args:
            space: of the search.
            trials: so far, one of them done.
            maximise: whether more is better.
            kernel: of the process; None fits it.
            clip: whether values far worse than the rest are cut, so that one of them does not hide the others.
            least_spread: the values are divided by their standard deviation, and by no less than this.
        """
        encoding = Encoding(space)
        told = [trial for trial in trials if trial.told]
        asked = [trial for trial in trials if not trial.told][-MAX_SEEN // 2 :]
        scale = Scale(self.bounds, maximise)
        found = _bounded(scale.losses(told), clip=clip)
        x = encoding.tried(told)
        kernel = _fitted(x, found, least_spread) if kernel is None else kernel
        kept = _kept(found, MAX_SEEN - len(asked))
        x, (y, centre, spread) = x[kept], _standardised(found[kept], least_spread)
        if asked:
            lie = {"best": y.min(), "mean": y.mean(), "worst": y.max()}[self.liar]
            x = np.vstack([x, encoding.tried(asked)])
            y = np.concatenate([y, np.full(len(asked), lie)])
        return Model(self, encoding, Posterior(kernel, x, y), centre, spread, scale, len(trials))


@dataclass(frozen=True)
class Scale:
    """How the process sees values: less is better, and of known bounds they are log-odds.

    Attributes:
        bounds: as in `Bayes`.
        maximise: whether more is better.
    """

    bounds: tuple[float, float] | None
    maximise: bool

    def losses(self, trials: Sequence[Trial]) -> np.ndarray:
        """One for each trial, infinity unless it is done; a ValueError for a value out of bounds. -> [n].

        A share p of the range becomes log((p + e) / (1 - p + e)), e being `EDGE`: the empirical log-odds (Cox 1970),
        which are finite at the ends, and keep the order of all values.
        """
        found = np.array(losses(trials, maximise=self.maximise))
        if self.bounds is None:
            return found
        (low, high), sign = self.bounds, -1 if self.maximise else 1
        for trial in trials:
            if trial.value is not None and not low <= trial.value <= high:
                came = f"trial {trial.number} gave {trial.value!r}"
                raise ValueError(f"bounds must hold every value; {came}, which lies outside of {low:g} .. {high:g}.")
        done = np.isfinite(found)
        share = (sign * np.where(done, found, sign * low) - low) / (high - low)
        return np.where(done, sign * np.log((share + EDGE) / (1 - share + EDGE)), math.inf)

    def values(self, found: np.ndarray) -> np.ndarray:
        """Losses back to the objective's own values."""
        found = -found if self.maximise else found
        if self.bounds is None:
            return found
        low, high = self.bounds
        return low + (high - low) * np.clip((1 + 2 * EDGE) * expit(found) - EDGE, 0, 1)


@dataclass(frozen=True, eq=False)
class Model:
    """A Gaussian process that has seen the trials of a search, and says where to try next.

    Inside, less is better, and values are standardised: y = (loss - centre) / spread. A loss is the value, or of known
    bounds its log-odds; where more is better, the negative of that.

    Attributes:
        method: whose acquisition function, exploration and seed are used.
        encoding: of places in the unit cube.
        posterior: the process, of the standardised losses.
        centre: mean of the losses.
        spread: their standard deviation, or what they were divided by in its place.
        scale: between values and losses.
        number: trials so far.
    """

    method: Bayes
    encoding: Encoding
    posterior: Posterior
    centre: float
    spread: float
    scale: Scale
    number: int

    @cores.one_thread()
    def band(self, places: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The objective without its noise, in its own values: its median, and what lies `width` deviations around it.

        [m, d] in the unit cube -> middle, low and high, [m] each. Without bounds the median is the mean.
        """
        mean, std = self.posterior.predict(self._features(places))
        side = width if self.scale.maximise else -width
        return self.own(mean), self.own(mean + side * std), self.own(mean - side * std)

    @cores.one_thread()
    def samples(self, places: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
        """Functions that go with what was seen, in the objective's values. [m, d] -> [count, m]."""
        return self.own(self.posterior.samples(self._features(places), count, seed))

    @cores.one_thread()
    def scores(self, places: np.ndarray) -> np.ndarray:
        """The acquisition function, more is better. [m, d] -> [m].

        It is that of the standardised losses: a logarithm for `ei` and `pi`, where the value itself may underflow; for
        `ucb` and `thompson` the negative of the bound or of the function that is drawn.
        """
        return self._score(self._features(places))

    def plain(self, scores: np.ndarray) -> np.ndarray:
        """What scores mean: a probability, or a value; for `ei` how much better than the best mean that makes it."""
        if self.method.acquisition == "pi":
            return np.exp(scores)
        if self.method.acquisition == "ei":
            return np.abs(self.own(self.best - np.exp(scores)) - self.own(np.array(self.best)))
        return self.own(-scores)

    def own(self, found: np.ndarray) -> np.ndarray:
        """Standardised losses back to the objective's own values."""
        return self.scale.values(self.centre + self.spread * found)

    @cores.one_thread()
    def best_places(self) -> list[np.ndarray]:
        """Places in the unit cube, the most promising first, [d] each."""
        near = self.posterior.x[np.argsort(self.posterior.y, kind="stable")[:4]]
        drawn = self.method.acquisition == "thompson"
        slope = None if drawn else self._slope
        return best_places(self.encoding, self._score, slope, near, self.method.seed, self.number)

    @functools.cached_property
    def best(self) -> float:
        """The smallest mean of the process at what was tried, standardised: a single value may be luck."""
        return float(self.posterior.predict(self.posterior.x)[0].min())

    def _function(self) -> AcquisitionFunction:
        return function(self.method.acquisition, self.best, self.method.exploration)

    def _score(self, features: np.ndarray) -> np.ndarray:
        """[m, n_features] -> [m]; Thompson's function is another one after each trial."""
        if self.method.acquisition == "thompson":
            return -self.posterior.samples(features, 1, [self.method.seed, self.number])[0]
        return self._function()(*self.posterior.predict(features))[0]

    def _slope(self, features: np.ndarray) -> tuple[float, np.ndarray]:
        """The score at one place, and its slope. [n_features] -> , [n_features]."""
        mean, std, mean_slope, std_slope = self.posterior.slopes(features)
        value, by_mean, by_std = self._function()(np.array(mean), np.array(std))
        return float(value), by_mean * mean_slope + by_std * std_slope

    def _features(self, places: np.ndarray) -> np.ndarray:
        return self.encoding.features(self.encoding.snap(places))


def _bounded(found: np.ndarray, *, clip: bool) -> np.ndarray:
    """Failures as the worst value, and with `clip` values far above the rest cut to where the rest ends.

    Cut are those above the third quartile by more than three times the distance of the quartiles (Tukey 1977: "far
    out"); none where the quartiles are equal. [n] -> [n]
    """
    found = np.clip(found, -BIG, None)
    finite = np.minimum(found[np.isfinite(found)], BIG)
    found = np.minimum(np.where(np.isfinite(found), found, finite.max()), BIG)
    floor = finite.min()
    low, high = np.quantile(
        finite - floor, [0.25, 0.75]
    )  # above the lowest, so that rounding is the same at any height
    return np.minimum(found, floor + high + (3 * (high - low) or 2 * BIG)) if clip else found


def _standardised(found: np.ndarray, least_spread: float) -> tuple[np.ndarray, float, float]:
    """The values with mean 0 and deviation 1; what was taken off, and what they were divided by."""
    floor = float(found.min())
    above = found - floor  # so that equal values are 0, and rounding is the same at any height
    size = float(above.max()) or 1.0
    share = above / size  # so that no square overflows, or is lost
    spread = max(size * float(share.std()), least_spread) or 1.0
    return (share - share.mean()) * (size / spread), floor + size * float(share.mean()), spread


def _kept(found: np.ndarray, most: int) -> np.ndarray:
    """Which trials the process sees: all, or the best half and the latest. [n] -> [at most `most`], ascending."""
    if len(found) <= most:
        return np.arange(len(found))
    best = np.argsort(found, kind="stable")[: most // 2]
    others = np.setdiff1d(np.arange(len(found)), best)
    return np.sort(np.concatenate([best, others[-(most - len(best)) :]]))


@functools.lru_cache(maxsize=512)
def _kernel(x: bytes, found: bytes, d: int, least_spread: float) -> Kernel:
    return fit(np.frombuffer(x).reshape(-1, d), _standardised(np.frombuffer(found), least_spread)[0])


def _fitted(x: np.ndarray, found: np.ndarray, least_spread: float) -> Kernel:
    """The kernel, fitted to the first m trials: all up to 60, then every fifth, so that most proposals need no fit."""
    m = len(x) if len(x) <= 60 else len(x) - len(x) % 5
    kept = _kept(found[:m], MAX_FIT)
    return _kernel(x[kept].tobytes(), found[kept].tobytes(), x.shape[1], least_spread)
