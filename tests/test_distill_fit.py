"""One student: trained by soft labels or by hints as the ordinary loop would."""

from __future__ import annotations

import copy
import math
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import distill, models, training
from kit.data import Dataset, Split
from kit.models import ConvNet
from kit.training import Cancelled
from tests.nets import Counter, SetAfter, already_set, loop, vector

pytestmark = pytest.mark.usefixtures("one_thread")


FIRST: dict[str, Any] = {"student_layer": "layers.0", "teacher_layer": "layers.0"}


# --- answers ----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_teacher_in_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    inputs = torch.rand(1100, 6, generator=torch.Generator().manual_seed(0))  # more than one pass takes
    found = distill.answers(net, inputs)
    assert net.training
    assert not found.requires_grad
    assert torch.allclose(found, net[2](net[0](inputs)), atol=1e-6)  # nothing dropped


def test_answers_that_teach_nothing_are_refused(tiny: Dataset) -> None:
    x, broken = tiny.train.inputs, models.MLP((6, 3))
    for shape in ((130, 3), (131,), (131, 3, 1), (1, 3)):
        sentence = f"teacher's logits must have shape [131, n_classes], one row a sample; got {shape}."
        with pytest.raises(ValueError, match=re.escape(sentence)):
            distill.answers(torch.zeros(shape), x)
    with pytest.raises(ValueError, match="transfer is empty"):
        distill.answers(torch.zeros(0, 3), x[:0])
    for bad in (math.nan, math.inf):
        nn.init.constant_(broken.layers[0].bias, bad)  # type: ignore[arg-type]
        for teacher in (broken, torch.zeros(131, 3).index_fill(0, torch.tensor(77), bad)):
            with pytest.raises(ValueError, match=r"teacher's logits must be finite; some are NaN or infinity\."):
                distill.answers(teacher, x)


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
    settings: dict[str, Any] = {"batch_size": 40, "weight_decay": 0.1, "optimiser": "sgd", "callbacks": [counter]}
    distill.fit(student, teacher, tiny.train, epochs=2, temperature=3, alpha=0, lr=0.05, **settings)
    assert counter.batches == 8

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(reference(tiny.train.inputs[rows]), tiny.train.labels[rows])

    stepper = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    loop([reference], 131, loss, epochs=2, seed=0, stepper=stepper, size=40)
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
        lambda: models.MLP((64, 10)),
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

    def agreement() -> float:
        named, own = (training.predict(net, digits.validation.inputs).argmax(1) for net in (trained, student))
        return (named == own).float().mean().item()

    assert agreement() < 0.4
    distill.fit(student, trained, distill.partly_labelled(digits.train, 0), epochs=8, lr=1e-2)
    assert agreement() > 0.8


