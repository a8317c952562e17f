"""A JupyterLab and a Chromium for all browser tests; without a Chromium they are skipped, or fail in CI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator

from tests.browser.chromium import require_chromium
from tests.browser.lab import NOTEBOOKS, NotebookPage, Server, browse, open_notebook, serve
from tests.browser.scratch import write_notebook
from tests.notebooks.kernels import kernel_environment

Open = Callable[[str], AbstractContextManager[NotebookPage]]
Write = Callable[..., str]
Show = Callable[..., tuple[NotebookPage, Locator]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    with browse(require_chromium()) as started:
        yield started


def _server(theme: str, folder: Path) -> AbstractContextManager[Server]:
    return serve(NOTEBOOKS, theme="dark" if theme == "dark" else "light", env=kernel_environment(folder))


@pytest.fixture(scope="session")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab in its light theme, its kernels without network."""
    with _server("light", tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="session")
def dark_lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab in its dark theme."""
    with _server("dark", tmp_path_factory.mktemp("dark-lab")) as server:
        yield server


@pytest.fixture
def opened(browser: Browser, lab: Server) -> Open:
    """Opens a notebook of the light JupyterLab by its name."""
    return lambda name: open_notebook(browser, lab, name)


@pytest.fixture
def scratch(lab: Server, request: pytest.FixtureRequest) -> Iterator[Write]:
    """Writes a notebook of the given cells into the light JupyterLab; returns its name."""
    path = lab.root / f"scratch-{request.node.name.partition('[')[0]}.ipynb"

    def write(*cells: str) -> str:
        return write_notebook(path, cells).name

    yield write
    path.unlink(missing_ok=True)


@pytest.fixture
def show(opened: Open, scratch: Write) -> Iterator[Show]:
    """Runs cells in a notebook of their own; gives its page and its first explorer, once that is still."""
    with ExitStack() as pages:

        def run(*cells: str) -> tuple[NotebookPage, Locator]:
            notebook = pages.enter_context(opened(scratch(*cells)))
            notebook.run_all()
            explorer = notebook.explorers()[0]
            explorer.locator(".kit-figure-0 .main-svg").first.wait_for(state="attached")
            notebook.wait_still(explorer)
            return notebook, explorer

        yield run
