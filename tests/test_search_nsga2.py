"""NSGA-II: who lives and who has children, by hand and by brute force; the laws of its children, by their densities."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from kit.search import NSGA2, Choice, Float, Goal, Goals, Int, Proposal, Space, Trial, functions, nsga2

ZDT1 = functions.zdt1(3)
GOALS = Goals({"a": Goal(limit=3.0), "b": Goal()})


def trial(number: int, *values: float, status: Any = "done") -> Trial:
    config = {"x1": number / 100, "x2": 0.5, "x3": 0.5}
    return Trial(number, config, status, values=dict(zip(("a", "b"), values, strict=False)))


def constrained(a: np.ndarray, b: np.ndarray, limits: np.ndarray, size: np.ndarray) -> bool:
    """Whether a dominates b, as the paper's definition 1 says; how far out counts as a share of `size`."""
    out_a, out_b = ((np.maximum(each - limits, 0) / size).sum() for each in (a, b))
    if out_a == out_b == 0:
        return bool((a <= b).all() and (a < b).any())
    return bool(out_a < out_b)


def test_crowding_by_hand() -> None:
    losses = np.array([[4.0, 0.0], [0.0, 4.0], [1.0, 3.0], [3.0, 1.0]])
    assert nsga2.crowding(losses).tolist() == [math.inf, math.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4]
    assert nsga2.crowding(np.array([[0.0, 1.0], [0.2, 1.0], [1.0, 1.0]])).tolist() == [math.inf, 1.0, math.inf]


def test_nobody_stands_after_one_that_it_dominates() -> None:
    rng, limits = np.random.default_rng(0), np.array([0.5, 0.6, math.inf])
    for _ in range(20):
        losses = rng.random((30, 3)).round(1)  # with ties
        order = nsga2.ranked(losses, limits)
        assert sorted(order) == list(range(30))
        size = np.where(np.isfinite(limits), np.maximum(losses - limits, 0).max(0), 1.0)
        for first, second in itertools.combinations(order, 2):
            assert not constrained(losses[second], losses[first], limits, size)


def test_the_loneliest_of_a_front_come_first() -> None:
    losses = np.array([[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [1.0, 0.0], [2.0, 2.0]])
    assert nsga2.ranked(losses, np.array([math.inf, math.inf])).tolist() == [0, 4, 3, 2, 1, 5]


def test_parents_are_who_survived_each_generation() -> None:
    """Of two, by hand: the front, then what keeps the limit; never what failed, nor what nobody told yet."""
    method = NSGA2(population=2)
    told = [trial(0, 1, 5), trial(1, 2, 2), trial(2, 1.5, 1), trial(3, 0.5, 6), trial(4, 4, 0), trial(5)]
    assert method.parents(told[:1], GOALS) == []  # the first generation is under way
    assert [each.number for each in method.parents(told[:2], GOALS)] == [0, 1]
    assert [each.number for each in method.parents(told[:3], GOALS)] == [0, 1]  # the second one is
    assert {each.number for each in method.parents(told[:4], GOALS)} == {2, 3}
    waiting = [*told[:4], told[4], trial(5, status="asked")]
    assert {each.number for each in method.parents(waiting, GOALS)} == {2, 3}
    assert {each.number for each in method.parents([*told[:4], told[4], trial(5, 0.4, 0.5)], GOALS)} == {5, 2}
    broken = [trial(0, status="failed"), trial(1, 9, 9), trial(2, 8, 8), trial(3, status="timed out")]
    assert [each.number for each in method.parents(broken, GOALS)] == [2, 1]  # all are out of the limit: the nearer


@pytest.mark.parametrize(("a", "b"), [(0.45, 0.55), (0.02, 0.1), (0.93, 0.98)])
def test_crossover_follows_its_density(a: float, b: float) -> None:
    """c(beta) ~ beta^eta up to 1, beta^-(eta + 2) beyond, cut at the wall; beta: how far from the middle."""
    eta, n = 3.0, 4000
    found = nsga2.crossed(np.full(n, a), np.full(n, b), eta, np.random.default_rng(0))
    middle, half = (a + b) / 2, (b - a) / 2

    def cdf(wall: float) -> Any:
        def mass(beta: np.ndarray) -> np.ndarray:
            return np.where(beta <= 1, 0.5 * beta ** (eta + 1), 1 - 0.5 * np.maximum(beta, 1) ** -(eta + 1))

        return lambda beta: mass(np.minimum(beta, wall)) / mass(np.array(wall))

    low, high = (middle - found[found < middle]) / half, (found[found >= middle] - middle) / half
    assert kstest(low, cdf(middle / half)).pvalue > 0.01 and kstest(high, cdf((1 - middle) / half)).pvalue > 0.01
    assert abs(len(low) / n - 0.5) < 0.03 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 1.0])
