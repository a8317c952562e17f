"""What a cohort's fit refuses, what it survives, what it says as it goes, and what it leaves alone."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import cohort, compress, cores, models, prune
from kit.cohort import UNLABELLED, Cohort, Member, fitting, members
from kit.compress.share import fine_tune as tune_codebooks
from kit.data import Dataset, Split
from kit.training import Callback, Cancelled, Progress
from tests.nets import Recorder, SetAfter, already_set, vector

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Split:
    """101 samples: with batches of 50 the last one stands alone."""
    return digits.train.first(101)


def small(those: Any = None, outputs: int = 10) -> Cohort:
    return Cohort(models.MLP((64, 8, outputs)), members(seed=range(2)) if those is None else those)


def weights(together: Cohort) -> list[Tensor]:
    return [vector(net) for net in together.models()]


def test_speed_is_that_of_the_quickest_of_some_epochs(few: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    took, seen = [0.09, 0.02, 0.1, 9.0], list[Any]()

    def fit(networks: Cohort, train: Split, *, epochs: int) -> Any:
        seen.append((len(networks), len(train), epochs))
        return Mock(seconds=took[len(seen) - 1])

    monkeypatch.setattr(fitting, "fit", fit)
    net = models.MLP((64, 8, 10))
    weights = 64 * 8 + 8 + 8 * 10 + 10
    assert cohort.speed(net, few) == pytest.approx(6 * 8 * weights * 101 / 0.02)
    assert seen == [(8, 101, 1)] * 3  # until a fifth of a second is over
    monkeypatch.undo()
    assert cohort.speed(net, few) > 1e6


# Divergence


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("family", ["mlp", "convnet", "other"])
def test_a_network_that_diverges_touches_no_other(few: Split, family: str, optimiser: Any) -> None:
    template = {
        "mlp": models.MLP((64, 8, 10)),
        "convnet": models.ConvNet(channels=(2, 3), hidden=5),
        "other": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)),
    }[family]
    sound = members(seed=[0, 1], lr=[0.01, 0.02], weight_decay=0.01)
    wild = Member(seed=5, lr=1e30, weight_decay=0.01)
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 20, "optimiser": optimiser}
    without, beside, recorder = Cohort(template, sound), Cohort(template, [*sound[:2], wild, *sound[2:]]), Recorder()
    reference = cohort.fit(without, few, **settings)
    history = cohort.fit(beside, few, callbacks=[recorder], **settings)
    assert history.diverged == (False, False, True, False, False)
    assert reference.diverged == (False,) * 4
    assert not bool(weights(beside)[2].isfinite().all())
    assert np.isnan(history.losses[2][-1])
    for one, own in zip(weights(without), [weights(beside)[at] for at in (0, 1, 3, 4)], strict=True):
        torch.testing.assert_close(own, one, atol=1e-6, rtol=1e-6)
    for losses, at in zip(reference.losses, (0, 1, 3, 4), strict=True):
        assert history.losses[at] == pytest.approx(losses, rel=1e-5)
    assert recorder.ends[-1].loss == pytest.approx(np.mean([losses[-1] for losses in reference.losses]), rel=1e-5)


def test_a_loss_or_weights_that_are_no_numbers_are_divergence(few: Split) -> None:
    recorder = Recorder()
    history = cohort.fit(small(members(lr=1e30, seed=range(2))), few, epochs=2, callbacks=[recorder])
    assert history.diverged == (True, True) and np.isnan(recorder.ends[-1].loss)
    # The one step of this fit spoils the weights after its loss was still a number.
    together = small(members(lr=[0.01, 1e38], momentum=0))
    history = cohort.fit(together, Split(1e4 * few.inputs, few.labels), epochs=1, batch_size=200, optimiser="sgd")
    assert history.diverged == (False, True) and np.isfinite(history.losses).all()
    # The square of 1e20 is beyond float32, while its gradient and the weights are not.
    together = Cohort(models.MLP((64, 1)), members(seed=range(2)))
    history = cohort.fit(together, few, epochs=1, batch_size=101, values=torch.full((101, 1), 1e20))
    assert history.diverged == (True, True) and np.isinf(history.losses).all() and together.finite().all()


# Batches


def test_a_last_batch_of_one_sample_is_left_out(few: Split) -> None:
    """The second network has 51 samples, the third 49."""
    recorder = Recorder()
    together = small([Member(), Member(n_train=51), Member(n_train=49)])
    before = weights(together)
    history = cohort.fit(together, few, epochs=2, batch_size=50, callbacks=[recorder])
    assert history.batches == 4
    assert [(step.epoch, step.batch) for step in recorder.steps] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    moved = [
        [not torch.equal(old, new) for old, new in zip(first, then, strict=True)]
        for first, then in zip([before, *recorder.weights], recorder.weights, strict=False)
    ]
    assert moved == [[True, True, True], [True, False, False]] * 2
    # Batches of one sample may be asked for.
    assert cohort.fit(small([Member(n_train=1), Member(n_train=3)]), few, epochs=2, batch_size=1).batches == 6


# Callbacks and cancelling


def test_progress_says_where_the_fit_stands(few: Split) -> None:
    recorder, together = Recorder(), small([Member(lr=0.01), Member(n_train=30)])
    history = cohort.fit(together, few, epochs=2, batch_size=40, callbacks=[recorder])
    batches, steps = [("batch", epoch, batch) for epoch in (0, 1) for batch in (1, 2, 3)], recorder.steps
    assert recorder.order == [*batches[:3], ("epoch", 0, 3), *batches[3:], ("epoch", 1, 3)]
    assert [p.share for p in steps] == pytest.approx([i / 6 for i in range(1, 7)])
    assert all(p.model is together and p.epochs == 2 and p.batches == 3 for p in [*steps, *recorder.ends])
    seconds = [0, *(p.seconds for p in [*steps, recorder.ends[-1]]), history.seconds]
    assert seconds == sorted(seconds)
    assert [p.loss for p in recorder.ends] == pytest.approx(np.mean(history.losses, 0))
    # Only the first network has samples in the later steps: its epoch is 40 + 40 + 21 of them.
    epoch, rest = 101 * history.losses[0][1], 40 * steps[4].loss + 21 * steps[5].loss
    assert 40 * (2 * steps[3].loss - history.losses[1][1]) == pytest.approx(epoch - rest, rel=1e-4)


def test_no_epochs_change_nothing_and_cancel_stops_between_batches(few: Split) -> None:
    cancel, recorder, together = threading.Event(), Recorder(), small()
    before = together.weights.clone()
    history = cohort.fit(together, few, epochs=0)
    assert (history.losses, history.diverged, history.batches) == (((), ()), (False, False), 0)
    with pytest.raises(Cancelled, match="cancelled in epoch 1 of 1, before batch 1"):
        cohort.fit(together, few, epochs=1, cancel=already_set())
    assert torch.equal(together.weights, before)
    with pytest.raises(Cancelled, match="cancelled in epoch 2 of 9, before batch 2"):
        cohort.fit(together, few, epochs=9, batch_size=40, cancel=cancel, callbacks=[recorder, SetAfter(cancel, 4)])
    assert len(recorder.weights) == 4
    assert all(torch.equal(*pair) for pair in zip(weights(together), recorder.weights[-1], strict=True))
    cohort.fit(together, few, epochs=1)
    assert not any(torch.equal(*pair) for pair in zip(weights(together), recorder.weights[-1], strict=True))


# In parts


def mixed() -> list[Member]:
    """Five that differ in all a part must sort out: data, dropout, temperature, decay; one diverges."""
    first = [Member(0, dropout=0.3), Member(1, n_train=30, alpha=0.5, temperature=3.0), Member(2, lr=1e30)]
    return [*first, Member(3, fold=1, folds=3, alpha=1.0), Member(4, weight_decay=0.1, label_smoothing=0.2)]


def in_parts(patch: pytest.MonkeyPatch, parts: int) -> None:
    patch.setattr(fitting, "SMALL_COHORT", 0)
    patch.setattr(cores, "count", lambda: parts)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_cohort_in_parts_learns_what_it_learns_as_one(
    few: Split, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = torch.randn(5, 101, 10, generator=torch.Generator().manual_seed(0))  # one each
    fits = []
    for number in (1, parts):
        in_parts(monkeypatch, number)
        recorder, together = Recorder(), small(mixed())
        history = cohort.fit(together, few, epochs=3, batch_size=40, teacher_logits=teachers, callbacks=[recorder])
        fits.append((together, history, recorder))
    (one, as_one, told), (apart, in_several, told_apart) = fits
    torch.testing.assert_close(apart.weights, one.weights, atol=1e-6, rtol=1e-5, equal_nan=True)
    assert np.array(in_several.losses) == pytest.approx(np.array(as_one.losses), rel=1e-5, nan_ok=True)
    assert (in_several.diverged, in_several.batches) == (as_one.diverged, as_one.batches)
    assert as_one.diverged == (False, False, True, False, False)
    assert [p.loss for p in told_apart.ends] == pytest.approx([p.loss for p in told.ends], rel=1e-5)
    assert told_apart.order == told.order


def test_parts_of_any_family_learn_side_by_side(few: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd borrows a module while it passes through it, so each part needs one of its own."""
    template = nn.Sequential(nn.Flatten(), nn.Linear(64, 200, bias=False), nn.Linear(200, 100), nn.Linear(100, 10))
    found = []
    for parts in (1, 4):
        in_parts(monkeypatch, parts)
        found.append(Cohort(template, members(seed=range(8))))
        cohort.fit(found[-1], few, epochs=3, batch_size=40)
    torch.testing.assert_close(found[1].weights, found[0].weights, atol=1e-6, rtol=1e-4)


