from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest

from kit.plots import search as plots
from kit.plots import still, style
from kit.search import Float, Int, Space
from kit.search.networks import Landscape
from kit.search.replay import Track, track
from kit.search.trials import Trial

SPACE = Space({"lr": Float(1e-4, 1, log=True), "width": Int(1, 3)})
BUDGETS = (10, 20, 30)
T95_ONE_DEGREE = 12.7062  # Student's t quantile for two values


def landscape(*, holes: bool = False) -> Landscape:
    """Two networks at each of 2 x 3 cells; their means are 0.1 .. 0.6, row by row."""
    means = np.arange(1, 7).reshape(2, 3) / 10
    curves = np.stack([means - 0.05, means + 0.05])[..., None]  # [2, 2, 3, 1]
    if holes:
        curves[:, 1, 0] = np.nan
        curves[1, 0, 2] = np.nan
    return Landscape(SPACE, ((1e-4, 1.0), (1, 2, 3)), curves)


def searched(*trials: tuple[float, int, float | None, int, int], worth: Sequence[float] = ()) -> Track:
    """A search whose trials are lr, width, value, epochs, spent; worth: of each choice, one after the other."""
    fresh = iter(worth or [0.5] * 99)
    told = [
        Trial(at, {"lr": lr, "width": width}, "failed" if value is None else "done", epochs, value=value, spent=spent)
        for at, (lr, width, value, epochs, spent) in enumerate(trials)
    ]
    return track(told, lambda config: next(fresh), maximise=True)


EARLY = searched((1e-4, 1, 0.2, 10, 10), (1, 1, 0.6, 10, 10), (1, 3, 0.4, 10, 10), worth=(0.3, 0.5))
LATE = searched((1e-4, 1, None, 10, 10), (1, 1, 0.6, 10, 10), (1, 3, 0.9, 10, 10), worth=(0.4, 0.8))
HALVING = searched((1e-4, 1, 0.1, 2, 2), (1, 3, 0.2, 2, 2), (1e-2, 2, 0.3, 2, 2), (1e-2, 2, 0.5, 6, 4))


def race(**tracks: Sequence[Track]) -> plots.RaceInfo:
    named = {name: tracks.get(name, ()) for name in plots.METHODS}
    return plots.race_info(named, BUDGETS, 10, landscape())


FULL = race(random=[EARLY, LATE], grid=[EARLY, EARLY], Bayesian=[LATE])
NOTHING = plots.race_info({}, BUDGETS, 10, None)


def plain(figure: go.Figure) -> str:
    """The figure as strict JSON."""
    return json.dumps(figure.to_plotly_json(), allow_nan=False, default=list)


def assert_drawn(figure: go.Figure, traces: plots.Traces) -> None:
    """Each trace of the figure holds the arrays of its own entry."""
    assert len(figure.data) == len(traces)
    for drawn, arrays in zip(figure.data, traces, strict=True):
        for name in ("x", "y", "text"):
            if name in arrays:
                assert list(drawn[name] if drawn[name] is not None else ()) == arrays[name]
    assert "NaN" not in plain(figure)


# --- the race ---------------------------------------------------------------------------------------------------


def test_the_course_is_the_mean_worth_with_its_interval_in_per_cent() -> None:
    """Worth 50 and 40 after 20 epochs, 50 and 80 after 30."""
    found = FULL.courses["random"]
    assert found.budget == (20, 30)
    assert found.worth == pytest.approx((45, 65))
    half = T95_ONE_DEGREE * 5
    assert found.low == pytest.approx((max(0, 45 - half), 0), abs=1e-2)
    assert found.high == pytest.approx((100, 100))
    assert found.repeats == 2


def test_an_interval_within_0_and_100() -> None:
    near = [searched((1, 1, 0.5, 10, 10), worth=[value]) for value in (0.5, 0.52)]
    found = plots.course(near, BUDGETS)
    half = T95_ONE_DEGREE * 1
    assert found.low == pytest.approx([51 - half] * 3, abs=1e-2)
    assert found.high == pytest.approx([51 + half] * 3, abs=1e-2)


