"""Folding: layers with nothing non-linear between them become one, and the answers stay the same.

An affine map of an affine map is affine, so batch normalisation goes into the layer beside it, and a layer into the
next one. Which layers stand next to each other does not depend on their order in the model: one forward pass shows it,
and each fold is tried out on a few samples. Sources: Jacob et al. 2018 (arXiv:1712.05877, equation 14) for batch
normalisation; Ding et al. 2021 (arXiv:2103.13425, section 3.2) for layers in sequence and average pooling.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AvgPoolNd
from torch.utils._python_dispatch import TorchDispatchMode

from kit import inference, training
from kit.data import Dataset
from kit.prune.graph import called, samples
from kit.prune.joints import LAYERS, close, count_anew, exchanged, first_line, hooked, tensors
from kit.prune.plain import plain

AFFINE = (*LAYERS[:2], _BatchNorm, _AvgPoolNd)
SHOWN = 3  # of what stands between two layers
_NO_GAIN = "more than both together have"
_READS = ("_local_scalar_dense", "equal")  # operations by which a model decides on its path


@dataclass(frozen=True)
class Folded:
    """What folding gives.

    Attributes:
        model: the model with fewer layers; nn.Identity stands where one was, so all others keep their names.
        folded: (what, into what) by name, in the order of the folds.
        kept: (name, why not) for each layer that has another one before it and could not be folded with it.
    """

    model: nn.Module
    folded: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...]


def fold(model: nn.Module, dataset: Dataset) -> Folded:
    """A copy of `model` in which neighbouring affine layers are one; it answers as `model` does in evaluation mode.

    | first | then | exact where |
    |---|---|---|
    | linear, convolution (transposed, too) | batch norm with running statistics | always |
    | batch norm, linear, 1x1 convolution | linear, convolution | no zeros are padded between, or no bias is |
    | linear, convolution (transposed, too) | linear, 1x1 convolution | always |
    | convolution | average pooling | neither the pooling pads nor the convolution is dilated |

    Dropout and nn.Identity count as nothing. Two layers are left as they are where one would cost more: a product with
    more numbers, or more of them not zero, than both had (784 -> 10 -> 784); a pooled kernel with more multiply-adds.
    A pooled kernel has more numbers though fewer multiply-adds. Flattening between two layers is left, too. Fold before
    weights are shared or quantised: each channel's scale changes its values.

    Args:
        model: not changed. Computed in float64 and rounded once, to the number type of the layer; what learned in one
            of two layers learns in the fold.
        dataset: gives a few training samples. They show which layer takes exactly what another one gives, and each fold
            must answer as before on them.

    Raises:
        ValueError: nothing to fold, and what stands between; a model that cannot be copied or take the samples.
        TypeError: a `model` or `dataset` of another type.
    """
    exact = plain(model)
    training.check_dataset(dataset)
    inputs = samples(dataset)
    wanted = _answers(exact, inputs)  # samples that do not fit are refused as such
    types = {name: tensor.dtype for name, tensor in _numbers(exact)}
    try:
        double = inference.copy_of(exact).double()
        wanted, exact = _answers(double, inputs), double
    except ValueError:
        pass  # it computes in one number type only, so folds are checked in that
    before, kept = _neighbours(exact, inputs)
    layers, folded = dict(exact.named_modules()), []
    while pair := next(((first, second) for second, first in before.items() if second not in kept), None):
        first, second = pair
        stays, why = _join(exact, layers[first], layers[second], inputs, wanted)
        if why:
            kept[second] = f"{first} and {second} stay apart: {why}."
            continue
        del before[second]
        lost, into = (second, first) if stays is layers[first] else (first, second)
        folded.append((lost, into))
        if lost in before:  # what it took is now taken by the other
            before[into] = before.pop(lost)
            kept.update({into: kept.pop(lost)} if lost in kept else {})
        before.update({later: into for later, earlier in before.items() if earlier == lost})
        for name in before:  # what did not pay before may pay now
            if into in (name, before[name]) and _NO_GAIN in kept.get(name, ""):
                del kept[name]
    if not folded:
        reasons = list(kept.values()) or ["it needs two layers with nothing non-linear between them."]
        more = f" (one of {len(reasons)} such places)" if len(reasons) > 1 else ""
        raise ValueError(f"model: {type(model).__name__} has nothing to fold: {reasons[0].rstrip('.')}{more}.")
    for name, tensor in _numbers(exact):
        tensor.data = tensor.data.to(types.get(name) or types[f"{name.rpartition('.')[0]}.weight"])
    return Folded(exact, tuple(folded), tuple((name, kept[name]) for name in layers if name in kept))


def _numbers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by all their names; of the buffers also those that no file holds."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _answers(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """All tensors that the model answers with, in evaluation mode; what it draws at random is the same each time."""
    answers: list[Tensor] = []
    listen = model.register_forward_hook(lambda _, __, answer: answers.extend(tensors(answer)))
    with hooked([listen]), training.drawing(0)():
        training.predict(model, inputs)
    return answers


# Who takes whose answer


@dataclass(eq=False)
class _Call:
    """One call of a module without children, or one operation outside of these; `takes` are the tensors it reads."""

    words: str
    module: nn.Module | None = None
    takes: list[tuple[int, int]] = field(default_factory=list)
    first: tuple[int, int] | None = None  # the module's only positional argument


class _Trace(TorchDispatchMode):
    """Notes which call makes and which calls take each tensor: by its id, and how often it was written in place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.stack, self.calls = model, list[_Call](), list[_Call]()
        self.makers, self.takers = dict[tuple[int, int], _Call](), dict[tuple[int, int], dict[_Call, None]]()
        self.written, self.held = Counter[int](), list[Tensor]()
        self.inside, self.reads = False, False  # what the kit reads before and after the model does not count

    def key(self, tensor: Tensor) -> tuple[int, int]:
        """The tensor as it is now; it is held, so that no other gets its id."""
        self.held.append(tensor)
        return id(tensor), self.written[id(tensor)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2].strip("_")
        self.reads |= self.inside and func._schema.name.partition("::")[2] in _READS
        call = self.stack[-1] if self.stack else _Call(name)
        taken = tensors([args, kwargs])
        for key in map(self.key, taken):
            if self.makers.get(key) is not call:
                call.takes.append(key)
                self.takers.setdefault(key, {})[call] = None
        result = func(*args, **(kwargs or {}))
        for tensor in tensors(result):
            self.written[id(tensor)] += any(tensor is each for each in taken)
            self.makers[self.key(tensor)] = call
        return result

    def enter(self, name: str) -> Callable[..., None]:
        """A hook before the module of this name."""

        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            call = _Call(called(self.model, name), module)
            if len(arguments) == 1 and isinstance(arguments[0], Tensor):
                call.first = self.key(arguments[0])
            self.stack.append(call)
            self.calls.append(call)

        return hook

    def leave(self, *_: Any) -> None:
        """A hook after it."""
        self.stack.pop()


