"""Where, when and from which weights: sensitivity, schedules, lottery tickets."""

from __future__ import annotations

import copy
import importlib
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.data import Dataset
from kit.measure import Estimate


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """256 training samples, four batches of 64, and a small validation split."""
    return data.Dataset("few", digits.train.first(256), digits.validation.first(100), digits.test, digits.class_names)


def zeros(model: nn.Module) -> int:
    return sum(int((~mask).sum()) for mask in prune.masks(model).values())


def states(*models_: nn.Module) -> list[dict[str, Tensor]]:
    return [copy.deepcopy(model.state_dict()) for model in models_]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


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


@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_scan_takes_every_importance(trained: nn.Module, few: Dataset, importance: Any) -> None:
    found = prune.scan(trained, few, ratios=(0, 0.9), importance=importance, seed=2)
    alone = prune.weights(trained, ratio={"fc1.weight": 0.9}, importance=importance, dataset=few, seed=2)
    assert found.accuracy["fc1.weight"][1] == measure.accuracy(alone, few.validation)


@pytest.mark.parametrize("ratios", [(), (0.5, 0.9), (0.0, 0.9, 0.5), (0.0, 0.5, 0.5), (0.0, 1.0)])
def test_scan_refuses_ratios(trained: nn.Module, few: Dataset, ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"ratios must ascend from 0|must lie in \[0, 1\)"):
        prune.scan(trained, few, ratios=ratios)


def test_scan_can_be_cancelled(trained: nn.Module, few: Dataset) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(training.Cancelled):
        prune.scan(trained, few, cancel=cancel)


def made_up(**drops: tuple[float, ...]) -> prune.Sensitivity:
    """Accuracy 1 less the given drops at ratios 0, 0.5 and 0.9; layers of 100, 200, ... weights."""
    return prune.Sensitivity(
        (0.0, 0.5, 0.9),
        {name: tuple(Estimate(1 - drop, 0, 1, 9) for drop in curve) for name, curve in drops.items()},
        {name: 100 * (index + 1) for index, name in enumerate(drops)},
    )


CURVES = {"tough": (0.0, 0.0, 0.1), "tender": (0.0, 0.4, 0.8), "bumpy": (0.0, 0.2, 0.1)}


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.2, 0.5, 0.6, 0.85, 0.9])
def test_allocation_hits_the_target(ratio: float) -> None:
    found = made_up(**CURVES)
    shares = prune.allocate(found, ratio)
    assert sum(shares[name] * size for name, size in found.sizes.items()) / 600 == pytest.approx(ratio, abs=1e-3)
    assert all(0 <= share <= 0.9 for share in shares.values())
    assert shares["tough"] >= shares["tender"] - 1e-9


def test_allocation_costs_every_layer_the_same() -> None:
    found = made_up(tough=(0.0, 0.1, 0.9), tender=(0.0, 0.4, 0.8))
    shares = prune.allocate(found, 0.6)
    costs = [
        np.interp(shares[name], found.ratios, [1 - estimate.value for estimate in found.accuracy[name]])
        for name in ("tough", "tender")
    ]
    assert costs[0] == pytest.approx(costs[1], abs=1e-4)


def test_allocation_only_grows() -> None:
    found = made_up(**CURVES)
    before = prune.allocate(found, 0.0)
    for ratio in np.linspace(0, 0.9, 30):
        after = prune.allocate(found, float(ratio))
        assert all(after[name] >= before[name] - 1e-9 for name in before)
        before = after


def test_allocation_prunes_a_real_model_to_the_target(trained: nn.Module, digits: Dataset) -> None:
    found = prune.scan(trained, digits, ratios=(0, 0.5, 0.8, 0.95))
    pruned = prune.weights(trained, ratio=prune.allocate(found, 0.7))
    whole = sum(found.sizes.values())
    assert zeros(pruned) / whole == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("ratio", [-0.1, 0.91, float("nan")])
def test_a_target_out_of_reach_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 0.9\], the scanned range; got"):
        prune.allocate(made_up(**CURVES), ratio)


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


