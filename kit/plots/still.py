"""Still pictures, for places where no browser draws: a notebook shown without its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from kit.plots import bayes as bayes_plots
from kit.plots import search as search_plots
from kit.plots import style
from kit.plots.board import TECHNIQUES, BoardInfo, front_line, look
from kit.plots.distill import TEMPERATURE_TICKS, CurveInfo, curve_layout
from kit.plots.interval import HOLDS, MISSES, IntervalsInfo
from kit.plots.prune import SIZE_AXES, Line, PlaneInfo, plane_layout
from kit.plots.sensitivity import LayerCurve, SensitivityInfo, allocation_marks, looks

# Names of the same marker and dash in matplotlib.
_MARKERS = {
    **{"circle": "o", "square": "s", "diamond": "D", "star": "*", "x": "X", "triangle-up": "^"},
    **{"triangle-down": "v", "pentagon": "p", "hexagon": "h"},
}
_DASHES: dict[str, str | tuple[int, tuple[int, ...]]] = {
    **{"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."},
    "longdash": (0, (8, 3)),
}


def plane_png(info: PlaneInfo) -> bytes:
    """The trade-off plane as a PNG of 900 x 420 pixels on white."""
    figure, axes = _canvas()
    for curve, name in ((info.rival, "random"), (info.own, info.own.label)):
        _curve(axes, style.LOOKS[name], curve.label, curve.size, curve)
    for points, name, label in (
        (info.pins, "board", "on the board"),
        (info.dense, "dense", "dense model"),
        (info.here, "here", "you are here"),
    ):
        if points.size:
            drawn = style.LOOKS[name]
            axes.errorbar(
                points.size,
                points.accuracy,
                yerr=_errors(points),
                fmt=_MARKERS[drawn.marker],
                color=drawn.colour,
                markersize=9,
                capsize=4,
                label=label,
            )
    axes.axhline(info.chance, color=style.NEUTRAL, linestyle=":", linewidth=1, label="guessing")
    axis = SIZE_AXES[info.size]
    ends = [10**end for end in plane_layout(info)["xaxis"]["range"]]
    axes.set(xscale="log", xlim=ends, ylim=(0, 102), xlabel=axis.title, ylabel="validation accuracy, %")
    return _finished(figure, axes, "Accuracy against size, with 95 % intervals")


def curve_png(info: CurveInfo, here: Sequence[float]) -> bytes:
    """Accuracy of distilled students against temperature as a PNG of 900 x 420 pixels on white.

    Args:
        info: the curve.
        here: x, y, low and high of the chosen temperature; empty where it is not trained.
    """
    figure, axes = _canvas()
    for curve in (*info.rivals, info.distilled):
        if curve.size:
            _curve(axes, style.LOOKS[curve.label], curve.label, curve.size, curve)
    if here:
        drawn, (x, y, low, high) = style.LOOKS["here"], here
        axes.errorbar(
            x,
            y,
            yerr=[[y - low], [high - y]],
            capsize=4,
            fmt=_MARKERS[drawn.marker],
            color=drawn.colour,
            markersize=9,
            label="you are here",
        )
    axes.axhline(info.teacher, color=style.NEUTRAL, linestyle=":", label="teacher")
    low, high = curve_layout(info)["yaxis"]["range"]
    axes.set(xscale="log", xlabel="temperature T", ylabel="validation accuracy, %", ylim=(low, high))
    axes.set_xticks(TEMPERATURE_TICKS, [f"{tick:g}" for tick in TEMPERATURE_TICKS], minor=False)
    axes.minorticks_off()
    return _finished(figure, axes, "Students' accuracy, means over seeds with 95 % intervals")


def race_png(info: search_plots.RaceInfo) -> bytes:
    """What each method's choice is worth against the budget as a PNG of 900 x 420 pixels on white."""
    figure, axes = _canvas()
    for name, course in info.courses.items():
        if course.budget:
            curve = Line(name, course.budget, course.worth, course.low, course.high, course.budget)
            _curve(axes, style.LOOKS[name], name, course.budget, curve)
    if info.best is not None:
        axes.axhline(info.best, color=style.NEUTRAL, linestyle=":", label="best cell")
    low, high = search_plots.race_layout(info)["yaxis"]["range"]
    axes.set(xlabel="budget, epochs trained", ylabel="worth of the chosen one, %", ylim=(low, high))
    return _finished(figure, axes, "What each method found, means over repeats with 95 % intervals")


