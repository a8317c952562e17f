from __future__ import annotations

import _thread
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from kit import measure
from kit.explorers.worker import Worker
from kit.training import Cancelled

PATIENCE = 20.0  # seconds until a test gives up; none needs one


class Desk:
    """A worker with what its jobs leave behind."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.reported: list[Exception] = []
        self.idle: Callable[[Event], bool] = lambda cancel: False
        self.worker = Worker(lambda cancel: self.idle(cancel), self.reported.append)
        self.wait, self.wait_idle = (partial(wait, PATIENCE) for wait in (self.worker.wait, self.worker.wait_idle))

    def post(self, name: object, *, keep: bool = False, seconds: float = 0.0) -> None:
        """Ask for a job that takes some time, cancelled or not; an exception for a name is raised."""

        def run(cancel: Event) -> None:
            time.sleep(seconds)
            if isinstance(name, Exception):
                raise name
            self.done.append(name)

        self.worker.post(run, keep=keep)

    def begin(self, name: object, *, keep: bool = False) -> Event:
        """Ask for a job and wait until it runs; it goes on until it is cancelled or the event is set."""
        began, goes_on = Event(), Event()

        def run(cancel: Event) -> None:
            began.set()
            while not goes_on.wait(0.002):
                if cancel.is_set():
                    raise Cancelled(str(name))
            self.done.append(name)

        self.worker.post(run, keep=keep)
        assert began.wait(PATIENCE)
        return goes_on


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.worker.close(PATIENCE)


def test_no_thread_before_the_first_request_and_of_a_burst_few_run_and_always_the_last(desk: Desk) -> None:
    before = threading.active_count()
    desk.wait()
    assert threading.active_count() == before
    desk.begin("first")
    for number in range(100):
        desk.post(number, seconds=0.01)
    desk.wait()
    assert threading.active_count() == before + 1
    assert desk.done[-1] == 99 and len(desk.done) < 20
    assert "first" not in desk.done and desk.reported == []  # it was cancelled, which is no error


def test_kept_jobs_are_neither_cancelled_nor_replaced(desk: Desk) -> None:
    goes_on = desk.begin("kept 0", keep=True)
    for number in range(1, 4):
        desk.post(f"kept {number}", keep=True)
    for number in range(10):
        desk.post(number)
    assert desk.worker.asked and desk.worker.newer
    assert desk.worker.stop()  # forgets what waits, but no kept job
    assert not desk.worker.stop()
    time.sleep(0.03)
    assert desk.done == []  # the first kept one still runs, uncancelled
    desk.post("latest")
    goes_on.set()
    desk.wait()
    assert desk.done == ["kept 0", "kept 1", "kept 2", "kept 3", "latest"]
    assert not desk.worker.asked
    goes_on = desk.begin("asked")
    desk.post("after it", keep=True)
    time.sleep(0.03)
    goes_on.set()  # nor does a kept one cancel the request that runs
    desk.wait()
    assert desk.done[-2:] == ["asked", "after it"]


def test_wait_raises_an_error_once_and_not_once_a_newer_request_is_answered(desk: Desk) -> None:
    error, reported = ValueError("told in words."), Event()
    desk.post(error)
    with pytest.raises(ValueError, match="told in words"):
        desk.wait()
    desk.wait_idle()
    assert desk.reported == [error]
    desk.worker._on_error = lambda error: reported.set()
    desk.post(ValueError("old."))
    assert reported.wait(PATIENCE)
    desk.post("new")
    desk.wait()
    assert desk.done == ["new"]


def test_errors_of_kept_jobs_survive_until_wait(desk: Desk) -> None:
    for job in (ValueError("one."), KeyError("two"), "kept, good"):
        desk.post(job, keep=True)
    desk.post("latest, good")
    with pytest.raises(ValueError, match="one") as caught:
        desk.wait()
    assert caught.value.__notes__ == ["And before the same wait: KeyError: 'two'"]
    assert desk.done == ["kept, good", "latest, good"]
    desk.wait()


def test_a_timeout_does_not_cancel_and_a_stop_does(desk: Desk) -> None:
    goes_on = desk.begin("slow")
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        desk.worker.wait(0.05)
    goes_on.set()
    desk.wait()
    assert desk.done == ["slow"]  # it was not cancelled
    desk.begin("running")
    desk.worker.stop()
    desk.wait()
    assert desk.done == ["slow"] and desk.reported == []


@pytest.mark.parametrize("waiting", ["wait", "wait_idle"])
def test_an_interrupt_while_waiting_cancels_the_work_and_nothing_else(desk: Desk, waiting: str) -> None:
    desk.begin("interrupted")
    timer = threading.Timer(0.05, _thread.interrupt_main)  # what the notebook's interrupt button does
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        getattr(desk.worker, waiting)(PATIENCE)
    timer.join()
    desk.wait()
    desk.post("after")
    desk.wait()
    assert desk.done == ["after"]


def test_idle_runs_only_when_nothing_is_asked_stops_and_resumes(desk: Desk) -> None:
    steps: list[bool] = []

    def idle(cancel: Event) -> bool:
        steps.append(desk.worker.asked)
        return len(steps) % 5 != 0  # done after five

    desk.idle = idle
    for total, keep in ((5, False), (10, False), (15, True)):
        desk.post(total, keep=keep)
        desk.wait_idle()
        time.sleep(0.03)
        assert len(steps) == total  # and not called again
    assert not any(steps) and desk.reported == []
    began, cancelled = Event(), list[bool]()

    def slow(cancel: Event) -> bool:
        began.set()
        if not cancelled:
            cancelled.append(cancel.wait(PATIENCE))
            raise Cancelled("a request came")
        return False

    desk.idle = slow  # a request cancels a step, which is then taken up again
    desk.post(0)
    assert began.wait(PATIENCE)
    desk.post(1)
    desk.wait_idle()
    assert (desk.done[-2:], cancelled, desk.reported) == ([0, 1], [True], [])


def test_an_idle_error_is_reported_and_the_thread_lives_on(desk: Desk) -> None:
    desk.idle = lambda cancel: bool(1 / 0)
    desk.post(0)
    with pytest.raises(ZeroDivisionError):
        desk.wait_idle()
    assert len(desk.reported) == 1  # and not again and again
    desk.post(1)
    desk.wait()
    assert desk.done == [0, 1]


def test_a_thread_that_died_is_replaced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    desk.worker._on_error = lambda error: [][0]  # the status line is broken
    desk.post(ValueError("first."))
    with pytest.raises(ValueError, match="first"):
        desk.wait()
    assert desk.worker._thread is not None
    desk.worker._thread.join(PATIENCE)
    desk.post(1)
    desk.wait()
    assert desk.done == [1]


def test_a_request_is_answered_while_another_worker_has_the_idle_turn(desk: Desk) -> None:
    other = Desk()
    began, goes_on = Event(), Event()

    def idle(cancel: Event) -> bool:
        began.set()
        goes_on.wait(PATIENCE)
        return False

    desk.idle = idle
    desk.post(0)
    assert began.wait(PATIENCE)
    other.post(1)
    other.wait()
    assert other.done == [1]
    goes_on.set()
    other.worker.close(PATIENCE)


def test_a_job_waits_while_another_thread_times_and_idle_time_is_not_spent_on_waiting(desk: Desk) -> None:
    steps: list[int] = []
    desk.idle = lambda cancel: bool(steps.append(1))  # type: ignore[func-returns-value]
    with measure._alone(None):
        desk.post("asked")
        time.sleep(0.05)
        assert desk.done == steps == []
    desk.wait_idle()
    assert (desk.done, steps) == (["asked"], [1])


def test_close_ends_the_thread_wakes_up_who_waits_and_later_requests_are_refused(desk: Desk) -> None:
    other = Desk()
    goes_on = other.begin("kept", keep=True)
    other.post("waits", keep=True)
    timer = threading.Timer(0.05, other.worker.close)
    timer.start()
    with pytest.raises(RuntimeError, match="closed"):
        other.wait()
    timer.join()
    goes_on.set()
    desk.begin("never ends")
    thread = desk.worker._thread
    assert thread is not None
    desk.worker.close(PATIENCE)
    assert not thread.is_alive() and desk.done == []
    desk.wait()  # nothing is left to wait for
    for late in (lambda: desk.post("late"), desk.wait_idle):
        with pytest.raises(RuntimeError, match="closed"):
            late()


def test_what_fails_after_the_close_is_told_to_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    died, began, ends = list[object](), Event(), Event()
    monkeypatch.setattr(threading, "excepthook", died.append)

    def deaf(cancel: Event) -> None:
        began.set()
        ends.wait(PATIENCE)
        raise ValueError("too late.")

    desk.worker.post(deaf)
    assert began.wait(PATIENCE)
    desk.worker.close(0.01)  # it does not wait for what hears nothing
    ends.set()
    desk.worker.close(PATIENCE)
    assert desk.worker._thread is not None and not desk.worker._thread.is_alive()
    assert desk.reported == died == []


def test_many_threads_asking_stopping_and_waiting_do_not_lock_up(desk: Desk) -> None:
    end, kept, unexpected, idle_dice = time.monotonic() + 2, [0, 0], list[BaseException](), random.Random(2)

    def idle(cancel: Event) -> bool:
        time.sleep(0.001)
        return idle_dice.random() < 0.9

    def short(cancel: Event) -> None:
        if cancel.wait(0.001):
            raise Cancelled("")

    def keep(who: int) -> None:
        kept[who] += 1
        desk.post(who, keep=True)

    def acts(who: int) -> None:
        deeds = lambda: desk.worker.post(short), lambda: keep(who), desk.worker.stop, desk.wait, desk.wait_idle
        dice = random.Random(who)
        try:
            while time.monotonic() < end:
                (act,) = dice.choices(deeds, (50, 20, 15, 10, 5))
                act()
        except BaseException as error:
            unexpected.append(error)

    desk.idle = idle
    threads = [threading.Thread(target=acts, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    desk.wait()
    assert unexpected == desk.reported == []
    assert [desk.done.count(who) for who in range(2)] == kept
    assert min(kept) > 0


def test_a_process_ends_in_good_order_while_a_sweep_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_BOARD", str(tmp_path / "board.sqlite"))
    script = """
        from kit import data, models
        from kit.explorers import PruningExplorer

        explorer = PruningExplorer(models.ConvNet(channels=(8, 16), hidden=32), data.digits())
        explorer.epochs.value = 2  # so that the background trains
        explorer.wait(60)
        print(len(explorer.points()) < 40)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "True", "")


def test_a_moment_aside_cancels_nothing_and_no_wait_is_for_it(desk: Desk) -> None:
    def aside(name: str) -> Callable[[Event], None]:
        return lambda cancel: desk.done.append(name)

    goes_on, began, pieces = desk.begin("request"), Event(), list[str]()

    def idle(cancel: Event) -> bool:
        began.set()
        assert cancel.wait(0.2) is False  # nothing asks it to make room
        pieces.append("piece")
        return len(pieces) < 2

    desk.idle = idle
    desk.worker.aside(aside("lost"))  # to the next one
    desk.worker.aside(aside("while it computes"))
    desk.post("kept", keep=True)
    goes_on.set()
    desk.wait()
    assert began.wait(PATIENCE)
    desk.worker.aside(aside("between the pieces"))
    desk.wait_idle()
    assert desk.done == ["request", "kept", "while it computes", "between the pieces"]
    assert pieces == ["piece"] * 2 and desk.reported == []
    done = Event()
    desk.worker.aside(lambda cancel: done.set())
    assert done.wait(PATIENCE)  # a worker at rest wakes up for it
    assert desk.worker._idling is False
    desk.worker.close(PATIENCE)
    desk.worker.aside(lambda cancel: done.clear())
    assert done.is_set()
