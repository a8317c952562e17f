"""Channels really removed: prune.structured."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.data import Dataset
from kit.prune import structured
from tests.nets import same


class Concat(nn.Module):
    """Two branches side by side, their concatenation in a sum with a third."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.c, self.d = nn.Conv2d(10, 10, 3, padding=1), nn.Conv2d(10, 8, 3)
        self.head = nn.Linear(8 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        both = F.relu(torch.cat([self.a(x), self.b(x)], dim=1))  # [n, 10, 8, 8]
        both = F.relu(both + self.c(both))
        return self.head(F.max_pool2d(F.relu(self.d(both)), 2).flatten(1))


class Attentive(nn.Module):
    """The rows of an image as tokens: attention and a two-layer block, both in a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rows(x.squeeze(1))  # [n, 8, 16]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.norm(x)
        return self.head((x + self.narrow(F.relu(self.wide(x)))).mean(1))


class Gated(nn.Module):
    """Squeeze and excitation: channels multiplied by a gate made of themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


def chain(*layers: nn.Module, width: int) -> nn.Module:
    """Convolutions on an image of one channel, with ReLU between them, and a linear head on the means of `width`."""
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def grouped(groups: int) -> nn.Module:
    """A convolution in `groups` blocks between two ordinary ones; 8 groups make it depthwise."""
    a, b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    return chain(a, nn.ReLU(), b, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 1), width=12)


def group_normed() -> nn.Module:
    return chain(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 6, 3), width=6)


def upscaling() -> nn.Module:
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    return chain(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), up, nn.ReLU(), nn.Conv2d(6, 5, 3), width=5)


def in_place() -> nn.Module:
    a, b, relu = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), nn.ReLU(inplace=True)
    return chain(a, nn.BatchNorm2d(8), relu, nn.Dropout2d(), b, relu, width=6)


def twice() -> nn.Module:
    """The same layer at two places."""
    b, relu = nn.Linear(16, 16), nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), relu, b, relu, b, relu, nn.Linear(16, 10))


ZOO: dict[str, Callable[[], nn.Module]] = {
    "mlp": models.MLP,
    "convnet": models.ConvNet,
    "resnet": models.ResNet,
    "deep resnet": lambda: models.ResNet(widths=(8, 12, 8), blocks=2),
    "concat": Concat,
    "depthwise": lambda: grouped(8),
    "two groups": lambda: grouped(2),
    "group norm": group_normed,
    "in place": in_place,
    "upscaling": upscaling,
    "attention": Attentive,
    "gate": Gated,
    "reused": twice,
}


@pytest.fixture(params=ZOO)
def zoo(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = ZOO[request.param]()
        for module in net.modules():  # statistics and scales as after some training
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, 0, 0.5)  # above 0, so that no channel is dead
    return request.param, net.eval()


