"""Several objectives: domination, fronts, the dominated volume, and the study that keeps them."""

from __future__ import annotations

import json
import math
import pickle
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.search import Bayes, Choice, Float, Goal, Goals, Grid, Random, Sobol, Space, Study, StudyError, pareto
from kit.search.study_file import STORE

SPACE = Space({"x": Float(0, 1), "y": Float(0, 1)})
GOALS = {"accuracy": Goal(maximise=True), "bytes": Goal(log=True, limit=500.0)}


def objective(config: Mapping[str, Any]) -> dict[str, float]:
    return {"accuracy": 0.9 * config["x"] + 0.05 * config["y"], "bytes": 100 + 1000 * config["x"]}


def searched(**objectives: Goal) -> Study:
    return Study(SPACE, objectives=objectives or GOALS).run(objective, Random(seed=0), budget=60)


# Volumes


@pytest.mark.parametrize(
    ("rows", "corner", "volume"),
    [
        ([[0.5]], [2], 1.5),
        ([[1, 3], [2, 2], [3, 1]], [4, 4], 6),  # steps of a stair: 1 + 2 + 3
        ([[1, 3], [2, 2], [3, 1], [3, 3], [2, 2]], [4, 4], 6),  # dominated and equal rows add nothing
        ([[1, 3], [5, 0]], [4, 4], 3),  # one row lies beyond the corner
        ([[0, 0, 0]], [1, 2, 3], 6),
        ([[1, 2, 2], [2, 1, 2], [2, 2, 1]], [3, 3, 3], 4),  # three boxes of 2, two more than the cube that they share
        ([[3, 3]], [3, 4], 0),
        (np.empty((0, 2)), [1, 1], 0),
    ],
)
def test_volumes_that_are_known(rows: Any, corner: Any, volume: float) -> None:
    assert pareto.hypervolume(np.array(rows, float), np.array(corner, float)) == pytest.approx(volume)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_volumes_are_those_of_darts_thrown_at_the_box(m: int) -> None:
    rng = np.random.default_rng(m)
    for n in (1, 7, 40):
        losses, darts = rng.random((n, m)) * 1.1, rng.random((20_000, m))
        hit = float(np.mean(np.any(np.all(losses[None] <= darts[:, None], axis=2), axis=1)))
        found = pareto.hypervolume(losses, np.ones(m))
        assert found == pytest.approx(hit, abs=5 * math.sqrt(0.25 / len(darts)))
        assert found == pytest.approx(pareto.hypervolume(losses[pareto.front(losses)], np.ones(m)))


def test_a_volume_of_four_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="m being 1, 2 or 3; got"):
        pareto.hypervolume(np.zeros((2, 4)), np.ones(4))


# Fronts


def test_ranks_are_those_of_peeling_one_front_after_the_other() -> None:
    losses = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    losses[7] = np.inf  # a trial that failed
    left, rank, ranks = set(range(60)), 0, pareto.fronts(losses)
    while left:
        beaten = {a for a in left for b in left if all(losses[b] <= losses[a]) and any(losses[b] < losses[a])}
        ahead = left - beaten
        assert {at for at in range(60) if ranks[at] == rank} == ahead
        left, rank = left - ahead, rank + 1
    assert ranks[7] == rank - 1 and not pareto.front(losses)[7]


def test_equal_points_stand_on_the_front_together() -> None:
    losses = np.array([[1.0, 2], [1, 2], [2, 1], [2, 2]])
    assert pareto.front(losses).tolist() == [True, True, True, False]


# The study


def test_the_front_is_within_the_limit_and_dominated_by_nothing() -> None:
    study = searched()
    assert study.goals is not None and study.goals.names == ("accuracy", "bytes")
    kept = [trial for trial in study.trials if trial.values["bytes"] <= 500]
    ahead = [
        one
        for one in kept
        if not any(
            other.values["accuracy"] >= one.values["accuracy"]
            and other.values["bytes"] <= one.values["bytes"]
            and other.values != one.values
            for other in kept
        )
    ]
    assert 3 < len(ahead) < len(kept) < 60
    assert list(study.front) == sorted(ahead, key=lambda trial: trial.values["bytes"])
    assert all(trial.value is None and not trial.scores for trial in study.trials)


