"""Marks over a figure: they move without a redrawing of the figure, which takes plotly longer than the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kit.plots import style

STATIC = Path(__file__).with_name("static")


def style_tag(name: str) -> str:
    """A style sheet of this package as HTML."""
    return f"<style>{(STATIC / name).read_text(encoding='utf-8')}</style>"


def script(*names: str) -> Any:
    """Files of JavaScript as a widget's trait: given a path, anywidget keeps each widget for as long as its class."""
    return traitlets.Unicode("\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)).tag(sync=True)


class Fit(anywidget.AnyWidget):
    """Refits the explorer's figures whenever its width changes (`static/fit.js`)."""

    _esm = script("fit.js")


class Desk(anywidget.AnyWidget):
    """Copies to the clipboard, saves files, takes pictures, and names sliders for screen readers (`static/desk.js`)."""

    _esm = script("heed.js", "desk.js")
    meanings: Any = traitlets.Dict().tag(sync=True)  # tooltips, by the text before a control


class Mark(anywidget.AnyWidget):
    """Something drawn over one of an explorer's figures (`static/mark.js`).

    | kind | values | at |
    |---|---|---|
    | "point" | x, y, low, high: a cross with its interval; empty hides it | |
    | "bars" | heights at 0, 1, 2 ... | |
    | "trials" | of each trial x, y, spent, value, size 0 to 1, colour if any; oldest first | later ones are hidden |
    | "cursor" | | x of a vertical line, with `text` where there is room beside it |
    | "expected" | x, y, low, high: a vertical line with an interval; empty hides it | |

    Values are in the units of the figure.
    """

    _esm = script("heed.js", "mark.js")
    kind = traitlets.Enum(("point", "bars", "trials", "cursor", "expected")).tag(sync=True)
    values: Any = traitlets.List().tag(sync=True)
    at = traitlets.Float(0.0).tag(sync=True)  # the one number that moves while a slider is dragged
    text = traitlets.Unicode("").tag(sync=True)
    colour = traitlets.Unicode().tag(sync=True)
    figure = traitlets.Int(0).tag(sync=True)  # which of the explorer's figures, from 0

    def __init__(self, kind: str, *, colour: str = style.LOOKS["here"].colour, **settings: Any) -> None:
        super().__init__(kind=kind, colour=colour, **settings)
