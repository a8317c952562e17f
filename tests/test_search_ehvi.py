"""Expected hypervolume improvement: the closed form against quadrature and dice, and what the method makes of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm

from kit.search import EHVI, Choice, Config, Float, Goal, Goals, Int, Random, Space, Study, Trial, ehvi, pareto
from kit.search.acquisition import log_expected_improvement
from kit.search.ehvi import log_ehvi
from kit.search.pareto import hypervolume

FRONT, CORNER = np.array([[-0.5, 1.2], [0.9, -1.0], [0.1, 0.4]]), np.array([1.6, 1.5])
SQUARE = Space({"x": Float(0, 1), "y": Float(0, 1)})
GOALS = {"a": Goal(), "b": Goal()}


def two(config: Config) -> dict[str, float]:
    return {"a": config["x"] + config["y"] ** 2, "b": 1 - config["x"] + config["y"]}


def by_chance(n: int, space: Space = SQUARE, objective: Any = two, goals: Any = GOALS) -> tuple[Trial, ...]:
    return Study(space, objectives=goals).run(objective, Random(seed=1), budget=n).trials


def by_quadrature(mean: np.ndarray, std: np.ndarray, front: np.ndarray, corner: np.ndarray) -> float:
    """The improvement at a point, times its density, summed over a fine grid of the plane below the corner."""
    axes = [np.linspace(m - 8 * s, min(m + 8 * s, c), 801) for m, s, c in zip(mean, std, corner, strict=True)]
    middles = [(axis[1:] + axis[:-1]) / 2 for axis in axes]
    masses = [np.diff(norm.cdf(axis, m, s)) for axis, m, s in zip(axes, mean, std, strict=True)]
    # Area that a box from (a, b) to the corner has, less what the front has of it.
    a, b = middles[0][:, None], middles[1][None]
    box = (corner[0] - a) * (corner[1] - b)
    front = front[np.argsort(front[:, 0])]
    ends, shared = np.append(front[:, 0], corner[0])[1:], np.zeros_like(box)
    for (left, bottom), right in zip(front, ends, strict=True):
        width = np.maximum(right - np.maximum(a, left), 0)
        shared += width * (corner[1] - np.maximum(b, bottom))
    return float(masses[0] @ (box - shared) @ masses[1])


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.3, 0.2), (0.5, 0.8)), ((-1.0, -1.5), (0.1, 0.4)), ((1.2, 1.3), (0.6, 0.3)), ((0.1, 0.41), (0.05, 0.05))],
)
def test_it_is_the_mean_improvement(k: int, mean: Any, std: Any) -> None:
    """Against quadrature; and against points drawn from the law, whose improvement `hypervolume` measures."""
    mean, std, front = np.array(mean), np.array(std), FRONT[:k]
    found = math.exp(log_ehvi(mean[None], std[None], front, CORNER)[0][0])
    assert found == pytest.approx(by_quadrature(mean, std, front, CORNER), rel=2e-3, abs=1e-6)
    draws = mean + std * np.random.default_rng(k).standard_normal((2000, 2))
    before = hypervolume(front, CORNER)
    gains = np.array([hypervolume(np.vstack([front, draw]), CORNER) - before for draw in draws])
    assert found == pytest.approx(gains.mean(), abs=4 * gains.std() / math.sqrt(len(gains)) + 1e-9)


def test_without_a_front_it_is_a_product_and_the_order_of_the_front_is_nothing() -> None:
    rng = np.random.default_rng(0)
    means, stds = rng.standard_normal((20, 2)), rng.random((20, 2)) + 0.1
    product = sum(log_expected_improvement(means[:, at], stds[:, at], CORNER[at]) for at in range(2))
    assert log_ehvi(means, stds, np.empty((0, 2)), CORNER)[0] == pytest.approx(product)
    every = [log_ehvi(means, stds, FRONT[list(order)], CORNER)[0] for order in itertools.permutations(range(3))]
    assert np.ptp(every, axis=0).max() == 0
    swapped = log_ehvi(means[:, ::-1], stds[:, ::-1], FRONT[:, ::-1], CORNER[::-1])[0]
    assert swapped == pytest.approx(every[0])
    twice = log_ehvi(means, stds, np.vstack([FRONT, FRONT[1:2]]), CORNER)[0]
    assert twice == pytest.approx(every[0], rel=1e-9)


def test_slopes_are_those_of_finite_differences_and_reach_where_it_underflows() -> None:
    for mean, std in [([0.3, 0.2], [0.5, 0.8]), ([0.8, 1.3], [0.05, 0.02]), ([60.0, 45.0], [0.5, 1.0])]:
        value, by_mean, by_std = log_ehvi(np.array([mean]), np.array([std]), FRONT, CORNER)
        assert np.isfinite(value).all()

        def alone(numbers: np.ndarray) -> float:
            return float(log_ehvi(numbers[None, :2], numbers[None, 2:], FRONT, CORNER)[0][0])

        rough = approx_fprime(np.array([*mean, *std]), alone, 1e-6)
        assert np.concatenate([by_mean[0], by_std[0]]) == pytest.approx(rough, rel=1e-3, abs=1e-4)
    assert math.exp(value[0]) == 0  # the last one does underflow


def test_front_and_corner_are_in_the_units_of_the_processes() -> None:
    """A limit is a corner; beyond it nothing is on the front; without one the corner lies beyond the front."""
    trials = by_chance(20)
    goals = Goals({"a": Goal(limit=0.9), "b": Goal()})
    losses = goals.losses(trials)
    model = EHVI().model(SQUARE, trials, goals)
    a = losses[:, 0]
    assert model.corner[0] == pytest.approx((0.9 - a.mean()) / a.std(), rel=1e-6)
    assert (model.front < model.corner).all() and len(model.front) == len(model.near)
    assert model.front.min(0)[0] == pytest.approx((a.min() - a.mean()) / a.std(), abs=0.05)  # nearly no noise
    wide = EHVI().model(SQUARE, trials, Goals(GOALS))
    assert (wide.corner > wide.front.max(0) + 0.5 * np.ptp(wide.front, 0)).all()
    best = losses[pareto.front(losses)]
    far = np.minimum(best.max(0) + np.ptp(best, 0), losses.max(0))  # as far as the front is wide, or the worst
    assert wide.corner * losses.std(0) + losses.mean(0) == pytest.approx(far)


def test_what_is_proposed_promises_most() -> None:
    """More than any of ten thousand places of chance; in a small space, the most of all."""
    trials, places = by_chance(15), np.random.default_rng(0).random((10_000, 2))
    model = EHVI().model(SQUARE, trials, Goals(GOALS))
    proposal = EHVI().propose(SQUARE, trials, goals=Goals(GOALS))
    assert proposal is not None
    scores = model.scores(np.vstack([SQUARE.encode(proposal.config), places]))
    assert scores[0] > scores[1:].max()
    small = Space({"x": Int(0, 9), "y": Choice(0.0, 0.5, 1.0)})
    some = by_chance(8, small)
    configs = [{"x": x, "y": y} for x in range(10) for y in (0.0, 0.5, 1.0)]
    free = [config for config in configs if all(config != trial.config for trial in some)]
    found = EHVI().propose(small, some, goals=Goals(GOALS))
    scores = EHVI().model(small, some, Goals(GOALS)).scores(np.array([small.encode(config) for config in free]))
    assert found is not None and found.config == free[int(scores.argmax())]


def test_a_trial_under_way_counts_by_its_mean() -> None:
    """It promises nothing more where it stands, and what is certain of it is as if it were told that mean."""
    trials, goals = by_chance(12), Goals(GOALS)
    model = EHVI().model(SQUARE, trials, goals)
    place = model.best_places()[0]
    asked = (*trials, Trial(12, SQUARE.decode(place)))
    after = EHVI().model(SQUARE, asked, goals)
    assert after.corner == pytest.approx(model.corner)
    features = after.encoding.tried(asked[-1:])
    for before, now in zip(model.posteriors, after.posteriors, strict=True):
        assert now.predict(features)[0] == pytest.approx(before.predict(features)[0], abs=1e-4)
        assert now.predict(features)[1][0] < 0.2 * before.predict(features)[1][0]
    assert after.scores(place[None])[0] < model.scores(place[None])[0] - 1


def test_failures_count_as_the_worst_and_draw_nothing() -> None:
    """Half of the square fails: it is asked for less than a third of the time."""
    goals = Goals(GOALS)
    trials: list[Trial] = []
    while len(trials) < 24:
        proposal = EHVI(start=8).propose(SQUARE, trials, goals=goals)
        assert proposal is not None
        trial = Trial(len(trials), proposal.config, "failed")
        if proposal.config["x"] < 0.5:
            trial = replace(trial, status="done", values=two(proposal.config))
        trials.append(trial)
    assert sum(trial.status == "failed" for trial in trials[8:]) < 16 / 3


def test_the_front_is_of_means_so_that_luck_does_not_lead() -> None:
    """One trial of many at one place was lucky: what the front has of it is no better than the mean of all."""
    config, rng = {"x": 0.5, "y": 0.5}, np.random.default_rng(0)
    noisy = [{"a": 1 + 0.1 * rng.standard_normal(), "b": 1 + 0.1 * rng.standard_normal()} for _ in range(12)]
    trials = [replace(each, values={"a": 3.0, "b": 3.0}) for each in by_chance(4)]
    trials += [Trial(4 + at, config, "done", values=values) for at, values in enumerate(noisy)]
    losses = Goals(GOALS).losses(trials)
    model = EHVI().model(SQUARE, trials, Goals(GOALS))
    own = model.front * losses.std(0) + losses.mean(0)
    assert (own.min(0) > losses.min(0) + 0.05).all()


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = ehvi.log_ehvi

    def spy(means: np.ndarray, *others: np.ndarray) -> Any:
        seen.append(len(means))
        return plain(means, *others)

    monkeypatch.setattr(ehvi, "log_ehvi", spy)
    trials = by_chance(500)
    model = EHVI().model(SQUARE, trials, Goals(GOALS))
    assert all(len(posterior.x) == 200 for posterior in model.posteriors)
    model.best_places()
    assert max(seen) <= 1000 and len(seen) < 400


def test_what_it_cannot_do_is_refused() -> None:
    three = Goals({"a": Goal(), "b": Goal(), "c": Goal()})
    sentence = "goals must be two for EHVI; got a, b, c: ParEGO and NSGA2 take any number."
    for call in (lambda: EHVI().propose(SQUARE, (), goals=three), lambda: EHVI().model(SQUARE, (), three)):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == sentence
    with pytest.raises(ValueError, match="start must be 1 or more; got 0"):
        EHVI(start=0)
    with pytest.raises(TypeError, match="seed must be a whole number; got 0.5"):
        EHVI(seed=0.5)  # type: ignore[arg-type]
