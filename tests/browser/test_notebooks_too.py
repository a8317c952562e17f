"""The other notebooks in a real JupyterLab, in a process of their own."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Open
from tests.browser.test_notebooks import NAMES
from tests.browser.test_notebooks import test_notebook_runs_and_its_explorers_answer as runs_and_answers


@pytest.mark.parametrize("name", NAMES[1::2])
def test_notebook_runs_and_its_explorers_answer(opened: Open, name: str) -> None:
    runs_and_answers(opened, name)
