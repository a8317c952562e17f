"""Two programs on one board and one study, killed at any moment: what was acknowledged is there, and nothing is broken.

KILLS=200 kills ten times as often.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kit import board
from kit.search import Float, Space, Study

KILLS = int(os.environ.get("KILLS", "20"))
SPACE = Space({"x": Float(0, 1)})

# One program imports once, then forks a writer for every line that it reads. A line is one write to the pipe, so that
# none is torn; it comes after the call returned.
WRITERS = """
import itertools, os, signal, sys
from types import SimpleNamespace
from kit import board
from kit.search import Float, Random, Space, Study

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def write(boards, studies):
    study, me = Study(Space({"x": Float(0, 1)}), path=studies), os.getpid()
    for n in itertools.count(1):
        share, time = (SimpleNamespace(value=n / 2**20, low=0.0, high=1.0, n=n) for _ in range(2))
        counts = dict.fromkeys(("parameters", "nonzeros", "dense_bytes", "file_bytes", "flops", "batch_size"), n)
        profile = SimpleNamespace(accuracy=share, latency=time, broken="", **counts)
        board.pin(f"{me}-{n}", profile, dataset="digits", technique="none", settings={"n": n}, path=boards)
        say("pinned", f"{me}-{n}", n)
        if n % 4 == 0:
            mine = study.enqueue({"x": n / 2**20})
            say("queued", mine.number, mine.config["x"])
        trial = study.ask(Random(0))
        say("asked", trial.number, trial.config["x"])
        study.tell(trial.number, trial.config["x"] ** 2)
        say("told", trial.number, trial.config["x"])

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
say("ready")
for _ in sys.stdin:
    if writer := os.fork():
        say("writer", writer)
        continue
    try:
        write(*sys.argv[1:])
    except BaseException as error:
        say("broke", repr(error))
    os._exit(1)
"""


class Writers:
    """The program, and what it said."""

    def __init__(self, *paths: Path) -> None:
        command = [sys.executable, "-c", WRITERS, *map(str, paths)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: list[list[str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until(lambda: bool(self.lines))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.split(maxsplit=2))

    def said(self, kind: str) -> list[list[str]]:
        return [words for word, *words in list(self.lines) if word == kind]

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline and self._reader.is_alive(), self.lines[-9:]
            time.sleep(0.001)

    def start(self) -> int:
        """One writer more, that has written something."""
        assert self.process.stdin is not None
        before = len(self.said("writer"))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.until(lambda: len(self.said("writer")) > before)
        pid = self.said("writer")[-1][0]
        self.until(
            lambda: bool(self.said("broke")) or any(name.startswith(f"{pid}-") for name, _ in self.said("pinned"))
        )
        return int(pid)

    def close(self) -> None:
        """Read to the end, which is there when all of them are dead."""
        self.process.kill()
        self._reader.join(60)
        assert not self._reader.is_alive()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(60)


def kill(pid: int) -> None:
    """At once; one that broke has gone already, and its last words are looked at."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_what_was_acknowledged_is_there_whoever_is_killed(tmp_path: Path) -> None:
    boards, studies = tmp_path / "board.sqlite", tmp_path / "study.sqlite"
    rng, writers = random.Random(0), Writers(boards, studies)
    alive: list[int] = []
    killed = 0
    try:
        while killed < KILLS and not writers.said("broke"):
            while len(alive) < 2:
                alive.append(writers.start())
            time.sleep(rng.uniform(0, 0.1))
            for pid in rng.sample(alive, rng.choice((1, 1, 2))):
                kill(pid)
                alive.remove(pid)
                killed += 1
    finally:
        for pid in alive:
            kill(pid)
        writers.close()
    assert writers.said("broke") == []
    dead = killed + len(alive)

    pins = board.frame(path=boards).set_index("name")
    for name, n in writers.said("pinned"):
        assert pins.loc[name, "nonzeros"] == int(n)
    for _, row in pins.iterrows():  # nothing is half written
        assert {row["parameters"], row["flops"], row["n"], row["settings"]["n"], row["accuracy"] * 2**20} == {row["n"]}
    assert len(writers.said("pinned")) <= len(pins) <= len(writers.said("pinned")) + dead

    trials = Study(SPACE, path=studies).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.status for trial in trials} <= {"queued", "done", "lost"}  # none is under way
    for word, number, x in [line for line in writers.lines if line[0] in ("queued", "asked", "told")]:
        trial = trials[int(number)]
        assert trial.config["x"] == float(x)
        if word == "told":
            assert (trial.status, trial.value) == ("done", float(x) ** 2)
        elif word == "queued":  # and then taken by one who was killed
            assert trial.status in ("queued", "done")
    for trial in trials:
        assert trial.value == (trial.config["x"] ** 2 if trial.status == "done" else None)
    assert sum(trial.status == "lost" for trial in trials) <= dead
    assert len(writers.said("told")) > dead  # they did come to something

    for path in (boards, studies):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
