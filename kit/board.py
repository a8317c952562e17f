"""The trade-off board: every model that any notebook pins, on one plane, kept in one SQLite file (`kit.store`).

Several notebooks may use the board at once. A file that is not a board, or is damaged, is refused and left untouched.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
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


class BoardError(RuntimeError):
    """The board's file cannot be used: absent folder, not a board, damaged, newer, locked, or read-only."""


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
        replace: take the place of a pin of that name instead of being refused; for cells that are run again.
        path: the board's file; `default_path()` where None.

    Raises:
        ValueError: the name is taken and `replace` is not set (the sentence suggests a free one); a text is empty or
            not one line; a number of the profile or a setting is not finite or not possible.
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
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    insert = f"{verb} INTO pins ({', '.join(row)}) VALUES ({', '.join(f':{column}' for column in row)})"
    with _transaction(path, write=True) as board:
        try:
            board.execute(insert, row)
        except sqlite3.IntegrityError as error:
            old = board.execute("SELECT * FROM pins WHERE name = ?", [name]).fetchone()
            about = f"{old['technique']} on {old['dataset']}, accuracy {old['accuracy']:.3f}, pinned {old['pinned_at']}"
            other = f"take another, for example {_free_name(_names(board), name)!r}, or clear it"
            raise ValueError(f"name {name!r} is taken: {about}; {other}.") from error


def frame(dataset: str | None = None, *, path: Path | str | None = None) -> DataFrame:
    """Return the board as a tidy table, one row per pin, oldest first; empty where nothing is pinned.

    Columns: name, dataset, technique, accuracy with accuracy_low and accuracy_high (shares 0 .. 1) over n samples,
    parameters, nonzeros, dense_bytes, file_bytes, flops, latency with latency_low and latency_high (milliseconds
    for one batch of batch_size) over latency_n runs, note, settings (a dict), pinned_at (UTC, ISO 8601).

    Args:
        dataset: only the pins of this data set; all where None.
        path: as for `pin`, like the errors.
    """
    import pandas as pd

    where, values = ("", []) if dataset is None else ("WHERE dataset = ?", [_line("dataset", dataset)])
    select = f"SELECT {', '.join(_COLUMNS)} FROM pins {where} ORDER BY rowid"
    with _transaction(path, write=False) as board:
        rows = [{**row, "settings": json.loads(row["settings"])} for row in board.execute(select, values)]
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

    Args:
        names: one name or several; None takes all pins away.
        path: as for `pin`, like the other errors.
    """
    checks.instance("names", names, (Iterable, type(None)), "a name, several, or None")
    given = [names] if isinstance(names, str) else names
    wanted = None if given is None else sorted({_text("names", name) for name in given})
    with _transaction(path, write=True) as board:
        if wanted is None:
            return board.execute("DELETE FROM pins").rowcount
        there = _names(board)
        if unknown := [name for name in wanted if name not in there]:
            some = ", ".join(repr(name) for name in sorted(there)[:10]) or "nothing"
            raise ValueError(f"names must be on the board, and {unknown[0]!r} is not; pinned are {some}.")
        board.executemany("DELETE FROM pins WHERE name = ?", [(name,) for name in wanted])
        return len(wanted)


def _names(board: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in board.execute("SELECT name FROM pins")}


def _free_name(there: set[str], name: str) -> str:
    numbered = re.fullmatch(r"(.+) \((\d{1,9})\)", name)
    base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    return next(free for at in itertools.count(number + 1) if (free := f"{base} ({at})") not in there)


_TABLE = f"CREATE TABLE pins ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})"
_STORE = Store(noun="board", letters=b"kitb", version=1, tables=(_TABLE,), way_out="set KIT_BOARD to", error=BoardError)


def _transaction(path: Path | str | None, *, write: bool) -> AbstractContextManager[sqlite3.Connection]:
    checks.instance("path", path, (str, Path, type(None)), "a path or None")
    return _STORE.transaction(default_path() if path is None else path, write=write)


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
