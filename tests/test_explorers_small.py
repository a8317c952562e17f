"""The small explorers and widgets, driven as a notebook cell does it: set a value, wait, read."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from kit import board, measure, prune
from kit.data import Dataset
from kit.explorers import BoardExplorer, IntervalExplorer, Prediction, SensitivityExplorer, table
from kit.explorers.base import STILLS
from kit.explorers.interval import DRAWS, image_stops
from kit.explorers.sensitivity import TARGETS
from kit.measure import Estimate, Profile
from kit.models import ConvNet
from kit.training import Cancelled

SECONDS = 60


def shown(widget: Any) -> dict[str, Any]:
    data: dict[str, Any] = widget._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data
    return data


def check_still(widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG is displayed where one is asked for, and only there."""
    assert "image/png" not in shown(widget)
    monkeypatch.setenv(STILLS, "1")
    assert base64.b64decode(shown(widget)["image/png"]).startswith(b"\x89PNG")


# -- IntervalExplorer ----------------------------------------------------------------------------------------------


@pytest.fixture
def intervals(trained: ConvNet, digits: Dataset) -> Iterator[IntervalExplorer]:
    explorer = IntervalExplorer(trained, digits)
    explorer.wait(SECONDS)
    yield explorer
    explorer.close()


@pytest.mark.parametrize(
    ("total", "stops"), [(7, (7,)), (10, (10,)), (539, (10, 20, 50, 100, 200, 500, 539)), (100, (10, 20, 50, 100))]
)
def test_image_stops_end_with_the_whole_split(total: int, stops: tuple[int, ...]) -> None:
    assert image_stops(total) == stops


def test_intervals_answer_at_once(intervals: IntervalExplorer, trained: ConvNet, digits: Dataset) -> None:
    assert intervals.truth == measure.accuracy(trained, digits.validation).value
    assert len(intervals.intervals) == DRAWS and {reading.n for reading in intervals.intervals} == {50}
    assert intervals.covered == sum(r.low <= intervals.truth <= r.high for r in intervals.intervals)
    assert f"{intervals.covered} of 40 intervals hold the truth" in intervals.status.value
    assert "with replacement" in intervals.status.value


def test_more_images_give_narrower_intervals(intervals: IntervalExplorer, digits: Dataset) -> None:
    def width() -> float:
        return float(np.mean([reading.high - reading.low for reading in intervals.intervals]))

    few = width()
    intervals.n.value = len(digits.validation)
    assert width() < few / 2
    assert f"n = {len(digits.validation)} images" in intervals.status.value
    line, holding, missing = intervals._figure.data
    assert len(holding.x) == intervals.covered and len(missing.x) == DRAWS - intervals.covered
    assert tuple(line.y) == (100 * intervals.truth,) * 2


def test_the_seed_decides_the_draws(intervals: IntervalExplorer) -> None:
    first = intervals.intervals
    intervals.again_button.click()
    assert intervals.seed.value == 1
    assert intervals.intervals != first
    intervals.seed.value = 0
    assert intervals.intervals == first
    intervals.seed.value = intervals.seed.max
    intervals.again_button.click()
    assert intervals.seed.value == 0


def test_about_95_of_100_intervals_hold_the_truth(intervals: IntervalExplorer) -> None:
    intervals.n.value = 200
    covered = 0
    for seed in range(25):
        intervals.seed.value = seed
        covered += intervals.covered
    assert 0.92 <= covered / (25 * DRAWS) <= 0.98


