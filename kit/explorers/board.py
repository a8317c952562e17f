"""The board explorer: everything that is pinned for a data set, on one trade-off plane."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event

import ipywidgets as widgets

from kit import board, training
from kit.data import Dataset
from kit.explorers import watch
from kit.explorers.controls import Action, Control, Row
from kit.explorers.pinning import SIZE_CONTROL, Enter, OnBoard
from kit.measure import SizeName
from kit.plots import board as plots
from kit.plots.curves import SIZE_AXES, Panel

NOTHING = "(nothing pinned)"
NAMED = 4  # pins that the status line names

_NAMING = "The new name of the chosen pin, then Enter."
_TABLE: tuple[Row, ...] = (
    SIZE_CONTROL,
    Control(
        "pin_name",
        "choice",
        NOTHING,
        "The pin to remove or to rename.",
        [NOTHING],
        "pin",
        "pins",
        moves=False,
        section="00, section 4",
    ),
    Action("remove", "Remove pin", "trash", "Take the chosen pin off the board; Restore puts it back."),
    Action("restore", "Restore pin", "reply", "Put the pin that was removed last back on the board."),
    Control(
        "new_name", "text", "", _NAMING, "name, then Enter", "new name", "pins", moves=False, section="00, section 4"
    ),
    Action("rename", "Rename pin", "pencil", "Give the chosen pin the new name."),
    Action("refresh", "Refresh", "refresh", "Read the board again; it is also read whenever anyone changes it."),
)


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    size: SizeName


@dataclass(frozen=True)
class Answer:
    """What is pinned for the data set, smallest first; those that can be restored, the latest removal last."""

    settings: Settings
    pins: tuple[plots.Pin, ...]
    removed: tuple[str, ...]


class BoardExplorer(OnBoard[Settings, Answer]):
    """All pins of one data set: accuracy against size, with the Pareto front.

    It follows the board: what any notebook pins, removes or renames is here within a second.

    Args:
        dataset: pins of this very data set are shown (`Dataset.key`); nothing of it is read.

    Controls: `size`, `pin_name` (a dropdown), `remove_button` (take that pin off the board), `restore_button` (put the
    last one back), `new_name`, `rename_button`, `refresh_button` (read the board again), `reset_button`. After
    `wait()`: `names` (all pins, smallest first), `front` (those on the front). What the board refuses is said in the
    status line and raised by `wait()`.
    """

    _settings, _first = Settings, ("plane",)
    _chosen = ""  # the new name of the chosen pin, until it is among the options

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        super().__init__(f"BoardExplorer: {dataset.name}", _TABLE, (("dataset",), {}), stoppable=False)
        self._enter = Enter(self.new_name, lambda typed: self.rename(new=typed))
        for button in (self.remove_button, self.restore_button, self.rename_button):
            button.disabled = True
        watch.join(self)
        self._move()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pins, smallest first (waits for the latest reading)."""
        return tuple(pin.name for pin in self._latest().pins)

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the pins on the front, smallest first (waits for the latest reading)."""
        return tuple(pin.name for pin in self._latest().pins if pin.on_front)

    def refresh(self) -> None:
        """Read the board again and draw it."""
        self._move()

    def remove(self, name: str | None = None) -> None:
        """Take a pin off the board: `name`, or the one chosen in `pin_name`.

        `wait()` raises what the board refuses, such as a name that is not on it.
        """
        chosen = self.pin_name.value if name is None else name

        def remove() -> str:
            self._check_own(chosen)
            board.clear(chosen)
            return f"Removed <b>{html.escape(chosen)}</b>; <b>Restore pin</b> puts it back."

        self._change(remove)

    def restore(self, name: str | None = None) -> None:
        """Put a pin back that was taken off the board: `name`, or the one that was removed last.

        `wait()` raises what the board refuses, such as a name that another pin has now.
        """
        settings = self.settings

        def restore() -> str:
            removed = self._read(settings).removed
            if not removed and name is None:
                raise RuntimeError(f"nothing to take back: no pin of {self.dataset.name} was removed.")
            back = removed[-1] if name is None else name
            board.restore(back)
            return f"Restored <b>{html.escape(back)}</b>."

        self._change(restore)

    def rename(self, old: str | None = None, new: str | None = None) -> None:
        """Give a pin another name; by default the chosen one, and the name that is typed in `new_name`.

        `wait()` raises what the board refuses, such as a name that is taken.
        """
        chosen = self.pin_name.value if old is None else old
        wanted = (self.new_name.value if new is None else new).strip()

        def rename() -> str:
            self._check_own(chosen)
            if not wanted:
                raise ValueError("new must be a name; got nothing: type the pin's new name first.")
            board.rename(chosen, wanted)
            if self.pin_name.value == chosen:
                self._chosen = wanted
            return f"Renamed <b>{html.escape(chosen)}</b> to <b>{html.escape(wanted)}</b>."

        self._change(rename)

    def _make(self, table: Sequence[Row]) -> list[widgets.Widget]:
        made = super()._make(table)
        for name in ("pin_name", "new_name"):
            del self._starts[name]  # they are no settings: the board changes by them
        return made

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        return self._read(settings)

    def _read(self, settings: Settings) -> Answer:
        """What is on the board now; nothing is remembered: another notebook may have written."""
        key = self.dataset.key
        pins = plots.board_pins(board.frame(key), board.front(key, settings.size), settings.size)
        taken, removed = {pin.name for pin in pins}, board.frame(key, removed=True)["name"]
        return Answer(settings, pins, tuple(name for name in removed if name not in taken))

    def _change(self, change: Callable[[], str]) -> None:
        """Change the board in the worker, and say what was done."""
        settings = self.settings

        def job(cancel: Event) -> None:
            said = change()
            answer = self._computed(settings, cancel)
            self._show(answer)
            self._say(f"{said} {self._words(answer)}")

        self._request(job, keep=True)

    def _check_own(self, name: str) -> None:
        """A pin of another data set is not this explorer's to change."""
        there = board.frame(self.dataset.key)["name"]
        if name not in set(there):
            some = ", ".join(map(repr, sorted(there)[:10])) or "nothing"
            raise ValueError(f"name must be a pin of {self.dataset.name}; got {name!r}, pinned are {some}.")

    def _follow(self, cancel: Event) -> None:
        if (answer := self._answered) is not None:
            with suppress(board.BoardError):
                now = self._read(answer.settings)
                if now != answer:
                    self._answered = now
                    self._show(now)

    def _show(self, answer: Answer) -> None:
        """Paint, and offer the pins to change; what was chosen stays chosen where it is still there."""
        super()._show(answer)
        names, chosen = [pin.name for pin in answer.pins], self._chosen or self.pin_name.value
        self._chosen = ""
        if list(self.pin_name.options) != (names or [NOTHING]):
            self.pin_name.options = names or [NOTHING]
            if chosen in names:
                self.pin_name.value = chosen
        self.remove_button.disabled = self.rename_button.disabled = not names
        self.restore_button.disabled = not answer.removed

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        size, pins = ("nonzeros", ()) if answer is None else (answer.settings.size, answer.pins)
        return {"plane": lambda: plots.board_panel(pins, size, 100 * training.chance(self.dataset.validation.labels))}

    def _words(self, answer: Answer) -> str:
        pins, size, name = answer.pins, answer.settings.size, html.escape(self.dataset.name)
        if not pins:
            return (
                f"Nothing is pinned for {name} yet. In an explorer press <b>Pin to board</b>, or call "
                "<code>explorer.pin()</code>."
            )
        front = [f"<b>{html.escape(pin.name)}</b> ({100 * pin.accuracy.value:.1f} %)" for pin in pins if pin.on_front]
        rest = f" and {len(front) - NAMED} more" if len(front) > NAMED else ""
        text = (
            f"<b>{len(pins)} pin{'s' * (len(pins) > 1)} for {name}; {len(front)} on the front</b>, smallest first: "
            f"{'; '.join(front[:NAMED])}{rest}. On the front means: no other pin is at least as accurate and smaller "
            f"({SIZE_AXES[size].title}). Compared by the readings: intervals may overlap."
        )
        batches = sorted({pin.batch_size for pin in pins})
        if size == "latency" and len(batches) > 1:
            text += f" Latencies of batch sizes {', '.join(map(str, batches))} are not compared: a line for each."
        return text
