"""Refuse a bad argument early, in one sentence: its name, what came, what is allowed.

All raise TypeError for another kind of value, and ValueError for a value that is not allowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

NAMED = 20  # allowed values that a refusal names


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A whole number of `least` or more, and of `most` or less; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number; got {value!r}.")
    if most is not None and not least <= int(value) <= most:
        raise ValueError(f"{name} must lie in {least} .. {most}; got {value!r}.")
    if int(value) < least:
        raise ValueError(f"{name} must be {least} or more; got {value!r}.")
    return int(value)


def number(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """A finite number above `above`, and of `least` or more."""
    try:
        found = float(_real(name, value))
    except OverflowError:  # a whole number beyond all floats
        found = math.inf
    if not (math.isfinite(found) and found > above and found >= least):
        allowed = f"above {above:g}" if above > -math.inf else f"{least:g} or more" if least > -math.inf else "finite"
        raise ValueError(f"{name} must be {allowed}; got {value!r}.")
    return found


def _real(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r}.")
    return value


def share(name: str, value: Any, *, one: bool = True) -> float:
    """A number in [0, 1], or in [0, 1) where `one` is False."""
    if not (0 <= _real(name, value) <= 1 and (one or value < 1)):
        raise ValueError(f"{name} must lie in [0, 1{']' if one else ')'}; got {value!r}.")
    return float(value)


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """One of the allowed values."""
    known = tuple(allowed)
    if value not in known:
        more = f" and {len(known) - NAMED:,} more" * (len(known) > NAMED)
        raise ValueError(f"{name} must be one of {', '.join(map(str, known[:NAMED]))}{more}; got {value!r}.")


def named(name: str, given: Iterable[Any], allowed: Iterable[str], done: str) -> None:
    """Names of `allowed` only; `done` says what cannot be done with others, such as "pruned"."""
    known = list(allowed)
    if unknown := sorted(set(given) - set(known), key=str):
        others = ", ".join(map(str, unknown))
        raise ValueError(f"{name} names {others}, which cannot be {done}; allowed: {', '.join(known)}.")


def instance(name: str, value: Any, kind: type | tuple[type, ...], words: str = "") -> None:
    """An instance of `kind`; `words` say what that is, where its name does not. Of a long value its type is shown."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = words or " or ".join(each.__name__ for each in kinds)
        article = "" if words else "an " if wanted[0] in "AEIOU" else "a "
        came = repr(value)
        short = came if len(came) < 80 and "\n" not in came else f"an object of type {type(value).__name__}"
        raise TypeError(f"{name} must be {article}{wanted}; got {short}.")
