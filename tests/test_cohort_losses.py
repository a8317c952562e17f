"""The closed forms of a cohort, loss and back-propagation, against autograd and finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import models
from kit.cohort import UNLABELLED, Cohort, Member, members
from kit.cohort.losses import LabelLoss, ValueLoss
from kit.cohort.passes import AutogradPass, MLPPass, passes

pytestmark = pytest.mark.usefixtures("one_thread")

N, C, B = 20, 4, 7  # training samples, classes, samples of a batch

THOSE = (
    Member(),
    Member(label_smoothing=0.1),
    Member(label_smoothing=1.0, temperature=3.0),
    Member(alpha=1.0),
    Member(alpha=1.0, temperature=5.0),
    Member(alpha=0.3, temperature=0.5),
    Member(alpha=0.7, temperature=4.0, label_smoothing=0.2),
)
K = len(THOSE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Rows and shares; the last members have fewer samples, and one has none."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.tensor([B] * (K - 3) + [5, 0, 1])
    present = torch.arange(B) < counts[:, None]
    rows = torch.randint(N, (K, B), generator=generator) * present  # row 0 where there is no sample
    return {"rows": rows, "share": present.double() / counts.clamp(min=1)[:, None], "counts": counts}


def labels_with(unlabelled: Sequence[int]) -> Tensor:
    labels = torch.arange(N) % C
    labels[list(unlabelled)] = UNLABELLED
    return labels


def direct(member: Member, z: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
    """The docstring's formula for logits z [B, C], with torch's own losses."""
    t = member.temperature
    if not len(z):
        return z.sum()
    hard = F.cross_entropy(z, y, label_smoothing=member.label_smoothing, ignore_index=UNLABELLED)
    hard = hard if bool((y >= 0).any()) else z.sum() * 0
    soft = F.kl_div(F.log_softmax(z / t, 1), F.softmax(teacher / t, 1), reduction="batchmean")
    return (1 - member.alpha) * hard + member.alpha * t**2 * soft


@pytest.mark.parametrize("teachers", ["one", "one each"])
@pytest.mark.parametrize("unlabelled", [(), (0, 3, 4, 11), range(1, N), range(N)])
def test_label_loss_is_the_formula(batch: dict[str, Tensor], teachers: str, unlabelled: Sequence[int]) -> None:
    """Loss and gradient; with `range(N)` no sample of any batch is labelled."""
    labels, each = labels_with(unlabelled), 3 * draw(K, N, C, seed=2)
    each = each if teachers == "one each" else each[:1].expand_as(each)
    z = (4 * draw(K, C, B)).requires_grad_()
    loss, slope = LabelLoss(THOSE, labels, C, each if teachers == "one each" else each[0])(
        z.detach(), batch["rows"], batch["share"]
    )
    expected = []
    for at, member in enumerate(THOSE):
        count = int(batch["counts"][at])
        rows = batch["rows"][at, :count]
        expected.append(direct(member, z[at, :, :count].T, labels[rows], each[at, rows]))
    torch.stack(expected).sum().backward()
    assert loss.shape == (K,)
    torch.testing.assert_close(loss, torch.stack(expected).detach(), atol=1e-6, rtol=1e-6)
    assert z.grad is not None
    torch.testing.assert_close(slope, z.grad, atol=1e-7, rtol=1e-6)


class Closed(torch.autograd.Function):
    """A loss whose gradient is the slope that it says: for `gradcheck`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, loss: Any, rows: Tensor, share: Tensor) -> Tensor:
        value, slope = loss(z.detach().clone(), rows, share)
        ctx.save_for_backward(slope)
        return value.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0][:, None, None] * slope, None, None, None


@pytest.mark.parametrize("unlabelled", [(), (0, 3, 4, 11)])
def test_the_slope_is_that_of_finite_differences(batch: dict[str, Tensor], unlabelled: Sequence[int]) -> None:
    z = draw(K, C, B).requires_grad_()
    labels = LabelLoss(THOSE, labels_with(unlabelled), C, draw(K, N, C, seed=2))
    values = ValueLoss(draw(N, C, seed=3))
    for loss in (labels, values):
        assert torch.autograd.gradcheck(lambda at: Closed.apply(at, loss, batch["rows"], batch["share"]), z)  # noqa: B023


