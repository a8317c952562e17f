"""What a benchmark says, the verdict on it, and the two ways to write it: a table and JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Bound = Literal["at most", "at least"]
HEADINGS = ("what", "ours", "rival", "ratio", "target", "verdict")


@dataclass(frozen=True)
class Target:
    """What the ratio must be: `Target("at most", 1.5)`."""

    bound: Bound
    value: float

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches the target; one that is not a finite number never does."""
        if not math.isfinite(ratio):
            return False
        return ratio <= self.value if self.bound == "at most" else ratio >= self.value

    def __str__(self) -> str:
        """Such as "at most 1.5"."""
        return f"{self.bound} {self.value:g}"


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: short and stable, for machines: the benchmark, a dot, what of it.
        what: one line for the reader: what is compared with what.
        ours: the kit's number, in `unit`.
        rival: the other's number in the same unit; for an absolute target, the limit.
        unit: of both.
        ratio: `ours / rival` where less is better for us, `rival / ours` where the question is "how many times faster".
        target: what the ratio must be.
        met: whether it is.
    """

    name: str
    what: str
    ours: float
    rival: float
    unit: str
    ratio: float
    target: str
    met: bool

    @classmethod
    def of(cls, name: str, what: str, ours: float, rival: float, unit: str, target: Target) -> Row:
        """Work the ratio and the verdict out: "at most" looks at ours / rival, "at least" at rival / ours."""
        over, under = (ours, rival) if target.bound == "at most" else (rival, ours)
        ratio = over / under if under else math.inf
        return cls(name, what, ours, rival, unit, ratio, str(target), target.met(ratio))

    def json_line(self) -> str:
        """The row for machines; the words of `what` are left out."""
        keys = ("name", "ours", "rival", "unit", "ratio", "target", "met")
        return json.dumps({key: getattr(self, key) for key in keys})


def table(rows: Sequence[Row]) -> str:
    """All rows as one aligned table, numbers to the right."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    form = "  ".join(f"{{:{'<>>><<'[column]}{width}}}" for column, width in enumerate(widths))
    return "\n".join(form.format(*line).rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    ours, rival = (f"{value:.3g} {row.unit}" for value in (row.ours, row.rival))
    return row.what, ours, rival, f"{row.ratio:.2f}", row.target, "met" if row.met else "not met"
