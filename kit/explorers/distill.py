"""The distillation explorer: temperature, alpha, width, transfer set; every move trains a cohort of students."""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, NamedTuple

from torch import Tensor, nn

from kit import checks, cohort, distill, measure, training
from kit.data import Dataset, Split
from kit.distill import Group, Recipe, Students
from kit.explorers import sizing
from kit.explorers.base import of_answer
from kit.explorers.controls import Action, Control, Row
from kit.explorers.layout import ProgressCallback
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.measure import Estimate, Profile
from kit.plots import distill as plots
from kit.plots import style
from kit.plots.curves import Curve, Panel, counted

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

SECONDS = 2.0  # for one move
RIVALS = 3  # students of a seed that a move trains: distilled, on hard labels, with label smoothing
LADDER = (  # seeds, epochs, samples: smaller from rung to rung, what matters least first
    (8, 20, math.inf),
    (8, 20, 4000),
    (8, 20, 2000),
    (8, 20, 1000),
    (8, 10, 1000),
    (8, 10, 500),
    (4, 10, 500),
    (4, 5, 500),
    (4, 5, 200),
)


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

    Students are MLPs, or bags of words (`models.BagOfWords`) where the data set is of texts.

    Args:
        teacher: any trained `nn.Module`; not changed.
        dataset: any `Dataset` whose samples the teacher takes. Validation measures, test is not read.
        temperature: where the temperature begins, one of `TEMPERATURES`: 0.5 to 64, two a doubling.
        transfer: which transfer set to begin with: "few labels" (ten a class are labelled, all samples are there), "all
            labels", "few images" (the first ten a class alone, named by `Dataset.noun`), "and shifted" (images only),
            "and thinned" (texts only), "without the class".
        width: hidden units to begin with, one of `WIDTHS` (0, 4, 8 ... 128); 0 is a single linear layer. For texts
            numbers a token, 4 or more.
        seeds: students a point to begin with, one of `SEEDS`; 8 if there is time.
        epochs: to begin with, one of `EPOCHS`; 20 if there is time.
        samples: of the train split that transfer sets are made of, and as large a share of the validation split to
            measure on; all of them if there is time.
        seconds: for one move. Where the students would take longer on this machine, what of `seeds`, `epochs` and
            `samples` is left open is made smaller, and the words say so. None takes all.

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
        seeds: int | None = None,
        epochs: int | None = None,
        samples: int | None = None,
        seconds: float | None = SECONDS,
    ) -> None:
        asked = {"seeds": seeds, "epochs": epochs, "samples": samples}
        plan, also, self._sized = _sized(teacher, dataset, width, asked, seconds)
        self.dataset, self._part = dataset, dataset.part(plan.samples)
        self._students = Students(teacher, self._part)
        right = self._students.logits.argmax(1) == self._part.validation.labels  # [n]
        self._teacher = Estimate.from_counts(int(right.sum()), len(right))
        self._teacher_size = measure.nonzeros(teacher)
        self.transfers = _transfer_sets(self._part)
        self.here, self.bars = Mark("point"), Mark("bars", colour=style.LOOKS["distilled"].colour, figure=1)
        table = _table(self._part, temperature, list(self.transfers), transfer, width, plan)
        call = ("teacher", "dataset"), {"temperature": temperature, "transfer": transfer, "width": width, **also}
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
        return self._model(self._latest())

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
        kind = "linear" if not recipe.width else f"{'MLP' if self.dataset.tokens is None else 'bag'} {recipe.width}"
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
            "answers": lambda: plots.answers_panel(chosen, settings.label, settings.seen, names, self.dataset.noun),
        }

    def _known(self, recipes: Iterable[Recipe], settings: Settings) -> tuple[Group, ...]:
        return tuple(filter(None, (self._students.known(recipe, settings.seeds) for recipe in recipes)))

    def _sample(self, settings: Settings) -> tuple[Tensor, Tensor]:
        """The chosen sample, and what the teacher says of it: logits, [C]."""
        split = self._part.validation
        row = int((split.labels == settings.label).nonzero()[settings.image])
        return split.inputs[row], self._students.logits[row]

    def _kind(self, width: int) -> str:
        many = f"{width} {'hidden units' if self.dataset.tokens is None else 'numbers a token'}"
        return many if width else "one linear layer"

    def _softened(self, settings: Settings) -> list[float]:
        return [float(share) for share in distill.soften(self._sample(settings)[1], settings.recipe.temperature)]

    def _text(self, settings: Settings) -> str:
        """What the chosen text says, as far as its tokens tell; nothing of other samples."""
        if self.dataset.tokens is None:
            return ""
        return f' ("{html.escape(self.dataset.tokens.decode(self._sample(settings)[0]))}")'

    def _soft(self, settings: Settings) -> Panel:
        sample, logits = self._sample(settings)
        return plots.soft_panel(logits, settings.label, sample, self.dataset.class_names)

    def _plane(self, settings: Settings, chosen: Sequence[Group]) -> Panel:
        def curve(label: str, groups: Sequence[Group]) -> Curve:
            size = self._students.n_parameters
            points = [(size(group.recipe.width), group.accuracy) for group in groups]
            return Curve.of(label, points, (self._kind(group.recipe.width) for group in groups))

        widths = [replace(settings.recipe, width=width) for width in HIDDEN]
        return plots.plane_panel(
            distilled=curve("distilled", self._known(widths, settings)),
            hard=curve("hard labels", self._known([recipe.hard for recipe in widths], settings)),
            teacher=Curve.of("teacher", [(self._teacher_size or 1, self._teacher)]),  # a log axis has no 0
            here=curve("you are here", chosen),
            pins=self._pin_curve("nonzeros", floor=1)._replace(said=tuple(self._pin_names)),
        )

    def _draw_marks(self, answer: Answer) -> None:
        self.here.values = self._here(answer, answer.settings)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        here = Curve.of("here", [(answer.settings.recipe.temperature, answer.group.accuracy)])
        return [each[0] for each in here[1:5]]

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Seed by seed, where the seeds are the same."""
        if kept.settings.seeds != answer.settings.seeds:
            return None
        return Estimate.from_pairs(answer.group.accuracies, kept.group.accuracies)

    def _model(self, answer: Answer) -> nn.Module:
        return self._students.model(answer.group.recipe, answer.group.median)

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point: of the curve to its temperature, of the plane to its width."""
        sizes = {float(self._students.n_parameters(width)): width for width in HIDDEN}
        if figure == "curve" and curve == "distilled":
            self.set(temperature=x)
        elif figure == "plane" and curve in ("distilled", "hard labels") and x in sizes:
            self.set(width=sizes[x])

    def _words(self, answer: Answer) -> str:
        settings, group, hard, gain = answer.settings, answer.group, answer.hard, answer.gain
        recipe, label, size = settings.recipe, settings.label, self._students.n_parameters(settings.recipe.width)
        kind = self._kind(recipe.width)
        name, noun = html.escape(self.dataset.class_names[label]), self.dataset.noun
        likeliest = html.escape(plots.most_likely(self._softened(settings), self.dataset.class_names))
        parts = [
            f"<b>T = {recipe.temperature:g}, alpha {recipe.alpha:g}</b>, {settings.transfer}, "
            f"{counted(recipe.epochs, 'epoch')}: students of {kind} ({size:,} parameters) "
            f"reach <b>{group.accuracy.percent}</b>, mean of {len(settings.seeds)} seeds, 95 % interval over seeds, "
            f"on the same {len(self._part.validation):,} {self.dataset.noun}.",
            f"On hard labels {hard.accuracy.percent}, with label smoothing {answer.smoothed.accuracy.percent}; the "
            f"teacher ({self._teacher_size:,} parameters) {self._teacher.percent}, over {noun}.",
            f"Gain over hard labels, seed by seed: <b>{100 * gain.value:+.1f} points</b> "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}).",
            f"Of this {name}{self._text(settings)} the teacher says: {likeliest}.",
        ]
        probabilities, guessing = training.are_probabilities(self._students.logits), training.chance(group.labels)
        if probabilities:
            flat = "its soft labels are too flat; leave out its softmax"
            parts.append(f"<b>The teacher answers probabilities, not logits: {flat}.</b>")
        if self._teacher.low <= guessing:
            parts.append(f"<b>The teacher only guesses: its interval holds chance ({100 * guessing:.0f} %).</b>")
        rivals = ("distilled", group), ("on hard labels", hard), ("with label smoothing", answer.smoothed)
        diverged = [f"{each.diverged} {kind}" for kind, each in rivals if each.diverged]
        if diverged:
            parts.insert(0, f"<b>Students answer NaN or infinity</b>, and count as wrong there: {', '.join(diverged)}.")
        if not settings.seen:
            right, without = (f"{100 * each.answers_to(label)[label].value:.0f} %" for each in (group, hard))
            never = f"The students never saw a {name}; they name {right} of them right (hard labels: {without})."
            parts.append(never)
        return " ".join([*parts, *[self._sized] * bool(self._sized), *self._trouble])


