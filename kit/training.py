"""Fit and evaluate: the ordinary PyTorch loop, with callbacks, cancelling between batches and explicit seeds.

The loop fires callbacks and never draws; a progress bar is a callback like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from kit.data import Dataset, Split

SMALL_MODEL = 1_000_000  # parameters; below, a training step is too short to be shared between threads

Optimiser = Literal["adam", "sgd"]
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs of a batch, rows of its samples -> mean loss
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)


class Cancelled(Exception):  # noqa: N818  (it is news, not an error)
    """Raised between two batches once the `cancel` event is set."""


class Diverged(RuntimeError):  # noqa: N818  (as above)
    """Raised when the training loss is NaN or infinite; the model then holds unusable weights."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands, as callbacks see it.

    Attributes:
        model: the model in training, after its latest step.
        epoch: epochs finished before the present one, from 0.
        epochs: epochs asked for.
        batch: batches finished in the present epoch, from 1.
        batches: batches an epoch.
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


class ProgressBar(Callback):
    """A text bar with time left on standard error; silent where that is not a terminal."""

    def __init__(self) -> None:
        """No bar is drawn before the first batch."""
        self._bar: tqdm | None = None

    def on_batch_end(self, progress: Progress) -> None:
        """Move the bar one batch on."""
        if self._bar is None or (progress.epoch == 0 and progress.batch == 1):  # another fit than the last
            self._close()
            self._bar = tqdm(total=progress.epochs * progress.batches, unit="batch", disable=None)
        self._bar.update()

    def on_epoch_end(self, progress: Progress) -> None:
        """Show the epoch's loss."""
        if self._bar is not None:
            self._bar.set_postfix(epoch=progress.epoch + 1, loss=f"{progress.loss:.3f}")
        if progress.share >= 1:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


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
        correct: samples whose largest logit is the label's.
        total: samples seen.
        loss: mean cross-entropy, nats.
    """

    correct: int
    total: int
    loss: float


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
    callbacks: Sequence[Callback] = (),
    cancel: Event | None = None,
) -> History:
    """Train `model` in place on `dataset.train` by minibatches of cross-entropy.

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes].
        dataset: only its train split is read.
        epochs: passes over the split, 0 or more.
        seed: of the order of the samples.
        lr: learning rate, above 0.
        batch_size: samples a step, 1 or more. A last batch of a single sample is left out of an epoch, since batch
            normalisation cannot take it.
        weight_decay: L2 coefficient, 0 or more.
        optimiser: "adam" (Kingma & Ba 2015, arXiv:1412.6980) or "sgd" (momentum 0.9).
        callbacks: called after each batch and epoch, in order.
        cancel: looked at before each batch.

    Raises:
        Cancelled: `cancel` was set; the model keeps the steps taken so far.
        Diverged: the loss of an epoch is not finite.
        ValueError: an argument out of range, samples or labels that the model cannot take, or no parameter to train.
    """
    check_fits(model, dataset)  # what does not fit is said before any step

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, dataset.train.labels[rows])

    return minimise(
        model,
        dataset.train.inputs,
        loss,
        epochs=epochs,
        seed=seed,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        optimiser=optimiser,
        callbacks=callbacks,
        cancel=cancel,
    )


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
    callbacks: Sequence[Callback] = (),
    cancel: Event | None = None,
) -> History:
    """The loop itself: train `model` in place by minibatches of any loss.

    Args:
        model: maps inputs [b, ...] to outputs [b, ...].
        inputs: what to train on, [n, ...].
        loss: takes the outputs of a batch and the rows of its samples in `inputs` [b]; returns the mean loss.
        epochs: as in `fit`, like the arguments after it.
        seed: of the order of the samples.
        lr: learning rate.
        batch_size: samples a step.
        weight_decay: L2 coefficient.
        optimiser: "adam" or "sgd".
        callbacks: called after each batch and epoch.
        cancel: looked at before each batch.

    Raises:
        As `fit`.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _check_steps(parameters, len(inputs), epochs, lr, batch_size, weight_decay, optimiser)
    stepper: torch.optim.Optimizer
    if optimiser == "adam":
        stepper = torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    else:
        stepper = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    began, steps = time.perf_counter(), 0
    losses: list[float] = []
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL
    with mode(model, training=True), threads(small=small):
        for epoch in range(epochs):
            rows = torch.randperm(len(inputs), generator=generator)
            chunks = [chunk for chunk in rows.split(batch_size) if len(chunk) > 1 or batch_size == 1]
            total, seen = 0.0, 0
            for batch, chunk in enumerate(chunks, start=1):
                if cancel is not None and cancel.is_set():
                    raise Cancelled(f"cancelled in epoch {epoch + 1} of {epochs}, before batch {batch}.")
                now = loss(model(inputs[chunk]), chunk)
                stepper.zero_grad()
                now.backward()
                stepper.step()
                steps += 1
                value = now.item()
                total, seen = total + value * len(chunk), seen + len(chunk)
                if callbacks:
                    seconds = time.perf_counter() - began
                    progress = Progress(model, epoch, epochs, batch, len(chunks), value, seconds)
                    for callback in callbacks:
                        callback.on_batch_end(progress)
            mean = total / seen
            if not mean < float("inf"):
                raise Diverged(f"the training loss became {mean} in epoch {epoch + 1}; try a smaller lr than {lr:g}.")
            losses.append(mean)
            seconds = time.perf_counter() - began
            progress = Progress(model, epoch, epochs, len(chunks), len(chunks), mean, seconds)
            for callback in callbacks:
                callback.on_epoch_end(progress)
    return History(tuple(losses), time.perf_counter() - began, steps)


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 1024, cancel: Event | None = None) -> Evaluation:
    """Count the right answers of `model` on a whole split.

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes]; put in evaluation mode meanwhile.
        split: the samples.
        batch_size: samples a forward pass.
        cancel: looked at between batches.

    Raises:
        Cancelled: `cancel` was set.
        ValueError: the model refuses the inputs, its output is not [n, n_classes], the split is empty, or `batch_size`
            is below 1.
    """
    *_, whole = evaluate_slices(model, split, batch_size=batch_size, cancel=cancel)
    return whole


