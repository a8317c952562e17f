from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from kit.data import Dataset
from kit.explorers import BayesExplorer
from kit.explorers.bayes_words import EXPLORATIONS, MEANING
from kit.plots.curves import Panel
from kit.search import Float, Int, Space
from kit.search import landscape as landscapes
from kit.search.acquisition import ACQUISITIONS
from kit.search.bayes import EDGE
from kit.search.landscape import Landscape
from kit.search.surrogate import Kernel
from tests.hands import PATIENCE, is_error, recover, settle, words

# The large figure's traces, in the order in which they are drawn.
TRUTH_BAND, TRUTH, BAND, SAMPLES, MEAN, START, YOURS, NEXT = range(8)

SPACE = Space({"lr": Float(1e-5, 10, log=True)})
TWO = Space({"lr": Float(0.1, 1), "dropout": Float(0, 0.5)})
CELLS, SEEDS = 25, 3


def hill(space: Space = SPACE, *, cells: int = CELLS) -> Landscape:
    """A landscape without training: one hill at 0.6 of the unit interval, and noise."""
    blank = landscapes.blank(space, points=cells, seeds=SEEDS, epochs=2)
    places = np.linspace(0, 1, cells)
    means = 0.1 + 0.85 * np.exp(-(((places - 0.6) / 0.2) ** 2))  # [cells]
    noise = 0.02 * np.random.default_rng(0).standard_normal((SEEDS, cells))
    last = np.clip(means + noise, 0, 1)  # [seeds, cells]
    return dataclasses.replace(blank, curves=np.stack([last / 2, last], -1))


@pytest.fixture(scope="module")
def shared(digits: Dataset) -> Iterator[BayesExplorer]:
    with contextlib.closing(BayesExplorer(digits, landscape=hill())) as explorer:
        yield explorer


@pytest.fixture
def explorer(shared: BayesExplorer) -> BayesExplorer:
    """The explorer that the tests share, as at the beginning."""
    recover(shared)
    return shared


@pytest.fixture
def opened(digits: Dataset) -> Iterator[Callable[..., BayesExplorer]]:
    """Makes explorers that are closed at the end of the test."""
    with contextlib.ExitStack() as made:
        yield lambda **settings: made.enter_context(contextlib.closing(BayesExplorer(digits, **settings)))


def arrays(explorer: BayesExplorer, trace: int, figure: str = "belief") -> tuple[list[float], list[float]]:
    drawn = explorer.figures[figure].data[trace]
    return list(drawn.x or ()), list(drawn.y or ())


def values(explorer: BayesExplorer) -> list[float]:
    return [trial.config["lr"] for trial in explorer.trials]


def accuracies(explorer: BayesExplorer) -> np.ndarray:
    return np.array([trial.value for trial in explorer.trials])


def places(lrs: Sequence[float]) -> np.ndarray:
    return np.log(np.array(lrs) / 1e-5) / math.log(1e6)


