"""The small explorers and widgets, driven as a notebook cell does it: set a value, wait, read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from kit import board, measure, models, prune, training
from kit.data import Dataset
from kit.explorers import BoardExplorer, IntervalExplorer, Prediction, SensitivityExplorer, table
from kit.explorers import interval as interval_room
from kit.explorers.interval import DRAWS, image_stops
from kit.explorers.sensitivity import TARGETS
from kit.measure import Estimate, Profile
from kit.models import ConvNet
from kit.training import Cancelled
from tests.explorer_contract import enter, until
from tests.hands import PATIENCE, settle, words

pytestmark = pytest.mark.usefixtures("own_board")


def shown(widget: Any) -> dict[str, Any]:
    data: dict[str, Any] = widget._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data
    return data


@pytest.fixture
def intervals(trained: ConvNet, digits: Dataset) -> Iterator[IntervalExplorer]:
    with contextlib.closing(IntervalExplorer(trained, digits)) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


def test_an_evaluation_goes_on_where_it_was(intervals: IntervalExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_room, "BATCH", 100)
    first, cancelled = intervals.intervals, Event()
    cancelled.set()
    intervals._right = [intervals._right[0][:100]]
    with pytest.raises(Cancelled):
        intervals._evaluate(cancelled)
    intervals._move()
    assert intervals.intervals == first and [len(part) for part in intervals._right] == [100] * 5 + [39]


def test_more_images_give_narrower_intervals_and_the_seed_decides_the_draws(
    intervals: IntervalExplorer, trained: ConvNet, digits: Dataset
) -> None:
    for stops in ((7,), (10,), (10, 20, 50, 100, 200, 500, 539), (10, 20, 50, 100)):
        assert image_stops(stops[-1]) == stops
    first = intervals.intervals
    assert intervals.truth == measure.accuracy(trained, digits.validation).value
    assert len(first) == DRAWS and {reading.n for reading in first} == {50}
    intervals.again_button.click()
    assert intervals.seed.value == 1 and intervals.intervals != first
    intervals.seed.value = 0
    assert intervals.intervals == first
    intervals.seed.value = intervals.seed.max
    intervals.again_button.click()
    assert intervals.seed.value == 0 and "with replacement" in intervals.status.value
    intervals.n.value = len(digits.validation)
    few, all_of_it = (np.mean([each.high - each.low for each in drawn]) for drawn in (first, intervals.intervals))
    assert all_of_it < few / 2
    assert intervals.covered == sum(r.low <= intervals.truth <= r.high for r in intervals.intervals)
    assert (intervals.table()["curve"] == "holds the truth").sum() == intervals.covered
    assert f"{intervals.covered} of 40 intervals hold the truth" in intervals.status.value


def test_about_95_of_100_intervals_hold_the_truth(intervals: IntervalExplorer) -> None:
    intervals.n.value = 200
    covered = 0
    for seed in range(25):
        intervals.seed.value = seed
        covered += intervals.covered
    assert 0.92 <= covered / (25 * DRAWS) <= 0.98


def pin(
    name: str, dataset: Dataset, right: int, size: int, technique: str = "pruning", flops: int = 100, batch: int = 1
) -> None:
    latency = Estimate(size / 1000, size / 2000, size / 500, 21)
    profile = Profile(Estimate.from_counts(right, 100), 9000, size, 36000, 4 * size, flops, latency, batch)
    board.pin(name, profile, dataset=dataset.key, technique=technique)


@pytest.fixture
def pinned(digits: Dataset) -> Iterator[BoardExplorer]:
    pin("dense", digits, 97, 9000, "dense", flops=900)
    pin("small", digits, 90, 1000, flops=900)
    pin("worse", digits, 80, 2000, "my way", flops=10)
    with contextlib.closing(BoardExplorer(digits)) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


def test_an_empty_board_says_how_to_pin(digits: Dataset) -> None:
    explorer = BoardExplorer(digits)
    assert explorer.names == () == explorer.front and explorer.pin_name.options == ("(nothing pinned)",)
    assert "Nothing is pinned for digits yet" in explorer.status.value and "Pin to board" in explorer.status.value
    assert explorer.remove_button.disabled
    pin("first", digits, 90, 100)
    explorer.refresh_button.click()
    assert explorer.names == ("first",) and not explorer.remove_button.disabled
    assert explorer.pin_name.options == ("first",)
    explorer.close()


def test_board_shows_pins_and_the_front_of_the_chosen_size(pinned: BoardExplorer) -> None:
    assert pinned.names == ("small", "worse", "dense") == tuple(pinned.table()["curve"])
    assert list(pinned.table()["x"]) == [1000, 2000, 9000]
    for size in ("file_bytes", "latency", "nonzeros"):
        settle(pinned, size=size)
        assert pinned.front == ("small", "dense") and "3 pins for digits; 2 on the front" in words(pinned)
    settle(pinned, size="flops")
    assert set(pinned.front) == {"worse", "dense"} and "(FLOPs for one sample)" in words(pinned)


def test_pins_of_other_data_sets_stay_away(pinned: BoardExplorer, digits: Dataset) -> None:
    other = Dataset("other", digits.train, digits.validation, digits.validation, digits.class_names)
    pin("stranger", other, 99, 10)
    pinned.refresh()
    assert "stranger" not in pinned.names
    pinned.remove("stranger")
    with pytest.raises(ValueError, match="name must be a pin of digits; got 'stranger', pinned are 'dense', "):
        pinned.wait(PATIENCE)
    assert "must be a pin of digits" in pinned.status.value
    assert "stranger" in set(board.frame()["name"])
    for at in range(4):
        pin(f"better {at}", digits, 91 + at, 1100 + at, batch=256)
    settle(pinned, size="latency")
    assert "Latencies of batch sizes 1, 256 are not compared" in words(pinned) and "and 2 more" in words(pinned)


def test_removing_takes_the_chosen_pin_off(pinned: BoardExplorer, digits: Dataset) -> None:
    pinned.pin_name.value = "worse"
    pinned.size.value = "flops"
    pinned.reset()
    pinned.wait(PATIENCE)
    assert pinned.pin_name.value == "worse"  # it is no setting: what was chosen stays chosen
    assert pinned.code() == "BoardExplorer(dataset)"
    pinned.remove_button.click()
    assert pinned.names == ("small", "dense")
    assert "Removed <b>worse</b>" in pinned.status.value
    pinned.remove("small")
    pinned.remove("dense")
    assert pinned.names == () and pinned.remove_button.disabled
    assert board.frame(digits.key).empty


def test_what_was_removed_is_restored_latest_first(pinned: BoardExplorer, digits: Dataset) -> None:
    before = board.frame().sort_values("name", ignore_index=True)
    assert pinned.restore_button.disabled
    for name in ("worse", "dense"):
        pinned.remove(name)
    assert pinned.names == ("small",) and not pinned.restore_button.disabled
    assert words(pinned) == f"Removed dense; Restore pin puts it back. {pinned.in_words}"
    pin("dense", digits, 50, 10)  # the name is another pin's now
    pinned.restore_button.click()
    assert set(pinned.names) == {"dense", "small", "worse"} and pinned.restore_button.disabled
    assert words(pinned) == f"Restored worse. {pinned.in_words}"
    pinned.restore()
    with pytest.raises(RuntimeError, match="nothing to take back: no pin of digits was removed."):
        pinned.wait(PATIENCE)
    pinned.restore("dense")
    with pytest.raises(ValueError, match="name 'dense' is taken: "):
        pinned.wait(PATIENCE)
    pinned.rename("dense", "tiny")
    pinned.restore("dense")
    pinned.remove("tiny")
    pinned.wait(PATIENCE)
    assert board.frame().sort_values("name", ignore_index=True).equals(before)


def test_the_chosen_pin_is_renamed_by_hand(pinned: BoardExplorer, digits: Dataset) -> None:
    pinned.pin_name.value = "worse"
    pinned.new_name.value = "  <i>best</i> "
    pinned.wait(PATIENCE)
    assert "worse" in pinned.names  # nothing is renamed by leaving the field
    pinned.rename_button.click()
    assert pinned.names == ("small", "<i>best</i>", "dense") and pinned.pin_name.value == "<i>best</i>"
    assert "Renamed <b>worse</b> to <b>&lt;i&gt;best&lt;/i&gt;</b>." in pinned.status.value
    enter(pinned, "dense")
    with pytest.raises(ValueError, match="name 'dense' is taken: "):
        pinned.wait(PATIENCE)
    assert words(pinned).endswith(f"The picture shows the last answer: {pinned.in_words}")
    enter(pinned, " net ")
    assert pinned.names == ("small", "net", "dense") and pinned.pin_name.value == "net"
    enter(pinned, " ")
    with pytest.raises(ValueError, match="new must be a name; got nothing: type the pin's new name first."):
        pinned.wait(PATIENCE)
    pinned.rename("worse", "x")
    with pytest.raises(
        ValueError, match="name must be a pin of digits; got 'worse', pinned are 'dense', 'net', 'small'"
    ):
        pinned.wait(PATIENCE)
    assert pinned.code() == "BoardExplorer(dataset)"


def test_an_open_board_follows_and_says_what_is_there_now(pinned: BoardExplorer, digits: Dataset) -> None:
    pinned.pin_name.value = "worse"
    pin("new", digits, 99, 500)
    until(lambda: "4 pins for digits; 1 on the front, smallest first: new (99.0 %)." in words(pinned))
    assert pinned.pin_name.value == "worse" and "new" in pinned.pin_name.options
    board.clear(["new", "worse"])
    until(lambda: pinned.names == ("small", "dense"))
    until(lambda: words(pinned) == pinned.in_words)
    assert pinned.pin_name.value in pinned.pin_name.options == ("small", "dense")


@pytest.fixture(scope="module")
def layers(trained: ConvNet, digits: Dataset) -> Iterator[SensitivityExplorer]:
    with contextlib.closing(SensitivityExplorer(trained, digits)) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


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
    marks = layers.figures["curves"].data[-1]
    assert list(marks.x) == [pytest.approx(100 * share) for share in layers.allocation.values()]
    assert list(layers.figures["allocation"].data[0].x) == [90, 90]  # a line
    assert set(layers.table()["curve"]) == {name.removesuffix(".weight") for name in layers.allocation}
    sizes = layers.sensitivity.sizes
    for target in (TARGETS[0], 0.5, TARGETS[-1]):  # each removes that share
        layers.ratio.value = target
        removed = sum(share * sizes[name] for name, share in layers.allocation.items()) / sum(sizes.values())
        assert removed == pytest.approx(target, abs=1e-4)
        assert f"{100 * target:.4g} % of all weights removed" in layers.status.value


def test_a_stopped_scan_goes_on_where_it_was(trained: ConvNet, digits: Dataset) -> None:
    explorer = SensitivityExplorer(trained, digits)
    before = explorer.in_words
    seen: list[str] = []
    explorer.progress.observe(lambda change: explorer.stop(), names="value")
    explorer.status.observe(lambda change: seen.append(words(explorer)), names="value")
    explorer._painted_at = 0.0
    settle(explorer, importance="random")
    scanner = explorer._scanners["random", False]
    assert 0 < scanner.done < scanner.total and "kit-busy" not in explorer.figures["curves"]._dom_classes
    assert seen[0] == f"Pruning one layer at a time: 1 of {scanner.total} points."
    assert seen[-1] == f"Stopped. Move a control to go on. The picture shows the last answer: {before}"
    explorer.progress.unobserve_all("value")
    settle(explorer, ratio=0.5)
    assert explorer.sensitivity == prune.scan(trained, digits, importance="random")
    explorer.wait_curves(PATIENCE)
    assert explorer.curves_note.value == f"curves complete: {scanner.total} points" and explorer.stop_button.disabled
    explorer.close()


def test_a_scan_with_renewed_statistics_stands_beside_the_other_one(digits: Dataset) -> None:
    net = models.ResNet(widths=(4,))
    training.fit(net, digits, epochs=1, lr=1e-2)
    with contextlib.closing(SensitivityExplorer(net, digits)) as explorer:
        as_it_is = explorer.sensitivity
        settle(explorer, renew=True)
        assert explorer.sensitivity == prune.scan(net, digits, renew=True) != as_it_is
        pruned = prune.weights(net, ratio=0.9, scope="layer")
        renewed = training.renew_statistics(pruned, digits.train.inputs)
        assert explorer.accuracies["layer"] == measure.accuracy(renewed, digits.validation)
        assert "no fine-tuning, batch-norm statistics measured anew" in words(explorer)
        assert explorer.code() == "SensitivityExplorer(model, dataset, ratio=0.9).set(renew=True)"
        settle(explorer, renew=False)
        assert explorer.sensitivity == as_it_is and "anew" not in words(explorer)


def test_a_scan_says_how_many_pruned_models_answer_no_numbers(layers: SensitivityExplorer, digits: Dataset) -> None:
    net = models.MLP((64, 10))
    with torch.no_grad():
        net.get_parameter("layers.0.bias")[0] = torch.nan
    with contextlib.closing(SensitivityExplorer(net, digits)) as explorer:
        explorer.wait(PATIENCE)
        assert f"Of the pruned models {9 + 3} answer NaN or infinity for some samples" in words(explorer)
        assert explorer.accuracies["layer"].value == 0
    assert layers.renew.layout.display == "none" and "NaN" not in words(layers)  # it has none to renew


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
    scale = Prediction("How much?", (0, 100, 0.5, "%"))
    assert scale.value == 50
    scale.value = 80
    scale.commit()
    assert "You said 80 %: 15 points off." in scale.reveal("95 %.", right=95).value
    assert "✔" in scale.reveal("80 %.", right=80.2).value


@pytest.mark.parametrize(("right", "verdict"), [("a", "✔"), ("b", "✘"), (None, "")])
def test_the_answer_compares(right: str | None, verdict: str) -> None:
    early, late = (Prediction("Which?", ["a", "b"]) for _ in range(2))
    early.commit_button.click()
    assert early.committed is None and "Choose one of &#x27;a&#x27;, &#x27;b&#x27;" in early._said.value
    early.value = late.value = "a"
    assert "It is" not in early.reveal("It is <so>.", right).value and "once you commit" in early.answer.value
    assert shown(early)["text/plain"] == "Prediction: Which?"
    assert shown(early.answer)["text/plain"] == "Answer to: Which?"
    early.commit_button.click()
    late.commit_button.click()
    late.reveal("It is <so>.", right)
    for prediction in (early, late):
        assert "It is &lt;so&gt;." in prediction.answer.value and verdict in prediction.answer.value
        assert ("✔" in prediction.answer.value) == (verdict == "✔")


FRAME = pd.DataFrame(
    {"model <x>": ["dense", "a & b"], "share": [0.97123, float("nan")], "bytes": [606000, 48500], "ok": [True, False]}
)


def test_table_is_html_with_numbers_on_the_right_and_an_index_that_says_something() -> None:
    shown_table = table(FRAME, "Two <models>", {"share": ".1%"})
    text = shown_table.value
    assert "<caption>Two &lt;models&gt;</caption>" in text and "model &lt;x&gt;" in text and "a &amp; b" in text
    assert '<td class="kit-number">97.1%</td>' in text and '<td class="kit-number">606,000</td>' in text
    assert '<td class="kit-number">–</td>' in text and '<td class="kit-text">True</td>' in text
    assert shown(shown_table)["text/plain"] == "Two <models>" and "<th scope=" not in text.split("<tbody>")[1]
    named = table(FRAME.set_index("model <x>"), "Models").value
    assert '<th scope="row" class="kit-text">dense</th>' in named
    assert "<th scope=" in table(pd.DataFrame({"a": [1]}, index=["row"]), "Models").value.split("<tbody>")[1]
    frame = pd.DataFrame({"accuracy": [Estimate.from_counts(9, 10)], "words": ["word " * 20], "x": [0.123456]})
    text = table(frame, "One", {"accuracy": lambda estimate: estimate.percent}).value  # a function, a long text
    assert "90.0 % (59.6 to 98.2)" in text and 'class="kit-long"' in text and "0.1235" in text


@pytest.mark.parametrize(("bad", "count"), [(slice(None), 539), (slice(0, 100), 100)])
def test_a_model_that_answers_nan_is_said_and_right_nowhere(
    trained: ConvNet, digits: Dataset, bad: slice, count: int
) -> None:
    class Broken(nn.Module):
        """NaN for some of the validation samples: argmax would call them class 0."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answers = trained(x).clone()
            if len(x) == len(digits.validation):
                answers[bad] = math.nan
            return answers

    with contextlib.closing(IntervalExplorer(Broken(), digits)) as explorer:
        explorer.wait(PATIENCE)
        right = training.predict(trained, digits.validation.inputs).argmax(1) == digits.validation.labels
        right[bad] = False
        assert explorer.truth == pytest.approx(float(right.float().mean()))
        assert f"The model answers NaN or infinity for {count} of 539 samples" in explorer.status.value
        explorer.again()
        explorer.wait(PATIENCE)
        assert f"for {count} of 539 samples" in explorer.status.value


