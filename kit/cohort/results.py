"""What a cohort reached: the answers and accuracy of each member, and a table with one row per member."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kit import checks
from kit.cohort.fitting import CohortHistory
from kit.cohort.members import held_out
from kit.cohort.networks import Cohort
from kit.data import Dataset, Split
from kit.measure import Estimate
from kit.training import check_dataset, check_split

if TYPE_CHECKING:  # slow to load, and not needed to train
    from pandas import DataFrame

BATCH = 256  # samples of a forward pass of all members


@torch.no_grad()
def answers(cohort: Cohort, inputs: Tensor) -> Tensor:
    """The class that each member names for each input; -1 where its logits are not numbers. -> [K, n]."""
    checks.instance("inputs", inputs, Tensor)
    parts = map(cohort, inputs.split(BATCH))  # [K, b, n_classes] each
    return torch.cat([torch.where(logits.isfinite().all(2), logits.argmax(2), -1) for logits in parts], 1)


def accuracies(cohort: Cohort, split: Split) -> tuple[Estimate, ...]:
    """Share of right answers of each member on `split`, with Wilson intervals; a diverged member names no class.

    Raises:
        ValueError: an empty split.
    """
    check_split("split", split)
    named = answers(cohort, split.inputs)
    right = ((named == split.labels) & (named >= 0)).sum(1)  # [K]
    return tuple(Estimate.from_counts(int(count), len(split)) for count in right)


def table(cohort: Cohort, history: CohortHistory, dataset: Dataset) -> DataFrame:
    """One row per member: its hyper-parameters, its last training loss, its accuracy with a Wilson interval.

    The accuracy is on the validation split, or on the fold that the member left out; NaN where it diverged.

    Raises:
        ValueError: the history of another cohort.
        TypeError: an argument of another type.
    """
    import pandas as pd

    check_dataset(dataset)
    checks.instance("cohort", cohort, Cohort)
    checks.instance("history", history, CohortHistory, "a CohortHistory, as cohort.fit gives it")
    if len(history.diverged) != len(cohort):
        raise ValueError(f"history is of {len(history.diverged)} networks, and the cohort has {len(cohort)}.")
    on_validation = accuracies(cohort, dataset.validation)
    labels = dataset.train.labels
    of_fold = {(member.fold, member.folds): member for member in cohort.members if member.fold is not None}
    left_out = {fold: held_out(member, labels) for fold, member in of_fold.items()}
    on_train = answers(cohort, dataset.train.inputs) == labels if left_out else None  # [K, n]
    rows = []
    for at, member in enumerate(cohort.members):
        accuracy = on_validation[at]
        if on_train is not None and member.fold is not None:
            right = on_train[at, left_out[member.fold, member.folds]]
            accuracy = Estimate.from_counts(int(right.sum()), len(right))
        diverged, loss = history.diverged[at], history.losses[at][-1] if history.losses[at] else math.nan
        value, low, high = (math.nan,) * 3 if diverged else (accuracy.value, accuracy.low, accuracy.high)
        reached = {"loss": loss, "accuracy": value, "low": low, "high": high, "n": accuracy.n, "diverged": diverged}
        rows.append({**asdict(member), **reached})
    return pd.DataFrame(rows)
