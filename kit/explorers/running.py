"""A search on many workers while it runs: who works when, how far it is, and a button that stops it."""

from __future__ import annotations

import threading
import time
from threading import Event
from typing import Any

import ipywidgets as widgets

from kit import checks, cluster
from kit.cluster import Span
from kit.explorers.cells import take_over
from kit.explorers.controls import STOP
from kit.explorers.layout import LiveFigure, ProgressBar, View, spoken
from kit.plots.curves import counted
from kit.plots.workers import timeline_panel
from kit.search import Study
from kit.search.trials import AnyMethod

PAINT_SECONDS = 0.2
WORKS = {None: "works"}


class RunningSearch(View):
    """`cluster.run`, beside all else: the cell is done at once, and the picture grows while the workers work.

    Args:
        study: gets the trials.
        objective: as in `cluster.run`.
        method: proposes.
        budget: in trials.
        workers: calls at once.
        **settings: the other arguments of `cluster.run`, without `cancel` and `on_span`.

    `stop()`, as the button, ends it; the study has what was told, and another `RunningSearch` goes on. `wait()` waits
    for the end; `spans` are those that ended so far, in seconds since the start.
    """

    def __init__(
        self, study: Study, objective: Any, method: AnyMethod, *, budget: int, workers: int, **settings: Any
    ) -> None:
        checks.whole("workers", workers, 1)
        self.study, self.spans = study, list[Span]()
        self._budget, self._workers, self._cancel = budget, workers, Event()
        self._error: BaseException | None = None
        self._painted = 0.0
        self._figure, self._bar, self._status = LiveFigure(self._panel()), ProgressBar(), widgets.HTML()
        tip = {"tooltip": STOP.help, "icon": STOP.icon}
        self.stop_button = widgets.Button(description=STOP.label, **tip)
        self.stop_button.on_click(lambda _: self.stop())
        super().__init__(
            "A search on many workers", [], [self.stop_button, self._bar], {0: self._figure}, self._status, []
        )
        take_over(self)
        how = {"budget": budget, "workers": workers, "cancel": self._cancel, "on_span": self._take, **settings}
        self._thread = threading.Thread(target=self._run, args=(objective, method, how), name="search", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it: what is under way is lost, what was told stays."""
        self._cancel.set()

    def wait(self, timeout: float | None = None) -> Study:
        """The study, at the end of the run; a TimeoutError if it takes longer, and whatever the run raised."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the search still runs after {timeout} seconds.")
        if self._error is not None:
            raise self._error
        return self.study

    def close(self) -> None:
        """Stop it, and take it away."""
        self.stop()
        super().close()

    def _run(self, objective: Any, method: AnyMethod, how: dict[str, Any]) -> None:
        self._say("The workers start.")
        try:
            cluster.run(self.study, objective, method, **how)
        except BaseException as error:  # said here, raised by `wait`
            self._error = error
            self._say(f"{type(error).__name__}: {error}")
        else:
            self._paint("stopped" if self._cancel.is_set() else "done")
        self.stop_button.disabled = True

    def _take(self, span: Span) -> None:
        if span.end is not None:
            self.spans.append(span)
            if time.monotonic() - self._painted > PAINT_SECONDS:
                self._painted = time.monotonic()
                self._paint("runs")

    def _paint(self, state: str) -> None:
        self._figure.show(self._panel())
        told = sum(trial.told for trial in self.study.trials)
        self._bar.move(min(1.0, told / self._budget))
        self._say(f"{state.capitalize()}: {told} of {counted(self._budget, 'trial')}.")

    def _say(self, text: str) -> None:
        self._status.value = spoken(text)

    def _panel(self) -> Any:
        return timeline_panel(self.spans, {}, WORKS, self._workers, unit="seconds")
