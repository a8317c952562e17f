"""Forward and backward passes of K networks at once; the samples stand last, where the processor's vectors are longest.

| symbol | meaning | shape |
|---|---|---|
| x | inputs, each member's own | [K, B, ...]: members, samples of the batch |
| h | a hidden layer after ReLU and dropout | [K, width, B] |
| z | logits | [K, C, B]: classes |
| d | gradient of the loss in a layer's sums | [K, width, B] |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kit import models
from kit.inference import copy_of

Blocks = dict[str, Tensor]  # name of a parameter -> [members, *its shape]


def logits(template: nn.Module, blocks: Blocks, inputs: Tensor, dropped: Sequence[Tensor] | None = None) -> Tensor:
    """Logits of each network for inputs of its own, differentiable in the blocks. [K, n, ...] -> [K, C, n].

    `dropped` multiplies each hidden unit, [K, width, n] a layer, of a `BagOfWords`; None without dropout.

    One cohort of ConvNets is one network with grouped convolutions: that measured fastest (on two cores a step took 1.3
    to 1.7 times as long by `torch.func.vmap`, 2.6 to 4 times by unfolding). Other modules go through `vmap`.
    """
    if type(template) is models.MLP:
        return _linear(layers(blocks), inputs.flatten(2))
    if type(template) is models.ConvNet:
        conv1, conv2, *linear = layers(blocks)
        k, n = inputs.shape[:2]
        x = inputs.transpose(0, 1).flatten(1, 2)  # [n, K * channels, h, w]
        x = F.relu(F.conv2d(x, conv1[0].flatten(0, 1), conv1[1].flatten(), padding=1, groups=k))
        x = F.conv2d(x, conv2[0].flatten(0, 1), conv2[1].flatten(), padding=1, groups=k)
        return _linear(linear, F.relu(F.max_pool2d(x, 2)).view(n, k, -1).transpose(0, 1))
    if type(template) is models.BagOfWords:
        tables, *head = blocks.values()
        h = _means(tables, inputs)  # [K, n, width]
        return _linear([(head[0], head[1])], h if dropped is None else h * dropped[0].mT)
    return vmap(lambda parameters, own: functional_call(template, parameters, (own,)))(blocks, inputs).transpose(1, 2)


def _means(tables: Tensor, ids: Tensor) -> Tensor:
    """Mean embeddings, each network's from a table of its own, [K, ids, width]. [K, n, length] -> [K, n, width]."""
    there = ids != 0  # [K, n, length]
    shares = there / there.sum(2, keepdim=True).clamp_min(1)
    rows = ids + tables.shape[1] * torch.arange(len(ids))[:, None, None]  # in all tables, one under the other
    how: Any = {"mode": "sum", "per_sample_weights": shares.flatten(0, 1)}
    return F.embedding_bag(rows.flatten(0, 1), tables.flatten(0, 1), **how).view(*ids.shape[:2], -1)


def _linear(layers: list[tuple[Tensor, Tensor]], inputs: Tensor) -> Tensor:
    """Linear layers with ReLU between them. [K, n, in] -> [K, C, n]."""
    h = inputs.mT  # [K, in, n]
    for at, (weight, bias) in enumerate(layers):
        h = torch.baddbmm(bias[..., None], weight, F.relu(h) if at else h)  # [K, width, n]
    return h


def layers(blocks: Blocks) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer, first to last."""
    return [(blocks[name], blocks[name.replace("weight", "bias")]) for name in blocks if name.endswith("weight")]


class AutogradPass:
    """Any family: the gradient comes from autograd. The blocks may change in place between the passes."""

    def __init__(self, template: nn.Module, blocks: Blocks) -> None:
        self._template = template
        self._leaves = {name: block.detach().requires_grad_() for name, block in blocks.items()}

    def forward(self, inputs: Tensor, dropped: Sequence[Tensor] | None) -> Tensor:
        """Logits [K, C, B] of inputs [K, B, ...]; `dropped` as in `logits`."""
        with torch.enable_grad():
            self._z = logits(self._template, self._leaves, inputs, dropped)
        return self._z.detach()

    def backward(self, slope: Tensor) -> Tensor:
        """The gradient in all parameters as one row, [K * P], for the gradient `slope` [K, C, B] in the logits."""
        gradients = torch.autograd.grad(self._z, list(self._leaves.values()), slope)
        return torch.cat([gradient.flatten() for gradient in gradients])


class MLPPass:
    """Back-propagation of MLPs, written out: quicker than autograd, because each step's memory serves the next."""

    def __init__(self, blocks: Blocks) -> None:
        self._layers = layers(blocks)
        self._row = torch.zeros(sum(block.numel() for block in blocks.values()))
        parts = self._row.split([block.numel() for block in blocks.values()])
        shaped = [part.view(block.shape) for part, block in zip(parts, blocks.values(), strict=True)]
        self._gradients = layers(dict(zip(blocks, shaped, strict=True)))
        self._memory: dict[tuple[str, int, int], Tensor] = {}

    def forward(self, inputs: Tensor, dropped: Sequence[Tensor] | None) -> Tensor:
        """Logits [K, C, B] of inputs [K, B, ...], overwritten by the next pass of as many samples.

        `dropped` multiplies each hidden unit, [K, width, B] a layer; None without dropout.
        """
        self._dropped, self._below = dropped, [inputs.flatten(2).mT]  # [K, in, B]
        for at, (weight, bias) in enumerate(self._layers):
            h = self._buffer("h", at, inputs.shape[1])
            torch.baddbmm(bias[..., None], weight, self._below[at], out=h)
            if at < len(self._layers) - 1:
                h.relu_()
                if dropped is not None:
                    h.mul_(dropped[at])
            self._below.append(h)
        return self._below.pop()

    def backward(self, slope: Tensor) -> Tensor:
        """The gradient in all parameters as one row, [K * P], for the gradient `slope` [K, C, B] in the logits."""
        d, batch = slope, slope.shape[2]
        for at in reversed(range(len(self._layers))):
            of_weight, of_bias = self._gradients[at]
            torch.bmm(d, self._below[at].mT, out=of_weight)
            torch.sum(d, 2, out=of_bias)
            if at == 0:
                break
            h, below = self._below[at], self._buffer("d", at - 1, batch)
            torch.bmm(self._layers[at][0].mT, d, out=below)
            if self._dropped is not None:
                below.mul_(self._dropped[at - 1])
            d = below.mul_(torch.sign(h, out=self._buffer("on", at - 1, batch)))  # ReLU passes where h > 0
        return self._row

    def _buffer(self, use: str, layer: int, batch: int) -> Tensor:
        """Memory for one layer's numbers, [K, width, batch]."""
        if (use, layer, batch) not in self._memory:
            self._memory[use, layer, batch] = torch.empty(*self._layers[layer][1].shape, batch)
        return self._memory[use, layer, batch]


def passes(template: nn.Module, blocks: Blocks) -> MLPPass | AutogradPass:
    """The fastest passes for a family."""
    if type(template) is models.MLP:
        return MLPPass(blocks)
    return AutogradPass(copy_of(template), blocks)  # `functional_call` changes it meanwhile, and parts run side by side
