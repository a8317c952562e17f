"""Prune a little, train a little, again: schedules of ratios, and the loop that follows one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Literal, get_args

from torch import nn

from kit import checks, measure, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune.scores import Importance
from kit.prune.unstructured import Scope, fine_tune, weights

Schedule = Literal["one-shot", "linear", "cubic"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@dataclass(frozen=True)
class Round:
    """One round of pruning and fine-tuning.

    Attributes:
        ratio: share of the prunable weights at zero after this round.
        before: validation accuracy after pruning, before training.
        after: validation accuracy after training.
    """

    ratio: float
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Iterative:
    """A model pruned round by round, and how each round went."""

    model: nn.Module
    rounds: tuple[Round, ...]


def schedule(kind: Schedule, ratio: float, rounds: int) -> tuple[float, ...]:
    """The ratio to reach in each round, ascending, ending at `ratio`.

    Args:
        kind: "one-shot": everything in one round, whatever `rounds`.
            "linear": equal shares per round.
            "cubic": `ratio * (1 - (1 - t)^3)` with t the share of the rounds done: fast while many weights are idle,
            slow near the end (Zhu & Gupta 2017, arXiv:1710.01878, equation 1).
        ratio: in [0, 1).
        rounds: 1 or more.

    Raises:
        ValueError: an argument outside of these.
    """
    checks.one_of("kind", kind, SCHEDULES)
    checks.share("ratio, the share to remove,", ratio, one=False)
    checks.whole("rounds", rounds, 1)
    if kind == "one-shot":
        return (ratio,)
    power = 1 if kind == "linear" else 3
    return (*(ratio * (1 - (1 - done / rounds) ** power) for done in range(1, rounds)), ratio)


def iterative(
    model: nn.Module,
    dataset: Dataset,
    *,
    ratio: float,
    rounds: int,
    epochs: int,
    kind: Schedule = "cubic",
    importance: Importance = "magnitude",
    scope: Scope = "global",
    seed: int = 0,
    lr: float = 1e-3,
    callbacks: Sequence[training.Callback] = (),
    cancel: Event | None = None,
) -> Iterative:
    """Prune weights and fine-tune, round by round, to `ratio`.

    Args:
        model: any module with a prunable weight; not changed.
        dataset: train fits, validation measures.
        ratio: share of the prunable weights to remove in the end, in [0, 1).
        rounds: 1 or more; "one-shot" always takes one.
        epochs: in all, shared out over the rounds, so that schedules compare under one budget; at least one a round.
        kind: see `schedule`.
        importance: scored anew in each round; "magnitude", "taylor" or "random".
        scope: "global" or "layer".
        seed: of the order of the samples, and of "random".
        lr: learning rate of the fine-tuning.
        callbacks: passed on to each fit.
        cancel: looked at between batches.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range, fewer epochs than rounds, nothing to prune.
        training.Cancelled: `cancel` was set; `model` is as it was.
    """
    targets = schedule(kind, ratio, rounds)
    checks.whole("epochs, at least one per round,", epochs, len(targets))
    checks.whole("seed", seed)
    checks.number("lr", lr, above=0)
    done, smaller = [], model
    for index, target in enumerate(targets):
        share = epochs * (index + 1) // len(targets) - epochs * index // len(targets)
        how: dict[str, Any] = {"importance": importance, "scope": scope, "dataset": dataset, "seed": seed}
        pruned = weights(smaller, ratio=target, cancel=cancel, **how)
        before = measure.accuracy(pruned, dataset.validation, cancel=cancel)
        smaller = fine_tune(pruned, dataset, epochs=share, seed=seed + index, lr=lr, callbacks=callbacks, cancel=cancel)
        done.append(Round(target, before, measure.accuracy(smaller, dataset.validation, cancel=cancel)))
    return Iterative(smaller, tuple(done))
