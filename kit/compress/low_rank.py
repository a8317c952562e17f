"""Low rank: a layer becomes two thin ones, by the singular value decomposition of its matrix.

A matrix W [m, n] is U S V; with the r largest singular values alone, (U sqrt(S)) [m, r] times (sqrt(S) V) [r, n] is the
matrix of rank r that is nearest to it, and the squared error is the sum of the other squared singular values (Eckart &
Young 1936). It has r (m + n) numbers in place of m n, so it is smaller where r < m n / (m + n).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks, files, sizes
from kit.compress.encode import MAGIC, decode
from kit.files import disk
from kit.prune import plain
from kit.prune.joints import LAYERS, TransposedLinear, exchanged
from kit.prune.plain import is_plain

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SIDES = ("in_features", "out_features", "in_channels", "out_channels")
_GEOMETRY = (*_SIDES, "kernel_size", "stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class Factored:
    """A model with thin layers.

    Attributes:
        model: the new model; layer NAME has become NAME.0 and NAME.1 where it is in `ranks`.
        ranks: of each layer that was factored, by its name.
        energies: of these, the share of the squared singular values that was kept, 0 .. 1.
        kept: the other linear and convolutional layers, each with the reason why it stays as it was.
    """

    model: nn.Module
    ranks: dict[str, int]
    energies: dict[str, float]
    kept: dict[str, str]


class LowRank(nn.Sequential):
    """Two layers in the place of one: to r channels, then to all.

    Code that reads the weight or the bias of the one that was there gets the product, and the bias of the second; its
    stride, padding and the like are those of the first.
    """

    def __getattr__(self, name: str) -> Any:
        """What is looked up in vain: of the layer whose matter it is (MobileNetV2 pads by the stride of its layers)."""
        if name in _GEOMETRY:
            return getattr(self[int(name.startswith("out"))], name)
        return super().__getattr__(name)

    @property
    def weight(self) -> Tensor:
        """The matrix (or kernel) that both make together, in the shape of the one that was there."""
        first, second = (part.get_parameter("weight") for part in self)
        return (second.flatten(1) @ first.flatten(1)).view(len(second), *first.shape[1:])

    @property
    def bias(self) -> Tensor | None:
        """The bias that was there."""
        bias: Tensor | None = self[1].bias  # type: ignore[assignment]
        return bias


def low_rank(
    model: nn.Module,
    *,
    energy: float | None = None,
    rank: int | Mapping[str, int] | None = None,
    budget: float | None = None,
    share: bool = False,
) -> Factored:
    """A copy of `model` with linear layers and convolutions in two where that is smaller.

    A linear layer becomes one to r numbers and one from there, a k x k convolution one to r channels and a 1 x 1
    convolution. So names change inside: `fc1.weight` becomes `fc1.0.weight` and `fc1.1.weight`; `load_low_rank` reads
    such a file. Layers that do not get smaller, grouped and transposed convolutions, layers with hooks, and subclasses
    (such as those inside of attention) stay, with the reason. Tied layers share both factors.

    Args:
        model: any module with a linear or convolutional layer; not changed.
        energy: of each layer the smallest rank that keeps this share of its squared singular values, in (0, 1].
        rank: 1 or more for all layers, or by layer name; those that are left out stay. A layer whose full rank is less
            stays: so one number does for small and large layers, and is refused only where it exceeds the full rank of
            every layer, or of the one that is named.
        budget: share of the model's parameters to be left at most, in (0, 1]: ranks are chosen for all layers
            together, singular value by singular value, so that the product of the shares of energy that the layers keep
            is large (Zhang et al. 2015, arXiv:1505.06798, section 2.4, there for operations).
        share: whether the tensors that stay are those of `model` itself: for copies that nobody changes.

    Raises:
        TypeError: an argument of another type.
        ValueError: none or several of energy, rank and budget; one of them out of range, a name that is no such layer,
            a budget that is too small for rank 1 everywhere, NaN or infinity in a weight, or nothing to factor.
    """
    given = {"energy": energy, "rank": rank, "budget": budget}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(
            f"give one of energy, rank and budget; got {', '.join(f'{k}={v!r}' for k, v in given.items())}."
        )
    for name, part in (("energy", energy), ("budget", budget)):
        if part is not None and checks.share(name, part) == 0:
            raise ValueError(f"{name} must lie in (0, 1]; got {part!r}.")
    checks.instance("share", share, bool)
    factored = plain(model, [*model.parameters(), *model.buffers()] if share and is_plain(model) else ())
    layers, kept = _layers(factored)
    if rank is not None:
        ranks = _given(rank, layers)
    spectra = {name: _decomposed(name, layer) for name, layer in layers.items() if rank is None or name in ranks}
    if energy is not None:
        ranks = {name: _rank_for(energy, values) for name, (_, values, _) in spectra.items()}
    if budget is not None:
        ranks = _within(budget, sizes.parameters(factored), layers, spectra)
    for name in set(layers) - set(ranks):
        kept[name] = "rank names other layers"
    for name, chosen in list(ranks.items()):
        m, n = _sides(layers[name])
        if chosen * (m + n) >= m * n:
            kept[name] = f"rank {chosen} of a {m} x {n} matrix takes {chosen * (m + n):,} numbers in place of {m * n:,}"
            del ranks[name]
    energies = {name: float(_shares(spectra[name][1])[chosen - 1]) for name, chosen in ranks.items()}
    swapped = _swap(factored, {name: _factors(*spectra[name], ranks[name]) for name in ranks})
    return Factored(swapped, ranks, energies, {name: kept[name] for name, _ in model.named_modules() if name in kept})


def load_low_rank(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """A copy of `model`, as it was built before `low_rank`, its layers in two as they are in the file at `path`.

    It may be a weights file or a compressed one.

    Raises:
        ValueError: the file does not come from `model` by `low_rank`: names or shapes differ.
        TypeError: `model` is no model, or `path` is no path.
        FileNotFoundError, IsADirectoryError, files.WeightsFileError: as for `files.read`.
    """
    checks.instance("model", model, nn.Module, "a model (nn.Module)")
    state, whole = _read(path), plain(model)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in _layers(whole)[0].items():
        if (first := state.get(f"{name}.0.weight".lstrip("."))) is not None:
            (m, n), rank = _sides(layer), len(first)
            factors[name] = torch.zeros(m, rank), torch.zeros(rank, n)
    loaded = _swap(whole, factors)
    disk.fill(loaded, path, _read)
    return loaded


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    return disk.get(lambda data: (decode if data.startswith(MAGIC) else files.decode)(data), path)


def split(layer: nn.Module, rank: int) -> LowRank:
    """A linear layer or an ungrouped convolution as two of this rank, 1 or more; smaller or not.

    Raises:
        TypeError: another layer, or a rank that is no whole number.
        ValueError: a layer that `low_rank` leaves whole whatever the rank; or a rank above the full one, the lesser of
            the matrix's sides.
    """
    checks.instance("layer", layer, (nn.Linear, *_CONVOLUTIONS))
    if reason := _reason(layer):
        raise ValueError(f"layer cannot be in two: {reason}.")
    checks.whole("rank", rank, 1, min(_sides(layer)))
    weight = layer.get_parameter("weight")
    return _two(layer, *_halves(weight, *_factors(*_decomposed("layer", layer), rank)))


def _layers(model: nn.Module) -> tuple[dict[str, Any], dict[str, str]]:
    """The layers that can be in two, of tied ones the first; and why others cannot."""
    found, kept, seen = {}, {}, set()
    used: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        used.setdefault(parameter, []).append(name.rpartition(".")[0])
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, layer in model.named_modules():
        if not isinstance(layer, LAYERS):
            continue
        reason = _reason(layer)
        others = [other for other in used[layer.weight] if modules[other] is not layer]
        if not reason and any(_reason(modules[other]) for other in others):
            reason = f"it shares its weight with {others[0]}"
        if reason:
            kept[name] = reason
        elif layer.weight not in seen:
            found[name] = layer
        seen.add(layer.weight)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in kept.items())
        needs = "it needs a linear layer, or a convolution that is not grouped or transposed"
        raise ValueError(f"model: {type(model).__name__} has nothing to factor; {needs}{f' ({why})' if why else ''}.")
    return found, kept


def _reason(layer: Any) -> str:
    """Why a layer cannot be in two; empty where it can."""
    if getattr(layer, "transposed", False):
        return "a transposed convolution"
    if type(layer) not in (nn.Linear, *_CONVOLUTIONS) and not isinstance(layer, TransposedLinear):
        return f"a {type(layer).__name__}, which may be more than its matrix"
    if not layer.weight.numel():
        return "it has no numbers"
    if getattr(layer, "groups", 1) > 1:
        return "a grouped convolution: each group's matrix is small already"
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)):
        return "it has hooks, which belong to the whole layer"
    return ""


def _given(rank: Any, layers: Mapping[str, Any]) -> dict[str, int]:
    by_name = dict(rank) if isinstance(rank, Mapping) else dict.fromkeys(layers, rank)
    checks.named("rank", by_name, layers, "factored")
    full = {name: min(_sides(layer)) for name, layer in layers.items()}
    for name, chosen in by_name.items():
        checks.whole("rank", chosen, 1)
        most = full[name] if isinstance(rank, Mapping) else max(full.values())
        if chosen > most:
            which = f"layer {name!r}" if isinstance(rank, Mapping) else "any layer"
            raise ValueError(f"rank must be no more than {most}, the full rank of {which}; got {chosen}.")
    return by_name


def _sides(layer: Any) -> tuple[int, int]:
    """The matrix of a layer: outputs, and inputs times the size of the kernel."""
    weight = _outputs_first(layer)
    return len(weight), weight.shape[1:].numel()


def _outputs_first(layer: Any) -> Tensor:
    """The weight of a layer as [out, in, ...]."""
    weight: Tensor = layer.weight
    return weight.t() if isinstance(layer, TransposedLinear) else weight


@torch.no_grad()
def _decomposed(name: str, layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """U [m, k], the singular values [k], descending, and V [k, n] of the matrix of a layer; k is its full rank."""
    matrix = _outputs_first(layer).flatten(1)
    if not matrix.isfinite().all():
        raise ValueError(f"model: the weight of {name!r} holds NaN or infinity, which has no singular values.")
    u, values, v = torch.linalg.svd(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), full_matrices=False)
    return u, values, v


def _factors(u: Tensor, values: Tensor, v: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """[m, rank] and [rank, n]; each has the root of the singular values, so that both learn alike."""
    roots = values[:rank].sqrt()
    return u[:, :rank] * roots, roots[:, None] * v[:rank]


def _shares(values: Tensor) -> Tensor:
    """The share of the energy in the first r squared singular values, for each r from 1. [k] -> [k]"""
    if not values[0]:
        return torch.ones_like(values, dtype=torch.float64)
    sums = (values.double() / values[0].double()).square().cumsum(0)  # no square is then beyond float64
    return sums / sums[-1]


def _rank_for(energy: float, values: Tensor) -> int:
    """The least rank with that share; all of it is what rounding errors leave of all."""
    return int((_shares(values) < energy * (1 - 1e-12)).sum()) + 1


def _within(
    budget: float, total: int, layers: Mapping[str, Any], spectra: Mapping[str, tuple[Tensor, Tensor, Tensor]]
) -> dict[str, int]:
    """Ranks by one budget: the singular values of all layers in one queue, those that give most for their cost first.

    What is to be large is the product over the layers of the shares of energy that they keep, so a singular value gives
    the logarithm of what it multiplies its layer's share by. The first of each layer is in front, as no layer can do
    without. The one that makes a layer as large as it was costs what is still missing, and those behind it nothing: the
    layer then stays whole.
    """
    worth, cost, owner = [], [], []
    for name, layer in layers.items():
        (m, n), values = _sides(layer), spectra[name][1]
        kept = torch.cat([torch.zeros(1, dtype=torch.float64), _shares(values)])  # by none, one, two ...
        paid = (torch.arange(len(values) + 1) * (m + n)).clamp(max=m * n)
        worth.append(kept.log().diff() / (m + n))  # of the first: infinite
        cost.append(paid.diff())
        owner += [name] * len(values)
    fixed = total - sum(layer.weight.numel() for layer in layers.values())
    order = torch.cat(worth).argsort(descending=True, stable=True)
    spent = fixed + torch.cat(cost)[order].cumsum(0)
    least = int(spent[len(layers) - 1])
    if least > budget * total:
        raise ValueError(f"budget must be at least {least / total:.3g} here, rank 1 in every layer; got {budget!r}.")
    taken = order[spent <= budget * total]
    ranks = Counter(owner[at] for at in taken.tolist())
    return {name: ranks[name] for name in layers}


def _swap(model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """Put two layers in the place of each that is named, and of those that are tied to it."""
    modules = dict(model.named_modules())
    named: list[tuple[Any, tuple[Tensor, Tensor]]] = [(modules[name], pair) for name, pair in factors.items()]
    halves = {layer.weight: _halves(_outputs_first(layer), *pair) for layer, pair in named}
    layers: list[Any] = [layer for layer in modules.values() if not _reason(layer)]
    made = {layer: _two(layer, *halves[layer.weight]) for layer in layers if layer.weight in halves}
    return exchanged(model, made)


def _halves(weight: Tensor, left: Tensor, right: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    """The weights of both layers, the first one's first, from left [m, r] and right [r, n]."""
    shaped = right.view(len(right), *weight.shape[1:]), left.view(*left.shape, *(1 for _ in weight.shape[2:]))
    first, second = (nn.Parameter(half.to(weight.dtype).contiguous(), weight.requires_grad) for half in shaped)
    return first, second


def _two(layer: Any, first: nn.Parameter, second: nn.Parameter) -> LowRank:
    rank = len(first)
    with torch.device("meta"):  # neither memory nor random numbers
        if isinstance(layer, nn.Linear):
            pair: Any = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        elif isinstance(layer, TransposedLinear):
            wide: Any = layer
            pair = nn.Linear(wide.nx, rank, bias=False), nn.Linear(rank, wide.nf)
        else:
            same = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "padding_mode")}
            kind: Any = type(layer)
            pair = (
                kind(layer.in_channels, rank, layer.kernel_size, bias=False, **same),
                kind(rank, layer.out_channels, 1),
            )
    pair[0].weight, pair[1].weight, pair[1].bias = first, second, layer.bias
    return LowRank(*pair).train(layer.training)
