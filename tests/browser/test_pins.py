"""Pins by hand in JupyterLab: Enter pins what is typed, leaving the field does not, other notebooks follow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from playwright.sync_api import Browser, Locator, Page

from tests.browser.lab import PATIENCE, NotebookPage, Server, open_notebook
from tests.browser.scratch import write_notebook

DATA = (
    "import dataclasses\nfrom kit import data, models\nfrom kit.explorers import BoardExplorer, PruningExplorer\n"
    "mine = dataclasses.replace(data.digits(), name='mine')\n"  # other tests pin for the digits
)
PRUNING = f"{DATA}explorer = PruningExplorer(models.MLP((64, 10), seed=0), mine)\nexplorer"
BOARD = f"{DATA}explorer = BoardExplorer(mine)\nexplorer"


def until(page: Page, happened: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if happened():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never happened")


def test_enter_pins_and_the_board_of_another_notebook_follows(browser: Browser, lab: Server) -> None:
    with ExitStack() as stack:

        def run(name: str, cell: str) -> tuple[NotebookPage, Locator]:
            stack.callback(write_notebook(lab.root / name, [cell]).unlink)
            notebook = stack.enter_context(open_notebook(browser, lab, name))
            notebook.run_all()
            (explorer,) = notebook.explorers()
            notebook.wait_still(explorer)
            return notebook, explorer

        here, pruning = run("scratch-pins.ipynb", PRUNING)
        there, plane = run("scratch-board.ipynb", BOARD)
        field, keyboard = here.control("pin as", pruning).locator("input"), here.page.keyboard
        field.click()
        keyboard.type("left alone")
        keyboard.press("Tab")
        here.page.wait_for_timeout(300)
        field.fill("")
        field.click()
        keyboard.type("a name that is typed faster than it is sent")
        keyboard.press("Enter")
        until(here.page, lambda: "Pinned as a name that is typed faster than it is sent," in here.status(pruning))
        until(there.page, lambda: "1 pin for mine" in there.status(plane))
        plane.get_by_role("button", name="Remove pin").click()
        until(there.page, lambda: "Removed a name" in there.status(plane))
        keyboard.press("Enter")  # the name is free again
        until(there.page, lambda: "1 pin for mine" in there.status(plane))
        assert here.problems() == there.problems() == []
