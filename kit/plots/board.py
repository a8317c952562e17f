"""The trade-off board as a picture: every pin, the Pareto front, and a name at each pin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kit.measure import Estimate, SizeName
from kit.plots import curves, style
from kit.plots.curves import SIZE_AXES, Curve, Label, Panel, Trace

if TYPE_CHECKING:
    from pandas import DataFrame

TECHNIQUES = ("dense", "pruning", "distillation", "compression", "search", "other")
MAX_LABELS = 30


class Pin(NamedTuple):
    """One pin; its size in the axis' unit."""

    name: str
    technique: str
    size: float
    accuracy: Estimate
    on_front: bool
    batch_size: int


def board_pins(rows: DataFrame, front: DataFrame, size: SizeName) -> tuple[Pin, ...]:
    """The pins of a board, smallest first.

    Args:
        rows: as `board.frame` gives them.
        front: those of them on the front, as `board.front` gives them.
        size: which size.
    """
    smallest = 1e-3 if size == "latency" else 1.0  # a log axis has no 0
    sizes = rows[size].astype(float).clip(lower=smallest)
    accuracies = map(Estimate, rows["accuracy"], rows["accuracy_low"], rows["accuracy_high"], rows["n"])
    on_front, batches = rows["name"].isin(front["name"]), rows["batch_size"].astype(int)
    made = map(Pin, rows["name"], rows["technique"], sizes, accuracies, on_front, batches)
    return tuple(sorted(made, key=lambda pin: (pin.size, pin.accuracy.value)))


def board_panel(pins: Sequence[Pin], size: SizeName, chance: float) -> Panel:
    """Accuracy (per cent, with 95 % intervals) against a size (log axis): all pins, and the front as steps.

    Args:
        pins: smallest first.
        size: of the x axis.
        chance: accuracy of guessing, per cent.
    """
    lowest = 100 * min((pin.accuracy.low for pin in pins), default=0.0)
    low = max(0.0, math.floor(lowest - 0.35 * (107 - lowest)))  # room for names
    x = curves.size_axis(size, [0.8 * pins[0].size, 1.3 * pins[-1].size] if pins else [1, 1000])
    y, at = curves.ticked("validation accuracy, %", low, 107.0), SIZE_AXES[size].at
    layout = style.layout("The board", 430, x, y, shapes=[curves.level(chance)], **style.legend_above(52))
    traces = [_front(pins, size, 10 ** x["range"][1]), *(_points(technique, pins, at) for technique in TECHNIQUES)]
    curved = tuple(Curve.of(pin.name, [(pin.size, pin.accuracy)]) for pin in pins)
    return Panel(traces, layout, curved, (*_names(pins), *[Label("guessing", y=chance, rank=99)] * (chance >= low)))


def _names(pins: Sequence[Pin]) -> list[Label]:
    """Names of pins, those on the front first."""
    ordered = sorted(pins, key=lambda pin: not pin.on_front)[:MAX_LABELS]
    texts = ["\n".join(curves.short_name(pin.name)) for pin in ordered]
    places = [(pin.size, 100 * pin.accuracy.value) for pin in ordered]
    return [Label(text, *place, rank=at) for at, (text, place) in enumerate(zip(texts, places, strict=True))]


def _points(technique: str, pins: Iterable[Pin], at: str) -> Trace:
    """The pins of a technique; words of the reader's own share one look."""
    own = [pin for pin in pins if (pin.technique if pin.technique in TECHNIQUES else "other") == technique]
    said = (pin.name if pin.technique == technique else f"{pin.name} ({pin.technique})" for pin in own)
    look = style.LOOKS[technique]
    curve = Curve.of(technique, ((pin.size, pin.accuracy) for pin in own), said)
    bars = curves.error_bars(curve, look.colour, thickness=1.5, width=4)
    return curves.points(curve, look, 11, at, error_y=bars, showlegend=bool(own))


def _front(pins: Sequence[Pin], size: SizeName, right: float) -> Trace:
    """The front as steps: the best accuracy that a size or less buys.

    Latencies of different batch sizes are not compared: each batch size has a line of its own, None between them.
    """
    x: list[float | None] = []
    y: list[float | None] = []
    front = [pin for pin in pins if pin.on_front]
    batches = sorted({pin.batch_size for pin in front}) if size == "latency" else [None]
    for corners in ([pin for pin in front if batch in (None, pin.batch_size)] for batch in batches if front):
        x += [None] * bool(x) + [pin.size for pin in corners] + [right]
        y += [None] * bool(y) + [100 * pin.accuracy.value for pin in (*corners, corners[-1])]
    return {
        **{"name": "Pareto front", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip", "showlegend": bool(x)},
        "line": {"color": style.NEUTRAL, "width": 2, "shape": "hv"},
    }
