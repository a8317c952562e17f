from __future__ import annotations

import json
import math
from typing import get_args

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy.optimize import LinearConstraint, minimize

from kit.measure import Estimate, SizeName
from kit.plots import curves, style
from kit.plots.curves import Curve, Panel

LOOK = style.LOOKS["magnitude"]
POINTS = [(10.0, Estimate.from_counts(80, 100)), (50.0, Estimate.from_counts(90, 100))]
CURVE = Curve.of("some", POINTS)


def test_a_curve_is_in_per_cent_in_the_order_given_with_a_band_or_error_bars() -> None:
    assert (CURVE.label, CURVE.x, CURVE.value) == ("some", (10, 50), pytest.approx((80, 90)))
    assert CURVE.low == pytest.approx([100 * estimate.low for _, estimate in POINTS])
    assert CURVE.high == pytest.approx([100 * estimate.high for _, estimate in POINTS])
    assert Curve.of("none", []) == Curve("none")
    band = curves.band(CURVE, LOOK)  # an outline around the curve
    assert (band["x"], band["y"]) == ([10, 50, 50, 10], pytest.approx([*CURVE.high, *CURVE.low[::-1]]))
    bars = curves.points(CURVE, LOOK)["error_y"]
    assert np.add(CURVE.value, bars["array"]) == pytest.approx(np.array(CURVE.high))
    assert np.subtract(CURVE.value, bars["arrayminus"]) == pytest.approx(np.array(CURVE.low))


def test_every_trace_can_be_drawn_full_and_empty() -> None:
    for curve, names in ((CURVE, ["first", "last"]), (Curve("none"), [])):
        traces = [curves.band(curve, LOOK), curves.line(curve, LOOK, opacity=0.5), curves.points(curve, LOOK)]
        panel = Panel([*traces, curves.pins(curve, names, 30)], style.layout("title", 300, {}, {}), (curve,))
        json.dumps(panel.figure.to_plotly_json(), allow_nan=False)  # plotly refuses what it does not know
        assert len(panel.figure.data) == 4


def test_of_the_pins_the_newest_is_written_and_all_are_told_on_hover() -> None:
    pins = curves.pins(CURVE, ["<b>old</b>", "the newest one, which has a very long name"], 30)
    assert pins["text"] == ["", "the newest one, which …"]
    assert pins["hovertext"] == ["&lt;b&gt;old&lt;/b&gt;", "the newest one, which has a very long name"]
    assert pins["textposition"] == ["bottom right", "bottom left"]  # towards the middle
    assert curves.pins(CURVE, ["one", "<b>"], 30)["text"][-1] == "&lt;b&gt;"  # plotly reads tags


@pytest.mark.parametrize(
    ("low", "high"), [(1, 10), (0.003, 0.2), (13, 1500), (9.8, 15_000), (2.5, 3.5), (4e-7, 3.0), (1.2, 1.9)]
)
def test_log_ticks_lie_in_range_and_are_neither_many_nor_few(low: float, high: float) -> None:
    ticks = curves.log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    leading = {round(tick / 10 ** math.floor(math.log10(tick) + 1e-9), 6) for tick in ticks}
    assert leading <= ({1, 2, 5} if high / low < 300 else {1})
    assert (2 if high / low > 5 else 0) <= len(ticks) <= 10


def test_a_size_axis_is_logarithmic_with_its_unit() -> None:
    axis = curves.size_axis("nonzeros", 8.0, 151_306.0)
    assert axis["range"] == pytest.approx([math.log10(8), math.log10(151_306)])
    ticks = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    assert (ticks[10.0], ticks[1000.0], ticks[100_000.0]) == ("10", "1k", "100k")
    units: dict[SizeName, str] = {"nonzeros": "parameters", "file_bytes": "kB", "flops": "MFLOPs", "latency": "ms"}
    assert set(units) == set(curves.SIZE_AXES) <= set(get_args(SizeName))
    for size, unit in units.items():
        assert unit in curves.size_axis(size, 1, 10)["title"]


