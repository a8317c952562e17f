"""Figures of a sensitivity scan: a curve a layer, the allocation read from them, and what that allocation is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from kit.measure import Estimate
from kit.plots import style
from kit.plots.prune import Traces, band_style, curve_style, detail_height
from kit.prune import Sensitivity

MANY = len(style.LAYER_LOOKS)  # layers beyond this: thin grey curves, the two extremes labelled
_HEIGHT, _TOP = 390, 106.0  # of the main figure: pixels, per cent


class LayerCurve(NamedTuple):
    """One layer: ratios removed from it alone and the accuracies then, all in per cent.

    Attributes:
        name: of the layer.
        size: its weights.
        ratio: measured so far, ascending.
        accuracy: at each ratio.
        low: lower ends of the intervals.
        high: upper ends.
        allocated: the allocation's ratio for this layer; None while there is none.
    """

    name: str
    size: int
    ratio: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    allocated: float | None


class SensitivityInfo(NamedTuple):
    """All layers, from the input to the output.

    Attributes:
        curves: one a layer.
        target: share of all weights that the allocation removes, per cent.
    """

    curves: tuple[LayerCurve, ...]
    target: float


def sensitivity_info(scan: Sensitivity, allocation: Mapping[str, float], target: float) -> SensitivityInfo:
    """Gather a scan, complete or growing, and an allocation (a share a weight name; empty while there is none)."""
    curves = []
    for name, estimates in scan.accuracy.items():
        curves.append(
            LayerCurve(
                name.removesuffix(".weight"),
                scan.sizes[name],
                tuple(100 * ratio for ratio in scan.ratios[: len(estimates)]),
                tuple(100 * estimate.value for estimate in estimates),
                tuple(100 * estimate.low for estimate in estimates),
                tuple(100 * estimate.high for estimate in estimates),
                100 * allocation[name] if name in allocation else None,
            )
        )
    return SensitivityInfo(tuple(curves), 100 * target)


def extremes(info: SensitivityInfo) -> tuple[int, int]:
    """Places of the most and the least sensitive layer: by the mean accuracy lost over the ratios measured so far."""
    lost = [float(np.mean([c.accuracy[0] - value for value in c.accuracy])) if c.accuracy else 0.0 for c in info.curves]
    return int(np.argmax(lost)), int(np.argmin(lost))


def sensitivity_traces(info: SensitivityInfo) -> Traces:
    """Arrays of the traces: a band and a curve for each layer, then the allocation's marks."""
    traces: Traces = []
    for curve, look in zip(info.curves, looks(info), strict=True):
        ratios, ends = list(curve.ratio), [*curve.high, *curve.low[::-1]]
        band: dict[str, Any] = {"x": [], "y": []} if look is None else {"x": [*ratios, *ratios[::-1]], "y": ends}
        traces.append({**band, **band_style(look or style.LOOKS["other"])})
        traces.append({"x": ratios, "y": list(curve.accuracy), **_curve_style(look)})
    marks = allocation_marks(info)
    names = [curve.name for curve in info.curves if curve.allocated is not None]
    traces.append({"x": marks[0], "y": marks[1], "hovertext": names})
    return traces


def allocation_marks(info: SensitivityInfo) -> tuple[list[float], list[float]]:
    """Where the allocation lies on the curves, between two measured points where it falls so."""
    marked = [(curve, curve.allocated) for curve in info.curves if curve.allocated is not None]
    heights = [float(np.interp(ratio, curve.ratio, curve.accuracy)) for curve, ratio in marked]
    return [ratio for _, ratio in marked], heights