def test_the_best_within_limits_is_the_most_accurate_of_those_that_keep_them() -> None:
    study = searched()
    for most in (300, 500, 9999):  # the study's own limit of 500 holds whatever is asked for
        kept = [trial for trial in study.trials if trial.values["bytes"] <= min(most, 500)]
        assert study.best_within(bytes=most) == max(kept, key=lambda trial: trial.values["accuracy"])
    assert study.best_within() == study.best_within(bytes=500)
    assert study.best_within(accuracy=0.2).values["accuracy"] >= 0.2
    with pytest.raises(
        ValueError, match=r"no trial of 60 keeps the limits; the best of each objective alone: accuracy="
    ):
        study.best_within(bytes=1)
    with pytest.raises(ValueError, match="colour is no objective; the study has accuracy, bytes"):
        study.best_within(colour=3)
    with pytest.raises(ValueError, match="bytes must be above 0"):
        study.best_within(bytes=0)
    with pytest.raises(ValueError, match="no trial of 0 is done"):
        Study(SPACE, objectives=GOALS).best_within()


def test_volumes_grow_with_the_trials_and_are_of_the_front() -> None:
    study = searched()
    volumes = study.hypervolumes(accuracy=0.1)
    assert len(volumes) == 60 and list(volumes) == sorted(volumes) and volumes[-1] == study.hypervolume(accuracy=0.1)
    losses = np.array([[-each.values["accuracy"], math.log(each.values["bytes"])] for each in study.front])
    assert volumes[-1] == pytest.approx(pareto.hypervolume(losses, np.array([-0.1, math.log(500)])))
    assert Study(SPACE, objectives=GOALS).hypervolume(accuracy=0.1) == 0
    with pytest.raises(
        ValueError, match="corner needs the worst accuracy that counts, such as accuracy=...: it has no"
    ):
        study.hypervolume(bytes=400)


def test_what_is_maximised_is_the_mirror_of_what_is_minimised() -> None:
    def mirrored(config: Mapping[str, Any]) -> dict[str, float]:
        return {"miss": -objective(config)["accuracy"], "bytes": objective(config)["bytes"]}

    study = searched(accuracy=Goal(maximise=True), bytes=Goal())
    other = Study(SPACE, objectives={"miss": Goal(), "bytes": Goal()}).run(mirrored, Random(seed=0), budget=60)
    assert [trial.number for trial in study.front] == [trial.number for trial in other.front]
    assert study.hypervolume(accuracy=0, bytes=900) == pytest.approx(other.hypervolume(miss=0, bytes=900))


@pytest.mark.parametrize(
    ("gave", "error"),
    [
        ({"accuracy": math.nan, "bytes": 3}, "accuracy: gave nan, where a finite number is needed"),
        ({"accuracy": 1, "bytes": "much"}, "bytes: gave 'much', where a number is needed"),
        ({"accuracy": 1, "bytes": 0}, "bytes: gave 0, which has no logarithm, and its Goal is log=True"),
        ({"accuracy": 1}, "gave no bytes; the study has accuracy, bytes"),
        ({"accuracy": 1, "bytes": 1, "ms": 3}, "gave ms, which is no objective; the study has accuracy, bytes"),
        (0.9, "gave 0.9, where a mapping of accuracy, bytes is needed"),
    ],
)
def test_a_trial_fails_where_one_objective_does(gave: Any, error: str) -> None:
    study = Study(SPACE, objectives=GOALS).run(lambda config: gave, Random(seed=0), budget=2)
    assert [(trial.status, trial.error, trial.values) for trial in study.trials] == [("failed", error, {})] * 2
    assert study.front == () and study.hypervolume(accuracy=0) == 0


def test_several_numbers_count_by_their_mean_and_batches_are_told_one_by_one() -> None:
    def batch(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"accuracy": [0.5, 0.7], "bytes": objective(config)["bytes"]} for config in configs]

    study = Study(SPACE, objectives=GOALS).run(batch, Sobol(seed=0), budget=10, batch=4)
    assert [trial.values["accuracy"] for trial in study.trials] == pytest.approx([0.6] * 10)


def test_the_table_has_a_column_for_each_objective() -> None:
    study = searched()
    table = study.table()
    assert table["mean_test_bytes"].tolist() == [trial.values["bytes"] for trial in study.trials]
    assert table[table.on_front]["number"].tolist() == sorted(trial.number for trial in study.front)
    assert "mean_test_score" not in table and "rank_test_score" not in table


