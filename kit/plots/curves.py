"""What every figure is made of: panels, measured curves with their bands, axes, and labels that keep apart.

A panel is a whole figure as plain data: traces with their looks, and layout. Each `x_panel(...)` of this package turns
numbers into one; tests read it without pixels, and an explorer sends only what differs from the panel before.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy.optimize import isotonic_regression

from kit.measure import Estimate, SizeName
from kit.plots import style
from kit.search.space import Float, Int

Trace = dict[str, Any]

BARE_HOVER = "%{y:.1f} % at %{x:.4~g}<extra></extra>"
HOVER = "%{y:.1f} % at %{x:.4~g}<extra>%{fullData.name}</extra>"
TITLES = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "width": "hidden units",
}
SIGNS = {"circle": "●", "square": "■", "diamond": "◆", "star": "★", "x": "✖", "triangle-up": "▲", "triangle-down": "▼"}


class Curve(NamedTuple):
    """A measured curve, or single points, with 95 % intervals."""

    label: str  # its name in the figure and in the table
    x: tuple[float, ...] = ()  # in the unit of its axis
    value: tuple[float, ...] = ()  # per cent, as are the ends of the intervals
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, label: str, points: Iterable[tuple[float, Estimate]]) -> Curve:
        """A curve of measured shares, in the order given: pairs of x and an estimate in 0 .. 1."""
        known = [(x, *(100 * share for share in (each.value, each.low, each.high))) for x, each in points]
        return cls(label, *zip(*known, strict=True)) if known else cls(label)


@dataclass(frozen=True)
class Panel:
    """A whole figure: traces and layout as plotly takes them.

    Always as many traces, empty or not, and as many annotations: plotly cannot add one while it changes another.
    """

    traces: Sequence[Trace]
    layout: dict[str, Any]
    curves: tuple[Curve, ...] = ()  # the numbers that it shows, for a reader who wants them as a table

    @property
    def figure(self) -> go.Figure:
        """The figure, to show outside of an explorer."""
        return go.Figure(data=list(self.traces), layout=self.layout)


# -- traces ------------------------------------------------------------------------------------------------------------


def band(curve: Curve, look: style.Look, name: str = "") -> Trace:
    """The interval of a curve as a closed outline: along the upper ends, back along the lower ones."""
    return {
        "name": name or f"interval of {curve.label}",
        **{"x": [*curve.x, *curve.x[::-1]], "y": [*curve.high, *curve.low[::-1]]},
        **{"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": style.faint(look.colour)},
        "hoverinfo": "skip",
    }


def line(curve: Curve, look: style.Look, **more: Any) -> Trace:
    """A curve in the look of its technique; `more` as plotly takes it."""
    return {
        **{"name": curve.label, "x": list(curve.x), "y": list(curve.value), "mode": "lines+markers"},
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"symbol": look.marker, "size": 5, "color": look.colour},
        "hovertemplate": HOVER,
        **more,
    }


def banded(curve: Curve, look: style.Look, **more: Any) -> list[Trace]:
    """A curve over its interval; `more` as plotly takes it for the curve."""
    return [band(curve, look), line(curve, look, **more)]


def points(curve: Curve, look: style.Look, size: int = 10, **more: Any) -> Trace:
    """Single points with their intervals as error bars; `more` as plotly takes it."""
    return {
        **{"name": curve.label, "x": list(curve.x), "y": list(curve.value), "mode": "markers+text"},
        "marker": {"symbol": look.marker, "size": size, "color": look.colour},
        "error_y": error_bars(curve, look.colour),
        "textfont": {"size": style.SMALL_SIZE},
        "hovertemplate": HOVER,
        **more,
    }


def error_bars(curve: Curve, colour: str, **more: Any) -> dict[str, Any]:
    """The intervals of a curve as plotly's error bars."""
    value = np.array(curve.value)
    ends = {"array": (curve.high - value).tolist(), "arrayminus": (value - curve.low).tolist()}
    return {"type": "data", "symmetric": False, **ends, "color": colour, **more}


