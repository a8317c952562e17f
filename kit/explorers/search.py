"""The search explorer: four methods search a landscape of really trained networks, under a budget that you drag."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from torch import nn

from kit import checks, measure, training
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import of_answer
from kit.explorers.controls import Action, Control, Row
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.measure import Estimate, Profile
from kit.plots import search as plots
from kit.plots.curves import Panel, counted, parameter_title
from kit.search import Bayes, Float, Grid, Random, Space, SuccessiveHalving
from kit.search import landscape as landscapes
from kit.search.landscape import Landscape
from kit.search.replay import Trajectory
from kit.search.trials import Method, Trial

REPEATS: tuple[int, ...] = (4, 8, 16, 32)
NEW_SEEDS = 1000  # from one set of seeds to the next
APPEAR_SECONDS = 0.15  # between two paintings of a search that runs

SECONDS = 30.0  # for the landscape
RUNGS = sizing.rungs(  # smaller from rung to rung, a bit of each in turn
    ("points", "epochs", "seeds", "samples"),
    (20, 20, 3, math.inf),
    (20, 20, 3, 4000),
    (20, 20, 3, 2000),
    (20, 20, 2, 2000),
    (16, 20, 2, 2000),
    (16, 15, 2, 2000),
    (14, 15, 2, 2000),
    (12, 15, 2, 2000),
    (12, 15, 2, 1500),
    (12, 15, 2, 1000),
    (10, 15, 2, 1000),
    (8, 15, 2, 1000),
    (8, 10, 2, 1000),
    (8, 10, 2, 500),
    (6, 10, 2, 500),
    (6, 8, 2, 300),
    (5, 5, 2, 300),
)

PLANE = Space({"lr": Float(1e-5, 10, log=True), "dropout": Float(0.0, 0.9)})


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: str
    budget: int
    seeds: tuple[int, ...]
    project: str


@dataclass(frozen=True)
class Answer:
    """The whole search of the chosen method with the first seed; the budget is only a look at it."""

    settings: Settings
    trajectory: Trajectory

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those within the budget."""
        return self.trajectory.trials[: self.trajectory.within(self.settings.budget)]

    @property
    def found(self) -> tuple[Trial, float]:
        """The chosen trial, and its configuration measured anew; a RuntimeError where none is done yet."""
        found = self.trajectory.at(self.settings.budget)
        if found is None:
            raise RuntimeError(f"no trial of {self.settings.method} is done within {self.settings.budget} epochs.")
        return found


