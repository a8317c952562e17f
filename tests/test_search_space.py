"""What may be chosen: ranges, their way to the unit interval and back, and what is refused."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform, uniform

from kit.search import Choice, Float, Int, Space
from kit.search.space import Parameter, key

SPACE = Space({"lr": Float(1e-4, 1.0, log=True), "width": Int(4, 64), "method": Choice("adam", "sgd", None)})

CONDITIONS = "; got .* Conditions are not supported: write one space for each branch."

# Ranges


@pytest.mark.parametrize("parameter", [Float(-3, 5), Float(0.5, 200), Float(1e-6, 10, log=True)])
def test_a_float_is_mapped_as_scipys_law(parameter: Float) -> None:
    places = np.linspace(0, 1, 101)
    low, high = parameter.low, parameter.high
    law = loguniform(low, high) if parameter.log else uniform(low, high - low)
    values = [parameter.decode(place) for place in places.tolist()]
    assert values == pytest.approx(law.ppf(places).tolist())
    assert [parameter.encode(value) for value in values] == pytest.approx(places.tolist(), abs=1e-12)
    assert [parameter.encode(value) for value in values] == pytest.approx(law.cdf(values).tolist(), abs=1e-12)
    assert parameter.count == math.inf


def test_rounding_never_leaves_the_range() -> None:
    rng = np.random.default_rng(0)
    for low, high in rng.uniform(1e-8, 1e3, (200, 2)).tolist():
        for log in (False, True):
            parameter = Float(min(low, high), max(low, high), log=log)
            assert parameter.holds(parameter.decode(0.0))
            assert parameter.holds(parameter.decode(1.0))
    assert type(Float(3, 10, log=True).decode(1.0)) is float  # exp(log(10)) is a little above 10


def test_each_whole_number_gets_an_equal_part_or_one_by_its_logarithm() -> None:
    parameter = Int(-3, 6)
    places = (np.arange(1000) + 0.5) / 1000
    found = Counter(parameter.decode(place) for place in places.tolist())
    assert found == dict.fromkeys(range(-3, 7), 100)
    assert [parameter.encode(value) for value in range(-3, 7)] == pytest.approx([0.05 + 0.1 * at for at in range(10)])
    assert (parameter.decode(0.0), parameter.decode(1.0), parameter.count) == (-3, 6, 10)
    parameter = Int(1, 9, log=True)
    places = (np.arange(20_000) + 0.5) / 20_000
    found = Counter(parameter.decode(place) for place in places.tolist())
    for value in range(1, 10):
        part = math.log((value + 0.5) / (value - 0.5)) / math.log(9.5 / 0.5)
        assert found[value] / 20_000 == pytest.approx(part, abs=1e-4)
        assert parameter.decode(parameter.encode(value)) == value


@pytest.mark.parametrize("parameter", [Int(0, 1), Int(-50, 50), Int(1, 300, log=True), Int(7, 8, log=True)])
def test_whole_numbers_come_back(parameter: Int) -> None:
    values = list(range(parameter.low, parameter.high + 1))
    assert [parameter.decode(parameter.encode(value)) for value in values] == values
    assert parameter.count == len(values)
    assert type(parameter.decode(0.5)) is int


def test_each_option_gets_an_equal_part() -> None:
    options = ("a", 1, True, 1.0, None)
    parameter = Choice(*options)
    places = (np.arange(500) + 0.5) / 500
    decoded = [parameter.decode(place) for place in places.tolist()]
    assert [(type(value), value) for value in decoded[::100]] == [(type(option), option) for option in options]
    assert all(decoded[at] is decoded[at - at % 100] for at in range(500))
    assert [parameter.encode(option) for option in options] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert parameter.decode(1.0) is None
    assert parameter.count == 5


def test_one_and_true_are_different_options() -> None:
    parameter = Choice(0, 1, True)
    assert [parameter.index(value) for value in (0, 1, True, False, 1.0)] == [0, 1, 2, None, None]
    space = Space({"flag": parameter})
    assert space.check({"flag": True})["flag"] is True
    assert key({"flag": 1}) != key({"flag": True})
    with pytest.raises(ValueError, match="config: flag must be one of 0, 1, True; got False"):
        space.check({"flag": False})


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Float(0, 1), [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 3)], [-0.1, 2, math.nan, True, "0", None]),
        (Int(0, 9), [0, 9, np.int8(3), np.uint64(4)], [-1, 10, 3.0, np.float64(3), math.nan, False, np.True_, "3"]),
        (Choice("a", 2), ["a", 2, np.str_("a"), np.int64(2)], ["b", 2.0, None, True, ["a"]]),
    ],
)
def test_a_range_holds_its_values_and_no_others(parameter: Parameter, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside if not parameter.holds(value)] == []
    assert [value for value in outside if parameter.holds(value)] == []


def test_numpy_values_become_plain() -> None:
    config = {"lr": np.float32(0.5), "width": np.int64(8), "method": np.str_("sgd")}
    found = SPACE.check(config)
    assert found == {"lr": 0.5, "width": 8, "method": "sgd"}
    assert [type(value) for value in found.values()] == [float, int, str]
    numbers: list[Any] = [np.float32(0.5), np.int64(2), np.int64(1), np.int8(3)]
    ranges: dict[str, Parameter] = {"a": Float(*numbers[:2]), "b": Int(*numbers[2:])}
    space = Space({**ranges, "c": Choice(*np.linspace(0, 1, 3)), "d": Choice(*np.array([True, False]))})
    again = json.loads(json.dumps(space.as_json()))  # what a file does to it
    assert again == space.as_json()
    assert again["a"] == {"kind": "Float", "low": 0.5, "high": 2.0, "log": False}
    options = [*again["c"]["options"], *again["d"]["options"]]
    assert [type(option) for option in options] == [float] * 3 + [bool] * 2
    assert space.check({"a": 1, "b": 2, "c": 0.5, "d": True}) == {"a": 1.0, "b": 2, "c": 0.5, "d": True}


WIDE: list[Parameter] = [
    *(Float(1e-300, 1e300, log=True), Float(5e-324, 1.7e308, log=True), Float(-8e307, 8e307), Float(1e300, 1.1e300)),
    *(Float(1.0, 1.0 + 1e-9), Float(0, 1e-300), Float(1e300, 1.1e300, log=True)),
    *(Int(-(2**53), 2**53), Int(1, 2**53, log=True), Int(2**53 - 5, 2**53), Int(2**52, 2**52 + 1, log=True)),
]


@pytest.mark.parametrize("parameter", WIDE, ids=str)
def test_the_widest_and_the_furthest_ranges_are_crossed_in_order(parameter: Float | Int) -> None:
    places = np.linspace(0, 1, 201).tolist()
    values = [parameter.decode(place) for place in places]
    assert all(map(parameter.holds, values)) and values == sorted(values)
    assert all(0 <= parameter.encode(value) <= 1 for value in values)
    if isinstance(parameter, Float):
        assert (values[0], values[-1]) == pytest.approx((parameter.low, parameter.high), rel=1e-12)
        assert len(set(values)) == 201
        assert [parameter.encode(value) for value in values] == pytest.approx(places, abs=1e-6)
        low, middle, high = map(Fraction, values[::100])  # without the limits of a float
        if parameter.log:
            assert float(middle**2 / (low * high)) == pytest.approx(1, rel=1e-9)
        else:
            assert float((2 * middle - low - high) / (high - low)) == pytest.approx(0, abs=1e-6)


def test_a_space_of_many_wide_ranges_is_counted() -> None:
    many: dict[str, Parameter] = {f"n{at}": Int(1, 2**53) for at in range(30)}
    assert Space(many).count == 2 ** (53 * 30)
    assert Space({**many, "x": Float(0, 1)}).count == math.inf


# Ranges that are refused

CLOSE = [
    (1.0, 1.0000000000000002),
    (0, 5e-324),
    (0.5, 0.5 + 1e-12),
    (-1e300, -1e300 * (1 - 1e-14)),
    (1e300, 1.00000001e300, True),
]
FAR = [(0, 2**53 + 1), (-(2**60), 0), (2**60, 2**60 + 5), (1, 2**60, True)]


@pytest.mark.parametrize(
    ("kind", "bounds", "error", "sentence"),
    [
        (Float, ("0", 1), TypeError, "low must be a number; got '0'."),
        (Float, (0, None), TypeError, "high must be a number; got None."),
        (Float, (False, 1), TypeError, "low must be a number; got False."),
        (Float, (0, np.True_), TypeError, "high must be a number; got "),
        (Float, (math.nan, 1), ValueError, "low must be finite; got nan."),
        (Float, (0, math.inf), ValueError, "high must be finite; got inf."),
        (Float, (1, 2, "yes"), TypeError, "log must be True or False; got 'yes'"),
        (Float, (2.5, 1), ValueError, "low must be below high; got low 2.5 and high 1."),
        (Float, (0, 1, True), ValueError, "low must be above 0 for a logarithmic range; got 0."),
        (Float, (0, 10**400), ValueError, "high must be finite; got 1000"),
        (
            Float,
            (-1e308, 1e308),
            ValueError,
            "high - low must be finite; got low -1e[+]308 and high 1e[+]308: give a nar",
        ),
        *(
            (Float, bounds, ValueError, "low and high must lie further apart, with 2.20 floats.*: use a Choice")
            for bounds in CLOSE
        ),
        *(
            (Int, bounds, ValueError, r"low and high must lie in -2\^53 .. 2\^53, where a float is exact; got low")
            for bounds in FAR
        ),
        (Int, (0.0, 1), TypeError, "low must be a whole number; got 0.0."),
        (Int, (0, True), TypeError, "high must be a whole number; got True."),
        (Int, (3, 3), ValueError, "low must be below high; got low 3 and high 3."),
        (Int, (0, 8, True), ValueError, "low must be above 0 for a logarithmic range; got 0."),
        (Choice, (), ValueError, r"options must be two or more, none twice; got \(\)."),
        (Choice, ("a",), ValueError, r"options must be two or more, none twice; got \('a',\)."),
        (Choice, ("a", "b", "a"), ValueError, r"none twice; got \('a', 'b', 'a'\)."),
        (Choice, (1, np.int64(1)), ValueError, r"none twice; got \(1, 1\)."),
        (Choice, (0.5, math.nan), ValueError, r"options must not be NaN, which equals nothing; got \(0.5, nan\)."),
        (Choice, (b"a", b"b"), TypeError, "options must be texts, numbers, bools or None; got b'a'.$"),
        (Choice, (1j, 2), TypeError, "options must be texts, numbers, bools or None; got 1j.$"),
        *((Choice, ("a", each), TypeError, CONDITIONS) for each in ((2, 3), Float(0, 1), {"b": Float(0, 1)}, SPACE)),
    ],
)
def test_a_range_without_values_is_refused(kind: Any, bounds: tuple[Any, ...], error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        kind(*bounds)


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        ({}, ValueError, "parameters is empty; a space needs at least one."),
        ([("a", Float(0, 1))], TypeError, r"parameters must map names to Float, Int or Choice; got \[\('a'"),
        ({3: Float(0, 1)}, TypeError, "parameters: a name must be text; got 3."),
        ({"": Float(0, 1)}, TypeError, "parameters: a name must be text; got ''."),
        ({"a": 0.5}, TypeError, "parameters: a must be a Float, an Int or a Choice; got 0.5.$"),
        *(({"a": each}, TypeError, CONDITIONS) for each in ((0, 1), SPACE, {"b": Int(0, 1)}, lambda config: Int(0, 1))),
    ],
)
def test_what_is_no_space_is_refused(parameters: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Space(parameters)


def test_an_option_of_many_is_found_and_they_are_not_all_named() -> None:
    many = Choice(*range(2000))
    assert [many.index(value) for value in (0, 1999, 2000, 0.0, False, [1], None)] == [0, 1999, *[None] * 5]
    assert (repr(many), str(many)) == ("Choice(2,000 options)", "one of 2,000, such as 0 and 1")
    few = Choice(*range(30))
    assert (len(repr(few)), str(few)[:15]) == (len(f"Choice{tuple(range(30))}"), "one of 0, 1, 2,")


def test_features_tell_options_apart_for_a_model_alone() -> None:
    """They change neither what a file has nor what is equal, and nobody changes them."""
    given = np.array([[0.0, 1], [1, 0], [1, 1]])
    with_features, without = Choice("a", "b", "c", features=given), Choice("a", "b", "c")
    assert with_features == without
    assert hash(with_features) == hash(without)
    assert repr(with_features) == repr(without) == "Choice('a', 'b', 'c')"
    assert Space({"kind": with_features}).as_json() == {"kind": {"kind": "Choice", "options": ["a", "b", "c"]}}
    given[:] = 9
    for choice in (with_features, pickle.loads(pickle.dumps(with_features)), copy.deepcopy(with_features)):
        assert choice.features is not None
        assert choice.features.tolist() == [[0, 1], [1, 0], [1, 1]]
        assert choice.index("c") == 2
    with pytest.raises(ValueError, match="read-only"):
        with_features.features[0, 0] = 5  # type: ignore[index]
    assert Choice("a", "b", features=[[1], [2]]).features.tolist() == [[1.0], [2.0]]  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    ("features", "error", "sentence"),
    [
        (np.ones((3, 2)), ValueError, r"features must be a row of numbers for each of 2 options; got shape \(3, 2\)."),
        (np.ones((1, 2)), ValueError, r"features must be a row of numbers for each of 2 options; got shape \(1, 2\)."),
        (np.ones(2), ValueError, r"features must be a row of numbers for each of 2 options; got shape \(2,\)."),
        (np.ones((2, 0)), ValueError, r"features must be a row of numbers for each of 2 options; got shape \(2, 0\)."),
        (np.ones((2, 1, 1)), ValueError, r"features must be a row .* got shape \(2, 1, 1\)."),
        (3.0, ValueError, r"features must be a row of numbers for each of 2 options; got shape \(\)."),
        ([[1.0], [math.nan]], ValueError, r"features must be finite; got \[\[1.0\], \[nan\]\]."),
        ([[1.0], [math.inf]], ValueError, r"features must be finite; got \[\[1.0\], \[inf\]\]."),
        ([["a"], ["b"]], TypeError, r"features must be rows of numbers, all as long; got \[\['a'\], \['b'\]\]."),
        (
            [[1.0], [1.0, 2.0]],
            TypeError,
            r"features must be rows of numbers, all as long; got \[\[1.0\], \[1.0, 2.0\]\].",
        ),
    ],
)
def test_features_that_are_none_are_refused(features: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{sentence}$"):
        Choice("a", "b", features=features)


# Spaces


def test_a_space_takes_configurations_to_the_cube_and_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        config = SPACE.decode(rng.random(3))
        assert list(config) == ["lr", "width", "method"]
        assert SPACE.decode(SPACE.encode(config)) == {**config, "lr": pytest.approx(config["lr"])}
    middle = SPACE.encode({"method": "sgd", "width": 34, "lr": 0.01})
    assert middle.tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert SPACE.decode(np.full(3, 0.5)) == {"lr": pytest.approx(0.01), "width": 34, "method": "sgd"}
    assert (len(SPACE), SPACE.names, SPACE.count) == (3, ("lr", "width", "method"), math.inf)
    assert Space({"a": Int(1, 3), "b": Choice("x", "y"), "c": Int(0, 4)}).count == 3 * 2 * 5


def test_a_configuration_is_copied_in_the_spaces_order() -> None:
    given = {"method": None, "width": 4, "lr": 1}
    found = SPACE.check(given)
    assert list(found.items()) == [("lr", 1.0), ("width", 4), ("method", None)]
    assert key(found) == key(SPACE.check(dict(reversed(given.items()))))
    found["width"] = 5
    assert given["width"] == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"depth": 3}, "config has an unknown key 'depth'; the space has lr, width, method."),
        ({"width": ...}, "config has no width; the space has lr, width, method."),
        ({"lr": 2}, "config: lr must be a number from 0.0001 to 1; got 2."),
        ({"width": 8.0}, "config: width must be a whole number from 4 to 64; got 8.0."),
        ({"method": "lbfgs"}, "config: method must be one of 'adam', 'sgd', None; got 'lbfgs'."),
    ],
)
def test_a_configuration_outside_the_space_is_refused(changes: dict[str, Any], sentence: str) -> None:
    config = {"lr": 0.1, "width": 8, "method": "adam"} | changes
    config = {name: value for name, value in config.items() if value is not ...}
    for call in (SPACE.check, SPACE.encode):
        with pytest.raises(ValueError, match=sentence):
            call(config)


def test_what_is_no_configuration_and_no_place_in_the_cube_is_refused() -> None:
    with pytest.raises(TypeError, match=r"config must map names to values; got \[0.1, 8\]."):
        SPACE.check([0.1, 8])  # type: ignore[arg-type]
    for places in ([0.5, 0.5], [[0.5] * 3], [0.5, 0.5, 1.1], [-0.1, 0, 0], [0, 0, math.nan]):
        with pytest.raises(ValueError, match=r"places must be 3 numbers in \[0, 1\]; got \["):
            SPACE.decode(np.array(places))


def test_a_space_does_not_change_even_in_another_process() -> None:
    parameters: dict[str, Parameter] = {"a": Float(0, 1)}
    space = Space(parameters)
    parameters["b"] = Int(0, 1)
    assert space.names == ("a",)
    with pytest.raises(TypeError):
        space.parameters["b"] = Int(0, 1)  # type: ignore[index]
    for again in (pickle.loads(pickle.dumps(SPACE)), copy.deepcopy(SPACE)):
        assert again == SPACE
        assert json.dumps(again.as_json()) == json.dumps(SPACE.as_json())  # in the same order


def test_spaces_are_compared_in_plain_values() -> None:
    assert SPACE.as_json() == {
        "lr": {"kind": "Float", "low": 1e-4, "high": 1.0, "log": True},
        "width": {"kind": "Int", "low": 4, "high": 64, "log": False},
        "method": {"kind": "Choice", "options": ["adam", "sgd", None]},
    }
    written = (  # in the files of studies
        '{"lr": {"kind": "Float", "low": 0.0001, "high": 1.0, "log": true}, "width": {"kind": "Int", "low": 4, '
        '"high": 64, "log": false}, "method": {"kind": "Choice", "options": ["adam", "sgd", null]}}'
    )
    assert json.dumps(SPACE.as_json()) == written
    same = Space({"lr": Float(0.0001, 1, log=True), "width": Int(4, 64), "method": Choice("adam", "sgd", None)})
    assert json.dumps(same.as_json()) == json.dumps(SPACE.as_json())
    others: list[Parameter] = [Int(4, 65), Int(3, 64), Int(4, 64, log=True), Float(4, 64), Choice(4, 64)]
    assert all(Space({**SPACE.parameters, "width": other}).as_json() != SPACE.as_json() for other in others)
