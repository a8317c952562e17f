"""The distillation explorer under a hand: a dragged temperature trains students, and long training holds nothing up."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Show
from tests.browser.moves import wait_until

MAKE = """
from kit import data, models, training
from kit.explorers import DistillationExplorer
digits, teacher = data.digits(), models.ConvNet(channels=(8, 16), hidden=32)
history = training.fit(teacher, digits, epochs=4, lr=3e-3)
"""
SHOW = """
explorer = DistillationExplorer(teacher, digits)
explorer
"""
CURVE = """(element) => {
    const data = element.querySelector('.js-plotly-plot').data, named = name => data.find(trace => trace.name === name);
    const {x, y} = named('distilled');
    return {at: [...x], moved: [...y], band: named('interval of distilled').y.length};
}"""
BARS = "(element) => [...element.querySelectorAll('.kit-bars rect')].map(bar => Number(bar.getAttribute('height')))"


def soft_labels(explorer: Locator) -> list[float]:
    return list(explorer.evaluate(BARS))


def test_a_dragged_temperature_trains_students_and_redraws_the_banded_curve(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    before, bars = explorer.evaluate(CURVE), soft_labels(explorer)
    assert before["at"] == [0.5, 1, 2, 4, 8, 16, 32, 64], "trained without being asked for"
    assert before["band"] == 2 * len(before["at"])
    notebook.drag("temperature", 0.82, explorer)  # to a temperature between two of these
    at = set(before["at"])
    wait_until(notebook, lambda: set(explorer.evaluate(CURVE)["at"]) > at, "students of that temperature")
    notebook.wait_still(explorer)
    after = explorer.evaluate(CURVE)
    assert after["band"] == 2 * len(after["at"])
    assert len(soft_labels(explorer)) == 10
    assert max(soft_labels(explorer)) < max(bars), "the labels are softer"
    notebook.press("alpha", "Home", explorer)  # the teacher is silent: every student is trained again
    wait_until(notebook, lambda: bool(explorer.evaluate(CURVE)["moved"] != after["moved"]), "other students")
    wait_until(notebook, lambda: "alpha 0," in notebook.status(explorer), "a sentence about them")
    assert notebook.problems() == []


def test_long_training_shows_progress_freezes_nothing_and_stops(show: Show) -> None:
    notebook, explorer = show(MAKE, SHOW)
    for slider in ("width", "seeds", "epochs"):
        notebook.press(slider, "End", explorer)
    stop, bars = explorer.locator("button", has_text="Stop"), soft_labels(explorer)
    progress = explorer.locator(".widget-hprogress, .progress").first
    progress.get_by_text(re.compile("s left")).wait_for()
    began = time.monotonic()
    notebook.execute("answer = 6 * 7")
    notebook.press("temperature", "Home", explorer)
    wait_until(notebook, lambda: soft_labels(explorer) != bars, "the labels follow")
    assert time.monotonic() - began < 5, "the kernel answers while students train"
    expect(stop).to_be_enabled()
    stop.click()
    explorer.locator(".kit-status", has_text="Stopped. Move a control to go on.").wait_for()
    assert notebook.problems() == []
