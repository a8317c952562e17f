"""Acquisition functions, against integrals, chance, many digits (mpmath) and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from kit.search import acquisition as acquisitions

CASES = ((0.0, 1.0, 0.0), (1.0, 0.5, 0.2), (-3.0, 2.0, -1.0), (2.0, 1.5, 5.0), (4.0, 1.0, 0.0))  # mean, std, best
DEEP = (5.0, 1.0, 0.0, -0.5, -0.999, -1.0, -1.001, -3.0, -10.0, -37.0, -100.0, -1e3, -9e3, -1.1e4, -1e5, -1e6, -1e8)

Slopes = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]  # mean, std


def array(*values: float) -> np.ndarray:
    return np.array(values)


def log_h_in_many_digits(z: float) -> tuple[float, float]:
    """log(phi(z) + z Phi(z)), and its derivative Phi(z) / h(z), in 80 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(80):
        z = mpmath.mpf(z)
        below = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
        h = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi) + z * below
        return float(mpmath.log(h)), float(below / h)


# -- expected improvement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std", "best"), CASES)
def test_expected_improvement_is_the_integral(mean: float, std: float, best: float) -> None:
    """E[max(best - f, 0)], f normal."""
    low = min(mean, best) - 12 * std
    integral, _ = quad(lambda f: (best - f) * norm.pdf(f, mean, std), low, best, epsabs=1e-13, epsrel=1e-11, limit=200)
    found = acquisitions.expected_improvement(array(mean), array(std), best)
    assert found[0] == pytest.approx(integral, rel=1e-8)
    assert acquisitions.log_expected_improvement(array(mean), array(std), best)[0] == pytest.approx(math.log(integral))


@pytest.mark.parametrize(("mean", "std", "best"), CASES[:-1])
def test_expected_improvement_is_the_mean_of_draws(mean: float, std: float, best: float) -> None:
    """Within 4 standard errors."""
    gains = np.maximum(best - np.random.default_rng(0).normal(mean, std, 200_000), 0)
    found = acquisitions.expected_improvement(array(mean), array(std), best)[0]
    assert abs(found - gains.mean()) < 4 * gains.std() / math.sqrt(len(gains))


def test_log_expected_improvement_is_the_logarithm() -> None:
    mean, std = np.meshgrid(np.linspace(-3, 8, 40), np.linspace(0.3, 4, 20))
    found = acquisitions.log_expected_improvement(mean, std, 1.0)
    assert found.shape == mean.shape
    np.testing.assert_allclose(found, np.log(acquisitions.expected_improvement(mean, std, 1.0)), rtol=1e-9)


