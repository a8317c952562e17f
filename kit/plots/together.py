"""Figures of a search for two things at once: the plane and its front, volumes, what mattered, the recipe."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.architecture import order_colours
from kit.plots.curves import Curve, Label, Panel
from kit.plots.search import DETAIL_HEIGHT
from kit.search.space import Space

TRIALS, FRONT, ANEW = "trials", "front, as searched", "front, measured anew"
FAINT = 0.35  # opacity of a trial
LETTERS = 12  # of the name of a knob
STEP = 4  # trials from point to point of a volume
LEAST = 0.5  # of the largest volume: what is less enters from below


class Names(NamedTuple):
    """What the two objectives are called: the share that is wanted high, and the size that is wanted low."""

    share: str
    size: str


def look_of(method: str) -> style.Look:
    """How a method is drawn."""
    return style.LOOKS.get(method, style.LOOKS["other"])


def plane_panel(
    names: Names, method: str, found: Sequence[Curve], pins: Curve, corner: Mapping[str, float], title: str
) -> Panel:
    """The plane of two objectives, sizes on a log axis and shares on an `error_axis`: trials and their fronts.

    Args:
        names: of the objectives.
        method: gives the colour.
        found: all trials, the front as it was searched (the smallest first), its members measured anew (with
            intervals), and the front of another method under its name (empty for none); sizes in their own unit.
        pins: of the board.
        corner: the worst values that count, by name; what is beyond is out of sight.
        title: over it.
    """
    trials, front, anew, rival = found
    mine, other, board = (
        style.Look(look_of(method).colour, "circle", "solid"),
        look_of(rival.label),
        style.LOOKS["board"],
    )
    end = corner[names.size]
    hollow = {"symbol": "circle-open", "size": 9, "color": mine.colour, "line": {"width": 2}}
    bars = {"error_y": curves.error_bars(_errors(anew), mine.colour, width=3)}
    theirs = rival._replace(label=f"front, {rival.label}")
    traces = [
        _points(trials, names, {"size": 5, "color": style.NEUTRAL, "opacity": FAINT}),
        _steps("steps", front, end, mine),
        _steps("rival's steps", rival, end, other),
        _points(theirs, names, {"symbol": other.marker, "size": 7, "color": other.colour}),
        _points(front, names, hollow),
        _points(anew, names, {"symbol": mine.marker, "size": 8, "color": mine.colour}) | bars,
        _points(pins._replace(label="on the board"), names, {"symbol": board.marker, "size": 9, "color": board.colour}),
    ]
    y = curves.error_axis([*front.value, *anew.value, *rival.value, 100 * corner[names.share]])
    axes = _sizes(names.size, min([*trials.x, *rival.x, end]), end), {**y, "title": f"{names.share}, % (log error)"}
    labels = [Label(curves.signed(rival.label, other), curve="rival's steps", colour=other.colour)] * bool(rival.x)
    labels += curves.newest(_errors(pins))
    return Panel(traces, style.layout(title, 330, *axes), (trials, front, anew, theirs), tuple(labels))


def _errors(curve: Curve) -> Curve:
    """The same on an `error_axis`, where up is down."""
    value, low, high = (tuple(map(curves.error, each)) for each in (curve.value, curve.high, curve.low))
    return curve._replace(value=value, low=low, high=high)


def _points(curve: Curve, names: Names, marker: Mapping[str, Any]) -> dict[str, Any]:
    ends = (f" ({low:.1f} to {high:.1f})" * (high > low) for low, high in zip(curve.low, curve.high, strict=True))
    words = ["".join(f"<br>{html.escape(line)}" for line in textwrap.wrap(each, 60)) for each in curve.said]
    words = words or [""] * len(curve.x)
    said = [[f"{value:.1f} %{end}", word] for value, end, word in zip(curve.value, ends, words, strict=True)]
    hover = f"%{{fullData.name}}: %{{customdata[0]}}, %{{x:,.0f}} {names.size}%{{customdata[1]}}<extra></extra>"
    where = {"x": list(curve.x), "y": list(_errors(curve).value), "mode": "markers", "marker": marker}
    return {"name": curve.label, **where, "customdata": said, "hovertemplate": hover}


def _steps(name: str, curve: Curve, end: float, look: style.Look) -> dict[str, Any]:
    """Along a front, to the worst size: between two of its members nothing was measured."""
    x, y = [*curve.x, *[end] * bool(curve.x)], list(_errors(curve).value)
    line = {"shape": "hv", "width": 1.5, "color": look.colour, "dash": look.dash}
    return {"name": name, "x": x, "y": y + y[-1:], "mode": "lines", "line": line, "hoverinfo": "skip"}


def _sizes(name: str, least: float, most: float) -> dict[str, Any]:
    """A log axis of sizes; its lower end is 1, 2 or 5 of a decade, so that it seldom moves."""
    lowest = 0.9 * least
    bottom = max(digit * 10.0 ** math.floor(math.log10(lowest / digit)) for digit in (1, 2, 5))
    ticks = curves.log_ticks(bottom, 1.1 * most)
    text = {"tickvals": ticks, "ticktext": [f"{tick:,.9g}" for tick in ticks], "tickangle": 0}
    return {"type": "log", "title": name, "range": [math.log10(bottom), math.log10(1.1 * most)], **text}


def after(repeats: Sequence[Sequence[float]], count: int) -> Estimate | None:
    """The mean over repeats after so many trials; of one repeat alone an interval of no width, None of none."""
    values = [each[min(count, len(each)) - 1] for each in repeats if each]
    if len(values) < 2:
        return Estimate(values[0], values[0], values[0], 1) if values else None
    return Estimate.from_values(values)


def volume_panel(repeats: Mapping[str, Sequence[Sequence[float]]], strong: str, budget: int) -> Panel:
    """The volume that each method's front dominates, against trials: mean over repeats, 95 % band.

    Args:
        repeats: by method, of each repeat the volume after each trial.
        strong: the method that is drawn stronger.
        budget: trials that are in sight at least.
    """
    traces, labels, courses = list[dict[str, Any]](), list[Label](), list[Curve]()
    for name, each in repeats.items():
        look, first = look_of(name), name == strong
        counts = range(STEP, min(map(len, each), default=0) + 1, STEP)
        found = [(count, mean.value, mean.low, mean.high) for count in counts if (mean := after(each, count))]
        courses.append(course := Curve(name, *zip(*found, strict=True)) if found else Curve(name))
        line = {"color": look.colour, "dash": look.dash, "width": 3.5 if first else 1.5}
        hover = f"{html.escape(name)}: %{{y:.3f}} after %{{x}} trials<extra></extra>"
        drawn = {"name": name, "x": list(course.x), "y": list(course.value), "mode": "lines", "line": line}
        traces.append(curves.band(course, look) | {"fillcolor": style.faint(look.colour, 0.25 if first else 0.1)})
        traces.append({**drawn, "hovertemplate": hover})
        labels += curves.at_end(course, look, rank=0 if first else 1)
    highest = max((value for course in courses for value in course.value), default=1.0) or 1.0
    y = {"title": "hypervolume", "range": [LEAST * highest, 1.1 * highest], "nticks": 7}
    axes = curves.count_axis(max([budget, *(course.x[-1] for course in courses if course.x)]), "trials", most=6), y
    layout = style.layout("Volume that the front dominates", DETAIL_HEIGHT, *axes, right=102)
    return Panel(traces, layout, tuple(courses), tuple(labels))


def importance_panel(space: Space, names: Names, shares: Mapping[str, Mapping[str, float]]) -> Panel:
    """Share of an objective's variance that each knob explains alone, as bars; by objective and knob, or empty."""
    rows, colours = [curves.short(name, LETTERS) for name in space.names], (style.BLUE, style.ORANGE)
    traces = list[dict[str, Any]]()
    for name, colour in zip(names, colours, strict=True):
        x = [100 * shares[name][knob] for knob in space.names] if shares else []
        hover = f"%{{y}}: %{{x:.0f}} % of {html.escape(name)}<extra></extra>"
        traces.append(curves.bars_right(rows[: len(x)], x=x, name=name, marker={"color": colour}, hovertemplate=hover))
    most = max((value for trace in traces for value in trace["x"]), default=50.0)
    x_axis = {"title": "of the variance, %", "range": [0, 1.1 * max(most, 1.0)]}
    more = {**style.legend_above(46), "barmode": "group", "bargap": 0.25}
    layout = style.layout("Which knob mattered", DETAIL_HEIGHT, x_axis, _knobs(rows, rows), **more)
    return Panel(traces, {**layout, "margin": {**layout["margin"], "l": 84}})


