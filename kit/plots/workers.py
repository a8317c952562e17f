"""Figures of many workers: who worked when, and how busy they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from plotly.colors import sample_colorscale

from kit.plots import curves, style
from kit.plots.curves import Curve, Panel
from kit.plots.search import COLOURS, DETAIL_HEIGHT

if TYPE_CHECKING:
    from kit.cluster import Span

WORKERS = (1, 2, 4, 8, 16, 32, 64)
ROWS = 8  # ticks of the workers, at most
Unit = Literal["minutes", "seconds"]
SECONDS: dict[Unit, float] = {"minutes": 60.0, "seconds": 1.0}
HOVER = "trial %{customdata[0]}: %{customdata[1]}<br>from %{base:.1f}, for %{x:.1f}"


def timeline_panel(
    spans: Sequence[Span], trained: Mapping[int, Any], rungs: Mapping[Any, str], workers: int, *, unit: Unit = "minutes"
) -> Panel:
    """A row for each worker, a bar for each trial in the colour of its rung, grey where the worker waits.

    Args:
        spans: of the trials, in seconds; of what still goes on there is nothing to draw yet.
        trained: the rung of each trial, by its number; None where it is left out.
        rungs: their names, dark to bright.
        workers: rows.
        unit: of the time axis; "minutes" are virtual ones.
    """
    done = [(span, span.end / SECONDS[unit]) for span in spans if span.end is not None]
    starts = [span.start / SECONDS[unit] for span in spans if span.end is not None]
    first = min(starts, default=0.0) if unit == "seconds" else 0.0  # real workers start slowly
    end, rows = max((last for _, last in done), default=first + 1.0), list(range(workers))
    grey = {"marker": {"color": style.faint(style.NEUTRAL, 0.25)}, "hoverinfo": "skip"}
    traces = [_bars("waits", [(first, end, row) for row in rows], **grey)]
    shades = sample_colorscale(COLOURS, len(rungs)) if len(rungs) > 1 else [style.BLUE]
    for (rung, name), colour in zip(rungs.items(), shades, strict=True):
        here = [(start, last, span) for start, (span, last) in zip(starts, done, strict=True)]
        here = [each for each in here if trained.get(each[2].trial) == rung]
        told = {
            "customdata": [[span.trial, name] for _, _, span in here],
            "hovertemplate": f"{HOVER} {unit}<extra></extra>",
        }
        edged = {"color": colour, "line": {"width": 0.5, "color": "#fff"}}
        bars = [(start, last, span.worker) for start, last, span in here]
        traces.append(_bars(name, bars, marker=edged, **told))
    worked = sum(last - start for start, (_, last) in zip(starts, done, strict=True)) / (workers * (end - first))
    x = {"title": "virtual minutes" if unit == "minutes" else unit, "range": [first, end], "showgrid": False}
    ticks = rows[:: -(-workers // ROWS)]
    y = {"title": "worker", "range": [workers - 0.5, -0.5], "tickvals": ticks, "showgrid": False, "ticks": ""}
    title = f"Who works when: at work {100 * worked:.0f} % of the time"
    return Panel(traces, style.layout(title, 330, x, y, barmode="overlay", bargap=0, **style.legend_above(52)))


def busy_panel(courses: Mapping[str, Sequence[tuple[int, float]]], method: str) -> Panel:
    """How much of their time the workers work, per cent, against how many there are (one of `WORKERS`).

    Args:
        courses: by method: numbers of workers, and that share.
        method: drawn stronger than the others.
    """
    known, traces, labels = list[Curve](), list[dict[str, Any]](), list[curves.Label]()
    for name, points in courses.items():
        look, busy = style.LOOKS[name], tuple(100 * share for _, share in points)
        known.append(Curve(name, tuple(float(count) for count, _ in points), busy, busy, busy))
        line = {"color": look.colour, "dash": look.dash, "width": 3.5 if name == method else 1.5}
        hover = "%{fullData.name}<br>%{y:.0f} % with %{x} workers<extra></extra>"
        traces.append(curves.line(known[-1], look, line=line) | {"hovertemplate": hover})
        labels += curves.at_end(known[-1], look, rank=0 if name == method else 1)
    x = {"type": "log", "title": "workers", "range": [-0.03, 1.83], "tickvals": list(WORKERS), "tickangle": 0}
    axes = {**x, "ticktext": list(map(str, WORKERS))}, {"title": "time at work, %", "range": [0, 104]}
    layout = style.layout("How busy the workers are", DETAIL_HEIGHT, *axes, right=92)
    return Panel(traces, layout, tuple(known), tuple(labels))


def _bars(name: str, bars: Sequence[tuple[float, float, int]], **more: Any) -> dict[str, Any]:
    """Bars from start to end, in rows."""
    place = {"base": [start for start, _, _ in bars], "x": [end - start for start, end, _ in bars]}
    row = {"y": [row for _, _, row in bars], "width": 0.8}
    return {"type": "bar", "orientation": "h", "name": name, **place, **row, **more}
