"""What the explorers that work on models share: pins on the board."""

from __future__ import annotations

import html
from collections.abc import Sequence
from threading import Event
from typing import Any, NamedTuple

from kit import board
from kit.data import Dataset
from kit.explorers.base import A, Explorer, S
from kit.explorers.controls import RESET, Action, Control, Row
from kit.measure import Estimate, Profile, SizeName
from kit.plots.curves import SIZE_AXES, Curve

_SIZES = {"non-zeros": "nonzeros", "bytes on disk": "file_bytes", "FLOPs": "flops", "latency": "latency"}
SIZE_CONTROL = Control("size", "choice", "nonzeros", "Which size the x axis shows.", _SIZES, "size axis", "picture")
_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "n")


class Pin(NamedTuple):
    """What goes to the board."""

    name: str  # made from the settings; another setting gives another name
    profile: Profile
    settings: dict[str, Any]  # to find the model again
    what: str = ""  # which model it is, where that needs saying: "the median student"


_NAMING = "Name of the pin; left empty, it is made from the settings."
PIN_ROWS: tuple[Row, ...] = (
    Control("pin_name", "text", "", _NAMING, "made for you", "pin as", moves=False),
    Action("pin", "Pin to board", "thumb-tack", "Put this model on the trade-off board.", "_pin_named"),
    RESET,
)


class PinningExplorer(Explorer[S, A]):
    """An explorer whose answers can be pinned; it sets `dataset`, adds `PIN_ROWS` to its table, and says `_pin`."""

    dataset: Dataset
    _technique: str

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._pins: list[dict[str, Any]] = []
        self._board_trouble = ""
        super().__init__(*arguments, **settings)
        self._request(lambda cancel: self.read_board(), keep=True)
        self._move()

    # -- what a script or a notebook cell uses -------------------------------------------------------------------------

    def pin(self, name: str | None = None, *, replace: bool = False) -> None:
        """Pin the latest answer to the board, under `name` or a name made from the settings.

        Waits its turn in the worker; `wait()` raises what the board refuses, such as a name taken twice.

        Args:
            name: the pin's own name.
            replace: take the place of a pin of that name; for cells that are run again.
        """
        settings = self.settings if self._worker.asked else getattr(self._answered, "settings", None)
        self._request(lambda cancel: self._put(name, replace, settings, cancel), keep=True)

    def read_board(self) -> None:
        """Take up what is pinned for this data set, by this notebook or another."""
        try:
            self._pins[:] = board.frame(self.dataset.key).to_dict("records")
        except board.BoardError as error:
            self._board_trouble = str(error)  # stays in the status line
            raise
        self._board_trouble = ""

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _pin(self, answer: A) -> Pin:
        """What an answer puts on the board."""
        raise NotImplementedError

    def _pin_named(self) -> None:
        self.pin(self.pin_name.value.strip() or None)

    def _put(self, name: str | None, replace: bool, settings: S | None, cancel: Event) -> None:
        if settings is None:
            raise RuntimeError("nothing to pin yet: wait for the first answer.")
        answer = self._computed(settings, cancel)
        pin = self._pin(answer)
        name = name or pin.name
        said: dict[str, Any] = {"technique": self._technique, "settings": pin.settings, "replace": replace}
        board.pin(name, pin.profile, dataset=self.dataset.key, **said)
        self.read_board()
        self._show(answer)
        self._paint_all(answer, self._curves)
        pinned = " ".join(filter(None, ("Pinned", pin.what, f"as <b>{html.escape(name)}</b>,")))
        self._say(f"{pinned} {pin.profile.accuracy.percent}. {self._words(answer)}")

    def _pin_curve(self, size: SizeName, floor: float = 0.0) -> Curve:
        """The pins as points, oldest first; a size of 0 is drawn at `floor`, in the axis' unit."""
        estimates = [Estimate(*(row[name] for name in _ACCURACY)) for row in self._pins]
        sizes = [float(row[size]) / SIZE_AXES[size].divisor or floor for row in self._pins]
        return Curve.of("pins", zip(sizes, estimates, strict=True))

    @property
    def _pin_names(self) -> Sequence[str]:
        return [row["name"] for row in self._pins]

    @property
    def _trouble(self) -> list[str]:
        """What is wrong with the board, for the status line."""
        return [f'<span class="kit-error">{html.escape(self._board_trouble)}</span>'] * bool(self._board_trouble)
