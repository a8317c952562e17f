"""A cohort is trained as its members would be, one by one, with the ordinary loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from kit import cohort, cores, models, training
from kit.cohort import UNLABELLED, Cohort, CohortHistory, Member, members, passes
from kit.data import Dataset, Split
from kit.training import Callback
from tests.nets import Recorder, vector

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH = 50
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [B, C] and the rows [B] of their samples


# One by one


class Step(NamedTuple):
    """One network after one step."""

    weights: Tensor
    loss: float
    size: int


Course = list[list[Step]]  # by epoch


def own_rows(member: Member, labels: Tensor) -> Tensor:
    rows = np.arange(len(labels))
    if member.fold is not None:
        cuts = StratifiedKFold(member.folds, shuffle=True, random_state=0).split(labels, labels)
        rows = [outside for outside, _ in cuts][member.fold]
    return torch.from_numpy(rows[: member.n_train])


def alone(
    net: nn.Module, train: Split, member: Member, loss: Loss | None, *, epochs: int, optimiser: str, batch_size: int
) -> Course:
    """The loop of any PyTorch tutorial; the last batch of one sample is left out."""
    decay: dict[str, Any] = {"lr": member.lr, "weight_decay": member.weight_decay}
    stepper: torch.optim.Optimizer
    stepper = torch.optim.SGD(net.parameters(), momentum=member.momentum, **decay)
    if optimiser == "adam":
        stepper = torch.optim.Adam(net.parameters(), betas=(member.beta1, member.beta2), **decay)
    rows = own_rows(member, train.labels)
    generator = torch.Generator().manual_seed(member.seed if member.order is None else member.order)
    course: Course = []
    for _ in range(epochs):
        course.append([])
        for chunk in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
            if len(chunk) == 1 < batch_size:
                continue
            z = net(train.inputs[chunk])
            y, smooth = train.labels[chunk], member.label_smoothing
            mean = loss(z, chunk) if loss else F.cross_entropy(z, y, label_smoothing=smooth)
            stepper.zero_grad()
            mean.backward()
            stepper.step()
            course[-1].append(Step(vector(net), mean.item(), len(chunk)))
    return course


def assert_same(recorder: Recorder, history: CohortHistory, courses: Sequence[Course], tolerance: float = 2e-5) -> None:
    """Step by step; a network without a sample in a step keeps its weights, and has no part in the mean loss."""
    step = 0
    for epoch, own in enumerate(zip(*courses, strict=True)):
        for batch in range(max(map(len, own))):
            for net, steps in zip(recorder.weights[step], own, strict=True):
                torch.testing.assert_close(net, steps[: batch + 1][-1].weights, atol=tolerance, rtol=1e-4)
            losses = [steps[batch].loss for steps in own if batch < len(steps)]
            assert recorder.steps[step].loss == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-6)
            step += 1
        means = [np.average([each.loss for each in steps], weights=[each.size for each in steps]) for steps in own]
        assert [losses[epoch] for losses in history.losses] == pytest.approx(means, rel=1e-4, abs=1e-6)
        assert recorder.ends[epoch].loss == pytest.approx(np.mean(means), rel=1e-4, abs=1e-6)
    assert step == len(recorder.weights) == history.batches
    assert history.diverged == (False,) * len(courses)


def mlp(sizes: Sequence[int], member: Member) -> models.MLP:
    hidden = sizes[1:-1] if member.width is None else [member.width] * len(sizes[1:-1])
    return models.MLP([sizes[0], *hidden, sizes[-1]], seed=member.seed)


def assert_as_alone(
    template: nn.Module,
    those: Sequence[Member],
    nets: Iterable[nn.Module],
    train: Split,
    losses: Sequence[Loss | None] | None = None,
    *,
    tolerance: float = 2e-5,
    optimiser: Any = "adam",
    **settings: Any,
) -> None:
    """Train the members in a cohort, then `nets` one by one; of a generator they are made after the cohort's fit."""
    together, recorder = Cohort(template, those), Recorder()
    loop: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "optimiser": optimiser}
    history = cohort.fit(together, train, callbacks=[Callback(), recorder], **loop, **settings)
    each = zip(nets, those, losses or [None] * len(those), strict=True)
    assert_same(recorder, history, [alone(net, train, member, loss, **loop) for net, member, loss in each], tolerance)


def assert_mlps_as_alone(sizes: Sequence[int], those: Sequence[Member], *args: Any, **settings: Any) -> None:
    nets = [mlp(sizes, member) for member in those]
    assert_as_alone(models.MLP(sizes, seed=99), those, nets, *args, **settings)


