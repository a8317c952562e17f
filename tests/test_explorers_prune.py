"""What is special to the pruning explorer; what all explorers share is in `explorer_contract.py`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plotly.utils import PlotlyJSONEncoder
from torch import Tensor, nn

from kit import board, data, measure, models, prune, training
from kit.data import Dataset
from kit.explorers import PruningExplorer
from kit.explorers import prune as room
from kit.measure import SizeName
from kit.models import ConvNet
from kit.plots.curves import amount
from kit.prune import PruningMethod
from tests.hands import PATIENCE, is_error, recover, settle, words
from tests.nets import same

# The plane's traces, in the order in which they are drawn.
RANDOM_BAND, RANDOM, OWN_BAND, OWN, DENSE, PINS, MAGNITUDE = range(7)

pytestmark = pytest.mark.usefixtures("own_board")

Open = Callable[[PruningExplorer], PruningExplorer]


@pytest.fixture(scope="module")
def shared(trained: ConvNet, digits: Dataset, board_apart: None) -> Iterator[PruningExplorer]:
    with contextlib.closing(PruningExplorer(trained, digits)) as explorer:
        explorer.wait(PATIENCE)
        yield explorer


@pytest.fixture
def explorer(shared: PruningExplorer, own_board: Path) -> PruningExplorer:
    """The explorer that the tests share, its controls and board as at the beginning."""
    shared.read_board()
    recover(shared)
    return shared


class Cut(nn.Module):
    """Autograd does not see through it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x.flatten(1))).detach())


def drawn(explorer: PruningExplorer, trace: int, figure: str = "plane") -> tuple[list[float], list[float]]:
    found = explorer.figures[figure].data[trace]
    return list(found.x or ()), list(found.y or ())


def assert_shows(explorer: PruningExplorer, method: PruningMethod, ratio: float) -> None:
    """Settings, point, mark and words agree with each other and with the numbers measured directly."""
    assert explorer.settings.method == method
    point = explorer.point
    assert point.ratio == ratio
    assert point.whole
    assert point.accuracy == measure.accuracy(explorer.model, explorer.dataset.validation)
    assert point.sizes.nonzeros == measure.nonzeros(explorer.model)
    shares = (point.accuracy.value, point.accuracy.low, point.accuracy.high)
    assert explorer.here.values == pytest.approx([point.sizes.nonzeros, *(100 * share for share in shares)])
    said, sizes = words(explorer), point.sizes
    for part in (
        f"{100 * ratio:.4g} % of the {method.what} removed",
        f"{method.importance}:",
        f", {method.scope}",
        f"Accuracy {point.accuracy.percent}, 95 % interval, {point.accuracy.n} images",
        f"Non-zeros {sizes.nonzeros:,} of {explorer.dense.nonzeros:,}",
        f"file {amount(sizes.file_bytes, 'B')} of {amount(explorer.dense.file_bytes, 'B')}",
        f"{amount(sizes.flops, 'FLOPs')} of {amount(explorer.dense.flops, 'FLOPs')}",
    ):
        assert part in said
    assert "so far" not in said and not is_error(explorer)


@pytest.mark.parametrize("ratio", [0.0, 0.9, 0.999])
def test_ratio(explorer: PruningExplorer, trained: ConvNet, ratio: float) -> None:
    settle(explorer, ratio=ratio)
    assert_shows(explorer, PruningMethod("weights", "magnitude", "global"), ratio)
    assert same(explorer.model, prune.weights(trained, ratio=ratio))
    assert explorer.profile.nonzeros == explorer.point.sizes.nonzeros
    assert explorer.dense.nonzeros == measure.nonzeros(trained)
    masks = prune.masks(explorer.model)
    assert drawn(explorer, 0, "kept")[0] == pytest.approx([100 * float(mask.float().mean()) for mask in masks.values()])
    assert sum(drawn(explorer, 0, "weights")[1]) == sum(int(mask.sum()) for mask in masks.values())
    assert len(drawn(explorer, 1, "filters")[0]) == int((~masks["conv1.weight"]).sum())


