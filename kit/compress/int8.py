"""Linear layers in 8-bit whole numbers, as PyTorch runs them on a CPU today: to time and to test, not to save."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kit import checks
from kit.prune.joints import TransposedLinear, exchanged
from kit.prune.plain import plain

LARGEST = 127  # of the whole numbers: symmetric about zero


class Int8Linear(nn.Module):
    """A linear layer that multiplies whole numbers and scales the sums.

    Weights have a scale for each output, inputs one for each row, found anew at each call (dynamic quantisation).
    Source: Dettmers et al. 2022, arXiv:2208.07339, section 3.1 (vector-wise quantisation).
    """

    rows: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        weight = layer.weight.detach()
        weight = _exact(weight.t() if isinstance(layer, TransposedLinear) else weight)  # [out, in]
        self.register_buffer("scales", _scales(weight))  # [out, 1]
        self.register_buffer("rows", (weight / self.scales).round().to(torch.int8))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """The weights that it computes with, as floating-point numbers [out, in]."""
        return self.rows * self.scales

    def forward(self, input: Tensor) -> Tensor:
        """Map input [..., in], named as in nn.Linear, to [..., out], in the number type of `input`."""
        flat = _exact(input).reshape(-1, input.shape[-1])  # [n, in]
        scales = _scales(flat)  # [n, 1]
        sums = torch._int_mm((flat / scales).round_().to(torch.int8), self.rows.t())  # int32 [n, out]
        y = sums * (scales * self.scales.t())
        y = y if self.bias is None else y + self.bias
        return y.to(input.dtype).view(*input.shape[:-1], -1)


def int8(model: nn.Module) -> nn.Module:
    """A copy of `model` whose linear layers compute in 8-bit whole numbers; all else stays.

    It learns no more, and its file is not smaller: it shows what int8 is worth on this machine. That is little for one
    sample of a small network, where finding the scales takes longer than the product, and much for many samples, if
    the processor multiplies 8-bit numbers in vectors (x86 with VNNI). Convolutions stay: PyTorch has no int8 ones
    without tensor types that it is about to remove. The weights that attention uses without calling their layer stay,
    and so do layers with hooks, such as those of `quantise(activations=8)`.

    Raises:
        ValueError: no linear layer without hooks, or a model that cannot be copied.
        TypeError: no `nn.Module`.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    quick = plain(model)
    layers: list[Any] = [m for m in quick.modules() if type(m) is nn.Linear or isinstance(m, TransposedLinear)]
    layers = [each for each in layers if each.weight.numel() and not (each._forward_hooks or each._forward_pre_hooks)]
    made = {each: Int8Linear(each).train(each.training) for each in layers}
    if not made:
        raise ValueError(f"model: {type(model).__name__} has no linear layer without hooks.")
    return exchanged(quick, made)


def _exact(x: Tensor) -> Tensor:
    """In half precision the largest number over its scale would not be 127, and 128 is no int8."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scales(rows: Tensor) -> Tensor:
    """What one step of the whole numbers is worth, for each row. [n, in] -> [n, 1]"""
    return (rows.abs().amax(1, keepdim=True) / LARGEST).clamp_min(torch.finfo(rows.dtype).tiny)
