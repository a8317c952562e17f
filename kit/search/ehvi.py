"""Expected hypervolume improvement: how much larger a trial would make the area that the front dominates.

One Gaussian process for each of two objectives, which know nothing of each other. With f1 ascending along the front,
and r the corner where the area ends,

| symbol | meaning | shape |
|---|---|---|
| u_i | right end of strip i: f1 of front member i + 1, at last r1 | [k + 1] |
| h_i | top of strip i: at first r2, then f2 of front member i | [k + 1] |
| psi(c) | E[max(c - f, 0)] = sigma (phi(z) + z Phi(z)), z = (c - mu) / sigma | |

    EHVI = sum_i (psi_1(u_i) - psi_1(u_{i-1})) psi_2(h_i),   psi_1(u_{-1}) = 0

since a point (a, b) adds to strip i the product of two lengths: max(u_i - a, 0) - max(u_{i-1} - a, 0), and
max(h_i - b, 0). (Emmerich, Deutz & Klinkenberg 2011; in this form Yang, Emmerich, Deutz & Bäck 2019.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kit import cores
from kit.search.acquisition import log_ei_with_slopes
from kit.search.bayes import BIG, MAX_SEEN, Bayes
from kit.search.pareto import Goals, front
from kit.search.places import Encoding, best_places, proposed
from kit.search.space import Space
from kit.search.surrogate import Posterior
from kit.search.trials import Proposal, Trial

BEYOND = 1.0  # of the front's range: how far the corner lies beyond it, at most, where there is no limit


@dataclass(frozen=True)
class EHVI:
    """Bayesian optimisation of two objectives by expected hypervolume improvement.

    The front is that of the processes' means at what was tried: a single value may be luck. A limit is the corner of
    its objective, so nothing beyond it promises anything; without one it lies as far beyond the front as the front is
    wide, but not beyond the worst value so far, and a tenth of that width at least (a tenth alone, as is usual, hides
    the ends of a front that is still short). Trials under way count as if they had given their means (Kriging believer;
    Ginsbourger et al. 2010), so a batch spreads out.

    Attributes:
        start: quasi-random trials before the model is asked, 1 or more; None takes 2 (d + 1), at most 8.
        seed: of the first trials and of the candidates.

    A failed trial counts as the worst in both objectives. An attribute out of range is a ValueError, one that is no
    number a TypeError.
    """

    start: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        Bayes(start=self.start, seed=self.seed)

    @cores.one_thread()
    def propose(self, space: Space, trials: Sequence[Trial], *, goals: Goals) -> Proposal | None:
        """As in `trials.ParetoMethod`; a ValueError for another number of objectives than two."""
        _check_two(goals)
        return proposed(space, trials, self.start, self.seed, lambda: self.model(space, trials, goals).best_places())

    @cores.one_thread()
    def model(self, space: Space, trials: Sequence[Trial], goals: Goals) -> TwoModels:
        """What the trials, one of them done, say of all other places; a ValueError unless there are two objectives."""
        _check_two(goals)
        losses, told = goals.losses(trials), [trial for trial in trials if trial.told]  # [n, 2]
        encoding = Encoding(space)
        done = np.isfinite(losses).all(1)
        asked = [trial for trial in trials if not trial.told][-MAX_SEEN // 2 :]
        seen = encoding.tried([trial for trial, fine in zip(trials, done, strict=True) if fine] + asked)
        least, most = (goals.corner(losses, beyond=beyond) for beyond in (0.1, BEYOND))
        posteriors, corner = [], np.clip(np.clip(losses[done].max(0), least, most), -BIG, BIG)
        for at in range(2):
            values = {trial.number: value for trial, value in zip(trials, losses[:, at].tolist(), strict=True)}
            alone = [replace(t, value=values[t.number] if t.status == "done" else None) for t in told]
            model = Bayes(seed=self.seed).model(space, alone, maximise=False)
            posterior = model.posterior
            if asked:
                guessed = posterior.predict(encoding.tried(asked))[0]
                x, y = np.vstack([posterior.x, encoding.tried(asked)]), np.concatenate([posterior.y, guessed])
                posterior = Posterior(posterior.kernel, x, y)
            posteriors.append(posterior)
            corner[at] = (corner[at] - model.centre) / model.spread
        means = np.column_stack([posterior.predict(seen)[0] for posterior in posteriors])  # [k, 2]
        best = front(means)
        inside = best & (means < corner).all(1)
        near = seen[inside] if inside.any() else seen[best]
        return TwoModels(encoding, (posteriors[0], posteriors[1]), means[inside], corner, near, self.seed, len(trials))


@dataclass(frozen=True, eq=False)
class TwoModels:
    """Two processes that have seen the trials of a search, and say where to try next; less is better in both.

    Attributes:
        encoding: of places in the unit cube.
        posteriors: of the standardised losses.
        front: means of the processes at the trials that are not dominated, inside the corner, [k, 2].
        corner: where the area ends, [2].
        near: features of the places of the front, [k, n_features]; of what is nearest to it where it is empty.
        seed: of the candidates.
        number: trials so far.
    """

    encoding: Encoding
    posteriors: tuple[Posterior, Posterior]
    front: np.ndarray
    corner: np.ndarray
    near: np.ndarray
    seed: int
    number: int

    @cores.one_thread()
    def scores(self, places: np.ndarray) -> np.ndarray:
        """Logarithm of expected hypervolume improvement, in standardised losses. [m, d] -> [m]."""
        return self._score(self.encoding.features(self.encoding.snap(places)))

    @cores.one_thread()
    def best_places(self) -> list[np.ndarray]:
        """Places in the unit cube, the most promising first, [d] each."""
        return best_places(self.encoding, self._score, self._slope, self.near, self.seed, self.number)

    def _score(self, features: np.ndarray) -> np.ndarray:
        means, stds = np.stack([posterior.predict(features) for posterior in self.posteriors], axis=2)
        return log_ehvi(means, stds, self.front, self.corner)[0]

    def _slope(self, features: np.ndarray) -> tuple[float, np.ndarray]:
        mean, std, mean_slope, std_slope = zip(*(each.slopes(features) for each in self.posteriors), strict=True)
        value, by_mean, by_std = log_ehvi(np.array([mean]), np.array([std]), self.front, self.corner)
        return float(value[0]), by_mean[0] @ np.array(mean_slope) + by_std[0] @ np.array(std_slope)


def log_ehvi(
    means: np.ndarray, stds: np.ndarray, front: np.ndarray, corner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logarithm of expected hypervolume improvement, with its slopes; less is better.

    In logarithms it is exact where the improvement itself underflows, so that it still has a slope there.

    Args:
        means: of the processes, [m, 2].
        stds: their standard deviations, above 0, [m, 2].
        front: points of which none dominates another, inside the corner, [k, 2]; k may be 0.
        corner: where the area ends, [2].

    Returns:
        The logarithm [m], and its derivatives by means and by stds, [m, 2] each.
    """
    front = front[np.argsort(front[:, 0], kind="stable")]
    ends, tops = np.append(front[:, 0], corner[0]), np.append(corner[1], front[:, 1])  # u, h: [k + 1]
    right, right_mean, right_std = log_ei_with_slopes(means[:, :1], stds[:, :1], ends)  # log psi_1(u): [m, k + 1]
    height, height_mean, height_std = log_ei_with_slopes(means[:, 1:], stds[:, 1:], tops)
    gone = np.zeros_like(right)  # psi_1(u_{i-1}) / psi_1(u_i)
    gone[:, 1:] = np.minimum(np.exp(right[:, :-1] - right[:, 1:]), 1 - 1e-15)
    strips = right + np.log1p(-gone) + height
    highest = strips.max(1, keepdims=True)
    share = np.exp(strips - highest)
    total = share.sum(1, keepdims=True)
    share /= total

    def of_width(slope: np.ndarray) -> np.ndarray:
        width = slope.copy()
        width[:, 1:] -= gone[:, 1:] * slope[:, :-1]
        return width / (1 - gone)

    by_mean = [(share * of_width(right_mean)).sum(1), (share * height_mean).sum(1)]
    by_std = [(share * of_width(right_std)).sum(1), (share * height_std).sum(1)]
    value = (highest + np.log(total))[:, 0]
    return value, np.stack(by_mean, axis=1), np.stack(by_std, axis=1)


def _check_two(goals: Goals) -> None:
    if len(goals.names) != 2:
        raise ValueError(f"goals must be two for EHVI; got {', '.join(goals.names)}: ParEGO and NSGA2 take any number.")
