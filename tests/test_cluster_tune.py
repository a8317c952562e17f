"""The kit's methods, spaces and rungs inside Ray Tune: against the kit's own loop, and Ray's draws and loop."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from kit import cluster
from kit.search import ASHA, Bayes, Choice, Config, Float, Goal, Grid, Hyperband, Int, Random, Space, Study, functions

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("ray", reason="Ray is not installed: the extra cluster")
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

SPACE = Space(
    {"lr": Float(1e-4, 1, log=True), "drop": Float(-0.5, 0.5), "width": Int(1, 3), "net": Choice("a", True, 1)}
)


def begun(method: Any, space: Space = SPACE, mode: str | None = "min", **more: Any) -> Any:
    """A searcher as the tuner leaves it before the first trial."""
    searcher = cluster.RayMethod(method, **more)
    metric, mode = (None, None) if "objectives" in more else ("loss", mode)
    assert searcher.set_search_properties(metric, mode, cluster.to_ray(space)) is True
    return searcher


# Spaces


@pytest.mark.parametrize("log", [False, True])
def test_spaces_go_to_ray_and_back(log: bool) -> None:
    space = Space({**SPACE.parameters, "depth": Int(2, 9, log=log), "decay": Float(0.1, 0.3, log=log)})
    assert cluster.from_ray(cluster.to_ray(space)).as_json() == space.as_json()
    assert list(cluster.to_ray(space)) == list(space.names)


@pytest.mark.parametrize("log", [False, True])
def test_ray_draws_every_whole_number_and_no_other(log: bool) -> None:
    drawn = cluster.to_ray(Space({"n": Int(1, 4, log=log)}))["n"].sample(size=500, random_state=0)
    assert set(drawn) == {1, 2, 3, 4}


@pytest.mark.parametrize("log", [False, True])
def test_ray_draws_numbers_over_the_whole_range(log: bool) -> None:
    drawn = np.array(cluster.to_ray(Space({"x": Float(0.01, 100, log=log)}))["x"].sample(size=2000, random_state=0))
    assert drawn.min() >= 0.01 and drawn.max() <= 100
    middle = 1 if log else 50  # half of the draws lie below it
    assert np.mean(drawn < middle) == pytest.approx(0.5, abs=0.05)


def test_options_keep_their_kinds() -> None:
    drawn = cluster.to_ray(Space({"net": Choice("a", True, 1, 1.5, None)}))["net"].sample(size=200, random_state=0)
    assert {(type(each), each) for each in drawn} == {(type(each), each) for each in ("a", True, 1, 1.5, None)}


def test_constants_are_left_out() -> None:
    space = cluster.from_ray({"epochs": 3, "x": tune.uniform(0, 1), "net": {"layers": [1, 2]}})
    assert space == Space({"x": Float(0, 1)})


@pytest.mark.parametrize(
    ("param_space", "sentence"),
    [
        ({"x": tune.quniform(0, 1, 0.1)}, "param_space: x: .*got one that is quantised"),
        ({"x": tune.qrandint(0, 10, 2)}, "param_space: x: .*got one that is quantised"),
        ({"x": tune.randn(0, 1)}, "param_space: x: .*got one that is normal"),
        ({"x": tune.sample_from(lambda config: 3)}, "param_space: x: .*got one that is a function"),
        ({"x": tune.grid_search([1, 2])}, "param_space: x: .*got one that is a grid_search"),
        ({"net": {"x": tune.uniform(0, 1)}}, "param_space: net/x: .*got one that is nested"),
        ({"net": [tune.uniform(0, 1)]}, "param_space: net/0: .*got one that is nested"),
        ({"x": tune.randint(3, 4)}, "param_space: x: low must be below high"),
        ({"x": tune.choice(["a"])}, "param_space: x: options must be two or more"),
        ({"x": tune.choice([(3, 3), (5, 5)])}, "param_space: x: options must be texts"),
        ({"x": 3}, "param_space must have a range.*it has x"),
        ({}, "param_space must have a range.*it has nothing"),
    ],
)
def test_what_a_space_cannot_say_is_refused(param_space: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cluster.from_ray(param_space)


def test_what_is_no_space_is_refused() -> None:
    with pytest.raises(TypeError, match="param_space must be a mapping"):
        cluster.from_ray(cast(Any, [tune.uniform(0, 1)]))
    with pytest.raises(TypeError, match="space must be a Space"):
        cluster.to_ray(cast(Any, {"x": Float(0, 1)}))


# The searcher, called as Ray calls it


@pytest.mark.parametrize("mode", ["min", "max"])
def test_one_after_the_other_the_trials_are_those_of_the_study(mode: str) -> None:
    branin = functions.branin()

    def objective(config: Config) -> float:
        return branin(config) if mode == "min" else -branin(config)

    study = Study(branin.space, maximise=mode == "max").run(objective, Bayes(seed=1), budget=9)
    searcher = begun(Bayes(seed=1), branin.space, mode)
    for at in range(9):
        config = searcher.suggest(f"t{at}")
        result = {"loss": objective(config), "time_total_s": 2.5, "training_iteration": 4}
        searcher.on_trial_complete(f"t{at}", result=result)
    trials = searcher.study.trials
    assert [(trial.config, trial.value) for trial in trials] == [(trial.config, trial.value) for trial in study.trials]
    assert searcher.study.best.value == study.best.value
    assert {(trial.seconds, trial.spent) for trial in trials} == {(2.5, 4)}


def test_failures_are_told_as_failures() -> None:
    searcher = begun(Random(0))
    for name in "abcdef":
        searcher.suggest(name)
    searcher.on_trial_complete("a", error=True)
    searcher.on_trial_complete("b", result={"loss": 1.0}, error=True)
    searcher.on_trial_complete("c")
    searcher.on_trial_complete("d", result={"loss": math.nan})
    searcher.on_trial_complete("e", result={"other": 1.0})
    searcher.on_trial_complete("nobody", result={"loss": 1.0})
    trials = searcher.study.trials
    assert [trial.status for trial in trials] == ["failed"] * 5 + ["asked"]
    assert "Ray's table of results" in trials[0].error and "gave None" in trials[4].error
    searcher.on_trial_complete("f", result={"loss": 1.0})
    searcher.on_trial_complete("f", result={"loss": 2.0})  # Ray may say it again
    assert searcher.study.trials[5].value == 1.0


def test_exhausted_it_waits_for_the_last_one_and_then_says_so() -> None:
    searcher = begun(Grid(), Space({"n": Int(1, 2)}))
    assert [searcher.suggest("a"), searcher.suggest("b")] == [{"n": 1}, {"n": 2}]
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", result={"loss": 1.0})
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize("way", ["file", "pickle"])
def test_saved_and_restored_it_goes_on_as_if_nothing_had_been(way: str, tmp_path: Path) -> None:
    branin = functions.branin()

    def told(searcher: Any, name: str, config: Any) -> None:
        searcher.on_trial_complete(name, result={"loss": branin(config)})

    searcher = begun(Bayes(seed=2), branin.space)
    first = [searcher.suggest(f"t{at}") for at in range(6)]
    for at in range(5):
        told(searcher, f"t{at}", first[at])
    if way == "file":
        searcher.save_to_dir(str(tmp_path))
        other = cluster.RayMethod(Random(9))
        other.restore_from_dir(str(tmp_path))
    else:
        other = pickle.loads(pickle.dumps(searcher))
    assert other.set_search_properties("loss", "min", cluster.to_ray(branin.space)) is True  # as Tuner.restore does
    for each in (searcher, other):
        told(each, "t5", first[5])  # it was under way
        told(each, "t6", each.suggest("t6"))
    assert other.study.trials == searcher.study.trials
    assert len(other.study.trials) == 7


def test_several_objectives() -> None:
    goals = {"accuracy": Goal(maximise=True), "bytes": Goal(log=True, limit=1000)}
    searcher = begun(Random(0), objectives=goals)
    assert (searcher.metric, searcher.mode) == (["accuracy", "bytes"], ["max", "min"])
    results = [{"accuracy": 0.9, "bytes": 900}, {"accuracy": 0.8, "bytes": 950}, {"accuracy": 0.7, "bytes": 100}]
    for at, result in enumerate([*results, {"accuracy": 0.99}]):
        searcher.suggest(f"t{at}")
        searcher.on_trial_complete(f"t{at}", result=result | {"done": True})
    assert {trial.number for trial in searcher.study.front} == {0, 2}
    assert searcher.study.trials[0].values == results[0]
    assert searcher.study.trials[3].status == "failed"


@pytest.mark.parametrize("method", [ASHA(), Hyperband()])
def test_methods_that_continue_trials_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="method must be one that begins each trial anew; got .*cluster.asha"):
        cluster.RayMethod(method)


def test_bad_input_of_the_searcher_is_refused() -> None:
    ranges = cluster.to_ray(SPACE)
    with pytest.raises(TypeError, match="method must be one such as Random"):
        cluster.RayMethod(cast(Any, Random))
    with pytest.raises(TypeError, match="objectives: accuracy must be a Goal"):
        cluster.RayMethod(Random(), objectives=cast(Any, {"accuracy": True, "bytes": False}))
    with pytest.raises(ValueError, match="param_space is needed"):
        cluster.RayMethod(Random()).suggest("t0")
    with pytest.raises(ValueError, match="metric and mode must be given in the TuneConfig; got 'loss' and None"):
        cluster.RayMethod(Random()).set_search_properties("loss", None, ranges)
    goals = {"accuracy": Goal(maximise=True), "bytes": Goal()}
    with pytest.raises(TypeError, match="method must be Random, .*for several objectives; got Bayes"):
        cluster.RayMethod(Bayes(), objectives=goals)
    with pytest.raises(ValueError, match="metric and mode must be None beside objectives; got 'loss' and 'min'"):
        cluster.RayMethod(Random(), objectives=goals).set_search_properties("loss", "min", ranges)
    searcher = begun(Random())
    with pytest.raises(ValueError, match="must be those of the study so far"):
        searcher.set_search_properties("loss", "max", ranges)
    with pytest.raises(ValueError, match="must be those of the study so far"):
        searcher.set_search_properties("loss", "min", {"x": tune.uniform(0, 1)})


# ASHA


def stopped_at(scheduler: Any, losses: list[float], epochs: int) -> list[int]:
    """Where Ray's scheduler stops each of some trials that come one after the other, each with one loss throughout."""
    scheduler.set_search_properties("loss", "min")
    found = []
    for number, loss in enumerate(losses):
        trial = SimpleNamespace(trial_id=f"t{number}")
        scheduler.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            result = {"training_iteration": epoch, "loss": loss}
            if scheduler.on_trial_result(None, trial, result) == "STOP":
                break
        scheduler.on_trial_complete(None, trial, result)
        found.append(epoch)
    return found


