"""Figures of a sensitivity scan: a curve per layer, the allocation read from them, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Panel, Trace
from kit.plots.prune import detail_height
from kit.prune import Sensitivity

MANY = len(style.LAYER_LOOKS)  # layers beyond this: thin grey curves, the two extremes labelled
TOP = 106.0  # of the y axis, per cent

WAYS = ("allocation", "layer", "global")
WAY_LABELS = {"allocation": "allocation", "layer": "uniform", "global": "global", "dense": "dense"}
_UNIFORM, _GLOBAL = style.Look(style.NEUTRAL, "square", "solid"), style.Look(style.BLUE, "circle", "solid")
_WAY_LOOKS = (style.LOOKS["here"], _UNIFORM, _GLOBAL, style.LOOKS["dense"])


def layer_curves(scan: Sensitivity) -> tuple[Curve, ...]:
    """A curve a layer, from the input to the output: what was removed from it alone (per cent) and the accuracy then.

    Args:
        scan: complete, or growing: then some curves are shorter.
    """
    percents, measured = [100 * ratio for ratio in scan.ratios], scan.accuracy.items()
    return tuple(Curve.of(name.removesuffix(".weight"), zip(percents, each, strict=False)) for name, each in measured)


def extremes(layers: Sequence[Curve]) -> tuple[int, int]:
    """Places of the most and the least sensitive layer: by the mean accuracy lost over the ratios measured so far.

    Of layers alike the first is the most sensitive, the last the least: of two layers or more they are two.
    """
    lost = [float(np.mean(curve.value[0] - np.array(curve.value))) if curve.x else 0.0 for curve in layers]
    return int(np.argmax(lost)), len(lost) - 1 - int(np.argmin(lost[::-1]))


def looks(layers: Sequence[Curve]) -> list[style.Look | None]:
    """A look for each layer; with many layers only for the two extremes."""
    if len(layers) <= MANY:
        return list(style.LAYER_LOOKS[: len(layers)])
    most, least = extremes(layers)
    chosen = {most: style.LAYER_LOOKS[1], least: style.LAYER_LOOKS[0]}
    return [chosen.get(at) for at in range(len(layers))]


def sensitivity_panel(scan: Sensitivity, allocation: Mapping[str, float]) -> Panel:
    """Accuracy after pruning one layer alone, against the share removed from it; the allocation as marks.

    Args:
        scan: complete or growing.
        allocation: a ratio (0 .. 1) for each weight name; empty while there is none.
    """
    layers = layer_curves(scan)
    traces: list[Trace] = []
    for curve, look in zip(layers, looks(layers), strict=True):
        banded = curve if look else Curve(curve.label)
        traces += [curves.band(banded, look or style.LOOKS["other"]), _line(curve, look)]
    names = {curve.label: short(curve.label) for curve in layers}
    if len(layers) > MANY:
        most, least = (layers[at].label for at in extremes(layers))
        names = {most: f"{short(most)} (most sensitive)", least: f"{short(least)} (least)"}
    ends = {curve.label: curve.value[-1] for curve in layers if curve.label in names and curve.x}
    longest = max(len(short(curve.label)) for curve in layers) + 17 * (len(layers) > MANY)
    title = "One layer pruned alone: which can lose how much? ✖ = its ratio in the allocation"
    x = {"title": "removed from this layer, % of its weights", "range": [-1, 100], "tickvals": [*range(0, 101, 20)]}
    y, labels = {**curves.accuracy_axis(), "range": [0, TOP]}, curves.end_labels(names, ends, (0.0, TOP))
    layout = style.layout(title, 390, x, y, right=24 + 7 * longest, annotations=labels)
    return Panel([*traces, _allocated(layers, allocation)], layout, layers)


def _line(curve: Curve, look: style.Look | None) -> Trace:
    hover = "%{x:.3~g} % removed: %{y:.1f} %<extra>%{fullData.name}</extra>"
    if look:
        return curves.line(curve, look, hovertemplate=hover)
    thin = {"color": style.NEUTRAL, "dash": "solid", "width": 1}
    return curves.line(curve, style.LOOKS["other"], mode="lines", line=thin, hovertemplate=hover)


def _allocated(layers: Sequence[Curve], allocation: Mapping[str, float]) -> Trace:
    """Where the allocation lies on the curves, between two measured points where it falls so."""
    here, shares = style.LOOKS["here"], {name.removesuffix(".weight"): 100 * each for name, each in allocation.items()}
    marked = [(curve, shares[curve.label]) for curve in layers if curve.label in shares]
    return {
        **{"name": "allocation", "mode": "markers", "hovertext": [curve.label for curve, _ in marked]},
        "x": [share for _, share in marked],
        "y": [float(np.interp(share, curve.x, curve.value)) for curve, share in marked],
        "marker": {"symbol": here.marker, "size": 12, "color": here.colour, "line": {"width": 1, "color": "white"}},
        "hovertemplate": "%{hovertext}: the allocation removes %{x:.3~g} %<extra></extra>",
    }


def allocation_panel(sizes: Mapping[str, int], allocation: Mapping[str, float], target: float) -> Panel:
    """Two bars a layer: what the allocation takes from it (red), and what the uniform ratio takes (grey, hatched).

    Args:
        sizes: numbers in each weight, by its name.
        allocation: a ratio (0 .. 1) for each weight name; empty while there is none.
        target: the uniform ratio.
    """
    names = [short(name.removesuffix(".weight")) for name in sizes]
    hatched: dict[str, Any] = {"color": style.NEUTRAL, "pattern": {"shape": "/", "solidity": 0.35}}
    red: dict[str, Any] = {"color": style.LOOKS["here"].colour}
    written = [f"{layer}<br>{size:,}" for layer, size in zip(names, sizes.values(), strict=True)]
    bars = {"uniform": ([target] * len(sizes), hatched), "allocation": ([*allocation.values()], red)}
    traces = [
        curves.bars_right(
            written,
            **{"name": name, "marker": marker, "x": [100 * share for share in shares]},
            text=[f"{100 * share:.0f} %" for share in shares],
            hovertemplate="%{y}: %{x:.2f} % removed<extra>%{fullData.name}</extra>",
        )
        for name, (shares, marker) in bars.items()
    ]
    layout = style.layout(
        "Removed from each layer: allocation (red), uniform (hatched)",
        detail_height(len(sizes)),
        {"title": "removed, % of its weights", "range": [0, 125], "tickvals": [0, 25, 50, 75, 100]},
        {"autorange": "reversed", "showgrid": False},
        margin={"l": 16 + 7 * max(8, *map(len, names)), "r": 12, "t": 34, "b": 44},
        bargap=0.2,
        bargroupgap=0.05,
    )
    return Panel(traces, layout)


def ways_panel(accuracies: Mapping[str, Estimate]) -> Panel:
    """The accuracy, with its interval, that each way of sharing out the same overall ratio leaves.

    Args:
        accuracies: of the keys of `WAY_LABELS`; one that is missing is not drawn yet.
    """
    found = [Curve.of(label, [(0, accuracies[way])] if way in accuracies else []) for way, label in WAY_LABELS.items()]
    traces = [
        {
            **{"name": curve.label, "mode": "markers", "x": list(curve.value), "y": [curve.label] * len(curve.x)},
            "marker": {"symbol": look.marker, "size": 11, "color": look.colour},
            "error_x": curves.error_bars(curve, look.colour, thickness=2.5, width=7),
            "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
        }
        for curve, look in zip(found, _WAY_LOOKS, strict=True)
    ]
    x = {"title": "validation accuracy, %", "range": [0, 103], "tickvals": [0, 25, 50, 75, 100]}
    y = {"type": "category", "categoryorder": "array", "categoryarray": [*WAY_LABELS.values()], "range": [3.6, -0.6]}
    margin, title = {"l": 84, "r": 12, "t": 34, "b": 44}, "The same overall ratio, shared out in three ways"
    return Panel(traces, style.layout(title, 270, x, y, margin=margin))


def short(name: str, letters: int = 18) -> str:
    """A layer's name, its middle left out where it is long."""
    return name if len(name) <= letters else f"{name[: letters // 2 - 1]}…{name[-letters // 2 :]}"
