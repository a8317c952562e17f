"""Fit and evaluate: the ordinary PyTorch loop, with callbacks, cancelling between batches and explicit seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, cores
from kit.data import Dataset, Split
from kit.inference import Cancelled as Cancelled
from kit.inference import are_probabilities as are_probabilities
from kit.inference import ask, check_cancel, mode, predict
from kit.inference import batch_for as batch_for
from kit.inference import copy_of as copy_of
from kit.inference import has_statistics as has_statistics
from kit.inference import interruptible as interruptible
from kit.inference import is_small as is_small
from kit.inference import pace_of as pace_of
from kit.inference import renew_statistics as renew_statistics

Optimiser = Literal["adam", "sgd"]
Schedule = Literal["constant", "one-cycle"]
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs of a batch, rows of its samples -> mean loss
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)

_turn = Lock()  # of the fit that uses the global generator


class Diverged(RuntimeError):  # noqa: N818  (it is news, not an error)
    """Raised when training left the finite numbers: a loss, weights or a slope through it are NaN or infinite.

    A model that was being trained then holds unusable weights.
    """


@dataclass(frozen=True)
class Progress:
    """Where a fit stands, as callbacks see it.

    Attributes:
        model: the model in training, after its latest step.
        epoch: epochs finished before the present one, from 0.
        epochs: epochs asked for.
        batch: batches finished in the present epoch, from 1.
        batches: batches per epoch.
        loss: mean cross-entropy (nats) of the latest batch; at an epoch's end, of the epoch.
        seconds: since the fit began.
    """

    model: nn.Module
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    seconds: float

    @property
    def share(self) -> float:
        """Work done, 0 .. 1."""
        return (self.epoch * self.batches + self.batch) / (self.epochs * self.batches)

    @property
    def seconds_left(self) -> float:
        """Time left at the pace so far."""
        return self.seconds * (1 - self.share) / self.share


class Callback:
    """What a fit calls as it goes. Override what you need; exceptions stop the fit."""

    def on_batch_end(self, progress: Progress) -> None:
        """After each optimiser step."""

    def on_epoch_end(self, progress: Progress) -> None:
        """After each epoch."""


@dataclass(frozen=True)
class History:
    """What a fit leaves behind.

    Attributes:
        losses: mean training loss of each epoch: for `fit` the cross-entropy, nats.
        seconds: the whole fit, wall clock.
        batches: optimiser steps taken.
    """

    losses: tuple[float, ...]
    seconds: float
    batches: int


@dataclass(frozen=True)
class Evaluation:
    """Counts of one pass over (part of) a split.

    Attributes:
        correct: samples whose largest logit is the label's, and whose logits are all finite.
        total: samples seen.
        loss: mean cross-entropy, nats; NaN or infinite where an answer is.
        nonfinite: samples whose answer holds NaN or infinity.
        probabilities: whether all answers are such, not logits: then the loss is wrong.
    """

    correct: int
    total: int
    loss: float
    nonfinite: int = 0
    probabilities: bool = False

    @property
    def broken(self) -> str:
        """In words: `answers NaN or infinity for 512 of 540 samples`; empty where all answers are finite."""
        return in_words(self.nonfinite, self.total)


def in_words(nonfinite: int, total: int) -> str:
    """What `Evaluation.broken` says."""
    return f"answers NaN or infinity for {nonfinite:,} of {total:,} samples" if nonfinite else ""


def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    seed: int = 0,
    lr: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    optimiser: Optimiser = "adam",
    schedule: Schedule = "constant",
    callbacks: Sequence[Callback] = (),
    cancel: Event | None = None,
) -> History:
    """Train `model` in place on `dataset.train` by minibatches of cross-entropy.

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes], in any way that `predict` takes. Batch normalisation that
            is frozen keeps its statistics: a layer in evaluation mode while the model is in training mode, or in
            evaluation mode with its own weights frozen (requires_grad=False).
        dataset: only its train split is read.
        epochs: passes over the split, 0 or more.
        seed: of the order of the samples, and of dropout; 0 or more. The global generator stays where it is.
        lr: learning rate, above 0.
        batch_size: samples per step, 1 or more. A last batch of a single sample is left out of an epoch, since batch
            normalisation cannot take it.
        weight_decay: L2 coefficient, 0 or more.
        optimiser: "adam" (Kingma & Ba 2015, arXiv:1412.6980) or "sgd" (momentum 0.9).
        schedule: of the learning rate: "constant", or "one-cycle", which climbs from `lr` / 25 to `lr` in the first
            three tenths of the steps and falls to nearly 0 at the end (Smith & Topin 2017, arXiv:1708.07120); the
            momentum of "sgd", or the first beta of "adam", moves the other way between 0.85 and 0.95.
        callbacks: called after each batch and epoch, in order.
        cancel: looked at before each batch.

    Raises:
        Cancelled: `cancel` was set; the model keeps the steps taken so far.
        Diverged: the loss of an epoch is not finite.
        ValueError: an argument out of range, samples or labels that the model cannot take, or no parameter to train.
        TypeError: an argument of another kind.
    """
    check_fits(model, dataset)  # refused before any step is taken

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, dataset.train.labels[rows])

    steps: dict[str, Any] = {"lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    steps |= {"optimiser": optimiser, "schedule": schedule}
    run: dict[str, Any] = {"epochs": epochs, "seed": seed, "callbacks": callbacks, "cancel": cancel}
    return minimise(model, dataset.train.inputs, loss, **run, **steps)


def minimise(
    model: nn.Module,
    inputs: Tensor,
    loss: Loss,
    *,
    epochs: int,
    seed: int = 0,
    lr: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    optimiser: Optimiser = "adam",
    schedule: Schedule = "constant",
    callbacks: Sequence[Callback] = (),
    cancel: Event | None = None,
) -> History:
    """The loop of `fit`, with its arguments and errors, on inputs [n, ...] and for any loss.

    `loss` takes the model's outputs for a batch, and the rows of its samples in `inputs` [b]; it returns the mean loss.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    checks.instance("inputs", inputs, Tensor, "a tensor [n, ...]")
    epochs, batch_size = check_steps(epochs, batch_size, optimiser)
    checks.one_of("schedule", schedule, get_args(Schedule))
    seed, lr = checks.whole("seed", seed), checks.number("lr", lr, above=0)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    if len(inputs) < min(2, batch_size):
        raise ValueError("dataset: one training sample cannot make a batch; give at least 2.")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model has no parameter to train; at least one must have requires_grad=True.")
    kind: Any = torch.optim.Adam if optimiser == "adam" else partial(torch.optim.SGD, momentum=0.9)
    stepper = kind(parameters, lr=lr, weight_decay=weight_decay)
    generator, step = torch.Generator().manual_seed(seed), drawing(seed)
    cycle = None
    if schedule == "one-cycle" and epochs:
        batches = math.ceil(len(inputs) / batch_size) - (len(inputs) % batch_size == 1 < batch_size)
        cycle = torch.optim.lr_scheduler.OneCycleLR(stepper, lr, total_steps=epochs * batches)
    began, steps, losses = time.perf_counter(), 0, []

    def progress(epoch: int, batch: int, batches: int, loss: float) -> Progress:
        return Progress(model, epoch, epochs, batch, batches, loss, time.perf_counter() - began)

    with mode(model, training=True), cores.one_thread(small=is_small(model)), _let_go(stepper):
        for epoch in range(epochs):
            rows = torch.randperm(len(inputs), generator=generator)
            chunks = [chunk for chunk in rows.split(batch_size) if len(chunk) > 1 or batch_size == 1]
            total, seen = 0.0, 0
            for batch, chunk in enumerate(chunks, start=1):
                check_cancel(cancel, when := f"in epoch {epoch + 1} of {epochs}, before batch {batch}")
                with step(), interruptible(model, cancel, f"{when} was done"):
                    now = loss(ask(model, inputs[chunk]), chunk)
                    stepper.zero_grad()
                    now.backward()
                stepper.step()
                if cycle is not None:
                    cycle.step()
                steps, value = steps + 1, now.item()
                total, seen = total + value * len(chunk), seen + len(chunk)
                for callback in callbacks:
                    callback.on_batch_end(progress(epoch, batch, len(chunks), value))
            mean = total / seen
            if not mean < float("inf"):
                raise Diverged(f"the training loss became {mean} in epoch {epoch + 1}; try a smaller lr than {lr:g}.")
            losses.append(mean)
            for callback in callbacks:
                callback.on_epoch_end(progress(epoch, len(chunks), len(chunks), mean))
    return History(tuple(losses), time.perf_counter() - began, steps)


