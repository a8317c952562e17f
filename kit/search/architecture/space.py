"""The cells as a space to be searched: one choice of many, and what a Gaussian process tells them by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kit.cells import OPERATIONS, Cell, as_cells
from kit.search.space import Choice, Space


def space_of(cells: Sequence[Cell | str]) -> Space:
    """A space of one parameter, "cell", whose options are the texts of the canonical cells, told apart by `edges`.

    A ValueError for fewer than two cells, for one that is malformed or not connected, and for two of one network; a
    TypeError for what are no cells.
    """
    found = as_cells(cells)
    if len(different := set(found)) < max(2, len(found)):
        came = f"got {len(found):,}, of {len(different):,} networks"
        raise ValueError(f"cells must be of two or more networks, none twice; {came}.")
    return Space({"cell": Choice(*map(str, found), features=np.array(list(map(edges, found))))})


def edges(cell: Cell) -> np.ndarray:
    """One column for each operation on each edge: the encoding of a cell for a Gaussian process. -> [25] of 0 and 1."""
    return np.array([float(each == operation) for each in cell.operations for operation in OPERATIONS])
