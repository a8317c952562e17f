"""The Bayes explorer: one hyper-parameter, tried step by step beside a Gaussian process that says where to try next."""

from __future__ import annotations

import html
import math
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from threading import Event
from typing import Any

import ipywidgets as widgets
import numpy as np

from kit import training
from kit.data import Dataset
from kit.explorers.base import WIDE, Explorer, LiveFigure, Stops
from kit.explorers.page import Aim
from kit.measure import Estimate
from kit.plots import bayes as plots
from kit.plots import still
from kit.plots.search import title
from kit.search import Bayes, Float, Random, Space, Study, networks
from kit.search.belief import ACQUISITIONS, Acquisition, Belief, Wanted
from kit.search.networks import Landscape, LandscapeObjective
from kit.search.random import sobol_points
from kit.search.replay import track
from kit.search.surrogate import Kernel, Posterior
from kit.search.trials import Trial, check_whole

LENGTHS: tuple[float, ...] = (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2)
NOISES: tuple[float, ...] = (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1)
EXPLORATIONS: tuple[float, ...] = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5)
# What `exploration` is called with each acquisition function, where it begins, and what it says.
MEANING: dict[Acquisition, tuple[str, float, str]] = {
    "expected improvement": ("xi", 0.01, "xi: gain that is asked for, in standard deviations of the values"),
    "probability of improvement": ("xi", 0.01, "xi: gain that is asked for, in standard deviations of the values"),
    "confidence bound": ("beta", 2, "beta: optimism, in standard deviations over the mean"),
    "Thompson": ("explore", 0, "not used: the function drawn by chance explores"),
}
LEAST_POINTS = 8
REPEATS = 32  # of random search
DRAWN = 180  # places where the model is drawn, about

DETAIL_SECONDS = 0.05  # the other figures follow so much later, so that the page paints the model first

LINE = Space({"lr": Float(1e-5, 10, log=True)})


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    repeat: int
    length: float
    noise: float
    fitted: bool
    acquisition: Acquisition
    exploration: float
    samples: int
    truth: bool
    place: float


@dataclass(frozen=True)
class Answer:
    """What the model says of your trials."""

    settings: Settings
    trials: tuple[Trial, ...]
    belief: Belief
    wanted: Wanted  # along the drawn places
    proposal: int | None  # number of a cell; None where all are tried


