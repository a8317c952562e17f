"""Where a model looks for the next trial: the unit cube as a process sees it, candidates in it, climbs from them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from kit.search.random import Sobol, drawn, sobol_points
from kit.search.space import Choice, Float, Int, Space, key
from kit.search.surrogate import descend
from kit.search.trials import Proposal, Trial, untried

Score = Callable[[np.ndarray], np.ndarray]  # features [m, n_features] in, how promising each is out, [m]
Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]  # features [n_features] in, its score and the slope of that

CANDIDATES = 512  # places where the score is looked at first
CLIMBS = 6  # of them from which it is climbed
CLIMB_STEPS = 30
APART = 0.1  # between the starts of two climbs, so that they do not all climb one hill
MAX_TABLE = 10_000  # values of which a table is kept


class Encoding:
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


def proposed(
    space: Space, trials: Sequence[Trial], start: int | None, seed: int, places: Callable[[], list[np.ndarray]]
) -> Proposal | None:
    """What a method with a model proposes: Sobol points first, then the most promising place that is not tried.

    Args:
        space: of the search.
        trials: so far.
        start: trials before the model is asked; None takes 2 (d + 1), at most 8. One of them must be done.
        seed: of the Sobol points.
        places: asks the model: places in the unit cube, the most promising first, [d] each.
    """
    start = min(8, 2 * (len(space) + 1)) if start is None else start
    if len(trials) < start or all(trial.status != "done" for trial in trials):
        return Sobol(seed).propose(space, trials)
    if len({key(trial.config) for trial in trials}) >= space.count:
        return None
    return untried(map(space.decode, places()), trials) or drawn(space, trials, seed)  # all good ones are tried


def best_places(
    encoding: Encoding, score: Score, slope: Slope | None, near: np.ndarray, seed: int, number: int
) -> list[np.ndarray]:
    """Places in the unit cube, the most promising first, [d] each.

    Args:
        encoding: of the space; all places of a small one are looked at.
        score: more is better.
        slope: the score with its slope, to climb it from the best candidates; None does not climb.
        near: features of places that are good already, whose surroundings are looked at too, [k, n_features].
        seed: of the candidates.
        number: trials so far; others are looked at after each.
    """
    every = encoding.every
    drawn = _candidates(encoding, near, seed, number) if every is None else every
    candidates = encoding.snap(drawn)
    promising = candidates[np.argsort(-score(encoding.features(candidates)), kind="stable")]
    if every is not None or slope is None:
        return list(promising)
    climbed = [_climb(encoding, score, slope, start) for start in _apart(promising)]
    return [place for _, place in sorted(climbed, key=lambda pair: -pair[0])] + list(promising)


def _candidates(encoding: Encoding, near: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Places all over the cube, and some close to those that are good. -> [m, d]."""
    d = len(encoding.space)
    rng = np.random.default_rng([seed, number])
    everywhere = (sobol_points(d, CANDIDATES, seed)[:CANDIDATES] + rng.random(d)) % 1.0  # other places each time
    places = np.array([encoding.place(row) for row in near])  # [k, d]
    steps = np.array([0.2, 0.05, 0.01, 0.001])[:, None, None] * rng.standard_normal((4, 32, d))
    close = np.clip(places[np.arange(32) % len(places)] + steps, 0, 1).reshape(-1, d)
    return np.vstack([everywhere, close])


def _climb(encoding: Encoding, score: Score, slope: Slope, place: np.ndarray) -> tuple[float, np.ndarray]:
    """Climb the score: real numbers by L-BFGS, all others step by step, in turns."""

    def downhill(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        features[moving] = numbers
        value, upward = slope(features)
        return -value, -upward[moving]

    smooth, moving = encoding.smooth, encoding.smooth_columns
    reached = float(score(encoding.features(place[None]))[0])
    for _ in range(3):
        if len(moving):
            features, place = encoding.features(place[None])[0], place.copy()
            found, loss = descend(downhill, place[smooth], [(0.0, 1.0)] * len(moving), CLIMB_STEPS)
            place[smooth], reached = np.clip(found, 0, 1), -loss
        neighbours = encoding.neighbours(place)
        others = score(encoding.features(neighbours)) if len(neighbours) else np.array([-np.inf])
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
