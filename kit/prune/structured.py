"""Channel (structured) pruning: whole channels and neurons are taken out, and the tensors really shrink.

Channels hang together: an output channel of one layer is an input channel of the next, and a residual sum ties the
channels of both branches. Which hang together, `kit.prune.graph` finds; which of them go is decided here; and that the
smaller model is the right one, `kit.prune.joints` checks.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from threading import Event

import torch
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset
from kit.prune import joints
from kit.prune.graph import Graph, checked_on, follow, is_usual, samples, stopped, untraceable
from kit.prune.groups import Group
from kit.prune.plain import as_plain, plain
from kit.prune.scores import Importance, score_weights
from kit.prune.unstructured import SCOPES, Scope, check_ratio, ratio_of

Kept = dict[str, tuple[int, ...]]
Choice = dict[str, Tensor]  # for each group: bool [channels], True where one goes


class LastChannelWarning(UserWarning):
    """The ratio would have emptied a layer: its most important channel was kept."""


class LeftAloneWarning(UserWarning):
    """Some channels cannot be followed through the model: they all stay."""


@dataclass(frozen=True)
class ChannelRemoval:
    """What channel pruning gives.

    Attributes:
        model: the smaller model.
        kept: for each layer that lost (or could lose) outputs, the positions of those that stay, ascending.
        floored: groups that the ratio would have emptied; one channel (or what goes together with it) was kept.
        skipped: what was left alone: the name of a group's first layer, or of a layer; and why, in a sentence.
    """

    model: nn.Module
    kept: Kept
    floored: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


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

    Each removal is checked on a few training samples: the smaller model answers as `model` does with zeros in the
    weights of the channels that go. Channels for which that does not hold, such as those that a layer normalisation
    takes together, all stay. Where channels must go together, as the heads of an attention or the two halves of a gated
    unit, they do.

    Args:
        model: any module that autograd can trace; not changed.
        ratio: share of the channels to remove, in [0, 1); or one ratio per group name (see `channel_groups`), each
            ranked by itself. At least one channel of each layer always stays.
        dataset: gives samples to follow the channels on, and gradients for importance "taylor".
        importance: "magnitude" (squared L2 norm of all that a channel owns), "taylor" (sum of |w g|) or "random".
        scope: "layer" removes the same share of each group; "global" ranks the channels of all groups together, after
            dividing by the group's mean score.
        seed: used by importance "random"; 0 or more.

    Raises:
        Untraceable: no channel can be followed, or none of a group that `ratio` names; says at which module.
        ValueError: a ratio outside [0, 1), an unknown scope, importance or group, a model that cannot be copied or take
            the samples, or no channel to remove.

    Warns:
        LastChannelWarning: the ratio would have emptied a layer.
        LeftAloneWarning: some channels stay because they cannot be followed; not said of those that a normalisation
            takes together, such as the width of a transformer (`remove_channels` names them).
    """
    removal = remove_channels(model, ratio=ratio, dataset=dataset, importance=importance, scope=scope, seed=seed)
    if removal.floored:
        names = ", ".join(removal.floored)
        warnings.warn(f"ratio {ratio} would empty {names}; one channel stays there.", LastChannelWarning, stacklevel=2)
    for name, reason in removal.skipped:
        if not is_usual(reason):
            warnings.warn(f"all channels of {name} stay. {reason}", LeftAloneWarning, stacklevel=2)
    return removal.model


def channel_groups(model: nn.Module, dataset: Dataset) -> dict[str, int]:
    """The number of channels of each group that may be pruned, by the name of the group's first layer."""
    return {name: len(group.units) for name, group in followed(plain(model), dataset).groups.items()}


