"""How small the published networks' files become on MNIST's 5,000 images, and what that costs.

Deep Compression (Han et al. 2016, arXiv:1510.00149) reports 40 times for LeNet-300-100 and 39 times for LeNet-5,
Bayesian Compression (Louizos et al. 2017, arXiv:1705.08665) up to 419 times for LeNet-5-Caffe at 1.0 % error: each
trained on all 60,000 images. Here 2,500 train. Recipes were chosen on the validation split and on other seeds; the test
split is read here alone.

What the dense network loses depends on how long it was trained. LeNet-300-100 has 94.3, 94.5 and 94.7 % on the
validation split after 75, 150 and 250 epochs (means of three seeds); compressed ones have 94.3 to 94.7 % from any of
these, and the longest trained ones do not make better ones.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from kit import compress, cores, data, measure, models, training
from kit.compress import Recipe
from kit.measure import Estimate
from tests.benchmarks import coding, faster, states
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

SEEDS, WORKERS = 5, 2
SMALLER, LOSS = 60, 0.3  # times; points of the loss's upper 95 % bound
SECONDS = 180  # of the processor, for all seeds on two cores: others on the machine do not count


@dataclass(frozen=True)
class Case:
    """A network, how it is trained, and how it is compressed."""

    name: str
    make: Callable[..., nn.Module]
    epochs: tuple[tuple[int, float], ...]  # each so many at one learning rate: the last ones calm the network down
    weight_decay: float
    recipe: Recipe


CASES = (
    Case(
        "LeNet-300-100",
        models.lenet_300_100,
        ((120, 1e-3), (30, 1e-4)),
        1e-3,
        Recipe(ratio=0.945, bits=5, epochs=2, rounds=30, lr=5e-4, weight_decay=5e-4),
    ),
    Case(
        "LeNet-5",
        models.LeNet5,
        ((20, 1e-3),),
        1e-4,
        Recipe(ratio=0.97, bits=4, epochs=1, rounds=15, weight_decay=1e-4),
    ),
)


def benchmark(say: Say) -> Iterator[Row]:
    """The published networks' files; what coding takes; what is faster, and what is not; new states."""
    yield from networks(say)
    yield from coding.coding(say)
    yield from faster.faster(say)
    yield from states.states(say)


def networks(say: Say) -> Iterator[Row]:
    """Bytes, loss and time of the published networks."""
    for case in CASES:
        began = time.monotonic()
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as workers:
            found = list(workers.map(partial(_compressed, case), range(SEEDS)))
        say(f"{case.name}: {time.monotonic() - began:.0f} s, {sum(each[4] for each in found):.0f} s of the processor")
        seconds = sum(each[4] for each in found) / WORKERS
        for seed, (dense, smaller, before, after, _) in enumerate(found):
            say(f"{case.name} {seed}: {before:,} bytes, {100 * dense:.1f} %; {after:,}, {100 * smaller:.1f} %")
        loss = Estimate.from_pairs([100 * each[0] for each in found], [100 * each[1] for each in found])
        say(f"{case.name}: loses {loss.value:+.2f} points ({loss.low:+.2f} to {loss.high:+.2f}), {SEEDS} networks")
        name = case.name.lower()
        whole, small = (statistics.fmean(each[at] for each in found) for at in (2, 3))
        what = f"{case.name} on 5,000 of MNIST, file: dense float32 / pruned, shared, Huffman"
        yield Row.of(f"compression.{name}", what, small, whole, "bytes", Target("at least", SMALLER))
        what = f"its loss on the test split, upper 95 % bound over {SEEDS} networks"
        yield Row.of(f"compression.{name}.loss", what, loss.high, LOSS, "points", Target("at most", 1))
        what = f"seconds of the processor to train and compress {SEEDS} of them, on {WORKERS} cores"
        yield Row.of(f"compression.{name}.seconds", what, seconds, SECONDS, "s", Target("at most", 1))


def _compressed(case: Case, seed: int) -> tuple[float, float, int, int, float]:
    """Accuracy on the test split of the dense network and of the compressed one, the bytes of their files, seconds."""
    began = time.process_time()
    mnist, net = data.mnist(), case.make(seed=seed)
    with cores.one_thread():
        for epochs, lr in case.epochs:
            training.fit(net, mnist, epochs=epochs, lr=lr, seed=seed, weight_decay=case.weight_decay)
        found = compress.pipeline(net, mnist, replace(case.recipe, seed=seed))
        accuracies = [measure.final_test(each, mnist).value for each in (net, found.model)]
    return accuracies[0], accuracies[1], found.steps[0].ledger.total, len(found.data), time.process_time() - began
