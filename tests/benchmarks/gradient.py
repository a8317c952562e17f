"""Tuning by slopes: against searches at the same cost, against a plain loop in time; flipped labels; new tangents.

Cost is counted in gradient evaluations of the training loss. What a search found is trained again from the start, and
its validation loss there is what counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch.func import functional_call

from kit import cores, data, measure, models
from kit.data import Dataset
from kit.explorers import GradientExplorer
from kit.explorers.gradient import STOPS
from kit.measure import Estimate
from kit.search import Bayes, Random, Study, gradient
from kit.search.gradient import Problem, Unrolled
from kit.search.trials import Method
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

SIZES, SAMPLES = (64, 16, 10), 100  # few samples: with all 898 nearly no decay is best
SEEDS, BUDGETS, STEPS = 8, (500, 3000), 100
BACK, RATE = 20, 0.6  # steps gone back; of the outer loop
ROUNDS = 7
LEVEL = Target("at most", 1.05)  # with one or two decays a search is as good; slopes pay with many
LABEL_SEEDS, SHARE, OUTER = range(5, 10), 0.2, 12  # other seeds than those by which the settings were chosen
TANGENTS = 8


def benchmark(say: Say) -> Iterator[Row]:
    """All parts."""
    digits = data.digits()
    yield _against_a_plain_loop(digits, say)
    yield _new_tangents(digits, say)
    yield from _flipped_labels(digits, say)
    yield from _at_equal_cost(digits.part(SAMPLES), say)


def _against_a_plain_loop(digits: Dataset, say: Say) -> Row:
    """The same hypergradient, all steps unrolled: what a reader would write with torch.autograd, beside the kit's."""
    problem = gradient.network(models.MLP(SIZES), digits, weight_decay=0.01, steps=STEPS)
    way, ours, plain = Unrolled(recompute=False), list[float](), list[float]()
    with cores.one_thread():
        for _ in range(ROUNDS):
            own, took = _timed(lambda: float(way.at(problem, problem.hyper).slope["weight_decay"]))
            ours.append(took)
            other, took = _timed(partial(_plain, digits))
            plain.append(took)
            assert math.isclose(own, other, rel_tol=1e-3), f"the slopes differ: {own}, {other}"
    say(f"unrolled through {STEPS} steps: kit {1000 * min(ours):.0f} ms, plain loop {1000 * min(plain):.0f} ms")
    what = f"hypergradient through {STEPS} steps: plain torch loop / the kit's, both keep all"
    return Row.of("gradient.loop", what, 1000 * min(ours), 1000 * min(plain), "ms", Target("at least", 1))


def _plain(digits: Dataset) -> float:
    net, train, validation = models.MLP(SIZES), digits.train, digits.validation
    coordinate = torch.tensor(0.01).log().requires_grad_()
    names = [name for name, _ in net.named_parameters()]
    weights: list[torch.Tensor] = list(net.parameters())
    velocity = [torch.zeros_like(each) for each in weights]
    for _ in range(STEPS):
        logits = functional_call(net, dict(zip(names, weights, strict=True)), (train.inputs,))
        decay = coordinate.exp() / 2 * torch.stack([each.square().sum() for each in weights]).sum()
        slopes = torch.autograd.grad(F.cross_entropy(logits, train.labels) + decay, weights, create_graph=True)
        velocity = [0.9 * each + slope for each, slope in zip(velocity, slopes, strict=True)]
        weights = [each - 0.2 * step for each, step in zip(weights, velocity, strict=True)]
    logits = functional_call(net, dict(zip(names, weights, strict=True)), (validation.inputs,))
    return float(torch.autograd.grad(F.cross_entropy(logits, validation.labels), coordinate)[0])


def _timed(call: Callable[[], float]) -> tuple[float, float]:
    """What it gives, and its seconds of the processor."""
    began = time.process_time()
    return call(), time.process_time() - began