def remove_channels(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float],
    dataset: Dataset,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    seed: int = 0,
    cancel: Event | None = None,
) -> ChannelRemoval:
    """As `channels`, with the record of what stayed instead of a warning; `cancel` as in `score_weights`."""
    checks.one_of("scope", scope, SCOPES)
    checks.whole("seed", seed)
    model = as_plain(model)
    graph = followed(model, dataset)
    named = list(ratio) if isinstance(ratio, Mapping) else []
    for name in [name for name in named if name in graph.skipped]:
        raise untraceable(model, graph.skipped[name])
    check_ratio(ratio, graph.groups)
    weight_scores = score_weights(model, importance, dataset=dataset, seed=seed, cancel=cancel)
    power = 2 if importance == "magnitude" else 1  # squares add up to a squared L2 norm
    scores = {name: _channel_scores(model, group, weight_scores, power) for name, group in graph.groups.items()}
    del weight_scores  # of a large model the room is needed
    units = {name: _mean(scores[name], group.units) for name, group in graph.groups.items()}
    goes, floored = _choose(units, ratio, scope)
    wanted = {name: goes[name][group.units] for name, group in graph.groups.items()}
    smaller, gone, skipped = _remove(model, graph, wanted, checked_on(model, dataset))
    for name in [name for name in named if name in skipped]:
        raise untraceable(model, skipped[name])
    nothing_goes = skipped and len(skipped) == sum(bool(channels.any()) for channels in wanted.values())
    skipped = graph.skipped | skipped
    order = [name for name, _ in model.named_modules()]
    reasons = {name: skipped[name] for name in order if name in skipped}
    if nothing_goes:
        raise untraceable(model, *reasons.values())
    sentences = tuple((name, f"Its channels {reason}.") for name, reason in reasons.items())
    kept = {
        layer: tuple((~marked).nonzero().flatten().tolist())
        for (layer, outward), marked in marks_of(graph, gone).items()
        if outward and isinstance(dict(model.named_modules()).get(layer), joints.LAYERS)
    }
    in_order = tuple(name for name in order if name in floored and name not in reasons)
    return ChannelRemoval(smaller, {name: kept[name] for name in order if name in kept}, in_order, sentences)


def followed(model: nn.Module, dataset: Dataset) -> Graph:
    """The groups of channels, in units that can go; `model` has plain weights. Errors as for `channels`."""
    graph = follow(model, dataset)
    if not graph.groups and graph.skipped:
        raise untraceable(model, *graph.skipped.values())
    if not graph.groups:
        kind = type(model).__name__
        raise ValueError(f"model: {kind} has no channels to remove; it needs a layer between input and output.")
    return in_heads(model, graph, samples(dataset))


def _remove(model: nn.Module, graph: Graph, wanted: Choice, inputs: Tensor) -> tuple[nn.Module, Choice, dict[str, str]]:
    """Remove of the wanted channels what passes the check: the smaller model, what went, and why other groups stay."""
    gone: Choice = {name: channels for name, channels in wanted.items() if not channels.any()}
    smaller, skipped = model, {}
    parts = [[name for name in wanted if name not in gone]]
    while part := parts.pop() if parts else []:  # all at once; where that fails, half of them, and so on
        tried, reason = _try(model, graph, gone | {name: wanted[name] for name in part}, inputs)
        if not reason:
            smaller, gone = tried, gone | {name: wanted[name] for name in part}
        elif len(part) > 1:
            parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            one = _is_one_head(model, graph.groups[part[0]], graph.splits)
            skipped[part[0]] = "make one head, which cannot go alone" if one else reason
    return training.copy_of(smaller), gone, skipped  # with memory of its own


def _is_one_head(model: nn.Module, group: Group, splits: Collection[tuple[int, int]]) -> bool:
    """Whether the group is the one head of an attention: a view says so, and a single layer takes what it gives."""
    own = [side for side in group.sides if isinstance(dict(model.named_modules()).get(side.layer), joints.LAYERS)]
    given = sum(side.width for side in own if side.outward)  # queries, keys and values, alone or joined
    return (1, len(group.units)) in splits and len(group.units) < given and sum(not side.outward for side in own) == 1


