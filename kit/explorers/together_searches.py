"""What the explorer of two objectives remembers: searches that go on where they stopped, and what was measured anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from torch import nn

from kit import checks, together, training
from kit.measure import Estimate
from kit.plots.together import Names, after
from kit.search import EHVI, NSGA2, Goals, ParEGO, Random, Space, Study, importance
from kit.search.calling import takes
from kit.search.importance import FEWEST
from kit.search.space import key
from kit.search.trials import AnyMethod, Trial

BATCH = 8  # trials that are proposed, and made, together
METHODS: dict[str, Callable[[int], AnyMethod]] = {  # the quickest to propose first
    "random": Random,
    "NSGA-II": lambda seed: NSGA2(seed=seed),
    "ParEGO": lambda seed: ParEGO(seed=seed),
    "EHVI": lambda seed: EHVI(seed=seed),
}
Rival = Callable[..., Study]  # called with `budget`, in trials, `seed`, and `cancel` where it takes that
Search = tuple[str, int, int]  # method, seed, and the trial up to which


class Searches:
    """Searches of one problem by method and seed.

    Args:
        problem: as `TogetherExplorer` takes it.
        corner: the worst values that count, by name, over those of the problem and the limits of its goals.
        rivals: more ways to search, by name; None for those of a `together.Problem`.
    """

    def __init__(self, problem: Any, corner: Mapping[str, float], rivals: Mapping[str, Rival] | None) -> None:
        self.problem, self.goals = problem, _goals(problem)
        joint = isinstance(problem, together.Problem)
        corner = {**(together.CORNER if joint else {}), **corner}
        self.goals.given(corner)  # refuses what is none
        limits = {name: goal.limit for name, goal in self.goals.goals.items() if goal.limit is not None}
        self.corner = {name: float({**limits, **corner}[name]) for name in self.goals.names}
        self.names = Names(*self.goals.names)
        goals = {name: replace(goal, limit=self.corner[name]) for name, goal in self.goals.goals.items()}
        self._counting = Goals(goals)  # what is inside the corner
        self._rivals = dict(_rivals(problem) if rivals is None and joint else rivals or {})
        self.methods = [*METHODS, *self._rivals]
        self._studies: dict[Any, Study] = {}
        self._reached: dict[Any, int] = {}  # trials that were searched to the end
        self._volumes: dict[Any, tuple[float, ...]] = {}
        self._shares: dict[Any, dict[str, dict[str, float]]] = {}
        self._anew: dict[Any, tuple[Estimate, Estimate] | None] = {}  # by configuration; None where that failed

    # -- searching -----------------------------------------------------------------------------------------------------

    def lacks(self, search: Search) -> bool:
        """Whether it has not come so far."""
        return self._reached.get(self._key(search), 0) < search[2]

    def told(self, search: Search) -> tuple[Trial, ...]:
        """Its trials so far."""
        study = self._studies.get(self._key(search))
        return () if study is None else tuple(trial for trial in study.trials if trial.told)[: search[2]]

    def run(self, search: Search, cancel: Event, on_trial: Callable[[Trial], None] | None = None) -> None:
        """Search on; what was told before is kept. `Cancelled`, or a RuntimeError where each trial failed."""
        (method, seed, budget), at = search, self._key(search)
        if rival := self._rivals.get(method):
            how: dict[str, Any] = {"cancel": cancel} if takes(rival, "cancel") else {}
            study = rival(budget=budget, seed=seed, **how)
        else:
            study = self._studies.setdefault(at, Study(self.problem.space, objectives=self.goals.goals))
            batch = getattr(self.problem, "batch", None)
            how = {"budget": budget, "batch": BATCH if batch else None, "on_trial": on_trial, "cancel": cancel}
            study.run(batch or self.problem, METHODS[method](seed), **how)
        if cancel.is_set():
            raise training.Cancelled("cancelled in the middle of a search.")
        self._studies[at], self._reached[at] = study, budget

    def batches(self, method: str, seed: int, budget: int) -> list[Search]:
        """The pieces of a search; a rival's is one, for what it does depends on its budget."""
        first = budget if method in self._rivals else BATCH
        return [(method, seed, upto) for upto in range(first, budget + 1, BATCH)]

    def give_up(self, search: Search) -> None:
        """Do not try it again: each of its trials failed."""
        self._studies.setdefault(self._key(search), Study(self.problem.space, objectives=self.goals.goals))
        self._reached[self._key(search)] = search[2]

    def _key(self, search: Search) -> Any:
        return search if search[0] in self._rivals else search[:2]

    # -- what came out -------------------------------------------------------------------------------------------------

    def front(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """What is inside the corner and dominated by nothing, the smallest first."""
        return self._counting.front(trials)

    def known_volumes(self, method: str, seeds: Sequence[int], budget: int) -> list[tuple[float, ...]]:
        """The volume after each trial, of each seed whose search has come so far."""
        found = []
        for search in ((method, seed, budget) for seed in seeds):
            if not self.lacks(search):
                at = self._key(search)
                if len(self._volumes.get(at, ())) < len(self.told((*search[:2], self._reached[at]))):
                    self._volumes[at] = self._studies[at].hypervolumes(**self.corner)
                found.append(self._volumes.get(at, ()))
        return list(filter(None, found))

    def volumes(self, seeds: Sequence[int], reached: int, budget: int) -> dict[str, Estimate]:
        """The mean volume after `budget` trials by method, over the seeds whose search has `reached` so many."""
        found = {name: after(self.known_volumes(name, seeds, reached), budget) for name in self.methods}
        return {name: each for name, each in found.items() if each is not None}

    def anew(self, trial: Trial) -> tuple[Estimate, Estimate] | None:
        """Share and size of its configuration as networks of other seeds; None where that is not measured."""
        return self._anew.get(key(trial.config))

    def measured(self, trial: Trial) -> bool:
        """Whether that is measured, or cannot be."""
        return key(trial.config) in self._anew or not hasattr(self.problem, "retest")

    def measure(self, trial: Trial) -> None:
        """Measure it, unless that is done."""
        if not self.measured(trial):
            self._anew[key(trial.config)] = None
            try:
                self._anew[key(trial.config)] = self.problem.retest(trial.config)
            except ValueError:  # a network of another seed diverged
                return

    def shares(self, search: Search) -> dict[str, dict[str, float]]:
        """Share of the variance that each hyper-parameter explains, by objective; none before `explain`."""
        return self._shares.get(search, {})

    def explained(self, search: Search) -> bool:
        """Whether these are known, or too few trials are done."""
        return search in self._shares or sum(bool(trial.values) for trial in self.told(search)) < FEWEST

    def explain(self, search: Search) -> None:
        """Find these shares."""
        trials, goals = self.told(search), self.goals.goals.items()
        self._shares[search] = {
            name: importance(self.problem.space, trials, name, log=goal.log) for name, goal in goals
        }

    # -- a network -----------------------------------------------------------------------------------------------------

    def made(self, trial: Trial) -> tuple[nn.Module, bytes]:
        """The network of a trial, and its file; a ValueError where the problem cannot make it."""
        if not self.makes:
            raise ValueError("problem needs make(config) and a dataset to show, pin or save its networks.")
        made: tuple[nn.Module, bytes] = self.problem.make(trial.config)
        return made

    @property
    def makes(self) -> bool:
        """Whether there are networks to pin."""
        return hasattr(self.problem, "make") and getattr(self.problem, "dataset", None) is not None

    def recipe(self, trial: Trial) -> str:
        """The configuration in words."""
        if hasattr(self.problem, "words"):
            return str(self.problem.words(trial.config)).rstrip(".")
        pairs = trial.config.items()
        return ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in pairs
        )


def _goals(problem: Any) -> Goals:
    """Those of a problem, a share to maximise and a size to minimise."""
    if not callable(problem) or not isinstance(getattr(problem, "space", None), Space):
        raise TypeError(f"problem must be callable, with a space and goals, as together.Problem; got {problem!r}.")
    goals: Goals = getattr(problem, "goals", None)  # type: ignore[assignment]
    checks.instance("problem.goals", goals, Goals, "Goals, such as those of together.Problem")
    wanted = [goal.maximise for goal in goals.goals.values()]
    if wanted != [True, False]:
        raise ValueError(
            f"problem.goals must be a share to maximise, then a size to minimise; got {', '.join(goals.names)}, "
            f"maximise {', '.join(map(str, wanted))}."
        )
    return goals


def _rivals(problem: together.Problem) -> dict[str, Rival]:
    def by_hand(*, budget: int, seed: int, cancel: Event) -> Study:  # nothing of it is left to chance
        return together.by_hand(problem, budget, cancel=cancel)

    return {"one at a time": partial(together.one_at_a_time, problem), "by hand": by_hand}
