"""Where the browser tests find a Chromium, and what they say when there is none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

PATH_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
USUAL_PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)
HOW_TO_GET = (
    "No Chromium found, which the browser tests and the pictures in notebooks need: install one (Debian, Ubuntu: "
    "'sudo apt-get install chromium'; elsewhere Chromium or Chrome), or set KIT_CHROMIUM to its path."
)


def find_chromium() -> Path | None:
    """The Chromium that the browser tests drive: `KIT_CHROMIUM`, then usual names on `PATH`, then usual places.

    Raises:
        FileNotFoundError: `KIT_CHROMIUM` names a file that does not exist.
    """
    wanted = os.environ.get("KIT_CHROMIUM")
    found = next(filter(None, map(shutil.which, [wanted] if wanted else PATH_NAMES)), None)
    if wanted and not found:
        raise FileNotFoundError(f"KIT_CHROMIUM is {wanted!r}, which is not a program: give the path of a Chromium.")
    return next((Path(place) for place in (found, *USUAL_PLACES) if place and Path(place).is_file()), None)


def in_ci() -> bool:
    """Whether this run is one that must not skip anything."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def require_chromium() -> Path:
    """The Chromium; without one, the test fails in CI and is skipped elsewhere."""
    if found := find_chromium():
        return found
    if in_ci():
        pytest.fail(HOW_TO_GET, pytrace=False)
    pytest.skip(HOW_TO_GET)


def missing_chromium() -> str | None:
    """How to get a Chromium, in one sentence; None when there is one."""
    try:
        return HOW_TO_GET if find_chromium() is None else None
    except FileNotFoundError as error:
        return str(error)


def main() -> int:
    """Say how to get a Chromium when there is none; the exit code is 1 only in CI."""
    missing = missing_chromium()
    sys.stderr.write(f"{missing}\n" if missing else "")
    return 1 if missing and in_ci() else 0


if __name__ == "__main__":
    sys.exit(main())
