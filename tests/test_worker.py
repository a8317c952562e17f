from __future__ import annotations

import _thread
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from kit.explorers.worker import Worker
from kit.training import Cancelled

PATIENCE = 20.0  # seconds until a test gives up; none needs one


class Desk:
    """A worker with what its jobs leave behind."""

    def __init__(self, idle: Callable[[Event], bool] = lambda cancel: False) -> None:
        self.done: list[object] = []
        self.reported: list[Exception] = []
        self.worker = Worker(idle, self.reported.append)

    def job(self, name: object) -> Callable[[Event], None]:
        return lambda cancel: self.done.append(name)

    def slow(self, name: object, began: Event, goes_on: Event) -> Callable[[Event], None]:
        """A job that goes on until it is cancelled or told to end."""

        def run(cancel: Event) -> None:
            began.set()
            while not goes_on.wait(0.002):
                if cancel.is_set():
                    raise Cancelled(str(name))
            self.done.append(name)

        return run

    def fails(self, error: Exception) -> Callable[[Event], None]:
        def run(cancel: Event) -> None:
            raise error

        return run

    def wait(self) -> None:
        self.worker.wait(PATIENCE)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.worker.close(PATIENCE)


def test_no_thread_before_the_first_request(desk: Desk) -> None:
    before = threading.active_count()
    desk.wait()
    assert threading.active_count() == before
    desk.worker.post(desk.job(1))
    desk.wait()
    assert threading.active_count() == before + 1


def test_of_a_burst_few_run_and_always_the_last(desk: Desk) -> None:
    began, goes_on = Event(), Event()
    desk.worker.post(desk.slow("first", began, goes_on))
    assert began.wait(PATIENCE)

    def one(number: int) -> Callable[[Event], None]:
        def run(cancel: Event) -> None:
            time.sleep(0.01)
            desk.done.append(number)

        return run

    for number in range(100):
        desk.worker.post(one(number))
    desk.wait()
    assert desk.done[-1] == 99
    assert "first" not in desk.done  # it was cancelled
    assert len(desk.done) < 20


def test_a_newer_request_cancels_the_running_one(desk: Desk) -> None:
    began = Event()
    desk.worker.post(desk.slow("old", began, Event()))
    assert began.wait(PATIENCE)
    desk.worker.post(desk.job("new"))
    desk.wait()
    assert desk.done == ["new"]
    assert desk.reported == []  # to be cancelled is no error


def test_kept_jobs_are_neither_cancelled_nor_replaced(desk: Desk) -> None:
    began, goes_on = Event(), Event()
    desk.worker.post(desk.slow("kept 0", began, goes_on), keep=True)
    for number in range(1, 4):
        desk.worker.post(desk.job(f"kept {number}"), keep=True)
    assert began.wait(PATIENCE)
    for number in range(10):
        desk.worker.post(desk.job(number))
    desk.worker.stop()  # forgets what waits, but no kept job
    time.sleep(0.03)
    assert desk.done == []  # the first kept one still runs, uncancelled
    desk.worker.post(desk.job("latest"))
    goes_on.set()
    desk.wait()
    assert desk.done == ["kept 0", "kept 1", "kept 2", "kept 3", "latest"]


def test_a_kept_job_does_not_cancel_the_running_request(desk: Desk) -> None:
    began, goes_on = Event(), Event()
    desk.worker.post(desk.slow("asked", began, goes_on))
    assert began.wait(PATIENCE)
    desk.worker.post(desk.job("kept"), keep=True)
    time.sleep(0.03)
    goes_on.set()
    desk.wait()
    assert desk.done == ["asked", "kept"]


def test_wait_raises_an_error_once(desk: Desk) -> None:
    error = ValueError("told in words.")
    desk.worker.post(desk.fails(error))
    with pytest.raises(ValueError, match="told in words"):
        desk.wait()
    desk.wait()
    desk.worker.wait_idle(PATIENCE)
    assert desk.reported == [error]
    desk.worker.post(desk.job("after"))
    desk.wait()
    assert desk.done == ["after"]


def test_a_good_answer_clears_the_error_of_an_older_request(desk: Desk) -> None:
    began = Event()

    def fails(cancel: Event) -> None:
        began.set()
        raise ValueError("old.")

    desk.worker.post(fails)
    assert began.wait(PATIENCE)
    desk.worker.post(desk.job("new"))
    desk.wait()
    assert desk.done == ["new"]
    assert [str(error) for error in desk.reported] == ["old."]