def test_budgets_at_which_a_repeat_has_nothing_are_left_out() -> None:
    assert plots.course([EARLY], BUDGETS).budget == (10, 20, 30)
    assert plots.course([LATE], BUDGETS).budget == (20, 30)
    assert plots.course([EARLY, LATE], BUDGETS).budget == (20, 30)
    assert plots.course([EARLY, searched((1, 1, None, 10, 10))], BUDGETS).budget == ()
    assert plots.course([EARLY], (1, 9)).budget == ()
    assert plots.course([], BUDGETS) == plots.EMPTY


def test_a_single_repeat_has_no_band() -> None:
    found = FULL.courses["Bayesian"]
    assert (found.budget, found.repeats) == ((20, 30), 1)
    assert found.low == found.worth == found.high == pytest.approx((40, 80))
    traces = plots.race_traces(FULL)
    band, line = traces[2 * plots.METHODS.index("Bayesian") :][:2]
    assert band == {"x": [], "y": []}
    assert line == {"x": [20, 30], "y": pytest.approx([40, 80])}
    estimate = plots.estimate([0.7])
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.7, 0.7, 0.7, 1)


def test_the_best_cell_is_known_once_all_networks_are_trained() -> None:
    assert FULL.best == pytest.approx(60)
    assert plots.race_info({}, BUDGETS, 10, landscape(holes=True)).best is None
    assert NOTHING.best is None
    assert (NOTHING.top, NOTHING.full) == (30, 10)


def test_the_races_traces_are_bands_lines_and_the_best_cell() -> None:
    traces = plots.race_traces(FULL)
    assert len(traces) == 2 * len(plots.METHODS) + 1
    for at, name in enumerate(plots.METHODS):
        course, (band, line) = FULL.courses[name], traces[2 * at : 2 * at + 2]
        assert (line["x"], line["y"]) == (list(course.budget), list(course.worth))
        if course.repeats > 1:
            assert band["x"] == [*course.budget, *course.budget[::-1]]
            assert band["y"] == [*course.high, *course.low[::-1]]
    assert traces[-1] == {"x": [0, 30], "y": pytest.approx([60, 60])}
    assert plots.race_traces(NOTHING) == [{"x": [], "y": []}] * 9


@pytest.mark.parametrize("info", [FULL, NOTHING], ids=["full", "empty"])
def test_the_races_figure_has_its_traces_and_their_looks(info: plots.RaceInfo) -> None:
    figure = plots.race_figure(info)
    assert_drawn(figure, plots.race_traces(info))
    lines = figure.data[1:8:2]
    assert [drawn.name for drawn in lines] == list(plots.METHODS)
    for drawn in lines:
        look = style.LOOKS[drawn.name]
        assert (drawn.line.color, drawn.line.dash, drawn.marker.symbol) == (look.colour, look.dash, look.marker)
    assert len({(drawn.line.dash, drawn.marker.symbol) for drawn in lines}) == 4  # not by colour alone
    assert [drawn.name for drawn in figure.data[0:8:2]] == [f"interval of {name}" for name in plots.METHODS]
    low, high = figure.layout.xaxis.range
    assert low == 0 < 30 < high
    assert "10 are one whole training" in figure.layout.xaxis.title.text
    assert len(figure.layout.annotations) == 5


@pytest.mark.parametrize(("top", "full", "step"), [(90, 10, 10), (720, 20, 80), (36, 4, 4), (300, 1, 50)])
def test_the_budget_axis_has_ten_steps_of_whole_trainings_at_most(top: int, full: int, step: int) -> None:
    assert plots.race_figure(plots.race_info({}, (top,), full, None)).layout.xaxis.dtick == step


def test_each_line_has_its_name_at_its_right_end() -> None:
    marks = plots.race_layout(FULL)["annotations"]
    heights = {mark["text"]: mark["y"] for mark in marks if mark["text"]}
    assert heights == {
        "■ grid": pytest.approx(50),
        "◆ random": pytest.approx(65),
        "● Bayesian": pytest.approx(80),
        "★ best cell": pytest.approx(60),
    }
    assert len(marks) == len(plots.race_layout(NOTHING)["annotations"]) == 5
    assert not any(mark["text"] for mark in plots.race_layout(NOTHING)["annotations"])
    signs = {"square": "■", "diamond": "◆", "triangle-up": "▲", "circle": "●"}
    assert {name: signs[style.LOOKS[name].marker] for name in plots.METHODS} == plots.SIGNS


