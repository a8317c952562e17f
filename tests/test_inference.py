from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from kit import inference, models, training
from kit.data.dataset import Dataset, Split
from kit.inference import Cancelled
from tests.nets import already_set, same, vector

pytestmark = pytest.mark.usefixtures("one_thread")


class Wrapped(nn.Module):
    """A linear layer whose logits are wrapped in something."""

    def __init__(self, wrap: Callable[[Tensor], Any], **settings: Any) -> None:
        super().__init__()
        self.layer, self.wrap = nn.Linear(6, 3, **settings), wrap
        models.initialise(self, 0)

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


def batch(n: int = 4, *shape: int) -> Tensor:
    return torch.rand(n, *(shape or (6,)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: z,
        lambda z: {"loss": z.sum(), "logits": z},
        lambda z: SimpleNamespace(logits=z, hidden=z[:, :2]),
        lambda z: (z,),
        lambda z: [z, z + 1],  # auxiliary logits
        lambda z: (z, None, z[:, :, None].expand(-1, -1, 5)),  # maps of attention
    ],
)
def test_logits_are_found_in_what_a_model_answers(wrap: Callable[[Tensor], Any]) -> None:
    net, x = Wrapped(wrap), batch()
    assert torch.equal(training.predict(net, x), net.layer(x))
    logits = inference.ask(net, x)
    assert logits.requires_grad and torch.equal(logits, net.layer(x))


@pytest.mark.parametrize(
    ("wrap", "came"),
    [
        (lambda z: {"scores": z, "boxes": z}, r"got dict\(scores, boxes\)"),
        (lambda z: (z[:, :2], z), r"got tuple of \(4, 2\), \(4, 3\)"),  # features, logits: which is which?
        (lambda z: (z.sum(), z), r"got tuple of \(\), \(4, 3\)"),
        (lambda z: (), "got tuple of no tensor"),
        (lambda z: None, "got NoneType"),
        (lambda z: SimpleNamespace(logits=z.tolist()), "got SimpleNamespace"),
    ],
)
def test_answers_without_logits_are_refused(wrap: Callable[[Tensor], Any], came: str) -> None:
    with pytest.raises(ValueError, match=rf"^model must answer with logits \[n, n_classes\], alone.*; {came}\.$"):
        training.predict(Wrapped(wrap), batch())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_inputs_are_cast_to_the_weights(dtype: torch.dtype) -> None:
    net, x = Wrapped(lambda z: z, dtype=dtype), batch()
    logits = training.predict(net, x)
    assert torch.equal(logits, net.layer(x.to(dtype)).to(logits.dtype))
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert training.predict(Wrapped(lambda z: z), x.double()).dtype == torch.float32


