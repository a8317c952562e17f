"""Scores, masks and fine-tuning: prune.scores and prune.unstructured."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as peer

from kit import data, files, measure, models, prune, training
from kit.data import Dataset
from kit.prune import unstructured
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scope", prune.SCOPES)
@pytest.mark.parametrize("many", [1, 100, 10**6])
def test_a_cut_is_what_a_ranking_leaves(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, scope: Any, many: int
) -> None:
    monkeypatch.setattr(unstructured, "MANY", many)
    generator = torch.Generator().manual_seed(0)
    ties = torch.randint(0, 40, (50, 60), generator=generator) / 7
    odd = torch.tensor([0.0, 1e-45, 3e38, float("inf"), 1.0, float("nan"), float("nan")] * 3)[:, None]
    scores = {"a": ties.to(dtype), "odd": odd.to(dtype), "b": torch.rand(9, 31, generator=generator).to(dtype)}
    ranking = unstructured.rank(scores, scope)
    for ratio in (0.0, 0.001, 0.1, 0.37, 0.5, 0.9, 0.99, 0.9999):
        found = unstructured.cut(scores, ratio, scope)
        assert all(torch.equal(found[name], mask) for name, mask in ranking.masks(ratio).items())
    some = {"a": 0.4, "odd": 0.9}  # by name, with one that loses nothing
    found, expected = unstructured.cut(scores, some, "layer"), unstructured.rank(scores, "layer").masks(some)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())
    signed = {"a": scores["a"] - 3, "zeros": torch.tensor([[0.0, -0.0, 0.0, -0.0, -1.0]]).to(dtype)}
    found, expected = unstructured.cut(signed, 0.6, scope), unstructured.rank(signed, scope).masks(0.6)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_many_weights_are_ranked_as_few_are(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 40, (50, 60), generator=generator) / 7  # many ties
    odd = torch.tensor([0.0, 1e-45, 3e38, float("inf"), 1.0, float("nan")] * 2)
    for scores in ({"a": drawn.to(dtype), "b": odd[:, None].to(dtype)}, {"a": (drawn - 3).to(dtype)}):
        for scope in prune.SCOPES:
            monkeypatch.setattr(unstructured, "MANY", 10**9)
            few = unstructured.rank(scores, scope).ranks
            monkeypatch.setattr(unstructured, "MANY", 0)
            many = unstructured.rank(scores, scope).ranks
            assert all(torch.equal(few[name], many[name]) for name in scores)
    assert few["a"].flatten()[drawn.argmin()] == 0  # below 0, too


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


class Tables(nn.Module):
    """Parameters with two or more dimensions that no layer multiplies by, before layers of all kinds that do."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.ones(1, 1, 8)), nn.Parameter(torch.randn(1, 9, 8))
        self.bias_table = nn.Embedding(5, 2)
        self.norm, self.gate = nn.LayerNorm([1, 8, 8]), nn.ParameterList([torch.randn(8, 8)])
        self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, add_bias_kv=True, batch_first=True)
        self.whole, self.memory = nn.MultiheadAttention(8, 2), nn.LSTM(8, 8, proj_size=4)
        self.cell, self.pair, self.up = nn.GRUCell(3, 4), nn.Bilinear(2, 3, 4), nn.ConvTranspose1d(2, 3, 4)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).flatten(1)) * self.token.mean() + self.positions.sum() + self.gate[0].sum()


