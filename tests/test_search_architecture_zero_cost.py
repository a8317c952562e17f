from __future__ import annotations

from threading import Event

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit import models, training
from kit.cells import Cell, parse
from kit.data import Dataset
from kit.search.architecture import zero_cost
from kit.search.architecture.zero_cost import gradient_norm, synflow
from tests.nets import same

pytestmark = pytest.mark.usefixtures("one_thread")

CHAIN = "none | skip none | none skip"
EPS = (1 + 1e-5) ** -0.5  # what a normalisation without statistics multiplies by
X = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(5)


def matrix(model: models.CellNet, name: str) -> np.ndarray:
    """|weight|, summed over the pixels of the kernel."""
    weight = model.state_dict()[name].double().abs().numpy()
    return weight.reshape(*weight.shape[:2], -1).sum(2)


def test_synflow_of_a_chain_in_closed_form() -> None:
    """R is a product of three matrices, and each layer passes on all of it: three times R."""
    model = models.CellNet(CHAIN, seed=3)
    stem, between, head = (matrix(model, f"{name}.weight") for name in ("stem.0", "between.1", "head"))
    flow = (head @ between @ stem).sum() * EPS**3  # normalisations of stem, between and before the head
    assert synflow(model, X) == pytest.approx(3 * flow, rel=1e-9)


def test_synflow_counts_a_path_once_for_each_of_its_layers() -> None:
    """With all weights times t, the score is the slope of the flow in t; the bias has no part in it."""
    model = models.CellNet("skip | none conv1 | conv1 conv1", seed=3)
    stem, between, head = (matrix(model, f"{name}.weight") for name in ("stem.0", "between.1", "head"))
    cells = [
        [matrix(model, f"{stage}.edges.{edge}.1.weight") for edge in ("1-2", "1-3", "2-3")]
        for stage in ("first", "second")
    ]

    def flow(t: float) -> float:
        k = t * EPS  # of a convolution and its normalisation
        x = k * stem.sum(1)
        for at, (inner, short, outer) in enumerate(cells):
            x = k * between @ x if at else x
            x = k * short @ x + k * outer @ (k * inner @ x)
        return float((t * EPS * head @ x).sum())

    slope = (flow(1 + 1e-5) - flow(1 - 1e-5)) / 2e-5
    assert synflow(model, X) == pytest.approx(slope, rel=1e-7)


def test_the_gradient_norm_is_that_of_finite_differences() -> None:
    """Of each layer apart, added up; a batch of labels that the network is shown."""
    model = models.CellNet("pool | conv1 none | none skip", width=1, n_classes=5, seed=3)
    used = models.CellNet("pool | conv1 none | none skip", width=1, n_classes=5, seed=3).double().train()

    def slope(weight: torch.Tensor, at: int) -> float:
        ends = []
        for step in (1e-6, -2e-6):
            weight.view(-1)[at] += step
            ends.append(float(F.cross_entropy(used(X.double()), Y)))
        weight.view(-1)[at] += 1e-6
        return (ends[0] - ends[1]) / 2e-6

    with torch.no_grad():
        layers = [each for each in used.parameters() if each.ndim > 1]
        norms = [np.linalg.norm([slope(each, at) for at in range(each.numel())]) for each in layers]
    assert len(norms) == 5
    assert gradient_norm(model, X, Y) == pytest.approx(sum(norms), rel=1e-4)


@pytest.mark.parametrize("training_mode", [True, False])
def test_the_model_stays_as_it_was(training_mode: bool) -> None:
    model = models.CellNet("conv3 | skip pool | none conv3", seed=3).train(training_mode)
    synflow(model, X)
    gradient_norm(model, X, Y)
    assert same(model, models.CellNet("conv3 | skip pool | none conv3", seed=3))
    assert model.training is training_mode
    assert all(each.grad is None for each in model.parameters())


def test_each_cell_has_its_score(digits: Dataset) -> None:
    """Of untrained networks of the seed, on the first batch of the table's recipe; equal networks have equal ones."""
    cells: list[Cell | str] = ["conv3 | none none | conv1 none", parse("none | conv3 none | none conv1"), CHAIN]
    nets = [models.CellNet(cell, patch=1, seed=2) for cell in cells]
    x, y = digits.train.inputs[:50], digits.train.labels[:50]
    flows = zero_cost(digits, "synflow", cells, seed=2)
    norms = zero_cost(digits, "gradient norm", cells, seed=2)
    assert flows.tolist() == [synflow(net, x) for net in nets]
    assert norms.tolist() == [gradient_norm(net, x, y) for net in nets]
    assert flows[0] == flows[1] > flows[2]
    assert norms[0] == norms[1] != zero_cost(digits, "gradient norm", cells, seed=3)[0]


def test_what_cannot_be_scored_is_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="what must be one of synflow, gradient norm; got 'flops'"):
        zero_cost(digits, "flops")
    with pytest.raises(ValueError, match="cells must name at least one cell"):
        zero_cost(digits, "synflow", [])
    with pytest.raises(ValueError, match="seed must be 0 or more; got -1"):
        zero_cost(digits, "synflow", [CHAIN], seed=-1)
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        zero_cost(digits.train, "synflow")  # type: ignore[arg-type]
    cancel = Event()
    cancel.set()
    with pytest.raises(training.Cancelled, match="after 0 of 1 cells"):
        zero_cost(digits, "synflow", [CHAIN], cancel=cancel)
