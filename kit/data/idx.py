"""Data sets from IDX files, the form in which MNIST and Fashion-MNIST are given out."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kit import checks
from kit.data.arrays import as_inputs, named, stratified
from kit.data.dataset import Dataset, Split

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MD5 = {  # of what each file holds, unpacked: who packed it, and how, does not count
    "mnist-70k": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
BLOCK = 2**20  # bytes read at once


def from_idx(
    folder: str | os.PathLike[str],
    *,
    checked: bool = True,
    name: str | None = None,
    validation: float = 1 / 6,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The 70,000 images of MNIST, or of Fashion-MNIST, from a folder that holds their four files.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and both with t10k in place of train; packed
    (.gz) or not, and with a dot before idx where some have it. The train files make the train and the validation split,
    with equal class shares; those of t10k are the test split. Inputs are [n, 1, height, width] in 0 .. 1.

    The MD5 sums of the unpacked files say which set it is. (Sums that are published for .gz files are others.)

    Args:
        folder: where the files are.
        checked: refuse what is neither MNIST nor Fashion-MNIST. False takes all that has this form, such as your own
            images; then nothing tells whether a file has changed on its way.
        name: as in `Dataset`; by default "mnist-70k" or "fashion-mnist", for other files the name of the folder.
        validation: share of the train files that validates, above 0 and below 1.
        seed: which stratified split to draw.
        class_names: one name a class; by default those of the set, for other files the label numbers.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: a file of another form, a damaged one, or, where `checked`, an unknown one; images and labels of
            different number; a share out of range; labels as for `from_arrays`.
        TypeError: an argument of another type.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (its page gives the format);
        H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747.
    """
    checks.instance("checked", checked, bool, "True or False")
    checks.instance("name", name, (str, type(None)), "a text")
    checks.whole("seed", seed, 0, 2**32 - 1)
    if checks.number("validation", validation, above=0) >= 1:
        raise ValueError(f"validation must stay below 1, to leave samples to train; got {validation:g}.")
    paths = [_find(Path(folder), file) for file in FILES]
    (x, y, x_test, y_test), sums = zip(*map(_read, paths), strict=True)
    for path, images, labels in (paths[1], x, y), (paths[3], x_test, y_test):
        if len(images) != len(labels):
            raise ValueError(f"folder: {path} has {len(labels):,} labels for {len(images):,} images.")
    known = next((each for each, right in MD5.items() if right == sums), None)
    if checked and known is None:
        raise ValueError(_unknown(paths, sums))
    names = named(y, CLOTHES if class_names is None and known == "fashion-mnist" else class_names)
    parts = [(x[rows], y[rows]) for rows in stratified(y, np.arange(len(y)), validation, seed)]
    train, chosen, test = (
        Split(torch.from_numpy(as_inputs(images[:, None], 255.0)[0]), torch.from_numpy(labels.astype(np.int64)))
        for images, labels in (*parts, (x_test, y_test))
    )
    return Dataset(name or known or Path(folder).resolve().name, train, chosen, test, names, 255.0)


def _find(folder: Path, file: str) -> Path:
    for path in (folder / f"{form}{packed}" for form in (file, file.replace("-idx", ".idx")) for packed in ("", ".gz")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"folder {folder} must hold {', '.join(FILES)}, packed (.gz) or not; there is no {file}.")


def _read(path: Path) -> tuple[np.ndarray, str]:
    """The numbers of a file, and the MD5 sum of all that it holds.

    Memory is taken for bytes that have come, never for those that a header promises, and at most one byte beyond these.
    """
    n_sizes = 3 if "idx3" in path.name else 1
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # gzip's mark; an IDX file begins with two zeros, whatever its name
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head, content = file.read(4 + 4 * n_sizes), bytearray()
            if len(head) < 4 + 4 * n_sizes or head[:4] != bytes((0, 0, 8, n_sizes)):  # 8: unsigned bytes
                wanted = f"such a file begins with 0, 0, 8, {n_sizes}, and {n_sizes} size(s) of four bytes"
                raise ValueError(f"folder: {path} is no IDX file of {n_sizes} dimension(s) in bytes ({wanted}).")
            sizes = struct.unpack(f">{n_sizes}I", head[4:])
            length = math.prod(sizes)
            while block := file.read(min(BLOCK, length + 1 - len(content))):
                content += block
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"folder: {path} cannot be read to its end, get it anew ({error}).") from None
    if len(content) != length or length == 0:
        came = f"more than {length:,}" if len(content) > length else f"{len(content):,}"
        promised = f"{' x '.join(map(str, sizes))} numbers"
        raise ValueError(f"folder: {path} promises {promised}, at least one, and holds {came}; get it anew.")
    digest = hashlib.md5(head, usedforsecurity=False)
    digest.update(content)
    return np.frombuffer(content, np.uint8).reshape(sizes), digest.hexdigest()


def _unknown(paths: Sequence[Path], sums: Sequence[str]) -> str:
    """A sentence on files that are no known set: all of them, or those that differ from the set of the others."""
    differ = {
        known: [path.name for path, ours, theirs in zip(paths, sums, right, strict=True) if ours != theirs]
        for known, right in MD5.items()
    }
    known, odd = min(differ.items(), key=lambda item: len(item[1]))
    what = f"these are the files of neither {' nor '.join(MD5)}"
    if len(odd) < len(paths):
        what = f"the files are those of {known} but for {', '.join(odd)}; get what differs anew"
    return f"folder {paths[0].parent}: {what}. checked=False takes them as they are."
