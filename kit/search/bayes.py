"""Bayesian optimisation: fit a Gaussian process to the trials, and try where its acquisition function is largest.

One proposal takes a bounded time, however many trials there are: the kernel is fitted to at most `surrogate.MAX_FIT`
of them and, from 60 on, not anew for each; the process itself sees at most `MAX_SEEN`, the best half and the latest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.optimize import minimize

from kit.search import acquisition as acquisitions
from kit.search.random import Sobol, drawn, sobol_points
from kit.search.space import Choice, Float, Int, Space, key
from kit.search.surrogate import MAX_FIT, Kernel, Posterior, fit
from kit.search.trials import Proposal, Trial, check_whole, losses

Acquisition = Literal["ei", "pi", "ucb", "thompson"]
Liar = Literal["best", "mean", "worst"]

MAX_SEEN = 200  # trials that the process sees, at most
CANDIDATES = 512  # places where the acquisition function is looked at first
CLIMBS = 6  # of which so many are climbed from
CLIMB_STEPS = 30
APART = 0.1  # and so far apart, so that they do not all climb one hill
MAX_TABLE = 10_000  # values of which a table is kept
BIG = 1e100  # larger values are cut to it, so that no sum overflows


@dataclass(frozen=True)
class Bayes:
    """Bayesian optimisation with a Gaussian process.

    Attributes:
        acquisition: "ei" (expected improvement, in its logarithm), "pi" (probability of improvement), "ucb"
            (confidence bound), "thompson" (the best place of a function drawn from the model).
        start: quasi-random trials before the model is asked, 1 or more; None takes 2 (d + 1), at most 8.
        beta: standard deviations of the confidence bound, 0 or more.
        xi: improvement that "pi" asks for, in standard deviations of the values, 0 or more.
        liar: the value that a trial under way is given, until it is told: the best, mean or worst one so far
            (Ginsbourger et al. 2010, constant liar). So a batch of proposals spreads out.
        seed: of the first trials and of the candidates.

    A failed trial counts as the worst value so far, so that the search keeps away from it. A finite space is never
    asked twice for one configuration.

    Raises:
        ValueError: an attribute out of range.
    """

    acquisition: Acquisition = "ei"
    start: int | None = None
    beta: float = 2.0
    xi: float = 0.01
    liar: Liar = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        for name, allowed in (("acquisition", get_args(Acquisition)), ("liar", get_args(Liar))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        check_whole("seed", self.seed, 0)
        if self.start is not None:
            check_whole("start", self.start, 1)
        for name in ("beta", "xi"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, and finite; got {getattr(self, name)!r}.")

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`."""
        start = self.start if self.start is not None else min(8, 2 * (len(space) + 1))
        told = [trial for trial in trials if trial.value is not None]
        if len(trials) < start or not told:
            return Sobol(self.seed).propose(space, trials, maximise=maximise)
        tried = {key(trial.config) for trial in trials}
        if len(tried) >= space.count:
            return None
        encoding = _Encoding(space)
        model, best = self._model(encoding, trials, maximise=maximise)
        for places in self._best_places(encoding, model, self._worth(best), len(trials)):
            config = space.decode(places)
            if key(config) not in tried:
                return Proposal(config)
        left = drawn(space, trials, self.seed)  # all good places are tried
        return None if left is None else Proposal(left)

    def _model(self, encoding: _Encoding, trials: Sequence[Trial], *, maximise: bool) -> tuple[Posterior, float]:
        """What the trials say of all other places, and the best value by the model; less is better."""
        told = [trial for trial in trials if trial.status != "asked"]
        asked = [trial for trial in trials if trial.status == "asked"][-MAX_SEEN // 2 :]
        found = _tamed(np.array(losses(told, maximise=maximise)))
        x = encoding.features(np.array([encoding.space.encode(trial.config) for trial in told]))
        kernel = _fitted(x, found)
        kept = _kept(found, MAX_SEEN - len(asked))
        x, y = x[kept], _standardised(found[kept])
        if asked:
            lie = {"best": y.min(), "mean": y.mean(), "worst": y.max()}[self.liar]
            x = np.vstack([x, encoding.features(np.array([encoding.space.encode(trial.config) for trial in asked]))])
            y = np.concatenate([y, np.full(len(asked), lie)])
        model = Posterior(kernel, x, y)
        return model, float(model.at(x)[0].min())

    def _worth(self, best: float) -> Worth:
        """The acquisition function of mean and standard deviation, with its derivative by each."""
        if self.acquisition == "ucb":
            return lambda mean, std: (acquisitions.confidence_bound(mean, std, self.beta), -1.0, self.beta)
        if self.acquisition == "pi":
            return lambda mean, std: acquisitions.log_pi_with_slopes(mean, std, best, self.xi)
        return lambda mean, std: acquisitions.log_ei_with_slopes(mean, std, best)

    def _best_places(self, encoding: _Encoding, model: Posterior, worth: Worth, number: int) -> list[np.ndarray]:
        """Places in the unit cube, the most promising first."""
        candidates = encoding.snap(_candidates(encoding, model, self.seed, number))  # [m, d]
        if self.acquisition == "thompson":
            drawn_function = model.samples(encoding.features(candidates), 1, seed=hash((self.seed, number)) % 2**32)[0]
            return list(candidates[np.argsort(drawn_function)])
        order = np.argsort(-worth(*model.at(encoding.features(candidates)))[0])
        climbed = [_climb(encoding, model, worth, place) for place in _apart(candidates[order])]
        climbed.sort(key=lambda pair: -pair[0])
        return [place for _, place in climbed] + list(candidates[order])


Worth = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any, Any]]  # mean, std -> value, slope by each


