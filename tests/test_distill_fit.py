"""One student: trained by soft labels or by hints as the ordinary loop would."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import data, distill, models, training
from kit.data import Dataset, Split
from kit.models import ConvNet
from kit.training import Callback, Cancelled, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """131 training samples, so that batches of 64 leave a last one of three."""
    rng = np.random.default_rng(0)
    labels = np.arange(219) % 3
    return data.from_arrays(rng.normal(size=(219, 6)) + labels[:, None], labels)


@pytest.fixture(scope="module")
def teacher(tiny: Dataset) -> models.MLP:
    net = models.MLP((6, 24, 16, 3), seed=7)
    training.fit(net, tiny, epochs=10, lr=1e-2)
    net.zero_grad()
    return net


class Counter(Callback):
    def __init__(self) -> None:
        self.batches = 0

    def on_batch_end(self, progress: Progress) -> None:
        self.batches += 1


class SetAfter(Callback):
    """Sets an event after so many batches."""

    def __init__(self, event: threading.Event, batches: int) -> None:
        self.event, self.left = event, batches

    def on_batch_end(self, progress: Progress) -> None:
        self.left -= 1
        if not self.left:
            self.event.set()


def vector(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def loop(
    nets: list[nn.Module], n: int, loss: Callable[[Tensor], Tensor], *, epochs: int, seed: int, lr: float, size: int
) -> None:
    """The loop of any PyTorch tutorial over batches of rows."""
    stepper = torch.optim.Adam([parameter for net in nets for parameter in net.parameters()], lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(size):
            stepper.zero_grad()
            loss(rows).backward()
            stepper.step()


# --- answers ----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_teacher_in_evaluation_mode(tiny: Dataset) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    found = distill.answers(net, tiny.train.inputs)
    assert net.training
    assert not found.requires_grad
    assert torch.allclose(found, net[2](net[0](tiny.train.inputs)), atol=1e-6)  # nothing dropped


def test_more_samples_than_one_pass_takes(trained: ConvNet, digits: Dataset) -> None:
    inputs = torch.cat([digits.train.inputs, digits.validation.inputs, digits.test.inputs])
    assert len(inputs) > 1024
    with torch.no_grad():
        assert torch.allclose(distill.answers(trained, inputs), trained(inputs), atol=1e-5)


def test_cached_answers_are_passed_on(tiny: Dataset, teacher: nn.Module) -> None:
    cached = distill.answers(teacher, tiny.train.inputs)
    assert torch.equal(distill.answers(cached, tiny.train.inputs), cached)


@pytest.mark.parametrize("shape", [(130, 3), (131,), (131, 3, 1), (1, 3)])
def test_cached_answers_of_another_length_are_refused(tiny: Dataset, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        distill.answers(torch.zeros(shape), tiny.train.inputs)
    assert str(caught.value) == (
        f"teacher's logits must have shape [131, n_classes], a row a sample of the transfer set; got {shape}."
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_answers_that_are_no_numbers_are_refused(tiny: Dataset, bad: float) -> None:
    logits = torch.zeros(131, 3)
    logits[77, 1] = bad
    with pytest.raises(ValueError, match=r"teacher's logits must be finite; some are NaN or infinity\."):
        distill.answers(logits, tiny.train.inputs)
    broken = models.MLP((6, 3))
    with torch.no_grad():
        next(broken.parameters()).fill_(bad)
    with pytest.raises(ValueError, match=r"teacher's logits must be finite"):
        distill.fit(models.MLP((6, 3)), broken, tiny.train, epochs=1)


# --- fit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 0.9), (1.0, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("labelled", [131, 30])
def test_fit_is_the_ordinary_loop(
    tiny: Dataset, teacher: nn.Module, temperature: float, alpha: float, labelled: int
) -> None:
    transfer = distill.partly_labelled(tiny.train, labelled)
    student = models.MLP((6, 4, 3))
    reference = copy.deepcopy(student)
    with torch.no_grad():
        v = teacher(transfer.inputs)

    def loss(rows: Tensor) -> Tensor:
        z, y = reference(transfer.inputs[rows]), transfer.labels[rows]
        log_p = F.log_softmax(z / temperature, 1)
        soft = F.kl_div(log_p, F.softmax(v[rows] / temperature, 1), reduction="batchmean")
        hard = F.cross_entropy(z, y, ignore_index=-1, reduction="sum") / max(1, int((y >= 0).sum()))
        return (1 - alpha) * hard + alpha * temperature**2 * soft

    history = distill.fit(student, teacher, transfer, epochs=3, temperature=temperature, alpha=alpha, seed=5, lr=0.01)
    loop([reference], 131, loss, epochs=3, seed=5, lr=0.01, size=64)
    assert torch.allclose(vector(student), vector(reference), atol=1e-5)
    assert history.batches == 9
    assert history.losses[-1] < history.losses[0]


def test_settings_of_the_loop_are_handed_on(tiny: Dataset, teacher: nn.Module) -> None:
    student, counter = models.MLP((6, 3)), Counter()
    reference = copy.deepcopy(student)
    distill.fit(
        student,
        teacher,
        tiny.train,
        epochs=2,
        temperature=3,
        alpha=1,
        lr=0.05,
        batch_size=40,
        weight_decay=0.1,
        optimiser="sgd",
        callbacks=[counter],
    )
    assert counter.batches == 8
    stepper = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        q = F.softmax(teacher(tiny.train.inputs) / 3, 1)
    for _ in range(2):
        for rows in torch.randperm(131, generator=generator).split(40):
            stepper.zero_grad()
            log_p = F.log_softmax(reference(tiny.train.inputs[rows]) / 3, 1)
            (9 * F.kl_div(log_p, q[rows], reduction="batchmean")).backward()
            stepper.step()
    assert torch.allclose(vector(student), vector(reference), atol=1e-5)


def test_a_module_and_its_cached_logits_teach_the_same(tiny: Dataset, teacher: nn.Module) -> None:
    students = [models.MLP((6, 4, 3)) for _ in range(3)]
    cached = distill.answers(teacher, tiny.train.inputs)
    with_graph = teacher(tiny.train.inputs)  # as a reader who forgets no_grad would cache them
    for student, source in zip(students, (teacher, cached, with_graph), strict=True):
        distill.fit(student, source, tiny.train, epochs=2, lr=0.01)
    first, second, third = map(vector, students)
    assert torch.equal(first, second)
    assert torch.allclose(first, third, atol=1e-5)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        lambda: ConvNet(channels=(4, 6), hidden=16),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)),
    ],
    ids=["linear", "ConvNet", "normalised"],
)
def test_students_of_any_kind_come_to_agree_with_the_teacher(
    trained: ConvNet, digits: Dataset, make: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    student = make()
    with torch.no_grad():
        named = trained(digits.validation.inputs).argmax(1)
    before = (training.predict(student, digits.validation.inputs).argmax(1) == named).float().mean().item()
    unlabelled = distill.partly_labelled(digits.train, 0)
    distill.fit(student, trained, unlabelled, epochs=8, lr=1e-2)
    after = (training.predict(student, digits.validation.inputs).argmax(1) == named).float().mean().item()
    assert before < 0.4
    assert after > 0.8


def test_the_teacher_is_not_changed(tiny: Dataset) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    net[1].eval()  # frozen
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    distill.fit(models.MLP((6, 3)), net, tiny.train, epochs=1)
    distill.hint(models.MLP((6, 4, 3)), net, tiny.train, student_layer="layers.0", teacher_layer="0", epochs=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_the_global_random_state_is_neither_read_nor_moved(tiny: Dataset, teacher: nn.Module) -> None:
    vectors = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before, student = torch.random.get_rng_state(), models.MLP((6, 4, 3))
        distill.hint(student, teacher, tiny.train, student_layer="layers.0", teacher_layer="layers.1", epochs=1)
        distill.fit(student, teacher, tiny.train, epochs=1)
        assert torch.equal(torch.random.get_rng_state(), before)
        vectors.append(vector(student))
    assert torch.equal(*vectors)


def test_the_seed_orders_the_samples(tiny: Dataset, teacher: nn.Module) -> None:
    students = [models.MLP((6, 4, 3)) for _ in range(3)]
    for student, seed in zip(students, (1, 1, 2), strict=True):
        distill.fit(student, teacher, tiny.train, epochs=1, seed=seed)
    first, again, other = map(vector, students)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def changed(split: Split, label: int) -> Split:
    labels = split.labels.clone()
    labels[3] = label
    return Split(split.inputs, labels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tiny: {"transfer": Split(torch.zeros(0, 6), torch.zeros(0).long())}, "transfer is empty; it needs at"),
        (
            lambda tiny: {"teacher": models.MLP((6, 5))},
            "must know the same classes; the teacher answers 5, the student 3.",
        ),
        (
            lambda tiny: {"student": models.MLP((6, 2))},
            "must know the same classes; the teacher answers 3, the student 2.",
        ),
        (
            lambda tiny: {"teacher": models.MLP((7, 3))},
            "teacher and transfer do not fit together: .* samples of shape (6,): .* takes samples of 7 numbers",
        ),
        (
            lambda tiny: {"student": ConvNet()},
            "student and transfer do not fit together: .* cannot take samples of shape (6,)",
        ),
        (lambda tiny: {"teacher": nn.Flatten(0)}, "teacher must answer with logits [n, n_classes]; got shape (786,)."),
        (lambda tiny: {"teacher": torch.zeros(130, 3)}, "teacher's logits must have shape [131, n_classes]"),
        (lambda tiny: {"temperature": 0}, "temperature must be above 0; got 0."),
        (lambda tiny: {"alpha": 2}, "must lie in [0, 1]; got 2."),
        (lambda tiny: {"epochs": -1}, "epochs must be 0 or more; got -1."),
        (lambda tiny: {"lr": 0}, "lr must be above 0; got 0."),
        (lambda tiny: {"batch_size": 0}, "batch_size must be 1 or more; got 0."),
        (lambda tiny: {"weight_decay": -1}, "weight_decay must be 0 or more; got -1."),
        (lambda tiny: {"optimiser": "lion"}, "optimiser must be 'adam' or 'sgd'; got 'lion'."),
        (lambda tiny: {"transfer": changed(tiny.train, 3)}, "labels must lie in 0 .. 2, or be -1; got 3."),
        (
            lambda tiny: {"transfer": distill.partly_labelled(tiny.train, 0), "alpha": 0},
            "transfer has no labelled sample, and alpha = 0 learns from labels alone; take alpha above 0.",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_any_step(
    tiny: Dataset, teacher: nn.Module, change: Callable[[Dataset], dict[str, Any]], sentence: str
) -> None:
    asked: dict[str, Any] = {"student": models.MLP((6, 3)), "teacher": teacher, "transfer": tiny.train, "epochs": 1}
    asked |= change(tiny)
    before, counter = vector(asked["student"]), Counter()
    pattern = "".join({"(": r"\(", ")": r"\)", "[": r"\[", "]": r"\]"}.get(letter, letter) for letter in sentence)
    with pytest.raises(ValueError, match=pattern):
        distill.fit(**asked, callbacks=[counter])
    assert torch.equal(vector(asked["student"]), before)
    assert counter.batches == 0


def test_batches_without_a_label_are_no_error_at_alpha_0(tiny: Dataset, teacher: nn.Module) -> None:
    transfer, student = distill.partly_labelled(tiny.train, 2), models.MLP((6, 3))
    before = vector(student)
    history = distill.fit(student, teacher, transfer, epochs=1, alpha=0, batch_size=10)
    assert history.batches == 13  # the last single sample is left out; most of them hold no label
    assert not torch.equal(vector(student), before)


@pytest.mark.parametrize("after", [0, 4])
def test_fit_can_be_cancelled_between_batches(tiny: Dataset, teacher: nn.Module, after: int) -> None:
    cancel, counter = threading.Event(), Counter()
    if not after:
        cancel.set()
    with pytest.raises(Cancelled, match=rf"epoch {1 + after // 3} of 9, before batch {1 + after % 3}\."):
        distill.fit(
            models.MLP((6, 3)),
            teacher,
            tiny.train,
            epochs=9,
            callbacks=[counter, SetAfter(cancel, after)],
            cancel=cancel,
        )
    assert counter.batches == after


def test_a_student_that_diverges_is_said(tiny: Dataset, teacher: nn.Module) -> None:
    with pytest.raises(training.Diverged, match=r"the training loss became (nan|inf) in epoch \d+; try a smaller lr"):
        distill.fit(models.MLP((6, 8, 3)), teacher, tiny.train, epochs=9, lr=1e30, optimiser="sgd")


# --- any loss ---------------------------------------------------------------------------------------------------


def test_minimise_hands_each_batch_with_its_rows_to_the_loss() -> None:
    """A linear model on squares, whose least loss is known."""
    x = torch.linspace(-1, 1, 20)[:, None]
    y, seen = 3 * x + 0.5, []
    net = nn.Linear(1, 1)

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        assert torch.equal(outputs, net(x[rows]))
        seen.append(rows.tolist())
        return F.mse_loss(outputs, y[rows])

    history = training.minimise(net, x, loss, epochs=60, lr=0.1, batch_size=8)
    assert [net.weight.item(), net.bias.item()] == pytest.approx([3, 0.5], abs=1e-2)
    assert sorted(row for rows in seen[:3] for row in rows) == list(range(20))  # each once an epoch
    assert [len(rows) for rows in seen[:3]] == [8, 8, 4]
    assert (history.batches, len(history.losses)) == (180, 60)
    assert history.losses[-1] < 1e-3 < history.losses[0]


def test_minimise_refuses_a_model_without_parameters_and_a_single_sample() -> None:
    with pytest.raises(ValueError, match=r"model has no parameter to train"):
        training.minimise(nn.Flatten(), torch.zeros(4, 2), lambda z, rows: z.mean(), epochs=1)
    with pytest.raises(ValueError, match=r"one training sample cannot make a batch"):
        training.minimise(nn.Linear(2, 1), torch.zeros(1, 2), lambda z, rows: z.mean(), epochs=1)


# --- features ---------------------------------------------------------------------------------------------------


def test_features_are_what_a_layer_answers_after_relu(trained: ConvNet, digits: Dataset) -> None:
    x = torch.cat([digits.train.inputs, digits.validation.inputs])  # more than one pass takes
    with torch.no_grad():
        first = F.relu(trained.conv1(x))
        hidden = F.relu(trained.fc1(F.relu(F.max_pool2d(trained.conv2(first), 2)).flatten(1)))
    assert torch.allclose(distill.features(trained, "conv1", x), first.flatten(1), atol=1e-5)
    assert torch.allclose(distill.features(trained, "fc1", x), hidden, atol=1e-5)
    assert not any(module._forward_hooks for module in trained.modules())


def test_features_do_not_depend_on_the_mode(tiny: Dataset) -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4), nn.Linear(4, 3)).train()
    found = distill.features(net, "1", tiny.train.inputs)
    assert torch.allclose(found, F.relu(net[1](tiny.train.inputs)), atol=1e-6)
    assert net.training


@pytest.mark.parametrize("layer", ["fc9", ""])
def test_an_unknown_layer_is_refused_with_the_names(trained: ConvNet, digits: Dataset, layer: str) -> None:
    sentence = r"layer must be a module of the {} \({}\); got '{}'\."
    with pytest.raises(ValueError, match=sentence.format("model", "conv1, conv2, fc1, fc2", layer)):
        distill.features(trained, layer, digits.train.inputs[:2])
    student = models.MLP((64, 4, 10))
    for student_layer, teacher_layer, whose, names in (
        (layer, "fc1", "model", "layers, layers.0, layers.1"),
        ("layers.0", layer, "model", "conv1, conv2, fc1, fc2"),
    ):
        with pytest.raises(ValueError, match=sentence.format(whose, names, layer)):
            distill.hint(
                student, trained, digits.train, student_layer=student_layer, teacher_layer=teacher_layer, epochs=1
            )


def test_a_layer_that_takes_no_part_is_refused(tiny: Dataset, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"layer: the module took no part in the pass that gave \(131, 3\)\."):
        distill.features(teacher, "layers", tiny.train.inputs)  # the list of the layers is never called
    assert not any(module._forward_hooks for module in teacher.modules())


def test_standardised_features_have_a_mean_of_0_each_and_one_spread() -> None:
    raw = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]])
    found = distill.standardised(raw)
    centred = [[-2, -10], [0, -10], [2, 20]]
    spread = math.sqrt((4 + 100 + 0 + 100 + 4 + 400) / 5)
    assert torch.allclose(found, torch.tensor(centred) / spread)
    assert torch.allclose(distill.standardised(100 * raw + 7), found, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 123.4])
def test_features_that_do_not_vary_are_zeros(value: float) -> None:
    assert distill.standardised(torch.full((131, 16), value)).abs().max() == 0


# --- hint -------------------------------------------------------------------------------------------------------


def test_hint_is_the_loop_of_fitnets(tiny: Dataset, teacher: models.MLP) -> None:
    student = models.MLP((6, 4, 5, 3))
    reference, x = copy.deepcopy(student), tiny.train.inputs
    with torch.no_grad():
        w = F.relu(teacher.layers[1](F.relu(teacher.layers[0](x))))  # [131, 16]
    w = torch.from_numpy((w.numpy() - w.numpy().mean(0)) / (w.numpy() - w.numpy().mean(0)).std(ddof=1))
    regressor = models.MLP((5, 16), seed=5)

    def loss(rows: Tensor) -> Tensor:
        u = F.relu(reference.layers[1](F.relu(reference.layers[0](x[rows]))))
        return ((regressor(u) - w[rows]) ** 2).mean()

    loop([reference.layers[0], reference.layers[1], regressor], 131, loss, epochs=3, seed=5, lr=0.01, size=50)
    history = distill.hint(
        student,
        teacher,
        tiny.train,
        student_layer="layers.1",
        teacher_layer="layers.1",
        epochs=3,
        seed=5,
        lr=0.01,
        batch_size=50,
    )
    assert torch.allclose(vector(student), vector(reference), atol=1e-5)
    assert history.batches == 9
    assert history.losses[-1] < history.losses[0]


def test_only_the_layers_up_to_the_hinted_one_move(trained: ConvNet, digits: Dataset) -> None:
    student = ConvNet(channels=(2, 3), hidden=8)
    before = copy.deepcopy(student.state_dict())
    few = digits.train.first(200)
    distill.hint(student, trained, few, student_layer="conv2", teacher_layer="conv2", epochs=1)
    moved = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    assert not any(module._forward_hooks for module in [*student.modules(), *trained.modules()])


def test_a_hint_reads_no_labels(tiny: Dataset, teacher: nn.Module) -> None:
    students = [models.MLP((6, 4, 3)) for _ in range(2)]
    for student, transfer in zip(students, (tiny.train, distill.partly_labelled(tiny.train, 0)), strict=True):
        distill.hint(student, teacher, transfer, student_layer="layers.0", teacher_layer="layers.0", epochs=1)
    assert torch.equal(*map(vector, students))


def test_a_cancelled_hint_leaves_no_hook(tiny: Dataset, teacher: nn.Module) -> None:
    student, cancel = models.MLP((6, 4, 3)), threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        distill.hint(
            student,
            teacher,
            tiny.train,
            student_layer="layers.0",
            teacher_layer="layers.0",
            epochs=1,
            cancel=cancel,
        )
    assert not any(module._forward_hooks for module in [*student.modules(), *teacher.modules()])


def test_a_hint_needs_samples_that_fit(tiny: Dataset, teacher: nn.Module) -> None:
    layers: dict[str, Any] = {"student_layer": "layers.0", "teacher_layer": "layers.0"}
    with pytest.raises(ValueError, match=r"transfer is empty; it needs at least one sample\."):
        distill.hint(models.MLP((6, 4, 3)), teacher, tiny.train.first(0), **layers, epochs=1)
    with pytest.raises(ValueError, match=r"model and transfer do not fit together: .* samples of 5 numbers"):
        distill.hint(models.MLP((5, 4, 3)), teacher, tiny.train, **layers, epochs=1)


def test_more_that_fit_and_hint_refuse(digits: Dataset) -> None:
    net = models.MLP((64, 4, 10))
    with pytest.raises(ValueError, match="student and teacher are one module; give a copy"):
        distill.fit(net, net, digits.train, epochs=1)
    with pytest.raises(TypeError, match="transfer must be one of a data set's splits, .*; got Dataset"):
        distill.fit(net, models.MLP((64, 10)), digits, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="teacher must be a module, or its logits as a tensor; got ndarray"):
        distill.fit(net, torch.zeros(3, 10).numpy(), digits.train, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="temperature must be a number; got '4'"):
        distill.fit(net, models.MLP((64, 10)), digits.train, epochs=1, temperature="4")  # type: ignore[arg-type]
    for layers, wrong in ((("fc9", "layers.0"), "student_layer"), (("layers.0", "fc9"), "teacher_layer")):
        with pytest.raises(ValueError, match=f"{wrong} must be a module of the model .*; got 'fc9'"):
            distill.hint(
                net,
                models.MLP((64, 5, 10)),
                digits.train,
                student_layer=layers[0],
                teacher_layer=layers[1],
                epochs=1,
            )
