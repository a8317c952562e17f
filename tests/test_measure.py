from __future__ import annotations

import copy
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from kit import data, files, measure, models, prune, training
from kit.data import Dataset, Split
from kit.measure import Estimate


@pytest.mark.parametrize("total", [1, 2, 7, 30, 539, 10_000])
def test_wilson_is_scipys(total: int) -> None:
    for successes in sorted({0, 1, total // 3, total // 2, total - 1, total}):
        ours = Estimate.from_counts(successes, total)
        theirs = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
        assert ours.value == successes / total
        assert ours.n == total
        assert ours.low == pytest.approx(theirs.low, abs=1e-7)
        assert ours.high == pytest.approx(theirs.high, abs=1e-7)
        assert 0 <= ours.low <= ours.value <= ours.high <= 1
        assert ours.low < ours.high


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_wilson_covers_the_truth(share: float) -> None:
    """Exactly, by summing over all outcomes: near 95 %, and never far below."""
    n = 540
    intervals = [Estimate.from_counts(k, n) for k in range(n + 1)]
    inside = [interval.low <= share <= interval.high for interval in intervals]
    coverage = float(stats.binom.pmf(np.arange(n + 1), n, share)[inside].sum())
    assert 0.93 < coverage < 0.97


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_from_values_is_students_interval(n: int) -> None:
    values = np.random.default_rng(n).normal(5, 2, n).tolist()
    ours = Estimate.from_values(values)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (ours.value, ours.low, ours.high) == pytest.approx((np.mean(values), low, high))
    assert ours.n == n
    assert all(type(number) is float for number in (ours.value, ours.low, ours.high))


def test_from_values_covers_the_truth() -> None:
    draws = np.random.default_rng(0).normal(3, 1, (2000, 5))
    intervals = [Estimate.from_values(row.tolist()) for row in draws]
    coverage = np.mean([interval.low <= 3 <= interval.high for interval in intervals])
    assert abs(coverage - 0.95) < 0.02  # four standard errors


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_from_counts_refuses(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"successes must lie in 0 .. total .* got {successes} of {total}"):
        Estimate.from_counts(successes, total)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_from_values_refuses(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values needs at least two finite numbers"):
        Estimate.from_values(values)


def test_percent() -> None:
    assert Estimate(0.974, 0.9591, 0.984, 540).percent == "97.4 % (95.9 to 98.4)"


def test_sizes_in_closed_form() -> None:
    net = models.MLP((20, 30, 5))
    count = 20 * 30 + 30 + 30 * 5 + 5
    assert measure.parameters(net) == measure.nonzeros(net) == count
    assert measure.dense_bytes(net) == 4 * count
    masked = prune.weights(net, ratio=0.8)
    assert measure.parameters(masked) == count
    assert measure.nonzeros(masked) == count - 600  # 0.8 of 750 weights; biases stay
    assert measure.dense_bytes(masked) == 4 * count
    norm = nn.BatchNorm1d(7)  # scale and shift; running mean and variance; one int64 counter
    assert measure.parameters(norm) == 14
    assert measure.nonzeros(norm) == 7
    assert measure.dense_bytes(norm) == 4 * 28 + 8
    assert measure.dense_bytes(nn.Linear(3, 2, dtype=torch.float64)) == 8 * 8


def test_a_shared_tensor_counts_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    assert measure.parameters(net) == measure.nonzeros(net) == 16
    assert measure.dense_bytes(net) == 64


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9])
def test_file_bytes_are_those_of_a_file_really_written(trained: nn.Module, tmp_path: Path, ratio: float) -> None:
    net = prune.weights(trained, ratio=ratio)
    size = measure.file_bytes(net)
    assert size == files.write(net, tmp_path / "net", sparse=True) == (tmp_path / "net").stat().st_size
    weights = measure.parameters(net)
    if ratio == 0.9:
        assert 5 * 0.1 * weights < size < 1.2 * 5 * 0.1 * weights + 2000  # four bytes and a gap for each that is left
    else:
        assert 4 * (1 - ratio) * weights < size < measure.dense_bytes(net) + 1000
    back = files.read(tmp_path / "net")
    assert all(torch.equal(back[name], tensor) for name, tensor in net.state_dict().items())


def test_file_bytes_notices_a_file_that_reads_back_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = files.decode
    monkeypatch.setattr(files, "decode", lambda data: {name: tensor * 2 for name, tensor in decode(data).items()})
    with pytest.raises(RuntimeError, match=r"the file written for layers.0.weight does not read back equal"):
        measure.file_bytes(models.MLP())


def test_flops_in_closed_form(digits: Dataset) -> None:
    """Two for each multiply-add, for one sample whatever the batch."""
    x = digits.train.inputs[:5]
    mlp = models.MLP((64, 30, 10))
    assert measure.flops(mlp, x) == 2 * (64 * 30 + 30 * 10)
    assert measure.flops(prune.weights(mlp, ratio=0.9), x) == measure.flops(mlp, x)  # zeros are multiplied too
    conv = models.ConvNet(channels=(3, 5), hidden=7)
    assert measure.flops(conv, x) == 2 * (64 * 9 * 3 + 64 * 9 * 3 * 5 + 5 * 16 * 7 + 7 * 10)
    thin = prune.channels(models.ConvNet(), ratio=0.5, dataset=digits)
    assert measure.flops(thin, x) == measure.flops(models.ConvNet(channels=(16, 32), hidden=64), x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1)  # [n, 8 rows, 8 pixels]
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


def test_flops_see_into_fused_attention(digits: Dataset) -> None:
    """In evaluation mode torch runs attention as one operation that its counter does not know."""
    projections, products = 4 * 2 * 8 * 8 * 8, 2 * 2 * 8 * 8 * 8  # q, k, v, out; then scores and their sum of values
    before = torch.backends.mha.get_fastpath_enabled()
    assert measure.flops(Attention(), digits.train.inputs) == projections + products
    assert torch.backends.mha.get_fastpath_enabled() is before


class Clock:
    """A clock on which the n-th forward pass takes the n-th of the given times, in seconds."""

    def __init__(self, times: Any) -> None:
        self.times, self.now, self.running = iter(times), 0.0, False

    def perf_counter(self) -> float:
        if self.running:
            self.now += next(self.times)
        self.running = not self.running
        return self.now


def timed(monkeypatch: pytest.MonkeyPatch, times: Any, **settings: Any) -> Estimate:
    monkeypatch.setattr(measure, "time", Clock(times))
    monkeypatch.setattr(measure, "training", SimpleNamespace(predict=lambda model, batch: None))
    return measure.latency(nn.Identity(), torch.zeros(1, 1), **settings)


def test_latency_is_the_median_of_warm_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [100.0, 100.0, *np.random.default_rng(0).permutation(np.arange(1, 12)) / 1000]
    estimate = timed(monkeypatch, seconds, runs=11, warm_up=2)
    # Binomial(11, 1/2): P(X <= 1) = 0.6 %, P(X <= 2) = 3.3 %, so the 2nd and the 10th of 11 hold the median.
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == pytest.approx((6.0, 2.0, 10.0, 11))


@pytest.mark.parametrize("runs", [6, 7, 20, 21])
def test_latency_interval_covers_the_true_median(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """Whatever the law of the times: here a skewed one with median 1 ms."""
    rng, covered, rounds = np.random.default_rng(runs), 0, 1000
    for _ in range(rounds):
        estimate = timed(monkeypatch, np.exp(rng.normal(0, 1, runs)) / 1000, runs=runs, warm_up=0)
        covered += estimate.low <= 1 <= estimate.high
    assert 0.93 < covered / rounds < 0.999  # at least 95 %, give or take three standard errors


class Counter(nn.Module):
    """Remembers what it was given, and answers with logits for class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(x)
        return torch.eye(10)[0].expand(len(x), 10)


def test_latency_runs_the_batch_it_says(digits: Dataset) -> None:
    for batch_size, inputs in ((1, digits.train.inputs), (5, digits.train.inputs[:2]), (256, digits.test.inputs)):
        net = Counter()
        estimate = measure.latency(net, inputs, batch_size=batch_size, runs=6, warm_up=1)
        assert [len(batch) for batch in net.batches] == [batch_size] * 7
        assert torch.equal(net.batches[0][: len(inputs)], inputs[:batch_size])
        assert 0 < estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"runs": 5}, "runs must be 6 or more for a 95 % interval; got 5"),
        ({"warm_up": -1}, "warm_up must be 0 or more; got -1"),
    ],
)
def test_latency_refuses(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        measure.latency(Counter(), torch.zeros(1, 1), **settings)
    with pytest.raises(ValueError, match="inputs is empty"):
        measure.latency(Counter(), torch.zeros(0, 1))


def test_latency_can_be_cancelled_between_runs() -> None:
    cancel = threading.Event()

    class Cancels(Counter):
        def forward(self, x: Tensor) -> Tensor:
            if len(self.batches) == 4:
                cancel.set()
            return super().forward(x)

    net = Cancels()
    with pytest.raises(training.Cancelled, match="cancelled after 2 of 21 latency runs"):
        measure.latency(net, torch.zeros(1, 1), cancel=cancel)
    assert len(net.batches) == 5


def test_profile_is_what_its_parts_say(trained: nn.Module, digits: Dataset) -> None:
    net = prune.weights(trained, ratio=0.7)
    before = copy.deepcopy(net.state_dict())
    profile = measure.profile(net, digits.validation, batch_size=4)
    counts = training.evaluate(net, digits.validation)
    assert profile.accuracy == Estimate.from_counts(counts.correct, counts.total)
    assert profile.parameters == measure.parameters(net)
    assert profile.nonzeros == measure.nonzeros(net) < profile.parameters
    assert profile.dense_bytes == measure.dense_bytes(net)
    assert profile.file_bytes == measure.file_bytes(net) < profile.dense_bytes
    assert profile.flops == measure.flops(net, digits.validation.inputs)
    assert profile.batch_size == 4
    assert profile.size("latency") == profile.latency.value > 0
    assert [profile.size(name) for name in measure.SIZES if name != "latency"] == [
        getattr(profile, name) for name in measure.SIZES if name != "latency"
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(ValueError, match="size must be one of nonzeros, .* got 'weight'"):
        profile.size("weight")  # type: ignore[arg-type]


def test_profile_can_be_cancelled(digits: Dataset) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(training.Cancelled):
        measure.profile(models.MLP(), digits.validation, cancel=cancel)


def test_final_test_reads_the_test_split_only(digits: Dataset) -> None:
    net = Counter()
    last_word = measure.final_test(net, digits)
    assert torch.equal(torch.cat(net.batches), digits.test.inputs)
    assert last_word == Estimate.from_counts(int((digits.test.labels == 0).sum()), len(digits.test))
    swapped = data.Dataset("swapped", digits.test, digits.train, Split(*vars(digits.validation).values()), ("",) * 10)
    assert measure.final_test(Counter(), swapped).n == len(digits.validation)


def test_pairs_are_compared_seed_by_seed() -> None:
    first, second = [0.9, 0.8, 0.7], [0.88, 0.79, 0.70]
    paired = Estimate.from_pairs(first, second)
    reference = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert paired.value == pytest.approx(0.01)
    assert (paired.low, paired.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    with pytest.raises(ValueError, match="one value for each seed; got 2 and 3"):
        Estimate.from_pairs([1.0, 2.0], [1.0, 2.0, 3.0])


def test_latencies_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    class Noted(nn.Module):
        def __init__(self, name: int) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            order.append(self.name)
            return x

    both = measure.latencies([Noted(1), Noted(2)], torch.zeros(3, 2), runs=7, warm_up=1)
    assert order == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3 + [1] * 4 + [2] * 4  # each turn: one to warm up, then 2, 2, 3
    assert [estimate.n for estimate in both] == [7, 7]


def test_the_interval_of_a_share_stays_within_it() -> None:
    assert Estimate(0.9, 0.7, 1.1, 3).share == Estimate(0.9, 0.7, 1.0, 3)
    assert Estimate(0.1, -0.1, 0.3, 3).share == Estimate(0.1, 0.0, 0.3, 3)
