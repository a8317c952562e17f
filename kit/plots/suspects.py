"""Figures of wrong labels: learned weights, ROC curves, the samples most suspect, and what it is worth."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve
from torch import Tensor

from kit.data import Dataset
from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel
from kit.plots.prune import heat, side_by_side
from kit.search.gradient import Cleaned

KINDS = ("clean labels", "flipped labels")
RANKINGS = ("learned weights", "loss ranking")
ROWS = ("all labels", "learned weights", "loss ranking", "clean labels")
BINS = 20
SUSPECTS, COLUMNS = 20, 5
MOST, MARGIN = "Most suspect: label given (true one)", {"l": 8, "r": 8, "t": 30, "b": 4}
HIDDEN: dict[str, Any] = {"showgrid": False, "showticklabels": False, "showline": False, "ticks": ""}
TEXT_COLUMNS, LETTERS = 2, 40  # of texts, and what is shown of each
HAIR = {"color": style.NEUTRAL, "dash": "dot", "width": 1}
PIXELS = 28  # along an image: of larger ones every second, third ... is shown


def weights_panel(weights: Tensor, flipped: Tensor) -> Panel:
    """How the learned weights of clean and of flipped samples lie between 0 and 1, per cent of each kind.

    Args:
        weights: of each training sample, [n]; empty before they are learned.
        flipped: whether its label is wrong, bool [n].
    """
    traces, found = [], []
    edges = np.linspace(0, 1, BINS + 1)
    for name, kind in zip(KINDS, (~flipped, flipped), strict=True):
        counts, total = np.histogram(weights[kind].numpy(), edges)[0], int(kind.sum())
        shares = [Estimate.from_counts(int(count), total) for count in counts] if total else []
        curve = Curve.of(name, zip((edges[1:] + edges[:-1]) / 2, shares, strict=False))
        said = "%{fullData.name}: %{y:.1f} % of them (%{customdata}) weigh about %{x:.3~g}<extra></extra>"
        bar = {"type": "bar", "name": name, "x": [float(x) for x in curve.x], "y": list(curve.value)}
        striped = {"shape": "/" * (name == KINDS[1]), "fillmode": "overlay"}
        marker = {"color": style.LOOKS[name].colour, "pattern": striped}
        traces.append({**bar, "marker": marker, "customdata": counts.tolist() if total else [], "hovertemplate": said})
        found.append(curve)
    x = {"title": "learned weight of a training sample", "range": [-0.01, 1.01], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    y = {"title": "% of the samples of a kind", "range": [0, 104], "tickvals": list(range(0, 101, 20))}
    half = {"type": "line", "x0": 0.5, "x1": 0.5, "yref": "paper", "y0": 0, "y1": 1, "line": HAIR}
    more = {**style.legend_above(44), "bargap": 0.1, "bargroupgap": 0.0, "shapes": [half]}
    title = "Weights learned: left of ½ are the suspects"
    return Panel(traces, style.layout(title, 330, x, y, **more), tuple(found))


def roc_panel(suspicions: Mapping[str, Tensor], flipped: Tensor, areas: Mapping[str, Estimate]) -> Panel:
    """Of the flipped labels so many are found, where so many clean ones are suspected too: per cent, both.

    Args:
        suspicions: of each training sample, [n], by names of `RANKINGS`; greater where a label seems wrong.
        flipped: whether it is, bool [n]; no curves where none is, or all are.
        areas: under the curves, by the same names.
    """
    traces, labels = [], []
    for name in RANKINGS:
        look, rates = style.LOOKS[name], (np.zeros(0), np.zeros(0))
        if name in areas:
            rates = roc_curve(flipped.numpy(), suspicions[name].numpy())[:2]
            said = f"{curves.signed(name, look)}, {100 * areas[name].value:.1f} %"
            labels.append(Label(said, curve=name, colour=look.colour))
        x, y = ((100 * rate).round(2).tolist() for rate in rates)
        hover = "%{fullData.name}: %{y:.0f} % found<br>%{x:.1f} % of the clean suspected<extra></extra>"
        line = {"color": look.colour, "dash": look.dash, "width": 2}
        traces.append({"name": name, "mode": "lines", "x": x, "y": y, "line": line, "hovertemplate": hover})
    guess = {"name": "guessing", "mode": "lines", "x": [0, 100], "y": [0, 100], "line": HAIR, "hoverinfo": "skip"}
    labels.append(Label("guessing", curve="guessing", rank=3))
    ticks = {"range": [-2, 103], "tickvals": [0, 50, 100]}
    x_axis, y_axis = {"title": "clean ones suspected, %", **ticks}, {"title": "flipped ones found, %", **ticks}
    return Panel([*traces, guess], style.layout("ROC, with the area under it", 220, x_axis, y_axis), labels=(*labels,))


def worth_panel(accuracies: Mapping[str, Estimate]) -> Panel:
    """Accuracy (per cent, 95 % intervals) on the held-out half of validation, of a training of each kind.

    Args:
        accuracies: by names of `ROWS`; what is missing is not measured yet.
    """
    found = [Curve.of(name, [(0, accuracies[name])] if name in accuracies else []) for name in ROWS]
    traces = [curves.point_right(curve, style.LOOKS[curve.label]) for curve in found]
    low = 10.0 * math.floor(min([90.0, *(low for curve in found for low in curve.low)]) / 10)
    names = {"type": "category", "categoryorder": "array", "categoryarray": [*ROWS]}
    y = {**names, "range": [len(ROWS) - 0.4, -0.6]}
    x, margin = curves.ticked("accuracy, held-out half, %", low, 101), {**style.MARGIN, "l": 106}
    layout = style.layout("What it is worth", 220, x, y, margin=margin)
    return Panel(traces, layout, tuple(found))


def suspects_panel(dataset: Dataset, true: Tensor, cleaned: Cleaned) -> Panel:
    """The samples most suspect, with the label given, and in brackets the true one where that was flipped.

    Args:
        dataset: with the labels given.
        true: the labels before the flipping, [n].
        cleaned: the learned weights; the first `SUSPECTS` of its suspects are shown. Channels are averaged; what is no
            image is a strip of its numbers; texts are shown by their first words.
    """
    shown, given = cleaned.suspects[:SUSPECTS].tolist(), dataset.train.labels
    inputs = dataset.train.inputs[shown].float()
    are_images = inputs.ndim == 4
    images = inputs.mean(1) if are_images else inputs.reshape(len(shown), 1, math.prod(dataset.input_shape))
    step = max(-(-side // PIXELS) for side in images.shape[1:]) if are_images else 1
    tiles = images[:, ::step, ::step].numpy()
    (height, width), room = tiles.shape[1:], math.ceil(0.4 * tiles.shape[1])
    long, short = (
        [html.escape(name, quote=False) for name in names]  # plotly reads tags
        for names in (dataset.class_names, [curves.short(name, 8) for name in dataset.class_names])
    )
    texts, said = [], []
    for sample in shown:
        was, now = int(true[sample]), int(given[sample])
        texts.append(short[now] + f" ({short[was]})" * (was != now))
        what = f"was flipped from {long[was]} to" if was != now else "is"
        said.append(f"training sample {sample}: {what} {long[now]}, weight {float(cleaned.weights[sample]):.2f}")
    if dataset.tokens is not None:
        decoded = [html.escape(dataset.tokens.decode(row), quote=False) for row in dataset.train.inputs[shown]]
        texts = [f"<b>{label}</b> {text[:LETTERS]}" for label, text in zip(texts, decoded, strict=True)]
        said = [f"{each}: {text}" for each, text in zip(said, decoded, strict=True)]
        return _texts_panel(texts, said)
    places = [divmod(at, COLUMNS) for at in range(len(shown))]
    captions = {
        **{"mode": "text", "text": texts, "hovertext": said, "hoverinfo": "text", "textfont": {"size": 11}},
        "x": [column * (width + 1) + (width - 1) / 2 for _, column in places],
        "y": [row * (height + room + 1) + height + (room - 1) / 2 for row, _ in places],
    }
    picture = np.zeros((0, 0))
    if shown:
        padded = np.pad(tiles, ((0, 0), (0, room), (0, 0)), constant_values=np.nan)
        picture = side_by_side(padded, np.nan, columns=COLUMNS)
    ends = (float(tiles.min()), float(tiles.max())) if tiles.size else (0.0, 1.0)
    grey = {"zmin": ends[0], "zmax": ends[1], "colorscale": [[0, "#f4f4f4"], [1, "#202020"]], "hoverinfo": "skip"}
    pixels = {**heat(picture, 1.0), **grey, "hovertemplate": ""}
    y = {**HIDDEN, "autorange": "reversed", **({"scaleanchor": "x"} if are_images else {})}
    layout = style.layout(MOST, 220, {**HIDDEN, "constrain": "domain"}, y, margin=MARGIN)
    return Panel([pixels, captions], layout)


def _texts_panel(texts: list[str], said: list[str]) -> Panel:
    """Lines of text under each other, in columns, with as many traces as of images."""
    rows = SUSPECTS // TEXT_COLUMNS
    captions = {
        **{"mode": "text", "text": texts, "hovertext": said, "hoverinfo": "text", "textfont": {"size": 11}},
        **{"textposition": "middle right", "x": [at // rows for at in range(len(texts))]},
        "y": [at % rows for at in range(len(texts))],
    }
    y = {**HIDDEN, "range": [rows - 0.5, -0.5], "zeroline": False}
    layout = style.layout(MOST, 220, {**HIDDEN, "range": [0, TEXT_COLUMNS], "zeroline": False}, y, margin=MARGIN)
    return Panel([heat(np.zeros((0, 0)), 1.0), captions], layout)
