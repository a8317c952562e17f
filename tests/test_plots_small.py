"""The numbers in the figures of intervals, the board and sensitivity; no pixels."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest

from kit.measure import Estimate
from kit.plots import board, interval, sensitivity
from kit.plots.curves import Panel
from kit.prune import Sensitivity


def named(panel: Panel) -> dict[str, Any]:
    """The traces by name; that plotly takes them, and that every number is one."""
    assert len(panel.figure.data) == len(panel.traces)
    json.dumps([list(panel.traces), panel.layout], allow_nan=False)
    return {trace["name"]: trace for trace in panel.traces}


@pytest.mark.parametrize(("truth", "n"), [(0.5, 10), (0.96, 50), (0.9, 539), (1.0, 20), (0.0, 7)])
def test_error_bound_holds_95_of_100_readings_and_is_the_smallest_that_does(truth: float, n: int) -> None:
    def within(bound: float) -> float:
        shares = (math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1))
        return sum(share for k, share in enumerate(shares) if abs(k / n - truth) <= bound + 1e-12)

    bound = interval.error_bound(truth, n)
    assert within(bound) >= 0.95 - 1e-9
    assert bound == 0 or within(bound - 1e-9) < 0.95


def test_intervals_are_split_by_whether_they_hold_the_truth_and_inside_the_axis() -> None:
    readings = [Estimate.from_counts(count, 50) for count in (48, 0, 50, 45)]
    panel, empty = interval.intervals_panel(readings, 0.95, 10, 40), interval.intervals_panel([], None, 10, 40)
    traces = named(panel)
    holding, missing = traces["holds the truth"], traces["misses the truth"]
    assert holding["x"] == [1, 3, 4] and missing["x"] == [2] and missing["y"] == [0]
    assert missing["error_y"]["array"] == [pytest.approx(100 * readings[1].high)]
    assert traces["truth"]["y"] == [95.0, 95.0]
    assert all(holding["marker"][cue] != missing["marker"][cue] for cue in ("symbol", "color"))
    low, high = panel.layout["yaxis"]["range"]
    assert low <= 100 * readings[1].low and high >= 100
    assert all(trace["x"] == [] for trace in named(empty).values())
    assert [(label.text, label.y) for label in panel.labels] == [("truth\n95.0 %", 95)] and empty.labels == ()


def rows(*pins: tuple[str, str, int, float, int]) -> pd.DataFrame:
    made = pd.DataFrame(pins, columns=["name", "technique", "nonzeros", "accuracy", "batch_size"])
    ends = {"accuracy_low": made["accuracy"] - 0.02, "accuracy_high": made["accuracy"] + 0.01}
    return made.assign(latency=made["nonzeros"] / 1000, n=100, **ends)


PINS = rows(
    *[("big", "dense", 9000, 0.95, 1), ("small", "pruning", 500, 0.8, 1), ("worse", "mine", 8000, 0.7, 1)],
    *[("middle", "distillation", 2000, 0.93, 1)],
)


def test_board_draws_each_technique_apart_and_the_front_as_steps() -> None:
    traces = named(board.board_panel(board.board_pins(PINS, PINS.drop(2), "nonzeros"), "nonzeros", 10))
    front = traces["Pareto front"]
    assert front["x"][:-1] == [500, 2000, 9000] and front["y"] == [80, 93, 95, 95]
    assert traces["other"]["customdata"][0] == [68, 71, "worse (mine)"]
    assert traces["search"]["x"] == [] and not traces["search"]["showlegend"]
    assert traces["pruning"]["error_y"]["arrayminus"] == [pytest.approx(2)]
    assert len({trace["marker"]["symbol"] for trace in traces.values() if trace is not front}) == len(board.TECHNIQUES)
    pins = rows(("a", "pruning", 10, 0.5, 1), ("b", "pruning", 20, 0.6, 1), ("c", "pruning", 15, 0.4, 256))
    front = named(board.board_panel(board.board_pins(pins, pins, "latency"), "latency", 10))["Pareto front"]
    assert front["y"] == [50, 60, 60, None, 40, 40]  # latencies of different batch sizes are not joined


@pytest.mark.parametrize("number", [0, 4, 45])
def test_board_names_the_front_first_and_not_too_many(number: int) -> None:
    pins = rows(*[(f"pin {at}", "pruning", 100 + at, 0.5 + at / 100, 1) for at in range(number)])
    panel = board.board_panel(board.board_pins(pins, pins[::2], "nonzeros"), "nonzeros", 10)
    names = [label.text for label in sorted(panel.labels, key=lambda label: label.rank)]
    assert named(panel) and ("guessing" in names) == (number == 0)  # else it lies below the axis
    front, others = ([f"pin {at}" for at in range(start, number, 2)] for start in (0, 1))
    assert names == ([*front, *others][: board.MAX_LABELS] or ["guessing"])
    pins = rows(("<b>a & b</b>", "pruning", 10, 0.5, 1))  # read as no HTML, neither here nor there
    panel = board.board_panel(board.board_pins(pins, pins, "nonzeros"), "nonzeros", 10)
    assert panel.labels[0].text == "<b>a & b</b>" and "&lt;b&gt;a &amp; b" in str(panel.figure.layout.annotations[0])


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
    allocation = {"layer0.weight": 0.25, "layer1.weight": 0.5, "layer2.weight": 0.98}
    traces = named(sensitivity.sensitivity_panel(scan(3), allocation))
    assert traces["layer0"]["x"] == [0, 50, 98] and traces["layer0"]["y"] == pytest.approx([100, 55, 12])
    assert len(traces) == 7 and len(traces["interval of layer0"]["x"]) == 6
    marks = traces["allocation"]
    assert marks["x"] == [25, 50, 98] and marks["y"][0] == pytest.approx(77.5)
    assert len({traces[f"layer{at}"]["line"]["dash"] for at in range(3)}) == 3
    bars = named(sensitivity.allocation_panel(scan(3).sizes, allocation, 0.6))
    assert bars["uniform"]["x"] == [60, 60] and bars["allocation"]["text"] == ["25 %", "50 %", "98 %"]
    assert named(sensitivity.allocation_panel(scan(3).sizes, {}, 0.6))["allocation"]["x"] == []
    ways = named(sensitivity.ways_panel({"global": Estimate.from_counts(9, 10)}))
    assert [trace["y"] for trace in ways.values()] == [[], [], ["global"], []] and ways["global"]["x"] == [90]


def test_many_layers_are_thin_and_grey_but_for_the_two_extremes() -> None:
    panel = sensitivity.sensitivity_panel(scan(12), {})
    traces = named(panel)
    thick = [at for at in range(12) if traces[f"layer{at}"]["line"]["width"] > 1]
    assert thick == [0, 11] == [at for at in range(12) if traces[f"interval of layer{at}"]["x"]]
    wanted = [("■ layer0 (most sensitive)", "layer0"), ("● layer11 (least)", "layer11")]
    assert [(label.text, label.curve) for label in panel.labels] == wanted
    assert sensitivity.sensitivity_panel(scan(12, points=0), {}).labels == ()
    growing = scan(3, points=1)
    growing.accuracy["layer2.weight"] = ()
    panel = sensitivity.sensitivity_panel(growing, {})
    assert len(named(panel)) == 7 and named(panel)["allocation"]["x"] == []  # as many as a complete one
    assert [(label.text, label.end) for label in panel.labels] == [("● layer0", True), ("■ layer1", True)]
