"""Checks of notebook 00."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from kit.exercises.verdict import Wrong, answered, checked, compare


@checked
def images_needed(answer: Callable[[float, float], float]) -> str:
    """How many images does an interval of a given half width need?

    Args:
        answer: takes an accuracy p in (0, 1) and a half width in (0, 1); returns the number of images by the normal
            approximation, p (1 - p) (1.96 / half width)^2; good enough when about ten answers are wrong or more.
    """
    for accuracy, half in ((0.9, 0.02), (0.97, 0.01), (0.5, 0.05)):
        got = float(answered(answer(accuracy, half)))
        want = accuracy * (1 - accuracy) * (1.96 / half) ** 2
        mistakes = [
            (want / 4, "you took the half width for the whole width: the interval is twice as wide."),
            (math.sqrt(want), "the square is missing: to halve an interval takes four times the images."),
            (want / 1.96**2, "the 1.96 is missing: one standard error holds the truth in 68 % of cases only."),
        ]
        if not math.isclose(got, want, rel_tol=0.05):  # 2 in place of 1.96 is right, too
            case = f"For p = {accuracy:g} and a half width of {half:g}"
            compare(got, want, case, mistakes, f"about {want:.0f} images are needed; got {got:.0f}.", rel=0.01)
    return "Half the width takes four times the images; a tenth of it a hundred times."


@checked
def pareto_front(answer: Callable[[Sequence[tuple[float, float]]], Iterable[tuple[float, float]]]) -> str:
    """Which models are worth having?

    Args:
        answer: takes (size, accuracy) pairs and returns those that no other pair beats: a pair is beaten when another
            is at most as large and at least as accurate, and better in one of the two.
    """
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
        want = sorted(p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in pairs))
        if got != want:
            missing, extra = [p for p in want if p not in got], [p for p in got if p not in want]
            reason = f"{extra[0]} is beaten by another pair" if extra else f"{missing[0]} is beaten by none"
            raise Wrong(f"Of {pairs}, {reason}, as (size, accuracy).")
    return "Everything off the front has a model beside it that is smaller, or better, or both."