def test_methods_and_words_of_one_objective_are_refused_for_several_and_the_other_way_round() -> None:
    class Nothing:
        def propose(self, space: Space, trials: Any, *, goals: Goals) -> None:
            return None

    study = searched()
    with pytest.raises(
        TypeError, match="method must be Random, Sobol, NSGA2, ParEGO or EHVI, for several objectives; got"
    ):
        study.run(objective, Bayes(), budget=70)
    with pytest.raises(TypeError, match=r"method must be one that searches for one objective, such as Bayes\(\); got"):
        Study(SPACE).run(len, Nothing(), budget=3)
    one: list[Any] = [lambda: study.best, study.best_so_far]
    for what in one:
        with pytest.raises(ValueError, match="is of one objective, and this study has accuracy, bytes: use"):
            what()
    many: list[Any] = [lambda: Study(SPACE).front, Study(SPACE).hypervolume, Study(SPACE).best_within]
    for what in many:
        with pytest.raises(ValueError, match="is of several objectives, and this study has one: use best"):
            what()
    two = Study(Space({"x": Choice(1, 2)}), objectives=GOALS)
    assert len(two.run(lambda config: {"accuracy": 1, "bytes": 2}, Grid(), budget=9).front) == 2  # equal ones


@pytest.mark.parametrize(
    ("objectives", "error", "match"),
    [
        ({}, ValueError, "objectives must be two or more .* got none"),
        ({"a": Goal()}, ValueError, "objectives must be two or more .* got a"),
        ({"": Goal(), "b": Goal()}, TypeError, "a name must be text, and not empty; got ''"),
        ({"a": "maximise", "b": Goal()}, TypeError, "a must be a Goal, such as .* got 'maximise'"),
        ([Goal(), Goal()], TypeError, "objectives must map names to a Goal each; got"),
    ],
)
def test_objectives_that_are_none(objectives: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Study(SPACE, objectives=objectives)


def test_goals_that_are_none() -> None:
    with pytest.raises(ValueError, match="maximise must be left out where there are objectives"):
        Study(SPACE, maximise=True, objectives=GOALS)
    with pytest.raises(ValueError, match="limit must be above 0; got 0"):
        Goal(log=True, limit=0)
    with pytest.raises(ValueError, match="limit must be finite; got nan|limit must be .*nan"):
        Goal(limit=math.nan)
    with pytest.raises(TypeError, match="maximise must be True or False; got 1"):
        Goal(maximise=1)  # type: ignore[arg-type]
    goals = Goals(GOALS)
    assert pickle.loads(pickle.dumps(goals)).as_json() == goals.as_json()


def test_losses_and_values_go_back_and_forth() -> None:
    study, goals = searched(), Goals(GOALS)
    losses = goals.losses(study.trials)
    values = [[trial.values["accuracy"], trial.values["bytes"]] for trial in study.trials]
    assert goals.values(losses) == pytest.approx(np.array(values))
    corner = goals.corner(losses)
    assert corner[1] == pytest.approx(math.log(500)) and (losses[pareto.front(losses)][:, 0] < corner[0]).all()


# The file


def test_a_file_keeps_what_was_measured_and_its_goals(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    study = Study(SPACE, objectives=GOALS, path=path).run(objective, Random(seed=0), budget=5)
    first, again = study.trials, Study(SPACE, objectives=GOALS, path=path)
    assert again.trials == first and again.run(objective, Random(seed=0), budget=7).trials[:5] == first
    for objectives in (None, {**GOALS, "bytes": Goal()}, dict(reversed(GOALS.items()))):
        with pytest.raises(ValueError, match="objectives are others than those of the study in .*: give another path"):
            Study(SPACE, objectives=objectives, path=path)


def older_file(path: Path) -> None:
    """A study of one objective, as files of version 2 were."""
    Study(SPACE, path=path).run(lambda config: config["x"], Random(seed=0), budget=3)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE study DROP COLUMN goals")
        connection.execute("ALTER TABLE trials DROP COLUMN measured")
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def test_a_file_of_the_version_before_is_read_and_brought_up_to_date_by_the_first_writing(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    older_file(path)
    before = path.read_bytes()
    study = Study(SPACE, path=path)
    assert [trial.status for trial in study.trials] == ["done"] * 3 and study.best.value is not None
    assert path.read_bytes() == before, "reading changes nothing"
    with pytest.raises(ValueError, match="which has one objective: give another path"):
        Study(SPACE, objectives=GOALS, path=path)
    study.run(lambda config: config["x"], Random(seed=0), budget=5)
    assert len(Study(SPACE, path=path).trials) == 5
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (STORE.version,)
        assert {json.loads(row[0]) is None for row in connection.execute("SELECT goals FROM study")} == {True}
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(StudyError, match="it says version 1, which never was"):
        Study(SPACE, path=path)
