"""The trade-off board: every model that any notebook pins, on one plane, kept in one SQLite file (`kit.store`).

Several notebooks may use the board at once. A file that is not a board, or is damaged, is refused and left untouched.
What is taken off the board is kept apart for a while, in a table that is made when it is first needed.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from kit import checks
from kit.store import Store

if TYPE_CHECKING:  # both load much, and neither is needed to keep a pin
    from pandas import DataFrame

    from kit.measure import Estimate, Profile

Size = Literal["nonzeros", "parameters", "file_bytes", "dense_bytes", "flops", "latency"]

_COUNTS: Final = ("parameters", "nonzeros", "dense_bytes", "file_bytes", "flops", "batch_size")
_COLUMNS: Final = {
    "name": "TEXT PRIMARY KEY NOT NULL",  # the constraint that refuses a name taken twice
    **dict.fromkeys(("dataset", "technique"), "TEXT NOT NULL"),
    **dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), "REAL NOT NULL"),
    **dict.fromkeys(("n", "parameters", "nonzeros", "dense_bytes", "file_bytes", "flops"), "INTEGER NOT NULL"),
    **dict.fromkeys(("latency", "latency_low", "latency_high"), "REAL NOT NULL"),
    **dict.fromkeys(("latency_n", "batch_size"), "INTEGER NOT NULL"),
    **dict.fromkeys(("note", "settings", "pinned_at"), "TEXT NOT NULL"),
}
_MOST: Final = 2**63 - 1  # of a whole number in SQLite
KEPT: Final = 50  # pins that can be restored: those taken off last

written = threading.Event()  # set after every writing of this process, for one who follows the board


class BoardError(RuntimeError):
    """The board's file cannot be used: absent folder, not a board, damaged, newer, locked, or read-only."""


class NameTakenError(ValueError):
    """Another pin has the name."""


def default_path() -> Path:
    """Return where the board is kept: the environment variable KIT_BOARD, else data/board.sqlite beside `kit`."""
    return Path(os.environ.get("KIT_BOARD") or Path(__file__).resolve().parents[1] / "data" / "board.sqlite")


def pin(
    name: str,
    profile: Profile,
    *,
    dataset: str,
    technique: str,
    note: str = "",
    settings: Mapping[str, str | int | float | bool] | None = None,
    replace: bool = False,
    path: Path | str | None = None,
) -> None:
    """Keep one measured model on the board.

    Args:
        name: the pin's own, one line of text; no two pins share one.
        profile: what `measure.profile` returned: accuracies as shares 0 .. 1, latency in milliseconds.
        dataset: what the accuracy was measured on; only pins with the same text are compared.
        technique: how the model was made, for example "magnitude" or "random".
        note: free text.
        settings: what made this model, for example {"ratio": 0.9, "seed": 0}.
        replace: take the place of a pin of that name instead of being refused; for cells that are run again. That pin
            is kept as a removed one.
        path: the board's file; `default_path()` where None.

    Raises:
        NameTakenError: a ValueError; the name is taken and `replace` is not set. The sentence suggests a free one.
        ValueError: a text is empty or not one line; a number of the profile or a setting is not finite or not possible.
        TypeError: an argument is of the wrong kind.
        BoardError: the file cannot be used; the sentence says why, and the way out.
    """
    row = {
        "name": _line("name", name),
        "dataset": _line("dataset", dataset),
        "technique": _line("technique", technique),
        **_numbers(profile),
        "note": _text("note", note),
        "settings": json.dumps(_checked_settings({} if settings is None else settings), ensure_ascii=False),
        "pinned_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    checks.instance("replace", replace, bool, "True or False")
    with _transaction(path, write=True) as board:
        _put(board, row, replace)


def frame(dataset: str | None = None, *, removed: bool = False, path: Path | str | None = None) -> DataFrame:
    """Return the board as a tidy table, one row per pin, oldest first; empty where nothing is pinned.

    Columns: name, dataset, technique, accuracy with accuracy_low and accuracy_high (shares 0 .. 1) over n samples,
    parameters, nonzeros, dense_bytes, file_bytes, flops, latency with latency_low and latency_high (milliseconds
    for one batch of batch_size) over latency_n runs, note, settings (a dict), pinned_at (UTC, ISO 8601).

    Args:
        dataset: only the pins of this data set; all where None.
        removed: in their place those that were taken off and can be restored, the latest removal last.
        path: as for `pin`, like the errors.
    """
    import pandas as pd

    checks.instance("removed", removed, bool, "True or False")
    where, values = ("", []) if dataset is None else ("WHERE dataset = ?", [_line("dataset", dataset)])
    table, order = ("removed", "rowid") if removed else ("pins", _OLDEST_FIRST)
    select = f"SELECT {_NAMES} FROM {table} {where} ORDER BY {order}"
    with _transaction(path, write=False) as board:
        found = board.execute(select, values) if table in _tables(board) else ()
        rows = [{**row, "settings": json.loads(row["settings"])} for row in found]
    kinds = {"INTEGER": "int64", "REAL": "float64", "TEXT": "object"}
    dtypes = {column: kinds[declared.split()[0]] for column, declared in _COLUMNS.items()}
    return pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object).astype(dtypes)


