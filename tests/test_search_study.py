"""The one loop: what is asked, told, kept, resumed and refused."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid

from kit import board
from kit.search import (
    ASHA,
    Bayes,
    Choice,
    Config,
    Float,
    Grid,
    Hyperband,
    Int,
    Listed,
    Method,
    Proposal,
    Random,
    Sobol,
    Space,
    Study,
    StudyError,
    Trial,
)
from kit.search.space import key

LINE = Space({"x": Float(0, 1)})
SPACE = Space({"lr": Float(1e-3, 1, log=True), "width": Int(1, 9), "method": Choice("adam", "sgd", None, True, 1)})
STEPS = Space({"x": Int(0, 9)})


def given(*values: float) -> Listed:
    return Listed([{"x": value} for value in values])


def x_of(config: Config) -> float:
    return config["x"]


def bowl(config: Config, epochs: int = 1) -> float:
    """A number that depends on all parameters."""
    return (
        (math.log10(config["lr"]) + 2) ** 2 + abs(config["width"] - 4) + 0.5 * (config["method"] == "sgd") + 1 / epochs
    )


def timeless(trials: Sequence[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.sqlite"


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def place(request: pytest.FixtureRequest, path: Path) -> Path | None:
    """What holds for a study in memory holds for one in a file."""
    return path if request.param else None


# --- ask and tell -----------------------------------------------------------------------------------------------


def test_ask_and_tell_by_hand(place: Path | None) -> None:
    study = Study(SPACE, path=place)
    assert study.trials == ()
    first, second = study.ask(Random(0)), study.ask(Random(0), epochs=5)
    assert first is not None
    assert second is not None
    assert (first.number, first.status, first.epochs, first.value, first.spent) == (0, "asked", None, None, 0)
    assert (second.number, second.status, second.epochs, second.spent) == (1, "asked", 5, 5)
    assert SPACE.check(first.config) == first.config != second.config
    told = study.tell(1, [0.5, Fraction(1, 4)], seconds=2.5)
    assert told == replace(second, status="done", value=0.375, scores=(0.5, 0.25), seconds=2.5)
    assert study.tell(0, RuntimeError("no luck"), spent=3) == replace(
        first, status="failed", error="RuntimeError: no luck", spent=3
    )
    assert study.trials == (replace(first, status="failed", error="RuntimeError: no luck", spent=3), told)
    assert repr(study) == "Study(lr, width, method: 1 failed, 1 done)"
    assert repr(Study(SPACE)) == "Study(lr, width, method: no trials)"


def test_what_cannot_be_told_is_refused(place: Path | None) -> None:
    study = Study(LINE, path=place)
    with pytest.raises(ValueError, match="number must be that of a trial that was asked; 0 never was."):
        study.tell(0, 1.0)
    study.ask(Random(0))
    study.tell(0, 1.0)
    before = study.trials
    for result in (2.0, RuntimeError("late")):
        with pytest.raises(ValueError, match="number must be that of a trial not told yet; trial 0 is done."):
            study.tell(0, result)
    with pytest.raises(ValueError, match="7 never was"):
        study.tell(7, 1.0)
    assert study.trials == before


def test_your_own_configurations_are_trials_too(place: Path | None) -> None:
    study = Study(SPACE, path=place)
    mine = study.enqueue({"method": None, "width": np.int64(3), "lr": 1}, epochs=4)
    assert mine == Trial(0, {"lr": 1.0, "width": 3, "method": None}, epochs=4, spent=4)
    with pytest.raises(ValueError, match="config: width must be a whole number from 1 to 9; got 10."):
        study.enqueue({"method": None, "width": 10, "lr": 1})
    study.tell(mine.number, -5.0)
    study.run(bowl, Random(0), budget=4)
    assert len(study.trials) == 4
    assert study.best.number == 0
    assert study.best.config["method"] is None


class Wrong:
    """Proposes what is not in the space."""

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        return Proposal({"x": 0.5} if not trials else {"x": 2.0})


def test_a_method_that_leaves_the_space_is_refused_and_nothing_stays_asked(place: Path | None) -> None:
    study = Study(LINE, path=place)
    with pytest.raises(ValueError, match="config: x must be a number from 0 to 1; got 2.0."):
        study.run(lambda configs: [0.0] * len(configs), Wrong(), budget=9, batch=3)
    assert [trial.status for trial in study.trials] == ["lost"]


# --- what was found ---------------------------------------------------------------------------------------------


def test_the_best_is_the_smallest_or_the_largest_and_the_first_of_equals() -> None:
    values = (0.5, 0.2, 0.9, 0.2, 0.9)
    for maximise, wanted in ((False, 1), (True, 2)):
        study = Study(LINE, maximise=maximise).run(x_of, given(*values), budget=9)
        assert study.best.number == wanted
        assert study.best.value == (max if maximise else min)(values)
    study = Study(LINE).run(lambda config: -config["x"], given(0, 0.5), budget=9)
    assert study.best.value == -0.5


def test_without_a_trial_that_is_done_none_is_the_best() -> None:
    study = Study(LINE)
    with pytest.raises(ValueError, match="no trial of 0 is done, so none is the best.$"):
        _ = study.best
    study.ask(Random(0))
    with pytest.raises(ValueError, match="no trial of 1 is done, so none is the best.$"):
        _ = study.best
    study.tell(0, OSError("disk"))
    study.ask(Random(0))
    with pytest.raises(ValueError, match="no trial of 2 is done, so none is the best; the last error: OSError: disk."):
        _ = study.best


def test_the_best_so_far_in_trials_and_in_epochs() -> None:
    study = Study(LINE, maximise=True)
    for epochs, value in ((4, 0.2), (1, math.nan), (2, 0.1), (8, 0.5), (3, 0.5), (1, 0.6)):
        trial = study.ask(Random(0), epochs=epochs)
        assert trial is not None
        study.tell(trial.number, value)
    study.ask(Random(0), epochs=100)  # not told: neither better nor spent
    assert study.best_so_far() == ((1, 0.2), (4, 0.5), (6, 0.6))
    assert study.best_so_far("epochs") == ((4, 0.2), (15, 0.5), (19, 0.6))
    study.maximise = False
    assert study.best_so_far("epochs") == ((4, 0.2), (7, 0.1))
    assert Study(LINE).best_so_far() == ()
    with pytest.raises(ValueError, match="unit must be one of trials, epochs; got 'seconds'."):
        study.best_so_far("seconds")  # type: ignore[arg-type]


class Scored(BaseEstimator):
    """An estimator whose score is known; one that raises where a is 3."""

    def __init__(self, a: int = 0, b: str = "") -> None:
        self.a, self.b = a, b

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> Scored:
        if self.a == 3:
            raise ValueError("3 is not for me")
        return self

    def score(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        return float(abs(self.a - 1) + (self.b == "y") + inputs.mean() * (self.b != "z"))


@pytest.mark.parametrize("maximise", [False, True])
def test_the_table_is_scikit_learns(maximise: bool) -> None:
    inputs, labels, cv = np.arange(7.0)[:, None] ** 2, np.zeros(7), KFold(3)
    grid = {"a": [0, 1, 2, 3], "b": ["x", "y", "z"]}
    scoring = None if maximise else lambda estimator, *data: -estimator.score(*data)
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        theirs = GridSearchCV(Scored(), grid, cv=cv, refit=False, scoring=scoring).fit(inputs, labels).cv_results_

    def objective(config: Config) -> list[float]:
        net = Scored(**config).fit(inputs, labels)
        return [net.score(inputs[part], labels[part]) for _, part in cv.split(inputs)]

    space = Space({"a": Int(0, 3), "b": Choice("x", "y", "z")})
    study = Study(space, maximise=maximise).run(objective, Listed(list(ParameterGrid(grid))), budget=99)
    table = study.table()
    assert set(theirs) - set(table) == {"std_fit_time", "mean_score_time", "std_score_time"}
    assert table["params"].tolist() == theirs["params"]
    assert table["rank_test_score"].tolist() == theirs["rank_test_score"].tolist()
    assert len(set(table["rank_test_score"])) < 10  # some are equal
    for name in ("param_a", "param_b"):
        assert table[name].tolist() == theirs[name].tolist()
    sign = 1 if maximise else -1
    for name in ("split0_test_score", "split1_test_score", "split2_test_score", "mean_test_score"):
        np.testing.assert_allclose(table[name], sign * theirs[name])
    np.testing.assert_allclose(table["std_test_score"], theirs["std_test_score"], atol=1e-12)
    assert (table["mean_fit_time"] > 0).all()
    assert table["status"].tolist() == ["done"] * 9 + ["failed"] * 3
    assert table["error"].tolist() == [""] * 9 + ["ValueError: 3 is not for me"] * 3
    assert table["number"].tolist() == list(range(12))
    assert table.loc[table["rank_test_score"].idxmin(), "number"] == study.best.number


def test_the_table_of_single_scores_has_no_splits() -> None:
    study = Study(LINE).run(lambda config, epochs: config["x"], given(0.5, 0.25), budget=2, epochs=3)
    study.ask(Random(0))
    table = study.table()
    assert list(table.columns) == [
        *("number", "status", "param_x", "params", "mean_test_score", "std_test_score", "rank_test_score"),
        *("mean_fit_time", "epochs", "spent", "error"),
    ]
    assert table["rank_test_score"].tolist() == [2, 1, 3]
    assert table["spent"].tolist() == [3, 3, 0]
    assert pd.isna(table.loc[2, "mean_test_score"])
    assert len(Study(LINE).table()) == 0


# --- the budget -------------------------------------------------------------------------------------------------


def test_a_budget_in_trials_counts_all_runs(place: Path | None) -> None:
    study = Study(LINE, path=place)
    calls: list[float] = []

    def objective(config: Config) -> float:
        calls.append(config["x"])
        if len(calls) == 2:
            raise ValueError
        return config["x"]

    assert study.run(objective, Random(0), budget=3) is study
    study.run(objective, Random(0), budget=3)
    assert len(calls) == 3
    study.ask(Random(0))  # asked by hand: counted as well
    study.run(objective, Random(0), budget=6, batch=None)
    assert len(calls) == 5
    assert len(study.trials) == 6
    assert len(set(calls)) == 5


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("method", "settings"),
    [(Random(0), {"epochs": 7}), (Hyperband(most=9), {}), (ASHA(most=9), {}), (Grid(3), {"epochs": 4})],
)
@pytest.mark.parametrize("budget", [7, 20, 59, 100])
def test_a_budget_in_epochs_is_never_overspent(method: Method, settings: Any, budget: int, batch: int) -> None:
    trained = []

    def objective(configs: list[Config], epochs: int) -> list[float]:
        trained.extend([epochs] * len(configs))
        assert len(configs) <= batch
        return [bowl(config, epochs) for config in configs]

    study = Study(SPACE).run(objective, method, budget=budget, unit="epochs", batch=batch, **settings)
    assert sum(trained) == sum(trial.spent for trial in study.trials) <= budget
    assert sum(trained) > budget - 9  # no more is left than one trial needs
    assert {trial.status for trial in study.trials} == {"done"}


def test_a_budget_in_trials_is_kept_by_batches() -> None:
    sizes = []

    def objective(configs: list[Config]) -> Iterator[float]:
        sizes.append(len(configs))
        return (config["x"] for config in configs)

    study = Study(LINE).run(objective, Random(0), budget=10, batch=4)
    assert sizes == [4, 4, 2]
    assert all(trial.value == trial.config["x"] for trial in study.trials)
    assert timeless(study.trials) == timeless(Study(LINE).run(x_of, Random(0), budget=10).trials)


def test_a_batch_of_different_epochs_is_called_once_for_each() -> None:
    study = Study(LINE)
    for value in (0.3, 0.1, 0.2):
        trial = study.ask(ASHA(most=9))
        assert trial is not None
        study.tell(trial.number, value)
    calls = []

    def objective(configs: list[Config], epochs: int) -> list[float]:
        calls.append((len(configs), epochs))
        return [1.0] * len(configs)

    study.run(objective, ASHA(most=9), budget=6, batch=3)
    assert calls == [(1, 3), (2, 1)]
    assert [trial.epochs for trial in study.trials[3:]] == [3, 1, 1]


def test_a_budget_below_one_trial_is_refused(place: Path | None) -> None:
    study = Study(LINE, path=place)
    with pytest.raises(ValueError, match="budget must be 20 epochs or more, for one trial; got 19."):
        study.run(bowl, Random(0), budget=19, unit="epochs", epochs=20)
    with pytest.raises(ValueError, match="epochs is needed: the budget is in epochs, and the method does not say"):
        study.run(bowl, Random(0), budget=19, unit="epochs")
    assert study.trials == ()
    study.run(lambda config, epochs: 0.0, Random(0), budget=20, unit="epochs", epochs=20)
    study.run(lambda config, epochs: 0.0, Random(0), budget=19, unit="epochs", epochs=20)  # spent, not too small
    assert len(study.trials) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"budget": 0}, ValueError, "budget must be 1 or more; got 0."),
        ({"budget": 2.0}, TypeError, "budget must be a whole number; got 2.0."),
        ({"budget": True}, TypeError, "budget must be a whole number; got True."),
        ({"budget": None}, TypeError, "budget must be a whole number; got None."),
        ({"unit": "seconds"}, ValueError, "unit must be one of trials, epochs; got 'seconds'."),
        ({"epochs": 0}, ValueError, "epochs must be 1 or more; got 0."),
        ({"epochs": 1.5}, TypeError, "epochs must be a whole number; got 1.5."),
        ({"batch": 0}, ValueError, "batch must be 1 or more; got 0."),
        ({"batch": "2"}, TypeError, "batch must be a whole number; got '2'."),
        ({"limit": 0}, ValueError, "limit must be above 0 seconds; got 0."),
        ({"limit": math.nan}, ValueError, "limit must be above 0 seconds; got nan."),
        ({"objective": 0.5}, TypeError, "objective must be callable; got 0.5."),
    ],
)
def test_other_arguments_out_of_range_are_refused(arguments: dict[str, Any], error: Any, sentence: str) -> None:
    study = Study(LINE)
    with pytest.raises(error, match=sentence):
        study.run(**{"objective": x_of, "method": Random(0), "budget": 3, **arguments})
    assert study.trials == ()


def test_what_is_no_space_is_refused() -> None:
    with pytest.raises(TypeError, match="space must be a Space; got {'x': "):
        Study({"x": Float(0, 1)})  # type: ignore[arg-type]


# --- what an objective gives ------------------------------------------------------------------------------------

GIVEN: list[tuple[Any, tuple[float, ...] | str]] = [
    (2, (2.0,)),
    (Fraction(1, 2), (0.5,)),
    (np.float32(0.25), (0.25,)),
    ([1, 2.0, 6], (1.0, 2.0, 6.0)),
    ((0.5,), (0.5,)),
    (np.array([1.0, 2.0]), (1.0, 2.0)),
    (pd.Series([3.0, 4.0]), (3.0, 4.0)),
    (math.nan, "gave nan, where a finite number is needed"),
    (-math.inf, "gave -inf, where a finite number is needed"),
    ([1.0, math.inf], "gave [1.0, inf], where a finite number is needed"),
    ([math.inf, -math.inf], "gave [inf, -inf], where a finite number is needed"),
    ([1e308, 1e308], "gave [1e+308, 1e+308], where a finite number is needed"),
    ("0.5", "gave '0.5', where a number is needed"),
    (["0.5"], "gave ['0.5'], where a number is needed"),
    (None, "gave None, where a number is needed"),
    ([], "gave [], where a number is needed"),
    ([[1.0], [1.0, 2.0]], "gave [[1.0], [1.0, 2.0]], where a number is needed"),
    ([1.0, None], "gave [1.0, None], where a number is needed"),
    ({"loss": 1.0}, "gave {'loss': 1.0}, where a number is needed"),
    (1j, "gave 1j, where a number is needed"),
    (KeyError("loss"), "KeyError: 'loss'"),
]


@pytest.mark.parametrize(("result", "wanted"), GIVEN, ids=lambda value: repr(value)[:30])
def test_a_result_is_judged(result: Any, wanted: tuple[float, ...] | str, place: Path | None) -> None:
    study = Study(LINE, path=place).run(lambda config: result if config["x"] else 7.0, given(1, 0), budget=2)
    first, second = study.trials
    if isinstance(wanted, str):
        assert (first.status, first.error, first.value, first.scores) == ("failed", wanted, None, ())
    else:
        assert (first.status, first.error, first.scores) == ("done", "", wanted)
        assert first.value == pytest.approx(sum(wanted) / len(wanted))
    assert second.value == 7.0  # the study went on
    asked = Study(LINE)
    asked.ask(given(1))
    assert replace(asked.tell(0, result), seconds=first.seconds) == first


def test_a_whole_number_too_large_for_a_float_fails() -> None:
    study = Study(LINE).run(lambda config: 10**400, given(1), budget=1)
    assert study.trials[0].status == "failed"
    assert study.trials[0].error.endswith(", where a finite number is needed")


def test_an_objective_that_raises_spoils_its_own_trial_only() -> None:
    def objective(config: Config) -> float:
        return 1 / (config["x"] - 0.5)

    study = Study(LINE).run(objective, given(0, 0.5, 1), budget=9)
    assert [(trial.status, trial.value) for trial in study.trials] == [("done", -2), ("failed", None), ("done", 2)]
    assert study.trials[1].error.startswith("ZeroDivisionError: ")


def test_an_objective_may_take_epochs_and_change_what_it_is_given() -> None:
    def objective(config: Config, epochs: int) -> float:
        config["x"] += epochs
        return config["x"]

    study = Study(LINE).run(objective, given(0.25, 0.5), budget=2, epochs=3)
    assert [(trial.config["x"], trial.value) for trial in study.trials] == [(0.25, 3.25), (0.5, 3.5)]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ([1.0], "TypeError: gave [1.0] for 2 configurations"),
        ([1.0, 2.0, 3.0], "TypeError: gave [1.0, 2.0, 3.0] for 2 configurations"),
        (0.5, "TypeError: gave 0.5 for 2 configurations"),
        (None, "TypeError: gave None for 2 configurations"),
        (OSError("disk"), "OSError: disk"),
    ],
)
def test_a_batch_with_a_wrong_number_of_results_fails(result: Any, error: str) -> None:
    study = Study(LINE).run(lambda configs: result, Random(0), budget=2, batch=2)
    assert [(trial.status, trial.error) for trial in study.trials] == [("failed", error)] * 2


def test_a_batch_fails_one_by_one() -> None:
    def objective(configs: list[Config]) -> Any:
        return np.array([config["x"] if config["x"] != 0.5 else math.nan for config in configs])

    study = Study(LINE).run(objective, given(0.25, 0.5, 0.75), budget=3, batch=3)
    assert [trial.value for trial in study.trials] == [0.25, None, 0.75]

    def lazily(configs: list[Config]) -> Iterator[float]:
        for config in configs:
            yield 1 / (config["x"] - 0.5)

    study = Study(LINE).run(lazily, given(0.25, 0.5, 0.75), budget=3, batch=3)
    assert [trial.error for trial in study.trials] == ["ZeroDivisionError: float division by zero"] * 3


def test_on_trial_is_called_after_each() -> None:
    seen: list[Trial] = []
    study = Study(LINE).run(x_of, given(0.5, 0.25), budget=2, on_trial=seen.append)
    assert tuple(seen) == study.trials


def test_seconds_are_those_of_the_call() -> None:
    def slow(config: Config) -> float:
        time.sleep(0.05)
        return 1.0

    began = time.perf_counter()
    study = Study(LINE).run(slow, Random(0), budget=2)
    assert 0.1 <= sum(trial.seconds for trial in study.trials) <= time.perf_counter() - began


# --- limits and interruptions -----------------------------------------------------------------------------------


def test_an_objective_that_hangs_is_left_behind(place: Path | None) -> None:
    release = threading.Event()

    def objective(config: Config) -> float:
        if config["x"] == 0.5:
            release.wait(60)
        return config["x"]

    began = time.monotonic()
    study = Study(LINE, path=place).run(objective, given(0.25, 0.5, 0.75), budget=9, limit=0.2)
    assert time.monotonic() - began < 10
    assert [trial.status for trial in study.trials] == ["done", "timed out", "done"]
    hung = study.trials[1]
    assert (hung.error, hung.value) == ("took longer than its limit of 0.2 seconds", None)
    assert hung.seconds >= 0.2
    before = study.trials
    release.set()  # what it gives now is not listened to
    for thread in threading.enumerate():
        if thread.name == "objective":
            thread.join(10)
    assert study.trials == before


def test_an_objective_that_is_late_is_told_to_stop() -> None:
    stopped = threading.Event()

    def objective(config: Config, cancel: threading.Event) -> float:
        if config["x"] == 0.5 and cancel.wait(60):
            stopped.set()
        return config["x"]

    study = Study(LINE).run(objective, given(0.25, 0.5, 0.75), budget=9, limit=0.2)
    assert [trial.status for trial in study.trials] == ["done", "timed out", "done"]
    assert stopped.wait(10)


def test_a_batch_that_is_late_is_late_for_all() -> None:
    release = threading.Event()
    study = Study(LINE).run(lambda configs: release.wait(60), Random(0), budget=3, batch=3, limit=0.1)
    release.set()
    assert [trial.status for trial in study.trials] == ["timed out"] * 3


def test_within_its_limit_nothing_changes() -> None:
    limited = Study(SPACE).run(bowl, Random(0), budget=5, limit=60)
    assert timeless(limited.trials) == timeless(Study(SPACE).run(bowl, Random(0), budget=5).trials)


def test_cancel_between_calls_asks_no_more() -> None:
    cancel = threading.Event()

    def look(trial: Trial) -> None:
        if trial.number == 2:
            cancel.set()

    study = Study(LINE).run(x_of, Random(0), budget=9, cancel=cancel, on_trial=look)
    assert [trial.status for trial in study.trials] == ["done"] * 3
    study.run(x_of, Random(0), budget=9, cancel=cancel)
    assert len(study.trials) == 3


@pytest.mark.parametrize("batch", [None, 2])
def test_cancel_loses_what_is_under_way(place: Path | None, batch: int | None) -> None:
    cancel = threading.Event()

    def objective(config: Any, cancel: threading.Event) -> Any:
        threading.Timer(0.05, outer.set).start()
        assert cancel.wait(60)
        return 1.0 if batch is None else [1.0] * batch

    outer = cancel
    study = Study(LINE, path=place).run(objective, Random(0), budget=6, cancel=cancel, batch=batch)
    assert [(trial.status, trial.error) for trial in study.trials] == [("lost", "")] * (batch or 1)
    lost = [trial.config for trial in study.trials]
    study.run(x_of, Random(0), budget=6)  # lost ones do not count, and are tried again
    assert [trial.config for trial in study.trials if trial.status == "done"][: len(lost)] == lost
    assert sum(trial.status == "done" for trial in study.trials) == 6


def test_with_cancel_that_nobody_sets_nothing_changes() -> None:
    def objective(config: Config, cancel: threading.Event) -> float:
        return float(not cancel.is_set())

    study = Study(LINE).run(objective, Random(0), budget=3, cancel=threading.Event())
    assert [trial.value for trial in study.trials] == [1.0] * 3


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("settings", [{}, {"limit": 60}, {"batch": 3}], ids=["", "limit", "batch"])
def test_an_interrupted_search_goes_on(place: Path | None, interrupt: Any, settings: Any) -> None:
    calls: list[Config] = []

    def objective(given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise interrupt
        return [bowl(config) for config in given] if "batch" in settings else bowl(given)

    study = Study(SPACE, path=place)
    with pytest.raises(interrupt):
        study.run(objective, Random(0), budget=9, **settings)
    size = settings.get("batch", 1)
    assert [trial.status for trial in study.trials] == ["done"] * 2 * size + ["lost"] * size
    study.run(objective, Random(0), budget=9, **settings)
    done = [trial for trial in study.trials if trial.status == "done"]
    whole = Study(SPACE).run(bowl, Random(0), budget=9)
    assert [(trial.config, trial.value) for trial in done] == [(trial.config, trial.value) for trial in whole.trials]


def test_an_interrupt_from_outside_tells_the_objective_to_stop() -> None:
    stopped = threading.Event()

    def objective(config: Config, cancel: threading.Event) -> float:
        signal.raise_signal(signal.SIGINT)  # Ctrl-C; Python gives it to the main thread
        if cancel.wait(60):
            stopped.set()
        return 1.0

    study = Study(LINE)
    with pytest.raises(KeyboardInterrupt):
        study.run(objective, Random(0), budget=3, limit=60)
    assert stopped.wait(10)
    assert [trial.status for trial in study.trials] == ["lost"]


def test_an_error_of_the_caller_loses_what_is_under_way() -> None:
    def complain(trial: Trial) -> None:
        raise RuntimeError("the disk of the plot is full")

    study = Study(LINE)
    with pytest.raises(RuntimeError, match="the disk of the plot is full"):
        study.run(lambda configs: [0.0] * len(configs), Random(0), budget=3, batch=3, on_trial=complain)
    assert [trial.status for trial in study.trials] == ["done", "lost", "lost"]


# --- files ------------------------------------------------------------------------------------------------------

METHODS: list[tuple[Method, int, dict[str, Any]]] = [
    (Random(1), 12, {}),
    (Sobol(1), 12, {}),
    (Grid(2, order="shuffled", seed=1), 12, {}),
    (Grid(2), 99, {}),
    (Hyperband(most=9, seed=1), 60, {"unit": "epochs"}),
    (ASHA(most=9, seed=1), 60, {"unit": "epochs"}),
    (Bayes(seed=1), 12, {}),
]


@pytest.mark.parametrize(("method", "budget", "settings"), METHODS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("parts", [2, 5])
def test_a_resumed_study_is_the_whole_one(path: Path, method: Method, budget: int, settings: Any, parts: int) -> None:
    def objective(config: Config, epochs: int = 1) -> float:
        if config["width"] == 5:
            raise ValueError("five")
        return bowl(config, epochs)

    whole = Study(SPACE).run(objective, method, budget=budget, **settings)
    for part in range(1, parts + 1):
        resumed = Study(SPACE, path=path)
        resumed.run(objective, method, budget=math.ceil(budget * part / parts), **settings)
    assert timeless(resumed.trials) == timeless(whole.trials)
    assert Study(SPACE, path=path).trials == resumed.trials
    kinds = [(type(value), value) for trial in resumed.trials for value in trial.config.values()]
    assert kinds == [(type(value), value) for trial in whole.trials for value in trial.config.values()]
    assert resumed.best.config == whole.best.config


def test_looking_makes_no_file(path: Path) -> None:
    assert Study(LINE, path=str(path)).trials == ()
    assert not path.exists()
    Study(LINE, path=str(path)).ask(Random(0))
    assert [child.name for child in path.parent.iterdir()] == ["study.sqlite"]


@pytest.fixture
def filled(path: Path) -> Path:
    study = Study(SPACE, path=path).run(lambda config: [bowl(config)] * 5, Random(0), budget=60)
    study.ask(Random(0))
    return path


def refused(path: Path, error: type[Exception], sentence: str, space: Space = SPACE, maximise: bool = False) -> None:
    """The file cannot be taken up, and its bytes and its folder stay as they are."""
    before = {child.name: child.read_bytes() for child in path.parent.iterdir()}
    with pytest.raises(error, match=sentence) as caught:
        Study(space, maximise=maximise, path=path)
    assert "\n" not in str(caught.value)
    assert {child.name: child.read_bytes() for child in path.parent.iterdir()} == before


def test_another_space_is_refused(filled: Path) -> None:
    def changed(**parameters: Any) -> Space:
        return Space({**SPACE.parameters, **parameters})

    sentence = "space is another than that of the study in .*study.sqlite, which differs in {}: give the same space, or"
    refused(filled, ValueError, sentence.format("width"), changed(width=Int(1, 10)))
    refused(filled, ValueError, sentence.format("lr, width"), changed(lr=Float(1e-3, 1), width=Int(1, 9, log=True)))
    refused(filled, ValueError, sentence.format("depth"), changed(depth=Int(1, 2)))
    refused(
        filled, ValueError, sentence.format("width"), Space({name: SPACE.parameters[name] for name in ("lr", "method")})
    )
    refused(filled, ValueError, sentence.format("their order"), Space(dict(reversed(list(SPACE.parameters.items())))))
    refused(filled, ValueError, sentence.format("method"), changed(method=Choice("adam", "sgd", None, 1, True)))
    assert len(Study(changed(lr=Float(0.001, 1.0, log=True)), path=filled).trials) == 61


def test_another_direction_is_refused(filled: Path) -> None:
    refused(filled, ValueError, "maximise is True, and the study in .*study.sqlite minimises.", maximise=True)
    other = filled.with_name("other.sqlite")
    Study(SPACE, maximise=True, path=other).ask(Random(0))
    refused(other, ValueError, "maximise is False, and the study in .*other.sqlite maximises.")


def test_of_two_that_begin_one_file_with_other_spaces_the_second_is_refused(path: Path) -> None:
    first, second = Study(LINE, path=path), Study(STEPS, path=path)
    first.ask(Random(0))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="which differs in x: "):
        second.ask(Random(0))
    assert path.read_bytes() == before


def test_another_programs_file_is_refused(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE trials (number INTEGER)")
    other.commit()
    other.close()
    refused(path, StudyError, "is an SQLite file of another program, not a study: give path another file.")
    path.write_text("number,config\n" * 50)
    refused(
        path, StudyError, r"is damaged or not a study \(it is not an SQLite file\): move it away, or give path another"
    )


def test_a_board_is_no_study(path: Path) -> None:
    assert board.clear(path=path) == 0
    refused(path, StudyError, "another program, not a study")


def test_a_damaged_study_is_refused(filled: Path) -> None:
    data = filled.read_bytes()
    assert len(data) > 3 * 4096
    for damaged in (data[:-4096], data[:-100], data[:4096] + b"\x00" * 4096 + data[8192:]):
        filled.write_bytes(damaged)
        refused(filled, StudyError, "is damaged or not a study")


@pytest.mark.parametrize(
    "change",
    [
        "config = '{\"lr\": 0.1'",
        "config = '5'",
        "scores = '5'",
        "status = 'dne'",
        "worker = 'nobody'",
        "worker = (SELECT replace(worker, ' ', ' x') FROM trials WHERE number = 60)",
    ],
)
def test_a_trial_that_is_damaged_is_refused(filled: Path, change: str) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute(f"UPDATE trials SET {change} WHERE number = 60")
    connection.close()
    refused(filled, StudyError, "is damaged or not a study .*cannot be read")


def test_flipped_bytes_never_crash_and_are_never_written_over(filled: Path) -> None:
    data, dice = filled.read_bytes(), random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(8):
            changed[dice.randrange(len(data))] ^= dice.randrange(1, 256)
        filled.write_bytes(changed)
        try:
            outcomes["read"] += len(Study(SPACE, path=filled).trials) >= 0
        except StudyError as error:
            assert "give path" in str(error)
            outcomes["refused"] += 1
        except ValueError as error:
            assert "in " + str(filled) in str(error)
            outcomes["another space"] += 1
        assert filled.read_bytes() == changed
    assert outcomes["refused"] > 10


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match="The study's folder .*absent does not exist: make it, or give path a file in a"
    ):
        Study(LINE, path=tmp_path / "absent" / "study.sqlite")
    with pytest.raises(StudyError, match="The study's path .* is a folder: give a file in it"):
        Study(LINE, path=tmp_path)


# --- several processes, and killed ones -------------------------------------------------------------------------


def search_together(path: Path, space: Space, method: Method, budget: int, start: Any) -> None:
    def objective(config: Config) -> float:
        time.sleep(0.01)
        return os.getpid()

    study = Study(space, path=path)
    start.wait(60)
    study.run(objective, method, budget=budget)


@pytest.mark.parametrize(
    ("method", "budget", "wanted"),
    [(Grid(6, order="shuffled"), 99, 36), (Random(0), 30, 30)],
    ids=["grid", "random"],
)
def test_processes_at_once_share_one_study(path: Path, method: Method, budget: int, wanted: int) -> None:
    space = Space({"x": Float(0, 1), "y": Int(1, 6)})
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    workers = [context.Process(target=search_together, args=(path, space, method, budget, start)) for _ in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(60)
    assert [process.exitcode for process in workers] == [0, 0]
    trials = Study(space, path=path).trials
    assert [trial.number for trial in trials] == list(range(wanted))
    assert {trial.status for trial in trials} == {"done"}
    assert {trial.value for trial in trials} == {process.pid for process in workers}  # both had their share
    assert len({key(trial.config) for trial in trials}) == wanted


DYING = """
import sys, time
from kit.search import Choice, Float, Grid, Random, Space, Study