def test_names_of_lines_that_end_together_stand_apart_and_in_the_picture() -> None:
    together = race(**{name: [EARLY, EARLY] for name in plots.METHODS})
    layout = plots.race_layout(together)
    bottom, top = layout["yaxis"]["range"]
    heights = sorted(mark["y"] for mark in layout["annotations"])
    gaps = np.diff(heights)
    assert gaps.min() > (top - bottom) / 20
    assert bottom <= heights[0] and heights[-1] < top
    low = race(random=[searched((1, 1, 0.5, 10, 10), worth=[0.01])])
    assert next(mark["y"] for mark in plots.race_layout(low)["annotations"] if "random" in mark["text"]) >= bottom


@pytest.mark.parametrize(("best", "bottom"), [(None, 70), (97.0, 65), (100.0, 70), (60.0, 30), (20.0, 0)])
def test_the_accuracy_axis_shows_the_best_30_points(best: float | None, bottom: float) -> None:
    low, high = plots.race_layout(FULL._replace(best=best))["yaxis"]["range"]
    assert low == bottom
    assert high > 100


# --- the landscape ----------------------------------------------------------------------------------------------


def test_the_landscape_has_a_row_for_each_value_of_the_second_parameter() -> None:
    info = plots.landscape_info(landscape())
    assert np.array(info.accuracy) == pytest.approx(np.array([[10, 40], [20, 50], [30, 60]]))
    assert info.names == ("learning rate", "hidden units")
    assert info.places[0] == pytest.approx((0, 1))
    by_hand = [math.log(value / 1e-4) / math.log(1e4) for value in (1e-4, 1)]
    assert info.places[0] == pytest.approx(by_hand)
    assert info.places[1] == pytest.approx((1 / 6, 1 / 2, 5 / 6))  # each in the middle of its third
    assert info.networks == (12, 12)
    assert plots.landscape_layout(info)["title"]["text"] == "★ chosen, of 12 trained networks"


def test_cells_that_are_not_trained_are_none() -> None:
    info = plots.landscape_info(landscape(holes=True))
    assert info.accuracy[0][1] is None
    assert info.accuracy[2][0] == pytest.approx(25)  # the one network that is there
    assert info.networks == (9, 12)
    (arrays,) = plots.landscape_traces(info)
    assert arrays["z"][0] == [pytest.approx(10), None]
    assert plots.landscape_layout(info)["title"]["text"] == "9 of 12 networks trained"
    assert "NaN" not in plain(plots.landscape_figure(info))


def test_thousands_of_networks_are_written_with_a_comma() -> None:
    info = plots.landscape_info(landscape())._replace(networks=(1200, 1200))
    assert "of 1,200 trained networks" in plots.landscape_layout(info)["title"]["text"]


@pytest.mark.parametrize(
    ("best", "low", "top"), [(0.97, 60, 100), (0.95, 55, 95), (0.951, 60, 100), (0.6, 20, 60), (0.1, 0, 40)]
)
def test_colours_go_over_the_best_40_points(best: float, low: float, top: float) -> None:
    made = landscape()
    curves = np.minimum(made.curves, best)
    curves[:, 1, 2] = best
    (arrays,) = plots.landscape_traces(plots.landscape_info(Landscape(SPACE, made.axes, curves)))
    assert (arrays["zmin"], arrays["zmax"]) == (low, top)
    assert arrays["colorbar"]["ticktext"] == [f"≤{low}", f"{low + 20}", f"{top}"]
    assert arrays["colorbar"]["tickvals"] == [low, low + 20, top]


def test_colours_of_nothing_yet() -> None:
    blank = Landscape(SPACE, landscape().axes, np.full((2, 2, 3, 1), np.nan))
    (arrays,) = plots.landscape_traces(plots.landscape_info(blank))
    assert arrays["z"] == [[None, None]] * 3
    assert (arrays["zmin"], arrays["zmax"]) == (60, 100)


def test_the_landscapes_figure() -> None:
    info = plots.landscape_info(landscape())
    figure = plots.landscape_figure(info)
    (picture,) = figure.data
    assert picture.type == "heatmap"
    assert np.array(picture.z, dtype=float) == pytest.approx(np.array(info.accuracy))
    assert (tuple(picture.x), tuple(picture.y)) == info.places
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == info.names
    assert tuple(figure.layout.xaxis.range) == tuple(figure.layout.yaxis.range) == (0, 1)
    assert (tuple(figure.layout.yaxis.tickvals), tuple(figure.layout.yaxis.ticktext)) == info.ticks[1]
    assert picture.colorbar.title.text == "%"
    assert picture.zmax == 60


