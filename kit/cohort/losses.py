"""The losses of a cohort with their gradients in the logits, in closed form.

| symbol | meaning | shape |
|---|---|---|
| z | logits | [K, C, B]: members, classes, samples of the batch |
| y | hard labels, one-hot, smoothed | [K, C, B] |
| p | softmax(z), or softmax(z / T) | [K, C, B] |
| q | the teacher's probabilities at temperature T | [K, C, B] |
| share | a sample's weight in its member's mean | [K, B] |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.cohort.members import Member


class LabelLoss:
    """Cross-entropy with hard labels, soft labels, or both; each member with its own temperature and weights.

    Args:
        members: one a network.
        labels: of the training samples [n]; negative where nobody labelled.
        n_classes: number of classes C.
        teacher_logits: [n, C] for all members, [K, n, C] for a teacher each; None where no member's alpha is above 0.
    """

    def __init__(
        self, members: Sequence[Member], labels: Tensor, n_classes: int, teacher_logits: Tensor | None
    ) -> None:
        """Lay out all targets once: the batches then pick columns."""
        smoothing = _column(member.label_smoothing for member in members)
        self._all_labelled = bool((labels >= 0).all())
        self._labelled = (labels >= 0).float()  # [n]
        one_hot = F.one_hot(labels.clamp(min=0), n_classes).float().T.contiguous()  # [C, n]
        self._one_hot, self._keep, self._spread = one_hot, 1 - smoothing, smoothing / n_classes
        self._smooth = bool((smoothing > 0).any())
        self._alpha = _column(member.alpha for member in members)
        self._temperature = _column(member.temperature for member in members)
        self._hard, self._soft = bool((self._alpha < 1).any()), bool((self._alpha > 0).any())
        if self._soft and teacher_logits is not None:
            self._soften(members, teacher_logits if teacher_logits.ndim == 3 else teacher_logits[None])

    def _soften(self, members: Sequence[Member], teachers: Tensor) -> None:
        """All soft labels side by side, [C, tables * n]; a member finds its own from `_shift` on."""
        wanted = [(at if len(teachers) > 1 else 0, member.temperature) for at, member in enumerate(members)]
        tables = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
        soft = [torch.softmax(teachers[at] / temperature, 1) for at, temperature in tables]  # [n, C] each
        self._q = torch.cat(soft).T.contiguous()
        self._entropy = -torch.xlogy(self._q, self._q).sum(0)  # [tables * n]
        self._shift = torch.tensor([tables[pair] for pair in wanted])[:, None] * teachers.shape[1]  # [K, 1]

    def __call__(self, z: Tensor, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of each member, [K], and its gradient in the logits, [K, C, B].

        Args:
            z: logits, [K, C, B].
            rows: which training samples, [K, B].
            share: [K, B].
        """
        loss, slope = torch.zeros(len(z)), torch.zeros(())
        if self._hard:
            part = (1 - self._alpha) * self._over_labelled(rows, share)[:, None]  # [K, 1, B]
            y = _columns(self._one_hot, rows)  # [K, C, B]
            if self._smooth:
                y = torch.addcmul(self._spread, y, self._keep)
            log_p = torch.log_softmax(z, 1)
            loss = loss - ((y * log_p).sum(1, keepdim=True) * part).sum((1, 2))
            slope = log_p.exp_().sub_(y).mul_(part)  # the gradient of a cross-entropy: p - y
        if self._soft:
            t, part = self._temperature, self._alpha * share[:, None]  # [K, 1, B]
            own = rows + self._shift
            q, log_p = _columns(self._q, own), torch.log_softmax(z / t, 1)
            divergence = -self._entropy[own][:, None] - (q * log_p).sum(1, keepdim=True)  # KL(q || p), [K, 1, B]
            loss = loss + (t**2 * part * divergence).sum((1, 2))
            slope = slope + log_p.exp_().sub_(q).mul_(t * part)  # T^2 from the loss, 1 / T from z / T
        return loss, slope

    def _over_labelled(self, rows: Tensor, share: Tensor) -> Tensor:
        """The mean goes over the labelled samples of the batch; 0 where there is none. [K, B]."""
        if self._all_labelled:
            return share
        labelled = (share > 0) * self._labelled[rows]
        return labelled / labelled.sum(1, keepdim=True).clamp(min=1)


class ValueLoss:
    """Mean squared error, over samples and outputs.

    Args:
        values: what to learn, [n, outputs].
    """

    def __init__(self, values: Tensor) -> None:
        """Lay the values out by column."""
        self._values = values.float().T.contiguous()  # [outputs, n]

    def __call__(self, z: Tensor, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As `LabelLoss`, for outputs z [K, outputs, B]."""
        part = share[:, None] / z.shape[1]  # [K, 1, B]
        error = z - _columns(self._values, rows)
        return (error.square() * part).sum((1, 2)), 2 * error * part


def _column(values: Iterator[float]) -> Tensor:
    return torch.tensor(list(values))[:, None, None]  # [K, 1, 1]


def _columns(table: Tensor, rows: Tensor) -> Tensor:
    """Columns of a table [C, n], for rows [K, B] of samples. -> [K, C, B]."""
    return table.index_select(1, rows.flatten()).unflatten(1, rows.shape).transpose(0, 1)
