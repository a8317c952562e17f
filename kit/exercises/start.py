"""Checks of notebook 00."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kit.exercises.verdict import Wrong, answered, checked, compare

Stop = Callable[[int, int, int], bool]
EACH, LOOKS = 20, 25  # images between two looks, and looks: 500 images at most
RARE = 1e-9  # a state less probable than this is left out


@checked
def images_needed(answer: Callable[[float, float], float]) -> str:
    """How many images does an interval of a given half width need?

    Args:
        answer: takes an accuracy p in (0, 1) and a half width in (0, 1); returns the number of images by the normal
            approximation, p (1 - p) (1.96 / half width)^2; with ten wrong answers expected it covers about 93 %.
    """
    for accuracy, half in ((0.9, 0.02), (0.97, 0.01), (0.5, 0.05)):
        got = float(answered(answer(accuracy, half)))
        want = accuracy * (1 - accuracy) * (1.96 / half) ** 2
        mistakes = [
            (want / 4, "you took the half width for the whole width: the interval is twice as wide."),
            (math.sqrt(want), "the square is missing: to halve an interval takes four times the images."),
            (want / 1.96**2, "the 1.96 is missing: one standard error holds the truth in 68 % of cases only."),
            (want * (1.645 / 1.96) ** 2, "1.645 is for a 90 % interval: it leaves 5 % out at each of its two ends."),
            (0.25 * (1.96 / half) ** 2, "you took 0.25, which is p (1 - p) at p = 0.5: the worst case, not this one."),
            ((1.96 / half) ** 2, "p (1 - p) is missing: the right answers vary less when nearly all are right."),
            (
                accuracy * (1 - accuracy) * (half / 1.96) ** 2,
                "the fraction is upside down: a small h takes many images.",
            ),
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
    below = [(10.0, 0.90), (20.0, 0.91), (30.0, 0.97)]  # the second lies below the line between the others
    cases = (
        [(10.0, 0.90), (20.0, 0.95), (30.0, 0.94), (40.0, 0.97)],
        below,
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
            if missing == [below[1]]:
                reason += "; a straight line between two others does not count, for no model lies on it"
            raise Wrong(f"Of {pairs}, {reason}, as (size, accuracy).")
    return "Everything off the front has a model beside it that is smaller, or better, or both."


@checked
def stop_early(answer: Stop) -> str:
    """After how many images may a comparison of two models stop? An open task, with a score.

    Args:
        answer: takes how many images only the first model got right, how many only the second, and how many were seen;
            True names the model in front the winner.
    """
    rule = _remembered(answer)
    false = _named(rule, 0.04, 0.04).sum()
    if false > 0.05:
        raise Wrong(
            f"It names a winner in {100 * false:.1f} % of the comparisons of equal models; 5 % are allowed. Every look "
            "is one more chance to be wrong: the lead must be clearer."
        )
    mine, rival = _costs(rule), _costs(_five_looks)
    saved = rival.mean() - mine.mean()
    score = (
        f"it takes {mine.mean():.1f} images a comparison, the rival {rival.mean():.1f}: {saved:.1f} saved; of equal "
        f"models it names a winner in {100 * false:.1f} %."
    )
    if saved > 0:
        return f"The rival is beaten: {score}"
    if not math.isclose(*mine, rel_tol=0.01):
        score += f" Where the first is better it takes {mine[0]:.0f}, where the second is, {mine[1]:.0f}: name both."
    raise Wrong(f"The rival is not beaten: {score} Negative is lost. Stop sooner where the lead is clear.")


def _remembered(rule: Stop) -> Stop:
    """The rule, asked once for each state, and refused where its answer is none."""

    @functools.cache
    def stop(first: int, second: int, n: int) -> bool:
        said = answered(rule(first, second, n))
        if said not in (True, False):
            raise Wrong(f"Answer True to stop or False to go on; got {said!r}.")
        if said and first == second:
            raise Wrong(f"It stops after {n} images, {first} to {second}: then no model is in front.")
        return bool(said)

    return stop


def _named(rule: Stop, first: float, second: float) -> np.ndarray:
    """Probability that the first, and that the second model is named after each look, [2, LOOKS]; exact but for RARE.

    `first` and `second` are the shares of images that only the first, and only the second gets right.
    """
    named = np.zeros((2, LOOKS))
    going = np.ones((1, 1))  # [first, second]: probability to have these counts without having stopped
    for look in range(LOOKS):
        for _ in range(EACH):  # one image more
            more = np.pad((1 - first - second) * going, (0, 1))
            more[1:, :-1] += first * going
            more[:-1, 1:] += second * going
            going = more
        states = np.argwhere(going > RARE)  # [states, 2]
        rows, columns = states.max(0, initial=0) + 1
        going = going[:rows, :columns]
        for one, two in states.tolist():
            if rule(one, two, EACH * (look + 1)):
                named[int(two > one), look] += going[one, two]
                going[one, two] = 0
    return named


def _costs(rule: Stop) -> np.ndarray:
    """Images a comparison takes on average where the first, and where the second model is better, [2]."""
    right = np.array([_named(rule, 0.06, 0.02)[0], _named(rule, 0.02, 0.06)[1]])  # [2, LOOKS]
    images = EACH * np.arange(1, LOOKS + 1)
    return right @ images + (1 - right.sum(1)) * images[-1]  # without the right winner it saved nothing


def _five_looks(first: int, second: int, n: int) -> bool:
    """The rival: five looks, with the border at which all five together are at 5 % (Pocock 1977)."""
    return n % 100 == 0 and (first - second) ** 2 > 2.413**2 * (first + second)
