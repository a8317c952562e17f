from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kit import cluster
from kit.explorers import RunningSearch, WorkersExplorer
from kit.explorers import running as room
from kit.search import Float, Random, Space, Study, architecture
from kit.search.architecture.table import Table
from tests.hands import PATIENCE, settle
from tests.landscapes import made_up

TOP = 12  # trainings


@pytest.fixture(scope="module")
def table() -> Table:
    return architecture.load()


@pytest.fixture
def explorer(table: Table) -> Iterator[WorkersExplorer]:
    with contextlib.closing(WorkersExplorer(table, trainings=TOP)) as made:
        yield made


def test_equal_trials_take_what_a_closed_form_says(explorer: WorkersExplorer, table: Table) -> None:
    settle(explorer, method="random", workers=4, slow=1.0)
    assert explorer.minutes == pytest.approx(TOP / 4 * table.epochs) and explorer.utilisation == pytest.approx(1)
    settle(explorer, method="halving", workers=16)
    assert explorer.utilisation == pytest.approx(40 / (16 * 8), rel=0.01) or len(explorer.trials) % 30
    settle(explorer, method="random", workers=1, driver=30.0)
    assert explorer.minutes == pytest.approx(TOP * (table.epochs + 0.5))


def test_no_worker_has_two_trials_at_once_and_a_trial_reads_the_table(explorer: WorkersExplorer, table: Table) -> None:
    settle(explorer, method="ASHA", workers=4, seed=2)
    for worker in range(4):
        bars = sorted((span.start, span.end or 0.0) for span in explorer.spans if span.worker == worker)
        assert all(end <= start + 1e-6 for (_, end), (start, _) in itertools.pairwise(bars))
    read = table.objective(2)
    assert all(trial.value == read(trial.config, epochs=trial.epochs) for trial in explorer.trials)
    worked = math.fsum((span.end or 0.0) - span.start for span in explorer.spans)
    assert explorer.utilisation == pytest.approx(worked / (4 * 60 * explorer.minutes))


def test_an_epoch_takes_a_minute_on_average_whatever_the_spread(explorer: WorkersExplorer) -> None:
    lasted = []
    for seed in range(20):
        settle(explorer, method="random", slow=3.0, seed=seed)
        lasted += [((span.end or 0.0) - span.start) / (60 * 8) for span in explorer.spans]
    logs = np.log(lasted)
    assert np.mean(lasted) == pytest.approx(1, abs=0.35)
    assert np.exp(np.quantile(logs, 0.9) - np.median(logs)) == pytest.approx(3, rel=0.35)


def test_the_race_is_between_all_methods_and_repeats(explorer: WorkersExplorer) -> None:
    settle(explorer, repeats=4, workers=2)
    explorer.wait_curves(PATIENCE)
    assert {name: each.n for name, each in explorer.race(1e6).items()} == dict.fromkeys(room_methods(), 4)
    busy = explorer.busy()
    assert [count for count, _ in busy["halving"]] == [1, 2, 4, 8, 16, 32, 64]
    assert all(share == pytest.approx(1) for count, share in (each[0] for each in busy.values()) if count == 1)
    assert busy["halving"][4][1] < busy["ASHA"][4][1]


def room_methods() -> tuple[str, ...]:
    from kit.explorers.workers import METHODS

    return METHODS


def test_a_landscape_will_do() -> None:
    with contextlib.closing(WorkersExplorer(made_up(), trainings=10)) as explorer:
        explorer.wait(PATIENCE)
        assert explorer.trials


def test_wrong_arguments_are_refused(table: Table) -> None:
    for wrong, error, said in (
        ({"trained": 3}, TypeError, "trained must be a table"),
        ({"trained": table, "method": "grid"}, ValueError, "method must be one of"),
        ({"trained": table, "trainings": 9}, ValueError, "trainings must"),
    ):
        given: dict[str, Any] = wrong
        with pytest.raises(error, match=said):
            WorkersExplorer(**given)


# -- a search that runs ------------------------------------------------------------------------------------------------


def in_virtual_time(study: Study, objective: Any, method: Any, **how: Any) -> None:
    """In place of Ray: the same spans, and `cancel` looked at."""
    on_span, cancel = how.pop("on_span"), how.pop("cancel")
    for span in cluster.simulate(study, objective, method, duration=lambda *_: 1.0, **how):
        on_span(span)
        assert not cancel.is_set()


LINE = Space({"x": Float(0, 1)})


def test_a_running_search_shows_what_the_run_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.cluster, "run", in_virtual_time, raising=False)
    study = Study(LINE)
    running = RunningSearch(study, lambda config: config["x"], Random(0), budget=6, workers=2)
    assert running.wait(PATIENCE) is study
    assert [span.trial for span in running.spans] == list(range(6)) and running.stop_button.disabled
    assert "Done: 6 of 6 trials" in running._status.value and running._bar.value == 1
    running.close()


def test_an_error_is_said_and_raised_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **how: Any) -> None:
        raise ConnectionError("no cluster there.")

    monkeypatch.setattr(room.cluster, "run", broken, raising=False)
    running = RunningSearch(Study(LINE), lambda config: 0.0, Random(0), budget=6, workers=2)
    with pytest.raises(ConnectionError, match="no cluster there"):
        running.wait(PATIENCE)
    assert "no cluster there" in running._status.value
    running.close()


def test_stop_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.cluster, "run", lambda *_, cancel, **how: cancel.wait(PATIENCE), raising=False)
    running = RunningSearch(Study(LINE), lambda config: 0.0, Random(0), budget=6, workers=2)
    with pytest.raises(TimeoutError, match="still runs"):
        running.wait(0.05)
    running.stop_button.click()
    running.wait(PATIENCE)
    assert "Stopped: 0 of 6 trials" in running._status.value
    running.close()
