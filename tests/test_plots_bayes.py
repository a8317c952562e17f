from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from kit.measure import Estimate
from kit.plots import bayes as plots
from kit.plots.curves import Panel
from kit.search.acquisition import Acquisition
from kit.search.duel import Duel, Question, Race, View
from kit.search.surrogate import Kernel
from tests.test_explorers_bayes import BAND, MEAN, NEXT, SAMPLES, START, TRUTH, YOURS, hill

ALONG = np.linspace(0, 1, 97)


def played(*cells: int) -> Duel:
    duel = Duel(hill(), along=ALONG)
    for cell in cells:
        duel.attempt(0, cell)
    return duel


def seen(duel: Duel, acquisition: Acquisition = "ei", **changes: Any) -> View:
    view = duel.view(0, Question(acquisition, 0.1, Kernel((0.15,), noise=0.0025)))
    return dataclasses.replace(view, **changes)


def drawn(panel: Panel) -> Panel:
    """The same, after a look whether it can be drawn and is strict JSON."""
    json.dumps(panel.figure.to_plotly_json(), allow_nan=False, default=list)
    return panel


def ends(panel: Panel) -> dict[str, float | None]:
    return {label.text: label.y for label in panel.labels if label.end}


def beside(panel: Panel) -> dict[str, tuple[float | None, float | None]]:
    """Names of points, and where these are."""
    return {label.text: (label.x, label.y) for label in panel.labels if not label.end}


def test_the_belief_is_in_per_cent_with_its_95_per_cent_band() -> None:
    duel = played(20, 12)
    view = seen(duel)
    panel = drawn(plots.belief_panel(duel, view, 2, truth=True))
    bands = view.model.band(ALONG[:, None], 1.96)
    model, start, yours, proposal, measured = panel.curves
    assert model.x == pytest.approx(1e-5 * 1e6**ALONG)
    for shown, wanted in zip(model[2:5], bands, strict=True):
        assert shown == pytest.approx(100 * wanted, abs=2e-2)
    assert min(model.low) >= 0 and max(model.high) <= 100
    assert [len(start.x), *yours.x] == [3, duel.landscape.axes[0][20], duel.landscape.axes[0][12]]
    assert yours.value == pytest.approx([100 * (trial.value or 0) for trial in view.trials[3:]], abs=1e-3)
    expected = plots.expected(duel, view, proposal.x[0])
    assert (proposal.value[0], proposal.low[0]) == pytest.approx((100 * expected.value, 100 * expected.low), abs=1e-3)
    assert measured.value == pytest.approx(100 * duel.landscape.mean, abs=1e-3)
    assert min(measured.low) >= 0 and max(measured.high) <= 100  # a measured share has no interval outside of 0 .. 100
    assert len(panel.traces[SAMPLES]["x"]) == 2 * 98  # a gap after each function
    assert panel.traces[NEXT]["y"][1] == proposal.value[0]
    assert list(ends(panel)) == ["— model", "··· measured", "┄ drawn"]
    assert ends(panel)["— model"] == model.value[-1] and ends(panel)["┄ drawn"] == panel.traces[SAMPLES]["y"][96]
    assert beside(panel)["latest"] == (yours.x[-1], yours.value[-1])
    assert beside(panel)["next"][0] == proposal.x[0]


def test_a_network_alone_has_no_interval_and_is_left_out() -> None:
    duel = played()
    duel.landscape.curves[1:, 4:] = np.nan
    panel = drawn(plots.belief_panel(duel, None, truth=True))
    assert panel.traces[TRUTH]["x"] == list(duel.landscape.axes[0][:4])
    assert list(ends(panel)) == ["··· measured"] and not beside(panel)
    assert [len(panel.traces[each]["x"]) for each in (BAND, SAMPLES, MEAN, START, YOURS, NEXT)] == [0] * 6
    empty = drawn(plots.belief_panel(played(), None))
    # Nothing is told by colour alone.
    assert len({empty.traces[each]["marker"]["symbol"] for each in (START, YOURS, NEXT)}) == 3
    assert len({empty.traces[each]["line"]["dash"] for each in (TRUTH, SAMPLES, MEAN)}) == 3
    assert [len(each["x"]) for each in empty.traces] == [0] * 8
    assert empty.labels == ()


