"""Figures of a search: the race of methods, the trials on the landscape, their projection, where the budget went.

Each figure comes in three steps, as in `kit.plots.prune`: `x_info(...)`, `x_traces(info)`, `x_figure(info)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from kit.measure import Estimate
from kit.plots import style
from kit.plots.distill import spread
from kit.plots.prune import Traces, band_style, dressed
from kit.search.networks import Landscape
from kit.search.replay import Track
from kit.search.space import Float, Int, Space

METHODS = ("grid", "random", "halving", "Bayesian")
SIGNS = {"grid": "■", "random": "◆", "halving": "▲", "Bayesian": "●"}  # the marker of each line, for its name
TITLES = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "width": "hidden units",
}
COLOURS = "Cividis"  # even in brightness, and the same for colour-blind readers
DETAIL_HEIGHT = 320


def title(name: str) -> str:
    """What an axis calls a hyper-parameter."""
    return TITLES.get(name, name)


class Course(NamedTuple):
    """What one method's choice is worth, against the budget; per cent.

    Attributes:
        budget: epochs spent.
        worth: mean over repeats of the chosen configuration, measured anew.
        low: lower end of the 95 % interval.
        high: upper end.
        repeats: searches that it rests on.
    """

    budget: tuple[int, ...]
    worth: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    repeats: int


EMPTY = Course((), (), (), (), 0)


class RaceInfo(NamedTuple):
    """All methods side by side.

    Attributes:
        courses: by method.
        top: largest budget, epochs.
        full: epochs of one whole training.
        best: the best cell of the landscape, mean of its networks; None while it is not trained.
    """

    courses: dict[str, Course]
    top: int
    full: int
    best: float | None


def race_info(
    tracks: Mapping[str, Sequence[Track]], budgets: Sequence[int], full: int, landscape: Landscape | None
) -> RaceInfo:
    """Gather what has been searched so far.

    Args:
        tracks: by method, one a repeat.
        budgets: where the curves have points, ascending.
        full: epochs of one whole training.
        landscape: what was searched.
    """
    courses = {name: course(tracks.get(name, ()), budgets) for name in METHODS}
    whole = landscape is not None and not landscape.missing
    best = 100 * float(np.nanmax(landscape.mean)) if landscape is not None and whole else None
    return RaceInfo(courses, budgets[-1], full, best)


def course(tracks: Sequence[Track], budgets: Sequence[int]) -> Course:
    """What repeats of one method reach; a budget at which one of them has chosen nothing yet is left out."""
    found: list[tuple[int, Estimate]] = []
    for budget in budgets:
        worth = worth_at(tracks, budget)
        if worth is not None:
            found.append((budget, worth))
    return Course(
        tuple(budget for budget, _ in found),
        tuple(100 * each.value for _, each in found),
        tuple(100 * each.low for _, each in found),
        tuple(100 * each.high for _, each in found),
        len(tracks),
    )


def worth_at(tracks: Sequence[Track], budget: int) -> Estimate | None:
    """What repeats of one method reach under a budget; None where there is none, or one has chosen nothing yet."""
    chosen = [each.at(budget) for each in tracks]
    values = [pair[1] for pair in chosen if pair is not None]
    return estimate(values) if values and len(values) == len(chosen) else None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over repeats with its interval; one alone knows nothing of its spread, and has an interval of no width."""
    if len(values) > 1:
        return Estimate.from_values(values).share
    return Estimate(values[0], values[0], values[0], 1)


def race_traces(info: RaceInfo) -> Traces:
    """Arrays of the traces: band and line of each method, then the best cell."""
    traces: Traces = []
    for name in METHODS:
        each = info.courses[name]
        banded = each.repeats > 1
        ends = {"x": [*each.budget, *each.budget[::-1]], "y": [*each.high, *each.low[::-1]]}
        traces.append(ends if banded else {"x": [], "y": []})
        traces.append({"x": list(each.budget), "y": list(each.worth)})
    line = [] if info.best is None else [info.best, info.best]
    traces.append({"x": [0, info.top][: len(line)], "y": line})
    return traces


