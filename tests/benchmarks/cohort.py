"""A hundred small networks trained as one, against the ordinary loop, scikit-learn's search, and the machine's peak."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import torch
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

from kit import cohort, data, models, training
from kit.data import Dataset
from kit.measure import Estimate
from tests.benchmarks.networks import searched
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

K, EPOCHS, BATCH = 128, 20, 64
SIZES, WIDE = (64, 16, 10), (64, 64, 10)
LR = 1e-2  # scikit-learn draws its first weights by another law; at this rate both have forgotten them after 20 epochs
ROUNDS = 3


def benchmark(say: Say) -> Iterator[Row]:
    """All rivals in turn, in rounds, so that a slow spell of the machine meets all."""
    digits = data.digits()
    _cohort(digits, SIZES)  # warm
    seconds: dict[str, list[float]] = {"cohort": [], "loop": [], "search": [], "wide": [], "peak": []}
    reached: dict[str, Estimate] = {}
    for number in range(ROUNDS):
        for name, run in (("cohort", _cohort), ("loop", _loop), ("search", _search)):
            took, reached[name] = run(digits, SIZES)
            seconds[name].append(took)
        seconds["wide"].append(_cohort(digits, WIDE)[0])
        seconds["peak"].append(1 / _peak())
        say(f"round {number + 1} of {ROUNDS}: " + ", ".join(f"{name} {s[-1]:.3g}" for name, s in seconds.items()))
    for name, accuracy in reached.items():
        say(f"{name}: accuracy {accuracy.percent}, mean of {accuracy.n} networks")
    ours, loop, search = (statistics.median(seconds[name]) for name in ("cohort", "loop", "search"))
    what = f"{K} MLPs 64-16-10, {EPOCHS} epochs on digits"
    yield Row.of("cohort.loop", f"{what}: ordinary PyTorch loop / cohort", ours, loop, "s", Target("at least", 15))
    rival = "GridSearchCV(MLPClassifier, n_jobs=2)"
    yield Row.of("cohort.search", f"{what}: {rival} / cohort", ours, search, "s", Target("at least", 8))
    for name, words in (("loop", "the ordinary loop"), ("search", rival)):
        apart = abs(reached["cohort"].value - reached[name].value)
        widths = sum(each.high - each.value for each in (reached["cohort"], reached[name]))
        what = f"mean accuracies of cohort and {words} apart / sum of their intervals' half widths"
        yield Row.of(f"cohort.accuracy.{name}", what, 100 * apart, 100 * widths, "points", Target("at most", 1))
    reach = _multiplications(digits, WIDE) / statistics.median(seconds["wide"]) / 1e9
    peak = 1 / min(seconds["peak"]) / 1e9
    say(f"64-wide cohorts reach {100 * reach / peak:.0f} % of the measured matrix-multiply peak")
    say("16 ConvNets of 8 and 16 channels, 3 epochs: loop {:.2f} s, cohort {:.2f} s".format(*_convnets(digits)))
    what = f"matrix-multiply peak / what {K} MLPs 64-64-10 reach in training, all other work included"
    yield Row.of("cohort.peak", what, peak, reach, "GFLOP/s", Target("at most", 2.2))


def _cohort(digits: Dataset, sizes: tuple[int, ...]) -> tuple[float, Estimate]:
    began = time.perf_counter()
    networks = cohort.Cohort(models.MLP(sizes), cohort.members(seed=range(K), lr=LR))
    cohort.fit(networks, digits.train, epochs=EPOCHS, batch_size=BATCH)
    seconds = time.perf_counter() - began
    return seconds, Estimate.from_values([each.value for each in cohort.accuracies(networks, digits.validation)])


def _loop(digits: Dataset, sizes: tuple[int, ...]) -> tuple[float, Estimate]:
    """`training.fit`: tensors sliced by hand, which is quicker than a DataLoader; one thread, quicker than two here."""
    began = time.perf_counter()
    networks = [models.MLP(sizes, seed=seed) for seed in range(K)]
    for seed, network in enumerate(networks):
        training.fit(network, digits, epochs=EPOCHS, seed=seed, lr=LR, batch_size=BATCH)
    seconds = time.perf_counter() - began
    counts = [training.evaluate(network, digits.validation) for network in networks]
    return seconds, Estimate.from_values([each.correct / each.total for each in counts])


def _convnets(digits: Dataset) -> tuple[float, float]:
    """Seconds of the ordinary loop, and of the cohort."""
    networks, seeds = [models.ConvNet(channels=(8, 16), hidden=32, seed=seed) for seed in range(16)], range(16)
    began = time.perf_counter()
    for seed, network in enumerate(networks):
        training.fit(network, digits, epochs=3, seed=seed)
    between = time.perf_counter()
    cohort.fit(cohort.Cohort(networks[0], cohort.members(seed=seeds)), digits.train, epochs=3)
    return between - began, time.perf_counter() - between


def _search(digits: Dataset, sizes: tuple[int, ...]) -> tuple[float, Estimate]:
    """As many fits; scoring is part of the search, and of its time."""
    fixed = {"batch_size": BATCH, "learning_rate_init": LR, "max_iter": EPOCHS, "n_iter_no_change": EPOCHS}
    network = MLPClassifier(sizes[1:-1], alpha=0.0, **fixed)
    seconds, search = searched(GridSearchCV, network, {"random_state": range(K)}, digits)
    return seconds, Estimate.from_values(search.cv_results_["mean_test_score"].tolist())


def _multiplications(digits: Dataset, sizes: tuple[int, ...]) -> float:
    """Floating-point operations of all matrix products: forward, weight gradients, and gradients of hidden layers."""
    layers = [a * b for a, b in itertools.pairwise(sizes)]
    a_sample = 2 * (2 * sum(layers) + sum(layers[1:]))
    return float(K * EPOCHS * len(digits.train) * a_sample)


def _peak() -> float:
    """Operations a second of a large matrix product, the best of several."""
    n = 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return float(2 * n**3 / min(times))