def ours(method: ASHA, budget: int, losses: list[float]) -> list[int]:
    """The epochs that the kit's ASHA gives to new trials with these losses, in their order, when `budget` are told."""
    order: dict[float, int] = {}

    def objective(config: Config, epochs: int) -> float:
        return losses[order.setdefault(config["x"], len(order))]

    study = Study(Space({"x": Float(0, 1)})).run(objective, method, budget=budget)
    return [max(t.epochs or 0 for t in study.trials if t.config["x"] == x) for x in order]


def test_rays_scheduler_stops_by_the_rule_of_the_paper_s_stopping_variant_at_the_kits_rungs() -> None:
    method = ASHA(min_epochs=2, max_epochs=54, eta=3)
    losses = np.random.default_rng(0).random(60).tolist()
    rungs: dict[int, list[float]] = {epochs: [] for epochs in method.rungs}
    expected = []
    for loss in losses:
        for epochs, before in rungs.items():
            poor = bool(before) and loss > np.quantile(before, 1 / 3)
            before.append(loss)
            if poor or epochs == method.max_epochs:
                expected.append(epochs)
                break
    got = stopped_at(cluster.asha(method), losses, 100)
    assert got == expected
    assert set(got) == {2, 6, 18, 54} == set(method.rungs)


def test_ray_lets_the_first_go_on_and_never_takes_up_again_what_it_stopped() -> None:
    method, worse = ASHA(max_epochs=9, eta=3), [float(at) for at in range(12)]
    ray_s = stopped_at(cluster.asha(method), worse, 9)
    assert ray_s == [9] + [1] * 11  # each later one is worse than the first
    kit_s = ours(method, 17, worse)  # 12 begin, 4 go on, 1 of them to the end
    assert kit_s == [9, 3, 3, 3] + [1] * 8  # the best 1 in 3


