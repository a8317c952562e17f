"""The losses of a cohort with their gradients in the logits, in closed form.

| symbol | meaning | shape |
|---|---|---|
| z | logits | [K, C, B]: members, classes, samples of the batch |
| y | hard labels, one-hot, smoothed | [K, C, B] |
| p | softmax(z), or softmax(z / T) | [K, C, B] |
| q | the teacher's probabilities at temperature T, softmax(v / T) | [K, C, B] |
| share | a sample's weight in its member's mean | [K, B] |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.cohort.members import Member

HOT = 64.0  # above this temperature T, float32 has too few digits for T^2 KL(q || p): q and p differ by about 1 / T
FAR = 80.0  # exp(80) is a float32 yet, exp(89) is infinite


def divergence(u: Tensor, log_q: Tensor, q: Tensor) -> Tensor:
    """KL(q || p) in nats, 0 or more, for p = softmax(u), over dimension 1. [K, C, B] or [n, C], that one becomes 1.

    As sum q (log q - log p), positive and negative terms nearly cancel where q and p are close: at a high temperature
    the rest is rounding, multiplied by T^2. With d = u - log q, less its mean under q, KL = log sum q exp(d)
    = log(1 + sum q (exp(d) - 1 - d)), whose terms are all positive.
    """
    d = u - log_q
    d = d - (q * d).sum(1, keepdim=True)
    near = d.clamp(max=FAR)  # infinity would make the gradient NaN, also where the other form is taken
    close = (q * (near.expm1() - near)).sum(1, keepdim=True).clamp(min=0).log1p()
    far = d.amax(1, keepdim=True) > FAR
    if not bool(far.any()):
        return close
    return torch.where(far, torch.logsumexp(log_q + d, 1, keepdim=True).clamp(min=0), close)


def check_finite(argument: str, values: Tensor) -> None:
    """Refuse NaN and infinity, by a ValueError."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{argument} must be finite; some are NaN or infinity.")


class LabelLoss:
    """Cross-entropy with hard labels, soft labels, or both; each member with its own temperature and weights.

    Args:
        members: one per network.
        labels: of the training samples [n]; negative for unlabelled ones.
        n_classes: number of classes C.
        teachers: their logits, [n, C] for all members, [K, n, C] for a teacher each; None where all alphas are 0.
    """

    def __init__(self, members: Sequence[Member], labels: Tensor, n_classes: int, teachers: Tensor | None) -> None:
        self._alpha, self._temperature, smoothing = (
            torch.tensor([getattr(member, name) for member in members])[:, None, None]  # [K, 1, 1]
            for name in ("alpha", "temperature", "label_smoothing")
        )
        self._labelled, self._all_labelled = (labels >= 0).float(), bool((labels >= 0).all())  # [n]
        self._one_hot = F.one_hot(labels.clamp(min=0), n_classes).float().T.contiguous()  # [C, n]
        self._keep, self._spread, self._smooth = 1 - smoothing, smoothing / n_classes, bool((smoothing > 0).any())
        self._hard, self._soft = bool((self._alpha < 1).any()), bool((self._alpha > 0).any())
        if self._soft and teachers is not None:
            # All soft labels side by side, [C, tables * n]; a member finds its own from `_shift` on.
            teachers = teachers if teachers.ndim == 3 else teachers[None]
            wanted = [(at if len(teachers) > 1 else 0, member.temperature) for at, member in enumerate(members)]
            tables = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
            hot = float(self._temperature.max()) > HOT
            wide = teachers.to(torch.promote_types(teachers.dtype, torch.float64 if hot else torch.float32))
            soft = [torch.log_softmax(wide[at] / temperature, 1) for at, temperature in tables]  # [n, C] each
            self._log_q = torch.cat(soft).T.contiguous()
            self._shift = torch.tensor([tables[pair] for pair in wanted])[:, None] * len(labels)  # [K, 1]

    def __call__(self, z: Tensor, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of each member, [K], and its gradient in z, [K, C, B]; `rows` are the training samples, [K, B]."""
        loss, slope = torch.zeros(len(z)), torch.zeros(())
        if self._hard:
            over = share
            if not self._all_labelled:  # the mean goes over the labelled samples of the batch; 0 where there is none
                labelled = (share > 0) * self._labelled[rows]  # [K, B]
                over = labelled / labelled.sum(1, keepdim=True).clamp(min=1)
            part = (1 - self._alpha) * over[:, None]  # [K, 1, B]
            y = _columns(self._one_hot, rows)  # [K, C, B]
            if self._smooth:
                y = torch.addcmul(self._spread, y, self._keep)
            log_p = torch.log_softmax(z, 1)
            loss = loss - ((y * log_p).sum(1, keepdim=True) * part).sum((1, 2))
            slope = log_p.exp_().sub_(y).mul_(part)  # the gradient of a cross-entropy: p - y
        if self._soft:
            t, part = self._temperature, self._alpha * share[:, None]  # [K, 1, B]
            log_q, u = _columns(self._log_q, rows + self._shift), z.to(self._log_q.dtype) / t  # [K, C, B]
            q = log_q.exp()
            loss = loss + (t**2 * part * divergence(u, log_q, q)).sum((1, 2))
            slope = slope + torch.softmax(u, 1).sub_(q).mul_(t * part)  # T^2 from the loss, 1 / T from z / T
        return loss.to(z.dtype), slope.to(z.dtype)


class ValueLoss:
    """Mean squared error, over samples and outputs."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.float().T.contiguous()  # [outputs, n]

    def __call__(self, z: Tensor, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As `LabelLoss`, for outputs z [K, outputs, B]."""
        part = share[:, None] / z.shape[1]  # [K, 1, B]
        error = z - _columns(self._values, rows)
        return (error.square() * part).sum((1, 2)), 2 * error * part


def _columns(table: Tensor, rows: Tensor) -> Tensor:
    """Columns of a table [C, n], for rows [K, B] of samples. -> [K, C, B]."""
    return table.index_select(1, rows.flatten()).unflatten(1, rows.shape).transpose(0, 1)
