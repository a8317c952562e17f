"""The one loop of every search: ask a method, try what it proposes, tell what came out; one record for each trial.

| to | call |
|---|---|
| begin, or go on with what a file holds | `study = Study(space, maximise=True, path=...)` |
| search | `study.run(objective, Random(seed=0), budget=60)` |
| try something of your own first | `study.enqueue({"lr": 0.01})` |
| do it by hand | `trial = study.ask(method)`, then `study.tell(trial.number, value)` |
| see what came out | `study.best`, `study.best_so_far()`, `study.table()` |
| reach for several things at once | `Study(space, objectives={"error": Goal(), "bytes": Goal(log=True)})` |
| see what came of that | `study.front`, `study.best_within(bytes=20_000)`, `study.hypervolume(error=1, bytes=9e5)` |
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from kit import checks
from kit.search.calling import Call, Objective, Outcome, judged
from kit.search.pareto import Goal, Goals, hypervolume
from kit.search.running import Affords, Run, Unit, check_counts, check_method, cost
from kit.search.space import Space
from kit.search.study_file import Shelf, StudyError
from kit.search.trials import AnyMethod, Proposal, Trial, losses

if TYPE_CHECKING:  # slow to load, and not needed to search
    from pandas import DataFrame


class Study:
    """The trials of one search, in memory or in a file.

    Several processes may share a file: each sees the others' trials before it proposes its own.

    Args:
        space: what may be chosen.
        maximise: whether more is better.
        objectives: for several objectives, each by name, the one that matters most first; `maximise` is left out then.
        path: an SQLite file to keep the trials in, or to go on with; its folder must exist. None keeps them in memory,
            and so does ":memory:", as SQLite calls it.

    Raises:
        TypeError, ValueError: an argument out of range; the file holds a study of another space or other objectives,
            or one that looks the other way.
        StudyError: the file cannot be used; the sentence says why, and the way out.
    """

    def __init__(
        self,
        space: Space,
        *,
        maximise: bool = False,
        objectives: Mapping[str, Goal] | None = None,
        path: Path | str | None = None,
    ) -> None:
        checks.instance("space", space, Space)
        checks.instance("maximise", maximise, bool, "True or False")
        checks.instance("path", path, (str, Path, type(None)), "a path or None")
        if maximise and objectives is not None:
            raise ValueError("maximise must be left out where there are objectives: each Goal says it for itself.")
        self.space, self.maximise = space, maximise
        self.goals = None if objectives is None else Goals(objectives)
        self._book = Shelf(space, maximise, self.goals, path).book
        self._taken: set[int] = set()  # off the queue

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, oldest first."""
        with self._book(write=False) as book:
            return tuple(book.trials.values())

    @property
    def best(self) -> Trial:
        """The trial with the best value, the first of equal ones; a ValueError while no trial is done."""
        self._check_one("best", "front or best_within(...)")
        trials = self.trials
        found = losses(trials, maximise=self.maximise)
        if min(found, default=math.inf) == math.inf:
            raise ValueError(_none_done(trials))
        return trials[found.index(min(found))]

    @property
    def front(self) -> tuple[Trial, ...]:
        """The Pareto front: what keeps every limit and is dominated by nothing, by the last objective, best first.

        Its values flatter it: of many noisy trials those that were lucky look undominated. Measure it anew before you
        believe it. A ValueError of a study with one objective.
        """
        return self._many("front").front(self.trials)

    def best_within(self, **limits: float) -> Trial:
        """The trial that is best in the first objective among those that keep these limits, and the study's own.

        Args:
            limits: by the objective's name: at most, or where more is better at least.

        Raises:
            ValueError: a name that is no objective, a study of one objective, or no trial that keeps the limits; it
                then says how near one came.
        """
        goals, trials = self._many("best_within"), self.trials
        found = goals.losses(trials)
        if not np.isfinite(found).any():
            raise ValueError(_none_done(trials))
        most = np.minimum(goals.limits, goals.at(limits, missing=math.inf))
        within = (found <= most).all(1)
        if not within.any():
            best = zip(goals.names, goals.values(found.min(0)[None])[0], strict=True)
            said = ", ".join(f"{name}={value:g}" for name, value in best)
            raise ValueError(f"no trial of {len(trials)} keeps the limits; the best of each objective alone: {said}.")
        return trials[int(np.where(within, found[:, 0], math.inf).argmin())]

    def hypervolume(self, **corner: float) -> float:
        """The volume of what the front dominates, up to a corner: the one number by which fronts are compared.

        Args:
            corner: the worst value that counts of each objective, in its own unit; the limit where it is left out.

        Raises:
            ValueError: more than three objectives, a study of one, an unknown name, or no corner and no limit.
        """
        return next(reversed(self.hypervolumes(**corner)), 0.0)

    def hypervolumes(self, **corner: float) -> tuple[float, ...]:
        """The same after each trial that was told, in the order of the trials."""
        goals = self._many("hypervolume")
        worst, found = goals.given(corner), goals.losses([trial for trial in self.trials if trial.told])
        found[~goals.within(found)] = math.inf
        volumes, kept = [0.0], np.empty((0, len(goals)))
        for row in found:
            if (row < worst).all() and not (kept <= row).all(1).any():
                kept = np.vstack([kept[~(row <= kept).all(1)], row])
                volumes.append(hypervolume(kept, worst))
            else:
                volumes.append(volumes[-1])
        return tuple(volumes[1:])

    def best_so_far(self, unit: Unit = "trials") -> tuple[tuple[int, float], ...]:
        """Each improvement: what was spent when it was told, and its value.

        Args:
            unit: whether trials are counted, or the epochs that they trained. Trials count in their order.
        """
        self._check_one("best_so_far", "hypervolumes(...)")
        checks.one_of("unit", unit, get_args(Unit))
        spent, best, steps, trials = 0, math.inf, [], self.trials
        for trial, loss in zip(trials, losses(trials, maximise=self.maximise), strict=True):
            spent += cost(trial, unit) if trial.told else 0
            if loss < best:
                best = loss
                steps.append((spent, -loss if self.maximise else loss))
        return tuple(steps)

    def table(self) -> DataFrame:
        """One row for each trial; columns as in scikit-learn's `cv_results_` where there is one for it.

        Columns: number, status, `param_<name>` for each parameter, params, `split<i>_test_score` where an objective
        gave several scores, mean_test_score (the value, NaN unless done), std_test_score, rank_test_score (1 is the
        best, equal values share a rank, trials without a value come last), mean_fit_time (seconds), epochs, spent
        (epochs), error. Of several objectives `mean_test_<name>` for each stands in place of the scores and the rank,
        and on_front at the end.
        """
        import pandas as pd

        trials = self.trials
        splits = max((len(trial.scores) for trial in trials), default=1)
        padding = (math.nan,) * splits
        rows = [
            {"number": trial.number, "status": trial.status}
            | {f"param_{name}": trial.config[name] for name in self.space.names}
            | {"params": trial.config}
            | {f"split{at}_test_score": (trial.scores + padding)[at] for at in range(splits) if splits > 1}
            | {
                f"mean_test_{name}": trial.values.get(name, math.nan)
                for name in (self.goals.names if self.goals else ())
            }
            | ({} if self.goals else _scored(trial))
            | {"mean_fit_time": trial.seconds, "epochs": trial.epochs, "spent": trial.spent, "error": trial.error}
            for trial in trials
        ]
        frame = pd.DataFrame(rows)
        if self.goals:
            frame["on_front"] = frame["number"].isin([trial.number for trial in self.front])
        elif rows:
            ranks = frame["mean_test_score"].rank(method="min", ascending=not self.maximise, na_option="bottom")
            frame["rank_test_score"] = ranks.astype(int)
        return frame

    def __repr__(self) -> str:
        """How many trials of each status."""
        statuses = [trial.status for trial in self.trials]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "no trials"
        return f"Study({', '.join(self.space.names)}: {counts})"

    def ask(self, method: AnyMethod, *, epochs: int | None = None) -> Trial | None:
        """The next trial, enqueued or else proposed by `method`, and now written down as "asked".

        Args:
            method: proposes.
            epochs: to train it to, where the method does not say.

        Returns:
            None where the method has nothing to propose: until asked trials are told, or because it is exhausted.

        Raises:
            ValueError: the method proposed what is not in the space.
        """
        check_method(method, self.goals)
        check_counts(epochs=epochs)
        return self._ask(method, epochs, False, lambda price, trials: True)

    def enqueue(self, config: Mapping[str, Any], *, epochs: int | None = None) -> Trial:
        """A trial that you choose yourself; a ValueError where it is not in the space.

        It is "queued" until the next `run` or `ask` takes it, before the method proposes anything; or tell it yourself.

        Args:
            config: to try.
            epochs: to train it to; None for as many as the method's own new trials.
        """
        check_counts(epochs=epochs)
        with self._book(write=True) as book:
            return book.add(Proposal(self.space.check(config), epochs), epochs or 0, "queued")

    def tell(self, number: int, result: Any, *, spent: int | None = None, seconds: float = 0.0) -> Trial:
        """Write down what a trial gave.

        Args:
            number: of a trial that was asked or enqueued, and not told.
            result: a finite number, or several (one for each fold or seed), whose mean is the value; a
                `measure.Estimate` counts by its value. Of several objectives a mapping with one of these for each
                name. What is no such thing makes a failed trial; so does an exception.
            spent: epochs that it trained itself; None for as many as it was asked to.
            seconds: that it took.

        Returns:
            The trial as it now stands.

        Raises:
            ValueError: the trial was never asked, or is told already.
        """
        checks.whole("number", number)
        told = {**judged(result, self.goals), "seconds": checks.number("seconds", seconds, least=0)}
        if spent is not None:
            told["spent"] = checks.whole("spent", spent)
        return self._finish(number, told)

    def run(
        self,
        objective: Objective,
        method: AnyMethod,
        *,
        budget: int,
        unit: Unit = "trials",
        epochs: int | None = None,
        batch: int | None = None,
        limit: float | None = None,
        failures: int | None = 3,
        on_trial: Callable[[Trial], None] | None = None,
        cancel: Event | None = None,
    ) -> Study:
        """Ask, try and tell until the budget is spent or the method is exhausted; what is enqueued comes first.

        An objective that raises, gives no finite number, or takes too long spoils its own trial only; one that fails
        from the first trial on stops the search.

        Args:
            objective: called with a configuration; gives a number, or several (one for each fold or seed) whose mean
                counts; of several objectives a mapping with one of these for each name. It is also given `epochs=`
                where the trial has them (it must then take them), and `cancel=` (an event that is set when it should
                stop) where it has a parameter of that name. With an attribute `resumes` that is true, it goes on from
                where the trial before stopped, so that only new epochs are spent.
            method: proposes.
            budget: of the whole study, and of its file (so another objective needs another path): earlier runs and
                asked trials included, queued and lost ones not; never overspent.
            unit: "trials", or "epochs" that were trained, so that methods which stop trials early compare fairly.
            epochs: of each trial, where the method does not say.
            batch: with a number, the objective is called with a list of that many configurations or fewer, of equal
                epochs, and gives a list of results.
            limit: seconds that one call may take. A call that takes longer is left behind in its thread (Python
                cannot end a thread), and its trials are marked "timed out".
            failures: so many trials that fail stop this run, where none was done before; None goes on all the same.
            on_trial: called after each trial is told.
            cancel: looked at between calls; trials that are under way then are lost, not failed.

        Returns:
            The study itself.

        Raises:
            ValueError: a budget that is too small for one trial, or another argument out of range.
            TypeError: an objective that cannot be called with a configuration.
            RuntimeError: it failed from the first trial on; its own error is the cause.
            StudyError: the file cannot be used, or no longer has a trial that is under way.
        """
        run = Run(
            self,
            objective,
            method,
            budget=budget,
            unit=unit,
            epochs=epochs,
            batch=batch,
            failures=failures,
            on_trial=on_trial,
            cancel=cancel,
        )
        if limit is not None:
            checks.number("limit", limit, above=0)
        call = Call(objective, limit, cancel, batched=batch is not None, goals=self.goals)
        with closing(run):
            while not run.cancelled and (trials := run.next()):
                began = time.perf_counter()
                outcomes = call([dict(trial.config) for trial in trials], trials[0].epochs)
                run.tell(trials, outcomes, time.perf_counter() - began, call.raised)
        return self

    def _ask(self, method: AnyMethod, epochs: int | None, resumes: bool, affords: Affords) -> Trial | None:
        with self._book(write=True) as book:
            known = tuple(trial for trial in book.trials.values() if trial.status not in ("queued", "lost"))
            asked: dict[str, Any] = {"goals": self.goals} if self.goals else {"maximise": self.maximise}
            proposal = method.propose(self.space, known, **asked)
            queued = next((trial for trial in book.trials.values() if trial.status == "queued"), None)
            if queued is not None:  # it takes the place of a new trial, and is trained as long
                if proposal is None or proposal.continues is not None:
                    proposal = method.propose(self.space, (), **asked) or Proposal({})
                bracket = proposal.bracket if queued.epochs in (None, proposal.epochs) else None
                proposal = Proposal(queued.config, queued.epochs or proposal.epochs, bracket=bracket)
            if proposal is None:
                return None
            total = epochs if proposal.epochs is None else proposal.epochs
            price = total or 0
            if resumes and proposal.continues is not None:
                price -= book.trials[proposal.continues].epochs or 0
            if not affords(price, known):
                return None
            if queued is not None:
                self._taken.add(queued.number)
                return book.put(replace(queued, status="asked", epochs=total, bracket=proposal.bracket, spent=price))
            return book.add(proposal._replace(config=self.space.check(proposal.config), epochs=total), price)

    def _check_one(self, what: str, rather: str) -> None:
        if self.goals:
            raise ValueError(
                f"{what} is of one objective, and this study has {', '.join(self.goals.names)}: use {rather}."
            )

    def _many(self, what: str) -> Goals:
        if self.goals is None:
            raise ValueError(f"{what} is of several objectives, and this study has one: use best.")
        return self.goals

    def _finish(self, number: int, told: Outcome, asked: Trial | None = None) -> Trial:
        """Write down what a trial gave; one that is lost goes back to the queue, if it came from there."""
        with self._book(write=True) as book:
            trial = book.trials.get(number)
            if asked is not None and (trial is None or trial.config != asked.config):
                gone = "its file was deleted or replaced while the trial was under way"
                raise StudyError(f"The study no longer has trial {number}, {asked.config}: {gone}; run it again.")
            if trial is None:
                raise ValueError(f"number must be that of a trial that was asked; {number!r} never was.")
            if trial.status not in ("queued", "asked"):
                raise ValueError(f"number must be that of a trial not told yet; trial {number} is {trial.status}.")
            if told["status"] == "lost" and number in self._taken:
                told = {**told, "status": "queued"}
            return book.put(replace(trial, **told))


def _scored(trial: Trial) -> dict[str, float]:
    """Columns of the value of one objective; the ranks come later."""
    spread = statistics.pstdev(trial.scores) if trial.scores else math.nan
    value = math.nan if trial.value is None else trial.value
    return {"mean_test_score": value, "std_test_score": spread, "rank_test_score": 0}


def _none_done(trials: Sequence[Trial]) -> str:
    why = next((f"; the last error: {trial.error}" for trial in reversed(trials) if trial.error), "")
    return f"no trial of {len(trials)} is done, so none is the best{why}."
