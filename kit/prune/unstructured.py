"""Weight (unstructured) pruning: set the least important weights to zero.

A pruned weight is a plain zero in a plain tensor. Nothing is re-parametrised, so a pruned model saves, loads and
runs like any other; its mask can be read off the zeros at any time, and `HoldMasks` keeps the zeros in training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset
from kit.prune.plain import plain
from kit.prune.scores import Importance, prunable, score_weights

Scope = Literal["global", "layer"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Masks = dict[str, Tensor]

MANY = 1_000_000  # weights: fewer are sorted in a moment anyhow
RENEW_SAMPLES = 1024  # training samples on which batch-norm statistics are measured anew


@dataclass(frozen=True)
class Ranking:
    """Every prunable weight's place in the queue to be removed: compute once, prune at any ratio.

    Attributes:
        ranks: for each weight name an int64 tensor of places, 0 goes first, shaped like the weight.
        lengths: for each weight name the length of its queue: all weights (global) or its own (layer).
    """

    ranks: dict[str, Tensor]
    lengths: dict[str, int]

    def masks(self, ratio: float | Mapping[str, float]) -> Masks:
        """True where a weight stays when the first `ratio` of its queue goes; the count is exact, ties by position."""
        drop = {name: round(ratio_of(ratio, name) * length) for name, length in self.lengths.items()}
        return {name: rank >= drop[name] for name, rank in self.ranks.items()}


def rank(scores: Mapping[str, Tensor], scope: Scope = "global") -> Ranking:
    """Queue up weights by score, lowest first.

    Args:
        scores: as `score_weights` gives them.
        scope: "global" makes one queue of all weights, "layer" one for each tensor.

    Raises:
        ValueError: an unknown scope.
    """
    checks.one_of("scope", scope, SCOPES)
    ranks, lengths = {}, {}
    for names in [list(scores)] if scope == "global" else [[name] for name in scores]:
        order = _ascending(torch.cat([scores[name].flatten() for name in names]))  # [length of the queue]
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        for name, part in zip(names, places.split([scores[name].numel() for name in names]), strict=True):
            ranks[name], lengths[name] = part.view_as(scores[name]), len(order)
    return Ranking(ranks, lengths)


def cut(scores: Mapping[str, Tensor], ratio: float | Mapping[str, float], scope: Scope = "global") -> Masks:
    """The masks of `rank(scores, scope).masks(ratio)` without the ranking: quick, and little memory, for one ratio.

    Scores below the last one that goes are told by that score alone; of those that are equal to it the first go.
    """
    checks.one_of("scope", scope, SCOPES)
    found: Masks = {}
    for names in [list(scores)] if scope == "global" else [[name] for name in scores]:
        parts = [scores[name].flatten() for name in names]
        drop = round(ratio_of(ratio, names[0]) * sum(map(len, parts)))
        if not drop:
            found |= {name: torch.ones_like(scores[name], dtype=torch.bool) for name in names}
            continue
        last, equal = _counted(parts, drop) or _queued(parts, drop)
        for name, part in zip(names, parts, strict=True):
            same = part.isnan() if last != last else part == last
            goes = ~part.isnan() if last != last else part < last
            first = same.nonzero()[:equal, 0]
            goes[first] = True
            equal -= len(first)
            found[name] = ~goes.view_as(scores[name])
    return found


def _queued(parts: Sequence[Tensor], drop: int) -> tuple[float, int]:
    """The score of the last of `drop` that go, and how many of those that are equal to it go."""
    queue = torch.cat([part if part.dtype == torch.float64 else part.float() for part in parts]).numpy()
    queue.partition(drop - 1)  # in place; NaN is last, as in a ranking
    last = queue[drop - 1]
    return float(last), drop - int((queue[:drop] < last).sum() if last == last else (~np.isnan(queue[:drop])).sum())


def _counted(parts: Sequence[Tensor], drop: int) -> tuple[float, int] | None:
    """As `_queued`, without a copy: of many float32 of 0 or more, whose bits ascend as they do; None for others.

    The first half of the last one's bits is found by counting, then the other half.
    """
    if sum(map(len, parts)) < MANY or any(part.dtype != torch.float32 for part in parts):
        return None
    found = 0
    for at in (16, 0):
        times = np.zeros(1 << 16, np.int64)
        for part in parts:
            for few in part.split(MANY):
                bits = few.view(torch.int32).numpy()
                if at and bits.min() < 0:
                    return None
                halves = bits >> 16 if at else bits[bits >> 16 == found] & 0xFFFF
                times += np.bincount(halves, minlength=1 << 16)
        until = np.cumsum(times)
        half = int(np.searchsorted(until, drop))
        drop -= int(until[half] - times[half])
        found = found << 16 | half
    last = np.array([found], np.int32).view(np.float32)[0]
    return None if np.isnan(last) else (float(last), drop)


def _ascending(scores: Tensor) -> Tensor:
    """As `scores.argsort(stable=True)`, three times as fast for many float32 of 0 or more. [n] -> [n]."""
    if scores.dtype != torch.float32 or len(scores) < MANY or bool((scores.view(torch.int32) < 0).any()):
        return scores.argsort(stable=True)
    keys = (scores.view(torch.int32).long() << 32) | torch.arange(len(scores))  # bits ascend as the numbers do
    keys.numpy().sort()
    return keys & 0xFFFFFFFF


def weights(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float] | None = None,
    threshold: float | None = None,
    importance: Importance = "magnitude",
    scope: Scope = "global",
    dataset: Dataset | None = None,
    seed: int = 0,
    cancel: Event | None = None,
) -> nn.Module:
    """A copy of `model` with its least important weights set to zero, as plain tensors (see `kit.prune.plain`).

    Args:
        model: any module with a prunable weight; not changed.
        ratio: share of the prunable weights to remove, in [0, 1); or one ratio per weight name, which ranks each
            tensor by itself (names that are left out lose nothing). What is named so may be any parameter with two or
            more dimensions, such as a table of positions.
        threshold: instead of a ratio: remove every weight whose absolute value is below it, 0 or more.
        importance: "magnitude", "taylor" or "random"; see `kit.prune.score_weights`.
        scope: "global" ranks all weights together, "layer" removes the same share of each tensor.
        dataset: needed by importance "taylor".
        seed: used by importance "random".
        cancel: looked at between batches of "taylor".

    Raises:
        TypeError: an argument of another type.
        ValueError: a ratio outside [0, 1), an unknown scope, importance or weight name, both or neither of ratio and
            threshold, a threshold with another importance than magnitude, or nothing to prune.
        training.Cancelled: `cancel` was set.
    """
    checks.one_of("scope", scope, SCOPES)
    if (ratio is None) == (threshold is None):
        raise ValueError(f"give either ratio or threshold; got ratio={ratio!r} and threshold={threshold!r}.")
    if ratio is None:
        if importance != "magnitude":
            raise ValueError(f"threshold is for absolute weights: importance must be 'magnitude'; got {importance!r}.")
        least = checks.number("threshold", threshold, least=0)
        return apply_masks(model, {name: w.detach().abs() >= least for name, w in prunable(model).items()})
    also = ratio if isinstance(ratio, Mapping) else ()
    check_ratio(ratio, prunable(model, also))
    scores = score_weights(model, importance, dataset=dataset, seed=seed, also=also, cancel=cancel)
    return apply_masks(model, cut(scores, ratio, "layer" if isinstance(ratio, Mapping) else scope))


def masks(model: nn.Module, also: Collection[str] = ()) -> Masks:
    """Read the masks off a pruned model: True where a prunable weight is not zero; `also` as in `prunable`."""
    return {name: w.detach() != 0 for name, w in prunable(model, also).items()}


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor], *, share: bool = False) -> nn.Module:
    """A copy of `model` with zeros where a mask is False, its weights plain tensors.

    With `share`, tensors without a mask are those of `model` itself: for copies that nobody changes.

    Raises:
        TypeError: no masks.
        ValueError: a mask names no parameter with two or more dimensions, or has another shape or type.
    """
    checks.instance("masks", masks, Mapping, "a dict with a tensor for each weight name")
    tensors = [*model.named_parameters(), *model.named_buffers()] if share else []
    smaller = plain(model, [tensor for name, tensor in tensors if name not in masks])
    known = prunable(smaller, masks)
    for name, mask in masks.items():
        checks.instance(f"masks: {name!r}", mask, Tensor)
        if name not in known or mask.shape != known[name].shape:
            shape, shapes = tuple(mask.shape), {key: tuple(w.shape) for key, w in known.items()}
            raise ValueError(f"masks: {name!r} of shape {shape} fits none of the prunable weights {shapes}.")
        if mask.dtype != torch.bool:
            raise ValueError(f"masks: {name!r} must hold bool, True where a weight stays; got {mask.dtype}.")
    _write_zeros(smaller, masks)
    return smaller


class HoldMasks(training.Callback):
    """Keeps masked weights at zero while a fit runs: after each step they are written to zero again.

    The kept weights move exactly as if the mask were part of the forward pass, since momentum and Adam work weight
    by weight and a masked weight is zero in every forward pass.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = dict(masks)

    def on_batch_end(self, progress: training.Progress) -> None:
        """Write the zeros again."""
        _write_zeros(progress.model, self.masks)


