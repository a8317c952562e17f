"""How an explorer is laid out: figures that are painted from the kernel alone, a progress bar, the dashboard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from kit import training
from kit.explorers.marks import STATIC, Fit, Mark, script, style_tag
from kit.plots.curves import Panel

WHOLE = {"width": "100%", "overflow": "hidden"}
_COLUMN = {"width": "250px", "flex": "0 0 250px", "padding": "4px 10px 4px 0", "overflow": "hidden"}
_STRETCH = {"flex": "1 1 0", "min_width": "0", "overflow": "hidden"}


def bundle_with(bundle: Any, text: str) -> tuple[dict[str, Any], Any]:
    """What the notebook shows: the widget, and a stable text without measured numbers: they differ between machines."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return {**data, "text/plain": text}, metadata


def inside(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """A widget and all that is made with it: what it contains, layouts and styles."""
    yield widget
    for name in filter(widget.trait_has_value, widget.keys):
        value = getattr(widget, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, widgets.Widget):
                yield from inside(each)


def spoken(text: str) -> str:
    """HTML that a screen reader reads aloud when it changes."""
    return f'<div role="status" aria-live="polite">{text}</div>'


class TitledHTML(widgets.HTML):
    """HTML whose stored text is its title."""

    def __init__(self, title: str, value: str = "", **settings: Any) -> None:
        super().__init__(value, **settings)
        self.title = title

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return bundle_with(super()._repr_mimebundle_(**settings), self.title)


class LiveFigure(go.FigureWidget):
    """A figure that shows one panel after another, and is only painted from the kernel.

    After each painting the page reports all of plotly's defaults back, some 14 kB; reading them keeps the kernel busy
    for tens of milliseconds, in which the next move of a slider waits. Nothing here needs them.
    """

    _esm = script((STATIC / "figure.js").read_text(encoding="utf-8"))
    _plotly = script(str(go.FigureWidget._esm))

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel.figure)
        self._config: dict[str, Any] = {**self._config, "responsive": True, "displayModeBar": False}
        self._panel = panel

    def get_state(self, *asked: Any, **how: Any) -> dict[str, Any]:
        """What a page is told. A page that was opened later learns what the figure shows now, not how it began."""
        state = super().get_state(*asked, **how)
        if "_panel" in vars(self):
            for name, now in (("_widget_data", self._data), ("_widget_layout", self._layout_obj._props)):
                if name in state:
                    state[name] = self.trait_metadata(name, "to_json")(now, self)
        return state

    def show(self, panel: Panel) -> bool:
        """Change what differs from the panel before; whether there was anything."""
        # Not in one batch: where a batch changes a property of some traces only, plotly sends it as undefined for the
        # others, and the page takes it for removed.
        alike: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}  # by the paths of what changes
        for number, pair in enumerate(zip(self._panel.traces, panel.traces, strict=True)):
            if change := _differing(*pair):
                alike.setdefault(tuple(change), []).append((number, change))
        for changes in alike.values():
            with self.batch_update():
                for number, change in changes:
                    self.data[number].update(change)
        if layout := _differing(self._panel.layout, panel.layout):
            with self.batch_update():
                self.layout.update(layout)
        self._panel = panel
        return bool(alike or layout)

    def _handler_js2py_traceDeltas(self, change: Any) -> None:  # noqa: N802  (plotly's own name)
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:  # noqa: N802
        pass


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What changes, by its whole path: `marker.size`."""
    found: dict[str, Any] = {}
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            found |= _differing(old, value, f"{path}{name}.")
        elif name not in before or old != value:
            found[path + name] = value
    return found


class ProgressBar(widgets.FloatProgress):
    """How far work is, and the time left."""

    def __init__(self) -> None:
        super().__init__(min=0, max=1, layout={"width": "100%", "height": "10px"})

    def move(self, share: float, seconds_left: float | None = None) -> None:
        """Show the share that is done, 0 .. 1, and the time left where it is known."""
        self.value, self.description = share, "" if seconds_left is None else f"{seconds_left:.1f} s left"


class ProgressCallback(training.Callback):
    """Moves a bar while a fit runs, at most ten times a second."""

    def __init__(self, bar: ProgressBar) -> None:
        self.bar, self._last = bar, 0.0

    def on_batch_end(self, progress: training.Progress) -> None:
        """Move the bar."""
        if (now := time.monotonic()) - self._last > 0.1:
            self._last = now
            self.bar.move(progress.share, progress.seconds_left)


def dashboard(
    column: Sequence[widgets.Widget], figures: Sequence[LiveFigure], status: widgets.HTML, marks: Sequence[Mark]
) -> list[widgets.Widget]:
    """Controls in a narrow column on the left, the first figure with the status line beside it, the others below."""
    wide = {"width": "100%"}
    looks = [wide, *[_STRETCH] * (len(figures) - 1)]
    main, *details = (
        widgets.Box([figure], layout=look).add_class("kit-figure") for figure, look in zip(figures, looks, strict=True)
    )
    controls = widgets.VBox(column, layout=_COLUMN).add_class("kit-controls")
    return [
        widgets.HTML(style_tag("explorer.css"), layout={"display": "none"}),
        widgets.VBox([Fit(), *marks], layout={**wide, "height": "0", "overflow": "hidden"}),
        widgets.HBox([controls, widgets.VBox([main, status], layout=_STRETCH)], layout=wide),
        widgets.HBox(details, layout=wide),
    ]
