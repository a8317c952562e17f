"""Cohorts of students: each is the student that `distill.fit` trains alone, and none is trained twice."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from kit import cohort, data, distill, models, training
from kit.cohort import Member
from kit.data import Dataset
from kit.distill import Group, Recipe, Students
from kit.distill import students as room
from kit.measure import Estimate
from kit.models import ConvNet
from kit.training import Callback, Cancelled, Progress

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """131 training samples of 6 numbers in 3 classes that overlap."""
    rng = np.random.default_rng(0)
    labels = np.arange(219) % 3
    return data.from_arrays(rng.normal(size=(219, 6)) + labels[:, None] / 2, labels)


@pytest.fixture(scope="module")
def teacher(tiny: Dataset) -> models.MLP:
    net = models.MLP((6, 24, 16, 3), seed=7)
    training.fit(net, tiny, epochs=10, lr=1e-2)
    net.zero_grad()
    return net


@pytest.fixture
def students(teacher: nn.Module, tiny: Dataset) -> Students:
    return Students(teacher, tiny)


class Counter(Callback):
    """Counts the cohorts, their networks and their steps."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.batches = 0

    def on_batch_end(self, progress: Progress) -> None:
        self.batches += 1
        if progress.epoch == 0 and progress.batch == 1:
            self.sizes.append(len(progress.model))  # type: ignore[arg-type]


