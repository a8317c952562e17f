"""Checks of the notebook on pruning."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.exercises.verdict import Wrong, answered, checked, compare, share
from kit.measure import Estimate

TARGET = 0.95  # share of all weights that `own_ratios` must remove


@checked
def smallest_mask(answer: Callable[[Tensor, float], Tensor | np.ndarray]) -> str:
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
            mask = _tensor(answered(answer(tensor.clone(), ratio)))
        except (RuntimeError, IndexError) as error:
            if drop == 0:
                raise Wrong(f"At ratio 0 nothing goes, and your code stops: {error}") from None
            raise
        if not isinstance(mask, Tensor) or mask.shape != tensor.shape or mask.dtype != torch.bool:
            came = f"{mask.dtype}, {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise Wrong(f"The mask must be torch.bool and of the weight's shape {tuple(tensor.shape)}; got {came}.")
        _check_smallest(tensor, mask, drop, ratio)
    return "Exactly the smallest went, at every ratio."


def _tensor(answer: Any) -> Any:
    """The answer, a numpy array as a tensor."""
    return torch.from_numpy(answer) if isinstance(answer, np.ndarray) else answer


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
def taylor_scores(answer: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor | np.ndarray]) -> str:
    """Score the weights of one layer by the loss.

    Args:
        answer: takes a network, one of its weights, inputs [n, ...] and labels [n]; returns |w g|, shaped like the
            weight, with g the gradient by w of the mean cross-entropy in nats. The network stays as it is.
    """
    net = models.MLP((6, 5, 3), seed=1)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 6, generator=generator), torch.arange(8) % 3  # [8, 6], [8]
    weight = next(net.parameters())  # [5, 6]
    w = weight.detach().clone()
    (g,) = torch.autograd.grad(F.cross_entropy(net(x), y), weight)  # [5, 6]
    mistakes = [
        (w * g, "Signs are left in: a change of the loss counts in both directions, so take the absolute value."),
        (g.abs(), "That is the gradient alone: what does the weight's own size say about how far it moves to 0?"),
        (w.abs(), "That is magnitude: the gradient of the loss is missing."),
        ((w * g).square(), "That is the square. It ranks alike, but it is no change of the loss in nats."),
        (len(x) * (w * g).abs(), f"{len(x)} times too large, for {len(x)} samples: L is their mean loss, not the sum."),
    ]
    for turn in ("first", "second"):
        score = _tensor(answered(answer(net, weight, x, y)))
        if not isinstance(score, Tensor) or score.shape != w.shape:
            came = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise Wrong(f"One score for each weight is wanted, of shape {tuple(w.shape)}; got {came}.")
        if not torch.equal(weight, w):
            raise Wrong("The network has changed: to score a weight, do not move it.")
        if not torch.allclose(score, (w * g).abs(), atol=1e-6):
            if turn == "second":
                raise Wrong("Right the first time, and wrong the second: backward() adds to what .grad holds already.")
            reasons = (reason for wrong, reason in mistakes if torch.allclose(score, wrong, atol=1e-6))
            raise Wrong(next(reasons, "The shape is right, the numbers are not: |w g|, g by w of the mean loss."))
    return "One backward pass, and every weight has its share of the loss, to first order."


@checked
def own_ratios(answer: Mapping[str, float] | None) -> str:
    """Share out 95 % of zeros over the layers; the rival is one threshold for all layers.

    Args:
        answer: a ratio for each weight of `models.ConvNet`, by its name; what is left out loses nothing. Together they
            remove 95 % of all weights or more. Judged without fine-tuning, on validation images, by eight networks that
            are trained for this; right where the whole interval of the mean difference is above 0.
    """
    sizes = {name: weight.numel() for name, weight in prune.prunable(models.ConvNet()).items()}
    if not isinstance(answered(answer), Mapping):
        raise Wrong(f"Give a dict of ratios by name, as {{'fc1.weight': 0.9}}; got {type(answer).__name__}.")
    ratios = {name: float(ratio) for name, ratio in answer.items()} if answer else {}
    if unknown := set(ratios) - set(sizes):
        raise Wrong(f"{', '.join(map(str, unknown))}: no such weight; there are {', '.join(sizes)}.")
    if outside := [name for name, ratio in ratios.items() if not 0 <= ratio < 1]:
        raise Wrong(f"{outside[0]}: a ratio is the share that goes, from 0 to below 1; got {ratios[outside[0]]:g}.")
    removed = sum(sizes[name] * ratio for name, ratio in ratios.items()) / sum(sizes.values())
    if removed < TARGET - 1e-4:
        raise Wrong(f"These ratios remove {100 * removed:.1f} % of all weights; {100 * TARGET:.0f} % must go.")
    own = [_accuracy(prune.weights(net, ratio=ratios)) for net, _ in _judges()]
    rival = [accuracy for _, accuracy in _judges()]
    ahead = Estimate.from_pairs(own, rival)
    means = f"you {100 * sum(own) / len(own):.0f} %, one threshold {100 * sum(rival) / len(rival):.0f} %"
    score = f"Over {ahead.n} new networks: {means}; difference {ahead.points}."
    if ahead.low <= 0:
        raise Wrong(f"{score} The threshold is beaten when the whole interval is above 0.")
    return f"{score} Beaten. Can you do better still?"


@functools.cache
def _judges() -> list[tuple[nn.Module, float]]:
    """Networks that no reader has tuned on, each with the accuracy that one threshold for all layers leaves."""
    nets = [models.ConvNet(seed=seed) for seed in range(100, 108)]
    for seed, net in enumerate(nets):
        training.fit(net, data.digits(), epochs=8, seed=seed)
    return [(net, _accuracy(prune.weights(net, ratio=TARGET))) for net in nets]


def _accuracy(net: nn.Module) -> float:
    return measure.accuracy(net, data.digits().validation).value


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
    order: list[str] = []  # of the layers, as they are called
    hooks = [layer.register_forward_hook(lambda *_, name=name: order.append(name)) for name, layer in layers.items()]
    try:
        logits = net.eval()(images)
    except RuntimeError as error:
        raise Wrong(f"The network cannot take an 8x8 image. PyTorch says: {error}") from None
    for hook in hooks:
        hook.remove()
    if logits.shape != (4, 10):
        raise Wrong(f"The network must answer [4, 10] logits for 4 images; got {list(logits.shape)}.")
    for before, after in itertools.pairwise(order):
        if _affine(net, images, layers[before], layers[after]):
            linear = "two linear maps in a row are one linear map"
            raise Wrong(f"Nothing non-linear stands between {before} and {after}: {linear}.")
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    biases = {name: layer.bias.detach().clone() for name, layer in layers.items() if layer.bias is not None}
    try:
        prune_half(net)
    except (TypeError, ValueError, AttributeError) as error:
        takes = "It takes a list of pairs (module, name), and the method as a class."
        raise Wrong(f"The pruning call raises {type(error).__name__}: {error}. {takes}") from None
    for name, bias in biases.items():
        if not torch.equal(torch.as_tensor(layers[name].bias), bias):
            raise Wrong(f"The bias of {name} has changed: rank the weights alone.")
    zero = {name: layers[name].weight.detach() == 0 for name in dense}
    share = sum(int(mask.sum()) for mask in zero.values()) / sum(mask.numel() for mask in zero.values())
    if abs(share - 0.5) > 0.005:
        raise Wrong(f"Half of all weights must be zero; {100 * share:.0f} % are.")
    largest_gone = max(float(dense[name][mask].abs().max()) for name, mask in zero.items() if mask.any())
    smallest_left = min(float(dense[name][~mask].abs().min()) for name, mask in zero.items() if not mask.all())
    if largest_gone > smallest_left:
        raise Wrong("Larger weights went while smaller ones stayed: rank the absolute values of all layers together.")
    return "It runs on 8x8 images, no two linear maps touch, and the smallest half of all weights is gone."


@torch.no_grad()
def _affine(net: nn.Module, images: Tensor, before: nn.Module, after: nn.Module) -> bool:
    """Whether what comes into one layer is an affine map of what another puts out: c(s + t) + c(0) = c(s) + c(t)."""

    def came(s: int, t: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)  # the same two draws each time

        def put(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
            first, second = (torch.randn(out.shape, generator=generator) for _ in range(2))
            return s * first + t * second

        seen: list[Tensor] = []
        hooks = (
            before.register_forward_hook(put),
            after.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
        )
        net(images)
        for hook in hooks:
            hook.remove()
        return seen[-1]

    return torch.allclose(came(1, 1) + came(0, 0), came(1, 0) + came(0, 1), atol=1e-4)


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