def sensitivity_layout(info: SensitivityInfo) -> dict[str, Any]:
    """What changes of the layout: the names at the ends of the curves, always the same number of them."""
    many = len(info.curves) > MANY
    labelled = dict.fromkeys(extremes(info)) if many else range(len(info.curves))
    drawn = [(at, info.curves[at]) for at in labelled if info.curves[at].ratio]
    points = _HEIGHT - 78  # pixels of the y axis
    shifts = _spread([curve.accuracy[-1] * points / _TOP for _, curve in drawn])
    marks = []
    for (at, curve), shift in zip(drawn, shifts, strict=True):
        text = short(curve.name) + (" (most sensitive)" if at == extremes(info)[0] else " (least)") * many
        marks.append({"text": text, "x": curve.ratio[-1], "y": curve.accuracy[-1], "yshift": shift})
    marks += [{"text": "", "x": 0, "y": 0, "yshift": 0}] * ((2 if many else len(info.curves)) - len(marks))
    common = {"xanchor": "left", "xshift": 7, "showarrow": False, "font": {"size": style.SMALL_SIZE}}
    return {"annotations": [{**common, **mark} for mark in marks]}


def sensitivity_figure(info: SensitivityInfo) -> go.Figure:
    """Accuracy after pruning one layer alone, against the share removed from it."""
    hover = "%{x:.3~g} % removed: %{y:.1f} %<extra>%{fullData.name}</extra>"
    here = style.LOOKS["here"]
    fixed: Traces = []
    for curve in info.curves:
        fixed += [{"name": f"interval of {curve.name}"}, {"name": curve.name, "hovertemplate": hover}]
    fixed.append(
        {
            "name": "allocation",
            "mode": "markers",
            "marker": {"symbol": here.marker, "size": 12, "color": here.colour, "line": {"width": 1, "color": "white"}},
            "hovertemplate": "%{hovertext}: the allocation removes %{x:.3~g} %<extra></extra>",
        }
    )
    longest = max(len(short(curve.name)) for curve in info.curves) + 17 * (len(info.curves) > MANY)
    return style.figure(
        [{**look, **arrays} for look, arrays in zip(fixed, sensitivity_traces(info), strict=True)],
        title="One layer pruned alone: which can lose how much? ✖ = its ratio in the allocation",
        height=_HEIGHT,
        x={
            "title": "removed from this layer, % of its weights",
            "range": [-1, 100],
            "tickvals": [0, 20, 40, 60, 80, 100],
        },
        y={"title": "validation accuracy, %", "range": [0, _TOP], "tickvals": [0, 20, 40, 60, 80, 100]},
        margin={"l": 56, "r": 16 + 7 * longest, "t": 34, "b": 44},
        **sensitivity_layout(info),
    )


def allocation_traces(info: SensitivityInfo) -> Traces:
    """Arrays of the two traces: the same ratio in each layer, and the allocation."""
    allocated = [curve.allocated for curve in info.curves if curve.allocated is not None]
    uniform = [info.target] * len(info.curves)
    return [{"x": uniform, "text": _percents(uniform)}, {"x": allocated, "text": _percents(allocated)}]


def allocation_figure(info: SensitivityInfo) -> go.Figure:
    """Two bars a layer: what the allocation takes from it (red), and what the uniform ratio takes (grey, hatched)."""
    here = style.LOOKS["here"]
    marker: dict[str, dict[str, Any]] = {
        "uniform": {"color": style.NEUTRAL, "pattern": {"shape": "/", "solidity": 0.35}},
        "allocation": {"color": here.colour},
    }
    common = {
        "type": "bar",
        "orientation": "h",
        "y": [f"{short(curve.name)}<br>{curve.size:,}" for curve in info.curves],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:.2f} % removed<extra>%{fullData.name}</extra>",
    }
    fixed = [{**common, "name": name, "marker": look} for name, look in marker.items()]
    return style.figure(
        [{**look, **arrays} for look, arrays in zip(fixed, allocation_traces(info), strict=True)],
        title="Removed from each layer: allocation (red), uniform (hatched)",
        height=detail_height(len(info.curves)),
        x={"title": "removed, % of its weights", "range": [0, 125], "tickvals": [0, 25, 50, 75, 100]},
        y={"autorange": "reversed", "showgrid": False},
        margin={"l": 16 + 7 * max(max(len(short(curve.name)), 8) for curve in info.curves), "r": 12, "t": 34, "b": 44},
        bargap=0.2,
        bargroupgap=0.05,
    )


