"""A claim shows its picture in any case, says what strict comparing may see, and stops where it does not hold."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kit.explorers import Pairs, claim

ROW = Pairs("both", {"a": [0.9, 0.92, 0.91], "b": [0.8, 0.81, 0.83]}, above=0)  # 9.67 points (4.5 to 14.8)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(sys.modules["kit.explorers.claim"], "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_what_holds_is_drawn_and_said_without_measured_digits(shown: list[dict[str, Any]]) -> None:
    claim("A wins.", ROW, of="seeds")
    (bundle,) = shown
    assert bundle["text/plain"] == "Holds over 3 seeds: A wins."
    assert bundle["image/png"].startswith(b"\x89PNG")


def test_what_does_not_hold_is_drawn_and_stops(shown: list[dict[str, Any]]) -> None:
    more = Pairs("many", {"a": [0.9] * 4, "b": [0.8, 0.81, 0.83, 0.82]}, above=0.2, below=0.3)
    with pytest.raises(AssertionError) as failed:
        claim("A wins.", ROW, more)
    assert str(failed.value) == (
        "Does not hold over 3 and 4 pairs: A wins. Measured, many: +8.5 points (+6.4 to +10.6), "
        "claimed above +20.0 and below +30.0."
    )
    assert len(shown) == 1 and shown[0]["text/plain"] == "Does not hold over 3 and 4 pairs: A wins."


def test_what_is_no_claim_is_refused(shown: list[dict[str, Any]]) -> None:
    for wrong, error, sentence in (
        (lambda: claim("A wins."), ValueError, "rows needs at least one comparison, a Pairs; got none."),
        (lambda: claim("A wins.", 0.1), TypeError, "rows must be comparisons, each a Pairs; got 0.1."),  # type: ignore[arg-type]
        (lambda: claim(ROW), TypeError, "sentence must be a text; got "),  # type: ignore[arg-type]
        (lambda: claim("A wins.", ROW, of=3), TypeError, "of must be a text; got 3."),  # type: ignore[arg-type]
    ):
        with pytest.raises(error, match="^" + sentence.replace(".", r"\.")):
            wrong()
    assert shown == []