@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_importance_and_scope(explorer: PruningExplorer, trained: ConvNet, digits: Dataset, importance: Any) -> None:
    assert len(set(drawn(explorer, 2, "weights")[0])) == 3  # one threshold, on both sides of 0, and gaps
    settle(explorer, scope="layer")
    assert_shows(explorer, PruningMethod(scope="layer"), 0.5)
    assert same(explorer.model, prune.weights(trained, ratio=0.5, scope="layer"))
    assert drawn(explorer, 0, "kept")[0] == pytest.approx([50] * 4, abs=1)
    assert len(set(drawn(explorer, 2, "weights")[0])) == 9  # one threshold for each of the four layers
    settle(explorer, importance=importance, scope="global")
    assert_shows(explorer, PruningMethod(importance=importance), 0.5)
    assert same(explorer.model, prune.weights(trained, ratio=0.5, importance=importance, dataset=digits))
    assert explorer.figures["plane"].data[OWN].name == importance
    assert not drawn(explorer, 2, "weights")[0]  # no threshold in |w| decided
    explorer.wait_curves(PATIENCE)
    assert len(drawn(explorer, RANDOM)[0]) == (0 if importance == "random" else 40)  # it is its own baseline
    assert len(drawn(explorer, MAGNITUDE)[0]) == 40


def test_what_sets_the_usual_scope_and_takes_channels_out(explorer: PruningExplorer) -> None:
    settle(explorer, what="channels")
    assert_shows(explorer, PruningMethod("channels", scope="layer"), 0.5)
    assert cast(ConvNet, explorer.model).conv1.out_channels == 4
    assert explorer.profile.flops < explorer.dense.flops / 2
    assert len(drawn(explorer, 1, "filters")[0]) == 4 * 9  # half of the eight filters, all of their nine weights
    settle(explorer, ratio=0.99)
    assert explorer.point.floored == ("conv1", "conv2", "fc1")
    assert "One channel was kept in conv1, conv2, fc1, against the ratio." in words(explorer)
    explorer.ratio.value = 0.5
    explorer.scope.value = "global"
    settle(explorer, what="weights")
    assert_shows(explorer, PruningMethod(scope="global"), 0.5)


def test_many_names_are_counted(explorer: PruningExplorer) -> None:
    """What was left alone is said, with the first reason; of a deep network the first few names."""
    answer = explorer._latest()
    skipped = tuple((f"blocks.{at}.qkv", f"Its channels <{at}> are split.") for at in range(12))
    layers: Any = {"emptied": tuple(f"layer {at}" for at in range(5)), "floored": ("a", "b", "c"), "skipped": skipped}
    point = dataclasses.replace(answer.point, **layers)
    said = explorer._words(dataclasses.replace(answer, point=point))
    assert "Nothing is left of layer 0, layer 1, layer 2 and 2 more: the network" in said
    assert "One channel was kept in a, b, c, against" in said
    left = "Left alone: blocks.0.qkv (its channels &lt;0&gt; are split), blocks.1.qkv, blocks.2.qkv and 9 more."
    assert left in said and "Left alone" not in words(explorer)


def test_channels_that_are_left_alone_are_named_with_the_reason(opened: Open, few_digits: Dataset) -> None:
    layers = nn.Linear(64, 16), nn.LayerNorm(16), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10)
    net = nn.Sequential(nn.Flatten(), *layers)
    explorer = opened(PruningExplorer(net, few_digits, what="channels"))
    explorer.wait(PATIENCE)
    assert "Left alone: 1 (its channels cannot be followed through 2 (LayerNorm): it works on all" in words(explorer)
    assert explorer.point.skipped == prune.remove_channels(net, ratio=0.5, dataset=few_digits).skipped
    assert [module.out_features for module in explorer.model.modules() if isinstance(module, nn.Linear)] == [16, 6, 10]
    settle(explorer, what="weights")
    assert "Left alone" not in words(explorer)


