"""Cohorts of students: each is the student that `distill.fit` trains alone, and none is trained twice."""

from __future__ import annotations

import copy
import itertools
import math
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from kit import cohort, distill, models, training
from kit.cohort import Member
from kit.data import Dataset
from kit.distill import Group, Recipe, Students
from kit.distill import students as room
from kit.measure import Estimate
from kit.models import ConvNet
from kit.training import Cancelled
from tests.nets import Counter, SetAfter, already_set, count_calls, loop, vector

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = (3, 4, 5)


@pytest.fixture
def students(teacher: nn.Module, tiny: Dataset) -> Students:
    return Students(teacher, tiny)


def close(net: nn.Module, other: nn.Module) -> bool:
    return torch.allclose(vector(net), vector(other), atol=1e-4)


def right(net: nn.Module, dataset: Dataset) -> float:
    named = training.predict(net, dataset.validation.inputs).argmax(1)
    return (named == dataset.validation.labels).float().mean().item()


# --- recipes ----------------------------------------------------------------------------------------------------


def test_the_rivals_differ_in_the_loss_alone(tiny: Dataset) -> None:
    recipe = Recipe(tiny.train, temperature=8, alpha=0.7, width=5, epochs=2)
    assert recipe.hard == Recipe(tiny.train, temperature=1, alpha=0, width=5, epochs=2)
    assert recipe.smoothed == Recipe(tiny.train, temperature=1, alpha=0, width=5, epochs=2, label_smoothing=0.1)
    assert recipe.hard.hard == recipe.smoothed.hard == recipe.hard
    assert recipe.hard != Recipe(distill.few(tiny.train, 131), temperature=1, alpha=0, width=5, epochs=2)


