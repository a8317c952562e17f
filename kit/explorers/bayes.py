"""The Bayes explorer: one hyper-parameter, tried step by step beside a Gaussian process that says where to try next."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, Self

import numpy as np

from kit import checks, training
from kit.data import Dataset
from kit.explorers.base import Explorer, of_answer
from kit.explorers.bayes_words import MEANING, SEEDS, Answer, Settings, kernel, table, words
from kit.explorers.marks import Mark
from kit.measure import Estimate
from kit.plots import bayes as plots
from kit.plots import style
from kit.plots.curves import Panel, parameter_title
from kit.search import Float, Space
from kit.search import landscape as landscapes
from kit.search.acquisition import ACQUISITIONS, Acquisition
from kit.search.duel import Duel, View
from kit.search.landscape import Landscape
from kit.search.surrogate import Posterior
from kit.search.trials import Trial

LEAST_POINTS = 8
DRAWN = 180  # places where the model is drawn, about
LINE = Space({"lr": Float(1e-5, 10, log=True)})


class BayesExplorer(Explorer[Settings, Answer]):
    """Search one hyper-parameter of small MLPs by hand, beside a model that believes, wants and proposes.

    First a network is trained at every cell of the range, with several seeds. A trial then reads one network of its
    cell, as one training run would give: its noise is that of the training seed. You, a machine (Bayesian optimisation,
    its kernel fitted) and random search make as many trials; you and the machine begin at the same ones.

    Args:
        dataset: any `Dataset`. Train fits, validation measures, test is not read.
        space: one Float of `search.networks.TUNABLE`; by default the learning rate from 1e-5 to 10.
        points: cells, 8 or more.
        seeds: networks a cell, 2 or more.
        epochs: of each network.
        landscape: a complete one of `search.landscape` over one Float, in place of training one.
        start: quasi-random trials before anybody chooses, from 2 to half of the cells.

    Controls, each with its value to read or set from code: `place` (where `try_button` tries), `length`, `noise`,
    `fitted`, `acquisition`, `exploration`, `samples`, `truth`, `seed`; buttons `try_button`, `follow_button`,
    `undo_button`, `reset_button`, `new_seeds_button`, `stop_button`. A click on the large figure tries there. Methods
    that do the same: `try_here`, `follow`, `undo`, `new_seeds`, `reset`; `play` tries several. After `wait()`: `trials`
    (yours, the first ones included), `best`, `posterior`, `proposal`, `expected` (there), `retested`, `machine`,
    `random`, `landscape`.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an argument out of range, a landscape that is not complete, or both it and a space.
    """

    _first = ("belief",)
    _status_height = "8.5em"
    _settings = Settings
    trials: tuple[Trial, ...] = of_answer(
        "view.trials", "Your trials, oldest first; the first `start` were made for you."
    )
    best: Trial = of_answer("best", "The best of your trials; the first of equal ones.")
    posterior: Posterior = of_answer(
        "view.model.posterior", "It has seen your trials: (mean - accuracy) / standard deviation, less is better."
    )
    # Worth of the incumbent after each trial, measured anew on its cell's other networks: the best of noisy values won
    # partly by luck, and they know nothing of that.
    retested: tuple[float, ...] = of_answer("race.you", "What your incumbent is worth after each trial.")
    machine: tuple[float, ...] = of_answer("race.machine", "The same for Bayesian optimisation alone.")

    def __init__(
        self,
        dataset: Dataset,
        *,
        space: Space | None = None,
        points: int = 96,
        seeds: int = 4,
        epochs: int = 20,
        landscape: Landscape | None = None,
        start: int = 3,
    ) -> None:
        grid = _landscape(space, points, seeds, epochs, landscape)
        grid.check_dataset(dataset)
        self.dataset, self.space, self._duel = dataset, grid.space, Duel(grid, start=start)
        name, between = self._duel.name, len(self._duel.places) - 1
        fine = max(1, round(DRAWN / between))  # drawn at the cells, and as often between two
        self._duel.along = np.interp(np.arange(fine * between + 1) / fine, range(between + 1), self._duel.places)
        # Methods of the duel, with arguments. An answer that is cancelled leaves those that it did not come to.
        self._moves: deque[tuple[Any, ...]] = deque()
        self._refusals: list[ValueError] = []
        self._explorations: dict[Acquisition, float] = {}  # that were set
        self.aim = Mark("expected", colour=style.PURPLE, text="here", clickable=True)
        self.aim.observe(self._clicked, names="clicked")
        code = ["dataset", *["space=space"] * bool(space), *["landscape=landscape"] * bool(landscape)]
        sizes = {} if landscape else {"points": points, "seeds": seeds, "epochs": epochs}
        title, rows = f"BayesExplorer: {name} on {dataset.name}", table(name, grid.axes[0])
        super().__init__(title, rows, (code, {**sizes, "start": start}), marks=[self.aim])
        self._move()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def landscape(self) -> Landscape:
        """The networks at every cell (waits for them); one that diverged knows nothing, and has accuracy 0."""
        self.wait()
        return self._duel.landscape

    @property
    def proposal(self) -> float:
        """The value that the model would try next.

        Raises:
            RuntimeError: all cells are tried.
        """
        proposal = self._latest().view.proposal
        if proposal is None:
            raise RuntimeError(f"nothing is left to propose: all {len(self._duel.places)} cells are tried.")
        return self._duel.landscape.axes[0][proposal]

    @property
    def expected(self) -> Estimate:
        """The accuracy that the model expects at the proposal, with its 95 % interval."""
        return plots.expected(self._duel, self._latest().view, self.proposal)

    @property
    def random(self) -> tuple[Estimate, ...]:
        """What random search has found after each trial: mean over 32 runs with its interval, as far as it is drawn."""
        return tuple(plots.chance(self._latest().race))

    def code(self) -> str:
        """As for every explorer; then your trials with this seed are played (waits for them)."""
        self.wait()
        yours = [] if self._duel.landscape.missing else self._duel.trials(self.seed.value)[self._duel.start :]
        played = ", ".join(repr(trial.config[self._duel.name]) for trial in yours)
        return super().code() + (f".play({played})" if played else "")

    def play(self, *values: float) -> Self:
        """Try the cells that are nearest to some values, one after the other.

        Args:
            *values: of the hyper-parameter.

        Returns:
            The explorer itself.

        Raises:
            TypeError: no number.
            ValueError: out of the range; nothing is tried then. A cell that is tried already is refused by `wait()`.
        """
        for value in values:
            checks.number("value", value)
            if not self._duel.parameter.holds(value):
                raise ValueError(f"value must be {self._duel.parameter}; got {value!r}.")
        seed = self.seed.value
        self._ask(*(("attempt", seed, self._duel.cell(value)) for value in values))
        return self

    def try_here(self, value: float | None = None) -> None:
        """Try the cell that is nearest to a value, by default that of `place`; errors as in `play`."""
        self.play(self.place.value if value is None else value)

    def follow(self) -> None:
        """Try what the model proposes under the present settings."""
        self._ask(("follow", self.seed.value, self.settings.question))

    def undo(self) -> None:
        """Take your last trial back; `wait()` refuses where there is none."""
        self._ask(("undo", self.seed.value))

    def new_seeds(self) -> None:
        """Play again with other start points and other networks."""
        self.seed.value = (self.seed.value + 1) % SEEDS

    def reset(self) -> None:
        """Take all trials back, and set every control back to where it began."""
        self._explorations.clear()
        self._refusals.clear()
        self._moves = deque([("forget",)])
        super().reset()

    # -- what a move brings along --------------------------------------------------------------------------------------

    def _adjust(self, moved: str) -> None:
        """Each acquisition function keeps its own exploration."""
        if moved == "acquisition":
            chosen: Acquisition = self.acquisition.value
            self.exploration.value = self._explorations.get(chosen, ACQUISITIONS[chosen].default)

    def _preview(self, settings: Settings) -> None:
        """Say what `exploration` means now; offer what is asked for."""
        parameter = ACQUISITIONS[settings.acquisition].parameter
        self._explorations[settings.acquisition] = settings.exploration
        self.exploration.description, self.meaning.value = parameter or "explore", MEANING[parameter]
        self.exploration.disabled = not parameter
        self.length.disabled = self.noise.disabled = settings.fitted

    def _clicked(self, change: Any) -> None:
        """A click on the figure: the axis has a margin, which belongs to the ends of the range."""
        self.try_here(min(max(change["new"][1], self._duel.parameter.low), self._duel.parameter.high))

    def _ask(self, *moves: tuple[Any, ...]) -> None:
        """Let the worker make moves of the duel in their turn, then answer."""
        self._moves.extend(moves)
        self._move()

    # -- in the worker -------------------------------------------------------------------------------------------------

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Train the networks, unless that is done; do what was asked for; ask the model, then race."""
        if self._duel.landscape.missing:
            self._train(cancel)
        while self._moves:
            move, *arguments = self._moves.popleft()
            try:
                getattr(self._duel, move)(*arguments)
            except ValueError as refused:
                self._refusals.append(refused)
        view, last = self._duel.view(settings.seed, settings.question), self._answered
        if last is not None and (last.settings.seed, last.view.trials) == (settings.seed, view.trials):
            return Answer(settings, view, last.race)
        self._paint("belief", self._belief(settings, view))  # at once: the others' trials take a moment
        race = self._duel.race(settings.seed, cancel)
        if race is None:
            raise training.Cancelled("cancelled in the middle of the race.")
        return Answer(settings, view, race)

    def _train(self, cancel: Event) -> None:
        """Train the networks that are missing; what they reach is painted where it may be seen."""
        grid, title = self._duel.landscape, html.escape(parameter_title(self._duel.name))
        total, left = grid.curves[..., 0].size, grid.missing
        what = f"{grid.seeds} at each of {len(grid.axes[0])} values of the {title}"
        done = f"Training {total:,} small networks, {what}: {{:,}} are done.".format
        self._busy(True)
        self._say(done(total - left))
        for grown in landscapes.grow(self.dataset, grid, cancel=cancel):
            self._duel.landscape = grown
            self._paint("belief", self._belief(self.settings, None))
            self._progress(1 - grown.missing / left)
            self._say(done(total - grown.missing))

    def _finish(self, answer: Answer, cancel: Event) -> None:
        """Raise a refusal last, so that it stands before what is still true."""
        if self._refusals:
            first, self._refusals = self._refusals[0], []
            raise first

    # -- pictures and words --------------------------------------------------------------------------------------------

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings, view, race = (answer.settings, answer.view, answer.race) if answer else (self.settings, None, None)
        best = float(self._duel.landscape.mean.max()) if answer else 0.9
        return {
            "belief": lambda: self._belief(settings, view),
            "wanted": lambda: plots.wanted_panel(self._duel, settings.acquisition, view),
            "race": lambda: plots.race_panel(race, best),
        }

    def _belief(self, settings: Settings, view: View | None) -> Panel:
        return plots.belief_panel(self._duel, view, settings.samples, settings.truth)

    def _draw_marks(self, answer: Answer) -> None:
        """Set the mark of what is expected at the slider's place, and say what length and noise are."""
        place, there = answer.settings.place, plots.expected(self._duel, answer.view, answer.settings.place)
        self.aim.values = [place, *(100 * each for each in (there.value, there.low, there.high))]
        self.model_note.value = kernel(self._duel, answer)

    def _words(self, answer: Answer) -> str:
        return words(self._duel, answer)


def _landscape(space: Space | None, points: int, seeds: int, epochs: int, landscape: Landscape | None) -> Landscape:
    """The landscape that is given, or one of which nothing is trained."""
    named = landscapes.space_of(space, landscape, LINE)
    checks.whole("points", points, LEAST_POINTS)
    kinds = {name: type(parameter) for name, parameter in named.parameters.items()}
    if list(kinds.values()) != [Float]:
        said = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise ValueError(f"space must have one parameter, a Float; got {said}.")
    if landscape is None:
        return landscapes.blank(named, points=points, seeds=seeds, epochs=epochs)
    landscape.check_complete()
    if (cells := len(landscape.axes[0])) < LEAST_POINTS or landscape.seeds < 2:
        least = f"{LEAST_POINTS} cells or more, of 2 networks or more"
        raise ValueError(f"landscape must have {least}; got {cells} of {landscape.seeds}.")
    return landscape
