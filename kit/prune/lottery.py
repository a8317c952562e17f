"""Lottery tickets: does a pruned network train as well from its first weights as the whole one?

Source: Frankle & Carbin 2019, arXiv:1803.03635; rewinding to an early step instead of the first: Frankle et al. 2020,
arXiv:1912.05671.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor, nn

from kit import measure, models, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune.scores import prunable
from kit.prune.unstructured import (
    Masks,
    Scope,
    apply_masks,
    check_ratio,
    fine_tune,
    masks,
    weights,
)


@dataclass(frozen=True)
class Lottery:
    """A ticket beside its controls: validation accuracy after each epoch of the same training.

    Attributes:
        masks: the winning masks, True where a weight stays.
        dense: the whole network.
        ticket: the masks on the network's own first weights.
        reinitialised: the same masks on other first weights: is it the structure alone?
        random_masks: other masks with as many weights a layer, on the own first weights: is it the masks at all?
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
        rewind: go back to the weights after this many epochs instead of the first ones; 0 .. epochs - 1. The
            re-initialised control is trained so many epochs before its masks are put on.
        scope: "global" or "layer".
        seed: of the sample order, the control's first weights and the random masks.
        lr: learning rate.
        cancel: looked at between batches.

    Raises:
        ValueError: an argument out of range, nothing to prune.
        TypeError: a layer that cannot be re-initialised.
        training.Cancelled: `cancel` was set; `model` is as it was.
    """
    check_ratio(ratio, {})
    if rounds < 1 or epochs < 1 or not 0 <= rewind < epochs:
        raise ValueError(
            f"rounds and epochs must be 1 or more and rewind in 0 .. epochs - 1; got {rounds}, {epochs}, {rewind}."
        )
    prunable(model)

    def train(network: nn.Module, epochs: int) -> nn.Module:
        return fine_tune(network, dataset, epochs=epochs, seed=seed, lr=lr, cancel=cancel)

    other = copy.deepcopy(model)
    models.initialise(other, seed + 1_000_003)  # far from the seeds that a reader would choose for the model
    start = train(model, rewind)  # with rewind 0 a plain copy
    other = train(other, rewind)

    found: Masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(start).items()}
    for round_ in range(1, rounds + 1):
        trained = train(apply_masks(start, found), epochs - rewind)
        reached = 1 - (1 - ratio) ** (round_ / rounds)  # the same share of what is left goes each round
        found = masks(weights(trained, ratio=reached, scope=scope))

    def course(network: nn.Module) -> tuple[Estimate, ...]:
        return _course(network, dataset, epochs - rewind, seed, lr, cancel)

    return Lottery(
        masks=found,
        dense=course(start),
        ticket=course(apply_masks(start, found)),
        reinitialised=course(apply_masks(other, found)),
        random_masks=course(apply_masks(start, shuffled(found, seed))),
    )


def shuffled(masks: Mapping[str, Tensor], seed: int) -> Masks:
    """Random masks that keep as many weights of each layer as `masks` do."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in masks.items()
    }


class _Course(training.Callback):
    """Collects the validation accuracy after each epoch."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.estimates: list[Estimate] = []

    def on_epoch_end(self, progress: training.Progress) -> None:
        self.estimates.append(measure.accuracy(progress.model, self.dataset.validation))


def _course(
    network: nn.Module, dataset: Dataset, epochs: int, seed: int, lr: float, cancel: Event | None
) -> tuple[Estimate, ...]:
    course = _Course(dataset)
    fine_tune(network, dataset, epochs=epochs, seed=seed, lr=lr, callbacks=[course], cancel=cancel)
    return tuple(course.estimates)
