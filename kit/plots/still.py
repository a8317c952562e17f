"""Still pictures, for places where no browser draws: a notebook shown without its kernel."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from kit.plots import style
from kit.plots.prune import SIZE_AXES, Line, PlaneInfo

# Names of the same marker and dash in matplotlib.
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "star": "*", "x": "X", "triangle-up": "^"}
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}


def plane_png(info: PlaneInfo) -> bytes:
    """The trade-off plane as a PNG of 900 x 420 pixels on white."""
    figure = Figure(figsize=(9, 4.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for curve, name in ((info.rival, "random"), (info.own, info.own.label)):
        look = style.LOOKS[name]
        axes.fill_between(curve.size, curve.low, curve.high, color=look.colour, alpha=0.2, linewidth=0)
        axes.plot(
            curve.size,
            curve.accuracy,
            label=curve.label,
            color=look.colour,
            linestyle=_DASHES[look.dash],
            marker=_MARKERS[look.marker],
            markersize=4,
        )
    for points, name, label in (
        (info.pins, "board", "on the board"),
        (info.dense, "dense", "dense model"),
        (info.here, "here", "you are here"),
    ):
        if points.size:
            look = style.LOOKS[name]
            axes.errorbar(
                points.size,
                points.accuracy,
                yerr=_errors(points),
                fmt=_MARKERS[look.marker],
                color=look.colour,
                markersize=9,
                capsize=4,
                label=label,
            )
    axes.axhline(info.chance, color=style.NEUTRAL, linestyle=":", linewidth=1, label="guessing")
    axis = SIZE_AXES[info.size]
    axes.set(xscale="log", ylim=(0, 102), xlabel=axis.title, ylabel="validation accuracy, %")
    axes.set_title("Accuracy against size, with 95 % intervals", loc="left", fontsize=style.FONT_SIZE)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _errors(points: Line) -> list[list[float]]:
    return [
        [value - low for value, low in zip(points.accuracy, points.low, strict=True)],
        [high - value for value, high in zip(points.accuracy, points.high, strict=True)],
    ]
