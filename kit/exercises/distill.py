"""Checks of the notebook on distillation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.data import Split
from kit.distill import Recipe, Students, few
from kit.exercises.verdict import Wrong, answered, checked, compare
from kit.measure import Estimate

HUNDREDS = (100, 200)  # where in the train split the two hundreds of the open task begin
NEAR = 0.4  # between two images; the hundreds, moved or mixed, stay at least 0.46 away from all other digits


@checked
def translated_alpha(answer: Callable[[float, float], float]) -> str:
    """The weight of the soft labels in a loss with the factor T^2 that does what alpha does in one without.

    Args:
        answer: takes alpha of (1 - alpha) CE + alpha KL, and the temperature T; returns a of (1 - a) CE + a T^2 KL, in
            which the two parts stand in the same ratio: alpha / (alpha + (1 - alpha) T^2).
    """
    for alpha, t in ((0.9, 8.0), (0.5, 2.0), (0.3, 0.5), (0.7, 1.0), (1.0, 4.0)):
        got, want = float(answered(answer(alpha, t))), alpha / (alpha + (1 - alpha) * t**2)
        mistakes = [
            (alpha, "you change nothing; that is right at T = 1 only, where the factor is 1."),
            (
                alpha / t**2,
                "the ratio is right only if the labels keep their weight; here the two weights add up to 1.",
            ),
            (alpha * t**2, "you have the part's size, no weight: both weights must add up to 1."),
            (
                alpha * t**2 / (alpha * t**2 + 1 - alpha),
                "this is the way back, from a loss with the factor to one without.",
            ),
            (alpha / (alpha + (1 - alpha) * t), "the factor is T^2, and you take T."),
        ]
        otherwise = f"the teacher's weight is {want:.4g}; got {got:.4g}. Write the ratio of the parts for both losses."
        compare(got, want, f"At T = {t:g} and alpha = {alpha:g}", mistakes, otherwise)
    return "A recipe means nothing without its loss: look for the factor before you copy an alpha."


@checked
def wrong_soft_loss(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Repair a soft loss in which teacher and student are swapped; of that error only wanted and got are said.

    Args:
        answer: takes the student's logits [n, C], the teacher's [n, C] and the temperature T; returns T^2 KL(q || p),
            the sum over the classes and the mean over the samples.
    """
    z, v, _ = _logits()
    n, n_classes = z.shape
    for t in (1.0, 3.0):
        got = float(answered(answer(z, v, t)))
        want = t**2 * float(_soft_loss(z, v, t))
        must = f"the loss must be {want:.4f}; got {got:.4f}"
        mistakes = [
            (want / n_classes, f"{must}: {n_classes} times too small. Over what does your mean go?"),
            (want / n_classes / t**2, f"{must}. The factor T^2 is missing, and over what does your mean go?"),
            (want * n, f"you got {n} times the loss, for {n} samples: that is the sum, not their mean."),
            (want / t**2, f"{must}. The factor T^2 is missing."),
        ]
        negative = "the loss is negative; F.kl_div takes the *logarithm* of p first, then q."
        compare(got, want, f"At T = {t:g}", mistakes, negative if got < 0 else f"{must}.", rel=1e-4)
    return "The teacher's q weighs: the student pays for each class that its teacher finds possible."