def test_ray_trains_poor_trials_that_come_early_to_the_end() -> None:
    method, better = ASHA(max_epochs=9, eta=3), [float(-at) for at in range(12)]
    assert stopped_at(cluster.asha(method), better, 9) == [9] * 12
    kit_s = ours(method, 20, better)
    assert kit_s[:2] == [1, 1]  # the two worst
    assert 9 in kit_s


def test_rungs_that_ray_would_put_elsewhere_are_refused() -> None:
    with pytest.raises(
        ValueError, match="max_epochs must be the first rung, 1, times a power of eta, 3, such as 27; got"
    ):
        cluster.asha(ASHA(max_epochs=50))
    with pytest.raises(TypeError, match="method must be an ASHA"):
        cluster.asha(cast(Any, Random()))


# Without Ray, and with


def test_the_room_loads_ray_only_when_it_is_needed() -> None:
    code = "import sys; from kit import cluster; cluster.__all__; assert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    with pytest.raises(AttributeError, match="kit.cluster has no 'rays'; it has .*RayMethod"):
        _ = cluster.rays


def test_without_ray_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"need Ray, .* not installed: pip install 'ray\[tune\]'"):
        _ = cluster.RayMethod


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")  # its handler of Ctrl-C stays after the run
    with cluster.local(workers=1):
        yield


def test_a_tuner_tries_what_the_study_would(started: None, tmp_path: Path) -> None:
    space = Space({"x": Float(0, 1), "n": Int(1, 3)})

    def objective(config: Config) -> float:
        if config["n"] == 3:
            raise ArithmeticError("three is too many")
        return config["x"] * config["n"]

    searcher = cluster.RayMethod(Random(4))
    tuner = tune.Tuner(
        lambda config: {"loss": objective(config)},
        param_space=cluster.to_ray(space) | {"batch_size": 32},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", search_alg=searcher, num_samples=4, max_concurrent_trials=1
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    study = Study(space).run(objective, Random(4), budget=4)
    wanted = [(trial.config, trial.status, trial.value) for trial in study.trials]
    assert [(trial.config, trial.status, trial.value) for trial in searcher.study.trials] == wanted
    assert {trial.status for trial in study.trials} == {"done", "failed"}
    assert results.get_best_result().config == study.best.config | {"batch_size": 32}
    assert [results[at].config["x"] for at in range(4)] == [trial.config["x"] for trial in study.trials]