def test_ids_of_tokens_are_never_rounded() -> None:
    """In bfloat16, 257 would become 256."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []
            self.table = nn.Embedding(1000, 3, dtype=torch.bfloat16)

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x.long())
            return self.table(x.long()).mean(1)

    net = Tokens()
    for ids in ([[0.0, 255.0]], [[3.0, 257.0]]):
        training.predict(net, torch.tensor(ids))
        assert net.seen[-1].tolist() == ids


def embedded() -> nn.Module:
    return nn.Sequential(nn.Embedding(10, 3), nn.Flatten())


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6, dtype=torch.float64), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("net", "inputs", "error", "sentence"),
    [
        (mixed(), batch(), ValueError, r"the model, with weights in float32 and float64, cannot take samples in float"),
        (mixed(), batch(), ValueError, r"model\.float\(\) makes all weights float32"),
        (embedded(), batch(), ValueError, r"cannot take samples in float32: .*takes a data set that has them"),
        (embedded(), torch.full((2, 6), 12), ValueError, r"tables of 10 rows, cannot take 6 ids a sample, from 12"),
        (nn.Bilinear(2, 2, 2), batch(), ValueError, r"cannot take samples of shape \(6,\): .*missing 1 required"),
        (models.MLP((5, 3)).double(), batch(), ValueError, r"the model takes samples of 5 numbers"),
        (nn.MultiheadAttention(8, 2), batch(), ValueError, r"cannot take samples of shape \(6,\)"),
        (models.MLP((6, 3)), [[1.0] * 6], TypeError, r"inputs must be a tensor \[n, \.\.\.\]; got \[\[1\.0"),
        (models.MLP, batch(), TypeError, r"model must be a torch\.nn\.Module; got <class"),
        (None, batch(), TypeError, r"model must be a torch\.nn\.Module; got None"),
    ],
)
def test_what_a_model_refuses_is_said_in_a_sentence(net: Any, inputs: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        training.predict(net, inputs)
    assert "\n" not in str(caught.value)


def normalised() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))


def test_statistics_are_those_of_what_each_layer_gets() -> None:
    net: Any = normalised()
    x = batch(40)
    net[1].momentum, net[1].running_mean[:] = 0.3, 7.0
    net[2][1].eval()
    before, modes = copy.deepcopy(net), [module.training for module in net.modules()]
    renewed: Any = training.renew_statistics(net, x)
    first = before[0](x)
    second = before[2][0]((first - first.mean(0)) / (first.var(0, unbiased=False) + 1e-5).sqrt())
    for layer, values in ((renewed[1], first), (renewed[2][1], second)):
        assert torch.allclose(layer.running_mean, values.mean(0), atol=1e-5)
        assert torch.allclose(layer.running_var, values.var(0), atol=1e-5)
    assert same(net, before)
    for each in (net, renewed):
        assert (each[1].momentum, [module.training for module in each.modules()]) == (0.3, modes)


@pytest.mark.parametrize(("n", "sizes"), [(40, [20, 20]), (50, [25, 25]), (39, [39]), (3, [3])])
def test_batches_count_the_same(n: int, sizes: list[int]) -> None:
    net, x = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Dropout(0.9)), batch(n)
    renewed: Any = training.renew_statistics(net, x, batch_size=20)
    parts = x.split(sizes)  # dropout is off
    assert torch.allclose(renewed[1].running_mean, torch.stack([part.mean(0) for part in parts]).mean(0), atol=1e-6)
    assert torch.allclose(renewed[1].running_var, torch.stack([part.var(0) for part in parts]).mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "axes"), [(nn.BatchNorm1d(3), (3, 5), (0, 2)), (nn.BatchNorm3d(3), (3, 2, 2, 2), (0, 2, 3, 4))]
)
def test_every_kind_of_batch_normalisation_is_renewed(layer: Any, shape: tuple[int, ...], axes: tuple[int]) -> None:
    x = batch(8, *shape)
    assert torch.allclose(training.renew_statistics(layer, x).running_mean, x.mean(axes), atol=1e-6)  # type: ignore


def test_what_has_no_statistics_is_copied() -> None:
    for net in (models.MLP((6, 3)), nn.BatchNorm1d(6, track_running_stats=False), nn.LayerNorm(6)):
        assert not training.has_statistics(net)
        renewed = training.renew_statistics(net, batch())
        assert renewed is not net and same(renewed, net)
    assert training.has_statistics(normalised())


def test_renewal_is_cancelled_and_refuses() -> None:
    net = normalised()
    with pytest.raises(Cancelled, match="cancelled after 0 of 2 batches"):
        training.renew_statistics(net, batch(8), batch_size=4, cancel=already_set())
    refused: list[tuple[Any, dict[str, Any], Any, str]] = [
        (batch(1), {}, ValueError, "inputs must hold at least 2 samples.*got 1"),
        (batch(4), {"batch_size": 1}, ValueError, "batch_size must be 2 or more; got 1"),
        (batch(4), {"batch_size": 2.5}, TypeError, "batch_size must be a whole number; got 2.5"),
        ([1, 2], {}, TypeError, "inputs must be a tensor"),
        (batch(4, 5), {}, ValueError, r"cannot take samples of shape \(5,\)"),
    ]
    for inputs, settings, error, sentence in refused:
        with pytest.raises(error, match=sentence):
            training.renew_statistics(net, inputs, **settings)


def test_a_net_masked_by_torch_is_copied_after_a_pass() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    torch_prune.l1_unstructured(net[0], "weight", amount=0.5)
    net(batch())  # leaves a weight with a history, on which copy.deepcopy fails
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    copied = training.copy_of(net)
    assert torch.equal(copied(batch()), net(batch()))
    with torch.no_grad():
        copied[0].weight_orig.zero_()  # type: ignore[operator]
    assert not torch.equal(copied(batch()), net(batch()))


def test_what_cannot_be_copied_is_refused() -> None:
    net = models.MLP((6, 3))
    net.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^model: MLP cannot be copied \(cannot pickle '_thread.lock' .*\.$"):
        training.copy_of(net)


def paced(times: dict[int, float], n: int, rounds: int = 40) -> list[int]:
    """The sizes that are taken of n samples, where a pass of so many takes so long."""
    pace, taken = inference.Pace(), []
    for _ in range(rounds):
        taken.append(pace.size(n))
        if len(pace.seconds[taken[-1]]) < inference.TRIES:
            pace.seconds[taken[-1]].append(times[taken[-1]])
    return taken


@pytest.mark.parametrize(
    ("times", "n", "tried", "best"),
    [
        ({64: 1.0, 256: 3.0, 1024: 11.0}, 5000, [64] * 3 + [256] * 3 + [1024] * 3, 1024),
        ({64: 1.0, 256: 3.0, 540: 8.0}, 540, [64] * 3 + [256] * 3 + [540] * 3, 256),
        ({64: 1.0, 256: 4.5}, 5000, [64] * 3 + [256] * 3, 64),
        ({64: 1.0, 256: 8.0}, 5000, [64] * 3 + [256] * 2, 64),  # clearly slower
        ({30: 1.0}, 30, [30] * 3, 30),
    ],
)
def test_the_fastest_size_is_found_by_trying_upwards(
    times: dict[int, float], n: int, tried: list[int], best: int
) -> None:
    taken = paced(times, n)
    assert taken[: len(tried)] == tried
    assert set(taken[len(tried) :]) == {best}


def test_one_slow_moment_decides_nothing() -> None:
    pace = inference.Pace()
    pace.seconds.update({64: [1.0, 9.0, 9.0], 256: [30.0]})
    assert pace.size(5000) == 256
    pace.seconds[256] += [3.0, 30.0]
    assert pace.size(5000) == 1024


def test_batch_for_fits_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock on which the first two passes take ten times as long as the third."""
    readings = iter([0.0, 0.1, 0.0, 0.1, 0.0, 0.01])
    monkeypatch.setattr(inference, "_paces", {})
    monkeypatch.setattr(inference, "time", SimpleNamespace(thread_time=lambda: next(readings)))
    net, seen = models.MLP((6, 3)), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for seconds, size in ((0.001, 64), (0.03, 64), (0.05, 256), (0.1, 256), (1.0, 1024)):
        assert training.batch_for(net, batch(100), seconds=seconds) == size
    assert seen == [64] * 3  # remembered
    with pytest.raises(ValueError, match="seconds must be above 0; got 0"):
        training.batch_for(net, batch(), seconds=0)
    with pytest.raises(ValueError, match="inputs is empty"):
        training.batch_for(net, batch(0), seconds=1)


