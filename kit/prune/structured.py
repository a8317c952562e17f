"""Channel (structured) pruning: whole channels and neurons are taken out, and the tensors really shrink.

Channels hang together: an output channel of one layer is an input channel of the next, and a residual sum ties the
channels of both branches. Which hang together is found by torch-pruning's dependency graph (Fang et al. 2023,
arXiv:2301.12900): a group is a list of (layer, in or out, indices). Which of them go is decided here.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset
from kit.prune.joints import hooked, wrong_joint
from kit.prune.scores import Importance, score_weights
from kit.prune.unstructured import SCOPES, Scope, check_ratio, ratio_of

Kept = dict[str, tuple[int, ...]]
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # those that own channels
_OUT = (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
_IN = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)


class Untraceable(ValueError):  # noqa: N818  (says what the model is)
    """The model's channels cannot be followed from layer to layer; its weights can still be pruned."""


class LastChannelWarning(UserWarning):
    """The ratio would have emptied a layer: its most important channel was kept."""


@dataclass(frozen=True)
class ChannelRemoval:
    """What channel pruning gives.

    Attributes:
        model: the smaller model.
        kept: for each layer that lost (or could lose) outputs, the positions of those that stay, ascending.
        floored: groups that the ratio would have emptied; one channel (a block, for grouped layers) was kept.
    """

    model: nn.Module
    kept: Kept
    floored: tuple[str, ...]


def channels(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float],
    dataset: Dataset,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    seed: int = 0,
) -> nn.Module:
    """A smaller copy of `model`: channels removed, whatever hangs on them too. Outputs keep their number.

    Args:
        model: any module that autograd can trace; not changed.
        ratio: share of the channels to remove, in [0, 1); or one ratio per group name (see `channel_groups`), each
            ranked by itself. At least one channel of each layer always stays.
        dataset: gives the shape of the inputs, and gradients for importance "taylor".
        importance: "magnitude" (squared L2 norm of all that a channel owns), "taylor" (sum of |w g|) or "random".
        scope: "layer" removes the same share of each group; "global" ranks the channels of all groups together, after
            dividing by the group's mean score.
        seed: used by importance "random".

    Raises:
        Untraceable: the channels cannot be followed; says at which module.
        ValueError: a ratio outside [0, 1), an unknown scope, importance or group, or no channel to remove.

    Warns:
        LastChannelWarning: the ratio would have emptied a layer.
    """
    removal = remove_channels(model, ratio=ratio, dataset=dataset, importance=importance, scope=scope, seed=seed)
    if removal.floored:
        names = ", ".join(removal.floored)
        warnings.warn(f"ratio {ratio} would empty {names}; one channel stays there.", LastChannelWarning, stacklevel=2)
    return removal.model


def channel_groups(model: nn.Module, dataset: Dataset) -> dict[str, int]:
    """The number of channels of each group that can be pruned, by the name of the group's first layer."""
    graph = _trace(copy.deepcopy(model), dataset)
    return {name: len(group[0].idxs) for name, group in _groups(graph).items()}


def remove_channels(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float],
    dataset: Dataset,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    seed: int = 0,
) -> ChannelRemoval:
    """As `channels`, with the record of what stayed instead of a warning."""
    checks.one_of("scope", scope, SCOPES)
    smaller = copy.deepcopy(model)
    graph = _trace(smaller, dataset)
    groups = _groups(graph)
    check_ratio(ratio, groups)
    named = dict(smaller.named_parameters())
    weight_scores = {
        id(named[name]): score**2 if importance == "magnitude" else score  # squares add up to a squared L2 norm
        for name, score in score_weights(smaller, importance, dataset=dataset, seed=seed).items()
    }
    scores = {name: _channel_scores(group, weight_scores) for name, group in groups.items()}
    blocks = {name: _blocks(graph, group) for name, group in groups.items()}
    # In grouped layers the same channel of every block goes, or the blocks would differ in width.
    units = {name: score.view(blocks[name], -1).mean(0) for name, score in scores.items()}
    goes, floored = _choose(units, ratio, scope)
    gone = {name: goes[name].repeat(blocks[name]) for name in groups}  # [channels] each
    kept = _kept(graph, groups, gone, dataset)
    for name, group in groups.items():
        if gone[name].any():
            group.prune(gone[name].nonzero().flatten().tolist())
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)  # the smaller tensors are new ones
    inputs = dataset.train.inputs[:2]
    with _watch(smaller) as watched:
        try:
            shape = training.predict(smaller, inputs).shape
        except Exception as error:
            raise _untraceable(model, watched.active, str(error.__cause__ or error)) from error
    if shape != training.predict(model, inputs).shape:
        raise _untraceable(model, "the model itself", f"its output became {tuple(shape)}")
    return ChannelRemoval(smaller, kept, tuple(name for name, _ in smaller.named_modules() if name in floored))


