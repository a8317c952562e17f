"""Forty readings of one accuracy: each with its interval, against the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from kit.measure import Estimate
from kit.plots import style
from kit.plots.prune import Traces

HOLDS, MISSES = style.Look(style.BLUE, "circle", "solid"), style.Look(style.VERMILION, "x", "solid")


class IntervalsInfo(NamedTuple):
    """Readings in the order in which they were drawn, in per cent.

    Attributes:
        value: the readings.
        low: lower ends of their intervals.
        high: upper ends.
        held: whether the interval holds the truth.
        truth: the line to hold; None while it is not measured.
        bottom: lower end of the y axis: the same for nearly all draws, so that intervals can be compared.
        top: upper end of the y axis.
    """

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    held: tuple[bool, ...]
    truth: float | None
    bottom: float
    top: float


def intervals_info(readings: Sequence[Estimate], truth: float | None, fewest: int) -> IntervalsInfo:
    """Gather readings (shares 0 .. 1) against the true share.

    Args:
        readings: one estimate a draw.
        truth: the share that they estimate; None while it is not known.
        fewest: the smallest number of images that a reader can choose: sets the y axis.
    """
    bottom, top = (0.0, 1.0) if truth is None else _reach(truth, fewest)
    bottom, top = (min([bottom, *(r.low for r in readings)]), max([top, *(r.high for r in readings)]))
    return IntervalsInfo(
        tuple(100 * reading.value for reading in readings),
        tuple(100 * reading.low for reading in readings),
        tuple(100 * reading.high for reading in readings),
        tuple(truth is not None and holds(reading, truth) for reading in readings),
        None if truth is None else 100 * truth,
        100 * bottom,
        100 * top,
    )


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


def _reach(truth: float, n: int) -> tuple[float, float]:
    """Ends of the intervals of 98 in a hundred readings of n images."""
    fewest, most = (int(stats.binom.ppf(share, n, truth)) for share in (0.01, 0.99))
    return Estimate.from_counts(max(fewest, 0), n).low, Estimate.from_counts(max(most, 0), n).high


def intervals_traces(info: IntervalsInfo) -> Traces:
    """Arrays of the three traces: the truth, intervals that hold it, intervals that miss it."""
    line = [] if info.truth is None else [info.truth] * 2
    return [{"x": [0, len(info.value) + 1][: len(line)], "y": line}, _chosen(info, True), _chosen(info, False)]


def intervals_layout(info: IntervalsInfo) -> dict[str, Any]:
    """What changes of the layout: the y axis once the truth is known, and the label of its line."""
    low, high = math.floor(info.bottom - 2), math.ceil(info.top + 2)
    step = next((step for step in (1, 2, 5, 10, 20) if (high - low) / step <= 8), 20)
    ticks = [tick for tick in range(0, 101, step) if low <= tick <= high]
    text = "" if info.truth is None else f"truth<br>{info.truth:.1f} %"
    label = {"text": text, "x": 1.005, "xref": "paper", "xanchor": "left", "y": info.truth or 0.0, "showarrow": False}
    return {
        "yaxis": {"range": [low, high], "tickvals": ticks},
        "annotations": [{**label, "align": "left", "font": {"size": style.FONT_SIZE}}],
    }


def intervals_figure(info: IntervalsInfo, draws: int) -> go.Figure:
    """Vertical intervals, one a draw; those that miss the truth have another colour and another marker."""
    hover = "reading %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>"
    fixed: Traces = [
        {"name": "truth", "mode": "lines", "line": {"color": style.NEUTRAL, "width": 2}},
        {"name": "holds the truth", **_look(HOLDS, 6), "hovertemplate": hover},
        {"name": "misses the truth", **_look(MISSES, 10), "hovertemplate": hover},
    ]
    data = []
    for look, arrays in zip(fixed, intervals_traces(info), strict=True):
        error = {**look.get("error_y", {}), **arrays.get("error_y", {})}
        data.append({**look, **arrays, **({"error_y": error} if error else {})})
    layout = intervals_layout(info)
    return style.figure(
        data,
        title=f"{draws} readings with their 95 % intervals: ● holds the truth, ✖ misses it",
        height=360,
        x={
            "title": "reading",
            "range": [0.2, draws + 0.8],
            "showgrid": False,
            "tickvals": [1, *range(5, draws + 1, 5)],
        },
        y={"title": "accuracy, %", **layout.pop("yaxis")},
        margin={"l": 56, "r": 66, "t": 34, "b": 44},
        **layout,
    )


def _chosen(info: IntervalsInfo, held: bool) -> dict[str, Any]:
    at = [index for index, value in enumerate(info.held) if value == held]
    up = [info.high[index] - info.value[index] for index in at]
    down = [info.value[index] - info.low[index] for index in at]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return {"x": [index + 1 for index in at], "y": [info.value[index] for index in at], "error_y": error}


def _look(look: style.Look, size: int) -> dict[str, Any]:
    return {
        "mode": "markers",
        "marker": {"symbol": look.marker, "size": size, "color": look.colour},
        "error_y": {"color": look.colour, "thickness": 2, "width": 3},
    }
