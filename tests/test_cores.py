"""Small work has one thread, pieces have one each, and nobody's settings are changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_info

from kit import cores, models, training
from kit.data import Dataset
from kit.training import Callback, Progress


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    """Somebody's own setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def blas() -> set[int]:
    """Threads of each BLAS library."""
    scipy.linalg.inv(np.eye(2))  # loads it
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_small_work_has_one_thread_and_the_settings_come_back() -> None:
    before = blas()
    with cores.one_thread():
        assert (torch.get_num_threads(), blas()) == (1, {1})
        with cores.one_thread(), cores.one_thread(small=False):
            assert (torch.get_num_threads(), blas()) == (1, {1})
        assert (torch.get_num_threads(), blas()) == (1, {1})
    assert (torch.get_num_threads(), blas()) == (3, before)
    with cores.one_thread(small=False):
        assert (torch.get_num_threads(), blas()) == (3, before)
    with pytest.raises(KeyError), cores.one_thread():
        raise KeyError
    assert (torch.get_num_threads(), blas()) == (3, before)


def test_calls_that_overlap_in_two_threads_leave_nothing_behind() -> None:
    before, second_is_in, first_is_out = blas(), threading.Event(), threading.Event()
    found: list[int] = []

    def second() -> None:
        torch.set_num_threads(2)
        with cores.one_thread():
            second_is_in.set()
            first_is_out.wait(60)
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    with cores.one_thread():
        thread.start()
        assert second_is_in.wait(60)
    first_is_out.set()
    thread.join()
    assert found == [1, 2]
    assert (torch.get_num_threads(), blas()) == (3, before)


def test_a_fit_of_a_small_network_is_small_work_and_of_a_large_one_is_not(tiny: Dataset) -> None:
    seen: list[int] = []

    class Look(Callback):
        def on_epoch_end(self, progress: Progress) -> None:
            seen.append(torch.get_num_threads())

    torch.set_num_threads(3)
    for hidden in (4, 200_000):
        training.fit(models.MLP((6, hidden, 3)), tiny, epochs=1, batch_size=200, callbacks=[Look()])
    assert seen == [1, 3]
    assert torch.get_num_threads() == 3


def test_pieces_run_at_once_each_on_one_thread_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count", lambda: 3)
    meeting = threading.Barrier(3, timeout=60)  # broken, where fewer than three run at once

    def piece(number: int) -> tuple[int, int, int]:
        meeting.wait()
        return number, torch.get_num_threads(), threading.get_ident()

    numbers, threads, who = zip(*cores.side_by_side([partial(piece, number) for number in range(3)]), strict=True)
    assert (numbers, threads, len(set(who)), who[0]) == ((0, 1, 2), (1, 1, 1), 3, threading.get_ident())
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(cores, "count", lambda: 1)
    assert set(cores.side_by_side([threading.get_ident] * 4)) == {threading.get_ident()}
    assert cores.side_by_side([]) == []


def test_what_the_first_piece_raises_is_raised_when_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count", lambda: 2)
    ended: list[int] = []

    def slow() -> None:
        time.sleep(0.05)
        ended.append(1)

    def fails(name: str) -> None:
        raise KeyError(name)

    pieces: list[Callable[[], None]] = [slow, partial(fails, "first"), slow, partial(fails, "second")]

    with pytest.raises(KeyError, match="first"):
        cores.side_by_side(pieces)
    with pytest.raises(KeyError, match="first"):
        cores.side_by_side([*pieces[1:2], slow])
    assert ended == [1, 1, 1]
    assert torch.get_num_threads() == 3
