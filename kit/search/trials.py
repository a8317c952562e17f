"""One record a trial, and what every method of search answers to: the trials so far in, the next proposal out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple, Protocol, get_args

from kit.search.space import Config, Space

Status = Literal["asked", "done", "failed", "timed out", "lost"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Trial:
    """One configuration, tried.

    Attributes:
        number: of the trial in its study, from 0.
        config: what was tried.
        status: "asked" while nobody told its value; "done"; "failed" where the objective raised or gave no finite
            number; "timed out" where it took longer than its limit; "lost" where its process ended before it told.
        epochs: what it was trained to; None where the objective has no epochs.
        continues: number of the trial that it goes on from; None where it starts anew.
        bracket: of halving methods: which bracket it belongs to, from 0; None for all others.
        value: the mean of `scores`; None unless done.
        scores: what the objective gave: one number, or one a fold or seed.
        spent: epochs that it trained itself; while it is asked, those that it will train.
        seconds: from its start to its end.
        error: why it failed.
    """

    number: int
    config: Config
    status: Status = "asked"
    epochs: int | None = None
    continues: int | None = None
    bracket: int | None = None
    value: float | None = None
    scores: tuple[float, ...] = ()
    spent: int = 0
    seconds: float = 0.0
    error: str = ""


class Proposal(NamedTuple):
    """What a method wants to have tried next.

    Attributes:
        config: the configuration.
        epochs: to train it to; None leaves that to the run.
        continues: number of the trial that it goes on from.
        bracket: of halving methods; None for all others.
    """

    config: Config
    epochs: int | None = None
    continues: int | None = None
    bracket: int | None = None


class Method(Protocol):
    """A way to search.

    A method keeps no state of its own: what it proposes follows from its settings and the trials so far alone. So a
    study that was interrupted goes on as if it had not been, and one study may be shared by several processes.
    """

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """The next proposal.

        Args:
            space: what may be chosen.
            trials: all so far, "asked" ones included, "lost" ones not.
            maximise: whether more is better.

        Returns:
            None where nothing can be proposed: until asked trials are told, or for ever where none is asked.
        """
        ...


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of `least` or more.

    Raises:
        TypeError: no whole number.
        ValueError: too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number; got {value!r}.")
    if int(value) < least:
        raise ValueError(f"{name} must be {least} or more; got {value!r}.")


def losses(trials: Sequence[Trial], *, maximise: bool) -> list[float]:
    """Less is better: the value of each trial, or its negative where more is better; infinity unless it is done."""
    sign = -1.0 if maximise else 1.0
    return [math.inf if trial.value is None else sign * trial.value for trial in trials]
