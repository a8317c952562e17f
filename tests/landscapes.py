"""A landscape that nobody had to train, for tests of what searches one."""

from __future__ import annotations

import dataclasses

import numpy as np

from kit.search import Float, Space
from kit.search import landscape as landscapes
from kit.search.landscape import Landscape

PLANE = Space({"lr": Float(1e-5, 10, log=True), "dropout": Float(0.0, 0.9)})


def made_up(*, points: int = 5, seeds: int = 4, epochs: int = 4, space: Space = PLANE) -> Landscape:
    """A complete landscape of numbers that are all different: each tells which network was read."""
    blank = landscapes.blank(space, points=points, seeds=seeds, epochs=epochs)
    order = np.random.default_rng(5).permutation(blank.curves.size)
    return dataclasses.replace(blank, curves=order.reshape(blank.curves.shape) / order.size)


def hill() -> Landscape:
    """A complete one that a search can climb: networks learn best on a strip of learning rates, and with less dropout.

    Where the learning rate is small they learn slowly; each network has its own luck.
    """
    blank, rng = landscapes.blank(PLANE), np.random.default_rng(6)
    lr, dropout, epoch = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20), np.arange(1, 21), indexing="ij")
    reached = 0.85 * np.exp(-(((lr - 0.6) / 0.2) ** 4)) * (1 - 0.2 * dropout) * (1 - np.exp(-epoch / (9 - 8 * lr)))
    luck = rng.normal(0, 0.01, blank.curves.shape[:-1])[..., None] + rng.normal(0, 0.01, blank.curves.shape)
    return dataclasses.replace(blank, curves=np.clip(0.1 + reached + luck, 0, 1))
