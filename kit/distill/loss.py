"""The loss of distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kit import checks
from kit.cohort import UNLABELLED, check_temperature
from kit.cohort.losses import check_finite, divergence


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature: softmax(logits / T), over the last dimension.

    Args:
        logits: [..., C].
        temperature: 0.01 to 1e6. 1 is the ordinary softmax; higher values bring the probabilities closer together.

    Raises:
        ValueError: a temperature out of range.
        TypeError: logits that are no tensor, or a temperature that is no number.

    Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, equation 1.
    """
    checks.instance("logits", logits, Tensor)
    check_temperature(temperature)
    return torch.softmax(logits / temperature, -1)


def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float) -> Tensor:
    """What a student minimises: (1 - alpha) CE(labels, z) + alpha T^2 KL(q || p), means over the samples, in nats.

    With q = softmax(v / T), the soft labels, and p = softmax(z / T), both [n, C]; one number, of the dtype of z.

    The gradient of the second term in z is T (p - q): one 1 / T comes from z / T, and p - q itself shrinks like 1 / T.
    The factor T^2 keeps it of the same size at every temperature, so that alpha means the same at each
    (Hinton et al. 2015, section 2).

    Args:
        student_logits: z, [n, C], finite.
        teacher_logits: v, [n, C], finite; not read where alpha is 0.
        labels: [n], int64, 0 .. C - 1, or -1 for unlabelled samples, which the first mean leaves out; not read where
            alpha is 1.
        temperature: T, 0.01 to 1e6.
        alpha: in [0, 1]; 0 learns from the labels alone, 1 from the teacher alone.

    Raises:
        ValueError: a temperature or alpha out of range, logits of different shapes, not [n, C] or not finite, or
            labels of another length or out of range.
        TypeError: logits that are no tensors, labels that are no whole numbers, or settings that are no numbers.
    """
    check_temperature(temperature)
    checks.share("alpha, the weight of the soft labels,", alpha)
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        checks.instance(name, logits, Tensor)
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2 or not student_logits.numel():
        asked, came = tuple(teacher_logits.shape), tuple(student_logits.shape)
        raise ValueError(f"student_logits must be [n, C], and have the shape of teacher_logits, {asked}; got {came}.")
    check_finite("student_logits", student_logits)
    if alpha > 0:
        check_finite("teacher_logits", teacher_logits)
    if alpha < 1:
        check_labels("labels", labels, *student_logits.shape)
    return unchecked(student_logits, teacher_logits, labels, temperature, alpha)


def unchecked(z: Tensor, v: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """`loss` of what is known to be right: for each batch of a training, which may diverge."""
    total = 0 * z.sum()  # with a gradient, also where alpha is 0 and no sample is labelled
    labelled = labels != UNLABELLED
    if alpha < 1 and bool(labelled.any()):
        total = total + (1 - alpha) * F.cross_entropy(z[labelled], labels[labelled])
    if alpha > 0:
        # In float64: at a high temperature q and p are nearly equal.
        u, log_q = z.double() / temperature, torch.log_softmax(v.double() / temperature, 1)  # [n, C]
        # The mean over samples, not over classes too.
        total = total + alpha * temperature**2 * divergence(u, log_q, log_q.exp()).mean()
    return total.to(z.dtype)


def check_labels(argument: str, labels: Tensor, n: int, n_classes: int) -> None:
    """Refuse labels that are not [n], int64, of these classes or -1."""
    checks.instance(argument, labels, Tensor, "a tensor of whole numbers")
    if labels.dtype != torch.int64:
        raise TypeError(f"{argument} must be whole numbers, int64 (labels.long()); got {labels.dtype}.")
    if tuple(labels.shape) != (n,):
        onehot = " Of one-hot rows, labels.argmax(1) are the classes." if labels.shape == (n, n_classes) else ""
        raise ValueError(f"{argument} must have shape [{n}], one a sample; got {tuple(labels.shape)}.{onehot}")
    low, high = int(labels.min()), int(labels.max())
    if low < UNLABELLED or high >= n_classes:
        wrong = high if high >= n_classes else low
        raise ValueError(f"{argument} must lie in 0 .. {n_classes - 1}, or be -1 where unlabelled; got {wrong}.")
