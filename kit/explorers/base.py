"""What every explorer shares: the layout, the way from a move to the picture, background curves, stopping, painting.

A subclass says what is its own, and nothing else:

| it says | in |
|---|---|
| its controls | a table of `Control` and `Action`, given to `__init__` |
| how to read them | `_settings`, a frozen dataclass whose fields are named as the controls; or `settings` |
| what moves at once, without computing (optional) | `_preview` |
| how to compute an answer: one object with its `settings`, not changed afterwards | `_compute` |
| its figures, of an answer or of none yet | `_panels` |
| its marks over a figure (optional) | `_draw_marks` |
| its words | `_words` |
| what is missing from background curves, and how to grow them (optional) | `_missing`, `_grow` |
"""

from __future__ import annotations

import dataclasses
import html
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from threading import Event
from typing import Any, ClassVar, Generic, TypeVar

import ipywidgets as widgets
import pandas as pd

from kit import training
from kit.explorers.cells import take_over
from kit.explorers.controls import STOP, Row
from kit.explorers.layout import WHOLE, LiveFigure, ProgressBar, bundle_with, dashboard, inside, spoken
from kit.explorers.marks import Mark
from kit.explorers.tools import Tooled, plain
from kit.explorers.worker import CLOSED, Job, Worker
from kit.plots.curves import Panel

S = TypeVar("S")  # settings
A = TypeVar("A", bound=Any)  # answer: it has the settings that it answers

# The figures under the main one follow a moment later and one by one: each takes the page some 20 ms, and the mark
# would be painted only after all that comes in the same burst.
DETAIL_SECONDS, BETWEEN_SECONDS = 0.08, 0.03
CLOSE_SECONDS = 10.0  # for the present batch and for pins that wait; a thread that takes longer ends by itself
KEPT = ("_trait", "_cross", "_repr", "_closed")  # by a closed explorer: what makes it a widget that shows nothing
PAINT_SECONDS = 0.3  # growing curves are painted so often at most: a painting costs more than a point


def of_answer(name: str, words: str) -> Any:
    """A property of an explorer: a field of its latest answer (waits for it), or a field of that; `words` say what."""
    return property(lambda explorer: attrgetter(name)(explorer._latest()), doc=words)


