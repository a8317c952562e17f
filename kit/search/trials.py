"""One record for each trial, and the interface of every method: the trials so far in, the next proposal out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from kit.search.space import Config, Space, key

if TYPE_CHECKING:
    from kit.search.pareto import Goals

Status = Literal["queued", "asked", "done", "failed", "timed out", "lost"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Trial:
    """One configuration, tried.

    Attributes:
        number: of the trial in its study, from 0.
        config: what was tried.
        status: "queued" while it waits for its turn; "asked" while nobody told its value; "done"; "failed" where the
            objective raised or gave no finite number; "timed out" where it took longer than its limit; "lost" where
            its process ended before it told.
        epochs: what it was trained to; None where the objective has no epochs.
        continues: number of the trial that it goes on from; None where it starts from scratch.
        bracket: of halving methods: which bracket it belongs to, of local search which climb, from 0; else None.
        value: the mean of `scores`; None unless done, and of several objectives.
        scores: what the objective gave: one number, or one for each fold or seed; empty of several objectives.
        values: of several objectives what was given for each name; empty unless done.
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
    values: dict[str, float] = field(default_factory=dict)
    spent: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def told(self) -> bool:
        """Whether it came to an end, with a value or without: neither queued, nor asked, nor lost."""
        return self.status not in ("queued", "asked", "lost")


class Proposal(NamedTuple):
    """What a method wants to have tried next; attributes as in `Trial`, but that no `epochs` leaves them to the run."""

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
            trials: all so far, "asked" ones included, "queued" and "lost" ones not.
            maximise: whether more is better.

        Returns:
            None where nothing can be proposed: until asked trials are told, or for good where none is asked.
        """
        ...


class ParetoMethod(Protocol):
    """A way to search for several objectives at once; all else as in `Method`."""

    def propose(self, space: Space, trials: Sequence[Trial], *, goals: Goals) -> Proposal | None:
        """The next proposal, for these goals."""
        ...


AnyMethod = Method | ParetoMethod


def losses(trials: Sequence[Trial], *, maximise: bool) -> list[float]:
    """Less is better: the value of each trial, or its negative where more is better; infinity unless it is done."""
    sign = -1.0 if maximise else 1.0
    return [math.inf if trial.value is None else sign * trial.value for trial in trials]


def untried(configs: Iterable[Config], trials: Sequence[Trial]) -> Proposal | None:
    """The first configuration that no trial has; None where there is none."""
    tried = {key(trial.config) for trial in trials}
    return next((Proposal(config) for config in configs if key(config) not in tried), None)
