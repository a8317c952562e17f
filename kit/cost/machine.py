"""This machine, measured: what its matrix products and its memory reach. The only part of the room that needs torch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch

from kit import cores
from kit.cost.roofline import Hardware
from kit.measure import median

SIDE = 1024  # of the matrices: large enough to compute, small enough for a tenth of a second
COPIED = 2**26  # bytes: more than the caches hold
RUNS = 15


@functools.cache
def here() -> Hardware:
    """This machine on all the cores that the process may use, measured once a process; it takes a second or two.

    Measured: products of square matrices of float32, bfloat16 and int8 (with sums of 32 bits), and a copy between two
    arrays larger than the caches, whose bytes are read and written; 15 runs of each, in turns. A roof is what can be
    reached, and other programs only slow a run: the rates are those of the fastest run. The interval goes from the
    lower 95 % end of the usual run (the median) to the fastest.
    """
    threads, before = cores.count(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
        flops, moved = 2.0 * SIDE**3, 2.0 * COPIED
        products = _products()
        works = [(flops, each) for each in products.values()]
        *rates, bandwidth = _rates([*works, (moved, lambda: target.copy_(source))])
    finally:
        torch.set_num_threads(before)
    said = f"measured with {threads} thread{'s' * (threads > 1)}, torch {torch.__version__.split('+')[0]}"
    memory = psutil.virtual_memory().total
    usual, fastest = (
        Hardware(
            "this machine",
            {bits: rate[end] for bits, rate in zip(products, rates, strict=True)},
            bandwidth[end],
            memory,
            source=said,
        )
        for end in (0, 1)
    )
    return replace(fastest, interval=(usual, fastest))


def _products() -> dict[int, Callable[[], Any]]:
    """A matrix product of each format, by its bits."""
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, SIDE, SIDE, generator=generator)
    halves = one.bfloat16(), other.bfloat16()
    bytes_ = [(255 * each - 128).to(torch.int8) for each in (one, other)]
    return {
        32: lambda: one @ other,
        16: lambda: halves[0] @ halves[1],
        8: lambda: torch._int_mm(bytes_[0], bytes_[1].t()),  # its rows side by side, as those of a layer's weights
    }


def _rates(works: Sequence[tuple[float, Callable[[], Any]]]) -> list[tuple[float, float]]:
    """Amounts a second of works that get an amount done: of a usual run, at its lower 95 % end, and of the fastest."""
    rates: list[list[float]] = [[] for _ in works]
    for _ in range(2 + RUNS):  # the first two warm up
        for own, (amount, work) in zip(rates, works, strict=True):
            start = time.perf_counter()
            work()
            own.append(amount / (time.perf_counter() - start))
    return [(median(own[2:]).low, max(own[2:])) for own in rates]
