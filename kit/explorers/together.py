"""The explorer of two objectives at once: a search grows a front, and you pick the network that you would ship."""

from __future__ import annotations

import html
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from torch import nn

from kit import checks, compress, measure, models
from kit.data import Dataset
from kit.explorers.base import of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.explorers.together_searches import BATCH, Rival, Search, Searches
from kit.measure import Estimate, Profile
from kit.plots import together as plots
from kit.plots.curves import Curve, Panel, counted, error
from kit.search.trials import Trial

MOST = 96  # trials of the largest budget
REPEATS = (1, 2, 4, 8)
REACH = 30  # the slider of sizes begins at so many times less than the worst that counts
ROUND = (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9)  # its stops
APPEAR_SECONDS = 0.4  # between two paintings of a search that runs
NONE = "none"


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: str
    budget: int
    afford: float
    against: str
    seeds: tuple[int, ...]

    @property
    def search(self) -> Search:
        """The search that is shown."""
        return self.method, self.seeds[0], self.budget


Piece = Trial | Settings | Search  # to measure anew; to explain; to search


@dataclass(frozen=True, eq=False)
class Answer:
    """A search.

    Attributes:
        settings: that it answers.
        trials: within the budget; so far, while it is not `whole`.
        front: of these, the smallest first.
        chosen: what you would ship: of the front that you can afford the best; None where nothing fits.
        whole: whether the search came to its end.
    """

    settings: Settings
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    chosen: Trial | None
    whole: bool


