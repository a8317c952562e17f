"""Data sets: labelled arrays in three stratified splits.

Train is for fitting, validation for every choice (a ratio, a temperature, a configuration), test for the last
word, read once (`kit.measure.final_test`).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from kit import checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SplitName = Literal["train", "validation", "test"]
LEAST_VALIDATION = 200  # samples of a part: an interval of a few points
NUMBERED = "names, labels = np.unique(labels, return_inverse=True)"


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs with their labels.

    Attributes:
        inputs: tensor [n, ...]; in a `Dataset` float32 and finite.
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
        noun: what words call the samples, in the plural; left empty, "images" for [n, channels, height, width], and
            "samples" for others.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    scale: float = 1.0
    noun: str = ""

    def __post_init__(self) -> None:
        """Refuse splits that do not fit together.

        Raises:
            ValueError: a split is empty, holds NaN or infinity, has labels outside 0 .. n_classes - 1, or its
                samples differ in shape from those of train.
            TypeError: a split that is no `Split`, or a noun that is no text.
        """
        for name in get_args(SplitName):
            split: Split = getattr(self, name)
            checks.instance(name, split, Split)
            x, y, shape = split.inputs, split.labels, tuple(split.inputs.shape[1:])
            for fits, sentence in (
                (len(y), "is empty; every split needs at least one sample"),
                (x.dtype == torch.float32, f"must hold float32 inputs; got {x.dtype}"),
                (not x.requires_grad, "inputs must not require a gradient; give inputs.detach()"),
                (shape == self.input_shape, f"has samples of shape {shape}; those of train are {self.input_shape}"),
                (bool(x.isfinite().all()), "inputs must be finite; some are NaN or infinity"),
            ):
                if not fits:
                    raise ValueError(f"{name} {sentence}.")
            _check_labels(f"{name} labels", y, self.n_classes)
        checks.instance("noun", self.noun, str, "a text")
        if not self.noun:
            object.__setattr__(self, "noun", "images" if self.train.inputs.ndim == 4 else "samples")

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
        """One line: name, shape, classes, the size of each split, and what the inputs were divided by, if not by 1."""
        scaled = f", inputs divided by {self.scale:g}" if self.scale != 1 else ""
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return (
            f"Dataset({self.name}: {'x'.join(map(str, self.input_shape))}, {self.n_classes} classes, {sizes}{scaled})"
        )


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


def digits(seed: int = 0) -> Dataset:
    """The 1797 handwritten digits that ship with scikit-learn: 1 x 8 x 8 images, ten classes, no download.

    Half of them train, 30 % validate (wide enough for intervals of about one point), 20 % test.

    Inputs are [n, 1, 8, 8] in 0 .. 1; `seed` says which stratified split to draw.

    Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI ML Repository.
    """
    images, labels = load_digits(return_X_y=True)
    pixels = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16.0  # pixel counts 0 .. 16 in the source
    return from_arrays(pixels, labels, name="digits", validation=0.3, test=0.2, seed=seed)


def from_arrays(
    inputs: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    name: str = "yours",
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    scale: float | None = None,
    noun: str = "",
) -> Dataset:
    """A data set from the reader's own arrays, shuffled and split so that each split has the same class shares.

    Args:
        inputs: [n, ...] numbers, finite; images as [n, channels, height, width].
        labels: [n] whole numbers 0 .. n_classes - 1, each class there. np.unique(labels, return_inverse=True) makes
            names and such numbers of any labels, `labels.argmax(1)` makes them of one-hot rows.
        name: as in `Dataset`.
        validation: share of the samples that validate, above 0.
        test: share of the samples that test, above 0; `validation + test` below 1.
        seed: which stratified split to draw.
        class_names: one name a class; by default the label numbers.
        scale: what the inputs are divided by; it is kept as `Dataset.scale`, and shown. By default 255 for whole
            numbers of any dtype in 0 .. 255, some above 1, in images ([n, height, width] or with channels), which
            then lie in 0 .. 1; 1 for everything else, such as floats, or rows of token ids. Pixels in flat rows
            need scale=255.
        noun: as in `Dataset`, such as "texts".

    Raises:
        ValueError: shapes that do not match, NaN or infinity, labels out of range or of one class only, shares out of
            range, or a class with too few samples to be in all three splits.
        TypeError: inputs or labels that are not numbers, or an argument of another type.
    """
    checks.instance("name", name, str, "a text")
    checks.instance("noun", noun, str, "a text")
    checks.whole("seed", seed, 0, 2**32 - 1)
    values, scale = _as_inputs(inputs, scale)
    targets = _as_labels(labels, len(values))
    checks.number("validation, the share of samples in that split,", validation, above=0)
    checks.number("test, the share of samples in that split,", test, above=0)
    if validation + test >= 1:
        raise ValueError(f"validation + test must stay below 1, to leave samples to train; got {validation + test:g}.")
    names = _named(targets, class_names)
    _check_labels("labels", targets, len(names))
    counts = np.bincount(targets, minlength=len(names))
    if counts.min() < 3:
        rarest = f"class {counts.argmin()} has {counts.min()} sample(s), too few to stratify"
        raise ValueError(f"labels: {rarest}; each class needs at least 3, one per split, and labels count from 0.")

    def cut(rows: np.ndarray, size: float) -> list[np.ndarray]:
        return train_test_split(rows, test_size=size, stratify=targets[rows], random_state=seed)

    try:
        rest, test_rows = cut(np.arange(len(targets)), test)
        parts = [*cut(rest, validation / (1 - test)), test_rows]
    except ValueError as error:
        raise ValueError(f"labels: too few samples to stratify {len(targets)} into three splits ({error})") from None
    train, chosen, last = (Split(torch.from_numpy(values[rows]), torch.from_numpy(targets[rows])) for rows in parts)
    return Dataset(name, train, chosen, last, names, scale, noun)


def _as_array(argument: str, values: Any) -> np.ndarray:
    dense = "to_dense" if isinstance(values, Tensor) and values.layout != torch.strided else "toarray"
    if hasattr(values, dense):
        raise TypeError(f"{argument} must be a dense array of numbers; give {argument}.{dense}().")
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            return (values.float() if values.is_floating_point() else values).numpy()
        if isinstance(values, np.ma.MaskedArray):
            return np.ma.filled(values.astype(float), np.nan)  # what is masked is missing
        return np.asarray(values)
    except (ValueError, RuntimeError) as error:  # rows of different lengths, tensors in a list that want gradients
        reason = " ".join(str(error).split())
        raise TypeError(f"{argument} must be an array of numbers, every row as long as the others: {reason}") from None


def _as_inputs(inputs: Any, scale: float | None) -> tuple[np.ndarray, float]:
    """The inputs, divided: float32, in rows, one after the other; and what they were divided by."""
    array = _as_array("inputs", inputs)
    if array.dtype.kind not in "fiub":
        way = "inputs.astype(float) makes them, where each is one"
        raise TypeError(f"inputs must be an array of numbers; got dtype {array.dtype} ({way}).")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"inputs must have shape [n, ...] with at least one sample; got shape {array.shape}.")
    if scale is None:
        pixels = array.dtype.kind in "iu" and array.ndim in (3, 4) and array.min() >= 0 and 1 < array.max() <= 255
        scale = 255.0 if pixels else 1.0
    checks.number("scale", scale, above=0)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinity, which is refused
        values = np.ascontiguousarray(array, np.float32) / np.float32(scale)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).reshape(len(values), -1).any(1).sum())
        raise ValueError(f"inputs must be finite; {bad} of {len(values)} samples hold NaN or infinity.")
    return values, float(scale)


def _as_labels(labels: Any, n_samples: int) -> np.ndarray:
    array = _as_array("labels", labels)
    if array.ndim != 1 or len(array) != n_samples:
        rows = array.ndim == 2 and len(array) == n_samples
        way = "labels.argmax(1) of one-hot rows" if rows and array.shape[1] > 1 else "np.ravel(labels)"
        way = f" ({way} is.)" if rows else ""
        raise ValueError(f"labels must have shape [{n_samples}], one for each input; got shape {array.shape}.{way}")
    odd = array[~((np.abs(array) < 2**53) & (array == np.floor(array)))] if array.dtype.kind == "f" else array
    if array.dtype.kind not in "iub" and len(odd):
        way = "" if array.dtype.kind == "f" else f"; {NUMBERED} makes them"
        raise TypeError(f"labels must be whole numbers; got dtype {array.dtype}, such as {odd.tolist()[0]!r}{way}.")
    return array.astype(np.int64)


def _named(targets: np.ndarray, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """A name for each class; refuses a single class, and gaps between labels that nobody named."""
    found = np.unique(targets)
    if len(found) == 1:
        raise ValueError(f"labels must be of two classes or more; all {len(targets)} are {found[0]}.")
    if class_names is None:
        if found[0] >= 0 and found[-1] >= len(found):
            came = f"{', '.join(map(str, found[:8]))}{', ...' * (len(found) > 8)}"
            raise ValueError(f"labels must count from 0 without a gap ({NUMBERED} makes them so); got {came}.")
        return tuple(map(str, range(max(0, int(found[-1])) + 1)))
    if isinstance(class_names, str) or not isinstance(class_names, Iterable):
        raise TypeError(f"class_names must be a list of texts, one a class; got {class_names!r}.")
    names = tuple(map(str, class_names))
    if len(set(names)) < len(names):
        raise ValueError(f"class_names must differ from one another; got {', '.join(names)}.")
    return names


def _check_labels(argument: str, labels: Any, n_classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{argument} must lie in 0 .. {n_classes - 1}; got values from {low} to {high}.")


# What arrays in files are called, in small letters; where there are parts, with their name before or after it.
_ROLES = {"inputs": ("inputs", "images", "x", "data"), "labels": ("labels", "y", "targets", "target")}
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


def from_npz(
    path: str | os.PathLike[str], *, inputs: str | None = None, labels: str | None = None, **settings: Any
) -> Dataset:
    """A data set from a file of arrays, as np.savez(path, inputs=..., labels=...) writes it. Never unpickles.

    | in the file | becomes |
    |---|---|
    | `inputs` (or images, x, data) and `labels` (or y, targets) | three splits, as `from_arrays` makes them |
    | parts, such as `x_train`, `y_train`, `x_test`, `y_test`; also with val | these splits; without val, half of test |
    | images [n, height, width, channels], 1, 3 or 4 channels | [n, channels, height, width] |
    | images [n, height, width], square or in bytes | [n, 1, height, width] |
    | labels [n, 1], one-hot rows, or texts | [n] whole numbers; texts become class names |

    Args:
        path: of the file.
        inputs: the array's name, where it has another.
        labels: likewise.
        **settings: as in `from_arrays`; `name` is that of the file. No `validation` and `test` where there are parts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no .npz file or a damaged one, arrays of Python objects, arrays that are not there (says which are);
            and as for `from_arrays`.
        TypeError: as for `from_arrays`.
    """
    parts = _read_parts(Path(path), inputs, labels)
    if len(shapes := {x.shape[1:] for x, _ in parts.values()}) > 1:
        raise ValueError(
            f"path {path}: samples of all parts must have one shape; got {' and '.join(map(str, shapes))}."
        )
    images, numbers = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    settings = {"name": Path(path).stem, **settings}
    if numbers.dtype.kind in "US":
        texts, numbers = np.unique(numbers.astype(str), return_inverse=True)
        settings = {"class_names": texts.tolist(), **settings}
    if len(parts) > 1 and {"validation", "test"} & settings.keys():
        raise TypeError(f"validation and test are shares of a whole; {path} has parts of its own: {', '.join(parts)}.")
    whole = from_arrays(images, numbers, **settings)
    if len(parts) == 1:
        return whole
    values, _ = _as_inputs(images, whole.scale)
    ends = np.cumsum([len(part) for part, _ in parts.values()])
    rows = dict(zip(parts, np.split(np.arange(len(values)), ends[:-1]), strict=True))
    if "validation" not in rows:
        rows |= {"validation": rows["test"][::2], "test": rows["test"][1::2]}
    every = Split(torch.from_numpy(values), torch.from_numpy(numbers.astype(np.int64)))
    splits: dict[str, Any] = {part: Split(every.inputs[at], every.labels[at]) for part, at in rows.items()}
    return replace(whole, **splits)


def _read_parts(path: Path, inputs: str | None, labels: str | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and labels of each part of the file, or of "", the whole, in the forms that `from_arrays` takes."""
    if not path.is_file():
        raise FileNotFoundError(f"path {path} is no file: give that of an .npz file, as np.savez writes it.")
    damaged = ValueError(
        f"path {path} is no .npz file, or it is damaged; np.savez(path, inputs=..., labels=...) writes one."
    )
    if not zipfile.is_zipfile(path):
        raise damaged
    parts = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for part, pair in _names_of(path, file.files, inputs, labels).items():
                x, y = (np.asarray(file[name]) for name in pair)
                if x.ndim < 2 or len(x) != len(y):
                    came = f"{pair[0]} has shape {x.shape}, {pair[1]} {y.shape}"
                    raise ValueError(f"path {path}: inputs [n, ...] and labels [n] must be equally long; {came}.")
                parts[part] = _channels_first(x), _one_each(y)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise damaged from error
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        way = "make it one of numbers or texts, such as np.stack(rows) or array.astype(str)"
        raise ValueError(f"path {path}: an array holds Python objects, and the kit never unpickles; {way}.") from None
    return parts


