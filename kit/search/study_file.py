"""Where a study keeps its trials: in memory, or in an SQLite file that several processes may share.

A file is read whole, and checked by SQLite, when a study first uses it. From then on only rows that changed are read:
every writing of a trial takes the next revision number. A file that is another one now (its name drawn at its first
writing differs), or an older copy (its last revision is below what was seen), is read whole again.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from kit.search.pareto import Goals
from kit.search.space import Space
from kit.search.trials import STATUSES, Proposal, Status, Trial
from kit.store import Store


class StudyError(RuntimeError):
    """The study's file cannot be used: absent folder, no study, damaged, newer, locked, or read-only."""


STORE = Store(
    noun="study",
    letters=b"kits",
    version=3,
    older={
        2: (
            "ALTER TABLE study ADD COLUMN goals TEXT NOT NULL DEFAULT 'null'",
            "ALTER TABLE trials ADD COLUMN measured TEXT NOT NULL DEFAULT '{}'",
        )
    },
    tables=(
        "CREATE TABLE study (space TEXT NOT NULL, maximise INTEGER NOT NULL, name TEXT NOT NULL, goals TEXT NOT NULL)",
        """CREATE TABLE trials (
            number INTEGER PRIMARY KEY, config TEXT NOT NULL, status TEXT NOT NULL, epochs INTEGER, continues INTEGER,
            bracket INTEGER, value REAL, scores TEXT NOT NULL, spent INTEGER NOT NULL, seconds REAL NOT NULL,
            error TEXT NOT NULL, worker TEXT NOT NULL, revision INTEGER NOT NULL UNIQUE, measured TEXT NOT NULL)""",
    ),
    way_out="give path",
    error=StudyError,
    busy_seconds=30.0,  # a method proposes inside the lock, so that two processes do not propose the same
)


QUEUED = " queued"  # after the worker of a trial that was taken off the queue


@dataclass(frozen=True)
class Book:
    """The trials by number, oldest first, inside one transaction; without a connection they are changed themselves."""

    trials: dict[int, Trial]
    connection: sqlite3.Connection | None

    def add(self, proposal: Proposal, price: int, status: Status = "asked") -> Trial:
        """Write a proposal down as the next trial; `price` is the epochs that it will train."""
        number = next(reversed(self.trials), -1) + 1
        return self.put(Trial(number, dict(proposal.config), status, *proposal[1:], spent=price))

    def put(self, trial: Trial) -> Trial:
        """Write a trial down, in place of what stands under its number."""
        if self.connection is None:
            self.trials[trial.number] = trial
            return trial
        row = {**vars(trial), "config": json.dumps(trial.config), "scores": json.dumps(trial.scores)}
        row["measured"] = json.dumps(row.pop("values"))  # VALUES is a word of SQL
        queued = trial.number in self.trials and self.trials[trial.number].status == "queued"
        row["worker"] = _worker(os.getpid()) + QUEUED * queued
        self.connection.execute(
            f"INSERT OR REPLACE INTO trials ({', '.join(row)}, revision) VALUES "
            f"({', '.join(f':{name}' for name in row)}, (SELECT ifnull(max(revision), 0) + 1 FROM trials))",
            row,
        )
        return trial


