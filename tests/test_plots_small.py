"""The numbers in the figures of intervals, the board and sensitivity; no pixels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd
import pytest

from kit.measure import Estimate
from kit.plots import board as board_plots
from kit.plots import interval, sensitivity, still
from kit.plots.prune import Traces
from kit.prune import Sensitivity


def finite(traces: Traces) -> bool:
    """Whether every painted number is one, or None."""

    def check(value: Any) -> bool:
        if isinstance(value, dict):
            return all(map(check, value.values()))
        if isinstance(value, list):
            return all(map(check, value))
        return not isinstance(value, float) or math.isfinite(value)

    return all(map(check, traces))


# -- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("truth", "n"), [(0.5, 10), (0.96, 50), (0.9, 539), (1.0, 20), (0.0, 7)])
def test_error_bound_holds_95_of_100_readings_and_is_the_smallest_that_does(truth: float, n: int) -> None:
    def within(bound: float) -> float:
        shares = (math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1))
        return sum(share for k, share in enumerate(shares) if abs(k / n - truth) <= bound + 1e-12)

    bound = interval.error_bound(truth, n)
    assert within(bound) >= 0.95 - 1e-9
    assert bound == 0 or within(bound - 1e-9) < 0.95


def test_intervals_are_split_by_whether_they_hold_the_truth() -> None:
    readings = [Estimate.from_counts(count, 50) for count in (48, 30, 50, 45)]
    info = interval.intervals_info(readings, 0.95, 10)
    truth, holding, missing = interval.intervals_traces(info)
    assert info.held == (True, False, True, True)
    assert holding["x"] == [1, 3, 4] and missing["x"] == [2]
    assert missing["y"] == [60.0] and truth["y"] == [95.0, 95.0]
    low = missing["y"][0] - missing["error_y"]["arrayminus"][0]
    assert low == pytest.approx(100 * readings[1].low)
    figure = interval.intervals_figure(info, 4)
    drawn = {trace.name: (trace.marker.color, trace.marker.symbol) for trace in figure.data[1:]}
    assert len({colour for colour, _ in drawn.values()}) == len({symbol for _, symbol in drawn.values()}) == 2


def test_intervals_are_inside_the_axis_and_nothing_is_drawn_before_the_first_reading() -> None:
    readings = [Estimate.from_counts(count, 10) for count in (0, 10)]
    layout = interval.intervals_layout(interval.intervals_info(readings, 0.9, 10))
    low, high = layout["yaxis"]["range"]
    assert low <= 100 * readings[0].low and high >= 100
    empty = interval.intervals_info([], None, 10)
    assert all(trace["x"] == [] for trace in interval.intervals_traces(empty))
    assert len(interval.intervals_layout(empty)["annotations"]) == len(layout["annotations"])


# -- the board -----------------------------------------------------------------------------------------------------


def rows(*pins: tuple[str, str, int, float, int]) -> pd.DataFrame:
    made = [
        {
            **{"name": name, "technique": technique, "nonzeros": size, "latency": size / 1000, "batch_size": batch},
            **{"accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.01},
        }
        for name, technique, size, accuracy, batch in pins
    ]
    columns = ["name", "technique", "nonzeros", "latency", "batch_size", "accuracy", "accuracy_low", "accuracy_high"]
    return pd.DataFrame(made, columns=columns)


PINS = rows(
    *[("big", "dense", 9000, 0.95, 1), ("small", "pruning", 500, 0.8, 1), ("worse", "mine", 8000, 0.7, 1)],
    *[("middle", "distillation", 2000, 0.93, 1)],
)


def test_board_draws_each_technique_apart_and_the_front_as_steps() -> None:
    info = board_plots.board_info(PINS, PINS.drop(2), "nonzeros", 10)
    traces = dict(zip(("front", *board_plots.TECHNIQUES), board_plots.board_traces(info), strict=True))
    assert traces["front"]["x"][:-1] == [500, 2000, 9000] and traces["front"]["y"] == [80, 93, 95, 95]
    assert traces["other"]["hovertext"] == ["worse (mine)"]
    assert traces["search"]["x"] == [] and not traces["search"]["showlegend"]
    assert traces["pruning"]["error_y"]["arrayminus"] == [pytest.approx(2)]
    looks = [board_plots.look(technique) for technique in board_plots.TECHNIQUES]
    assert len({look.marker for look in looks}) == len(looks)
    assert board_plots.board_figure(info).layout.xaxis.type == "log"


def test_board_does_not_join_latencies_of_different_batch_sizes() -> None:
    pins = rows(("a", "pruning", 10, 0.5, 1), ("b", "pruning", 20, 0.6, 1), ("c", "pruning", 15, 0.4, 256))
    info = board_plots.board_info(pins, pins, "latency", 10)
    xs, ys = board_plots.front_line(info)
    assert ys == [50, 60, 60, None, 40, 40] and xs.count(None) == 1


def test_board_keeps_the_number_of_its_labels() -> None:
    many = rows(*[(f"pin {at}", "pruning", 100 + at, 0.5 + at / 100, 1) for at in range(45)])
    for pins in (PINS[:0], PINS, many):
        layout = board_plots.board_layout(board_plots.board_info(pins, pins, "nonzeros", 10))
        assert len(layout["annotations"]) == board_plots.MAX_LABELS + 1
        shown = [mark["text"] for mark in layout["annotations"][1:] if mark["visible"]]
        assert len(shown) == len(set(shown)) and set(shown) <= set(pins["name"])
    assert finite(board_plots.board_traces(board_plots.board_info(many, many, "nonzeros", 10)))


def test_labels_never_meet_each_other_or_a_point() -> None:
    points = [(250.0 + 3 * at, 40.0 + (at * 7) % 11) for at in range(12)]
    offsets = board_plots.place_labels(points, [(120.0, 30.0)] * 12, 500, 320)
    boxes = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    for (x, y), offset in zip(points, offsets, strict=True):
        if offset is not None:
            middle_x, middle_y = x + offset[0], y + offset[1]
            boxes.append((middle_x - 60, middle_y - 15, middle_x + 60, middle_y + 15))
    labels = boxes[12:]
    assert len(labels) >= 8
    for at, one in enumerate(labels):
        for other in boxes[: 12 + at]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("short", ("short",)),
        ("ConvNet, 90 % weights, magnitude", ("ConvNet, 90 % weights,", "magnitude")),
        ("x" * 60, ("x" * 26, "…" + "x" * 25)),
    ],
)
def test_long_names_get_two_lines(name: str, lines: tuple[str, ...]) -> None:
    assert board_plots.short_name(name) == lines


def test_names_are_not_read_as_html() -> None:
    pins = rows(("<b>a & b</b>", "pruning", 10, 0.5, 1))
    layout = board_plots.board_layout(board_plots.board_info(pins, pins, "nonzeros", 10))
    assert layout["annotations"][1]["text"] == "&lt;b&gt;a &amp; b&lt;/b&gt;"


# -- sensitivity ---------------------------------------------------------------------------------------------------


def scan(layers: int, points: int = 3) -> Sensitivity:
    """Layer 0 is the most sensitive, the last one the least."""
    ratios = (0.0, 0.5, 0.98)
    curves = {
        f"layer{at}.weight": tuple(
            Estimate.from_counts(100 - round(90 * ratio * (layers - at) / layers), 100) for ratio in ratios[:points]
        )
        for at in range(layers)
    }
    return Sensitivity(ratios, curves, dict.fromkeys(curves, 10))


def test_sensitivity_draws_a_band_and_a_curve_a_layer_and_marks_the_allocation() -> None:
    whole = scan(3)
    allocation = {"layer0.weight": 0.25, "layer1.weight": 0.5, "layer2.weight": 0.98}
    info = sensitivity.sensitivity_info(whole, allocation, 0.6)
    traces = sensitivity.sensitivity_traces(info)
    assert len(traces) == 7 and traces[1]["x"] == [0, 50, 98] and traces[1]["y"] == pytest.approx([100, 55, 12])
    assert traces[0]["y"] == [100 * e for e in [x.high for x in whole.accuracy["layer0.weight"]]] + [
        100 * x.low for x in reversed(whole.accuracy["layer0.weight"])
    ]
    marks = traces[-1]
    assert marks["x"] == [25, 50, 98] and marks["y"][0] == pytest.approx(77.5)
    assert sensitivity.extremes(info) == (0, 2)
    looks = {(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in traces[1:-1:2]}
    assert len(looks) == 3
    uniform, allocated = sensitivity.allocation_traces(info)
    assert uniform["x"] == [60, 60, 60] and allocated["text"] == ["25 %", "50 %", "98 %"]


def test_a_growing_scan_has_as_many_traces_and_labels_as_a_complete_one() -> None:
    growing = scan(3, points=1)
    growing.accuracy["layer2.weight"] = ()
    info = sensitivity.sensitivity_info(growing, {}, 0.6)
    assert len(sensitivity.sensitivity_traces(info)) == 7
    assert len(sensitivity.sensitivity_layout(info)["annotations"]) == 3
    assert sensitivity.sensitivity_traces(info)[-1]["x"] == []


def test_many_layers_are_thin_and_grey_but_for_the_two_extremes() -> None:
    info = sensitivity.sensitivity_info(scan(12), {}, 0.6)
    looks = sensitivity.looks(info)
    assert [at for at, look in enumerate(looks) if look is not None] == [0, 11]
    texts = [mark["text"] for mark in sensitivity.sensitivity_layout(info)["annotations"]]
    assert texts == ["layer0 (most sensitive)", "layer11 (least)"]
    assert finite(sensitivity.sensitivity_traces(info)) and sensitivity.sensitivity_figure(info).data


def test_labels_of_curves_that_end_together_are_spread() -> None:
    info = sensitivity.sensitivity_info(scan(8, points=1), {}, 0.6)
    heights = sorted(mark["yshift"] for mark in sensitivity.sensitivity_layout(info)["annotations"])
    assert all(above - below >= 15 - 1e-9 for below, above in itertools.pairwise(heights))


def test_ways_are_drawn_once_they_are_known() -> None:
    traces = sensitivity.ways_traces({"global": Estimate.from_counts(9, 10)})
    assert [trace["y"] for trace in traces] == [[], [], ["global"], []] and traces[2]["x"] == [90]
    assert len(sensitivity.ways_figure({}).data) == 4


# -- still pictures ------------------------------------------------------------------------------------------------


def test_still_pictures_are_pngs() -> None:
    readings = [Estimate.from_counts(count, 50) for count in (48, 30)]
    pictures = [
        still.intervals_png(interval.intervals_info(readings, 0.95, 10)),
        still.intervals_png(interval.intervals_info([], None, 10)),
        still.board_png(board_plots.board_info(PINS, PINS, "nonzeros", 10)),
        still.board_png(board_plots.board_info(PINS[:0], PINS[:0], "nonzeros", 10)),
        still.sensitivity_png(sensitivity.sensitivity_info(scan(3), {"layer0.weight": 0.3}, 0.5)),
        still.sensitivity_png(sensitivity.sensitivity_info(scan(12), {}, 0.5)),
        still.table_png("costs $x and $y", ["a $", "b"], [["1", "two $z$"]], [True, False]),
        still.table_png("empty", ["a"], [], [True]),
        still.table_png("nothing", [], [], []),
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
