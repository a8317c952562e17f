"""The one loop of every search: ask a method, try what it proposes, tell what came out; one record a trial.

| to | call |
|---|---|
| begin, or go on with what a file holds | `study = Study(space, maximise=True, path=...)` |
| search | `study.run(objective, Random(seed=0), budget=60)` |
| do it by hand | `trial = study.ask(method)`, then `study.tell(trial.number, value)` |
| see what came out | `study.best`, `study.best_so_far()`, `study.table()` |
"""

from __future__ import annotations

import inspect
import json
import math
import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import psutil

from kit.search.space import Config, Space
from kit.search.trials import STATUSES, Method, Proposal, Trial, check_whole
from kit.store import Store

if TYPE_CHECKING:  # slow to load, and not needed to search
    from pandas import DataFrame

Unit = Literal["trials", "epochs"]
Objective = Callable[..., Any]


class StudyError(RuntimeError):
    """The study's file cannot be used: absent folder, no study, damaged, newer, locked, or read-only."""


_STORE = Store(
    noun="study",
    letters=b"kits",
    version=1,
    tables=(
        "CREATE TABLE study (space TEXT NOT NULL, maximise INTEGER NOT NULL)",
        """CREATE TABLE trials (
            number INTEGER PRIMARY KEY, config TEXT NOT NULL, status TEXT NOT NULL, epochs INTEGER, continues INTEGER,
            bracket INTEGER, value REAL, scores TEXT NOT NULL, spent INTEGER NOT NULL, seconds REAL NOT NULL,
            error TEXT NOT NULL, worker TEXT NOT NULL)""",
    ),
    way_out="give path",
    error=StudyError,
    busy_seconds=30.0,  # a method proposes inside the lock, so that two processes do not propose the same
)


