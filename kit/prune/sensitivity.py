"""Which layer can lose how much? A scan that prunes one layer at a time, and an allocation read from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
from torch import nn

from kit import checks, training
from kit.data import Dataset
from kit.measure import Estimate
from kit.prune.scores import Importance, score_weights
from kit.prune.unstructured import apply_masks, check_renew, rank, renewed

SCAN_RATIOS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy after pruning one layer alone, without fine-tuning.

    Attributes:
        ratios: the scanned ratios, ascending, from 0.
        accuracy: for each weight name one estimate per ratio, on the validation split.
        sizes: numbers in each weight.
        nonfinite: points whose model answers NaN or infinity for some samples; these count as wrong.
    """

    ratios: tuple[float, ...]
    accuracy: dict[str, tuple[Estimate, ...]]
    sizes: dict[str, int]
    nonfinite: int = 0


def scan(
    model: nn.Module,
    dataset: Dataset,
    *,
    ratios: Sequence[float] = SCAN_RATIOS,
    importance: Importance = "magnitude",
    seed: int = 0,
    renew: bool = False,
    cancel: Event | None = None,
) -> Sensitivity:
    """Prune each layer alone to each ratio and measure on the validation split (Han et al. 2015, figure 6).

    Args:
        model: any module with a prunable weight; not changed.
        dataset: validation measures; train gives the gradients that "taylor" needs.
        ratios: in [0, 1), ascending, starting at 0.
        importance: "magnitude", "taylor" or "random".
        seed: used by "random".
        renew: whether each pruned model's batch-norm statistics are measured anew; see `PruningMethod`.
        cancel: looked at between batches.

    Raises:
        TypeError: an argument of another type.
        ValueError: ratios out of range or order, an unknown importance, nothing to prune.
        training.Cancelled: `cancel` was set.
    """
    scanner = Scanner(model, dataset, ratios=ratios, importance=importance, seed=seed, renew=renew, cancel=cancel)
    while scanner.step(cancel):
        pass
    return scanner.sensitivity


class Scanner:
    """The scan point by point, layer after layer: what is measured can be drawn, and a cancelled scan goes on later.

    Arguments and errors are those of `scan`; the model must not change while the scanner is in use.

    Attributes:
        scores: of each weight, by name; see `score_weights`.
        total: points of the whole scan.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        *,
        ratios: Sequence[float] = SCAN_RATIOS,
        importance: Importance = "magnitude",
        seed: int = 0,
        renew: bool = False,
        cancel: Event | None = None,
    ) -> None:
        checks.instance("ratios", ratios, Iterable, "a list of numbers")
        ordered = tuple(checks.share("each of ratios", ratio, one=False) for ratio in ratios)
        if list(ordered) != sorted({0.0, *ordered}):
            raise ValueError(f"ratios must ascend from 0 without repeats; got {list(ordered)}.")
        training.check_dataset(dataset)
        check_renew(model, renew)
        self._model, self._dataset, self._ratios, self._renew = model, dataset, ordered, renew
        self.scores = score_weights(model, importance, dataset=dataset, seed=seed, cancel=cancel)
        self._ranking = rank(self.scores, "layer")
        self._measured: dict[str, list[training.Evaluation]] = {name: [] for name in self.scores}
        self.total = len(self._measured) * len(self._ratios)

    def step(self, cancel: Event | None = None) -> bool:
        """Measure the next point; False, and nothing measured, when the scan is complete.

        Raises:
            training.Cancelled: `cancel` was set; the point is still to measure.
        """
        if self.done == self.total:
            return False
        name, points = next(layer for layer in self._measured.items() if len(layer[1]) < len(self._ratios))
        if not points and self.done:  # nothing is removed at ratio 0: the same model for every layer
            points.append(next(iter(self._measured.values()))[0])
            return True
        pruned = apply_masks(self._model, {name: self._ranking.masks({name: self._ratios[len(points)]})[name]})
        points.append(self.evaluate(pruned, cancel))
        return True

    def evaluate(self, pruned: nn.Module, cancel: Event | None = None) -> training.Evaluation:
        """Count the right answers of a pruned model as the scan does, its statistics renewed if that was asked for."""
        if self._renew:
            pruned = renewed(pruned, self._dataset, cancel)
        return training.evaluate(pruned, self._dataset.validation, cancel=cancel)

    @property
    def done(self) -> int:
        """Points measured so far."""
        return sum(map(len, self._measured.values()))

    @property
    def sensitivity(self) -> Sensitivity:
        """What is measured so far; `allocate` takes it once `done` is `total`."""
        accuracy = {
            name: tuple(Estimate.from_counts(counts.correct, counts.total) for counts in points)
            for name, points in self._measured.items()
        }
        sizes = {name: score.numel() for name, score in self.scores.items()}
        nonfinite = sum(counts.nonfinite > 0 for points in self._measured.values() for counts in points)
        return Sensitivity(self._ratios, accuracy, sizes, nonfinite)


def allocate(sensitivity: Sensitivity, ratio: float) -> dict[str, float]:
    """One ratio per layer; together they remove `ratio` of all weights, every layer costing the same accuracy alone.

    For a tolerated drop t, each layer's ratio is the largest whose drop is at most t, read from its scanned curve by
    linear interpolation (the curve is first made to ascend). What goes in all is then linear in t between the curves'
    points, which gives t.

    Args:
        sensitivity: from `scan`.
        ratio: share of all prunable weights to remove, in [0, largest scanned ratio].

    Raises:
        ValueError: a ratio outside that range.
    """
    if not 0 <= checks.number("ratio", ratio) <= sensitivity.ratios[-1]:
        raise ValueError(f"ratio must lie in [0, {sensitivity.ratios[-1]:g}], the scanned range; got {ratio!r}.")
    ratios, curves = np.array(sensitivity.ratios), {}
    for name, accuracies in sensitivity.accuracy.items():
        lost = [max(0.0, accuracies[0].value - estimate.value) for estimate in accuracies]
        curves[name] = np.maximum.accumulate(lost) + 1e-6 * ratios  # strictly ascending, so that it can be inverted
    drops = np.unique(np.concatenate(list(curves.values())))
    removed = sum(size * np.interp(drops, curves[name], ratios) for name, size in sensitivity.sizes.items())
    tolerated = np.interp(ratio * sum(sensitivity.sizes.values()), removed, drops)
    return {name: float(np.interp(tolerated, curve, ratios)) for name, curve in curves.items()}