def recipe_panel(
    space: Space, chosen: Mapping[str, Any] | None, front: Sequence[Mapping[str, Any]], size: str
) -> Panel:
    """Each knob on its own range, the lowest value at the left: the chosen network, and the front.

    Args:
        space: of the knobs.
        chosen: the configuration whose values are written; None for none.
        front: those of the front, the smallest first.
        size: what they differ in.
    """
    rows, look = [curves.short(name, LETTERS) for name in space.names], style.LOOKS["here"]
    every = [place for each in front for place in space.encode(each).tolist()]
    colours = [colour for colour in order_colours(len(front)) for _ in rows]
    mine, names = ([], rows) if chosen is None else (space.encode(chosen).tolist(), _written(rows, chosen, space))
    quiet = {"mode": "markers", "hoverinfo": "skip", "cliponaxis": False}
    dots = {"size": 7, "color": colours, "opacity": 0.8, "line": {"width": 0}}
    here = {"symbol": look.marker, "size": 10, "color": look.colour}
    traces = [
        {"name": "front", "x": every, "y": rows * len(front), "marker": dots, **quiet},
        {"name": "chosen", "x": mine, "y": rows[: len(mine)], "marker": here, **quiet},
    ]
    x = {"title": f"front: few {size} dark, many bright", "range": [-0.03, 1.03], "showticklabels": False, "ticks": ""}
    layout = style.layout("✖ its recipe, lowest to highest", DETAIL_HEIGHT, x, _knobs(rows, names))
    return Panel(traces, {**layout, "margin": {**layout["margin"], "l": 124}})


def _written(rows: Sequence[str], config: Mapping[str, Any], space: Space) -> list[str]:
    values = [config[name] for name in space.names]
    said = [f"{value:.2g}" if isinstance(value, float) else curves.short(str(value)) for value in values]
    return [f"{row} <b>{value}</b>" for row, value in zip(rows, said, strict=True)]


def _knobs(rows: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """An axis of rows, the first at the top, with their names."""
    order = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(rows),
        "range": [len(rows) - 0.4, -0.6],
    }
    return {**order, "tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": list(names), "ticks": ""}
