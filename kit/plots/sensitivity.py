"""Figures of a sensitivity scan: a curve per layer, the allocation read from them, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Panel, Trace, short
from kit.plots.prune import layer_rows, row_axis, row_margin
from kit.prune import Sensitivity

MANY = len(style.LAYER_LOOKS)  # layers beyond this: thin grey curves, the two extremes labelled
TOP = 106.0  # of the y axis, per cent

WAYS = ("allocation", "layer", "global")
WAY_LABELS = {"allocation": "allocation", "layer": "uniform", "global": "global", "dense": "dense"}
_UNIFORM, _GLOBAL = style.Look(style.NEUTRAL, "square", "solid"), style.Look(style.BLUE, "circle", "solid")
_EXTREMES = style.LAYER_LOOKS[1], style.LAYER_LOOKS[0]  # of the most and the least sensitive of many layers
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
    chosen = dict(zip((most, least), _EXTREMES, strict=True))
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
    labels, right = [], style.MARGIN["r"]
    if len(layers) > MANY:  # inside, where there is room for more words
        words = zip(extremes(layers), (" (most sensitive)", " (least)"), strict=True)
        named = [
            (layers[at], short(layers[at].label) + word, look)
            for (at, word), look in zip(words, _EXTREMES, strict=True)
        ]
        labels = [label for curve, name, look in named for label in curves.of_curve(curve, look, name)]
    else:
        pairs = zip(layers, style.LAYER_LOOKS, strict=False)
        labels = [
            each
            for curve, look in pairs
            for each in curves.at_end(curve, look, curves.signed(short(curve.label), look))
        ]
        right = 34 + 7 * max(len(short(curve.label)) for curve in layers)
    x = {"title": "removed from this layer, %", "range": [-1, 100], "tickvals": [*range(0, 101, 20)]}
    layout = style.layout(
        "One layer pruned alone (✖ its ratio in the allocation)",
        330,
        x,
        {**curves.accuracy_axis(), "range": [0, TOP]},
        right=right,
    )
    return Panel([*traces, _allocated(layers, allocation)], layout, layers, tuple(labels))


def _line(curve: Curve, look: style.Look | None) -> Trace:
    at = "%{x:.3~g} % removed"
    if look:
        return curves.line(curve, look, at)
    thin = {"color": style.NEUTRAL, "dash": "solid", "width": 1}
    return curves.line(curve, style.LOOKS["other"], at, mode="lines", line=thin)


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
    """A bar a layer: what the allocation takes from it; a dashed line: the uniform ratio.

    Args:
        sizes: numbers in each weight, by its name.
        allocation: a ratio (0 .. 1) for each weight name; empty while there is none.
        target: the uniform ratio.
    """
    rows = layer_rows(sizes)
    shares = [100 * row.share(allocation) for row in rows] if allocation else []
    bar = curves.bars_right(
        range(len(rows)),
        **{"name": "allocation", "marker": {"color": style.LOOKS["here"].colour}, "x": shares},
        text=[f"{share:.0f} %" for share in shares],
        **{"textposition": "auto", "insidetextanchor": "middle", "textangle": 0},  # clear of the dashed line
        hovertext=[row.said for row in rows],
        hovertemplate="%{hovertext}<br>%{x:.2f} % removed<extra></extra>",
    )
    uniform = {
        **{"type": "scatter", "name": "uniform", "mode": "lines", "line": {"color": style.NEUTRAL, "dash": "dash"}},
        **{
            "x": [100 * target] * 2,
            "y": [-0.6, len(rows) - 0.4],
            "hovertemplate": "uniform: %{x:.4~g} %<extra></extra>",
        },
    }
    x = {"title": "removed, %", "range": [0, 140], "tickvals": [0, 50, 100]}
    title = "Removed from each layer (dashed: uniform)"
    return Panel([uniform, bar], style.layout(title, 220, x, row_axis(rows), margin=row_margin(rows)))


def ways_panel(accuracies: Mapping[str, Estimate]) -> Panel:
    """The accuracy, with its interval, that each way of sharing out the same overall ratio leaves.

    Args:
        accuracies: of the keys of `WAY_LABELS`; one that is missing is not drawn yet.
    """
    found = [Curve.of(label, [(0, accuracies[way])] if way in accuracies else []) for way, label in WAY_LABELS.items()]
    traces = [curves.point_right(curve, look) for curve, look in zip(found, _WAY_LOOKS, strict=True)]
    x = {"title": "validation accuracy, %", "range": [0, 103], "tickvals": [0, 25, 50, 75, 100]}
    y = {"type": "category", "categoryorder": "array", "categoryarray": [*WAY_LABELS.values()], "range": [3.6, -0.6]}
    title = "One overall ratio, shared out three ways"
    return Panel(traces, style.layout(title, 220, x, y, margin={**style.MARGIN, "l": 84}))
