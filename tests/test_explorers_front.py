"""FrontExplorer: by hand what it says of six networks, and what a sum finds on a hollow front."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from kit.explorers import FrontExplorer
from kit.explorers.front import POINTS


@pytest.fixture
def by_hand() -> Iterator[FrontExplorer]:
    with contextlib.closing(FrontExplorer()) as explorer:
        explorer.wait()
        yield explorer


def test_six_networks_by_hand(by_hand: FrontExplorer) -> None:
    assert by_hand.front == ("A", "B", "D", "F")
    assert by_hand.volume == 2 * 5 + 4 * 15 + 4 * 17 + 3 * 21
    assert by_hand.alone == {"A": 2 * 5, "B": 4 * 15 - 4 * 5 - 1 * 12 - 3 * 3, "D": 2 * 2 + 2 * 1, "F": 3 * 4}
    assert "dominated by B and C" in by_hand.in_words


def test_a_network_of_yours_on_the_front(by_hand: FrontExplorer) -> None:
    by_hand.set(size=3.0, error=5.0).wait()
    assert by_hand.front == ("A", "yours", "F")
    assert "on the front and dominates B, C, D and E" in by_hand.in_words
    assert by_hand.alone["yours"] == (12 - 3) * (20 - 5) - 8 * 10 - 4 * 2


def test_a_sum_finds_only_what_is_convex(by_hand: FrontExplorer) -> None:
    found: dict[str, set[str]] = {points: set() for points in POINTS}
    for points, weight in ((points, weight) for points in POINTS for weight in by_hand.weight.stops):
        by_hand.set(points=points, size=15.0, error=25.0, weight=weight).wait()
        found[points].add(by_hand.found)
    assert found["hollow front"] == {"A", "I"}
    assert "D" not in found["six networks"] and "B" in found["six networks"]
    assert len(found["convex front"]) >= 6


def test_the_corner_changes_what_the_ends_are_worth(by_hand: FrontExplorer) -> None:
    near = dict(by_hand.alone)
    by_hand.set(corner=2.0).wait()
    assert by_hand.alone["B"] == near["B"] and by_hand.alone["D"] == near["D"]
    assert by_hand.alone["A"] == 2 * 30 and by_hand.alone["F"] == 18 * 4
    by_hand.set(corner=0.6).wait()
    assert by_hand.alone["A"] == by_hand.alone["F"] == 0


def test_a_click_puts_your_network_there(by_hand: FrontExplorer) -> None:
    by_hand._clicked("plane", "", 3.2, 99.0)
    assert (by_hand.size.value, by_hand.error.value) == (3.0, 25.0)
    by_hand._clicked("alone", "", 1.0, 1.0)
    assert by_hand.size.value == 3.0


def test_the_line_of_equal_sums_is_one(by_hand: FrontExplorer) -> None:
    by_hand.set(weight=0.35).wait()
    line = next(trace for trace in by_hand.figures["plane"]._panel.traces if trace["name"] == "equal sums")
    sums = 0.35 * np.array(line["y"]) / 25 + 0.65 * np.array(line["x"]) / 15
    at = dict(zip("ABCDEF", POINTS["six networks"], strict=True))[by_hand.found]
    assert sums == pytest.approx(0.35 * at[1] / 25 + 0.65 * at[0] / 15)