MIXED: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.01},
    "lr": {"lr": [1e-3, 0.02, 0.05]},
    "weight decay": {"lr": 0.01, "weight_decay": [0, 0.01, 0.3]},
    "label smoothing": {"lr": 0.01, "label_smoothing": [0, 0.1, 1]},
    "width": {"lr": 0.01, "weight_decay": 0.1, "width": [1, 3, 8, None]},
    "n_train": {"lr": 0.01, "weight_decay": 0.1, "n_train": [2, 51, 100, 101, None]},
    "order": {"lr": 0.01, "order": [None, 0, 7]},
    "fold": {"lr": 0.01, "fold": [None, 0, 2], "folds": 3},
    "fold and n_train": {"lr": 0.01, "fold": [0, 1], "folds": 2, "n_train": [20, None]},
}
OWN: dict[str, dict[str, Any]] = {
    "adam": {"lr": 0.01, "beta1": [0.0, 0.5, 0.95], "beta2": [0.9, 0.999]},
    "sgd": {"lr": 0.01, "momentum": [0, 0.5, 0.95], "weight_decay": [0, 0.1]},
}


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("kind", [*MIXED, "own"])
def test_each_mlp_goes_its_own_way(tiny: Dataset, kind: str, optimiser: str) -> None:
    those = members(seed=[0, 3], **(MIXED[kind] if kind in MIXED else OWN[optimiser]))
    assert_mlps_as_alone((6, 8, 3), those, tiny.train, optimiser=optimiser)


EVERYTHING = (
    Member(seed=0, lr=1e-3, n_train=90),
    Member(seed=1, lr=0.02, weight_decay=0.1, label_smoothing=0.2),
    Member(seed=2, lr=5e-3, order=4, fold=1, folds=4),
    Member(seed=3, lr=0.01, weight_decay=1e-3, order=4, fold=0, folds=2, n_train=60),
    Member(seed=3, lr=0.01),
)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("sizes", [(6, 3), (6, 8, 3), (6, 9, 7, 3)], ids=["no hidden layer", "one", "two"])
def test_everything_differs_at_once(tiny: Dataset, sizes: tuple[int, ...], optimiser: Any) -> None:
    narrow = [Member(seed=5, lr=0.02, width=4)] if len(sizes) > 2 else []
    assert_mlps_as_alone(sizes, [*EVERYTHING, *narrow], tiny.train, optimiser=optimiser)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_plain_case_is_training_fit(tiny: Dataset, optimiser: Any) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 13, "optimiser": optimiser}  # 131 = 10 * 13 + 1
    together = Cohort(models.MLP((6, 8, 3)), members(seed=range(3), lr=0.01, weight_decay=0.01))
    history = cohort.fit(together, tiny.train, **settings)
    for seed in range(3):
        net = models.MLP((6, 8, 3), seed=seed)
        reference = training.fit(net, tiny, seed=seed, lr=0.01, weight_decay=0.01, **settings)
        torch.testing.assert_close(vector(together.model(seed)), vector(net), atol=2e-5, rtol=1e-4)
        assert history.losses[seed] == pytest.approx(reference.losses, rel=1e-4)
        assert history.batches == reference.batches == 30
    assert history.seconds > 0


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize(("channels", "image"), [(1, (8, 8)), (3, (4, 6))])
def test_convnets_are_trained_as_alone(channels: int, image: tuple[int, int], optimiser: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    train = Split(torch.rand(70, channels, *image, generator=generator), torch.arange(70) % 5)
    those = [EVERYTHING[1], Member(seed=0, lr=3e-3), Member(seed=2, lr=0.01, n_train=40, order=1)]
    shape: dict[str, Any] = {"channels": (4, 6), "hidden": 7, "n_classes": 5}
    template, *nets = (models.ConvNet(channels, image, **shape, seed=seed) for seed in (99, 1, 0, 2))
    assert_as_alone(template, those, nets, train, optimiser=optimiser, tolerance=1e-4)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_other_modules_are_trained_as_alone(tiny: Dataset, optimiser: Any) -> None:
    template = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3, bias=False))
    nets = [copy.deepcopy(template) for _ in EVERYTHING]
    for net, member in zip(nets, EVERYTHING, strict=True):
        models.initialise(net, member.seed)
    assert_as_alone(template, EVERYTHING, nets, tiny.train, optimiser=optimiser)


# Other losses


def distillation(member: Member, labels: Tensor, teacher: Tensor) -> Loss:
    """Hinton et al. 2015, with torch's own losses; the hard part is the mean over the labelled samples."""

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        t, y = member.temperature, labels[rows]
        soft = F.kl_div(F.log_softmax(z / t, 1), F.softmax(teacher[rows] / t, 1), reduction="batchmean")
        hard = F.cross_entropy(z, y, label_smoothing=member.label_smoothing, ignore_index=UNLABELLED)
        return (1 - member.alpha) * (hard if bool((y >= 0).any()) else z.sum() * 0) + member.alpha * t**2 * soft

    return loss


@pytest.mark.parametrize("unlabelled", [0, 60, 128])
@pytest.mark.parametrize("teachers", ["one", "one each"])
def test_distillation_is_trained_as_alone(tiny: Dataset, teachers: str, unlabelled: int) -> None:
    hidden = torch.where(torch.arange(131) < unlabelled, UNLABELLED, tiny.train.labels)
    train = Split(tiny.train.inputs, hidden)
    those = [
        *members(lr=0.01, temperature=[1, 4], alpha=[0, 0.3, 1]),
        Member(seed=1, lr=0.02, temperature=2, alpha=0.5, label_smoothing=0.1, n_train=70, width=5),
    ]
    k = len(those)
    each = 3 * torch.randn(k, 131, 3, generator=torch.Generator().manual_seed(0))
    logits = each if teachers == "one each" else each[0]
    own = range(k) if teachers == "one each" else [0] * k
    losses = [distillation(member, hidden, each[at]) for at, member in zip(own, those, strict=True)]
    assert_mlps_as_alone((6, 8, 3), those, train, losses, teacher_logits=logits)


