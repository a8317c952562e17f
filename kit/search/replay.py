"""A finished search, to be looked at under any smaller budget: what would it have found by then?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kit.search.space import Config
from kit.search.trials import Trial, losses


@dataclass(frozen=True)
class Track:
    """The trials of one search that were told, in their order.

    Attributes:
        trials: the trials.
        spent: epochs (or trials) spent when each was told.
        chosen: number of the best trial so far, after each; None while none is done.
        worth: what the chosen configuration is worth, measured anew, after each; None while none is chosen.
    """

    trials: tuple[Trial, ...]
    spent: tuple[int, ...]
    chosen: tuple[int | None, ...]
    worth: tuple[float | None, ...]

    def within(self, budget: int) -> int:
        """How many of the trials were told within the budget."""
        return sum(spent <= budget for spent in self.spent)

    def at(self, budget: int) -> tuple[Trial, float] | None:
        """The chosen trial under a budget, and what its configuration is worth; None while there is none."""
        last = self.within(budget) - 1
        if last < 0 or self.chosen[last] is None:
            return None
        chosen, worth = self.chosen[last], self.worth[last]
        assert chosen is not None and worth is not None
        return self.trials[chosen], worth


def track(trials: Sequence[Trial], fresh: Callable[[Config], float], *, maximise: bool, epochs: bool = True) -> Track:
    """Walk through a search.

    The best of many noisy values is flattered: it won partly by luck. So what was chosen is measured anew.

    Args:
        trials: of the search.
        fresh: measures a configuration anew.
        maximise: whether more is better.
        epochs: whether the budget is in epochs, or in trials.
    """
    told = tuple(trial for trial in trials if trial.status not in ("asked", "lost"))
    spent, chosen, worth = [], [], []
    total, best, at, value = 0, float("inf"), None, None
    for number, (trial, loss) in enumerate(zip(told, losses(told, maximise=maximise), strict=True)):
        total += trial.spent if epochs else 1
        if loss < best:
            best, at, value = loss, number, fresh(trial.config)
        spent.append(total)
        chosen.append(at)
        worth.append(value)
    return Track(told, tuple(spent), tuple(chosen), tuple(worth))
