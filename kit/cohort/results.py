"""What a cohort reached: one row a member, then one row a setting with its spread over seeds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kit.cohort.fitting import CohortHistory
from kit.cohort.members import HYPER_PARAMETERS, held_out
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
    named = []
    for part in inputs.split(BATCH):
        logits = cohort(part)  # [K, b, n_classes]
        named.append(torch.where(logits.isfinite().all(2), logits.argmax(2), -1))
    return torch.cat(named, 1)


def accuracies(cohort: Cohort, split: Split) -> tuple[Estimate, ...]:
    """Share of right answers of each member on `split`, with Wilson intervals; a diverged member names no class.

    Raises:
        ValueError: an empty split.
    """
    check_split("split", split)
    if not len(split):
        raise ValueError("split is empty; it needs at least one sample.")
    named = answers(cohort, split.inputs)
    right = ((named == split.labels) & (named >= 0)).sum(1)  # [K]
    return tuple(Estimate.from_counts(int(count), len(split)) for count in right)


def table(cohort: Cohort, history: CohortHistory, dataset: Dataset) -> DataFrame:
    """One row a member: its hyper-parameters, its last training loss, its accuracy with a Wilson interval.

    The accuracy is on the validation split, or on the fold that the member left out; NaN where it diverged.

    Raises:
        ValueError: the history of another cohort.
        TypeError: `dataset` is no `Dataset`.
    """
    import pandas as pd

    check_dataset(dataset)
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
        diverged, losses = history.diverged[at], history.losses[at]
        nan = float("nan")
        rows.append(
            {
                **asdict(member),
                "loss": losses[-1] if losses else nan,
                "accuracy": nan if diverged else accuracy.value,
                "low": nan if diverged else accuracy.low,
                "high": nan if diverged else accuracy.high,
                "n": accuracy.n,
                "diverged": diverged,
            }
        )
    return pd.DataFrame(rows)


def over_seeds(rows: DataFrame) -> DataFrame:
    """One row a setting: mean accuracy over seeds, orders and folds with Student's t interval.

    Members that differ in `seed`, `order` or `fold` alone are one setting. Those that diverged are counted, and left
    out of the mean.

    Args:
        rows: as `table` gives them.

    Returns:
        The settings that differ between the rows, then `accuracy`, `low`, `high` (NaN where fewer than two members
        are left), `members` and `diverged`.
    """
    import pandas as pd

    chance = ("seed", "order", "fold")
    varied = [name for name in HYPER_PARAMETERS if name not in chance and rows[name].nunique(dropna=False) > 1]
    groups = rows.groupby(varied, dropna=False) if varied else [((), rows)]
    found = []
    for key, group in groups:
        values = [float(value) for value in group["accuracy"].dropna()]
        nan = float("nan")
        mean = values[0] if len(values) == 1 else nan
        estimate = Estimate.from_values(values).share if len(values) > 1 else Estimate(mean, nan, nan, len(values))
        found.append(
            {
                **dict(zip(varied, key, strict=True)),
                "accuracy": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "members": len(group),
                "diverged": int(group["diverged"].sum()),
            }
        )
    return pd.DataFrame(found)
