"""Checks of the notebook on many machines."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kit.cluster import simulate
from kit.exercises.verdict import Wrong, answered, checked, compare, share
from kit.measure import Estimate
from kit.search import Random, Study, architecture
from kit.search.networks import drawn_seed
from kit.search.trials import Method

WORKERS, BUDGET = 16, 1000  # of the open task; in epochs
TARGET = 0.945  # an accuracy after all epochs
MISSED = 2 * BUDGET / WORKERS  # minutes of a search that never reads it: twice those that its budget lasts
SPREAD = math.log(2) / 1.2816  # so that an epoch in the slowest tenth takes twice the median
HALVED = (1, 2, 4, 8)
CASES = ((16, 16, HALVED, 2), (16, 1, HALVED, 2), (27, 4, (1, 3, 9), 3), (20, 4, (1, 3, 9), 3), (11, 3, HALVED, 2))
FRACTION = (100.0, 1.0, 0.6)  # t / (u d) is 166.67: rounding is not rounding down
table = functools.cache(architecture.load)


@checked
def bracket_utilisation(answer: Callable[[int, int, Sequence[int], int], Any]) -> str:
    """The share of their time in which the workers of one bracket work, all epochs being equally long.

    Args:
        answer: takes the trials that begin, the workers, the epochs that each rung is trained to, and eta; a trial goes
            on where it stopped, and a rung begins when the one below is done. Returns the share, 0 .. 1.
    """
    for n, workers, rungs, eta in CASES:
        got = share(answer(n, workers, rungs, eta))
        steps = [high - low for low, high in zip((0, *rungs), rungs, strict=False)]
        sizes = [n // eta**at for at in range(len(rungs))]

        def busy(trials: Sequence[int], epochs: Sequence[int], rounds: Callable[[float], float]) -> float:
            worked = sum(map(math.prod, zip(trials, epochs, strict=True)))
            lasted = sum(rounds(each / workers) * step for each, step in zip(trials, epochs, strict=True))  # noqa: B023
            return worked / (workers * lasted)  # noqa: B023

        want, case = busy(sizes, steps, math.ceil), f"For {n} trials on {workers} workers, rungs {tuple(rungs)}:"
        mistakes = [
            (busy(sizes, rungs, math.ceil), "a trial goes on where it stopped: a rung costs only its new epochs."),
            (busy(sizes, steps, lambda each: max(1.0, each)), "half a round takes as long as a whole one: round up."),
            (1.0, "all workers would have to work until the end; at the last rung few have anything to do."),
            (busy([n] * len(rungs), steps, math.ceil), "only 1 in eta goes on to the next rung."),
            (
                busy([n / eta**at for at in range(len(rungs))], steps, math.ceil),
                "no part of a trial goes on: round down.",
            ),
            (busy(_rounded_up(n, eta, len(rungs)), steps, math.ceil), "1 in eta goes on, rounded down, not up."),
        ]
        compare(got, want, case, mistakes, f"it is {want:.6g}, not rounded; got {got:.6g}.")
    return "One worker never waits. Sixteen wait most of the time."


def _rounded_up(n: int, eta: int, rungs: int) -> list[int]:
    sizes = [n]
    while len(sizes) < rungs:
        sizes.append(math.ceil(sizes[-1] / eta))
    return sizes


@checked
def workers_fed(answer: Callable[[float, float, float], Any]) -> str:
    """How many workers one driver feeds.

    Args:
        answer: takes the seconds t of a trial, the seconds d that the driver needs for each, and the share u of their
            time that the workers shall work, after the start. Returns the most workers, 0 where even one works less.
    """
    for t, d, u in (
        (60.0, 0.5, 0.9),
        (60.0, 0.5, 0.5),
        (300.0, 0.02, 0.95),
        (1.0, 1.0, 0.6),
        (1.0, 1.0, 0.5),
        FRACTION,
    ):
        got = float(answered(answer(t, d, u)))
        case = f"For t = {t:g}, d = {d:g} and u = {u:g}:"
        if got != round(got) or got < 0:
            raise Wrong(f"{case} you say {got:g}: it must be a whole number, 0 or more.")
        want = math.floor(t / (u * d) + 1e-9) if u <= t / (t + d) else 0
        mistakes = [
            (math.floor(t / (u * d)), "one worker alone waits for the driver, too: it works t of every t + d seconds."),
            (math.floor(t / d), "that is for workers that never wait; u lets them wait a little."),
            (1 + math.floor(t / d), "that is where the driver begins to be the bottleneck; u lets them wait longer."),
            (round(t / (u * d)), "round down: this many work less than u."),
            (math.ceil(t / (u * d)), "one worker fewer: this many work less than u."),
            (math.floor(u * t / d), "the workers wait more, the more of them there are: u belongs below the line."),
        ]
        compare(got, want, case, mistakes, f"the most is {want}; got {got:g}.")
    return "Below the bottleneck a worker works t of t + d seconds, beyond it t of N d."


@checked
def fastest_to_target(answer: Callable[[int], Any], *, seeds: Sequence[int] = range(100, 120)) -> str:
    """The open task: the fewest virtual minutes to an accuracy, on 16 workers, against random search.

    Right is a method that needs less time: the whole 95 % interval of the mean difference of the logarithms is below 0.
    A search that ends without such a network counts twice the minutes that the budget lasts: no early end helps.

    Args:
        answer: takes a seed, and returns a method: one of the kit, or anything with a `propose` like theirs.
        seeds: of the searches; each reads other trainings of the table, and has other durations.
    """
    found = [(_minutes(answered(answer(seed)), seed), _rival(seed)) for seed in seeds]
    gain = Estimate.from_pairs(*np.log(found).T.tolist())
    value, low, high = (math.exp(each) for each in (gain.value, gain.low, gain.high))
    score = (
        f"Your method needs {value:.2f} times the minutes of random search (95 % interval {low:.2f} to {high:.2f}, "
        f"{gain.n} searches)."
    )
    if missed := sum(yours == MISSED for yours, _ in found):
        score += f" {missed} of them ended without such a network: each counts {MISSED:g} minutes."
    if gain.high >= 0:
        raise Wrong(f"{score} It counts as beaten when the whole interval is below 1.")
    return f"{score} The whole interval is below 1: beaten."


def _minutes(method: Method, seed: int) -> float:
    """Until a trial of all epochs reads the target; `MISSED` where none does."""
    objective, study, epochs = table().objective(seed), Study(table().space(), maximise=True), table().epochs

    def seconds(config: dict[str, Any], spent: int | None) -> float:
        drawn = np.random.default_rng(drawn_seed(seed, config)).standard_normal()
        return 60 * (spent or 1) * math.exp(SPREAD * drawn - SPREAD**2 / 2)

    spend: dict[str, Any] = {"budget": BUDGET, "unit": "epochs", "epochs": epochs}
    spans = simulate(study, objective, method, duration=seconds, workers=WORKERS, **spend)
    if not spans:
        raise Wrong(f"In search {seed} your method proposes nothing: it needs one trial, at least.")
    ends = {span.trial: span.end or 0.0 for span in spans}
    hits = [each for each in study.trials if each.epochs == epochs and (each.value or 0.0) >= TARGET]
    return min((ends[each.number] / 60 for each in hits), default=MISSED)


@functools.cache
def _rival(seed: int) -> float:
    """What random search needs."""
    return _minutes(Random(seed), seed)