def test_epochs_and_seed(explorer: PruningExplorer, trained: ConvNet, digits: Dataset) -> None:
    settle(explorer, ratio=0.95)
    before = explorer.point
    settle(explorer, epochs=1)
    assert_shows(explorer, PruningMethod(epochs=1), 0.95)
    assert "then 1 epoch of" in words(explorer)
    assert explorer.point.accuracy.value > before.accuracy.value
    assert explorer.point.sizes.nonzeros <= before.sizes.nonzeros
    direct = prune.fine_tune(prune.weights(trained, ratio=0.95), digits, epochs=1, seed=0)
    assert same(explorer.model, direct)
    settle(explorer, seed=3)
    assert_shows(explorer, PruningMethod(epochs=1, seed=3), 0.95)
    assert not same(explorer.model, direct)


@pytest.mark.parametrize("size", ["nonzeros", "file_bytes", "flops", "latency"])
def test_size(explorer: PruningExplorer, size: SizeName) -> None:
    settle(explorer, size=size)
    explorer.wait_curves(PATIENCE)

    found = (getattr(explorer._sweep.profile(PruningMethod(), ratio), size) for ratio in (0.5, 0.0))
    own, dense = (float(each.value if size == "latency" else each) for each in found)
    assert explorer.here.values[0] == own
    x = drawn(explorer, OWN)[0]
    assert len(x) == 40 and drawn(explorer, DENSE)[0] == [dense] == x[:1]
    low, high = explorer.figures["plane"].layout.xaxis.range
    assert all(low < np.log10(each) < high for each in (own, dense))


def test_the_curves_hold_what_was_measured_coarse_first(
    explorer: PruningExplorer, trained: ConvNet, digits: Dataset
) -> None:
    explorer.wait_curves(PATIENCE)
    for trace, method in ((OWN, PruningMethod()), (RANDOM, PruningMethod(importance="random"))):
        points = explorer.points(method)
        assert [point.ratio for point in points] == list(room.RATIOS)
        assert all(point.whole for point in points)
        x, y = drawn(explorer, trace)
        assert x == [point.sizes.nonzeros for point in points]
        assert y == pytest.approx([100 * point.accuracy.value for point in points])
    for at in (7, 30, 39):
        direct = prune.weights(trained, ratio=room.RATIOS[at])
        assert explorer.points()[at].accuracy == measure.accuracy(direct, digits.validation)
    assert explorer.curves_note.value == "curves complete: 80 points"
    assert len(room.RATIOS) == 40 and sorted(room.COARSE_FIRST) == sorted(room.RATIOS)
    assert sum(0.9 <= ratio <= 0.999 for ratio in room.RATIOS) >= 20  # close at the cliff
    for some in (5, 10, 20):  # no gap is more than about twice the even one
        places = sorted(room.RATIOS.index(ratio) for ratio in room.COARSE_FIRST[:some])
        assert places[0] == 0 and max(np.diff([*places, 39])) <= 2 * 40 / some


def test_a_slow_model_answers_first_from_a_slice(opened: Open, digits: Dataset) -> None:
    few = dataclasses.replace(digits, validation=digits.validation.first(256))

    class Slow(models.MLP):  # a class of its own: what another model's passes took is not taken for this one's
        def forward(self, x: Tensor) -> Tensor:
            end = time.thread_time() + 0.001 * len(x)
            while time.thread_time() < end:
                pass
            return super().forward(x)

    net = Slow((64, 10))
    models.initialise(net, seed=0)
    explorer = opened(PruningExplorer(net, few))
    assert explorer._sweep.slice_size == 64  # 40 ms would be 40 samples; 64 are the least
    explorer.wait(PATIENCE)
    seen: list[tuple[str, float]] = []
    explorer.status.observe(lambda _: seen.append((words(explorer), float(np.ptp(explorer.here.values[2:])))), "value")
    settle(explorer, ratio=0.9)
    answers = [(said, width) for said, width in seen if "90 % of" in said]
    counts = [int(re.findall(r"(\d+) images", said)[0]) for said, _ in answers]
    assert counts[:4] == [64, 128, 192, 256]
    assert set(counts[4:]) <= {256}  # said again with the latency, perhaps with the dense model's accuracy
    assert ["so far" in said for said, _ in answers] == [True] * 3 + [False] * (len(counts) - 3)
    assert answers[0][1] > 1.3 * answers[3][1]  # four times the images, half the interval, but for another accuracy
    assert_shows(explorer, PruningMethod(), 0.9)


