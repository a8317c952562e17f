"""Hardware, and the least time that a step can take on it: the roofline (Williams, Waterman & Patterson 2009).

Their point: a step of F FLOPs that moves B bytes takes at least max(F / peak, B / bandwidth). It is a bound, no
forecast: real kernels need longer, since they neither compute at the peak nor overlap everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kit import checks


@dataclass(frozen=True)
class Step:
    """What one step asks of a machine: FLOPs (two a multiply-add), bytes to and from memory, bits of the arithmetic."""

    flops: float
    bytes: float
    bits: int

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: FLOPs a byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Hardware:
    """A machine, by the two numbers of its roofline, and its memory.

    Attributes:
        name: of it.
        flops: FLOPs a second (two a multiply-add) of dense matrix products, by the bits of the numbers.
        bandwidth: bytes a second between memory and processor.
        memory: bytes.
        sparse: whether it computes 2:4 sparse products at twice the rate.
        source: where the numbers are from.
        interval: the same machine at the slow and at the fast end of what is likely, where it was measured.

    Raises:
        ValueError: a number that is not above 0, or no rate at all; TypeError for what is no number.
    """

    name: str
    flops: Mapping[int, float]
    bandwidth: float
    memory: float
    sparse: bool = False
    source: str = ""
    interval: tuple[Hardware, Hardware] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no machine."""
        if not self.flops:
            raise ValueError("flops must name a rate for at least one number of bits; got none.")
        for bits, rate in self.flops.items():
            checks.whole("bits of flops", bits, 1)
            checks.number(f"flops of {bits} bits", rate, above=0)
        checks.number("bandwidth", self.bandwidth, above=0)
        checks.number("memory", self.memory, above=0)

    def rate(self, bits: int) -> float:
        """FLOPs a second for numbers of so many bits: the fastest format that holds them.

        Raises:
            ValueError: the hardware has no format that wide.
        """
        if not (wide := [rate for known, rate in self.flops.items() if known >= bits]):
            raise ValueError(f"bits must be {max(self.flops)} or less on {self.name}; got {bits}.")
        return max(wide)


@dataclass(frozen=True)
class Bound:
    """The least time of a step, seconds.

    Attributes:
        compute: what its FLOPs take at the peak.
        read: what its bytes take at the bandwidth.
        low, high: the bound at the ends of the intervals of measured hardware; else the bound itself.
    """

    compute: float
    read: float
    low: float
    high: float

    @property
    def seconds(self) -> float:
        """The bound: the longer of the two."""
        return max(self.compute, self.read)

    @property
    def by(self) -> Literal["compute", "bandwidth"]:
        """Which of the two holds."""
        return "compute" if self.compute >= self.read else "bandwidth"


def bound(step: Step, hardware: Hardware) -> Bound:
    """The least time that a step takes; ValueError as for `Hardware.rate`."""
    ends = [_times(step, each) for each in hardware.interval or (hardware, hardware)]
    return Bound(*_times(step, hardware), max(ends[1]), max(ends[0]))


def _times(step: Step, hardware: Hardware) -> tuple[float, float]:
    return step.flops / hardware.rate(step.bits), step.bytes / hardware.bandwidth