@pytest.mark.parametrize(
    ("kind", "ratio", "rounds", "sentence"),
    [
        ("square", 0.5, 3, "kind must be one of one-shot, linear, cubic; got 'square'"),
        ("linear", 1.0, 3, r"must lie in \[0, 1\); got 1.0"),
        ("one-shot", 0.5, 0, "rounds must be 1 or more; got 0"),
    ],
)
def test_schedule_refuses(kind: Any, ratio: float, rounds: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        prune.schedule(kind, ratio, rounds)


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
    before = states(net)
    done = prune.iterative(
        net, few, ratio=0.9, rounds=3, epochs=5, kind=kind, importance=importance, callbacks=[count], lr=1e-2
    )
    assert len(count.zeros) == 5 * 4
    whole, targets = 64 * 20 + 200, prune.schedule(kind, 0.9, 3)
    assert [round_.ratio for round_ in done.rounds] == list(targets)
    assert sorted(set(count.zeros)) == [round(target * whole) for target in targets]
    assert count.zeros == sorted(count.zeros)
    assert zeros(done.model) == round(0.9 * whole)
    assert done.rounds[-1].after == measure.accuracy(done.model, few.validation)
    assert same(states(net)[0], before[0])


def test_iterative_one_shot_is_prune_then_fine_tune(trained: nn.Module, few: Dataset) -> None:
    done = prune.iterative(trained, few, ratio=0.9, rounds=7, epochs=2, kind="one-shot", scope="layer", seed=3)
    pruned = prune.weights(trained, ratio=0.9, scope="layer")
    tuned = prune.fine_tune(pruned, few, epochs=2, seed=3)
    assert same(*states(done.model, tuned))
    (only,) = done.rounds
    assert only.before == measure.accuracy(pruned, few.validation)
    assert only.after == measure.accuracy(tuned, few.validation)


def test_iterative_keeps_what_is_pruned(few: Dataset) -> None:
    net = models.MLP((64, 20, 10))
    first = prune.weights(net, ratio=0.3)
    done = prune.iterative(first, few, ratio=0.6, rounds=2, epochs=2, importance="taylor")
    for name, mask in prune.masks(done.model).items():
        assert not (mask & ~prune.masks(first)[name]).any()


def test_iterative_refuses_and_cancels(few: Dataset) -> None:
    net = models.MLP((64, 10))
    with pytest.raises(ValueError, match="epochs must be at least one a round, 3; got 2"):
        prune.iterative(net, few, ratio=0.5, rounds=3, epochs=2)
    with pytest.raises(ValueError, match="has nothing to prune"):
        prune.iterative(nn.Sequential(nn.Flatten()), few, ratio=0.5, rounds=1, epochs=1)
    with pytest.raises(ValueError, match="importance must be one of"):
        prune.iterative(net, few, ratio=0.5, rounds=1, epochs=1, importance="x")  # type: ignore[arg-type]
    cancel, before = threading.Event(), states(net)
    cancel.set()
    with pytest.raises(training.Cancelled):
        prune.iterative(net, few, ratio=0.5, rounds=1, epochs=1, cancel=cancel)
    assert same(states(net)[0], before[0])


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
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Tensor], int]]:
    """The weights from which each training of a lottery starts, and its epochs."""
    seen: list[tuple[dict[str, Tensor], int]] = []
    room = importlib.import_module("kit.prune.lottery")  # `prune.lottery` is the function
    real = room.fine_tune

    def spy(model: nn.Module, dataset: Dataset, *, epochs: int, **settings: Any) -> nn.Module:
        seen.append((copy.deepcopy(model.state_dict()), epochs))
        return real(model, dataset, epochs=epochs, **settings)

    monkeypatch.setattr(room, "fine_tune", spy)
    return seen


def run(few: Dataset, net: nn.Module, **settings: Any) -> prune.Lottery:
    return prune.lottery(net, few, **{"ratio": 0.8, "rounds": 2, "epochs": 3, "lr": 1e-2, **settings})


