"""The exercises on structure and tuning together: other right answers pass, wrong ones fail for their reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from kit import exercises
from kit.exercises import Verdict
from kit.exercises import together as room
from kit.measure import Estimate
from kit.search import Float, Goal, Goals, Space


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- one number of several losses --------------------------------------------------------------------------------------


def with_loops(losses: Any, weights: Any, corner: Any, *, rho: float = 0.05, largest: Any = max) -> list[float]:
    best = [min(column) for column in losses.T]
    rows = [
        [w * (f - b) / (c - b) for w, f, b, c in zip(weights, row, best, corner, strict=True)]
        for row in losses.tolist()
    ]
    return [largest(row) + rho * sum(row) for row in rows]


def vectors(losses: Any, weights: Any, corner: Any) -> Any:
    scaled = weights * (losses - losses.min(0)) / (corner - losses.min(0))
    return scaled.max(1) + 0.05 * scaled.sum(1)


def unscaled(losses: Any, weights: Any, corner: Any) -> Any:
    return (weights * losses).max(1) + 0.05 * (weights * losses).sum(1)


def to_the_worst(losses: Any, weights: Any, corner: Any) -> Any:
    return vectors(losses, weights, losses.max(0))


def sum_without_weights(losses: Any, weights: Any, corner: Any) -> Any:
    scaled = (losses - losses.min(0)) / (corner - losses.min(0))
    return (weights * scaled).max(1) + 0.05 * scaled.sum(1)


def from_zero(losses: Any, weights: Any, corner: Any) -> Any:
    scaled = weights * losses / corner
    return scaled.max(1) + 0.05 * scaled.sum(1)


def moved(losses: Any, weights: Any, corner: Any) -> Any:
    losses -= losses.min(0)
    return vectors(losses, weights, corner)


@pytest.mark.parametrize("right", [with_loops, vectors])
def test_scalars(right: Any) -> None:
    verdict = exercises.scalars(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda *given: with_loops(*given, rho=0), "the sum is missing"),
        (lambda *given: with_loops(*given, rho=1), "the sum weighs 0.05"),
        (lambda *given: with_loops(*given, largest=min), "the largest of the weighed losses, not the smallest"),
        (lambda *given: with_loops(*given, rho=1, largest=lambda row: 0), "convex part of a front only"),
        (unscaled, "have units of their own"),
        (to_the_worst, "1 is at the corner, not at the worst"),
        (sum_without_weights, "the sum is of the weighed"),
        (from_zero, "0 is at the best of the trials"),
        (moved, "have changed"),
        (lambda losses, weights, corner: vectors(losses, weights, corner).max(), "one number for each of the 3 trials"),
        (lambda losses, weights, corner: losses[:, 0], "expected"),
        (lambda losses, weights, corner: ..., "Nothing is answered"),
        (lambda losses, weights, corner: losses.missing, "AttributeError"),
    ],
)
def test_other_scalars(wrong: Any, reason: str) -> None:
    refused(exercises.scalars(wrong), reason)


# -- the open task, on a problem that costs nothing --------------------------------------------------------------------


class Valley:
    """Accuracy falls with the distance from a line; bytes grow with x. A network made anew has other noise."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.space = Space({"x": Float(0, 1), "y": Float(0, 1)})
        self.goals = Goals({"accuracy": Goal(maximise=True), "bytes": Goal(log=True)})

    def _one(self, config: Mapping[str, Any], seed: int) -> dict[str, float]:
        noise = np.random.default_rng([self.seed, seed, int(1e6 * config["x"]), int(1e6 * config["y"])]).normal()
        accuracy = 0.5 + 0.4 * config["x"] - abs(config["y"] - config["x"]) + 0.01 * noise
        return {"accuracy": float(accuracy), "bytes": 100 + 900 * config["x"]}

    def batch(self, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        return [self._one(config, 0) for config in configs]

    def retest(self, config: Mapping[str, Any], seeds: Sequence[int]) -> tuple[Estimate, Estimate]:
        made = [self._one(config, seed) for seed in seeds]
        accuracy, size = (Estimate.from_values([each[name] for each in made]) for name in ("accuracy", "bytes"))
        return accuracy, size


def near_the_limit(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    xs = rng.uniform(0.3, 0.444, budget)  # 100 + 900 x is at most 500
    configs = [{"x": float(x), "y": float(x + rng.normal(0, 0.02))} for x in xs]
    return configs[int(np.argmax([made["accuracy"] for made in measure(configs)]))]


def one_by_one(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    """Another right one: from the best so far to a place near it."""
    best, reached = {"x": 0.4, "y": 0.4}, -1.0
    for _ in range(budget):
        config = {name: float(np.clip(value + rng.normal(0, 0.03), 0, 1)) for name, value in best.items()}
        made = measure([config])[0]
        if made["bytes"] <= limit and made["accuracy"] > reached:
            best, reached = config, made["accuracy"]
    return best


def at_random(
    space: Any, measure: Any, limit: int, budget: int, rng: Any, *, among: Callable[[Any], bool] = lambda c: True
) -> Any:
    configs: list[dict[str, float]] = []
    while len(configs) < budget:
        config = dict(zip("xy", rng.random(2).tolist(), strict=True))
        configs += [config] * among(config)
    fits = [(made["accuracy"], at) for at, made in enumerate(measure(configs)) if made["bytes"] <= limit]
    return configs[max(fits)[1]] if fits else configs[0]


def score(answer: Any) -> Verdict:
    return exercises.best_within(answer, problem=Valley)


@pytest.mark.parametrize("right", [near_the_limit, one_by_one])
def test_searches_that_beat_random_search(right: Any) -> None:
    verdict = score(right)
    assert verdict.right and "beaten" in verdict.message, verdict


def small_ones(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    return at_random(space, measure, limit, budget, rng, among=lambda config: config["x"] < 0.1)


def a_few(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    return at_random(space, measure, limit, 5, rng, among=lambda config: config["x"] < 0.4)


@pytest.mark.parametrize("wrong", [at_random, small_ones, a_few])
def test_searches_that_do_not(wrong: Any) -> None:
    refused(score(wrong), "It counts as beaten when the whole interval is above 0")


def too_many(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    return near_the_limit(space, measure, limit, budget + 1, rng)


def too_large(space: Any, measure: Any, limit: int, budget: int, rng: Any) -> Any:
    measure([config := {"x": 0.9, "y": 0.9}])
    return config


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (too_many, "You measure 41 configurations; the budget is 40"),
        (too_large, "has 910 bytes; the limit is 500"),
        (lambda space, measure, limit, budget, rng: {"x": 0.1, "y": 0.1}, "that you have measured"),
        (lambda space, measure, limit, budget, rng: measure({"x": 0.1, "y": 0.1}), "takes a list"),
        (lambda space, measure, limit, budget, rng: 0.5, "Return a configuration, a dict.*got 0.5"),
        (lambda space, measure, limit, budget, rng: ..., "Nothing is answered"),
        (lambda space, measure, limit, budget, rng: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_search_that_is_none(wrong: Any, reason: str) -> None:
    refused(score(wrong), reason)


def test_the_score_is_the_mean_difference_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_judged", lambda answer, problem, limit, seed: (0.90, 0.92, 0.91)[seed])
    monkeypatch.setattr(room, "_rival", lambda maker, limit, seed: (0.89, 0.90, 0.90)[seed])
    verdict = exercises.best_within(near_the_limit, seeds=range(3), problem=Valley)
    half = 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # points; Student's t, 2 degrees of freedom; differences 1, 2, 1
    assert f" {4 / 3:.1f} points better" in verdict.message
    assert f"interval of the gain {4 / 3 - half:+.1f} to {4 / 3 + half:+.1f}, 3 searches" in verdict.message
    assert not verdict.right


def test_a_search_in_which_nothing_keeps_the_limit_counts_as_guessing() -> None:
    assert room._rival(Valley, 50, 0) == 0.1