def test_the_logarithm_stays_where_the_value_underflows() -> None:
    """It is finite, and falls with the mean, where expected improvement is 0 everywhere."""
    mean = np.geomspace(50, 1e8, 200)
    assert not acquisitions.expected_improvement(mean, np.ones(200), 0.0).any()
    found = acquisitions.log_expected_improvement(mean, np.ones(200), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize("z", DEEP)
def test_log_h_in_many_digits(z: float) -> None:
    value, slope = log_h_in_many_digits(z)
    assert acquisitions.log_h(array(z))[0] == pytest.approx(value, rel=1e-13)
    assert acquisitions.log_h_slope(array(z))[0] == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("switch", [-1.0, -1e4])
def test_log_h_has_no_step_where_the_formula_changes(switch: float) -> None:
    """Across the switch it changes by slope times gap, and the slope by next to nothing."""
    gap = 1e-6 * abs(switch)
    below, above = acquisitions.log_h(array(switch - gap, switch + gap))
    slope_below, slope_above = acquisitions.log_h_slope(array(switch - gap, switch + gap))
    assert above - below == pytest.approx(2 * gap * slope_above, rel=1e-5)
    assert slope_below == pytest.approx(slope_above, rel=1e-5)


def test_log_h_rises_everywhere() -> None:
    z = np.concatenate([-np.geomspace(1e8, 1e-3, 4000), np.geomspace(1e-3, 30, 500)])
    found = acquisitions.log_h(z)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert (acquisitions.log_h_slope(z) > 0).all()
    assert (np.diff(acquisitions.log_h_slope(z)) < 0).all()  # log h is concave


@pytest.mark.parametrize("z", [4.0, 0.3, -0.9, -1.1, -7.0, -60.0, -2e3, -3e4, -1e6])
def test_log_h_slope_is_that_of_finite_differences(z: float) -> None:
    gap = 1e-5 * max(1.0, abs(z))
    rise = np.diff(acquisitions.log_h(array(z - gap, z + gap)))[0] / (2 * gap)
    assert acquisitions.log_h_slope(array(z))[0] == pytest.approx(rise, rel=1e-6)


# -- the others --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std", "best"), CASES)
@pytest.mark.parametrize("xi", [0.0, 0.3])
def test_probability_of_improvement_is_the_share_below(mean: float, std: float, best: float, xi: float) -> None:
    found = acquisitions.log_probability_of_improvement(array(mean), array(std), best, xi)[0]
    share, _ = quad(norm.pdf, mean - 12 * std, best - xi, args=(mean, std), epsabs=1e-13, limit=200)
    assert math.exp(found) == pytest.approx(share, rel=1e-7)
    assert found == pytest.approx(norm.logcdf(best - xi, mean, std), rel=1e-12)
    assert acquisitions.log_pi_with_slopes(array(mean), array(std), best, xi)[0][0] == found


def test_confidence_bound_is_the_other_end_of_the_interval() -> None:
    """With beta of the normal law, 5 % lie below."""
    mean, std = array(1.0, -2.0), array(0.5, 3.0)
    found = acquisitions.confidence_bound(mean, std, beta=-norm.ppf(0.05))
    np.testing.assert_allclose(-found, norm.ppf(0.05, mean, std))
    np.testing.assert_array_equal(acquisitions.confidence_bound(mean, std), array(0.0, 8.0))  # beta 2
    np.testing.assert_array_equal(acquisitions.confidence_bound(mean, std, 0.0), -mean)


# -- slopes ------------------------------------------------------------------------------------------------------------


def ei(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return acquisitions.log_ei_with_slopes(mean, std, 0.2)


def pi(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return acquisitions.log_pi_with_slopes(mean, std, 0.2, 0.1)


@pytest.mark.parametrize("slopes", [ei, pi])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-2.0, 0.7), (1.0, 0.3), (3.0, 0.1), (5.0, 1e-3), (9.0, 1e-4)])
def test_slopes_are_those_of_finite_differences(slopes: Slopes, mean: float, std: float) -> None:
    value, by_mean, by_std = slopes(array(mean), array(std))
    gap = 1e-5 * std
    up, down = slopes(array(mean + gap), array(std))[0], slopes(array(mean - gap), array(std))[0]
    assert by_mean[0] == pytest.approx(float((up - down)[0]) / (2 * gap), rel=1e-4)
    up, down = slopes(array(mean), array(std + gap))[0], slopes(array(mean), array(std - gap))[0]
    assert by_std[0] == pytest.approx(float((up - down)[0]) / (2 * gap), rel=1e-4, abs=1e-6)
    assert value.shape == by_mean.shape == by_std.shape == (1,)


@pytest.mark.parametrize("z", [-1e5, -1e6, -1e8])
def test_slopes_stay_right_far_from_all_hope(z: float) -> None:
    """There both logarithms are -z^2 / 2 to leading order, so they rise by |z|, and by z^2 with the deviation."""
    for slopes in (acquisitions.log_ei_with_slopes, acquisitions.log_pi_with_slopes):
        _, by_mean, by_std = slopes(array(-z), array(1.0), 0.0)
        assert by_mean[0] == pytest.approx(z, rel=1e-8)
        assert by_std[0] == pytest.approx(z**2, rel=1e-8)


def test_the_value_with_slopes_is_the_value() -> None:
    mean, std = np.linspace(-3, 80, 50), np.geomspace(0.01, 5, 50)
    np.testing.assert_array_equal(ei(mean, std)[0], acquisitions.log_expected_improvement(mean, std, 0.2))
    np.testing.assert_array_equal(pi(mean, std)[0], acquisitions.log_probability_of_improvement(mean, std, 0.2, 0.1))