def test_the_teacher_is_not_changed(tiny: Dataset) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    net[1].eval()  # frozen
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    distill.fit(models.MLP((6, 3)), net, tiny.train, epochs=1)
    distill.hint(models.MLP((6, 4, 3)), net, tiny.train, student_layer="layers.0", teacher_layer="0", epochs=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def changed(split: Split, label: int) -> Split:
    labels = split.labels.clone()
    labels[3] = label
    return Split(split.inputs, labels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tiny: {"transfer": Split(torch.zeros(0, 6), torch.zeros(0).long())}, "transfer is empty; it needs at"),
        (lambda tiny: {"teacher": models.MLP((6, 5))}, "student must answer as many classes as the teacher, 5; got 3."),
        (lambda tiny: {"student": models.MLP((6, 2))}, "student must answer as many classes as the teacher, 3; got 2."),
        (lambda tiny: {"teacher": models.MLP((7, 3))}, "teacher and transfer do not fit together: .* of 7 numbers"),
        (lambda tiny: {"student": ConvNet()}, "student and transfer do not fit together: .* samples of shape (6,)"),
        (lambda tiny: {"teacher": nn.Flatten(0)}, "teacher must answer with logits [n, n_classes]; got shape (786,)."),
        (lambda tiny: {"teacher": torch.zeros(130, 3)}, "teacher's logits must have shape [131, n_classes]"),
        (lambda tiny: {"temperature": 0}, "temperature must lie in 0.01 .. 1e+06; got 0."),
        (lambda tiny: {"alpha": 2}, "must lie in [0, 1]; got 2."),
        (lambda tiny: {"epochs": -1}, "epochs must be 0 or more; got -1."),
        (
            lambda tiny: {"transfer": changed(tiny.train, 3)},
            "labels must lie in 0 .. 2, or be -1 where unlabelled; got 3.",
        ),
        (
            lambda tiny: {"transfer": distill.partly_labelled(tiny.train, 0), "alpha": 0},
            "and alpha = 0 learns from labels",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_any_step(
    tiny: Dataset, teacher: nn.Module, change: Callable[[Dataset], dict[str, Any]], sentence: str
) -> None:
    asked: dict[str, Any] = {"student": models.MLP((6, 3)), "teacher": teacher, "transfer": tiny.train, "epochs": 1}
    asked |= change(tiny)
    before, counter = vector(asked["student"]), Counter()
    pattern = re.escape(sentence).replace(r"\.\*", ".*")
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
    cancel, counter = threading.Event() if after else already_set(), Counter()
    callbacks = [counter, SetAfter(cancel, after)]
    with pytest.raises(Cancelled, match=rf"epoch {1 + after // 3} of 9, before batch {1 + after % 3}\."):
        distill.fit(models.MLP((6, 3)), teacher, tiny.train, epochs=9, callbacks=callbacks, cancel=cancel)
    assert counter.batches == after


def test_a_student_that_diverges_is_said(tiny: Dataset, teacher: nn.Module) -> None:
    with pytest.raises(training.Diverged, match=r"the training loss became (nan|inf) in epoch \d+; try a smaller lr"):
        distill.fit(models.MLP((6, 8, 3)), teacher, tiny.train, epochs=9, lr=1e30, optimiser="sgd")


# --- models that share, and models that nobody here wrote ---------------------------------------------------------


def head_of(teacher: models.MLP) -> nn.Module:
    return nn.Sequential(teacher.layers[0], nn.ReLU(), nn.Linear(teacher.sizes[1], 3))


def part_of(teacher: models.MLP) -> nn.Module:
    net = models.MLP((6, 4, 3))
    net.layers[0].weight = nn.Parameter(next(teacher.parameters())[3:7])
    return net


@pytest.mark.parametrize(
    ("make", "theirs", "mine"),
    [
        (lambda teacher: teacher, "layers.0.weight", "layers.0.weight"),
        (head_of, "layers.0.weight", "0.weight"),
        (copy.copy, "layers.0.weight", "layers.0.weight"),
        (part_of, "layers.0.weight", "layers.0.weight"),
    ],
    ids=["itself", "a layer", "shallow copy", "a slice"],
)
def test_a_student_that_shares_with_its_teacher_is_refused_and_a_deep_copy_is_not(
    tiny: Dataset, teacher: models.MLP, make: Callable[[models.MLP], nn.Module], theirs: str, mine: str
) -> None:
    student, before = make(teacher), vector(teacher)
    sentence = (
        f"student shares its {mine} with the teacher's {theirs}, .* give copy.deepcopy\\(student\\) as the student"
    )
    with pytest.raises(ValueError, match=sentence):
        distill.fit(student, teacher, tiny.train, epochs=1)
    with pytest.raises(ValueError, match=sentence):
        distill.hint(student, teacher, tiny.train, student_layer="0", teacher_layer="layers.0", epochs=1)
    alone = copy.deepcopy(student)
    distill.fit(alone, teacher, tiny.train, epochs=1)
    assert torch.equal(vector(teacher), before)
    assert not torch.equal(vector(alone), vector(student))


def test_what_is_shared_but_frozen_stays_as_it_is(tiny: Dataset) -> None:
    """A frozen trunk under two heads: its weights and its running statistics teach, and do not change."""
    trunk = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    heads = [nn.Linear(8, 3) for _ in range(3)]
    net, student, alone = (nn.Sequential(trunk, head) for head in heads)
    with pytest.raises(ValueError, match="student shares its 0.0.weight with the teacher's 0.0.weight"):
        distill.fit(student, net, tiny.train, epochs=1)
    trunk.requires_grad_(False)
    trunk[1].train()
    trunk[1].requires_grad_(True)
    with pytest.raises(ValueError, match="student shares its 0.1.weight with the teacher's 0.1.weight"):
        distill.fit(student, net, tiny.train, epochs=1)
    trunk.requires_grad_(False)
    trunk[1].eval()
    before = copy.deepcopy(net.state_dict())
    distill.fit(student, net, tiny.train, epochs=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    alone, first = copy.deepcopy(alone), vector(heads[2])  # and where nothing is shared
    distill.fit(alone, net, tiny.train, epochs=2)
    after = alone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("0."))
    assert not torch.equal(vector(alone)[-len(first) :], first)


@pytest.mark.parametrize("training_mode", [True, False])
def test_a_student_in_either_mode_learns_alike(tiny: Dataset, teacher: nn.Module, training_mode: bool) -> None:
    """Normalisation of a student that was left in evaluation mode is not frozen."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8)
    student = nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 3)).train(training_mode)
    means = [norm.state_dict()["running_mean"].clone()]
    distill.hint(student, teacher, tiny.train, student_layer="1", teacher_layer="layers.0", epochs=1)
    means.append(norm.state_dict()["running_mean"].clone())
    distill.fit(student, teacher, tiny.train, epochs=1)
    means.append(norm.state_dict()["running_mean"])
    assert not torch.equal(means[0], means[1]) and not torch.equal(means[1], means[2])
    assert student.training is norm.training is training_mode


class Answering(nn.Module):
    """A teacher that wraps its logits."""

    def __init__(self, net: nn.Module, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = net, wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    "wrap",
    [lambda z: {"logits": z, "hidden": z[:, :1]}, lambda z: (z, None), lambda z: SimpleNamespace(logits=z, loss=None)],
    ids=["dict", "tuple", "object"],
)
def test_teachers_and_students_may_wrap_their_logits(
    tiny: Dataset, teacher: nn.Module, wrap: Callable[[Tensor], Any]
) -> None:
    plain, wrapped = (models.MLP((6, 4, 3)) for _ in range(2))
    distill.fit(plain, teacher, tiny.train, epochs=1)
    distill.fit(Answering(wrapped, wrap), Answering(teacher, wrap), tiny.train, epochs=1)
    assert torch.equal(vector(plain), vector(wrapped))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-6), (torch.float16, 0.05), (torch.bfloat16, 0.3)])
def test_teachers_and_students_of_another_dtype(
    tiny: Dataset, teacher: nn.Module, dtype: torch.dtype, near: float
) -> None:
    other = copy.deepcopy(teacher).to(dtype)
    found = distill.answers(other, tiny.train.inputs)
    assert found.dtype == torch.float32
    assert torch.allclose(found, distill.answers(teacher, tiny.train.inputs), atol=near)
    for source in (other, other(tiny.train.inputs.to(dtype))):
        history = distill.fit(models.MLP((6, 3)), source, tiny.train, epochs=3, lr=0.05)
        assert history.losses[-1] < history.losses[0]
    student = models.MLP((6, 3)).to(dtype)
    history = distill.fit(student, teacher, tiny.train, epochs=3, lr=0.05)
    assert history.losses[-1] < history.losses[0]
    assert next(student.parameters()).dtype == dtype


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.flatten(1, 2))[0][:, -1])


class Attentive(nn.Module):
    """A small vision transformer: patches of 4 x 4, and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(1, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16))
        self.places = nn.Parameter(torch.zeros(1, 5, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # [n, 4, 16]
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return {"logits": self.head(self.block(tokens)[:, 0])}


class Tied(nn.Module):
    """One weight on the way in and on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back, self.head = nn.Linear(64, 32), nn.Linear(32, 64, bias=False), nn.Linear(64, 10)
        self.back.weight = nn.Parameter(self.into.weight.T.detach())
        self.again = nn.Linear(64, 32)
        self.again.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(F.relu(self.again(self.back(F.relu(self.into(x.flatten(1))))))))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (Recurrent, "lstm"),
        (Attentive, "block"),
        (
            lambda: nn.Sequential(
                *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(144, 10))
            ),
            "1",
        ),
        (Tied, "again"),
    ],
    ids=["LSTM", "ViT", "BatchNorm and Dropout", "tied"],
)
def test_foreign_models_teach_and_learn(digits: Dataset, make: Callable[[], nn.Module], layer: str) -> None:
    """As a teacher each is left as it is; as a student each comes nearer to another of its kind."""
    torch.manual_seed(0)
    net, student, few = make(), make(), digits.train.first(200)
    before = copy.deepcopy(net.state_dict())
    assert distill.answers(net, few.inputs).shape == (200, 10)
    history = distill.fit(student, net, few, epochs=3, lr=3e-3, alpha=1)
    assert history.losses[-1] < history.losses[0]
    assert distill.features(net, layer, few.inputs).shape[0] == 200
    distill.hint(student, net, few, student_layer=layer, teacher_layer=layer, epochs=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not isinstance(student, Tied) or student.again.weight is student.into.weight


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


def test_features_are_what_a_layer_answers_after_relu_in_evaluation_mode(trained: ConvNet, digits: Dataset) -> None:
    x = torch.cat([digits.train.inputs, digits.validation.inputs])  # more than one pass takes
    with torch.no_grad():
        first = F.relu(trained.conv1(x))
        hidden = F.relu(trained.fc1(F.relu(F.max_pool2d(trained.conv2(first), 2)).flatten(1)))
    net = nn.Sequential(nn.Dropout(0.5), trained).train()
    trained.eval()
    assert torch.allclose(distill.features(net, "1.conv1", x), first.flatten(1), atol=1e-5)
    assert torch.allclose(distill.features(net, "1.fc1", x), hidden, atol=1e-5)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("layer", ["fc9", ""])
def test_an_unknown_layer_is_refused_with_the_names(trained: ConvNet, digits: Dataset, layer: str) -> None:
    sentence = r"layer must be a module of the {} \({}\); got '{}'\."
    with pytest.raises(ValueError, match=sentence.format("model", "conv1, conv2, fc1, fc2", layer)):
        distill.features(trained, layer, digits.train.inputs[:2])
    student, layers = models.MLP((64, 4, 10)), {**FIRST, "teacher_layer": "fc1"}
    for wrong, names in (("student_layer", "layers, layers.0, layers.1"), ("teacher_layer", "conv1, conv2, fc1, fc2")):
        with pytest.raises(ValueError, match=wrong[:8] + sentence.format("model", names, layer)):
            distill.hint(student, trained, digits.train, **{**layers, wrong: layer}, epochs=1)


def test_a_layer_that_takes_no_part_is_refused(tiny: Dataset, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"layer: the module took no part in the pass that gave \(131, 3\)\."):
        distill.features(teacher, "layers", tiny.train.inputs)  # the list of the layers is never called
    assert not any(module._forward_hooks for module in teacher.modules())


def test_standardised_features_have_a_mean_of_0_each_and_one_spread() -> None:
    raw = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]])
    spread = math.sqrt((4 + 100 + 0 + 100 + 4 + 400) / 5)
    found = distill.standardised(raw)
    assert torch.allclose(found, torch.tensor([[-2, -10], [0, -10], [2, 20]]) / spread)
    assert torch.allclose(distill.standardised(100 * raw + 7), found, atol=1e-5)
    for value in (0.0, 0.1, 123.4):
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
    layers: dict[str, Any] = {"student_layer": "layers.1", "teacher_layer": "layers.1"}
    history = distill.hint(student, teacher, tiny.train, **layers, epochs=3, seed=5, lr=0.01, batch_size=50)
    assert torch.allclose(vector(student), vector(reference), atol=1e-5)
    assert history.batches == 9
    assert history.losses[-1] < history.losses[0]


def test_a_hint_reads_no_labels_and_leaves_no_hook(tiny: Dataset, teacher: nn.Module) -> None:
    students = [models.MLP((6, 4, 3)) for _ in range(3)]
    for student, transfer in zip(students, (tiny.train, distill.partly_labelled(tiny.train, 0)), strict=False):
        distill.hint(student, teacher, transfer, **FIRST, epochs=1)
    assert torch.equal(vector(students[0]), vector(students[1]))
    with pytest.raises(Cancelled):
        distill.hint(students[2], teacher, tiny.train, **FIRST, epochs=1, cancel=already_set())
    assert not any(module._forward_hooks for net in (*students, teacher) for module in net.modules())


def test_what_fit_and_hint_refuse_besides(tiny: Dataset, teacher: nn.Module) -> None:
    net = models.MLP((6, 4, 3))
    for bad in (None, models.MLP, torch.zeros(131, 3)):
        with pytest.raises(TypeError, match="student must be a module; got"):
            distill.fit(bad, teacher, tiny.train, epochs=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="student must be a module; got"):
            distill.hint(bad, teacher, tiny.train, **FIRST, epochs=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="teacher must be a module; got"):
            distill.hint(net, bad, tiny.train, **FIRST, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transfer must be one of a data set's splits, .*; got Dataset"):
        distill.fit(net, teacher, tiny, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="teacher must be a module, or its logits as a tensor; got an"):
        distill.fit(net, torch.zeros(131, 3).numpy(), tiny.train, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="temperature must be a number; got '4'"):
        distill.fit(net, teacher, tiny.train, epochs=1, temperature="4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"transfer is empty; it needs at least one sample\."):
        distill.hint(net, teacher, tiny.train.first(0), **FIRST, epochs=1)
    with pytest.raises(ValueError, match=r"model and transfer do not fit together: .* samples of 5 numbers"):
        distill.hint(models.MLP((5, 4, 3)), teacher, tiny.train, **FIRST, epochs=1)
