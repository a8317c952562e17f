"""The pictures of explorers and tables that are stored in notebooks, taken in a real JupyterLab."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.chromium import require_chromium
from tests.browser.conftest import Open, Write
from tests.browser.scratch import write_notebook
from tests.notebooks import refresh, stills

SHOW = """
from kit import data, models
from kit.explorers import PruningExplorer
digits = data.digits()
explorer = PruningExplorer(models.ConvNet(seed=0), digits, ratio=0.5)
explorer
"""
DRIVE = "explorer.what.value = 'channels'\nexplorer.wait()"
BOARD = "from kit import data\nfrom kit.explorers import BoardExplorer\nBoardExplorer(data.digits())"
SLIDER = "import ipywidgets\nipywidgets.IntSlider()"
TABLE = """
import pandas as pd
from kit.explorers import table
table(pd.DataFrame([["four words of text"] * 8] * 3, columns=list("abcdefgh")), "wider than its cell")
"""


def opened_picture(data: bytes) -> Image.Image:
    assert len(data) <= stills.LARGEST
    image = Image.open(BytesIO(data))
    assert image.mode == "P" and not image.info
    return image.convert("RGB")


def tabs(image: Image.Image) -> list[float]:
    """How bright the buttons "weights" and "channels" are, beside their words; the chosen one is darker."""
    return [float(np.asarray(image.crop((left, 30, left + 12, 44))).mean()) for left in (8, 116)]


def test_each_picture_shows_its_explorer_as_its_cell_left_it(tmp_path: Path) -> None:
    require_chromium()
    cells = ("1 + 1", SHOW, DRIVE, SLIDER, "explorer")
    path = write_notebook(tmp_path / "00_scratch.ipynb", cells)
    with ThreadPoolExecutor(1) as own_thread:  # in this one Playwright's loop runs once another test has a browser open
        assert own_thread.submit(refresh.refresh, path).result()
    number, first, none, slider, again = (cell.outputs for cell in refresh.read(path).cells)
    assert not none
    assert all("image/png" not in output.data for output in (*number, *slider))
    before, after = (opened_picture(base64.b64decode(output.data["image/png"])) for output in (*first, *again))
    assert before.width > 700 and before.height > 500, "controls beside and details under the main figure"
    weights, channels = tabs(before)
    assert weights < channels - 20
    weights, channels = tabs(after)
    assert channels < weights - 20
    for box in ((0, 0, 240, 400), (250, 0, before.width, 400), (0, 500, before.width, before.height)):
        assert len(before.crop(box).getcolors(100_000) or []) > 10, f"nothing is drawn in {box}"


def test_a_picture_has_the_size_of_what_it_shows(opened: Open, scratch: Write) -> None:
    with opened(scratch(BOARD, SLIDER, TABLE)) as page:
        for index in range(3):
            page.run_cell(index)
        board, slider, table = (page.widgets(index, 1)[0] for index in range(3))
        assert page.problems() == []
        assert stills.photograph(page, slider) is None
        for view, selector in ((board, ".kit-explorer"), (table, ".kit-table table")):
            image = Image.open(BytesIO(stills.photograph(page, view) or b""))
            box = view.locator(selector).bounding_box()
            assert box is not None
            assert image.size == pytest.approx((box["width"], box["height"]), abs=2), "whole pixels, outwards"
        right = np.asarray(image.convert("L"))[:, -170:-10]  # the last of eight columns, which a reader scrolls to
        assert all((rows < 128).any() for rows in np.array_split(right[40:], 3))
