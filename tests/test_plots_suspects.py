"""Figures of wrong labels, read without pixels."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from kit.data import Dataset, Split
from kit.measure import Estimate
from kit.plots import suspects as plots
from kit.search.gradient import Cleaned, State

WEIGHTS = torch.tensor([0.0, 0.02, 0.5, 0.99, 1.0, 1.0])
FLIPPED = torch.tensor([True, True, False, True, False, False])


def learned(weights: torch.Tensor) -> Cleaned:
    return Cleaned(weights, torch.zeros_like(weights), weights, 0.0, State({}, {}), 0)


def named(panel: Any, name: str) -> dict[str, Any]:
    return next(trace for trace in panel.traces if trace.get("name") == name)


def test_the_weights_of_each_kind_are_counted() -> None:
    panel = plots.weights_panel(WEIGHTS, FLIPPED)
    clean, wrong = (named(panel, name) for name in plots.KINDS)
    assert wrong["customdata"] == [2, *[0] * 18, 1] and clean["customdata"] == [*[0] * 10, 1, *[0] * 8, 2]
    assert wrong["y"][0] == pytest.approx(200 / 3) and sum(clean["y"]) == pytest.approx(100)
    assert wrong["x"][:1] + wrong["x"][-1:] == pytest.approx([0.025, 0.975])
    assert panel.curves[1].low[0] == pytest.approx(100 * Estimate.from_counts(2, 3).low)
    none = plots.weights_panel(WEIGHTS, torch.zeros(6, dtype=torch.bool))
    assert named(none, "flipped labels")["y"] == [] and len(none.traces) == len(panel.traces)
    json.dumps([panel.traces, none.traces], allow_nan=False)


def test_the_roc_curve_goes_through_what_a_hand_counts() -> None:
    areas = {name: Estimate(0.75, 0.5, 1.0, 6) for name in plots.RANKINGS}
    losses = torch.tensor([3.0, 0.1, 2.0, 1.0, 0.2, 0.3])
    panel = plots.roc_panel(dict(zip(plots.RANKINGS, (-WEIGHTS, losses), strict=True)), FLIPPED, areas)
    learned, ranked = (named(panel, name) for name in plots.RANKINGS)
    assert (0, 66.67) in zip(learned["x"], learned["y"], strict=True)  # both below 0.1, no clean one
    assert (33.33, 33.33) in zip(ranked["x"], ranked["y"], strict=True)  # 3.0 is flipped, 2.0 is clean
    for trace in (learned, ranked):
        assert (trace["x"][0], trace["y"][0], trace["x"][-1], trace["y"][-1]) == (0, 0, 100, 100)
    assert {label.curve for label in panel.labels} == {*plots.RANKINGS, "guessing"}
    assert any("75.0 %" in label.text for label in panel.labels)
    empty = plots.roc_panel({}, FLIPPED[:0], {})
    assert named(empty, "loss ranking")["x"] == [] and len(empty.traces) == len(panel.traces)


def test_each_training_has_its_row_and_its_interval() -> None:
    found = {name: Estimate.from_counts(right, 100) for name, right in zip(plots.ROWS, (72, 91, 70, 95), strict=True)}
    panel = plots.worth_panel(found)
    for name, estimate in found.items():
        trace = named(panel, name)
        assert trace["y"] == [name] and trace["x"] == [100 * estimate.value]
        assert trace["error_x"]["arrayminus"][0] == pytest.approx(100 * (estimate.value - estimate.low))
    assert panel.layout["xaxis"]["range"][0] <= 100 * found["loss ranking"].low
    assert len(plots.worth_panel({}).traces) == len(panel.traces)


def test_the_suspects_are_pictures_with_both_labels(digits: Dataset) -> None:
    true = digits.train.labels
    given = true.clone()
    given[7] = (true[7] + 1) % 10
    dataset = dataclasses.replace(digits, train=Split(digits.train.inputs, given))
    weights = torch.linspace(0.5, 1, len(true))
    weights[7], weights[3] = 0.01, 0.02
    panel = plots.suspects_panel(dataset, true, learned(weights))
    pixels, captions = panel.traces
    assert captions["text"][:2] == [f"{given[7]} ({true[7]})", f"{true[3]}"] and len(captions["text"]) == plots.SUSPECTS
    assert f"training sample 7: was flipped from {true[7]} to {given[7]}, weight 0.01" in captions["hovertext"][0]
    picture = np.array(pixels["z"], dtype=float)
    np.testing.assert_allclose(picture[:8, :8], digits.train.inputs[7, 0])
    np.testing.assert_allclose(picture[:8, 9:17], digits.train.inputs[3, 0])
    assert np.isnan(picture[8:12, :8]).all() and 8 <= captions["y"][0] <= 11  # below its image
    assert (picture.shape[0] + 1) / 4 == captions["y"][5] - captions["y"][0]
    assert "scaleanchor" in panel.layout["yaxis"]
    json.dumps(panel.traces, allow_nan=False)
    empty = plots.suspects_panel(digits, true, learned(weights[:0]))
    assert empty.traces[1]["text"] == [] and len(empty.traces[0]["z"]) == 0


@pytest.mark.parametrize(("shape", "shown"), [((3, 60, 30), (20, 10)), ((7,), (1, 7)), ((2, 5), (1, 10))])
def test_other_samples_are_shown_too(shape: tuple[int, ...], shown: tuple[int, int]) -> None:
    inputs = torch.rand(25, *shape, generator=torch.Generator().manual_seed(0))
    split = Split(inputs, torch.arange(25) % 2)
    dataset = Dataset("other", split, split, split, ("<b>a very long name</b>", "b"))
    panel = plots.suspects_panel(dataset, split.labels, learned(torch.arange(25.0)))
    picture = np.array(panel.traces[0]["z"], dtype=float)
    height, width = shown
    assert picture.shape[1] == 5 * width + 4
    wanted = inputs[0].mean(0)[::3, ::3] if len(shape) == 3 else inputs[0].reshape(1, -1)
    np.testing.assert_allclose(picture[:height, :width], wanted, rtol=1e-6)
    captions = panel.traces[1]
    assert not any("<" in text for text in (*captions["text"], *captions["hovertext"]))  # plotly reads tags
