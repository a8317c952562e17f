from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import asdict, replace
from threading import Event
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from kit import data, measure, models, prune, training
from kit.data import Dataset
from kit.models import ConvNet
from kit.prune import Point, PruningMethod, Sweep, sweep
from kit.prune.structured import remove_channels
from tests.nets import SetAfter, already_set, count_calls, same


@pytest.fixture
def made(trained: ConvNet, digits: Dataset) -> Sweep:
    return Sweep(trained, digits)


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("scope", prune.SCOPES)
@pytest.mark.parametrize("what", prune.WHATS)
def test_a_point_agrees_with_direct_calls(
    made: Sweep, trained: ConvNet, digits: Dataset, what: Any, scope: Any, importance: Any
) -> None:
    method = PruningMethod(what, importance, scope, seed=3)
    if what == "weights":
        direct = prune.weights(trained, ratio=0.7, scope=scope, importance=importance, dataset=digits, seed=3)
    else:
        direct = remove_channels(trained, ratio=0.7, scope=scope, importance=importance, dataset=digits, seed=3).model
    assert same(made.pruned(method, 0.7).model, direct)
    point, expected = made.point(method, 0.7), measure.profile(direct, digits.validation)
    assert point.whole and point.ratio == 0.7
    profile = made.profile(method, 0.7)
    assert profile.latency == made.known_latency(method, 0.7)
    assert replace(profile, latency=expected.latency) == expected
    assert point.accuracy == expected.accuracy
    assert asdict(point.sizes).items() <= asdict(expected).items()


