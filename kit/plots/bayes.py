"""Figures of Bayesian optimisation in one dimension: what the model believes, what a trial promises, the race.

Accuracies come as shares 0 .. 1 and are drawn as per cent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kit.measure import Z95, Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Panel, Trace
from kit.search.acquisition import ACQUISITIONS, Acquisition
from kit.search.duel import Duel, Race, View, room

BOTTOM, TOP = -8.0, 116.0  # of the accuracy axis; the model's band may leave 0 .. 100
DETAIL_HEIGHT = 320
TRUTH = style.Look(style.NEUTRAL, "circle", "dot")
PLAYERS = {"random": "random", "Bayesian": "machine", "you": "you"}  # in the race, by their looks
PROMISES: dict[Acquisition, tuple[str, str]] = {  # title of the axis, and what is written at the peak
    "ei": ("expected improvement, % of its maximum", "{} points"),
    "pi": ("probability, % of its maximum", "{} %"),
    "ucb": ("bound on the accuracy, %", "up to {} %"),
    "thompson": ("accuracy in one draw, %", "{} %"),
}


def expected(duel: Duel, view: View, value: float) -> Estimate:
    """The accuracy that the model expects at a value of the hyper-parameter; it knows no 0 and no 1."""
    (mean,), (std,) = (each.tolist() for each in view.model.predict(np.array([[duel.parameter.encode(value)]])))
    return _normal(mean, std)


def chance(race: Race) -> list[Estimate]:
    """What random search chose after each trial: mean over its runs."""
    return [Estimate.from_values(values).share for values in zip(*race.random, strict=True)]


def belief_panel(duel: Duel, view: View | None, samples: int = 0, truth: bool = False) -> Panel:
    """Accuracy (per cent) against a hyper-parameter: the model's mean and 95 % band, and the trials it has seen.

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
    believed, trials, drawn, place, next_one = [], [], [], 0.0, []
    if view is not None:
        places, values = duel.along[:, None], [parameter.decode(place) for place in duel.along.tolist()]
        believed = list(zip(values, map(_normal, *view.model.predict(places)), strict=True))
        trials = [(trial.config[duel.name], _normal(trial.value or 0.0)) for trial in view.trials]
        if samples:  # the same seed at each move: the functions change with the model only
            drawn = (100 * view.model.samples(places, samples, view.model.method.seed)).round(3).tolist()
        if view.proposal is not None:
            place, value = float(duel.places[view.proposal]), axis[view.proposal]
            next_one = [(value, expected(duel, view, value))]
    known, model = _curve("measured, mean of all networks", measured), _curve("mean of the model", believed)
    begun, tried = _curve("start", trials[: duel.start]), _curve("your trials", trials[duel.start :])
    proposal = _curve("the next proposal", next_one)
    at_the_end = any(parameter.encode(value) > 0.99 for value in tried.x[-1:])
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
        curves.line(begun, you, mode="markers", marker=ring),
        curves.line(
            tried,
            you,
            mode="markers+text",
            marker=_marker(you, 11),
            text=[""] * len(tried.x[1:]) + ["latest"] * len(tried.x[:1]),
            textposition=f"bottom {'left' if at_the_end else 'center'}",
            textfont={"size": style.SMALL_SIZE},
        ),
        _proposal(
            proposal.x,
            [BOTTOM, *proposal.value, TOP - 6],
            15,
            text=["", "", "next"],
            textposition=f"middle {'left' if place > 0.85 else 'right'}",
            textfont={"size": style.FONT_SIZE},
            hovertemplate=curves.HOVER,
        ),
    ]
    names = {"model": "— model", "measured": "··· measured", "drawn": "┄ drawn"}
    ends = {"model": model.value[-1:], "measured": known.value[-1:], "drawn": [each[-1] for each in drawn[:1]]}
    layout = style.layout(
        "What the model believes: ○ start, ✖ your trials, ★ where it would try next. Click to try there.",
        400,
        curves.value_axis(duel.name, parameter),
        {"title": "validation accuracy, %", "range": [BOTTOM, TOP]},
        right=96,
        annotations=curves.end_labels(names, {line: end[0] for line, end in ends.items() if end}, (BOTTOM, TOP)),
    )
    return Panel(traces, layout, (model, begun, tried, proposal, known))


