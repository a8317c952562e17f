"""A whole 40-point sweep, curve and random rival, against the bare cost of its forward passes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from kit.data import Dataset
from tests.benchmarks.networks import trained
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

POINTS, CURVES = 40, 2
ROUNDS = 5


def benchmark(say: Say) -> Iterator[Row]:
    """Explorer and bare passes in turn, so that a slow spell of the machine meets both."""
    from kit.explorers.prune import RATIOS

    assert len(RATIOS) == POINTS, f"the sweep has {len(RATIOS)} points, not {POINTS}"
    net, digits = trained()
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as scratch:
        board = str(Path(scratch) / "board.sqlite")
        with mock.patch.dict(os.environ, {"KIT_BOARD": board}):
            _explore(net, digits)  # the first one also imports and warms
            for number in range(ROUNDS):
                bare.append(_bare(net, digits))
                ours.append(_explore(net, digits))
                say(f"round {number + 1} of {ROUNDS}: sweep {ours[-1]:.2f} s, its forward passes {bare[-1]:.2f} s")
    what = f"sweep of {POINTS} points, {CURVES} curves, in a fresh explorer / its {POINTS * CURVES} bare forward passes"
    yield Row.of("sweep", what, statistics.median(ours), statistics.median(bare), "s", Target("at most", 3))


def _bare(net: nn.Module, digits: Dataset) -> float:
    """The better of one thread and torch's usual number: for a small net one is often quicker."""
    usual = torch.get_num_threads()
    seconds = []
    for threads in sorted({1, usual}):
        torch.set_num_threads(threads)
        seconds.append(_forward_passes(net, digits))
    torch.set_num_threads(usual)
    return min(seconds)


def _forward_passes(net: nn.Module, digits: Dataset) -> float:
    inputs = digits.validation.inputs  # [n, 1, 8, 8]
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(POINTS * CURVES):
            net(inputs)
    return time.perf_counter() - began


def _explore(net: nn.Module, digits: Dataset) -> float:
    from kit.explorers import PruningExplorer

    began = time.perf_counter()
    explorer = PruningExplorer(net, digits)
    explorer.wait_curves()
    seconds = time.perf_counter() - began
    explorer.close()
    return seconds
