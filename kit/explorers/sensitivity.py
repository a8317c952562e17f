"""The sensitivity explorer: which layer can lose how much, and what an allocation read from that is worth."""

from __future__ import annotations

import copy
import html
import time
from dataclasses import dataclass
from threading import Event
from typing import Any

import ipywidgets as widgets
from torch import nn

from kit import measure, training
from kit.data import Dataset
from kit.explorers.base import WIDE, Explorer, LiveFigure, Stops
from kit.explorers.prune import DETAIL_SECONDS, PAINT_SECONDS, RATIOS
from kit.measure import Estimate
from kit.plots import sensitivity as plots
from kit.plots import still
from kit.prune import IMPORTANCES, SCAN_RATIOS, Importance, Scanner, Sensitivity, allocate, apply_masks, rank

TARGETS = tuple(ratio for ratio in RATIOS if ratio <= SCAN_RATIOS[-1])


@dataclass(frozen=True)
class _Answer:
    importance: Importance
    ratio: float
    sensitivity: Sensitivity
    allocation: dict[str, float]
    accuracies: dict[str, Estimate]


class SensitivityExplorer(Explorer):
    """Prune each layer alone, read an allocation from the curves, and try it against its two rivals.

    The rivals remove the same share of all weights: the same ratio in each layer, and one global ranking. All
    three are really pruned and measured on the validation split, without fine-tuning.

    Args:
        model: any `nn.Module` with a linear or convolutional layer; copied, never changed.
        dataset: any `Dataset` whose samples the model takes. Validation measures, train scores, test is not read.
        ratio: where the target begins, one of `TARGETS`.

    Controls: `importance`, `ratio` (the target), `stop_button`. After `wait()`: `sensitivity` (the scan),
    `allocation` (ratio by weight name), `accuracies` (estimates of "allocation", "layer", "global"). A stopped
    scan goes on at the next move.

    Raises:
        ValueError: nothing to prune, samples that the model cannot take, a ratio that is no stop.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, ratio: float = 0.9) -> None:
        """Build the widgets and ask for the scan."""
        training.check_fits(model, dataset)
        self.dataset = dataset
        self._model = copy.deepcopy(model).eval()
        self._scanners: dict[Importance, Scanner] = {"magnitude": Scanner(self._model, dataset)}
        self._known: dict[tuple[Importance, float], dict[str, Estimate]] = {}
        self._answered: _Answer | None = None
        self._grown = 0.0  # when the growing curves were painted last
        self.importance = widgets.Dropdown(options=IMPORTANCES, value="magnitude", description="importance", **WIDE)
        if ratio not in TARGETS:
            raise ValueError(f"ratio must be one of the target's {len(TARGETS)} stops from 0 to 0.98; got {ratio!r}.")
        self.ratio = Stops(TARGETS, lambda stop: f"{100 * stop:.4g} %", value=ratio, description="target ratio", **WIDE)
        self.ratio.add_class("kit-wide")
        info = plots.sensitivity_info(self._scanners["magnitude"].sensitivity, {}, ratio)
        self._curves = LiveFigure(plots.sensitivity_figure(info))
        self._bars = LiveFigure(plots.allocation_figure(info))
        self._ways = LiveFigure(plots.ways_figure({}))
        title = f"SensitivityExplorer: {type(model).__name__} on {dataset.name}"
        super().__init__(title, [self.ratio, self.importance], self._curves, (self._bars, self._ways))
        for control in (self.ratio, self.importance):
            control.observe(self._move, names="value")
        self._move(None)

    @property
    def sensitivity(self) -> Sensitivity:
        """The complete scan of the chosen importance (waits for it)."""
        return self._latest().sensitivity

    @property
    def allocation(self) -> dict[str, float]:
        """The ratio of each weight, by name (waits for it)."""
        return dict(self._latest().allocation)

    @property
    def accuracies(self) -> dict[str, Estimate]:
        """Accuracy on the validation split after pruning by "allocation", "layer", "global" (waits for them)."""
        accuracies = self._latest().accuracies
        return {way: accuracies[way] for way in plots.WAYS}

    def _latest(self) -> _Answer:
        self.wait()
        if self._answered is None:
            raise RuntimeError("no answer yet: the scan was stopped; move a control to go on.")
        return self._answered

    def _move(self, change: Any) -> None:
        """A control moved: ask, and return at once."""
        importance, ratio = self.importance.value, self.ratio.value
        self._request(lambda cancel: self._answer(importance, ratio, cancel))

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, importance: Importance, ratio: float, cancel: Event) -> None:
        if importance not in self._scanners:
            self._scanners[importance] = Scanner(self._model, self.dataset, importance=importance)
        scanner = self._scanners[importance]
        try:
            self._scan(scanner, ratio, cancel)
            allocation = allocate(scanner.sensitivity, ratio)
            accuracies = self._measure_ways(scanner, importance, ratio, allocation, cancel)
        except training.Cancelled:
            self._say(f"Stopped after {scanner.done} of {scanner.total} points; move a control to go on.")
            raise
        answer = self._answered = _Answer(importance, ratio, scanner.sensitivity, allocation, accuracies)
        info = self._info(answer)
        self._paint(self._curves, plots.sensitivity_traces(info), **plots.sensitivity_layout(info))
        self._say(self._in_words(answer))
        if cancel.wait(DETAIL_SECONDS):
            raise training.Cancelled("a newer request waits.")
        self._paint(self._bars, plots.allocation_traces(info))
        self._paint(self._ways, plots.ways_traces(accuracies))

    def _scan(self, scanner: Scanner, ratio: float, cancel: Event) -> None:
        """Measure what is missing; the curves grow, the stop button works, and nothing is dimmed."""
        if scanner.done == scanner.total:
            return
        self.stop_button.disabled = False
        try:
            while scanner.step(cancel):
                self.progress.value = scanner.done / scanner.total
                if time.monotonic() - self._grown > PAINT_SECONDS:
                    self._grown = time.monotonic()
                    info = plots.sensitivity_info(scanner.sensitivity, {}, ratio)
                    self._paint(self._curves, plots.sensitivity_traces(info), **plots.sensitivity_layout(info))
                    self._say(f"Pruning one layer at a time: {scanner.done} of {scanner.total} points.")
        finally:
            self._busy(False)
        self.sweep_note.value = f"scan complete: {scanner.total} points"

    def _measure_ways(
        self, scanner: Scanner, importance: Importance, ratio: float, allocation: dict[str, float], cancel: Event
    ) -> dict[str, Estimate]:
        """Prune in the three ways and measure each; the dense model's accuracy comes from the scan."""
        known = self._known.setdefault((importance, ratio), {})
        for way in plots.WAYS:
            if way not in known:
                ranking = rank(scanner.scores, "global" if way == "global" else "layer")
                masks = ranking.masks(allocation if way == "allocation" else ratio)
                known[way] = measure.accuracy(apply_masks(self._model, masks), self.dataset.validation, cancel=cancel)
        known["dense"] = next(iter(scanner.sensitivity.accuracy.values()))[0]
        return known

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _info(self, answer: _Answer | None) -> plots.SensitivityInfo:
        if answer is None:
            return plots.sensitivity_info(self._scanners["magnitude"].sensitivity, {}, self.ratio.value)
        return plots.sensitivity_info(answer.sensitivity, answer.allocation, answer.ratio)

    def _in_words(self, answer: _Answer) -> str:
        accuracies, allocation = answer.accuracies, answer.allocation
        least, most = (
            f"{html.escape(name.removesuffix('.weight'))} ({100 * allocation[name]:.0f} %)"
            for name in (min(allocation, key=allocation.__getitem__), max(allocation, key=allocation.__getitem__))
        )
        layers = f" It takes least from {least} and most from {most}." if len(allocation) > 1 else ""
        words = {way: estimate.percent for way, estimate in accuracies.items()}
        return (
            f"<b>{100 * answer.ratio:.4g} % of all weights removed</b> ({answer.importance}, no fine-tuning). "
            f"Accuracy by the allocation <b>{words['allocation']}</b>.{layers} With the same ratio in each layer "
            f"<b>{words['layer']}</b>; by one global ranking <b>{words['global']}</b>; dense {words['dense']}. "
            f"95 % intervals, {accuracies['dense'].n:,} images."
        )

    def _still(self) -> bytes:
        return still.sensitivity_png(self._info(self._answered))