@pytest.mark.parametrize(
    ("net", "what"), [(models.MLP((64, 20, 10)), "weights"), (models.ResNet(widths=(4, 8)), "channels")]
)
def test_other_models(opened: Open, digits: Dataset, net: nn.Module, what: prune.What) -> None:
    scope = room.USUAL_SCOPE[what]
    explorer = opened(PruningExplorer(net, digits, what=what, ratio=0.75))
    explorer.wait(PATIENCE)
    assert_shows(explorer, PruningMethod(what, scope=scope), 0.75)
    settle(explorer, epochs=1, importance="taylor")
    assert_shows(explorer, PruningMethod(what, "taylor", scope, epochs=1), 0.75)
    assert len(drawn(explorer, 0, "kept")[0]) == len(prune.prunable(net))
    assert measure.parameters(explorer.model) <= measure.parameters(net)


def test_a_readers_own_module_and_data(opened: Open) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(320) % 4
    images = generator.uniform(0, 0.5, (320, 3, 9, 7)).astype(np.float32)  # which corner is bright?
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * (label // 2) : 4 * (label // 2) + 4, 3 * (label % 2) : 3 * (label % 2) + 3] += 0.3
    corners = data.from_arrays(images, labels, name="corners", class_names=("nw", "ne", "sw", "se"))
    convolutions = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False)
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(6 * 5 * 3, 4))
    models.initialise(net, seed=1)
    training.fit(net, corners, epochs=4, lr=1e-2)
    explorer = opened(PruningExplorer(net, corners))
    explorer.wait_curves(PATIENCE)
    assert_shows(explorer, PruningMethod(), 0.5)
    assert explorer.figures["plane"].layout.shapes[0].y0 == 25  # guessing among four classes
    assert len(drawn(explorer, OWN)[0]) == len(drawn(explorer, RANDOM)[0]) == 40
    settle(explorer, what="channels", importance="taylor", epochs=1)
    assert_shows(explorer, PruningMethod("channels", "taylor", "layer", epochs=1), 0.5)
    assert cast(Any, explorer.model)[0].out_channels == 4


def test_the_given_model_is_never_changed(opened: Open, trained: ConvNet, digits: Dataset) -> None:
    net = copy.deepcopy(trained).train()
    net.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    explorer = opened(PruningExplorer(net, digits))
    for controls in ({"epochs": 1}, {"what": "channels"}, {"importance": "taylor"}):
        settle(explorer, **controls)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert [parameter.requires_grad for parameter in net.parameters()] == [False] + [True] * 7
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.requires_grad)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_channels_of_an_untraceable_model_are_refused_in_words(opened: Open, digits: Dataset) -> None:
    explorer = opened(PruningExplorer(Cut(), digits))
    explorer.wait(PATIENCE)
    explorer.what.value = "channels"
    with pytest.raises(prune.Untraceable) as caught:
        explorer.wait(PATIENCE)
    said = str(caught.value)
    assert words(explorer).startswith(f"{said} The picture shows the last answer: 50 % of the weights removed")
    assert re.search(
        r"channels of Cut cannot be followed through first \(Linear\).* weights can be pruned instead", said
    )
    settle(explorer, what="weights", ratio=0.7)
    assert_shows(explorer, PruningMethod(), 0.7)
    explorer.wait_curves(PATIENCE)
    assert len(explorer.points()) == 40