WORD: Any = "many"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda tiny: Recipe(tiny.train.first(0)), r"transfer is empty; it needs at least one sample\."),
        (lambda tiny: Recipe(tiny), "transfer must be one of a data set's splits, .*; got Dataset"),
        (lambda tiny: Students(models.MLP((6, 3)), tiny.train), "dataset must be a Dataset, .*; got Split"),
        (lambda tiny: Students(models.MLP((6, 3)), tiny, lr=WORD), "lr must be a number; got 'many'"),
        (lambda tiny: Students(models.MLP((6, 3)), tiny, lr=0), "lr must be above 0; got 0"),
        (
            lambda tiny: Students(models.MLP((6, 3)), tiny, batch_size=WORD),
            "batch_size must be a whole number; got 'many'",
        ),
        (lambda tiny: Students(models.MLP, tiny), "teacher must be a module; got <class"),  # type: ignore[arg-type]
        (lambda tiny: Students(models.MLP((6, 4)), tiny), "teacher answers 4 classes, and the data set has 3"),
        (lambda tiny: Students(models.MLP((5, 3)), tiny), "teacher and transfer do not fit .* samples of 5 numbers"),
        *(
            (lambda tiny, given={name: value}: Recipe(tiny.train, **given), rf"{name}{rest}; got {value}\.")
            for name, value, rest in (
                ("temperature", 0, r" must lie in 0.01 .. 1e\+06"),
                ("alpha", 1.5, r", the weight .*, must lie in \[0, 1\]"),
                ("label_smoothing", -0.1, r" must lie in \[0, 1\]"),
                ("label_smoothing", math.nan, r" must lie in \[0, 1\]"),
                ("width", -1, " must be 0 or more"),
                ("epochs", 0, " must be 1 or more"),
                ("epochs", 2.5, " must be a whole number"),
                ("width", True, " must be a whole number"),
                ("alpha", None, r", the weight .*, must be a number"),
            )
        ),
    ],
)
def test_what_trains_nobody_is_refused_at_once(tiny: Dataset, make: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        make(tiny)


# --- each student -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"lr": 0.03, "batch_size": 20}], ids=["", "settings"])
@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("labelled", [131, 40])
def test_each_is_the_student_that_fit_trains_alone(
    teacher: nn.Module, tiny: Dataset, width: int, labelled: int, settings: dict[str, Any]
) -> None:
    students, transfer = Students(teacher, tiny, **settings), distill.partly_labelled(tiny.train, labelled)
    recipes = [Recipe(transfer, t, alpha, width, epochs=3) for t, alpha in ((4, 0.9), (1, 1.0), (16, 0.5))]
    groups = students.train(recipes, SEEDS)
    assert [group.recipe for group in groups] == recipes
    for recipe, group in zip(recipes, groups, strict=True):
        assert group.seeds == SEEDS
        how: dict[str, Any] = {"temperature": recipe.temperature, "alpha": recipe.alpha, "lr": room.LEARNING_RATE}
        for seed, accuracy in zip(SEEDS, group.accuracies, strict=True):
            alone = models.MLP((6, width, 3) if width else (6, 3), seed=seed)
            distill.fit(alone, teacher, transfer, epochs=3, seed=seed, **how | settings)
            own = students.model(recipe, seed)
            assert close(own, alone)
            assert not own.training
            assert accuracy == pytest.approx(right(own, tiny), abs=1e-6)


def test_the_rivals_learn_from_hard_labels_and_smoothed_ones(students: Students, tiny: Dataset) -> None:
    recipe = Recipe(tiny.train, width=4, epochs=2)
    students.train([recipe.hard, recipe.smoothed], SEEDS)
    for rival, smoothing in ((recipe.hard, 0.0), (recipe.smoothed, 0.1)):
        alone = models.MLP((6, 4, 3), seed=4)

        def loss(rows: Tensor, net: nn.Module = alone, smoothing: float = smoothing) -> Tensor:
            return F.cross_entropy(net(tiny.train.inputs[rows]), tiny.train.labels[rows], label_smoothing=smoothing)

        loop([alone], 131, loss, epochs=2, seed=4, lr=0.01)
        assert close(students.model(rival, 4), alone)


def test_the_teacher_is_asked_about_each_transfer_set_once_and_not_changed(
    teacher: models.MLP, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch, room, "answers")
    before = vector(teacher)
    students = Students(teacher, tiny)
    assert torch.allclose(students.logits, teacher(tiny.validation.inputs), atol=1e-6)
    few = distill.few(tiny.train, 9)
    for epochs in (1, 2):
        students.train([Recipe(tiny.train, width=4, epochs=epochs), Recipe(few, width=0, epochs=epochs)], SEEDS)
    assert [len(inputs) for _, inputs in calls] == [44, 131, 131]  # validation, then each set
    assert torch.equal(vector(teacher), before)
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_of_another_kind_than_the_teacher(trained: ConvNet, digits: Dataset) -> None:
    students = Students(trained, digits)
    recipe = Recipe(digits.train, width=16, epochs=12)
    group = students.train([recipe], (0, 1))[0]
    assert min(group.accuracies) > 0.8
    assert students.model(recipe, 0)(digits.validation.inputs[:2]).shape == (2, 10)
    for width in (0, 1, 16):
        by_hand = 64 * width + width + width * 10 + 10 if width else 64 * 10 + 10
        assert students.n_parameters(width) == by_hand


# --- what is remembered -----------------------------------------------------------------------------------------


def test_nothing_is_trained_twice(students: Students, tiny: Dataset) -> None:
    recipe, counter = Recipe(tiny.train, width=4, epochs=2), Counter()
    first = students.train([recipe, recipe.hard, recipe], SEEDS, callbacks=[counter])
    assert counter.sizes == [6]  # the recipe that is asked for twice is trained once
    assert first[0] == first[2]
    again = students.train([recipe.hard, recipe], SEEDS[::-1], callbacks=[counter])
    assert counter.batches == 2 * 3  # none more
    assert [group.recipe for group in again] == [recipe.hard, recipe]
    assert again[1].seeds == SEEDS[::-1]
    assert again[1].accuracies == first[0].accuracies[::-1]


def test_only_what_is_missing_is_trained(students: Students, tiny: Dataset) -> None:
    recipe, counter = Recipe(tiny.train, width=4, epochs=1), Counter()
    students.train([recipe], (0, 1))
    before = students.known(recipe, (0, 1))
    assert students.known(recipe, (0, 1, 2)) is None
    assert students.known(recipe.hard, (0, 1)) is None
    group = students.train([recipe], (0, 1, 2), callbacks=[counter])[0]
    assert counter.sizes == [1]
    assert before is not None
    assert torch.equal(group.named[:2], before.named)
    students.train([recipe.hard, recipe], (1, 2), callbacks=[counter])
    assert counter.sizes == [1, 2]


def test_one_cohort_for_each_transfer_set_width_and_number_of_epochs(students: Students, tiny: Dataset) -> None:
    few, counter = distill.few(tiny.train, 9), Counter()
    kinds = itertools.product((tiny.train, few), (0, 4), (1, 2), (1, 2, 4))
    recipes = [Recipe(transfer, t, width=width, epochs=epochs) for transfer, width, epochs, t in kinds]
    groups = students.train(recipes[::-1], (0, 1), callbacks=[counter])
    assert counter.sizes == 8 * [6]
    assert [group.recipe for group in groups] == recipes[::-1]


@pytest.mark.parametrize("seeds", [[], [3], [3, 3], [1, 2, 1]])
def test_seeds_without_a_spread_are_refused(students: Students, tiny: Dataset, seeds: list[int]) -> None:
    counter, sentence = Counter(), f"seeds needs at least two, none twice, to show a spread; got {seeds}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        students.train([Recipe(tiny.train)], seeds, callbacks=[counter])
    assert not counter.batches


def test_what_is_no_seed_recipe_width_member_template_or_features_is_refused(
    students: Students, tiny: Dataset, teacher: nn.Module
) -> None:
    recipe, mlp, features = Recipe(tiny.train, width=4, epochs=1), models.MLP((6, 4, 3)), torch.zeros(131, 4)
    refused: list[tuple[Callable[[Any], Any], Any, str]] = [
        (lambda seeds: students.train([recipe], seeds), 3, "seeds must be a list of whole numbers; got 3"),
        (lambda seeds: students.train([recipe], seeds), (0, 1.5), "each of seeds must be a whole number; got 1.5"),
        (lambda seeds: students.train([recipe], seeds), "01", "each of seeds must be a whole number; got '0'"),
        (lambda recipes: students.train(recipes, (0, 1)), recipe, "recipes must be a list of Recipe objects; got"),
        (lambda recipes: students.train(recipes, (0, 1)), [4], "each of recipes must be a Recipe; got 4"),
        (students.n_parameters, 2.5, "width must be a whole number; got 2.5"),
        (
            lambda those: distill.generations(mlp, those, tiny.train, 2, epochs=1),
            [4],
            "each of members must be a Member",
        ),
        (
            lambda net: distill.hinted(net, [Member()], tiny.train, features, epochs=1),
            nn.Linear(6, 3),
            "template must be",
        ),
        (
            lambda given: distill.hinted(mlp, [Member()], tiny.train, given, epochs=1),
            [[0.0]],
            "features must be a tensor",
        ),
    ]
    for call, value, sentence in refused:
        with pytest.raises(TypeError, match=sentence):
            call(value)
    with pytest.raises(ValueError, match=r"features must be \[n, F\], .*; got shape \(4,\)"):
        distill.hinted(mlp, [Member()], tiny.train, features[0], epochs=1)
    numbers: Any = np.arange(2)
    assert students.train([recipe], numbers)[0].seeds == (0, 1)


def test_what_a_cohort_refuses_is_not_known_later(students: Students, tiny: Dataset) -> None:
    recipe = Recipe(distill.partly_labelled(tiny.train, 0), width=4, epochs=1)
    with pytest.raises(ValueError, match=r"no labelled sample, and alpha = 0 learns from labels alone"):
        students.train([recipe, recipe.hard], SEEDS)
    assert students.known(recipe, SEEDS) is None
    assert students.train([recipe], SEEDS)[0].recipe == recipe


def test_a_cancel_leaves_nothing_half_known(students: Students, tiny: Dataset) -> None:
    first, second = Recipe(tiny.train, width=4, epochs=2), Recipe(tiny.train, width=0, epochs=2)
    cancel, counter = threading.Event(), Counter()
    with pytest.raises(Cancelled, match="epoch 2 of 2, before batch 2"):
        students.train([first, second], SEEDS, callbacks=[SetAfter(cancel, 6 + 4)], cancel=cancel)
    assert students.known(first, SEEDS) is not None  # whole cohorts before are remembered
    assert [students.known(second, seeds) for seeds in (SEEDS, SEEDS[:2], SEEDS[2:])] == [None] * 3
    with pytest.raises(KeyError, match=r"no student was trained by Recipe\(.*\) with seed 3"):
        students.model(second, 3)
    students.train([first, second], SEEDS, callbacks=[counter])
    assert counter.sizes == [3]
    alone = models.MLP((6, 3), seed=3)
    distill.fit(alone, students.teacher, tiny.train, epochs=2, seed=3, lr=room.LEARNING_RATE)
    assert close(students.model(second, 3), alone)


def test_a_student_that_is_no_longer_kept_whole_is_trained_again(
    teacher: nn.Module, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WEIGHT_BYTES", 4 * (6 * 4 + 4 + 4 * 3 + 3) * 4)  # of four students
    students = Students(teacher, tiny)
    old, new = (Recipe(tiny.train, temperature, width=4, epochs=1) for temperature in (2, 4))
    students.train([old], SEEDS)
    before = {seed: vector(students.model(old, seed)) for seed in SEEDS}
    students.train([new], SEEDS)
    assert len(students._whole) == 4
    calls = count_calls(monkeypatch, cohort, "fit")
    known = students.known(old, SEEDS)
    students.model(new, 3)
    assert not calls
    assert torch.allclose(vector(students.model(old, 3)), before[3], atol=1e-5)
    assert [len(networks) for networks, _ in calls] == [1]
    after = students.known(old, SEEDS)
    assert known is not None and after is not None
    assert torch.equal(known.named, after.named)  # the answers were kept all the time


# --- groups -----------------------------------------------------------------------------------------------------


def test_the_accuracy_of_a_group_is_the_mean_over_seeds(students: Students, tiny: Dataset) -> None:
    group = students.train([Recipe(tiny.train, width=4, epochs=2)], range(5))[0]
    each = [right(students.model(group.recipe, seed), tiny) for seed in range(5)]
    assert len(set(each)) > 1
    assert list(group.accuracies) == pytest.approx(each)
    assert vars(group.accuracy) == pytest.approx(vars(Estimate.from_values(each)))


def test_answers_to_a_class_are_a_row_of_the_confusion_matrix(students: Students, tiny: Dataset) -> None:
    group = students.train([Recipe(distill.without_class(tiny.train, 1), width=4, epochs=1)], SEEDS)[0]
    matrices = []
    for seed in SEEDS:
        named = training.predict(students.model(group.recipe, seed), tiny.validation.inputs).argmax(1)
        matrices.append(confusion_matrix(tiny.validation.labels, named, normalize="true", labels=range(3)))
    for label in range(3):
        row = group.answers_to(label)
        for estimate, values in zip(row, np.array(matrices)[:, label].T.tolist(), strict=True):
            assert vars(estimate) == pytest.approx(vars(Estimate.from_values(values).share), abs=1e-6)
        assert sum(estimate.value for estimate in row) == pytest.approx(1, abs=1e-6)


def made(named: list[list[int]], labels: list[int], tiny: Dataset) -> Group:
    seeds = tuple(range(10, 10 + len(named)))
    return Group(Recipe(tiny.train), seeds, torch.tensor(named), torch.tensor(labels))


def test_a_class_that_nobody_names_has_its_place_and_who_diverged_is_wrong(teacher: nn.Module, tiny: Dataset) -> None:
    group = made([[0, 0, 0, 3], [0, 0, 1, 1]], [0, 1, 1, 2], tiny)
    assert [estimate.value for estimate in group.answers_to(1)] == [0.75, 0.25, 0, 0]
    assert [estimate.value for estimate in group.answers_to(2)] == [0, 0.5, 0, 0.5]  # class 3 is named, never right
    group = made([[-1, -1], [0, 1]], [0, 1], tiny)  # the first diverged and names nothing
    assert group.accuracies == (0, 1)
    assert [estimate.value for estimate in group.answers_to(0)] == [0.5, 0]
    group = Students(teacher, tiny, lr=1e38).train([Recipe(tiny.train, width=4, epochs=2)], SEEDS)[0]
    assert group.accuracies == (0, 0, 0)
    assert group.named.unique().tolist() == [-1]


@pytest.mark.parametrize(
    ("wrong", "median"), [((3, 0, 1), 12), ((0, 1, 2, 3), 12), ((2, 0, 3, 1), 10), ((1, 1, 1), 11), ((0, 3), 11)]
)
def test_the_median_is_the_student_in_the_middle(tiny: Dataset, wrong: tuple[int, ...], median: int) -> None:
    """Of an even number the worse one of the two, as showing the better one would flatter."""
    labels = [0, 1, 2]
    named = [[-1] * count + labels[count:] for count in wrong]
    assert made(named, labels, tiny).median == median


# --- hints ------------------------------------------------------------------------------------------------------


def test_hinted_is_the_loop_of_fitnets_for_each(tiny: Dataset, teacher: models.MLP) -> None:
    template, x = models.MLP((6, 5, 4, 3)), tiny.train.inputs
    members = [Member(seed=1, lr=0.01), Member(seed=2, lr=0.02), Member(seed=3, lr=0.01, width=2)]
    features = distill.features(teacher, "layers.1", x)  # [131, 16]
    centred = features - features.mean(0)
    wanted = centred / centred.std()
    starts = distill.hinted(template, members, tiny.train, features, epochs=2)
    for member, start in zip(members, starts, strict=True):
        sizes = (6, member.width or 5, member.width or 4)
        reference = models.MLP((*sizes, 16), seed=member.seed)  # the hidden layers and the regressor

        def loss(rows: Tensor, net: nn.Module = reference) -> Tensor:
            return ((net(x[rows]) - wanted[rows]) ** 2).mean()

        loop([reference], 131, loss, epochs=2, seed=member.seed, lr=member.lr)
        drawn, found, looped = (
            net.state_dict() for net in (models.MLP((*sizes, 3), seed=member.seed), start, reference)
        )
        assert found.keys() == drawn.keys()
        for name, tensor in found.items():
            if name.startswith("layers.2"):
                assert torch.equal(tensor, drawn[name])
            else:
                assert torch.allclose(tensor, looped[name], atol=1e-5)
                assert not torch.equal(tensor, drawn[name])
    network = cohort.Cohort(template, members, start=starts)  # they fit
    assert torch.allclose(network(x)[1], starts[1](x), atol=1e-5)


def test_hinted_reads_no_labels_changes_no_template_and_refuses(tiny: Dataset) -> None:
    template, members, features = models.MLP((6, 5, 3)), cohort.members(seed=[0, 1]), torch.eye(131, 7)
    before, nobody = vector(template), distill.partly_labelled(tiny.train, 0)
    some, none = (distill.hinted(template, members, split, features, epochs=1) for split in (tiny.train, nobody))
    assert torch.equal(vector(some[1]), vector(none[1]))
    assert torch.equal(vector(template), before)
    with pytest.raises(ValueError, match=r"template needs a hidden layer to give a hint to; a single linear layer"):
        distill.hinted(models.MLP((6, 3)), members, tiny.train, features, epochs=1)
    with pytest.raises(ValueError, match=r"values must have shape \[131, 7\]; got \(130, 7\)\."):
        distill.hinted(template, members, tiny.train, features[:130], epochs=1)
    with pytest.raises(Cancelled):
        distill.hinted(template, members, tiny.train, features, epochs=1, cancel=already_set())


# --- generations ------------------------------------------------------------------------------------------------


def test_each_network_is_taught_by_its_own_of_the_generation_before(tiny: Dataset) -> None:
    template = models.MLP((6, 4, 3))
    members = [Member(seed=1, lr=0.01, temperature=2, alpha=0.8), Member(seed=2, lr=0.02, temperature=4, alpha=1)]
    found = distill.generations(template, members, tiny.train, 3, epochs=2)
    assert [len(generation) for generation in found] == [2, 2, 2]
    x, y = tiny.train.inputs, tiny.train.labels
    for at, member in enumerate(members):
        before: nn.Module | None = None
        for generation in found:
            seed = generation.members[at].seed
            alone = models.MLP((6, 4, 3), seed=seed)  # drawn anew

            def loss(rows: Tensor, alone: nn.Module = alone, before: Any = before, of: Member = member) -> Tensor:
                z, t = alone(x[rows]), of.temperature
                hard = F.cross_entropy(z, y[rows])
                if before is None:
                    return hard
                q = F.softmax(before(x[rows]) / t, 1).detach()
                return (1 - of.alpha) * hard + of.alpha * t**2 * F.kl_div(
                    F.log_softmax(z / t, 1), q, reduction="batchmean"
                )

            loop([alone], 131, loss, epochs=2, seed=seed, lr=member.lr)
            assert close(generation.model(at), alone)
            before = copy.deepcopy(alone)


def test_no_generation_repeats_the_seeds_of_another(tiny: Dataset) -> None:
    members = cohort.members(seed=range(3), alpha=0.9)
    found = distill.generations(models.MLP((6, 3)), members, tiny.train, 3, epochs=0)
    seeds = [member.seed for generation in found for member in generation.members]
    assert seeds[:3] == [0, 1, 2]
    assert len(set(seeds)) == 9
    assert len({tuple(vector(net).tolist()) for generation in found for net in generation.models()}) == 9
    assert [member.alpha for generation in found[:2] for member in generation.members] == [0] * 3 + [0.9] * 3


def test_generations_refuses(tiny: Dataset) -> None:
    nobody = distill.partly_labelled(tiny.train, 0)
    for transfer, count, alpha, sentence in (
        (tiny.train, 0, 0.5, r"count must be 1 or more; got 0\."),
        (nobody, 2, 0.5, "no labelled sample"),  # the first generation learns from labels
        (tiny.train, 2, 0, "members: alpha is 0 for all, so no generation would learn from another"),
    ):
        with pytest.raises(ValueError, match=sentence):
            distill.generations(models.MLP((6, 3)), cohort.members(seed=0, alpha=alpha), transfer, count, epochs=1)
