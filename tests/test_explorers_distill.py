from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from kit import board, data, distill, measure, models, training
from kit.data import Dataset
from kit.distill import Recipe
from kit.explorers import DistillationExplorer
from kit.explorers import base as base_room
from kit.explorers import distill as room
from kit.explorers import worker as worker_room
from kit.explorers.page import Bars, Here
from kit.measure import Estimate
from kit.models import ConvNet
from tests.hands import PATIENCE, settle, words

# The curve's traces, in the order in which they are drawn.
HARD_BAND, HARD, SMOOTHED_BAND, SMOOTHED, BAND, DISTILLED, STUDENTS, TEACHER = range(8)
# The plane's.
PLANE_HARD, PLANE_DISTILLED, PLANE_TEACHER, PINS, PLANE_HERE = 1, 3, 4, 5, 6


pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def few_digits(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch."""
    return dataclasses.replace(digits, train=digits.train.first(200))


@pytest.fixture(scope="module")
def shared(
    trained: ConvNet, few_digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DistillationExplorer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_BOARD", str(tmp_path_factory.mktemp("shared") / "board.sqlite"))
        explorer = DistillationExplorer(trained, few_digits, width=8)
        small(explorer)
        explorer.wait(PATIENCE)
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(shared: DistillationExplorer, own_board: Path) -> DistillationExplorer:
    """The explorer that the tests share, its controls and board as at the beginning."""
    shared.stop()
    with contextlib.suppress(Exception):  # an error of the test before
        shared.wait(PATIENCE)
    shared.read_board()
    shared.reset()
    small(shared)
    shared.wait(PATIENCE)
    return shared


@pytest.fixture
def opened() -> Iterator[Callable[..., DistillationExplorer]]:
    """Make explorers that are closed at the end of the test."""
    made: list[DistillationExplorer] = []

    def make(*args: Any, **settings: Any) -> DistillationExplorer:
        made.append(DistillationExplorer(*args, **settings))
        return small(made[-1])

    yield make
    for explorer in made:
        explorer.close()


@pytest.fixture(scope="module")
def flat() -> Dataset:
    """Three classes of six numbers; names that look like markup."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    names = ("<one>", "two & three", "four")
    return data.from_arrays(rng.normal(size=(240, 6)) + labels[:, None], labels, name="flat", class_names=names)


@pytest.fixture(scope="module")
def pair() -> Dataset:
    """Two classes."""
    rng = np.random.default_rng(1)
    labels = np.arange(160) % 2
    return data.from_arrays(rng.normal(size=(160, 5)) + labels[:, None], labels, name="pair")


def small(explorer: DistillationExplorer) -> DistillationExplorer:
    """Four students and five epochs: as few as the sliders allow."""
    explorer.seeds.value = 4
    explorer.epochs.value = 5
    return explorer


def is_error(explorer: DistillationExplorer) -> bool:
    return "kit-error" in explorer.status.value


def arrays(figure: Any, trace: int) -> tuple[list[float], list[float]]:
    drawn = figure.data[trace]
    return list(drawn.x or ()), list(drawn.y or ())


def count_trainings(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of students of each cohort that is trained from now on."""
    counted: list[int] = []
    original = explorer._students._train

    def train(*args: Any) -> None:
        counted.append(len(args[3]))
        original(*args)

    monkeypatch.setattr(explorer._students, "_train", train)
    return counted


def shares(explorer: DistillationExplorer, teacher: nn.Module) -> list[float]:
    """The teacher's probabilities of the chosen sample at the chosen temperature, number by number."""
    split, settings = explorer.dataset.validation, explorer.settings
    rows = [row for row, label in enumerate(split.labels.tolist()) if label == settings.label]
    row = rows[settings.image]
    powers = [
        math.exp(logit / settings.recipe.temperature)
        for logit in training.predict(teacher, split.inputs[row : row + 1])[0].tolist()
    ]
    return [power / sum(powers) for power in powers]


def assert_shows(explorer: DistillationExplorer, **expected: Any) -> None:
    """Settings, groups, marker, curve, bars and words agree with each other and with what is measured directly."""
    settings, group = explorer.settings, explorer.group
    for name, value in expected.items():
        assert getattr(settings.recipe, name) == value
    assert group.recipe == settings.recipe
    assert explorer.hard.recipe == settings.recipe.hard
    assert explorer.smoothed.recipe == settings.recipe.smoothed
    assert group.seeds == explorer.hard.seeds == explorer.smoothed.seeds == settings.seeds
    validation, accuracy = explorer.dataset.validation, group.accuracy
    assert accuracy == Estimate.from_values(group.accuracies)
    of_median = dict(zip(group.seeds, group.accuracies, strict=True))[group.median]
    assert measure.accuracy(explorer.model, validation).value == pytest.approx(of_median, abs=1e-6)
    temperature = settings.recipe.temperature
    mean, low, high = 100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high
    assert explorer.here.point == pytest.approx([temperature, mean, low, high])
    curve = explorer._curve
    assert arrays(curve, STUDENTS)[0] == [temperature] * len(group.seeds)
    assert arrays(curve, STUDENTS)[1] == pytest.approx([100 * each for each in group.accuracies])
    drawn = dict(zip(*arrays(curve, DISTILLED), strict=True))
    assert drawn[temperature] == pytest.approx(mean)
    assert arrays(curve, HARD) == ([0.5, 64], pytest.approx([100 * explorer.hard.accuracy.value] * 2))
    assert arrays(curve, SMOOTHED) == ([0.5, 64], pytest.approx([100 * explorer.smoothed.accuracy.value] * 2))
    gain = Estimate.from_pairs(group.accuracies, explorer.hard.accuracies)
    assert explorer.gain == gain
    said = words(explorer)
    assert f"T = {temperature:g}, alpha {settings.recipe.alpha:g}: students of" in said
    assert f"reach {accuracy.percent}, mean of {len(group.seeds)} seeds, 95 % interval over seeds, " in said
    assert f"On hard labels {explorer.hard.accuracy.percent}, " in said
    assert f"with label smoothing {explorer.smoothed.accuracy.percent};" in said
    assert f"seed by seed: {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})" in said
    assert arrays(explorer._plane, PLANE_HERE)[1] == pytest.approx([mean])
    for trace, each in ((0, group), (1, explorer.hard)):
        row = [100 * estimate.value for estimate in each.answers_to(settings.label)]
        assert arrays(explorer._said, trace)[1] == pytest.approx(row)
    assert not is_error(explorer)


# --- the controls -----------------------------------------------------------------------------------------------


def test_the_first_answer_comes_unasked(explorer: DistillationExplorer, trained: ConvNet) -> None:
    assert_shows(explorer, temperature=4, alpha=0.9, width=8, epochs=5)
    assert explorer.settings.seeds == (0, 1, 2, 3)
    assert list(explorer.transfers) == ["few labels", "all labels", "few images", "and shifted", "without the class"]
    validation = explorer.dataset.validation
    teacher = measure.accuracy(trained, validation)
    assert f"the teacher ({measure.nonzeros(trained):,} parameters) {teacher.percent}, over samples." in words(explorer)
    assert arrays(explorer._curve, TEACHER) == ([0.5, 64], pytest.approx([100 * teacher.value] * 2))
    assert arrays(explorer._plane, PLANE_TEACHER) == ([measure.nonzeros(trained)], pytest.approx([100 * teacher.value]))


def test_the_overlays_stand_over_the_first_two_figures(explorer: DistillationExplorer) -> None:
    _, here, bars = explorer.children[1].children
    assert (here, bars) == (explorer.here, explorer.bars)
    assert isinstance(here, Here) and isinstance(bars, Bars)
    assert (explorer.here.figure, explorer.bars.figure) == (0, 1)
    assert Here().point == [] and Bars().heights == []


@pytest.mark.parametrize("temperature", [0.5, 1, 11, 64])
def test_temperature(explorer: DistillationExplorer, temperature: float) -> None:
    settle(explorer, temperature=temperature)
    assert_shows(explorer, temperature=temperature)


def test_the_soft_labels_move_before_any_student_is_trained(
    explorer: DistillationExplorer, trained: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.wait_sweep(PATIENCE)
    monkeypatch.setattr(explorer, "_request", lambda *args, **settings: None)  # the worker is asked for nothing
    for temperature in (0.7, 32):
        explorer.temperature.value = temperature
        assert explorer.bars.heights == pytest.approx(shares(explorer, trained), abs=1e-5)
    explorer.digit.value, explorer.image.value = 8, 5
    assert explorer.bars.heights == pytest.approx(shares(explorer, trained), abs=1e-5)
    assert sum(explorer.bars.heights) == pytest.approx(1)


def test_alpha_0_needs_no_teacher(explorer: DistillationExplorer) -> None:
    settle(explorer, alpha=0.0)
    assert_shows(explorer, alpha=0)
    assert explorer.group.accuracies == explorer.hard.accuracies
    assert explorer.gain == Estimate(0, 0, 0, 4)
    settle(explorer, alpha=1.0)
    assert_shows(explorer, alpha=1)
    assert explorer.group.accuracies != explorer.hard.accuracies


@pytest.mark.parametrize(("width", "parameters", "kind"), [(0, 650, "one linear layer"), (4, 310, "4 hidden units")])
def test_width(explorer: DistillationExplorer, width: int, parameters: int, kind: str) -> None:
    settle(explorer, width=width)
    assert_shows(explorer, width=width)
    assert measure.parameters(explorer.model) == parameters
    assert f"students of {kind} ({parameters} parameters)" in words(explorer)
    assert arrays(explorer._plane, PLANE_HERE)[0] == [parameters]


def test_epochs_and_seeds(explorer: DistillationExplorer) -> None:
    before = explorer.group.accuracies
    settle(explorer, seeds=8)
    assert_shows(explorer, epochs=5)
    assert explorer.settings.seeds == tuple(range(8))
    assert explorer.group.accuracies[:4] == before  # those are remembered
    settle(explorer, epochs=10)
    assert_shows(explorer, epochs=10)
    assert explorer.group.accuracy.value > Estimate.from_values(before).value


@pytest.mark.parametrize(
    ("name", "size", "labelled"), [("few labels", 200, 100), ("all labels", 200, 200), ("few images", 200, 200)]
)
def test_transfer(explorer: DistillationExplorer, name: str, size: int, labelled: int) -> None:
    settle(explorer, transfer=name)
    assert_shows(explorer)
    split = explorer.settings.recipe.transfer
    assert (len(split), int((split.labels >= 0).sum())) == (size, labelled)
    assert len(torch.unique(split.inputs.flatten(1), dim=0)) == (100 if name == "few images" else 200)


def test_transfer_with_shifted_images(explorer: DistillationExplorer, few_digits: Dataset) -> None:
    settle(explorer, transfer="and shifted")
    assert_shows(explorer)
    wanted = distill.shifted(few_digits.train)
    assert torch.equal(explorer.settings.recipe.transfer.inputs, wanted.inputs)


def test_a_class_that_students_never_saw(explorer: DistillationExplorer) -> None:
    assert "never saw" not in words(explorer)
    settle(explorer, transfer="without the class", digit=7, alpha=1.0)
    assert_shows(explorer, alpha=1)
    labels = explorer.settings.recipe.transfer.labels.tolist()
    assert sorted(set(labels)) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    right, without = explorer.group.answers_to(7)[7], explorer.hard.answers_to(7)[7]
    assert (
        f"The students never saw a 7; they name {100 * right.value:.0f} % of them right "
        f"(hard labels: {100 * without.value:.0f} %)." in words(explorer)
    )
    assert without.value == 0  # nobody told them that there is a 7
    assert explorer._said.layout.title.text == "What students call a 7, never seen"
    settle(explorer, digit=2)  # another class is left out then
    assert 7 in explorer.settings.recipe.transfer.labels
    assert 2 not in explorer.settings.recipe.transfer.labels
    assert "never saw a 2" in words(explorer)


def test_class_and_image_choose_the_sample_and_train_nothing(
    explorer: DistillationExplorer, trained: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.wait_sweep(PATIENCE)
    trainings = count_trainings(explorer, monkeypatch)
    for digit, image in ((0, 0), (9, 3), (9, explorer.image.max)):
        settle(explorer, digit=digit, image=image)
        assert_shows(explorer)
        split = explorer.dataset.validation
        row = (split.labels == digit).nonzero()[image].item()
        picture = np.asarray(explorer._soft.data[0].z)
        assert picture == pytest.approx(split.inputs[int(row), 0].numpy())
        by_hand = shares(explorer, trained)
        assert explorer.bars.heights == pytest.approx(by_hand, abs=1e-5)
        first = max(range(10), key=by_hand.__getitem__)
        assert f"Of this {digit} the teacher says: {first} ({100 * by_hand[first]:.0f} %)" in words(explorer)
        assert f"on this {digit}" in explorer._soft.layout.title.text
    assert not trainings
    fewest = min(explorer.dataset.validation.labels.tolist().count(label) for label in range(10))
    assert explorer.image.max == fewest - 1  # there is such an image of each class


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 3}, r"temperature must be one of the slider's 15 stops from 0.5 to 64; got 3, .* 2.8 and 4\."),
        ({"temperature": 0}, r"temperature must be one of the slider's 15 stops from 0.5 to 64; got 0, .*0.5\."),
        ({"width": 33}, r"width must be one of the slider's 7 stops from 0 to 128; got 33, .* 32 and 64\."),
        (
            {"transfer": "all"},
            r"transfer must be one of few labels, all labels, few images, and shifted, without the class; got 'all'\.",
        ),
    ],
)
def test_a_start_that_is_no_stop_is_refused(
    trained: ConvNet, few_digits: Dataset, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistillationExplorer(trained, few_digits, **settings)


def test_a_teacher_that_does_not_fit_is_refused_at_once(few_digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"teacher answers 4 classes, and the data set has 10"):
        DistillationExplorer(models.MLP((64, 4)), few_digits)
    with pytest.raises(ValueError, match=r"teacher and transfer do not fit together: .* shape \(1, 8, 8\)"):
        DistillationExplorer(ConvNet(image_size=28), few_digits)


def test_a_value_between_two_stops_is_refused_and_changes_nothing(explorer: DistillationExplorer) -> None:
    before = explorer.settings
    for control, value in (("temperature", 3), ("alpha", 0.95), ("width", 5), ("seeds", 2), ("epochs", 1)):
        with pytest.raises(ValueError, match=rf"{control} must be one of the slider's \d+ stops"):
            getattr(explorer, control).value = value
    with pytest.raises(Exception, match="(?i)invalid selection"):
        explorer.transfer.value = "nonsense"
    assert explorer.settings == before


def test_a_burst_of_moves_ends_at_the_last(explorer: DistillationExplorer) -> None:
    for temperature in room.TEMPERATURES:
        explorer.temperature.value = temperature
    explorer.temperature.value = 5.6
    explorer.wait(PATIENCE)
    assert_shows(explorer, temperature=5.6)


def test_reset(explorer: DistillationExplorer, shared: DistillationExplorer) -> None:
    settle(explorer, temperature=32, alpha=0.2, width=0, transfer="few images", digit=5, image=4)
    explorer.pin_name.value = "some"
    explorer.new_seeds()
    explorer.reset_button.click()
    explorer.wait(PATIENCE)
    settings = explorer.settings
    recipe = settings.recipe
    assert (recipe.temperature, recipe.alpha, recipe.width, recipe.epochs) == (4, 0.9, 8, 20)
    assert (settings.seeds, settings.label, settings.image) == (tuple(range(8)), 3, 0)
    assert (explorer.transfer.value, explorer.pin_name.value) == ("few labels", "")
    assert_shows(explorer, temperature=4)


# --- what is trained, and what is remembered --------------------------------------------------------------------


def test_the_students_are_those_that_fit_trains(explorer: DistillationExplorer, trained: ConvNet) -> None:
    settle(explorer, temperature=2, alpha=0.8)
    group, recipe = explorer.group, explorer.settings.recipe
    alone = models.MLP((64, 8, 10), seed=group.median)
    distill.fit(
        alone, trained, recipe.transfer, epochs=5, temperature=2, alpha=0.8, seed=group.median, lr=distill.LEARNING_RATE
    )
    found, wanted = (nn.utils.parameters_to_vector(net.parameters()) for net in (explorer.model, alone))
    assert torch.allclose(found, wanted, atol=1e-3)
    assert explorer.profile.accuracy == measure.accuracy(explorer.model, explorer.dataset.validation)
    assert explorer.profile.parameters == 64 * 8 + 8 + 8 * 10 + 10


def test_the_curves_grow_until_they_are_complete(explorer: DistillationExplorer) -> None:
    with worker_room.quiet():  # no background work yet
        settle(explorer, alpha=0.6)
        assert explorer.groups() == (explorer.group,)
    explorer.wait_sweep(PATIENCE)
    groups = explorer.groups()
    assert [group.recipe.temperature for group in groups] == [0.5, 1, 2, 4, 8, 16, 32, 64]
    assert len(set(groups)) == 8
    x, y = arrays(explorer._curve, DISTILLED)
    assert x == [0.5, 1, 2, 4, 8, 16, 32, 64]
    assert y == pytest.approx([100 * group.accuracy.value for group in groups])
    sizes = [64 * width + width + 10 * width + 10 for width in (4, 8, 16, 32, 64, 128)]
    for trace in (PLANE_HARD, PLANE_DISTILLED):
        assert arrays(explorer._plane, trace)[0] == sizes
    assert explorer.sweep_note.value == "curves complete: 14 points"
    assert explorer.stop_button.disabled


def test_after_a_move_the_curves_are_completed_again(explorer: DistillationExplorer) -> None:
    """The rivals of all widths are known already then, and the distilled students of an odd number are not."""
    settle(explorer, alpha=0.5)
    explorer.wait_sweep(PATIENCE)
    settle(explorer, temperature=22)
    explorer.wait_sweep(PATIENCE)
    assert [group.recipe.temperature for group in explorer.groups()] == [0.5, 1, 2, 4, 8, 16, 22, 32, 64]
    for trace in (PLANE_HARD, PLANE_DISTILLED):
        assert len(arrays(explorer._plane, trace)[0]) == 6
    assert_shows(explorer, temperature=22)


def test_coarse_first_is_the_curve_in_another_order() -> None:
    assert sorted(room.COARSE_FIRST) == sorted(room.CURVE)
    assert {room.COARSE_FIRST[at] for at in range(3)} == {0.5, 4, 64}  # the middle and both ends
    assert set(room.CURVE) <= set(room.TEMPERATURES)


def test_a_move_back_trains_nothing(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, temperature=8)
    settle(explorer, temperature=4)
    explorer.wait_sweep(PATIENCE)
    settle(explorer, temperature=8)
    explorer.wait_sweep(PATIENCE)
    trainings = count_trainings(explorer, monkeypatch)
    for temperature in (4, 8, 4):
        settle(explorer, temperature=temperature)
        assert_shows(explorer, temperature=temperature)
    explorer.wait_sweep(PATIENCE)
    assert not trainings
    settle(explorer, temperature=45)
    assert trainings == [4]  # the rivals know no temperature


def test_new_seeds_train_new_students(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, epochs=10, seeds=8)
    explorer.wait_sweep(PATIENCE)
    used = set(explorer.settings.seeds)
    settle(explorer, seeds=4)
    explorer.wait_sweep(PATIENCE)
    before, trainings = explorer.group, count_trainings(explorer, monkeypatch)
    for _ in range(2):
        explorer.new_seeds_button.click()
        explorer.wait(PATIENCE)
        assert trainings[0] == 12  # distilled, on hard labels, smoothed
        assert_shows(explorer)
        assert not used & set(explorer.settings.seeds)  # none of them was used before
        assert explorer.group.accuracies != before.accuracies
        used |= set(explorer.settings.seeds)
        explorer.wait_sweep(PATIENCE)
        trainings.clear()


# --- the board --------------------------------------------------------------------------------------------------


def test_pin_by_button_with_a_name(explorer: DistillationExplorer) -> None:
    settle(explorer, temperature=2)
    explorer.pin_name.value = "  my <b>best</b>  "
    explorer.pin_button.click()
    explorer.wait(PATIENCE)
    row = board.frame(explorer.dataset.key).iloc[0]
    profile, validation = explorer.profile, explorer.dataset.validation
    assert row["name"] == "my <b>best</b>"
    assert row["technique"] == "distillation"
    assert row["settings"] == {
        "temperature": 2,
        "alpha": 0.9,
        "width": 8,
        "epochs": 5,
        "transfer": "few labels",
        "seed": explorer.group.median,
    }
    right = training.evaluate(explorer.model, validation).correct
    wilson = Estimate.from_counts(right, len(validation))  # one student's own interval, not that of the mean
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (wilson.value, wilson.low, wilson.high)
    assert (row["nonzeros"], row["file_bytes"], row["flops"]) == (profile.nonzeros, profile.file_bytes, profile.flops)
    assert row["batch_size"] == 1
    assert words(explorer).startswith(
        f"Pinned the median student as my <b>best</b>, with its own interval: {wilson.percent}. T = 2,"
    )
    assert arrays(explorer._plane, PINS) == ([profile.nonzeros], pytest.approx([100 * wilson.value]))
    assert list(explorer._plane.data[PINS].text) == ["my &lt;b&gt;best&lt;/b&gt;"]


def test_a_name_is_made_from_the_settings(explorer: DistillationExplorer) -> None:
    explorer.pin()
    first = explorer.group.median
    settle(explorer, width=0, transfer="without the class", digit=7)
    explorer.pin()
    explorer.wait(PATIENCE)
    second = explorer.group.median
    settle(explorer, digit=8)  # another transfer set, another student
    explorer.pin()
    explorer.wait(PATIENCE)
    pinned = board.frame()
    assert list(pinned["name"]) == [
        f"MLP 8 distilled, T 4, alpha 0.9, few labels, 5 epochs, seed {first}",
        f"linear distilled, T 4, alpha 0.9, without the class 7, 5 epochs, seed {second}",
        f"linear distilled, T 4, alpha 0.9, without the class 8, 5 epochs, seed {explorer.group.median}",
    ]
    assert [record["transfer"] for record in pinned["settings"]][1:] == ["without the class 7", "without the class 8"]


def test_a_pin_asked_right_after_a_move_pins_what_was_moved_to(explorer: DistillationExplorer) -> None:
    for temperature in (1, 16, 2.8):
        explorer.temperature.value = temperature
        explorer.pin(f"at {temperature}")
    explorer.wait(PATIENCE)
    assert [record["temperature"] for record in board.frame()["settings"]] == [1, 16, 2.8]


def test_a_name_taken_twice_is_refused_or_replaced(explorer: DistillationExplorer) -> None:
    explorer.pin("mine")
    explorer.wait(PATIENCE)
    explorer.pin("mine")
    with pytest.raises(ValueError, match=r"name 'mine' is taken"):
        explorer.wait(PATIENCE)
    assert is_error(explorer)
    assert "name 'mine' is taken" in words(explorer)
    settle(explorer, temperature=16)
    explorer.pin("mine", replace=True)
    explorer.wait(PATIENCE)
    assert [record["temperature"] for record in board.frame()["settings"]] == [16]
    assert not is_error(explorer)


def test_pins_of_this_data_set_appear_even_one_without_a_weight(
    opened: Callable[..., DistillationExplorer], explorer: DistillationExplorer, trained: ConvNet, few_digits: Dataset
) -> None:
    profile = explorer.profile
    nothing = dataclasses.replace(profile, nonzeros=0)
    board.pin("nothing left", nothing, dataset=few_digits.key, technique="pruning")
    board.pin("pruned", profile, dataset=few_digits.key, technique="pruning")
    board.pin("elsewhere", profile, dataset="other data", technique="pruning")
    other = opened(trained, few_digits, width=4)
    other.wait(PATIENCE)
    assert_shows(other, width=4)
    assert list(other._plane.data[PINS].hovertext) == ["nothing left", "pruned"]
    assert arrays(other._plane, PINS)[0] == [1, profile.nonzeros]  # a log axis has no 0
    low, high = other._plane.layout.xaxis.range
    assert low < 0 < math.log10(measure.nonzeros(trained)) < high


def test_a_board_that_cannot_be_used_is_said_and_stops_nothing(
    opened: Callable[..., DistillationExplorer], trained: ConvNet, few_digits: Dataset, own_board: Path
) -> None:
    own_board.write_bytes(b"not a board at all" * 50)
    explorer = opened(trained, few_digits, width=4)
    with pytest.raises(board.BoardError, match="is damaged or not a board"):
        explorer.wait(PATIENCE)
    assert "is damaged or not a board" in words(explorer)  # still, after the first answer
    assert "students of 4 hidden units" in words(explorer)
    settle(explorer, temperature=1)
    assert explorer.group.recipe.temperature == 1
    assert "is damaged or not a board" in words(explorer)
    explorer.pin("mine")
    with pytest.raises(board.BoardError, match="is damaged"):
        explorer.wait(PATIENCE)
    assert own_board.read_bytes() == b"not a board at all" * 50


# --- other data -------------------------------------------------------------------------------------------------


def test_data_that_are_no_images(opened: Callable[..., DistillationExplorer], flat: Dataset) -> None:
    teacher = models.MLP((6, 24, 3))
    training.fit(teacher, flat, epochs=8, lr=1e-2)
    explorer = opened(teacher, flat, width=4, transfer="all labels")
    explorer.wait(PATIENCE)
    assert_shows(explorer, width=4)
    assert list(explorer.transfers) == ["few labels", "all labels", "few images", "without the class"]
    assert explorer.digit.value == 2
    assert not explorer._soft.data[0].z
    for label, name in enumerate(flat.class_names):
        settle(explorer, transfer="without the class", digit=label)
        assert_shows(explorer)
        assert f"The students never saw a {html.escape(name)};" in explorer.status.value
        assert explorer._said.layout.title.text == f"What students call a {html.escape(name)}, never seen"
    explorer.wait_sweep(PATIENCE)
    assert len(explorer.groups()) == 8
    explorer.pin()
    explorer.wait(PATIENCE)
    assert board.frame()["settings"].iloc[0]["transfer"] == "without the class four"


def test_two_classes_leave_none_out(opened: Callable[..., DistillationExplorer], pair: Dataset) -> None:
    explorer = opened(models.MLP((5, 2)), pair, width=0)
    explorer.wait(PATIENCE)
    assert_shows(explorer, width=0)
    assert list(explorer.transfers) == ["few labels", "all labels", "few images"]
    with pytest.raises(ValueError, match=r"one of few labels, all labels, few images; got 'without the class'\."):
        DistillationExplorer(models.MLP((5, 2)), pair, transfer="without the class")


def test_a_teacher_without_a_weight_has_its_place_on_the_plane(
    opened: Callable[..., DistillationExplorer], pair: Dataset
) -> None:
    teacher = models.MLP((5, 2))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()
    explorer = opened(teacher, pair, width=4)
    explorer.wait(PATIENCE)
    assert arrays(explorer._plane, PLANE_TEACHER)[0] == [1]
    assert_shows(explorer, width=4)


# --- stopping ---------------------------------------------------------------------------------------------------


def at_first_batch(explorer: DistillationExplorer, act: Callable[[], None]) -> None:
    """Call `act` in the middle of the next training, and let it take effect before the next batch."""

    def moved(change: Any) -> None:
        if change["new"] > 0:
            explorer.progress.unobserve(moved, "value")
            act()

    explorer.progress.observe(moved, "value")


def test_stop_in_the_middle_of_a_training(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer.wait_sweep(PATIENCE)
    group, point, curve = explorer.group, list(explorer.here.point), arrays(explorer._curve, DISTILLED)
    seen: dict[str, Any] = {}

    def stop() -> None:
        seen.update(disabled=explorer.stop_button.disabled, dimmed="kit-busy" in explorer._dom_classes)
        explorer.stop_button.click()

    at_first_batch(explorer, stop)
    trainings = count_trainings(explorer, monkeypatch)
    settle(explorer, epochs=80)
    assert seen == {"disabled": False, "dimmed": True}
    said = words(explorer)
    assert said.startswith("Stopped. Move a control to go on. The picture shows the last answer: T = 4, alpha 0.9:")
    assert group.accuracy.percent in said
    assert not is_error(explorer)
    assert explorer.stop_button.disabled
    assert "kit-busy" not in explorer._dom_classes
    assert explorer.progress.value == 0
    assert (explorer.here.point, arrays(explorer._curve, DISTILLED)) == (point, curve)
    assert explorer.group == group  # the latest answer
    explorer.wait_sweep(PATIENCE)
    time.sleep(0.4)  # longer than a hand rests before the curves grow
    assert len(trainings) == 1  # the stopped one; nothing goes on in the background
    settle(explorer, epochs=5, temperature=1)
    assert_shows(explorer, temperature=1)


def test_a_stop_before_the_first_answer(
    opened: Callable[..., DistillationExplorer], trained: ConvNet, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = distill.Students.train

    def stopped(self: distill.Students, *args: Any, cancel: Any, **settings: Any) -> Any:
        assert cancel.wait(PATIENCE)
        return held(self, *args, cancel=cancel, **settings)

    monkeypatch.setattr(distill.Students, "train", stopped)
    explorer = opened(trained, few_digits)
    while "kit-busy" not in explorer._dom_classes:
        time.sleep(0.01)
    explorer.stop()
    explorer.wait(PATIENCE)
    assert words(explorer) == "Stopped. Move a control to go on. There is no answer yet."
    for read in (lambda: explorer.group, lambda: explorer.hard, lambda: explorer.gain, lambda: explorer.model):
        with pytest.raises(RuntimeError, match=r"no answer yet: the work was stopped before the first one"):
            read()
    explorer.pin("nothing")
    with pytest.raises(RuntimeError, match=r"nothing to pin yet: wait for the first answer\."):
        explorer.wait(PATIENCE)
    assert explorer.here.point == []
    assert explorer.groups() == ()


def test_stop_ends_the_growing_curves_until_a_control_moves(
    explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = explorer._show

    def stop_when_they_grow(settings: Any) -> None:
        show(settings)
        if not explorer._worker.asked:
            explorer.stop_button.click()

    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_show", stop_when_they_grow)
        settle(explorer, alpha=0.7)
        explorer.wait_sweep(PATIENCE)
        assert len(explorer.groups()) == 8  # the temperatures come first, four students each: all at once
        assert len(arrays(explorer._plane, PLANE_DISTILLED)[0]) == 1
        assert explorer.sweep_note.value == "curves stopped: 9 of 14 points"
        assert explorer.stop_button.disabled
        time.sleep(0.4)  # longer than a hand rests before the curves grow
        assert len(arrays(explorer._plane, PLANE_DISTILLED)[0]) == 1
    settle(explorer, digit=1)
    explorer.wait_sweep(PATIENCE)
    assert explorer.sweep_note.value == "curves complete: 14 points"
    assert len(arrays(explorer._plane, PLANE_DISTILLED)[0]) == 6


def test_a_newer_move_cancels_a_training(explorer: DistillationExplorer) -> None:
    said: list[str] = []
    explorer.status.observe(lambda change: said.append(words(explorer)), "value")

    def move() -> None:
        explorer.epochs.value = 5

    at_first_batch(explorer, move)
    explorer.epochs.value = 80
    long = explorer.settings
    explorer.wait(PATIENCE)
    explorer.status.unobserve_all("value")
    assert not any("Stopped" in line for line in said)  # nobody pressed stop
    assert_shows(explorer, epochs=5)
    assert explorer._students.known(long.recipe, long.seeds) is None


def test_an_error_while_answering_is_shown_and_raised(
    explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.wait_sweep(PATIENCE)

    def broken(*args: Any, **settings: Any) -> Any:
        raise RuntimeError("<nothing> works & all is lost.")

    with monkeypatch.context() as patch:
        patch.setattr(explorer._students, "train", broken)
        explorer.temperature.value = 45
        explorer.alpha.value = 0.3
        with pytest.raises(RuntimeError, match="all is lost"):
            explorer.wait(PATIENCE)
        assert is_error(explorer)
        assert words(explorer) == "<nothing> works & all is lost."
        assert "kit-busy" not in explorer._dom_classes
        with contextlib.suppress(RuntimeError):  # the background work fails too
            explorer.wait_sweep(PATIENCE)
    settle(explorer, alpha=0.9, temperature=2)
    assert_shows(explorer, temperature=2)


def test_a_closed_explorer_does_not_answer_and_does_not_hang(trained: ConvNet, few_digits: Dataset) -> None:
    explorer = small(DistillationExplorer(trained, few_digits, width=0))
    explorer.wait(PATIENCE)
    explorer.close()
    with pytest.raises(RuntimeError, match="closed"):
        explorer.temperature.value = 1
    explorer.close()  # twice is no harm


# --- what is shown ----------------------------------------------------------------------------------------------


def test_what_is_painted_is_strict_json(explorer: DistillationExplorer) -> None:
    for controls in ({"temperature": 0.5}, {"width": 0, "alpha": 0.0}, {"transfer": "without the class", "digit": 0}):
        settle(explorer, **controls)
        for figure in (explorer._curve, explorer._soft, explorer._plane, explorer._said):
            state = figure.to_plotly_json()
            assert json.dumps({"data": state["data"], "layout": state["layout"]}, allow_nan=False)


def test_the_display_bundle_has_a_stable_text(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base_room.STILLS, raising=False)
    first, _ = explorer._repr_mimebundle_()
    settle(explorer, temperature=16, transfer="all labels")
    second, _ = explorer._repr_mimebundle_()
    assert first["text/plain"] == second["text/plain"] == "DistillationExplorer: ConvNet on digits"
    assert "application/vnd.jupyter.widget-view+json" in first
    assert "image/png" not in first


def test_the_display_bundle_has_a_still_where_one_is_asked_for(
    explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(base_room.STILLS, "1")
    bundle, _ = explorer._repr_mimebundle_()
    png = base64.b64decode(bundle["image/png"], validate=True)
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20  # something is drawn
    assert {group.recipe.temperature for group in explorer.groups()} >= set(room.CURVE)  # and the curve was complete


def test_the_recipe_of_the_settings_is_made_from_the_controls(explorer: DistillationExplorer) -> None:
    explorer.stop()
    explorer.temperature.value, explorer.alpha.value, explorer.width.value = 8, 0.4, 16
    first = explorer.settings
    assert first.recipe == Recipe(first.recipe.transfer, 8, 0.4, 16, 5)
    assert explorer.settings == first  # the transfer set is made once
    explorer.wait(PATIENCE)
    assert_shows(explorer, temperature=8, alpha=0.4, width=16)


def test_a_value_in_the_place_of_a_control_is_refused(explorer: DistillationExplorer) -> None:
    control = explorer.temperature
    with pytest.raises(AttributeError, match=r"temperature is a control: set temperature\.value = 8 instead\."):
        explorer.temperature = 8  # type: ignore[assignment]
    assert explorer.temperature is control
