"""DARTS: its slopes against finite differences, its mixtures against networks of cells, its choice, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad

from kit import data
from kit.cells import EDGES, OPERATIONS, Cell, all_cells, networks, parse
from kit.data import Dataset, Split
from kit.search.architecture import relaxation, table
from kit.search.architecture.relaxation import Gates, Relaxation, chosen, darts, mix, relaxed
from kit.search.architecture.supernet import Supernet
from kit.search.gradient import Unrolled
from kit.training import Cancelled

SHAPE = (len(EDGES), len(OPERATIONS))
GATES: list[Any] = ["softmax", "sigmoid"]


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return data.mnist()


@pytest.fixture(scope="module")
def tiny(mnist: Dataset) -> Dataset:
    return mnist.part(40)


def halves(images: Split) -> tuple[Split, Split]:
    return Split(images.inputs[:20], images.labels[:20]), Split(images.inputs[20:], images.labels[20:])


def drawn(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(tiny: Dataset, **settings: Any) -> tuple[Supernet, tuple[Split, Split], Any]:
    supernet, splits = Supernet(width=2, seed=1).double(), halves(tiny.train)
    return supernet, splits, relaxed(supernet, lambda: splits, **settings)


# -- slopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("order", [1, 2])
def test_slopes_are_those_of_finite_differences(tiny: Dataset, order: int, gates: Gates) -> None:
    lr, width, alphas = 0.1, 1e-6, drawn()
    supernet, (first, second), problem = exact(tiny, lr=lr, gates=gates)
    start = {name: each.detach() for name, each in supernet.named_parameters()}

    def loss(split: Split, weights: dict[str, Tensor], alphas: Tensor) -> Tensor:
        shares = torch.softmax(alphas, 1) if gates == "softmax" else torch.sigmoid(alphas)
        return F.cross_entropy(functional_call(supernet, weights, (split.inputs.double(), shares)), split.labels)

    def stepped(alphas: Tensor) -> dict[str, Tensor]:
        slope = grad(lambda weights: loss(first, weights, alphas))(start)
        return {name: each - lr * slope[name] for name, each in start.items()}

    arrived = stepped(alphas)
    wanted = torch.zeros(SHAPE, dtype=torch.float64)
    for place in torch.cartesian_prod(torch.arange(5), torch.arange(5)).tolist():
        by = torch.zeros(SHAPE, dtype=torch.float64)
        by[tuple(place)] = width
        above, below = (
            loss(second, stepped(moved) if order == 2 else arrived, moved) for moved in (alphas + by, alphas - by)
        )
        wanted[tuple(place)] = (above - below) / (2 * width)
    found = Unrolled(back=order - 1).at(problem, {"alphas": alphas})
    assert found.loss == pytest.approx(float(loss(second, arrived, alphas)), rel=1e-12)
    torch.testing.assert_close(found.slope["alphas"], wanted, rtol=1e-5, atol=1e-8)


def test_the_second_order_is_another_slope(tiny: Dataset) -> None:
    _, _, problem = exact(tiny)
    first, second = (Unrolled(back).at(problem, {"alphas": drawn()}).slope["alphas"] for back in (0, 1))
    assert float((first - second).norm() / first.norm()) > 1e-3


def test_the_first_moves_are_those_of_adam_along_the_slope(tiny: Dataset) -> None:
    """All images in each step, so that the batches are known: then Adam's first step is `rate` against each sign."""
    found = darts(tiny, steps=1, batch_size=20, rate=0.1, seed=3)
    generator = torch.Generator().manual_seed(3)
    rows = torch.randperm(40, generator=generator).tensor_split(2)
    first, second = (Split(tiny.train.inputs[each], tiny.train.labels[each]) for each in rows)
    problem = relaxed(Supernet(seed=3), lambda: (first, second))
    slope = Unrolled(0).at(problem, problem.hyper)
    assert float(found.losses[0]) == pytest.approx(slope.loss, rel=1e-5)
    torch.testing.assert_close(found.alphas[1], -0.1 * slope.slope["alphas"].sign(), rtol=1e-3, atol=1e-5)


# -- mixtures, and the choice ------------------------------------------------------------------------------------------


def test_a_mixture_of_one_operation_an_edge_is_the_network_of_the_cell(tiny: Dataset) -> None:
    supernet, (_, second), problem = exact(tiny)
    cell = parse("conv3 | skip conv1 | none pool")
    alphas = torch.tensor([[60.0 * (each == one) for each in OPERATIONS] for one in cell.operations]).double()
    with torch.no_grad():
        wanted = F.cross_entropy(supernet(second.inputs.double(), cell), second.labels)
    assert float(problem.score(problem.start, {"alphas": alphas})) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("gates", GATES)
