"""The tools of every explorer: undo and redo, A / B, copy and save, help, a compact view."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, ClassVar, Self

import ipywidgets as widgets
import pandas as pd

from kit import checks
from kit.explorers.cells import take_over
from kit.explorers.controls import HELP, TOOLS, Action, Control, Controlled
from kit.explorers.history import History
from kit.explorers.layout import LiveFigure, View
from kit.explorers.marks import Desk, Mark
from kit.measure import Estimate
from kit.plots import style

HINTS = (
    "A slider that has the focus also moves by the arrow keys, Home and End. In a figure: drag to zoom, double click "
    "to zoom out, hover for the numbers, click a point of a curve to go there."
)


@dataclass(frozen=True)
class Kept:
    """A state that is kept to compare with, called A."""

    state: Any
    answer: Any


class Tooled(Controlled):
    """What an explorer offers beside its own controls; `Explorer` builds on it."""

    _tools: ClassVar[tuple[Action, ...]] = (*TOOLS, HELP)

    # What it needs of the explorer.
    title: str
    settings: Any
    status: widgets.HTML
    progress: widgets.FloatProgress
    curves_note: widgets.HTML
    _stoppable: bool
    figures: Mapping[str, LiveFigure]
    code: Callable[[], str]
    _marks: Sequence[Mark]
    wait: Callable[[], None]
    _request: Callable[..., None]
    _computed: Callable[[Any, Event], Any]
    _show: Callable[[Any], None]
    _say: Callable[[str], None]
    _said: Callable[[Any], str]
    _words: Callable[[Any], str]
    _numbers: Callable[[Any], pd.DataFrame]
    _answered: Any

    def _make_tools(self) -> widgets.Box:
        """A row of icons."""
        meanings = {row.title: row.meaning for row in self._table.values()}
        self.desk, self.ghost = Desk(meanings=meanings), Mark("point", colour=style.NEUTRAL, text="A")
        self.help = widgets.HTML(self._explained(), layout={"display": "none"}).add_class("kit-help")
        self._kept: Kept | None = None
        self._views: list[View] = []
        self._history = History(self._state())
        row = widgets.Box([self._button(each).add_class("kit-tool") for each in self._tools]).add_class("kit-tools")
        self._offer()
        return row

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    def view(self, *controls: str, figures: Sequence[str] = ()) -> View:
        """A compact view of this very explorer, to show where the text speaks of it: both stay in step.

        Args:
            *controls: names of the controls, or of buttons without `_button`, that it shows.
            figures: names of the figures that it shows (`explorer.figures`); by default the main one.

        Raises:
            ValueError: a name that the explorer does not have.
        """
        for figure in figures:
            checks.one_of("a figure of the view", figure, list(self.figures))
        offered = {name: each for name, each in vars(self).items() if isinstance(each, _OFFERED)}
        offered |= {name.removesuffix("_button"): each for name, each in offered.items() if name.endswith("_button")}
        for name in controls:
            checks.one_of("a control of the view", name, list(offered))
        rows = [offered[name] for name in controls]
        shown = {number: self.figures[name] for number, name in enumerate(self.figures) if name in figures}
        shown = shown or {0: next(iter(self.figures.values()))}
        marks = [each for each in self._marks if each.figure in shown]
        works = [self.stop_button, self.progress, self.curves_note] if self._stoppable else []
        title = f"{self.title}, {', '.join(controls)}"
        view = View(title, rows, works, shown, self.status, [self.desk, *marks])
        take_over(view)
        self._views = [each for each in self._views if each.comm is not None] + [view]
        if "kit-busy" in self._dom_classes:
            view.add_class("kit-busy")
        return view

    @contextmanager
    def at(self, **values: Any) -> Iterator[Self]:
        """Move controls for the length of a block, then leave everything as the reader had it.

        `with explorer.at(ratio=0.9): ...` begins where the explorer began, except for these, and waits for the answer;
        further moves in the block are taken back too. Errors as in `set` and `wait`.
        """
        state, history = self._state(), self._history
        self._history = History(state)
        try:
            self.reset()
            self.set(**values)
            self.wait()
            yield self
        finally:
            self._restore(state)
            self._history = history
            self._offer()
        self.wait()

    def undo(self) -> None:
        """Take the last move back; nothing happens where there is none."""
        self._travel(self._history.back())

    def redo(self) -> None:
        """Make the move again that was taken back; nothing happens where there is none."""
        self._travel(self._history.forth())

    def keep(self) -> None:
        """Keep the present state as A, and compare what comes with it; where there is an A, let it go."""
        if self._kept is not None:
            self._kept = None
            self._offer()
            self._move()
            return
        state, settings = self._state(), self.settings

        def hold(cancel: Event) -> None:
            self._kept = Kept(state, self._computed(settings, cancel))
            self._offer()
            self._show(self._kept.answer)

        self._request(hold, keep=True)

    def swap(self) -> None:
        """Go to A, and keep the present state in its place; nothing happens where there is no A."""
        if (kept := self._kept) is None:
            return
        self.keep()  # lets go of A
        self.keep()
        self._restore(kept.state)

    def copy_code(self) -> None:
        """Put the line that makes this state again into the clipboard."""
        text = self.code()
        self.desk.send({"kind": "copy", "text": text})
        self._say_after(f"Copied: <code>{html.escape(text)}</code>.")

    def save_picture(self) -> None:
        """Save the large figure as the page shows it, as a PNG file among the browser's downloads."""
        self.desk.send({"kind": "picture", "file": f"{self._file}.png"})

    def save_data(self) -> None:
        """Save the numbers of the large figure as a CSV file among the browser's downloads; code has `table()`."""

        def save(cancel: Event) -> None:
            self.desk.send(
                {"kind": "save", "text": self._numbers(self._answered).to_csv(index=False), "file": f"{self._file}.csv"}
            )

        self._request(save, keep=True)
        self._say_after(f"Saved <b>{self._file}.csv</b>, where the browser puts downloads.")

    def explain(self) -> None:
        """Show or hide the help."""
        self.help.layout.display = "none" if self.help.layout.display is None else None

    def __str__(self) -> str:
        """A few lines in words: what it is, what the controls say, what the latest answer says."""
        settable = [(row, getattr(self, name).value) for name, row in self._settable() if row.moves]
        said = ", ".join(f"{row.title} {row.said(value)}" for row, value in settable)
        return "\n".join([self.title, said, plain(self.status.value) or "There is no answer yet."])

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _state(self) -> Any:
        """All that a reader can change: the values of controls by name, and what there is besides."""
        return self._values()

    def _restore(self, state: Any) -> None:
        """Bring a state back."""
        self.set(**state)

    def _here(self, answer: Any, settings: Any) -> list[float]:
        """Where an answer stands in the main figure under the settings: x, y, low, high; nowhere when empty."""
        return []

    def _difference(self, kept: Any, answer: Any) -> Estimate | None:
        """Accuracy of an answer over that of the kept one, paired by what both share; None where nothing pairs."""
        return None

    # -- in the explorer -----------------------------------------------------------------------------------------------

    def _noted(self, moved: str) -> None:
        """A move is made: remember where it came from."""
        self._history.note(self._state(), moved)
        self._offer()

    def _say_after(self, text: str) -> None:
        """Say it before the present answer, once that is there."""

        def say(cancel: Event) -> None:
            answer = self._answered
            self._say(text if answer is None else f"{text} {self._said(answer)}")

        self._request(say, keep=True)

    def _travel(self, state: Any) -> None:
        if state is not None:
            self._restore(state)
            self._offer()

    def _offer(self) -> None:
        """Offer the tools that have something to do."""
        self.undo_button.disabled, self.redo_button.disabled = self._history.ends
        self.swap_button.disabled = self._kept is None
        self.keep_button.icon = "bookmark-o" if self._kept is None else "bookmark"

    def _shown(self) -> Iterator[widgets.DOMWidget]:
        """Where this explorer is shown: as a whole, and its views."""
        yield self
        yield from self._views

    def _compared(self, answer: Any) -> str:
        """How an answer compares with A, in words (HTML); empty where there is no A."""
        if (kept := self._kept) is None:
            return ""
        if kept.answer.settings == answer.settings:
            return "<b>This is A.</b> "
        changed = [
            f"{row.title} {html.escape(row.said(kept.state[name]))}"
            for name, row in self._settable()
            if row.moves and kept.state[name] != getattr(self, name).value
        ]
        there = f"<b>A</b> ({', '.join(changed)})" if changed else "<b>A</b>"
        if (gain := self._difference(kept.answer, answer)) is None:
            return f"{there}: {self._words(kept.answer).split('. ')[0].rstrip('.')}. <b>Now:</b> "
        return f"Against {there}: <b>{gain.points}</b>, paired, n = {gain.n:,}. "

    def _settable(self) -> Iterator[tuple[str, Control]]:
        return ((name, row) for name, row in self._table.items() if name in self._starts)

    @property
    def _file(self) -> str:
        """A name for files."""
        return re.sub(r"\W+", "_", self.title.split(":")[0])

    def _explained(self) -> str:
        what = inspect.getdoc(type(self)) or self.title
        rows = "".join(
            f"<tr><th>{html.escape(row.title)}</th><td>{html.escape(row.meaning)}</td></tr>"
            for row in self._table.values()
        )
        tools = "".join(
            f'<tr><th><i class="fa fa-{each.icon}"></i></th><td>{html.escape(each.help)}</td></tr>'
            for each in self._tools
        )
        first = html.escape(" ".join(what.split("\n\n")[0].split()))
        return f"<p>{first}</p><p>{HINTS}</p><table>{rows}{tools}</table>"


_OFFERED = (widgets.Button, widgets.HTML, widgets.widget_description.DescriptionWidget)


def plain(text: str) -> str:
    """Words without their HTML."""
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()
