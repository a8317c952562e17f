"""One look for every figure: colours, markers, dashes, sizes.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; each technique also has a marker and a dash of
its own, so colour is never the only cue. Text, axes and grid take no colour here: the notebook's theme gives it (see
`kit.explorers.base`), so that figures read well on light and on dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONT_SIZE = 13  # axis titles, labels in the plot
SMALL_SIZE = 12  # ticks
MARGIN = {"l": 56, "r": 12, "t": 30, "b": 42}  # pixels
NEUTRAL = "#808080"  # reads on white and on black alike

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"


@dataclass(frozen=True)
class Look:
    """How one technique is drawn, in every notebook."""

    colour: str
    marker: str
    dash: str


LOOKS = {
    "magnitude": Look(BLUE, "circle", "solid"),
    "taylor": Look(GREEN, "square", "solid"),
    "random": Look(ORANGE, "diamond", "dash"),
    "dense": Look(NEUTRAL, "star", "solid"),
    "here": Look(VERMILION, "x", "solid"),
    "board": Look(PURPLE, "triangle-up", "dot"),
    "distilled": Look(SKY, "square", "solid"),
    "hard labels": Look(ORANGE, "diamond", "dash"),
    "label smoothing": Look(GREEN, "triangle-down", "dashdot"),
    "teacher": Look(NEUTRAL, "star", "dot"),
    "as they are": Look(ORANGE, "diamond", "dash"),
    "matched": Look(BLUE, "circle", "solid"),
    "ensemble": Look(PURPLE, "triangle-up", "dot"),
    "grid": Look(GREEN, "square", "dot"),
    "halving": Look(PURPLE, "triangle-up", "dashdot"),
    "Bayesian": Look(BLUE, "circle", "solid"),
    "ASHA": Look(GREEN, "square", "solid"),
    "local search": Look(GREEN, "square", "dash"),
    "evolution": Look(SKY, "triangle-down", "solid"),
    "you": Look(VERMILION, "x", "solid"),
    "proposal": Look(GREEN, "star", "dash"),
    "shared": Look(GREEN, "diamond", "solid"),
    "uniform grid": Look(ORANGE, "square", "dash"),
    "pruning alone": Look(BLUE, "circle", "dot"),
    "all labels": Look(NEUTRAL, "star", "dot"),
    "learned weights": Look(BLUE, "circle", "solid"),
    "loss ranking": Look(ORANGE, "diamond", "dash"),
    "clean labels": Look(GREEN, "square", "solid"),
    "flipped labels": Look(VERMILION, "x", "solid"),
    "unrolled": Look(BLUE, "circle", "solid"),
    "implicit": Look(GREEN, "square", "dash"),
    "differences": Look(ORANGE, "diamond", "dot"),
    "NSGA-II": Look(GREEN, "square", "dash"),
    "ParEGO": Look(PURPLE, "diamond", "dashdot"),
    "EHVI": Look(BLUE, "circle", "solid"),
    "one at a time": Look(SKY, "triangle-down", "dot"),
    "by hand": Look(NEUTRAL, "star", "longdash"),
    # What a pin on the board was made by.
    "pruning": Look(BLUE, "circle", "solid"),
    "distillation": Look(SKY, "square", "dash"),
    "compression": Look(GREEN, "diamond", "dashdot"),
    "search": Look(PURPLE, "triangle-down", "dot"),
    "other": Look(NEUTRAL, "hexagon", "dot"),
}

# Layers of one network, side by side: no two share marker and dash.
LAYER_LOOKS = (
    Look(BLUE, "circle", "solid"),
    Look(ORANGE, "square", "dash"),
    Look(GREEN, "diamond", "dot"),
    Look(PURPLE, "triangle-up", "dashdot"),
    Look(SKY, "triangle-down", "solid"),
    Look(NEUTRAL, "pentagon", "longdash"),
    Look(BLUE, "hexagon", "dash"),
    Look(ORANGE, "star", "dot"),
)


def faint(colour: str, opacity: float = 0.2) -> str:
    """`colour` (`#rrggbb`) as a transparent fill."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def layout(
    title: str, height: int, x: dict[str, Any], y: dict[str, Any], *, right: int = 12, **more: Any
) -> dict[str, Any]:
    """The layout of a figure in the house style.

    Args:
        title: one line over the plot.
        height: in pixels, outside of an explorer; the width follows the page.
        x: settings of the x axis; its title may be a plain text.
        y: settings of the y axis.
        right: margin in pixels, wider where names stand beside the plot.
        **more: further settings, which win.
    """
    head = {"text": title, "font": {"size": FONT_SIZE}, "x": 0.0, "xanchor": "left", "pad": {"l": 8}}
    if more.get("showlegend"):  # a row between title and plot
        head |= {"y": 1, "yanchor": "top", "pad": {"t": 10, "l": 8}}
    return {
        **{"template": "none", "height": height, "autosize": True, "title": head},
        "margin": {**MARGIN, "r": right},
        "font": {"size": SMALL_SIZE, "color": NEUTRAL},
        **{"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"},
        **{"showlegend": False, "hovermode": "closest", "uirevision": "keep"},  # a reader's zoom survives an update
        "hoverlabel": {"namelength": -1, "align": "left"},
        **{"xaxis": _axis(x), "yaxis": _axis(y), **more},
    }


def legend_above(top: int) -> dict[str, Any]:
    """Layout settings for a legend in a row between title and plot; `top` is the margin over the plot, in pixels."""
    row = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "itemclick": False}
    return {"showlegend": True, "legend": row, "margin": {**MARGIN, "t": top}}


def _axis(settings: dict[str, Any]) -> dict[str, Any]:
    colours = {"gridcolor": faint(NEUTRAL, 0.25), "linecolor": NEUTRAL, "tickcolor": NEUTRAL}
    drawn = {"zeroline": False, "showline": True, "ticks": "outside", "tickfont": {"size": SMALL_SIZE}}
    return {**colours, **drawn, **settings, "title": {"text": settings.get("title", ""), "font": {"size": FONT_SIZE}}}
