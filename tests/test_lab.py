"""JupyterLab, however it is started: on this machine only, with its token, without a call home; and what it keeps."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from kit import lab as kit_lab
from kit.lab import copies
from kit.lab.__main__ import command
from tests.notebooks.kernels import ROOT, kernel_environment, network_attempts

QUIET = "--no-browser --allow-root --port 0"
# How it is started, and the page that opens. -o: do not look whether .venv is up to date.
STARTS = {
    "make lab": (
        ["make", "-o", ".venv/.installed", "lab", f"LAB_ARGS={QUIET}"],
        "/lab/tree/my_notebooks/00_start_here.ipynb",
    ),
    "make play": (["make", "-o", ".venv/.installed", "play", f"LAB_ARGS={QUIET}"], "/voila/render/kit/lab/play.ipynb"),
    "jupyter lab": ([".venv/bin/jupyter", "lab", *QUIET.split()], "/lab"),
}
START_SECONDS = 240


class Lab:
    """A running JupyterLab, with the address and the token that it printed."""

    def __init__(self, printed_url: str, page: str, scratch: Path, log: Path) -> None:
        self.printed_url, self.page = printed_url, page
        self.base, _, self.token = printed_url.replace(page, "", 1).partition("?token=")
        self.scratch, self.log = scratch, log

    def get(self, path: str, *, token: bool = True) -> str:
        """Return the body of a page."""
        headers = {"Authorization": f"token {self.token}"} if token else {}
        with urllib.request.urlopen(urllib.request.Request(self.base + path, headers=headers), timeout=120) as answer:
            return str(answer.read().decode())


def listens(url: str) -> bool:
    """Whether anything answers there; on a busy machine the address is printed a moment before."""
    where = urllib.parse.urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((where.hostname or "", where.port or 0), timeout=10):
        return True
    return False


class NoLogin(urllib.request.HTTPRedirectHandler):
    """A page that sends to the login is refused."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


