"""Comparisons that are claimed: their difference against scipy, what counts as held, and the picture's parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from kit.measure import Estimate
from kit.plots.claim import Pairs, claim_figure

FIRST, SECOND = [0.9, 0.92, 0.91, 0.95], [0.88, 0.91, 0.9, 0.9]  # differences 2, 1, 1, 5 points


def test_the_difference_is_that_of_a_paired_t_test() -> None:
    found = Pairs("", {"a": FIRST, "b": SECOND}, above=0).difference
    theirs = stats.ttest_rel(FIRST, SECOND).confidence_interval()
    assert np.allclose([found.value, found.low, found.high], [0.0225, theirs.low, theirs.high])
    assert found.n == 4
    against = Pairs("", {"a": FIRST, "limit": 0.9}, above=0).difference
    alone = stats.ttest_1samp(FIRST, 0.9).confidence_interval()
    assert np.allclose([against.low, against.high], [alone.low - 0.9, alone.high - 0.9])


@pytest.mark.parametrize(
    ("bounds", "holds"),
    [
        ({"above": -0.01}, True),
        ({"above": 0}, False),  # the mean is above, the interval is not
        ({"below": 0.06}, True),
        ({"below": 0.05}, False),
        ({"above": -0.01, "below": 0.06}, True),
        ({"above": -0.01, "below": 0.05}, False),
        ({"above": 0, "below": 0.06}, False),
    ],
)
def test_a_claim_holds_where_the_whole_interval_lies_there(bounds: dict[str, float], holds: bool) -> None:
    assert Pairs("", {"a": FIRST, "b": SECOND}, **bounds).holds is holds  # the interval: -0.8 to 5.3 points


@pytest.mark.parametrize(
    ("values", "bounds", "error", "sentence"),
    [
        ({"a": FIRST}, {"above": 0}, ValueError, "values must have two names, first and second; got a."),
        ({}, {"above": 0}, ValueError, "values must have two names, first and second; got none."),
        ([FIRST, SECOND], {"above": 0}, TypeError, "values must be a mapping of two names to their values; got "),
        ({"a": FIRST, "b": SECOND[:3]}, {"above": 0}, ValueError, "one value for each seed; got 4 and 3."),
        ({"a": 0.9, "b": SECOND}, {"above": 0}, ValueError, "one value for each seed; got 1 and 4."),
        ({"a": FIRST[:1], "b": 0.5}, {"above": 0}, ValueError, "at least two finite numbers"),
        ({"a": FIRST, "b": SECOND}, {}, ValueError, "above and below must say a range; got above=None, below=None."),
        ({"a": FIRST, "b": SECOND}, {"above": 1, "below": 0}, ValueError, "a range; got above=1, below=0."),
        ({"a": FIRST, "b": SECOND}, {"above": "0"}, TypeError, "above or below must be a number; got '0'."),
    ],
)
def test_what_cannot_be_compared_is_refused(values: Any, bounds: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as refused:
        Pairs("", values, **bounds)
    assert sentence in str(refused.value)


def test_the_picture_says_the_numbers_and_the_claim() -> None:
    rows = [
        Pairs("easy", {"a": FIRST, "b": SECOND}, above=-0.3),
        Pairs("hard", {"a": FIRST, "limit": 0.9}, above=0, below=0.1),
    ]
    figure = claim_figure("A wins.", rows, of="seeds")
    levels, effects = figure.axes
    assert figure.get_suptitle() == "✘ Does not hold: A wins."
    assert claim_figure("A wins.", rows[:1]).get_suptitle() == "✔ A wins."
    assert [tick.get_text() for tick in levels.get_yticklabels()] == ["a", "b", "a", "limit"]
    assert [text.get_text() for text in levels.texts] == ["easy", "hard"]
    assert [text.get_text() for text in effects.texts] == [
        "+2.2 points (-0.8 to +5.3)",
        "+2.0 points (-1.4 to +5.4)",
    ]
    assert levels.get_xlabel().startswith("each of the seeds, %")
    assert effects.get_xlabel().startswith("upper minus lower, points")
    left, right = effects.get_xlim()
    assert left < -30 and right > 10  # what is claimed is in sight
    regions = [path.get_paths()[0].get_extents() for path in effects.collections if path.get_alpha()]
    assert [round(each.x0) for each in regions] == [-30, 0] and round(regions[1].x1) == 10


def test_a_difference_is_never_written_as_minus_nothing() -> None:
    assert Estimate(-0.0002, -0.0124, 0.0121, 9).points == "+0.0 points (-1.2 to +1.2)"


def test_other_units_are_shown_as_they_are() -> None:
    figure = claim_figure("It is later.", [Pairs("", {"a": [3, 5, 4], "b": 1}, above=0)], unit="epochs")
    levels, effects = figure.axes
    assert [text.get_text() for text in effects.texts] == ["+3 epochs (+0.516 to +5.48)"]
    assert levels.get_xlabel().startswith("each of the pairs, epochs")
    assert effects.get_xlabel().startswith("upper minus lower, epochs")
    plain = claim_figure("", [Pairs("", {"a": [3, 5, 4], "b": 1}, above=0)], unit="")
    assert plain.axes[1].get_xlabel().startswith("upper minus lower\n")
