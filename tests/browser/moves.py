"""Moving the controls of the explorers on a page, and saying which ones do not answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Locator

from tests.browser.lab import PATIENCE, NotebookPage


def wait_until(notebook: NotebookPage, true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Look again and again; fails with `what` after some seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        notebook.page.wait_for_timeout(20)


def dead_explorers(notebook: NotebookPage, patience: float = 60) -> list[str]:
    """Explorers whose picture stays the same when their first slider moves by one key press.

    Explorers that have no slider are passed over.

    Args:
        notebook: a page that has run; each explorer is given time to finish its sweep first, so that a curve that
            still grows does not pass for an answer.
        patience: seconds until an explorer counts as dead.
    """
    dead = []
    for number, explorer in enumerate(notebook.explorers()):
        explorer.scroll_into_view_if_needed()
        names = notebook.sliders(explorer)
        if names and not answers(notebook, explorer, names[0], patience):
            dead.append(f"explorer {number}: moving {names[0]!r} changes no picture.")
    return dead


def answers(notebook: NotebookPage, explorer: Locator, slider: str, patience: float) -> bool:
    """Whether one key press on a slider changes what is drawn in its explorer."""
    before = notebook.wait_still(explorer)
    value = notebook.value(slider, explorer)
    notebook.press(slider, "ArrowRight", explorer)
    if notebook.value(slider, explorer) == value:  # it stood at its right end
        notebook.press(slider, "ArrowLeft", explorer)
    return notebook.wait_change(before, explorer, patience)
