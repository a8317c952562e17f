"""The interval explorer: what a 95 % interval says, seen by reading one accuracy forty times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor, nn

from kit import training
from kit.data import Dataset
from kit.explorers.base import Explorer, of_answer
from kit.explorers.controls import Action, Control, Row
from kit.measure import Estimate
from kit.plots import interval as plots
from kit.plots.curves import Panel

DRAWS = 40
BATCH = 1024


def image_stops(total: int) -> tuple[int, ...]:
    """Numbers of images to choose from: 10, 20, 50, 100, ... below `total`, and `total` itself."""
    steps = (digit * 10**power for power in range(1, 12) for digit in (1, 2, 5))
    return (*(step for step in steps if step < total), total)


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    n: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """Forty readings of n images each, and the share of right answers that they estimate."""

    settings: Settings
    readings: tuple[Estimate, ...]
    truth: float

    @property
    def covered(self) -> int:
        """How many intervals hold the truth."""
        return sum(plots.holds(reading, self.truth) for reading in self.readings)


class IntervalExplorer(Explorer[Settings, Answer]):
    """Read one accuracy forty times, each time from n images drawn anew: which intervals hold the truth?

    The model is really evaluated, once, on the whole validation split; that accuracy plays the truth. A reading draws
    its n images from the split with replacement, so that its images are independent, as Wilson's interval
    assumes (`Estimate.from_counts`).

    Args:
        model: any `nn.Module`; copied, never changed.
        dataset: any `Dataset` whose samples the model takes; its validation split is read.
        n: where the slider begins, one of `image_stops(len(dataset.validation))`; by default 50 or the nearest below.

    Controls: `n` (images a reading), `seed` (of the draws); buttons `again_button` (the next seed), `reset_button`.
    After `wait()`: `intervals` (forty estimates), `covered` (how many hold the truth), `truth` (share 0 .. 1).

    Raises:
        ValueError: samples that the model cannot take, an `n` that is no stop.
    """

    _settings, _first = Settings, ("intervals",)
    intervals: tuple[Estimate, ...] = of_answer("readings", "The forty estimates, in the order drawn (waits for them).")
    truth: float = of_answer("truth", "Share of right answers on the whole validation split (waits for it).")
    covered: int = of_answer("covered", "How many of the forty intervals hold the truth (waits for them).")

    def __init__(self, model: nn.Module, dataset: Dataset, *, n: int | None = None) -> None:
        training.check_fits(model, dataset)
        self.dataset = dataset
        self._model = training.copy_of(model).eval()
        self._right: list[Tensor] = []  # bool [batch], one per batch of the validation split
        self._nonfinite = 0  # samples with an answer that is no number; none counts as right
        self._stops = image_stops(len(dataset.validation))
        n = max((stop for stop in self._stops if stop <= 50), default=self._stops[0]) if n is None else n
        noun = dataset.noun
        drawn = f"{noun.capitalize()} that each reading draws from the validation split."
        seed = f"Decides which {noun} are drawn."
        rows: list[Row] = [
            Control(
                "n",
                "stops",
                n,
                drawn,
                self._stops,
                f"{noun} n",
                "readings",
                noun,
                "{:,.0f}".format,
                True,
                section="00, section 2",
            ),
            Control("seed", "number", 0, seed, (0, 9999), group="readings", section="00, section 2"),
            Action("again", "Draw again", "refresh", "Take the next seed: forty new readings."),
        ]
        title = f"IntervalExplorer: {type(model).__name__} on {dataset.name}"
        super().__init__(title, rows, (("model", "dataset"), {"n": n}), stoppable=False)
        self._move()

    def again(self) -> None:
        """Draw forty new readings: take the next seed."""
        self.seed.value = (self.seed.value + 1) % (self.seed.max + 1)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        self._evaluate(cancel)
        right = torch.cat(self._right)  # bool [images of the split]
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randint(len(right), (DRAWS, settings.n), generator=generator)  # places in the split
        readings = tuple(Estimate.from_counts(int(count), settings.n) for count in right[drawn].sum(1))
        return Answer(settings, readings, int(right.sum()) / len(right))

    def _evaluate(self, cancel: Event) -> None:
        """Remember for each validation image whether the model is right; goes on where it was interrupted."""
        split = self.dataset.validation
        for start in range(BATCH * len(self._right), len(split), BATCH):
            if cancel.is_set():
                raise training.Cancelled("a newer request waits.")
            logits = training.predict(self._model, split.inputs[start : start + BATCH])  # [batch, n_classes]
            finite = logits.isfinite().all(1)  # [batch]; the largest of NaNs would be class 0
            self._right.append((logits.argmax(1) == split.labels[start : start + BATCH]) & finite)
            self._nonfinite += int((~finite).sum())
            if start + BATCH < len(split):
                self._say(f"Evaluating the model: {start + BATCH:,} of {len(split):,} {self.dataset.noun}.")

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        readings, truth = ((), None) if answer is None else (answer.readings, answer.truth)
        return {"intervals": lambda: plots.intervals_panel(readings, truth, self._stops[0], DRAWS)}

    def _words(self, answer: Answer) -> str:
        n, truth = answer.settings.n, answer.truth
        noun = self.dataset.noun
        broken = training.in_words(self._nonfinite, len(self.dataset.validation))
        return (
            f"{f'<b>The model {broken}</b>; none of them counts as right. ' if broken else ''}"
            f"With n = {n:,} {noun} one reading is off by up to about "
            f"<b>±{100 * plots.error_bound(truth, n):.1f} points</b> (95 of 100 readings are nearer). "
            f"<b>{answer.covered} of {DRAWS} intervals hold the truth</b>; about "
            f"{0.95 * DRAWS:.0f} are expected. The truth here is the accuracy on all {len(self.dataset.validation):,} "
            f"validation {noun}, {100 * truth:.1f} %. Each reading draws its {noun} from them with replacement: one "
            "may come twice, so the draws are independent. Intervals are Wilson's."
        )
