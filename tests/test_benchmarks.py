"""The benchmark frame: verdicts, table, JSON lines, names. No benchmark is timed here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    ("bound", "ratio", "met"),
    [
        ("at most", 1.49, True),
        ("at most", 1.5, True),
        ("at most", 1.51, False),
        ("at least", 1.51, True),
        ("at least", 1.5, True),
        ("at least", 1.49, False),
        ("at most", math.nan, False),
        ("at least", math.inf, False),
    ],
)
def test_verdict(bound: str, ratio: float, met: bool) -> None:
    target = Target("at most" if bound == "at most" else "at least", 1.5)
    assert target.met(ratio) is met
    assert str(target) == f"{bound} 1.5"


def test_ratio_follows_the_question() -> None:
    assert (SLOW.ratio, SLOW.met) == (3.0, False)
    assert (QUICK.ratio, QUICK.met) == (4.0, True)


def test_rival_of_zero_meets_nothing() -> None:
    row = Row.of("zero", "", 1.0, 0.0, "s", Target("at most", 1))
    assert not row.met


def test_loss_below_zero_meets_a_limit() -> None:
    assert Row.of("gain", "", -0.4, 1.0, "points", Target("at most", 1)).met


def test_json_line_has_exactly_the_promised_keys() -> None:
    read = json.loads(QUICK.json_line())
    assert list(read) == ["name", "ours", "rival", "unit", "ratio", "target", "met"]
    assert read == {
        **{"name": "quick.one", "ours": 2.0, "rival": 8.0, "unit": "s"},
        **{"ratio": 4.0, "target": "at least 3", "met": True},
    }


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
    assert run({"slow": slow, "quick": quick}, path) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == table([SLOW, QUICK]).splitlines()
    assert "slow: half way" in printed.err
    assert path.read_text().splitlines() == [SLOW.json_line(), QUICK.json_line()]


def test_row_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for _ in range(2):
        run({"quick": quick}, path)
    assert path.read_text().splitlines() == [QUICK.json_line()]


def test_benchmark_that_cannot_run_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"absent": absent, "quick": quick}) == 1
    printed = capsys.readouterr()
    assert "absent: not run: no browser here." in printed.err
    assert "4.00" in printed.out


def test_choose() -> None:
    both = {"slow": slow, "quick": quick}
    assert choose("", both) == both
    assert choose("quick", both) == {"quick": quick}
    with pytest.raises(ValueError, match="^BENCH must be one of slow, quick, or empty for all; got 'quik'.$"):
        choose("quik", both)


def test_unknown_name_ends_the_command_in_one_sentence() -> None:
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks"],
        cwd=root,
        env={**os.environ, "BENCH": "speed"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    names = "slider, sweep, channels, cohort, distillation, search, notebooks, import"
    sentence = f"BENCH must be one of {names}, or empty for all; got 'speed'.\n"
    assert ended.stderr == sentence
