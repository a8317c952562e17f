"""Checks of the notebook on grid and random search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kit.exercises.verdict import Wrong, answered, checked, compare, two
from kit.measure import Estimate
from kit.search import Config, Hyperband, Space
from kit.search.landscape import Landscape, LandscapeObjective, search

ADDED_UP = "probabilities of several trials do not add up: start from all of them missing."

Rungs = list[list[tuple[float, bool]]]  # of each trial its accuracy, and whether it has gone on already
ASHA_TURNS: tuple[tuple[str, int, tuple[int, int] | str], ...] = (  # accuracies, + for gone on; eta; what comes next
    (".5 .9 .7 | |", 3, (0, 1)),
    (".5 .6 | |", 3, "new"),
    (".5 .9+ .7 | .92 |", 3, "new"),
    (".3 .8+ .6 .9+ .7+ .2 .5 .1 .4 .75 .35 .25 | .82 .93 .88 |", 3, (1, 1)),
    (".8+ .7+ .75+ .65+ .1 .2 .3 .4 | .85+ .82+ .79 .7 | .9 .88", 2, "new"),
    (".2 .8+ .7 .1 | .85 |", 2, (0, 2)),
    (".7 .2 .9 .1 | |", 2, (0, 2)),
    (".9 .5+ .6+ .95 .3 .2 | .4 .6 |", 2, (1, 1)),
    (".5 .6+ .9+ .95+ .7 .8 | |", 2, (0, 5)),
)

REPEATS = range(1000, 1200)  # networks and draws that the notebook did not look at


@checked
def trials_needed(answer: Callable[[float, float], float]) -> str:
    """How many random trials find a good configuration?

    Args:
        answer: takes the share of good configurations and the wanted probability, both in (0, 1); returns the smallest
            whole number n with 1 - (1 - share)^n >= probability.
    """
    for share, probability in ((0.05, 0.95), (0.1, 0.5), (0.5, 0.75), (0.01, 0.9), (0.3, 0.99)):
        exact, got = math.log(1 - probability) / math.log(1 - share), float(answered(answer(share, probability)))
        mistakes = [
            (exact, "round up to a whole number."),
            (math.floor(exact), "you round down: that is one trial too few."),
            (
                math.floor(exact) + 1,
                "a trial too many: the probability is reached exactly, so there is nothing to round.",
            ),
            (probability / share, ADDED_UP),
            (math.ceil(probability / share), ADDED_UP),
            (math.ceil(math.log(probability) / math.log(1 - share)), "all miss with 1 - probability."),
        ]
        case = f"For a share of {share:g} and a probability of {probability:g}"
        compare(got, math.ceil(exact), case, mistakes, f"it takes {math.ceil(exact)} trials; got {got:g}.")
    return "59 trials find one of the best 5 %, with 95 % probability, in any number of dimensions."


@checked
def asha_turn(answer: Callable[[Rungs, int], tuple[int, int] | str]) -> str:
    """What does a machine that is free do next, by the rule of ASHA?

    Args:
        answer: takes the rungs, the lowest first, and eta. A rung is a list of trials, each its accuracy and whether it
            has gone on already. Returns (rung, place), both from 0, of the trial that goes on, or "new".
    """
    for written, eta, want in ASHA_TURNS:
        rungs = [[(float(each.strip("+")), "+" in each) for each in rung.split()] for rung in written.split("|")]
        got = answered(answer([list(rung) for rung in rungs], eta))
        got = tuple(got) if isinstance(got, list) else got
        if got == want:
            continue
        case = f"With eta = {eta} and the rungs {rungs}"
        if got == "new":
            raise Wrong(f"{case} trial {want} may go on; you begin a new one.")
        try:
            (rung, place), count = got, len(rungs[got[0]]) // eta
            _, gone = rungs[rung][place]
        except (TypeError, ValueError, IndexError):
            raise Wrong(f'{case} give (rung, place) of a trial, both counted from 0, or "new"; got {got!r}.') from None
        if rung == len(rungs) - 1:
            raise Wrong(f"{case} you send on {got} of the last rung, which is trained in full.")
        if gone:
            raise Wrong(f"{case} you send on {got}, which has gone on already.")
        if want != "new" and rung < want[0]:
            raise Wrong(f"{case} you send on {got}: the highest rung comes first, and there {want} may go on.")
        if not count:
            raise Wrong(f"{case} you send on {got}: 1 in {eta} of {len(rungs[rung])} trials, rounded down, is none.")
        if rungs[rung][place] == min(rungs[rung]):
            raise Wrong(f"{case} you send on the worst: an accuracy is good when it is large.")
        if sum(rungs[rung][place] < each for each in rungs[rung]) < count:
            raise Wrong(f"{case} you send on {got}: {want}, of the same rung, may go on too and is better.")
        raise Wrong(
            f"{case} you send on {got}: it is not among the best {count} of the {len(rungs[rung])} trials of its rung, "
            "where those that have gone on count, too."
        )
    return "No machine ever waits, and each decision needs only the rungs as they are now."


@checked
def halving_cost(answer: Callable[[int, int, int, int], int]) -> str:
    """How many epochs does one bracket of successive halving train?

    Args:
        answer: takes n, min_epochs, max_epochs and eta. The epochs of the rungs are max_epochs, max_epochs / eta, ...
            (each rounded down), not below min_epochs; from each rung to the next 1 in eta trials goes on, rounded down.
            A trial that goes on trains only the new epochs; the bracket ends when none is left.
    """
    cases = ((9, 1, 9, 3), (9, 2, 20, 3), (27, 1, 27, 3), (16, 2, 16, 2), (10, 1, 9, 3), (4, 1, 27, 3), (11, 1, 9, 3))
    for n, low, high, eta in cases:
        down = [high]
        while down[0] // eta >= low:
            down.insert(0, down[0] // eta)
        up = [low * eta**at for at in range(len(down)) if low * eta**at <= high]
        want, got = _cost(n, down, eta), float(answered(answer(n, low, high, eta)))
        mistakes = [
            (_cost(n, up, eta), f"the rungs are {down}, counted from the top; yours seem to be {up}."),
            (
                sum(n // eta**at * epochs for at, epochs in enumerate(down)),
                "you train every rung from the start; a trial that goes on trains only the new epochs.",
            ),
            (n * high, "you train all of them in full; most of them stop early."),
            (n * low, "you count the first rung only."),
            (
                _cost(n, down, eta, lambda share: max(1, int(share))),
                "no trial is left for the last rung: the bracket ends.",
            ),
            (_cost(n, down, eta, round), "of the trials that go on, too, you round down."),
            (_cost(n, down, eta, math.ceil), "of the trials that go on, too, you round down."),
        ]
        case = f"For n = {n}, min_epochs = {low}, max_epochs = {high} and eta = {eta}"
        compare(got, want, case, mistakes, f"it is {want} epochs; got {got:g}.")
    return "Nine trials begin, and together they cost little more than two whole trainings."


def _cost(n: int, rungs: Sequence[int], eta: int, whole: Callable[[float], int] = int) -> int:
    total = 0
    for before, epochs in pairwise([0, *rungs]):
        total += n * (epochs - before)
        n = whole(n / eta)
    return total


@checked
def hit_probabilities(answer: Callable[[int, int, int, float], tuple[float, float]]) -> str:
    """How likely does a search hit, when m of d parameters matter?

    Args:
        answer: takes k, d, m and w: a grid with k values of each of d parameters, against as many random trials. Good
            are the trials whose m parameters that matter all lie in their good interval, a share w of each range.
            Returns the two probabilities to try one: of the grid, whose values of each parameter are shifted by a
            random offset of their own, and of random search.
    """
    for k, d, m, w in ((3, 2, 1, 0.1), (2, 5, 1, 0.2), (4, 3, 2, 0.1), (3, 2, 2, 0.2), (8, 2, 1, 0.15)):
        words = "Return two probabilities: of the grid, and of random search."
        grid, other = two(answer(k, d, m, w), words)
        case, n = f"For k = {k}, d = {d}, m = {m} and w = {w:g}", k**d
        want_grid, want = min(1.0, k * w) ** m, 1 - (1 - w**m) ** n
        mistakes = [
            ((k * w) ** m, "the grid's probability is above 1: where k w is 1 or more, a line always hits."),
            (min(1.0, k * w), f"all {m} of the parameters must hit, each with probability k w."),
            (want, f"the grid tries {k} different values of a parameter only, however many trials it has."),
            ((1 - (1 - w) ** k) ** m, f"the {k} values are shifted together: they do not miss one by one."),
            (min(1.0, n * w**m), ADDED_UP),
        ]
        compare(grid, want_grid, case, mistakes, f"the grid hits with probability {want_grid:.3g}; got {grid:.3g}.")
        mistakes = [
            (1 - (1 - w) ** n, f"a trial is good with probability w^m: all {m} must hit in the same trial."),
            (1 - (1 - w**m) ** k, f"random search has k^d = {n} trials, each with values of its own."),
            (n * w**m, ADDED_UP),
            (want_grid, "random trials do not share values: the n = k^d of them miss one by one."),
        ]
        compare(other, want, case, mistakes, f"random search hits with probability {want:.3g}; got {other:.3g}.")
    return "Where few of the parameters matter, random search is ahead; where all of them matter, the grid is."


Train = Callable[..., float]


@checked
def beat_hyperband(answer: Callable[[Train, Space, int], Config], landscape: Landscape) -> str:
    """A search of your own, scored against the kit's Hyperband, under the budget that two brackets of it spend.

    Args:
        answer: takes `train(config, epochs)` (an accuracy; a configuration that goes on spends only new epochs),
            the space and a seed; returns the configuration that it chooses.
        landscape: what is searched, 200 times, each time with both axes rotated by another number of cells and perhaps
            mirrored, so that nobody knows beforehand where the best one lies.

    Both choices are measured anew. Right when the whole 95 % interval of the difference is above 0.
    """
    rival = Hyperband(min_epochs=max(1, landscape.epochs // 9), max_epochs=landscape.epochs)
    brackets = (rival.plan(0), rival.plan(1))
    budget = sum(_cost(plan[0][0], [epochs for _, epochs in plan], rival.eta) for plan in brackets)
    yours, rivals = [], []
    for repeat in REPEATS:
        plane = _turned(landscape, repeat)
        objective = plane.objective(repeat)
        chosen = answered(answer(_metered(objective, budget), plane.space, repeat))
        if not isinstance(chosen, Mapping):
            raise Wrong(f"Return the configuration that you choose, a dictionary; got {chosen!r}.")
        yours.append(objective.retest(plane.space.check(chosen)))
        found = search(plane, dataclasses.replace(rival, seed=repeat), budget=budget, repeat=repeat).at(budget)
        assert found is not None  # its first rung is cheaper than the budget
        rivals.append(found[1])
    lead, worths = Estimate.from_pairs(yours, rivals), (Estimate.from_values(yours), Estimate.from_values(rivals))
    own, rival_worth = (f"{100 * each.value:.1f} %" for each in worths)
    worth = f"your choice is worth {own}, that of the kit's Hyperband {rival_worth}"
    score = f"Over {len(REPEATS)} searches {worth}: {lead.points}."
    if lead.low <= 0:
        raise Wrong(f"{score} The rival is beaten where the whole interval is above 0.")
    return f"{score} The whole interval is above 0: the rival is beaten."


def _turned(landscape: Landscape, seed: int) -> Landscape:
    """The landscape with both axes rotated and perhaps mirrored, at random."""
    rng, curves = np.random.default_rng(seed), landscape.curves
    for axis in (1, 2):
        curves = np.roll(curves, rng.integers(curves.shape[axis]), axis)
        curves = np.flip(curves, axis) if rng.random() < 0.5 else curves
    return dataclasses.replace(landscape, curves=curves)


def _metered(objective: LandscapeObjective, budget: int) -> Train:
    """Trains within a budget of epochs; beyond it, Wrong."""
    trained: dict[tuple[Any, ...], int] = {}

    def train(config: Config, epochs: int) -> float:
        key = tuple(config[name] for name in objective.landscape.space.names)
        accuracy = objective(config, epochs=epochs)
        trained[key] = max(epochs, trained.get(key, 0))
        if (spent := sum(trained.values())) > budget:
            raise Wrong(f"You train {spent} epochs; the budget is {budget}, as two brackets of Hyperband.")
        return accuracy

    return train
