"""What a joint search must beat, at equal cost: one knob at a time, and a recipe made by hand.

Both give a study with the same goals, and each of their trials counts for its front.
"""

from __future__ import annotations

import itertools
from threading import Event

import numpy as np

from kit import checks, training
from kit.search import Config, Listed, Study, Trial
from kit.together.problem import MOST_PRUNED, OBJECTIVES, PLAIN, WIDEST, Problem

TUNED_FIRST = ("lr", "temperature", "alpha")
THEN_SMALLER = ("width", "rank", "ratio_in", "ratio_out", "tune", "bits_in", "bits_out")
TUNED = (*TUNED_FIRST, "tune")  # what changes no file's length
VALUES = 4  # of each knob, in its turn
DROPS = (0.3, 0.1, 0.03)  # of accuracy that may be lost, in the passes over the knobs

BY_HAND: Config = {**PLAIN, "tune": 4}  # of notebooks 02 and 03
SWEPT = [
    (width, bits) for width in (6, 12, 24, 48) for bits in (2, 4)
]  # hidden units; bits of an index into a codebook
BATCH = 32  # networks that are trained as one cohort


def one_at_a_time(problem: Problem, budget: int, seed: int = 0, *, cancel: Event | None = None) -> Study:
    """Tune, then compress, one knob at a time, each with the others held at the best so far.

    Learning rate, temperature and weight of the soft labels are tuned for accuracy, at full size. Then each knob in
    turn makes the file as small as it may: the accuracy lost so far stays within the knob's part of what may be lost,
    30 points at first. What is left of the budget goes into passes that may lose less, for the larger files.

    Args:
        problem: what is searched.
        budget: trials, 1 or more.
        seed: of the values that are tried of a knob: evenly spread, and each moved within its part of the range.
        cancel: looked at while networks are trained.

    Raises:
        TypeError, ValueError: an argument of another type, or out of range.
        training.Cancelled: `cancel` was set; the problem remembers what is made.
    """
    checks.whole("budget", budget, 1)
    study, rng = Study(problem.space, objectives=OBJECTIVES), np.random.default_rng(checks.whole("seed", seed))

    def turn(knob: str, held: Config, least: float) -> Config:
        """Try values of one knob, and give the best; of small files the smallest with this accuracy at least."""
        places = (np.arange(VALUES) + rng.random(VALUES)) / VALUES
        configs = [held, *({**held, knob: problem.space.parameters[knob].decode(place)} for place in places.tolist())]
        study.run(problem.batch, Listed(configs), budget=budget, batch=len(configs), cancel=cancel)
        _check_going_on(cancel)
        tried = [trial for trial in study.trials if trial.values and trial.config in configs]
        good = [trial for trial in tried if trial.values["accuracy"] >= least and knob not in TUNED]
        best = min(good, key=lambda trial: trial.values["bytes"], default=None) or max(tried, key=_accuracy)
        return best.config

    tuned = problem.space.check({**BY_HAND, "width": WIDEST})
    for knob in TUNED_FIRST:
        tuned = turn(knob, tuned, 1.0)
    best = max(map(_accuracy, study.trials))
    drops = itertools.cycle(DROPS)
    while len(study.trials) < budget:
        held, drop = tuned, next(drops)
        for at, knob in enumerate(THEN_SMALLER, start=1):
            held = turn(knob, held, best - drop * at / len(THEN_SMALLER))
    return study


def by_hand(problem: Problem, budget: int, *, cancel: Event | None = None) -> Study:
    """A grid over width, ratio and bits, as one draws it up who has read notebooks 01 to 03; all else as in `BY_HAND`.

    Both layers have one number of bits; the layer to the classes, which has fewer weights, is pruned half as much.
    Arguments and errors as above.
    """
    checks.whole("budget", budget, 1)
    ratios = np.linspace(0, MOST_PRUNED, -(-budget // len(SWEPT)))
    configs = [
        {**BY_HAND, "width": width, "ratio_in": ratio, "ratio_out": ratio / 2, "bits_in": bits, "bits_out": bits}
        for ratio, (width, bits) in itertools.product(ratios.tolist(), SWEPT)
    ]
    study = Study(problem.space, objectives=OBJECTIVES)
    study.run(problem.batch, Listed(configs), budget=budget, batch=BATCH, cancel=cancel)
    _check_going_on(cancel)
    return study


def _check_going_on(cancel: Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise training.Cancelled("cancelled in the middle of a search.")


def _accuracy(trial: Trial) -> float:
    return trial.values.get("accuracy", 0.0)
