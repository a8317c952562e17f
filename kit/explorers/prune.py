"""The pruning explorer: what to remove, by which importance, how much; and what that costs and buys."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import starmap
from threading import Event
from typing import NamedTuple

import ipywidgets as widgets
from torch import nn

from kit import measure, training
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import BETWEEN_SECONDS, of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.layout import ProgressCallback
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, SIZE_CONTROL, Pin, PinningExplorer
from kit.measure import Estimate, Profile, SizeName
from kit.plots import prune as plots
from kit.plots.curves import SMALLEST, Curve, Panel, amount, counted
from kit.prune import IMPORTANCES, LEARNING_RATE, SCOPES, WHATS, Point, PruningMethod, Scope, Sizes, Sweep, What

# Forty stops, close together where the cliff is.
RATIOS: tuple[float, ...] = (
    *(round(0.05 * step, 3) for step in range(17)),
    *(0.825, 0.85, 0.875, *(round(0.90 + 0.01 * step, 3) for step in range(9)), 0.985, 0.99),
    *(round(0.99 + 0.001 * step, 3) for step in range(1, 10)),
)
COARSE_FIRST = sizing.coarse_first(RATIOS)

# What works better on its own: weights compare well across layers, channels of different layers do not.
USUAL_SCOPE: dict[What, Scope] = {"weights": "global", "channels": "layer"}

RATES: tuple[float, ...] = (1e-5, 3e-5, 5e-5, 1e-4, 3e-4, LEARNING_RATE, 3e-3, 1e-2, 3e-2, 0.1)


class Plan(NamedTuple):
    """How many ratios a curve has, and on how many validation samples each is measured; None is all of them."""

    ratios: int
    samples: int | None


SECONDS = 60.0  # for the curves
LADDER = (Plan(len(RATIOS), None), *starmap(Plan, ((40, 1000), (20, 1000), (20, 500), (10, 500), (10, 300), (5, 300))))
OPERATIONS = 100  # of a point for each parameter, about: it is copied, compared, counted, written and read
ENOUGH = 200  # samples, to say that a model only guesses
EXPLODED = 1.5  # times the loss of a guess

SLICE_SECONDS = 0.04  # a slice of the validation split should take about so long: the first answer's budget

_RENEW_HELP = "Measure the batch-norm statistics of the pruned model anew, on training samples without their labels."
RENEW = Control("renew", "check", False, _RENEW_HELP, label="Renew batch-norm statistics", group="prune")

LISTED = 3  # names of layers in a sentence

ORDER = {"magnitude": "smallest first", "taylor": "least effect on the loss first", "random": "at random"}


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: PruningMethod
    ratio: float
    size: SizeName


@dataclass(frozen=True)
class Answer:
    """Accuracy and sizes of the model that the settings mean; of a first slice of the data while it is not `whole`."""

    settings: Settings
    point: Point


class PruningExplorer(PinningExplorer[Settings, Answer]):
    """Prune a model by moving sliders: every move prunes it, measures it and draws it.

    Args:
        model: any `nn.Module` with a linear or convolutional layer; copied, never changed.
        dataset: any `Dataset` whose samples the model takes. Validation measures, train scores and fine-tunes, test is
            not read.
        ratio: where the ratio slider begins, one of `RATIOS`.
        what: what the explorer begins with, "weights" or "channels".
        seconds: for the curves. Where they would take longer on this machine, they have fewer ratios, each measured on
            fewer validation samples, and the words say so; what is chosen is always measured on all. None takes all.

    Controls, each with its value to read or set from code: `what`, `ratio`, `importance`, `scope`, `epochs` and `lr`
    (of fine-tuning), `renew` (shown for models with batch normalisation), `seed`, `size`, `pin_name`; buttons
    `pin_button`, `reset_button`, `stop_button`. After `wait()`: `model` (the pruned model), `point`, `profile` (its
    measurements). After `wait_curves()` the curves are complete.

    Raises:
        ValueError: nothing to prune, samples that the model cannot take, a ratio that is no stop.
    """

    _first = ("plane",)
    _curves = ("plane",)
    _technique = "pruning"
    point: Point = of_answer("point", "Accuracy and sizes of the latest answer (waits for it).")

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        *,
        ratio: float = 0.5,
        what: What = "weights",
        seconds: float | None = SECONDS,
    ) -> None:
        PruningMethod(what)  # refuses an unknown word
        sizing.check_seconds(seconds)
        training.check_fits(model, dataset)
        self.dataset, self._seconds, inputs = dataset, seconds, dataset.validation.inputs
        slice_size = training.batch_for(model, inputs, seconds=SLICE_SECONDS)
        measure.flops(model, inputs)  # the first count in a kernel loads much, which is not to be timed
        began = time.perf_counter()
        self._sweep = Sweep(model, dataset, slice_size=slice_size)
        # A point copies the model and counts it as the sweep has just done, and removes something before.
        self._point_seconds = 2 * (time.perf_counter() - began)
        self._sample_seconds = training.pace_of(model, inputs).rate(min(slice_size, len(inputs)))
        each = len(inputs) * self.dense.flops + OPERATIONS * self.dense.parameters
        self._sure = sizing.sure(2 * len(RATIOS) * each, seconds)
        self._failed: set[PruningMethod] = set()  # methods whose curve cannot be had
        self.here = Mark("point")
        title, call = f"PruningExplorer: {type(model).__name__} on {dataset.name}", {"ratio": ratio, "what": what}
        also = {} if seconds == SECONDS else {"seconds": seconds}
        super().__init__(title, _table(ratio, what), (("model", "dataset"), {**call, **also}), marks=[self.here])
        show_renew(self.renew, model)

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        parts = (getattr(self, each.name).value for each in fields(PruningMethod))
        return Settings(PruningMethod(*parts), self.ratio.value, self.size.value)

    @property
    def dense(self) -> Sizes:
        """Sizes of the model before pruning."""
        return self._sweep.dense

    @property
    def model(self) -> nn.Module:
        """The pruned model of the latest answer (waits for it); of a large one a copy."""
        model = self._model(self._latest())
        return training.copy_of(model) if self._sweep.large else model  # a reader may train it

    @property
    def profile(self) -> Profile:
        """Everything measured about the latest answer on the validation split, latency at batch 1 (waits for it)."""
        settings = self._latest().settings
        return self._sweep.profile(settings.method, settings.ratio)

    def points(self, method: PruningMethod | None = None) -> tuple[Point, ...]:
        """What is measured so far of a method's curve (by default the chosen one), in order of the ratio."""
        method = method or self.settings.method
        return tuple(filter(None, (self._sweep.known(method, ratio) for ratio in RATIOS)))

    def _adjust(self, moved: str) -> None:
        if moved == "what":  # it brings its usual scope along
            self.scope.value = USUAL_SCOPE[self.what.value]

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Prune and measure what is not remembered; show slices as they come."""
        method, ratio = settings.method, settings.ratio
        self._busy((method.epochs > 0 or not self._sure) and self._sweep.known(method, ratio) is None)
        if not self._sure and self._sweep.known(PruningMethod(), 0.0) is None:
            self._say(f"Ranking {self.dense.parameters:,} parameters: the first answer takes a moment.")
            self._sweep.point(PruningMethod(), 0.0, cancel=cancel, enough=1)  # a slice, to have something to show
            self._paint("plane", self._plane(settings))

        def show(part: Point) -> None:
            self._show(Answer(settings, part))

        bar = ProgressCallback(self.progress)
        point = self._sweep.point(method, ratio, callbacks=[bar], cancel=cancel, on_slice=show)
        if method.renew:
            self._sweep.point(replace(method, renew=False), ratio, cancel=cancel)  # to say what it was without
            self._sweep.point(PruningMethod(), 0.0, cancel=cancel)  # at ratio 0 it is another model than the dense one
        with training.interruptible(self._sweep.model, cancel, "while heads were looked for"):
            _ = self._sweep.heads  # what a figure shows, while it can be cancelled
        if settings.size == "latency":
            self._sweep.latency(PruningMethod(), 0.0, cancel=cancel)  # the right end of the axis
            self._sweep.latency(method, ratio, cancel=cancel)
        return Answer(settings, point)

    def _finish(self, answer: Answer, cancel: Event) -> None:
        """Time the model while nothing else computes, and say it."""
        self._give_way(cancel, BETWEEN_SECONDS)  # what was painted is sent
        self._sweep.latency(answer.settings.method, answer.settings.ratio, again=True, cancel=cancel)
        self._show(answer)

    def _missing(self, answer: Answer) -> tuple[Sequence[tuple[PruningMethod, float]], int]:
        """Points still to measure, coarse first, the curves in turn: the chosen method, random, magnitude."""
        chosen = answer.settings.method
        timed = answer.settings.size == "latency"  # which is timed only for a point that is known
        methods, plan = self._methods(chosen), self._plan(chosen)
        ratios = COARSE_FIRST[: plan.ratios]
        wanted = [(method, ratio) for ratio in ratios for method in methods if method not in self._failed]

        def lacks(method: PruningMethod, ratio: float) -> bool:
            if timed:
                return self._sweep.known_latency(method, ratio) is None
            point = self._sweep.known(method, ratio)
            return point is None or not (point.whole or (plan.samples and point.accuracy.n >= plan.samples))

        return [each for each in wanted if lacks(*each)], len(wanted)

    def _grow(self, answer: Answer, missing: Sequence[tuple[PruningMethod, float]], cancel: Event) -> None:
        method, ratio = missing[0]
        try:
            self._sweep.point(method, ratio, cancel=cancel, enough=self._plan(method).samples)
            if answer.settings.size == "latency":
                self._sweep.latency(method, ratio, cancel=cancel)
        except training.Cancelled:
            raise
        except Exception:
            self._failed.add(method)  # a reader who asks for it is told why in the foreground

    def _methods(self, chosen: PruningMethod) -> list[PruningMethod]:
        """Those with a curve: the chosen one and its rivals."""
        rivals = (replace(chosen, importance=each) for each in ("random", "magnitude"))
        return list(dict.fromkeys((chosen, *rivals)))

    def _plan(self, chosen: PruningMethod) -> Plan:
        """How much of the curves is measured in time."""
        if self._sure:
            return LADDER[0]
        n, train = len(self.dataset.validation), len(self.dataset.train)
        tuning = 3 * chosen.epochs * train * self._sample_seconds

        def takes(plan: Plan) -> float:
            point = self._point_seconds + min(plan.samples or n, n) * self._sample_seconds + tuning
            return len(self._methods(chosen)) * plan.ratios * point

        return sizing.fullest(LADDER, takes, self._seconds)

    def _sized(self, method: PruningMethod) -> str:
        plan, n = self._plan(method), len(self.dataset.validation)
        parts = [f"{plan.ratios} of {len(RATIOS)} ratios a curve"] if plan != LADDER[0] else []
        if plan.samples and plan.samples < n:
            parts.append(f"{plan.samples:,} of {n:,} validation {self.dataset.noun} a point")
        return sizing.sentence(self._seconds, parts)

    def _pin(self, answer: Answer) -> Pin:
        method, ratio = answer.settings.method, answer.settings.ratio
        net = type(self._sweep.model).__name__
        name = f"{net}, {100 * ratio:.4g} % {method.what}, {method.importance}, {method.scope}"
        tuned = counted(method.epochs, "epoch") + f" at {method.lr:g}" * (method.lr != LEARNING_RATE)
        name += f", {tuned}" * bool(method.epochs) + ", renewed statistics" * method.renew
        name += f", seed {method.seed}" * bool(method.seed)
        return Pin(name, self._sweep.profile(method, ratio), {**asdict(method), "ratio": ratio})

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings = Settings(PruningMethod(), 0.0, "nonzeros") if answer is None else answer.settings
        method, ratio = settings.method, settings.ratio
        dense, sweep, shape = self._sweep.model, self._sweep, self.dataset.input_shape
        pruned = partial(sweep.pruned, method, ratio)

        def filters() -> Panel:
            heads = {} if answer is None and sweep.large else sweep.heads  # those of a large model take a while to find
            if heads:
                return plots.heads_panel(dense, pruned().model, heads, pruned().outputs)
            return plots.filters_panel(dense, pruned().model, shape, pruned().outputs)

        return {
            "plane": lambda: self._plane(settings),
            "kept": lambda: plots.kept_panel(dense, pruned().kept),
            "weights": lambda: plots.weights_panel(dense, pruned().model, sweep.thresholds(method, ratio)),
            "filters": filters,
        }

    def _plane(self, settings: Settings) -> Panel:
        size, method = settings.size, settings.method
        dense = self._sweep.known(PruningMethod(), 0.0)
        dense_size = self._size_of(size, PruningMethod(), dense) or 1.0

        def baseline(other: PruningMethod) -> Curve:
            return self._curve(other.importance, size, other, () if other == method else self.points(other))

        return plots.plane_panel(
            size,
            self._curve(method.importance, size, method, self.points(method)),
            random=baseline(replace(method, importance="random")),
            magnitude=baseline(replace(method, importance="magnitude")),
            dense=self._curve("dense model", size, PruningMethod(), [dense] if dense else []),
            pins=self._pin_curve(size, SMALLEST * dense_size)._replace(said=tuple(self._pin_names)),
            dense_size=dense_size,
            chance=100 * training.chance(self.dataset.validation.labels),
            least=dense_size - self._sweep.prunable if size == "nonzeros" else 0.0,
        )

    def _curve(self, label: str, size: SizeName, method: PruningMethod, points: Iterable[Point]) -> Curve:
        """Points of a method; not those whose latency is asked for and not measured yet."""
        sized = [(self._size_of(size, method, point), point) for point in points]
        known = [(x, point) for x, point in sized if x is not None]
        said = (f"{100 * point.ratio:.4g} % of the {method.what} removed" for _, point in known)
        return Curve.of(label, ((x, point.accuracy) for x, point in known), said)

    def _size_of(self, size: SizeName, method: PruningMethod, point: Point | None) -> float | None:
        """A size of a point, above 0; None for a latency that is not measured yet."""
        if size == "latency":
            latency = None if point is None else self._sweep.known_latency(method, point.ratio)
            return None if latency is None else latency.value
        dense = getattr(self._sweep.dense, size)
        own = dense if point is None else getattr(point.sizes, size)
        return float(own or SMALLEST * dense or 1.0)  # a log axis has no 0

    def _draw_marks(self, answer: Answer) -> None:
        self.here.values = self._here(answer, answer.settings)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        here = self._curve("here", settings.size, answer.settings.method, [answer.point])
        return [values[0] for values in here[1:5]] if here.x else []

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Image by image, on the whole validation split."""
        if not answer.point.whole:
            return None
        return Estimate.from_pairs(self._right(answer), self._right(kept))

    def _model(self, answer: Answer) -> nn.Module:
        return self._sweep.pruned(answer.settings.method, answer.settings.ratio).model

    def _loading(self, answer: Answer, model: nn.Module) -> str:
        """The reader has the model that was pruned."""
        cut = answer.settings.method.what == "channels"
        return "smaller = prune.load_smaller(model, {})" if cut else "files.load_into(model, {})"

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of a curve: to its ratio, and its importance; to the dense model."""
        method = replace(self.settings.method, importance=curve) if curve in IMPORTANCES else None
        if figure == "plane" and curve == "dense model":
            self.set(ratio=0.0)
        elif figure == "plane" and method is not None and (points := self.points(method)):
            size = self.settings.size
            near = [
                (abs((self._size_of(size, method, each) or 0) - x), abs(100 * each.accuracy.value - y))
                for each in points
            ]
            self.set(importance=curve, ratio=points[near.index(min(near))].ratio)

    def _words(self, answer: Answer) -> str:
        settings, point = answer.settings, answer.point
        method, dense, sizes = settings.method, self._sweep.dense, point.sizes
        first = self._sweep.known(PruningMethod(), 0.0)
        tuned = f", then {counted(method.epochs, 'epoch')} of fine-tuning" if method.epochs else ", no fine-tuning"
        tuned += f" at a learning rate of {method.lr:g}" * (method.epochs > 0 and method.lr != LEARNING_RATE)
        took = self._sweep.known_latency(method, settings.ratio)
        timed = f"; latency {took.value:.2f} ms ({took.low:.2f} to {took.high:.2f}) at batch 1" if took else ""
        parts = [
            f"<b>{100 * point.ratio:.4g} % of the {method.what} removed</b> ({method.importance}: "
            f"{ORDER[method.importance]}, {method.scope}{tuned}).",
            f"Accuracy <b>{point.accuracy.percent}</b>, 95 % interval, {point.accuracy.n:,} {self.dataset.noun}"
            f"{'' if point.whole else ' so far'}{f'; dense {first.accuracy.percent}' if first else ''}.",
            f"Non-zeros <b>{sizes.nonzeros:,}</b> of {dense.nonzeros:,}; file {amount(sizes.file_bytes, 'B')} "
            f"of {amount(dense.file_bytes, 'B')}; "
            f"{amount(sizes.flops, 'FLOPs')} of {amount(dense.flops, 'FLOPs')}{timed}.",
        ]
        if method.renew:
            without = self._sweep.known(replace(method, renew=False), settings.ratio)
            were = f"; as they were: <b>{without.accuracy.percent}</b>" if without else ""
            parts.append(f"Batch-norm statistics measured anew on training samples{were}.")
        chance, guess = training.chance(self.dataset.validation.labels), math.log(self.dataset.n_classes)
        if first and first.accuracy.low <= chance and (first.whole or first.accuracy.n >= ENOUGH):
            parts.append(f"<b>The dense model only guesses: its interval holds chance ({100 * chance:.0f} %).</b>")
        if method.epochs and point.loss > EXPLODED * guess:
            loss = f"its loss is {point.loss:.3g}, that of a guess {guess:.2g}"
            parts.append(f"<b>Fine-tuning went astray ({loss}): take a smaller lr than {method.lr:g}.</b>")
        sized = self._sized(method)
        return " ".join(parts + _cautions(point) + [sized] * bool(sized) + self._trouble)


def _cautions(point: Point) -> list[str]:
    """What a reader should know before believing the numbers."""
    said = [f"<b>The model {point.broken}: these count as wrong.</b>"] * bool(point.broken)
    if point.probabilities:
        said.append("<b>It answers probabilities, not logits: its losses are wrong; leave out its softmax.</b>")
    if point.emptied:
        said.append(f"<b>Nothing is left of {_listed(point.emptied)}: the network is cut there.</b>")
    if point.floored:
        said.append(f"<b>One channel was kept in {_listed(point.floored)}, against the ratio.</b>")
    if point.skipped:
        (first, why), *others = point.skipped
        reason = f"{first} ({why[0].lower()}{why[1:].rstrip('.')})"
        said.append(f"Left alone: {_listed([reason, *(name for name, _ in others)])}.")
    return said


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a deep network has hundreds."""
    more = f" and {len(names) - LISTED} more" * (len(names) > LISTED)
    return html.escape(", ".join(names[:LISTED])) + more


