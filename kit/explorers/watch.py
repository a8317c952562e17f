"""One thread a process looks at the board's file while explorers that show it are open, and tells them of a change."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from kit import board

LOOK_SECONDS = 0.5  # until what another process wrote is seen; what this one writes is seen at once


class Follower(Protocol):
    """An explorer that shows what is pinned."""

    def follow(self) -> None:
        """Take up what is on the board now, soon and in another thread."""


_open: WeakSet[Follower] = WeakSet()
_lock = threading.Lock()
_watching = False


def join(explorer: Follower) -> None:
    """Tell this one from now on."""
    global _watching
    with _lock:
        _open.add(explorer)
        if not _watching:
            _watching = True
            threading.Thread(target=_watch, args=[board.stamp()], name="kit board", daemon=True).start()


def leave(explorer: Follower) -> None:
    """Tell this one no longer; with the last one the thread ends."""
    with _lock:
        _open.discard(explorer)
    board.written.set()  # it looks around


def _watch(seen: object) -> None:
    global _watching
    while True:
        woken = board.written.wait(LOOK_SECONDS)
        board.written.clear()
        with _lock:
            _watching = bool(_open)
            if not _watching:
                return
        before, seen = seen, board.stamp()
        if woken or seen != before:
            _tell()


def _tell() -> None:
    """In a function of its own, so that the waiting thread keeps none of them alive."""
    with _lock:
        explorers = list(_open)
    for each in explorers:
        with suppress(RuntimeError):  # closed in this moment
            each.follow()
