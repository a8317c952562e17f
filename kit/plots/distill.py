"""Figures of distillation: accuracy against temperature, the teacher's soft labels, the plane, what students answer.

Each figure comes in three steps, as in `kit.plots.prune`: `x_info(...)`, `x_traces(info)`, `x_figure(info)`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go
from torch import Tensor

from kit.distill import Group, soften
from kit.measure import Estimate
from kit.plots import style
from kit.plots.prune import Line, Traces, band, band_style, curve_style, dressed, line, points, size_axis

TEMPERATURE_TICKS = (0.5, 1, 2, 4, 8, 16, 32, 64)
EMPTY = Line("", (), (), (), (), ())


class CurveInfo(NamedTuple):
    """Accuracy against temperature, in per cent.

    Attributes:
        distilled: mean over seeds at each temperature, with its interval; `size` holds the temperatures.
        seeds: each student at the chosen temperature: x and y; empty while they are not trained.
        rivals: mean and interval of "hard labels" and "label smoothing", which know no temperature.
        teacher: its accuracy; one point, at the left end.
        ends: of the temperature axis.
    """

    distilled: Line
    seeds: tuple[tuple[float, ...], tuple[float, ...]]
    rivals: tuple[Line, Line]
    teacher: float
    ends: tuple[float, float]


def curve_info(
    groups: Sequence[Group],
    chosen: Group | None,
    rivals: tuple[Group | None, Group | None],
    teacher: Estimate,
    ends: tuple[float, float],
) -> CurveInfo:
    """Gather what is trained so far.

    Args:
        groups: distilled students, one group a temperature.
        chosen: the group at the chosen temperature; None while it is not trained.
        rivals: students on hard labels and with label smoothing.
        teacher: its accuracy.
        ends: of the temperature axis.
    """
    entries = [(group.recipe.temperature, group.accuracy, group.recipe.temperature) for group in groups]
    seeds: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    if chosen is not None:
        seeds = (chosen.recipe.temperature,) * len(chosen.seeds), tuple(100 * value for value in chosen.accuracies)
    flat = [
        line(name, "nonzeros", [] if group is None else [(end, group.accuracy, end) for end in ends])
        for name, group in zip(("hard labels", "label smoothing"), rivals, strict=True)
    ]
    distilled = line("distilled", "nonzeros", entries)
    return CurveInfo(distilled, seeds, (flat[0], flat[1]), 100 * teacher.value, ends)


def curve_traces(info: CurveInfo) -> Traces:
    """Arrays of the traces: band and line of each rival, of the distilled students; each student; the teacher."""
    traces: Traces = []
    for curve in (*info.rivals, info.distilled):
        traces += [band(curve), {"x": list(curve.size), "y": list(curve.accuracy)}]
    traces.append({"x": list(info.seeds[0]), "y": list(info.seeds[1])})
    traces.append({"x": list(info.ends), "y": [info.teacher, info.teacher]})
    return traces


def curve_layout(info: CurveInfo) -> dict[str, Any]:
    """What changes of the layout with the numbers: the accuracy axis, and the names at the right ends of the lines."""
    bottom = _bottom([*info.distilled.low, *info.rivals[0].low, *info.rivals[1].low, *info.seeds[1], info.teacher])
    ends = {curve.label: curve.accuracy[-1] for curve in (*info.rivals, info.distilled) if curve.accuracy}
    heights = spread({"teacher": info.teacher, **ends}, gap=(103.5 - bottom) / 18)
    return {
        "yaxis": accuracy_axis(bottom),
        # Always as many names, empty or not: plotly cannot add one while it changes another.
        "annotations": [
            {
                "text": f"{SIGNS[name]} {name}" if name in heights else "",
                "xref": "paper",
                "x": 1.01,
                "y": heights.get(name, bottom),
                "xanchor": "left",
                "yanchor": "middle",
                "showarrow": False,
                "font": {"size": style.FONT_SIZE},
            }
            for name in SIGNS
        ],
    }


# The marker of each line, for its name.
SIGNS = {"hard labels": "◆", "label smoothing": "▼", "distilled": "■", "teacher": "★"}


def spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Move names apart until any two are `gap` apart: upwards, to a gap above the highest at most; the order stays."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = last = max(height, last + gap)
    limit = max(heights.values()) + gap
    for name in reversed(placed):
        placed[name] = min(placed[name], limit)
        limit = placed[name] - gap
    return placed


def accuracy_axis(bottom: float) -> dict[str, Any]:
    """Range and ticks of an accuracy axis, per cent; no tick above 100."""
    step = 20 if bottom < 30 else 10 if bottom < 70 else 5
    return {"range": [bottom, 103.5], "tickvals": [tick for tick in range(0, 101, step) if tick >= bottom]}


def _bottom(lows: Sequence[float]) -> float:
    """Lower end of an accuracy axis, per cent: in steps of 20, so that a growing curve seldom moves it."""
    return max(0, math.floor(min([*lows, 99.0]) / 20) * 20) - 2.0


def curve_figure(info: CurveInfo) -> go.Figure:
    """Accuracy of students (per cent, mean over seeds, 95 % intervals) against temperature (log axis)."""
    hover = "%{y:.1f} %<extra>%{fullData.name}</extra>"
    fixed: Traces = []
    for name in ("hard labels", "label smoothing", "distilled"):
        drawn = style.LOOKS[name]
        fixed.append({"name": f"interval of {name}", **band_style(drawn)})
        fixed.append({"name": name, "hovertemplate": hover, **curve_style(drawn)})
    distilled, teacher = style.LOOKS["distilled"], style.LOOKS["teacher"]
    open_marker = {"symbol": "circle-open", "size": 7, "color": distilled.colour, "line": {"width": 1.5}}
    fixed.append({"name": "one student", "mode": "markers", "marker": open_marker, "hovertemplate": hover})
    dotted = {"dash": teacher.dash, "color": teacher.colour, "width": 2}
    star = {"symbol": teacher.marker, "size": 9, "color": teacher.colour}
    fixed.append({"name": "teacher", "mode": "lines+markers", "line": dotted, "marker": star, "hovertemplate": hover})
    data = [{**look, **arrays} for look, arrays in zip(fixed, curve_traces(info), strict=True)]
    layout = curve_layout(info)
    low, high = (math.log10(end) for end in info.ends)
    return style.figure(
        data,
        title="Students' accuracy against temperature: where are you (x)?",
        height=400,
        x={
            "type": "log",
            "title": "temperature T",
            "range": [low - 0.03, high + 0.03],
            "tickvals": list(TEMPERATURE_TICKS),
            "ticktext": [f"{tick:g}" for tick in TEMPERATURE_TICKS],
        },
        y={"title": "validation accuracy, %", **layout.pop("yaxis")},
        **{**layout, "margin": {"l": 56, "r": 128, "t": 34, "b": 44}},
    )


def here_point(group: Group | None) -> list[float]:
    """x, y, low and high of the chosen temperature; empty while it is not trained. It is drawn over the curve."""
    if group is None:
        return []
    accuracy = group.accuracy
    return [group.recipe.temperature, 100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high]


class SoftInfo(NamedTuple):
    """The teacher's answer to one sample.

    Attributes:
        names: of the classes.
        soft: its probabilities at the chosen temperature.
        plain: at temperature 1.
        label: the right class.
        picture: the sample's pixels, rows from the top; empty where it is no image.
    """

    names: tuple[str, ...]
    soft: tuple[float, ...]
    plain: tuple[float, ...]
    label: int
    picture: tuple[tuple[float, ...], ...]


def soft_info(logits: Tensor, temperature: float, label: int, sample: Tensor, names: Sequence[str]) -> SoftInfo:
    """Soften one answer.

    Args:
        logits: the teacher's, [C].
        temperature: above 0.
        label: the right class.
        sample: what the teacher saw, [...]; an image is [channels, height, width].
        names: of the classes.
    """
    soft, plain = (tuple(soften(logits, t).tolist()) for t in (temperature, 1.0))
    picture = tuple(map(tuple, sample.mean(0).tolist())) if sample.ndim == 3 else ()
    return SoftInfo(tuple(names), soft, plain, label, picture)


def soft_traces(info: SoftInfo) -> Traces:
    """Arrays of the traces: the picture, marks at temperature 1. The bars are drawn over the figure: `info.soft`."""
    return [
        {"z": [list(row) for row in info.picture]},
        {"x": list(range(len(info.names))), "y": list(info.plain)},
    ]


def soft_layout(info: SoftInfo) -> dict[str, Any]:
    """What changes of the layout: the title, and in which corner the picture stands."""
    right = info.label < len(info.names) / 2
    return {
        "title": {"text": f"Teacher on this {escape(info.names[info.label])} (dash: T = 1)"},
        "xaxis2": {"domain": [0.76, 1.0] if right else [0.02, 0.26]},
    }


def soft_figure(info: SoftInfo) -> go.Figure:
    """The teacher's probabilities: a dash where each stands at temperature 1; the image in a corner."""
    fixed: Traces = [
        {
            "type": "heatmap",
            "xaxis": "x2",
            "yaxis": "y2",
            "colorscale": [[0, "#ffffff"], [1, "#202020"]],
            "showscale": False,
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "marker": {"symbol": "line-ew", "size": 18, "line": {"width": 2, "color": style.NEUTRAL}},
            "hovertemplate": "%{y:.4f} at T = 1<extra></extra>",
        },
    ]
    data = [{**look, **arrays} for look, arrays in zip(fixed, soft_traces(info), strict=True)]
    hidden = {"showgrid": False, "showticklabels": False, "zeroline": False, "ticks": "", "fixedrange": True}
    places, layout = list(range(len(info.names))), soft_layout(info)
    x = {
        "tickvals": places,
        "ticktext": list(map(escape, info.names)),
        "range": [-0.6, len(places) - 0.4],
        "showgrid": False,
    }
    figure = style.figure(
        data,
        title=layout["title"]["text"],
        height=290,
        x={"title": "class", **x},
        y={"title": "probability, %", "range": [0, 1.12], "tickvals": [0, 0.5, 1], "ticktext": ["0", "50", "100"]},
    )
    return figure.update_layout(
        xaxis2={**hidden, **layout["xaxis2"], "anchor": "y2", "constrain": "domain"},
        yaxis2={**hidden, "domain": [0.6, 1.0], "anchor": "x2", "autorange": "reversed", "scaleanchor": "x2"},
    )


