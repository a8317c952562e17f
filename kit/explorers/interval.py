"""The interval explorer: what a 95 % interval says, seen by reading one accuracy forty times."""

from __future__ import annotations

import copy
from threading import Event
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from kit import training
from kit.data import Dataset
from kit.explorers.base import WIDE, Explorer, LiveFigure, Stops
from kit.measure import Estimate
from kit.plots import interval as plots
from kit.plots import still

DRAWS = 40
BATCH = 1024


def image_stops(total: int) -> tuple[int, ...]:
    """Numbers of images to choose from: 10, 20, 50, 100, ... below `total`, and `total` itself."""
    steps = (digit * 10**power for power in range(1, 12) for digit in (1, 2, 5))
    return (*(step for step in steps if step < total), total)


class IntervalExplorer(Explorer):
    """Read one accuracy forty times, each time from n images drawn anew: which intervals hold the truth?

    The model is really evaluated, once, on the whole validation split; that accuracy plays the truth. A reading draws
    its n images from the split with replacement, so that its images are independent, as Wilson's interval
    assumes (`Estimate.from_counts`).

    Args:
        model: any `nn.Module`; copied, never changed.
        dataset: any `Dataset` whose samples the model takes; its validation split is read.
        n: where the slider begins, one of `image_stops(len(dataset.validation))`; by default 50 or the nearest below.

    Controls: `n` (images a reading), `seed` (of the draws), `again_button` (the next seed). After `wait()`:
    `intervals` (forty estimates), `covered` (how many hold the truth), `truth` (share 0 .. 1).

    Raises:
        ValueError: samples that the model cannot take, an `n` that is no stop.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, n: int | None = None) -> None:
        """Build the widgets and ask for the first readings."""
        training.check_fits(model, dataset)
        self.dataset = dataset
        self._model = copy.deepcopy(model).eval()
        self._right: list[Tensor] = []  # bool [batch], one a batch of the validation split
        self._readings: tuple[Estimate, ...] = ()
        stops = image_stops(len(dataset.validation))
        start = max((stop for stop in stops if stop <= 50), default=stops[0]) if n is None else n
        if start not in stops:
            raise ValueError(f"n must be one of {', '.join(map(str, stops))}; got {n!r}.")
        self.n = Stops(stops, lambda stop: f"{stop:,.0f}", value=start, description="images n", **WIDE)
        self.n.add_class("kit-wide")
        self.seed = widgets.BoundedIntText(0, 0, 9999, description="seed", **WIDE)
        self.again_button = widgets.Button(description="Draw again", icon="refresh", layout={"width": "100%"})
        self.again_button.on_click(lambda _: self._draw_again())
        self._figure = LiveFigure(plots.intervals_figure(self._info(), DRAWS))
        title = f"IntervalExplorer: {type(model).__name__} on {dataset.name}"
        super().__init__(title, [self.n, self.seed, self.again_button], self._figure, stoppable=False)
        for control in (self.n, self.seed):
            control.observe(self._move, names="value")
        self._move(None)

    @property
    def intervals(self) -> tuple[Estimate, ...]:
        """The forty readings of the latest answer (waits for it)."""
        self.wait()
        return self._readings

    @property
    def truth(self) -> float:
        """Share of right answers on the whole validation split (waits for it)."""
        self.wait()
        return self._truth()

    @property
    def covered(self) -> int:
        """How many of the forty intervals hold the truth (waits for them)."""
        return sum(plots.holds(reading, self.truth) for reading in self.intervals)

    def _draw_again(self) -> None:
        self.seed.value = (self.seed.value + 1) % (self.seed.max + 1)

    def _move(self, change: Any) -> None:
        """A control moved: ask, and return at once."""
        n, seed = int(self.n.value), int(self.seed.value)
        self._request(lambda cancel: self._answer(n, seed, cancel))

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, n: int, seed: int, cancel: Event) -> None:
        self._evaluate(cancel)
        right = torch.cat(self._right)  # bool [images of the split]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(right), (DRAWS, n), generator=generator)  # places in the split
        self._readings = tuple(Estimate.from_counts(int(count), n) for count in right[drawn].sum(1))
        info = self._info()
        self._paint(self._figure, plots.intervals_traces(info), **plots.intervals_layout(info))
        self._say(self._in_words(n, sum(info.held)))

    def _evaluate(self, cancel: Event) -> None:
        """Remember for each validation image whether the model is right; goes on where it was interrupted."""
        split = self.dataset.validation
        for start in range(BATCH * len(self._right), len(split), BATCH):
            if cancel.is_set():
                raise training.Cancelled("a newer request waits.")
            logits = training.predict(self._model, split.inputs[start : start + BATCH])  # [batch, n_classes]
            self._right.append(logits.argmax(1) == split.labels[start : start + BATCH])
            if start + BATCH < len(split):
                self._say(f"Evaluating the model: {start + BATCH:,} of {len(split):,} images.")

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _truth(self) -> float:
        right = torch.cat(self._right)
        return int(right.sum()) / len(right)

    def _info(self) -> plots.IntervalsInfo:
        stops = image_stops(len(self.dataset.validation))
        return plots.intervals_info(self._readings, self._truth() if self._readings else None, stops[0])

    def _in_words(self, n: int, covered: int) -> str:
        truth, total = self._truth(), len(self.dataset.validation)
        images = f"n = {n:,} image" + "s" * (n > 1)
        return (
            f"With {images} one reading is off by up to about <b>±{100 * plots.error_bound(truth, n):.1f} points</b> "
            f"(95 of 100 readings are nearer). <b>{covered} of {DRAWS} intervals hold the truth</b>; about "
            f"{0.95 * DRAWS:.0f} are expected. The truth here is the accuracy on all {total:,} validation images, "
            f"{100 * truth:.1f} %. Each reading draws its images from them with replacement: the same image may come "
            "twice, so the draws are independent. Intervals are Wilson's."
        )

    def _still(self) -> bytes:
        return still.intervals_png(self._info())
