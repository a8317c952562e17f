"""Figures of tuning by gradients, read without pixels."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from kit.compress.line import Point
from kit.plots import gradient as plots
from kit.plots.gradient import Slope
from kit.search import Float

SPACE = Float(1e-4, 1e-1, log=True)
FOUND = {
    "unrolled": [Slope(0.0, 0, 0), Slope(0.05, 2, 10), Slope(-0.2, 4, 20)],
    "implicit": [Slope(-0.1, 4, 20), Slope(-30.0, 6, 20)],
    "differences": [Slope(-0.22, 4, 0)],
}
AT = {"unrolled": 1, "implicit": 0, "differences": 0}


def point(decay: float, loss: float) -> Point:
    """Of ten samples."""
    return Point(decay, torch.arange(10) < 5, torch.linspace(0.8 * loss, 1.2 * loss, 10).double())


CURVE = [point(1e-3, 0.6), point(1e-2, 0.4), point(1e-1, 0.9)]


def named(panel: Any, name: str) -> list[dict[str, Any]]:
    return [trace for trace in panel.traces if trace["name"] == name]


def test_each_tangent_goes_through_the_point_with_its_slope() -> None:
    panel = plots.loss_panel(CURVE, CURVE[1], FOUND, AT, CURVE[:2], SPACE, "2 steps")
    for way, slope in zip(plots.NAMES, (0.05, -0.1, -0.22), strict=True):
        (line,) = named(panel, plots.NAMES[way])
        assert (line["x"][1], line["y"][1]) == pytest.approx((1e-2, 0.4))
        assert (line["y"][2] - line["y"][0]) / math.log(line["x"][2] / line["x"][0]) == pytest.approx(slope)
    (curve,), (walk,) = named(panel, plots.TRAINED), named(panel, plots.TRAIL)
    assert curve["x"] == [1e-3, 1e-2, 1e-1] and curve["y"] == pytest.approx([0.6, 0.4, 0.9])
    assert "after 2 steps" in panel.layout["title"]["text"]
    assert walk["x"] == [1e-3, 1e-2] and "nats" in panel.layout["yaxis"]["title"]["text"]
    bottom, top = panel.layout["yaxis"]["range"]
    assert bottom <= min(panel.curves[0].low) and max(panel.curves[0].high) <= top
    assert [label.text for label in panel.labels] == [
        "● really trained",
        "● unrolled",
        "■ implicit",
        "◆ finite differences",
    ]


def test_a_loss_without_bounds_does_not_flatten_the_others() -> None:
    for curve in (CURVE, [point(1e-3, 8.0), point(1e-2, 79.0)]):
        usual, beside = (
            plots.loss_panel([*curve, *more], None, {}, {}, [], SPACE, "").layout["yaxis"]["range"]
            for more in ([], [point(1.0, 1e30)])
        )
        assert usual == beside and usual[1] > curve[-1].loss.high


def test_slopes_stand_over_the_steps_and_terms_that_they_took() -> None:
    panel = plots.slopes_panel(FOUND, AT, 60)
    assert [named(panel, name)[0]["x"] for name in ("unrolled", "implicit")] == [[0, 1, 2], [1, 2]]
    assert [(each["x"], each["y"]) for each in named(panel, "you")] == [([1], [0.05]), ([1], [-0.1])]
    zero, level = panel.layout["shapes"]
    assert zero["y0"] == 0 and level["y0"] == level["y1"] == -0.22
    bottom, top = panel.layout["yaxis"]["range"]
    assert -1 < bottom < -0.2 and 0.05 < top < 1  # what runs away does not decide the axis


def test_errors_are_per_cent_of_the_slope_through_all_steps() -> None:
    panel = plots.cost_panel(FOUND, AT)
    (unrolled,), (implicit,) = named(panel, "unrolled"), named(panel, "implicit")
    assert unrolled["y"] == pytest.approx([100, 125, plots.LEAST]) and unrolled["x"] == [1, 2, 4]
    assert implicit["y"] == pytest.approx([50, plots.MOST]) and implicit["x"] == [4, 6]
    assert [each["x"] + each["y"] for each in named(panel, "you")] == [
        pytest.approx([2, 125]),
        pytest.approx([4, 50]),
        pytest.approx([4, 10]),
    ]
    kept = [label.text.split("\n")[1] for label in panel.labels]
    assert kept == ["keeps 10 numbers", "keeps 20 numbers", "keeps 0 numbers"]


def test_there_are_as_many_traces_while_something_is_missing() -> None:
    part = {way: FOUND[way] for way in ("unrolled", "implicit")}
    flat = {way: [Slope(0.0, each.cost, 0) for each in rows] for way, rows in FOUND.items()}
    for found in ({}, part, FOUND, flat):
        at = {way: AT[way] for way in found}
        panels = [
            plots.loss_panel(CURVE if found else [], CURVE[0] if found else None, found, at, [], SPACE, ""),
            plots.slopes_panel(found, at, 60),
            plots.cost_panel(found, at),
        ]
        assert [len(panel.traces) for panel in panels] == [6, 4, 6]
        json.dumps([[panel.traces, panel.layout] for panel in panels], allow_nan=False)
    assert not plots.cost_panel(flat, AT).labels  # no share of nothing