@pytest.fixture(scope="module", params=list(STARTS))
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start it as a reader would, with the network guard inside the server."""
    if shutil.which("make") is None or not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("no make, or no .venv")
    scratch = tmp_path_factory.mktemp("lab")
    log = scratch / "log.txt"
    environment = {**os.environ, **kernel_environment(scratch), "JUPYTER_CONFIG_DIR": str(scratch / "config")}
    command, page = STARTS[request.param]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + START_SECONDS
        while not ((found := re.search(r"http://localhost:\d+/\S+", log.read_text())) and listens(found.group())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield Lab(found.group(), page, scratch, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)


def test_opens_its_page_with_a_token_and_refuses_without(lab: Lab) -> None:
    assert urllib.parse.urlsplit(lab.printed_url).path == lab.page
    assert len(lab.token) >= 32
    for path in ("/api/contents", lab.page):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.build_opener(NoLogin).open(lab.base + path, timeout=120)
        assert refusal.value.code in (302, 403), path
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


def test_looks_for_no_news_and_no_updates_and_asks_about_neither(lab: Lab) -> None:
    (found,) = re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', lab.get("/lab"), re.DOTALL)
    settings = json.loads(found)
    assert settings["news"] == {"disabled": True}
    assert settings["extensionManager"]["can_install"] is False
    notification = json.loads(lab.get("/lab/api/settings/@jupyterlab/apputils-extension:notification"))
    asks = {name: notification["schema"]["properties"][name]["default"] for name in ("fetchNews", "checkForUpdates")}
    assert asks == {"fetchNews": "false", "checkForUpdates": False}, "it would ask about news"
    for path in ("/lab/api/extensions?refresh=1", "/lab/api/settings", "/api/kernelspecs"):
        lab.get(path)
    assert network_attempts(lab.scratch) == []


def test_what_the_kit_adds_is_there_and_nothing_complains(lab: Lab) -> None:
    (found,) = re.findall(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', lab.get("/lab"), re.DOTALL)
    assert "model-optimisation-kit" in {each["name"] for each in json.loads(found)["federated_extensions"]}
    said = lab.log.read_text()
    assert "kit.lab | extension was successfully loaded" in said
    assert not re.findall(r".*(?:pre_save_hook|Traceback|Error loading).*", said)


def test_arguments_for_jupyterlab_come_last_so_that_they_win() -> None:
    assert command(False, ["--port", "8899"])[-2:] == ["--port", "8899"]
    assert "--ServerApp.ip=localhost" in command(True, [])
    assert any("my_notebooks" in each for each in command(False, []))
    assert any("voila" in each for each in command(True, []))


# -- copies of the notebooks ------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))  # where Jupyter remembers what is trusted
    (tmp_path / "notebooks").mkdir()
    for name in ("00_a", "01_b"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", f"print({name!r})")
    return tmp_path / "notebooks", tmp_path / "mine"


def write(path: Path, source: str) -> str:
    nbformat.write(new_notebook(cells=[new_code_cell(source, id="first")]), path)
    return path.read_text()


def test_what_is_missing_is_copied_and_trusted(folders: tuple[Path, Path]) -> None:
    originals, mine = folders
    assert copies.bring(originals, mine) == []
    for name in ("00_a.ipynb", "01_b.ipynb"):
        assert (mine / name).read_bytes() == (originals / name).read_bytes()
        assert nbformat.sign.NotebookNotary().check_signature(nbformat.read(mine / name, as_version=4))
    (mine / "00_a.ipynb").unlink()
    (originals / "glossary.md").write_text("words")
    assert copies.bring(originals, mine) == []
    assert (mine / "00_a.ipynb").exists()
    assert (mine / "glossary.md").read_text() == "words", "what the notebooks link to comes along"


def test_what_the_reader_changed_is_left_alone(folders: tuple[Path, Path]) -> None:
    originals, mine = folders
    copies.bring(originals, mine)
    own = write(mine / "00_a.ipynb", "mine")
    assert copies.bring(originals, mine) == [], "the original is as it was: nothing to say"
    new = [write(originals / name, "new") for name in ("00_a.ipynb", "01_b.ipynb")]
    (said,) = copies.bring(originals, mine)
    assert said.startswith("Newer than your copy in mine: 00_a.ipynb. To take the new, and keep yours in mine/before:")
    assert (mine / "00_a.ipynb").read_text() == own
    assert (mine / "01_b.ipynb").read_text() == new[1], "never changed by the reader: brought up to date"
    assert copies.bring(originals, mine) == [said], "until it is done"


def test_refresh_begins_again_and_keeps_the_reader_s(folders: tuple[Path, Path]) -> None:
    originals, mine = folders
    copies.bring(originals, mine)
    for aside in ("00_a.ipynb", "00_a-2.ipynb", "00_a-3.ipynb"):
        own = write(mine / "00_a.ipynb", aside)
        (said,) = copies.bring(originals, mine, refresh=True)
        assert said == f"Fresh: 00_a.ipynb. Yours is kept in mine/before/{aside}."
        assert (mine / "before" / aside).read_text() == own
        assert (mine / "00_a.ipynb").read_bytes() == (originals / "00_a.ipynb").read_bytes()
    assert copies.bring(originals, mine, refresh=True) == []
    assert sorted(path.name for path in mine.glob("*.ipynb")) == ["00_a.ipynb", "01_b.ipynb"]


@pytest.mark.parametrize("broken", ["", "[]", "{"])
def test_without_a_record_every_other_copy_counts_as_the_reader_s(folders: tuple[Path, Path], broken: str) -> None:
    originals, mine = folders
    copies.bring(originals, mine)
    (mine / copies.RECORD).write_text(broken)
    new = write(originals / "00_a.ipynb", "new")
    (said,) = copies.bring(originals, mine)
    assert "00_a.ipynb" in said and "01_b.ipynb" not in said
    assert (mine / "00_a.ipynb").read_text() != new


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebooks in .*: install the kit from its own folder"):
        copies.bring(tmp_path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


# -- saving -----------------------------------------------------------------------------------------------------------


def cell(identity: str, *outputs: Any) -> Any:
    return new_code_cell("explorer", id=identity, outputs=list(outputs))


def shown(title: str, **data: str) -> Any:
    kinds = {"png": "image/png", "view": kit_lab.WIDGET_VIEW}
    return new_output("display_data", data={"text/plain": title} | {kinds[kind]: value for kind, value in data.items()})


Save = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves cells over a stored notebook as Jupyter does; returns what is stored of each output."""
    stored = [cell("a", shown("Pruning", png="old picture")), cell("b", shown("Board", png="other"), shown("x"))]
    nbformat.write(new_notebook(cells=stored), tmp_path / "x.ipynb")

    def run(*cells: Any, name: str = "x.ipynb") -> list[dict[str, Any]]:
        content = new_notebook(cells=list(cells), metadata={"widgets": {"state": {}}})
        model = {"type": "notebook", "content": content}
        kit_lab.keep_stills(model=model, path=name, contents_manager=SimpleNamespace(root_dir=str(tmp_path)))
        assert content["metadata"] == {}, "the state of widgets is not saved"
        return [output["data"] for each in content["cells"] for output in each["outputs"]]

    return run


def test_a_widget_shown_anew_keeps_its_still_picture(save: Save) -> None:
    (output,) = save(cell("a", shown("Pruning", view="model 7")))
    assert output == {"text/plain": "Pruning", kit_lab.WIDGET_VIEW: "model 7", "image/png": "old picture"}


def test_a_picture_goes_to_no_other_cell_and_no_other_widget(save: Save) -> None:
    assert all("image/png" not in output for output in save(cell("c", shown("Pruning", view="1"))))
    assert all("image/png" not in output for output in save(cell("a", shown("Board", view="1"), shown("Pruning"))))
    assert save(cell("a", shown("Pruning", png="its own", view="1")))[0]["image/png"] == "its own"


@pytest.mark.parametrize("name", ["new.ipynb", "broken.ipynb"])
def test_saving_over_nothing_or_over_what_is_no_notebook_works(save: Save, tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.ipynb").write_text("{")
    (output,) = save(cell("a", shown("Pruning", view="1")), name=name)
    assert set(output) == {"text/plain", kit_lab.WIDGET_VIEW}


def test_files_that_are_no_notebooks_are_left_alone() -> None:
    for model in ({"type": "file", "content": "text"}, {"type": "notebook", "content": None}):
        before = dict(model)
        kit_lab.keep_stills(model=model, path="x", contents_manager=None)
        assert model == before


def test_a_slider_s_answer_is_sent_at_once() -> None:
    class Usual:
        websocket_handler = SimpleNamespace(set_nodelay=lambda on: said.append(on))

        def connect(self) -> str:
            return "connected"

    said: list[bool] = []
    assert kit_lab.prompt(Usual)().connect() == "connected"
    assert said == [True]
