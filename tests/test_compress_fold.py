"""Folding: against torch's own fusion, against products by hand, and on networks where it must not be done."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from kit import data, models, training
from kit.compress import fold
from kit.data import Dataset
from tests.nets import same
from tests.strangers import STRANGERS, By, UNet

# What goes into what; the strangers that are not here have nothing to fold.
FOLDED: dict[str, dict[str, str]] = {
    "separable": {"3": "2", "6": "5"},
    "resnet": {"stem_bn": "stem"}
    | {f"stages.{i}.bn{j}": f"stages.{i}.conv{j}" for i in range(2) for j in (1, 2)}
    | {"stages.1.shortcut.1": "stages.1.shortcut.0"},
    **{name: {"attention.o": "fc"} for name in STRANGERS if "heads" in name},
}


def lived_in(model: Any, seed: int = 0) -> Any:
    """The model in float64, with weights and statistics of normalisation as after training, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.double().named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def of(inputs: Tensor) -> Dataset:
    """A data set of these samples."""
    return data.from_arrays(inputs, torch.arange(len(inputs)) % 10)


def rows(*shape: int, n: int = 60) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, inputs: Tensor) -> Tensor:
    torch.manual_seed(0)  # for the one that always drops
    return training.predict(model, inputs)


@pytest.fixture
def flat() -> Dataset:
    """Samples of 12 numbers."""
    return of(rows(12))


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_answer_as_before_or_are_refused(name: str, digits: Dataset) -> None:
    torch.manual_seed(0)
    model = lived_in(STRANGERS[name]())
    if name not in FOLDED:
        with pytest.raises(ValueError, match=r"^model: \w+ has nothing to fold: .*[\w)]\.$"):
            fold(model, digits)
        return
    before = copy.deepcopy(model)
    done: Any = fold(model, digits)
    assert dict(done.folded) == FOLDED[name]
    assert same(model, before)
    inputs = digits.validation.inputs[:50]
    torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-9, atol=1e-9)
    gone = dict(done.model.named_modules())
    assert all(isinstance(gone[lost], nn.Identity) for lost in FOLDED[name])
    assert not any(isinstance(each, _BatchNorm) for each in done.model.modules())


CONVOLUTIONS: list[tuple[Any, Any, dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, nn.BatchNorm1d, {"padding": 2}, (4, 9)),
    (nn.Conv2d, nn.BatchNorm2d, {"groups": 2, "bias": False}, (4, 8, 8)),
    (nn.Conv3d, nn.BatchNorm3d, {"stride": 2}, (4, 5, 6, 7)),
    (nn.ConvTranspose2d, nn.BatchNorm2d, {"stride": 2, "output_padding": 1}, (4, 6, 6)),
    (nn.Linear, nn.BatchNorm1d, {}, (4,)),
]


@pytest.mark.parametrize(("kind", "norm", "settings", "shape"), CONVOLUTIONS)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_goes_where_torch_puts_it(
    kind: Any, norm: Any, settings: dict[str, Any], shape: tuple[int, ...], affine: bool
) -> None:
    layer = kind(4, 6, **settings) if kind is nn.Linear else kind(4, 6, 3, **settings)
    model = lived_in(nn.Sequential(layer, norm(6, affine=affine), nn.Flatten()))
    done: Any = fold(model, of(rows(*shape)))
    fused: Any = done.model
    fuse: Callable[..., Any] = fuse_linear_bn_eval if kind is nn.Linear else fuse_conv_bn_eval
    other = norm(6).double().eval()  # torch's needs a weight
    other.load_state_dict(model[1].state_dict(), strict=False)
    wanted = fuse(model[0], other, *[True] * (kind is nn.ConvTranspose2d))
    torch.testing.assert_close(fused[0].weight, wanted.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused[0].bias, wanted.bias, rtol=1e-12, atol=1e-12)
    assert (done.folded, done.kept) == ((("1", "0"),), ())


def test_grouped_transposed_convolution_takes_up_batch_norm() -> None:
    """Torch's own fusion has no groups there: its answers are compared."""
    layers = (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1, groups=2), nn.Flatten())
    model, inputs = lived_in(nn.Sequential(*layers)), rows(4, 5, 5)
    done: Any = fold(model, of(inputs))
    fused: Any = done.model
    assert done.folded == (("1", "0"), ("2", "0"))
    torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-9, atol=1e-9)
    assert (fused[0].out_channels, fused[0].groups) == (4, 2)