class Explorer(Tooled, Generic[S, A]):
    """A column of controls, a large figure, detail figures under it, one status line.

    Everything that computes or paints runs in the worker; a control's callback only asks.

    Args:
        title: what the explorer is, for a reader without the picture.
        table: the controls and buttons of the left column, top to bottom.
        call: arguments that `code` writes: names of those that have no text of their own, then keywords and values.
        marks: drawn over the figures.
        stoppable: whether there is work long enough for a stop button and a progress bar.
    """

    _closed = False
    _settings: ClassVar[Any] = None
    _first: ClassVar[tuple[str, ...]] = ()  # figures painted with the words; the others follow a moment later
    _bright: ClassVar[tuple[str, ...]] = ()  # figures that are not dimmed while work runs
    _curves: ClassVar[tuple[str, ...]] = ()  # figures with background curves
    _tabled = ""  # the figure whose numbers `table` gives; by default the main one
    _noun = "points"  # what background curves are counted in
    _beside = False  # whether something runs beside the worker, which the stop button ends, too
    _rest = 0.0  # seconds that a hand must rest before background curves grow

    def __init__(
        self,
        title: str,
        table: Sequence[Row],
        call: tuple[Sequence[str], Mapping[str, Any]],
        *,
        marks: Sequence[Mark] = (),
        stoppable: bool = True,
    ) -> None:
        take_over(self)
        self.title = title
        self._call = ", ".join([*call[0], *(f"{name}={value!r}" for name, value in call[1].items())])
        self._answered: A | None = None
        self._halted = self._dimmed = False
        self._answered_at = self._painted_at = self._began = 0.0
        self._spoken = ""  # words of the latest answer, as they stand in the status line
        self._worker = Worker(self._idle, self._say_error)
        try:
            self._build(table, marks, stoppable)
        except BaseException:
            self.close()
            raise
        self._complete = True

    def _build(self, table: Sequence[Row], marks: Sequence[Mark], stoppable: bool) -> None:
        column = self._make(table)
        self.status = widgets.HTML().add_class("kit-status")
        self.curves_note = widgets.HTML().add_class("kit-note")
        self.progress = ProgressBar()
        self._button(STOP).disabled, self._stoppable = True, stoppable
        column.append(self._make_tools())
        if stoppable:
            column += [widgets.Box([self.stop_button, self.progress]).add_class("kit-work"), self.curves_note]
        self.figures = {name: LiveFigure(panel()) for name, panel in self._panels(None).items()}
        for name, figure in self.figures.items():
            figure.observe(partial(self._met, name), "clicked")
        for name in self._bright:
            self.figures[name].add_class("kit-bright")
        self._marks = [*marks, self.ghost]
        overlays, figures = [self.desk, *self._marks], list(self.figures.values())
        super().__init__(dashboard(column, figures, self.status, self.help, overlays), layout=WHOLE)
        self.add_class("kit-explorer")

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> S:
        """What the controls say now."""
        return self._settings(
            **{each.name: getattr(self, each.name).value for each in dataclasses.fields(self._settings)}
        )

    @property
    def in_words(self) -> str:
        """What the latest answer says, as plain text (waits for it)."""
        return plain(self._said(self._latest()))

    def code(self) -> str:
        """One line of Python that makes this explorer with its controls as they stand now, seeds included."""
        moved = ", ".join(f"{name}={value!r}" for name, value in self._values().items() if self._tells(name, value))
        return f"{type(self).__name__}({self._call})" + (f".set({moved})" if moved else "")

    def table(self) -> pd.DataFrame:
        """The numbers behind the main figure: curve, x, value, low and high, per cent (waits for the answer).

        Where the main figure has no curves, those of the figure that compares.
        """
        return self._numbers(self._latest())

    def _numbers(self, answer: A) -> pd.DataFrame:
        panels = self._panels(answer)
        shown = panels[self._tabled or next(iter(panels))]()
        rows = [(curve.label, *numbers) for curve in shown.curves for numbers in zip(*curve[1:5], strict=True)]
        return pd.DataFrame(rows, columns=["curve", "x", "value", "low", "high"])

    def wait(self, timeout: float | None = None) -> None:
        """Block until the controls are answered and painted; a `timeout` of None waits without end.

        Raises:
            TimeoutError: not answered in that time.
            Exception: whatever the answer raised; the status line shows it too.
        """
        self._worker.wait(timeout)

    def wait_curves(self, timeout: float | None = None) -> None:
        """Block until the background curves are complete too; errors as in `wait`."""
        self._worker.wait_idle(timeout)

    def stop(self) -> None:
        """Cancel the running work and the growing curves; the last picture stays until a control moves."""
        self._halted = True
        if self._worker.stop():  # a request that has not begun
            self._request(lambda cancel: self._say_stopped(), keep=True)
        self.stop_button.disabled = True

    def close(self) -> None:
        """End the work and the thread, remove the widgets, let go of the model and of all that was computed.

        Whatever is asked of a closed explorer raises a RuntimeError that says so; closing it again does nothing.
        """
        if self._closed:
            return
        for worker in [each for each in vars(self).values() if isinstance(each, Worker)]:
            worker.close(CLOSE_SECONDS)
        for view in vars(self).get("_views", ()):
            view.close()
        for root in [each for each in (self, *vars(self).values()) if isinstance(each, widgets.Widget)]:
            for each in list(inside(root)):
                each.unobserve_all()
                widgets.Widget.close(each)
        self.children, self._closed = (), True
        for name in [name for name in vars(self) if not name.startswith(KEPT)]:
            del vars(self)[name]

    def __getattr__(self, name: str) -> Any:
        """Only where there is no such attribute.

        Raises:
            RuntimeError: the explorer is closed.
            AttributeError: it never had one.
        """
        if self._closed and not name.startswith("__"):
            raise RuntimeError(CLOSED)
        return self.__getattribute__(name)  # it says what is missing

    def __repr__(self) -> str:
        """As of any widget; once it is closed, that it is."""
        return CLOSED if self._closed else super().__repr__()

    # -- for subclasses: what is their own -----------------------------------------------------------------------------

    def _adjust(self, moved: str) -> None:
        """Set what a move of the control `moved` brings along; quiet."""

    def _tells(self, name: str, value: Any) -> bool:
        """Whether `code` must name a control with this value."""
        return bool(value != self._starts[name])

    def _preview(self, settings: S) -> None:
        """Change marks that need no computing: in the control's own callback, and of an answer before its marks."""

    def _compute(self, settings: S, cancel: Event) -> A:
        """The answer to the settings; what was computed before is remembered, so that it comes at once.

        Long work calls `_busy(True)` first, then `_progress`; `_show` shows what is there so far.

        Raises:
            training.Cancelled: `cancel` was set.
        """
        raise NotImplementedError

    def _panels(self, answer: A | None) -> Mapping[str, Callable[[], Panel]]:
        """The figures by name, the main one first; of no answer, such with the same traces and no points."""
        raise NotImplementedError

    def _draw_marks(self, answer: A) -> None:
        """Set the marks over the figures that `_preview` does not."""

    def _words(self, answer: A) -> str:
        """The status line (HTML): what there is now."""
        raise NotImplementedError

    def _missing(self, answer: A) -> tuple[Sequence[Any], int]:
        """Pieces that background curves lack, coarse first; and how many there are in all."""
        return (), 0

    def _grow(self, answer: A, missing: Sequence[Any], cancel: Event) -> None:
        """Compute the first of the missing pieces: a moment's work."""
        raise NotImplementedError

    def _finish(self, answer: A, cancel: Event) -> None:
        """What is done last, once all figures are painted."""

    def _clicked(self, figure: str, curve: str, x: float, y: float) -> None:
        """A click on a figure: on a point of the trace of that name, or beside all points (then it is "")."""

    # -- for subclasses: what they call --------------------------------------------------------------------------------

    def _latest(self) -> A:
        """The latest answer (waits for it)."""
        self.wait()
        if self._answered is None:
            raise RuntimeError("no answer yet: the work was stopped before the first one; move a control.")
        return self._answered

    def _met(self, name: str, change: Any) -> None:
        _, curve, x, y = change["new"]
        self._clicked(name, curve, x, y)

    def _move(self, moved: str = "") -> None:
        with self._lock:
            if self._quiet:
                return
            if moved:
                with self._quietly():
                    self._adjust(moved)
            self._halted, settings = False, self.settings
            self._noted(moved)
            self._preview(settings)
            self._request(lambda cancel: self._answer(settings, cancel))

    def _request(self, job: Job, *, keep: bool = False) -> None:
        self._worker.post(job, keep=keep)

    def _show(self, answer: A) -> None:
        """Paint what comes first: marks, the quick figures, words. Also for an answer that is not whole yet."""
        self._mark(answer)
        self._paint_all(answer, self._first)
        self._say(self._said(answer))
        self._spoken = self.status.value

    def _say_anew(self, answer: A) -> None:
        """Say what is known by now, but not over what was said of a pin, a stop or an error."""
        if self.status.value == self._spoken:
            self._say(self._said(answer))
            self._spoken = self.status.value

    def _mark(self, answer: A) -> None:
        with self._lock:  # no hand moves on between the question whether one did, and what is drawn
            if not self._worker.newer:  # else a hand is ahead of this answer
                self._preview(answer.settings)
            self._draw_marks(answer)
        self.ghost.values = [] if self._kept is None else self._here(self._kept.answer, answer.settings)

    def _said(self, answer: A) -> str:
        """All that the status line says of an answer."""
        return self._compared(answer) + self._words(answer)

    def _say(self, text: str) -> None:
        self.status.value = spoken(text)

    def _busy(self, busy: bool) -> None:
        """Dim the figures and offer the stop button while long work runs."""
        self.stop_button.disabled = not (busy or self._beside)
        if busy != self._dimmed:
            self._dimmed, self._began = busy, time.monotonic()
            for each in self._shown():
                (each.add_class if busy else each.remove_class)("kit-busy")
            if not busy:
                self.progress.move(0)

    def _progress(self, share: float) -> None:
        """Move the bar, with the time left by the pace since the work began."""
        self.progress.move(share, (time.monotonic() - self._began) * (1 - share) / max(share, 1e-9))

    def _paint(self, name: str, panel: Panel) -> bool:
        """Change what differs from the last painting of the figure; whether there was anything."""
        return self.figures[name].show(panel)

    def _paint_all(self, answer: A, names: Sequence[str]) -> None:
        panels = self._panels(answer)
        for name in names:
            self._paint(name, panels[name]())

    # -- in the worker -------------------------------------------------------------------------------------------------

    def _answer(self, settings: S, cancel: Event) -> None:
        """Compute, keep the answer, then show it: the quick parts at once, the details one by one."""
        answer = self._computed(settings, cancel)
        self._show(answer)
        missing, total = self._missing(answer)
        self._count(total - len(missing), total)  # those of another answer may have been complete
        self._give_way(cancel, DETAIL_SECONDS)
        changed = False
        for name, panel in self._panels(answer).items():
            if name not in self._first:
                if changed:
                    self._give_way(cancel, BETWEEN_SECONDS)
                changed = self._paint(name, panel())
        self._finish(answer, cancel)

    def _computed(self, settings: S, cancel: Event) -> A:
        try:
            answer = self._compute(settings, cancel)
        except training.Cancelled:
            if not self._worker.newer:
                self._say_stopped()
            raise
        finally:
            self._busy(False)
        self._answered, self._answered_at = answer, time.monotonic()
        return answer

    def _give_way(self, cancel: Event, seconds: float) -> None:
        """Pause, unless a newer request comes; a stop does not leave the figures at odds with each other."""
        if cancel.wait(seconds) and self._worker.newer:
            raise training.Cancelled("a newer request waits.")

    def _back(self) -> str:
        """Take back what was previewed or came in part: show the last answer, and say so."""
        if (answer := self._answered) is None:
            return "There is no answer yet."
        self._mark(answer)
        self._paint_all(answer, self._first)
        return f"The picture shows the last answer: {self._said(answer)}"

    def _refuse(self, sentence: str) -> None:
        said = f'<span class="kit-error">{html.escape(sentence)}</span>'
        self._request(lambda cancel: self._say(f"{said} {self._back()}"), keep=True)

    def _say_stopped(self) -> None:
        self._say(f"Stopped. Move a control to go on. {self._back()}")

    def _say_error(self, error: Exception) -> None:
        self._busy(False)
        shown = ""
        with suppress(Exception):  # where painting or the words are what fails
            shown = self._back()
        said = html.escape(str(error) or type(error).__name__)
        self._say(f'<span class="kit-error">{said}</span> {shown}'.rstrip())

    def _idle(self, cancel: Event) -> bool:
        """Grow the background curves by a piece; paint them now and then. False when nothing is left."""
        answer = self._answered  # not what the controls say: that may have been stopped or refused
        if answer is None:
            return False
        missing, total = self._missing(answer)
        if not self._halted:
            if cancel.wait(max(0.0, self._answered_at + self._rest - time.monotonic())):
                raise training.Cancelled("a hand is moving the controls.")
            if missing:
                self._grow(answer, missing, cancel)
                missing, total = self._missing(answer)
        more = bool(missing) and not self._halted
        if not more or time.monotonic() - self._painted_at > PAINT_SECONDS:
            self._painted_at = time.monotonic()
            self._paint_all(answer, self._curves)
            self._say_anew(answer)
            self._count(total - len(missing), total)
        if not self._worker.asked:
            self.stop_button.disabled = not (more or self._beside)
        return more

    def _count(self, done: int, total: int) -> None:
        state = " complete" if done == total else " stopped" if self._halted else ""
        part = "" if done == total else f"{done} of "
        self.curves_note.value = f"curves{state}: {part}{total} {self._noun}" if total else ""

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return bundle_with(super()._repr_mimebundle_(**settings), self.title)