def test_a_curve_that_cannot_be_had_does_not_stop_the_others(
    explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = explorer._sweep.point

    def without_random(method: PruningMethod, ratio: float, **settings: Any) -> Any:
        if method.importance == "random":
            raise RuntimeError("lost.")
        return point(method, ratio, **settings)

    monkeypatch.setattr(explorer._sweep, "point", without_random)
    monkeypatch.setattr(explorer, "_failed", set())
    settle(explorer, scope="layer", seed=9)
    explorer.wait_curves(PATIENCE)
    assert len(explorer.points()) == 40
    assert len(drawn(explorer, RANDOM)[0]) == 1  # the dense model, which is on every curve
    assert not is_error(explorer)
    assert explorer.curves_note.value == "curves complete: 40 points"


@pytest.mark.parametrize(
    ("net", "settings", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), {}, "Sequential has nothing to prune"),
        (models.ConvNet(image_size=28), {}, r"cannot take samples of shape \(1, 8, 8\)"),
        (models.MLP((64, 4)), {}, "n_classes at least 10"),
        (models.MLP((64, 10)), {"ratio": 0.51}, "ratio must be one of the slider's 40 stops from 0 to 0.999"),
        (models.MLP((64, 10)), {"what": "neurons"}, "what must be one of weights, channels; got 'neurons'"),
    ],
)
def test_what_cannot_work_is_refused(digits: Dataset, net: nn.Module, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PruningExplorer(net, digits, **settings)


def test_a_tiny_model_may_lose_every_weight(opened: Open, digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 10, bias=False))
    explorer = opened(PruningExplorer(net, digits))
    settle(explorer, ratio=0.999)
    assert explorer.point.sizes.nonzeros == 0
    assert explorer.here.values[0] > 0  # a log axis has no 0
    assert explorer.point.emptied == ("1.weight", "2.weight")
    assert "Nothing is left of 1.weight, 2.weight: the network is cut there." in words(explorer)
    explorer.wait_curves(PATIENCE)
    assert len(explorer.points()) == 40
    assert not is_error(explorer)


def test_a_pin_has_its_name_and_settings_from_the_controls(explorer: PruningExplorer) -> None:
    explorer.pin()
    settle(explorer, what="channels", ratio=0.25, epochs=1, seed=2)
    explorer.pin()
    explorer.wait(PATIENCE)
    pinned = board.frame()
    assert list(pinned["name"]) == [
        "ConvNet, 50 % weights, magnitude, global",
        "ConvNet, 25 % channels, magnitude, layer, 1 epoch, seed 2",
    ]
    method = {"what": "channels", "importance": "magnitude", "scope": "layer", "epochs": 1, "seed": 2}
    assert pinned["settings"].iloc[1] == {**method, "renew": False, "lr": 1e-3, "ratio": 0.25}
    assert drawn(explorer, PINS)[0] == list(pinned["nonzeros"])
    assert drawn(explorer, PINS)[1] == pytest.approx(list(100 * pinned["accuracy"]))


def test_statistics_are_renewed_where_the_reader_asks_and_both_are_told(opened: Open, few_digits: Dataset) -> None:
    net = models.ResNet(widths=(4,))
    training.fit(net, few_digits, epochs=3, lr=1e-2)
    without = prune.Sweep(net, few_digits).point(PruningMethod("channels", scope="layer"), 0.5)
    explorer = opened(PruningExplorer(net, few_digits, what="channels").set(renew=True))
    explorer.wait(PATIENCE)
    assert f"; dense {measure.accuracy(net, few_digits.validation).percent}" in words(explorer)
    settle(explorer, renew=False)
    assert explorer.point == without
    assert explorer.renew.layout.display is None and "anew" not in words(explorer)
    settle(explorer, renew=True)
    assert_shows(explorer, PruningMethod("channels", scope="layer", renew=True), 0.5)
    smaller = prune.channels(net, ratio=0.5, dataset=few_digits)
    assert same(explorer.model, training.renew_statistics(smaller, few_digits.train.inputs))
    assert f"measured anew on training samples; as they were: {without.accuracy.percent}." in words(explorer)
    assert explorer.point.accuracy != without.accuracy
    assert explorer.code() == "PruningExplorer(model, dataset, ratio=0.5, what='channels').set(renew=True)"
    explorer.pin()
    explorer.wait(PATIENCE)
    (pinned,) = board.frame().to_dict("records")
    assert pinned["name"] == "ResNet, 50 % channels, magnitude, layer, renewed statistics"
    assert pinned["settings"]["renew"] is True
    settle(explorer, renew=False)
    assert explorer.point == without


