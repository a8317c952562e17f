"""What may be chosen: named hyper-parameters, each with its range, and their way to the unit cube and back."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np

from kit import checks

Config = dict[str, Any]  # one value for each name

LEAST_STEPS = 2**20  # of a Float: it must not run out of values
MOST_NAMED = 30  # options of a Choice in a message
MOST_WHOLE = 2**53  # up to here a float tells all whole numbers apart


@dataclass(frozen=True)
class _Range:
    """What `Float` and `Int` share: the way from [low, high] to the unit interval, evenly or by the logarithm."""

    low: float
    high: float
    log: bool = False
    _kind: ClassVar[type] = Real
    _words: ClassVar[str] = "number"
    _margin: ClassVar[float] = 0.0  # by which the range that is mapped is wider at each end

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            if not _is(bound, self._kind):
                raise TypeError(f"{name} must be a {self._words}; got {bound!r}.")
            checks.number(name, bound)
        checks.instance("log", self.log, bool, "True or False")
        if not self.low < self.high:
            raise ValueError(f"low must be below high; got low {self.low!r} and high {self.high!r}.")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 for a logarithmic range; got {self.low!r}.")
        for name in ("low", "high"):
            object.__setattr__(self, name, self.plain(getattr(self, name)))
        self._check_width()

    def _check_width(self) -> None:
        """Refuse a range that a float cannot cross: too wide, or with too few floats in it."""
        got = f"got low {self.low!r} and high {self.high!r}"
        if self._kind is Integral:
            if max(-self.low, self.high) > MOST_WHOLE:
                raise ValueError(f"low and high must lie in -2^53 .. 2^53, where a float is exact; {got}.")
            return
        width = self.high - self.low
        if width == math.inf:
            raise ValueError(f"high - low must be finite; {got}: give a narrower range.")
        steps = width / math.ulp(max(-self.low, self.high))
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            steps = min(steps, (high - low) / math.ulp(max(-low, high)))
        if steps < LEAST_STEPS:
            raise ValueError(
                f"low and high must lie further apart, with 2^20 floats between them; {got}: use a Choice."
            )

    def encode(self, value: Any) -> float:
        """The place of a value in [0, 1]."""
        low, high = self.low - self._margin, self.high + self._margin
        return _log_ratio(value, low) / _log_ratio(high, low) if self.log else (value - low) / (high - low)

    def decode(self, place: float) -> Any:
        """The value at a place in [0, 1]."""
        low, high = self.low - self._margin, self.high + self._margin
        if self.log:
            low, high = math.log(low), math.log(high)
        value = low + place * (high - low)
        value = math.exp(value) if self.log else value
        value = math.floor(value + 0.5) if self._kind is Integral else value
        return min(max(value, self.low), self.high)  # rounding may step over an end

    @property
    def count(self) -> float:
        """How many different values there are: infinity for real numbers."""
        return self.high - self.low + 1 if self._kind is Integral else math.inf

    def holds(self, value: Any) -> bool:
        """Whether a value may be taken."""
        return _is(value, self._kind) and self.low <= value <= self.high

    def plain(self, value: Any) -> Any:
        """A value that it holds, as Python's own kind."""
        return int(value) if self._kind is Integral else float(value)

    def __str__(self) -> str:
        form = "d" if self._kind is Integral else "g"
        return f"a {self._words} from {self.low:{form}} to {self.high:{form}}"


@dataclass(frozen=True)
class Float(_Range):
    """A real number.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether equal steps on the unit interval are equal factors; then `low` must be above 0.

    Raises:
        TypeError: a bound that is no number.
        ValueError: bounds that are not finite, `low` not below `high`, a logarithm of a bound that is not above 0, a
            range whose width overflows, or one with fewer than 2^20 floats in it.
    """


