"""The Bayes explorer: one hyper-parameter, tried step by step beside a Gaussian process that says where to try next."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby, takewhile
from threading import Event
from typing import Any, Literal, Self

import numpy as np

from kit import checks, training
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import Explorer, of_answer
from kit.explorers.bayes_words import MEANING, SEEDS, Answer, Move, Settings, kernel, table, words
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
SECONDS = 30.0  # to train the networks
RUNGS = sizing.rungs(
    ("points", "seeds", "epochs", "samples"),
    (96, 4, 20, math.inf),
    (96, 4, 20, 4000),
    (96, 4, 20, 2000),
    (64, 3, 20, 2000),
    (48, 3, 15, 2000),
    (48, 3, 15, 1000),
    (32, 2, 15, 1000),
    (32, 2, 10, 500),
    (24, 2, 8, 300),
)
LINE = Space({"lr": Float(1e-5, 10, log=True)})


class BayesExplorer(Explorer[Settings, Answer]):
    """Search one hyper-parameter of small networks by hand, beside a model that believes, wants and proposes.

    First a network is trained at every cell of the range, with several seeds: an MLP, or of texts a bag of words. A
    trial then reads one network of its cell, as one training run would give: its noise is that of the training seed.
    You, a machine (Bayesian optimisation, its kernel fitted) and random search make as many trials; you and the machine
    begin at the same ones.

    Args:
        dataset: any `Dataset`. Train fits, validation measures, test is not read.
        space: one Float of `search.networks.TUNABLE`; by default the learning rate from 1e-5 to 10.
        points: cells, 8 or more; 96 if there is time.
        seeds: networks a cell, 2 or more; 4 if there is time.
        epochs: of each network; 20 if there is time.
        landscape: a complete one of `search.landscape` over one Float, in place of training one.
        start: quasi-random trials before anybody chooses, from 2 to half of the cells.
        samples: of the train split to train on, and as large a share of the validation split to score on; all of them
            if there is time. (The control of that name is another thing: curves of the model.)
        seconds: to train the networks. Where it would take longer on this machine, what of the numbers is left open is
            made smaller, and the words say so. None trains all.

    Controls, each with its value to read or set from code: `place` (where `try_button` tries), `length`, `noise`,
    `fitted`, `acquisition`, `exploration`, `samples`, `truth`, `seed`; buttons `try_button`, `follow_button`,
    `reset_button`, `new_seeds_button`, `stop_button`. A click on the large figure tries there. Methods that do the
    same: `try_here`, `follow`, `new_seeds`, `reset`; `play` tries several. After `wait()`: `trials` (yours, the first
    ones included), `best`, `posterior`, `proposal`, `expected` (there), `retested`, `machine`, `random`, `landscape`.

    Raises:
        TypeError: an argument of another kind.
        ValueError: an argument out of range, a landscape that is not complete, or both it and a space.
    """

    _first = ("belief",)
    _settings = Settings
    trials: tuple[Trial, ...] = of_answer(
        "view.trials", "Your trials, oldest first; the first `start` were made for you."
    )
    best: Trial = of_answer("best", "The best of your trials; the first of equal ones.")
    posterior: Posterior = of_answer(
        "view.model.posterior", "It has seen your trials: (mean - log-odds) / standard deviation, less is better."
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
        points: int | None = None,
        seeds: int | None = None,
        epochs: int | None = None,
        landscape: Landscape | None = None,
        start: int = 3,
        samples: int | None = None,
        seconds: float | None = SECONDS,
    ) -> None:
        training.check_dataset(dataset)
        sizing.check_seconds(seconds)
        asked = {"points": points, "seeds": seeds, "epochs": epochs, "samples": samples}
        grid, sizes, self._sized = _landscape(dataset, space, asked, landscape, seconds)
        grid.check_dataset(dataset)
        self.dataset, self.space, self._duel = dataset, grid.space, Duel(grid, start=start)
        name, between = self._duel.name, len(self._duel.places) - 1
        fine = max(1, round(DRAWN / between))  # drawn at the cells, and as often between two
        self._duel.along = np.interp(np.arange(fine * between + 1) / fine, range(between + 1), self._duel.places)
        self._played: dict[int, tuple[Move, ...]] = {}  # by seed: what was asked for
        self._made: dict[int, tuple[Move, ...]] = {}  # and what of it the duel has made
        self._refusals: list[ValueError] = []
        self._explorations: dict[Acquisition, float] = {}  # that were set
        self.aim = Mark("expected", colour=style.PURPLE, text="here")
        code = ["dataset", *["space=space"] * bool(space), *["landscape=landscape"] * bool(landscape)]
        sizes |= {} if landscape or self._sized or seconds == SECONDS else {"seconds": seconds}
        title, rows = f"BayesExplorer: {name} on {dataset.name}", table(name, grid.axes[0])
        super().__init__(title, rows, (code, {**sizes, "start": start}), marks=[self.aim])
        self._move()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the controls say now, and the trials that were asked for."""
        values = self._values()
        return Settings(**values, played=self._played.get(values["seed"], ()))

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
        made = self._made.get(self.seed.value, ())
        trials = zip(self._duel.trials(self.seed.value)[self._duel.start :], made, strict=True) if made else ()
        line = super().code()
        for by_machine, group in groupby(trials, lambda pair: pair[1].by_machine):
            values = ", ".join(repr(trial.config[self._duel.name]) for trial, _ in group)
            line += f".play({values}" + (", by='machine')" if by_machine else ")")
        return line

    def play(self, *values: float, by: Literal["you", "machine"] = "you") -> Self:
        """Try the cells that are nearest to some values, one after the other.

        Args:
            *values: of the hyper-parameter.
            by: who proposed them; they are counted apart.

        Returns:
            The explorer itself.

        Raises:
            TypeError: no number.
            ValueError: out of the range; nothing is tried then. A cell that is tried already is refused by `wait()`.
        """
        checks.one_of("by", by, ("you", "machine"))
        for value in values:
            checks.number("value", value)
            if not self._duel.parameter.holds(value):
                raise ValueError(f"value must be {self._duel.parameter}; got {value!r}.")
        self._ask(*(Move(self._duel.cell(value), by == "machine") for value in values))
        return self

    def try_here(self, value: float | None = None) -> None:
        """Try the cell that is nearest to a value, by default that of `place`; errors as in `play`."""
        self.play(self.place.value if value is None else value)

    def follow(self) -> None:
        """Try what the model proposes under the present settings."""
        self._ask(Move(self.settings.question, by_machine=True))

    def new_seeds(self) -> None:
        """Play again with other start points and other networks."""
        self.seed.value = (self.seed.value + 1) % SEEDS

    def reset(self) -> None:
        """Take all trials back, and set every control back to where it began."""
        with self._lock:
            self._explorations.clear()
            self._refusals.clear()
            self._played.clear()
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

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """A click on the large figure: the axis has a margin, which belongs to the ends of the range."""
        if figure == "belief":
            self.try_here(min(max(x, self._duel.parameter.low), self._duel.parameter.high))

    def _ask(self, *moves: Move) -> None:
        """Let the worker make moves in their turn, then answer."""
        with self._lock:
            seed = self.seed.value
            for move in moves:
                asked = self._played.get(seed, ())
                try:
                    if isinstance(move.what, int) and self._made.get(seed) == asked:  # else the worker finds out
                        self._duel.check_free(seed, move.what)
                    self._played[seed] = (*asked, move)
                except ValueError as refused:
                    self._refusals.append(refused)
            self._move()

    def _state(self) -> Any:
        """The controls, the trials under each seed, and the exploration of each acquisition function."""
        explorations = {name: self._explorations.get(name, kind.default) for name, kind in ACQUISITIONS.items()}
        explorations[self.acquisition.value] = self.exploration.value
        played = {seed: moves for seed, moves in self._played.items() if moves}
        return {**self._values(), "played": played, "explorations": explorations}

    def _restore(self, state: Any) -> None:
        """Go to what `_state` gave."""
        values = dict(state)
        with self._lock:
            self._played, self._explorations = dict(values.pop("played")), dict(values.pop("explorations"))
            self.set(**values)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        """The best trial."""
        return [answer.best.config[self._duel.name], *[100 * (answer.best.value or 0)] * 3]

    # -- in the worker -------------------------------------------------------------------------------------------------

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Train the networks, unless that is done; do what was asked for; ask the model, then race."""
        if self._duel.landscape.missing:
            self._train(cancel)
        settings = self._bring(settings)
        view, last = self._duel.view(settings.seed, settings.question), self._answered
        if last is not None and (last.settings.seed, last.view.trials) == (settings.seed, view.trials):
            return Answer(settings, view, last.race)
        self._paint("belief", self._belief(settings, view))  # at once: the others' trials take a moment
        race = self._duel.race(settings.seed, cancel)
        if race is None:
            raise training.Cancelled("cancelled in the middle of the race.")
        return Answer(settings, view, race)

    def _bring(self, settings: Settings) -> Settings:
        """Make the moves that are not made yet, take back those that are no more asked for, drop those refused."""
        seed, wanted, made = settings.seed, settings.played, self._made.get(settings.seed, ())
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(made, wanted, strict=False)))
        for _ in made[same:]:
            self._duel.undo(seed)
        self._made[seed] = wanted[:same]
        for move in wanted[same:]:
            try:
                if isinstance(move.what, int):
                    self._duel.attempt(seed, move.what)
                else:
                    self._duel.follow(seed, move.what)
                self._made[seed] += (move,)
            except ValueError as refused:
                self._refusals.append(refused)
        with self._lock:
            asked = self._played.get(seed, ())
            if asked[: len(wanted)] == wanted:  # else a hand has gone elsewhere meanwhile
                self._played[seed] = self._made[seed] + asked[len(wanted) :]
        return replace(settings, played=self._made[seed])

    def _train(self, cancel: Event) -> None:
        """Train the networks that are missing; what they reach is painted where it may be seen."""
        grid, title = self._duel.landscape, html.escape(parameter_title(self._duel.name))
        total, left = grid.curves[..., 0].size, grid.missing
        what = f"{grid.seeds} at each of {len(grid.axes[0])} values of the {title}"
        done = f"Training {total:,} small networks, {what}: {{:,}} are done. {self._sized}".rstrip().format
        self._busy(True)
        self._say(done(total - left))

        def move(networks: float) -> None:
            self._progress((left - self._duel.landscape.missing + networks) / left)

        how: dict[str, Any] = {"callbacks": [sizing.Networks(move)], "cancel": cancel}
        for grown in landscapes.grow(self.dataset, grid, **how):
            self._duel.landscape = grown
            self._paint("belief", self._belief(self.settings, None))
            move(0)
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
        return f"{words(self._duel, answer)} {self._sized}".rstrip()


def _landscape(
    dataset: Dataset,
    space: Space | None,
    asked: Mapping[str, int | None],
    landscape: Landscape | None,
    seconds: float | None,
) -> tuple[Landscape, dict[str, Any], str]:
    """The landscape that is given, or one of which nothing is trained; as `sizing.landscape`."""
    named = landscapes.space_of(space, landscape, LINE)
    if asked["points"] is not None:
        checks.whole("points", asked["points"], LEAST_POINTS)
    kinds = {name: type(parameter) for name, parameter in named.parameters.items()}
    if list(kinds.values()) != [Float]:
        said = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise ValueError(f"space must have one parameter, a Float; got {said}.")
    if landscape is None:
        return sizing.landscape(dataset, named, asked, RUNGS, seconds, ("points", "seeds", "epochs"))
    landscape.check_complete()
    if (cells := len(landscape.axes[0])) < LEAST_POINTS or landscape.seeds < 2:
        least = f"{LEAST_POINTS} cells or more, of 2 networks or more"
        raise ValueError(f"landscape must have {least}; got {cells} of {landscape.seeds}.")
    return landscape, {}, ""