@contextmanager
def _let_go(stepper: torch.optim.Optimizer) -> Iterator[None]:
    """At the end: gradients and moments are several times as large as the model, and an optimiser is in a cycle."""
    try:
        yield
    finally:
        stepper.zero_grad()
        stepper.state.clear()


def drawing(seed: int) -> Callable[[], AbstractContextManager[None]]:
    """What surrounds each step of a fit, so that dropout draws by `seed`: PyTorch's can only draw globally.

    The global generator is put back after each step, not after the fit: a fit may run beside the notebook, which seeds
    and draws on its own. Fits of several threads take turns. A model that draws nothing in its first step is let go.
    """
    state, draws = torch.Generator().manual_seed(seed).get_state(), True

    @contextmanager
    def step() -> Iterator[None]:
        nonlocal state, draws
        if not draws:
            yield
            return
        with _turn:
            outside = torch.get_rng_state()
            torch.set_rng_state(state)
            try:
                yield
            finally:
                before, state = state, torch.get_rng_state()
                torch.set_rng_state(outside)
        draws = not torch.equal(before, state)

    return step


def evaluate(
    model: nn.Module, split: Split, *, batch_size: int | None = None, cancel: Event | None = None
) -> Evaluation:
    """Count the right answers of `model` on a whole split.

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes], in any way that `predict` takes; put in evaluation mode
            meanwhile.
        split: the samples.
        batch_size: samples per forward pass, 1 or more; where None, what proves fastest as it goes (`inference.Pace`).
        cancel: looked at between batches.

    Raises:
        Cancelled: `cancel` was set.
        ValueError: the model refuses the inputs, its answer holds no logits [n, n_classes], or the split is empty.
        TypeError: an argument of another kind.
    """
    *_, whole = evaluate_slices(model, split, batch_size=batch_size, cancel=cancel)
    return whole