def _neighbours(model: nn.Module, inputs: Tensor) -> tuple[dict[str, str], dict[str, str]]:
    """By a layer's name, that whose answer it and nobody else takes; and why there is none, or no fold can be."""
    trace = _Trace(model)
    leaves = {name: module for name, module in model.named_modules() if not next(module.children(), None)}
    unfit = {name: why for name, module in leaves.items() if isinstance(module, AFFINE) and (why := _unfit(module))}
    hooks = [module.register_forward_pre_hook(trace.enter(name)) for name, module in leaves.items()]
    hooks += [module.register_forward_hook(trace.leave) for module in leaves.values()]
    hooks.append(model.register_forward_pre_hook(lambda *_: setattr(trace, "inside", True)))
    hooks.append(model.register_forward_hook(lambda *_: setattr(trace, "inside", False)))
    with hooked(hooks), trace:
        answers = _answers(model, inputs)
    stored = tensors([list(vars(module).values()) for module in model.modules()])
    escaped = {id(tensor) for tensor in answers + stored}
    names = {module: name for name, module in leaves.items()}
    calls = [(names[call.module], call) for call in trace.calls if isinstance(call.module, AFFINE)]
    times = Counter(name for name, _ in calls)
    holders = Counter(id(each) for _, each in model.named_parameters(remove_duplicate=False))
    for name in times:
        users = [c for p in leaves[name].parameters() for c in trace.takers.get((id(p), 0), ())]
        if times[name] > 1:
            unfit[name] = f"it is called {times[name]} times"
        elif any(holders[id(each)] > 1 for each in leaves[name].parameters()):
            unfit[name] = "its weight is tied to another layer's"
        elif others := [call.words for call in users if call.module is not leaves[name]]:
            unfit[name] = f"its weight is used by {others[0]}, too"
    before, kept = dict[str, str](), dict[str, str]()
    for name, call in calls:
        between, key = list[str](), call.first
        maker = trace.makers.get(key) if key else None
        while maker and not isinstance(maker.module, AFFINE):
            between.append(maker.words)
            key = maker.takes[0] if maker.takes else None
            maker = trace.makers.get(key) if key else None
        if not key or not maker or (between and isinstance(call.module, _AvgPoolNd)):
            continue  # it takes the samples; or a pooling by itself, which has no weights to lose
        before[name] = source = names[cast(nn.Module, maker.module)]
        takers = [other.words for other in trace.takers[key] if other is not call]
        if between:
            kept[name] = f"{_listed(between[::-1])} between {source} and {name}."
        elif trace.reads:
            kept[name] = f"{name} stays: the model decides on its path by the values it computes."
        elif takers or key[0] in escaped:
            use = f"goes to {takers[0]}" if takers else "is handed out"
            kept[name] = f"{source} and {name} stay apart: what {source} gives {use}, too."
        elif bad := next((each for each in (source, name) if each in unfit), None):
            kept[name] = f"{source} and {name} stay apart: of {bad}, {unfit[bad]}."
    return before, kept


