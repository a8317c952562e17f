"""Figures of a search: the race of methods, the trials on the landscape, their projection, where the budget went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel
from kit.search.landscape import Landscape
from kit.search.replay import Trajectory
from kit.search.space import Choice
from kit.search.trials import Trial

METHODS = ("grid", "random", "halving", "Bayesian")
COLOURS = "Cividis"  # even in brightness, and the same for colour-blind readers
DETAIL_HEIGHT = 220
RUNGS = 4  # bars that are always there, empty or not


def race_at(trajectories: Mapping[str, Sequence[Trajectory]], budget: float) -> dict[str, Estimate]:
    """Accuracy of each method's incumbents under a budget: their mean, measured anew, with its interval.

    One repeat alone knows nothing of its spread, and has an interval of no width.

    Args:
        trajectories: by method, one per repeat.
        budget: in the unit of `Trajectory.spent`: epochs.

    Returns:
        By method; not for one of which a repeat has chosen nothing yet.
    """
    race = {}
    for name, repeats in trajectories.items():
        values = [pair[1] for pair in (each.at(budget) for each in repeats) if pair is not None]
        if values and len(values) == len(repeats):
            alone = Estimate(values[0], values[0], values[0], 1)
            race[name] = Estimate.from_values(values).share if len(values) > 1 else alone
    return race


def race_panel(
    trajectories: Mapping[str, Sequence[Trajectory]], budgets: Sequence[int], full: int, best: float | None = None
) -> Panel:
    """Accuracy of each incumbent, measured anew (per cent, mean over repeats, 95 % band), against the budget (epochs).

    Args:
        trajectories: by method, one per repeat.
        budgets: where the curves have points, ascending; one at which a repeat has chosen nothing yet is left out.
        full: epochs of one whole training.
        best: what the best cell of the landscape reaches, share 0 .. 1; None while it is not known.
    """
    races = [(budget, race_at(trajectories, budget)) for budget in budgets]
    courses = [Curve.of(name, ((budget, race[name]) for budget, race in races if name in race)) for name in METHODS]
    traces: list[dict[str, Any]] = []
    for course in courses:
        look = style.LOOKS[course.label]
        marker = {"symbol": look.marker, "size": 6, "color": look.colour}
        traces += curves.banded(course, look, at="after %{x} epochs", marker=marker)
    labels = [label for course in courses for label in curves.at_end(course, style.LOOKS[course.label])]
    top, dotted = budgets[-1], {"dash": "dot", "color": style.NEUTRAL, "width": 1}
    x, y = ([], []) if best is None else ([0, top], [100 * best] * 2)
    traces.append({"name": "best cell", "x": x, "y": y, "mode": "lines", "line": dotted, "hovertemplate": curves.HOVER})
    labels += [Label("★ best cell", y=height, end=True, rank=1) for height in y[-1:]]
    budget = curves.count_axis(top / full, f"budget, epochs ({full} are a whole training)")
    budget |= {"range": [0, top * 1.01], "dtick": budget["dtick"] * full}
    layout = style.layout("What would each method have found?", 330, budget, curves.incumbent_axis(best), right=96)
    return Panel(traces, layout, tuple(courses), tuple(labels))


def landscape_panel(landscape: Landscape) -> Panel:
    """Accuracy at every cell (per cent, mean of its networks) as a picture; the trials are drawn over it.

    The axes are places in the unit interval. The colours go over the best 40 points, where the differences are.
    """
    rows = [[None if math.isnan(value) else 100 * value for value in row] for row in landscape.mean.T.tolist()]
    top = max(40, 5 * math.ceil(max((value for row in rows for value in row if value is not None), default=100.0) / 5))
    x, y = ({**_axis(landscape, name), "showgrid": False} for name in landscape.space.names)
    picture = {
        **{"type": "heatmap", "z": rows, "x": _places(landscape, 0), "y": _places(landscape, 1)},
        **{"colorscale": COLOURS, "zmin": top - 40, "zmax": top, "hovertemplate": "%{z:.1f} %<extra></extra>"},
        "colorbar": {
            **{"thickness": 10, "len": 1.0, "outlinewidth": 0, "title": {"text": "%", "side": "top"}},
            "tickvals": [top - 40, top - 20, top],
            "ticktext": [f"≤{top - 40}", f"{top - 20}", f"{top}"],
        },
    }
    total = landscape.curves[..., 0].size
    done = f"★ chosen, of {total:,} trained networks"
    title = f"{total - landscape.missing:,} of {total:,} networks trained" if landscape.missing else done
    return Panel([picture], style.layout(title, DETAIL_HEIGHT, x, y))


def projection_panel(landscape: Landscape, name: str, trials: Sequence[Trial], method: str) -> Panel:
    """Accuracy of the trials (per cent) against one hyper-parameter; a line over them: the best of all cells.

    Args:
        landscape: what was searched.
        name: of one of its two hyper-parameters.
        trials: of the search; those that are not done are left out.
        method: gives the look.
    """
    at, parameter, look = landscape.space.names.index(name), landscape.space.parameters[name], style.LOOKS[method]
    dots = [(parameter.encode(trial.config[name]), 100 * trial.value) for trial in trials if trial.value is not None]
    ridge = [] if landscape.missing else (100 * np.nanmax(landscape.mean, axis=1 - at)).tolist()
    xs, ys = [place for place, _ in dots], [value for _, value in dots]
    grey, thin = {"color": style.NEUTRAL, "width": 2}, {"color": style.faint(style.NEUTRAL, 0.6), "width": 1}
    marker = {"color": look.colour, "symbol": look.marker, "size": 8, "line": {"width": 1, "color": "#fff"}}
    hover, cells = "%{y:.1f} %<extra></extra>", {"x": _places(landscape, at)[: len(ridge)], "y": ridge}
    traces: list[dict[str, Any]] = [
        {
            "name": "best cell at each value",
            **cells,
            "mode": "lines",
            "line": grey,
            "hovertemplate": "best cell: " + hover,
        },
        {"name": "sticks", **curves.sticks(xs, ys), "mode": "lines", "line": thin, "hoverinfo": "skip"},
        {"name": "trials", "x": xs, "y": ys, "mode": "markers", "hovertemplate": hover, "marker": marker},
    ]
    x = _axis(landscape, name)
    count, different = len(dots), len({round(place, 9) for place, _ in dots})
    title = f"{curves.counted(count, 'trial')}, {curves.counted(different, 'value')} of {x['title']}"
    y = {"title": "accuracy, %", "range": [0, 104], "tickvals": [0, 20, 40, 60, 80, 100]}
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, {**x, "range": [-0.02, 1.02]}, y))


def rungs_panel(trials: Sequence[Trial], top: int, method: str) -> Panel:
    """Where the budget went: a bar for each number of epochs that trials were trained to, fewest at the bottom.

    Args:
        trials: of the search; one that went on from another counts at both, with the epochs that were spent on each.
        top: largest budget, epochs: sets the axis.
        method: gives the look.
    """
    spent: dict[int, list[int]] = {}
    for trial in sorted(trials, key=lambda trial: trial.epochs or 0):
        spent.setdefault(trial.epochs or 0, []).append(trial.spent)
    empty = range(RUNGS - len(spent))
    bar = curves.bars_right(
        [curves.counted(epochs, "epoch") for epochs in spent] + [" " * (at + 1) for at in empty],
        x=[sum(each) for each in spent.values()] + [0 for _ in empty],
        text=[curves.counted(len(each), "trial") for each in spent.values()] + ["" for _ in empty],
        marker={"color": style.LOOKS[method].colour},
        hovertemplate="%{y}: %{x} epochs spent<extra></extra>",
    )
    x, y = {"title": "epochs spent", "range": [0, 1.3 * top]}, {"showgrid": False, "type": "category", "ticks": ""}
    margin, title = {**style.MARGIN, "l": 76}, "Trials, by how long they trained"
    return Panel([bar], style.layout(title, DETAIL_HEIGHT, x, y, margin=margin))


def _axis(landscape: Landscape, name: str) -> dict[str, Any]:
    """Of places in the unit interval."""
    parameter = landscape.space.parameters[name]
    assert not isinstance(parameter, Choice)
    return curves.unit_axis(name, parameter)


def _places(landscape: Landscape, at: int) -> list[float]:
    """Of the cells along one axis."""
    parameter = list(landscape.space.parameters.values())[at]
    return [parameter.encode(value) for value in landscape.axes[at]]
