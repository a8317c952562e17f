"""The test functions: their minima and known values, against the literature, SciPy and chance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from kit.search import functions
from kit.search.functions import Function, ManyFunction
from kit.search.pareto import hypervolume
from kit.search.space import Config, Float

ALL: dict[str, Callable[[], Function]] = {
    "Branin": functions.branin,
    "Hartmann-3": partial(functions.hartmann, 3),
    "Hartmann-6": partial(functions.hartmann, 6),
    "Ackley-1": partial(functions.ackley, 1),
    "Ackley-3": partial(functions.ackley, 3),
    "Levy-1": partial(functions.levy, 1),
    "Levy-3": partial(functions.levy, 3),
}
PRINTED = {"Branin": 0.397887, "Hartmann-3": -3.86278, "Hartmann-6": -3.32237}  # all others: 0


@pytest.fixture(params=ALL)
def function(request: pytest.FixtureRequest) -> Function:
    made = ALL[request.param]()
    assert made.name == request.param
    return made


def at(*x: float) -> Config:
    return {f"x{number}": value for number, value in enumerate(x, start=1)}


def test_the_minimisers_reach_the_minimum_inside_the_space(function: Function) -> None:
    """The minimum is the printed one, to its digits."""
    assert function.minimum == pytest.approx(PRINTED.get(function.name, 0.0), abs=5e-7)
    for where in function.minimisers:
        assert function(at(*where)) == pytest.approx(function.minimum, abs=6e-6)
        assert function.regret(at(*where)) == pytest.approx(0.0, abs=6e-6)
        assert function.space.check(at(*where)) == at(*where)
    for (name, parameter), (low, high) in zip(function.space.parameters.items(), function.bounds, strict=True):
        assert isinstance(parameter, Float)
        assert (name[0], parameter.low, parameter.high, parameter.log) == ("x", low, high, False)


def test_nothing_lies_below_the_minimum(function: Function) -> None:
    """Neither over the whole domain, nor close to a minimiser."""
    rng = np.random.default_rng(0)
    low, high = np.array(function.bounds).T
    everywhere = low + (high - low) * rng.random((10_000, len(low)))
    close = np.repeat(function.minimisers, 500, axis=0)
    close = np.clip(close + 0.01 * (high - low) * rng.standard_normal(close.shape), low, high)
    values = np.array([function.formula(x) for x in np.vstack([everywhere, close])])
    assert values.min() >= function.minimum - 6e-6
    assert values.max() > function.minimum + 0.5


@pytest.mark.parametrize(
    ("make", "x", "value"),
    [
        (functions.branin, (0, 0), 55.602113),
        (functions.branin, (-5, 0), 308.129096),  # the worst corner
        (partial(functions.hartmann, 6), (0,) * 6, -0.005089),
        (functions.ackley, (0, 0), 0.0),
        (partial(functions.ackley, 4), (1, -1, 1, 1), 20 * (1 - math.exp(-0.2))),  # whole numbers: at no ripple's top
        (partial(functions.levy, 1), (-3,), 1.0),  # w = 0
        (functions.levy, (1, -3), 1.0),  # w = 1, 0
        (functions.levy, (-3, 1), 1 + 10 * math.sin(1) ** 2),  # w = 0, 1
        (functions.levy, (3, 2), 1 + 0.25 * (1 + 10 * math.cos(1) ** 2) + 0.125),  # w = 3/2, 5/4
    ],
)
def test_known_values(make: Callable[[], Function], x: tuple[float, ...], value: float) -> None:
    assert make()(at(*x)) == pytest.approx(value, abs=1e-6)


# Surjanovic & Bingham's tables: four terms, each with its weight, its steepness and its centre (in 1/10000).
HARTMANN_3 = """
    1.0 |  3   10 30 | 3689 1170 2673
    1.2 | 0.1  10 35 | 4699 4387 7470
    3.0 |  3   10 30 | 1091 8732 5547
    3.2 | 0.1  10 35 |  381 5743 8828"""
HARTMANN_6 = """
    1.0 |  10   3   17  3.5  1.7  8 | 1312 1696 5569  124 8283 5886
    1.2 | 0.05 10   17  0.1   8  14 | 2329 4135 8307 3736 1004 9991
    3.0 |   3  3.5 1.7  10   17   8 | 2348 1451 3522 2883 3047 6650
    3.2 |  17   8  0.05 10  0.1  14 | 4047 8828 8732 5743 1091  381"""


@pytest.mark.parametrize(("d", "table"), [(3, HARTMANN_3), (6, HARTMANN_6)])
def test_hartmann_is_the_sum_of_its_terms(d: int, table: str) -> None:
    for x in np.random.default_rng(0).random((20, d)):
        total = 0.0
        for line in table.strip().splitlines():
            (weight,), steep, centre = ([float(word) for word in part.split()] for part in line.split("|"))
            total += weight * math.exp(-sum(a * (b - c / 1e4) ** 2 for a, b, c in zip(steep, x, centre, strict=True)))
        assert functions.hartmann(d)(at(*x)) == pytest.approx(-total, rel=1e-12)


# -- noise -------------------------------------------------------------------------------------------------------------


def test_noise_has_the_asked_deviation() -> None:
    """The mean of n draws lies within 4 sigma / sqrt n, their deviation within 4 sigma / sqrt 2n."""
    n, sigma = 2000, 0.7
    function = functions.branin(noise=sigma)
    draws = np.array([function(at(1, 2)) for _ in range(n)]) - functions.branin()(at(1, 2))
    assert abs(draws.mean()) < 4 * sigma / math.sqrt(n)
    assert abs(draws.std() - sigma) < 4 * sigma / math.sqrt(2 * n)
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 / math.sqrt(n)


def test_noise_is_that_of_the_seed_and_regret_and_exact_see_none() -> None:
    def draws(seed: int) -> list[float]:
        function = functions.ackley(2, noise=1.0, seed=seed)
        assert function.exact(at(3, 4)) == functions.ackley(2)(at(3, 4)) == function.regret({"x2": 4, "x1": 3})
        return [function(at(0, 0)) for _ in range(5)]

    assert draws(3) == draws(3) != draws(4)
    assert len({*draws(3)}) == 5


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name", "value", "says"),
    [
        (functions.hartmann, "d", 2, "3 or 6"),
        (functions.hartmann, "d", [3], "3 or 6"),
        (functions.branin, "seed", -1, "0 or more"),
        (functions.levy, "seed", "3", "a whole number"),
        (functions.ackley, "d", 0, "1 or more"),
        (functions.ackley, "d", 2.0, "a whole number"),
        (functions.levy, "d", -1, "1 or more"),
        *((functions.branin, "noise", value, "0 or more") for value in (-0.1, math.nan, math.inf)),
    ],
)
def test_what_makes_no_function_is_refused(make: Callable[..., Function], name: str, value: Any, says: str) -> None:
    with pytest.raises(
        TypeError if "whole" in says else ValueError, match=re.escape(f"{name} must be {says}; got {value!r}.")
    ):
        make(**{name: value})


# -- two objectives ----------------------------------------------------------------------------------------------------

MANY: dict[str, Callable[[], ManyFunction]] = {
    "ZDT1": functions.zdt1,
    "ZDT2": partial(functions.zdt2, 4),
    "Branin-Currin": functions.branin_currin,
}


def losses_at(function: ManyFunction, x: np.ndarray) -> np.ndarray:
    """[n, d] -> [n, 2]."""
    return np.array([list(function(at(*row)).values()) for row in x.tolist()])


@pytest.mark.parametrize("name", MANY)
def test_the_best_hypervolume_is_that_of_a_fine_front_and_nobody_has_more(name: str) -> None:
    """The front of ZDT lies where all but x1 are 0; that of Branin-Currin is looked for on a grid."""
    function, corner = MANY[name](), np.array(list(MANY[name]().corner.values()))
    assert (function.name, list(function.space.names)) == (name, [f"x{at}" for at in range(1, function.d + 1)])
    assert function.goals.limits.tolist() == [math.inf, math.inf]
    x = np.zeros((2000, function.d))
    x[:, 0] = np.linspace(0, 1, 2000) ** 2  # the root is steep at 0
    if name == "Branin-Currin":
        axis = np.linspace(0, 1, 121)
        x = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    reached = hypervolume(losses_at(function, x), corner)
    assert 0.95 * function.best < reached < function.best
    chance = np.random.default_rng(0).random((500, function.d))
    assert hypervolume(losses_at(function, np.vstack([chance, x])), corner) < function.best


def test_known_values_of_two_objectives() -> None:
    """By hand: g is 10 where all but x1 are 1; Branin at one of its minima, Currin where its terms are few."""
    assert functions.zdt1(2)(at(0.25, 0)) == pytest.approx({"f1": 0.25, "f2": 0.5})
    assert functions.zdt1(3)(at(0.4, 1, 1)) == pytest.approx({"f1": 0.4, "f2": 10 * (1 - math.sqrt(0.04))})
    assert functions.zdt2(3)(at(0.5, 0, 0)) == pytest.approx({"f1": 0.5, "f2": 0.75})
    assert functions.zdt2(2)(at(1.0, 1.0)) == pytest.approx({"f1": 1.0, "f2": 10 * (1 - 0.01)})
    minimum = functions.branin_currin()(at((math.pi + 5) / 15, 2.275 / 15))
    assert minimum["f1"] == pytest.approx(PRINTED["Branin"], abs=5e-7)
    currin = functions.branin_currin()(at(0, 0.5))["f2"], functions.branin_currin()(at(1, 0))["f2"]
    assert currin == pytest.approx(((1 - math.exp(-1)) * 60 / 20, 6352 / 624))


@pytest.mark.parametrize("make", [functions.zdt1, functions.zdt2])
def test_a_front_needs_two_coordinates(make: Callable[[int], ManyFunction]) -> None:
    with pytest.raises(ValueError, match=re.escape("d must be 2 or more; got 1.")):
        make(1)
