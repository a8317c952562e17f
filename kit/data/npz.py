"""Data sets from a file of arrays, as NumPy writes it."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit.data.arrays import as_inputs, from_arrays
from kit.data.dataset import Dataset, Split

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
    values, _ = as_inputs(images, whole.scale)
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
