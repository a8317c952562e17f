"""The board explorer: everything that is pinned for a data set, on one trade-off plane."""

from __future__ import annotations

import html

import ipywidgets as widgets
import pandas as pd

from kit import board
from kit.data import Dataset
from kit.explorers.base import WIDE, Explorer, LiveFigure
from kit.explorers.prune import SIZE_WORDS
from kit.measure import SizeName
from kit.plots import board as plots
from kit.plots import still

NOTHING = "(nothing pinned)"
NAMED = 4  # pins that the status line names


class BoardExplorer(Explorer):
    """All pins of one data set: accuracy against size, with the Pareto front.

    Args:
        dataset: pins of this very data set are shown (`Dataset.key`); nothing of it is read.

    Controls: `size`, `refresh_button` (read the board again: another notebook may have pinned), `pin_name` (a
    dropdown), `remove_button` (take that pin off the board). After `wait()`: `names` (all pins, smallest first),
    `front` (those on the front). What the board refuses is said in the status line and raised by `wait()`.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Build the widgets and read the board."""
        self.dataset = dataset
        self._pins, self._front = pd.DataFrame(), pd.DataFrame()
        full = {"width": "100%"}
        self.size = widgets.Dropdown(options=SIZE_WORDS, value="nonzeros", description="size axis", **WIDE)
        self.refresh_button = widgets.Button(description="Refresh", icon="refresh", layout=full)
        self.pin_name = widgets.Dropdown(options=[NOTHING], description="pin", **WIDE)
        self.remove_button = widgets.Button(description="Remove pin", icon="trash", layout=full, disabled=True)
        self._info = plots.BoardInfo("nonzeros", (), 100 / dataset.n_classes)
        self._figure = LiveFigure(plots.board_figure(self._info))
        controls = [self.size, self.refresh_button, self.pin_name, self.remove_button]
        super().__init__(f"BoardExplorer: {dataset.name}", controls, self._figure, stoppable=False)
        self.size.observe(lambda change: self.refresh(), names="value")
        self.refresh_button.on_click(lambda _: self.refresh())
        self.remove_button.on_click(lambda _: self.remove())
        self.refresh()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pins, smallest first (waits for the latest reading)."""
        self.wait()
        return tuple(pin.name for pin in self._info.pins)

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the pins on the front, smallest first (waits for the latest reading)."""
        self.wait()
        return tuple(pin.name for pin in self._info.pins if pin.on_front)

    def refresh(self) -> None:
        """Read the board again and draw it."""
        size = self.size.value
        self._request(lambda cancel: self._read(size))

    def remove(self, name: str | None = None) -> None:
        """Take a pin off the board: `name`, or the one chosen in `pin_name`.

        `wait()` raises what the board refuses, such as a name that is not on it.
        """
        name, size = self.pin_name.value if name is None else name, self.size.value
        self._request(lambda cancel: self._remove(name, size), keep=True)

    # -- in the worker ---------------------------------------------------------------------------------------------

    def _remove(self, name: str, size: SizeName) -> None:
        there = set(board.frame(self.dataset.key)["name"])
        if name not in there:  # a pin of another data set is not this explorer's to remove
            some = ", ".join(map(repr, sorted(there)[:10])) or "nothing"
            raise ValueError(f"name must be a pin of {self.dataset.name}; got {name!r}, pinned are {some}.")
        board.clear(name)
        self._read(size, f"Removed <b>{html.escape(name)}</b>. ")

    def _read(self, size: SizeName, news: str = "") -> None:
        pins, front = board.frame(self.dataset.key), board.front(self.dataset.key, size)
        info = self._info = plots.board_info(pins, front, size, 100 / self.dataset.n_classes)
        self._paint(self._figure, plots.board_traces(info), **plots.board_layout(info))
        self._offer([pin.name for pin in info.pins])
        self._say(news + self._in_words(info))

    def _offer(self, names: list[str]) -> None:
        """Fill the dropdown; what was chosen stays chosen where it is still there."""
        chosen = self.pin_name.value
        if list(self.pin_name.options) != (names or [NOTHING]):
            self.pin_name.options = names or [NOTHING]
            if chosen in names:
                self.pin_name.value = chosen
        self.remove_button.disabled = not names

    def _in_words(self, info: plots.BoardInfo) -> str:
        name = html.escape(self.dataset.name)
        if not info.pins:
            return (
                f"Nothing is pinned for {name} yet. In an explorer press <b>Pin to board</b>, or call "
                "<code>explorer.pin()</code>; then press <b>Refresh</b> here."
            )
        number = f"{len(info.pins)} pin{'s' * (len(info.pins) > 1)} for {name}"
        axis = plots.SIZE_AXES[info.size].title
        front = [f"<b>{html.escape(pin.name)}</b> ({pin.accuracy:.1f} %)" for pin in info.pins if pin.on_front]
        rest = f" and {len(front) - NAMED} more" if len(front) > NAMED else ""
        text = (
            f"<b>{number}; {len(front)} on the front</b>, smallest first: {'; '.join(front[:NAMED])}{rest}. On the "
            f"front means: no other pin is at least as accurate and smaller ({axis}). Compared by the readings: "
            "intervals may overlap."
        )
        batches = sorted({pin.batch_size for pin in info.pins})
        if info.size == "latency" and len(batches) > 1:
            text += f" Latencies of batch sizes {', '.join(map(str, batches))} are not compared: a line for each."
        return text

    def _still(self) -> bytes:
        return still.board_png(self._info)
