"""Early stopping: many trials begin, and only the best ones go on. Successive halving, Hyperband, ASHA.

| symbol | meaning |
|---|---|
| r | epochs of the first rung (`min_epochs`) |
| R | epochs of the last rung (`max_epochs`) |
| eta | from one rung to the next, 1 trial in eta goes on, with eta times the epochs |
| n | trials that begin a bracket |
| s | number of a Hyperband bracket: of s + 1 rungs; from s_max down to 0 |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kit import checks
from kit.search.random import drawn
from kit.search.space import Space
from kit.search.trials import Proposal, Trial, losses


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """What the three methods share.

    Where the space is finite and all of it is tried, brackets begin with the configurations that are left, and all
    trials that are done go on to the last rung, the best first; then the search ends.

    Attributes:
        min_epochs: epochs of the first rung, or of the shortest trials; 1 or more.
        max_epochs: epochs of the last rung, or of the longest trials; at least `min_epochs`.
        eta: 2 or more.
        seed: of the draws.

    An attribute out of range is a ValueError, one that is no whole number a TypeError.
    """

    min_epochs: int = 1
    max_epochs: int = 27
    eta: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no rungs."""
        for name, least in (("min_epochs", 1), ("max_epochs", 1), ("eta", 2), ("seed", 0)):
            checks.whole(name, getattr(self, name), least)
        if self.max_epochs < self.min_epochs:
            raise ValueError(f"max_epochs must be at least min_epochs, {self.min_epochs}; got {self.max_epochs!r}.")

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs of each rung, ascending: R, R / eta, R / eta^2 ... (rounded down), not below `min_epochs`."""
        found = [self.max_epochs]
        while found[-1] // self.eta >= self.min_epochs:
            found.append(found[-1] // self.eta)
        return tuple(reversed(found))

    def _new(self, space: Space, trials: Sequence[Trial], epochs: int, bracket: int | None = None) -> Proposal | None:
        """A new random configuration: the same as random search draws, one after the other."""
        proposal = drawn(space, [trial for trial in trials if trial.continues is None], self.seed)
        return proposal and proposal._replace(epochs=epochs, bracket=bracket)

    def _onward(self, trials: Sequence[Trial], share: int, *, maximise: bool) -> Proposal | None:
        """The best trial that has not gone on, of the highest rung where it is one of the best 1 in `share`."""
        continued = {trial.continues for trial in trials}
        for epochs, above in reversed(list(pairwise(self.rungs))):
            told = _ranked([each for each in trials if each.epochs == epochs], maximise=maximise)
            for trial in told[: len(told) // share]:
                if trial.number not in continued and trial.value is not None:
                    return Proposal(dict(trial.config), above, trial.number)
        return None


class _Brackets(Rungs, ABC):
    """The two methods that finish one bracket before the next; each says what a bracket holds."""

    @abstractmethod
    def plan(self, bracket: int) -> tuple[tuple[int, int], ...]:
        """Trials and epochs of each rung of a bracket, counted from 0."""

    def _plan(self, n: int, epochs: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """A rung for which no trial is left is left out."""
        return tuple((n // self.eta**at, total) for at, total in enumerate(epochs) if n // self.eta**at)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`: for the latest bracket, or the next one; None while a rung waits for asked trials."""
        bracket = max((trial.bracket for trial in trials if trial.bracket is not None), default=0)
        while True:
            below: list[Trial] = []
            for count, epochs in self.plan(bracket):
                here = [trial for trial in trials if (trial.bracket, trial.epochs) == (bracket, epochs)]
                if not below and len(here) < count:
                    if proposal := self._new(space, trials, epochs, bracket):
                        return proposal
                    if not here:  # the space is used up
                        return self._onward(trials, 1, maximise=maximise)
                elif len(here) < min(count, len(below)):
                    if not all(trial.told for trial in below):
                        return None
                    continued = {trial.continues for trial in here}
                    best = next(each for each in _ranked(below, maximise=maximise) if each.number not in continued)
                    return Proposal(dict(best.config), epochs, best.number, bracket)
                below = here
            if not all(trial.told for trial in below):
                return None
            bracket += 1


@dataclass(frozen=True)
class SuccessiveHalving(_Brackets):
    """n trials of `min_epochs`; the best 1 in eta go on with eta times the epochs, and so on up to `max_epochs`.

    When a bracket is finished the next one begins with new configurations, until the budget is spent.

    Attributes:
        n: trials that begin, 2 or more; the others by name, as in `Rungs`.

    Source: Jamieson & Talwalkar (2016), Non-stochastic best arm identification, arXiv:1502.07943.
    """

    n: int = 27

    def __post_init__(self) -> None:
        """Refuse what makes no bracket; errors as in `Rungs`."""
        super().__post_init__()
        checks.whole("n", self.n, 2)

    def plan(self, bracket: int) -> tuple[tuple[int, int], ...]:
        """Trials and epochs of each rung of a bracket: of all alike."""
        return self._plan(self.n, self.rungs)


class Hyperband(_Brackets):
    """Successive halving with several trade-offs: from many short trials (s = s_max) to few long ones (s = 0).

    Bracket s begins n = ceil((s_max + 1) / (s + 1) eta^s) trials with R / eta^s epochs. After s = 0 it begins again.
    Attributes as in `Rungs`.

    Source: Li et al. (2018), Hyperband, JMLR 18, algorithm 1 (arXiv:1603.06560).
    """

    def plan(self, bracket: int) -> tuple[tuple[int, int], ...]:
        """Trials and epochs of each rung of a bracket, counted from 0."""
        s_max = len(self.rungs) - 1
        s = s_max - bracket % (s_max + 1)
        n = -(-(s_max + 1) * self.eta**s // (s + 1))  # rounded up, without the error of a float
        return self._plan(n, self.rungs[s_max - s :])


class ASHA(Rungs):
    """Asynchronous successive halving: nobody waits for a rung to be full.

    Whenever a trial is wanted: is one of the best 1 in eta of some rung not yet continued, it goes on; else a new one
    begins. Attributes as in `Rungs`.

    Source: Li et al. (2020), A system for massively parallel hyperparameter tuning, algorithm 2 (arXiv:1810.05934).
    """

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`."""
        best = self._onward(trials, self.eta, maximise=maximise)
        return best or self._new(space, trials, self.rungs[0]) or self._onward(trials, 1, maximise=maximise)


def _ranked(trials: Sequence[Trial], *, maximise: bool) -> list[Trial]:
    """Those that were told, best first; those that failed come last, the earlier ones first where values are equal."""
    told = [trial for trial in trials if trial.told]
    ordered = sorted(zip(losses(told, maximise=maximise), range(len(told)), strict=True))
    return [told[at] for _, at in ordered]
