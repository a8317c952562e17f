"""Checks of the notebook on Bayesian optimisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm

from kit.exercises.verdict import answered, checked, compare, two


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
def improvement(answer: Callable[[float, float, float], float]) -> str:
    """Expected improvement, for an accuracy that is to be large.

    Args:
        answer: takes mean, standard deviation and the best value so far; returns E[max(f - best, 0)].
    """
    for mean, std, best in ((0.0, 1.0, 0.0), (0.9, 0.05, 0.95), (0.97, 0.01, 0.95), (0.5, 0.2, 0.9)):
        z = (mean - best) / std
        want = std * (norm.pdf(z) + z * norm.cdf(z))
        got = float(answered(answer(mean, std, best)))
        case = f"For mean {mean:g}, standard deviation {std:g} and best {best:g}"
        mistakes = [
            (std * (norm.pdf(z) - z * norm.cdf(-z)), "the sign is that for minimising; here more is better."),
            (-want, "the sign: an improvement is never below 0."),
            (norm.pdf(z) + z * norm.cdf(z), "the factor sigma is missing."),
            (norm.cdf(z), "this is the probability of an improvement, not its expected size."),
            (max(mean - best, 0.0), "this forgets the uncertainty: it is the improvement of the mean."),
        ]
        compare(got, want, case, mistakes, f"it is {want:.4g}; got {got:.4g}.", rel=1e-4, near=1e-12)
    return "It is above 0 even where the mean is below the best: there is always some hope."


@checked
def next_place(answer: Callable[[list[float], list[float], float], int]) -> str:
    """Where does the confidence bound look next?

    Args:
        answer: takes the means and the standard deviations at some places, and beta; returns the number (from 0) of the
            place with the largest mean + beta std: accuracies are to be large.
    """
    means, stds = np.array([0.90, 0.94, 0.80, 0.93]), np.array([0.06, 0.00, 0.25, 0.02])
    for beta in (0.0, 0.1, 0.2, 0.3, 0.6, 0.75, 1.0, 2.0):
        want = int(np.argmax(means + beta * stds))
        got = int(answered(answer(means.tolist(), stds.tolist(), beta)))
        case = f"For means {means.tolist()}, standard deviations {stds.tolist()} and beta = {beta:g}"
        lowest = "this is the lowest of all cautious bounds; the highest optimistic one is asked."
        mistakes = [
            (int(np.argmax(means)), "you look at the mean alone, or take uncertainty off: an optimist adds beta std."),
            (int(np.argmin(means - beta * stds)), lowest),
            (int(np.argmax(stds)), "you look at the uncertainty alone: the mean counts too."),
        ]
        compare(got, want, case, mistakes, f"it is place {want}; got {got}.")
    return "beta = 0 only exploits; a large beta only explores."
