from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor
from torch.func import functional_call

from kit import models, training
from kit.cells import EDGES, NAMES, OPERATIONS, parse
from kit.data import Dataset
from kit.search.architecture import Supernet, scores, share
from tests.nets import same

pytestmark = pytest.mark.usefixtures("one_thread")

CELLS = ("conv3 | skip conv1 | none pool", "conv3 | none none | conv1 skip", "pool | conv3 skip | conv1 conv3")


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(5))


def mixture() -> Tensor:
    return torch.rand(5, 5, generator=torch.Generator().manual_seed(7))


def normalised(x: Tensor) -> Tensor:
    spread = x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - x.mean((0, 2, 3), keepdim=True)) / (spread + 1e-5).sqrt()


def by_hand(weights: Mapping[str, Tensor], x: Tensor, mix: Tensor) -> Tensor:
    """The mixed network in plain formulas."""

    def operation(stage: str, edge: int, name: str, x: Tensor) -> Tensor:
        if name in ("none", "skip"):
            return x * (name == "skip")
        if name == "pool":
            ones = F.pad(torch.ones_like(x), (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5))
            return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) / ones
        kernel = weights[f"{stage}.edges.{edge}.{name}.1.weight"]
        return normalised(F.conv2d(x.relu(), kernel, padding=kernel.shape[-1] // 2))

    def cell(stage: str, x: Tensor) -> Tensor:
        nodes = [x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)]
        for edge, (start, end) in enumerate(EDGES):
            for row, name in enumerate(OPERATIONS):
                nodes[end] = nodes[end] + mix[edge, row] * operation(stage, edge, name, nodes[start])
        return nodes[3]

    x = cell("first", normalised(F.conv2d(x, weights["stem.0.weight"], stride=4)))
    x = normalised(F.conv2d(F.avg_pool2d(x, 2), weights["between.1.weight"]))
    x = normalised(cell("second", x)).relu().mean((2, 3))
    return x @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("text", [*CELLS, "none | skip none | none skip"])
def test_with_a_cell_it_is_the_network_of_that_cell(text: str) -> None:
    supernet, cell = Supernet(seed=1), parse(text)
    alone = models.CellNet(cell, seed=2).train()
    weights, shared = alone.state_dict(), supernet.state_dict()
    for name in weights:
        if name.endswith(".1.weight") and ".edges." in name:
            stage, _, edge, *_ = name.split(".")
            at = NAMES.index(edge)
            weights[name] = shared[f"{stage}.edges.{at}.{alone.cell.operations[at]}.1.weight"]
        elif weights[name].ndim > 1 or name == "head.bias":
            weights[name] = shared[name]
    alone.load_state_dict(weights)
    assert torch.allclose(supernet(images(), cell), alone(images()), atol=1e-6)
    assert torch.equal(supernet(images(), cell), supernet(images(), text))


def test_with_weights_it_adds_up_what_the_operations_answer() -> None:
    """An independent formula; a one-hot mixture is a cell; no mixture is one of equal parts."""
    supernet, mix = Supernet(seed=1), mixture()
    weights = dict(supernet.named_parameters())
    assert torch.allclose(supernet(images(), mix), by_hand(weights, images(), mix), atol=1e-5)
    cell = parse(CELLS[2]).canonical
    hot = torch.tensor([[float(name == each) for name in OPERATIONS] for each in cell.operations])
    assert torch.allclose(supernet(images(), cell), supernet(images(), hot), atol=1e-6)
    assert torch.equal(supernet(images()), supernet(images(), torch.full((5, 5), 0.2)))


def test_the_slope_in_the_mixture_is_right() -> None:
    """By finite differences; with other weights through functional_call, too."""
    supernet, mix = Supernet(width=2, n_classes=3, seed=1).double(), mixture().double().requires_grad_()
    x = images().double()
    doubled = {name: 2 * each.detach() for name, each in supernet.named_parameters()}
    assert torch.autograd.gradcheck(lambda m: supernet(x, m), mix)
    assert torch.autograd.gradcheck(lambda m: functional_call(supernet, doubled, (x, m)), mix)
    (slope,) = torch.autograd.grad(supernet(x, mix).square().sum(), mix)
    assert not slope[:, 0].any()  # "none"
    assert (slope[:, 1:] != 0).all()


def test_it_has_no_statistics_of_its_own() -> None:
    supernet = Supernet(in_channels=3, width=4, n_classes=7, seed=1)
    assert not list(supernet.buffers())
    assert {name for name, each in supernet.named_parameters() if each.ndim == 1} == {"head.bias"}
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    answer = supernet.train()(x, mixture())
    assert torch.equal(answer, supernet.eval()(x, mixture()))
    assert answer.shape == (4, 7)
    assert same(supernet, Supernet(3, width=4, n_classes=7, seed=1))
    assert not same(supernet, Supernet(3, width=4, n_classes=7, seed=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mix must be \[5 edges, 5 operations\]; got shape \(5, 4\)"):
        Supernet()(images(), torch.ones(5, 4))
    with pytest.raises(ValueError, match="cell must lead from its input to its output"):
        Supernet()(images(), parse("conv3 | none none | none skip"))
    with pytest.raises(ValueError, match="inputs: the model takes images"):
        Supernet()(torch.ones(2, 3, 16, 16), mixture())
    for mix in (3, np.ones((5, 5))):
        with pytest.raises(TypeError, match="^mix must be a cell, its text or a tensor; got"):
            Supernet()(images(), mix)


def test_one_path_is_trained_as_by_a_plain_loop(digits: Dataset) -> None:
    """Adam with a one-cycle rate; what is on no path stays."""
    cell = parse("conv3 | none none | conv1 none")
    shared = share(digits, [cell], epochs=2, seed=3)
    plain = Supernet(patch=1, seed=3)
    untouched = dict(Supernet(patch=1, seed=3).named_parameters())
    x, y = digits.train.inputs, digits.train.labels  # fewer than a thousand: all are used
    steps = torch.optim.Adam(plain.parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(steps, 0.02, total_steps=2 * 18)
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        for rows in torch.randperm(898, generator=generator).split(50):
            steps.zero_grad()
            F.cross_entropy(plain(x[rows], cell), y[rows]).backward()
            steps.step()
            cycle.step()
    moved = 0
    for (name, one), other in zip(shared.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
        moved += not torch.equal(one, untouched[name])
    assert moved == 8  # stem, between, head and its bias, two convolutions in each cell


def test_each_step_draws_one_cell_all_as_often(digits: Dataset) -> None:
    seen: list[Any] = []
    told: list[tuple[int, Supernet]] = []

    def look(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, Supernet):
            seen.append(inputs[1])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        shared = share(digits, CELLS, epochs=6, seed=1, on_epoch=lambda epoch, net: told.append((epoch, net)))
    finally:
        hook.remove()
    counts = Counter(map(str, seen[-108:]))
    assert set(counts) == {str(parse(text).canonical) for text in CELLS}
    assert chisquare(list(counts.values())).pvalue > 0.001
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5, 6]
    assert all(net is shared for _, net in told)


def test_the_seed_decides(digits: Dataset) -> None:
    """Of the path, too: with the same weights and images in the same order."""
    shared = share(digits, CELLS, epochs=1, seed=1)
    assert same(shared, share(digits, CELLS, epochs=1, seed=1))
    assert not same(shared, share(digits, CELLS[::-1], epochs=1, seed=1))
    assert not same(shared, share(digits, CELLS, epochs=1, seed=2))


def test_scores_are_counts_of_right_answers(digits: Dataset) -> None:
    shared = share(digits, CELLS, epochs=6)
    split = digits.validation
    found = scores(shared, digits, CELLS, images=200)
    for text, score in zip(CELLS, found, strict=True):
        with torch.no_grad():
            answers = shared(split.inputs[:200], parse(text)).argmax(1)
        assert score == pytest.approx(sum(int(a == b) for a, b in zip(answers, split.labels[:200], strict=True)) / 200)
    every = scores(shared, digits, CELLS, images=10_000)
    assert np.array_equal(every, scores(shared, digits, CELLS, images=len(split)))
    assert np.all(found > scores(share(digits, epochs=0), digits, CELLS) + 0.3)  # it has learned


def test_all_networks_are_scored(digits: Dataset) -> None:
    found = scores(share(digits, epochs=0), digits, images=2)
    assert found.shape == (1217,)
    assert set(found) <= {0, 0.5, 1}


def test_cancelling(digits: Dataset) -> None:
    cancel = Event()
    with pytest.raises(training.Cancelled, match="in epoch 2 of 9"):
        share(digits, CELLS, epochs=9, on_epoch=lambda *_: cancel.set(), cancel=cancel)
    with pytest.raises(training.Cancelled, match="after 0 of 3 cells"):
        scores(share(digits, epochs=0), digits, CELLS, cancel=cancel)


def test_bad_arguments_are_refused(digits: Dataset) -> None:
    shared, wrong = Supernet(patch=1), (ValueError, TypeError)
    with pytest.raises(ValueError, match="cells must name at least one cell; got none"):
        share(digits, [])
    with pytest.raises(ValueError, match="cell must have 1, 2 and 2 operations"):
        scores(shared, digits, ["conv3"])
    with pytest.raises(wrong, match="cell must lead from its input"):
        share(digits, ["conv3 | none none | none skip"])
    with pytest.raises(wrong, match="dataset must be a Dataset"):
        share(digits.train, CELLS)  # type: ignore[arg-type]
    with pytest.raises(wrong, match="dataset must be a Dataset"):
        scores(shared, digits.train, CELLS)  # type: ignore[arg-type]
    with pytest.raises(wrong, match="supernet must be a Supernet"):
        scores(models.CellNet(CELLS[0]), digits, CELLS)  # type: ignore[arg-type]
    with pytest.raises(wrong, match="epochs must be 0 or more; got -1"):
        share(digits, CELLS, epochs=-1)
    with pytest.raises(wrong, match="seed must be 0 or more; got -1"):
        share(digits, CELLS, seed=-1)
    with pytest.raises(wrong, match="images must be 2 or more; got 1"):
        scores(shared, digits, CELLS, images=1)
