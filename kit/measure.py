"""Measuring honestly: an accuracy with its interval, and every size that a model has.

Parameters, non-zero parameters, bytes in memory, bytes of the file really written, FLOPs and latency are six
different sizes. A masked weight is still there: it lowers the non-zeros and the file, and nothing else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, get_args

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kit import files, training
from kit.data import Dataset, Split

SizeName = Literal["nonzeros", "file_bytes", "flops", "latency", "parameters", "dense_bytes"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)

TURNS = 3  # of each model, where latencies are compared
Z95 = 1.959964  # two-sided 95 % point of the normal law


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval.

    Attributes:
        value: the estimate; a share 0 .. 1 where it is an accuracy.
        low: lower end of the interval.
        high: upper end of the interval.
        n: what it rests on: samples, seeds or runs.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def from_counts(cls, successes: int, total: int) -> Estimate:
        """A share from `successes` in `total` independent trials, with Wilson's score interval.

        Unlike the textbook interval it stays inside 0 .. 1 and is not empty at 0 or at `total`.

        Source: E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference.

        Raises:
            ValueError: unless 0 <= successes <= total and total >= 1.
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
        """A mean over seeds with Student's t interval.

        Args:
            values: one finite number a seed, at least two.

        Raises:
            ValueError: fewer than two values, or one that is not finite.
        """
        if len(values) < 2 or not all(math.isfinite(value) for value in values):
            raise ValueError(f"values needs at least two finite numbers; got {list(values)}.")
        mean = statistics.fmean(values)
        quantile = float(stats.t.ppf(0.975, len(values) - 1))
        half = quantile * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half, len(values))

    @classmethod
    def from_pairs(cls, first: Sequence[float], second: Sequence[float]) -> Estimate:
        """The mean of `first - second` over the same seeds, with Student's t interval of the differences.

        Pairing takes out what both have in common, such as a lucky start.

        Args:
            first: one finite number a seed, at least two.
            second: as many, for the same seeds in the same order.

        Raises:
            ValueError: different lengths, fewer than two pairs, or a number that is not finite.
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


@dataclass(frozen=True)
class Profile:
    """One model, measured.

    Attributes:
        accuracy: share of right answers, Wilson interval.
        parameters: numbers in the parameter tensors, zeros included.
        nonzeros: those that are not zero.
        dense_bytes: memory of parameters and buffers.
        file_bytes: length of the kit's sparse file, really written and read back equal (in it, a tensor with too few
            zeros stays dense).
        flops: floating-point operations for one sample, a multiply-add counted as two.
        latency: milliseconds for one batch, median with its 95 % interval.
        batch_size: samples in that batch.
    """

    accuracy: Estimate
    parameters: int
    nonzeros: int
    dense_bytes: int
    file_bytes: int
    flops: int
    latency: Estimate
    batch_size: int

    def size(self, name: SizeName) -> float:
        """The size called `name`, one of `SIZES` (latency in milliseconds).

        Raises:
            ValueError: another name.
        """
        if name not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}; got {name!r}.")
        value = getattr(self, name)
        return value.value if isinstance(value, Estimate) else value


def profile(model: nn.Module, split: Split, *, batch_size: int = 1, cancel: Event | None = None) -> Profile:
    """Measure everything about `model` on `split` (the validation split, for every choice).

    Args:
        model: maps inputs [n, ...] to logits [n, n_classes].
        split: gives the samples for accuracy, FLOPs and latency.
        batch_size: samples a batch in the latency, 1 or more.
        cancel: looked at between batches and runs.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: the model cannot take the samples.
    """
    return Profile(
        accuracy=accuracy(model, split, cancel=cancel),
        parameters=parameters(model),
        nonzeros=nonzeros(model),
        dense_bytes=dense_bytes(model),
        file_bytes=file_bytes(model),
        flops=flops(model, split.inputs[:1]),
        latency=latency(model, split.inputs, batch_size=batch_size, cancel=cancel),
        batch_size=batch_size,
    )


def final_test(model: nn.Module, dataset: Dataset) -> Estimate:
    """Accuracy on the test split: the last word, to be read once, after every choice is made."""
    return accuracy(model, dataset.test)


def accuracy(model: nn.Module, split: Split, *, cancel: Event | None = None) -> Estimate:
    """Share of right answers on `split`, with its Wilson interval; errors as in `training.evaluate`."""
    counts = training.evaluate(model, split, cancel=cancel)
    return Estimate.from_counts(counts.correct, counts.total)


def parameters(model: nn.Module) -> int:
    """Numbers in the parameter tensors, zeros included; a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzeros(model: nn.Module) -> int:
    """Numbers in the parameter tensors that are not zero."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def dense_bytes(model: nn.Module) -> int:
    """Memory that parameters and buffers take, zeros included."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_bytes(model: nn.Module) -> int:
    """Length of the kit's sparse file of the model, after reading it back and comparing.

    In it, each tensor is stored as indices and values, or dense where that is smaller.

    Raises:
        RuntimeError: what was read back differs (never seen; it would mean a broken format).
    """
    state = model.state_dict()
    data = files.encode(state, sparse=True)
    back = files.decode(data)
    for name, tensor in state.items():
        if not torch.equal(torch.nan_to_num(back[name]), torch.nan_to_num(tensor)):
            raise RuntimeError(f"the file written for {name} does not read back equal.")
    return len(data)


