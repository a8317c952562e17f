"""Which heads of an attention matter: the slope of the loss along a mask of each, and the accuracy without each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import inference, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune import joints
from kit.prune.graph import Graph
from kit.prune.groups import Group, Side
from kit.prune.plain import as_plain, plain
from kit.prune.scores import TAYLOR_BATCH, TAYLOR_SAMPLES
from kit.prune.structured import followed, marks_of


@dataclass(frozen=True)
class Heads:
    """The heads of one attention.

    Attributes:
        count: how many.
        outputs: by the name of each layer that gives queries, keys or values: int64 [heads, outputs], those of each.
    """

    count: int
    outputs: dict[str, Tensor]


def heads(model: nn.Module, dataset: Dataset) -> dict[str, Heads]:
    """The heads of each attention, by the name of its group of channels (see `channel_groups`), from input to output.

    Args:
        model: as for `head_scores`.
        dataset: gives a few samples to follow the channels on.

    Raises:
        ValueError, Untraceable, TypeError: as for `head_scores`.
    """
    model = as_plain(model)
    _, groups = _with_heads(model, dataset)
    order = [name for name, _ in model.named_modules()]
    return {name: Heads(group.n_units, _outputs(group, order)) for name, group in groups.items()}


def head_scores(model: nn.Module, dataset: Dataset, *, cancel: Event | None = None) -> dict[str, Tensor]:
    """How much the loss hangs on each head: the mean over samples of |dL/dm|, m a factor of 1 on what the head gives.

    L is the cross-entropy of one sample, nats; the mean is of the first 1024 training samples. Heads of one layer
    compare best: Michel et al. divide by a layer's norm before they rank those of all. Importance "taylor" adds up
    sizes of single weights instead, so that slopes of both signs do not meet.

    Args:
        model: any module whose heads `channels` can take out; not changed.
        dataset: gives the samples.
        cancel: looked at between batches.

    Returns:
        By the name of a group of channels, that of its first layer (see `channel_groups`): float32 [heads].

    Raises:
        ValueError: no heads, or a model that does not keep the samples apart along the first axis.
        Untraceable, TypeError: as for `channels`.
        training.Cancelled: `cancel` was set.

    Source: Michel, Levy and Neubig 2019, Are sixteen heads really better than one?, arXiv:1905.10650, equation 2.
    """
    training.check_fits(model, dataset)
    probe = plain(model).eval()
    _, groups = _with_heads(probe, dataset)
    samples = dataset.train.first(TAYLOR_SAMPLES)
    scores = {name: torch.zeros(group.n_units) for name, group in groups.items()}
    for start in range(0, len(samples), TAYLOR_BATCH):
        training.check_cancel(cancel, f"after the gradients of {start} of {len(samples)} samples")
        inputs, labels = (each[start : start + TAYLOR_BATCH] for each in (samples.inputs, samples.labels))
        masks = {name: torch.ones(len(labels), len(score), requires_grad=True) for name, score in scores.items()}
        hooks = [
            probe.get_submodule(side.layer).register_forward_pre_hook(_masking(side, group, masks[name]))
            for name, group in groups.items()
            for side in _taking(probe, group)
        ]
        with joints.hooked(hooks), torch.enable_grad():
            loss = F.cross_entropy(inference.ask(probe, inputs), labels, reduction="sum")
            slopes = torch.autograd.grad(loss, list(masks.values()))  # [b, heads] each: a sample has masks of its own
        for score, slope in zip(scores.values(), slopes, strict=True):
            score += slope.abs().sum(0) / len(samples)
    return scores


def head_accuracies(
    model: nn.Module, dataset: Dataset, *, cancel: Event | None = None
) -> dict[str, tuple[Estimate, ...]]:
    """The validation accuracy without each head, one at a time, nothing trained after.

    Args:
        model: as for `head_scores`.
        dataset: its validation split measures.
        cancel: looked at between batches.

    Returns:
        By the name of a group of channels: an estimate a head.

    Raises:
        ValueError, Untraceable, TypeError, training.Cancelled: as for `head_scores`.
    """
    training.check_fits(model, dataset)
    model = plain(model).eval()
    graph, groups = _with_heads(model, dataset)

    def without(name: str, head: int) -> Estimate:
        silent = joints.cut(model, marks_of(graph, {name: groups[name].units == head}), zero=True)
        counts = training.evaluate(silent, dataset.validation, cancel=cancel)
        return Estimate.from_counts(counts.correct, counts.total)

    return {name: tuple(without(name, head) for head in range(group.n_units)) for name, group in groups.items()}


def _with_heads(model: nn.Module, dataset: Dataset) -> tuple[Graph, Mapping[str, Group]]:
    """The groups whose units are heads, from input to output: rows of channels that come into a linear layer."""
    graph = followed(model, dataset)
    order = [name for name, _ in model.named_modules() if name in graph.groups]
    found = {name: graph.groups[name] for name in order if _are_heads(graph.groups[name])}
    found = {name: group for name, group in found.items() if _taking(model, group)}
    if not found:
        raise ValueError(f"model: {type(model).__name__} has no heads; it needs an attention of two heads or more.")
    return graph, found


def _outputs(group: Group, order: list[str]) -> dict[str, Tensor]:
    sides = {side.layer: side for side in group.sides if side.outward and side.layer in order}

    def of_heads(side: Side) -> Tensor:
        units = group.units[side.channels]
        return side.positions[units.argsort(stable=True)].view(group.n_units, -1)

    return {name: of_heads(sides[name]) for name in order if name in sides}


def _are_heads(group: Group) -> bool:
    """Whether each unit is several channels side by side."""
    size = len(group.units) // group.n_units
    return size > 1 and torch.equal(group.units, torch.arange(group.n_units).repeat_interleave(size))


def _taking(model: nn.Module, group: Group) -> list[Side]:
    """The linear layers that take what the group's channels give."""
    modules = dict(model.named_modules())
    return [side for side in group.sides if not side.outward and isinstance(modules.get(side.layer), nn.Linear)]


def _masking(side: Side, group: Group, mask: Tensor) -> Any:
    """A forward pre-hook that multiplies what comes into a layer by the mask [b, heads] of the unit that it is of."""

    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x, *others) = arguments  # [b, ..., width]
        if len(x) != len(mask):
            raise ValueError(f"model: {side.layer} must take [n, ..., width], a sample a row; got {tuple(x.shape)}.")
        factors = torch.ones(len(x), side.width).index_copy(1, side.positions, mask[:, group.units[side.channels]])
        return (x * factors.view(len(x), *[1] * (x.ndim - 2), -1).to(x), *others)

    return hook
