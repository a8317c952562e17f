"""Figures of pruning: the trade-off plane, what each layer keeps, the weights, the first layer's filters.

Each figure comes in three steps: `x_info(...)` gathers numbers (tested without pixels), `x_traces(info)` turns them
into the arrays of each trace (what a live figure has to change), `x_figure(info)` draws the whole.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor, nn

from kit.measure import Estimate, SizeName
from kit.plots import style
from kit.prune import prunable

Traces = list[dict[str, Any]]


class SizeAxis(NamedTuple):
    """How a size is written: axis title, divisor to its unit, decades shown below the dense model."""

    title: str
    divisor: float
    decades: float


SIZE_AXES: dict[SizeName, SizeAxis] = {
    "nonzeros": SizeAxis("parameters that are not zero", 1, 3.1),
    "file_bytes": SizeAxis("file, kB", 1e3, 2.7),
    "flops": SizeAxis("MFLOPs for one sample", 1e6, 3.1),
    "latency": SizeAxis("latency, ms", 1, 1.6),
}


class Line(NamedTuple):
    """A measured curve on the plane, in order of the ratio: sizes in the axis' unit, accuracies in per cent."""

    label: str
    size: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    ratio: tuple[float, ...]


class PlaneInfo(NamedTuple):
    """Accuracy against size.

    Attributes:
        size: the size on the x axis.
        own: the curve of the chosen importance.
        rival: the curve of random importance; empty where that is the chosen one.
        dense: the dense model; one point, or none while it is not measured.
        here: where the reader is; one point, or none while nothing is measured.
        pins: what is pinned on the board.
        pin_names: their names, in order.
        dense_size: of the dense model, in the axis' unit.
        chance: accuracy of guessing, per cent.
        usual: the curve of magnitude, to compare another importance with; empty where it is the chosen one.
    """

    size: SizeName
    own: Line
    rival: Line
    dense: Line
    here: Line
    pins: Line
    pin_names: tuple[str, ...]
    dense_size: float
    chance: float
    usual: Line = Line("magnitude", (), (), (), (), ())


def line(label: str, size: SizeName, entries: Sequence[tuple[float, Estimate, float]], *, floor: float = 0.0) -> Line:
    """A curve from (size, accuracy, ratio) entries, sorted by ratio, written in the axis' units.

    Args:
        label: written beside the curve.
        size: which size the entries hold.
        entries: in base units: numbers, bytes, FLOPs, milliseconds.
        floor: where a size of 0 is drawn, in base units (a log axis has no 0).
    """
    divisor = SIZE_AXES[size].divisor
    ordered = sorted(entries, key=lambda entry: entry[2])
    return Line(
        label,
        tuple((entry[0] or floor) / divisor for entry in ordered),
        tuple(100 * entry[1].value for entry in ordered),
        tuple(100 * entry[1].low for entry in ordered),
        tuple(100 * entry[1].high for entry in ordered),
        tuple(entry[2] for entry in ordered),
    )


def plane_traces(info: PlaneInfo) -> Traces:
    """Arrays of the plane's seven traces: rival band and curve, own band and curve, dense, pins, usual curve."""
    pins, own = info.pins, style.LOOKS[info.own.label]
    names = [html.escape(name) for name in info.pin_names]  # plotly reads tags in text
    return [
        band(info.rival),
        {"x": list(info.rival.size), "y": list(info.rival.accuracy)},
        {**band(info.own), **band_style(own)},
        {"x": list(info.own.size), "y": list(info.own.accuracy), "name": info.own.label, **curve_style(own)},
        {"x": list(info.dense.size), "y": list(info.dense.accuracy)},
        {
            **points(pins),
            # Only the newest name is written, towards the middle: there is no room for all. The others show on hover.
            "text": ["" for _ in names[:-1]] + [textwrap.shorten(name, 26, placeholder=" …") for name in names[-1:]],
            "textposition": ["bottom left" if size > info.dense_size / 30 else "bottom right" for size in pins.size],
            "hovertext": names,
        },
        {"x": list(info.usual.size), "y": list(info.usual.accuracy)},
    ]


