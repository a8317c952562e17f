"""Figures of merging: the line between two networks, what stands beside it, and how their units match."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kit.compress.align import Aligned
from kit.compress.line import Point
from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel
from kit.plots.prune import heat, outputs_first, side_by_side, tiles_of

SHOWS = ("accuracy", "loss")
LINES = ("as they are", "matched")
# The rows beside the line, with their looks.
ROWS = {"network a": "dense", "network b": "dense", "average": "here", "distilled": "distilled", "ensemble": "ensemble"}
PAIRS = 6  # of units side by side
_LOOKS = [style.LOOKS[name] for name in LINES]


def line_panel(lines: Sequence[Sequence[Point]], show: str, chance: float) -> Panel:
    """Accuracy (per cent) or loss (nats) of the networks on the line from a to b, with 95 % intervals.

    Args:
        lines: points as far as they are measured, ascending: with b as it is, with its units matched.
        show: one of `SHOWS`. With the loss a dotted line joins both ends: the barrier is what lies above it.
        chance: accuracy of guessing, per cent.
    """
    found, is_loss = [curve_of(label, line, show) for label, line in zip(LINES, lines, strict=True)], show == "loss"
    said = "%{fullData.name}<br>%{y:.3f} nats at %{x:.3~g}<extra></extra>"
    more = {"hovertemplate": said} if is_loss else {"at": "at %{x:.3~g}"}
    ends = [pair for pair in zip(found[0].x, found[0].value, strict=True) if pair[0] in (0, 1) and is_loss]
    hair = {"color": style.NEUTRAL, "dash": "dot", "width": 1.5}
    places = {"x": [x for x, _ in ends], "y": [y for _, y in ends]}
    straight = {"name": "straight line", "mode": "lines", "line": hair, "hoverinfo": "skip", **places}
    banded = [trace for curve, look in zip(found, _LOOKS, strict=True) for trace in curves.banded(curve, look, **more)]
    labels = [label for curve, look in zip(found, _LOOKS, strict=True) for label in curves.of_curve(curve, look)]
    y: dict[str, Any] = {**curves.accuracy_axis(), "range": [0, 109]}
    if is_loss:
        top = max([0.1, *found[0].high, *found[1].high])
        step = 10.0 ** math.floor(math.log10(top)) / 2  # round, so that a growing curve seldom moves the axis
        ticks = [step * at for at in range(math.ceil(1.05 * top / step) + 1)]
        y = {"title": "validation loss, nats", "range": [0, ticks[-1]], "tickvals": ticks[:: 1 + len(ticks) // 9]}
    x = {"title": "way from network a to network b", "range": [-0.03, 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    title = f"{show.capitalize()} on the line between two networks (✖ you are here)"
    guess = [] if is_loss else [curves.level(chance)]
    labels += [Label("guessing", y=chance, rank=3)] * len(guess)
    layout = style.layout(title, 330, {**x, "ticktext": ["a", "¼", "half", "¾", "b"]}, y, shapes=guess)
    return Panel([*banded, straight], layout, tuple(found), tuple(labels))


def curve_of(label: str, points: Sequence[Point], show: str) -> Curve:
    """Points of the line as a curve: per cent for the accuracy, nats for the loss."""
    if show == "accuracy":
        return Curve.of(label, [(point.t, point.accuracy) for point in points])
    losses = [(point.t, point.loss.value, point.loss.low, point.loss.high) for point in points]
    return Curve(label, *zip(*losses, strict=True)) if losses else Curve(label)


def beside_panel(measured: Mapping[str, Estimate], size: int, lowest: float = 100.0) -> Panel:
    """Accuracy (per cent, 95 % intervals) of each network, of their average, and of what both teach or answer together.

    Args:
        measured: by the names of `ROWS`; what is missing is not measured yet.
        size: parameters of one network; an ensemble has twice as many.
        lowest: accuracy (per cent) that the axis must hold, so that it stays when the average moves.
    """
    found = [Curve.of(name, [(0, measured[name])] if name in measured else []) for name in ROWS]
    traces = [curves.point_right(curve, style.LOOKS[look]) for curve, look in zip(found, ROWS.values(), strict=True)]
    low = 5.0 * math.floor(min([90.0, lowest, *(low for curve in found for low in curve.low)]) / 5)
    y = {"type": "category", "categoryorder": "array", "categoryarray": [*ROWS], "range": [len(ROWS) - 0.4, -0.6]}
    title, margin = f"{size:,} parameters each, ensemble {2 * size:,}", {**style.MARGIN, "l": 84}
    return Panel(traces, style.layout(title, 220, curves.ticked("validation accuracy, %", low, 101), y, margin=margin))


def pairs_panel(a: nn.Module, b: nn.Module, aligned: Aligned | None, layer: str, shape: Sequence[int]) -> Panel:
    """Incoming weights of the units most alike: a's, b's in the same places, and those of b that are matched with them.

    Args:
        a: the first network.
        b: the second, as it is.
        aligned: what was matched; None where nothing could be.
        layer: one of its groups, whose first layer is shown.
        shape: of one sample.
    """
    picture, size, places = np.zeros((0, 0)), (1, 1), list[str]()
    if aligned is not None:
        best = np.argsort(aligned.after[layer])[::-1][:PAIRS].tolist()
        taken = torch.tensor([aligned.outputs[layer][unit] for unit in best])  # [units, rows]: of a head several
        weights = [outputs_first(model, f"{layer}.weight")[taken] for model in (a, b, aligned.model)]
        units = [(each[:, 0] if each.shape[1] == 1 else each.flatten(1)).numpy() for each in weights]
        tiles = _square(np.concatenate([tiles_of(each, shape) for each in units]))
        tiles /= np.nanmax(np.abs(tiles), axis=(1, 2), keepdims=True) + 1e-12  # each for itself: the pattern counts
        picture, size = side_by_side(tiles, np.nan, columns=len(best)), tiles.shape[1:]
        places = [f"{aligned.permutations[layer][place]}→{place}" for place in best]
    hidden = {"showgrid": False, "showline": False, "ticks": "outside", "ticklen": 4, "tickcolor": "rgba(0,0,0,0)"}
    rows = {
        "tickvals": _middles(3 * bool(places), size[0]),
        "ticktext": ["a", "b as it is", "b matched"],
        "autorange": "reversed",
    }
    x = {**hidden, "tickvals": _middles(len(places), size[1]), "ticktext": places, "tickangle": 0}
    title, margin = (
        f"{html.escape(curves.short(layer))}: which unit of b goes where",
        {"l": 76, "r": 8, "t": 30, "b": 26},
    )
    return Panel([heat(picture, 1.0)], style.layout(title, 220, x, {**hidden, **rows}, margin=margin))


def _middles(number: int, size: int) -> list[float]:
    """Of tiles with a gap of one between them."""
    return [(size + 1) * at + (size - 1) / 2 for at in range(number)]


def _square(tiles: np.ndarray) -> np.ndarray:
    """Strips of many weights folded into squares. [n, 1, width] -> [n, height, width]; images stay."""
    n, height, width = tiles.shape
    side = width if height > 1 else math.ceil(math.sqrt(width))
    missing = -height * width % side
    return np.pad(tiles.reshape(n, -1), ((0, 0), (0, missing)), constant_values=np.nan).reshape(n, -1, side)