WAYS = ("allocation", "layer", "global")
WAY_LABELS = {"allocation": "allocation", "layer": "uniform", "global": "global", "dense": "dense"}
_WAY_LOOKS = (
    style.LOOKS["here"],
    style.Look(style.NEUTRAL, "square", "solid"),
    style.Look(style.BLUE, "circle", "solid"),
    style.LOOKS["dense"],
)


def ways_traces(accuracies: Mapping[str, Estimate]) -> Traces:
    """Arrays of the four traces, one for each of `WAY_LABELS`: an accuracy with its interval, or nothing yet."""
    traces: Traces = []
    for way, label in WAY_LABELS.items():
        found = [accuracies[way]] if way in accuracies else []
        error = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (estimate.high - estimate.value) for estimate in found],
            "arrayminus": [100 * (estimate.value - estimate.low) for estimate in found],
        }
        traces.append({"x": [100 * estimate.value for estimate in found], "y": [label] * len(found), "error_x": error})
    return traces


def ways_figure(accuracies: Mapping[str, Estimate]) -> go.Figure:
    """The accuracy that each way of sharing out the same overall ratio leaves."""
    data = []
    for look, arrays in zip(_WAY_LOOKS, ways_traces(accuracies), strict=True):
        error = {"color": look.colour, "thickness": 2.5, "width": 7, **arrays["error_x"]}
        data.append(
            {
                **arrays,
                "mode": "markers",
                "marker": {"symbol": look.marker, "size": 11, "color": look.colour},
                "error_x": error,
                "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
            }
        )
    labels = list(WAY_LABELS.values())
    return style.figure(
        data,
        title="The same overall ratio, shared out in three ways",
        height=270,
        x={"title": "validation accuracy, %", "range": [0, 103], "tickvals": [0, 25, 50, 75, 100]},
        y={"type": "category", "categoryarray": labels, "range": [3.6, -0.6], "categoryorder": "array"},
        margin={"l": 84, "r": 12, "t": 34, "b": 44},
    )


def short(name: str, letters: int = 18) -> str:
    """A layer's name, its middle left out where it is long."""
    return name if len(name) <= letters else f"{name[: letters // 2 - 1]}…{name[-letters // 2 :]}"


def looks(info: SensitivityInfo) -> list[style.Look | None]:
    """A look for each layer; with many layers only for the two extremes."""
    if len(info.curves) <= MANY:
        return list(style.LAYER_LOOKS[: len(info.curves)])
    most, least = extremes(info)
    chosen = {most: style.LAYER_LOOKS[1], least: style.LAYER_LOOKS[0]}
    return [chosen.get(at) for at in range(len(info.curves))]


def _curve_style(look: style.Look | None) -> dict[str, Any]:
    if look is None:
        return {"mode": "lines", "line": {"color": style.NEUTRAL, "width": 1, "dash": "solid"}}
    return curve_style(look)


def _spread(heights: list[float], gap: float = 15) -> list[float]:
    """How far to move labels at these heights (pixels) so that they are `gap` apart and stay near."""
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    placed: list[float] = []
    for at in order:
        placed.append(max(heights[at], placed[-1] + gap if placed else 0.0))
    # Moved up only, a group would drift: shift the whole of it back by its mean.
    start = 0
    for end in range(1, len(placed) + 1):
        if end == len(placed) or placed[end] - placed[end - 1] > gap:
            drift = sum(placed[i] - heights[order[i]] for i in range(start, end)) / (end - start)
            floor = placed[start - 1] + gap if start else 0.0
            drift = min(drift, placed[start] - floor)
            placed[start:end] = [height - drift for height in placed[start:end]]
            start = end
    return [placed[order.index(at)] - heights[at] for at in range(len(heights))]


def _percents(shares: list[float]) -> list[str]:
    return [f"{share:.0f} %" for share in shares]
