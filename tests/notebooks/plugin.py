"""Pytest plugin: notebooks under strict nbval, in a kernel that has no network.

Use it as ``python -m pytest -p tests.notebooks.plugin --nbval --nbval-current-env notebooks`` (``make test`` does).
Each notebook gets an empty board of its own. It fails when it tried to reach the network, even if it hid the error.
Cells with the tag "big" run everywhere; where the extra `big` is not installed, what they print is not compared.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from kit import pretrained
from tests.notebooks.kernels import kernel_environment, network_attempts


class OfflineNotebook(IPyNbFile):
    """nbval's notebook, with the kernel's surroundings fixed."""

    scratch: tempfile.TemporaryDirectory[str] | None = None

    def collect(self) -> Iterator[IPyNbCell]:
        """The cells; of those that need an extra which is not here, without their outputs."""
        for cell in super().collect():
            if "big" in cell.cell.metadata.get("tags", ()) and not pretrained.here():
                cell.options["check"] = False
            yield cell

    def setup(self) -> None:
        """Start the kernel."""
        self.scratch = tempfile.TemporaryDirectory(prefix="kit-notebook-", ignore_cleanup_errors=True)
        with mock.patch.dict(os.environ, kernel_environment(Path(self.scratch.name))):
            super().setup()

    def teardown(self) -> None:
        """Stop the kernel, then look at what the guard wrote down."""
        super().teardown()
        scratch, self.scratch = self.scratch, None
        if scratch is None:
            return
        with scratch:
            attempts = network_attempts(Path(scratch.name))
        if attempts:
            lines = "\n  ".join(attempts)
            pytest.fail(f"{self.path.name} tried to reach the network:\n  {lines}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Generator[None, Any, Any]:
    """Put our notebook in the place of each one that nbval collects."""
    found = yield
    ours = OfflineNotebook.from_parent
    return [ours(parent, path=file_path) if isinstance(node, IPyNbFile) else node for node in found]
