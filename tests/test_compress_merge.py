"""Several networks into one, against sums by hand, all permutations in turn, and closed forms."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import distill, measure, models, training
from kit.compress import Averaging, align, average, ensemble, path, soup
from kit.compress.line import Path, Point, score
from kit.compress.merge import mixed
from kit.data import Dataset
from kit.prune import Untraceable
from tests.nets import already_set, count_calls, same
from tests.strangers import STRANGERS

# Their layers are read and written as they are, whatever their types may be.
MLP: Any = models.MLP
ConvNet: Any = models.ConvNet
ResNet: Any = models.ResNet


def numbers(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().astype(float) for name, tensor in model.state_dict().items()}


def few(digits: Dataset) -> Dataset:
    """Quick to train on, quick to measure on."""
    return dataclasses.replace(digits, train=digits.train.first(300), validation=digits.validation.first(100))


@pytest.fixture(scope="module")
def pair(digits: Dataset) -> tuple[Any, Any]:
    """Two networks that know the digits, from different starts."""
    nets = MLP((64, 16, 10), seed=1), MLP((64, 16, 10), seed=2)
    for seed, net in enumerate(nets):
        training.fit(net, digits, epochs=3, lr=1e-2, seed=seed)
    return nets


# -- averages ----------------------------------------------------------------------------------------------------------


def test_the_average_is_the_mean_of_every_weight_and_changes_no_model() -> None:
    nets = [MLP((6, 5, 3), seed=seed) for seed in range(3)]
    before = copy.deepcopy(nets)
    result: Any = average(nets)
    for name, values in numbers(result).items():
        assert np.allclose(values, sum(numbers(net)[name] for net in nets) / 3, atol=1e-7)
    assert all(map(same, nets, before)) and type(result) is MLP
    tilted = average(nets, [1, 0, 3])
    for name, values in numbers(tilted).items():
        assert np.allclose(values, numbers(nets[0])[name] / 4 + 3 * numbers(nets[2])[name] / 4, atol=1e-7)
    assert same(average(nets[:1]), nets[0]) and same(average(nets, [0, 2.0, 0]), nets[1])


def test_zeros_modes_frozen_parts_and_tied_weights_stay() -> None:
    nets = [MLP((6, 5, 5, 3), seed=seed) for seed in range(2)]
    for net in nets:
        net.layers[0].weight.data[:, :2] = 0
        net.layers[1].weight.requires_grad_(False)
        net.layers[1].bias = net.layers[0].bias
        net.eval()
    result: Any = average(nets)
    assert (result.layers[0].weight[:, :2] == 0).all() and (result.layers[0].weight[:, 2:] != 0).all()
    assert not result.layers[1].weight.requires_grad and result.layers[0].weight.requires_grad and not result.training
    assert result.layers[1].bias is result.layers[0].bias


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_average_has_the_type_of_the_models(dtype: torch.dtype) -> None:
    nets = [MLP((6, 5, 3), seed=seed).to(dtype) for seed in range(2)]
    result: Any = average(nets)
    one, other, mean = (net.layers[0].weight.double() for net in (*nets, result))
    assert result.layers[0].weight.dtype == dtype
    assert torch.equal(mean, ((one + other) / 2).to(dtype).double())


def test_a_parametrised_weight_is_averaged_as_the_weight_that_it_makes() -> None:
    nets: list[Any] = [nn.utils.parametrizations.weight_norm(MLP((4, 3), seed=seed).layers[0]) for seed in range(2)]
    result: Any = average(nets)
    assert torch.allclose(result.weight, (nets[0].weight + nets[1].weight) / 2)


def test_batch_statistics_of_the_average_are_those_of_what_comes_in(digits: Dataset) -> None:
    nets = [ResNet(widths=(4, 6), seed=seed) for seed in range(2)]
    for net in nets:
        training.fit(net, few(digits), epochs=1)
    result: Any = average(nets, dataset=digits)
    came = list[Tensor]()
    with result.stages[0].bn1.register_forward_pre_hook(lambda _, arguments: came.append(arguments[0])):
        training.predict(result, digits.train.inputs[:1024])
    assert torch.allclose(result.stages[0].bn1.running_mean, came[0].mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(result.stages[0].bn1.running_var, came[0].var((0, 2, 3)), rtol=0.05)
    with pytest.raises(ValueError, match=r"dataset is needed to measure statistics again: .* give dataset=digits"):
        average(nets)
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        average(nets, dataset=3)  # type: ignore[arg-type]


class Indexed(nn.Module):
    def __init__(self, places: list[int], seed: int = 0) -> None:
        super().__init__()
        self.net = MLP((2, 3), seed=seed)
        self.places: Tensor
        self.register_buffer("places", torch.tensor(places))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1)[:, self.places])


def test_models_that_do_not_match_are_refused() -> None:
    mlp = MLP((64, 16, 10))
    wrong: list[tuple[Any, str]] = [
        (
            [mlp, MLP((64, 8, 10))],
            r"models\[1\] must match models\[0\]: layers.0.weight is \(16, 64\) of float32 in one,",
        ),
        ([mlp, ConvNet()], r"the model is MLP in one, the model ConvNet in the other\. Only networks of one arch"),
        ([mlp, MLP((64, 16, 16, 10))], r"layers.2 Linear in the other"),
        ([mlp, MLP((64, 16, 10)).double()], r"float32 in one, \(16, 64\) of float64 in the other"),
        ([nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh())], "0 is ReLU in one, 0 Tanh in the other"),
        ([nn.Linear(3, 2), nn.Linear(3, 2, bias=False)], "bias is a tensor of its own in one only"),
        ([Indexed([0, 1]), Indexed([1, 2])], "places, of whole numbers, differs, and these have no mean"),
        ([], "models is empty; it needs at least one network"),
    ]
    for given, match in wrong:
        with pytest.raises(ValueError, match=match):
            average(given)
    same_places: Any = average([Indexed([0, 1]), Indexed([0, 1], seed=1)])
    assert same_places.places.tolist() == [0, 1]
    untied, tied = MLP((6, 6, 6, 6)), MLP((6, 6, 6, 6))
    tied.layers[1].weight = tied.layers[0].weight
    with pytest.raises(ValueError, match="layers.1.weight is a tensor of its own in one only"):
        average([untied, tied])
    for kind in (mlp, "ab", 3, [mlp, 3]):
        with pytest.raises(TypeError, match=r"models(\[.\])? must be (networks in a row|a torch.nn.Module)"):
            average(kind)  # type: ignore[arg-type]
    for weights in ([1], [0, 0], [1, 2, 3]):
        with pytest.raises(ValueError, match="weights must be 2 numbers, one a model, not all 0"):
            average([mlp, mlp], weights)
    with pytest.raises(TypeError, match="weights must be numbers in a row, one a model; got 3"):
        average([mlp, mlp], 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights must be 0 or more"):
        average([mlp, mlp], [2, -1])


def test_a_greedy_soup_takes_what_does_not_harm(digits: Dataset, pair: tuple[Any, Any]) -> None:
    start = pair[0]
    forks = [copy.deepcopy(start) for _ in range(3)]
    for seed, fork in enumerate(forks):
        training.fit(fork, digits, epochs=1, seed=10 + seed)
    garbage = MLP((64, 16, 10), seed=9)
    given = [garbage, *forks]
    found = soup(given, digits)
    alone = [measure.accuracy(each, digits.validation).value for each in given]
    assert found.chosen[0] == int(np.argmax(alone)) and 0 not in found.chosen
    assert found.accuracy.value >= max(alone)
    assert same(found.model, average([given[each] for each in found.chosen]))
    assert found.accuracy == measure.accuracy(found.model, digits.validation)
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        soup(given, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="models is empty"):
        soup([], digits)


def test_a_run_is_collected_from_the_first_epoch_asked_for(digits: Dataset) -> None:
    data, net, run = few(digits), MLP((64, 8, 10)), Averaging(first=3)
    training.fit(net, data, epochs=4, callbacks=[run])
    shorter = MLP((64, 8, 10))
    training.fit(shorter, data, epochs=3)
    assert len(run.models) == 2
    assert same(run.models[0], shorter) and same(run.models[1], net) and run.models[1] is not net
    with pytest.raises(ValueError, match="first must be 1 or more; got 0"):
        Averaging(first=0)


# -- ensembles ---------------------------------------------------------------------------------------------------------


def test_an_ensemble_answers_with_the_mean_of_probabilities(digits: Dataset, pair: tuple[Any, Any]) -> None:
    other, x = ConvNet(channels=(2, 3), hidden=4).double(), digits.validation.inputs
    together = ensemble([*pair, other])
    mean = torch.stack([training.predict(each, x).double().softmax(1) for each in (*pair, other)]).mean(0)
    answers = training.predict(together, x)
    assert torch.allclose(answers.double().exp(), mean, atol=1e-6)
    assert not training.are_probabilities(answers)
    losses = [training.evaluate(each, digits.validation).loss for each in (*pair, other)]
    assert training.evaluate(together, digits.validation).loss < np.mean(losses)  # Jensen
    assert together.members[0] is not pair[0]
    profile = measure.profile(ensemble(pair), digits.validation)
    assert profile.parameters == 2 * measure.parameters(pair[0])
    assert profile.flops == 2 * measure.flops(pair[0], x[:1])
    alone = ensemble([pair[0].double()])
    pair[0].float()
    assert torch.allclose(training.predict(alone, x), training.predict(pair[0], x).double().log_softmax(1), atol=1e-5)


def test_an_ensemble_teaches_one_network(digits: Dataset, pair: tuple[Any, Any]) -> None:
    teacher, student = ensemble(pair), MLP((64, 16, 10), seed=5)
    distill.fit(student, teacher, digits.train, epochs=5, lr=1e-2, temperature=2)
    assert measure.accuracy(student, digits.validation).value > 0.7
    assert same(teacher.members[0], pair[0])


def test_what_is_no_ensemble_is_refused(digits: Dataset) -> None:
    for given in (3, MLP(), [MLP(), "b"]):
        with pytest.raises(TypeError, match=r"models(\[1\])? must be"):
            ensemble(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="models is empty"):
        ensemble([])
    with pytest.raises(ValueError, match="members of an ensemble must answer as many classes each; got 10, 3"):
        training.predict(ensemble([MLP(), MLP((64, 3))]), digits.validation.inputs[:2])


# -- units matched -----------------------------------------------------------------------------------------------------


def product(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return sum(float((p.double() * q.double()).sum().detach()) for p, q in pairs)


def test_a_known_permutation_of_an_mlp_is_found_again(digits: Dataset) -> None:
    net = MLP((64, 20, 12, 10)).double()
    dice = np.random.default_rng(0)
    p, q = dice.permutation(20), dice.permutation(12)
    moved = copy.deepcopy(net)
    moved.layers[0].weight.data, moved.layers[0].bias.data = net.layers[0].weight[p], net.layers[0].bias[p]
    moved.layers[1].weight.data, moved.layers[1].bias.data = net.layers[1].weight[q][:, p], net.layers[1].bias[q]
    moved.layers[2].weight.data = net.layers[2].weight[:, q]
    before = copy.deepcopy(moved)
    found = align(moved, net, dataset=digits)
    assert same(found.model, net) and same(moved, before) and not found.skipped
    assert list(found.permutations) == ["layers.0", "layers.1"]
    assert found.permutations["layers.0"] == tuple(np.argsort(p))
    assert found.permutations["layers.1"] == tuple(np.argsort(q))
    for name in found.after:
        assert np.allclose(found.after[name], 1) and np.mean(found.before[name]) < 0.6


def test_channels_before_a_flattening_move_with_all_their_pixels(digits: Dataset) -> None:
    net = ConvNet(channels=(6, 5), hidden=7).double()
    p = np.random.default_rng(1).permutation(5)
    moved = copy.deepcopy(net)
    moved.conv2.weight.data, moved.conv2.bias.data = net.conv2.weight[p], net.conv2.bias[p]
    moved.fc1.weight.data = net.fc1.weight.view(7, 5, 4, 4)[:, p].flatten(1)
    found = align(moved, net, dataset=digits)
    assert same(found.model, net) and found.permutations["conv2"] == tuple(np.argsort(p))


@pytest.mark.parametrize("seed", range(4))
def test_of_one_layer_no_order_is_better_than_the_one_found(tiny: Dataset, seed: int) -> None:
    a, b = MLP((6, 4, 3), seed=seed).double(), MLP((6, 4, 3), seed=10 + seed).double()
    orders = [list(each) for each in itertools.permutations(range(4))]

    def worth(p: list[int]) -> float:
        first, last = a.layers
        rows = (first.weight * b.layers[0].weight[p]).sum() + (first.bias * b.layers[0].bias[p]).sum()
        return float(rows.detach() + (last.weight * b.layers[1].weight[:, p]).sum().detach())

    found = align(b, a, dataset=tiny)
    assert list(found.permutations["layers.0"]) == max(orders, key=worth)


@pytest.mark.parametrize("seed", range(3))
def test_of_two_layers_nothing_is_lost_and_no_layer_could_gain_more(tiny: Dataset, seed: int) -> None:
    a, b = MLP((6, 4, 3, 3), seed=seed).double(), MLP((6, 4, 3, 3), seed=10 + seed).double()
    found = align(b, a, dataset=tiny, tries=1, seed=seed)
    reached = product(a, found.model)
    assert reached >= product(a, b)
    assert product(a, align(b, a, dataset=tiny, tries=6, seed=seed).model) >= reached

    def swapped(layer: int, order: tuple[int, ...]) -> nn.Module:
        other: Any = copy.deepcopy(found.model)
        p = list(order)
        for name in ("weight", "bias"):
            tensor = getattr(other.layers[layer], name)
            tensor.data = tensor.data[p]
        other.layers[layer + 1].weight.data = other.layers[layer + 1].weight.data[:, p]
        return other

    for layer, width in ((0, 4), (1, 3)):
        assert all(product(a, swapped(layer, p)) <= reached + 1e-9 for p in itertools.permutations(range(width)))


REFUSED = {"glu", "tied autoencoder", "always dropping"}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_answer_as_before(name: str, digits: Dataset) -> None:
    nets = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            nets.append(STRANGERS[name]().double().eval())
    model, to = nets
    models.initialise(to, seed=3) if name == "resnet" else None
    before, state, inputs = copy.deepcopy(model), torch.get_rng_state(), digits.validation.inputs[:20].double()
    if name in REFUSED:
        with (
            torch.random.fork_rng(),
            pytest.raises(Untraceable, match=r"^model: no unit of \w+ can be moved: [^\n]*\.$"),
        ):
            align(model, to, dataset=digits)
        return
    found = align(model, to, dataset=digits)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(training.predict(found.model, inputs), training.predict(model, inputs), rtol=0, atol=1e-9)
    assert any(order != tuple(range(len(order))) for order in found.permutations.values())
    assert product(found.model, to) > product(before, to) if name != "computed weight" else found.permutations
    assert same(model, before)
    assert all(reason.endswith(".") for _, reason in found.skipped)


def test_shortcuts_and_batch_norm_move_together(digits: Dataset) -> None:
    a, b = ResNet(widths=(4, 6), seed=1).double(), ResNet(widths=(4, 6), seed=2).double()
    for net in (a, b):
        training.fit(net, few(digits), epochs=1)
    b.stem.weight.requires_grad_(False)
    found: Any = align(b, a, dataset=digits, seed=3)
    inputs = digits.validation.inputs.double()
    assert torch.allclose(training.predict(found.model, inputs), training.predict(b, inputs), rtol=0, atol=1e-9)
    assert not same(found.model, b) and not found.model.stem.weight.requires_grad
    assert sorted(found.model.stem_bn.running_var.tolist()) == sorted(b.stem_bn.running_var.tolist())
    assert same(found.model, align(b, a, dataset=digits, seed=3).model)
    assert same(align(a, a, dataset=digits).model, a)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_moved_exactly(dtype: torch.dtype, digits: Dataset) -> None:
    net = MLP((64, 12, 10)).to(dtype)
    moved = copy.deepcopy(net)
    moved.layers[0].weight.data, moved.layers[0].bias.data = net.layers[0].weight.flip(0), net.layers[0].bias.flip(0)
    moved.layers[1].weight.data = net.layers[1].weight.flip(1)
    assert same(align(moved, net, dataset=digits).model, net)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_deep_network_is_copied_no_more_often(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, training, "copy_of")
    numbers = []
    for depth in (1, 6):
        net = models.MLP((64, *[8] * depth, 10))
        assert len(align(net, net, dataset=digits).permutations) == depth
        numbers.append(len(calls))
        calls.clear()
    assert numbers[0] == numbers[1]


def test_what_cannot_be_aligned_is_refused(digits: Dataset) -> None:
    net, broken = MLP((64, 12, 10)), MLP((64, 12, 10))
    broken.layers[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"must hold finite weights; layers\.0\.weight holds NaN or infinity"):
        align(net, broken, dataset=digits)
    with pytest.raises(ValueError, match=r"to must match model: layers\.0\.weight is \(12, 64\)"):
        align(net, MLP((64, 8, 10)), dataset=digits)
    with pytest.raises(Untraceable, match="no unit of MLP can be moved: it has no hidden units"):
        align(MLP((64, 10)), MLP((64, 10)), dataset=digits)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        align("net", net, dataset=digits)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        align(net, net, dataset=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tries must be 1 or more; got 0"):
        align(net, net, dataset=digits, tries=0)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        align(net, net, dataset=digits, seed=-1)

    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)))
    with pytest.raises(Untraceable, match=r"TorchScript has compiled it, so its units cannot be matched\.$"):
        align(scripted, copy.deepcopy(scripted), dataset=digits)


# -- the line ----------------------------------------------------------------------------------------------------------


def test_points_of_the_line_are_averages_measured(digits: Dataset, pair: tuple[Any, Any]) -> None:
    a, b = pair
    line = path(a, b, digits, points=5)
    assert [point.t for point in line.points] == [0, 0.25, 0.5, 0.75, 1]
    losses = []
    for point in line.points:
        counts = training.evaluate(average([a, b], [1 - point.t, point.t]), digits.validation)
        assert point.accuracy == measure.Estimate.from_counts(counts.correct, counts.total)
        assert point.loss.value == pytest.approx(counts.loss, rel=1e-5)
        losses.append(counts.loss)
    above = [
        loss - (1 - t) * losses[0] - t * losses[4] for loss, t in zip(losses, (0, 0.25, 0.5, 0.75, 1), strict=True)
    ]
    barrier = line.barrier
    assert barrier.value == pytest.approx(max(above), rel=1e-4) and barrier.low <= barrier.value <= barrier.high
    assert line.top.t == int(np.argmax(above)) / 4
    matched = path(a, align(b, a, dataset=digits).model, digits, points=5).barrier
    assert matched.high < barrier.low


def test_between_a_network_and_its_own_permutation_there_is_no_barrier_once_aligned(
    digits: Dataset, pair: tuple[Any, Any]
) -> None:
    net, _ = pair
    moved, p = copy.deepcopy(net), torch.arange(16).roll(5)
    moved.layers[0].weight.data, moved.layers[0].bias.data = net.layers[0].weight[p], net.layers[0].bias[p]
    moved.layers[1].weight.data = net.layers[1].weight[:, p]
    assert path(net, moved, digits, points=3).barrier.low > 0.1
    flat = path(net, align(moved, net, dataset=digits).model, digits, points=3)
    assert flat.barrier.value == pytest.approx(0, abs=1e-6)


def test_a_convex_loss_has_no_barrier(digits: Dataset) -> None:
    a, b = (MLP((64, 10), seed=seed) for seed in range(2))
    line = path(a, b, digits, points=5)
    assert line.barrier == measure.Estimate(0, 0, 0, len(digits.validation))


def test_the_interval_of_a_barrier_is_that_of_the_differences() -> None:
    right = torch.ones(3, dtype=torch.bool)
    rows = [[1.0, 2.0, 3.0], [4.0, 4.0, 7.0], [1.0, 0.0, 1.0]]
    ends = Path(tuple(Point(t, right, torch.tensor(row).double()) for t, row in zip((0, 0.5, 1), rows, strict=True)))
    assert ends.barrier == measure.Estimate.from_values([3.0, 3.0, 5.0])


def test_statistics_that_are_not_renewed_do_not_fit(digits: Dataset) -> None:
    data = few(digits)
    a, b = ResNet(widths=(6, 8), seed=1), ResNet(widths=(6, 8), seed=2)
    for net in (a, b):
        training.fit(net, data, epochs=4, lr=5e-3)
    renewed, raw = (path(a, b, data, points=3, renew=renew).points for renew in (True, False))
    assert torch.equal(renewed[0].losses, raw[0].losses) and torch.equal(renewed[2].losses, raw[2].losses)
    assert torch.equal(raw[1].losses, score(mixed([a, b], [0.5, 0.5]), data.validation).losses)
    assert torch.equal(renewed[1].losses, score(average([a, b], dataset=data), data.validation).losses)


def test_a_bad_line_is_refused(digits: Dataset, pair: tuple[Any, Any]) -> None:
    a, b = pair
    broken = copy.deepcopy(a)
    broken.layers[1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="model answers NaN or infinity for .* samples: it has no loss"):
        path(a, broken, digits)
    with pytest.raises(ValueError, match="points must be 3 or more; got 2"):
        path(a, b, digits, points=2)
    with pytest.raises(TypeError, match="renew must be a bool"):
        path(a, b, digits, renew=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="b must match a"):
        path(a, MLP(), digits)
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        path(a, b, digits.validation)  # type: ignore[arg-type]
    with pytest.raises(training.Cancelled):
        path(a, b, digits, cancel=already_set())
