from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit import cost
from kit.cost import Bound, Step
from kit.plots import cost as plots
from kit.plots.cost import Phase

STEPS = {"decode": cost.LLAMA_7B.decode(), "prefill": cost.LLAMA_7B.prefill()}


def bounded(hardware: cost.Hardware) -> dict[Phase, tuple[Step, Bound]]:
    return {
        "decode": (STEPS["decode"], cost.bound(STEPS["decode"], hardware)),
        "prefill": (STEPS["prefill"], cost.bound(STEPS["prefill"], hardware)),
    }


def named(panel: Any, name: str) -> dict[str, Any]:
    return next(dict(trace) for trace in panel.traces if trace["name"] == name)


def test_the_roof_is_the_bandwidth_up_to_the_bend_and_then_the_peak() -> None:
    roof = named(plots.roofline_panel(cost.H100, bounded(cost.H100), ()), "roof")
    peak, bend = 989.4, 989.4e12 / 3.35e12
    for x, y in zip(roof["x"], roof["y"], strict=True):
        assert y == pytest.approx(min(peak, 3.35 * x))
    assert any(x == pytest.approx(bend) for x in roof["x"])


def test_steps_stand_under_the_roof_where_they_belong() -> None:
    panel = plots.roofline_panel(cost.H100, bounded(cost.H100), [(1, *bounded(cost.H100)["decode"])])
    decode, prefill, walk = (named(panel, name) for name in ("decode", "prefill", "decode, by texts"))
    assert decode["x"] == [STEPS["decode"].flops / STEPS["decode"].bytes] == walk["x"]
    assert decode["y"][0] == pytest.approx(3.35 * decode["x"][0])  # on the slope, TFLOP/s
    assert prefill["y"] == [pytest.approx(989.4)] and walk["customdata"] == ["1"]
    texts = [label.text for label in panel.labels]
    assert "● decode: 4.27 ms or more" in texts and "memory: 3.35 TB/s" in texts
    assert "compute, 16 bits: 989 TFLOP/s" in texts


def test_a_measured_roof_has_its_interval() -> None:
    ends = replace(cost.H100, bandwidth=3e12), replace(cost.H100, bandwidth=4e12)
    measured = replace(cost.H100, interval=ends)
    panel = plots.roofline_panel(measured, bounded(measured), ())
    outline = named(panel, "interval of roof")
    count = len(outline["x"]) // 2
    assert outline["y"][0] == pytest.approx(4 * outline["x"][0]) and outline["y"][-1] == pytest.approx(
        3 * outline["x"][-1]
    )
    assert outline["x"][:count] == outline["x"][count:][::-1]
    at, value, low, high = plots.place(*bounded(measured)["decode"])
    assert low < value < high and (low, high) == (pytest.approx(3 * at), pytest.approx(4 * at))


def test_there_are_always_as_many_traces() -> None:
    whole = bounded(cost.H100)
    encoder: dict[Phase, tuple[Step, Bound]] = {"prefill": whole["prefill"]}
    panels = [plots.roofline_panel(None, {}, ())]
    panels += [plots.roofline_panel(cost.H100, steps, ()) for steps in (encoder, whole)]
    assert {len(panel.traces) for panel in panels} == {5}
    rows = cost.compressions(cost.BERT_BASE, cost.H100)
    bought = plots.bought_panel((), "decode"), plots.bought_panel(rows, "prefill")
    assert {len(panel.traces) for panel in bought} == {3}


def test_bars_are_in_one_unit_and_the_title_gives_the_verdict() -> None:
    panel = plots.memory_panel({"weights": 13.5e9, "cache": 500e6}, 8e9)
    (bars,) = panel.traces
    assert (bars["y"], bars["x"], bars["text"]) == (["weights", "cache"], [13.5, 0.5], ["13.5 GB", "500 MB"])
    assert panel.layout["title"]["text"] == "Where memory goes: 14 GB of 8 GB, too much"
    assert "too much" not in plots.memory_panel({"weights": 8e9}, 8e9).layout["title"]["text"]


def test_a_compression_stands_at_the_ratio_to_the_first_row() -> None:
    rows = cost.compressions(cost.LLAMA_7B, cost.H100, context=512)
    panel = plots.bought_panel(rows, "decode")
    less, time, other = (named(panel, name) for name in ("bytes", "decode", "prefill"))
    at = less["y"].index("4 bits")
    four = next(each for each in rows if each.name == "4 bits")
    assert less["x"][at] == rows[0].memory / four.memory
    assert four.decode and rows[0].decode
    assert time["x"][at] == rows[0].decode.seconds / four.decode.seconds and other["x"] == []
    assert less["x"][0] == time["x"][0] == 1  # zeros buy neither


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (plots.count(174.6e9), "175 B"),
        (plots.count(22.7e6), "22.7 M"),
        (plots.seconds(4.265e-3), "4.26 ms"),
        (plots.seconds(0.9999), "1 s"),
        (plots.seconds(97.7e-6), "97.7 µs"),
        (plots.seconds(30351), "8.43 hours"),
        (plots.seconds(1e-12), "0.001 ns"),
    ],
)
def test_numbers_are_said_in_three_digits(said: str, text: str) -> None:
    assert said == text