def _choose(
    scores: Mapping[str, Tensor], ratio: float | Mapping[str, float], scope: Scope
) -> tuple[dict[str, Tensor], list[str]]:
    """True where a channel goes, and the groups in which the best one was kept against the ratio."""
    if scope == "global" and not isinstance(ratio, Mapping):
        scaled = {name: score / score.mean().clamp_min(1e-30) for name, score in scores.items()}
        everywhere = _lowest(torch.cat(list(scaled.values())), ratio)  # [all channels]
        goes = dict(zip(scores, everywhere.split([len(score) for score in scores.values()]), strict=True))
    else:
        goes = {name: _lowest(score, ratio_of(ratio, name)) for name, score in scores.items()}
    floored = [name for name, gone in goes.items() if gone.all()]
    for name in floored:
        goes[name] = torch.arange(len(scores[name])) != scores[name].argmax()
    return goes, floored


def _lowest(scores: Tensor, share: float) -> Tensor:
    """True for the share of the scores that is lowest. [n] -> bool [n]."""
    return scores.argsort(stable=True).argsort() < round(share * len(scores))


def _channel_scores(group: Any, weight_scores: Mapping[int, Tensor]) -> Tensor:
    """Add up, over every layer of the group, the scores of the weights that a channel owns. -> [channels]."""
    total = torch.zeros(len(group[0].idxs))
    for item in group:
        layer, handler, roots = item.dep.layer, item.dep.handler, item.root_idxs
        score = weight_scores.get(id(getattr(layer, "weight", None)))
        if score is None or handler not in _OUT + _IN or None in roots:
            continue
        by_column = (handler in _IN) != bool(getattr(layer, "transposed", False))
        own = (score.transpose(0, 1) if by_column else score).flatten(1).sum(1)  # [rows or columns]
        if max(item.idxs) < len(own):  # (inputs of a grouped convolution share columns: no score of their own)
            total.index_add_(0, torch.tensor(roots), own[torch.tensor(item.idxs)])
    return total


def _groups(graph: Any) -> dict[str, Any]:
    """Groups that may lose channels, by the name of their first layer; those that reach the output may not."""
    layers = {module: name for name, module in graph.model.named_modules() if isinstance(module, _LAYERS)}
    found = {}
    for group in graph.get_all_groups():
        outward = [item.dep.target for item in group if graph.is_out_channel_pruning_fn(item.dep.handler)]
        if all(node.outputs for node in outward):
            modules = {node.module for node in outward}
            found[next(name for module, name in layers.items() if module in modules)] = group
    if not found:
        kind = type(graph.model).__name__
        raise ValueError(f"model: {kind} has no channels to remove; it needs a layer between input and output.")
    return found


def _blocks(graph: Any, group: Any) -> int:
    """Blocks of equal width that a grouped convolution, group norm or attention makes of the channels; else 1."""
    counts = [1]
    for item in group:
        module = item.dep.target.module
        pruner = graph.get_pruner_of_module(module) if isinstance(module, nn.Module) else None
        if pruner is None or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.out_channels):
            continue
        if isinstance(module, nn.MultiheadAttention):
            counts.append(module.num_heads)  # every head loses as many
            continue
        outward = graph.is_out_channel_pruning_fn(item.dep.handler)
        counts.append(pruner.get_out_channel_groups(module) if outward else pruner.get_in_channel_groups(module))
    return math.lcm(*counts)