class Study:
    """The trials of one search, in memory or in a file.

    Several processes may share a file: each sees the others' trials before it proposes its own.

    Args:
        space: what may be chosen.
        maximise: whether more is better.
        path: an SQLite file to keep the trials in, or to go on with; its folder must exist. None keeps them in memory.

    Raises:
        ValueError: the file holds a study of another space, or one that looks the other way.
        StudyError: the file cannot be used; the sentence says why, and the way out.
    """

    def __init__(self, space: Space, *, maximise: bool = False, path: Path | str | None = None) -> None:
        """Take up what the file holds."""
        if not isinstance(space, Space):
            raise TypeError(f"space must be a Space; got {space!r}.")
        if not isinstance(maximise, bool):
            raise TypeError(f"maximise must be True or False; got {maximise!r}.")
        if path is not None and not isinstance(path, (str, Path)):
            raise TypeError(f"path must be a path or None; got {path!r}.")
        self.space, self.maximise = space, maximise
        self._path = None if path is None else Path(path)
        self._trials: dict[int, Trial] = {}  # what a study without a file holds
        self._lock = threading.RLock()
        with self._book(write=False):
            pass

    # -- what was found ------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, oldest first."""
        with self._book(write=False) as book:
            return tuple(book.trials.values())

    @property
    def best(self) -> Trial:
        """The trial with the best value; the first of equal ones.

        Raises:
            ValueError: no trial is done.
        """
        trials = self.trials
        done = [trial for trial in trials if trial.value is not None]
        if not done:
            why = next((f"; the last error: {trial.error}" for trial in reversed(trials) if trial.error), "")
            raise ValueError(f"no trial of {len(trials)} is done, so none is the best{why}.")
        sign = -1 if self.maximise else 1
        return min(done, key=lambda trial: sign * (trial.value or 0.0))

    def best_so_far(self, unit: Unit = "trials") -> tuple[tuple[int, float], ...]:
        """Each improvement: what was spent when it was told, and its value.

        Args:
            unit: whether trials are counted, or the epochs that they trained. Trials count in their order.
        """
        _check_unit(unit)
        spent, best, steps = 0, math.inf, []
        for trial in self.trials:
            spent += 0 if trial.status == "asked" else _cost(trial, unit)
            loss = math.inf if trial.value is None else -trial.value if self.maximise else trial.value
            if loss < best:
                best = loss
                steps.append((spent, -loss if self.maximise else loss))
        return tuple(steps)

    def table(self) -> DataFrame:
        """One row a trial; columns as in scikit-learn's `cv_results_` where there is one for it.

        Columns: number, status, `param_<name>` for each parameter, params, `split<i>_test_score` where an objective
        gave several scores, mean_test_score (the value, NaN unless done), std_test_score, rank_test_score (1 is the
        best, equal values share a rank, trials without a value come last), mean_fit_time (seconds), epochs, spent
        (epochs), error.
        """
        import pandas as pd

        trials = self.trials
        splits = max((len(trial.scores) for trial in trials), default=1)
        rows = []
        for trial in trials:
            scores = trial.scores or (math.nan,)
            row: dict[str, Any] = {"number": trial.number, "status": trial.status}
            row |= {f"param_{name}": trial.config[name] for name in self.space.names} | {"params": trial.config}
            if splits > 1:
                row |= {f"split{at}_test_score": scores[at] if at < len(scores) else math.nan for at in range(splits)}
            row |= {"mean_test_score": math.nan if trial.value is None else trial.value}
            row |= {"std_test_score": float(np.std(scores)), "mean_fit_time": trial.seconds}
            rows.append(row | {"epochs": trial.epochs, "spent": trial.spent, "error": trial.error})
        frame = pd.DataFrame(rows)
        if rows:
            ranks = frame["mean_test_score"].rank(method="min", ascending=not self.maximise, na_option="bottom")
            frame.insert(frame.columns.get_loc("std_test_score") + 1, "rank_test_score", ranks.astype(int))
        return frame

    def __repr__(self) -> str:
        """How many trials of each status."""
        statuses = [trial.status for trial in self.trials]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "no trials"
        return f"Study({', '.join(self.space.names)}: {counts})"

    # -- ask and tell --------------------------------------------------------------------------------------------------

    def ask(self, method: Method, *, epochs: int | None = None) -> Trial | None:
        """The next trial, proposed by `method` and now written down as "asked".

        Args:
            method: proposes.
            epochs: to train it to, where the method does not say.

        Returns:
            None where the method has nothing to propose: until asked trials are told, or because it is exhausted.

        Raises:
            ValueError: the method proposed what is not in the space.
        """
        if epochs is not None:
            check_whole("epochs", epochs, 1)
        _check_method(method)
        return self._ask(method, epochs)

    def enqueue(self, config: Mapping[str, Any], *, epochs: int | None = None) -> Trial:
        """A trial that you choose yourself, written down as "asked".

        Raises:
            ValueError: it is not in the space.
        """
        if epochs is not None:
            check_whole("epochs", epochs, 1)
        with self._book(write=True) as book:
            return book.add(Proposal(self.space.check(config), epochs), epochs or 0)

    def tell(self, number: int, result: Any, *, spent: int | None = None, seconds: float = 0.0) -> Trial:
        """Write down what a trial gave.

        Args:
            number: of a trial that was asked and not told.
            result: a finite number, or several (one a fold or seed), whose mean is the value. What is no such number
                makes a failed trial; so does an exception.
            spent: epochs that it trained itself; None for as many as it was asked to.
            seconds: that it took.

        Returns:
            The trial as it now stands.

        Raises:
            ValueError: the trial was never asked, or is told already.
        """
        check_whole("number", number, 0)
        if spent is not None:
            check_whole("spent", spent, 0)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a number, 0 or more; got {seconds!r}.")
        return self._finish(number, replace(_judged(result), seconds=float(seconds)), spent)

    # -- the loop ------------------------------------------------------------------------------------------------------

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
        on_trial: Callable[[Trial], None] | None = None,
        cancel: Event | None = None,
    ) -> Study:
        """Ask, try and tell until the budget is spent or the method is exhausted.

        An objective that raises, gives no finite number, or takes too long spoils its own trial only.

        Args:
            objective: called with a configuration; gives a number, or several (one a fold or seed) whose mean counts.
                It is also given `epochs=` where the trial has them (it must then take them), and `cancel=` (an event
                that is set when it should stop) where it has a parameter of that name. With an attribute `resumes`
                that is true, it goes on from where the trial before stopped, so that only new epochs are spent.
            method: proposes.
            budget: of the whole study, and of its file (so another objective needs another path): earlier runs and
                asked trials included, lost ones not; never overspent.
            unit: "trials", or "epochs" that were trained, so that methods which stop trials early compare fairly.
            epochs: of each trial, where the method does not say.
            batch: with a number, the objective is called with a list of up to so many configurations (of equal epochs)
                and gives a list of results.
            limit: seconds that one call may take. A call that takes longer is left behind in its thread (Python
                cannot end a thread), and its trials are marked "timed out".
            on_trial: called after each trial is told.
            cancel: looked at between calls; trials that are under way then are lost, not failed.

        Returns:
            The study itself.

        Raises:
            ValueError: a budget that is too small for one trial, or another argument out of range.
            TypeError: an objective that cannot be called.
        """
        _check_run(objective, method, budget, unit, epochs, batch, limit, on_trial, cancel)
        call = _Call(objective, limit, cancel)

        def affords(price: int, trials: Sequence[Trial]) -> bool:
            if unit == "epochs" and not price:
                raise ValueError("epochs is needed: the budget is in epochs, and the method does not say how many.")
            price = 1 if unit == "trials" else price
            if price > budget and not trials:
                raise ValueError(f"budget must be {price} {unit} or more, for one trial; got {budget}.")
            return price <= budget - sum(_cost(trial, unit) for trial in trials)

        resumes = bool(getattr(objective, "resumes", False))
        while cancel is None or not cancel.is_set():
            asked: list[Trial] = []
            try:
                while len(asked) < (batch or 1):
                    trial = self._ask(method, epochs, resumes, affords)
                    if trial is None:
                        break
                    asked.append(trial)
            except BaseException:
                self._lose(trial.number for trial in asked)
                raise
            if not asked:
                break
            self._try(asked, call, batch, on_trial)
        return self

    def _try(
        self, asked: Sequence[Trial], call: _Call, batch: int | None, on_trial: Callable[[Trial], None] | None
    ) -> None:
        """Call the objective for trials of equal epochs together, and tell."""
        untold = {trial.number for trial in asked}
        try:
            for epochs in dict.fromkeys(trial.epochs for trial in asked):
                alike = [trial for trial in asked if trial.epochs == epochs]
                began = time.perf_counter()
                outcomes = call([dict(trial.config) for trial in alike], epochs, batched=batch is not None)
                seconds = (time.perf_counter() - began) / len(alike)
                for trial, outcome in zip(alike, outcomes, strict=True):
                    told = self._finish(trial.number, replace(outcome, seconds=seconds))
                    untold.discard(trial.number)
                    if on_trial is not None:
                        on_trial(told)
        finally:  # interrupted
            self._lose(untold)

    def _lose(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._finish(number, Trial(number, {}, "lost"))

    def _ask(
        self,
        method: Method,
        epochs: int | None,
        resumes: bool = False,
        affords: Callable[[int, Sequence[Trial]], bool] | None = None,
    ) -> Trial | None:
        with self._book(write=True) as book:
            known = tuple(trial for trial in book.trials.values() if trial.status != "lost")
            proposal = method.propose(self.space, known, maximise=self.maximise)
            if proposal is None:
                return None
            total = epochs if proposal.epochs is None else proposal.epochs
            price = total or 0
            if resumes and proposal.continues is not None:
                price -= book.trials[proposal.continues].epochs or 0
            if affords is not None and not affords(price, known):
                return None
            return book.add(proposal._replace(config=self.space.check(proposal.config), epochs=total), price)

    def _finish(self, number: int, told: Trial, spent: int | None = None) -> Trial:
        with self._book(write=True) as book:
            trial = book.trials.get(number)
            if trial is None:
                raise ValueError(f"number must be that of a trial that was asked; {number!r} never was.")
            if trial.status != "asked":
                raise ValueError(f"number must be that of a trial not told yet; trial {number} is {trial.status}.")
            said = {name: getattr(told, name) for name in ("status", "value", "scores", "seconds", "error")}
            trial = replace(trial, **said, spent=trial.spent if spent is None else spent)
            book.put(trial)
            return trial

    @contextmanager
    def _book(self, *, write: bool) -> Iterator[_Book]:
        """The trials, read again where a file holds them, inside one transaction."""
        with self._lock:
            if self._path is None:
                yield _Book(self._trials, None)
                return
            with _STORE.transaction(self._path, write=write) as connection:
                self._check_same(connection, write=write)
                yield _Book.read(connection, self._path)

    def _check_same(self, connection: sqlite3.Connection, *, write: bool) -> None:
        row = connection.execute("SELECT space, maximise FROM study").fetchone()
        mine = self.space.as_json()
        if row is None:
            if write:
                connection.execute("INSERT INTO study VALUES (?, ?)", [json.dumps(mine), self.maximise])
            return
        theirs = json.loads(row["space"])
        if json.dumps(theirs) != json.dumps(mine):  # as texts: 1, 1.0 and True are different options
            names = {**mine, **theirs}
            apart = [name for name in names if json.dumps(mine.get(name)) != json.dumps(theirs.get(name))]
            apart = apart or ["their order"]
            raise ValueError(
                f"space is another than that of the study in {self._path}, which differs in {', '.join(apart)}: "
                "give the same space, or another path."
            )
        if bool(row["maximise"]) != self.maximise:
            other = "maximises" if row["maximise"] else "minimises"
            raise ValueError(f"maximise is {self.maximise}, and the study in {self._path} {other}.")


class _Book:
    """The trials by number, and a way to change them that also writes the file."""

    def __init__(self, trials: dict[int, Trial], connection: sqlite3.Connection | None) -> None:
        self.trials, self._connection = trials, connection

    @classmethod
    def read(cls, connection: sqlite3.Connection, path: Path) -> _Book:
        """All of a file; trials whose process ended before it told are lost."""
        trials = {}
        for row in connection.execute("SELECT * FROM trials ORDER BY number"):
            named = dict(row)
            try:
                worker = named.pop("worker")
                named["config"] = dict(json.loads(named["config"]))
                named["scores"] = tuple(json.loads(named["scores"]))
                if named["status"] not in STATUSES:
                    raise ValueError(named["status"])
                if named["status"] == "asked" and not _alive(worker):
                    named["status"] = "lost"
                trials[row["number"]] = Trial(**named)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise StudyError(_STORE.damaged(path, "a trial in it cannot be read")) from error
        return cls(trials, connection)

    def add(self, proposal: Proposal, price: int) -> Trial:
        """Write a proposal down as the next trial; `price` is the epochs that it will train."""
        number = max(self.trials, default=-1) + 1
        trial = Trial(number, dict(proposal.config), "asked", *proposal[1:], spent=price)
        self.put(trial)
        return trial

    def put(self, trial: Trial) -> None:
        """Write a trial down, in place of what stands under its number."""
        self.trials[trial.number] = trial
        if self._connection is not None:
            row = {**vars(trial), "config": json.dumps(trial.config), "scores": json.dumps(trial.scores)}
            row["worker"] = _worker()
            names = ", ".join(row)
            marks = ", ".join(f":{name}" for name in row)
            self._connection.execute(f"INSERT OR REPLACE INTO trials ({names}) VALUES ({marks})", row)


class _Call:
    """One call of an objective: its results judged, its errors caught, its time limited."""

    def __init__(self, objective: Objective, limit: float | None, cancel: Event | None) -> None:
        self._objective, self._limit, self._cancel = objective, limit, cancel
        self._takes_cancel, self._takes_epochs = _takes(objective, "cancel"), _takes(objective, "epochs", or_any=True)

    def __call__(self, configs: list[Config], epochs: int | None, *, batched: bool) -> list[Trial]:
        """One outcome a configuration: a trial with nothing but what the call says of it."""
        if epochs is not None and not self._takes_epochs:
            raise TypeError(f"objective must have a parameter epochs: its trials are trained for {epochs} epochs here.")
        stop = Event()
        keywords: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        if self._takes_cancel:
            keywords["cancel"] = stop
        answer: list[Any] = []

        def work() -> None:
            try:
                result = self._objective(configs if batched else configs[0], **keywords)
                listed = batched and isinstance(result, Iterable) and not isinstance(result, (Mapping, str))
                answer.append(list(result) if listed else result)
            except BaseException as error:
                answer.append(error)

        if self._limit is None and (self._cancel is None or not self._takes_cancel):
            work()
        else:
            thread = threading.Thread(target=work, name="objective", daemon=True)
            thread.start()
            late = time.monotonic() + (self._limit or math.inf)
            try:
                while thread.is_alive() and time.monotonic() < late and not (self._cancel and self._cancel.is_set()):
                    thread.join(0.02 if self._cancel else min(0.5, max(0.0, late - time.monotonic())))
            finally:  # interrupted, too
                stop.set()
            if self._cancel and self._cancel.is_set():
                thread.join(self._limit)  # an objective that takes `cancel` stops soon
                return [Trial(-1, {}, "lost") for _ in configs]
            if thread.is_alive():
                reason = f"took longer than its limit of {self._limit:g} seconds"
                return [Trial(-1, {}, "timed out", error=reason) for _ in configs]
        result = answer[0]
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result  # KeyboardInterrupt, SystemExit: meant for the program, not for one trial
        if not batched or isinstance(result, Exception):
            return [_judged(result) for _ in configs]
        if not isinstance(result, list) or len(result) != len(configs):
            return [_judged(TypeError(f"gave {result!r} for {len(configs)} configurations")) for _ in configs]
        return [_judged(each) for each in result]


def _judged(result: Any) -> Trial:
    """What a result says of its trial."""
    if isinstance(result, Exception):
        return Trial(-1, {}, "failed", error=f"{type(result).__name__}: {result}")
    try:
        values = list(result) if np.ndim(result) else [result]
        values = [value.item() if hasattr(value, "item") else value for value in values]
    except (ValueError, RuntimeError):  # lists of unequal lengths; tensors of several numbers
        values = []
    if not values or not all(isinstance(value, Real) for value in values):
        return Trial(-1, {}, "failed", error=f"gave {result!r}, where a number is needed")
    try:
        scores = tuple(float(value) for value in values)
        value = math.fsum(scores) / len(scores) if all(map(math.isfinite, scores)) else math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return Trial(-1, {}, "failed", error=f"gave {result!r}, where a finite number is needed")
    return Trial(-1, {}, "done", value=value, scores=scores)


def _cost(trial: Trial, unit: Unit) -> int:
    """What a trial spent, or will spend; a lost one spent nothing that counts."""
    if trial.status == "lost":
        return 0
    return 1 if unit == "trials" else trial.spent


def _takes(objective: Objective, name: str, *, or_any: bool = False) -> bool:
    """Whether a callable has a parameter of that name; with `or_any`, also where it takes any keyword."""
    try:
        parameters = inspect.signature(objective).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return or_any
    return name in parameters or (or_any and any(each.kind is each.VAR_KEYWORD for each in parameters.values()))


def _worker() -> str:
    """What tells this process from all others, now and later."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time()}"


def _alive(worker: str) -> bool:
    """Whether the process may still tell: it runs, or it is on another machine."""
    node, pid, born = worker.rsplit(" ", 2)
    if node != platform.node():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(born)) < 2  # the clock may have been set meanwhile
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _check_unit(unit: str) -> None:
    if unit not in get_args(Unit):
        raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}; got {unit!r}.")


def _check_method(method: Any) -> None:
    if isinstance(method, type) or not callable(getattr(method, "propose", None)):
        raise TypeError(f"method must be one such as Random(seed=0), with a propose of its own; got {method!r}.")


def _check_run(
    objective: Any,
    method: Any,
    budget: Any,
    unit: str,
    epochs: int | None,
    batch: int | None,
    limit: Any,
    on_trial: Any,
    cancel: Any,
) -> None:
    if not callable(objective):
        raise TypeError(f"objective must be callable; got {objective!r}.")
    _check_method(method)
    if on_trial is not None and not callable(on_trial):
        raise TypeError(f"on_trial must be callable; got {on_trial!r}.")
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise TypeError(f"cancel must be a threading.Event; got {cancel!r}.")
    _check_unit(unit)
    check_whole("budget", budget, 1)
    for name, value in {"epochs": epochs, "batch": batch}.items():
        if value is not None:
            check_whole(name, value, 1)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
        raise ValueError(f"limit must be above 0 seconds; got {limit!r}.")
