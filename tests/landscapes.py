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
