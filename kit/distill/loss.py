"""The loss of distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kit import checks
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
    checks.number("temperature", temperature, above=0)
    return torch.softmax(logits / temperature, -1)


def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float) -> Tensor:
    """What a student minimises: (1 - alpha) CE(labels, z) + alpha T^2 KL(q || p), means over the samples, in nats.

    With q = softmax(v / T), the soft labels, and p = softmax(z / T), both [n, C].

    The gradient of the second term in z is T (p - q): one 1 / T comes from z / T, and p - q itself shrinks like 1 / T.
    The factor T^2 keeps it of the same size at every temperature, so that alpha means the same at each
    (Hinton et al. 2015, section 2).

    Args:
        student_logits: z, [n, C].
        teacher_logits: v, [n, C].
        labels: [n], whole numbers 0 .. C - 1, or -1 for unlabelled samples, which the first mean leaves out.
        temperature: T, above 0.
        alpha: in [0, 1]; 0 learns from the labels alone, 1 from the teacher alone.

    Raises:
        ValueError: a temperature or alpha out of range, or logits of different shapes.
    """
    checks.number("temperature", temperature, above=0)
    checks.share("alpha, the weight of the soft labels,", alpha)
    if student_logits.shape != teacher_logits.shape:
        asked, came = tuple(teacher_logits.shape), tuple(student_logits.shape)
        raise ValueError(f"student_logits must have the shape of teacher_logits, {asked}; got {came}.")
    total = 0 * student_logits.sum()  # with a gradient, also where alpha is 0 and no sample is labelled
    labelled = labels != UNLABELLED
    if alpha < 1 and bool(labelled.any()):
        total = total + (1 - alpha) * F.cross_entropy(student_logits[labelled], labels[labelled])
    if alpha > 0:
        q = soften(teacher_logits, temperature)  # [n, C]
        log_p = torch.log_softmax(student_logits / temperature, 1)  # [n, C]
        divergence = (torch.xlogy(q, q) - q * log_p).sum(1)  # KL(q || p) of each sample, [n]
        total = total + alpha * temperature**2 * divergence.mean()  # the mean over samples, not over classes too
    return total