WORDS, SCALE = ["a", "b"], (0, 1, 0.1, "s")
OTHER = nn.Linear(3, 10)
NOTHING = nn.Sequential(nn.Flatten(), nn.Identity())
THREE: Any = 3
WRONG_SCALE: Any = (0, "1", 0.1, "s")


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda net, data: IntervalExplorer(net, data, n=51), ValueError, "^n must be one .*; got 51, .* 50 and 100."),
        (lambda net, data: IntervalExplorer(OTHER, data), ValueError, "cannot take samples of shape"),
        (lambda net, data: SensitivityExplorer(net, data, ratio=0.99), ValueError, "^ratio .* got 0.99"),
        (lambda net, data: SensitivityExplorer(NOTHING, data), ValueError, "nothing to prune"),
        (lambda net, data: SensitivityExplorer(OTHER, data), ValueError, "cannot take samples of shape"),
        (lambda *_: Prediction(" ", WORDS), ValueError, "question must be a sentence"),
        (lambda *_: Prediction("?", THREE), TypeError, "options must be a list of texts or"),
        (lambda *_: Prediction("?", (0, 1, 0.1, THREE)), TypeError, "options must be a list of texts or"),
        (lambda *_: Prediction("?", ["one"]), ValueError, "options must be two or more different answers"),
        (lambda *_: Prediction("?", ["a", "a"]), ValueError, "options must be two or more different answers"),
        (lambda *_: Prediction("?", WRONG_SCALE), TypeError, r"options\[1\] must be a number"),
        (lambda *_: Prediction("?", (5, 1, 0.1, "s")), ValueError, "low < high"),
        (lambda *_: Prediction("?", (0, 1, 0, "s")), ValueError, "0 < step"),
        (lambda *_: setattr(Prediction("?", WORDS), "value", "c"), ValueError, "value must be one of a, b; got 'c'."),
        (lambda *_: Prediction("?", WORDS).commit(), ValueError, "choose one of 'a', 'b' before committing."),
        (lambda *_: Prediction("?", WORDS).reveal("", right=1), ValueError, "right must be one of a, b; got 1."),
        (lambda *_: setattr(Prediction("?", SCALE), "value", 2), ValueError, "value must lie in 0 to 1 s; got 2."),
        (lambda *_: Prediction("?", SCALE).reveal("", right="a"), TypeError, "right must be a number; got 'a'."),
        (lambda *_: Prediction("?", SCALE).reveal("", right=math.nan), ValueError, "right must be finite; got nan."),
        (lambda *_: Prediction("?", SCALE).reveal(THREE), TypeError, "answer_text must be a text; got 3."),
        (lambda *_: Prediction(THREE, SCALE), TypeError, "question must be a text; got 3."),
        (lambda *_: Prediction("?", SCALE, note=THREE), TypeError, "note must be a text; got 3."),
        (lambda net, data: IntervalExplorer(THREE, data), TypeError, "model must be a torch.nn.Module; got 3."),
        (lambda net, data: IntervalExplorer(net, data.train), TypeError, "dataset must be a Dataset, .*; got Split"),
        (lambda *_: table(FRAME, THREE), TypeError, "title must be a text; got 3."),
        (lambda *_: table(FRAME, "Models", THREE), TypeError, "formats must be a format for each .*; got 3."),
        (lambda *_: table({}, "Models"), TypeError, "frame must be a pandas DataFrame; got {}."),
        (lambda *_: table(FRAME, "Models", {"acc": ".1f"}), ValueError, "formats must be one of .*, ok; got 'acc'."),
        (lambda *_: table(FRAME, "Models", {"share": THREE}), TypeError, "formats.'share'. must be a format such as"),
        (lambda *_: table(FRAME, "Models", {"ok": ".1x"}), ValueError, "does not fit the value True"),
    ],
)
def test_bad_input_is_refused(
    call: Callable[..., Any], error: type[Exception], sentence: str, trained: ConvNet, digits: Dataset
) -> None:
    with pytest.raises(error, match=sentence):
        call(trained, digits)