def race_layout(info: RaceInfo) -> dict[str, Any]:
    """What changes of the layout with the numbers: the names at the right ends of the lines."""
    ends = {name: each.worth[-1] for name, each in info.courses.items() if each.worth}
    if info.best is not None:
        ends["best cell"] = info.best
    bottom = _bottom(info)
    shown = {name: max(end, bottom) for name, end in ends.items()}
    heights = spread(shown, gap=(101.5 - bottom) / 17) if shown else {}
    names = [*METHODS, "best cell"]
    return {
        "yaxis": {"range": [bottom, 101.5], "tickvals": list(range(0, 101, 5))},
        # Always as many names, empty or not: plotly cannot add one while it changes another.
        "annotations": [
            {
                "text": f"{SIGNS.get(name, '★')} {name}" if name in heights else "",
                **{"xref": "paper", "x": 1.01, "y": heights.get(name, bottom), "xanchor": "left", "yanchor": "middle"},
                **{"showarrow": False, "font": {"size": style.FONT_SIZE}},
            }
            for name in names
        ],
    }


def _bottom(info: RaceInfo) -> float:
    """Lower end of the accuracy axis: the best 30 points, where methods differ; early budgets enter from below."""
    return 5.0 * math.floor(max(0.0, (info.best or 100.0) - 30) / 5)


def race_figure(info: RaceInfo) -> go.Figure:
    """What each method's choice is worth (per cent, mean over repeats, 95 % band) against the budget (epochs)."""
    fixed: Traces = []
    hover = "%{x} epochs: %{y:.1f} %<extra>%{fullData.name}</extra>"
    for name in METHODS:
        look = style.LOOKS[name]
        fixed.append({"name": f"interval of {name}", **band_style(look)})
        line = {"color": look.colour, "dash": look.dash, "width": 2}
        marker = {"symbol": look.marker, "size": 6, "color": look.colour}
        fixed.append({"name": name, "mode": "lines+markers", "line": line, "marker": marker, "hovertemplate": hover})
    dotted = {"dash": "dot", "color": style.NEUTRAL, "width": 1}
    fixed.append({"name": "best cell", "mode": "lines", "line": dotted, "hovertemplate": hover})
    data = [dressed(look, arrays) for look, arrays in zip(fixed, race_traces(info), strict=True)]
    layout = race_layout(info)
    step = next(step for step in (1, 2, 4, 5, 10, 20, 50, 10**9) if info.top / info.full / step <= 10) * info.full
    return style.figure(
        data,
        title="What would each method have found by then?",
        height=400,
        x={
            "title": f"budget, epochs trained ({info.full} are one whole training)",
            "range": [0, info.top * 1.01],
            "dtick": step,
        },
        y={"title": "worth of the chosen one, %", **layout.pop("yaxis")},
        **{**layout, "margin": {"l": 56, "r": 104, "t": 34, "b": 44}},
    )


class LandscapeInfo(NamedTuple):
    """Accuracy at every cell, per cent; the axes are places in the unit interval.

    Attributes:
        names: of the two hyper-parameters, as the axes call them.
        places: of the cells along each axis.
        accuracy: rows along the second parameter, columns along the first; None where not trained yet.
        networks: that were trained, and all there will be.
        ticks: of each axis: places and texts.
    """

    names: tuple[str, str]
    places: tuple[tuple[float, ...], tuple[float, ...]]
    accuracy: tuple[tuple[float | None, ...], ...]
    networks: tuple[int, int]
    ticks: tuple[tuple[tuple[float, ...], tuple[str, ...]], tuple[tuple[float, ...], tuple[str, ...]]]


def landscape_info(landscape: Landscape) -> LandscapeInfo:
    """Gather what is trained so far."""
    first, second = landscape.space.names
    parameters = list(landscape.space.parameters.values())
    places = [
        tuple(parameter.encode(value) for value in axis)
        for parameter, axis in zip(parameters, landscape.axes, strict=True)
    ]
    rows = tuple(
        tuple(None if math.isnan(value) else 100 * value for value in row) for row in landscape.mean.T.tolist()
    )
    total = landscape.seeds * len(places[0]) * len(places[1])
    ticks = [axis_ticks(landscape.space, name) for name in (first, second)]
    return LandscapeInfo(
        (title(first), title(second)),
        (places[0], places[1]),
        rows,
        (total - landscape.missing, total),
        (ticks[0], ticks[1]),
    )


