"""The Gaussian process and the fit of its kernel, against scikit-learn, finite differences and draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from kit.search import surrogate
from kit.search.surrogate import Kernel, Posterior, factor, fit, prior

KERNELS = (
    Kernel((0.3, 0.7, 2.0), 1.7, 1e-2),
    Kernel((0.5, 0.5, 0.5), 0.4, 1e-6),
    Kernel((1e-2, 1.0, 1e2), 3.0, 0.5),
)
D = 3
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def places(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, d))


def values(x: np.ndarray) -> np.ndarray:
    y = np.sin(5 * x[:, 0]) + x[:, 1] ** 2 - x.sum(1) + 0.1 * np.random.default_rng(9).standard_normal(len(x))
    return (y - y.mean()) / y.std()


def scikit(kernel: Kernel) -> Any:
    return ConstantKernel(kernel.amplitude) * Matern(kernel.lengths, nu=2.5)


# -- the kernel --------------------------------------------------------------------------------------------------------


@each_kernel
def test_kernel_is_that_of_scikit_learn(kernel: Kernel) -> None:
    a, b = places(7), places(5, seed=1)
    np.testing.assert_allclose(kernel(a, b), scikit(kernel)(a, b), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(kernel(a, a), scikit(kernel)(a), rtol=1e-10, atol=1e-14)


@each_kernel
def test_the_slope_of_the_kernel_is_that_of_finite_differences(kernel: Kernel) -> None:
    b = places(4)
    x = b[0] + 0.003 * np.array([1.0, -2.0, 5.0])
    numeric = approx_fprime(x, lambda at: kernel(at[None], b)[0], 1e-7)
    np.testing.assert_allclose(kernel.slope(x, b), numeric, atol=1e-4 * abs(numeric).max())
    np.testing.assert_array_equal(kernel.slope(b[0], b)[0], np.zeros(D))  # its top is flat


# -- the posterior -----------------------------------------------------------------------------------------------------


@each_kernel
@pytest.mark.parametrize("n", [1, 25])
def test_posterior_is_that_of_scikit_learn(kernel: Kernel, n: int) -> None:
    """With the noise as its `alpha`, scikit-learn's deviation is that of the function too."""
    x, asked = places(n), places(12, seed=1)
    y = values(places(25))[:n]
    model = GaussianProcessRegressor(scikit(kernel), alpha=kernel.noise, optimizer=None).fit(x, y)
    mean, std = Posterior(kernel, x, y).predict(asked)
    expected_mean, expected_std = model.predict(asked, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-3 * kernel.noise**0.5, atol=1e-4 * kernel.noise**0.5 + 1e-7)
    np.testing.assert_allclose(std, expected_std, rtol=1e-4)


