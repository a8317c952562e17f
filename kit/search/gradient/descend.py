"""Downhill in the hyper-parameters: the outer loop, and its record beside those of other methods."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from threading import Event

import torch

from kit import checks
from kit.search.gradient.hypergradient import Way
from kit.search.gradient.problem import Problem
from kit.search.study import Study
from kit.search.trials import Trial
from kit.training import Cancelled, Diverged

BETAS = (0.5, 0.9)  # of Adam: of tens of steps, the last ones end nearer to the best than by (0.9, 0.999)


def descend(
    problem: Problem,
    way: Way,
    *,
    budget: int,
    rate: float = 0.3,
    warm: int | None = None,
    study: Study | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    cancel: Event | None = None,
) -> Study:
    """Train, take the slope, step downhill, until the budget of gradient evaluations is spent.

    Each step is a trial: its configuration, the validation loss there, and as `spent` what training and slope cost. So
    it stands beside a search that spends as much: `Study(problem.wide).run(problem.objective, Random(0), budget=...,
    unit="epochs", epochs=problem.steps)`.

    Args:
        problem: where its `hyper` begin.
        way: to the slope.
        budget: gradient evaluations of this call, never exceeded: where the next step costs more than is left, it ends.
        rate: of Adam (Kingma & Ba 2015, arXiv:1412.6980) on the coordinates, above 0: about how far each moves in a
            step.
        warm: after the first training, so many steps of training between two steps outside, from the weights that
            were reached, with the batches that follow; None trains each time from the start. The losses are then
            those of weights that began elsewhere: `problem.objective` says what a training from the start arrives at.
        study: to write into, of `problem.wide`, where less is better; None makes one.
        on_trial: called after each trial, the failed one included.
        cancel: looked at between steps of training; what was told until then is kept.

    Raises:
        ValueError: a budget too small for one step, a study of something else, a warm start with a schedule of the
            learning rate, or an argument out of range.
        training.Diverged: a training did; the study given has all before it, and a failed trial.
    """
    checks.instance("problem", problem, Problem)
    if isinstance(way, type) or not callable(getattr(way, "at", None)):
        raise TypeError(f"way must be one such as Unrolled(), with an `at` of its own; got {way!r}.")
    checks.whole("budget", budget, 1)
    rate = checks.number("rate", rate, above=0)
    if warm is not None:
        checks.whole("warm", warm, 1)
        if "lr" in problem.hyper and problem.hyper["lr"].numel() > 1:
            raise ValueError("warm: a schedule of the learning rate needs whole trainings; give warm=None.")
    study = Study(problem.wide) if study is None else study
    checks.instance("study", study, Study)
    if study.space != problem.wide or study.maximise:
        raise ValueError("study must be one of problem.wide that minimises; it searches another space, or maximises.")
    hyper = problem.clamped(problem.hyper)
    outer = torch.optim.Adam(list(hyper.values()), lr=rate, betas=BETAS)
    state, spent, trained = None, 0, 0
    costs: dict[int, int] = {}  # of a whole step, by the steps of training in it

    def tell(result: float | Diverged, cost: int) -> None:
        trial = study.enqueue(problem.config(hyper))
        told = study.tell(trial.number, result, spent=cost, seconds=time.perf_counter() - began)
        if on_trial is not None:
            on_trial(told)

    while True:
        began, steps = time.perf_counter(), problem.steps if state is None or warm is None else warm
        needed = costs.get(steps, steps)
        if spent + needed <= budget:
            try:
                now = _later(problem, trained)
                path = None if state is None else now.path(hyper, state=state, steps=steps, cancel=cancel)
                found = way.at(now, hyper, path, cancel=cancel)
            except Cancelled:
                return study
            except Diverged as error:
                tell(error, steps)
                raise
            needed = costs[steps] = steps + found.cost
        if spent + needed > budget:
            if not spent:
                raise ValueError(f"budget must be {needed} gradient evaluations or more, for one step; got {budget}.")
            return study
        spent += needed
        tell(found.loss, needed)
        if warm is not None:
            state, trained = found.state, trained + steps
        for name, each in hyper.items():
            each.grad = found.slope[name]
        outer.step()
        for name, each in problem.clamped(hyper).items():
            hyper[name].copy_(each)


def _later(problem: Problem, done: int) -> Problem:
    """The same problem with `done` steps behind it: what draws by the number of a step draws on."""
    later = copy.copy(problem)
    object.__setattr__(later, "train", lambda weights, hyper, at: problem.train(weights, hyper, at + done))
    return later