def _table(ratio: float, what: What) -> list[Row]:
    row = partial(Control, group="prune")
    ratios = row(
        "ratio",
        "stops",
        ratio,
        "Share of the weights or channels to remove.",
        RATIOS,
        unit="%",
        wide=True,
        section="01, section 1",
    )
    return [
        row("what", "toggle", what, "Set weights to zero, or take whole channels out.", WHATS, section="01, section 8"),
        replace(ratios, text=lambda stop: f"{100 * stop:.4g} %"),
        row("importance", "choice", "magnitude", "What decides which go first.", IMPORTANCES, section="01, section 3"),
        row(
            "scope",
            "choice",
            USUAL_SCOPE[what],
            "Rank in the whole network, or in each layer alone.",
            SCOPES,
            section="01, section 2",
        ),
        row(
            "epochs",
            "slider",
            0,
            "Passes over the train split after pruning.",
            (0, 10),
            "fine-tuning",
            unit="epochs",
            section="01, section 5",
        ),
        row(
            "lr",
            "stops",
            LEARNING_RATE,
            "Learning rate of fine-tuning: the size of Adam's steps.",
            RATES,
            section="01, section 5",
        ),
        RENEW,
        row(
            "seed",
            "number",
            0,
            "Of random importance, and of the order of the samples.",
            (0, 9999),
            section="00, section 1",
        ),
        SIZE_CONTROL,
        *PIN_ROWS,
    ]


def show_renew(control: widgets.Widget, model: nn.Module) -> None:
    """Show the control only for a model that has statistics to renew."""
    control.layout.display = None if training.has_statistics(model) else "none"