class StudentsInfo(NamedTuple):
    """Accuracy against size: students of several widths, the teacher, the pins.

    Attributes:
        distilled: by width; sizes in parameters, accuracies in per cent.
        hard: their rivals on hard labels.
        teacher: one point.
        here: the chosen width; one point, or none while it is not trained.
        pins: what is pinned on the board.
        pin_names: their names, in order.
    """

    distilled: Line
    hard: Line
    teacher: Line
    here: Line
    pins: Line
    pin_names: tuple[str, ...]


def students_traces(info: StudentsInfo) -> Traces:
    """Arrays of the traces: both bands and curves, the teacher, the pins, the chosen width."""
    traces: Traces = []
    for curve in (info.hard, info.distilled):
        traces += [band(curve), {"x": list(curve.size), "y": list(curve.accuracy)}]
    names = [escape(name) for name in info.pin_names]
    newest = [escape(textwrap.shorten(name, 22, placeholder=" …")) for name in info.pin_names[-1:]]
    return [
        *traces,
        {"x": list(info.teacher.size), "y": list(info.teacher.accuracy)},
        {**points(info.pins), "hovertext": names, "text": [""] * len(names[:-1]) + newest},
        points(info.here),
    ]


def students_layout(info: StudentsInfo) -> dict[str, Any]:
    """What changes of the layout: both axes."""
    curves = (info.distilled, info.hard, info.teacher, info.here, info.pins)
    sizes = [size for curve in curves for size in curve.size] or [1.0, 100.0]
    bottom = _bottom([low for curve in curves for low in curve.low])
    return {
        "xaxis": size_axis("nonzeros", min(sizes) / 1.6, max(sizes) * 1.6),
        "yaxis": accuracy_axis(bottom),
    }


