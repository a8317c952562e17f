"""One SQLite file, opened with care: what is the same for every kind of file. test_board.py has the damaged ones."""

from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.store import Store


class DiaryError(RuntimeError):
    """The diary's file cannot be used."""


class LedgerError(RuntimeError):
    """The ledger's file cannot be used."""


DIARY = Store(
    noun="diary",
    letters=b"diry",
    version=3,
    tables=("CREATE TABLE days (words TEXT)", "CREATE TABLE owners (name TEXT)"),
    way_out="call open() with",
    error=DiaryError,
    busy_seconds=0.1,
)
LEDGER = dataclasses.replace(DIARY, noun="ledger", letters=b"ledg", way_out="set LEDGER to", error=LedgerError)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "diary.sqlite"


def write(path: Path | str, words: str, store: Store = DIARY) -> None:
    with store.transaction(path, write=True) as connection:
        connection.execute("INSERT INTO days VALUES (?)", [words])


def read(path: Path | str, store: Store = DIARY) -> list[str]:
    with store.transaction(path, write=False) as connection:
        return [row["words"] for row in connection.execute("SELECT words FROM days ORDER BY rowid")]


def test_what_was_written_is_read_and_the_file_says_what_it_is(path: Path) -> None:
    assert read(path) == [] and not path.exists()
    write(path, "one")
    write(path, "two")
    assert read(path) == ["one", "two"]
    head = path.read_bytes()[:100]  # https://www.sqlite.org/fileformat2.html, section 1.3
    assert head[68:72] == b"diry"
    assert int.from_bytes(head[60:64], "big") == 3
    other = sqlite3.connect(path)
    tables = [name for (name,) in other.execute("SELECT name FROM sqlite_schema ORDER BY name")]
    other.close()
    assert tables == ["days", "owners"]


def test_an_error_in_the_middle_writes_nothing(path: Path) -> None:
    write(path, "one")
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), DIARY.transaction(path, write=True) as connection:
        connection.execute("DELETE FROM days")
        raise ZeroDivisionError
    assert path.read_bytes() == before
    write(path, "two")  # and no lock stays
    assert read(path) == ["one", "two"]


WRITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1], 0.1, isolation_level=None).execute('BEGIN IMMEDIATE')"


def test_a_thread_that_looks_leaves_the_lock_of_one_that_writes(path: Path) -> None:
    """To close a file drops all locks of a process on it; another process would then write between."""
    write(path, "one")
    with DIARY.transaction(path, write=True) as connection:
        looking = threading.Thread(target=read, args=[path])
        looking.start()
        looking.join(0.2)
        other = subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True)
        connection.execute("INSERT INTO days VALUES ('two')")
    assert "database is locked" in other.stderr
    looking.join()
    assert read(path) == ["one", "two"]


def test_letters_of_another_kind_are_refused(path: Path) -> None:
    write(path, "mine")
    before = path.read_bytes()
    for call in (lambda: read(path, LEDGER), lambda: write(path, "theirs", LEDGER)):
        with pytest.raises(LedgerError, match="another program, not a ledger: set LEDGER to another file") as caught:
            call()
        assert not isinstance(caught.value, DiaryError)
    assert path.read_bytes() == before
    assert read(path) == ["mine"]


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (4, r"was written by a newer kit \(version 4, this kit reads 3\): update the kit, or call open\(\) with"),
        (2, r"is damaged or not a diary \(it says version 2, which never was\)"),
    ],
)
def test_another_version_is_refused(path: Path, version: int, sentence: str) -> None:
    write(path, "one", dataclasses.replace(DIARY, version=version))
    before = path.read_bytes()
    with pytest.raises(DiaryError, match=sentence):
        write(path, "two")
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", "~no such user/diary.sqlite"])
def test_what_names_no_file_is_refused(path: str) -> None:
    """SQLite would forget what is written to the first two."""
    sentence = f"The diary's path {path!r} names no file: call open() with a file in a folder that you can write to."
    with pytest.raises(DiaryError, match=re.escape(sentence)):
        write(path, "one")


def test_a_path_may_begin_at_home_and_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # of Windows
    monkeypatch.chdir(tmp_path)
    write("~/diary.sqlite", "one")
    assert read(str(tmp_path / "diary.sqlite")) == read("diary.sqlite") == ["one"]
    assert DIARY.file("diary.sqlite") == DIARY.file(Path("~/diary.sqlite")) == tmp_path / "diary.sqlite"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_what_is_no_plain_file_is_refused(path: Path) -> None:
    os.mkfifo(path)  # to open it would wait for ever
    for each in (path, Path(os.devnull)):
        with pytest.raises(DiaryError, match=r"^The diary's path \S+ is a device, not a file: call open\(\) with a"):
            read(each)


def locked(path: Path) -> Callable[[], Any]:
    write(path, "one")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder.close


def text_file(path: Path) -> None:
    path.write_bytes(b"Dear diary\n" * 20)


def missing_table(path: Path) -> None:
    write(path, "one", dataclasses.replace(DIARY, tables=("CREATE TABLE owners (name TEXT)", "CREATE TABLE days (x)")))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (locked, r"^The diary \S+ was locked by another program for 0.1 seconds: close what holds it open and try "),
        (text_file, r"^The diary \S+ is damaged or not a diary \(it is not an SQLite file\): move it away, or "),
        (Path.mkdir, r"^The diary's path \S+ is a folder: give a file in it, or "),
        (lambda path: path.parent.rmdir(), r"^The diary's folder \S+ does not exist: make it, or "),
        (missing_table, r"^The diary \S+ is damaged or not a diary \(SQLite says: .*words"),
    ],
)
def test_messages_name_the_noun_and_the_way_out(tmp_path: Path, spoil: Callable[[Path], Any], sentence: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "diary.sqlite"
    release = spoil(path)
    with pytest.raises(DiaryError, match=sentence) as caught:
        read(path) if spoil is missing_table else write(path, "two")
    assert "call open() with a" in str(caught.value)
    assert not re.search("board|\n", str(caught.value))
    if release is not None:
        release()
