"""Acquisition functions, against integrals, chance, many digits (mpmath) and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from kit.search import acquisition as acquisitions

CASES = ((0.0, 1.0, 0.0), (1.0, 0.5, 0.2), (-3.0, 2.0, -1.0), (2.0, 1.5, 5.0), (4.0, 1.0, 0.0))  # mean, std, best
DEEP = (5.0, 1.0, 0.0, -0.5, -0.999, -1.0, -1.001, -3.0, -10.0, -37.0, -100.0, -1e3, -9e3, -1.1e4, -1e5, -1e6, -1e8)


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


# -- improvement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std", "best"), CASES)
@pytest.mark.parametrize("xi", [0.0, 0.3])
def test_improvement_is_the_integral(mean: float, std: float, best: float, xi: float) -> None:
    """Expected: E[max(best - xi - f, 0)], f normal; its probability: the share below."""
    top = best - xi
    low = min(mean, top) - 12 * std
    integral, _ = quad(lambda f: (top - f) * norm.pdf(f, mean, std), low, top, epsabs=1e-13, epsrel=1e-11, limit=200)
    given = array(mean), array(std), best, xi
    assert acquisitions.expected_improvement(*given)[0] == pytest.approx(integral, rel=1e-8)
    assert acquisitions.log_expected_improvement(*given)[0] == pytest.approx(math.log(integral))
    found = acquisitions.log_pi_with_slopes(*given)[0][0]
    share, _ = quad(norm.pdf, mean - 12 * std, top, args=(mean, std), epsabs=1e-13, limit=200)
    assert math.exp(found) == pytest.approx(share, rel=1e-7)
    assert found == pytest.approx(norm.logcdf(top, mean, std), rel=1e-12)


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
    assert acquisitions.log_h(array(z))[0][0] == pytest.approx(value, rel=1e-13)
    assert acquisitions.log_h(array(z))[1][0] == pytest.approx(slope, rel=1e-8)


def test_log_h_rises_everywhere() -> None:
    z = np.concatenate([-np.geomspace(1e8, 1e-3, 4000), np.geomspace(1e-3, 30, 500)])
    found, slope = acquisitions.log_h(z)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert (slope > 0).all()
    assert (np.diff(slope) < 0).all()  # log h is concave


# -- the others --------------------------------------------------------------------------------------------------------


def test_confidence_bound_is_the_other_end_of_the_interval() -> None:
    """With beta of the normal law, 5 % lie below."""
    mean, std = array(1.0, -2.0), array(0.5, 3.0)
    found, by_mean, by_std = acquisitions.function("ucb", 0.0, -norm.ppf(0.05))(mean, std)
    np.testing.assert_allclose(-found, norm.ppf(0.05, mean, std))
    assert (by_mean, by_std) == (-1, -norm.ppf(0.05))


# -- slopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ei", "pi"])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-2.0, 0.7), (1.0, 0.3), (3.0, 0.1), (5.0, 1e-3), (9.0, 1e-4)])
def test_slopes_are_those_of_finite_differences(name: acquisitions.Acquisition, mean: float, std: float) -> None:
    slopes = acquisitions.function(name, 0.2, 0.1)
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
