"""The one loop of every search: ask a method, try what it proposes, tell what came out; one record for each trial.

| to | call |
|---|---|
| begin, or go on with what a file holds | `study = Study(space, maximise=True, path=...)` |
| search | `study.run(objective, Random(seed=0), budget=60)` |
| try something of your own first | `study.enqueue({"lr": 0.01})` |
| do it by hand | `trial = study.ask(method)`, then `study.tell(trial.number, value)` |
| see what came out | `study.best`, `study.best_so_far()`, `study.table()` |
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit import checks
from kit.search.calling import Call, Objective, Outcome, judged
from kit.search.space import Space
from kit.search.study_file import Shelf, StudyError
from kit.search.trials import Method, Proposal, Trial, losses

if TYPE_CHECKING:  # slow to load, and not needed to search
    from pandas import DataFrame

Unit = Literal["trials", "epochs"]
Affords = Callable[[int, Sequence[Trial]], bool]  # whether a trial of that many epochs may follow these


class Study:
    """The trials of one search, in memory or in a file.

    Several processes may share a file: each sees the others' trials before it proposes its own.

    Args:
        space: what may be chosen.
        maximise: whether more is better.
        path: an SQLite file to keep the trials in, or to go on with; its folder must exist. None keeps them in memory,
            and so does ":memory:", as SQLite calls it.

    Raises:
        ValueError: the file holds a study of another space, or one that looks the other way.
        StudyError: the file cannot be used; the sentence says why, and the way out.
    """

    def __init__(self, space: Space, *, maximise: bool = False, path: Path | str | None = None) -> None:
        checks.instance("space", space, Space)
        checks.instance("maximise", maximise, bool, "True or False")
        checks.instance("path", path, (str, Path, type(None)), "a path or None")
        self.space, self.maximise = space, maximise
        self._book = Shelf(space, maximise, path).book
        self._taken: set[int] = set()  # off the queue

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, oldest first."""
        with self._book(write=False) as book:
            return tuple(book.trials.values())

    @property
    def best(self) -> Trial:
        """The trial with the best value, the first of equal ones; a ValueError while no trial is done."""
        trials = self.trials
        found = losses(trials, maximise=self.maximise)
        if min(found, default=math.inf) == math.inf:
            why = next((f"; the last error: {trial.error}" for trial in reversed(trials) if trial.error), "")
            raise ValueError(f"no trial of {len(trials)} is done, so none is the best{why}.")
        return trials[found.index(min(found))]

    def best_so_far(self, unit: Unit = "trials") -> tuple[tuple[int, float], ...]:
        """Each improvement: what was spent when it was told, and its value.

        Args:
            unit: whether trials are counted, or the epochs that they trained. Trials count in their order.
        """
        checks.one_of("unit", unit, get_args(Unit))
        spent, best, steps, trials = 0, math.inf, [], self.trials
        for trial, loss in zip(trials, losses(trials, maximise=self.maximise), strict=True):
            spent += _cost(trial, unit) if trial.told else 0
            if loss < best:
                best = loss
                steps.append((spent, -loss if self.maximise else loss))
        return tuple(steps)

    def table(self) -> DataFrame:
        """One row for each trial; columns as in scikit-learn's `cv_results_` where there is one for it.

        Columns: number, status, `param_<name>` for each parameter, params, `split<i>_test_score` where an objective
        gave several scores, mean_test_score (the value, NaN unless done), std_test_score, rank_test_score (1 is the
        best, equal values share a rank, trials without a value come last), mean_fit_time (seconds), epochs, spent
        (epochs), error.
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
            | {"mean_test_score": math.nan if trial.value is None else trial.value}
            | {"std_test_score": statistics.pstdev(trial.scores) if trial.scores else math.nan, "rank_test_score": 0}
            | {"mean_fit_time": trial.seconds, "epochs": trial.epochs, "spent": trial.spent, "error": trial.error}
            for trial in trials
        ]
        frame = pd.DataFrame(rows)
        if rows:
            ranks = frame["mean_test_score"].rank(method="min", ascending=not self.maximise, na_option="bottom")
            frame["rank_test_score"] = ranks.astype(int)
        return frame

    def __repr__(self) -> str:
        """How many trials of each status."""
        statuses = [trial.status for trial in self.trials]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "no trials"
        return f"Study({', '.join(self.space.names)}: {counts})"

    def ask(self, method: Method, *, epochs: int | None = None) -> Trial | None:
        """The next trial, enqueued or else proposed by `method`, and now written down as "asked".

        Args:
            method: proposes.
            epochs: to train it to, where the method does not say.

        Returns:
            None where the method has nothing to propose: until asked trials are told, or because it is exhausted.

        Raises:
            ValueError: the method proposed what is not in the space.
        """
        _check_method(method)
        _check_counts(epochs=epochs)
        return self._ask(method, epochs, False, lambda price, trials: True)

    def enqueue(self, config: Mapping[str, Any], *, epochs: int | None = None) -> Trial:
        """A trial that you choose yourself; a ValueError where it is not in the space.

        It is "queued" until the next `run` or `ask` takes it, before the method proposes anything; or tell it yourself.

        Args:
            config: to try.
            epochs: to train it to; None for as many as the method's own new trials.
        """
        _check_counts(epochs=epochs)
        with self._book(write=True) as book:
            return book.add(Proposal(self.space.check(config), epochs), epochs or 0, "queued")

    def tell(self, number: int, result: Any, *, spent: int | None = None, seconds: float = 0.0) -> Trial:
        """Write down what a trial gave.

        Args:
            number: of a trial that was asked or enqueued, and not told.
            result: a finite number, or several (one for each fold or seed), whose mean is the value; a
                `measure.Estimate` counts by its value. What is no such number makes a failed trial; so does an
                exception.
            spent: epochs that it trained itself; None for as many as it was asked to.
            seconds: that it took.

        Returns:
            The trial as it now stands.

        Raises:
            ValueError: the trial was never asked, or is told already.
        """
        checks.whole("number", number)
        told = {**judged(result), "seconds": checks.number("seconds", seconds, least=0)}
        if spent is not None:
            told["spent"] = checks.whole("spent", spent)
        return self._finish(number, told)

    def run(
        self,
        objective: Objective,
        method: Method,
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
                counts. It is also given `epochs=` where the trial has them (it must then take them), and `cancel=` (an
                event that is set when it should stop) where it has a parameter of that name. With an attribute
                `resumes` that is true, it goes on from where the trial before stopped, so that only new epochs are
                spent.
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
        _check_method(method)
        if not callable(objective):
            raise TypeError(f"objective must be callable; got {objective!r}.")
        if on_trial is not None and not callable(on_trial):
            raise TypeError(f"on_trial must be callable; got {on_trial!r}.")
        if cancel is not None and not hasattr(cancel, "is_set"):
            raise TypeError(f"cancel must be a threading.Event; got {cancel!r}.")
        checks.one_of("unit", unit, get_args(Unit))
        checks.whole("budget", budget, 1)
        _check_counts(epochs=epochs, batch=batch, failures=failures)
        if limit is not None:
            checks.number("limit", limit, above=0)
        call = Call(objective, limit, cancel, batched=batch is not None)

        def affords(price: int, trials: Sequence[Trial]) -> bool:
            if unit == "epochs" and not price:
                raise ValueError("epochs is needed: the budget is in epochs, and the method does not say how many.")
            price = 1 if unit == "trials" else price
            if price > budget and not trials:
                raise ValueError(f"budget must be {price} {unit} or more, for one trial; got {budget}.")
            return price <= budget - sum(_cost(trial, unit) for trial in trials)

        resumes, failed, done = bool(getattr(objective, "resumes", False)), 0, False
        while cancel is None or not cancel.is_set():
            untold: dict[int, Trial] = {}
            try:
                while len(untold) < (batch or 1) and (trial := self._ask(method, epochs, resumes, affords)) is not None:
                    untold[trial.number] = trial
                if not untold:
                    break
                for total in dict.fromkeys(trial.epochs for trial in untold.values()):
                    alike = [trial for trial in untold.values() if trial.epochs == total]
                    began = time.perf_counter()
                    outcomes = call([dict(trial.config) for trial in alike], total)
                    seconds = (time.perf_counter() - began) / len(alike)
                    for trial, outcome in zip(alike, outcomes, strict=True):
                        told = self._finish(trial.number, {**outcome, "seconds": seconds}, trial)
                        del untold[trial.number]
                        done, failed = done or told.status == "done", failed + (told.status == "failed")
                        if on_trial is not None:
                            on_trial(told)
                    if not done and failures is not None and failed >= failures:
                        what = f"objective failed in each of {failed} trials, at last: {told.error.rstrip('.')}"
                        raise RuntimeError(f"{what}; mend it, or go on with failures=None.") from call.raised
            finally:  # interrupted
                for number, trial in untold.items():
                    with suppress(StudyError, ValueError):  # of a file that is gone or locked: the first error is told
                        self._finish(number, {"status": "lost"}, trial)
        return self

    def _ask(self, method: Method, epochs: int | None, resumes: bool, affords: Affords) -> Trial | None:
        with self._book(write=True) as book:
            known = tuple(trial for trial in book.trials.values() if trial.status not in ("queued", "lost"))
            proposal = method.propose(self.space, known, maximise=self.maximise)
            queued = next((trial for trial in book.trials.values() if trial.status == "queued"), None)
            if queued is not None:  # it takes the place of a new trial, and is trained as long
                if proposal is None or proposal.continues is not None:
                    proposal = method.propose(self.space, (), maximise=self.maximise) or Proposal({})
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


def _cost(trial: Trial, unit: Unit) -> int:
    """What a trial spent, or will spend."""
    return 1 if unit == "trials" else trial.spent


def _check_method(method: Any) -> None:
    if isinstance(method, type) or not callable(getattr(method, "propose", None)):
        raise TypeError(f"method must be one such as Random(seed=0), with a propose of its own; got {method!r}.")


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None:
            checks.whole(name, value, 1)
