"""`make lab` starts JupyterLab on this machine only, with its token, and never phones home."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.notebooks.kernels import ROOT, kernel_environment, network_attempts

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not (ROOT / ".venv" / "bin" / "python").exists(), reason="no make, or no .venv"
)

FIRST_NOTEBOOK = "/lab/tree/notebooks/00_start_here.ipynb"
START_SECONDS = 240


class Lab:
    """A running `make lab`, with the address and the token that it printed."""

    def __init__(self, printed_url: str, scratch: Path) -> None:
        self.printed_url = printed_url
        self.base, _, self.token = re.sub(r"/lab/tree/[^?]*", "", printed_url).partition("?token=")
        self.scratch = scratch

    def get(self, path: str, *, token: bool = True) -> str:
        """Return the body of a page."""
        headers = {"Authorization": f"token {self.token}"} if token else {}
        with urllib.request.urlopen(urllib.request.Request(self.base + path, headers=headers), timeout=120) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start `make lab` as a reader would, with the network guard inside the server."""
    scratch = tmp_path_factory.mktemp("lab")
    log = scratch / "log.txt"
    environment = {**os.environ, **kernel_environment(scratch), "JUPYTER_CONFIG_DIR": str(scratch / "config")}
    # -o: do not look whether .venv is up to date.
    command = ["make", "-o", ".venv/.installed", "lab", "LAB_ARGS=--no-browser --allow-root --port 0"]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(r"http://localhost:\d+/\S+", log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield Lab(found.group(), scratch)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)


def test_opens_the_first_notebook_with_a_token_and_refuses_without(lab: Lab) -> None:
    assert FIRST_NOTEBOOK in lab.printed_url
    assert len(lab.token) >= 32
    with pytest.raises(urllib.error.HTTPError) as refusal:
        lab.get("/api/contents", token=False)
    assert refusal.value.code == 403
    names = {entry["name"] for entry in json.loads(lab.get("/api/contents"))["content"]}
    assert {"notebooks", "kit"} <= names


def test_listens_on_this_machine_only(lab: Lab) -> None:
    import psutil

    port, addresses = int(lab.base.rsplit(":", 1)[1]), set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # of another user
            connections = process.net_connections(kind="tcp")
            open_ports = [at.laddr for at in connections if at.status == psutil.CONN_LISTEN]
            addresses |= {at.ip for at in open_ports if at.port == port}
    assert addresses and addresses <= {"127.0.0.1", "::1"}


def test_looks_for_no_news_and_no_updates(lab: Lab) -> None:
    (found,) = re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', lab.get("/lab"), re.DOTALL)
    settings = json.loads(found)
    assert settings["news"] == {"disabled": True}
    assert settings["extensionManager"]["can_install"] is False
    for path in ("/lab/api/extensions?refresh=1", "/lab/api/settings", "/api/kernelspecs"):
        lab.get(path)
    assert network_attempts(lab.scratch) == []


def test_a_saved_notebook_keeps_no_dead_widgets() -> None:
    config = SimpleNamespace(**{name: SimpleNamespace() for name in ("LabApp", "ServerApp", "FileContentsManager")})
    path = ROOT / ".jupyter" / "jupyter_lab_config.py"
    exec(path.read_text(), {"get_config": lambda: config, "__file__": str(path)})
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "PruningExplorer"}
    printed = {"name": "stdout", "text": "x"}
    cells: list[Any] = [{"outputs": [{"data": dict(view)}, printed]}, {"source": "# title"}]
    model = {"type": "notebook", "content": {"cells": cells, "metadata": {"widgets": {}}}}
    config.FileContentsManager.pre_save_hook(model=model, path="x.ipynb", contents_manager=None)
    assert cells[0]["outputs"] == [{"data": {"text/plain": "PruningExplorer"}}, printed]
    assert model["content"] == {"cells": cells, "metadata": {}}
