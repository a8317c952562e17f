"""What makes numbers smaller or fewer, on networks that take ids: attention, embeddings, sums that are normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import compress, measure, models, prune, training
from kit.compress import Recipe
from kit.data import Dataset
from tests.texts import LENGTH, WORDS, ordered

Net = Any
BUILDS: dict[str, Any] = {
    "transformer": lambda seed=1: models.Transformer(WORDS, LENGTH, 2, width=16, heads=4, seed=seed),
    "bag": lambda seed=1: models.BagOfWords(WORDS, 2, width=8, seed=seed),
}


@pytest.fixture(scope="module")
def letters() -> Dataset:
    return ordered()


@pytest.fixture(params=BUILDS)
def net(request: pytest.FixtureRequest) -> Net:
    return BUILDS[request.param]()


def tables(net: nn.Module) -> dict[str, Tensor]:
    """All weights in two dimensions: of layers and of embeddings."""
    return {name: p.detach() for name, p in net.named_parameters() if p.ndim == 2}


def test_codebooks_and_grids_stand_for_embeddings_too(net: Net) -> None:
    shared, rounded = compress.share(net, 4), compress.quantise(net, 3)
    for name, weight in tables(net).items():
        assert len(torch.unique(tables(shared)[name])) == 4
        step = weight.abs().amax(1, keepdim=True) / 3  # codes from -3 to 3, a step for each row
        grid = tables(rounded)[name]
        assert bool(((grid - weight).abs() <= 0.52 * step).all())  # steps themselves are numbers of few bits
        assert max(len(torch.unique(row)) for row in grid) <= 7 < len(torch.unique(grid))
        noise = (weight.double() - tables(rounded)[name]).square().sum()
        assert compress.sqnr(net, rounded)[name] == pytest.approx(
            10 * np.log10(float(weight.double().square().sum() / noise))
        )
    assert set(compress.sqnr(net, rounded)) == set(tables(net))
    some: Net = compress.quantise(net, {"tokens.weight": 2})
    assert torch.equal(some.head.weight, net.head.weight) and not torch.equal(some.tokens.weight, net.tokens.weight)


def test_trained_codebooks_keep_as_many_values(net: Net, letters: Dataset) -> None:
    tuned: Net = compress.fine_tune(compress.share(net, 4), letters, epochs=1, lr=1e-2)
    assert {len(torch.unique(weight)) for weight in tables(tuned).values()} == {4}
    assert not torch.equal(tuned.tokens.weight, tables(compress.share(net, 4))["tokens.weight"])


def test_files_give_back_every_table(net: Net, letters: Dataset, tmp_path: Path) -> None:
    small = compress.share(prune.weights(net, ratio=0.5), 4, biases=True)
    compress.write(small, path := tmp_path / "small.kitz")
    other = BUILDS["transformer" if hasattr(net, "blocks") else "bag"](seed=2)
    compress.load_into(other, path)
    x = letters.test.inputs
    assert torch.equal(training.predict(other, x), training.predict(small, x))
    assert len(compress.encode(small).data) < len(compress.encode(net).data) / 2


def test_the_pipeline_writes_what_it_measures(net: Net, letters: Dataset) -> None:
    result = compress.pipeline(net, letters, Recipe(ratio=0.5, bits=3))
    assert compress.decode(result.data).keys() == net.state_dict().keys()
    accuracy = measure.accuracy(result.model, letters.validation)
    assert result.steps[-1].accuracy.value == accuracy.value
    assert result.steps[-1].ledger.total == len(result.data) < measure.file_bytes(net) / 2


def test_all_singular_values_change_nothing_and_few_make_two_layers(letters: Dataset) -> None:
    net, x = BUILDS["transformer"](), letters.test.inputs
    layer = net.blocks[0].fc1
    found = compress.low_rank(net, rank={"blocks.0.fc1": 3})
    u, s, v = (each.detach() for each in torch.linalg.svd(layer.weight, full_matrices=False))
    with torch.no_grad():
        layer.weight.copy_(u[:, :3] * s[:3] @ v[:3])
    assert torch.allclose(training.predict(found.model, x), training.predict(net, x), atol=1e-5)
    assert measure.parameters(net) - measure.parameters(found.model) == 16 * 64 - 3 * (16 + 64)


def test_low_rank_in_an_attention_keeps_its_heads(letters: Dataset) -> None:
    net, x = BUILDS["transformer"](), letters.test.inputs
    parts = [f"blocks.0.attention.{part}" for part in ("query", "key", "value", "out")]
    found = compress.low_rank(net, rank=dict.fromkeys(parts, 2)).model
    with torch.no_grad():
        for part in parts:
            weight = net.get_submodule(part).weight
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
            weight.copy_(u[:, :2] * s[:2] @ v[:2])
    assert torch.allclose(training.predict(found, x), training.predict(net, x), atol=1e-5)


def test_linear_layers_in_whole_numbers_are_those_of_eight_bits(net: Net, letters: Dataset) -> None:
    """A grid of 255 values for each row of weights and of what comes in, emulated in floating point."""

    def rounded(x: Tensor) -> Tensor:
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return (x / step).round() * step

    emulated = training.copy_of(net)
    for layer in emulated.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = rounded(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, arguments: rounded(arguments[0]))
    x = letters.test.inputs
    quick = compress.int8(net)
    assert not [each for each in quick.modules() if type(each) is nn.Linear]
    wanted = training.predict(emulated, x)
    spread = float((wanted - training.predict(net, x)).abs().max())
    assert float((training.predict(quick, x) - wanted).abs().max()) < 0.3 * spread + 1e-5


def test_nothing_stands_next_to_each_other(net: Net, letters: Dataset) -> None:
    with pytest.raises(ValueError, match=rf"model: {type(net).__name__} has nothing to fold: "):
        compress.fold(net, letters)


def test_means_of_weights_and_of_answers(net: Net, letters: Dataset) -> None:
    other = BUILDS["transformer" if hasattr(net, "blocks") else "bag"](seed=2)
    mean = compress.average([net, other])
    for name, weight in mean.named_parameters():
        assert torch.allclose(weight, (net.get_parameter(name) + other.get_parameter(name)) / 2)
    x = letters.test.inputs
    shares = torch.stack([training.predict(each, x).softmax(1) for each in (net, other)])
    together = training.predict(compress.ensemble([net, other]), x).softmax(1)
    assert torch.allclose(together, shares.mean(0), atol=1e-5)


def test_heads_and_units_find_their_places_again(letters: Dataset) -> None:
    """A network whose heads and units were shuffled by hand is put back exactly."""
    net = BUILDS["transformer"]()
    mixed, heads, units = training.copy_of(net), torch.tensor([2, 0, 3, 1]), torch.randperm(64)
    rows = (4 * heads[:, None] + torch.arange(4)).flatten()
    with torch.no_grad():
        for block in mixed.blocks:
            attention = block.attention
            for layer in (attention.query, attention.key, attention.value):
                layer.weight.copy_(layer.weight[rows])
                layer.bias.copy_(layer.bias[rows])
            attention.out.weight.copy_(attention.out.weight[:, rows])
            block.fc1.weight.copy_(block.fc1.weight[units])
            block.fc1.bias.copy_(block.fc1.bias[units])
            block.fc2.weight.copy_(block.fc2.weight[:, units])
    x = letters.test.inputs
    assert torch.allclose(training.predict(mixed, x), training.predict(net, x), atol=1e-5)
    found = compress.align(mixed, net, dataset=letters)
    assert found.permutations == {
        f"blocks.{at}.{part}": tuple(order.argsort().tolist())
        for at in range(2)
        for part, order in (("attention.query", heads), ("fc1", units))
    }
    assert all(torch.equal(weight, net.get_parameter(name)) for name, weight in found.model.named_parameters())
    assert min(found.after["blocks.1.attention.query"]) == pytest.approx(1)
    (name, reason), *others = found.skipped
    assert (name, others) == ("blocks.0.attention.out", []) and "norm" in reason
    with pytest.raises(prune.Untraceable, match="no unit of BagOfWords can be moved: it has no hidden units"):
        compress.align(BUILDS["bag"](), BUILDS["bag"](seed=2), dataset=letters)
    with pytest.raises(ValueError, match="BagOfWords has no channels to remove"):
        prune.channels(BUILDS["bag"](), ratio=0.5, dataset=letters)