def students_figure(info: StudentsInfo) -> go.Figure:
    """The trade-off plane of distillation: accuracy (per cent) against parameters that are not zero (log axis)."""
    hover = "%{y:.1f} % at %{x:.4~g}<extra>%{fullData.name}</extra>"
    fixed: Traces = []
    for name in ("hard labels", "distilled"):
        fixed.append({"name": f"interval of {name}", **band_style(style.LOOKS[name])})
        fixed.append({"name": name, "hovertemplate": hover, **curve_style(style.LOOKS[name])})
    for name, label, size in (("teacher", "teacher", 13), ("board", "on the board", 10), ("here", "you are here", 10)):
        drawn = style.LOOKS[name]
        fixed.append(
            {
                "name": label,
                "mode": "markers+text",
                "marker": {"symbol": drawn.marker, "size": size, "color": drawn.colour},
                "textposition": "bottom center",
                "textfont": {"size": style.SMALL_SIZE},
                "hovertemplate": ("%{hovertext}: " if name == "board" else "") + hover,
            }
        )
    fixed[4] |= {"text": ["teacher"], "textposition": "bottom left"}
    for number in (5, 6):
        fixed[number]["error_y"] = {"color": fixed[number]["marker"]["color"]}
    data = [dressed(look, arrays) for look, arrays in zip(fixed, students_traces(info), strict=True)]
    layout = students_layout(info)
    return style.figure(
        data,
        title="Students by width: accuracy against size",
        height=290,
        x={"type": "log", **layout.pop("xaxis")},
        y={"title": "validation accuracy, %", **layout.pop("yaxis")},
    )


