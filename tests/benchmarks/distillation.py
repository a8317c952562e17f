"""The distillation explorer under a hand, in JupyterLab in Chromium: how soon the soft labels, a point, the curve.

Two notebooks are open, as in `slider`: the echo floor (a slider that writes into a label), and the explorer. Before
each round the explorer gets new seeds, so that everything is trained again while the temperature moves.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from tests.benchmarks import slider
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target
from tests.browser.lab import NotebookPage

TEMPERATURES, SEEDS, EPOCHS = 8, 8, 20
ROUNDS = 6

EXPLORER = """
from kit.explorers import DistillationExplorer
explorer = DistillationExplorer(net, digits)
explorer.wait_curves()
explorer
"""

# Answers with milliseconds: from the press of a key on the focused slider until the chosen point is drawn, and until
# the curve has all its temperatures in the page.
TIMED_MOVE = """async (temperatures) => {
    const root = document.querySelector('.kit-explorer'), began = await new Promise(resolve =>
        window.addEventListener('keydown', event => resolve(event.timeStamp), {once: true, capture: true}));
    const curve = root.querySelector('.js-plotly-plot');
    const place = () => root.querySelector('.kit-point')?.getAttribute('transform');
    const trained = () => curve.data.find(trace => trace.name === 'distilled').x.length;
    const before = place();
    let first = null, shrunk = false;
    while (performance.now() - began < 20000) {
        await new Promise(requestAnimationFrame);
        if (first === null && place() !== before) first = performance.now() - began;
        shrunk ||= trained() < temperatures;
        if (first !== null && shrunk && trained() >= temperatures) return {first, whole: performance.now() - began};
    }
    return null;
}"""


def benchmark(say: Say) -> Iterator[Row]:
    """Three rows."""
    probe = {"kind": "bars", "root": ".kit-explorer", "mark": ".kit-bars"}
    soft_labels = slider.Rival([slider.TRAIN, EXPLORER], slider.HANDLE, probe, "explorer.new_seeds()")
    contest = {"echo": slider.rivals()["echo"], "soft": soft_labels}
    moves: list[dict[str, float]] = []
    with slider.pages_of(contest, say) as pages:
        for number in slider.rounds(contest, pages, ROUNDS, say):
            moves.append(_timed_move(pages["soft"], number))
            say(f"a move of alpha in ms: {moves[-1]}")
    echo, soft = (contest[name].median for name in ("echo", "soft"))
    what = "key press to softened labels, each press training students / slider and label"
    yield Row.of("distillation.soft", what, soft, echo, "ms", Target("at most", 1.5))
    run = f"alpha moves, {SEEDS} seeds, {EPOCHS} epochs: key press to"
    limits = {"first": ("the first point", 500.0), "whole": (f"the whole curve of {TEMPERATURES} temperatures", 2000.0)}
    for name, (words, limit) in limits.items():
        taken, what = statistics.median(move[name] for move in moves), f"{run} {words} (limit {limit:g} ms)"
        yield Row.of(f"distillation.{name}", what, taken, limit, "ms", Target("at most", 1))


def _timed_move(page: NotebookPage, number: int) -> dict[str, float]:
    """Move alpha once, with seeds that were never trained."""
    explorer = slider.ready(page, "explorer.new_seeds(); explorer.wait_curves()")
    page.handle("alpha", explorer).focus()
    key = "ArrowLeft" if number % 2 == 0 else "ArrowRight"
    script = f"({TIMED_MOVE})({TEMPERATURES})"
    answer = slider.timed(page, script, lambda: page.page.keyboard.press(key), "distillation: a move of alpha was")
    return {name: float(value) for name, value in answer.items()}
