"""Figures of Bayesian optimisation in one dimension: what the model believes, what it wants, the race.

Each figure comes in three steps, as in `kit.plots.prune`: `x_info(...)`, `x_traces(info)`, `x_figure(info)`. Numbers
come as shares 0 .. 1 and are drawn as per cent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from kit.measure import Z95, Estimate
from kit.plots import style
from kit.plots.distill import spread
from kit.plots.prune import Line as Curve
from kit.plots.prune import Traces, band, band_style, line
from kit.plots.search import tick, title
from kit.search.space import Float

BOTTOM, TOP = -8.0, 116.0  # of the accuracy axis; the model's band may leave 0 .. 100
TICKS = (0, 20, 40, 60, 80, 100)
NO_CURVE = Curve("", (), (), (), (), ())
DETAIL_HEIGHT = 320
# The marker of each player, for the name at its line.
SIGNS = {"you": "✖", "Bayesian": "●", "random": "◆"}
PLAYERS = {"you": "you", "Bayesian": "machine", "random": "random"}


class Axis(NamedTuple):
    """The axis of the hyper-parameter.

    Attributes:
        name: of the hyper-parameter in its space.
        low: its smallest value.
        high: its largest value.
        log: whether equal steps are equal factors.
    """

    name: str
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, name: str, parameter: Float) -> Axis:
        """The axis over a whole range."""
        return cls(name, parameter.low, parameter.high, parameter.log)

    @property
    def layout(self) -> dict[str, Any]:
        """Settings of plotly's axis."""
        if not self.log:
            margin = 0.01 * (self.high - self.low)
            return {"title": title(self.name), "range": [self.low - margin, self.high + margin]}
        low, high = math.log10(self.low), math.log10(self.high)
        margin = 0.01 * (high - low)
        powers = range(math.floor(low), math.ceil(high) + 1)
        settings = {"title": title(self.name), "type": "log", "range": [low - margin, high + margin]}
        if high - low < 2:  # too few powers of ten
            return settings
        return {
            **settings,
            "tickvals": [10.0**power for power in powers],
            "ticktext": [tick(10.0**power) for power in powers],
        }


class BeliefInfo(NamedTuple):
    """What the model believes, per cent.

    Attributes:
        axis: of the hyper-parameter.
        model: mean with its 95 % band at each value; empty while there is none.
        samples: functions drawn from it, at the same values.
        start: values and accuracies of the first trials, which no model chose.
        yours: those of the trials after them.
        proposal: value, mean, low and high where the model would try next; empty where there is none.
        truth: mean over the networks at each value with its interval; empty where it is hidden.
    """

    axis: Axis
    model: Curve
    samples: tuple[tuple[float, ...], ...]
    start: tuple[tuple[float, ...], tuple[float, ...]]
    yours: tuple[tuple[float, ...], tuple[float, ...]]
    proposal: tuple[float, ...]
    truth: Curve


def belief_info(
    axis: Axis,
    values: Sequence[float] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    *,
    samples: Sequence[Sequence[float]] = (),
    start: Sequence[tuple[float, float]] = (),
    yours: Sequence[tuple[float, float]] = (),
    proposal: tuple[float, float, float] | None = None,
    truth: Sequence[tuple[float, Estimate]] = (),
) -> BeliefInfo:
    """Gather what is believed.

    Args:
        axis: of the hyper-parameter.
        values: where the model is drawn, [m], ascending.
        mean: of the model, [m].
        std: standard deviation of the function (not of one trial), [m].
        samples: functions drawn from it, each [m].
        start: value and accuracy of each trial that no model chose.
        yours: those of the trials after them.
        proposal: value, mean and standard deviation of what the model would try next.
        truth: value, and what the networks there reach.
    """
    ends = [_banded(*pair) for pair in zip(mean, std, strict=True)]
    centre, low, high = zip(*ends, strict=True) if ends else ((), (), ())
    model = Curve("model", tuple(values), centre, low, high, tuple(values))
    drawn = tuple(tuple(_percent(each) for each in sample) for sample in samples)
    next_one = () if proposal is None else (proposal[0], *_banded(*proposal[1:]))
    known = line("measured", "nonzeros", [(value, estimate.share, value) for value, estimate in truth])
    return BeliefInfo(axis, model, drawn, _points(start), _points(yours), next_one, known)


