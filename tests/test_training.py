from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import data, distill, models, prune, training
from kit.data import Dataset, Split
from kit.training import Callback, Cancelled, Progress
from tests.nets import SetAfter, already_set, same, vector

pytestmark = pytest.mark.usefixtures("one_thread")


class Recorder(Callback):
    """Remembers each call, and after each batch the weights and whether the model was in training."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.seen: list[Progress] = []
        self.weights: list[torch.Tensor] = []
        self.modes: list[bool] = []

    def on_batch_end(self, progress: Progress) -> None:
        self.events.append(("batch", progress.epoch, progress.batch))
        self.seen.append(progress)
        self.weights.append(vector(progress.model))
        self.modes.append(progress.model.training)

    def on_epoch_end(self, progress: Progress) -> None:
        self.events.append(("epoch", progress.epoch, progress.batch))
        self.seen.append(progress)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_fit_is_the_ordinary_loop(tiny: Dataset, optimiser: Any, weight_decay: float) -> None:
    net = models.MLP((6, 8, 3))
    reference, recorder = copy.deepcopy(net), Recorder()
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": weight_decay}
    history = training.fit(net, tiny, epochs=3, seed=5, optimiser=optimiser, callbacks=[recorder], **settings)
    steppers: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    stepper = steppers[optimiser](reference.parameters(), **settings)
    generator, step = torch.Generator().manual_seed(5), iter(recorder.weights)
    for epoch in range(3):
        order, losses = torch.randperm(131, generator=generator), []
        for start in range(0, 131, 64):
            rows = order[start : start + 64]
            stepper.zero_grad()
            each = F.cross_entropy(reference(tiny.train.inputs[rows]), tiny.train.labels[rows], reduction="none")
            each.mean().backward()
            stepper.step()
            losses += each.tolist()
            assert torch.allclose(next(step), vector(reference), atol=1e-6)
        assert history.losses[epoch] == pytest.approx(np.mean(losses), rel=1e-5)  # every sample counts the same
    assert history.batches == 9
    assert history.seconds > 0


def test_fit_learns(digits: Dataset) -> None:
    net = models.MLP()
    history = training.fit(net, digits, epochs=8, lr=3e-3)
    assert list(history.losses) == sorted(history.losses, reverse=True)
    result = training.evaluate(net, digits.validation)
    assert result.correct / result.total > 0.9


def test_callbacks_are_called_in_order_and_their_errors_stop_the_fit(tiny: Dataset) -> None:
    calls = Mock()
    training.fit(models.MLP((6, 3)), tiny, epochs=2, batch_size=100, callbacks=[calls.a, Callback(), calls.b])
    epoch = [*2 * ["a.on_batch_end", "b.on_batch_end"], "a.on_epoch_end", "b.on_epoch_end"]
    assert [name for name, _, _ in calls.mock_calls] == 2 * epoch
    failing, net = Mock(**{"on_batch_end.side_effect": KeyError("mine")}), models.MLP((6, 3)).eval()
    with pytest.raises(KeyError, match="mine"):
        training.fit(net, tiny, epochs=1, callbacks=[failing])
    assert not net.training


def test_progress_says_where_the_fit_stands(tiny: Dataset) -> None:
    recorder, net = Recorder(), models.MLP((6, 3))
    history = training.fit(net, tiny, epochs=2, callbacks=[recorder])
    batches = [("batch", epoch, batch) for epoch in (0, 1) for batch in (1, 2, 3)]
    assert recorder.events == [*batches[:3], ("epoch", 0, 3), *batches[3:], ("epoch", 1, 3)]
    steps = [p for p, event in zip(recorder.seen, recorder.events, strict=True) if event[0] == "batch"]
    assert [p.share for p in steps] == pytest.approx([i / 6 for i in range(1, 7)])
    assert [p.seconds_left for p in steps] == pytest.approx([p.seconds * (6 - i) / i for i, p in enumerate(steps, 1)])
    assert all(p.model is net and p.epochs == 2 and p.batches == 3 for p in recorder.seen)
    ends = [p.loss for p, event in zip(recorder.seen, recorder.events, strict=True) if event[0] == "epoch"]
    assert tuple(ends) == history.losses


def test_cancel_stops_between_batches_and_leaves_a_usable_model(tiny: Dataset) -> None:
    cancel, recorder = threading.Event(), Recorder()
    net = models.MLP((6, 8, 3)).eval()
    with pytest.raises(Cancelled, match="cancelled in epoch 2 of 9, before batch 2"):
        training.fit(net, tiny, epochs=9, cancel=cancel, callbacks=[recorder, SetAfter(cancel, 4)])
    assert len(recorder.weights) == 4
    assert torch.equal(vector(net), recorder.weights[-1])
    assert not net.training
    assert training.evaluate(net, tiny.validation).total == len(tiny.validation)
    training.fit(net, tiny, epochs=1)


def test_no_epochs_train_nothing_nor_does_what_is_cancelled_at_its_start(tiny: Dataset) -> None:
    cancel, net = already_set(), models.MLP((6, 3))
    assert training.fit(net, tiny, epochs=0).losses == ()
    with pytest.raises(Cancelled):
        training.fit(net, tiny, epochs=1, cancel=cancel)
    assert same(net, models.MLP((6, 3)))
    with pytest.raises(Cancelled, match="cancelled after 0 of 44 samples"):
        training.evaluate(net, tiny.validation, cancel=cancel)
    cancel.clear()
    slices = training.evaluate_slices(net, tiny.validation, batch_size=10, cancel=cancel)
    assert next(slices).total == 10
    cancel.set()
    with pytest.raises(Cancelled, match="cancelled after 10 of 44 samples"):
        next(slices)


def test_divergence_is_said(tiny: Dataset) -> None:
    sentence = r"the training loss became .* in epoch \d; try a smaller lr than 1e\+30"
    with pytest.raises(training.Diverged, match=sentence):
        training.fit(models.MLP((6, 8, 3)), tiny, epochs=3, lr=1e30, optimiser="sgd")


@pytest.mark.parametrize("size", [65, 2])
def test_a_single_last_sample_is_left_out(size: int) -> None:
    """Batch normalisation over one sample without width and height would raise."""
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    whole = data.from_arrays(np.random.default_rng(0).random((10, 2)), np.arange(10) % 2)
    train = Split(torch.rand(size, 2, generator=torch.Generator().manual_seed(0)), torch.arange(size) % 2)
    dataset = data.Dataset("odd", train, whole.validation, whole.test, ("a", "b"))
    assert training.fit(net, dataset, epochs=3).batches == 3
    three = Split(torch.ones(3, 4), torch.tensor([0, 1, 0]))
    one_by_one = data.Dataset("three", three, three, three, ("a", "b"))
    assert training.fit(net[2:], one_by_one, epochs=2, batch_size=1).batches == 6


@pytest.mark.parametrize("training_mode", [True, False])
def test_modes_are_put_back(tiny: Dataset, training_mode: bool) -> None:
    net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).train(training_mode)
    net[1].eval()  # a reader may keep one part in evaluation mode
    recorder = Recorder()
    training.fit(net, tiny, epochs=1, callbacks=[recorder])
    assert set(recorder.modes) == {True}
    training.evaluate(net, tiny.validation)
    assert net.training is net[0].training is training_mode
    assert not net[1].training
    statistics = net[1].running_mean.clone()  # type: ignore[operator]
    training.evaluate(net.train(), tiny.validation)
    assert torch.equal(net[1].running_mean, statistics)  # type: ignore[arg-type]


def test_frozen_parameters_stay(tiny: Dataset) -> None:
    net = models.MLP((6, 8, 3))
    net.layers[0].requires_grad_(False)
    first, last = net.layers[0].weight.clone(), net.layers[1].weight.clone()  # type: ignore[operator]
    training.fit(net, tiny, epochs=1)
    assert torch.equal(net.layers[0].weight, first)  # type: ignore[arg-type]
    assert not torch.equal(net.layers[1].weight, last)  # type: ignore[arg-type]


def test_evaluate_counts(tiny: Dataset) -> None:
    net = models.MLP((6, 8, 3))
    logits = training.predict(net, tiny.test.inputs)
    assert not logits.requires_grad
    result = training.evaluate(net, tiny.test, batch_size=7)
    assert result.correct == int((logits.argmax(1) == tiny.test.labels).sum())
    assert result.total == len(tiny.test)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, tiny.test.labels)), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 43, 44, 1000])
def test_slices_add_up(tiny: Dataset, batch_size: int) -> None:
    net, split = models.MLP((6, 8, 3)), tiny.validation
    slices = list(training.evaluate_slices(net, split, batch_size=batch_size))
    assert [s.total for s in slices] == [*range(batch_size, 44, batch_size), 44]
    for part in slices:
        whole = training.evaluate(net, split.first(part.total))
        assert (part.correct, part.total) == (whole.correct, whole.total)
        assert part.loss == pytest.approx(whole.loss, rel=1e-5)


REFUSED: dict[str, list[tuple[str, Any]]] = {
    "must be 0 or more": [("epochs", -1), ("weight_decay", -1.0)],
    "must be above 0": [("lr", 0.0), ("lr", float("nan"))],
    "must be 1 or more": [("batch_size", 0)],
    "must be one of adam, sgd": [("optimiser", "lion")],
    "must be a whole number": [("epochs", "3"), ("epochs", None), ("batch_size", 2.5)],
    "must be a number": [("lr", "0.1"), ("weight_decay", True)],
}


@pytest.mark.parametrize("allowed", REFUSED)
def test_fit_refuses(tiny: Dataset, allowed: str) -> None:
    error = TypeError if "number" in allowed else ValueError
    for name, value in REFUSED[allowed]:
        refuse: list[Any] = [partial(training.fit, models.MLP((6, 3)), tiny, epochs=1)]
        if name == "epochs" and error is TypeError:
            refuse += [prune.PruningMethod, partial(distill.Recipe, tiny.train)]
        for call in refuse:
            with pytest.raises(error, match=f"{name} {allowed}; got {value!r}"):
                call(**{name: value})


def test_what_does_not_fit_together_is_refused(tiny: Dataset, digits: Dataset) -> None:
    fits, few = models.MLP((6, 3)), models.MLP((6, 2))
    column = nn.Sequential(fits, nn.Unflatten(1, (3, 1)))
    single = tiny.train.first(1)
    one, fit = data.Dataset("one", single, single, single, ("a", "b", "c")), partial(training.fit, epochs=1)
    two_logits = r"logits \[\d+, n_classes\], n_classes at least 3; got shape \(\d+, 2\)"
    call: Any
    for call, model, samples, sentence in (
        (fit, few, tiny, two_logits),
        (training.evaluate, few, tiny.test, two_logits),
        (training.evaluate, column, tiny.test, r"got shape \(44, 3, 1\)"),
        (fit, models.MLP((6, 3)).requires_grad_(False), tiny, "model has no parameter to train"),
        (fit, fits, one, "one training sample cannot make a batch"),
        (partial(training.evaluate, batch_size=0), fits, tiny.test, "batch_size must be 1 or more; got 0"),
        (training.evaluate, fits, tiny.test.first(0), "split is empty"),
        (training.predict, models.ConvNet(), torch.zeros(2, 8, 8), "channel axis"),
        (training.predict, models.ConvNet(), torch.zeros(2, 8, 8, 1), "before height and width"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call(model, samples)
    with pytest.raises(TypeError, match=r"split must be one of a data set's splits.*got Dataset"):
        training.evaluate(models.ConvNet(), digits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset must be a Dataset.*got .1, 2."):
        training.check_fits(models.ConvNet(), (1, 2))  # type: ignore[arg-type]