class AnswersInfo(NamedTuple):
    """What students say of the samples of one class, per cent of them: a row of the confusion matrix.

    Attributes:
        names: of the classes.
        distilled: mean over seeds for each class, with its interval; empty while they are not trained.
        hard: the same for the rivals on hard labels.
        label: the right class.
        seen: whether the class was in the transfer set.
    """

    names: tuple[str, ...]
    distilled: tuple[Estimate, ...]
    hard: tuple[Estimate, ...]
    label: int
    seen: bool


def answers_info(
    distilled: Group | None, hard: Group | None, label: int, seen: bool, names: Sequence[str]
) -> AnswersInfo:
    """Gather the answers to the validation samples of class `label`."""
    rows = [() if group is None else group.answers_to(label) for group in (distilled, hard)]
    return AnswersInfo(tuple(names), rows[0], rows[1], label, seen)


def answers_traces(info: AnswersInfo) -> Traces:
    """Arrays of the two traces: distilled, hard labels."""
    traces: Traces = []
    for row in (info.distilled, info.hard):
        error = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (each.high - each.value) for each in row],
            "arrayminus": [100 * (each.value - max(each.low, 0.0)) for each in row],
        }
        traces.append({"x": list(range(len(row))), "y": [100 * each.value for each in row], "error_y": error})
    return traces


def answers_layout(info: AnswersInfo) -> dict[str, Any]:
    """What changes of the layout: the title."""
    unseen = "" if info.seen else ", never seen"
    return {"title": {"text": f"What students call a {escape(info.names[info.label])}{unseen}"}}


def answers_figure(info: AnswersInfo) -> go.Figure:
    """Answers as pairs of bars, a pair a class (per cent of the class' samples, means over seeds, 95 % intervals)."""
    data = []
    for name, arrays in zip(("distilled", "hard labels"), answers_traces(info), strict=True):
        drawn = style.LOOKS[name]
        pattern = (
            {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "size": 5}
            if name == "hard labels"
            else {"shape": ""}
        )
        look = {
            "type": "bar",
            "name": name,
            "marker": {"color": drawn.colour, "pattern": pattern},
            "hovertemplate": "%{y:.1f} %<extra>%{fullData.name}</extra>",
        }
        data.append(dressed({**look, "error_y": {"color": style.NEUTRAL, "thickness": 1.5}}, arrays))
    figure = style.figure(
        data,
        title=answers_layout(info)["title"]["text"],
        height=290,
        x={
            "title": "class that they name",
            "tickvals": list(range(len(info.names))),
            "ticktext": list(map(escape, info.names)),
            "range": [-0.6, len(info.names) - 0.4],
            "showgrid": False,
        },
        y={"title": "of its images, %", "range": [0, 105]},
        barmode="group",
    )
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "itemclick": False}
    return figure.update_layout(
        showlegend=True, legend=legend, margin={"t": 56}, title={"y": 1, "yanchor": "top", "pad": {"t": 10, "l": 8}}
    )


def most_likely(probabilities: Sequence[float], names: Sequence[str], count: int = 3) -> str:
    """The likeliest classes in words: `3 (62 %), 8 (12 %), 5 (9 %)`."""
    ranked = sorted(zip(probabilities, names, strict=True), reverse=True)[:count]
    return ", ".join(f"{name} ({100 * share:.0f} %)" for share, name in ranked)