def test_the_networks_are_up_to_date_when_an_epoch_of_all_parts_ends(
    few: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Weights(Callback):
        def on_epoch_end(self, progress: Progress) -> None:
            assert isinstance(progress.model, Cohort)
            found.append(progress.model.weights.clone())

    found: list[Tensor] = []
    for parts in (1, 2):
        in_parts(monkeypatch, parts)
        cohort.fit(small(), few, epochs=2, callbacks=[Weights()])
    for one, apart in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(apart, one, atol=1e-6, rtol=1e-5)
    assert not torch.equal(found[0], found[1])


def test_a_part_that_stops_stops_the_others(few: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts(monkeypatch, 2)
    cancel, together = threading.Event(), small()
    before = together.weights.clone()
    with pytest.raises(Cancelled, match="in epoch 2 of 900, before batch"):
        cohort.fit(together, few, epochs=900, batch_size=40, cancel=cancel, callbacks=[SetAfter(cancel, 4)])
    assert not any(torch.equal(*pair) for pair in zip(together.weights.chunk(2), before.chunk(2), strict=True))
    failing = Mock(**{"on_epoch_end.side_effect": KeyError("mine")})
    with pytest.raises(KeyError, match="mine"):
        cohort.fit(together, few, epochs=900, callbacks=[failing])
    assert failing.on_epoch_end.call_count == 1


# What is pruned


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("family", ["mlp", "conv", "other"])
def test_held_zeros_are_those_of_pruned_networks_that_are_tuned_alone(
    digits: Dataset, family: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts(monkeypatch, parts)
    part = replace(digits, train=digits.train.first(101))
    families: dict[str, nn.Module] = {"mlp": models.MLP((64, 8, 10)), "conv": models.ConvNet(1, 8, (2, 3), 8)}
    template = families.get(family, nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10)))
    those = [Member(seed, lr=lr, weight_decay=0.1) for seed, lr in enumerate((1e-3, 1e-2, 1e-2))]
    drawn = zip(Cohort(template, those).models(), (0.3, 0.9, 0.0), strict=True)
    pruned = [prune.weights(net, ratio=ratio) for net, ratio in drawn]
    together = Cohort(template, those, start=pruned)
    cohort.fit(together, part.train, epochs=3, batch_size=40, hold="zeros")
    for member, net, found in zip(those, pruned, together.models(), strict=True):
        how: dict[str, Any] = {"seed": member.seed, "lr": member.lr, "weight_decay": 0.1, "batch_size": 40}
        alone = prune.fine_tune(net, part, epochs=3, **how)
        torch.testing.assert_close(vector(found), vector(alone), atol=1e-5, rtol=1e-4)
        assert [mask.sum() for mask in prune.masks(found).values()] == [m.sum() for m in prune.masks(net).values()]
        assert not torch.equal(vector(found), vector(net))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("family", ["mlp", "other"])
def test_held_values_are_those_of_shared_networks_that_are_tuned_alone(
    digits: Dataset, family: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts(monkeypatch, parts)
    part = replace(digits, train=digits.train.first(101))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10))
    template = models.MLP((64, 8, 10)) if family == "mlp" else other
    those = [Member(seed, lr=lr) for seed, lr in enumerate((1e-3, 1e-2, 1e-2))]
    drawn = zip(Cohort(template, those).models(), (0.3, 0.6, 0.0), (4, 3, 16), strict=True)
    shared = [compress.share(prune.weights(net, ratio=ratio), clusters) for net, ratio, clusters in drawn]
    together = Cohort(template, those, start=shared)
    cohort.fit(together, part.train, epochs=3, batch_size=40, hold="values")
    for member, net, found in zip(those, shared, together.models(), strict=True):
        alone = tune_codebooks(net, part, epochs=3, seed=member.seed, lr=member.lr, batch_size=40)
        torch.testing.assert_close(vector(found), vector(alone), atol=1e-3, rtol=1e-3)  # it rounds them to float16
        before, after = prune.prunable(net), prune.prunable(found)
        for name, weight in after.items():
            assert torch.equal(weight == 0, before[name] == 0)
            codes = [tensor.unique(return_inverse=True)[1] for tensor in (weight, before[name])]
            assert len(set(zip(*(code.flatten().tolist() for code in codes), strict=True))) == len(
                before[name].unique()
            )
            assert not torch.equal(weight, before[name])


