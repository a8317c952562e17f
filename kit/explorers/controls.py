"""The controls of an explorer as a table: what each one is called, what it sets, where it begins, what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, Literal, Self

import ipywidgets as widgets
from traitlets import Any as AnyTrait
from traitlets import TraitError, validate

from kit import checks

Kind = Literal["stops", "choice", "toggle", "slider", "number", "check", "text"]


class StopError(TraitError, ValueError):
    """A slider was set to a value between two of its stops."""


class _Something(AnyTrait):
    """Traitlets take None without asking the validator, unless the trait says so."""

    allow_none = False


def _own(value: Any, allowed: Sequence[Any]) -> Any:
    """The allowed value itself, in place of NumPy's that equals it: `code` writes it down."""
    return allowed[allowed.index(value)]


class _Named(widgets.Widget):
    """A control whose value is refused in a sentence that names it: nothing is cast, clamped or taken as no choice."""

    def __init__(self, name: str, **settings: Any) -> None:
        self._name = name
        super().__init__(**settings)


class _Chosen(_Named):
    value = _Something(help="one of the options")

    @validate("value")
    def _validate_value(self, proposal: Any) -> Any:
        checks.one_of(self._name, proposal["value"], self._options_values)
        return _own(proposal["value"], self._options_values)


class _Whole(_Named):
    value = _Something(0, help="a whole number").tag(sync=True)

    @validate("value")
    def _validate_value(self, proposal: Any) -> int:
        return checks.whole(self._name, proposal["value"], self.min, self.max)


