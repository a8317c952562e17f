"""The cells as a space to be searched: one choice of many, and what a Gaussian process tells them by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kit.cells import OPERATIONS, Cell
from kit.search.space import Choice, Space


def space_of(cells: Sequence[Cell]) -> Space:
    """A space of one parameter, "cell", whose options are the texts of the cells, told apart by `edges`."""
    return Space({"cell": Choice(*map(str, cells), features=np.array(list(map(edges, cells))))})


def edges(cell: Cell) -> np.ndarray:
    """One column for each operation on each edge: the encoding of a cell for a Gaussian process. -> [25] of 0 and 1."""
    return np.array([float(each == operation) for each in cell.operations for operation in OPERATIONS])
