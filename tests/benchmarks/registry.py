"""The benchmarks by name, and the run of one or all of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.benchmarks.rows import Row, table

Say = Callable[[str], None]
Benchmark = Callable[[Say], Iterable[Row]]

BUSY = 0.7  # load average above which a number is not worth quoting


class UnavailableError(RuntimeError):
    """This machine lacks what a benchmark needs; the message says what."""


def choose(name: str, benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    """The benchmark called `name`; all of them for an empty name.

    Raises:
        ValueError: no benchmark has that name.
    """
    if not name:
        return dict(benchmarks)
    if name not in benchmarks:
        raise ValueError(f"BENCH must be one of {', '.join(benchmarks)}, or empty for all; got {name!r}.")
    return {name: benchmarks[name]}


def run(benchmarks: Mapping[str, Benchmark], json_path: Path | None = None, say: Say | None = None) -> int:
    """Run benchmarks one after another, print the table; rows go to `json_path` as soon as they are there.

    A target that is not met is a result, not a failure of the run.

    Args:
        benchmarks: by name.
        json_path: file for the rows as JSON lines; written anew.
        say: gets one line of progress at a time; by default it goes to stderr.

    Returns:
        The exit code: 0, or 1 when a benchmark could not be run on this machine.
    """
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    rows: list[Row] = []
    missing = 0
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > BUSY:
        say(f"The machine is busy (load average {busy:.1f}): other work slows ours and the rivals' unequally.")
    if json_path is not None:
        json_path.write_text("", encoding="utf-8")
    for name, benchmark in benchmarks.items():
        began = time.monotonic()
        say(f"{name} ...")
        try:
            for row in benchmark(lambda text, name=name: say(f"{name}: {text}")):  # type: ignore[misc]
                rows.append(row)
                if json_path is not None:
                    with json_path.open("a", encoding="utf-8") as lines:
                        lines.write(row.json_line() + "\n")
        except UnavailableError as error:
            missing += 1
            say(f"{name}: not run: {error}")
        say(f"{name}: {time.monotonic() - began:.0f} s")
    print(table(rows))
    return 1 if missing else 0
