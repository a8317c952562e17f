"""Bayesian optimisation: what it proposes, against chance, enumeration and finite differences; and what it costs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, approx_fprime

from kit.search import Bayes, Choice, Config, Float, Int, Listed, Random, Sobol, Space, Study, Trial, bayes, functions
from kit.search import surrogate as surrogates
from kit.search.acquisition import Acquisition, function
from kit.search.bayes import Liar
from kit.search.places import Encoding
from kit.search.surrogate import Kernel, Posterior

BRANIN = functions.branin()
SQUARE = Space({"x": Float(0, 1), "y": Float(0, 1)})
MIXED = Space({"n": Int(0, 30), "rate": Float(1e-4, 1, log=True), "kind": Choice("a", "b", "c", "d")})

each_acquisition = pytest.mark.parametrize("acquisition", get_args(Acquisition))
each_liar = pytest.mark.parametrize("liar", get_args(Liar))


def bowl(config: Config) -> float:
    return (config["x"] - 0.75) ** 2 + (config["y"] - 0.5) ** 2


def mixed(config: Config) -> float:
    """Its minimum is 0, at 7, 0.01 and "b"."""
    steps = (config["n"] - 7) ** 2 / 50 + math.log10(config["rate"] / 0.01) ** 2
    return steps + "bcad".index(config["kind"])


def by_chance(space: Space, objective: Callable[[Config], float], n: int, seed: int = 0) -> tuple[Trial, ...]:
    return Study(space).run(objective, Random(seed), budget=n).trials


def proposed(method: Bayes, space: Space, trials: Sequence[Trial], *, maximise: bool = False) -> Config:
    proposal = method.propose(space, trials, maximise=maximise)
    assert proposal is not None
    return proposal.config


def distances(space: Space, configs: Sequence[Config]) -> np.ndarray:
    """In the unit cube, between all pairs."""
    places = np.array([space.encode(config) for config in configs])
    return np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(len(places), 1)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Posterior]:
    """The processes that proposals ask, in order."""
    made: list[Posterior] = []

    def spy(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> Posterior:
        made.append(Posterior(kernel, x, y))
        return made[-1]

    monkeypatch.setattr(bayes, "Posterior", spy)
    return made


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many places each fit of a kernel sees, in order; none is remembered from before."""
    sizes: list[int] = []
    plain = surrogates._Regressor.fit

    def spy(self: Any, x: np.ndarray, y: np.ndarray) -> Any:
        sizes.append(len(x))
        return plain(self, x, y)

    monkeypatch.setattr(surrogates._Regressor, "fit", spy)
    bayes._kernel.cache_clear()
    return sizes


# -- it finds the best -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chance() -> float:
    """Median regret on Branin after 25 trials by chance."""
    return float(np.median([regret(Random(seed)) for seed in range(25)]))


def regret(method: Bayes | Random) -> float:
    return BRANIN.regret(Study(BRANIN.space).run(BRANIN, method, budget=25).best.config)


@pytest.mark.parametrize(
    ("acquisition", "n", "factor"), [("ei", 5, 3), ("pi", 3, 1), ("ucb", 3, 1), ("thompson", 3, 1)]
)
def test_it_beats_chance(acquisition: Acquisition, n: int, factor: int, chance: float) -> None:
    assert np.median([regret(Bayes(acquisition, seed=seed)) for seed in range(n)]) < chance / factor


def test_it_finds_the_best_whole_numbers() -> None:
    """After 25 of 961 it has one of the best 1 %; by chance it would be one of the best 4 %."""
    space = Space({"n": Int(0, 30), "m": Int(0, 30)})

    def objective(config: Config) -> float:
        return (config["n"] - 7) ** 2 + (config["m"] - 22) ** 2 + 0.3 * config["n"] * (config["m"] % 3)

    everything = np.array([objective({"n": n, "m": m}) for n in range(31) for m in range(31)])
    found = [Study(space).run(objective, Bayes(seed=seed), budget=25).best.value for seed in range(3)]
    assert (everything < np.median(np.array(found, dtype=float))).sum() < 0.01 * len(everything)


