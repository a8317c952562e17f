"""Figures of merging, read without pixels."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from kit import models
from kit.compress import align
from kit.compress.line import Point
from kit.data import Dataset
from kit.measure import Estimate
from kit.plots import merge as plots
from tests.texts import LENGTH, WORDS, ordered


def point(t: float, right: int, loss: float) -> Point:
    """Of ten samples."""
    return Point(t, torch.arange(10) < right, torch.linspace(0, 2 * loss, 10).double())


LINE = [point(0, 9, 0.3), point(0.5, 3, 2.0), point(1, 8, 0.5)]
MATCHED = [LINE[0], point(0.5, 8, 0.6), LINE[2]]


def named(panel: Any, name: str) -> dict[str, Any]:
    return next(trace for trace in panel.traces if trace.get("name") == name)


def test_the_line_shows_accuracy_in_per_cent_with_its_intervals() -> None:
    panel = plots.line_panel([LINE, MATCHED[:2]], "accuracy", 10.0)
    assert named(panel, "as they are")["y"] == [90, 30, 80] and named(panel, "matched")["y"] == [90, 80]
    low, high = (100 * end for end in (Estimate.from_counts(3, 10).low, Estimate.from_counts(3, 10).high))
    assert panel.curves[0].low[1] == pytest.approx(low) and panel.curves[0].high[1] == pytest.approx(high)
    assert "%" in panel.layout["yaxis"]["title"]["text"] and len(panel.layout["shapes"]) == 1
    assert named(panel, "straight line")["y"] == []
    assert [label.text for label in panel.labels] == ["◆ as they are", "● matched", "guessing"]
    ticks = panel.layout["xaxis"]
    assert (ticks["ticktext"][0], ticks["ticktext"][-1], ticks["tickvals"][-1]) == ("a", "b", 1)


def test_the_line_shows_the_loss_in_nats_above_the_straight_line() -> None:
    panel = plots.line_panel([LINE, MATCHED], "loss", 10.0)
    assert named(panel, "as they are")["y"] == pytest.approx([0.3, 2.0, 0.5])
    assert named(panel, "straight line")["x"] == [0, 1]
    assert named(panel, "straight line")["y"] == pytest.approx([0.3, 0.5])
    bottom, top = panel.layout["yaxis"]["range"]
    assert 0 < len(panel.layout["yaxis"]["tickvals"]) < 10  # else those of the accuracy stay
    assert bottom == 0 and max(panel.curves[0].high) < top < 2 * max(panel.curves[0].high)
    assert "nats" in panel.layout["yaxis"]["title"]["text"] and not panel.layout["shapes"]
    assert all("nats" in named(panel, name)["hovertemplate"] for name in plots.LINES)


def test_there_are_as_many_traces_before_anything_is_measured() -> None:
    nothing: list[list[Point]] = [[], []]
    for show in plots.SHOWS:
        empty, full = (plots.line_panel(lines, show, 10.0) for lines in (nothing, [LINE, MATCHED]))
        assert [trace.get("name") for trace in empty.traces] == [trace.get("name") for trace in full.traces]
        json.dumps([empty.traces, empty.layout], allow_nan=False)
    assert len(plots.beside_panel({}, 5).traces) == len(plots.ROWS)


def test_what_is_measured_stands_in_its_row() -> None:
    found = {name: Estimate.from_counts(right, 10) for name, right in zip(plots.ROWS, (9, 8, 3, 9, 10), strict=True)}
    panel = plots.beside_panel({name: found[name] for name in list(found)[:3]}, 1234)
    assert [trace["y"] for trace in panel.traces] == [["network a"], ["network b"], ["average"], [], []]
    assert [trace["x"] for trace in panel.traces[:3]] == [[90], [80], [30]]
    assert panel.layout["xaxis"]["range"][0] <= 100 * found["average"].low
    assert panel.layout["title"]["text"] == "1,234 parameters each, ensemble 2,468"
    assert plots.beside_panel({}, 5, lowest=12.3).layout["xaxis"]["range"][0] == 10  # of the whole line


@pytest.mark.parametrize("size", [12, 5])
def test_pairs_stand_below_each_other_with_the_most_alike_first(digits: Dataset, size: int) -> None:
    a, b = (models.MLP((64, size, 10), seed=seed) for seed in range(2))
    found = align(b, a, dataset=digits)
    first, second = a.get_parameter("layers.0.weight"), b.get_parameter("layers.0.weight")
    panel = plots.pairs_panel(a, b, found, "layers.0", digits.input_shape)
    shown = min(size, plots.PAIRS)
    picture = np.array(panel.traces[0]["z"], dtype=float)
    assert picture.shape == (3 * 8 + 2, shown * 9 - 1)
    best = int(np.argmax(found.after["layers.0"]))
    came = found.permutations["layers.0"][best]
    for row, weights in enumerate((first[best], second[best], second[came])):
        tile = weights.detach().numpy().reshape(8, 8)
        assert np.allclose(picture[9 * row : 9 * row + 8, :8], tile / np.abs(tile).max(), atol=1e-6)
    axis = panel.layout["xaxis"]
    assert axis["ticktext"][0] == f"{came}→{best}" and len(axis["ticktext"]) == shown
    assert axis["tickvals"][:2] == [3.5, 12.5]


def test_strips_are_folded_and_nothing_is_drawn_where_nothing_is_matched(digits: Dataset) -> None:
    a, b = (models.MLP((64, 10, 4, 10), seed=seed) for seed in range(2))
    panel = plots.pairs_panel(a, b, align(b, a, dataset=digits), "layers.1", digits.input_shape)
    assert np.array(panel.traces[0]["z"], dtype=float).shape == (3 * 3 + 2, 4 * 4 + 3)  # 10 weights in 3 x 4
    assert math.ceil(math.sqrt(10)) == 4
    assert plots.pairs_panel(a, b, None, "none", digits.input_shape).traces[0]["z"] == []
    conv = models.ConvNet(channels=(4, 4), hidden=6), models.ConvNet(channels=(4, 4), hidden=6, seed=1)
    found = align(conv[1], conv[0], dataset=digits)
    for layer in found.permutations:
        json.dumps(plots.pairs_panel(*conv, found, layer, digits.input_shape).traces, allow_nan=False)


def test_a_head_is_one_tile_of_all_its_outputs() -> None:
    letters = ordered()
    a, b = (models.Transformer(WORDS, LENGTH, 2, width=16, heads=4, layers=1, seed=seed) for seed in (1, 2))
    found = align(b, a, dataset=letters)
    panel = plots.pairs_panel(a, b, found, layer := "blocks.0.attention.query", letters.input_shape)
    picture = np.array(panel.traces[0]["z"], dtype=float)
    assert picture.shape == (3 * 8 + 2, 4 * 9 - 1)  # four outputs of 16 weights, in 8 x 8
    for column, best in enumerate(np.argsort(found.after[layer])[::-1]):
        for row, (net, head) in enumerate(((a, best), (b, best), (b, found.permutations[layer][best]))):
            tile = net.get_parameter(f"{layer}.weight").detach().numpy()[4 * head : 4 * head + 4].reshape(8, 8)
            shown = picture[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            assert np.allclose(shown, tile / np.abs(tile).max(), atol=1e-6)
