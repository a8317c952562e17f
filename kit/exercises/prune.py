"""Checks of the notebook on pruning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kit.exercises.verdict import Wrong, answered, checked, compare, share


@checked
def smallest_mask(answer: Callable[[Tensor, float], Tensor]) -> str:
    """Write magnitude pruning of one tensor.

    Args:
        answer: takes a weight tensor of any shape and a ratio in [0, 1); returns a boolean tensor of that shape, True
            where a weight stays, with exactly round(ratio * n) of them False: those with the smallest absolute value.
    """
    weight = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(1))  # [6, 5, 2], half negative
    tied = torch.tensor([2.0, -1.0, 1.0, 1.0, -3.0])  # which of the equal ones goes is free
    for tensor, ratio in ((weight, 0.35), (weight, 0.33), (weight, 0.8), (tied, 0.4), (weight, 0.0)):
        drop = round(ratio * tensor.numel())
        try:
            mask = answered(answer(tensor.clone(), ratio))
        except (RuntimeError, IndexError) as error:
            if drop == 0:
                raise Wrong(f"At ratio 0 nothing goes, and your code stops: {error}") from None
            raise
        if not isinstance(mask, Tensor) or mask.shape != tensor.shape or mask.dtype != torch.bool:
            came = f"{mask.dtype}, {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise Wrong(f"The mask must be torch.bool and of the weight's shape {tuple(tensor.shape)}; got {came}.")
        _check_smallest(tensor, mask, drop, ratio)
    return "Exactly the smallest went, at every ratio."


def _check_smallest(weight: Tensor, mask: Tensor, drop: int, ratio: float) -> None:
    size, gone = weight.abs(), int((~mask).sum())
    if gone == weight.numel() - drop and 0 < drop < weight.numel() and bool(size[mask].max() <= size[~mask].min()):
        raise Wrong("True and False are swapped: the mask is True where a weight stays.")
    if gone != drop:
        raise Wrong(f"At ratio {ratio:g}, round(ratio * n) = {drop} of {weight.numel()} weights must go; {gone} went.")
    if drop and bool(size[~mask].max() > size[mask].min()):
        if bool(weight[~mask].max() <= weight[mask].min()):
            raise Wrong("Large negative weights went first: compare absolute values.")
        raise Wrong(f"At ratio {ratio:g} the count is right, but smaller weights stayed while larger ones went.")


@checked
def sparse_break_even(answer: float | None) -> str:
    """From which ratio on is the sparse file the smaller one?

    Args:
        answer: the share of zeros at which both are equal, when a dense weight takes 4 bytes and a non-zero weight in
            the sparse file 5 (4 for the value, 1 for the gap).
    """
    mistakes = [
        (0.8, "0.8 is the share of weights that stay; asked is the share that is zero."),
        (0.5, "Half would be right if a position took as many bytes as a value; here it takes one."),
    ]
    otherwise = "Write both sizes for n weights with a share r of zeros, 4 n and 5 n (1 - r), and equate them."
    compare(share(answer), 0.2, "", mistakes, otherwise, near=1e-3)
    return "From 20 % zeros on the sparse file is smaller; at 90 % it is eight times smaller than the dense one."


@checked
def repaired_listing(net_class: type[nn.Module], prune_half: Callable[[nn.Module], Any]) -> str:
    """Mend the chapter's listing: a network for the 8x8 digits, half of its weights pruned.

    Args:
        net_class: called without arguments; its instance takes [n, 1, 8, 8] images to [n, 10] logits, and something
            that is not linear stands between any two of its layers.
        prune_half: takes the instance and sets the half of all its conv and linear weights with the smallest absolute
            value to zero, in place, all layers ranked together.
    """
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = net_class()
    layers = {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    seen: list[tuple[str, Tensor, Tensor]] = []  # name, what came in, what went out
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, came, out, name=name: seen.append((name, came[0], out)))
    try:
        logits = net(images)
    except RuntimeError as error:
        raise Wrong(f"The network cannot take an 8x8 image. PyTorch says: {error}") from None
    if logits.shape != (4, 10):
        raise Wrong(f"The network must answer [4, 10] logits for 4 images; got {list(logits.shape)}.")
    for (before, _, out), (after, came, _) in itertools.pairwise(seen):
        if out.numel() == came.numel() and torch.allclose(out.flatten(), came.flatten()):
            raise Wrong(f"Nothing stands between {before} and {after}: two linear maps in a row are one linear map.")
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    try:
        prune_half(net)
    except (TypeError, ValueError, AttributeError) as error:
        takes = "It takes a list of pairs (module, name), and the method as a class."
        raise Wrong(f"The pruning call raises {type(error).__name__}: {error}. {takes}") from None
    zero = {name: layers[name].weight.detach() == 0 for name in dense}
    share = sum(int(mask.sum()) for mask in zero.values()) / sum(mask.numel() for mask in zero.values())
    if abs(share - 0.5) > 0.005:
        raise Wrong(f"Half of all weights must be zero; {100 * share:.0f} % are.")
    largest_gone = max(float(dense[name][mask].abs().max()) for name, mask in zero.items() if mask.any())
    smallest_left = min(float(dense[name][~mask].abs().min()) for name, mask in zero.items() if not mask.all())
    if largest_gone > smallest_left:
        raise Wrong("Larger weights went while smaller ones stayed: rank the absolute values of all layers together.")
    return "It runs on 8x8 images, no two linear maps touch, and the smallest half of all weights is gone."


@checked
def ratio_for_a_tenth(answer: float | None) -> str:
    """Which channel ratio leaves a tenth of a middle layer's FLOPs?

    Args:
        answer: the share r of channels that every hidden layer loses, such that a convolution [out, in, k, k] between
            two of them keeps a tenth of its multiplications: (1 - r)^2 = 0.1.
    """
    adds = "The two sides multiply, they do not add: out x in, each times (1 - r)."
    mistakes = [
        (0.9, "0.9 leaves a hundredth: the layer loses inputs as well as outputs."),
        (math.sqrt(0.1), "That is the share that stays; asked is the ratio that goes."),
        (0.95, adds),
        (0.05, adds),
    ]
    otherwise = "The multiplications are out x in x k x k for each place; both out and in shrink by (1 - r)."
    compare(share(answer), 1 - math.sqrt(0.1), "", mistakes, otherwise, near=5e-3)
    return "Two thirds of the channels take nine tenths of the work, because both sides of a layer shrink."