def _listed(words: list[str]) -> str:
    names = list(dict.fromkeys(words))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more + (" stand" if len(names) > 1 else " stands")


def _unfit(layer: Any) -> str:
    """Why a layer is not what its class says, or not the same at each call."""
    base = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn.modules"))
    if any(getattr(type(layer), key, 0) is not getattr(base, key, 0) for key in ("forward", "_conv_forward")):
        return "it computes in a way of its own"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has a hook"
    if isinstance(layer, LAYERS) and "weight" not in layer._parameters:
        return "its weight is computed anew at each call"
    if isinstance(layer, _BatchNorm) and layer.running_mean is None:
        return "it has no running statistics"
    if not all(parameter.numel() for parameter in layer.parameters()):
        return "it has no numbers"
    return ""


# Two layers in one


def _join(model: nn.Module, first: Any, second: Any, inputs: Tensor, wanted: list[Tensor]) -> tuple[Any, str]:
    """Make one layer of two, in place, and try it out: the layer that stays; or why the model was left as it was."""
    made = _pooled(first, second) if isinstance(second, _AvgPoolNd) else _product(first, second)
    if isinstance(made, str):
        return None, made
    stays, weight, bias, changes = made
    gone = second if stays is first else first
    learns = [any(p.requires_grad for p in layer.parameters()) for layer in (stays, gone)]
    old = {**vars(stays), "_parameters": dict(stays._parameters)}
    stays.weight = nn.Parameter(weight.to(stays.weight.dtype), any(learns))
    stays.bias = (
        nn.Parameter(bias.to(stays.weight.dtype), any(learns)) if bias.any() or stays.bias is not None else None
    )
    for outward in (True, False):
        count_anew(stays, outward)
    stays.__dict__.update(changes)
    nothing = nn.Identity().train(gone.training)
    exchanged(model, {gone: nothing})
    try:
        came = _answers(model, inputs)
        same = len(came) == len(wanted) and all(map(close, wanted, came))
        why = "" if same else "the answers would be others"
    except Exception as error:  # whatever a model says that looks for the layer
        why = first_line(error)
    if why:
        exchanged(model, {nothing: gone})
        stays.__dict__.update(old)
    return stays, why


_Made = tuple[Any, Tensor, Tensor, dict[str, Any]]  # the layer that stays; its weight, bias and attributes


@torch.no_grad()
def _product(first: Any, second: Any) -> _Made | str:
    """The layer that does what the two do, or why there is none."""
    if isinstance(first, _AvgPoolNd) or (isinstance(first, _BatchNorm) and isinstance(second, _BatchNorm)):
        return "neither has a weight that could take up the other"
    places = {_axes(each) for each in (first, second) if not isinstance(each, _BatchNorm)}
    if len(places) > 1:
        return "they work along other axes"
    linear = isinstance(second, nn.Linear)
    forward = isinstance(first, _BatchNorm) or (_is_pointwise(first) and not isinstance(second, _BatchNorm))
    stays, gone = (second, first) if forward else (first, second)
    w, b = _standard(stays)  # [groups, out, in, places], [out]
    if isinstance(gone, _BatchNorm):
        scale, shift = _normalising(gone)  # [channels]
        groups = len(w)
        width = groups * w.shape[1 if gone is second else 2]
        if len(scale) != width:
            return "it normalises along another axis"
        if gone is second:
            return stays, _as(stays, w * scale.view(groups, -1, 1, 1)), b * scale + shift, {}
        added, new = shift.view(groups, 1, -1, 1), w * scale.view(groups, 1, -1, 1)
    else:
        if not _is_pointwise(gone):
            return "neither looks at one place alone (as a 1x1 convolution does)"
        m, c = _standard(gone)
        groups = len(w)
        if len(m) != groups:
            return "they divide their channels into other groups"
        if gone is second:
            new = torch.einsum("gpo,goik->gpik", m[..., 0], w)
            bias = torch.einsum("gpo,go->gp", m[..., 0], b.view(groups, -1)).flatten() + c
        else:
            new, shift = torch.einsum("gpok,goi->gpik", w, m[..., 0]), c
            added = c.view(groups, 1, -1, 1)
        for count in (Tensor.numel, Tensor.count_nonzero):
            if count(new) > count(m) + count(w):
                return f"one layer would have {int(count(new)):,} numbers, {_NO_GAIN} ({int(count(m) + count(w)):,})"
    if gone is first:
        if shift.any() and not linear and _adds_zeros(second):
            return "zeros are padded between them"
        bias = b + (w * added).sum((2, 3)).flatten()
    return stays, _as(stays, new), bias, {}


