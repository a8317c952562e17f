"""Networks that do with their channels what no graph follows: right, or left alone and said, or refused."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from kit import inference, models, prune, training
from kit.data import Dataset
from kit.prune.joints import cut, first_fault
from tests.strangers import STRANGERS, By, tokens

LAYER_NORM, TOGETHER = r"norm\d \(LayerNorm\)", "it works on all of them together"
# At ratio 0.5: how many outputs each layer keeps, and what is left alone, where, and why.
EXPECTED: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "chunk": ({"a": 8}, {}),
    "glu convolution": ({"2": 6}, {"0": r"2 \(Conv2d\): 16 channels reach its 8"}),
    "swiglu": ({"fused": 24, "down": 8}, {}),
    "swiglu by halves": ({"down": 8}, {"fused": r"down \(Linear\): 48 channels reach its 24"}),
    "two projections": ({"gate": 12, "up": 12, "down": 8}, {}),
    "pixel shuffle": ({"3": 3}, {"0": r"3 \(Conv2d\): 16 channels reach its 4"}),
    "channel shuffle": ({"0": 4, "5": 6, "7": 3}, {"2": r"5 \(Conv2d\): .* other values would come into it"}),
    "separable": ({"0": 4, "2": 4, "5": 8}, {}),
    "group norm of all": ({"3": 3}, {"0": r"1 \(GroupNorm\): all of them go together, or none"}),
    "u-net": (
        {"down1": 4, "down2": 6, "middle": 8, "up2": 6, "join2": 6, "up1": 4, "join1": 4, "out": 2},
        {},
    ),
    "dense": ({"stem": 4, "layers.0": 2, "layers.1": 2, "layers.2": 2, "squeeze": 6}, {}),
    "resnet": (
        {"stem": 8, "stages.0.conv1": 8, "stages.0.conv2": 8, "stages.1.conv1": 16, "stages.1.conv2": 16}
        | {"stages.1.shortcut.0": 16},
        {},
    ),
    "squeeze": ({"a": 4, "b": 6, "down": 2, "up": 4}, {}),
    "squeeze by convolution": ({"a": 4, "b": 6, "down": 2, "up": 4}, {}),
    "spatial gate": ({"a": 4, "b": 6}, {}),
    "heads of a size": ({"embed": 8, "q": 4, "k": 4, "v": 4, "o": 8, "fc": 6}, {}),
    "a number of heads": ({"embed": 8, "q": 4, "k": 4, "v": 4, "o": 8, "fc": 6}, {}),
    "heads that scale themselves": ({"embed": 8, "o": 8, "fc": 6}, {"q": r"o \(Linear\): .* other values"}),
    "bert": (
        {f"blocks.{i}.{layer}": 16 if layer == "fc1" else 4 for i in range(2) for layer in ("q", "k", "v", "fc1")},
        {"embed": f"{LAYER_NORM}: {TOGETHER}"},
    ),
    "vit": (
        {"blocks.0.qkv": 12, "blocks.0.fc1": 16, "blocks.1.qkv": 12, "blocks.1.fc1": 16},
        {"embed": f"{LAYER_NORM}: {TOGETHER}"},
    ),
    "encoder layer": ({"blocks.0.linear1": 16}, {"embed": f"{LAYER_NORM}: {TOGETHER}"}),
    "encoder layer, norm first": ({"blocks.0.linear1": 16}, {"embed": f"(MultiheadAttention|LayerNorm).: {TOGETHER}"}),
    "multi-head": ({"fc": 12}, {"rows": rf"attention \(MultiheadAttention\): {TOGETHER}"}),
    "lstm": ({"fc": 10}, {"embed": rf"rnn \(LSTM\): {TOGETHER}"}),
    "gru": ({"fc": 10}, {"embed": rf"rnn \(GRU\): {TOGETHER}"}),
    "lstm, two layers, both ways": ({"fc": 10}, {"embed": rf"rnn \(LSTM\): {TOGETHER}"}),
    "tied pair": ({"7": 12}, dict.fromkeys("135", r"\(Linear\): 3 and 5 share a weight")),
    "side branch": ({"a": 8, "side": 2, "b": 6}, {}),
    "features, too": ({"b": 8}, {"a": "the model itself: .* its answers would be others"}),
    "prototypes": ({"a": 12, "b": 8}, {}),
    "computed weight": ({"1": 8, "3": 12}, {}),
}


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def width(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def silenced(net: nn.Module, kept: dict[str, tuple[int, ...]]) -> nn.Module:
    """A copy whose layers answer 0 in all channels but those that are kept; by hooks, with no word of the kit."""
    silent = copy.deepcopy(net)
    for name, stays in kept.items():
        layer: Any = silent.get_submodule(name)
        axis = -1 if isinstance(layer, nn.Linear) else -3
        factor = torch.zeros(width(layer))
        factor[list(stays)] = 1
        factor = factor.view(-1, *[1] * (-1 - axis))
        layer.register_forward_hook(lambda _, arguments, output, factor=factor: output * factor)
    return silent


def logits(net: nn.Module, inputs: Tensor) -> Tensor:
    answer: Any = training.predict(net, inputs)
    return answer["logits"] if isinstance(answer, dict) else answer


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("case", EXPECTED)
def test_what_strangers_bring_is_thinned_rightly_or_left_alone(digits: Dataset, case: str, ratio: float) -> None:
    net = STRANGERS[case]()
    drawn = torch.get_rng_state()
    thinned = prune.remove_channels(net, ratio=ratio, dataset=digits)
    assert torch.equal(torch.get_rng_state(), drawn)
    kept, skipped = {name: len(stays) for name, stays in thinned.kept.items()}, dict(thinned.skipped)
    for name, stays in kept.items():
        layer: Any = thinned.model.get_submodule(name)
        rows = layer.weight.shape[int(isinstance(layer, nn.ConvTranspose2d))]
        few = ratio == 0.25 and name.rpartition(".")[2] in "qkv"  # a quarter of two heads is none
        assert 0 < stays == width(layer) == rows <= width(net.get_submodule(name)) - (not few)
    x = digits.test.inputs[:50]
    got, expected, dense = (logits(each, x) for each in (thinned.model, silenced(net, thinned.kept), net))
    assert torch.allclose(got, expected, atol=1e-6)
    assert not torch.allclose(got, dense, atol=1e-4)
    if ratio == 0.5:
        assert {name.replace("attention.", ""): stays for name, stays in kept.items()} == EXPECTED[case][0]
        reasons = EXPECTED[case][1]
        assert {name.replace("attention.", "") for name in skipped} == set(reasons)
        for name, reason in skipped.items():
            assert reason.startswith("Its channels cannot be followed through ")
            assert reason.endswith(".") and "\n" not in reason
            assert re.search(reasons[name.replace("attention.", "")], reason)
            with pytest.raises(prune.Untraceable, match=re.escape(reason.removeprefix("Its channels "))):
                prune.channels(net, ratio={name: 0.5}, dataset=digits)


@pytest.mark.parametrize(
    ("case", "where"),
    [
        ("slices", r"the model itself: The size of tensor a \(8\) must match"),
        ("glu", r"3 \(Linear\): 16 channels reach its 8"),
        ("maxout", r"2 \(By\): shape '\[4, 8, 2\]' is invalid"),
        ("tied autoencoder", r"head \(Linear\): mat1 and mat2 shapes"),
        ("always dropping", r"b \(Linear\): with zeros in place of those that go, other values would come into it"),
    ],
)
def test_a_model_that_can_lose_no_channel_is_refused(digits: Dataset, case: str, where: str) -> None:
    net = STRANGERS[case]()
    with pytest.raises(prune.Untraceable, match=f"channels of .* cannot be followed through {where}") as caught:
        prune.channels(net, ratio=0.5, dataset=digits)
    assert str(caught.value).endswith("Its weights can be pruned instead: prune.weights(model, ratio=...).")
    assert "\n" not in str(caught.value)


def test_halves_of_a_gate_go_in_pairs_and_heads_as_a_whole(digits: Dataset) -> None:
    kept = prune.remove_channels(STRANGERS["chunk"](), ratio=0.25, dataset=digits).kept["a"]
    assert len(kept) == 12
    assert [channel + 8 for channel in kept[:6]] == list(kept[6:])
    kept = prune.remove_channels(STRANGERS["heads of a size"](), ratio=0.5, dataset=digits).kept["attention.q"]
    assert kept in ((0, 1, 2, 3), (4, 5, 6, 7))
    kept = prune.remove_channels(STRANGERS["a number of heads"](), ratio=0.25, dataset=digits).kept["attention.q"]
    assert len(kept) == 6
    assert [channel + 4 for channel in kept[:3]] == list(kept[3:])  # the same positions of both heads


def test_whole_heads_go_by_their_importance(digits: Dataset) -> None:
    net: Any = STRANGERS["heads of a size"]()
    for layer in (net.attention.q, net.attention.k, net.attention.v):
        layer.weight.data[:4] *= 10
    net.attention.q.weight.data[0] = 0  # the least single channel is in the best head
    assert prune.remove_channels(net, ratio=0.5, dataset=digits).kept["attention.q"] == (0, 1, 2, 3)


def test_one_part_that_cannot_be_followed_does_not_stop_the_others_and_is_said(digits: Dataset) -> None:
    net = STRANGERS["gru"]()
    with pytest.warns(
        prune.LeftAloneWarning, match="^all channels of embed stay. Its channels cannot be followed"
    ) as said:
        smaller = prune.channels(net, ratio=0.5, dataset=digits)
    assert len(said) == 1
    widths = [
        [layer.out_features for layer in each.modules() if isinstance(layer, nn.Linear)] for each in (net, smaller)
    ]
    assert [after - before for before, after in zip(*widths, strict=True)] == [0, -10, 0]
    vit = STRANGERS["vit"]()
    kept = prune.remove_channels(vit, ratio={"blocks.0.fc1": 0.5}, dataset=digits).kept
    assert len(kept["blocks.0.fc1"]) == 16
    assert len(kept["blocks.1.fc1"]) == 32


def test_tied_weights_stay_tied(digits: Dataset) -> None:
    thinned: Any = prune.remove_channels(STRANGERS["tied pair"](), ratio=0.5, dataset=digits).model
    assert thinned[5].weight is thinned[3].weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["resnet", "bert"])
@pytest.mark.parametrize("importance", prune.IMPORTANCES)
def test_other_number_types_and_frozen_parts(digits: Dataset, case: str, dtype: torch.dtype, importance: Any) -> None:
    inner = STRANGERS[case]().to(dtype)
    net = By(lambda net, x: net.inner(x.to(dtype)), inner=inner)
    for parameter in list(net.parameters())[::2]:
        parameter.requires_grad_(False)
    frozen = [parameter.requires_grad for parameter in net.parameters()]
    thinned = prune.remove_channels(net, ratio=0.5, dataset=digits, importance=importance)
    assert {name.replace("attention.", ""): len(stays) for name, stays in thinned.kept.items()} == {
        f"inner.{name}": stays for name, stays in EXPECTED[case][0].items()
    }
    assert {parameter.dtype for parameter in thinned.model.parameters()} == {dtype}
    assert [parameter.requires_grad for parameter in thinned.model.parameters()] == frozen


# Ways out of autograd, and orders of channels that no graph sees


class Detour(nn.Module):
    """Leaves autograd in the middle of a model, in one of the usual ways."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x)


