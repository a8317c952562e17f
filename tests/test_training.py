from __future__ import annotations

import copy
import gc
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import data, distill, measure, models, prune, training
from kit.data import Dataset, Split
from kit.training import Callback, Cancelled, Progress
from tests.nets import SetAfter, already_set, loop, same, vector

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


@pytest.mark.parametrize(("optimiser", "batch_size"), [("adam", 64), ("sgd", 64), ("adam", 130), ("sgd", 131)])
def test_one_cycle_is_that_of_torch(tiny: Dataset, optimiser: Any, batch_size: int) -> None:
    """The ordinary loop with its scheduler; of 131 samples in batches of 130 the last one is left out of an epoch."""
    net = models.MLP((6, 8, 3))
    reference, recorder = copy.deepcopy(net), Recorder()
    steps: dict[str, Any] = {"epochs": 4, "seed": 5, "lr": 0.05, "batch_size": batch_size, "optimiser": optimiser}
    training.fit(net, tiny, schedule="one-cycle", callbacks=[recorder], **steps)
    steppers: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    stepper = steppers[optimiser](reference.parameters(), lr=0.05)
    batches = {64: 3, 130: 1, 131: 1}[batch_size]
    cycle = torch.optim.lr_scheduler.OneCycleLR(stepper, max_lr=0.05, epochs=4, steps_per_epoch=batches)
    generator, rates, weights = torch.Generator().manual_seed(5), [], iter(recorder.weights)
    for _ in range(4):
        for rows in torch.randperm(131, generator=generator).split(batch_size)[:batches]:
            stepper.zero_grad()
            F.cross_entropy(reference(tiny.train.inputs[rows]), tiny.train.labels[rows]).backward()
            rates.append(stepper.param_groups[0]["lr"])
            stepper.step()
            cycle.step()
            assert torch.allclose(next(weights), vector(reference), atol=1e-5)
    assert len(recorder.weights) == len(rates) == 4 * batches
    assert rates[0] == pytest.approx(0.05 / 25)
    assert 0.04 < max(rates) <= 0.05
    assert rates[-1] < 0.05 / 1000


@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 7])
def test_the_shortest_cycles_are_run(tiny: Dataset, epochs: int) -> None:
    steps: dict[str, Any] = {"epochs": epochs, "batch_size": 131, "schedule": "one-cycle"}
    assert training.fit(models.MLP((6, 3)), tiny, **steps).batches == epochs


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


@pytest.mark.parametrize("cancelled", [False, True])
def test_nothing_as_large_as_the_model_is_left(tiny: Dataset, cancelled: bool) -> None:
    net = models.MLP((6, 77, 3))
    gc.collect()
    gc.disable()  # an optimiser is in a cycle, which would be found at some time
    try:
        if cancelled:
            cancel = threading.Event()
            with pytest.raises(Cancelled):
                training.fit(net, tiny, epochs=3, callbacks=[SetAfter(cancel, 2)], cancel=cancel)
        else:
            training.fit(net, tiny, epochs=1)
        shape = next(net.parameters()).shape
        alive = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and each.shape == shape]
    finally:
        gc.enable()
    assert len(alive) == 1 and all(each.grad is None for each in net.parameters())


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_answers_that_are_no_numbers_are_never_right(tiny: Dataset, bad: float) -> None:
    """NaN's largest logit is the first: such a model once had the accuracy of class 0."""
    net = models.MLP((6, 3))
    hurt = tiny.test.inputs[:, 0] > tiny.test.inputs[:, 0].median()
    with torch.no_grad():
        right = net(tiny.test.inputs).argmax(1) == tiny.test.labels

    def spoil(module: nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        rows = inputs[0][:, 0] > tiny.test.inputs[:, 0].median()
        return torch.where(rows[:, None] & torch.tensor([False, True, False]), bad, logits)

    net.register_forward_hook(spoil)
    result = training.evaluate(net, tiny.test, batch_size=7)
    assert (result.nonfinite, result.correct) == (int(hurt.sum()), int((right & ~hurt).sum()))
    assert result.broken == f"answers NaN or infinity for {int(hurt.sum())} of {len(hurt)} samples"
    assert training.evaluate(models.MLP((6, 3)), tiny.test).broken == ""
    nn.init.constant_(net.layers[0].weight, bad)  # type: ignore[arg-type]
    assert training.evaluate(net, tiny.test).correct == 0


@pytest.mark.parametrize("wrap", [lambda z: (z, z + 1), lambda z: {"logits": z}, lambda z: SimpleNamespace(logits=z)])
def test_a_model_may_wrap_its_logits_in_training_alone(tiny: Dataset, wrap: Any) -> None:
    """As Inception does, whose auxiliary logits come in training mode only."""

    class Auxiliary(models.MLP):
        def forward(self, x: torch.Tensor) -> Any:
            z = super().forward(x)
            return wrap(z) if self.training else z

    net, plain = Auxiliary((6, 8, 3)), models.MLP((6, 8, 3))
    assert training.fit(net, tiny, epochs=2).losses == training.fit(plain, tiny, epochs=2).losses
    assert training.evaluate(net, tiny.test) == training.evaluate(plain, tiny.test)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_another_dtype_are_trained_and_evaluated(tiny: Dataset, dtype: torch.dtype) -> None:
    net = models.MLP((6, 8, 3)).to(dtype)
    history = training.fit(net, tiny, epochs=4, lr=0.03)
    assert history.losses[-1] < history.losses[0]
    with torch.no_grad():
        logits = net(tiny.test.inputs.to(dtype)).double()
    result = training.evaluate(net, tiny.test)
    assert result.correct == int((logits.argmax(1) == tiny.test.labels).sum())
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, tiny.test.labels)), rel=1e-5)


