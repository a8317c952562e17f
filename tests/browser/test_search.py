"""The search explorer under a hand: points appear and vanish with the budget, and the pictures follow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator

from tests.browser.conftest import Show
from tests.browser.lab import NotebookPage
from tests.browser.moves import wait_until

MAKE = """
from kit import data
from kit.explorers import SearchExplorer
"""
SHOW = """
explorer = SearchExplorer(data.digits(), points=5, epochs=4, trainings=9)
explorer.repeats.value = 4
explorer
"""
TRIALS = """(element) => {
    const group = element.querySelector('.kit-trials'), dots = [...group.querySelectorAll('circle.kit-dot')];
    const visible = dots.filter(dot => dot.style.display !== 'none');
    const best = group.querySelector('.kit-best');
    return {
        shown: Number(group.getAttribute('data-shown')), dots: dots.length, visible: visible.length,
        places: visible.map(dot => `${dot.getAttribute('cx')},${dot.getAttribute('cy')}`),
        star: best.style.display === 'none' ? null : best.getAttribute('transform').match(/[\\d.]+,[\\d.]+/)[0],
    };
}"""
CURSOR = """(element) => {
    const plot = element.querySelector('.js-plotly-plot'), {xaxis} = plot._fullLayout;
    const at = Number(element.querySelector('.kit-cursor').getAttribute('transform').match(/\\(([\\d.]+)/)[1]);
    return xaxis.p2d(at - xaxis._offset);
}"""
BARS = "(element) => [...element.querySelectorAll('.js-plotly-plot')[3].data[0].x]"


def trials(explorer: Locator) -> dict[str, Any]:
    """What the overlay shows, after a look whether it agrees with itself."""
    found: dict[str, Any] = explorer.evaluate(TRIALS)
    assert found["visible"] == found["shown"]
    assert (found["star"] in found["places"]) == (found["shown"] > 0), "the star stands on a point that is shown"
    return found


def wait_for_points(notebook: NotebookPage, explorer: Locator, count: int) -> None:
    wait_until(notebook, lambda: bool(trials(explorer)["shown"] == count), f"{count} points are shown")


def test_a_moved_budget_shows_and_hides_points(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    assert trials(explorer)["shown"] == trials(explorer)["dots"] == 9
    assert explorer.evaluate(CURSOR) == pytest.approx(36, abs=0.1)
    seen = [trials(explorer)]
    for place, budget in ((0.5, 20), (0.0, 4), (1.0, 36)):
        notebook.drag("budget", place, explorer)
        wait_for_points(notebook, explorer, budget // 4)
        assert explorer.evaluate(CURSOR) == pytest.approx(budget, abs=0.1)
        assert trials(explorer)["dots"] == 9, "hidden points wait in the page"
        seen.append(trials(explorer))
    for more, fewer in pairwise(seen[:3]):
        assert fewer["places"] == more["places"][: fewer["shown"]], "the oldest stay"
    assert seen[3] == seen[0]
    for left in range(8, 0, -1):
        notebook.press("budget", "ArrowLeft", explorer)
        wait_for_points(notebook, explorer, left)
    assert explorer.evaluate(CURSOR) == pytest.approx(4, abs=0.1)
    wait_until(notebook, lambda: sum(explorer.evaluate(BARS)) == 4, "the bars follow")
    assert "random, 4 epochs" in notebook.status(explorer)
    assert notebook.problems() == []


def test_another_method_moves_every_picture(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    before, points = notebook.wait_still(explorer), trials(explorer)
    notebook.control("method", explorer).locator("select").select_option("halving")
    wait_until(notebook, lambda: trials(explorer)["dots"] == 24, "halving tries more, and shorter")
    assert trials(explorer)["places"] != points["places"]
    sizes = explorer.evaluate(
        "(element) => [...element.querySelectorAll('circle.kit-dot')].map(dot => Number(dot.getAttribute('r')))"
    )
    assert len(set(sizes)) == 2, "one epoch and four"
    assert notebook.wait_still(explorer) != before
    assert "halving, 36 epochs" in notebook.status(explorer)
    assert [spent for spent in explorer.evaluate(BARS) if spent] == [18, 18]
    assert notebook.overflow() == []
    assert notebook.problems() == []