def _names_of(path: Path, there: Sequence[str], inputs: str | None, labels: str | None) -> dict[str, tuple[str, str]]:
    """The names of inputs and labels of each part: train, perhaps validation, and test; or of "", the whole."""
    called: dict[tuple[str, str], list[str]] = {}
    for name in there:
        words = name.lower().split("_")
        rest = "_".join(word for word in words if word not in _PARTS)
        part = next((_PARTS[word] for word in words if word in _PARTS), "")
        for role, names in _ROLES.items():
            if rest in names:
                called.setdefault((part, role), []).append(name)
    for role, given in ("inputs", inputs), ("labels", labels):
        if given is not None:
            called["", role] = [given] * (given in there)
    pairs = {part: [called.get((part, role), []) for role in _ROLES] for part in ("", "train", "validation", "test")}
    found = {part: (x[0], y[0]) for part, (x, y) in pairs.items() if len(x) == len(y) == 1}
    if "" in found or len(found) == 1:
        return {"": found.get("") or next(iter(found.values()))}
    if not {"train", "test"} <= found.keys():
        wanted = f"inputs ({inputs or 'or images, x, data'}) and labels ({labels or 'or y, targets'}), one of each"
        way = "from_npz(path, inputs=..., labels=...) takes other names"
        raise ValueError(f"path {path} must hold {wanted}; there are {', '.join(there) or 'none'} ({way}).")
    return found


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Images with their channels where a convolution wants them; all else as it is."""
    counts = (1, 3, 4)
    if x.ndim == 4 and x.shape[3] in counts and x.shape[1] not in counts:
        return np.moveaxis(x, 3, 1)
    return x[:, None] if x.ndim == 3 and (x.dtype == np.uint8 or x.shape[1] == x.shape[2]) else x


def _one_each(y: np.ndarray) -> np.ndarray:
    """Labels [n] of columns [n, 1] and of one-hot rows [n, classes]; all else as it is."""
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    one_hot = y.ndim == 2 and y.dtype.kind in "fiub" and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())
    return y.argmax(1) if one_hot else y
