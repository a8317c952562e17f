"""Figures of pruning: the trade-off plane, what each layer keeps, the weights, the first layer's filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit.measure import SizeName
from kit.plots import curves, style
from kit.plots.curves import SIZE_AXES, Curve, Panel
from kit.prune import prunable

BINS = 61
MAX_FILTERS = 64


def plane_panel(
    size: SizeName,
    own: Curve,
    *,
    random: Curve,
    magnitude: Curve,
    dense: Curve,
    pins: Curve,
    pin_names: Sequence[str],
    dense_size: float,
    chance: float,
) -> Panel:
    """The trade-off plane: accuracy (per cent, with 95 % intervals) against a size (log axis).

    Args:
        size: of the x axis; all sizes are in its unit.
        own: the curve of the chosen importance.
        random: the curve of random importance; empty where that is the chosen one.
        magnitude: the curve of magnitude, to compare another importance with; empty where it is the chosen one.
        dense: the dense model; one point, or none while it is not measured.
        pins: what is pinned on the board.
        pin_names: their names, in order.
        dense_size: of the dense model.
        chance: accuracy of guessing, per cent.
    """
    looks, thin_line = style.LOOKS, {"color": style.LOOKS["magnitude"].colour, "width": 1.5}
    traces = [
        *curves.banded(random, looks["random"]),
        *curves.banded(own, looks[own.label]),
        curves.points(dense, looks["dense"], 13, text=["dense"], textposition="top center", error_y={}),
        curves.pins(pins, pin_names, dense_size / 30),
        curves.line(magnitude, looks["magnitude"], mode="lines", line=thin_line, opacity=0.6),
    ]
    bottom = min([dense_size / 10 ** SIZE_AXES[size].decades, *(0.8 * x for x in pins.x)])
    x = curves.size_axis(size, bottom, max([dense_size, *pins.x]) * 1.6)
    guessing = {"xref": "paper", "x": 0.005, "y": chance, "xanchor": "left", "yanchor": "bottom"}
    names = (_name(*pair, bottom) for pair in ((own, random, 1), (random, own, -1), (magnitude, own, 1)))
    marks = [{"showarrow": False, **mark} for mark in ({"text": "guessing", **guessing}, *names)]
    title, y = "Accuracy against size: where are you (x), and what did it cost?", curves.accuracy_axis()
    layout = style.layout(title, 400, x, {**y, "range": [0, 109]}, shapes=[curves.level(chance)], annotations=marks)
    return Panel(traces, layout, (own, random, magnitude, dense, pins))


def _name(curve: Curve, other: Curve, side: int, bottom: float) -> dict[str, Any]:
    """A curve's name, where it lies furthest above (side 1) or below (-1) the other curve."""
    if not curve.x:
        return {"text": "", "x": math.log10(bottom), "y": 0.0, "yshift": 0}
    there = np.array(curve.value)
    if other.x:
        order = np.argsort(other.x)
        there = np.interp(curve.x, np.take(other.x, order), np.take(other.value, order))
    at = int(np.argmax(side * (np.array(curve.value) - there)))
    place = {"x": math.log10(curve.x[at]), "y": curve.value[at], "yshift": 14 * side}
    return {"text": curve.label, **place, "font": {"size": style.FONT_SIZE}}


def kept_panel(dense: nn.Module, kept: Mapping[str, float]) -> Panel:
    """What each layer keeps: a bar for each layer, the first on top.

    Args:
        dense: names the layers and their sizes.
        kept: share 0 .. 1 of each weight's numbers that are still there, by its name; what is missing counts as 0.
    """
    sizes = {name: weight.numel() for name, weight in prunable(dense).items()}
    shares = [100 * kept.get(name, 0.0) for name in sizes]
    bar = curves.bars_right(
        [f"{name.removesuffix('.weight')}<br>{total:,}" for name, total in sizes.items()],
        **{"x": shares, "text": [curves.percent(share) for share in shares], "marker": {"color": style.BLUE}},
        hovertemplate="%{y}: %{x:.2f} % kept<extra></extra>",
    )
    x = {"title": "kept, % of its weights", "range": [0, 125], "tickvals": [0, 25, 50, 75, 100]}
    y = {"autorange": "reversed", "showgrid": False, "automargin": True}  # names of layers may be long
    return Panel([bar], style.layout("What each layer keeps", detail_height(len(sizes)), x, y))


def detail_height(layers: int) -> int:
    """Height in pixels of the detail figures: 34 a layer, and never less than 270."""
    return max(270, 110 + 34 * layers)


