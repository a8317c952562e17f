"""Architecture search on the measured table: regret against Optuna's TPE, evolution's pace, and shared weights.

Every search reads one training of three of a network, by its repeat; the regret is how far its choice lies below the
best network, both by the mean of the three. A training counts once: asked again, or for a cell that is no network, TPE
pays nothing.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from kit import data
from kit.cells import EDGES, OPERATIONS, Cell
from kit.search import Bayes, Random, Study, architecture
from kit.search.architecture import Evolution, LocalSearch, Table
from kit.search.trials import Method, Trial
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target

RUNS, BUDGETS = 100, (25, 100, 400)  # trainings
LONG_RUNS = 20  # of Bayes to the largest budget: 16 s each
TPE_ASKS = 3  # as many times the largest budget
SHARED_EPOCHS = 10
METHODS: dict[str, Callable[[int], Method]] = {
    "random": Random,
    "local search": LocalSearch,
    "evolution": lambda seed: Evolution(seed=seed),
    "Bayes": lambda seed: Bayes(seed=seed, bounds=(0, 1)),
}


def benchmark(say: Say) -> Iterator[Row]:
    """All parts."""
    if importlib.util.find_spec("optuna") is None:
        raise UnavailableError("optuna not installed: 'make peers' does it.")
    table = _table()
    yield _evolution(table, say)
    yield from _shared_weights(table, say)
    yield from _regrets(say)


def _evolution(table: Table, say: Say) -> Row:
    took = []
    for seed in range(3):
        began = time.perf_counter()
        Study(table.space(), maximise=True).run(table.objective(seed), Evolution(seed=seed), budget=1000)
        took.append(time.perf_counter() - began)
    say(f"1,000 trials of evolution: {min(took):.2f} s")
    return Row.of("architecture.pace", "1,000 trials of evolution / limit", min(took), 1.0, "s", Target("at most", 1))


def _shared_weights(table: Table, say: Say) -> Iterator[Row]:
    mnist, began = data.mnist(), time.perf_counter()
    supernet = architecture.share(mnist)
    trained = time.perf_counter()
    scores = architecture.scores(supernet, mnist)
    took = time.perf_counter() - trained
    say(f"supernet: trained in {trained - began:.1f} s, {len(scores):,} cells scored in {took:.1f} s")
    good = table.mean >= np.quantile(table.mean, 0.75)
    rivals: dict[str, np.ndarray] = {"shared weights": scores, "parameters": table.parameters, "FLOPs": table.flops}
    rivals["one epoch of training"] = table.curves[:, 0, 0]
    taus = {name: float(kendalltau(each, table.mean).statistic) for name, each in rivals.items()}
    for name, each in rivals.items():
        best = kendalltau(each[good], table.mean[good]).statistic
        say(f"Kendall's tau of {name} with the table: {taus[name]:.2f}; among the best quarter {best:.2f}")
    what = "supernet trained, on one core / limit"
    yield Row.of("architecture.supernet.train", what, trained - began, 60, "s", Target("at most", 1))
    what = "all cells scored by shared weights / limit"
    yield Row.of("architecture.supernet.score", what, took, 30, "s", Target("at most", 1))
    what = "Kendall's tau with the table: shared weights / number of parameters"
    pair = taus["parameters"], taus["shared weights"]
    yield Row.of("architecture.supernet.tau", what, *pair, "", Target("at least", 1))


def _regrets(say: Say) -> Iterator[Row]:
    jobs = [(name, seed) for name in (*METHODS, "TPE") for seed in range(RUNS)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes below
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(_play, *zip(*jobs, strict=True), chunksize=2), strict=True))
    median: dict[tuple[str, int], float] = {}
    for name in (*METHODS, "TPE"):
        for at, budget in enumerate(BUDGETS):
            found = [100 * results[name, seed][at] for seed in range(RUNS) if len(results[name, seed]) > at]
            median[name, budget] = statistics.median(found)
            low, high = np.quantile(found, [0.25, 0.75])
            middle = f"regret {median[name, budget]:.2f} points"
            say(f"{budget} trainings, {name}: {middle} (quartiles {low:.2f}, {high:.2f}; {len(found)} runs)")
    for budget in BUDGETS:
        for name in list(METHODS)[1:]:
            for rival in ("random", "TPE"):
                what = f"{budget} trainings: median regret, {name} / {rival}"
                key = f"architecture.regret.{name.partition(' ')[0]}.{rival}.{budget}"
                pair = median[name, budget], median[rival, budget]
                yield Row.of(key, what, *pair, "points", Target("at most", 1))


def _play(name: str, seed: int) -> list[float]:
    """The regret at each budget."""
    table, budgets = _table(), BUDGETS[:-1] if name == "Bayes" and seed >= LONG_RUNS else BUDGETS
    objective = table.objective(seed)
    if name == "TPE":
        tried = _tpe(seed)
    else:
        trials: tuple[Trial, ...] = (
            Study(table.space(), maximise=True).run(objective, METHODS[name](seed), budget=budgets[-1]).trials
        )
        tried = [(str(trial.config["cell"]), float(trial.value or 0)) for trial in trials]
    chosen = [max(tried[:budget], key=lambda pair: pair[1])[0] for budget in budgets]
    return [float(table.mean.max() - table.mean[table.row(cell)]) for cell in chosen]


def _tpe(seed: int) -> list[tuple[str, float]]:
    """What Optuna's TPE trains, in order: five categorical parameters, one for each edge."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    names = [f"{start}-{end}" for start, end in EDGES]
    laws: dict[str, Any] = {name: optuna.distributions.CategoricalDistribution(OPERATIONS) for name in names}
    objective, found = _table().objective(seed), dict[str, float]()
    for _ in range(TPE_ASKS * max(BUDGETS)):
        trial = study.ask(laws)
        cell = Cell(tuple(trial.params[name] for name in names))
        value = objective({"cell": str(cell.canonical)}) if cell.is_connected else 0.0
        study.tell(trial, value)
        if cell.is_connected:
            found[str(cell.canonical)] = value
        if len(found) == max(BUDGETS):
            break
    return list(found.items())


@cache
def _table() -> Table:
    return architecture.load()
