"""The search explorer: four methods search a landscape of really trained networks, under a budget that you drag."""

from __future__ import annotations

import html
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import ipywidgets as widgets
from torch import nn

from kit import measure, training
from kit.data import Dataset
from kit.explorers.base import WIDE, LiveFigure, Stops
from kit.explorers.page import Cursor, Trials
from kit.explorers.pinning import PinningExplorer
from kit.measure import Estimate, Profile
from kit.plots import search as plots
from kit.plots import still
from kit.search import Bayes, Float, Grid, Random, Space, SuccessiveHalving, networks
from kit.search.networks import Landscape
from kit.search.replay import Track
from kit.search.trials import Method, Trial, check_whole

REPEATS: tuple[int, ...] = (4, 8, 16, 32)
NEW_SEEDS = 1000  # from one set of seeds to the next

# While a hand moves, the page is left to it: repeats are searched once it has rested for so long.
REST_SECONDS = 0.3
APPEAR_SECONDS = 0.15  # between two paintings of a search that runs
DETAIL_SECONDS = 0.08  # the other figures follow so much later, so that the page paints the trials first

PLANE = Space({"lr": Float(1e-5, 10, log=True), "dropout": Float(0.0, 0.9)})


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: str
    budget: int
    seeds: tuple[int, ...]
    project: str


