"""What the explorers that show the board share: they follow it; those that work on models pin to it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import anywidget
import ipywidgets as widgets
import torch
import traitlets
from torch import nn

from kit import board, files, models, training
from kit.data import Dataset
from kit.explorers import watch
from kit.explorers.base import A, Explorer, S
from kit.explorers.controls import HELP, TOOLS, Action, Control, Row
from kit.explorers.marks import script
from kit.measure import Estimate, Profile, SizeName
from kit.plots.curves import Curve, amount

_SIZES = {"non-zeros": "nonzeros", "bytes on disk": "file_bytes", "FLOPs": "flops", "latency": "latency"}
SIZE_CONTROL = Control(
    "size",
    "choice",
    "nonzeros",
    "Which size the x axis shows.",
    _SIZES,
    "size axis",
    "picture",
    section="00, section 3",
)
BATCH = 256  # samples a pass, where two answers are compared
_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "n")


_SAVES = "Save model: its weights in a file beside the notebook; the status line says how to load it."
SAVE_MODEL = Action("save_model", "", "floppy-o", _SAVES)


class Pin(NamedTuple):
    """What goes to the board."""

    name: str  # made from the settings; another setting gives another name
    profile: Profile
    settings: dict[str, Any]  # to find the model again
    what: str = ""  # which model it is, where that needs saying: "the median student"


_NAMING = "Name of the pin, then Enter; left empty, it is made from the settings."
PIN_ROWS: tuple[Row, ...] = (
    Control(
        "pin_name", "text", "", _NAMING, "name, then Enter", "pin as", "pins", moves=False, section="00, section 4"
    ),
    Action("pin", "Pin to board", "thumb-tack", "Put this model on the trade-off board.", "_pin_named"),
    Action("unpin", "Take back pin", "reply", "Take what you pinned last here off the board again."),
)


class Enter(anywidget.AnyWidget):
    """Calls back when Enter is pressed in a text field, with what is typed there (`static/enter.js`).

    The field's value changes on leaving it, too, and its message of Enter may come before the last letters.
    """

    _esm = script("enter.js")
    field = traitlets.Unicode().tag(sync=True)  # a class that it alone has

    def __init__(self, text: widgets.Text, entered: Callable[[str], None]) -> None:
        super().__init__(field=f"kit-enter-{text.model_id}")
        text.add_class(self.field)
        self.on_msg(lambda _, content, buffers: entered(str(content.get("entered", ""))))


class OnBoard(Explorer[S, A]):
    """An explorer of what is pinned for its `dataset`; once it has joined `watch`, it follows whoever changes that."""

    dataset: Dataset

    def close(self) -> None:
        """As of any explorer; it no longer follows the board."""
        watch.leave(self)
        super().close()

    def follow(self) -> None:
        """Take up what is on the board now, once the present piece of work is done; nothing is cancelled for it."""
        self._worker.aside(self._follow)

    def _follow(self, cancel: Event) -> None:
        """Read the board, and paint what changed. What the board refuses is said to those who ask for something."""
        raise NotImplementedError


class PinningExplorer(OnBoard[S, A]):
    """An explorer whose answers can be pinned; it sets `dataset`, adds `PIN_ROWS` to its table, and says `_pin`."""

    _tools = (*TOOLS, SAVE_MODEL, HELP)
    _technique: str
    _suffix = ".safetensors"  # of a saved model's file

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._pins: list[dict[str, Any]] = []
        self._board_trouble = ""
        self._mine: list[tuple[str, bool]] = []  # what was pinned here, and whether it replaced another; newest last
        self._rights: dict[S, list[int]] = {}
        self._refused = ""  # the name that a hand was told is taken
        super().__init__(*arguments, **settings)
        self._enter = Enter(self.pin_name, self._pin_named)
        self.unpin_button.disabled = True
        watch.join(self)
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
        self._ask_to_put(name, replace, None)

    def unpin(self) -> None:
        """Take what was pinned last here off the board again; what it replaced comes back. Again: the one before.

        `wait()` raises what the board refuses, and a RuntimeError where nothing is left to take back.
        """
        self._request(lambda cancel: self._take_back(), keep=True)

    def read_board(self) -> None:
        """Take up what is pinned for this data set, by this notebook or another."""
        try:
            self._pins = self._pinned()
        except board.BoardError as error:
            self._board_trouble = str(error)  # stays in the status line
            raise
        self._board_trouble = ""

    def save_model(self, path: Path | str | None = None) -> None:
        """Write the weights of the latest answer's model, as a rule as plain safetensors, and say how to load them.

        Waits its turn in the worker; `wait()` raises what the disk refuses.

        Args:
            path: of the file, which is replaced; by default a new one in the working directory, which in a notebook is
                its own folder.
        """
        settings = self.settings

        def save(cancel: Event) -> None:
            answer = self._computed(settings, cancel)
            model, file = self._model(answer), _unused(self._technique, self._suffix) if path is None else Path(path)
            size = self._write(answer, file)
            load = html.escape(self._loading(answer, model).format(repr(file.name)), quote=False)
            self._show(answer)
            saved = f"Saved <b>{html.escape(file.name)}</b> ({amount(size, 'B')}). To load it: <code>{load}</code>."
            self._say(f"{saved} {self._said(answer)}")

        self._request(save, keep=True)

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _pin(self, answer: A) -> Pin:
        """What an answer puts on the board."""
        raise NotImplementedError

    def _model(self, answer: A) -> nn.Module:
        """The model of an answer."""
        raise NotImplementedError

    def _right(self, answer: A) -> list[int]:
        """1 for each validation sample that its model names right, else 0; remembered."""
        if answer.settings not in self._rights:
            model, split = self._model(answer), self.dataset.validation
            logits = torch.cat([training.predict(model, inputs) for inputs in split.inputs.split(BATCH)])  # [n, C]
            right = (logits.argmax(1) == split.labels) & logits.isfinite().all(1)
            self._rights[answer.settings] = right.int().tolist()
        return self._rights[answer.settings]

    def _write(self, answer: A, file: Path) -> int:
        """Write its model, and return the bytes."""
        return files.write(self._model(answer), file, sparse=False)

    def _loading(self, answer: A, model: nn.Module) -> str:
        """The code that loads such a model from the file {}."""
        made = f"models.MLP({tuple(model.sizes)})" if isinstance(model, models.MLP) else ""
        if isinstance(model, models.BagOfWords):
            made = f"models.BagOfWords{(*model.tokens.weight.shape[:1], *model.head.weight.shape)}"
        return (f"model = {made}; " if made else "") + "files.load_into(model, {})"

    def _pin_named(self, typed: str | None = None) -> None:
        """Pin under the name that is typed; pressed again after a refusal, replace the pin that has it."""
        name = self.pin_name.value if typed is None else typed
        self._ask_to_put(name.strip() or None, False, self._refused)

    def _ask_to_put(self, name: str | None, replace: bool, refused: str | None) -> None:
        settings = self.settings if self._worker.asked else getattr(self._answered, "settings", None)
        self._request(lambda cancel: self._put(name, replace, refused, settings, cancel), keep=True)

    def _put(self, name: str | None, replace: bool, refused: str | None, settings: S | None, cancel: Event) -> None:
        """Pin; `refused` is None from code, from a hand the name that it was told is taken."""
        if settings is None:
            raise RuntimeError("nothing to pin yet: wait for the first answer.")
        answer = self._computed(settings, cancel)
        pin = self._pin(answer)
        name = name or pin.name
        replace = replace or name == refused
        said: dict[str, Any] = {"technique": self._technique, "settings": pin.settings, "replace": replace}
        self._refused = ""
        try:
            board.pin(name, pin.profile, dataset=self.dataset.key, **said)
        except board.NameTakenError as error:
            if refused is None:
                raise
            raise board.NameTakenError(self._say_taken(name)) from error
        replaced = replace and name in self._pin_names
        self._mine.append((name, replaced))
        self.read_board()
        self._show(answer)
        words = "Pinned", pin.what, f"as <b>{html.escape(name)}</b>", "in place of the one before" * replaced
        self._say_of_pin(f"{' '.join(filter(None, words))}, {pin.profile.accuracy.percent}.")

    def _say_taken(self, name: str) -> str:
        if name not in {row["name"] for row in self._pinned()}:
            return f"The name {name!r} is taken by a pin of another data set: type another name."
        self._refused = name
        return f"The name {name!r} is taken: press again to replace that pin, or type another name."

    def _take_back(self) -> None:
        if not self._mine:
            raise RuntimeError("nothing to take back: nothing was pinned here, or all of it is taken back.")
        name, replaced = last = self._mine.pop()
        try:
            self.read_board()
            if name not in self._pin_names:
                raise ValueError(f"name must be a pin of {self.dataset.name}; {name!r} is removed or renamed already.")
            board.restore(name, replace=True) if replaced else board.clear(name)
            self.read_board()
        except board.BoardError:
            self._mine.append(last)  # it can be tried again
            raise
        finally:
            self.unpin_button.disabled = not self._mine
        back = " and put back the one that it replaced" * replaced
        self._say_of_pin(f"Took <b>{html.escape(name)}</b> off the board{back}.")

    def _say_of_pin(self, sentence: str) -> None:
        """Paint what is pinned now, and say what was done before the words of the answer."""
        self.unpin_button.disabled = not self._mine
        if (answer := self._answered) is not None:
            self._paint_all(answer, self._curves)
            self._say(f"{sentence} {self._said(answer)}")

    def _pinned(self) -> list[dict[str, Any]]:
        return board.frame(self.dataset.key).to_dict("records")

    def _follow(self, cancel: Event) -> None:
        with suppress(board.BoardError):
            pins = self._pinned()
            if pins == self._pins and not self._board_trouble:
                return
            self._pins, self._board_trouble = pins, ""
            if (answer := self._answered) is not None:
                self._paint_all(answer, self._curves)
                self._say_anew(answer)

    def _pin_curve(self, size: SizeName, floor: float = 0.0) -> Curve:
        """The pins as points, oldest first; a size of 0 is drawn at `floor`."""
        estimates = [Estimate(*(row[name] for name in _ACCURACY)) for row in self._pins]
        sizes = [float(row[size]) or floor for row in self._pins]
        return Curve.of("pins", zip(sizes, estimates, strict=True))

    @property
    def _pin_names(self) -> Sequence[str]:
        return [row["name"] for row in self._pins]

    @property
    def _trouble(self) -> list[str]:
        """What is wrong with the board, for the status line."""
        return [f'<span class="kit-error">{html.escape(self._board_trouble)}</span>'] * bool(self._board_trouble)


def _unused(stem: str, suffix: str) -> Path:
    """A file of that name, or with a number, that is not there yet."""
    names = (Path(f"{stem}{f'_{number}' * (number > 1)}{suffix}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
