"""Half of the channels gone and three epochs on: what it costs in accuracy, what it buys in time."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from torch import nn

from kit import measure, prune, training
from kit.data import Dataset
from tests.benchmarks.networks import trained
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

RATIO, EPOCHS, BATCH = 0.5, 3, 256
SEEDS = range(5)
TURNS = 3


def benchmark(say: Say) -> Iterator[Row]:
    """Both numbers as medians over seeds; every seed trains its own dense network."""
    drops, dense_ms, thin_ms = [], [], []
    for seed in SEEDS:
        dense, digits = trained(seed)
        thin = prune.channels(dense, ratio=RATIO, dataset=digits, seed=seed)
        thin = prune.fine_tune(thin, digits, epochs=EPOCHS, seed=seed)
        drops.append(_points(dense, digits) - _points(thin, digits))
        for _ in range(TURNS):
            both = measure.latencies([dense, thin], digits.train.inputs, batch_size=BATCH)
            dense_ms.append(both[0].value)
            thin_ms.append(both[1].value)
        say(f"seed {seed}: {drops[-1]:.2f} points lost, {dense_ms[-1]:.2f} -> {thin_ms[-1]:.2f} ms at batch {BATCH}")
    done = f"channel ratio {RATIO:g} + {EPOCHS} epochs"
    what = f"{done}: validation points lost, median of {len(SEEDS)} seeds, worst {max(drops):.2f} (limit 1)"
    yield Row.of("channels.accuracy", what, statistics.median(drops), 1.0, "points", Target("at most", 1))
    what, ours = f"{done}: dense / thin latency at batch {BATCH}", statistics.median(thin_ms)
    yield Row.of("channels.latency", what, ours, statistics.median(dense_ms), "ms", Target("at least", 3))


def _points(model: nn.Module, digits: Dataset) -> float:
    counts = training.evaluate(model, digits.validation)
    return 100 * counts.correct / counts.total
