"""The sensitivity explorer: which layer can lose how much, and what an allocation read from that is worth."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from torch import nn

from kit import training
from kit.data import Dataset
from kit.explorers.base import PAINT_SECONDS, Explorer, of_answer
from kit.explorers.controls import RESET, Control, Row
from kit.explorers.prune import RATIOS, RENEW, show_renew
from kit.measure import Estimate
from kit.plots import sensitivity as plots
from kit.plots.curves import Panel
from kit.prune import IMPORTANCES, SCAN_RATIOS, Importance, Scanner, Sensitivity, allocate, apply_masks, plain, rank

TARGETS = tuple(ratio for ratio in RATIOS if ratio <= SCAN_RATIOS[-1])


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

    Controls: `importance`, `ratio` (the target), `renew` (shown for models with batch normalisation); buttons
    `reset_button`, `stop_button`. After `wait()`: `sensitivity` (the scan), `allocation` (ratio by weight name),
    `accuracies` (estimates of "allocation", "layer", "global"). A stopped scan goes on at the next move.

    Raises:
        ValueError: nothing to prune, samples that the model cannot take, a ratio that is no stop.
    """

    _settings, _first = Settings, ("curves",)
    _bright = ("curves", "allocation", "ways")  # nothing is dimmed: the curves grow while the scan runs
    sensitivity: Sensitivity = of_answer("sensitivity", "The complete scan of the chosen importance (waits for it).")

    def __init__(self, model: nn.Module, dataset: Dataset, *, ratio: float = 0.9) -> None:
        training.check_fits(model, dataset)
        self.dataset = dataset
        self._model = plain(model).eval()
        self._scanners = {("magnitude", False): Scanner(self._model, dataset)}
        self._known: dict[Settings, dict[str, training.Evaluation]] = {}
        title = f"SensitivityExplorer: {type(model).__name__} on {dataset.name}"
        target, order = "Share of all weights that each of the three ways removes.", "Decides which weights go first."
        table: list[Row] = [
            Control("ratio", "stops", ratio, target, TARGETS, "target ratio", "prune", "%", _percent, True),
            Control("importance", "choice", "magnitude", order, IMPORTANCES, group="prune"),
            RENEW,
            RESET,
        ]
        super().__init__(title, table, (("model", "dataset"), {"ratio": ratio}))
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
            self._scanners[settings.scan] = Scanner(self._model, self.dataset, **how)
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
            return f"Pruning one layer at a time: {scanner.done} of {scanner.total} points."
        ordered = sorted(allocation, key=allocation.__getitem__)
        said = [f"{html.escape(name.removesuffix('.weight'))} ({100 * allocation[name]:.0f} %)" for name in ordered]
        layers = f" It takes least from {said[0]} and most from {said[-1]}." if len(said) > 1 else ""
        words = {way: estimate.percent for way, estimate in accuracies.items()}
        renewed = ", batch-norm statistics measured anew" * answer.settings.renew
        broken = (
            f" Of the pruned models {answer.nonfinite} answer NaN or infinity for some samples: these count as wrong."
        )
        return (
            f"<b>{100 * answer.settings.ratio:.4g} % of all weights removed</b> ({answer.settings.importance}, no "
            f"fine-tuning{renewed}). Accuracy by the allocation <b>{words['allocation']}</b>.{layers} With the same "
            f"ratio in each layer <b>{words['layer']}</b>; by one global ranking <b>{words['global']}</b>; dense "
            f"{words['dense']}. 95 % intervals, {accuracies['dense'].n:,} images.{broken * bool(answer.nonfinite)}"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
