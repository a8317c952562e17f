"""Weight (unstructured) pruning: set the least important weights to zero.

A pruned weight is a plain zero in a plain tensor. Nothing is re-parametrised, so a pruned model saves, loads and
runs like any other; its mask can be read off the zeros at any time, and `HoldMasks` keeps the zeros in training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kit import training
from kit.data import Dataset
from kit.prune.scores import Importance, prunable, score_weights

Scope = Literal["global", "layer"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Masks = dict[str, Tensor]


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
        drop = {name: round(_ratio_of(ratio, name) * length) for name, length in self.lengths.items()}
        return {name: rank >= drop[name] for name, rank in self.ranks.items()}


def rank(scores: Mapping[str, Tensor], scope: Scope = "global") -> Ranking:
    """Queue up weights by score, lowest first.

    Args:
        scores: as `score_weights` gives them.
        scope: "global" makes one queue of all weights, "layer" one for each tensor.

    Raises:
        ValueError: an unknown scope.
    """
    _check_scope(scope)
    if scope == "layer":
        return Ranking(
            {name: _places(score.flatten()).view_as(score) for name, score in scores.items()},
            {name: score.numel() for name, score in scores.items()},
        )
    places = _places(torch.cat([score.flatten() for score in scores.values()]))  # [number of weights]
    parts = places.split([score.numel() for score in scores.values()])
    return Ranking(
        {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)},
        dict.fromkeys(scores, len(places)),
    )


def weights(
    model: nn.Module,
    *,
    ratio: float | Mapping[str, float] | None = None,
    threshold: float | None = None,
    importance: Importance = "magnitude",
    scope: Scope = "global",
    dataset: Dataset | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` with its least important weights set to zero.

    Args:
        model: any module with a prunable weight; not changed.
        ratio: share of the prunable weights to remove, in [0, 1); or one ratio a weight name, which ranks each
            tensor by itself (names left out keep all).
        threshold: instead of a ratio: remove every weight whose absolute value is below it, 0 or more.
        importance: "magnitude", "taylor" or "random"; see `kit.prune.score_weights`.
        scope: "global" ranks all weights together, "layer" removes the same share of each tensor.
        dataset: needed by importance "taylor".
        seed: used by importance "random".

    Raises:
        ValueError: a ratio outside [0, 1), an unknown scope, importance or weight name, both or neither of ratio and
            threshold, a threshold with another importance than magnitude, or nothing to prune.
    """
    _check_scope(scope)
    if (ratio is None) == (threshold is None):
        raise ValueError(f"give either ratio or threshold; got ratio={ratio!r} and threshold={threshold!r}.")
    if threshold is not None:
        return apply_masks(model, threshold_masks(model, threshold, importance))
    assert ratio is not None
    check_ratio(ratio, prunable(model))
    scores = score_weights(model, importance, dataset=dataset, seed=seed)
    return apply_masks(model, rank(scores, "layer" if isinstance(ratio, Mapping) else scope).masks(ratio))


def threshold_masks(model: nn.Module, threshold: float, importance: Importance = "magnitude") -> Masks:
    """True where |w| is at least `threshold`; arguments and errors as in `weights`."""
    if importance != "magnitude":
        raise ValueError(
            f"threshold is compared with absolute weights, so importance must be 'magnitude'; got {importance!r}."
        )
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be a finite number, 0 or more; got {threshold!r}.")
    return {name: w.detach().abs() >= threshold for name, w in prunable(model).items()}


def masks(model: nn.Module) -> Masks:
    """Read the masks off a pruned model: True where a prunable weight is not zero."""
    return {name: w.detach() != 0 for name, w in prunable(model).items()}


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` with zeros where a mask is False.

    Raises:
        ValueError: a mask names no prunable weight, or has another shape or type.
    """
    known = prunable(model)
    for name, mask in masks.items():
        if name not in known or mask.shape != known[name].shape:
            shapes = {key: tuple(w.shape) for key, w in known.items()}
            raise ValueError(
                f"masks: {name!r} of shape {tuple(mask.shape)} fits none of the prunable weights {shapes}."
            )
        if mask.dtype != torch.bool:
            raise ValueError(f"masks: {name!r} must hold bool, True where a weight stays; got {mask.dtype}.")
    smaller = copy.deepcopy(model)
    _write_zeros(smaller, masks)
    return smaller


class HoldMasks(training.Callback):
    """Keeps masked weights at zero while a fit runs: after each step they are written to zero again.

    The kept weights move exactly as if the mask were part of the forward pass, since momentum and Adam work weight
    by weight and a masked weight is zero in every forward pass.

    Args:
        masks: True where a weight stays, by weight name.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        """Remember the masks."""
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
    **fit_settings: Any,
) -> nn.Module:
    """A copy of `model` trained on, its zeros held: what is pruned stays pruned.

    Args:
        model: a pruned model (or a dense one: then every weight may move); not changed.
        dataset: its train split is fitted.
        epochs: 0 or more.
        callbacks: called after the zeros are written.
        **fit_settings: passed on to `training.fit` (seed, lr, batch_size, cancel ...).

    Raises:
        As `training.fit`.
    """
    tuned = copy.deepcopy(model)
    training.fit(tuned, dataset, epochs=epochs, callbacks=[HoldMasks(masks(model)), *callbacks], **fit_settings)
    return tuned


def check_ratio(ratio: float | Mapping[str, float], names: Mapping[str, object]) -> None:
    """Refuse ratios outside [0, 1) and, where given by name, names that are not in `names`.

    Raises:
        ValueError: says which.
        TypeError: a ratio that is no number.
    """
    if isinstance(ratio, Mapping):
        unknown = sorted(set(ratio) - set(names))
        if unknown:
            raise ValueError(f"ratio names {', '.join(unknown)}, which cannot be pruned; allowed: {', '.join(names)}.")
    for value in ratio.values() if isinstance(ratio, Mapping) else [ratio]:
        if not isinstance(value, Real):
            raise TypeError(f"ratio must be a number, the share to remove; got {value!r}.")
        if not 0 <= value < 1:
            raise ValueError(f"ratio is the share to remove and must lie in [0, 1); got {value!r}.")


def _check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}; got {scope!r}.")


def _ratio_of(ratio: float | Mapping[str, float], name: str) -> float:
    return ratio.get(name, 0.0) if isinstance(ratio, Mapping) else ratio


def _places(scores: Tensor) -> Tensor:
    """Place of each score in ascending order; equal scores in order of position. [n] -> int64 [n]."""
    order = scores.argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


@torch.no_grad()
def _write_zeros(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in masks:
            parameter.masked_fill_(~masks[name], 0)  # not a product: NaN times 0 would stay NaN
