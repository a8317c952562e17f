from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from kit.data import Dataset
from kit.explorers import BayesExplorer
from kit.explorers.base import STILLS
from kit.explorers.bayes import EXPLORATIONS, LENGTHS, MEANING, NOISES, REPEATS
from kit.measure import Estimate
from kit.search import Bayes, Choice, Float, Int, Random, Space, Study, networks
from kit.search.belief import ACQUISITIONS, LEAST_SPREAD, Belief
from kit.search.networks import Landscape
from kit.search.surrogate import Kernel
from tests.hands import PATIENCE, settle, words

# The large figure's traces, in the order in which they are drawn.
TRUTH_BAND, TRUTH, BAND, SAMPLES, MEAN, START, YOURS, NEXT, NAMES = range(9)
RACE_BAND, RACE_RANDOM, RACE_MACHINE, RACE_YOU, RACE_NAMES = range(5)

SPACE = Space({"lr": Float(1e-5, 10, log=True)})
CELLS, SEEDS = 25, 3


def hill(space: Space = SPACE, *, cells: int = CELLS, seeds: int = SEEDS) -> Landscape:
    """A landscape without training: one hill at 0.6 of the unit interval, and noise."""
    blank = networks.blank(space, points=cells, seeds=seeds, epochs=2)
    places = np.linspace(0, 1, cells)
    means = 0.1 + 0.85 * np.exp(-(((places - 0.6) / 0.2) ** 2))  # [cells]
    noise = 0.02 * np.random.default_rng(0).standard_normal((seeds, cells))
    last = np.clip(means + noise, 0, 1)  # [seeds, cells]
    return dataclasses.replace(blank, curves=np.stack([last / 2, last], -1))


@pytest.fixture(scope="module")
def shared(digits: Dataset) -> Iterator[BayesExplorer]:
    explorer = BayesExplorer(digits, landscape=hill())
    explorer.wait(PATIENCE)
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(shared: BayesExplorer) -> BayesExplorer:
    """The explorer that the tests share, as at the beginning."""
    with contextlib.suppress(Exception):  # a refusal of the test before
        shared.wait(PATIENCE)
    shared.reset()
    shared.wait(PATIENCE)
    return shared


@pytest.fixture
def opened(digits: Dataset) -> Iterator[Callable[..., BayesExplorer]]:
    """Make explorers that are closed at the end of the test."""
    made: list[BayesExplorer] = []

    def make(**settings: Any) -> BayesExplorer:
        made.append(BayesExplorer(digits, **settings))
        return made[-1]

    yield make
    for explorer in made:
        explorer.close()


def arrays(figure: Any, trace: int) -> tuple[list[float], list[float]]:
    drawn = figure.data[trace]
    return list(drawn.x or ()), list(drawn.y or ())


def values(explorer: BayesExplorer) -> list[float]:
    return [trial.config["lr"] for trial in explorer.trials]


def accuracies(explorer: BayesExplorer) -> np.ndarray:
    return np.array([trial.value for trial in explorer.trials])


def places(explorer: BayesExplorer) -> np.ndarray:
    return np.log(np.array(values(explorer)) / 1e-5) / math.log(1e6)