@each_kernel
def test_slopes_are_those_of_finite_differences(kernel: Kernel) -> None:
    x = places(15)
    model = Posterior(kernel, x, values(x))
    for place in places(5, seed=1):
        mean, std, mean_slope, std_slope = model.slopes(place)
        (expected_mean,), (expected_std,) = model.predict(place[None])
        assert mean == pytest.approx(expected_mean, rel=1e-7, abs=1e-9)
        assert std == pytest.approx(expected_std, rel=1e-5)
        steps = 1e-5 * np.eye(D)
        ahead, behind = np.array(model.predict(place + steps)), np.array(model.predict(place - steps))  # [2, d]
        np.testing.assert_allclose([mean_slope, std_slope], (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-4)


def test_samples_go_with_the_posterior() -> None:
    """Their mean and covariance are those of the textbook's formula, within 5 standard errors."""
    kernel, count = Kernel((0.4, 0.6, 1.0), 1.5, 0.05), 20_000
    x, asked = places(6), places(4, seed=1)
    y = values(x)
    inverse = np.linalg.inv(scikit(kernel)(x) + kernel.noise * np.eye(len(x)))
    across = scikit(kernel)(asked, x)
    mean, covariance = across @ inverse @ y, scikit(kernel)(asked) - across @ inverse @ across.T
    model = Posterior(kernel, x, y)
    drawn = model.samples(asked, count)
    np.testing.assert_array_equal(drawn[:3], model.samples(asked, 3, seed=0))
    assert (drawn[:3] != model.samples(asked, 3, seed=1)).all()
    variances = np.diag(covariance)
    assert drawn.shape == (count, 4)
    assert (abs(drawn.mean(0) - mean) < 5 * np.sqrt(variances / count)).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    assert (abs(np.cov(drawn.T) - covariance) < 5 * error).all()


def test_with_nothing_seen_the_prior_is_left() -> None:
    kernel = Kernel((0.3, 0.7), 2.25, 1e-3)
    model = Posterior(kernel, np.zeros((0, 2)), np.zeros(0))
    mean, std = model.predict(places(4, 2))
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_allclose(std, 1.5)
    mean_here, std_here, mean_slope, std_slope = model.slopes(np.array([0.2, 0.9]))
    assert (mean_here, std_here) == (0.0, 1.5)
    np.testing.assert_array_equal([mean_slope, std_slope], np.zeros((2, 2)))
    drawn = model.samples(places(2, 2), 20_000)
    assert abs(drawn.std(0) - 1.5).max() < 5 * 1.5 / math.sqrt(40_000)


def test_without_noise_it_goes_through_the_values() -> None:
    """Also where one place was seen twice, so that K has no inverse."""
    kernel = Kernel((0.3, 0.7, 2.0), 1.0, 0.0)
    x = places(8)
    y = values(x)
    for model in (Posterior(kernel, x, y), Posterior(kernel, np.vstack([x, x[:2]]), np.append(y, y[:2]))):
        mean, std = model.predict(x)
        np.testing.assert_allclose(mean, y, atol=1e-5)
        assert (std < 1e-3).all()
        assert (model.predict(places(8, seed=5))[1] > 10 * std.max()).all()


def test_factor_grows_the_diagonal_until_there_is_one() -> None:
    matrix = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-7]])  # its smaller eigenvalue is -5e-8
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(matrix)
    lower = factor(matrix)
    assert lower[0, 1] == 0
    np.testing.assert_allclose(lower @ lower.T, matrix, atol=1e-5)
    sound = np.array([[2.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(factor(sound), np.linalg.cholesky(sound), rtol=1e-8)


# -- the fit -----------------------------------------------------------------------------------------------------------


def regressor(d: int) -> surrogate._Regressor:
    x = places(12, d)
    kernel = ConstantKernel(1.0) * Matern([1.0] * d, nu=2.5) + WhiteKernel(0.1)
    return surrogate._Regressor(kernel, alpha=1e-10, optimizer=None).fit(x, values(np.pad(x, ((0, 0), (0, 2)))))


def thetas(d: int) -> np.ndarray:
    """Logarithms of (a, l, s2). [5, d + 2]"""
    return np.random.default_rng(2).normal(-0.5, 0.7, (5, d + 2))


@pytest.mark.parametrize("d", [1, 4])
def test_the_gradient_of_the_fit_is_that_of_finite_differences(d: int) -> None:
    model = regressor(d)

    def slope(theta: np.ndarray) -> Any:
        return model.log_marginal_likelihood(theta, eval_gradient=True)[1]

    for theta in thetas(d):
        assert check_grad(model.log_marginal_likelihood, slope, theta) < 1e-4
        value, _ = model.log_marginal_likelihood(theta, eval_gradient=True)
        assert value == pytest.approx(model.log_marginal_likelihood(theta))


@pytest.mark.parametrize("d", [1, 4])
def test_the_fit_climbs_likelihood_times_prior(d: int) -> None:
    """The difference to scikit-learn's likelihood is the logarithm of a normal density, up to a constant."""
    model = regressor(d)
    centre, spread = prior(d)
    assert centre.shape == spread.shape == (d + 2,)
    plain = GaussianProcessRegressor(model.kernel, alpha=1e-10, optimizer=None).fit(model.X_train_, model.y_train_)
    gaps = [
        model.log_marginal_likelihood(theta)
        - plain.log_marginal_likelihood(theta)
        - norm.logpdf(theta, centre, spread).sum()
        for theta in thetas(d)
    ]
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-8)


def test_the_lengths_of_the_prior_grow_with_the_dimension() -> None:
    """As the square root of it, like the diagonal of the cube."""
    (few, _), (many, _) = prior(2), prior(32)
    np.testing.assert_allclose(many[1:-1] - few[1], math.log(4))
    np.testing.assert_array_equal(many[[0, -1]], few[[0, -1]])


def test_the_fit_sees_the_latest_places_alone() -> None:
    x = places(surrogate.MAX_FIT + 50)
    y = values(x)
    found = fit(x, y)
    assert found == fit(x, np.append(np.full(50, 7.0), y[50:])) == fit(x[50:], y[50:])
    assert found != fit(x[:-50], y[:-50])


def test_the_fit_finds_the_kernel_that_the_values_came_from_and_a_dead_input() -> None:
    """The median over seeds is right within a factor: 2 for lengths, 3 for the noise."""
    true = Kernel((0.15, 0.6), 1.0, 0.05)
    found = []
    for seed in range(7):
        x = places(surrogate.MAX_FIT, 2, seed)
        lower = np.linalg.cholesky(true(x, x) + true.noise * np.eye(len(x)))
        found.append(fit(x, lower @ np.random.default_rng(seed).standard_normal(len(x))))
    ratios = np.median([[*each.lengths, each.noise] for each in found], axis=0) / [*true.lengths, true.noise]
    assert (abs(np.log(ratios)) < np.log([2, 2, 3])).all()
    assert all(each.lengths[0] < each.lengths[1] for each in found)
    x = places(40, 2)  # the second input is dead
    y = np.sin(6 * x[:, 0])
    lengths = fit(x, (y - y.mean()) / y.std()).lengths
    assert lengths[1] > 3 * lengths[0]


@pytest.mark.parametrize("n", [1, 2])
def test_few_or_equal_values_can_be_fitted(n: int) -> None:
    kernel = fit(places(n), np.zeros(n))
    assert len(kernel.lengths) == D and np.isfinite([*kernel.lengths, kernel.amplitude, kernel.noise]).all()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        *(((lengths,), "lengths must be above 0; got .*") for lengths in ((0.0, 1.0), (1.0, -1.0), (math.nan,))),
        (((),), "lengths is empty; a kernel needs one for each dimension"),
        ((0.3,), "lengths must be a tuple of numbers; got 0.3"),
        ((("0.3",),), "lengths must be a number; got '0.3'"),
        *((((1.0,), value), f"amplitude must be above 0; got {value!r}") for value in (0.0, -1.0, math.inf)),
        *((((1.0,), 1.0, value), f"noise must be 0 or more; got {value!r}") for value in (-1e-9, math.nan)),
    ],
)
def test_what_makes_no_kernel_is_refused(given: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"{sentence}\."):
        Kernel(*given)


def test_shapes_must_fit_and_values_be_finite() -> None:
    for a, b in (((4, 2), (4,)), ((4, 3), (3,)), ((4, 3), (4, 1)), ((3,), (3,))):
        with pytest.raises(ValueError, match=r"x must be \[n, 3\] and y be \[n\]; got \("):
            Posterior(KERNELS[0], np.zeros(a), np.zeros(b))
    for bad in (np.array([0.0, math.nan]), np.array([0.0, math.inf])):
        for x, y in ((places(2), bad), (places(2) * bad[:, None], np.zeros(2))):
            with pytest.raises(ValueError, match=r"x and y must be finite"):
                Posterior(KERNELS[0], x, y)
