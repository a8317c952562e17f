from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kit.plots import search as plots
from kit.plots.curves import Panel
from kit.search import Float, Int, Space
from kit.search.landscape import Landscape
from kit.search.replay import Trajectory, replay
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


def searched(*trials: tuple[float, int, float | None, int, int], worth: Sequence[float] = ()) -> Trajectory:
    """A search whose trials are lr, width, value, epochs, spent; worth: of each choice, one after the other."""
    retested = iter(worth or [0.5] * 99)
    told = [
        Trial(at, {"lr": lr, "width": width}, "failed" if value is None else "done", epochs, value=value, spent=spent)
        for at, (lr, width, value, epochs, spent) in enumerate(trials)
    ]
    return replay(told, lambda config: next(retested), maximise=True)


EARLY = searched((1e-4, 1, 0.2, 10, 10), (1, 1, 0.6, 10, 10), (1, 3, 0.4, 10, 10), worth=(0.3, 0.5))
LATE = searched((1e-4, 1, None, 10, 10), (1, 1, 0.6, 10, 10), (1, 3, 0.9, 10, 10), worth=(0.4, 0.8))
HALVING = searched((1e-4, 1, 0.1, 2, 2), (1, 3, 0.2, 2, 2), (1e-2, 2, 0.3, 2, 2), (1e-2, 2, 0.5, 6, 4))


def race(best: float | None = 0.6, /, **trajectories: Sequence[Trajectory]) -> Panel:
    return plots.race_panel(trajectories, BUDGETS, 10, best)


FULL = race(random=[EARLY, LATE], grid=[EARLY, EARLY], Bayesian=[LATE])
NOTHING = race(None)


def trace(panel: Panel, name: str) -> dict[str, Any]:
    return next(each for each in panel.traces if each["name"] == name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FULL, NOTHING),
        [plots.landscape_panel(landscape(holes=holes)) for holes in (False, True)],
        [plots.projection_panel(landscape(), "lr", trials, "random") for trials in (EARLY.trials, ())],
        [plots.rungs_panel(trials, 90, "halving") for trials in (HALVING.trials, ())],
    ],
    ids=["race", "landscape", "projection", "rungs"],
)
def test_a_figure_is_strict_json_and_keeps_its_traces(one: Panel, other: Panel) -> None:
    assert len(one.traces) == len(other.traces)
    for panel in (one, other):
        assert json.dumps(panel.figure.to_plotly_json(), allow_nan=False, default=list)


def test_the_curve_is_the_mean_worth_with_its_interval_in_per_cent() -> None:
    """Worth 50 and 40 after 20 epochs, 50 and 80 after 30."""
    found = next(curve for curve in FULL.curves if curve.label == "random")
    assert found.x == (20, 30)
    assert found.value == pytest.approx((45, 65))
    half = T95_ONE_DEGREE * 5
    assert found.low == pytest.approx((max(0, 45 - half), 0), abs=1e-2)
    assert found.high == pytest.approx((100, 100))
    assert trace(FULL, "random")["y"] == list(found.value)
    alone = next(curve for curve in FULL.curves if curve.label == "Bayesian")  # one repeat: no width
    assert alone.low == alone.value == alone.high == pytest.approx((40, 80))
    best = trace(FULL, "best cell")
    assert (best["x"], best["y"]) == ([0, 30], pytest.approx([60, 60]))
    assert not any(each["x"] for each in NOTHING.traces)


FAILED = searched((1, 1, None, 10, 10))


@pytest.mark.parametrize(
    ("repeats", "budgets"),
    [([EARLY], BUDGETS), ([LATE], BUDGETS[1:]), ([EARLY, LATE], BUDGETS[1:]), ([EARLY, FAILED], ()), ([], ())],
)
def test_budgets_at_which_a_repeat_has_nothing_are_left_out(
    repeats: Sequence[Trajectory], budgets: tuple[int, ...]
) -> None:
    assert race(grid=repeats).curves[0].x == budgets
    assert plots.race_at({"grid": repeats}, 9) == {}


