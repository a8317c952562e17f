"""Train a whole cohort at once: the ordinary minibatch loop, every line of it for K networks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Barrier, BrokenBarrierError, Event
from typing import get_args

import torch
from torch import Tensor, nn

from kit import checks, cores
from kit.cohort.losses import LabelLoss, ValueLoss, check_finite
from kit.cohort.members import Member, train_rows
from kit.cohort.networks import Cohort, check_memory, hidden_widths
from kit.cohort.passes import logits, passes
from kit.cohort.steps import Held, Hold, Stepper
from kit.data import Split
from kit.inference import SMALL_MODEL
from kit.training import Callback, Optimiser, Progress, check_cancel, check_split, check_steps, predict

SMALL_COHORT = 75_000  # parameters of all members together; in parts of fewer, Python is the longer part of a step

PROBED, PROBE_SAMPLES, PROBE_SECONDS = 8, 256, 0.2  # networks, samples and time by which the speed is measured

UNLABELLED = -1  # the label of an unlabelled training sample


@dataclass(frozen=True)
class CohortHistory:
    """What a cohort's fit leaves behind.

    Attributes:
        losses: mean training loss (nats) of each member in each epoch, [K][epochs].
        diverged: whether a member's loss or weights stopped being numbers, [K].
        seconds: the whole fit, wall clock.
        batches: optimiser steps taken, those of the member with the most.
    """

    losses: tuple[tuple[float, ...], ...]
    diverged: tuple[bool, ...]
    seconds: float
    batches: int


def fit(
    cohort: Cohort,
    train: Split,
    *,
    epochs: int,
    batch_size: int = 64,
    optimiser: Optimiser = "adam",
    teacher_logits: Tensor | None = None,
    values: Tensor | None = None,
    hold: Hold | None = None,
    callbacks: Sequence[Callback] = (),
    cancel: Event | None = None,
) -> CohortHistory:
    """Train every network of `cohort` in place; each gets the answer that it would get alone (`training.fit`).

    The loss of a member with temperature T and weight alpha of the soft labels is

        (1 - alpha) CE(y, softmax(z)) + alpha T^2 KL(q || softmax(z / T))      (Hinton et al. 2015, section 2)

    A member that diverges goes on as NaN and touches no other.

    A cohort that is not small is trained in parts, one on each core, that meet after each epoch. Then all networks are
    up to date; between, `on_batch_end` is called for the first part alone, with the mean loss of its members.

    Args:
        cohort: the networks, with their hyper-parameters.
        train: samples to learn from, such as `digits.train`; label -1 (`UNLABELLED`) where a sample has none.
        epochs: passes of each member over its samples, 0 or more.
        batch_size: samples per step, 1 or more. As in `training.fit`, a last batch of one sample is left out.
        optimiser: "adam" (Kingma & Ba 2015, arXiv:1412.6980) or "sgd" with momentum, for all members.
        teacher_logits: [n, n_classes], or [K, n, n_classes] for a teacher each; needed where an alpha is above 0.
        values: [n, outputs]: real numbers to learn by mean squared error, in place of any labels.
        hold: what stays in the weights, biases apart: "zeros", so that what is pruned stays pruned, as in
            `prune.fine_tune`; or "values", so that also what is equal in a layer stays equal, as in
            `compress.share`'s `fine_tune`.
        callbacks: called with the mean loss of the members that had samples and have not diverged.
        cancel: looked at before each batch.

    Raises:
        Cancelled: `cancel` was set; the networks keep the steps taken so far.
        ValueError: an argument out of range, samples that the networks cannot take, teacher logits of another shape
            or missing, or a hyper-parameter that the optimiser does not have.
        MemoryError: too many members for the memory; the message says how many fit.
    """
    check_split("train", train)
    check_steps(epochs, batch_size, optimiser)
    checks.one_of("hold", hold, (None, *get_args(Hold)))
    n_outputs = _check(cohort, train, batch_size, optimiser, teacher_logits, values)
    chunks = _chunks(len(cohort), 1 if cohort.weights.numel() < SMALL_COHORT else cores.count())
    parts = [
        _Part(cohort, own, train, batch_size, optimiser, n_outputs, teacher_logits, values, hold) for own in chunks
    ]
    batches, began = max(part.plan.batches for part in parts), time.perf_counter()
    meeting = Barrier(len(parts))  # after each epoch, where somebody wants to hear of it

    def report(epoch: int, ended: bool, batch: int, losses: Tensor) -> None:
        mean = float(losses[losses.isfinite()].mean())  # NaN where no member has a loss
        progress = Progress(cohort, epoch, epochs, batch, batches, mean, time.perf_counter() - began)
        for callback in callbacks:
            (callback.on_epoch_end if ended else callback.on_batch_end)(progress)

    def train_part(part: _Part) -> None:
        first = part is parts[0]
        try:
            for epoch in range(epochs):
                on_step = partial(report, epoch, False) if first and callbacks else None  # a mean would slow each step
                part.epoch(cancel, f"in epoch {epoch + 1} of {epochs}", on_step)
                if callbacks:
                    part.write_back()
                    meeting.wait()
                    if first:
                        report(epoch, True, batches, torch.cat([each.losses[-1] for each in parts]))
                    meeting.wait()
        except BrokenBarrierError:
            pass  # another part has failed, and says why
        except BaseException:
            meeting.abort()
            raise
        finally:
            part.write_back()

    with cores.one_thread(small=len(parts) > 1 or cohort.weights.numel() < SMALL_MODEL):
        cores.side_by_side([partial(train_part, part) for part in parts])
    curves = torch.cat([torch.stack(part.losses, 1) for part in parts]) if epochs else torch.zeros(len(cohort), 0)
    diverged = ~(curves.isfinite().all(1) & cohort.finite())  # [K]
    seconds = time.perf_counter() - began
    return CohortHistory(tuple(map(tuple, curves.tolist())), tuple(diverged.tolist()), seconds, epochs * batches)


def speed(template: nn.Module, train: Split) -> float:
    """Floating-point operations a second in training, counted as six a weight and sample; it takes a moment.

    Args:
        template: such as `template` makes one. Eight of it are trained, a few times for an epoch; the shortest time
            counts, since other work on the machine only ever adds.
        train: of its first samples a few are used.
    """
    networks, part = Cohort(template, [Member(seed) for seed in range(PROBED)]), train.first(PROBE_SAMPLES)
    took: list[float] = []
    while len(took) < 2 or sum(took) < PROBE_SECONDS:
        took.append(fit(networks, part, epochs=1).seconds)
    return 6 * networks.weights.numel() * len(part) / min(took)


def _chunks(n: int, parts: int) -> list[slice]:
    """As many runs of 0 .. n - 1 of almost one length, at most n of them."""
    ends = [n * at // parts for at in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends) if a < b]


class _Part:
    """Members that take their steps together: all of a cohort, or some, whose weights then lie apart in an epoch."""

    def __init__(
        self,
        cohort: Cohort,
        own: slice,
        train: Split,
        batch_size: int,
        optimiser: Optimiser,
        n_outputs: int,
        teachers: Tensor | None,
        values: Tensor | None,
        hold: Hold | None,
    ) -> None:
        members, self._inputs = cohort.members[own], train.inputs
        self.plan = _Plan(members, cohort.template, train.labels, batch_size)
        self._whole = {name: block[own] for name, block in cohort.blocks().items()}
        row = cohort.weights.detach()
        if len(members) < len(cohort):
            row = torch.cat([block.flatten() for block in self._whole.values()])
            teachers = teachers[own] if teachers is not None and teachers.ndim == 3 else teachers
        self._loss: LabelLoss | ValueLoss  # for mypy: else an object
        self._loss = LabelLoss(members, train.labels, n_outputs, teachers) if values is None else ValueLoss(values)
        self._blocks = cohort.views(row, len(members))
        self._passes = passes(cohort.template, self._blocks)
        self._stepper = Stepper(members, row, [block[0].numel() for block in self._blocks.values()], optimiser)
        self._held = Held(row, list(self._blocks.values()), hold) if hold else None
        self.losses: list[Tensor] = []  # of each epoch, [k]
        self._memory: dict[int, Tensor] = {}  # a batch's serves the next of its size: new memory takes longer

    @torch.no_grad()
    def epoch(self, cancel: Event | None, when: str, on_step: Callable[[int, Tensor], None] | None) -> None:
        """One pass of each member over its samples; its mean loss goes to `losses`."""
        total = torch.zeros(len(self.plan.used))
        for batch, (rows, share, counts) in enumerate(self.plan.epoch(), start=1):
            check_cancel(cancel, f"{when}, before batch {batch}")
            z = self._passes.forward(self._samples(rows), self.plan.dropped(rows.shape[1]))  # [k, C, B]
            each, slope = self._loss(z, rows, share)  # [k], [k, C, B]: the loss and its gradient
            gradient = self._passes.backward(slope)  # [k * P]
            if self._held:
                self._held.project(gradient)
            self._stepper.step(gradient, (counts > 0).numpy().astype(float))
            total += each * counts
            if on_step:
                on_step(batch, each[counts > 0])
        if self._held:
            self._held.level()
        self.losses.append(total / self.plan.used)

    def write_back(self) -> None:
        """Tell the cohort the weights; where the part is all of it, it has them."""
        for whole, block in zip(self._whole.values(), self._blocks.values(), strict=True):
            whole.copy_(block)

    def _samples(self, rows: Tensor) -> Tensor:
        """[k, B] -> [k, B, ...], overwritten by the next call."""
        if rows.numel() not in self._memory:
            self._memory[rows.numel()] = self._inputs.new_empty(rows.numel(), *self._inputs.shape[1:])
        taken = torch.index_select(self._inputs, 0, rows.flatten(), out=self._memory[rows.numel()])
        return taken.unflatten(0, rows.shape)


class _Plan:
    """Which samples each member sees in which step, and which units dropout leaves out."""

    def __init__(self, members: Sequence[Member], template: nn.Module, labels: Tensor, batch_size: int) -> None:
        self._batch_size = batch_size
        parts = [(member.fold, member.folds, member.n_train) for member in members]
        rows = {part: train_rows(member, labels) for part, member in dict(zip(parts, members, strict=True)).items()}
        # Members of one seed and one part of the data see the same samples in the same order.
        orders = [(part, member.order_seed) for part, member in zip(parts, members, strict=True)]
        places = {order: at for at, order in enumerate(dict.fromkeys(orders))}
        self._orders = [(rows[part], torch.Generator().manual_seed(seed)) for part, seed in places]
        self._own = torch.tensor([places[order] for order in orders])  # [K]
        # A last batch of one sample is left out, as in `training.fit`.
        if min(map(len, rows.values())) < min(2, batch_size):
            raise ValueError("train: one training sample cannot make a batch; give each member at least 2.")
        lengths = [len(rows[part]) - (len(rows[part]) % batch_size == 1 and batch_size > 1) for part in parts]
        self.used = torch.tensor(lengths)  # [K]: samples that each member sees in an epoch
        self.batches = -(-max(lengths) // batch_size)
        self._widths = hidden_widths(template)
        self._rates = torch.tensor([member.dropout for member in members])[:, None, None]  # [K, 1, 1]
        seeds = sorted({member.seed for member in members if member.dropout > 0})
        self._rngs = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._seeds = [seeds.index(member.seed) if member.dropout > 0 else 0 for member in members]

    def epoch(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The steps of one epoch: the rows of the samples and their weights in the mean, [K, B]; their number, [K].

        Where a member has no sample, row 0 stands with weight 0.
        """
        orders = [rows[torch.randperm(len(rows), generator=order)] for rows, order in self._orders]
        together = nn.utils.rnn.pad_sequence(orders, batch_first=True)[self._own]  # [K, longest], 0 where none is left
        for start in range(0, int(self.used.max()), self._batch_size):
            counts = (self.used - start).clamp(0, self._batch_size)  # [K]
            rows = together[:, start : start + int(counts.max())]  # [K, B]
            present = torch.arange(rows.shape[1]) < counts[:, None]  # [K, B]
            yield rows, present / counts.clamp(min=1)[:, None], counts

    def dropped(self, batch: int) -> list[Tensor] | None:
        """What multiplies each hidden unit, [K, width, B] a layer: 0, or 1 / (1 - rate). None without dropout.

        Members of one seed draw the same numbers, so that they differ by their hyper-parameters alone.
        """
        if not self._rngs:
            return None
        rngs = self._rngs.values()
        drawn = [torch.stack([torch.rand(width, batch, generator=rng) for rng in rngs]) for width in self._widths]
        return [(each[self._seeds] >= self._rates) / (1 - self._rates) for each in drawn]