def test_zeros_of_biases_move_and_other_zeros_too_unless_they_are_held(few: Split) -> None:
    start = models.MLP((64, 8, 10))
    with torch.no_grad():
        start.get_parameter("layers.0.bias").zero_()
        start.get_parameter("layers.0.weight")[:, 20:40].zero_()
    held, free = (Cohort(start, [Member()], start=[start]) for _ in range(2))
    cohort.fit(held, few, epochs=1, hold="zeros")
    cohort.fit(free, few, epochs=1)
    for together, moved in ((held, False), (free, True)):
        layer = together.model(0).get_submodule("layers.0")
        assert bool(layer.get_parameter("bias").any())
        assert bool(layer.get_parameter("weight")[:, 20:40].any()) == moved


# Randomness


def test_the_global_random_state_is_neither_read_nor_moved(few: Split) -> None:
    def state() -> tuple[Any, ...]:
        return torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    found = []
    for seed in (1, 2):
        for set_seed in (torch.manual_seed, np.random.seed, random.seed):
            set_seed(seed)
        before, together = state(), small(members(seed=range(2), dropout=[0, 0.5], fold=[0, 1], folds=2))
        cohort.fit(together, few, epochs=2)
        assert before == state()
        found.append(together.weights)
    assert torch.equal(*found)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in together.parameters())


