"""Weight sharing: the weights of a layer take a few values, its codebook, so that each costs a few bits.

A shared tensor is a plain tensor with few different numbers; its codebook can be read off it at any time (`codebook`).
Zeros are pruned weights: they are in no cluster, and stay zeros. Source: Han et al. 2016, arXiv:1510.00149, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kit import checks, training
from kit.compress.quantise import finite
from kit.data import Dataset
from kit.inference import light_copy
from kit.prune import plain, prunable
from kit.prune.plain import as_plain

Start = Literal["linear", "density", "random"]
STARTS: tuple[Start, ...] = get_args(Start)

PART = 1 << 18  # numbers that are rounded at once: a large table of embeddings is not in memory several times
BLOCK = 16  # numbers of which the sum is remembered
ITERATIONS = 1000  # of k-means, of some microseconds each; only many clusters of many weights would go on for longer


def share(
    model: nn.Module,
    clusters: int | Mapping[str, int],
    *,
    start: Start = "linear",
    seed: int = 0,
    biases: bool = False,
) -> nn.Module:
    """A copy of `model` in which each weight is the nearest of at most `clusters` values, found by k-means a tensor.

    Zeros stay zeros and count as no cluster; no other weight becomes zero. The values are rounded to numbers that
    float16 holds, so that each costs two bytes in a file. A tensor with values far out of float16's range keeps its own
    precision, as does one of 16 bits.

    Args:
        model: any module with a prunable weight (`kit.prune.prunable`) or an embedding; not changed. Tied weights share
            one codebook.
        clusters: 1 or more for all; or by weight name, and names that are left out are not shared. A tensor with fewer
            different values than clusters keeps them (rounded): so one number does for small and large layers, and is
            refused only where it exceeds the weights of every tensor, or of the one that is named.
        start: where the centroids begin. "linear": evenly from the smallest to the largest weight, which leaves some
            to the few large weights, that matter most. "density": at quantiles, so that each begins with as many
            weights. "random": at weights drawn by `seed`.
        seed: of "random" only.
        biases: whether to round the other parameters (biases, scales of normalisation) likewise.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range, a name that cannot be shared, NaN or infinity in a weight, or nothing to
            share.
    """
    checks.one_of("start", start, STARTS)
    checks.whole("seed", seed)
    checks.instance("biases", biases, bool)
    shared = light_copy(as_plain(model))  # weight by weight it gets memory of its own
    weights = prunable(shared, clusters if isinstance(clusters, Mapping) else (), embeddings=True)
    done, every = set[nn.Parameter](), set(weights.values())
    with torch.no_grad():
        for at, (name, count) in enumerate(_counts(clusters, weights).items()):
            weight = weights[name]
            if not finite(weight):
                raise ValueError(f"model: weight {name!r} holds NaN or infinity, which no codebook can stand for.")
            if weight.any():
                book = _book(weight, count, start, [seed, at])
                weight.data = nearest(weight.reshape(-1), book).view_as(weight).masked_fill_(weight == 0, 0)
                done.add(weight)
        for parameter in set(shared.parameters()) - done:
            other = biases and parameter.is_floating_point() and parameter not in every
            parameter.data = (halved(parameter.detach()) if other else parameter.detach()).clone()
    return shared


def codebook(tensor: Tensor) -> Tensor:
    """The different numbers in a tensor, zero apart, ascending. [...] -> [k]"""
    checks.instance("tensor", tensor, Tensor)
    return torch.unique(tensor.detach()[tensor.detach() != 0])


def k_means(values: Tensor, start: Tensor) -> Tensor:
    """Centroids of numbers on a line, by Lloyd's iteration, ascending.

    On a line clusters are intervals. So the values are sorted once, with their running sums, and an iteration looks for
    the k - 1 borders half-way between the centroids: k log n steps rather than k n. A centroid that lost all its
    values goes to the value that is farthest from its own.

    Args:
        values: [n], finite.
        start: [k], the centroids to begin with.

    Returns:
        [k], float64: each the mean of the values that are nearest to it, unless that takes over 1000 iterations. Where
        there are no more than k different values: these.
    """
    return _centroids(_ascending(values), start)


def _centroids(ordered: np.ndarray, start: Tensor) -> Tensor:
    """As `k_means`, of values that are in order."""
    new = ordered[1:] != ordered[:-1]
    if np.count_nonzero(new) < len(start):
        return torch.from_numpy(np.concatenate([ordered[:1], ordered[1:][new]]).astype(np.float64))
    del new
    # Sums of float64 up to each value would be as much memory as the values three times; blocks are added up by need.
    parts = [ordered[at : at + PART] for at in range(0, len(ordered), PART)]
    blocks = np.concatenate([np.add.reduceat(part, np.arange(0, len(part), BLOCK), dtype=np.float64) for part in parts])
    before, within = np.concatenate([[0.0], np.cumsum(blocks)]), np.arange(BLOCK)

    def below(border: np.ndarray) -> np.ndarray:
        """The sum of the values before each border."""
        first = border // BLOCK
        at = (first * BLOCK)[:, None] + within
        rest = np.where(at < border[:, None], ordered.take(at, mode="clip"), 0.0)
        return before[first] + rest.sum(1, dtype=np.float64)

    centroids, borders = np.sort(start.double().numpy()), None
    for _ in range(ITERATIONS):
        inner = np.searchsorted(ordered, _rounded_up((centroids[1:] + centroids[:-1]) / 2, ordered.dtype))
        if borders is not None and np.array_equal(inner, borders[1:-1]):
            break
        borders = np.concatenate([[0], inner, [len(ordered)]])  # cluster i has the values borders[i] .. borders[i + 1]
        counts = np.diff(borders)
        full = counts > 0
        centroids[full] = np.diff(below(borders))[full] / counts[full]
        if not full.all():
            ends = np.concatenate([ordered[borders[:-1][full]], ordered[borders[1:][full] - 1]])
            far = np.argsort(-np.abs(ends - np.tile(centroids[full], 2)), kind="stable")
            empty = np.flatnonzero(~full)[: len(far)]
            centroids[empty] = ends[far[: len(empty)]]
            centroids, borders = np.sort(centroids), None
    return torch.from_numpy(centroids)


def starts(values: Tensor, clusters: int, start: Start = "linear", seed: int | Sequence[int] = 0) -> Tensor:
    """Where the centroids of values [n] begin, as `share` says. [clusters], float64; ValueError for another start."""
    checks.one_of("start", start, STARTS)
    if start == "linear":
        return torch.linspace(float(values.min()), float(values.max()), clusters, dtype=torch.float64)
    if start == "density":
        ordered = torch.from_numpy(_ascending(values)).double()
        return ordered[((torch.arange(clusters) + 0.5) / clusters * len(ordered)).long()]
    drawn = np.random.default_rng(seed).choice(len(values), clusters, replace=clusters > len(values))
    return values[torch.from_numpy(drawn)].double()


def nearest(values: Tensor, book: Tensor) -> Tensor:
    """For each of the values [n] the nearest number of an ascending codebook [k]. [n]"""
    borders = (book[1:].double() + book[:-1].double()) / 2
    near = torch.empty_like(values, dtype=book.dtype)
    if values.dtype == torch.float32:  # the same as in float64, faster
        borders = -torch.from_numpy(_rounded_up(-borders.numpy(), np.dtype(np.float32)))
    for part, place in zip(values.split(PART), near.split(PART), strict=True):
        place.copy_(book[torch.bucketize(part.to(borders.dtype), borders)])
    return near


def halved(tensor: Tensor) -> Tensor:
    """The nearest numbers that float16 holds, in the dtype of `tensor`; what is not zero stays so.

    Where the largest number is out of float16's normal range, 2^-14 to 65504, and for 16 bits: the tensor as it is.
    Else no number moves by more than 2^-11 of the largest.
    """
    half = torch.finfo(torch.float16)
    largest = float(torch.stack(tensor.aminmax()).abs().amax()) if tensor.numel() else 0.0
    if tensor.element_size() == 2 or not half.tiny <= largest <= half.max:
        return tensor
    rounded = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    for part, place in zip(tensor.reshape(-1).split(PART), rounded.view(-1).split(PART), strict=True):
        near = part.to(torch.float16).to(tensor.dtype)
        smallest = torch.full_like(part, half.tiny * half.eps).copysign(part)
        place.copy_(torch.where((near == 0) & (part != 0), smallest, near))
    return rounded


def fine_tune(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    callbacks: Sequence[training.Callback] = (),
    **fit_settings: Any,
) -> nn.Module:
    """A copy of a shared model, its codebooks trained on: which weight has which value is held, and so are the zeros.

    The gradient of a centroid is the sum of the gradients of its weights (Han et al. 2016, section 3.3). So it is as
    many times larger; Adam, which divides a gradient by its size, does not notice, while "sgd" asks for a smaller `lr`.
    Biases and normalisation train as usual. What float16 held before is rounded to it again at the end.

    Args:
        model: as `share` returned it; not changed. A weight whose values all differ is trained as usual.
        dataset: its train split is fitted.
        epochs: 0 or more.
        callbacks: called after the centroids have moved.
        **fit_settings: passed on to `training.fit` (seed, lr, batch_size, cancel ...); the errors are its.
    """
    tuned = plain(model)
    learning = {name: p for name, p in prunable(tuned, embeddings=True).items() if p.requires_grad}
    halves = [p for p in tuned.parameters() if p.is_floating_point() and torch.equal(p, halved(p.detach()))]
    with ExitStack() as hooks:
        clusters = [_Clusters(weight) for weight in learning.values()]
        for weight, each in zip(learning.values(), clusters, strict=True):
            hooks.enter_context(weight.register_hook(each.summed))
        training.fit(tuned, dataset, epochs=epochs, callbacks=[_Hold(clusters), *callbacks], **fit_settings)
    with torch.no_grad():
        for parameter in halves:
            parameter.copy_(halved(parameter))
    return tuned


class _Clusters:
    """Which of a tensor's weights have one value."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight
        self.values, codes = weight.detach().unique(return_inverse=True)
        # [n], the place of each weight's value; places of 64 bits would be twice the model.
        self.codes = codes.flatten().int()
        self.first = torch.empty(len(self.values), dtype=torch.long)  # [k], a weight that has it
        self.first[self.codes] = torch.arange(len(self.codes))
        self.zero = (self.values == 0).nonzero().flatten()

    def summed(self, gradient: Tensor) -> Tensor:
        """For each weight the sum of the gradients of all that share its value; 0 for zeros."""
        wide = gradient.flatten().to(torch.promote_types(gradient.dtype, torch.float32))  # 256 + 1 is 256 in bfloat16
        sums = wide.new_zeros(len(self.values)).index_add_(0, self.codes, wide)
        sums[self.zero] = 0
        return sums.index_select(0, self.codes).to(gradient.dtype).view_as(gradient)

    def hold(self) -> None:
        """All move alike, but for the last bit of a number, which an optimiser may round one way or the other."""
        self.weight.copy_(self.weight.flatten()[self.first].index_select(0, self.codes).view_as(self.weight))