def front(dataset: str, size: Size = "nonzeros", *, path: Path | str | None = None) -> DataFrame:
    """Return the Pareto front of one data set, with the columns of `frame`: what no other pin beats, smallest first.

    A pin beats another when it is at least as accurate and at most as large, and one of the two strictly. Equal
    pins do not beat each other. Latencies are compared only between pins with the same batch size.

    Args:
        dataset: the data set; pins of others are never compared with it.
        size: "nonzeros", "parameters", "file_bytes", "dense_bytes", "flops" or "latency".
        path: as for `pin`, like the errors.
    """
    checks.one_of("size", size, get_args(Size))
    pins = frame(_line("dataset", dataset), path=path).sort_values(size, kind="stable", ignore_index=True)
    accuracy, sizes, batch_sizes = (pins[name].to_numpy() for name in ("accuracy", size, "batch_size"))  # [pins]
    at_least_as_good = (accuracy[:, None] >= accuracy) & (sizes[:, None] <= sizes)  # [pins, pins]
    beats = at_least_as_good & ((accuracy[:, None] > accuracy) | (sizes[:, None] < sizes))  # row beats column
    if size == "latency":
        beats &= batch_sizes[:, None] == batch_sizes
    return pins[~beats.any(axis=0)].reset_index(drop=True)


def clear(names: str | Iterable[str] | None = None, *, path: Path | str | None = None) -> int:
    """Take pins off the board, and return how many went; for a name that is not on it a ValueError, and none goes.

    The last 50 that went can be restored, of each name the last one.

    Args:
        names: one name or several; None takes all pins away.
        path: as for `pin`, like the other errors.
    """
    checks.instance("names", names, (Iterable, type(None)), "a name, several, or None")
    given = [names] if isinstance(names, str) else names
    wanted = None if given is None else sorted({_text("names", name) for name in given})
    with _transaction(path, write=True) as board:
        there = _pinned(board)
        wanted = there if wanted is None else wanted
        for name in wanted:
            _check_there("names", name, there, "on the board", "pinned")
        _take_off(board, wanted)
        return len(wanted)


def restore(name: str, *, replace: bool = False, path: Path | str | None = None) -> None:
    """Put a pin back that was taken off or replaced.

    Args:
        name: of the pin.
        replace: change places with a pin that has the name now, instead of being refused.
        path: as for `pin`, like the other errors.

    Raises:
        NameTakenError: a ValueError; another pin has the name now and `replace` is not set.
        ValueError: no such pin was taken off, or too many others after it.
    """
    _text("name", name)
    checks.instance("replace", replace, bool, "True or False")
    with _transaction(path, write=True) as board:
        _make_removed(board)
        removed = [row["name"] for row in board.execute("SELECT name FROM removed ORDER BY rowid DESC")]
        _check_there("name", name, removed, "taken off the board", "removed")
        row = board.execute(f"SELECT {_NAMES} FROM removed WHERE name = ?", [name]).fetchone()
        board.execute("DELETE FROM removed WHERE name = ?", [name])
        _put(board, dict(row), replace)


def rename(old: str, new: str, *, path: Path | str | None = None) -> None:
    """Give a pin another name.

    Args:
        old: of the pin on the board.
        new: one line of text.
        path: as for `pin`, like the other errors.

    Raises:
        NameTakenError: a ValueError; another pin has the new name.
        ValueError: `old` is not on the board, or `new` is empty or not one line.
    """
    _text("old", old)
    _line("new", new)
    with _transaction(path, write=True) as board:
        _check_there("old", old, _pinned(board), "on the board", "pinned")
        try:
            board.execute("UPDATE pins SET name = ? WHERE name = ?", [new, old])
        except sqlite3.IntegrityError as error:
            raise _taken(board, new) from error


def stamp(path: Path | str | None = None) -> tuple[object, ...]:
    """What differs from before once the board's file may hold something else; reads nothing of it, and never fails."""
    return _STORE.stamp(_path(path))


def _put(board: sqlite3.Connection, row: Mapping[str, Any], replace: bool) -> None:
    if replace:
        _take_off(board, [row["name"]])
    try:
        board.execute(f"INSERT INTO pins ({_NAMES}) VALUES ({', '.join(f':{column}' for column in _COLUMNS)})", row)
    except sqlite3.IntegrityError as error:
        raise _taken(board, row["name"]) from error


def _take_off(board: sqlite3.Connection, names: Sequence[str]) -> None:
    """Move pins to those that can be restored; of each name the last one is kept."""
    _make_removed(board)
    each = [(name,) for name in names]
    insert = f"INSERT OR REPLACE INTO removed ({_NAMES}) SELECT {_NAMES} FROM pins WHERE name = ?"
    board.executemany(insert, each)
    board.executemany("DELETE FROM pins WHERE name = ?", each)
    latest = f"SELECT rowid FROM removed ORDER BY rowid DESC LIMIT {KEPT}"
    board.execute(f"DELETE FROM removed WHERE rowid NOT IN ({latest})")


