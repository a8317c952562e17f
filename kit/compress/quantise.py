"""Uniform quantisation: weights (and what comes into layers) as small whole numbers times a step.

A weight w becomes step * code, where code is w / step, rounded, within low .. high: -(2^(b-1) - 1) .. 2^(b-1) - 1 for b
bits (symmetric), or 2^b codes from the smallest number to the largest (affine), 0 among them. So zeros stay zeros.
A quantised tensor is a plain tensor of floating-point numbers; its codes can be read off it at any time (`grid`): steps
have so few bits that step * code is exact in the tensor's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset
from kit.prune import plain, prunable
from kit.prune.joints import LAYERS, TransposedLinear
from kit.prune.plain import as_plain

Per = Literal["tensor", "channel"]
PERS: tuple[Per, ...] = get_args(Per)

LEAST_BITS, MOST_BITS = 2, 8
CALIBRATION_SAMPLES = 1024  # training samples
CALIBRATION_NUMBERS = 50_000  # that come into a layer with a batch, at most
CALIBRATION_BATCH = 256
_CLIPS = 20  # steps that are tried
_LOOK_ROWS, _LOOK = 16, 4096  # numbers by which most tensors are seen to be on no grid
PART = 1 << 18  # numbers that are compared at once
_STEP_BITS = 11  # of a step's mantissa: float16 holds them


@dataclass(frozen=True)
class Levels:
    """The numbers step * low .. step * high, one set for a tensor, or one a row.

    Attributes:
        step: above 0; a tensor that broadcasts against the tensor that it is for, as low and high.
        low, high: whole numbers, the least and the largest code.
    """

    step: Tensor
    low: Tensor
    high: Tensor

    def nearest(self, tensor: Tensor) -> Tensor:
        """The nearest of these numbers, in the dtype of the tensor."""
        kind = torch.promote_types(tensor.dtype, torch.float32)  # of half precision the quotient would be rounded twice
        step, low, high = (each.to(kind) for each in (self.step, self.low, self.high))
        return (tensor / step).round_().clamp_(low, high).mul_(step).add_(0.0).to(tensor.dtype)  # no -0.0

    def inside(self, tensor: Tensor) -> Tensor:
        """What lies beyond the last of these numbers, put there."""
        return tensor.clamp((self.low * self.step).to(tensor.dtype), (self.high * self.step).to(tensor.dtype))


@dataclass(frozen=True)
class Grid:
    """A tensor as whole numbers times steps: `codes * steps` is equal to it, number by number.

    Attributes:
        steps: [1], or [n] along `axis`, float64; 0 where all codes are 0.
        codes: int16, in the shape of the tensor, within -255 .. 255.
        axis: None where one step holds for the whole tensor.
    """

    steps: Tensor
    codes: Tensor
    axis: int | None


def quantise(
    model: nn.Module,
    bits: int | Mapping[str, int],
    *,
    per: Per = "channel",
    symmetric: bool = True,
    clip: bool = False,
    activations: int | None = None,
    dataset: Dataset | None = None,
    cancel: Event | None = None,
) -> nn.Module:
    """A copy of `model` with its weights on grids, and on request what comes into its layers, too.

    Args:
        model: any module with a prunable weight (`kit.prune.prunable`) or an embedding, whose channels are its rows
            (as Zafrir et al. 2019, arXiv:1910.06188, do to BERT); not changed. Biases and normalisation stay.
        bits: 2 to 8 for all weights, or by weight name; names that are left out stay as they are.
        per: one step for a "tensor", or one for each output "channel".
        symmetric: codes from -(2^(bits-1) - 1) to 2^(bits-1) - 1; or else (affine) 2^bits codes over the range of the
            weights, which pays where that is lopsided.
        clip: whether the step may be smaller than the largest weight asks for: of 20 steps the one with the least
            squared error is taken. That pays below some 5 bits.
        activations: 2 to 8 bits for what comes into each linear and convolutional layer, affine, one step a layer;
            clipped likewise, by what `model` itself computes for the first 1024 training samples. It is done in front
            of the layer, by a forward pre-hook that reads the buffer `input_levels` (step, low, high): copies and
            files have it. Load such a file into a model that was quantised in the same way. Layers that are not called
            themselves (inside of attention) get what they got.
        dataset: needed by `activations` only.
        cancel: looked at between batches of the calibration.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range, a name that cannot be quantised, NaN or infinity in a weight or coming
            into a layer, or nothing to quantise.
        training.Cancelled: `cancel` was set.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1 (affine); Krishnamoorthi 2018, arXiv:1806.08342, section 2.
    """
    quantised = plain(model)
    levels = _levels(quantised, bits, per, symmetric, clip)
    with torch.no_grad():
        for weight, each in levels.items():
            for part in _parts(weight, next((axis for axis, size in enumerate(each.step.shape) if size > 1), None)):
                part.copy_(each.nearest(part))
    if activations is not None:
        _calibrate(quantised, plain(model), activations, clip, dataset, cancel)
    return quantised


def fine_tune_quantised(
    model: nn.Module,
    dataset: Dataset,
    bits: int | Mapping[str, int],
    *,
    epochs: int,
    per: Per = "channel",
    symmetric: bool = True,
    clip: bool = False,
    activations: int | None = None,
    callbacks: Sequence[training.Callback] = (),
    **fit_settings: Any,
) -> nn.Module:
    """A quantised copy of `model`, trained with its rounding: in every pass the weights are on their grids.

    What is trained are numbers behind them, by the gradient at the rounded ones as if rounding were not there (the
    straight-through estimator: Bengio et al. 2013, arXiv:1308.3432), held within the grid. Steps stay, as do zeros of
    `model`: so give the model that is not quantised yet, where zeros are pruned weights.

    Args:
        model: not changed.
        dataset: its train split is fitted, and calibrates activations.
        bits: see `quantise`, as for per, symmetric, clip and activations.
        epochs: 0 or more.
        per: "tensor" or "channel".
        symmetric: or else affine.
        clip: whether the step may be smaller than the largest weight asks for.
        activations: bits of what comes into layers.
        callbacks: called after the weights are rounded.
        **fit_settings: passed on to `training.fit` (seed, lr, batch_size, cancel ...); the errors are its.
    """
    tuned = plain(model)
    rounding = _Rounding(_levels(tuned, bits, per, symmetric, clip))
    if activations is not None:
        _calibrate(tuned, plain(model), activations, clip, dataset, fit_settings.get("cancel"))
    training.fit(tuned, dataset, epochs=epochs, callbacks=[rounding, *callbacks], **fit_settings)
    return tuned


class _Rounding(training.Callback):
    """Keeps weights on their grids: the step that the optimiser took is added to the numbers behind them."""

    def __init__(self, levels: Mapping[nn.Parameter, Levels]) -> None:
        self.levels = dict(levels)
        self.behind = {weight: weight.detach().clone() for weight in levels}
        self.zeros = {weight: weight.detach() == 0 for weight in levels}
        self.rounded: dict[nn.Parameter, Tensor] = {}
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for weight, levels in self.levels.items():
            self.rounded[weight] = levels.nearest(self.behind[weight])
            weight.copy_(self.rounded[weight])

    @torch.no_grad()
    def on_batch_end(self, progress: training.Progress) -> None:
        for weight, levels in self.levels.items():
            moved = self.behind[weight] + (weight - self.rounded[weight])
            self.behind[weight] = levels.inside(moved).masked_fill_(self.zeros[weight], 0)
        self._round()


@torch.no_grad()
def levels_for(
    tensor: Tensor, bits: int, *, axis: int | None = None, symmetric: bool = True, clip: bool = False
) -> Levels:
    """The grid of a tensor [...]: one for all of it, or one for each place along an axis; else as for `quantise`.

    The step is the range over the number of steps in it, rounded up to a few bits.

    Raises:
        TypeError: an argument of another type.
        ValueError: bits outside 2 .. 8, no such axis, or a tensor without numbers, or with others than finite
            floating-point ones.
    """
    checks.instance("tensor", tensor, Tensor)
    checks.whole("bits", bits, LEAST_BITS, MOST_BITS)
    if axis is not None:
        checks.whole("axis", axis, 0, tensor.ndim - 1)
    if not (tensor.is_floating_point() and tensor.numel() and finite(tensor)):
        came = f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
        raise ValueError(f"tensor must hold finite floating-point numbers, one or more; got {came}.")
    rows = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    over = [other for other in range(tensor.ndim) if other != axis]
    if symmetric:
        high = torch.maximum(rows.amax(over, keepdim=True), -rows.amin(over, keepdim=True)).double()
        low, count, kept = -high, 2**bits - 2, bits - 1
    else:
        low = rows.amin(over, keepdim=True).clamp(max=0).double()
        high = rows.amax(over, keepdim=True).clamp(min=0).double()
        count, kept = 2**bits - 1, bits
    number = torch.finfo(tensor.dtype)
    digits = max(1, min(_STEP_BITS, 1 - round(math.log2(number.eps)) - kept))
    last = round(math.log2(number.tiny)) + round(math.log2(number.eps))  # the exponent of the smallest number

    def fitted(share: float) -> Levels:
        mantissa, exponent = torch.frexp((high - low) * (share / count))
        unit = (exponent - digits).clamp(min=last)
        step = torch.ldexp(torch.ldexp(mantissa, exponent - unit).ceil(), unit)
        step = torch.where(step > 0, step, 1.0).clamp(max=number.max)
        least = torch.full_like(step, -(count // 2)) if symmetric else (low * share / step).round()
        most = (number.max / step).floor()  # beyond it is infinity
        return Levels(step, least.clamp(min=-most), (least + count).clamp(max=most))

    def lost(levels: Levels) -> Any:
        return sum((levels.nearest(part) - part).square_().sum(over, keepdim=True) for part in _parts(rows, axis))

    best = fitted(1.0)
    if clip:
        error = lost(best)
        for at in range(1, _CLIPS):
            tried = fitted(1 - at / _CLIPS)
            now = lost(tried)
            pairs = [(best.step, tried.step), (best.low, tried.low), (best.high, tried.high)]
            best = Levels(*(torch.where(now < error, new, old) for old, new in pairs))
            error = torch.minimum(now, error)
    return best


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite, without the copies that torch's own makes."""
    return not tensor.numel() or bool(torch.stack(tensor.detach().aminmax()).isfinite().all())


