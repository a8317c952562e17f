from __future__ import annotations

import contextlib
import dataclasses
import html
import math
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kit import board, data, distill, measure, models, training
from kit.data import Dataset
from kit.explorers import DistillationExplorer
from kit.explorers import distill as room
from kit.measure import Estimate
from kit.models import ConvNet
from tests.hands import PATIENCE, recover, settle, words

pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def shared(trained: ConvNet, few_digits: Dataset, board_apart: None) -> Iterator[DistillationExplorer]:
    with contextlib.closing(small(DistillationExplorer(trained, few_digits, width=8))) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


@pytest.fixture
def explorer(shared: DistillationExplorer, own_board: Path) -> DistillationExplorer:
    """The explorer that the tests share, its controls and board as at the beginning."""
    shared.read_board()
    recover(shared)
    small(shared).wait(PATIENCE)
    return shared


def small(explorer: DistillationExplorer) -> DistillationExplorer:
    """Four students and five epochs: as few as the sliders allow."""
    explorer.set(seeds=4, epochs=5)
    return explorer


def arrays(explorer: DistillationExplorer, figure: str, name: str) -> tuple[list[float], list[float]]:
    (drawn,) = [trace for trace in explorer.figures[figure].data if trace.name == name]
    return list(drawn.x or ()), list(drawn.y or ())


