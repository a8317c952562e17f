"""Bayesian search against its peers: simple regret after 20, 40 and 60 trials, and seconds for each proposal.

Every method plays the same problems with the same seeds, by ask and tell; only the asking is timed. The median over
seeds is compared. On the two digits problems networks are really trained, and what a method chose is measured anew on
networks that it did not see; the best mean that anybody found there plays the optimum. There the kit's process is one
of log-odds, beside one of the plain errors.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np

from kit import data
from kit.search import Bayes, Float, Int, Random, Space, Study, functions, networks
from kit.search.space import Config
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target

SEEDS = 20
BOTORCH_SEEDS = 5  # it takes seconds a proposal
CHECKPOINTS = (20, 40, 60)
FRESH = 8  # networks that measure a choice anew

PLANE = Space({"lr": Float(1e-5, 10, log=True), "dropout": Float(0, 0.9)})
WIDE = Space(
    {
        "lr": Float(1e-5, 10, log=True),
        "weight_decay": Float(1e-6, 1, log=True),
        "dropout": Float(0, 0.9),
        "width": Int(4, 32, log=True),
        "label_smoothing": Float(0, 0.6),
    }
)


class Searcher(Protocol):
    """One search by ask and tell; less is better."""

    def ask(self) -> Config: ...

    def tell(self, value: float) -> None: ...


class Ours:
    """A method of the kit."""

    def __init__(self, space: Space, method: Any) -> None:
        self._study, self._method = Study(space), method

    def ask(self) -> Config:
        trial = self._study.ask(self._method)
        assert trial is not None
        self._number = trial.number
        return trial.config

    def tell(self, value: float) -> None:
        self._study.tell(self._number, value)


class Optuna:
    """One of Optuna's samplers, with its own defaults."""

    def __init__(self, space: Space, sampler: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=seed))
        laws = {Float: optuna.distributions.FloatDistribution, Int: optuna.distributions.IntDistribution}
        numbers: dict[str, Any] = dict(space.parameters)
        self._laws = {name: laws[type(each)](each.low, each.high, log=each.log) for name, each in numbers.items()}

    def ask(self) -> Config:
        self._trial = self._study.ask(self._laws)
        return dict(self._trial.params)

    def tell(self, value: float) -> None:
        self._study.tell(self._trial, value)


class BoTorch:
    """A single-task process with log expected improvement, as BoTorch's own first tutorial has it."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed, self._first = space, seed, 2 * (len(space) + 1)
        self._start = Ours(space, Bayes(seed=seed, start=self._first))
        self._places: list[np.ndarray] = []
        self._values: list[float] = []

    def ask(self) -> Config:
        begins = len(self._values) < self._first
        config = self._start.ask() if begins else self._space.decode(np.clip(self._proposed(), 0, 1))
        self._places.append(self._space.encode(config))
        return config

    def _proposed(self) -> np.ndarray:
        import torch
        from botorch.acquisition import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(self._seed)
        x = torch.tensor(np.array(self._places), dtype=torch.double)
        y = -torch.tensor(self._values, dtype=torch.double)[:, None]
        model = SingleTaskGP(x, y, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        bounds = torch.stack([torch.zeros(len(self._space)), torch.ones(len(self._space))]).double()
        promise = LogExpectedImprovement(model, y.max())
        found, _ = optimize_acqf(promise, bounds=bounds, q=1, num_restarts=5, raw_samples=256)
        return found[0].numpy()

    def tell(self, value: float) -> None:
        if len(self._values) < self._first:
            self._start.tell(value)
        self._values.append(value)


METHODS: dict[str, Callable[[Space, int], Searcher]] = {
    "kit": lambda space, seed: Ours(space, Bayes(seed=seed)),
    "random": lambda space, seed: Ours(space, Random(seed)),
    "TPE": lambda space, seed: Optuna(space, "TPESampler", seed),
    "GPSampler": lambda space, seed: Optuna(space, "GPSampler", seed),
    "BoTorch": BoTorch,
}
# Of errors, which lie between 0 and 1.
ON_ERRORS = METHODS | {
    "kit": lambda space, seed: Ours(space, Bayes(seed=seed, bounds=(0, 1))),
    "kit, plain errors": METHODS["kit"],
}
FUNCTIONS: dict[str, functions.Function] = {
    "Branin": functions.branin(),
    "Hartmann-6": functions.hartmann(6),
    "Ackley-5": functions.ackley(5),
    "Levy-4": functions.levy(4),
}
DIGITS = {"digits-2": PLANE, "digits-5": WIDE}


@dataclass(frozen=True)
class Played:
    """What one method reached on one problem."""

    chosen: list[list[float]]  # [seeds][checkpoints] regrets; on digits the chosen configurations' worth
    seconds: float  # a proposal, mean


def benchmark(say: Say) -> Iterator[Row]:
    """Three rows a problem, one of how often we are not worse, and one of seconds a problem."""
    missing = [name for name in ("optuna", "botorch") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(f"{' and '.join(missing)} not installed: 'make peers' does it.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes below: one problem on each core
    jobs = [(problem, method) for problem in (*FUNCTIONS, *DIGITS) for method in methods_on(problem)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(play, *zip(*jobs, strict=True)), strict=True))
    better = total = 0
    rows: list[Row] = []
    for problem in (*FUNCTIONS, *DIGITS):
        methods = methods_on(problem)
        regrets = _regrets({method: results[problem, method].chosen for method in methods}, problem in DIGITS)
        for method in methods:
            said = " / ".join(f"{value:.2g}" for value in regrets[method])
            seeds, seconds = len(results[problem, method].chosen), results[problem, method].seconds
            say(f"{problem}, {method}: regret {said} (median of {seeds} seeds), {1000 * seconds:.1f} ms a proposal")
        for at, trials in enumerate(CHECKPOINTS):
            ours, rival = regrets["kit"][at], regrets["GPSampler"][at]
            better, total = better + (ours <= rival), total + 1
            what = f"{problem}, {trials} trials: median simple regret, kit / Optuna's GPSampler"
            rows.append(Row.of(f"search.regret.{problem}.{trials}", what, ours, rival, "", Target("at most", 3)))
        own, theirs = (1000 * results[problem, name].seconds for name in ("kit", "GPSampler"))
        what = f"{problem}: a proposal, kit / GPSampler"
        rows.append(Row.of(f"search.ask.{problem}", what, own, theirs, "ms", Target("at most", 1)))
    yield from rows
    what = f"of {total} medians: those where kit is not worse than GPSampler / half"
    yield Row.of("search.majority", what, total / 2, better, "medians", Target("at least", 1))


def methods_on(problem: str) -> dict[str, Callable[[Space, int], Searcher]]:
    """Who plays a problem."""
    return ON_ERRORS if problem in DIGITS else METHODS


def play(problem: str, method: str) -> Played:
    """One method on one problem, all seeds."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seeds = range(BOTORCH_SEEDS if method == "BoTorch" else SEEDS)
    if problem in FUNCTIONS:
        return _play_function(FUNCTIONS[problem], method, seeds)
    return _play_digits(DIGITS[problem], method, seeds)