def _check(
    cohort: Cohort, train: Split, batch_size: int, optimiser: str, teachers: Tensor | None, values: Tensor | None
) -> int:
    """Refuse what cannot be trained; return the number of outputs of each network."""
    plain = Member()
    for name in ("momentum",) if optimiser == "adam" else ("beta1", "beta2"):
        if any(getattr(member, name) != getattr(plain, name) for member in cohort.members):
            raise ValueError(f"{name}: the optimiser {optimiser!r} has none; leave it at {getattr(plain, name)}.")
    outputs = predict(cohort.template, train.inputs[:1]).shape[1]  # refuses samples of another shape
    if values is None:
        _check_labels(cohort.members, train.labels, outputs, teachers)
    elif tuple(values.shape) != (len(train), outputs):
        raise ValueError(f"values must have shape [{len(train)}, {outputs}]; got {tuple(values.shape)}.")
    name, targets = ("teacher_logits", teachers) if values is None else ("values", values)
    if targets is not None:
        check_finite(name, targets)
    most = min(batch_size, len(train))
    bytes_needed = 3 * most * _saved_bytes(cohort, train)  # as much again for the gradients, and for the loss
    check_memory(f"a batch of {most}", bytes_needed, len(cohort), cohort.memory)
    return int(outputs)


def _check_labels(members: Sequence[Member], labels: Tensor, n_classes: int, teachers: Tensor | None) -> None:
    least, most = min(member.alpha for member in members), max(member.alpha for member in members)
    one = [len(labels), n_classes]
    each = [len(members), *one]
    if teachers is not None and list(teachers.shape) not in (one, each):
        came = tuple(teachers.shape)
        raise ValueError(f"teacher_logits must have shape {one}, or {each} for a teacher each; got {came}.")
    if teachers is None and most > 0:
        raise ValueError(f"teacher_logits is needed: alpha = {most:g} gives the soft labels a share of the loss.")
    if int(labels.max()) >= n_classes or int(labels.min()) < UNLABELLED:
        raise ValueError(f"train labels must lie in 0 .. {n_classes - 1}, or be {UNLABELLED} where unlabelled.")
    if least == 0 and bool((labels == UNLABELLED).all()):
        raise ValueError("train has no labelled sample, and alpha = 0 learns from labels alone; take alpha above 0.")


def _saved_bytes(cohort: Cohort, train: Split) -> int:
    """Bytes that the template's forward pass keeps for its backward pass, for one sample."""
    sizes: list[int] = []
    blocks = {name: block[:1].requires_grad_() for name, block in cohort.blocks().items()}
    own = {block.data_ptr() for block in blocks.values()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits(cohort.template, blocks, train.inputs[None, :1])
    return sum(sizes)
