"""The loss of distillation, and the samples on which a student meets its teacher."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import MAX_EMAX, Decimal, localcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kit import distill
from kit.data import Split

pytestmark = pytest.mark.usefixtures("one_thread")

N, C = 7, 5


@pytest.fixture
def z() -> Tensor:
    """The student's logits."""
    return (2 * torch.randn(N, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).requires_grad_()


@pytest.fixture
def v() -> Tensor:
    """The teacher's logits."""
    return 3 * torch.randn(N, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])
PARTLY = torch.tensor([0, -1, 2, -1, -1, 3, 0])  # four labelled
NOBODY = torch.full((N,), -1)


def slope(loss: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, z)[0]


# --- soften -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 64])
def test_soften_is_the_softmax_of_the_divided_logits(v: Tensor, temperature: float) -> None:
    rows = [[math.exp(value / temperature) for value in row] for row in v.tolist()]
    by_hand = [[value / sum(row) for value in row] for row in rows]
    assert torch.allclose(distill.soften(v, temperature), torch.tensor(by_hand, dtype=torch.float64))
    assert torch.equal(distill.soften(v[0], temperature), distill.soften(v, temperature)[0])  # of any dimensions


# --- the loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.5, 1, 4.0, 64])
@pytest.mark.parametrize("alpha", [0, 0.3, 1])
@pytest.mark.parametrize("labels", [LABELS, PARTLY, NOBODY], ids=["all", "partly", "nobody"])
def test_the_loss_and_its_gradient_are_the_formulas(
    z: Tensor, v: Tensor, labels: Tensor, alpha: float, t: float
) -> None:
    """Without any label the teacher is all there is, and at alpha 0 the loss is 0: a step can still be taken."""
    labelled = (labels >= 0)[:, None]
    count = max(1, int(labelled.sum()))
    hard = F.cross_entropy(z, labels, ignore_index=-1, reduction="sum") / count
    soft = t**2 * F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction="batchmean")  # over samples only
    found = distill.loss(z, v, labels, temperature=t, alpha=alpha)
    assert found.item() == pytest.approx(((1 - alpha) * hard + alpha * soft).item(), rel=1e-12)
    p, q, plain, y = F.softmax(z / t, 1), F.softmax(v / t, 1), F.softmax(z, 1), F.one_hot(labels.clamp(min=0), C)
    wanted = alpha * t * (p - q) / N + (1 - alpha) * (plain - y) * labelled / count
    assert torch.allclose(slope(found, z), wanted, atol=1e-12)


def test_in_the_limit_of_high_temperature_the_logits_are_matched(z: Tensor, v: Tensor) -> None:
    """Hinton et al. 2015, section 2.1; without their assumption that the logits have a mean of zero."""
    one, other = z[:1], v[:1]
    limit = ((one - one.mean()) - (other - other.mean())).detach() / C
    errors = []
    for temperature in (50.0, 100.0, 200.0, 400.0, 800.0):
        loss = distill.loss(one, other, LABELS[:1], temperature=temperature, alpha=1)
        errors.append(float((slope(loss, one) - limit).abs().max()))
    assert errors[-1] < 0.01 * float(limit.abs().max())
    for before, after in itertools.pairwise(errors):  # twice the temperature, half the error
        assert after / before == pytest.approx(0.5, abs=0.05)


def test_alpha_0_never_reads_the_teacher_and_alpha_1_never_the_labels(z: Tensor, v: Tensor) -> None:
    found, wanted = distill.loss(z, v / 0, LABELS, temperature=4, alpha=0), F.cross_entropy(z, LABELS)
    assert found.item() == wanted.item()
    assert torch.allclose(slope(found, z), slope(wanted, z))
    those = LABELS, NOBODY, torch.full((N,), 10**6)  # such a class would be an error
    assert len({distill.loss(z, v, labels, temperature=4, alpha=1).item() for labels in those}) == 1


