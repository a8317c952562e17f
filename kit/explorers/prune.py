"""The pruning explorer: what to remove, by which importance, how much; and what that costs and buys."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

import ipywidgets as widgets
from torch import nn

from kit import training
from kit.data import Dataset
from kit.explorers.base import WIDE, LiveFigure, ProgressWidget, Stops
from kit.explorers.page import Here
from kit.explorers.pinning import PinningExplorer
from kit.explorers.worker import quiet
from kit.measure import Profile, SizeName
from kit.plots import prune as plots
from kit.plots import still
from kit.prune import IMPORTANCES, SCOPES, WHATS, Method, Point, Pruned, Scope, Sizes, Sweep, What

# Forty stops, close together where the cliff is.
RATIOS: tuple[float, ...] = (
    *(round(0.05 * step, 3) for step in range(17)),
    *(0.825, 0.85, 0.875),
    *(round(0.90 + 0.01 * step, 3) for step in range(9)),
    *(0.985, 0.99),
    *(round(0.99 + 0.001 * step, 3) for step in range(1, 10)),
)
# Each step halves the distance between measured neighbours, so the curve has its shape early.
COARSE_FIRST = tuple(sorted(RATIOS, key=lambda ratio: -((RATIOS.index(ratio) or 64) & -(RATIOS.index(ratio) or 64))))

# What works better on its own: weights compare well across layers, channels of different layers do not.
USUAL_SCOPE: dict[What, Scope] = {"weights": "global", "channels": "layer"}

SLICE_SECONDS = 0.04  # a slice of the validation split should take about so long: the first answer's budget
# The figures under the plane follow a moment later and one by one: each takes the page some 20 ms, and the marker would
# be painted only after all that comes in the same burst.
DETAIL_SECONDS, BETWEEN_SECONDS = 0.08, 0.03
PAINT_SECONDS = 0.3  # the growing curve is painted so often at most: a painting costs more than a point

SIZE_WORDS: dict[str, SizeName] = {
    "non-zeros": "nonzeros",
    "bytes on disk": "file_bytes",
    "FLOPs": "flops",
    "latency": "latency",
}


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    method: Method
    ratio: float
    size: SizeName


class PruningExplorer(PinningExplorer):
    """Prune a model by moving sliders: every move prunes it, measures it and draws it.

    Args:
        model: any `nn.Module` with a linear or convolutional layer; copied, never changed.
        dataset: any `Dataset` whose samples the model takes. Validation measures, train scores and fine-tunes, test is
            not read.
        ratio: where the ratio slider begins, one of `RATIOS`.
        what: what the explorer begins with, "weights" or "channels".

    Controls, each with its value to read or set from code: `what`, `importance`, `scope`, `ratio`, `epochs`, `seed`,
    `size`, `pin_name`; buttons `pin_button`, `reset_button`, `stop_button`. After `wait()`: `model` (the pruned model),
    `point`, `profile` (its measurements). After `wait_sweep()` the curves are complete.

    Raises:
        ValueError: nothing to prune, samples that the model cannot take, a ratio that is no stop.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, *, ratio: float = 0.5, what: What = "weights") -> None:
        """Take the dense model's sizes, build the widgets, ask for the first answer."""
        Method(what)  # refuses an unknown word
        training.check_fits(model, dataset)
        self.dataset = dataset
        self._sweep = Sweep(model, dataset, slice_size=_slice_size(model, dataset))
        self._failed: set[Method] = set()  # methods whose curve cannot be had
        self._curves_painted = 0.0
        self._defaults = {
            **{"what": what, "ratio": ratio, "importance": "magnitude", "scope": USUAL_SCOPE[what]},
            **{"epochs": 0, "seed": 0, "size": "nonzeros"},
        }
        controls = self._make_controls()
        dense = self._sweep.model
        kept = plots.kept_info(dense, self._sweep.pruned(Method(), 0.0).kept)
        self._plane = LiveFigure(plots.plane_figure(self._plane_info(self.settings, None)))
        self._kept = LiveFigure(plots.kept_figure(kept))
        self._weights = LiveFigure(plots.weights_figure(plots.weights_info(dense, dense)))
        self._filters = LiveFigure(plots.filters_figure(plots.filters_info(dense, dense, dataset.input_shape)))
        title = f"PruningExplorer: {type(model).__name__} on {dataset.name}"
        self.here = Here()
        details = (self._kept, self._weights, self._filters)
        super().__init__(title, controls, self._plane, details, overlays=[self.here])
        self._begin()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        epochs, seed = int(self.epochs.value), int(self.seed.value)
        method = Method(self.what.value, self.importance.value, self.scope.value, epochs, seed)
        return Settings(method, self.ratio.value, self.size.value)

    @property
    def dense(self) -> Sizes:
        """Sizes of the model before pruning."""
        return self._sweep.dense

    @property
    def model(self) -> nn.Module:
        """The pruned model of the latest answer (waits for it)."""
        settings = self._latest()
        return self._sweep.pruned(settings.method, settings.ratio).model

    @property
    def point(self) -> Point:
        """Accuracy and sizes of the latest answer (waits for it)."""
        settings = self._latest()
        return self._sweep.point(settings.method, settings.ratio)

    @property
    def profile(self) -> Profile:
        """Everything measured about the latest answer on the validation split, latency at batch 1 (waits for it)."""
        settings = self._latest()
        return self._sweep.profile(settings.method, settings.ratio)

    def points(self, method: Method | None = None) -> tuple[Point, ...]:
        """What is measured so far of a method's curve (by default the chosen one), in order of the ratio."""
        method = method or self.settings.method
        found = (self._sweep.known(method, ratio) for ratio in RATIOS)
        return tuple(point for point in found if point is not None)

    def _latest(self) -> Settings:
        self.wait()
        if self._answered is None:
            raise RuntimeError("no answer yet: the work was stopped before the first one; move a control.")
        return self._answered

    # -- controls --------------------------------------------------------------------------------------------------

    def _make_controls(self) -> list[widgets.Widget]:
        start = self._defaults
        self.what = widgets.ToggleButtons(
            options=WHATS, value=start["what"], style={"button_width": "104px"}, tooltips=("set to zero", "take out")
        )
        self.ratio = Stops(
            RATIOS, lambda ratio: f"{100 * ratio:.4g} %", value=start["ratio"], description="ratio", **WIDE
        )
        self.importance = widgets.Dropdown(options=IMPORTANCES, value="magnitude", description="importance", **WIDE)
        self.scope = widgets.Dropdown(options=SCOPES, value=start["scope"], description="scope", **WIDE)
        self.epochs = widgets.IntSlider(0, 0, 10, description="fine-tuning", continuous_update=False, **WIDE)
        self.seed = widgets.BoundedIntText(0, 0, 9999, description="seed", **WIDE)
        self.size = widgets.Dropdown(options=SIZE_WORDS, value="nonzeros", description="size axis", **WIDE)
        self.ratio.add_class("kit-wide")  # the most moved one gets the whole width
        return [*(getattr(self, name) for name in start), *self._make_pin_controls()]

    def _move(self, change: Any) -> None:
        """As for all; what is removed brings its usual scope along."""
        if change is not None and change["owner"] is self.what and not self._quiet:
            with self._quietly():
                self.scope.value = USUAL_SCOPE[self.what.value]
        super()._move(change)

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _answer(self, settings: Settings, cancel: Event) -> None:
        """Show the asked point; then, unless a newer request waits, its details."""
        method, ratio = settings.method, settings.ratio
        if self._sweep.known(method, ratio) is None:
            self._find(settings, cancel)
        if settings.size == "latency":
            with quiet():
                self._sweep.latency(Method(), 0.0, cancel=cancel)  # the right end of the axis
                self._sweep.latency(method, ratio, cancel=cancel)
        self._answered = settings
        self._show(settings, self._sweep.point(method, ratio))
        self._show_details(settings, self._sweep.pruned(method, ratio, cancel=cancel), cancel)

    def _find(self, settings: Settings, cancel: Event) -> None:
        """Prune and measure what is not remembered; show slices as they come."""
        self._busy(settings.method.epochs > 0)
        try:
            self._sweep.point(
                settings.method,
                settings.ratio,
                callbacks=[ProgressWidget(self.progress)],
                cancel=cancel,
                on_slice=lambda partial: self._show(settings, partial),
            )
        except training.Cancelled:
            if not self._worker.newer:
                self._say(f"Stopped. Move a control to go on. {self._last_words()}")
            raise
        finally:
            self._busy(False)

    def _show(self, settings: Settings, point: Point) -> None:
        """Move the marker, write the status line."""
        info = self._plane_info(settings, point)
        self._draw(info)
        self._say(self._in_words(settings, point))

    def _draw(self, info: plots.PlaneInfo) -> None:
        """Move the marker, then change what is new in the plane: often nothing."""
        self.here.point = plots.here_point(info)
        self._paint(self._plane, plots.plane_traces(info), **plots.plane_layout(info))

    def _show_details(self, settings: Settings, pruned: Pruned, cancel: Event) -> None:
        """Paint the figures under the plane, then complete the status line with the latency."""
        _give_way(cancel, DETAIL_SECONDS)
        dense = self._sweep.model
        self._paint(self._kept, plots.kept_traces(plots.kept_info(dense, pruned.kept)))
        _give_way(cancel, BETWEEN_SECONDS)
        thresholds = self._sweep.thresholds(settings.method, settings.ratio)
        self._paint(self._weights, plots.weights_traces(plots.weights_info(dense, pruned.model, thresholds)))
        _give_way(cancel, BETWEEN_SECONDS)
        first_layer = next(iter(pruned.kept)).removesuffix(".weight")
        outputs = pruned.outputs.get(first_layer)
        filters = plots.filters_info(dense, pruned.model, self.dataset.input_shape, outputs)
        self._paint(self._filters, plots.filters_traces(filters))
        _give_way(cancel, BETWEEN_SECONDS)  # what was painted is sent: nothing computes beside the timing
        with quiet():
            self._sweep.latency(settings.method, settings.ratio, again=True, cancel=cancel)
        self._say(self._in_words(settings, self._sweep.point(settings.method, settings.ratio)))

    def _idle(self, cancel: Event) -> bool:
        """Measure the next missing point of the curve and its rival, coarse first; paint the curve now and then."""
        settings = self._answered  # not what the controls say: that may have been stopped or refused
        if settings is None or self._halted:
            return False
        missing = list(self._missing(settings))
        if missing:
            method, ratio = missing[0]
            try:
                first_news = self._sweep.known(Method(), 0.0) is None
                self._sweep.point(method, ratio, cancel=cancel)
                if first_news and settings == self.settings:  # the words can now compare with the dense model
                    self._say(self._in_words(settings, self._sweep.point(settings.method, settings.ratio)))
                if settings.size == "latency":
                    self._sweep.latency(method, ratio, cancel=cancel)
            except training.Cancelled:
                raise
            except Exception:
                self._failed.add(method)  # a reader who asks for it is told why in the foreground
        left = max(0, len(missing) - 1)
        if left == 0 or time.monotonic() - self._curves_painted > PAINT_SECONDS:
            self._curves_painted = time.monotonic()
            info = self._plane_info(settings, self._sweep.known(settings.method, settings.ratio))
            self._draw(info)
            total = len(RATIOS) * len(self._methods(settings))
            done = f"curves: {total - left} of {total} points" if left else f"curves complete: {total} points"
            self.sweep_note.value = done
        if not self._worker.asked:
            self.stop_button.disabled = left == 0  # long curves can be stopped too
        return left > 0

    def _methods(self, settings: Settings) -> list[Method]:
        """The chosen method, its rival and magnitude to compare with, without those that failed."""
        method = settings.method
        wanted = dict.fromkeys((method, method.rival, method.usual))
        return [each for each in wanted if each not in self._failed]

    def _missing(self, settings: Settings) -> Iterator[tuple[Method, float]]:
        """Points still to measure, coarse first, the curves in turn."""
        for ratio in COARSE_FIRST:
            for method in self._methods(settings):
                if self._sweep.known(method, ratio) is None or (
                    settings.size == "latency" and self._sweep.known_latency(method, ratio) is None
                ):
                    yield method, ratio

    def _pin(self, name: str | None, replace: bool, settings: Settings | None, cancel: Event) -> None:
        if settings is None:
            raise RuntimeError("nothing to pin yet: wait for the first answer.")
        if self._sweep.known(settings.method, settings.ratio) is None:
            self._find(settings, cancel)
        self._answered = settings
        name = name or _pin_name(type(self._sweep.model).__name__, settings)
        record = {**asdict(settings.method), "ratio": settings.ratio}
        profile = self._sweep.profile(settings.method, settings.ratio)
        self._keep_pin(name, profile, "pruning", record, replace)
        point = self._sweep.point(settings.method, settings.ratio)
        self._show(settings, point)
        self._say(f"Pinned as <b>{html.escape(name)}</b>. {self._in_words(settings, point)}")

    # -- numbers and words -----------------------------------------------------------------------------------------

    def _plane_info(self, settings: Settings, here: Point | None) -> plots.PlaneInfo:
        size, method = settings.size, settings.method
        rival, usual = method.rival, method.usual
        dense = self._sweep.known(Method(), 0.0)
        dense_size = self._size_of(size, Method(), dense) or 1.0
        floor = dense_size / 10 ** plots.SIZE_AXES[size].decades  # the left end of the axis

        def line(label: str, method: Method, points: tuple[Point | None, ...]) -> plots.Line:
            sized = ((self._size_of(size, method, point), point) for point in points if point is not None)
            entries = [(value, point.accuracy, point.ratio) for value, point in sized if value is not None]
            return plots.line(label, size, entries, floor=floor)

        return plots.PlaneInfo(
            size=size,
            own=line(method.importance, method, self.points(method)),
            rival=line("random", rival, () if method == rival else self.points(rival)),
            dense=line("dense", Method(), (dense,)),
            here=line("here", method, (here,)),
            pins=self._pin_line(size, floor),
            pin_names=self._pin_names,
            dense_size=dense_size / plots.SIZE_AXES[size].divisor,
            chance=100 / self.dataset.n_classes,
            usual=line("magnitude", usual, () if method == usual else self.points(usual)),
        )

    def _size_of(self, size: SizeName, method: Method, point: Point | None) -> float | None:
        """A size of a point in base units; None for a latency that is not measured yet."""
        if size == "latency":
            latency = None if point is None else self._sweep.known_latency(method, point.ratio)
            return None if latency is None else latency.value
        return float(getattr(self._sweep.dense if point is None else point.sizes, size))

    def _last_words(self) -> str:
        """What the picture shows, where nothing newer was answered."""
        if self._answered is None:
            return "There is no answer yet."
        shown = self._in_words(self._answered, self._sweep.point(self._answered.method, self._answered.ratio))
        return f"The picture shows the last answer: {shown}"

    def _in_words(self, settings: Settings, point: Point) -> str:
        """The status line: what is there now, what it cost, what it bought."""
        method, dense, sizes = settings.method, self._sweep.dense, point.sizes
        first = self._sweep.known(Method(), 0.0)
        order = {"magnitude": "smallest first", "taylor": "least effect on the loss first", "random": "at random"}
        tuned = f", then {_epochs(method)} of fine-tuning" if method.epochs else ", no fine-tuning"
        latency = self._sweep.known_latency(method, settings.ratio)
        parts = [
            f"<b>{100 * point.ratio:.4g} % of the {method.what} removed</b> ({method.importance}: "
            f"{order[method.importance]}, {method.scope}{tuned}).",
            f"Accuracy <b>{point.accuracy.percent}</b>, 95 % interval, {point.accuracy.n:,} images"
            + ("" if point.whole else " so far")
            + (f"; dense {first.accuracy.percent}." if first else "."),
            f"Non-zeros <b>{sizes.nonzeros:,}</b> of {dense.nonzeros:,}; file {sizes.file_bytes / 1e3:,.1f} kB of "
            f"{dense.file_bytes / 1e3:,.1f}; {sizes.flops / 1e6:.3g} MFLOPs of {dense.flops / 1e6:.3g}"
            + (
                f"; latency {latency.value:.2f} ms ({latency.low:.2f} to {latency.high:.2f}) at batch 1."
                if latency
                else "."
            ),
        ]
        if point.emptied:
            parts.append(f"<b>Nothing is left of {', '.join(point.emptied)}: the network is cut there.</b>")
        parts += self._trouble
        if point.floored:
            parts.append(f"<b>One channel was kept in {', '.join(point.floored)}, against the ratio.</b>")
        return " ".join(parts)

    def _still(self) -> bytes:
        settings = self.settings
        return still.plane_png(self._plane_info(settings, self._sweep.known(settings.method, settings.ratio)))


def _slice_size(model: nn.Module, dataset: Dataset) -> int:
    """Validation samples that fit the first answer's budget, by the time that 64 of them take."""
    inputs = dataset.validation.inputs[:64]
    training.predict(model, inputs)  # warm
    began = time.perf_counter()
    training.predict(model, inputs)
    seconds = (time.perf_counter() - began) / len(inputs)
    return int(min(1024, max(64, SLICE_SECONDS / max(seconds, 1e-9))))


def _give_way(cancel: Event, seconds: float) -> None:
    """Pause, unless or until a newer request comes."""
    if cancel.wait(seconds):
        raise training.Cancelled("a newer request waits.")


def _epochs(method: Method) -> str:
    return f"{method.epochs} epoch{'s' * (method.epochs != 1)}"


def _pin_name(model: str, settings: Settings) -> str:
    """A name that tells the settings; another setting gives another name."""
    method = settings.method
    parts = [model, f"{100 * settings.ratio:.4g} % {method.what}", method.importance, method.scope]
    parts += [_epochs(method)] * bool(method.epochs) + [f"seed {method.seed}"] * bool(method.seed)
    return ", ".join(parts)