def _new_tangents(digits: Dataset, say: Say) -> Row:
    """From a weight decay that was never asked for to its point and all its tangents, in a script."""
    explorer, took = GradientExplorer(models.MLP(SIZES), digits), list[float]()
    explorer.wait_curves()
    for weight_decay in STOPS[5 :: len(STOPS) // TANGENTS]:
        time.sleep(0.3)
        began = time.perf_counter()
        explorer.set(weight_decay=weight_decay)
        explorer.wait()
        took.append(1000 * (time.perf_counter() - began))
    explorer.close()
    say(f"{len(took)} new tangents: median {statistics.median(took):.0f} ms, most {max(took):.0f} ms")
    what = "gradient explorer, digits: point and tangents of a new weight decay / limit"
    return Row.of("gradient.tangent", what, statistics.median(took), 500, "ms", Target("at most", 1))


def _flipped_labels(digits: Dataset, say: Say) -> Iterator[Row]:
    """Doubted labels: area under the ROC curve, and accuracy on validation samples that gave no slope."""
    areas, ranked, right = list[float](), list[float](), dict[str, list[float]]()
    for seed in LABEL_SEEDS:
        wrong, flipped = gradient.flip(digits, SHARE, seed)
        half, held_out = gradient.halves(wrong, seed)
        model = models.MLP(SIZES, seed=seed)
        problem = gradient.network(model, half, ["sample_weight"], steps=STEPS)
        record = list(islice(gradient.clean(problem, Unrolled(10)), OUTER + 1))
        weights = {"all labels": torch.ones(len(flipped)), "clean labels": (~flipped).float()}
        weights |= {"learned weights": record[-1].weights}
        nets = {}
        for name, given in weights.items():
            nets[name] = gradient.trained(model, problem.path({"sample_weight": given})[-1])
            right.setdefault(name, []).append(measure.accuracy(nets[name], held_out).value)
        areas.append(gradient.auc(-record[-1].weights, flipped).value)
        ranked.append(gradient.auc(gradient.sample_losses(nets["all labels"], wrong.train), flipped).value)
    for name, found in {"learned weights": areas, "loss ranking": ranked}.items():
        say(f"{SHARE:.0%} flipped, AUC of {name}: mean {statistics.fmean(found):.3f}, least {min(found):.3f}")
    for name, found in right.items():
        say(f"{SHARE:.0%} flipped, accuracy with {name}: {statistics.fmean(found):.3f}")
    lower, ours, upper = (statistics.fmean(right[name]) for name in ("all labels", "learned weights", "clean labels"))
    what = f"{SHARE:.0%} of labels flipped: AUC of learned weights, mean of {len(areas)} seeds / target"
    yield Row.of("gradient.labels.auc", what, 0.95, statistics.fmean(areas), "", Target("at least", 1))
    what = f"{SHARE:.0%} of labels flipped: points behind clean labels, learned weights / all labels"
    gaps = 100 * (upper - ours), 100 * (upper - lower)
    yield Row.of("gradient.labels.gap", what, *gaps, "points", Target("at most", 0.5))


def _at_equal_cost(digits: Dataset, say: Say) -> Iterator[Row]:
    """Validation loss of what is found within the budget, by the slope and by searches."""
    for per, words in (("network", "one weight decay"), ("layer", "one weight decay per layer")):
        found: dict[tuple[str, int], list[float]] = {}
        for seed in range(SEEDS):
            problem = gradient.network(models.MLP(SIZES, seed=seed), digits, per=per, steps=STEPS)  # type: ignore[arg-type]
            for budget in BUDGETS:
                methods: dict[str, Method] = {"random": Random(seed), "Bayes": Bayes(seed=seed)}
                down = gradient.descend(problem, Unrolled(BACK), budget=budget, rate=RATE)
                studies = {"slope": down} | {
                    name: _searched(problem, method, budget) for name, method in methods.items()
                }
                for name, study in studies.items():
                    found.setdefault((name, budget), []).append(problem.objective(study.best.config))
        for budget in BUDGETS:
            means = {name: statistics.fmean(found[name, budget]) for name in ("slope", "random", "Bayes")}
            say(f"{words}, {budget:,} gradients, nats: " + ", ".join(f"{name} {x:.4f}" for name, x in means.items()))
            for rival in ("random", "Bayes"):
                gain = Estimate.from_pairs(found["slope", budget], found[rival, budget])
                say(
                    f"{words}, {budget:,}: slope - {rival} {gain.value:+.4f} nats ({gain.low:+.4f} to {gain.high:+.4f})"
                )
                what = f"{words}, {budget:,} gradient evaluations: validation loss, descent / {rival}"
                name = f"gradient.{per}.{budget}.{rival.lower()}"
                yield Row.of(name, what, means["slope"], means[rival], "nats", LEVEL)


def _searched(problem: Problem, method: Method, budget: int) -> Study:
    study = Study(problem.wide)
    return study.run(problem.objective, method, budget=budget, unit="epochs", epochs=STEPS)
