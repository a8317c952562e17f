"""Forty readings of one accuracy: each with its interval, against the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel, Trace

HOLDS, MISSES = style.Look(style.BLUE, "circle", "solid"), style.Look(style.VERMILION, "x", "solid")


def holds(reading: Estimate, truth: float) -> bool:
    """Whether the interval of `reading` holds `truth`, its ends included."""
    return reading.low <= truth <= reading.high


def error_bound(truth: float, n: int) -> float:
    """How far off 95 of 100 readings of n images are at most (share 0 .. 1), by the binomial law.

    Args:
        truth: the true share of right answers.
        n: images a reading, drawn independently.
    """
    successes = np.arange(n + 1)
    off = np.abs(successes / n - truth)  # [n + 1]
    order = np.argsort(off)
    likely = np.cumsum(stats.binom.pmf(successes[order], n, truth))
    return float(off[order][np.argmax(likely >= 0.95 - 1e-12)])


def intervals_panel(readings: Sequence[Estimate], truth: float | None, fewest: int, draws: int) -> Panel:
    """Vertical intervals (per cent), one per draw; those that miss the truth have another colour and another marker.

    Args:
        readings: one estimate (share 0 .. 1) a draw, in the order in which they were drawn.
        truth: the share that they estimate; None while it is not known, and then there are no readings.
        fewest: the smallest number of images that a reader can choose. It sets the y axis: the same for nearly all
            draws, so that intervals can be compared.
        draws: readings that there will be.
    """
    held = [truth is not None and holds(reading, truth) for reading in readings]
    numbered = [(at, *pair) for at, pair in enumerate(zip(readings, held, strict=True), 1)]
    holding = Curve.of("holds the truth", ((at, reading) for at, reading, inside in numbered if inside))
    missing = Curve.of("misses the truth", ((at, reading) for at, reading, inside in numbered if not inside))
    line = [] if truth is None else [100 * truth] * 2
    truth_line = {
        **{"name": "truth", "mode": "lines", "line": {"color": style.NEUTRAL, "width": 2}},
        "hovertemplate": "truth: %{y:.1f} %<extra></extra>",
        **{"x": [0, len(readings) + 1][: len(line)], "y": line},
    }
    bottom, top = (0.0, 1.0) if truth is None else _reach(truth, fewest)
    low = math.floor(100 * min([bottom, *(reading.low for reading in readings)]) - 2)
    high = math.ceil(100 * max([top, *(reading.high for reading in readings)]) + 2)
    labels = tuple(Label(f"truth\n{share:.1f} %", y=share, end=True) for share in line[:1])
    ticks = [1, *range(5, draws + 1, 5)]
    x = {"title": "reading", "range": [0.2, draws + 0.8], "showgrid": False, "tickvals": ticks}
    y, title = curves.ticked("accuracy, %", low, high), f"{draws} readings: ● interval holds the truth, ✖ misses it"
    layout, shown = style.layout(title, 330, x, y, right=60), (holding, missing)
    return Panel([truth_line, _bars(holding, HOLDS, 6), _bars(missing, MISSES, 10)], layout, shown, labels)


def _reach(truth: float, n: int) -> tuple[float, float]:
    """Ends of the intervals of 98 in a hundred readings of n images."""
    fewest, most = (int(stats.binom.ppf(share, n, truth)) for share in (0.01, 0.99))
    return Estimate.from_counts(max(fewest, 0), n).low, Estimate.from_counts(max(most, 0), n).high


def _bars(curve: Curve, look: style.Look, size: int) -> Trace:
    error = curves.error_bars(curve, look.colour, thickness=2, width=3)
    return curves.points(curve, look, size, "reading %{x}", error_y=error)
