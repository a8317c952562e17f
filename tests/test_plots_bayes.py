from __future__ import annotations

import io
import itertools
import json
import math
from typing import Any

import matplotlib.image
import plotly.graph_objects as go
import pytest

from kit.measure import Estimate
from kit.plots import bayes as plots
from kit.plots import still, style
from kit.search.space import Float

AXIS = plots.Axis("lr", 1e-5, 10.0, True)
PLAIN = plots.Axis("dropout", 0.0, 0.5, False)
VALUES = (1e-5, 1e-3, 0.1, 10.0)


def belief(**changes: Any) -> plots.BeliefInfo:
    settings: dict[str, Any] = {
        **{"mean": (0.2, 0.8, 0.9, 0.4), "std": (0.3, 0.01, 0.05, 0.2)},
        **{"samples": [(0.1, 0.8, 0.95, 0.3), (0.4, 0.81, 0.88, 0.5)]},
        **{"start": [(1e-3, 0.8)], "yours": [(0.01, 0.93), (0.2, 0.5)]},
        **{"proposal": (0.1, 0.9, 0.05)},
        "truth": [(value, Estimate.from_values([0.5, 0.6])) for value in VALUES],
    }
    return plots.belief_info(AXIS, VALUES, **(settings | changes))


NOTHING = plots.belief_info(AXIS)


def plain(figure: go.Figure) -> str:
    """The figure as strict JSON."""
    return json.dumps(figure.to_plotly_json(), allow_nan=False, default=list)


# --- the axis -----------------------------------------------------------------------------------------------------


def test_a_log_axis_is_written_in_powers_of_ten() -> None:
    axis = plots.Axis.of("lr", Float(1e-5, 10, log=True))
    assert axis == AXIS
    layout = axis.layout
    assert layout["title"] == "learning rate"
    assert layout["ticktext"] == ["10<sup>-5</sup>", "10<sup>-4</sup>", "10<sup>-3</sup>", "0.01", "0.1", "1", "10"]
    assert layout["tickvals"] == pytest.approx([1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10])
    low, high = layout["range"]
    assert low < -5 < 1 < high and high - low < 6.2


def test_short_and_plain_axes() -> None:
    assert "tickvals" not in plots.Axis("lr", 0.1, 1.0, True).layout  # plotly's own ticks
    low, high = PLAIN.layout["range"]
    assert low < 0 < 0.5 < high
    assert "type" not in PLAIN.layout


# --- what the model believes --------------------------------------------------------------------------------------


def test_the_belief_is_in_per_cent_with_its_95_per_cent_band() -> None:
    info = belief()
    assert info.model.accuracy == (20, 80, 90, 40)
    for mean, std, low, high in zip((20, 80, 90, 40), (30, 1, 5, 20), info.model.low, info.model.high, strict=True):
        assert (low, high) == pytest.approx((mean - 1.96 * std, mean + 1.96 * std), abs=2e-3)
    assert info.proposal == pytest.approx((0.1, 90, 90 - 9.8, 90 + 9.8), abs=2e-3)
    assert (info.start, info.yours) == (((1e-3,), (80,)), ((0.01, 0.2), (93, 50)))
    wanted = Estimate.from_values([0.5, 0.6])
    assert info.truth.accuracy == pytest.approx((55,) * 4)
    assert info.truth.high == pytest.approx((min(100, 100 * wanted.high),) * 4)
    assert min(info.truth.low) >= 0  # a measured share has no interval outside of 0 .. 100
    expected = plots.interval(0.9, 0.1)
    assert (expected.value, expected.low, expected.high) == pytest.approx((0.9, 0.704, 1.096), abs=1e-4)


def test_the_beliefs_traces() -> None:
    info = belief()
    truth_band, truth, band, samples, mean, start, yours, proposal, names = plots.belief_traces(info)
    for outline, curve, line in ((truth_band, info.truth, truth), (band, info.model, mean)):
        assert outline["x"] == [*curve.size, *curve.size[::-1]]
        assert outline["y"] == [*curve.high, *curve.low[::-1]]
        assert (line["x"], line["y"]) == (list(curve.size), list(curve.accuracy))
    assert samples["x"] == [*VALUES, None, *VALUES, None]  # a gap between two functions
    assert samples["y"] == [10, 80, 95, 30, None, 40, 81, 88, 50, None]
    assert (start["x"], start["y"]) == ([1e-3], [80])
    assert (yours["x"], yours["text"]) == ([0.01, 0.2], ["", "latest"])
    assert proposal["x"] == [0.1] * 3
    assert proposal["y"][1] == 90 and proposal["y"][0] == plots.BOTTOM
    assert proposal["textposition"] == "middle right"
    assert plots.belief_traces(belief(proposal=(9.0, 0.5, 0.1)))[7]["textposition"] == "middle left"
    assert set(names["x"]) == {10}