@pytest.mark.parametrize(("took", "size"), [(0.01, 256), (0.02, 32), (0.04, 16), (0.06, 8), (3.0, 8)])
def test_of_a_large_slow_model_a_batch_is_what_fits_its_time(
    monkeypatch: pytest.MonkeyPatch, took: float, size: int
) -> None:
    """No pass over 64 samples is made to find out that they would take long."""
    seen: list[int] = []
    clock = [0.0]

    def watch(_: Any, inputs: Any) -> None:
        seen.append(len(inputs[0]))
        clock[0] += took * len(inputs[0]) / 8

    monkeypatch.setattr(inference, "_paces", {})
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    monkeypatch.setattr(inference, "time", SimpleNamespace(thread_time=lambda: clock[0]))
    net = models.MLP((6, 3))
    net.register_forward_pre_hook(watch)
    assert training.batch_for(net, batch(300), seconds=0.4) == size
    assert (64 in seen) == (size > 64)
    assert inference.pace_of(net, batch()).rate(size) == pytest.approx(took / 8)  # by the passes that were timed


class Stopping(nn.Module):
    """A layer that sets an event in its forward or in its backward pass, and then goes on."""

    def __init__(self, stop: threading.Event, where: str) -> None:
        super().__init__()
        self.stop, self.where = stop, where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "forward":
            self.stop.set()
        elif x.requires_grad:
            x.register_hook(lambda gradient: self.stop.set())
        return x + 0


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_large_model_is_interrupted_inside_of_a_batch(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    stop = threading.Event()
    after: list[int] = []
    net = nn.Sequential(nn.Linear(4, 4), Stopping(stop, where), nn.Linear(4, 3))
    net[2].register_forward_hook(lambda *_: after.append(1))
    inputs, labels = torch.rand(60, 4), torch.arange(60) % 3
    split = Split(inputs, labels)
    dataset = Dataset("random", split, split, split, ("a", "b", "c"))
    outside, before = torch.get_rng_state(), vector(net)
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    with pytest.raises(training.Cancelled, match=r"in epoch 1 of 1, before batch 1 was done\."):
        training.minimise(net, inputs, lambda logits, rows: logits.square().mean(), epochs=1, cancel=stop)
    assert len(after) == (where == "backward")
    assert torch.equal(vector(net), before)  # no step was taken
    assert torch.equal(torch.get_rng_state(), outside)
    stop.clear()
    if where == "forward":
        with pytest.raises(training.Cancelled, match="after 0 of 60 samples"):
            training.evaluate(net, dataset.validation, cancel=stop)
    assert torch.rand(1).shape == (1,)  # the watch is over: nothing is interrupted any more
    assert training.evaluate(net, dataset.validation).total == 60


def test_a_pace_is_that_of_an_architecture() -> None:
    one, again, other = models.MLP((6, 3)), models.MLP((6, 3), seed=1), models.MLP((6, 4, 3))
    assert inference.pace_of(one, batch()) is inference.pace_of(again, batch(9))
    paces = {id(inference.pace_of(*each)) for each in ((one, batch()), (other, batch()), (one, batch(4, 2, 3)))}
    assert len(paces) == 3


def test_probabilities_are_told_from_logits() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert inference.are_probabilities(logits.softmax(1)) and inference.are_probabilities(logits.softmax(1).half())
    nearly = logits.softmax(1)
    nearly[3, 2] += 0.01
    below = torch.tensor([[1.2, -0.2], [0.5, 0.5]])
    broken = torch.full((1, 2), torch.nan)
    for answer in (logits, logits.log_softmax(1), logits.sigmoid(), nearly, below, broken):
        assert not inference.are_probabilities(answer)


def test_a_light_copy_has_parameters_of_its_own_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    net: Any = nn.Sequential(nn.Embedding(9, 4), nn.GRU(4, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    net[3].weight, net[2].bias.requires_grad = net[0].weight, False
    light: Any = inference.light_copy(net)
    pairs = list(zip(net.parameters(), light.parameters(), strict=True))
    assert len(pairs) == 7  # tied ones stay tied
    assert all(old is not new and old.data_ptr() == new.data_ptr() for old, new in pairs)
    assert all(old.requires_grad == new.requires_grad for old, new in pairs)
    light.requires_grad_(False)
    assert net[0].weight.requires_grad
    x = torch.rand(5, 2, 4)
    assert torch.equal(light[1](x)[0], net[1](x)[0])
    with torch.inference_mode():
        strange = nn.Linear(3, 2)
    own: Any = inference.light_copy(strange)  # whose parameters no other mode may wrap anew
    assert torch.equal(own.weight, strange.weight) and own.weight is not strange.weight
    monkeypatch.setattr(inference.ctypes, "CDLL", lambda name: object())
    inference.give_back()  # a C library without that function is no matter