class SearchExplorer(PinningExplorer):
    """Search the hyper-parameters of small MLPs by grid, random, halving and Bayesian search; drag the budget.

    First a network is trained at every cell of a plane of two hyper-parameters, with several seeds. A trial then reads
    one network of its cell, as one training run would give; halving reads it after fewer epochs. So a whole search
    takes a moment, and what it finds can be measured anew on the cell's other networks.

    Args:
        dataset: any `Dataset`. Train fits, validation measures, test is not read.
        space: two hyper-parameters of `search.networks.TUNABLE`, Float or Int; by default learning rate and dropout.
        method: to begin with: "grid", "random", "halving" or "Bayesian".
        trainings: largest budget, in whole trainings, 9 or more.
        landscape: a complete one of `search.networks`, in place of training one.
        points: values along each axis of the landscape.
        epochs: of one whole training.

    Controls, each with its value to read or set from code: `method`, `budget` (epochs), `repeats`, `project` (which
    hyper-parameter the projection shows), `seed`, `pin_name`; buttons `new_seeds_button`, `pin_button`,
    `reset_button`, `stop_button`. After `wait()`: `track` (the search of the chosen method), `chosen` (the trial it
    would choose under the budget), `value` (what that scored in the search), `worth` (measured anew), `model` and
    `profile` (of the chosen network), `landscape`. After `wait_sweep()`: `race()`, all methods over all repeats.

    Raises:
        ValueError: an argument out of range, a landscape that is not complete or has one axis, or both it and a space.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        space: Space | None = None,
        method: str = "random",
        trainings: int = 36,
        landscape: Landscape | None = None,
        points: int = 20,
        epochs: int = 20,
    ) -> None:
        """Build the widgets, ask for the landscape and the first search."""
        training.check_dataset(dataset)
        if method not in plots.METHODS:
            raise ValueError(f"method must be one of {', '.join(plots.METHODS)}; got {method!r}.")
        check_whole("trainings", trainings, 9)
        for name, given, kind in (("space", space, Space), ("landscape", landscape, Landscape)):
            if given is not None and not isinstance(given, kind):
                raise TypeError(f"{name} must be a {kind.__name__}; got {given!r}.")
        if space is not None and len(space) != 2:
            raise ValueError(f"space must have two parameters, Float or Int; got {', '.join(space.names)}.")
        if landscape is not None and space is not None:
            raise ValueError("space must be left out where a landscape is given: it has one.")
        if landscape is None:
            landscape = networks.blank(PLANE if space is None else space, points=points, epochs=epochs)
        elif landscape.missing:
            raise ValueError(f"landscape must be complete; {landscape.missing} networks are not trained.")
        landscape.check_dataset(dataset)
        if len(landscape.space) != 2:
            raise ValueError(f"space must have two parameters; got {', '.join(landscape.space.names)}.")
        self.dataset = dataset
        self._landscape = landscape
        self._tracks: dict[tuple[str, int], Track] = {}
        self._trainings, self._full = trainings, landscape.epochs
        self._answered_at, self._spoken = 0.0, ""  # of the latest answer: when, and its words
        self._defaults = {"method": method, "budget": 9 * self._full, "repeats": 8}
        self._defaults |= {"project": landscape.space.names[0], "seed": 0}
        controls = self._make_controls()
        start = self.settings
        self._race_plot = LiveFigure(plots.race_figure(self._race_info(start)))
        self._plane = LiveFigure(plots.landscape_figure(plots.landscape_info(landscape)))
        self._projection = LiveFigure(plots.projection_figure(self._projection_info(start)))
        self._rungs = LiveFigure(plots.rungs_figure(self._rungs_info(start)))
        self._plane.add_class("kit-instant")  # it is watched while it grows
        self.dots, self.cursor = Trials(budget=float(start.budget)), Cursor(x=float(start.budget), text="budget")
        super().__init__(
            f"SearchExplorer: {' and '.join(landscape.space.names)} on {dataset.name}",
            controls,
            self._race_plot,
            (self._plane, self._projection, self._rungs),
            overlays=[self.cursor, self.dots],
        )
        self._begin()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

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
    def track(self) -> Track:
        """The whole search of the chosen method and seed (waits for it)."""
        settings = self._ready()
        return self._tracks[settings.method, settings.seeds[0]]

    @property
    def chosen(self) -> Trial:
        """The trial that the search would choose under the budget (waits for it)."""
        return self._found()[0]

    @property
    def value(self) -> float:
        """What the chosen trial scored in the search, share 0 .. 1: flattered, because it was chosen by it."""
        value = self.chosen.value
        assert value is not None
        return value

    @property
    def worth(self) -> float:
        """What the chosen configuration is worth, measured anew on the cell's other networks, trained in full."""
        return self._found()[1]

    @property
    def model(self) -> nn.Module:
        """The chosen network, trained in full (waits for the search, then trains it once more)."""
        settings = self._ready()
        return self._network(settings, self.chosen)

    @property
    def profile(self) -> Profile:
        """Everything measured about the chosen network on the validation split, latency at batch 1."""
        return measure.profile(self.model, self.dataset.validation)

    def race(self, budget: int | None = None) -> dict[str, Estimate]:
        """What each method's choice is worth under a budget, mean over the repeats that are searched so far.

        Args:
            budget: epochs; None is what the slider says.
        """
        settings = self._ready()
        return self._race(settings, settings.budget if budget is None else budget)

    def new_seeds(self) -> None:
        """Search everything again with seeds that were not used before."""
        self.seed.value += NEW_SEEDS

    def _ready(self) -> Settings:
        self.wait()
        settings: Settings | None = self._answered
        if settings is None:
            raise RuntimeError("no answer yet: the work was stopped before the first one; move a control.")
        return settings

    def _found(self) -> tuple[Trial, float]:
        return self._choice(self._ready())

    def _choice(self, settings: Settings) -> tuple[Trial, float]:
        """The chosen trial of a search that is done, and its worth."""
        found = self._tracks[settings.method, settings.seeds[0]].at(settings.budget)
        if found is None:
            raise RuntimeError(f"no trial of {settings.method} is done within {settings.budget} epochs.")
        return found

    # -- controls --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> list[widgets.Widget]:
        start = self._defaults
        stops = tuple(self._full * number for number in range(1, self._trainings + 1))
        self.budget = Stops(
            stops,
            lambda budget: f"{budget:g} epochs",
            value=start["budget"],
            description="budget",
            **{**WIDE, "style": {"description_width": "initial"}},
        )
        self.method = widgets.Dropdown(options=plots.METHODS, value=start["method"], description="method", **WIDE)
        self.repeats = Stops(REPEATS, lambda count: f"{count:g}", value=start["repeats"], description="repeats", **WIDE)
        names = [(plots.title(name), name) for name in self._landscape.space.names]
        self.project = widgets.Dropdown(options=names, value=start["project"], description="project on", **WIDE)
        self.seed = widgets.BoundedIntText(start["seed"], 0, 10**9, description="seed", **WIDE)
        self.new_seeds_button = widgets.Button(description="New seeds", icon="random", layout={"width": "100%"})
        self.budget.add_class("kit-wide")  # the most moved one gets the whole width
        self.new_seeds_button.on_click(lambda _: self.new_seeds())
        controls = [self.budget, self.method, self.repeats, self.project, self.seed]
        return [*controls, self.new_seeds_button, *self._make_pin_controls()]

    def _move(self, change: Any) -> None:
        """Show the trials within the budget at once (one number); then ask for the rest."""
        if not self._quiet:
            self.dots.budget = self.cursor.x = float(self.budget.value)
        super()._move(change)

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, settings: Settings, cancel: Event) -> None:
        """Train the landscape and search it, unless that is done; show the trials; then show all of it."""
        self._grow(cancel)
        self._search(settings.method, settings.seeds[0], cancel, shown=True)
        self._answered, self._answered_at = settings, time.monotonic()
        found = self._tracks[settings.method, settings.seeds[0]]
        self.dots.trials = self._dots(found.trials, found.spent)
        self._say(self._in_words(settings))
        self._spoken = self.status.value
        if cancel.wait(DETAIL_SECONDS):
            raise training.Cancelled("a newer request waits.")
        self._show(settings)

    def _grow(self, cancel: Event) -> None:
        """Train the cells that are missing, and paint as they come."""
        if not self._landscape.missing:
            return
        self._busy(True)
        began, left = time.monotonic(), self._landscape.missing
        try:
            for grown in networks.grow(self.dataset, self._landscape, cancel=cancel):
                self._landscape = grown
                info = plots.landscape_info(self._landscape)
                self._paint(self._plane, plots.landscape_traces(info), **plots.landscape_layout(info))
                trained, total = info.networks
                self.progress.value = trained / total
                missing = self._landscape.missing
                seconds = (time.monotonic() - began) * missing / max(1, left - missing)
                self.progress.description = f"{seconds:.0f} s left"
                self._say(f"Training {total:,} networks: {self._landscape.seeds} at every cell, with different seeds.")
        except training.Cancelled:
            if not self._worker.newer:
                self._say("Stopped. Move a control to go on with the training.")
            raise
        finally:
            self._busy(False)

    def _search(self, method: str, seed: int, cancel: Event, *, shown: bool = False) -> None:
        """One search up to the largest budget, unless it is known; with `shown`, its trials appear as they are told."""
        if (method, seed) in self._tracks:
            return
        painted = time.monotonic()

        def appear(trials: tuple[Trial, ...]) -> None:
            nonlocal painted
            if time.monotonic() - painted > APPEAR_SECONDS:
                painted = time.monotonic()
                self.dots.trials = self._dots(trials, list(itertools.accumulate(each.spent for each in trials)))

        try:
            self._tracks[method, seed] = networks.search(
                self._landscape,
                self._method(method, seed),
                budget=self._trainings * self._full,
                repeat=seed,
                on_trial=appear if shown else None,
                cancel=cancel,
            )
        except training.Cancelled:
            if shown and not self._worker.newer:
                self._say("Stopped. Move a control to go on with the search.")
            raise

    def _method(self, name: str, seed: int) -> Method:
        least = max(1, self._full // 9)
        ways: dict[str, Callable[[], Method]] = {
            "grid": lambda: Grid(math.isqrt(self._trainings), order="shuffled", seed=seed),
            "random": lambda: Random(seed),
            "halving": lambda: SuccessiveHalving(9, least, self._full, 3, seed),
            "Bayesian": lambda: Bayes(seed=seed),
        }
        return ways[name]()

    def _show(self, settings: Settings) -> None:
        """Paint the projection, the rungs and the race."""
        projection, rungs, race = (
            self._projection_info(settings),
            self._rungs_info(settings),
            self._race_info(settings),
        )
        self._paint(self._projection, plots.projection_traces(projection), **plots.projection_layout(projection))
        self._paint(self._rungs, plots.rungs_traces(rungs))
        self._paint(self._race_plot, plots.race_traces(race), **plots.race_layout(race))

    def _idle(self, cancel: Event) -> bool:
        """Search with the next seed, every method in turn."""
        settings: Settings | None = self._answered
        if settings is None or self._halted:
            return False
        if cancel.wait(max(0.0, self._answered_at + REST_SECONDS - time.monotonic())):
            raise training.Cancelled("a hand is moving the controls.")
        waiting = [
            (method, seed) for seed in settings.seeds for method in plots.METHODS if (method, seed) not in self._tracks
        ]
        if waiting:
            self._search(*waiting[0], cancel)
            race = self._race_info(settings)
            self._paint(self._race_plot, plots.race_traces(race), **plots.race_layout(race))
        left = max(0, len(waiting) - 1)
        total = len(settings.seeds) * len(plots.METHODS)
        self.sweep_note.value = (
            f"curves{' stopped' * self._halted}: {total - left} of {total} searches"
            if left
            else f"curves complete: {total} searches"
        )
        if not self._worker.asked:
            self.stop_button.disabled = left == 0 or self._halted
        if waiting and not left and self.status.value == self._spoken:  # not over what was said of a pin
            self._say(self._in_words(settings))
        return left > 0

    def _pin(self, name: str | None, replace: bool, settings: Settings | None, cancel: Event) -> None:
        if settings is None:
            raise RuntimeError("nothing to pin yet: wait for the first answer.")
        self._grow(cancel)
        self._search(settings.method, settings.seeds[0], cancel)
        trial, _ = self._choice(settings)
        profile = measure.profile(self._network(settings, trial), self.dataset.validation)
        said = ", ".join(f"{plots.title(key)} {value:.3g}" for key, value in trial.config.items())
        name = name or f"MLP found by {settings.method} search, {settings.budget} epochs: {said}"
        record = {**trial.config, "method": settings.method, "budget": settings.budget, "seed": settings.seeds[0]}
        self._keep_pin(name, profile, "search", record, replace)
        self._say(
            f"Pinned the chosen network as <b>{html.escape(name)}</b>, trained in full, with its own interval: "
            f"{profile.accuracy.percent}. {self._in_words(settings)}"
        )

    def _network(self, settings: Settings, trial: Trial) -> nn.Module:
        """The network that a trial read, trained in full."""
        objective = self._landscape.objective(settings.seeds[0])
        return networks.network(
            self.dataset, self._landscape, objective.cell(trial.config), objective.seed(trial.config)
        )

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _known(self, method: str, seeds: tuple[int, ...]) -> list[Track]:
        found = (self._tracks.get((method, seed)) for seed in seeds)
        return [each for each in found if each is not None]

    def _race(self, settings: Settings, budget: int) -> dict[str, Estimate]:
        """What each method's choice is worth under a budget; not of methods of which a repeat has chosen nothing."""
        found = {method: plots.worth_at(self._known(method, settings.seeds), budget) for method in plots.METHODS}
        return {method: worth for method, worth in found.items() if worth is not None}

    def _dots(self, trials: Sequence[Trial], spent: Sequence[int]) -> list[list[float]]:
        """Each trial as x, y, spent, value, size."""
        return [
            [
                *self._landscape.space.encode(trial.config).tolist(),
                *(float(total), trial.value or 0.0, (trial.epochs or 0) / self._full),
            ]
            for trial, total in zip(trials, spent, strict=True)
        ]

    def _race_info(self, settings: Settings) -> plots.RaceInfo:
        tracks = {method: self._known(method, settings.seeds) for method in plots.METHODS}
        return plots.race_info(tracks, [int(stop) for stop in self.budget.stops], self._full, self._landscape)

    def _projection_info(self, settings: Settings) -> plots.ProjectionInfo:
        found = self._tracks.get((settings.method, settings.seeds[0]))
        return plots.projection_info(self._landscape, settings.project, found, settings.budget, settings.method)

    def _rungs_info(self, settings: Settings) -> plots.RungsInfo:
        found = self._tracks.get((settings.method, settings.seeds[0]))
        return plots.rungs_info(found, settings.budget, self._trainings * self._full, settings.method)

    def _in_words(self, settings: Settings) -> str:
        """The status line: what was found under the budget, what it is worth, and the other methods."""
        found = self._tracks[settings.method, settings.seeds[0]]
        count, wholes = found.within(settings.budget), settings.budget / self._full
        parts = [
            f"<b>{settings.method}, {settings.budget} epochs</b> (as many as {wholes:g} whole "
            f"training{'s' * (wholes != 1)}): {count} trial{'s' * (count != 1)}."
        ]
        pair = found.at(settings.budget)
        if pair is None:
            parts.append("None is done so far.")
        else:
            trial, worth = pair
            said = ", ".join(f"{plots.title(name)} {value:.3g}" for name, value in trial.config.items())
            parts.append(
                f"The best has {said}; it scored <b>{100 * (trial.value or 0):.1f} %</b> after {trial.epochs} epochs. "
                f"Measured anew, on {self._landscape.seeds - 1} other networks trained in full, such a one is worth "
                f"<b>{100 * worth:.1f} %</b>."
            )
        rivals = [
            f"{name} {each.percent}" for name, each in self._race(settings, settings.budget).items() if each.n > 1
        ]
        if rivals:
            parts.append(f"Mean worth over up to {len(settings.seeds)} repeats: {'; '.join(rivals)}.")
        return " ".join([*parts, *self._trouble])

    def _still(self) -> bytes:
        return still.race_png(self._race_info(self.settings))