def _pooled(layer: Any, pool: Any) -> _Made | str:
    """A convolution whose outputs are averaged: a wider kernel with a longer stride."""
    dims = _axes(layer)
    size, step, pad = (_many(each, dims) for each in (pool.kernel_size, pool.stride, pool.padding))
    if not isinstance(layer, _ConvNd) or layer.transposed or pool.__class__.__name__[-2:] != f"{dims}d":
        return "only a convolution takes up an average pooling"
    plain_pool = not any(pad) and not pool.ceil_mode and getattr(pool, "divisor_override", None) is None
    if not plain_pool or set(layer.dilation) != {1} or isinstance(layer.padding, str):
        return "the pooling pads or the convolution is dilated"
    kernel = tuple(k + (q - 1) * s for k, q, s in zip(layer.kernel_size, size, layer.stride, strict=True))
    now, then = math.prod(layer.kernel_size) * math.prod(step), math.prod(kernel)
    if then >= now:
        return f"{then} multiply-adds a channel and place would not be fewer than {now}"
    old = layer.weight.detach().double()
    weight = old.new_zeros(*old.shape[:2], *kernel)
    for offset in itertools.product(*map(range, size)):
        spot = weight
        for axis, (at, far, k) in enumerate(zip(offset, layer.stride, layer.kernel_size, strict=True), 2):
            spot = spot.narrow(axis, at * far, k)
        spot += old / math.prod(size)
    stride = tuple(s * t for s, t in zip(layer.stride, step, strict=True))
    bias = old.new_zeros(len(old)) if layer.bias is None else layer.bias.detach().double()
    return layer, weight, bias, {"kernel_size": kernel, "stride": stride}


def _many(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def _axes(layer: Any) -> int:
    """How many axes of places a convolution works along; 0 for a linear layer."""
    return len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0


def _is_pointwise(layer: Any) -> bool:
    """Whether it maps the channels of each place by themselves, at every place."""
    if isinstance(layer, nn.Linear):
        return True
    straight = isinstance(layer, _ConvNd) and not layer.transposed and not isinstance(layer.padding, str)
    return straight and {*layer.kernel_size, *layer.stride} == {1} and not any(layer.padding)


def _adds_zeros(layer: Any) -> bool:
    """Whether outputs at the border see less of the inputs than others do."""
    padded = layer.padding == "same" if isinstance(layer.padding, str) else any(layer.padding)
    return layer.transposed or (layer.padding_mode == "zeros" and padded)


def _normalising(norm: Any) -> tuple[Tensor, Tensor]:
    """Batch normalisation by running statistics as x * scale + shift, in float64. -> [channels], [channels]"""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _standard(layer: Any) -> tuple[Tensor, Tensor]:
    """The weight as [groups, outputs, inputs, places of the kernel], the bias [all outputs]; in float64."""
    groups, shape = getattr(layer, "groups", 1), layer.weight.shape
    weight = layer.weight.detach().double().reshape(groups, -1, shape[1], math.prod(shape[2:]))
    weight = weight.transpose(1, 2) if getattr(layer, "transposed", False) else weight
    bias = weight.new_zeros(groups * weight.shape[1]) if layer.bias is None else layer.bias.detach().double()
    return weight, bias


def _as(layer: Any, weight: Tensor) -> Tensor:
    """Back from [groups, outputs, inputs, places] to the layer's own shape."""
    weight = weight.transpose(1, 2) if getattr(layer, "transposed", False) else weight
    return weight.reshape(-1, weight.shape[2], *layer.weight.shape[2:])