def normalised(dropout: float = 0.0) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=True), nn.Dropout(dropout), nn.Linear(8, 3))
    models.initialise(net, 0)
    return net


@pytest.mark.parametrize(
    ("whole", "layer", "trained", "kept"),
    [
        (True, False, True, True),  # put in evaluation mode by its owner
        (True, False, False, True),
        (False, False, False, True),  # the whole model was evaluated: its weights say that the layer is frozen
        (False, False, True, False),
        (True, True, True, False),
        (True, True, False, False),  # statistics move, as in PyTorch
    ],
)
@pytest.mark.parametrize("way", ["fit", "fine_tune", "distill"])
def test_frozen_normalisation_keeps_its_statistics(
    tiny: Dataset, whole: bool, layer: bool, trained: bool, kept: bool, way: str
) -> None:
    net = normalised().train(whole)
    net[1].train(layer).requires_grad_(trained)
    before, first = net[1].running_mean.clone(), vector(net[0])  # type: ignore[operator]
    if way == "fit":
        training.fit(net, tiny, epochs=1)
    elif way == "fine_tune":
        net = prune.fine_tune(net, tiny, epochs=1)  # type: ignore[assignment]
    else:
        distill.fit(net, models.MLP((6, 3)), tiny.train, epochs=1)
    assert torch.equal(net[1].running_mean, before) is kept  # type: ignore[arg-type]
    assert not torch.equal(vector(net[0]), first)
    assert (net.training, net[1].training) == (whole, layer)


def test_dropout_follows_the_seed(tiny: Dataset) -> None:
    """As `torch.manual_seed` before the ordinary loop would have it, and the notebook's generator stays."""
    nets = []
    for outside, seed in ((1, 5), (2, 5), (1, 6)):
        net = normalised(0.5)
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        training.fit(net, tiny, epochs=2, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        nets.append(net)
    assert same(nets[0], nets[1]) and not same(nets[0], nets[2])
    by_hand = normalised(0.5)
    torch.manual_seed(5)
    x, y = tiny.train.inputs, tiny.train.labels
    loop([by_hand], len(x), lambda rows: F.cross_entropy(by_hand(x[rows]), y[rows]), epochs=2, seed=5)
    assert torch.allclose(vector(nets[0]), vector(by_hand), atol=1e-6)


def test_a_seed_that_the_notebook_sets_beside_a_fit_stays(tiny: Dataset) -> None:
    class Notebook(Callback):
        def on_batch_end(self, progress: Progress) -> None:
            torch.manual_seed(progress.batch)

    training.fit(normalised(0.5), tiny, epochs=1, callbacks=[Notebook()])
    assert torch.initial_seed() == 3 and torch.equal(torch.rand(3), torch.rand(3, generator=torch.manual_seed(3)))


def test_fits_of_several_threads_draw_as_they_would_alone(tiny: Dataset) -> None:
    def fit(seed: int, net: nn.Module) -> None:
        training.fit(net, tiny, epochs=3, seed=seed)

    alone, together = ([normalised(0.5) for _ in range(4)] for _ in range(2))
    for each in enumerate(alone):
        fit(*each)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fit, range(4), together))
    assert all(map(same, alone, together))