def count_trainings(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of students of each cohort that is trained from now on."""
    counted: list[int] = []
    original = explorer._students._train

    def train(*args: Any) -> None:
        counted.append(len(args[0]))
        original(*args)

    monkeypatch.setattr(explorer._students, "_train", train)
    return counted


def shares(explorer: DistillationExplorer, teacher: nn.Module) -> list[float]:
    """The teacher's probabilities of the chosen sample at the chosen temperature, number by number."""
    split, settings = explorer.dataset.validation, explorer.settings
    row = [row for row, label in enumerate(split.labels.tolist()) if label == settings.label][settings.image]
    logits = training.predict(teacher, split.inputs[row : row + 1])[0].tolist()
    powers = [math.exp(logit / settings.recipe.temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def assert_shows(explorer: DistillationExplorer, **expected: Any) -> None:
    """Settings, groups, marks, figures and words agree with each other and with what is measured directly."""
    settings, group, hard, smoothed = explorer.settings, explorer.group, explorer.hard, explorer.smoothed
    recipe, accuracy, temperature = settings.recipe, group.accuracy, settings.recipe.temperature
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert (group.recipe, hard.recipe, smoothed.recipe) == (recipe, recipe.hard, recipe.smoothed)
    assert group.seeds == hard.seeds == smoothed.seeds == settings.seeds
    assert accuracy == Estimate.from_values(group.accuracies)
    of_median = dict(zip(group.seeds, group.accuracies, strict=True))[group.median]
    median = measure.accuracy(explorer.model, explorer.dataset.validation)
    assert median.value == pytest.approx(of_median, abs=1e-6)
    mean, low, high = 100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high
    assert explorer.here.values == pytest.approx([temperature, mean, low, high])
    students = [temperature] * len(group.seeds), pytest.approx([100 * each for each in group.accuracies])
    assert arrays(explorer, "curve", "one student") == students
    drawn = dict(zip(*arrays(explorer, "curve", "distilled"), strict=True))
    assert drawn[temperature] == pytest.approx(mean)
    for name, rival in (("hard labels", hard), ("label smoothing", smoothed)):
        assert arrays(explorer, "curve", name) == ([0.5, 64], pytest.approx([100 * rival.accuracy.value] * 2))
    assert arrays(explorer, "plane", "you are here")[1] == pytest.approx([mean])
    for name, each in (("distilled", group), ("hard labels", hard)):
        row = [100 * estimate.value for estimate in each.answers_to(settings.label)]
        assert arrays(explorer, "answers", name)[1] == pytest.approx(row)
    gain = Estimate.from_pairs(group.accuracies, hard.accuracies)
    assert explorer.gain == gain
    for part in (
        f"T = {temperature:g}, alpha {recipe.alpha:g}, {settings.transfer}, ",
        f"{recipe.epochs} epochs: students of",
        f"reach {accuracy.percent}, mean of {len(group.seeds)} seeds, 95 % interval over seeds, ",
        f"On hard labels {hard.accuracy.percent}, with label smoothing {smoothed.accuracy.percent};",
        f"seed by seed: {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})",
    ):
        assert part in words(explorer)


def test_the_first_answer_comes_unasked_and_soft_labels_move_before_any_student_is_trained(
    explorer: DistillationExplorer, trained: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_shows(explorer, temperature=4, alpha=0.9, width=8, epochs=5)
    assert list(explorer.transfers) == ["few labels", "all labels", "few images", "and shifted", "without the class"]
    teacher, size = measure.accuracy(trained, explorer.dataset.validation), measure.nonzeros(trained)
    assert f"the teacher ({size:,} parameters) {teacher.percent}, over images." in words(explorer)
    for figure, x in (("curve", [0.5, 64]), ("plane", [size])):
        assert arrays(explorer, figure, "teacher") == (x, pytest.approx([100 * teacher.value] * len(x)))
    explorer.wait_curves(PATIENCE)
    before = list(explorer.bars.values)
    monkeypatch.setattr(explorer, "_request", lambda *args, **settings: None)  # the worker is asked for nothing
    for temperature in (0.7, 32):
        explorer.temperature.value = temperature
        assert explorer.bars.values == pytest.approx(shares(explorer, trained), abs=1e-5)
    explorer.digit.value, explorer.image.value = 8, 5
    assert explorer.bars.values == pytest.approx(shares(explorer, trained), abs=1e-5)
    with monkeypatch.context() as patch:  # a hand that has moved on
        patch.setattr(type(explorer._worker), "newer", True)
        explorer._mark(explorer._latest())
    assert explorer.bars.values == pytest.approx(shares(explorer, trained), abs=1e-5)
    explorer._mark(explorer._latest())
    assert explorer.bars.values == pytest.approx(before)


@pytest.mark.parametrize(
    ("width", "temperature", "parameters", "kind"),
    [(0, 0.5, 650, "one linear layer"), (4, 64, 310, "4 hidden units")],
)
def test_width_and_temperature(
    explorer: DistillationExplorer, width: int, temperature: float, parameters: int, kind: str
) -> None:
    settle(explorer, width=width, temperature=temperature)
    assert_shows(explorer, width=width, temperature=temperature)
    assert measure.parameters(explorer.model) == parameters
    assert f"students of {kind} ({parameters} parameters)" in words(explorer)
    assert arrays(explorer, "plane", "you are here")[0] == [parameters]


def test_alpha_epochs_and_seeds(explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(explorer, alpha=0.0)
    assert_shows(explorer, alpha=0)
    assert explorer.group.accuracies == explorer.hard.accuracies  # no teacher is needed
    settle(explorer, alpha=0.9)
    before = explorer.group.accuracies
    settle(explorer, seeds=8)
    assert_shows(explorer, epochs=5)
    assert explorer.settings.seeds == tuple(range(8))
    assert explorer.group.accuracies[:4] == before  # those are remembered
    settle(explorer, epochs=10)
    assert_shows(explorer, epochs=10)
    assert explorer.group.accuracy.value > Estimate.from_values(before).value
    used, trainings = set(explorer.settings.seeds), count_trainings(explorer, monkeypatch)
    explorer.new_seeds_button.click()
    explorer.wait(PATIENCE)
    assert_shows(explorer)
    assert trainings[0] == 24  # distilled, on hard labels, smoothed
    assert not used & set(explorer.settings.seeds) and "seed=64" in explorer.code()


@pytest.mark.parametrize(
    ("name", "size", "labelled", "different"),
    [
        ("few labels", 200, 100, 200),
        ("all labels", 200, 200, 200),
        ("few images", 200, 200, 100),
        ("and shifted", 400, 400, 376),  # a digit may stay where it is
    ],
)
def test_transfer(explorer: DistillationExplorer, name: str, size: int, labelled: int, different: int) -> None:
    settle(explorer, transfer=name)
    assert_shows(explorer)
    split = explorer.settings.recipe.transfer
    assert (len(split), int((split.labels >= 0).sum())) == (size, labelled)
    assert len(torch.unique(split.inputs.flatten(1), dim=0)) == different
    assert explorer.settings.recipe.transfer is split  # made once


def test_a_class_that_students_never_saw(explorer: DistillationExplorer) -> None:
    assert "never saw" not in words(explorer)
    settle(explorer, transfer="without the class", digit=7, alpha=1.0)
    assert_shows(explorer, alpha=1)
    assert set(explorer.settings.recipe.transfer.labels.tolist()) == {0, 1, 2, 3, 4, 5, 6, 8, 9}
    right, without = explorer.group.answers_to(7)[7], explorer.hard.answers_to(7)[7]
    said = f"The students never saw a 7; they name {100 * right.value:.0f} % of them right (hard labels: 0 %)."
    assert said in words(explorer)
    assert without.value == 0  # nobody told them that there is a 7
    settle(explorer, digit=2)  # another class is left out then
    assert set(explorer.settings.recipe.transfer.labels.tolist()) == {0, 1, 3, 4, 5, 6, 7, 8, 9}
    assert "never saw a 2" in words(explorer)


def test_class_and_image_choose_the_sample_and_train_nothing(
    explorer: DistillationExplorer, trained: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.wait_curves(PATIENCE)
    trainings = count_trainings(explorer, monkeypatch)
    for digit, image in ((0, 0), (9, 3), (9, explorer.image.stops[-1])):
        settle(explorer, digit=digit, image=image)
        assert_shows(explorer)
        split = explorer.dataset.validation
        row = (split.labels == digit).nonzero()[image].item()
        picture = np.asarray(explorer.figures["soft"].data[0].z)
        assert picture == pytest.approx(split.inputs[int(row), 0].numpy())
        by_hand = shares(explorer, trained)
        assert explorer.bars.values == pytest.approx(by_hand, abs=1e-5)
        first = max(range(10), key=by_hand.__getitem__)
        assert f"Of this {digit} the teacher says: {first} ({100 * by_hand[first]:.0f} %)" in words(explorer)
    assert not trainings
    fewest = min(explorer.dataset.validation.labels.tolist().count(label) for label in range(10))
    assert explorer.image.stops[-1] == fewest - 1  # there is such an image of each class


@pytest.mark.parametrize(
    ("teacher", "start", "sentence"),
    [
        (None, {"temperature": 3}, "temperature must be one of .* 15 stops from 0.5 to 64; got 3, .* 2.8 and 4"),
        (None, {"width": 33}, "width must be one of .* 7 stops from 0 to 128; got 33, .* 32 and 64"),
        (None, {"transfer": "all"}, "transfer must be one of few labels, .*, without the class; got 'all'."),
        (models.MLP((64, 4)), {}, "teacher answers 4 classes, and the data set has 10"),
        (ConvNet(image_size=28), {}, r"teacher and transfer do not fit together: .* shape \(1, 8, 8\)"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    trained: ConvNet, few_digits: Dataset, teacher: nn.Module | None, start: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistillationExplorer(teacher or trained, few_digits, **start)


def test_a_teacher_of_another_type_or_without_answers_is_refused(trained: ConvNet, few_digits: Dataset) -> None:
    for teacher in (None, ConvNet, torch.zeros(539, 10)):
        with pytest.raises(TypeError, match="teacher must be a module; got"):
            DistillationExplorer(teacher, few_digits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset must be a Dataset, .*; got Split"):
        DistillationExplorer(trained, few_digits.train)  # type: ignore[arg-type]
    for bad in (math.nan, math.inf):
        broken = models.MLP((64, 10))
        nn.init.constant_(broken.layers[0].bias, bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="teacher's logits must be finite; some are NaN or infinity"):
            DistillationExplorer(broken, few_digits)


def test_a_teacher_that_answers_in_an_object_teaches_students_that_diverge(board_apart: None) -> None:
    """Inputs near the end of float32: only the teacher divides them. The explorer goes on, and a pin is refused."""

    class Dividing(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            mean = (x / 1e38).mean(1, keepdim=True)
            return {"logits": torch.cat([-mean, mean], 1)}

    labels = np.arange(160) % 2
    numbers = np.random.default_rng(1).normal(size=(160, 5)) * 1e37 + 1e38 * labels[:, None]
    far = data.from_arrays(numbers, labels, name="far")
    with contextlib.closing(small(DistillationExplorer(Dividing(), far, width=4))) as explorer:
        explorer.wait(PATIENCE)
        assert explorer.group.diverged == explorer.hard.diverged == 4
        wrong = "4 distilled, 4 on hard labels, 4 with label smoothing"
        assert f"Students answer NaN or infinity, and count as wrong there: {wrong}." in words(explorer)
        assert explorer.group.accuracy.value == 0
        explorer.pin()
        with pytest.raises(ValueError, match="profile: the model answers NaN or infinity for 32 of 32 samples"):
            explorer.wait(PATIENCE)


def test_the_students_are_those_that_fit_trains(explorer: DistillationExplorer, trained: ConvNet) -> None:
    settle(explorer, temperature=2, alpha=0.8)
    group, recipe = explorer.group, explorer.settings.recipe
    alone = models.MLP((64, 8, 10), seed=group.median)
    how: dict[str, Any] = {"epochs": 5, "temperature": 2, "alpha": 0.8, "seed": group.median}
    distill.fit(alone, trained, recipe.transfer, **how, lr=distill.LEARNING_RATE)
    found, wanted = (nn.utils.parameters_to_vector(net.parameters()) for net in (explorer.model, alone))
    assert torch.allclose(found, wanted, atol=1e-3)
    assert explorer.profile.accuracy == measure.accuracy(explorer.model, explorer.dataset.validation)
    assert explorer.profile.parameters == 64 * 8 + 8 + 8 * 10 + 10


def test_the_curves_grow_until_they_are_complete(
    explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = count_trainings(explorer, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_rest", PATIENCE)  # no background work yet
        settle(explorer, alpha=0.6)
        assert explorer.groups() == (explorer.group,)
    settle(explorer, image=1)  # which trains nothing
    explorer.wait_curves(PATIENCE)
    groups = explorer.groups()
    temperatures, means = [0.5, 1, 2, 4, 8, 16, 32, 64], [100 * group.accuracy.value for group in groups]
    assert [group.recipe.temperature for group in groups] == temperatures
    assert arrays(explorer, "curve", "distilled") == (temperatures, pytest.approx(means))
    sizes = [64 * width + width + 10 * width + 10 for width in (4, 8, 16, 32, 64, 128)]
    for name in ("hard labels", "distilled"):
        assert arrays(explorer, "plane", name)[0] == sizes
    assert explorer.curves_note.value == "curves complete: 14 points"
    assert trainings[0] in (4, 12)  # the chosen students; their rivals may be known
    assert trainings[1] == 7 * 4  # then all other temperatures at once
    assert len(trainings[2:]) == 5 and set(trainings[2:]) <= {4, 8}  # then a width at a time
    trainings.clear()
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_rest", PATIENCE)  # on a busy machine background work would begin in between
        for temperature in (2, 4):  # on the curve: nothing is trained again
            settle(explorer, temperature=temperature)
            assert_shows(explorer, temperature=temperature)
        assert not trainings
        settle(explorer, temperature=22)
        assert trainings == [4]  # the rivals know no temperature
    settle(explorer, image=0)  # which wakes it
    explorer.wait_curves(PATIENCE)
    assert [group.recipe.temperature for group in explorer.groups()] == [0.5, 1, 2, 4, 8, 16, 22, 32, 64]
    assert_shows(explorer, temperature=22)


@pytest.mark.parametrize(("seeds", "at_once"), [(4, 8), (8, 4), (64, 1)])
def test_background_work_trains_few_students_at_once(
    explorer: DistillationExplorer, monkeypatch: pytest.MonkeyPatch, seeds: int, at_once: int
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(explorer._students, "train", lambda recipes, *args, **settings: asked.extend(recipes))
    recipe = dataclasses.replace(explorer.settings.recipe, alpha=0.3)
    settings = dataclasses.replace(explorer.settings, recipe=recipe, seeds=tuple(range(1000, 1000 + seeds)))
    answer = dataclasses.replace(explorer._latest(), settings=settings)
    missing, total = explorer._missing(answer)
    assert len(missing) == total == 14
    explorer._grow(answer, missing, Event())
    assert [each.temperature for each in asked] == [4, 64, 0.5, 16, 1, 8, 2, 32][:at_once]  # middle and ends first
    assert sorted(room.COARSE_FIRST) == list(room.TEMPERATURES[::2])


def test_a_pin_is_one_student_with_its_own_interval(explorer: DistillationExplorer) -> None:
    settle(explorer, temperature=2)
    explorer.pin("mine")
    explorer.wait(PATIENCE)
    row, profile, validation = board.frame(explorer.dataset.key).iloc[0], explorer.profile, explorer.dataset.validation
    recipe = {"temperature": 2, "alpha": 0.9, "width": 8, "epochs": 5}
    assert row["technique"] == "distillation"
    assert row["settings"] == {**recipe, "transfer": "few labels", "seed": explorer.group.median}
    wilson = Estimate.from_counts(training.evaluate(explorer.model, validation).correct, len(validation))
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (wilson.value, wilson.low, wilson.high)
    assert (row["nonzeros"], row["file_bytes"], row["flops"]) == (profile.nonzeros, profile.file_bytes, profile.flops)
    assert words(explorer).startswith(f"Pinned the median student as mine, {wilson.percent}. T = 2,")
    assert arrays(explorer, "plane", "on the board") == ([profile.nonzeros], pytest.approx([100 * wilson.value]))
    medians = []
    for digit in (7, 8):  # another class is another transfer set
        settle(explorer, width=0, transfer="without the class", digit=digit)
        explorer.pin()
        explorer.wait(PATIENCE)
        medians.append(explorer.group.median)
    pinned = board.frame()[1:]
    assert list(pinned["name"]) == [
        f"linear distilled, T 2, alpha 0.9, without the class {digit}, 5 epochs, seed {median}"
        for digit, median in zip((7, 8), medians, strict=True)
    ]
    assert [record["transfer"] for record in pinned["settings"]] == ["without the class 7", "without the class 8"]


def test_a_pin_or_a_teacher_without_a_weight_has_its_place_on_the_plane() -> None:
    labels = np.arange(160) % 2
    numbers = np.random.default_rng(1).normal(size=(160, 5)) + labels[:, None]
    pair, teacher = data.from_arrays(numbers, labels, name="pair"), models.MLP((5, 2))
    for parameter in teacher.parameters():
        nn.init.zeros_(parameter)
    nothing = measure.profile(teacher, pair.validation)
    board.pin("nothing left", nothing, dataset=pair.key, technique="pruning")
    board.pin("elsewhere", nothing, dataset="other data", technique="pruning")
    with contextlib.closing(small(DistillationExplorer(teacher, pair, width=4))) as explorer:
        assert_shows(explorer, width=4)
        assert list(explorer.transfers) == ["few labels", "all labels", "few samples"]  # two classes leave none out
        for name in ("teacher", "on the board"):
            assert arrays(explorer, "plane", name)[0] == [1]  # a log axis has no 0
        low, high = explorer.figures["plane"].layout.xaxis.range
        assert low < 0 < high


def test_data_that_are_no_images() -> None:
    rng, labels, names = np.random.default_rng(0), np.arange(240) % 3, ("<one>", "two & three", "four")
    flat = data.from_arrays(rng.normal(size=(240, 6)) + labels[:, None], labels, name="flat", class_names=names)
    teacher = models.MLP((6, 24, 3))
    training.fit(teacher, flat, epochs=8, lr=1e-2)
    with contextlib.closing(small(DistillationExplorer(teacher, flat, width=4, transfer="all labels"))) as explorer:
        assert_shows(explorer, width=4)
        assert list(explorer.transfers) == ["few labels", "all labels", "few samples", "without the class"]
        assert explorer.digit.value == 2
        assert not explorer.figures["soft"].data[0].z
        for label, name in enumerate(map(html.escape, names)):
            settle(explorer, transfer="without the class", digit=label)
            assert_shows(explorer)
            assert f"The students never saw a {name};" in explorer.status.value
        explorer.wait_curves(PATIENCE)
        assert len(explorer.groups()) == 8
