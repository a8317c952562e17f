"""You against the machine: the moves of the game, the view and the race, on a landscape without networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from threading import Event
from typing import Any

import numpy as np
import pytest

from kit.search import Bayes, Config, Float, Int, Random, Space, Study
from kit.search.acquisition import ACQUISITIONS, Acquisition
from kit.search.duel import RUNS, Duel, Question, room
from kit.search.surrogate import Kernel
from kit.search.trials import Trial

CELLS = 25
SPACE = Space({"lr": Float(1e-4, 1, log=True)})
KERNEL = Kernel((0.2,), noise=0.01)
ALONG = np.linspace(0, 1, 97)


class Landscape:
    """A hill whose top lies at cell 17; each repeat has its own noise."""

    space = SPACE
    axes = (tuple(SPACE.parameters["lr"].decode(at / (CELLS - 1)) for at in range(CELLS)),)

    def config(self, cell: Sequence[int]) -> Config:
        return {"lr": self.axes[0][cell[0]]}

    def objective(self, repeat: int = 0) -> Objective:
        return Objective(repeat)


class Objective:
    """Counts its calls, all objectives together."""

    calls = 0

    def __init__(self, repeat: int) -> None:
        self.noise = np.random.default_rng(repeat).normal(0, 0.02, CELLS)

    def cell(self, config: Config) -> tuple[int, ...]:
        return (int(np.abs(np.log(Landscape.axes[0]) - math.log(config["lr"])).argmin()),)

    def __call__(self, config: Config) -> float:
        Objective.calls += 1
        return self.retest(config) + float(self.noise[self.cell(config)])

    def retest(self, config: Config) -> float:
        return 0.9 - 0.002 * (self.cell(config)[0] - 17) ** 2


def question(acquisition: Acquisition = "ei", **settings: Any) -> Question:
    exploration = settings.get("exploration", ACQUISITIONS[acquisition].default)
    return Question(acquisition, exploration, settings.get("kernel", KERNEL))


def cells(trials: Sequence[Trial]) -> list[int]:
    return [Landscape.axes[0].index(trial.config["lr"]) for trial in trials]


LANDSCAPE: Any = Landscape()


@pytest.fixture
def duel() -> Duel:
    return Duel(LANDSCAPE, start=3, along=ALONG)


# -- moves -------------------------------------------------------------------------------------------------------------


def test_everybody_begins_at_the_same_cells(duel: Duel) -> None:
    trials = duel.trials(0)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert [trial.value for trial in trials] == [Objective(0)(trial.config) for trial in trials]
    assert all(trial.scores == (trial.value,) and trial.status == "done" for trial in trials)
    race = duel.race(0)
    assert race is not None and race.you == race.machine
    assert cells(duel.trials(1)) != cells(trials)


def test_a_cell_is_tried_once(duel: Duel) -> None:
    assert duel.cell(Landscape.axes[0][11] * 1.01) == 11
    cell = next(at for at in range(CELLS) if at not in cells(duel.trials(0)))
    trial = duel.attempt(0, cell)
    assert (trial.number, trial.config) == (3, {"lr": Landscape.axes[0][cell]})
    assert trial.value == Objective(0)(trial.config)
    with pytest.raises(ValueError, match=r"^lr \S+ is tried already, and the same network would answer again: choose"):
        duel.attempt(0, cell)
    assert len(duel.trials(0)) == 4 and len(duel.trials(1)) == 3


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_to_follow_is_to_try_what_the_view_proposes(duel: Duel, acquisition: Acquisition) -> None:
    for _ in range(4):
        proposal = duel.view(2, question(acquisition)).proposal
        assert cells([duel.follow(2, question(acquisition))]) == [proposal]
    assert len(set(cells(duel.trials(2)))) == 7


def test_the_last_trial_comes_back_and_no_more_than_yours(duel: Duel) -> None:
    first = duel.trials(0)
    tried = duel.follow(0, question())
    duel.follow(1, question())
    assert duel.undo(0) == tried
    assert duel.trials(0) == first
    with pytest.raises(ValueError, match=r"nothing to take back: the first 3 trials are not yours\."):
        duel.undo(0)
    assert len(duel.trials(1)) == 4


def test_when_all_cells_are_tried_nothing_is_proposed(duel: Duel) -> None:
    while len(duel.trials(0)) < CELLS:
        duel.follow(0, question("ucb"))
    view = duel.view(0, question())
    assert (view.proposal, view.peak) == (None, None)
    with pytest.raises(ValueError, match=rf"nothing is left to propose: all {CELLS} cells are tried\."):
        duel.follow(0, question())


def test_no_room_and_a_whole_number_are_refused() -> None:
    start: Any
    for start, kind in ((1, ValueError), (CELLS // 2 + 1, ValueError), (2.5, TypeError)):
        with pytest.raises(kind, match=rf"start must .*; got {start}\."):
            Duel(LANDSCAPE, start=start)
    landscape = Landscape()
    landscape.space = Space({"width": Int(1, 25)})
    with pytest.raises(TypeError, match=r"landscape must be of one Float; got Int"):
        Duel(landscape)  # type: ignore[arg-type]  # it answers like one


# -- the view ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_the_proposal_is_the_best_free_cell(duel: Duel, acquisition: Acquisition) -> None:
    """Along the places, of which every fourth is a cell, the function is the same one."""
    view = duel.view(0, question(acquisition, exploration=0.3))
    assert view.trials == duel.trials(0)
    assert view.scores.shape == (97,)
    of_cells = view.scores[::4].copy()
    of_cells[cells(view.trials)] = -np.inf
    assert view.proposal == of_cells.argmax()
    assert view.peak == pytest.approx(of_cells.max(), abs=1e-3)
    again = duel.view(0, question(acquisition, exploration=0.3))
    np.testing.assert_array_equal(again.scores, view.scores)


def test_the_model_has_seen_the_trials(duel: Duel) -> None:
    view = duel.view(0, question(kernel=Kernel((0.2,), noise=1e-6)))
    values = np.array([trial.value for trial in view.trials], dtype=float)
    middle, low, high = view.model.band(duel.places[cells(view.trials)][:, None], 2)
    assert middle == pytest.approx(values, abs=1e-4)
    assert (high - low).max() < 1e-3
    _, low, high = duel.view(0, question(kernel=Kernel((0.02,)))).model.band(ALONG[:, None], 20)
    assert 0 <= low.min() < 0.01 and 0.99 < high.max() <= 1  # it knows that these are shares
    fitted = duel.view(0, question(kernel=None)).model.posterior.kernel
    assert fitted != KERNEL


# -- the race ----------------------------------------------------------------------------------------------------------


def test_the_race_by_hand(duel: Duel) -> None:
    for cell in (0, 17, 24):
        duel.attempt(4, cell)
    race = duel.race(4)
    assert race is not None
    assert (len(race.you), len(race.machine), len(race.random), race.end) == (6, 6, RUNS, 12)
    best, wanted = -1.0, []
    for trial in duel.trials(4):
        if (trial.value or 0) > best:
            best, retested = trial.value or 0, Objective(4).retest(trial.config)
        wanted.append(retested)
    assert race.you == tuple(wanted)
    study = Study(SPACE, maximise=True)
    for trial in duel.trials(4)[:3]:
        study.tell(study.enqueue(trial.config).number, trial.value)
    study.run(Objective(4), Bayes(start=3, seed=4, bounds=(0, 1)), budget=6)
    best_of_all = max(study.trials, key=lambda trial: trial.value or 0)
    assert race.machine[-1] == Objective(4).retest(best_of_all.config)
    for number in (0, 31):
        by_chance = Study(SPACE, maximise=True).run(Objective(4), Random(RUNS * 4 + number), budget=12)
        assert race.random[number][-1] == Objective(4).retest(by_chance.best.config)
        assert len(race.random[number]) == 12


def test_a_longer_race_goes_on_and_a_shorter_one_searches_nothing(duel: Duel) -> None:
    short = duel.race(0)
    for _ in range(8):
        duel.follow(0, question("ucb"))
    before = Objective.calls
    longer = duel.race(0)
    assert short is not None and longer is not None
    assert longer.end == 18
    assert [room(trials) for trials in (3, 10, 11, 16, 17)] == [12, 12, 18, 18, 24]
    assert Objective.calls - before == 8 + 6 * RUNS  # the machine's, and six more by chance each
    assert [walk[:12] for walk in longer.random] == list(short.random)
    assert longer.machine[:3] == short.machine
    fresh = Duel(LANDSCAPE, start=3)
    for trial in duel.trials(0)[3:]:
        fresh.attempt(0, fresh.cell(trial.config["lr"]))
    assert fresh.race(0) == longer
    for _ in range(8):
        duel.undo(0)
    before = Objective.calls
    assert duel.race(0) == short
    assert Objective.calls == before


def test_a_race_that_is_cancelled_keeps_what_was_searched(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, plain = Event(), Objective.__call__

    def stopping(self: Objective, config: Config) -> float:
        if Objective.calls - before == 50:
            cancel.set()
        return plain(self, config)

    duel.trials(0)
    before = Objective.calls
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", stopping)
        assert duel.race(0, cancel) is None
    done = Objective.calls - before
    assert 50 <= done <= 52
    race = duel.race(0)
    assert race is not None and Objective.calls - before == 12 * RUNS
    assert race == Duel(LANDSCAPE, start=3).race(0)