def _make_removed(board: sqlite3.Connection) -> None:
    """An older kit's board has no such table, and an older kit does not mind it."""
    board.execute(f"CREATE TABLE IF NOT EXISTS removed ({_DECLARED})")


def _tables(board: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in board.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _pinned(board: sqlite3.Connection) -> list[str]:
    return [row["name"] for row in board.execute(f"SELECT name FROM pins ORDER BY {_OLDEST_FIRST}")]


def _check_there(argument: str, name: str, there: Sequence[str], where: str, are: str) -> None:
    if name not in there:
        some = ", ".join(map(repr, there[:10])) or "nothing"
        raise ValueError(f"{argument} must be {where}, and {name!r} is not; {are} are {some}.")


def _taken(board: sqlite3.Connection, name: str) -> NameTakenError:
    old = board.execute("SELECT * FROM pins WHERE name = ?", [name]).fetchone()
    about = f"{old['technique']} on {old['dataset']}, accuracy {old['accuracy']:.3f}, pinned {old['pinned_at']}"
    other = f"take another, for example {_free_name(_pinned(board), name)!r}, or clear it"
    return NameTakenError(f"name {name!r} is taken: {about}; {other}.")


def _free_name(there: Sequence[str], name: str) -> str:
    numbered = re.fullmatch(r"(.+) \((\d{1,9})\)", name)
    base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    return next(free for at in itertools.count(number + 1) if (free := f"{base} ({at})") not in there)


_OLDEST_FIRST: Final = "pinned_at, rowid"  # one that was restored is as old as it was
_NAMES: Final = ", ".join(_COLUMNS)
_DECLARED: Final = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
_TABLE: Final = f"CREATE TABLE pins ({_DECLARED})"
_STORE = Store(noun="board", letters=b"kitb", version=1, tables=(_TABLE,), way_out="set KIT_BOARD to", error=BoardError)


@contextmanager
def _transaction(path: Path | str | None, *, write: bool) -> Iterator[sqlite3.Connection]:
    with _STORE.transaction(_path(path), write=write) as connection:
        yield connection
    if write:
        written.set()


def _path(path: Path | str | None) -> Path | str:
    checks.instance("path", path, (str, Path, type(None)), "a path or None")
    return default_path() if path is None else path


def _text(argument: str, value: Any) -> str:
    checks.instance(argument, value, str, "text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{argument} must be text that can be written as UTF-8; got {value!r}.")
    return value


def _line(argument: str, value: object) -> str:
    text, allowed = _text(argument, value), "one line of 1 to 200 letters without blanks at its ends"
    if not text or text != text.strip() or not text.isprintable() or len(text) > 200:
        raise ValueError(f"{argument} must be {allowed}; got {text[:250]!r}.")
    return text


def _numbers(profile: Profile) -> dict[str, float | int]:
    try:
        row = {name: checks.whole(f"profile.{name}", getattr(profile, name), 0, _MOST) for name in _COUNTS}
        accuracy, latency = _interval("accuracy", profile.accuracy), _interval("latency", profile.latency, "latency_n")
    except AttributeError as error:
        raise TypeError(f"profile must be a measure.Profile; got {profile!r} ({error}).") from error
    checks.whole("profile.batch_size", profile.batch_size, 1)
    checks.whole("profile.nonzeros", profile.nonzeros, 0, profile.parameters)
    if accuracy["accuracy_high"] > 1:
        raise ValueError(f"profile.accuracy must lie in 0 .. 1; got {profile.accuracy}.")
    if profile.broken:
        raise ValueError(f"profile: the model {profile.broken}, so its accuracy means nothing; pin one that does not.")
    return {**row, **accuracy, **latency}


def _interval(name: str, estimate: Estimate, count: str = "n") -> dict[str, float | int]:
    value, low, high = float(estimate.value), float(estimate.low), float(estimate.high)
    if not 0 <= low <= value <= high < math.inf:
        raise ValueError(f"profile.{name} must be finite, with 0 <= low <= value <= high; got {estimate}.")
    n = checks.whole(f"profile.{name}.n", estimate.n, 1, _MOST)
    return {name: value, f"{name}_low": low, f"{name}_high": high, count: n}


def _checked_settings(settings: Any) -> dict[str, str | int | float | bool]:
    checks.instance("settings", settings, Mapping, "names with text or numbers, as in a dict")
    for key, value in settings.items():
        _line("settings' names", key)
        checks.instance(f"settings[{key!r}]", value, (str, int, float), "text, a number or a bool")  # bool is an int
        if isinstance(value, float):
            checks.number(f"settings[{key!r}]", value)
        elif isinstance(value, str):
            _text(f"settings[{key!r}]", value)
    return dict(settings)