def around(middle: nn.Module, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), middle, nn.ReLU(), nn.Conv2d(width, 6, 3), nn.Flatten(), nn.Linear(96, 10))


class OwnWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", self.weight, x)


CONVOLUTION, FIRST = r"3 \(Conv2d\)", r"0 \(Conv2d\): 1 \(Detour\) cuts it off from autograd"
LEFT_ALONE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "numpy": (lambda: around(Detour(lambda x: torch.from_numpy(x.detach().numpy() + 1))), FIRST),
    "detach": (lambda: around(Detour(lambda x: x.detach() + 1)), FIRST),
    "fixed width": (lambda: around(Detour(lambda x: x * torch.ones(8, 1, 1))), r"1 \(Detour\)"),
    "flip": (lambda: around(Detour(lambda x: x.flip(1))), CONVOLUTION),
    "shuffle": (lambda: around(nn.ChannelShuffle(2)), CONVOLUTION),
    "shuffle by hand": (
        lambda: around(Detour(lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2))),
        r"1 \(Detour\): unflatten",
    ),
    "before depthwise": (
        lambda: around(nn.Sequential(nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=8))),
        CONVOLUTION,
    ),
    "pixels": (lambda: around(Detour(lambda x: F.interpolate(F.pixel_shuffle(x, 2), 6)), 2), CONVOLUTION),
    "own": (lambda: around(OwnWeight(), 5), CONVOLUTION),
    "softmax": (lambda: around(nn.Softmax(1)), CONVOLUTION),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_cannot_be_followed_is_left_alone(digits: Dataset, case: str) -> None:
    """Never a broken model: the module is named, what comes after it is thinned, and a ratio for it is refused."""
    make, module = LEFT_ALONE[case]
    torch.manual_seed(1)  # not 0, where the ReLU lets none of the channels that stay pass: no order would show
    model = make()
    thinned: Any = prune.remove_channels(model, ratio=0.5, dataset=digits, importance="random", seed=1)
    assert "0" in dict(thinned.skipped)
    assert (thinned.model[0].out_channels, thinned.model[3].out_channels) == (8, 3)
    with pytest.raises(
        prune.Untraceable, match=f"channels of Sequential cannot be followed through {module}"
    ) as caught:
        prune.channels(model, ratio={"0": 0.5}, dataset=digits, importance="random", seed=1)
    assert "Its weights can be pruned instead: prune.weights(model, ratio=...)." in str(caught.value)
    assert "\n" not in str(caught.value)
    training.predict(prune.weights(model, ratio=0.5), digits.test.inputs[:2])


