"""Weight sharing: compress.share, against scikit-learn's k-means, the best possible clusters, and sums by hand."""

from __future__ import annotations

import copy
import importlib
import itertools
import warnings
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from kit import compress, prune, training
from kit.compress.share import _Clusters, halved, k_means, nearest, starts
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS

sharing: Any = importlib.import_module("kit.compress.share")  # the room's function has the module's name


def drawn(n: int, seed: int = 0, scale: float = 0.05) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def error(values: Tensor, book: Tensor) -> float:
    return float(((values - nearest(values, book)) ** 2).sum())


def layer(values: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    weight = torch.as_tensor(values, dtype=dtype)
    net = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=dtype)
    net.weight.data = weight.clone()
    return net


def weight_of(net: nn.Module) -> Tensor:
    return net.get_parameter("weight").detach()


# k-means


@pytest.mark.parametrize("start", compress.STARTS)
@pytest.mark.parametrize(("n", "clusters"), [(300, 1), (300, 2), (2000, 5), (2000, 16)])
def test_centroids_are_scikit_learns(n: int, clusters: int, start: Any) -> None:
    values = drawn(n, seed=n)
    first = starts(values, clusters, start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one cluster
        theirs = KMeans(clusters, init=first[:, None].numpy(), n_init=1, algorithm="lloyd", max_iter=5000, tol=0)
        theirs.fit(values[:, None].numpy())
    assert np.allclose(k_means(values, first).numpy(), np.sort(theirs.cluster_centers_[:, 0]), atol=1e-6 * 0.05)


def best_error(values: Tensor, clusters: int) -> float:
    """The least sum of squares over all ways to cut the sorted values into intervals."""
    ordered, least = values.sort().values, float("inf")
    for cuts in itertools.combinations(range(1, len(ordered)), clusters - 1):
        parts = ordered.tensor_split(list(cuts))
        least = min(least, sum(float(((part - part.mean()) ** 2).sum()) for part in parts))
    return least


@pytest.mark.parametrize("seed", range(6))
def test_the_best_is_never_beaten_and_sometimes_reached(seed: int) -> None:
    values = drawn(12, seed)
    best = best_error(values, 3)
    errors = [error(values, k_means(values, starts(values, 3, start, seed))) for start in compress.STARTS]
    assert min(errors) >= best * (1 - 1e-9)
    assert min(errors) <= best * 1.5


def test_an_empty_cluster_finds_values() -> None:
    """From the linear start the middle ones have nothing: all but one value lie at an end."""
    values = torch.cat([drawn(200, scale=0.01), torch.tensor([10.0])])
    centroids = k_means(values, starts(values, 8))
    counts = torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2).bincount(minlength=8)
    assert len(centroids) == 8
    assert (counts > 0).all()
    assert centroids[-1] == 10


def test_few_different_values_are_the_codebook() -> None:
    values = torch.tensor([0.5, -1.25, 0.5, 3.0, -1.25])
    for clusters in (3, 4, 5):
        for start in compress.STARTS:
            assert k_means(values, starts(values, clusters, start)).tolist() == [-1.25, 0.5, 3.0]


def test_starts() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0, 101.0, 102.0, 104.0])[torch.randperm(8)]
    assert starts(values, 3, "linear").tolist() == [0, 52, 104]
    assert starts(values, 2, "density").tolist() == [2, 102]  # the middle of either half
    assert set(starts(values, 8, "random", 1).tolist()) == set(values.tolist())  # each at most once
    assert starts(values, 3, "random", 1).tolist() == starts(values, 3, "random", 1).tolist()
    many = drawn(500)
    assert starts(many, 3, "random", 1).tolist() != starts(many, 3, "random", 2).tolist()


# Models