def test_lines_are_named_where_they_end_and_the_axes_are_round() -> None:
    for most, full, step in ((90, 10, 10), (720, 20, 80), (36, 4, 4), (300, 1, 50)):  # ten steps of trainings at most
        axis = plots.race_panel({}, (most,), full).layout["xaxis"]
        assert axis["dtick"] == step and axis["range"][0] == 0 < most < axis["range"][1]
    named = {label.text: label.y for label in FULL.labels if label.end}
    assert named == {"◆ random": pytest.approx(65), "■ grid": 50, "● Bayesian": 80, "★ best cell": pytest.approx(60)}
    assert NOTHING.labels == ()
    assert [race(best).layout["yaxis"]["range"][0] for best in (None, 0.97, 0.6, 0.2)] == [70, 65, 30, 0]


def test_the_landscape_has_a_row_for_each_value_of_the_second_parameter() -> None:
    panel = plots.landscape_panel(landscape())
    (picture,) = panel.traces
    assert np.array(picture["z"]) == pytest.approx(np.array([[10, 40], [20, 50], [30, 60]]))
    assert picture["x"] == pytest.approx([0, 1])
    assert picture["y"] == pytest.approx([1 / 6, 1 / 2, 5 / 6])  # each in the middle of its third
    assert panel.layout["yaxis"]["ticktext"] == ["1", "2", "3"]
    growing = plots.landscape_panel(landscape(holes=True))
    assert growing.traces[0]["z"][0] == [pytest.approx(10), None]  # not trained
    assert growing.traces[0]["z"][2][0] == pytest.approx(25)  # the one network that is there
    assert growing.layout["title"]["text"] == "9 of 12 networks trained"


@pytest.mark.parametrize(
    ("best", "low", "top"),
    [(0.97, 60, 100), (0.95, 55, 95), (0.951, 60, 100), (0.6, 20, 60), (0.1, 0, 40), (None, 60, 100)],
)
def test_colours_go_over_the_best_40_points(best: float | None, low: float, top: float) -> None:
    made = landscape()
    curves = np.full_like(made.curves, np.nan) if best is None else np.minimum(made.curves, best)
    if best is not None:
        curves[:, 1, 2] = best
    (picture,) = plots.landscape_panel(Landscape(SPACE, made.axes, curves)).traces
    assert (picture["zmin"], picture["zmax"]) == (low, top)
    assert picture["colorbar"]["ticktext"] == [f"≤{low}", f"{low + 20}", f"{top}"]


def test_the_projection_shows_each_trial_that_scored_below_the_best_cells() -> None:
    panel = plots.projection_panel(landscape(), "lr", EARLY.trials, "random")
    assert (trace(panel, "trials")["x"], trace(panel, "trials")["y"]) == ([0, 1, 1], pytest.approx([20, 60, 40]))
    assert panel.layout["title"]["text"] == "3 trials, 2 values of learning rate"
    sticks = trace(panel, "sticks")
    assert len(sticks["x"]) == len(sticks["y"]) == 9  # from the axis up to each, and a gap
    assert sticks["y"][3:6] == [0, pytest.approx(60), None]
    by_width = plots.projection_panel(landscape(), "width", LATE.trials[:2], "random")
    drawn = trace(by_width, "trials")
    assert (drawn["x"], drawn["y"]) == ([pytest.approx(1 / 6)], [pytest.approx(60)])  # the failed one scored nothing
    assert by_width.layout["title"]["text"] == "1 trial, 1 value of hidden units"
    for each, best in ((panel, [30, 60]), (by_width, [40, 50, 60])):
        ridge = trace(each, "best cell at each value")
        assert ridge["y"] == pytest.approx(best) and len(ridge["x"]) == len(best)
    growing = plots.projection_panel(landscape(holes=True), "lr", (), "grid")
    assert trace(growing, "best cell at each value")["y"] == []


def test_rungs_count_trials_and_their_epochs() -> None:
    panel = plots.rungs_panel(HALVING.trials, 90, "halving")
    (bar,) = panel.traces
    assert bar["y"][:2] == ["2 epochs", "6 epochs"]
    assert bar["x"] == [6, 4, 0, 0]
    assert bar["text"] == ["3 trials", "1 trial", "", ""]
    assert len(set(bar["y"])) == 4  # two bars of one name would be one
    assert sum(bar["x"]) == HALVING.spent[-1]
    assert panel.layout["xaxis"]["range"][1] > 90  # the texts beside the bars have room