def _parts(tensor: Tensor, axis: int | None) -> Sequence[Tensor]:
    """Views of a tensor, cut across another axis than the one that has steps: large ones shall not be there twice."""
    others = [other for other in range(tensor.ndim) if other != axis]
    if not others or tensor.numel() <= 4 * PART:
        return [tensor]
    longest = max(others, key=lambda other: tensor.shape[other])
    return tensor.split(max(1, 4 * PART * tensor.shape[longest] // tensor.numel()), longest)


def grid(tensor: Tensor) -> Grid | None:
    """The steps and codes of a tensor that lies on a grid of at most 8 bits, exactly; None for any other.

    The largest step that divides all numbers (of the tensor, else of each place along the first or second axis) is
    their greatest common divisor, found on whole numbers. So nothing needs to be known of how the tensor was made.
    """
    checks.instance("tensor", tensor, Tensor)
    if not tensor.is_floating_point() or not tensor.numel() or not finite(tensor):
        return None
    tensor = tensor.detach()
    for axis in (None, 0, 1) if tensor.ndim > 1 else (None,):
        moved = tensor.reshape(1, -1) if axis is None else tensor.movedim(axis, 0)
        # A part of what is on a grid is on one, too: to see that a large tensor is on none a part is enough.
        few = moved if axis is None else moved[:_LOOK_ROWS].flatten(1)
        if _divided(few[:, :_LOOK]) is not None and (found := _divided(moved.flatten(1))) is not None:
            steps, codes = found
            codes = codes.reshape(tensor.shape) if axis is None else np.moveaxis(codes.reshape(moved.shape), 0, axis)
            return Grid(torch.from_numpy(steps), torch.from_numpy(np.ascontiguousarray(codes)), axis)
    return None


def _divided(rows: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Each row [n] by its greatest common divisor: these [r], and the quotients [r, n], if all are within 8 bits."""
    most = 2**MOST_BITS - 1
    parts = rows.split(max(1, PART // len(rows)), 1)  # as float64 they take two or four times as much
    largest, least = np.zeros((len(rows), 1)), np.full((len(rows), 1), np.inf)
    for part in parts:
        sizes = np.abs(part.double().numpy())
        largest = np.maximum(largest, sizes.max(1, keepdims=True))
        least = np.minimum(least, np.where(sizes > 0, sizes, np.inf).min(1, keepdims=True))
        if (largest > most * least).any():
            return None
    # Times a power of two, numbers on a grid are whole: a step has at most 24 bits, and is at least the least over 255.
    shift = 32 - np.frexp(np.where(largest > 0, least, 1.0))[1]
    common = np.zeros((len(rows), 1), np.int64)
    for part in parts:
        scaled = np.ldexp(part.double().numpy(), shift)  # below 2^41
        whole = scaled.astype(np.int64)
        if (scaled != whole).any():
            return None
        common = np.gcd(common, np.gcd.reduce(whole, axis=1, keepdims=True))
    by = np.maximum(common, 1)
    if (np.ldexp(largest, shift).astype(np.int64) // by > most).any():
        return None
    codes = np.empty(rows.shape, np.int16)
    for place, part in zip(
        np.split(codes, range(parts[0].shape[1], rows.shape[1], parts[0].shape[1]), 1), parts, strict=True
    ):
        place[:] = np.ldexp(part.double().numpy(), shift).astype(np.int64) // by
    return np.ldexp(common.astype(float), -shift)[:, 0], codes


def sqnr(model: nn.Module, smaller: nn.Module) -> dict[str, float]:
    """The signal-to-quantisation-noise ratio, in dB, of each weight and embedding of `model` as it is in `smaller`.

    That is 10 log10(sum w^2 / sum (w - q)^2), infinite where nothing changed. With numbers that are uniform over the
    range each bit gives 20 log10(2) = 6.02 dB (Bennett 1948); a bell-shaped law gains as much, from a lower start.

    Args:
        model: the original.
        smaller: pruned, shared, quantised or of low rank, with the same layers.

    Raises:
        TypeError: no models.
        ValueError: `smaller` has no such weight, or of another shape.
    """
    checks.instance("smaller", smaller, nn.Module, "a torch.nn.Module")
    found, thin = {}, as_plain(smaller)
    for name, weight in prunable(model, embeddings=True).items():
        layer, _, key = name.rpartition(".")
        try:
            other: Any = getattr(thin.get_submodule(layer), key)
        except AttributeError:
            other = None
        if other is None or other.shape != weight.shape:
            came = "none" if other is None else f"one of shape {tuple(other.shape)}"
            raise ValueError(f"smaller must have a weight {name!r} of shape {tuple(weight.shape)}; it has {came}.")
        noise = power = 0.0
        parts = (each.detach().reshape(-1).split(PART) for each in (weight, other))
        for exact, near in zip(*parts, strict=True):  # a large weight is not to be in memory several times
            signal = exact.double()
            noise, power = noise + float((signal - near.double()).square().sum()), power + float(signal.square().sum())
        found[name] = 10 * math.log10(power / noise) if noise and power else math.inf if not noise else -math.inf
    return found


def _levels(
    model: nn.Module, bits: int | Mapping[str, int], per: Per, symmetric: bool, clip: bool
) -> dict[nn.Parameter, Levels]:
    """The grid of each weight that is to be quantised; refuses bad arguments."""
    checks.one_of("per", per, PERS)
    checks.instance("symmetric", symmetric, bool)
    checks.instance("clip", clip, bool)
    weights = prunable(model, bits if isinstance(bits, Mapping) else (), embeddings=True)
    by_name = dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(weights, bits)
    checks.named("bits", by_name, weights, "quantised")
    found = {}
    for name, count in by_name.items():
        checks.whole("bits", count, LEAST_BITS, MOST_BITS)
        if not finite(weights[name]):
            raise ValueError(f"model: weight {name!r} holds NaN or infinity, which is on no grid.")
        if weights[name].numel():
            axis = _outputs(model.get_submodule(name.rpartition(".")[0])) if per == "channel" else None
            found[weights[name]] = levels_for(weights[name], count, axis=axis, symmetric=symmetric, clip=clip)
    return found


def _outputs(layer: Any) -> int:
    """The axis of a layer's weight along which its outputs are; of a parameter of no layer, the first."""
    return int(bool(getattr(layer, "transposed", False)) or isinstance(layer, TransposedLinear))


def _calibrate(
    model: nn.Module, exact: nn.Module, bits: int, clip: bool, dataset: Dataset | None, cancel: Event | None
) -> None:
    """Let each layer of `model` that is called round what comes into it, by what comes into that of `exact`."""
    checks.whole("activations", bits, LEAST_BITS, MOST_BITS)
    if dataset is None:
        raise ValueError("activations need a dataset to see what comes into a layer; got None.")
    training.check_fits(exact, dataset)
    seen: dict[str, list[Tensor]] = {}

    def listener(name: str) -> Any:
        def listen(layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            values = (arguments or tuple(named.values()))[0].detach().flatten()
            if len(values):
                seen.setdefault(name, []).append(values[:: -(-len(values) // CALIBRATION_NUMBERS)])

        return listen

    for name, layer in exact.named_modules():
        if isinstance(layer, LAYERS):
            layer.register_forward_pre_hook(listener(name), with_kwargs=True)
    inputs = dataset.train.first(CALIBRATION_SAMPLES).inputs
    for part in inputs.split(CALIBRATION_BATCH):
        training.check_cancel(cancel, "in the calibration of activations")
        training.predict(exact, part)
    for name, values in seen.items():
        whole = torch.cat(values)
        if not whole.isfinite().all():
            raise ValueError(f"activations: NaN or infinity comes into layer {name!r}.")
        levels = levels_for(whole, bits, symmetric=False, clip=clip)
        layer = model.get_submodule(name)
        known = hasattr(layer, "input_levels")
        layer.register_buffer("input_levels", torch.cat([levels.step, levels.low, levels.high]).to(whole.dtype))
        if not known:
            layer.register_forward_pre_hook(_round_input, with_kwargs=True)


def _round_input(
    layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What comes in, on its grid; gradients pass where it lies within, as if it were not rounded."""
    inputs, *others = *arguments, *named.values()
    levels = Levels(*layer.get_buffer("input_levels"))
    inside = levels.inside(inputs)
    return (inside + (levels.nearest(inputs.detach()) - inside).detach(), *others), {}
