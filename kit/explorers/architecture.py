"""The architecture explorer: methods search a table of trained networks, under a budget and a limit that you drag."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from kit import checks, training
from kit.cells import Cell
from kit.data import Dataset
from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Action, Control, Note, Row
from kit.explorers.marks import Mark
from kit.explorers.worker import Worker
from kit.measure import Estimate
from kit.plots import architecture as plots
from kit.plots.curves import Panel, counted, error
from kit.plots.search import race_at
from kit.search import Bayes, Random, Study, SuccessiveHalving
from kit.search.architecture import Evolution, LocalSearch, space_of
from kit.search.architecture import supernet as supernets
from kit.search.architecture.supernet import Supernet
from kit.search.architecture.table import Table
from kit.search.replay import Trajectory, replay
from kit.search.trials import Method, Trial

TRAININGS = 200  # the largest budget
REPEATS = (4, 8, 16, 32)
LIMITS = (0.01, 0.02, 0.03, *(at / 20 for at in range(1, 21)))  # shares of the networks, the cheapest ones
COSTS = {"FLOPs": "flops", "params": "parameters", "latency": "latency"}
SOME, EVERY = 100, 10  # networks that a supernet scores while it is trained, every so many epochs
APPEAR_SECONDS = 0.15  # between two paintings of a search that runs
METHODS: dict[str, Callable[[int], Method]] = {  # the quickest to compute first
    "random": Random,
    "local search": LocalSearch,
    "evolution": lambda seed: Evolution(seed=seed),
    "halving": lambda seed: SuccessiveHalving(16, min_epochs=1, max_epochs=8, eta=2, seed=seed),
    "Bayesian": lambda seed: Bayes(seed=seed, bounds=(0, 1)),
}
Key = tuple[str, int, bytes]  # of a search: method, seed, which networks are within the limit


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: str
    budget: int
    cost: str
    limit: float
    cell: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """The whole search of the chosen method with the first seed; the budget is only a look at it.

    Attributes:
        settings: that it answers.
        table: that was searched.
        limits: as `architecture.search` takes them.
        within: which networks they keep, [n] of bool.
        trajectory: the search.
    """

    settings: Settings
    table: Table
    limits: Mapping[str, float]
    within: np.ndarray
    trajectory: Trajectory

    @property
    def spent(self) -> int:
        """The budget in epochs."""
        return self.settings.budget * self.table.epochs

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those within the budget."""
        return self.trajectory.trials[: self.trajectory.within(self.spent)]

    @property
    def found(self) -> tuple[Trial, float]:
        """The trial that is chosen, and its network retested."""
        found = self.trajectory.at(self.spent)
        assert found is not None  # a training is as many epochs as any trial
        return found

    @property
    def row(self) -> int:
        """Of the incumbent in the table."""
        return self.table.places[self.found[0].config["cell"]]

    @property
    def best_row(self) -> int:
        """Of the network with the best mean within the limit: of those near the top, chance decides which."""
        return int(np.where(self.within, self.table.mean, -1).argmax())

    @property
    def shown_row(self) -> int:
        """Of the network that is drawn."""
        cell = self.settings.cell
        return self.row if cell == "incumbent" else self.best_row if cell == "best" else self.table.row(cell)

    @property
    def incumbent(self) -> Cell:
        """What the search would choose."""
        return self.table.cells[self.row]

    @property
    def best(self) -> Cell:
        """The network with the best mean."""
        return self.table.cells[self.best_row]

    @property
    def regret(self) -> float:
        """How much less accurate the incumbent is than the best, mean over all trainings of each."""
        return float(self.table.mean[self.best_row] - self.table.mean[self.row])


