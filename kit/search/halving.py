"""Early stopping: many trials begin, and only the best ones go on. Successive halving, Hyperband, ASHA.

| symbol | meaning |
|---|---|
| r | epochs of the first rung (`least`) |
| R | epochs of the last rung (`most`) |
| eta | from one rung to the next, 1 trial in eta goes on, with eta times the epochs |
| n | trials that begin a bracket |
| s | number of a Hyperband bracket: of s + 1 rungs; from s_max down to 0 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.search.random import drawn
from kit.search.space import Space
from kit.search.trials import Proposal, Trial, check_whole, losses


@dataclass(frozen=True)
class SuccessiveHalving:
    """n trials of `least` epochs; the best 1 in eta go on with eta times the epochs, and so on up to `most`.

    When a bracket is finished the next one begins with new configurations, until the budget is spent.

    Attributes:
        n: trials that begin, 2 or more.
        least: epochs of the first rung, 1 or more.
        most: epochs of the last rung, at least `least`.
        eta: 2 or more.
        seed: of the draws.

    Raises:
        ValueError: an attribute out of range.

    Source: Jamieson & Talwalkar (2016), Non-stochastic best arm identification, arXiv:1502.07943.
    """

    n: int = 27
    least: int = 1
    most: int = 27
    eta: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no bracket."""
        _check(self)
        check_whole("n", self.n, 2)

    def plan(self, bracket: int) -> tuple[tuple[int, int], ...]:
        """Trials and epochs of each rung of a bracket: of all alike."""
        return _plan(self.n, rungs(self.least, self.most, self.eta), self.eta)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`."""
        return _next(self, space, trials, maximise=maximise)


@dataclass(frozen=True)
class Hyperband:
    """Successive halving with several trade-offs: from many short trials (s = s_max) to few long ones (s = 0).

    Bracket s begins n = ceil((s_max + 1) / (s + 1) eta^s) trials with R / eta^s epochs. After s = 0 it begins again.

    Attributes:
        least: epochs of the shortest trials, 1 or more.
        most: epochs of the longest, R.
        eta: 2 or more.
        seed: of the draws.

    Raises:
        ValueError: an attribute out of range.

    Source: Li et al. (2018), Hyperband, JMLR 18, algorithm 1 (arXiv:1603.06560).
    """

    least: int = 1
    most: int = 27
    eta: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no bracket."""
        _check(self)

    def plan(self, bracket: int) -> tuple[tuple[int, int], ...]:
        """Trials and epochs of each rung of a bracket, counted from 0."""
        epochs = rungs(self.least, self.most, self.eta)
        s_max = len(epochs) - 1
        s = s_max - bracket % (s_max + 1)
        n = -(-(s_max + 1) * self.eta**s // (s + 1))  # rounded up, without the error of a float
        return _plan(n, epochs[s_max - s :], self.eta)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`."""
        return _next(self, space, trials, maximise=maximise)


@dataclass(frozen=True)
class ASHA:
    """Asynchronous successive halving: nobody waits for a rung to be full.

    Whenever a trial is wanted: is one of the best 1 in eta of some rung not yet continued, it goes on; else a new one
    begins.

    Attributes:
        least: epochs of the first rung, 1 or more.
        most: epochs of the last rung.
        eta: 2 or more.
        seed: of the draws.

    Raises:
        ValueError: an attribute out of range.

    Source: Li et al. (2020), A system for massively parallel hyperparameter tuning, algorithm 2 (arXiv:1810.05934).
    """

    least: int = 1
    most: int = 27
    eta: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no rungs."""
        _check(self)

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        """As in `trials.Method`."""
        epochs = rungs(self.least, self.most, self.eta)
        continued = {trial.continues for trial in trials}
        for rung in reversed(range(len(epochs) - 1)):
            told = _ranked([each for each in trials if each.epochs == epochs[rung]], maximise=maximise)
            for trial in told[: len(told) // self.eta]:
                if trial.number not in continued and trial.value is not None:
                    return Proposal(dict(trial.config), epochs[rung + 1], trial.number)
        return _new(space, trials, epochs[0], self.seed)


def rungs(least: int, most: int, eta: int) -> tuple[int, ...]:
    """The epochs of each rung: most, most / eta, most / eta^2 ... (rounded down), not below `least`; ascending."""
    found = [most]
    while found[-1] // eta >= least:
        found.append(found[-1] // eta)
    return tuple(reversed(found))


def _latest(trials: Sequence[Trial]) -> int:
    """Number of the bracket that was begun last; trials of other methods belong to none."""
    return max((trial.bracket for trial in trials if trial.bracket is not None), default=0)


def _plan(n: int, epochs: Sequence[int], eta: int) -> tuple[tuple[int, int], ...]:
    """Trials and epochs of each rung; a rung for which no trial is left is left out."""
    return tuple((n // eta**at, total) for at, total in enumerate(epochs) if n // eta**at)


def _finished(trials: Sequence[Trial], bracket: int, plan: Sequence[tuple[int, int]]) -> bool:
    count, epochs = plan[-1]
    last = [each for each in trials if each.bracket == bracket and each.epochs == epochs and each.status != "asked"]
    return len(last) >= count


def _next(
    method: SuccessiveHalving | Hyperband, space: Space, trials: Sequence[Trial], *, maximise: bool
) -> Proposal | None:
    """What the latest bracket needs next, or the one after it; None while a rung waits for trials that are asked."""
    bracket = _latest(trials)
    if _finished(trials, bracket, method.plan(bracket)):
        bracket += 1
    plan = method.plan(bracket)
    of_bracket = [trial for trial in trials if trial.bracket == bracket]
    below: list[Trial] = []
    for rung, (count, epochs) in enumerate(plan):
        here = [trial for trial in of_bracket if trial.epochs == epochs]
        if len(here) < count:
            if rung == 0:
                proposal = _new(space, trials, epochs, method.seed)
                return None if proposal is None else proposal._replace(bracket=bracket)
            if any(trial.status == "asked" for trial in below):
                return None
            continued = {trial.continues for trial in here}
            best = next(each for each in _ranked(below, maximise=maximise) if each.number not in continued)
            return Proposal(dict(best.config), epochs, best.number, bracket)
        below = here
    return None


def _new(space: Space, trials: Sequence[Trial], epochs: int, seed: int) -> Proposal | None:
    """A new configuration by chance: the same as random search draws, one after the other."""
    config = drawn(space, [trial for trial in trials if trial.continues is None], seed)
    return None if config is None else Proposal(config, epochs)


def _ranked(trials: Sequence[Trial], *, maximise: bool) -> list[Trial]:
    """Those that were told, best first; those that failed come last, the earlier ones first where values are equal."""
    told = [trial for trial in trials if trial.status != "asked"]
    ordered = sorted(zip(losses(told, maximise=maximise), range(len(told)), strict=True))
    return [told[at] for _, at in ordered]


def _check(method: SuccessiveHalving | Hyperband | ASHA) -> None:
    check_whole("least", method.least, 1)
    check_whole("most", method.most, 1)
    check_whole("eta", method.eta, 2)
    check_whole("seed", method.seed, 0)
    if method.most < method.least:
        raise ValueError(f"most must be at least {method.least}, the epochs of the first rung; got {method.most!r}.")
