"""ParEGO: the one number that it makes of several, by the paper's formula; its weights; what limits do to it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kit.search import Bayes, Float, Goal, Goals, ParEGO, Space, Trial, parego
from kit.search.parego import scalars

SPACE = Space({"x": Float(0, 1)})
GOALS = Goals({"a": Goal(limit=5.0), "b": Goal(maximise=True, limit=0.0)})  # the limits are the corner: (5, 0)
VALUES = [(1.0, 2.0), (3.0, 10.0), (5.0, 4.0), (2.0, 6.0)]
TRIALS = [Trial(at, {"x": at / 9}, "done", values={"a": a, "b": b}) for at, (a, b) in enumerate(VALUES)]


def found(weights: Any, trials: Any = TRIALS, goals: Goals = GOALS) -> list[float | None]:
    return [trial.value for trial in scalars(trials, np.array(weights, float), goals)]


def test_the_number_is_the_augmented_chebyshev_norm() -> None:
    """By hand: a runs from 1 (best) to 5, b from 10 (best) to 0."""
    shares = [((a - 1) / 4, (10 - b) / 10) for a, b in VALUES]
    for weights in ([1, 0], [0.5, 0.5], [0.2, 0.8]):
        products = [[w * share for w, share in zip(weights, pair, strict=True)] for pair in shares]
        assert found(weights) == pytest.approx([max(pair) + 0.05 * sum(pair) for pair in products])


def test_each_member_of_a_hollow_front_is_the_best_for_some_weights() -> None:
    """On f2 = 1 - f1^2 each weighted sum has its minimum at an end; this norm has none that is never the best."""
    share = np.linspace(0.2, 1, 11)
    goals = Goals({"a": Goal(limit=1.2), "b": Goal(limit=1.2)})
    trials = [Trial(at, {"x": x}, "done", values={"a": x, "b": 1 - x**2}) for at, x in enumerate(share)]
    every = np.array([found([w, 1 - w], trials, goals) for w in np.linspace(0.001, 0.999, 999)], float)
    assert set(every.argmin(1)) == set(range(11))


def test_beyond_a_limit_all_is_worse_than_within_and_the_worse_the_farther() -> None:
    out = [Trial(4 + at, {"x": 0.9}, "done", values={"a": a, "b": 10.0}) for at, a in enumerate((5.01, 6.0, 9.0))]
    for weights in ([1, 0], [0, 1], [0.5, 0.5]):
        values = found(weights, [*TRIALS, *out])
        assert max(values[:4]) < values[4] < values[5] < values[6]  # type: ignore[type-var, operator]


def test_trials_without_values_stay_as_they_are() -> None:
    others = [Trial(4, {"x": 0.5}), Trial(5, {"x": 0.6}, "failed")]
    assert scalars([*TRIALS, *others], np.array([0.5, 0.5]), GOALS)[4:] == others
    assert scalars(others, np.array([0.5, 0.5]), GOALS) == others


def test_equal_values_and_single_trials_have_finite_numbers() -> None:
    same = [replace(trial, values={"a": 1.0, "b": 1.0}) for trial in TRIALS]
    free = Goals({"a": Goal(), "b": Goal()})
    for trials in (same, same[:1], TRIALS[:1]):
        assert all(value is not None and math.isfinite(value) for value in found([0.3, 0.7], trials, free))


def test_weights_are_drawn_evenly_and_anew_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def spy(trials: Any, weights: np.ndarray, goals: Goals) -> list[Trial]:
        drawn.append(weights)
        return []

    monkeypatch.setattr(parego, "scalars", spy)
    for number in range(300):
        ParEGO().propose(SPACE, [replace(TRIALS[0], number=at) for at in range(number)], goals=GOALS)
    weights = np.array(drawn)
    assert weights.sum(1) == pytest.approx(1) and (weights >= 0).all()
    counts = np.histogram(weights[:, 0], bins=5, range=(0, 1))[0]
    assert len(np.unique(weights[:, 0])) == 300 and ((counts - 60) ** 2 / 60).sum() < 18.5  # 99.9 % of chi-square(4)


def test_it_proposes_what_bayes_does_for_that_number() -> None:
    weights = np.random.default_rng([3, 4]).dirichlet([1, 1])
    single = scalars(TRIALS, weights, GOALS)
    alone = Bayes(start=2, seed=3).propose(SPACE, single, maximise=False)
    assert ParEGO(start=2, seed=3).propose(SPACE, TRIALS, goals=GOALS) == alone


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"start": 0}, ValueError, "start must be 1 or more; got 0."),
        ({"seed": -1}, ValueError, "seed must be 0 or more; got -1."),
        ({"seed": True}, TypeError, "seed must be a whole number; got True."),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        ParEGO(**settings)
    assert str(caught.value) == sentence
