"""What every figure is made of: panels, measured curves with their bands, axes, and names.

A panel is a whole figure as plain data: traces with their looks, and layout. Each `x_panel(...)` of this package turns
numbers into one; tests read it without pixels, and an explorer sends only what differs from the panel before.
"""

from __future__ import annotations

import html
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from kit.measure import Estimate, SizeName
from kit.plots import style
from kit.search.space import Float, Int

Trace = dict[str, Any]

HOVER = "%{fullData.name}<br>%{y:.1f} % at %{x:.4~g}<extra></extra>"
TITLES = {
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "width": "hidden units",
}
SIGNS = {"circle": "●", "square": "■", "diamond": "◆", "star": "★", "x": "✖", "triangle-up": "▲", "triangle-down": "▼"}
ACCURACIES = (0, 20, 40, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5)  # ticks of `error_axis`, per cent
LEAST_ERROR = 0.5  # per cent: a logarithm needs one


class Curve(NamedTuple):
    """A measured curve, or single points, with 95 % intervals."""

    label: str  # its name in the figure and in the table
    x: tuple[float, ...] = ()  # in the unit of its axis
    value: tuple[float, ...] = ()  # per cent, as are the ends of the intervals
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    said: tuple[str, ...] = ()  # what each point is, where that needs saying: shown under the mouse

    @classmethod
    def of(cls, label: str, points: Iterable[tuple[float, Estimate]], said: Iterable[str] = ()) -> Curve:
        """A curve of measured shares, in the order given: pairs of x and an estimate in 0 .. 1."""
        known = [(x, *(100 * share for share in (each.value, each.low, each.high))) for x, each in points]
        return cls(label, *zip(*known, strict=True))._replace(said=tuple(said)) if known else cls(label)


class Label(NamedTuple):
    """A name in a figure; the page, which knows how wide texts are, finds room for it (`explorers/static/labels.js`).

    It stands beside the point at `x` and `y`; or anywhere along the trace called `curve`; or, where there is a `y`
    alone, along that height, and with `end` beside the right end of the plot. Where there is no room it is left out.
    """

    text: str  # plain; a line break makes two lines
    x: float | None = None  # in units of the axes
    y: float | None = None
    curve: str = ""
    end: bool = False
    rank: int = 0  # the lowest is placed first
    colour: str = ""  # of its first letter, a curve's sign


@dataclass(frozen=True)
class Panel:
    """A whole figure: traces and layout as plotly takes them.

    Always as many traces, empty or not: plotly cannot add one while it changes another.
    """

    traces: Sequence[Trace]
    layout: dict[str, Any]
    curves: tuple[Curve, ...] = ()  # the numbers that it shows, for a reader who wants them as a table
    labels: tuple[Label, ...] = ()

    @property
    def figure(self) -> go.Figure:
        """The figure, to show outside of an explorer: names stand where they belong, also over one another."""
        return go.Figure(list(self.traces), {**self.layout, "annotations": list(map(self._annotation, self.labels))})

    def _annotation(self, label: Label) -> dict[str, Any]:
        trace = next((each for each in self.traces if label.curve and each.get("name") == label.curve), {})
        x, y = label.x, label.y
        if trace.get("x"):
            middle = len(trace["x"]) // 2
            x, y = trace["x"][middle], trace["y"][middle]
        x, y = (
            math.log10(at) if at and self.layout[axis].get("type") == "log" else at
            for axis, at in (("xaxis", x), ("yaxis", y))
        )
        place: dict[str, Any] = {"x": x, "y": y, "yanchor": "bottom"}
        if x is None:
            place |= {"xref": "paper", "x": 1.0 * label.end, "xanchor": "left"}
        if label.end:
            place["yanchor"] = "middle"
        return {"text": html.escape(label.text, quote=False).replace("\n", "<br>"), "showarrow": False, **place}


# -- traces ------------------------------------------------------------------------------------------------------------


def band(curve: Curve, look: style.Look, name: str = "") -> Trace:
    """The interval of a curve as a closed outline: along the upper ends, back along the lower ones."""
    return {
        "name": name or f"interval of {curve.label}",
        **{"x": [*curve.x, *curve.x[::-1]], "y": [*curve.high, *curve.low[::-1]]},
        **{"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": style.faint(look.colour)},
        "hoverinfo": "skip",
    }


def line(curve: Curve, look: style.Look, at: str = "at %{x:.4~g}", **more: Any) -> Trace:
    """A curve in the look of its technique; `at` as in `hover`, `more` as plotly takes it."""
    return {
        **{"name": curve.label, "x": list(curve.x), "y": list(curve.value), "mode": "lines+markers"},
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"symbol": look.marker, "size": 5, "color": look.colour},
        **hover(curve, at),
        **more,
    }


