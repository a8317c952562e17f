"""What may be chosen: named hyper-parameters, each with its range, and their way to the unit cube and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import numpy as np

Config = dict[str, Any]  # one value a name


@dataclass(frozen=True)
class Float:
    """A real number.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether equal steps on the unit interval are equal factors; then `low` must be above 0.

    Raises:
        TypeError: a bound that is no number.
        ValueError: bounds that are not finite, `low` not below `high`, or a logarithm of a bound that is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse a range that has no values."""
        _check_range(self, Real)

    @property
    def count(self) -> float:
        """How many different values there are: infinity."""
        return math.inf

    def encode(self, value: Any) -> float:
        """The place of a value in [0, 1]."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def decode(self, place: float) -> float:
        """The value at a place in [0, 1]."""
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        return min(max(value, self.low), self.high)  # rounding may step over an end

    def holds(self, value: Any) -> bool:
        """Whether a value may be taken."""
        return _is(value, Real) and self.low <= value <= self.high

    def plain(self, value: Any) -> float:
        """A value that it holds, as Python's own kind."""
        return float(value)

    def __str__(self) -> str:
        """The range in words."""
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Int:
    """A whole number.

    Attributes:
        low: smallest value.
        high: largest value.
        log: as in `Float`.

    Each value gets its own part of the unit interval, and stands in the middle of it: [low - 1/2, high + 1/2] is what
    is mapped, evenly or by its logarithm.

    Raises:
        TypeError: a bound that is no whole number.
        ValueError: as in `Float`.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse a range that has no values."""
        _check_range(self, Integral)

    @property
    def count(self) -> float:
        """How many different values there are."""
        return self.high - self.low + 1

    @property
    def _wide(self) -> Float:
        return Float(self.low - 0.5, self.high + 0.5, self.log)

    def encode(self, value: Any) -> float:
        """The place of a value in [0, 1]."""
        return self._wide.encode(value)

    def decode(self, place: float) -> int:
        """The value at a place in [0, 1]."""
        return min(max(math.floor(self._wide.decode(place) + 0.5), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value may be taken."""
        return _is(value, Integral) and self.low <= value <= self.high

    def plain(self, value: Any) -> int:
        """A value that it holds, as Python's own kind."""
        return int(value)

    def __str__(self) -> str:
        """The range in words."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values without an order.

    Attributes:
        options: texts, numbers, bools or None; two or more, none twice.

    Raises:
        TypeError: an option of another kind.
        ValueError: fewer than two options, one twice, or NaN.
    """

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        """As `Choice("adam", "sgd")`."""
        options = tuple(option.item() if isinstance(option, np.generic) else option for option in options)
        object.__setattr__(self, "options", options)
        for option in options:
            if not isinstance(option, (str, int, float, bool, type(None))):
                hint = " Conditions are not supported: write one space for each branch." if _nested(option) else ""
                raise TypeError(f"options must be texts, numbers, bools or None; got {option!r}.{hint}")
        if any(option != option for option in options):
            raise ValueError(f"options must not be NaN, which equals nothing; got {options!r}.")
        if len(options) < 2 or len({(type(option), option) for option in options}) < len(options):
            raise ValueError(f"options must be two or more, none twice; got {options!r}.")

    @property
    def count(self) -> float:
        """How many different values there are."""
        return len(self.options)

    def index(self, value: Any) -> int | None:
        """The number of an option, from 0; None where it is none. 1 and True are different options."""
        value = self.plain(value)
        same = (at for at, option in enumerate(self.options) if type(option) is type(value) and option == value)
        return next(same, None)

    def encode(self, value: Any) -> float:
        """The middle of the option's part of [0, 1]."""
        at = self.index(value)
        assert at is not None
        return (at + 0.5) / len(self.options)

    def decode(self, place: float) -> Any:
        """The option whose part of [0, 1] holds the place."""
        return self.options[min(int(place * len(self.options)), len(self.options) - 1)]

    def holds(self, value: Any) -> bool:
        """Whether a value may be taken."""
        return self.index(value) is not None

    def plain(self, value: Any) -> Any:
        """A value that it holds, as Python's own kind."""
        return value.item() if isinstance(value, np.generic) else value

    def __str__(self) -> str:
        """The options in words."""
        return f"one of {', '.join(map(repr, self.options))}"


Parameter = Float | Int | Choice


@dataclass(frozen=True)
class Space:
    """Hyper-parameters by name, each independent of the others.

    Attributes:
        parameters: the range of each.

    Raises:
        TypeError: no mapping, a name that is no text, or a range of another kind; a range that depends on another
            parameter (a condition) is one: write one space for each branch.
        ValueError: no parameters.
    """

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        """Refuse what is no space; keep a copy that nobody can change."""
        if not isinstance(self.parameters, Mapping):
            raise TypeError(f"parameters must map names to Float, Int or Choice; got {self.parameters!r}.")
        for name, parameter in self.parameters.items():
            if not isinstance(name, str) or not name:
                raise TypeError(f"parameters: a name must be text; got {name!r}.")
            if not isinstance(parameter, (Float, Int, Choice)):
                hint = " Conditions are not supported: write one space for each branch." if _nested(parameter) else ""
                raise TypeError(f"parameters: {name} must be a Float, an Int or a Choice; got {parameter!r}.{hint}")
        if not self.parameters:
            raise ValueError("parameters is empty; a space needs at least one.")
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __reduce__(self) -> tuple[type[Space], tuple[dict[str, Parameter]]]:
        """Pickle, so that other processes can be given it; a MappingProxyType cannot be pickled."""
        return Space, (dict(self.parameters),)

    def __len__(self) -> int:
        """The number of parameters."""
        return len(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self.parameters)

    @property
    def count(self) -> float:
        """How many different configurations there are; infinity where a parameter is a Float."""
        return math.prod(parameter.count for parameter in self.parameters.values())

    def check(self, config: Mapping[str, Any]) -> Config:
        """A copy of the configuration, its entries in the space's order.

        Raises:
            ValueError: a key is unknown or missing, or a value out of its range.
            TypeError: no mapping.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must map names to values; got {config!r}.")
        names = ", ".join(self.names)
        for key in config:
            if key not in self.parameters:
                raise ValueError(f"config has an unknown key {key!r}; the space has {names}.")
        for name, parameter in self.parameters.items():
            if name not in config:
                raise ValueError(f"config has no {name}; the space has {names}.")
            if not parameter.holds(config[name]):
                raise ValueError(f"config: {name} must be {parameter}; got {config[name]!r}.")
        return {name: parameter.plain(config[name]) for name, parameter in self.parameters.items()}

    def encode(self, config: Mapping[str, Any]) -> np.ndarray:
        """The place of a configuration in the unit cube, [d]; errors as in `check`."""
        config = self.check(config)
        return np.array([parameter.encode(config[name]) for name, parameter in self.parameters.items()])

    def decode(self, places: np.ndarray) -> Config:
        """The configuration at a place in the unit cube.

        Args:
            places: [d], each in [0, 1].

        Raises:
            ValueError: another length, or a place outside of the cube.
        """
        if np.shape(places) != (len(self),) or not all(0 <= place <= 1 for place in places):
            raise ValueError(f"places must be {len(self)} numbers in [0, 1]; got {np.asarray(places).tolist()!r}.")
        pairs = zip(self.parameters.items(), places, strict=True)
        return {name: parameter.decode(float(place)) for (name, parameter), place in pairs}

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The space in plain values, to be compared and kept."""
        return {
            name: {"kind": type(parameter).__name__}
            | {
                field.name: list(value) if isinstance(value := getattr(parameter, field.name), tuple) else value
                for field in fields(parameter)
            }
            for name, parameter in self.parameters.items()
        }


def key(config: Mapping[str, Any]) -> tuple[tuple[str, type, Any], ...]:
    """What tells one configuration from another, as a key of a dict. 1 and True are different."""
    return tuple((name, type(value), value) for name, value in config.items())


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, (bool, np.bool_))


def _nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, Space, Float, Int, Choice)) or callable(value)


def _check_range(parameter: Float | Int, kind: type) -> None:
    for name in ("low", "high"):
        bound = getattr(parameter, name)
        if not _is(bound, kind):
            raise TypeError(f"{name} must be a {'whole ' * (kind is Integral)}number; got {bound!r}.")
        if not math.isfinite(bound):
            raise ValueError(f"{name} must be finite; got {bound!r}.")
    if not isinstance(parameter.log, bool):
        raise TypeError(f"log must be True or False; got {parameter.log!r}.")
    if not parameter.low < parameter.high:
        raise ValueError(f"low must be below high; got low {parameter.low!r} and high {parameter.high!r}.")
    if parameter.log and parameter.low <= 0:
        raise ValueError(f"low must be above 0 for a logarithmic range; got {parameter.low!r}.")
    for name in ("low", "high"):
        object.__setattr__(parameter, name, parameter.plain(getattr(parameter, name)))
