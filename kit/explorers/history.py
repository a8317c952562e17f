"""States that a reader has left, to go back to them and forth again."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

T = TypeVar("T")

MOMENT = 0.7  # seconds: moves of one control that follow each other within them are one, such as a drag
MOST = 200  # states that are remembered


class History(Generic[T]):
    """The present state, those before it, and those that were taken back."""

    def __init__(self, now: T) -> None:
        self.now = now
        self._past: list[T] = []
        self._future: list[T] = []
        self._moved, self._at = "", 0.0

    def note(self, state: T, moved: str = "") -> None:
        """A move of the control `moved` (of several where it has no name) has led to `state`."""
        if state == self.now:
            return
        at = time.monotonic()
        if not (moved and moved == self._moved and at - self._at < MOMENT and self._past):
            self._past = [*self._past, self.now][-MOST:]
        self._moved, self._at = moved, at
        self._future.clear()
        self.now = state

    @property
    def ends(self) -> tuple[bool, bool]:
        """Whether there is nothing to go back to, and nothing to go forth to."""
        return not self._past, not self._future

    def back(self) -> T | None:
        """The state before; None where there is none."""
        return self._step(self._past, self._future)

    def forth(self) -> T | None:
        """The state that was taken back; None where there is none."""
        return self._step(self._future, self._past)

    def _step(self, source: list[T], target: list[T]) -> T | None:
        if not source:
            return None
        target.append(self.now)
        self.now, self._moved = source.pop(), ""
        return self.now