class NumberField(_Whole, widgets.FloatText):
    """A whole number to type. The page knows no bounds: it would make 27 of 2.7 and 0 of -5 without a word.

    Args:
        name: what code calls it.
        min: the lowest number that is allowed.
        max: the highest.
        **settings: as `ipywidgets.FloatText`.
    """

    def __init__(self, name: str, min: int, max: int, **settings: Any) -> None:
        self.min, self.max = min, max
        self.on_refused: Callable[[str], None] = lambda sentence: None
        super().__init__(name, **settings)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what was typed; what is no such number is refused in a sentence, and the field shows the old one."""
        try:
            checks.whole(self._name, sync_data.get("value", self.value), self.min, self.max)
        except (TypeError, ValueError) as refused:
            self.on_refused(str(refused))
            self.send_state("value")
        else:
            super().set_state(sync_data)


class StopSlider(_Named, widgets.SelectionSlider):
    """A slider over given numbers, closer together where it matters.

    Args:
        name: what code calls it.
        stops: the numbers, ascending.
        text: how a stop is written.
        **settings: as `ipywidgets.SelectionSlider`.

    Raises:
        StopError: set to a value that is no stop, from wherever; the sentence names the nearest stops.
    """

    value = _Something(0.0, help="one of the stops")

    def __init__(self, name: str, stops: Sequence[float], text: Callable[[float], str], **settings: Any) -> None:
        self.stops = tuple(stops)
        super().__init__(name, options=[(text(stop), stop) for stop in stops], **settings)

    @validate("value")
    def _validate_value(self, proposal: Any) -> Any:
        value = proposal["value"]
        if value in self.stops:
            return _own(value, self.stops)
        nearest = ""
        if isinstance(value, (int, float)):
            below, above = [s for s in self.stops if s <= value][-1:], [s for s in self.stops if s >= value][:1]
            nearest = ", the nearest are " * bool(below or above) + " and ".join(f"{s:g}" for s in (*below, *above))
        raise StopError(
            f"{self._name} must be one of the slider's {len(self.stops)} stops from {self.stops[0]:g} to "
            f"{self.stops[-1]:g}; got {value!r}{nearest}."
        )


@dataclass(frozen=True)
class Control:
    """One row of the table: a control that holds a value.

    Its kind is "stops" (a slider over given numbers), "choice" (a dropdown), "toggle" (buttons side by side), "slider"
    (whole numbers), "number" (a whole number to type), "check" (yes or no), or "text".
    """

    name: str  # of the explorer's attribute that holds the widget
    kind: Kind
    start: Any  # the value to begin with, and to go back to
    help: str  # a sentence: what it is; shown as the tooltip
    values: Any = ()  # the stops; the options (or pairs of text and option); lowest and highest number; the placeholder
    label: str = ""  # written before it; by default its name
    group: str = ""  # heading that it belongs under
    unit: str = ""
    text: Callable[[float], str] = "{:g}".format  # how a stop is written
    wide: bool = False  # whether its label stands above, so that it gets the whole width: the most moved one
    moves: bool = True  # whether a change asks for another answer
    section: str = ""  # of the notebooks, that explains it: "01, section 2"

    @property
    def title(self) -> str:
        """What is written before it."""
        return self.label or self.name

    @property
    def meaning(self) -> str:
        """What it is, its unit, and the section that explains it: its tooltip."""
        unit, section = f" Unit: {self.unit}." * bool(self.unit), f" Explained in {self.section}." * bool(self.section)
        return self.help + unit + section

    def said(self, value: Any) -> str:
        """A value as the control shows it."""
        if self.kind == "stops":
            return self.text(value)
        if self.kind == "check":
            return "on" if value else "off"
        if self.kind in ("choice", "toggle"):
            return str(next((each[0] for each in self._options if isinstance(each, tuple) and each[1] == value), value))
        return str(value)

    @property
    def _options(self) -> list[Any]:
        return list(self.values.items() if isinstance(self.values, Mapping) else self.values)

    def widget(self) -> widgets.Widget:
        """Make it; a ValueError where it does not begin where it can."""
        settings = {
            **{"value": self.start, "description": self.title, "tooltip": self.meaning},
            **{"layout": {"width": "100%"}, "style": {"description_width": "initial" if self.wide else "80px"}},
            **self._own(),
        }
        made = _KINDS[self.kind](**settings)
        return made.add_class("kit-wide") if self.wide else made

    def _own(self) -> dict[str, Any]:
        """What only a widget of this kind takes."""
        if self.kind in ("choice", "toggle"):
            options = self._options
            checks.one_of(self.name, self.start, [each[1] if isinstance(each, tuple) else each for each in options])
            narrow = {
                "description": "",
                "tooltips": [self.meaning] * len(options),
                "style": {"button_width": f"{208 // len(options)}px"},
            }
            return {"name": self.name, "options": options, **(narrow if self.kind == "toggle" else {})}
        if self.kind in ("slider", "number"):
            return {"name": self.name, **dict(zip(("min", "max"), self.values, strict=True))}
        if self.kind == "stops":
            return {"name": self.name, "stops": self.values, "text": self.text}
        return {"indent": False} if self.kind == "check" else {"placeholder": self.values}


_KINDS: dict[Kind, Callable[..., widgets.Widget]] = {
    **{"stops": StopSlider, "text": widgets.Text, "check": widgets.Checkbox},
    "choice": type("Dropdown", (_Chosen, widgets.Dropdown), {}),
    "toggle": type("ToggleButtons", (_Chosen, widgets.ToggleButtons), {}),
    "slider": partial(type("IntSlider", (_Whole, widgets.IntSlider), {}), continuous_update=False),
    "number": NumberField,
}


@dataclass(frozen=True)
class Action:
    """One row of the table: a button, the explorer's attribute `<name>_button`."""

    name: str
    label: str  # written on it
    icon: str  # of Font Awesome
    help: str  # a sentence: what it does; shown as the tooltip
    method: str = ""  # of the explorer that it calls; by default the one of its name

    def widget(self, explorer: Any) -> widgets.Button:
        """Make it; a press calls the explorer's method."""
        button = widgets.Button(description=self.label, icon=self.icon, tooltip=self.help, layout={"width": "100%"})
        button.on_click(lambda _: getattr(explorer, self.method or self.name)())
        return button


@dataclass(frozen=True)
class Note:
    """One row of the table: small text, which the explorer sets."""

    name: str  # of the explorer's attribute that holds the widget

    def widget(self) -> widgets.HTML:
        """Make it."""
        return widgets.HTML().add_class("kit-note")


Row = Control | Action | Note