def plane_figure(info: PlaneInfo) -> go.Figure:
    """The trade-off plane without `here`: accuracy (per cent, with 95 % intervals) against a size (log axis)."""
    rival, dense, board = (style.LOOKS[name] for name in ("random", "dense", "board"))
    hover = "%{y:.1f} % at %{x:.4~g}<extra>%{fullData.name}</extra>"
    fixed: Traces = [
        {"name": "interval of random", **band_style(rival)},
        {"name": "random", "hovertemplate": hover, **curve_style(rival)},
        {"name": "interval"},
        {"hovertemplate": hover},
        {
            "name": "dense model",
            "mode": "markers+text",
            "marker": {"symbol": dense.marker, "size": 13, "color": dense.colour},
            "text": ["dense"],
            "textposition": "top center",
            "hovertemplate": hover,
        },
        {
            "name": "on the board",
            "mode": "markers+text",
            "marker": {"symbol": board.marker, "size": 10, "color": board.colour},
            "textfont": {"size": style.SMALL_SIZE},
            "error_y": {"color": board.colour},
            "hovertemplate": "%{hovertext}: " + hover,
        },
        {
            "name": "magnitude, to compare",
            "mode": "lines",
            "line": {"color": style.LOOKS["magnitude"].colour, "width": 1.5},
            "opacity": 0.6,
            "hovertemplate": hover,
        },
    ]
    data = [dressed(look, arrays) for look, arrays in zip(fixed, plane_traces(info), strict=True)]
    hair = {"dash": "dot", "width": 1, "color": style.NEUTRAL}
    layout = plane_layout(info)
    return style.figure(
        data,
        title="Accuracy against size: where are you (x), and what did it cost?",
        height=400,
        x={"type": "log", **layout.pop("xaxis")},
        y={"title": "validation accuracy, %", "range": [0, 109], "tickvals": [0, 20, 40, 60, 80, 100]},
        shapes=[
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": info.chance, "y1": info.chance, "line": hair}
        ],
        **layout,
    )


def here_point(info: PlaneInfo) -> list[float]:
    """x, y, low and high of where the reader is; empty while nothing is measured. It is drawn over the plane."""
    here = info.here
    return [here.size[0], here.accuracy[0], here.low[0], here.high[0]] if here.size else []


def plane_layout(info: PlaneInfo) -> dict[str, Any]:
    """What changes of the plane's layout with its numbers: the x axis, and the labels beside the curves."""
    axis = SIZE_AXES[info.size]
    top = max([info.dense_size, *info.pins.size]) * 1.6
    bottom = min([info.dense_size / 10**axis.decades, *(0.8 * size for size in info.pins.size)])
    marks = [
        {"text": "guessing", "xref": "paper", "x": 0.005, "y": info.chance, "xanchor": "left", "yanchor": "bottom"}
    ]
    pairs = ((info.own, info.rival, 1), (info.rival, info.own, -1), (info.usual, info.own, 1))
    for curve, other, side in pairs:
        # Always as many labels, empty or not: plotly cannot add one while it changes another.
        at = _furthest(curve, other, side) if curve.size else None
        x, y = (math.log10(bottom), 0.0) if at is None else (math.log10(curve.size[at]), curve.accuracy[at])
        text = "" if at is None else curve.label
        marks.append({"text": text, "x": x, "y": y, "yshift": 14 * side, "font": {"size": style.FONT_SIZE}})
    return {
        "xaxis": size_axis(info.size, bottom, top),
        "annotations": [{"showarrow": False, **mark} for mark in marks],
    }


def size_axis(size: SizeName, bottom: float, top: float) -> dict[str, Any]:
    """Title, range and ticks of a log axis from `bottom` to `top`, both in the axis' unit."""
    ticks = _log_ticks(bottom, top)
    return {
        "title": {"text": SIZE_AXES[size].title, "font": {"size": style.FONT_SIZE}},
        "range": [math.log10(bottom), math.log10(top)],
        "tickvals": ticks,
        "ticktext": [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}" for tick in ticks],
    }


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade within the range; powers of ten only where that would be crowded."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def _furthest(curve: Line, other: Line, side: int) -> int:
    """Index of the point of `curve` that lies furthest above (side 1) or below (-1) the other curve."""
    there = dict(zip(other.ratio, other.accuracy, strict=True))
    pairs = zip(curve.ratio, curve.accuracy, strict=True)
    return int(np.argmax([side * (value - there.get(ratio, value)) for ratio, value in pairs]))


class KeptInfo(NamedTuple):
    """What each layer keeps, from the input to the output.

    Attributes:
        layers: names of the weights.
        kept: share of the numbers still there, per cent.
        total: numbers in the dense layer.
    """

    layers: tuple[str, ...]
    kept: tuple[float, ...]
    total: tuple[int, ...]


def kept_info(dense: nn.Module, kept: Mapping[str, float]) -> KeptInfo:
    """Gather what `kept` (a share for each weight name) says of the layers of `dense`."""
    sizes = {name: weight.numel() for name, weight in prunable(dense).items()}
    names = tuple(sizes)
    return KeptInfo(names, tuple(100 * kept.get(name, 0.0) for name in names), tuple(sizes.values()))


def kept_traces(info: KeptInfo) -> Traces:
    """Arrays of the one trace: a bar a layer, its share written beside it."""
    return [{"x": list(info.kept), "text": [_percent(share) for share in info.kept]}]


