from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from kit.compress import Ledger
from kit.measure import Estimate
from kit.plots import compress as plots
from kit.plots.curves import Curve, Panel


def curve(label: str, *points: tuple[float, int]) -> Curve:
    return Curve.of(label, [(size, Estimate.from_counts(right, 100)) for size, right in points])


FULL = [
    curve("shared", (30, 90), (20, 80)),
    curve("uniform grid", (50, 90), (30, 80)),
    curve("pruning alone", (400, 90), (100, 80)),
]


def plane(ways: Any = FULL, chosen: str = "shared", pins: Curve | None = None) -> Panel:
    dense, pinned = curve("dense model", (600, 95)), pins or curve("pins")
    return plots.plane_panel(ways, chosen, dense=dense, pins=pinned, dense_size=600.0, chance=10.0)


def test_the_plane_has_all_curves_and_the_interval_of_the_chosen_one() -> None:
    panel = plane(chosen="uniform grid")
    names = [trace["name"] for trace in panel.traces]
    assert names == ["interval", "shared", "uniform grid", "pruning alone", "dense model", "on the board"]
    assert panel.traces[0]["y"][:2] == pytest.approx(list(FULL[1].high))
    low, high = panel.layout["xaxis"]["range"]
    assert 10**low < 600 / 50 and 10**high > 600
    assert {"◆ shared", "■ uniform grid", "● pruning alone", "dense", "guessing"} == {
        each.text for each in panel.labels
    }
    empty = [curve(each.label) for each in FULL]
    assert len(plane(empty).traces) == len(panel.traces)
    tiny = plane(pins=curve("pins", (0.2, 30))._replace(said=("tiny",)))
    assert 10 ** tiny.layout["xaxis"]["range"][0] < 0.2 and "tiny" in {each.text for each in tiny.labels}


def test_a_bar_shows_all_bytes_of_a_file_and_says_how_much_smaller_it_is() -> None:
    steps = {
        "dense": Ledger(values=0, gaps=0, codebooks=0, tables=0, header=1_000, raw=99_000),
        "pruned": Ledger(values=10_000, gaps=5_000, codebooks=0, tables=0, header=500, raw=4_500),
        "Huffman": Ledger(values=500, gaps=300, codebooks=60, tables=40, header=100, raw=0),
    }
    panel = plots.bytes_panel(steps)
    *parts, total = panel.traces
    assert [trace["name"] for trace in parts] == ["values", "gaps", "codebooks", "tables", "header", "raw"]
    for row in range(len(steps)):
        assert sum(trace["x"][row] for trace in parts) == pytest.approx(100)
    assert total["text"] == ["100 kB", "20 kB, 5x", "1 kB, 100x"]
    assert parts[0]["x"] == pytest.approx([0, 50, 50]) and {*parts[0]["text"]} == {"values"}
    assert panel.layout["uniformtext"] == {"mode": "hide", "minsize": 12}  # a name that does not fit is left out
    assert "codebooks: 60 bytes, 6.0 %" in parts[2]["hovertext"]
    assert panel.layout["yaxis"]["ticktext"] == ["dense", "pruned", "Huffman"]


def test_sticks_stand_at_the_values_and_are_as_high_as_they_are_frequent() -> None:
    before = torch.arange(-50, 51) / 50  # its middle is zero
    after = torch.where(before > 0, 0.5, torch.where(before < 0, -0.25, 0.0))
    histogram, sticks = plots.codebook_panel("fc1.weight", before, after).traces
    assert sum(histogram["y"]) == 100
    assert sticks["x"] == [-0.25, -0.25, None, 0.5, 0.5, None] and sticks["y"] == [0.0, 50, None, 0.0, 50, None]
    assert plots.codebook_panel("fc1.weight", before, after).layout["title"]["text"] == "fc1: 2 values (grey: before)"
    own = plots.codebook_panel("fc1.weight", before, before)  # each weight has its own value
    assert own.traces[1]["x"] == [] and own.layout["title"]["text"] == "fc1: 100 values (grey: before)"
    for strange in (torch.zeros(4), torch.tensor([math.nan, math.inf, 1.0])):
        assert len(plots.codebook_panel("w", strange, strange).traces) == 2


def test_the_error_of_each_layer_stands_beside_the_rule_of_six_decibels() -> None:
    sizes = {"conv1.weight": 100, "fc.weight": 1000}
    bars, rule = plots.error_panel(sizes, {"conv1.weight": math.inf, "fc.weight": 31.2}, 5).traces
    assert bars["text"] == ["exact", "31.2"] and bars["x"] == [0.0, 31.2]
    assert bars["textposition"] == ["outside", "inside"] and bars["insidetextanchor"] == "start"  # clear of the rule
    assert rule["x"] == pytest.approx([30.1, 30.1], abs=0.01) and rule["visible"]
    exact = plots.error_panel(sizes, dict.fromkeys(sizes, math.inf), 0)
    assert exact.traces[0]["text"] == ["exact", "exact"] and not exact.traces[1]["visible"]


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize("strange", [0.0, math.nan, math.inf, -math.inf])
def test_values_counted_in_parts_are_all_of_them(monkeypatch: pytest.MonkeyPatch, many: int, strange: float) -> None:
    drawn = torch.randint(0, 40, (30, 20), generator=torch.Generator().manual_seed(0)).float()
    weight = (drawn - 20).where(drawn != 3, strange)
    monkeypatch.setattr(plots, "PART", 64)
    monkeypatch.setattr(plots, "MANY", many)
    values, counts = np.unique(weight[weight.isfinite() & (weight != 0)].numpy(), return_counts=True)
    panel = plots.codebook_panel("w", weight, weight)
    assert panel.layout["title"]["text"] == f"w: {len(values)} values (grey: before)"
    histogram, sticks = panel.traces
    assert sum(histogram["y"]) == counts.sum()
    drawn_counts = [each for each in sticks["y"] if each]
    assert drawn_counts == (counts.tolist() if many == 1000 else [])
