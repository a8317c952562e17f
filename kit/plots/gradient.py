"""Figures of tuning by gradients: the tangents on the curve of the validation loss, what they need, what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kit.compress.line import Point
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel, Trace
from kit.search import Float

NAMES = {"unrolled": "unrolled", "implicit": "implicit", "differences": "finite differences"}
TRAINED, TRAIL = "really trained", "your walk"
GREY = style.Look(style.NEUTRAL, "circle", "solid")  # of the curve
REACH = 10**0.4  # a tangent is drawn so far to each side
HIGH = 5.0  # nats, or ten times the lowest: what is beyond leaves the plot, else it would flatten the others
LEAST, MOST = 0.1, 1000.0  # per cent: errors beyond are drawn at the rim


class Slope(NamedTuple):
    """A slope dV / d ln(weight decay), nats, and what it cost.

    `cost` is in gradient evaluations, `held` in numbers kept, both as in `Hypergradient`.
    """

    value: float
    cost: int
    held: int


Slopes = Mapping[str, Sequence[Slope]]  # by names of `NAMES`, with growing work; what is not known is missing


def loss_panel(
    points: Sequence[Point],
    here: Point | None,
    found: Slopes,
    at: Mapping[str, int],
    trail: Sequence[Point],
    space: Float,
    trained: str,
) -> Panel:
    """Validation loss (nats, 95 % intervals) over weight decay, and at one place the tangent of each slope.

    Args:
        points: networks really trained, `t` their weight decay, ascending.
        here: the network at the slider; None draws no tangent.
        found: slopes there.
        at: which one of each way is drawn, from 0.
        trail: networks that a walk came through, oldest first.
        space: the range of the weight decay.
        trained: how each was, for the title.
    """
    curve, you, walk = _curve(TRAINED, points), _curve("you", [here] if here else []), _curve(TRAIL, trail)
    said = {"hovertemplate": "%{fullData.name}<br>%{y:.4f} nats at %{x:.2~g}<extra></extra>"}
    traces: list[Trace] = curves.banded(curve, GREY, **said)
    labels = curves.of_curve(curve, GREY, rank=2)
    for way, name in NAMES.items():
        look, tangent = style.LOOKS[way], Curve(name)
        if here and way in found:
            rise, x = found[way][at[way]].value * math.log(REACH), (here.t / REACH, here.t, here.t * REACH)
            tangent = Curve(name, x, tuple(here.loss.value + side * rise for side in (-1, 0, 1)))
        wide = {"color": look.colour, "dash": look.dash, "width": 3}
        traces.append(curves.line(tangent, look, mode="lines", line=wide, hoverinfo="skip", hovertemplate=None))
        labels += curves.of_curve(tangent, look)
    thin = {"color": style.LOOKS["you"].colour, "width": 1.5, "dash": "dot"}
    traces.append(curves.line(walk, style.LOOKS["you"], line=thin, **said))
    rows = [row for each in (curve, you) for row in zip(each.value, each.low, each.high, strict=True)]
    most = max(HIGH, 10 * min(rows, default=(0.0,))[0])
    ends = [end for value, *both in rows if value <= most for end in both] or [0.0, 1.0]
    room = 0.04 * (max(ends) - min(ends))  # the axis is the curve's: a steep tangent leaves the plot
    y = {"title": "validation loss, nats", "range": [min(ends) - room, max(ends) + room], "nticks": 8}
    title = f"Validation loss after {trained}, and the slopes found (✖ you are here)"
    layout = style.layout(title, 330, curves.value_axis("weight_decay", space), y)
    return Panel(traces, layout, (curve, you), tuple(labels))


def slopes_panel(found: Slopes, at: Mapping[str, int], most: int) -> Panel:
    """Slope dV / d ln(weight decay), nats, against the number of steps gone back, or of terms.

    Args:
        found: slopes after 0, 1, 2 ... steps back ("unrolled"), after 1, 2, 3 ... terms ("implicit"), and the one of
            "differences"; what is missing is not drawn.
        at: your place in each series, from 0.
        most: steps of a training: the width of the axis.
    """
    traces, labels, first = list[Trace](), list[Label](), {"unrolled": 0, "implicit": 1}
    for way, begin in first.items():
        look, values = style.LOOKS[way], tuple(each.value for each in found.get(way, ()))
        drawn = Curve(NAMES[way], tuple(range(begin, begin + len(values))), values)
        mine = Curve("you", drawn.x[at[way] :][:1], drawn.value[at[way] :][:1]) if values else Curve("you")
        said = f"{NAMES[way]}: %{{y:+.3g}} nats after %{{x}}<extra></extra>"
        traces.append(curves.line(drawn, look, mode="lines", hovertemplate=said))
        traces.append(_mark(mine, look, said))
        labels += curves.of_curve(drawn, look)
    own, heights = style.LOOKS["differences"], [each.value for each in found.get("differences", ())]
    hair = {"color": own.colour, "dash": own.dash, "width": 1.5}
    levels = [curves.level(height) | {"line": hair} for height in heights]
    labels += [Label(curves.signed(NAMES["differences"], own), y=height, colour=own.colour) for height in heights]
    unrolled = [0.0, *(each.value for each in found.get("unrolled", ()))]
    low, high = min(unrolled), max(unrolled)
    room = 0.35 * (high - low) or 1e-3
    y = {"title": "slope, nats", "range": [low - room, high + room], "nticks": 6}
    x = curves.count_axis(most, "steps gone back, or terms", 6)
    shapes, margin = [curves.level(0.0), *levels], {**style.MARGIN, "l": 80}  # room for small numbers
    layout = style.layout("Slope against the work put in", 220, x, y, shapes=shapes, margin=margin)
    return Panel(traces, layout, labels=tuple(labels))


def cost_panel(found: Slopes, at: Mapping[str, int]) -> Panel:
    """How far each slope is off (per cent of the exact one) against its cost in gradient evaluations.

    Args:
        found: by names of `WAYS`, with growing cost; the last one of "unrolled", through all steps, is exact.
        at: your place in each, from 0; its name says how many numbers are kept in memory.
    """
    traces, labels = list[Trace](), list[Label]()
    exact = found["unrolled"][-1].value if found else 0.0
    for way, name in NAMES.items():
        look, rows = style.LOOKS[way], [each for each in found.get(way, ()) if exact]
        off = [min(max(100 * abs(each.value / exact - 1), LEAST), MOST) for each in rows]
        costs = [max(each.cost, 1) for each in rows]  # no step back costs nothing, and is drawn at the rim
        drawn, here = Curve(name, tuple(costs), tuple(off)), slice(at.get(way, 0), at.get(way, 0) + 1)
        mine = Curve("you", drawn.x[here], drawn.value[here])
        said = f"{name}: off by %{{y:.3~g}} %<br>for %{{x}} gradient evaluations<extra></extra>"
        traces += [curves.line(drawn, look, mode="lines", hovertemplate=said), _mark(mine, look, said)]
        for cost, error, row in zip(mine.x, mine.value, rows[here], strict=True):
            text = f"{curves.signed(name, look)}\nkeeps {curves.counted(row.held, 'number')}"
            labels.append(Label(text, cost, error, colour=look.colour))
    ticks = {"tickvals": [0.1, 1, 10, 100, 1000], "ticktext": ["≤ 0.1", "1", "10", "100", "≥ 1000"]}
    y = {"title": "slope off by, %", "type": "log", "range": [-1.3, 3.3], **ticks}
    dear = max([each.cost for rows in found.values() for each in rows] or [100])
    x = {"type": "log", "range": [-0.05, math.log10(2.5 * dear)], "tickvals": curves.log_ticks(1, 2 * dear)}
    title = "What a slope costs, and how far it is off"
    layout = style.layout(title, 220, {**x, "title": "gradient evaluations"}, y)
    return Panel(traces, layout, labels=tuple(labels))


def place(point: Point) -> list[float]:
    """Where a network stands in the main figure: x, y, low, high."""
    return [point.t, point.loss.value, point.loss.low, point.loss.high]


def _curve(label: str, points: Sequence[Point]) -> Curve:
    return Curve(label, *zip(*map(place, points), strict=True)) if points else Curve(label)


def _mark(curve: Curve, look: style.Look, said: str) -> Trace:
    marker = {"symbol": look.marker, "size": 11, "color": look.colour}
    return curves.line(curve, look, mode="markers", marker=marker, hovertemplate=said)
