"""Every notebook in a real JupyterLab: it runs, shows every widget, asks no other host, and its explorers answer."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Open
from tests.browser.lab import NOTEBOOKS, NotebookPage
from tests.browser.moves import dead_explorers

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_and_its_explorers_answer(opened: Open, name: str) -> None:
    with opened(name) as notebook:
        notebook.run_all()
        assert notebook.problems() == []
        assert notebook.overflow() == [], "wider than its place at 1280 pixels"
        assert dead_explorers(notebook) == []
        assert notebook.problems() == [], "after the controls were moved"


def test_first_notebook_has_a_live_slider_within_the_first_screen(opened: Open) -> None:
    if not NAMES:
        pytest.skip("there is no notebook yet")
    with opened(NAMES[0]) as notebook:
        notebook.run_all()
        _assert_slider_within_first_screens(notebook)


def _assert_slider_within_first_screens(notebook: NotebookPage) -> None:
    slider = notebook.page.locator('[role="slider"]').first
    notebook.page.locator(".jp-Cell").first.scroll_into_view_if_needed()
    box = slider.bounding_box()
    height = (notebook.page.viewport_size or {"height": 0})["height"]
    assert box is not None and box["y"] < 2 * height, f"the first slider is at {box}"
