"""Axes of hyper-parameters."""

from __future__ import annotations

import math

import pytest

from kit.plots import curves
from kit.search import Float, Int

RANGES = [
    (Float(1e-5, 10, log=True), ["10<sup>-5</sup>", "10<sup>-3</sup>", "0.1", "10"]),
    (Float(1e-3, 1, log=True), ["10<sup>-3</sup>", "0.01", "0.1", "1"]),
    (Float(2e-4, 0.5, log=True), ["10<sup>-3</sup>", "0.01", "0.1"]),
    (Float(0.1, 1.6, log=True), ["0.1", "0.2", "0.4", "0.8", "1.6"]),  # less than three powers of ten
    (Float(0.002, 0.008, log=True), ["0.002", "0.00283", "0.004", "0.00566", "0.008"]),
    (Float(0.0, 0.9), ["0", "0.2", "0.4", "0.6", "0.8"]),
    (Float(0.9, 0.999), ["0.9", "0.92", "0.94", "0.96", "0.98"]),
    (Float(0.42, 0.43), ["0.42", "0.422", "0.424", "0.426", "0.428", "0.43"]),
    (Float(0.999, 0.9999), ["0.999", "0.9992", "0.9994", "0.9996", "0.9998"]),
    (Int(1, 3), ["1", "2", "3"]),
    (Int(0, 1), ["0", "1"]),
    (Int(1, 100), ["20", "40", "60", "80", "100"]),
    (Int(4, 64, log=True), ["4", "8", "16", "32", "64"]),
    (Int(1, 1000, log=True), ["1", "10", "100", "1,000"]),
    (Int(2, 4, log=True), ["2", "3", "4"]),  # no power of ten is in it
]


def number(text: str) -> float:
    return float(text.replace(",", "").replace("10<sup>", "1e").replace("</sup>", ""))


@pytest.mark.parametrize(("parameter", "texts"), RANGES, ids=str)
def test_ticks_are_round_values_at_their_places_and_both_ends_in_sight(
    parameter: Float | Int, texts: list[str]
) -> None:
    axis = curves.unit_axis("some", parameter)
    assert axis["ticktext"] == texts
    half = 0.5 if isinstance(parameter, Int) else 0.0  # a whole number stands in the middle of its part
    low, high = parameter.low - half, parameter.high + half
    for place, value in zip(axis["tickvals"], map(number, texts), strict=True):
        way = math.log(value / low) / math.log(high / low) if parameter.log else (value - low) / (high - low)
        assert place == pytest.approx(way)
        assert 0 <= place <= 1
    axis = curves.value_axis("lr", parameter)
    assert set(texts) <= set(axis["ticktext"])
    assert axis["tickvals"] == pytest.approx(list(map(number, axis["ticktext"])))
    assert (axis["type"] == "log") == parameter.log
    low, high = (10**end if parameter.log else end for end in axis["range"])
    assert low < parameter.low < parameter.high < high
