"""Figures of compression: accuracy against the file, where its bytes are, weights and their codebook, the error."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit.compress.encode import Ledger
from kit.plots import curves, style
from kit.plots.curves import SIZE_AXES, Curve, Label, Panel, Trace
from kit.plots.prune import layer_rows, row_axis, row_margin

BINS = 61
PART = 1 << 18  # numbers that are counted at once
MANY = 1 << 16  # values, of which no picture is drawn
FEW_DECIBELS = 10.0  # a bar too short for a text
BIT_DECIBELS = 20 * math.log10(2)  # a bit more halves the step of a grid
WAYS = {name: style.LOOKS[name] for name in ("shared", "uniform grid", "pruning alone")}
PARTS = {
    **{"values": style.SKY, "gaps": style.ORANGE, "codebooks": style.GREEN},
    **{"tables": style.YELLOW, "header": style.PURPLE, "raw": style.NEUTRAL},
}
# A text inside a bar: in black, which reads on each of these colours.
INSIDE = {"insidetextfont": {"color": "black"}, "insidetextanchor": "middle", "textangle": 0}


def plane_panel(
    ways: Sequence[Curve], chosen: str, *, dense: Curve, pins: Curve, dense_size: float, chance: float
) -> Panel:
    """Accuracy (per cent, with 95 % intervals) against the file (bytes, log axis).

    Args:
        ways: a curve for each name in `WAYS`, in that order; any may be empty.
        chosen: the one whose interval is shown.
        dense: the dense model; one point, or none while it is not measured.
        pins: what is pinned on the board, the newest last.
        dense_size: of the dense file.
        chance: accuracy of guessing, per cent.
    """
    at, (own,) = SIZE_AXES["file_bytes"].at, [curve for curve in ways if curve.label == chosen]
    traces = [curves.band(own, WAYS[chosen], "interval")]
    traces += [curves.line(curve, WAYS[curve.label], at) for curve in ways]
    traces += [curves.points(dense, style.LOOKS["dense"], 13, at, error_y={}), curves.pins(pins, at)]
    sizes = [size for curve in (*ways, dense, pins) for size in curve.x]
    labels = [label for curve in ways for label in curves.of_curve(curve, WAYS[curve.label])]
    labels += [Label("dense", *point) for point in zip(dense.x, dense.value, strict=True)]
    labels += [*curves.newest(pins), Label("guessing", y=chance, rank=3)]
    x = curves.size_axis("file_bytes", [*sizes, dense_size, dense_size / 50])  # its left end is seldom moved then
    axes = x, {**curves.accuracy_axis(), "range": [0, 109]}
    layout = style.layout("Accuracy against the file (✖ you are here)", 330, *axes, shapes=[curves.level(chance)])
    return Panel(traces, layout, (*ways, dense, pins), tuple(labels))


def bytes_panel(steps: Mapping[str, Ledger]) -> Panel:
    """Where the bytes of the file are: for each step, the first on top, a whole bar, its total, and times smaller."""
    totals, rows, traces = [ledger.total for ledger in steps.values()], range(len(steps)), []
    for part, colour in PARTS.items():
        sizes = [asdict(ledger)[part] for ledger in steps.values()]
        shares = [100 * size / total for size, total in zip(sizes, totals, strict=True)]
        look = {"marker": {"color": colour}, "textposition": "inside", "constraintext": "inside", **INSIDE}
        said = [f"{part}: {size:,} bytes, {share:.1f} %" for size, share in zip(sizes, shares, strict=True)]
        hover = {"hovertext": said, "hovertemplate": "%{hovertext}<extra></extra>"}
        text = [part] * len(shares)
        traces.append(curves.bars_right(rows, **{"name": part, "x": shares, "text": text, **look, **hover}))
    ends = [curves.amount(total, "B") + f", {totals[0] / total:.3g}x" * (total != totals[0]) for total in totals]
    traces.append(curves.bars_right(rows, name="total", x=[0] * len(rows), text=ends, hoverinfo="skip"))
    y = {"tickvals": [*rows], "ticktext": [*steps], "range": [max(len(rows), 3) - 0.4, -0.6], "showgrid": False}
    x, margin = {"title": "of the file, %", "range": [0, 175], "tickvals": [0, 50, 100]}, {**style.MARGIN, "l": 72}
    fits = {"mode": "hide", "minsize": style.SMALL_SIZE}  # the page knows which names do
    more: Trace = {"barmode": "stack", "margin": margin, "uniformtext": fits}
    return Panel(traces, style.layout("Where the bytes are (x: times smaller)", 220, x, y, **more))


def codebook_panel(name: str, before: Tensor, after: Tensor) -> Panel:
    """The weights called `name` that are not zero: their histogram before, and how many have each value after.

    No value is drawn where each weight has one of its own. NaN and infinity lie in no bin.
    """
    reach = max(float(np.abs(part).max(initial=0.0)) for each in (before, after) for part in _parts(each)) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    heights = np.sum([np.histogram(part, BINS, (-reach, reach))[0] for part in _parts(before)], axis=0)
    different, values, counts = _values(after)
    said = {"hovertemplate": "%{fullData.name}: %{y:,} weights near %{x:.3~g}<extra></extra>", "type": "scatter"}
    grey, green = {"shape": "hvh", "color": style.NEUTRAL}, {"color": WAYS["shared"].colour, "width": 1.5}
    centres, sticks = (edges[:-1] + edges[1:]) / 2, curves.sticks(values.tolist(), counts.tolist())
    traces = [
        {"name": "before", "x": centres.tolist(), "y": heights.tolist(), "mode": "lines", "line": grey, **said},
        {"name": "after", **sticks, "mode": "lines", "line": green, **said},
    ]
    x = {"title": "value of a weight", "range": [-1.05 * reach, 1.05 * reach]}
    y = {"title": "weights", "range": [0, 1.05 * max(1, *heights, *counts)]}
    layer = html.escape(curves.short(name.removesuffix(".weight"), 12))
    title = f"{layer}: {curves.counted(different, 'value')} (grey: before)"
    return Panel(traces, style.layout(title, 220, x, y))


def _parts(weight: Tensor) -> Iterator[np.ndarray]:
    """The numbers of a weight that are finite and not 0, in parts: a large one is not to be in memory several times."""
    for part in weight.detach().reshape(-1).split(PART):
        numbers = part.double().numpy()
        yield numbers[np.isfinite(numbers) & (numbers != 0)]


def _values(weight: Tensor) -> tuple[int, np.ndarray, np.ndarray]:
    """How many different numbers there are in `_parts`; and these, with how often each: none of too many to draw."""
    values: NDArray[Any] = np.zeros(0)
    times: NDArray[Any] = np.zeros(0)
    for part in _parts(weight):
        own, counts = np.unique(part, return_counts=True)
        values, places = np.unique(np.concatenate([values, own]), return_inverse=True)
        times = np.bincount(places, np.concatenate([times, counts]), len(values))
        if len(values) > MANY:
            ordered = np.sort((weight if weight.dtype == torch.float64 else weight.float()).detach().numpy(), axis=None)
            new = (ordered[1:] != ordered[:-1]) & np.isfinite(
                ordered[1:]
            )  # the first, or one of the others, is 0 or -inf
            return int(new.sum()) + 1 - int((weight == 0).any()) - int(np.isinf(ordered[0])), values[:0], times[:0]
    drawn = len(values) * (2 * len(values) <= times.sum())
    return len(values), values[:drawn], times[:drawn].astype(int)


def error_panel(sizes: Mapping[str, int], decibels: Mapping[str, float], bits: int) -> Panel:
    """How loud each layer's weights are over their error, and a line at 6 dB for each bit of a code (0: none).

    Args:
        sizes: numbers in each weight, by its name.
        decibels: of each weight, infinite where nothing was lost.
        bits: of a code.
    """
    rows = layer_rows(sizes)
    louder = [row.share(decibels) for row in rows]
    known = [value if math.isfinite(value) else 0.0 for value in louder]
    text = [f"{value:.1f}" if math.isfinite(value) else "exact" for value in louder]
    hover = {"hovertext": [row.said for row in rows], "hovertemplate": "%{hovertext}<br>%{text} dB<extra></extra>"}
    look = {"marker": {"color": style.SKY}, **INSIDE, "insidetextanchor": "start"}  # clear of the dashed line
    look["textposition"] = ["inside" if value > FEW_DECIBELS else "outside" for value in known]
    bar = curves.bars_right(range(len(rows)), **{"x": known, "text": text, **look, **hover})
    at = {"x": [BIT_DECIBELS * bits] * 2, "y": [-1, 99]}
    line: Trace = {"type": "scatter", "mode": "lines", "name": "6 dB a bit", **at}
    line |= {"line": {"color": style.VERMILION, "dash": "dash"}, "visible": bits > 0, "hoverinfo": "name"}
    x = {"title": "signal over error, dB", "range": [0, max(60.0, 1.3 * max(known))], "dtick": 20}
    layout = style.layout("Error of each layer (┆ 6 dB a bit)", 220, x, row_axis(rows), margin=row_margin(rows))
    return Panel([bar, line], layout)
