from __future__ import annotations

import json
import math
from html import escape
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor

from kit.data import Split
from kit.distill import Group, Recipe
from kit.measure import Estimate
from kit.plots import distill as plots
from kit.plots.curves import Curve, Panel

SPLIT = Split(torch.zeros(10, 3), torch.zeros(10).long())
LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
TEACHER = Estimate.from_counts(9, 10)
ENDS = (0.5, 64.0)
LOGITS = torch.tensor([2.0, 0.0, 1.0, -1.0])
NAMES = ("a", "b", "c", "d")


def group(temperature: float, *right: int, alpha: float = 0.9) -> Group:
    """Students of whom each has the first so many of ten answers right."""
    named = torch.stack([torch.where(torch.arange(10) < count, LABELS, 1 - LABELS) for count in right])
    return Group(Recipe(SPLIT, temperature, alpha), tuple(range(len(right))), named, LABELS)


COOL, WARM, HOT = group(0.5, 6, 8), group(4, 8, 9), group(64, 5, 9)
HARD, SMOOTHED = group(1, 4, 6, alpha=0), group(1, 5, 7, alpha=0)

FULL = plots.curve_panel([COOL, WARM, HOT], [WARM, HARD, SMOOTHED], TEACHER, ENDS)
NOTHING = plots.curve_panel([], [], TEACHER, ENDS)


def interval(low: float, high: float) -> tuple[float, float, float]:
    """Mean and Student's t interval of two values, within 0 .. 100 %; 12.706 is the quantile, one degree."""
    mean, half = (low + high) / 2, 12.7062 * abs(high - low) / 2
    return 100 * mean, 100 * max(0.0, mean - half), 100 * min(1.0, mean + half)


def by_hand(temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in LOGITS.tolist()]
    return [power / sum(powers) for power in powers]


def named(panel: Panel, name: str) -> dict[str, Any]:
    (trace,) = [trace for trace in panel.traces if trace["name"] == name]
    return trace


def checked(panel: Panel) -> go.Figure:
    """The figure, which plotly takes and which is strict JSON."""
    json.dumps(panel.figure.to_plotly_json(), allow_nan=False, default=list)
    return panel.figure


def test_the_curve_holds_means_and_intervals() -> None:
    hard, smoothed, distilled, teacher = FULL.curves
    assert distilled.x == (0.5, 4, 64)
    for at, (low, high) in enumerate([(0.6, 0.8), (0.8, 0.9), (0.5, 0.9)]):
        found = (distilled.value[at], distilled.low[at], distilled.high[at])
        assert found == pytest.approx(interval(low, high), abs=1e-2)
    for rival, name, ends in ((hard, "hard labels", (0.4, 0.6)), (smoothed, "label smoothing", (0.5, 0.7))):
        assert (rival.label, rival.x) == (name, ENDS)  # they know no temperature: one height over the whole axis
        assert rival.value == pytest.approx((interval(*ends)[0],) * 2)
        assert rival.low == pytest.approx((interval(*ends)[1],) * 2, abs=1e-2)
    assert teacher.value == pytest.approx((90, 90))
    students = named(FULL, "one student")
    assert (students["x"], students["y"]) == ([4, 4], pytest.approx([80, 90]))


@pytest.mark.parametrize("panel", [FULL, NOTHING], ids=["full", "empty"])
def test_the_curves_figure(panel: Panel) -> None:
    figure = checked(panel)
    low, high = figure.layout.yaxis.range
    assert all(low < value < high for curve in panel.curves for value in curve.value)
    lines = {drawn.name: (drawn.line.dash, drawn.marker.symbol) for drawn in figure.data[1:6:2]}
    assert list(lines) == ["hard labels", "label smoothing", "distilled"]
    assert len(set(lines.values())) == 3  # not by colour alone
    low, high = figure.layout.xaxis.range
    assert figure.layout.xaxis.type == "log" and low < math.log10(0.5) < math.log10(64) < high
    assert [drawn.name for drawn in figure.data] == [trace["name"] for trace in FULL.traces]
    names = {label.text: label.y for label in panel.labels if label.end}  # each line's, at its right end
    if panel is FULL:
        assert list(names) == ["◆ hard labels", "▼ label smoothing", "■ distilled", "★ teacher"]
        assert [*names.values()] == pytest.approx([50, 60, 70, 90])
    else:
        assert list(names) == ["★ teacher"]
        assert [trace["name"] for trace in panel.traces if trace["x"]] == ["teacher"]


def soft(sample: Tensor | None = None, label: int = 0, names: tuple[str, ...] = NAMES) -> Panel:
    return plots.soft_panel(LOGITS[: len(names)], label, torch.zeros(6) if sample is None else sample, names)


