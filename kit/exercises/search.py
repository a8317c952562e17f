"""Checks of the notebook on grid and random search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kit.exercises.verdict import Wrong, answered, checked, compare, two

ADDED_UP = "chances of several trials do not add up: start from all of them missing."


@checked
def trials_needed(answer: Callable[[float, float], float]) -> str:
    """How many random trials find a good configuration?

    Args:
        answer: takes the share of good configurations and the wanted probability, both in (0, 1); returns the smallest
            whole number n with 1 - (1 - share)^n >= probability.
    """
    for share, probability in ((0.05, 0.95), (0.1, 0.5), (0.01, 0.9), (0.3, 0.99)):
        exact, got = math.log(1 - probability) / math.log(1 - share), float(answered(answer(share, probability)))
        mistakes = [
            (exact, "round up to a whole number."),
            (math.floor(exact), "you round down: that is one trial too few."),
            (probability / share, ADDED_UP),
            (math.ceil(probability / share), ADDED_UP),
            (math.ceil(math.log(probability) / math.log(1 - share)), "all miss with 1 - probability."),
        ]
        case = f"For a share of {share:g} and a probability of {probability:g}"
        compare(got, math.ceil(exact), case, mistakes, f"it takes {math.ceil(exact)} trials; got {got:g}.")
    return "59 trials find one of the best 5 %, with 95 % probability, in any number of dimensions."


@checked
def promoted(answer: Callable[[Sequence[float], int], Sequence[int]]) -> str:
    """Which trials of a rung go on?

    Args:
        answer: takes the accuracies of a rung and eta; returns the numbers (from 0) of the best 1 in eta, rounded down,
            in any order.
    """
    seven = [0.2, 0.8, 0.1, 0.6, 0.9, 0.3, 0.7]
    for values, eta in (([0.5, 0.9, 0.7], 3), (seven, 3), ([0.4, 0.3, 0.2, 0.1], 2)):
        order = sorted(range(len(values)), key=lambda at: -values[at])
        count = len(values) // eta
        got = list(answered(answer(list(values), eta)))
        if sorted(got) == sorted(order[:count]):
            continue
        case = f"Of {values} with eta = {eta}"
        if any(each not in order for each in got):
            raise Wrong(f"{case} give the numbers of the trials, counted from 0; got {got}.")
        if sorted(got) == sorted(order[-count:]):
            raise Wrong(f"{case} you take the worst: an accuracy is good when it is large.")
        if len(got) != count:
            raise Wrong(f"{case} {count} go on, {len(values)} / {eta} rounded down; got {len(got)}.")
        raise Wrong(f"{case} number {order[0]} is the best; got {got}.")
    return "All others stop here, and cost nothing more."


@checked
def halving_cost(answer: Callable[[int, int, int, int], int]) -> str:
    """How many epochs does one bracket of successive halving train?

    Args:
        answer: takes n, min_epochs, max_epochs and eta; at each rung 1 in eta trials goes on (rounded down), with eta
            times the epochs, up to `max_epochs`, which is `min_epochs` times a power of eta. A trial that goes on
            trains only the new epochs.
    """
    for n, low, high, eta in ((9, 1, 9, 3), (27, 1, 27, 3), (16, 2, 16, 2), (10, 1, 9, 3)):
        rungs = [(n // eta**at, low * eta**at) for at in range(n) if low * eta**at <= high]  # trials, epochs
        scratch = sum(count * epochs for count, epochs in rungs)
        want = scratch - sum(count * epochs // eta for count, epochs in rungs[1:])  # trained on the rung before
        got = int(answered(answer(n, low, high, eta)))
        mistakes = [
            (scratch, "you train every rung from the start; a trial that goes on trains only the new epochs."),
            (n * high, "you train all of them in full; most of them stop early."),
            (n * low, "you count the first rung only."),
        ]
        case = f"For n = {n}, min_epochs = {low}, max_epochs = {high} and eta = {eta}"
        compare(got, want, case, mistakes, f"it is {want} epochs; got {got}.")
    return "Nine trials begin, and together they cost little more than two whole trainings."


@checked
def chance_to_hit(answer: Callable[[int, int, float], tuple[float, float]]) -> str:
    """How likely does a search try a good value of the one parameter that matters?

    Args:
        answer: takes k, d and w: a grid with k values of each of d parameters, against as many random trials; good
            values fill a share w of one parameter's range, w below 1 / k. Returns the two probabilities, of the grid
            (which is shifted by chance) and of random search.
    """
    for k, d, w in ((3, 2, 0.1), (2, 5, 0.2), (4, 3, 0.05)):
        grid, chance = two(answer(k, d, w), "Return two probabilities: of the grid, and of random search.")
        case, n = f"For k = {k}, d = {d} and w = {w:g}", k**d
        want_grid, want, one_by_one = k * w, 1 - (1 - w) ** n, 1 - (1 - w) ** k
        otherwise = f"the grid hits with probability k w = {want_grid:.3g}; got {grid:.3g}."
        mistakes = [
            (want, f"the grid tries {k} different values only, however many trials it has."),
            (one_by_one, f"the grid's {k} values are shifted as a whole: they do not miss one by one."),
        ]
        compare(grid, want_grid, case, mistakes, otherwise)
        mistakes = [
            (one_by_one, f"random search has k^d = {n} trials, each with a value of its own."),
            (n * w, ADDED_UP),
            (want_grid, "random trials do not share values: the n = k^d of them miss one by one."),
        ]
        compare(chance, want, case, mistakes, f"random search hits with probability {want:.3g}; got {chance:.3g}.")
    return "With each parameter that does not matter, the grid gets worse; random search does not notice."
