from __future__ import annotations

import json
import math
from typing import get_args

import numpy as np
import plotly.graph_objects as go
import pytest

from kit.measure import Estimate, SizeName
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel

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
    for curve in (CURVE._replace(said=("first", "last")), Curve("none")):
        traces = [curves.band(curve, LOOK), curves.line(curve, LOOK, opacity=0.5), curves.points(curve, LOOK)]
        panel = Panel([*traces, curves.pins(curve, "here")], style.layout("title", 300, {}, {}), (curve,))
        json.dumps(panel.figure.to_plotly_json(), allow_nan=False)  # plotly refuses what it does not know
        assert len(panel.figure.data) == 4


def test_under_the_mouse_a_point_says_what_it_is_its_interval_and_where_it_is() -> None:
    drawn = curves.line(CURVE._replace(said=("<first>", "last")), LOOK, "%{x:,.0f} bytes")
    low, high = 100 * POINTS[0][1].low, 100 * POINTS[0][1].high
    assert drawn["customdata"][0] == [pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05), "&lt;first&gt;"]
    what, value, where = drawn["hovertemplate"].split("<br>")
    assert what == "%{fullData.name}: %{customdata[2]}" and where.startswith("%{x:,.0f} bytes<extra>")
    assert value == "%{y:.1f} % (%{customdata[0]} to %{customdata[1]})"
    plain = curves.points(CURVE, LOOK)
    assert len(plain["customdata"]) == 2 and len(plain["customdata"][0]) == 2
    assert "customdata[2]" not in plain["hovertemplate"]
    assert curves.line(Curve("none"), LOOK)["customdata"] == []
    for axis in curves.SIZE_AXES.values():
        assert axis.at.split("}")[1].strip()  # a unit


def test_of_the_pins_the_newest_is_large_named_and_has_its_interval() -> None:
    pins = CURVE._replace(said=("<b>old</b>", "the newest one, which has a very long name"))
    drawn = curves.pins(pins, "here")
    assert [row[2] for row in drawn["customdata"]] == [
        "&lt;b&gt;old&lt;/b&gt;",
        "the newest one, which has a very<br>long name",
    ]
    old, new = drawn["marker"]["size"]
    assert old < new and drawn["marker"]["opacity"] == [0.5, 1]
    assert drawn["error_y"]["array"] == [0, pytest.approx(CURVE.high[1] - CURVE.value[1])]
    (label,) = curves.newest(pins)
    assert (label.text, label.x, label.y) == ("the newest one, which has\na very long name", 50, CURVE.value[1])
    assert curves.newest(Curve("none")) == [] == curves.pins(Curve("none"), "here")["x"]


@pytest.mark.parametrize(
    ("low", "high"), [(1, 10), (0.003, 0.2), (13, 1500), (9.8, 15_000), (2.5, 3.5), (4e-7, 3.0), (1.2, 1.9)]
)
def test_log_ticks_lie_in_range_and_are_neither_many_nor_few(low: float, high: float) -> None:
    ticks = curves.log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    leading = {round(tick / 10 ** math.floor(math.log10(tick) + 1e-9), 6) for tick in ticks}
    assert leading <= ({1, 2, 5} if high / low < 100 else {1})
    assert (2 if high / low > 5 else 0) <= len(ticks) <= 10


def test_a_size_axis_is_logarithmic_with_its_unit() -> None:
    axis = curves.size_axis("nonzeros", [8, 100_000])
    assert axis["range"] == pytest.approx([math.log10(5), math.log10(160_000)])
    ticks = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    assert (ticks[10.0], ticks[1000.0], ticks[100_000.0]) == ("10", "1k", "100k")
    units: dict[SizeName, str] = {"nonzeros": "parameters", "file_bytes": "file", "flops": "FLOPs", "latency": "ms"}
    assert set(units) == set(curves.SIZE_AXES) <= set(get_args(SizeName))
    for size, unit in units.items():
        assert unit in curves.size_axis(size, [1, 10])["title"]
    assert curves.size_axis("file_bytes", [300, 40e3])["ticktext"] == ["1 kB", "10 kB"]
    assert curves.size_axis("file_bytes", [9e6, 9e7])["ticktext"] == ["5 MB", "10 MB", "20 MB", "50 MB", "100 MB"]
    assert curves.size_axis("nonzeros", [2e6, 2e7])["ticktext"] == ["1M", "2M", "5M", "10M", "20M"]


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (614, "614 B"), (9_778, "9.78 kB"), (999_999, "1 MB"), (999.9e6, "1 GB"), (13.48e9, "13.5 GB")],
)
def test_amounts_have_three_digits_and_no_power_of_ten(size: float, said: str) -> None:
    assert curves.amount(size, "B") == said


@pytest.mark.parametrize("seed", range(5))
def test_a_size_axis_shows_all_sizes_wastes_little_and_seldom_moves(seed: int) -> None:
    dice = np.random.default_rng(seed)
    sizes = 10 ** dice.uniform(-3, 5) * 10 ** dice.uniform(0, 2, 30)
    sizes[0] = sizes.max() / 3  # some spread
    low, high = curves.size_axis("latency", sizes)["range"]
    assert low < math.log10(sizes.min()) < math.log10(sizes.max()) < high
    assert math.log10(sizes.max() / sizes.min()) > 0.35 * (high - low)
    bottoms = {curves.size_axis("latency", sizes[: at + 1])["range"][0] for at in range(30)}  # as a curve grows
    assert len(bottoms) <= 3 * 2 + 1  # 1, 2, 5 of each decade
    assert curves.size_axis("latency", []) == curves.size_axis("latency", [1.0])


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


