"""A real JupyterLab server and a real Chromium, for the browser tests, the benchmarks and the screenshots.

`serve` starts the server on a copy of the notebooks, so that no stored notebook is ever rewritten, and with
settings, workspaces and kernel history of its own, so that the user's are never touched. `browse` starts Chromium
with every name but localhost unresolvable. `NotebookPage` opens a notebook, runs it, moves its controls by keyboard
and mouse, and reports what went wrong.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, sync_playwright

from tests.browser.chromium import HOW_TO_GET, find_chromium
from tests.notebooks.kernels import NOTEBOOKS, ROOT

JUPYTER = ROOT / ".jupyter"  # what is installed with the package
INSTRUMENT = Path(__file__).with_name("instrument.js")

# anywidget's own limit of two seconds, where a busy machine brings many figures at once; `heed.js` makes up for it.
SLOW = "[anywidget] Failed to initialize model."

PATIENCE = 300.0  # seconds: against hangs, not against a machine that is busy

Theme = Literal["light", "dark"]
App = Literal["lab", "notebook"]
THEMES: dict[str, str] = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
# These never leave the browser.
LOCAL_SCHEMES = frozenset({"about", "blob", "chrome", "chrome-error", "data", "devtools"})

CHROMIUM_ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Whatever asks for another host gets "not found" at once: the request is recorded, nothing leaves the machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


class LabError(RuntimeError):
    """The server or the page did not do what was asked in time."""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: `root` is the folder it shows (a temporary copy)."""

    url: str
    token: str
    root: Path
    log: Path
    app: App = "lab"

    def api(self, path: str, method: str = "GET") -> Any:
        """Call the server's REST interface; the decoded answer, or None where it is empty."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def close_kernels(self) -> None:
        """End every kernel, so that one notebook's memory does not weigh on the next."""
        for kind in ("sessions", "kernels"):
            for each in self.api(f"api/{kind}"):
                self.api(f"api/{kind}/{each['id']}", method="DELETE")

    def address(self, notebook: str) -> str:
        """The page that shows one notebook and nothing else from earlier (a reset workspace)."""
        if self.app == "notebook":
            return f"{self.url}notebooks/{quote(notebook)}?token={self.token}"
        workspace = "auto-" + re.sub(r"\W", "-", notebook)
        return f"{self.url}lab/workspaces/{workspace}/tree/{quote(notebook)}?reset&token={self.token}"


def _write_settings(folder: Path, theme: Theme) -> None:
    """User settings of this one server: theme, all cells in the page, no news and no update check."""
    wanted: dict[str, dict[str, Any]] = {
        "apputils-extension/themes": {"theme": THEMES[theme], "adaptive-theme": False},
        # Cells out of sight are left out of the page by default; a test must be able to see them.
        "notebook-extension/tracker": {"windowingMode": "none", "kernelShutdown": False},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in wanted.items():
        extension, plugin = name.split("/")
        file = folder / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))


def _environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's variables, but no Jupyter of the user: each folder lies in `home`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    folders = {
        **{f"JUPYTER_{name.upper()}_DIR": name for name in ("config", "data", "runtime")},
        **{f"JUPYTERLAB_{name.upper()}_DIR": name for name in ("settings", "workspaces")},
        **{"IPYTHONDIR": "ipython", "KIT_BOARD": "board.sqlite"},
    }
    ours = {
        "JUPYTER_CONFIG_PATH": str(JUPYTER / "etc"),
        "JUPYTER_PATH": str(JUPYTER / "share"),
        "PYTHONUNBUFFERED": "1",
    }
    return env | {name: str(home / folder) for name, folder in folders.items()} | ours | {**extra}


