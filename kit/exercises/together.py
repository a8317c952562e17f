"""Checks of the notebook on structure and tuning together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kit import data, models, together, training
from kit.exercises.verdict import Wrong, ahead_of_random, answered, checked
from kit.measure import Estimate
from kit.search import Config, Goals, Random, Space, Study
from kit.search.parego import SUM

LIMIT, TRIALS = 500, 40  # bytes; of one search
ANEW = range(1, 4)  # seeds that judge

Made = dict[str, float]
Search = Callable[[Space, Callable[[Sequence[Mapping[str, Any]]], list[Made]], int, int, np.random.Generator], Any]


@checked
def scalars(answer: Callable[..., Any]) -> str:
    """Make one number of several losses, as ParEGO does: the augmented Tchebycheff norm.

    Args:
        answer: takes losses [n, m], weights [m] that sum to 1, and the corner [m]; returns for each trial the largest
            weighed loss plus 0.05 of their sum, each loss running from 0 at the best of the trials to 1 at the corner.
            [n].
    """
    for seed, n, m in ((0, 3, 2), (1, 6, 2), (2, 5, 3)):
        rng = np.random.default_rng(seed)
        losses, weights = rng.normal(size=(n, m)) * 10 ** np.arange(m), rng.dirichlet(np.ones(m))
        corner = losses.max(0) + rng.random(m)
        given = losses.copy()
        got = np.asarray(answered(answer(given, weights.copy(), corner.copy())), float)
        if got.shape != (n,):
            raise Wrong(f"Return one number for each of the {n} trials, [n]; got the shape {got.shape}.")
        if not np.array_equal(given, losses):
            raise Wrong("The losses that you were given have changed: make new ones.")
        scaled = weights * (losses - losses.min(0)) / (corner - losses.min(0))
        if np.allclose(got, scaled.max(1) + SUM * scaled.sum(1)):
            continue
        by_row = losses - losses.min(1, keepdims=True)
        mistakes = (
            (scaled.max(1), "the sum is missing: two trials that share their largest term are told apart by it."),
            (scaled.sum(1), "this is a weighted sum; it finds the convex part of a front only. Take the largest term."),
            (scaled.max(1) + scaled.sum(1), "the sum weighs 0.05, and the largest term 1."),
            (scaled.min(1) + SUM * scaled.sum(1), "take the largest of the weighed losses, not the smallest."),
            (scaled.max(1) + SUM * (scaled / weights).sum(1), "the sum is of the weighed losses, too."),
            (_tchebycheff(weights * losses / corner), "0 is at the best of the trials, not at a loss of 0."),
            (_tchebycheff(weights * losses), "the losses have units of their own: scale each from best to corner."),
            (
                _tchebycheff(weights * (losses - losses.min(0))),
                "divide each by its range, from the best to the corner.",
            ),
            (
                _tchebycheff(weights * (losses - losses.min(0)) / np.ptp(losses, 0)),
                "1 is at the corner, not at the worst of the trials.",
            ),
            (
                _tchebycheff(weights * by_row / (corner - losses.min(1, keepdims=True))),
                "the best of an objective is the smallest over all trials: over the rows, axis 0.",
            ),
        )
        reason = next((why for value, why in mistakes if np.allclose(got, value)), f"expected {_tchebycheff(scaled)}.")
        raise Wrong(f"For {n} trials of {m} objectives you give {got}: {reason}")
    return "One number a trial; with other weights its smallest is another part of the front."


def _tchebycheff(weighed: np.ndarray) -> np.ndarray:
    return np.asarray(weighed.max(1) + SUM * weighed.sum(1))


@checked
def best_within(
    answer: Search,
    seeds: Sequence[int] = range(100, 108),
    problem: Callable[[int], Any] | None = None,
    *,
    limit: int = LIMIT,
) -> str:
    """The open task: the best network within some bytes, with 40 trials, against random search at the same cost.

    Right is a search whose networks, made anew with other seeds, are better: the whole 95 % interval of the mean
    difference of accuracies is above 0.

    Args:
        answer: takes a `Space`; a function from a list of configurations to a list of {"accuracy": ..., "bytes": ...};
            the limit in bytes; the budget in trials; and a NumPy generator. Returns a configuration that it measured,
            and that kept the limit.
        seeds: of the searches.
        problem: gives the problem of a seed; None for a `together.Problem` of the digits.
        limit: in bytes.
    """
    maker = problem or _problem
    found = [(_judged(answer, maker(seed), limit, seed), _rival(maker, limit, seed)) for seed in seeds]
    return ahead_of_random("networks", Estimate.from_pairs(*zip(*found, strict=True)), 1)


def _judged(answer: Search, problem: Any, limit: int, seed: int) -> float:
    """What the chosen configuration reaches, made anew."""
    measured: dict[Any, Made] = {}

    def measure(configs: Sequence[Mapping[str, Any]]) -> list[Made]:
        if isinstance(configs, Mapping):
            raise Wrong("measure takes a list of configurations; give it [config] for one.")
        made: list[Made] = problem.batch(configs)
        measured.update((_key(config), each) for config, each in zip(configs, made, strict=True))
        if len(measured) > TRIALS:
            raise Wrong(f"You measure {len(measured)} configurations; the budget is {TRIALS}.")
        return made

    rng = np.random.default_rng(seed)
    config = answered(answer(problem.space, measure, limit, TRIALS, rng))
    if not isinstance(config, Mapping):
        raise Wrong(f"Return a configuration, a dict of names and values; got {config!r}.")
    if (made := measured.get(_key(config))) is None:
        raise Wrong("Return a configuration that you have measured.")
    if not made["bytes"] <= limit:
        raise Wrong(f"The network that you return has {made['bytes']:,.0f} bytes; the limit is {limit:,}.")
    return _anew(problem, config)


def _key(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(config.items()))


def _anew(problem: Any, config: Mapping[str, Any]) -> float:
    accuracy: Estimate = problem.retest(config, ANEW)[0]
    return accuracy.value


@functools.cache
def _rival(maker: Callable[[int], Any], limit: int, seed: int) -> float:
    """What random search finds; of searches in which nothing keeps the limit, what guessing gives."""
    problem = maker(seed)
    goals: Goals = problem.goals
    study = Study(problem.space, objectives=goals.goals)
    study.run(problem.batch, Random(seed=seed), budget=TRIALS, batch=TRIALS)
    within = [trial for trial in study.trials if trial.values and trial.values["bytes"] <= limit]
    best: Config | None = max(within, key=lambda trial: trial.values["accuracy"]).config if within else None
    return 0.1 if best is None else _anew(problem, best)


@functools.cache
def _problem(seed: int) -> together.Problem:
    return together.Problem(data.digits(), _teacher(), seed=seed)


@functools.cache
def _teacher() -> models.ConvNet:
    teacher = models.ConvNet()
    training.fit(teacher, data.digits(), epochs=5)
    return teacher