def test_where_nothing_can_be_thinned_it_is_refused_at_any_ratio(digits: Dataset) -> None:
    last = nn.Sequential(nn.Conv2d(1, 8, 3), Detour(lambda x: x.movedim(1, 3).flatten(1)), nn.Linear(288, 10))
    with pytest.raises(prune.Untraceable, match=r"Sequential cannot be followed through 2 \(Linear\)"):
        prune.channels(last, ratio=0.5, dataset=digits)
    cut_off = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Detour(lambda x: x.detach()), nn.Linear(8, 10))
    with pytest.raises(prune.Untraceable, match=r"through 1 \(Linear\): 2 \(Detour\) cuts it off from autograd"):
        prune.channel_groups(cut_off, digits)


def test_masked_weights_are_thinned_as_what_they_are_and_what_cannot_be_copied_is_refused(digits: Dataset) -> None:
    net: Any = models.MLP()
    torch_prune.l1_unstructured(net.layers[0], "weight", 0.5)
    net(digits.test.inputs[:2])
    net = prune.channels(net, ratio=0.5, dataset=digits)
    assert isinstance(net.layers[0].weight, nn.Parameter) and net.layers[0].out_features == 32
    net.lock = threading.Lock()
    with pytest.raises(ValueError, match="model: MLP cannot be copied .* keep no locks"):
        prune.channels(net, ratio=0.5, dataset=digits)


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_torch_script_is_refused_and_inference_mode_is_no_matter(digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.inference_mode():
        assert prune.channel_groups(net, digits) == {"1": 16}
    net[1] = torch.jit.script(net[1])
    with pytest.raises(prune.Untraceable, match="cannot be followed through 1 .*: TorchScript has compiled it"):
        prune.channels(net, ratio=0.5, dataset=digits)


def test_other_types_are_refused(digits: Dataset) -> None:
    wrong: Any = None
    with pytest.raises(TypeError, match="dataset must be a Dataset"):
        prune.channels(models.MLP(), ratio=0.5, dataset=wrong)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module; got None"):
        prune.channels(wrong, ratio=0.5, dataset=digits)
    with pytest.raises(TypeError, match="seed must be a whole number; got None"):
        prune.channels(models.MLP(), ratio=0.5, dataset=digits, seed=wrong)


class Stopping(nn.Module):
    """Sets an event in one of its calls."""

    def __init__(self, stop: threading.Event, call: int) -> None:
        super().__init__()
        self.stop, self.calls = stop, [call]  # one list for all copies

    def __deepcopy__(self, memo: Any) -> Stopping:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] -= 1
        if self.calls[0] == 0:
            self.stop.set()
        return x + 0