def test_it_searches_numbers_and_options_together() -> None:
    def best(method: Bayes | Random) -> float:
        return mixed(Study(MIXED).run(mixed, method, budget=20).best.config)

    found, by_chance = ([best(kind(seed=seed)) for seed in range(3)] for kind in (Bayes, Random))
    assert np.median(found) < 0.3 * np.median(by_chance)


# -- what it proposes --------------------------------------------------------------------------------------------------


@each_acquisition
@pytest.mark.parametrize("told", [2, 12])
def test_a_finite_space_is_tried_once_and_to_the_end(acquisition: Acquisition, told: int) -> None:
    """Whether trials are told or only asked."""
    space, method = Space({"n": Int(1, 4), "kind": Choice("a", "b", 3)}), Bayes(acquisition, start=1)
    study = Study(space).run(lambda config: config["n"] * len(str(config["kind"])), method, budget=told)
    assert all(study.ask(method) is not None for _ in range(12 - told))
    configs = {(trial.config["n"], trial.config["kind"]) for trial in study.trials}
    assert configs == set(itertools.product((1, 2, 3, 4), ("a", "b", 3)))
    assert study.ask(method) is None
    assert len(study.run(bowl, method, budget=50).trials) == 12


@pytest.mark.parametrize("seed", range(3))
def test_it_keeps_away_from_failures(seed: int) -> None:
    """Half of the square fails; of 20 proposals after the first ones, at most a quarter lies there."""

    def objective(config: Config) -> float:
        if config["x"] < 0.5:
            raise ValueError("no")
        return bowl(config)

    study = Study(SQUARE).run(objective, Bayes(start=10, seed=seed), budget=30)
    failed = [trial.status == "failed" for trial in study.trials]
    assert any(failed[:10])
    assert sum(failed[10:]) <= 5
    assert study.best.value is not None
    assert study.best.value < 1e-3


@pytest.mark.parametrize("result", [math.nan, math.inf, ValueError("no"), None])
def test_a_failed_trial_counts_as_the_worst(seen: list[Posterior], result: Any) -> None:
    study = Study(SQUARE)
    for at, value in enumerate([3.0, 1.0, result, 2.0]):
        study.tell(study.enqueue({"x": 0.1 + 0.2 * at, "y": 0.5}).number, value)
    assert study.trials[2].status == "failed"
    assert study.ask(Bayes(start=4)) is not None
    expected = np.array([3.0, 1.0, 3.0, 2.0])
    np.testing.assert_allclose(seen[-1].y, (expected - expected.mean()) / expected.std())


@pytest.mark.parametrize("start", [1, 3])
def test_the_first_trials_are_quasi_random_and_all_where_all_fail(start: int) -> None:
    own = Study(BRANIN.space).run(BRANIN, Bayes(start=start, seed=5), budget=start + 1)
    failing = Study(BRANIN.space)
    failing.run(lambda config: math.nan, Bayes(start=start, seed=5), budget=start + 3, failures=None)
    sobol = [trial.config for trial in Study(BRANIN.space).run(BRANIN, Sobol(seed=5), budget=start + 3).trials]
    same = [trial.config == config for trial, config in zip(own.trials, sobol, strict=False)]
    assert same == [True] * start + [False]
    assert [trial.config for trial in failing.trials] == sobol


@each_liar
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_spreads_out(liar: Liar, seed: int) -> None:
    """Without the first one under way, the second would be at the same place."""
    method, other = Bayes(liar=liar, seed=seed), Bayes(liar=liar, seed=seed + 100)
    told = by_chance(SQUARE, bowl, 12, seed)
    first = proposed(method, SQUARE, told)
    assert distances(SQUARE, [first, proposed(other, SQUARE, told)])[0] < 0.01
    batch = [Trial(12, first)]
    while len(batch) < 5:
        batch.append(Trial(12 + len(batch), proposed(method, SQUARE, (*told, *batch))))
    assert distances(SQUARE, [trial.config for trial in batch]).min() > 0.01


