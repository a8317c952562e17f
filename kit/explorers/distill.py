"""The distillation explorer: temperature, alpha, width, transfer set; every move trains a cohort of students."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import ipywidgets as widgets
from torch import nn

from kit import distill, measure, training
from kit.data import Dataset, Split
from kit.distill import Group, Recipe, Students
from kit.explorers.base import WIDE, LiveFigure, ProgressWidget, Stops
from kit.explorers.page import Bars, Here
from kit.explorers.pinning import PinningExplorer
from kit.measure import Estimate, Profile
from kit.plots import distill as plots
from kit.plots import still
from kit.plots.prune import Line, line

TEMPERATURES: tuple[float, ...] = (0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16, 22, 32, 45, 64)
CURVE: tuple[float, ...] = TEMPERATURES[::2]  # trained without being asked for
COARSE_FIRST = (4, 64, 0.5, 16, 1, 8, 2, 32)  # the curve has its shape early
ALPHAS: tuple[float, ...] = tuple(step / 10 for step in range(11))
WIDTHS: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128)
HIDDEN = WIDTHS[1:]  # the plane's curve; a linear student is another kind of model
SEEDS: tuple[int, ...] = (4, 8, 16, 32, 64)
EPOCHS: tuple[int, ...] = (5, 10, 20, 40, 80)

# Students that one piece of background work trains: few enough that a move waits for a moment only.
CHUNK = 32
# While a hand moves, the page is left to it: curves grow once it has rested for so long.
REST_SECONDS = 0.3
DETAIL_SECONDS = 0.08  # the other figures follow so much later, so that the page paints the soft labels first

LABELLED = 10  # labels a class, where most samples have none


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    recipe: Recipe
    seeds: tuple[int, ...]
    label: int
    image: int


class DistillationExplorer(PinningExplorer):
    """Distil a teacher into cohorts of small students by moving sliders; each move trains students again.

    Args:
        teacher: any trained `nn.Module`; not changed.
        dataset: any `Dataset` whose samples the teacher takes. Validation measures, test is not read.
        temperature: where the temperature begins, one of `TEMPERATURES`: 0.5 to 64, two a doubling.
        transfer: which transfer set to begin with: "few labels" (ten a class are labelled, all samples are there), "all
            labels", "few images" (the first ten a class alone), "and shifted" (images only), "without the class".
        width: hidden units to begin with, one of `WIDTHS` (0, 4, 8 ... 128); 0 is a single linear layer.

    Controls, each with its value to read or set from code: `temperature`, `alpha`, `width`, `transfer`, `digit`,
    `image`, `seeds`, `epochs`, `pin_name`; buttons `new_seeds_button`, `pin_button`, `reset_button`, `stop_button`.
    After `wait()`: `group` (the students of the chosen temperature), `hard` and `smoothed` (their rivals), `gain` (over
    hard labels), `model` and `profile` (of the median student). After `wait_sweep()` the curves are complete: eight
    temperatures, six widths.

    Raises:
        ValueError: samples that the teacher cannot take, other classes, or a start that is no stop of its slider.
    """

    def __init__(
        self,
        teacher: nn.Module,
        dataset: Dataset,
        *,
        temperature: float = 4,
        transfer: str = "few labels",
        width: int = 32,
    ) -> None:
        """Ask the teacher about all samples, build the widgets, ask for the first students."""
        self.dataset = dataset
        self._students = Students(teacher, dataset)
        self._teacher = Estimate.from_counts(
            int((self._students.logits.argmax(1) == dataset.validation.labels).sum()), len(dataset.validation)
        )
        self._teacher_size = measure.nonzeros(teacher)
        self.transfers = _transfer_sets(dataset)
        self._made: dict[tuple[str, int | None], Split] = {}
        if transfer not in self.transfers:
            raise ValueError(f"transfer must be one of {', '.join(self.transfers)}; got {transfer!r}.")
        self._defaults = {"temperature": temperature, "alpha": 0.9, "width": width, "transfer": transfer}
        shown = dataset.validation.labels.unique().tolist()  # classes, ascending
        self._defaults |= {"digit": shown[min(3, len(shown) - 1)], "image": 0, "seeds": 8, "epochs": 20}
        self._first_seed, self._answered_at = 0, 0.0
        controls = self._make_controls()
        start = self.settings
        self._curve = LiveFigure(plots.curve_figure(self._curve_info(start)))
        self._soft = LiveFigure(plots.soft_figure(self._soft_info(start)))
        self._plane = LiveFigure(plots.students_figure(self._plane_info(start)))
        self._said = LiveFigure(plots.answers_figure(self._answers_info(start)))
        self._soft.add_class("kit-instant")
        self.here, self.bars = Here(), Bars(heights=list(self._soft_info(start).soft))
        title = f"DistillationExplorer: {type(teacher).__name__} on {dataset.name}"
        super().__init__(
            title, controls, self._curve, (self._soft, self._plane, self._said), overlays=[self.here, self.bars]
        )
        self.status.layout.min_height = "9em"  # the words about a class never seen must not push the figures down
        self._begin()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        recipe = Recipe(
            transfer=self._transfer(),
            temperature=self.temperature.value,
            alpha=self.alpha.value,
            width=self.width.value,
            epochs=self.epochs.value,
        )
        seeds = tuple(range(self._first_seed, self._first_seed + self.seeds.value))
        return Settings(recipe, seeds, self.digit.value, self.image.value)

    @property
    def group(self) -> Group:
        """The students of the latest answer (waits for it)."""
        return self._trained(lambda recipe: recipe)

    @property
    def hard(self) -> Group:
        """Their rivals on hard labels, same seeds and steps."""
        return self._trained(lambda recipe: recipe.hard)

    @property
    def smoothed(self) -> Group:
        """Their rivals with label smoothing."""
        return self._trained(lambda recipe: recipe.smoothed)

    @property
    def gain(self) -> Estimate:
        """Accuracy over that of hard labels, paired by seed."""
        return Estimate.from_pairs(self.group.accuracies, self.hard.accuracies)

    @property
    def model(self) -> nn.Module:
        """The median student of the latest answer."""
        return self._students.model(self.group.recipe, self.group.median)

    @property
    def profile(self) -> Profile:
        """Everything measured about the median student on the validation split, latency at batch 1."""
        return measure.profile(self.model, self.dataset.validation)

    def groups(self) -> tuple[Group, ...]:
        """What is trained so far of the curve over temperature, in order of the temperature."""
        return self._groups(self.settings)

    def new_seeds(self) -> None:
        """Train everything again with seeds that were not used before."""
        self._first_seed += SEEDS[-1]  # past the largest group
        self._move(None)

    def reset(self) -> None:
        """Set every control, and the seeds, back to where they began."""
        self._first_seed = 0
        super().reset()

    def _trained(self, way: Callable[[Recipe], Recipe]) -> Group:
        self.wait()
        settings = self._answered
        group = None if settings is None else self._students.known(way(settings.recipe), settings.seeds)
        if group is None:
            raise RuntimeError("no answer yet: the work was stopped before the first one; move a control.")
        return group

    # -- controls --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> list[widgets.Widget]:
        start = self._defaults
        counts = self.dataset.validation.labels.bincount(minlength=self.dataset.n_classes).tolist()
        self.temperature = Stops(
            TEMPERATURES,
            lambda t: f"T = {t:g}",
            value=start["temperature"],
            description="temperature",
            **{**WIDE, "style": {"description_width": "initial"}},
        )
        self.alpha = Stops(ALPHAS, lambda alpha: f"{alpha:g}", value=start["alpha"], description="alpha", **WIDE)
        self.width = Stops(
            WIDTHS, lambda width: f"{width:g}" if width else "linear", value=start["width"], description="width", **WIDE
        )
        self.transfer = widgets.Dropdown(
            options=list(self.transfers), value=start["transfer"], description="transfer", **WIDE
        )
        classes = [(name, label) for label, name in enumerate(self.dataset.class_names) if counts[label]]
        self.digit = widgets.Dropdown(options=classes, value=start["digit"], description="class", **WIDE)
        self.image = widgets.IntSlider(0, 0, min(filter(None, counts)) - 1, description="image", **WIDE)
        self.seeds = Stops(SEEDS, lambda seeds: f"{seeds:g}", value=start["seeds"], description="seeds", **WIDE)
        self.epochs = Stops(EPOCHS, lambda epochs: f"{epochs:g}", value=start["epochs"], description="epochs", **WIDE)
        self.new_seeds_button = widgets.Button(description="New seeds", icon="random", layout={"width": "100%"})
        self.temperature.add_class("kit-wide")  # the most moved one gets the whole width
        self.new_seeds_button.on_click(lambda _: self.new_seeds())
        return [*(getattr(self, name) for name in start), self.new_seeds_button, *self._make_pin_controls()]

    def _move(self, change: Any) -> None:
        """Soften the teacher's labels at once (a dozen numbers); then ask for the students."""
        if not self._quiet:
            self.bars.heights = list(self._soft_info(self.settings).soft)
        super()._move(change)

    def _transfer(self) -> Split:
        """The chosen transfer set: made once, so that what was trained on it is found again."""
        name = self.transfer.value
        key = (name, self.digit.value if name == UNSEEN else None)
        if key not in self._made:
            self._made[key] = self.transfers[name](self.digit.value)
        return self._made[key]

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, settings: Settings, cancel: Event) -> None:
        """Show the chosen sample; train what is missing; then show all of it."""
        soft = self._soft_info(settings)
        self._paint(self._soft, plots.soft_traces(soft), **plots.soft_layout(soft))
        self._train(settings, cancel)
        self._answered, self._answered_at = settings, time.monotonic()
        self.here.point = plots.here_point(self._known(settings))
        self._say(self._in_words(settings))
        if cancel.wait(DETAIL_SECONDS):
            raise training.Cancelled("a newer request waits.")
        self._show(settings)

    def _train(self, settings: Settings, cancel: Event) -> None:
        """The chosen students and their rivals, one cohort, unless they are known."""
        recipe = settings.recipe
        if all(self._students.trained(each, settings.seeds) for each in (recipe, *_rivals(recipe))):
            return
        self._busy(True)
        try:
            self._students.train(
                [recipe, *_rivals(recipe)],
                settings.seeds,
                callbacks=[ProgressWidget(self.progress)],
                cancel=cancel,
            )
        except training.Cancelled:
            if not self._worker.newer:
                self._say(f"Stopped. Move a control to go on. {self._last_words()}")
            raise
        finally:
            self._busy(False)

    def _show(self, settings: Settings) -> None:
        """Paint the curve, the plane and the answers."""
        curve = self._curve_info(settings)
        self._paint(self._curve, plots.curve_traces(curve), **plots.curve_layout(curve))
        plane, said = self._plane_info(settings), self._answers_info(settings)
        self._paint(self._said, plots.answers_traces(said), **plots.answers_layout(said))
        self._paint(self._plane, plots.students_traces(plane), **plots.students_layout(plane))

    def _idle(self, cancel: Event) -> bool:
        """Train the next temperatures of the curve, coarse first; then other widths, for the plane."""
        settings = self._answered
        if settings is None or self._halted:
            return False
        if cancel.wait(max(0.0, self._answered_at + REST_SECONDS - time.monotonic())):
            raise training.Cancelled("a hand is moving the controls.")
        temperatures, widths = self._missing(settings)
        at_once = max(1, CHUNK // len(settings.seeds))
        if temperatures:
            self._students.train(temperatures[:at_once], settings.seeds, cancel=cancel)
        elif widths:
            self._students.train(widths[:2], settings.seeds, cancel=cancel)
        temperatures, widths = self._missing(settings)
        self._show(settings)
        left = len(temperatures) + len({each.width for each in widths})
        total = len(CURVE) + len(HIDDEN)
        self.sweep_note.value = (
            f"curves{' stopped' * self._halted}: {total - left} of {total} points"
            if left
            else f"curves complete: {total} points"
        )
        if not self._worker.asked:
            self.stop_button.disabled = left == 0 or self._halted
        return left > 0

    def _missing(self, settings: Settings) -> tuple[list[Recipe], list[Recipe]]:
        """What the curve and the plane still need: temperatures; pairs of distilled and hard students by width."""
        recipe = settings.recipe
        temperatures = [replace(recipe, temperature=t) for t in COARSE_FIRST]
        widths = [each for width in HIDDEN for each in _pair(replace(recipe, width=width))]
        missing = [
            [each for each in recipes if not self._students.trained(each, settings.seeds)]
            for recipes in (temperatures, widths)
        ]
        return missing[0], missing[1]

    def _pin(self, name: str | None, replace: bool, settings: Settings | None, cancel: Event) -> None:
        if settings is None:
            raise RuntimeError("nothing to pin yet: wait for the first answer.")
        self._train(settings, cancel)
        self._answered = settings
        group = self._known(settings)
        assert group is not None
        recipe = settings.recipe
        record = {
            **{"temperature": recipe.temperature, "alpha": recipe.alpha, "width": recipe.width},
            **{"epochs": recipe.epochs, "transfer": self._named(recipe.transfer), "seed": group.median},
        }
        name = name or self._pin_name(recipe, group.median)
        profile = measure.profile(self._students.model(recipe, group.median), self.dataset.validation)
        self._keep_pin(name, profile, "distillation", record, replace)
        self._show(settings)
        self._say(
            f"Pinned the median student as <b>{html.escape(name)}</b>, with its own interval: "
            f"{profile.accuracy.percent}. {self._in_words(settings)}"
        )

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _known(self, settings: Settings) -> Group | None:
        return self._students.known(settings.recipe, settings.seeds)

    def _groups(self, settings: Settings) -> tuple[Group, ...]:
        found = (self._students.known(replace(settings.recipe, temperature=t), settings.seeds) for t in TEMPERATURES)
        return tuple(group for group in found if group is not None)

    def _curve_info(self, settings: Settings) -> plots.CurveInfo:
        hard, smoothed = (self._students.known(rival, settings.seeds) for rival in _rivals(settings.recipe))
        ends = (TEMPERATURES[0], TEMPERATURES[-1])
        groups, chosen = self._groups(settings), self._known(settings)
        return plots.curve_info(groups, chosen, (hard, smoothed), self._teacher, ends)

    def _soft_info(self, settings: Settings) -> plots.SoftInfo:
        split = self.dataset.validation
        row = int((split.labels == settings.label).nonzero()[settings.image])
        logits = self._students.logits[row]  # [C]
        names = self.dataset.class_names
        return plots.soft_info(logits, settings.recipe.temperature, settings.label, split.inputs[row], names)

    def _plane_info(self, settings: Settings) -> plots.StudentsInfo:
        def by_width(label: str, way: Callable[[Recipe], Recipe]) -> Line:
            recipes = [way(replace(settings.recipe, width=width)) for width in HIDDEN]
            groups = [self._students.known(recipe, settings.seeds) for recipe in recipes]
            return line(label, "nonzeros", [self._entry(group) for group in groups if group is not None])

        here = self._known(settings)
        return plots.StudentsInfo(
            distilled=by_width("distilled", lambda recipe: recipe),
            hard=by_width("hard labels", lambda recipe: recipe.hard),
            teacher=line("teacher", "nonzeros", [(self._teacher_size, self._teacher, 0.0)], floor=1),
            here=line("here", "nonzeros", [] if here is None else [self._entry(here)]),
            pins=self._pin_line("nonzeros", floor=1),
            pin_names=self._pin_names,
        )

    def _entry(self, group: Group) -> tuple[float, Estimate, float]:
        size = self._students.n_parameters(group.recipe.width)
        return size, group.accuracy, float(group.recipe.width)

    def _answers_info(self, settings: Settings) -> plots.AnswersInfo:
        hard = self._students.known(settings.recipe.hard, settings.seeds)
        seen = bool((settings.recipe.transfer.labels == settings.label).any())
        return plots.answers_info(self._known(settings), hard, settings.label, seen, self.dataset.class_names)

    def _in_words(self, settings: Settings) -> str:
        """The status line: what the students reached, beside their rivals and their teacher."""
        recipe, group = settings.recipe, self._known(settings)
        hard, smoothed = (self._students.known(rival, settings.seeds) for rival in _rivals(recipe))
        assert group is not None and hard is not None and smoothed is not None
        gain = Estimate.from_pairs(group.accuracies, hard.accuracies)
        size = self._students.n_parameters(recipe.width)
        kind = f"{recipe.width} hidden units" if recipe.width else "one linear layer"
        info = self._soft_info(settings)
        name = html.escape(self.dataset.class_names[settings.label])
        parts = [
            f"<b>T = {recipe.temperature:g}, alpha {recipe.alpha:g}</b>: students of {kind} ({size:,} parameters) "
            f"reach <b>{group.accuracy.percent}</b>, mean of {len(settings.seeds)} seeds, 95 % interval over seeds, "
            f"on the same {len(self.dataset.validation):,} samples.",
            f"On hard labels {hard.accuracy.percent}, with label smoothing {smoothed.accuracy.percent}; the teacher "
            f"({self._teacher_size:,} parameters) {self._teacher.percent}, over samples.",
            f"Gain over hard labels, seed by seed: <b>{100 * gain.value:+.1f} points</b> "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}).",
            f"Of this {name} the teacher says: {html.escape(plots.most_likely(info.soft, info.names))}.",
        ]
        if not bool((recipe.transfer.labels == settings.label).any()):
            right, without = (each.answers_to(settings.label)[settings.label] for each in (group, hard))
            parts.append(
                f"The students never saw a {name}; they name {100 * right.value:.0f} % of them right "
                f"(hard labels: {100 * without.value:.0f} %)."
            )
        return " ".join([*parts, *self._trouble])

    def _last_words(self) -> str:
        if self._answered is None:
            return "There is no answer yet."
        return f"The picture shows the last answer: {self._in_words(self._answered)}"

    def _named(self, transfer: Split) -> str:
        name, label = next(key for key, split in self._made.items() if split is transfer)
        return name if label is None else f"{name} {self.dataset.class_names[label]}"

    def _pin_name(self, recipe: Recipe, seed: int) -> str:
        kind = f"MLP {recipe.width}" if recipe.width else "linear"
        parts = [f"{kind} distilled", f"T {recipe.temperature:g}", f"alpha {recipe.alpha:g}"]
        parts += [self._named(recipe.transfer), f"{recipe.epochs} epochs", f"seed {seed}"]
        return ", ".join(parts)

    def _still(self) -> bytes:
        return still.curve_png(self._curve_info(self.settings), plots.here_point(self._known(self.settings)))


UNSEEN = "without the class"


def _transfer_sets(dataset: Dataset) -> dict[str, Callable[[int], Split]]:
    """The transfer sets by name; each takes the chosen class."""
    train = dataset.train
    some = min(LABELLED * dataset.n_classes, len(train))
    sets: dict[str, Callable[[int], Split]] = {
        "few labels": lambda label: distill.partly_labelled(train, some),
        "all labels": lambda label: train,
        "few images": lambda label: distill.few(train, some),
    }
    if train.inputs.ndim == 4 and min(train.inputs.shape[2:]) > 1:
        sets["and shifted"] = lambda label: distill.shifted(train)
    if dataset.n_classes > 2:
        sets[UNSEEN] = lambda label: distill.without_class(train, label)
    return sets


def _rivals(recipe: Recipe) -> tuple[Recipe, Recipe]:
    return recipe.hard, recipe.smoothed


def _pair(recipe: Recipe) -> tuple[Recipe, Recipe]:
    return recipe, recipe.hard
