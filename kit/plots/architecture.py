"""Figures of architecture search: all networks and a search on them, the race of methods, a cell, shared weights."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale

from kit.cells import EDGES, NAMES, OUTPUT, Cell
from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel
from kit.plots.search import COLOURS, DETAIL_HEIGHT, race_at
from kit.search.architecture.table import Table
from kit.search.replay import Trajectory

TITLES = {"flops": "FLOPs for one image", "parameters": "parameters", "latency": "latency for one image, ms"}
SEEN, FADED = 0.75, 0.12  # opacity of a network within the limit, and beyond
UNSHARED = "Train supernet: one network<br>that holds all of these<br>gives each of them a score."
DEPTH = 4  # points of accuracy that the race shows under the best
LINES = {
    "skip": {"color": style.NEUTRAL, "dash": "dot", "width": 2},
    "pool": {"color": style.ORANGE, "dash": "dash", "width": 3},
    "conv1": {"color": style.SKY, "dash": "solid", "width": 3},
    "conv3": {"color": style.BLUE, "dash": "solid", "width": 6},
}
PLACES = ((0.0, 0.0), (1.0, 1.0), (1.0, -1.0), (2.0, 0.0))  # of the nodes
SIDES = ("top left", "bottom left", "middle right", "top right", "bottom right")  # of the edges: where the names stand


def said(what: str, cost: float) -> str:
    """A cost in words: "4,538 parameters", "146 kFLOPs", "0.312 ms"."""
    if what == "latency":
        return f"{cost:.3g} ms"
    return f"{cost:,.0f} parameters" if what == "parameters" else f"{cost / 1e3:,.0f} kFLOPs"


@lru_cache
def order_colours(count: int) -> list[str]:
    """Of trials in their order, dark to bright; by the logarithm, so that a few of many differ, too."""
    return list(sample_colorscale(COLOURS, np.log1p(np.arange(count)) / max(1.0, np.log(count)))) if count else []


def front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows of the Pareto front, cheapest first: no other one costs no more and is worth as much. [n], [n] -> [m]."""
    order = np.lexsort((-values, costs))
    best = np.maximum.accumulate(values[order])
    return order[np.r_[True, best[1:] > best[:-1]]]


def cloud_panel(table: Table, what: str, within: np.ndarray, accuracy: Sequence[Estimate]) -> Panel:
    """Accuracy (mean over the trainings, on an `error_axis`) of all networks against their cost, and the Pareto front.

    Args:
        table: of the networks.
        what: one of `TITLES`.
        within: which of them a limit keeps, [n] of bool; the others are faded.
        accuracy: of each, with its interval over the trainings.
    """
    costs, every = table.costs(what), zip(*(table.costs(each) for each in TITLES), strict=True)
    words = [", ".join(said(name, cost) for name, cost in zip(TITLES, row, strict=True)) for row in every]
    networks = Curve.of("networks", zip(costs.tolist(), accuracy, strict=True), map(str, table.cells))
    edge, y = front(costs, np.array(networks.value)), list(map(curves.error, networks.value))
    rounded = [[round(end, 1) for end in each] for each in (networks.value, networks.low, networks.high)]
    outline = {"name": "Pareto front", "x": costs[edge].tolist(), "y": [y[row] for row in edge], "mode": "lines"}
    line = {"shape": "hv", "width": 1.5, "color": style.NEUTRAL}
    dots = {"name": "networks", "x": list(networks.x), "y": y, "mode": "markers"}
    marker = {"size": 6, "color": style.NEUTRAL, "opacity": np.where(within, SEEN, FADED).tolist()}
    told = [list(row) for row in zip(networks.said, *rounded, words, strict=True)]
    spread = "%{customdata[1]} % (%{customdata[2]} to %{customdata[3]})"
    hover = f"%{{customdata[0]}}<br>{spread}<br>%{{customdata[4]}}<extra></extra>"
    traces = [
        {**outline, "line": line, "hoverinfo": "skip"},
        {**dots, "marker": marker, "customdata": told, "hovertemplate": hover},
    ]
    ends = [math.log10(costs.min() / 1.1), math.log10(costs.max() * 1.1)]
    digits = (1, 2, 5) if ends[1] - ends[0] > 1 else (1, 2, 3, 4, 5, 7)
    ticks = [digit * 10.0**decade for decade in range(math.floor(ends[0]), math.ceil(ends[1])) for digit in digits]
    names = [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}" for tick in ticks]
    x = {"type": "log", "title": TITLES[what], "range": ends, "tickvals": ticks, "ticktext": names, "tickangle": 0}
    title = f"{len(costs):,} networks, all trained; the trials in their order, dark to bright; ★ incumbent"
    layout = style.layout(title, 330, x, curves.error_axis(networks.value))
    return Panel(traces, layout, (networks,), (Label("Pareto front", curve="Pareto front"),))