def bars_right(names: Sequence[str], **more: Any) -> Trace:
    """Bars that grow to the right, one for each name, with a text at the end; `more` as plotly takes it."""
    look = {"type": "bar", "orientation": "h", "textposition": "outside", "cliponaxis": False}
    return {**look, "y": list(names), **more}


def sticks(places: Sequence[float], heights: Sequence[float]) -> dict[str, list[float | None]]:
    """x and y of vertical lines from 0, as one trace."""
    x = [each for place in places for each in (place, place, None)]
    return {"x": x, "y": [each for height in heights for each in (0.0, height, None)]}


def pins(curve: Curve, names: Sequence[str], middle: float) -> Trace:
    """What is pinned on the board, the newest last.

    Only the newest name is written, towards `middle` of the x axis: there is no room for all. The others show on hover.
    """
    newest = [html.escape(textwrap.shorten(name, 24, placeholder=" …")) for name in names[-1:]]
    return points(
        curve._replace(label="on the board"),
        style.LOOKS["board"],
        text=[""] * len(names[:-1]) + newest,
        textposition=[f"bottom {'left' if x > middle else 'right'}" for x in curve.x],
        hovertext=[html.escape(name) for name in names],  # plotly reads tags in text
        hovertemplate="%{hovertext}: " + HOVER,
    )


# -- axes --------------------------------------------------------------------------------------------------------------


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


def size_axis(size: SizeName, bottom: float, top: float) -> dict[str, Any]:
    """A log axis from `bottom` to `top`, both in the unit of the size."""
    ticks = log_ticks(bottom, top)
    return {
        "type": "log",
        "title": SIZE_AXES[size].title,
        "range": [math.log10(bottom), math.log10(top)],
        "tickvals": ticks,
        "ticktext": [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}" for tick in ticks],
    }


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade within the range; powers of ten only where that would be crowded."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def accuracy_axis(
    lows: Iterable[float] = (), *, step: float = 20, title: str = "validation accuracy, %"
) -> dict[str, Any]:
    """An accuracy axis, per cent, with `lows` in sight; without any, from 0.

    Its lower end is a multiple of `step`, so that a growing curve seldom moves the axis.
    """
    bottom = max(0.0, math.floor(min([*lows, 99.0]) / step) * step) - 2.0 if (lows := list(lows)) else 0.0
    every = 20 if bottom < 30 else 10 if bottom < 70 else 5
    return {"title": title, "range": [bottom, 104.0], "tickvals": [at for at in range(0, 101, every) if at >= bottom]}


def ticked(title: str, low: float, high: float) -> dict[str, Any]:
    """An axis of per cent from `low` to `high`, with some eight round ticks at most."""
    step = next((step for step in (1, 2, 5, 10) if (high - low) / step <= 8), 20)
    ticks = [tick for tick in range(0, 101, step) if low <= tick <= high]
    return {"title": title, "range": [low, high], "tickvals": ticks}


def count_axis(top: float, title: str, most: int = 10) -> dict[str, Any]:
    """An axis of whole numbers from 0 to `top` with `most` ticks or fewer."""
    step = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 200, 500, 10**9) if top / step <= most)
    return {"title": title, "range": [0, top * 1.01], "dtick": step}


# -- axes of hyper-parameters ------------------------------------------------------------------------------------------


def parameter_title(name: str) -> str:
    """What an axis calls a hyper-parameter."""
    return TITLES.get(name, name)


def unit_axis(name: str, parameter: Float | Int) -> dict[str, Any]:
    """An axis of places in the unit interval (as `parameter.encode` gives them), which shows the values there."""
    axis = value_axis(name, parameter, most=4)
    places = [parameter.encode(min(max(value, parameter.low), parameter.high)) for value in axis["tickvals"]]
    return {**axis, "type": "linear", "range": [0.0, 1.0], "tickvals": places}


