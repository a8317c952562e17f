"""The file picker in JupyterLab: a file is chosen by mouse and by keyboard, and the notebook hears of it."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open, Write

MAKE = """
from pathlib import Path
from kit.explorers import FilePicker
Path("inside/deeper").mkdir(parents=True)
for name in ("a.npz", "b.npz", "deeper/c.npz"):
    (Path("inside") / name).touch()
"""
SHOW = "picker = FilePicker('inside')\npicker"
CHOSEN = "print(picker.path.name)"


def test_a_file_is_chosen_by_mouse_and_by_keyboard(opened: Open, scratch: Write) -> None:
    with opened(scratch(MAKE, SHOW, CHOSEN)) as notebook:
        page = notebook.page
        for cell in (0, 1):
            notebook.run_cell(cell)
        names, said = page.get_by_role("listbox", name=".npz"), page.get_by_role("status")
        names.get_by_role("option", name="a.npz").click()
        expect(said).to_have_text("Chosen: inside/a.npz")
        page.keyboard.press("ArrowDown")  # the list has the focus: no cell may move
        expect(said).to_have_text("Chosen: inside/b.npz")
        names.press("Home")
        names.press("ArrowDown")
        names.press("ArrowDown")
        notebook.wait_idle()  # ipywidgets holds back moves while the kernel answers one, but no clicks
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # on "Open folder"
        expect(said).to_have_text("Folder: deeper.")
        expect(names.get_by_role("option")).to_have_text(["./", "../", "c.npz"])
        page.get_by_role("textbox", name="path").fill("inside/none.npz")
        page.keyboard.press("Enter")
        expect(said).to_have_text("path must be that of a file; inside/none.npz is none.")
        page.get_by_role("textbox", name="path").fill("inside/deeper/c.npz")
        page.keyboard.press("Enter")
        expect(said).to_have_text("Chosen: inside/deeper/c.npz")
        notebook.run_cell(2)
        assert page.locator(".jp-Cell").nth(2).locator(".jp-OutputArea-output").inner_text().strip() == "c.npz"
        assert notebook.problems() == []
