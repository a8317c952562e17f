"""What every explorer shares: the layout, the worker, the status line, the progress bar, painting, the theme."""

from __future__ import annotations

import base64
import html
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from kit import training
from kit.explorers.page import Fit
from kit.explorers.worker import Job, Worker

# Figures carry no text colour of their own; the notebook's theme gives it through its CSS variables, with a fallback
# that reads on white and on black. Plotly writes colours inline, so `!important` is needed.
_CSS = """<style>
.kit-explorer .js-plotly-plot text { fill: var(--jp-ui-font-color1, #767676) !important; }
.kit-explorer .js-plotly-plot .main-svg { background: transparent !important; }
.kit-explorer .js-plotly-plot .hoverlayer text { fill: #fff !important; }
.kit-explorer .js-plotly-plot .hoverlayer path { fill: #333 !important; }
.kit-explorer .js-plotly-plot { transition: opacity 0.15s; }
/* work that is done in a moment does not dim the picture */
.kit-explorer.kit-busy .js-plotly-plot { opacity: 0.45; transition-delay: 0.6s; }
.kit-explorer.kit-busy .kit-instant .js-plotly-plot, .kit-explorer.kit-busy .kit-instant.js-plotly-plot { opacity: 1; }
.kit-explorer .kit-controls { border-right: 1px solid var(--jp-border-color2, #bdbdbd); }
.kit-explorer .kit-controls button:focus-visible, .kit-explorer .kit-controls .noUi-handle:focus-visible {
  outline: 2px solid var(--jp-brand-color1, #2196f3); outline-offset: 1px; }
.kit-explorer .kit-figure > * { width: 100%; min-width: 0; }
.kit-explorer .kit-wide { height: auto; flex-wrap: wrap; }
.kit-explorer .kit-wide .slider-container { order: 3; flex: 1 1 100%; margin: 0 10px; }
.kit-explorer .kit-wide { margin-bottom: 8px; }
.kit-explorer .kit-wide > select { order: 3; flex: 1 1 100%; height: 28px; }
/* the readout shows; the slider sets */
.kit-explorer .kit-wide .widget-readout { pointer-events: none; margin-left: auto; font-weight: bold; }
.kit-explorer .kit-status .widget-html-content { line-height: 1.4; }
.kit-explorer .kit-status { color: var(--jp-ui-font-color1, inherit); min-height: 6.5em; padding-left: 8px; }
.kit-explorer .kit-error { color: var(--jp-error-color0, #b00020); }
.kit-explorer .kit-note .widget-html-content { line-height: 1.3; }
.kit-explorer .kit-note { color: var(--jp-ui-font-color2, inherit); font-size: 12px; line-height: 1.3; }
</style>"""

_COLUMN = {"width": "250px", "flex": "0 0 250px", "padding": "4px 10px 4px 0", "overflow": "hidden"}
_STRETCH = {"flex": "1 1 0", "min_width": "0", "overflow": "hidden"}

WIDE: dict[str, Any] = {"layout": {"width": "100%"}, "style": {"description_width": "72px"}}  # a labelled control

STILLS = "KIT_STILLS"  # set by the notebooks' refresh: explorers then add a still picture to what they display


def bundle_with(bundle: Any, text: str, still: Callable[[], bytes] | None = None) -> tuple[dict[str, Any], Any]:
    """What the notebook shows: the widget; a stable text; and a still picture where one is asked for.

    Args:
        bundle: what ipywidgets makes.
        text: the text/plain: no measured numbers, they differ between machines.
        still: makes the PNG; called only where `KIT_STILLS` is set.
    """
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    data["text/plain"] = text
    if still is not None and os.environ.get(STILLS):
        data["image/png"] = base64.b64encode(still()).decode()
    return data, metadata


class LiveFigure(go.FigureWidget):
    """A figure that is only painted from the kernel.

    After each painting the page reports all of plotly's defaults back, some 14 kB; reading them keeps the kernel busy
    for tens of milliseconds, in which the next move of a slider waits. Nothing here needs them.
    """

    def _handler_js2py_traceDeltas(self, change: Any) -> None:  # noqa: N802  (plotly's own name)
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:  # noqa: N802
        pass