class Plan(NamedTuple):
    """How many students a point, how many epochs, and on how many samples."""

    seeds: int
    epochs: int
    samples: int


def _sized(
    teacher: nn.Module, dataset: Dataset, width: int, asked: Mapping[str, int | None], seconds: float | None
) -> tuple[Plan, dict[str, Any], str]:
    """The fullest plan whose moves take their time; the arguments that make it again; in words, how it was sized."""
    checks.instance("teacher", teacher, nn.Module, "a module")
    training.check_dataset(dataset)
    sizing.check_seconds(seconds)
    for name, value in asked.items():
        if value is not None:
            checks.whole(name, value, 1)
    given = {name: value for name, value in asked.items() if value is not None}
    everything = len(dataset.train)
    plans = [Plan(*rung)._replace(**given) for rung in LADDER]
    plans = [plan._replace(samples=int(min(plan.samples, everything))) for plan in plans]
    template = cohort.template(dataset, checks.whole("width", width, 0 if dataset.tokens is None else 1))
    of_student, of_teacher = 6 * measure.parameters(template), 2 * measure.parameters(teacher)
    with suppress(ValueError):  # of what cannot be counted, a weight is used once
        of_teacher = measure.flops(teacher, dataset.validation.inputs)

    def work(plan: Plan) -> float:
        students = RIVALS * plan.seeds * plan.epochs * plan.samples
        return students * of_student + sum(dataset.sizes_of(plan.samples)) * of_teacher

    plan = plans[0]
    if not sizing.sure(work(plan), seconds):
        speed = cohort.speed(template, dataset.train)
        plan = sizing.fullest(plans, lambda each: work(each) / speed, seconds)
    if plan == plans[0]:
        return plan, given | ({} if seconds == SECONDS else {"seconds": seconds}), ""
    parts = [counted(plan.seeds, "student"), counted(plan.epochs, "epoch")]
    if plan.samples < everything:
        parts.append(f"{plan.samples:,} of {everything:,} training {dataset.noun}")
    return plan, plan._asdict(), sizing.sentence(seconds, parts, " a move")