class BayesExplorer(Explorer):
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
        landscape: a complete one of `search.networks` over one Float, in place of training one.
        start: quasi-random trials before anybody chooses, from 2 to half of the cells.

    Controls, each with its value to read or set from code: `place` (where `try_button` tries), `length`, `noise`,
    `fitted`, `acquisition`, `exploration`, `samples`, `truth`, `seed`; buttons `try_button`, `follow_button`,
    `undo_button`, `reset_button`, `new_seeds_button`, `stop_button`. A click on the large figure tries there. Methods
    that do the same: `try_here`, `follow`, `undo`, `new_seeds`, `reset`. After `wait()`: `trials` (yours, the first
    ones included), `best`, `posterior`, `proposal`, `expected` (there), `worth`, `machine`, `random`, `in_words`,
    `landscape`.

    Raises:
        TypeError: a space that is none.
        ValueError: an argument out of range, or a landscape that is not complete.
    """

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
        """Build the widgets, ask for the networks and the first answer."""
        training.check_dataset(dataset)
        self.dataset = dataset
        if landscape is not None and not isinstance(landscape, Landscape):
            raise TypeError(f"landscape must be a Landscape; got {landscape!r}.")
        check_whole("points", points, LEAST_POINTS)
        check_whole("start", start, 0)
        self._landscape = _checked(space, points, seeds, epochs, landscape)
        self._landscape.check_dataset(dataset)
        cells = len(self._landscape.axes[0])
        if not 2 <= start <= cells // 2:
            raise ValueError(f"start must lie in 2 .. {cells // 2}, half of the cells; got {start!r}.")
        self._start = start
        self.space = self._landscape.space
        ((self._name, parameter),) = self.space.parameters.items()
        assert isinstance(parameter, Float)
        self._parameter = parameter
        self._axis = plots.Axis.of(self._name, parameter)
        self._places = np.array([parameter.encode(value) for value in self._landscape.axes[0]])  # [cells]
        fine = max(1, round(DRAWN / (cells - 1)))
        self._drawn = np.interp(np.arange(fine * (cells - 1) + 1) / fine, np.arange(cells), self._places)
        self._values = [parameter.decode(place) for place in self._drawn.tolist()]
        if not self._landscape.missing:
            self._landscape = _known_only(self._landscape)
        self._objectives: dict[int, LandscapeObjective] = {}
        self._machines: dict[int, Study] = {}
        self._randoms: dict[tuple[int, int], list[list[float]]] = {}
        self._yours: dict[int, list[Trial]] = {}  # by repeat
        # What a hand asked for, oldest first. An answer that is cancelled leaves what it did not come to.
        self._moves: deque[Callable[[], None]] = deque()
        self._refusals: list[ValueError] = []
        self._answered: Answer | None = None
        self._explorations = {name: start for name, (_, start, _) in MEANING.items()}
        self._defaults: dict[str, Any] = {
            **{"place": self._landscape.axes[0][cells // 2], "length": 0.15, "noise": 0.05, "fitted": False},
            **{"acquisition": ACQUISITIONS[0], "exploration": MEANING[ACQUISITIONS[0]][1], "samples": 0},
            **{"truth": False, "seed": 0},
        }
        controls = self._make_controls()
        self._figure = LiveFigure(plots.belief_figure(plots.belief_info(self._axis)))
        self._wanted_figure = LiveFigure(plots.wanted_figure(plots.wanted_info(self._axis, ACQUISITIONS[0])))
        self._race_figure = LiveFigure(plots.race_figure(plots.race_info((), (), (), 0.9, _end(start))))
        self.aim = Aim()
        self.aim.observe(self._clicked, names="clicked")
        super().__init__(
            f"BayesExplorer: {self._name} on {dataset.name}",
            controls,
            self._figure,
            (self._wanted_figure, self._race_figure),
            overlays=[self.aim],
        )
        self.status.layout.min_height = "8.5em"
        self._move(None)

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return Settings(
            repeat=self.seed.value,
            length=self.length.value,
            noise=self.noise.value,
            fitted=self.fitted.value,
            acquisition=self.acquisition.value,
            exploration=self.exploration.value,
            samples=self.samples.value,
            truth=self.truth.value,
            place=self.place.value,
        )

    @property
    def landscape(self) -> Landscape:
        """The networks at every cell (waits for them); one that diverged knows nothing, and has accuracy 0."""
        self.wait()
        return self._landscape

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Your trials, oldest first; the first `start` ones were made for you (waits for them)."""
        return self._ready().trials

    @property
    def best(self) -> Trial:
        """The best of your trials; the first of equal ones."""
        return max(self.trials, key=_value)

    @property
    def posterior(self) -> Posterior:
        """The Gaussian process that has seen your trials: (mean - accuracy) / standard deviation, less is better."""
        return self._ready().belief.posterior

    @property
    def proposal(self) -> float:
        """The value that the model would try next.

        Raises:
            RuntimeError: all cells are tried.
        """
        proposal = self._ready().proposal
        if proposal is None:
            raise RuntimeError(f"nothing is left to propose: all {len(self._places)} cells are tried.")
        return self._landscape.axes[0][proposal]

    @property
    def expected(self) -> Estimate:
        """The accuracy that the model expects at the proposal, with its 95 % interval."""
        value, answer = self.proposal, self._ready()
        return self._expected(answer.belief, self._parameter.encode(value))

    @property
    def worth(self) -> tuple[float, ...]:
        """What your choice is worth after each trial: the best one so far, measured anew on its cell's other networks.

        The best of noisy values won partly by luck; the other networks know nothing of that.
        """
        answer = self._ready()
        return self._worth(answer.trials, answer.settings.repeat)

    @property
    def machine(self) -> tuple[float, ...]:
        """The same for Bayesian optimisation alone, as many trials as yours."""
        answer = self._ready()
        trials = self._machines[answer.settings.repeat].trials[: len(answer.trials)]
        return self._worth(trials, answer.settings.repeat)

    @property
    def random(self) -> tuple[Estimate, ...]:
        """The same for random search: mean over 32 repeats with its interval; as far as the figure shows it."""
        answer = self._ready()
        repeats = self._randoms[answer.settings.repeat, _end(len(answer.trials))]
        return tuple(Estimate.from_values(values).share for values in zip(*repeats, strict=True))

    @property
    def in_words(self) -> str:
        """The status line without its markup."""
        answer = self._ready()
        return html.unescape(re.sub(r"<[^>]+>", "", self._in_words(answer)))

    def try_here(self, value: float | None = None) -> None:
        """Try the cell that is nearest to a value.

        Args:
            value: of the hyper-parameter; None takes what `place` says.

        Raises:
            TypeError: no number.
            ValueError: out of the range. A cell that is tried already is refused by `wait()`.
        """
        value = self.place.value if value is None else value
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"value must be a number; got {value!r}.")
        if not self._parameter.holds(value):
            raise ValueError(f"value must be {self._parameter}; got {value!r}.")
        repeat, cell = self.seed.value, self._cell(float(value))
        self._ask(lambda: self._try(repeat, cell))

    def follow(self) -> None:
        """Try what the model proposes under the present settings."""
        settings = self.settings
        self._ask(lambda: self._follow(settings))

    def undo(self) -> None:
        """Take your last trial back; `wait()` refuses where there is none."""
        repeat = self.seed.value
        self._ask(lambda: self._take_back(repeat))

    def new_seeds(self) -> None:
        """Play again with other start points and other networks."""
        self.seed.value = (self.seed.value + 1) % (self.seed.max + 1)

    def reset(self) -> None:
        """Take all trials back, and set every control back to where it began."""
        with self._quietly():
            for control, value in self._defaults.items():
                getattr(self, control).value = value
            self._explorations = {name: start for name, (_, start, _) in MEANING.items()}
            self._offer()
        self._ask(self._forget)

    def stop(self) -> None:
        """Cancel the running work; the last picture stays until a control moves."""
        super().stop()
        self.stop_button.disabled = True

    def _ready(self) -> Answer:
        self.wait()
        if self._answered is None:
            raise RuntimeError("no answer yet: the work was stopped before the first one; move a control.")
        return self._answered

    # -- controls --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> list[widgets.Widget]:
        start, full, half = self._defaults, "100%", "50%"
        axis = self._landscape.axes[0]
        digits = next(n for n in range(3, 18) if len({f"{value:.{n}g}" for value in axis}) == len(axis))
        self.place = Stops(
            axis,
            lambda value: f"{self._name} {value:.{digits}g}",
            value=start["place"],
            description="place",
            **WIDE,
        )
        self.length = Stops(LENGTHS, lambda x: f"{x:g}", value=start["length"], description="length", **WIDE)
        self.noise = Stops(NOISES, lambda x: f"{x:g}", value=start["noise"], description="noise", **WIDE)
        self.exploration = Stops(EXPLORATIONS, lambda x: f"{x:g}", value=start["exploration"], description="xi", **WIDE)
        self.samples = widgets.IntSlider(start["samples"], 0, 5, description="samples", **WIDE)
        self.acquisition = widgets.Dropdown(
            options=ACQUISITIONS, value=start["acquisition"], description="acquisition", **WIDE
        )
        self.fitted = widgets.Checkbox(start["fitted"], description="fit length and noise", indent=False)
        self.truth = widgets.Checkbox(start["truth"], description="reveal the measured truth", indent=False)
        self.seed = widgets.BoundedIntText(start["seed"], 0, 9999, description="seed", **WIDE)
        for checkbox in (self.fitted, self.truth):
            checkbox.layout.width = "100%"
        for wide in (self.place, self.acquisition):  # the most moved one, and the longest texts
            wide.add_class("kit-wide")
        self.model_note, self.meaning = widgets.HTML().add_class("kit-note"), widgets.HTML().add_class("kit-note")
        self.try_button = _button("Try here", "crosshairs", full, self.try_here)
        self.follow_button = _button("Follow the machine", "star", full, self.follow)
        self.undo_button = _button("Undo", "undo", half, self.undo)
        self.reset_button = _button("Reset", "refresh", half, self.reset)
        self.new_seeds_button = _button("New seeds", "random", full, self.new_seeds)
        self._offer()
        for name in self._defaults:
            getattr(self, name).observe(self._move, names="value")
        return [
            *(self.place, self.try_button, self.follow_button),
            widgets.HBox([self.undo_button, self.reset_button], layout={"width": full, "overflow": "hidden"}),
            *(self.length, self.noise, self.fitted, self.model_note),
            *(self.acquisition, self.exploration, self.meaning, self.samples, self.truth),
            *(self.seed, self.new_seeds_button),
        ]

    def _move(self, change: Any) -> None:
        """A control moved: ask, and return at once."""
        if self._quiet:
            return
        if change is not None and change["owner"] is self.acquisition:
            with self._quietly():
                self._offer()
        elif change is not None and change["owner"] is self.exploration:
            self._explorations[self.acquisition.value] = change["new"]
        self.length.disabled = self.noise.disabled = self.fitted.value
        settings = self.settings
        self._request(lambda cancel: self._answer(settings, cancel))

    def _offer(self) -> None:
        """Say what `exploration` means now, and set it to what it last was with this acquisition function."""
        name: Acquisition = self.acquisition.value
        self.exploration.description, _, self.meaning.value = MEANING[name]
        self.exploration.value = self._explorations[name]
        self.exploration.disabled = name == "Thompson"
        self.length.disabled = self.noise.disabled = self.fitted.value

    def _clicked(self, change: Any) -> None:
        """A click on the figure: the axis has a margin, which belongs to the ends of the range."""
        value = min(max(change["new"][1], self._parameter.low), self._parameter.high)
        self.try_here(value)

    def _ask(self, move: Callable[[], None]) -> None:
        """Do something to the trials in the worker, in its turn, then answer."""
        self._moves.append(move)
        self._move(None)

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, settings: Settings, cancel: Event) -> None:
        """Train the networks, unless that is done; do what was asked for; show the model, then the race."""
        self._grow(settings, cancel)
        while self._moves:
            move = self._moves.popleft()
            try:
                move()
            except ValueError as refused:
                self._refusals.append(refused)
        answer = self._think(settings)
        info = self._belief_info(answer)
        self._paint(self._figure, plots.belief_traces(info))
        self._aim(answer)
        if cancel.wait(DETAIL_SECONDS):
            raise training.Cancelled("a newer request waits.")
        wanted = self._wanted_info(answer)
        self._paint(self._wanted_figure, plots.wanted_traces(wanted), **plots.wanted_layout(wanted))
        self._note(answer)
        self._compete(settings.repeat, len(answer.trials), cancel)
        race = self._race_info(answer)
        self._paint(self._race_figure, plots.race_traces(race), **plots.race_layout(race))
        self._answered = answer
        self._say(self._in_words(answer))
        if self._refusals:
            first, self._refusals = self._refusals[0], []
            raise first

    def _say_error(self, error: Exception) -> None:
        """A refusal stands before what is still true."""
        super()._say_error(error)
        if self._answered is not None:
            self._say(f'<span class="kit-error">{html.escape(str(error))}</span> {self._in_words(self._answered)}')

    def _paint(self, figure: LiveFigure, traces: Sequence[dict[str, Any]], **layout: Any) -> None:
        """In one redrawing: where one trace changes x and y, and others y alone, all of them are sent both."""
        before = [self._painted.get((figure.model_id, index), {}) for index in range(len(traces))]
        changed = [
            {name for name, value in arrays.items() if known.get(name) != value}
            for known, arrays in zip(before, traces, strict=True)
        ]
        places = set().union(*changed) & {"x", "y"}
        for known, names in zip(before, changed, strict=True):
            if names & places:
                for name in places:
                    known.pop(name, None)
        super()._paint(figure, traces, **layout)

    def _grow(self, settings: Settings, cancel: Event) -> None:
        """Train the networks that are missing; what they reach is painted only where it may be seen."""
        left = self._landscape.missing
        if not left:
            return
        self._busy(True)
        began, total = time.monotonic(), self._landscape.seeds * len(self._places)
        try:
            self._say(self._training(total))
            for grown in networks.grow(self.dataset, self._landscape, cancel=cancel):
                self._landscape = grown
                if settings.truth:
                    info = plots.belief_info(self._axis, truth=self._truth())
                    self._paint(self._figure, plots.belief_traces(info))
                self.progress.value = 1 - grown.missing / total
                seconds = (time.monotonic() - began) * grown.missing / max(1, left - grown.missing)
                self.progress.description = f"{seconds:.0f} s left"
                self._say(self._training(total))
        except training.Cancelled:
            if not self._worker.newer:
                self._say(f"Stopped. {self._training(total)} Move a control to go on.")
            raise
        finally:
            self._busy(False)
        self._landscape = _known_only(self._landscape)

    def _training(self, total: int) -> str:
        return (
            f"Training {total:,} small networks, {self._landscape.seeds} at each of {len(self._places)} values of the "
            f"{html.escape(title(self._name))}: {total - self._landscape.missing:,} are done."
        )

    def _think(self, settings: Settings) -> Answer:
        """What the model says of your trials under the settings."""
        trials = tuple(self._trials(settings.repeat))
        tried = [self._cell(trial.config[self._name]) for trial in trials]
        kernel = None if settings.fitted else Kernel((settings.length,), noise=settings.noise**2)
        belief = Belief.of(self._places[tried], np.array([_value(trial) for trial in trials]), kernel)
        seed = 1000 * settings.repeat + len(trials)  # another function after each trial
        # At the drawn places and at the cells: a function drawn by chance has to be the same one at both.
        places = np.concatenate([self._drawn, self._places])
        wanted = belief.wanted(settings.acquisition, settings.exploration, places, seed)
        of_cells = wanted.score[len(self._drawn) :].copy()
        of_cells[tried] = -math.inf  # the same network would answer again
        proposal = None if len(set(tried)) == len(self._places) else int(of_cells.argmax())
        return Answer(settings, trials, belief, wanted, proposal)

    def _trials(self, repeat: int) -> list[Trial]:
        """Your trials; where there are none, those that everybody begins with."""
        if repeat not in self._yours:
            self._yours[repeat] = []
            for trial in self._machine(repeat, self._start).trials[: self._start]:
                self._record(repeat, self._objective(repeat).cell(trial.config)[0])
        return self._yours[repeat]

    def _record(self, repeat: int, cell: int) -> None:
        """Read one network of a cell."""
        config = self._landscape.config((cell,))
        value = self._objective(repeat)(config)
        number = len(self._yours[repeat])
        self._yours[repeat].append(Trial(number, config, "done", value=value, scores=(value,)))

    def _try(self, repeat: int, cell: int) -> None:
        value = self._landscape.axes[0][cell]
        if any(trial.config[self._name] == value for trial in self._trials(repeat)):
            raise ValueError(
                f"{self._name} {value:.3g} is tried already, and the same network would answer again: choose another."
            )
        self._record(repeat, cell)

    def _follow(self, settings: Settings) -> None:
        proposal = self._think(settings).proposal
        if proposal is None:
            raise ValueError(f"nothing is left to propose: all {len(self._places)} cells are tried.")
        self._record(settings.repeat, proposal)

    def _take_back(self, repeat: int) -> None:
        if len(self._trials(repeat)) <= self._start:
            raise ValueError(f"nothing to take back: the first {self._start} trials are not yours.")
        self._yours[repeat].pop()

    def _forget(self) -> None:
        """Take everything back."""
        self._yours.clear()
        self._refusals.clear()

    def _machine(self, repeat: int, budget: int, cancel: Event | None = None) -> Study:
        """The machine's own search, up to a number of trials; it begins at cells' own values, as you do."""
        if repeat not in self._machines:
            study = self._machines[repeat] = Study(self.space, maximise=True)
            for place in sobol_points(1, self._start, repeat)[: self._start, 0].tolist():
                first = study.enqueue(self._landscape.config((self._cell(self._parameter.decode(place)),)))
                study.tell(first.number, self._objective(repeat)(first.config))
        study = self._machines[repeat]
        if len(study.trials) < budget:
            study.run(self._objective(repeat), Bayes(start=self._start, seed=repeat), budget=budget, cancel=cancel)
        if cancel is not None and cancel.is_set():
            raise training.Cancelled("a newer request waits.")
        return study

    def _compete(self, repeat: int, budget: int, cancel: Event) -> None:
        """Let the machine and random search make as many trials as you."""
        self._machine(repeat, budget, cancel)
        end = _end(budget)
        if (repeat, end) not in self._randoms:
            found = []
            for number in range(REPEATS):
                study = Study(self.space, maximise=True)
                study.run(self._objective(repeat), Random(REPEATS * repeat + number), budget=end)
                found.append(list(self._worth(study.trials, repeat)))
            self._randoms[repeat, end] = found

    def _objective(self, repeat: int) -> LandscapeObjective:
        return self._objectives.setdefault(repeat, self._landscape.objective(repeat))

    def _worth(self, trials: Sequence[Trial], repeat: int) -> tuple[float, ...]:
        walked = track(trials, self._objective(repeat).fresh, maximise=True, epochs=False)
        return tuple(worth for worth in walked.worth if worth is not None)

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _cell(self, value: float) -> int:
        return int(np.abs(self._places - self._parameter.encode(value)).argmin())

    def _truth(self) -> list[tuple[float, Estimate]]:
        """What the networks that are trained reach at each value; one alone has no interval, and is left out."""
        last = self._landscape.curves[..., -1].T  # [cells, seeds]
        found = zip(self._landscape.axes[0], last, strict=True)
        return [
            (value, Estimate.from_values(reached[np.isfinite(reached)].tolist()))
            for value, reached in found
            if np.isfinite(reached).sum() > 1
        ]

    def _belief_info(self, answer: Answer) -> plots.BeliefInfo:
        settings, belief = answer.settings, answer.belief
        mean, std = belief.at(self._drawn)
        pairs = [(trial.config[self._name], _value(trial)) for trial in answer.trials]
        proposal = None
        if answer.proposal is not None:
            there = [float(each[0]) for each in belief.at(self._places[[answer.proposal]])]
            proposal = (self._landscape.axes[0][answer.proposal], there[0], there[1])
        return plots.belief_info(
            self._axis,
            self._values,
            mean.tolist(),
            std.tolist(),
            # The same seed at each move: the functions change with the model only.
            samples=belief.samples(self._drawn, settings.samples, settings.repeat).tolist() if settings.samples else (),
            start=pairs[: self._start],
            yours=pairs[self._start :],
            proposal=proposal,
            truth=self._truth() if settings.truth else (),
        )

    def _wanted_info(self, answer: Answer) -> plots.WantedInfo:
        scores, peak = answer.wanted.score, None
        if answer.proposal is not None:
            score = float(scores[len(self._drawn) + answer.proposal])
            peak = (self._landscape.axes[0][answer.proposal], score, float(answer.wanted.plain(score)))
        drawn = scores[: len(self._drawn)].tolist()
        return plots.wanted_info(self._axis, answer.settings.acquisition, self._values, drawn, peak)

    def _race_info(self, answer: Answer) -> plots.RaceInfo:
        repeat, n = answer.settings.repeat, len(answer.trials)
        return plots.race_info(
            self._worth(answer.trials, repeat),
            self._worth(self._machines[repeat].trials[:n], repeat),
            self._randoms[repeat, _end(n)],
            float(self._landscape.mean.max()),
            _end(n),
        )

    def _expected(self, belief: Belief, place: float) -> Estimate:
        mean, std = (float(each[0]) for each in belief.at(np.array([place])))
        return plots.interval(mean, std)

    def _aim(self, answer: Answer) -> None:
        value = answer.settings.place
        there = self._expected(answer.belief, self._parameter.encode(value))
        self.aim.point = [value, *(100 * each for each in (there.value, there.low, there.high))]

    def _note(self, answer: Answer) -> None:
        """Say what the length and the noise are: fitted ones are not on the sliders."""
        kernel, spread = answer.belief.posterior.kernel, answer.belief.spread
        length = kernel.lengths[0]
        low, high = self._parameter.low, self._parameter.high
        reach = f"a factor of {(high / low) ** length:.2g}" if self._parameter.log else f"{(high - low) * length:.2g}"
        fitted = f"fitted: length {length:.2g}, noise {math.sqrt(kernel.noise):.2g}. " * answer.settings.fitted
        self.model_note.value = (
            f"{fitted}Length: {reach} in {html.escape(self._name)}. "
            f"Noise: {100 * spread * math.sqrt(kernel.noise):.2g} points."
        )

    def _in_words(self, answer: Answer) -> str:
        """The status line: what is found, what the model would do and why, how the race stands."""
        settings, trials, name = answer.settings, answer.trials, html.escape(self._name)
        best, own = max(trials, key=_value), len(trials) - self._start
        worth, machine = (
            self._worth(each, settings.repeat)
            for each in (trials, self._machines[settings.repeat].trials[: len(trials)])
        )
        spent = self._randoms[settings.repeat, _end(len(trials))]
        random = Estimate.from_values([repeat[len(trials) - 1] for repeat in spent]).share
        others = self._landscape.seeds - 1
        anew = "the other network" if others == 1 else f"the mean of {others} other networks"
        here = self._expected(answer.belief, self._parameter.encode(settings.place))
        return " ".join(
            [
                f"<b>{len(trials)} trials</b> ({self._start} to start with, {own} of yours). Best observed: "
                f"<b>{100 * _value(best):.1f} %</b> at {name} {best.config[self._name]:.3g}; measured anew, by {anew} "
                f"there: {100 * worth[-1]:.1f} %.",
                self._proposal_in_words(answer),
                f"At the slider's {name} {settings.place:.3g} it expects {here.percent}.",
                f"The race, measured anew, after {len(trials)} trials: <b>you {100 * worth[-1]:.1f} %</b>, machine "
                f"{100 * machine[-1]:.1f} %, random search {random.percent}, mean of {REPEATS}.",
            ]
        )

    def _proposal_in_words(self, answer: Answer) -> str:
        if answer.proposal is None:
            return "All cells are tried: nothing is left to propose."
        settings, belief = answer.settings, answer.belief
        mean, std = belief.at(self._places)
        at, value = answer.proposal, self._landscape.axes[0][answer.proposal]
        high, unsure = mean[at] >= np.quantile(mean, 0.75), std[at] >= np.median(std)
        why = {
            (True, True): "the mean is high and it is still unsure",
            (True, False): "the mean is high and it is rather sure (exploitation)",
            (False, True): "it knows little (exploration)",
            (False, False): "nowhere else is more to be gained",
        }[bool(high), bool(unsure)]
        if settings.acquisition == "Thompson":
            why = f"the function drawn by chance has its top, and {why}"
        there = plots.interval(float(mean[at]), float(std[at]))
        return (
            f"By {settings.acquisition} the model proposes <b>{html.escape(self._name)} {value:.3g}</b>, where {why}: "
            f"it expects <b>{there.percent}</b>" + " (it does not know that 100 % is the end)" * (there.high > 1) + "."
        )

    def _still(self) -> bytes:
        answer = self._answered
        return still.bayes_png(plots.belief_info(self._axis) if answer is None else self._belief_info(answer))


