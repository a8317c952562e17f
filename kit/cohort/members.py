"""What one network of a cohort has of its own: its seed, its hyper-parameters, its part of the data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from sklearn.model_selection import StratifiedKFold

from kit import checks

COLDEST, HOTTEST = 0.01, 1e6  # temperatures: outside of them, logits divided by T leave what a float can tell apart


def check_temperature(value: Any) -> None:
    """Refuse, as a temperature, what is no number (TypeError), or lies outside of 0.01 .. 1e6 (ValueError)."""
    if not COLDEST <= checks.number("temperature", value) <= HOTTEST:
        raise ValueError(f"temperature must lie in {COLDEST:g} .. {HOTTEST:g}; got {value!r}.")


@dataclass(frozen=True)
class Member:
    """One network of a cohort.

    Attributes:
        seed: of the first weights and of dropout.
        lr: learning rate, above 0.
        weight_decay: L2 coefficient, 0 or more.
        momentum: of "sgd", in [0, 1).
        beta1, beta2: of "adam", decay of the first and of the second moment, in [0, 1).
        dropout: share of the hidden units that each step leaves out, in [0, 1); MLPs and bags of words
            only.
        label_smoothing: share of the hard label that is spread over all classes, in [0, 1] (Szegedy et al. 2016,
            arXiv:1512.00567).
        temperature: of the soft labels, 0.01 to 1e6 (Hinton et al. 2015, arXiv:1503.02531).
        alpha: weight of the soft labels, in [0, 1]; the hard ones have 1 - alpha. 0 needs no teacher.
        width: units of each hidden layer, at most the template's; None is the template's own; MLPs and
            bags of words only.
        n_train: how many samples to train on, from the first; None is all.
        order: seed of the order of the samples; None is `seed`.
        fold: the fold of the train split to leave out and answer for, 0 .. folds - 1; None is no fold.
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
        """Refuse values that no network can be trained with."""
        checks.number("lr", self.lr, above=0)
        check_temperature(self.temperature)
        checks.number("weight_decay", self.weight_decay, least=0)
        for name in ("momentum", "beta1", "beta2", "dropout", "label_smoothing", "alpha"):
            checks.share(name, getattr(self, name), one=name in ("label_smoothing", "alpha"))
        checks.whole("seed", self.seed)
        checks.whole("folds", self.folds, 2)
        for name, least in (("width", 1), ("n_train", 1), ("order", 0), ("fold", 0)):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), least, self.folds - 1 if name == "fold" else None)

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
    choices = {}
    for name, value in values.items():
        if name not in HYPER_PARAMETERS:
            raise TypeError(f"a cohort cannot vary {name!r}; it can vary {', '.join(HYPER_PARAMETERS)}.")
        choices[name] = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        if not choices[name]:
            raise ValueError(f"{name} needs at least one value; got none.")
    return tuple(Member(**dict(zip(choices, one, strict=True))) for one in itertools.product(*choices.values()))


def train_rows(member: Member, labels: torch.Tensor) -> torch.Tensor:
    """Positions in the train split, of these labels [n_all], that a member learns from, ascending. -> [n].

    Raises:
        ValueError: `n_train` above the number of samples, or folds with unlabelled samples or too few of a class.
    """
    rows = torch.arange(len(labels)) if member.fold is None else _folds(member, labels)[0]
    if member.n_train is not None and member.n_train > len(rows):
        raise ValueError(f"n_train must be at most the {len(rows)} samples there are; got {member.n_train}.")
    return rows[: member.n_train]


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