def _table(
    dataset: Dataset, temperature: float, transfers: Sequence[str], transfer: str, width: int, plan: Plan
) -> list[Row]:
    counts = dataset.validation.labels.bincount(minlength=dataset.n_classes).tolist()
    classes = [(name, label) for label, name in enumerate(dataset.class_names) if counts[label]]
    images = range(min(filter(None, counts)))  # there is such an image of each class
    begin = classes[min(3, len(classes) - 1)][1]
    image = {"images": "image", "texts": "text"}.get(dataset.noun, "sample")
    t_text, width_text = "T = {:g}".format, lambda stop: f"{stop:g}" if stop else "linear"
    t_help, width_help = "How soft the teacher's answers are.", "Hidden units of a student, or a single linear layer."
    if dataset.tokens is not None:
        width_help = "Numbers that a student, a bag of words, keeps of each token."
    return [
        Control(
            "temperature",
            "stops",
            temperature,
            t_help,
            TEMPERATURES,
            group="student",
            text=t_text,
            wide=True,
            section="02, section 1",
        ),
        Control(
            "alpha",
            "stops",
            0.9,
            "Weight of the soft labels against hard ones.",
            ALPHAS,
            group="student",
            section="02, section 2",
        ),
        Control(
            "width",
            "stops",
            width,
            width_help,
            WIDTHS if dataset.tokens is None else HIDDEN,
            group="student",
            unit="units" if dataset.tokens is None else "numbers",
            text=width_text,
            section="02, section 9",
        ),
        Control(
            "transfer",
            "choice",
            transfer,
            "On which samples it meets its teacher.",
            transfers,
            group="student",
            section="02, section 5",
        ),
        Control(
            "digit",
            "choice",
            begin,
            "Whose answers are shown; the one left out.",
            classes,
            "class",
            "sample",
            section="02, section 1",
        ),
        Control(
            "image",
            "stops",
            0,
            "Which sample of the class the teacher looks at.",
            images,
            image,
            "sample",
            section="02, section 1",
        ),
        Control(
            "seeds",
            "stops",
            plan.seeds,
            "Students that are trained for one point.",
            SEEDS,
            group="cohort",
            section="02, section 4",
        ),
        Control(
            "epochs",
            "stops",
            plan.epochs,
            "Passes over the transfer set.",
            EPOCHS,
            group="cohort",
            unit="epochs",
            section="02, section 8",
        ),
        Control(
            "seed",
            "number",
            0,
            "First seed of the students.",
            (0, 999_999),
            "first seed",
            "cohort",
            section="02, section 4",
        ),
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
        f"few {dataset.noun}": one(lambda: distill.few(train, some)),
    }
    if train.inputs.ndim == 4 and min(train.inputs.shape[2:]) > 1:
        sets["and shifted"] = one(lambda: distill.shifted(train))
    if dataset.tokens is not None:
        sets["and thinned"] = one(lambda: distill.thinned(train))
    if dataset.n_classes > 2:
        sets[UNSEEN] = functools.cache(lambda label: distill.without_class(train, label))
    return sets
