"""Channels taken out of a model, and the check that this was right: the answers are those with zeros in their place.

What a graph says about a model may be wrong: a model that shuffles its channels, splits them into heads, or normalises
them together would lose others than those that were meant, and nothing would say so. So each removal is tried out.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from operator import le
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kit import inference, training


class TransposedLinear(ABC):  # noqa: B024  (a name for a class that may not be installed)
    """`Conv1D` of transformers, of which GPT-2 is made: a linear layer with its weight as [in, out]."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        """Whether it is that class, or one made from it."""
        return any((each.__module__, each.__name__) == ("transformers.pytorch_utils", "Conv1D") for each in other.mro())


LAYERS: tuple[type[Any], ...] = (nn.Linear, nn.modules.conv._ConvNd, TransposedLinear)  # those that own channels
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # of each channel by itself
CUTTABLE: tuple[type[Any], ...] = (*LAYERS, *_NORMS, nn.GroupNorm, nn.PReLU, nn.Embedding)
# By the name of a layer (or parameter), and whether it is about its outputs: bool [width], True where one goes.
Marks = Mapping[tuple[str, bool], Tensor]


def cut(model: nn.Module, marks: Marks, *, zero: bool = False) -> nn.Module:
    """A `light_copy` of `model` without the marked channels; or of the old size, with zeros in their weights."""
    smaller = inference.light_copy(model)
    for (name, outward), gone in marks.items():
        if gone.any():
            _cut_layer(smaller, name, outward, gone, zero)
    _follow_widths(model, smaller)
    return smaller


def _cut_layer(model: nn.Module, name: str, outward: bool, gone: Tensor, zero: bool) -> None:
    layer, axes, sizes = located(model, name, outward)
    for key, axis in axes.items():
        old = getattr(layer, key, None)
        if old is None or (zero and key.startswith("running")):
            continue
        marked = gone[: old.shape[axis]].to(old.device)  # a block of a grouped layer stands for all its blocks
        lost, stays = marked.nonzero().flatten(), (~marked).nonzero().flatten()
        new = old.detach().index_fill(axis, lost, 0) if zero else old.detach().index_select(axis, stays)
        setattr(layer, key, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    if zero:
        return
    if isinstance(layer, nn.GroupNorm):  # whole groups go
        layer.num_groups = int((~gone).sum()) * layer.num_groups // layer.num_channels
    for size in sizes:
        setattr(layer, size, int((~gone).sum()))


def located(model: nn.Module, name: str, outward: bool) -> tuple[Any, dict[str, int], tuple[str, ...]]:
    """The module that owns one side's channels, its tensors that may hold them with their axis, and its counts."""
    layer = dict(model.named_modules()).get(name)
    if layer is not None:
        return layer, *_parts(layer, outward)
    owner, _, key = name.rpartition(".")  # a parameter of no layer: its last axis longer than 1 has the channels
    layer = model.get_submodule(owner)
    return layer, {key: max(axis for axis, n in enumerate(getattr(layer, key).shape) if n > 1)}, ()