class Stops(widgets.SelectionSlider):
    """A slider over given numbers, closer together where it matters.

    Args:
        stops: the numbers, ascending.
        text: how a stop is written.
        **settings: as `ipywidgets.SelectionSlider`.

    Setting a value between two stops is refused, with the nearest stop.
    """

    def __init__(self, stops: Sequence[float], text: Callable[[float], str], **settings: Any) -> None:
        """Pair each number with its text."""
        self.stops, self._called = tuple(stops), settings.get("description") or "value"
        super().__init__(options=[(text(stop), stop) for stop in stops], **settings)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a value that is no stop, in a sentence."""
        if name == "value" and value not in self.stops:
            below = max(
                (stop for stop in self.stops if isinstance(value, (int, float)) and stop <= value), default=None
            )
            above = min(
                (stop for stop in self.stops if isinstance(value, (int, float)) and stop >= value), default=None
            )
            near = " and ".join(f"{stop:g}" for stop in (below, above) if stop is not None)
            raise ValueError(
                f"{self._called} must be one of the slider's {len(self.stops)} stops from "
                f"{self.stops[0]:g} to {self.stops[-1]:g}; got {value!r}"
                + (f", the nearest are {near}." if near else ".")
            )
        super().__setattr__(name, value)


class Explorer(widgets.VBox):
    """A column of controls, a large figure, detail figures under it, one status line.

    Subclasses make the controls and figures, then call `_request` for each move. Everything that computes or paints
    runs in the worker.

    Args:
        title: what the explorer is, for a reader without the picture.
        controls: widgets of the left column, top to bottom.
        main: the large figure.
        details: the figures under it, if any.
        overlays: helpers in the page that draw over the large figure.
        stoppable: whether there is work long enough for a stop button and a progress bar.
    """

    _quiet = False  # controls are being set together: a move of one is none yet

    def __init__(
        self,
        title: str,
        controls: Sequence[widgets.Widget],
        main: LiveFigure,
        details: Sequence[LiveFigure] = (),
        *,
        overlays: Sequence[widgets.Widget] = (),
        stoppable: bool = True,
    ) -> None:
        """Lay the parts out."""
        self.title = title
        self._worker = Worker(self._idle, self._say_error)
        self.status = widgets.HTML().add_class("kit-status")
        self.sweep_note = widgets.HTML().add_class("kit-note")
        self.progress = widgets.FloatProgress(min=0, max=1, layout={"width": "100%", "height": "10px"})
        self.stop_button = widgets.Button(description="Stop", icon="stop", tooltip="Stop the work", disabled=True)
        self.stop_button.layout.width = "100%"
        self.stop_button.on_click(lambda _: self.stop())
        for figure in (main, *details):
            figure._config = {**figure._config, "responsive": True, "displayModeBar": False}
        work = [self.stop_button, self.progress, self.sweep_note] if stoppable else []
        column = widgets.VBox([*controls, *work], layout=_COLUMN)
        column.add_class("kit-controls")
        picture = widgets.VBox(
            [widgets.Box([main], layout={"width": "100%"}).add_class("kit-figure"), self.status], layout=_STRETCH
        )
        below = [widgets.Box([detail], layout=_STRETCH).add_class("kit-figure") for detail in details]
        super().__init__(
            [
                widgets.HTML(_CSS, layout={"display": "none"}),
                widgets.VBox([Fit(), *overlays], layout={"width": "100%", "height": "0", "overflow": "hidden"}),
                widgets.HBox([column, picture], layout={"width": "100%"}),
                widgets.HBox(below, layout={"width": "100%"}),
            ],
            layout={"width": "100%", "overflow": "hidden"},
        )
        self.add_class("kit-explorer")
        self._dimmed = False
        self._painted: dict[tuple[str, int], dict[str, Any]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to put a plain value in the place of a control.

        Raises:
            AttributeError: `explorer.ratio = 0.9`, where `explorer.ratio.value = 0.9` is meant.
        """
        if isinstance(vars(self).get(name), widgets.Widget) and not isinstance(value, widgets.Widget):
            raise AttributeError(f"{name} is a control: set {name}.value = {value!r} instead.")
        super().__setattr__(name, value)

    # -- what a script or a notebook cell uses ---------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> None:
        """Block until the controls are answered and painted.

        Args:
            timeout: seconds; None waits without end.

        Raises:
            TimeoutError: not answered in time.
            Exception: whatever the answer raised; the status line shows it too.
        """
        self._worker.wait(timeout)

    def wait_sweep(self, timeout: float | None = None) -> None:
        """Block until the background curves are complete too; errors as in `wait`."""
        self._worker.wait_idle(timeout)

    def stop(self) -> None:
        """Cancel the running work between two batches; the last picture stays."""
        self._worker.stop()

    def close(self) -> None:
        """End the worker and remove the widgets."""
        worker: Worker | None = getattr(self, "_worker", None)  # none where the constructor refused its arguments
        if worker is not None:
            worker.close()
        super().close()

    # -- for subclasses ------------------------------------------------------------------------------------------

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set several controls as one move."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _idle(self, cancel: Event) -> bool:
        """One step of background work; False when none is left, as here."""
        return False

    def _still(self) -> bytes:
        """A PNG of the main figure as it stands."""
        raise NotImplementedError

    def _request(self, job: Job, *, keep: bool = False) -> None:
        """Hand a job to the worker; see `Worker.post`."""
        self._worker.post(job, keep=keep)

    def _say(self, text: str, *, error: bool = False) -> None:
        """Write the status line (HTML)."""
        kind = ' class="kit-error"' if error else ""
        self.status.value = f'<div role="status" aria-live="polite"{kind}>{text}</div>'

    def _say_error(self, error: Exception) -> None:
        self._busy(False)
        self._say(html.escape(str(error) or type(error).__name__), error=True)

    def _busy(self, busy: bool) -> None:
        """Dim the figures and offer the stop button while long work runs."""
        self.stop_button.disabled = not busy
        if busy != self._dimmed:
            self._dimmed = busy
            (self.add_class if busy else self.remove_class)("kit-busy")
            if not busy:
                self.progress.value, self.progress.description = 0, ""

    def _paint(self, figure: LiveFigure, traces: Sequence[dict[str, Any]], **layout: Any) -> None:
        """Change what differs from the last painting of `figure`."""
        changes: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}  # by the names of what changes
        for index, arrays in enumerate(traces):
            before = self._painted.setdefault((figure.model_id, index), {})
            changed = {name: value for name, value in arrays.items() if before.get(name) != value}
            before.update(changed)
            if changed:
                changes.setdefault(tuple(changed), []).append((index, changed))
        # Not in one batch: where a batch changes a property of some traces only, plotly leaves it undefined for the
        # others, and a page that shows the figure later takes it for removed.
        for alike in changes.values():
            with figure.batch_update():
                for index, changed in alike:
                    figure.data[index].update(changed)
        frame = self._painted.setdefault((figure.model_id, -1), {})
        new_layout = {name: value for name, value in layout.items() if frame.get(name) != value}
        frame.update(new_layout)
        if new_layout:
            with figure.batch_update():
                figure.update_layout(**new_layout)

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """As `bundle_with`; the still picture waits for the background curves."""

        def complete() -> bytes:
            self.wait_sweep()
            return self._still()

        return bundle_with(super()._repr_mimebundle_(**settings), self.title, complete)


class ProgressWidget(training.Callback):
    """Moves an explorer's bar while a fit runs, with the time left; at most ten times a second.

    Args:
        bar: the widget to move.
    """

    def __init__(self, bar: widgets.FloatProgress) -> None:
        """Nothing is shown before the first batch."""
        self.bar = bar
        self._last = 0.0

    def on_batch_end(self, progress: training.Progress) -> None:
        """Move the bar."""
        now = time.monotonic()
        if now - self._last > 0.1:
            self._last = now
            self.bar.value = progress.share
            self.bar.description = f"{progress.seconds_left:.1f} s left"
