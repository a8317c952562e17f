"""Optimiser steps of all members in one row of numbers, each with its own learning rate, decay and momentum.

Zeros, or equal weights, are held by their gradients: an optimiser that works weight by weight moves equal weights with
equal gradients alike, and leaves a zero with gradient 0 where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kit.cohort.members import Member
from kit.training import Optimiser

Hold = Literal["zeros", "values"]

EPSILON = 1e-8  # of Adam, as in torch


class Stepper:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1) or SGD with momentum, as torch's optimisers do them.

    A member without a sample in a step (it has fewer than others) is left as it is.

    Args:
        members: one per network.
        weights: all parameters in one row, [K * P]; changed in place.
        sizes: numbers of each parameter in one member; the row holds them parameter by parameter.
        optimiser: "adam" or "sgd".
    """

    def __init__(self, members: Sequence[Member], weights: Tensor, sizes: Sequence[int], optimiser: Optimiser) -> None:
        self._w, self._sizes, self._adam = weights, sizes, optimiser == "adam"
        self._lr, self._decay, self._beta1, self._beta2 = (
            np.array([getattr(member, name) for member in members], dtype=np.float64)
            for name in ("lr", "weight_decay", "beta1" if self._adam else "momentum", "beta2")
        )
        self._m = torch.zeros_like(weights)
        self._v, self._scratch = (torch.zeros_like(weights) if self._adam else None for _ in range(2))
        self._steps = np.zeros(len(members))
        self._spreads: dict[bytes, Tensor] = {}

    def step(self, g: Tensor, active: np.ndarray) -> None:
        """One step along -g [K * P, overwritten], for the members that are active, [K] of 0 and 1."""
        self._steps += active
        if self._decay.any():
            g.addcmul_(self._w, torch.as_tensor(self._spread(self._decay)))
        if self._v is None or self._scratch is None:
            self._m.mul_(self._spread(np.where(active, self._beta1, 1.0))).add_(g.mul_(self._spread(active)))
            self._w.add_(torch.mul(self._m, self._spread(-self._lr * active), out=g))
            return
        self._m.lerp_(g, self._spread((1 - self._beta1) * active))
        self._v.lerp_(g.square_(), self._spread((1 - self._beta2) * active))
        # w -= lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon), both corrections moved into constants
        t = np.maximum(self._steps, 1)
        correction = np.sqrt(1 - self._beta2**t)
        torch.sqrt(self._v, out=self._scratch)
        self._scratch.add_(self._spread(EPSILON * correction))
        torch.mul(self._m, self._spread(-self._lr * active * correction / (1 - self._beta1**t)), out=g)
        self._w.addcdiv_(g, self._scratch)

    def _spread(self, values: np.ndarray) -> Tensor | float:
        """A constant per member, as one number if all are alike, else beside each weight. [K] -> number or [K * P]."""
        if bool((values == values[0]).all()):
            return float(values[0])
        key = values.tobytes()
        if key not in self._spreads:
            if len(self._spreads) > 16:  # those that change with time
                self._spreads.clear()
            each = torch.from_numpy(values).float()[:, None]
            self._spreads[key] = torch.cat([each.expand(-1, size).flatten() for size in self._sizes])
        return self._spreads[key]


class Held:
    """Zeros that stay zeros; with "values" also clusters: weights of a member's layer that are equal, and stay so.

    The gradient of a cluster's value is the sum of the gradients of its weights (Han et al. 2016, arXiv:1510.00149,
    section 3.3). Biases move freely.

    Args:
        weights: all parameters in one row, [K * P].
        blocks: the same, parameter by parameter, [K, ...] each.
        hold: "zeros" or "values".
    """

    def __init__(self, weights: Tensor, blocks: Sequence[Tensor], hold: Hold) -> None:
        self._w, self._codes = weights, None
        self._zero = torch.cat([((block == 0) & (block.ndim > 2)).flatten() for block in blocks])  # [K * P]
        if hold == "values":
            codes, count = [], 0
            for block in blocks:
                code = torch.arange(block.numel())  # each bias is a cluster of its own
                if block.ndim > 2:
                    values, code = block.unique(return_inverse=True)
                    code = (code + len(values) * torch.arange(len(block)).view(-1, *[1] * (block.ndim - 1))).flatten()
                    code = code.unique(return_inverse=True)[1]
                codes.append(code + count)
                count += int(code.max()) + 1
            self._codes = torch.cat(codes)  # [K * P]
            self._first = torch.empty(count, dtype=torch.long)  # a weight of each cluster
            self._first[self._codes] = torch.arange(len(weights))

    def project(self, gradient: Tensor) -> None:
        """Make of a gradient [K * P], in place, one that moves what is held together alike, and zeros not at all."""
        if self._codes is not None:
            sums = gradient.new_zeros(len(self._first)).index_add_(0, self._codes, gradient)
            torch.index_select(sums, 0, self._codes, out=gradient)
        gradient.masked_fill_(self._zero, 0)  # not a product: NaN times 0 would stay NaN

    def level(self) -> None:
        """Make equal again what an optimiser may have rounded one way or the other, in the last bit."""
        if self._codes is not None:
            self._w.copy_(self._w[self._first][self._codes])
