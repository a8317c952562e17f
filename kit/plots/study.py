"""Figures of a study of your own, each in one call: `history(study)`, `slices(study)`.

A trial that failed or timed out has no value: it stands under the others. One that is not told yet is not shown.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kit import checks
from kit.plots import style
from kit.plots.curves import counted, parameter_title, value_axis
from kit.plots.search import COLOURS
from kit.search import Choice, Study, Trial
from kit.search.space import Parameter
from kit.search.study import Unit

COLUMNS = 4  # of slices side by side


def history(study: Study, *, unit: Unit = "trials") -> go.Figure:
    """The value of each trial, and the best so far, against what was spent: "trials", or "epochs" that they trained.

    Raises:
        TypeError: no study.
        ValueError: another unit.
    """
    told, steps = _told(study), study.best_so_far(unit)
    spent = list(accumulate(1 if unit == "trials" else trial.spent for trial in told))
    best = [*steps, (spent[-1], steps[-1][1])] if steps else []
    line = {"name": "best so far", "x": [x for x, _ in best], "y": [value for _, value in best], "mode": "lines"}
    traces = [*_points(told, spent, color=style.NEUTRAL), {**line, "line": {"color": style.BLUE, "shape": "hv"}}]
    x, y = {"title": f"{unit} spent"}, {"title": _value_title(study)}
    return go.Figure(traces, style.layout(_title(told), 380, x, y, **style.legend_above(60)))


def slices(study: Study, *names: str) -> go.Figure:
    """The value of each trial against each of its hyper-parameters, or those named; later trials are brighter.

    Raises:
        TypeError: no study.
        ValueError: a name that is not in its space.
    """
    told, names = _told(study), names or study.space.names
    for name in names:
        checks.one_of("names", name, study.space.names)
    rows, columns = math.ceil(len(names) / COLUMNS), min(COLUMNS, len(names))
    figure = make_subplots(rows, columns, shared_yaxes="all", horizontal_spacing=0.03, vertical_spacing=0.28 / rows)
    figure.update_layout(style.layout(_title(told), 60 + 260 * rows, {}, {}))
    look = {"color": [trial.number for trial in told if trial.value is not None], "colorscale": COLOURS}
    for at, name in enumerate(names):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        parameter = study.space.parameters[name]
        for points in _points(told, [_number(parameter, trial.config[name]) for trial in told], **look):
            figure.add_trace(points, **place)
        y = {} if at % columns else {"title": _value_title(study)}
        axes = style.layout("", 0, _axis(name, parameter), y)
        figure.update_xaxes(axes["xaxis"], **place)
        figure.update_yaxes(axes["yaxis"], **place)
    return figure


def _told(study: Study) -> list[Trial]:
    checks.instance("study", study, Study)
    return [trial for trial in study.trials if trial.told]


def _title(told: Sequence[Trial]) -> str:
    failed = sum(trial.value is None for trial in told)
    return counted(len(told), "trial") + f", {failed} of them failed" * bool(failed)


def _value_title(study: Study) -> str:
    return f"value ({'more' if study.maximise else 'less'} is better)"


def _points(told: Sequence[Trial], xs: Sequence[float], **look: Any) -> list[dict[str, Any]]:
    """Two traces: trials that are done, and below the lowest of them those that are not."""
    values = [trial.value for trial in told if trial.value is not None] or [0.0]
    strip = min(values) - (0.1 * (max(values) - min(values)) or 1.0)
    traces = []
    for name, marker in (("trials", look), ("failed", {"symbol": "x", "color": style.VERMILION})):
        kept = [(x, each) for x, each in zip(xs, told, strict=True) if (each.value is None) == (name == "failed")]
        said = [html.escape(f"trial {each.number}: {each.error or each.value}, {each.config}") for _, each in kept]
        y = [strip if each.value is None else each.value for _, each in kept]
        points = {"x": [x for x, _ in kept], "y": y, "hovertext": said, "hoverinfo": "text"}
        traces.append({"name": name, "mode": "markers", "marker": {"size": 8, **marker}, **points})
    return traces


def _number(parameter: Parameter, value: Any) -> float:
    """Where a value stands on its axis; options stand in their order."""
    return float(parameter.index(value) or 0) if isinstance(parameter, Choice) else value


def _axis(name: str, parameter: Parameter) -> dict[str, Any]:
    if not isinstance(parameter, Choice):
        return value_axis(name, parameter, margin=0.05, most=4)
    count = len(parameter.options)
    texts = {"tickvals": list(range(count)), "ticktext": [html.escape(str(each)) for each in parameter.options]}
    return {"title": parameter_title(name), "range": [-0.5, count - 0.5], **texts}
