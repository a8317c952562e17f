"""Checks of the notebook on distillation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.exercises.verdict import Wrong, answered, checked, compare


@checked
def missing_factor(answer: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> str:
    """Repair a distillation loss in which the temperature's factor is missing.

    Args:
        answer: takes the student's logits [n, C], the teacher's [n, C], labels [n], temperature T and alpha; returns
            (1 - alpha) CE + alpha T^2 KL, each the mean over the samples.
    """
    z, v, y = _logits()
    hard = float(F.cross_entropy(z, y))
    for t, alpha in ((1.0, 0.5), (4.0, 1.0), (4.0, 0.3), (0.5, 0.8)):
        soft, weighed = float(_soft_loss(z, v, t)), (1 - alpha) * hard
        got, want = float(answered(answer(z, v, y, t, alpha))), weighed + alpha * t**2 * soft
        must = f"the loss must be {want:.4f}; got {got:.4f}."
        divides = "you divide; the factor makes up for what the temperature takes away."
        mistakes = [
            (t**2 * (weighed + alpha * soft), "the factor is on the hard labels too."),
            (alpha * hard + (1 - alpha) * t**2 * soft, "the weights are swapped: alpha is that of the soft labels."),
            (weighed + alpha * soft, f"{must} At T = 1 it is right: what is missing?"),
            (weighed + alpha * t * soft, "the factor is T. One 1 / T is from z / T, another from p - q: it takes T^2."),
            (weighed + alpha / t * soft, divides),
            (weighed + alpha / t**2 * soft, divides),
        ]
        compare(got, want, f"At T = {t:g} and alpha = {alpha:g}", mistakes, must, rel=1e-4)
    return "Now alpha means the same at every temperature."


@checked
def wrong_reduction(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Repair a soft loss that takes its mean over too much.

    Args:
        answer: takes the student's logits [n, C], the teacher's [n, C] and the temperature T; returns T^2 KL(q || p),
            the sum over the classes and the mean over the samples.
    """
    z, v, _ = _logits()
    n, n_classes = z.shape
    for t in (1.0, 3.0):
        got = float(answered(answer(z, v, t)))
        want, swapped = t**2 * float(_soft_loss(z, v, t)), t**2 * float(_soft_loss(v, z, t))
        must = f"the loss must be {want:.4f}; got {got:.4f}"
        too_small = f"{n_classes} times too small, for {n} images and {n_classes} classes. Over what does your mean go?"
        mistakes = [
            (want / n_classes, f"{must}: {too_small}"),
            (want * n, f"you got {n} times the loss, for {n} samples: that is the sum, not their mean."),
            (swapped, "teacher and student are swapped: KL(q || p) weighs with the teacher's q."),
        ]
        negative = "the loss is negative; F.kl_div takes the *logarithm* of p first, then q."
        compare(got, want, f"At T = {t:g}", mistakes, negative if got < 0 else f"{must}.", rel=1e-4)
    return "The sum over the classes, the mean over the samples; PyTorch calls that batchmean."


@checked
def soft_gradient(answer: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Write the gradient of T^2 KL(q || p), the mean over samples, in the student's logits.

    Args:
        answer: takes the student's logits z [n, C], the teacher's v [n, C] and the temperature T; returns
            T (p - q) / n, shape [n, C].
    """
    z, v, _ = _logits()
    for temperature in (1.0, 5.0):
        leaf = z.clone().requires_grad_()
        (want,) = torch.autograd.grad(temperature**2 * _soft_loss(leaf, v, temperature), leaf)
        got = answered(answer(z.clone(), v.clone(), temperature))
        if not isinstance(got, Tensor) or got.shape != z.shape:
            came = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise Wrong(f"The gradient must have the shape of the logits, {tuple(z.shape)}; got {came}.")
        if torch.allclose(got, want, rtol=1e-3, atol=1e-6):
            continue
        case, n = f"At T = {temperature:g}", len(z)
        for factor, reason in (
            (-1.0, "the sign is wrong: the loss falls where p comes closer to q."),
            (float(n), f"it is {n} times too large: the loss is the mean over {n} samples."),
            (1 / temperature, "a factor T is missing: T^2 from the loss, 1 / T from z / T."),
            (temperature, "there is a factor T too many: T^2 from the loss, but 1 / T from z / T."),
        ):
            if torch.allclose(got, factor * want, rtol=1e-3, atol=1e-6):
                raise Wrong(f"{case} {reason}")
        raise Wrong(f"{case} autograd finds another gradient. Are p and q both taken at temperature T?")
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


def _logits() -> tuple[Tensor, Tensor, Tensor]:
    """A student's and a teacher's logits, [6, 5] each, and labels, [6]."""
    generator = torch.Generator().manual_seed(3)
    z, v = (2 * torch.randn(6, 5, generator=generator) for _ in range(2))
    return z, v, torch.tensor([0, 1, 2, 3, 4, 0])


def _soft_loss(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """KL(q || p) at a temperature, the mean over samples; PyTorch's own."""
    return F.kl_div(F.log_softmax(z / temperature, 1), F.softmax(v / temperature, 1), reduction="batchmean")