@pytest.mark.parametrize(
    ("name", "peak", "said"),
    [
        ("ei", -1.0, " points"),
        ("pi", math.log(0.37), "37 %"),
        ("pi", -800.0, "under 0.001 %"),
        ("ucb", 2.5, "up to {:.1f} %"),
        ("thompson", 2.5, "{:.1f} %"),
    ],
)
def test_what_a_trial_promises(name: Acquisition, peak: float, said: str) -> None:
    duel, scores = played(), np.minimum(peak, np.linspace(peak - 5, peak + 0.5, 97))
    asked = seen(duel, name, proposal=12, peak=peak, scores=scores)
    panel = drawn(plots.wanted_panel(duel, name, asked))
    curve, star = panel.traces
    # Also where that underflows.
    wanted = np.exp(scores - peak) if name in ("ei", "pi") else asked.model.plain(scores)
    assert curve["y"] == pytest.approx(100 * wanted, abs=1e-3)
    assert star["y"][1] == pytest.approx(max(curve["y"]))
    ((text, place),) = beside(panel).items()
    assert text.endswith(said.format(star["y"][1])) and place == (star["x"][1], star["y"][1])
    for view in (None, seen(duel, name, proposal=None, peak=None)):  # no model yet, or all is tried
        curve, star = drawn(plots.wanted_panel(duel, name, view)).traces
        assert (len(curve["x"]), len(star["x"])) == (0 if view is None else 97, 0)
        assert not drawn(plots.belief_panel(duel, view)).traces[NEXT]["x"]


RANDOM = ((0.2, 0.5, 0.9, 0.9), (0.4, 0.7, 0.7, 0.95))
RACE = Race((0.5, 0.9), (0.5, 0.95), RANDOM, 12)


def test_the_race_is_drawn_on_an_even_axis() -> None:
    panel = drawn(plots.race_panel(RACE, 0.96))
    band, random, machine, you = panel.traces
    assert you["y"] == pytest.approx([50, 90])
    assert machine["y"] == pytest.approx([50, 95])
    assert random["y"] == pytest.approx([30, 60, 80, 92.5])
    wanted = [Estimate.from_values([walk[at] for walk in RANDOM]).share for at in range(4)]
    assert panel.curves[0].low == pytest.approx([100 * each.low for each in wanted])
    assert band["y"][:4] == pytest.approx([100 * each.high for each in wanted])
    assert "%{customdata[1]}" in random["hovertemplate"] and "customdata" not in you["hovertemplate"]  # one reading
    assert ends(panel) == {"◆ random": pytest.approx(92.5), "● machine": 95, "✖ you": 90}
    assert panel.layout["yaxis"].get("type", "linear") == "linear" and panel.layout["yaxis"]["range"] == [65, 101.5]
    assert panel.layout["xaxis"]["range"][1] > 12
    for each in (panel, drawn(plots.race_panel(None, 0.9))):  # an empty race has all its parts
        assert len({(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in each.traces[1:]}) == 3


@pytest.mark.parametrize("column", [True, False])
def test_a_still_belief_shows_its_95_per_cent_band_and_its_trials_by_number(column: bool) -> None:
    along, mean, std = np.linspace(0, 1, 5), np.arange(5.0), np.full(5, 0.5)
    tried = np.array([0.2, 0.7]), np.array([1.0, 3.0])
    axes = Figure().subplots()
    places = (along[:, None], (tried[0][:, None], tried[1])) if column else (along, tried)
    plots.draw_belief(axes, places[0], mean, std, places[1], samples=np.ones((2, 5)), truth=mean + 1)
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().bounds == pytest.approx((0, -0.98, 1, 4 + 2 * 0.98), abs=1e-4)
    *samples, truth, middle, crosses = axes.lines
    assert [line.get_linestyle() for line in (*samples, truth, middle)] == ["--", "--", ":", "-"]
    assert np.array_equal(truth.get_ydata(), mean + 1) and np.array_equal(middle.get_ydata(), mean)
    assert np.array_equal(crosses.get_xydata(), np.transpose(tried)) and crosses.get_marker() == "x"
    assert [(each.get_text(), each.xy) for each in axes.texts if isinstance(each, Annotation)] == [
        ("1", (0.2, 1.0)),
        ("2", (0.7, 3.0)),
    ]
    crowd = Figure().subplots()
    plots.draw_belief(crowd, along, mean, std, (np.array([0.2, 0.7, 0.22, 0.22]), np.array([1.0, 3.0, 1.2, 4.0])))
    assert [text.get_text() for text in crowd.texts] == ["1, 3", "2", "4"]  # a text where crosses lie close together
    empty = Figure().subplots()
    plots.draw_belief(empty, along, mean, std, (np.empty((0, 1)), np.empty(0)))
    assert len(empty.lines) == 2 and not empty.texts


def test_a_still_promise_has_its_star_at_the_largest_value_and_room_for_it() -> None:
    axes, along, worth = Figure().subplots(), np.linspace(0, 1, 5)[:, None], np.array([-1.0, 0, 3, 2, 0])
    plots.draw_promise(axes, along, worth)
    curve, star, at = axes.lines
    assert np.array_equal(curve.get_ydata(), worth)
    assert np.array_equal(star.get_xydata(), [[0.5, 3.0]]) and star.get_marker() == "*"
    assert np.array_equal(at.get_xdata(), [0.5, 0.5])
    assert axes.get_ylim()[0] < -1 and axes.get_ylim()[1] > 3.5