STOP = Action("stop", "Stop", "stop", "Stop the work; the last picture stays.")
# The tools that every explorer has, as icons in a row.
TOOLS = (
    Action("undo", "", "undo", "Undo: take the last move back."),
    Action("redo", "", "repeat", "Redo: make the move again that was taken back."),
    Action("reset", "", "refresh", "Reset: set every control back to where it began."),
    Action("keep", "", "bookmark-o", "A / B: keep this state as A, and compare what comes with it. Again: let it go."),
    Action("swap", "", "exchange", "Swap: go to A, and keep the present state in its place."),
    Action("copy_code", "", "code", "Copy as code: the line of Python that makes this state again."),
    Action("save_picture", "", "camera", "Save picture: the large figure as a PNG file."),
    Action("save_data", "", "table", "Save data: the numbers of the large figure as a CSV file."),
)
HELP = Action("explain", "", "question", "Help: what this is, what each control does, and where it is explained.")


class Controlled(widgets.VBox):
    """A box with controls made from a table; each is an attribute under its name, a button under `<name>_button`."""

    _quiet = False  # several controls are being set as one move

    def _make(self, table: Sequence[Row]) -> list[widgets.Widget]:
        """The widgets of the rows, with a heading over each group."""
        self._lock = RLock()  # one hand at a time: a thread may move controls, too
        self._table = {row.name: row for row in table if isinstance(row, Control)}
        self._starts: dict[str, Any] = {name: row.start for name, row in self._table.items()}
        made: list[widgets.Widget] = []
        group = ""
        for row in table:
            if isinstance(row, Control) and row.group not in ("", group):
                group = row.group
                heading = f'<div role="heading" aria-level="4">{group[0].upper()}{group[1:]}</div>'
                made.append(widgets.HTML(heading).add_class("kit-heading"))
            made.append(self._button(row) if isinstance(row, Action) else row.widget())
            if not isinstance(row, Action):
                setattr(self, row.name, made[-1])
            if isinstance(made[-1], NumberField):
                made[-1].on_refused = self._refuse
            if isinstance(row, Control) and row.moves:
                made[-1].observe(lambda _, name=row.name: self._move(name), names="value")
        return made

    def _button(self, action: Action) -> widgets.Button:
        button = action.widget(self)
        setattr(self, f"{action.name}_button", button)
        return button

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to put a plain value in the place of a control, and names that are none.

        Raises:
            AttributeError: `explorer.ratio = 0.9`, where `explorer.ratio.value = 0.9` is meant; or a misspelt name.
        """
        if isinstance(vars(self).get(name), widgets.Widget) and not isinstance(value, widgets.Widget):
            raise AttributeError(f"{name} is a control: set {name}.value = {value!r} instead.")
        if "_complete" in vars(self) and not name.startswith("_") and not hasattr(self, name):
            controls = ", ".join(self._starts)
            raise AttributeError(f"{type(self).__name__} has no {name!r}; its controls are {controls}.")
        super().__setattr__(name, value)

    def set(self, **values: Any) -> Self:
        """Move several controls as one: `explorer.set(ratio=0.9, seed=3)`.

        Returns:
            The explorer itself.

        Raises:
            AttributeError: no such control.
            ValueError: a value that a control does not take; none of them has moved then.
        """
        if unknown := [name for name in values if name not in self._starts]:
            controls = ", ".join(self._starts)
            raise AttributeError(f"{type(self).__name__} has no control {unknown[0]!r}; it has {controls}.")
        with self._lock, self._quietly():
            before = self._values()
            for name, value in values.items():
                try:
                    getattr(self, name).value = value
                except Exception as error:
                    for moved in values:
                        getattr(self, moved).value = before[moved]
                    if isinstance(error, ValueError):
                        raise
                    raise ValueError(f"{name} does not take {value!r}: {str(error).rstrip('.')}.") from error
        self._move()
        return self

    def reset(self) -> None:
        """Set every control back to where it began."""
        self.set(**self._starts)

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name).value for name in self._starts}

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _move(self, moved: str = "") -> None:
        """The control `moved` was moved by a hand or by code; without a name, several."""
        raise NotImplementedError

    def _refuse(self, sentence: str) -> None:
        """Say why what was typed into a field is not taken."""
        raise NotImplementedError