def bayes_png(info: bayes_plots.BeliefInfo) -> bytes:
    """What a model believes of one hyper-parameter as a PNG of 900 x 420 pixels on white."""
    figure, axes = _canvas()
    model, you, proposal = (style.LOOKS[name] for name in ("Bayesian", "you", "proposal"))
    if info.truth.size:
        axes.fill_between(info.truth.size, info.truth.low, info.truth.high, color=style.NEUTRAL, alpha=0.2, linewidth=0)
        axes.plot(info.truth.size, info.truth.accuracy, color=style.NEUTRAL, linestyle=":", label="measured")
    axes.fill_between(info.model.size, info.model.low, info.model.high, color=model.colour, alpha=0.2, linewidth=0)
    axes.plot(info.model.size, info.model.accuracy, color=model.colour, label="model, with its 95 % band")
    for sample in info.samples:
        axes.plot(info.model.size, sample, color=style.SKY, linestyle="--", linewidth=1)
    axes.scatter(*info.start, s=70, zorder=3, label="start", facecolors="none", edgecolors=you.colour, linewidths=2)
    axes.scatter(*info.yours, s=70, zorder=3, label="your trials", marker=_MARKERS[you.marker], color=you.colour)
    if info.proposal:
        value, mean = info.proposal[:2]
        axes.axvline(value, color=proposal.colour, linestyle=_DASHES[proposal.dash], linewidth=1)
        axes.plot(
            value,
            mean,
            marker=_MARKERS[proposal.marker],
            markersize=14,
            color=proposal.colour,
            linestyle="",
            zorder=4,
            label="where it would try next",
        )
    axes.set(
        xscale="log" if info.axis.log else "linear",
        xlim=(info.axis.low, info.axis.high),
        ylim=(bayes_plots.BOTTOM, bayes_plots.TOP),
        xlabel=info.axis.layout["title"],
        ylabel="validation accuracy, %",
    )
    return _finished(figure, axes, "What the model believes")


def intervals_png(info: IntervalsInfo) -> bytes:
    """Forty readings against the truth as a PNG of 900 x 420 pixels on white."""
    figure, axes = _canvas()
    for drawn, held, label in ((HOLDS, True, "holds the truth"), (MISSES, False, "misses the truth")):
        at = [index for index, value in enumerate(info.held) if value == held]
        if at:
            axes.errorbar(
                [index + 1 for index in at],
                [info.value[index] for index in at],
                yerr=[
                    [info.value[index] - info.low[index] for index in at],
                    [info.high[index] - info.value[index] for index in at],
                ],
                fmt=_MARKERS[drawn.marker],
                color=drawn.colour,
                capsize=2,
                label=label,
            )
    if info.truth is not None:
        axes.axhline(info.truth, color=style.NEUTRAL, label=f"truth, {info.truth:.1f} %")
    axes.set(xlabel="reading", ylabel="accuracy, %", ylim=(info.bottom - 2, info.top + 2))
    return _finished(figure, axes, f"{len(info.value)} readings with their 95 % intervals")