def test_statistics_that_are_not_there_are_not_offered(explorer: PruningExplorer) -> None:
    assert explorer.renew.layout.display == "none"
    explorer.set(renew=True)
    with pytest.raises(ValueError, match="renew: ConvNet has no batch-norm statistics to measure anew"):
        explorer.wait(PATIENCE)
    assert is_error(explorer)


def test_answers_that_are_no_numbers_are_said_and_not_pinned(opened: Open, digits: Dataset) -> None:
    """The rows of the first layer are divided by their length, which is 0 once a row is empty."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Linear(12, 10))
    models.initialise(net, seed=0)
    net[1].register_forward_hook(lambda layer, _, output: output / layer.weight.norm(dim=1))
    explorer = opened(PruningExplorer(net, digits, ratio=0.0))
    explorer.wait(PATIENCE)
    assert "NaN" not in words(explorer)
    settle(explorer, ratio=0.999)
    assert_shows(explorer, PruningMethod(), 0.999)
    assert explorer.point.accuracy.value == 0 and explorer.profile.nonfinite == 539
    assert "The model answers NaN or infinity for 539 of 539 samples: these count as wrong." in words(explorer)
    explorer.pin()
    with pytest.raises(ValueError, match="the model answers NaN or infinity for 539 of 539 samples, so its accuracy"):
        explorer.wait(PATIENCE)
    assert board.frame().empty and is_error(explorer)
    explorer.wait_curves(PATIENCE)
    assert len(explorer.points()) == 40


def test_scores_by_gradients_can_be_stopped(opened: Open, digits: Dataset) -> None:
    net, held = models.MLP((64, 10)), list[Any]()

    def stop(*_: Any) -> None:
        if torch.is_grad_enabled() and held:
            held[0].stop()

    net.register_forward_pre_hook(stop)
    explorer = opened(PruningExplorer(net, digits))
    explorer.wait_curves(PATIENCE)
    held.append(explorer)
    settle(explorer, importance="taylor")
    assert words(explorer).startswith("Stopped. Move a control to go on.") and not explorer._sweep._rankings.keys() & {
        ("taylor", "global", 0)
    }
    held.clear()
    settle(explorer, ratio=0.9)
    assert_shows(explorer, PruningMethod(importance="taylor"), 0.9)


class Vision(nn.Module):
    """A small transformer of images by hand: its first parameters belong to no layer; it answers by a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 17, 16))
        self.patches, self.norm = nn.Conv2d(1, 16, 2, 2), nn.LayerNorm(16)
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 10)
        models.initialise(nn.ModuleList([self.patches, self.norm, self.head]), seed=0)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions)
        self.seen, self.map = self.attention(x, x, x)  # kept to look at, as tutorials do
        return {"logits": self.head((x + self.seen)[:, 0])}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x.squeeze(1))[0][:, -1])


class TiedDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.code, self.back, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.back.weight = self.code.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(F.relu(self.code(x.flatten(1)))))


def frozen_normalisation() -> nn.Module:
    net = models.ResNet(widths=(4,))
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval().requires_grad_(False)
    return net


