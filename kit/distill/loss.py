"""The loss of distillation.

| symbol | meaning | shape |
|---|---|---|
| z | the student's logits | [n, C] |
| v | the teacher's logits | [n, C] |
| T | temperature, above 0 | number |
| q | softmax(v / T), the soft labels | [n, C] |
| p | softmax(z / T) | [n, C] |
| alpha | weight of the soft labels | number in [0, 1] |
"""

from __future__ import annotations

import math
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.cohort import UNLABELLED


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature: softmax(logits / T), over the last dimension.

    Args:
        logits: [..., C].
        temperature: above 0. 1 is the ordinary softmax; higher values bring the probabilities closer together.

    Raises:
        ValueError: a temperature not above 0.

    Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, equation 1.
    """
    check_temperature(temperature)
    return torch.softmax(logits / temperature, -1)


def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float) -> Tensor:
    """What a student minimises: (1 - alpha) CE(labels, z) + alpha T^2 KL(q || p), means over the samples.

    The gradient of the second term in z is T (p - q): one 1 / T comes from z / T, and p - q itself shrinks like 1 / T.
    The factor T^2 keeps it of the same size at every temperature, so that alpha means the same at each
    (Hinton et al. 2015, section 2).

    Args:
        student_logits: z, [n, C].
        teacher_logits: v, [n, C].
        labels: [n], whole numbers 0 .. C - 1, or -1 where nobody labelled: the first mean leaves those out.
        temperature: T, above 0.
        alpha: in [0, 1]; 0 learns from the labels alone, 1 from the teacher alone.

    Returns:
        A number in nats, with its gradient.

    Raises:
        ValueError: a temperature or alpha out of range, or logits of different shapes.
    """
    check_temperature(temperature)
    check_alpha(alpha)
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "teacher and student must answer with the same classes for the same samples; "
            f"got logits of {tuple(teacher_logits.shape)} and {tuple(student_logits.shape)}."
        )
    total = 0 * student_logits.sum()  # with a gradient, also where alpha is 0 and nobody labelled
    labelled = labels != UNLABELLED
    if alpha < 1 and bool(labelled.any()):
        total = total + (1 - alpha) * F.cross_entropy(student_logits[labelled], labels[labelled])
    if alpha > 0:
        q = soften(teacher_logits, temperature)  # [n, C]
        log_p = torch.log_softmax(student_logits / temperature, 1)  # [n, C]
        divergence = (torch.xlogy(q, q) - q * log_p).sum(1)  # KL(q || p) of each sample, [n]
        total = total + alpha * temperature**2 * divergence.mean()  # the mean over samples, not over classes too
    return total


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not above 0.

    Raises:
        ValueError: as said.
        TypeError: no number.
    """
    _check_number("temperature", temperature)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0; got {temperature!r}.")


def check_alpha(alpha: float) -> None:
    """Refuse a weight of the soft labels outside [0, 1].

    Raises:
        ValueError: as said.
        TypeError: no number.
    """
    _check_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the weight of the soft labels and must lie in [0, 1]; got {alpha!r}.")


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r}.")