def objective(config):
    calls.append(config)
    if len(calls) == 4:
        print("under way", flush=True)
        time.sleep(600)
    return config["x"]

calls = []
space = Space({"x": Float(0, 1), "y": Choice("a", True, 1)})
Study(space, path=sys.argv[1]).run(objective, eval(sys.argv[2]), budget=9)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("method", [Grid(3), Random(3)], ids=lambda value: type(value).__name__)
def test_a_trial_whose_process_was_killed_is_lost_and_tried_again(path: Path, method: Method) -> None:
    space = Space({"x": Float(0, 1), "y": Choice("a", True, 1)})
    process = subprocess.Popen(
        [sys.executable, "-c", DYING, str(path), repr(method)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "under way\n"
        study = Study(space, path=path)
        assert [trial.status for trial in study.trials] == ["done"] * 3 + ["asked"]
        study.run(x_of, method, budget=6)  # beside it
        process.kill()
        deadline = time.monotonic() + 10
        while study.trials[3].status == "asked" and time.monotonic() < deadline:  # dead, if not buried yet
            time.sleep(0.01)
        assert [trial.status for trial in study.trials] == ["done"] * 3 + ["lost"] + ["done"] * 2
        assert process.wait(10) == -signal.SIGKILL
    with pytest.raises(ValueError, match="number must be that of a trial not told yet; trial 3 is lost."):
        study.tell(3, 1.0)
    lost = study.trials[3]
    study.run(x_of, method, budget=9)
    done = [trial for trial in study.trials if trial.status == "done"]
    assert study.trials[3] == lost
    assert len(done) == 9
    whole = Study(space).run(x_of, method, budget=9)
    assert Counter(key(trial.config) for trial in done) == Counter(key(trial.config) for trial in whole.trials)
    assert key(lost.config) in {key(trial.config) for trial in done}


def test_threads_share_one_study(place: Path | None) -> None:
    study = Study(STEPS, path=place)
    threads = [threading.Thread(target=study.run, args=(x_of, Grid(10)), kwargs={"budget": 99}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(trial.config["x"] for trial in study.trials) == list(range(10))
    assert {trial.status for trial in study.trials} == {"done"}


def test_a_locked_study_is_waited_for(path: Path) -> None:
    study = Study(LINE, path=path)
    study.ask(Random(0))
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release: Callable[[], None] = holder.close
    timer = threading.Timer(0.2, release)
    timer.start()
    began = time.monotonic()
    study.tell(0, 1.0)
    assert time.monotonic() - began > 0.1
    timer.join()
    assert study.best.value == 1.0


# what a newcomer gave by mistake


@pytest.mark.parametrize("method", ["random", None, Random])
def test_what_is_no_method_is_refused(method: Any) -> None:
    for call in (lambda: Study(LINE).run(lambda config: 0.0, method, budget=1), lambda: Study(LINE).ask(method)):
        with pytest.raises(TypeError, match=r"method must be one such as Random\(seed=0\).*; got "):
            call()


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"limit": "5"}, ValueError, "limit must be above 0 seconds; got '5'"),
        ({"on_trial": 3}, TypeError, "on_trial must be callable; got 3"),
        ({"cancel": True}, TypeError, "cancel must be a threading.Event; got True"),
        ({"epochs": 2}, TypeError, "objective must have a parameter epochs: its trials are trained for 2 epochs here"),
    ],
)
def test_what_a_run_cannot_use_is_refused(settings: dict[str, Any], error: type[Exception], sentence: str) -> None:
    study = Study(LINE)
    with pytest.raises(error, match=sentence):
        study.run(lambda config: 0.0, Random(), budget=1, **settings)
    assert not [trial for trial in study.trials if trial.status not in ("lost",)]