def test_the_names_stand_at_the_ends_of_their_lines_apart_from_each_other() -> None:
    names = plots.belief_names(belief())
    assert set(names) == {"— model", "··· measured", "┄ drawn"}
    heights = sorted(names.values())
    assert all(b - a >= 6.4 for a, b in itertools.pairwise(heights))
    assert plots.belief_names(belief(truth=(), samples=())) == {"— model": 40}
    assert plots.belief_names(belief(truth=(), samples=(), mean=(0, 0, 0, 1.7))) == {"— model": 100}  # inside the axis
    assert plots.belief_names(NOTHING) == {}


@pytest.mark.parametrize("info", [belief(), NOTHING], ids=["full", "empty"])
def test_the_beliefs_figure_has_its_traces_and_their_looks(info: plots.BeliefInfo) -> None:
    figure = plots.belief_figure(info)
    traces = plots.belief_traces(info)
    assert len(figure.data) == len(traces) == 9
    for drawn, arrays in zip(figure.data, traces, strict=True):
        assert list(drawn.x) == arrays["x"]
        assert list(drawn.y) == arrays["y"]
    by_name = {drawn.name: drawn for drawn in figure.data}
    marks = [by_name[name].marker.symbol for name in ("start", "your trials", "the next proposal")]
    assert marks == ["circle-open", "x", "star"]  # not by colour alone
    dashes = [by_name[name].line.dash for name in ("mean of the model", "drawn from the model")]
    dashes.append(by_name["measured, mean of all networks"].line.dash)
    assert len(set(dashes)) == 3
    assert figure.layout.xaxis.type == "log"
    assert tuple(figure.layout.yaxis.range) == (plots.BOTTOM, plots.TOP)
    assert figure.layout.height == 400
    assert "NaN" not in plain(figure)


# --- the acquisition function -------------------------------------------------------------------------------------


def test_an_improvement_is_drawn_as_a_share_of_its_maximum() -> None:
    logs = (-800.0, -2.0, -1.0, -30.0)
    info = plots.wanted_info(AXIS, "expected improvement", VALUES, logs, (0.1, -1.0, math.exp(-1)))
    assert info.heights == pytest.approx((0, 100 * math.exp(-1), 100, 100 * math.exp(-29)), abs=1e-3)
    assert info.peak == (0.1, 100)
    assert info.words == "37 points"
    assert plots.wanted_layout(info)["yaxis"]["title"]["text"] == "expected improvement, % of its maximum"


def test_an_improvement_that_underflows_is_still_drawn() -> None:
    info = plots.wanted_info(AXIS, "probability of improvement", VALUES, (-900, -800, -805, -900), (1e-3, -800, 0.0))
    assert info.heights[1] == 100 and info.heights[2] == pytest.approx(100 * math.exp(-5), abs=1e-3)
    assert info.words == "under 0.001 %"


@pytest.mark.parametrize(("name", "said"), [("confidence bound", "up to 97.5 %"), ("Thompson", "97.5 %")])
def test_an_accuracy_is_drawn_as_it_is(name: str, said: str) -> None:
    info = plots.wanted_info(AXIS, name, VALUES, (0.1, 0.975, 0.5, -0.2), (1e-3, 0.975, 0.975))
    assert info.heights == (10, 97.5, 50, -20)
    assert (info.peak, info.words) == ((1e-3, 97.5), said)
    assert "accuracy" in plots.wanted_layout(info)["yaxis"]["title"]["text"]


@pytest.mark.parametrize(("value", "side"), [(2e-5, "right"), (0.01, "center"), (9.0, "left")])
def test_the_words_at_the_peak_stay_inside_of_the_figure(value: float, side: str) -> None:
    info = plots.wanted_info(AXIS, "Thompson", VALUES, (0.1, 0.2, 0.3, 0.4), (value, 0.4, 0.4))
    line, peak = plots.wanted_traces(info)
    assert (line["x"], line["y"]) == (list(VALUES), [10, 20, 30, 40])
    assert peak["x"] == [value, value] and peak["y"] == [plots.BOTTOM, 40]
    assert peak["textposition"] == f"top {side}"


