"""A finished search, to be looked at under any smaller budget: what would it have found by then?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from kit.search.space import Config
from kit.search.trials import Trial, losses


@dataclass(frozen=True)
class Trajectory:
    """The trials of one search that were told, in their order.

    Attributes:
        trials: the trials.
        spent: epochs (or trials, or minutes) spent when each was told.
        incumbent: number of the best trial so far, after each; None while none is done.
        retested: value of the incumbent's configuration, measured again, after each; None while there is none.
    """

    trials: tuple[Trial, ...]
    spent: tuple[float, ...]
    incumbent: tuple[int | None, ...]
    retested: tuple[float | None, ...]

    def within(self, budget: float) -> int:
        """How many of the trials were told within the budget."""
        return sum(spent <= budget for spent in self.spent)

    def at(self, budget: float) -> tuple[Trial, float] | None:
        """The incumbent under a budget, and its value when measured again; None while there is none."""
        last = self.within(budget) - 1
        if last < 0:
            return None
        incumbent, retested = self.incumbent[last], self.retested[last]
        return None if incumbent is None or retested is None else (self.trials[incumbent], retested)


def replay(
    trials: Sequence[Trial], retest: Callable[[Config], float], *, maximise: bool, epochs: bool = True
) -> Trajectory:
    """Walk through a search, and measure each incumbent again: the best of many noisy values won partly by luck.

    Args:
        trials: of the search.
        retest: measures a configuration again.
        maximise: whether more is better.
        epochs: whether the budget is in epochs, or in trials.
    """
    told = tuple(trial for trial in trials if trial.told)
    spent = tuple(accumulate(trial.spent if epochs else 1 for trial in told))
    incumbent, retested = [], []
    best, at, value = float("inf"), None, None
    for number, (trial, loss) in enumerate(zip(told, losses(told, maximise=maximise), strict=True)):
        if loss < best:
            best, at, value = loss, number, retest(trial.config)
        incumbent.append(at)
        retested.append(value)
    return Trajectory(told, spent, tuple(incumbent), tuple(retested))
