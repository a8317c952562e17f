"""The distillation explorer under a hand, in JupyterLab in Chromium: how soon the soft labels, a point, the curve.

Two notebooks are open, as in `slider`: the echo floor (a slider that writes into a label), and the explorer. Before
each round the explorer gets new seeds, so that everything is trained again while the temperature moves.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

from tests.benchmarks import slider
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target
from tests.browser.chromium import HOW_TO_GET, find_chromium
from tests.browser.lab import NotebookPage

TEMPERATURES, SEEDS, EPOCHS = 8, 8, 20
ROUNDS = 6

EXPLORER = """
from kit.explorers import DistillationExplorer
explorer = DistillationExplorer(net, digits)
explorer.wait_sweep()
explorer
"""

# Answers with milliseconds: from the press of a key on the focused slider until the chosen point is drawn, and until
# the curve has all its temperatures in the page.
TIMED_MOVE = """async (temperatures) => {
    const root = document.querySelector('.kit-explorer'), began = await new Promise(resolve =>
        window.addEventListener('keydown', event => resolve(event.timeStamp), {once: true, capture: true}));
    const curve = [...root.querySelectorAll('.js-plotly-plot')]
        .flatMap(plot => plot._fullData).length && root.querySelector('.js-plotly-plot');
    const place = () => root.querySelector('.kit-here')?.getAttribute('transform');
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
    if find_chromium() is None:
        raise UnavailableError(HOW_TO_GET)
    handle = '.kit-explorer [role="slider"]'
    contest = {
        "echo": slider.rivals()["echo"],
        "soft": slider.Rival(
            [slider.TRAIN, EXPLORER],
            handle,
            {"kind": "bars", "root": ".kit-explorer", "mark": ".kit-bars"},
            "explorer.new_seeds()",
        ),
    }
    moves: list[dict[str, float]] = []
    with slider.pages_of(contest, say) as pages:
        chance = random.Random(0)
        for number in range(ROUNDS):
            for name, page in pages.items():
                slider.one_round(page, contest[name], number, chance)
            moves.append(_timed_move(pages["soft"], number))
            medians = ", ".join(f"{name} {rival.median:.0f}" for name, rival in contest.items())
            say(f"round {number + 1} of {ROUNDS}, medians so far in ms: {medians}; a move of alpha: {moves[-1]}")
    echo, soft = (contest[name].median for name in ("echo", "soft"))
    what = "key press to softened labels, each press training students / slider and label"
    yield Row.of("distillation.soft", what, soft, echo, "ms", Target("at most", 1.5))
    run = f"alpha moves, {SEEDS} seeds, {EPOCHS} epochs: key press to"
    for name, words, limit in (
        ("first", "the first point", 500.0),
        ("whole", f"the whole curve of {TEMPERATURES} temperatures", 2000.0),
    ):
        taken = statistics.median(move[name] for move in moves)
        yield Row.of(
            f"distillation.{name}", f"{run} {words} (limit {limit:g} ms)", taken, limit, "ms", Target("at most", 1)
        )


def _timed_move(page: NotebookPage, number: int) -> dict[str, float]:
    """Move alpha once, with seeds that were never trained."""
    page.page.bring_to_front()
    explorer = page.explorers()[0]
    page.execute("explorer.new_seeds(); explorer.wait_sweep()")
    page.wait_still(explorer)
    page.handle("alpha", explorer).focus()
    pending = page.page.evaluate_handle(f"() => ({{answer: ({TIMED_MOVE})({TEMPERATURES})}})")
    page.page.keyboard.press("ArrowLeft" if number % 2 == 0 else "ArrowRight")
    answer = pending.evaluate("pending => pending.answer")
    if answer is None:
        raise RuntimeError("distillation: a move of alpha was not answered within 20 seconds.")
    return {name: float(value) for name, value in answer.items()}