@pytest.mark.parametrize("clusters", [1, 2, 7, 32])
def test_each_weight_is_the_nearest_of_few_values(trained: nn.Module, clusters: int) -> None:
    pruned = prune.weights(trained, ratio=0.6)
    before = copy.deepcopy(pruned)
    shared = compress.share(pruned, clusters)
    assert same(pruned, before)
    for name, weight in prune.prunable(pruned).items():
        now, book = shared.get_parameter(name).detach(), compress.codebook(shared.get_parameter(name))
        assert 1 <= len(book) <= clusters
        assert torch.equal(now == 0, weight == 0)
        assert torch.equal(book, book.half().float())
        distance = (weight.detach()[weight != 0, None] - book).abs()
        assert torch.equal(now[now != 0], book[distance.argmin(1)])
    for name, parameter in pruned.named_parameters():
        if "bias" in name:
            assert torch.equal(parameter, shared.get_parameter(name))


@pytest.mark.parametrize("start", compress.STARTS)
def test_more_clusters_lose_less(trained: nn.Module, start: Any) -> None:
    weight = trained.get_parameter("fc1.weight").detach()
    errors = [
        float(
            (compress.share(trained, k, start=start, seed=3).get_parameter("fc1.weight").detach() - weight)
            .square()
            .sum()
        )
        for k in (2, 8, 32, 128)
    ]
    assert all(later < 0.5 * sooner for sooner, later in itertools.pairwise(errors))


def test_clusters_by_name(trained: nn.Module) -> None:
    shared = compress.share(trained, {"fc1.weight": 4, "conv2.weight": 9})
    sizes = {name: len(compress.codebook(w)) for name, w in prune.prunable(shared).items()}
    assert sizes["fc1.weight"] == 4
    assert sizes["conv2.weight"] == 9
    for name in ("conv1.weight", "fc2.weight"):
        assert torch.equal(shared.get_parameter(name), trained.get_parameter(name))


def test_one_number_does_for_a_tiny_layer_too() -> None:
    net = nn.Sequential(nn.Linear(300, 2), nn.Linear(2, 3))
    shared = compress.share(net, 64)
    assert torch.equal(shared.get_parameter("1.weight"), net.get_parameter("1.weight").half().float())
    assert len(compress.codebook(shared.get_parameter("0.weight"))) == 64


