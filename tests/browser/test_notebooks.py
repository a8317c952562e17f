"""Every notebook in a real JupyterLab: it runs, shows every widget, asks no other host, and its explorers answer.

Every second one is run by `test_notebooks_too.py`: a file goes to one process, and these are the longest of all.
"""

from __future__ import annotations

import pytest

from tests.browser.conftest import Open
from tests.browser.lab import NOTEBOOKS
from tests.browser.moves import dead_explorers

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES[::2])
def test_notebook_runs_and_its_explorers_answer(opened: Open, name: str) -> None:
    with opened(name) as notebook:
        notebook.run_all()
        assert notebook.problems() == []
        assert notebook.explorers(), "no explorer is on the page"
        assert notebook.screens_above_the_first_slider() < 2, "play comes before theory"
        assert notebook.overflow() == [], "too wide at 1280 pixels"
        assert dead_explorers(notebook) == []
        assert notebook.problems() == [], "after the controls were moved"
