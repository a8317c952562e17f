"""One thread a figure: the latest request wins, kept requests wait their turn, idle time is used."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

from kit.training import Cancelled

Job = Callable[[Event], None]
Idle = Callable[[Event], bool]

_alive: weakref.WeakSet[Worker] = weakref.WeakSet()
_IDLE_TURN = threading.Lock()  # one idle step at a time in the whole process: several explorers share the cores


class Worker:
    """Runs jobs in a thread of its own, so that a control's callback returns at once.

    Args:
        idle: called again and again while nothing is asked for, until it returns False. It gets an event that is set
            when a request comes; it may raise `Cancelled` then.
        on_error: called in the thread with whatever a job or an idle step raises.
    """

    def __init__(self, idle: Idle, on_error: Callable[[Exception], None]) -> None:
        """No thread runs before the first request."""
        self._idle, self._on_error = idle, on_error
        self._changed = threading.Condition()
        self._latest: Job | None = None
        self._kept: deque[Job] = deque()
        self._busy = False  # a job runs
        self._protected = False  # and it is a kept one
        self._idling = True
        self._cancel = Event()
        self._kept_errors: list[Exception] = []  # until a wait raises them
        self._latest_error: Exception | None = None
        self._idle_error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

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
            if not self._protected and not (keep and self._busy):
                self._cancel.set()
            self._idling = True
            self._start()
            self._changed.notify_all()

    @property
    def asked(self) -> bool:
        """Whether a request runs or waits."""
        with self._changed:
            return self._busy or self._latest is not None or bool(self._kept)

    @property
    def newer(self) -> bool:
        """Whether a request waits to replace the running one."""
        return self._latest is not None

    def stop(self) -> None:
        """Cancel what runs and forget the request that waits."""
        with self._changed:
            self._latest = None
            if not self._protected:
                self._cancel.set()
            self._changed.notify_all()

    def close(self, timeout: float = 0.0) -> None:
        """End the thread after the present batch and the kept jobs; wait for that up to `timeout` seconds."""
        with self._changed:
            self._closed = True
        self.stop()
        if self._thread is not None and timeout:
            self._thread.join(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Block until every request is answered.

        Interrupting the kernel here also cancels the work.

        Args:
            timeout: seconds; None waits without end.

        Raises:
            TimeoutError: not answered in time.
            RuntimeError: the worker was closed before it answered.
            Exception: what a kept job or the latest one raised; what else failed is in its notes.
        """
        self._wait(lambda: not self._busy and self._latest is None and not self._kept, timeout)
        with self._changed:
            errors = [error for error in (*self._kept_errors, self._latest_error) if error is not None]
            self._kept_errors, self._latest_error = [], None
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"And before the same wait: {type(other).__name__}: {other}")
            raise errors[0]

    def wait_idle(self, timeout: float | None = None) -> None:
        """Block until every request is answered and the idle work is done; errors as in `wait`, or of the idle work."""
        self.wait(timeout)
        with self._changed:
            self._check_open()
            self._start()
        self._wait(lambda: not self._idling, timeout)
        self.wait(timeout)
        with self._changed:
            error, self._idle_error = self._idle_error, None
        if error is not None:
            raise error

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
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

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("closed: nothing answers here any more; make a new one.")

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="kit explorer", daemon=True)
            self._thread.start()
            _alive.add(self)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._kept or self._latest or self._idling):
                    self._changed.wait()
                if self._closed and not self._kept:
                    return
                self._protected = bool(self._kept)
                if self._kept:
                    job: Job | None = self._kept.popleft()
                else:
                    job, self._latest = self._latest, None
                self._cancel = cancel = Event()
                self._busy = job is not None
            if job is not None:
                self._attempt(job, cancel)
            else:
                self._idle_step(cancel)

    def _attempt(self, job: Job, cancel: Event) -> None:
        error: Exception | None = None
        try:
            job(cancel)
        except Cancelled:
            pass
        except Exception as caught:
            error = caught
            self._on_error(caught)
        finally:
            with self._changed:
                if not self._protected:
                    self._latest_error = error
                elif error is not None:
                    self._kept_errors.append(error)
                self._busy = self._protected = False
                self._changed.notify_all()

    def _idle_step(self, cancel: Event) -> None:
        if not _IDLE_TURN.acquire(timeout=0.02):
            return  # another explorer has the turn: look for requests, then try again
        more, error = False, None
        try:
            more = self._idle(cancel)
        except Cancelled:
            more = True
        except Exception as caught:
            error = caught
            self._on_error(caught)
        finally:
            _IDLE_TURN.release()
        with self._changed:
            self._idle_error = error
            self._idling = more or cancel.is_set()
            self._changed.notify_all()


@contextmanager
def quiet() -> Iterator[None]:
    """Hold the idle turn: no explorer's background work computes meanwhile. For timing."""
    with _IDLE_TURN:
        yield


@atexit.register
def _close_all() -> None:
    """A thread that still computes while the interpreter is taken down would abort the process."""
    for worker in list(_alive):
        worker.close(timeout=5.0)