def test_linear_layers_without_activation_are_one_matrix(flat: Dataset) -> None:
    """As those of the chapter's network, section 4.1; dropout counts as nothing."""
    model = lived_in(nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.9), nn.Linear(30, 8), nn.Linear(8, 10)))
    done: Any = fold(model, flat)
    fused: Any = done.model
    first, second, third = (model[at] for at in (0, 2, 3))
    torch.testing.assert_close(fused[3].weight, third.weight @ second.weight @ first.weight)
    wanted = third.weight @ (second.weight @ first.bias + second.bias) + third.bias
    torch.testing.assert_close(fused[3].bias, wanted)
    assert (fused[3].in_features, fused[3].out_features) == (12, 10)
    assert done.folded == (("0", "2"), ("2", "3"))


def chapter(net: Any, x: Tensor) -> Tensor:
    return net.fc2(net.fc1(net.conv2(net.conv1(x)).flatten(1)))


def test_the_chapters_network_has_one_linear_layer(digits: Dataset) -> None:
    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(1, 8, 3, padding=1), "conv2": nn.Conv2d(8, 4, 3, padding=1)}
    model = lived_in(By(chapter, **layers, fc1=nn.Linear(256, 32), fc2=nn.Linear(32, 10)))
    done: Any = fold(model, digits)
    assert done.folded == (("fc1", "fc2"),)
    assert dict(done.kept).keys() == {"conv2", "fc2"}
    assert "view stands between conv2 and fc1" in dict(done.kept)["fc2"]
    inputs = digits.validation.inputs
    torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-9, atol=1e-9)


def conv(*args: Any, **settings: Any) -> nn.Module:
    return nn.Conv2d(*args, **settings)


def test_layers_that_fold_only_where_it_is_exact() -> None:
    inputs = rows(3, 8, 8)
    exact: dict[str, list[nn.Module]] = {
        "no padding": [conv(3, 4, 1), conv(4, 5, 3)],
        "no bias": [conv(3, 4, 1, bias=False), conv(4, 5, 3, padding=1)],
        "padding called valid": [conv(3, 4, 1), conv(4, 5, 3, padding="valid")],
        "no bias, same": [conv(3, 4, 1, bias=False), conv(4, 5, 3, padding="same")],
        "padded with the border": [conv(3, 4, 1), conv(4, 5, 3, padding=1, padding_mode="replicate")],
        "1x1 behind": [conv(3, 5, 3, padding=1, stride=2, dilation=2), conv(5, 4, 1)],
        "norm before": [nn.BatchNorm2d(3), conv(3, 4, 3)],
        "norm before 1x1": [nn.BatchNorm2d(3), conv(3, 4, 1)],
        "grouped": [conv(3, 6, 3, groups=3), conv(6, 3, 1, groups=3)],
        "transposed, no bias": [conv(3, 4, 1, bias=False), nn.ConvTranspose2d(4, 5, 3, stride=2)],
        "pooling": [conv(3, 4, 3, padding=1), nn.AvgPool2d(2)],
        "overlapping pooling": [conv(3, 4, 3, stride=2, groups=1), nn.AvgPool2d((2, 1), stride=2)],
        "grouped pooling": [conv(3, 6, 3, groups=3), nn.AvgPool2d(2)],
    }
    not_exact: dict[str, list[nn.Module]] = {
        "zeros are padded between them": [conv(3, 4, 1), conv(4, 5, 3, padding=1)],
        "zeros are padded between": [nn.BatchNorm2d(3), conv(3, 4, 3, padding=1)],
        "zeros are padded": [nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3)],
        "neither looks at one place alone": [conv(3, 4, 3), conv(4, 5, 3)],
        "other groups": [conv(4, 4, 3, groups=4), conv(4, 4, 1)],
        "64 multiply-adds a channel and place would not be fewer than 9": [conv(3, 4, 3), nn.AvgPool2d(6, stride=1)],
        "the pooling pads": [conv(3, 4, 3), nn.AvgPool2d(2, padding=1)],
        "convolution is dilated": [conv(3, 4, 3, dilation=2), nn.AvgPool2d(2)],
        "only a convolution": [nn.ConvTranspose2d(3, 4, 3), nn.AvgPool2d(2)],
        "neither has a weight": [nn.BatchNorm2d(3), nn.BatchNorm2d(3)],
        "along other axes": [conv(3, 4, 3), nn.Linear(6, 4)],
        "no running statistics": [conv(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
        "1 \\(ReLU\\) stands between 0 and 2": [conv(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
        "2 \\(MaxPool2d\\) stand between 0 and 3": [conv(3, 4, 3), nn.Tanh(), nn.MaxPool2d(2), conv(4, 2, 1)],
    }
    for name, layers in exact.items():
        model = lived_in(nn.Sequential(*layers, nn.Flatten()))
        done: Any = fold(model, of(inputs))
        assert len(done.folded) == 1, name
        torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-9, atol=1e-9)
    for why, layers in not_exact.items():
        samples = rows(4, 8, 8) if "groups" in why else inputs
        with pytest.raises(ValueError, match=f"nothing to fold: .*{why}"):
            fold(lived_in(nn.Sequential(*layers, nn.Flatten())), of(samples))


def test_product_is_left_where_it_has_more_numbers(flat: Dataset) -> None:
    narrow = lived_in(nn.Sequential(nn.Linear(12, 2), nn.Linear(2, 12)))
    with pytest.raises(ValueError, match="one layer would have 144 numbers, more than both together have .48."):
        fold(narrow, flat)
    pruned = lived_in(nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 12)))
    assert fold(pruned, flat).folded
    pruned[0].weight.data[1:] = 0  # a row and a column are left, whose product has no zero
    pruned[1].weight.data[:, 1:] = 0
    with pytest.raises(ValueError, match="one layer would have 144 numbers, more than both together have .24."):
        fold(pruned, flat)
    # 12 -> 2 -> 9 -> 1: the first product pays once the second one is made.
    late = lived_in(nn.Sequential(nn.Linear(12, 2), nn.Linear(2, 9), nn.Linear(9, 1)))
    assert fold(late, flat).folded == (("1", "2"), ("0", "2"))
    assert fold(late, flat).kept == ()


