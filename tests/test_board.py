from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pandas as pd
import pytest

from kit import board


def estimate(value: float, low: float, high: float, n: int) -> Any:
    """The shape of measure.Estimate: these tests, and the processes they start, do without torch."""
    return SimpleNamespace(value=value, low=low, high=high, n=n)


def profile(accuracy: float = 0.9, nonzeros: int = 500, latency: float = 2.0, **other: int) -> Any:
    counts = {"parameters": max(1000, nonzeros), "nonzeros": nonzeros, "dense_bytes": 4000, "file_bytes": 2600}
    return SimpleNamespace(
        accuracy=estimate(accuracy, max(accuracy - 0.02, 0), min(accuracy + 0.01, 1), 540),
        latency=estimate(latency, latency * 0.9, latency * 1.2, 21),
        **{**counts, "flops": 10_000, "batch_size": 1, "broken": "", **other},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.sqlite"


def pin(name: str, path: Path, made: Any = None, **other: Any) -> None:
    board.pin(name, made or profile(), **{"dataset": "digits", "technique": "magnitude", "path": path, **other})


def test_what_was_pinned_comes_back(path: Path) -> None:
    settings: dict[str, str | int | float | bool] = {"ratio": 0.9, "scope": "global", "seed": 3, "tuned": True}
    pin("first", path, note="two\nlines, 名字", settings=settings)
    pin("second", path, profile(0.8, 100, 1.5), dataset="faces", technique="random")
    table = board.frame(path=path)
    assert list(table["name"]) == ["first", "second"]
    first = table.iloc[0].to_dict()
    at = first.pop("pinned_at")
    assert first == {
        **{"name": "first", "dataset": "digits", "technique": "magnitude"},
        **{"accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.91, "n": 540},
        **{"parameters": 1000, "nonzeros": 500, "dense_bytes": 4000, "file_bytes": 2600, "flops": 10_000},
        **{"latency": 2.0, "latency_low": 1.8, "latency_high": 2.4, "latency_n": 21, "batch_size": 1},
        **{"note": "two\nlines, 名字", "settings": settings},
    }
    assert at.endswith("+00:00")
    assert list(board.frame("faces", path=path)["name"]) == ["second"]
    assert len(board.frame("none of this name", path=path)) == 0


def test_a_measured_profile_fits(path: Path) -> None:
    measure = pytest.importorskip("kit.measure")
    accuracy, latency = measure.Estimate(0.9, 0.88, 0.92, 540), measure.Estimate(2.0, 1.9, 2.2, 21)
    pin("real", path, measure.Profile(accuracy, 1000, 500, 4000, 2600, 10_000, latency, 1))
    assert board.frame(path=path).loc[0, "accuracy_high"] == 0.92
    broken = measure.Profile(accuracy, 1000, 500, 4000, 2600, 10_000, latency, 1, nonfinite=7)
    with pytest.raises(ValueError, match="the model answers NaN or infinity for 7 of 540 samples, so its accuracy"):
        pin("broken", path, broken)
    assert list(board.frame(path=path)["name"]) == ["real"]


def test_a_board_that_is_not_there_is_empty_and_is_not_made_by_looking(path: Path) -> None:
    empty = board.frame(path=path)
    assert len(empty) == len(board.front("digits", path=path)) == 0
    assert not path.exists()
    path.touch()  # nor is an empty file an error
    assert len(board.frame(path=path)) == 0
    pin("a", path)
    assert list(empty.dtypes) == list(board.frame(path=path).dtypes)
    assert [child.name for child in path.parent.iterdir()] == ["board.sqlite"]  # no journal stays


def test_clear_takes_away_what_is_named(path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        pin(name, path)
    with pytest.raises(ValueError, match="'x' is not; pinned are 'a', 'b', 'c', 'd'"):
        board.clear(["a", "x"], path=path)
    assert len(board.frame(path=path)) == 4  # nothing is gone
    assert board.clear(["a", "b", "a"], path=path) == 2
    assert board.clear("c", path=path) == 1
    assert board.clear([], path=path) == 0
    assert list(board.frame(path=path)["name"]) == ["d"]
    assert board.clear(path=path) == 1
    assert board.clear(path=path) == 0


def test_a_name_taken_twice_is_refused_or_replaced(path: Path) -> None:
    pin("net", path, note="the first")
    pin("net (2)", path)
    for name in ("net", "net (2)"):
        with pytest.raises(ValueError, match=rf"'{re.escape(name)}' is taken: .* digits.*0\.900.*example 'net \(3\)'"):
            pin(name, path, note="the second")
    assert list(board.frame(path=path)["note"]) == ["the first", ""]
    pin("net", path, profile(0.8), replace=True)
    assert dict(board.frame(path=path)[["name", "accuracy"]].to_numpy()) == {"net": 0.8, "net (2)": 0.9}


def names(path: Path, **which: Any) -> list[str]:
    return list(board.frame(path=path, **which)["name"])


def test_what_was_taken_off_comes_back_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for second, name in enumerate("abc"):
        at = datetime(2026, 1, 1, second=second, tzinfo=UTC)
        monkeypatch.setattr(board, "datetime", SimpleNamespace(now=lambda zone, at=at: at))
        pin(name, path, profile(0.5 + second / 10), note=f"the note of {name}", settings={"seed": second})
    before = board.frame(path=path)
    assert names(path, removed=True) == []
    board.clear(["b", "a"], path=path)
    assert names(path) == ["c"] and names(path, removed=True) == ["a", "b"]
    assert names(path, removed=True, dataset="faces") == []
    board.restore("a", path=path)
    board.restore("b", path=path)
    pd.testing.assert_frame_equal(board.frame(path=path), before)  # in its old place, too
    with pytest.raises(ValueError, match="^name must be taken off the board, and 'a' is not; removed are nothing.$"):
        board.restore("a", path=path)
    board.clear(path=path)
    assert names(path) == [] and names(path, removed=True) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="'x' is not; removed are 'c', 'b', 'a'.$"):
        board.restore("x", path=path)


def test_a_pin_that_was_replaced_can_change_places_with_the_new_one(path: Path) -> None:
    def accuracy() -> float:
        (value,) = board.frame(path=path)["accuracy"]
        return float(value)

    pin("net", path, profile(0.8))
    pin("net", path, profile(0.9), replace=True)
    assert names(path, removed=True) == ["net"]
    before = path.read_bytes()
    with pytest.raises(board.NameTakenError, match=r"'net' is taken: .* accuracy 0\.900"):
        board.restore("net", path=path)
    assert path.read_bytes() == before
    board.restore("net", replace=True, path=path)
    assert accuracy() == 0.8
    board.restore("net", replace=True, path=path)
    assert accuracy() == 0.9 and names(path, removed=True) == ["net"]


def test_the_last_removed_are_kept_of_each_name_the_last(path: Path) -> None:
    for number in range(board.KEPT + 5):
        pin(f"pin {number}", path)
    board.clear(path=path)
    assert names(path, removed=True) == [f"pin {number}" for number in range(5, board.KEPT + 5)]
    pin("pin 7", path, profile(0.3))
    board.clear("pin 7", path=path)
    removed = board.frame(removed=True, path=path)
    assert len(removed) == board.KEPT and (removed["name"] == "pin 7").sum() == 1
    assert removed.iloc[-1][["name", "accuracy"]].tolist() == ["pin 7", 0.3]


def test_a_renamed_pin_changes_its_name_alone(path: Path) -> None:
    for name in ("a", "b"):
        pin(name, path, note=f"the note of {name}")
    before = board.frame(path=path)
    board.rename("a", "<b>最好</b>", path=path)
    assert names(path) == ["<b>最好</b>", "b"]
    after = board.frame(path=path)
    pd.testing.assert_frame_equal(after.drop(columns="name"), before.drop(columns="name"))
    board.rename("b", "b", path=path)
    with pytest.raises(board.NameTakenError, match=r"'b' is taken: .* for example 'b \(2\)'"):
        board.rename("<b>最好</b>", "b", path=path)
    with pytest.raises(ValueError, match="^old must be on the board, and 'a' is not; pinned are '<b>最好</b>', 'b'.$"):
        board.rename("a", "c", path=path)
    for new in ("", " c", "a\nb"):
        with pytest.raises(ValueError, match="new must be one line"):
            board.rename("b", new, path=path)
    pd.testing.assert_frame_equal(board.frame(path=path), after)


def test_a_board_of_an_older_kit_gains_what_it_lacks_when_a_pin_goes(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(board._TABLE)
        connection.execute("PRAGMA user_version = 1")
        connection.execute(f"PRAGMA application_id = {int.from_bytes(b'kitb', 'big')}")
    pin("a", path)
    before = path.read_bytes()
    assert names(path) == ["a"] and names(path, removed=True) == []
    assert path.read_bytes() == before  # looking changes nothing
    board.clear("a", path=path)
    board.restore("a", path=path)
    assert names(path) == ["a"]
    with closing(sqlite3.connect(path)) as connection:  # an older kit reads it still: the version is the same
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
        assert connection.execute("SELECT name FROM pins").fetchall() == [("a",)]


def test_who_follows_the_board_hears_of_every_writing(path: Path) -> None:
    stamps = [board.stamp(path)]
    for change in (
        lambda: pin("a", path),
        lambda: board.rename("a", "b", path=path),  # as long as before, and in the same moment
        lambda: board.clear("b", path=path),
        lambda: board.restore("b", path=path),
    ):
        board.written.clear()
        change()
        assert board.written.is_set()
        stamps.append(board.stamp(path))
    assert len(set(stamps)) == len(stamps)
    board.written.clear()
    with pytest.raises(ValueError, match="is taken"):
        pin("b", path)
    os.utime(path, (1e9, 1e9))  # written long ago
    old = board.stamp(path)
    assert names(path) == ["b"] and board.stamp(path) == old and not board.written.is_set()
    assert board.stamp("a\0b") == ("a\0b",)  # no file: it does not fail


def test_the_board_is_found_by_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_BOARD", str(path))
    board.pin("a", profile(), dataset="digits", technique="magnitude")
    assert list(board.frame()["name"]) == ["a"]
    assert path.exists()
    monkeypatch.delenv("KIT_BOARD")
    assert board.default_path() == Path(board.__file__).parents[1] / "data" / "board.sqlite"


def brute_front(table: list[dict[str, Any]], size: str) -> list[str]:
    """The names that the definition leaves, pair by pair."""

    def beats(other: dict[str, Any], one: dict[str, Any]) -> bool:
        comparable = size != "latency" or other["batch_size"] == one["batch_size"]
        better = other["accuracy"] > one["accuracy"] or other[size] < one[size]
        return comparable and other["accuracy"] >= one["accuracy"] and other[size] <= one[size] and better

    return [one["name"] for one in table if not any(beats(other, one) for other in table)]


@pytest.mark.parametrize("seed", range(4))
def test_the_front_is_that_of_the_definition(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(40):  # few different values, so that ties are many
        other = {"batch_size": rng.choice([1, 256]), "file_bytes": rng.randrange(4)}
        made = profile(rng.randrange(5) / 4, rng.randrange(6), rng.randrange(1, 6) / 4, **other)
        pin(f"pin {number}", path, made, dataset=rng.choice(["digits", "faces"]))
    frame = board.frame(path=path)
    for dataset, size in itertools.product(("digits", "faces"), get_args(board.Size)):
        own = frame[frame["dataset"] == dataset].to_dict("records")
        table = board.front(dataset, size, path=path)
        assert sorted(table["name"]) == sorted(brute_front(own, size))
        assert table[size].is_monotonic_increasing
        assert list(table.columns) == list(frame.columns)


def pin_many(path: Path, worker: int, count: int) -> None:
    for number in range(count):
        pin(f"{worker} {number}", path)


def test_processes_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=pin_many, args=(path, worker, 25)) for worker in range(4)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(60)
    assert [process.exitcode for process in workers] == [0] * 4
    names = set(board.frame(path=path)["name"])
    assert names == {f"{worker} {number}" for worker in range(4) for number in range(25)}


def test_threads_at_once_make_one_board_and_one_wins_a_name(path: Path) -> None:
    start = threading.Barrier(8)

    def compete() -> None:
        start.wait()
        pin("the name", path)

    with ThreadPoolExecutor(8) as pool:
        errors = [future.exception() for future in [pool.submit(compete) for _ in range(8)]]
    assert sorted(type(error).__name__ for error in errors) == ["NameTakenError"] * 7 + ["NoneType"]
    assert len(board.frame(path=path)) == 1


KILLED = """
import os, signal, sqlite3, sys
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
writer.execute("PRAGMA cache_size = 2")  # pages, so that half of the work reaches the file before the commit
writer.execute("BEGIN IMMEDIATE")
writer.execute(sys.argv[2])
for _ in range(2000):
    writer.execute(sys.argv[3])
os.kill(os.getpid(), signal.SIGKILL)
"""
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def kill_a_writer(path: Path, first: str, then: str) -> None:
    """A process that does one thing, then another many times, and dies before it commits: a journal stays."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), first, then], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name("board.sqlite-journal").exists()


@needs_kill
def test_a_writer_killed_in_the_middle_leaves_the_board_as_it_was(path: Path) -> None:
    pin("a", path)
    pin("b", path)
    before = path.read_bytes()
    rest = ", ".join(column for column in board.frame(path=path) if column != "name")
    insert = f"INSERT INTO pins SELECT hex(randomblob(9)), {rest} FROM pins WHERE name = 'b'"
    kill_a_writer(path, "DELETE FROM pins WHERE name = 'a'", insert)
    assert path.read_bytes() != before  # the file really was left half written
    assert list(board.frame(path=path)["name"]) == ["a", "b"]
    pin("c", path)
    assert list(board.frame(path=path)["name"]) == ["a", "b", "c"]


@needs_kill
@pytest.mark.parametrize("read_first", [True, False])
def test_a_first_writer_killed_in_the_middle_leaves_no_board(path: Path, read_first: bool) -> None:
    kill_a_writer(path, "CREATE TABLE pins (name TEXT)", "INSERT INTO pins VALUES (hex(randomblob(200)))")
    assert path.stat().st_size > 0
    assert not read_first or len(board.frame(path=path)) == 0
    pin("a", path)
    assert list(board.frame(path=path)["name"]) == ["a"]


def calls(path: Path) -> list[Callable[[], object]]:
    return [
        lambda: pin("new", path),
        lambda: board.frame(path=path),
        lambda: board.front("digits", path=path),
        lambda: board.clear(path=path),
        lambda: board.restore("pin 0", path=path),
        lambda: board.rename("pin 0", "new", path=path),
    ]


def refused(path: Path, sentence: str) -> None:
    """Every call refuses the file with the way out, and leaves its bytes and its folder alone."""
    before = {child.name: child.read_bytes() for child in path.parent.iterdir() if child.is_file()}
    for call in calls(path):
        with pytest.raises(board.BoardError, match=sentence) as caught:
            call()
        assert "KIT_BOARD" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {child.name: child.read_bytes() for child in path.parent.iterdir() if child.is_file()} == before


@pytest.fixture
def filled(path: Path) -> Path:
    for number in range(60):
        pin(f"pin {number}", path, note="long enough to fill several pages " * 5)
    return path


@pytest.mark.parametrize("content", [b"x", b"name,accuracy\n" * 100, b"SQLite format 3\x00", b"\x00" * 5000])
def test_a_file_that_is_not_sqlite_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, "is damaged or not a board .*not an SQLite file.*: move it away")


@pytest.mark.parametrize("wal", [False, True])
def test_another_programs_file_is_refused(path: Path, wal: bool) -> None:
    other = sqlite3.connect(path)
    if wal:  # left open, with work in the file beside it that must not be moved by us
        other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE pins (name TEXT)")
    other.commit()
    refused(path, "SQLite file of another program")
    other.close()


def test_a_truncated_board_or_one_with_an_overwritten_page_is_refused(filled: Path) -> None:
    data = filled.read_bytes()
    assert len(data) > 4 * 4096
    spoilt = [data[:length] for length in (50, 99, 100, 4000, 4096, 8192, len(data) - 4096, len(data) - 100)]
    for page in range(4096, len(data), 4096):
        spoilt += [data[:page] + fill * 1024 + data[page + 4096 :] for fill in (bytes(4), b"\xff" * 4, b"junk")]
    for content in spoilt:
        filled.write_bytes(content)
        refused(filled, "damaged or not a board")


def test_flipped_bytes_never_crash_and_are_never_written_over(filled: Path) -> None:
    data, rng = filled.read_bytes(), random.Random(0)
    for _ in range(150):
        flipped = bytearray(data)
        for _ in range(20):
            flipped[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        filled.write_bytes(flipped)
        try:
            board.frame(path=filled)
        except board.BoardError as error:
            assert "KIT_BOARD" in str(error)
        assert filled.read_bytes() == flipped


def test_a_text_that_is_damaged_is_refused(filled: Path) -> None:
    for value in ("{not JSON", b"\xff\xfe"):
        with closing(sqlite3.connect(filled)) as connection, connection:
            connection.execute("UPDATE pins SET settings = CAST(? AS TEXT) WHERE name = 'pin 3'", [value])
        with pytest.raises(board.BoardError, match="damaged or not a board"):
            board.frame(path=filled)


def test_a_board_locked_for_a_moment_is_waited_for(filled: Path) -> None:
    holder = sqlite3.connect(filled, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    pin("after the lock", filled)
    timer.join()
    assert len(board.frame(path=filled)) == 61


def test_wrong_places_are_refused(tmp_path: Path) -> None:
    absent = "folder .*absent does not exist: make it, or set KIT_BOARD"
    for place, sentence in ((tmp_path / "absent" / "b.sqlite", absent), (tmp_path, "is a folder: give a file in it")):
        for call in calls(place):
            with pytest.raises(board.BoardError, match=sentence):
                call()
    for nowhere in (":memory:", ""):  # SQLite would forget what is pinned
        with pytest.raises(
            board.BoardError, match=f"The board's path '{nowhere}' names no file: set KIT_BOARD to a file"
        ):
            board.frame(path=nowhere)
    with pytest.raises(TypeError, match="path must be a path or None; got 3."):
        board.clear(path=3)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(board.BoardError, match="cannot be written .*: set KIT_BOARD to a file in a folder that"):
        pin("a", Path("/proc/board.sqlite"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_board_can_be_read(filled: Path) -> None:
    filled.chmod(0o444)
    assert len(board.frame(path=filled)) == 60
    with pytest.raises(board.BoardError, match="cannot be written"):
        pin("a", filled)


@pytest.mark.parametrize("argument", ["name", "dataset", "technique"])
@pytest.mark.parametrize("value", ["", " ", " a", "a\nb", "a\x00", "\ud800", "x" * 201, 3, None])
def test_a_text_that_is_not_one_line_is_refused(path: Path, argument: str, value: Any) -> None:
    given = {"name": "a", "dataset": "digits", "technique": "magnitude", argument: value}
    with pytest.raises((ValueError, TypeError), match=f"{argument} must be "):
        board.pin(given.pop("name"), profile(), path=path, **given)
    assert not path.exists()


def spoilt(**changes: Any) -> dict[str, Any]:
    return {"made": SimpleNamespace(**{**vars(profile()), **changes})}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (spoilt(accuracy=estimate(math.nan, 0, 1, 5)), "profile.accuracy must be finite"),
        (spoilt(accuracy=estimate(0.5, 0.4, math.nan, 5)), "profile.accuracy must be finite"),
        (spoilt(accuracy=estimate(0.5, 0.6, 0.7, 5)), "low <= value <= high"),
        (spoilt(accuracy=estimate(97.4, 95.0, 98.0, 5)), r"profile.accuracy must lie in 0 \.\. 1"),
        (spoilt(accuracy=estimate(0.5, 0.4, 0.6, 0)), r"profile.accuracy.n must lie in 1 \.\. .*; got 0"),
        (spoilt(latency=estimate(1.0, 0.5, math.inf, 5)), "profile.latency must be finite"),
        (spoilt(latency=estimate(-1.0, -2.0, 0.0, 5)), "profile.latency must be finite, with 0 <= low"),
        (spoilt(nonzeros=1001), r"profile.nonzeros must lie in 0 \.\. 1000; got 1001"),
        (spoilt(flops=-1), r"profile.flops must lie in 0 \.\. .*; got -1"),
        (spoilt(flops=2**63), r"profile.flops must lie in 0 \.\. .*; got 9"),
        (spoilt(batch_size=0), "profile.batch_size must be 1 or more; got 0"),
        (spoilt(file_bytes=2.5), "profile.file_bytes must be a whole number; got 2.5"),
        (spoilt(accuracy=0.9), "profile must be a measure.Profile"),
        ({"made": 3}, "profile must be a measure.Profile; got 3"),
        ({"note": 3}, "note must be text; got 3"),
        ({"settings": ["ratio"]}, "settings must be names with text or numbers, as in a dict; got"),
        ({"settings": {"ratio": [1]}}, r"settings\['ratio'\] must be text, a number or a bool; got"),
        ({"settings": {"ratio": math.nan}}, r"settings\['ratio'\] must be finite; got nan"),
        ({"settings": {1: 2}}, "settings' names must be text; got"),
    ],
)
def test_what_cannot_be_pinned_is_refused(path: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        pin("a", path, **arguments)
    assert not path.exists()


def test_what_cannot_be_asked_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="size must be one of nonzeros, .*, latency; got 'bytes'"):
        board.front("digits", "bytes", path=path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dataset must be one line"):
        board.frame("", path=path)
    with pytest.raises(TypeError, match="names must be a name, several, or None; got 5."):
        board.clear(5, path=path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names must be text; got 5."):
        board.clear(["a", 5], path=path)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="replace must be True or False; got 'no'."):
        pin("a", path, replace="no")
    with pytest.raises(TypeError, match="replace must be True or False; got 1."):
        board.restore("a", replace=1, path=path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="removed must be True or False; got 'a'."):
        board.frame(removed="a", path=path)  # type: ignore[arg-type]
    for call in (lambda: board.restore(3, path=path), lambda: board.rename(3, "a", path=path)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="(name|old) must be text; got 3."):
            call()
    assert not path.exists()


def test_the_board_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, kit.board; print({'torch', 'pandas', 'numpy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
