from __future__ import annotations

import io
import itertools
import json
import math
from html import escape
from typing import Any

import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor

from kit.data import Split
from kit.distill import Group, Recipe
from kit.measure import Estimate
from kit.plots import distill as plots
from kit.plots import still, style
from kit.plots.prune import line

SPLIT = Split(torch.zeros(10, 3), torch.zeros(10).long())
LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
TEACHER = Estimate.from_counts(9, 10)
ENDS = (0.5, 64.0)


def group(temperature: float, *right: int, alpha: float = 0.9) -> Group:
    """Students of whom each has the first so many of ten answers right."""
    named = torch.stack([torch.where(torch.arange(10) < count, LABELS, 1 - LABELS) for count in right])
    return Group(Recipe(SPLIT, temperature, alpha), tuple(range(len(right))), named, LABELS)


COOL, WARM, HOT = group(0.5, 6, 8), group(4, 8, 9), group(64, 5, 9)
HARD, SMOOTHED = group(1, 4, 6, alpha=0), group(1, 5, 7, alpha=0)


def curve(**changes: Any) -> plots.CurveInfo:
    settings: dict[str, Any] = {
        **{"groups": [COOL, WARM, HOT], "chosen": WARM, "rivals": (HARD, SMOOTHED)},
        **{"teacher": TEACHER, "ends": ENDS},
    }
    return plots.curve_info(**(settings | changes))


NOTHING = curve(groups=[], chosen=None, rivals=(None, None))


def interval(low: float, high: float) -> tuple[float, float, float]:
    """Mean and Student's t interval of two values, within 0 .. 100 %; 12.706 is the quantile, one degree."""
    mean, half = (low + high) / 2, 12.7062 * abs(high - low) / 2
    return 100 * mean, 100 * max(0.0, mean - half), 100 * min(1.0, mean + half)


def plain(figure: go.Figure) -> str:
    """The figure as strict JSON."""
    return json.dumps(figure.to_plotly_json(), allow_nan=False, default=list)


# --- the curve --------------------------------------------------------------------------------------------------


def test_the_curve_holds_the_means_and_intervals_of_each_temperature() -> None:
    info = curve(groups=[HOT, COOL, WARM])
    assert info.distilled.size == (0.5, 4, 64)  # in order
    for at, (low, high) in enumerate([(0.6, 0.8), (0.8, 0.9), (0.5, 0.9)]):
        found = (info.distilled.accuracy[at], info.distilled.low[at], info.distilled.high[at])
        assert found == pytest.approx(interval(low, high), abs=1e-2)
    assert info.seeds[0] == (4, 4)
    assert info.seeds[1] == pytest.approx((80, 90))
    for rival, name, ends in zip(
        info.rivals, ("hard labels", "label smoothing"), [(0.4, 0.6), (0.5, 0.7)], strict=True
    ):
        assert rival.label == name
        assert rival.size == ENDS  # they know no temperature: one height over the whole axis
        assert rival.accuracy == pytest.approx((interval(*ends)[0],) * 2)
        assert rival.low == pytest.approx((interval(*ends)[1],) * 2, abs=1e-2)
    assert info.teacher == pytest.approx(90)


def test_the_curves_traces_are_bands_lines_students_and_the_teacher() -> None:
    info = curve()
    hard_band, hard, smoothed_band, smoothed, band, distilled, students, teacher = plots.curve_traces(info)
    for drawn, outline, own in (
        (hard, hard_band, info.rivals[0]),
        (smoothed, smoothed_band, info.rivals[1]),
        (distilled, band, info.distilled),
    ):
        assert (drawn["x"], drawn["y"]) == (list(own.size), list(own.accuracy))
        assert outline["x"] == [*own.size, *own.size[::-1]]
        assert outline["y"] == [*own.high, *own.low[::-1]]
    assert (students["x"], students["y"]) == ([4, 4], pytest.approx([80, 90]))
    assert (teacher["x"], teacher["y"]) == ([0.5, 64], pytest.approx([90, 90]))


@pytest.mark.parametrize("info", [curve(), NOTHING], ids=["full", "empty"])
def test_the_curves_figure_has_its_traces_and_their_looks(info: plots.CurveInfo) -> None:
    figure = plots.curve_figure(info)
    traces = plots.curve_traces(info)
    assert len(figure.data) == len(traces) == 8
    for drawn, arrays in zip(figure.data, traces, strict=True):
        assert list(drawn.x or ()) == arrays["x"]
        assert list(drawn.y or ()) == pytest.approx(arrays["y"])
    assert [drawn.name for drawn in figure.data[1:6:2]] == ["hard labels", "label smoothing", "distilled"]
    for drawn in figure.data[1:6:2]:
        look = style.LOOKS[drawn.name]
        assert (drawn.line.color, drawn.line.dash, drawn.marker.symbol) == (look.colour, look.dash, look.marker)
    assert len({(drawn.line.dash, drawn.marker.symbol) for drawn in figure.data[1:6:2]}) == 3  # not by colour alone
    assert figure.layout.xaxis.type == "log"
    low, high = figure.layout.xaxis.range
    assert low < math.log10(0.5) < math.log10(64) < high
    assert list(figure.layout.xaxis.ticktext) == ["0.5", "1", "2", "4", "8", "16", "32", "64"]
    assert len(figure.layout.annotations) == 4
    assert "NaN" not in plain(figure)


