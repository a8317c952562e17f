"""The trade-off board as a picture: every pin, the Pareto front, and a name at each pin."""

from __future__ import annotations

import html
import itertools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.measure import Estimate, SizeName
from kit.plots import curves, style
from kit.plots.curves import SIZE_AXES, Curve, Panel, Trace

if TYPE_CHECKING:
    from pandas import DataFrame

TECHNIQUES = ("dense", "pruning", "distillation", "compression", "search", "other")
MAX_LABELS = 30
LABEL_LETTERS = 26  # a line of a label
CROSSING = 60.0  # pixels of a leader that one crossing is worth
_WIDTH, _HEIGHT = 500, 320  # of the plot in a window of 1280 pixels: where labels must not meet


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
    sizes = rows[size].astype(float).clip(lower=smallest) / SIZE_AXES[size].divisor
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
    left, right, low, high = window = _window(pins)
    guessing = {"text": "guessing", "xref": "paper", "x": 0.005, "y": chance, "xanchor": "left"}
    marks = [{**guessing, "yanchor": "bottom", "showarrow": False, "visible": chance >= low}, *_labels(pins, window)]
    marks += [{"text": "", "x": math.log10(left), "y": low, "visible": False}] * (MAX_LABELS + 1 - len(marks))
    x, y = curves.size_axis(size, left, right), curves.ticked("validation accuracy, %", low, high)
    level, title = curves.level(chance), "The board: accuracy against size"
    layout = style.layout(title, 430, x, y, shapes=[level], annotations=marks, **style.legend_above(76))
    layout["legend"] |= {"x": 0, "xanchor": "left"}
    traces = [_front(pins, size, right), *(_points(technique, pins) for technique in TECHNIQUES)]
    return Panel(traces, layout, tuple(Curve.of(pin.name, [(pin.size, pin.accuracy)]) for pin in pins))


def _points(technique: str, pins: Iterable[Pin]) -> Trace:
    """The pins of a technique; words of the reader's own share one look."""
    own = [pin for pin in pins if (pin.technique if pin.technique in TECHNIQUES else "other") == technique]
    curve, look = Curve.of(technique, ((pin.size, pin.accuracy) for pin in own)), style.LOOKS[technique]
    said = [html.escape(f"{pin.name} ({pin.technique})", quote=False) for pin in own]
    hover, bars = "%{hovertext}: " + curves.BARE_HOVER, curves.error_bars(curve, look.colour, thickness=1.5, width=4)
    texts = {"hovertext": said, "hovertemplate": hover, "showlegend": bool(own)}
    return curves.points(curve, look, 11, mode="markers", error_y=bars, **texts)


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


def _window(pins: Sequence[Pin]) -> tuple[float, float, float, float]:
    """Ends of both axes: all pins with their intervals, and room for labels. Left, right, bottom, top."""
    if not pins:
        return 1.0, 1000.0, 0.0, 104.0
    smallest, largest, lowest = pins[0].size, pins[-1].size, 100 * min(pin.accuracy.low for pin in pins)
    room = max(1.6, (largest / smallest) ** 0.1)
    return smallest / room, largest * room, max(0.0, math.floor(lowest - 0.35 * (104 - lowest))), 104.0


# -- labels ------------------------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def short_name(name: str) -> tuple[str, ...]:
    """A name in at most two lines of `LABEL_LETTERS` letters, broken at a comma or blank, its middle left out."""
    if len(name) <= LABEL_LETTERS:
        return (name,)
    cuts = [at + 1 for at, letter in enumerate(name) if letter in ", " and at < LABEL_LETTERS]
    cut = max(cuts, default=LABEL_LETTERS)
    first, rest = name[:cut].strip(), name[cut:].strip()
    return (first, rest if len(rest) <= LABEL_LETTERS else "…" + rest[1 - LABEL_LETTERS :].strip())


