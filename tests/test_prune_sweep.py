from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.data import Dataset
from kit.models import ConvNet
from kit.prune import Method, Point, Sweep, sweep
from kit.prune.structured import thin


@pytest.fixture
def made(trained: ConvNet, digits: Dataset) -> Sweep:
    return Sweep(trained, digits)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """Let `module.name` do what it does, and note each call."""
    calls: list[str] = []
    original: Callable[..., Any] = getattr(module, name)

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(name)
        return original(*args, **settings)

    monkeypatch.setattr(module, name, counted)
    return calls


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("scope", prune.SCOPES)
@pytest.mark.parametrize("what", prune.WHATS)
def test_a_point_agrees_with_direct_calls(
    made: Sweep, trained: ConvNet, digits: Dataset, what: Any, scope: Any, importance: Any
) -> None:
    method = Method(what, importance, scope, seed=3)
    if what == "weights":
        direct = prune.weights(trained, ratio=0.7, scope=scope, importance=importance, dataset=digits, seed=3)
    else:
        direct = thin(trained, ratio=0.7, scope=scope, importance=importance, dataset=digits, seed=3).model
    assert same_weights(made.pruned(method, 0.7).model, direct)
    point = made.point(method, 0.7)
    assert point.accuracy == measure.accuracy(direct, digits.validation)
    assert point.whole
    assert point.ratio == 0.7
    assert point.sizes.parameters == measure.parameters(direct)
    assert point.sizes.nonzeros == measure.nonzeros(direct)
    assert point.sizes.dense_bytes == measure.dense_bytes(direct)
    assert point.sizes.file_bytes == measure.file_bytes(direct)
    assert point.sizes.flops == measure.flops(direct, digits.validation.inputs)


def test_a_profile_gathers_the_point_and_the_latency(made: Sweep) -> None:
    method = Method()
    profile = made.profile(method, 0.5)
    point = made.point(method, 0.5)
    assert profile.accuracy == point.accuracy
    assert profile.latency == made.known_latency(method, 0.5)
    assert profile.latency.low <= profile.latency.value <= profile.latency.high
    assert profile.batch_size == 1
    assert profile.nonzeros == point.sizes.nonzeros < profile.parameters == point.sizes.parameters