class SearchExplorer(PinningExplorer[Settings, Answer]):
    """Search the hyper-parameters of small networks by grid, random, halving and Bayesian search; drag the budget.

    First a network is trained at every cell of a plane of two hyper-parameters, with several seeds: an MLP, or of texts
    a bag of words. A trial then reads one network of its cell, as one training run would give; halving reads it after
    fewer epochs. So a whole search takes a moment, and what it finds can be measured anew on the cell's other networks.

    Args:
        dataset: any `Dataset`. Train fits, validation measures, test is not read.
        space: two hyper-parameters of `search.networks.TUNABLE`, Float or Int; by default learning rate and dropout.
        method: to begin with: "grid", "random", "halving" or "Bayesian".
        trainings: largest budget, in whole trainings, 9 or more.
        landscape: a complete one of `search.landscape`, in place of training one.
        points: values along each axis of the landscape, 20 if there is time.
        epochs: of one whole training, 20 if there is time.
        seeds: networks at every cell, 3 if there is time.
        samples: of the train split to train on, and as large a share of the validation split to score on; all of them
            if there is time.
        seconds: for the training of the landscape. Where it would take longer on this machine, what of `points`,
            `epochs`, `seeds` and `samples` is left open is made smaller, and the words say so. None trains all of it.

    Controls, each with its value to read or set from code: `method`, `budget` (epochs), `repeats`, `project` (which
    hyper-parameter the projection shows), `seed`, `pin_name`; buttons `new_seeds_button`, `pin_button`,
    `reset_button`, `stop_button`. After `wait()`: `trajectory` (the search of the chosen method), `incumbent` (the
    trial it would choose under the budget), `value` (what that scored in the search), `retested` (measured anew),
    `model` and `profile` (of the chosen network), `landscape`. After `wait_curves()`: `race()`, all methods over all
    repeats.

    Raises:
        ValueError: an argument out of range, a landscape that is not complete or has one axis, or both it and a space.
        TypeError: an argument of another kind.
    """

    _bright = ("plane",)  # it is watched while it grows
    _curves = ("race",)
    _noun = "searches"
    _rest = 0.3
    _technique = "search"
    trajectory: Trajectory = of_answer("trajectory", "The whole search of the chosen method and seed (waits for it).")

    def __init__(
        self,
        dataset: Dataset,
        *,
        space: Space | None = None,
        method: str = "random",
        trainings: int = 36,
        landscape: Landscape | None = None,
        points: int | None = None,
        epochs: int | None = None,
        seeds: int | None = None,
        samples: int | None = None,
        seconds: float | None = SECONDS,
    ) -> None:
        training.check_dataset(dataset)
        checks.whole("trainings", trainings, 9)
        sizing.check_seconds(seconds)
        plane = landscapes.space_of(space, landscape, PLANE)
        if len(plane) != 2:
            raise ValueError(f"space must have two parameters, Float or Int; got {', '.join(plane.names)}.")
        if landscape:
            landscape.check_complete()
        given = ["dataset", *["landscape=landscape"] * bool(landscape), *["space=space"] * bool(space)]
        sizes: dict[str, Any] = {}
        self._sized = ""
        if landscape is None:
            asked = {"points": points, "epochs": epochs, "seeds": seeds, "samples": samples}
            landscape, sizes, self._sized = sizing.landscape(
                dataset, plane, asked, RUNGS, seconds, ("points", "epochs")
            )
            sizes |= {} if self._sized or seconds == SECONDS else {"seconds": seconds}
        landscape.check_dataset(dataset)
        self.dataset, self._landscape = dataset, landscape
        self._trajectories: dict[tuple[str, int], Trajectory] = {}
        self._full, self._top = landscape.epochs, landscape.epochs * trainings
        self._budgets = range(self._full, self._top + 1, self._full)
        self._side = math.isqrt(trainings)  # values of each parameter in the grid
        self.dots, self.cursor = Mark("trials", figure=1), Mark("cursor", text="budget")
        table, title = _table(plane.names, method, self._budgets), f"SearchExplorer: {' and '.join(plane.names)}"
        call = given, {"method": method, "trainings": trainings, **sizes}
        super().__init__(f"{title} on {dataset.name}", table, call, marks=[self.cursor, self.dots])

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        seeds = tuple(range(self.seed.value, self.seed.value + self.repeats.value))
        return Settings(self.method.value, self.budget.value, seeds, self.project.value)

    @property
    def landscape(self) -> Landscape:
        """The networks at every cell (waits for them)."""
        self.wait()
        return self._landscape

    @property
    def incumbent(self) -> Trial:
        """The trial that the search would choose under the budget (waits for it)."""
        return self._latest().found[0]

    @property
    def value(self) -> float:
        """What the chosen trial scored in the search, share 0 .. 1: flattered, because it was chosen by it."""
        return self.incumbent.value or 0.0

    @property
    def retested(self) -> float:
        """What the chosen configuration is worth, measured anew on the cell's other networks, trained in full."""
        return self._latest().found[1]

    @property
    def model(self) -> nn.Module:
        """The chosen network, trained in full (waits for the search, then trains it once more)."""
        return self._model(self._latest())

    @property
    def profile(self) -> Profile:
        """Everything measured about the chosen network on the validation split, latency at batch 1."""
        return measure.profile(self.model, self.dataset.validation)

    def race(self, budget: int | None = None) -> dict[str, Estimate]:
        """What each method's choice is worth, mean over the repeats that are searched so far.

        The `budget` is in epochs; None is what the slider says.
        """
        settings = self._latest().settings
        return plots.race_at(
            self._known(settings), settings.budget if budget is None else checks.whole("budget", budget)
        )

    def new_seeds(self) -> None:
        """Search everything again with seeds that were not used before."""
        self.seed.value = (self.seed.value + NEW_SEEDS) % (self.seed.max + 1)

    def _preview(self, settings: Settings) -> None:
        self.dots.at = self.cursor.at = float(settings.budget)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Train the landscape and search it, unless that is done; trials appear as they are told."""
        self._train(cancel)
        painted = time.monotonic()

        def appear(trials: tuple[Trial, ...]) -> None:
            nonlocal painted
            if time.monotonic() - painted > APPEAR_SECONDS:
                painted = time.monotonic()
                self._draw_dots(trials)

        return Answer(settings, self._search(settings.method, settings.seeds[0], cancel, appear))

    def _train(self, cancel: Event) -> None:
        if not (left := self._landscape.missing):
            return
        self._busy(True)
        total, seeds = self._landscape.curves[..., 0].size, self._landscape.seeds
        self._say(f"Training {total:,} networks: {seeds} at every cell, with different seeds. {self._sized}".strip())

        def move(networks: float) -> None:
            self._progress((left - self._landscape.missing + networks) / left)

        how: dict[str, Any] = {"callbacks": [sizing.Networks(move)], "cancel": cancel}
        for grown in landscapes.grow(self.dataset, self._landscape, **how):
            self._landscape = grown
            self._paint("plane", plots.landscape_panel(grown))
            move(0)

    def _search(self, method: str, seed: int, cancel: Event, on_trial: Callable[..., None] | None = None) -> Trajectory:
        """One search up to the largest budget, remembered."""
        if (method, seed) not in self._trajectories:
            how: dict[str, Any] = {"budget": self._top, "repeat": seed, "on_trial": on_trial, "cancel": cancel}
            self._trajectories[method, seed] = landscapes.search(self._landscape, self._method(method, seed), **how)
        return self._trajectories[method, seed]

    def _method(self, name: str, seed: int) -> Method:
        if name == "grid":
            return Grid(self._side, order="shuffled", seed=seed)
        if name == "halving":
            return SuccessiveHalving(9, min_epochs=max(1, self._full // 9), max_epochs=self._full, eta=3, seed=seed)
        return Random(seed) if name == "random" else Bayes(seed=seed, bounds=(0, 1))

    def _missing(self, answer: Answer) -> tuple[Sequence[tuple[str, int]], int]:
        """Searches still to make: seed by seed, every method in turn."""
        wanted = list(itertools.product(answer.settings.seeds, plots.METHODS))
        return [(method, seed) for seed, method in wanted if (method, seed) not in self._trajectories], len(wanted)

    def _grow(self, answer: Answer, missing: Sequence[tuple[str, int]], cancel: Event) -> None:
        self._search(*missing[0], cancel)

    def _pin(self, answer: Answer) -> Pin:
        settings, config = answer.settings, answer.found[0].config
        model = self._model(answer)
        profile = measure.profile(model, self.dataset.validation)
        name = f"{type(model).__name__} found by {settings.method} search, {settings.budget} epochs: {_said(config)}"
        record = {**config, "method": settings.method, "budget": settings.budget, "seed": settings.seeds[0]}
        return Pin(name, profile, record, "the chosen network, trained in full,")

    def _model(self, answer: Answer) -> nn.Module:
        """The network that the chosen trial read, trained in full."""
        config, objective = answer.found[0].config, self._landscape.objective(answer.settings.seeds[0])
        return landscapes.network(self.dataset, self._landscape, objective.cell(config), objective.seed(config))

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings, trials = (self.settings, ()) if answer is None else (answer.settings, answer.trials)
        best = None if self._landscape.missing else float(np.nanmax(self._landscape.mean))
        return {
            "race": lambda: plots.race_panel(self._known(settings), self._budgets, self._full, best),
            "plane": lambda: plots.landscape_panel(self._landscape),
            "projection": lambda: plots.projection_panel(self._landscape, settings.project, trials, settings.method),
            "rungs": lambda: plots.rungs_panel(trials, self._top, settings.method),
        }

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        found = answer.trajectory.at(answer.settings.budget)
        return [] if found is None else [float(answer.settings.budget), *[100 * found[1]] * 3]

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Repeat by repeat, where the seeds are the same: what is chosen, measured anew."""
        if kept.settings.seeds != answer.settings.seeds:
            return None
        worths = []
        for each in (answer.settings, kept.settings):
            tracks = [self._trajectories.get((each.method, seed)) for seed in each.seeds]
            worths.append([found[1] for track in tracks if track and (found := track.at(each.budget))])
        return Estimate.from_pairs(*worths) if len(worths[0]) == len(worths[1]) == len(kept.settings.seeds) else None

    def _draw_marks(self, answer: Answer) -> None:
        self._draw_dots(answer.trajectory.trials)

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of the race: its method, and its budget."""
        if figure == "race" and curve in plots.METHODS:
            self.set(method=curve, budget=int(x))

    def _draw_dots(self, trials: Sequence[Trial]) -> None:
        encode, spent = self._landscape.space.encode, itertools.accumulate(float(each.spent) for each in trials)
        self.dots.values = [
            [*encode(each.config).tolist(), total, each.value or 0.0, (each.epochs or 0) / self._full]
            for each, total in zip(trials, spent, strict=True)
        ]

    def _known(self, settings: Settings) -> dict[str, list[Trajectory]]:
        known = self._trajectories
        return {name: [known[name, seed] for seed in settings.seeds if (name, seed) in known] for name in plots.METHODS}

    def _words(self, answer: Answer) -> str:
        settings, wholes = answer.settings, answer.settings.budget // self._full
        parts = [
            f"<b>{settings.method}, {settings.budget} epochs</b> (as many as {counted(wholes, 'whole training')}): "
            f"{counted(len(answer.trials), 'trial')}."
        ]
        if settings.method == "grid":
            parts.append(f"The grid is {self._side} x {self._side}, for the largest budget, in shuffled order.")
        if answer.trajectory.at(settings.budget) is None:
            parts.append("None is done so far.")
        else:
            (trial, retested), others = answer.found, self._landscape.seeds - 1
            parts.append(
                f"The best has {_said(trial.config)}; it scored <b>{100 * (trial.value or 0):.1f} %</b> after "
                f"{counted(trial.epochs or 0, 'epoch')}. Retested on {counted(others, 'other network')} "
                f"of its cell, trained in full, it reaches <b>{100 * retested:.1f} %</b>."
            )
        race = plots.race_at(self._known(settings), settings.budget)
        rivals = [f"{name} {each.percent}" for name, each in race.items() if each.n > 1]
        if rivals:
            parts.append(f"Retested, mean over up to {len(settings.seeds)} repeats: {'; '.join(rivals)}.")
        return " ".join([*parts, *[self._sized] * bool(self._sized), *self._trouble])


def _table(names: Sequence[str], method: str, budgets: Sequence[int]) -> list[Row]:
    titles, written = [(parameter_title(name), name) for name in names], "{:g} epochs".format
    spend = "Epochs that a search may train."
    return [
        Control(
            "budget",
            "stops",
            budgets[8],
            spend,
            budgets,
            unit="epochs",
            text=written,
            wide=True,
            section="04, section 1",
        ),
        Control(
            "method",
            "choice",
            method,
            "What proposes the trials.",
            plots.METHODS,
            group="search",
            section="04, section 2",
        ),
        Control(
            "repeats",
            "stops",
            8,
            "How often each method searches in the race.",
            REPEATS,
            group="search",
            section="04, section 5",
        ),
        Control(
            "seed",
            "number",
            0,
            "Of the first repeat: its trials are shown.",
            (0, 10**9),
            group="search",
            section="04, section 5",
        ),
        Action("new_seeds", "New seeds", "random", "Search everything again with seeds that were not used before."),
        Control(
            "project",
            "choice",
            names[0],
            "Which one the projection shows.",
            titles,
            "project on",
            "picture",
            section="04, section 2",
        ),
        *PIN_ROWS,
    ]


def _said(config: Mapping[str, float]) -> str:
    return ", ".join(f"{parameter_title(name)} {value:.3g}" for name, value in config.items())