class _Hold(training.Callback):
    def __init__(self, clusters: Sequence[_Clusters]) -> None:
        self.clusters = clusters

    @torch.no_grad()
    def on_batch_end(self, progress: training.Progress) -> None:
        for each in self.clusters:
            each.hold()


def _counts(clusters: int | Mapping[str, int], weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of clusters of each weight that is to be shared."""
    by_name = dict(clusters) if isinstance(clusters, Mapping) else dict.fromkeys(weights, clusters)
    checks.named("clusters", by_name, weights, "shared")
    for name, count in by_name.items():
        checks.whole("clusters", count, 1)
        most = weights[name].numel() if isinstance(clusters, Mapping) else max(w.numel() for w in weights.values())
        if count > most:
            which = f"{name!r}" if isinstance(clusters, Mapping) else "the largest tensor"
            raise ValueError(f"clusters must be no more than the {most} weights of {which}; got {count}.")
    return by_name


def _book(weight: Tensor, count: int, start: Start, seed: Sequence[int]) -> Tensor:
    """The codebook of what is not zero, in the weight's dtype. [k], ascending, k at most `count`"""
    values = _numbers(weight).reshape(-1)
    values = values[values != 0]  # by numpy: torch makes a list of places, four times as large
    begin = starts(torch.from_numpy(values), count, start, seed)
    values.sort()  # in place: of a large weight the room is needed
    book = _centroids(values, begin).to(weight.dtype)
    kind = torch.finfo(weight.dtype)
    return torch.unique(halved(book.masked_fill(book == 0, kind.tiny * kind.eps)))  # zero would mean: pruned


def _rounded_up(values: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
    """In a dtype, upwards: so that those of this dtype lie before them as they were. Else all would be converted."""
    near = values.astype(kind)
    return np.where(near < values, np.nextafter(near, np.inf, dtype=kind), near)


def _ascending(values: Tensor) -> np.ndarray:
    return np.sort(_numbers(values))


def _numbers(values: Tensor) -> np.ndarray:
    """In float32 where that holds them, since it is sorted in half the time."""
    return (values if values.dtype == torch.float64 else values.float()).detach().numpy()
