"""Checks of the notebook on grid and random search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kit.exercises.verdict import Verdict, Wrong, answered, verdict


def trials_needed(answer: Callable[[float, float], float]) -> Verdict:
    """How many random trials find a good configuration?

    Args:
        answer: takes the share of good configurations and the wanted probability, both in (0, 1); returns the smallest
            whole number n with 1 - (1 - share)^n >= probability.
    """

    def check() -> str:
        for share, probability in ((0.05, 0.95), (0.1, 0.5), (0.01, 0.9), (0.3, 0.99)):
            exact = math.log(1 - probability) / math.log(1 - share)
            got = float(answered(answer(share, probability)))
            if got == math.ceil(exact):
                continue
            case = f"For a share of {share:g} and a probability of {probability:g}"
            for value, reason in (
                (exact, "round up to a whole number."),
                (math.floor(exact), "you round down: that is one trial too few."),
                (probability / share, "chances of several trials do not add up: start from all of them missing."),
                (math.ceil(probability / share), "chances of several trials do not add up: start from all missing."),
                (math.ceil(math.log(probability) / math.log(1 - share)), "all miss with 1 - probability."),
            ):
                if math.isclose(got, value, rel_tol=1e-9):
                    raise Wrong(f"{case} {reason}")
            raise Wrong(f"{case} it takes {math.ceil(exact)} trials; got {got:g}.")
        return "59 trials find one of the best 5 %, with 95 % probability, in any number of dimensions."

    return verdict(check)


def promoted(answer: Callable[[Sequence[float], int], Sequence[int]]) -> Verdict:
    """Which trials of a rung go on?

    Args:
        answer: takes the accuracies of a rung and eta; returns the numbers (from 0) of the best 1 in eta, rounded down,
            in any order.
    """

    def check() -> str:
        cases: tuple[tuple[list[float], int], ...] = (
            ([0.5, 0.9, 0.7], 3),
            ([0.2, 0.8, 0.1, 0.6, 0.9, 0.3, 0.7], 3),
            ([0.4, 0.3, 0.2, 0.1], 2),
        )
        for values, eta in cases:
            order = sorted(range(len(values)), key=lambda at: -values[at])
            count = len(values) // eta
            got = list(answered(answer(list(values), eta)))
            if sorted(got) == sorted(order[:count]):
                continue
            case = f"Of {values} with eta = {eta}"
            if any(each not in range(len(values)) for each in got):
                raise Wrong(f"{case} give the numbers of the trials, counted from 0; got {got}.")
            if sorted(got) == sorted(order[-count:]):
                raise Wrong(f"{case} you take the worst: an accuracy is good when it is large.")
            if len(got) != count:
                raise Wrong(f"{case} {count} go on, {len(values)} / {eta} rounded down; got {len(got)}.")
            raise Wrong(f"{case} number {order[0]} is the best; got {got}.")
        return "All others stop here, and cost nothing more."

    return verdict(check)


def halving_cost(answer: Callable[[int, int, int, int], int]) -> Verdict:
    """How many epochs does one bracket of successive halving train?

    Args:
        answer: takes n, least, most and eta; at each rung 1 in eta trials goes on (rounded down), with eta times the
            epochs, up to `most`, which is least times a power of eta. A trial that goes on trains only the new epochs.
    """

    def check() -> str:
        for n, least, most, eta in ((9, 1, 9, 3), (27, 1, 27, 3), (16, 2, 16, 2), (10, 1, 9, 3)):
            want = scratch = 0
            count, epochs, before = n, least, 0
            while epochs <= most and count:
                want += count * (epochs - before)
                scratch += count * epochs
                count, epochs, before = count // eta, epochs * eta, epochs
            got = int(answered(answer(n, least, most, eta)))
            if got == want:
                continue
            case = f"For n = {n}, least = {least}, most = {most} and eta = {eta}"
            for value, reason in (
                (scratch, "you train every rung from the start; a trial that goes on trains only the new epochs."),
                (n * most, "you train all of them in full; most of them stop early."),
                (n * least, "you count the first rung only."),
            ):
                if got == value:
                    raise Wrong(f"{case} {reason}")
            raise Wrong(f"{case} it is {want} epochs; got {got}.")
        return "Nine trials begin, and together they cost little more than two whole trainings."

    return verdict(check)


def chance_to_hit(answer: Callable[[int, int, float], tuple[float, float]]) -> Verdict:
    """How likely does a search try a good value of the one parameter that matters?

    Args:
        answer: takes k, d and w: a grid with k values of each of d parameters, against as many random trials; good
            values fill a share w of one parameter's range, w below 1 / k. Returns the two probabilities, of the grid
            (which is shifted by chance) and of random search.
    """

    def check() -> str:
        for k, d, w in ((3, 2, 0.1), (2, 5, 0.2), (4, 3, 0.05)):
            found = answered(answer(k, d, w))
            try:
                grid, chance = (float(each) for each in found)
            except (TypeError, ValueError):
                raise Wrong("Return two probabilities: of the grid, and of random search.") from None
            case = f"For k = {k}, d = {d} and w = {w:g}"
            n, want_grid = k**d, k * w
            want = 1 - (1 - w) ** n
            if not math.isclose(grid, want_grid, rel_tol=1e-6):
                if math.isclose(grid, want, rel_tol=1e-6):
                    raise Wrong(f"{case} the grid tries {k} different values only, however many trials it has.")
                if math.isclose(grid, 1 - (1 - w) ** k, rel_tol=1e-6):
                    raise Wrong(f"{case} the grid's {k} values are shifted as a whole: they do not miss one by one.")
                raise Wrong(f"{case} the grid hits with probability k w = {want_grid:.3g}; got {grid:.3g}.")
            if not math.isclose(chance, want, rel_tol=1e-6):
                if math.isclose(chance, 1 - (1 - w) ** k, rel_tol=1e-6):
                    raise Wrong(f"{case} random search has k^d = {n} trials, each with a value of its own.")
                if math.isclose(chance, n * w, rel_tol=1e-6):
                    raise Wrong(f"{case} chances of several trials do not add up: start from all of them missing.")
                if math.isclose(chance, want_grid, rel_tol=1e-6):
                    raise Wrong(f"{case} random trials do not share values: the n = k^d of them miss one by one.")
                raise Wrong(f"{case} random search hits with probability {want:.3g}; got {chance:.3g}.")
        return "With each parameter that does not matter, the grid gets worse; random search does not notice."

    return verdict(check)
