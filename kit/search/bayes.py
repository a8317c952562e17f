"""Bayesian optimisation: fit a Gaussian process to the trials, and try where its acquisition function is largest.

`Bayes(...).propose(...)` searches; `Bayes(...).model(...)` is the process behind a proposal, to look at.

One proposal takes a bounded time, however many trials there are: the kernel is fitted to at most `surrogate.MAX_FIT`
of them and, from 60 on, not for each new one; the process itself sees at most `MAX_SEEN`, the best half and the latest.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

from kit import checks, cores
from kit.search.acquisition import ACQUISITIONS, Acquisition, AcquisitionFunction, function
from kit.search.random import Sobol, drawn, sobol_points
from kit.search.space import Choice, Float, Int, Space, key
from kit.search.surrogate import MAX_FIT, Kernel, Posterior, descend, fit
from kit.search.trials import Proposal, Trial, losses, untried

Liar = Literal["best", "mean", "worst"]

MAX_SEEN = 200  # trials that the process sees, at most
CANDIDATES = 512  # places where the acquisition function is looked at first
CLIMBS = 6  # of them from which it is climbed
CLIMB_STEPS = 30
APART = 0.1  # between the starts of two climbs, so that they do not all climb one hill
MAX_TABLE = 10_000  # values of which a table is kept
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
        start = min(8, 2 * (len(space) + 1)) if self.start is None else self.start
        if len(trials) < start or all(trial.value is None for trial in trials):
            return Sobol(self.seed).propose(space, trials, maximise=maximise)
        if len({key(trial.config) for trial in trials}) >= space.count:
            return None
        places = self.model(space, trials, maximise=maximise).best_places()
        return untried(map(space.decode, places), trials) or drawn(space, trials, self.seed)  # all good ones are tried

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
        encoding = _Encoding(space)
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
    encoding: _Encoding
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
        features = self._features(places)
        if self.method.acquisition == "thompson":
            return -self._drawn(features)
        return self._function()(*self.posterior.predict(features))[0]

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
        every = self.encoding.every
        drawn = _candidates(self.encoding, self.posterior, self.method.seed, self.number) if every is None else every
        candidates = self.encoding.snap(drawn)
        features = self.encoding.features(candidates)  # [m, n_features]
        if self.method.acquisition == "thompson":
            return list(candidates[np.argsort(self._drawn(features))])
        function = self._function()
        promising = candidates[np.argsort(-function(*self.posterior.predict(features))[0], kind="stable")]
        if every is not None:
            return list(promising)
        climbed = [_climb(self.encoding, self.posterior, function, start) for start in _apart(promising)]
        return [place for _, place in sorted(climbed, key=lambda pair: -pair[0])] + list(promising)

    @functools.cached_property
    def best(self) -> float:
        """The smallest mean of the process at what was tried, standardised: a single value may be luck."""
        return float(self.posterior.predict(self.posterior.x)[0].min())

    def _function(self) -> AcquisitionFunction:
        return function(self.method.acquisition, self.best, self.method.exploration)

    def _drawn(self, features: np.ndarray) -> np.ndarray:
        """Thompson's function: another one after each trial. [m, n_features] -> [m]."""
        return self.posterior.samples(features, 1, [self.method.seed, self.number])[0]

    def _features(self, places: np.ndarray) -> np.ndarray:
        return self.encoding.features(self.encoding.snap(places))


