"""From a key press on a slider to the changed picture on the screen, in JupyterLab in Chromium.

Seven notebooks are open in one JupyterLab and one browser, each with its own kernel and page:

- echo: a slider whose callback writes its value into a label. The floor: nothing through the kernel is quicker.
- swept: `PruningExplorer` on the digits, weights, after its sweep. Watched: the marker "you are here".
- filling: the same while its sweep still runs: each round changes the seed, so that both curves are measured anew.
- compressed: `CompressionExplorer` on the digits, after its curves are complete.
- tangents: `GradientExplorer` on the digits, after every weight decay of its slider was visited.
- architecture: `ArchitectureExplorer`, after all its searches. Watched: how many trials are shown.
- stock: `interact` with matplotlib, that prunes, evaluates on the same split and draws the same plane.

All are measured by the same code in the page (`tests/browser/instrument.js`), in rounds in changing order, so that
what the machine does besides meets all of them. Between the change and the next press lies a pause, as of a person who
looks: the details under the plane and the messages that follow them are then done; pressed quicker, the next answer
waits for what is left of them. The time is that at which the changed frame is on the screen: the start of the frame
after the one that painted the change. The time at the end of that painting is reported as progress.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator

from tests.benchmarks.networks import EPOCHS
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target
from tests.browser.chromium import HOW_TO_GET, find_chromium
from tests.browser.lab import NotebookPage, Server, browse, serve
from tests.browser.scratch import write_notebook

ROUNDS, PRESSES = 8, 8
WARM_UP = 2  # first presses of a round: focus, caches
PAUSE_MS = (150, 300)  # between the change and the next press: a person who looks before the next one
PATIENCE_MS = 5000

TRAIN = f"""
from kit import data, models, training
digits, net = data.digits(), models.ConvNet()
history = training.fit(net, digits, epochs={EPOCHS})
"""

ECHO = """
import ipywidgets as widgets
slider, label = widgets.FloatSlider(min=0, max=1, step=0.01, value=0.5, description="ratio"), widgets.Label("0.5")
slider.observe(lambda change: setattr(label, "value", f"{change.new:.3f}"), "value")
box = widgets.VBox([slider, label])
box.add_class("bench-echo")
label.add_class("bench-label")
box
"""

SWEPT = """
from kit.explorers import PruningExplorer
explorer = PruningExplorer(net, digits)
explorer.wait_curves()
explorer
"""

COMPRESSED = """
from kit.explorers import CompressionExplorer
explorer = CompressionExplorer(net, digits, ratio=0.8)
explorer.wait_curves()
explorer
"""

TANGENTS = """
from kit import data, models
from kit.explorers import GradientExplorer
from kit.explorers.gradient import STOPS
explorer = GradientExplorer(models.MLP((64, 16, 10)), data.digits())
for weight_decay in [*STOPS, 0.002]:
    explorer.set(weight_decay=weight_decay)
    explorer.wait()
