"""Data sets of arrays: the reader's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from kit import checks
from kit.data.dataset import Dataset, Split, check_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NUMBERED = "names, labels = np.unique(labels, return_inverse=True)"


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
    values, scale = as_inputs(inputs, scale)
    targets, names, parts = in_three(labels, len(values), class_names, validation, test, seed)
    train, chosen, last = (Split(torch.from_numpy(values[rows]), torch.from_numpy(targets[rows])) for rows in parts)
    return Dataset(name, train, chosen, last, names, scale, noun)


def in_three(
    labels: Any, count: int, class_names: Sequence[str] | None, validation: float, test: float, seed: int
) -> tuple[np.ndarray, tuple[str, ...], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels int64 [count], a name for each class, and the rows of the three splits; errors as in `from_arrays`."""
    targets = _as_labels(labels, count)
    checks.number("validation, the share of samples in that split,", validation, above=0)
    checks.number("test, the share of samples in that split,", test, above=0)
    if validation + test >= 1:
        raise ValueError(f"validation + test must stay below 1, to leave samples to train; got {validation + test:g}.")
    names = named(targets, class_names)
    check_labels("labels", targets, len(names))
    counts = np.bincount(targets, minlength=len(names))
    if counts.min() < 3:
        rarest = f"class {counts.argmin()} has {counts.min()} sample(s), too few to stratify"
        raise ValueError(f"labels: {rarest}; each class needs at least 3, one per split, and labels count from 0.")
    rest, last = stratified(targets, np.arange(len(targets)), test, seed)
    train, chosen = stratified(targets, rest, validation / (1 - test), seed)
    return targets, names, (train, chosen, last)


def stratified(labels: np.ndarray, rows: np.ndarray, share: float, seed: int) -> Sequence[np.ndarray]:
    """Some rows of the labels in two, shuffled: the rest, and `share` of each class."""
    try:
        return train_test_split(rows, test_size=share, stratify=labels[rows], random_state=seed)
    except ValueError as error:
        raise ValueError(f"labels: too few samples to stratify {len(labels)} into three splits ({error})") from None


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


def as_inputs(inputs: Any, scale: float | None) -> tuple[np.ndarray, float]:
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


def named(targets: np.ndarray, class_names: Sequence[str] | None) -> tuple[str, ...]:
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
