"""Checks of the notebook on Bayesian optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from kit.exercises.verdict import Wrong, answered, checked, compare, two
from kit.measure import Estimate
from kit.search import functions
from kit.search.acquisition import expected_improvement, log_expected_improvement
from kit.search.surrogate import Kernel, Posterior

OPEN_TRIALS, OPEN_SEEDS = 30, 8  # of the open task: in each search; on each function
LEAST_REGRET = 1e-6  # smaller ones count as this: nobody needs them


@checked
def one_point_posterior(answer: Callable[[float, float, float], Any]) -> str:
    """The posterior of a Gaussian process that has seen one value.

    Args:
        answer: takes the value y, the correlation k between the seen place and the new one (0 .. 1), and the noise
            variance s2; the process has mean 0 and variance 1. Returns mean and variance at the new place:
            k y / (1 + s2) and 1 - k^2 / (1 + s2).
    """
    for y, k, s2 in ((2.0, 0.5, 0.0), (-1.0, 0.8, 0.5), (3.0, 1.0, 0.0), (1.0, 0.0, 0.1)):
        mean, variance = two(answer(y, k, s2), "Return two numbers: the mean and the variance.")
        case = f"For y = {y:g}, k = {k:g} and s2 = {s2:g}"
        want, mistakes = k * y / (1 + s2), [(k * y, "the noise is missing: K is 1 + s2 here.")]
        compare(mean, want, case, mistakes, f"the mean is {want:.4g}; got {mean:.4g}.")
        want = 1 - k**2 / (1 + s2)
        mistakes = [
            (1 - k**2, "the noise is missing from the variance: K is 1 + s2 here."),
            (want + s2, "this is the variance of a new reading; that of f has no noise of its own."),
            (1 - k / (1 + s2), "the correlation comes twice: once from each side of K^-1."),
            (want**0.5, "this is the standard deviation; the variance is asked for."),
        ]
        compare(variance, want, case, mistakes, f"the variance is {want:.4g}; got {variance:.4g}.")
    return "Where k = 0 nothing was learned; where k = 1 and there is no noise, everything."


@checked
def posterior_of_means(answer: Callable[..., Any]) -> str:
    """The posterior of a Gaussian process whose values are means over several networks.

    Args:
        answer: takes K_0 [n, n] and k [n, m], the kernel between the places tried, and between these and the new ones;
            y [n]; `counts` [n], how many networks each of y is the mean of; and s2, the noise variance of one network.
            The kernel is 1 at distance 0. Returns mean [m] and variance [m] of f at the new places.
    """
    rng = np.random.default_rng(0)
    x, places, y = rng.random((5, 1)), rng.random((7, 1)), rng.standard_normal(5)
    kernel, counts, s2 = Kernel((0.3,)), np.array([1, 4, 1, 9, 2]), 0.3
    plain, across = kernel(x, x), kernel(x, places)  # [5, 5], [5, 7]

    def believed(noise: Any) -> tuple[np.ndarray, np.ndarray]:
        solved = cho_solve(cho_factor(plain + np.diag(np.broadcast_to(noise, 5))), across)  # [5, 7]
        return solved.T @ y, 1 - (across * solved).sum(0)

    found = answered(answer(plain.copy(), across.copy(), y.copy(), counts.copy(), s2))
    try:
        mean, var = (np.asarray(each, dtype=float).reshape(7) for each in found)
    except (TypeError, ValueError):
        raise Wrong("Return the mean [m] and the variance [m], here 7 numbers each.") from None
    noises = [
        (s2, "every trial has the noise of one network here; the mean of c networks has less."),
        (0.0, "there is no noise in it: K is K_0 with the noise variances on its diagonal."),
        (s2 * counts, "a mean of many networks is noisier here than one network: it should be the other way round."),
        (s2 / np.sqrt(counts), "the standard deviation of a mean falls with the root of c; its variance falls with c."),
        (s2 / counts**2, "the variance falls with c squared here; that of a mean of c networks falls with c."),
        (s2 / counts.sum(), "all trials share one noise here; each has its own, by its own count."),
    ]
    wanted, want_var = believed(s2 / counts)
    if not np.allclose(mean, wanted):
        fitting = (words for noise, words in noises if np.allclose(mean, believed(noise)[0]))
        raise Wrong(f"The mean: {next(fitting, 'it is k^T K^-1 y, with its own noise on the diagonal of K for each.')}")
    mistakes = [
        (want_var**0.5, "this is the standard deviation; the variance is asked for."),
        (want_var + s2, "this is the variance of a new reading; that of f has no noise of its own."),
        (1 - want_var, "this is what the trials took off: subtract it from k(x, x) = 1."),
        (believed(s2)[1], "the mean knows the counts, the variance does not: take the same K for both."),
    ]
    if not np.allclose(var, want_var):
        fitting = (words for values, words in mistakes if np.allclose(var, values))
        raise Wrong(f"The variance: {next(fitting, 'it is k(x, x) - k^T K^-1 k, and k(x, x) = 1.')}")
    return "Nine networks at one place weigh more than one; no place needs as many as another."


@checked
def noisy_loop(answer: Callable[..., Any]) -> str:
    """The loop of Bayesian optimisation, on noisy accuracies at 40 cells.

    Args:
        answer: takes `objective`, a cell's number in and one noisy reading out; `tried`, the cells to begin with;
            `trials`, how many there are to be with these; `believe`, which takes the cells and their readings, and
            gives mean and standard deviation of the model at all cells, [40] each. Returns all cells in their order.
            Each new one has the largest expected improvement over the best *mean* among those tried, and is a new cell.
    """
    line = np.linspace(0, 1, 40)[:, None]
    for seed in range(3):
        hill, rng = np.exp(-(((line[:, 0] - 0.3 - 0.2 * seed) / 0.2) ** 2)), np.random.default_rng(seed)
        read: list[tuple[int, float]] = []

        def objective(cell: int, hill: Any = hill, read: Any = read, rng: Any = rng) -> float:
            read.append((int(cell), float(hill[int(cell)] + 0.3 * rng.standard_normal())))
            return read[-1][1]

        def believe(cells: Any, readings: Any) -> tuple[np.ndarray, np.ndarray]:
            y = np.asarray(readings, dtype=float)
            mean, std = Posterior(Kernel((0.2,), noise=0.5), line[np.asarray(cells, dtype=int)], y - y.mean()).predict(
                line
            )
            return y.mean() + mean, std

        first = [3, 36, 20]
        got = [int(cell) for cell in answered(answer(objective, list(first), 12, believe))]
        if got[:3] != first or len(got) != 12:
            raise Wrong(f"Return all 12 cells, the first three being {first}; got {got}.")
        if [cell for cell, _ in read] != got:
            raise Wrong("Read each cell once, in the order in which you return them.")
        for at in range(3, 12):
            _check_choice(got[at], got[:at], np.array([value for _, value in read[:at]]), believe, f"Trial {at + 1}")
    return "A lucky reading does not fool it: the best mean is what the next trial has to beat."


def _check_choice(cell: int, tried: list[int], readings: np.ndarray, believe: Any, which: str) -> None:
    mean, std = believe(tried, readings)
    best, free = max(mean[tried]), np.setdiff1d(np.arange(len(mean)), tried)
    gained = expected_improvement(-mean, std, -best)
    if cell in tried:
        raise Wrong(f"{which} is cell {cell}, which was tried before: choose among the others.")
    if gained[cell] >= 0.999 * gained[free].max():
        return
    mistakes = [
        (expected_improvement(-mean, std, -readings.max()), "f* is the best reading there, which may be luck."),
        ((mean - best) / std, "the probability of improvement decides there: it does not count how large one is."),
        (mean, "the mean alone decides there: that only exploits."),
        (std, "the standard deviation alone decides there: that only explores."),
        (expected_improvement(mean, std, min(mean[tried])), "it looks for a low accuracy; more is better."),
        (-gained, "it takes the smallest expected improvement of all."),
    ]
    fitting = [words for score, words in mistakes if score[cell] >= score[free].max() - 1e-12]
    otherwise = "another cell has a larger expected improvement over the best mean among those tried."
    raise Wrong(f"{which} is cell {cell}, but {' Or '.join(fitting) or otherwise}")  # one cell may fit two mistakes


@checked
def beat_the_loop(search: Callable[..., Any]) -> str:
    """The open task: a search of your own against the loop of section 5, on three functions, 8 times each.

    Right is a search that leaves less regret: the whole 95 % interval of the mean of log10(yours / theirs) is below 0.

    Args:
        search: takes `objective`, a place [d] of the unit cube in and a number out, less is better; d; the number of
            trials it may make; and a NumPy generator. What it returns is not looked at, what it tried is.
    """
    theirs, yours = [], []
    for function in (functions.branin(), functions.hartmann(3), functions.levy(2)):
        for seed in range(OPEN_SEEDS):
            yours.append(_log_regret(search, function, seed))
            theirs.append(_log_regret(_loop, function, seed))
    found = Estimate.from_pairs(yours, theirs)
    value, low, high = (f"{10**each:.2g}" for each in (found.value, found.low, found.high))
    score = (
        f"Your regret is {value} times that of section 5's loop (95 % interval {low} to {high}, {found.n} searches)."
    )
    if found.high >= 0:
        raise Wrong(f"{score} It counts as beaten when the whole interval is below 1.")
    return f"{score} The whole interval is below 1: beaten."


def _log_regret(search: Callable[..., Any], function: functions.Function, seed: int) -> float:
    """log10 of how far the best of a search's trials lies above the minimum."""
    d, regrets = len(function.space), list[float]()

    def objective(place: Any) -> float:
        place = np.asarray(place, dtype=float)
        if place.shape != (d,) or not ((place >= 0) & (place <= 1)).all():
            raise Wrong(f"A place must be {d} numbers between 0 and 1; got {place.tolist()}.")
        if len(regrets) == OPEN_TRIALS:
            raise Wrong(f"There are {OPEN_TRIALS} trials; your search asked for one more.")
        config = function.space.decode(place)
        regrets.append(function.regret(config))
        return function(config)

    returned = search(objective, d, OPEN_TRIALS, np.random.default_rng(seed))
    if not regrets:
        answered(None if returned is ... else returned)
        raise Wrong("Your search tried nothing: call objective(place).")
    return math.log10(max(min(regrets), LEAST_REGRET))


def _loop(objective: Callable[[np.ndarray], float], d: int, trials: int, rng: np.random.Generator) -> None:
    """The rival: section 5's loop, its length scale guessed."""
    x = rng.random((5, d))
    y = np.array([objective(place) for place in x])
    while len(y) < trials:
        places, scaled = rng.random((500, d)), (y - y.mean()) / y.std()
        mean, std = Posterior(Kernel((0.3,) * d), x, scaled).predict(places)
        x = np.vstack([x, places[log_expected_improvement(mean, std, scaled.min()).argmax()]])
        y = np.append(y, objective(x[-1]))