def test_nothing_is_computed_twice(made: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = count_calls(monkeypatch, training, "evaluate_slices")
    timed = count_calls(monkeypatch, measure, "latency")
    scored = count_calls(monkeypatch, sweep, "score_weights")
    written = count_calls(monkeypatch, sweep, "apply_masks")
    flops = count_calls(monkeypatch, measure, "flops")
    method = Method()
    assert made.known(method, 0.5) is None
    assert made.known_latency(method, 0.5) is None
    for _ in range(3):
        first = made.point(method, 0.5)
        made.profile(method, 0.5)
        made.pruned(method, 0.5)
    assert (len(evaluated), len(timed), len(scored), len(written)) == (1, 1, 1, 1)
    assert made.known(method, 0.5) is first
    made.point(method, 0.6)
    made.point(replace(method, seed=7), 0.7)  # magnitude asks for no seed: the same queue
    assert (len(evaluated), len(timed), len(scored), len(written)) == (3, 1, 1, 3)
    made.point(Method(importance="random"), 0.5)
    made.point(Method(importance="random", seed=1), 0.5)
    assert len(scored) == 3  # each random seed has a queue of its own
    assert flops == []  # zeros are multiplied like any number, so the dense count stands


def test_ratio_0_is_the_dense_model_whatever_the_method(made: Sweep, trained: ConvNet, digits: Dataset) -> None:
    dense = made.point(Method("channels", "random", "layer"), 0.0)
    assert dense.accuracy == measure.accuracy(trained, digits.validation)
    assert dense.sizes == made.dense
    assert made.known(Method(), 0.0) is dense
    assert made.known(Method("weights", "taylor", seed=4), 0.0) is dense
    pruned = made.pruned(Method("channels"), 0.0)
    assert same_weights(pruned.model, trained)
    assert set(pruned.kept.values()) == {1.0}
    assert pruned.outputs == {}
    assert made.known(Method(epochs=1), 0.0) is None  # trained on, it is another model


def test_the_dense_model_asks_for_no_trace_and_no_scores(made: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, thinned = count_calls(monkeypatch, sweep, "score_weights"), count_calls(monkeypatch, sweep, "thin")
    made.point(Method("channels", "taylor", "layer"), 0.0)
    assert thinned == []
    assert len(scored) <= 1


def test_a_fine_tuned_model_is_the_direct_one_and_made_again_the_same(
    made: Sweep, trained: ConvNet, digits: Dataset
) -> None:
    method = Method(epochs=1, seed=5)
    first = made.pruned(method, 0.8)
    direct = prune.fine_tune(prune.weights(trained, ratio=0.8), digits, epochs=1, seed=5)
    assert same_weights(first.model, direct)
    made._models.clear()
    again = made.pruned(method, 0.8)
    assert again.model is not first.model
    assert same_weights(again.model, first.model)
    other = made.pruned(replace(method, seed=6), 0.8)
    assert not same_weights(other.model, first.model)
    assert measure.nonzeros(first.model) == measure.nonzeros(prune.weights(trained, ratio=0.8))


def test_the_latest_models_are_kept_and_old_ones_go(made: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MODEL_BYTES", 3 * made.dense.dense_bytes)
    written = count_calls(monkeypatch, sweep, "apply_masks")
    for ratio in (0.1, 0.2, 0.3):
        made.pruned(Method(), ratio)
    made.pruned(Method(), 0.1)  # used again, so 0.2 is now the oldest
    made.pruned(Method(), 0.4)
    assert [ratio for _, ratio in made._models] == [0.3, 0.1, 0.4]
    assert len(written) == 4
    made.pruned(Method(), 0.1)
    assert len(written) == 4
    made.pruned(Method(), 0.2)
    assert len(written) == 5
    monkeypatch.setattr(sweep, "MODEL_BYTES", 1)  # a model larger than the whole store: two are kept all the same
    made.pruned(Method(), 0.5)
    assert len(made._models) == 2


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_thresholds_part_the_kept_from_the_removed(made: Sweep, trained: ConvNet, scope: Any) -> None:
    method = Method(scope=scope)
    thresholds = made.thresholds(method, 0.6)
    named = {name: w.detach().abs() for name, w in prune.prunable(trained).items()}
    masks = prune.masks(made.pruned(method, 0.6).model)
    if scope == "global":
        assert len(thresholds) == 1
        thresholds = thresholds * len(named)
    assert len(thresholds) == len(named)
    for threshold, (name, sizes) in zip(thresholds, named.items(), strict=True):
        assert sizes[masks[name]].min() >= threshold
        assert sizes[~masks[name]].max() <= threshold
        assert threshold > 0


def test_no_threshold_where_no_absolute_value_decided(made: Sweep) -> None:
    assert made.thresholds(Method(importance="random"), 0.5) == ()
    assert made.thresholds(Method(importance="taylor"), 0.5) == ()
    assert made.thresholds(Method("channels"), 0.5) == ()
    assert made.thresholds(Method(), 0.0) == ()


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_a_tiny_model_may_lose_everything(digits: Dataset, scope: Any) -> None:
    small = Sweep(nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 10, bias=False)), digits)
    method = Method(scope=scope)
    assert small.thresholds(method, 0.999) == ()
    point = small.point(method, 0.999)
    assert point.sizes.nonzeros == 0
    assert point.emptied == ("1.weight", "2.weight")
    assert point.floored == ()


def test_one_channel_stays_and_is_named(made: Sweep) -> None:
    point = made.point(Method("channels", scope="layer"), 0.99)
    assert set(point.floored) == {"conv1", "conv2", "fc1"}
    assert point.emptied == ()
    pruned = made.pruned(Method("channels", scope="layer"), 0.99)
    assert [len(outputs) for name, outputs in pruned.outputs.items() if name != "fc2"] == [1, 1, 1]


def test_kept_shares_count_what_is_left(made: Sweep, trained: ConvNet) -> None:
    for method in (Method(), Method("channels", scope="layer")):
        pruned = made.pruned(method, 0.5)
        dense = prune.prunable(trained)
        assert list(pruned.kept) == list(dense)
        for name, weight in prune.prunable(pruned.model).items():
            assert pruned.kept[name] == pytest.approx(int(weight.count_nonzero()) / dense[name].numel())
    assert list(pruned.outputs["conv1"]) == sorted(set(pruned.outputs["conv1"]))
    assert len(pruned.outputs["conv1"]) == 4


def test_slices_come_first_with_wider_intervals_and_end_in_the_whole(trained: ConvNet, digits: Dataset) -> None:
    sliced, whole = Sweep(trained, digits, slice_size=150), Sweep(trained, digits, slice_size=10_000)
    partial: list[Point] = []
    last = sliced.point(Method(), 0.8, on_slice=partial.append)
    assert [point.accuracy.n for point in partial] == [150, 300, 450]
    assert [point.whole for point in (*partial, last)] == [False, False, False, True]
    widths = [point.accuracy.high - point.accuracy.low for point in (*partial, last)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
    assert last == whole.point(Method(), 0.8)
    first = measure.accuracy(prune.weights(trained, ratio=0.8), digits.validation.first(150))
    assert partial[0].accuracy == first


def test_one_slice_gives_no_partial_answer(made: Sweep) -> None:
    partial: list[Point] = []
    made.point(Method(), 0.8, on_slice=partial.append)
    assert partial == []


def test_cancelled_between_slices_nothing_is_remembered(trained: ConvNet, digits: Dataset) -> None:
    made, cancel = Sweep(trained, digits, slice_size=100), Event()
    seen: list[Point] = []

    def stop(point: Point) -> None:
        seen.append(point)
        cancel.set()

    with pytest.raises(training.Cancelled):
        made.point(Method(), 0.5, cancel=cancel, on_slice=stop)
    assert len(seen) == 1
    assert made.known(Method(), 0.5) is None
    assert made.point(Method(), 0.5).whole


def test_cancelled_in_fine_tuning_nothing_is_remembered(made: Sweep) -> None:
    cancel = Event()

    class Stop(training.Callback):
        batches = 0

        def on_batch_end(self, progress: training.Progress) -> None:
            self.batches += 1
            cancel.set()

    callback = Stop()
    with pytest.raises(training.Cancelled):
        made.point(Method(epochs=2), 0.5, callbacks=[callback], cancel=cancel)
    assert callback.batches == 1
    assert made.known(Method(epochs=2), 0.5) is None
    assert (Method(epochs=2), 0.5) not in made._models
    with pytest.raises(training.Cancelled):
        made.latency(Method(), 0.5, cancel=cancel)
    assert made.known_latency(Method(), 0.5) is None


def test_the_given_model_is_copied_and_left_alone(trained: ConvNet, digits: Dataset) -> None:
    net = copy.deepcopy(trained).train()
    made = Sweep(net, digits)
    assert net.training
    before = made.point(Method(), 0.5)
    with torch.no_grad():
        net.conv1.weight.zero_()
    made._models.clear()
    made._points.clear()
    assert made.point(Method(), 0.5) == before


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"what": "neurons"}, "what must be one of weights, channels; got 'neurons'."),
        ({"importance": "l1"}, "importance must be one of magnitude, taylor, random; got 'l1'."),
        ({"scope": "local"}, "scope must be one of global, layer; got 'local'."),
        ({"epochs": -1}, "epochs must be 0 or more; got -1."),
        ({"seed": -2}, "seed must be 0 or more; got -2."),
    ],
)
def test_an_unknown_method_is_refused(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Method(**setting)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, float("nan")])
@pytest.mark.parametrize("what", prune.WHATS)
def test_a_ratio_outside_of_0_to_1_is_refused(made: Sweep, what: Any, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        made.point(Method(what), ratio)


def test_what_does_not_fit_is_refused_at_once(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="nothing to prune"):
        Sweep(Scale(), digits)
    with pytest.raises(ValueError, match="cannot take samples of shape"):
        Sweep(models.ConvNet(image_size=28), digits)
    with pytest.raises(ValueError, match="n_classes at least 10"):
        Sweep(models.MLP((64, 4)), digits)


class Scale(nn.Module):
    """A parameter, and nothing to prune."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * self.scale


def test_only_validation_measures_and_test_is_never_read(trained: ConvNet, digits: Dataset) -> None:
    class Locked(data.Split):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("the test split was read")

    locked = copy.copy(digits)
    object.__setattr__(locked, "test", object.__new__(Locked))
    made = Sweep(trained, locked)
    for method in (Method(), Method("channels", "taylor", "layer"), Method(epochs=1)):
        made.profile(method, 0.5)
