"""Channel (structured) pruning: whole channels and neurons are taken out, and the tensors really shrink.

Channels hang together: an output channel of one layer is an input channel of the next, and a residual sum ties the
channels of both branches. Which hang together is found by torch-pruning's dependency graph (Fang et al. 2023,
arXiv:2301.12900); which of them go is decided here.

| symbol | what | shape |
|---|---|---|
| group | everything that must lose a channel together | list of (layer, in or out, indices) |
| score | importance of each channel of a group | [channels] |
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

from kit import training
from kit.data import Dataset
from kit.prune.joints import wrong_joint
from kit.prune.scores import Importance, score_weights
from kit.prune.unstructured import SCOPES, Scope, check_ratio

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # those that own channels


class Untraceable(ValueError):  # noqa: N818  (says what the model is)
    """The model's channels cannot be followed from layer to layer; its weights can still be pruned."""


class LastChannelWarning(UserWarning):
    """The ratio would have emptied a layer: its most important channel was kept."""


@dataclass(frozen=True)
class Thinned:
    """What channel pruning gives.

    Attributes:
        model: the smaller model.
        kept: for each layer that lost (or could lose) outputs, the positions of those that stay, ascending.
        floored: groups that the ratio would have emptied; one channel (a block, for grouped layers) was kept.
    """

    model: nn.Module
    kept: dict[str, tuple[int, ...]]
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
        ratio: share of the channels to remove, in [0, 1); or one ratio a group name (see `channel_groups`), each
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
    thinned = thin(model, ratio=ratio, dataset=dataset, importance=importance, scope=scope, seed=seed)
    if thinned.floored:
        names = ", ".join(thinned.floored)
        warnings.warn(f"ratio {ratio} would empty {names}; one channel stays there.", LastChannelWarning, stacklevel=2)
    return thinned.model


def channel_groups(model: nn.Module, dataset: Dataset) -> dict[str, int]:
    """The number of channels of each group that can be thinned, by the name of the group's first layer."""
    graph = _trace(copy.deepcopy(model), dataset)
    return {name: len(group[0].idxs) for name, group in _groups(graph).items()}


def thin(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float],
    dataset: Dataset,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    seed: int = 0,
) -> Thinned:
    """As `channels`, with the record of what stayed instead of a warning."""
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}; got {scope!r}.")
    smaller = copy.deepcopy(model)
    graph = _trace(smaller, dataset)
    groups = _groups(graph)
    check_ratio(ratio, groups)
    weight_scores = _weight_scores(smaller, importance, dataset, seed)
    scores = {name: _channel_scores(group, weight_scores) for name, group in groups.items()}
    blocks = {name: _blocks(graph, group) for name, group in groups.items()}
    # In grouped layers the same channel of every block goes, or the blocks would differ in width.
    units = {name: score.view(blocks[name], -1).mean(0) for name, score in scores.items()}
    goes, floored = _choose(units, ratio, scope)
    lost: dict[str, set[int]] = {}
    for name, group in groups.items():
        for layer, positions in _lost(graph, group, goes[name].repeat(blocks[name])).items():
            lost.setdefault(layer, set()).update(positions)
    layers = {name: module for name, module in model.named_modules() if name in lost}
    kept = {name: tuple(sorted(set(range(_width(layer))) - lost[name])) for name, layer in layers.items()}
    _check_joints(graph, groups, {name: goes[name].repeat(blocks[name]) for name in groups}, dataset)
    for name, unit_goes in goes.items():
        gone = unit_goes.repeat(blocks[name])  # [channels]
        if gone.any():
            groups[name].prune(gone.nonzero().flatten().tolist())
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)  # the smaller tensors are new ones
    _check_runs(smaller, model, dataset)
    in_order = tuple(name for name, _ in smaller.named_modules() if name in floored)
    return Thinned(smaller, kept, in_order)