def normalised() -> nn.Module:
    wrap = nn.utils.parametrizations.weight_norm
    return nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 12)), nn.ReLU(), wrap(nn.Linear(12, 10)))


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "class token": Vision,
    "recurrent": Recurrent,
    "tied": TiedDecoder,
    "weight norm": normalised,
    "frozen normalisation": frozen_normalisation,
    "bfloat16": lambda: models.MLP((64, 12, 10)).bfloat16(),
    "double": lambda: models.MLP((64, 12, 10)).double(),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_models_of_other_makes(opened: Open, few_digits: Dataset, make: Callable[[], nn.Module]) -> None:
    """Their weights can be pruned, scored and trained on; the pictures are strict JSON; the curve has its points."""
    net = make()
    explorer = opened(PruningExplorer(net, few_digits, ratio=0.9))
    explorer.wait(PATIENCE)
    assert_shows(explorer, PruningMethod(), 0.9)
    wanted = sum(w.numel() for w in prune.prunable(net).values())
    assert sum(int((~mask).sum()) for mask in prune.masks(explorer.model).values()) == round(0.9 * wanted)
    explorer.set(importance="taylor", epochs=1)
    explorer.wait(PATIENCE)
    assert_shows(explorer, PruningMethod(importance="taylor", epochs=1), 0.9)
    for figure in explorer.figures.values():
        json.dumps(figure.to_plotly_json(), allow_nan=False, cls=PlotlyJSONEncoder)


def test_pins_of_this_data_set_appear_and_of_others_do_not(opened: Open, trained: ConvNet, digits: Dataset) -> None:
    profile = measure.profile(trained, digits.validation)
    board.pin("from another notebook", profile, dataset=digits.key, technique="pruning")
    board.pin("elsewhere", profile, dataset="other data", technique="pruning")
    explorer = opened(PruningExplorer(models.MLP((64, 10)), digits))
    explorer.wait(PATIENCE)
    assert [row[2] for row in explorer.figures["plane"].data[PINS].customdata] == ["from another notebook"]
    assert drawn(explorer, PINS)[0] == [profile.nonzeros]
    low, high = explorer.figures["plane"].layout.xaxis.range
    assert low < np.log10(profile.nonzeros) < high  # a pin larger than the own model is in sight
    board.pin("no flops", dataclasses.replace(profile, flops=0), dataset=digits.key, technique="quantised")
    explorer.read_board()
    settle(explorer, size="flops")
    assert min(drawn(explorer, PINS)[0]) > 0  # at the edge of the log axis


@pytest.mark.parametrize("act", ["stop", "reset"])
def test_a_stop_or_a_newer_move_cancels_fine_tuning(explorer: PruningExplorer, act: str) -> None:
    def at_first_batch(change: Any) -> None:
        if change["new"] > 0:
            explorer.progress.unobserve_all("value")
            getattr(explorer, act)()

    explorer.progress.observe(at_first_batch, "value")
    settle(explorer, epochs=10)
    assert explorer._sweep.known(PruningMethod(epochs=10), 0.5) is None
    assert ("Stopped" in words(explorer)) == (act == "stop")


def test_a_model_of_zeros_has_a_place_on_the_plane(digits: Dataset, own_board: Path) -> None:
    net = models.MLP((64, 8, 10))
    for parameter in net.parameters():
        parameter.data.zero_()
    with contextlib.closing(PruningExplorer(net, digits)) as explorer:
        for size in ("nonzeros", "flops"):
            settle(explorer, size=size)
            assert (explorer.table()["x"] > 0).all() and not is_error(explorer)


def test_the_heads_of_a_large_model_are_looked_for_after_its_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{word} {other}" for word in ("sun", "rain", "snow") for other in "abcdefgh"] * 4
    dataset = data.from_texts(texts, [text[:3] == "sun" for text in texts], length=4)
    assert dataset.tokens is not None
    net = models.Transformer(dataset.tokens.size, 4, 2, width=8, heads=2, layers=1)
    monkeypatch.setattr("kit.prune.sweep.MANY", 0)
    seen: list[str] = []
    found = prune.heads

    def counted(*each: Any) -> Any:
        seen.append("heads")
        return found(*each)

    monkeypatch.setattr("kit.prune.sweep.heads", counted)
    monkeypatch.setattr(PruningExplorer, "_show", lambda *each: seen.append("words"))
    with contextlib.closing(PruningExplorer(net, dataset)) as explorer:
        explorer._sweep.slice_size = 4
        explorer.set(ratio=0.75).wait()
        assert seen[0] == "words" and seen.count("heads") == 1
        assert explorer.figures["filters"].layout.title.text == "How large each head is"