def hover(curve: Curve, at: str) -> Trace:
    """What is said under the mouse: what a point is, its value with its interval, and where it is (`at`)."""
    columns: list[Sequence[Any]] = [[round(end, 1) for end in ends] for ends in (curve.low, curve.high)]
    wrapped = (textwrap.wrap(each, 36) for each in curve.said)  # as wide as the smallest figure
    said = ["<br>".join(html.escape(line, quote=False) for line in lines) for lines in wrapped]  # plotly reads tags
    columns += [said] * bool(said)
    what = "%{fullData.name}" + ": %{customdata[2]}" * bool(said)
    value = "%{y:.1f} % (%{customdata[0]} to %{customdata[1]})"
    return {
        "customdata": [list(row) for row in zip(*columns, strict=True)],
        "hovertemplate": f"{what}<br>{value}<br>{at}<extra></extra>",
    }


def banded(curve: Curve, look: style.Look, **more: Any) -> list[Trace]:
    """A curve over its interval; `more` as `line` takes it."""
    return [band(curve, look), line(curve, look, **more)]


def points(curve: Curve, look: style.Look, size: Any = 10, at: str = "at %{x:.4~g}", **more: Any) -> Trace:
    """Single points with their intervals as error bars; `at` as in `hover`, `more` as plotly takes it."""
    return {
        **{"name": curve.label, "x": list(curve.x), "y": list(curve.value), "mode": "markers"},
        "marker": {"symbol": look.marker, "size": size, "color": look.colour},
        "error_y": error_bars(curve, look.colour),
        **hover(curve, at),
        **more,
    }


def error_bars(curve: Curve, colour: str, **more: Any) -> dict[str, Any]:
    """The intervals of a curve as plotly's error bars."""
    value = np.array(curve.value)
    ends = {"array": (curve.high - value).tolist(), "arrayminus": (value - curve.low).tolist()}
    return {"type": "data", "symmetric": False, **ends, "color": colour, **more}


def bars_right(names: Sequence[str | int], **more: Any) -> Trace:
    """Bars that grow to the right, one for each name or place, with a text at the end; `more` as plotly takes it."""
    look = {"type": "bar", "orientation": "h", "textposition": "outside", "constraintext": "none", "cliponaxis": False}
    return {**look, "y": list(names), **more}


def point_right(curve: Curve, look: style.Look) -> Trace:
    """A point in the row of its name, with its interval along x; none of an empty curve."""
    return {
        **{"name": curve.label, "mode": "markers", "x": list(curve.value), "y": [curve.label] * len(curve.x)},
        "marker": {"symbol": look.marker, "size": 11, "color": look.colour},
        "error_x": error_bars(curve, look.colour, thickness=2.5, width=7),
        "hovertemplate": "%{y}: %{x:.1f} % (%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>",
        "customdata": [list(ends) for ends in zip(curve.low, curve.high, strict=True)],
    }


def sticks(places: Sequence[float], heights: Sequence[float]) -> dict[str, list[float | None]]:
    """x and y of vertical lines from 0, as one trace."""
    x = [each for place in places for each in (place, place, None)]
    return {"x": x, "y": [each for height in heights for each in (0.0, height, None)]}


def pins(curve: Curve, at: str) -> Trace:
    """What is pinned on the board; the newest, the last, is large and has its interval. `at` as in `hover`."""
    older, look = len(curve.x) - 1, style.LOOKS["board"]
    fade = {"symbol": look.marker, "color": look.colour, "size": [6] * older + [10], "opacity": [0.5] * older + [1]}
    bars = error_bars(curve, look.colour, width=0)  # without caps, which an interval of no width would have
    for ends in (bars["array"], bars["arrayminus"]):
        ends[:older] = [0.0] * older
    return points(curve._replace(label="on the board"), look, at=at, marker=fade, error_y=bars)


def newest(pins: Curve) -> list[Label]:
    """The name of the newest pin; the others show theirs under the mouse: there is no room for all."""
    places = zip(pins.said, pins.x, pins.value, strict=True)
    return [Label("\n".join(short_name(name)), x, y, rank=2) for name, x, y in [*places][-1:]]


# -- axes --------------------------------------------------------------------------------------------------------------


PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str) -> str:
    """A number of a unit in three digits: `13.5 GB`."""
    factor, prefix = next((each for each in PREFIXES if value >= 0.9995 * each[0]), (1.0, ""))
    return f"{three_digits(value / factor)} {prefix}{unit}"


def three_digits(value: float) -> str:
    """All digits before the point, at least three."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


class SizeAxis(NamedTuple):
    """How a size is written: axis title, a point's size under the mouse."""

    title: str
    at: str