def test_an_objective_of_any_keywords_takes_epochs() -> None:
    study = Study(LINE).run(lambda config, **settings: settings["epochs"], Random(), budget=1, epochs=3)
    assert study.best.value == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"spent": "x"}, "spent must be a whole number; got 'x'"),
        ({"spent": -100}, "spent must be 0 or more; got -100"),
        ({"seconds": "x"}, "seconds must be a number, 0 or more; got 'x'"),
        ({"seconds": float("nan")}, "seconds must be a number, 0 or more; got nan"),
    ],
)
def test_a_wrong_cost_is_not_written_down(settings: dict[str, Any], sentence: str) -> None:
    study = Study(LINE)
    trial = study.ask(Random())
    assert trial is not None
    with pytest.raises((TypeError, ValueError), match=sentence):
        study.tell(trial.number, 1.0, **settings)
    assert study.trials[0].status == "asked"


def test_a_trial_is_told_by_its_number_and_asked_for_whole_epochs() -> None:
    study = Study(LINE)
    trial = study.ask(Random())
    with pytest.raises(TypeError, match="number must be a whole number; got Trial"):
        study.tell(trial, 1.0)  # type: ignore[arg-type]
    for wrong, sentence in (("seven", "epochs must be a whole number; got 'seven'"), (-1, "epochs must be 1 or more")):
        with pytest.raises((TypeError, ValueError), match=sentence):
            study.ask(Random(), epochs=wrong)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match=sentence):
            study.enqueue({"x": 0.5}, epochs=wrong)  # type: ignore[arg-type]
    assert len(study.trials) == 1


def test_texts_are_no_switches_and_numbers_no_paths() -> None:
    with pytest.raises(TypeError, match="maximise must be True or False; got 'no'"):
        Study(LINE, maximise="no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path must be a path or None; got 3"):
        Study(LINE, path=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="log must be True or False; got 'yes'"):
        Float(1, 2, log="yes")  # type: ignore[arg-type]


def test_a_batch_answered_by_a_dict_fails() -> None:
    study = Study(LINE).run(lambda configs: {0: 1.0, 1: 2.0}, Random(), budget=2, batch=2)
    assert [trial.status for trial in study.trials] == ["failed", "failed"]
