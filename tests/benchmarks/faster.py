"""A smaller network against a faster one: what folding, int8 and sparse products are worth in time on this machine.

Each is timed in turns with the plain float32 network, both on one thread: else the larger one alone would have more.
Weights are untrained: a product takes as long with any others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kit import compress, cores, data, measure, models, prune
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

RUNS = 99
BATCHES = (1, 64, 256)
SPARSE = (0.9, 0.98)
BUDGETS = (0.5, 0.2)  # shares of the numbers that a factored network keeps


def faster(say: Say) -> Iterator[Row]:
    """Folding on two residual networks; int8 and CSR on three networks of (mostly) linear layers."""
    images = torch.rand(256, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    digits = data.digits()
    for name, net, inputs in (
        ("small", models.ResNet(), digits.train.inputs),
        ("deep", models.ResNet(widths=(32, 64, 128), blocks=2), images),
    ):
        folded = compress.fold(net, digits).model
        for batch in BATCHES[:2]:
            what = f"ResNet, {name}, batch {batch}: latency as it is / batch norm folded"
            yield _row(f"fold.{name}.{batch}", what, net, folded, inputs, batch, 1.1)
    wide = models.MLP((784, 1000, 1000, 10))
    for budget in BUDGETS:
        thin = compress.low_rank(wide, budget=budget).model
        share = measure.flops(wide, images) / measure.flops(thin, images)
        what = f"784-1000-1000-10, batch 256, {budget:g} of its numbers by low rank: latency ratio / FLOPs ratio"
        with cores.one_thread():
            both = measure.latencies([wide, thin], images, batch_size=256, runs=RUNS)
        yield Row.of(
            f"compression.low_rank.{budget:g}",
            what,
            share,
            both[0].value / both[1].value,
            "times smaller",
            Target("at least", 0.7),
        )
    for name, made in (
        ("lenet300", models.lenet_300_100()),
        ("lenet5", models.LeNet5()),
        ("wide", wide),
    ):
        quick = compress.int8(made)
        pruned = {ratio: sparse(prune.weights(made, ratio=ratio)) for ratio in SPARSE}
        for batch in BATCHES:
            what = f"{name}, batch {batch}: float32 latency / int8 linear layers"
            yield _row(f"int8.{name}.{batch}", what, made, quick, images, batch, 1)
            for ratio, other in pruned.items():
                what = f"{name}, batch {batch}: float32 latency / {100 * ratio:g} % pruned, linear layers in CSR"
                yield _row(f"csr{100 * ratio:g}.{name}.{batch}", what, made, other, images, batch, 1)


def _row(name: str, what: str, dense: nn.Module, other: nn.Module, inputs: Tensor, batch: int, least: float) -> Row:
    with cores.one_thread():
        both = measure.latencies([dense, other], inputs, batch_size=batch, runs=RUNS)
    ours, rival = both[1].value, both[0].value
    return Row.of(f"compression.{name}", what, ours, rival, "ms", Target("at least", least))


class Sparse(nn.Module):
    """A linear layer whose weight is kept as compressed rows (CSR)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach().to_sparse_csr(), layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias[:, None], self.weight, x.t()).t()  # [n, in] -> [n, out]


def sparse(model: nn.Module) -> nn.Module:
    """The model with its linear layers in CSR, in place."""
    for module in list(model.modules()):
        for key, child in module.named_children():
            if isinstance(child, nn.Linear):
                module.add_module(key, Sparse(child))
    return model
