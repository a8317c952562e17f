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
from kit.plots.curves import Curve, Panel

TEMPERATURE_TICKS = (0.5, 1, 2, 4, 8, 16, 32, 64)
HOVER = "%{y:.1f} %<extra>%{fullData.name}</extra>"


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
    traces = [each for line in lines[:3] for each in curves.banded(line, style.LOOKS[line.label], hovertemplate=HOVER)]
    look = style.LOOKS["teacher"]
    circle = {"symbol": "circle-open", "size": 7, "color": style.LOOKS["distilled"].colour, "line": {"width": 1.5}}
    star = {"symbol": look.marker, "size": 9, "color": look.colour}
    traces += [
        {
            **{"name": "one student", "mode": "markers", "marker": circle, "hovertemplate": HOVER},
            **{"x": [x for x, _ in students], "y": [y for _, y in students]},
        },
        curves.line(lines[3], look, marker=star, hovertemplate=HOVER),
    ]
    low, high = (math.log10(end) for end in ends)
    lows = [each for curve in lines[:3] for each in curve.low]
    y = curves.accuracy_axis([*lows, *(y for _, y in students), 100 * teacher.value])
    x = {
        **{"type": "log", "title": "temperature T", "range": [low - 0.03, high + 0.03]},
        **{"tickvals": list(TEMPERATURE_TICKS), "ticktext": [f"{tick:g}" for tick in TEMPERATURE_TICKS]},
    }
    written = {name: curves.signed(name, style.LOOKS[name]) for name in names}
    labels = curves.end_labels(written, {curve.label: curve.value[-1] for curve in lines if curve.x}, y["range"])
    title = "Students' accuracy against temperature: where are you (x)?"
    return Panel(traces, style.layout(title, 400, x, y, right=128, annotations=labels), tuple(lines))


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
    corner = [0.76, 1.0] if label < len(names) / 2 else [0.02, 0.26]  # where the right class' bar is not
    layout = style.layout(
        f"Teacher on this {escape(names[label])} (dash: T = 1)",
        290,
        _class_axis("class", names),
        {"title": "probability, %", "range": [0, 1.12], "tickvals": [0, 0.5, 1], "ticktext": ["0", "50", "100"]},
        xaxis2={**hidden, "domain": corner, "anchor": "y2", "constrain": "domain"},
        yaxis2={**hidden, "domain": [0.6, 1.0], "anchor": "x2", "autorange": "reversed", "scaleanchor": "x2"},
    )
    return Panel([image, dashes], layout)


def plane_panel(
    distilled: Curve, hard: Curve, teacher: Curve, here: Curve, pins: Curve, pin_names: Sequence[str]
) -> Panel:
    """The trade-off plane of distillation: accuracy (per cent) against parameters that are not zero (log axis).

    Args:
        distilled: students by width.
        hard: their rivals on hard labels.
        teacher: one point.
        here: the chosen width; one point, or none while it is not trained.
        pins: what is pinned on the board.
        pin_names: their names, in order.
    """
    shown = (distilled, hard, teacher, here, pins)
    sizes = [size for curve in shown for size in curve.x]
    left, right = min(sizes) / 1.6, max(sizes) * 1.6
    traces = [
        *curves.banded(hard, style.LOOKS["hard labels"]),
        *curves.banded(distilled, style.LOOKS["distilled"]),
        curves.points(teacher, style.LOOKS["teacher"], 13, text=["teacher"], textposition="bottom left", error_y={}),
        curves.pins(pins, pin_names, math.sqrt(left * right)),
        curves.points(here, style.LOOKS["here"]),
    ]
    y = curves.accuracy_axis(low for curve in shown for low in curve.low)
    x = curves.size_axis("nonzeros", left, right)
    return Panel(traces, style.layout("Students by width: accuracy against size", 290, x, y), shown)


def answers_panel(chosen: Sequence[Group], label: int, seen: bool, names: Sequence[str]) -> Panel:
    """What students call the samples of one class: a pair of bars a class (per cent, means over seeds, 95 % intervals).

    Args:
        chosen: distilled students, then their rivals on hard labels; empty while they are not trained.
        label: the class of the samples.
        seen: whether it was in the transfer set.
        names: of the classes.
    """
    rows: list[Sequence[Estimate]] = [group.answers_to(label) for group in chosen[:2]] or [(), ()]
    shares = [Curve.of(name, enumerate(row)) for name, row in zip(("distilled", "hard labels"), rows, strict=True)]
    hatched = {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "size": 5}
    traces: list[curves.Trace] = [
        {
            **{"type": "bar", "name": curve.label, "x": list(curve.x), "y": list(curve.value)},
            "error_y": curves.error_bars(curve, style.NEUTRAL, thickness=1.5),
            "marker": {"color": style.LOOKS[curve.label].colour, "pattern": pattern},
            "hovertemplate": HOVER,
        }
        for curve, pattern in zip(shares, ({"shape": ""}, hatched), strict=True)
    ]
    layout = style.layout(
        f"What students call a {escape(names[label])}{'' if seen else ', never seen'}",
        290,
        _class_axis("class that they name", names),
        {"title": "of its images, %", "range": [0, 105]},
        barmode="group",
        **style.legend_above(56),
    )
    return Panel(traces, layout, tuple(shares))


def _class_axis(title: str, names: Sequence[str]) -> dict[str, Any]:
    texts = list(map(escape, names))  # plotly reads tags in text
    ticks: dict[str, Any] = {"tickvals": list(range(len(texts))), "ticktext": texts}
    return {"title": title, **ticks, "range": [-0.6, len(names) - 0.4], "showgrid": False}


def most_likely(probabilities: Sequence[float], names: Sequence[str], count: int = 3) -> str:
    """The likeliest classes in words: `3 (62 %), 8 (12 %), 5 (9 %)`."""
    ranked = sorted(zip(probabilities, names, strict=True), reverse=True)[:count]
    return ", ".join(f"{name} ({100 * share:.0f} %)" for share, name in ranked)
