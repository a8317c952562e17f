"""The exercises on many machines: other right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from kit import exercises
from kit.cluster import simulate
from kit.exercises import Verdict
from kit.exercises import workers as room
from kit.search import ASHA, Float, Random, Space, Study, SuccessiveHalving
from kit.search.trials import Proposal


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- a bracket ---------------------------------------------------------------------------------------------------------


def simulated(n: int, workers: int, rungs: Sequence[int], eta: int) -> float:
    """By the kit's halving in virtual time: an independent way to the same number."""

    def objective(config: Any, *, epochs: int) -> float:
        return float(config["x"])

    objective.resumes = True  # type: ignore[attr-defined]
    study = Study(Space({"x": Float(0, 1)}))
    steps = [high - low for low, high in zip((0, *rungs), rungs, strict=False)]
    budget = sum(n // eta**at * step for at, step in enumerate(steps))
    method = SuccessiveHalving(n, min_epochs=rungs[0], max_epochs=rungs[-1], eta=eta)
    how: dict[str, Any] = {"budget": budget, "unit": "epochs", "workers": workers}
    spans = simulate(study, objective, method, duration=lambda config, epochs: float(epochs or 1), **how)
    return budget / (workers * max(span.end or 0.0 for span in spans))


def bracket(
    n: int, workers: int, rungs: Sequence[int], eta: int, *, resumes: bool = True, rounds: Any = math.ceil
) -> Any:
    worked = lasted = before = 0
    for epochs in rungs:
        new, before = epochs - before if resumes else epochs, epochs
        worked, lasted, n = worked + n * new, lasted + rounds(n / workers) * new, n // eta
    return worked / (workers * lasted)


def survivors(n: int, workers: int, rungs: Sequence[int], eta: int, *, divide: Any) -> Any:
    """As `bracket`, with another count of those that go on."""
    worked, lasted, before, left = 0.0, 0.0, 0, float(n)
    for epochs in rungs:
        new, before = epochs - before, epochs
        worked, lasted, left = worked + left * new, lasted + math.ceil(left / workers) * new, divide(left, eta)
    return worked / (workers * lasted)


@pytest.mark.parametrize("right", [simulated, bracket])
def test_the_share_of_a_bracket(right: Any) -> None:
    assert exercises.bracket_utilisation(right).right


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda *given: bracket(*given, resumes=False), "goes on where it stopped"),
        (lambda *given: bracket(*given, rounds=lambda each: max(1.0, each)), "round up"),
        (lambda *given: 1.0, "until the end"),
        (lambda *given: 0.5, "it is 0.3125"),
        (lambda *given: 0.31, "not rounded"),
        (lambda *given: survivors(*given, divide=lambda n, eta: n / eta), "no part of a trial"),
        (lambda *given: survivors(*given, divide=lambda n, eta: math.ceil(n / eta)), "not up"),
        (lambda *given: 31.25, "between 0 and 1"),
        (lambda *given: ..., "three dots"),
    ],
)
def test_a_wrong_share_is_told_why(wrong: Any, reason: str) -> None:
    refused(exercises.bracket_utilisation(wrong), reason)


# -- a driver ----------------------------------------------------------------------------------------------------------


def counted(t: float, d: float, u: float) -> int:
    """One worker more, as long as they work enough."""
    workers = 0
    while t / max(t + d, (workers + 1) * d) >= u - 1e-9:
        workers += 1
    return workers


def test_a_loop_finds_the_workers_too() -> None:
    assert exercises.workers_fed(counted).right


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda t, d, u: t // d, "never wait"),
        (lambda t, d, u: 1 + t // d, "begins to be the bottleneck"),
        (lambda t, d, u: math.floor(u * t / d), "below the line"),
        (lambda t, d, u: math.floor(t / (u * d) + 1e-9), "waits for the driver, too"),
        (lambda t, d, u: t / (u * d), "whole number"),
        (lambda t, d, u: round(t / (u * d)) if u <= t / (t + d) else 0, "round down"),
        (lambda t, d, u: 7, "the most is 133; got 7"),
        (lambda t, d, u: None, "three dots"),
    ],
)
def test_wrong_workers_are_told_why(wrong: Any, reason: str) -> None:
    refused(exercises.workers_fed(wrong), reason)


# -- the open task -----------------------------------------------------------------------------------------------------


class Largest:
    """Needs no answer, so that nobody waits."""

    def __init__(self, seed: int) -> None:
        table = room.table()
        self._cells = [str(table.cells[at]) for at in table.flops.argsort(kind="stable")[::-1]]

    def propose(self, space: Space, trials: Sequence[Any], *, maximise: bool) -> Any:
        return Proposal({"cell": self._cells[len(trials)]})


class Few(Random):
    """Gives up after a few trials."""

    def __init__(self, seed: int, trials: int, epochs: int | None = None) -> None:
        super().__init__(seed)
        self._most, self._epochs = trials, epochs

    def propose(self, space: Space, trials: Sequence[Any], **how: Any) -> Any:
        found = super().propose(space, trials, **how)
        return found._replace(epochs=self._epochs) if found and len(trials) < self._most else None


RUNGS: dict[str, Any] = {"min_epochs": 2, "max_epochs": 8, "eta": 2}


@pytest.mark.parametrize("right", [Largest, lambda seed: ASHA(min_epochs=1, max_epochs=8, eta=3, seed=seed)])
def test_methods_that_reach_the_target_sooner(right: Any) -> None:
    verdict = exercises.fastest_to_target(right)
    assert verdict.right and "times the minutes" in verdict.message, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Random, r"needs 1\.00 times"),
        (lambda seed: SuccessiveHalving(16, **RUNGS, seed=seed), r"needs [1-9]\.\d+ times"),
        (lambda seed: Random(seed + 1000), "counts as beaten when"),
        (lambda seed: Few(seed, 1), "ended without such a network"),
        (lambda seed: Few(seed, 16), "ended without such a network"),
        (lambda seed: Few(seed, 16, epochs=1), "8 of them ended without such a network"),
        (lambda seed: Few(seed, 0), "proposes nothing"),
        (lambda seed: Random, "method must be"),
        (lambda seed: None, "three dots"),
    ],
)
def test_what_is_no_faster(wrong: Any, reason: str) -> None:
    refused(exercises.fastest_to_target(wrong, seeds=range(100, 108)), reason)
