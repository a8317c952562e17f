"""The suspects explorer: labels are flipped, and weights of the samples, learned by their slope, find out which."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks, measure, models, training
from kit.compress.line import Point, score
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Control, Row
from kit.measure import Estimate
from kit.plots import suspects as plots
from kit.plots.curves import Panel, counted
from kit.search import gradient
from kit.search.gradient import Cleaned, Implicit, State, Unrolled, Way
from kit.search.gradient.labels import To

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
STEPS = 12  # of the outer loop
WAYS: dict[str, Way] = {"unrolled": Unrolled(10), "implicit": Implicit(10, "neumann")}
RATE = 0.3  # of each training
TRAINING: dict[str, Any] = {"lr": RATE, "weight_decay": 1e-4}  # little of it, so that wrong labels are learned, too
TRAINED = 100  # steps of each training
SECONDS = 30.0  # for all outer steps
LADDER = (2000, 1000, 500, 250)  # training samples, where all are too many


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    share: float
    to: To
    step: int
    way: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """What is learned so far, and what it is compared with.

    Attributes:
        settings: of the controls.
        dataset: with wrong labels.
        flipped: which they are, bool [n].
        record: weights before the first step, and after each.
        points: the training with each of these weights, measured on the held-out half.
        losses: of each training sample after the training on all labels: the rival's suspicion, [n].
        rivals: trainings without the samples of the greatest losses, and on clean labels alone, by `plots.ROWS`.
    """

    settings: Settings
    dataset: Dataset
    flipped: Tensor
    record: tuple[Cleaned, ...]
    points: tuple[Point, ...]
    losses: Tensor
    rivals: Mapping[str, Point]

    @property
    def at(self) -> int:
        """The step that is shown: the slider's, or the last one so far."""
        return min(self.settings.step, len(self.record) - 1)

    @property
    def cleaned(self) -> Cleaned:
        """The weights that are shown."""
        return self.record[self.at]

    @property
    def suspicions(self) -> dict[str, Tensor]:
        """Of each training sample, by `plots.RANKINGS`."""
        return dict(zip(plots.RANKINGS, (-self.cleaned.weights, self.losses), strict=True))

    @property
    def areas(self) -> dict[str, Estimate]:
        """Under both ROC curves; none where too few labels are flipped."""
        enough = min(int(self.flipped.sum()), int((~self.flipped).sum())) > 1
        return {name: gradient.auc(each, self.flipped) for name, each in self.suspicions.items() if enough}

    @property
    def accuracies(self) -> dict[str, Estimate]:
        """On the held-out half of validation, by `plots.ROWS`."""
        own = zip(plots.ROWS, [*self.points[:1], *self.points[self.at :][:1]], strict=False)
        return {name: point.accuracy for name, point in {**dict(own), **self.rivals}.items()}

    @property
    def found(self) -> int:
        """How many of the `plots.SUSPECTS` most suspect samples are flipped."""
        return int(self.flipped[self.cleaned.suspects[: plots.SUSPECTS]].sum())