def race_panel(
    trajectories: Mapping[str, Sequence[Trajectory]],
    budgets: Sequence[float],
    epochs: int,
    method: str,
    best: float,
    unit: str = "trainings",
) -> Panel:
    """Accuracy of each incumbent, retested (per cent, mean over repeats, 95 % band), against the budget.

    Args:
        trajectories: by method, one per repeat; none are drawn as curves without points.
        budgets: where the curves have points, in their unit, ascending, from 1 on.
        epochs: of one training; of another unit, what of `Trajectory.spent` one of it is.
        method: drawn stronger than the others.
        best: the best mean accuracy of a network that may be found, share 0 .. 1; the greatest of many noisy means, it
            is beyond what a retest gives.
        unit: of the budget.
    """
    races = [(budget, race_at(trajectories, budget * epochs)) for budget in budgets]
    courses = [
        Curve.of(name, ((budget, race[name]) for budget, race in races if name in race)) for name in trajectories
    ]
    traces, labels = list[dict[str, Any]](), list[Label]()
    for course in courses:
        look, strong = style.LOOKS[course.label], course.label == method
        line = {"color": look.colour, "dash": look.dash, "width": 3.5 if strong else 1.5}
        band, drawn = curves.banded(course, look, at=f"after %{{x:.3~r}} {unit}", line=line)
        traces += [band | {"fillcolor": style.faint(look.colour, 0.25 if strong else 0.08)}, drawn]
        labels += curves.at_end(course, look, rank=0 if strong else 1)
    labels.append(Label("best mean", y=100 * best, end=True, rank=1))
    low, high = math.floor(100 * best) - DEPTH, math.ceil(100 * best + 0.3)
    ticks, top = [1, 3, 10, 30, 100, 300, 1000], math.log10(budgets[-1])
    x = {"type": "log", "title": f"budget, {unit}", "range": [0, top], "tickvals": ticks, "tickangle": 0}
    axes = {**x, "ticktext": list(map(curves.tick, ticks))}, curves.ticked("accuracy, retested, %", low, high)
    layout = style.layout("Best so far, retested", DETAIL_HEIGHT, *axes, right=108)
    return Panel(traces, {**layout, "shapes": [curves.level(100 * best)]}, tuple(courses), tuple(labels))


def cell_panel(cell: Cell | None, title: str, words: Sequence[str] = ()) -> Panel:
    """A cell as a graph: nodes from the input to the output, and the operation on each edge.

    Args:
        cell: as it is drawn; of a canonical one every edge counts. None draws nothing.
        title: over it.
        words: lines under it; its formula follows.
    """
    traces, used = list[dict[str, Any]](), set[int]()
    for at, ((start, end), side) in enumerate(zip(EDGES, SIDES, strict=True)):
        operation = "none" if cell is None else cell.operations[at]
        places = [] if operation == "none" else [PLACES[start], PLACES[end]]
        x, y = ([each[0], sum(each) / 2, each[1]] for each in zip(*places, strict=True)) if places else ([], [])
        used |= {start, end} if places else set()
        names = {"text": ["", f"\u2002{operation}\u2002", ""], "textposition": side}
        edge = {"name": f"edge {NAMES[at]}", "x": x, "y": y, "mode": "lines+text", "line": LINES.get(operation, {})}
        traces.append({**edge, **names, "textfont": {"size": style.FONT_SIZE}, "hoverinfo": "skip"})
    x, y = ([PLACES[node][axis] for node in sorted(used)] for axis in (0, 1))
    texts = [{0: "in", OUTPUT: "out"}.get(node, str(node)) for node in sorted(used)]
    dots: dict[str, Any] = {"name": "nodes", "x": x, "y": y, "text": texts, "textposition": "middle center"}
    look = {"marker": {"size": 28, "color": style.NEUTRAL}, "textfont": {"size": style.FONT_SIZE}}
    traces.append({**dots, **look, "mode": "markers+text", "hoverinfo": "skip"})
    lines = [] if cell is None else [*words, *textwrap.wrap(cell.formula, 48)]
    under = {"name": "words", "x": [1.0], "y": [-1.4], "text": ["<br>".join(lines)], "textposition": "bottom center"}
    traces.append({**under, "mode": "text", "cliponaxis": False, "hoverinfo": "skip"})
    bare = {"showgrid": False, "showticklabels": False, "ticks": "", "showline": False, "fixedrange": True}
    axes = {**bare, "range": [-0.25, 2.25]}, {**bare, "range": [-1.4, 1.4]}
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, *axes, margin={"l": 8, "r": 8, "t": 30, "b": 74}))


def shared_panel(
    scores: np.ndarray, truth: np.ndarray, title: str, shown: int | None = None, empty: str = UNSHARED
) -> Panel:
    """What each network reached when trained (on an `error_axis`) against what shared weights say of it (per cent).

    Args:
        scores: of the networks, share 0 .. 1, NaN for one that has none, [n].
        truth: mean accuracy of each, [n].
        title: over it.
        shown: row of a network that is marked.
        empty: words in place of the figure where no network has a score.
    """
    known = np.flatnonzero(np.isfinite(scores))
    x, y, said = 100 * scores[known], np.array([curves.error(100 * each) for each in truth[known]]), 100 * truth[known]
    here, look = known == shown, style.LOOKS["here"]
    hover = "%{customdata:.1f} % trained, %{x:.1f} % with shared weights<extra></extra>"
    dots = {"size": 5, "color": style.NEUTRAL, "opacity": 0.6}
    mark = {"symbol": look.marker, "size": 11, "color": look.colour}
    told = {"mode": "markers", "hovertemplate": hover}
    traces: list[dict[str, Any]] = [
        {"name": name, "x": x[rows].tolist(), "y": y[rows].tolist(), "customdata": said[rows].tolist(), **told, **look}
        for name, rows, look in (("networks", slice(None), {"marker": dots}), ("shown", here, {"marker": mark}))
    ]
    low, high = (math.floor(x.min() / 10) * 10, math.ceil(x.max() / 10) * 10) if len(x) else (0, 100)
    axes = {"title": "score with shared weights, %", "range": [low, high]}, curves.error_axis((100 * truth).tolist())
    middle = {"x": [50.0], "y": [10 ** (sum(axes[1]["range"]) / 2)], "text": [empty]} if not len(x) else {}
    traces.append({"name": "words", "x": [], "y": [], **middle, "mode": "text", "hoverinfo": "skip"})
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, *({**each, "visible": bool(len(x))} for each in axes)))
