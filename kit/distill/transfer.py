"""Transfer sets: the samples on which a student meets its teacher. The teacher answers all; labels may be missing.

Each function takes a split and returns a new one; label -1 (`cohort.UNLABELLED`) marks an unlabelled sample. What is no
split, or no whole number where one is needed, is refused by a TypeError.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kit import checks, training
from kit.cohort import UNLABELLED
from kit.data import Split


def partly_labelled(split: Split, labelled: int) -> Split:
    """All samples, but labels for the first `labelled` only: the rest is an unlabelled pool.

    Args:
        split: the samples (splits are shuffled when they are made).
        labelled: how many keep their label, 0 .. all.

    Raises:
        ValueError: more labels than there are.
    """
    training.check_split("split", split)
    checks.whole("labelled", labelled, 0, len(split))
    labels = split.labels.clone()
    labels[labelled:] = UNLABELLED
    return Split(split.inputs, labels)


def few(split: Split, count: int) -> Split:
    """The first `count` samples only, repeated to the split's length, so that an epoch takes as many steps.

    Args:
        split: the samples.
        count: how many are left, 1 .. all.

    Raises:
        ValueError: none, or more than there are.
    """
    training.check_split("split", split)
    checks.whole("count", count, 1, len(split))
    rows = torch.arange(len(split)) % count
    return Split(split.inputs[rows], split.labels[rows])


def shifted(split: Split, pixels: int = 1, *, seed: int = 0) -> Split:
    """Each image, and a copy moved by up to `pixels` each way, 0 coming in. -> [2 n, channels, height, width].

    Args:
        split: images [n, channels, height, width].
        pixels: the largest move, 1 or more, below height and width.
        seed: of the moves.

    Raises:
        ValueError: inputs that are not images, or a move as large as an image.
    """
    training.check_split("split", split)
    checks.whole("seed", seed)
    if split.inputs.ndim != 4:
        shape = tuple(split.inputs.shape[1:])
        raise ValueError(f"split must hold images [n, channels, height, width] to be shifted; got samples of {shape}.")
    n, _, height, width = split.inputs.shape
    checks.whole("pixels", pixels, 1, min(height, width) - 1)
    generator = torch.Generator().manual_seed(seed)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator)
    padded = F.pad(split.inputs, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [n, channels, 2 p + 1, 2 p + 1, height, width]
    moved = windows[torch.arange(n), :, down, right]  # [n, channels, height, width]
    return Split(torch.cat([split.inputs, moved]), split.labels.repeat(2))


def thinned(split: Split, share: float = 0.2, *, seed: int = 0) -> Split:
    """Each text, and a copy that has lost about this share of its tokens; the others close up. -> [2 n, length].

    A text that would lose all of them keeps all. Source: Iyyer et al. 2015 (ACL, P15-1162), word dropout.

    Args:
        split: texts, int64 ids [n, length]; id 0 pads.
        share: that each token is lost with, in [0, 1).
        seed: of the draw.

    Raises:
        ValueError: inputs that are not ids, or a share out of range.
    """
    training.check_split("split", split)
    checks.share("share", share, one=False)
    ids = split.inputs
    if ids.ndim != 2 or ids.is_floating_point():
        came = f"{str(ids.dtype).removeprefix('torch.')} of shape {tuple(ids.shape[1:])}"
        raise ValueError(
            f"split must hold texts, int64 ids of tokens [n, length], to be thinned; got samples in {came}."
        )
    generator = torch.Generator().manual_seed(checks.whole("seed", seed))
    kept = (torch.rand(ids.shape, generator=generator) >= share) & (ids != 0)  # [n, length]
    kept |= ~kept.any(1, keepdim=True)
    order = kept.byte().argsort(dim=1, descending=True, stable=True)  # the kept ones first, as they were
    fewer = (ids * kept).gather(1, order)  # [n, length]
    return Split(torch.cat([ids, fewer]), split.labels.repeat(2))


def without_class(split: Split, absent: int) -> Split:
    """Leave out all samples of one class.

    Args:
        split: the samples.
        absent: the class to leave out.

    Raises:
        ValueError: a class that is not there, or that is the only one.
    """
    training.check_split("split", split)
    checks.whole("absent", absent, UNLABELLED)
    keep = split.labels != absent
    if bool(keep.all()) or not bool(keep.any()):
        there = ", ".join(map(str, split.labels.unique().tolist()))
        raise ValueError(f"absent must be one of several classes of the split ({there}); got {absent!r}.")
    return Split(split.inputs[keep], split.labels[keep])
