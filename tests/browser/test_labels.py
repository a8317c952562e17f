"""Names and titles of figures, at four widths of an explorer: none over another, none cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from playwright.sync_api import Browser, Page
from torch import nn

from kit.compress.line import Point
from kit.data import Dataset, Split
from kit.distill import Group, Recipe
from kit.measure import Estimate
from kit.models import ConvNet
from kit.plots import bayes, board, distill, gradient, interval, prune, sensitivity
from kit.plots.curves import Curve, Panel
from kit.plots.gradient import Slope
from kit.prune import Heads, Sensitivity
from kit.search import Float
from kit.search.duel import Duel, Question, Race
from kit.search.surrogate import Kernel
from tests.browser.figures import bare_page, faults, figure, of_explorer, show, sizes
from tests.explorer_cases import CASES
from tests.explorer_contract import Case
from tests.test_explorers_bayes import hill

WIDTHS = (700, 950, 1180, 1800)
LONG = tuple(f"encoder.blocks.{at}.attention.proj" for at in range(60))
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
POINTS = np.geomspace(1, 0.001, 40)

pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    opened = bare_page(browser)
    yield opened
    opened.close()


def assert_apart(page: Page, figures: list[Any], marks: list[Any]) -> None:
    """Nothing meets, and what comes first is named."""
    wanted = [{each["text"].replace("\n", "") for each in drawn["labels"] if each["rank"] == 0} for drawn in figures]
    for width in WIDTHS:
        show(page, figures, marks, sizes(width, len(figures) - 1))
        assert not faults(page), f"at {width} pixels"
        for some, names in zip(wanted, page.evaluate("() => kitFigures.names()"), strict=True):
            assert some <= set(names), f"at {width} pixels"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_explorers(page: Page, case: Case, digits: Dataset, trained: ConvNet) -> None:
    explorer = case.make(digits, trained)
    try:
        explorer.wait()
        if case.pins:
            explorer.pin()
        explorer.wait_curves()
        assert_apart(page, *of_explorer(explorer))
    finally:
        explorer.close()


# -- harder ones -------------------------------------------------------------------------------------------------------


def measured(label: str, size: float, fall: float) -> Curve:
    """A curve that falls the later, the smaller `fall` is."""
    accuracies = 0.97 - 0.87 * fall * (1 - POINTS) ** 12
    points = ((size * x, Estimate.from_counts(round(600 * y), 600)) for x, y in zip(POINTS, accuracies, strict=True))
    return Curve.of(label, points, ["90 % of the weights removed"] * len(POINTS))


def test_a_point_far_outside_is_no_long_way(page: Page) -> None:
    points = [
        Point(10.0**-place, torch.ones(9) > 0, torch.linspace(0.9, 1.1, 9).double() ** place) for place in range(4)
    ]
    points[0] = Point(1.0, torch.ones(9) > 0, torch.full((9,), 1e30).double())
    steep = {"unrolled": [Slope(1e30, 0, 0)], "implicit": [Slope(-0.1, 4, 20)], "differences": [Slope(1e9, 4, 0)]}
    panel = gradient.loss_panel(
        points[::-1], points[2], steep, dict.fromkeys(steep, 0), [], Float(1e-3, 1, log=True), ""
    )
    assert_apart(page, [figure(panel)], [])


def pinned(count: int) -> Curve:
    dice = np.random.default_rng(0)
    places = zip(10 ** dice.uniform(3.5, 4.1, count), dice.uniform(0.8, 0.98, count), strict=True)
    names = [f"ConvNet, {90 + at / 10:g} % weights, magnitude, global" for at in range(count)]
    return Curve.of("pins", ((x, Estimate.from_counts(round(600 * y), 600)) for x, y in places), names)


def plane(own: str, random: Curve, magnitude: Curve, pins: Curve) -> Panel:
    dense = Curve.of("dense model", [(1e4, Estimate.from_counts(582, 600))])
    curves: dict[str, Any] = {"random": random, "magnitude": magnitude, "dense": dense, "pins": pins}
    return prune.plane_panel("nonzeros", measured(own, 1e4, 1), **curves, dense_size=1e4, chance=10.0)


def group(temperature: float, right: int, classes: int = 10) -> Group:
    labels = torch.arange(20 * classes) % classes
    spoiled = torch.where(torch.arange(len(labels)) < right, labels, (labels + 1) % classes)
    split = Split(torch.zeros(len(labels), 1), labels)
    return Group(Recipe(split, temperature, 0.9), (0, 1), torch.stack([spoiled, spoiled.roll(classes)]), labels)


def on_board(count: int) -> Panel:
    pins = pinned(count)
    table = pd.DataFrame({"name": pins.said, "technique": "pruning", "nonzeros": pins.x, "batch_size": 1, "n": 600})
    ends = {"accuracy": pins.value, "accuracy_low": pins.low, "accuracy_high": pins.high}
    table = table.assign(**{name: np.array(each) / 100 for name, each in ends.items()})
    techniques = itertools.islice(itertools.cycle(board.TECHNIQUES), count)
    table["technique"] = list(techniques)
    return board.board_panel(board.board_pins(table, table.iloc[::5], "nonzeros"), "nonzeros", 10)


def scan(layers: int) -> Sensitivity:
    ratios = (0.0, 0.25, 0.5, 0.75, 0.98)
    accuracies = [Estimate.from_counts(round(600 * (0.97 - 0.8 * ratio**9)), 600) for ratio in ratios]
    return Sensitivity(ratios, {f"{name}.weight": tuple(accuracies) for name in LONG[:layers]}, dict.fromkeys(LONG, 9))


def deep() -> nn.Module:
    net = nn.Module()
    for at, name in enumerate(LONG):
        net.register_module(name.replace(".", "_"), nn.Linear(3 + at, 4))
    return net


def heads_of(layers: int, heads: int) -> Panel:
    net = nn.Module()
    net.encoder = nn.ModuleList(nn.Linear(8, 2 * heads) for _ in range(layers))
    outputs = torch.arange(2 * heads).view(heads, 2)
    return prune.heads_panel(net, net, {f"{at}": Heads(heads, {f"encoder.{at}": outputs}) for at in range(layers)})


def belief(cell: int) -> list[Panel]:
    duel = Duel(hill(), along=np.linspace(0, 1, 97))
    duel.attempt(0, cell)
    view = duel.view(0, Question("ei", 0.1, Kernel((0.15,), noise=0.0025)))
    race = Race((0.9,) * 12, (0.9,) * 12, ((0.9,) * 12, (0.91,) * 12), 12)
    promise = bayes.wanted_panel(duel, "ei", view)
    return [bayes.belief_panel(duel, view, 6, truth=True), promise, bayes.race_panel(race, 0.92)]


HERE = {"kind": "point", "colour": "#D55E00", "figure": 0, "at": 0.0, "text": "", "values": [3000, 95, 93, 97]}
AIM = {**HERE, "kind": "expected", "text": "here", "values": [0.5, 60, 20, 90]}


def harder() -> dict[str, tuple[list[Panel], list[Any]]]:
    same = [group(each, 100) for each in (1.0, 4.0, 64.0)]
    allocation = {f"{name}.weight": at / 60 for at, name in enumerate(LONG)}
    readings = [Estimate.from_counts(45 + at % 5, 50) for at in range(40)]
    logits = torch.linspace(-1, 3, 10)
    students = [measured(name, 1e4, 0.2) for name in ("distilled", "hard labels")]
    teacher = Curve.of("teacher", [(1e4, Estimate.from_counts(582, 600))])
    here = Curve.of("you are here", [(5e3, Estimate.from_counts(580, 600))])
    return {
        "crowded plane": (
            [plane("taylor", measured("random", 1e4, 1.1), measured("magnitude", 1e4, 1), pinned(40))],
            [HERE],
        ),
        "one curve": ([plane("random", Curve("random"), Curve("magnitude"), Curve("pins"))], [HERE]),
        "deep network": (
            [
                sensitivity.sensitivity_panel(scan(60), allocation),
                prune.kept_panel(deep(), {}),
                sensitivity.allocation_panel(dict.fromkeys(allocation, 9), allocation, 0.5),
                sensitivity.ways_panel({}),
            ],
            [],
        ),
        "heads of a deep network": (
            [prune.kept_panel(deep(), {}), *(heads_of(*size) for size in ((12, 12), (40, 2), (1, 32)))],
            [],
        ),
        "eight layers that end alike": ([sensitivity.sensitivity_panel(scan(8), {})], []),
        "students who are alike": (
            [
                distill.curve_panel(same, same, Estimate.from_counts(100, 200), (0.5, 64.0)),
                distill.soft_panel(logits, 0, torch.rand(1, 28, 28), CLASSES),
                distill.plane_panel(students[0], students[1], teacher, here, pinned(10)),
                distill.answers_panel(same, 9, False, CLASSES),
            ],
            [HERE, {**HERE, "kind": "bars", "figure": 1, "values": [0.1] * 9 + [1.0]}],
        ),
        "full board": ([on_board(45)], []),
        "one pin": ([on_board(1)], []),
        "readings": ([interval.intervals_panel(readings, 0.93, 10, 40)], []),
        **{f"belief {cell}": (belief(cell), [AIM]) for cell in (0, 12, 24)},
    }


HARDER = harder()


@pytest.mark.parametrize("name", HARDER)
def test_harder_figures(page: Page, name: str) -> None:
    panels, marks = HARDER[name]
    assert_apart(page, [figure(panel) for panel in panels], marks)


# -- a hand over a figure ----------------------------------------------------------------------------------------------

PLACE = """([curve, at]) => {
    const plot = document.querySelector('.js-plotly-plot'), {left, top} = plot.getBoundingClientRect();
    const {xaxis, yaxis} = plot._fullLayout, trace = plot._fullData.find(each => each.name === curve);
    return [left + xaxis._offset + xaxis.d2p(trace.x[at]), top + yaxis._offset + yaxis.d2p(trace.y[at])];
}"""
RANGES = "() => ['xaxis', 'yaxis'].map(axis => [...document.querySelector('.js-plotly-plot')._fullLayout[axis].range])"
ZOOMED = "zoomed: double click to reset"


@pytest.fixture
def shown(page: Page) -> tuple[Page, dict[str, Any]]:
    """The crowded plane, and what it is drawn from."""
    panels, marks = HARDER["crowded plane"]
    drawn = figure(panels[0])
    show(page, [drawn], marks, [(900, 330)])
    return page, drawn


def clicked(page: Page) -> Any:
    return page.evaluate("() => kitFigures.models[0].get('clicked')")


def names(page: Page) -> list[str]:
    page.evaluate("() => kitFigures.settled()")
    return list(page.evaluate("() => kitFigures.names()[0]"))


def drag(page: Page) -> None:
    page.mouse.move(200, 60)
    page.mouse.down()
    page.mouse.move(420, 200, steps=4)
    page.mouse.up()
    page.wait_for_timeout(400)


def test_a_click_tells_the_point_or_the_place(shown: tuple[Page, dict[str, Any]]) -> None:
    page, drawn = shown
    random = next(each for each in drawn["data"] if each["name"] == "random")
    x, y = page.evaluate(PLACE, ["random", 12])
    page.mouse.click(x + 3, y - 2)
    assert clicked(page) == [1, "random", random["x"][12], random["y"][12]]
    page.mouse.click(200, 60)  # on no point
    count, curve, x, y = clicked(page)
    assert (count, curve) == (2, "") and 10 < x < 200 and 80 < y < 109
    drag(page)
    page.mouse.click(4, 4)  # on the title
    assert clicked(page)[0] == 2, "neither a drag nor a title is a click"


def test_a_zoom_says_so_and_two_clicks_take_it_back_to_the_ranges_of_now(shown: tuple[Page, dict[str, Any]]) -> None:
    page, _ = shown
    whole = page.evaluate(RANGES)
    assert ZOOMED not in names(page)
    drag(page)
    assert page.evaluate(RANGES) != whole and ZOOMED in names(page)
    assert not faults(page)
    page.mouse.dblclick(300, 120)
    page.wait_for_timeout(500)
    assert page.evaluate(RANGES) == whole and ZOOMED not in names(page)
    assert clicked(page) == [], "the two clicks were none"
    page.mouse.dblclick(300, 120)  # nothing is zoomed: plotly would fit the axes to the data
    page.wait_for_timeout(500)
    assert page.evaluate(RANGES) == whole

    page.evaluate(  # another size on the axis, as from the kernel
        """() => {
            Plotly.relayout(document.querySelector('.js-plotly-plot'), {'xaxis.range': [1, 6]});
            kitFigures.models[0].set('home', [[1, 6], [0, 109]]);
        }"""
    )
    assert ZOOMED not in names(page)
    drag(page)
    assert ZOOMED in names(page)
    page.mouse.dblclick(300, 120)
    page.wait_for_timeout(500)
    assert page.evaluate(RANGES) == [[1, 6], [0, 109]]


def test_names_stay_where_they_are_while_a_mark_passes_and_give_way_to_it(shown: tuple[Page, dict[str, Any]]) -> None:
    page, _ = shown
    places = """() => Object.fromEntries([...document.querySelectorAll('.kit-label')].map(label => {
        const {x, y} = label.getBoundingClientRect();
        return [label.textContent, [x, y]];
    }))"""
    before = page.evaluate(places)
    page.evaluate("() => kitFigures.moveMark(0, [20, 100, 99, 101])")  # far from all names
    assert page.evaluate(places) == before
    page.evaluate("() => kitFigures.moveMarkTo(0, 'random')")
    after = page.evaluate(places)
    moved = [name for name in before if after[name] != before[name]]
    assert moved == ["◆ random"] and not faults(page)


def test_a_figure_follows_its_place_when_that_changes(page: Page) -> None:
    panels, marks = HARDER["crowded plane"]
    show(page, [figure(panels[0])], marks, [(900, 330)])
    size = "() => ['width', 'height'].map(side => document.querySelector('.js-plotly-plot')._fullLayout[side])"
    assert page.evaluate(size) == [900, 330]
    page.evaluate("() => { document.querySelector('.kit-figure').style.cssText = 'width: 480px; height: 400px'; }")
    page.wait_for_function(f"() => ({size})().join() === '480,400'")
    assert not faults(page)
