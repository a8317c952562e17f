"""Grid, given and random configurations: against scikit-learn's, SciPy's, and the laws they should follow."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest, loguniform, qmc, uniform
from sklearn.model_selection import ParameterGrid, ParameterSampler

from kit.search import Bayes, Choice, Config, Float, Grid, Int, Listed, Method, Random, Sobol, Space, Study
from kit.search.random import SOBOL_BLOCK, sobol_points
from kit.search.space import key
from tests.searches import ask

CUBE = Space({"x": Float(0, 1), "y": Float(0, 1)})
SMALL = Space({"a": Int(1, 3), "b": Choice("x", "y"), "c": Int(0, 4)})  # 30 configurations


def tried(space: Space, method: Method, budget: int = 10_000) -> list[Config]:
    return [trial.config for trial in Study(space).run(lambda config: 0.0, method, budget=budget).trials]


# Grid


def test_a_grid_is_scikit_learns() -> None:
    space = Space({"b": Choice("x", None, True, 1), "a": Float(0, 8), "c": Int(3, 4), "d": Float(1e-4, 1, log=True)})
    values = {"b": ["x", None, True, 1], "a": [0.0, 2.0, 4.0, 6.0, 8.0], "c": [3, 4], "d": [1e-4, 1e-3, 1e-2, 0.1, 1]}
    assert Grid(5).values(space) == {**values, "d": pytest.approx(values["d"])}
    exact = Space({"b": space.parameters["b"], "a": Float(0, 8), "c": Int(3, 4)})
    found = tried(exact, Grid(5))
    theirs = list(ParameterGrid({name: values[name] for name in exact.names}))
    assert len(found) == len(theirs) == 40
    assert Counter(map(key, found)) == Counter(key({name: each[name] for name in exact.names}) for each in theirs)


def test_a_sorted_grid_turns_the_last_parameter_quickest() -> None:
    found = tried(Space({"a": Int(1, 2), "b": Choice("x", "y"), "c": Float(0, 1)}), Grid(2))
    assert found == [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("x", "y") for c in (0.0, 1.0)]


def test_points_may_differ_for_each_parameter() -> None:
    space = Space({"a": Int(0, 100), "b": Choice("x", "y"), "c": Int(1, 64, log=True), "d": Int(1, 3, log=True)})
    values = Grid({"d": 9, "a": 3, "b": 7, "c": 4}).values(space)
    assert values["a"] == [0, 50, 100]
    assert values["b"] == ["x", "y"]
    assert values["c"] == [1, 3, 13, 64]  # 0.5 * 129^(1/3) = 2.5+, 0.5 * 129^(2/3) = 12.8
    assert values["d"] == [1, 2, 3]
    few = Grid(7).values(Space({"a": Int(1, 9, log=True)}))["a"]
    assert few == sorted(set(few))  # places that fall on the same whole number count once
    assert (few[0], few[-1]) == (1, 9)


def test_a_shuffled_grid_is_a_permutation() -> None:
    ordered = [key(config) for config in tried(SMALL, Grid())]
    shuffled = [[key(config) for config in tried(SMALL, Grid(order="shuffled", seed=seed))] for seed in (0, 1, 0)]
    assert all(sorted(each) == sorted(ordered) and each != ordered for each in shuffled)
    assert shuffled[1] != shuffled[0] == shuffled[2]


@pytest.mark.parametrize("method", [Grid(), Grid(order="shuffled"), Random(0), Sobol(0)])
def test_a_finite_space_is_exhausted_without_repeats(method: Method) -> None:
    study = Study(SMALL).run(lambda config: 0.0, method, budget=100)
    assert len(study.trials) == 30
    assert len({key(trial.config) for trial in study.trials}) == 30
    assert study.ask(method) is None
    study = Study(SMALL)
    study.enqueue({"a": 2, "b": "y", "c": 1})  # one that you chose counts as tried, even while it is asked
    assert len(study.run(lambda config: 0.0, method, budget=100).trials) == 30


@pytest.mark.parametrize(
    "method", [Random(0), Sobol(0), Bayes(start=3), Grid(9)], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize(
    "space",
    [
        Space({"n": Int(2**53 - 5, 2**53)}),
        Space({"n": Int(2**52, 2**52 + 5, log=True), "flag": Choice(True, False)}),  # its logarithms are all one float
    ],
)
def test_every_value_of_a_finite_space_is_reached_wherever_it_lies(space: Space, method: Method) -> None:
    """A budget that is larger than the space: the search ends."""
    found = tried(space, method, budget=20)
    assert len({key(config) for config in found}) == len(found) == min(space.count, 20)
    assert Study(space).run(lambda config: 0.0, Listed(found), budget=20).ask(method) is None


@pytest.mark.parametrize(
    "method", [Random(0), Sobol(0), Bayes(start=3), Grid(4)], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("parameter", [Float(1e-300, 1e300, log=True), Float(0.5, 0.5 + 1e-9), Int(1, 2**53, log=True)])
def test_the_widest_and_the_closest_ranges_are_searched(parameter: Float | Int, method: Method) -> None:
    space = Space({"a": parameter, "b": Int(-(2**53), 2**53)})
    study = Study(space).run(lambda config: space.encode(config).sum(), method, budget=8)
    assert [trial.status for trial in study.trials] == ["done"] * 8
    assert len({trial.config["a"] for trial in study.trials}) > 1


def test_a_huge_grid_begins_at_once_and_is_not_shuffled() -> None:
    space = Space({f"x{at}": Float(0, 1) for at in range(40)})
    assert tried(space, Grid(5), budget=2) == [
        dict.fromkeys(space.names, 0.0),
        {**dict.fromkeys(space.names, 0.0), "x39": 0.25},
    ]
    with pytest.raises(
        ValueError, match=f"points make {5**40} combinations, too many to shuffle: give fewer, or order="
    ):
        tried(space, Grid(5, order="shuffled"))


@pytest.mark.parametrize("method", [Grid(2), Random(0), Sobol(0)])
def test_one_and_true_are_both_tried(method: Method) -> None:
    found = tried(Space({"flag": Choice(0, 1, True, False, 1.0)}), method)
    wanted = [(int, 0), (int, 1), (bool, True), (bool, False), (float, 1.0)]
    assert Counter((type(config["flag"]), config["flag"]) for config in found) == Counter(wanted)


def test_a_grid_whose_ends_are_rounded_ends() -> None:
    assert len(tried(Space({"x": Float(3, 10, log=True), "y": Float(1, 5)}), Grid(3), budget=30)) == 9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"points": 1}, "points must be 2 or more; got 1."),
        ({"points": 2.0}, "points must be a whole number; got 2.0."),
        ({"points": {"x": 3, "y": 1}}, "points must be 2 or more; got 1."),
        ({"order": "random"}, "order must be one of sorted, shuffled; got 'random'."),
        ({"points": {"x": 3}}, "points must name x, y; got x."),
        ({"points": {"x": 3, "z": 2}}, "got x, z."),
        ({"points": {}}, "got nothing."),
    ],
)
def test_what_makes_no_grid_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        tried(CUBE, Grid(**arguments))


# Given ones


def test_given_configurations_come_in_order_and_may_come_again() -> None:
    given = [{"x": 0.1, "y": 0.2}, {"y": 0.5, "x": 1}, {"x": 0.1, "y": 0.2}]
    assert tried(CUBE, Listed(given)) == given
    assert tried(CUBE, Listed([])) == []
    study = Study(CUBE)
    study.tell(study.enqueue(given[1]).number, 0.0)  # tried already: the others follow
    study.run(lambda config: 0.0, Listed(given), budget=9)
    assert [trial.config for trial in study.trials] == [given[1], given[0], given[2]]
    with pytest.raises(TypeError, match="configs must be a list of configurations; got 5."):
        Listed(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="config: y must be a number from 0 to 1; got 3."):
        tried(CUBE, Listed([{"x": 0.1, "y": 3}]))


# Random


def test_random_draws_follow_scipys_laws() -> None:
    space = Space({"a": Float(-2, 6), "b": Float(1e-5, 10, log=True), "c": Int(1, 6), "d": Choice("x", "y", "z")})
    found = tried(space, Random(seed=3), budget=600)
    assert kstest([config["a"] for config in found], uniform(-2, 8).cdf).pvalue > 0.01
    assert kstest([config["b"] for config in found], loguniform(1e-5, 10).cdf).pvalue > 0.01
    for name, kinds in (("c", 6), ("d", 3)):
        counts = Counter(config[name] for config in found)
        assert len(counts) == kinds
        assert chisquare(list(counts.values())).pvalue > 0.01
    both = sum(config["a"] < 2 and config["b"] < 1e-2 for config in found)  # the halves of two independent numbers
    assert binomtest(both, 600, 0.25).pvalue > 0.01


def test_random_covers_like_scikit_learns_sampler() -> None:
    found = tried(SMALL, Random(seed=0))
    lists = {"a": [1, 2, 3], "b": ["x", "y"], "c": list(range(5))}
    theirs = ParameterSampler(lists, n_iter=30, random_state=0)  # lists only: without repeats
    assert sorted(map(key, found)) == sorted(key({name: each[name] for name in SMALL.names}) for each in theirs)
    assert found != tried(SMALL, Grid())


def test_a_seed_says_every_draw_and_another_seed_says_others() -> None:
    first, again, other = (tried(CUBE, Random(seed), budget=20) for seed in (0, 0, 1))
    assert first == again
    assert not {key(config) for config in first} & {key(config) for config in other}


@pytest.mark.parametrize("method", [Random, Sobol, lambda seed: Grid(seed=seed)], ids=["random", "sobol", "grid"])
def test_what_is_no_seed_is_refused(method: Any) -> None:
    for seed, words in ((-1, "0 or more"), (0.5, "a whole number")):
        with pytest.raises((TypeError, ValueError), match=f"seed must be {words}; got {seed!r}."):
            method(seed=seed)


# Sobol


def test_sobol_points_are_scipys() -> None:
    space = Space({"a": Float(0, 1), "b": Float(-10, 10), "c": Float(1e-3, 1, log=True)})
    found = tried(space, Sobol(seed=5), budget=64)
    points = qmc.Sobol(3, scramble=True, rng=np.random.default_rng(5)).random(64)
    assert [config["a"] for config in found] == points[:, 0].tolist()
    assert [config["b"] for config in found] == pytest.approx((20 * points[:, 1] - 10).tolist())
    assert [config["c"] for config in found] == pytest.approx(loguniform(1e-3, 1).ppf(points[:, 2]).tolist())


def test_sobol_points_go_on_past_a_block() -> None:
    many = sobol_points(2, SOBOL_BLOCK + 1, seed=1)
    assert len(many) > SOBOL_BLOCK
    assert np.array_equal(many[:SOBOL_BLOCK], sobol_points(2, 3, seed=1))


def test_sobol_points_fill_every_slice_of_each_axis() -> None:
    for seed in range(5):
        found = tried(CUBE, Sobol(seed), budget=32)
        for name in CUBE.names:
            assert sorted(math.floor(32 * config[name]) for config in found) == list(range(32))
    by_chance = tried(CUBE, Random(0), budget=32)
    assert len({math.floor(32 * config["x"]) for config in by_chance}) < 32


def test_sobol_covers_the_square_more_evenly_than_chance() -> None:
    def unevenness(method: Method) -> float:
        return float(qmc.discrepancy(np.array([list(config.values()) for config in tried(CUBE, method, budget=64)])))

    assert max(unevenness(Sobol(seed)) for seed in range(3)) < min(unevenness(Random(seed)) for seed in range(3)) / 3


# Lost trials


@pytest.mark.parametrize("method", [Grid(5), Grid(5, order="shuffled"), Random(2), Sobol(2)])
@pytest.mark.parametrize("space", [CUBE, SMALL], ids=["cube", "small"])
def test_the_configuration_of_a_lost_trial_comes_again_and_no_other_does(space: Space, method: Method) -> None:
    study = Study(space)
    assert [ask(study, method).number for _ in range(12)] == list(range(12))
    known = [trial for trial in study.trials if trial.number not in (0, 3, 7, 11)]  # those were lost
    wanted = Counter(key(trial.config) for trial in study.trials)
    for _ in range(4):
        proposal = method.propose(space, known, maximise=False)
        assert proposal is not None
        known.append(study.enqueue(proposal.config))
    found = Counter(key(trial.config) for trial in known)
    assert max(found.values()) == 1
    if space.count == math.inf:
        assert found == wanted
