"""The life of a notebook: opened before it ran, run, saved, opened again with its kernel, restarted, opened without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator

from kit.lab import IS_STILL, STILL, WIDGET_VIEW
from tests.browser.conftest import Open, Write
from tests.browser.lab import NOTEBOOKS, NotebookPage, Server
from tests.browser.moves import answers, wait_until
from tests.notebooks import refresh

SENTENCE = "Run this cell to bring it to life."
SLIDER = "import ipywidgets\nipywidgets.IntSlider()"


def said(page: NotebookPage) -> list[str]:
    return page.page.locator(".kit-sentence:visible").all_inner_texts()


def still(page: NotebookPage) -> Locator:
    return page.page.locator(".kit-asleep > img")


def icons_of_broken_links(page: NotebookPage) -> int:
    """How many are to be seen: the page draws them before a widget that has lost its kernel."""
    return int(
        page.page.evaluate(
            """() => [...document.querySelectorAll('.jupyter-widgets-disconnected')]
                .filter(each => each.offsetParent && getComputedStyle(each, '::before').display !== 'none').length"""
        )
    )


def drawn(page: NotebookPage, explorer: Locator) -> tuple[str, list[str]]:
    """How much is drawn, and all words in it, once something is and stays as it is."""
    page.wait_drawn()
    wait_until(page, lambda: not page.plot_state(explorer).startswith("0:"), "the first picture")
    parts, _, _ = page.wait_still(explorer).partition(":")
    return parts, explorer.locator(".main-svg text").all_text_contents()


def stored_outputs(path: Path) -> list[dict[str, Any]]:
    return [output["data"] for cell in json.loads(path.read_text())["cells"] for output in cell["outputs"]]


def first_explorer() -> nbformat.NotebookNode:
    """The first cell of the course that shows an explorer, with its still picture."""
    cells = [cell for cell in refresh.read(NOTEBOOKS / "00_start_here.ipynb").cells if cell.cell_type == "code"]
    cell = next(cell for cell in cells if any(STILL in output.get("data", {}) for output in cell.outputs))
    for output in cell.outputs:
        output["metadata"] = dict(IS_STILL)
    return cell


def test_an_explorer_sleeps_with_its_picture_and_comes_back(opened: Open, scratch: Write, lab: Server) -> None:
    path = lab.root / scratch(SLIDER)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, first_explorer())
    nbformat.write(notebook, path)
    picture = notebook.cells[0].outputs[-1].data[STILL]

    with opened(path.name) as page:  # not run yet
        wait_until(page, lambda: said(page) == [SENTENCE], "a still says how it comes to life")
        assert still(page).evaluate("image => image.naturalWidth") > 500
        assert page.explorers() == []

        page.run_all()
        before = drawn(page, page.explorers()[0])
        assert said(page) == [] and still(page).count() == 0
        page.save()
        explorer, slider = stored_outputs(path)
        assert explorer[STILL] == picture, "saving keeps the still picture"
        assert WIDGET_VIEW in explorer and WIDGET_VIEW in slider and STILL not in slider

        page.open()  # again, while the kernel lives
        wait_until(page, lambda: len(page.explorers()) == 1 and not said(page), "the explorer comes back")
        explorer_again = page.explorers()[0]
        assert drawn(page, explorer_again) == before, "as it was, its curves included"
        assert answers(page, explorer_again, "ratio", 60)
        assert page.problems() == []

        page.restart_kernel()
        wait_until(page, lambda: said(page) == [SENTENCE] * 2, "the explorer and the slider say how they come to life")
        assert explorer_again.locator(".kit-figure .main-svg").first.is_visible(), "the last picture stays"
        assert not explorer_again.locator(".kit-controls").is_visible(), "what a hand would move goes"
        assert icons_of_broken_links(page) == 0
        assert page.problems() == []

        page.open()  # again, with another kernel
        wait_until(page, lambda: said(page) == [SENTENCE] * 2, "nothing of it is in this kernel")
        assert still(page).count() == 1 and page.explorers() == []
        assert page.problems() == []

        page.run_cell(0)
        page.wait_still(page.explorers()[0])
        assert said(page) == [SENTENCE], "the slider's cell has not run"
        assert page.problems() == []
