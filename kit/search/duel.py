"""You against the machine: one hyper-parameter, searched by hand beside a model, raced against it and random search.

| to | call |
|---|---|
| begin | `duel = Duel(landscape, start=3)` |
| see your trials | `duel.trials(repeat)` |
| try a cell, or what a view proposes | `duel.attempt(repeat, cell)`; `duel.follow(repeat, question)` |
| take the last trial back | `duel.undo(repeat)` |
| see what the model makes of them | `duel.view(repeat, Question("ei", 0.01, kernel))` |
| compare | `duel.race(repeat, cancel)` |

A cell is a number along the one axis of the landscape. A repeat is a game of its own: with other first trials and other
networks. A duel holds what was tried and nothing that is shown, and it is not safe for several threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kit import checks
from kit.search.acquisition import Acquisition
from kit.search.bayes import Bayes, Model
from kit.search.random import Random, sobol_points
from kit.search.replay import replay
from kit.search.space import Float
from kit.search.study import Study
from kit.search.surrogate import Kernel
from kit.search.trials import Method, Trial

if TYPE_CHECKING:  # which loads torch: a duel takes anything that answers like it
    from kit.search.landscape import Landscape

RUNS = 32  # of random search
BOUNDS = (0.0, 1.0)  # of an accuracy
LEAST_SPREAD = 0.1  # of log-odds: accuracies that are nearly equal must not make the model sure of everything else


class Question(NamedTuple):
    """What the model is asked.

    Attributes:
        acquisition: which function says where to try next.
        exploration: its xi or beta; the function that `thompson` draws has none.
        kernel: how near places go together; None fits it to the trials.
    """

    acquisition: Acquisition
    exploration: float
    kernel: Kernel | None


@dataclass(frozen=True, eq=False)
class View:
    """What the model makes of your trials.

    Attributes:
        trials: yours, the first ones included.
        model: of the log-odds of the accuracy, at places of the unit interval, [m, 1].
        scores: the acquisition function along the duel's `along`, [m].
        proposal: the cell to try next; None where all are tried.
        peak: the score there; None where all are tried.
    """

    trials: tuple[Trial, ...]
    model: Model
    scores: np.ndarray
    proposal: int | None
    peak: float | None


class Race(NamedTuple):
    """The incumbent after each trial, retested: its value on the cell's other networks.

    The best of noisy values won partly by luck; the other networks know nothing of that.

    Attributes:
        you: [n].
        machine: Bayesian optimisation alone, from the same first trials, [n].
        random: `RUNS` runs of random search, [RUNS][end].
        end: trials that the race has room for.
    """

    you: tuple[float, ...]
    machine: tuple[float, ...]
    random: tuple[tuple[float, ...], ...]
    end: int


class Duel:
    """The games on one landscape.

    Args:
        landscape: complete, of one Float; `space`, `axes`, `config` and `objective` of it are used.
        start: quasi-random trials that you and the machine begin with, from 2 to half of the cells.
        along: places of the unit interval, [m], at which views score too; a function drawn at random is the
            same one at these and at the cells.

    Raises:
        TypeError: a start that is no whole number, or a parameter that is no Float.
        ValueError: a start out of range.
    """

    def __init__(self, landscape: Landscape, *, start: int = 3, along: Sequence[float] | np.ndarray = ()) -> None:
        checks.whole("start", start, 2, len(landscape.axes[0]) // 2)
        self.landscape, self.start = landscape, start
        ((self.name, parameter),) = landscape.space.parameters.items()
        if not isinstance(parameter, Float):
            raise TypeError(f"landscape must be of one Float; got {parameter!r}.")
        self.parameter = parameter
        self.places = np.array([self.parameter.encode(value) for value in landscape.axes[0]])  # [cells]
        self.along = np.asarray(along, dtype=float)  # [m]
        self._games: dict[int, _Game] = {}

    def trials(self, repeat: int) -> tuple[Trial, ...]:
        """Your trials, oldest first; the first `start` of them are made for you."""
        return tuple(self._game(repeat).yours)

    def cell(self, value: float) -> int:
        """The cell whose value is nearest, on the unit interval."""
        return int(np.abs(self.places - self.parameter.encode(value)).argmin())

    def attempt(self, repeat: int, cell: int) -> Trial:
        """Try a cell: read one network of it; refuses as `check_free`."""
        self.check_free(repeat, cell)
        config, game = self.landscape.config((cell,)), self._game(repeat)
        value = game.objective(config)
        game.yours.append(Trial(len(game.yours), config, "done", value=value, scores=(value,)))
        return game.yours[-1]

    def check_free(self, repeat: int, cell: int) -> None:
        """Refuse a cell that is tried already, or is none (a ValueError)."""
        checks.whole("cell", cell, 0, len(self.places) - 1)
        if cell in self._tried(repeat):
            what = f"{self.name} {self.landscape.axes[0][cell]:.3g}"
            raise ValueError(f"{what} is tried already, and the same network would answer again: choose another.")

    def follow(self, repeat: int, question: Question) -> Trial:
        """Try what the model proposes; a ValueError where all cells are tried."""
        proposal = self.view(repeat, question).proposal
        if proposal is None:
            raise ValueError(f"nothing is left to propose: all {len(self.places)} cells are tried.")
        return self.attempt(repeat, proposal)

    def undo(self, repeat: int) -> Trial:
        """Take your last trial back; a ValueError where there is none."""
        yours = self._game(repeat).yours
        if len(yours) <= self.start:
            raise ValueError(f"nothing to take back: the first {self.start} trials are not yours.")
        return yours.pop()

    def view(self, repeat: int, question: Question) -> View:
        """What the model makes of your trials; the same trials and question give the same view."""
        trials, tried = self.trials(repeat), self._tried(repeat)
        name, explore, kernel = question
        space, method = self.landscape.space, Bayes(name, beta=explore, xi=explore, seed=repeat, bounds=BOUNDS)
        model = method.model(space, trials, maximise=True, kernel=kernel, clip=False, least_spread=LEAST_SPREAD)
        scores = model.scores(np.concatenate([self.along, self.places])[:, None])
        along, of_cells = np.split(scores, [len(self.along)])
        free = [cell for cell in range(len(self.places)) if cell not in tried]  # the same network would answer again
        proposal = max(free, key=of_cells.__getitem__, default=None)
        return View(trials, model, along, proposal, None if proposal is None else float(of_cells[proposal]))

    def race(self, repeat: int, cancel: Event | None = None) -> Race | None:
        """Let the machine make as many trials as you, and random search as many as there is room for.

        Args:
            repeat: which game.
            cancel: looked at between trials; what was searched until then is kept, and gone on with.

        Returns:
            None where `cancel` was set before all were searched.
        """
        game, yours = self._game(repeat), self.trials(repeat)
        end = room(len(yours))
        machine = Bayes(start=self.start, seed=repeat, bounds=BOUNDS)
        searches: list[tuple[Study, Method, int]] = [(game.machine, machine, len(yours))]
        searches += [(study, Random(RUNS * repeat + number), end) for number, study in enumerate(game.randoms)]
        for study, method, budget in searches:
            if len(study.trials) < budget:  # else it would propose, and that in vain
                study.run(game.objective, method, budget=budget, cancel=cancel)
        if cancel is not None and cancel.is_set():
            return None
        chance = tuple(game.retested(study.trials[:end]) for study in game.randoms)
        return Race(game.retested(yours), game.retested(game.machine.trials[: len(yours)]), chance, end)

    def _game(self, repeat: int) -> _Game:
        if repeat not in self._games:
            self._games[repeat] = _Game(self, repeat)
        return self._games[repeat]

    def _tried(self, repeat: int) -> set[int]:
        return {self.cell(trial.config[self.name]) for trial in self.trials(repeat)}


class _Game:
    """One repeat: your trials, the machine's search, and random trials; the first two begin alike."""

    def __init__(self, duel: Duel, repeat: int) -> None:
        self.objective = duel.landscape.objective(repeat)
        self.machine, *self.randoms = (Study(duel.landscape.space, maximise=True) for _ in range(1 + RUNS))
        for place in sobol_points(1, duel.start, repeat)[: duel.start, 0].tolist():
            first = self.machine.enqueue(duel.landscape.config((duel.cell(duel.parameter.decode(place)),)))
            self.machine.tell(first.number, self.objective(first.config))
        self.yours = list(self.machine.trials)

    def retested(self, trials: Sequence[Trial]) -> tuple[float, ...]:
        walked = replay(trials, self.objective.retest, maximise=True, epochs=False)
        return tuple(value for value in walked.retested if value is not None)


def room(trials: int) -> int:
    """Trials that the race has room for: in steps, so that its axis seldom moves; 2 or more are ahead, 12 at least."""
    return max(12, 6 * math.ceil((trials + 2) / 6))