def vector(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 0}, r"temperature must be above 0; got 0\."),
        ({"alpha": 1.5}, r"alpha is the weight .* must lie in \[0, 1\]; got 1.5\."),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\]; got -0.1\."),
        ({"label_smoothing": float("nan")}, r"label_smoothing must lie in \[0, 1\]; got nan\."),
        ({"width": -1}, r"width must be 0 or more; got -1\."),
        ({"epochs": 0}, r"epochs must be 1 or more; got 0\."),
    ],
)
def test_a_recipe_that_trains_nobody_is_refused(tiny: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe(tiny.train, **settings)
    with pytest.raises(ValueError, match=r"transfer is empty; it needs at least one sample\."):
        Recipe(tiny.train.first(0))


# --- each student -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("labelled", [131, 40])
def test_each_is_the_student_that_fit_trains_alone(
    students: Students, teacher: nn.Module, tiny: Dataset, width: int, labelled: int
) -> None:
    transfer = distill.partly_labelled(tiny.train, labelled)
    recipes = [Recipe(transfer, t, alpha, width, epochs=3) for t, alpha in ((4, 0.9), (1, 1.0), (16, 0.5))]
    groups = students.train(recipes, SEEDS)
    assert [group.recipe for group in groups] == recipes
    sizes = (6, width, 3) if width else (6, 3)
    for group in groups:
        assert group.seeds == SEEDS
        for seed, accuracy in zip(SEEDS, group.accuracies, strict=True):
            alone, recipe = models.MLP(sizes, seed=seed), group.recipe
            distill.fit(
                alone,
                teacher,
                transfer,
                epochs=3,
                temperature=recipe.temperature,
                alpha=recipe.alpha,
                seed=seed,
                lr=room.LEARNING_RATE,
            )
            own = students.model(recipe, seed)
            assert close(own, alone)
            assert not own.training
            assert accuracy == pytest.approx(right(own, tiny), abs=1e-6)


def test_the_rivals_learn_from_hard_labels_and_smoothed_ones(students: Students, tiny: Dataset) -> None:
    recipe = Recipe(tiny.train, width=4, epochs=2)
    students.train([recipe.hard, recipe.smoothed], SEEDS)
    for rival, smoothing in ((recipe.hard, 0.0), (recipe.smoothed, 0.1)):
        alone = models.MLP((6, 4, 3), seed=4)
        stepper, generator = torch.optim.Adam(alone.parameters(), lr=0.01), torch.Generator().manual_seed(4)
        for _ in range(2):
            for rows in torch.randperm(131, generator=generator).split(64):
                stepper.zero_grad()
                z, y = alone(tiny.train.inputs[rows]), tiny.train.labels[rows]
                F.cross_entropy(z, y, label_smoothing=smoothing).backward()
                stepper.step()
        assert close(students.model(rival, 4), alone)


def test_learning_rate_and_batch_size_are_those_asked_for(teacher: nn.Module, tiny: Dataset) -> None:
    own = Students(teacher, tiny, lr=0.03, batch_size=20)
    recipe = Recipe(tiny.train, width=4, epochs=1)
    own.train([recipe], SEEDS)
    alone = models.MLP((6, 4, 3), seed=5)
    distill.fit(alone, teacher, tiny.train, epochs=1, seed=5, lr=0.03, batch_size=20)
    assert close(own.model(recipe, 5), alone)


def test_the_teacher_is_asked_about_each_transfer_set_once_and_not_changed(
    teacher: models.MLP, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    original = room.answers

    def counted(net: nn.Module, inputs: Tensor) -> Tensor:
        asked.append(len(inputs))
        return original(net, inputs)

    monkeypatch.setattr(room, "answers", counted)
    before = vector(teacher)
    students = Students(teacher, tiny)
    assert torch.allclose(students.logits, teacher(tiny.validation.inputs), atol=1e-6)
    few = distill.few(tiny.train, 9)
    for epochs in (1, 2):
        students.train([Recipe(tiny.train, width=4, epochs=epochs), Recipe(few, width=0, epochs=epochs)], SEEDS)
    assert asked == [44, 131, 131]  # validation, then each set
    assert torch.equal(vector(teacher), before)
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_of_another_kind_than_the_teacher(trained: ConvNet, digits: Dataset) -> None:
    students = Students(trained, digits)
    recipe = Recipe(digits.train, width=16, epochs=12)
    group = students.train([recipe], (0, 1))[0]
    assert min(group.accuracies) > 0.8
    assert students.model(recipe, 0)(digits.validation.inputs[:2]).shape == (2, 10)
    for width in (0, 16):
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
    recipes = [
        Recipe(transfer, temperature, width=width, epochs=epochs)
        for transfer in (tiny.train, few)
        for width in (0, 4)
        for epochs in (1, 2)
        for temperature in (1, 2, 4)
    ]
    groups = students.train(recipes[::-1], (0, 1), callbacks=[counter])
    assert counter.sizes == 8 * [6]
    assert [group.recipe for group in groups] == recipes[::-1]


@pytest.mark.parametrize(
    ("seeds", "shown"), [((), r"\[\]"), ((3,), r"\[3\]"), ((3, 3), r"\[3, 3\]"), ((1, 2, 1), r"\[1, 2, 1\]")]
)
def test_seeds_without_a_spread_are_refused(
    students: Students, tiny: Dataset, seeds: tuple[int, ...], shown: str
) -> None:
    counter = Counter()
    with pytest.raises(ValueError, match=rf"seeds needs at least two, none twice, to show a spread; got {shown}\."):
        students.train([Recipe(tiny.train)], seeds, callbacks=[counter])
    assert not counter.batches


def test_a_teacher_that_does_not_fit_is_refused_at_once(tiny: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"teacher answers 4 classes, and the data set has 3; teacher and student must know the same"
    ):
        Students(models.MLP((6, 4)), tiny)
    with pytest.raises(ValueError, match=r"teacher and transfer do not fit together: .* samples of 5 numbers"):
        Students(models.MLP((5, 3)), tiny)


def test_what_a_cohort_refuses_is_not_known_later(students: Students, tiny: Dataset) -> None:
    recipe = Recipe(distill.partly_labelled(tiny.train, 0), width=4, epochs=1)
    with pytest.raises(ValueError, match=r"no labelled sample, and alpha = 0 learns from labels alone"):
        students.train([recipe, recipe.hard], SEEDS)
    assert students.known(recipe, SEEDS) is None
    assert students.train([recipe], SEEDS)[0].recipe == recipe


class SetAfter(Callback):
    def __init__(self, event: threading.Event, batches: int) -> None:
        self.event, self.left = event, batches

    def on_batch_end(self, progress: Progress) -> None:
        self.left -= 1
        if not self.left:
            self.event.set()


def test_a_cancel_leaves_nothing_half_known(students: Students, tiny: Dataset) -> None:
    first, second = Recipe(tiny.train, width=4, epochs=2), Recipe(tiny.train, width=0, epochs=2)
    cancel, counter = threading.Event(), Counter()
    with pytest.raises(Cancelled, match="epoch 2 of 2, before batch 2"):
        students.train([first, second], SEEDS, callbacks=[SetAfter(cancel, 6 + 4)], cancel=cancel)
    assert students.known(first, SEEDS) is not None  # whole cohorts before are remembered
    assert [students.known(second, seeds) for seeds in (SEEDS, SEEDS[:2], SEEDS[2:])] == [None] * 3
    with pytest.raises(KeyError):
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
    students, trained_again = Students(teacher, tiny), []
    old, new = (Recipe(tiny.train, temperature, width=4, epochs=1) for temperature in (2, 4))
    students.train([old], SEEDS)
    before = {seed: vector(students.model(old, seed)) for seed in SEEDS}
    students.train([new], SEEDS)
    assert len(students._whole) == 4
    original = cohort.fit

    def counted(networks: cohort.Cohort, *args: Any, **settings: Any) -> Any:
        trained_again.append(len(networks))
        return original(networks, *args, **settings)

    monkeypatch.setattr(cohort, "fit", counted)
    known = students.known(old, SEEDS)
    students.model(new, 3)
    assert not trained_again
    assert torch.allclose(vector(students.model(old, 3)), before[3], atol=1e-5)
    assert trained_again == [1]
    after = students.known(old, SEEDS)
    assert known is not None and after is not None
    assert torch.equal(known.named, after.named)  # the answers were kept all the time


def test_a_student_never_trained_is_refused(students: Students, tiny: Dataset) -> None:
    with pytest.raises(KeyError, match=r"no student was trained by Recipe\(.*\) with seed 7"):
        students.model(Recipe(tiny.train), 7)


# --- groups -----------------------------------------------------------------------------------------------------


def test_the_accuracy_of_a_group_is_the_mean_over_seeds(students: Students, tiny: Dataset) -> None:
    group = students.train([Recipe(tiny.train, width=4, epochs=2)], range(5))[0]
    each = [right(students.model(group.recipe, seed), tiny) for seed in range(5)]
    assert len(set(each)) > 1
    assert list(group.accuracies) == pytest.approx(each)
    wanted = Estimate.from_values(each)
    assert (group.accuracy.value, group.accuracy.low, group.accuracy.high) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )
    assert group.accuracy.n == 5


def test_answers_to_a_class_are_a_row_of_the_confusion_matrix(students: Students, tiny: Dataset) -> None:
    transfer = distill.without_class(tiny.train, 1)
    group = students.train([Recipe(transfer, width=4, epochs=1)], SEEDS)[0]
    truth = tiny.validation.labels.numpy()
    matrices = []
    for seed in SEEDS:
        named = training.predict(students.model(group.recipe, seed), tiny.validation.inputs).argmax(1)
        matrices.append(confusion_matrix(truth, named.numpy(), normalize="true", labels=range(3)))
    for label in range(3):
        row = group.answers_to(label)
        for named_class, estimate in enumerate(row):
            wanted = Estimate.from_values([float(matrix[label, named_class]) for matrix in matrices])
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
                (wanted.value, max(0.0, wanted.low), min(1.0, wanted.high)), abs=1e-6
            )
        assert sum(estimate.value for estimate in row) == pytest.approx(1, abs=1e-6)


