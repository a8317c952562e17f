"""Several objectives against peers: hypervolume after 50, 100 and 200 trials, and seconds for each proposal.

Every method plays the same problems with the same seeds, by ask and tell; only the asking is timed, in seconds of the
processor. None knows the corner that hypervolume is counted from; all but the kit's are told losses (less is better,
bytes in their logarithm). What is compared is what is missing of the best hypervolume, median over seeds. In the joint
problem networks are really made; the largest volume that anybody found there plays the best.
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

from kit import data, models, together, training
from kit.search import EHVI, NSGA2, Float, Goals, Int, ParEGO, Random, Space, Study, functions
from kit.search.pareto import hypervolume
from kit.search.space import Config
from tests.benchmarks.registry import Say, UnavailableError
from tests.benchmarks.rows import Row, Target

SEEDS = 5
CHECKPOINTS = (50, 100, 200)
PATIENCE = {"qLogNEHVI": (2, 50), "GPSampler": (3, 200)}  # seeds and trials of those that take long to propose
FIRST = 2  # times (d + 1): trials before BoTorch's model is asked
JOINT = "joint"


class Searcher(Protocol):
    """One search by ask and tell; losses, or None for a trial that failed."""

    def ask(self) -> Config: ...

    def tell(self, values: dict[str, float], losses: np.ndarray | None) -> None: ...


class Ours:
    """A method of the kit."""

    def __init__(self, space: Space, goals: Goals, method: Any) -> None:
        self._study, self._method = Study(space, objectives=goals.goals), method

    def ask(self) -> Config:
        trial = self._study.ask(self._method)
        assert trial is not None
        self._number = trial.number
        return trial.config

    def tell(self, values: dict[str, float], losses: np.ndarray | None) -> None:
        self._study.tell(self._number, values)


class Optuna:
    """One of Optuna's samplers, with its own defaults."""

    def __init__(self, space: Space, goals: Goals, sampler: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made = getattr(optuna.samplers, sampler)(seed=seed)
        self._study = optuna.create_study(directions=["minimize"] * len(goals), sampler=made)
        self._failed = optuna.trial.TrialState.FAIL
        laws = {Float: optuna.distributions.FloatDistribution, Int: optuna.distributions.IntDistribution}
        numbers: dict[str, Any] = dict(space.parameters)
        self._laws = {name: laws[type(each)](each.low, each.high, log=each.log) for name, each in numbers.items()}

    def ask(self) -> Config:
        self._trial = self._study.ask(self._laws)
        return dict(self._trial.params)

    def tell(self, values: dict[str, float], losses: np.ndarray | None) -> None:
        if losses is None:
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, losses.tolist())


class BoTorch:
    """Noisy expected hypervolume improvement, as in BoTorch's tutorial on several objectives."""

    def __init__(self, space: Space, goals: Goals, seed: int) -> None:
        self._space, self._seed, self._first = space, seed, FIRST * (len(space) + 1)
        self._start = Ours(space, goals, EHVI(seed=seed, start=self._first))
        self._places: list[np.ndarray] = []
        self._losses: list[np.ndarray | None] = []

    def ask(self) -> Config:
        begins = len(self._losses) < self._first
        config = self._start.ask() if begins else self._space.decode(np.clip(self._proposed(), 0, 1))
        self._places.append(self._space.encode(config))
        return config

    def _proposed(self) -> np.ndarray:
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from botorch.sampling import SobolQMCNormalSampler
        from botorch.utils.multi_objective.hypervolume import infer_reference_point
        from botorch.utils.multi_objective.pareto import is_non_dominated
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(self._seed)
        worst = np.max([losses for losses in self._losses if losses is not None], axis=0)
        x = torch.tensor(np.array(self._places), dtype=torch.double)
        y = -torch.tensor(np.array([worst if losses is None else losses for losses in self._losses])).double()
        each = [SingleTaskGP(x, y[:, at : at + 1], outcome_transform=Standardize(1)) for at in range(y.shape[1])]
        model = ModelListGP(*each)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        promise = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=infer_reference_point(y[is_non_dominated(y)]),
            X_baseline=x,
            prune_baseline=True,
            sampler=SobolQMCNormalSampler(torch.Size([128]), seed=self._seed),
        )
        bounds = torch.stack([torch.zeros(len(self._space)), torch.ones(len(self._space))]).double()
        found, _ = optimize_acqf(promise, bounds=bounds, q=1, num_restarts=5, raw_samples=256)
        return found[0].numpy()

    def tell(self, values: dict[str, float], losses: np.ndarray | None) -> None:
        if len(self._losses) < self._first:
            self._start.tell(values, losses)
        self._losses.append(losses)