def by_sklearn(explorer: BayesExplorer, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the accuracy by another library, with the sliders' length and noise."""
    y = accuracies(explorer)
    model = GaussianProcessRegressor(
        Matern(explorer.length.value, nu=2.5), alpha=explorer.noise.value**2, optimizer=None
    ).fit(places(explorer)[:, None], (y - y.mean()) / y.std())
    mean, std = model.predict(at[:, None], return_std=True)
    return y.mean() + y.std() * mean, y.std() * std


def worth_by_hand(explorer: BayesExplorer, configs: list[float], found: list[float]) -> list[float]:
    """The best so far after each trial, by the mean of the cell's other networks."""
    last = explorer.landscape.curves[..., -1]  # [seeds, cells]
    worth, best = [], -1.0
    for value, score in zip(configs, found, strict=True):
        if score > best:
            best = score
            cell = int(np.abs(np.linspace(0, 1, CELLS) - math.log(value / 1e-5) / math.log(1e6)).argmin())
            own = last[:, cell].tolist().index(score)  # the network that was read; of two equal ones, either
            chosen = float(np.mean([last[seed, cell] for seed in range(SEEDS) if seed != own]))
        worth.append(chosen)
    return worth


# --- the model ----------------------------------------------------------------------------------------------------


def test_the_first_answer_comes_unasked(explorer: BayesExplorer) -> None:
    assert len(explorer.trials) == 3
    assert [trial.status for trial in explorer.trials] == ["done"] * 3
    assert explorer.best.value == max(accuracies(explorer))
    assert f"{explorer.title}" == "BayesExplorer: lr on digits"
    said = words(explorer)
    assert said.startswith("3 trials (3 to start with, 0 of yours).")
    assert f"Best observed: {100 * max(accuracies(explorer)):.1f} % at lr {explorer.best.config['lr']:.3g}" in said
    assert f"the model proposes lr {explorer.proposal:.3g}, where" in said
    assert explorer.expected.percent in said
    assert explorer.in_words == said
    assert arrays(explorer._figure, START) == (values(explorer), pytest.approx(100 * accuracies(explorer), abs=1e-3))
    assert arrays(explorer._figure, YOURS) == ([], [])


def test_a_trial_reads_one_network_of_its_cell(explorer: BayesExplorer) -> None:
    explorer.follow()
    last = explorer.landscape.curves[..., -1]
    for trial in explorer.trials:
        cell = explorer.landscape.axes[0].index(trial.config["lr"])
        assert trial.value in last[:, cell]


@pytest.mark.parametrize(("length", "noise"), [(0.15, 0.05), (0.03, 0.01), (1, 0.3), (2, 1)])
def test_the_band_is_that_of_another_library(explorer: BayesExplorer, length: float, noise: float) -> None:
    explorer.try_here(0.03)
    settle(explorer, length=length, noise=noise)
    x, mean = arrays(explorer._figure, MEAN)
    wanted, std = by_sklearn(explorer, np.log(np.array(x) / 1e-5) / math.log(1e6))
    assert mean == pytest.approx(100 * wanted, abs=0.01)
    outline = arrays(explorer._figure, BAND)[1]
    half = np.array(outline[: len(x)]) - np.array(mean)  # the band's upper edge comes first
    assert half == pytest.approx(100 * 1.96 * std, abs=0.02)
    assert np.array(outline[len(x) :])[::-1] == pytest.approx(np.array(mean) - half, abs=0.02)
    assert explorer.posterior.kernel == Kernel((length,), 1.0, noise**2)
    reach = f"a factor of {1e6**length:.2g} in lr."
    assert reach in explorer.model_note.value


def test_a_short_length_knows_less_between_trials(explorer: BayesExplorer) -> None:
    def unsure() -> float:
        x, mean = arrays(explorer._figure, MEAN)
        return float(np.mean(np.array(arrays(explorer._figure, BAND)[1][: len(x)]) - np.array(mean)))

    found = []
    for length in (0.5, 0.15, 0.02):
        settle(explorer, length=length)
        found.append(unsure())
    assert found == sorted(found)


def test_expected_improvement_by_its_definition(explorer: BayesExplorer) -> None:
    settle(explorer, exploration=0.1)
    cells = np.linspace(0, 1, CELLS)
    mean, std = by_sklearn(explorer, cells)
    y = accuracies(explorer)
    best = by_sklearn(explorer, places(explorer))[0].max() + 0.1 * y.std()
    dice = np.random.default_rng(0).standard_normal(200_000)
    worth = np.array([np.maximum(m + s * dice - best, 0).mean() for m, s in zip(mean, std, strict=True)])
    for trial in explorer.trials:  # the same network would answer again
        worth[explorer.landscape.axes[0].index(trial.config["lr"])] = 0
    assert explorer.proposal == explorer.landscape.axes[0][int(worth.argmax())]
    said = explorer._wanted_figure.data[1].text[1]
    assert said.endswith(" points")
    assert float(said.split()[0]) == pytest.approx(100 * worth.max(), rel=0.05)
    assert max(explorer._wanted_figure.data[0].y) == pytest.approx(100)


def test_the_confidence_bound_by_its_definition(explorer: BayesExplorer) -> None:
    settle(explorer, acquisition="confidence bound", exploration=3)
    x, bound = arrays(explorer._wanted_figure, 0)
    mean, std = by_sklearn(explorer, np.log(np.array(x) / 1e-5) / math.log(1e6))
    assert bound == pytest.approx(100 * (mean + 3 * std), abs=0.02)
    assert explorer._wanted_figure.layout.yaxis.title.text == "bound on the accuracy, %"
    settle(explorer, exploration=0)
    mean, _ = by_sklearn(explorer, np.linspace(0, 1, CELLS))
    tried = [explorer.landscape.axes[0].index(value) for value in values(explorer)]
    mean[tried] = -1
    assert explorer.proposal == explorer.landscape.axes[0][int(mean.argmax())]


def test_probability_of_improvement_by_its_definition(explorer: BayesExplorer) -> None:
    settle(explorer, acquisition="probability of improvement", exploration=0.2)
    mean, std = by_sklearn(explorer, np.linspace(0, 1, CELLS))
    best = by_sklearn(explorer, places(explorer))[0].max() + 0.2 * accuracies(explorer).std()
    chance = np.array([0.5 * math.erfc((best - m) / s / math.sqrt(2)) for m, s in zip(mean, std, strict=True)])
    chance[[explorer.landscape.axes[0].index(value) for value in values(explorer)]] = 0
    assert explorer.proposal == explorer.landscape.axes[0][int(chance.argmax())]
    assert explorer._wanted_figure.data[1].text[1] == f"{100 * chance.max():.2g} %"


def test_thompson_draws_another_function_after_each_trial(explorer: BayesExplorer) -> None:
    settle(explorer, acquisition="Thompson")
    x, drawn = arrays(explorer._wanted_figure, 0)
    cells = [int(np.abs(np.log(np.array(x) / value)).argmin()) for value in explorer.landscape.axes[0]]
    free = [at for at, value in zip(cells, explorer.landscape.axes[0], strict=True) if value not in values(explorer)]
    assert explorer.proposal == pytest.approx(x[max(free, key=drawn.__getitem__)])
    settle(explorer, length=0.1)
    settle(explorer, length=0.15)
    assert arrays(explorer._wanted_figure, 0)[1] == drawn  # the same settings draw the same
    explorer.follow()
    explorer.wait(PATIENCE)
    assert arrays(explorer._wanted_figure, 0)[1] != drawn
    assert "the function drawn by chance has its top" in words(explorer)


def test_samples_go_through_what_was_seen(explorer: BayesExplorer) -> None:
    assert arrays(explorer._figure, SAMPLES) == ([], [])
    settle(explorer, noise=0.01, samples=4)
    x, y = arrays(explorer._figure, SAMPLES)
    assert len(x) == 4 * (len(arrays(explorer._figure, MEAN)[0]) + 1)
    assert [each is None for each in y].count(True) == 4  # a gap after each
    for value, seen in zip(values(explorer), accuracies(explorer), strict=True):
        at = [number for number, each in enumerate(x) if each is not None and each == pytest.approx(value)]
        assert len(at) == 4
        assert [y[number] for number in at] == pytest.approx([100 * seen] * 4, abs=4)
    assert "┄ drawn" in explorer._figure.data[NAMES].text
    settle(explorer, samples=0)
    assert arrays(explorer._figure, SAMPLES) == ([], [])


def test_the_fit_does_not_ask_the_sliders(explorer: BayesExplorer) -> None:
    settle(explorer, fitted=True)
    fitted = explorer.posterior.kernel
    assert explorer.length.disabled and explorer.noise.disabled
    assert "fitted: length" in explorer.model_note.value
    settle(explorer, length=1, noise=1)
    assert explorer.posterior.kernel == fitted
    settle(explorer, fitted=False)
    assert explorer.posterior.kernel == Kernel((1,), 1.0, 1.0)
    assert not explorer.length.disabled and "fitted" not in explorer.model_note.value


def test_each_acquisition_keeps_its_own_exploration(explorer: BayesExplorer) -> None:
    settle(explorer, exploration=0.5)
    settle(explorer, acquisition="confidence bound")
    assert (explorer.exploration.value, explorer.exploration.description) == (2, "beta")
    settle(explorer, exploration=4)
    settle(explorer, acquisition="Thompson")
    assert explorer.exploration.disabled and "not used" in explorer.meaning.value
    settle(explorer, acquisition="expected improvement")
    assert (explorer.exploration.value, explorer.exploration.description) == (0.5, "xi")
    assert not explorer.exploration.disabled
    settle(explorer, acquisition="confidence bound")
    assert explorer.exploration.value == 4
    assert set(MEANING) == set(ACQUISITIONS)
    assert all(start in EXPLORATIONS for _, start, _ in MEANING.values())
    assert 0.15 in LENGTHS and 0.05 in NOISES


def test_truth_is_hidden_until_it_is_asked_for(explorer: BayesExplorer) -> None:
    assert arrays(explorer._figure, TRUTH) == ([], [])
    settle(explorer, truth=True)
    x, y = arrays(explorer._figure, TRUTH)
    assert x == list(explorer.landscape.axes[0])
    last = explorer.landscape.curves[..., -1]
    assert y == pytest.approx(100 * last.mean(0))
    for cell, high in enumerate(arrays(explorer._figure, TRUTH_BAND)[1][:CELLS]):
        assert high == pytest.approx(100 * Estimate.from_values(last[:, cell].tolist()).share.high)
    settle(explorer, truth=False)
    assert arrays(explorer._figure, TRUTH) == ([], [])


def test_place_shows_what_is_expected_there(explorer: BayesExplorer) -> None:
    value = explorer.landscape.axes[0][7]
    settle(explorer, place=value)
    mean, std = by_sklearn(explorer, np.array([7 / (CELLS - 1)]))
    expected = [value, *(100 * (mean[0] + side * 1.96 * std[0]) for side in (0, -1, 1))]
    assert explorer.aim.point == pytest.approx(expected, abs=0.02)
    assert f"At the slider's lr {value:.3g} it expects {explorer.aim.point[1]:.1f} %" in words(explorer)


def test_equal_values_do_not_make_the_model_sure() -> None:
    belief = Belief.of(np.array([0.1, 0.5, 0.9]), np.full(3, 0.1), Kernel((0.1,), noise=0.01))
    mean, std = belief.at(np.array([0.3]))
    assert belief.spread == LEAST_SPREAD
    assert mean[0] == pytest.approx(0.1) and std[0] > 0.5 * LEAST_SPREAD


# --- trials -------------------------------------------------------------------------------------------------------


def test_try_here_takes_the_nearest_cell(explorer: BayesExplorer) -> None:
    explorer.try_here(0.0123)
    wanted = min(explorer.landscape.axes[0], key=lambda value: abs(math.log(value / 0.0123)))
    assert values(explorer)[3:] == [wanted]
    assert arrays(explorer._figure, YOURS)[0] == [wanted]
    free = next(value for value in explorer.landscape.axes[0] if value not in values(explorer))
    settle(explorer, place=free)
    explorer.try_button.click()
    assert values(explorer)[4:] == [free]
    assert list(explorer._figure.data[YOURS].text) == ["", "latest"]
    assert "5 trials (3 to start with, 2 of yours)" in words(explorer)


def test_follow_tries_what_was_proposed(explorer: BayesExplorer) -> None:
    for acquisition in ACQUISITIONS:
        settle(explorer, acquisition=acquisition)
        proposal = explorer.proposal
        explorer.follow_button.click()
        assert values(explorer)[-1] == proposal
        assert explorer.proposal not in values(explorer)
    assert len(set(values(explorer))) == 7


def test_moves_are_made_in_their_order_and_none_is_lost(explorer: BayesExplorer) -> None:
    proposal = explorer.proposal
    explorer.follow()
    explorer.try_here(1e-5)
    explorer.try_here(10)
    explorer.undo()
    explorer.length.value = 0.2  # a newer request does not swallow them
    assert values(explorer)[3:] == [proposal, 1e-5]


def test_a_click_tries_there(explorer: BayesExplorer) -> None:
    explorer.aim.clicked = [1, 0.001]
    assert values(explorer)[3:] == [pytest.approx(0.001)]
    explorer.aim.clicked = [2, 11.5]  # in the margin beside the axis
    assert values(explorer)[4:] == [pytest.approx(10)]
    explorer.aim.clicked = [3, 11.5]  # the same place again is another click
    with pytest.raises(ValueError, match="lr 10 is tried already"):
        explorer.wait(PATIENCE)


def test_what_is_tried_is_refused_and_the_words_stay(explorer: BayesExplorer) -> None:
    explorer.try_here(values(explorer)[0])
    with pytest.raises(
        ValueError, match=r"is tried already, and the same network would answer again: choose another\."
    ):
        explorer.wait(PATIENCE)
    assert "kit-error" in explorer.status.value
    assert "3 trials (3 to start with, 0 of yours)" in words(explorer)
    assert len(explorer.trials) == 3
    settle(explorer, length=0.2)
    assert "kit-error" not in explorer.status.value


def test_undo_and_reset(explorer: BayesExplorer) -> None:
    before = values(explorer)
    explorer.follow()
    explorer.undo_button.click()
    assert values(explorer) == before
    explorer.undo()
    with pytest.raises(ValueError, match=r"nothing to take back: the first 3 trials are not yours\."):
        explorer.wait(PATIENCE)
    explorer.follow()
    settle(
        explorer, length=1, acquisition="confidence bound", exploration=5, truth=True, seed=4, samples=2, fitted=True
    )
    explorer.reset_button.click()
    assert values(explorer) == before
    controls = {name: getattr(explorer, name).value for name in explorer._defaults}
    assert controls == explorer._defaults
    settle(explorer, acquisition="confidence bound")
    assert explorer.exploration.value == 2


def test_new_seeds_begin_anew_and_old_ones_are_kept(explorer: BayesExplorer) -> None:
    explorer.follow()
    before = values(explorer)
    explorer.new_seeds_button.click()
    assert explorer.seed.value == 1
    assert len(explorer.trials) == 3
    assert values(explorer)[:3] != before[:3]
    settle(explorer, seed=0)
    assert values(explorer) == before


def test_all_cells_can_be_tried(opened: Callable[..., BayesExplorer]) -> None:
    explorer = opened(landscape=hill(cells=8), start=2)
    for _ in range(6):
        explorer.follow()
    assert sorted(values(explorer)) == pytest.approx(list(explorer.landscape.axes[0]))
    with pytest.raises(RuntimeError, match="nothing is left to propose: all 8 cells are tried"):
        _ = explorer.proposal
    assert "All cells are tried" in words(explorer)
    explorer.follow()
    with pytest.raises(ValueError, match="nothing is left to propose"):
        explorer.wait(PATIENCE)


# --- the race -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [0, 3])
def test_the_race_by_hand(explorer: BayesExplorer, repeat: int) -> None:
    settle(explorer, seed=repeat)
    for value in (1e-5, 0.5, 0.01):
        explorer.try_here(value)
    assert explorer.worth == pytest.approx(worth_by_hand(explorer, values(explorer), accuracies(explorer).tolist()))
    objective = explorer.landscape.objective(repeat)

    def search(method: Any, budget: int, start: int = 0) -> list[float]:
        study = Study(SPACE, maximise=True)
        for trial in explorer.trials[:start]:
            study.tell(study.enqueue(trial.config).number, trial.value)
        trials = study.run(objective, method, budget=budget).trials
        found = [trial.value or 0.0 for trial in trials]
        return worth_by_hand(explorer, [trial.config["lr"] for trial in trials], found)

    assert explorer.machine == pytest.approx(search(Bayes(start=3, seed=repeat), 6, start=3))
    assert explorer.machine[:3] == explorer.worth[:3]  # the same start
    walks = [search(Random(REPEATS * repeat + number), 12) for number in range(REPEATS)]
    for at, estimate in enumerate(explorer.random):
        wanted = Estimate.from_values([walk[at] for walk in walks]).share
        assert (estimate.value, estimate.low, estimate.n) == pytest.approx((wanted.value, wanted.low, 32))
    said = words(explorer)
    assert f"after 6 trials: you {100 * explorer.worth[-1]:.1f} %, machine {100 * explorer.machine[-1]:.1f} %" in said
    assert f"random search {explorer.random[5].percent}, mean of 32." in said
    for trace, worth in (
        (RACE_YOU, explorer.worth),
        (RACE_MACHINE, explorer.machine),
        (RACE_RANDOM, [each.value for each in explorer.random]),
    ):
        x, y = arrays(explorer._race_figure, trace)
        assert x == list(range(1, len(worth) + 1))
        assert y == pytest.approx([100 - 100 * each for each in worth])


def test_random_search_is_always_ahead(explorer: BayesExplorer) -> None:
    for _ in range(8):
        explorer.follow()
    assert len(explorer.random) >= len(explorer.trials) + 2
    assert explorer._race_figure.layout.xaxis.range[1] > len(explorer.random)
    assert len(explorer.machine) == len(explorer.trials) == 11


def test_a_network_that_diverged_knows_nothing(opened: Callable[..., BayesExplorer]) -> None:
    landscape = hill()
    curves = landscape.curves.copy()
    curves[:, 20:, -1] = np.nan  # after their first epoch
    explorer = opened(landscape=dataclasses.replace(landscape, curves=curves))
    explorer.try_here(10)
    assert explorer.trials[-1].value == 0
    assert all(math.isfinite(each) for each in (*explorer.worth, *explorer.machine))
    settle(explorer, truth=True)
    assert arrays(explorer._figure, TRUTH)[1][-5:] == [0] * 5


# --- training -----------------------------------------------------------------------------------------------------


def test_networks_are_really_trained(opened: Callable[..., BayesExplorer], digits: Dataset) -> None:
    explorer = opened(points=12, seeds=2, epochs=2)
    explorer.follow()  # asked for before there is any network
    explorer.wait(PATIENCE)
    assert explorer.landscape.missing == 0
    wanted = networks.landscape(digits, SPACE, points=12, seeds=2, epochs=2)
    assert np.array_equal(explorer.landscape.curves, wanted.curves, equal_nan=True)
    assert len(explorer.trials) == 4
    assert "measured anew, by the other network there: " in words(explorer)


def test_training_can_be_stopped_and_goes_on(
    opened: Callable[..., BayesExplorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "CHUNK", 8)
    explorer = opened(points=12, seeds=2, epochs=40)
    while explorer._landscape.missing == 24:
        time.sleep(0.005)
    explorer.stop()
    explorer.wait(PATIENCE)
    missing = explorer._landscape.missing
    assert 0 < missing < 24
    assert words(explorer).startswith("Stopped. Training 24 small networks, 2 at each of 12 values of the learning")
    assert f"{24 - missing} are done. Move a control to go on." in words(explorer)
    with pytest.raises(RuntimeError, match="no answer yet: the work was stopped before the first one"):
        _ = explorer.trials
    explorer.truth.value = True  # what grows is then seen
    explorer.wait(PATIENCE)
    assert explorer.landscape.missing == 0
    assert len(explorer.trials) == 3


@pytest.mark.parametrize("truth", [False, True])
def test_what_networks_reach_is_painted_while_they_are_trained_only_where_it_may_be_seen(
    opened: Callable[..., BayesExplorer], monkeypatch: pytest.MonkeyPatch, truth: bool
) -> None:
    seen: list[int] = []
    original = BayesExplorer._paint

    def paint(explorer: BayesExplorer, figure: Any, traces: Any, **layout: Any) -> None:
        if explorer._landscape.missing and figure is explorer._figure:
            seen.append(len(traces[TRUTH]["x"]))
        original(explorer, figure, traces, **layout)

    monkeypatch.setattr(BayesExplorer, "_paint", paint)
    monkeypatch.setattr(networks, "CHUNK", 8)
    explorer = opened(points=12, seeds=2, epochs=2)
    explorer.truth.value = truth
    explorer.wait(PATIENCE)
    assert bool(seen and max(seen) > 0) == truth
    assert seen == sorted(seen)  # only what has an interval: two networks or more
    assert len(arrays(explorer._figure, TRUTH)[0]) == (12 if truth else 0)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"space": 3}, TypeError, r"space must be a Space; got 3\."),
        (
            {"space": Space({"lr": Float(0.1, 1), "dropout": Float(0, 0.5)})},
            ValueError,
            r"space must have one parameter, a Float; got lr \(Float\), dropout \(Float\)\.",
        ),
        (
            {"space": Space({"width": Int(2, 9)})},
            ValueError,
            r"space must have one parameter, a Float; got width \(Int",
        ),
        (
            {"space": Space({"a": Choice(1, 2)})},
            ValueError,
            r"space must have one parameter, a Float; got a \(Choice\)",
        ),
        ({"space": Space({"rate": Float(0, 1)})}, ValueError, r"networks can be tuned by lr, .*got 'rate'\."),
        ({"points": 7}, ValueError, r"points must be 8 or more; got 7\."),
        ({"seeds": 1}, ValueError, r"seeds must be 2 or more; got 1\."),
        ({"epochs": 0}, ValueError, r"epochs must be 1 or more; got 0\."),
        ({"start": 1}, ValueError, r"start must lie in 2 \.\. 48, half of the cells; got 1\."),
        ({"start": 49}, ValueError, r"start must lie in 2 \.\. 48, half of the cells; got 49\."),
        (
            {"landscape": networks.blank(SPACE)},
            ValueError,
            r"landscape must be complete; 60 networks are not trained\.",
        ),
        (
            {"landscape": hill(), "space": Space({"lr": Float(1e-4, 1)})},
            ValueError,
            "space is another than the landscape's",
        ),
        (
            {"landscape": hill(cells=7)},
            ValueError,
            "landscape must have 8 cells or more, of 2 networks or more; got 7 of 3",
        ),
    ],
)
def test_bad_arguments_are_refused(
    digits: Dataset, settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        BayesExplorer(digits, **settings)


def test_bad_values_are_refused_at_once(explorer: BayesExplorer) -> None:
    with pytest.raises(ValueError, match=r"value must be a number from 1e-05 to 10; got 11\."):
        explorer.try_here(11)
    with pytest.raises(ValueError, match="value must be a number from 1e-05 to 10; got nan"):
        explorer.try_here(math.nan)
    for value in ("0.1", True):
        with pytest.raises(TypeError, match="value must be a number; got"):
            explorer.try_here(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length must be one of the slider's 15 stops"):
        explorer.length.value = 0.16
    with pytest.raises(AttributeError, match=r"set length\.value = 0\.2 instead"):
        explorer.length = 0.2  # type: ignore[assignment]
    assert len(explorer.trials) == 3


def test_another_hyper_parameter_on_a_plain_axis(opened: Callable[..., BayesExplorer]) -> None:
    space = Space({"dropout": Float(0.0, 0.9)})
    explorer = opened(landscape=hill(space))
    explorer.try_here(0.45)
    explorer.wait(PATIENCE)
    assert explorer.trials[-1].config["dropout"] == pytest.approx(0.45)
    assert explorer._figure.layout.xaxis.type != "log"
    assert "0.14 in dropout" in explorer.model_note.value  # 0.15 of 0.9


def test_what_is_displayed(explorer: BayesExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer.follow()
    settle(explorer, truth=True, samples=2)
    data = explorer._repr_mimebundle_()[0]
    assert data["text/plain"] == "BayesExplorer: lr on digits"
    assert "image/png" not in data
    monkeypatch.setenv(STILLS, "1")
    assert base64.b64decode(explorer._repr_mimebundle_()[0]["image/png"]).startswith(b"\x89PNG")
    for figure in (explorer._figure, explorer._wanted_figure, explorer._race_figure):
        assert "NaN" not in json.dumps(figure.to_plotly_json(), default=list)