@each_liar
def test_a_trial_under_way_is_given_the_liars_value(seen: list[Posterior], liar: Liar) -> None:
    told = by_chance(SQUARE, bowl, 10)
    values = np.array([trial.value for trial in told], dtype=float)
    config = {"x": 0.5, "y": 0.25}
    proposed(Bayes(liar=liar), SQUARE, (*told, Trial(10, config)))
    lie = {"best": values.min(), "mean": values.mean(), "worst": values.max()}[liar]
    expected = (np.append(values, lie) - values.mean()) / values.std()
    np.testing.assert_allclose(seen[-1].y, expected, atol=1e-12)
    np.testing.assert_allclose(seen[-1].x[-1], [0.5, 0.25])


@each_acquisition
def test_to_maximise_is_to_minimise_the_opposite(acquisition: Acquisition) -> None:
    method = Bayes(acquisition, seed=2)
    down = Study(BRANIN.space).run(BRANIN, method, budget=14)
    up = Study(BRANIN.space, maximise=True).run(lambda config: -BRANIN(config), method, budget=14)
    assert [trial.config for trial in up.trials] == [trial.config for trial in down.trials]
    wrong = Study(BRANIN.space, maximise=True).run(BRANIN, method, budget=14)
    assert [trial.config for trial in wrong.trials] != [trial.config for trial in down.trials]


def test_the_unit_of_the_values_changes_nothing() -> None:
    told = by_chance(SQUARE, bowl, 10)
    other = by_chance(SQUARE, lambda config: 7 + 1e6 * bowl(config), 10)
    assert distances(SQUARE, [proposed(Bayes(), SQUARE, told), proposed(Bayes(), SQUARE, other)])[0] < 1e-3


