"""Lottery tickets: does a pruned network train as well from its first weights as the whole one?

Source: Frankle & Carbin 2019, arXiv:1803.03635; rewinding to an early step instead of the first: Frankle et al. 2020,
arXiv:1912.05671.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from torch import Tensor, nn

from kit import checks, measure, models, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune.plain import plain
from kit.prune.scores import prunable
from kit.prune.unstructured import Masks, Scope, apply_masks, fine_tune, masks, weights


@dataclass(frozen=True)
class Lottery:
    """A ticket beside its controls: validation accuracy after each epoch of the same training.

    Attributes:
        masks: the winning masks, True where a weight stays.
        dense: the whole network.
        ticket: the masks on the network's own first weights.
        reinitialised: the same masks on other first weights: is the structure alone enough?
        random_masks: other masks of the same sizes on the network's own first weights: do the masks matter?
    """

    masks: Masks
    dense: tuple[Estimate, ...]
    ticket: tuple[Estimate, ...]
    reinitialised: tuple[Estimate, ...]
    random_masks: tuple[Estimate, ...]


def lottery(
    model: nn.Module,
    dataset: Dataset,
    *,
    ratio: float,
    rounds: int,
    epochs: int,
    rewind: int = 0,
    scope: Scope = "global",
    seed: int = 0,
    lr: float = 1e-3,
    cancel: Event | None = None,
) -> Lottery:
    """Find a ticket by iterative magnitude pruning with rewinding, then train it beside its controls.

    Each round trains, prunes the same share of what is left, and sets the kept weights back to their start.

    Args:
        model: an untrained module of layers that `models.initialise` knows; not changed.
        dataset: train fits, validation measures.
        ratio: share of the prunable weights removed in the end, in [0, 1).
        rounds: of training and pruning, 1 or more.
        epochs: of each training, 1 or more.
        rewind: epochs after which the weights are those to go back to, 0 .. epochs - 1. The re-initialised control is
            trained for as many before its masks are put on.
        scope: "global" or "layer".
        seed: of the sample order, the control's first weights and the random masks.
        lr: learning rate.
        cancel: looked at between batches.

    Raises:
        ValueError: an argument out of range, nothing to prune.
        TypeError: an argument of another type, or a layer that cannot be re-initialised.
        training.Cancelled: `cancel` was set; `model` is as it was.
    """
    checks.share("ratio, the share to remove,", ratio, one=False)
    checks.whole("rounds", rounds, 1)
    checks.whole("epochs", epochs, 1)
    checks.whole("rewind", rewind, 0, epochs - 1)
    checks.whole("seed", seed)
    checks.number("lr", lr, above=0)
    prunable(model)

    def train(network: nn.Module, epochs: int, *callbacks: training.Callback) -> nn.Module:
        return fine_tune(network, dataset, epochs=epochs, seed=seed, lr=lr, callbacks=callbacks, cancel=cancel)

    other = plain(model)
    models.initialise(other, seed + 1_000_003)  # far from the seeds that a reader would choose for the model
    start = train(model, rewind)  # with rewind 0 a plain copy
    other = train(other, rewind)

    found: Masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(start).items()}
    for round_ in range(1, rounds + 1):
        trained = train(apply_masks(start, found), epochs - rewind)
        found = masks(weights(trained, ratio=1 - (1 - ratio) ** (round_ / rounds), scope=scope))

    def course(network: nn.Module) -> tuple[Estimate, ...]:
        estimates: list[Estimate] = []

        class Measure(training.Callback):
            def on_epoch_end(self, progress: training.Progress) -> None:
                estimates.append(measure.accuracy(progress.model, dataset.validation, cancel=cancel))

        train(network, epochs - rewind, Measure())
        return tuple(estimates)

    pruned = [apply_masks(start, found), apply_masks(other, found), apply_masks(start, shuffled(found, seed))]
    return Lottery(found, *map(course, [start, *pruned]))


def shuffled(masks: Mapping[str, Tensor], seed: int) -> Masks:
    """Random masks that keep as many weights of each layer as `masks` do."""
    rng = np.random.default_rng(checks.whole("seed", seed))  # not torch's stream, which drew the first weights
    orders = {name: torch.from_numpy(rng.permutation(mask.numel())) for name, mask in masks.items()}
    return {name: mask.flatten()[orders[name]].view_as(mask) for name, mask in masks.items()}