def made(named: list[list[int]], labels: list[int], tiny: Dataset) -> Group:
    seeds = tuple(range(10, 10 + len(named)))
    return Group(Recipe(tiny.train), seeds, torch.tensor(named), torch.tensor(labels))


def test_a_class_that_nobody_names_has_its_place(tiny: Dataset) -> None:
    group = made([[0, 0, 0, 3], [0, 0, 1, 1]], [0, 1, 1, 2], tiny)
    assert [estimate.value for estimate in group.answers_to(1)] == [0.75, 0.25, 0, 0]
    assert [estimate.value for estimate in group.answers_to(2)] == [0, 0.5, 0, 0.5]  # class 3 is named, never right


def test_a_student_that_diverged_names_nothing(tiny: Dataset) -> None:
    group = made([[-1, -1], [0, 1]], [0, 1], tiny)
    assert group.accuracies == (0, 1)
    assert [estimate.value for estimate in group.answers_to(0)] == [0.5, 0]


def test_diverged_students_are_counted_as_wrong(teacher: nn.Module, tiny: Dataset) -> None:
    students = Students(teacher, tiny, lr=1e38)
    group = students.train([Recipe(tiny.train, width=4, epochs=2)], SEEDS)[0]
    assert group.accuracies == (0, 0, 0)
    assert group.named.unique().tolist() == [-1]