def test_the_loss_is_0_where_the_student_answers_as_its_teacher_and_a_number_where_that_is_certain(v: Tensor) -> None:
    z = (v + 17).requires_grad_()  # a constant more in each logit changes no probability
    found = distill.loss(z, v, LABELS, temperature=4, alpha=1)
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(slope(found, z), torch.zeros_like(z), atol=1e-12)
    z, v = torch.zeros(2, 3, requires_grad=True), torch.tensor([[1e4, 0, 0], [0, 1e4, 0]])
    found = distill.loss(z, v, torch.tensor([0, 1]), temperature=1, alpha=1)
    assert found.item() == pytest.approx(math.log(3))
    assert bool(slope(found, z).isfinite().all())


def test_the_loss_refuses(z: Tensor, v: Tensor) -> None:
    for temperature in (0, -1, 0.0099, 1.1e6, math.inf, math.nan):
        allowed = "lie in 0.01 .. 1e\\+06" if math.isfinite(temperature) else "be finite"
        sentence = rf"temperature must {allowed}; got {temperature!r}\."
        with pytest.raises(ValueError, match=sentence):
            distill.loss(z, v, LABELS, temperature=temperature, alpha=0.5)
        with pytest.raises(ValueError, match=sentence):
            distill.soften(v, temperature)
    for alpha in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"alpha, the weight .*, must lie in \[0, 1\]; got {alpha!r}\."):
            distill.loss(z, v, LABELS, temperature=4, alpha=alpha)
    for other in (v[:, 1:], v[:1]):  # torch would broadcast the second
        asked = tuple(other.shape)
        sentence = f"student_logits must be [n, C], and have the shape of teacher_logits, {asked}; got (7, 5)."
        with pytest.raises(ValueError, match=re.escape(sentence)):
            distill.loss(z, other, LABELS, temperature=4, alpha=0.5)


def exactly(z: list[float], v: list[float], t: float) -> Decimal:
    """T^2 KL(q || p) for one sample, with 60 digits."""
    with localcontext(prec=60, Emin=-MAX_EMAX, Emax=MAX_EMAX):
        p: list[Decimal] = []
        q: list[Decimal] = []
        wide = Decimal(t)
        for shares, logits in ((p, z), (q, v)):
            powers = [(Decimal(each) / wide).exp() for each in logits]
            shares += [power / sum(powers) for power in powers]
        return wide**2 * sum((b * (b / a).ln() for a, b in zip(p, q, strict=True)), Decimal(0))


TEMPERATURES = (0.01, 0.1, 0.5, 1.0, 7.0, 64.0, 100.0, 1e3, 1e4, 1e5, 1e6)


@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [0.001, 1, 30])
def test_the_divergence_is_right_at_every_temperature(
    z: Tensor, v: Tensor, t: float, dtype: torch.dtype, far: float
) -> None:
    """Against 60 digits: its value, and its gradient T (p - q) by central differences; with or without a graph."""
    z, v = (v + far * z).detach().to(dtype), v.to(dtype)
    rows, teacher = z.tolist(), v.tolist()
    wanted = float(sum(map(exactly, rows, teacher, [t] * N)) / N)
    z.requires_grad_()
    found = distill.loss(z, v, LABELS, temperature=t, alpha=1)
    assert found.dtype == dtype
    assert found.item() == pytest.approx(wanted, rel=1e-6, abs=1e-300)
    step = 1e-12
    gradient = slope(found, z)
    with localcontext(prec=60):
        for column in range(C):
            ends = []
            for sign in (1, -1):
                moved = [Decimal(each) for each in rows[0]]
                moved[column] += sign * Decimal(step)
                ends.append(exactly(moved, teacher[0], t))  # type: ignore[arg-type]
            by_hand = float((ends[0] - ends[1]) / (2 * Decimal(step)) / N)
            assert gradient[0, column].item() == pytest.approx(
                by_hand, rel=1e-5, abs=1e-7 * float(gradient.abs().max())
            )


@pytest.mark.parametrize("t", TEMPERATURES)
def test_the_divergence_is_never_negative_and_0_for_the_teachers_own_answers(t: float) -> None:
    v = 3 * torch.randn(400, 10, generator=torch.Generator().manual_seed(3))
    for z in (v, v + 1e-6 * v.flip(0), v + 5):
        each = torch.stack([distill.loss(z[[at]], v[[at]], LABELS[:1], temperature=t, alpha=1) for at in range(400)])
        assert 0 <= each.min() <= each.max() < 1e-9