def test_each_line_has_its_name_at_its_right_end() -> None:
    marks = plots.curve_layout(curve())["annotations"]
    texts = {mark["text"]: mark["y"] for mark in marks}
    assert list(texts) == ["◆ hard labels", "▼ label smoothing", "■ distilled", "★ teacher"]
    assert texts["◆ hard labels"] == pytest.approx(50)
    assert texts["★ teacher"] == pytest.approx(90)
    assert texts["■ distilled"] == pytest.approx(70)  # at its last temperature
    assert [mark["text"] for mark in plots.curve_layout(NOTHING)["annotations"]] == ["", "", "", "★ teacher"]
    signs = {"diamond": "◆", "triangle-down": "▼", "square": "■", "star": "★"}
    assert {name: signs[style.LOOKS[name].marker] for name in plots.SIGNS} == plots.SIGNS


@pytest.mark.parametrize("info", [curve(), NOTHING, curve(teacher=Estimate.from_counts(1, 10))])
def test_the_accuracy_axis_of_the_curve_shows_all_means(info: plots.CurveInfo) -> None:
    low, high = plots.curve_layout(info)["yaxis"]["range"]
    shown = [info.teacher, *info.distilled.accuracy, *info.seeds[1], *info.rivals[0].accuracy]
    assert all(low < value < high for value in shown)


@pytest.mark.parametrize(
    ("low", "bottom"), [(-30, -2), (0, -2), (19.9, -2), (20, 18), (59, 38), (97, 78), (99.9, 78), (100, 78)]
)
def test_the_axis_begins_a_little_under_a_step_of_twenty(low: float, bottom: float) -> None:
    assert plots._bottom([low, 99.95]) == bottom
    assert plots._bottom([]) == 78


@pytest.mark.parametrize("bottom", [-2.0, 18.0, 38.0, 58.0, 78.0])
def test_no_tick_stands_above_100_or_below_the_axis(bottom: float) -> None:
    axis = plots.accuracy_axis(bottom)
    ticks = axis["tickvals"]
    assert axis["range"] == [bottom, 103.5]
    assert ticks[-1] == 100
    assert bottom <= ticks[0] <= bottom + 5
    steps = {b - a for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1
    assert 4 <= len(ticks) <= 9


@pytest.mark.parametrize(
    "heights",
    [
        {"a": 50.0},
        {"a": 10.0, "b": 50.0, "c": 90.0},
        {"a": 97.0, "b": 96.9, "c": 97.1, "d": 97.0},
        {"a": 0.0, "b": 99.0, "c": 99.0, "d": 99.0},
        {"a": 99.0, "b": 97.5, "c": 91.0, "d": 98.9},
        {"a": 20.0, "b": 22.0, "c": 24.0, "d": 80.0},
    ],
)
@pytest.mark.parametrize("gap", [1.4, 5.9])
def test_names_are_spread(heights: dict[str, float], gap: float) -> None:
    found = plots.spread(heights, gap)
    assert found.keys() == heights.keys()
    by_height = sorted(heights, key=heights.__getitem__)
    assert sorted(found, key=found.__getitem__) == by_height  # their order stays
    assert all(found[b] - found[a] >= gap - 1e-9 for a, b in itertools.pairwise(by_height))
    assert max(found.values()) <= max(heights.values()) + gap
    for name, height in heights.items():  # no name is moved further than the others need
        assert abs(found[name] - height) <= (len(heights) - 1) * gap + 1e-9
        if all(abs(height - other) > len(heights) * gap for label, other in heights.items() if label != name):
            assert found[name] == height


def test_names_are_spread_upwards_where_there_is_room() -> None:
    found = plots.spread({"a": 20.0, "b": 22.0, "c": 24.0, "d": 80.0}, 5)
    assert found == {"a": 20, "b": 25, "c": 30, "d": 80}
    assert plots.spread({"a": 0.0, "b": 99.0, "c": 99.0, "d": 99.0}, 5) == {"a": 0, "b": 94, "c": 99, "d": 104}


def test_here_is_the_chosen_point_or_nothing() -> None:
    mean, low, high = interval(0.8, 0.9)
    assert plots.here_point(WARM) == pytest.approx([4, mean, low, high], abs=1e-2)
    assert plots.here_point(None) == []


# --- the soft labels --------------------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 0.0, 1.0, -1.0])
NAMES = ("a", "b", "c", "d")


def by_hand(temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in LOGITS.tolist()]
    return [power / sum(powers) for power in powers]


def soft(sample: Tensor | None = None, label: int = 0, names: tuple[str, ...] = NAMES) -> plots.SoftInfo:
    return plots.soft_info(LOGITS, 4.0, label, torch.zeros(6) if sample is None else sample, names)


def test_soft_labels_at_the_temperature_and_at_1() -> None:
    info = soft()
    assert info.soft == pytest.approx(by_hand(4))
    assert info.plain == pytest.approx(by_hand(1))
    assert (info.names, info.label, info.picture) == (NAMES, 0, ())
    picture, dashes = plots.soft_traces(info)
    assert picture == {"z": []}
    assert dashes == {"x": [0, 1, 2, 3], "y": pytest.approx(by_hand(1))}


def test_an_image_is_shown_as_the_mean_of_its_channels() -> None:
    image = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]])  # [2, 2, 3]
    info = soft(image)
    assert info.picture == ((1, 2, 3), (4, 5, 6))
    assert plots.soft_traces(info)[0] == {"z": [[1, 2, 3], [4, 5, 6]]}
    assert plots.soft_figure(info).layout.yaxis2.autorange == "reversed"  # rows from the top


