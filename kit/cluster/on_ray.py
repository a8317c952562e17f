"""A study on Ray: trials are tried by actors that live as long as the run, in processes on this machine or on many."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

from kit import checks, cores
from kit.cluster.actor import Worker
from kit.cluster.loop import Ended, Pool, Span, drive
from kit.cluster.ray_start import reached
from kit.search.calling import Call, Objective, takes
from kit.search.running import Run, Unit
from kit.search.study import Study
from kit.search.trials import AnyMethod, Trial

TICK = 0.05  # seconds between two looks at `cancel` and at the limit
GRACE = 5.0  # seconds that a cancelled trial has to end
MOST_WORDS = 300  # characters of an error of Ray


def run(
    study: Study,
    objective: Objective,
    method: AnyMethod,
    *,
    budget: int,
    unit: Unit = "trials",
    epochs: int | None = None,
    batch: int | None = None,
    limit: float | None = None,
    failures: int | None = 3,
    on_trial: Callable[[Trial], None] | None = None,
    cancel: Event | None = None,
    address: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    patience: float = 60.0,
    on_span: Callable[[Span], None] | None = None,
) -> Study:
    """`study.run` with many workers: whenever one is idle, the method is asked; what it gave is told at once.

    This process alone asks and tells, so the study, and its file, are what they are without Ray. Where this process
    ends, told trials stay, and those under way are lost: run it again, and it goes on.

    Each worker gets a copy of the objective, once; what a call changes in it nobody else sees, and NumPy arrays in it
    are shared and read-only. One that `resumes` must find the earlier epochs from any worker. A trial whose worker dies
    (killed, out of memory, its machine gone) is tried again.

    Args:
        study: gets the trials.
        objective: as in `Study.run`; it must be possible to pickle it.
        method: proposes.
        budget: as in `Study.run`.
        unit: as in `Study.run`.
        epochs: as in `Study.run`.
        batch: as in `Study.run`: what one worker is given in one call.
        limit: seconds that one call may take; the worker of one that takes longer is killed and replaced.
        failures: as in `Study.run`.
        on_trial: called here after each trial is told.
        cancel: looked at all the time; calls under way then are told to end where the objective takes `cancel`, and
            killed after 5 seconds, else at once.
        address: of a running cluster, "host:port" as `ray start --head` says it, or "auto" for the one on this machine;
            this process must run on a machine of that cluster. None for what this process has, as in `local`, or else
            for one that is started for this machine and ends with the run.
        workers: calls at once; None for as many as the cluster has CPUs for.
        threads: of each worker, and CPUs that it takes.
        retries: how often a trial is tried again whose worker died.
        patience: seconds that it may take until any worker is there, where none is. On a busy cluster give more, or
            start it with RAY_worker_niceness=0: else its workers give way to whatever runs beside them.
        on_span: called as each trial is given away, and as it ends.

    Returns:
        The study itself.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: no cluster at the address, or one of another version of Ray or Python.
        RuntimeError: the objective failed from the first trial on, or no worker could start.
        TypeError: an objective that cannot be sent; the sentence says what it holds on to. All else as in `Study.run`.
    """
    search = Run(
        study,
        objective,
        method,
        budget=budget,
        unit=unit,
        epochs=epochs,
        batch=batch,
        failures=failures,
        on_trial=on_trial,
        cancel=cancel,
    )
    Call(objective, None, None, batched=batch is not None, goals=study.goals)  # refuses what cannot be called
    if on_span is not None and not callable(on_span):
        raise TypeError(f"on_span must be callable; got {on_span!r}.")
    checks.whole("threads", threads, 1)
    checks.whole("retries", retries)
    checks.number("patience", patience, above=0)
    if limit is not None:
        checks.number("limit", limit, above=0)
    if workers is not None:
        checks.whole("workers", workers, 1)

    @contextmanager
    def actors() -> Iterator[Pool]:
        with reached(address, (workers or cores.count()) * threads) as ray:
            count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
            made = ray.remote(num_cpus=threads, max_concurrency=2)(Worker)  # one call, and `stop` beside it
            pool = _Actors(ray, lambda: made.remote(batch is not None, study.goals, threads), limit, patience)
            try:
                pool.begin(_put(ray, objective), count)
                yield pool
            finally:
                pool.stop(takes(objective, "cancel"))

    drive(search, actors(), retries, on_span)
    return study


class _Actors:
    """The workers on Ray; those that die or take too long are replaced."""

    def __init__(self, ray: Any, make: Callable[[], Any], limit: float | None, patience: float) -> None:
        self._ray, self._make, self._limit, self._patience = ray, make, limit, patience
        self._actors: dict[int, Any] = {}
        self._starting: dict[Any, int] = {}  # what will be known once it is ready -> worker
        self._working: dict[Any, tuple[int, float, int]] = {}  # a call's result -> worker, start, trials
        self._idle: list[int] = []
        self._began = self._seen = time.monotonic()
        self._why = "the cluster has no free CPU for one, or is too busy to start it"

    def begin(self, objective: Any, count: int) -> None:
        self._objective = objective
        for worker in range(count):
            self._start(worker)

    def idle(self) -> int | None:
        return self._idle[0] if self._idle else None

    def give(self, worker: int, trials: Sequence[Trial]) -> float:
        self._idle.remove(worker)
        start = time.monotonic()
        call = self._actors[worker].work.remote([dict(trial.config) for trial in trials], trials[0].epochs)
        self._working[call] = worker, start, len(trials)
        return start - self._began

    def wait(self) -> list[Ended]:
        calls = [*self._starting, *self._working]
        ready, _ = self._ray.wait(calls, timeout=TICK)
        if len(calls) > 1 and ready:
            ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        found = [self._ended(each) for each in ready if each in self._working]
        for each in ready:
            if each in self._starting:
                self._greet(each)
        now = time.monotonic()
        for call, (worker, start, count) in list(self._working.items()):
            if self._limit is not None and now - start > self._limit:
                del self._working[call]
                self._start(worker)
                error = f"took longer than its limit of {self._limit:g} seconds"
                found.append(Ended(worker, now - start, [{"status": "timed out", "error": error}] * count))
        if self._idle or self._working or found:
            self._seen = now
        elif now - self._seen > self._patience:
            raise RuntimeError(f"no worker could start within {self._patience:g} seconds: {self._why}.")
        return found

    def stop(self, softly: bool) -> None:
        """End what is under way, softly first where it can be told; then all workers."""
        if softly and self._working:
            with suppress(Exception):  # the cluster may be gone
                for worker, *_ in self._working.values():
                    self._actors[worker].stop.remote()
                self._ray.wait(list(self._working), num_returns=len(self._working), timeout=GRACE)
        for worker in self._actors:
            self._kill(worker)

    def _start(self, worker: int) -> None:
        """In place of the one that has the number, which may be cut off rather than dead."""
        self._kill(worker)
        self._actors[worker] = self._make()
        self._starting[self._actors[worker].take.remote(self._objective)] = worker

    def _kill(self, worker: int) -> None:
        with suppress(Exception):  # there may be none, or no cluster
            self._ray.kill(self._actors[worker])

    def _greet(self, call: Any) -> None:
        worker = self._starting.pop(call)
        try:
            self._ray.get(call)
            self._idle.append(worker)
        except self._ray.exceptions.RayActorError as error:
            self._why = f"the last one died: {_cause(error)}"
            self._start(worker)
        except self._ray.exceptions.RayError as error:
            raise RuntimeError(f"objective cannot be unpacked by a worker: {_cause(error)}.") from error

    def _ended(self, call: Any) -> Ended:
        worker, start, _ = self._working.pop(call)
        try:
            seconds, outcomes, error = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as raised:  # by the call, not by the objective: it was called wrongly
            raise raised.cause from None
        except self._ray.exceptions.RayError as died:
            self._start(worker)
            return Ended(worker, time.monotonic() - start, None, _cause(died))
        self._idle.append(worker)
        return Ended(worker, seconds, outcomes, error)


def _put(ray: Any, objective: Objective) -> Any:
    """The objective in Ray's store; a TypeError that names what in it cannot be pickled."""
    try:
        return ray.put(objective)
    except Exception as error:
        from ray.util import inspect_serializability

        _, found = inspect_serializability(objective, "objective", print_file=io.StringIO())
        held = " and ".join(sorted(f"{'.'.join(map(str, each.path))}, a {type(each.obj).__name__}" for each in found))
        raise TypeError(f"objective cannot be sent to a worker: it holds on to {held}.") from error


def _cause(error: BaseException) -> str:
    """What of Ray's many lines says why."""
    text = " ".join(str(error).split())
    return text.rpartition("Worker exit detail: ")[2].rstrip(".")[:MOST_WORDS]
