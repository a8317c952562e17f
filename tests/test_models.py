from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import compress, data, distill, measure, models, prune, training
from tests.nets import same

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = "conv3 | skip conv1 | pool conv3"


@pytest.mark.parametrize(
    ("model", "shape", "n_classes"),
    [
        (models.MLP(), (1, 8, 8), 10),
        (models.MLP((12, 5)), (3, 2, 2), 5),
        (models.MLP((7, 3, 4, 2)), (7,), 2),
        (models.ConvNet(), (1, 8, 8), 10),
        (models.ConvNet(image_size=28), (1, 28, 28), 10),
        (models.ConvNet(3, (7, 10), (4, 5), 6, 3), (3, 7, 10), 3),
        (models.ConvNet(image_size=2), (1, 2, 2), 10),
        (models.lenet_300_100(), (1, 28, 28), 10),
        (models.LeNet5(), (1, 28, 28), 10),
        (models.ResNet(), (1, 8, 8), 10),
        (models.ResNet(3, (4, 6, 8), 2, 5), (3, 9, 12), 5),
        (models.ResNet(widths=(4,), blocks=3), (1, 1, 1), 10),
        (models.CellNet(CELL), (1, 28, 28), 10),
        (models.CellNet(CELL, 3, 1, 5, 7), (3, 9, 13), 7),
        (models.CellNet(CELL, 2, 3, 4, 1), (2, 6, 6), 1),
        (models.CellNet("none | skip none | none skip", patch=1), (1, 2, 2), 10),
    ],
)
def test_logits_have_one_number_a_class(model: nn.Module, shape: tuple[int, ...], n_classes: int) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    logits = model.eval()(x)
    assert logits.shape == (3, n_classes)
    assert torch.allclose(model(x[1:2]), logits[1:2], atol=1e-6)  # samples do not see each other
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("build", "side"),
    [(models.MLP, 8), (models.ConvNet, 8), (models.ResNet, 8), (models.lenet_300_100, 28), (models.LeNet5, 28)],
)
def test_the_seed_decides(build: Callable[..., nn.Module], side: int) -> None:
    """And layers are not linear together: the chapter's listing had no activation, so it was one affine map."""
    assert same(build(seed=3), build(seed=3))
    assert not same(build(seed=3), model := build(seed=4).eval())
    assert all(p.requires_grad and not p.is_meta for p in model.parameters())
    a, b = torch.rand(2, 1, 1, side, side, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model((a + b) / 2), (model(a) + model(b)) / 2, atol=1e-4)


def test_networks_are_the_written_formulas() -> None:
    assert sum(p.numel() for p in models.ConvNet().parameters()) == 151_306
    net = models.ConvNet(2, (6, 4), (3, 5), 7, 4)
    x = torch.rand(3, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    y = x
    for conv in (net.conv1, net.conv2):
        y = nn.functional.conv2d(y, conv.weight, conv.bias, padding=1).clamp_min(0)
    y = y.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))  # [3, 5, 3, 2]
    y = (y.reshape(3, 30) @ net.fc1.weight.T + net.fc1.bias).clamp_min(0)
    assert torch.allclose(net(x), y @ net.fc2.weight.T + net.fc2.bias, atol=1e-6)
    mlp, y = models.MLP((48, 5, 4, 3)), x.reshape(3, 48)
    for index, width in enumerate((5, 4, 3)):
        y = y @ mlp.get_parameter(f"layers.{index}.weight").T + mlp.get_parameter(f"layers.{index}.bias")
        assert y.shape == (3, width)
        y = y if index == 2 else y.clamp_min(0)
    assert torch.allclose(mlp(x), y, atol=1e-6)


def test_lenets_are_those_of_the_literature() -> None:
    """Counts and shapes as the papers on compression give them; the convolutions as sums over windows."""
    small, net = models.lenet_300_100(seed=2), models.LeNet5(seed=2)
    counted = list(net.parameters())
    counts = [[p.numel() for p in parameters] for parameters in (small.parameters(), counted)]
    assert counts[0] == [784 * 300, 300, 300 * 100, 100, 100 * 10, 10] and sum(counts[0]) == 266_610
    assert counts[1] == [20 * 25, 20, 50 * 20 * 25, 50, 800 * 500, 500, 500 * 10, 10] and sum(counts[1]) == 431_080
    assert same(small, models.MLP((784, 300, 100, 10), seed=2))
    y = x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for weight, bias in zip(counted[:4:2], counted[1:4:2], strict=True):
        windows = y.unfold(2, 5, 1).unfold(3, 5, 1)  # [3, channels, h - 4, w - 4, 5, 5]
        y = torch.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
        y = y.clamp_min(0).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    assert y.shape == (3, 50, 4, 4)
    y = (y.flatten(1) @ net.fc1.weight.T + net.fc1.bias).clamp_min(0) @ net.fc2.weight.T + net.fc2.bias
    assert torch.allclose(net(x), y, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(40, 300), nn.Conv2d(6, 80, 3), nn.Conv2d(8, 40, 5, groups=4, bias=False)])
