"""Importance, against functions whose shares of variance are known, and against what is drawn from the forest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from kit.search import Choice, Float, Int, Random, Space, Study, Trial, importance
from kit.search.pareto import Goal

CUBE = Space({name: Float(0, 1) for name in "abc"})


def trials(formula: Callable[..., float], n: int = 800, space: Space = CUBE, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    configs = [space.decode(rng.random(len(space))) for _ in range(n)]
    return [Trial(at, config, "done", value=formula(**config)) for at, config in enumerate(configs)]


@pytest.mark.parametrize(
    ("formula", "shares"),
    [
        (lambda a, b, c: 2 * a + b, [0.8, 0.2, 0.0]),
        (lambda a, b, c: math.sin(2 * math.pi * b), [0.0, 1.0, 0.0]),
        (lambda a, b, c: float(c > 0.25) + 0 * a, [0.0, 0.0, 1.0]),
        (lambda a, b, c: (a - 0.5) * (b - 0.5), [0.0, 0.0, 0.0]),  # only together
        (lambda a, b, c: a + float(b > 0.5 and c > 0.5), [4 / 13, 3 / 13, 3 / 13]),  # and 3 / 13 together
    ],
)
def test_shares_are_those_of_the_function(formula: Callable[..., float], shares: list[float]) -> None:
    found = importance(CUBE, trials(formula))
    assert list(found) == ["a", "b", "c"]
    assert list(found.values()) == pytest.approx(shares, abs=0.05)


def test_shares_are_those_of_the_forest() -> None:
    """First-order indices of each tree by Monte Carlo: Var E[f | x_j] / Var f, two draws that share x_j."""
    drawn = trials(lambda a, b, c: math.exp(a) * (1 + b) + c, n=60)
    places, values = np.array([CUBE.encode(each.config) for each in drawn]), [each.value for each in drawn]
    forest = RandomForestRegressor(64, min_samples_leaf=3, random_state=5).fit(places, values)
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 20_000, 3))
    wanted = []
    for at in range(3):
        mixed = second.copy()
        mixed[:, at] = first[:, at]
        of_trees = []
        for tree in forest.estimators_:
            one, other = tree.predict(first), tree.predict(mixed)
            of_trees.append(np.cov(one, other)[0, 1] / np.var(one))
        wanted.append(np.mean(of_trees))
    found = importance(CUBE, drawn, seed=5)
    assert list(found.values()) == pytest.approx(wanted, abs=0.01)
    assert sum(found.values()) <= 1


def test_uneven_trials_count_no_more() -> None:
    """Nearly all trials where b does nothing; over the whole space it does most."""
    rng = np.random.default_rng(0)
    places = rng.random((2000, 3))
    places[:1800, 1] *= 0.1
    drawn = [
        Trial(at, dict(zip("abc", place, strict=True)), "done", value=float(3 * (place[1] > 0.5) + place[0]))
        for at, place in enumerate(places.tolist())
    ]
    found = importance(CUBE, drawn)
    assert found["b"] == pytest.approx(9 / 4 / (9 / 4 + 1 / 12), abs=0.05)


def test_whole_numbers_and_choices_count_by_their_part_of_the_cube() -> None:
    space = Space({"n": Int(1, 4), "kind": Choice("x", "y", "z"), "lr": Float(1e-4, 1, log=True)})
    found = importance(space, trials(lambda n, kind, lr: n + 3.0 * (kind == "y") + math.log10(lr), space=space))
    parts = np.array([15 / 12, 2.0, 16 / 12])  # variances: of 1 .. 4, of 3 with probability 1/3, of a range of 4
    assert list(found.values()) == pytest.approx(list(parts / parts.sum()), abs=0.05)


def test_of_several_objectives_one_is_named() -> None:
    space = Space({"a": Float(0, 1), "b": Float(0, 1)})
    study = Study(space, objectives={"error": Goal(), "bytes": Goal(log=True)})
    study.run(lambda config: {"error": config["a"], "bytes": 10 ** (4 * config["b"])}, Random(), budget=150)
    assert importance(space, study.trials, "error") == pytest.approx({"a": 1, "b": 0}, abs=0.05)
    assert importance(space, study.trials, "bytes", log=True) == pytest.approx({"a": 0, "b": 1}, abs=0.05)
    as_logarithms = [
        Trial(each.number, each.config, "done", value=math.log(each.values["bytes"])) for each in study.trials
    ]
    assert importance(space, study.trials, "bytes", log=True) == importance(space, as_logarithms)
    with pytest.raises(ValueError, match=r"what must be the name of an objective \(error, bytes\); got 'size'"):
        importance(space, study.trials, "size")
    with pytest.raises(ValueError, match=r"what must be the name of an objective \(error, bytes\); got None"):
        importance(space, study.trials)


def test_only_what_is_done_counts() -> None:
    done = trials(lambda a, b, c: a, n=40)
    others = [Trial(99, done[0].config, "failed", error="no"), Trial(100, done[0].config, "asked")]
    assert importance(CUBE, [*others, *done]) == importance(CUBE, done)
    assert importance(CUBE, done, seed=1) != importance(CUBE, done)


def test_what_never_changes_has_no_cause() -> None:
    assert importance(CUBE, trials(lambda a, b, c: 7.0, n=20)) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"trials": trials(lambda a, b, c: a, n=7)}, ValueError, "trials must be 8 or more that are done; got 7"),
        ({"trials": []}, ValueError, "trials must be 8 or more that are done; got 0"),
        ({"what": "bytes"}, ValueError, r"what must be the name of an objective \(None, for the value .*got 'bytes'"),
        ({"log": True}, ValueError, "log needs values above 0; got -"),
        ({"seed": -1}, ValueError, "seed must be 0 or more; got -1"),
        ({"space": {"a": 1}}, TypeError, "space must be a Space; got {'a': 1}"),
    ],
)
def test_it_refuses(changed: dict[str, Any], error: type[Exception], sentence: str) -> None:
    given: dict[str, Any] = {"space": CUBE, "trials": trials(lambda a, b, c: a - 0.5, n=20), **changed}
    with pytest.raises(error, match=sentence):
        importance(given.pop("space"), given.pop("trials"), **given)