def test_who_stops_while_channels_are_followed_or_tried_out_is_not_told_that_they_cannot_be(
    monkeypatch: pytest.MonkeyPatch, digits: Dataset
) -> None:
    monkeypatch.setattr(inference, "SMALL_MODEL", 1)
    ended = 0
    for call in range(1, 12):
        stop = threading.Event()
        middle = Stopping(stop, call)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), middle, nn.ReLU(), nn.Linear(16, 10))
        try:
            with inference.interruptible(net, stop, "in the middle"):
                prune.channels(net, ratio=0.5, dataset=digits)
        except training.Cancelled:
            ended += 1
            assert middle.calls == [0]  # at once
        else:
            assert middle.calls[0] > 0  # it was done before
    assert ended > 4


# The check by hand


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_faults_by_hand(scale: float) -> None:
    """Two layers with a reversal between them. What comes into a layer tells, even if no answer depends on it yet."""
    first, second, head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), Detour(lambda x: x * scale)
    straight = nn.Sequential(first, nn.ReLU(), second, head)
    crossed = nn.Sequential(first, Detour(lambda x: F.relu(x).flip(1)), second, head)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    marked = torch.arange(8) < 4

    def fault(net: nn.Module, gone: Tensor, read: Tensor) -> Any:
        marks = {("0", True): gone, ("2", False): read}
        thinned = cut(net, marks)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in thinned.modules())
        return first_fault(net, thinned, marks, x)

    assert fault(straight, marked, marked) is None
    assert fault(crossed, marked, ~marked) is None
    for net, read in ((crossed, marked), (straight, ~marked)):
        assert fault(net, marked, read) == (
            "2",
            "with zeros in place of those that go, other values would come into it",
        )
    one_less = marked.clone()
    one_less[0] = False
    where, error = fault(straight, marked, one_less)
    assert where == "2" and "expected input" in error


def test_cut_takes_out_or_zeroes_what_is_marked() -> None:
    net: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    marked = torch.tensor([True, False, False, True])
    marks = {("0", True): marked, ("1", True): marked, ("2", False): marked}
    small: Any = cut(net, marks)
    zeroed: Any = cut(net, marks, zero=True)
    assert torch.equal(small[0].weight, net[0].weight[1:3])
    assert torch.equal(small[2].weight, net[2].weight[:, 1:3])
    assert (small[0].out_features, small[1].num_features, len(small[1].running_var), small[2].in_features) == (2,) * 4
    assert torch.equal(zeroed[0].weight, net[0].weight * ~marked[:, None])
    assert torch.equal(zeroed[2].weight, net[2].weight * ~marked)
    assert zeroed[0].bias.count_nonzero() == zeroed[1].weight.count_nonzero() == 2


def test_tokens_by_hand() -> None:
    assert tokens(torch.arange(64.0).view(1, 1, 8, 8))[0, 1].tolist() == list(range(16, 32))
