"""Where, when and from which weights: sensitivity, schedules, lottery tickets."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kit import data, measure, models, prune, training
from kit.data import Dataset
from kit.measure import Estimate
from tests.nets import already_set, same


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """256 training samples, four batches of 64, and a small validation split."""
    return data.Dataset("few", digits.train.first(256), digits.validation.first(100), digits.test, digits.class_names)


def zeros(model: nn.Module) -> int:
    return sum(int((~mask).sum()) for mask in prune.masks(model).values())


# Sensitivity and allocation


def test_scan_prunes_one_layer_at_a_time(trained: nn.Module, digits: Dataset) -> None:
    ratios = (0.0, 0.5, 0.95)
    found = prune.scan(trained, digits, ratios=ratios)
    assert found.ratios == ratios
    assert found.sizes == {name: w.numel() for name, w in prune.prunable(trained).items()}
    dense = measure.accuracy(trained, digits.validation)
    for name, estimates in found.accuracy.items():
        assert estimates[0] == dense
        for ratio, estimate in zip(ratios, estimates, strict=True):
            alone = prune.weights(trained, ratio={name: ratio})
            assert estimate == measure.accuracy(alone, digits.validation)
    assert min(estimates[-1].value for estimates in found.accuracy.values()) < dense.value - 0.1
    pruned = prune.weights(trained, ratio=prune.allocate(found, 0.7))
    assert zeros(pruned) / sum(found.sizes.values()) == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_scan_takes_every_importance(trained: nn.Module, few: Dataset, importance: Any) -> None:
    found = prune.scan(trained, few, ratios=(0, 0.9), importance=importance, seed=2)
    alone = prune.weights(trained, ratio={"fc1.weight": 0.9}, importance=importance, dataset=few, seed=2)
    assert found.accuracy["fc1.weight"][1] == measure.accuracy(alone, few.validation)


def test_scan_refuses_and_cancels(trained: nn.Module, few: Dataset) -> None:
    for ratios in ((), (0.5, 0.9), (0.0, 0.9, 0.5), (0.0, 0.5, 0.5), (0.0, 1.0)):
        with pytest.raises(ValueError, match=r"ratios must ascend from 0|must lie in \[0, 1\)"):
            prune.scan(trained, few, ratios=ratios)
    array: Any = np.array([0, 0.5])
    assert prune.scan(trained, few, ratios=array) == prune.scan(trained, few, ratios=[0.0, 0.5])
    with pytest.raises(training.Cancelled):
        prune.scan(trained, few, cancel=already_set())


def test_a_scan_can_renew_the_statistics_of_each_pruned_model(few: Dataset) -> None:
    net = models.ResNet(widths=(4,))
    training.fit(net, few, epochs=2, lr=1e-2)
    found = prune.scan(net, few, ratios=(0, 0.9), renew=True)
    for name, estimates in found.accuracy.items():
        pruned = training.renew_statistics(prune.weights(net, ratio={name: 0.9}), few.train.inputs)
        assert estimates[1] == measure.accuracy(pruned, few.validation)
    assert found != prune.scan(net, few, ratios=(0, 0.9))


anything: Any = prune  # takes what no type checker lets through


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda net, few: anything.scan(net, few, ratios=0.5), "ratios must be a list of numbers; got 0.5"),
        (lambda net, few: anything.scan(net, few, ratios=(0, "0.5")), "each of ratios must be a number; got '0.5'"),
        (lambda net, few: anything.scan(net, few, ratios=(0, 0.5), seed=0.5), "seed must be a whole number; got 0.5"),
        (lambda net, few: anything.scan(net, few, renew="yes"), "renew must be a bool; got 'yes'"),
        (lambda net, few: prune.scan(net, few.train), "dataset must be a Dataset, .*; got Split"),
        (lambda net, few: anything.allocate(made_up(a=(0, 0.1, 0.2)), "0.5"), "ratio must be a number; got '0.5'"),
        (lambda net, few: anything.schedule("cubic", {"a": 0.5}, 3), "ratio, .*, must be a number; got {'a': 0.5}"),
        (lambda net, few: anything.schedule("cubic", 0.5, 2.0), "rounds must be a whole number; got 2.0"),
        (lambda net, few: iterate(net, few, ratio="0.5"), "ratio, the share to remove, must be a number; got '0.5'"),
        (lambda net, few: iterate(net, few, epochs=1.0), "epochs, .*, must be a whole number; got 1.0"),
        (lambda net, few: iterate(net, few, seed=None), "seed must be a whole number; got None"),
        (lambda net, few: iterate(net, few, lr="fast"), "lr must be a number; got 'fast'"),
        (lambda net, few: run(few, net, ratio=[0.5]), r"ratio, .*, must be a number; got \[0.5\]"),
        (lambda net, few: run(few, net, rounds=True), "rounds must be a whole number; got True"),
        (lambda net, few: run(few, net, epochs="3"), "epochs must be a whole number; got '3'"),
        (lambda net, few: run(few, net, seed=1.5), "seed must be a whole number; got 1.5"),
        (lambda net, few: run(few, net, lr=None), "lr must be a number; got None"),
        (lambda net, few: anything.shuffled({}, "x"), "seed must be a whole number; got 'x'"),
    ],
)
def test_arguments_of_another_type_are_refused_in_a_sentence(few: Dataset, call: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=f"^{sentence}"):
        call(models.MLP((64, 10)), few)


def iterate(net: nn.Module, few: Dataset, **wrong: Any) -> prune.Iterative:
    return prune.iterative(net, few, **{"ratio": 0.5, "rounds": 1, "epochs": 1, **wrong})


def made_up(**drops: tuple[float, ...]) -> prune.Sensitivity:
    """Accuracy 1 less the given drops at ratios 0, 0.5 and 0.9; layers of 100, 200, ... weights."""
    return prune.Sensitivity(
        (0.0, 0.5, 0.9),
        {name: tuple(Estimate(1 - drop, 0, 1, 9) for drop in curve) for name, curve in drops.items()},
        {name: 100 * (index + 1) for index, name in enumerate(drops)},
    )


def test_allocation_hits_the_target_and_only_grows() -> None:
    found = made_up(tough=(0.0, 0.0, 0.1), tender=(0.0, 0.4, 0.8), bumpy=(0.0, 0.2, 0.1))
    before = dict.fromkeys(found.sizes, 0.0)
    for ratio in np.linspace(0, 0.9, 31).tolist():
        shares = prune.allocate(found, ratio)
        assert sum(shares[name] * size for name, size in found.sizes.items()) / 600 == pytest.approx(ratio, abs=1e-3)
        assert all(before[name] - 1e-9 <= share <= 0.9 for name, share in shares.items())
        assert shares["tough"] >= shares["tender"] - 1e-9
        before = shares


def test_allocation_costs_every_layer_the_same() -> None:
    curves = {"tough": (0.0, 0.1, 0.9), "tender": (0.0, 0.4, 0.8)}
    shares = prune.allocate(made_up(**curves), 0.6)
    costs = [np.interp(shares[name], (0.0, 0.5, 0.9), drops) for name, drops in curves.items()]
    assert costs[0] == pytest.approx(costs[1], abs=1e-4)
    for ratio in (-0.1, 0.91):
        with pytest.raises(ValueError, match=r"ratio must lie in \[0, 0.9\], the scanned range; got"):
            prune.allocate(made_up(**curves), ratio)


# Schedules


@pytest.mark.parametrize("rounds", [1, 2, 5, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95])
def test_schedules_in_closed_form(ratio: float, rounds: int) -> None:
    assert prune.schedule("one-shot", ratio, rounds) == (ratio,)
    steps = np.arange(1, rounds + 1)
    assert prune.schedule("linear", ratio, rounds) == pytest.approx(ratio * steps / rounds)
    # Zhu & Gupta, equation 1: s_t = s_f + (s_i - s_f) (1 - (t - t0) / (n dt))^3, with s_i = 0
    assert prune.schedule("cubic", ratio, rounds) == pytest.approx(ratio + (0 - ratio) * (1 - steps / rounds) ** 3)
    for kind in prune.SCHEDULES:
        targets = prune.schedule(kind, ratio, rounds)
        assert list(targets) == sorted(targets)
        assert targets[-1] == ratio


def test_schedule_refuses() -> None:
    for kind, ratio, rounds, sentence in (
        ("square", 0.5, 3, "kind must be one of one-shot, linear, cubic; got 'square'"),
        ("linear", 1.0, 3, r"must lie in \[0, 1\); got 1.0"),
        ("one-shot", 0.5, 0, "rounds must be 1 or more; got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            prune.schedule(kind, ratio, rounds)  # type: ignore[arg-type]


class Count(training.Callback):
    """The batches of all fits, and the zeros after each."""

    def __init__(self) -> None:
        self.zeros: list[int] = []

    def on_batch_end(self, progress: training.Progress) -> None:
        self.zeros.append(zeros(progress.model))


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("kind", prune.SCHEDULES)
def test_iterative_spends_the_same_budget_whatever_the_schedule(few: Dataset, kind: Any, importance: Any) -> None:
    net, count = models.MLP((64, 20, 10)), Count()
    before = copy.deepcopy(net)
    settings: dict[str, Any] = {"kind": kind, "importance": importance, "callbacks": [count], "lr": 1e-2}
    done = prune.iterative(net, few, ratio=0.9, rounds=3, epochs=5, **settings)
    assert len(count.zeros) == 5 * 4
    whole, targets = 64 * 20 + 200, prune.schedule(kind, 0.9, 3)
    assert [round_.ratio for round_ in done.rounds] == list(targets)
    assert sorted(set(count.zeros)) == [round(target * whole) for target in targets]
    assert count.zeros == sorted(count.zeros)
    assert zeros(done.model) == round(0.9 * whole)
    assert done.rounds[-1].after == measure.accuracy(done.model, few.validation)
    assert same(net, before)


def test_iterative_one_shot_is_prune_then_fine_tune(trained: nn.Module, few: Dataset) -> None:
    done = prune.iterative(trained, few, ratio=0.9, rounds=7, epochs=2, kind="one-shot", scope="layer", seed=3)
    pruned = prune.weights(trained, ratio=0.9, scope="layer")
    tuned = prune.fine_tune(pruned, few, epochs=2, seed=3)
    assert same(done.model, tuned)
    (only,) = done.rounds
    assert only.before == measure.accuracy(pruned, few.validation)
    assert only.after == measure.accuracy(tuned, few.validation)


def test_iterative_refuses_and_cancels(few: Dataset) -> None:
    net, settings = models.MLP((64, 10)), {"ratio": 0.5, "rounds": 1, "epochs": 1}
    before = copy.deepcopy(net)
    for model, wrong, sentence in (
        (net, {"rounds": 3, "epochs": 2}, "epochs, at least one per round, must be 3 or more; got 2"),
        (nn.Sequential(nn.Flatten()), {}, "has nothing to prune"),
        (net, {"importance": "x"}, "importance must be one of"),
    ):
        with pytest.raises(ValueError, match=sentence):
            prune.iterative(model, few, **{**settings, **wrong})  # type: ignore[arg-type]
    with pytest.raises(training.Cancelled):
        prune.iterative(net, few, **settings, cancel=already_set())  # type: ignore[arg-type]
    assert same(net, before)


# Lottery tickets


def test_shuffled_masks_keep_as_many_a_layer(trained: nn.Module) -> None:
    masks = prune.masks(prune.weights(trained, ratio=0.8))
    first, again, other = (prune.shuffled(masks, seed) for seed in (1, 1, 2))
    for name, mask in masks.items():
        assert first[name].sum() == other[name].sum() == mask.sum()
        assert first[name].shape == mask.shape
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], mask)
        assert not torch.equal(first[name], other[name])


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, int]]:
    """The weights from which each training of a lottery starts, and its epochs."""
    seen: list[tuple[nn.Module, int]] = []
    room = importlib.import_module("kit.prune.lottery")  # `prune.lottery` is the function
    real = room.fine_tune

    def spy(model: nn.Module, dataset: Dataset, *, epochs: int, **settings: Any) -> nn.Module:
        seen.append((copy.deepcopy(model), epochs))
        return real(model, dataset, epochs=epochs, **settings)

    monkeypatch.setattr(room, "fine_tune", spy)
    return seen


def run(few: Dataset, net: nn.Module, **settings: Any) -> prune.Lottery:
    return prune.lottery(net, few, **{"ratio": 0.8, "rounds": 2, "epochs": 3, "lr": 1e-2, **settings})


def test_a_ticket_starts_at_the_first_weights(few: Dataset, starts: list[tuple[nn.Module, int]]) -> None:
    net = models.MLP((64, 20, 10))
    first = copy.deepcopy(net)
    found = run(few, net)
    assert same(net, first)
    *_, dense, ticket, reinitialised, random_masks = starts
    assert all(epochs == 3 for _, epochs in starts[2:])
    assert same(dense[0], first)
    for name, w in first.named_parameters():
        mask = found.masks.get(name, torch.ones_like(w, dtype=torch.bool))
        own, other, random = (net.get_parameter(name) for net, _ in (ticket, reinitialised, random_masks))
        assert torch.equal(own, w * mask)
        assert torch.equal(other != 0, mask)
        assert mask.any() and not (other[mask] == w[mask]).any()
        assert (random != 0).sum() == mask.sum()
        assert torch.equal(random, w * (random != 0))
        assert w.ndim == 1 or not torch.equal(random != 0, mask)


def test_every_round_rewinds_and_prunes_the_same_share_of_what_is_left(
    few: Dataset, starts: list[tuple[nn.Module, int]]
) -> None:
    net = models.MLP((64, 20, 10))
    first = copy.deepcopy(net)
    found = run(few, net, ratio=0.875, rounds=3)
    whole, trainings = 64 * 20 + 200, [start for start, epochs in starts if epochs]
    for done, start in enumerate(trainings[:3]):
        assert zeros(start) == round((1 - 0.5**done) * whole)  # a half goes each round
        assert all(torch.equal(w[w != 0], first.get_parameter(name)[w != 0]) for name, w in start.named_parameters())
    assert sum(int(mask.sum()) for mask in found.masks.values()) == whole - round(0.875 * whole)
    assert all(len(course) == 3 for course in (found.dense, found.ticket, found.reinitialised, found.random_masks))


def test_one_round_is_magnitude_pruning_after_training(few: Dataset) -> None:
    net = models.MLP((64, 20, 10))
    found = run(few, net, rounds=1, scope="layer", seed=4)
    trained = prune.fine_tune(net, few, epochs=3, seed=4, lr=1e-2)
    expected = prune.masks(prune.weights(trained, ratio=0.8, scope="layer"))
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.items())
    assert found.dense[-1] == measure.accuracy(trained, few.validation)


def test_rewinding_to_a_later_epoch(few: Dataset, starts: list[tuple[nn.Module, int]]) -> None:
    net = models.MLP((64, 20, 10))
    found = run(few, net, rewind=1)
    early = prune.fine_tune(net, few, epochs=1, seed=0, lr=1e-2)
    *_, dense, ticket, reinitialised, random_masks = starts
    assert [epochs for _, epochs in (dense, ticket, reinitialised, random_masks)] == [2] * 4
    assert same(dense[0], early)
    assert same(ticket[0], prune.apply_masks(early, found.masks))
    assert len(found.ticket) == 2


def test_lottery_refuses_and_cancels(few: Dataset) -> None:
    net = models.MLP((64, 10))
    wrong: dict[str, Any] = {"rounds": (0,), "epochs": (0,), "rewind": (3, -1), "ratio": (1.0,), "scope": ("x",)}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=rf"{name}.* must (be|lie in) .*; got {value!r}"):
                run(few, net, **{name: value})
    with pytest.raises(ValueError, match="has nothing to prune"):
        run(few, nn.Flatten())
    with pytest.raises(TypeError, match="cannot initialise 1 "):
        run(few, nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(64, 10)))
    before = copy.deepcopy(net)
    with pytest.raises(training.Cancelled):
        run(few, net, cancel=already_set())
    assert same(net, before)
