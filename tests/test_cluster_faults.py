"""What goes wrong on many machines: several nodes on this one, of which processes and nodes are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from kit import cluster
from kit.cluster import Span
from kit.cluster.ray_start import FAIR
from kit.search import ASHA, Float, Random, Space, Study
from tests import cluster_objectives as objectives

ray = pytest.importorskip("ray", reason="many machines need Ray: the extra cluster")
ROOT = Path(__file__).resolve().parents[1]
SPACE = Space({"x": Float(0, 1)})
SEED = 6  # one of its first eight x is above 0.8

DRIVER = """
import sys
from kit import cluster
from tests.test_cluster_faults import SPACE, Random, Study, objectives
cluster.run(Study(SPACE, path=sys.argv[2]), objectives.sleeps, Random(6), budget=12, address=sys.argv[1])
"""
OTHER = """
import sys
import ray
ray.__version__ = "2.1.0"
from kit import cluster
from tests.test_cluster_faults import SPACE, Random, Study, objectives
cluster.run(Study(SPACE), objectives.square, Random(), budget=1, address=sys.argv[1])
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head without CPUs, where the driver is, and three nodes of one CPU."""
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"object_store_memory": 80_000_000, "include_log_monitor": False}
    with patch("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False):
        head = {"num_cpus": 0, "include_dashboard": False, "no_monitor": True, "_system_config": FAIR}
        found = Cluster(initialize_head=True, head_node_args={**node, **head})
        for _ in range(3):
            found.add_node(num_cpus=1, **node)
        yield found
        found.shutdown()


def local() -> dict[str, str]:
    """The environment of another driver on this machine: without it, Ray takes 127.0.0.1 for another address."""
    return {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def subjects(study: Study) -> list[tuple[Any, ...]]:
    return [(trial.config["x"], trial.status, trial.value) for trial in study.trials]


def expected(budget: int) -> list[tuple[Any, ...]]:
    study = Study(SPACE).run(lambda config: config["x"], Random(SEED), budget=budget)
    return [(trial.config["x"], "done", trial.value) for trial in study.trials]


def test_killed_workers_are_replaced_and_their_trials_tried_again(nodes: Any, tmp_path: Path) -> None:
    spans: list[Span] = []
    study = cluster.run(
        Study(SPACE), objectives.Dies(tmp_path, 1), Random(SEED), budget=8, address=nodes.address, on_span=spans.append
    )
    assert subjects(study) == expected(8)
    died = [span.trial for span in spans if span.status == "died"]
    assert sorted(died) == [trial.number for trial in study.trials if trial.config["x"] > 0.8] != []
    assert not ray.is_initialized()


def test_of_a_cohort_only_the_one_that_kills_its_worker_fails(nodes: Any, tmp_path: Path) -> None:
    objective = objectives.Dies(tmp_path, 99).cohort
    study = cluster.run(Study(SPACE), objective, Random(SEED), budget=6, batch=3, address=nodes.address, retries=1)
    for (x, status, value), trial in zip(subjects(study), study.trials, strict=True):
        assert (status, value) == (("failed", None) if x > 0.8 else ("done", x))
        if x > 0.8:
            assert trial.error.startswith("its worker died 2 times, at last: ")
    assert len({trial.status for trial in study.trials}) == 2


def test_memory_that_a_worker_does_not_get_is_a_failed_trial(nodes: Any) -> None:
    pytest.importorskip("resource")
    study = cluster.run(Study(SPACE), objectives.eats, Random(SEED), budget=6, address=nodes.address)
    assert [trial.status for trial in study.trials] == [
        "failed" if t.config["x"] > 0.8 else "done" for t in study.trials
    ]
    assert {trial.error for trial in study.trials} == {"", "MemoryError: "}


def test_a_node_that_is_gone_takes_no_trial_with_it(nodes: Any, tmp_path: Path) -> None:
    lost, gone = next(iter(nodes.worker_nodes)), tmp_path / "gone"
    spans: list[Span] = []

    def on_span(span: Span) -> None:
        spans.append(span)
        if len({each.worker for each in spans}) == 3 and lost in nodes.worker_nodes:
            nodes.remove_node(lost, allow_graceful=False)
            gone.touch()

    study = cluster.run(
        Study(SPACE), objectives.Outlasts(gone), Random(SEED), budget=16, address=nodes.address, on_span=on_span
    )
    assert lost not in nodes.worker_nodes
    assert subjects(study) == expected(16)
    assert [span.status for span in spans if span.end is not None and span.status != "done"] == ["died"]


def test_a_driver_that_is_killed_goes_on_where_it_was(nodes: Any, tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, nodes.address, path], cwd=ROOT, env=local())
    late = time.monotonic() + 300
    while not path.exists() or sum(trial.told for trial in Study(SPACE, path=path).trials) < 4:
        assert driver.poll() is None and time.monotonic() < late
        time.sleep(0.1)
    psutil.Process(driver.pid).kill()
    driver.wait()
    before = Study(SPACE, path=path).trials
    assert 4 <= sum(trial.told for trial in before) < 12
    assert {trial.status for trial in before} == {"done", "lost"}
    study = cluster.run(Study(SPACE, path=path), objectives.sleeps, Random(SEED), budget=12, address=nodes.address)
    told = [trial for trial in study.trials if trial.told]
    assert [trial for trial in told if trial.number < len(before)] == [trial for trial in before if trial.told]
    assert sorted(trial.config["x"] for trial in told) == sorted(x for x, _, _ in expected(12))  # lost ones come again
    assert len(told) == 12


def test_another_version_of_ray_is_refused_in_a_sentence(nodes: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHER, nodes.address], cwd=ROOT, env=local(), capture_output=True, text=True, timeout=300
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ConnectionError: the Ray cluster at {nodes.address} cannot be used: Version mismatch: ")
    assert "2.1.0" in last and ray.__version__ in last


def test_a_study_in_memory_goes_on_with_the_same_address(nodes: Any) -> None:
    study = Study(SPACE)
    for budget in (3, 6):
        cluster.run(study, objectives.trained, ASHA(max_epochs=9), budget=budget, address=nodes.address, workers=1)
    alone = Study(SPACE).run(objectives.trained, ASHA(max_epochs=9), budget=6)
    assert [(each.config, each.value) for each in study.trials] == [(each.config, each.value) for each in alone.trials]
