"""Two small data sets of texts: letters, whose order decides, and words of the kit's own tokeniser."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kit import data
from kit.data import Dataset, Split, Tokens

WORDS, LENGTH = 20, 8
FILLING = ["the", "of", "a", "and", "it", "to", "in", "is"]


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


@cache
def tiny_texts(n: int = 240) -> Dataset:
    """Texts of three classes, each with a word of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    texts = []
    for label in labels:
        words = list(rng.choice(FILLING, rng.integers(2, 7)))
        words.insert(int(rng.integers(0, len(words) + 1)), ("red", "green", "blue")[label])
        texts.append(" ".join(words))
    return data.from_texts(texts, labels, length=10, name="tiny texts", validation=0.25, test=0.25)


def tokens() -> Tokens:
    """Those of `tiny_texts`."""
    found = tiny_texts().tokens
    assert found is not None
    return found
