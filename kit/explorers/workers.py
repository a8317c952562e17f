"""The workers explorer: many workers search at the same time, in virtual time; see who waits, and for whom."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from kit import checks, training
from kit.cluster import Span, simulate
from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.marks import Mark
from kit.measure import Estimate
from kit.plots import workers as plots
from kit.plots.architecture import race_panel
from kit.plots.curves import Panel, counted
from kit.plots.search import race_at
from kit.search import ASHA, Bayes, Random, Study, SuccessiveHalving
from kit.search.architecture.table import Table
from kit.search.landscape import Landscape
from kit.search.networks import drawn_seed
from kit.search.replay import Trajectory, replay
from kit.search.space import Config, Space
from kit.search.trials import Method, Proposal, Trial

WORKERS = plots.WORKERS
SLOW = (1.0, 1.5, 2.0, 3.0, 5.0)  # an epoch in the slowest tenth of the trials, against the median
DRIVER = (0.0, 0.1, 1.0, 3.0, 10.0, 30.0)  # seconds for each trial
REPEATS = (4, 8, 16, 32)
TENTH = float(norm.ppf(0.9))  # standard deviations from the median to the slowest tenth
MINUTE = 60.0  # seconds: an epoch, on average
LEAST = 16  # trials that begin a bracket
METHODS = ("random", "halving", "ASHA", "Bayesian")
TIMED = METHODS[:3]  # a Bayesian search keeps the workers as busy as random search does


class Run(NamedTuple):
    """Which search; as in `Settings`."""

    method: str
    workers: int
    slow: float
    driver: float
    seed: int


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: str
    workers: int
    slow: float
    driver: float
    seeds: tuple[int, ...]

    def run(self, method: str = "", workers: int = 0, seed: int | None = None) -> Run:
        """The search that is shown, or one that differs from it so."""
        first = self.seeds[0] if seed is None else seed
        return Run(method or self.method, workers or self.workers, self.slow, self.driver, first)

    @property
    def race(self) -> dict[str, list[Run]]:
        """Of each method every repeat."""
        return {name: [self.run(name, seed=seed) for seed in self.seeds] for name in METHODS}

    @property
    def scale(self) -> dict[str, list[Run]]:
        """Of each method the first repeat with every number of workers."""
        return {name: [self.run(name, workers) for workers in WORKERS] for name in TIMED}


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search gave.

    Attributes:
        trials: in the order in which they began.
        spans: who worked on which, and when, in virtual seconds.
        busy: share of the workers' time, until the last trial ends, in which they work: the utilisation.
        trajectory: the incumbents, by virtual minutes.
    """

    trials: tuple[Trial, ...]
    spans: tuple[Span, ...]
    busy: float
    trajectory: Trajectory


@dataclass(frozen=True, eq=False)
class Answer:
    """The first repeat of the chosen method; until when it ran, in virtual minutes."""

    settings: Settings
    found: Searched
    minutes: float