def test_errors_of_kept_jobs_survive_until_wait(desk: Desk) -> None:
    desk.worker.post(desk.fails(ValueError("one.")), keep=True)
    desk.worker.post(desk.fails(KeyError("two")), keep=True)
    desk.worker.post(desk.job("kept, good"), keep=True)
    desk.worker.post(desk.job("latest, good"))
    with pytest.raises(ValueError, match="one") as caught:
        desk.wait()
    assert caught.value.__notes__ == ["And before the same wait: KeyError: 'two'"]
    assert desk.done == ["kept, good", "latest, good"]
    desk.wait()


def test_wait_gives_up_after_its_timeout(desk: Desk) -> None:
    goes_on = Event()
    desk.worker.post(desk.slow("slow", Event(), goes_on))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        desk.worker.wait(0.05)
    assert 0.05 <= time.monotonic() - began < 5
    goes_on.set()
    desk.wait()
    assert desk.done == ["slow"]  # it was not cancelled


def test_stop_forgets_the_running_and_the_waiting_request(desk: Desk) -> None:
    began = Event()
    desk.worker.post(desk.slow("running", began, Event()))
    assert began.wait(PATIENCE)
    desk.worker.stop()
    desk.wait()
    assert desk.done == []
    assert desk.reported == []


@pytest.mark.parametrize("waiting", ["wait", "wait_idle"])
def test_an_interrupt_while_waiting_cancels_the_work_and_nothing_else(desk: Desk, waiting: str) -> None:
    began, ended = Event(), Event()

    def run(cancel: Event) -> None:
        began.set()
        if cancel.wait(PATIENCE):
            ended.set()
            raise Cancelled("stopped")

    desk.worker.post(run)
    assert began.wait(PATIENCE)
    timer = threading.Timer(0.05, _thread.interrupt_main)  # what the notebook's interrupt button does
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        getattr(desk.worker, waiting)(PATIENCE)
    timer.join()
    assert ended.wait(PATIENCE)
    desk.wait()
    desk.worker.post(desk.job("after"))
    desk.wait()
    assert desk.done == ["after"]


def test_idle_runs_only_when_nothing_is_asked_stops_and_resumes() -> None:
    steps: list[int] = []
    busy = Event()

    def idle(cancel: Event) -> bool:
        assert not busy.is_set()
        steps.append(len(steps))
        return len(steps) % 5 != 0  # done after five

    def job(cancel: Event) -> None:
        busy.set()
        time.sleep(0.01)
        busy.clear()

    desk = Desk(idle)
    desk.worker.post(job)
    desk.worker.wait_idle(PATIENCE)
    assert len(steps) == 5
    time.sleep(0.05)
    assert len(steps) == 5  # not called again
    desk.worker.post(job)
    desk.worker.wait_idle(PATIENCE)
    assert len(steps) == 10
    desk.worker.post(job, keep=True)
    desk.worker.wait_idle(PATIENCE)
    assert len(steps) == 15
    assert desk.reported == []
    desk.worker.close(PATIENCE)


def test_a_request_cancels_an_idle_step_which_is_then_taken_up_again() -> None:
    began, cancelled = Event(), list[bool]()

    def idle(cancel: Event) -> bool:
        began.set()
        if not cancelled:
            assert cancel.wait(PATIENCE)
            cancelled.append(True)
            raise Cancelled("a request came")
        return False

    desk = Desk(idle)
    desk.worker.post(desk.job(0))
    assert began.wait(PATIENCE)
    desk.worker.post(desk.job(1))
    desk.worker.wait_idle(PATIENCE)
    assert (desk.done, cancelled, desk.reported) == ([0, 1], [True], [])
    desk.worker.close(PATIENCE)


def test_an_idle_error_is_reported_and_the_thread_lives_on() -> None:
    def idle(cancel: Event) -> bool:
        raise ValueError("in the background.")

    desk = Desk(idle)
    desk.worker.post(desk.job(0))
    with pytest.raises(ValueError, match="in the background"):
        desk.worker.wait_idle(PATIENCE)
    assert [str(error) for error in desk.reported] == ["in the background."]  # and not again and again
    desk.worker.post(desk.job(1))
    desk.wait()
    assert desk.done == [0, 1]
    desk.worker.close(PATIENCE)


