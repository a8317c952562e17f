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
    "No Chromium found, so no browser test can run: install one (Debian, Ubuntu: 'sudo apt-get install chromium'; "
    "elsewhere Chromium or Chrome), or set KIT_CHROMIUM to its path."
)


def find_chromium() -> Path | None:
    """Return the Chromium that the browser tests drive, or None.

    ``KIT_CHROMIUM`` comes first, then the usual names on ``PATH``, then the usual places on macOS and Windows.

    Raises:
        FileNotFoundError: if ``KIT_CHROMIUM`` names a file that does not exist.
    """
    wanted = os.environ.get("KIT_CHROMIUM")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise FileNotFoundError(f"KIT_CHROMIUM is {wanted!r}, which is not a program: give the path of a Chromium.")
        return Path(found)
    for name in PATH_NAMES:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return next((Path(place) for place in USUAL_PLACES if Path(place).is_file()), None)


def in_ci() -> bool:
    """Say whether this run is one that must not skip anything."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def require_chromium() -> Path:
    """Return the Chromium; without one, fail the test in CI and skip it elsewhere."""
    found = find_chromium()
    if found is not None:
        return found
    if in_ci():
        pytest.fail(HOW_TO_GET, pytrace=False)
    pytest.skip(HOW_TO_GET)


def main() -> int:
    """Say in one line how to get a Chromium when there is none; the exit code is 1 only in CI."""
    try:
        missing = HOW_TO_GET if find_chromium() is None else None
    except FileNotFoundError as error:
        missing = str(error)
    if missing is None:
        return 0
    sys.stderr.write(missing + "\n")
    return 1 if in_ci() else 0


if __name__ == "__main__":
    sys.exit(main())