def board_png(info: BoardInfo) -> bytes:
    """The board as a PNG of 900 x 420 pixels on white; names are left to the live figure."""
    figure, axes = _canvas()
    xs, ys = front_line(info)
    if xs:
        gaps = [[float("nan") if value is None else value for value in values] for values in (xs, ys)]
        axes.step(*gaps, where="post", color=style.NEUTRAL, label="Pareto front")
    for technique in TECHNIQUES:
        pins = [pin for pin in info.pins if look(pin.technique) is style.LOOKS[technique]]
        if pins:
            axes.errorbar(
                [pin.size for pin in pins],
                [pin.accuracy for pin in pins],
                yerr=[[pin.accuracy - pin.low for pin in pins], [pin.high - pin.accuracy for pin in pins]],
                fmt=_MARKERS[look(technique).marker],
                color=look(technique).colour,
                markersize=9,
                capsize=4,
                label=technique,
            )
    axes.set(xscale="log", xlabel=SIZE_AXES[info.size].title, ylabel="validation accuracy, %")
    return _finished(figure, axes, "The board: accuracy against size, with 95 % intervals")


def sensitivity_png(info: SensitivityInfo) -> bytes:
    """The curves of a sensitivity scan as a PNG of 900 x 420 pixels on white."""
    figure, axes = _canvas()
    for curve, drawn in zip(info.curves, looks(info), strict=True):
        if drawn is None:
            axes.plot(curve.ratio, curve.accuracy, color=style.NEUTRAL, linewidth=1)
            continue
        _curve(axes, drawn, curve.name, curve.ratio, curve)
    here, marks = style.LOOKS["here"], allocation_marks(info)
    axes.scatter(*marks, marker=_MARKERS[here.marker], color=here.colour, s=80, zorder=3, label="allocation")
    axes.set(ylim=(0, 102), xlabel="removed from this layer, % of its weights", ylabel="validation accuracy, %")
    return _finished(figure, axes, "One layer pruned alone, with 95 % intervals")


def table_png(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> bytes:
    """A table as a PNG on white.

    Args:
        title: over the table.
        names: of the columns.
        rows: their texts.
        numeric: for each column whether it stands on the right.
    """
    letters = [max(len(line) for line in column) + 2 for column in zip(names, *rows, strict=True)] or [2]
    width, height = max(0.085 * sum(letters), 0.1 * len(title), 2.0), 0.27 * (len(rows) + 1)
    figure = Figure(figsize=(width + 0.2, height + 0.5), dpi=100)
    axes = figure.add_axes((0.1 / (width + 0.2), 0.05 / (height + 0.5), width / (width + 0.2), height / (height + 0.5)))
    axes.set_axis_off()
    axes.set_title(_literal(title), loc="left", fontsize=style.FONT_SIZE)
    if names:
        texts = [[_literal(text) for text in row] for row in rows] or [[""] * len(names)]
        shares = [count / sum(letters) for count in letters]
        drawn = axes.table(
            texts, colLabels=[_literal(name) for name in names], colWidths=shares, bbox=Bbox.unit(), edges="horizontal"
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(10)
        for (row, column), cell in drawn.get_celld().items():
            cell.set_text_props(ha="right" if numeric[column] else "left", weight="bold" if row == 0 else "normal")
            cell.set_edgecolor("#bdbdbd")
    return _png(figure)


def _literal(text: str) -> str:
    """Matplotlib reads formulas between dollar signs."""
    return text.replace("$", r"\$")


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 4.2), dpi=100, layout="constrained")
    return figure, figure.add_subplot()


def _finished(figure: Figure, axes: Axes, title: str) -> bytes:
    axes.set_title(title, loc="left", fontsize=style.FONT_SIZE)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _errors(points: Line) -> list[list[float]]:
    return [
        [value - low for value, low in zip(points.accuracy, points.low, strict=True)],
        [high - value for value, high in zip(points.accuracy, points.high, strict=True)],
    ]


def _curve(axes: Axes, drawn: style.Look, label: str, x: Sequence[float], curve: Line | LayerCurve) -> None:
    """Accuracies of a curve over `x`, with their band, in the technique's look."""
    axes.fill_between(x, curve.low, curve.high, color=drawn.colour, alpha=0.2, linewidth=0)
    axes.plot(
        x,
        curve.accuracy,
        label=label,
        color=drawn.colour,
        linestyle=_DASHES[drawn.dash],
        marker=_MARKERS[drawn.marker],
        markersize=4,
    )