def twice(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.b(net.b(net.a(x))))


def residual(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y) + y


def handed_out(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    return {"logits": net.b(y), "features": y}


def stored(net: Any, x: Tensor) -> Tensor:
    net.features = [net.a(x)]
    return net.b(net.features[0])


def deciding(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x)) if x.sum() < 1e9 else net.a(x)


def in_place(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    y.relu_()
    return net.b(y)


def through_a_view(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 0] = 0
    return net.b(y)


def outside(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x)) + F.linear(x, net.b.weight)


def by_numpy(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y) + sum(y.tolist()[0])


def asking(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x)) + net.a.out_features


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (twice, "of b, it is called 2 times"),
        (residual, "what a gives goes to add, too"),
        (handed_out, "what a gives is handed out, too"),
        (stored, "what a gives is handed out, too"),
        (deciding, "decides on its path by the values it computes"),
        (in_place, "relu stands between a and b"),
        (through_a_view, "what a gives goes to select, too"),
        (outside, "of b, its weight is used by t, too"),
        (by_numpy, "the answers would be others"),
        (asking, "has no attribute 'out_features'"),
    ],
)
def test_layer_whose_answer_is_used_otherwise_stays(how: Any, why: str, flat: Dataset) -> None:
    model = lived_in(By(how, a=nn.Linear(12, 12), b=nn.Linear(12, 12), norm=nn.BatchNorm1d(12)))
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=f"nothing to fold: .*{why}"):
        fold(model, flat)
    assert same(model, before)


class Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


def test_layer_that_is_not_what_it_seems_stays(flat: Dataset) -> None:
    tied = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    tied[1].weight = tied[0].weight
    hooked = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12))
    hooked[0].register_forward_hook(lambda _, __, y: y.abs())
    computed: Any = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12))
    weight = computed[0].weight
    del computed[0].weight
    computed[0].weight = weight.detach() * 2  # a tensor, as hooks leave one
    for model, why in (
        (tied, "its weight is tied to another layer's"),
        (hooked, "it has a hook"),
        (computed, "its weight is computed anew at each call"),
        (nn.Sequential(Own(12, 12), nn.Linear(12, 3)), "it computes in a way of its own"),
    ):
        with pytest.raises(ValueError, match=f"nothing to fold: 0 and 1 stay apart: of [01], {why}"):
            fold(model.eval(), flat)
    sequences = nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Linear(4, 5), nn.BatchNorm1d(3), nn.Flatten())
    with pytest.raises(ValueError, match="it normalises along another axis"):
        fold(lived_in(sequences), flat)
    square = nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Flatten())
    with pytest.raises(ValueError, match="the answers would be others"):
        fold(lived_in(square), flat)