def kept_figure(info: KeptInfo) -> go.Figure:
    """Kept share of each layer, the first layer on top."""
    labels = [
        f"{name.removesuffix('.weight')}<br>{total:,}" for name, total in zip(info.layers, info.total, strict=True)
    ]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": labels,
        "marker": {"color": style.BLUE},
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:.2f} % kept<extra></extra>",
    }
    return style.figure(
        [{**bar, **kept_traces(info)[0]}],
        title="What each layer keeps",
        height=detail_height(len(labels)),
        x={"title": "kept, % of its weights", "range": [0, 125], "tickvals": [0, 25, 50, 75, 100]},
        y={"autorange": "reversed", "showgrid": False},
    )


def detail_height(layers: int) -> int:
    """Height in pixels of the detail figures: 34 a layer, and never less than 270."""
    return max(270, 110 + 34 * layers)


BINS = 61


class WeightsInfo(NamedTuple):
    """Histogram of the prunable weights before and after.

    Attributes:
        centres: middle of each bin.
        dense: weights in each bin, dense model.
        left: non-zero weights in each bin, pruned model.
        thresholds: absolute values below which weights went; empty where no threshold in |w| decided.
    """

    centres: tuple[float, ...]
    dense: tuple[int, ...]
    left: tuple[int, ...]
    thresholds: tuple[float, ...]


def weights_info(dense: nn.Module, pruned: nn.Module, thresholds: Sequence[float] = ()) -> WeightsInfo:
    """Count the weights of both models in the same 61 bins, symmetric about 0."""
    before = _all_weights(dense)
    reach = float(np.quantile(np.abs(before), 0.995)) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    after = _all_weights(pruned)
    counts = [np.histogram(values.clip(-reach, reach), edges)[0] for values in (before, after[after != 0])]
    centres = (edges[:-1] + edges[1:]) / 2
    return WeightsInfo(
        tuple(centres.tolist()), tuple(counts[0].tolist()), tuple(counts[1].tolist()), tuple(sorted(set(thresholds)))
    )


def weights_traces(info: WeightsInfo) -> Traces:
    """Arrays of the three traces: bars of what is left, outline of the dense model, threshold lines."""
    top = max(info.dense)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for threshold in info.thresholds:
        for x in (-threshold, threshold):
            xs += [x, x, None]
            ys += [0.0, float(top), None]
    return [
        {"x": list(info.centres), "y": list(info.left)},
        {"x": list(info.centres), "y": list(info.dense)},
        {"x": xs, "y": ys},
    ]


def weights_figure(info: WeightsInfo) -> go.Figure:
    """Histogram of the weights: grey outline before, bars now, lines at the threshold(s)."""
    fixed: Traces = [
        {"type": "bar", "name": "now", "marker": {"color": style.BLUE, "line": {"width": 0}}},
        {"type": "scatter", "name": "dense", "mode": "lines", "line": {"shape": "hvh", "color": style.NEUTRAL}},
        {"type": "scatter", "name": "threshold", "mode": "lines", "line": {"color": style.VERMILION, "dash": "dash"}},
    ]
    data = [{**look, **arrays} for look, arrays in zip(fixed, weights_traces(info), strict=True)]
    return style.figure(
        data,
        title="Weights: grey before, blue now",
        height=270,
        x={"title": "value of a weight", "range": [info.centres[0] * 1.02, info.centres[-1] * 1.02]},
        y={"title": "weights in the bin", "range": [0, 1.05 * max(info.dense)]},
        bargap=0,
    )


MAX_FILTERS = 64


class FiltersInfo(NamedTuple):
    """The first layer's filters side by side, as one picture.

    Attributes:
        picture: rows of values, None between filters; what is gone reads 0.
        gone_x: column of each removed weight in the picture.
        gone_y: its row.
        reach: largest absolute value in the dense layer: the ends of the colour scale.
        shown: filters in the picture.
        total: filters in the layer.
        layer: name of the layer.
    """

    picture: tuple[tuple[float | None, ...], ...]
    gone_x: tuple[int, ...]
    gone_y: tuple[int, ...]
    reach: float
    shown: int
    total: int
    layer: str


