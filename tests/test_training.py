from __future__ import annotations

import copy
import io
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit import data, models, training
from kit.data import Dataset, Split
from kit.training import Callback, Cancelled, Evaluation, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """131 training samples, so that batches of 64 leave a last one of three."""
    rng = np.random.default_rng(0)
    labels = np.arange(219) % 3
    return data.from_arrays(rng.normal(size=(219, 6)) + labels[:, None], labels)


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.seen: list[Progress] = []
        self.weights: list[torch.Tensor] = []

    def on_batch_end(self, progress: Progress) -> None:
        self.events.append(("batch", progress.epoch, progress.batch))
        self.seen.append(progress)
        self.weights.append(nn.utils.parameters_to_vector(progress.model.parameters()).detach())

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
    stepper: torch.optim.Optimizer = (
        torch.optim.Adam(reference.parameters(), **settings)
        if optimiser == "adam"
        else torch.optim.SGD(reference.parameters(), momentum=0.9, **settings)
    )
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
            assert torch.allclose(next(step), nn.utils.parameters_to_vector(reference.parameters()), atol=1e-6)
        assert history.losses[epoch] == pytest.approx(np.mean(losses), rel=1e-5)  # every sample counts the same
    assert history.batches == 9
    assert history.seconds > 0


def test_fit_learns(digits: Dataset) -> None:
    net = models.MLP()
    history = training.fit(net, digits, epochs=8, lr=3e-3)
    assert list(history.losses) == sorted(history.losses, reverse=True)
    result = training.evaluate(net, digits.validation)
    assert result.correct / result.total > 0.9


def test_the_seed_orders_the_samples(tiny: Dataset) -> None:
    nets = [models.MLP((6, 8, 3)) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        training.fit(net, tiny, epochs=1, seed=seed)
    first, again, other = (nn.utils.parameters_to_vector(net.parameters()) for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_callbacks_are_called_in_order(tiny: Dataset) -> None:
    calls: list[str] = []

    class Named(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_batch_end(self, progress: Progress) -> None:
            calls.append(f"{self.name} batch")

        def on_epoch_end(self, progress: Progress) -> None:
            calls.append(f"{self.name} epoch")

    training.fit(models.MLP((6, 3)), tiny, epochs=2, batch_size=100, callbacks=[Named("a"), Callback(), Named("b")])
    assert calls == 2 * [*2 * ["a batch", "b batch"], "a epoch", "b epoch"]


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


def test_no_epochs_change_nothing(tiny: Dataset) -> None:
    net = models.MLP((6, 3))
    before = copy.deepcopy(net.state_dict())
    assert training.fit(net, tiny, epochs=0).losses == ()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class SetAfter(Callback):
    def __init__(self, event: threading.Event, batch: int) -> None:
        self.event, self.left = event, batch

    def on_batch_end(self, progress: Progress) -> None:
        self.left -= 1
        if not self.left:
            self.event.set()


def test_cancel_stops_between_batches_and_leaves_a_usable_model(tiny: Dataset) -> None:
    cancel, recorder = threading.Event(), Recorder()
    net = models.MLP((6, 8, 3)).eval()
    with pytest.raises(Cancelled, match="cancelled in epoch 2 of 9, before batch 2"):
        training.fit(net, tiny, epochs=9, cancel=cancel, callbacks=[recorder, SetAfter(cancel, 4)])
    assert len(recorder.weights) == 4
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()), recorder.weights[-1])
    assert not net.training
    assert training.evaluate(net, tiny.validation).total == len(tiny.validation)
    training.fit(net, tiny, epochs=1)


def test_cancel_set_before_the_start_trains_nothing(tiny: Dataset) -> None:
    cancel, net = threading.Event(), models.MLP((6, 3))
    cancel.set()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(Cancelled):
        training.fit(net, tiny, epochs=1, cancel=cancel)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(Cancelled, match="cancelled after 0 of 44 samples"):
        training.evaluate(net, tiny.validation, cancel=cancel)


def test_an_error_in_a_callback_stops_the_fit(tiny: Dataset) -> None:
    class Failing(Callback):
        def on_batch_end(self, progress: Progress) -> None:
            raise KeyError("mine")

    net = models.MLP((6, 3)).eval()
    with pytest.raises(KeyError, match="mine"):
        training.fit(net, tiny, epochs=1, callbacks=[Failing()])
    assert not net.training


def test_divergence_is_said(tiny: Dataset) -> None:
    with pytest.raises(
        training.Diverged, match=r"the training loss became .* in epoch \d; try a smaller lr than 1e\+30"
    ):
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


class Modes(Callback):
    def __init__(self) -> None:
        self.training: list[bool] = []

    def on_batch_end(self, progress: Progress) -> None:
        self.training.append(progress.model.training)


@pytest.mark.parametrize("training_mode", [True, False])
def test_modes_are_put_back(tiny: Dataset, training_mode: bool) -> None:
    net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).train(training_mode)
    net[1].eval()  # a reader may keep one part in evaluation mode
    modes = Modes()
    training.fit(net, tiny, epochs=1, callbacks=[modes])
    assert set(modes.training) == {True}
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


