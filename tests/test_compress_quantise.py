"""Uniform quantisation: compress.quantise, against torch's fake quantisation, the 6 dB rule and sums by hand."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import compress, files, measure, prune, training
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS, By

quantise: Any = importlib.import_module("kit.compress.quantise")  # the room's function has the module's name

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def drawn(*shape: int, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.05 + shift


def whole(grid: compress.Grid | None) -> Tensor:
    """Steps times codes."""
    assert grid is not None
    shape = [-1 if at == grid.axis else 1 for at in range(grid.codes.ndim)]
    return grid.codes * grid.steps.view(shape)


# Grids


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_symmetric_values_are_torchs(bits: int, axis: int | None) -> None:
    weight, most = drawn(40, 30), 2 ** (bits - 1) - 1
    levels = compress.levels_for(weight, bits, axis=axis)
    assert levels.low.unique().tolist() == [-most]
    assert levels.high.unique().tolist() == [most]
    largest = weight.abs().max() if axis is None else weight.abs().amax(1 - axis, keepdim=True)
    assert ((levels.step * most >= largest) & (levels.step * most <= largest * (1 + 2**-10))).all()
    steps = levels.step.flatten().float()
    zeros = torch.zeros(len(steps), dtype=torch.int32)
    if axis is None:
        theirs = torch.fake_quantize_per_tensor_affine(weight, float(steps), 0, -most, most)
    else:
        theirs = torch.fake_quantize_per_channel_affine(weight, steps, zeros, axis, -most, most)
    assert torch.allclose(levels.nearest(weight), theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_affine_values_are_torchs(bits: int, axis: int | None) -> None:
    weight = drawn(40, 30, shift=0.06)
    levels = compress.levels_for(weight, bits, axis=axis, symmetric=False)
    assert (levels.high - levels.low).unique().tolist() == [2**bits - 1]
    assert (levels.low <= 0).all()
    assert (levels.high >= 0).all()
    steps, zeros = levels.step.flatten().float(), -levels.low.flatten().int()
    if axis is None:
        theirs = torch.fake_quantize_per_tensor_affine(weight, float(steps), int(zeros), 0, 2**bits - 1)
    else:
        theirs = torch.fake_quantize_per_channel_affine(weight, steps, zeros, axis, 0, 2**bits - 1)
    assert torch.allclose(levels.nearest(weight), theirs, rtol=0, atol=1e-7)


def test_a_grid_by_hand() -> None:
    row = torch.tensor([-7.0, -3.4, 0.0, 0.6, 5.0])
    assert compress.levels_for(row, 4).nearest(row).tolist() == [-7, -3, 0, 1, 5]
    lopsided = torch.tensor([0.0, 1.2, 15.0])
    assert compress.levels_for(lopsided, 4, symmetric=False).nearest(lopsided).tolist() == [0, 1, 15]
    beyond = compress.levels_for(row, 4).nearest(torch.tensor([100.0, -100.0, -0.2]))
    assert beyond.tolist() == [7, -7, 0]
    assert not beyond.signbit()[2]


@pytest.mark.parametrize("symmetric", [True, False])
def test_clipping_never_has_a_larger_error(symmetric: bool) -> None:
    weight = torch.distributions.Laplace(0.01, 0.05).icdf(
        torch.rand(60, 50, generator=torch.Generator().manual_seed(1))
    )
    for bits in (2, 3, 4, 8):
        errors = []
        for clip in (False, True):
            levels = compress.levels_for(weight, bits, axis=0, symmetric=symmetric, clip=clip)
            errors.append((levels.nearest(weight) - weight).square().sum(1))
        assert (errors[1] <= errors[0] * (1 + 1e-6)).all()
        assert bits > 3 or errors[1].sum() < 0.9 * errors[0].sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_a_grid_is_found_again_exactly(bits: int, dtype: torch.dtype) -> None:
    for symmetric, axis, clip in itertools.product((True, False), (None, 0, 1), (False, True)):
        weight = drawn(23, 37, shift=0.02).to(dtype)
        weight[weight.abs() < 0.02] = 0
        weight[4] = 0
        settings: Any = {"axis": axis, "symmetric": symmetric, "clip": clip}
        rounded = compress.levels_for(weight, bits, **settings).nearest(weight)
        found = compress.grid(rounded)
        assert torch.equal(whole(found), rounded.double())
        assert found is not None
        assert found.axis in (None, axis)
        few = 8 if dtype == torch.bfloat16 else bits  # its numbers are so coarse that one step may divide them all
        assert int(found.codes.abs().max()) <= 2**few - 1
        assert (rounded[weight == 0] == 0).all()
        if dtype.itemsize > 2:
            assert torch.equal(found.steps, found.steps.float().double())


def test_what_is_on_no_grid() -> None:
    assert compress.grid(drawn(20, 30)) is None
    assert compress.grid(torch.tensor([[1.0, 256.0], [3.0, 5.0]])) is None
    assert compress.grid(torch.tensor([1.0, float("nan")])) is None
    assert compress.grid(torch.arange(5)) is None
    assert compress.grid(torch.zeros(0, 3)) is None
    found = compress.grid(torch.tensor([[0.5, -1.0], [2.5, 0.0]]))
    assert found is not None
    assert (found.steps.tolist(), found.codes.tolist(), found.axis) == ([0.5], [[1, -2], [5, 0]], None)
    rows = compress.grid(torch.tensor([[1000.0, -3000.0], [0.001, 0.0], [0.0, 0.0]]))
    assert rows is not None
    assert (rows.steps.tolist(), rows.codes.tolist()) == (
        [1000, float(torch.tensor(0.001)), 0],
        [[1, -3], [1, 0], [0, 0]],
    )
    small = compress.grid(torch.tensor([3e-45, -1.4e-45]))  # below the normal numbers
    assert small is not None
    assert small.codes.tolist() == [2, -1]
    nothing = compress.grid(torch.zeros(3))
    assert nothing is not None
    assert (nothing.steps.tolist(), nothing.codes.tolist()) == ([0], [0, 0, 0])


# Models


@pytest.mark.parametrize("per", compress.PERS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_are_on_grids_and_zeros_stay(trained: nn.Module, per: Any, symmetric: bool) -> None:
    pruned = prune.weights(trained, ratio=0.5)
    before = copy.deepcopy(pruned)
    smaller = compress.quantise(pruned, 4, per=per, symmetric=symmetric)
    assert same(pruned, before)
    for name, old in prune.prunable(pruned).items():
        new = smaller.get_parameter(name).detach()
        found = compress.grid(new)
        assert torch.equal(whole(found), new.double())
        assert (new[old == 0] == 0).all()
        rows = new.flatten()[None] if per == "tensor" else new.flatten(1)
        assert all(len(row.unique()) <= (15 if symmetric else 16) for row in rows)
        if per == "tensor":
            assert found is not None
            assert found.axis is None
    for name, parameter in pruned.named_parameters():
        if "bias" in name:
            assert torch.equal(parameter, smaller.get_parameter(name))


def test_bits_by_name(trained: nn.Module) -> None:
    smaller = compress.quantise(trained, {"fc1.weight": 2}, per="tensor")
    assert len(smaller.get_parameter("fc1.weight").unique()) == 3
    assert torch.equal(smaller.get_parameter("conv2.weight"), trained.get_parameter("conv2.weight"))


def test_channels_of_a_transposed_convolution_are_on_its_second_axis() -> None:
    layer = nn.ConvTranspose2d(6, 5, 3)
    layer.weight.data = drawn(6, 5, 3, 3) * torch.logspace(-3, 0, 5)[:, None, None]
    smaller: Any = compress.quantise(layer, 8)
    for channel in range(5):
        noise = (smaller.weight - layer.weight)[:, channel].norm() / layer.weight[:, channel].norm()
        assert float(noise.detach()) < 0.01


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers(name: str, few_digits: Dataset) -> None:
    torch.manual_seed(0)
    net = STRANGERS[name]().eval()
    next(iter(net.parameters())).requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    pruned = prune.weights(net, ratio=0.3)
    smaller = compress.quantise(pruned, 8, activations=8, dataset=few_digits)
    tuned = compress.fine_tune_quantised(pruned, few_digits, 3, epochs=1, activations=8)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    x = few_digits.validation.inputs[:60]
    exact, rounded = training.predict(pruned, x), training.predict(smaller, x)
    if name != "always dropping":
        assert float((exact - rounded).norm()) < 0.1 * float(exact.norm())
        assert not torch.equal(exact, rounded)
        assert torch.equal(training.predict(copy.deepcopy(smaller), x), rounded)
    assert not tuned.training
    learns = {key: p.requires_grad for key, p in prune.plain(net).named_parameters()}
    assert {key: p.requires_grad for key, p in tuned.named_parameters()} == learns
    for key, weight in prune.prunable(tuned).items():
        assert (weight[prune.prunable(pruned)[key] == 0] == 0).all()
        assert torch.equal(whole(compress.grid(weight)), weight.detach().double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    layer = nn.Linear(40, 30).to(dtype)
    smaller: Any = compress.quantise(layer, 8)
    assert smaller.weight.dtype == dtype
    assert compress.grid(smaller.weight) is not None
    assert compress.sqnr(layer, smaller)["weight"] > 35


# What comes into layers


def test_inputs_are_rounded_as_torch_rounds_them(digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    smaller: Any = compress.quantise(net, 8, activations=3, dataset=digits)
    step, low, high = smaller[1].input_levels.tolist()
    assert (low, high) == (0, 7)  # pixels are no less than 0
    assert 1 / 7 <= step <= 1.001 / 7
    x = digits.validation.inputs[:50] * 1.3 - 0.1  # some beyond what was seen
    theirs = torch.fake_quantize_per_tensor_affine(x.flatten(1), step, 0, 0, 7)
    assert torch.allclose(smaller(x), F.linear(theirs, smaller[1].weight, smaller[1].bias), atol=1e-5)
    given = x.clone().requires_grad_()
    wanted = x.clone().requires_grad_()
    smaller(given).sum().backward()
    F.linear(
        torch.fake_quantize_per_tensor_affine(wanted.flatten(1), step, 0, 0, 7), smaller[1].weight
    ).sum().backward()
    assert given.grad is not None
    assert wanted.grad is not None
    away = ((x / step - (-0.5)).abs() > 1e-3) & ((x / step - 7).abs() > 0.51) & (x != 0)  # from where the two differ
    within = (x > 0) & (x < 7 * step)
    assert torch.allclose(given.grad[within], wanted.grad[within])
    outside = away & ~within & ((x < -0.5 * step) | (x > 7.5 * step))
    assert outside.any()
    assert not given.grad[outside].any()


def test_activations_survive_copies_and_files(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    smaller = compress.quantise(trained, 8, activations=3, dataset=digits)
    x = digits.validation.inputs[:100]
    answers = training.predict(smaller, x)
    assert not torch.allclose(answers, training.predict(compress.quantise(trained, 8), x), atol=1e-3)
    assert torch.equal(training.predict(prune.plain(smaller), x), answers)
    files.write(smaller, tmp_path / "smaller.safetensors", sparse=False)
    other = compress.quantise(copy.deepcopy(trained), 4, activations=5, dataset=digits)
    files.load_into(other, tmp_path / "smaller.safetensors")
    assert torch.equal(training.predict(other, x), answers)
    again: Any = compress.quantise(smaller, 8, activations=6, dataset=digits)  # a new grid in place of the old one
    assert len(again.fc1._forward_pre_hooks) == 1
    assert float(again.fc1.input_levels[2] - again.fc1.input_levels[1]) == 63


def test_more_bits_of_activations_are_nearer(trained: nn.Module, digits: Dataset) -> None:
    x = digits.validation.inputs
    exact = training.predict(trained, x)
    off = [
        float((training.predict(compress.quantise(trained, 8, activations=bits, dataset=digits), x) - exact).norm())
        for bits in (2, 4, 6)
    ]
    assert all(later < 0.5 * sooner for sooner, later in itertools.pairwise(off))


# Training with the rounding


@pytest.mark.parametrize("axis", [None, 0])
def test_a_step_is_that_of_torchs_straight_through_estimator(digits: Dataset, axis: int | None) -> None:
    few = Dataset("few", digits.train.first(40), digits.validation, digits.test, digits.class_names)
    net: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    per: Any = "tensor" if axis is None else "channel"
    levels = compress.levels_for(net[1].weight, 4, axis=axis)
    behind, bias = (p.detach().clone().requires_grad_() for p in (net[1].weight, net[1].bias))
    stepper = torch.optim.SGD([behind, bias], lr=0.05, momentum=0.9)
    steps = levels.step.flatten().float()
    for epoch in range(3):
        if axis is None:
            rounded = torch.fake_quantize_per_tensor_affine(behind, float(steps), 0, -7, 7)
        else:
            rounded = torch.fake_quantize_per_channel_affine(behind, steps, torch.zeros(10).int(), 0, -7, 7)
        tuned: Any = compress.fine_tune_quantised(
            net, few, 4, per=per, epochs=epoch, lr=0.05, batch_size=40, optimiser="sgd"
        )
        assert torch.allclose(tuned[1].weight, rounded, atol=1e-6)
        assert torch.allclose(tuned[1].bias, bias, atol=1e-6)
        stepper.zero_grad()
        F.cross_entropy(F.linear(few.train.inputs.flatten(1), rounded, bias), few.train.labels).backward()
        stepper.step()
        with torch.no_grad():
            behind.clamp_(-7 * levels.step, 7 * levels.step)
    assert not torch.equal(tuned[1].weight, compress.quantise(net, 4, per=per)[1].weight)  # type: ignore[index]


def test_training_with_the_rounding_pays(trained: nn.Module, digits: Dataset) -> None:
    rounded = compress.quantise(trained, 2)
    tuned = compress.fine_tune_quantised(trained, digits, 2, epochs=3, seed=1, lr=3e-3)
    before, after = (training.evaluate(net, digits.train).loss for net in (rounded, tuned))
    assert after < 0.7 * before
    assert same(tuned, compress.fine_tune_quantised(trained, digits, 2, epochs=3, seed=1, lr=3e-3))
    assert same(rounded, compress.fine_tune_quantised(trained, digits, 2, epochs=0))
    assert measure.parameters(tuned) == measure.parameters(trained)


# Noise


def test_a_uniform_law_gains_six_decibels_a_bit() -> None:
    layer = nn.Linear(1000, 200, bias=False)
    layer.weight.data = torch.rand(200, 1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [
        compress.sqnr(layer, compress.quantise(layer, bits, per="tensor", symmetric=False))["weight"]
        for bits in range(3, 9)
    ]
    assert all(later - sooner == pytest.approx(6.02, abs=0.7) for sooner, later in itertools.pairwise(found))
    for bits, value in zip(range(3, 9), found, strict=True):
        assert value == pytest.approx(20 * math.log10(2**bits - 1), abs=0.3)  # 2^bits numbers, as many steps less one


def test_noise_by_hand(trained: nn.Module) -> None:
    one, other = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    one.weight.data, other.weight.data = torch.tensor([[3.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    assert compress.sqnr(one, other) == {"weight": pytest.approx(10)}
    assert compress.sqnr(one, one) == {"weight": math.inf}
    zero = nn.Linear(2, 1, bias=False)
    zero.weight.data = torch.zeros(1, 2)
    assert compress.sqnr(zero, one) == {"weight": -math.inf}
    assert compress.sqnr(zero, zero) == {"weight": math.inf}
    thin = compress.low_rank(trained, rank={"fc1": 3})
    noise = compress.sqnr(trained, thin.model)
    assert noise["fc1.weight"] == pytest.approx(-10 * math.log10(1 - thin.energies["fc1"]), rel=1e-3)
    assert noise["fc2.weight"] == math.inf


# Refusals


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"bits": 1}, ValueError, "bits must lie in 2 .. 8; got 1"),
        ({"bits": 9}, ValueError, "bits must lie in 2 .. 8; got 9"),
        ({"bits": 4.0}, TypeError, "bits must be a whole number; got 4.0"),
        (
            {"bits": {"fc1.bias": 4}},
            ValueError,
            "bits names fc1.bias, which cannot be quantised; allowed: conv1.weight",
        ),
        ({"bits": {1: 4, "x": 4}}, ValueError, "bits names 1, x, which cannot be quantised; allowed: conv1.weight"),
        ({"bits": 4, "per": "row"}, ValueError, "per must be one of tensor, channel; got 'row'"),
        ({"bits": 4, "symmetric": 1}, TypeError, "symmetric must be a bool; got 1"),
        ({"bits": 4, "clip": None}, TypeError, "clip must be a bool; got None"),
        ({"bits": 4, "activations": 8}, ValueError, "activations need a dataset"),
        ({"bits": 4, "activations": 1}, ValueError, "activations must lie in 2 .. 8; got 1"),
        ({"bits": 4, "activations": 8, "dataset": 5}, TypeError, "dataset must be a Dataset"),
    ],
)
def test_refusals(trained: nn.Module, settings: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        compress.quantise(trained, **settings)


def test_refused_models_and_tensors(trained: Any, digits: Dataset) -> None:
    with pytest.raises(ValueError, match="has nothing to prune"):
        compress.quantise(nn.ReLU(), 4)
    broken = copy.deepcopy(trained)
    broken.fc2.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight 'fc2.weight' holds NaN or infinity"):
        compress.quantise(broken, 4)
    broken = copy.deepcopy(trained)
    broken.conv1.bias.data[0] = float("inf")
    with pytest.raises(ValueError, match="activations: NaN or infinity comes into layer 'conv2'"):
        compress.quantise(broken, 4, activations=8, dataset=digits)
    with pytest.raises(TypeError, match="tensor must be a Tensor"):
        compress.grid([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tensor must be a Tensor"):
        compress.levels_for([1.0], 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bits must lie in 2 \.\. 8; got 1"):
        compress.levels_for(torch.ones(3), 1)
    with pytest.raises(ValueError, match=r"axis must lie in 0 \.\. 0; got 1"):
        compress.levels_for(torch.ones(3), 4, axis=1)
    for tensor in (torch.empty(0), torch.arange(3), torch.tensor([1, math.nan, 0])):
        with pytest.raises(ValueError, match=r"tensor must hold finite floating-point numbers, one or more; got \("):
            compress.levels_for(tensor, 4)
    with pytest.raises(TypeError, match="smaller must be"):
        compress.sqnr(trained, None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"smaller must have a weight 'conv1.weight' of shape \(8, 1, 3, 3\); it has none"
    ):
        compress.sqnr(trained, nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"'weight' of shape \(2, 2\); it has one of shape \(3, 2\)"):
        compress.sqnr(nn.Linear(2, 2), nn.Linear(2, 3))
    cancel = Event()
    cancel.set()
    with pytest.raises(training.Cancelled):
        compress.quantise(trained, 4, activations=8, dataset=digits, cancel=cancel)
    with pytest.raises(training.Cancelled):
        compress.fine_tune_quantised(trained, digits, 4, epochs=1, cancel=cancel)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("symmetric", [True, False])
def test_numbers_at_the_ends_of_a_number_type(dtype: torch.dtype, symmetric: bool) -> None:
    number = torch.finfo(dtype)
    least = number.tiny * number.eps  # the smallest number
    tiny = (torch.arange(-9, 10).double() * least).to(dtype)
    levels = compress.levels_for(tiny, 8, symmetric=symmetric)
    assert torch.equal(levels.nearest(tiny), tiny)  # these numbers are a grid already
    assert torch.equal(levels.inside(tiny), tiny)
    huge = torch.tensor([-1.0, 0.3, 1.0], dtype=torch.float64).mul(number.max).to(dtype)
    for bits in (2, 4, 8):
        rounded = compress.levels_for(huge, bits, symmetric=symmetric).nearest(huge)
        assert rounded.isfinite().all()
        step = 2 * number.max / (2**bits - 2)
        assert ((rounded.double() - huge.double()).abs() <= 2 * step).all()


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_called_by_keyword_or_without_samples_are_calibrated(digits: Dataset) -> None:
    torch.manual_seed(0)
    parts = {"first": nn.Linear(64, 16), "second": nn.Linear(16, 10), "none": nn.Linear(0, 10)}
    net = By(lambda net, x: net.second(input=net.first(input=x.flatten(1))) + net.none(x.flatten(1)[:, :0]), **parts)
    smaller = compress.quantise(net, 8, activations=8, dataset=digits)
    x = digits.train.inputs[:50]
    wanted = training.predict(net, x)
    assert 0 < float((training.predict(smaller, x) - wanted).norm() / wanted.norm()) < 0.02
    assert hasattr(smaller.second, "input_levels")
    assert not hasattr(smaller.none, "input_levels")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_what_is_done_in_parts_is_what_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch, axis: int | None, dtype: torch.dtype
) -> None:
    weight, zero = drawn(23, 37, shift=0.02).to(dtype), torch.zeros(23, 37, dtype=dtype)
    net = nn.Sequential(nn.Linear(37, 23), nn.Linear(23, 5)).to(dtype)
    per: Any = "tensor" if axis is None else "channel"

    def found() -> tuple[list[Tensor], list[Any], nn.Module]:
        levels = compress.levels_for(weight, 3, axis=axis, clip=True)
        grids = [compress.grid(each) for each in (levels.nearest(weight), weight, zero)]
        return [levels.step, levels.low, levels.high], grids, compress.quantise(net, 3, per=per, clip=True)

    levels, grids, smaller = found()
    for part in (1, 10, 200):
        monkeypatch.setattr(quantise, "PART", part)
        theirs, others, other = found()
        assert all(torch.equal(one, another) for one, another in zip(levels, theirs, strict=True))
        assert same(smaller, other) and grids[1] is others[1] is None
        for at in (0, 2):
            assert torch.equal(grids[at].steps, others[at].steps) and grids[at].axis == others[at].axis
            assert torch.equal(grids[at].codes, others[at].codes)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_large_grid_is_seen_and_one_number_beside_it_too(axis: int | None) -> None:
    """The one number lies beyond the part that is looked at first."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-7, 8, (80, 70, 3), generator=generator)
    codes[:, :, 0], codes[:, :, 1] = 1, 7  # each row's step is its own
    steps = torch.rand(codes.shape[axis] if axis is not None else 1, generator=generator).half().double() + 0.5
    shape = [-1 if place == axis else 1 for place in range(3)]
    tensor = (codes * steps.view(shape if axis is not None else (1, 1, 1))).float()
    found = compress.grid(tensor)
    assert found is not None and found.axis == axis and torch.equal(found.codes.long(), codes)
    tensor[-1, -1, -1] = 0.1234567
    assert compress.grid(tensor) is None
