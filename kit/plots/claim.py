"""A claim of a comparison, drawn: paired values, their difference with its interval, and where it was said to lie."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit import checks
from kit.measure import Estimate
from kit.plots import style

JOINED = 120  # pairs, up to which lines join them
LEVELS = (0.12, -0.2)  # heights of the first and of the second values, about their row's
Values = Sequence[float] | float


@dataclass(frozen=True)
class Pairs:
    """One comparison, and where its mean difference is claimed to lie.

    Attributes:
        label: what is compared; may be empty where a claim has one row.
        values: two names, each with one value a seed, network or image, in the same order. The second may have one
            number, the same for all.
        above, below: the whole 95 % interval of first - second lies between them; one of them may be None.

    Raises:
        TypeError: `label` is no text, `values` no mapping, or a bound no number.
        ValueError: not two names, unequal lengths, fewer than two values, or no bound.
    """

    label: str
    values: Mapping[str, Values]
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        checks.instance("label", self.label, str, "a text")
        checks.instance("values", self.values, Mapping, "a mapping of two names to their values")
        if len(self.values) != 2:
            raise ValueError(f"values must have two names, first and second; got {', '.join(self.values) or 'none'}.")
        bounds = [checks.number("above or below", each) for each in (self.above, self.below) if each is not None]
        if not bounds or bounds != sorted(set(bounds)):
            raise ValueError(f"above and below must say a range; got above={self.above}, below={self.below}.")
        _ = self.difference  # refuses what cannot be paired

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """First and second values, [n] each."""
        first, second = (np.asarray(each, float) for each in self.values.values())
        return first, np.full(first.shape, second) if second.ndim == 0 else second

    @property
    def difference(self) -> Estimate:
        """Mean of first - second, with Student's t interval."""
        first, second = self.pairs
        return Estimate.from_pairs(first.ravel().tolist(), second.ravel().tolist())

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies where it is claimed to."""
        low, high = (-math.inf if self.above is None else self.above, math.inf if self.below is None else self.below)
        return low < self.difference.low and self.difference.high < high

    def said(self, unit: str) -> str:
        """The difference and the claim in words."""
        bounds = [
            f"{word} {_number(b, unit)}" for word, b in (("above", self.above), ("below", self.below)) if b is not None
        ]
        names = " - ".join(self.values)
        return f"{self.label or names}: {written(self.difference, unit)}, claimed {' and '.join(bounds)}"


def written(difference: Estimate, unit: str) -> str:
    """A difference with its interval: `+1.2 points (+0.4 to +2.0)`."""
    if unit == "%":
        return difference.points
    value, low, high = (_number(each, unit) for each in (difference.value, difference.low, difference.high))
    return f"{f'{value} {unit}'.rstrip()} ({low} to {high})"


def _number(value: float, unit: str) -> str:
    return f"{100 * value:+.1f}" if unit == "%" else f"{value:+.3g}"


def claim_figure(sentence: str, rows: Sequence[Pairs], *, unit: str = "%", of: str = "pairs") -> Figure:
    """Rows of paired values at the left, of their differences at the right; where a mean is claimed to lie is shaded.

    Args:
        sentence: the claim.
        rows: its comparisons, drawn from the top.
        unit: `%` for shares, shown as per cent and points; any other text for numbers shown as they are.
        of: what a pair is: seeds, networks, images.
    """
    scale, points = (100, "points") if unit == "%" else (1, unit)
    figure = Figure(figsize=(8, 1.4 + 0.8 * len(rows)), layout="constrained")
    levels, effects = figure.subplots(1, 2)
    for at, row in enumerate(rows):
        _draw_levels(levels, -at, row, scale)
        _draw_effect(effects, -at, row, scale)
        levels.annotate(row.label, (0, 0.32 - at), xycoords=("axes fraction", "data"), fontweight="bold")
        effects.annotate(
            written(row.difference, unit),
            **{"xy": (1, 0.32 - at), "xycoords": ("axes fraction", "data"), "ha": "right"},
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    left, right = effects.get_xlim()
    for at, row in enumerate(rows):  # the limits are those of the numbers, and of what is claimed
        ends = [left if row.above is None else scale * row.above, right if row.below is None else scale * row.below]
        effects.fill_between(ends, -at - 0.2, 0.2 - at, color=style.GREEN, alpha=0.15, linewidth=0)
        bounds = [scale * bound for bound in (row.above, row.below) if bound is not None]
        effects.vlines(bounds, -at - 0.2, 0.2 - at, color=style.GREEN, linestyle="dashed")
    effects.axvline(0, color=style.NEUTRAL, linewidth=1, zorder=0)
    effects.margins(x=0.02)
    names = [(shift - at, name) for at, row in enumerate(rows) for shift, name in zip(LEVELS, row.values, strict=True)]
    levels.set_yticks([y for y, _ in names], [name for _, name in names])
    levels.set_xlabel(f"each of the {of}, {unit}".strip(", ") + "\n| mean")
    effects.set_yticks([])
    effects.set_xlabel(
        f"upper minus lower, {points}".strip(", ") + "\n◆ mean, 95 % interval; shaded: claimed", loc="right"
    )
    for axes in (levels, effects):
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params("y", length=0)
        axes.locator_params("x", nbins=6)  # more of them, with three decimals each, would touch
    sign = "✔" if all(row.holds for row in rows) else "✘ Does not hold:"
    figure.suptitle(textwrap.fill(f"{sign} {sentence}", 100), x=0.01, ha="left", fontsize="medium")
    return figure


def _draw_levels(axes: Axes, y: float, row: Pairs, scale: float) -> None:
    both = np.array(row.pairs) * scale  # [2, n]
    many = both.shape[1] > JOINED
    if not many:
        axes.plot(both, [y + shift for shift in LEVELS], color=style.NEUTRAL, linewidth=0.5, alpha=0.5, zorder=0)
    for values, shift, colour, marker in zip(both, LEVELS, (style.BLUE, style.ORANGE), "oD", strict=True):
        opacity = 0.1 if many else 0.7
        axes.plot(values, np.full(len(values), y + shift), marker, color=colour, markersize=4, alpha=opacity)
        axes.plot(values.mean(), y + shift, "|", color="black", markersize=11, markeredgewidth=2)


def _draw_effect(axes: Axes, y: float, row: Pairs, scale: float) -> None:
    first, second = row.pairs
    spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(first))  # so that equal differences are seen apart
    axes.plot(scale * (first - second), y + spread, ".", color=style.NEUTRAL, alpha=0.4)
    ends = [scale * end for end in (row.difference.low, row.difference.high)]
    axes.plot(ends, [y, y], color=style.VERMILION, linewidth=3, solid_capstyle="butt")
    axes.plot(scale * row.difference.value, y, "D", color=style.VERMILION, markeredgecolor="white")