class ArchitectureExplorer(Explorer[Settings, Answer]):
    """Search small networks by five methods: drag the budget, and a limit on what a network may cost.

    Every network of the space is in the table, with several trainings. A trial reads one of them, as a training would
    give; halving reads it after fewer epochs. What a search chooses is retested: measured on those trainings of its
    network that the search did not read.

    Args:
        table: of `search.architecture.load()`.
        dataset: that its networks were trained on; *Train supernet* then scores all of them with shared weights. None
            leaves that out.
        method: to begin with: "random", "local search", "evolution", "halving" or "Bayesian".
        trainings: the largest budget, 10 or more, and no more than there are networks.

    Controls, each with its value to read or set from code: `budget` (trainings), `method`, `cost` (the x axis, and what
    is limited: "flops", "parameters" or "latency"), `limit` (the share of the networks that it keeps, the cheapest
    ones), `cell` (which network is drawn: "incumbent", "best", or a cell's `str(cell.canonical)`), `repeats`, `seed`;
    buttons `train_supernet_button`, `reset_button`, `stop_button`. After `wait()`: `trajectory`, `trials` (within the
    budget), `incumbent` and `best` (within the limit; both a `Cell`), `retested`, `regret`, `limits`. After
    `wait_curves()`: `race()`, all methods over all repeats; `scores` and `tau` of a supernet that is trained.

    Raises:
        ValueError: an argument out of range.
        TypeError: an argument of another kind.
    """

    _first, _bright, _curves = ("cloud",), ("cloud",), ("race",)
    _noun = "searches"
    _rest = 0.3
    trajectory: Trajectory = of_answer("trajectory", "The whole search of the chosen method and seed (waits for it).")
    trials: tuple[Trial, ...] = of_answer("trials", "The trials within the budget (waits for them).")
    incumbent: Cell = of_answer("incumbent", "The cell that the search would choose (waits for it).")
    best: Cell = of_answer("best", "The cell of the best mean accuracy within the limit (waits for it).")
    regret: float = of_answer("regret", "Mean accuracy of the best within the limit over the incumbent's, share.")
    limits: Mapping[str, float] = of_answer("limits", "The limit as `architecture.search` takes it; empty: none.")

    def __init__(
        self, table: Table, dataset: Dataset | None = None, *, method: str = "evolution", trainings: int = TRAININGS
    ) -> None:
        checks.instance("table", table, Table, "a table, as of `search.architecture.load()`")
        checks.one_of("method", method, METHODS)
        checks.whole("trainings", trainings, 10, len(table.cells))
        if dataset is not None:
            training.check_dataset(dataset)
            if dataset.key != table.made["data"]:
                raise ValueError(f"dataset must be the one of the table, {table.made['data']}; got {dataset.key}.")
        self.dataset, self._networks, self._top = dataset, table, trainings
        self._accuracy = [Estimate.from_values(row).share for row in table.curves[:, :, -1].tolist()]
        self._steps = sorted({*map(round, np.geomspace(1, trainings, 24))})  # points of the race
        self._studies: dict[Key, Study] = {}  # searches that are not done
        self._trajectories: dict[Key, Trajectory] = {}
        self._clouds: dict[tuple[str, float], Panel] = {}
        self._scores, self._learned = np.full(len(table.cells), np.nan), ""
        self._trainer = Worker(lambda cancel: False, self._say_error)  # a hand on the controls does not stop it
        self.dots, self.chosen, self.bound = Mark("trials"), Mark("point"), Mark("cursor")
        self.cursor = Mark("cursor", figure=1, text="budget")
        call = ["table", *["dataset"] * (dataset is not None)], {"method": method, "trainings": trainings}
        marks = [self.bound, self.dots, self.chosen, self.cursor]
        super().__init__("ArchitectureExplorer", _table(table, method, trainings, dataset), call, marks=marks)
        if dataset is None:
            self.unshared.value = "No supernet here: it trains on images, and no dataset was given."
        self._move()

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        values = {name: getattr(self, name).value for name in ("method", "budget", "cost", "limit", "cell")}
        return Settings(**values, seeds=tuple(range(self.seed.value, self.seed.value + self.repeats.value)))

    @property
    def retested(self) -> float:
        """Accuracy of the incumbent's network in the trainings that the search did not read, mean, share 0 .. 1."""
        return self._latest().found[1]

    @property
    def scores(self) -> np.ndarray:
        """What a supernet gives each network of the table, share 0 .. 1, NaN where it has not scored it. -> [n]."""
        return self._scores

    @property
    def tau(self) -> float:
        """Kendall's rank correlation of these scores with the table; NaN while there are none."""
        known = np.isfinite(scores := self._scores)
        return float(kendalltau(scores[known], self._networks.mean[known]).statistic) if known.any() else float("nan")

    def race(self, budget: int | None = None) -> dict[str, Estimate]:
        """What each method's choice is worth, retested, mean over the repeats that are searched so far.

        The `budget` is in trainings; None is what the slider says.
        """
        answer = self._latest()
        spent = answer.spent if budget is None else checks.whole("budget", budget, 1) * self._networks.epochs
        return race_at(self._known(answer.settings, answer.within), spent)

    # -- what is searched ----------------------------------------------------------------------------------------------

    def _bounds(self, settings: Settings) -> tuple[dict[str, float], np.ndarray]:
        """The limit, and which networks it keeps."""
        costs = self._networks.costs(settings.cost)
        most = float(np.quantile(costs, settings.limit, method="higher"))
        limits = {} if settings.limit == 1 else {settings.cost: most}
        return limits, self._networks.within(**limits)

    def _preview(self, settings: Settings) -> None:
        limits, within = self._bounds(settings)
        most = float(self._networks.costs(settings.cost)[within].max())
        self.dots.at = float(settings.budget * self._networks.epochs)
        self.cursor.at = float(settings.budget)
        said = plots.said(settings.cost, most)
        self.bound.at, self.bound.text = most, f"limit {said}" if limits else "no limit"
        self.kept.value = f"{said}, {within.sum():,} of {len(within):,} networks" if limits else "no limit"

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Search, unless that is done; trials appear as they are told."""
        limits, within = self._bounds(settings)
        key = settings.method, settings.seeds[0], within.tobytes()
        if key not in self._trajectories:
            self._busy(True)
            self._paint("cloud", self._cloud(settings, within))
        painted = time.monotonic()

        def appear(_: Trial) -> None:
            nonlocal painted
            if time.monotonic() - painted > APPEAR_SECONDS:
                painted = time.monotonic()
                self._draw_dots(settings, self._studies[key].trials)

        return Answer(settings, self._networks, limits, within, self._search(key, cancel, appear))

    def _search(self, key: Key, cancel: Event, on_trial: Callable[[Trial], None] | None = None) -> Trajectory:
        """One search up to the largest budget, remembered; one that was cancelled goes on."""
        if key not in self._trajectories:
            (method, seed, within), table = key, self._networks
            objective = table.objective(seed)
            kept = [cell for cell, keeps in zip(table.cells, np.frombuffer(within, bool), strict=True) if keeps]
            study = self._studies.setdefault(key, Study(space_of(kept), maximise=True))
            budget: dict[str, Any] = {"budget": self._top * table.epochs, "unit": "epochs", "epochs": table.epochs}
            study.run(objective, METHODS[method](seed), on_trial=on_trial, cancel=cancel, **budget)
            if cancel.is_set():
                raise training.Cancelled("cancelled in the middle of a search.")
            self._trajectories[key] = replay(study.trials, objective.retest, maximise=True)
            del self._studies[key]
        return self._trajectories[key]

    def _missing(self, answer: Answer) -> tuple[Sequence[Key], int]:
        """Searches still to make: the quickest methods first."""
        wanted = [(*pair, answer.within.tobytes()) for pair in itertools.product(METHODS, answer.settings.seeds)]
        return [key for key in wanted if key not in self._trajectories], len(wanted)

    def _grow(self, answer: Answer, missing: Sequence[Key], cancel: Event) -> None:
        self._search(missing[0], cancel)

    def _known(self, settings: Settings, within: np.ndarray) -> dict[str, list[Trajectory]]:
        """The searches that are done of each method, one per repeat."""
        kept, known = within.tobytes(), self._trajectories
        keys = {name: [(name, seed, kept) for seed in settings.seeds] for name in METHODS}
        return {name: [known[key] for key in each if key in known] for name, each in keys.items()}

    # -- shared weights ------------------------------------------------------------------------------------------------

    def train_supernet(self) -> None:
        """Train a supernet, beside all else, and score every network with its weights; `wait_curves` waits for it."""
        if self.dataset is None:
            raise ValueError("dataset is needed to train a supernet; got None.")
        self._scores, self._learned, self._beside = np.full(len(self._networks.cells), np.nan), "", True
        self._trainer.post(partial(self._share, self.dataset, self.seed.value))
        self._request(self._show_shared, keep=True)

    def _share(self, dataset: Dataset, seed: int, cancel: Event) -> None:
        cells = self._networks.cells
        some = np.random.default_rng(seed).choice(len(cells), min(SOME, len(cells)), replace=False)

        def show(supernet: Supernet, rows: np.ndarray, learned: str) -> None:
            scores = np.full(len(cells), np.nan)
            scores[rows] = supernets.scores(supernet, dataset, [cells[row] for row in rows], cancel=cancel)
            self._scores, self._learned = scores, learned
            self._request(self._show_shared, keep=True)

        def on_epoch(epoch: int, supernet: Supernet) -> None:
            if epoch % EVERY == 0:
                show(supernet, some, f"epoch {epoch}, {len(some)} networks")

        self._beside = True
        try:
            supernet = supernets.share(dataset, seed=seed, on_epoch=on_epoch, cancel=cancel)
            show(supernet, np.arange(len(cells)), "trained")
        finally:
            self._beside = False
            self._request(self._show_shared, keep=True)

    def _show_shared(self, cancel: Event) -> None:
        if (answer := self._answered) is not None:
            self._paint_all(answer, ("shared",))

    def wait_curves(self, timeout: float | None = None) -> None:
        """Block until the background curves and a supernet that was asked for are complete; errors as in `wait`."""
        self._trainer.wait(timeout)
        super().wait_curves(timeout)

    def stop(self) -> None:
        """Cancel the running work, a supernet's training too; the last picture stays until a control moves."""
        self._trainer.stop()
        self._beside = False
        super().stop()
        if self.dataset is not None:
            self._request(self._show_shared, keep=True)

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _cloud(self, settings: Settings, within: np.ndarray) -> Panel:
        key = settings.cost, settings.limit
        if key not in self._clouds:
            self._clouds[key] = plots.cloud_panel(self._networks, settings.cost, within, self._accuracy)
        return self._clouds[key]

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings, table = self.settings if answer is None else answer.settings, self._networks
        within = self._bounds(settings)[1]
        race, tau = self._known(settings, within), self.tau
        best, shown = float(table.mean[within].max()), None if answer is None else answer.shown_row
        learned = f"Shared weights, {self._learned}: Kendall's tau {tau:.2f}" if self._learned else "Shared weights"
        empty = f"The first scores come<br>after {EVERY} epochs." if self._beside else plots.UNSHARED
        panels = {
            "cloud": lambda: self._cloud(settings, within),
            "race": lambda: plots.race_panel(race, self._steps, table.epochs, settings.method, best),
            "cell": lambda: plots.cell_panel(None, "") if answer is None else self._cell(answer),
            "shared": lambda: plots.shared_panel(self._scores, table.mean, learned, shown, empty),
        }
        return {name: panel for name, panel in panels.items() if name != "shared" or self.dataset is not None}

    def _cell(self, answer: Answer) -> Panel:
        row, role = answer.shown_row, {"incumbent": "Incumbent", "best": "Best"}.get(answer.settings.cell, "Chosen")
        costs = ", ".join(plots.said(what, self._networks.costs(what)[row]) for what in plots.TITLES)
        words = f"{self._accuracy[row].percent} in {self._accuracy[row].n} trainings", costs
        cell, where = self._networks.cells[row], role if answer.within[row] else "Beyond the limit"
        return plots.cell_panel(cell, f"{where}: {cell}", words)

    def _place(self, row: int, cost: str) -> list[float]:
        """Of a network in the main figure, with its interval."""
        each = self._accuracy[row]
        ends = (each.value, each.low, each.high)
        return [float(self._networks.costs(cost)[row]), *(error(100 * end) for end in ends)]

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        return self._place(answer.row, settings.cost)

    def _draw_marks(self, answer: Answer) -> None:
        settings = answer.settings
        self._draw_dots(settings, answer.trajectory.trials)
        self.chosen.values = [] if answer.shown_row == answer.row else self._place(answer.shown_row, settings.cost)

    def _draw_dots(self, settings: Settings, trials: Sequence[Trial]) -> None:
        table, told = self._networks, [trial for trial in trials if trial.told]
        places = [self._place(table.places[trial.config["cell"]], settings.cost)[:2] for trial in told]
        spent, sizes = itertools.accumulate(float(each.spent) for each in told), [each.epochs or 0 for each in told]
        rows = zip(places, spent, told, sizes, plots.order_colours(len(told)), strict=True)
        self.dots.values = [
            [*place, total, trial.value or 0.0, epochs / table.epochs, colour]
            for place, total, trial, epochs, colour in rows
        ]

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Draw the network of a point of the cloud; go to a point of the race: its method, and its budget."""
        if figure == "cloud" and curve == "networks":
            far = abs(self._networks.costs(self.cost.value) - x) + abs(100 * (1 - self._networks.mean) - y)
            self.set(cell=str(self._networks.cells[int(far.argmin())]))
        elif figure == "race" and curve in METHODS:
            self.set(method=curve, budget=int(x))

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Repeat by repeat, where the seeds are the same: what is chosen, retested."""
        worths = [
            [
                found[1]
                for track in self._known(each.settings, each.within)[each.settings.method]
                if (found := track.at(each.spent))
            ]
            for each in (answer, kept)
        ]
        same = kept.settings.seeds == answer.settings.seeds
        return Estimate.from_pairs(*worths) if same and {*map(len, worths)} == {len(kept.settings.seeds)} else None

    def _words(self, answer: Answer) -> str:
        settings, (trial, retested), every = answer.settings, answer.found, self._accuracy[answer.row]
        kept, total, best = int(answer.within.sum()), len(answer.within), 100 * self._networks.mean[answer.best_row]
        limits = [f"{plots.said(*each)} or less ({kept:,} of {total:,} networks)" for each in answer.limits.items()]
        read, others = counted(trial.epochs or 0, "epoch"), counted(self._networks.seeds - 1, "other training")
        parts = [
            f"<b>{settings.method}, {counted(settings.budget, 'training')}</b>, {limits[0] if limits else 'no limit'}: "
            f"of {counted(len(answer.trials), 'trial')} it chooses <b>{answer.incumbent}</b>.",
            f"That reached {100 * (trial.value or 0):.1f} % after {read}; retested in its {others}, "
            f"<b>{100 * retested:.1f} %</b>. The mean of all {every.n} is {every.percent}, "
            f"<b>{100 * answer.regret:.1f} points</b> below the best mean of all, {best:.1f} %.",
            f"All {kept:,} networks are tried." * (kept <= settings.budget),
        ]
        race = race_at(self._known(settings, answer.within), answer.spent)
        names = [name for name in dict.fromkeys((settings.method, "random")) if name in race and race[name].n > 1]
        if names:
            rivals = "; ".join(f"{name} {race[name].percent}" for name in names)
            parts.append(f"Retested, mean over up to {len(settings.seeds)} repeats: {rivals}.")
        return " ".join(filter(None, parts))


