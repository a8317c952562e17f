"""The straight line between two networks: accuracy and loss on the way, and the barrier of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Event
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, distill, training
from kit.compress.align import Aligned, align
from kit.compress.merge import alike, ensemble, mixed
from kit.data import Dataset, Split
from kit.measure import Estimate
from kit.prune import Untraceable
from kit.prune.unstructured import renewed

BATCH = 256  # samples of a forward pass, always the same: then its numbers are, too
Key = tuple[float, bool, bool]  # of a point: t, whether units are matched, whether batch statistics are renewed


@dataclass(frozen=True, eq=False)
class Point:
    """A network on the line between two, measured.

    Attributes:
        t: its place, from 0 (the first network) to 1 (the second).
        right: whether each sample is answered right, bool [n].
        losses: cross-entropy of each sample in nats, float64 [n].
    """

    t: float
    right: Tensor
    losses: Tensor

    @cached_property
    def accuracy(self) -> Estimate:
        """Share of right answers, with Wilson's interval."""
        return Estimate.from_counts(int(self.right.sum()), len(self.right))

    @cached_property
    def loss(self) -> Estimate:
        """Mean loss over the samples in nats, with Student's t interval."""
        return Estimate.from_values(self.losses.tolist())


@dataclass(frozen=True)
class Path:
    """Points from one network (t = 0) to another (t = 1), ascending."""

    points: tuple[Point, ...]

    @property
    def top(self) -> Point:
        """The point at which the loss lies highest above the straight line between the losses of both ends."""
        return max(self.points, key=lambda point: float(self._above(point).mean()))

    @property
    def barrier(self) -> Estimate:
        """How high that is, in nats: 0 or more, with the interval over samples, paired with those of the ends.

        It is the highest of several points, so a little too high. For pairs of networks from many seeds, take
        `Estimate.from_values` of their barriers.

        Source: Frankle et al. (2020), arXiv:1912.05671, section 2; Entezari et al. (2022), arXiv:2110.06296, eq. 1.
        """
        return Estimate.from_values(self._above(self.top).tolist())

    def _above(self, point: Point) -> Tensor:
        first, last = self.points[0], self.points[-1]
        return point.losses - (1 - point.t) * first.losses - point.t * last.losses


def path(
    a: nn.Module, b: nn.Module, dataset: Dataset, *, points: int = 11, renew: bool = True, cancel: Event | None = None
) -> Path:
    """Measure networks on the straight line from `a` to `b` on the validation split.

    Args:
        a: any module.
        b: one of the same class and shapes.
        dataset: its validation split measures; its train split gives batch statistics.
        points: how many, at equal distances, the ends included; 3 or more.
        renew: whether batch statistics are measured anew between the ends, as in `average`; otherwise they are
            averaged, and do not fit.
        cancel: looked at between batches.

    Raises:
        Cancelled: `cancel` was set.
        ValueError: models that do not match, samples that they cannot take, or answers of NaN or infinity.
        TypeError: an argument of another type.
    """
    checks.whole("points", points, 3)
    checks.instance("renew", renew, bool)
    training.check_dataset(dataset)
    ends = alike({"a": a, "b": b})
    places = [at / (points - 1) for at in range(points)]
    models = ((t, between(ends[0], ends[1], t, dataset, renew=renew, cancel=cancel)) for t in places)
    return Path(tuple(score(model, dataset.validation, t, cancel) for t, model in models))


def between(
    a: nn.Module, b: nn.Module, t: float, dataset: Dataset, *, renew: bool, cancel: Event | None = None
) -> nn.Module:
    """The network at `t` of the line between two that match; the ends are as they are."""
    model = mixed([a, b], [1 - t, t]) if 0 < t < 1 else (a, b)[int(t)]
    return renewed(model, dataset, cancel) if renew and 0 < t < 1 and training.has_statistics(model) else model


def score(model: nn.Module, split: Split, t: float = 0.0, cancel: Event | None = None) -> Point:
    """Any network, measured sample by sample; errors as in `path`."""
    training.check_split("split", split)
    answers = []
    for part in split.inputs.split(BATCH):
        training.check_cancel(cancel, "before a batch")
        answers.append(training.predict(model, part))
    logits = torch.cat(answers).double()  # [n, n_classes]
    if broken := int((~logits.isfinite().all(1)).sum()):
        raise ValueError(f"model {training.in_words(broken, len(logits))}: it has no loss.")
    losses = F.cross_entropy(logits, split.labels, reduction="none")
    return Point(t, logits.argmax(1) == split.labels, losses)


class Walk:
    """Both lines between two networks, as b is and with its units matched, and what stands beside them; remembered.

    Args:
        a: any module.
        b: one of the same class and shapes.
        dataset: as for `path`.

    Raises:
        ValueError, TypeError: as in `path` and `align`; where no unit of b can be moved, `why` says so instead.

    Attributes:
        ends: plain copies of both.
        aligned: b with its units matched, or None.
        why: in a sentence, why it is None.
        both: the ensemble of both.
        taught: a after each epoch of teaching by the ensemble, beginning with a itself.
    """

    def __init__(self, a: nn.Module, b: nn.Module, dataset: Dataset) -> None:
        training.check_dataset(dataset)
        one, other = alike({"a": a, "b": b})
        self.ends, self.why = (one, other), ""
        training.check_fits(one, dataset)
        self._dataset, self._known = dataset, dict[Any, Point]()
        self.both, self.taught = ensemble(self.ends), [one]
        self.aligned: Aligned | None = None
        try:
            self.aligned = align(other, one, dataset=dataset)
        except Untraceable as error:
            self.why = str(error)

    def key(self, t: float, *, aligned: bool, renew: bool) -> Key:
        """What a point is known by: the ends are the same networks on every line."""
        return t, aligned and 0 < t < 1 and self.aligned is not None, renew and 0 < t < 1

    def model(self, key: Key) -> nn.Module:
        """The network at a point."""
        a, b = self.ends
        t, aligned, renew = key
        return between(a, self.aligned.model if aligned and self.aligned else b, t, self._dataset, renew=renew)

    def point(self, key: Key, cancel: Event | None = None) -> Point:
        """A point of a line, measured now unless it is known."""
        if key not in self._known:
            self._known[key] = score(self.model(key), self._dataset.validation, key[0], cancel)
        return self._known[key]

    def has(self, key: Key) -> bool:
        """Whether a point is measured."""
        return key in self._known

    def known(self, ts: Sequence[float], *, aligned: bool, renew: bool) -> list[Point]:
        """What is measured so far of a line at these places; nothing of a matched one where b cannot be matched."""
        keys = [self.key(t, aligned=aligned, renew=renew) for t in ts if self.aligned or not aligned]
        return [self._known[key] for key in keys if key in self._known]

    def vote(self, cancel: Event | None = None) -> Point:
        """The ensemble, measured now unless it is known."""
        if "ensemble" not in self._known:
            self._known["ensemble"] = score(self.both, self._dataset.validation, cancel=cancel)
        return self._known["ensemble"]

    def teach(self, cancel: Event | None = None, **settings: Any) -> Point:
        """Let the ensemble teach a for one more epoch (`settings` as of `distill.fit`), and measure what it is then."""
        student = training.copy_of(self.taught[-1])
        distill.fit(student, self.both, self._dataset.train, seed=len(self.taught), epochs=1, cancel=cancel, **settings)
        point = score(student, self._dataset.validation, cancel=cancel)
        self.taught.append(student)
        return point
