"""Checks of notebook 00."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from kit.exercises.verdict import Verdict, Wrong, answered, verdict


def images_needed(answer: Callable[[float, float], float]) -> Verdict:
    """How many images does an interval of a given half width need?

    Args:
        answer: takes an accuracy p in (0, 1) and a half width in (0, 1); returns the number of images by the normal
            approximation, p (1 - p) (1.96 / half width)^2; good enough when about ten answers are wrong or more.
    """

    def check() -> str:
        for accuracy, half in ((0.9, 0.02), (0.97, 0.01), (0.5, 0.05)):
            got = float(answered(answer(accuracy, half)))
            want = accuracy * (1 - accuracy) * (1.96 / half) ** 2
            case = f"For p = {accuracy:g} and a half width of {half:g}"
            if math.isclose(got, want / 4, rel_tol=0.01):
                raise Wrong(f"{case} you took the half width for the whole width: the interval is twice as wide.")
            if math.isclose(got, math.sqrt(want), rel_tol=0.05):
                raise Wrong(f"{case} the square is missing: to halve an interval takes four times the images.")
            if math.isclose(got, want / 1.96**2, rel_tol=0.01):
                raise Wrong(f"{case} the 1.96 is missing: one standard error holds the truth in 68 % of cases only.")
            if not math.isclose(got, want, rel_tol=0.05):
                raise Wrong(f"{case} about {want:.0f} images are needed; got {got:.0f}.")
        return "Half the width takes four times the images; a tenth of it a hundred times."

    return verdict(check)


def pareto_front(answer: Callable[[Sequence[tuple[float, float]]], Iterable[tuple[float, float]]]) -> Verdict:
    """Which models are worth having?

    Args:
        answer: takes (size, accuracy) pairs and returns those that no other pair beats: a pair is beaten when another
            is at most as large and at least as accurate, and better in one of the two.
    """

    def check() -> str:
        cases = (
            [(10.0, 0.90), (20.0, 0.95), (30.0, 0.94), (40.0, 0.97)],
            [(10.0, 0.90), (10.0, 0.92), (15.0, 0.92)],
            [(30.0, 0.94), (10.0, 0.90), (40.0, 0.97), (20.0, 0.95)],
            [(5.0, 0.50)],
        )
        for pairs in cases:
            got = sorted(tuple(pair) for pair in answered(answer(list(pairs))))
            if len(set(got)) < len(got):
                raise Wrong(f"Of {pairs}, the same pair comes twice.")
            want = sorted(pair for pair in pairs if not any(_beats(other, pair) for other in pairs))
            if got != want:
                missing, extra = [p for p in want if p not in got], [p for p in got if p not in want]
                reason = f"{extra[0]} is beaten by another pair" if extra else f"{missing[0]} is beaten by none"
                raise Wrong(f"Of {pairs}, {reason}, as (size, accuracy).")
        return "Everything off the front has a model beside it that is smaller, or better, or both."

    return verdict(check)


def _beats(other: tuple[float, float], pair: tuple[float, float]) -> bool:
    return other[0] <= pair[0] and other[1] >= pair[1] and other != pair