def by_sklearn(explorer: BayesExplorer, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the log-odds by another library, with the sliders' length and noise."""
    y = log_odds(accuracies(explorer))
    matern = Matern(explorer.length.value, nu=2.5)
    model = GaussianProcessRegressor(matern, alpha=explorer.noise.value**2, optimizer=None)
    model.fit(places(values(explorer))[:, None], (y - y.mean()) / y.std())
    mean, std = model.predict(at[:, None], return_std=True)
    return y.mean() + y.std() * mean, y.std() * std


def log_odds(shares: np.ndarray) -> np.ndarray:
    return np.log((shares + EDGE) / (1 - shares + EDGE))


def per_cent(odds: np.ndarray) -> np.ndarray:
    """Log-odds back to an accuracy, per cent."""
    return np.clip((1 + 2 * EDGE) / (1 + np.exp(-odds)) - EDGE, 0, 1) * 100


def test_the_first_answer_comes_unasked(explorer: BayesExplorer) -> None:
    assert [trial.status for trial in explorer.trials] == ["done"] * 3
    best, said, reached = explorer.best, words(explorer), max(accuracies(explorer))
    assert best.value == reached
    assert said.startswith("3 trials (3 to start with, 0 of yours, 0 of the machine's), best seen: ")
    assert f"best seen: {100 * reached:.1f} % at lr {best.config['lr']:.3g}" in said
    assert f"the model proposes lr {explorer.proposal:.3g}, where" in said
    assert explorer.expected.percent in said
    assert arrays(explorer, START) == (values(explorer), pytest.approx(100 * accuracies(explorer), abs=1e-3))
    assert arrays(explorer, YOURS) == ([], [])
    settle(explorer, noise=0.01, samples=4)
    x, y = arrays(explorer, SAMPLES)
    assert [each is None for each in y].count(True) == 4  # a gap after each function
    for value, seen in zip(values(explorer), accuracies(explorer), strict=True):
        through = [y[at] for at, each in enumerate(x) if each is not None and each == pytest.approx(value)]
        assert through == pytest.approx([100 * seen] * 4, abs=4)
    for asked in (True, False):  # the truth is hidden until it is asked for
        settle(explorer, truth=asked)
        x, y = arrays(explorer, TRUTH)
        assert x == list(explorer.landscape.axes[0]) * asked
        assert y == pytest.approx(list(100 * explorer.landscape.mean) * asked, abs=1e-3)


@pytest.mark.parametrize(("length", "noise"), [(0.15, 0.05), (2, 1)])
def test_the_sliders_length_and_noise_make_the_band_of_another_library(
    explorer: BayesExplorer, length: float, noise: float
) -> None:
    explorer.try_here(0.03)
    value = explorer.landscape.axes[0][7]
    settle(explorer, length=length, noise=noise, place=value)
    x, mean = arrays(explorer, MEAN)
    wanted, std = by_sklearn(explorer, places(x))
    assert mean == pytest.approx(per_cent(wanted), abs=0.01)
    upper, lower = np.split(np.array(arrays(explorer, BAND)[1]), 2)
    assert upper == pytest.approx(per_cent(wanted + 1.96 * std), abs=0.02)
    assert lower[::-1] == pytest.approx(per_cent(wanted - 1.96 * std), abs=0.02)
    assert explorer.posterior.kernel == Kernel((length,), 1.0, noise**2)
    assert f"a factor of {1e6**length:.2g} in lr." in explorer.model_note.value
    (there,), (unsure,) = by_sklearn(explorer, places([value]))
    expected = [value, *(per_cent(there + side * 1.96 * unsure) for side in (0, -1, 1))]
    assert explorer.aim.values == pytest.approx(expected, abs=0.02)
    assert f"At the slider's lr {value:.3g} it expects {explorer.aim.values[1]:.1f} %" in words(explorer)
    settle(explorer, acquisition="ucb", exploration=3)
    assert arrays(explorer, 0, "wanted")[1] == pytest.approx(per_cent(wanted + 3 * std), abs=0.02)


def test_each_acquisition_keeps_its_own_exploration_and_the_fit_does_not_ask_the_sliders(
    explorer: BayesExplorer,
) -> None:
    settle(explorer, exploration=0.5)
    settle(explorer, acquisition="ucb")
    assert (explorer.exploration.value, explorer.exploration.description) == (2, "beta")
    settle(explorer, exploration=4)
    settle(explorer, acquisition="thompson")
    assert explorer.exploration.disabled and "not used" in explorer.meaning.value
    assert "the sampled function has its top" in words(explorer)
    function = arrays(explorer, 0, "wanted")[1]
    settle(explorer, length=0.1)
    settle(explorer, length=0.15)
    assert arrays(explorer, 0, "wanted")[1] == function  # the same settings draw the same
    explorer.follow()
    explorer.wait(PATIENCE)
    assert arrays(explorer, 0, "wanted")[1] != function  # and another one after each trial
    settle(explorer, acquisition="ei")
    assert (explorer.exploration.value, explorer.exploration.description) == (0.5, "xi")
    assert not explorer.exploration.disabled
    settle(explorer, acquisition="ucb")
    assert explorer.exploration.value == 4
    explorer.reset()
    settle(explorer, acquisition="ucb")
    assert explorer.exploration.value == 2
    settle(explorer, fitted=True)
    fitted = explorer.posterior.kernel
    assert explorer.length.disabled and explorer.noise.disabled and "Fitted: length" in explorer.model_note.value
    settle(explorer, length=1, noise=1)
    assert explorer.posterior.kernel == fitted
    settle(explorer, fitted=False)
    assert explorer.posterior.kernel == Kernel((1,), 1.0, 1.0)
    assert not explorer.length.disabled and "Fitted" not in explorer.model_note.value
    assert set(MEANING) == {kind.parameter for kind in ACQUISITIONS.values()}
    assert all(kind.default in EXPLORATIONS for kind in ACQUISITIONS.values())


def test_try_here_takes_the_nearest_cell_and_no_move_is_lost(
    explorer: BayesExplorer, opened: Callable[..., BayesExplorer]
) -> None:
    explorer.try_here(0.0123)
    wanted = min(explorer.landscape.axes[0], key=lambda value: abs(math.log(value / 0.0123)))
    assert values(explorer)[3:] == [wanted] == arrays(explorer, YOURS)[0]
    free = next(value for value in explorer.landscape.axes[0] if value not in values(explorer))
    settle(explorer, place=free)
    explorer.try_button.click()
    assert values(explorer)[4:] == [free]
    assert "5 trials (3 to start with, 2 of yours, 0 of the machine's)" in words(explorer)
    proposal = explorer.proposal
    explorer.follow_button.click()
    explorer.try_here(1e-4)
    explorer.length.value = 0.2  # a newer request does not swallow the moves
    assert values(explorer)[5:] == [proposal, pytest.approx(1e-4)]
    assert "7 trials (3 to start with, 3 of yours, 1 of the machine's)" in words(explorer)
    plain = opened(landscape=hill(Space({"dropout": Float(0.0, 0.9)})))
    plain.try_here(0.45)
    assert plain.trials[-1].config["dropout"] == pytest.approx(0.45)
    assert plain.figures["belief"].layout.xaxis.type == "linear"
    assert "0.14 in dropout" in plain.model_note.value  # 0.15 of 0.9


def test_a_click_tries_there(explorer: BayesExplorer) -> None:
    explorer.figures["belief"].clicked = [1, "", 0.001, 50]
    assert values(explorer)[3:] == [pytest.approx(0.001)]
    explorer.figures["belief"].clicked = [2, "", 11.5, 50]  # in the margin beside the axis
    assert values(explorer)[4:] == [pytest.approx(10)]
    explorer.figures["belief"].clicked = [3, "", 11.5, 50]  # the same place again is another click
    with pytest.raises(ValueError, match="lr 10 is tried already"):
        explorer.wait(PATIENCE)
    assert is_error(explorer) and "5 trials (3 to start with, 2 of yours" in words(explorer)
    explorer.figures["race"].clicked = [1, "you", 2, 50]  # nothing is to be tried there
    settle(explorer, length=0.2)
    assert not is_error(explorer) and len(explorer.trials) == 5


def test_seeds_are_games_of_their_own_and_reset_forgets_them_all(explorer: BayesExplorer) -> None:
    begun = values(explorer)
    explorer.follow()
    before = values(explorer)
    explorer.new_seeds_button.click()
    assert explorer.seed.value == 1
    assert len(explorer.trials) == 3 and values(explorer) != begun
    settle(explorer, seed=0)
    assert values(explorer) == before
    explorer.reset_button.click()
    assert values(explorer) == begun


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


def test_code_plays_your_trials_again(opened: Callable[..., BayesExplorer], digits: Dataset) -> None:
    explorer = opened(landscape=hill())
    explorer.set(seed=3, acquisition="ucb", exploration=0).play(0.01, 1e-5)
    explorer.follow()
    explorer.try_here(1e-5)  # refused
    with pytest.raises(ValueError, match="is tried already"):
        explorer.code()
    code = explorer.code()
    names = {"BayesExplorer": BayesExplorer, "dataset": digits, "landscape": hill()}
    with contextlib.closing(eval(code, names)) as rebuilt:
        assert (rebuilt.trials, rebuilt.in_words, rebuilt.code()) == (explorer.trials, explorer.in_words, code)
    assert code.startswith("BayesExplorer(dataset, landscape=landscape, start=3).set(acquisition='ucb', seed=3).play(")
    assert code.endswith(f".play({values(explorer)[-1]!r}, by='machine')")


def test_a_state_holds_the_trials_and_can_be_gone_back_to(explorer: BayesExplorer) -> None:
    begun = explorer._state()
    explorer.play(0.1, 1e-4)
    settle(explorer, acquisition="ucb", exploration=5)
    explorer.follow()
    before, trials, said = explorer._state(), explorer.trials, explorer.in_words
    assert explorer._state() == before != begun
    explorer.try_here(5.0)
    explorer._restore(before)  # before the trial is made
    assert (explorer.trials, explorer.in_words) == (trials, said)
    explorer.new_seeds()
    explorer.follow()
    explorer.wait(PATIENCE)
    explorer.reset()
    explorer.wait(PATIENCE)
    assert explorer._state() == begun and len(explorer.trials) == 3
    explorer._restore(before)
    assert (explorer.trials, explorer.in_words, explorer._state()) == (trials, said, before)
    settle(explorer, acquisition="ei")
    settle(explorer, acquisition="ucb")
    assert explorer.exploration.value == 5
    explorer.try_here(1e-4)  # refused, and forgotten
    with pytest.raises(ValueError, match="is tried already"):
        explorer.wait(PATIENCE)
    assert explorer._state() == before and explorer.trials == trials
    explorer._restore(begun)
    assert len(explorer.trials) == 3 and explorer._state() == begun


def test_a_move_that_is_refused_does_not_lose_those_behind_it(explorer: BayesExplorer) -> None:
    explorer.play(0.1, 0.1, 1e-4)
    with pytest.raises(ValueError, match="is tried already"):
        explorer.wait(PATIENCE)
    assert values(explorer)[3:] == [pytest.approx(0.1), pytest.approx(1e-4)]
    settle(explorer, length=0.2)
    assert not is_error(explorer) and len(explorer.trials) == 5


@pytest.mark.parametrize("repeat", [0, 3])
def test_the_race_is_drawn_and_said(explorer: BayesExplorer, repeat: int) -> None:
    settle(explorer, seed=repeat)
    explorer.play(1e-5, 0.5, 0.01)
    last, best = explorer.landscape.curves[..., -1], explorer.best  # [seeds, cells]
    cell = explorer.landscape.axes[0].index(best.config["lr"])
    others = [(last[:, cell].sum() - own) / (SEEDS - 1) for own in last[:, cell] if own == best.value]
    assert explorer.retested[-1] == pytest.approx(others[0])
    assert explorer.machine[:3] == explorer.retested[:3]  # the same start
    random, machine, you = [each.value for each in explorer.random], explorer.machine, explorer.retested
    assert f"Race, measured anew: you {100 * you[-1]:.1f} %, the machine alone {100 * machine[-1]:.1f} %" in words(
        explorer
    )
    assert f"random search {explorer.random[5].percent}, mean of 32." in words(explorer)
    for trace, worth in enumerate((random, machine, you), 1):
        x, y = arrays(explorer, trace, "race")
        assert x == list(range(1, len(worth) + 1))
        assert y == pytest.approx([100 * each for each in worth])
    assert len(random) >= len(machine) + 2, "random search is always ahead"


def test_a_race_that_is_cancelled_is_run_at_the_next_move(
    explorer: BayesExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(explorer._duel, "race", lambda repeat, cancel: None)
        explorer.follow()
        explorer.wait(PATIENCE)
        stopped = "Stopped. Move a control to go on. The picture shows the last answer: 3 trials"
        assert words(explorer).startswith(stopped)
        assert arrays(explorer, YOURS) == ([], [])
    settle(explorer, length=0.2)
    assert len(explorer.trials) == len(explorer.machine) == 4  # the move is not lost


def test_networks_are_really_trained(opened: Callable[..., BayesExplorer], digits: Dataset) -> None:
    explorer = opened(points=12, seeds=2, epochs=2)
    explorer.follow()  # asked for before there is any network
    explorer.wait(PATIENCE)
    wanted = landscapes.train(digits, SPACE, points=12, seeds=2, epochs=2)
    assert np.array_equal(explorer.landscape.curves, wanted.curves)
    assert len(explorer.trials) == 4
    assert "measured anew, by the other network: " in words(explorer)


def test_training_can_be_stopped_and_goes_on(
    opened: Callable[..., BayesExplorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscapes, "CHUNK", 8)
    explorer = opened(points=12, seeds=2, epochs=40)
    while explorer._duel.landscape.missing == 24:
        time.sleep(0.005)
    explorer.stop()
    explorer.wait(PATIENCE)
    assert 0 < explorer._duel.landscape.missing < 24
    assert explorer.code() == "BayesExplorer(dataset, points=12, seeds=2, epochs=40, start=3)"  # no game yet
    explorer.truth.value = True
    assert explorer.landscape.missing == 0
    assert len(explorer.trials) == 3


@pytest.mark.parametrize("truth", [False, True])
def test_what_networks_reach_is_painted_while_they_are_trained_only_where_it_may_be_seen(
    opened: Callable[..., BayesExplorer], monkeypatch: pytest.MonkeyPatch, truth: bool
) -> None:
    seen: list[int] = []
    original = BayesExplorer._paint

    def paint(explorer: BayesExplorer, name: str, panel: Panel) -> None:
        if explorer._duel.landscape.missing:
            assert name == "belief"
            start = "Training 24 small networks, 2 at each of 12 values of the learning rate: "
            assert words(explorer).startswith(start)
            seen.append(len(panel.traces[TRUTH]["x"]))
        original(explorer, name, panel)

    monkeypatch.setattr(BayesExplorer, "_paint", paint)
    monkeypatch.setattr(landscapes, "CHUNK", 8)
    explorer = opened(points=12, seeds=2, epochs=2)
    explorer.truth.value = truth
    explorer.wait(PATIENCE)
    assert bool(seen and max(seen) > 0) == truth
    assert seen == sorted(seen)  # only what has an interval: two networks or more
    assert len(arrays(explorer, TRUTH)[0]) == (12 if truth else 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"space": 3}, r"space must be a Space or None; got 3\."),
        ({"landscape": 3}, r"landscape must be a Landscape or None; got 3\."),
        ({"space": TWO}, r"must have one parameter, a Float; got lr \(Float\), dropout \(Float\)\."),
        ({"space": Space({"width": Int(2, 9)})}, r"must have one parameter, a Float; got width \(Int"),
        ({"space": Space({"rate": Float(0, 1)})}, r"networks can be tuned by lr, .*got 'rate'\."),
        ({"points": 7}, r"points must be 8 or more; got 7\."),
        ({"seeds": 1}, r"seeds must be 2 or more; got 1\."),
        ({"epochs": 0}, r"epochs must be 1 or more; got 0\."),
        ({"start": 1}, r"start must lie in 2 \.\. 48; got 1\."),
        ({"start": 49}, r"start must lie in 2 \.\. 48; got 49\."),
        ({"landscape": landscapes.blank(SPACE)}, r"must be complete; 60 networks are not trained\."),
        ({"landscape": hill(), "space": SPACE}, "space must be left out where a landscape is given"),
        ({"landscape": hill(cells=7)}, "must have 8 cells or more, of 2 networks or more; got 7 of 3"),
    ],
)
def test_bad_arguments_are_refused(digits: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        BayesExplorer(digits, **settings)


def test_bad_values_are_refused_at_once(explorer: BayesExplorer) -> None:
    for value, said in ((11, "a number from 1e-05 to 10"), (math.nan, "finite"), ("0.1", "a number"), (True, "a num")):
        with pytest.raises((ValueError, TypeError), match=f"value must be {said}.*; got {value!r}"):
            explorer.play(0.1, value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by must be one of you, machine; got 'me'"):
        explorer.play(0.1, by="me")  # type: ignore[arg-type]
    assert len(explorer.trials) == 3  # nothing is tried then
