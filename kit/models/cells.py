"""Networks that are stacked of cells (`kit.cells`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks
from kit.cells import EDGES, NAMES, OUTPUT, Cell, as_cell
from kit.models.parts import check_images, initialise


class CellNet(nn.Module):
    """One cell twice, between a stem and a head; the second time on a quarter of the pixels with twice the channels.

    The stem cuts the image into patches (a convolution as wide as its stride); between the cells stand a 2x2 mean and a
    1x1 convolution; the head is global average pooling and one linear layer. Cells that are the same network
    (`Cell.canonical`) give the same weights for the same seed.

    Args:
        cell: a `cells.Cell` or its text, such as "conv3 | skip conv1 | none pool"; a ValueError where it is malformed,
            or nothing of its input arrives at its output.
        in_channels: 1 for grey images, 3 for colour.
        patch: height and width of a patch in pixels; images must be twice as high and wide at least.
        width: channels of the first cell; all sizes at least 1 (else a ValueError).
        n_classes: number of logits.
        seed: of the first weights.
    """

    def __init__(
        self,
        cell: Cell | str,
        in_channels: int = 1,
        patch: int = 4,
        width: int = 8,
        n_classes: int = 10,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cell = cell = as_cell(cell).canonical
        self.in_channels, self.patch = checks.whole("in_channels", in_channels, 1), checks.whole("patch", patch, 1)
        width, n_classes = checks.whole("width", width, 1), checks.whole("n_classes", n_classes, 1)
        with torch.device("meta"):
            self.stem = nn.Sequential(nn.Conv2d(in_channels, width, patch, stride=patch, bias=False), _norm(width))
            self.first: nn.Module = CellGraph(cell, width)
            self.between = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 1, bias=False), _norm(2 * width))
            self.second: nn.Module = CellGraph(cell, 2 * width)
            self.norm = _norm(2 * width)
            self.head = nn.Linear(2 * width, n_classes)
        initialise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, in_channels, height, width] to logits [n, n_classes]; ValueError for other or smaller ones."""
        return self.through(x, self.first, self.second)

    def through(self, x: Tensor, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Tensor:
        """As `forward`, with these in place of the two cells."""
        check_images(x, (self.in_channels, None, None))
        if min(x.shape[2:]) < (least := 2 * self.patch):
            raise ValueError(f"inputs: the model takes images of {least} x {least} or more; got {tuple(x.shape[1:])}.")
        x = first(self.stem(x))  # [n, width, h / patch, w / patch]
        x = second(self.between(x))  # [n, 2 width, half, half]
        return self.head(F.relu(self.norm(x)).mean(dim=(2, 3)))


class CellGraph(nn.Module):
    """One canonical cell: each node adds up what its edges bring. [n, width, h, w] -> the same shape."""

    def __init__(self, cell: Cell, width: int) -> None:
        super().__init__()
        edges = zip(NAMES, cell.operations, strict=True)
        self.edges = nn.ModuleDict({name: cell_operation(each, width) for name, each in edges if each != "none"})

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, width, h, w] to the same shape."""
        nodes = {0: x}
        for (start, end), name in zip(EDGES, NAMES, strict=True):
            if name in self.edges:
                came = self.edges[name](nodes[start])
                nodes[end] = nodes[end] + came if end in nodes else came
        return nodes[OUTPUT]


def cell_operation(name: str, width: int) -> nn.Module:
    """An operation of a cell, all but "none": [n, width, h, w] -> the same shape."""
    if name == "skip":
        return nn.Identity()
    if name == "pool":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    side = {"conv1": 1, "conv3": 3}[name]
    convolution = nn.Conv2d(width, width, side, padding=side // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, _norm(width))


def _norm(width: int) -> nn.BatchNorm2d:
    """Statistics of about the last two batches: at torch's 0.1 those of a short training lag behind its weights."""
    return nn.BatchNorm2d(width, momentum=0.5)