def test_initialise_has_the_law_of_torch(layer: Any) -> None:
    """Same bounds as a fresh layer of torch, and a uniform law between them."""
    fresh = copy.deepcopy(layer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh.reset_parameters()
    models.initialise(layer, seed=1)
    bound = 1 / math.sqrt(layer.weight[0].numel())
    state, expected = layer.state_dict(), fresh.state_dict()
    for ours, theirs in zip(state.values(), expected.values(), strict=True):
        assert ours.abs().max() <= bound
        if ours.numel() > 1000:
            assert float(ours.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.01)
            assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
            assert float(ours.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert ours.unique().numel() > 0.99 * ours.numel()


def test_initialise_resets_normalisation_and_refuses_the_unknown() -> None:
    layers: tuple[Any, ...] = (nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    net = nn.Sequential(nn.Linear(4, 4), *layers, nn.Dropout())
    for tensor in net.state_dict().values():
        tensor += 3
    models.initialise(net, 0)
    assert all((layer.weight.tolist(), layer.bias.tolist()) == ([1] * 4, [0] * 4) for layer in layers)
    assert (layers[0].running_mean.tolist(), int(layers[0].num_batches_tracked)) == ([0] * 4, 0)
    with pytest.raises(TypeError, match=r"cannot initialise 1 \(PReLU\); known are Linear, Conv"):
        models.initialise(nn.Sequential(nn.Linear(4, 4), nn.PReLU()), 0)


def test_resnet_blocks_add_their_input() -> None:
    block = models.ResidualBlock(3, 3, stride=1)
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(block.eval()(x), x)  # the other branch answers 0
    net = models.ResNet(widths=(4, 8, 8), blocks=2)
    assert [len(stage.shortcut) for stage in net.stages] == [0, 0, 2, 0, 2, 0]  # type: ignore[arg-type]


def test_a_cell_network_is_counted_by_hand() -> None:
    """w: channels of the first cell, 2 w of the second; a norm has two numbers a channel, a convolution no bias."""
    for text in ("none | skip none | none pool", "conv1 | conv3 none | skip pool", "conv3 | conv3 conv3 | conv3 conv3"):
        for w, channels, patch, classes in ((8, 1, 4, 10), (3, 2, 1, 4)):
            net = models.CellNet(text, channels, patch, w, classes)
            cell = sum(
                text.count(f"conv{side}") * (side**2 * each**2 + 2 * each) for side in (1, 3) for each in (w, 2 * w)
            )
            stem, between, norm = channels * patch**2 * w + 2 * w, 2 * w**2 + 4 * w, 4 * w
            assert (
                sum(each.numel() for each in net.parameters())
                == cell + stem + between + norm + 2 * w * classes + classes
            )


def test_a_cell_network_is_the_written_formula() -> None:
    """conv3 | skip conv1 | pool conv3: h = conv3(x), out = pool(h) + conv3(x + conv1(h)), twice, by torch alone."""
    net = models.CellNet(CELL, seed=2).eval()
    x = torch.rand(3, 1, 16, 20, generator=torch.Generator().manual_seed(0))

    def norm(y: Tensor) -> Tensor:
        return y / math.sqrt(1 + 1e-5)  # untrained: mean 0, variance 1

    def convolved(graph: Any, name: str, y: Tensor) -> Tensor:
        weight = graph.edges[name][1].weight
        return norm(F.conv2d(F.relu(y), weight, padding=weight.shape[-1] // 2))

    def cell(graph: Any, y: Tensor) -> Tensor:
        h = convolved(graph, "0-1", y)
        ones = F.conv2d(torch.ones(1, 1, *h.shape[2:]), torch.ones(1, 1, 3, 3), padding=1)  # neighbours inside
        sums = F.conv2d(h, torch.ones(h.shape[1], 1, 3, 3), padding=1, groups=h.shape[1])
        return sums / ones + convolved(graph, "2-3", y + convolved(graph, "1-2", h))

    first: Any = net.stem[0]
    second: Any = net.between[1]
    y = cell(net.first, norm(F.conv2d(x, first.weight, stride=4)))  # [3, 8, 4, 5]
    y = F.avg_pool2d(y, 2)  # [3, 8, 2, 2]
    y = cell(net.second, norm(F.conv2d(y, second.weight)))
    logits = F.relu(norm(y)).mean(dim=(2, 3)) @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), logits, rtol=1e-4, atol=1e-5)


def test_cells_that_are_the_same_network_have_the_same_weights() -> None:
    one, other = (
        models.CellNet(text, seed=4) for text in ("conv1 | none none | skip none", "skip | none conv1 | none skip")
    )
    assert one.cell == other.cell
    assert same(one, other)
    assert not same(one, models.CellNet("conv1 | none none | skip none", seed=5))
    assert not any(weight.is_meta for weight in one.state_dict().values())


@pytest.mark.parametrize("text", [CELL, "none | skip none | none pool", "conv3 | conv1 skip | skip conv3"])
def test_a_cell_network_goes_through_the_kit(digits: data.Dataset, text: str) -> None:
    """Pruned, folded, measured, distilled, saved: as any other network."""
    net = models.CellNet(text, patch=1, width=4)
    training.fit(net, digits, epochs=1, lr=0.02)
    before = training.copy_of(net)
    thinner = prune.channels(net, ratio=0.5, dataset=digits)
    ours, theirs = (sum(each.numel() for each in model.parameters()) for model in (thinner, net))
    assert ours < theirs
    zeros = prune.weights(net, ratio=0.5)
    assert sum(int((each == 0).sum()) for each in zeros.parameters() if each.dim() > 1) > 0
    fold = compress.fold(net, digits)
    folded = fold.model.eval()
    x = digits.validation.inputs[:50]
    assert fold.folded
    torch.testing.assert_close(folded(x), net.eval()(x), rtol=1e-3, atol=1e-3)
    for model in (net, thinner, folded):
        profile = measure.profile(model, digits.validation)
        assert profile.parameters == sum(each.numel() for each in model.parameters())
        assert not profile.broken
    student = models.MLP((64, 4, 10))
    distill.fit(student, net, digits.train, epochs=1, temperature=4, alpha=0.9)
    training.fit(thinner, digits, epochs=1)
    assert same(net, before)


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (models.MLP(), (3,), r"the model takes samples of 64 numbers; got shape \(3,\)"),
        (models.ConvNet(), (1, 9, 8), r"the model takes images of 1 x 8 x 8 .* got \(1, 9, 8\)"),
        (models.ConvNet(), (3, 8, 8), r"images of 1 x 8 x 8 .* got \(3, 8, 8\)"),
        (models.ConvNet(), (8, 8), r"images of 1 x 8 x 8 .* got \(8, 8\)"),
        (models.lenet_300_100(), (1, 8, 8), r"the model takes samples of 784 numbers; got shape \(1, 8, 8\)"),
        (models.LeNet5(), (1, 28, 32), r"images of 1 x 28 x 28 .* got \(1, 28, 32\)"),
        (models.ResNet(3), (1, 8, 8), r"images of 3 x any x any .* got \(1, 8, 8\)"),
        (models.CellNet(CELL, 3), (1, 8, 8), r"images of 3 x any x any .* got \(1, 8, 8\)"),
        (models.CellNet(CELL), (1, 7, 28), r"the model takes images of 8 x 8 or more; got \(1, 7, 28\)"),
        (models.CellNet(CELL, patch=1), (1, 8, 1), r"the model takes images of 2 x 2 or more; got \(1, 8, 1\)"),
    ],
)
def test_samples_of_another_shape_are_refused(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    """By the model, and by everything that calls it, in one sentence that keeps the model's own."""
    wrong = data.from_arrays(np.zeros((60, *shape)), np.arange(60) % 10)
    for call in (
        lambda: model(wrong.train.inputs),
        lambda: training.fit(model, wrong, epochs=1),
        lambda: training.evaluate(model, wrong.test),
        lambda: measure.profile(model, wrong.test),
        lambda: prune.weights(model, ratio=0.5, importance="taylor", dataset=wrong),
        lambda: prune.channels(model, ratio=0.5, dataset=wrong),
        lambda: prune.scan(model, wrong),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: models.MLP((64,)), r"sizes needs at least .* got \[64\]"),
        (lambda: models.MLP((64, 0, 10)), r"sizes must be 1 or more; got 0"),
        (lambda: models.ConvNet(0), r"in_channels must be 1 or more; got 0"),
        (lambda: models.ConvNet(channels=(4, -1)), r"channels must be 1 or more; got -1"),
        (lambda: models.ConvNet(channels=(4, 5, 6)), r"channels must be two numbers; got 3"),  # type: ignore[arg-type]
        (lambda: models.ConvNet(image_size=(8,)), r"image_size must be two numbers; got 1"),  # type: ignore[arg-type]
        (lambda: models.ConvNet(seed=-1), r"seed must be 0 or more; got -1"),
        (lambda: models.ConvNet(image_size=1), "image_size must be 2 or more; got 1"),
        (lambda: models.ConvNet(image_size=(8, 1)), r"image_size must be 2 or more; got 1"),
        (lambda: models.ResNet(widths=()), "widths needs at least one stage"),
        (lambda: models.ResNet(blocks=0), r"blocks must be 1 or more; got 0"),
        (lambda: models.CellNet(CELL, 0), r"in_channels must be 1 or more; got 0"),
        (lambda: models.CellNet(CELL, patch=0), r"patch must be 1 or more; got 0"),
        (lambda: models.CellNet(CELL, width=-2), r"width must be 1 or more; got -2"),
        (lambda: models.CellNet(CELL, n_classes=0), r"n_classes must be 1 or more; got 0"),
        (lambda: models.CellNet("conv3 | conv3"), r"cell must have 1, 2 and 2 operations, .*; got 'conv3 \| conv3'"),
        (lambda: models.CellNet("conv3 | none none | none pool"), r"cell must lead from its input to its output"),
    ],
)
def test_bad_sizes_are_refused(build: Callable[[], nn.Module], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.parametrize("value", ["8", 8.5, None, True])
@pytest.mark.parametrize(
    ("build", "name"),
    [
        *((models.MLP, name) for name in ("sizes", "seed")),
        *((models.ConvNet, name) for name in ("in_channels", "image_size", "channels", "hidden", "n_classes", "seed")),
        *((models.ResNet, name) for name in ("in_channels", "widths", "blocks", "n_classes", "seed")),
        *((partial(models.CellNet, CELL), name) for name in ("in_channels", "patch", "width", "n_classes", "seed")),
        *((build, "seed") for build in (models.lenet_300_100, models.LeNet5)),
        (partial(models.initialise, nn.Linear(2, 2)), "seed"),
    ],
)
def test_sizes_of_another_kind_are_refused(build: Callable[..., nn.Module], name: str, value: Any) -> None:
    row = r"whole numbers in a row, such as \(16, 32\)" if name in ("sizes", "widths", "channels") else "a whole number"
    if name == "image_size" and value is not True:
        row = "whole numbers in a row"
    with pytest.raises(TypeError, match=f"^{name} must be {row}.*; got {re.escape(repr(value))}"):
        build(**{name: value})


def test_numbers_of_numpy_are_sizes() -> None:
    """And leave plain numbers behind, which a file or a sentence shows as such."""
    sizes: Any = (np.int64(1), np.int64(6), np.array([2, 3]), np.uint8(4), np.int32(5))
    row: Any = np.array([4, 3])
    net = models.ConvNet(*sizes, seed=row.sum())
    assert same(net, models.ConvNet(1, 6, (2, 3), 4, 5, seed=7))
    assert all(type(side) is int for side in (*net.input_shape, *models.MLP(row).sizes))
    assert type(net.conv2.out_channels) is int
    assert same(models.ResNet(widths=row), models.ResNet(widths=(4, 3)))


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    """Everything that draws, twice, under two global seeds: the same results, and the global state untouched."""
    labels = np.arange(120) % 4
    images = np.random.default_rng(0).random((120, 1, 6, 6)) / 2 + labels[:, None, None, None] / 8
    results: list[list[Tensor]] = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.random.get_rng_state(), pickle.dumps(np.random.get_state())
        dataset = data.from_arrays(images, labels)
        net = models.ResNet(widths=(4, 8), n_classes=4)
        training.fit(net, dataset, epochs=1, callbacks=[training.Callback()])
        layers: dict[str, Any] = {"student_layer": "layers.0", "teacher_layer": "stem"}
        student = models.MLP((36, 3, 4))
        distill.hint(student, net, dataset.train, **layers, epochs=1)
        distill.fit(student, net, dataset.train, epochs=1)
        made: Sequence[nn.Module] = (
            net,
            models.MLP((36, 4)),
            *(prune.weights(net, ratio=0.5, importance=kind, dataset=dataset) for kind in prune.IMPORTANCES),
            *(prune.channels(net, ratio=0.5, importance=kind, dataset=dataset) for kind in prune.IMPORTANCES),
            prune.fine_tune(prune.weights(net, ratio=0.5), dataset, epochs=1),
            prune.iterative(net, dataset, ratio=0.5, rounds=2, epochs=2).model,
            student,
        )
        measure.profile(net, dataset.validation)
        prune.allocate(prune.scan(net, dataset, ratios=(0, 0.5)), 0.2)
        found = prune.lottery(models.ConvNet(1, 6, (2, 2), 4, 4), dataset, ratio=0.5, rounds=1, epochs=1)
        results.append([tensor for model in made for tensor in model.state_dict().values()])
        results[-1] += list(found.masks.values())
        results[-1] += [torch.tensor([e.value for e in (*found.reinitialised, *found.random_masks)])]
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert pickle.dumps(np.random.get_state()) == before[1]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
