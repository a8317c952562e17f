"""Checks of the notebook on Bayesian optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm

from kit.exercises.verdict import Verdict, Wrong, answered, verdict


def one_point_posterior(answer: Callable[[float, float, float], Any]) -> Verdict:
    """The posterior of a Gaussian process that has seen one value.

    Args:
        answer: takes the value y, the correlation k between the seen place and the new one (0 .. 1), and the noise
            variance s2; the process has mean 0 and variance 1. Returns mean and variance at the new place:
            k y / (1 + s2) and 1 - k^2 / (1 + s2).
    """

    def check() -> str:
        for y, k, s2 in ((2.0, 0.5, 0.0), (-1.0, 0.8, 0.5), (3.0, 1.0, 0.0), (1.0, 0.0, 0.1)):
            found = answered(answer(y, k, s2))
            try:
                mean, variance = (float(np.squeeze(each)) for each in found)
            except (TypeError, ValueError):
                raise Wrong("Return two numbers: the mean and the variance.") from None
            case = f"For y = {y:g}, k = {k:g} and s2 = {s2:g}"
            want, want_variance = k * y / (1 + s2), 1 - k**2 / (1 + s2)
            if not math.isclose(mean, want, rel_tol=1e-6, abs_tol=1e-9):
                if math.isclose(mean, k * y, rel_tol=1e-6):
                    raise Wrong(f"{case} the noise is missing: K is 1 + s2 here.")
                raise Wrong(f"{case} the mean is {want:.4g}; got {mean:.4g}.")
            if not math.isclose(variance, want_variance, rel_tol=1e-6, abs_tol=1e-9):
                if math.isclose(variance, 1 - k**2, rel_tol=1e-6, abs_tol=1e-9):
                    raise Wrong(f"{case} the noise is missing from the variance: K is 1 + s2 here.")
                if math.isclose(variance, want_variance + s2, rel_tol=1e-6, abs_tol=1e-9):
                    raise Wrong(f"{case} this is the variance of a new reading; that of f has no noise of its own.")
                if math.isclose(variance, 1 - k / (1 + s2), rel_tol=1e-6, abs_tol=1e-9):
                    raise Wrong(f"{case} the correlation comes twice: once from each side of K^-1.")
                if math.isclose(variance**2, want_variance, rel_tol=1e-6, abs_tol=1e-9):
                    raise Wrong(f"{case} this is the standard deviation; the variance is asked for.")
                raise Wrong(f"{case} the variance is {want_variance:.4g}; got {variance:.4g}.")
        return "Where k = 0 nothing was learned; where k = 1 and there is no noise, everything."

    return verdict(check)


def improvement(answer: Callable[[float, float, float], float]) -> Verdict:
    """Expected improvement, for an accuracy that is to be large.

    Args:
        answer: takes mean, standard deviation and the best value so far; returns E[max(f - best, 0)].
    """

    def check() -> str:
        for mean, std, best in ((0.0, 1.0, 0.0), (0.9, 0.05, 0.95), (0.97, 0.01, 0.95), (0.5, 0.2, 0.9)):
            z = (mean - best) / std
            want = std * (norm.pdf(z) + z * norm.cdf(z))
            got = float(answered(answer(mean, std, best)))
            if math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-12):
                continue
            case = f"For mean {mean:g}, standard deviation {std:g} and best {best:g}"
            for value, reason in (
                (std * (norm.pdf(z) - z * norm.cdf(-z)), "the sign is that for minimising; here more is better."),
                (-want, "the sign: an improvement is never below 0."),
                (norm.pdf(z) + z * norm.cdf(z), "the factor sigma is missing."),
                (norm.cdf(z), "this is the probability of an improvement, not its expected size."),
                (max(mean - best, 0.0), "this forgets the uncertainty: it is the improvement of the mean."),
            ):
                if math.isclose(got, value, rel_tol=1e-4, abs_tol=1e-12):
                    raise Wrong(f"{case} {reason}")
            raise Wrong(f"{case} it is {want:.4g}; got {got:.4g}.")
        return "It is above 0 even where the mean is below the best: there is always some hope."

    return verdict(check)


def next_place(answer: Callable[[list[float], list[float], float], int]) -> Verdict:
    """Where does the confidence bound look next?

    Args:
        answer: takes the means and the standard deviations at some places, and beta; returns the number (from 0) of the
            place with the largest mean + beta std: accuracies are to be large.
    """

    def check() -> str:
        means, stds = [0.90, 0.94, 0.80, 0.93], [0.06, 0.00, 0.25, 0.02]
        for beta in (0.0, 0.1, 0.2, 0.3, 0.6, 0.75, 1.0, 2.0):
            bounds = [mean + beta * std for mean, std in zip(means, stds, strict=True)]
            want = bounds.index(max(bounds))
            got = int(answered(answer(list(means), list(stds), beta)))
            if got == want:
                continue
            case = f"For means {means}, standard deviations {stds} and beta = {beta:g}"
            lower = [mean - beta * std for mean, std in zip(means, stds, strict=True)]
            if got == means.index(max(means)):
                raise Wrong(f"{case} you look at the mean alone, or take uncertainty off: an optimist adds beta std.")
            if got == stds.index(max(stds)) and got != lower.index(min(lower)):
                raise Wrong(f"{case} you look at the uncertainty alone: the mean counts too.")
            if got == lower.index(min(lower)):
                raise Wrong(f"{case} this is the lowest of all cautious bounds; the highest optimistic one is asked.")
            raise Wrong(f"{case} it is place {want}; got {got}.")
        return "beta = 0 only exploits; a large beta only explores."

    return verdict(check)
