"""Cells: small graphs of operations, of which a network is stacked (`models.CellNet`).

Node 0 is the input; nodes 1 and 2 and the output, node 3, each add up what their edges bring. On each edge is one
operation. The output does not take from the input directly: nothing forbids a path of "skip".

| to | call |
|---|---|
| write a cell, and read it | `cell = parse("conv3 | skip conv1 | none pool")`, `str(cell)` |
| see what it computes | `cell.formula` |
| have all different networks | `networks()` |
| change one operation | `cell.neighbours()` |

The idea of one small cell that is stacked is that of NASNet (Zoph et al. 2018, arXiv:1707.07012); operations on the
edges, and different cells that are the same network, as in NAS-Bench-201 (Dong & Yang 2020, arXiv:2001.00326).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from kit import checks

# pool: the mean of 3 x 3; conv: ReLU, convolution, normalisation
OPERATIONS = ("none", "skip", "pool", "conv1", "conv3")
EDGES = ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3))  # from, to
NAMES = tuple(f"{start}-{end}" for start, end in EDGES)
OUTPUT = 3


@dataclass(frozen=True)
class Cell:
    """One operation for each of `EDGES`.

    Two cells are equal where their operations are; they are the same network where their `canonical` is equal.

    Attributes:
        operations: of each edge, a tuple of five of `OPERATIONS`; all else is a ValueError.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no cell."""
        if not isinstance(self.operations, tuple) or len(self.operations) != len(EDGES):
            raise ValueError(f"operations must be a tuple of {len(EDGES)}, one for each edge; got {self.operations!r}.")
        for operation in self.operations:
            checks.one_of("operations", operation, OPERATIONS)

    def __str__(self) -> str:
        """What each node takes from those before it: node 1 from 0 | node 2 from 0 and 1 | output from 1 and 2."""
        a, b, c, d, e = self.operations
        return f"{a} | {b} {c} | {d} {e}"

    @cached_property
    def _terms(self) -> tuple[str, ...] | None:
        """What the output adds up, sorted; None where nothing of the input arrives."""
        sums: list[tuple[str, ...] | None] = [("x",), None, None, None]
        for node in range(1, OUTPUT + 1):
            terms: list[str] = []
            for (start, end), operation in zip(EDGES, self.operations, strict=True):
                before = sums[start]
                if end == node and operation != "none" and before is not None:
                    shared = "a" if end == 1 and self._is_shared else f"{operation}({' + '.join(before)})"
                    terms += before if operation == "skip" else [shared]
            sums[node] = tuple(sorted(terms)) or None
        return sums[OUTPUT]

    @property
    def _is_shared(self) -> bool:
        """Whether node 1 is a convolution whose answer goes two ways: two of them would have two sets of weights."""
        return self.operations[0].startswith("conv") and "none" not in self.operations[2:]

    @property
    def is_connected(self) -> bool:
        """Whether anything of the input arrives at the output."""
        return self._terms is not None

    @property
    def formula(self) -> str:
        """What it computes of its input x; "0" where nothing arrives. Equal for cells that are the same network.

        Each convolution has weights of its own; one whose answer goes two ways is a: "a + conv1(a), a = conv3(x)".
        """
        named = f", a = {self.operations[0]}(x)" if self._is_shared else ""
        return " + ".join(self._terms or ("0",)) + named

    @property
    def canonical(self) -> Cell:
        """The one cell that stands for all that are the same network; itself where nothing arrives at the output."""
        return _canonical().get(self.operations, self)

    def neighbours(self) -> tuple[Cell, ...]:
        """The different networks, none its own, that are one operation away; none that is not connected.

        Of a network that several cells are, an operation of any of them may be changed: so whoever is a neighbour has
        this one as its own.
        """
        return _neighbours(self.canonical)


@lru_cache(maxsize=4096)
def _neighbours(cell: Cell) -> tuple[Cell, ...]:
    found: dict[Cell, None] = {}
    alike = _same().get(cell.formula, (cell,))
    for each, at, other in itertools.product(alike, range(len(EDGES)), OPERATIONS):
        changed = _canonical().get((*each.operations[:at], other, *each.operations[at + 1 :]), cell)
        if changed != cell:
            found[changed] = None
    return tuple(found)


def parse(text: str) -> Cell:
    """The cell of a text such as "conv3 | skip conv1 | none pool"; what is malformed is a ValueError.

    The parts between the bars are nodes 1, 2 and the output; each names one of `OPERATIONS` for each earlier node that
    it may take from.
    """
    checks.instance("cell", text, str, "a text")
    parts = [part.split() for part in text.split("|")]
    wanted = [sum(end == node for _, end in EDGES) for node in range(1, OUTPUT + 1)]
    if [len(part) for part in parts] != wanted:
        raise ValueError(
            f"cell must have 1, 2 and 2 operations, such as 'conv3 | skip conv1 | none pool'; got {text!r}."
        )
    for operation in itertools.chain(*parts):
        checks.one_of("cell", operation, OPERATIONS)
    return Cell(tuple(itertools.chain(*parts)))


def as_cell(cell: Cell | str) -> Cell:
    """A connected cell, as it is or parsed; a ValueError where nothing of the input arrives at its output."""
    checks.instance("cell", cell, (Cell, str), "a Cell or its text")
    found = cell if isinstance(cell, Cell) else parse(cell)
    if not found.is_connected:
        raise ValueError(f"cell must lead from its input to its output; in {str(found)!r} nothing arrives.")
    return found


def as_cells(cells: Iterable[Cell | str] | None) -> tuple[Cell, ...]:
    """The canonical cell of each; all networks where None.

    Errors as of `as_cell`; a TypeError for one cell in the place of several, and a ValueError for none.
    """
    if cells is None:
        return networks()
    if isinstance(cells, (Cell, str)) or not isinstance(cells, Iterable):
        raise TypeError(f"cells must be several, such as a list of them; got {cells!r}.")
    found = tuple(as_cell(cell).canonical for cell in cells)
    if not found:
        raise ValueError("cells must name at least one cell; got none.")
    return found


def all_cells() -> Iterator[Cell]:
    """All 3,125, connected or not."""
    return map(Cell, itertools.product(OPERATIONS, repeat=len(EDGES)))


def networks() -> tuple[Cell, ...]:
    """All different networks, one canonical cell each, in a fixed order."""
    return tuple(cells[0] for cells in _same().values())


@lru_cache(maxsize=1)
def _same() -> dict[str, tuple[Cell, ...]]:
    """Of each network the cells that are it, by its formula: those with the most "none" first, then as `OPERATIONS`."""
    found: dict[str, tuple[Cell, ...]] = {}
    for cell in sorted(all_cells(), key=lambda cell: -cell.operations.count("none")):
        if cell.is_connected:
            found[cell.formula] = (*found.get(cell.formula, ()), cell)
    return found


@lru_cache(maxsize=1)
def _canonical() -> dict[tuple[str, ...], Cell]:
    """The canonical cell of all operations that lead from input to output."""
    return {cell.operations: alike[0] for alike in _same().values() for cell in alike}
