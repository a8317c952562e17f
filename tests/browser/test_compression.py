"""The explorers of compression under a hand: marks, bars and the line follow, and names stay inside of their bars."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator

from tests.browser.conftest import Show
from tests.browser.moves import wait_until

MAKE = """
from kit import data, models
from kit.explorers import CompressionExplorer, MergeExplorer
digits, (net, other) = data.digits(), [models.MLP((64, 16, 10), seed=seed) for seed in range(2)]
explorer = CompressionExplorer(net, digits)
explorer
"""
MERGE = "merge = MergeExplorer(net, other, digits, epochs=0)\nmerge"
BARS = """(element) => [...element.querySelectorAll('.kit-figure-1 .bars .point')].map(point => {
    const [path, text] = ['path', 'text.bartext-inside'].map(name => point.querySelector(name));
    const box = node => { const {left, right} = node.getBoundingClientRect(); return [left, right]; };
    return {bar: box(path), text: text && box(text), fill: text && getComputedStyle(text).fill};
})"""


def place(explorer: Locator) -> tuple[float, float]:
    """Where the mark of the main figure stands on the page."""
    box = explorer.locator(".kit-figure-0 .kit-point:visible").first.bounding_box()
    assert box is not None
    return box["x"], box["y"]


def bars(explorer: Locator) -> list[dict[str, Any]]:
    return list(explorer.evaluate(BARS))


def test_a_dragged_ratio_moves_the_mark_and_the_bars_and_the_walk_its_mark(show: Show) -> None:
    notebook, explorer = show(MAKE, MERGE)
    before, drawn = place(explorer), bars(explorer)
    notebook.drag("ratio", 0.2, explorer)
    wait_until(notebook, lambda: "90 % pruned" not in notebook.status(explorer), "the words follow", 30)
    wait_until(notebook, lambda: place(explorer)[0] > before[0] + 20, "the file is larger", 30)
    wait_until(notebook, lambda: bars(explorer) != drawn, "the bars follow", 30)
    after = bars(explorer)
    named = [each for each in after if each["text"] and each["text"][1] > each["text"][0]]
    assert len(named) >= 2 and {each["fill"] for each in named} == {"rgb(0, 0, 0)"}, "not the theme's colour"
    for each in named:
        assert each["bar"][0] - 1 <= each["text"][0] and each["text"][1] <= each["bar"][1] + 1, "a name fits its bar"

    merge = notebook.explorers()[1]
    merge.scroll_into_view_if_needed()
    half = place(merge)
    notebook.drag("t, from a to b", 0.75, merge)
    wait_until(notebook, lambda: "25 % of network a and 75 % of b" in notebook.status(merge), "the words follow", 30)
    wait_until(notebook, lambda: place(merge)[0] > half[0] + 100, "a quarter of the line", 30)
    notebook.press("t, from a to b", "Home", merge)
    wait_until(notebook, lambda: "100 % of network a and 0 % of b" in notebook.status(merge), "so does a key", 30)
    wait_until(notebook, lambda: place(merge)[0] < half[0] - 200, "half of the line", 30)
    assert notebook.problems() == []
