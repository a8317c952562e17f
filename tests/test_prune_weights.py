"""Scores, masks and fine-tuning: prune.scores and prune.unstructured."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as peer

from kit import data, files, measure, models, prune, training
from kit.data import Dataset
from tests.nets import same

RATIOS = (0.0, 0.001, 0.1, 0.5, 0.9, 0.95, 0.999)


def zeros(model: nn.Module) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in prune.masks(model).items()}


def sizes(model: nn.Module) -> dict[str, int]:
    return {name: w.numel() for name, w in prune.prunable(model).items()}


def layers(model: nn.Module) -> list[tuple[Any, str]]:
    return [(m, "weight") for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """130 training samples: two batches of 64 and one of two."""
    return data.Dataset("few", digits.train.first(130), digits.validation, digits.test, digits.class_names)


# Which weights, and how many


@pytest.mark.parametrize("scope", prune.SCOPES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_magnitude_is_torchs(trained: nn.Module, ratio: float, scope: Any) -> None:
    theirs = copy.deepcopy(trained)
    if scope == "global":
        peer.global_unstructured(layers(theirs), pruning_method=peer.L1Unstructured, amount=ratio)
    else:
        for module, name in layers(theirs):
            peer.l1_unstructured(module, name, amount=ratio)
    ours = prune.weights(trained, ratio=ratio, scope=scope)
    for (module, _), (own, _), mask in zip(layers(theirs), layers(ours), prune.masks(ours).values(), strict=True):
        assert torch.equal(module.weight_mask.bool(), mask)
        assert torch.equal(module.weight, own.weight)
    assert same(prune.apply_masks(trained, prune.masks(ours)), ours)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("importance", [*prune.IMPORTANCES, "ties"])
def test_counts_are_exact(trained: nn.Module, digits: Dataset, ratio: float, importance: Any) -> None:
    net = copy.deepcopy(trained)
    if importance == "ties":
        importance = "magnitude"
        for w in prune.prunable(net).values():
            nn.init.constant_(w, 0.5)
    settings: dict[str, Any] = {"ratio": ratio, "importance": importance, "dataset": digits}
    assert sum(zeros(prune.weights(net, **settings)).values()) == round(ratio * sum(sizes(net).values()))
    by_layer = zeros(prune.weights(net, scope="layer", **settings))
    assert by_layer == {name: round(ratio * size) for name, size in sizes(net).items()}


def test_higher_ratios_keep_a_subset(trained: nn.Module, digits: Dataset) -> None:
    for importance in prune.IMPORTANCES:
        ranking = prune.rank(prune.score_weights(trained, importance, dataset=digits))
        for low, high in itertools.pairwise(RATIOS):
            more, fewer = ranking.masks(low), ranking.masks(high)
            assert all(not (fewer[name] & ~more[name]).any() for name in more)


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.1, 100.0])
def test_threshold(trained: nn.Module, threshold: float) -> None:
    pruned = prune.weights(trained, threshold=threshold)
    for (name, before), after in zip(prune.prunable(trained).items(), prune.prunable(pruned).values(), strict=True):
        assert torch.equal(after, torch.where(before.abs() < threshold, 0.0, before)), name
    assert torch.equal(pruned.get_parameter("fc1.bias"), trained.get_parameter("fc1.bias"))


def test_a_ratio_for_each_layer(trained: nn.Module) -> None:
    pruned, count = prune.weights(trained, ratio={"conv2.weight": 0.5, "fc2.weight": 0.9}), sizes(trained)
    wanted = {"conv2.weight": round(0.5 * count["conv2.weight"]), "fc2.weight": round(0.9 * count["fc2.weight"])}
    assert zeros(pruned) == {**dict.fromkeys(count, 0), **wanted}
    alone = prune.weights(trained, ratio=0.5, scope="layer")
    assert torch.equal(pruned.get_parameter("conv2.weight"), alone.get_parameter("conv2.weight"))


def test_what_is_prunable() -> None:
    """No embedding, nor a head that shares its weight; what is shared by two layers is named once."""
    net = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    net[3].weight, net[4].weight = net[2].weight, net[0].weight
    assert list(prune.prunable(net)) == ["2.weight"]


# Scores


class Double(nn.Module):
    """A smooth network in double precision, so that differences of its loss are exact enough to compare."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5, dtype=torch.float64), nn.Linear(5, 3, dtype=torch.float64)
        models.initialise(self, seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x.double())))