def awkward(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Values in steps of 1/1024, so that what is added to them changes no digit."""
    values = np.round(rng.standard_normal(int(rng.integers(7, 16))) * 1024) / 1024
    if kind == "ties":
        values = np.round(values)
    elif kind == "outlier":
        values[rng.integers(len(values))] = 2.0**20
    elif kind in ("quartiles", "constant"):
        values[: len(values) - 2 * (kind == "quartiles")] = 0.5
    return values


@pytest.mark.parametrize("kind", ["plain", "ties", "outlier", "quartiles", "constant"])
@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson"])
def test_neither_height_nor_unit_of_the_values_changes_a_proposal(kind: str, acquisition: Acquisition) -> None:
    rng = np.random.default_rng(len(kind))
    values, method = awkward(kind, rng), Bayes(acquisition, start=3)
    configs = [SQUARE.decode(place) for place in rng.random((len(values), 2))]

    def after(found: np.ndarray) -> Config:
        trials = [Trial(at, configs[at], "done", value=value) for at, value in enumerate(found.tolist())]
        return proposed(method, SQUARE, [*trials, Trial(len(trials), {"x": 0.25, "y": 0.75})])

    wanted = after(values)
    for shift, factor in ((1, 1), (-0.5, 1), (1e6, 1), (-1e6, 2.0**-3), (0, 2.0**-500), (2.0**20, 2.0**5)):
        assert after(shift + factor * values) == wanted
    assert distances(SQUARE, [after(100 * values + 1 / 3), wanted])[0] < 1e-6  # these are rounded


def test_equal_values_are_nothing_but_equal() -> None:
    """The mean of twelve times 0.1 is not 0.1."""
    told = by_chance(SQUARE, lambda config: 0.1, 12)
    assert np.full(12, 0.1).mean() != 0.1
    model = Bayes().model(SQUARE, told, maximise=False)
    assert not model.posterior.y.any()
    assert (model.centre, model.spread) == (0.1, 1.0)


@each_acquisition
def test_equal_values_are_no_obstacle_and_a_batch_repeats_nothing(acquisition: Acquisition) -> None:
    study = Study(MIXED).run(lambda config: 3.0, Bayes(acquisition, start=1), budget=6)
    assert [trial.status for trial in study.trials] == ["done"] * 6
    assert all(study.ask(Bayes(acquisition)) is not None for _ in range(5))
    assert distances(MIXED, [trial.config for trial in study.trials]).min() > 1e-6


# -- the model to look at ----------------------------------------------------------------------------------------------


@each_acquisition
@pytest.mark.parametrize("maximise", [False, True])
def test_the_model_speaks_in_the_objectives_values(acquisition: Acquisition, maximise: bool) -> None:
    told = by_chance(SQUARE, lambda config: 7 + 100 * bowl(config), 10)
    values = np.array([trial.value for trial in told], dtype=float)
    method, kernel = Bayes(acquisition, xi=0.5, beta=1.5, seed=3), Kernel((0.4, 0.4), noise=1e-6)
    given = [dataclasses.replace(trial, value=-(trial.value or 0.0)) for trial in told] if maximise else told
    model = method.model(SQUARE, given, maximise=maximise, kernel=kernel, clip=False)
    sign = -1 if maximise else 1
    tried = np.array([SQUARE.encode(trial.config) for trial in told])
    assert model.band(tried, 1)[0] == pytest.approx(sign * values, abs=0.1)
    places = np.random.default_rng(0).random((40, 2))
    mean, low, high = model.band(places, 1)
    std = high - mean
    assert mean - low == pytest.approx(std) and std.min() > 0
    draws = mean + std * np.random.default_rng(1).standard_normal((100_000, 1))
    best = sign * (model.band(tried, 1)[0] * sign).min() - sign * 0.5 * values.std()
    wanted = {
        "ei": np.maximum(sign * (best - draws), 0).mean(0),
        "pi": (sign * (best - draws) > 0).mean(0),
        "ucb": mean - sign * 1.5 * std,
        "thompson": model.samples(places, 1, [3, 10])[0],
    }[acquisition]
    scores = model.scores(places)
    assert model.plain(scores) == pytest.approx(wanted, rel=0.1, abs=0.02)
    worst_first = np.argsort(wanted * (1 if acquisition in ("ei", "pi") else -sign))
    assert scores[worst_first[-1]] == pytest.approx(scores.max(), abs=0.05)


@each_acquisition
@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("bounds", [(0, 1), (-3.0, 7.0)])
def test_known_bounds_are_believed(acquisition: Acquisition, maximise: bool, bounds: tuple[float, float]) -> None:
    """The model is one of log-odds: by hand, at both ends of the range too."""
    low, high = bounds
    shares = np.array([0.0, 0.1, 0.5, 0.97, 0.98, 1.0])
    told = [
        Trial(at, {"x": at / 5, "y": 0.5}, "done", value=low + (high - low) * share)
        for at, share in enumerate(shares.tolist())
    ]
    told.append(Trial(6, {"x": 0.3, "y": 0.1}, "failed"))
    kernel, places = Kernel((0.2, 0.2), noise=1e-6), np.random.default_rng(0).random((40, 2))
    method = Bayes(acquisition, bounds=bounds, beta=4.0)
    model = method.model(SQUARE, told, maximise=maximise, kernel=kernel)
    worst = shares.min() if maximise else shares.max()
    odds = np.log((np.append(shares, worst) + bayes.EDGE) / (1 - np.append(shares, worst) + bayes.EDGE))
    y = (-1 if maximise else 1) * (odds - odds.mean()) / odds.std()
    assert model.posterior.y == pytest.approx(y)
    tried = np.array([SQUARE.encode(trial.config) for trial in told])
    assert model.band(tried, 0)[0] == pytest.approx(low + (high - low) * np.append(shares, worst), abs=1e-3)
    ends = model.band(places, 3)
    assert (ends[1] <= ends[0]).all() and (ends[0] <= ends[2]).all()
    everything = np.concatenate([*ends, model.samples(places, 20, 0).ravel()])
    assert low <= everything.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < everything.max() <= high
    mean, std = model.posterior.predict(places)
    best = model.posterior.predict(tried)[0].min()
    drawn = mean + std * np.random.default_rng(1).standard_normal((100_000, 1))
    gain = np.maximum(best - drawn, 0).mean(0)  # of the standardised log-odds
    wanted = {
        "ei": np.abs(model.own(best - gain) - model.own(np.array(best))),
        "pi": (drawn < best - 0.01).mean(0),
        "ucb": model.own(mean - 4 * std),
        "thompson": model.samples(places, 1, [0, 7])[0],
    }[acquisition]
    assert model.plain(model.scores(places)) == pytest.approx(wanted, rel=0.1, abs=0.01 * (high - low))


def test_bounds_change_what_is_proposed_and_their_unit_does_not() -> None:
    def after(factor: float, bounds: Any) -> Config:
        told = by_chance(SQUARE, lambda config: factor * math.exp(-5 * bowl(config)), 8)
        return proposed(Bayes(start=3, bounds=bounds), SQUARE, told, maximise=True)

    shares, per_cent, plain = after(1, (0, 1)), after(100, (0, 100)), after(1, None)
    assert distances(SQUARE, [shares, per_cent])[0] < 1e-3 < distances(SQUARE, [shares, plain])[0]


@pytest.mark.parametrize(
    ("bounds", "sentence"),
    [
        (0.5, r"bounds must be a pair of numbers or None; got 0\.5\."),
        ((0, 1, 2), r"bounds must be a pair of numbers or None; got \(0, 1, 2\)\."),
        ((1, 0), r"bounds must be a lower and a higher number; got \(1, 0\)\."),
        ((1, 1), r"bounds must be a lower and a higher number; got \(1, 1\)\."),
        ((-1e308, 1e308), r"bounds must be a lower and a higher number; got \(-1e\+308, 1e\+308\)\."),
        ((0, math.inf), r"bounds must be finite; got inf\."),
        ((0, "1"), r"bounds must be a number; got '1'\."),
    ],
)
def test_bounds_that_are_none_are_refused(bounds: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}$"):
        Bayes(bounds=bounds)


@pytest.mark.parametrize("value", [97.5, -0.001])
def test_a_value_out_of_bounds_is_refused(value: float) -> None:
    study = Study(SQUARE, maximise=True)
    for result in (0.2, 0.4, value):
        study.tell(study.enqueue({"x": 0.1, "y": 0.5}).number, result)
    sentence = rf"^bounds must hold every value; trial 2 gave {value}, which lies outside of 0 \.\. 1\.$"
    with pytest.raises(ValueError, match=sentence):
        study.ask(Bayes(start=3, bounds=(0, 1)))


def test_far_values_are_cut_unless_they_are_to_be_seen_and_nearly_equal_ones_are_not_blown_up() -> None:
    told = [*by_chance(SQUARE, bowl, 9), Trial(9, {"x": 0.0, "y": 0.0}, "done", value=1e6)]
    centres = [Bayes().model(SQUARE, told, maximise=False, clip=clip).centre for clip in (True, False)]
    assert centres[0] < 10 < centres[1]
    flat = by_chance(SQUARE, lambda config: 0.9 + 1e-9 * config["x"], 6)
    assert Bayes().model(SQUARE, flat, maximise=True, least_spread=0.01).spread == 0.01
    assert Bayes().model(SQUARE, flat, maximise=True).spread < 1e-8


@pytest.mark.parametrize("acquisition", ["ei", "ucb"])
def test_a_climb_that_fails_ends_no_lower_than_it_began(monkeypatch: pytest.MonkeyPatch, acquisition: Any) -> None:
    """Both climbs: of the acquisition function, and of the kernel's likelihood."""

    def lost(objective: Any, start: np.ndarray, **settings: Any) -> OptimizeResult:
        return OptimizeResult(x=np.zeros_like(start), fun=math.nan, success=False)

    told = by_chance(SQUARE, bowl, 9)
    bayes._kernel.cache_clear()
    monkeypatch.setattr(surrogates, "minimize", lost)
    model = Bayes(acquisition).model(SQUARE, told, maximise=False)
    centre, _ = surrogates.prior(2)
    assert model.posterior.kernel.lengths == pytest.approx(np.exp(centre[1:-1]))
    places = np.array(model.best_places())
    assert model.scores(places)[0] == pytest.approx(model.scores(places).max())
    bayes._kernel.cache_clear()


# -- slopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ["ei", "pi", "ucb"])
def test_what_is_climbed_has_the_slope_of_finite_differences(seen: list[Posterior], acquisition: Any) -> None:
    """By mean and deviation, and by the place."""
    method = Bayes(acquisition, beta=1.3, xi=0.2)
    proposed(method, SQUARE, by_chance(SQUARE, bowl, 12))
    model = seen[-1]
    value_of = function(acquisition, float(model.y.min()), method.exploration)
    for place in 0.1 + 0.8 * np.random.default_rng(1).random((6, 2)):
        mean, std, mean_slope, std_slope = model.slopes(place)
        _, by_mean, by_std = value_of(np.array(mean), np.array(std))
        numeric = approx_fprime([mean, std], lambda both: value_of(both[:1], both[1:])[0][0], 1e-7 * std)
        np.testing.assert_allclose([by_mean, by_std], numeric, rtol=1e-3)
        numeric = approx_fprime(place, lambda at: value_of(*model.predict(at[None]))[0][0], 1e-6)
        slope = by_mean * mean_slope + by_std * std_slope
        np.testing.assert_allclose(slope, numeric, atol=1e-3 * abs(numeric).max())


@pytest.mark.parametrize("acquisition", ["ei", "ucb"])
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_it_proposes_where_the_acquisition_is_largest(seen: list[Posterior], acquisition: Any, seed: int) -> None:
    """No place of a lattice of 101 x 101 promises more."""
    method, space = Bayes(acquisition, seed=seed), BRANIN.space
    config = proposed(method, space, by_chance(space, BRANIN, 9, seed))
    model = seen[-1]
    value_of = function(acquisition, float(model.predict(model.x)[0].min()), method.exploration)
    axis = np.linspace(0, 1, 101)
    lattice = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    at_lattice, at_proposal = (value_of(*model.predict(x))[0] for x in (lattice, space.encode(config)[None]))
    assert at_proposal[0] >= at_lattice.max() - 1e-4
    assert at_lattice.std() > 0.1


# -- whole numbers and options -----------------------------------------------------------------------------------------


def test_places_are_seen_by_their_values() -> None:
    """A whole number at the middle of its part, a column an option: by hand."""
    encoding = Encoding(Space({"n": Int(1, 4), "share": Float(0, 2), "kind": Choice("a", "b", "c")}))
    places = np.array([[0.01, 0.3, 0.0], [0.24, 0.3, 0.3], [0.26, 0.31, 0.4], [1.0, 1.0, 1.0]])
    snapped = encoding.snap(places)
    np.testing.assert_allclose(snapped[:, 0], [1 / 8, 1 / 8, 3 / 8, 7 / 8])
    np.testing.assert_array_equal(snapped[:, 1], places[:, 1])
    np.testing.assert_allclose(snapped[:, 2], [1 / 6, 1 / 6, 1 / 2, 5 / 6])
    expected = [[1 / 8, 0.3, 1, 0, 0], [1 / 8, 0.3, 1, 0, 0], [3 / 8, 0.31, 0, 1, 0], [7 / 8, 1, 0, 0, 1]]
    features = encoding.features(snapped)
    np.testing.assert_allclose(features, expected)
    np.testing.assert_allclose([encoding.place(row) for row in features], snapped)


def test_neighbours_are_a_step_or_an_option_away() -> None:
    space = Space({"n": Int(1, 4), "share": Float(0, 2), "kind": Choice("a", "b", "c")})

    def around(n: int, kind: str) -> list[tuple[int, str]]:
        place = space.encode({"n": n, "share": 0.5, "kind": kind})
        near = [space.decode(other) for other in Encoding(space).neighbours(place)]
        assert all(config["share"] == pytest.approx(0.5) for config in near)
        return sorted((config["n"], config["kind"]) for config in near)

    assert around(2, "b") == [(1, "b"), (2, "a"), (2, "c"), (3, "b")]
    assert around(1, "a") == [(1, "b"), (1, "c"), (2, "a")]
    assert Encoding(SQUARE).neighbours(np.array([0.5, 0.5])).shape == (0, 2)


# -- no state, and bounded work ----------------------------------------------------------------------------------------


@each_acquisition
def test_the_proposal_follows_from_the_trials_alone(acquisition: Acquisition, fits: list[int]) -> None:
    """With and without kernels that are remembered, in any order of questions."""
    told, method = by_chance(MIXED, mixed, 14), Bayes(acquisition, seed=1)
    first = [proposed(method, MIXED, told[:n]) for n in (10, 12, 14)]
    assert [proposed(method, MIXED, told[:n]) for n in (14, 12, 10)] == first[::-1]
    assert len(fits) == 3
    bayes._kernel.cache_clear()
    assert [proposed(method, MIXED, told[:n]) for n in (14, 12, 10)] == first[::-1]


def test_another_process_proposes_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "study.sqlite")
    study = Study(MIXED, path=path).run(mixed, Random(3), budget=12)
    code = (
        "import json, sys; from kit.search import *; from tests.test_search_bayes import MIXED\n"
        "trials = Study(MIXED, path=sys.argv[1]).trials\n"
        "print(json.dumps([Bayes(a).propose(MIXED, trials, maximise=False).config for a in ('ei', 'thompson')]))"
    )
    root = Path(__file__).parents[1]
    printed = subprocess.check_output([sys.executable, "-c", code, path], text=True, cwd=root, timeout=300)
    assert json.loads(printed) == [proposed(Bayes(name), MIXED, study.trials) for name in ("ei", "thompson")]


