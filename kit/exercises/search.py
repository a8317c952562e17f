"""Checks of the notebook on grid and random search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kit.exercises.verdict import Verdict, Wrong, answered, verdict


def log_uniform(answer: Callable[[float, float, float], float]) -> Verdict:
    """Draw a learning rate so that every factor of ten is equally likely.

    Args:
        answer: takes low and high, both above 0, and u in [0, 1]; returns low^(1 - u) high^u.
    """

    def check() -> str:
        for low, high, u in ((1e-4, 1.0, 0.5), (1e-5, 10.0, 0.25), (2.0, 32.0, 0.75), (1e-3, 1e-1, 0.0)):
            got, want = float(answered(answer(low, high, u))), low ** (1 - u) * high**u
            if math.isclose(got, want, rel_tol=1e-6):
                continue
            case = f"For low = {low:g}, high = {high:g} and u = {u:g}"
            if math.isclose(got, low + u * (high - low), rel_tol=1e-6):
                raise Wrong(f"{case} you draw evenly: nine of ten draws lie in the highest factor of ten.")
            if got > 0 and math.isclose(got, low**u * high ** (1 - u), rel_tol=1e-6):
                raise Wrong(f"{case} the ends are swapped: u = 0 must give low.")
            if got < 0 or math.isclose(got, math.log(want), rel_tol=1e-6, abs_tol=1e-9):
                raise Wrong(f"{case} this is a logarithm: take its exponential at the end.")
            raise Wrong(f"{case} the answer is {want:.4g}; got {got:.4g}.")
        return "Equal steps of u are equal factors of the learning rate."

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
                raise Wrong(f"{case} the grid hits with probability k w = {want_grid:.3g}; got {grid:.3g}.")
            if not math.isclose(chance, want, rel_tol=1e-6):
                if math.isclose(chance, 1 - (1 - w) ** k, rel_tol=1e-6):
                    raise Wrong(f"{case} random search has k^d = {n} trials, each with a value of its own.")
                if math.isclose(chance, n * w, rel_tol=1e-6):
                    raise Wrong(f"{case} chances of several trials do not add up: start from all of them missing.")
                raise Wrong(f"{case} random search hits with probability {want:.3g}; got {chance:.3g}.")
        return "With each parameter that does not matter, the grid gets worse; random search does not notice."

    return verdict(check)