class WorkersExplorer(Explorer[Settings, Answer]):
    """Let many workers search at the same time, in virtual time: who waits, for whom, and what does it cost?

    Nothing trains: a trial reads what one of the trained networks reached after its epochs. Only time is made up: an
    epoch takes a minute on average; how long it takes in one trial is drawn from a log-normal law. A driver proposes
    the trials, one after the other. Every method has the same budget in epochs.

    Args:
        trained: really trained networks: a table of `search.architecture.load()`, or a complete landscape.
        method: to begin with: "random", "halving" (successive halving, in brackets of as many trials as workers, and
            of 16 at least), "ASHA" or "Bayesian".
        trainings: the budget, in whole trainings, 10 or more.

    Controls, each with its value to read or set from code: `workers`, `method`, `slow` (an epoch in the slowest tenth
    of the trials, against the median), `driver` (its seconds for each trial), `repeats`, `seed`; buttons
    `reset_button`, `stop_button`. After `wait()`: `spans` (virtual seconds), `trials`, `minutes` (virtual, until the
    last trial ends), `utilisation` (share). After `wait_curves()`: `race(minutes)`, all methods over all repeats, and
    `busy()`, the utilisation with other numbers of workers.

    Raises:
        ValueError: an argument out of range, or a landscape that is not complete.
        TypeError: an argument of another kind.
    """

    _first, _curves, _tabled = ("timeline",), ("race", "busy"), "race"
    _noun, _rest = "searches", 0.3
    spans: tuple[Span, ...] = of_answer("found.spans", "Who worked when, in virtual seconds (waits for it).")
    trials: tuple[Trial, ...] = of_answer("found.trials", "Of the first repeat (waits for them).")
    minutes: float = of_answer("minutes", "Until the last trial ends, virtual (waits for it).")
    utilisation: float = of_answer("found.busy", "Share of their time in which the workers work (waits for it).")

    def __init__(self, trained: Table | Landscape, *, method: str = "halving", trainings: int = 60) -> None:
        kind = "a table of `search.architecture.load()` or a landscape"
        checks.instance("trained", trained, (Table, Landscape), kind)
        if isinstance(trained, Landscape):
            trained.check_complete()
        checks.one_of("method", method, METHODS)
        checks.whole("trainings", trainings, 10)
        self._trained, self._budget = trained, trainings * trained.epochs
        self._space: Space = trained.space() if isinstance(trained, Table) else trained.space
        self._rungs = {"min_epochs": max(1, trained.epochs // 8), "max_epochs": trained.epochs, "eta": 2}
        self._known: dict[Run, Searched] = {}
        self.cursor = Mark("cursor", figure=2)
        call = ["trained"], {"method": method, "trainings": trainings}
        super().__init__("WorkersExplorer", _table(method), call, marks=[self.cursor])
        self._move()

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        values = {name: getattr(self, name).value for name in ("method", "workers", "slow", "driver")}
        return Settings(**values, seeds=tuple(range(self.seed.value, self.seed.value + self.repeats.value)))

    def race(self, minutes: float | None = None) -> dict[str, Estimate]:
        """What each method's choice is worth after so many virtual minutes, retested, mean over the known repeats.

        `minutes` of None are those of the shown search.
        """
        answer = self._latest()
        then = answer.minutes if minutes is None else checks.number("minutes", minutes, above=0)
        return race_at(self._tracks(answer.settings), then)

    def busy(self) -> dict[str, list[tuple[int, float]]]:
        """By method: numbers of workers, and the utilisation, as far as it is known."""
        return self._courses(self._latest().settings)

    def _preview(self, settings: Settings) -> None:
        self.cursor.at = float(settings.workers)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        run = settings.run()
        self._busy(run not in self._known and run.method == "Bayesian")  # seconds; all else is a moment
        found = self._search(run, cancel)
        return Answer(settings, found, found.trajectory.spent[-1])

    def _search(self, run: Run, cancel: Event) -> Searched:
        """One search, remembered."""
        if run not in self._known:
            objective, spread = self._trained.objective(run.seed), math.log(run.slow) / TENTH

            def seconds(config: Config, epochs: int | None) -> float:
                drawn = np.random.default_rng(drawn_seed(run.seed, config)).standard_normal()
                return MINUTE * (epochs or 1) * math.exp(spread * drawn - spread**2 / 2)  # on average a minute each

            study, method = Study(self._space, maximise=True), _Stoppable(self._method(run), cancel)
            spend: dict[str, Any] = {"budget": self._budget, "unit": "epochs", "epochs": self._trained.epochs}
            clock: dict[str, Any] = {"duration": seconds, "workers": run.workers, "overhead": run.driver}
            spans = simulate(study, objective, method, **spend, **clock)
            ends = {span.trial: (span.end or 0.0) / MINUTE for span in spans}
            order = sorted(study.trials, key=lambda trial: ends[trial.number])
            track = replay(order, objective.retest, maximise=True)
            track = replace(track, spent=tuple(ends[trial.number] for trial in track.trials))
            worked = math.fsum((span.end or 0.0) - span.start for span in spans) / MINUTE
            busy = worked / (run.workers * max(track.spent))
            self._known[run] = Searched(study.trials, spans, busy, track)
        return self._known[run]

    def _method(self, run: Run) -> Method:
        if run.method == "halving":
            return SuccessiveHalving(max(LEAST, run.workers), **self._rungs, seed=run.seed)
        if run.method == "ASHA":
            return ASHA(**self._rungs, seed=run.seed)
        return Random(run.seed) if run.method == "random" else Bayes(seed=run.seed, bounds=(0, 1))

    def _missing(self, answer: Answer) -> tuple[Sequence[Run], int]:
        """Searches still to make: Bayesian ones, which take longest, last."""
        rows = itertools.chain(answer.settings.race.values(), answer.settings.scale.values())
        wanted = sorted(dict.fromkeys(itertools.chain(*rows)), key=lambda run: run.method == "Bayesian")
        return [run for run in wanted if run not in self._known], len(wanted)

    def _grow(self, answer: Answer, missing: Sequence[Run], cancel: Event) -> None:
        self._search(missing[0], cancel)

    def _tracks(self, settings: Settings) -> dict[str, list[Trajectory]]:
        known = self._known
        return {name: [known[run].trajectory for run in runs if run in known] for name, runs in settings.race.items()}

    def _courses(self, settings: Settings) -> dict[str, list[tuple[int, float]]]:
        rows, known = settings.scale.items(), self._known
        return {name: [(run.workers, known[run].busy) for run in runs if run in known] for name, runs in rows}

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings = self.settings if answer is None else answer.settings
        spans, trials = ((), ()) if answer is None else (answer.found.spans, answer.found.trials)
        rungs = {epochs: f"{epochs}" for epochs in ASHA(**self._rungs).rungs[:-1]}
        rungs[self._trained.epochs] = counted(self._trained.epochs, "epoch")
        trained = {trial.number: trial.epochs for trial in trials}
        return {
            "timeline": lambda: plots.timeline_panel(spans, trained, rungs, settings.workers),
            "race": lambda: self._race(settings),
            "busy": lambda: plots.busy_panel(self._courses(settings), settings.method),
        }

    def _race(self, settings: Settings) -> Panel:
        tracks, best = self._tracks(settings), float(np.nanmax(self._trained.mean))
        last = max((track.spent[-1] for each in tracks.values() for track in each), default=10.0)
        return race_panel(tracks, np.geomspace(1, last, 40).tolist(), 1, settings.method, best, "virtual minutes")

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of a curve: its method, and its number of workers."""
        if figure == "busy" and curve in TIMED:
            self.set(method=curve, workers=int(x))
        elif figure == "race" and curve in METHODS:
            self.set(method=curve)

    def _words(self, answer: Answer) -> str:
        settings, found = answer.settings, answer.found
        said = [
            f"<b>{settings.method}, {counted(settings.workers, 'worker')}</b>: {counted(len(found.trials), 'trial')} "
            f"in <b>{answer.minutes:.0f} virtual minutes</b>, at work <b>{100 * found.busy:.0f} %</b> of the time: as "
            f"much as {found.busy * settings.workers:.1f} that never wait."
        ]
        if settings.driver:
            share = len(found.trials) * settings.driver / MINUTE / answer.minutes
            said.append(f"The driver works {100 * share:.0f} % of the time.")
        race = race_at(self._tracks(settings), answer.minutes)
        rivals = "; ".join(f"{name} {each.percent}" for name, each in race.items() if each.n > 1)
        if rivals:
            said.append(f"Best so far by then, retested, mean over up to {len(settings.seeds)} repeats: {rivals}.")
        return " ".join(said)


class _Stoppable:
    """A method that ends where a reader says so."""

    def __init__(self, method: Method, cancel: Event) -> None:
        self._method, self._cancel = method, cancel

    def propose(self, space: Space, trials: Sequence[Trial], *, maximise: bool) -> Proposal | None:
        if self._cancel.is_set():
            raise training.Cancelled("cancelled in the middle of a search.")
        return self._method.propose(space, trials, maximise=maximise)


def _table(method: str) -> list[Row]:
    many, how = "How many workers try at the same time.", "What proposes the trials."
    often, first = "How often each method searches in the race.", "Of the first repeat: its trials are shown."
    unequal = "Minutes that an epoch takes in the slowest tenth of the trials, against the median."
    drives = "What the driver needs for each trial; it takes one after the other."
    times: dict[str, Any] = {"text": "{:g} times".format, "label": "slow trials", "group": "time"}
    costs: dict[str, Any] = {"text": "{:g} s".format, "unit": "seconds", "group": "time"}
    return [
        Control("workers", "stops", 16, many, WORKERS, wide=True, section="09, section 1"),
        Control("method", "choice", method, how, METHODS, group="search", section="09, section 1"),
        Control("repeats", "stops", 8, often, REPEATS, group="search", section="09, section 1"),
        Control("seed", "number", 0, first, (0, 10**9), group="search", section="09, section 1"),
        Control("slow", "stops", 2.0, unequal, SLOW, **times, section="09, section 1"),
        Control("driver", "stops", 0.0, drives, DRIVER, **costs, section="09, section 6"),
    ]
