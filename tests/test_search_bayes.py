"""Bayesian optimisation: what it proposes, against chance, enumeration and finite differences; and what it costs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from kit.search import Bayes, Choice, Config, Float, Int, Listed, Random, Sobol, Space, Study, Trial, bayes, functions
from kit.search import surrogate as surrogates
from kit.search.bayes import Acquisition, Liar, _Encoding
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
    """Told trials of configurations drawn by chance."""
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


def test_it_beats_chance_by_far(chance: float) -> None:
    assert np.median([regret(Bayes(seed=seed)) for seed in range(5)]) < chance / 3


@pytest.mark.parametrize("acquisition", ["pi", "ucb", "thompson"])
def test_each_acquisition_beats_chance(acquisition: Acquisition, chance: float) -> None:
    assert np.median([regret(Bayes(acquisition, seed=seed)) for seed in range(3)]) < chance


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
def test_a_finite_space_is_tried_once_and_to_the_end(acquisition: Acquisition) -> None:
    space = Space({"n": Int(1, 4), "kind": Choice("a", "b", 3)})
    study = Study(space).run(lambda config: config["n"] * len(str(config["kind"])), Bayes(acquisition), budget=50)
    configs = {(trial.config["n"], trial.config["kind"]) for trial in study.trials}
    assert configs == {(n, kind) for n in (1, 2, 3, 4) for kind in ("a", "b", 3)}
    assert len(study.trials) == 12
    assert study.ask(Bayes(acquisition)) is None


def test_asked_trials_are_tried_too() -> None:
    """Two of six are told; the other four are proposed once each, then nothing."""
    space = Space({"n": Int(1, 2), "kind": Choice("a", "b", "c")})
    study = Study(space).run(lambda config: config["n"], Bayes(start=1), budget=2)
    asked = [study.ask(Bayes(start=1)) for _ in range(4)]
    assert len({tuple(trial.config.items()) for trial in study.trials}) == 6
    assert all(trial is not None for trial in asked)
    assert study.ask(Bayes(start=1)) is None


@pytest.mark.parametrize("start", [1, 3])
def test_the_first_trials_are_quasi_random(start: int) -> None:
    own = Study(BRANIN.space).run(BRANIN, Bayes(start=start, seed=5), budget=start + 1)
    sobol = Study(BRANIN.space).run(BRANIN, Sobol(seed=5), budget=start + 1)
    same = [mine.config == other.config for mine, other in zip(own.trials, sobol.trials, strict=True)]
    assert same == [True] * start + [False]


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


def test_with_failures_alone_it_goes_on_quasi_randomly() -> None:
    study = Study(SQUARE).run(lambda config: math.nan, Bayes(start=2, seed=1), budget=6)
    sobol = Study(SQUARE).run(bowl, Sobol(seed=1), budget=6)
    assert [trial.config for trial in study.trials] == [trial.config for trial in sobol.trials]


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


@each_acquisition
def test_a_batch_repeats_nothing(acquisition: Acquisition) -> None:
    study = Study(BRANIN.space).run(BRANIN, Bayes(acquisition), budget=10)
    for _ in range(5):
        study.ask(Bayes(acquisition))
    assert distances(BRANIN.space, [trial.config for trial in study.trials]).min() > 1e-6


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


@each_acquisition
def test_equal_values_are_no_obstacle(acquisition: Acquisition) -> None:
    study = Study(MIXED).run(lambda config: 3.0, Bayes(acquisition, start=1), budget=6)
    assert [trial.status for trial in study.trials] == ["done"] * 6
    assert distances(MIXED, [trial.config for trial in study.trials]).min() > 1e-6


# -- slopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ["ei", "pi", "ucb"])
def test_the_slope_of_what_is_climbed_is_that_of_finite_differences(
    seen: list[Posterior], acquisition: Acquisition
) -> None:
    """By mean and deviation, and by the place."""
    method = Bayes(acquisition, beta=1.3, xi=0.2)
    proposed(method, SQUARE, by_chance(SQUARE, bowl, 12))
    model = seen[-1]
    worth = method._worth(float(model.y.min()))

    def value(mean_and_std: np.ndarray) -> float:
        return float(worth(mean_and_std[:1], mean_and_std[1:])[0][0])

    def value_at(place: np.ndarray) -> float:
        return float(worth(*model.at(place[None]))[0][0])

    for place in 0.1 + 0.8 * np.random.default_rng(1).random((6, 2)):
        mean, std, mean_slope, std_slope = model.slopes(place)
        _, by_mean, by_std = worth(np.array(mean), np.array(std))
        numeric = approx_fprime(np.array([mean, std]), value, 1e-7 * std)
        np.testing.assert_allclose([by_mean, by_std], numeric, rtol=1e-3)
        numeric = approx_fprime(place, value_at, 1e-6)
        slope = by_mean * mean_slope + by_std * std_slope
        np.testing.assert_allclose(slope, numeric, atol=1e-3 * abs(numeric).max())


@pytest.mark.parametrize("acquisition", ["ei", "ucb"])
@pytest.mark.parametrize("seed", [2, 3, 5, 7, 11])
def test_it_proposes_where_the_acquisition_is_largest(
    seen: list[Posterior], acquisition: Acquisition, seed: int
) -> None:
    """No place of a lattice of 101 x 101 is worth more."""
    method, space = Bayes(acquisition, seed=seed), BRANIN.space
    config = proposed(method, space, by_chance(space, BRANIN, 9, seed))
    model = seen[-1]
    worth = method._worth(float(model.at(model.x)[0].min()))
    axis = np.linspace(0, 1, 101)
    lattice = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    at_lattice, at_proposal = (worth(*model.at(x))[0] for x in (lattice, space.encode(config)[None]))
    assert at_proposal[0] >= at_lattice.max() - 1e-4
    assert at_lattice.std() > 0.1


# -- whole numbers and options -----------------------------------------------------------------------------------------


def test_places_are_seen_by_their_values() -> None:
    """A whole number at the middle of its part, a column an option: by hand."""
    encoding = _Encoding(Space({"n": Int(1, 4), "share": Float(0, 2), "kind": Choice("a", "b", "c")}))
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
    encoding = _Encoding(space)

    def around(n: int, kind: str) -> list[tuple[int, str]]:
        near = [
            space.decode(place) for place in encoding.neighbours(space.encode({"n": n, "share": 0.5, "kind": kind}))
        ]
        assert all(config["share"] == pytest.approx(0.5) for config in near)
        return sorted((config["n"], config["kind"]) for config in near)

    assert around(2, "b") == [(1, "b"), (2, "a"), (2, "c"), (3, "b")]
    assert around(1, "a") == [(1, "b"), (1, "c"), (2, "a")]
    assert _Encoding(SQUARE).neighbours(np.array([0.5, 0.5])).shape == (0, 2)


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
    path = tmp_path / "study.sqlite"
    study = Study(MIXED, path=path).run(mixed, Random(3), budget=12)
    code = (
        "import json, sys; from kit.search import *; from tests.test_search_bayes import MIXED\n"
        "trials = Study(MIXED, path=sys.argv[1]).trials\n"
        "print(json.dumps([Bayes(a).propose(MIXED, trials, maximise=False).config for a in ('ei', 'thompson')]))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=root, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    own = [proposed(Bayes(acquisition), MIXED, study.trials) for acquisition in ("ei", "thompson")]
    assert json.loads(done.stdout) == own


def test_a_study_goes_on_as_if_it_had_not_stopped() -> None:
    method = Bayes(seed=4)
    whole = Study(SQUARE).run(bowl, method, budget=16)
    halves = Study(SQUARE).run(bowl, method, budget=11)
    bayes._kernel.cache_clear()
    halves.run(bowl, method, budget=16)
    assert [trial.config for trial in halves.trials] == [trial.config for trial in whole.trials]


def test_work_is_bounded_however_many_trials_there_are(seen: list[Posterior], fits: list[int]) -> None:
    """The best half of what the process sees are the best trials, the others the latest."""
    told = by_chance(SQUARE, bowl, 400)
    proposed(Bayes(), SQUARE, told)
    assert [len(model.x) for model in seen] == [bayes.MAX_SEEN]
    assert fits == [surrogates.MAX_FIT]
    half = bayes.MAX_SEEN // 2
    best = sorted(told, key=lambda trial: trial.value or 0.0)[:half]
    latest = [trial for trial in told if trial not in best][-half:]
    expected = np.array(
        [SQUARE.encode(trial.config) for trial in sorted([*best, *latest], key=lambda each: each.number)]
    )
    np.testing.assert_allclose(seen[-1].x, expected, atol=1e-12)


def test_most_proposals_need_no_fit(fits: list[int]) -> None:
    told = by_chance(SQUARE, bowl, 107)
    for n in range(100, 107):
        proposed(Bayes(), SQUARE, told[:n])
    assert len(fits) <= 3


def test_most_proposals_need_no_fit_with_very_many_trials(fits: list[int]) -> None:
    told = by_chance(SQUARE, bowl, bayes.MAX_SEEN + 37)
    for n in range(bayes.MAX_SEEN + 30, bayes.MAX_SEEN + 37):
        proposed(Bayes(), SQUARE, told[:n])
    assert len(fits) <= 3


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_the_acquisition_must_be_known() -> None:
    with pytest.raises(ValueError, match=r"acquisition must be one of ei, pi, ucb, thompson; got 'EI'\."):
        Bayes("EI")  # type: ignore[arg-type]


def test_the_liar_must_be_known() -> None:
    with pytest.raises(ValueError, match=r"liar must be one of best, mean, worst; got 'median'\."):
        Bayes(liar="median")  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [0, -3])
def test_start_must_be_1_or_more(start: int) -> None:
    with pytest.raises(ValueError, match=rf"start must be 1 or more; got {start}\."):
        Bayes(start=start)


@pytest.mark.parametrize("name", ["beta", "xi"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_beta_and_xi_must_not_be_negative(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"{name} must be 0 or more, and finite; got {value!r}\."):
        Bayes(**settings)


def test_settings_change_the_proposal() -> None:
    """Where the bound is of no deviations, the lowest mean is proposed; a larger one goes further away."""
    told = Study(SQUARE).run(bowl, Listed([{"x": x, "y": 0.5} for x in (0.1, 0.3, 0.6, 0.7, 0.9)]), budget=5).trials
    tried = [trial.config for trial in told]

    def gap(method: Bayes) -> float:
        """From the nearest trial."""
        here = proposed(method, SQUARE, told)
        return min(float(distances(SQUARE, [here, other])[0]) for other in tried)

    assert gap(Bayes("ucb", start=1, beta=0.0)) < 0.2 < gap(Bayes("ucb", start=1, beta=20.0))
    assert gap(Bayes("pi", start=1, xi=0.0)) < gap(Bayes("pi", start=1, xi=3.0))