def test_slices_can_be_cancelled_between_two(tiny: Dataset) -> None:
    cancel = threading.Event()
    slices = training.evaluate_slices(models.MLP((6, 3)), tiny.validation, batch_size=10, cancel=cancel)
    assert next(slices).total == 10
    cancel.set()
    with pytest.raises(Cancelled, match="cancelled after 10 of 44 samples"):
        next(slices)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": -1}, "epochs must be 0 or more; got -1"),
        ({"lr": 0.0}, "lr must be above 0; got 0.0"),
        ({"lr": float("nan")}, "lr must be above 0; got nan"),
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more; got -1.0"),
        ({"optimiser": "lion"}, "optimiser must be 'adam' or 'sgd'; got 'lion'"),
    ],
)
def test_fit_refuses(tiny: Dataset, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        training.fit(models.MLP((6, 3)), tiny, **{"epochs": 1, **settings})


def test_models_that_do_not_fit_are_refused(tiny: Dataset) -> None:
    few = r"logits \[\d+, n_classes\], n_classes at least 3; got shape \(\d+, 2\)"
    with pytest.raises(ValueError, match=few):
        training.fit(models.MLP((6, 2)), tiny, epochs=1)
    with pytest.raises(ValueError, match=few):
        training.evaluate(models.MLP((6, 2)), tiny.test)
    with pytest.raises(ValueError, match=r"got shape \(44, 3, 1\)"):
        training.evaluate(nn.Sequential(models.MLP((6, 3)), nn.Unflatten(1, (3, 1))), tiny.test)
    with pytest.raises(ValueError, match="model has no parameter to train"):
        training.fit(models.MLP((6, 3)).requires_grad_(False), tiny, epochs=1)
    single = tiny.train.first(1)
    one = data.Dataset("one", single, single, single, ("a", "b", "c"))
    with pytest.raises(ValueError, match="one training sample cannot make a batch"):
        training.fit(models.MLP((6, 3)), one, epochs=1)


def test_evaluate_refuses(tiny: Dataset) -> None:
    with pytest.raises(ValueError, match="batch_size must be 1 or more; got 0"):
        training.evaluate(models.MLP((6, 3)), tiny.test, batch_size=0)
    with pytest.raises(ValueError, match="split is empty"):
        training.evaluate(models.MLP((6, 3)), tiny.test.first(0))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_starts_anew_with_each_fit(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    error, bar, cancel = Terminal(), training.ProgressBar(), threading.Event()
    monkeypatch.setattr(sys, "stderr", error)
    with pytest.raises(Cancelled):
        training.fit(models.MLP((6, 3)), tiny, epochs=3, callbacks=[bar, SetAfter(cancel, 2)], cancel=cancel)
    for epochs in (1, 2):
        training.fit(models.MLP((6, 3)), tiny, epochs=epochs, callbacks=[bar])
    assert all(f"| {done} [" in error.getvalue() for done in ("3/3", "6/6"))


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_bar(tiny: Dataset, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    error = stream()
    monkeypatch.setattr(sys, "stderr", error)
    training.fit(models.MLP((6, 3)), tiny, epochs=2, callbacks=[training.ProgressBar()])
    shown = error.getvalue()
    if stream is Terminal:
        assert "6/6" in shown
        assert "epoch=2, loss=" in shown
    else:
        assert shown == ""


def test_an_evaluation_is_a_value() -> None:
    assert Evaluation(1, 2, 0.5) == Evaluation(1, 2, 0.5)


@pytest.mark.parametrize(("shape", "hint"), [((8, 8), "channel axis"), ((8, 8, 1), "before height and width")])
def test_images_with_odd_axes_are_refused_with_a_hint(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        training.predict(models.ConvNet(), torch.zeros(2, *shape))


def test_a_data_set_in_place_of_a_split_and_the_reverse(digits: Dataset) -> None:
    with pytest.raises(TypeError, match=r"split must be one of a data set's splits.*got Dataset"):
        training.evaluate(models.ConvNet(), digits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset must be a Dataset.*got tuple"):
        training.check_fits(models.ConvNet(), (1, 2))  # type: ignore[arg-type]