def evaluate_slices(
    model: nn.Module, split: Split, *, batch_size: int | None = None, cancel: Event | None = None
) -> Iterator[Evaluation]:
    """Evaluate slice by slice: after each batch, the counts of all samples so far; arguments, errors as in `evaluate`.

    Splits are shuffled when they are made, so the first slice is a fair sample of the whole.
    """
    check_split("split", split)
    size = 0 if batch_size is None else checks.whole("batch_size", batch_size, 1)
    pace = None if size else pace_of(model, split.inputs)
    correct, total, loss, nonfinite, probabilities = 0, 0, 0.0, 0, True
    while total < len(split):
        check_cancel(cancel, when := f"after {total} of {len(split)} samples")
        rows = slice(total, total + (pace.size(len(split)) if pace else size))
        x, y = split.inputs[rows], split.labels[rows]
        with interruptible(model, cancel, when):
            logits = (pace.predict if pace else predict)(model, x)  # [b, n_classes]
        _check_logits(logits, len(y), int(y.max()) + 1)
        finite = logits.isfinite().all(1)  # [b]; the largest of NaNs would be class 0
        correct += int(((logits.argmax(1) == y) & finite).sum())
        nonfinite += int((~finite).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        total += len(y)
        probabilities = probabilities and are_probabilities(logits)
        yield Evaluation(correct, total, loss / total, nonfinite, probabilities)


def chance(labels: Tensor) -> float:
    """Share of right answers that a guess reaches: always naming the class that is most frequent in labels [n]."""
    return float(labels.bincount().max()) / len(labels)


def check_fits(model: nn.Module, dataset: Dataset) -> None:
    """Refuse anything but a `Dataset` (TypeError) whose samples the model takes to a logit a class (ValueError)."""
    check_dataset(dataset)
    first = dataset.train.inputs[:2]
    _check_logits(predict(model, first), len(first), dataset.n_classes)


def check_dataset(dataset: Dataset) -> None:
    """Refuse anything but a `Dataset`, by a TypeError."""
    checks.instance("dataset", dataset, Dataset, "a Dataset, as data.from_arrays(inputs, labels) makes one")


def check_split(argument: str, split: Split) -> None:
    """Refuse anything but a `Split` (by a TypeError) with samples (by a ValueError); `argument` is its name."""
    checks.instance(argument, split, Split, "one of a data set's splits, such as digits.train")
    if not len(split):
        raise ValueError(f"{argument} is empty; it needs at least one sample.")


def _check_logits(logits: Tensor, n_samples: int, n_classes: int) -> None:
    if logits.ndim != 2 or len(logits) != n_samples or logits.shape[1] < n_classes:
        wanted = f"logits [{n_samples}, n_classes], n_classes at least {n_classes}"
        raise ValueError(f"model must answer with {wanted}; got shape {tuple(logits.shape)}.")


def check_steps(epochs: int, batch_size: int, optimiser: str) -> tuple[int, int]:
    """Refuse passes and steps that no fit can take, by a TypeError or ValueError; return epochs and batch size."""
    checks.one_of("optimiser", optimiser, OPTIMISERS)
    return checks.whole("epochs", epochs), checks.whole("batch_size", batch_size, 1)
