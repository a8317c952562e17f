"""The closed forms of a cohort, loss and back-propagation, against autograd and finite differences."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import distill, models
from kit.cohort import UNLABELLED, Cohort, Member, members
from kit.cohort.losses import LabelLoss, ValueLoss
from kit.cohort.networks import hidden_widths
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
    together = LabelLoss(THOSE, labels, C, each if teachers == "one each" else each[0])
    loss, slope = together(z.detach(), batch["rows"], batch["share"])
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


@pytest.mark.parametrize("hottest", [64.0, 1e3, 1e6])
def test_a_cohort_and_a_lone_student_have_the_same_loss_at_every_temperature(hottest: float) -> None:
    """Loss and gradient in float32, against the loss of `distill`; beside members of other temperatures."""
    those = members(alpha=[1, 0.4], temperature=[0.01, 0.5, 4, hottest])
    labels, teacher, z = labels_with([0, 3]), 3 * draw(N, C, seed=2).float(), 3 * draw(len(those), C, N).float()
    rows, share = torch.arange(N).expand(len(those), N), torch.full((len(those), N), 1 / N)
    loss, slope = LabelLoss(those, labels, C, teacher)(z, rows, share)
    assert loss.dtype == slope.dtype == torch.float32
    for at, member in enumerate(those):
        alone = z[at].T.clone().requires_grad_()
        wanted = distill.loss(alone, teacher, labels, temperature=member.temperature, alpha=member.alpha)
        wanted.backward()
        assert loss[at].item() == pytest.approx(wanted.item(), rel=1e-4)
        assert alone.grad is not None
        torch.testing.assert_close(slope[at], alone.grad.T, rtol=1e-4, atol=1e-5 * float(slope[at].abs().max()))
    same = LabelLoss(those, labels, C, teacher)(teacher.T.expand_as(z).contiguous(), rows, share)[0]
    assert 0 <= float(same[:4].min()) <= float(same[:4].max()) < 1e-6  # alpha 1: the teacher's own answers


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


FAMILIES: dict[str, nn.Module] = {
    "linear": models.MLP((16, 3)),
    "one": models.MLP((16, 9, 3)),
    "two": models.MLP((16, 9, 7, 3)),
    "convnet": models.ConvNet(image_size=4, channels=(2, 3), hidden=5, n_classes=3),
    "other": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize(
    ("family", "kind", "dropout"),
    [
        *((family, MLPPass, dropout) for family in ("linear", "one", "two") for dropout in (False, True)),
        *((family, AutogradPass, False) for family in ("one", "convnet", "other")),
    ],
)
def test_the_passes_are_those_of_autograd(family: str, kind: type[MLPPass | AutogradPass], dropout: bool) -> None:
    """The memory of one batch serves the next of its size, so sizes alternate."""
    together = Cohort(FAMILIES[family], members(seed=range(3)))
    both_ways = passes(together.template, together.blocks())
    if not isinstance(both_ways, kind):  # autograd serves every family
        both_ways = AutogradPass(together.template, together.blocks())
    widths = hidden_widths(together.template) if dropout else []
    for step, size in enumerate((5, 2, 5, 5)):
        inputs, slope = draw(3, size, 1, 4, 4, seed=step).float(), draw(3, 3, size, seed=9 - step).float()
        scales = [1.5 * (draw(3, width, size, seed=width) > 0) for width in widths]
        z = both_ways.forward(inputs, scales if dropout else None).clone()
        row = both_ways.backward(slope)
        nets = list(together.models())
        for at, net in enumerate(nets):
            if dropout:
                *hidden, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
                h = inputs[at].flatten(1)
                for layer, scale in zip(hidden, scales, strict=True):
                    h = F.relu(layer(h)) * scale[at].T
                expected = last(h)
            else:
                expected = net(inputs[at])
            torch.testing.assert_close(z[at].T, expected)
            expected.backward(slope[at].T)
        torch.testing.assert_close(row, gradients(nets))
        together.weights.data.mul_(0.9)  # the optimiser's step changes the weights in place
