"""The trade-off board as a picture: every pin, the Pareto front, and a name at each pin."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import plotly.graph_objects as go

from kit.measure import SizeName
from kit.plots import style
from kit.plots.prune import SIZE_AXES, Traces, dressed, size_axis

if TYPE_CHECKING:
    from pandas import DataFrame

TECHNIQUES = ("dense", "pruning", "distillation", "compression", "search", "other")
MAX_LABELS = 30
LABEL_LETTERS = 26  # a line of a label
CROSSING = 60.0  # pixels of a leader that one crossing is worth
_WIDTH, _HEIGHT = 500, 320  # of the plot in a window of 1280 pixels: where labels must not meet


class Pin(NamedTuple):
    """One pin: size in the axis' unit, accuracies in per cent."""

    name: str
    technique: str
    size: float
    accuracy: float
    low: float
    high: float
    on_front: bool
    batch_size: int


class BoardInfo(NamedTuple):
    """What is pinned for one data set.

    Attributes:
        size: the size on the x axis.
        pins: smallest first.
        chance: accuracy of guessing, per cent.
    """

    size: SizeName
    pins: tuple[Pin, ...]
    chance: float


def board_info(pins: DataFrame, front: DataFrame, size: SizeName, chance: float) -> BoardInfo:
    """Gather rows of the board.

    Args:
        pins: as `board.frame` gives them.
        front: those of them on the front, as `board.front` gives them.
        size: which size.
        chance: accuracy of guessing, per cent.
    """
    smallest = 1e-3 if size == "latency" else 1.0  # a log axis has no 0
    names = set(front["name"])
    made = [
        Pin(
            row["name"],
            row["technique"],
            max(float(row[size]), smallest) / SIZE_AXES[size].divisor,
            100 * row["accuracy"],
            100 * row["accuracy_low"],
            100 * row["accuracy_high"],
            row["name"] in names,
            int(row["batch_size"]),
        )
        for row in pins.to_dict("records")
    ]
    return BoardInfo(size, tuple(sorted(made, key=lambda pin: (pin.size, pin.accuracy))), chance)


def look(technique: str) -> style.Look:
    """How pins of a technique are drawn; words of the reader's own share one look."""
    return style.LOOKS[technique if technique in TECHNIQUES else "other"]


