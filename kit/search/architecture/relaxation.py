"""DARTS: choose operations by their slopes. Each edge has all of them, in a mixture that gradient descent moves.

    alphas* = argmin V(w*(alphas), alphas),   w*(alphas) = argmin L(w, alphas),   mix = softmax(alphas), edge by edge

L is the loss on one half of the training images, V that on the other. Source: Liu et al. 2019, arXiv:1806.09055.

| to | call |
|---|---|
| search | `found = darts(mnist, order=1)` |
| see what was chosen after each step | `found.cells`, `found.free` |
| choose under a limit | `chosen(found.alphas[-1], cells)` |
| see what the mixture was | `found.mixes`, `found.losses` |
| take the slope of the alphas in any way | `Unrolled(1).at(relaxed(supernet, lambda: (first, second)), ...)` |
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Event
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from kit import checks
from kit.cells import EDGES, OPERATIONS, Cell, as_cells
from kit.data import Dataset, Split
from kit.inference import as_taken, check_cancel
from kit.search.architecture.supernet import Supernet
from kit.search.architecture.table import SAMPLES, part, sizes_of
from kit.search.gradient import Problem, Tensors, Unrolled
from kit.search.gradient.networks import batches
from kit.search.space import Float

Gates = Literal["softmax", "sigmoid"]
FREE = ("skip", "pool")  # operations without weights
MOMENTUM = 0.9  # of the weights
BETAS = (0.5, 0.999)  # of Adam on the alphas, as in the paper


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A search by gradients, step by step.

    Attributes:
        alphas: before the first step and after each, [steps + 1, 5 edges, 5 operations], as `EDGES` and `OPERATIONS`.
        losses: V of the mixture on the batch of each step, nats, after the weights' step and before that of the
            alphas, [steps].
        gates: what makes a mixture of alphas.
    """

    alphas: Tensor
    losses: Tensor
    gates: Gates

    @cached_property
    def mixes(self) -> Tensor:
        """The weight of each operation, shaped as `alphas`."""
        return mix(self.alphas, self.gates)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cell that is chosen at each step, as `chosen` does, [steps + 1]."""
        return tuple(map(chosen, self.alphas))

    @cached_property
    def free(self) -> Tensor:
        """Of how many edges of each chosen cell the operation has no weights: skip or pool, 0 to 5. -> [steps + 1]."""
        return torch.tensor([sum(each in FREE for each in cell.operations) for cell in self.cells])


def chosen(alphas: Tensor, cells: Sequence[Cell | str] | None = None) -> Cell:
    """The operation of each edge with the greatest alpha, [5, 5] -> a cell, not canonical; "none" is never chosen.

    So the cell is always connected. Among equal ones the first of `OPERATIONS` is chosen.

    Args:
        alphas: as in `Relaxation`, of one step.
        cells: such as those that keep a limit: the choice is one of their networks, that with the greatest sum of
            alphas. A ValueError where each of them needs a "none".

    Source: Liu et al. 2019, section 2.4, who leave out "none" as well, and then keep the two strongest edges into each
    node: here there are no more than two.
    """
    if cells is None:
        return Cell(tuple(OPERATIONS[1:][at] for at in alphas[:, 1:].argmax(1).tolist()))
    allowed = set(as_cells(cells))
    every = map(Cell, itertools.product(OPERATIONS[1:], repeat=len(EDGES)))
    if not (found := [cell for cell in every if cell.canonical in allowed]):
        raise ValueError(f"cells must name a network that needs no 'none'; got {len(allowed)} that all do.")
    places = torch.tensor([[OPERATIONS.index(each) for each in cell.operations] for cell in found])  # [m, 5]
    return found[int(alphas.gather(1, places.T).sum(0).argmax())]


def mix(alphas: Tensor, gates: Gates = "softmax") -> Tensor:
    """The weights of a mixture, [..., 5, 5].

    Softmax, so that the operations of an edge compete; or each its own sigmoid (Chu et al. 2020, arXiv:1911.12126).
    """
    return alphas.softmax(-1) if gates == "softmax" else alphas.sigmoid()


def relaxed(
    supernet: Supernet,
    splits: Callable[[], tuple[Split, Split]],
    *,
    lr: float = 0.1,
    gates: Gates = "softmax",
) -> Problem:
    """Both levels as a problem of one step: a supernet's weights learn, its "alphas" [5, 5], all 0 at first, are tuned.

    Args:
        supernet: its weights are where the training begins; it is not changed.
        splits: called for each loss: what the weights learn from, and what the alphas do. Mean cross-entropies, nats.
        lr: of the weights, above 0.
        gates: what makes a mixture of alphas, "softmax" or "sigmoid".

    Raises:
        ValueError: an argument out of range.
        TypeError: one of another kind.
    """
    checks.instance("supernet", supernet, Supernet)
    checks.one_of("gates", gates, get_args(Gates))

    def loss(which: int, weights: Tensors, hyper: Tensors, at: int = 0) -> Tensor:
        split = splits()[which]
        inputs = as_taken(supernet, split.inputs)
        logits = functional_call(supernet, weights, (inputs, mix(hyper["alphas"], gates)))
        return F.cross_entropy(logits, split.labels)

    weights = {name: each.detach() for name, each in supernet.named_parameters()}
    alphas = torch.zeros(len(EDGES), len(OPERATIONS), dtype=next(iter(weights.values())).dtype)
    space, hyper = {"alphas": Float(-100, 100)}, {"alphas": alphas}  # they are not clamped
    return Problem(partial(loss, 0), partial(loss, 1), weights, space, hyper, steps=1, lr=lr, momentum=MOMENTUM)


def darts(
    dataset: Dataset,
    *,
    order: Literal[1, 2] = 1,
    steps: int = 100,
    seed: int = 0,
    gates: Gates = "softmax",
    lr: float = 0.1,
    rate: float = 0.1,
    batch_size: int = 50,
    samples: int = SAMPLES,
    on_step: Callable[[Relaxation], None] | None = None,
    cancel: Event | None = None,
) -> Relaxation:
    """Train the weights of a supernet and its alphas by turns, a step each.

    The slope of the alphas is that of `Unrolled`: of first order through none of the steps of the weights, of second
    order through the last one. It is the step that the weights really take, with its momentum, where the paper takes
    one on trial and throws it away. So a step of first order costs two gradients, of second order four.

    Args:
        dataset: images. Half of `samples` training images teach the weights, the others the alphas; validation and test
            are not read.
        order: 1 or 2.
        steps: 1 or more.
        seed: of the weights, the halves and the batches.
        gates: what makes a mixture of alphas: "softmax", or "sigmoid", so that operations do not compete.
        lr: of the weights, above 0; their momentum is 0.9.
        rate: of Adam on the alphas, above 0: about how far each moves in a step.
        batch_size: images of a step, of either half, 1 or more; all of a half where it has fewer.
        samples: training images, drawn from those of the table, 2 to 1,000. With 100, conv3 fades from the mixture.
        on_step: called after each step with what there is so far.
        cancel: looked at before each step.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of another kind.
        training.Cancelled: `cancel` was set.
        training.Diverged: the weights did; try a smaller lr.
    """
    checks.instance("dataset", dataset, Dataset)
    checks.one_of("order", order, (1, 2))
    checks.whole("steps", steps, 1)
    rate = checks.number("rate", rate, above=0)
    images = part(dataset).train
    generator = torch.Generator().manual_seed(checks.whole("seed", seed))
    samples = min(checks.whole("samples", samples, 2, SAMPLES), len(images))
    halves = torch.randperm(len(images), generator=generator)[:samples].tensor_split(2)
    batch_size = min(checks.whole("batch_size", batch_size, 1), len(halves[1]))
    rows = batches(len(halves[1]), batch_size, steps, generator)  # the same order in both halves

    def splits() -> tuple[Split, Split]:  # of the step that the loop below is at
        places = [half[rows[at % len(rows)]] for half in halves]
        first, second = (Split(images.inputs[each], images.labels[each]) for each in places)
        return first, second

    at = 0
    problem = relaxed(Supernet(**sizes_of(dataset), seed=seed), splits, lr=lr, gates=gates)
    way, state, hyper = Unrolled(back=order - 1), problem.begin(), dict(problem.hyper)
    adam = torch.optim.Adam(list(hyper.values()), lr=rate, betas=BETAS)
    alphas, losses = [hyper["alphas"].clone()], list[float]()
    for at in range(steps):
        check_cancel(cancel, f"after {at} steps")
        path = problem.path(hyper, state=state, steps=1)
        found = way.at(problem, hyper, path)
        state, hyper["alphas"].grad = path[-1], found.slope["alphas"]
        adam.step()
        alphas.append(hyper["alphas"].clone())
        losses.append(found.loss)
        so_far = Relaxation(torch.stack(alphas), torch.tensor(losses), gates)
        if on_step is not None:
            on_step(so_far)
    return so_far