@pytest.mark.parametrize(
    ("wrong", "median"),
    [((3, 0, 1), 12), ((0, 1, 2, 3), 12), ((2, 0, 3, 1), 10), ((1, 1, 1), 11), ((0, 3), 11)],
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
        stepper = torch.optim.Adam(reference.parameters(), lr=member.lr)
        generator = torch.Generator().manual_seed(member.seed)
        for _ in range(2):
            for rows in torch.randperm(131, generator=generator).split(64):
                stepper.zero_grad()
                ((reference(x[rows]) - wanted[rows]) ** 2).mean().backward()
                stepper.step()
        drawn, found, loop = (net.state_dict() for net in (models.MLP((*sizes, 3), seed=member.seed), start, reference))
        assert found.keys() == drawn.keys()
        for name, tensor in found.items():
            if name.startswith("layers.2"):
                assert torch.equal(tensor, drawn[name])
            else:
                assert torch.allclose(tensor, loop[name], atol=1e-5)
                assert not torch.equal(tensor, drawn[name])
    network = cohort.Cohort(template, members, start=starts)  # they fit
    assert torch.allclose(network(x)[1], starts[1](x), atol=1e-5)


def test_hinted_reads_no_labels_and_changes_no_template(tiny: Dataset) -> None:
    template, members = models.MLP((6, 5, 3)), cohort.members(seed=[0, 1])
    features = torch.rand(131, 7, generator=torch.Generator().manual_seed(0))
    before = vector(template)
    nobody = distill.partly_labelled(tiny.train, 0)
    some, none = (distill.hinted(template, members, split, features, epochs=1) for split in (tiny.train, nobody))
    assert torch.equal(vector(some[1]), vector(none[1]))
    assert torch.equal(vector(template), before)


def test_hinted_refuses(tiny: Dataset) -> None:
    members = cohort.members(seed=[0, 1])
    with pytest.raises(ValueError, match=r"template needs a hidden layer to give a hint to; a single linear layer"):
        distill.hinted(models.MLP((6, 3)), members, tiny.train, torch.rand(131, 4), epochs=1)
    with pytest.raises(ValueError, match=r"values must have shape \[131, 4\]; got \(130, 4\)\."):
        distill.hinted(models.MLP((6, 5, 3)), members, tiny.train, torch.rand(130, 4), epochs=1)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        distill.hinted(models.MLP((6, 5, 3)), members, tiny.train, torch.rand(131, 4), epochs=1, cancel=cancel)


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
            stepper = torch.optim.Adam(alone.parameters(), lr=member.lr)
            generator = torch.Generator().manual_seed(seed)
            for _ in range(2):
                for rows in torch.randperm(131, generator=generator).split(64):
                    stepper.zero_grad()
                    loss = F.cross_entropy(alone(x[rows]), y[rows])
                    if before is not None:
                        t, alpha = member.temperature, member.alpha
                        q = F.softmax(before(x[rows]) / t, 1).detach()
                        soft = F.kl_div(F.log_softmax(alone(x[rows]) / t, 1), q, reduction="batchmean")
                        loss = (1 - alpha) * loss + alpha * t**2 * soft
                    loss.backward()
                    stepper.step()
            assert close(generation.model(at), alone)
            before = copy.deepcopy(alone)


def test_no_generation_repeats_the_seeds_of_another(tiny: Dataset) -> None:
    members = cohort.members(seed=range(3), alpha=0.9)
    found = distill.generations(models.MLP((6, 3)), members, tiny.train, 3, epochs=0)
    seeds = [member.seed for generation in found for member in generation.members]
    assert seeds[:3] == [0, 1, 2]
    assert len(set(seeds)) == 9
    assert len({tuple(vector(net).tolist()) for generation in found for net in generation.models()}) == 9
    assert [member.alpha for member in found[0].members] == [0, 0, 0]  # nobody taught the first
    assert [member.alpha for member in found[1].members] == [0.9, 0.9, 0.9]


@pytest.mark.parametrize("count", [0, -1])
def test_generations_refuses(tiny: Dataset, count: int) -> None:
    with pytest.raises(ValueError, match=rf"count must be 1 or more; got {count}\."):
        distill.generations(models.MLP((6, 3)), cohort.members(seed=0), tiny.train, count, epochs=1)
    nobody = distill.partly_labelled(tiny.train, 0)
    with pytest.raises(ValueError, match="no labelled sample"):  # the first generation learns from labels
        distill.generations(models.MLP((6, 3)), cohort.members(seed=0, alpha=0.5), nobody, 2, epochs=1)
    with pytest.raises(ValueError, match="members: alpha is 0 for all, so no generation would learn from another"):
        distill.generations(models.MLP((6, 3)), cohort.members(seed=range(2)), tiny.train, 2, epochs=1)


def test_a_data_set_and_a_split_are_told_apart(tiny: Dataset) -> None:
    with pytest.raises(TypeError, match="dataset must be a Dataset, .*; got Split"):
        Students(models.MLP((6, 3)), tiny.train)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transfer must be one of a data set's splits, .*; got Dataset"):
        Recipe(tiny)  # type: ignore[arg-type]
