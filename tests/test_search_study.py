"""The one loop: what is asked, told, kept, resumed and refused."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import platform
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid

from kit import board
from kit.measure import Estimate
from kit.search import ASHA, Bayes, Choice, Config, Float, Grid, Hyperband, Int, Listed, Random, Sobol, Space, Study
from kit.search.halving import SuccessiveHalving
from kit.search.space import key
from kit.search.study_file import STORE, StudyError, _read
from kit.search.trials import Method, Proposal, Trial
from kit.store import Store
from tests.searches import ask

LINE = Space({"x": Float(0, 1)})
SPACE = Space({"lr": Float(1e-3, 1, log=True), "width": Int(1, 9), "method": Choice("adam", "sgd", None, True, 1)})
STEPS = Space({"x": Int(0, 9)})


def given(*values: float) -> Listed:
    return Listed([{"x": value} for value in values])


def x_of(config: Config) -> float:
    return config["x"]


def bowl(config: Config, epochs: int = 1) -> float:
    """A number that depends on all parameters."""
    steps = (math.log10(config["lr"]) + 2) ** 2 + abs(config["width"] - 4)
    return steps + 0.5 * (config["method"] == "sgd") + 1 / epochs


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
    first, second = ask(study, Random(0)), ask(study, Random(0), epochs=5)
    assert first == Trial(0, first.config)
    assert second == Trial(1, second.config, epochs=5, spent=5)
    assert SPACE.check(first.config) == first.config != second.config
    told = replace(second, status="done", value=0.375, scores=(0.5, 0.25), seconds=2.5)
    assert study.tell(1, [0.5, Fraction(1, 4)], seconds=2.5) == told
    failed = replace(first, status="failed", error="RuntimeError: no luck", spent=3)
    assert study.tell(0, RuntimeError("no luck"), spent=3) == failed
    assert repr(study) == "Study(lr, width, method: 1 failed, 1 done)"
    assert repr(Study(SPACE)) == "Study(lr, width, method: no trials)"
    for number, sentence in ((1, "not told yet; trial 1 is done."), (7, "that was asked; 7 never was.")):
        for result in (2.0, RuntimeError("late")):
            with pytest.raises(ValueError, match=f"number must be that of a trial {sentence}"):
                study.tell(number, result)
    assert study.trials == (failed, told)


def test_your_own_configurations_are_trials_too(place: Path | None) -> None:
    study = Study(SPACE, path=place)
    mine = study.enqueue({"method": None, "width": np.int64(3), "lr": 1}, epochs=4)
    assert mine == Trial(0, {"lr": 1.0, "width": 3, "method": None}, "queued", epochs=4, spent=4)
    study.tell(mine.number, -5.0)
    assert len(study.run(bowl, Random(0), budget=4).trials) == 4
    assert study.best == study.trials[0]


QUEUED: list[Config] = [{"lr": 0.5, "width": 3, "method": True}, {"lr": 0.25, "width": 4, "method": "sgd"}]
ANY_METHOD = [Random(1), Sobol(1), Grid(2, order="shuffled"), Grid(2), Bayes(start=2), Listed([*QUEUED, *QUEUED[1:]])]
EARLY_STOPPING = [SuccessiveHalving(n=3, max_epochs=3), Hyperband(max_epochs=3), ASHA(max_epochs=3)]


@pytest.mark.parametrize("method", [*ANY_METHOD, *EARLY_STOPPING], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("before", [0, 3])
def test_what_is_enqueued_is_tried_first_by_every_method(path: Path, method: Method, before: int) -> None:
    """Also where the file was closed since; and it takes no more of the budget than other trials do."""
    epochs = None if method in EARLY_STOPPING else 1
    tried: list[tuple[Config, int]] = []

    def objective(config: Config, epochs: int) -> float:
        tried.append((config, epochs))
        return bowl(config, epochs)

    first = Study(SPACE, path=path)
    if before:
        first.run(objective, method, budget=before, epochs=epochs)
    for config in QUEUED:
        first.enqueue(config)
    study = Study(SPACE, path=path)
    assert [trial.status for trial in study.trials] == ["done"] * before + ["queued"] * 2
    study.run(objective, method, budget=before + 1, epochs=epochs)  # for one of them
    assert [trial.status for trial in study.trials] == ["done"] * (before + 1) + ["queued"]
    study.run(objective, method, budget=9, epochs=epochs)
    assert tried[before : before + 2] == [(config, 1) for config in QUEUED]
    assert {trial.status for trial in study.trials} == {"done"}
    most = {0: 3, 3: 5}[before] if isinstance(method, Listed) else 9  # what is listed and tried is not tried again
    assert len(tried) == len(study.trials) == most


def test_what_is_enqueued_is_tried_where_the_method_has_nothing_left(place: Path | None) -> None:
    study = Study(STEPS, path=place).run(x_of, Grid(10), budget=99)
    study.enqueue({"x": 3})
    assert ask(study, Grid(10)) == Trial(10, {"x": 3})
    assert study.ask(Grid(10)) is None


def test_what_is_enqueued_takes_a_place_in_the_first_rung(place: Path | None) -> None:
    study, method = Study(LINE, path=place), SuccessiveHalving(n=3, max_epochs=3)
    study.enqueue({"x": 0.0})  # the best
    study.enqueue({"x": 0.5}, epochs=2)  # of its own length: beside the bracket
    study.run(lambda config, epochs: config["x"], method, budget=5)
    assert [(trial.epochs, trial.bracket) for trial in study.trials] == [(1, 0), (2, None), (1, 0), (1, 0), (3, 0)]
    assert study.trials[4].continues == 0


@pytest.mark.parametrize("batch", [None, 2])
def test_what_is_enqueued_and_interrupted_is_queued_again(place: Path | None, batch: int | None) -> None:
    study, calls = Study(LINE, path=place), itertools.count()
    study.enqueue({"x": 0.25})

    def objective(given: Any) -> Any:
        if not next(calls):
            raise KeyboardInterrupt
        return x_of(given) if batch is None else list(map(x_of, given))

    with pytest.raises(KeyboardInterrupt):
        study.run(objective, Random(0), budget=3, batch=batch)
    assert [trial.status for trial in study.trials] == ["queued", "lost"][: batch or 1]
    study.run(objective, Random(0), budget=3, batch=batch)
    assert study.trials[0] == replace(study.trials[0], config={"x": 0.25}, status="done", value=0.25)
    assert sum(trial.status == "done" for trial in study.trials) == 3


def test_a_method_that_leaves_the_space_is_refused_and_nothing_stays_asked(place: Path | None) -> None:
    study = Study(LINE, path=place)
    with pytest.raises(ValueError, match="config: x must be a number from 0 to 1; got 2.0."):
        study.run(lambda configs: [0.0] * len(configs), given(0.5, 2.0), budget=9, batch=3)
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
    for count, why in enumerate(("", "", "; the last error: OSError: disk")):
        with pytest.raises(ValueError, match=f"no trial of {count} is done, so none is the best{why}.$"):
            _ = study.best
        study.ask(Random(0))
        if count == 1:
            study.tell(0, OSError("disk"))


def test_the_best_so_far_in_trials_and_in_epochs() -> None:
    study = Study(LINE, maximise=True)
    for epochs, value in ((4, 0.2), (1, math.nan), (2, 0.1), (8, 0.5), (3, 0.5), (1, 0.6)):
        study.tell(ask(study, Random(0), epochs=epochs).number, value)
    study.ask(Random(0), epochs=100)  # not told: neither better nor spent
    assert study.best_so_far() == ((1, 0.2), (4, 0.5), (6, 0.6))
    assert study.best_so_far("epochs") == ((4, 0.2), (15, 0.5), (19, 0.6))
    study.maximise = False
    assert study.best_so_far("epochs") == ((4, 0.2), (7, 0.1))
    assert Study(LINE).best_so_far() == ()


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
    for name in ("split0_test_score", "split1_test_score", "split2_test_score", "mean_test_score"):
        np.testing.assert_allclose(table[name], theirs[name] if maximise else -theirs[name])
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
    names = (
        "number status param_x params mean_test_score std_test_score rank_test_score mean_fit_time epochs spent error"
    )
    assert list(table.columns) == names.split()
    assert table["rank_test_score"].tolist() == [2, 1, 3]
    assert table["spent"].tolist() == [3, 3, 0]
    assert pd.isna(table.loc[2, "mean_test_score"])
    assert len(Study(LINE).table()) == 0
    waiting = Study(LINE)
    waiting.ask(Random(0))
    assert waiting.table()["mean_test_score"].dtype == float  # also where nobody has a value yet


# --- the budget -------------------------------------------------------------------------------------------------


def test_a_budget_in_trials_counts_all_runs(place: Path | None) -> None:
    study, calls = Study(LINE, path=place), set()

    def objective(config: Config) -> float:
        calls.add(config["x"])
        return 1 / (len(calls) != 2)  # the second one fails

    for _ in range(2):
        assert study.run(objective, Random(0), budget=3) is study
    study.ask(Random(0))  # asked by hand: counted as well
    study.run(objective, Random(0), budget=6, batch=None)
    assert len(calls) == 5
    assert [trial.status for trial in study.trials] == ["done", "failed", "done", "asked", "done", "done"]


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("method", "settings"),
    [(Random(0), {"epochs": 7}), (Hyperband(max_epochs=9), {}), (ASHA(max_epochs=9), {}), (Grid(3), {"epochs": 4})],
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
        return map(x_of, configs)

    study = Study(LINE).run(objective, Random(0), budget=10, batch=4)
    assert sizes == [4, 4, 2]
    assert timeless(study.trials) == timeless(Study(LINE).run(x_of, Random(0), budget=10).trials)


def test_a_batch_of_different_epochs_is_called_once_for_each() -> None:
    study, method, calls = Study(LINE), ASHA(max_epochs=9), []
    for value in (0.3, 0.1, 0.2):
        study.tell(ask(study, method).number, value)

    def objective(configs: list[Config], epochs: int) -> list[float]:
        calls.append((len(configs), epochs))
        return [1.0] * len(configs)

    study.run(objective, method, budget=6, batch=3)
    assert calls == [(1, 3), (2, 1)]
    assert [trial.epochs for trial in study.trials[3:]] == [3, 1, 1]


def test_a_budget_below_one_trial_is_refused(place: Path | None) -> None:
    study = Study(LINE, path=place)
    run = partial(study.run, lambda config, epochs: 0.0, Random(0), unit="epochs")
    with pytest.raises(ValueError, match="budget must be 20 epochs or more, for one trial; got 19."):
        run(budget=19, epochs=20)
    with pytest.raises(ValueError, match="epochs is needed: the budget is in epochs, and the method does not say"):
        run(budget=19)
    assert study.trials == ()
    run(budget=20, epochs=20)
    run(budget=19, epochs=20)  # spent, not too small
    assert len(study.trials) == 1


def running(**changes: Any) -> Callable[[Study], Study]:
    return lambda study: study.run(**{"objective": x_of, "method": Random(0), "budget": 3, **changes})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (running(budget=0), "budget must be 1 or more; got 0."),
        (running(budget=None), "budget must be a whole number; got None."),
        (running(unit="seconds"), "unit must be one of trials, epochs; got 'seconds'."),
        (running(epochs=0), "epochs must be 1 or more; got 0."),
        (running(batch=0), "batch must be 1 or more; got 0."),
        (running(limit=0), "limit must be above 0; got 0."),
        (running(limit="5"), "limit must be a number; got '5'"),
        (running(on_trial=3), "on_trial must be callable; got 3"),
        (running(cancel=True), "cancel must be a threading.Event; got True"),
        (running(objective=0.5), "objective must be callable; got 0.5."),
        (running(method=None), r"method must be one such as Random\(seed=0\).*; got None"),
        (lambda study: study.tell(0, 1.0, spent="x"), "spent must be a whole number; got 'x'"),
        (lambda study: study.tell(0, 1.0, spent=-100), "spent must be 0 or more; got -100"),
        (lambda study: study.tell(0, 1.0, seconds=math.nan), "seconds must be 0 or more; got nan"),
        (lambda study: study.tell(study.trials[0], 1.0), "number must be a whole number; got Trial"),
        (lambda study: study.ask(Random(), epochs="seven"), "epochs must be a whole number; got 'seven'"),
        (lambda study: study.ask(Random), r"method must be one such as Random\(seed=0\), with a propose of its own"),
        (lambda study: study.enqueue({"x": 0.5}, epochs=-1), "epochs must be 1 or more; got -1"),
        (lambda study: study.enqueue({"x": 2}), "config: x must be a number from 0 to 1; got 2."),
        (lambda study: study.best_so_far("seconds"), "unit must be one of trials, epochs; got 'seconds'."),
        (lambda study: Study({"x": Float(0, 1)}), "space must be a Space; got {'x': "),  # type: ignore[arg-type]
        (lambda study: Study(LINE, maximise="no"), "maximise must be True or False; got 'no'"),  # type: ignore[arg-type]
        (lambda study: Study(LINE, path=3), "path must be a path or None; got 3"),  # type: ignore[arg-type]
    ],
)
def test_what_no_study_can_be_told_is_not_written_down(call: Callable[[Study], Any], sentence: str) -> None:
    study = Study(LINE)
    asked = ask(study, Random())
    with pytest.raises((TypeError, ValueError), match=sentence):
        call(study)
    assert study.trials == (asked,)


# --- what an objective gives ------------------------------------------------------------------------------------


def shown(result: Any) -> str:
    """On one line, and short."""
    line = re.sub(r"\s+", " ", repr(result))
    return line[:77] + "..." if len(line) > 80 else line


SCORES: list[tuple[Any, tuple[float, ...]]] = [
    (2, (2.0,)),
    (Fraction(1, 2), (0.5,)),
    (np.float32(0.25), (0.25,)),
    (torch.tensor(0.25, requires_grad=True), (0.25,)),
    (torch.tensor([1.0, 2.0]), (1.0, 2.0)),
    (Estimate(0.5, 0.25, 0.75, n=9), (0.5,)),
    ((Estimate(0.5, 0.25, 0.75, n=9), 1), (0.5, 1.0)),
    (-0.0, (0.0,)),
    (1.7e308, (1.7e308,)),
    ([1, 2.0, 6], (1.0, 2.0, 6.0)),
    (np.array([1.0, 2.0]), (1.0, 2.0)),
    (pd.Series([3.0, 4.0]), (3.0, 4.0)),
]
INFINITE = [
    math.nan,
    -math.inf,
    [1.0, math.inf],
    [math.inf, -math.inf],
    [1e308, 1e308],
    10**400,
    Estimate(math.nan, 0.0, 1.0, n=9),
]
NO_NUMBERS: list[Any] = [
    "0.5",
    ["0.5"],
    None,
    [],
    [[1.0], [1.0, 2.0]],
    [1.0, None],
    {"loss": 1.0},
    1j,
    object,
    Float(0, 1),
]
NO_NUMBERS += [torch.ones(2, 2), torch.ones(1, device="meta"), {0.5}, np.array("0.5"), np.ones((2, 2)), iter([1.0])]
ERRORS = [
    (KeyError("loss"), "KeyError: 'loss'"),
    *((result, f"gave {shown(result)}, where a finite number is needed") for result in INFINITE),
    *((result, f"gave {shown(result)}, where a number is needed") for result in NO_NUMBERS),
]


@pytest.mark.parametrize(("result", "wanted"), [*SCORES, *ERRORS], ids=lambda value: repr(value)[:25])
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


def test_an_objective_may_change_what_it_is_given_and_each_trial_is_handed_on() -> None:
    def objective(config: Config, epochs: int) -> float:
        config["x"] += epochs
        return config["x"]

    seen: list[Trial] = []
    study = Study(LINE).run(objective, given(0.25, 0.5), budget=2, epochs=3, on_trial=seen.append)
    assert [(trial.config["x"], trial.value) for trial in study.trials] == [(0.25, 3.25), (0.5, 3.5)]
    assert tuple(seen) == study.trials


def test_a_batch_fails_one_by_one_or_where_its_results_are_not_one_each_all_together() -> None:
    def study(objective: Any, *values: float) -> Study:
        return Study(LINE).run(objective, given(*values), budget=9, batch=len(values))

    found = study(lambda configs: [x_of(each) if x_of(each) != 0.5 else math.nan for each in configs], 0.25, 0.5, 0.75)
    assert [trial.value for trial in found.trials] == [0.25, None, 0.75]
    found = study(lambda configs: (1 / (x_of(each) - 0.5) for each in configs), 0, 0.5)
    assert [trial.error for trial in found.trials] == ["ZeroDivisionError: float division by zero"] * 2
    for result in ([1.0], [1.0, 2.0, 3.0], 0.5, None, {0: 1.0, 1: 2.0}):
        error = f"TypeError: gave {result!r} for 2 configurations"
        found = study(lambda configs, result=result: result, 0, 0.5)
        assert [(trial.status, trial.error) for trial in found.trials] == [("failed", error)] * 2


@pytest.mark.parametrize("failures", [1, 3])
def test_an_objective_that_fails_from_the_first_trial_on_stops_the_search(place: Path | None, failures: int) -> None:
    wrong, heard = ValueError("too little data."), list[Trial]()

    def objective(config: Config) -> float:
        raise wrong

    study = Study(LINE, path=place)
    settings: Any = {} if failures == 3 else {"failures": failures}
    sentence = rf"^objective failed in each of {failures} trials, at last: ValueError: too little data; mend it, or go"
    for again in (1, 2):
        with pytest.raises(RuntimeError, match=rf"{sentence} on with failures=None\.$") as told:
            study.run(objective, Random(0), budget=20, on_trial=heard.append, **settings)
        assert told.value.__cause__ is wrong
        assert [trial.status for trial in study.trials] == ["failed"] * again * failures
    assert tuple(heard) == study.trials
    study.run(objective, Random(0), budget=20, failures=None)
    assert [trial.error for trial in study.trials] == ["ValueError: too little data."] * 20


@pytest.mark.parametrize("first", [math.nan, None])
def test_one_trial_that_is_done_shows_that_the_objective_works(first: Any) -> None:
    values = iter([first, first, 0.5, *[first] * 7])
    study = Study(LINE).run(lambda config: next(values), Random(0), budget=10)
    assert [trial.status for trial in study.trials] == [*["failed"] * 2, "done", *["failed"] * 7]
    with pytest.raises(RuntimeError, match=f"each of 3 trials, at last: gave {first}, where a") as told:
        Study(LINE).run(lambda config: first, Random(0), budget=10)
    assert told.value.__cause__ is None  # it raised nothing
    batches = iter([[first, first, first, 1.0], [first] * 4])
    study = Study(LINE).run(lambda configs: next(batches), Random(0), budget=8, batch=4)  # judged as a whole
    assert len(study.trials) == 8


def test_a_batch_of_failures_stops_the_search_and_nothing_stays_asked() -> None:
    study = Study(LINE)
    with pytest.raises(RuntimeError, match="each of 4 trials, at last: ZeroDivisionError: .*zero; mend it") as told:
        study.run(lambda configs: 1 / 0, Random(0), budget=20, batch=4)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert [trial.status for trial in study.trials] == ["failed"] * 4
    for failures in (0, 1.5):
        with pytest.raises((TypeError, ValueError), match=rf"^failures must be .*; got {failures}\.$"):
            study.run(x_of, Random(0), budget=9, failures=failures)  # type: ignore[arg-type]


# --- limits and interruptions -----------------------------------------------------------------------------------


def test_an_objective_that_hangs_is_left_behind(place: Path | None) -> None:
    release = threading.Event()

    def objective(config: Config) -> float:
        release.wait(60 if config["x"] == 0.5 else 0.05)
        return config["x"]

    began = time.perf_counter()
    study = Study(LINE, path=place).run(objective, given(0.25, 0.5, 0.75), budget=9, limit=0.3)
    assert sum(trial.seconds for trial in study.trials) <= time.perf_counter() - began < 10
    assert [trial.status for trial in study.trials] == ["done", "timed out", "done"]
    before, hung = study.trials, study.trials[1]
    assert (hung.error, hung.value) == ("took longer than its limit of 0.3 seconds", None)
    assert [trial.seconds >= least for trial, least in zip(before, (0.05, 0.3, 0.05), strict=True)] == [True] * 3
    release.set()  # what it gives now is not listened to
    for thread in threading.enumerate():
        if thread.name == "objective":
            thread.join(10)
    assert study.trials == before


@pytest.mark.parametrize("batch", [1, 3])
def test_an_objective_that_is_late_is_told_to_stop_and_all_of_its_batch_is_late(batch: int) -> None:
    stopped = threading.Event()

    def objective(configs: list[Config], cancel: threading.Event) -> list[float]:
        if {"x": 0.5} in configs and cancel.wait(60):
            stopped.set()
        return [config["x"] for config in configs]

    study = Study(LINE).run(objective, given(0.25, 0.5, 0.75), budget=9, batch=batch, limit=0.2)
    late = [0.5] if batch == 1 else [0.25, 0.5, 0.75]
    assert [trial.config["x"] for trial in study.trials if trial.status == "timed out"] == late
    assert stopped.wait(60)


@pytest.mark.parametrize("settings", [{"limit": 60}, {"cancel": threading.Event()}], ids=["limit", "cancel"])
def test_without_a_need_to_stop_nothing_changes(settings: Any) -> None:
    def objective(config: Config, cancel: threading.Event) -> float:
        return bowl(config) + cancel.is_set()

    found = Study(SPACE).run(objective, Random(0), budget=5, **settings)
    assert timeless(found.trials) == timeless(Study(SPACE).run(bowl, Random(0), budget=5).trials)


def test_cancel_between_calls_asks_no_more() -> None:
    cancel, study = threading.Event(), Study(LINE)

    def look(trial: Trial) -> None:
        if trial.number == 2:
            cancel.set()

    for _ in range(2):
        study.run(x_of, Random(0), budget=9, cancel=cancel, on_trial=look)
        assert [trial.status for trial in study.trials] == ["done"] * 3


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


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("settings", [{}, {"limit": 60}, {"batch": 3}], ids=["", "limit", "batch"])
def test_an_interrupted_search_goes_on(place: Path | None, interrupt: Any, settings: Any) -> None:
    calls, size, study = itertools.count(1), settings.get("batch", 1), Study(SPACE, path=place)

    def objective(given: Any) -> Any:
        if next(calls) == 3:
            raise interrupt
        return [bowl(config) for config in given] if "batch" in settings else bowl(given)

    with pytest.raises(interrupt):
        study.run(objective, Random(0), budget=9, **settings)
    assert [trial.status for trial in study.trials] == ["done"] * 2 * size + ["lost"] * size
    study.run(objective, Random(0), budget=9, **settings)
    done = [(trial.config, trial.value) for trial in study.trials if trial.status == "done"]
    assert done == [(trial.config, trial.value) for trial in Study(SPACE).run(bowl, Random(0), budget=9).trials]


def test_an_interrupt_from_outside_tells_the_objective_to_stop() -> None:
    study, stopped = Study(LINE), threading.Event()

    def objective(config: Config, cancel: threading.Event) -> float:
        signal.raise_signal(signal.SIGINT)  # Ctrl-C; Python gives it to the main thread
        if cancel.wait(60):
            stopped.set()
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        study.run(objective, Random(0), budget=3, limit=60)
    assert stopped.wait(60)
    assert [trial.status for trial in study.trials] == ["lost"]


def test_an_error_of_the_caller_loses_what_is_under_way() -> None:
    study, complain = Study(LINE), Mock(side_effect=RuntimeError("the disk of the plot is full"))
    with pytest.raises(RuntimeError, match="the disk of the plot is full"):
        study.run(lambda configs: [0.0] * len(configs), Random(0), budget=3, batch=3, on_trial=complain)
    assert [trial.status for trial in study.trials] == ["done", "lost", "lost"]


# --- files ------------------------------------------------------------------------------------------------------

METHODS: list[tuple[Method, int, dict[str, Any]]] = [
    (Random(1), 12, {}),
    (Sobol(1), 12, {}),
    (Grid(2, order="shuffled", seed=1), 12, {}),
    (Grid(2), 99, {}),
    (Hyperband(max_epochs=9, seed=1), 60, {"unit": "epochs"}),
    (ASHA(max_epochs=9, seed=1), 60, {"unit": "epochs"}),
    (Bayes(seed=1), 12, {}),
]


@pytest.mark.parametrize(("method", "budget", "settings"), METHODS, ids=lambda value: type(value).__name__)
def test_a_resumed_study_is_the_whole_one(path: Path, method: Method, budget: int, settings: Any) -> None:
    def objective(config: Config, epochs: int = 1) -> float:
        if config["width"] == 5:
            raise ValueError("five")
        return bowl(config, epochs)

    whole = Study(SPACE).run(objective, method, budget=budget, **settings)
    for part in (1, 2, 3):
        resumed = Study(SPACE, path=path)
        resumed.run(objective, method, budget=math.ceil(budget * part / 3), **settings)
    assert timeless(resumed.trials) == timeless(whole.trials)
    assert Study(SPACE, path=path).trials == resumed.trials
    kinds = [(type(value), value) for trial in resumed.trials for value in trial.config.values()]
    assert kinds == [(type(value), value) for trial in whole.trials for value in trial.config.values()]
    assert resumed.best.config == whole.best.config


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


def test_another_space_or_direction_is_refused(filled: Path) -> None:
    def changed(**parameters: Any) -> Space:
        return Space({**SPACE.parameters, **parameters})

    others = {
        "width": changed(width=Int(1, 10)),
        "lr, width": changed(lr=Float(1e-3, 1), width=Int(1, 9, log=True)),
        "depth": changed(depth=Int(1, 2)),
        "method": Space({name: SPACE.parameters[name] for name in ("lr", "width")}),
        "their order": Space(dict(reversed(list(SPACE.parameters.items())))),
        "metho[d]": changed(method=Choice("adam", "sgd", None, 1, True)),
    }
    for names, space in others.items():
        sentence = f"space is another than that of the study in .*study.sqlite, which differs in {names}: give the same"
        refused(filled, ValueError, sentence, space)
    assert len(Study(changed(lr=Float(0.001, 1.0, log=True)), path=filled).trials) == 61
    refused(filled, ValueError, "maximise is True, and the study in .*study.sqlite minimises.", maximise=True)
    filled.unlink()
    Study(SPACE, maximise=True, path=filled).ask(Random(0))
    refused(filled, ValueError, "maximise is False, and the study in .*study.sqlite maximises.")


def test_other_files_are_refused(path: Path) -> None:
    """Damaged ones are in test_board.py, the same for every store; here is one of each kind."""
    assert board.clear(path=path) == 0
    refused(path, StudyError, "is an SQLite file of another program, not a study: give path another file.")
    path.write_text("number,config\n" * 50)
    refused(path, StudyError, r"is damaged or not a study \(it is not an SQLite file\): move it away, or give path")
    absent = path.parent / "absent" / "study.sqlite"
    with pytest.raises(StudyError, match="The study's folder .*absent does not exist: make it, or give path a file in"):
        Study(LINE, path=absent)


def test_a_trial_that_is_damaged_is_refused(filled: Path) -> None:
    spaces = "(SELECT replace(worker, ' ', ' x') FROM trials WHERE number = 60)"
    good = filled.read_bytes()
    for column, value in (
        *(("config", "'{\"lr\": 0.1'"), ("config", "'5'"), ("scores", "'5'")),
        *(("status", "'dne'"), ("worker", "'nobody'"), ("worker", spaces)),
    ):
        filled.write_bytes(good)
        with closing(sqlite3.connect(filled)) as connection, connection:
            connection.execute(f"UPDATE trials SET {column} = {value} WHERE number = 60")
        refused(filled, StudyError, "is damaged or not a study .*cannot be read")


def test_another_file_in_its_place_is_read_anew(path: Path) -> None:
    """A copy from before, a file that another study began, and none at all."""
    study = Study(LINE, path=path).run(x_of, Random(0), budget=3)
    early = path.read_bytes()
    study.run(x_of, Random(0), budget=5)
    path.write_bytes(early)
    assert timeless(study.trials) == timeless(Study(LINE).run(x_of, Random(0), budget=3).trials)
    path.unlink()
    assert study.trials == ()
    Study(LINE, path=path).run(x_of, Random(7), budget=4)
    assert study.trials == Study(LINE, path=path).trials
    path.unlink()
    Study(STEPS, path=path).ask(Random(0))
    before = path.read_bytes()
    for call in (lambda: study.trials, lambda: study.ask(Random(0))):
        with pytest.raises(ValueError, match="which differs in x: "):
            call()
    assert path.read_bytes() == before


def test_a_path_is_taken_when_the_study_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(LINE, path="study.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study.ask(Random(0))
    assert len(Study(LINE, path=tmp_path / "study.sqlite").trials) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_sqlites_name_for_memory_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (":memory:", Path(":memory:")):
        assert len(Study(LINE, path=path).run(x_of, Random(0), budget=3).trials) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        StudyError, match="The study's path '' names no file: give path a file in a folder that you can"
    ):
        Study(LINE, path="")


def gone(path: Path, early: bytes) -> None:
    path.unlink()


def older(path: Path, early: bytes) -> None:
    path.write_bytes(early)


def another(path: Path, early: bytes) -> None:
    path.unlink()
    study = Study(LINE, path=path)
    for _ in range(9):
        study.ask(Random(7))


def no_study(path: Path, early: bytes) -> None:
    path.write_text("number,value\n" * 99)


@pytest.mark.parametrize("spoil", [gone, older, another, no_study])
@pytest.mark.parametrize("batch", [None, 3])
def test_a_file_that_is_replaced_in_mid_run_takes_no_value_of_another_trial(path: Path, spoil: Any, batch: Any) -> None:
    study = Study(LINE, path=path).run(x_of, Random(0), budget=2)
    early = path.read_bytes()
    study.run(x_of, Random(0), budget=4)

    def objective(given: Any) -> Any:
        spoil(path, early)
        return 1.0 if batch is None else [1.0] * 3

    sentence = (
        "is damaged or not a study" if spoil is no_study else "no longer has trial 4, .*under way; run it again.$"
    )
    with pytest.raises(StudyError, match=sentence):
        study.run(objective, Random(0), budget=9, batch=batch)
    if spoil is not no_study:
        assert 1.0 not in {trial.value for trial in Study(LINE, path=path).trials}
        budget = len(study.trials) + 2
        assert len(study.run(x_of, Random(0), budget=budget).trials) == budget  # and it goes on with what is there


def test_a_file_that_is_locked_in_mid_run_is_told_in_one_sentence(path: Path) -> None:
    study = Study(LINE, path=path).run(x_of, Random(0), budget=2)
    holder = sqlite3.connect(path, isolation_level=None)

    def objective(config: Config) -> float:
        holder.execute("BEGIN EXCLUSIVE")
        return 1.0

    with (
        closing(holder),
        patch("kit.search.study_file.STORE", replace(STORE, busy_seconds=0.05)),
        pytest.raises(
            StudyError, match="The study .* was locked by another program for 0.05 seconds: close what holds"
        ),
    ):
        study.run(objective, Random(0), budget=9)
    assert [trial.status for trial in study.trials] == ["done", "done", "asked"]


def test_equal_values_by_the_thousand_and_the_largest_ones() -> None:
    study = Study(LINE, maximise=True)
    study.run(lambda configs: [1e308] * len(configs), Random(0), budget=1000, batch=500)
    assert (study.best.number, study.best_so_far()) == (0, ((1, 1e308),))
    assert study.table()["rank_test_score"].eq(1).all()
    assert study.tell(ask(study, Bayes()).number, [1.7e308, -1.7e308]).value == 0
    assert study.table()["std_test_score"].max() == 1.7e308


def test_a_study_reads_what_changed_and_checks_its_file_once(path: Path) -> None:
    other, study = Study(LINE, path=path), Study(LINE, path=path)
    with (
        patch("kit.search.study_file._read", side_effect=_read) as read,
        patch.object(Store, "check", autospec=True, side_effect=Store.check) as check,
    ):
        for _ in range(20):
            study.tell(ask(study, Random(0)).number, 1.0)
        assert (read.call_count, check.call_count) == (39, 1)  # each once asked and once told, but for the last
        read.reset_mock()
        assert len(other.trials) == 20
        assert [call.args[0]["number"] for call in read.call_args_list] == list(range(20))
    assert other.trials == study.trials


def test_looking_makes_no_file_and_what_a_failed_transaction_wrote_is_not_remembered(path: Path) -> None:
    study = Study(LINE, path=str(path))
    assert study.trials == ()
    assert not path.exists()
    first = study.ask(Random(0))
    assert [child.name for child in path.parent.iterdir()] == ["study.sqlite"]
    with pytest.raises(RuntimeError, match="pulled"), study._book(write=True) as book:
        book.add(Proposal({"x": 0.5}), 0)
        raise RuntimeError("the plug is pulled")
    assert study.trials == (first,)


def test_flipped_bytes_never_crash_and_are_never_written_over(filled: Path) -> None:
    data, rng = filled.read_bytes(), random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(8):
            changed[rng.randrange(len(data))] ^= rng.randrange(1, 256)
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


# --- several processes, and killed ones -------------------------------------------------------------------------


def search_together(path: Path, space: Space, method: Method, budget: int, start: Any) -> None:
    def objective(config: Config) -> float:
        time.sleep(0.01)
        return os.getpid()

    start.wait(60)
    Study(space, path=path).run(objective, method, budget=budget)


@pytest.mark.parametrize(("method", "budget", "wanted"), [(Grid(6, order="shuffled"), 99, 36), (Random(0), 30, 30)])
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
    command = [sys.executable, "-c", DYING, str(path), repr(method)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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
        assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(ValueError, match="number must be that of a trial not told yet; trial 3 is lost."):
        study.tell(3, 1.0)
    lost = study.trials[3]
    study.run(x_of, method, budget=9)
    assert study.trials[3] == lost
    done = Counter(key(trial.config) for trial in study.trials if trial.status == "done")
    assert done == Counter(key(trial.config) for trial in Study(space).run(x_of, method, budget=9).trials)
    assert key(lost.config) in done


def test_what_is_enqueued_is_queued_again_where_its_process_is_gone(path: Path) -> None:
    Study(LINE, path=path).enqueue({"x": 0.25})
    ask(Study(LINE, path=path), Random(0))
    study = Study(LINE, path=path)
    assert [trial.status for trial in study.trials] == ["asked"]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trials SET revision = 9, worker = ?", [f"{platform.node()} {2**22 + 1} 0.0 queued"])
    for each in (study, Study(LINE, path=path)):
        assert [trial.status for trial in each.trials] == ["queued"]
    assert ask(study, Random(0)).config == {"x": 0.25}
    assert [trial.status for trial in Study(LINE, path=path).trials] == ["asked"]


@pytest.mark.parametrize(
    ("worker", "status"), [(f"{platform.node()} {2**22 + 1} 0.0", "lost"), ("another-machine 1 0.0", "asked")]
)
def test_what_became_of_a_worker(path: Path, worker: str, status: str) -> None:
    """Here it is gone; on another machine nobody can know."""
    Study(LINE, path=path).ask(Random(0))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trials SET worker = ?", [worker])
    study = Study(LINE, path=path)
    assert [trial.status for trial in study.trials] == [status]
    assert len(study.run(x_of, Random(0), budget=2).trials) == 3 - (status == "asked")


def test_threads_share_one_study(place: Path | None) -> None:
    study = Study(STEPS, path=place)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: study.run(x_of, Grid(10), budget=99), range(4)))
    assert sorted(trial.config["x"] for trial in study.trials) == list(range(10))
    assert {trial.status for trial in study.trials} == {"done"}


class Model:
    """Its method takes a configuration; the model itself does not."""

    def score(self, config: Config, cancel: Any = None) -> float:
        return config["x"]


@pytest.mark.parametrize(
    ("objective", "settings", "sentence"),
    [
        (lambda: 0.5, {}, r"as objective\(config\): too many positional .*; write it as def objective\(config\).$"),
        (
            lambda lr, width: 0.5,
            {},
            r"as objective\(config\): missing a required argument: 'width'; write it as def obj",
        ),
        (lambda *, config: 0.5, {}, r"as objective\(config\): too many positional"),
        (lambda: [0.5], {"batch": 2}, r"as objective\(configs\): too many .*; write it as def objective\(configs\).$"),
        (
            lambda epochs: 0.5,
            {"epochs": 3},
            r"as objective\(config, epochs=...\): multiple values .* objective\(config, ep",
        ),
        (lambda cancel: 0.5, {}, r"as objective\(config, cancel=...\): multiple values for argument 'cancel'; write"),
        (partial(Model().score, {"x": 0}, None), {}, "too many positional arguments"),
    ],
)
def test_an_objective_that_cannot_be_called_is_refused_at_once(objective: Any, settings: Any, sentence: str) -> None:
    study = Study(LINE)
    with pytest.raises(TypeError, match=f"^objective cannot be called .*{sentence}"):
        study.run(objective, Random(0), budget=99, **settings)
    assert study.trials == ()


def test_an_objective_that_needs_epochs_is_told_that_there_are_none() -> None:
    study = Study(LINE)
    with pytest.raises(
        TypeError, match=r"^objective cannot be called as objective\(config\): missing .* 'epochs'; write"
    ):
        study.run(lambda config, epochs: 0.5, Random(0), budget=99)
    assert [trial.status for trial in study.trials] == ["lost"]


@pytest.mark.parametrize("objective", [Model().score, x_of, min, partial(max, key=abs), Mock(return_value=1.0)])
def test_every_objective_that_can_be_called_is(objective: Any) -> None:
    """Methods, builtins without a signature, mocks: what they give is another matter."""
    study = Study(LINE).run(objective, given(0.5, 0.25), budget=9)
    assert len(study.trials) == 2


def test_an_objective_must_take_epochs_or_any_keywords() -> None:
    study = Study(LINE).run(lambda config, **settings: settings["epochs"], Random(), budget=1, epochs=3)
    assert study.best.value == 3
    sentence = "objective must have a parameter epochs: its trials are trained for 2 epochs here"
    with pytest.raises(TypeError, match=sentence):
        study.run(x_of, Random(), budget=2, epochs=2)
    assert study.trials[1].status == "lost"