class _Encoding:
    """A space as the process sees it: numbers as they are, whole numbers rounded, options by their features.

    Rounding before the kernel keeps the model flat between whole numbers, as the objective is (Garrido-Merchan &
    Hernandez-Lobato 2020, arXiv:1805.03463).
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parameters = list(space.parameters.values())
        self.smooth = np.array([isinstance(parameter, Float) for parameter in self.parameters])  # [d]
        widths = [_rows(each).shape[1] if isinstance(each, Choice) else 1 for each in self.parameters]
        self.starts = np.cumsum([0, *widths[:-1]])  # the first column of each, [d]
        self.smooth_columns = self.starts[self.smooth]

    @functools.cached_property
    def every(self) -> np.ndarray | None:
        """All places of a space that has few; None of any other. -> [m, d]."""
        if self.space.count > CANDIDATES * CLIMBS:
            return None
        return np.array(list(itertools.product(*(_table(each)[0].tolist() for each in self.parameters))))

    def tried(self, trials: Sequence[Trial]) -> np.ndarray:
        """Features of what was tried. -> [m, n_features]."""
        return self.features(np.array([self.space.encode(trial.config) for trial in trials]))

    def snap(self, places: np.ndarray) -> np.ndarray:
        """Move each place to the middle of its value. [m, d] -> [m, d]."""
        places = places.copy()
        for at in np.flatnonzero(~self.smooth):
            parameter, column = self.parameters[at], places[:, at]
            if parameter.count <= MAX_TABLE:
                middles, borders = _table(parameter)
                places[:, at] = middles[np.searchsorted(borders, column, side="right")]
            else:
                places[:, at] = [parameter.encode(parameter.decode(place)) for place in column.tolist()]
        return places

    def features(self, places: np.ndarray) -> np.ndarray:
        """[m, d] -> [m, n_features]; places are snapped."""
        columns = []
        for parameter, column in zip(self.parameters, places.T, strict=True):
            if isinstance(parameter, Choice):
                n = len(parameter.options)
                columns.append(_rows(parameter)[np.minimum((column * n).astype(int), n - 1)])
            else:
                columns.append(column[:, None])
        return np.hstack(columns)

    def place(self, features: np.ndarray) -> np.ndarray:
        """Features back to a place, of an option to the one with the nearest. [n_features] -> [d]."""
        pairs = zip(self.parameters, np.split(features, self.starts[1:]), strict=True)
        return np.array([_nearest(each, part) if isinstance(each, Choice) else part[0] for each, part in pairs])

    def neighbours(self, place: np.ndarray) -> np.ndarray:
        """The same place with one whole number a step away, or one option another. -> [m, d]."""
        found = []
        for at in np.flatnonzero(~self.smooth):
            parameter = self.parameters[at]
            if isinstance(parameter, Choice):
                n = len(parameter.options)
                steps = [middle for middle in ((np.arange(n) + 0.5) / n).tolist() if middle != place[at]]
            else:
                here = parameter.decode(float(place[at]))
                steps = [parameter.encode(here + step) for step in (-1, 1) if parameter.holds(here + step)]
            found += [np.where(np.arange(len(place)) == at, step, place) for step in steps]
        return np.array(found).reshape(-1, len(place))


def _nearest(parameter: Choice, features: np.ndarray) -> float:
    """The place of the option whose features are nearest."""
    return (int(((_rows(parameter) - features) ** 2).sum(1).argmin()) + 0.5) / len(parameter.options)


def _rows(parameter: Choice) -> np.ndarray:
    """Features of each option. -> [n, f]."""
    return np.eye(len(parameter.options)) if parameter.features is None else parameter.features


@functools.lru_cache(maxsize=64)
def _table(parameter: Int | Choice) -> tuple[np.ndarray, np.ndarray]:
    """Places of all values, and the borders between them. -> [n], [n - 1]."""
    if isinstance(parameter, Choice):
        n = len(parameter.options)
        return (np.arange(n) + 0.5) / n, np.arange(1, n) / n
    values = range(parameter.low, parameter.high + 1)
    middles = np.array([parameter.encode(value) for value in values])
    return middles, np.array([parameter.encode(value + 0.5) for value in values[:-1]])


def _candidates(encoding: _Encoding, model: Posterior, seed: int, number: int) -> np.ndarray:
    """Places all over the cube, and some close to the best ones tried. -> [m, d]."""
    d = len(encoding.space)
    rng = np.random.default_rng([seed, number])
    everywhere = (sobol_points(d, CANDIDATES, seed)[:CANDIDATES] + rng.random(d)) % 1.0  # other places each time
    places = np.array([encoding.place(row) for row in model.x[np.argsort(model.y, kind="stable")[:4]]])  # [k, d]
    steps = np.array([0.2, 0.05, 0.01, 0.001])[:, None, None] * rng.standard_normal((4, 32, d))
    near = np.clip(places[np.arange(32) % len(places)] + steps, 0, 1).reshape(-1, d)
    return np.vstack([everywhere, near])


def _climb(
    encoding: _Encoding, model: Posterior, function: AcquisitionFunction, place: np.ndarray
) -> tuple[float, np.ndarray]:
    """Climb the acquisition function: real numbers by L-BFGS, all others step by step, in turns."""

    def at(places: np.ndarray) -> np.ndarray:
        return function(*model.predict(encoding.features(places)))[0]

    def downhill(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        features[moving] = numbers
        mean, std, mean_slope, std_slope = model.slopes(features)
        value, by_mean, by_std = function(np.array(mean), np.array(std))
        return -float(value), -(by_mean * mean_slope + by_std * std_slope)[moving]

    smooth, moving = encoding.smooth, encoding.smooth_columns
    reached = float(at(place[None])[0])
    for _ in range(3):
        if len(moving):
            features, place = encoding.features(place[None])[0], place.copy()
            found, loss = descend(downhill, place[smooth], [(0.0, 1.0)] * len(moving), CLIMB_STEPS)
            place[smooth], reached = np.clip(found, 0, 1), -loss
        neighbours = encoding.neighbours(place)
        others = at(neighbours) if len(neighbours) else np.array([-np.inf])
        if others.max() <= reached:
            break
        place, reached = neighbours[int(others.argmax())], float(others.max())
    return reached, place


def _apart(places: np.ndarray) -> list[np.ndarray]:
    """The first `CLIMBS` places that are not close to one before; as many as there are. [m, d] -> [d] each."""
    found: list[np.ndarray] = []
    for place in places:
        if len(found) < CLIMBS and all(np.abs(place - other).max() > APART for other in found):
            found.append(place)
    return found


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
