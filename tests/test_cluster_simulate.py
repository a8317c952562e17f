"""Many workers in virtual time, against closed forms and counts by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from kit.cluster import Span, simulate
from kit.search import ASHA, Bayes, Config, Float, Grid, Listed, Random, Space, Study, SuccessiveHalving
from kit.search.pareto import Goal

SPACE = Space({"x": Float(0, 1)})


def square(config: Config) -> float:
    return (config["x"] - 0.3) ** 2


def trained(config: Config, *, epochs: int) -> float:
    return config["x"] / epochs


def busy(spans: tuple[Span, ...]) -> dict[int, list[Span]]:
    """By worker, in order; nobody does two things at once."""
    found = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start):
        found[span.worker].append(span)
    for row in found.values():
        assert all((a.end or 0) <= b.start for a, b in pairwise(row))
    return found


def makespan(spans: tuple[Span, ...]) -> float:
    return max(span.end or 0 for span in spans)


@pytest.mark.parametrize(("workers", "budget"), [(1, 5), (4, 12), (4, 13), (7, 3)])
def test_equal_trials_come_in_waves(workers: int, budget: int) -> None:
    study = Study(SPACE)
    spans = simulate(study, square, Random(), budget=budget, duration=lambda config, epochs: 10.0, workers=workers)
    assert makespan(spans) == 10 * math.ceil(budget / workers)
    assert sorted(span.trial for span in spans) == list(range(budget))
    assert len(busy(spans)) == min(workers, budget)
    assert all((span.end or 0) - span.start == 10 and span.status == "done" for span in spans)
    assert all(trial.seconds == 10 for trial in study.trials)


def test_one_worker_tries_what_a_study_does() -> None:
    for method in (Random(3), Bayes(seed=1), ASHA(max_epochs=9)):
        objective: Any = trained if isinstance(method, ASHA) else square
        alone = Study(SPACE).run(objective, method, budget=14)
        study = Study(SPACE)
        simulate(study, objective, method, budget=14, duration=lambda config, epochs: epochs or 1, workers=1)
        assert [(each.config, each.value) for each in study.trials] == [(t.config, t.value) for t in alone.trials]


def test_trials_are_told_when_their_time_is_over() -> None:
    """By hand: trials of 5, 1, 1, 1 seconds on two workers; a driver that needs a second for each."""
    seconds = [5.0, 1.0, 1.0, 1.0]
    listed = Listed([{"x": at / 10} for at in range(4)])

    def duration(config: Config, epochs: int | None) -> float:
        return seconds[round(config["x"] * 10)]

    spans = simulate(Study(SPACE), square, listed, budget=4, duration=duration, workers=2)
    assert [(s.worker, s.trial, s.start, s.end) for s in spans] == [
        (1, 1, 0, 1),
        (1, 2, 1, 2),
        (1, 3, 2, 3),
        (0, 0, 0, 5),
    ]
    spans = simulate(Study(SPACE), square, listed, budget=4, duration=duration, workers=2, overhead=1.0)
    assert [(s.trial, s.start, s.end) for s in spans] == [(1, 2, 3), (2, 4, 5), (0, 1, 6), (3, 6, 7)]


def test_a_slow_driver_is_what_many_workers_wait_for() -> None:
    """The driver gives away one trial in `overhead` seconds, so more than duration / overhead workers gain nothing."""
    for workers, most in ((5, 5.0), (20, 10.0), (40, 10.0)):
        spans = simulate(
            Study(SPACE),
            square,
            Random(),
            budget=400,
            duration=lambda config, epochs: 10.0,
            workers=workers,
            overhead=1.0,
        )
        at_work = 10 * 400 / makespan(spans)  # workers that compute, on average
        assert 0.85 * most < at_work <= most
    grows = simulate(
        Study(SPACE),
        square,
        Random(),
        budget=3,
        duration=lambda config, epochs: 1.0,
        workers=3,
        overhead=lambda n: n + 1,
    )
    assert [span.start for span in sorted(grows, key=lambda span: span.trial)] == [1, 3, 6]


def test_synchronous_halving_waits_and_asynchronous_does_not() -> None:
    idle = {}
    for name, method in (("all wait", SuccessiveHalving(n=9, max_epochs=9)), ("nobody", ASHA(max_epochs=9))):
        study = Study(SPACE, maximise=True)
        spans = simulate(
            study,
            trained,
            method,
            budget=60,
            duration=lambda config, epochs: (epochs or 0) * (1 + config["x"]),
            workers=9,
        )
        rows, end = busy(spans), max(span.start for span in spans)
        idle[name] = 1 - sum(min(s.end or 0, end) - s.start for row in rows.values() for s in row) / (9 * end)
    assert idle["nobody"] < 0.01 < 0.2 < idle["all wait"]


def test_what_goes_on_waits_for_what_it_goes_on_from() -> None:
    study = Study(SPACE, maximise=True)
    spans = simulate(
        study,
        trained,
        SuccessiveHalving(n=9, max_epochs=9),
        budget=13,
        duration=lambda config, e: float(e or 0),
        workers=4,
    )
    ends, starts = {s.trial: s.end for s in spans}, {s.trial: s.start for s in spans}
    later = [trial for trial in study.trials if trial.continues is not None]
    assert len(later) == 4
    for trial in later:
        rung_below = [t.number for t in study.trials if t.epochs == study.trials[trial.continues or 0].epochs]
        assert starts[trial.number] >= max(ends[number] or 0 for number in rung_below)


class Resuming:
    resumes = True

    def __call__(self, config: Config, *, epochs: int) -> float:
        return config["x"]


def test_the_duration_is_that_of_the_epochs_that_a_trial_trains_itself() -> None:
    study = Study(SPACE)
    spans = simulate(
        study,
        Resuming(),
        ASHA(max_epochs=9),
        budget=60,
        unit="epochs",
        duration=lambda c, epochs: float(epochs or 0),
        workers=3,
    )
    trials = study.trials
    assert {(s.end or 0) - s.start for s in spans} == {1, 2, 6} == {trial.spent for trial in trials}
    assert sum(trial.spent for trial in trials) <= 60


def test_failed_trials_and_several_objectives() -> None:
    study = Study(SPACE, objectives={"error": Goal(), "bytes": Goal(log=True)})

    def both(config: Config) -> dict[str, float]:
        return {"error": 1 - config["x"], "bytes": 10 + 100 * config["x"] if config["x"] < 0.8 else math.nan}

    spans = simulate(study, both, Random(), budget=30, duration=lambda config, epochs: 1.0, workers=4)
    statuses = [trial.status for trial in study.trials]
    assert set(statuses) == {"done", "failed"}
    assert [s.status for s in sorted(spans, key=lambda s: s.trial)] == statuses
    with pytest.raises(RuntimeError, match="objective failed in each of 3 trials"):
        simulate(Study(SPACE), lambda config: None, Random(), budget=9, duration=lambda config, epochs: 1.0, workers=2)


def test_a_method_that_is_exhausted_ends_it() -> None:
    spans = simulate(Study(SPACE), square, Grid(points=3), budget=50, duration=lambda config, epochs: 1.0, workers=8)
    assert len(spans) == 3


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"workers": 0}, ValueError, "^workers must be 1 or more; got 0.$"),
        ({"duration": lambda config, epochs: 0.0}, ValueError, "^duration must be above 0; got 0.0.$"),
        ({"overhead": -1.0}, ValueError, "^overhead must be 0 or more; got -1.0.$"),
        ({"budget": 0}, ValueError, "^budget must be 1 or more; got 0.$"),
    ],
)
def test_bad_arguments(wrong: dict[str, Any], kind: type[Exception], said: str) -> None:
    right: dict[str, Any] = {"budget": 3, "duration": lambda config, epochs: 1.0, "workers": 2}
    with pytest.raises(kind, match=said):
        simulate(Study(SPACE), square, Random(), **{**right, **wrong})
