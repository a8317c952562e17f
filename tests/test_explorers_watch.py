"""Open explorers follow the board: what this process writes at once, what another one writes within a second."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit import board, measure, models
from kit.data import Dataset
from kit.explorers import BoardExplorer, PruningExplorer, watch
from kit.models import ConvNet
from tests.explorer_contract import damaged, follows, until
from tests.hands import PATIENCE, settle, words

ELSEWHERE = """
import sys
from types import SimpleNamespace
from kit import board
share, time = (SimpleNamespace(value=0.5, low=0.4, high=0.6, n=9) for _ in range(2))
counts = dict.fromkeys(("parameters", "nonzeros", "dense_bytes", "file_bytes", "flops", "batch_size"), 5000)
profile = SimpleNamespace(accuracy=share, latency=time, broken="", **counts)
for line in sys.stdin:
    verb, *rest = line.rstrip().split("|")
    if verb == "pin":
        board.pin(rest[0], profile, dataset=rest[1], technique="dense")
    else:
        board.clear(rest[0])
"""


class Follower:
    def __init__(self) -> None:
        self.told = threading.Semaphore(0)

    def follow(self) -> None:
        self.told.release()


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kit board"]


@pytest.fixture
def follower(own_board: Path) -> Iterator[Follower]:
    made = Follower()
    watch.join(made)
    yield made
    watch.leave(made)


def test_one_thread_tells_all_and_ends_with_the_last(follower: Follower, own_board: Path) -> None:
    other = Follower()
    watch.join(other)
    assert len(watching()) == 1
    board.written.set()
    for each in (follower, other):
        assert each.told.acquire(timeout=PATIENCE)
    watch.leave(other)
    assert len(watching()) == 1
    assert follower.told.acquire(timeout=PATIENCE)
    (thread,) = watching()
    watch.leave(follower)
    thread.join(PATIENCE)
    assert not thread.is_alive() and watching() == []
    assert not other.told.acquire(timeout=0.01)
    watch.join(follower)  # a new one begins
    own_board.write_bytes(b"anything")  # not by `kit.board`
    assert follower.told.acquire(timeout=PATIENCE)


def test_who_is_forgotten_or_closed_meanwhile_is_no_trouble(follower: Follower) -> None:
    class Closed(Follower):
        def follow(self) -> None:
            super().follow()
            raise RuntimeError("This explorer is closed.")

    closed, forgotten = Closed(), Follower()
    for each in (closed, forgotten):
        watch.join(each)
    board.written.set()
    assert forgotten.told.acquire(timeout=PATIENCE)
    ref = weakref.ref(forgotten)
    del forgotten, each
    for _ in range(2):  # it goes on after an error
        board.written.set()
        assert follower.told.acquire(timeout=PATIENCE) and closed.told.acquire(timeout=PATIENCE)
    gc.collect()
    assert ref() is None
    watch.leave(closed)


@pytest.fixture
def elsewhere(own_board: Path) -> Iterator[Callable[..., None]]:
    """Another notebook's kernel: it does to the board what it is told."""
    with subprocess.Popen([sys.executable, "-c", ELSEWHERE], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None

        def tell(*said: str) -> None:
            assert process.stdin is not None
            process.stdin.write("|".join(said) + "\n")
            process.stdin.flush()

        yield tell
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_explorers_follow_what_another_process_does(elsewhere: Callable[..., None], digits: Dataset) -> None:
    with contextlib.ExitStack() as stack:
        pruning = stack.enter_context(contextlib.closing(PruningExplorer(models.MLP((64, 10)), digits)))
        plane = stack.enter_context(contextlib.closing(BoardExplorer(digits)))
        pruning.wait_curves(PATIENCE)
        plane.wait(PATIENCE)

        def pins() -> list[str]:
            (trace,) = (each for each in pruning.figures["plane"].data if each.name == "on the board")
            return [said[2] for said in trace.customdata]

        elsewhere("pin", "theirs", digits.key)
        until(lambda: follows(pruning, ["theirs"]) and "1 pin for digits" in words(plane))
        assert pins() == ["theirs"] and plane.pin_name.options == ("theirs",) and not plane.remove_button.disabled
        elsewhere("pin", "stranger", "other-data")
        elsewhere("pin", "more", digits.key)
        until(lambda: follows(pruning, ["theirs", "more"]) and plane.names == ("theirs", "more"))
        elsewhere("clear", "theirs")
        until(lambda: follows(pruning, ["more"]) and plane.names == ("more",))
        assert pins() == ["more"] and not plane.restore_button.disabled


def test_a_board_that_is_spoilt_meanwhile_is_said_to_who_asks(
    own_board: Path, digits: Dataset, trained: ConvNet
) -> None:
    profile = measure.profile(trained, digits.validation)
    board.pin("before", profile, dataset=digits.key, technique="dense")
    content = own_board.read_bytes()
    with contextlib.ExitStack() as stack:
        pruning = stack.enter_context(contextlib.closing(PruningExplorer(models.MLP((64, 10)), digits)))
        plane = stack.enter_context(contextlib.closing(BoardExplorer(digits)))
        pruning.wait_curves(PATIENCE)
        plane.wait(PATIENCE)
        said = words(pruning), words(plane)
        damaged(own_board)
        for each in (pruning, plane):
            each.follow()
            until(lambda each=each: each._worker._aside is None and not each._worker.asked)  # type: ignore[misc]
        assert (words(pruning), words(plane)) == said and follows(pruning, ["before"])
        with pytest.raises(board.BoardError, match="is damaged"):
            pruning.read_board()
        settle(pruning, ratio=0.9)
        assert "is damaged" in words(pruning)
        own_board.write_bytes(content)
        until(lambda: "is damaged" not in words(pruning))  # nobody has to ask
        assert words(pruning) == pruning.in_words