# --- ticks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "texts"),
    [
        (Float(1e-5, 10, log=True), ["10<sup>-5</sup>", "10<sup>-3</sup>", "0.1", "10"]),
        (Float(1e-3, 1, log=True), ["10<sup>-3</sup>", "0.01", "0.1", "1"]),
        (Float(2e-4, 0.5, log=True), ["10<sup>-3</sup>", "0.01", "0.1"]),
        (Float(0.1, 1.6, log=True), ["0.1", "0.2", "0.4", "0.8", "1.6"]),  # less than three powers of ten
        (Float(0.0, 0.9), ["0", "0.2", "0.4", "0.6", "0.8"]),
        (Float(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Float(0.9, 0.999), ["0.9", "0.92", "0.94", "0.96", "0.98"]),
        (Float(0.42, 0.43), ["0.42", "0.422", "0.424", "0.426", "0.428", "0.43"]),
        (Int(1, 3), ["1", "2", "3"]),
        (Int(0, 1), ["0", "1"]),
        (Int(1, 100), ["20", "40", "60", "80", "100"]),
        (Int(4, 64, log=True), ["4", "8", "16", "32", "64"]),
        (Int(1, 1000, log=True), ["1", "10", "100", "1,000"]),
        (Int(2, 4, log=True), ["2", "3", "4"]),  # no power of ten is in it
        (Float(0.002, 0.008, log=True), ["0.002", "0.00283", "0.004", "0.00566", "0.008"]),
    ],
    ids=str,
)
def test_ticks_are_round_values_at_their_places(parameter: Float | Int, texts: list[str]) -> None:
    places, found = plots.axis_ticks(Space({"some": parameter}), "some")
    assert list(found) == texts
    values = [float(text.replace(",", "").replace("10<sup>", "1e").replace("</sup>", "")) for text in texts]
    low, high = (parameter.low, parameter.high) if isinstance(parameter, Float) else (0.0, 0.0)
    if isinstance(parameter, Int):
        low, high = parameter.low - 0.5, parameter.high + 0.5  # each value stands in the middle of its part
    for place, value in zip(places, values, strict=True):
        way = math.log(value / low) / math.log(high / low) if parameter.log else (value - low) / (high - low)
        assert place == pytest.approx(way, abs=1e-3)  # texts are rounded
    assert all(0 <= place <= 1 for place in places)


# --- the projection ---------------------------------------------------------------------------------------------


def projected(name: str = "lr", track: Track | None = EARLY, budget: int = 30, **settings: Any) -> plots.ProjectionInfo:
    return plots.projection_info(settings.get("landscape", landscape()), name, track, budget, "random")


def test_the_projection_holds_the_trials_within_the_budget() -> None:
    info = projected()
    assert info.places == pytest.approx((0, 1, 1))
    assert info.values == pytest.approx((20, 60, 40))
    assert info.different == 2
    assert projected("width").places == pytest.approx((1 / 6, 1 / 6, 5 / 6))
    assert projected(budget=20).values == pytest.approx((20, 60))
    assert projected(budget=9).values == projected(track=None).values == ()
    assert projected(track=LATE).values == pytest.approx((60, 90))  # a failed one scored nothing


def test_different_values_are_counted() -> None:
    grid = searched(*[(lr, width, 0.5, 1, 1) for lr in (1e-4, 1e-2, 1) for width in (1, 2, 3)])
    assert (len(projected(track=grid).places), projected(track=grid).different) == (9, 3)
    chance = searched(*[(10**-power, 1, 0.5, 1, 1) for power in np.linspace(0, 4, 9)])
    assert projected(track=chance).different == 9
    assert projected("width", track=chance).different == 1


def test_the_ridge_is_the_best_over_the_other_parameter() -> None:
    cells, best = projected().ridge
    assert cells == pytest.approx((0, 1))
    assert best == pytest.approx((30, 60))
    cells, best = projected("width").ridge
    assert cells == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert best == pytest.approx((40, 50, 60))
    assert projected(landscape=landscape(holes=True)).ridge == ((), ())


