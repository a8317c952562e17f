from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.data import Dataset, Split
from kit.measure import Estimate
from tests.nets import same


@pytest.mark.parametrize("total", [1, 2, 7, 20, 30, 539, 10_000])  # of 20, rounding would lift the end above 1
def test_wilson_is_scipys(total: int) -> None:
    for successes in sorted({0, 1, total // 3, total // 2, total - 1, total}):
        ours = Estimate.from_counts(successes, total)
        theirs = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
        assert (ours.value, ours.n) == (successes / total, total)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-7)
        assert 0 <= ours.low <= ours.value <= ours.high <= 1 and ours.low < ours.high


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_wilson_covers_the_truth(share: float) -> None:
    """Exactly, by summing over all outcomes: near 95 %, and never far below."""
    n = 540
    intervals = [Estimate.from_counts(k, n) for k in range(n + 1)]
    inside = [interval.low <= share <= interval.high for interval in intervals]
    coverage = float(stats.binom.pmf(np.arange(n + 1), n, share)[inside].sum())
    assert 0.93 < coverage < 0.97


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_intervals_of_values_and_of_pairs_are_students(n: int) -> None:
    values, others = np.random.default_rng(n).normal(5, 2, (2, n)).tolist()
    ours, paired = Estimate.from_values(values), Estimate.from_pairs(values, others)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (ours.value, ours.low, ours.high, ours.n) == pytest.approx((np.mean(values), low, high, n))
    assert all(type(number) is float for number in (ours.value, ours.low, ours.high))
    reference = stats.ttest_rel(values, others).confidence_interval(0.95)
    assert paired.value == pytest.approx(np.mean(values) - np.mean(others))
    assert (paired.low, paired.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def latency_of_none(n: int = 1, **settings: Any) -> Callable[[], Estimate]:
    return lambda: measure.latency(nn.Identity(), torch.zeros(n, 1), **settings)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        *(
            (lambda k=k, n=n: Estimate.from_counts(k, n), f"successes must lie in 0 .. total .* got {k} of {n}")
            for k, n in ((0, 0), (-1, 5), (6, 5), (0, -1))
        ),
        *(
            (lambda values=values: Estimate.from_values(values), "values needs at least two finite numbers")
            for values in ([], [1.0], [1.0, math.nan], [1.0, math.inf])
        ),
        (lambda: Estimate.from_pairs([1.0, 2.0], [1.0, 2.0, 3.0]), "one value for each seed; got 2 and 3"),
        (latency_of_none(batch_size=0), "batch_size must be 1 or more; got 0"),
        (latency_of_none(runs=5), "runs must be 6 or more; got 5"),
        (latency_of_none(warm_up=-1), "warm_up must be 0 or more; got -1"),
        (latency_of_none(0), "inputs is empty"),
        (
            lambda: measure.profile(models.MLP(), data.digits().test, batch_size=0),
            "batch_size must be 1 or more; got 0",
        ),
    ],
)
def test_what_gives_no_estimate_is_refused(make: Callable[[], Estimate], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("name", ["batch_size", "runs", "warm_up"])
@pytest.mark.parametrize("value", [True, "8", 7.0, None, math.nan])
def test_what_is_no_number_of_runs_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number; got {value!r}"):
        latency_of_none(**{name: value})()
    with pytest.raises(TypeError, match=r"inputs must be a tensor \[n, ...\]; got \[\[0.0\]\]"):
        measure.latency(nn.Identity(), [[0.0]])  # type: ignore[arg-type]


def test_percent_and_share() -> None:
    assert Estimate(0.974, 0.9591, 0.984, 540).percent == "97.4 % (95.9 to 98.4)"
    assert Estimate(0.9, 0.7, 1.1, 3).share == Estimate(0.9, 0.7, 1.0, 3)
    assert Estimate(0.1, -0.1, 0.3, 3).share == Estimate(0.1, 0.0, 0.3, 3)


def timed(monkeypatch: pytest.MonkeyPatch, times: Any, **settings: Any) -> Estimate:
    """A latency on a clock on which the n-th forward pass takes the n-th of the given times, in seconds."""
    readings = itertools.chain.from_iterable((8.0, 8.0 + time) for time in times)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    monkeypatch.setattr(training, "predict", lambda model, batch: None)
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
    measure.latency(net := Counter(), digits.train.inputs)
    assert [len(batch) for batch in net.batches] == [1] * (3 + 21)  # one sample, if nothing else is said


def test_a_measurement_can_be_cancelled(digits: Dataset) -> None:
    cancel, net = threading.Event(), Counter()
    net.register_forward_hook(lambda *_: cancel.set() if len(net.batches) == 5 else None)
    with pytest.raises(training.Cancelled, match="cancelled after 2 of 21 latency runs"):
        measure.latency(net, torch.zeros(1, 1), cancel=cancel)
    assert len(net.batches) == 5
    untouched = Counter()
    for measured in (measure.accuracy, measure.profile):
        with pytest.raises(training.Cancelled):
            measured(untouched, digits.validation, cancel=cancel)
    with pytest.raises(ValueError, match="batch_size must be 1 or more; got 0"):
        measure.profile(untouched, digits.validation, batch_size=0)
    assert not untouched.batches  # refused before anything is computed
    cancel.clear()
    net = Counter()
    net.register_forward_hook(lambda *_: cancel.set() if [len(x) for x in net.batches[-5:]] == [7] * 5 else None)
    with pytest.raises(training.Cancelled, match="cancelled after 2 of 21 latency runs"):
        measure.profile(net, digits.validation, batch_size=7, cancel=cancel)


def test_a_profile_times_batches_of_the_size_it_says(digits: Dataset) -> None:
    cases: list[tuple[dict[str, Any], int]] = [({}, 1), ({"batch_size": 5}, 5)]
    for settings, size in cases:
        net = Counter()
        assert measure.profile(net, digits.validation, **settings).batch_size == size
        assert [len(batch) for batch in net.batches[-24:]] == [size] * 24  # 3 to warm up, 21 that count


def test_profile_is_what_its_parts_say(trained: nn.Module, digits: Dataset) -> None:
    net = prune.weights(trained, ratio=0.7)
    profile = measure.profile(net, digits.validation, batch_size=4)
    counts = training.evaluate(net, digits.validation)
    assert profile.accuracy == Estimate.from_counts(counts.correct, counts.total)
    for name in ("parameters", "nonzeros", "dense_bytes", "file_bytes"):
        assert profile.size(name) == getattr(measure, name)(net)
    assert profile.size("flops") == measure.flops(net, digits.validation.inputs)
    assert profile.batch_size == 4
    assert profile.size("latency") == profile.latency.value > 0
    assert same(net, prune.weights(trained, ratio=0.7))
    with pytest.raises(ValueError, match="size must be one of nonzeros, .* got 'weight'"):
        profile.size("weight")  # type: ignore[arg-type]


def test_a_profile_is_printed_in_words() -> None:
    right, took = Estimate.from_counts(390, 540), Estimate(0.12345, 0.1, 0.2, 21)
    profile = measure.Profile(right, 12_345, 1_234, 49_380, 5_678, 24_500, took, batch_size=8)
    wanted = [
        "accuracy: 72.2 % (68.3 to 75.8), on 540 samples",
        "parameters: 12,345, of which 1,234 are not zero",
        "bytes: 49.4 kB in memory, 5.7 kB in the file",
        "FLOPs: 0.0245 million for one sample",
        "latency: 0.123 ms (0.1 to 0.2) for a batch of 8",
    ]
    assert str(profile).splitlines() == wanted
    broken = dataclasses.replace(profile, nonfinite=512)
    assert str(broken).splitlines() == [wanted[0], f"the model {broken.broken}", *wanted[1:]]
    assert repr(profile).startswith("Profile(accuracy=Estimate(value=0.722")


def test_a_profile_counts_answers_that_are_no_numbers(digits: Dataset) -> None:
    net = models.MLP()
    nn.init.constant_(net.layers[1].bias, math.nan)  # type: ignore[arg-type]
    profile = measure.profile(net, digits.validation)
    assert (profile.nonfinite, profile.accuracy) == (539, Estimate.from_counts(0, 539))
    assert profile.broken == "answers NaN or infinity for 539 of 539 samples"
    assert measure.profile(models.MLP(), digits.validation).broken == ""


def test_final_test_reads_the_test_split_only(digits: Dataset) -> None:
    net = Counter()
    last_word = measure.final_test(net, digits)
    assert torch.equal(torch.cat(net.batches), digits.test.inputs)
    assert last_word == Estimate.from_counts(int((digits.test.labels == 0).sum()), len(digits.test))
    swapped = data.Dataset("swapped", digits.test, digits.train, Split(*vars(digits.validation).values()), ("",) * 10)
    assert measure.final_test(Counter(), swapped).n == len(digits.validation)


def test_latencies_are_measured_in_turn() -> None:
    order: list[int] = []
    nets = [nn.Identity(), nn.Identity()]
    for name, net in enumerate(nets):
        net.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    both = measure.latencies(nets, torch.zeros(3, 2), runs=7, warm_up=1)
    assert order == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 4 + [1] * 4  # each turn: one to warm up, then 2, 2, 3
    assert [estimate.n for estimate in both] == [7, 7]


class Spans:
    """When each thread was busy, and at what."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, float]] = []

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seen.append((what, began, time.perf_counter()))

    def overlap(self, one: str, other: str) -> bool:
        """Whether some span of `one` overlaps another span of `other`."""
        pairs = itertools.permutations(self.seen, 2)
        return any((a[0], b[0]) == (one, other) and a[1] < b[2] and b[1] < a[2] for a, b in pairs)

    def time_once(self, **settings: Any) -> Estimate:
        def timed(*_: Any) -> None:
            with self.of("timing"):
                time.sleep(0.001)

        net = nn.Identity()
        net.register_forward_pre_hook(timed)
        return measure.latency(net, torch.zeros(1, 1), runs=6, warm_up=0, **settings)


def run_together(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=100) for future in [pool.submit(call) for call in calls]]


def test_nothing_computes_while_a_latency_is_timed() -> None:
    """Threads that compute, in idle time or not, share the time among them; timing has it alone."""
    spans = Spans()

    def compute(what: str, patient: bool) -> None:
        for _ in range(25):
            with measure.computing(patient=patient), spans.of(what):
                time.sleep(0.002)

    def times() -> None:
        for _ in range(4):
            spans.time_once()

    busy = [lambda: compute("busy", False)] * 2
    run_together(*busy, lambda: compute("idle", True), lambda: compute("idle", True), times, times)
    for what in ("busy", "idle"):
        assert not spans.overlap("timing", what)
    assert not spans.overlap("timing", "timing")
    assert not spans.overlap("idle", "idle")  # one idle step at a time
    assert spans.overlap("busy", "busy")


def test_threads_that_compute_can_time_without_waiting_for_each_other() -> None:
    spans, together = Spans(), threading.Barrier(2)

    def compute_and_time(patient: bool) -> None:
        with measure.computing(patient=patient), measure.computing():  # entering again changes nothing
            together.wait(60)
            spans.time_once()
            with spans.of("busy"):  # computes again
                time.sleep(0.01)

    run_together(lambda: compute_and_time(True), lambda: compute_and_time(False))
    assert len(spans.seen) == 2 * (6 + 1)
    assert not spans.overlap("timing", "busy")
    spans.time_once()  # and the processor is free again


def test_an_idle_step_gives_way_to_a_timing_that_waits() -> None:
    asked = threading.Event()
    with measure.computing(), ThreadPoolExecutor(2) as pool:
        timing = pool.submit(Spans().time_once, cancel=asked)
        while not measure._processor.wanted:
            time.sleep(0.001)

        def entered(**settings: Any) -> bool:
            with measure.computing(**settings) as inside:
                return inside

        assert not pool.submit(entered, patient=True, timeout=0.01).result(5)
        assert pool.submit(entered).result(5)  # work that somebody asked for goes on
        asked.set()
        with pytest.raises(training.Cancelled, match="cancelled while it waited"):
            timing.result(5)
        assert pool.submit(entered, patient=True, timeout=5).result(6)


def test_computing_waits_no_longer_than_it_is_told() -> None:
    inside, cancel, net = threading.Event(), threading.Event(), nn.Identity()

    def wait(*_: Any) -> None:
        inside.set()
        cancel.wait(60)

    net.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        timing = pool.submit(measure.latency, net, torch.zeros(1, 1), cancel=cancel)
        inside.wait(60)
        for patient in (False, True):
            with measure.computing(patient=patient, timeout=0.01) as entered:
                assert not entered
        cancel.set()
        with pytest.raises(training.Cancelled):
            timing.result(5)
    with measure.computing(timeout=0.01) as entered:
        assert entered