def _trace(model: nn.Module, dataset: Dataset) -> Any:
    """The dependency graph of `model`, built by one forward pass with gradients."""
    inputs = dataset.train.inputs[:2]
    training.predict(model, inputs)  # a shape that does not fit is refused as such
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the graph follows autograd; a frozen layer would be lost from it
    with _watch(model) as watched, training.mode(model, training=False), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notices about unwrapped parameters; what fails is found below
        try:
            graph = tp.DependencyGraph().build_dependency(model, inputs, forward_fn=lambda traced, x: traced(x))
        except Exception as error:
            raise _untraceable(model, watched.active, str(error)) from error
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS) and name in watched.ran and module not in graph.module2node:
            reason = "what comes before it does not reach the model's output through autograd"
            raise _untraceable(model, watched.cut or name, reason)
    return graph


def _kept(graph: Any, groups: Mapping[str, Any], gone: Mapping[str, Tensor], dataset: Dataset) -> Kept:
    """As `ChannelRemoval.kept`; refuses a model that orders its channels in a way that the graph does not see."""
    outputs: dict[nn.Module, Tensor] = {}  # True where one goes, [channels] each
    inputs: dict[nn.Module, Tensor] = {}
    names = {module: name for name, module in graph.model.named_modules()}
    depthwise = set()  # what comes into one is checked by what it answers
    for name, group in groups.items():
        for item in group:
            layer, handler = item.dep.target.module, item.dep.handler
            if not isinstance(layer, _LAYERS):
                continue
            outward, linear = graph.is_out_channel_pruning_fn(handler), isinstance(layer, nn.Linear)
            if outward and handler not in _OUT:
                depthwise.add(layer)
            side = ("out" if outward else "in") + ("_features" if linear else "_channels")
            marks = outputs if outward else inputs
            marked = marks.setdefault(layer, torch.zeros(getattr(layer, side), dtype=torch.bool))
            if max(item.idxs) >= len(marked):
                raise _untraceable(graph.model, names[layer], f"{max(item.idxs) + 1} channels reach its {len(marked)}")
            # After a concatenation, positions in the layer differ from those in the group.
            pairs = zip(item.idxs, item.root_idxs, strict=True)
            marked[[index for index, root in pairs if root is not None and gone[name][root]]] = True
    held = {layer: marked for layer, marked in outputs.items() if layer not in depthwise}
    wrong = wrong_joint(graph.model, held, inputs, dataset.train.inputs[:2])
    if wrong is not None:
        raise _untraceable(graph.model, names[wrong], "its inputs come in another order than the channels before it")
    return {name: tuple((~outputs[m]).nonzero().flatten().tolist()) for m, name in names.items() if m in outputs}


def _untraceable(model: nn.Module, module_name: str, reason: str) -> Untraceable:
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    where = f"{module_name} ({kinds[module_name]})" if kinds.get(module_name) else module_name
    short = reason.strip().splitlines()[0].rstrip(".") if reason.strip() else "no reason given"
    return Untraceable(
        f"model: channels of {type(model).__name__} cannot be followed through {where}: {short}. "
        "Its weights can be pruned instead: prune.weights(model, ratio=...)."
    )


@dataclass
class _Watched:
    """Which modules ran; those that had begun but not ended when a forward pass failed; where gradients were cut."""

    ran: set[str]
    stack: list[str]
    cut: str = ""

    @property
    def active(self) -> str:
        return next((name for name in reversed(self.stack) if name), "the model itself")


def _has_gradient(values: Any) -> bool:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)


@contextmanager
def _watch(model: nn.Module) -> Iterator[_Watched]:
    """Follow a forward pass through the named modules."""
    watched = _Watched(set(), [])
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