def test_no_teacher_is_needed_for_hard_labels_alone(batch: dict[str, Tensor]) -> None:
    those, z, labels = members(seed=range(K), label_smoothing=0.1), draw(K, C, B), labels_with(())
    loss, slope = LabelLoss(those, labels, C, None)(z, batch["rows"], batch["share"])
    same, likewise = LabelLoss(those, labels, C, draw(N, C, seed=2))(z, batch["rows"], batch["share"])
    assert torch.equal(loss, same)
    assert torch.equal(slope, likewise)
    count = int(batch["counts"][0])
    rows = batch["rows"][0, :count]
    assert float(loss[0]) == pytest.approx(float(F.cross_entropy(z[0].T, labels[rows], label_smoothing=0.1)))


def test_extreme_logits_stay_numbers() -> None:
    """Logits of 1e4: a probability of exactly 0 has no logarithm."""
    rows, share = torch.arange(C)[None].expand(2, C), torch.full((2, C), 1 / C)
    far = 1e4 * torch.eye(C)
    those = members(alpha=[1, 0.5])
    right = LabelLoss(those, torch.arange(C), C, far)(far.expand(2, C, C).clone(), rows, share)
    assert right[0].tolist() == pytest.approx([0, 0])
    wrong = LabelLoss(those, torch.arange(C), C, far)(far.roll(1, 0).expand(2, C, C).clone(), rows, share)
    assert wrong[0].tolist() == pytest.approx([1e4, 1e4])
    assert bool(wrong[1].isfinite().all())


@pytest.mark.parametrize("outputs", [1, 3])
def test_value_loss_is_the_mean_squared_error(batch: dict[str, Tensor], outputs: int) -> None:
    values, z = draw(N, outputs, seed=3).float(), draw(K, outputs, B).float().requires_grad_()
    loss, slope = ValueLoss(values)(z.detach(), batch["rows"], batch["share"].float())
    expected = []
    for at, count in enumerate(batch["counts"].tolist()):
        rows = batch["rows"][at, :count]
        expected.append(F.mse_loss(z[at, :, :count].T, values[rows]) if count else z[at].sum() * 0)
    torch.stack(expected).sum().backward()
    torch.testing.assert_close(loss, torch.stack(expected).detach())
    torch.testing.assert_close(slope, z.grad)


# Back-propagation


def gradients(nets: Sequence[nn.Module]) -> Tensor:
    """In one row, parameter by parameter: each for all networks."""
    blocks = zip(*(net.parameters() for net in nets), strict=True)
    return torch.cat([parameter.grad.flatten() for block in blocks for parameter in block])


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("sizes", [(6, 4), (6, 9, 4), (6, 9, 7, 4)])
def test_the_passes_of_mlps_are_those_of_autograd(sizes: tuple[int, ...], dropout: bool) -> None:
    """The memory of one batch serves the next of its size, so sizes alternate."""
    together = Cohort(models.MLP(sizes), members(seed=range(3)))
    both_ways = passes(together.template, together.blocks())
    assert isinstance(both_ways, MLPPass)
    for step, size in enumerate((5, 2, 5, 5)):
        inputs, slope = draw(3, size, 2, 3, seed=step).float(), draw(3, 4, size, seed=9 - step).float()
        scales = [1.5 * (draw(3, width, size, seed=width) > 0) for width in sizes[1:-1]]
        z = both_ways.forward(inputs, scales if dropout else None).clone()
        row = both_ways.backward(slope)
        nets = list(together.models())
        for at, net in enumerate(nets):
            *hidden, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
            h = inputs[at].flatten(1)
            for layer, scale in zip(hidden, scales, strict=True):
                h = F.relu(layer(h)) * (scale[at].T if dropout else 1)
            expected = last(h)
            torch.testing.assert_close(z[at].T, expected)
            expected.backward(slope[at].T)
        torch.testing.assert_close(row, gradients(nets))
        together.weights.data.mul_(0.9)  # the optimiser's step changes the weights in place


@pytest.mark.parametrize("family", ["mlp", "convnet", "other"])
def test_autograd_passes_serve_every_family(family: str) -> None:
    template: nn.Module = models.MLP((16, 5, 3))
    if family == "convnet":
        template = models.ConvNet(image_size=4, channels=(2, 3), hidden=5, n_classes=3)
    if family == "other":
        template = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    together = Cohort(template, members(seed=range(3)))
    both_ways = AutogradPass(template, together.blocks())
    for step in range(2):
        inputs, slope = draw(3, 5, 1, 4, 4, seed=step).float(), draw(3, 3, 5, seed=9 - step).float()
        z = both_ways.forward(inputs, None)
        row = both_ways.backward(slope)
        nets = list(together.models())
        for at, net in enumerate(nets):
            expected = net(inputs[at])
            torch.testing.assert_close(z[at].T, expected)
            expected.backward(slope[at].T)
        torch.testing.assert_close(row, gradients(nets))
        together.weights.data.mul_(0.9)