def resized(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of `model` whose tensors have these shapes, filled with zeros, where these are smaller.

    Raises:
        ValueError: a layer must change that has no tensors, so that nothing says to what.
    """
    smaller = training.copy_of(model)
    made: dict[Tensor, Any] = {}  # by the tensor that was there: tied ones stay tied
    for path, layer in smaller.named_modules():
        for key, old in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            shape = tuple(shapes.get(f"{path}.{key}".lstrip("."), old.shape))
            if len(shape) == old.ndim and shape != old.shape and all(map(le, shape, old.shape)):
                new = old.detach().new_zeros(shape)
                weight = isinstance(old, nn.Parameter)
                setattr(layer, key, made.setdefault(old, nn.Parameter(new, old.requires_grad) if weight else new))
        for outward in (True, False) if isinstance(layer, CUTTABLE) else ():
            count_anew(layer, outward)
        if made and isinstance(layer, nn.GroupNorm) and layer.weight is None and layer.num_groups > 1:
            raise ValueError(f"model: nothing in the file says how many groups {path} keeps; save it by torch.export.")
    _follow_widths(model, smaller)
    return smaller


def _follow_widths(model: nn.Module, smaller: nn.Module) -> None:
    """Whole-number attributes beside layers that hold a width (`split_size` of GPT-2), or how many heads, hold the new.

    So may one that was equal by chance; whether the smaller model still answers right is for `first_fault` to say.
    """
    found: dict[str, set[tuple[int, int]]] = {}  # by the module around layers: their widths, before and now
    for (name, old), new in zip(model.named_modules(), smaller.modules(), strict=True):
        for size in {*_parts(old, True)[1], *_parts(old, False)[1]} if isinstance(old, CUTTABLE) and name else ():
            if getattr(old, size) != getattr(new, size):
                found.setdefault(name.rpartition(".")[0], set()).add((getattr(old, size), getattr(new, size)))
    for name, widths in found.items():
        owner = smaller.get_submodule(name)
        counted = [] if type(owner).__module__.startswith("torch.") else list(vars(owner).items())
        for key, value in [(key, value) for key, value in counted if type(value) is int]:
            heads = {Fraction(value * now, before) for before, now in widths} if "heads" in key else set()
            found_now = heads or {Fraction(now) for before, now in widths if before == value}
            if len(found_now) == 1 and (only := found_now.pop()) == int(only):
                setattr(owner, key, int(only))


def count_anew(layer: Any, outward: bool) -> None:
    """Set the attributes that hold the number of one side's channels, by the tensors as they are now."""
    axes, sizes = _parts(layer, outward)
    held = next(((key, axis) for key, axis in axes.items() if getattr(layer, key, None) is not None), None)
    if held is None:
        return
    count = getattr(layer, held[0]).shape[held[1]]
    if isinstance(layer, nn.GroupNorm):
        layer.num_groups = count * layer.num_groups // layer.num_channels
    shared = isinstance(layer, LAYERS[1]) and "groups" not in sizes and held[1] == 1  # an axis that all groups share
    for size in sizes:
        setattr(layer, size, count * layer.groups if shared else count)


def is_depthwise(layer: Any) -> bool:
    """A convolution of each channel by itself."""
    return isinstance(layer, LAYERS[1]) and 1 < layer.groups == layer.out_channels == layer.in_channels


def _parts(layer: nn.Module, outward: bool) -> tuple[dict[str, int], tuple[str, ...]]:
    """The tensors that hold one side's channels, with the axis of these, and the attributes that hold their number."""
    if is_depthwise(layer):
        return {"weight": 0, "bias": 0}, ("in_channels", "out_channels", "groups")
    if isinstance(layer, TransposedLinear):
        return {"weight": int(outward)} | ({"bias": 0} if outward else {}), ("nf" if outward else "nx",)
    if isinstance(layer, LAYERS):
        axis = int(outward == bool(getattr(layer, "transposed", False)))
        size = ("out" if outward else "in") + ("_features" if isinstance(layer, nn.Linear) else "_channels")
        return {"weight": axis} | ({"bias": 0} if outward else {}), (size,)
    size = next(
        key for key in ("num_features", "num_channels", "num_parameters", "embedding_dim") if hasattr(layer, key)
    )
    return {"weight": int(size == "embedding_dim"), "bias": 0, "running_mean": 0, "running_var": 0}, (size,)


def first_fault(model: nn.Module, thinned: nn.Module, marks: Marks, inputs: Tensor) -> tuple[str, str] | None:
    """Where `thinned` first differs from `model` with zeros in the weights of the marked channels; else None.

    Compared on the batch `inputs`: what comes into each layer that loses inputs, where it stays, and the answers. Equal
    means within the square root of the number type's precision, relative to the value and to the root mean square.

    Returns:
        The name of the module ("" for the model itself), and the reason.
    """
    zeroed = cut(model, marks, zero=True)
    stays = {name: (~gone).nonzero().flatten() for (name, outward), gone in marks.items() if not outward}
    with _listen(zeroed, stays) as wanted:
        training.predict(zeroed, inputs)
    with watch(thinned) as seen, _listen(thinned, stays) as came:
        try:
            training.predict(thinned, inputs)
        except training.Cancelled:
            raise
        except Exception as error:
            return seen.active, first_line(error)
    for (name, old), (_, new) in zip(wanted, came, strict=False):
        if not close(old.index_select(-1, stays[name].to(old.device)) if name else old, new):
            what = "other values would come into it" if name else "its answers would be others"
            return name, f"with zeros in place of those that go, {what}"
    return None


def first_line(error: Exception) -> str:
    """An error in short, without a full stop; the one behind it where the model refuses its inputs."""
    return (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def tensors(answer: Any) -> list[Tensor]:
    """The tensors in what a model answers: alone, in tuples and dicts, or as `.logits`."""
    leaves = (getattr(leaf, "logits", leaf) for leaf in tree_leaves(answer))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def close(wanted: Tensor, came: Tensor) -> bool:
    """Equal within the square root of the number type's precision: of the value, and of the root mean square."""
    if wanted.shape != came.shape or not wanted.is_floating_point():
        return torch.equal(wanted, came)
    tolerance = torch.finfo(wanted.dtype).eps ** 0.5
    typical = float(wanted.nan_to_num(0, 0, 0).double().norm()) / max(wanted.numel(), 1) ** 0.5
    return torch.allclose(wanted, came, rtol=tolerance, atol=tolerance * typical, equal_nan=True)


@contextmanager
def _listen(model: nn.Module, layers: Iterable[str]) -> Iterator[list[tuple[str, Tensor]]]:
    """Collect what comes into each call of these layers, with the channels last; and as of layer "", the answers."""
    heard: list[tuple[str, Tensor]] = []

    def listener(name: str) -> Any:
        def hook(layer: Any, arguments: tuple[Tensor, ...]) -> None:
            if arguments:
                axis = -1 - len(layer.kernel_size) if isinstance(layer, LAYERS[1]) else -1
                heard.append((name, arguments[0].movedim(axis, -1).clone()))  # before anything works in place

        return hook

    def answered(model: nn.Module, arguments: Any, answer: Any) -> None:
        heard.extend(("", tensor) for tensor in tensors(answer))

    hooks = [model.get_submodule(name).register_forward_pre_hook(listener(name)) for name in layers]
    with hooked([*hooks, model.register_forward_hook(answered)]):
        yield heard


@dataclass
class Watched:
    """Which modules ran; those that had begun but not ended when a forward pass failed; where gradients were cut."""

    ran: set[str]
    stack: list[str]
    cut: str = ""

    @property
    def active(self) -> str:
        """The innermost module that had not ended; "" for the model itself."""
        return next((name for name in reversed(self.stack) if name), "")


def _has_gradient(values: Any) -> bool:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)


@contextmanager
def watch(model: nn.Module) -> Iterator[Watched]:
    """Follow a forward pass through the named modules."""
    watched = Watched(set(), [])
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, inputs: Any) -> None:
        watched.ran.add(names[module])
        watched.stack.append(names[module])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        name = watched.stack.pop()
        if not watched.cut and _has_gradient(inputs) and not _has_gradient(output):
            watched.cut = name

    before = [module.register_forward_pre_hook(enter) for module in names]
    with hooked(before + [module.register_forward_hook(leave) for module in names]):
        yield watched


def exchanged(model: nn.Module, made: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put modules in the places of others, wherever these stand in `model`, in place: the model, or what it became."""
    for parent in list(model.modules()):
        held = {key: child for key, child in parent._modules.items() if child is not None}
        parent._modules.update({key: made[child] for key, child in held.items() if child in made})
    return made.get(model, model)


def straightened(model: nn.Module) -> nn.Module:
    """The model, with plain linear layers in place of transposed ones, in place: what other libraries understand."""
    made: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, TransposedLinear):
            layer: Any = module
            made[layer] = plain = nn.Linear(layer.nx, layer.nf, device="meta").train(layer.training)
            plain.weight, plain.bias = nn.Parameter(layer.weight.detach().t()), layer.bias
    return exchanged(model, made)


def hooked(handles: Iterable[Any]) -> ExitStack:
    """A context at whose end the hooks are removed."""
    stack = ExitStack()
    for handle in handles:
        stack.enter_context(handle)
    return stack