def axis_ticks(space: Space, name: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Round values of a hyper-parameter: their places in the unit interval, and their texts."""
    parameter = space.parameters[name]
    assert isinstance(parameter, (Float, Int))
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        every = 1 + max(0, len(decades) - 1) // 4  # at most four or so: the figures are small
        values: list[float] = [10.0**decade for decade in decades[::every]]
        if len(values) < 3:
            values = [low * (high / low) ** (at / 4) for at in range(5)]
    else:
        step = _round_step(high - low)
        values = [step * at for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    if not isinstance(parameter, Float):
        values = sorted({round(value) for value in values if low <= round(value) <= high})
    places = tuple(parameter.encode(min(max(value, low), high)) for value in values)
    return places, tuple(tick(value) for value in values)


def tick(value: float) -> str:
    """A number for an axis: powers of ten below 0.001 as such."""
    exponent = math.log10(value) if value > 0 else 0.0
    if exponent < -2.5 and abs(exponent - round(exponent)) < 1e-9:
        return f"10<sup>{exponent:.0f}</sup>"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def _round_step(width: float) -> float:
    """1, 2 or 5 times a power of ten that goes into `width` three to seven times."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (0.1, 0.2, 0.5, 1.0, 2.0) if width / (step * power) <= 7)


def landscape_traces(info: LandscapeInfo) -> Traces:
    """Arrays of the one trace: the picture, its colours over the best 40 points, where the differences are."""
    known = [value for row in info.accuracy for value in row if value is not None]
    top = max(40, 5 * math.ceil(max(known, default=100.0) / 5))
    ticks = {"tickvals": [top - 40, top - 20, top], "ticktext": [f"≤{top - 40}", f"{top - 20}", f"{top}"]}
    scale = {"zmin": top - 40, "zmax": top, "colorbar": ticks}
    return [{"z": [list(row) for row in info.accuracy], **scale}]


def landscape_layout(info: LandscapeInfo) -> dict[str, Any]:
    """What changes of the layout with the numbers: the title counts the networks while they are trained."""
    trained, total = info.networks
    done = f"★ chosen, of {total:,} trained networks"
    text = done if trained == total else f"{trained:,} of {total:,} networks trained"
    return {"title": {"text": text}}


def landscape_figure(info: LandscapeInfo) -> go.Figure:
    """Accuracy at every cell as a picture; the trials are drawn over it."""
    heatmap = {
        "type": "heatmap",
        "x": list(info.places[0]),
        "y": list(info.places[1]),
        "colorscale": COLOURS,
        "hovertemplate": "%{z:.1f} %<extra></extra>",
    }
    bar = {"thickness": 10, "len": 1.0, "outlinewidth": 0, "title": {"text": "%", "side": "top"}}
    arrays = landscape_traces(info)[0]
    axes = [
        {"title": name, "range": [0.0, 1.0], "tickvals": list(places), "ticktext": list(texts), "tickangle": 0}
        for name, (places, texts) in zip(info.names, info.ticks, strict=True)
    ]
    return style.figure(
        [{**heatmap, **arrays, "colorbar": {**bar, **arrays["colorbar"]}}],
        title=landscape_layout(info)["title"]["text"],
        height=DETAIL_HEIGHT,
        x=axes[0] | {"showgrid": False},
        y=axes[1] | {"showgrid": False},
    )


class ProjectionInfo(NamedTuple):
    """The trials as one hyper-parameter alone sees them, per cent.

    Attributes:
        name: of the hyper-parameter.
        places: of the trials, in the unit interval.
        values: what they scored.
        ridge: places of the cells, and the best accuracy at each over the other parameter.
        different: how many different values were tried.
        ticks: of the axis.
        look: the method's.
    """

    name: str
    places: tuple[float, ...]
    values: tuple[float, ...]
    ridge: tuple[tuple[float, ...], tuple[float, ...]]
    different: int
    ticks: tuple[tuple[float, ...], tuple[str, ...]]
    look: style.Look


def projection_info(landscape: Landscape, name: str, track: Track | None, budget: int, method: str) -> ProjectionInfo:
    """Gather the trials within the budget.

    Args:
        landscape: what was searched.
        name: of one of its two hyper-parameters.
        track: the search; None while there is none.
        budget: epochs.
        method: gives the look.
    """
    axis = landscape.space.names.index(name)
    parameter = landscape.space.parameters[name]
    trials = () if track is None else track.trials[: track.within(budget)]
    done = [trial for trial in trials if trial.value is not None]
    places = tuple(parameter.encode(trial.config[name]) for trial in done)
    mean = landscape.mean
    ridge: list[float] = []
    if not landscape.missing:
        ridge = (100 * np.nanmax(mean, axis=1 - axis)).tolist()
    cells = tuple(parameter.encode(value) for value in landscape.axes[axis])[: len(ridge)]
    return ProjectionInfo(
        title(name),
        places,
        tuple(100 * trial.value for trial in done if trial.value is not None),
        (cells, tuple(ridge)),
        len({round(place, 9) for place in places}),
        axis_ticks(landscape.space, name),
        style.LOOKS[method],
    )


def projection_traces(info: ProjectionInfo) -> Traces:
    """Arrays of the traces: the ridge, a stick under each trial, the trials."""
    sticks: tuple[list[float | None], list[float | None]] = ([], [])
    for place, value in zip(info.places, info.values, strict=True):
        sticks[0].extend([place, place, None])
        sticks[1].extend([0.0, value, None])
    marker = {"color": info.look.colour, "symbol": info.look.marker, "size": 8, "line": {"width": 1, "color": "#fff"}}
    return [
        {"x": list(info.ridge[0]), "y": list(info.ridge[1])},
        {"x": sticks[0], "y": sticks[1]},
        {"x": list(info.places), "y": list(info.values), "marker": marker},
    ]


def projection_layout(info: ProjectionInfo) -> dict[str, Any]:
    """What changes of the layout with the numbers: the title, and the axis where another parameter is looked at."""
    count = len(info.places)
    places, texts = info.ticks
    return {
        "title": {
            "text": f"{count} trial{'s' * (count != 1)}, {info.different} value{'s' * (info.different != 1)} "
            f"of {info.name}"
        },
        "xaxis": {"title": {"text": info.name}, "tickvals": list(places), "ticktext": list(texts)},
    }


def projection_figure(info: ProjectionInfo) -> go.Figure:
    """Accuracy of the trials (per cent) against one hyper-parameter; a line over them: the best of all cells."""
    fixed: Traces = [
        {"name": "best cell at each value", "mode": "lines", "line": {"color": style.NEUTRAL, "width": 2}},
        {"name": "sticks", "mode": "lines", "line": {"color": style.faint(style.NEUTRAL, 0.6), "width": 1}},
        {"name": "trials", "mode": "markers", "hovertemplate": "%{y:.1f} %<extra></extra>"},
    ]
    data = [{**look, "type": "scatter", **each} for look, each in zip(fixed, projection_traces(info), strict=True)]
    layout = projection_layout(info)
    return style.figure(
        data,
        title=layout["title"]["text"],
        height=DETAIL_HEIGHT,
        x={**layout["xaxis"], "title": info.name, "range": [-0.02, 1.02], "tickangle": 0},
        y={"title": "accuracy in the search, %", "range": [0, 104], "tickvals": [0, 20, 40, 60, 80, 100]},
    )


class RungsInfo(NamedTuple):
    """Where the budget went.

    Attributes:
        epochs: that trials were trained to, fewest first.
        trials: how many were trained so far, those included that later trials went on from.
        spent: epochs that went into trials at that rung.
        full: budget of the axis, epochs.
        look: the method's.
    """

    epochs: tuple[int, ...]
    trials: tuple[int, ...]
    spent: tuple[int, ...]
    full: int
    look: style.Look


RUNGS = 4  # bars that are always there, empty or not


def rungs_info(track: Track | None, budget: int, top: int, method: str) -> RungsInfo:
    """Gather the trials within the budget by the epochs they were trained to."""
    trials = () if track is None else track.trials[: track.within(budget)]
    levels = sorted({trial.epochs or 0 for trial in trials})
    at = [[trial for trial in trials if (trial.epochs or 0) == level] for level in levels]
    return RungsInfo(
        tuple(levels),
        tuple(map(len, at)),
        tuple(sum(trial.spent for trial in each) for each in at),
        top,
        style.LOOKS[method],
    )


def rungs_traces(info: RungsInfo) -> Traces:
    """Arrays of the one trace: a bar a rung, with the number of trials beside it."""
    texts = [f"{trials} trials" if trials != 1 else "1 trial" for trials in info.trials]
    names = [f"{epochs} epochs" if epochs != 1 else "1 epoch" for epochs in info.epochs]
    empty = RUNGS - len(names)
    return [
        {
            "y": [*names, *(" " * (at + 1) for at in range(empty))],
            "x": [*info.spent, *[0] * empty],
            "text": [*texts, *[""] * empty],
            "marker": {"color": info.look.colour},
        }
    ]


def rungs_figure(info: RungsInfo) -> go.Figure:
    """Epochs spent at each rung, fewest epochs at the bottom."""
    bar = {
        "type": "bar",
        "orientation": "h",
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x} epochs spent<extra></extra>",
    }
    return style.figure(
        [{**bar, **rungs_traces(info)[0]}],
        title="Where the budget went: trials trained to ...",
        height=DETAIL_HEIGHT,
        x={"title": "epochs spent", "range": [0, 1.3 * info.full]},
        y={"showgrid": False, "type": "category"},
        margin={"l": 76, "r": 12, "t": 34, "b": 44},
    )
