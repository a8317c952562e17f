"""Seconds that each notebook takes from top to bottom, headless, start of the kernel included."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target
from tests.notebooks.kernels import NOTEBOOKS, kernel_environment

LIMIT_SECONDS = 60.0


def benchmark(say: Say) -> Iterator[Row]:
    """One run each: a minute's work hardly varies, and a second run would find the disk warm."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        raise UnavailableError(f"there is no notebook in {NOTEBOOKS.name}/.")
    failed = []
    for path in paths:
        try:
            seconds = _seconds(path)
        except CellExecutionError as error:
            say(f"{path.name} failed: {error.ename}: {error.evalue}")
            failed.append(path.name)
            continue
        say(f"{path.name} {seconds:.1f} s")
        what = f"{path.name}, headless (limit {LIMIT_SECONDS:.0f} s)"
        yield Row.of(f"notebooks.{path.stem}", what, seconds, LIMIT_SECONDS, "s", Target("at most", 1))
    if failed:
        raise UnavailableError(f"a cell failed in {', '.join(failed)}.")


def _seconds(path: Path) -> float:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as scratch:
        with mock.patch.dict(os.environ, kernel_environment(Path(scratch))):
            client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}})
            began = time.perf_counter()
            client.execute()
        return time.perf_counter() - began
