"""The distillation explorer: temperature, alpha, width, transfer set; every move trains a cohort of students."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event

from torch import Tensor, nn

from kit import distill, measure
from kit.data import Dataset, Split
from kit.distill import Group, Recipe, Students
from kit.explorers.base import of_answer
from kit.explorers.controls import Action, Control, Row
from kit.explorers.layout import ProgressCallback
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.measure import Estimate, Profile
from kit.plots import distill as plots
from kit.plots import style
from kit.plots.curves import Curve, Panel

TEMPERATURES: tuple[float, ...] = (0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16, 22, 32, 45, 64)
COARSE_FIRST = (4, 64, 0.5, 16, 1, 8, 2, 32)  # trained without being asked for; the curve has its shape early
ALPHAS: tuple[float, ...] = tuple(step / 10 for step in range(11))
WIDTHS: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128)
HIDDEN = WIDTHS[1:]  # the plane's curve; a linear student is another kind of model
SEEDS: tuple[int, ...] = (4, 8, 16, 32, 64)
EPOCHS: tuple[int, ...] = (5, 10, 20, 40, 80)

CHUNK = 32  # students that one piece of background work trains: few enough that a move waits for a moment only
LABELLED = 10  # labels a class, where most samples have none
UNSEEN = "without the class"


@dataclass(frozen=True)
class Settings:
    """What the controls say; `transfer` is the name of the recipe's transfer set."""

    recipe: Recipe
    transfer: str
    seeds: tuple[int, ...]
    label: int
    image: int

    @property
    def seen(self) -> bool:
        """Whether samples of the chosen class are in the transfer set."""
        return bool((self.recipe.transfer.labels == self.label).any())


@dataclass(frozen=True)
class Answer:
    """The students that the settings mean, and their rivals: same seeds and steps."""

    settings: Settings
    group: Group
    hard: Group
    smoothed: Group

    @property
    def gain(self) -> Estimate:
        """Accuracy over that of hard labels, paired by seed."""
        return Estimate.from_pairs(self.group.accuracies, self.hard.accuracies)


