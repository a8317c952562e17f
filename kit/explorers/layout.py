"""How an explorer is laid out: figures that are painted from the kernel alone, a progress bar, the dashboard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets

from kit import training
from kit.explorers.marks import Fit, script, style_tag
from kit.plots.curves import Panel

WHOLE = {"width": "100%", "overflow": "hidden"}


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

    Its height is that of its place in the page. `clicked` says how many clicks on it there were (so that a second one
    at the same place is a change), the name of the curve of which a point was met ("" beside all points), x and y.

    After each painting the page reports all of plotly's defaults back, some 14 kB; reading them keeps the kernel busy
    for tens of milliseconds, in which the next move of a slider waits. Nothing here needs them.
    """

    _esm = script("heed.js", "labels.js", "figure.js")
    _plotly: Any = traitlets.Unicode(str(go.FigureWidget._esm)).tag(sync=True)
    labels: Any = traitlets.List().tag(sync=True)  # names, for which the page finds room
    home: Any = traitlets.List().tag(sync=True)  # ranges of the axes that a double click goes back to
    clicked: Any = traitlets.List().tag(sync=True)

    def __init__(self, panel: Panel) -> None:
        super().__init__(list(panel.traces), _fluid(panel.layout))
        how = {"responsive": True, "displayModeBar": False, "doubleClick": "reset"}
        self._config: dict[str, Any] = {**self._config, **how}
        self._panel = panel
        self._name(panel)
        self.open()

    def open(self) -> None:
        """Tell the page only once the figure is whole: where it is painted before, it would stay empty."""
        if "_panel" in vars(self):
            super().open()

    def send_state(self, key: Any = None) -> None:
        """Send a page that asks for all what may have changed: it has plotly, which is five megabytes."""
        super().send_state(["_widget_data", "_widget_layout", "labels", "home"] if key is None else key)

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
        if layout := _differing(_fluid(self._panel.layout), _fluid(panel.layout)):
            with self.batch_update():
                self.layout.update(layout)
        named = self._name(panel)
        self._panel = panel
        return bool(alike or layout or named)

    def _name(self, panel: Panel) -> bool:
        """Send names and ranges where they differ; whether they did."""
        labels = [label._asdict() for label in panel.labels]
        home = [panel.layout.get(axis, {}).get("range") for axis in ("xaxis", "yaxis")]
        differ = (labels, home) != (self.labels, self.home)
        self.labels, self.home = labels, home
        return differ

    def _handler_js2py_traceDeltas(self, change: Any) -> None:  # noqa: N802  (plotly's own name)
        pass

    def _handler_js2py_layoutDelta(self, change: Any) -> None:  # noqa: N802
        pass


def _fluid(layout: Mapping[str, Any]) -> dict[str, Any]:
    """A layout without the height: in an explorer the page decides on it."""
    return {name: value for name, value in layout.items() if name != "height"}


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
    column: Sequence[widgets.Widget],
    figures: Sequence[LiveFigure],
    status: widgets.HTML,
    help_text: widgets.HTML,
    overlays: Sequence[widgets.Widget],
) -> list[widgets.Widget]:
    """Controls at the left; the first figure, the status line and the other figures at the right (`explorer.css`)."""
    main, *details = (_framed(number, figure) for number, figure in enumerate(figures))
    right = [main.add_class("kit-main"), status, help_text]
    if details:
        right.append(widgets.Box(details).add_class("kit-details"))
    controls = widgets.VBox(column).add_class("kit-controls")
    return [*_unseen(overlays), widgets.Box([controls, *right]).add_class("kit-body")]


def _framed(number: int, figure: LiveFigure) -> widgets.Box:
    return widgets.Box([figure]).add_class("kit-figure").add_class(f"kit-figure-{number}")


def _unseen(overlays: Sequence[widgets.Widget]) -> list[widgets.Widget]:
    """What must be in the page and is not seen itself: the style sheet, and what draws over figures."""
    style = widgets.HTML(style_tag("explorer.css"), layout={"display": "none"})
    return [style, widgets.VBox([Fit(), *overlays], layout={"width": "100%", "height": "0", "overflow": "hidden"})]


class View(widgets.VBox):
    """Some controls, some figures and the status line of an explorer, which it shares with it.

    Args:
        title: all that a stored notebook keeps of it as text.
        controls: of the explorer.
        works: what says how far its work is, and stops it.
        figures: of the explorer, by their number in it.
        status: of the explorer.
        overlays: what the explorer draws over these figures.
    """

    def __init__(
        self,
        title: str,
        controls: Sequence[widgets.Widget],
        works: Sequence[widgets.Widget],
        figures: Mapping[int, LiveFigure],
        status: widgets.HTML,
        overlays: Sequence[widgets.Widget],
    ) -> None:
        self.title = title
        frames = [_framed(*each) for each in figures.items()]
        work = [widgets.Box(works).add_class("kit-work")] if works else []
        row = widgets.Box([*controls, *work]).add_class("kit-controls")
        below = widgets.Box(frames).add_class("kit-details")
        css, above = _unseen(overlays)
        self._own = [css, css.style, above, above.children[0], row, below, *work, *frames]
        super().__init__([css, above, row, below, status], layout=WHOLE)
        self.add_class("kit-explorer").add_class("kit-view")

    def close(self) -> None:
        """Take the view away; the explorer and its widgets stay."""
        for each in self._own:
            for own in (getattr(each, "layout", each), each):
                own.close()
        self._own = []
        self.layout.close()
        super().close()

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return bundle_with(super()._repr_mimebundle_(**settings), self.title)
