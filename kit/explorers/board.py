"""The board explorer: everything that is pinned for a data set, on one trade-off plane."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

import ipywidgets as widgets

from kit import board
from kit.data import Dataset
from kit.explorers.base import Explorer
from kit.explorers.controls import RESET, Action, Control, Row
from kit.explorers.pinning import SIZE_CONTROL
from kit.measure import SizeName
from kit.plots import board as plots
from kit.plots.curves import SIZE_AXES, Panel

NOTHING = "(nothing pinned)"
NAMED = 4  # pins that the status line names

_TABLE: tuple[Row, ...] = (
    SIZE_CONTROL,
    Action("refresh", "Refresh", "refresh", "Read the board again: another notebook may have pinned."),
    Control("pin_name", "choice", NOTHING, "The pin to take off the board.", [NOTHING], "pin", "pins", moves=False),
    Action("remove", "Remove pin", "trash", "Take the chosen pin off the board."),
    RESET,
)


@dataclass(frozen=True)
class Settings:
    """What the controls say."""

    size: SizeName


@dataclass(frozen=True)
class Answer:
    """What is pinned for the data set, smallest first."""

    settings: Settings
    pins: tuple[plots.Pin, ...]


class BoardExplorer(Explorer[Settings, Answer]):
    """All pins of one data set: accuracy against size, with the Pareto front.

    Args:
        dataset: pins of this very data set are shown (`Dataset.key`); nothing of it is read.

    Controls: `size`, `refresh_button` (read the board again: another notebook may have pinned), `pin_name` (a
    dropdown), `remove_button` (take that pin off the board), `reset_button`. After `wait()`: `names` (all pins,
    smallest first), `front` (those on the front). What the board refuses is said in the status line and raised by
    `wait()`.
    """

    _settings, _first = Settings, ("plane",)

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        super().__init__(f"BoardExplorer: {dataset.name}", _TABLE, (("dataset",), {}), stoppable=False)
        self.remove_button.disabled = True
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
        chosen, settings = self.pin_name.value if name is None else name, self.settings
        self._request(lambda cancel: self._remove(chosen, settings, cancel), keep=True)

    def _make(self, table: Sequence[Row]) -> list[widgets.Widget]:
        made = super()._make(table)
        del self._starts["pin_name"]  # it is no setting: what it offers changes with the board
        return made

    def _compute(self, settings: Settings, cancel: Event) -> Answer:
        key = self.dataset.key  # nothing is remembered: another notebook may have written
        return Answer(settings, plots.board_pins(board.frame(key), board.front(key, settings.size), settings.size))

    def _remove(self, name: str, settings: Settings, cancel: Event) -> None:
        there = set(board.frame(self.dataset.key)["name"])
        if name not in there:  # a pin of another data set is not this explorer's to remove
            some = ", ".join(map(repr, sorted(there)[:10])) or "nothing"
            raise ValueError(f"name must be a pin of {self.dataset.name}; got {name!r}, pinned are {some}.")
        board.clear(name)
        answer = self._computed(settings, cancel)
        self._show(answer)
        self._say(f"Removed <b>{html.escape(name)}</b>. {self._words(answer)}")

    def _show(self, answer: Answer) -> None:
        """Paint, and offer the pins to remove; what was chosen stays chosen where it is still there."""
        super()._show(answer)
        names, chosen = [pin.name for pin in answer.pins], self.pin_name.value
        if list(self.pin_name.options) != (names or [NOTHING]):
            self.pin_name.options = names or [NOTHING]
            if chosen in names:
                self.pin_name.value = chosen
        self.remove_button.disabled = not names

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        size, pins = ("nonzeros", ()) if answer is None else (answer.settings.size, answer.pins)
        return {"plane": lambda: plots.board_panel(pins, size, 100 / self.dataset.n_classes)}

    def _words(self, answer: Answer) -> str:
        pins, size, name = answer.pins, answer.settings.size, html.escape(self.dataset.name)
        if not pins:
            return (
                f"Nothing is pinned for {name} yet. In an explorer press <b>Pin to board</b>, or call "
                "<code>explorer.pin()</code>; then press <b>Refresh</b> here."
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