def points(width: int = 4) -> Dataset:
    labels = np.arange(90) % 3
    return data.from_arrays(np.random.default_rng(0).normal(size=(90, width)) + labels[:, None], labels)


def test_taylor_is_the_loss_change_to_first_order() -> None:
    """|w g| against finite differences: the loss with w scaled by (1 - h), over h, for each weight in turn."""
    net, dataset, h = Double(), points(), 1e-5
    scores = prune.score_weights(net, "taylor", dataset=dataset)

    def loss(model: nn.Module) -> float:
        return float(F.cross_entropy(model(dataset.train.inputs), dataset.train.labels).detach())

    for name, score in scores.items():
        for place in np.ndindex(*score.shape):
            ends = []
            for factor in (1 - h, 1 + h):
                moved = copy.deepcopy(net)
                moved.get_parameter(name).data[place] *= factor
                ends.append(loss(moved))
            assert abs(ends[0] - ends[1]) / (2 * h) == pytest.approx(float(score[place]), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("train_mode", [True, False])
@pytest.mark.parametrize("build", [models.ConvNet, models.ResNet])
def test_taylor_is_weight_times_gradient(few: Dataset, build: Callable[..., nn.Module], train_mode: bool) -> None:
    """Of the model as it is used: in evaluation mode, whatever mode it is in."""
    net = build().train(train_mode)
    scores = prune.score_weights(net, "taylor", dataset=few)
    probe = copy.deepcopy(net).eval()
    F.cross_entropy(probe(few.train.inputs), few.train.labels).backward()
    for name, w in prune.prunable(probe).items():
        assert w.grad is not None
        assert torch.allclose(scores[name], (w * w.grad).abs(), atol=1e-7)


def test_taylor_leaves_gradients_modes_and_statistics_alone(digits: Dataset) -> None:
    net = models.ResNet(widths=(4,)).train()
    net.stem_bn.eval()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.head.requires_grad_(False)
    before = copy.deepcopy(net)
    with torch.no_grad():
        scores = prune.score_weights(net, "taylor", dataset=digits)
    assert scores["head.weight"].any()  # frozen, but scored
    assert not net.head.weight.requires_grad
    assert (net.training, net.stem_bn.training) == (True, False)
    assert all(bool((p.grad == 1).all()) for p in net.parameters() if p.grad is not None)
    assert same(net, before)


def test_random_depends_on_the_seed_only(trained: nn.Module) -> None:
    first, again, other = (prune.score_weights(trained, "random", seed=seed) for seed in (1, 1, 2))
    elsewhere = prune.score_weights(models.ConvNet(channels=(8, 16), hidden=32, seed=9), "random", seed=1)
    for name, score in first.items():
        assert torch.equal(score, again[name]) and torch.equal(score, elsewhere[name])
        assert not torch.equal(score, other[name])
    mean = torch.cat([score.flatten() for score in first.values()]).mean()
    assert abs(float(mean) - 0.5) < 0.02


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
def test_what_is_zero_goes_first(digits: Dataset, importance: Any) -> None:
    """Even before weights that no gradient reaches: some pixels of the digits are always 0, and a layer is not used."""
    net = models.MLP()
    net.register_module("unused", nn.Linear(3, 3))
    last_row = {"layers.0.weight": torch.arange(64)[:, None].expand(64, 64) < 60}
    pruned = prune.apply_masks(net, last_row)
    scores = prune.score_weights(pruned, importance, dataset=digits)
    for name, w in prune.prunable(pruned).items():
        assert torch.equal(scores[name] == 0, w == 0)
        assert (scores[name] >= 0).all()
    if importance == "taylor":
        assert float(scores["unused.weight"].max()) < 1e-30
        assert float(scores["layers.1.weight"].mean()) > 1e-6
    again = prune.weights(pruned, ratio=257 / 4745, importance=importance, dataset=digits)
    assert sum(zeros(again).values()) == 257  # the 256 and one more


# Nothing but zeros


@pytest.mark.parametrize("train_mode", [True, False])
@pytest.mark.parametrize("importance", prune.IMPORTANCES)
def test_the_given_model_is_untouched(few: Dataset, train_mode: bool, importance: Any) -> None:
    net = models.ResNet(widths=(4,)).train(train_mode)
    net.stem.requires_grad_(False)
    before = copy.deepcopy(net)
    pruned = prune.weights(net, ratio=0.5, importance=importance, dataset=few)
    tuned = prune.fine_tune(pruned, few, epochs=1)
    assert same(net, before)
    for model in (net, pruned, tuned):
        assert type(model) is models.ResNet
        assert {m.training for m in model.modules()} == {train_mode}
        assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
        assert all(p.is_leaf for p in model.parameters())
    assert all(p.grad is None for p in net.parameters())
    weights = prune.prunable(net).keys()
    old, new = ({k: v for k, v in model.state_dict().items() if k not in weights} for model in (net, pruned))
    assert all(torch.equal(old[name], new[name]) for name in old)  # biases and statistics


def test_a_pruned_model_saves_and_loads_like_any_other(trained: nn.Module, tmp_path: Path) -> None:
    pruned = prune.weights(trained, ratio=0.9)
    assert list(pruned.state_dict()) == list(trained.state_dict())
    for sparse in (True, False):
        size = files.write(pruned, tmp_path / "net", sparse=sparse)
        assert (size < measure.dense_bytes(pruned) / 1.5) is sparse
        fresh = models.ConvNet(channels=(8, 16), hidden=32, seed=5)
        files.load_into(fresh, tmp_path / "net")
        assert same(fresh, pruned)


def test_tied_weights_stay_tied(few: Dataset) -> None:
    net = models.MLP((64, 64, 64, 10))
    net.layers[1].weight = net.layers[0].weight
    pruned: Any = prune.weights(net, ratio=0.5)
    tuned: Any = prune.fine_tune(pruned, few, epochs=1)
    for model in (pruned, tuned):
        assert model.layers[1].weight is model.layers[0].weight
        assert sum(zeros(model).values()) == (64 * 64 + 640) / 2
    assert not same(pruned, tuned)


# Masks held in training


class Steps(training.Callback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_batch_end(self, progress: training.Progress) -> None:
        self.steps.append({name: w.detach().clone() for name, w in progress.model.named_parameters()})


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_kept_weights_move_as_with_torchs_masks(
    trained: nn.Module, few: Dataset, optimiser: Any, weight_decay: float
) -> None:
    """Step by step against torch.nn.utils.prune, where the mask is part of the forward pass."""
    pruned, steps = prune.weights(trained, ratio=0.8), Steps()
    held = prune.masks(pruned)
    settings: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "optimiser": optimiser, "weight_decay": weight_decay}
    prune.fine_tune(pruned, few, callbacks=[steps], **settings)
    theirs, peer_steps = copy.deepcopy(trained), Steps()
    for (module, name), mask in zip(layers(theirs), held.values(), strict=True):
        peer.custom_from_mask(module, name, mask)
    training.fit(theirs, few, callbacks=[peer_steps], **settings)
    assert len(steps.steps) == len(peer_steps.steps) == 9
    for ours, reference in zip(steps.steps, peer_steps.steps, strict=True):
        for name, w in ours.items():
            mask = held.get(name, torch.ones_like(w, dtype=torch.bool))
            wanted = reference.get(name, reference.get(f"{name}_orig"))
            assert wanted is not None
            assert torch.allclose(w[mask], wanted[mask], atol=2e-5)
            assert not w[~mask].any()
    last = steps.steps[-1]["conv2.weight"]
    assert not torch.allclose(last, pruned.get_parameter("conv2.weight"), atol=1e-3)  # it did move


def test_hold_masks_writes_zeros_over_nan() -> None:
    net = models.MLP((3, 2))
    mask = torch.tensor([[True, False, True], [False, True, True]])
    w: Any = nn.init.constant_(net.get_parameter("layers.0.weight"), torch.nan)
    prune.HoldMasks({"layers.0.weight": mask}).on_batch_end(training.Progress(net, 0, 1, 1, 1, 0.0, 0.0))
    assert torch.equal(torch.isnan(w), mask)
    assert not w[~mask].any()


def test_fine_tuning_wins_accuracy_back(trained: nn.Module, digits: Dataset) -> None:
    pruned = prune.weights(trained, ratio=0.95)
    tuned = prune.fine_tune(pruned, digits, epochs=2, lr=3e-3)
    before, after = (measure.accuracy(model, digits.validation).value for model in (pruned, tuned))
    assert after > before + 0.1
    assert zeros(tuned) == zeros(pruned)


def test_magnitude_beats_its_rival(trained: nn.Module, digits: Dataset) -> None:
    def accuracy(importance: Any, seed: int = 0) -> float:
        pruned = prune.weights(trained, ratio=0.8, importance=importance, dataset=digits, seed=seed)
        return measure.accuracy(pruned, digits.validation).value

    rival = [accuracy("random", seed) for seed in range(5)]
    assert min(accuracy("magnitude"), accuracy("taylor")) > max(rival) + 0.1


# Bad input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ratio": 1.0}, r"ratio, the share to remove, must lie in \[0, 1\); got 1.0"),
        ({"ratio": -0.1}, r"ratio, .*, must lie in \[0, 1\); got -0.1"),
        ({"ratio": float("nan")}, r"ratio, .*, must lie in \[0, 1\); got nan"),
        *(
            ({"ratio": ratio}, "ratio, the share to remove, must be a number; got")
            for ratio in ("0.5", [0.5], {"fc1.weight": None})
        ),
        ({"ratio": {"fc1.weight": 1.5}}, r"ratio, .*, must lie in \[0, 1\); got 1.5"),
        ({"ratio": {"fc1": 0.5}}, "ratio names fc1, which cannot be pruned; allowed: conv1.weight, .*fc2.weight"),
        ({"ratio": 0.5, "scope": "local"}, "scope must be one of global, layer; got 'local'"),
        ({"threshold": 0.5, "scope": "local"}, "scope must be one of global, layer; got 'local'"),
        ({"ratio": {"fc1.weight": 0.5}, "scope": "x"}, "scope must be one of global, layer; got 'x'"),
        ({"ratio": 0.5, "importance": "l1"}, "importance must be one of magnitude, taylor, random; got 'l1'"),
        ({"ratio": 0.5, "importance": "taylor"}, "importance 'taylor' needs a dataset"),
        ({}, "give either ratio or threshold; got ratio=None and threshold=None"),
        ({"ratio": 0.5, "threshold": 0.1}, "give either ratio or threshold"),
        ({"threshold": -1.0}, "threshold must be 0 or more; got -1.0"),
        ({"threshold": float("inf")}, "threshold must be 0 or more; got inf"),
        ({"threshold": 0.1, "importance": "random"}, "threshold is for absolute weights: .* got 'random'"),
    ],
)
def test_weights_refuses(trained: nn.Module, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        prune.weights(trained, **settings)


def test_what_is_no_weight_or_no_mask_is_refused(trained: nn.Module) -> None:
    for model in (nn.Sequential(nn.ReLU()), nn.Sequential(nn.BatchNorm2d(1), nn.PReLU()), nn.Embedding(3, 4)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has nothing to prune; it needs a weight"):
            prune.weights(model, ratio=0.5)
    for name, mask in (("fc3.weight", torch.ones(1).bool()), ("fc1.weight", torch.ones(3).bool())):
        with pytest.raises(ValueError, match=f"masks: '{name}' of shape .* fits none of the prunable weights"):
            prune.apply_masks(trained, {name: mask})
    with pytest.raises(ValueError, match="'fc2.weight' must hold bool, .* got torch.float32"):
        prune.apply_masks(trained, {"fc2.weight": torch.ones(10, 32)})