METHODS: dict[str, Callable[[Space, Goals, int], Searcher]] = {
    "qLogNEHVI": BoTorch,  # first, as it takes longest
    "GPSampler": lambda space, goals, seed: Optuna(space, goals, "GPSampler", seed),
    "EHVI": lambda space, goals, seed: Ours(space, goals, EHVI(seed=seed)),
    "ParEGO": lambda space, goals, seed: Ours(space, goals, ParEGO(seed=seed)),
    "NSGA2": lambda space, goals, seed: Ours(space, goals, NSGA2(seed=seed)),
    "NSGAIISampler": lambda space, goals, seed: Optuna(space, goals, "NSGAIISampler", seed),
    "random": lambda space, goals, seed: Ours(space, goals, Random(seed=seed)),
}
RIVALS = {"EHVI": "GPSampler", "NSGA2": "NSGAIISampler"}
FUNCTIONS = {each.name: each for each in (functions.zdt1(), functions.zdt2(), functions.branin_currin())}


@dataclass(frozen=True)
class Played:
    """What one method reached on one problem."""

    volumes: list[list[float]]  # [seeds][checkpoints]
    seconds: float  # a proposal, mean


def benchmark(say: Say) -> Iterator[Row]:
    """For each rival: rows of each problem, and one of how often we are not worse; one of seconds a problem."""
    missing = [name for name in ("optuna", "botorch") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(f"{' and '.join(missing)} not installed: 'make peers' does it.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes below: one problem on each core
    jobs = [(problem, method) for method in METHODS for problem in (JOINT, *FUNCTIONS)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(play, *zip(*jobs, strict=True)), strict=True))
    gaps = {
        problem: _gaps(problem, {name: results[problem, name].volumes for name in METHODS})
        for problem in (*FUNCTIONS, JOINT)
    }
    for problem, found in gaps.items():
        for name, values in found.items():
            said, seeds = " / ".join(f"{value:.3g}" for value in values), len(results[problem, name].volumes)
            took = 1000 * results[problem, name].seconds
            say(f"{problem}, {name}: missing {said} (median of {seeds} seeds), {took:.1f} ms a proposal")
    for ours, rival in RIVALS.items():
        better = 0
        for problem, found in gaps.items():
            for at, trials in enumerate(CHECKPOINTS):
                own, theirs = found[ours][at], found[rival][at]
                better += own <= theirs
                what = f"{problem}, {trials} trials: median missing hypervolume, {ours} / Optuna's {rival}"
                yield Row.of(f"pareto.{ours}.{problem}.{trials}", what, own, theirs, "", Target("at most", 3))
        total = len(gaps) * len(CHECKPOINTS)
        what = f"of {total} medians: those where {ours} is not worse than {rival} / half"
        yield Row.of(f"pareto.{ours}.majority", what, total / 2, better, "medians", Target("at least", 1))
    for problem in gaps:
        slowest = max(results[problem, name].seconds for name in ("EHVI", "ParEGO", "NSGA2"))
        theirs = results[problem, "qLogNEHVI"].seconds
        what = f"{problem}: a proposal, the slowest of ours / qLogNEHVI to {PATIENCE['qLogNEHVI'][1]} trials"
        yield Row.of(f"pareto.ask.{problem}", what, 1000 * slowest, 1000 * theirs, "ms", Target("at most", 1))


def play(problem: str, method: str) -> Played:
    """One method on one problem, all seeds in step, so that networks of the joint problem are trained together."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    count, trials = PATIENCE.get(method, (SEEDS, CHECKPOINTS[-1]))
    seeds = range(count)
    game: Any = _joint() if problem == JOINT else FUNCTIONS[problem]
    corner = game.goals.given(together.CORNER if problem == JOINT else game.corner)
    searchers, times = [METHODS[method](game.space, game.goals, seed) for seed in seeds], []
    told: list[list[np.ndarray]] = [[] for _ in seeds]
    volumes: list[list[float]] = [[] for _ in seeds]
    for trial in range(1, trials + 1):
        configs = []
        for searcher in searchers:
            began = time.process_time()
            configs.append(searcher.ask())
            times.append(time.process_time() - began)
        every = game.batch(configs) if problem == JOINT else [game(config) for config in configs]
        for searcher, own, values in zip(searchers, told, every, strict=True):
            fine = bool(np.isfinite(list(values.values())).all())
            losses = np.array([goal.loss(values[name]) for name, goal in game.goals.goals.items()]) if fine else None
            searcher.tell(values, losses)
            own += [losses] if losses is not None else []
        if trial in CHECKPOINTS:
            for own, reached in zip(told, volumes, strict=True):
                reached.append(hypervolume(np.array(own), corner))
    return Played(volumes, statistics.fmean(times))


def _joint() -> Any:
    """Students of a teacher of the digits, made smaller, and written."""
    digits = data.digits()
    teacher = models.MLP((64, 128, 10))
    training.fit(teacher, digits, epochs=15, seed=0)
    return together.Problem(digits, teacher)


def _gaps(problem: str, volumes: dict[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Median over seeds of what each method misses at each checkpoint."""
    most = max(max(row) for rows in volumes.values() for row in rows)
    best = most if problem == JOINT else FUNCTIONS[problem].best
    return {name: (best - np.median(np.array(rows), axis=0)).tolist() for name, rows in volumes.items()}