def test_a_ticket_starts_at_the_first_weights(few: Dataset, starts: list[tuple[dict[str, Tensor], int]]) -> None:
    net = models.MLP((64, 20, 10))
    first = states(net)[0]
    found = run(few, net)
    assert same(states(net)[0], first)
    *_, dense, ticket, reinitialised, random_masks = starts
    assert all(epochs == 3 for _, epochs in starts[2:])
    assert same(dense[0], first)
    for name, w in first.items():
        mask = found.masks.get(name, torch.ones_like(w, dtype=torch.bool))
        assert torch.equal(ticket[0][name], w * mask)
        assert torch.equal(reinitialised[0][name] != 0, mask)
        kept = mask.sum() > 0
        assert kept and not (reinitialised[0][name][mask] == w[mask]).any()
        shuffled = random_masks[0][name] != 0
        assert shuffled.sum() == mask.sum()
        assert torch.equal(random_masks[0][name], w * shuffled)
        assert w.ndim == 1 or not torch.equal(shuffled, mask)


def test_every_round_rewinds_and_prunes_the_same_share_of_what_is_left(
    few: Dataset, starts: list[tuple[dict[str, Tensor], int]]
) -> None:
    net = models.MLP((64, 20, 10))
    first = states(net)[0]
    found = run(few, net, ratio=0.875, rounds=3)
    whole, trainings = 64 * 20 + 200, [state for state, epochs in starts if epochs]
    for done, state in enumerate(trainings[:3]):
        kept = sum(int(w.count_nonzero()) for w in state.values() if w.ndim == 2)
        assert kept == whole - round((1 - 0.5**done) * whole)  # a half goes each round
        assert all(torch.equal(w[w != 0], first[name][w != 0]) for name, w in state.items())
    assert sum(int(mask.sum()) for mask in found.masks.values()) == whole - round(0.875 * whole)
    assert all(len(course) == 3 for course in (found.dense, found.ticket, found.reinitialised, found.random_masks))


def test_one_round_is_magnitude_pruning_after_training(few: Dataset) -> None:
    net = models.MLP((64, 20, 10))
    found = run(few, net, rounds=1, scope="layer", seed=4)
    trained = prune.fine_tune(net, few, epochs=3, seed=4, lr=1e-2)
    expected = prune.masks(prune.weights(trained, ratio=0.8, scope="layer"))
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.items())
    assert found.dense[-1] == measure.accuracy(trained, few.validation)


def test_rewinding_to_a_later_epoch(few: Dataset, starts: list[tuple[dict[str, Tensor], int]]) -> None:
    net = models.MLP((64, 20, 10))
    found = run(few, net, rewind=1)
    early = states(prune.fine_tune(net, few, epochs=1, seed=0, lr=1e-2))[0]
    *_, dense, ticket, reinitialised, random_masks = starts
    assert [epochs for _, epochs in (dense, ticket, reinitialised, random_masks)] == [2] * 4
    assert same(dense[0], early)
    assert torch.equal(ticket[0]["layers.0.weight"], early["layers.0.weight"] * found.masks["layers.0.weight"])
    assert len(found.ticket) == 2


def test_lottery_refuses_and_cancels(few: Dataset) -> None:
    net = models.MLP((64, 10))
    for wrong in ({"rounds": 0}, {"epochs": 0}, {"rewind": 3}, {"rewind": -1}):
        with pytest.raises(ValueError, match="rounds and epochs must be 1 or more and rewind in 0 .. epochs - 1; got"):
            run(few, net, **wrong)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\); got 1.0"):
        run(few, net, ratio=1.0)
    with pytest.raises(ValueError, match="scope must be one of"):
        run(few, net, scope="x")
    with pytest.raises(ValueError, match="has nothing to prune"):
        run(few, nn.Flatten())
    with pytest.raises(TypeError, match="cannot initialise 1 "):
        run(few, nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(64, 10)))
    cancel, before = threading.Event(), states(net)
    cancel.set()
    with pytest.raises(training.Cancelled):
        run(few, net, cancel=cancel)
    assert same(states(net)[0], before[0])