def test_work_is_bounded_however_many_trials_there_are(seen: list[Posterior], fits: list[int]) -> None:
    """The best half of what the process sees are the best trials, the others the latest."""
    told, half = by_chance(SQUARE, bowl, 400), bayes.MAX_SEEN // 2
    proposed(Bayes(), SQUARE, told)
    assert [len(model.x) for model in seen] == [bayes.MAX_SEEN]
    assert fits == [surrogates.MAX_FIT]
    best = sorted(told, key=lambda trial: trial.value or 0.0)[:half]
    latest = [trial for trial in told if trial not in best][-half:]
    expected = [SQUARE.encode(each.config) for each in told if each in best or each in latest]
    np.testing.assert_allclose(seen[-1].x, expected, atol=1e-12)


@pytest.mark.parametrize("n", [100, bayes.MAX_SEEN + 30])
def test_most_proposals_need_no_fit(fits: list[int], n: int) -> None:
    told = by_chance(SQUARE, bowl, n + 7)
    for more in range(7):
        proposed(Bayes(), SQUARE, told[: n + more])
    assert len(fits) <= 3


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("acquisition", "EI", "one of ei, pi, ucb, thompson"),
        ("liar", "median", "one of best, mean, worst"),
        *(("start", 0, "1 or more"), ("seed", -1, "0 or more")),
        *(("beta", -0.1, "0 or more"), ("xi", math.nan, "0 or more"), ("xi", "1", "a number")),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any, allowed: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"{name} must be {allowed}; got {value!r}\."):
        Bayes(**{name: value})


def test_settings_change_the_proposal() -> None:
    """Where the bound is of no deviations, the lowest mean is proposed; a larger one goes further away."""
    told = Study(SQUARE).run(bowl, Listed([{"x": x, "y": 0.5} for x in (0.1, 0.3, 0.6, 0.7, 0.9)]), budget=5).trials

    def gap(method: Bayes) -> float:
        """From the nearest trial."""
        here = proposed(method, SQUARE, told)
        return min(float(distances(SQUARE, [here, trial.config])[0]) for trial in told)

    assert gap(Bayes("ucb", start=1, beta=0.0)) < 0.2 < gap(Bayes("ucb", start=1, beta=20.0))
    assert gap(Bayes("pi", start=1, xi=0.0)) < gap(Bayes("pi", start=1, xi=3.0))