# Refusals


NOTHING = torch.zeros(101, 10)  # targets


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hold": "ones"}, "hold must be one of None, zeros, values; got 'ones'"),
        ({"epochs": -1}, "epochs must be 0 or more; got -1"),
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"optimiser": "lion"}, "optimiser must be one of adam, sgd; got 'lion'"),
        ({"values": NOTHING[:, 1:]}, r"values must have shape \[101, 10\]; got \(101, 9\)"),
        ({"values": NOTHING[:, 0]}, r"values must have shape \[101, 10\]; got \(101,\)"),
        ({"values": NOTHING / 0}, "values must be finite; some are NaN or infinity"),
        ({"teacher_logits": NOTHING[1:]}, r"have shape \[101, 10\], or \[2, 101, 10\] .*; got \(100, 10\)"),
        ({"teacher_logits": NOTHING[None]}, r"teacher_logits must have shape .*; got \(1, 101, 10\)"),
        ({"teacher_logits": NOTHING / 0}, "teacher_logits must be finite; some are NaN or infinity"),
    ],
)
def test_fit_refuses(few: Split, settings: dict[str, Any], sentence: str) -> None:
    together = small()
    before = together.weights.clone()
    with pytest.raises((TypeError, ValueError), match=sentence):
        cohort.fit(together, few, **{"epochs": 1, **settings})
    assert torch.equal(together.weights, before)


@pytest.mark.parametrize(
    ("member", "optimiser", "sentence"),
    [
        (Member(momentum=0.5), "adam", "momentum: the optimiser 'adam' has none; leave it at 0.9"),
        (Member(beta1=0.5), "sgd", "beta1: the optimiser 'sgd' has none; leave it at 0.9"),
        (Member(beta2=0.5), "sgd", "beta2: the optimiser 'sgd' has none; leave it at 0.999"),
        (Member(n_train=1), "adam", "train: one training sample cannot make a batch; give each member at least 2"),
        (Member(n_train=102), "adam", "n_train must be at most the 101 samples there are; got 102"),
        (Member(fold=0, folds=60), "adam", "folds: a class has .* too few for 60 folds"),
        (Member(alpha=0.5), "adam", "teacher_logits is needed: alpha = 0.5 gives the soft labels a share"),
    ],
)
def test_members_that_cannot_be_trained_so(few: Split, member: Member, optimiser: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cohort.fit(small([Member(), member]), few, epochs=1, optimiser=optimiser)


def test_samples_that_do_not_fit_are_refused(few: Split) -> None:
    unlabelled = Split(few.inputs, torch.full_like(few.labels, UNLABELLED))
    for together, train, sentence in (
        (small(), few.first(0), "train is empty; it needs at least one sample"),
        (Cohort(models.MLP((63, 10)), [Member()]), few, r"the model cannot take samples of shape \(1, 8, 8\)"),
        (small(outputs=9), few, "train labels must lie in 0 .. 8, or be -1 where unlabelled"),
        (small(), Split(few.inputs, few.labels - 2), "train labels must lie in 0 .. 9, or be -1 where unlabelled"),
        (small(), unlabelled, "train has no labelled sample, and alpha = 0 learns from labels alone"),
    ):
        with pytest.raises(ValueError, match=sentence):
            cohort.fit(together, train, epochs=1)
    with pytest.raises(TypeError, match="train must be one of a data set's splits, .*; got an object of type Tensor"):
        cohort.fit(small(), few.inputs, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="folds: train has samples without a label"):
        cohort.fit(small([Member(alpha=1, fold=0)]), unlabelled, epochs=1, teacher_logits=NOTHING)
