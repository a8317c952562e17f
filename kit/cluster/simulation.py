"""Many workers in virtual time: no Ray, no waiting, the same every time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from kit import checks
from kit.cluster.loop import Ended, Span, drive
from kit.search.calling import Call, Objective
from kit.search.running import Run, Unit
from kit.search.space import Config
from kit.search.study import Study
from kit.search.trials import AnyMethod, Trial

Duration = Callable[[Config, int | None], float]


def simulate(
    study: Study,
    objective: Objective,
    method: AnyMethod,
    *,
    budget: int,
    duration: Duration,
    workers: int,
    unit: Unit = "trials",
    epochs: int | None = None,
    failures: int | None = 3,
    overhead: float | Callable[[int], float] = 0.0,
) -> tuple[Span, ...]:
    """Search as `run` does, with workers whose seconds are only counted: a discrete-event simulation.

    Each trial is asked for when a worker is idle, and told when its virtual time is over. All that the driver does, it
    does one after the other, so with a thousand workers it may keep them waiting.

    Args:
        study: gets the trials; their `seconds` are virtual.
        objective: called at once, as in `Study.run`.
        method: proposes.
        budget: as in `Study.run`.
        duration: the seconds of a trial, above 0, by its configuration and the epochs that it trains itself (None
            where it has none).
        workers: how many, 1 or more.
        unit: as in `Study.run`.
        epochs: as in `Study.run`.
        failures: as in `Study.run`.
        overhead: seconds that the driver needs to ask for and to tell a trial; a function is given the trial's number.

    Returns:
        Who worked when, in the order of the ends.

    Raises:
        TypeError, ValueError: an argument out of range; all else as in `Study.run`.
    """
    checks.whole("workers", workers, 1)
    cost = overhead if callable(overhead) else _constant(checks.number("overhead", overhead, least=0))
    limits: dict[str, Any] = {"budget": budget, "unit": unit, "epochs": epochs, "failures": failures}
    run = Run(study, objective, method, batch=None, on_trial=None, cancel=None, **limits)
    call = Call(objective, None, None, batched=False, goals=study.goals)
    spans: list[Span] = []
    pool = _Clock(workers, call, duration, cost)
    drive(run, nullcontext(pool), 0, lambda span: spans.append(span) if span.end is not None else None)
    return tuple(spans)


class _Clock:
    """The workers, and the driver's clock."""

    def __init__(self, workers: int, call: Call, duration: Duration, cost: Callable[[int], float]) -> None:
        self._call, self._duration, self._cost, self._now = call, duration, cost, 0.0
        self._idle = list(range(workers))  # a heap
        self._ends: list[tuple[float, int, float, Trial]] = []  # a heap: end, worker, seconds, trial

    def idle(self) -> int | None:
        return self._idle[0] if self._idle else None

    def give(self, worker: int, trials: Sequence[Trial]) -> float:
        (trial,) = trials
        self._now += self._cost(trial.number)
        seconds = checks.number("duration", self._duration(dict(trial.config), trial.spent or None), above=0)
        heapq.heappop(self._idle)
        heapq.heappush(self._ends, (self._now + seconds, worker, seconds, trial))
        return self._now

    def wait(self) -> list[Ended]:
        end, worker, seconds, trial = heapq.heappop(self._ends)
        self._now = max(self._now, end)
        heapq.heappush(self._idle, worker)
        return [Ended(worker, seconds, self._call([dict(trial.config)], trial.epochs))]


def _constant(seconds: float) -> Callable[[int], float]:
    return lambda number: seconds
