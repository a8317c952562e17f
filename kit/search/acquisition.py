"""Acquisition functions: what a trial at x promises, by the model's mean and standard deviation there.

All are written for minimising: `best` is the smallest value so far. mu and sigma are the model's mean and standard
deviation, z = (best - xi - mu) / sigma, phi and Phi the density and the distribution function of the normal law.

| name | function | value | source |
|---|---|---|---|
| `ei` | expected improvement | E[max(best - xi - f, 0)] = sigma (phi(z) + z Phi(z)) | Jones et al. (1998) |
| | its logarithm | log sigma + log(phi(z) + z Phi(z)) | Ament et al. (2023), arXiv:2310.20708 |
| `pi` | probability of improvement | P(f < best - xi) = Phi(z) | Kushner (1964) |
| `ucb` | confidence bound | beta sigma - mu | Srinivas et al. (2010), arXiv:0912.3995 |
| `thompson` | Thompson sampling | -f, of one function f drawn from the model | Thompson (1933) |

xi is the improvement that is asked for, in the units of f: in standard deviations of the values, as the kit
standardises them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

Acquisition = Literal["ei", "pi", "ucb", "thompson"]
# Mean and standard deviation in; the value, and its derivative by each, out.
AcquisitionFunction = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any, Any]]


class Kind(NamedTuple):
    """What an acquisition function is called, and how it is told to explore.

    Attributes:
        label: its name in words.
        parameter: the parameter that makes it explore; empty where there is none.
        default: of that parameter.
    """

    label: str
    parameter: str
    default: float


ACQUISITIONS: dict[Acquisition, Kind] = {
    "ei": Kind("expected improvement", "xi", 0.0),
    "pi": Kind("probability of improvement", "xi", 0.01),
    "ucb": Kind("confidence bound", "beta", 2.0),
    "thompson": Kind("Thompson sampling", "", 0.0),
}

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FAR = -1e4  # below it log h is its leading term to double precision


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.0) -> np.ndarray:
    """How much better than `best - xi` a trial is on average; it underflows to 0 far from all hope.

    Args:
        mean: of the model, any shape.
        std: its standard deviation, above 0, same shape.
        best: the smallest value so far.
        xi: improvement that is asked for.
    """
    z = (best - xi - mean) / std
    return std * (_density(z) + z * ndtr(z))


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.0) -> np.ndarray:
    """The logarithm of expected improvement, exact where that underflows, so that it still has a slope there."""
    return log_ei_with_slopes(mean, std, best, xi)[0]


def function(name: Acquisition, best: float, exploration: float) -> AcquisitionFunction:
    """The acquisition function with its slopes: in its logarithm for `ei` and `pi`; of all, larger is better.

    Args:
        name: any but `thompson`, which is no function of mean and standard deviation.
        best: the smallest value so far.
        exploration: xi or beta.
    """
    if name == "ucb":
        return lambda mean, std: (exploration * std - mean, -1.0, exploration)
    with_slopes = log_pi_with_slopes if name == "pi" else log_ei_with_slopes
    return lambda mean, std: with_slopes(mean, std, best, exploration)


def log_ei_with_slopes(
    mean: np.ndarray, std: np.ndarray, best: float | np.ndarray, xi: float = 0.0
) -> tuple[np.ndarray, Any, Any]:
    """Log expected improvement, and its derivative by the mean and by the standard deviation; `best` may be many."""
    z = (best - xi - mean) / std
    value, slope = log_h(z)
    return np.log(std) + value, -slope / std, (1 - slope * z) / std


def log_pi_with_slopes(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.0) -> tuple[np.ndarray, Any, Any]:
    """Log probability of improvement, and its derivative by the mean and by the standard deviation."""
    z = (best - xi - mean) / std
    slope = 1 / _ratio(z)  # of log Phi
    return log_ndtr(z), -slope / std, -slope * z / std


def log_h(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log h, and its derivative Phi / h; h(z) = phi(z) + z Phi(z), without cancellation (Ament et al. 2023, eq. 9)."""
    near, far, size = np.maximum(z, -1.0), np.clip(z, _FAR, -1.0), np.maximum(-z, 1.0)
    plain = _density(near) + near * ndtr(near)
    # For z < -1: h(z) = phi(z) (1 - |z| Phi(z) / phi(z)); where that is 1 - 1 to double precision, it is 1 / z^2.
    ratio = _ratio(far)
    tail = -0.5 * far**2 - _HALF_LOG_2PI + np.log1p(far * ratio)
    limit = -0.5 * z**2 - _HALF_LOG_2PI - 2 * np.log(size)
    value = np.where(z > -1.0, np.log(plain), np.where(z > _FAR, tail, limit))
    slope = np.where(z > _FAR, ratio / (1 + far * ratio), size + 2 / size)
    return value, np.where(z > -1.0, ndtr(near) / plain, slope)


def _ratio(z: np.ndarray) -> np.ndarray:
    """Phi(z) / phi(z), which neither underflows nor cancels."""
    return math.sqrt(math.pi / 2) * erfcx(-z / math.sqrt(2))


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z**2 - _HALF_LOG_2PI)