def test_nothing_is_computed_twice(made: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = (training, "evaluate_slices"), (measure, "latency"), (sweep, "score_weights"), (sweep, "apply_masks")
    evaluated, timed, scored, written = (count_calls(monkeypatch, *each) for each in watched)
    flops = count_calls(monkeypatch, measure, "flops")
    method = PruningMethod()
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
    made.point(PruningMethod(importance="random"), 0.5)
    made.point(PruningMethod(importance="random", seed=1), 0.5)
    assert len(scored) == 3  # each random seed has a queue of its own
    assert flops == []  # zeros are multiplied like any number, so the dense count stands


def test_ratio_0_is_the_dense_model_whatever_the_method(
    made: Sweep, trained: ConvNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinned = count_calls(monkeypatch, sweep, "remove_channels")
    dense = made.point(PruningMethod("channels", "random", "layer"), 0.0)
    assert thinned == []  # and no trace is asked for
    assert dense.accuracy == measure.accuracy(trained, digits.validation)
    assert dense.sizes == made.dense
    assert made.known(PruningMethod(), 0.0) is dense
    assert made.known(PruningMethod("weights", "taylor", seed=4), 0.0) is dense
    pruned = made.pruned(PruningMethod("channels"), 0.0)
    assert same(pruned.model, trained)
    assert set(pruned.kept.values()) == {1.0}
    assert pruned.outputs == {}
    assert made.known(PruningMethod(epochs=1), 0.0) is None  # trained on, it is another model


def test_a_fine_tuned_model_is_the_direct_one_and_made_again_the_same(
    made: Sweep, trained: ConvNet, digits: Dataset
) -> None:
    method = PruningMethod(epochs=1, seed=5)
    first = made.pruned(method, 0.8)
    direct = prune.fine_tune(prune.weights(trained, ratio=0.8), digits, epochs=1, seed=5)
    assert same(first.model, direct)
    made._models.clear()
    again = made.pruned(method, 0.8)
    assert again.model is not first.model
    assert same(again.model, first.model)
    other = made.pruned(replace(method, seed=6), 0.8)
    assert not same(other.model, first.model)
    assert measure.nonzeros(first.model) == measure.nonzeros(prune.weights(trained, ratio=0.8))


def test_the_latest_models_are_kept_and_old_ones_go(made: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MODEL_BYTES", 3 * made.dense.dense_bytes)
    written = count_calls(monkeypatch, sweep, "apply_masks")
    for ratio in (0.1, 0.2, 0.3):
        made.pruned(PruningMethod(), ratio)
    made.pruned(PruningMethod(), 0.1)  # used again, so 0.2 is now the oldest
    made.pruned(PruningMethod(), 0.4)
    assert [ratio for _, ratio in made._models] == [0.3, 0.1, 0.4]
    assert len(written) == 4
    made.pruned(PruningMethod(), 0.1)
    assert len(written) == 4
    made.pruned(PruningMethod(), 0.2)
    assert len(written) == 5
    monkeypatch.setattr(sweep, "MODEL_BYTES", 1)  # a model larger than the whole store: two are kept all the same
    made.pruned(PruningMethod(), 0.5)
    assert len(made._models) == 2


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_thresholds_part_the_kept_from_the_removed(made: Sweep, trained: ConvNet, scope: Any) -> None:
    method = PruningMethod(scope=scope)
    thresholds = made.thresholds(method, 0.6)
    named = {name: w.detach().abs() for name, w in prune.prunable(trained).items()}
    masks = prune.masks(made.pruned(method, 0.6).model)
    if scope == "global":
        (only,) = thresholds
        thresholds = (only,) * len(named)
    for threshold, (name, sizes) in zip(thresholds, named.items(), strict=True):
        assert sizes[masks[name]].min() >= threshold
        assert sizes[~masks[name]].max() <= threshold
        assert threshold > 0


def test_no_threshold_where_no_absolute_value_decided(made: Sweep) -> None:
    for method in (PruningMethod(importance="random"), PruningMethod(importance="taylor"), PruningMethod("channels")):
        assert made.thresholds(method, 0.5) == ()
    assert made.thresholds(PruningMethod(), 0.0) == ()


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_a_tiny_model_may_lose_everything(digits: Dataset, scope: Any) -> None:
    small = Sweep(nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 10, bias=False)), digits)
    method = PruningMethod(scope=scope)
    assert small.thresholds(method, 0.999) == ()
    point = small.point(method, 0.999)
    assert (point.sizes.nonzeros, point.emptied, point.floored) == (0, ("1.weight", "2.weight"), ())


def test_one_channel_stays_and_is_named(made: Sweep) -> None:
    point = made.point(PruningMethod("channels", scope="layer"), 0.99)
    assert set(point.floored) == {"conv1", "conv2", "fc1"}
    assert point.emptied == ()
    pruned = made.pruned(PruningMethod("channels", scope="layer"), 0.99)
    assert [len(outputs) for name, outputs in pruned.outputs.items() if name != "fc2"] == [1, 1, 1]


def test_kept_shares_count_what_is_left(made: Sweep, trained: ConvNet) -> None:
    for method in (PruningMethod(), PruningMethod("channels", scope="layer")):
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
    last = sliced.point(PruningMethod(), 0.8, on_slice=partial.append)
    assert [point.accuracy.n for point in partial] == [150, 300, 450]
    assert [point.whole for point in (*partial, last)] == [False, False, False, True]
    widths = [point.accuracy.high - point.accuracy.low for point in (*partial, last)]
    assert widths == sorted(set(widths), reverse=True)
    assert last == whole.point(PruningMethod(), 0.8, on_slice=partial.append)
    assert len(partial) == 3  # one slice gives no partial answer
    first = measure.accuracy(prune.weights(trained, ratio=0.8), digits.validation.first(150))
    assert partial[0].accuracy == first


def test_enough_samples_are_remembered_until_more_are_asked_for(trained: ConvNet, digits: Dataset) -> None:
    made, method = Sweep(trained, digits, slice_size=150), PruningMethod(importance="random")
    shown: list[Point] = []
    part = made.point(method, 0.8, enough=151, on_slice=shown.append)
    assert (part.accuracy.n, part.whole) == (300, False) and [each.accuracy.n for each in shown] == [150]
    assert made.known(method, 0.8) is part is made.point(method, 0.8, enough=300)
    assert made.point(method, 0.8, enough=301).accuracy.n == 450
    whole = made.point(method, 0.8)
    assert whole.whole and whole.accuracy == measure.accuracy(made.pruned(method, 0.8).model, digits.validation)
    assert whole is made.point(method, 0.8, enough=1) is made.known(method, 0.8)
    assert made.point(method, 0.7, enough=10**9).whole


def test_a_learning_rate_is_that_of_fine_tuning(made: Sweep, trained: ConvNet, digits: Dataset) -> None:
    untuned, tuned = PruningMethod(lr=0.01), PruningMethod(epochs=1, lr=0.01)
    assert made.point(untuned, 0.5) is made.point(PruningMethod(), 0.5)  # where nothing is trained it means nothing
    direct = prune.fine_tune(prune.weights(trained, ratio=0.5), digits, epochs=1, seed=0, lr=0.01)
    assert same(made.pruned(tuned, 0.5).model, direct)
    assert not same(made.pruned(PruningMethod(epochs=1), 0.5).model, direct)
    counts = training.evaluate(direct, digits.validation)
    assert made.point(tuned, 0.5).loss == pytest.approx(counts.loss, rel=1e-5)
    for lr, sentence in ((0, "lr must be above 0; got 0"), ("1", "lr must be a number; got '1'")):
        with pytest.raises((ValueError, TypeError), match=sentence):
            PruningMethod(lr=lr)  # type: ignore[arg-type]


def test_cancelled_between_slices_nothing_is_remembered(trained: ConvNet, digits: Dataset) -> None:
    made, cancel = Sweep(trained, digits, slice_size=100), Event()
    seen: list[Point] = []

    def stop(point: Point) -> None:
        seen.append(point)
        cancel.set()

    with pytest.raises(training.Cancelled):
        made.point(PruningMethod(), 0.5, cancel=cancel, on_slice=stop)
    assert len(seen) == 1
    assert made.known(PruningMethod(), 0.5) is None
    assert made.point(PruningMethod(), 0.5).whole


def test_cancelled_in_fine_tuning_nothing_is_remembered(made: Sweep) -> None:
    cancel = Event()
    with pytest.raises(training.Cancelled, match="before batch 2"):
        made.point(PruningMethod(epochs=2), 0.5, callbacks=[SetAfter(cancel, 1)], cancel=cancel)
    assert made.known(PruningMethod(epochs=2), 0.5) is None
    assert (PruningMethod(epochs=2), 0.5) not in made._models
    with pytest.raises(training.Cancelled):
        made.latency(PruningMethod(), 0.5, cancel=cancel)
    assert made.known_latency(PruningMethod(), 0.5) is None


def test_the_given_model_is_copied_and_left_alone(trained: ConvNet, digits: Dataset) -> None:
    net = copy.deepcopy(trained).train()
    made = Sweep(net, digits)
    assert net.training
    before = made.point(PruningMethod(), 0.5)
    with torch.no_grad():
        net.conv1.weight.zero_()
    made._models.clear()
    made._points.clear()
    assert made.point(PruningMethod(), 0.5) == before


# Statistics of batch normalisation


@pytest.fixture(scope="module")
def residual(digits: Dataset) -> nn.Module:
    """A residual network that knows the digits a little."""
    net = models.ResNet(widths=(8,))
    training.fit(net, dataclasses.replace(digits, train=digits.train.first(400)), epochs=3, lr=1e-2)
    return net


@pytest.mark.parametrize("what", prune.WHATS)
def test_statistics_are_renewed_only_where_that_is_asked(residual: nn.Module, digits: Dataset, what: Any) -> None:
    """Those of the layer behind the stem are, by hand, the mean of the batches' own; all the rest is as it was."""
    made, method = Sweep(residual, digits), PruningMethod(what, scope="layer")
    without, asked = (made.pruned(replace(method, renew=renew), 0.5) for renew in (False, True))
    assert (without.kept, without.outputs) == (asked.kept, asked.outputs)
    pairs = zip(without.model.state_dict().items(), asked.model.state_dict().values(), strict=True)
    changed = {name.split(".")[-1] for (name, one), other in pairs if not torch.equal(one, other)}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    inputs, net = digits.train.inputs, cast(Any, without.model)
    assert len(inputs) < 1024  # else the first 1024
    with torch.no_grad():
        batches = [net.stem(part) for part in inputs.tensor_split(3)]
    by_hand = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(cast(Any, asked.model).stem_bn.running_mean, by_hand, atol=1e-5)
    points = [made.point(replace(method, renew=renew), 0.5) for renew in (False, True)]
    assert points[0] == Sweep(residual, digits).point(method, 0.5)
    assert points[1].accuracy == measure.accuracy(asked.model, digits.validation) != points[0].accuracy
    dense = made.pruned(PruningMethod(renew=True), 0.0)  # is not the dense model
    assert same(made.pruned(method, 0.0).model, residual) and not same(dense.model, residual)


def test_statistics_win_back_what_removed_channels_cost(residual: nn.Module, digits: Dataset) -> None:
    made, method = Sweep(residual, digits), PruningMethod("channels", scope="layer")
    lost, won = (made.point(replace(method, renew=renew), 0.3).accuracy for renew in (False, True))
    assert won.low > lost.high


def test_renewing_comes_after_fine_tuning_and_is_made_once(residual: nn.Module, digits: Dataset) -> None:
    made, method = Sweep(residual, digits), PruningMethod(epochs=1, renew=True)
    found = made.pruned(method, 0.5).model
    tuned = made._models[replace(method, renew=False), 0.5].model
    assert same(found, training.renew_statistics(tuned, digits.train.inputs))
    assert made.pruned(method, 0.5).model is found


def test_statistics_that_are_not_there_are_not_renewed(made: Sweep, trained: ConvNet, digits: Dataset) -> None:
    for call in (lambda: made.point(PruningMethod(renew=True), 0.5), lambda: prune.scan(trained, digits, renew=True)):
        with pytest.raises(ValueError, match="renew: ConvNet has no batch-norm statistics to measure anew; leave"):
            call()
    with pytest.raises(TypeError, match="renew must be a bool; got 1"):
        PruningMethod(renew=1)  # type: ignore[arg-type]


# Answers that are no numbers


class Fragile(nn.Module):
    """Answers NaN for every sample once more than half of its weights are gone, and for some before."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        gone = int((self.layer.weight == 0).sum()) > 320
        return self.layer(x.flatten(1)) + torch.where(x[:, 0, 4, 4] > (-1 if gone else 0.9), torch.nan, 0)[:, None]


def test_answers_that_are_no_numbers_are_counted_and_the_sweep_goes_on(digits: Dataset) -> None:
    made, some = Sweep(Fragile(), digits), int((digits.validation.inputs[:, 0, 4, 4] > 0.9).sum())
    assert 0 < some < 539
    points = {ratio: made.point(PruningMethod(), ratio) for ratio in (0.0, 0.4, 0.9)}
    assert [point.nonfinite for point in points.values()] == [some, some, 539]
    assert points[0.9].accuracy.value == 0 and points[0.0].accuracy.value > 0
    assert points[0.9].broken == "answers NaN or infinity for 539 of 539 samples"
    assert made.profile(PruningMethod(), 0.9).nonfinite == 539
    scanned = prune.scan(Fragile(), digits, ratios=(0.0, 0.4, 0.9))
    assert scanned.nonfinite == 3 and scanned.accuracy["layer.weight"][2].value == 0


def test_a_weight_norm_model_is_swept_by_the_weights_that_it_makes(digits: Dataset) -> None:
    wrap = nn.utils.parametrizations.weight_norm
    net = nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 12)), nn.ReLU(), wrap(nn.Linear(12, 10)))
    made = Sweep(net, digits)
    assert made.dense.parameters == 65 * 12 + 13 * 10
    for method in (PruningMethod(), PruningMethod(importance="taylor", epochs=1), PruningMethod("channels")):
        assert made.point(method, 0.9).nonfinite == 0
    assert made.point(PruningMethod(), 0.0).accuracy == measure.accuracy(net, digits.validation)


def test_taylor_scores_stop_between_batches(trained: ConvNet, digits: Dataset) -> None:
    method, made = PruningMethod(importance="taylor"), Sweep(trained, digits)
    with pytest.raises(training.Cancelled, match="after the gradients of 0 of 898 samples"):
        made.point(method, 0.5, cancel=already_set())
    assert made.known(method, 0.5) is None and made.point(method, 0.5).whole


def test_what_does_not_fit_is_refused_at_once(made: Sweep, digits: Dataset) -> None:
    for name, value, allowed in (
        ("what", "neurons", "one of weights, channels"),
        ("importance", "l1", "one of magnitude, taylor, random"),
        ("scope", "local", "one of global, layer"),
        ("epochs", -1, "0 or more"),
        ("seed", -2, "0 or more"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be {allowed}; got {value!r}\.$"):
            PruningMethod(**{name: value})  # type: ignore[arg-type]
    wrong: Any
    for name, wrong in (("epochs", 1.5), ("epochs", True), ("seed", "1")):
        with pytest.raises(TypeError, match=rf"^{name} must be a whole number; got {wrong!r}\.$"):
            PruningMethod(**{name: wrong})
    for ask, (wrong, sentence) in itertools.product(
        (made.point, made.pruned, made.known, made.latency), (("0.5", "got '0.5'"), ({"fc1.weight": 0.5}, "got {'fc1"))
    ):
        with pytest.raises(TypeError, match=f"ratio, the share to remove, must be a number; {sentence}"):
            ask(PruningMethod(), wrong)  # type: ignore[operator]
    with pytest.raises(TypeError, match="method must be a PruningMethod; got 'taylor'"):
        made.point("taylor", 0.5)  # type: ignore[arg-type]
    for what, ratio in itertools.product(prune.WHATS, (-0.1, 1.0, 2.0, float("nan"))):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            made.point(PruningMethod(what), ratio)
    for model, sentence in (
        (Scale(), "nothing to prune"),
        (models.ConvNet(image_size=28), "cannot take samples of shape"),
        (models.MLP((64, 4)), "n_classes at least 10"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Sweep(model, digits)


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
    for method in (PruningMethod(), PruningMethod("channels", "taylor", "layer"), PruningMethod(epochs=1)):
        made.profile(method, 0.5)


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("scope", prune.SCOPES)
def test_a_large_model_is_cut_as_a_small_one_is_ranked(
    monkeypatch: pytest.MonkeyPatch, digits: Dataset, trained: ConvNet, importance: Any, scope: Any
) -> None:
    method = PruningMethod(importance=importance, scope=scope, seed=3)
    expected = Sweep(trained, digits).pruned(method, 0.7)
    monkeypatch.setattr(sweep, "MANY", 0)
    large = Sweep(trained, digits)
    found = large.pruned(method, 0.7)
    assert same(found.model, expected.model) and found.kept == expected.kept
    assert large.thresholds(method, 0.7) == Sweep(trained, digits).thresholds(method, 0.7)
    # Memory: what is not pruned is there once; what is, is not shared with the dense model.
    own, dense = dict(found.model.named_parameters()), dict(large.model.named_parameters())
    shared = {name for name in own if own[name] is dense[name]}
    assert shared == set(own) - set(prune.prunable(trained))
    assert same(large.model, trained)
    assert large.point(method, 0.0).sizes == large.dense