def weights_panel(dense: nn.Module, pruned: nn.Module, thresholds: Sequence[float] = ()) -> Panel:
    """Histogram of the prunable weights in 61 bins, symmetric about 0: grey outline before, bars now.

    Args:
        dense: the model before pruning.
        pruned: after it; only its weights that are not zero count. NaN and infinity lie in no bin.
        thresholds: absolute values below which weights went; empty where no threshold in |w| decided.
    """
    before, after = (
        torch.cat([weight.detach().flatten().float() for weight in prunable(model).values()]).numpy()
        for model in (dense, pruned)
    )
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    reach = (float(np.quantile(np.abs(before), 0.995)) if len(before) else 0.0) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    was, now = (np.histogram(each.clip(-reach, reach), edges)[0].tolist() for each in (before, after[after != 0]))
    centres, top = ((edges[:-1] + edges[1:]) / 2).tolist(), max(was)
    places = [x for threshold in sorted(set(thresholds)) for x in (-threshold, threshold)]
    blue, line = {"color": style.BLUE, "line": {"width": 0}}, {"type": "scatter", "mode": "lines"}
    grey, dashed = {"shape": "hvh", "color": style.NEUTRAL}, {"color": style.VERMILION, "dash": "dash"}
    traces = [
        {"type": "bar", "name": "now", "x": centres, "y": now, "marker": blue},
        {**line, "name": "dense", "x": centres, "y": was, "line": grey},
        {**line, "name": "threshold", **curves.sticks(places, [float(top)] * len(places)), "line": dashed},
    ]
    x = {"title": "value of a weight", "range": [centres[0] * 1.02, centres[-1] * 1.02]}
    y = {"title": "weights in the bin", "range": [0, 1.05 * top]}
    return Panel(traces, style.layout("Weights: grey before, blue now", 270, x, y, bargap=0))


def filters_panel(
    dense: nn.Module, pruned: nn.Module, input_shape: Sequence[int], kept: Mapping[str, Sequence[int]] | None = None
) -> Panel:
    """The first prunable layer's filters as tiles: blue negative, red positive, a cross on what is gone.

    A convolution's filter is averaged over its input channels; a linear layer's row takes the shape of the image
    where it fits. At most 64 filters are shown.

    Args:
        dense: the model before pruning.
        pruned: the same with zeros, or with fewer filters.
        input_shape: of one sample.
        kept: with channels removed: by the name of a layer, positions in `dense` of the filters that `pruned` has.
    """
    stay = kept or {}
    # Of an attention layer that has lost channels the rows that stay are not told: the next layer is shown.
    name = next(name for name in prunable(dense) if not stay or name.removesuffix(".weight") in stay)
    layer = name.removesuffix(".weight")
    before, after = _outputs_first(dense, name), _outputs_first(pruned, name)
    now = torch.zeros_like(before)
    now[list(stay.get(layer, range(len(before)))), : after.shape[1]] = after
    tiles = _tiles(now.numpy(), input_shape)
    picture = _side_by_side(tiles, np.nan)
    ys, xs = _side_by_side(_tiles((now != 0).numpy(), input_shape) == 0, 0.0).nonzero()
    reach = float(np.nan_to_num(np.abs(_tiles(before.numpy(), input_shape))).max()) or 1.0
    traces: list[dict[str, Any]] = [
        {
            **{"type": "heatmap", "zmin": -reach, "zmax": reach, "showscale": False},
            "z": [[None if math.isnan(value) else value for value in row] for row in picture.tolist()],
            "colorscale": [[0, style.BLUE], [0.5, "#f7f7f7"], [1, style.VERMILION]],
            "hovertemplate": "%{z:.3f}<extra></extra>",
        },
        {
            **{"type": "scatter", "mode": "markers", "x": xs.tolist(), "y": ys.tolist(), "hoverinfo": "skip"},
            "marker": {"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": "#404040"}},
        },
    ]
    number = f"first {len(tiles)} of " * (len(tiles) < len(before)) + f"{len(before)}"
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": "", "constrain": "domain"}
    title = f"{layer}: its {number} filters, x = gone"
    y = {**hidden, "autorange": "reversed", "scaleanchor": "x"}
    return Panel(traces, style.layout(title, 270, hidden, y, margin={"l": 8, "r": 8, "t": 34, "b": 8}))


def _outputs_first(model: nn.Module, name: str) -> Tensor:
    """A weight with its filters along the first dimension; transposed convolutions keep them in the second."""
    weight = prunable(model)[name].detach().float()
    weight = torch.where(weight.isfinite(), weight, torch.nan)  # drawn as nothing
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


def _side_by_side(tiles: np.ndarray, gap: float) -> np.ndarray:
    """One picture, about twice as wide as high, a pixel of `gap` between tiles. [n, height, width] -> [h, w]."""
    n, height, width = tiles.shape
    columns = math.ceil(math.sqrt(2 * n * height / width))
    padded = np.pad(tiles, ((0, -n % columns), (0, 1), (0, 1)), constant_values=gap)
    rows = [np.concatenate(padded[at : at + columns], axis=1) for at in range(0, n, columns)]
    return np.concatenate(rows)[:-1, :-1]