def test_mutation_follows_its_density(place: float) -> None:
    """(1 - |delta|)^eta on either side, cut at the walls, half of the mass on each side."""
    eta, n = 4.0, 4000
    delta = nsga2.mutated(np.full(n, place), eta, np.random.default_rng(1)) - place

    def cdf(found: np.ndarray) -> np.ndarray:
        down = ((1 + np.minimum(found, 0)) ** (eta + 1) - (1 - place) ** (eta + 1)) / (1 - (1 - place) ** (eta + 1))
        up = (1 - (1 - np.maximum(found, 0)) ** (eta + 1)) / (1 - place ** (eta + 1))
        return np.where(found < 0, 0.5 * down, 0.5 + 0.5 * up)

    if place in (0.0, 1.0):  # half of them run into the wall, and stay
        inside = np.abs(delta[np.abs(delta) > 1e-12])
        assert kstest(inside, lambda far: 1 - (1 - far) ** (eta + 1)).pvalue > 0.01
        assert abs(len(inside) / n - 0.5) < 0.03
    else:
        assert kstest(delta, cdf).pvalue > 0.01


def test_children_resemble_their_parents_and_a_mutant_is_one() -> None:
    """Two parents agree on all but one coordinate: the others move by mutation alone, about once in d."""
    space = Space({"x": Float(0, 1), "n": Int(1, 4), "kind": Choice("a", "b", "c"), "y": Float(0, 1)})
    goals, method = Goals({"f": Goal(), "g": Goal()}), NSGA2(population=2)
    told = tuple(
        Trial(at, {"x": x, "n": 2, "kind": "b", "y": 0.5}, "done", values={"f": f, "g": 1 - f})
        for at, (x, f) in enumerate([(0.2, 0.0), (0.8, 1.0)])
    )
    children = []
    for seed in range(300):
        proposal = NSGA2(population=2, seed=seed).propose(space, told, goals=goals)
        assert proposal is not None
        children.append(proposal.config)
    moved = {name: sum(child[name] != told[0].config[name] for child in children) for name in ("n", "kind", "y")}
    for count in moved.values():
        assert 300 / 4 * 0.6 < count < 300 / 4 * 2.2  # more than once in d, as copies of a parent are thrown away
    assert Counter(child["n"] for child in children).keys() == {1, 2, 3}  # steps of one
    assert Counter(child["kind"] for child in children).keys() == {"a", "b", "c"}
    assert method.propose(space, told, goals=goals) == NSGA2(population=2).propose(space, told, goals=goals)


def test_a_generation_is_ahead_of_the_one_before() -> None:
    """Over seeds: the mean second objective of a generation of ten falls by a third or more, in seventy trials."""
    first, last = [], []
    for seed in range(4):
        trials: list[Trial] = []
        while len(trials) < 80:
            proposal = NSGA2(population=10, seed=seed).propose(ZDT1.space, trials, goals=ZDT1.goals)
            assert isinstance(proposal, Proposal)
            trials.append(Trial(len(trials), proposal.config, "done", values=ZDT1(proposal.config)))
        values = [each.values["f2"] for each in trials]
        first.append(np.mean(values[:10]))
        last.append(np.mean(values[-10:]))
    assert np.max(last) < 0.7 * np.min(first)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"population": 1}, ValueError, "population must be 2 or more; got 1."),
        ({"population": 2.0}, TypeError, "population must be a whole number; got 2.0."),
        ({"crossover": 0}, ValueError, "crossover must be above 0; got 0."),
        ({"mutation": -1}, ValueError, "mutation must be above 0; got -1."),
        ({"mutation": "a"}, TypeError, "mutation must be a number; got 'a'."),
        ({"seed": -1}, ValueError, "seed must be 0 or more; got -1."),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        NSGA2(**settings)
    assert str(caught.value) == sentence