@pytest.mark.parametrize(
    ("lows", "step", "bottom", "every"), [([], 20, 0, 20), ([35, 90], 20, 18, 20), ([63], 20, 58, 10), ([88], 5, 83, 5)]
)
def test_an_accuracy_axis_has_room_for_what_must_be_in_sight(
    lows: list[float], step: float, bottom: float, every: int
) -> None:
    axis = curves.accuracy_axis(lows, step=step)
    assert axis["range"] == [bottom, 104]
    assert all(bottom <= low for low in lows)
    assert axis["tickvals"][-1] == 100
    assert set(np.diff(axis["tickvals"])) == {every}


@pytest.mark.parametrize("top", [1, 5, 10, 11, 37, 99, 250, 4000])
def test_a_count_axis_has_few_whole_ticks(top: int) -> None:
    axis = curves.count_axis(top, "trials")
    assert axis["dtick"] == int(axis["dtick"]) >= 1
    assert top / axis["dtick"] <= 10
    assert axis["range"][1] > top


def least_squares(heights: list[float], gap: float, low: float, high: float) -> np.ndarray:
    """The same by a general solver; heights ascending."""
    n = len(heights)
    apart = LinearConstraint(np.eye(n)[1:] - np.eye(n)[:-1], gap, np.inf)
    start = np.linspace(low, high, n)
    bounds, wanted = [(low, high)] * n, lambda at: np.sum((at - heights) ** 2)
    return np.asarray(minimize(wanted, start, bounds=bounds, constraints=[apart], tol=1e-12).x)


@pytest.mark.parametrize("seed", range(8))
def test_labels_move_apart_as_little_as_possible(seed: int) -> None:
    generator = np.random.default_rng(seed)
    heights = sorted(generator.uniform(0, 100, 6).tolist())
    low, high = (-1e3, 1e3) if seed % 2 else (0.0, 100.0)
    names = dict(zip("fedcba", heights, strict=True))
    placed = curves.spread(names, 12.0, low, high)
    got = [placed[name] for name in names]
    assert min(np.diff(got)) >= 12 - 1e-9
    assert low - 1e-9 <= got[0]
    assert got[-1] <= high + 1e-9
    assert got == pytest.approx(least_squares(heights, 12.0, low, high).tolist(), abs=0.01)
    assert curves.spread({}, 5) == {}
    assert curves.spread({"b": 30.0, "a": 3.0}, 5) == pytest.approx({"a": 3.0, "b": 30.0})  # apart: where they are
    assert curves.spread({"a": 200.0}, 5, 0, 100) == {"a": 100.0}


def test_end_labels_keep_their_order_and_number_and_texts_are_short() -> None:
    labels = curves.end_labels({"a": "● a", "b": "■ b", "c": "c"}, {"b": 50.0, "a": 51.0}, (0.0, 104.0), rows=10)
    assert [label["text"] for label in labels] == ["● a", "■ b", ""]  # c ends nowhere
    assert labels[0]["y"] - labels[1]["y"] == pytest.approx(10.4)
    assert curves.end_labels({"a": "a"}, {"a": 300.0}, (0.0, 104.0))[0]["y"] < 104  # within the plot
    assert curves.signed("halving", style.LOOKS["halving"]) == "▲ halving"
    assert curves.signed("x", style.Look("#000000", "pentagon", "solid")) == "— x"
    assert [curves.percent(share) for share in (0, 0.123, 5.0, 99.6)] == ["0 %", "0.12 %", "5 %", "100 %"]
    assert curves.level(10)["y0"] == curves.level(10)["y1"] == 10


def test_every_look_can_be_drawn_and_layers_are_told_apart_without_colour() -> None:
    assert len({(look.marker, look.dash) for look in style.LAYER_LOOKS}) == len(style.LAYER_LOOKS)
    layout = style.layout("Title", 300, {"title": "x, ms"}, {}, **style.legend_above(60))
    assert (layout["title"]["text"], layout["margin"]["t"]) == ("Title", 60)  # what is given wins
    for look in (*style.LOOKS.values(), *style.LAYER_LOOKS):
        assert len(bytes.fromhex(look.colour.removeprefix("#"))) == 3
        go.Scatter(marker={"symbol": look.marker}, line={"dash": look.dash})  # plotly refuses what it does not know