explorer.wait_curves()
explorer
"""

ARCHITECTURE = """
from kit.explorers import ArchitectureExplorer
from kit.search import architecture
explorer = ArchitectureExplorer(architecture.load(), trainings=100)
explorer.repeats.value = 4
explorer.wait_curves()
explorer
"""

NEW_SWEEP = "explorer.seed.value += 1"
NOTE = ".kit-explorer .kit-note"
COMPLETE = "complete"  # what the note says when nothing is left to measure

STOCK = [
    """
    %matplotlib inline
    import matplotlib.pyplot as plt
    from ipywidgets import SelectionSlider, interact
    from kit import measure, prune, training
    from kit.explorers.prune import RATIOS

    def point(ratio, importance="magnitude"):
        smaller = prune.weights(net, ratio=ratio, importance=importance)
        counts = training.evaluate(smaller, digits.validation)
        return measure.nonzeros(smaller), 100 * counts.correct / counts.total

    curves = {kind: [point(ratio, kind) for ratio in RATIOS] for kind in ("magnitude", "random")}
    """,
    """
    def draw(ratio):
        size, accuracy = point(ratio)
        figure, axes = plt.subplots(figsize=(8, 4))
        for kind, points in curves.items():
            axes.plot(*zip(*points), label=kind)
        axes.plot([size], [accuracy], "x", markersize=12)
        axes.set(xscale="log", ylim=(0, 102), xlabel="non-zeros", ylabel="accuracy, %")
        axes.legend()
        plt.show()

    slider = SelectionSlider(options=[(f"{100 * ratio:.4g} %", ratio) for ratio in RATIOS], value=0.5)
    shown = interact(draw, ratio=slider)
    """,
]

HANDLE = '.kit-explorer [role="slider"]'


@dataclass
class Rival:
    """One notebook, what to press and what to watch in it; and the milliseconds measured."""

    cells: list[str]
    handle: str
    probe: dict[str, str]
    before_round: str = ""  # run in the kernel; starts a sweep, and a press counts only while that still fills
    shown: list[float] = field(default_factory=list)
    painted: list[float] = field(default_factory=list)
    missed: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.shown)


def rivals() -> dict[str, Rival]:
    """All, by name."""
    watched = {"kind": "place", "root": ".kit-explorer", "mark": ".kit-point"}
    trials = {"kind": "attribute", "root": ".kit-explorer", "mark": ".kit-trials", "name": "data-shown"}
    image = {"kind": "image", "root": ".jp-OutputArea-output:has(.widget-interact)"}
    return {
        "echo": Rival([ECHO], '.bench-echo [role="slider"]', {"kind": "text", "root": ".bench-label"}),
        "swept": Rival([TRAIN, SWEPT], HANDLE, watched),
        "filling": Rival([TRAIN, SWEPT], HANDLE, watched, NEW_SWEEP),
        "compressed": Rival([TRAIN, COMPRESSED], HANDLE, watched),
        "tangents": Rival([TANGENTS], HANDLE, watched),
        "architecture": Rival([ARCHITECTURE], HANDLE, trials),
        "stock": Rival([TRAIN, *STOCK], '.widget-interact [role="slider"]', image),
    }


def benchmark(say: Say) -> Iterator[Row]:
    """Measure in rounds."""
    contest = rivals()
    with pages_of(contest, say) as pages:
        for _ in rounds(contest, pages, ROUNDS, say):
            pass
    yield from _verdicts(contest, say)


def _verdicts(contest: dict[str, Rival], say: Say) -> Iterator[Row]:
    for name, rival in contest.items():
        if len(rival.shown) < PRESSES or rival.missed > 0.05 * len(rival.shown):
            raise RuntimeError(f"slider: {len(rival.shown)} presses counted, {rival.missed} missed in {name!r}.")
    say(f"pauses of {PAUSE_MS[0]} to {PAUSE_MS[1]} ms between a change and the next press")
    for name, rival in contest.items():
        say(
            f"{name}: n {len(rival.shown)}, missed {rival.missed}; on the screen after {rival.median:.1f} ms "
            f"({rival.median / contest['echo'].median:.2f} x echo), painting ended after "
            f"{statistics.median(rival.painted):.1f} ms "
            f"({statistics.median(rival.painted) / statistics.median(contest['echo'].painted):.2f} x echo)"
        )
    echo, swept, filling, compressed, tangents, architecture, stock = (each.median for each in contest.values())
    floor, half_more = "slider and label", Target("at most", 1.5)
    yield Row.of("slider.swept", f"key press to picture: explorer, swept / {floor}", swept, echo, "ms", half_more)
    what = f"key press to picture: explorer, sweep filling / {floor}"
    yield Row.of("slider.filling", what, filling, echo, "ms", Target("at most", 3))
    what = f"key press to picture: compression explorer, known states / {floor}"
    yield Row.of("slider.compressed", what, compressed, echo, "ms", half_more)
    what = f"key press to picture: gradient explorer, known tangents / {floor}"
    yield Row.of("slider.tangents", what, tangents, echo, "ms", half_more)
    what = f"key press to picture: architecture explorer, known searches / {floor}"
    yield Row.of("slider.architecture", what, architecture, echo, "ms", half_more)
    what = "key press to picture: interact + matplotlib / explorer, swept"
    yield Row.of("slider.stock", what, swept, stock, "ms", Target("at least", 3))


@contextmanager
def pages_of(contest: dict[str, Rival], say: Say) -> Iterator[dict[str, NotebookPage]]:
    """Every rival's notebook in a page of its own, in one JupyterLab and one browser; run, and shown."""
    if find_chromium() is None:
        raise UnavailableError(HOW_TO_GET)
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
        for name, rival in contest.items():
            write_notebook(Path(folder) / f"{name}.ipynb", [textwrap.dedent(cell) for cell in rival.cells])
        with serve(Path(folder)) as server, browse() as browser:  # it serves a copy of what is there now
            yield {name: _open_page(browser, server, name, rival, say) for name, rival in contest.items()}