def test_weights_made_from_other_tensors_are_folded(flat: Dataset) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 8)), nn.BatchNorm1d(8)).eval()
    done: Any = fold(model, flat)
    inputs = flat.validation.inputs
    torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-5, atol=1e-6)
    assert list(done.model.state_dict()) == ["0.bias", "0.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_rounded_once_to_the_layers_type(dtype: torch.dtype, flat: Dataset) -> None:
    layers = (nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    model = lived_in(nn.Sequential(*layers)).to(dtype)
    exact = fold(copy.deepcopy(model).double(), flat).model
    done: Any = fold(model, flat).model
    assert {each.dtype for each in done.parameters()} == {dtype}
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(done.parameters(), exact.parameters(), strict=True))


def single_precision(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x.float()))


def test_model_of_one_number_type_is_folded_in_that(flat: Dataset) -> None:
    model = By(single_precision, a=nn.Linear(12, 8), b=nn.BatchNorm1d(8)).eval()
    done: Any = fold(model, flat)
    assert done.folded == (("b", "a"),)
    inputs = flat.validation.inputs
    torch.testing.assert_close(logits(done.model, inputs), logits(model, inputs), rtol=1e-5, atol=1e-6)


def test_modes_frozen_parts_zeros_and_the_generator_stay(flat: Dataset) -> None:
    model: Any = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    model[3].requires_grad_(False)
    model[0].weight.data[::2, 3:] = 0
    model[1].eval()
    state = torch.get_rng_state()
    done: Any = fold(model, flat).model
    assert torch.equal(torch.get_rng_state(), state)
    assert [each.training for each in done] == [True, False, True, True, True]
    learns = {name: each.requires_grad for name, each in done.named_parameters()}
    assert learns == {"0.weight": False, "0.bias": False, "4.weight": True, "4.bias": True}
    assert torch.equal(done[0].weight == 0, model[0].weight == 0)
    assert [each.training for each in model] == [True, False, True, True, True]


def test_bad_input_is_refused(flat: Dataset, digits: Dataset) -> None:
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module; got 3\.$"):
        fold(3, flat)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^dataset must be a Dataset"):
        fold(models.ResNet(), rows(1, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^dataset: the model cannot take samples of shape"):
        fold(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3)), flat)
    with pytest.raises(
        ValueError, match=r"^model: MLP has nothing to fold: relu stands between layers.0 and layers.1\.$"
    ):
        fold(models.MLP((64, 8, 10)), digits)
    with pytest.raises(
        ValueError, match="^model: Linear has nothing to fold: it needs two layers with nothing non-lin"
    ):
        fold(nn.Linear(12, 10), flat)
    with pytest.raises(ValueError, match=r"stand between down1 and down2 \(one of 8 such places\)\.$"):
        fold(UNet(), digits)


def test_tensors_that_no_file_holds_keep_their_number_type(flat: Dataset) -> None:
    first, second = nn.Linear(12, 8), nn.Linear(8, 10)
    net = By(lambda net, x: net.second(net.first(x + net.shift)), first=first, second=second)
    net.register_buffer("shift", torch.ones(12), persistent=False)
    folded = fold(net, flat).model
    assert {tensor.dtype for tensor in [*folded.parameters(), *folded.buffers()]} == {torch.float32}
    assert torch.allclose(folded(flat.train.inputs), net(flat.train.inputs), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_without_numbers_stay(flat: Dataset) -> None:
    parts = {"none": nn.Linear(12, 0), "back": nn.Linear(0, 10), "first": nn.Linear(12, 8), "second": nn.Linear(8, 10)}
    net = By(lambda net, x: net.second(net.first(x)) + net.back(net.none(x)), **parts)
    found = fold(net, flat)
    assert found.folded == (("first", "second"),)
    assert found.kept == (("back", "none and back stay apart: of none, it has no numbers."),)


def test_a_fold_waits_for_the_draws_of_other_threads(flat: Dataset) -> None:
    """A network that draws in evaluation, too, is tried out with the same draws: nobody else may draw then."""

    def slowly(net: Any, x: Tensor) -> Tensor:
        x = net.norm(net.first(x))
        time.sleep(0.001)  # so that the other thread comes between
        return net.last(F.dropout(x))

    net = By(slowly, first=nn.Linear(12, 8), norm=nn.BatchNorm1d(8), last=nn.Linear(8, 10))
    found: list[int] = []

    def run() -> None:
        for _ in range(8):
            try:
                found.append(len(fold(net, flat).folded))
            except ValueError:
                found.append(0)

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 16
