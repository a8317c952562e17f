"""What the kit's work takes while other programs compute: one in NumPy, one in torch, on as many threads as they like.

Ours is the time under that load, the rival the same work on the idle machine, in the same run. The load is started and
ended here.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from kit import cohort, cores, models, prune, training
from kit.data import Dataset
from kit.search import Bayes, Study, functions
from tests.benchmarks import slider
from tests.benchmarks.cohort import BATCH, EPOCHS, LR, SIZES, WIDE, K
from tests.benchmarks.networks import trained
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

ROUNDS = 5
SLIDER_ROUNDS = 4
TRIALS = 40
RATIOS = [at / 20 for at in range(20)]
LOADS = (
    "import numpy as np\na = np.random.rand(1500, 1500)\nwhile True: a @ a",
    "import torch\na = torch.rand(1500, 1500)\nwhile True: (a @ a).relu_()",
)


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Two other processes that compute without end."""
    theirs = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}  # which the kit has set
    others = [subprocess.Popen([sys.executable, "-c", code], env=theirs) for code in LOADS]
    try:
        time.sleep(3)  # they import, and then compute
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def benchmark(say: Say) -> Iterator[Row]:
    """Each work idle and under load; then the slider under load."""
    net, digits = trained()
    works: dict[str, Callable[[], Any]] = {
        "cohort": partial(_cohort, digits, SIZES),
        "wide": partial(_cohort, digits, WIDE),
        "sweep": partial(_sweep, net, digits),
        "bayes": _bayes,
        "fit": lambda: training.fit(models.ConvNet(), digits, epochs=3),
    }
    idle = {name: _median(work) for name, work in works.items()}
    undivided = _undivided(works["cohort"])
    with load():
        busy = {name: _median(work) for name, work in works.items()}
        undivided_busy = _undivided(works["cohort"])
    for name, seconds in idle.items():
        say(f"{name}: {seconds:.2f} s idle, {busy[name]:.2f} s beside two processes that compute")
    for state, ours, rival in (("idle", idle["cohort"], undivided), ("busy", busy["cohort"], undivided_busy)):
        what = f"{K} MLPs 64-16-10, {EPOCHS} epochs, {state} machine: in parts / as one, with torch's own threads"
        yield Row.of(f"busy.parts.{state}", what, ours, rival, "s", Target("at most", 0.6))
    limits = {"cohort": 3, "sweep": 4, "bayes": 4, "fit": 4}
    for name, limit in limits.items():
        what = f"{name}: on a busy machine / on an idle one"
        yield Row.of(f"busy.{name}", what, busy[name], idle[name], "s", Target("at most", limit))
    contest = {name: slider.rivals()[name] for name in ("echo", "swept")}
    with slider.pages_of(contest, say) as pages, load():
        for _ in slider.rounds(contest, pages, SLIDER_ROUNDS, say):
            pass
    echo, swept = (contest[name].median for name in ("echo", "swept"))
    what = "key press to picture on a busy machine: explorer, swept / slider and label"
    yield Row.of("busy.slider", what, swept, echo, "ms", Target("at most", 3))


def _undivided(work: Callable[[], Any]) -> float:
    with mock.patch.object(cores, "count", lambda: 1), mock.patch.object(cores, "one_thread", _any_threads):
        return _median(work, 3)


def _median(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])  # the first one warms


@contextlib.contextmanager
def _any_threads(small: bool = True) -> Iterator[None]:
    yield


def _cohort(digits: Dataset, sizes: tuple[int, ...]) -> None:
    networks = cohort.Cohort(models.MLP(sizes), cohort.members(seed=range(K), lr=LR))
    cohort.fit(networks, digits.train, epochs=EPOCHS, batch_size=BATCH)


def _sweep(net: Any, digits: Dataset) -> None:
    sweep = prune.Sweep(net, digits)
    for importance in ("magnitude", "random"):
        for ratio in RATIOS:
            sweep.point(prune.PruningMethod(importance=importance), ratio)


def _bayes() -> None:
    function = functions.hartmann(6)
    Study(function.space).run(function, Bayes(seed=0), budget=TRIALS)
