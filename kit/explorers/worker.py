"""One thread a figure: the latest request wins, kept requests wait their turn, idle time is used."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from threading import Event
from typing import Any, Literal

import torch

from kit import checks, measure
from kit.training import Cancelled

Job = Callable[[Event], None]
Idle = Callable[[Event], bool]
Kind = Literal["kept", "latest", "aside", "idle"]

CLOSED = "This explorer is closed; run its cell again."
_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


class Worker:
    """Runs jobs in a thread of its own, so that a control's callback returns at once; no thread before the first one.

    Args:
        idle: called again and again while nothing is asked for, until it returns False. It gets an event that is set
            when a request comes; it may raise `Cancelled` then.
        on_error: called in the thread with whatever a job or an idle step raises.
    """

    def __init__(self, idle: Idle, on_error: Callable[[Exception], None]) -> None:
        self._idle, self._on_error = idle, on_error
        self._changed = threading.Condition()
        self._latest: Job | None = None
        self._kept: deque[Job] = deque()
        self._aside: Job | None = None
        self._running: Kind = "idle"
        self._idling, self._closed = True, False
        self._cancel = Event()  # of what runs
        self._errors: dict[Kind, list[Exception]] = {}  # until a wait raises them
        self._thread: threading.Thread | None = None

    def post(self, job: Job, *, keep: bool = False) -> None:
        """Ask for `job`; it gets an event to look at between batches.

        Args:
            job: replaces a request that has not begun and cancels one that runs; raises `Cancelled` when its event is
                set.
            keep: the job must not be lost: it waits its turn and is neither replaced nor cancelled by later ones.

        Raises:
            RuntimeError: the worker is closed.
        """
        with self._changed:
            self._check_open()
            if keep:
                self._kept.append(job)
            else:
                self._latest = job
            if self._running == "idle" or (self._running == "latest" and not keep):
                self._cancel.set()
            self._idling = True
            self._start()
            self._changed.notify_all()

    def aside(self, job: Job) -> None:
        """Ask for a moment's work between requests and pieces of idle work: it cancels none, and no wait is for it.

        It takes the place of another one that has not begun; where the worker is closed nothing happens.
        """
        with self._changed:
            if not self._closed:
                self._aside = job
                self._start()
                self._changed.notify_all()

    @property
    def asked(self) -> bool:
        """Whether a request runs or waits."""
        with self._changed:
            return self._running != "idle" or self._latest is not None or bool(self._kept)

    @property
    def newer(self) -> bool:
        """Whether a request waits to replace the running one."""
        return self._latest is not None

    def stop(self) -> bool:
        """Cancel what runs and forget the request that waits; say whether there was one."""
        with self._changed:
            waited, self._latest = self._latest is not None, None
            if self._running != "kept":
                self._cancel.set()
            self._changed.notify_all()
        return waited

    def close(self, timeout: float = 0.0) -> None:
        """End the thread after the present batch and the kept jobs; wait for that up to `timeout` seconds.

        What fails from now on is told to nobody.
        """
        with self._changed:
            self._closed = True
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Block until every request is answered; a `timeout` of None waits without end.

        Interrupting the kernel here also cancels the work.

        Raises:
            TimeoutError: not answered in that time.
            RuntimeError: the worker was closed before it answered.
            Exception: what a kept job or the latest one raised; what else failed is in its notes.
        """
        self._wait(lambda: not self.asked, timeout)
        self._raise("kept", "latest")

    def wait_idle(self, timeout: float | None = None) -> None:
        """Block until every request is answered and the idle work is done; errors as in `wait`, or of the idle work."""
        self.wait(timeout)
        with self._changed:
            self._check_open()
            self._start()
        self._wait(lambda: not self._idling, timeout)
        self.wait(timeout)
        self._raise("idle")

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + checks.number("timeout", timeout, least=0)
        try:
            with self._changed:
                while not done():
                    self._check_open()
                    if end is not None and time.monotonic() >= end:
                        raise TimeoutError(f"no answer within {timeout:g} seconds.")
                    self._changed.wait(0.1)  # short, so that an interrupt is seen
        except KeyboardInterrupt:
            self.stop()
            raise

    def _raise(self, *kinds: Kind) -> None:
        with self._changed:
            errors = [error for kind in kinds for error in self._errors.pop(kind, [])]
        for other in errors[1:]:
            errors[0].add_note(f"And before the same wait: {type(other).__name__}: {other}")
        if errors:
            raise errors[0]

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._run, args=[torch.get_num_threads()], name="kit explorer", daemon=True
            )
            self._thread.start()
            _alive.add(self)

    def _run(self, threads: int) -> None:
        torch.set_num_threads(threads)  # as where it was asked: a new thread would take over the one of small work
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._kept or self._latest or self._aside or self._idling
                )
                if self._closed and not self._kept:
                    return
                job: Callable[[Event], Any] = self._idle
                if self._kept:
                    self._running, job = "kept", self._kept.popleft()
                elif self._latest is not None:
                    self._running, job, self._latest = "latest", self._latest, None
                elif self._aside is not None:
                    self._running, job, self._aside = "aside", self._aside, None
                self._cancel = cancel = Event()
            self._attempt(self._running, job, cancel)

    def _attempt(self, kind: Kind, job: Callable[[Event], Any], cancel: Event) -> None:
        with measure.computing(patient=kind == "idle", timeout=0.02 if kind == "idle" else None) as entered:
            if not entered:
                return  # another explorer has its turn, or is timed: look for requests, then try again
            errors: list[Exception] = []
            more = True
            try:
                more = bool(job(cancel))
            except Cancelled:
                pass
            except Exception as error:
                more, errors = False, [error]
                if not self._closed:
                    self._on_error(error)
            finally:
                with self._changed:
                    self._errors[kind] = [*self._errors.get(kind, []), *errors] if kind == "kept" else errors
                    if kind == "idle":
                        self._idling = more or cancel.is_set()
                    self._running = "idle"
                    self._changed.notify_all()


@atexit.register
def _close_all() -> None:
    """A thread that still computes while the interpreter is taken down would abort the process."""
    end = time.monotonic() + 5
    for timed in (False, True):  # first tell all, then wait
        for worker in list(_alive):
            worker.close(max(0.0, end - time.monotonic()) * timed)