def test_a_dash_stands_where_each_probability_is_at_temperature_1_beside_the_image() -> None:
    picture, dashes = soft().traces
    assert picture["z"] == []
    assert (dashes["x"], dashes["y"]) == ([0, 1, 2, 3], pytest.approx(by_hand(1)))
    image = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]])  # [2, 2, 3]
    for sample in (torch.zeros(6), torch.zeros(1, 8, 8), torch.zeros(3, 5, 4), image):
        figure = checked(soft(sample))
        assert figure.layout.yaxis.range[1] > 1  # a certain teacher's bar has room for its number
    assert list(figure.data[0].z) == [[1, 2, 3], [4, 5, 6]]  # the mean of the channels
    assert figure.layout.yaxis2.autorange == "reversed"  # rows from the top
    for label in range(4):  # the image stands where the right bar is not
        low, high = soft(label=label).layout["xaxis2"]["domain"]
        assert (low > 0.5) == (label < 2) == (high > 0.5)


def test_the_likeliest_classes_in_words() -> None:
    first, second, third = sorted(by_hand(1), reverse=True)[:3]
    wanted = f"a ({100 * first:.0f} %), c ({100 * second:.0f} %), b ({100 * third:.0f} %)"
    assert plots.most_likely(by_hand(1), NAMES) == wanted
    assert plots.most_likely([0.25, 0.75], ("x", "y")) == "y (75 %), x (25 %)"


BOARD = Curve.of("pins", [(90_000, TEACHER), (50, TEACHER)], ("large", "<late> & small, another one"))


def plane(trained: bool) -> Panel:
    return plots.plane_panel(
        distilled=Curve.of("distilled", [(300, COOL.accuracy), (2000, WARM.accuracy)] * trained),
        hard=Curve.of("hard labels", [(300, HARD.accuracy)] * trained),
        teacher=Curve.of("teacher", [(40_000, TEACHER)]),
        here=Curve.of("you are here", [(2000, WARM.accuracy)] * trained),
        pins=BOARD if trained else Curve("pins"),
    )


def test_the_plane_holds_students_teacher_and_pins() -> None:
    panel = plane(True)
    for name, x, y in (
        ("distilled", [300, 2000], [70, 85]),
        ("hard labels", [300], [50]),
        ("teacher", [40_000], [90]),
        ("on the board", [90_000, 50], [90, 90]),
        ("you are here", [2000], [85]),
    ):
        assert (named(panel, name)["x"], named(panel, name)["y"]) == (x, pytest.approx(y)), name
    assert [label.text for label in panel.labels] == [
        "teacher",
        "■ distilled",
        "◆ hard labels",
        "<late> & small, another\none",
    ]
    mean, low, high = interval(0.8, 0.9)
    error = named(panel, "you are here")["error_y"]
    assert [*error["array"], *error["arrayminus"]] == pytest.approx([high - mean, mean - low], abs=1e-2)
    for figure in (checked(panel), checked(plane(False))):
        assert len(figure.data) == 7
        low, high = figure.layout.xaxis.range
        assert all(low < math.log10(size) < high for drawn in figure.data for size in drawn.x)


def test_answers_are_the_shares_of_each_class() -> None:
    """Of the five samples of class 1, WARM's students have 3 and 4 right, HARD's 0 and 1."""
    distilled, hard = plots.answers_panel([WARM, HARD, SMOOTHED], 1, True, ("zero", "one")).traces
    assert distilled["x"] == hard["x"] == [0, 1]
    assert distilled["y"] == pytest.approx([30, 70])
    assert hard["y"] == pytest.approx([90, 10])
    assert distilled["error_y"]["array"] == pytest.approx([70, 30])  # no share is above 1
    assert distilled["error_y"]["arrayminus"] == pytest.approx([30, 70])  # no share is below 0: the bar ends there
    assert "pattern" in hard["marker"]  # not by colour alone
    names = ("<b>a</b>", "this & that, which is long")  # which are no markup
    for panel in (soft(names=names), plots.answers_panel([], 1, False, names)):
        axis = panel.layout["xaxis"]
        assert list(axis["ticktext"]) == ["&lt;b&gt;a&lt;/b&gt;", "this… long"] and axis["tickangle"] == -90
        assert panel.layout["margin"]["b"] > 80  # they stand upright
        assert any(escape(name)[:4] in panel.layout["title"]["text"] for name in names)
    for panel in (soft(), plots.answers_panel([], 1, False, NAMES)):
        assert "tickangle" not in panel.layout["xaxis"] and panel.layout["xaxis"]["title"]["text"]
    assert len(checked(plots.answers_panel([], 1, True, ("zero", "one"))).data) == 2
