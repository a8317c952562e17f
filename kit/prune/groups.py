"""Groups of layers whose channels hang together, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Side:
    """The outputs, or the inputs, of one layer that belong to the channels of a group.

    Attributes:
        layer: its name; or the name of a parameter that belongs to no layer.
        outward: outputs rather than inputs.
        width: how many the layer has.
        positions: int64 [n], those that belong to the group.
        channels: int64 [n], the group's channel at each position.
    """

    layer: str
    outward: bool
    width: int
    positions: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that hang together over several layers; `units` int64 [channels]: those of one unit go together."""

    sides: tuple[Side, ...]
    units: Tensor

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return int(self.units.max()) + 1
