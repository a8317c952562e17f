from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kit import checks


@pytest.mark.parametrize("value", [3, np.int64(3)])
def test_what_is_allowed_comes_back_as_a_plain_number(value: Any) -> None:
    assert checks.whole("n", value, 3, 3) == 3
    assert type(checks.whole("n", value)) is int
    assert type(checks.number("n", value, above=2.9, least=3)) is float
    assert checks.share("n", np.float32(0.5)) == 0.5
    checks.one_of("n", value, (1, 3))
    checks.instance("n", 3, (int, str))


@pytest.mark.parametrize(
    ("refuse", "kind", "sentence"),
    [
        (lambda: checks.whole("n", 1.0), TypeError, "n must be a whole number; got 1.0."),
        (lambda: checks.whole("n", True), TypeError, "n must be a whole number; got True."),
        (lambda: checks.whole("n", "3"), TypeError, "n must be a whole number; got '3'."),
        (lambda: checks.whole("n", -1), ValueError, "n must be 0 or more; got -1."),
        (lambda: checks.whole("n", 4, 1, 3), ValueError, "n must lie in 1 .. 3; got 4."),
        (lambda: checks.number("x", None), TypeError, "x must be a number; got None."),
        (lambda: checks.number("x", False), TypeError, "x must be a number; got False."),
        (lambda: checks.number("x", float("nan")), ValueError, "x must be finite; got nan."),
        (lambda: checks.number("x", 0.0, above=0), ValueError, "x must be above 0; got 0.0."),
        (lambda: checks.number("x", float("inf"), above=0), ValueError, "x must be above 0; got inf."),
        (lambda: checks.number("x", -0.1, least=0), ValueError, "x must be 0 or more; got -0.1."),
        (lambda: checks.share("x", 1.1), ValueError, "x must lie in [0, 1]; got 1.1."),
        (lambda: checks.share("x", 1.0, one=False), ValueError, "x must lie in [0, 1); got 1.0."),
        (lambda: checks.share("x", float("nan")), ValueError, "x must lie in [0, 1]; got nan."),
        (lambda: checks.share("x", "half"), TypeError, "x must be a number; got 'half'."),
        (lambda: checks.one_of("w", "c", ("a", "b")), ValueError, "w must be one of a, b; got 'c'."),
        (
            lambda: checks.one_of("w", -1, range(23)),
            ValueError,
            f"w must be one of {', '.join(map(str, range(20)))} and 3 more; got -1.",
        ),
        (lambda: checks.instance("w", 3, str), TypeError, "w must be a str; got 3."),
        (lambda: checks.instance("w", 3, (Exception, str)), TypeError, "w must be an Exception or str; got 3."),
        (lambda: checks.instance("w", 3, str, "text"), TypeError, "w must be text; got 3."),
        (lambda: checks.instance("w", 80 * "x", float), TypeError, "w must be a float; got an object of type str."),
    ],
)
def test_what_is_not_is_refused_in_one_sentence(refuse: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        refuse()
    assert type(caught.value) is kind
    assert str(caught.value) == sentence
