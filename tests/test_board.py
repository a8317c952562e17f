from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from kit import board


@dataclass(frozen=True)
class FakeEstimate:
    """The shape of measure.Estimate: these tests, and the processes they start, do without torch."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class FakeProfile:
    accuracy: FakeEstimate
    parameters: int
    nonzeros: int
    dense_bytes: int
    file_bytes: int
    flops: int
    latency: FakeEstimate
    batch_size: int


def profile(accuracy: float = 0.9, nonzeros: int = 500, latency: float = 2.0, **other: Any) -> Any:
    made = FakeProfile(
        accuracy=FakeEstimate(accuracy, max(accuracy - 0.02, 0), min(accuracy + 0.01, 1), 540),
        parameters=max(1000, nonzeros),
        nonzeros=nonzeros,
        dense_bytes=4000,
        file_bytes=2600,
        flops=10_000,
        latency=FakeEstimate(latency, latency * 0.9, latency * 1.2, 21),
        batch_size=1,
    )
    return replace(made, **other)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.sqlite"


def pin(name: str, path: Path, made: Any = None, **other: Any) -> None:
    board.pin(name, made or profile(), **{"dataset": "digits", "technique": "magnitude", "path": path, **other})


# --- pin, frame, clear ------------------------------------------------------------------------------------------


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


def test_a_board_that_is_not_there_is_empty_and_is_not_made_by_looking(path: Path) -> None:
    empty = board.frame(path=path)
    assert len(empty) == 0
    assert len(board.front("digits", path=path)) == 0
    assert board.suggest_name("a", path=path) == "a"
    assert not path.exists()
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


def test_replace_takes_the_place_of_a_pin(path: Path) -> None:
    pin("net", path, profile(0.9))
    pin("other", path)
    pin("net", path, profile(0.8), replace=True)
    frame = board.frame(path=path).set_index("name")
    assert len(frame) == 2
    assert frame.loc["net", "accuracy"] == 0.8


def test_a_name_taken_twice_is_refused(path: Path) -> None:
    pin("net", path, note="the first")
    pin("net (2)", path)
    with pytest.raises(ValueError, match=r"'net' is taken: magnitude on digits.*0\.900.*example 'net \(3\)'"):
        pin("net", path, note="the second")
    assert list(board.frame(path=path)["note"]) == ["the first", ""]
    assert board.suggest_name("net", path=path) == "net (3)"
    assert board.suggest_name("net (2)", path=path) == "net (3)"
    assert board.suggest_name("90", path=path) == "90"


def test_the_board_is_found_by_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_BOARD", str(path))
    board.pin("a", profile(), dataset="digits", technique="magnitude")
    assert list(board.frame()["name"]) == ["a"]
    assert path.exists()
    monkeypatch.delenv("KIT_BOARD")
    assert board.default_path() == Path(board.__file__).parents[1] / "data" / "board.sqlite"


# --- front ------------------------------------------------------------------------------------------------------


def brute_front(table: list[dict[str, Any]], size: str) -> list[str]:
    """The names that the definition leaves, pair by pair."""
    left = []
    for one in table:
        for other in table:
            comparable = other["dataset"] == one["dataset"]
            if size == "latency":
                comparable = comparable and other["batch_size"] == one["batch_size"]
            better = other["accuracy"] > one["accuracy"] or other[size] < one[size]
            if comparable and other["accuracy"] >= one["accuracy"] and other[size] <= one[size] and better:
                break
        else:
            left.append(one["name"])
    return left


@pytest.mark.parametrize("seed", range(4))
def test_the_front_is_that_of_the_definition(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(40):  # few different values, so that ties are many
        made = profile(
            accuracy=rng.randrange(5) / 4,
            nonzeros=rng.randrange(6),
            latency=rng.randrange(1, 6) / 4,
            batch_size=rng.choice([1, 256]),
            file_bytes=rng.randrange(4),
        )
        pin(f"pin {number}", path, made, dataset=rng.choice(["digits", "faces"]))
    rows = board.frame(path=path).to_dict("records")
    for dataset in ("digits", "faces"):
        own = [row for row in rows if row["dataset"] == dataset]
        for size in get_args(board.Size):
            table = board.front(dataset, size, path=path)
            assert sorted(table["name"]) == sorted(brute_front(own, size))
            assert table[size].is_monotonic_increasing
            assert list(table.columns) == list(board.frame(path=path).columns)


def test_equal_pins_are_both_on_the_front(path: Path) -> None:
    pin("one", path, profile(0.9, 100))
    pin("two", path, profile(0.9, 100))
    pin("worse", path, profile(0.9, 101))
    pin("elsewhere", path, profile(1.0, 1), dataset="faces")
    assert list(board.front("digits", path=path)["name"]) == ["one", "two"]


# --- several at once, and killed ones ---------------------------------------------------------------------------


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
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def compete() -> None:
        start.wait()
        try:
            pin("the name", path)
            outcomes.append("pinned")
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["pinned"] + ["refused"] * 7
    assert len(board.frame(path=path)) == 1


KILLED = """
import os, signal, sqlite3, sys
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
writer.execute("PRAGMA cache_size = 2")  # pages, so that half of the work reaches the file before the commit
writer.execute("BEGIN IMMEDIATE")
writer.execute("DELETE FROM pins WHERE name = 'a'")
for number in range(2000):
    writer.execute(
        "INSERT INTO pins SELECT 'half ' || ?, dataset, technique, accuracy, accuracy_low, accuracy_high, n,"
        " parameters, nonzeros, dense_bytes, file_bytes, flops, latency, latency_low, latency_high, latency_n,"
        " batch_size, note, settings, pinned_at FROM pins WHERE name = 'b'", [number])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_writer_killed_in_the_middle_leaves_the_board_as_it_was(path: Path) -> None:
    pin("a", path)
    pin("b", path)
    before = path.read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() != before  # the file really was left half written, with a journal to undo it
    assert path.with_name("board.sqlite-journal").exists()
    assert list(board.frame(path=path)["name"]) == ["a", "b"]
    pin("c", path)
    assert list(board.frame(path=path)["name"]) == ["a", "b", "c"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_call_changes_nothing(path: Path, failure: type[BaseException]) -> None:
    pin("a", path)
    with pytest.raises(failure), board._transaction(path, write=True) as connection:
        connection.execute("DELETE FROM pins")
        raise failure
    assert list(board.frame(path=path)["name"]) == ["a"]
    pin("b", path)  # and no lock stays


CREATING = """
import os, signal, sqlite3, sys
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
writer.execute("PRAGMA cache_size = 2")
writer.execute("BEGIN IMMEDIATE")
writer.execute("CREATE TABLE pins (name TEXT)")
writer.executemany("INSERT INTO pins VALUES (?)", [("x" * 500,)] * 500)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("read_first", [True, False])
def test_a_first_writer_killed_in_the_middle_leaves_no_board(path: Path, read_first: bool) -> None:
    subprocess.run([sys.executable, "-c", CREATING, str(path)], check=False)
    assert path.stat().st_size > 0
    assert path.with_name("board.sqlite-journal").exists()
    if read_first:
        assert len(board.frame(path=path)) == 0
    pin("a", path)
    assert list(board.frame(path=path)["name"]) == ["a"]


# --- refused files ----------------------------------------------------------------------------------------------


def calls(path: Path) -> list[Callable[[], object]]:
    return [
        lambda: pin("new", path),
        lambda: board.frame(path=path),
        lambda: board.front("digits", path=path),
        lambda: board.clear(path=path),
        lambda: board.suggest_name("new", path=path),
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


def test_an_empty_file_becomes_a_board(path: Path) -> None:
    path.touch()
    assert len(board.frame(path=path)) == 0
    pin("a", path)
    assert len(board.frame(path=path)) == 1


@pytest.mark.parametrize("wal", [False, True])
def test_another_programs_file_is_refused(path: Path, wal: bool) -> None:
    other = sqlite3.connect(path)
    if wal:  # left open, with work in the file beside it that must not be moved by us
        other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE pins (name TEXT)")
    other.commit()
    refused(path, "SQLite file of another program")
    other.close()


def test_a_newer_board_is_refused(filled: Path) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    refused(filled, r"written by a newer kit \(version 2, this kit reads 1\): update the kit")


def test_a_board_without_its_table_is_refused(filled: Path) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute("ALTER TABLE pins RENAME COLUMN accuracy TO precision")
    connection.close()
    before = filled.read_bytes()
    for call in (lambda: pin("new", filled), lambda: board.frame(path=filled)):
        with pytest.raises(board.BoardError, match="damaged or not a board .*accuracy"):
            call()
    assert filled.read_bytes() == before


def test_a_truncated_board_is_refused(filled: Path) -> None:
    data = filled.read_bytes()
    assert len(data) > 4 * 4096
    for length in (50, 99, 100, 4000, 4096, 8192, len(data) - 4096, len(data) - 100):
        filled.write_bytes(data[:length])
        refused(filled, "damaged or not a board")


def test_an_overwritten_page_is_refused(filled: Path) -> None:
    data = filled.read_bytes()
    for page in range(1, len(data) // 4096):
        for fill in (b"\x00", b"\xff", b"junk"):
            hole = (fill * 4096)[:4096]
            filled.write_bytes(data[: page * 4096] + hole + data[(page + 1) * 4096 :])
            refused(filled, "damaged or not a board")


def test_flipped_bytes_never_crash_and_are_never_written_over(filled: Path) -> None:
    data, rng = filled.read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(20):
            changed[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        filled.write_bytes(changed)
        try:
            board.frame(path=filled)
        except board.BoardError as error:
            assert "KIT_BOARD" in str(error)
        assert filled.read_bytes() == changed


def test_a_text_that_is_damaged_is_refused(filled: Path) -> None:
    for value in ("{not JSON", b"\xff\xfe"):
        with sqlite3.connect(filled) as connection:
            connection.execute("UPDATE pins SET settings = CAST(? AS TEXT) WHERE name = 'pin 3'", [value])
        connection.close()
        with pytest.raises(board.BoardError, match="damaged or not a board"):
            board.frame(path=filled)


def test_a_locked_board_is_refused_after_the_wait(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_STORE", dataclasses.replace(board._STORE, busy_seconds=0.2))
    holder = sqlite3.connect(filled, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    refused(filled, r"locked by another program for 0\.2 seconds: close what holds it")
    assert 0.9 < time.monotonic() - start < 5  # five calls, 0.2 seconds each
    holder.close()
    assert len(board.frame(path=filled)) == 60


def test_a_board_locked_for_a_moment_is_waited_for(filled: Path) -> None:
    holder = sqlite3.connect(filled, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    pin("after the lock", filled)
    timer.join()
    assert len(board.frame(path=filled)) == 61


def test_wrong_places_are_refused(tmp_path: Path) -> None:
    for call in calls(tmp_path / "absent" / "board.sqlite"):
        with pytest.raises(board.BoardError, match="folder .*absent does not exist: make it, or set KIT_BOARD"):
            call()
    for call in calls(tmp_path):
        with pytest.raises(board.BoardError, match="is a folder: give a file in it"):
            call()
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


# --- bad arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["name", "dataset", "technique"])
@pytest.mark.parametrize("value", ["", " ", " a", "a\nb", "a\x00", "\ud800", "x" * 201, 3, None])
def test_a_text_that_is_not_one_line_is_refused(path: Path, argument: str, value: Any) -> None:
    given = {"name": "a", "dataset": "digits", "technique": "magnitude", argument: value}
    with pytest.raises((ValueError, TypeError), match=f"{argument} must be "):
        board.pin(given.pop("name"), profile(), path=path, **given)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"accuracy": FakeEstimate(float("nan"), 0, 1, 5)}, "profile.accuracy must be finite"),
        ({"accuracy": FakeEstimate(0.5, 0.4, float("nan"), 5)}, "profile.accuracy must be finite"),
        ({"accuracy": FakeEstimate(0.5, 0.6, 0.7, 5)}, "low <= value <= high"),
        ({"accuracy": FakeEstimate(97.4, 95.0, 98.0, 5)}, r"profile.accuracy must lie in 0 \.\. 1"),
        ({"accuracy": FakeEstimate(0.5, 0.4, 0.6, 0)}, "profile.accuracy.n must be a whole number from 1 on"),
        ({"latency": FakeEstimate(1.0, 0.5, float("inf"), 5)}, "profile.latency must be finite"),
        ({"latency": FakeEstimate(-1.0, -2.0, 0.0, 5)}, "profile.latency must be finite, with 0 <= low"),
        ({"nonzeros": 1001}, "profile.nonzeros must be at most profile.parameters"),
        ({"flops": -1}, "profile.flops must be a whole number from 0 on, not -1"),
        ({"flops": 2**63}, "profile.flops must be a whole number"),
        ({"batch_size": 0}, "profile.batch_size must be a whole number from 1 on"),
        ({"file_bytes": 2.5}, "profile must be a measure.Profile"),
        ({"accuracy": 0.9}, "profile must be a measure.Profile"),
    ],
)
def test_an_impossible_profile_is_refused(path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        pin("a", path, replace(profile(), **changes))
    assert not path.exists()


def test_other_bad_arguments_are_refused(path: Path) -> None:
    with pytest.raises(TypeError, match="profile must be a measure.Profile, not 3"):
        pin("a", path, 3)
    with pytest.raises(TypeError, match="note must be text, not int"):
        pin("a", path, note=3)
    with pytest.raises(TypeError, match="settings must map names to text or numbers, not list"):
        pin("a", path, settings=["ratio"])
    with pytest.raises(TypeError, match=r"settings\['ratio'\] must be text, a number or a bool, not list"):
        pin("a", path, settings={"ratio": [1]})
    with pytest.raises(ValueError, match=r"settings\['ratio'\] must be finite, not nan"):
        pin("a", path, settings={"ratio": float("nan")})
    with pytest.raises(TypeError, match="settings' names must be text, not int"):
        pin("a", path, settings={1: 2})
    with pytest.raises(ValueError, match="size must be one of nonzeros, .*, latency, not 'bytes'"):
        board.front("digits", cast(Any, "bytes"), path=path)
    with pytest.raises(ValueError, match="dataset must be one line"):
        board.frame("", path=path)
    assert not path.exists()


def test_the_board_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, json, kit.board; print(json.dumps([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_copied_board_is_a_board(filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled, tmp_path / "copy.sqlite")
    assert board.frame(path=tmp_path / "copy.sqlite").equals(board.frame(path=filled))