class Shelf:
    """Keeps the trials of one study; arguments and errors as in `Study`."""

    def __init__(self, space: Space, maximise: bool, goals: Goals | None, path: Path | str | None) -> None:
        self._space, self._maximise, self._goals = space, maximise, json.dumps(goals and goals.as_json())
        self._path = None if path is None or str(path) == ":memory:" else STORE.file(path)
        self._lock = threading.RLock()
        self._forget()
        with self.book(write=False):
            pass

    @contextmanager
    def book(self, *, write: bool) -> Iterator[Book]:
        """The trials, as the file holds them now, inside one transaction.

        Trials of dead processes are lost; those that were taken off the queue are queued again.
        """
        with self._lock:
            if self._path is None:
                yield Book(self._trials, None)
                return
            with STORE.transaction(self._path, write=write, check=not self._name) as connection:
                self._catch_up(connection, self._path, write=write)
                yield Book(self._trials, connection)

    def _forget(self) -> None:
        self._name, self._revision = "", 0  # of the file, and of what was read of it
        self._trials: dict[int, Trial] = {}
        self._asked: dict[int, str] = {}  # number -> worker

    def _catch_up(self, connection: sqlite3.Connection, path: Path, *, write: bool) -> None:
        """Read what changed. What this study writes is read back too: it stands in the file then, and not before."""
        latest = "(SELECT ifnull(max(revision), 0) FROM trials) AS latest"
        row = connection.execute(f"SELECT *, {latest} FROM study").fetchone()
        if self._name and (row is None or row["name"] != self._name or row["latest"] < self._revision):
            self._forget()
            if row is not None:
                STORE.check(connection, path)
        if row is None:
            if write:
                values = [json.dumps(self._space.as_json()), self._maximise, uuid.uuid4().hex, self._goals]
                connection.execute("INSERT INTO study VALUES (?, ?, ?, ?)", values)
            return
        if not self._name:
            goals = row["goals"] if "goals" in row.keys() else "null"  # noqa: SIM118 (of values, not of names)
            self._check_same(row["space"], bool(row["maximise"]), goals, path)
        changed = "SELECT * FROM trials WHERE revision > ? ORDER BY number"
        for trial, worker in [_read(each, path) for each in connection.execute(changed, [self._revision])]:
            self._trials[trial.number] = trial
            self._asked.pop(trial.number, None)
            if trial.status == "asked":
                self._asked[trial.number] = worker
        self._name, self._revision = row["name"], row["latest"]
        try:
            dead = [number for number, worker in self._asked.items() if not _alive(worker)]
        except ValueError as error:
            self._forget()
            raise StudyError(STORE.damaged(path, "a trial in it cannot be read")) from error
        for number in dead:
            status: Status = "queued" if self._asked.pop(number).endswith(QUEUED) else "lost"
            self._trials[number] = replace(self._trials[number], status=status)

    def _check_same(self, space: str, maximise: bool, goals: str, path: Path) -> None:
        mine, theirs = self._space.as_json(), json.loads(space)
        if json.dumps(theirs) != json.dumps(mine):  # as texts: 1, 1.0 and True are different options
            names = {**mine, **theirs}
            apart = [name for name in names if json.dumps(mine.get(name)) != json.dumps(theirs.get(name))]
            what = f"that of the study in {path}, which differs in {', '.join(apart or ['their order'])}"
            raise ValueError(f"space is another than {what}: give the same space, or another path.")
        if maximise != self._maximise:
            other = "maximises" if maximise else "minimises"
            raise ValueError(f"maximise is {self._maximise}, and the study in {path} {other}.")
        if goals != self._goals:
            has = f"has {goals}" if json.loads(goals) else "has one objective"
            raise ValueError(
                f"objectives are others than those of the study in {path}, which {has}: give another path."
            )


def _read(row: sqlite3.Row, path: Path) -> tuple[Trial, str]:
    """Trial and worker of a row."""
    named = dict(row)
    try:
        worker, _ = named.pop("worker"), named.pop("revision")
        named["config"], named["scores"] = dict(json.loads(named["config"])), tuple(json.loads(named["scores"]))
        named["values"] = dict(json.loads(named.pop("measured", "{}")))
        if named["status"] not in STATUSES:
            raise ValueError(named["status"])
        return Trial(**named), worker
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(STORE.damaged(path, "a trial in it cannot be read")) from error


@functools.lru_cache(maxsize=1)
def _worker(pid: int) -> str:
    """What tells this process from all others, now and later; by its number, which a fork changes."""
    return f"{platform.node()} {pid} {psutil.Process(pid).create_time()}"


def _alive(worker: str) -> bool:
    """Whether the process may still tell: it runs, or it is on another machine."""
    worker = worker.removesuffix(QUEUED)
    node, pid, born = worker.rsplit(" ", 2)
    if worker == _worker(os.getpid()) or node != platform.node():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(born)) < 2  # the clock may have been set meanwhile
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