@pytest.mark.parametrize(("label", "right"), [(0, True), (1, True), (2, False), (3, False)])
def test_the_image_stands_where_the_right_bar_is_not(label: int, right: bool) -> None:
    low, high = plots.soft_layout(soft(label=label))["xaxis2"]["domain"]
    assert (low > 0.5) == right == (high > 0.5)


@pytest.mark.parametrize("sample", [torch.zeros(6), torch.zeros(1, 8, 8), torch.zeros(3, 5, 4)])
def test_the_figure_of_the_soft_labels(sample: Tensor) -> None:
    info = soft(sample)
    figure = plots.soft_figure(info)
    assert len(figure.data) == len(plots.soft_traces(info)) == 2
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2, 3]
    assert list(figure.layout.xaxis.ticktext) == list(NAMES)
    assert figure.layout.yaxis.range[1] > 1  # a certain teacher's bar has room for its number
    assert "NaN" not in plain(figure)


def test_the_likeliest_classes_in_words() -> None:
    first, second, third = sorted(by_hand(1), reverse=True)[:3]
    wanted = f"a ({100 * first:.0f} %), c ({100 * second:.0f} %), b ({100 * third:.0f} %)"
    assert plots.most_likely(by_hand(1), NAMES) == wanted
    assert plots.most_likely([0.25, 0.75], ("x", "y")) == "y (75 %), x (25 %)"


# --- the plane --------------------------------------------------------------------------------------------------


def plane(**changes: Any) -> plots.StudentsInfo:
    def entry(size: float, made: Group) -> tuple[float, Estimate, float]:
        return size, made.accuracy, size

    info = plots.StudentsInfo(
        distilled=line("distilled", "nonzeros", [entry(300, COOL), entry(2000, WARM)]),
        hard=line("hard labels", "nonzeros", [entry(300, HARD)]),
        teacher=line("teacher", "nonzeros", [(40_000, TEACHER, 0)]),
        here=line("here", "nonzeros", [entry(2000, WARM)]),
        pins=line("pins", "nonzeros", [(90_000, TEACHER, 0), (50, TEACHER, 1)]),
        pin_names=("large", "<late> & small, another one"),
    )
    return info._replace(**changes)


BARE = plots.StudentsInfo(plots.EMPTY, plots.EMPTY, plots.EMPTY, plots.EMPTY, plots.EMPTY, ())


def test_the_planes_traces() -> None:
    info = plane()
    hard_band, hard, band, distilled, teacher, pins, here = plots.students_traces(info)
    assert (distilled["x"], distilled["y"]) == ([300, 2000], pytest.approx([70, 85]))
    assert (hard["x"], hard["y"]) == ([300], pytest.approx([50]))
    assert band["y"] == [*info.distilled.high, *info.distilled.low[::-1]]
    assert hard_band["x"] == [300, 300]
    assert (teacher["x"], teacher["y"]) == ([40_000], [90])
    assert (pins["x"], pins["y"]) == ([90_000, 50], [90, 90])
    assert pins["hovertext"] == ["large", "&lt;late&gt; &amp; small, another one"]
    assert pins["text"] == ["", "&lt;late&gt; &amp; small, …"]  # only the newest is written
    mean, low, high = interval(0.8, 0.9)
    assert (here["x"], here["y"]) == ([2000], pytest.approx([mean]))
    assert here["error_y"]["array"] == pytest.approx([high - mean], abs=1e-2)
    assert here["error_y"]["arrayminus"] == pytest.approx([mean - low], abs=1e-2)


