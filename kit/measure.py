"""Measuring honestly: an accuracy with its interval, and every size that a model has.

Parameters, non-zero parameters, bytes in memory, bytes of the file really written, FLOPs and latency are six
different sizes. A masked weight is still there: it lowers the non-zeros and the file, and nothing else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Event, get_ident
from typing import Any, Literal, get_args

from scipy import stats
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset, Split
from kit.inference import as_taken
from kit.sizes import dense_bytes, file_bytes, flops, nonzeros, parameters

SizeName = Literal["nonzeros", "file_bytes", "flops", "latency", "parameters", "dense_bytes"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)

TURNS = 3  # of each model, where latencies are compared
Z95 = 1.959964  # two-sided 95 % point of the normal law


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval.

    Attributes:
        value: the estimate; a share 0 .. 1 where it is an accuracy.
        low, high: the ends of the interval.
        n: what it rests on: samples, seeds or runs.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def from_counts(cls, successes: int, total: int) -> Estimate:
        """A share from `successes` in `total` independent trials, with Wilson's score interval.

        Unlike the textbook interval it stays inside 0 .. 1 and is not empty at 0 or at `total`. ValueError unless
        0 <= successes <= total and total >= 1.

        Source: E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference.
        """
        if total < 1 or not 0 <= successes <= total:
            raise ValueError(f"successes must lie in 0 .. total and total be 1 or more; got {successes} of {total}.")
        share, z2 = successes / total, Z95**2
        centre = (share + z2 / (2 * total)) / (1 + z2 / total)
        half = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
        # Rounding may leave the ends a hair outside of the value at 0 and at `total`.
        return cls(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)), total)

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Estimate:
        """A mean over seeds with Student's t interval; ValueError for fewer than two values, or NaN or infinity."""
        if len(values) < 2 or not all(math.isfinite(value) for value in values):
            raise ValueError(f"values needs at least two finite numbers; got {list(values)}.")
        mean, n = statistics.fmean(values), len(values)
        half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
        return cls(mean, mean - half, mean + half, n)

    @classmethod
    def from_pairs(cls, first: Sequence[float], second: Sequence[float]) -> Estimate:
        """The mean of `first - second`, seed by seed in the same order, with Student's t interval of the differences.

        Pairing takes out what both share, such as a lucky start. ValueError for unequal lengths, and as `from_values`.
        """
        if len(first) != len(second):
            raise ValueError(f"first and second must have one value for each seed; got {len(first)} and {len(second)}.")
        return cls.from_values([a - b for a, b in zip(first, second, strict=True)])

    @property
    def share(self) -> Estimate:
        """The same for a share, whose interval has no part outside of 0 .. 1."""
        return Estimate(self.value, max(0.0, self.low), min(1.0, self.high), self.n)

    @property
    def percent(self) -> str:
        """In words, as per cent with one decimal: `97.4 % (95.9 to 98.4)`."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"

    @property
    def points(self) -> str:
        """A difference of two shares in words: `+1.2 points (-0.4 to +2.8)`; never -0.0."""
        value, low, high = (f"{round(100 * each, 1) + 0.0:+.1f}" for each in (self.value, self.low, self.high))
        return f"{value} points ({low} to {high})"


@dataclass(frozen=True)
class Profile:
    """One model, measured.

    Attributes:
        accuracy: share of right answers, Wilson interval.
        parameters: numbers in the parameter tensors, zeros included.
        nonzeros: those that are not zero.
        dense_bytes: memory of parameters and buffers.
        file_bytes: length of the kit's sparse file, really written and read back equal (in it, a tensor with too few
            zeros stays dense); of the compressed file, where `compress.profile` measured.
        flops: floating-point operations for one sample, a multiply-add counted as two.
        latency: milliseconds for one batch, median with its 95 % interval.
        batch_size: samples in that batch.
        nonfinite: samples for which the model answers NaN or infinity; none of them counts as right.
    """

    accuracy: Estimate
    parameters: int
    nonzeros: int
    dense_bytes: int
    file_bytes: int
    flops: int
    latency: Estimate
    batch_size: int
    nonfinite: int = 0

    def __str__(self) -> str:
        """In words, a size a line; `print(profile)` shows it."""
        right, took = self.accuracy, self.latency
        lines = [
            f"accuracy: {right.percent}, on {right.n:,} samples",
            *[f"the model {self.broken}"] * bool(self.broken),
            f"parameters: {self.parameters:,}, of which {self.nonzeros:,} are not zero",
            f"bytes: {self.dense_bytes / 1e3:,.1f} kB in memory, {self.file_bytes / 1e3:,.1f} kB in the file",
            f"FLOPs: {self.flops / 1e6:,.3g} million for one sample",
            f"latency: {took.value:.3g} ms ({took.low:.3g} to {took.high:.3g}) for a batch of {self.batch_size:,}",
        ]
        return "\n".join(lines)

    @property
    def broken(self) -> str:
        """In words: `answers NaN or infinity for 512 of 540 samples`; empty where all answers are finite."""
        return training.in_words(self.nonfinite, self.accuracy.n)

    def size(self, name: SizeName) -> float:
        """The size called `name`, one of `SIZES` (latency in milliseconds); ValueError for another name."""
        checks.one_of("size", name, SIZES)
        value = getattr(self, name)
        return value.value if isinstance(value, Estimate) else value


def profile(model: nn.Module, split: Split, *, batch_size: int = 1, cancel: Event | None = None) -> Profile:
    """Measure everything about `model` on `split` (the validation split, for every choice).

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes].
        split: gives the samples for accuracy, FLOPs and latency.
        batch_size: samples per batch in the latency, 1 or more.
        cancel: looked at between batches and runs.

    Raises:
        Cancelled, ValueError: as in `training.evaluate`.
    """
    checks.whole("batch_size", batch_size, 1)
    counts = training.evaluate(model, split, cancel=cancel)
    return Profile(
        accuracy=Estimate.from_counts(counts.correct, counts.total),
        parameters=parameters(model),
        nonzeros=nonzeros(model),
        dense_bytes=dense_bytes(model),
        file_bytes=file_bytes(model),
        flops=flops(model, split.inputs[:1]),
        latency=latency(model, split.inputs, batch_size=batch_size, cancel=cancel),
        batch_size=batch_size,
        nonfinite=counts.nonfinite,
    )


def final_test(model: nn.Module, dataset: Dataset) -> Estimate:
    """Accuracy on the test split: the last word, to be read once, after every choice is made."""
    training.check_dataset(dataset)
    return accuracy(model, dataset.test)


def accuracy(model: nn.Module, split: Split, *, cancel: Event | None = None) -> Estimate:
    """Share of right answers on `split`, with its Wilson interval; errors as in `training.evaluate`."""
    counts = training.evaluate(model, split, cancel=cancel)
    return Estimate.from_counts(counts.correct, counts.total)


def latency(model: nn.Module, inputs: Tensor, **settings: Any) -> Estimate:
    """As `latencies`, for one model, whose runs then follow each other; `settings` are the keywords of `latencies`."""
    return latencies([model], inputs, **settings)[0]


def latencies(
    models: Sequence[nn.Module],
    inputs: Tensor,
    *,
    batch_size: int = 1,
    runs: int = 21,
    warm_up: int = 3,
    cancel: Event | None = None,
) -> list[Estimate]:
    """Milliseconds for one forward pass of a batch, for each model: the median of `runs` warm runs.

    The interval is that of the median, read from the order statistics, so it assumes no law for the times
    (Conover 1999, Practical Nonparametric Statistics, section 3.2). The runs wait until no other thread is inside
    `computing`, and no thread enters it before they end.

    Several models are timed in three turns: a slow moment of the machine then meets all, not just one. In its turn each
    model warms up first, so that no model pays for the one before it in the processor's caches.

    Args:
        models: any modules; they run on this process's threads.
        inputs: [n, ...], repeated or cut to `batch_size`.
        batch_size: samples per run, 1 or more.
        runs: counted runs of each model, 6 or more (fewer allow no 95 % interval), shared out over the turns.
        warm_up: runs before the clock starts, 0 or more.
        cancel: looked at between runs, and while another thread computes.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: a number too small, or no inputs.
    """
    checks.whole("batch_size", batch_size, 1)
    checks.whole("runs", runs, 6)
    checks.whole("warm_up", warm_up)
    checks.instance("inputs", inputs, Tensor, "a tensor [n, ...]")
    if not len(inputs):
        raise ValueError("inputs is empty; it needs at least one sample.")
    batch = inputs.repeat(math.ceil(batch_size / len(inputs)), *[1] * (inputs.ndim - 1))[:batch_size]
    batches = [as_taken(model, batch) for model in models]  # else a model of another dtype would pay for it
    times: list[list[float]] = [[] for _ in models]
    turns = TURNS if len(models) > 1 else 1
    with _alone(cancel):
        for turn in range(turns):
            share = runs * (turn + 1) // turns - runs * turn // turns
            for model, batch, own in zip(models, batches, times, strict=True):
                for run in range(-warm_up, share):
                    training.check_cancel(cancel, f"after {len(own)} of {runs} latency runs")
                    began = time.perf_counter()
                    training.predict(model, batch)
                    milliseconds = 1000 * (time.perf_counter() - began)
                    if run >= 0:
                        own.append(milliseconds)
    return [median(own) for own in times]


def median(times: Sequence[float]) -> Estimate:
    """The median of six values or more (fewer allow none) with its 95 % interval, as for `latencies`."""
    kept, runs = sorted(times), len(times)
    below = int(stats.binom.ppf(0.025, runs, 0.5))  # runs that may lie below the true median, at the 2.5 % point
    return Estimate(statistics.median(kept), kept[below - 1], kept[runs - below], runs)


@dataclass
class _Processor:
    """Who uses the processor: threads that compute share it, a thread that times has it alone."""

    changed: Condition = field(default_factory=Condition)
    depths: Counter[int] = field(default_factory=Counter)  # of each thread that computes: how often it entered
    patient: int | None = None  # the one thread that computes in idle time
    timing: int | None = None
    wanted: int = 0  # threads that wait to time


_processor = _Processor()


@contextmanager
def computing(*, patient: bool = False, timeout: float | None = None) -> Iterator[bool]:
    """Tell that this thread computes in the background: `latencies` does not time beside it.

    Several threads may compute at once. Entering waits while another thread times. Entering again in the same thread
    changes nothing.

    Args:
        patient: for work in idle time: one thread at a time in the whole process, and none while another waits to time.
        timeout: seconds to wait at most; None waits without end.

    Yields:
        Whether the thread has entered; False only after `timeout`.
    """
    me, cpu = get_ident(), _processor

    def free() -> bool:
        return cpu.timing is None and not (patient and (cpu.patient is not None or cpu.wanted))

    with cpu.changed:
        again = me in cpu.depths
        entered = again or cpu.timing == me or cpu.changed.wait_for(free, timeout)
        if entered:
            cpu.depths[me] += 1
            if patient and not again:
                cpu.patient = me
    try:
        yield entered
    finally:
        with cpu.changed:
            if entered:
                cpu.depths -= Counter([me])  # drops what reaches 0
                if cpu.patient == me and me not in cpu.depths:
                    cpu.patient = None
            cpu.changed.notify_all()


@contextmanager
def _alone(cancel: Event | None) -> Iterator[None]:
    """Wait until no other thread computes, and let none begin meanwhile."""
    me, cpu = get_ident(), _processor
    with cpu.changed:
        depth = cpu.depths.pop(me, 0)  # else two threads that compute would wait for each other
        cpu.wanted += 1
        cpu.changed.notify_all()
    try:
        with cpu.changed:
            while cpu.timing is not None or cpu.depths:
                training.check_cancel(cancel, "while it waited for its turn to time")
                cpu.changed.wait(0.02)
            cpu.timing = me
        yield
    finally:
        with cpu.changed:
            cpu.wanted -= 1
            if cpu.timing == me:
                cpu.timing = None
            if depth:
                cpu.depths[me] = depth
            cpu.changed.notify_all()
