"""The Bayes explorer under a hand: a slider moves the model, a click tries there, a drag zooms, hover still answers."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator

from tests.browser.conftest import Show
from tests.browser.lab import NotebookPage
from tests.browser.moves import wait_until

MAKE = """
from kit import data
from kit.explorers import BayesExplorer
digits = data.digits()
"""
SHOW = """
explorer = BayesExplorer(digits, points=24, seeds=2, epochs=10)
explorer
"""
STATE = """(element) => {
    const plot = element.querySelector('.js-plotly-plot'), named = name => plot.data.find(trace => trace.name === name);
    return {
        mean: [...named('middle of the model').y], band: [...named('95 % band of the model').y],
        trials: named('your trials').x.length, low: plot._fullLayout.yaxis.range[0],
    };
}"""


def state(explorer: Locator) -> dict[str, Any]:
    return dict(explorer.evaluate(STATE))


def point(explorer: Locator, across: float, down: float) -> tuple[float, float]:
    """A place in the large figure's plot area, in pixels of the page."""
    box = explorer.locator(".js-plotly-plot").first.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def wait_for_trials(notebook: NotebookPage, explorer: Locator, count: int) -> None:
    wait_until(notebook, lambda: bool(state(explorer)["trials"] == count), f"{count} trials are drawn")
    notebook.wait_still(explorer)


def test_keys_move_the_model_and_clicks_try(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    explorer.locator(".kit-status", has_text="3 trials").wait_for()
    notebook.wait_still(explorer)
    before = state(explorer)
    assert len(before["band"]) == 2 * len(before["mean"]) > 100
    notebook.press("length", "ArrowRight", explorer)
    wait_until(notebook, lambda: bool(state(explorer)["mean"] != before["mean"]), "another mean")
    assert state(explorer)["band"] != before["band"]

    mouse = notebook.page.mouse
    mouse.click(*point(explorer, 0.1, 0.3))
    wait_for_trials(notebook, explorer, 1)
    assert "4 trials (3 to start with, 1 of yours, 0 of" in notebook.status(explorer)
    notebook.press("place", "End", explorer)
    explorer.locator("button", has_text="Try here").click()
    wait_for_trials(notebook, explorer, 2)
    explorer.locator("button", has_text="Follow the machine").click()
    wait_for_trials(notebook, explorer, 3)
    assert "6 trials (3 to start with, 2 of yours, 1 of the machine's)" in notebook.status(explorer)

    mouse.click(*point(explorer, 0.1, 0.3))  # the same cell: refused in words
    explorer.locator(".kit-status .kit-error", has_text="is tried already").wait_for()
    assert notebook.problems() == []
    assert notebook.overflow() == []


def test_hover_and_zoom_do_not_try(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    mouse = notebook.page.mouse
    explorer.locator(".kit-status", has_text="3 trials").wait_for()
    notebook.wait_still(explorer)
    whole = state(explorer)
    star = explorer.locator(".js-plotly-plot").first.locator(".point").last.bounding_box()
    assert star is not None
    mouse.move(star["x"] + star["width"] / 2, star["y"] + star["height"] / 2, steps=3)
    explorer.locator(".hoverlayer .hovertext").first.wait_for()

    mouse.move(*point(explorer, 0.3, 0.1))
    mouse.down()
    mouse.move(*point(explorer, 0.7, 0.5), steps=5)
    mouse.up()
    wait_until(notebook, lambda: bool(state(explorer)["low"] > whole["low"]), "a drag zooms")
    mouse.dblclick(*point(explorer, 0.5, 0.5))
    wait_until(notebook, lambda: bool(state(explorer)["low"] == whole["low"]), "two clicks take the zoom back")
    assert state(explorer)["trials"] == 0
    mouse.click(*point(explorer, 0.1, 0.3))
    wait_for_trials(notebook, explorer, 1)
    assert notebook.problems() == []
