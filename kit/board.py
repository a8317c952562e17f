"""The trade-off board: every model that any notebook pins, on one plane, kept in one SQLite file (`kit.store`).

Several notebooks may use the board at once. A file that is no board, or is damaged, is refused and not touched.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

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
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM pins"


class BoardError(RuntimeError):
    """The board's file cannot be used: absent folder, not a board, damaged, newer, locked, or read-only."""


def default_path() -> Path:
    """Return where the board is kept: the environment variable KIT_BOARD, else data/board.sqlite beside `kit`."""
    given = os.environ.get("KIT_BOARD")
    return Path(given) if given else Path(__file__).resolve().parent.parent / "data" / "board.sqlite"


def pin(
    name: str,
    profile: Profile,
    *,
    dataset: str,
    technique: str,
    note: str = "",
    settings: Mapping[str, str | int | float | bool] | None = None,
    replace: bool = False,
    path: Path | None = None,
) -> None:
    """Keep one measured model on the board.

    Args:
        name: the pin's own name, one line of text; each name is there once.
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
        "settings": json.dumps(_checked_settings(settings), ensure_ascii=False),
        "pinned_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    insert = f"{verb} INTO pins ({', '.join(row)}) VALUES ({', '.join(f':{column}' for column in row)})"
    with _transaction(path, write=True) as board:
        try:
            board.execute(insert, row)
        except sqlite3.IntegrityError as error:
            old = board.execute("SELECT * FROM pins WHERE name = ?", [name]).fetchone()
            raise ValueError(
                f"name {name!r} is taken: {old['technique']} on {old['dataset']}, accuracy {old['accuracy']:.3f}, "
                f"pinned {old['pinned_at']}; take another, for example {_free_name(board, name)!r}, or clear it."
            ) from error


def frame(dataset: str | None = None, *, path: Path | None = None) -> DataFrame:
    """Return the board as a tidy table, one row a pin, oldest first; empty where nothing is pinned.

    Columns: name, dataset, technique, accuracy with accuracy_low and accuracy_high (shares 0 .. 1) over n samples,
    parameters, nonzeros, dense_bytes, file_bytes, flops, latency with latency_low and latency_high (milliseconds
    for one batch of batch_size) over latency_n runs, note, settings (a dict), pinned_at (UTC, ISO 8601).

    Args:
        dataset: only the pins of this data set; all where None.
        path: the board's file; `default_path()` where None.

    Raises:
        ValueError: `dataset` is empty text.
        BoardError: as for `pin`.
    """
    import pandas as pd

    where, values = ("", []) if dataset is None else (" WHERE dataset = ?", [_line("dataset", dataset)])
    with _transaction(path, write=False) as board:
        rows = [dict(row) for row in board.execute(f"{_SELECT}{where} ORDER BY rowid", values)]
        for row in rows:
            row["settings"] = json.loads(row["settings"])
    kinds = {"INTEGER": "int64", "REAL": "float64", "TEXT": "object"}
    dtypes = {column: kinds[declared.split()[0]] for column, declared in _COLUMNS.items()}
    return pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object).astype(dtypes)


def front(dataset: str, size: Size = "nonzeros", *, path: Path | None = None) -> DataFrame:
    """Return the Pareto front of one data set: the pins that no other pin beats, smallest first.

    A pin beats another when it is at least as accurate and at most as large, and one of the two strictly. Equal
    pins do not beat each other. Latencies are compared only between pins with the same batch size.

    Args:
        dataset: the data set; pins of others are never compared with it.
        size: "nonzeros", "parameters", "file_bytes", "dense_bytes", "flops" or "latency".
        path: the board's file; `default_path()` where None.

    Returns:
        The columns of `frame`.

    Raises:
        ValueError: unknown `size`, empty `dataset`.
        BoardError: as for `pin`.
    """
    if size not in get_args(Size):
        raise ValueError(f"size must be one of {', '.join(get_args(Size))}, not {size!r}.")
    pins = frame(_line("dataset", dataset), path=path).sort_values(size, kind="stable", ignore_index=True)
    accuracy, sizes = pins["accuracy"].to_numpy(), pins[size].to_numpy()  # [pins]
    at_least_as_good = (accuracy[:, None] >= accuracy) & (sizes[:, None] <= sizes)  # [pins, pins]
    beats = at_least_as_good & ((accuracy[:, None] > accuracy) | (sizes[:, None] < sizes))  # row beats column
    if size == "latency":
        batch_sizes = pins["batch_size"].to_numpy()
        beats &= batch_sizes[:, None] == batch_sizes
    return pins[~beats.any(axis=0)].reset_index(drop=True)


def clear(names: str | Iterable[str] | None = None, *, path: Path | None = None) -> int:
    """Take pins off the board, and return how many went.

    Args:
        names: one name or several; None takes all pins away.
        path: the board's file; `default_path()` where None.

    Raises:
        ValueError: a name is not on the board; then nothing is removed.
        BoardError: as for `pin`.
    """
    wanted = None if names is None else sorted({names} if isinstance(names, str) else set(names))
    with _transaction(path, write=True) as board:
        if wanted is None:
            return board.execute("DELETE FROM pins").rowcount
        there = {row["name"] for row in board.execute("SELECT name FROM pins")}
        if unknown := [name for name in wanted if name not in there]:
            some = ", ".join(repr(name) for name in sorted(there)[:10]) or "nothing"
            raise ValueError(f"names must be on the board, and {unknown[0]!r} is not; pinned are {some}.")
        board.executemany("DELETE FROM pins WHERE name = ?", [(name,) for name in wanted])
        return len(wanted)


def suggest_name(name: str, *, path: Path | None = None) -> str:
    """Return `name` if it is free, else the next free one: "pruned", "pruned (2)", "pruned (3)".

    Another notebook may take it before you do; `pin` then refuses it.

    Raises:
        ValueError: `name` is empty or not one line.
        BoardError: as for `pin`.
    """
    _line("name", name)
    with _transaction(path, write=False) as board:
        return _free_name(board, name)


def _free_name(board: sqlite3.Connection, name: str) -> str:
    there = {row["name"] for row in board.execute("SELECT name FROM pins")}
    numbered = re.fullmatch(r"(.+) \((\d{1,9})\)", name)
    base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    while name in there:
        number += 1
        name = f"{base} ({number})"
    return name


# --- the file ---------------------------------------------------------------------------------------------------


_STORE = Store(
    noun="board",
    letters=b"kitb",
    version=1,
    tables=(f"CREATE TABLE pins ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})",),
    way_out="set KIT_BOARD to",
    error=BoardError,
)


@contextmanager
def _transaction(path: Path | None, *, write: bool) -> Iterator[sqlite3.Connection]:
    """The board inside one transaction; all errors of the file as BoardError."""
    with _STORE.transaction(default_path() if path is None else Path(path), write=write) as board:
        yield board


# --- arguments --------------------------------------------------------------------------------------------------


def _text(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be text, not {type(value).__name__}.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{argument} must be text that can be written as UTF-8, not {value!r}.")
    return value


def _line(argument: str, value: object) -> str:
    text = _text(argument, value)
    if not text or text != text.strip() or not text.isprintable() or len(text) > 200:
        raise ValueError(
            f"{argument} must be one line of 1 to 200 letters without blanks at its ends, not {text[:250]!r}."
        )
    return text


def _numbers(profile: Profile) -> dict[str, float | int]:
    """Return the columns of a profile, after looking at each number."""
    try:
        counts = {name: operator.index(getattr(profile, name)) for name in _COUNTS}
        accuracy, latency = _interval("accuracy", profile.accuracy), _interval("latency", profile.latency)
    except (AttributeError, TypeError) as error:
        raise TypeError(f"profile must be a measure.Profile, not {profile!r} ({error}).") from error
    for name, count in (*counts.items(), ("accuracy.n", accuracy["n"]), ("latency.n", latency["n"])):
        smallest = 1 if name in ("batch_size", "accuracy.n", "latency.n") else 0
        if not smallest <= count < 2**63:
            raise ValueError(f"profile.{name} must be a whole number from {smallest} on, not {count}.")
    if counts["nonzeros"] > counts["parameters"]:
        raise ValueError(f"profile.nonzeros must be at most profile.parameters, not {counts['nonzeros']}.")
    if accuracy["accuracy_high"] > 1:
        raise ValueError(f"profile.accuracy must lie in 0 .. 1, not {profile.accuracy}.")
    return {**accuracy, **counts, **{("latency_n" if key == "n" else key): latency[key] for key in latency}}


def _interval(name: str, estimate: Estimate) -> dict[str, float | int]:
    value, low, high = float(estimate.value), float(estimate.low), float(estimate.high)
    if not all(map(math.isfinite, (value, low, high))) or not 0 <= low <= value <= high:
        raise ValueError(f"profile.{name} must be finite, with 0 <= low <= value <= high, not {estimate}.")
    return {name: value, f"{name}_low": low, f"{name}_high": high, "n": operator.index(estimate.n)}


def _checked_settings(settings: object) -> dict[str, str | int | float | bool]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must map names to text or numbers, not {type(settings).__name__}.")
    for key, value in settings.items():
        _line("settings' names", key)
        if not isinstance(value, str | int | float):  # bool is an int
            raise TypeError(f"settings[{key!r}] must be text, a number or a bool, not {type(value).__name__}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"settings[{key!r}] must be finite, not {value}.")
        if isinstance(value, str):
            _text(f"settings[{key!r}]", value)
    return dict(settings)