def _choose(
    scores: Mapping[str, Tensor], ratio: float | Mapping[str, float], scope: Scope
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """True where a channel goes, and the groups in which the best one was kept against the ratio."""
    if scope == "global" and not isinstance(ratio, Mapping):
        scaled = {name: score / score.mean().clamp_min(1e-30) for name, score in scores.items()}
        together = torch.cat(list(scaled.values()))  # [all channels]
        order = together.argsort(stable=True)
        everywhere = torch.zeros(len(together), dtype=torch.bool)
        everywhere[order[: round(ratio * len(together))]] = True
        goes = dict(zip(scores, everywhere.split([len(score) for score in scores.values()]), strict=True))
    else:
        goes = {}
        for name, score in scores.items():
            share = ratio.get(name, 0.0) if isinstance(ratio, Mapping) else ratio
            goes[name] = torch.zeros(len(score), dtype=torch.bool)
            goes[name][score.argsort(stable=True)[: round(share * len(score))]] = True
    floored = tuple(name for name, gone in goes.items() if gone.all())
    for name in floored:
        goes[name] = torch.arange(len(scores[name])) != scores[name].argmax()
    return goes, floored


def _weight_scores(model: nn.Module, kind: Importance, dataset: Dataset, seed: int) -> dict[int, Tensor]:
    """Score of each weight, by the id of its parameter; squared magnitudes add up to a squared L2 norm."""
    scores = score_weights(model, kind, dataset=dataset, seed=seed)
    named = dict(model.named_parameters())
    return {id(named[name]): score**2 if kind == "magnitude" else score for name, score in scores.items()}


def _channel_scores(group: Any, weight_scores: Mapping[int, Tensor]) -> Tensor:
    """Add up, over every layer of the group, the scores of the weights that a channel owns. -> [channels]."""
    total = torch.zeros(len(group[0].idxs))
    for item in group:
        layer, handler, roots = item.dep.layer, item.dep.pruning_fn, item.root_idxs
        score = weight_scores.get(id(getattr(layer, "weight", None)))
        if score is None or any(root is None for root in roots):
            continue
        transposed = bool(getattr(layer, "transposed", False))
        takes_out = handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
        takes_in = handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
        if takes_out != transposed and (takes_out or takes_in):
            own = score.flatten(1).sum(1)  # [rows]
        elif takes_out or takes_in:
            own = score.transpose(0, 1).flatten(1).sum(1)  # [columns]
        else:
            continue
        if max(item.idxs) < len(own):  # (inputs of a grouped convolution share columns: no score of their own)
            total.index_add_(0, torch.tensor(roots), own[torch.tensor(item.idxs)])
    return total


def _groups(graph: Any) -> dict[str, Any]:
    """Groups that may lose channels, by the name of their first layer; those that reach the output may not.

    Raises:
        ValueError: there is none.
    """
    found = {}
    for group in graph.get_all_groups():
        if not any(_is_output(graph, item.dep) for item in group):
            found[_outward_layers(graph, group)[0]] = group
    if not found:
        raise ValueError(
            f"model: {type(graph.model).__name__} has no channels to remove; it needs a layer between input and output."
        )
    return found


def _outward_layers(graph: Any, group: Any) -> list[str]:
    """Linear and convolutional layers that lose outputs with the group, in the model's order."""
    outward = {id(item.dep.target.module) for item in group if graph.is_out_channel_pruning_fn(item.dep.handler)}
    return [name for name, m in graph.model.named_modules() if id(m) in outward and isinstance(m, _LAYERS)]


def _lost(graph: Any, group: Any, gone: Tensor) -> dict[str, list[int]]:
    """For each layer that loses outputs with the group, their positions when the channels marked in `gone` go.

    After a concatenation they differ from the positions in the group.
    """
    names = {id(module): name for name, module in graph.model.named_modules() if isinstance(module, _LAYERS)}
    found: dict[str, list[int]] = {}
    for item in group:
        name = names.get(id(item.dep.target.module))
        if name is not None and graph.is_out_channel_pruning_fn(item.dep.handler):
            pairs = zip(item.idxs, item.root_idxs, strict=True)
            found.setdefault(name, []).extend(index for index, root in pairs if root is not None and gone[root])
    return found


def _width(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _is_output(graph: Any, dependency: Any) -> bool:
    """Whether removing along this dependency would change the number of outputs of the model."""
    inward_only = graph.is_in_channel_pruning_fn(dependency.handler) and not graph.is_out_channel_pruning_fn(
        dependency.handler
    )
    return not dependency.target.outputs and not inward_only


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
    """The dependency graph of `model`, built by one forward pass with gradients.

    Raises:
        Untraceable: with the module at fault.
    """
    inputs = dataset.train.inputs[:2]
    training.predict(model, inputs)  # a shape that does not fit is refused as such
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the graph follows autograd; a frozen layer would be lost from it
    with (
        _watch(model) as watched,
        training.mode(model, training=False),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # its notices about unwrapped parameters; what fails is found below
        try:
            graph = tp.DependencyGraph().build_dependency(model, inputs, forward_fn=lambda traced, x: traced(x))
        except Exception as error:
            raise _untraceable(model, watched.active or "the model itself", str(error)) from error
    for name, module in model.named_modules():
        layer = isinstance(module, _LAYERS)
        if layer and name in watched.ran and module not in graph.module2node:
            where = watched.cut or name
            raise _untraceable(model, where, "what comes before it does not reach the model's output through autograd")
    return graph


def _check_joints(graph: Any, groups: Mapping[str, Any], goes: Mapping[str, Tensor], dataset: Dataset) -> None:
    """Refuse a model that orders its channels in a way that the graph does not see."""
    outputs: dict[nn.Module, Tensor] = {}
    inputs: dict[nn.Module, Tensor] = {}
    names = {module: name for name, module in graph.model.named_modules()}
    for name, group in groups.items():
        for item in group:
            layer, handler = item.dep.target.module, item.dep.handler
            if handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels):
                marked = outputs.setdefault(layer, torch.zeros(_width(layer), dtype=torch.bool))
            elif handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels):
                width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
                marked = inputs.setdefault(layer, torch.zeros(width, dtype=torch.bool))
            else:
                continue
            if max(item.idxs) >= len(marked):
                raise _untraceable(graph.model, names[layer], f"{max(item.idxs) + 1} channels reach its {len(marked)}")
            pairs = zip(item.idxs, item.root_idxs, strict=True)
            marked[[index for index, root in pairs if root is not None and goes[name][root]]] = True
    wrong = wrong_joint(graph.model, outputs, inputs, dataset.train.inputs[:2])
    if wrong is not None:
        raise _untraceable(graph.model, names[wrong], "its inputs come in another order than the channels before it")


def _check_runs(smaller: nn.Module, model: nn.Module, dataset: Dataset) -> None:
    """Refuse a result that does not run, or answers with another shape."""
    inputs = dataset.train.inputs[:2]
    with _watch(smaller) as watched:
        try:
            shape = training.predict(smaller, inputs).shape
        except Exception as error:
            raise _untraceable(model, watched.active or "the model itself", str(error.__cause__ or error)) from error
    if shape != training.predict(model, inputs).shape:
        raise _untraceable(model, "the model itself", f"its output became {tuple(shape)}")


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
        return self.stack[-1] if self.stack else ""


def _has_gradient(values: Any) -> bool:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)


@contextmanager
def _watch(model: nn.Module) -> Iterator[_Watched]:
    """Follow a forward pass through the named modules."""
    watched = _Watched(set(), [])

    def enter(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            watched.ran.add(name)
            watched.stack.append(name)

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        name = watched.stack.pop()
        if not watched.cut and _has_gradient(inputs) and not _has_gradient(output):
            watched.cut = name

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()