def _open_page(browser: Browser, server: Server, name: str, rival: Rival, say: Say) -> NotebookPage:
    """Open a rival's notebook, run it, and wait until what is watched is shown."""
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    opened = NotebookPage(page, server, f"{name}.ipynb").open()
    opened.run_all()
    problems = opened.problems()
    if problems:
        raise RuntimeError(f"slider: the notebook {name!r} failed: {problems[0][:2000]}")
    opened.wait_shown(rival.probe)
    say(f"{name} is open")
    return opened


def rounds(contest: dict[str, Rival], pages: dict[str, NotebookPage], count: int, say: Say) -> Iterator[int]:
    """Press keys on all rivals in turn, in changing order; yields the number of each round after it."""
    chance = random.Random(0)
    for number in range(count):
        for name in chance.sample(list(contest), len(contest)):
            _one_round(pages[name], contest[name], number, chance)
        medians = ", ".join(f"{name} {rival.median:.0f}" for name, rival in contest.items() if rival.shown)
        say(f"round {number + 1} of {count}, medians so far in ms: {medians}")
        yield number


def ready(page: NotebookPage, cell: str) -> Locator:
    """Bring a page to the front and run a cell; its explorer, once that is still."""
    page.page.bring_to_front()
    page.execute(cell)
    explorer = page.explorers()[0]
    page.wait_still(explorer)
    return explorer


def timed(page: NotebookPage, script: str, move: Callable[[], None], what: str) -> Any:
    """What a script in the page answers, which is begun before a move; it gives None after 20 seconds."""
    pending = page.page.evaluate_handle(f"() => ({{answer: {script}}})")
    move()
    answer = pending.evaluate("pending => pending.answer")
    if answer is None:
        raise RuntimeError(f"{what} not answered within 20 seconds.")
    return answer


def _one_round(page: NotebookPage, rival: Rival, number: int, chance: random.Random) -> None:
    """Press a key on the rival's slider several times, and note how long each change took."""
    page.page.bring_to_front()
    handle = page.page.locator(rival.handle).first
    page.page.locator(rival.probe["root"]).first.scroll_into_view_if_needed()
    handle.focus()
    key = "ArrowRight" if number % 2 == 0 else "ArrowLeft"
    for _ in range(WARM_UP):
        page.timed_press(rival.probe, key, PATIENCE_MS)
        page.page.wait_for_timeout(chance.uniform(*PAUSE_MS))
    note = page.page.locator(NOTE, has_text=COMPLETE)
    if rival.before_round:
        page.execute(rival.before_round)
        note.wait_for(state="detached")
    for _ in range(PRESSES):
        answer = page.timed_press(rival.probe, key, PATIENCE_MS)
        if rival.before_round and note.count():
            break  # this press may have met a complete sweep
        if answer is None:
            rival.missed += 1
        else:
            rival.shown.append(answer["shown"])
            rival.painted.append(answer["painted"])
        page.page.wait_for_timeout(chance.uniform(*PAUSE_MS))
