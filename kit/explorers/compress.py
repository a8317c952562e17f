"""The compression explorer: low rank, pruning, shared or uniform values, Huffman; accuracy against bytes on disk."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import nn

from kit import compress, measure, prune, training
from kit.compress import KINDS, NOTHING, Compression, Kind, Recipe, Step
from kit.data import Dataset
from kit.explorers import sizing
from kit.explorers.base import of_answer
from kit.explorers.controls import Control, Row
from kit.explorers.layout import ProgressCallback
from kit.explorers.marks import Mark
from kit.explorers.pinning import PIN_ROWS, Pin, PinningExplorer
from kit.explorers.prune import SLICE_SECONDS
from kit.measure import Estimate, Profile
from kit.plots import compress as plots
from kit.plots.curves import Curve, Panel, amount

RATIOS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
COARSE_FIRST = sizing.coarse_first(RATIOS)
SECONDS, FEWEST = 60.0, 5  # for the curves; ratios of one
GUESSES = "<b>The dense model only guesses: its interval holds chance ({:.0f} %).</b>"
OPERATIONS = 2000  # of a point for each parameter, about: it is ranked, clustered, coded, decoded
WAYS: dict[Kind, str] = dict(zip(KINDS, plots.WAYS, strict=True))
# Of notebook 03, by control.
SECTIONS = {"ratio": 8, "kind": 5, "bits": 5, "huffman": 6, "energy": 2, "epochs": 8, "seed": 8, "layer": 4}


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    recipe: Recipe
    layer: str


@dataclass(frozen=True)
class Answer:
    """The last step of the recipe, measured; on first slices of the data while it is not `whole`."""

    settings: Settings
    step: Step


class CompressionExplorer(PinningExplorer[Settings, Answer]):
    """Compress a model by moving sliders: every move really prunes, shares, encodes, decodes and measures it.

    Args:
        model: any `nn.Module` with a linear or convolutional layer; copied, never changed.
        dataset: any `Dataset` whose samples the model takes. Validation measures, train fine-tunes, test is not read.
        ratio: where the ratio slider begins, one of `RATIOS`.
        seconds: for the curves. Where they would take longer on this machine, they have fewer ratios, and the words say
            so. None takes all.

    Controls: `ratio`, `kind`, `bits`, `huffman`, `energy` (low rank), `epochs` (of fine-tuning), `seed`, `layer` (whose
    weights are shown), `pin_name`. After `wait()`: `model`, `step`, `profile`, whose file is the compressed one. After
    `wait_curves()` the curves are complete.

    Raises:
        ValueError: nothing to compress, samples that the model cannot take, a ratio that is no stop.
    """

    _first = _curves = ("plane",)
    _technique, _suffix = "compression", ".kit"
    step: Step = of_answer("step", "Accuracy and ledger of the latest answer (waits for it).")

    def __init__(
        self, model: nn.Module, dataset: Dataset, *, ratio: float = 0.9, seconds: float | None = SECONDS
    ) -> None:
        sizing.check_seconds(seconds)
        training.check_fits(model, dataset)
        self.dataset, self._seconds, inputs = dataset, seconds, dataset.validation.inputs
        size = training.batch_for(model, inputs, seconds=SLICE_SECONDS)
        self._sample_seconds = training.pace_of(model, inputs).rate(min(size, len(inputs)))
        self._compression = Compression(model, dataset, slice_size=size)
        self._flops, self._parameters = measure.flops(model, inputs), measure.parameters(model)
        self._took = 0.0  # seconds of the first answer
        self._failed: set[Recipe] = set()  # whose point cannot be had
        self.here = Mark("point")
        title = f"CompressionExplorer: {type(model).__name__} on {dataset.name}"
        call = {"ratio": ratio} | ({} if seconds == SECONDS else {"seconds": seconds})
        table = _table(ratio, prune.prunable(self._compression.dense, embeddings=True))
        super().__init__(title, table, (("model", "dataset"), call), marks=[self.here])

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        moved = {each.name: getattr(self, each.name).value for each in fields(Recipe) if each.name in self._table}
        return Settings(Recipe(**moved), self.layer.value)

    @property
    def model(self) -> nn.Module:
        """The compressed model of the latest answer (waits for it); of a large one a copy."""
        model = self._model(self._latest())
        return training.copy_of(model) if self._compression.large else model  # a reader may train it

    @property
    def profile(self) -> Profile:
        """Everything measured about the latest answer on the validation split, latency at batch 1 (waits for it)."""
        return self._pin(self._latest()).profile

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        """Compress and measure what is not remembered; show slices as they come."""
        recipe, began, new = settings.recipe, time.perf_counter(), self._compression.known(settings.recipe) is None
        self._busy(new and (recipe.epochs > 0 or self._took > 1))

        def show(part: Step) -> None:
            self._show(Answer(settings, part))

        bar = ProgressCallback(self.progress)
        step = self._compression.step(recipe, callbacks=[bar], cancel=cancel, on_slice=show)
        # What the figures show, while it can be cancelled; backwards, so that few models are there at once.
        for _, each in reversed(recipe.steps):
            self._compression.ledger(each, cancel=cancel)
        self._took = self._took or time.perf_counter() - began
        return Answer(settings, step)

    def _missing(self, answer: Answer) -> tuple[Sequence[Recipe], int]:
        """Recipes still to measure: the dense model, then coarse first, the curves in turn."""
        ways = self._ways(answer.settings.recipe).values()
        every = dict.fromkeys([NOTHING, *(each.key for turn in zip(*ways, strict=True) for each in turn)])
        pieces = [each for each in every if each not in self._failed]
        return [each for each in pieces if not self._known([each])], len(pieces)

    def _grow(self, answer: Answer, missing: Sequence[Recipe], cancel: Event) -> None:
        try:
            self._compression.step(missing[0], cancel=cancel)
        except training.Cancelled:
            raise
        except Exception:
            self._failed.add(missing[0])  # a reader who asks for it is told why in the foreground

    def _known(self, recipes: Sequence[Recipe]) -> list[Step]:
        """What is measured of them, on all samples."""
        return [step for each in recipes if (step := self._compression.known(each)) and step.whole]

    def _ways(self, recipe: Recipe) -> dict[str, list[Recipe]]:
        """The recipes of each curve by its name, coarse first."""
        ratios = self._ratios(recipe)
        return {name: [replace(recipe, kind=kind, ratio=ratio) for ratio in ratios] for kind, name in WAYS.items()}

    def _ratios(self, recipe: Recipe) -> Sequence[float]:
        """Those of a curve: all, or as many as are measured in time."""
        tuned = 6 * recipe.epochs * len(self.dataset.train)  # forward passes: a backward one is worth two; two steps
        work = (len(self.dataset.validation) + tuned) * self._flops + OPERATIONS * self._parameters
        if sizing.sure(len(WAYS) * len(RATIOS) * work, self._seconds):
            return COARSE_FIRST
        point, numbers = self._took + tuned * self._sample_seconds, range(len(RATIOS), FEWEST - 1, -1)
        return COARSE_FIRST[: sizing.fullest(numbers, lambda number: number * len(WAYS) * point, self._seconds)]

    def _pin(self, answer: Answer) -> Pin:
        recipe, dense = answer.settings.recipe, self._compression.dense
        profile = measure.profile(self._model(answer), self.dataset.validation)
        profile = replace(profile, file_bytes=answer.step.ledger.total)
        return Pin(f"{type(dense).__name__}, {recipe}", profile, asdict(recipe))

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        settings = Settings(NOTHING, self.layer.value) if answer is None else answer.settings
        recipe, compression, name = settings.recipe, self._compression, settings.layer
        before = partial(compression.model, replace(recipe, kind="off"))
        after = partial(compression.model, recipe)

        def weight(model: nn.Module) -> Any:
            """Of the layer; where low rank made two of it, of the first."""
            stem = name.removesuffix(".weight") + "."
            return next(
                each
                for own, each in prune.prunable(model, embeddings=True).items()
                if own == name or own.startswith(stem)
            )

        def codebook() -> Panel:
            # Of no answer none are counted: of a large model that takes as long as its first answer.
            both = (torch.zeros(0),) * 2 if answer is None else (weight(before()), weight(after()))
            return plots.codebook_panel(name, *both)

        def error() -> Panel:
            sizes = {own: each.numel() for own, each in prune.prunable(after(), embeddings=True).items()}
            # Nothing is lost before an answer.
            loud = dict.fromkeys(sizes, math.inf) if answer is None else compress.sqnr(before(), after())
            return plots.error_panel(sizes, loud, recipe.bits * (recipe.kind != "off"))

        return {
            "plane": lambda: self._plane(recipe),
            "bytes": lambda: plots.bytes_panel({step: compression.ledger(each) for step, each in recipe.steps}),
            "codebook": codebook,
            "error": error,
        }

    def _plane(self, recipe: Recipe) -> Panel:
        known = {name: self._known(recipes) for name, recipes in self._ways(recipe).items()}
        return plots.plane_panel(
            [_curve(name, sorted(steps, key=lambda step: step.recipe.ratio)) for name, steps in known.items()],
            WAYS[recipe.kind],
            dense=_curve("dense model", self._known([NOTHING])),
            pins=self._pin_curve("file_bytes")._replace(said=tuple(self._pin_names)),
            dense_size=self._compression.ledger(NOTHING).total,
            chance=100 * training.chance(self.dataset.validation.labels),
        )

    def _draw_marks(self, answer: Answer) -> None:
        self.here.values = self._here(answer, answer.settings)

    def _here(self, answer: Answer, settings: Settings) -> list[float]:
        written = [answer.step] if answer.step.ledger.total else []
        return [values[0] for values in _curve("here", written)[1:5]] if written else []

    def _difference(self, kept: Answer, answer: Answer) -> Estimate | None:
        """Image by image, on the whole validation split."""
        return Estimate.from_pairs(self._right(answer), self._right(kept)) if answer.step.whole else None

    def _model(self, answer: Answer) -> nn.Module:
        return self._compression.model(answer.settings.recipe)

    def _write(self, answer: Answer, file: Path) -> int:
        return compress.write(self._model(answer), file, huffman=answer.settings.recipe.huffman)

    def _loading(self, answer: Answer, model: nn.Module) -> str:
        """The reader has the model that was compressed."""
        energy = answer.settings.recipe.energy
        made = f"smaller = compress.low_rank(model, energy={energy}).model; "
        return made * (energy < 1) + f"compress.load_into({'smaller' if energy < 1 else 'model'}, {{}})"

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """Go to a point of a curve, or to the dense model."""
        recipes = {**self._ways(self.settings.recipe), "dense model": [NOTHING]}.get(curve, [])
        if figure == "plane" and (steps := self._known(recipes)):
            points = _curve(curve, steps)
            near = [abs(own - x) + abs(value - y) for own, value in zip(points.x, points.value, strict=True)]
            there = steps[near.index(min(near))].recipe
            self.set(**{name: getattr(there, name) for name in ("ratio", "kind", "energy")})

    def _words(self, answer: Answer) -> str:
        recipe, step, ledger = answer.settings.recipe, answer.step, answer.step.ledger
        dense, whole = self._known([NOTHING]), self._compression.ledger(NOTHING).total
        shares = {part: f"{100 * size / max(ledger.total, 1):.0f} %" for part, size in asdict(ledger).items()}
        where = ", ".join(f"{part} {share}" for part, share in shares.items() if share != "0 %")
        chance = training.chance(self.dataset.validation.labels)
        ratios, broken = len(self._ratios(recipe)), training.in_words(step.nonfinite, step.accuracy.n)
        sentences = [
            f"<b>{str(recipe)[0].upper()}{str(recipe)[1:]}</b>.",
            f"Accuracy <b>{step.accuracy.percent}</b>, 95 % interval, {step.accuracy.n:,} {self.dataset.noun}"
            f"{'' if step.whole else ' so far'}{''.join(f'; dense {each.accuracy.percent}' for each in dense)}.",
            f"File <b>{amount(ledger.total, 'B')}</b>, <b>{whole / ledger.total:.3g} times smaller</b> than dense "
            f"({amount(whole, 'B')}), written and read back equal: {where}."
            if ledger.total
            else "The file is being written.",
            *[f"<b>The model {broken}: these count as wrong.</b>"] * bool(broken),
            *[GUESSES.format(100 * chance) for each in dense if each.accuracy.low <= chance],
        ]
        sized = [f"{ratios} of {len(RATIOS)} ratios a curve"] * (ratios < len(RATIOS))
        return " ".join([*sentences, *filter(None, [sizing.sentence(self._seconds, sized)]), *self._trouble])


def _curve(label: str, steps: Sequence[Step]) -> Curve:
    points = [(step.ledger.total, step.accuracy) for step in steps]
    return Curve.of(label, points, [str(step.recipe) for step in steps])


def _table(ratio: float, weights: Mapping[str, nn.Parameter]) -> list[Row]:
    row = partial(Control, group="compress")
    largest = max(weights, key=lambda name: weights[name].numel())
    layers = {html.escape(name.removesuffix(".weight")): name for name in weights}
    kept = "Share of each layer's squared singular values that low rank keeps; 100 % is off."
    percent, kinds = (lambda share: f"{100 * share:.4g} %"), {"shared": "shared", "grid": "uniform", "off": "off"}
    rows = [
        row("ratio", "stops", ratio, "Share of the weights to prune.", RATIOS, unit="%", text=percent, wide=True),
        row("kind", "toggle", "shared", "What the others become: values of a codebook or of a grid.", kinds),
        row("bits", "slider", 5, "Of a code: 2 to that power values a layer.", (2, compress.MOST_BITS)),
        row("huffman", "check", True, "Frequent codes and gaps get short codes.", label="Huffman codes"),
        row("energy", "stops", 1.0, kept, ENERGIES, "low rank", unit="%", text=percent),
        row("epochs", "slider", 0, "Passes over the train split after each step.", (0, 5), "fine-tuning"),
        row("seed", "number", 0, "Of the order of the samples in fine-tuning.", (0, 9999)),
        row("layer", "choice", largest, "Whose weights the histogram shows.", layers, group="picture"),
    ]
    return [*(replace(each, section=f"03, section {SECTIONS[each.name]}") for each in rows), *PIN_ROWS]