def test_only_what_multiplies_is_prunable() -> None:
    """Neither scales of a normalisation, nor class tokens, nor tables: they would take up the ratio."""
    attention = [f"attention.{part}" for part in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")]
    memory = [f"memory.weight_{part}_l0" for part in ("ih", "hh", "hr")]
    others = ["whole.in_proj_weight", "whole.out_proj.weight", *memory, "cell.weight_ih", "cell.weight_hh"]
    net = Tables()
    assert list(prune.prunable(net)) == [*attention, *others, "pair.weight", "up.weight", "head.weight"]
    small = nn.Sequential(nn.LayerNorm([1, 8, 8]), nn.Flatten(), nn.Linear(64, 3))
    assert zeros(prune.weights(small, ratio=0.3)) == {"2.weight": round(0.3 * 192)}


def test_other_parameters_are_pruned_by_name_and_can_be_held(few: Dataset) -> None:
    net = Tables()
    before = copy.deepcopy(net)
    pruned = prune.weights(net, ratio={"positions": 0.5, "head.weight": 0.25}, importance="taylor", dataset=few)
    assert int((pruned.get_parameter("positions") == 0).sum()) == 36 and zeros(pruned)["head.weight"] == 160
    assert same(net, before) and "positions" not in prune.masks(pruned)
    tuned = prune.fine_tune(pruned, few, epochs=1, also=["positions"])
    assert torch.equal(tuned.get_parameter("positions") == 0, pruned.get_parameter("positions") == 0)
    assert not torch.equal(tuned.get_parameter("positions"), pruned.get_parameter("positions"))
    for name in ("norm", "head.bias"):  # a module, and one dimension
        with pytest.raises(ValueError, match=f"ratio names {name}, which cannot be pruned; allowed: "):
            prune.weights(net, ratio={name: 0.5})
    alone = nn.ParameterDict({"w": torch.randn(4, 4)})
    with pytest.raises(
        ValueError, match=r"ParameterDict has nothing to prune; .*: prune.weights\(model, ratio=\{'w': 0.5\}"
    ):
        prune.weights(alone, ratio=0.5)
    assert int((prune.weights(alone, ratio={"w": 0.5})["w"] == 0).sum()) == 8  # type: ignore[index]


# Weights that are made from other tensors


def masked(layer: nn.Module) -> nn.Module:
    peer.random_unstructured(layer, "bias", 0.5)
    return peer.l1_unstructured(peer.l1_unstructured(layer, "weight", 0.3), "weight", 0.3)  # a chain of two


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def doubled(layer: nn.Module) -> nn.Module:
    for name in ("weight", "bias"):
        nn.utils.parametrize.register_parametrization(layer, name, Doubled())
    return layer


FOLDED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "two of one's own": doubled,
    "older weight norm": nn.utils.weight_norm,
    "older spectral norm": nn.utils.spectral_norm,
    "torch's masks": masked,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", FOLDED.values(), ids=FOLDED)
def test_made_weights_are_pruned_as_what_they_are(few: Dataset, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Folded in the copy, so that an emptied row is 0, not 0/0; the given model keeps what it had."""
    first = wrap(nn.Linear(64, 12))
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(12, 10)).train()
    first.requires_grad_(False)
    net(few.train.inputs)  # what it leaves behind has a graph
    before, x = copy.deepcopy(net.eval().state_dict()), few.validation.inputs
    want = net(x).detach()
    net.train()
    pruned: Any = prune.weights(net, ratio=0.0)
    assert torch.allclose(pruned.eval()(x), want, atol=1e-5) and type(pruned[1]) is nn.Linear
    pruned.load_state_dict(pruned.state_dict())
    assert {name for name, _ in pruned.named_parameters()} == {f"{at}.{kind}" for at in (1, 3) for kind in LINEAR}
    assert [p.requires_grad for p in pruned[1].parameters()] == [False] * 2
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items()) and net.training
    assert list(net.state_dict()) == list(before)
    assert torch.allclose(net.eval()(x), want, atol=1e-5)
    empty: Any = prune.weights(net, ratio={"1.weight": 0.999})
    assert int((empty[1].weight.count_nonzero(1) == 0).sum()) >= 11  # rows
    assert empty.eval()(x).isfinite().all()
    tuned: Any = prune.fine_tune(empty.requires_grad_(True), few, epochs=1)
    assert zeros(tuned)["1.weight"] == zeros(empty)["1.weight"] and not same(tuned, empty)


LINEAR = ("weight", "bias")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_recurrent_layer_computes_with_its_folded_weight(wrap: Callable[..., Any]) -> None:
    net, x = wrap(nn.LSTM(6, 4), "weight_hh_l0"), torch.randn(5, 2, 6)
    want, pruned = net(x)[0], prune.weights(net, ratio={"weight_hh_l0": 0.99})
    assert torch.allclose(prune.plain(net)(x)[0], want, atol=1e-6)
    by_hand = nn.LSTM(6, 4)
    by_hand.load_state_dict(pruned.state_dict())
    assert torch.allclose(pruned(x)[0], by_hand(x)[0], atol=1e-6)
    assert not torch.allclose(pruned(x)[0], want, atol=1e-3)


def test_what_a_forward_pass_left_behind_does_not_stop_the_copy(trained: nn.Module, few: Dataset) -> None:
    net: Any = models.MLP((64, 10))
    net.seen = [net(few.train.inputs), {"last": net(few.train.inputs)}]
    assert zeros(prune.weights(net, ratio=0.5)) == {"layers.0.weight": 320}
    net.seen = (each for each in "ab")
    with pytest.raises(ValueError, match=r"model: MLP cannot be copied \(cannot pickle .generator. object\)"):
        prune.weights(net, ratio=0.5)
    net = nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"masks: 'weight' is no parameter .* train prune.plain\(model\)"):
        prune.HoldMasks(prune.masks(net)).on_batch_end(training.Progress(net, 0, 1, 1, 1, 0.0, 0.0))


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


def test_taylor_takes_a_batch_at_a_time_and_can_be_cancelled(digits: Dataset) -> None:
    net, cancel, sizes = models.MLP((64, 10)), Event(), []

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        if sum(sizes) > 200:
            cancel.set()

    net.register_forward_pre_hook(count)
    with pytest.raises(training.Cancelled, match="after the gradients of 256 of 898 samples"):
        prune.weights(net, ratio=0.5, importance="taylor", dataset=digits, cancel=cancel)
    assert max(sizes) <= 64


def test_gradients_that_are_none_or_no_numbers_rank_nothing(few: Dataset) -> None:
    net = models.MLP((64, 10))
    net.register_forward_hook(lambda _, __, logits: logits.detach())
    with pytest.raises(ValueError, match=r"'taylor': no gradient of the model \(element 0 of .*\); use 'magnitude'"):
        prune.weights(net, ratio=0.5, importance="taylor", dataset=few)
    net = models.MLP((64, 10))
    with torch.no_grad():
        net.get_parameter("layers.0.weight")[0, :9] = torch.nan
    with pytest.raises(ValueError, match="'taylor': the gradients of the model hold NaN or infinity; use 'magnitude'"):
        prune.weights(net, ratio=0.5, importance="taylor", dataset=few)
    kept = prune.weights(net, ratio=0.5).get_parameter("layers.0.weight")
    assert int(kept.isnan().sum()) == 9 and int((kept == 0).sum()) == 320  # what cannot be compared is not removed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("importance", prune.IMPORTANCES)
def test_other_precisions(few: Dataset, importance: Any, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10)).to(dtype)
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    pruned = prune.weights(net, ratio=0.5, importance=importance, dataset=few)
    assert sum(zeros(pruned).values()) == 1110 and {p.dtype for p in pruned.parameters()} == {dtype}
    scores = prune.score_weights(net, importance, dataset=few)["1.weight"]
    if importance == "taylor":  # small products are told apart in half precision, too
        assert len(scores.unique()) > 1000


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


def test_random_knows_nothing_of_weights_that_were_drawn_by_the_same_seed() -> None:
    net = models.MLP((64, 64, 10), seed=3)
    scores = prune.score_weights(net, "random", seed=3)
    for name, weight in prune.prunable(net).items():
        both = torch.stack([scores[name].flatten(), weight.detach().flatten()])
        assert abs(torch.corrcoef(both)[0, 1]) < 5 / weight.numel() ** 0.5


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
        ({"threshold": "0.1"}, "threshold must be a number; got '0.1'"),
        ({"ratio": 0.5, "importance": "random", "seed": 1.5}, "seed must be a whole number; got 1.5"),
        ({"ratio": 0.5, "importance": "taylor", "dataset": [1]}, r"dataset must be a Dataset.*; got \[1\]"),
    ],
)
def test_weights_refuses(trained: nn.Module, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        prune.weights(trained, **settings)


def test_what_is_no_weight_or_no_mask_is_refused(trained: nn.Module) -> None:
    no_model: Any = models.MLP
    for call in (prune.prunable, prune.masks, prune.plain, partial(prune.weights, ratio=0.5)):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module; got <class .*MLP"):
            call(no_model)
    for model in (nn.Sequential(nn.ReLU()), nn.Sequential(nn.BatchNorm2d(1), nn.PReLU()), nn.Embedding(3, 4)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has nothing to prune; it needs a weight"):
            prune.weights(model, ratio=0.5)
    for wrong, sentence in (
        (["fc1.weight"], r"masks must be a dict with a tensor for each weight name; got \['fc1"),
        ({"fc1.weight": [True]}, r"masks: 'fc1.weight' must be a Tensor; got \[True\]"),
    ):
        with pytest.raises(TypeError, match=sentence):
            prune.apply_masks(trained, wrong)  # type: ignore[arg-type]
    for name, mask in (("fc3.weight", torch.ones(1).bool()), ("fc1.weight", torch.ones(3).bool())):
        with pytest.raises(ValueError, match=f"masks: '{name}' of shape .* fits none of the prunable weights"):
            prune.apply_masks(trained, {name: mask})
    with pytest.raises(ValueError, match="'fc2.weight' must hold bool, .* got torch.float32"):
        prune.apply_masks(trained, {"fc2.weight": torch.ones(10, 32)})