def test_at_the_highest_temperature_the_loss_is_the_squared_distance_of_the_centred_logits(
    z: Tensor, v: Tensor
) -> None:
    """The limit of T^2 KL: 1 / (2 C) of it, whatever the temperature is."""
    apart = (z - z.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))
    found = distill.loss(z.float(), v.float(), LABELS, temperature=1e6, alpha=1)
    assert found.item() == pytest.approx((apart.square().sum(1) / (2 * C)).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"labels": LABELS.float()},
            TypeError,
            "labels must be whole numbers, int64 (labels.long()); got torch.float32.",
        ),
        ({"labels": LABELS.int()}, TypeError, "labels must be whole numbers, int64 (labels.long()); got torch.int32."),
        ({"labels": ["a"] * N}, TypeError, "labels must be a tensor of whole numbers; got ['a', 'a'"),
        ({"labels": LABELS.tolist()}, TypeError, "labels must be a tensor of whole numbers; got [0, 4"),
        (
            {"labels": F.one_hot(LABELS, C)},
            ValueError,
            "got (7, 5). Of one-hot rows, labels.argmax(1) are the classes.",
        ),
        ({"labels": LABELS[:6]}, ValueError, "labels must have shape [7], one a sample; got (6,)."),
        ({"labels": LABELS + 1}, ValueError, "labels must lie in 0 .. 4, or be -1 where unlabelled; got 5."),
        ({"labels": LABELS - 2}, ValueError, "labels must lie in 0 .. 4, or be -1 where unlabelled; got -2."),
        ({"student_logits": torch.zeros(N)}, ValueError, "student_logits must be [n, C], and have the shape of"),
        ({"student_logits": torch.full((N, C), math.nan)}, ValueError, "student_logits must be finite; some are NaN"),
        ({"teacher_logits": torch.full((N, C), math.inf)}, ValueError, "teacher_logits must be finite; some are NaN"),
        ({"student_logits": [[1.0]]}, TypeError, "student_logits must be a Tensor; got [[1.0]]."),
        ({"teacher_logits": None}, TypeError, "teacher_logits must be a Tensor; got None."),
        ({"temperature": "4"}, TypeError, "temperature must be a number; got '4'."),
        ({"alpha": None}, TypeError, "alpha, the weight of the soft labels, must be a number; got None."),
    ],
)
def test_the_loss_refuses_in_a_sentence(
    z: Tensor, v: Tensor, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    asked: dict[str, Any] = {"student_logits": z, "teacher_logits": v, "labels": LABELS, "temperature": 4, "alpha": 0.5}
    with pytest.raises(error, match=re.escape(sentence)):
        distill.loss(**asked | change)


# --- transfer sets ----------------------------------------------------------------------------------------------


@pytest.fixture
def images() -> Iterator[Split]:
    """12 images of 2 channels, 3 x 4 pixels, every number another and none 0, in 3 classes; nobody changes them."""
    inputs, labels = torch.arange(1.0, 12 * 24 + 1).reshape(12, 2, 3, 4), torch.arange(12) % 3
    split = Split(inputs.clone(), labels.clone())
    yield split
    assert torch.equal(split.inputs, inputs) and torch.equal(split.labels, labels)


@pytest.mark.parametrize("labelled", [0, 1, 5, 12])
def test_partly_labelled_keeps_the_first_labels_and_all_samples(images: Split, labelled: int) -> None:
    made = distill.partly_labelled(images, labelled)
    assert torch.equal(made.inputs, images.inputs)
    assert made.labels.tolist() == images.labels.tolist()[:labelled] + [-1] * (12 - labelled)


@pytest.mark.parametrize(
    ("refuse", "values", "allowed"),
    [
        (distill.partly_labelled, (-1, 13, 2.5, True, None), "labelled must lie in 0 .. 12"),
        (distill.few, (0, 13, 1.0), "count must lie in 1 .. 12"),
        (distill.shifted, (0, 3, -1, 0.5), "pixels must lie in 1 .. 2"),  # as large as the image
    ],
)
def test_transfer_sets_refuse(images: Split, refuse: Callable[..., Split], values: Any, allowed: str) -> None:
    for value in values:
        whole = type(value) is int
        sentence = allowed if whole else f"{allowed.split()[0]} must be a whole number"
        with pytest.raises(ValueError if whole else TypeError, match=rf"{sentence}; got {value!r}\."):
            refuse(images, value)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_few_has_as_many_samples_and_only_the_first_ones(images: Split, count: int) -> None:
    made = distill.few(images, count)
    assert len(made) == len(made.inputs) == 12
    often = Counter(int(image[0, 0, 0] - 1) // 24 for image in made.inputs)  # which image it was
    assert set(often) == set(range(count))
    assert max(often.values()) - min(often.values()) <= 1  # each as often as the others
    for image, label in zip(made.inputs, made.labels.tolist(), strict=True):
        row = int(image[0, 0, 0] - 1) // 24
        assert torch.equal(image, images.inputs[row])
        assert label == row % 3


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Pixel by pixel."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row, column in itertools.product(range(height), range(width)):
        if 0 <= row - down < height and 0 <= column - right < width:
            result[:, row, column] = image[:, row - down, column - right]
    return result


@pytest.mark.parametrize("pixels", [1, 2])
def test_shifted_adds_each_image_moved(images: Split, pixels: int) -> None:
    """By each of the moves about as often."""
    many = Split(images.inputs.repeat(40, 1, 1, 1), images.labels.repeat(40))
    made = distill.shifted(many, pixels, seed=3)
    assert made.inputs.shape == (960, 2, 3, 4)
    assert torch.equal(made.inputs[:480], many.inputs)
    assert made.labels.tolist() == 2 * many.labels.tolist()
    moves = list(itertools.product(range(-pixels, pixels + 1), repeat=2))
    by_hand = [[moved(image, *move) for move in moves] for image in images.inputs]
    seen: Counter[tuple[int, ...]] = Counter()
    for at, copy in enumerate(made.inputs[480:]):
        (found,) = [move for move, expected in zip(moves, by_hand[at % 12], strict=True) if torch.equal(copy, expected)]
        seen[found] += 1
    assert min(seen[move] for move in moves) > 480 / len(moves) / 3


def test_the_moves_come_from_the_seed_alone(images: Split) -> None:
    before = torch.random.get_rng_state()
    partly = distill.partly_labelled(images, 2)
    first, again, other = (distill.shifted(partly, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs) and not torch.equal(first.inputs, other.inputs)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.labels.tolist() == 2 * [0, 1, *[-1] * 10]  # who is unlabelled stays so when moved
    with pytest.raises(ValueError, match=r"split must hold images .* to be shifted; got samples of \(6,\)\."):
        distill.shifted(Split(torch.zeros(4, 6), torch.zeros(4).long()))


def test_without_class_leaves_one_class_out_that_is_there_and_not_alone(images: Split) -> None:
    for absent in (0, 2):
        made = distill.without_class(images, absent)
        rows = [row for row in range(12) if row % 3 != absent]
        assert made.labels.tolist() == [row % 3 for row in rows]
        assert torch.equal(made.inputs, images.inputs[rows])
    with pytest.raises(ValueError, match=r"absent must be one of several classes of the split \(0, 1, 2\); got 3\."):
        distill.without_class(images, 3)
    with pytest.raises(ValueError, match=r"several classes of the split \(0\); got 0\."):
        distill.without_class(Split(images.inputs[::3], images.labels[::3]), 0)


@pytest.mark.parametrize("make", [distill.partly_labelled, distill.few, distill.shifted, distill.without_class])
def test_transfer_sets_are_made_of_splits_and_whole_numbers(images: Split, make: Callable[..., Split]) -> None:
    with pytest.raises(TypeError, match="split must be one of a data set's splits, .*; got an object of type Tensor"):
        make(images.inputs, 1)
    with pytest.raises(TypeError, match=r"must be a whole number; got '1'\."):
        make(images, "1")
    with pytest.raises(TypeError, match=r"seed must be a whole number; got None\."):
        distill.shifted(images, seed=None)  # type: ignore[arg-type]
