"""From a control to the first answer of a state that was never asked for: the explorers of compression, in a script.

The explorers go on filling their curves between the moves, as they do under a hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from kit import compress, data, models, training
from kit.data import Dataset
from kit.explorers import CompressionExplorer, MergeExplorer
from kit.explorers.merge import STOPS
from tests.benchmarks.networks import EPOCHS, trained
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

PAUSE = 0.3  # seconds of a person who looks
BITS, ENERGIES = (2, 3, 4, 6, 7, 8), (1.0, 0.95)  # curves have those of the controls alone: each pair of them is new
MERGES = 12


def states(say: Say) -> Iterator[Row]:
    """Both explorers, on the digits' ConvNet and on MNIST's LeNet-300-100."""
    mnist = data.mnist()
    lenets: list[nn.Module] = [_lenet(mnist, seed) for seed in (0, 1)]
    (first, digits), (second, _) = trained(0), trained(1)
    for name, pair, dataset, limit in (("digits", [first, second], digits, 300), ("mnist", lenets, mnist, 500)):
        for kind, took in (("", _compressing(pair[0], dataset)), (".merge", _merging(pair[0], pair[1], dataset))):
            ms, cpu = ([1000 * each[at] for each in took] for at in (0, 1))
            median, busy = statistics.median(ms), statistics.median(cpu)
            say(
                f"states{kind}.{name}: {len(ms)} new states, median {median:.0f} ms, most {max(ms):.0f} ms; "
                f"of the processor {busy:.0f} ms, most {max(cpu):.0f} ms"
            )
            what = f"{'merging' if kind else 'compression'} explorer, {name}: a new state's first answer / limit"
            bound = Target("at most", 1)
            yield Row.of(f"compression.states{kind}.{name}", what, median, limit, "ms", bound)


def _lenet(mnist: Dataset, seed: int) -> nn.Module:
    net = models.lenet_300_100(seed=seed)
    training.fit(net, mnist, epochs=EPOCHS, seed=seed)
    return net


def _compressing(net: nn.Module, dataset: Dataset) -> list[tuple[float, float]]:
    explorer = CompressionExplorer(net, dataset)
    return _timed(explorer, ({"bits": bits, "energy": energy} for energy in ENERGIES for bits in BITS))


def _merging(a: nn.Module, b: nn.Module, dataset: Dataset) -> list[tuple[float, float]]:
    """Each move to a point of the line that is not measured yet; a new explorer where none is left."""
    found: list[tuple[float, float]] = []
    while len(found) < MERGES:
        explorer = MergeExplorer(a, b, dataset, epochs=0)
        found += _timed(explorer, _unseen(explorer), pause=0)
    return found[:MERGES]


def _unseen(explorer: MergeExplorer) -> Iterator[dict[str, Any]]:
    """The last points of the line of matched units, as long as there are some."""
    while left := [t for t in STOPS if t not in _seen(explorer)]:
        yield {"t": left[-1], "aligned": True}


def _seen(explorer: MergeExplorer) -> set[float]:
    matched: compress.Path | None = explorer.lines.get("matched")
    return {point.t for point in matched.points} if matched else set()


def _timed(explorer: Any, moves: Iterable[dict[str, Any]], pause: float = PAUSE) -> list[tuple[float, float]]:
    """Seconds from each move to its answer, and those of the processor, which count on a busy machine."""
    found = []
    explorer.wait()
    for move in moves:
        time.sleep(pause)
        began, computing = time.perf_counter(), time.process_time()
        explorer.set(**move)
        explorer.wait()
        found.append((time.perf_counter() - began, time.process_time() - computing))
    explorer.close()
    return found