@contextmanager
def serve(
    notebooks: Path | None = NOTEBOOKS,
    *,
    theme: Theme = "light",
    app: App = "lab",
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start JupyterLab on a temporary copy of a folder, and end it with all of its kernels.

    Args:
        notebooks: Folder to copy; None starts with an empty one.
        theme: "light" or "dark".
        app: "lab", or "notebook" for Notebook 7.
        env: More environment variables for the server and its kernels.

    Raises:
        LabError: When the server ends, or does not answer.
    """
    home = Path(tempfile.mkdtemp(prefix="kit-lab-"))
    root = home / "notebooks"
    if notebooks is not None and notebooks.is_dir():
        shutil.copytree(notebooks, root, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    root.mkdir(exist_ok=True)
    _write_settings(home / "settings", theme)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    token, log = os.urandom(16).hex(), home / "server.log"
    command = [
        *(sys.executable, "-m", {"lab": "jupyterlab"}.get(app, app), "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"),
        *("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"),
    ]
    with log.open("wb") as sink:
        surroundings: dict[str, Any] = {"cwd": root, "env": _environment(home, env or {}), "start_new_session": True}
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, **surroundings)
        server = Server(f"http://127.0.0.1:{port}/", token, root, log, app)
        try:
            _wait_until_up(server, process)
            yield server
        finally:
            _end(server, process)
            shutil.rmtree(home, ignore_errors=True)


def _wait_until_up(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            server.api("api/status")
            return
        except OSError:
            time.sleep(0.1)
    raise LabError(f"JupyterLab did not start; the end of its log:\n{server.log.read_text()[-2000:]}")


def _end(server: Server, process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError, ValueError):  # a server that is gone already has no kernels to end
        server.close_kernels()
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def browse(executable: Path | None = None) -> Iterator[Browser]:
    """Start headless Chromium: the one found on this machine, or the one named.

    Raises:
        LabError: When there is no Chromium.
    """
    executable = executable or find_chromium()
    if executable is None:
        raise LabError(HOW_TO_GET)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), headless=True, args=CHROMIUM_ARGS)
        try:
            yield browser
        finally:
            browser.close()


def is_local(url: str) -> bool:
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in LOCAL_SCHEMES or parts.hostname in LOCAL_HOSTS


@dataclass
class NotebookPage:
    """One notebook open in JupyterLab. Make it with `open_notebook`."""

    page: Page
    server: Server
    name: str
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen before the first byte is asked for."""
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))
        self.page.on("request", lambda request: self._note_address(request.url))
        self.page.on("websocket", lambda ws: self._note_address(ws.url))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console.append(f"{message.text} ({message.location.get('url', '')})")

    def _note_address(self, url: str) -> None:
        if not is_local(url):
            self.foreign.append(url)

    # -- running ------------------------------------------------------------------------------------------------

    def open(self, timeout: float = PATIENCE) -> NotebookPage:
        """Show the notebook and wait until its kernel is ready."""
        self.page.goto(self.server.address(self.name), wait_until="domcontentloaded")
        self._wait_for(
            """() => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                return panel?.context?.isReady && panel.content?.widgets?.length > 0
                    && panel.sessionContext?.session?.kernel?.status === 'idle';
            }""",
            timeout,
            "the notebook to open and its kernel to start",
        )
        self.page.evaluate(INSTRUMENT.read_text())
        return self

    def run_all(self, timeout: float = 900) -> None:
        """Run every cell; return once the kernel is idle and no cell shows `[*]`. Errors are left for `errors`."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        self.wait_idle(timeout)

    def run_cell(self, index: int, timeout: float = PATIENCE) -> None:
        """Run one cell, counted from 0 over cells of all kinds; return once it has ended, well or badly."""
        self.page.evaluate(
            """(index) => {
                const content = window.jupyterapp.shell.currentWidget.content;
                content.deselectAll();
                content.activeCellIndex = index;
                window.__kitRan = false;
                window.jupyterapp.commands.execute('notebook:run-cell').then(() => { window.__kitRan = true; });
            }""",
            index,
        )
        self._wait_for("() => window.__kitRan", timeout, f"cell {index} to end")

    def wait_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until the kernel is idle, no cell is pending, and both stay so for a moment."""
        self._wait_for(
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const idle = panel.sessionContext.session?.kernel?.status === 'idle';
                const pending = [...document.querySelectorAll('.jp-InputPrompt')]
                    .some(prompt => prompt.textContent.includes('*'));
                const now = performance.now();
                if (!idle || pending) { window.__kitIdleSince = null; return false; }
                window.__kitIdleSince ??= now;
                return now - window.__kitIdleSince > 400;
            }""",
            timeout,
            "the kernel to become idle",
        )

    def execute(self, code: str) -> None:
        """Run a line in the notebook's kernel, as a cell would, without a cell; return once it is done."""
        self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const reply = await kernel.requestExecute({code, store_history: false}).done;
                if (reply.content.status !== 'ok') throw new Error(reply.content.evalue);
            }""",
            code,
        )

    def save(self) -> None:
        """Save the notebook; return once that is done."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def restart_kernel(self) -> None:
        """Restart the kernel; return once it is idle again."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        self.wait_idle()

    def _wait_for(self, condition: str, timeout: float, what: str, arg: Any = None) -> None:
        try:
            self.page.wait_for_function(condition, arg=arg, timeout=timeout * 1000, polling=50)
        except Error as error:
            raise LabError(f"{self.name}: waited {timeout:.0f} s for {what}.") from error

    # -- what went wrong ----------------------------------------------------------------------------------------

    def errors(self) -> list[str]:
        """Tracebacks and everything written to stderr, in the order of the cells."""
        kinds = [f'.jp-RenderedText[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr")]
        return self.page.locator(", ".join(kinds)).all_inner_texts()

    def missing_widgets(self) -> list[str]:
        """What JupyterLab prints where a widget could not be shown."""
        text = re.compile(r"Error displaying widget|model not found|Error creating widget|Loading widget\.\.\.")
        signs = ["an error sign"] * self.page.locator(".jupyter-widgets-error-widget").count()
        return self.page.locator(".jp-OutputArea-output", has_text=text).all_inner_texts() + signs

    def problems(self, *known: str) -> list[str]:
        """All that must be empty for a notebook to pass, each with its kind in front; not what holds a `known` text."""
        kinds = ("output", "missing widget", "console", "request to another host")
        found = (self.errors(), self.missing_widgets(), self.console, self.foreign)
        lines = [f"{kind}: {text}" for kind, texts in zip(kinds, found, strict=True) for text in texts]
        return [line for line in lines if not any(text in line for text in (SLOW, *known))]

    # -- explorers and their controls ---------------------------------------------------------------------------

    def widgets(self, index: int, count: int, timeout: float = PATIENCE) -> list[Locator]:
        """The outputs of one cell, counted from 0, that show a widget, top to bottom; waits until there are `count`."""
        outputs = self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-OutputArea-child")
        found = outputs.filter(has=self.page.locator(".jupyter-widgets"))
        try:
            if count:
                found.nth(count - 1).wait_for(state="attached", timeout=timeout * 1000)
        except Error as error:
            raise LabError(f"{self.name}: waited {timeout:.0f} s for {count} widgets of cell {index}.") from error
        return found.all()

    def explorers(self) -> list[Locator]:
        """Every explorer on the page: the boxes of class `kit-explorer`."""
        return self.page.locator(".kit-explorer").all()

    def sliders(self, within: Locator) -> list[str]:
        """Names of the sliders that an explorer shows, top to bottom."""
        slider = self.page.locator('[role="slider"]')
        labels = within.locator(".jupyter-widgets, .widget-inline-hbox").filter(has=slider)
        names = labels.locator(":scope > .widget-label").all_inner_texts()
        return [name for name in names if name.strip()]

    def control(self, label: str, within: Locator | None = None) -> Locator:
        """The control whose visible label, or accessible name, is (or starts with) `label`."""
        scope: Locator | Page = within if within is not None else self.page
        starts = re.compile(rf"^\s*{re.escape(label)}", re.IGNORECASE)
        label_shown = self.page.locator(":scope > .widget-label", has_text=starts)
        labelled = scope.locator(".jupyter-widgets, .widget-inline-hbox").filter(has=label_shown)
        for named in (labelled, scope.get_by_label(starts), scope.get_by_role("button", name=starts)):
            if named.count():
                return named.first
        raise LabError(f"{self.name}: no control is labelled {label!r}.")

    def handle(self, label: str, within: Locator | None = None) -> Locator:
        """The part of a slider that takes the keyboard's focus."""
        control = self.control(label, within)
        return control if control.get_attribute("role") == "slider" else control.locator('[role="slider"]').first

    def press(self, label: str, key: str = "ArrowRight", within: Locator | None = None, times: int = 1) -> None:
        """Move a slider by keyboard: ArrowRight, ArrowLeft, Home, End, PageUp, PageDown."""
        handle = self.handle(label, within)
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def wait_shown(self, probe: dict[str, str], timeout: float = PATIENCE) -> None:
        """Wait until what `probe` watches (see instrument.js) is in the page."""
        self._wait_for("(probe) => window.kitLab.shows(probe)", timeout, f"{probe} to be shown", probe)

    def timed_press(self, probe: dict[str, str], key: str, patience_ms: float) -> dict[str, float] | None:
        """Press a key on the focused control and time the change that `probe` watches (see instrument.js).

        Returns:
            Milliseconds from the key press until the page is `changed`, until that is `painted`, and until it is
            `shown`; None when nothing changes within `patience_ms`.
        """
        self.page.evaluate("([probe, patience]) => window.kitLab.arm(probe, patience)", [probe, patience_ms])
        self.page.keyboard.press(key)
        answer: dict[str, float] | None = self.page.evaluate("() => window.kitLab.pending")
        return answer

    def drag(self, label: str, to: float, within: Locator | None = None, steps: int = 8) -> None:
        """Move a slider by mouse, in several moves, to a place between 0 (left end) and 1 (right end)."""
        handle = self.handle(label, within)
        handle.scroll_into_view_if_needed()
        knob = handle.bounding_box()
        track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-base')][1]").bounding_box()
        if knob is None or track is None:
            raise LabError(f"{self.name}: the slider {label!r} is not visible.")
        middle = knob["y"] + knob["height"] / 2
        self.page.mouse.move(knob["x"] + knob["width"] / 2, middle)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + to * track["width"], middle, steps=steps)
        self.page.mouse.up()

    def value(self, label: str, within: Locator | None = None) -> float:
        """Where a slider stands, in its own units."""
        return float(self.handle(label, within).get_attribute("aria-valuenow") or "nan")

    def status(self, within: Locator | None = None) -> str:
        """The explorer's status line (class `kit-status`)."""
        scope: Locator | Page = within if within is not None else self.page
        return scope.locator(".kit-status").first.inner_text()

    # -- pictures -----------------------------------------------------------------------------------------------

    def plot_state(self, within: Locator | None = None) -> str:
        """A digest of all that plotly has drawn there: it changes when, and only when, the picture does."""
        scope = within if within is not None else self.page.locator("body")
        return str(scope.evaluate("(element) => window.kitLab.plotState(element)"))

    def wait_drawn(self, timeout: float = PATIENCE) -> None:
        """Wait until every figure of every explorer has been drawn at least once."""
        drawn = "() => [...document.querySelectorAll('.kit-figure')].every(box => box.querySelector('.main-svg'))"
        self._wait_for(drawn, timeout, "the figures to be drawn")

    def wait_change(self, before: str, within: Locator | None = None, timeout: float = 60) -> bool:
        """Whether the drawn plots come to differ from `before` within `timeout` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.plot_state(within) != before:
                return True
            self.page.wait_for_timeout(50)
        return False

    def wait_still(self, within: Locator | None = None, quiet: float = 1.0, timeout: float = PATIENCE) -> str:
        """Wait until the plots have not changed for `quiet` seconds (a sweep has ended); the digest then."""
        end, since, state = time.monotonic() + timeout, time.monotonic(), self.plot_state(within)
        while time.monotonic() < end:
            self.page.wait_for_timeout(100)
            now = self.plot_state(within)
            if now != state:
                since, state = time.monotonic(), now
            elif time.monotonic() - since > quiet:
                return state
        raise LabError(f"{self.name}: the plots were still changing after {timeout:.0f} s.")

    def screens_above_the_first_slider(self) -> float:
        """How far down the first slider stands, in heights of the window; endless without a slider."""
        sliders, cells = self.page.locator('[role="slider"]'), self.page.locator(".jp-Notebook .jp-Cell")
        if not sliders.count() or self.page.viewport_size is None:
            return math.inf
        slider, top = sliders.first.bounding_box(), cells.first.bounding_box()
        if slider is None or top is None:
            return math.inf
        return (slider["y"] - top["y"]) / self.page.viewport_size["height"]

    def overflow(self) -> list[str]:
        """What sticks out or scrolls sideways, one line each."""
        return list(self.page.evaluate("() => window.kitLab.overflow()"))


@contextmanager
def open_notebook(browser: Browser, server: Server, name: str) -> Iterator[NotebookPage]:
    """Open one notebook in a fresh browser profile; its kernel ends with the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        yield NotebookPage(context.new_page(), server, name).open()
    finally:
        context.close()
        server.close_kernels()