@pytest.mark.parametrize("accuracies", [[30, 94.5], [0, 100], [97, 99], [99.9]])
def test_on_an_error_axis_equal_factors_of_the_error_are_equal_steps(accuracies: list[float]) -> None:
    axis = curves.error_axis(accuracies)
    bottom, top = axis["range"]
    places = [(math.log10(curves.error(each)) - bottom) / (top - bottom) for each in accuracies]
    assert places == sorted(places) and places[0] > 0 and places[-1] < 1  # the best is at the top, and all in sight
    assert [float(text) for text in axis["ticktext"]] == pytest.approx([100 - at for at in axis["tickvals"]])
    assert curves.error(80) == 2 * curves.error(90) and axis["type"] == "log" and curves.error(100) > 0


@pytest.mark.parametrize("top", [1, 5, 10, 11, 37, 99, 250, 4000])
def test_a_count_axis_has_few_whole_ticks(top: int) -> None:
    axis = curves.count_axis(top, "trials")
    assert axis["dtick"] == int(axis["dtick"]) >= 1
    assert top / axis["dtick"] <= 10
    assert axis["range"][1] > top


def test_a_static_figure_shows_the_names_where_they_belong() -> None:
    labels = (
        Label("● a\n<b>", 100, 50),
        Label("b", curve="some"),
        Label("guessing", y=10),
        Label("end", y=40, end=True),
        Label("nothing", curve="other"),
    )
    layout = style.layout("title", 300, {"type": "log"}, {})
    notes = Panel([curves.line(CURVE, LOOK)], layout, labels=labels).figure.layout.annotations
    point, along, level, end, nothing = notes
    assert (point.text, point.x, point.y) == ("● a<br>&lt;b&gt;", 2, 50)  # a log axis takes exponents
    assert (along.x, along.y) == pytest.approx((math.log10(50), 90))
    assert (level.xref, level.x, level.y, end.x, end.y, end.xref) == ("paper", 0, 10, 1, 40, "paper")
    assert nothing.text == "nothing"
    json.dumps(Panel([], layout).figure.to_plotly_json(), allow_nan=False)
    layout = style.layout("title", 300, {}, {"type": "log"})
    (note,) = Panel([], layout, labels=(Label("here", 100, 10),)).figure.layout.annotations
    assert (note.x, note.y) == (100, 1)


def test_names_of_curves_stand_behind_their_signs_and_none_names_nothing() -> None:
    (along,), (end,) = curves.of_curve(CURVE, LOOK, rank=3), curves.at_end(CURVE, LOOK)
    assert along == Label("● some", curve="some", rank=3, colour=LOOK.colour)
    assert end == Label("● some", y=CURVE.value[-1], end=True, colour=LOOK.colour)
    assert curves.of_curve(Curve("none"), LOOK) == [] == curves.at_end(Curve("none"), LOOK)
    assert curves.signed("halving", style.LOOKS["halving"]) == "▲ halving"
    assert curves.signed("x", style.Look("#000000", "pentagon", "solid")) == "— x"
    assert [curves.percent(share) for share in (0, 0.123, 5.0, 99.6)] == ["0 %", "0.12 %", "5 %", "100 %"]
    assert curves.level(10)["y0"] == curves.level(10)["y1"] == 10


@pytest.mark.parametrize(
    ("name", "short", "lines"),
    [
        ("conv1", "conv1", ("conv1",)),
        ("ConvNet, 90 % weights, magnitude", "ConvNet…agnitude", ("ConvNet, 90 % weights,", "magnitude")),
        ("x" * 60, "x" * 7 + "…" + "x" * 8, ("x" * 26, "…" + "x" * 25)),
        ("encoder.blocks.12.attention.proj", "e.b.12.att.proj", ("encoder.blocks.12.attentio", "n.proj")),
        ("block_3.downsample", "blo_3.downsample", ("block_3.downsample",)),
    ],
)
def test_long_names_are_cut_where_they_say_least(name: str, short: str, lines: tuple[str, ...]) -> None:
    assert curves.short(name) == short and len(short) <= 16
    assert curves.short_name(name) == lines


def test_the_worth_of_what_is_found_has_an_even_axis_of_the_best_30_points() -> None:
    assert [curves.incumbent_axis(best)["range"][0] for best in (None, 0.97, 0.6, 0.2)] == [70, 65, 30, 0]
    axis = curves.incumbent_axis(0.97)
    assert axis.get("type", "linear") == "linear" and set(np.diff(axis["tickvals"])) == {10} and axis["range"][1] > 100


def test_every_look_can_be_drawn_and_layers_are_told_apart_without_colour() -> None:
    assert len({(look.marker, look.dash) for look in style.LAYER_LOOKS}) == len(style.LAYER_LOOKS)
    layout = style.layout("Title", 300, {"title": "x, ms"}, {}, **style.legend_above(60))
    assert (layout["title"]["text"], layout["margin"]["t"]) == ("Title", 60)  # what is given wins
    for look in (*style.LOOKS.values(), *style.LAYER_LOOKS):
        assert len(bytes.fromhex(look.colour.removeprefix("#"))) == 3
        go.Scatter(marker={"symbol": look.marker}, line={"dash": look.dash})  # plotly refuses what it does not know
