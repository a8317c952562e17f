"""The sensitivity explorer: which layer can lose how much, and what an allocation read from that is worth."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, NamedTuple

from torch import nn

from kit import measure, training
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import PAINT_SECONDS, Explorer, of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.prune import OPERATIONS, RATIOS, RENEW, show_renew
from kit.measure import Estimate
from kit.plots import sensitivity as plots
from kit.plots.curves import Panel
from kit.prune import (
    IMPORTANCES,
    SCAN_RATIOS,
    Importance,
    Scanner,
    Sensitivity,
    allocate,
    apply_masks,
    plain,
    prunable,
    rank,
)

TARGETS = tuple(ratio for ratio in RATIOS if ratio <= SCAN_RATIOS[-1])


class Plan(NamedTuple):
    """To which ratios each layer is pruned, and on how many validation samples that is measured; None is all."""

    ratios: tuple[float, ...]
    samples: int | None


SECONDS = 60.0  # for a scan
FEW_RATIOS = (0.0, 0.4, 0.7, 0.9, 0.98)
LADDER = (
    Plan(SCAN_RATIOS, None),
    Plan(SCAN_RATIOS, 1000),
    Plan(SCAN_RATIOS, 500),
    Plan(FEW_RATIOS, 500),
    Plan(FEW_RATIOS, 200),
)


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    importance: Importance
    ratio: float
    renew: bool

    @property
    def scan(self) -> tuple[Importance, bool]:
        """Which scan they ask for."""
        return self.importance, self.renew


@dataclass(frozen=True)
class Answer:
    """A scan, the allocation read from it, and what that is worth; no allocation and no accuracies while it grows."""

    settings: Settings
    sensitivity: Sensitivity
    allocation: Mapping[str, float]
    accuracies: Mapping[str, Estimate]
    nonfinite: int = 0  # pruned models that answer NaN or infinity for some samples


class SensitivityExplorer(Explorer[Settings, Answer]):
    """Prune each layer alone, read an allocation from the curves, and try it against its two rivals.

    The rivals remove the same share of all weights: the same ratio in each layer, and one global ranking. All
    three are really pruned and measured on the validation split, without fine-tuning.

    Args:
        model: any `nn.Module` with a linear or convolutional layer; copied, never changed.
        dataset: any `Dataset` whose samples the model takes. Validation measures, train scores, test is not read.
        ratio: where the target begins, one of `TARGETS`.
        seconds: for a scan. Where it would take longer on this machine, it has fewer ratios, measured on fewer
            validation samples, and the words say so. None takes all.

    Controls: `importance`, `ratio` (the target), `renew` (shown for models with batch normalisation); buttons
    `reset_button`, `stop_button`. After `wait()`: `sensitivity` (the scan), `allocation` (ratio by weight name),
    `accuracies` (estimates of "allocation", "layer", "global"). A stopped scan goes on at the next move.

    Raises:
        ValueError: nothing to prune, samples that the model cannot take, a ratio that is no stop.
    """

    _settings, _first = Settings, ("curves",)
    _bright = ("curves", "allocation", "ways")  # nothing is dimmed: the curves grow while the scan runs
    sensitivity: Sensitivity = of_answer("sensitivity", "The complete scan of the chosen importance (waits for it).")

    def __init__(
        self, model: nn.Module, dataset: Dataset, *, ratio: float = 0.9, seconds: float | None = SECONDS
    ) -> None:
        training.check_fits(model, dataset)
        sizing.check_seconds(seconds)
        self.dataset, began = dataset, time.perf_counter()
        self._model = plain(model).eval()
        plan, self._sized = _sized(self._model, dataset, seconds, time.perf_counter() - began)
        self._part = replace(dataset, validation=dataset.validation.first(plan.samples or len(dataset.validation)))
        self._ratios = plan.ratios
        self._scanners = {("magnitude", False): Scanner(self._model, self._part, ratios=self._ratios)}
        self._known: dict[Settings, dict[str, training.Evaluation]] = {}
        title = f"SensitivityExplorer: {type(model).__name__} on {dataset.name}"
        target, order = "Share of all weights that each of the three ways removes.", "Decides which weights go first."
        table: list[Row] = [
            Control(
                "ratio",
                "stops",
                ratio,
                target,
                TARGETS,
                "target ratio",
                "prune",
                "%",
                _percent,
                True,
                section="01, section 4",
            ),
            Control("importance", "choice", "magnitude", order, IMPORTANCES, group="prune", section="01, section 3"),
            RENEW,
        ]
        call = {"ratio": ratio} | ({} if seconds == SECONDS else {"seconds": seconds})
        super().__init__(title, table, (("model", "dataset"), call))
        show_renew(self.renew, model)
        self._move()

    @property
    def allocation(self) -> dict[str, float]:
        """The ratio of each weight, by name (waits for it)."""
        return dict(self._latest().allocation)

    @property
    def accuracies(self) -> dict[str, Estimate]:
        """Accuracy on the validation split after pruning by "allocation", "layer", "global" (waits for them)."""
        accuracies = self._latest().accuracies
        return {way: accuracies[way] for way in plots.WAYS}

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Scan what is missing; prune in the three ways and measure each."""
        if settings.scan not in self._scanners:
            how: dict[str, Any] = {"importance": settings.importance, "renew": settings.renew, "cancel": cancel}
            self._scanners[settings.scan] = Scanner(self._model, self._part, ratios=self._ratios, **how)
        scanner = self._scanners[settings.scan]
        self._scan(scanner, settings, cancel)
        scan = scanner.sensitivity
        allocation = allocate(scan, settings.ratio)
        known = self._known.setdefault(settings, {})
        for way in plots.WAYS:
            if way not in known:
                ranking = rank(scanner.scores, "global" if way == "global" else "layer")
                masks = ranking.masks(allocation if way == "allocation" else settings.ratio)
                known[way] = scanner.evaluate(apply_masks(self._model, masks), cancel)
        accuracies = {way: Estimate.from_counts(counts.correct, counts.total) for way, counts in known.items()}
        accuracies["dense"] = next(iter(scan.accuracy.values()))[0]
        broken = scan.nonfinite + sum(counts.nonfinite > 0 for counts in known.values())
        return Answer(settings, scan, allocation, accuracies, broken)

    def _scan(self, scanner: Scanner, settings: Settings, cancel: Event) -> None:
        """Measure what is missing, and show the growing curves now and then."""
        self._busy(scanner.done < scanner.total)
        try:
            while scanner.step(cancel):
                self.progress.move(scanner.done / scanner.total)
                if time.monotonic() - self._painted_at > PAINT_SECONDS:
                    self._painted_at = time.monotonic()
                    self._show(Answer(settings, scanner.sensitivity, {}, {}))
        finally:
            self._count(scanner.done, scanner.total)

    def _missing(self, answer: Answer) -> tuple[Sequence[None], int]:
        """Nothing: the whole scan belongs to an answer."""
        return (), self._scanners[answer.settings.scan].total

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        if answer is None:
            answer = Answer(self.settings, self._scanners["magnitude", False].sensitivity, {}, {})
        scan, allocation = answer.sensitivity, answer.allocation
        return {
            "curves": lambda: plots.sensitivity_panel(scan, allocation),
            "allocation": lambda: plots.allocation_panel(scan.sizes, allocation, answer.settings.ratio),
            "ways": lambda: plots.ways_panel(answer.accuracies),
        }

    def _words(self, answer: Answer) -> str:
        accuracies, allocation = answer.accuracies, answer.allocation
        if not allocation:
            scanner = self._scanners[answer.settings.scan]
            return f"Pruning one layer at a time: {scanner.done} of {scanner.total} points. {self._sized}".strip()
        ordered = sorted(allocation, key=allocation.__getitem__)
        said = [f"{html.escape(name.removesuffix('.weight'))} ({100 * allocation[name]:.0f} %)" for name in ordered]
        layers = f" It takes least from {said[0]} and most from {said[-1]}." if len(said) > 1 else ""
        words = {way: estimate.percent for way, estimate in accuracies.items()}
        renewed = ", batch-norm statistics measured anew" * answer.settings.renew
        broken = (
            f" Of the pruned models {answer.nonfinite} answer NaN or infinity for some samples: these count as wrong."
        )
        chance = training.chance(self._part.validation.labels)
        guesses = f" <b>The dense model only guesses: its interval holds chance ({100 * chance:.0f} %).</b>"
        dense, noun, sized = accuracies["dense"], self.dataset.noun, f" {self._sized}" * bool(self._sized)
        return (
            f"<b>{100 * answer.settings.ratio:.4g} % of all weights removed</b> ({answer.settings.importance}, no "
            f"fine-tuning{renewed}). Accuracy by the allocation <b>{words['allocation']}</b>.{layers} With the same "
            f"ratio in each layer <b>{words['layer']}</b>; by one global ranking <b>{words['global']}</b>; dense "
            f"{words['dense']}. 95 % intervals, {dense.n:,} {noun}.{broken * bool(answer.nonfinite)}"
            f"{guesses * (dense.low <= chance)}{sized}"
        )


def _sized(model: nn.Module, dataset: Dataset, seconds: float | None, copied: float) -> tuple[Plan, str]:
    """The fullest plan of a scan, and in words how it was sized; `copied` are the seconds that a copy of it takes."""
    layers, n, inputs = len(prunable(model)), len(dataset.validation), dataset.validation.inputs
    work = measure.flops(model, inputs) * n + OPERATIONS * measure.parameters(model)
    if sizing.sure(layers * len(SCAN_RATIOS) * work, seconds):
        return LADDER[0], ""
    size = training.batch_for(model, inputs, seconds=1)
    sample = training.pace_of(model, inputs).rate(min(size, n))

    def takes(plan: Plan) -> float:
        return layers * len(plan.ratios) * (2 * copied + min(plan.samples or n, n) * sample)

    plan = sizing.fullest(LADDER, takes, seconds)
    parts = [f"{len(plan.ratios)} of {len(SCAN_RATIOS)} ratios a layer"] if plan.ratios != SCAN_RATIOS else []
    if plan.samples and plan.samples < n:
        parts.append(f"{plan.samples:,} of {n:,} validation {dataset.noun}")
    return plan, sizing.sentence(seconds, parts)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
