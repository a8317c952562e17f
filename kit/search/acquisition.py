"""Acquisition functions: how much a trial at x is worth, by the model's mean and standard deviation there.

All are written for minimising: `best` is the smallest value so far. mu and sigma are the model's mean and standard
deviation, z = (best - mu) / sigma, phi and Phi the density and the distribution function of the normal law.

| function | value | source |
|---|---|---|
| expected improvement | E[max(best - f, 0)] = sigma (phi(z) + z Phi(z)) | Jones, Schonlau & Welch (1998) |
| its logarithm | log sigma + log(phi(z) + z Phi(z)) | Ament et al. (2023), arXiv:2310.20708 |
| probability of improvement | P(f < best - xi) = Phi((best - xi - mu) / sigma) | Kushner (1964) |
| confidence bound | beta sigma - mu | Srinivas et al. (2010), arXiv:0912.3995 |
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FAR = -1e4  # below it log h is its leading term to double precision


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """How much better than `best` a trial is on average; it underflows to 0 far from all hope.

    Args:
        mean: of the model, any shape.
        std: its standard deviation, above 0, same shape.
        best: the smallest value so far.
    """
    z = (best - mean) / std
    return std * (_density(z) + z * ndtr(z))


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """The logarithm of expected improvement, exact where that underflows, so that it still has a slope there."""
    return np.log(std) + log_h((best - mean) / std)


def log_probability_of_improvement(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.0) -> np.ndarray:
    """The logarithm of the probability to be better than `best` by more than `xi`."""
    return log_ndtr((best - xi - mean) / std)


def confidence_bound(mean: np.ndarray, std: np.ndarray, beta: float = 2.0) -> np.ndarray:
    """The optimist's view: what the value may be, `beta` standard deviations below the mean; larger is better."""
    return beta * std - mean


def log_ei_with_slopes(mean: np.ndarray, std: np.ndarray, best: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log expected improvement, and its derivative by the mean and by the standard deviation."""
    z = (best - mean) / std
    slope = log_h_slope(z)
    return np.log(std) + log_h(z), -slope / std, (1 - slope * z) / std


def log_pi_with_slopes(
    mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log probability of improvement, and its derivative by the mean and by the standard deviation."""
    z = (best - xi - mean) / std
    slope = 1 / _ratio(z)  # of log Phi
    return log_ndtr(z), -slope / std, -slope * z / std


def log_h(z: np.ndarray) -> np.ndarray:
    """The logarithm of h(z) = phi(z) + z Phi(z), without cancellation (Ament et al. 2023, equation 9)."""
    z = np.asarray(z, dtype=float)
    near = np.maximum(z, -1.0)
    plain = np.log(_density(near) + near * ndtr(near))
    # For z < -1: h(z) = phi(z) (1 - |z| Phi(z) / phi(z)); where that is 1 - 1 to double precision, it is 1 / z^2.
    far = np.clip(z, _FAR, -1.0)
    tail = -0.5 * far**2 - _HALF_LOG_2PI + np.log1p(far * _ratio(far))
    limit = -0.5 * z**2 - _HALF_LOG_2PI - 2 * np.log(np.maximum(np.abs(z), 1.0))
    return np.where(z > -1.0, plain, np.where(z > _FAR, tail, limit))


def log_h_slope(z: np.ndarray) -> np.ndarray:
    """The derivative of `log_h`: Phi(z) / h(z), in the same three cases."""
    z = np.asarray(z, dtype=float)
    near = np.maximum(z, -1.0)
    plain = ndtr(near) / (_density(near) + near * ndtr(near))
    far = np.clip(z, _FAR, -1.0)
    tail = _ratio(far) / (1 + far * _ratio(far))
    limit = np.maximum(-z, 1.0)
    return np.where(z > -1.0, plain, np.where(z > _FAR, tail, limit + 2 / limit))


def _ratio(z: np.ndarray) -> np.ndarray:
    """Phi(z) / phi(z), which neither underflows nor cancels."""
    return math.sqrt(math.pi / 2) * erfcx(-z / math.sqrt(2))


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z**2 - _HALF_LOG_2PI)
