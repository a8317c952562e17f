"""Whole heads of attentions whose single channels cannot be followed: the cut is proposed by widths, then tried out.

Rotary positions mix the channels of a head, grouped queries share a key, and one weight may hold query, key and value.
What still holds is that heads are blocks of equal width, and that the views of the model say how wide these are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from kit.prune import joints
from kit.prune.groups import Group, Side


def whole_heads(
    model: nn.Module, sides: Mapping[tuple[str, bool], int], splits: Collection[tuple[int, int]], inputs: Tensor
) -> Group | None:
    """The group in which heads go with all that belongs to them; None where no arrangement answers as it should.

    Args:
        model: not changed.
        sides: by the name of a layer, and whether it is about its outputs: how many it has. One layer's inputs are the
            heads' results; the outputs of the others are queries, keys and values, alone or joined.
        splits: lengths (heads, width of each) into which the model's views split an axis.
        inputs: samples on which removing the first head, and the last, must equal zeros in its place.
    """
    takers = [width for (_, outward), width in sides.items() if not outward]
    if len(takers) != 1 or len(sides) < 2:
        return None
    for width in sorted({each for heads, each in splits if heads * each == takers[0]}):
        for group in _arranged(sides, takers[0], width):
            ends = (group.units == 0, group.units == group.n_units - 1)
            if group.n_units > 1 and all(_fits(model, group, gone, inputs) for gone in ends):
                return group
    return None


def _arranged(sides: Mapping[tuple[str, bool], int], whole: int, width: int) -> Iterator[Group]:
    """Ways in which the layers may hold the heads: of one with several times as many, part by part or head by head."""
    if any(each % (width if each <= whole else whole) or whole % min(each, whole) for each in sides.values()):
        return
    count = min(each // width for each in sides.values())  # keys and values may be fewer: their queries go with them
    for by_part in (True, False) if max(sides.values()) > whole else (True,):
        made = []
        for (name, outward), each in sides.items():
            at, part = torch.arange(each), min(each, whole) if by_part else each
            made.append(Side(name, outward, each, at, at % part // (part // count)))
        yield Group(tuple(made), torch.arange(count))


def _fits(model: nn.Module, group: Group, gone: Tensor, inputs: Tensor) -> bool:
    marks = {(side.layer, side.outward): gone[side.channels] for side in group.sides}
    return joints.first_fault(model, joints.cut(model, marks), marks, inputs) is None