def _play_function(function: functions.Function, method: str, seeds: Sequence[int]) -> Played:
    chosen, times = [], []
    for seed in seeds:
        searcher, best, reached = METHODS[method](function.space, seed), float("inf"), []
        for trial in range(1, CHECKPOINTS[-1] + 1):
            began = time.perf_counter()
            config = searcher.ask()
            times.append(time.perf_counter() - began)
            value = function(config)
            searcher.tell(value)
            best = min(best, value)
            if trial in CHECKPOINTS:
                reached.append(best - function.minimum)
        chosen.append(reached)
    return Played(chosen, statistics.fmean(times))


def _play_digits(space: Space, method: str, seeds: Sequence[int]) -> Played:
    """All seeds in step, so that their networks are trained together: one network a trial, each with its own seed."""
    digits = data.digits()
    searchers, times = [ON_ERRORS[method](space, seed) for seed in seeds], []
    tried: list[list[tuple[float, Config]]] = [[] for _ in seeds]
    picked: list[list[Config]] = [[] for _ in seeds]
    for trial in range(1, CHECKPOINTS[-1] + 1):
        configs = []
        for searcher in searchers:
            began = time.perf_counter()
            configs.append(searcher.ask())
            times.append(time.perf_counter() - began)
        scores = networks.Networks(digits, seed=trial)(configs)
        for searcher, own, config, (score,) in zip(searchers, tried, configs, scores, strict=True):
            value = 1.0 if np.isnan(score) else 1 - score
            searcher.tell(value)
            own.append((value, config))
        if trial in CHECKPOINTS:
            for own, picks in zip(tried, picked, strict=True):
                picks.append(min(own, key=lambda pair: pair[0])[1])
    flat = [config for picks in picked for config in picks]
    worth = [float(np.nanmean(each)) for each in networks.Networks(digits, n=FRESH, seed=10_000)(flat)]
    steps = len(CHECKPOINTS)
    return Played([worth[at : at + steps] for at in range(0, len(worth), steps)], statistics.fmean(times))


def _regrets(chosen: dict[str, list[list[float]]], digits: bool) -> dict[str, list[float]]:
    """Median regret of each method at each checkpoint."""
    if digits:
        best = max(value for rows in chosen.values() for row in rows for value in row)
        chosen = {name: [[best - value for value in row] for row in rows] for name, rows in chosen.items()}
    return {name: np.median(np.array(rows), axis=0).tolist() for name, rows in chosen.items()}