def flops(model: nn.Module, inputs: Tensor) -> int:
    """Floating-point operations of one forward pass of one sample, 2 a multiply-add.

    Counted by `torch.utils.flop_counter`: matrix products and convolutions, whatever the zeros in them; no bias,
    normalisation or activation.

    Args:
        model: any module.
        inputs: [n, ...], at least one sample; the first is used.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not look inside fused attention
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            training.predict(model, inputs[:1])
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def latency(
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_size: int = 1,
    runs: int = 21,
    warm_up: int = 3,
    cancel: Event | None = None,
) -> Estimate:
    """Milliseconds for one forward pass of a batch: the median of `runs` warm runs.

    The interval is that of the median, read from the order statistics, so it assumes no law for the times
    (Conover 1999, Practical Nonparametric Statistics, section 3.2).

    Args:
        model: any module; runs on this process's threads.
        inputs: [n, ...], repeated or cut to `batch_size`.
        batch_size: samples a run, 1 or more.
        runs: counted runs, 6 or more (fewer allow no 95 % interval).
        warm_up: runs before the clock starts, 0 or more.
        cancel: looked at between runs.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: `batch_size`, `runs` or `warm_up` too small, or no inputs.
    """
    only = latencies([model], inputs, batch_size=batch_size, runs=runs, warm_up=warm_up, cancel=cancel)
    return only[0]


def latencies(
    models: Sequence[nn.Module],
    inputs: Tensor,
    *,
    batch_size: int = 1,
    runs: int = 21,
    warm_up: int = 3,
    cancel: Event | None = None,
) -> list[Estimate]:
    """As `latency`, for several models in three turns: a slow moment of the machine then meets all, not just one.

    In its turn each model warms up first, so that no model pays for the one before it in the processor's caches.

    Args:
        models: any modules that take the inputs.
        inputs: as in `latency`, like the other arguments.
        batch_size: samples a run.
        runs: counted runs of each model, shared out over the turns.
        warm_up: runs of each in each turn before the clock starts.
        cancel: looked at between runs.

    Returns:
        One estimate a model, in their order.

    Raises:
        As `latency`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size!r}.")
    if runs < 6:
        raise ValueError(f"runs must be 6 or more for a 95 % interval; got {runs!r}.")
    if warm_up < 0:
        raise ValueError(f"warm_up must be 0 or more; got {warm_up!r}.")
    if not len(inputs):
        raise ValueError("inputs is empty; it needs at least one sample.")
    batch = inputs.repeat(math.ceil(batch_size / len(inputs)), *[1] * (inputs.ndim - 1))[:batch_size]
    times: list[list[float]] = [[] for _ in models]
    turns = TURNS if len(models) > 1 else 1
    shares = [runs * (turn + 1) // turns - runs * turn // turns for turn in range(turns)]
    for share in shares:
        for model, own in zip(models, times, strict=True):
            for run in range(-warm_up, share):
                if cancel is not None and cancel.is_set():
                    raise training.Cancelled(f"cancelled after {len(own)} of {runs} latency runs.")
                began = time.perf_counter()
                training.predict(model, batch)
                milliseconds = 1000 * (time.perf_counter() - began)
                if run >= 0:
                    own.append(milliseconds)
    return [_median(own) for own in times]


def _median(times: Sequence[float]) -> Estimate:
    kept, runs = sorted(times), len(times)
    below = int(stats.binom.ppf(0.025, runs, 0.5))  # runs that may lie below the true median, at the 2.5 % point
    return Estimate(statistics.median(kept), kept[below - 1], kept[runs - below], runs)