class SuspectsExplorer(Explorer[Settings, Answer]):
    """Flip some labels; sample weights, learned by their slope, tell which, and a training with them is better for it.

    One half of the validation split gives the slopes, and so has to be right; the other half alone measures accuracy.
    Beside the weights stand the cheap rival, to suspect the samples of greatest loss, and what a training on clean
    labels alone would reach. For the accuracy of the rival, as many samples go as are flipped: more than it can know.

    Args:
        model: any `nn.Module` of linear, convolutional and normalisation layers; copied, and its weights drawn anew by
            the seed, since a trained model has seen the right labels.
        dataset: any `Dataset` whose samples it takes. Its labels count as right; with none flipped, the most suspect
            may be wrong in the data. Test is not read.
        share: of the training labels that are flipped to begin with, one of `SHARES`.
        steps: of each training, 1 or more.
        lr: learning rate of each training, 0.001 to 1; a bag of words, whose embeddings begin small, needs 1.
        seconds: for all outer steps. Where they would take longer on this machine there are fewer samples, and the
            words say so. None takes all.

    Controls: `share`, `to` ("any" other class, or "next": the wrong labels of a class agree), `step` (of the outer
    loop), `way` (to the slope), `seed` (of the flips, the halves and the first weights); buttons `reset_button`,
    `stop_button`. After `wait()`: `weights`, `flipped`, `areas`, `accuracies`, `found`. A stopped learning goes on at
    the next move.

    Raises:
        ValueError: a model that cannot be derived, samples that it cannot take, one class, a share that is no stop.
        TypeError: layers whose weights cannot be drawn, or an argument of another kind.
    """

    _settings, _first = Settings, ("weights",)
    _bright = ("weights", "roc", "worth", "suspects")  # nothing is dimmed: the figures follow the learning
    flipped: Tensor = of_answer("flipped", "Which training labels are wrong, bool [n] (waits for the answer).")
    weights: Tensor = of_answer("cleaned.weights", "The learned weight of each training sample, [n] (waits for it).")
    areas: Mapping[str, Estimate] = of_answer("areas", "Under both ROC curves, by their names (waits for them).")
    accuracies: Mapping[str, Estimate] = of_answer("accuracies", "On the held-out half, by name (waits for them).")
    found: int = of_answer("found", "How many of the 20 most suspect are flipped (waits for it).")

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        *,
        share: float = 0.2,
        steps: int = TRAINED,
        lr: float = RATE,
        seconds: float | None = SECONDS,
    ) -> None:
        training.check_fits(model, dataset)
        sizing.check_seconds(seconds)
        self._model = training.copy_of(model).eval()
        self._how = TRAINING | {"steps": checks.whole("steps", steps, 1), "lr": lr}
        self.dataset, self._sized = _sized(self._model, dataset, self._how, seconds)
        begin = Settings(share, "any", 0, "unrolled", 0)
        self._runs = {begin: _Run(self._model, self.dataset, self._how, begin)}  # it refuses what cannot be derived
        title = f"SuspectsExplorer: {type(model).__name__} on {dataset.name}"
        call: dict[str, Any] = {"share": share} | ({} if steps == TRAINED else {"steps": steps})
        call |= {} if lr == RATE else {"lr": lr}
        call |= {} if seconds == SECONDS else {"seconds": seconds}
        super().__init__(title, _table(share), (("model", "dataset"), call))
        self._move()

    def _run(self, settings: Settings) -> _Run:
        key = replace(settings, step=0)
        if key not in self._runs:
            self._runs[key] = _Run(self._model, self.dataset, self._how, settings)
        return self._runs[key]

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Learn what is missing, all steps of it: then the slider finds each."""
        run = self._run(settings)
        self._busy(len(run.record) <= STEPS)
        while len(run.record) <= STEPS:
            run.learn(cancel)
            self._progress(len(run.record) / (STEPS + 1))
            self._show(run.answer(settings))
        return run.answer(settings)

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        if answer is None:
            none = torch.zeros(0)
            nothing = Cleaned(none, none, none, 0.0, State({}, {}), 0)
            answer = Answer(self.settings, self.dataset, none.bool(), (nothing,), (), none, {})
        return {
            "weights": lambda: plots.weights_panel(answer.cleaned.weights, answer.flipped),
            "roc": lambda: plots.roc_panel(answer.suspicions, answer.flipped, answer.areas),
            "worth": lambda: plots.worth_panel(answer.accuracies),
            "suspects": lambda: plots.suspects_panel(answer.dataset, self.dataset.train.labels, answer.cleaned),
        }

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Another seed measures on other images."""
        same = kept.settings.seed == answer.settings.seed
        return _gain(answer.points[answer.at], kept.points[kept.at]) if same else None

    def _words(self, answer: Answer) -> str:
        said, noun, n, wrong = answer.settings, self.dataset.noun, len(answer.flipped), int(answer.flipped.sum())
        low, areas, right = answer.cleaned.weights < 0.5, answer.areas, answer.accuracies
        kind = "any other class" if said.to == "any" else "the next class"
        parts = [f"<b>{wrong} of {n:,} training labels flipped</b> to {kind}; {counted(answer.at, 'step')}."]
        if areas:
            weights, losses = (areas[name].percent for name in plots.RANKINGS)
            parts.append(f"AUC of the learned weights <b>{weights}</b>, of the loss ranking {losses}.")
        if wrong:
            parts.append(
                f"Of the {min(plots.SUSPECTS, n)} most suspect <b>{answer.found}</b> are flipped; of the "
                f"{int(low.sum())} that weigh less than ½, {int((low & answer.flipped).sum())}."
            )
        else:
            parts.append("<b>The most suspect may be wrong in the data itself.</b>")
        rows = [f"{name} <b>{right[name].percent}</b>" for name in plots.ROWS]
        where = f"on the {right['all labels'].n} {noun} of validation that gave no slopes"
        parts.append(f"Accuracy {where}: {', '.join(rows)}; 95 % intervals.")
        if answer.at:
            gain = _gain(answer.points[answer.at], answer.points[0]).points
            parts.append(f"Over all labels <b>{gain}</b>, paired.")
        if right["clean labels"].low <= (chance := training.chance(self.dataset.validation.labels)):
            parts.append(f"<b>Even on clean labels it only guesses: the interval holds {100 * chance:.0f} %.</b>")
        return " ".join([*parts, html.escape(self._sized)]).strip()