def interval(mean: float, std: float) -> Estimate:
    """Where the model expects an accuracy: mean and 95 % interval, shares; a Gaussian model knows no 0 and no 1."""
    return Estimate(mean, mean - Z95 * std, mean + Z95 * std, 1)


def _banded(mean: float, std: float) -> tuple[float, float, float]:
    return _percent(mean), _percent(mean - Z95 * std), _percent(mean + Z95 * std)


def _percent(share: float) -> float:
    return round(100 * float(share), 3)  # short numbers: they are sent to the page with each move


def _points(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(value for value, _ in pairs), tuple(_percent(accuracy) for _, accuracy in pairs)


def belief_traces(info: BeliefInfo) -> Traces:
    """Arrays of the traces: truth (band, line), model (band, samples, mean), start, yours, proposal, names."""
    value, mean = info.proposal[:2] if info.proposal else (None, None)
    at_the_right = info.proposal and _place(info.axis, info.proposal[0]) > 0.85
    names = belief_names(info)
    return [
        band(info.truth),
        {"x": list(info.truth.size), "y": list(info.truth.accuracy)},
        band(info.model),
        # One trace for all functions: a gap lies between two.
        {
            "x": [x for _ in info.samples for x in (*info.model.size, None)],
            "y": [y for sample in info.samples for y in (*sample, None)],
        },
        {"x": list(info.model.size), "y": list(info.model.accuracy)},
        {"x": list(info.start[0]), "y": list(info.start[1])},
        {
            "x": list(info.yours[0]),
            "y": list(info.yours[1]),
            "text": [""] * len(info.yours[0][1:]) + ["latest"] * len(info.yours[0][:1]),
            "textposition": f"bottom {'left' if info.yours[0] and info.yours[0][-1] == info.axis.high else 'center'}",
        },
        {
            "x": [value] * 3,
            "y": [BOTTOM, mean, TOP - 6],
            "textposition": f"middle {'left' if at_the_right else 'right'}",
        },
        {"x": [info.axis.high] * len(names), "y": list(names.values()), "text": list(names)},
    ]


def belief_names(info: BeliefInfo) -> dict[str, float]:
    """The names of the lines, and at which heights beside their right ends they stand."""
    ends = {"— model": info.model.accuracy, "··· measured": info.truth.accuracy}
    ends |= {"┄ drawn": info.samples[0]} if info.samples else {}
    heights = {name: min(max(curve[-1], 0.0), 100.0) for name, curve in ends.items() if curve}
    return spread(heights, gap=6.5) if heights else {}


def _place(axis: Axis, value: float) -> float:
    return Float(axis.low, axis.high, axis.log).encode(value)


def belief_figure(info: BeliefInfo) -> go.Figure:
    """Accuracy (per cent) against a hyper-parameter: the model's mean and 95 % band, and the trials it has seen."""
    hover = "%{y:.1f} % at %{x:.3g}<extra>%{fullData.name}</extra>"
    model, you, proposal = (style.LOOKS[name] for name in ("Bayesian", "you", "proposal"))
    truth = style.Look(style.NEUTRAL, "circle", "dot")
    fixed: Traces = [
        {"name": "interval over the networks", **band_style(truth)},
        {
            "name": "measured, mean of all networks",
            "mode": "lines+markers",
            "line": {"color": truth.colour, "dash": truth.dash, "width": 1.5},
            "marker": {"size": 4, "color": truth.colour},
            "hovertemplate": hover,
        },
        {"name": "95 % band of the model", **band_style(model)},
        {
            "name": "drawn from the model",
            "mode": "lines",
            "line": {"color": style.SKY, "dash": "dash", "width": 1.2},
            "hovertemplate": hover,
        },
        {
            "name": "mean of the model",
            "mode": "lines",
            "line": {"color": model.colour, "dash": model.dash, "width": 2.5},
            "hovertemplate": hover,
        },
        {
            "name": "start",
            "mode": "markers",
            "marker": {"symbol": "circle-open", "size": 11, "color": you.colour, "line": {"width": 2.5}},
            "hovertemplate": hover,
        },
        {
            "name": "your trials",
            "mode": "markers+text",
            "marker": {"symbol": you.marker, "size": 11, "color": you.colour},
            "textfont": {"size": style.SMALL_SIZE},
            "hovertemplate": hover,
        },
        {
            "name": "the next proposal",
            "mode": "lines+markers+text",
            "line": {"color": proposal.colour, "dash": proposal.dash, "width": 1.5},
            "marker": {
                "symbol": proposal.marker,
                "size": [0, 15, 0],
                "color": proposal.colour,
                "opacity": 1,
                "line": {"width": 0},
            },
            "text": ["", "", "next"],
            "textfont": {"size": style.FONT_SIZE},
            "hovertemplate": hover,
        },
        {
            "name": "names",
            "mode": "text",
            "textposition": "middle right",
            "textfont": {"size": style.FONT_SIZE},
            "cliponaxis": False,
            "hoverinfo": "skip",
        },
    ]
    data = [{**look, **arrays} for look, arrays in zip(fixed, belief_traces(info), strict=True)]
    return style.figure(
        data,
        title="What the model believes: ○ start, ✖ your trials, ★ where it would try next. Click to try there.",
        height=400,
        x=info.axis.layout,
        y={"title": "validation accuracy, %", "range": [BOTTOM, TOP]},
        margin={"l": 56, "r": 96, "t": 34, "b": 44},
    )


class WantedInfo(NamedTuple):
    """The acquisition function along the hyper-parameter.

    Attributes:
        axis: of the hyper-parameter.
        name: of the function.
        values: where it is drawn.
        heights: in per cent: of its maximum where it is an improvement or a probability, else of accuracy.
        peak: value and height where the model would try next; empty where there is none.
        words: what it is worth there.
    """

    axis: Axis
    name: str
    values: tuple[float, ...]
    heights: tuple[float, ...]
    peak: tuple[float, ...]
    words: str


# How the value at the peak is written; where a function is drawn as a share of its maximum, its axis.
SAID: dict[str, Callable[[float], str]] = {
    "expected improvement": lambda share: f"{_short(100 * share)} points",
    "probability of improvement": lambda share: f"{_short(100 * share)} %",
    "confidence bound": lambda share: f"up to {100 * share:.1f} %",
    "Thompson": lambda share: f"{100 * share:.1f} %",
}
SHARES = ("expected improvement", "probability of improvement")


def wanted_info(
    axis: Axis,
    name: str,
    values: Sequence[float] = (),
    scores: Sequence[float] = (),
    peak: tuple[float, float, float] | None = None,
) -> WantedInfo:
    """Gather the values of an acquisition function.

    Args:
        axis: of the hyper-parameter.
        name: of the function.
        values: where it is drawn, ascending, [m].
        scores: its logarithm where it is an improvement or a probability, else an accuracy, [m].
        peak: value and score where the model would try next, and what the function itself says there (a share).
    """
    found, highest = np.asarray(scores, dtype=float), max(scores, default=0.0)

    def heights(given: np.ndarray) -> tuple[float, ...]:
        return tuple(map(_percent, np.exp(given - highest) if name in SHARES else given))

    if peak is None:
        return WantedInfo(axis, name, tuple(values), heights(found), (), "")
    return WantedInfo(
        axis, name, tuple(values), heights(found), (peak[0], *heights(np.array([peak[1]]))), SAID[name](peak[2])
    )


def _short(number: float) -> str:
    """Two digits; what is far below a thousandth is called so."""
    return "under 0.001" if number < 0.001 else f"{number:.2g}"


def wanted_traces(info: WantedInfo) -> Traces:
    """Arrays of the traces: the function, and where it is largest."""
    place = _place(info.axis, info.peak[0]) if info.peak else 0.0
    side = "left" if place > 0.8 else "right" if place < 0.2 else "center"
    return [
        {"x": list(info.values), "y": list(info.heights)},
        {
            "x": list(info.peak[:1]) * 2,
            "y": [BOTTOM, *info.peak[1:]] if info.peak else [],
            "text": ["", info.words] if info.peak else [],
            "textposition": f"top {side}",
        },
    ]


def wanted_layout(info: WantedInfo) -> dict[str, Any]:
    """What changes of the layout: the title, and the name of the axis."""
    texts = {
        "expected improvement": "expected improvement, % of its maximum",
        "probability of improvement": "probability, % of its maximum",
        "confidence bound": "bound on the accuracy, %",
        "Thompson": "accuracy in one draw, %",
    }
    what = {"Thompson": "one function drawn from the model"}.get(info.name, info.name)
    return {
        "title": {"text": f"What a trial promises: {what}, ★ next"},
        "yaxis": {"title": {"text": texts[info.name]}},
    }


def wanted_figure(info: WantedInfo) -> go.Figure:
    """The acquisition function against the hyper-parameter, with the proposal marked."""
    proposal = style.LOOKS["proposal"]
    fixed: Traces = [
        {
            "name": "acquisition function",
            "mode": "lines",
            "line": {"color": proposal.colour, "width": 2},
            "hovertemplate": "%{y:.1f} % at %{x:.3g}<extra></extra>",
        },
        {
            "name": "the next proposal",
            "mode": "lines+markers+text",
            "line": {"color": proposal.colour, "dash": proposal.dash, "width": 1.5},
            "marker": {
                "symbol": proposal.marker,
                "size": [0, 13],
                "color": proposal.colour,
                "opacity": 1,
                "line": {"width": 0},
            },
            "textfont": {"size": style.SMALL_SIZE},
            "hovertemplate": "%{x:.3g}<extra>next</extra>",
        },
    ]
    data = [{**look, **arrays} for look, arrays in zip(fixed, wanted_traces(info), strict=True)]
    layout = wanted_layout(info)
    return style.figure(
        data,
        title=layout["title"]["text"],
        height=DETAIL_HEIGHT,
        x=info.axis.layout,
        y={"title": layout["yaxis"]["title"]["text"], "range": [BOTTOM, 122.0], "tickvals": list(TICKS)},
    )


class RaceInfo(NamedTuple):
    """What each player's choice is worth after each trial, measured anew, per cent.

    Attributes:
        curves: by player; `size` holds the numbers of trials. Only random search, which has repeats, has a band.
        best: the best that can be reached: sets the axis.
        end: of the axis, trials.
    """

    curves: dict[str, Curve]
    best: float
    end: int


def race_info(
    you: Sequence[float], machine: Sequence[float], random: Sequence[Sequence[float]], best: float, end: int
) -> RaceInfo:
    """Gather the race.

    Args:
        you: worth of what you would choose after each of your trials.
        machine: the same for the machine.
        random: the same for random search, [repeats][trials].
        best: the best mean of a cell.
        end: trials that the axis has room for.
    """
    spread_out = [Estimate.from_values(values).share for values in zip(*random, strict=True)]
    known = {
        "random": spread_out,
        "Bayesian": [Estimate(value, value, value, 1) for value in machine],
        "you": [Estimate(value, value, value, 1) for value in you],
    }
    curves = {
        name: line(name, "nonzeros", [(number, each, number) for number, each in enumerate(estimates, 1)])
        for name, estimates in known.items()
    }
    return RaceInfo(curves, 100 * best, end)


def race_traces(info: RaceInfo) -> Traces:
    """Arrays of the traces: random (band, line), machine, you, names; heights are errors: 100 - worth."""
    by_name = {name: _upside_down(curve) for name, curve in info.curves.items()}
    # The names stand at the ends of the lines; on a log axis equal gaps are equal factors.
    heights = {name: -math.log(curve.accuracy[-1]) for name, curve in by_name.items() if curve.accuracy}
    floor, top = (math.log(end) for end in _race_range(info))
    placed = spread(heights, gap=(top - floor) / 15) if heights else {}
    return [
        band(by_name["random"]),
        *({"x": list(curve.size), "y": list(curve.accuracy), "text": _texts(curve)} for curve in by_name.values()),
        {
            "x": [info.end + 0.4] * len(placed),
            "y": [math.exp(-height) for height in placed.values()],
            "text": [f" {SIGNS[name]} {PLAYERS[name]}" for name in placed],
        },
    ]


def _upside_down(curve: Curve) -> Curve:
    """Errors in place of accuracies; a log axis has no 0."""
    value, low, high = (
        tuple(max(100 - each, 0.1) for each in ends) for ends in (curve.accuracy, curve.low, curve.high)
    )
    return curve._replace(accuracy=value, low=low, high=high)


def _texts(curve: Curve) -> list[str]:
    return [f"{100 - error:.1f} % after {number:.0f}" for number, error in zip(curve.size, curve.accuracy, strict=True)]


def _race_range(info: RaceInfo) -> tuple[float, float]:
    return 0.75 * max(100 - info.best, 0.5), 105.0


def race_layout(info: RaceInfo) -> dict[str, Any]:
    """What changes of the layout: both axes."""
    floor, top = _race_range(info)
    ticks = [worth for worth in (0, 50, 80, 90, 95, 98, 99, 99.5) if 100 - worth >= floor]
    return {
        "xaxis": {"range": [0.6, info.end + 0.4], "dtick": 2 if info.end <= 24 else 5 if info.end <= 60 else 20},
        "yaxis": {
            "range": [math.log10(top), math.log10(floor)],
            "tickvals": [100 - worth for worth in ticks],
            "ticktext": [f"{worth:g}" for worth in ticks],
        },
    }


def race_figure(info: RaceInfo) -> go.Figure:
    """What is chosen after n trials, measured anew (per cent); the axis has room where accuracies are high."""
    random = style.LOOKS["random"]
    sizes = {"random": 5, "Bayesian": 10, "you": 7}
    fixed: Traces = [{"name": "95 % band of random search", **band_style(random)}]
    for name in info.curves:
        drawn = style.LOOKS[name]
        shape = {"shape": "linear" if name == "random" else "hv"}
        fixed.append(
            {
                "name": PLAYERS[name],
                "mode": "lines+markers",
                # The machine often goes the same way as you: its line is wide, so that it is seen under yours.
                "line": {"color": drawn.colour, "dash": drawn.dash, "width": 5 if name == "Bayesian" else 2, **shape},
                "marker": {"symbol": drawn.marker, "size": sizes[name], "color": drawn.colour},
                "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
            }
        )
    look = {"size": style.FONT_SIZE}
    names = {"mode": "text", "textposition": "middle right", "textfont": look, "cliponaxis": False, "hoverinfo": "skip"}
    fixed.append({"name": "names", **names})
    data = [{**look, **arrays} for look, arrays in zip(fixed, race_traces(info), strict=True)]
    layout = race_layout(info)
    return style.figure(
        data,
        title="The race: what is found after how many trials",
        height=DETAIL_HEIGHT,
        x={"title": "trials", **layout.pop("xaxis")},
        y={"type": "log", "title": "worth of the chosen, measured anew, %", **layout.pop("yaxis")},
        margin={"l": 56, "r": 88, "t": 34, "b": 44},
    )