def test_mixes_are_shares_that_compete_or_do_not(gates: Gates) -> None:
    alphas = torch.stack([drawn(0), drawn(1)])
    found = mix(alphas, gates)
    wanted = alphas.exp() / alphas.exp().sum(2, keepdim=True) if gates == "softmax" else 1 / (1 + (-alphas).exp())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(Relaxation(alphas, torch.zeros(1), gates).mixes, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_leaves_the_greatest_sum_of_those_that_keep_it(seed: int) -> None:
    alphas = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    few = [cell for cell in networks() if cell.operations.count("conv3") <= 1]
    found = chosen(alphas, list(map(str, few)))

    def worth(cell: Cell) -> float:
        return sum(float(alphas[at, OPERATIONS.index(each)]) for at, each in enumerate(cell.operations))

    rivals = [cell for cell in all_cells() if "none" not in cell.operations and cell.canonical in few]
    assert found.canonical in few and worth(found) == pytest.approx(max(map(worth, rivals)))
    assert chosen(alphas, networks()).canonical == chosen(alphas).canonical
    with pytest.raises(ValueError, match="cells must name a network that needs no 'none'; got 1 that all do"):
        chosen(alphas, ["conv3 | none none | conv3 none"])


def test_none_is_never_chosen_so_each_chosen_cell_is_connected() -> None:
    alphas = torch.zeros(SHAPE)
    alphas[:, 0] = 9  # none
    alphas[torch.arange(5), [1, 2, 3, 4, 1]] = 1
    assert chosen(alphas) == Cell(("skip", "pool", "conv1", "conv3", "skip"))
    found = Relaxation(torch.stack([alphas, torch.zeros(SHAPE)]), torch.zeros(1), "softmax")
    assert found.cells == (chosen(alphas), Cell(("skip",) * 5))
    assert found.free.tolist() == [3, 5]
    assert all(cell.is_connected for cell in found.cells)


# -- the search --------------------------------------------------------------------------------------------------------


def test_the_search_lowers_the_loss_of_the_mixture(mnist: Dataset) -> None:
    found = darts(mnist, steps=25, seed=0)
    assert float(found.losses[-5:].mean()) < float(found.losses[:5].mean()) - 0.3
    assert found.alphas.shape == (26, *SHAPE)
    assert not found.alphas[0].any()


@pytest.mark.parametrize("order", [1, 2])
def test_the_same_seed_gives_the_same_search_and_no_generator_moves(tiny: Dataset, order: Any) -> None:
    before = torch.get_rng_state()
    one, again, other = (darts(tiny, order=order, steps=3, batch_size=8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.alphas, again.alphas)
    assert torch.equal(one.losses, again.losses)
    assert not torch.equal(one.alphas, other.alphas)


def test_weights_and_alphas_never_see_the_same_image_and_neither_validation_nor_test(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = tiny.train.inputs.clone()
    marked[:, 0, 0, 0] = torch.arange(40) / 40  # a corner that tells the images apart
    dataset = replace(tiny, train=Split(marked, tiny.train.labels))
    seen: tuple[set[float], set[float]] = (set(), set())

    def watched(supernet: Supernet, splits: Any, **settings: Any) -> Any:
        def told() -> tuple[Split, Split]:
            for into, split in zip(seen, splits(), strict=True):
                assert len(split) == 8
                into.update(split.inputs[:, 0, 0, 0].tolist())
            return splits()

        return relaxed(supernet, told, **settings)

    monkeypatch.setattr(relaxation, "relaxed", watched)
    darts(dataset, steps=12, batch_size=8)
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(marked[:, 0, 0, 0].tolist())


def test_the_search_reads_the_images_of_the_table_alone(mnist: Dataset) -> None:
    other = replace(mnist, validation=mnist.test, test=mnist.validation)
    found, same, part = (darts(each, steps=1) for each in (mnist, other, table.part(mnist)))
    assert torch.equal(found.alphas, same.alphas)
    assert torch.equal(found.alphas, part.alphas)


def test_each_step_is_told_and_it_can_be_cancelled(tiny: Dataset) -> None:
    told, cancel = list[Relaxation](), Event()

    def on_step(found: Relaxation) -> None:
        told.append(found)
        if len(told) == 2:
            cancel.set()

    with pytest.raises(Cancelled, match="after 2 steps"):
        darts(tiny, steps=9, batch_size=8, on_step=on_step, cancel=cancel)
    assert [len(each.alphas) for each in told] == [2, 3]
    assert torch.equal(told[1].alphas, darts(tiny, steps=2, batch_size=8).alphas)


def test_a_batch_is_a_whole_half_at_most(tiny: Dataset) -> None:
    assert torch.equal(darts(tiny, steps=2).alphas, darts(tiny, steps=2, batch_size=20).alphas)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"order": 3}, ValueError, "order must be one of 1, 2"),
        ({"steps": 0}, ValueError, "steps must be 1 or more"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"gates": "hard"}, ValueError, "gates must be one of softmax, sigmoid"),
        ({"lr": 0}, ValueError, "lr must be above 0"),
        ({"rate": 0}, ValueError, "rate must be above 0"),
        ({"samples": 1}, ValueError, "samples must lie in 2 .. 1000"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused(tiny: Dataset, wrong: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        darts(tiny, **{"steps": 1, "batch_size": 8, **wrong})


def test_what_is_no_data_set_and_no_supernet_is_refused() -> None:
    with pytest.raises(TypeError, match="dataset must be"):
        darts([])  # type: ignore[arg-type]
    flat = data.from_arrays(torch.zeros(40, 5), torch.arange(40) % 2)
    with pytest.raises(ValueError, match="dataset must be of images"):
        darts(flat, steps=1, batch_size=2)
    with pytest.raises(TypeError, match="supernet must be"):
        relaxed(torch.nn.Identity(), lambda: ...)  # type: ignore[arg-type, return-value]
