"""Still pictures of the explorers and tables in a notebook, for viewers that have no kernel.

They are taken from the real thing: the notebook is opened in JupyterLab and run cell by cell, and what a cell shows is
photographed before the next one runs, as its reader meets it.
"""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image
from playwright.sync_api import Locator

from kit.lab import IS_STILL, STILL, WIDGET_VIEW
from tests.browser.lab import LabError, NotebookPage, browse, open_notebook, serve

LARGEST = 60_000  # bytes of one picture
COLOURS, SCALES = (256, 128, 64), (1.0, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1)
# What is photographed, in a window of how many pixels: higher than a screen, so that no explorer is cut off at its
# foot, and wide enough for tables that a reader scrolls sideways.
PHOTOGRAPHED = {".kit-explorer": (1280, 1600), ".kit-table table": (1920, 1600)}
CELL_SECONDS = 480
CALM = ".jp-cell-toolbar { display: none !important; }"
# Curves that grow in the background belong in the picture.
COMPLETE = f"""
import gc
from kit.explorers.base import Explorer
for explorer in [each for each in gc.get_objects() if issubclass(type(each), Explorer)]:
    explorer.wait_curves({CELL_SECONDS})
"""


def compact(picture: bytes, largest: int = LARGEST) -> bytes:
    """Return a picture as a PNG with a palette, without metadata, of at most `largest` bytes.

    Colours are given up first, then pixels.

    Raises:
        ValueError: if a tenth of its width and height is still too large.
    """
    whole = Image.open(BytesIO(picture)).convert("RGB")
    for scale in SCALES:
        size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
        scaled = whole if scale == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        for colours in COLOURS:
            packed = BytesIO()
            scaled.quantize(colours, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
            if packed.tell() <= largest:
                return packed.getvalue()
    raise ValueError(f"A picture of {whole.width} x {whole.height} pixels does not fit into {largest} bytes.")


def views(cell: Any) -> list[Any]:
    """Return the outputs of an executed cell that show a widget."""
    return [output for output in cell.get("outputs", []) if WIDGET_VIEW in output.get("data", {})]


def photograph(page: NotebookPage, view: Locator) -> bytes | None:
    """Return a PNG of the explorer or table in an output once it is complete; None of any other widget.

    Neither the mouse nor the keyboard leaves a trace in it.
    """
    for selector, (width, height) in PHOTOGRAPHED.items():
        element = view.locator(selector).first
        if not element.count():
            continue
        if page.explorers():
            page.execute(f"exec({COMPLETE!r}, {{}})")  # in a namespace of its own
        page.page.set_viewport_size({"width": width, "height": height})
        page.page.mouse.move(0, 0)
        page.page.evaluate("() => document.activeElement?.blur()")
        page.wait_drawn()
        page.wait_still(element, timeout=CELL_SECONDS)
        return element.screenshot(animations="disabled")
    return None


def take(notebook: nbformat.NotebookNode, path: Path, text: str) -> list[bytes]:
    """Add a picture to each output of an executed notebook that shows an explorer or a table; return the pictures.

    Args:
        notebook: as executed, with its widget views.
        path: of its file; the notebook runs again on a copy of that folder, with a board of its own.
        text: its stored form.

    Raises:
        LabError: if there is no Chromium, or the notebook shows problems in JupyterLab.
    """
    pictures: list[bytes] = []
    showing = [index for index, cell in enumerate(notebook.cells) if views(cell)]
    if not showing:
        return pictures
    with browse() as browser, serve(path.parent) as server:
        (server.root / path.name).write_text(text, encoding="utf-8")
        with open_notebook(browser, server, path.name) as page:
            page.page.add_style_tag(content=CALM)
            for index in range(showing[-1] + 1):
                cell = notebook.cells[index]
                if cell.cell_type != "code":
                    continue
                page.run_cell(index, CELL_SECONDS)
                if problems := page.problems():
                    raise LabError(f"{path.name}, cell {index} in JupyterLab: {'; '.join(problems)}")
                for output, view in zip(views(cell), page.widgets(index, len(views(cell))), strict=True):
                    if taken := photograph(page, view):
                        pictures.append(compact(taken))
                        output["data"][STILL] = base64.b64encode(pictures[-1]).decode()
                        output["metadata"] = {**output.get("metadata", {}), **IS_STILL}
    return pictures
