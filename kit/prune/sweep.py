"""The whole trade-off of one way of pruning: a point for each ratio, everything they share computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Literal, get_args

from torch import nn

from kit import measure, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune.scores import IMPORTANCES, Importance, prunable, score_weights
from kit.prune.structured import thin
from kit.prune.unstructured import SCOPES, Ranking, Scope, apply_masks, fine_tune, masks, rank

What = Literal["weights", "channels"]
WHATS: tuple[What, ...] = get_args(What)


@dataclass(frozen=True)
class Method:
    """One way of pruning; with a ratio it says exactly which model is meant.

    Attributes:
        what: "weights" (set to zero) or "channels" (taken out).
        importance: "magnitude", "taylor" or "random".
        scope: "global" or "layer".
        epochs: of fine-tuning after pruning, 0 or more.
        seed: of "random" and of the sample order in fine-tuning.

    Raises:
        ValueError: an attribute outside of these.
    """

    what: What = "weights"
    importance: Importance = "magnitude"
    scope: Scope = "global"
    epochs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown words and negative numbers."""
        for name, allowed in (("what", WHATS), ("importance", IMPORTANCES), ("scope", SCOPES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name in ("epochs", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)!r}.")

    @property
    def rival(self) -> Method:
        """The same with random importance: what any method has to beat."""
        return replace(self, importance="random")


@dataclass(frozen=True)
class Pruned:
    """A pruned model and what became of its layers.

    Attributes:
        model: the result.
        kept: for each prunable weight of the dense model, the share of its numbers that are still there.
        floored: channel groups in which one channel was kept against the ratio.
    """

    model: nn.Module
    kept: dict[str, float]
    floored: tuple[str, ...]

    @property
    def emptied(self) -> tuple[str, ...]:
        """Weights of which nothing is left: the network is cut there."""
        return tuple(name for name, share in self.kept.items() if share == 0)


@dataclass(frozen=True)
class Point:
    """One model on the trade-off plane.

    Attributes:
        ratio: share removed.
        accuracy: on the validation split, or on its first slice (see `whole`).
        whole: whether `accuracy` rests on all validation samples.
        nonzeros: parameters that are not zero.
        file_bytes: length of the file written and read back equal.
        flops: for one sample.
        emptied: weights of which nothing is left.
        floored: channel groups kept from being emptied.
    """

    ratio: float
    accuracy: Estimate
    whole: bool
    nonzeros: int
    file_bytes: int
    flops: int
    emptied: tuple[str, ...]
    floored: tuple[str, ...]


class Sweep:
    """Prunes one model at any ratio in any way; scores, rankings and FLOPs are worked out once.

    Args:
        model: any module with a prunable weight; copied, so that later training does not change the sweep.
        dataset: validation measures; train scores and fine-tunes.
        slice_size: samples in the first answer of `points`.

    Raises:
        ValueError: nothing to prune, or a model that cannot take the samples.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, slice_size: int = 1024) -> None:
        """Copy the model."""
        training.predict(model, dataset.validation.inputs[:2])
        self.model = copy.deepcopy(model).eval()
        self.dataset = dataset
        self.slice_size = slice_size
        self._sizes = {name: w.numel() for name, w in prunable(self.model).items()}
        self._rankings: dict[tuple[Importance, Scope, int], Ranking] = {}
        self._flops: dict[tuple[tuple[int, ...], ...], int] = {}

    def prune(
        self,
        method: Method,
        ratio: float,
        *,
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
    ) -> Pruned:
        """The model pruned by `method` at `ratio`, fine-tuned if the method says so.

        Raises:
            ValueError: a ratio outside [0, 1).
            Untraceable: channels of a model that cannot be traced.
            training.Cancelled: `cancel` was set.
        """
        if method.what == "channels":
            thinned = thin(
                self.model,
                ratio=ratio,
                dataset=self.dataset,
                importance=method.importance,
                scope=method.scope,
                seed=method.seed,
            )
            smaller, floored = thinned.model, thinned.floored
        else:
            smaller, floored = apply_masks(self.model, self.ranking(method).masks(ratio)), ()
        kept = {name: int(mask.sum()) / self._sizes[name] for name, mask in masks(smaller).items()}
        if method.epochs:
            smaller = fine_tune(
                smaller, self.dataset, epochs=method.epochs, seed=method.seed, callbacks=callbacks, cancel=cancel
            )
        return Pruned(smaller, kept, floored)

    def ranking(self, method: Method) -> Ranking:
        """The queue in which `method` removes weights, remembered."""
        key = (method.importance, method.scope, method.seed if method.importance == "random" else 0)
        if key not in self._rankings:
            scores = score_weights(self.model, method.importance, dataset=self.dataset, seed=method.seed)
            self._rankings[key] = rank(scores, method.scope)
        return self._rankings[key]

    def measure(
        self,
        pruned: Pruned,
        ratio: float,
        *,
        cancel: Event | None = None,
        on_slice: Callable[[Point], None] | None = None,
    ) -> Point:
        """Measure a pruned model on the validation split, slice by slice.

        Args:
            pruned: from `prune`.
            ratio: noted in the point.
            cancel: looked at between slices.
            on_slice: called with each answer before the last, which rests on the slices so far.

        Raises:
            training.Cancelled: `cancel` was set.
        """
        split, model = self.dataset.validation, pruned.model
        sizes = {
            "nonzeros": measure.nonzeros(model),
            "file_bytes": measure.file_bytes(model),
            "flops": self._count_flops(model),
        }
        for counts in training.evaluate_slices(model, split, batch_size=self.slice_size, cancel=cancel):
            point = Point(
                ratio=ratio,
                accuracy=Estimate.from_counts(counts.correct, counts.total),
                whole=counts.total == len(split),
                emptied=pruned.emptied,
                floored=pruned.floored,
                **sizes,
            )
            if on_slice is not None and not point.whole:
                on_slice(point)
        return point

    def _count_flops(self, model: nn.Module) -> int:
        shapes = tuple(tuple(parameter.shape) for parameter in model.parameters())
        if shapes not in self._flops:  # FLOPs follow from the shapes: zeros are multiplied like any number
            self._flops[shapes] = measure.flops(model, self.dataset.validation.inputs)
        return self._flops[shapes]
