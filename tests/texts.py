"""A small data set of texts: which of the first two words comes first in the vocabulary decides the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kit.data import Dataset, Split

WORDS, LENGTH = 20, 8


class Letters:
    """Each letter is a token; the first of them has id 1."""

    size = WORDS

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        rows = [[ord(letter) - ord("`") for letter in text[:length]] for text in texts]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows])

    def decode(self, ids: Tensor) -> str:
        return "".join(chr(ord("`") + int(each)) for each in ids if each)


def ordered(train: int = 256, others: int = 64, seed: int = 0) -> Dataset:
    """Texts of two to eight letters, the class 1 where the first one comes after the second."""
    generator = torch.Generator().manual_seed(seed)

    def split(n: int) -> Split:
        ids = torch.randint(1, WORDS, (n, LENGTH), generator=generator)
        lengths = torch.randint(2, LENGTH + 1, (n, 1), generator=generator)
        ids[torch.arange(LENGTH) >= lengths] = 0
        return Split(ids, (ids[:, 0] > ids[:, 1]).long())

    return Dataset("letters", split(train), split(others), split(others), ("before", "after"), tokens=Letters())
