"""Figures of pruning: the trade-off plane, what each layer keeps, the weights, the first layer's filters, the heads."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kit.measure import SizeName
from kit.plots import curves, style
from kit.plots.curves import SIZE_AXES, Curve, Label, Panel
from kit.prune import Heads, prunable

BINS = 61
FEW_WEIGHTS = 1_000_000
MAX_FILTERS, MAX_NUMBERS = 64, 6400
ROWS = 9  # of layers, for which a detail figure has room
DECADES: dict[SizeName, float] = {"nonzeros": 3, "file_bytes": 1}  # at least on the axis: there most curves will go


def plane_panel(
    size: SizeName,
    own: Curve,
    *,
    random: Curve,
    magnitude: Curve,
    dense: Curve,
    pins: Curve,
    dense_size: float,
    chance: float,
    least: float = 0.0,
) -> Panel:
    """The trade-off plane: accuracy (per cent, with 95 % intervals) against a size (log axis).

    Args:
        size: of the x axis; all sizes are in its unit.
        own: the curve of the chosen importance.
        random: the curve of random importance; empty where that is the chosen one.
        magnitude: the curve of magnitude, to compare another importance with; empty where it is the chosen one.
        dense: the dense model; one point, or none while it is not measured.
        pins: what is pinned on the board, the newest last.
        dense_size: of the dense model.
        chance: accuracy of guessing, per cent.
        least: a size that pruning does not go below, such as that of a table of embeddings.
    """
    looks, thin_line, at = style.LOOKS, {"color": style.LOOKS["magnitude"].colour, "width": 1.5}, SIZE_AXES[size].at
    thin_point = {"color": style.LOOKS["magnitude"].colour, "size": 3}
    traces = [
        *curves.banded(random, looks["random"], at=at),
        *curves.banded(own, looks[own.label], at=at),
        curves.points(dense, looks["dense"], 13, at, error_y={}),
        curves.pins(pins, at),
        curves.line(magnitude, looks["magnitude"], at, line=thin_line, marker=thin_point, opacity=0.6),
    ]
    sizes = [size for curve in (own, random, magnitude, dense, pins) for size in curve.x]
    x = curves.size_axis(size, [*sizes, dense_size, max(dense_size / 10 ** DECADES.get(size, 0), least)])
    named = [label for curve in (own, random, magnitude) for label in curves.of_curve(curve, looks[curve.label])]
    named += [Label("dense", *point) for point in zip(dense.x, dense.value, strict=True)]
    labels = *named, *curves.newest(pins), Label("guessing", y=chance, rank=3)
    title, y = "Accuracy against size (✖ you are here)", curves.accuracy_axis()
    layout = style.layout(title, 330, x, {**y, "range": [0, 109]}, shapes=[curves.level(chance)])
    return Panel(traces, layout, (own, random, magnitude, dense, pins), labels)


def kept_panel(dense: nn.Module, kept: Mapping[str, float]) -> Panel:
    """What each layer keeps: a bar for each layer, the first on top.

    Args:
        dense: names the layers and their sizes.
        kept: share 0 .. 1 of each weight's numbers that are still there, by its name; what is missing counts as 0.
    """
    rows = layer_rows({name: weight.numel() for name, weight in prunable(dense).items()})
    shares = [100 * row.share(kept) for row in rows]
    bar = curves.bars_right(
        range(len(rows)),
        **{"x": shares, "text": [curves.percent(share) for share in shares], "marker": {"color": style.BLUE}},
        hovertext=[row.said for row in rows],
        hovertemplate="%{hovertext}<br>%{x:.2f} % kept<extra></extra>",
    )
    x = {"title": "kept, %", "range": [0, 140], "tickvals": [0, 50, 100]}
    layout = style.layout("What each layer keeps", 220, x, row_axis(rows), margin=row_margin(rows))
    return Panel([bar], layout)


class LayerRow(NamedTuple):
    """One row of a figure: a layer, or many together."""

    name: str
    sizes: dict[str, int]  # numbers in each weight, by its name

    def share(self, shares: Mapping[str, float]) -> float:
        """The mean of shares of the weights, by their names, each as heavy as it is large; one missing counts as 0."""
        return sum(shares.get(name, 0.0) * size for name, size in self.sizes.items()) / sum(self.sizes.values())

    @property
    def said(self) -> str:
        """What it is, under the mouse."""
        return f"{html.escape(self.name)}: {sum(self.sizes.values()):,} weights"


def layer_rows(sizes: Mapping[str, int]) -> list[LayerRow]:
    """The layers from input to output; of many the largest, and then one row for all others.

    Args:
        sizes: numbers in each weight, by its name.
    """
    largest = sorted(sizes, key=lambda name: -sizes[name])[: ROWS if len(sizes) <= ROWS else ROWS - 1]
    rows = [LayerRow(name.removesuffix(".weight"), {name: size}) for name, size in sizes.items() if name in largest]
    others = {name: size for name, size in sizes.items() if name not in largest}
    return rows + [LayerRow(f"{len(others)} smaller ones", others)] * bool(others)


def row_axis(rows: Sequence[LayerRow]) -> dict[str, Any]:
    """A y axis with the names of rows, the first on top; long ones are cut in their middle."""
    names = [html.escape(curves.short(row.name)) for row in rows]
    ticks = {"tickvals": list(range(len(rows))), "ticktext": names}
    return {"range": [len(rows) - 0.4, -0.6], "showgrid": False, **ticks}


def row_margin(rows: Sequence[LayerRow]) -> dict[str, int]:
    """Margins that hold the names of rows."""
    return {**style.MARGIN, "l": 14 + 7 * max(len(curves.short(row.name)) for row in rows)}


def weights_panel(dense: nn.Module, pruned: nn.Module, thresholds: Sequence[float] = ()) -> Panel:
    """Histogram of the prunable weights in 61 bins, symmetric about 0: grey outline before, bars now.

    Args:
        dense: the model before pruning.
        pruned: after it; only its weights that are not zero count. NaN and infinity lie in no bin.
        thresholds: absolute values below which weights went; empty where no threshold in |w| decided.
    """
    before, after = (list(map(_finite, prunable(model).values())) for model in (dense, pruned))
    step = -(-sum(map(len, before)) // FEW_WEIGHTS)  # where the axis ends needs no more of them
    some = np.abs(np.concatenate([each[::step] for each in before])) if step else np.zeros(0)
    reach = (float(np.quantile(some, 0.995)) if len(some) else 0.0) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    heights = np.zeros((2, BINS), dtype=int)
    for row, weights in enumerate((before, [each[each != 0] for each in after])):
        for each in weights:  # one by one: all in one row would be the model once more
            heights[row] += np.histogram(each.clip(-reach, reach), edges)[0]
    was, now = heights.tolist()
    centres, top = ((edges[:-1] + edges[1:]) / 2).tolist(), max(was)
    places = [x for threshold in sorted(set(thresholds)) for x in (-threshold, threshold)]
    blue, line = {"color": style.BLUE, "line": {"width": 0}}, {"type": "scatter", "mode": "lines"}
    grey, dashed = {"shape": "hvh", "color": style.NEUTRAL}, {"color": style.VERMILION, "dash": "dash"}
    said = {"hovertemplate": "%{fullData.name}: %{y:,} weights near %{x:.3~g}<extra></extra>"}
    went = {"hovertemplate": "threshold %{x:.3~g}<extra></extra>"}
    traces = [
        {"type": "bar", "name": "now", "x": centres, "y": now, "marker": blue, **said},
        {**line, "name": "dense", "x": centres, "y": was, "line": grey, **said},
        {**line, "name": "threshold", **curves.sticks(places, [float(top)] * len(places)), "line": dashed, **went},
    ]
    x = {"title": "value of a weight", "range": [centres[0] * 1.02, centres[-1] * 1.02]}
    y = {"title": "weights in the bin", "range": [0, 1.05 * top]}
    return Panel(traces, style.layout("Weights: grey before, blue now", 220, x, y, bargap=0))


def _finite(weight: Tensor) -> np.ndarray:
    """The finite numbers of a weight, in a row; where all are and they are float32, no copy."""
    numbers = weight.detach().flatten().float().numpy()
    there = np.isfinite(numbers)
    return numbers if there.all() else numbers[there]


def filters_panel(
    dense: nn.Module, pruned: nn.Module, input_shape: Sequence[int], kept: Mapping[str, Sequence[int]] | None = None
) -> Panel:
    """The first prunable layer's filters as tiles: blue negative, red positive, a cross on what is gone.

    A convolution's filter is averaged over its input channels; a linear layer's row takes the shape of the image
    where it fits. At most 64 filters are shown; of large ones, such as rows of 28 x 28 numbers, at most 6,400 numbers.

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
    before, after = outputs_first(dense, name), outputs_first(pruned, name)
    now = torch.zeros_like(before)
    now[list(stay.get(layer, range(len(before)))), : after.shape[1]] = after
    tiles = tiles_of(now.numpy(), input_shape)
    picture = side_by_side(tiles, np.nan)
    ys, xs = side_by_side(tiles_of((now != 0).numpy(), input_shape) == 0, 0.0).nonzero()
    cross = min(5.0, 200 / picture.shape[1])  # pixels: no wider than a number
    reach = float(np.nan_to_num(np.abs(tiles_of(before.numpy(), input_shape))).max()) or 1.0
    traces = [heat(picture, reach), crosses(xs, ys, cross)]
    number = f"{len(tiles)} of " * (len(tiles) < len(before)) + curves.counted(len(before), "filter")
    hidden = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": "", "constrain": "domain"}
    title = f"{html.escape(curves.short(layer, 12))}: {number} (✖ gone)"
    y = {**hidden, "autorange": "reversed", "scaleanchor": "x"}
    return Panel(traces, style.layout(title, 220, hidden, y, margin={"l": 8, "r": 8, "t": 30, "b": 8}))


