"""The kernel in which the project runs its notebooks: no network, no trace of the user, no trace on the user."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
GUARD = ROOT / "tests" / "offline"


def record_of(scratch: Path) -> Path:
    """Return the file in which the guard writes what was tried on the network."""
    return scratch / "network-attempts.txt"


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Return the variables that a kernel gets on top of this process's own.

    Args:
        scratch: an empty folder for this one run; the board and the record of network attempts go there.
    """
    path = [str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "KIT_OFFLINE_RECORD": str(record_of(scratch)),
        "KIT_BOARD": str(scratch / "board.sqlite"),
        "IPYTHONDIR": str(scratch / "ipython"),
    }


def network_attempts(scratch: Path) -> list[str]:
    """Return what was tried on the network, one line an attempt.

    Raises:
        RuntimeError: if the guard was never in place: then an empty list would prove nothing.
    """
    record = record_of(scratch)
    if not record.exists():
        raise RuntimeError("The kernel ran without the network guard (tests/offline/sitecustomize.py was not loaded).")
    return record.read_text(encoding="utf-8").splitlines()
