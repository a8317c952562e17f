"""Low rank: compress.low_rank, against the tail of singular values, products by hand, and every choice of ranks."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import compress, files, measure, models, prune, training
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS


def spectrum(layer: Any) -> Tensor:
    return torch.linalg.svdvals(layer.weight.detach().double().flatten(1))


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def convolution(kind: Any = nn.Conv2d, **settings: Any) -> Any:
    return kind(6, 9, 3, **settings)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(12, 7), drawn(5, 12)),
        (nn.Linear(7, 12, bias=False), drawn(5, 3, 7)),
        (convolution(stride=2, padding=1, dilation=2), drawn(2, 6, 11, 9)),
        (convolution(padding="same", padding_mode="reflect", bias=False), drawn(2, 6, 8, 8)),
        (convolution(nn.Conv1d, padding=2), drawn(2, 6, 9)),
        (convolution(nn.Conv3d), drawn(1, 6, 5, 4, 6)),
        (nn.Conv2d(6, 9, 1), drawn(2, 6, 4, 4)),
        (nn.Conv2d(6, 9, (1, 3)), drawn(2, 6, 4, 4)),
    ],
    ids=str,
)
def test_full_rank_is_exact_and_less_loses_the_tail(layer: Any, inputs: Tensor) -> None:
    layer = layer.double()
    values = spectrum(layer)
    whole = compress.split(layer, len(values))
    assert torch.allclose(whole(inputs), layer(inputs), rtol=0, atol=1e-9)
    for rank in (1, 3, len(values) - 1):
        thin: Any = compress.split(layer, rank)
        assert len(thin) == 2
        assert thin[0].weight.shape[0] == rank
        assert thin.weight.shape == layer.weight.shape
        lost = float((thin.weight - layer.weight).detach().square().sum())
        assert lost == pytest.approx(float(values[rank:].square().sum()), rel=1e-9)  # Eckart and Young
        assert torch.allclose(thin(inputs), _with(layer, thin.weight)(inputs), rtol=0, atol=1e-9)
        assert (thin.bias is None) == (layer.bias is None)


def _with(layer: Any, weight: Tensor) -> Any:
    other = copy.deepcopy(layer)
    other.weight = nn.Parameter(weight.detach())
    return other


def test_a_matrix_of_low_rank_is_kept_exactly() -> None:
    net = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20)).double()
    net[0].weight.data = drawn(30, 4) @ drawn(4, 40)
    found = compress.low_rank(net, energy=1.0)
    assert found.ranks == {"0": 4}
    assert found.energies["0"] == pytest.approx(1)
    assert found.kept == {"2": "rank 20 of a 20 x 30 matrix takes 1,000 numbers in place of 600"}
    x = drawn(9, 40)
    assert torch.allclose(found.model(x), net(x), rtol=0, atol=1e-9)
    assert measure.parameters(found.model) == 4 * 70 + 30 + 20 * 30 + 20


def test_what_stays_may_be_shared(trained: Any) -> None:
    before = copy.deepcopy(trained)
    apart, one = (compress.low_rank(trained, energy=0.8, share=share) for share in (False, True))
    assert same(apart.model, one.model) and same(trained, before) and apart.ranks == one.ranks
    own, theirs = (set(each.parameters()) for each in (one.model, trained))
    assert {p for p in theirs if p in own} == {p for name, p in trained.named_parameters() if _stays(name, one.ranks)}
    assert not theirs & set(apart.model.parameters())


def _stays(name: str, ranks: Any) -> bool:
    return name.rpartition(".")[0] not in ranks or name.endswith("bias")


@pytest.mark.parametrize("energy", [0.3, 0.8, 0.95])
def test_energy_takes_the_least_rank(trained: Any, energy: float) -> None:
    found = compress.low_rank(trained, energy=energy)
    assert found.ranks
    for name, layer in trained.named_modules():
        if name in found.ranks:
            shares = spectrum(layer).square().cumsum(0) / spectrum(layer).square().sum()
            rank = found.ranks[name]
            assert shares[rank - 1] >= energy - 1e-6
            assert rank == 1 or shares[rank - 2] < energy
            assert found.energies[name] == pytest.approx(float(shares[rank - 1]), abs=1e-6)
            m, n = layer.weight.flatten(1).shape
            assert rank * (m + n) < m * n


def test_one_rank_for_all_and_by_name(trained: Any) -> None:
    before = copy.deepcopy(trained)
    found = compress.low_rank(trained, rank=9)
    assert same(trained, before)
    assert found.ranks == {"conv2": 9, "fc1": 9}
    assert found.kept == {
        "conv1": "rank 9 of a 8 x 9 matrix takes 153 numbers in place of 72",
        "fc2": "rank 9 of a 10 x 32 matrix takes 378 numbers in place of 320",
    }
    assert [name for name, _ in found.model.named_parameters() if "fc1" in name] == [
        "fc1.0.weight",
        "fc1.1.weight",
        "fc1.1.bias",
    ]
    one = compress.low_rank(trained, rank={"fc1": 2})
    assert one.ranks == {"fc1": 2}
    assert one.kept["conv2"] == "rank names other layers"
    assert torch.equal(one.model.get_parameter("conv2.weight"), trained.conv2.weight)


@pytest.mark.parametrize("budget", [0.08, 0.15, 0.3, 0.6, 0.95])
def test_a_budget_is_kept_and_nearly_used(trained: Any, budget: float) -> None:
    found = compress.low_rank(trained, budget=budget)
    total, left = measure.parameters(trained), measure.parameters(found.model)
    assert left <= budget * total
    assert left > budget * total - 2 * (256 + 32)  # the last singular value did not fit
    everything = compress.low_rank(trained, budget=1.0)
    assert not everything.ranks
    assert same(everything.model, trained)


def test_a_budget_finds_about_the_best_ranks() -> None:
    """Of all pairs of ranks that fit, none keeps a much larger product of shares."""
    net: Any = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 24))
    models.initialise(net, 3)
    net[0].weight.data *= 0.8 ** torch.arange(30)
    found = compress.low_rank(net, budget=0.5)
    total, sides = measure.parameters(net), (50, 44)
    shares = [spectrum(layer).square().cumsum(0) / spectrum(layer).square().sum() for layer in net]

    def product(ranks: tuple[int, ...]) -> float:
        return float(shares[0][ranks[0] - 1] * shares[1][ranks[1] - 1])

    fits = [
        ranks
        for ranks in itertools.product(range(1, 12), range(1, 11))
        if sum(r * side for r, side in zip(ranks, sides, strict=True)) + 44 <= 0.5 * total
    ]
    assert product(tuple(found.ranks.values())) > 0.93 * max(map(product, fits))


def test_a_network_of_low_rank_is_smaller_and_still_knows(trained: Any, digits: Dataset) -> None:
    found = compress.low_rank(trained, budget=0.5)
    few = compress.low_rank(trained, budget=0.25)
    assert (
        measure.accuracy(found.model, digits.validation).value
        > measure.accuracy(trained, digits.validation).value - 0.02
    )
    tuned = prune.fine_tune(few.model, digits, epochs=2, lr=3e-3)
    assert training.evaluate(tuned, digits.train).loss < 0.7 * training.evaluate(few.model, digits.train).loss
    assert measure.flops(found.model, digits.validation.inputs) < measure.flops(trained, digits.validation.inputs)


def test_what_stays_and_why() -> None:
    reasons = {
        name: compress.low_rank(STRANGERS[key](), rank=2).kept.get(name, "")
        for key, name in [
            ("u-net", "up2"), ("channel shuffle", "2"), ("multi-head", "attention.out_proj"),
        ]
    }  # fmt: skip
    assert reasons["up2"] == "a transposed convolution"
    assert reasons["2"] == "a grouped convolution: each group's matrix is small already"
    assert reasons["attention.out_proj"].startswith("a NonDynamicallyQuantizableLinear")
    hooked = models.MLP((20, 20, 20))
    hooked.layers[0].register_forward_hook(lambda *_: None)
    assert compress.low_rank(hooked, rank=2).kept == {"layers.0": "it has hooks, which belong to the whole layer"}
    embedded: Any = nn.Sequential(nn.Embedding(30, 20), nn.Linear(20, 30), nn.Linear(30, 20))
    embedded[1].weight = embedded[0].weight
    assert compress.low_rank(embedded, rank=2).kept == {"1": "it shares its weight with 0"}


def test_tied_layers_share_both_factors() -> None:
    net: Any = STRANGERS["tied pair"]()
    found = compress.low_rank(net, rank=3)
    model: Any = found.model
    assert found.ranks == {"1": 3, "3": 3, "7": 3, "9": 3}
    assert model[3][0].weight is model[5][0].weight
    assert model[3][1].weight is model[5][1].weight
    assert model[3][1].bias is not model[5][1].bias
    twice = nn.Linear(20, 20)
    again: Any = compress.low_rank(nn.Sequential(twice, nn.ReLU(), twice), rank=2).model
    assert again[0] is again[2]
    alone = compress.low_rank(twice, rank=2)
    assert isinstance(alone.model, compress.LowRank)


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers(name: str, few_digits: Dataset, tmp_path: Path) -> None:
    """Nearly full rank, nearly the same answers; and a file of it is read again."""
    torch.manual_seed(0)
    net = STRANGERS[name]().eval()
    next(iter(net.parameters())).requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    found = compress.low_rank(net, energy=0.9)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not found.model.training
    x = few_digits.validation.inputs[:40]
    if name != "always dropping":
        product, thin = prune.plain(net), found.model
        for layer in found.ranks:
            there: Any = product.get_submodule(layer)
            there.weight.data = thin.get_submodule(layer).weight.detach()  # type: ignore[operator]
        assert torch.allclose(training.predict(found.model, x), training.predict(product, x), atol=1e-4)
    frozen = [key for key, p in found.model.named_parameters() if not p.requires_grad]
    assert len(frozen) in (1, 2)
    training.fit(copy.deepcopy(found.model), few_digits, epochs=1)
    files.write(found.model, tmp_path / "thin.safetensors", sparse=True)
    assert same(compress.load_low_rank(net, tmp_path / "thin.safetensors"), found.model)
    compress.write(found.model, tmp_path / "thin.kitz")
    assert same(compress.load_low_rank(net, tmp_path / "thin.kitz"), found.model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype: torch.dtype) -> None:
    layer = nn.Linear(30, 30).to(dtype)
    thin = compress.low_rank(layer, energy=0.8).model
    assert all(p.dtype == dtype for p in thin.parameters())


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({}, ValueError, "give one of energy, rank and budget; got energy=None, rank=None, budget=None"),
        ({"rank": 2, "energy": 0.5}, ValueError, "give one of energy, rank and budget; got energy=0.5, rank=2"),
        ({"energy": 0}, ValueError, r"energy must lie in \(0, 1\]; got 0"),
        ({"energy": 1.5}, ValueError, r"energy must lie in \[0, 1\]; got 1.5"),
        ({"budget": "half"}, TypeError, "budget must be a number; got 'half'"),
        ({"budget": 0.01}, ValueError, "budget must be at least 0.05.* here, rank 1 in every layer; got 0.01"),
        ({"rank": 0}, ValueError, "rank must be 1 or more; got 0"),
        ({"rank": 33}, ValueError, "rank must be no more than 32, the full rank of any layer; got 33"),
        ({"rank": {"fc2": 11}}, ValueError, "rank must be no more than 10, the full rank of layer 'fc2'; got 11"),
        ({"rank": {"fc3": 1}}, ValueError, "rank names fc3, which cannot be factored; allowed: conv1, conv2, fc1, fc2"),
        ({"rank": {1: 1, "fc3": 1}}, ValueError, "rank names 1, fc3, which cannot be factored; allowed: conv1, conv2"),
        ({"rank": 2.0}, TypeError, "rank must be a whole number; got 2.0"),
    ],
)
def test_refusals(trained: nn.Module, settings: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        compress.low_rank(trained, **settings)


def test_refused_models_and_layers(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ReLU has nothing to factor; it needs a linear layer"):
        compress.low_rank(nn.ReLU(), rank=1)
    with pytest.raises(ValueError, match=r"nothing to factor; .*\(0: a transposed convolution\)"):
        compress.low_rank(nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), rank=1)
    with pytest.raises(TypeError, match="model must be a torch"):
        compress.low_rank(None, rank=1)  # type: ignore[arg-type]
    broken = copy.deepcopy(trained)
    broken.fc1.weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="weight of 'fc1' holds NaN or infinity"):
        compress.low_rank(broken, rank=3)
    with pytest.raises(ValueError, match=r"rank must lie in 1 .. 10; got 11"):
        compress.split(trained.fc2, 11)
    with pytest.raises(TypeError, match="layer must be"):
        compress.split(nn.ReLU(), 1)
    with pytest.raises(ValueError, match=r"layer cannot be in two: a grouped convolution"):
        compress.split(nn.Conv2d(4, 4, 3, groups=2), 1)
    with pytest.raises(ValueError, match=r"layer cannot be in two: a LazyLinear"):
        compress.split(nn.LazyLinear(3), 1)
    files.write(models.MLP((64, 8, 10)), tmp_path / "other.safetensors", sparse=False)
    with pytest.raises(ValueError, match="model does not fit"):
        compress.load_low_rank(trained, tmp_path / "other.safetensors")
    with pytest.raises(TypeError, match="model must be a model"):
        compress.load_low_rank(None, tmp_path / "other.safetensors")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_without_numbers_stay() -> None:
    net = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 0))
    every: list[dict[str, Any]] = [{"rank": 2}, {"energy": 0.5}, {"budget": 0.5}]
    for settings in every:
        factored = compress.low_rank(net, **settings)
        assert list(factored.ranks) == ["0"]
        assert factored.kept == {"1": "it has no numbers"}
    with pytest.raises(ValueError, match=r"^layer cannot be in two: it has no numbers\.$"):
        compress.split(net[1], 1)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_shares_do_not_depend_on_the_scale(scale: float) -> None:
    net: Any = nn.Sequential(nn.Linear(30, 30)).double()
    wanted = compress.low_rank(net, energy=0.7)
    net[0].weight.data.mul_(scale)
    assert compress.low_rank(net, energy=0.7).ranks == wanted.ranks
    assert compress.low_rank(net, energy=0.7).energies == pytest.approx(wanted.energies)