@pytest.mark.parametrize("info", [plane(), BARE], ids=["full", "empty"])
def test_the_planes_figure_has_its_traces_and_shows_every_size(info: plots.StudentsInfo) -> None:
    figure, traces = plots.students_figure(info), plots.students_traces(info)
    assert len(figure.data) == len(traces) == 7
    for drawn, arrays in zip(figure.data, traces, strict=True):
        assert list(drawn.x or ()) == arrays["x"]
    low, high = figure.layout.xaxis.range
    for own in (info.distilled, info.hard, info.teacher, info.here, info.pins):
        assert all(low < math.log10(size) < high for size in own.size)
    assert figure.layout.xaxis.title.text == "parameters that are not zero"
    assert max(figure.layout.yaxis.tickvals) <= 100
    assert "NaN" not in plain(figure)


# --- what students answer ---------------------------------------------------------------------------------------


def answered(seen: bool = True, names: tuple[str, ...] = ("zero", "one")) -> plots.AnswersInfo:
    return plots.answers_info(WARM, HARD, 1, seen, names)


def test_answers_are_the_shares_of_each_class() -> None:
    """Of the five samples of class 1, WARM's students have 3 and 4 right, HARD's 0 and 1."""
    info = answered()
    distilled, hard = plots.answers_traces(info)
    assert distilled["x"] == hard["x"] == [0, 1]
    assert distilled["y"] == pytest.approx([30, 70])
    assert hard["y"] == pytest.approx([90, 10])
    assert distilled["error_y"]["array"] == pytest.approx([70, 30])  # no share is above 1
    assert distilled["error_y"]["arrayminus"] == pytest.approx([30, 70])  # no share is below 0: the bar ends there
    assert (info.label, info.seen) == (1, True)


@pytest.mark.parametrize(
    "info", [answered(), plots.answers_info(None, None, 1, True, ("zero", "one"))], ids=["full", "empty"]
)
def test_the_figure_of_the_answers(info: plots.AnswersInfo) -> None:
    figure, traces = plots.answers_figure(info), plots.answers_traces(info)
    assert [drawn.name for drawn in figure.data] == ["distilled", "hard labels"]
    for drawn, arrays in zip(figure.data, traces, strict=True):
        assert list(drawn.y or ()) == pytest.approx(arrays["y"])
    assert figure.data[1].marker.pattern.shape == "/"  # not by colour alone
    assert list(figure.layout.xaxis.ticktext) == ["zero", "one"]
    assert "NaN" not in plain(figure)


def test_a_class_never_seen_is_said() -> None:
    assert plots.answers_layout(answered())["title"]["text"] == "What students call a one"
    assert plots.answers_layout(answered(seen=False))["title"]["text"] == "What students call a one, never seen"


# --- names ------------------------------------------------------------------------------------------------------


def test_names_of_classes_are_no_markup() -> None:
    names = ("<b>bold</b>", "this & that")
    safe = [escape(name) for name in names]
    info = plots.soft_info(LOGITS[:2], 4.0, 0, torch.zeros(6), names)
    assert safe[0] in plots.soft_layout(info)["title"]["text"]
    assert safe[1] in plots.answers_layout(answered(names=names))["title"]["text"]
    for figure in (plots.soft_figure(info), plots.answers_figure(answered(names=names))):
        assert list(figure.layout.xaxis.ticktext) == safe
        assert "<b>" not in figure.layout.title.text


# --- the still picture ------------------------------------------------------------------------------------------


def colours(png: bytes) -> set[tuple[int, ...]]:
    assert png.startswith(b"\x89PNG")
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    pixels = np.unique((picture[:, :, :3] * 255).round().astype(int).reshape(-1, 3), axis=0)
    return set(map(tuple, pixels.tolist()))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def test_the_still_picture_of_the_curve_draws_what_there_is() -> None:
    names = ("distilled", "hard labels", "label smoothing", "here")
    wanted = {rgb(style.LOOKS[name].colour) for name in names}
    assert wanted <= colours(still.curve_png(curve(), plots.here_point(WARM)))
    assert not wanted & colours(still.curve_png(NOTHING, []))
    without = colours(still.curve_png(curve(rivals=(None, None)), []))
    assert wanted & without == {rgb(style.LOOKS["distilled"].colour)}
