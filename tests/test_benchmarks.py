"""The benchmark frame: verdicts, table, JSON lines, names. No benchmark is timed here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.registry import Say, UnavailableError, choose, run
from tests.benchmarks.rows import Row, Target, table

SLOW = Row.of("slow", "ours / rival", 30.0, 10.0, "ms", Target("at most", 1.5))
QUICK = Row.of("quick.one", "rival / ours, a longer text", 2.0, 8.0, "s", Target("at least", 3))


def slow(say: Say) -> Iterator[Row]:
    say("half way")
    yield SLOW


def quick(say: Say) -> Iterator[Row]:
    yield QUICK


def absent(say: Say) -> Iterator[Row]:
    raise UnavailableError("no browser here.")
    yield SLOW


@pytest.mark.parametrize(
    ("bound", "met"), [("at most", [True, True, False, False, True]), ("at least", [False, True, True, False, False])]
)
def test_verdict(bound: Any, met: list[bool]) -> None:
    target = Target(bound, 1.5)
    assert [target.met(ratio) for ratio in (1.49, 1.5, 1.51, math.nan, -0.4)] == met
    assert not target.met(math.inf)
    assert str(target) == f"{bound} 1.5"


def test_ratio_follows_the_question() -> None:
    assert (SLOW.ratio, SLOW.met) == (3.0, False)
    assert (QUICK.ratio, QUICK.met) == (4.0, True)
    assert not Row.of("zero", "", 1.0, 0.0, "s", Target("at most", 1)).met  # a rival of zero meets nothing
    assert Row.of("gain", "", -0.4, 1.0, "points", Target("at most", 1)).met


def test_json_line_has_exactly_the_promised_keys() -> None:
    keys = ["name", "ours", "rival", "unit", "ratio", "target", "met"]
    values = ["quick.one", 2.0, 8.0, "s", 4.0, "at least 3", True]
    assert list(json.loads(QUICK.json_line()).items()) == list(zip(keys, values, strict=True))


def test_table_is_aligned() -> None:
    heading, rule, *lines = table([SLOW, QUICK]).splitlines()
    assert heading.split() == ["what", "ours", "rival", "ratio", "target", "verdict"]
    starts = [place for place, sign in enumerate(rule) if sign == "-" and (place == 0 or rule[place - 1] == " ")]
    assert len(starts) == 6
    for line in lines:
        assert all(line[start - 2 : start] == "  " for start in starts[1:])
    assert lines[0].endswith("not met") and lines[1].endswith("  met")
    assert "30 ms" in lines[0] and "4.00" in lines[1]


def test_run_prints_the_table_and_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("an older run\n")
    assert run({"slow": slow, "quick": quick}, path) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == table([SLOW, QUICK]).splitlines()
    assert "slow: half way" in printed.err
    assert path.read_text().splitlines() == [SLOW.json_line(), QUICK.json_line()]
    # A benchmark that cannot run here is said.
    assert run({"absent": absent, "quick": quick}) == 1
    printed = capsys.readouterr()
    assert "absent: not run: no browser here." in printed.err
    assert "4.00" in printed.out


def test_choose_and_an_unknown_name_ends_the_command_in_one_sentence() -> None:
    both = {"slow": slow, "quick": quick}
    assert choose("", both) == both
    assert choose("quick", both) == {"quick": quick}
    with pytest.raises(ValueError, match="^BENCH must be one of slow, quick, or empty for all; got 'quik'.$"):
        choose("quik", both)
    command, root = [sys.executable, "-m", "tests.benchmarks"], Path(__file__).resolve().parents[1]
    ended = subprocess.run(command, cwd=root, env={**os.environ, "BENCH": "speed"}, capture_output=True, text=True)
    names = "slider, sweep, channels, cohort, distillation, compression, text, search, pareto, gradient, architecture"
    names += ", cluster, notebooks, busy, big, import"
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"BENCH must be one of {names}, or empty for all; got 'speed'.\n"