def fine_tune(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    callbacks: Sequence[training.Callback] = (),
    also: Collection[str] = (),
    **fit_settings: Any,
) -> nn.Module:
    """A copy of `model` trained on, its zeros held: what is pruned stays pruned.

    Args:
        model: a pruned model (or a dense one: then every weight may move); not changed.
        dataset: its train split is fitted.
        epochs: 0 or more.
        callbacks: called after the zeros are written.
        also: further parameters whose zeros are held; see `prunable`.
        **fit_settings: passed on to `training.fit` (seed, lr, batch_size, cancel ...); the errors are its.
    """
    tuned = plain(model)
    held = HoldMasks(masks(tuned, also))
    training.fit(tuned, dataset, epochs=epochs, callbacks=[held, *callbacks], **fit_settings)
    return tuned


def check_renew(model: nn.Module, renew: bool) -> None:
    """Refuse to renew statistics where there are none (ValueError), and what is no bool (TypeError)."""
    checks.instance("renew", renew, bool)
    if renew and not training.has_statistics(model):
        kind = type(model).__name__
        raise ValueError(f"renew: {kind} has no batch-norm statistics to measure anew; leave renew at False.")


def renewed(model: nn.Module, dataset: Dataset, cancel: Event | None = None) -> nn.Module:
    """A copy whose batch-norm statistics are measured on the first 1024 training samples; no label is read."""
    return training.renew_statistics(model, dataset.train.first(RENEW_SAMPLES).inputs, cancel=cancel)


def check_ratio(ratio: float | Mapping[str, float], names: Collection[str] = ()) -> None:
    """Refuse ratios that are no numbers (TypeError) or outside [0, 1), and names not in `names` (both ValueError)."""
    checks.named("ratio", ratio if isinstance(ratio, Mapping) else (), names, "pruned")
    for value in ratio.values() if isinstance(ratio, Mapping) else [ratio]:
        checks.share("ratio, the share to remove,", value, one=False)


def ratio_of(ratio: float | Mapping[str, float], name: str) -> float:
    """The ratio for one name; names that are left out lose nothing."""
    return ratio.get(name, 0.0) if isinstance(ratio, Mapping) else ratio


@torch.no_grad()
def _write_zeros(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    named = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in named:
            raise ValueError(f"masks: {name!r} is no parameter of the model in training; train prune.plain(model).")
        named[name].masked_fill_(~mask, 0)  # not a product: NaN times 0 would stay NaN