def _table(table: Table, method: str, trainings: int, dataset: Dataset | None) -> list[Row]:
    order = np.argsort(-table.mean, kind="stable")
    texts = [(f"{100 * table.mean[at]:.1f} %: {table.cells[at]}", str(table.cells[at])) for at in order]
    cells, about = [("incumbent", "incumbent"), ("best within limit", "best"), *texts], "07, section {}".format
    spend = "Trainings that a search may spend; one that is stopped early costs its epochs."
    how, often = "What proposes the trials.", "How often each method searches in the race."
    first = "Of the first repeat: its trials are shown."
    axis = "What a network costs: the x axis, and what the limit is on."
    keep = "The largest cost that is allowed, as the share of the networks that it keeps, the cheapest ones."
    draw = "The network that is drawn; a click on a point of the cloud chooses it, too."
    train = "Train one network that holds them all, and score each with its weights: up to a minute."
    budget: dict[str, Any] = {"values": tuple(range(1, trainings + 1)), "unit": "trainings", "wide": True}
    limit: dict[str, Any] = {"unit": "share of the networks", "text": "{:.0%}".format, "wide": True, "group": "limit"}
    return [
        Control("budget", "stops", min(60, trainings), spend, **budget, section=about(3)),
        Control("method", "choice", method, how, list(METHODS), group="search", section=about(4)),
        Control("repeats", "stops", 8, often, REPEATS, group="search", section=about(3)),
        Control("seed", "number", 0, first, (0, 10**9), group="search", section=about(2)),
        Control("cost", "toggle", "flops", axis, COSTS, group="limit", section=about(8)),
        Control("limit", "stops", 1.0, keep, LIMITS, **limit, section=about(8)),
        Note("kept"),
        Control("cell", "choice", "incumbent", draw, cells, group="network", section=about(1)),
        Note("unshared") if dataset is None else Action("train_supernet", "Train supernet", "cogs", train),
    ]