def filters_info(
    dense: nn.Module, pruned: nn.Module, input_shape: Sequence[int], kept_rows: Sequence[int] | None = None
) -> FiltersInfo:
    """Lay out the first prunable layer's filters as tiles.

    A convolution's filter is averaged over its input channels; a linear layer's row takes the shape of the image
    where it fits. At most 64 filters are shown.

    Args:
        dense: the model before pruning.
        pruned: the same with zeros, or with fewer filters.
        input_shape: of one sample.
        kept_rows: with channels removed: positions in `dense` of the filters that `pruned` still has.
    """
    name = next(iter(prunable(dense)))
    before, after = _outputs_first(dense, name), _outputs_first(pruned, name)
    now = torch.zeros_like(before)
    rows = list(range(len(before))) if kept_rows is None else list(kept_rows)
    now[rows, : after.shape[1]] = after
    here = (now != 0).numpy()
    tiles, gone = _tiles(now.numpy(), input_shape), ~_tiles(here, input_shape).astype(bool)
    side_y, side_x = tiles.shape[1:]
    columns = math.ceil(math.sqrt(2 * len(tiles) * side_y / side_x))  # about twice as wide as high
    lines = math.ceil(len(tiles) / columns)
    picture = np.full((lines * (side_y + 1) - 1, columns * (side_x + 1) - 1), np.nan)
    crosses = np.zeros(picture.shape, dtype=bool)
    for index, (tile, cross) in enumerate(zip(tiles, gone, strict=True)):
        top, left = (index // columns) * (side_y + 1), (index % columns) * (side_x + 1)
        picture[top : top + side_y, left : left + side_x] = tile
        crosses[top : top + side_y, left : left + side_x] = cross
    ys, xs = crosses.nonzero()
    reach = float(np.abs(_tiles(before.numpy(), input_shape)).max()) or 1.0
    return FiltersInfo(
        tuple(tuple(None if math.isnan(value) else value for value in row) for row in picture.tolist()),
        tuple(xs.tolist()),
        tuple(ys.tolist()),
        reach,
        len(tiles),
        len(before),
        name.removesuffix(".weight"),
    )


def filters_traces(info: FiltersInfo) -> Traces:
    """Arrays of the two traces: the picture, and a cross on each weight that is gone."""
    return [{"z": [list(row) for row in info.picture]}, {"x": list(info.gone_x), "y": list(info.gone_y)}]


def filters_figure(info: FiltersInfo) -> go.Figure:
    """The filters as a picture; blue negative, red positive, a cross on what is gone."""
    fixed: Traces = [
        {
            "type": "heatmap",
            "zmin": -info.reach,
            "zmax": info.reach,
            "colorscale": [[0, style.BLUE], [0.5, "#f7f7f7"], [1, style.VERMILION]],
            "showscale": False,
            "hovertemplate": "%{z:.3f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "marker": {"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": "#404040"}},
            "hoverinfo": "skip",
        },
    ]
    data = [{**look, **arrays} for look, arrays in zip(fixed, filters_traces(info), strict=True)]
    number = f"{info.total}" if info.shown == info.total else f"first {info.shown} of {info.total}"
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": ""}
    return style.figure(
        data,
        title=f"{info.layer}: its {number} filters, x = gone",
        height=270,
        x=hidden | {"constrain": "domain"},
        y=hidden | {"autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        margin={"l": 8, "r": 8, "t": 34, "b": 8},
    )


def _outputs_first(model: nn.Module, name: str) -> Tensor:
    """A weight with its filters along the first dimension; transposed convolutions keep them in the second."""
    weight = prunable(model)[name].detach()
    layer = model.get_submodule(name.rpartition(".")[0])
    return weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight


def _tiles(values: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """The first filters as images. [filters, ...] -> [at most 64, height, width]."""
    values = values[:MAX_FILTERS].astype(float)
    if values.ndim == 4:
        return values.mean(axis=1)
    flat = values.reshape(len(values), -1)
    if values.ndim == 2 and len(input_shape) == 3 and flat.shape[1] == math.prod(input_shape):
        return flat.reshape(len(values), *input_shape).mean(axis=1)
    return flat[:, None, :]


def _all_weights(model: nn.Module) -> np.ndarray:
    weights: list[Tensor] = [weight.detach().flatten() for weight in prunable(model).values()]
    return np.concatenate([weight.numpy() for weight in weights])


def band(curve: Line) -> dict[str, Any]:
    """A closed outline around the interval: along the upper ends, back along the lower ones."""
    return {"x": [*curve.size, *curve.size[::-1]], "y": [*curve.high, *curve.low[::-1]]}


def points(curve: Line) -> dict[str, Any]:
    """Arrays of single points with their intervals as error bars."""
    up = [high - value for high, value in zip(curve.high, curve.accuracy, strict=True)]
    down = [value - low for low, value in zip(curve.low, curve.accuracy, strict=True)]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return {"x": list(curve.size), "y": list(curve.accuracy), "error_y": error}


def band_style(look: style.Look) -> dict[str, Any]:
    """How a curve's interval is drawn."""
    return {
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": style.faint(look.colour),
        "hoverinfo": "skip",
    }


def curve_style(look: style.Look) -> dict[str, Any]:
    """How a curve is drawn."""
    return {
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"symbol": look.marker, "size": 5, "color": look.colour},
    }


def dressed(look: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Merge the arrays into the look; only `error_y` has entries of both."""
    merged = {**look, **arrays}
    if "error_y" in look:
        merged["error_y"] = {**look["error_y"], **arrays["error_y"]}
    return merged


def _percent(share: float) -> str:
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.2g} %"