class TogetherExplorer(PinningExplorer[Settings, Answer]):
    """Search structure and hyper-parameters together, and drag what you can afford: you see what you would ship.

    The search really runs while you look, in batches, and goes on where the budget is raised. What is on its front may
    be there by luck; so in the background each member is measured anew, as networks of other seeds.

    Args:
        problem: maps a configuration to a share to maximise, such as the accuracy (0 .. 1), and a size to minimise, by
            name; with `space` and `goals`, two in this order. As `together.Problem` it may also have `batch(configs)`,
            `retest(config)` (estimates of both), `words(config)`, and `make(config)` (model and file) with `dataset`.
        method: to begin with: "random", "NSGA-II", "ParEGO", "EHVI" or a rival.
        trials: the largest budget, a multiple of 8.
        corner: the worst values that count, by name, where volumes end; left out, the limit of each goal.
        rivals: more ways to search, by name: functions of `budget` (trials) and `seed`, and `cancel` if they take it,
            that return a `Study`; by default, of a `together.Problem`, "one at a time" and "by hand".

    Controls, each with its value to read or set from code: `afford` (the largest size), `budget` (trials), `method`,
    `against` (whose front is drawn beside), `repeats`, `seed`, `pin_name`. After `wait()`: `trials`, `front`, `chosen`
    (a `Trial`, or None), `retested` (that, measured anew), `model`, `profile`. After `wait_curves()` the front is
    measured anew, and `volumes()` has all repeats.

    Raises:
        TypeError: no such problem, or an argument of another kind.
        ValueError: other goals, no corner where a goal has no limit, or an argument out of range.
    """

    _first = _bright = ("plane",)
    _curves = ("plane", "volume", "importance")
    _noun = "batches"
    _rest = 0.3
    _technique, _suffix = "search", ".kit"
    trials: tuple[Trial, ...] = of_answer("trials", "The trials within the budget (waits for them).")
    front: tuple[Trial, ...] = of_answer("front", "Those that nothing dominates, the smallest first (waits for them).")
    chosen: Trial | None = of_answer("chosen", "What you would ship; None where nothing fits (waits for it).")
    dataset: Dataset

    def __init__(
        self,
        problem: Any,
        *,
        method: str = "NSGA-II",
        trials: int = MOST,
        corner: Mapping[str, float] | None = None,
        rivals: Mapping[str, Rival] | None = None,
    ) -> None:
        self._searches = Searches(problem, corner or {}, rivals)
        checks.one_of("method", method, self._searches.methods)
        if checks.whole("trials", trials, BATCH) % BATCH:
            raise ValueError(f"trials must be a multiple of {BATCH}; got {trials}.")
        self.dataset = getattr(problem, "dataset", None)  # type: ignore[assignment]  # without one, nothing is pinned
        self.bound, self.ship, self.cursor = Mark("cursor"), Mark("point"), Mark("cursor", figure=1, text="budget")
        call = {"method": method, "trials": trials} | ({"corner": corner} if corner else {})
        data = "" if self.dataset is None else f" on {self.dataset.name}"
        super().__init__(
            f"TogetherExplorer: {type(problem).__name__}{data}",
            _table(self._searches, method, trials),
            (["problem", *["rivals=rivals"] * bool(rivals)], call),
            marks=[self.bound, self.ship, self.cursor],
        )

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        values = {name: getattr(self, name).value for name in ("method", "budget", "afford", "against")}
        return Settings(**values, seeds=tuple(range(self.seed.value, self.seed.value + self.repeats.value)))

    @property
    def retested(self) -> tuple[Estimate, Estimate] | None:
        """Share and size of what is chosen, as networks of other seeds (measures them where they are not yet)."""
        if (chosen := self._latest().chosen) is None:
            return None
        self._request(lambda cancel: self._searches.measure(chosen), keep=True)
        self.wait()
        return self._searches.anew(chosen)

    @property
    def model(self) -> nn.Module:
        """The network that you would ship; a ValueError where there is none."""
        return self._model(self._latest())

    @property
    def profile(self) -> Profile:
        """Everything measured about it on the validation split, with the bytes of its own file."""
        return self._pin(self._latest()).profile

    def volumes(self, budget: int | None = None) -> dict[str, Estimate]:
        """The volume of each method's front, mean over the repeats that are searched so far.

        The `budget` is in trials, no more than the slider's; None is what that says.
        """
        settings = self._latest().settings
        at = settings.budget if budget is None else checks.whole("budget", budget, 1, settings.budget)
        return self._searches.volumes(settings.seeds, settings.budget, at)

    # -- what is searched ----------------------------------------------------------------------------------------------

    def _preview(self, settings: Settings) -> None:
        if (answer := self._answered) is not None and answer.settings.search == settings.search:
            chosen = self._affordable(answer.front, settings)
            self.ship.values = self._here(replace(answer, settings=settings, chosen=chosen), settings)
        self.bound.at, self.bound.text = settings.afford, self._amount(settings.afford)
        self.cursor.at = float(settings.budget)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Search on, as far as the budget goes; trials appear as they are told."""
        painted = time.monotonic()

        def appear(_: Trial) -> None:
            nonlocal painted
            if time.monotonic() - painted > APPEAR_SECONDS:
                painted = time.monotonic()
                part = self._look(settings, whole=False)
                self._progress(len(part.trials) / settings.budget)
                self._show(part)

        if self._searches.lacks(settings.search):
            self._busy(True)
            self._searches.run(settings.search, cancel, appear)
        return self._look(settings, whole=True)

    def _look(self, settings: Settings, *, whole: bool) -> Answer:
        trials = self._searches.told(settings.search)
        front = self._searches.front(trials)
        return Answer(settings, trials, front, self._affordable(front, settings), whole)

    def _affordable(self, front: Sequence[Trial], settings: Settings) -> Trial | None:
        size = self._searches.names.size
        return next((each for each in front[::-1] if each.values[size] <= settings.afford), None)

    def _wanted(self, settings: Settings) -> list[str]:
        """Methods whose volumes are drawn."""
        return list(dict.fromkeys(each for each in (settings.method, settings.against, "random") if each != NONE))

    def _missing(self, answer: Answer) -> tuple[Sequence[Piece], int]:
        """What is chosen to measure anew, and the rest of the front; what mattered; then searches, seed by seed."""
        settings, searches = answer.settings, self._searches
        front = sorted(answer.front, key=lambda trial: trial is not answer.chosen)
        pairs = itertools.product(settings.seeds, self._wanted(settings))
        batches = [each for seed, name in pairs for each in searches.batches(name, seed, settings.budget)]
        missing: list[Piece] = [trial for trial in front if not searches.measured(trial)]
        missing += [settings] * (not searches.explained(settings.search))
        return [*missing, *filter(searches.lacks, batches)], len(front) + 1 + len(batches)

    def _grow(self, answer: Answer, missing: Sequence[Piece], cancel: Event) -> None:
        piece = missing[0]
        if isinstance(piece, Trial):
            self._searches.measure(piece)
        elif isinstance(piece, Settings):
            self._searches.explain(piece.search)
        else:
            try:
                self._searches.run(piece, cancel)
            except RuntimeError:  # each trial failed: who asks for this method is told why
                self._searches.give_up(piece)

    # -- what is pinned ------------------------------------------------------------------------------------------------

    def _shipped(self, answer: Answer) -> Trial:
        if answer.chosen is None:
            raise ValueError(f"nothing fits into {self._amount(answer.settings.afford)}, so there is no network.")
        return answer.chosen

    def _pin(self, answer: Answer) -> Pin:
        trial, (method, seed, budget) = self._shipped(answer), answer.settings.search
        model, data = self._searches.made(trial)
        profile = replace(measure.profile(model, self.dataset.validation), file_bytes=len(data))
        name = f"{method}, {counted(budget, 'trial')}, seed {seed}: {len(data):,} bytes"
        found = {"method": method, "budget": budget, "seed": seed, "afford": answer.settings.afford}
        return Pin(name, profile, trial.config | found, "what you would ship")

    def _model(self, answer: Answer) -> nn.Module:
        return self._searches.made(self._shipped(answer))[0]

    def _write(self, answer: Answer, file: Any) -> int:
        return compress.write(self._model(answer), file)

    def _loading(self, answer: Answer, model: nn.Module) -> str:
        thin = {
            name: len(each[0].get_parameter("weight"))
            for name, each in model.named_modules()
            if isinstance(each, compress.LowRank)
        }
        made = f"models.MLP({tuple(model.sizes)})" if isinstance(model, models.MLP) else f"{type(model).__name__}()"
        made = f"compress.low_rank({made}, rank={thin}).model" if thin else made
        return f"model = {made}; ".replace("{", "{{").replace("}", "}}") + "compress.load_into(model, {})"

    def _pinned(self) -> list[dict[str, Any]]:
        return [] if self.dataset is None else super()._pinned()

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Image by image, of the two networks."""
        if not self._searches.makes or not answer.whole or kept.chosen is None or answer.chosen is None:
            return None
        return Estimate.from_pairs(self._right(answer), self._right(kept))

    # -- what is shown -------------------------------------------------------------------------------------------------

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings = self.settings if answer is None else answer.settings
        front, chosen = ((), None) if answer is None else (answer.front, answer.chosen)
        searches, configs = self._searches, [trial.config for trial in front]
        space = searches.problem.space
        known = {name: searches.known_volumes(name, settings.seeds, settings.budget) for name in searches.methods}
        recipe = None if chosen is None else chosen.config
        return {
            "plane": lambda: self._plane(settings, () if answer is None else answer.trials, front),
            "volume": lambda: plots.volume_panel(known, settings.method, settings.budget),
            "importance": lambda: plots.importance_panel(space, searches.names, searches.shares(settings.search)),
            "recipe": lambda: plots.recipe_panel(space, recipe, configs, searches.names.size),
        }

    def _plane(self, settings: Settings, trials: Sequence[Trial], front: Sequence[Trial]) -> Panel:
        searches, names = self._searches, self._searches.names
        rival = searches.front(searches.told((settings.against, *settings.search[1:])))
        anew = [(size.value, share) for share, size in filter(None, map(searches.anew, front))]
        found = [
            self._curve(plots.TRIALS, [trial for trial in trials if trial.values]),
            self._curve(plots.FRONT, front),
            Curve.of(plots.ANEW, anew),
            self._curve(settings.against, rival),
        ]
        pins = Curve("pins")
        if names.size == "bytes":  # of other sizes the board knows nothing
            pins = self._pin_curve("file_bytes")._replace(said=tuple(self._pin_names))
        told = f"{settings.method}, {counted(len(trials), 'trial')}: front as searched ○, measured anew ●"
        return plots.plane_panel(names, settings.method, found, pins, searches.corner, f"{told}; ✖ what you would ship")

    def _curve(self, label: str, trials: Sequence[Trial]) -> Curve:
        share, size = self._searches.names
        worths = [(trial.values[size], _exactly(trial.values[share])) for trial in trials]
        return Curve.of(label, worths, map(self._searches.recipe, trials))

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        """What would be shipped: measured anew, or as it was in the search."""
        if (chosen := answer.chosen) is None:
            return []
        share, size = self._searches.names
        each = (self._searches.anew(chosen) or (_exactly(chosen.values[share]),))[0]
        return [chosen.values[size], *(error(100 * end) for end in (each.value, each.low, each.high))]

    def _draw_marks(self, answer: Answer) -> None:
        if not self._worker.newer:  # else a hand is ahead of this answer
            self.ship.values = self._here(answer, answer.settings)

    def _say_anew(self, answer: Answer) -> None:
        self._mark(answer)
        super()._say_anew(answer)

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Afford the point that was met; go to a point of the volumes: its method, and its budget."""
        if figure == "plane" and curve in (plots.TRIALS, plots.FRONT, plots.ANEW):
            self.set(afford=next((stop for stop in self.afford.stops if stop >= x), self.afford.stops[-1]))
        elif figure == "volume" and curve in self._searches.methods:
            self.set(method=curve, budget=min(self.budget.stops, key=lambda stop: abs(stop - x)))

    def _amount(self, size: float) -> str:
        return f"{size:,.0f} {self._searches.names.size}"

    def _words(self, answer: Answer) -> str:
        settings, searches, (share, _) = answer.settings, self._searches, self._searches.names
        failed = sum(not trial.values for trial in answer.trials)
        parts = [
            self._of_chosen(answer),
            f"<b>{settings.method}, {counted(len(answer.trials), 'trial')}</b>{f' ({failed} failed)' * bool(failed)}: "
            f"{len(answer.front)} on the front.",
        ]
        pairs = [(trial.values[share], anew[0].value) for trial in answer.front if (anew := searches.anew(trial))]
        if len(pairs) == len(answer.front) > 1:
            lost = Estimate.from_pairs(*zip(*pairs, strict=True))
            ends = f"{100 * lost.value:.1f} points ({100 * lost.low:.1f} to {100 * lost.high:.1f})"
            parts.append(f"With other seeds its members lose <b>{ends}</b>.")
        volumes = searches.volumes(settings.seeds, settings.budget, settings.budget)
        said = [
            f"{name} {each.value:.3f}" + f" ({each.low:.3f} to {each.high:.3f})" * (each.high > each.low)
            for name in self._wanted(settings)
            if (each := volumes.get(name)) is not None
        ]
        if said:
            mean = f", mean over up to {len(settings.seeds)} repeats" * (len(settings.seeds) > 1)
            parts.append(f"Volume{mean}: {'; '.join(said)}.")
        return " ".join([*parts, *self._trouble])

    def _of_chosen(self, answer: Answer) -> str:
        """What you would ship, or how near the search came."""
        (share, size), afford, chosen = self._searches.names, self._amount(answer.settings.afford), answer.chosen

        def values(trial: Trial) -> str:
            return f"{100 * trial.values[share]:.1f} % with {self._amount(trial.values[size])}"

        done = [trial for trial in answer.trials if trial.values]
        if not done:
            why = next((f"; the last error: {each.error}" for each in answer.trials[::-1] if each.error), "")
            return f"No trial is done so far{html.escape(why)}."
        if not answer.front:
            near = {values(min(done, key=lambda t: t.values[size])), values(max(done, key=lambda t: t.values[share]))}
            worst = f"{100 * self._searches.corner[share]:.1f} % with {self._amount(self._searches.corner[size])}"
            return (
                f"<b>No trial has {worst} or better</b>: the smallest and the best reach {' and '.join(sorted(near))}."
            )
        if chosen is None:
            return f"<b>Nothing fits into {afford}</b>: the smallest of the front reaches {values(answer.front[0])}."
        anew, searched = self._searches.anew(chosen), f"{100 * chosen.values[share]:.1f} % in the search"
        worth = f"<b>{anew[0].percent}</b> with other seeds ({searched})" if anew else searched
        start = f"With <b>{afford}</b> you would ship a network of <b>{self._amount(chosen.values[size])}</b>"
        return f"{start}, {worth}: {html.escape(self._searches.recipe(chosen))}."


def _exactly(value: float) -> Estimate:
    """A single value, whose spread nobody knows."""
    return Estimate(value, value, value, 1)


def _table(searches: Searches, method: str, trials: int) -> list[Row]:
    size, most, about = searches.names.size, searches.corner[searches.names.size], "08, section {}".format
    decades = range(math.floor(math.log10(most / REACH)), math.ceil(math.log10(most)))
    between = (float(f"{digit}e{decade}") for decade in decades for digit in ROUND)
    stops = [*(stop for stop in between if most / REACH <= stop < most), most]
    budgets, beside = range(BATCH, trials + 1, BATCH), "Whose front is drawn beside, of the same budget and seed."
    room: dict[str, Any] = {"label": f"{size} you can afford", "unit": size, "text": "{:,.0f}".format, "wide": True}
    spend: dict[str, Any] = {"unit": "trials", "wide": True, "section": about(3)}
    search: dict[str, Any] = {"group": "search", "section": about(3)}
    return [
        Control(
            "afford", "stops", stops[len(stops) // 2], "What you ship has no more.", stops, **room, section=about(6)
        ),
        Control("budget", "stops", budgets[(len(budgets) - 1) // 2], "What the search may make.", budgets, **spend),
        Control("method", "choice", method, "What proposes the trials.", searches.methods, **search),
        Control("against", "choice", NONE, beside, [NONE, *searches.methods], group="search", section=about(5)),
        Control("repeats", "stops", 4, "How often each method searches, for its volume.", REPEATS, **search),
        Control("seed", "number", 0, "Of the first repeat: its trials are shown.", (0, 10**9), **search),
        *PIN_ROWS,
    ]
