from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kit.measure import Estimate
from kit.plots import together as plots
from kit.plots.curves import Curve, Panel
from kit.plots.together import Names
from kit.search import Choice, Float, Int, Space

NAMES, CORNER = Names("accuracy", "bytes"), {"accuracy": 0.5, "bytes": 3000.0}
SPACE = Space({"width": Int(2, 32, log=True), "ratio": Float(0, 1), "kind": Choice("a", "b")})
SMALL, LARGE = {"width": 2, "ratio": 0.25, "kind": "a"}, {"width": 32, "ratio": 1.0, "kind": "b"}


def curve(label: str, *points: tuple[float, float, float, float]) -> Curve:
    estimates = [(x, Estimate(value, low, high, 8)) for x, value, low, high in points]
    return Curve.of(label, estimates, ["<b> recipe"] * len(points))


NONE = Curve("none")
FRONT = curve("front, as searched", (200, 0.6, 0.6, 0.6), (900, 0.9, 0.9, 0.9))
ANEW = curve("front, measured anew", (210, 0.58, 0.55, 0.61), (905, 0.85, 0.8, 0.9))
TRIALS = curve("trials", (200, 0.6, 0.6, 0.6), (900, 0.9, 0.9, 0.9), (700, 0.2, 0.2, 0.2))


def plane(rival: Curve = NONE, pins: Curve = NONE) -> Panel:
    return plots.plane_panel(NAMES, "NSGA-II", [TRIALS, FRONT, ANEW, rival], pins, CORNER, "title")


def test_the_plane_shows_the_front_twice() -> None:
    panel = plane()
    traces = {trace["name"]: trace for trace in panel.traces}
    assert traces["trials"]["x"] == [200, 900, 700] and traces["trials"]["y"] == pytest.approx([40, 10, 80])
    hollow, filled = traces["front, as searched"], traces["front, measured anew"]
    assert hollow["marker"]["symbol"] == "circle-open" and hollow["y"] == pytest.approx([40, 10])
    assert filled["marker"]["symbol"] == "circle" and filled["y"] == pytest.approx([42, 15])
    assert filled["error_y"]["array"] == pytest.approx([3, 5])  # of errors, per cent: up is worse
    assert filled["error_y"]["arrayminus"] == pytest.approx([3, 5])
    assert filled["customdata"][0] == ["58.0 % (55.0 to 61.0)", "<br>&lt;b&gt; recipe"]
    assert hollow["marker"]["color"] == filled["marker"]["color"] == plots.look_of("NSGA-II").colour
    assert hollow["customdata"][1][0] == "90.0 %" and "bytes" in hollow["hovertemplate"]
    steps = traces["steps"]
    assert steps["line"]["shape"] == "hv"  # nothing is promised between two members
    assert steps["x"] == [200, 900, 3000] and steps["y"] == pytest.approx([40, 10, 10])
    assert [each.label for each in panel.curves[:3]] == ["trials", "front, as searched", "front, measured anew"]


def test_the_axes_hold_what_counts_and_no_more() -> None:
    panel = plane(curve("by hand", (60, 0.55, 0.55, 0.55), (2500, 0.99, 0.99, 0.99)))
    low, high = (10**end for end in panel.layout["xaxis"]["range"])
    assert low == pytest.approx(50) and 3000 < high < 3500
    worst, best = (10**end for end in panel.layout["yaxis"]["range"])
    assert best < 1 and 50 < worst < 60
    assert all(low * 0.99 <= tick <= high for tick in panel.layout["xaxis"]["tickvals"])
    for lowest in (1.0, 1.7, 2.9, 99.0, 0.013):
        bottom = 10 ** plots._sizes("", lowest, 1000.0)["range"][0]
        digit = bottom / 10 ** np.floor(np.log10(bottom) + 1e-9)
        assert lowest / 3 < bottom < lowest and round(digit, 6) in (1, 2, 5)


