from __future__ import annotations

import pytest

from kit.cluster import Span
from kit.plots import style
from kit.plots import workers as plots

SPANS = (
    Span(0, 0, 0.0, 60.0, "done"),
    Span(1, 1, 0.0, 30.0, "done"),
    Span(0, 2, 60.0, 120.0, "done"),
    Span(1, 3, 40.0),
)
RUNGS = {1: "1", 8: "8 epochs"}


def test_each_bar_lies_in_the_row_of_its_worker_and_in_the_colour_of_its_rung() -> None:
    panel = plots.timeline_panel(SPANS, {0: 1, 1: 1, 2: 8, 3: 8}, RUNGS, 2)
    waits, first, last = panel.traces
    assert (waits["base"], waits["x"], waits["y"]) == ([0.0, 0.0], [2.0, 2.0], [0, 1])
    assert (first["base"], first["x"], first["y"]) == ([0.0, 0.0], [1.0, 0.5], [0, 1])
    assert (last["base"], last["x"], last["y"]) == ([1.0], [1.0], [0])  # what goes on has no end yet
    assert first["marker"]["color"] != last["marker"]["color"]
    assert "62 %" in panel.layout["title"]["text"]  # 150 of 240 seconds
    assert panel.layout["xaxis"]["range"] == [0, 2.0]


def test_real_seconds_begin_where_the_first_trial_does() -> None:
    later = [Span(0, 0, 10.0, 12.0, "done"), Span(1, 1, 11.0, 14.0, "done")]
    panel = plots.timeline_panel(later, {}, {None: "works"}, 2, unit="seconds")
    waits, works = panel.traces
    assert panel.layout["xaxis"]["range"] == [10.0, 14.0] and waits["base"] == [10.0, 10.0]
    assert works["x"] == [2.0, 3.0] and panel.layout["xaxis"]["title"]["text"] == "seconds"


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_there_are_always_as_many_traces_and_a_few_ticks(workers: int) -> None:
    empty = plots.timeline_panel((), {}, RUNGS, workers)
    assert len(empty.traces) == 3 and len(empty.layout["yaxis"]["tickvals"]) <= 8
    assert empty.layout["yaxis"]["range"] == [workers - 0.5, -0.5]


def test_the_chosen_method_is_drawn_stronger() -> None:
    panel = plots.busy_panel({"random": [(1, 1.0), (2, 0.5)], "ASHA": []}, "random")
    strong, empty = panel.traces
    assert strong["x"] == [1.0, 2.0] and strong["y"] == [100.0, 50.0] and not empty["x"]
    assert strong["line"]["width"] > empty["line"]["width"]
    assert strong["line"]["color"] == style.LOOKS["random"].colour
    assert [label.text for label in panel.labels] == ["◆ random"]
