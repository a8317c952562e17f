"""Scores without training, from the first weights; their cheap rival is the number of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kit import checks, cores, models, training
from kit.cells import Cell, as_cells
from kit.data import Dataset
from kit.inference import check_cancel, copy_of
from kit.search.architecture.table import RECIPE, network, part

SCORES = ("synflow", "gradient norm")


def zero_cost(
    dataset: Dataset,
    what: str,
    cells: Sequence[Cell | str] | None = None,
    *,
    seed: int = 0,
    cancel: Event | None = None,
) -> np.ndarray:
    """A score of each cell's network before it is trained; more should be better. -> [n].

    Args:
        dataset: images, as for `table.train`; "synflow" looks at their shape alone, "gradient norm" at the first 50.
        what: one of `SCORES`.
        cells: to be scored; all networks where None.
        seed: of the first weights.
        cancel: looked at before each cell.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: an argument out of range.
    """
    training.check_dataset(dataset)
    checks.one_of("what", what, SCORES)
    first = part(dataset).train
    x, y = first.inputs[: RECIPE["batch_size"]], first.labels[: RECIPE["batch_size"]]
    found: list[float] = []
    used = as_cells(cells)
    with cores.one_thread():
        for cell in used:
            check_cancel(cancel, f"after {len(found)} of {len(used)} cells")
            model = network(dataset, cell, seed)
            found.append(synflow(model, x) if what == "synflow" else gradient_norm(model, x, y))
    return np.array(found)


def synflow(model: models.CellNet, x: Tensor) -> float:
    """How much flows from ones to the logits on all paths: the sum of each |weight| times the slope of that flow.

    With absolute values nothing cancels out. The normalisation is in evaluation mode: before any training that changes
    nothing. In float64, since products of many weights grow large.

    Args:
        model: untrained, not changed.
        x: images [n, channels, height, width]; only their shape counts.

    Source: Tanaka et al. 2020, arXiv:2006.05467; summed over the weights by Abdelfattah et al. 2021, arXiv:2101.08134.
    """
    positive = copy_of(model).double().eval()
    weights = _weights(positive)
    with torch.no_grad():
        for weight in weights:
            weight.abs_()
    slopes = torch.autograd.grad(positive(torch.ones_like(x[:1], dtype=torch.float64)).sum(), weights)
    return sum(float((weight.detach() * slope).sum()) for weight, slope in zip(weights, slopes, strict=True))


def gradient_norm(model: models.CellNet, x: Tensor, y: Tensor) -> float:
    """Euclidean norm of the loss's gradient in the weights of a layer, summed over the layers.

    Args:
        model: untrained, not changed.
        x: a batch of images [n, channels, height, width]; the normalisation uses its statistics.
        y: their labels [n].

    Source: Abdelfattah et al. 2021, arXiv:2101.08134.
    """
    used = copy_of(model).train()
    slopes = torch.autograd.grad(F.cross_entropy(used(x), y), _weights(used))
    return sum(float(slope.norm()) for slope in slopes)


def _weights(model: models.CellNet) -> list[Tensor]:
    """Those of convolutions and linear layers: scales, shifts and biases have one axis."""
    return [each for each in model.parameters() if each.ndim > 1]