def heads_panel(
    dense: nn.Module, pruned: nn.Module, heads: Mapping[str, Heads], kept: Mapping[str, Sequence[int]] | None = None
) -> Panel:
    """A square for each head, a row for each attention: how large its weights are now, and a cross on what is gone.

    That is the root mean square of the numbers that its query, key and value had before pruning, which ranks heads by
    magnitude; zeros and what is gone count as 0.

    Args:
        dense: the model before pruning.
        pruned: the same with zeros, or with fewer heads.
        heads: of `dense`; see `kit.prune.heads`.
        kept: with heads removed: by the name of a layer, the outputs of it that `pruned` has.
    """
    most = max(each.count for each in heads.values())
    was, now, shares = np.full((3, len(heads), most), np.nan)
    for row, each in enumerate(heads.values()):
        was[row, : each.count], _ = _in_heads(dense, dense, each, {})
        now[row, : each.count], shares[row, : each.count] = _in_heads(dense, pruned, each, kept or {})
    ys, xs = (now == 0).nonzero()
    reach = float(np.nan_to_num(was).max()) or 1.0
    rows = [LayerRow(_common(name, each), {}) for name, each in heads.items()]
    said = [
        [f"{html.escape(row.name)}, head {head}: {curves.percent(100 * share)} kept" for head, share in enumerate(line)]
        for row, line in zip(rows, shares.tolist(), strict=True)
    ]
    traces = [
        {
            **heat(now, reach),
            **{"zmin": 0, "colorscale": [[0, "#f7f7f7"], [1, style.BLUE]], "xgap": 2, "ygap": 2},
            **{"text": said, "hovertemplate": "%{text}, size %{z:.3f}<extra></extra>"},
        },
        crosses(xs, ys, min(16.0, 100 / max(most, len(rows)))),
    ]
    x = {
        "title": "head (✖ gone)",
        "tickvals": list(range(0, most, -(-most // ROWS))),
        "showgrid": False,
        "range": [-0.5, most - 0.5],
    }
    y = row_axis(rows) | {"range": [len(rows) - 0.5, -0.5]}
    step = -(-len(rows) // ROWS)  # of many every other one is named, or every third ...
    y |= {"tickvals": y["tickvals"][::step], "ticktext": y["ticktext"][::step]}
    return Panel(traces, style.layout("How large each head is", 220, x, y, margin=row_margin(rows)))


def _common(group: str, heads: Heads) -> str:
    """What the names of an attention's layers begin with: blocks.0.attention."""
    parts = zip(*(name.split(".") for name in heads.outputs), strict=False)
    return ".".join(same[0] for same in itertools.takewhile(lambda each: len(set(each)) == 1, parts)) or group


def _in_heads(
    dense: nn.Module, pruned: nn.Module, heads: Heads, kept: Mapping[str, Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the weights of each head, and the share of them that is left. -> [heads] each"""
    energy, left, numbers = torch.zeros(heads.count), torch.zeros(heads.count), 0
    for layer, at in heads.outputs.items():
        before, after = (outputs_first(model, f"{layer}.weight").flatten(1) for model in (dense, pruned))
        stay = list(kept.get(layer, range(len(before))))
        rows = torch.zeros(2, len(before))
        rows[:, stay] = torch.stack([after.square().nansum(1), (after != 0).sum(1)])
        energy, left = energy + rows[0][at].sum(1), left + rows[1][at].sum(1)
        numbers += at.shape[1] * before.shape[1]
    return (energy / numbers).sqrt().numpy(), (left / numbers).numpy()


def crosses(xs: np.ndarray, ys: np.ndarray, size: float) -> curves.Trace:
    """Crosses on what is gone, of a size in pixels."""
    return {
        **{"type": "scatter", "mode": "markers", "x": xs.tolist(), "y": ys.tolist(), "hoverinfo": "skip"},
        "marker": {"symbol": "x-thin", "size": size, "line": {"width": 1, "color": "#404040"}},
    }


def heat(picture: np.ndarray, reach: float) -> curves.Trace:
    """Weights [h, w] as colours, blue negative, red positive, up to `reach`; NaN is drawn as nothing."""
    return {
        **{"type": "heatmap", "zmin": -reach, "zmax": reach, "showscale": False},
        "z": [[None if math.isnan(value) else value for value in row] for row in picture.tolist()],
        "colorscale": [[0, style.BLUE], [0.5, "#f7f7f7"], [1, style.VERMILION]],
        "hovertemplate": "%{z:.3f}<extra></extra>",
    }


def outputs_first(model: nn.Module, name: str) -> Tensor:
    """A weight with its filters along the first dimension; transposed convolutions keep them in the second."""
    weight = prunable(model)[name].detach().float()
    weight = torch.where(weight.isfinite(), weight, torch.nan)  # drawn as nothing
    layer = model.get_submodule(name.rpartition(".")[0])
    return weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight


def tiles_of(values: np.ndarray, input_shape: Sequence[int]) -> np.ndarray:
    """The first filters as images. [filters, ...] -> [at most 64, height, width]."""
    values = values[:MAX_FILTERS].astype(float)
    if values.ndim == 2 and len(input_shape) == 3 and values.shape[1] == math.prod(input_shape):
        values = values.reshape(len(values), *input_shape)
    images = values.mean(axis=1) if values.ndim == 4 else values.reshape(len(values), 1, -1)
    return images[: max(1, MAX_NUMBERS // images[0].size)]


def side_by_side(tiles: np.ndarray, gap: float, columns: int = 0) -> np.ndarray:
    """One picture, a pixel of `gap` between tiles; of 0 columns, about twice as wide as high. [n, ...] -> [h, w]."""
    n, height, width = tiles.shape
    columns = columns or math.ceil(math.sqrt(2 * n * height / width))
    padded = np.pad(tiles, ((0, -n % columns), (0, 1), (0, 1)), constant_values=gap)
    rows = [np.concatenate(padded[at : at + columns], axis=1) for at in range(0, n, columns)]
    return np.concatenate(rows)[:-1, :-1]