def wanted_panel(duel: Duel, acquisition: Acquisition, view: View | None) -> Panel:
    """The acquisition function against the hyper-parameter, with the proposal marked."""
    look, (axis, words) = style.LOOKS["proposal"], PROMISES[acquisition]
    logarithm = acquisition in ("ei", "pi")  # drawn as a share of the maximum
    scores = np.empty(0) if view is None else view.scores
    x, place, said, peak = [], 0.5, "", []
    if view is not None and view.proposal is not None and view.peak is not None:
        x, place, peak = [duel.landscape.axes[0][view.proposal]], float(duel.places[view.proposal]), [view.peak]
        worth = 100 * view.model.plain(view.peak)
        said = words.format(f"{worth:.1f}" if not logarithm else "under 0.001" if worth < 0.001 else f"{worth:.2g}")
    shares = np.array([*scores, *peak])
    if logarithm:
        shares = np.exp(shares - scores.max(initial=-math.inf))
    heights = (100 * shares).round(3).tolist()
    values = tuple(duel.parameter.decode(each) for each in duel.along[: len(scores)].tolist())
    side = "left" if place > 0.8 else "right" if place < 0.2 else "center"
    traces = [
        curves.line(
            Curve("acquisition function", values, tuple(heights[: len(values)])),
            look,
            mode="lines",
            line={"color": look.colour, "width": 2},
            hovertemplate="%{y:.1f} % at %{x:.3g}<extra></extra>",
        ),
        _proposal(
            x,
            [BOTTOM, *heights[len(values) :]],
            13,
            text=["", said],
            textposition=f"top {side}",
            textfont={"size": style.SMALL_SIZE},
            hovertemplate="%{x:.3g}<extra>next</extra>",
        ),
    ]
    what = "one function drawn from the model" if acquisition == "thompson" else ACQUISITIONS[acquisition].label
    y = {"title": axis, "range": [BOTTOM, 122.0], "tickvals": list(range(0, 101, 20))}
    x_axis, title = curves.value_axis(duel.name, duel.parameter), f"What a trial promises: {what}, ★ next"
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, x_axis, y))


def race_panel(race: Race | None, best: float) -> Panel:
    """What is chosen after n trials, measured anew (per cent); the axis has room where accuracies are high.

    Args:
        race: as far as it is run; None draws an empty one.
        best: the best mean of a cell, share 0 .. 1: sets the axis.
    """
    race = race or Race((), (), (), room(0))
    known = {"random": chance(race), "Bayesian": map(_normal, race.machine), "you": map(_normal, race.you)}
    worths = {name: Curve.of(PLAYERS[name], enumerate(estimates, 1)) for name, estimates in known.items()}
    # Drawn as errors on a log axis, which has no 0, upside down.
    errors = {
        name: Curve(curve.label, curve.x, *(tuple(max(100 - each, 0.1) for each in ends) for ends in curve[2:]))
        for name, curve in worths.items()
    }
    traces = [curves.band(errors["random"], style.LOOKS["random"], "95 % band of random search")]
    # The machine often goes the same way as you: its line is wide, so that it is seen under yours.
    for name, size, width, shape in (("random", 5, 2, "linear"), ("Bayesian", 10, 5, "hv"), ("you", 7, 2, "hv")):
        texts = [f"{worth:.1f} % after {at}" for at, worth in enumerate(worths[name].value, 1)]
        looks = {"line": _line(style.LOOKS[name], width) | {"shape": shape}, "marker": _marker(style.LOOKS[name], size)}
        hover = "%{text}<extra>%{fullData.name}</extra>"
        traces.append(curves.line(errors[name], style.LOOKS[name], text=texts, hovertemplate=hover, **looks))
    floor, top = 0.75 * max(100 - 100 * best, 0.5), 105.0
    ticks = [worth for worth in (0, 50, 80, 90, 95, 98, 99, 99.5) if 100 - worth >= floor]
    step = 2 if race.end <= 24 else 5 if race.end <= 60 else 20
    x = {"title": "trials", "range": [0.6, race.end + 0.4], "dtick": step}
    y = {
        **{"type": "log", "title": "worth of the chosen, measured anew, %"},
        "range": [math.log10(top), math.log10(floor)],
        "tickvals": [100 - worth for worth in ticks],
        "ticktext": [f"{worth:g}" for worth in ticks],
    }
    names = {name: curves.signed(player, style.LOOKS[name]) for name, player in PLAYERS.items()}
    ends = {name: math.log10(curve.value[-1]) for name, curve in errors.items() if curve.x}
    labels = curves.end_labels(names, ends, (math.log10(floor), math.log10(top)), 15)
    title = "The race: what is found after how many trials"
    return Panel(traces, style.layout(title, DETAIL_HEIGHT, x, y, right=88, annotations=labels), tuple(worths.values()))


def _normal(mean: float, std: float = 0.0) -> Estimate:
    """By default one reading, which knows nothing of its spread."""
    return Estimate(mean, mean - Z95 * std, mean + Z95 * std, 1)


def _curve(label: str, points: Iterable[tuple[float, Estimate]]) -> Curve:
    """With short numbers: they are sent to the page with each move."""
    curve = Curve.of(label, points)
    return Curve(label, curve.x, *(tuple(round(float(each), 3) for each in column) for column in curve[2:]))


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
        **{"mode": "lines+markers+text", "line": _line(look, 1.5)},
        "marker": _marker(look, [0, size, 0][: len(heights)]) | {"opacity": 1, "line": {"width": 0}},
        **more,
    }
