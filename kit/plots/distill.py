"""Figures of distillation: accuracy against temperature, the teacher's soft labels, the plane, what students answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from torch import Tensor

from kit.distill import Group, soften
from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel

TEMPERATURE_TICKS = (0.5, 1, 2, 4, 8, 16, 32, 64)
AT_TEMPERATURE = "at temperature %{x:g}"


def curve_panel(groups: Sequence[Group], chosen: Sequence[Group], teacher: Estimate, ends: Sequence[float]) -> Panel:
    """Accuracy of students (per cent, mean over seeds, 95 % intervals) against temperature (log axis).

    Args:
        groups: distilled students, as far as they are trained: one group a temperature, ascending.
        chosen: those at the chosen temperature; their rivals on hard labels, and with label smoothing, which know no
            temperature and are level lines. Empty while they are not trained.
        teacher: its accuracy.
        ends: of the temperature axis.
    """
    names = ("hard labels", "label smoothing", "distilled", "teacher")
    level = [[(end, group.accuracy) for end in ends] for group in chosen[1:]] or [[], []]
    by_temperature = [(group.recipe.temperature, group.accuracy) for group in groups]
    lines = list(map(Curve.of, names, (*level, by_temperature, [(end, teacher) for end in ends])))
    students = [(group.recipe.temperature, 100 * each) for group in chosen[:1] for each in group.accuracies]
    traces = [each for line in lines[:3] for each in curves.banded(line, style.LOOKS[line.label], at=AT_TEMPERATURE)]
    look = style.LOOKS["teacher"]
    circle = {"symbol": "circle-open", "size": 7, "color": style.LOOKS["distilled"].colour, "line": {"width": 1.5}}
    star = {"symbol": look.marker, "size": 9, "color": look.colour}
    traces += [
        {
            **{"name": "one student", "mode": "markers", "marker": circle, "hovertemplate": curves.HOVER},
            **{"x": [x for x, _ in students], "y": [y for _, y in students]},
        },
        curves.line(lines[3], look, "at any temperature", marker=star),
    ]
    low, high = (math.log10(end) for end in ends)
    lows = [each for curve in lines[:3] for each in curve.low]
    y = curves.accuracy_axis([*lows, *(y for _, y in students), 100 * teacher.value])
    x = {
        **{"type": "log", "title": "temperature T", "range": [low - 0.03, high + 0.03]},
        **{"tickvals": list(TEMPERATURE_TICKS), "ticktext": [f"{tick:g}" for tick in TEMPERATURE_TICKS]},
    }
    labels = tuple(label for line in lines for label in curves.at_end(line, style.LOOKS[line.label]))
    title = "Students' accuracy against temperature (✖ you are here)"
    return Panel(traces, style.layout(title, 330, x, y, right=118), tuple(lines), labels)


def soft_panel(logits: Tensor, label: int, sample: Tensor, names: Sequence[str]) -> Panel:
    """The teacher's probabilities of one sample: a dash where each stands at temperature 1; the image in a corner.

    Those at the chosen temperature are bars over the figure (a mark): they move while a hand drags.

    Args:
        logits: the teacher's, [C].
        label: the right class.
        sample: what the teacher saw, [...]; an image is [channels, height, width], and its channels' mean is shown.
        names: of the classes.
    """
    dash: dict[str, Any] = {"symbol": "line-ew", "size": 18, "line": {"width": 2, "color": style.NEUTRAL}}
    image = {
        **{"type": "heatmap", "xaxis": "x2", "yaxis": "y2", "showscale": False, "hoverinfo": "skip"},
        "z": sample.mean(0).tolist() if sample.ndim == 3 else [],
        "colorscale": [[0, "#ffffff"], [1, "#202020"]],
    }
    dashes = {
        **{"type": "scatter", "mode": "markers", "marker": dash, "hovertemplate": "%{y:.4f} at T = 1<extra></extra>"},
        **{"x": [*range(len(names))], "y": soften(logits, 1.0).tolist()},
    }
    hidden = {"showgrid": False, "showticklabels": False, "zeroline": False, "ticks": "", "fixedrange": True}
    axis = _class_axis("class", names)
    corner = [0.76, 1.0] if label < len(names) / 2 else [0.02, 0.26]  # where the right class' bar is not
    layout = style.layout(
        f"Teacher on this {escape(curves.short(names[label]))} (dash: T = 1)",
        220,
        axis.pop("x"),
        {"title": "probability, %", "range": [0, 1.12], "tickvals": [0, 0.5, 1], "ticktext": ["0", "50", "100"]},
        xaxis2={**hidden, "domain": corner, "anchor": "y2", "constrain": "domain"},
        yaxis2={**hidden, "domain": [0.6, 1.0], "anchor": "x2", "autorange": "reversed", "scaleanchor": "x2"},
        **axis,
    )
    return Panel([image, dashes], layout)


def plane_panel(distilled: Curve, hard: Curve, teacher: Curve, here: Curve, pins: Curve) -> Panel:
    """The trade-off plane of distillation: accuracy (per cent) against parameters that are not zero (log axis).

    Args:
        distilled: students by width.
        hard: their rivals on hard labels.
        teacher: one point.
        here: the chosen width; one point, or none while it is not trained.
        pins: what is pinned on the board, the newest last.
    """
    shown, at = (distilled, hard, teacher, here, pins), curves.SIZE_AXES["nonzeros"].at
    traces = [
        *curves.banded(hard, style.LOOKS["hard labels"], at=at),
        *curves.banded(distilled, style.LOOKS["distilled"], at=at),
        curves.points(teacher, style.LOOKS["teacher"], 13, at, error_y={}),
        curves.pins(pins, at),
        curves.points(here, style.LOOKS["here"], at=at),
    ]
    y = curves.accuracy_axis(low for curve in shown for low in curve.low)
    x = curves.size_axis("nonzeros", (size for curve in shown for size in curve.x))
    named = [Label("teacher", *point) for point in zip(teacher.x, teacher.value, strict=True)]
    for curve in (distilled, hard):
        named += curves.of_curve(curve, style.LOOKS[curve.label], rank=1)
    return Panel(traces, style.layout("Students by width", 220, x, y), shown, (*named, *curves.newest(pins)))


def answers_panel(chosen: Sequence[Group], label: int, seen: bool, names: Sequence[str], noun: str = "images") -> Panel:
    """What students call the samples of one class: a pair of bars a class (per cent, means over seeds, 95 % intervals).

    Args:
        chosen: distilled students, then their rivals on hard labels; empty while they are not trained.
        label: the class of the samples.
        seen: whether it was in the transfer set.
        names: of the classes.
        noun: what the samples are called.
    """
    rows: list[Sequence[Estimate]] = [group.answers_to(label) for group in chosen[:2]] or [(), ()]
    shares = [Curve.of(name, enumerate(row)) for name, row in zip(("distilled", "hard labels"), rows, strict=True)]
    hatched = {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "size": 5}
    traces: list[curves.Trace] = [
        {
            **{"type": "bar", "name": curve.label, "x": list(curve.x), "y": list(curve.value)},
            "error_y": curves.error_bars(curve, style.NEUTRAL, thickness=1.5),
            "marker": {"color": style.LOOKS[curve.label].colour, "pattern": pattern},
            **curves.hover(curve, "call it so"),
        }
        for curve, pattern in zip(shares, ({"shape": ""}, hatched), strict=True)
    ]
    axis, legend = _class_axis("what they call it", names), style.legend_above(52)
    layout = style.layout(
        f"What students call a {escape(curves.short(names[label], 12))}{'' if seen else ', never seen'}",
        220,
        axis["x"],
        {"title": f"of its {escape(noun)}, %", "range": [0, 105]},
        barmode="group",
        **legend | {"margin": {**legend["margin"], "b": axis["margin"]["b"]}},
    )
    return Panel(traces, layout, tuple(shares))


def _class_axis(title: str, names: Sequence[str]) -> dict[str, Any]:
    """Settings of the x axis, of classes, and margins. Longer names stand upright, and say themselves what they are."""
    texts = [curves.short(name, 10) for name in names]
    longest, escaped = max(map(len, texts)), list(map(escape, texts))  # plotly reads tags in text
    axis = {
        "tickvals": list(range(len(texts))),
        "ticktext": escaped,
        "range": [-0.6, len(names) - 0.4],
        "showgrid": False,
    }
    if longest < 3:
        return {"x": {"title": title, **axis}, "margin": style.MARGIN}
    return {"x": {"tickangle": -90, **axis}, "margin": {**style.MARGIN, "b": 14 + 7 * longest}}


def most_likely(probabilities: Sequence[float], names: Sequence[str], count: int = 3) -> str:
    """The likeliest classes in words: `3 (62 %), 8 (12 %), 5 (9 %)`."""
    ranked = sorted(zip(probabilities, names, strict=True), reverse=True)[:count]
    return ", ".join(f"{name} ({100 * share:.0f} %)" for share, name in ranked)
