"""What a check says, and the frame that every check runs in."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np

from kit.measure import Estimate

P = ParamSpec("P")


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        right: whether the answer passed.
        message: why, in one sentence or two.
    """

    right: bool
    message: str

    def __repr__(self) -> str:
        """The verdict as the notebook shows it."""
        return f"{'Right.' if self.right else 'Not yet.'} {self.message}"


class Wrong(Exception):  # noqa: N818  (control flow inside this module)
    """Raised by a check with what is wrong, in a sentence."""


def checked(check: Callable[P, str]) -> Callable[P, Verdict]:
    """Let a check that returns praise or raises `Wrong` return a `Verdict`; the reader's own errors are answers too."""

    @functools.wraps(check)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return Verdict(True, check(*args, **kwargs))
        except Wrong as wrong:
            return Verdict(False, str(wrong))
        except Exception as error:
            first_line = next(iter(str(error).splitlines()), "")
            return Verdict(False, f"It stopped with {type(error).__name__}: {first_line}")

    return wrapped


def answered(answer: Any) -> Any:
    """The answer; Wrong where the exercise is untouched."""
    if answer is None or answer is ...:
        raise Wrong("Nothing is answered so far: replace the three dots.")
    return answer


def share(answer: float | None) -> float:
    """An answer that is a share; Wrong where it lies outside of 0 .. 1."""
    got = float(answered(answer))
    if not 0 <= got <= 1:
        raise Wrong(f"Give a share between 0 and 1; got {got:g}.")
    return got


def two(answer: Any, words: str) -> tuple[float, float]:
    """An answer of two numbers; Wrong with `words` where it is something else."""
    found = answered(answer)
    try:
        first, second = (float(np.squeeze(each)) for each in found)
    except (TypeError, ValueError):
        raise Wrong(words) from None
    return first, second


Mistakes = Iterable[tuple[float, str]]  # what each gives, and what to say of it


def compare(
    got: float, want: float, case: str, mistakes: Mistakes, otherwise: str, *, rel: float = 1e-6, near: float = 1e-9
) -> None:
    """Accept the number `want`, or what differs from it by a share of `rel` or by `near` at most.

    Raises:
        Wrong: another number: `case`, then what is to say of the first of the `mistakes` that gives it, or `otherwise`.
    """
    if not math.isclose(got, want, rel_tol=rel, abs_tol=near):
        fitting = (reason for value, reason in mistakes if math.isclose(got, value, rel_tol=rel, abs_tol=near))
        raise Wrong(f"{case} {next(fitting, otherwise)}".strip())


def ahead_of_random(what: str, gain: Estimate, places: int) -> str:
    """Praise where the whole interval of a gain of accuracy over random search lies above 0.

    Args:
        what: was found, such as "cells".
        gain: over searches, a share.
        places: digits after the point, of percentage points.

    Raises:
        Wrong: 0 is in the interval, or above it.
    """
    low, high = (f"{100 * each:+.{places}f}" for each in (gain.low, gain.high))
    score = (
        f"Your {what} are {100 * abs(gain.value):.{places}f} points {'worse' if gain.value < 0 else 'better'} than "
        f"those of random search (95 % interval of the gain {low} to {high}, {gain.n} searches)."
    )
    if gain.low <= 0:
        raise Wrong(f"{score} It counts as beaten when the whole interval is above 0.")
    return f"{score} The whole interval is above 0: beaten."
