"""What a check says, and the frame that every check runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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


class Wrong(Exception):  # noqa: N818  (control flow inside this room)
    """Raised by a check with what is wrong, in a sentence."""


def verdict(check: Callable[[], str]) -> Verdict:
    """Run a check that returns praise or raises `Wrong`; the reader's own exceptions are answers too."""
    try:
        return Verdict(True, check())
    except Wrong as wrong:
        return Verdict(False, str(wrong))
    except Exception as error:
        return Verdict(
            False, f"It stopped with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )


def answered(answer: Any) -> Any:
    """The answer, unless the exercise is untouched.

    Raises:
        Wrong: nothing is answered.
    """
    if answer is None or answer is ...:
        raise Wrong("Nothing is answered so far: replace the three dots.")
    return answer


def share(answer: float | None) -> float:
    """An answer that is a share.

    Raises:
        Wrong: nothing is answered, or it lies outside of 0 .. 1.
    """
    got = float(answered(answer))
    if not 0 <= got <= 1:
        raise Wrong(f"Give a share between 0 and 1; got {got:g}.")
    return got