REFUSED: dict[str, list[tuple[str, Any]]] = {
    "must be 0 or more": [("epochs", -1), ("weight_decay", -1.0), ("weight_decay", math.nan), ("seed", -1)],
    "must be above 0": [("lr", 0.0), ("lr", math.nan), ("lr", math.inf)],
    "must be 1 or more": [("batch_size", 0)],
    "must be one of adam, sgd": [("optimiser", "lion")],
    "must be one of constant, one-cycle": [("schedule", "cosine"), ("schedule", None), ("schedule", 1)],
    "must be a whole number": [
        (name, value) for name in ("epochs", "batch_size", "seed") for value in (True, "3", 2.5, None, math.nan)
    ],
    "must be a number": [("lr", "0.1"), ("lr", None), ("lr", True), ("weight_decay", True)],
}


@pytest.mark.parametrize("allowed", REFUSED)
def test_fit_refuses(tiny: Dataset, allowed: str) -> None:
    error = TypeError if "number" in allowed else ValueError
    for name, value in REFUSED[allowed]:
        refuse: list[Any] = [partial(training.fit, models.MLP((6, 3)), tiny, epochs=1)]
        if name == "epochs" and error is TypeError:
            refuse += [prune.PruningMethod, partial(distill.Recipe, tiny.train)]
        if name == "batch_size" and value is not None:
            refuse += [partial(training.evaluate, models.MLP((6, 3)), tiny.test)]
        for call in refuse:
            with pytest.raises(error, match=f"{name} {allowed}; got {value!r}"):
                call(**{name: value})


def test_numbers_of_numpy_are_numbers(tiny: Dataset) -> None:
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 32, "seed": 3, "lr": 0.5, "weight_decay": 0.25}
    kinds: dict[str, Any] = {"epochs": np.int64, "batch_size": np.uint8, "seed": np.int32, "lr": np.float32}
    nets = models.MLP((6, 3)), models.MLP((6, 3))
    training.fit(nets[0], tiny, **plain)
    training.fit(nets[1], tiny, **{name: kinds.get(name, float)(value) for name, value in plain.items()})
    assert same(*nets)
    assert training.evaluate(nets[0], tiny.test, batch_size=np.int64(7)).total == len(tiny.test)  # type: ignore


def test_a_lazy_model_is_evaluated_and_trained(tiny: Dataset) -> None:
    net = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 3))
    assert training.evaluate(net, tiny.test).total == len(tiny.test)
    training.fit(nn.Sequential(nn.LazyLinear(3)), tiny, epochs=1)


def test_every_slice_of_an_evaluation_counts(tiny: Dataset) -> None:
    """Also those that serve to find the fastest size of a batch."""
    net, seen = models.MLP((6, 8, 3)), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(3):
        seen.clear()
        result = training.evaluate(net, tiny.train)
        assert torch.equal(torch.cat(seen), tiny.train.inputs)
        assert (result.correct, result.total) == (training.evaluate(net, tiny.train, batch_size=500).correct, 131)


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
    for call, of in ((training.evaluate, tiny.test), (measure.profile, tiny.test), (measure.final_test, tiny)):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module; got None"):
            call(None, of)
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        measure.final_test(fits, tiny.test)  # type: ignore[arg-type]
    for call in (training.fit, training.minimise):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module; got None"):
            call(None, *([tiny] if call is training.fit else [tiny.train.inputs, F.mse_loss]), epochs=1)
    with pytest.raises(TypeError, match=r"inputs must be a tensor \[n, ...\]; got \[1, 2\]"):
        training.minimise(fits, [1, 2], lambda z, rows: z.sum(), epochs=1)  # type: ignore[arg-type]