def value_axis(name: str, parameter: Float | Int, margin: float = 0.01, most: int = 8) -> dict[str, Any]:
    """An axis of the values themselves, logarithmic where the parameter is.

    Beyond either end is a `margin`, as a share of the axis; `most` as in `round_values`.
    """
    values = round_values(parameter, most)
    low, high = (math.log10(end) if parameter.log else float(end) for end in (parameter.low, parameter.high))
    room, kind = margin * (high - low), "log" if parameter.log else "linear"
    ticks = {"tickvals": values, "ticktext": list(map(tick, values)), "tickangle": 0}
    return {"title": parameter_title(name), "type": kind, "range": [low - room, high + room], **ticks}


def round_values(parameter: Float | Int, most: int = 4) -> list[float]:
    """Round values of a hyper-parameter, for ticks; of many powers of ten, about `most` are kept."""
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        values = [10.0**decade for decade in decades[:: 1 + max(0, len(decades) - 1) // most]]
        if len(values) < 3:
            values = [float(f"{low * (high / low) ** (at / 4):.3g}") for at in range(5)]
    else:
        power = 10.0 ** math.floor(math.log10(high - low))
        step = power * next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / (step * power) <= 7)
        values = [step * at for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    if isinstance(parameter, Int):
        return sorted({float(round(value)) for value in values if low <= round(value) <= high})
    return values


def tick(value: float) -> str:
    """A number for an axis: powers of ten below 0.001 as such."""
    exponent = math.log10(value) if value > 0 else 0.0
    if exponent < -2.5 and abs(exponent - round(exponent)) < 1e-9:
        return f"10<sup>{exponent:.0f}</sup>"
    return f"{value:,.9g}"


# -- labels ------------------------------------------------------------------------------------------------------------


def spread(
    heights: Mapping[str, float], gap: float, low: float = -math.inf, high: float = math.inf
) -> dict[str, float]:
    """Move labels apart until any two are `gap` apart, as little as possible (least squares), within `low` .. `high`.

    The order stays. The gaps turn into "never falls" once a step of `gap` for each label is taken off: that is
    isotonic regression.
    """
    if not heights:
        return {}
    names = sorted(heights, key=heights.__getitem__)
    steps = gap * np.arange(len(names))
    placed = isotonic_regression([heights[name] for name in names] - steps).x + steps
    placed = np.minimum(placed, high - steps[::-1])
    return dict(zip(names, np.maximum(placed, low + steps).tolist(), strict=True))


def end_labels(
    names: Mapping[str, str], ends: Mapping[str, float], span: tuple[float, float], rows: int = 18
) -> list[dict[str, Any]]:
    """Annotations beside the right end of the plot: the name of each line, level with where it ends.

    Args:
        names: what is written for each line, in its own order; one without an end is written nowhere.
        ends: where lines end, in units of the y axis.
        span: lower and upper end of the y axis.
        rows: lines of text that fit above each other.
    """
    bottom, top = span
    gap = (top - bottom) / rows
    kept = {name: min(max(end, bottom), top) for name, end in ends.items()}
    placed = spread(kept, gap, bottom + gap / 3, top - gap / 3)
    place = {"xref": "paper", "x": 1.01, "xanchor": "left", "yanchor": "middle"}
    look = {"showarrow": False, "font": {"size": style.FONT_SIZE}}
    return [
        {"text": text if name in placed else "", "y": placed.get(name, bottom), **place, **look}
        for name, text in names.items()
    ]


def signed(name: str, look: style.Look) -> str:
    """A name behind the marker of its line."""
    return f"{SIGNS.get(look.marker, '—')} {name}"


def level(height: float) -> dict[str, Any]:
    """A dotted line across the plot, such as that of guessing."""
    hair = {"dash": "dot", "width": 1, "color": style.NEUTRAL}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": hair}


def counted(number: int, noun: str) -> str:
    """A number of things: "1 trial", "2 trials"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def percent(share: float) -> str:
    """A share in per cent for a bar: two digits where it is small."""
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.2g} %"
