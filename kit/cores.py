"""Small work on one thread, independent pieces side by side.

A matrix product of a few thousand numbers ends before a second thread has woken. Threads that meet after each such
product gain little on an idle machine; where other programs compute they make the work ten times slower, since at each
meeting one of them is not running. Pieces that need not meet, each in a thread of its own, gain on both.

Nobody else's settings change: torch has a number of threads for each thread that calls it. BLAS has one for the whole
process, which it gets back when the call that changed it ends.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Answer = TypeVar("Answer")

_blas_limited = Lock()  # held by the one call that limits BLAS: two that overlap would undo each other's limit


def count() -> int:
    """Cores that this process may use, 1 or more: as many as the variable KIT_CORES says, where it is set."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("KIT_CORES") or here)  # a worker of `kit.cluster` shares the machine with others


@contextmanager
def one_thread(small: bool = True) -> Iterator[None]:
    """One thread for torch's operations in this thread, and for BLAS; nothing changes where the work is not `small`.

    Torch is left alone where it is not loaded.
    """
    if not small:
        yield
        return
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    with ExitStack() as stack:
        if _blas_limited.acquire(blocking=False):
            stack.callback(_blas_limited.release)
            stack.enter_context(_blas(*(name in sys.modules for name in ("numpy", "scipy.linalg"))).limit(limits=1))
        if before > 1:
            stack.callback(torch.set_num_threads, before)
            torch.set_num_threads(1)
        yield


@functools.lru_cache
def _blas(*loaded: bool) -> ThreadpoolController:
    """The BLAS libraries that are loaded; looked for again once there are more."""
    return ThreadpoolController().select(user_api="blas")


def side_by_side(pieces: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Compute pieces at once, each on one thread of its own, at most as many as there are cores; their answers.

    The calling thread takes the first piece. What the first piece that fails raises is raised, once all have ended.
    """
    if min(len(pieces), count()) < 2:
        return [piece() for piece in pieces]

    def alone(piece: Callable[[], Answer]) -> Answer:
        with one_thread():
            return piece()

    with ThreadPoolExecutor(min(len(pieces), count()) - 1, thread_name_prefix="kit piece") as threads:
        later = [threads.submit(alone, piece) for piece in pieces[1:]]
        return [alone(pieces[0]), *[each.result() for each in later]]
