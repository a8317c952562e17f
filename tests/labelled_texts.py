"""A tiny data set of texts for tests: the class is a word that a text holds, or the order of two words."""

from __future__ import annotations

from functools import cache

import numpy as np

from kit import data
from kit.data import Dataset, Tokens

FILLING = ["the", "of", "a", "and", "it", "to", "in", "is"]


@cache
def tiny_texts(n: int = 240, *, order: bool = False) -> Dataset:
    """Three classes, each with a word of its own; or two, which differ by the order of two words alone."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % (2 if order else 3)
    texts = []
    for label in labels:
        words = list(rng.choice(FILLING, rng.integers(2, 7)))
        marks = ("cat", "dog")[:: 1 - 2 * label] if order else ("red", "green", "blue")[label : label + 1]
        places = np.sort(rng.integers(0, len(words) + 1, len(marks)))
        for place, mark in zip(places[::-1], marks[::-1], strict=True):
            words.insert(int(place), mark)
        texts.append(" ".join(words))
    return data.from_texts(texts, labels, length=10, name="tiny texts", validation=0.25, test=0.25)


def tokens() -> Tokens:
    """Those of the three classes."""
    found = tiny_texts().tokens
    assert found is not None
    return found
