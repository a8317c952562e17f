"""What one network of a cohort has of its own: its seed, its hyper-parameters, its part of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.model_selection import StratifiedKFold


@dataclass(frozen=True)
class Member:
    """One network of a cohort.

    Attributes:
        seed: of the first weights and of dropout.
        lr: learning rate, above 0.
        weight_decay: L2 coefficient, 0 or more.
        momentum: of "sgd", in [0, 1).
        beta1: of "adam", decay of the first moment, in [0, 1).
        beta2: of "adam", decay of the second moment, in [0, 1).
        dropout: share of the hidden units that each step leaves out, in [0, 1); MLPs only.
        label_smoothing: share of the hard label that is spread over all classes, in [0, 1] (Szegedy et al. 2016,
            arXiv:1512.00567).
        temperature: of the soft labels, above 0 (Hinton et al. 2015, arXiv:1503.02531).
        alpha: weight of the soft labels, in [0, 1]; the hard ones have 1 - alpha. 0 needs no teacher.
        width: units of each hidden layer, at most the template's; None is the template's own; MLPs only.
        n_train: train on the first so many samples; None is all.
        order: seed of the order of the samples; None is `seed`.
        fold: leave this fold of the train split out, and answer for it; None is no fold. Members of all folds are one
            cross-validation.
        folds: in how many stratified folds the train split is cut; 2 or more where `fold` is given.

    Raises:
        ValueError: an attribute outside its range.
        TypeError: an attribute that is not a number.
    """

    seed: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    dropout: float = 0.0
    label_smoothing: float = 0.0
    temperature: float = 1.0
    alpha: float = 0.0
    width: int | None = None
    n_train: int | None = None
    order: int | None = None
    fold: int | None = None
    folds: int = 5

    def __post_init__(self) -> None:
        """Refuse what no network can be trained with."""
        for field in fields(self):
            _check_number(field.name, getattr(self, field.name), whole="int" in str(field.type))
        for name in ("lr", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)!r}.")
        for name in ("seed", "weight_decay", "order"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)!r}.")
        for name in ("momentum", "beta1", "beta2", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)!r}.")
        for name in ("label_smoothing", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {getattr(self, name)!r}.")
        for name in ("width", "n_train"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)!r}.")
        if self.folds < 2:
            raise ValueError(f"folds must be 2 or more; got {self.folds!r}.")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must lie in 0 .. folds - 1 = {self.folds - 1}; got {self.fold!r}.")

    @property
    def order_seed(self) -> int:
        """Seed of the order of the samples."""
        return self.seed if self.order is None else self.order


HYPER_PARAMETERS: tuple[str, ...] = tuple(field.name for field in fields(Member))


def members(**values: Any) -> tuple[Member, ...]:
    """Every combination of the given values, one member each.

    `members(temperature=[1, 4], seed=range(8))` are sixteen members; the last name varies fastest.

    Args:
        **values: for each hyper-parameter of `Member` one value, or several.

    Raises:
        TypeError: a name that a cohort cannot vary, or a value that is not a number.
        ValueError: no value for a name, or one out of its range.
    """
    for name in values:
        if name not in HYPER_PARAMETERS:
            raise TypeError(
                f"a cohort cannot vary {name!r} for each member; it can vary {', '.join(HYPER_PARAMETERS)}."
            )
    choices = {
        name: tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        for name, value in values.items()
    }
    for name, several in choices.items():
        if not several:
            raise ValueError(f"{name} needs at least one value; got none.")
    return tuple(
        Member(**dict(zip(choices, combination, strict=True))) for combination in itertools.product(*choices.values())
    )


def train_rows(member: Member, labels: torch.Tensor) -> torch.Tensor:
    """Positions in the train split that a member learns from, ascending. -> [n].

    Args:
        member: says how many samples and which fold is left out.
        labels: of the train split [n_all]; the folds have the same class shares.

    Raises:
        ValueError: `n_train` above the number of samples, or folds with unlabelled samples or too few of a class.
    """
    rows = torch.arange(len(labels))
    if member.fold is not None:
        rows = _folds(member, labels)[0]
    if member.n_train is not None:
        if member.n_train > len(rows):
            raise ValueError(f"n_train must be at most the {len(rows)} samples there are; got {member.n_train}.")
        rows = rows[: member.n_train]
    return rows


def held_out(member: Member, labels: torch.Tensor) -> torch.Tensor:
    """Positions in the train split of the fold that a member leaves out and answers for; errors as in `train_rows`."""
    return _folds(member, labels)[1]


def _folds(member: Member, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows outside and inside the member's fold; the cut is the same for every member."""
    if int(labels.min()) < 0:
        raise ValueError("folds: train has samples without a label, and folds are cut by label; leave fold at None.")
    rarest = int(labels.bincount().min())
    if rarest < member.folds:
        raise ValueError(f"folds: a class has {rarest} samples in train, too few for {member.folds} folds.")
    cut: Iterator[Any] = StratifiedKFold(member.folds, shuffle=True, random_state=0).split(labels, labels)
    outside, inside = next(itertools.islice(cut, member.fold, None))
    return torch.from_numpy(outside), torch.from_numpy(inside)


def _check_number(name: str, value: Any, *, whole: bool) -> None:
    if value is None:
        if name in ("width", "n_train", "order", "fold"):
            return
        raise TypeError(f"{name} must be a number; got None.")
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise TypeError(f"{name} must be a {'whole ' * whole}number; got {value!r}.")