def evaluate_slices(
    model: nn.Module, split: Split, *, batch_size: int, cancel: Event | None = None
) -> Iterator[Evaluation]:
    """Evaluate slice by slice: after each batch, the counts of all samples so far.

    Splits are shuffled when they are made, so the first slice is a fair sample of the whole.
    Arguments and errors as in `evaluate`.
    """
    check_split("split", split)
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size!r}.")
    if not len(split):
        raise ValueError("split is empty; it needs at least one sample.")
    correct, total, loss = 0, 0, 0.0
    for start in range(0, len(split), batch_size):
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"cancelled after {total} of {len(split)} samples.")
        x, y = split.inputs[start : start + batch_size], split.labels[start : start + batch_size]
        logits = predict(model, x)  # [n, n_classes]
        _check_logits(logits, len(y), int(y.max()) + 1)
        correct += int((logits.argmax(1) == y).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        total += len(y)
        yield Evaluation(correct, total, loss / total)


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of one batch, in evaluation mode, without gradients.

    Raises:
        ValueError: the model cannot take inputs of this shape.
    """
    with mode(model, training=False):
        try:
            return model(inputs)
        except (RuntimeError, ValueError) as error:
            shape = tuple(inputs.shape[1:])
            raise ValueError(
                f"dataset: the model cannot take samples of shape {shape}: {error}{_axes(shape)}"
            ) from error


def check_fits(model: nn.Module, dataset: Dataset) -> None:
    """Refuse a model and a data set that do not fit together, by a forward pass of two samples.

    Raises:
        ValueError: the model cannot take the samples, or does not answer with a logit for each class.
        TypeError: `dataset` is no `Dataset`.
    """
    check_dataset(dataset)
    first = dataset.train.inputs[:2]
    _check_logits(predict(model, first), len(first), dataset.n_classes)


def check_dataset(dataset: Dataset) -> None:
    """Refuse what is no `Dataset`.

    Raises:
        TypeError: as said.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"dataset must be a Dataset, as data.from_arrays(inputs, labels) makes one; got {type(dataset).__name__}."
        )


def check_split(argument: str, split: Split) -> None:
    """Refuse what is no `Split`; `argument` is its name.

    Raises:
        TypeError: as said.
    """
    if not isinstance(split, Split):
        raise TypeError(
            f"{argument} must be one of a data set's splits, such as digits.train; got {type(split).__name__}."
        )


def _axes(shape: tuple[int, ...]) -> str:
    """A hint where the axes of an image look wrong."""
    if len(shape) == 2:
        return " (An image needs a channel axis: [n, channels, height, width]; for grey images inputs[:, None].)"
    if len(shape) == 3 and shape[-1] in (1, 3) and shape[0] > 4:
        return " (Channels come before height and width: [n, channels, height, width].)"
    return ""


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put `model` in training or evaluation mode, and each of its modules back into its own mode at the end."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:  # a part kept in evaluation mode (frozen normalisation) stays so
            module.training = was_training


@contextmanager
def threads(*, small: bool) -> Iterator[None]:
    """One thread for small work: more gain little, and wait for each other where cores are shared."""
    before = torch.get_num_threads()
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_logits(logits: Tensor, n_samples: int, n_classes: int) -> None:
    if logits.ndim != 2 or len(logits) != n_samples or logits.shape[1] < n_classes:
        raise ValueError(
            f"model must answer with logits [{n_samples}, n_classes], n_classes at least {n_classes}; "
            f"got shape {tuple(logits.shape)}."
        )


def _check_steps(
    parameters: Sequence[nn.Parameter],
    n_samples: int,
    epochs: int,
    lr: float,
    batch_size: int,
    weight_decay: float,
    optimiser: str,
) -> None:
    if epochs < 0:
        raise ValueError(f"epochs must be 0 or more; got {epochs!r}.")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be above 0; got {lr!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size!r}.")
    if weight_decay < 0:
        raise ValueError(f"weight_decay must be 0 or more; got {weight_decay!r}.")
    if optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be {' or '.join(map(repr, OPTIMISERS))}; got {optimiser!r}.")
    if n_samples < min(2, batch_size):
        raise ValueError("dataset: one training sample cannot make a batch; give at least 2.")
    if not parameters:
        raise ValueError("model has no parameter to train; at least one must have requires_grad=True.")
