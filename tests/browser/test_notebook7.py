"""Notebook 7: the same notebook runs there, and its keys move sliders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.lab import NOTEBOOKS, open_notebook, serve
from tests.browser.moves import answers, wait_until
from tests.notebooks.kernels import kernel_environment

NAME = "00_start_here.ipynb"
ACTIVE_CELL = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"
ITS_OWN_ERROR = "Cannot read properties of undefined (reading 'schema')"  # 7.6 logs it as it reads its settings


def test_keys_move_sliders_and_leave_the_notebook_alone(browser: Browser, tmp_path: Path) -> None:
    with serve(NOTEBOOKS, app="notebook", env=kernel_environment(tmp_path)) as server:  # noqa: SIM117
        with open_notebook(browser, server, NAME) as page:
            page.run_all()
            assert page.problems(ITS_OWN_ERROR) == []
            explorer = page.explorers()[0]
            page.wait_still(explorer)
            page.handle("ratio", explorer).click()
            cells, active = page.page.locator(".jp-Cell:visible").count(), page.page.evaluate(ACTIVE_CELL)
            start = page.value("ratio", explorer)
            for key, moved in {"ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 1, "ArrowDown": 0, "Home": -start}.items():
                page.press("ratio", key, explorer)
                there = partial(lambda value: page.value("ratio", explorer) == value, start + moved)
                wait_until(page, there, f"{key} moves the slider")
            assert page.page.locator(".jp-Cell:visible").count() == cells, "no section was folded"
            assert page.page.evaluate(ACTIVE_CELL) == active
            assert answers(page, explorer, "ratio", 60)

            page.page.keyboard.press("Control+s")  # a shortcut of the notebook still works from there
            wait_until(page, lambda: "Saving file" in server.log.read_text(), "Ctrl + S saves")

            page.restart_kernel()
            sentences = page.page.locator(".kit-sentence:visible")
            wait_until(page, lambda: sentences.count() > 0, "it says how its explorers come to life")
            assert explorer.locator(".kit-figure .main-svg").first.is_visible()
