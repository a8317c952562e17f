"""Transfer sets: the samples on which a student meets its teacher. The teacher answers all; labels may be missing.

Each function takes a split and returns a new one; label -1 (`cohort.UNLABELLED`) stands where nobody labelled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kit.cohort import UNLABELLED
from kit.data import Split


def partly_labelled(split: Split, labelled: int) -> Split:
    """All samples, but labels for the first so many only: an unlabelled pool.

    Args:
        split: the samples (splits are shuffled when they are made).
        labelled: how many keep their label, 0 .. all.

    Raises:
        ValueError: more labels than there are.
    """
    _check_count("labelled", labelled, 0, len(split))
    labels = split.labels.clone()
    labels[labelled:] = UNLABELLED
    return Split(split.inputs, labels)


def few(split: Split, count: int) -> Split:
    """The first so many samples only, each as often as keeps the number of samples: an epoch takes as many steps.

    Args:
        split: the samples.
        count: how many are left, 1 .. all.

    Raises:
        ValueError: none, or more than there are.
    """
    _check_count("count", count, 1, len(split))
    rows = torch.arange(len(split)) % count
    return Split(split.inputs[rows], split.labels[rows])


def shifted(split: Split, pixels: int = 1, *, seed: int = 0) -> Split:
    """Each image, and a copy of it moved by up to so many pixels each way, what comes in filled with 0.

    Args:
        split: images [n, channels, height, width].
        pixels: the largest move, 1 or more, below height and width.
        seed: of the moves.

    Returns:
        [2 n, channels, height, width], with their labels.

    Raises:
        ValueError: inputs that are no images, or moves as large as an image.
    """
    if split.inputs.ndim != 4:
        shape = tuple(split.inputs.shape[1:])
        raise ValueError(f"split must hold images [n, channels, height, width] to be shifted; got samples of {shape}.")
    n, _, height, width = split.inputs.shape
    _check_count("pixels", pixels, 1, min(height, width) - 1)
    generator = torch.Generator().manual_seed(seed)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator)
    padded = F.pad(split.inputs, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [n, channels, 2 p + 1, 2 p + 1, height, width]
    moved = windows[torch.arange(n), :, down, right]  # [n, channels, height, width]
    return Split(torch.cat([split.inputs, moved]), split.labels.repeat(2))


def without_class(split: Split, absent: int) -> Split:
    """Leave all samples out that are labelled with one class.

    Args:
        split: the samples.
        absent: the class that the student shall not see.

    Raises:
        ValueError: a class that is not there, or that is the only one.
    """
    keep = split.labels != absent
    if bool(keep.all()) or not bool(keep.any()):
        there = ", ".join(map(str, split.labels.unique().tolist()))
        raise ValueError(f"absent must be one of several classes of the split ({there}); got {absent!r}.")
    return Split(split.inputs[keep], split.labels[keep])


def _check_count(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low} .. {high}; got {value!r}.")
