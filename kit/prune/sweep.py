"""The whole trade-off of one way of pruning: a point for each ratio, everything they share computed once."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from threading import Event, Lock
from typing import Any, Literal, get_args

from torch import Tensor, nn

from kit import checks, measure, training
from kit.data import Dataset
from kit.inference import give_back
from kit.measure import Estimate, Profile
from kit.prune.heads import Heads, heads
from kit.prune.plain import plain
from kit.prune.scores import IMPORTANCES, Importance, prunable, score_weights
from kit.prune.structured import ChannelRemoval, remove_channels
from kit.prune.unstructured import (
    MANY,
    SCOPES,
    Masks,
    Ranking,
    Scope,
    apply_masks,
    check_renew,
    cut,
    fine_tune,
    masks,
    rank,
    renewed,
)

What = Literal["weights", "channels"]
WHATS: tuple[What, ...] = get_args(What)

LEARNING_RATE = 1e-3  # of fine-tuning, where nobody says
MODEL_BYTES = 256_000_000  # pruned models kept by a sweep


@dataclass(frozen=True)
class PruningMethod:
    """One way of pruning; with a ratio it says exactly which model is meant.

    Attributes:
        what: "weights" (set to zero) or "channels" (taken out).
        importance: "magnitude", "taylor" or "random".
        scope: "global" or "layer".
        epochs: of fine-tuning after pruning, 0 or more.
        seed: of "random" and of the sample order in fine-tuning.
        renew: whether batch-norm statistics are measured anew in the end, on 1024 training samples and without their
            labels; those of the dense model fit a pruned one badly (`training.renew_statistics`).
        lr: learning rate of fine-tuning, with Adam; above 0.

    Raises:
        TypeError, ValueError: an attribute outside of these.
    """

    what: What = "weights"
    importance: Importance = "magnitude"
    scope: Scope = "global"
    epochs: int = 0
    seed: int = 0
    renew: bool = False
    lr: float = LEARNING_RATE

    def __post_init__(self) -> None:
        """Refuse unknown words and negative numbers."""
        for name, allowed in (("what", WHATS), ("importance", IMPORTANCES), ("scope", SCOPES)):
            checks.one_of(name, getattr(self, name), allowed)
        checks.whole("epochs", self.epochs)
        checks.whole("seed", self.seed)
        checks.instance("renew", self.renew, bool)
        checks.number("lr", self.lr, above=0)


@dataclass(frozen=True)
class Pruned:
    """A pruned model and what became of its layers.

    Attributes:
        model: the result.
        kept: for each prunable weight of the dense model, the share of its numbers that are still there.
        floored: channel groups in which one channel was kept against the ratio.
        outputs: for each layer that lost channels, the positions of the outputs that stay; empty for weights.
        skipped: layers and channel groups that were left alone, each with the reason; empty for weights.
    """

    model: nn.Module
    kept: dict[str, float]
    floored: tuple[str, ...]
    outputs: dict[str, tuple[int, ...]]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def emptied(self) -> tuple[str, ...]:
        """Weights of which nothing is left: the network is cut there."""
        return tuple(name for name, share in self.kept.items() if share == 0)


@dataclass(frozen=True)
class Sizes:
    """Sizes that follow from a model alone, without a clock; as in `measure.Profile`."""

    parameters: int
    nonzeros: int
    dense_bytes: int
    file_bytes: int
    flops: int


@dataclass(frozen=True)
class Point:
    """One model on the trade-off plane.

    Attributes:
        ratio: share removed.
        accuracy: on the validation split, or on its first slices (see `whole`).
        whole: whether `accuracy` rests on all validation samples.
        sizes: of the model.
        emptied: weights of which nothing is left.
        floored: channel groups kept from being emptied.
        nonfinite: samples for which the model answers NaN or infinity; they count as wrong.
        skipped: as in `Pruned`.
        loss: mean cross-entropy of the same samples, nats.
        probabilities: whether the model answers such, not logits; see `training.Evaluation`.
    """

    ratio: float
    accuracy: Estimate
    whole: bool
    sizes: Sizes
    emptied: tuple[str, ...]
    floored: tuple[str, ...]
    nonfinite: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    loss: float = field(default=math.nan, compare=False)
    probabilities: bool = False

    @property
    def broken(self) -> str:
        """In words: `answers NaN or infinity for 512 of 540 samples`; empty where all answers are finite."""
        return training.in_words(self.nonfinite, self.accuracy.n)


Key = tuple[PruningMethod, float]


class Sweep:
    """Prunes one model at any ratio in any way, and remembers every answer.

    Args:
        model: any module with a prunable weight; copied, so that later training does not change the sweep. In the copy
            the weights are plain (see `kit.prune.plain`).
        dataset: validation measures; train scores and fine-tunes.
        slice_size: samples per slice of the validation split; see `point`.

    One thread computes; others may ask for what is remembered meanwhile.

    Raises:
        ValueError: nothing to prune, a model that cannot take the samples, or one with fewer logits than classes.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, slice_size: int = 1024) -> None:
        training.check_fits(model, dataset)
        self.model, self.dataset, self.slice_size = plain(model).eval(), dataset, slice_size
        self._weights = {name: w.numel() for name, w in prunable(self.model).items()}
        self.prunable = sum(self._weights.values())  # numbers
        self.large = self.prunable > MANY  # then models share what they can, and rankings are not kept
        self._slopes: dict[str, Tensor] = {}  # scores by "taylor" of a large model
        self._rankings: dict[tuple[Importance, Scope, int], Ranking] = {}
        self._flops: dict[tuple[tuple[int, ...], ...], int] = {}
        self._models: OrderedDict[Key, Pruned] = OrderedDict()
        self._models_lock = Lock()  # a look-up and an eviction must not meet
        self._points: dict[Key, Point] = {}
        self._latencies: dict[Key, Estimate] = {}
        self.dense = self._sizes(self.model)

    def pruned(
        self,
        method: PruningMethod,
        ratio: float,
        *,
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
    ) -> Pruned:
        """The model pruned by `method` at `ratio`, the share to remove, in [0, 1); fine-tuned if the method says so.

        The latest models are remembered, up to 256 MB of them; an older one is made again, the same by its seed.
        Those of a large model share what was not pruned with each other and with `model`: train a copy of them.
        `callbacks` are called in fine-tuning; `cancel` is looked at between batches.

        Raises:
            TypeError: a ratio that is no number.
            ValueError: a ratio outside [0, 1), or statistics to renew where there are none.
            Untraceable: channels of a model that cannot be traced.
            training.Cancelled: `cancel` was set.
        """
        method, ratio = key = _key(method, ratio)
        with self._models_lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
        with training.interruptible(self.model, cancel, "while the model was pruned"):
            found = self._renewed(*key, callbacks, cancel) if method.renew else self._made(*key, callbacks, cancel)
        if self.large:
            give_back()
        with self._models_lock:
            self._models[key] = found
            while len(self._models) > max(2, MODEL_BYTES // self.dense.dense_bytes):
                self._models.popitem(last=False)
        return found

    def _made(
        self, method: PruningMethod, ratio: float, callbacks: Sequence[training.Callback], cancel: Event | None
    ) -> Pruned:
        how: dict[str, Any] = {"importance": method.importance, "scope": method.scope, "seed": method.seed}
        if method.what == "channels":
            removal = remove_channels(self.model, ratio=ratio, dataset=self.dataset, cancel=cancel, **how)
        else:
            kept_weights = self.masks(method, ratio, cancel) if ratio else {}
            removal = ChannelRemoval(apply_masks(self.model, kept_weights, share=self.large), {}, ())
        smaller = removal.model
        kept = {name: int(mask.sum()) / self._weights[name] for name, mask in masks(smaller).items()}
        if method.epochs:
            how = {
                "epochs": method.epochs,
                "seed": method.seed,
                "lr": method.lr,
                "callbacks": callbacks,
                "cancel": cancel,
            }
            smaller = fine_tune(smaller, self.dataset, **how)
        return Pruned(smaller, kept, removal.floored, removal.kept, removal.skipped)

    def _renewed(
        self, method: PruningMethod, ratio: float, callbacks: Sequence[training.Callback], cancel: Event | None
    ) -> Pruned:
        check_renew(self.model, method.renew)
        as_it_is = self.pruned(replace(method, renew=False), ratio, callbacks=callbacks, cancel=cancel)
        return replace(as_it_is, model=renewed(as_it_is.model, self.dataset, cancel))

    @cached_property
    def heads(self) -> dict[str, Heads]:
        """The heads of each attention of a model for texts; none where there are none, or they cannot be followed."""
        if self.dataset.tokens is None:
            return {}
        try:
            return heads(self.model, self.dataset)
        except ValueError:
            return {}

    def ranking(self, method: PruningMethod, cancel: Event | None = None) -> Ranking:
        """The queue in which `method` removes weights, remembered; `cancel` as in `score_weights`."""
        key = (method.importance, method.scope, method.seed if method.importance == "random" else 0)
        if key not in self._rankings:
            how: dict[str, Any] = {"dataset": self.dataset, "seed": method.seed, "cancel": cancel}
            scores = score_weights(self.model, method.importance, **how)
            self._rankings[key] = rank(scores, method.scope)
        return self._rankings[key]

    def masks(self, method: PruningMethod, ratio: float, cancel: Event | None = None) -> Masks:
        """What `method` leaves at a ratio: by its ranking, or for a large model, whose ranking takes long, by a cut."""
        if not self.large:
            return self.ranking(method, cancel).masks(ratio)
        how: dict[str, Any] = {"dataset": self.dataset, "seed": method.seed, "cancel": cancel}
        scores = self._slopes if method.importance == "taylor" else {}
        scores = scores or score_weights(self.model, method.importance, **how)
        if method.importance == "taylor":
            self._slopes = scores
        return cut(scores, ratio, method.scope)

    def thresholds(self, method: PruningMethod, ratio: float) -> tuple[float, ...]:
        """Absolute values below which weights went: one (scope "global") or one per layer; () if none decided."""
        if method.what != "weights" or method.importance != "magnitude" or ratio == 0:
            return ()
        named = dict(self.model.named_parameters())
        kept = masks(self.pruned(method, ratio).model) if self.large else self.ranking(method).masks(ratio)
        smallest = [float(named[name].detach().abs()[mask].min()) for name, mask in kept.items() if mask.any()]
        return (min(smallest),) if method.scope == "global" and smallest else tuple(smallest)

    def known(self, method: PruningMethod, ratio: float) -> Point | None:
        """The point if it is remembered."""
        return self._points.get(_key(method, ratio))

    def point(
        self,
        method: PruningMethod,
        ratio: float,
        *,
        callbacks: Sequence[training.Callback] = (),
        cancel: Event | None = None,
        on_slice: Callable[[Point], None] | None = None,
        enough: int | None = None,
    ) -> Point:
        """Prune and measure on the validation split, slice by slice; remembered. Arguments are those of `pruned`.

        `on_slice` is called with each answer before the last, which rests on the slices so far. After `enough` samples
        no more are measured; without it, they are all the next time.
        """
        key = _key(method, ratio)
        if (found := self._points.get(key)) and (found.whole or (enough and found.accuracy.n >= enough)):
            return found
        pruned = self.pruned(method, ratio, callbacks=callbacks, cancel=cancel)
        split, dense = self.dataset.validation, key == (PruningMethod(), 0.0)
        with training.interruptible(self.model, cancel, "while sizes were taken"):
            sizes = self.dense if dense else self._sizes(pruned.model)
        for counts in training.evaluate_slices(pruned.model, split, batch_size=self.slice_size, cancel=cancel):
            accuracy = Estimate.from_counts(counts.correct, counts.total)
            layers: dict[str, Any] = {"emptied": pruned.emptied, "floored": pruned.floored, "skipped": pruned.skipped}
            whole = counts.total == len(split)
            layers |= {"nonfinite": counts.nonfinite, "loss": counts.loss, "probabilities": counts.probabilities}
            point = Point(ratio, accuracy, whole, sizes, **layers)
            if enough and counts.total >= enough:
                break
            if on_slice is not None and not point.whole:
                on_slice(point)
        self._points[key] = point
        return point

    def known_latency(self, method: PruningMethod, ratio: float) -> Estimate | None:
        """The latency if it is remembered."""
        return self._latencies.get(_key(method, ratio))

    def latency(
        self, method: PruningMethod, ratio: float, *, again: bool = False, cancel: Event | None = None
    ) -> Estimate:
        """Milliseconds for one sample; see `measure.latency`. Errors as in `pruned`.

        `again` measures anew and forgets the old value, which may stem from a moment when the machine was busy.
        """
        key = _key(method, ratio)
        if again or key not in self._latencies:
            model = self.pruned(method, ratio, cancel=cancel).model
            self._latencies[key] = measure.latency(model, self.dataset.validation.inputs, cancel=cancel)
        return self._latencies[key]

    def profile(self, method: PruningMethod, ratio: float) -> Profile:
        """Everything measured about the model, latency at batch 1."""
        point, latency = self.point(method, ratio), self.latency(method, ratio)
        measured: dict[str, Any] = {**asdict(point.sizes), "latency": latency, "nonfinite": point.nonfinite}
        return Profile(accuracy=point.accuracy, batch_size=1, **measured)

    def _sizes(self, model: nn.Module) -> Sizes:
        shapes = tuple(tuple(parameter.shape) for parameter in model.parameters())
        if shapes not in self._flops:  # FLOPs follow from the shapes: zeros are multiplied like any number
            self._flops[shapes] = measure.flops(model, self.dataset.validation.inputs)
        in_memory = measure.parameters(model), measure.nonzeros(model), measure.dense_bytes(model)
        return Sizes(*in_memory, measure.file_bytes(model), self._flops[shapes])


def _key(method: PruningMethod, ratio: float) -> Key:
    """Nothing removed, trained or renewed is the dense model, whatever the method; lr is that of a training."""
    checks.instance("method", method, PruningMethod)
    checks.share("ratio, the share to remove,", ratio, one=False)
    method = method if method.epochs else replace(method, lr=LEARNING_RATE)
    return (PruningMethod(), 0.0) if ratio == 0 and not (method.epochs or method.renew) else (method, ratio)
