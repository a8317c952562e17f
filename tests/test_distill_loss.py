"""The loss of distillation, and the samples on which a student meets its teacher."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kit import cohort, distill
from kit.data import Dataset, Split

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


def test_a_higher_temperature_brings_the_classes_closer_and_keeps_their_order(v: Tensor) -> None:
    spreads = [distill.soften(v, t).std(1) for t in (0.5, 1, 4, 64)]
    for cool, warm in itertools.pairwise(spreads):
        assert bool((warm < cool).all())
    assert torch.equal(distill.soften(v, 64).argsort(1), v.argsort(1))


# --- the loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 64])
def test_the_soft_term_is_torchs_divergence_times_the_squared_temperature(
    z: Tensor, v: Tensor, temperature: float
) -> None:
    found = distill.loss(z, v, LABELS, temperature=temperature, alpha=1)
    inputs, targets = F.log_softmax(z / temperature, 1), F.softmax(v / temperature, 1)
    wanted = temperature**2 * F.kl_div(inputs, targets, reduction="batchmean")  # a mean over samples only
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert torch.allclose(slope(found, z), slope(wanted, z))


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
@pytest.mark.parametrize("labels", [LABELS, PARTLY], ids=["all", "partly"])
def test_the_loss_is_the_weighted_sum_of_both_terms(z: Tensor, v: Tensor, labels: Tensor, alpha: float) -> None:
    hard = F.cross_entropy(z, labels, ignore_index=-1)  # the mean over those that are labelled
    soft = 9 * F.kl_div(F.log_softmax(z / 3, 1), F.log_softmax(v / 3, 1), reduction="batchmean", log_target=True)
    found = distill.loss(z, v, labels, temperature=3, alpha=alpha)
    assert found.item() == pytest.approx(((1 - alpha) * hard + alpha * soft).item(), rel=1e-12)


@pytest.mark.parametrize("labels", [LABELS, PARTLY, NOBODY], ids=["all", "partly", "nobody"])
@pytest.mark.parametrize("temperature", [0.7, 4.0, 32.0])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_gradient_is_the_one_of_the_formula(
    z: Tensor, v: Tensor, labels: Tensor, temperature: float, alpha: float
) -> None:
    p, q, plain = F.softmax(z / temperature, 1), F.softmax(v / temperature, 1), F.softmax(z, 1)
    labelled = (labels >= 0)[:, None]
    y = F.one_hot(labels.clamp(min=0), C)
    wanted = alpha * temperature * (p - q) / N
    wanted = wanted + (1 - alpha) * (plain - y) * labelled / max(1, int(labelled.sum()))
    found = slope(distill.loss(z, v, labels, temperature=temperature, alpha=alpha), z)
    assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("labels", [LABELS, PARTLY, NOBODY], ids=["all", "partly", "nobody"])
def test_the_gradient_is_that_of_finite_differences(z: Tensor, v: Tensor, labels: Tensor, alpha: float) -> None:
    assert torch.autograd.gradcheck(lambda x: distill.loss(x, v, labels, temperature=2.5, alpha=alpha), (z,))


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


def test_the_squared_temperature_keeps_the_size_of_the_gradient(z: Tensor, v: Tensor) -> None:
    sizes = [slope(distill.loss(z, v, LABELS, temperature=t, alpha=1), z).norm().item() for t in (10.0, 100.0, 1000.0)]
    assert max(sizes) < 1.5 * min(sizes)  # without the factor they would differ by 10,000


def test_alpha_0_is_cross_entropy_and_never_reads_the_teacher(z: Tensor, v: Tensor) -> None:
    found = distill.loss(z, torch.full_like(v, math.nan), LABELS, temperature=4, alpha=0)
    wanted = F.cross_entropy(z, LABELS)
    assert found.item() == wanted.item()
    assert torch.allclose(slope(found, z), slope(wanted, z))


def test_alpha_1_never_reads_the_labels(z: Tensor, v: Tensor) -> None:
    losses = [
        distill.loss(z, v, labels, temperature=4, alpha=1).item()
        for labels in (LABELS, NOBODY, torch.full((N,), 10**6))  # such a class would be an error
    ]
    assert losses[0] > 0
    assert losses == [losses[0]] * 3


def test_an_unlabelled_sample_is_left_out_of_the_mean_of_the_hard_term(z: Tensor, v: Tensor) -> None:
    known = PARTLY >= 0
    some = distill.loss(z, v, PARTLY, temperature=4, alpha=0)
    assert some.item() == pytest.approx(F.cross_entropy(z[known], PARTLY[known]).item(), rel=1e-12)
    assert torch.equal(slope(some, z)[~known], torch.zeros(3, C, dtype=torch.float64))


def test_without_any_label_the_teacher_is_all_there_is(z: Tensor, v: Tensor) -> None:
    alone = distill.loss(z, v, LABELS, temperature=4, alpha=1)
    found = distill.loss(z, v, NOBODY, temperature=4, alpha=0.6)
    assert found.item() == pytest.approx(0.6 * alone.item(), rel=1e-12)
    nothing = distill.loss(z, v, NOBODY, temperature=4, alpha=0)
    assert nothing.item() == 0
    assert not slope(nothing, z).any()  # and a step can be taken: a batch of unlabelled samples is no error


def test_the_loss_is_0_where_the_student_answers_as_its_teacher(v: Tensor) -> None:
    z = (v + 17).requires_grad_()  # a constant more in each logit changes no probability
    found = distill.loss(z, v, LABELS, temperature=4, alpha=1)
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(slope(found, z), torch.zeros_like(z), atol=1e-12)


def test_a_teacher_that_is_certain_gives_numbers() -> None:
    z, v = torch.zeros(2, 3, requires_grad=True), torch.tensor([[1e4, 0, 0], [0, 1e4, 0]])
    found = distill.loss(z, v, torch.tensor([0, 1]), temperature=1, alpha=1)
    assert found.item() == pytest.approx(math.log(3))
    assert bool(slope(found, z).isfinite().all())


def test_it_is_the_loss_of_a_cohort(z: Tensor, v: Tensor) -> None:
    members = cohort.members(temperature=[1.0, 4.0], alpha=[0.0, 0.9])
    z, v = z.detach().float(), v.float()
    of_cohort = cohort.losses.LabelLoss(members, PARTLY, C, v)
    rows = torch.arange(N).expand(4, N)
    each, slopes = of_cohort(z.T.expand(4, C, N), rows, torch.full((4, N), 1 / N))
    for member, value, found in zip(members, each, slopes, strict=True):
        own = z.clone().requires_grad_()
        wanted = distill.loss(own, v, PARTLY, temperature=member.temperature, alpha=member.alpha)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert torch.allclose(found.T, slope(wanted, own), atol=1e-6)


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(z: Tensor, v: Tensor, temperature: float) -> None:
    sentence = rf"temperature must be above 0; got {temperature!r}\."
    with pytest.raises(ValueError, match=sentence):
        distill.loss(z, v, LABELS, temperature=temperature, alpha=0.5)
    with pytest.raises(ValueError, match=sentence):
        distill.soften(v, temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_an_alpha_that_is_no_share_is_refused(z: Tensor, v: Tensor, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha is the weight .* must lie in \[0, 1\]; got {alpha!r}\."):
        distill.loss(z, v, LABELS, temperature=4, alpha=alpha)


@pytest.mark.parametrize(
    ("rows", "classes", "shapes"), [(N, C - 1, r"\(7, 4\) and \(7, 5\)"), (1, C, r"\(1, 5\) and \(7, 5\)")]
)
def test_logits_of_different_shapes_are_refused(z: Tensor, v: Tensor, rows: int, classes: int, shapes: str) -> None:
    sentence = rf"same classes for the same samples; got logits of {shapes}\."  # torch would broadcast the second
    with pytest.raises(ValueError, match=sentence):
        distill.loss(z, v[:rows, :classes], LABELS, temperature=4, alpha=0.5)


# --- transfer sets ----------------------------------------------------------------------------------------------


@pytest.fixture
def images() -> Split:
    """12 images of 2 channels, 3 x 4 pixels, every number another and none 0, in 3 classes."""
    return Split(torch.arange(1.0, 12 * 24 + 1).reshape(12, 2, 3, 4), torch.arange(12) % 3)


def untouched(split: Split) -> Callable[[], bool]:
    inputs, labels = split.inputs.clone(), split.labels.clone()
    return lambda: torch.equal(split.inputs, inputs) and torch.equal(split.labels, labels)


@pytest.mark.parametrize("labelled", [0, 1, 5, 12])
def test_partly_labelled_keeps_the_first_labels_and_all_samples(images: Split, labelled: int) -> None:
    same = untouched(images)
    made = distill.partly_labelled(images, labelled)
    assert torch.equal(made.inputs, images.inputs)
    assert made.labels.tolist() == images.labels.tolist()[:labelled] + [-1] * (12 - labelled)
    assert same()


@pytest.mark.parametrize("labelled", [-1, 13, 2.5, True, None])
def test_partly_labelled_refuses(images: Split, labelled: object) -> None:
    with pytest.raises(ValueError, match=rf"labelled must be a whole number in 0 .. 12; got {labelled!r}\."):
        distill.partly_labelled(images, labelled)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_few_has_as_many_samples_and_only_the_first_ones(images: Split, count: int) -> None:
    same = untouched(images)
    made = distill.few(images, count)
    assert len(made) == len(made.inputs) == 12
    often = Counter(int(image[0, 0, 0] - 1) // 24 for image in made.inputs)  # which image it was
    assert set(often) == set(range(count))
    assert max(often.values()) - min(often.values()) <= 1  # each as often as the others
    for image, label in zip(made.inputs, made.labels.tolist(), strict=True):
        row = int(image[0, 0, 0] - 1) // 24
        assert torch.equal(image, images.inputs[row])
        assert label == row % 3
    assert same()


@pytest.mark.parametrize("count", [0, 13, 1.0])
def test_few_refuses(images: Split, count: object) -> None:
    with pytest.raises(ValueError, match=rf"count must be a whole number in 1 .. 12; got {count!r}\."):
        distill.few(images, count)  # type: ignore[arg-type]


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Pixel by pixel."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


@pytest.mark.parametrize("pixels", [1, 2])
def test_shifted_adds_each_image_moved(images: Split, pixels: int) -> None:
    same = untouched(images)
    made = distill.shifted(images, pixels, seed=3)
    assert made.inputs.shape == (24, 2, 3, 4)
    assert torch.equal(made.inputs[:12], images.inputs)
    assert made.labels.tolist() == 2 * images.labels.tolist()
    reach = range(-pixels, pixels + 1)
    for image, copy in zip(images.inputs, made.inputs[12:], strict=True):
        moves = [(down, right) for down in reach for right in reach if torch.equal(copy, moved(image, down, right))]
        assert len(moves) == 1
    assert same()


def test_shifted_makes_each_of_the_nine_moves(digits: Dataset) -> None:
    bright = Split(digits.train.inputs + 1, digits.train.labels)  # so that what comes in is seen
    made = distill.shifted(bright)
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    n = len(bright)
    seen = Counter(
        next(move for move in moves if torch.equal(copy, moved(image, *move)))
        for image, copy in zip(bright.inputs[:300], made.inputs[n : n + 300], strict=True)
    )
    assert set(seen) == set(moves)
    assert min(seen.values()) > 300 / 9 / 2


def test_the_moves_come_from_the_seed_alone(images: Split) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (distill.shifted(images, seed=seed).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unlabelled_image_stays_unlabelled_when_moved(images: Split) -> None:
    made = distill.shifted(distill.partly_labelled(images, 2))
    assert made.labels.tolist() == 2 * [0, 1, *[-1] * 10]


@pytest.mark.parametrize("pixels", [0, 3, -1, 0.5])
def test_shifted_refuses_a_move_as_large_as_the_image(images: Split, pixels: object) -> None:
    with pytest.raises(ValueError, match=rf"pixels must be a whole number in 1 .. 2; got {pixels!r}\."):
        distill.shifted(images, pixels)  # type: ignore[arg-type]


def test_shifted_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match=r"split must hold images .* to be shifted; got samples of \(6,\)\."):
        distill.shifted(Split(torch.zeros(4, 6), torch.zeros(4).long()))


@pytest.mark.parametrize("absent", [0, 2])
def test_without_class_leaves_one_class_out(images: Split, absent: int) -> None:
    same = untouched(images)
    made = distill.without_class(images, absent)
    rows = [row for row in range(12) if row % 3 != absent]
    assert made.labels.tolist() == [row % 3 for row in rows]
    assert torch.equal(made.inputs, images.inputs[rows])
    assert same()


def test_without_class_refuses_a_class_that_is_not_there_or_alone(images: Split) -> None:
    with pytest.raises(ValueError, match=r"absent must be one of several classes of the split \(0, 1, 2\); got 3\."):
        distill.without_class(images, 3)
    with pytest.raises(ValueError, match=r"several classes of the split \(0\); got 0\."):
        distill.without_class(Split(images.inputs[::3], images.labels[::3]), 0)
