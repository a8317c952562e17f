"""This machine, measured: what its matrix products and its memory reach. The only part of the room that needs torch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil
import torch

from kit import cores
from kit.cost.roofline import Hardware
from kit.measure import Estimate, median

SIDE = 1024  # of the matrices: large enough to compute, small enough for a tenth of a second
COPIED = 2**26  # bytes: more than the caches hold
RUNS = 15


@functools.cache
def here() -> Hardware:
    """This machine on all the cores that the process may use, measured once a process; it takes a second or two.

    Measured: products of square matrices of float32, bfloat16 and int8 (with sums of 32 bits), and a copy between two
    arrays larger than the caches, whose bytes are read and written. Each is the median of 15 runs with its 95 %
    interval. Beside other programs the numbers are smaller.
    """
    threads, before = cores.count(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rates = {bits: _rate(2.0 * SIDE**3, product) for bits, product in _products().items()}
        source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
        bandwidth = _rate(2.0 * COPIED, lambda: target.copy_(source))
    finally:
        torch.set_num_threads(before)
    said = f"measured with {threads} thread{'s' * (threads > 1)}, torch {torch.__version__.split('+')[0]}"
    made = Hardware(
        "this machine",
        {bits: rate.value for bits, rate in rates.items()},
        bandwidth.value,
        psutil.virtual_memory().total,
        source=said,
    )
    slow = replace(made, flops={bits: rate.low for bits, rate in rates.items()}, bandwidth=bandwidth.low)
    fast = replace(made, flops={bits: rate.high for bits, rate in rates.items()}, bandwidth=bandwidth.high)
    return replace(made, interval=(slow, fast))


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


def _rate(amount: float, work: Callable[[], Any]) -> Estimate:
    """An amount a second: the median of the runs, after two to warm up."""
    times = []
    for _ in range(RUNS + 2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median([amount / each for each in times[2:]])
