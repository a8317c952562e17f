"""A Gaussian process: a guess, with its uncertainty, of what a trial would give at places that were not tried.

| symbol | meaning | shape |
|---|---|---|
| X | places that were tried, in the unit cube | [n, d] |
| y | their values, standardised: mean 0, standard deviation 1 | [n] |
| l | length scales: how far one must go until the value is another | [d] |
| a | variance of the function | |
| s2 | variance of the noise | |
| K | k(X, X) + s2 I | [n, n] |
| L | lower Cholesky factor of K | [n, n] |
| alpha | K^-1 y | [n] |

mean(x) = k(x, X) alpha;  var(x) = a - |L^-1 k(X, x)|^2          (Rasmussen & Williams 2006, algorithm 2.1)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from kit import checks

ROOT5 = math.sqrt(5.0)
MAX_FIT = 80  # places that the kernel is fitted to, at most
MAX_STEPS = 40  # of L-BFGS in a fit
LENGTHS, AMPLITUDES, NOISES = (1e-2, 1e2), (1e-2, 1e2), (1e-8, 1.0)


@dataclass(frozen=True)
class Kernel:
    """Matern 5/2 with one length scale for each dimension, and noise; an attribute out of range is a ValueError.

    Attributes:
        lengths: l, [d], above 0.
        amplitude: a, above 0.
        noise: s2, 0 or more.
    """

    lengths: tuple[float, ...]
    amplitude: float = 1.0
    noise: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what is no kernel."""
        checks.instance("lengths", self.lengths, tuple, "a tuple of numbers")
        if not self.lengths:
            raise ValueError("lengths is empty; a kernel needs one for each dimension.")
        for name, value in (*(("lengths", each) for each in self.lengths), ("amplitude", self.amplitude)):
            checks.number(name, value, above=0)
        checks.number("noise", self.noise, least=0)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """k between all pairs, without noise. [n, d], [m, d] -> [n, m]."""
        gaps = (a / self.lengths)[:, None] - (b / self.lengths)[None]  # [n, m, d]
        r = ROOT5 * np.sqrt((gaps**2).sum(2))  # [n, m]
        return self.amplitude * (1 + r + r**2 / 3) * np.exp(-r)

    def slope(self, x: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The derivative of k(x, b) by x. [d], [m, d] -> [m, d]."""
        gaps = (x - b) / self.lengths  # [m, d]
        r = ROOT5 * np.sqrt((gaps**2).sum(1))  # [m]
        return (-5 / 3 * self.amplitude * (1 + r) * np.exp(-r))[:, None] * gaps / self.lengths


class Posterior:
    """A Gaussian process that has seen values.

    Args:
        kernel: how values at two places go together.
        x: X, [n, d]; n may be 0.
        y: the values, [n]; the process has mean 0 where it knows nothing.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """

    def __init__(self, kernel: Kernel, x: np.ndarray, y: np.ndarray) -> None:
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if x.ndim != 2 or x.shape[1] != len(kernel.lengths) or y.shape != x.shape[:1]:
            raise ValueError(f"x must be [n, {len(kernel.lengths)}] and y be [n]; got {x.shape} and {y.shape}.")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("x and y must be finite; some are NaN or infinity.")
        self.kernel, self.x, self.y = kernel, x, y
        self._factor = factor(kernel(x, x) + kernel.noise * np.eye(len(x)))  # L
        self._alpha = cho_solve((self._factor, True), y) if len(x) else y

    def predict(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the function (without noise) at places. [m, d] -> [m], [m]."""
        across = self.kernel(places, self.x)  # [m, n]
        shrunk = solve_triangular(self._factor, across.T, lower=True, check_finite=False)  # [n, m]
        variance = self.kernel.amplitude - (shrunk**2).sum(0)
        return across @ self._alpha, np.sqrt(np.maximum(variance, 1e-12 * self.kernel.amplitude))

    def slopes(self, place: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
        """Mean, standard deviation, and the derivative of each, at one place. [d] -> , , [d], [d]."""
        across = self.kernel(place[None], self.x)[0]  # [n]
        slope = self.kernel.slope(place, self.x)  # [n, d]
        solved = cho_solve((self._factor, True), across, check_finite=False)  # K^-1 k
        variance = self.kernel.amplitude - across @ solved
        std = math.sqrt(max(variance, 1e-12 * self.kernel.amplitude))
        return float(across @ self._alpha), std, slope.T @ self._alpha, -(slope.T @ solved) / std

    def samples(self, places: np.ndarray, count: int, seed: int | Sequence[int] = 0) -> np.ndarray:
        """Functions that go with what was seen, at places. [m, d] -> [count, m]."""
        across = self.kernel(self.x, places)  # [n, m]
        shrunk = solve_triangular(self._factor, across, lower=True) if len(self.x) else across
        covariance = self.kernel(places, places) - shrunk.T @ shrunk  # [m, m]
        normal = np.random.default_rng(seed).standard_normal((count, len(places)))
        mean = across.T @ self._alpha
        return mean + normal @ factor(covariance, jitter=1e-8 * self.kernel.amplitude).T


def factor(matrix: np.ndarray, jitter: float = 1e-10) -> np.ndarray:
    """Lower Cholesky factor; the diagonal grows by `jitter`, then tenfold, until there is one."""
    if not len(matrix):
        return matrix
    while True:
        try:
            return cholesky(matrix + jitter * np.eye(len(matrix)), lower=True)
        except np.linalg.LinAlgError:
            jitter *= 10


class _Regressor(GaussianProcessRegressor):
    """scikit-learn's Gaussian process, its kernel fitted by likelihood times prior.

    With few places the likelihood alone likes length scales of 0 or infinity. The prior on each is a log-normal law
    that grows with the square root of the dimension, as in Hvarfner et al. (2024), arXiv:2402.02229 (here with shorter
    scales); the two variances have weak log-normal laws.
    """

    def log_marginal_likelihood(self, theta: Any = None, eval_gradient: bool = False, clone_kernel: bool = True) -> Any:
        """As the base class's, with the logarithm of the prior added."""
        found = super().log_marginal_likelihood(theta, eval_gradient=eval_gradient, clone_kernel=clone_kernel)
        if theta is None:
            return found
        centre, spread = prior(len(theta) - 2)
        z = (theta - centre) / spread
        if eval_gradient:
            return found[0] - 0.5 * z @ z, found[1] - z / spread
        return found - 0.5 * z @ z


def prior(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre and spread of the normal law of (log a, log l, log s2). -> [d + 2], [d + 2]."""
    lengths = math.log(0.25) + 0.5 * math.log(d)
    return np.array([0.0, *[lengths] * d, math.log(1e-4)]), np.array([1.0, *[1.0] * d, 4.0])


def fit(x: np.ndarray, y: np.ndarray) -> Kernel:
    """The kernel that goes best with what was seen.

    Args:
        x: [n, d], in the unit cube; the last `MAX_FIT` rows are used, so that a fit has a longest time.
        y: [n], standardised.
    """
    d = x.shape[1]
    start = np.exp(prior(d)[0])
    kernel = ConstantKernel(start[0], AMPLITUDES) * Matern(start[1:-1], [LENGTHS] * d, nu=2.5)
    model = _Regressor(kernel + WhiteKernel(start[-1], NOISES), alpha=1e-10, optimizer=descend)
    with warnings.catch_warnings():
        # A bound that is reached: the prior keeps the rest in place.
        warnings.filterwarnings("ignore", "The optimal value found for dimension", ConvergenceWarning)
        model.fit(x[-MAX_FIT:], y[-MAX_FIT:])
    found = np.exp(model.kernel_.theta)
    return Kernel(tuple(found[1:-1].tolist()), float(found[0]), float(found[-1]))


def descend(
    objective: Callable[..., Any], start: np.ndarray, bounds: Any, steps: int = MAX_STEPS
) -> tuple[np.ndarray, float]:
    """Where L-BFGS ends, and the value there; `objective` gives its value and slope."""
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    before = float(objective(start)[0])
    # A line search that failed may end anywhere.
    return (found.x, float(found.fun)) if found.fun <= before else (start, before)
