"""What the tests of the explorers do as a reader would: move controls, wait, read the status line."""

from __future__ import annotations

import contextlib
import html
import re
from typing import Any

from kit.explorers.base import Explorer

PATIENCE = 60.0  # seconds until a test gives up; none needs a tenth of it


def settle(explorer: Explorer, **controls: Any) -> None:
    """Move controls one after the other as a hand would, then wait."""
    for name, value in controls.items():
        getattr(explorer, name).value = value
    explorer.wait(PATIENCE)


def words(explorer: Explorer) -> str:
    """The status line as a reader sees it."""
    return html.unescape(re.sub(r"<[^>]+>", "", explorer.status.value))


def is_error(explorer: Explorer) -> bool:
    return "kit-error" in explorer.status.value


def recover(explorer: Explorer) -> None:
    """Bring an explorer back to its beginning, whatever the test before left behind."""
    explorer.stop()
    with contextlib.suppress(Exception):
        explorer.wait(PATIENCE)
    explorer.reset()
    with contextlib.suppress(Exception):  # a board that the test before spoilt
        explorer.wait(PATIENCE)
