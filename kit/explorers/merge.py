"""The merging explorer: the line between two networks, as they are and with their units matched."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from torch import nn

from kit import checks, measure, training
from kit.compress.line import Key, Path, Point, Walk
from kit.data import Dataset
from kit.explorers.base import of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.explorers.prune import RENEW, show_renew
from kit.measure import Estimate
from kit.plots import merge as plots
from kit.plots.curves import Panel

STOPS: tuple[float, ...] = tuple(step / 20 for step in range(21))
COARSE_FIRST = tuple(sorted(STOPS, key=lambda t: (t % 0.5 > 0, t % 0.25 > 0)))
TEACHING: dict[str, Any] = {"temperature": 2.0, "alpha": 0.9}  # of the distilled network, at a time


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    t: float
    aligned: bool
    renew: bool
    show: str
    layer: str


@dataclass(frozen=True)
class Answer:
    """The network at t, and the ensemble of both ends."""

    settings: Settings
    point: Point
    ensemble: Point


class MergeExplorer(PinningExplorer[Settings, Answer]):
    """Walk from one network to another: each on the way is a mean of their weights, and really measured.

    Between networks from different starts the loss rises. With the units of b in the order of a's it rises less, though
    b answers as before. Beside the average stand the ensemble of both, twice the size, and one network that it has
    taught: a copy of a, trained on.

    Args:
        a: any trained `nn.Module`; copied, never changed.
        b: another of the same class and shapes.
        dataset: any `Dataset` whose samples they take. Validation measures, train renews batch statistics and teaches,
            test is not read.
        t: where the walk begins, one of `STOPS`: 0 (a) to 1 (b).
        epochs: that the distilled network is taught, in the background; 0 for none.

    Units are matched before the explorer appears: half a minute for five million parameters.

    Controls: `t`, `aligned` and `layer` (shown where units can be matched), `renew` (shown where there is batch
    normalisation), `show` ("accuracy", or "loss": then the numbers of the main figure are nats), `pin_name`; buttons
    `pin_button`, `reset_button`, `stop_button`. After `wait()`: `point` and `model` (at t), `ensemble`. After
    `wait_curves()`: `lines` and `distilled`.

    Raises:
        ValueError: networks that do not match, the same one twice, NaN or infinity, or samples that they cannot take; a
            start that is no stop.
        TypeError: an argument of another type.
    """

    _settings, _first, _curves = Settings, ("beside",), ("line", "beside")
    _technique = "compression"
    point: Point = of_answer("point", "The network at t, measured sample by sample (waits for it).")
    ensemble: Point = of_answer("ensemble", "Both networks answering as one (waits for it).")

    def __init__(self, a: nn.Module, b: nn.Module, dataset: Dataset, *, t: float = 0.5, epochs: int = 5) -> None:
        if a is b:
            raise ValueError("b must be another network than a; got the same one twice.")
        self.dataset, self._epochs = dataset, checks.whole("epochs", epochs)
        self._walk, self._untaught = Walk(a, b, dataset), ""
        self.distilled: Point | None = None
        self.here = Mark("point")
        layers = list(aligned.permutations) if (aligned := self._walk.aligned) else ["none"]
        call = ("a", "b", "dataset"), {"t": t} | ({} if epochs == 5 else {"epochs": epochs})
        title = f"MergeExplorer: two of {type(a).__name__} on {dataset.name}"
        super().__init__(title, _table(layers, t), call, marks=[self.here])
        show_renew(self.renew, a)
        for control in (self.aligned, self.layer):
            control.layout.display = None if aligned else "none"
        self._move()

    @property
    def settings(self) -> Settings:
        """What the controls say now; those that are not shown say nothing."""
        said = super().settings
        renew = said.renew and training.has_statistics(self._walk.both)
        return replace(said, aligned=said.aligned and self._walk.aligned is not None, renew=renew)

    @property
    def model(self) -> nn.Module:
        """The network at t of the latest answer (waits for it)."""
        return self._model(self._latest())

    @property
    def lines(self) -> dict[str, Path]:
        """The lines "as they are" and "matched", as far as they are measured: whole after `wait_curves()`."""
        found = zip(plots.LINES, self._lines(self.settings.renew), strict=True)
        return {name: Path(tuple(points)) for name, points in found if points}

    def _lines(self, renew: bool) -> list[list[Point]]:
        return [self._walk.known(STOPS, aligned=aligned, renew=renew) for aligned in (False, True)]

    def _key(self, said: Settings) -> Key:
        return self._walk.key(said.t, aligned=said.aligned, renew=said.renew)

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        self._busy(not (training.is_small(self._walk.both) or self._walk.has(self._key(settings))))
        return Answer(settings, self._walk.point(self._key(settings), cancel), self._walk.vote(cancel))

    def _missing(self, answer: Answer) -> tuple[Sequence[Key | None], int]:
        """Points of both lines, coarse first; then the epochs of the distilled network."""
        renew, walk, epochs = answer.settings.renew, self._walk, 0 if self._untaught else self._epochs
        keys = [walk.key(t, aligned=aligned, renew=renew) for t in COARSE_FIRST for aligned in (False, True)]
        wanted = dict.fromkeys(keys)
        missing: list[Key | None] = [key for key in wanted if not walk.has(key)]
        return missing + [None] * (epochs + 1 - len(walk.taught)), len(wanted) + epochs

    def _grow(self, answer: Answer, missing: Sequence[Key | None], cancel: Event) -> None:
        """Measure the next point; or teach for the next epoch."""
        if missing[0] is not None:
            self._walk.point(missing[0], cancel)
            return
        try:
            taught = self._walk.teach(cancel, **TEACHING)
            self.distilled = taught if len(missing) == 1 else None
        except training.Cancelled:
            raise
        except Exception as error:
            self._untaught = str(error)

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        said = self.settings if answer is None else answer.settings
        lines, walk = self._lines(said.renew), self._walk
        lowest = 100 * min((point.accuracy.low for line in lines for point in line), default=1.0)
        chance, shape = 100 * training.chance(self.dataset.validation.labels), self.dataset.input_shape
        return {
            "line": lambda: plots.line_panel(lines, said.show, chance),
            "beside": lambda: plots.beside_panel(self._accuracies(answer), measure.parameters(walk.ends[0]), lowest),
            "pairs": lambda: plots.pairs_panel(*walk.ends, walk.aligned, said.layer, shape),
        }

    def _accuracies(self, answer: Answer | None) -> dict[str, Estimate]:
        """What is measured, by the names of the figure's rows."""
        if answer is None:
            return {}
        ends = [self._walk.known([t], aligned=False, renew=False) for t in (0.0, 1.0)]
        taught = [] if self.distilled is None else [self.distilled]
        rows = [*ends, [answer.point], taught, [answer.ensemble]]
        return {name: point.accuracy for name, points in zip(plots.ROWS, rows, strict=True) for point in points}

    def _draw_marks(self, answer: Answer) -> None:
        self.here.values = self._here(answer, answer.settings)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        return [values[0] for values in plots.curve_of("here", [answer.point], settings.show)[1:5]]

    def _difference(self, kept: Answer, answer: Answer) -> Estimate:
        return Estimate.from_pairs(*(each.point.right.double().tolist() for each in (answer, kept)))

    def _model(self, answer: Answer) -> nn.Module:
        return self._walk.model(self._key(answer.settings))

    def _pin(self, answer: Answer) -> Pin:
        said, model = answer.settings, self._model(answer)
        how = ", matched" * said.aligned + ", renewed statistics" * said.renew
        record = {"t": said.t, "aligned": said.aligned, "renew": said.renew}
        profile = measure.profile(model, self.dataset.validation)
        return Pin(f"{type(model).__name__}, average at {said.t:g}{how}", profile, record)

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of a line."""
        if figure == "line" and curve in plots.LINES and x in STOPS:
            self.set(t=x, aligned=curve == plots.LINES[1])

    def _words(self, answer: Answer) -> str:
        said, point = answer.settings, answer.point
        nets = {name: right for name, right in self._accuracies(answer).items() if name.startswith("network")}
        parts = [
            f"<b>{100 * (1 - said.t):.0f} % of network a and {100 * said.t:.0f} % of b, "
            f"{plots.LINES[said.aligned]}</b>: <b>{point.accuracy.percent}</b>, 95 % interval, "
            f"of {point.accuracy.n:,} {self.dataset.noun} right, loss {point.loss.value:.3f} nats.",
            f"Alone: {', '.join(f'{name[-1]} {right.percent}' for name, right in nets.items())}; both as an ensemble "
            f"{answer.ensemble.accuracy.percent}.",
        ]
        if self.distilled is not None:
            parts.append(f"Network a taught by it for {self._epochs} epochs {self.distilled.accuracy.percent}.")
        for name, line in zip(plots.LINES, self._lines(said.renew), strict=True):
            if len(line) == len(STOPS):
                high = Path(tuple(line)).barrier
                parts.append(f"Barrier {name}: <b>{high.value:.2f} nats</b> ({high.low:.2f} to {high.high:.2f}).")
        if training.has_statistics(self._walk.both) and 0 < said.t < 1 and not said.renew:
            parts.append("<b>Its batch statistics are averages, too, and do not fit.</b>")
        troubles = [f"Units cannot be matched: {self._walk.why.removeprefix('model: ')}"] * bool(self._walk.why)
        troubles += [f"No network could be distilled: {self._untaught}"] * bool(self._untaught)
        chance = training.chance(self.dataset.validation.labels)
        for name in (name for name, right in nets.items() if right.low <= chance):
            parts.append(f"<b>{name.capitalize()} only guesses: its interval holds chance ({100 * chance:.0f} %).</b>")
        return " ".join([*parts, *map(html.escape, troubles), *self._trouble])


def _table(layers: Sequence[str], t: float) -> list[Row]:
    row = partial(Control, section="03, section 9")
    walk = "The share of b's weights in the average: 0 is network a, 1 is network b."
    match = "Put the units of b into the order of a's that they are most like; b answers as before."
    shown = "What the line shows: the share of right answers, or the loss, whose rise is the barrier."
    renew = replace(RENEW, start=True, group="average", help=RENEW.help.replace("pruned model", "average"))
    return [
        row("t", "stops", t, walk, STOPS, "t, from a to b", "average", text="{:g}".format, wide=True),
        row("aligned", "check", False, match, label="Match the units of b", group="average"),
        renew,
        row("show", "toggle", "accuracy", shown, plots.SHOWS, group="picture"),
        row("layer", "choice", layers[0], "Whose units are compared.", layers, group="picture"),
        *PIN_ROWS,
    ]
