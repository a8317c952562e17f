"""The outer loop, against closed forms and counts by hand; and beside the other searches."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from kit import models
from kit.data import Dataset
from kit.search import ASHA, Bayes, Float, Random, Space, Study, Trial
from kit.search.gradient import Differences, Implicit, Problem, Tensors, Unrolled, descend, network
from kit.search.trials import Method
from kit.training import Diverged

pytestmark = pytest.mark.usefixtures("one_thread")

DECAY = {"decay": Float(1e-4, 10, log=True)}


def ridge(steps: int = 60, start: float = 1.0, **settings: Any) -> Problem:
    """Ridge regression of noisy numbers, by gradient descent; the coordinate is the logarithm of its decay."""
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 12, 8, generator=generator, dtype=torch.float64) / 12**0.5
    w = torch.ones(8, dtype=torch.float64)
    y, t = x @ w + 0.5 * torch.randn(12, generator=generator, dtype=torch.float64), z @ w

    def train(weights: Tensors, hyper: Tensors, at: int) -> Tensor:
        w = weights["w"]
        return (x @ w - y).square().sum() / 2 + hyper["decay"].exp() * w.square().sum() / 2

    def score(weights: Tensors, hyper: Tensors) -> Tensor:
        return (z @ weights["w"] - t).square().sum() / 2

    hyper = {"decay": torch.tensor(start, dtype=torch.float64).log()}
    given: dict[str, Any] = {"steps": steps, "lr": 0.1, "momentum": 0.8} | settings
    return Problem(train, score, {"w": torch.zeros_like(w)}, DECAY, hyper, **given)


def best_of(problem: Problem) -> float:
    """The least loss that any decay gives, by SciPy."""
    found = minimize_scalar(lambda at: problem.objective({"decay": 10**at}), bounds=(-3.9, 0.9), method="bounded")
    return float(found.fun)


# Downhill


@pytest.mark.parametrize("start", [0.02, 5.0])
@pytest.mark.parametrize(("way", "steps"), [(Unrolled(), 40), (Differences(), 40), (Implicit(8), 200)])
def test_it_ends_at_the_least_loss(way: Any, steps: int, start: float) -> None:
    problem = ridge(steps, start)
    study = descend(problem, way, budget=4000)
    losses = [trial.value for trial in study.trials]
    assert losses[-1] == pytest.approx(best_of(problem), rel=1e-3)
    assert losses[0] == pytest.approx(problem.objective({"decay": start}))
    assert study.best.value < losses[0] - 0.001  # type: ignore[operator]


def test_a_warm_start_goes_on_from_the_last_weights() -> None:
    problem = ridge(start=5.0)
    study = descend(problem, Implicit(8), budget=2000, warm=10)
    assert study.trials[-1].value == pytest.approx(best_of(problem), rel=0.01)
    first, second = study.trials[:2]
    hyper = [problem.coordinates(trial.config) for trial in (first, second)]
    path = problem.path(hyper[1], state=problem.path(hyper[0])[-1], steps=10)
    assert second.value == pytest.approx(float(problem.score(path[-1].weights, hyper[1])))


def test_steps_are_numbered_on_in_a_warm_start() -> None:
    seen, plain = list[int](), ridge(steps=5)

    def train(weights: Tensors, hyper: Tensors, at: int) -> Tensor:
        seen.append(at)
        return plain.train(weights, hyper, at)

    problem = Problem(train, plain.score, plain.start, plain.space, plain.hyper, steps=5, lr=0.1)
    seen.clear()
    descend(problem, Unrolled(back=0), budget=5 + 3 * 2, warm=2)
    assert seen == [*range(11)]
    seen.clear()
    descend(problem, Unrolled(back=0), budget=15)
    assert seen == [*range(5)] * 3


def test_a_coordinate_stays_in_its_range() -> None:
    problem = ridge(start=5.0)
    narrow = Problem(problem.train, problem.score, problem.start, {"decay": Float(4.5, 5.5, log=True)}, problem.hyper)
    study = descend(narrow, Unrolled(back=20), budget=2000)
    assert min(trial.config["decay"] for trial in study.trials) == 4.5
    assert all(narrow.wide.check(trial.config) for trial in study.trials)


# The record


@pytest.mark.parametrize(
    ("way", "slope"),
    [
        (Unrolled(), 120),
        (Unrolled(back=7), 14),
        (Unrolled(mode="forward"), 120),
        (Implicit(3), 8),
        (Differences(), 120),
    ],
)
def test_the_budget_is_what_training_and_slopes_cost(way: Any, slope: int) -> None:
    one = 60 + slope
    study = descend(ridge(), way, budget=3 * one + one - 1)
    assert [trial.spent for trial in study.trials] == [one] * 3
    assert len(descend(ridge(), way, budget=one).trials) == 1
    for small in (one - 1, 59, 1):
        with pytest.raises(
            ValueError, match=rf"budget must be {one if small >= 60 else 60} gradient evaluations or more"
        ):
            descend(ridge(), way, budget=small)


def test_warm_steps_spend_less_and_use_what_is_left() -> None:
    study = descend(ridge(), Unrolled(back=5), budget=70 + 3 * 20 + 19, warm=10)
    assert [trial.spent for trial in study.trials] == [70, 20, 20, 20]
    assert study.best_so_far("epochs")[0][0] == 70


def test_each_step_is_told_and_written_into_the_study_given(tmp_path: Path) -> None:
    problem, told = ridge(), list[Trial]()
    study = Study(problem.wide, path=tmp_path / "study.sqlite")
    study.run(problem.objective, Random(0), budget=2, epochs=60)
    assert descend(problem, Implicit(3), budget=200, study=study, on_trial=told.append) is study
    assert [trial.number for trial in told] == [2, 3]
    assert Study(problem.wide, path=tmp_path / "study.sqlite").trials == study.trials
    assert study.trials[2:] == tuple(told)
    assert {trial.status for trial in told} == {"done"}
    assert list(study.table()["spent"]) == [60, 60, 68, 68]
    with sqlite3.connect(tmp_path / "study.sqlite") as file:
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (4,)


def test_what_is_kept_of_each_step_changes_no_trial() -> None:
    kept, again = (descend(ridge(), Unrolled(recompute=each), budget=900) for each in (False, True))
    assert [trial.config for trial in kept.trials] == [trial.config for trial in again.trials]
    assert len(kept.trials) == 5


def test_a_thousand_warm_starts_are_no_deeper_than_one() -> None:
    study = descend(ridge(steps=1), Unrolled(back=0), budget=1100, warm=1)
    assert len(study.trials) == 1100


def test_the_problem_is_not_moved() -> None:
    problem = ridge()
    descend(problem, Unrolled(), budget=800)
    assert float(problem.hyper["decay"]) == 0.0
    assert float(problem.start["w"].abs().sum()) == 0.0


def test_cancelled_it_keeps_what_was_done() -> None:
    cancel, plain, calls = Event(), ridge(), list[int]()

    def train(weights: Tensors, hyper: Tensors, at: int) -> Tensor:
        calls.append(at)
        if len(calls) == 100:
            cancel.set()
        return plain.train(weights, hyper, at)

    problem = Problem(train, plain.score, plain.start, plain.space, plain.hyper, steps=60)
    study = descend(problem, Unrolled(back=0), budget=10_000, cancel=cancel)
    assert [trial.status for trial in study.trials] == ["done"]
    assert len(calls) == 100
    assert not descend(problem, Unrolled(), budget=10_000, cancel=cancel).trials


def test_a_training_that_diverges_is_a_failed_trial_and_raised() -> None:
    plain, told = ridge(), list[Trial]()
    space = {"lr": Float(1e-3, 1e9, log=True)}

    def train(weights: Tensors, hyper: Tensors, at: int) -> Tensor:
        return plain.train(weights, {"decay": torch.tensor(0.0)}, at)

    start = {"lr": torch.tensor(0.5, dtype=torch.float64).log()}
    problem = Problem(train, lambda weights, hyper: -hyper["lr"] + 0 * weights["w"].sum(), plain.start, space, start)
    study = Study(problem.wide)
    with pytest.raises(Diverged):
        descend(problem, Unrolled(back=0), budget=100_000, rate=3.0, study=study, on_trial=told.append)
    assert [trial.status for trial in study.trials] == ["done"] * (len(told) - 1) + ["failed"]
    assert len(told) > 1
    assert "Diverged" in told[-1].error


def test_a_thousand_hyper_parameters_at_once(digits: Dataset) -> None:
    problem = network(models.MLP((64, 16, 10)), digits.part(60), per="weight", steps=10)
    assert len(problem.wide) == 1210
    study = descend(problem, Unrolled(), budget=5 * 30)
    losses = [trial.value for trial in study.trials]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)  # type: ignore[type-var]


# Beside the others


@pytest.mark.parametrize("method", [Random(0), Bayes(seed=0), ASHA(min_epochs=10, max_epochs=60, seed=0)], ids=repr)
def test_other_methods_search_the_same_space_at_the_same_cost(method: Method) -> None:
    problem = ridge()
    study = Study(problem.wide).run(problem.objective, method, budget=600, unit="epochs", epochs=60)
    assert sum(trial.spent for trial in study.trials) <= 600
    trial = study.best
    hyper = problem.coordinates(trial.config)
    wanted = float(problem.score(problem.path(hyper, steps=trial.epochs)[-1].weights, hyper))
    assert trial.value == pytest.approx(wanted)


# Refusals


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"budget": 0}, "budget must be 1 or more"),
        ({"rate": 0}, "rate must be above 0"),
        ({"warm": 0}, "warm must be 1 or more"),
        ({"study": Study(Space({"decay": Float(1e-4, 9, log=True)}))}, "study must be one of problem.wide"),
        ({"study": Study(Space(DECAY), maximise=True)}, "study must be one of problem.wide that minimises"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        descend(ridge(), Unrolled(), **{"budget": 1000} | settings)


def test_a_schedule_needs_whole_trainings(digits: Dataset) -> None:
    problem = network(models.MLP((64, 10)), digits.part(60), ["lr"], pieces=2, steps=4)
    with pytest.raises(ValueError, match="warm: a schedule of the learning rate needs whole trainings"):
        descend(problem, Unrolled(), budget=100, warm=2)
    assert len(descend(problem, Unrolled(), budget=12).trials) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: descend("ridge", Unrolled(), budget=10),  # type: ignore[arg-type]
        lambda: descend(ridge(), Unrolled(), budget=10, study="mine"),  # type: ignore[arg-type]
        lambda: descend(ridge(), Unrolled(), budget=1.5),  # type: ignore[arg-type]
        lambda: descend(ridge(), Unrolled, budget=100),  # type: ignore[arg-type]
    ],
)
def test_other_kinds_are_refused(call: Callable[[], Study]) -> None:
    with pytest.raises(TypeError, match="must be"):
        call()