def _try(model: nn.Module, graph: Graph, gone: Choice, inputs: Tensor) -> tuple[nn.Module, str]:
    """The model without those channels, and what is wrong with it."""
    marks = marks_of(graph, gone)
    smaller = joints.cut(model, marks)
    fault = joints.first_fault(model, smaller, marks, inputs)
    return smaller, stopped(model, *fault) if fault else ""


def in_heads(model: nn.Module, graph: Graph, inputs: Tensor) -> Graph:
    """The graph with larger units where no single one can go: heads, or the same positions of all heads.

    Tried are groups of one size at once, as all layers of a network are mostly alike, and then each alone.
    """
    alike: dict[int, list[str]] = {}
    for name, group in graph.groups.items():
        alike.setdefault(group.n_units, []).append(name)
    parts = [(names, options) for n, names in alike.items() if len(options := _labels(n, graph.splits)) > 1]
    groups = dict(graph.groups)
    for names, options in parts:
        for labels in options:
            coarse = {name: replace(graph.groups[name], units=labels[graph.groups[name].units]) for name in names}
            if not _try(model, graph, {name: group.units == 0 for name, group in coarse.items()}, inputs)[1]:
                groups |= coarse
                break
        else:
            parts += [([name], options) for name in names if len(names) > 1]
    return replace(graph, groups=groups)


def _labels(count: int, splits: Collection[tuple[int, int]]) -> list[Tensor]:
    """Ways to put `count` units together, int64 [count] each, the finest first: not at all, and two for each split."""
    each = torch.arange(count)
    fitting = [positions for heads, positions in splits if heads > 1 and heads * positions == count]
    together = [labels for positions in fitting for labels in (each // positions, each % positions)]
    return [each, *sorted(together, key=lambda labels: -int(labels.max()))]


def marks_of(graph: Graph, gone: Choice) -> joints.Marks:
    """What goes of each layer's outputs and inputs, when those channels of the groups go."""
    marks: dict[tuple[str, bool], Tensor] = {}
    for name, channels in gone.items():
        for side in graph.groups[name].sides:
            marked = marks.setdefault((side.layer, side.outward), torch.zeros(side.width, dtype=torch.bool))
            marked[side.positions[channels[side.channels]]] = True
    return marks


def _choose(
    scores: Mapping[str, Tensor], ratio: float | Mapping[str, float], scope: Scope
) -> tuple[dict[str, Tensor], list[str]]:
    """True where a unit goes, and the groups in which the best one was kept against the ratio."""
    if scope == "global" and not isinstance(ratio, Mapping):
        scaled = {name: score / score.mean().clamp_min(1e-30) for name, score in scores.items()}
        everywhere = _lowest(torch.cat(list(scaled.values())), ratio)  # [all units]
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


def _mean(scores: Tensor, units: Tensor) -> Tensor:
    """The mean score of each unit's channels. [channels] -> [units]."""
    return torch.zeros(int(units.max()) + 1).index_add_(0, units, scores) / units.bincount()


def _channel_scores(model: nn.Module, group: Group, weight_scores: Mapping[str, Tensor], power: int) -> Tensor:
    """Add up, over every layer of the group, the powers of scores of the weights that a channel owns. -> [channels]."""
    total = torch.zeros(len(group.units))
    modules = dict(model.named_modules())
    for side in group.sides:
        layer, score = modules.get(side.layer), weight_scores.get(f"{side.layer}.weight")
        if score is None or not isinstance(layer, joints.LAYERS) or joints.is_depthwise(layer):
            continue
        axis = joints.located(model, side.layer, side.outward)[1]["weight"]
        own = (score.float() ** power).transpose(0, axis).flatten(1).sum(1)  # [rows or columns]
        if len(own) == side.width:  # (inputs of a grouped convolution share columns: no score of their own)
            total.index_add_(0, side.channels, own[side.positions])
    return total