@pytest.mark.parametrize("outputs", [1, 2])
def test_values_are_learnt_as_alone(tiny: Dataset, outputs: int) -> None:
    """With fewer outputs than classes: the labels have no part in it."""
    values = tiny.train.inputs[:, :outputs].square()
    those = members(seed=range(2), lr=[1e-3, 0.02], n_train=[80, None])

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        return F.mse_loss(z, values[rows])

    assert_mlps_as_alone((6, 8, outputs), those, tiny.train, [loss] * len(those), values=values)


# Dropout


@pytest.fixture
def thrown(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """What multiplied the hidden units in each step: [K, width, B] a layer."""
    steps: list[list[Tensor]] = []
    forward = passes.MLPPass.forward

    def spy(self: passes.MLPPass, inputs: Tensor, dropped: Sequence[Tensor] | None) -> Tensor:
        steps.append([] if dropped is None else [scale.clone() for scale in dropped])
        return forward(self, inputs, dropped)

    monkeypatch.setattr(passes.MLPPass, "forward", spy)
    return steps


RATES = (0.0, 0.2, 0.5, 0.9)


def test_dropout_leaves_out_the_share_it_says(
    tiny: Dataset, thrown: list[list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "count", lambda: 1)  # all four members in one part
    together = Cohort(models.MLP((6, 200, 100, 3)), members(dropout=RATES))
    cohort.fit(together, tiny.train, epochs=1, batch_size=BATCH)
    shapes = [(4, width, batch) for batch in (50, 50, 31) for width in (200, 100)]
    assert [scale.shape for step in thrown for scale in step] == shapes
    for layer in range(2):
        scales = torch.cat([step[layer] for step in thrown], 2)  # [K, width, 131]
        for rate, own in zip(RATES, scales, strict=True):
            n, out = own.numel(), own == 0
            assert abs(float(out.float().mean()) - rate) <= 4 * (rate * (1 - rate) / n) ** 0.5
            assert own[~out] == pytest.approx(1 / (1 - rate))
            assert abs(float(own.mean()) - 1) <= 4 * (rate / (1 - rate) / n) ** 0.5 + 1e-6
        assert len({bytes(own.numpy().tobytes()) for own in scales[2].T}) == 131  # drawn anew for each sample


def test_members_of_one_seed_throw_the_same_dice(tiny: Dataset, thrown: list[list[Tensor]]) -> None:
    those = [Member(1), Member(1, 0.1, order=9), Member(1, dropout=0.7), Member(2)]
    those = [replace(member, dropout=member.dropout or 0.5) for member in those]
    for some in (those, those, those[3:]):
        cohort.fit(Cohort(models.MLP((6, 30, 3)), some), tiny.train, epochs=2, batch_size=BATCH)
    for [now], [again], [single] in zip(thrown[:6], thrown[6:12], thrown[12:], strict=True):
        assert torch.equal(now, again)
        assert torch.equal(now[3:], single)
        assert torch.equal(now[0], now[1])
        assert bool((now[2][now[0] == 0] == 0).all())  # a higher rate leaves out these, and more
        assert not torch.equal(now[0], now[3])
    assert not torch.equal(thrown[0][0], thrown[3][0])  # and others in the next epoch
    cohort.fit(Cohort(models.MLP((6, 8, 3)), members(seed=range(2))), tiny.train, epochs=1)
    assert thrown[18:] == [[], [], []]  # none without dropout


class Scaled(nn.Module):
    """One MLP whose hidden units are multiplied by scales that were thrown before."""

    def __init__(self, net: models.MLP, scales: list[list[Tensor]]) -> None:
        super().__init__()
        self.net, self.scales = net, iter(scales)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.net.layers
        for layer, scale in zip(hidden, next(self.scales), strict=True):
            x = F.relu(layer(x)) * scale[: layer.out_features, : len(x)].T
        return last(x)


def test_dropout_is_trained_as_alone(tiny: Dataset, thrown: list[list[Tensor]]) -> None:
    """Also beside a rate of 0, in a narrow network, and where there are fewer samples."""
    those = [
        Member(seed=0, lr=0.01),
        Member(seed=0, lr=0.01, dropout=0.3),
        Member(seed=1, lr=0.02, dropout=0.6, width=5, weight_decay=0.1),
        Member(seed=2, lr=0.01, dropout=0.2, n_train=120),
    ]
    sizes = (6, 9, 7, 3)
    own = ([[scale[at] for scale in step] for step in thrown] for at in range(len(those)))
    scaled = (Scaled(mlp(sizes, member), scales) for member, scales in zip(those, own, strict=True))
    assert_as_alone(models.MLP(sizes), those, scaled, tiny.train)