class _Encoding:
    """A space as the process sees it: numbers as they are, whole numbers rounded, each option a column of its own.

    Rounding before the kernel keeps the model flat between whole numbers, as the objective is (Garrido-Merchan &
    Hernandez-Lobato 2020, arXiv:1805.03463).
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parameters = list(space.parameters.values())
        self.smooth = np.array([isinstance(parameter, Float) for parameter in self.parameters])  # [d]
        columns = [len(each.options) if isinstance(each, Choice) else 1 for each in self.parameters]
        starts = np.cumsum([0, *columns])
        self.columns = [slice(int(start), int(start) + width) for start, width in zip(starts, columns, strict=False)]
        self.n_features = sum(columns)
        self.smooth_columns = np.array(
            [columns_.start for columns_, smooth in zip(self.columns, self.smooth, strict=True) if smooth], dtype=int
        )

    def snap(self, places: np.ndarray) -> np.ndarray:
        """Move each place to the middle of its value. [m, d] -> [m, d]."""
        places = places.copy()
        for at in np.flatnonzero(~self.smooth):
            parameter = self.parameters[at]
            if parameter.count <= MAX_TABLE:  # the middles and, half way between two values, the borders
                middles, borders = _table(parameter)
                places[:, at] = middles[np.searchsorted(borders, places[:, at], side="right")]
            else:
                places[:, at] = [parameter.encode(parameter.decode(place)) for place in places[:, at].tolist()]
        return places

    def features(self, places: np.ndarray) -> np.ndarray:
        """[m, d] -> [m, n_features]; places are snapped."""
        found = np.zeros((len(places), self.n_features))
        for at, (parameter, columns) in enumerate(zip(self.parameters, self.columns, strict=True)):
            if isinstance(parameter, Choice):
                options = np.minimum((places[:, at] * len(parameter.options)).astype(int), len(parameter.options) - 1)
                found[np.arange(len(places)), columns.start + options] = 1.0
            else:
                found[:, columns.start] = places[:, at]
        return found

    def place(self, features: np.ndarray) -> np.ndarray:
        """Features back to a place. [n_features] -> [d]."""
        pairs = zip(self.parameters, self.columns, strict=True)
        return np.array(
            [
                (int(features[columns].argmax()) + 0.5) / len(parameter.options)
                if isinstance(parameter, Choice)
                else features[columns.start]
                for parameter, columns in pairs
            ]
        )

    def neighbours(self, place: np.ndarray) -> np.ndarray:
        """The same place with one whole number a step away, or one option another. -> [m, d]."""
        found = []
        for at in np.flatnonzero(~self.smooth):
            parameter = self.parameters[at]
            if isinstance(parameter, Choice):
                values = [option for option in parameter.options if parameter.encode(option) != place[at]]
            else:
                here = parameter.decode(float(place[at]))
                values = [here + step for step in (-1, 1) if parameter.holds(here + step)]
            for value in values:
                other = place.copy()
                other[at] = parameter.encode(value)
                found.append(other)
        return np.array(found).reshape(-1, len(place))


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
    everywhere = sobol_points(d, CANDIDATES, seed)[:CANDIDATES]
    dice = np.random.default_rng([seed, number])
    everywhere = (everywhere + dice.random(d)) % 1.0  # shifted: other places each time
    best = model.x[np.argsort(model.y, kind="stable")[:4]]
    places = np.array([encoding.place(row) for row in best])  # [k, d]
    near = [
        np.clip(places[at % len(places)] + scale * dice.standard_normal(d), 0, 1)
        for scale in (0.2, 0.05, 0.01, 0.001)
        for at in range(32)
    ]
    return np.vstack([everywhere, near])


def _climb(encoding: _Encoding, model: Posterior, worth: Worth, place: np.ndarray) -> tuple[float, np.ndarray]:
    """Climb the acquisition function: real numbers by L-BFGS, all others step by step, in turns."""

    def at(places: np.ndarray) -> np.ndarray:
        return worth(*model.at(encoding.features(places)))[0]

    reached = float(at(place[None])[0])
    for _ in range(3):
        if encoding.smooth.any():
            place, reached = _climb_smooth(encoding, model, worth, place)
        neighbours = encoding.neighbours(place)
        if not len(neighbours):
            break
        others = at(neighbours)
        if others.max() <= reached:
            break
        place, reached = neighbours[int(others.argmax())], float(others.max())
    return reached, place


def _climb_smooth(encoding: _Encoding, model: Posterior, worth: Worth, place: np.ndarray) -> tuple[np.ndarray, float]:
    features = encoding.features(place[None])[0]
    moving = encoding.smooth_columns

    def downhill(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        features[moving] = numbers
        mean, std, mean_slope, std_slope = model.slopes(features)
        value, by_mean, by_std = worth(np.array(mean), np.array(std))
        return -float(value), -(by_mean * mean_slope + by_std * std_slope)[moving]

    found = minimize(
        downhill,
        place[encoding.smooth],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * len(moving),
        options={"maxiter": CLIMB_STEPS},
    )
    reached = place.copy()
    reached[encoding.smooth] = np.clip(found.x, 0, 1)
    return reached, -float(found.fun)


def _apart(places: np.ndarray) -> list[np.ndarray]:
    """The first `CLIMBS` places that are not close to one before; as many as there are. [m, d] -> [d] each."""
    found: list[np.ndarray] = []
    for place in places:
        if all(np.abs(place - other).max() > APART for other in found):
            found.append(place)
            if len(found) == CLIMBS:
                break
    return found


def _tamed(found: np.ndarray) -> np.ndarray:
    """Failures as the worst value, and values far above the rest cut, so that one of them does not hide the others.

    Cut are those above the third quartile by more than three times the distance of the quartiles (Tukey 1977: "far
    out"). [n] -> [n]
    """
    found = np.clip(found, -BIG, None)
    finite = np.minimum(found[np.isfinite(found)], BIG)
    low, high = np.quantile(finite, [0.25, 0.75])
    return np.minimum(np.where(np.isfinite(found), found, finite.max()), high + 3 * (high - low) or BIG)


def _standardised(found: np.ndarray) -> np.ndarray:
    return (found - found.mean()) / (found.std() or 1.0)


def _kept(found: np.ndarray, most: int) -> np.ndarray:
    """Which trials the process sees: all, or the best half and the latest. [n] -> [at most `most`], ascending."""
    if len(found) <= most:
        return np.arange(len(found))
    best = np.argsort(found, kind="stable")[: most // 2]
    others = np.setdiff1d(np.arange(len(found)), best)
    return np.sort(np.concatenate([best, others[-(most - len(best)) :]]))


@functools.lru_cache(maxsize=512)
def _kernel(x: bytes, found: bytes, d: int) -> Kernel:
    return fit(np.frombuffer(x).reshape(-1, d), _standardised(np.frombuffer(found)))


def _fitted(x: np.ndarray, found: np.ndarray) -> Kernel:
    """The kernel, fitted to the first m trials: all up to 60, then every fifth, so that most proposals need no fit."""
    m = len(x) if len(x) <= 60 else len(x) - len(x) % 5
    kept = _kept(found[:m], MAX_FIT)
    return _kernel(x[kept].tobytes(), found[kept].tobytes(), x.shape[1])