def test_a_thread_that_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)

    def report(error: Exception) -> None:
        raise RuntimeError("the status line is broken")

    def fails(cancel: Event) -> None:
        raise ValueError("first.")

    done: list[int] = []
    worker = Worker(lambda cancel: False, report)
    worker.post(fails)
    with pytest.raises(ValueError, match="first"):
        worker.wait(PATIENCE)
    assert worker._thread is not None
    worker._thread.join(PATIENCE)
    worker.post(lambda cancel: done.append(1))
    worker.wait(PATIENCE)
    assert done == [1]
    worker.close(PATIENCE)


def test_two_workers_take_turns_in_idle_time() -> None:
    inside, most = [0], [0]
    steps = {"a": 0, "b": 0}

    def made(name: str) -> Callable[[Event], bool]:
        def idle(cancel: Event) -> bool:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            inside[0] -= 1
            steps[name] += 1
            return steps[name] < 20

        return idle

    desks = [Desk(made(name)) for name in steps]
    for desk in desks:
        desk.worker.post(desk.job("asked"))
    for desk in desks:
        desk.worker.wait_idle(PATIENCE)
    assert steps == {"a": 20, "b": 20}
    assert most == [1]  # never both at once
    for desk in desks:
        desk.worker.close(PATIENCE)


def test_a_request_is_answered_while_another_worker_has_the_idle_turn() -> None:
    began, goes_on = Event(), Event()

    def idle(cancel: Event) -> bool:
        began.set()
        goes_on.wait(PATIENCE)
        return False

    hog, other = Desk(idle), Desk()
    hog.worker.post(hog.job(0))
    assert began.wait(PATIENCE)
    other.worker.post(other.job(1))
    other.wait()
    assert other.done == [1]
    goes_on.set()
    for desk in (hog, other):
        desk.worker.close(PATIENCE)


def test_close_ends_the_thread_and_later_requests_are_refused(desk: Desk) -> None:
    desk.worker.post(desk.slow("never ends", Event(), Event()))
    thread = desk.worker._thread
    assert thread is not None
    desk.worker.close(PATIENCE)
    assert not thread.is_alive()
    assert desk.done == []
    desk.worker.wait(PATIENCE)  # nothing is left to wait for
    with pytest.raises(RuntimeError, match="closed"):
        desk.worker.post(desk.job("late"))
    with pytest.raises(RuntimeError, match="closed"):
        desk.worker.wait_idle(PATIENCE)


def test_close_wakes_up_who_waits(desk: Desk) -> None:
    began, goes_on = Event(), Event()
    desk.worker.post(desk.slow("kept", began, goes_on), keep=True)
    desk.worker.post(desk.job("waits"), keep=True)
    assert began.wait(PATIENCE)
    timer = threading.Timer(0.05, desk.worker.close)
    timer.start()
    with pytest.raises(RuntimeError, match="closed"):
        desk.wait()
    timer.join()
    goes_on.set()


def test_many_threads_asking_stopping_and_waiting_do_not_lock_up() -> None:
    end = time.monotonic() + 2
    kept_asked, kept_done, unexpected = [0, 0], [0, 0], list[BaseException]()

    idle_dice = random.Random(2)

    def idle(cancel: Event) -> bool:
        time.sleep(0.001)
        return idle_dice.random() < 0.9

    def kept(who: int) -> Callable[[Event], None]:
        def run(cancel: Event) -> None:
            kept_done[who] += 1

        return run

    def short(cancel: Event) -> None:
        if cancel.wait(0.001):
            raise Cancelled("")

    desk = Desk(idle)

    def acts(who: int) -> None:
        dice = random.Random(who)
        try:
            while time.monotonic() < end:
                act = dice.random()
                if act < 0.5:
                    desk.worker.post(short)
                elif act < 0.7:
                    kept_asked[who] += 1
                    desk.worker.post(kept(who), keep=True)
                elif act < 0.85:
                    desk.worker.stop()
                elif act < 0.95:
                    desk.wait()
                else:
                    desk.worker.wait_idle(PATIENCE)
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=acts, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    desk.wait()
    assert unexpected == []
    assert desk.reported == []
    assert kept_done == kept_asked
    assert min(kept_asked) > 0
    desk.worker.close(PATIENCE)


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
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "True", "")