def silence(net: nn.Module, layer: str, channels: list[int]) -> None:
    """Set to zero what makes the given output channels of a layer, and its bias."""
    module: Any = net.get_submodule(layer)
    rows = module.weight.data.transpose(0, int(isinstance(module, nn.ConvTranspose2d)))
    rows[channels] = 0
    if module.bias is not None:
        module.bias.data[channels] = 0


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("scope", prune.SCOPES)
def test_any_model_becomes_smaller_and_runs(
    zoo: tuple[str, nn.Module], digits: Dataset, importance: Any, scope: Any
) -> None:
    _, net = zoo
    before = copy.deepcopy(net)
    thinned = prune.remove_channels(net, ratio=0.5, dataset=digits, importance=importance, scope=scope)
    assert same(net, before)
    assert measure.parameters(thinned.model) < 0.8 * measure.parameters(net)
    assert measure.flops(thinned.model, digits.test.inputs) < measure.flops(net, digits.test.inputs)
    logits = training.predict(thinned.model, digits.test.inputs[:7])
    assert logits.shape == (7, 10)
    assert not torch.equal(logits[0], logits[1])
    assert list(thinned.model.state_dict()) == list(net.state_dict())
    assert training.fit(thinned.model, digits, epochs=0).batches == 0
    for name, stays in thinned.kept.items():
        layer: Any = thinned.model.get_submodule(name)
        assert len(stays) == (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
        assert list(stays) == sorted(set(stays))
        whole: Any = net.get_submodule(name)  # biases (one number a channel) say where each kept channel came from
        assert whole.bias is None or torch.equal(whole.bias[list(stays)], layer.bias)


def test_removing_silent_channels_changes_nothing(
    zoo: tuple[str, nn.Module], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest check: what is zero and read by nobody can go, and every answer stays the same.

    Which layers hang together comes from the record of a first pruning; that they answer the same afterwards does not.
    """
    _, net = zoo
    scores = prune.score_weights(net, "random", seed=3)
    monkeypatch.setattr(structured, "score_weights", lambda *_, **__: scores)  # the same choice both times
    first = prune.remove_channels(net, ratio=0.5, dataset=digits)
    for layer, stays in first.kept.items():
        module: Any = net.get_submodule(layer)
        width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        silence(net, layer, [channel for channel in range(width) if channel not in stays])
    for module in net.modules():  # a silent channel must stay silent behind a normalisation
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.zeros_(module.running_mean)  # type: ignore[arg-type]
    second = prune.remove_channels(net, ratio=0.5, dataset=digits)
    assert second.kept == first.kept
    expected, got = (training.predict(model, digits.test.inputs) for model in (net, second.model))
    assert torch.allclose(expected, got, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_silent_channels_are_found(digits: Dataset, importance: Any) -> None:
    """Written by hand for the chapter's network: zero rows and the columns that read them go first."""
    net = models.ConvNet(channels=(8, 6), hidden=12)
    gone: dict[str, list[int]] = {"conv1": [0, 3, 5, 7], "conv2": [1, 2, 4], "fc1": [0, 1, 6, 8, 10, 11]}
    for layer, channels in gone.items():
        silence(net, layer, channels)
    net.conv2.weight.data[:, gone["conv1"]] = 0
    net.fc1.weight.data.view(12, 6, 16)[:, gone["conv2"]] = 0
    net.fc2.weight.data[:, gone["fc1"]] = 0
    thinned = prune.remove_channels(net, ratio=0.5, dataset=digits, importance=importance)
    for layer, channels in gone.items():
        width = len(net.get_parameter(f"{layer}.weight"))
        assert thinned.kept[layer] == tuple(sorted(set(range(width)) - set(channels)))
    expected, got = (training.predict(model, digits.test.inputs) for model in (net, thinned.model))
    assert torch.allclose(expected, got, atol=1e-6)


def by_peer(net: nn.Module, dataset: Dataset, ratio: float, is_global: bool) -> nn.Module:
    """Torch-pruning's own pruner with its own importance, on a copy."""
    smaller = copy.deepcopy(net)
    head = [module for module in smaller.modules() if isinstance(module, nn.Linear)][-1]
    importance = tp.importance.GroupMagnitudeImportance(p=2, target_types=[nn.modules.conv._ConvNd, nn.Linear])
    settings: dict[str, Any] = {"pruning_ratio": ratio, "global_pruning": is_global, "ignored_layers": [head]}
    tp.pruner.BasePruner(smaller, dataset.train.inputs[:2], importance=importance, **settings).step()
    return smaller


@pytest.mark.parametrize("scope", prune.SCOPES)
@pytest.mark.parametrize("build", [models.ConvNet, models.MLP, models.ResNet, Concat])
def test_magnitude_is_torch_prunings(digits: Dataset, build: Callable[..., nn.Module], scope: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build()
    ours = prune.channels(net, ratio=0.5, dataset=digits, scope=scope)
    theirs = by_peer(net, digits, 0.5, scope == "global")
    for (name, mine), peer in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, peer), name


def widths(thinned: structured.ChannelRemoval) -> dict[str, int]:
    return {name: len(stays) for name, stays in thinned.kept.items()}


def test_the_share_that_goes_is_that_of_each_layer_of_all_or_of_those_named(digits: Dataset) -> None:
    net = models.ConvNet()
    assert prune.channel_groups(net, digits) == {"conv1": 32, "conv2": 64, "fc1": 128}
    for ratio in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9):
        thinned = prune.remove_channels(net, ratio=ratio, dataset=digits)
        conv1, conv2, fc1 = (width - round(ratio * width) for width in (32, 64, 128))
        assert widths(thinned) == {"conv1": conv1, "conv2": conv2, "fc1": fc1}
        by_hand = models.ConvNet(channels=(conv1, conv2), hidden=fc1)
        assert measure.parameters(thinned.model) == measure.parameters(by_hand)
        assert thinned.floored == ()
    own = prune.remove_channels(net, ratio={"conv2": 0.75, "fc1": 0.5}, dataset=digits)
    assert widths(own) == {"conv1": 32, "conv2": 16, "fc1": 64}
    nn.init.uniform_(net.conv2.weight[:40], -0.3, 0.3, generator=torch.Generator().manual_seed(0))
    kept = widths(prune.remove_channels(net, ratio=0.5, dataset=digits, scope="global"))
    assert sum(kept.values()) == (32 + 64 + 128) / 2
    assert kept["conv2"] != 32


def test_channels_that_meet_stay_together(digits: Dataset) -> None:
    """In residual sums, and behind a concatenation."""
    net = models.ResNet(widths=(8, 12), blocks=2)
    groups = prune.channel_groups(net, digits)
    assert sorted(groups.values()) == [8, 8, 8, 12, 12, 12]  # the stem with its stage; the shortcut with its stage
    kept = prune.remove_channels(net, ratio=0.5, dataset=digits).kept
    assert kept["stem"] == kept["stages.0.conv2"] == kept["stages.1.conv2"]
    assert kept["stages.2.shortcut.0"] == kept["stages.2.conv2"] == kept["stages.3.conv2"]
    kept = prune.remove_channels(Concat(), ratio=0.5, dataset=digits, importance="random").kept
    assert kept["c"] == (*kept["a"], *(6 + channel for channel in kept["b"]))


@pytest.mark.parametrize("groups", [2, 8])
def test_blocks_stay_equally_wide(digits: Dataset, groups: int) -> None:
    thinned: Any = prune.remove_channels(grouped(groups), ratio=0.5, dataset=digits)
    a, b = thinned.model[0], thinned.model[2]
    assert b.groups == (4 if groups == 8 else 2)
    assert a.out_channels == b.out_channels == 4
    if groups == 2:
        assert sum(channel < 4 for channel in thinned.kept["2"]) == 2
    normed = prune.remove_channels(group_normed(), ratio=0.5, dataset=digits)
    first, second = normed.kept["0"][::2], normed.kept["0"][1::2]  # two whole groups stay of the four, or others change
    assert len(first) == 2 and all(channel % 2 == 0 for channel in first)
    assert second == tuple(channel + 1 for channel in first)
    assert normed.model.get_submodule("1").num_groups == 2


def test_one_channel_stays_and_it_is_said(digits: Dataset) -> None:
    net = models.ConvNet(channels=(4, 64))
    net.conv1.weight.data[2] *= 10
    thinned = prune.remove_channels(net, ratio=0.95, dataset=digits)
    assert thinned.floored == ("conv1",)
    assert thinned.kept["conv1"] == (2,)  # the strongest
    with pytest.warns(prune.LastChannelWarning, match="ratio 0.95 would empty conv1") as warned:
        smaller = prune.channels(net, ratio=0.95, dataset=digits)
    assert warned[0].filename == __file__  # it points at the caller's line
    assert smaller.get_parameter("conv1.weight").shape[0] == 1
    with warnings.catch_warnings(action="error"):
        prune.channels(net, ratio=0.5, dataset=digits)
    everywhere = prune.remove_channels(net, ratio=0.999, dataset=digits, scope="global")
    assert all(everywhere.kept.values())
    assert training.predict(everywhere.model, digits.test.inputs[:3]).shape == (3, 10)


@pytest.mark.parametrize("train_mode", [True, False])
def test_modes_and_frozen_parameters_stay_as_they_were(digits: Dataset, train_mode: bool) -> None:
    net = models.ResNet(widths=(4, 8)).train(train_mode)
    net.stem_bn.eval()
    net.stem.requires_grad_(False)
    net.head.bias.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    for importance in prune.IMPORTANCES:
        smaller = prune.channels(net, ratio=0.5, dataset=digits, importance=importance)
        for model in (net, smaller):
            assert [module.training for module in model.modules()] == modes
            frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
            assert frozen == {"stem.weight", "head.bias"}
            assert all(p.is_leaf and p.grad is None for p in model.parameters())
            assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_random_depends_on_the_seed(digits: Dataset) -> None:
    how: dict[str, Any] = {"ratio": 0.5, "dataset": digits, "importance": "random"}
    one, again, other = (prune.remove_channels(models.MLP(), seed=seed, **how).kept for seed in (1, 1, 2))
    assert one == again != other


def test_the_model_is_called_with_one_batch_and_nothing_else(digits: Dataset) -> None:
    class Optional(models.MLP):
        def forward(self, x: Tensor, *others: Any) -> Tensor:
            calls.append((tuple(x.shape), others))
            return super().forward(x)

    calls: list[tuple[Any, ...]] = []
    with torch.no_grad():  # outside, which does not matter
        assert measure.parameters(prune.channels(Optional(), ratio=0.5, dataset=digits)) == 65 * 32 + 33 * 10
    assert calls == [((4, 1, 8, 8), ())] * 5  # fitting, which layers run, followed, with zeros, smaller


def test_channels_pay_after_fine_tuning(digits: Dataset, trained: nn.Module) -> None:
    smaller = prune.channels(trained, ratio=0.5, dataset=digits)
    tuned = prune.fine_tune(smaller, digits, epochs=4, lr=3e-3)
    dense = measure.accuracy(trained, digits.validation).value
    assert measure.accuracy(tuned, digits.validation).value > dense - 0.04
    assert measure.parameters(tuned) < measure.parameters(trained) / 3


# Bad input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ratio": 1.0}, r"must lie in \[0, 1\); got 1.0"),
        ({"ratio": -0.5}, r"must lie in \[0, 1\); got -0.5"),
        ({"ratio": {"conv1": 1.0}}, r"must lie in \[0, 1\); got 1.0"),
        ({"ratio": {"fc2": 0.5}}, "ratio names fc2, which cannot be pruned; allowed: conv1, conv2, fc1|allowed: "),
        ({"ratio": 0.5, "scope": "all"}, "scope must be one of global, layer; got 'all'"),
        ({"ratio": 0.5, "importance": "l2"}, "importance must be one of magnitude, taylor, random; got 'l2'"),
    ],
)
def test_channels_refuses(digits: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        prune.channels(models.ConvNet(channels=(4, 4)), dataset=digits, **settings)
    with pytest.raises(ValueError, match="MLP has no channels to remove; it needs a layer between input and output"):
        prune.channels(models.MLP((64, 10)), ratio=0.5, dataset=digits)


def test_channels_of_a_model_for_other_labels_still_shrink(digits: Dataset) -> None:
    """Magnitude reads the shape of the inputs only."""
    colour = data.from_arrays(np.zeros((30, 3, 9, 7)), np.arange(30) % 2)
    smaller = prune.channels(models.ConvNet(3, (9, 7)), ratio=0.5, dataset=colour)
    assert training.predict(smaller, colour.test.inputs).shape == (len(colour.test), 10)
