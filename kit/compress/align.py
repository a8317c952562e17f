"""Weight matching: the units of one network put into the order of the units of another that they are most like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from kit import checks, training
from kit.compress.merge import alike, tensors_of
from kit.data import Dataset
from kit.prune import Untraceable
from kit.prune.graph import follow, samples
from kit.prune.groups import Group
from kit.prune.joints import close, located
from kit.prune.structured import in_heads


@dataclass(frozen=True)
class Aligned:
    """What `align` gives.

    Attributes:
        model: answers as the given one does, with its units in the order of those of the other.
        permutations: by the name of a group of units, that of its first layer: for each place the unit of the given
            model that stands there now.
        outputs: for each unit of such a group, the outputs of its first layer: of a head several.
        before: the cosine of each unit's weights, those that come in and go out, with the other's unit in its place.
        after: the same for the units in their new order.
        skipped: what was left as it was: the name of a group's first layer, or of a layer; and why, in a sentence.
    """

    model: nn.Module
    permutations: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[tuple[int, ...], ...]]
    before: dict[str, tuple[float, ...]]
    after: dict[str, tuple[float, ...]]
    skipped: tuple[tuple[str, str], ...]


class _Place(NamedTuple):
    """Where a tensor holds the units of a group: the positions of each along an axis, int64 [units, positions]."""

    tensor: str
    axis: int
    at: Tensor


Places = list[_Place]


@torch.no_grad()
def align(model: nn.Module, to: nn.Module, *, dataset: Dataset, tries: int = 2, seed: int = 0) -> Aligned:
    """Put the units of `model` into the order of those of `to` that they are most like; its answers stay the same.

    Layer after layer, the order of its units is chosen that makes the sum of products of all weights with those of `to`
    largest: an assignment. Again and again, until no layer gains. Channels of a convolution are units, and whole heads
    of an attention; those that a sum ties together over several layers move together. What is reached is a local
    optimum, and some are poor: of several tries the one with the largest sum is taken.

    Args:
        model: any module whose channels can be followed (as `prune.channels` does it); not changed.
        to: one of the same class and shapes; not changed.
        dataset: gives a few samples to follow the units on, and to check that each exchange leaves the answers alone.
        tries: 1 or more. The first goes from the inputs to the answers, the second back, others in random order.
        seed: of the orders of the layers, 0 or more.

    Raises:
        Untraceable: no unit can be followed, or moved; says at which module.
        ValueError: models that do not match, NaN or infinity in their weights, or samples that they cannot take.
        TypeError: an argument of another type.

    Source: Ainsworth et al. (2023), Git Re-Basin, arXiv:2209.04836, section 3.2 and algorithm 1.
    """
    generator, tries = torch.Generator().manual_seed(checks.whole("seed", seed)), checks.whole("tries", tries, 1)
    moved, wanted = alike({"model": model, "to": to})
    if broken := [name for each in (moved, wanted) for name, p in each.named_parameters() if not p.isfinite().all()]:
        raise ValueError(f"model and to must hold finite weights; {broken[0]} holds NaN or infinity.")
    try:
        graph = follow(moved, dataset)
    except Untraceable as error:
        raise Untraceable(str(error).split(". Its weights")[0] + ", so its units cannot be matched.") from error
    groups, aside = dict[str, Places](), ", so those that stay would change"  # which is said of pruning
    skipped = {name: f"its units {reason.removesuffix(aside)}" for name, reason in graph.skipped.items()}
    inputs = samples(dataset)
    graph = in_heads(moved, graph, inputs)
    answer = training.predict(moved, inputs)
    for name in [name for name, _ in moved.named_modules() if name in graph.groups]:
        found = _places(moved, graph.groups[name])
        reason = found if isinstance(found, str) else _fault(moved, found, inputs, answer)
        if reason or isinstance(found, str):
            skipped[name] = reason
        else:
            groups[name] = found
    if not groups:
        why = next(iter(skipped.values()), "it has no hidden units")
        raise Untraceable(f"model: no unit of {type(model).__name__} can be moved: {why}.")
    before = {name: _cosines(moved, wanted, places) for name, places in groups.items()}
    forth = list(groups)  # from the inputs, or back from the answers: at both ends the models agree on the order
    orders = [forth, forth[::-1], *[None] * tries][:tries]
    reached = [_descended(moved, wanted, groups, order, generator) for order in orders]
    order, moved, _ = max(reached, key=lambda each: each[2])
    after = {name: _cosines(moved, wanted, places) for name, places in groups.items()}
    said = tuple((name, f"{reason}.") for name, reason in skipped.items())
    units = {name: _outputs(moved, name, places) for name, places in groups.items()}
    return Aligned(moved, {name: tuple(each.tolist()) for name, each in order.items()}, units, before, after, said)


def _descended(
    model: nn.Module, to: nn.Module, groups: dict[str, Places], first: list[str] | None, generator: torch.Generator
) -> tuple[dict[str, Tensor], nn.Module, float]:
    """Coordinate descent, at first in the order `first`, then in random ones: order of units, model, its worth."""
    moved, order = training.copy_of(model), {name: torch.arange(len(places[0].at)) for name, places in groups.items()}
    gains = True
    while gains:
        gains, shuffled = False, [list(groups)[at] for at in torch.randperm(len(groups), generator=generator).tolist()]
        for name in first or shuffled:
            places = groups[name]
            ours, theirs = _rows(moved, places), _rows(to, places)
            best = torch.from_numpy(linear_sum_assignment((theirs @ ours.T).numpy(), maximize=True)[1])
            if (best == torch.arange(len(best))).all():
                continue
            was = _product(moved, to, places)
            _permute(moved, places, best)
            if _product(moved, to, places) > was + 1e-9 * float(ours.norm() * theirs.norm()):
                order[name], gains = order[name][best], True
            else:  # nothing gained; or of a layer within the group, both of whose sides moved, something lost
                _permute(moved, places, best.argsort())
        first = None
    return order, moved, _product(moved, to, [place for places in groups.values() for place in places])


def _places(model: nn.Module, group: Group) -> Places | str:
    """Where the units of a group are held; or why they cannot change places."""
    n = group.n_units
    found: dict[tuple[str, int], _Place] = {}
    for side in group.sides:
        units = group.units[side.channels]
        if len(set(units.bincount(minlength=n).tolist())) > 1:
            return f"not all of its units go to the same places of {side.layer}"
        order = side.channels.argsort(stable=True)
        at = side.positions[order[units[order].argsort(stable=True)]].view(n, -1)  # a unit's positions in their order
        owner, axes, _ = located(model, side.layer, side.outward)
        path = next(name for name, module in model.named_modules() if module is owner)
        for key, axis in axes.items():
            if getattr(owner, key, None) is not None:
                if getattr(owner, key).shape[axis] <= int(at.max()):  # a block of a grouped layer stands for all
                    return f"the groups of {side.layer} go together"
                name = f"{path}.{key}".lstrip(".")
                found[name, axis] = _Place(name, axis, at)
    return list(found.values())


def _outputs(model: nn.Module, layer: str, places: Places) -> tuple[tuple[int, ...], ...]:
    """The outputs of each unit in the first layer of its group."""
    axis = located(model, layer, outward=True)[1]["weight"]
    (at,) = (place.at for place in places if place[:2] == (f"{layer}.weight", axis))
    return tuple(map(tuple, at.tolist()))


def _fault(model: nn.Module, places: Places, inputs: Tensor, answer: Tensor) -> str:
    """What is wrong with the places: with its units in another order, the model must give the same answer.

    The order is changed in the model itself, and then back: a copy a group is slow in a deep one.
    """
    n = len(places[0].at)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))  # not its reverse, which a shuffle may keep
    order = order if (order != torch.arange(n)).any() else order.flip(0)
    _permute(model, places, order)
    try:
        same = close(answer, training.predict(model, inputs))
    except ValueError:
        same = False
    _permute(model, places, order.argsort())
    return "" if same else "in another order of its units the model would answer otherwise"


@torch.no_grad()
def _permute(model: nn.Module, places: Places, order: Tensor) -> None:
    """Let the unit `order[i]` stand at place i, in place."""
    tensors = tensors_of(model)
    for name, axis, at in places:
        tensor = tensors[name]
        index = torch.arange(tensor.shape[axis]).index_put_((at.flatten(),), at[order].flatten())
        tensor.copy_(tensor.index_select(axis, index.to(tensor.device)))


def _rows(model: nn.Module, places: Places, least: int = 1) -> Tensor:
    """All weights of each unit in a row, of tensors with `least` axes or more. -> float64 [units, weights]."""
    parameters = {name: each for name, each in model.named_parameters() if each.ndim >= least}  # no batch statistics
    held = [(parameters[name], axis, at) for name, axis, at in places if name in parameters]
    picked = [tensor.movedim(axis, 0)[at.flatten().to(tensor.device)].reshape(len(at), -1) for tensor, axis, at in held]
    return torch.cat([each.detach().cpu().double() for each in picked], 1)


def _product(model: nn.Module, to: nn.Module, places: Places) -> float:
    """The sum of products of the weights of all layers that a group touches, each weight once."""
    ours, theirs = dict(model.named_parameters()), dict(to.named_parameters())
    names = {place.tensor for place in places} & ours.keys()
    return sum(float((ours[name].double() * theirs[name].double()).sum()) for name in sorted(names))


def _cosines(model: nn.Module, to: nn.Module, places: Places) -> tuple[float, ...]:
    """Without biases, and without normalisation, whose scales are alike in all networks."""
    return tuple(F.cosine_similarity(_rows(model, places, 2), _rows(to, places, 2)).tolist())