class _Run:
    """One flipping, and the learning on it, which goes on where it was stopped."""

    def __init__(self, model: nn.Module, dataset: Dataset, how: Mapping[str, Any], settings: Settings) -> None:
        self._model = training.copy_of(model)
        models.initialise(self._model, settings.seed)
        noisy, self._flipped = gradient.flip(dataset, settings.share, settings.seed, to=settings.to)
        self._dataset, self._held_out = gradient.halves(noisy, settings.seed)
        self._problem = gradient.network(self._model, self._dataset, ["sample_weight"], **how)
        self._way, self._losses = WAYS[settings.way], torch.zeros(0)
        self._rivals: dict[str, Point] = {}
        self._points: list[Point] = []
        self.record: list[Cleaned] = []

    def learn(self, cancel: Event) -> None:
        """Take one more step; before the first one, train the rivals."""
        last = self.record[-1] if self.record else None
        cleaned = next(gradient.clean(self._problem, self._way, after=last, cancel=cancel))
        model, point = self._measured(cleaned.state, cancel)
        if not self.record:
            self._losses = gradient.sample_losses(model, self._dataset.train)
            kept = torch.ones_like(cleaned.weights)
            kept[self._losses.topk(int(self._flipped.sum())).indices] = 0
            for name, weights in zip(plots.ROWS[2:], (kept, (~self._flipped).to(kept)), strict=True):
                path = self._problem.path({"sample_weight": weights}, cancel=cancel)
                self._rivals[name] = self._measured(path[-1], cancel)[1]
        self._points.append(point)
        self.record.append(replace(cleaned, state=State({}, {})))  # those of a large model would fill the memory

    def answer(self, settings: Settings) -> Answer:
        """What there is by now."""
        record, points = tuple(self.record), tuple(self._points)
        return Answer(settings, self._dataset, self._flipped, record, points, self._losses, dict(self._rivals))

    def _measured(self, state: State, cancel: Event) -> tuple[nn.Module, Point]:
        model = gradient.trained(self._model, state)
        return model, score(model, self._held_out, cancel=cancel)


def _gain(point: Point, over: Point) -> Estimate:
    return Estimate.from_pairs(point.right.double().tolist(), over.right.double().tolist())


def _sized(model: nn.Module, dataset: Dataset, how: Mapping[str, Any], seconds: float | None) -> tuple[Dataset, str]:
    """As much of the data set as fits, and in words how it was sized."""
    n, steps = len(dataset.train), how["steps"]
    slopes = (STEPS + 1) * (steps + 20) + 2 * steps  # a product counts 2; the rivals
    if sizing.sure(3 * slopes * n * measure.flops(model, dataset.train.inputs), seconds):
        return dataset, ""
    part = dataset.part(LADDER[-1])
    problem, began = gradient.network(model, part, ["sample_weight"], **{**how, "steps": 2}), time.perf_counter()
    problem.path(problem.hyper)
    sample = (time.perf_counter() - began) / 2 / len(part.train)
    count = sizing.fullest([n, *LADDER], lambda count: slopes * sample * min(count, n), seconds)
    if count >= n:
        return dataset, ""
    return dataset.part(count), sizing.sentence(seconds, [f"{count:,} of {n:,} training {dataset.noun}"])


def _table(share: float) -> list[Row]:
    row = partial(Control, section="06, section 8")
    flipped = "Share of the training labels that are made wrong; validation stays right."
    to = "Wrong labels are of any other class; or of the next one, six in ten of a class: then they agree."
    step = "Step of the outer loop: each trains anew and moves all weights along their slope."
    way = "How the slope is taken: back through the last 10 steps of training; or 10 terms of the Neumann series."
    seed = "Decides which labels are flipped, how validation is halved, and the first weights."
    return [
        row("share", "stops", share, flipped, SHARES, "labels flipped", "labels", "%", _percent, True),
        row("to", "toggle", "any", to, {"any class": "any", "next class": "next"}, group="labels"),
        row("seed", "number", 0, seed, (0, 9999), group="labels"),
        row("step", "stops", STEPS, step, tuple(range(STEPS + 1)), "outer step", "learning", wide=True),
        row("way", "toggle", "unrolled", way, tuple(WAYS), group="learning"),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