def _labels(pins: Iterable[Pin], window: tuple[float, float, float, float]) -> list[dict[str, Any]]:
    """Annotations of the pins that have room for one: those on the front first, then the smallest."""
    left, right, low, high = window
    ordered = sorted(pins, key=lambda pin: not pin.on_front)
    names = [short_name(pin.name) for pin in ordered]
    across = [_WIDTH * math.log10(pin.size / left) / math.log10(right / left) for pin in ordered]
    down = [_HEIGHT * (high - 100 * pin.accuracy.value) / (high - low) for pin in ordered]
    points = list(zip(across, down, strict=True))
    boxes = [(max(map(_text_width, lines)), 15.0 * len(lines)) for lines in names]
    placed = zip(ordered, names, place_labels(points, boxes, _WIDTH, _HEIGHT), strict=True)
    return [
        {
            "text": "<br>".join(html.escape(line, quote=False) for line in lines),
            **{"x": math.log10(pin.size), "y": 100 * pin.accuracy.value, "ax": at[0], "ay": at[1]},
            **{"visible": True, "showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": style.NEUTRAL},
            **{"standoff": 7, "font": {"size": style.SMALL_SIZE}},
        }
        for pin, lines, at in placed
        if at is not None
    ][:MAX_LABELS]


def _text_width(text: str) -> float:
    return sum(12.5 if unicodedata.east_asian_width(letter) in "WF" else 6.8 for letter in text) + 4


def place_labels(
    points: Sequence[tuple[float, float]], boxes: Sequence[tuple[float, float]], width: float, height: float
) -> list[tuple[float, float] | None]:
    """Where each label goes so that none covers another, or a point: offsets of its middle from its point.

    Each label in turn takes the nearest free place around its point; a leader that crosses another label or
    leader counts as far away.

    Args:
        points: in pixels from the plot's upper left corner.
        boxes: width and height of each label, in pixels.
        width: of the plot.
        height: of the plot.

    Returns:
        One offset (right, down) a label in pixels, None where no place is free.
    """
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]  # the markers, then the labels
    leaders: list[Box] = []
    chosen: list[tuple[float, float] | None] = []
    for (x, y), (wide, high) in zip(points, boxes, strict=True):
        tried: list[tuple[float, Box, Box]] = []
        for length, across, down in _around(wide, high):
            if tried and length >= min(tried)[0]:
                break
            leader, box = (x, y, x + across, y + down), _box(x + across, y + down, wide, high)
            inside = min(box) >= 0 and box[2] <= width and box[3] <= height
            if inside and not any(_meet(box, other) for other in taken):
                lines = [line for label in taken[len(points) :] for line in _diagonals(label)]
                crossings = sum(_cross(leader, line) for line in (*lines, *leaders))
                crossings += sum(_cross(other, line) for other in leaders for line in _diagonals(box))
                tried.append((length + CROSSING * crossings, leader, box))
        chosen.append(None)
        if tried:
            _, leader, box = min(tried)
            chosen[-1] = (leader[2] - x, leader[3] - y)
            taken.append(box)
            leaders.append(leader)
    return chosen


def _around(wide: float, high: float) -> list[tuple[float, float, float]]:
    """Places to try for a label of this size, nearest first: length of the leader, right, down."""
    beside, over = wide / 2 + 11, high / 2 + 11
    columns = [across * wide / 4 for across in range(-6, 7)] + [beside, -beside]
    rows = [0.0, *(sign * (over + step * high / 2) for sign in (1, -1) for step in range(20))]
    return sorted(
        (math.hypot(max(abs(across) - wide / 2, 0), max(abs(down) - high / 2, 0)) + 0.05 * abs(across), across, down)
        for across, down in itertools.product(columns, rows)
    )


def _box(x: float, y: float, wide: float, high: float) -> Box:
    return (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _diagonals(box: Box) -> tuple[Box, Box]:
    """A line that crosses one of them crosses the box, or nearly so."""
    return box, (box[0], box[3], box[2], box[1])


def _cross(one: Box, other: Box) -> bool:
    """Whether two lines, each from its first to its second point, cross."""

    def side(line: Box, x: float, y: float) -> bool:
        return (line[2] - line[0]) * (y - line[1]) > (line[3] - line[1]) * (x - line[0])

    return side(one, *other[:2]) != side(one, *other[2:]) and side(other, *one[:2]) != side(other, *one[2:])
