"""A study on Ray: the same trials as without it, in processes of their own, and nothing of Ray to be seen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit import cluster
from kit.cluster import Span
from kit.search import ASHA, Bayes, Float, Random, Space, Study
from kit.search.pareto import Goal
from tests import cluster_objectives as objectives

ray = pytest.importorskip("ray", reason="many machines need Ray: the extra cluster")
SPACE = Space({"x": Float(0, 1)})


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    with cluster.local(workers=2):
        yield
    assert not ray.is_initialized()


def test_the_same_trials_as_without_ray_in_two_quiet_processes_of_one_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spans: list[Span] = []
    told: list[int] = []
    study = Study(SPACE, path=tmp_path / "study.sqlite")
    objective = objectives.Notes(tmp_path / "notes")
    done = cluster.run(
        study, objective, Random(4), budget=12, on_span=spans.append, on_trial=lambda trial: told.append(trial.number)
    )
    assert done is study
    assert [trial.config for trial in study.trials] == [
        trial.config for trial in Study(SPACE).run(objectives.square, Random(4), budget=12).trials
    ]
    assert sorted(told) == list(range(12))
    assert Study(SPACE, path=tmp_path / "study.sqlite").trials == study.trials
    # Two processes, reused, each of one thread; each unpacked the objective once.
    scores = [trial.scores for trial in study.trials]
    assert len({each[0] for each in scores}) == 2 and os.getpid() not in {each[0] for each in scores}
    assert {each[1:] for each in scores} == {(1.0, 1.0, 1.0)}
    assert (tmp_path / "notes").read_text() == 2 * "unpacked\n"
    # Each trial begins, and ends; nobody does two things at once, and both work at the same time.
    ended = [span for span in spans if span.end is not None]
    assert [span.trial for span in ended] == told and {span.status for span in ended} == {"done"}
    assert [span.trial for span in spans if span.end is None] == list(range(12))
    assert all(trial.seconds >= 0.05 for trial in study.trials)
    rows = [sorted((s.start, s.end or 0.0) for s in ended if s.worker == worker) for worker in (0, 1)]
    assert all(end <= begin for row in rows for (_, end), (begin, _) in pairwise(row))
    assert sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in rows[0] for b in rows[1]) > 0.1
    assert capfd.readouterr() == ("", "")


def test_workers_have_their_fair_share_of_a_busy_machine() -> None:
    """Else they start and work at a thirtieth of the pace of what else runs: beside three such processes no worker had
    started after a minute."""
    study = cluster.run(Study(SPACE, maximise=True), objectives.niceness, Random(), budget=2)
    assert [trial.value for trial in study.trials] == [psutil.Process().nice()] * 2


def test_nobody_listens_to_other_machines() -> None:
    found = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # the workers of the test before end just now
            found += [each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN"]
    assert len(found) > 3
    assert set(found) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_halving_with_a_budget_in_epochs_and_several_objectives() -> None:
    study = cluster.run(
        Study(SPACE, maximise=True), objectives.trained, ASHA(max_epochs=9), budget=60, unit="epochs", workers=1
    )
    alone = Study(SPACE, maximise=True).run(objectives.trained, ASHA(max_epochs=9), budget=60, unit="epochs")
    assert [(each.config, each.epochs, each.value) for each in study.trials] == [
        (each.config, each.epochs, each.value) for each in alone.trials
    ]
    goals = {"error": Goal(), "bytes": Goal(log=True)}
    many = cluster.run(Study(SPACE, objectives=goals), objectives.both, Random(), budget=6, workers=1)
    assert all(trial.values == objectives.both(trial.config) for trial in many.trials)
    # Nothing is left to do: no worker is waited for.
    began = time.monotonic()
    cluster.run(many, objectives.both, Random(), budget=6)
    assert time.monotonic() - began < 0.5


def test_a_worker_is_given_a_cohort_and_the_method_waits_for_what_is_under_way() -> None:
    study = cluster.run(Study(SPACE), objectives.sums, Bayes(start=2), budget=9, batch=4)
    assert len(study.trials) == 9
    assert sorted(trial.value or 0 for trial in study.trials) == [1, *[4] * 8]


def test_what_fails_hangs_or_is_called_wrongly() -> None:
    with pytest.raises(
        RuntimeError, match="^objective failed in each of [34] trials, at last: ValueError: a mistake"
    ) as info:
        cluster.run(Study(SPACE), objectives.raises, Random(), budget=9)
    assert "cluster_objectives.py" in str(info.value.__cause__)  # where it was raised, in the other process
    study = cluster.run(Study(SPACE), objectives.hangs, Random(6), budget=6, limit=0.5, failures=None)
    late = [trial.config["x"] > 0.8 for trial in study.trials]
    assert sum(late) == 1
    assert [trial.status for trial in study.trials] == ["timed out" if each else "done" for each in late]
    assert all("longer than its limit of 0.5 seconds" in each.error for each in study.trials if each.status != "done")
    with pytest.raises(TypeError, match="^objective must have a parameter epochs: its trials are trained for 1 epochs"):
        cluster.run(Study(SPACE), objectives.square, ASHA(max_epochs=9), budget=9, workers=1)


def test_cancelled_calls_end_or_are_killed(tmp_path: Path) -> None:
    for objective in (objectives.Waits(tmp_path), lambda config: time.sleep(300)):
        study, cancel = Study(SPACE), threading.Event()

        def on_span(span: Span, cancel: threading.Event = cancel) -> None:
            if span.trial == 1:
                threading.Timer(0.2, cancel.set).start()

        began = time.monotonic()
        cluster.run(study, objective, Random(), budget=4, on_span=on_span, cancel=cancel)
        assert time.monotonic() - began < 150
        assert [trial.status for trial in study.trials] == ["lost", "lost"]
        assert len(list(tmp_path.iterdir())) == 2  # what takes `cancel` came to its own end


def test_what_the_caller_raises_ends_the_run() -> None:
    def on_span(span: Span) -> None:
        if span.trial == 1:
            raise KeyboardInterrupt

    study = Study(SPACE)
    with pytest.raises(KeyboardInterrupt):
        cluster.run(study, objectives.sleeps, Random(), budget=9, on_span=on_span)
    assert [trial.status for trial in study.trials][1:] == ["lost"]
    late = time.monotonic() + 30
    while any("Worker" in name for name in map(_name, psutil.Process().children(recursive=True))):
        assert time.monotonic() < late
        time.sleep(0.1)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def test_an_objective_that_cannot_be_sent_names_what_it_holds_on_to() -> None:
    lock = threading.Lock()
    for objective, held in (
        (objectives.Locked(), "objective.lock, a lock"),
        (lambda config: lock, "objective.lock, a lock"),
    ):
        with pytest.raises(TypeError, match=f"^objective cannot be sent to a worker: it holds on to {held}.$"):
            cluster.run(Study(SPACE), objective, Random(), budget=2)


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"workers": 0}, ValueError, "^workers must be 1 or more; got 0.$"),
        ({"threads": 0}, ValueError, "^threads must be 1 or more; got 0.$"),
        ({"retries": -1}, ValueError, "^retries must be 0 or more; got -1.$"),
        ({"patience": 0}, ValueError, "^patience must be above 0; got 0.$"),
        ({"limit": 0}, ValueError, "^limit must be above 0; got 0.$"),
        ({"on_trial": 3}, TypeError, "^on_trial must be callable; got 3.$"),
        ({"on_span": 3}, TypeError, "^on_span must be callable; got 3.$"),
        (
            {"address": "10.0.0.1:6379"},
            RuntimeError,
            "^address is '10.0.0.1:6379', and this process is connected to 127",
        ),
    ],
)
def test_bad_arguments(wrong: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        cluster.run(Study(SPACE), objectives.square, Random(), budget=2, **wrong)
    with pytest.raises(ValueError, match="^workers must be 1 or more; got 0.$"), cluster.local(workers=0):
        pass


def test_more_cores_than_there_are() -> None:
    with pytest.raises(
        RuntimeError, match="^no worker could start within 1 seconds: the cluster has no free CPU for one"
    ):
        cluster.run(Study(SPACE), objectives.square, Random(), budget=2, threads=64, patience=1)


def test_a_simulation_predicts_the_real_thing() -> None:
    """Trials of 0.3 seconds on two workers: as long as simulated, but for what processes need to wake."""
    real: list[Span] = []
    cluster.run(Study(SPACE), objectives.sleeps, Random(), budget=10, on_span=real.append)
    virtual = cluster.simulate(
        Study(SPACE), objectives.square, Random(), budget=10, duration=lambda config, epochs: 0.3, workers=2
    )
    ended = [span for span in real if span.end is not None]
    took = max(span.end or 0 for span in ended) - min(span.start for span in ended)
    assert max(span.end or 0 for span in virtual) == pytest.approx(1.5)
    assert 1.4 < took < 1.5 + 5.0  # the second worker may come late on a busy machine