SIZE_AXES: dict[SizeName, SizeAxis] = {
    "nonzeros": SizeAxis("parameters that are not zero", "%{x:,.0f} parameters not zero"),
    "file_bytes": SizeAxis("file", "file of %{x:.3~s}B"),
    "flops": SizeAxis("FLOPs for one sample", "%{x:.3~s} FLOPs"),
    "latency": SizeAxis("latency, ms", "%{x:.3~r} ms"),
}
SMALLEST = 1e-3  # of the dense model: where a size of 0 is drawn, since a log axis has none


def size_axis(size: SizeName, sizes: Iterable[float]) -> dict[str, Any]:
    """A log axis on which `sizes` are seen; ticks of files have their unit, from bytes to gigabytes.

    The lower end is a tick, 1, 2 or 5 of a decade, so that it seldom moves while a curve grows.
    """
    sizes = [*sizes] or [1.0]
    largest = max(sizes)
    lowest = 0.9 * min(*sizes, largest / 2)
    decade = 10.0 ** math.floor(math.log10(lowest))
    bottom, top = max(step * decade for step in (1, 2, 5) if step * decade <= lowest), 1.6 * largest
    ticks = log_ticks(bottom, top)
    return {
        "type": "log",
        "title": SIZE_AXES[size].title,
        "range": [math.log10(bottom), math.log10(top)],
        "tickvals": ticks,
        "ticktext": [amount(tick, "B") if size == "file_bytes" else _short(tick) for tick in ticks],
        "tickangle": 0,
    }


def _short(tick: float) -> str:
    return amount(tick, "").replace(" ", "")


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade within the range; powers of ten only where that would be crowded."""
    steps = (1, 2, 5) if high / low < 100 else (1,)
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


def error(accuracy: float) -> float:
    """Where an accuracy stands on `error_axis`; both per cent."""
    return max(100 - accuracy, LEAST_ERROR)


def error_axis(accuracies: Iterable[float]) -> dict[str, Any]:
    """An axis of accuracies, per cent, by the logarithm of their error: the best of many differ little in accuracy.

    Traces and marks stand at their `error`; the ticks say the accuracy.
    """
    errors = [error(each) for each in accuracies]
    ends = [1.1 * max(errors), min(errors) / 1.35]  # with room for an interval over the best
    ticks = [each for each in ACCURACIES if ends[1] <= error(each) <= ends[0]]
    axis = {"type": "log", "title": "validation accuracy, % (log error)", "range": [math.log10(end) for end in ends]}
    return {**axis, "tickvals": [error(each) for each in ticks], "ticktext": [f"{each:g}" for each in ticks]}


def incumbent_axis(best: float | None) -> dict[str, Any]:
    """An axis of incumbents' accuracy, per cent: the best 30 points, where searches differ; less enters from below.

    Args:
        best: what can be reached, share 0 .. 1; None where it is not known.
    """
    bottom = 5.0 * math.floor(max(0.0, 100 * (1.0 if best is None else best) - 30) / 5)
    return {"title": "incumbent's accuracy, %", "range": [bottom, 101.5], "tickvals": list(range(0, 101, 10))}


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


# -- names -------------------------------------------------------------------------------------------------------------

NAME_LETTERS = 26  # a line of a name


def short_name(name: str) -> tuple[str, ...]:
    """A name in at most two lines of `NAME_LETTERS` letters, broken at a comma or blank, its middle left out."""
    if len(name) <= NAME_LETTERS:
        return (name,)
    cuts = [at + 1 for at, letter in enumerate(name) if letter in ", " and at < NAME_LETTERS]
    cut = max(cuts, default=NAME_LETTERS)
    first, rest = name[:cut].strip(), name[cut:].strip()
    return (first, rest if len(rest) <= NAME_LETTERS else "…" + rest[1 - NAME_LETTERS :].strip())


def short(name: str, letters: int = 16) -> str:
    """A name in one line: of a long one like `encoder.blocks.12.proj` the first words are cut, then its middle."""
    parts = re.split(r"([._])", name)
    for keep, at in itertools.product((3, 1), range(len(parts) - 1)):
        if sum(map(len, parts)) > letters and parts[at].isalpha():
            parts[at] = parts[at][:keep]
    name = "".join(parts)
    return name if len(name) <= letters else f"{name[: letters // 2 - 1]}…{name[-letters // 2 :]}"


def of_curve(curve: Curve, look: style.Look, name: str = "", **more: Any) -> list[Label]:
    """The name of a curve behind its sign, anywhere along it; none of an empty one. `more` as `Label` takes it."""
    label = Label(signed(name or curve.label, look), curve=curve.label, colour=look.colour, **more)
    return [label] * bool(curve.x)


def at_end(curve: Curve, look: style.Look, name: str = "", **more: Any) -> list[Label]:
    """The name of a curve behind its sign, beside its right end; none of an empty one."""
    text = name or signed(curve.label, look)
    return [Label(text, y=y, end=True, colour=look.colour, **more) for y in curve.value[-1:]]


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