class DistillationExplorer(PinningExplorer[Settings, Answer]):
    """Distil a teacher into cohorts of small students by moving sliders; each move trains students again.

    Args:
        teacher: any trained `nn.Module`; not changed.
        dataset: any `Dataset` whose samples the teacher takes. Validation measures, test is not read.
        temperature: where the temperature begins, one of `TEMPERATURES`: 0.5 to 64, two a doubling.
        transfer: which transfer set to begin with: "few labels" (ten a class are labelled, all samples are there), "all
            labels", "few images" (the first ten a class alone), "and shifted" (images only), "without the class".
        width: hidden units to begin with, one of `WIDTHS` (0, 4, 8 ... 128); 0 is a single linear layer.

    Controls, each with its value to read or set from code: `temperature`, `alpha`, `width`, `transfer`, `digit`,
    `image`, `seeds`, `epochs`, `seed` (the first one), `pin_name`; buttons `new_seeds_button`, `pin_button`,
    `reset_button`, `stop_button`. After `wait()`: `group` (the students of the chosen temperature), `hard` and
    `smoothed` (their rivals), `gain` (over hard labels), `model` and `profile` (of the median student). After
    `wait_curves()` the curves are complete: eight temperatures, six widths.

    Raises:
        ValueError: samples that the teacher cannot take, other classes, answers of NaN or infinity, or a start that is
            no stop of its slider.
        TypeError: a teacher that is no module, or data that are no `Dataset`.
    """

    _first = ("soft",)
    _bright = ("soft",)
    _curves = ("curve", "plane")
    _rest = 0.3  # while a hand moves, the page is left to it
    _status_height = "9em"  # for the words about a class never seen
    _technique = "distillation"
    group: Group = of_answer("group", "The students of the latest answer (waits for it).")
    hard: Group = of_answer("hard", "Their rivals on hard labels, same seeds and steps.")
    smoothed: Group = of_answer("smoothed", "Their rivals with label smoothing.")
    gain: Estimate = of_answer("gain", "Accuracy over that of hard labels, paired by seed.")

    def __init__(
        self,
        teacher: nn.Module,
        dataset: Dataset,
        *,
        temperature: float = 4,
        transfer: str = "few labels",
        width: int = 32,
    ) -> None:
        self.dataset = dataset
        self._students = Students(teacher, dataset)
        right = self._students.logits.argmax(1) == dataset.validation.labels  # [n]
        self._teacher = Estimate.from_counts(int(right.sum()), len(right))
        self._teacher_size = measure.nonzeros(teacher)
        self.transfers = _transfer_sets(dataset)
        self.here, self.bars = Mark("point"), Mark("bars", colour=style.LOOKS["distilled"].colour, figure=1)
        table = _table(dataset, temperature, list(self.transfers), transfer, width)
        call = ("teacher", "dataset"), {"temperature": temperature, "transfer": transfer, "width": width}
        title = f"DistillationExplorer: {type(teacher).__name__} on {dataset.name}"
        super().__init__(title, table, call, marks=[self.here, self.bars])

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        name, label, first = self.transfer.value, self.digit.value, int(self.seed.value)
        how = self.temperature.value, self.alpha.value, self.width.value, self.epochs.value
        recipe = Recipe(self.transfers[name](label), *how)
        return Settings(recipe, name, tuple(range(first, first + self.seeds.value)), label, self.image.value)

    @property
    def model(self) -> nn.Module:
        """The median student of the latest answer."""
        return self._students.model(self.group.recipe, self.group.median)

    @property
    def profile(self) -> Profile:
        """Everything measured about the median student on the validation split, latency at batch 1."""
        return measure.profile(self.model, self.dataset.validation)

    def groups(self, settings: Settings | None = None) -> tuple[Group, ...]:
        """What is trained so far of the curve over temperature, ascending (by default of what the controls say)."""
        settings = settings or self.settings
        return self._known((replace(settings.recipe, temperature=each) for each in TEMPERATURES), settings)

    def new_seeds(self) -> None:
        """Train everything again with seeds that were not used before."""
        self.seed.value = (self.seed.value + SEEDS[-1]) % (self.seed.max + 1)  # past the largest group

    def _preview(self, settings: Settings) -> None:
        self.bars.values = self._softened(settings)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Show another sample at once; then train the chosen students and their rivals, as one cohort."""
        shown = None if self._answered is None else self._answered.settings
        if shown is None or (shown.label, shown.image) != (settings.label, settings.image):
            self._paint("soft", self._soft(settings))
        recipes = [settings.recipe, settings.recipe.hard, settings.recipe.smoothed]
        self._busy(not all(self._students.trained(each, settings.seeds) for each in recipes))
        bar = ProgressCallback(self.progress)
        return Answer(settings, *self._students.train(recipes, settings.seeds, callbacks=[bar], cancel=cancel))

    def _missing(self, answer: Answer) -> tuple[Sequence[tuple[Recipe, ...]], int]:
        """Temperatures of the curve, coarse first; then widths of the plane, each distilled and on hard labels."""
        recipe, seeds = answer.settings.recipe, answer.settings.seeds
        widths = [replace(recipe, width=width) for width in HIDDEN]
        wanted: list[tuple[Recipe, ...]] = [(replace(recipe, temperature=each),) for each in COARSE_FIRST]
        wanted += [(each, each.hard) for each in widths]
        missing = [piece for piece in wanted if not all(self._students.trained(each, seeds) for each in piece)]
        return missing, len(wanted)

    def _grow(self, answer: Answer, missing: Sequence[tuple[Recipe, ...]], cancel: Event) -> None:
        """Train the next temperatures, as many as make one small cohort; or the next width."""
        seeds, width = answer.settings.seeds, missing[0][0].width
        alike = [piece for piece in missing if piece[0].width == width][: max(1, CHUNK // len(seeds))]
        self._students.train([recipe for piece in alike for recipe in piece], seeds, cancel=cancel)

    def _pin(self, answer: Answer) -> Pin:
        settings, recipe, seed = answer.settings, answer.settings.recipe, answer.group.median
        transfer = settings.transfer + f" {self.dataset.class_names[settings.label]}" * (settings.transfer == UNSEEN)
        kind = f"MLP {recipe.width}" if recipe.width else "linear"
        name = f"{kind} distilled, T {recipe.temperature:g}, alpha {recipe.alpha:g}, {transfer}"
        record = {each: getattr(recipe, each) for each in ("temperature", "alpha", "width", "epochs")}
        record |= {"transfer": transfer, "seed": seed}
        profile = measure.profile(self._students.model(recipe, seed), self.dataset.validation)
        return Pin(f"{name}, {recipe.epochs} epochs, seed {seed}", profile, record, "the median student")

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings = self.settings if answer is None else answer.settings
        chosen = () if answer is None else (answer.group, answer.hard, answer.smoothed)
        names, ends = self.dataset.class_names, (TEMPERATURES[0], TEMPERATURES[-1])
        return {
            "curve": lambda: plots.curve_panel(self.groups(settings), chosen, self._teacher, ends),
            "soft": lambda: self._soft(settings),
            "plane": lambda: self._plane(settings, chosen[:1]),
            "answers": lambda: plots.answers_panel(chosen, settings.label, settings.seen, names),
        }

    def _known(self, recipes: Iterable[Recipe], settings: Settings) -> tuple[Group, ...]:
        return tuple(filter(None, (self._students.known(recipe, settings.seeds) for recipe in recipes)))

    def _sample(self, settings: Settings) -> tuple[Tensor, Tensor]:
        """The chosen sample, and what the teacher says of it: logits, [C]."""
        split = self.dataset.validation
        row = int((split.labels == settings.label).nonzero()[settings.image])
        return split.inputs[row], self._students.logits[row]

    def _softened(self, settings: Settings) -> list[float]:
        return [float(share) for share in distill.soften(self._sample(settings)[1], settings.recipe.temperature)]

    def _soft(self, settings: Settings) -> Panel:
        sample, logits = self._sample(settings)
        return plots.soft_panel(logits, settings.label, sample, self.dataset.class_names)

    def _plane(self, settings: Settings, chosen: Sequence[Group]) -> Panel:
        def curve(label: str, groups: Sequence[Group]) -> Curve:
            size = self._students.n_parameters
            return Curve.of(label, [(size(group.recipe.width), group.accuracy) for group in groups])

        widths = [replace(settings.recipe, width=width) for width in HIDDEN]
        return plots.plane_panel(
            distilled=curve("distilled", self._known(widths, settings)),
            hard=curve("hard labels", self._known([recipe.hard for recipe in widths], settings)),
            teacher=Curve.of("teacher", [(self._teacher_size or 1, self._teacher)]),  # a log axis has no 0
            here=curve("you are here", chosen),
            pins=self._pin_curve("nonzeros", floor=1),
            pin_names=self._pin_names,
        )

    def _draw_marks(self, answer: Answer) -> None:
        here = Curve.of("here", [(answer.settings.recipe.temperature, answer.group.accuracy)])
        self.here.values = [each[0] for each in here[1:]]
        if not self._worker.newer:  # the bars show already what a hand has moved to
            self._preview(answer.settings)

    def _words(self, answer: Answer) -> str:
        settings, group, hard, gain = answer.settings, answer.group, answer.hard, answer.gain
        recipe, label, size = settings.recipe, settings.label, self._students.n_parameters(settings.recipe.width)
        kind = f"{recipe.width} hidden units" if recipe.width else "one linear layer"
        name = html.escape(self.dataset.class_names[label])
        likeliest = html.escape(plots.most_likely(self._softened(settings), self.dataset.class_names))
        parts = [
            f"<b>T = {recipe.temperature:g}, alpha {recipe.alpha:g}</b>: students of {kind} ({size:,} parameters) "
            f"reach <b>{group.accuracy.percent}</b>, mean of {len(settings.seeds)} seeds, 95 % interval over seeds, "
            f"on the same {len(self.dataset.validation):,} samples.",
            f"On hard labels {hard.accuracy.percent}, with label smoothing {answer.smoothed.accuracy.percent}; the "
            f"teacher ({self._teacher_size:,} parameters) {self._teacher.percent}, over samples.",
            f"Gain over hard labels, seed by seed: <b>{100 * gain.value:+.1f} points</b> "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}).",
            f"Of this {name} the teacher says: {likeliest}.",
        ]
        rivals = ("distilled", group), ("on hard labels", hard), ("with label smoothing", answer.smoothed)
        diverged = [f"{each.diverged} {kind}" for kind, each in rivals if each.diverged]
        if diverged:
            parts.insert(0, f"<b>Students answer NaN or infinity</b>, and count as wrong there: {', '.join(diverged)}.")
        if not settings.seen:
            right, without = (f"{100 * each.answers_to(label)[label].value:.0f} %" for each in (group, hard))
            never = f"The students never saw a {name}; they name {right} of them right (hard labels: {without})."
            parts.append(never)
        return " ".join([*parts, *self._trouble])


def _table(dataset: Dataset, temperature: float, transfers: Sequence[str], transfer: str, width: int) -> list[Row]:
    counts = dataset.validation.labels.bincount(minlength=dataset.n_classes).tolist()
    classes = [(name, label) for label, name in enumerate(dataset.class_names) if counts[label]]
    images = range(min(filter(None, counts)))  # there is such an image of each class
    begin = classes[min(3, len(classes) - 1)][1]
    t_text, width_text = "T = {:g}".format, lambda stop: f"{stop:g}" if stop else "linear"
    t_help, width_help = "How soft the teacher's answers are.", "Hidden units of a student, or a single linear layer."
    return [
        Control("temperature", "stops", temperature, t_help, TEMPERATURES, group="student", text=t_text, wide=True),
        Control("alpha", "stops", 0.9, "Weight of the soft labels against hard ones.", ALPHAS, group="student"),
        Control("width", "stops", width, width_help, WIDTHS, group="student", unit="units", text=width_text),
        Control("transfer", "choice", transfer, "On which samples it meets its teacher.", transfers, group="student"),
        Control("digit", "choice", begin, "Whose answers are shown; the one left out.", classes, "class", "sample"),
        Control("image", "stops", 0, "Which sample of the class the teacher looks at.", images, group="sample"),
        Control("seeds", "stops", 8, "Students that are trained for one point.", SEEDS, group="cohort"),
        Control("epochs", "stops", 20, "Passes over the transfer set.", EPOCHS, group="cohort", unit="epochs"),
        Control("seed", "number", 0, "First seed of the students.", (0, 999_999), "first seed", "cohort"),
        Action("new_seeds", "New seeds", "random", "Train everything again with seeds that were not used before."),
        *PIN_ROWS,
    ]


def _transfer_sets(dataset: Dataset) -> dict[str, Callable[[int], Split]]:
    """The transfer sets by name; each takes the chosen class. Made once: what was trained on a set is known by it."""
    train = dataset.train
    some = min(LABELLED * dataset.n_classes, len(train))

    def one(make: Callable[[], Split]) -> Callable[[int], Split]:
        made = functools.cache(make)
        return lambda label: made()

    sets = {
        "few labels": one(lambda: distill.partly_labelled(train, some)),
        "all labels": one(lambda: train),
        "few images": one(lambda: distill.few(train, some)),
    }
    if train.inputs.ndim == 4 and min(train.inputs.shape[2:]) > 1:
        sets["and shifted"] = one(lambda: distill.shifted(train))
    if dataset.n_classes > 2:
        sets[UNSEEN] = functools.cache(lambda label: distill.without_class(train, label))
    return sets