def test_the_wanted_figure() -> None:
    for info in (
        plots.wanted_info(AXIS, "expected improvement"),
        plots.wanted_info(AXIS, "Thompson", VALUES, (0.1, 0.2, 0.3, 0.4), (0.1, 0.3, 0.3)),
        plots.wanted_info(AXIS, "confidence bound", VALUES, (0.1, 0.2, 0.3, 0.4)),
    ):
        figure = plots.wanted_figure(info)
        assert len(figure.data) == 2
        assert list(figure.data[0].y) == list(info.heights)
        assert figure.data[1].marker.symbol == "star"
        assert "next" in figure.layout.title.text
        assert "NaN" not in plain(figure)


# --- the race -----------------------------------------------------------------------------------------------------

RANDOM = [[0.2, 0.5, 0.9, 0.9], [0.4, 0.7, 0.7, 0.95]]


def race(**changes: Any) -> plots.RaceInfo:
    settings: dict[str, Any] = {"you": (0.5, 0.9), "machine": (0.5, 0.95), "random": RANDOM, "best": 0.96, "end": 12}
    return plots.race_info(**(settings | changes))


def test_the_race_is_in_per_cent_with_the_band_of_random_search() -> None:
    info = race()
    assert info.curves["you"].accuracy == pytest.approx((50, 90))
    assert info.curves["Bayesian"].accuracy == pytest.approx((50, 95))
    random = info.curves["random"]
    assert random.size == (1, 2, 3, 4)
    assert random.accuracy == pytest.approx((30, 60, 80, 92.5))
    for at in range(4):
        wanted = Estimate.from_values([walk[at] for walk in RANDOM]).share
        assert (random.low[at], random.high[at]) == pytest.approx((100 * wanted.low, 100 * wanted.high))


def test_the_races_traces_are_errors_on_a_log_axis() -> None:
    band, random, machine, you, names = plots.race_traces(race())
    assert you["y"] == pytest.approx([50, 10])
    assert machine["y"] == pytest.approx([50, 5])
    assert random["y"] == pytest.approx([70, 40, 20, 7.5])
    assert min(band["y"]) > 0  # a log axis has no 0
    assert you["text"] == ["50.0 % after 1", "90.0 % after 2"]
    by_name = dict(zip(names["text"], names["y"], strict=True))
    assert set(by_name) == {" ✖ you", " ● machine", " ◆ random"}
    assert by_name[" ● machine"] < by_name[" ◆ random"] < by_name[" ✖ you"]
    assert set(names["x"]) == {12.4}  # beside the right end


def test_the_races_axes() -> None:
    layout = plots.race_layout(race())
    bottom, top = layout["yaxis"]["range"]  # the axis runs downwards: errors
    assert 10**bottom == pytest.approx(105) and 10**top == pytest.approx(3)
    assert layout["yaxis"]["ticktext"] == ["0", "50", "80", "90", "95"]
    assert layout["yaxis"]["tickvals"] == pytest.approx([100, 50, 20, 10, 5])
    assert layout["xaxis"]["range"][1] > 12
    perfect = plots.race_layout(race(best=1.0))["yaxis"]
    assert math.isfinite(perfect["range"][1]) and perfect["ticktext"][-1] == "99.5"


@pytest.mark.parametrize("info", [race(), race(you=(), machine=(), random=()), race(you=(1.0, 1.0), best=1.0)])
def test_the_races_figure(info: plots.RaceInfo) -> None:
    figure = plots.race_figure(info)
    assert len(figure.data) == len(plots.race_traces(info)) == 5
    assert [drawn.name for drawn in figure.data[1:4]] == ["random", "machine", "you"]
    looks = [style.LOOKS[name] for name in ("random", "Bayesian", "you")]
    for drawn, look in zip(figure.data[1:4], looks, strict=True):
        assert (drawn.line.color, drawn.line.dash, drawn.marker.symbol) == (look.colour, look.dash, look.marker)
    assert len({(drawn.line.dash, drawn.marker.symbol) for drawn in figure.data[1:4]}) == 3
    assert "measured anew" in figure.layout.yaxis.title.text
    assert "NaN" not in plain(figure)
    signs = {"x": "✖", "circle": "●", "diamond": "◆"}
    assert {name: signs[style.LOOKS[name].marker] for name in plots.SIGNS} == plots.SIGNS


@pytest.mark.parametrize("info", [belief(), NOTHING, plots.belief_info(PLAIN, (0.0, 0.5), (0.5, 0.6), (0.1, 0.1))])
def test_the_still_picture(info: plots.BeliefInfo) -> None:
    picture = matplotlib.image.imread(io.BytesIO(still.bayes_png(info)))
    assert picture.shape[:2] == (420, 900)
    assert picture[..., :3].std() > 0.01