@pytest.mark.parametrize("name", ["lr", "width"])
@pytest.mark.parametrize("track", [EARLY, None], ids=["searched", "not yet"])
def test_the_projections_figure(name: str, track: Track | None) -> None:
    info = projected(name, track)
    ridge, sticks, dots = traces = plots.projection_traces(info)
    figure = plots.projection_figure(info)
    assert_drawn(figure, traces)
    assert (ridge["x"], ridge["y"]) == (list(info.ridge[0]), list(info.ridge[1]))
    assert (dots["x"], dots["y"]) == (list(info.places), list(info.values))
    assert sticks["x"] == [at for place in info.places for at in (place, place, None)]
    assert sticks["y"] == [at for value in info.values for at in (0, value, None)]
    assert dots["marker"]["symbol"] == style.LOOKS["random"].marker
    assert figure.data[2].marker.color == style.LOOKS["random"].colour
    assert figure.layout.xaxis.title.text == {"lr": "learning rate", "width": "hidden units"}[name]
    assert list(figure.layout.xaxis.tickvals) == list(info.ticks[0])


def test_the_projections_title_counts() -> None:
    texts = [plots.projection_layout(projected(budget=budget))["title"]["text"] for budget in (0, 10, 20, 30)]
    assert texts == [
        "0 trials, 0 values of learning rate",
        "1 trial, 1 value of learning rate",
        "2 trials, 2 values of learning rate",
        "3 trials, 2 values of learning rate",
    ]
    assert plots.projection_layout(projected("width"))["xaxis"]["title"]["text"] == "hidden units"


# --- where the budget went --------------------------------------------------------------------------------------


def test_rungs_count_trials_and_their_epochs() -> None:
    info = plots.rungs_info(HALVING, 30, 90, "halving")
    assert (info.epochs, info.trials, info.spent, info.full) == ((2, 6), (3, 1), (6, 4), 90)
    assert sum(info.spent) == HALVING.spent[-1]
    part = plots.rungs_info(HALVING, 5, 90, "halving")
    assert (part.epochs, part.trials, part.spent) == ((2,), (2,), (4,))
    for nothing in (plots.rungs_info(HALVING, 1, 90, "halving"), plots.rungs_info(None, 30, 90, "halving")):
        assert (nothing.epochs, nothing.trials, nothing.spent) == ((), (), ())


def test_bars_are_as_many_whatever_the_rungs() -> None:
    (arrays,) = plots.rungs_traces(plots.rungs_info(HALVING, 30, 90, "halving"))
    assert arrays["y"][:2] == ["2 epochs", "6 epochs"]
    assert arrays["x"] == [6, 4, 0, 0]
    assert arrays["text"] == ["3 trials", "1 trial", "", ""]
    (empty,) = plots.rungs_traces(plots.rungs_info(None, 30, 90, "grid"))
    (single,) = plots.rungs_traces(plots.rungs_info(searched((1, 1, 0.5, 1, 1)), 30, 90, "grid"))
    assert single["y"][0] == "1 epoch"
    for each in (arrays, empty, single):
        assert len(set(each["y"])) == len(each["x"]) == len(each["text"]) == 4  # two bars of one name would be one
    assert empty["x"] == [0, 0, 0, 0]


@pytest.mark.parametrize("track", [HALVING, None], ids=["searched", "not yet"])
def test_the_figure_of_the_rungs(track: Track | None) -> None:
    info = plots.rungs_info(track, 30, 90, "halving")
    figure = plots.rungs_figure(info)
    assert_drawn(figure, plots.rungs_traces(info))
    assert figure.data[0].marker.color == style.LOOKS["halving"].colour
    assert figure.data[0].orientation == "h"
    assert figure.layout.xaxis.range[1] > 90  # the texts beside the bars have room


# --- the still picture ------------------------------------------------------------------------------------------


def colours(png: bytes) -> set[tuple[int, ...]]:
    assert png.startswith(b"\x89PNG")
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    pixels = np.unique((picture[:, :, :3] * 255).round().astype(int).reshape(-1, 3), axis=0)
    return set(map(tuple, pixels.tolist()))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def test_the_still_picture_draws_what_there_is() -> None:
    looks = {name: rgb(style.LOOKS[name].colour) for name in plots.METHODS}
    found = colours(still.race_png(FULL))
    assert {name for name, colour in looks.items() if colour in found} == {"grid", "random", "Bayesian"}
    assert rgb(style.NEUTRAL) in found  # the best cell
    assert not set(looks.values()) & colours(still.race_png(NOTHING))