def test_biases_are_rounded_where_asked(trained: nn.Module) -> None:
    shared = compress.share(trained, 8, biases=True)
    for name in ("conv1.bias", "fc2.bias"):
        now, before = shared.get_parameter(name).detach(), trained.get_parameter(name).detach()
        assert torch.equal(now, before.half().float())
        assert not torch.equal(now, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    net = layer(drawn(600).view(20, 30), dtype)
    net.weight.data[:, 3] = 0  # type: ignore[operator]
    shared = compress.share(net, 5)
    weight = weight_of(shared)
    assert weight.dtype == dtype
    assert torch.equal(weight == 0, weight_of(net) == 0)
    assert len(compress.codebook(weight)) == 5
    assert float((weight - weight_of(net)).double().norm() / weight_of(net).double().norm()) < 0.35
    if dtype != torch.bfloat16:
        assert torch.equal(weight, weight.half().to(dtype))


@pytest.mark.parametrize("scale", [1e8, 1e-12])
def test_weights_beyond_half_precision_keep_their_own(scale: float) -> None:
    weight = drawn(400, scale=scale).view(20, 20)
    shared = weight_of(compress.share(layer(weight), 16))
    assert shared.isfinite().all()
    assert (shared != 0).all()
    assert float((shared - weight).norm() / weight.norm()) < 0.2


def test_no_weight_becomes_zero() -> None:
    """The mean of one cluster is 0, and the numbers near 0 round to it."""
    assert (weight_of(compress.share(layer([[-1.0, 1.0], [2.0, -2.0]]), 1)) != 0).all()
    assert (weight_of(compress.share(layer([[1.0, 1e-9, -1e-9, 0.5]]), 4)) != 0).all()


def test_half_precision_of_a_row() -> None:
    row = torch.tensor([1.0001, -3e-9, 0.0, 65504.0])
    assert halved(row).tolist() == [1.0, -(2.0**-24), 0.0, 65504.0]
    beyond = torch.tensor([1.0001, 70000.0])
    assert halved(beyond) is beyond
    empty = torch.zeros(0)
    assert halved(empty) is empty


def test_tied_weights_stay_tied_and_all_zeros_stay() -> None:
    net: Any = STRANGERS["tied pair"]()
    shared: Any = compress.share(net, 4)
    assert shared[3].weight is shared[5].weight
    assert len(compress.codebook(shared[3].weight)) == 4
    empty = layer(torch.zeros(3, 4))
    assert torch.equal(weight_of(compress.share(empty, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers(name: str, few_digits: Dataset) -> None:
    net = STRANGERS[name]().eval()
    next(iter(net.parameters())).requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    shared = compress.share(prune.weights(net, ratio=0.5), 6)
    learns = {key: p.requires_grad for key, p in prune.plain(net).named_parameters()}
    tuned = compress.fine_tune(shared, few_digits, epochs=1)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not tuned.training
    assert {key: p.requires_grad for key, p in tuned.named_parameters()} == learns
    old = prune.prunable(shared)
    moved = 0
    for key, weight in prune.prunable(tuned).items():
        assert len(compress.codebook(weight)) <= 6
        assert torch.equal(weight == 0, old[key] == 0)
        moved += not torch.equal(weight, old[key])
        for value in compress.codebook(old[key]):  # those that were one still are
            assert len(weight[old[key] == value].unique()) == 1
    assert moved


# Fine-tuning


def test_a_step_is_that_of_the_summed_gradients(digits: Dataset) -> None:
    """One step of plain SGD, in double precision, beside weights that are looked up in the codebook."""
    few = Dataset("few", digits.train.first(40), digits.validation, digits.test, digits.class_names)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    shared: Any = compress.share(prune.weights(net, ratio=0.5), 4)
    with torch.no_grad():
        shared[1].weight.mul_(1.2345678)  # no numbers of float16, so nothing is rounded
    weight, bias = shared[1].weight.detach(), shared[1].bias.detach().clone().requires_grad_()
    values, codes = weight.unique(return_inverse=True)
    book = values.clone().requires_grad_()
    x, y = few.train.inputs.double().flatten(1), few.train.labels
    F.cross_entropy(F.linear(x, book[codes], bias), y).backward()
    assert book.grad is not None
    assert bias.grad is not None
    step = torch.where(values == 0, 0, 0.3 * book.grad)

    tuned: Any = compress.fine_tune(shared, few, epochs=1, lr=0.3, batch_size=40, optimiser="sgd")
    assert torch.allclose(tuned[1].weight, (values - step)[codes], rtol=0, atol=1e-12)
    assert torch.allclose(tuned[1].bias, bias - 0.3 * bias.grad, rtol=0, atol=1e-12)
    assert not torch.allclose(tuned[1].weight, weight, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_gradients_of_half_precision_are_all_counted(dtype: torch.dtype) -> None:
    clusters = _Clusters(nn.Parameter(torch.full((64, 64), 0.5, dtype=dtype)))
    assert clusters.summed(torch.ones(64, 64, dtype=dtype)).unique().tolist() == [4096]


def test_what_half_precision_held_it_holds_again(trained: nn.Module, few_digits: Dataset) -> None:
    shared = compress.share(trained, {"fc1.weight": 8, "fc2.weight": 8}, biases=True)
    tuned = compress.fine_tune(shared, few_digits, epochs=1)
    for name in ("fc1.weight", "fc2.weight", "conv1.bias"):
        now = tuned.get_parameter(name).detach()
        assert torch.equal(now, now.half().float())
        assert not torch.equal(now, shared.get_parameter(name))
    conv = tuned.get_parameter("conv2.weight").detach()  # not shared: trained as usual
    assert not torch.equal(conv, conv.half().float())
    assert len(conv.unique()) > 0.9 * conv.numel()


def test_fine_tuning_pays(trained: nn.Module, digits: Dataset) -> None:
    shared = compress.share(trained, 3)
    tuned = compress.fine_tune(shared, digits, epochs=2, seed=1, lr=3e-3)
    before, after = (training.evaluate(net, digits.train) for net in (shared, tuned))
    assert after.loss < 0.7 * before.loss
    assert same(tuned, compress.fine_tune(shared, digits, epochs=2, seed=1, lr=3e-3))
    assert same(shared, compress.fine_tune(shared, digits, epochs=0))


# Refusals


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"clusters": 0}, ValueError, "clusters must be 1 or more; got 0"),
        ({"clusters": 2.5}, TypeError, "clusters must be a whole number; got 2.5"),
        ({"clusters": 10**6}, ValueError, "no more than the .* weights of the largest tensor; got 1000000"),
        ({"clusters": {"conv1.weight": 73}}, ValueError, "no more than the 72 weights of 'conv1.weight'; got 73"),
        (
            {"clusters": {"conv1.bias": 2}},
            ValueError,
            "clusters names conv1.bias, which cannot be shared; allowed: conv1",
        ),
        ({"clusters": {1: 2, "x": 2}}, ValueError, "clusters names 1, x, which cannot be shared; allowed: conv1"),
        ({"clusters": 4, "start": "middle"}, ValueError, "start must be one of linear, density, random; got 'middle'"),
        ({"clusters": 4, "seed": -1}, ValueError, "seed must be 0 or more; got -1"),
        ({"clusters": 4, "biases": 1}, TypeError, "biases must be a bool; got 1"),
    ],
)
def test_refusals(trained: nn.Module, settings: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        compress.share(trained, **settings)


def test_refused_models_and_tensors(trained: nn.Module, digits: Dataset) -> None:
    with pytest.raises(ValueError, match="has nothing to prune"):
        compress.share(nn.ReLU(), 4)
    with pytest.raises(TypeError, match="model must be a torch"):
        compress.share({}, 4)  # type: ignore[arg-type]
    broken = copy.deepcopy(trained)
    broken.get_parameter("fc2.weight").data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight 'fc2.weight' holds NaN or infinity"):
        compress.share(broken, 4)
    with pytest.raises(TypeError, match="tensor must be a Tensor"):
        compress.codebook([1.0])  # type: ignore[arg-type]
    cancel = Event()
    cancel.set()
    with pytest.raises(training.Cancelled):
        compress.fine_tune(trained, digits, epochs=1, cancel=cancel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_shared_in_parts_is_as_at_once_and_in_memory_of_its_own(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(50, 8, padding_idx=0), nn.Linear(8, 6), nn.Linear(6, 5)).to(dtype)
    before, whole = copy.deepcopy(net), compress.share(net, 4, biases=True)
    monkeypatch.setattr(sharing, "PART", sharing.BLOCK)
    assert same(compress.share(net, 4, biases=True), whole)
    places = {each.data_ptr() for each in net.parameters()}
    for shared in (whole, compress.share(net, {"1.weight": 4})):
        assert places.isdisjoint(each.data_ptr() for each in shared.parameters())
        assert not shared.get_parameter("0.weight")[0].any()
    assert same(net, before)


@pytest.mark.parametrize("n", [2, 15, 16, 17, 500])
def test_sums_by_blocks_are_those_of_all(n: int) -> None:
    values = torch.randn(n, generator=torch.Generator().manual_seed(n))
    found = k_means(values, starts(values, 2, "density")).numpy()
    own = np.abs(values.numpy()[:, None] - found).argmin(1)
    np.testing.assert_allclose(found, [values.double().numpy()[own == each].mean() for each in (0, 1)], rtol=1e-12)
