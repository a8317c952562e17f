"""What the kit remembers on disk: one SQLite file, opened with care.

Several programs may use a file at once: each call does one short transaction, and waits where the file is locked. A
call that writes takes the write lock first (BEGIN IMMEDIATE), so nobody decides on what is already old. A process that
dies in the middle leaves the file as it was before its call. A file that says by its `application_id` or `user_version`
that it is something else, or is damaged, is refused and not touched.

The threads of one program take turns: where one of them closes a file, the system drops every lock that the program
holds on it (https://www.sqlite.org/howtocorrupt.html, section 2.2), and the first bytes are read by opening the file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Final

_MAGIC: Final = b"SQLite format 3\x00"  # https://www.sqlite.org/fileformat2.html, section 1.3
_TICK_NS: Final = 10**8  # file systems' clocks are coarse: a second writing this soon may leave the same time
_turns: dict[str, RLock] = {}  # by file


@dataclass(frozen=True)
class Store:
    """A kind of file.

    Attributes:
        noun: what messages call it, such as "board".
        letters: four letters that a file of this kind says it is.
        version: of its tables.
        tables: the statements that make them.
        way_out: how another path is named, such as "set KIT_BOARD to".
        error: what is raised for all errors of the file.
        busy_seconds: how long a call waits for another program's lock.
        older: versions that are read too, each with the statements that bring its tables up to date, which the first
            writing runs.
    """

    noun: str
    letters: bytes
    version: int
    tables: tuple[str, ...]
    way_out: str
    error: type[RuntimeError]
    busy_seconds: float = 5.0
    older: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def _elsewhere(self) -> str:
        return f"{self.way_out} another file"

    @property
    def _writable(self) -> str:
        return f"{self.way_out} a file in a folder that you can write to"

    def file(self, path: Path | str) -> Path:
        """Where a file is, wherever the program goes later; `~` is the home folder. `error` where no file is named."""
        try:
            if str(path) not in ("", ":memory:") and "\0" not in str(path):  # SQLite would forget these two
                return Path(path).expanduser().absolute()
        except (RuntimeError, OSError):  # no such home; the present folder is deleted
            pass
        raise self.error(f"The {self.noun}'s path {str(path)!r} names no file: {self._writable}.")

    def stamp(self, path: Path | str) -> tuple[object, ...]:
        """What differs from before once the file may hold something else; reads nothing of it, and never fails."""
        try:
            path = self.file(path)
            now = path.stat()
        except (RuntimeError, OSError):
            return (str(path),)
        recent = abs(time.time_ns() - now.st_mtime_ns) < _TICK_NS
        return path, now.st_mtime_ns, now.st_size, now.st_ino, time.monotonic_ns() if recent else 0

    @contextmanager
    def transaction(self, path: Path | str, *, write: bool, check: bool = True) -> Iterator[sqlite3.Connection]:
        """Open the file, hand it over inside one transaction, and close it; on an error nothing is written.

        Args:
            path: of the file; an absent or empty one reads as empty tables, and is made by the first writing.
            write: whether the transaction may write.
            check: whether `check` looks at all of the file first.

        Raises:
            RuntimeError: of the kind `error`: absent folder, another kind of file, damaged, newer, locked, read-only.
        """
        path, writable = self.file(path), self._writable
        try:
            if path.is_dir():
                raise self.error(f"The {self.noun}'s path {path} is a folder: give a file in it, or {writable}.")
            if path.exists() and not path.is_file():
                raise self.error(f"The {self.noun}'s path {path} is a device, not a file: {writable}.")
            if not path.parent.is_dir():
                raise self.error(f"The {self.noun}'s folder {path.parent} does not exist: make it, or {writable}.")
            with _turns.setdefault(os.path.realpath(path), RLock()):
                self._look_before_opening(path)
                in_memory = not write and _is_empty(path)  # reads as an empty one; reading does not make a file
                target = ":memory:" if in_memory else path
                with closing(sqlite3.connect(target, timeout=self.busy_seconds, isolation_level=None)) as connection:
                    connection.row_factory = sqlite3.Row
                    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    application_id = connection.execute("PRAGMA application_id").fetchone()[0]  # takes the lock
                    version = connection.execute("PRAGMA user_version").fetchone()[0]
                    if in_memory or _is_empty(path):
                        for statement in (*self.tables, f"PRAGMA user_version = {self.version}"):
                            connection.execute(statement)
                        connection.execute(f"PRAGMA application_id = {int.from_bytes(self.letters, 'big')}")
                    else:
                        self._check_identity(path, application_id, version)
                        if path.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
                            raise self.error(self.damaged(path, "its last page is cut off"))  # SQLite would add zeros
                        if check:
                            self.check(connection, path)
                        if write and version != self.version:
                            for statement in (*self.older[version], f"PRAGMA user_version = {self.version}"):
                                connection.execute(statement)
                    yield connection
                    connection.execute("COMMIT")  # on any error before, closing rolls back
        except sqlite3.Error as error:
            raise self.error(self._explain(error, path, writable)) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.error(self.damaged(path, "a text in it cannot be read")) from error
        except OSError as error:
            raise self.error(f"The {self.noun} {path} cannot be read ({error.strerror}): {writable}.") from error

    def damaged(self, path: Path, reason: str) -> str:
        """The sentence for a file that cannot be trusted."""
        return f"The {self.noun} {path} is damaged or not a {self.noun} ({reason}): move it away, or {self._elsewhere}."

    def _look_before_opening(self, path: Path) -> None:
        """Refuse a stranger's file by its first bytes, before SQLite may touch it or the journals beside it."""
        if _is_empty(path) or path.with_name(f"{path.name}-journal").exists():
            return  # with a journal beside it SQLite must look first: it may have to roll back a killed writer
        with path.open("rb") as file:
            head = file.read(100)
        if len(head) < 100 or not head.startswith(_MAGIC):
            raise self.error(self.damaged(path, "it is not an SQLite file"))
        self._check_identity(path, int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big"))
        page_size = int.from_bytes(head[16:18], "big")
        if path.stat().st_size < (65_536 if page_size == 1 else page_size):  # SQLite would take it for an empty one
            raise self.error(self.damaged(path, "it ends before its first page does"))

    def check(self, connection: sqlite3.Connection, path: Path) -> None:
        """Let SQLite read every page, inside a transaction: `error` where one is damaged."""
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self.error(self.damaged(path, f"SQLite finds: {' '.join(found.split())}"))

    def _check_identity(self, path: Path, application_id: int, version: int) -> None:
        if application_id != int.from_bytes(self.letters, "big"):
            other = "an SQLite file of another program"
            raise self.error(f"The file {path} is {other}, not a {self.noun}: {self._elsewhere}.")
        if version > self.version:
            newer = f"was written by a newer kit (version {version}, this kit reads {self.version})"
            raise self.error(f"The {self.noun} {path} {newer}: update the kit, or {self._elsewhere}.")
        if version != self.version and version not in self.older:
            raise self.error(self.damaged(path, f"it says version {version}, which never was"))

    def _explain(self, error: sqlite3.Error, path: Path, writable: str) -> str:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the primary code
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            locked = f"was locked by another program for {self.busy_seconds:g} seconds"
            return f"The {self.noun} {path} {locked}: close what holds it open and try again, or {self._elsewhere}."
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"The {self.noun} {path} cannot be written ({error}): {writable}."
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return f"The {self.noun} {path} was refused by the disk ({error}): free some space, or {writable}."
        return self.damaged(path, f"SQLite says: {error}")


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0