@dataclass(frozen=True)
class Int(_Range):
    """A whole number; attributes and errors as in `Float`, but that the bounds must be whole, in -2^53 .. 2^53.

    Each value gets its own part of the unit interval, and stands in the middle of it: [low - 1/2, high + 1/2] is what
    is mapped, evenly or by its logarithm.
    """

    low: int
    high: int
    _kind = Integral
    _words = "whole number"
    _margin = 0.5

    @property
    def values(self) -> Sequence[int]:
        """All values, ascending."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True, init=False, repr=False)
class Choice:
    """One of several values without an order.

    Attributes:
        options: texts, numbers, bools or None; two or more, none twice.
        features: what a model tells the options by, a row of numbers for each, [n, f]; None makes each option as
            unlike one as the other.

    Raises:
        TypeError: an option of another kind, or features that are no numbers.
        ValueError: fewer than two options, one twice, or NaN; features of another shape, or not finite.
    """

    options: tuple[Any, ...]
    _numbers: dict[tuple[type, Any], int] = field(repr=False, compare=False)
    features: np.ndarray | None = field(repr=False, compare=False)

    def __init__(self, *options: Any, features: np.ndarray | None = None) -> None:
        options = tuple(map(self.plain, options))
        object.__setattr__(self, "options", options)
        for option in options:
            if not isinstance(option, (str, int, float, bool, type(None))):
                raise TypeError(f"options must be texts, numbers, bools or None; got {option!r}.{_hint(option)}")
        if any(option != option for option in options):
            raise ValueError(f"options must not be NaN, which equals nothing; got {options!r}.")
        if len(options) < 2 or len({(type(option), option) for option in options}) < len(options):
            raise ValueError(f"options must be two or more, none twice; got {options!r}.")
        if features is not None:
            try:
                features = np.array(features, float)
            except (TypeError, ValueError) as error:
                raise TypeError(f"features must be rows of numbers, all as long; got {features!r}.") from error
            if features.ndim != 2 or not features.size or len(features) != len(options):
                came = f"got shape {features.shape}"
                raise ValueError(f"features must be a row of numbers for each of {len(options)} options; {came}.")
            if not np.isfinite(features).all():
                raise ValueError(f"features must be finite; got {features.tolist()}.")
            features.setflags(write=False)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "_numbers", {(type(option), option): at for at, option in enumerate(options)})

    @property
    def count(self) -> float:
        """How many different values there are."""
        return len(self.options)

    @property
    def values(self) -> Sequence[Any]:
        """All values: the options."""
        return self.options

    def index(self, value: Any) -> int | None:
        """The number of an option, from 0; None where it is none. 1 and True are different options."""
        value = self.plain(value)
        return self._numbers.get((type(value), value)) if isinstance(value, Hashable) else None

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

    def __repr__(self) -> str:
        """As it is written; of more than `MOST_NAMED` options, how many there are."""
        many = len(self.options) > MOST_NAMED
        return f"Choice({f'{len(self.options):,} options' if many else ', '.join(map(repr, self.options))})"

    def __str__(self) -> str:
        """The options in words; of more than `MOST_NAMED` the first two, and how many there are."""
        if len(self.options) > MOST_NAMED:
            return f"one of {len(self.options):,}, such as {self.options[0]!r} and {self.options[1]!r}"
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
            if not isinstance(parameter, Parameter):
                hint = _hint(parameter)
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
        counts = [parameter.count for parameter in self.parameters.values()]
        return math.inf if math.inf in counts else math.prod(counts)  # whole numbers without end, beside infinity

    def check(self, config: Mapping[str, Any]) -> Config:
        """A copy of the configuration, its entries in the space's order.

        Raises:
            ValueError: a key is unknown or missing, or a value out of its range.
            TypeError: no mapping.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must map names to values; got {config!r}.")
        for key in config:
            if key not in self.parameters:
                raise ValueError(f"config has an unknown key {key!r}; the space has {', '.join(self.names)}.")
        for name, parameter in self.parameters.items():
            if name not in config:
                raise ValueError(f"config has no {name}; the space has {', '.join(self.names)}.")
            if not parameter.holds(config[name]):
                raise ValueError(f"config: {name} must be {parameter}; got {config[name]!r}.")
        return {name: parameter.plain(config[name]) for name, parameter in self.parameters.items()}

    def encode(self, config: Mapping[str, Any]) -> np.ndarray:
        """The place of a configuration in the unit cube, [d]; errors as in `check`."""
        config = self.check(config)
        return np.array([parameter.encode(config[name]) for name, parameter in self.parameters.items()])

    def decode(self, places: np.ndarray) -> Config:
        """The configuration at a place in the unit cube, [d], each in [0, 1]; all else is a ValueError."""
        if np.shape(places) != (len(self),) or not all(0 <= place <= 1 for place in places):
            raise ValueError(f"places must be {len(self)} numbers in [0, 1]; got {np.asarray(places).tolist()!r}.")
        pairs = zip(self.parameters.items(), places, strict=True)
        return {name: parameter.decode(float(place)) for (name, parameter), place in pairs}

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The space in plain values, to be compared and kept."""
        found = {
            name: {"kind": type(each).__name__} | {at.name: getattr(each, at.name) for at in fields(each) if at.compare}
            for name, each in self.parameters.items()
        }
        return cast(dict[str, dict[str, Any]], json.loads(json.dumps(found)))  # with lists for tuples, as a file has it


def key(config: Mapping[str, Any]) -> tuple[tuple[str, type, Any], ...]:
    """What tells one configuration from another, as a key of a dict. 1 and True are different."""
    return tuple((name, type(value), value) for name, value in config.items())


def combination(values: Mapping[str, Sequence[Any]], number: int) -> Config:
    """Of all combinations of some values of each name the one of that number, from 0; the last name turns quickest."""
    found: Config = {}
    for name in reversed(list(values)):
        number, at = divmod(number, len(values[name]))
        found[name] = values[name][at]
    return {name: found[name] for name in values}


def _log_ratio(value: float, low: float) -> float:
    ratio = value / low
    return math.log(ratio) if ratio < math.inf else math.log(value) - math.log(low)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, (bool, np.bool_))


def _hint(value: Any) -> str:
    nested = isinstance(value, (Mapping, list, tuple, Space, Parameter)) or callable(value)
    return " Conditions are not supported: write one space for each branch." if nested else ""
