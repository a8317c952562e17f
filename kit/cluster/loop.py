"""Who works on what: one loop gives trials to idle workers and tells what came out, on Ray or in virtual time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from kit.search.calling import Outcome
from kit.search.running import Run
from kit.search.trials import Trial


@dataclass(frozen=True)
class Span:
    """The time that a worker spent on a trial; those of a cohort have it in common.

    Attributes:
        worker: its number, from 0; one that replaces another takes its number.
        trial: its number in the study.
        start: seconds from the start of the run to where the trial was given away.
        end: the same, to where the worker was done with it; None while it works.
        status: what the trial became; "asked" while the worker works, "died" where the worker did.
    """

    worker: int
    trial: int
    start: float
    end: float | None = None
    status: str = "asked"


class Ended(NamedTuple):
    """A call that came to its end.

    Attributes:
        worker: who was given it.
        seconds: that it took.
        outcomes: of its trials; None where the worker died.
        why: the error that made its trials fail, or what the worker died of.
    """

    worker: int
    seconds: float
    outcomes: list[Outcome] | None
    why: str = ""


class Pool(Protocol):
    """Workers, each with at most one call at a time."""

    def idle(self) -> int | None:
        """A worker that has nothing to do; None where all work or are not there yet."""
        ...

    def give(self, worker: int, trials: Sequence[Trial]) -> float:
        """Have an idle worker try these in one call; the seconds since the run began."""
        ...

    def wait(self) -> list[Ended]:
        """The calls that ended meanwhile; waits for one, but not for long."""
        ...


def drive(run: Run, pool: AbstractContextManager[Pool], retries: int, on_span: Callable[[Span], None] | None) -> None:
    """Ask whenever a worker is idle, until there is nothing left; the pool is entered only if there is something to do.

    Trials whose worker died are given away again, each alone, so that one of a cohort that kills its worker does not
    take the others with it; after `retries` times they have failed.
    """
    again: deque[list[Trial]] = deque()
    deaths: Counter[int] = Counter()
    calls: dict[int, tuple[list[Trial], list[Span]]] = {}  # by worker

    def say(spans: Sequence[Span]) -> None:
        if on_span is not None:
            for span in spans:
                on_span(span)

    with closing(run), ExitStack() as entered:
        workers: Pool | None = None
        while not run.cancelled:
            if not calls and not again:
                if not (trials := run.next()):
                    return
                again.append(trials)
            if workers is None:
                workers = entered.enter_context(pool)
            while (worker := workers.idle()) is not None and (trials := again.popleft() if again else run.next()):
                start = workers.give(worker, trials)
                calls[worker] = trials, [Span(worker, trial.number, start) for trial in trials]
                say(calls[worker][1])
            for ended in workers.wait():
                trials, spans = calls.pop(ended.worker)
                statuses = ["died"] * len(trials) if ended.outcomes is None else [o["status"] for o in ended.outcomes]
                end = spans[0].start + ended.seconds
                say([replace(span, end=end, status=each) for span, each in zip(spans, statuses, strict=True)])
                if ended.outcomes is not None:
                    raised = RuntimeError(ended.why) if ended.why else None
                    run.tell(trials, ended.outcomes, ended.seconds, raised)
                    continue
                deaths.update(trial.number for trial in trials)
                for trial in trials:
                    times = deaths[trial.number]
                    if times <= retries:
                        again.append([trial])
                    else:
                        died = f"its worker died{f' {times} times, at last' * (times > 1)}: {ended.why}"
                        run.tell([trial], [{"status": "failed", "error": died}], ended.seconds)
