"""Weight sharing: one supernet holds every operation on every edge, and every cell is scored with its weights.

| to | call |
|---|---|
| train all cells at once | `supernet = share(mnist)` |
| score them | `scores(supernet, mnist)` |
| ask it for one cell, or for a mixture | `supernet(x, cell)`, `supernet(x, weights)` |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit import checks, cores, models, training
from kit.cells import EDGES, OPERATIONS, OUTPUT, Cell, as_cell, as_cells
from kit.data import Dataset
from kit.inference import check_cancel
from kit.search.architecture.table import RECIPE, part, sizes_of


class Supernet(models.CellNet):
    """A `CellNet` whose two cells have all operations on all edges; each call says in which mixture.

    Normalisation always uses the statistics of the batch, since running ones would mix those of all cells. It has no
    scale or shift: a scale would do what the weights of a mixture are for (Liu et al. 2018, arXiv:1806.09055).

    Args:
        in_channels, patch, width, n_classes, seed: as of `CellNet`.
    """

    def __init__(
        self, in_channels: int = 1, patch: int = 4, width: int = 8, n_classes: int = 10, *, seed: int = 0
    ) -> None:
        super().__init__("none | skip none | none skip", in_channels, patch, width, n_classes)
        del self.cell  # it has none of its own
        with torch.device("meta"):
            self.first, self.second = MixedCell(width), MixedCell(2 * width)
            for parent in list(self.modules()):
                for name, child in parent.named_children():
                    if isinstance(child, nn.BatchNorm2d):
                        norm = nn.BatchNorm2d(child.num_features, affine=False, track_running_stats=False)
                        setattr(parent, name, norm)
        models.initialise(self, seed)

    def forward(self, x: Tensor, mix: Cell | str | Tensor | None = None) -> Tensor:
        """Map images [n, in_channels, height, width] to logits [n, n_classes].

        Args:
            x: images.
            mix: a cell or its text, whose network (that of its `canonical`) is computed; or weights [5 edges, 5
                operations], in the order of `EDGES` and `OPERATIONS`: each edge brings the weighted sum of all
                operations. Equal weights where None. A ValueError for other shapes, and for cells that are malformed or
                not connected; a TypeError for all else.
        """
        if mix is None:
            mix = x.new_full((len(EDGES), len(OPERATIONS)), 1 / len(OPERATIONS))
        elif isinstance(mix, (Cell, str)):
            mix = as_cell(mix).canonical
        checks.instance("mix", mix, (Cell, Tensor), "a cell, its text or a tensor")
        if isinstance(mix, Tensor) and mix.shape != (len(EDGES), len(OPERATIONS)):
            raise ValueError(f"mix must be [5 edges, 5 operations]; got shape {tuple(mix.shape)}.")
        return self.through(x, partial(self.first, mix=mix), partial(self.second, mix=mix))


class MixedCell(nn.Module):
    """All operations on all edges. [n, width, h, w] -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        operations = [name for name in OPERATIONS if name != "none"]
        self.edges = nn.ModuleList(
            nn.ModuleDict({name: models.cell_operation(name, width) for name in operations}) for _ in EDGES
        )

    def forward(self, x: Tensor, mix: Cell | Tensor) -> Tensor:
        """Map [n, width, h, w] to the same shape; `mix` as in `Supernet.forward`, a cell canonical."""
        nodes = {0: x}
        for at, (start, end) in enumerate(EDGES):
            edge: Any = self.edges[at]
            for name, operation in edge.items():  # "none" adds nothing
                if isinstance(mix, Cell) and mix.operations[at] != name:
                    continue
                came = operation(nodes[start])
                if isinstance(mix, Tensor):
                    came = mix[at, OPERATIONS.index(name)] * came
                nodes[end] = nodes[end] + came if end in nodes else came
        return nodes[OUTPUT]


def share(
    dataset: Dataset,
    cells: Sequence[Cell | str] | None = None,
    *,
    epochs: int = 100,
    seed: int = 0,
    on_epoch: Callable[[int, Supernet], None] | None = None,
    cancel: Event | None = None,
) -> Supernet:
    """Train a supernet: each step trains the weights of one cell, drawn at random; all else as in the table.

    Args:
        dataset: images; `table.part` of it is used.
        cells: of which each step draws one, all equally likely; all networks where None. Fewer keep a limit.
        epochs: passes over the training images, 0 or more; a network of the table has 8, for itself alone.
        seed: of the weights, of the order of the images and of the cells.
        on_epoch: called after each epoch with the number of those that are done, and the supernet.
        cancel: looked at before each batch.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: an argument out of range.

    Source: Guo et al. 2019, arXiv:1904.00420 (single path, uniform sampling).
    """
    training.check_dataset(dataset)
    supernet = Supernet(**sizes_of(dataset), seed=seed)
    listen = [] if on_epoch is None else [_Listen(supernet, on_epoch)]
    steps: dict[str, Any] = {"epochs": epochs, "seed": seed, "callbacks": listen, "cancel": cancel}
    training.fit(_Paths(supernet, as_cells(cells), seed), part(dataset), **steps, **RECIPE)
    return supernet


def scores(
    supernet: Supernet,
    dataset: Dataset,
    cells: Sequence[Cell | str] | None = None,
    *,
    images: int = 500,
    cancel: Event | None = None,
) -> np.ndarray:
    """Validation accuracy of each cell with the weights of the supernet. -> [n].

    Args:
        supernet: trained.
        dataset: as for `share`.
        cells: to be scored; all networks where None.
        images: of the validation split, 2 or more, or all where it has fewer; in one batch, so that the statistics of
            the normalisation are theirs.
        cancel: looked at before each cell.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: an argument out of range.
    """
    checks.instance("supernet", supernet, Supernet)
    training.check_dataset(dataset)
    split = dataset.validation
    rows = slice(checks.whole("images", images, 2))
    found: list[float] = []
    used = as_cells(cells)
    with torch.no_grad(), cores.one_thread():
        for cell in used:
            check_cancel(cancel, f"after {len(found)} of {len(used)} cells")
            right = supernet(split.inputs[rows], cell).argmax(1) == split.labels[rows]
            found.append(float(right.float().mean()))
    return np.array(found)


class _Paths(nn.Module):
    """Answers each batch by another cell of the supernet."""

    def __init__(self, supernet: Supernet, cells: Sequence[Cell], seed: int) -> None:
        super().__init__()
        self.supernet, self.cells, self.rng = supernet, cells, np.random.default_rng(seed)

    def forward(self, x: Tensor) -> Tensor:
        return self.supernet(x, self.cells[int(self.rng.integers(len(self.cells)))])


class _Listen(training.Callback):
    def __init__(self, supernet: Supernet, on_epoch: Callable[[int, Supernet], None]) -> None:
        self._supernet, self._on_epoch = supernet, on_epoch

    def on_epoch_end(self, progress: training.Progress) -> None:
        self._on_epoch(progress.epoch + 1, self._supernet)