def test_a_rival_and_pins_are_drawn_where_there_are_some() -> None:
    many, few = plane(FRONT._replace(label="by hand"), FRONT._replace(label="pins", said=("one", "two"))), plane()
    assert len(many.traces) == len(few.traces)
    for number in (2, 3, 6):
        assert many.traces[number]["x"] and not few.traces[number]["x"]
    assert [label.text for label in many.labels] == ["★ by hand", "two"] and few.labels == ()
    assert many.labels[1].y == pytest.approx(10)
    assert many.curves[3].label == "front, by hand"


def test_the_volume_is_the_mean_over_repeats() -> None:
    rng = np.random.default_rng(0)
    repeats = {"random": rng.random((5, 12)).cumsum(1).tolist(), "EHVI": [list(range(10))], "NSGA-II": []}
    panel = plots.volume_panel(repeats, "EHVI", 16)
    traces = {trace["name"]: trace for trace in panel.traces}
    assert traces["random"]["x"] == [4, 8, 12] and traces["EHVI"]["x"] == [4, 8] and traces["NSGA-II"]["x"] == []
    values = np.array(repeats["random"])[:, 7]
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert traces["random"]["y"][1] == pytest.approx(values.mean())
    assert traces["interval of random"]["y"][1] == pytest.approx(high)
    assert traces["interval of random"]["y"][-2] == pytest.approx(low)
    assert traces["EHVI"]["y"] == [3, 7] == traces["interval of EHVI"]["y"][:2]  # one repeat knows no spread
    assert traces["EHVI"]["line"]["width"] > traces["random"]["line"]["width"]
    assert panel.layout["xaxis"]["range"][1] >= 16
    assert [label.text for label in panel.labels] == ["◆ random", "● EHVI"]
    assert plots.volume_panel({"EHVI": []}, "EHVI", 8).traces[1]["x"] == []
    assert plots.after([], 3) is None and plots.after([[1.0, 2.0]], 9) == Estimate(2.0, 2.0, 2.0, 1)


def test_bars_say_what_mattered() -> None:
    shares = {
        "accuracy": {"width": 0.5, "ratio": 0.25, "kind": 0.0},
        "bytes": {"width": 0.1, "ratio": 0.2, "kind": 0.3},
    }
    accuracy, size = plots.importance_panel(SPACE, NAMES, shares).traces
    assert accuracy["x"] == [50, 25, 0] and size["x"] == pytest.approx([10, 20, 30])
    assert accuracy["y"] == size["y"] == ["width", "ratio", "kind"]
    assert accuracy["marker"] != size["marker"]
    empty = plots.importance_panel(SPACE, NAMES, {})
    assert [trace["x"] for trace in empty.traces] == [[], []] and empty.layout["yaxis"]["ticktext"] == accuracy["y"]


def test_the_recipe_stands_on_the_ranges_of_the_knobs() -> None:
    panel = plots.recipe_panel(SPACE, LARGE, [SMALL, LARGE], "bytes")
    front, chosen = panel.traces
    assert chosen["x"] == pytest.approx([1, 1, 0.75], abs=0.02) and chosen["y"] == ["width", "ratio", "kind"]
    narrow = np.log(2 / 1.5) / np.log(32.5 / 1.5)  # a whole number stands in the middle of its own part
    assert front["x"][:3] == pytest.approx([narrow, 0.25, 0.25]) and front["y"] == chosen["y"] * 2
    assert front["marker"]["color"][0] == front["marker"]["color"][2] != front["marker"]["color"][3]
    assert panel.layout["yaxis"]["ticktext"] == ["width <b>32</b>", "ratio <b>1</b>", "kind <b>b</b>"]
    low, high = panel.layout["yaxis"]["range"]
    assert low > high  # the first one at the top
    empty = plots.recipe_panel(SPACE, None, [], "bytes")
    assert [trace["x"] for trace in empty.traces] == [[], []] and empty.layout["yaxis"]["ticktext"] == chosen["y"]
