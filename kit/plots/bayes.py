"""Figures of Bayesian optimisation in one dimension: what the model believes, what a trial promises, the race.

Accuracies come as shares 0 .. 1 and are drawn as per cent. `draw_belief` and `draw_promise` are still pictures, for
matplotlib's axes, in the numbers as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from kit.measure import Z95, Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel, Trace
from kit.search.acquisition import ACQUISITIONS, Acquisition
from kit.search.duel import Duel, Race, View, room

BOTTOM, TOP = -8.0, 116.0  # of the accuracy axis; room for the texts below and above the band
DETAIL_HEIGHT = 220
TRUTH = style.Look(style.NEUTRAL, "circle", "dot")
PLAYERS = {"random": "random", "Bayesian": "machine", "you": "you"}  # in the race, by their looks
PROMISES: dict[Acquisition, tuple[str, str]] = {  # title of the axis, and what is written at the peak
    "ei": ("promise, % of its peak", "{} points"),
    "pi": ("promise, % of its peak", "{} %"),
    "ucb": ("bound on accuracy, %", "up to {} %"),
    "thompson": ("accuracy drawn, %", "{} %"),
}


def expected(duel: Duel, view: View, value: float) -> Estimate:
    """The accuracy that the model expects at a value of the hyper-parameter."""
    return _believed(view, np.array([duel.parameter.encode(value)]))[0]


def chance(race: Race) -> list[Estimate]:
    """What random search chose after each trial: mean over its runs."""
    return [Estimate.from_values(values).share for values in zip(*race.random, strict=True)]


def belief_panel(duel: Duel, view: View | None, samples: int = 0, truth: bool = False) -> Panel:
    """Accuracy (per cent) against a hyper-parameter: the model's median and 95 % band, and the trials it has seen.

    Args:
        duel: says what was made for you, and where the model is drawn.
        view: what the model makes of your trials; None draws nothing of it.
        samples: how many functions are drawn from the model; the same ones for the same model.
        truth: whether the mean of the networks is drawn; a value with one trained network alone has no interval, and
            none.
    """
    blue, you, parameter, axis = style.LOOKS["Bayesian"], style.LOOKS["you"], duel.parameter, duel.landscape.axes[0]
    reached = [row[np.isfinite(row)].tolist() for row in duel.landscape.curves[..., -1].T]  # [cells][seeds]
    cells = [(value, row) for value, row in zip(axis, reached, strict=True) if truth and len(row) > 1]
    measured = [(value, Estimate.from_values(row).share) for value, row in cells]
    believed, trials, drawn, next_one = [], [], [], []
    if view is not None:
        values = [parameter.decode(place) for place in duel.along.tolist()]
        believed = list(zip(values, _believed(view, duel.along), strict=True))
        trials = [(trial.config[duel.name], _reading(trial.value or 0.0)) for trial in view.trials]
        if samples:  # the same seed at each move: the functions change with the model only
            functions = view.model.samples(duel.along[:, None], samples, view.model.method.seed)
            drawn = (100 * functions).round(3).tolist()
        if view.proposal is not None:
            value = axis[view.proposal]
            next_one = [(value, expected(duel, view, value))]
    known, model = _curve("measured, mean of all networks", measured), _curve("middle of the model", believed)
    begun, tried = _curve("start", trials[: duel.start]), _curve("your trials", trials[duel.start :])
    proposal = _curve("the next proposal", next_one)
    ring = {"symbol": "circle-open", "size": 11, "color": you.colour, "line": {"width": 2.5}}
    traces: list[Trace] = [
        curves.band(known, TRUTH, "interval over the networks"),
        curves.line(known, TRUTH, line=_line(TRUTH, 1.5), marker={"size": 4, "color": TRUTH.colour}),
        curves.band(model, blue, "95 % band of the model"),
        {
            "name": "drawn from the model",
            # One trace for all functions: a gap lies between two.
            **{"x": [*model.x, None] * len(drawn), "y": [y for sample in drawn for y in (*sample, None)]},
            **{"mode": "lines", "line": {"color": style.SKY, "dash": "dash", "width": 1.2}},
            "hovertemplate": curves.HOVER,
        },
        curves.line(model, blue, mode="lines", line=_line(blue, 2.5)),
        curves.line(begun, you, hovertemplate=curves.HOVER, mode="markers", marker=ring),
        curves.line(
            tried,
            you,
            hovertemplate=curves.HOVER,
            mode="markers",
            marker=_marker(you, 11),
        ),
        _proposal(proposal.x, [BOTTOM, *proposal.value, TOP - 6], 15, hovertemplate=curves.HOVER),
    ]
    ends = {"— model": model.value[-1:], "··· measured": known.value[-1:], "┄ drawn": [row[-1] for row in drawn[:1]]}
    labels = [Label(text, y=y, end=True) for text, last in ends.items() for y in last]
    labels += [Label("next", x, TOP - 6) for x in proposal.x]
    labels += [Label("latest", x, y, rank=1) for x, y in [*zip(tried.x, tried.value, strict=True)][-1:]]
    layout = style.layout(
        "The model's belief: ○ start, ✖ tried, ★ next. Click to try.",
        330,
        curves.value_axis(duel.name, parameter),
        {"title": "validation accuracy, %", "range": [BOTTOM, TOP]},
        right=96,
    )
    return Panel(traces, layout, (model, begun, tried, proposal, known), tuple(labels))


def wanted_panel(duel: Duel, acquisition: Acquisition, view: View | None) -> Panel:
    """The acquisition function against the hyper-parameter, with the proposal marked."""
    look, (axis, words) = style.LOOKS["proposal"], PROMISES[acquisition]
    logarithm = acquisition in ("ei", "pi")  # drawn as a share of the maximum
    scores = np.empty(0) if view is None else view.scores
    x, said, peak = [], "", []
    if view is not None and view.proposal is not None and view.peak is not None:
        x, peak = [duel.landscape.axes[0][view.proposal]], [view.peak]
        worth = 100 * float(view.model.plain(np.array(view.peak)))
        said = words.format(f"{worth:.1f}" if not logarithm else "under 0.001" if worth < 0.001 else f"{worth:.2g}")
    shares = np.array([*scores, *peak])
    if logarithm:
        shares = np.exp(shares - scores.max(initial=-math.inf))
    elif view is not None:
        shares = view.model.plain(shares)
    heights = (100 * shares).round(3).tolist()
    values = tuple(duel.parameter.decode(each) for each in duel.along[: len(scores)].tolist())
    traces = [
        curves.line(
            Curve("acquisition function", values, tuple(heights[: len(values)])),
            look,
            mode="lines",
            line={"color": look.colour, "width": 2},
            hovertemplate="%{y:.1f} % at %{x:.3g}<extra></extra>",
        ),
        _proposal(x, [BOTTOM, *heights[len(values) :]], 13, hovertemplate="next: %{x:.3g}<extra></extra>"),
    ]
    what = "one function drawn from the model" if acquisition == "thompson" else ACQUISITIONS[acquisition].label
    y = {"title": axis, "range": [BOTTOM, 122.0], "tickvals": list(range(0, 101, 20))}
    x_axis, title = curves.value_axis(duel.name, duel.parameter, most=5), f"{what[0].upper()}{what[1:]}, ★ next"
    labels = tuple(Label(said, *place) for place in zip(x, heights[len(values) :], strict=True))
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, x_axis, y), labels=labels)


def race_panel(race: Race | None, best: float) -> Panel:
    """What is chosen after n trials, measured anew (per cent): the best 30 points, where players differ.

    Args:
        race: as far as it is run; None draws an empty one.
        best: the best mean of a cell, share 0 .. 1: sets the axis.
    """
    race = race or Race((), (), (), room(0))
    known = {"random": chance(race), "Bayesian": map(_reading, race.machine), "you": map(_reading, race.you)}
    worths = {name: Curve.of(PLAYERS[name], enumerate(estimates, 1)) for name, estimates in known.items()}
    traces = [curves.band(worths["random"], style.LOOKS["random"], "95 % band of random search")]
    # The machine often goes the same way as you: its line is wide, so that it is seen under yours.
    for name, size, width, shape in (("random", 5, 2, "linear"), ("Bayesian", 10, 5, "hv"), ("you", 7, 2, "hv")):
        look, line = style.LOOKS[name], _line(style.LOOKS[name], width) | {"shape": shape}
        interval = " (%{customdata[0]} to %{customdata[1]})" * (name == "random")
        told = f"%{{fullData.name}}<br>%{{y:.1f}} %{interval}<br>after trial %{{x}}<extra></extra>"
        traces.append(curves.line(worths[name], look, hovertemplate=told, line=line, marker=_marker(look, size)))
    step = 2 if race.end <= 24 else 5 if race.end <= 60 else 20
    x = {"title": "trials", "range": [0.6, race.end + 0.4], "dtick": step}
    labels = [label for name in worths for label in curves.at_end(worths[name], style.LOOKS[name])]
    title = "The race: incumbents, measured anew"
    layout = style.layout(title, DETAIL_HEIGHT, x, curves.incumbent_axis(best), right=84)
    return Panel(traces, layout, tuple(worths.values()), tuple(labels))


def draw_belief(
    axes: Axes,
    along: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    tried: tuple[np.ndarray, np.ndarray],
    *,
    samples: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> None:
    """A belief in one dimension: its mean, its 95 % band, the numbered trials (one text for those close together).

    Args:
        axes: to draw on.
        along: places, [m] or [m, 1].
        mean: of the belief there, [m].
        std: its standard deviation, [m].
        tried: places [n] or [n, 1] and values [n] of the trials, in their order; n may be 0.
        samples: functions drawn from the belief, [k, m].
        truth: the function that is looked for, [m].
    """
    blue, you, along = style.LOOKS["Bayesian"], style.LOOKS["you"], np.ravel(along)
    axes.fill_between(along, mean - Z95 * std, mean + Z95 * std, color=blue.colour, alpha=0.2, linewidth=0)
    if samples is not None:
        axes.plot(along, samples.T, "--", color=style.SKY, linewidth=1)
    if truth is not None:
        axes.plot(along, truth, ":", color=TRUTH.colour, linewidth=1.5)
    axes.plot(along, mean, color=blue.colour, linewidth=2)
    x, y = np.ravel(tried[0]), tried[1]
    axes.plot(x, y, you.marker, color=you.colour, markersize=6, markeredgewidth=2)
    wide, high = np.ptp(along), np.ptp([mean - Z95 * std, mean + Z95 * std])
    groups: list[list[tuple[int, float, float]]] = []  # trials that lie too close for a text each
    for trial in zip(range(1, len(x) + 1), x.tolist(), y.tolist(), strict=True):
        for group in groups:
            if any(abs(trial[1] - at) < 0.05 * wide and abs(trial[2] - value) < 0.25 * high for _, at, value in group):
                group.append(trial)
                break
        else:
            groups.append([trial])
    for group in groups:
        numbers, places, values = zip(*group, strict=True)
        top, text = (sum(places) / len(group), max(values)), ", ".join(map(str, numbers))
        axes.annotate(text, top, xytext=(0, 6), textcoords="offset points", ha="center", fontsize="small")


def draw_promise(axes: Axes, along: np.ndarray, worth: np.ndarray) -> None:
    """An acquisition function, [m] at places [m] or [m, 1], with a star where it is largest: the next trial."""
    look, along, best = style.LOOKS["proposal"], np.ravel(along), int(worth.argmax())
    axes.fill_between(along, min(0.0, worth.min()), worth, color=look.colour, alpha=0.25, linewidth=0)
    axes.plot(along, worth, color=look.colour)
    axes.plot(along[best], worth[best], "*", color=look.colour, markersize=12)
    axes.axvline(along[best], linestyle=(0, (4, 4)), color=look.colour, linewidth=1)
    axes.margins(y=0.2)  # room for the star


def _believed(view: View, places: np.ndarray) -> list[Estimate]:
    """Median and 95 % band of the model at places of the unit interval, [m]."""
    columns = (ends.tolist() for ends in view.model.band(places[:, None], Z95))
    return [Estimate(middle, low, high, 1) for middle, low, high in zip(*columns, strict=True)]


def _reading(value: float) -> Estimate:
    """One number, which knows nothing of its spread."""
    return Estimate(value, value, value, 1)


def _curve(label: str, points: Iterable[tuple[float, Estimate]]) -> Curve:
    """With short numbers: they are sent to the page with each move."""
    curve = Curve.of(label, points)
    value, low, high = (tuple(round(float(each), 3) for each in column) for column in curve[2:5])
    return Curve(label, curve.x, value, low, high)


def _line(look: style.Look, width: float) -> dict[str, Any]:
    return {"color": look.colour, "dash": look.dash, "width": width}


def _marker(look: style.Look, size: Any) -> dict[str, Any]:
    return {"symbol": look.marker, "size": size, "color": look.colour}


def _proposal(x: Sequence[float], heights: Sequence[float], size: int, **more: Any) -> Trace:
    """A dashed vertical line with a star at the second height, where the model would try next; empty without an `x`."""
    look = style.LOOKS["proposal"]
    return {
        "name": "the next proposal",
        **{"x": [*x] * len(heights), "y": list(heights) if x else []},
        **{"mode": "lines+markers", "line": _line(look, 1.5)},
        "marker": _marker(look, [0, size, 0][: len(heights)]) | {"opacity": 1, "line": {"width": 0}},
        **more,
    }