def test_interval_is_shown_as_stable_text_and_still(
    intervals: IntervalExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(intervals)["text/plain"] == "IntervalExplorer: ConvNet on digits"
    check_still(intervals, monkeypatch)


def test_interval_refuses_bad_input(intervals: IntervalExplorer, digits: Dataset, trained: ConvNet) -> None:
    with pytest.raises(ValueError, match="n must be one of 10, 20, 50.*; got 51."):
        IntervalExplorer(trained, digits, n=51)
    with pytest.raises(ValueError, match="nearest are 50 and 100"):
        intervals.n.value = 60
    with pytest.raises(ValueError, match="cannot take samples of shape"):
        IntervalExplorer(nn.Linear(3, 10), digits)


# -- BoardExplorer -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def board_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIT_BOARD", str(tmp_path / "board.sqlite"))
    return tmp_path / "board.sqlite"


def pin(name: str, dataset: Dataset, right: int, nonzeros: int, technique: str = "pruning", flops: int = 100) -> None:
    latency = Estimate(nonzeros / 1000, nonzeros / 2000, nonzeros / 500, 21)
    profile = Profile(Estimate.from_counts(right, 100), 9000, nonzeros, 36000, 4 * nonzeros, flops, latency, 1)
    board.pin(name, profile, dataset=dataset.key, technique=technique)


@pytest.fixture
def pinned(digits: Dataset) -> Iterator[BoardExplorer]:
    pin("dense", digits, 97, 9000, "dense", flops=900)
    pin("small", digits, 90, 1000, flops=900)
    pin("worse", digits, 80, 2000, "my way", flops=10)
    explorer = BoardExplorer(digits)
    explorer.wait(SECONDS)
    yield explorer
    explorer.close()


def test_an_empty_board_says_how_to_pin(digits: Dataset) -> None:
    explorer = BoardExplorer(digits)
    assert explorer.names == () == explorer.front
    assert "Nothing is pinned for digits yet" in explorer.status.value and "Pin to board" in explorer.status.value
    assert explorer.remove_button.disabled
    pin("first", digits, 90, 100)
    explorer.refresh_button.click()
    assert explorer.names == ("first",) and not explorer.remove_button.disabled
    assert explorer.pin_name.options == ("first",)
    explorer.close()


def test_board_shows_pins_and_front(pinned: BoardExplorer) -> None:
    assert pinned.names == ("small", "worse", "dense")
    assert pinned.front == ("small", "dense")
    assert "3 pins for digits; 2 on the front" in pinned.status.value
    assert list(pinned._figure.data[0].x)[:2] == [1000, 9000]


def test_the_size_axis_changes_the_front(pinned: BoardExplorer) -> None:
    pinned.size.value = "flops"
    assert set(pinned.front) == {"worse", "dense"}
    assert "MFLOPs" in pinned._figure.layout.xaxis.title.text
    for size in ("file_bytes", "latency", "nonzeros"):
        pinned.size.value = size
        assert pinned.front == ("small", "dense")


def test_pins_of_other_data_sets_stay_away(pinned: BoardExplorer, digits: Dataset) -> None:
    other = Dataset("other", digits.train, digits.validation, digits.validation, digits.class_names)
    pin("stranger", other, 99, 10)
    pinned.refresh()
    assert "stranger" not in pinned.names
    pinned.remove("stranger")
    with pytest.raises(ValueError, match="name must be a pin of digits; got 'stranger', pinned are 'dense', "):
        pinned.wait(SECONDS)
    assert "must be a pin of digits" in pinned.status.value
    assert "stranger" in set(board.frame()["name"])


def test_removing_takes_the_chosen_pin_off(pinned: BoardExplorer, digits: Dataset) -> None:
    pinned.pin_name.value = "worse"
    pinned.refresh()
    pinned.wait(SECONDS)
    assert pinned.pin_name.value == "worse"  # what was chosen stays chosen
    pinned.remove_button.click()
    assert pinned.names == ("small", "dense")
    assert "Removed <b>worse</b>" in pinned.status.value
    pinned.remove("small")
    pinned.remove("dense")
    assert pinned.names == () and pinned.remove_button.disabled
    assert board.frame(digits.key).empty


def test_a_damaged_board_is_said_and_the_explorer_lives_on(pinned: BoardExplorer, board_file: Path) -> None:
    good = board_file.read_bytes()
    board_file.write_bytes(b"no board at all")
    pinned.refresh()
    with pytest.raises(board.BoardError, match="damaged or not a board"):
        pinned.wait(SECONDS)
    assert "damaged or not a board" in pinned.status.value and "kit-error" in pinned.status.value
    board_file.write_bytes(good)
    pinned.refresh()
    assert len(pinned.names) == 3


def test_board_is_shown_as_stable_text_and_still(pinned: BoardExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(pinned)["text/plain"] == "BoardExplorer: digits"
    check_still(pinned, monkeypatch)


# -- SensitivityExplorer -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layers(trained: ConvNet, digits: Dataset) -> Iterator[SensitivityExplorer]:
    explorer = SensitivityExplorer(trained, digits)
    explorer.wait(SECONDS)
    yield explorer
    explorer.close()


def test_sensitivity_is_the_scan_and_its_allocation(
    layers: SensitivityExplorer, trained: ConvNet, digits: Dataset
) -> None:
    layers.ratio.value, layers.importance.value = 0.9, "magnitude"
    scan = prune.scan(trained, digits)
    assert layers.sensitivity == scan
    assert layers.allocation == prune.allocate(scan, 0.9)
    by_allocation = prune.weights(trained, ratio=layers.allocation)
    expected = {
        "allocation": measure.accuracy(by_allocation, digits.validation),
        "layer": measure.accuracy(prune.weights(trained, ratio=0.9, scope="layer"), digits.validation),
        "global": measure.accuracy(prune.weights(trained, ratio=0.9), digits.validation),
    }
    assert layers.accuracies == expected
    assert all(estimate.percent in layers.status.value for estimate in expected.values())
    marks = layers._curves.data[-1]
    assert list(marks.x) == [pytest.approx(100 * share) for share in layers.allocation.values()]
    assert list(layers._bars.data[0].x) == [90] * len(layers.allocation)
    assert [list(trace.y) for trace in layers._ways.data] == [["allocation"], ["uniform"], ["global"], ["dense"]]


def test_each_target_removes_that_share(layers: SensitivityExplorer) -> None:
    sizes = layers.sensitivity.sizes
    for target in (TARGETS[0], 0.5, TARGETS[-1]):
        layers.ratio.value = target
        removed = sum(share * sizes[name] for name, share in layers.allocation.items()) / sum(sizes.values())
        assert removed == pytest.approx(target, abs=1e-4)
        assert f"{100 * target:.4g} % of all weights removed" in layers.status.value


def test_importance_changes_the_curves(layers: SensitivityExplorer) -> None:
    layers.importance.value = "magnitude"
    first = layers.sensitivity
    layers.importance.value = "random"
    assert layers.sensitivity != first and "(random, no fine-tuning)" in layers.status.value
    layers.importance.value = "magnitude"
    assert layers.sensitivity == first


def test_a_cancelled_scan_goes_on_where_it_was(trained: ConvNet, digits: Dataset) -> None:
    explorer = SensitivityExplorer(trained, digits)
    for target in TARGETS[:20]:  # each move cancels the one before
        explorer.ratio.value = target
    explorer.stop()
    explorer.wait(SECONDS)
    if explorer._answered is None:
        with pytest.raises(RuntimeError, match="the scan was stopped; move a control to go on."):
            _ = explorer.allocation
    explorer.ratio.value = 0.5
    assert explorer.sensitivity == prune.scan(trained, digits)
    assert explorer.stop_button.disabled
    explorer.close()


def test_scanner_measures_point_by_point_and_survives_a_cancel(trained: ConvNet, digits: Dataset) -> None:
    scanner = prune.Scanner(trained, digits, ratios=(0.0, 0.5))
    assert scanner.step() and scanner.done == 1
    cancel = Event()
    cancel.set()
    with pytest.raises(Cancelled):
        scanner.step(cancel)
    assert scanner.done == 1
    while scanner.step():
        pass
    assert scanner.done == scanner.total == 2 * len(prune.prunable(trained))
    assert scanner.sensitivity == prune.scan(trained, digits, ratios=(0.0, 0.5))


def test_any_module_works_and_is_left_alone(digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    explorer = SensitivityExplorer(net, digits, ratio=0.5)
    assert set(explorer.accuracies) == {"allocation", "layer", "global"}
    assert set(explorer.allocation) == {"1.weight", "3.weight"}
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    explorer.close()


def test_sensitivity_is_shown_as_stable_text_and_still(
    layers: SensitivityExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(layers)["text/plain"] == "SensitivityExplorer: ConvNet on digits"
    check_still(layers, monkeypatch)


def test_sensitivity_refuses_bad_input(layers: SensitivityExplorer, trained: ConvNet, digits: Dataset) -> None:
    with pytest.raises(ValueError, match="ratio must be one of the target's .* stops from 0 to 0.98; got 0.99."):
        SensitivityExplorer(trained, digits, ratio=0.99)
    with pytest.raises(ValueError, match="target ratio must be one of .* nearest are 0.9 and 0.91"):
        layers.ratio.value = 0.905
    with pytest.raises(ValueError, match="nothing to prune"):
        SensitivityExplorer(nn.Sequential(nn.Flatten(), nn.Identity()), digits)
    with pytest.raises(ValueError, match="cannot take samples of shape"):
        SensitivityExplorer(nn.Linear(3, 10), digits)


# -- Prediction ----------------------------------------------------------------------------------------------------


def test_nothing_has_to_be_committed() -> None:
    prediction = Prediction("How much?", ["much", "little"])
    assert prediction.value is None and prediction.committed is None
    answer = prediction.reveal("Little.", right="little")
    assert "Little." not in answer.value and "once you commit" in answer.value


def test_a_commit_is_fixed_and_told() -> None:
    prediction = Prediction("How <much>?", ["a & b", "little"], note="Think of <i>size</i>.")
    prediction.value = "a & b"
    prediction.commit()
    assert prediction.committed == "a & b" and "You said: <b>a &amp; b</b>." in prediction._said.value
    assert prediction.commit_button.disabled and prediction._choice.disabled
    with pytest.raises(RuntimeError, match="a & b is committed and stays."):
        prediction.value = "little"
    prediction.commit()
    assert prediction.committed == "a & b"
    assert "How &lt;much&gt;?" in prediction.children[0].value and "&lt;i&gt;" in prediction.children[0].value


@pytest.mark.parametrize(("right", "verdict"), [("a", "✔"), ("b", "✘"), (None, "")])
def test_the_answer_compares(right: str | None, verdict: str) -> None:
    early, late = (Prediction("Which?", ["a", "b"]) for _ in range(2))
    early.value = late.value = "a"
    early.reveal("It is <so>.", right)
    early.commit_button.click()
    late.commit_button.click()
    late.reveal("It is <so>.", right)
    for prediction in (early, late):
        assert "It is &lt;so&gt;." in prediction.answer.value and verdict in prediction.answer.value
        assert ("✔" in prediction.answer.value) == (verdict == "✔")


def test_a_scale_takes_numbers() -> None:
    prediction = Prediction("How much?", (0, 100, 0.5, "%"))
    assert prediction.value == 50
    prediction.value = 80
    prediction.commit()
    assert prediction.committed == 80
    assert "You said 80 %: 15 points off." in prediction.reveal("95 %.", right=95).value
    assert "✔" in prediction.reveal("80 %.", right=80.2).value


def test_the_button_says_what_is_missing() -> None:
    prediction = Prediction("Which?", ["a", "b"])
    prediction.commit_button.click()
    assert prediction.committed is None and "Choose one of &#x27;a&#x27;, &#x27;b&#x27;" in prediction._said.value


def test_prediction_is_shown_as_stable_text() -> None:
    prediction = Prediction("Which?", ["a", "b"])
    assert shown(prediction)["text/plain"] == "Prediction: Which?"
    assert shown(prediction.reveal("It is 97.2 %."))["text/plain"] == "Answer to: Which?"


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (["one"], ValueError, "options must be two or more different answers"),
        (["a", "a"], ValueError, "options must be two or more different answers"),
        ("ab", TypeError, "options must be a list of texts or"),
        (3, TypeError, "options must be a list of texts or"),
        ((0, 1), TypeError, "options must be a list of texts or"),
        ((0, 1, 0.1, 5), TypeError, "options must be a list of texts or"),
        ((5, 1, 0.1, "s"), ValueError, "low < high"),
        ((0, 1, 0, "s"), ValueError, "0 < step"),
    ],
)
def test_prediction_refuses_bad_options(options: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Prediction("Which?", options)


def test_prediction_refuses_bad_values() -> None:
    with pytest.raises(ValueError, match="question must be a sentence"):
        Prediction(" ", ["a", "b"])
    words, scale = Prediction("Which?", ["a", "b"]), Prediction("How much?", (0, 1, 0.1, "s"))
    with pytest.raises(ValueError, match="value must be one of 'a', 'b'; got 'c'."):
        words.value = "c"
    with pytest.raises(ValueError, match="choose one of 'a', 'b' before committing."):
        words.commit()
    with pytest.raises(ValueError, match="right must be one of 'a', 'b'; got 1."):
        words.reveal("", right=1)
    with pytest.raises(ValueError, match="value must lie in 0 to 1 s; got 2."):
        scale.value = 2
    with pytest.raises(TypeError, match="right must be a number from 0 to 1; got 'a'."):
        scale.reveal("", right="a")


# -- table ---------------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {"model <x>": ["dense", "a & b"], "share": [0.97123, float("nan")], "bytes": [606000, 48500], "ok": [True, False]}
)


def test_table_is_html_with_numbers_on_the_right() -> None:
    shown_table = table(FRAME, "Two <models>", {"share": ".1%"})
    text = shown_table.value
    assert "<caption>Two &lt;models&gt;</caption>" in text and "model &lt;x&gt;" in text and "a &amp; b" in text
    assert '<td class="kit-number">97.1%</td>' in text and '<td class="kit-number">606,000</td>' in text
    assert '<td class="kit-number">–</td>' in text and '<td class="kit-text">True</td>' in text
    assert shown(shown_table)["text/plain"] == "Two <models>"


def test_table_shows_an_index_that_says_something() -> None:
    named = table(FRAME.set_index("model <x>"), "Models").value
    assert '<th scope="row" class="kit-text">dense</th>' in named
    assert "<th scope=" in table(pd.DataFrame({"a": [1]}, index=["row"]), "Models").value.split("<tbody>")[1]
    assert "<th scope=" not in table(FRAME, "Models").value.split("<tbody>")[1]


def test_table_takes_functions_and_shows_long_texts_and_estimates() -> None:
    frame = pd.DataFrame({"accuracy": [Estimate.from_counts(9, 10)], "words": ["word " * 20], "x": [0.123456]})
    text = table(frame, "One", {"accuracy": lambda estimate: estimate.percent}).value
    assert "90.0 % (59.6 to 98.2)" in text and 'class="kit-long"' in text and "0.1235" in text


def test_table_has_a_still_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    check_still(table(FRAME, "Models"), monkeypatch)
    assert "image/png" in shown(table(FRAME[:0], "Nothing"))


def test_table_refuses_bad_input() -> None:
    with pytest.raises(TypeError, match="frame must be a pandas DataFrame; got dict."):
        table({}, "Models")
    with pytest.raises(ValueError, match="formats must name columns of the frame .*; got 'acc'."):
        table(FRAME, "Models", {"acc": ".1f"})
    with pytest.raises(TypeError, match="formats.'share'. must be a format such as"):
        table(FRAME, "Models", {"share": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="does not fit the value 'dense'"):
        table(FRAME, "Models", {"model <x>": ".1f"})