def _checked(space: Space | None, points: int, seeds: int, epochs: int, landscape: Landscape | None) -> Landscape:
    """The landscape that is given, or one of which nothing is trained."""
    if space is not None and not isinstance(space, Space):
        raise TypeError(f"space must be a Space; got {space!r}.")
    named = landscape.space if landscape is not None else LINE if space is None else space
    if len(named) != 1 or not isinstance(next(iter(named.parameters.values())), Float):
        kinds = ", ".join(f"{name} ({type(each).__name__})" for name, each in named.parameters.items())
        raise ValueError(f"space must have one parameter, a Float; got {kinds}.")
    if landscape is None:
        return networks.blank(named, points=points, seeds=seeds, epochs=epochs)
    if space is not None and space.as_json() != landscape.space.as_json():
        raise ValueError("space is another than the landscape's: give one of them.")
    if len(landscape.axes[0]) < LEAST_POINTS or landscape.seeds < 2:
        raise ValueError(
            f"landscape must have {LEAST_POINTS} cells or more, of 2 networks or more; "
            f"got {len(landscape.axes[0])} of {landscape.seeds}."
        )
    if landscape.missing:
        raise ValueError(f"landscape must be complete; {landscape.missing} networks are not trained.")
    return landscape


def _known_only(landscape: Landscape) -> Landscape:
    """The same, where a network that diverged on the way knows nothing: accuracy 0, as one that diverged at once."""
    return replace(landscape, curves=np.nan_to_num(landscape.curves, nan=0.0))


def _button(description: str, icon: str, width: str, act: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=description, icon=icon, layout={"width": width})
    button.on_click(lambda _: act())
    return button


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _end(trials: int) -> int:
    """Trials that the race has room for: in steps, so that the axis seldom moves; 2 or more are ahead."""
    return max(12, 6 * math.ceil((trials + 2) / 6))
