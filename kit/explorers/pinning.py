"""What the explorers that work on models share: settings that go back, pins on the board, work that can be halted."""

from __future__ import annotations

import html
from threading import Event
from typing import Any

import ipywidgets as widgets

from kit import board
from kit.data import Dataset
from kit.explorers.base import WIDE, Explorer
from kit.measure import Estimate, Profile, SizeName
from kit.plots import prune as plots


class PinningExplorer(Explorer):
    """An explorer whose controls can be reset, whose answers can be pinned, and whose growing curves can be stopped.

    A subclass sets `dataset` and `_defaults` (where each control begins), makes its controls, and calls
    `_make_pin_controls` before `Explorer.__init__`; it answers in `_answer` and pins in `_pin`.
    """

    dataset: Dataset
    _defaults: dict[str, Any]

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    @property
    def settings(self) -> Any:
        """What the controls say now."""
        raise NotImplementedError

    def pin(self, name: str | None = None, *, replace: bool = False) -> None:
        """Pin the latest answer to the board, under `name` or a name made from the settings.

        Waits its turn in the worker; `wait()` raises what the board refuses, such as a name taken twice.

        Args:
            name: the pin's own name.
            replace: take the place of a pin of that name; for cells that are run again.
        """
        settings = self.settings if self._worker.asked else self._answered
        self._request(lambda cancel: self._pin(name, replace, settings, cancel), keep=True)

    def reset(self) -> None:
        """Set every control back to where it began."""
        with self._quietly():
            for control, value in self._defaults.items():
                getattr(self, control).value = value
            self.pin_name.value = ""
        self._move(None)

    def stop(self) -> None:
        """Cancel the running work and the growing curves; the last picture stays until a control moves."""
        self._halted = True
        super().stop()
        self.stop_button.disabled = True
        self.sweep_note.value = self.sweep_note.value.replace("curves:", "curves stopped:")

    def read_board(self) -> None:
        """Take up what is pinned for this data set, by this notebook or another."""
        try:
            self._pins[:] = board.frame(self.dataset.key).to_dict("records")
        except board.BoardError as error:
            self._board_trouble = str(error)  # stays in the status line
            raise
        self._board_trouble = ""

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _make_pin_controls(self) -> list[widgets.Widget]:
        """Watch the controls named in `_defaults`; make those for pinning and going back."""
        self._halted = False
        self._answered: Any = None
        self._pins: list[dict[str, Any]] = []
        self._board_trouble = ""
        for name in self._defaults:
            getattr(self, name).observe(self._move, names="value")
        full = {"width": "100%"}
        self.pin_name = widgets.Text(placeholder="made for you", description="pin as", **WIDE)
        self.pin_button = widgets.Button(description="Pin to board", icon="thumb-tack", layout=full)
        self.reset_button = widgets.Button(description="Reset", icon="undo", layout=full)
        self.pin_button.on_click(lambda _: self.pin(self.pin_name.value.strip() or None))
        self.reset_button.on_click(lambda _: self.reset())
        return [self.pin_name, self.pin_button, self.reset_button]

    def _begin(self) -> None:
        """Read the board, and ask for the first answer."""
        self._request(lambda cancel: self.read_board(), keep=True)
        self._move(None)

    def _move(self, change: Any) -> None:
        """A control moved: ask, and return at once."""
        if not self._quiet:
            settings, self._halted = self.settings, False
            self._request(lambda cancel: self._answer(settings, cancel))

    def _answer(self, settings: Any, cancel: Event) -> None:
        """Compute and show what the settings ask for; in the worker."""
        raise NotImplementedError

    def _pin(self, name: str | None, replace: bool, settings: Any, cancel: Event) -> None:
        """Pin what the settings ask for (None: no answer yet); in the worker."""
        raise NotImplementedError

    def _keep_pin(self, name: str, profile: Profile, technique: str, record: dict[str, Any], replace: bool) -> None:
        """Write the pin, and take it up."""
        board.pin(name, profile, dataset=self.dataset.key, technique=technique, settings=record, replace=replace)
        self.read_board()

    def _pin_line(self, size: SizeName, floor: float = 0.0) -> plots.Line:
        """The pins as points, oldest first."""
        entries = [
            (
                float(row[size]),
                Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"], row["n"]),
                float(at),
            )
            for at, row in enumerate(self._pins)
        ]
        return plots.line("pins", size, entries, floor=floor)

    @property
    def _pin_names(self) -> tuple[str, ...]:
        return tuple(row["name"] for row in self._pins)

    @property
    def _trouble(self) -> list[str]:
        """What is wrong with the board, for the status line."""
        return [f'<span class="kit-error">{html.escape(self._board_trouble)}</span>'] * bool(self._board_trouble)
