"""Labelled samples in three splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from kit import checks

SplitName = Literal["train", "validation", "test"]
LEAST_VALIDATION = 200  # samples of a part: an interval of a few points


class Tokens(Protocol):
    """What turns texts into ids of tokens: `data.Words`, `data.Bytes`, or that of a pretrained model. Id 0 pads."""

    @property
    def size(self) -> int:
        """How many ids there are: they lie in 0 .. size - 1."""

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids int64 [n, length]; longer texts are cut, shorter ones padded with 0 at the end."""

    def decode(self, ids: Tensor) -> str:
        """The text of one row of ids [length], as far as the ids tell it."""


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs with their labels.

    Attributes:
        inputs: tensor [n, ...]; in a `Dataset` float32 and finite, or int64 ids of tokens [n, length].
        labels: int64 tensor [n], each in 0 .. n_classes - 1; or -1 for the unlabelled samples of a transfer set.

    Raises:
        ValueError: labels of another shape or length.
        TypeError: inputs or labels that are no tensors, or labels that are not int64.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse inputs and labels that are not one pair a sample."""
        for name, tensor in (("inputs", self.inputs), ("labels", self.labels)):
            checks.instance(name, tensor, Tensor, "a tensor (torch.as_tensor makes one of an array)")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64 (labels.long()); got {self.labels.dtype}.")
        if self.labels.ndim != 1 or self.inputs.shape[:1] != self.labels.shape:
            came = f"inputs {tuple(self.inputs.shape)} and labels {tuple(self.labels.shape)}"
            raise ValueError(f"inputs and labels must be [n, ...] and [n], one label a sample; got {came}.")

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __repr__(self) -> str:
        """One line: how many samples, of which shape."""
        return f"Split({len(self)} samples of {'x'.join(map(str, self.inputs.shape[1:]))})"

    def first(self, count: int) -> Split:
        """The first `count` samples (all of them when there are fewer)."""
        return Split(self.inputs[:count], self.labels[:count])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set in three splits.

    Attributes:
        name: how plots and the board call it.
        train, validation, test: the samples to fit on, to choose on, and for the last word.
        class_names: one name a class, in label order.
        scale: what the inputs were divided by when the set was made (see `from_arrays`).
        noun: what words call the samples, in the plural; left empty, "texts" where there are tokens, "images" for
            [n, channels, height, width], and "samples" for others.
        tokens: what made ids of texts; then inputs are such ids. None for numbers.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    scale: float = 1.0
    noun: str = ""
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        """Refuse splits that do not fit together.

        Raises:
            ValueError: a split is empty, holds NaN or infinity or ids that its tokens do not have, has labels outside
                0 .. n_classes - 1, or its samples differ in shape from those of train.
            TypeError: a split that is no `Split`, or a noun that is no text.
        """
        wanted = torch.float32 if self.tokens is None else torch.int64
        for name in get_args(SplitName):
            split: Split = getattr(self, name)
            checks.instance(name, split, Split)
            x, y, shape = split.inputs, split.labels, tuple(split.inputs.shape[1:])
            for fits, sentence in (
                (len(y), "is empty; every split needs at least one sample"),
                (x.dtype == wanted, f"must hold {wanted} inputs; got {x.dtype}".replace("hold torch.", "hold ")),
                (self.tokens is None or x.ndim == 2, f"must hold ids [n, length]; got shape {tuple(x.shape)}"),
                (not x.requires_grad, "inputs must not require a gradient; give inputs.detach()"),
                (shape == self.input_shape, f"has samples of shape {shape}; those of train are {self.input_shape}"),
                (bool(x.isfinite().all()), "inputs must be finite; some are NaN or infinity"),
            ):
                if not fits:
                    raise ValueError(f"{name} {sentence}.")
            if self.tokens is not None and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < self.tokens.size:
                came = f"got ids from {int(x.min())} to {int(x.max())}"
                raise ValueError(f"{name} inputs must be ids in 0 .. {self.tokens.size - 1}, those of tokens; {came}.")
            check_labels(f"{name} labels", y, self.n_classes)
        checks.instance("noun", self.noun, str, "a text")
        if not self.noun:
            noun = "texts" if self.tokens is not None else "images" if self.train.inputs.ndim == 4 else "samples"
            object.__setattr__(self, "noun", noun)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without the batch dimension."""
        return tuple(self.train.inputs.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when any sample, label or split changes."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(str(tuple(split.inputs.shape)).encode())
            digest.update(split.inputs.numpy().tobytes() + split.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def key(self) -> str:
        """Name and fingerprint: equal only for the same samples in the same splits; what the board compares within."""
        return f"{self.name} {self.fingerprint[:8]}"

    def part(self, count: int) -> Dataset:
        """A smaller one: `count` training samples, and as large a share of the validation samples, but at least 200.

        Classes keep their proportions, the samples their order; itself where there are no more. Test stays as it is.

        Raises:
            ValueError: a count below 1.
            TypeError: a count that is no whole number.
        """
        trained, scored = self.sizes_of(checks.whole("count", count, 1))
        if trained == len(self.train):
            return self
        return replace(self, train=_part(self.train, trained), validation=_part(self.validation, scored))

    def sizes_of(self, count: int) -> tuple[int, int]:
        """Samples of the train and of the validation split in `part(count)`."""
        share = -(-count * len(self.validation) // len(self.train))
        return min(count, len(self.train)), min(max(share, LEAST_VALIDATION), len(self.validation))

    def __repr__(self) -> str:
        """One line: name, shape, classes, the size of each split, a divisor that is not 1, how many texts are full."""
        shape, more = "x".join(map(str, self.input_shape)), ""
        if self.tokens is not None:  # what fills its row may have been cut
            full = 100 * float((self.train.inputs[:, -1] != 0).float().mean())
            shape, more = f"{shape} ids of {self.tokens.size}", f", {full:.0f} % of them full or cut"
        elif self.scale != 1:
            more = f", inputs divided by {self.scale:g}"
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"Dataset({self.name}: {shape}, {self.n_classes} classes, {sizes}{more})"


def _part(split: Split, count: int) -> Split:
    """The first of each class, in the proportions of all; the whole split where it has no more."""
    if count >= len(split):
        return split
    places = torch.empty(len(split))  # of each sample in its class, 0 .. 1
    for label in split.labels.unique():
        rows = (split.labels == label).nonzero()[:, 0]
        places[rows] = (torch.arange(len(rows)) + 0.5) / len(rows)
    rows = places.argsort(stable=True)[:count].sort().values
    return Split(split.inputs[rows], split.labels[rows])


def check_labels(argument: str, labels: Any, n_classes: int) -> None:
    """Refuse labels outside 0 .. n_classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{argument} must lie in 0 .. {n_classes - 1}; got values from {low} to {high}.")