@checked
def reverse_gradient(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Write the gradient of T^2 KL(p || q), the mean over samples, in the student's logits.

    Args:
        answer: takes the student's logits z [n, C], the teacher's v [n, C] and the temperature T; returns
            T p (ln(p / q) - KL) / n, shape [n, C], with the KL of each sample.
    """
    z, v, _ = _logits()
    for temperature in (1.0, 5.0):
        leaf = z.clone().requires_grad_()
        (want,) = torch.autograd.grad(temperature**2 * _soft_loss(v, leaf, temperature), leaf)
        got = answered(answer(z.clone(), v.clone(), temperature))
        if not isinstance(got, Tensor) or got.shape != z.shape:
            came = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise Wrong(f"The gradient must have the shape of the logits, {tuple(z.shape)}; got {came}.")
        n, p, q = len(z), torch.softmax(z / temperature, 1), torch.softmax(v / temperature, 1)
        for gives, reason in (
            (want, ""),
            (-want, "the sign is wrong: turn it round."),
            (n * want, f"it is {n} times too large: the loss is the mean over {n} samples."),
            (want / temperature, "a factor T is missing: T^2 from the loss, 1 / T from z / T."),
            (want * temperature, "there is a factor T too many: T^2 from the loss, but 1 / T from z / T."),
            (temperature * (p - q) / n, "this is the gradient of KL(q || p), of section 3: here p weighs."),
            (temperature * p * (p / q).log() / n, "a p_k moves all other p_i too: the part with - p_k is missing."),
        ):
            if torch.allclose(got.to(gives.dtype), gives, rtol=1e-3, atol=1e-6):
                if reason:
                    raise Wrong(f"At T = {temperature:g} {reason}")
                break
        else:
            raise Wrong(f"At T = {temperature:g} autograd finds another gradient. Are p and q both at temperature T?")
    return "Autograd agrees."


@checked
def temperature_for(answer: float | None) -> str:
    """At which temperature does a second class get a fifth?

    Args:
        answer: the temperature at which two logits 4 and 0 become 80 % and 20 %: 4 / T = ln(0.8 / 0.2).
    """
    got = float(answered(answer))
    if not got > 0:
        raise Wrong(f"A temperature is above 0; got {got:g}.")
    second = 1 / (1 + math.exp(4 / got)) if got > 0.01 else 0.0
    mistakes = [
        (math.log(4) / 4, "That is 1 / T: the logits are divided by T."),
        (4 / math.log(5), "ln 5 is minus the logarithm of the share 0.2; take the ratio of the two shares, 0.8 / 0.2."),
        (4 / math.log10(4), "The exponential has the natural logarithm as its inverse, not the one to base 10."),
    ]
    otherwise = f"At T = {got:g} the second class gets {100 * second:.1f} %; wanted are 20 %."
    compare(got, 4 / math.log(4), "", mistakes, otherwise, rel=0.01)
    return "The ratio of two probabilities is exp(difference of the logits / T)."


@checked
def better_student(answer: Callable[[Split], Recipe], students: Students, *, seeds: Sequence[int] = range(16)) -> str:
    """Beat the kit's recipe for a hundred images: T = 4, alpha = 0.9, each image as often as the others.

    Args:
        answer: takes a hundred samples, repeated as `distill.few` does, n in all; returns a recipe for students as wide
            as the kit's that sees at most 20 n samples, epochs * len(transfer), all made of the hundred.
        students: of one teacher and data set; the hundreds are parts of its train split, validation measures. The test
            images are looked at only to refuse them.
        seeds: of the students that are trained for each of two hundreds; the kit must be beaten on both.
    """
    dataset, scores, ahead = students.dataset, [], []
    for first in HUNDREDS:
        rest = Split(*(each.roll(-first, 0) for each in (dataset.train.inputs, dataset.train.labels)))
        rival = Recipe(few(rest, 100))
        recipe = answered(answer(Split(rival.transfer.inputs.clone(), rival.transfer.labels.clone())))
        _check_allowed(recipe, rival, torch.cat([rest.inputs[100:], dataset.validation.inputs, dataset.test.inputs]))
        own, kits = (group.accuracies for group in students.train([recipe, rival], seeds))
        gain = Estimate.from_pairs(own, kits)
        scores.append(
            f"{Estimate.from_values(own).percent} against {Estimate.from_values(kits).percent}: {gain.points}"
        )
        ahead.append(gain.low > 0)
    score = f"Yours against the kit's, {len(seeds)} students each. One hundred: {scores[0]}; another: {scores[1]}."
    if not all(ahead):
        raise Wrong(f"{score} The kit is beaten where both intervals are above 0.")
    return f"{score} Both intervals are above 0, so the kit is beaten."


def _check_allowed(recipe: object, rival: Recipe, others: Tensor) -> None:
    """Refuse a recipe that has more than its rival: images, steps, or units."""
    if not isinstance(recipe, Recipe):
        raise Wrong(f"Return a distill.Recipe; got {type(recipe).__name__}.")
    seen, most = recipe.epochs * len(recipe.transfer), rival.epochs * len(rival.transfer)
    if seen > most:
        raise Wrong(f"Your students see {seen:,} samples, epochs * len(transfer); the kit's see {most:,}, no more.")
    if recipe.width != rival.width:
        raise Wrong(f"Your students have {recipe.width} hidden units; the kit's have {rival.width}.")
    images, outside, hundred = (
        each.flatten(1) for each in (recipe.transfer.inputs, others, rival.transfer.inputs[:100])
    )
    nearest = torch.cdist(images, outside).min(1).values  # [n]
    if bool(((nearest < NEAR) & (nearest < torch.cdist(images, hundred).min(1).values)).any()):
        raise Wrong("Some of your images are not made of the hundred: they are as good as images outside of it.")


def _logits() -> tuple[Tensor, Tensor, Tensor]:
    """A student's and a teacher's logits, [6, 5] each, and labels, [6]."""
    generator = torch.Generator().manual_seed(3)
    z, v = (2 * torch.randn(6, 5, generator=generator) for _ in range(2))
    return z, v, torch.tensor([0, 1, 2, 3, 4, 0])


def _soft_loss(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """KL(q || p) at a temperature, the mean over samples; PyTorch's own."""
    return F.kl_div(F.log_softmax(z / temperature, 1), F.softmax(v / temperature, 1), reduction="batchmean")