def front_line(info: BoardInfo) -> tuple[list[float | None], list[float | None]]:
    """Corners of the front, to be drawn as steps: the best accuracy that a size or less buys.

    Latencies of different batch sizes are not compared: each batch size has a line of its own, None between them.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    right = _ends(info)[1]
    on_front = [pin for pin in info.pins if pin.on_front]
    batches = sorted({pin.batch_size for pin in on_front}) if info.size == "latency" else [None]
    for batch in batches if on_front else ():
        corners = [pin for pin in on_front if batch is None or pin.batch_size == batch]
        xs += [None] * bool(xs) + [pin.size for pin in corners] + [right]
        ys += [None] * bool(ys) + [pin.accuracy for pin in corners] + [corners[-1].accuracy]
    return xs, ys


def board_traces(info: BoardInfo) -> Traces:
    """Arrays of the traces: the front, then the pins of each of `TECHNIQUES`."""
    xs, ys = front_line(info)
    traces: Traces = [{"x": xs, "y": ys, "showlegend": bool(xs)}]
    for technique in TECHNIQUES:
        pins = [
            pin
            for pin in info.pins
            if pin.technique == technique or (technique == "other" and pin.technique not in TECHNIQUES)
        ]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [pin.high - pin.accuracy for pin in pins],
            "arrayminus": [pin.accuracy - pin.low for pin in pins],
        }
        traces.append(
            {
                "x": [pin.size for pin in pins],
                "y": [pin.accuracy for pin in pins],
                "error_y": error,
                "hovertext": [f"{pin.name} ({pin.technique})" for pin in pins],
                "showlegend": bool(pins),
            }
        )
    return traces


def board_layout(info: BoardInfo) -> dict[str, Any]:
    """What changes of the layout: both axes, the line of guessing, and the labels (always `MAX_LABELS` + 1)."""
    (left, right), (low, high) = _ends(info), _reach(info)
    inside = info.chance >= low
    guessing = {"text": "guessing", "xref": "paper", "x": 0.005, "y": info.chance, "xanchor": "left"}
    marks = [{**guessing, "yanchor": "bottom", "showarrow": False, "visible": inside}]
    marks += [_label(pin, at) for pin, at in zip(*_labels(info), strict=True)]
    marks += [{"text": "", "x": math.log10(left), "y": low, "visible": False}] * (MAX_LABELS + 1 - len(marks))
    step = next(step for step in (2, 5, 10, 20) if (high - low) / step <= 8)
    return {
        "xaxis": size_axis(info.size, left, right),
        "yaxis": {"range": [low, high], "tickvals": [tick for tick in range(0, 101, step) if tick >= low]},
        "annotations": marks,
    }


def board_figure(info: BoardInfo) -> go.Figure:
    """Accuracy (per cent, with 95 % intervals) against a size (log axis): all pins, and the front as steps."""
    hover = "%{hovertext}: %{y:.1f} % at %{x:.4~g}<extra></extra>"
    steps = {"color": style.NEUTRAL, "width": 2, "shape": "hv"}
    fixed: Traces = [{"name": "Pareto front", "mode": "lines", "line": steps, "hoverinfo": "skip"}]
    for technique in TECHNIQUES:
        drawn = look(technique)
        fixed.append(
            {
                "name": technique,
                "mode": "markers",
                "marker": {"symbol": drawn.marker, "size": 11, "color": drawn.colour},
                "error_y": {"color": drawn.colour, "thickness": 1.5, "width": 4},
                "hovertemplate": hover,
            }
        )
    data = [dressed(drawing, arrays) for drawing, arrays in zip(fixed, board_traces(info), strict=True)]
    layout = board_layout(info)
    hair = {"dash": "dot", "width": 1, "color": style.NEUTRAL}
    return style.figure(
        data,
        title="The board: accuracy against size",
        height=430,
        x={"type": "log", **layout.pop("xaxis")},
        y={"title": "validation accuracy, %", **layout.pop("yaxis")},
        shapes=[
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": info.chance, "y1": info.chance, "line": hair}
        ],
        **layout,
    ).update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom", "itemclick": False},
        margin={"l": 56, "r": 12, "t": 76, "b": 44},
        title={"y": 1, "yanchor": "top", "pad": {"t": 10, "l": 8}},
    )


# -- labels ------------------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def short_name(name: str) -> tuple[str, ...]:
    """A name in at most two lines of `LABEL_LETTERS` letters, broken at a comma or blank, its middle left out."""
    if len(name) <= LABEL_LETTERS:
        return (name,)
    cuts = [at + 1 for at, letter in enumerate(name) if letter in ", " and at < LABEL_LETTERS]
    cut = max(cuts, default=LABEL_LETTERS)
    first, rest = name[:cut].strip(), name[cut:].strip()
    return (first, rest if len(rest) <= LABEL_LETTERS else "…" + rest[1 - LABEL_LETTERS :].strip())


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
    markers: list[Box] = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    labels: list[Box] = []
    leaders: list[Box] = []
    chosen: list[tuple[float, float] | None] = []
    for (x, y), (wide, high) in zip(points, boxes, strict=True):
        best, least = None, math.inf
        for length, across, down in _around(wide, high):
            if length >= least:
                break
            box = (x + across - wide / 2, y + down - high / 2, x + across + wide / 2, y + down + high / 2)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
            if not inside or any(_meet(box, other) for other in (*markers, *labels)):
                continue
            leader = (x, y, x + across, y + down)
            crossings = sum(_hits(leader, label) for label in labels)
            crossings += sum(_hits(other, box) + _cross(leader, other) for other in leaders)
            if length + CROSSING * crossings < least:
                best, least = (box, leader), length + CROSSING * crossings
        chosen.append(None if best is None else (best[1][2] - x, best[1][3] - y))
        if best is not None:
            labels.append(best[0])
            leaders.append(best[1])
    return chosen


def _around(wide: float, high: float) -> list[tuple[float, float, float]]:
    """Places to try for a label of this size, nearest first: length of the leader, right, down."""
    beside, over = wide / 2 + 11, high / 2 + 11
    columns = [across * wide / 4 for across in range(-6, 7)] + [beside, -beside]
    rows = [0.0, *(sign * (over + step * high / 2) for sign in (1, -1) for step in range(20))]
    return sorted(
        (math.hypot(max(abs(across) - wide / 2, 0), max(abs(down) - high / 2, 0)) + 0.05 * abs(across), across, down)
        for across in columns
        for down in rows
    )


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _cross(one: Box, other: Box) -> bool:
    """Whether two lines, each from its first to its second point, cross."""

    def side(line: Box, x: float, y: float) -> bool:
        return (line[2] - line[0]) * (y - line[1]) > (line[3] - line[1]) * (x - line[0])

    return side(one, *other[:2]) != side(one, *other[2:]) and side(other, *one[:2]) != side(other, *one[2:])


def _hits(line: Box, box: Box) -> bool:
    """Whether a line crosses a diagonal of the box: near enough to crossing the box."""
    left, top, right, bottom = box
    return _cross(line, box) or _cross(line, (left, bottom, right, top))


def _labels(info: BoardInfo) -> tuple[list[Pin], list[tuple[float, float]]]:
    """The pins that get a label, and where: those on the front first, then the smallest."""
    (left, right), (low, high) = _ends(info), _reach(info)
    pins = sorted(info.pins, key=lambda pin: not pin.on_front)
    points = [
        (
            _WIDTH * math.log10(pin.size / left) / math.log10(right / left),
            _HEIGHT * (high - pin.accuracy) / (high - low),
        )
        for pin in pins
    ]
    boxes = [(max(map(_text_width, short_name(pin.name))), 15.0 * len(short_name(pin.name))) for pin in pins]
    placed = zip(pins, place_labels(points, boxes, _WIDTH, _HEIGHT), strict=True)
    found = [(pin, at) for pin, at in placed if at is not None][:MAX_LABELS]
    return [pin for pin, _ in found], [at for _, at in found]


def _text_width(text: str) -> float:
    return sum(12.5 if unicodedata.east_asian_width(letter) in "WF" else 6.8 for letter in text) + 4


def _label(pin: Pin, at: tuple[float, float]) -> dict[str, Any]:
    return {
        "text": "<br>".join(_plain(line) for line in short_name(pin.name)),
        "x": math.log10(pin.size),
        "y": pin.accuracy,
        "ax": at[0],
        "ay": at[1],
        "visible": True,
        "showarrow": True,
        "arrowhead": 0,
        "arrowwidth": 1,
        "arrowcolor": style.NEUTRAL,
        "standoff": 7,
        "font": {"size": style.SMALL_SIZE},
    }


def _plain(text: str) -> str:
    """Plotly reads some HTML in its texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ends(info: BoardInfo) -> tuple[float, float]:
    """Ends of the size axis: all pins, with room for their labels."""
    if not info.pins:
        return 1.0, 1000.0
    smallest, largest = info.pins[0].size, info.pins[-1].size
    room = max(1.6, (largest / smallest) ** 0.1)
    return smallest / room, largest * room


def _reach(info: BoardInfo) -> tuple[float, float]:
    """Ends of the accuracy axis: all intervals, and room for labels below."""
    lowest = min((pin.low for pin in info.pins), default=0.0)
    return max(0.0, math.floor(lowest - 0.35 * (104 - lowest))) if info.pins else 0.0, 104.0
