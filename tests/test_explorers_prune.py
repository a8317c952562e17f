from __future__ import annotations

import _thread
import base64
import contextlib
import copy
import dataclasses
import io
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import board, data, measure, models, prune, training
from kit.data import Dataset
from kit.explorers import PruningExplorer
from kit.explorers import base as base_room
from kit.explorers import prune as room
from kit.models import ConvNet
from kit.prune import Method
from tests.hands import PATIENCE, settle, words

# The plane's traces, in the order in which they are drawn.
RIVAL_BAND, RIVAL, OWN_BAND, OWN, DENSE, PINS, USUAL = range(7)
HERE = -1  # not a trace: drawn over the plane


pytestmark = pytest.mark.usefixtures("own_board")


@pytest.fixture(scope="module")
def shared(trained: ConvNet, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PruningExplorer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_BOARD", str(tmp_path_factory.mktemp("shared") / "board.sqlite"))
        explorer = PruningExplorer(trained, digits)
        explorer.wait(PATIENCE)
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(shared: PruningExplorer, own_board: Path) -> PruningExplorer:
    """The explorer that the tests share, its controls and board as at the beginning."""
    shared.stop()
    with contextlib.suppress(Exception):  # an error of the test before
        shared.wait(PATIENCE)
    shared.pin_name.value = ""
    shared.read_board()
    shared.reset()
    shared.wait(PATIENCE)
    return shared


@pytest.fixture
def opened() -> Iterator[Callable[..., PruningExplorer]]:
    """Make explorers that are closed at the end of the test."""
    made: list[PruningExplorer] = []

    def make(*args: Any, **settings: Any) -> PruningExplorer:
        made.append(PruningExplorer(*args, **settings))
        return made[-1]

    yield make
    for explorer in made:
        explorer.close()


@pytest.fixture(scope="module")
def coloured() -> Dataset:
    """Images of 3 channels, 9 x 7 pixels, in 4 classes: which corner is bright."""
    generator = np.random.default_rng(0)
    labels = np.arange(320) % 4
    images = generator.uniform(0, 0.5, (320, 3, 9, 7)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * (label // 2) : 4 * (label // 2) + 4, 3 * (label % 2) : 3 * (label % 2) + 3] += 0.3
    return data.from_arrays(images, labels, name="corners", class_names=("nw", "ne", "sw", "se"))


class Own(nn.Module):
    """What a reader might bring."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False))
        self.head = nn.Linear(6 * 5 * 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Cut(nn.Module):
    """Autograd does not see through it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x.flatten(1))).detach())


class Slow(nn.Module):
    """Takes a millisecond a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.001 * len(x))
        return self.layer(x.flatten(1))


def is_error(explorer: PruningExplorer) -> bool:
    return "kit-error" in explorer.status.value


def arrays(explorer: PruningExplorer, trace: int) -> tuple[list[float], list[float]]:
    if trace == HERE:
        return explorer.here.point[:1], explorer.here.point[1:2]
    drawn = explorer._plane.data[trace]
    return list(drawn.x or ()), list(drawn.y or ())


def size_title(explorer: PruningExplorer) -> str:
    return cast(str, explorer._plane.layout.xaxis.title.text)


def figures(explorer: PruningExplorer) -> list[Any]:
    return [explorer._plane, explorer._kept, explorer._weights, explorer._filters]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_shows(explorer: PruningExplorer, method: Method, ratio: float) -> None:
    """Settings, point, marker and words agree with each other and with the numbers measured directly."""
    assert explorer.settings.method == method
    point = explorer.point
    validation = explorer.dataset.validation
    assert point.ratio == ratio
    assert point.whole
    assert point.accuracy == measure.accuracy(explorer.model, validation)
    assert point.sizes.nonzeros == measure.nonzeros(explorer.model)
    x, y = arrays(explorer, HERE)
    assert x == [point.sizes.nonzeros]
    assert y == pytest.approx([100 * point.accuracy.value])
    assert explorer.here.point[2:] == pytest.approx([100 * point.accuracy.low, 100 * point.accuracy.high])
    said = words(explorer)
    assert f"{100 * ratio:.4g} % of the {method.what} removed" in said
    assert f"{method.importance}:" in said
    assert f", {method.scope}" in said
    assert point.accuracy.percent in said
    assert not is_error(explorer)


# --- the controls -----------------------------------------------------------------------------------------------


def test_the_first_answer_comes_unasked(explorer: PruningExplorer) -> None:
    assert_shows(explorer, Method("weights", "magnitude", "global"), 0.5)
    assert explorer._plane.data[OWN].name == "magnitude"
    assert len(room.RATIOS) == 40
    assert len([ratio for ratio in room.RATIOS if 0.9 <= ratio <= 0.999]) >= 20  # the cliff is there


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.9, 0.985, 0.999])
def test_ratio(explorer: PruningExplorer, trained: ConvNet, ratio: float) -> None:
    settle(explorer, ratio=ratio)
    assert_shows(explorer, Method(), ratio)
    assert same_weights(explorer.model, prune.weights(trained, ratio=ratio))
    assert explorer.profile.nonzeros == explorer.point.sizes.nonzeros
    kept = explorer._kept.data[0].x
    masks = prune.masks(explorer.model)
    assert list(kept) == pytest.approx([100 * float(mask.float().mean()) for mask in masks.values()])
    left = explorer._weights.data[0].y
    assert sum(left) == sum(int(mask.sum()) for mask in masks.values())
    crosses = explorer._filters.data[1].x or ()
    assert len(crosses) == int((~masks["conv1.weight"]).sum())


@pytest.mark.parametrize("ratio", [0.51, -0.1, 1.0, 99, "half", None, float("nan")])
def test_a_ratio_that_is_no_stop_is_refused(explorer: PruningExplorer, ratio: Any) -> None:
    with pytest.raises(ValueError) as caught:
        explorer.ratio.value = ratio
    sentence = str(caught.value)
    assert sentence.startswith("ratio must be one of the slider's 40 stops from 0 to 0.999; got ")
    assert sentence.count("\n") == 0
    assert repr(ratio) in sentence
    if ratio == 0.51:
        assert "nearest are 0.5 and 0.55" in sentence
    explorer.wait(PATIENCE)
    assert_shows(explorer, Method(), 0.5)


@pytest.mark.parametrize("importance", ["taylor", "random"])
def test_importance(explorer: PruningExplorer, trained: ConvNet, digits: Dataset, importance: Any) -> None:
    settle(explorer, importance=importance)
    assert_shows(explorer, Method(importance=importance), 0.5)
    assert same_weights(explorer.model, prune.weights(trained, ratio=0.5, importance=importance, dataset=digits))
    assert explorer._plane.data[OWN].name == importance
    assert not explorer._weights.data[2].x  # no threshold in |w| decided
    explorer.wait_sweep(PATIENCE)
    assert len(arrays(explorer, RIVAL)[0]) == (0 if importance == "random" else 40)  # random is its own rival
    assert len(explorer._plane.data[USUAL].x) == (0 if importance == "magnitude" else 40)  # to compare with


def test_scope(explorer: PruningExplorer, trained: ConvNet) -> None:
    assert len(set(explorer._weights.data[2].x)) == 3  # one threshold, on both sides of 0, and gaps
    settle(explorer, scope="layer")
    assert_shows(explorer, Method(scope="layer"), 0.5)
    assert same_weights(explorer.model, prune.weights(trained, ratio=0.5, scope="layer"))
    assert list(explorer._kept.data[0].x) == pytest.approx([50] * 4, abs=1)
    assert len(set(explorer._weights.data[2].x)) == 9  # one threshold for each of the four layers


def test_what_sets_the_usual_scope_and_takes_channels_out(explorer: PruningExplorer) -> None:
    settle(explorer, what="channels")
    assert explorer.scope.value == "layer"
    assert_shows(explorer, Method("channels", scope="layer"), 0.5)
    assert cast(ConvNet, explorer.model).conv1.out_channels == 4
    assert explorer.profile.flops < explorer._sweep.dense.flops / 2
    crosses = explorer._filters.data[1].x
    assert len(crosses) == 4 * 9  # half of the eight filters, all of their nine weights
    explorer.scope.value = "global"
    settle(explorer, what="weights")
    assert explorer.scope.value == "global"
    assert_shows(explorer, Method(), 0.5)


def test_epochs_and_seed(explorer: PruningExplorer, trained: ConvNet, digits: Dataset) -> None:
    settle(explorer, ratio=0.95)
    before = explorer.point
    settle(explorer, epochs=1)
    assert_shows(explorer, Method(epochs=1), 0.95)
    assert "then 1 epoch" in words(explorer)
    assert explorer.point.accuracy.value > before.accuracy.value
    assert explorer.point.sizes.nonzeros <= before.sizes.nonzeros
    direct = prune.fine_tune(prune.weights(trained, ratio=0.95), digits, epochs=1, seed=0)
    assert same_weights(explorer.model, direct)
    explorer.wait_sweep(PATIENCE)
    assert explorer.stop_button.disabled
    assert "kit-busy" not in explorer._dom_classes
    assert explorer.progress.value == 0
    settle(explorer, seed=3)
    assert_shows(explorer, Method(epochs=1, seed=3), 0.95)
    assert not same_weights(explorer.model, direct)


@pytest.mark.parametrize(
    ("size", "title", "divisor"),
    [
        ("nonzeros", "parameters that are not zero", 1),
        ("file_bytes", "file, kB", 1e3),
        ("flops", "MFLOPs for one sample", 1e6),
        ("latency", "latency, ms", 1),
    ],
)
def test_size(explorer: PruningExplorer, size: str, title: str, divisor: float) -> None:
    settle(explorer, size=size)
    assert size_title(explorer) == title
    explorer.wait_sweep(PATIENCE)
    profile = explorer.profile
    own = profile.latency.value if size == "latency" else getattr(profile, size)
    assert arrays(explorer, HERE)[0] == [own / divisor]
    x, y = arrays(explorer, OWN)
    assert len(x) == len(y) == 40
    dense = explorer._sweep.profile(Method(), 0.0)
    of_dense = dense.latency.value if size == "latency" else getattr(dense, size)
    assert arrays(explorer, DENSE)[0] == [of_dense / divisor]
    assert x[0] == of_dense / divisor
    low, high = explorer._plane.layout.xaxis.range
    assert low < np.log10(own / divisor) < high
    assert low < np.log10(of_dense / divisor) < high


def test_reset(explorer: PruningExplorer) -> None:
    began = explorer.settings
    settle(explorer, what="channels", ratio=0.3, importance="random", scope="global", seed=4, size="flops")
    assert explorer.settings != began
    explorer.reset_button.click()
    explorer.wait(PATIENCE)
    assert explorer.settings == began
    assert_shows(explorer, Method(), 0.5)
    assert size_title(explorer) == "parameters that are not zero"


def test_reset_goes_back_to_where_this_explorer_began(
    opened: Callable[..., PruningExplorer], trained: ConvNet, digits: Dataset
) -> None:
    explorer = opened(trained, digits, ratio=0.25, what="channels")
    explorer.wait(PATIENCE)
    assert_shows(explorer, Method("channels", scope="layer"), 0.25)
    settle(explorer, what="weights", ratio=0.9)
    explorer.reset()
    explorer.wait(PATIENCE)
    assert_shows(explorer, Method("channels", scope="layer"), 0.25)


def test_a_burst_of_moves_ends_at_the_last(explorer: PruningExplorer) -> None:
    for ratio in room.RATIOS:
        explorer.ratio.value = ratio
    explorer.ratio.value = 0.85
    explorer.wait(PATIENCE)
    assert_shows(explorer, Method(), 0.85)


def test_a_control_returns_at_once(opened: Callable[..., PruningExplorer], digits: Dataset) -> None:
    few = dataclasses.replace(digits, validation=digits.validation.first(400))
    explorer = opened(Slow(), few)  # 0.4 s an answer
    began = time.perf_counter()
    explorer.ratio.value = 0.9
    assert time.perf_counter() - began < 0.2


# --- the curves -------------------------------------------------------------------------------------------------


def test_the_curves_are_complete_in_the_end_and_hold_what_was_measured(
    explorer: PruningExplorer, trained: ConvNet, digits: Dataset
) -> None:
    explorer.wait_sweep(PATIENCE)
    for trace, importance in ((OWN, "magnitude"), (RIVAL, "random")):
        x, y = arrays(explorer, trace)
        method = Method(importance=cast(Any, importance))
        points = explorer.points(method)
        assert [point.ratio for point in points] == list(room.RATIOS)
        assert all(point.whole for point in points)
        assert x == [point.sizes.nonzeros for point in points]
        assert y == pytest.approx([100 * point.accuracy.value for point in points])
        band = arrays(explorer, trace - 1)
        assert band[0] == [*x, *x[::-1]]
        assert band[1][:40] == pytest.approx([100 * point.accuracy.high for point in points])
        assert band[1][40:] == pytest.approx([100 * point.accuracy.low for point in points][::-1])
    for at in (7, 30, 39):
        direct = prune.weights(trained, ratio=room.RATIOS[at])
        assert explorer.points()[at].accuracy == measure.accuracy(direct, digits.validation)
    assert "complete" in explorer.sweep_note.value


def test_a_growing_curve_never_shows_a_point_that_was_not_measured(
    opened: Callable[..., PruningExplorer], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PAINT_SECONDS", 0.0)
    explorer = opened(models.MLP((64, 12, 10)), digits)
    lengths = set()
    paint = explorer._paint

    def watched(figure: Any, traces: Any, **layout: Any) -> None:
        paint(figure, traces, **layout)
        if figure is explorer._plane:
            for trace, importance in ((OWN, "magnitude"), (RIVAL, "random")):
                known = {
                    (point.sizes.nonzeros, 100 * point.accuracy.value)
                    for point in explorer.points(Method(importance=cast(Any, importance)))
                }
                drawn = list(zip(*arrays(explorer, trace), strict=True))
                assert set(drawn) <= known
                lengths.add(len(drawn))

    monkeypatch.setattr(explorer, "_paint", watched)
    explorer.ratio.value = 0.6
    explorer.wait_sweep(PATIENCE)
    assert max(lengths) == 40
    assert len(lengths) > 10  # it grew under our eyes


def test_coarse_first_covers_the_range_early() -> None:
    order = room.COARSE_FIRST
    assert sorted(order) == sorted(room.RATIOS)
    for some in (5, 10, 20):  # no gap is more than about twice the even one
        places = sorted(room.RATIOS.index(ratio) for ratio in order[:some])
        gaps = [b - a for a, b in zip([*places], [*places[1:], 39], strict=True)]
        assert places[0] == 0
        assert max(gaps) <= 2 * 40 / some


def test_a_slow_model_answers_first_from_a_slice(opened: Callable[..., PruningExplorer], digits: Dataset) -> None:
    few = dataclasses.replace(digits, validation=digits.validation.first(256))
    explorer = opened(Slow(), few)
    assert explorer._sweep.slice_size == 64  # 40 ms would be 40 samples; 64 are the least
    explorer.wait(PATIENCE)
    seen: list[tuple[str, float]] = []
    explorer.status.observe(lambda change: seen.append((words(explorer), bar(explorer))), "value")

    def bar(explorer: PruningExplorer) -> float:
        low, high = explorer.here.point[2:]
        return high - low

    settle(explorer, ratio=0.9)
    answers = [(said, width) for said, width in seen if "90 % of" in said]
    counts = [int(re.findall(r"(\d+) images", said)[0]) for said, _ in answers]
    assert counts[:4] == [64, 128, 192, 256]
    assert set(counts[4:]) == {256}  # said again with the latency, perhaps with the dense model's accuracy
    assert ["so far" in said for said, _ in answers] == [True] * 3 + [False] * (len(counts) - 3)
    widths = [width for _, width in answers[:4]]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.3 * widths[-1]
    assert_shows(explorer, Method(), 0.9)


# --- words ------------------------------------------------------------------------------------------------------


def test_the_status_line_says_it_all(explorer: PruningExplorer) -> None:
    explorer.wait_sweep(PATIENCE)
    settle(explorer, ratio=0.8)
    said, profile = words(explorer), explorer.profile
    dense = explorer._sweep.profile(Method(), 0.0)
    assert f"Accuracy {profile.accuracy.percent}, 95 % interval, {profile.accuracy.n} images" in said
    assert re.search(r"\d+\.\d % \(\d+\.\d to \d+\.\d\)", said)
    assert f"dense {dense.accuracy.percent}" in said
    assert f"Non-zeros {profile.nonzeros:,} of {dense.nonzeros:,}" in said
    assert f"file {profile.file_bytes / 1e3:,.1f} kB of {dense.file_bytes / 1e3:,.1f}" in said
    assert f"{profile.flops / 1e6:.3g} MFLOPs of {dense.flops / 1e6:.3g}" in said
    assert f"latency {profile.latency.value:.2f} ms" in said
    assert "batch 1" in said
    assert "so far" not in said
    assert 'role="status"' in explorer.status.value  # read aloud by a screen reader


def test_an_emptied_layer_is_said(opened: Callable[..., PruningExplorer], digits: Dataset) -> None:
    net = models.MLP((64, 16, 10))
    with torch.no_grad():
        net.get_parameter("layers.1.weight").mul_(1e-6)  # the smallest of all, so they go first
    explorer = opened(net, digits)
    settle(explorer, ratio=0.5)
    assert explorer.point.emptied == ("layers.1.weight",)
    assert "Nothing is left of layers.1.weight: the network is cut there." in words(explorer)
    settle(explorer, ratio=0.1)
    assert "Nothing is left" not in words(explorer)


def test_the_last_channel_kept_is_said(explorer: PruningExplorer) -> None:
    settle(explorer, what="channels", ratio=0.99)
    assert set(explorer.point.floored) == {"conv1", "conv2", "fc1"}
    said = words(explorer)
    assert "One channel was kept in" in said
    assert all(name in said.split("One channel was kept in")[1] for name in ("conv1", "conv2", "fc1"))
    assert cast(ConvNet, explorer.model).conv1.out_channels == 1
    settle(explorer, ratio=0.5)
    assert "One channel was kept" not in words(explorer)


# --- models and data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: models.MLP((64, 20, 10)), lambda: models.ResNet(widths=(4, 8))])
@pytest.mark.parametrize("what", prune.WHATS)
def test_other_models(
    opened: Callable[..., PruningExplorer], digits: Dataset, make: Callable[[], nn.Module], what: Any
) -> None:
    net = make()
    scope = room.USUAL_SCOPE[cast(Any, what)]
    explorer = opened(net, digits, what=what, ratio=0.75)
    explorer.wait(PATIENCE)
    assert_shows(explorer, Method(what, scope=scope), 0.75)
    settle(explorer, epochs=1, importance="taylor")
    assert_shows(explorer, Method(what, "taylor", scope, epochs=1), 0.75)
    shares = list(explorer._kept.data[0].x)
    assert len(shares) == len(prune.prunable(net))
    assert all(0 <= share <= 100 for share in shares)
    assert measure.parameters(explorer.model) <= measure.parameters(net)


def test_a_readers_own_module_and_data(opened: Callable[..., PruningExplorer], coloured: Dataset) -> None:
    net = Own()
    models.initialise(net, seed=1)
    training.fit(net, coloured, epochs=4, lr=1e-2)
    assert training.evaluate(net, coloured.validation).correct > 40
    explorer = opened(net, coloured)
    explorer.wait_sweep(PATIENCE)
    assert_shows(explorer, Method(), 0.5)
    assert explorer._plane.layout.shapes[0].y0 == 25  # guessing among four classes
    assert len(arrays(explorer, OWN)[0]) == len(arrays(explorer, RIVAL)[0]) == 40
    picture = np.array(explorer._filters.data[0].z, dtype=float)
    tile = net.get_parameter("features.0.weight").detach().mean(dim=1)  # three channels in one
    assert np.nanmax(np.abs(picture)) <= float(net.get_parameter("features.0.weight").detach().abs().max())
    assert (~np.isnan(picture)).sum() == tile.numel()
    settle(explorer, what="channels", importance="taylor", epochs=1)
    assert_shows(explorer, Method("channels", "taylor", "layer", epochs=1), 0.5)
    assert cast(Any, explorer.model).features[0].out_channels == 4
    explorer.pin("my own")
    explorer.wait(PATIENCE)
    assert list(board.frame(coloured.key)["name"]) == ["my own"]


def test_the_given_model_is_never_changed(
    opened: Callable[..., PruningExplorer], trained: ConvNet, digits: Dataset
) -> None:
    net = copy.deepcopy(trained).train()
    net.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    explorer = opened(net, digits)
    for controls in ({"epochs": 1}, {"what": "channels"}, {"importance": "taylor"}):
        settle(explorer, **controls)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert [parameter.requires_grad for parameter in net.parameters()] == [False] + [True] * 7
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.requires_grad)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    answer = explorer.point
    with torch.no_grad():
        net.conv1.weight.zero_()  # later training of the reader's model does not change the explorer's
    explorer._sweep._models.clear()
    explorer._sweep._points.clear()
    explorer.ratio.value = 0.3
    settle(explorer, ratio=0.5)
    assert explorer.point == answer


def test_the_global_random_state_is_neither_read_nor_moved(explorer: PruningExplorer) -> None:
    state = torch.get_rng_state()
    settle(explorer, importance="random", ratio=0.65, seed=11, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_of_an_untraceable_model_are_refused_in_words(
    opened: Callable[..., PruningExplorer], digits: Dataset
) -> None:
    explorer = opened(Cut(), digits)
    explorer.wait(PATIENCE)
    explorer.what.value = "channels"
    with pytest.raises(prune.Untraceable) as caught:
        explorer.wait(PATIENCE)
    said = words(explorer)
    assert said == str(caught.value)
    assert is_error(explorer)
    assert "channels of Cut cannot be followed through first (Linear)" in said
    assert "weights can be pruned instead" in said
    assert "\n" not in said
    settle(explorer, what="weights", ratio=0.7)
    assert_shows(explorer, Method(), 0.7)
    explorer.wait_sweep(PATIENCE)
    assert len(explorer.points()) == 40


def test_after_a_refusal_the_last_picture_and_the_sentence_stay(
    opened: Callable[..., PruningExplorer], digits: Dataset
) -> None:
    explorer = opened(Cut(), digits)
    explorer.wait_sweep(PATIENCE)
    here, own = arrays(explorer, HERE), arrays(explorer, OWN)
    explorer.what.value = "channels"
    with pytest.raises(prune.Untraceable):
        explorer.wait_sweep(PATIENCE)
    explorer.wait_sweep(PATIENCE)
    assert is_error(explorer)
    assert arrays(explorer, HERE) == here
    assert arrays(explorer, OWN) == own


class Scale(nn.Module):
    """A parameter, and nothing to prune."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * self.scale


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (Scale, {}, "Scale has nothing to prune"),
        (lambda: models.ConvNet(image_size=28), {}, r"cannot take samples of shape \(1, 8, 8\)"),
        (lambda: models.MLP((64, 4)), {}, "n_classes at least 10"),
        (lambda: models.MLP((64, 10)), {"ratio": 0.51}, "ratio must be one of the slider's 40 stops"),
        (lambda: models.MLP((64, 10)), {"ratio": 1.5}, "ratio must be one of the slider's 40 stops"),
        (lambda: models.MLP((64, 10)), {"what": "neurons"}, "what must be one of weights, channels; got 'neurons'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    digits: Dataset, make: Callable[[], nn.Module], settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        PruningExplorer(make(), digits, **settings)


@pytest.mark.parametrize("control", ["what", "importance", "scope", "size"])
def test_unknown_words_are_refused_by_the_controls(explorer: PruningExplorer, control: str) -> None:
    before = explorer.settings
    with pytest.raises(Exception, match=r"(?i)invalid selection|must be one of"):
        getattr(explorer, control).value = "nonsense"
    assert explorer.settings == before


def test_a_tiny_model_may_lose_every_weight(opened: Callable[..., PruningExplorer], digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 10, bias=False))
    explorer = opened(net, digits)
    settle(explorer, ratio=0.999)
    assert explorer.point.sizes.nonzeros == 0
    assert "Nothing is left of" in words(explorer)
    explorer.wait_sweep(PATIENCE)
    assert len(explorer.points()) == 40
    assert not is_error(explorer)


# --- the board --------------------------------------------------------------------------------------------------


def test_pin_by_button_with_a_name(explorer: PruningExplorer, digits: Dataset) -> None:
    settle(explorer, ratio=0.8)
    explorer.pin_name.value = "  my <b>best</b>  "
    explorer.pin_button.click()
    explorer.wait(PATIENCE)
    row = board.frame(digits.key).iloc[0]
    profile = explorer.profile
    assert row["name"] == "my <b>best</b>"
    assert row["technique"] == "pruning"
    assert row["settings"] == {
        "what": "weights",
        "importance": "magnitude",
        "scope": "global",
        "epochs": 0,
        "seed": 0,
        "ratio": 0.8,
    }
    assert (row["accuracy"], row["accuracy_low"], row["n"]) == (
        profile.accuracy.value,
        profile.accuracy.low,
        profile.accuracy.n,
    )
    assert (row["nonzeros"], row["file_bytes"], row["flops"]) == (profile.nonzeros, profile.file_bytes, profile.flops)
    assert (row["latency"], row["batch_size"]) == (profile.latency.value, 1)
    assert words(explorer).startswith("Pinned as my <b>best</b>. 80 % of the weights removed")
    x, y = arrays(explorer, PINS)
    assert (x, y) == ([profile.nonzeros], pytest.approx([100 * profile.accuracy.value]))
    assert list(explorer._plane.data[PINS].text) == ["my &lt;b&gt;best&lt;/b&gt;"]  # plotly reads tags
    error = explorer._plane.data[PINS].error_y
    assert error.array[0] == pytest.approx(100 * (profile.accuracy.high - profile.accuracy.value))


def test_a_name_is_made_from_the_settings(explorer: PruningExplorer) -> None:
    explorer.pin()
    explorer.wait(PATIENCE)
    settle(explorer, what="channels", ratio=0.25, epochs=1, seed=2)
    explorer.pin()
    explorer.wait(PATIENCE)
    assert list(board.frame()["name"]) == [
        "ConvNet, 50 % weights, magnitude, global",
        "ConvNet, 25 % channels, magnitude, layer, 1 epoch, seed 2",
    ]


def test_pins_of_this_data_set_appear_and_of_others_do_not(
    opened: Callable[..., PruningExplorer], trained: ConvNet, digits: Dataset
) -> None:
    profile = measure.profile(trained, digits.validation)
    board.pin("from another notebook", profile, dataset=digits.key, technique="pruning")
    board.pin("elsewhere", profile, dataset="other data", technique="pruning")
    explorer = opened(models.MLP((64, 10)), digits)
    explorer.wait(PATIENCE)
    assert list(explorer._plane.data[PINS].text) == ["from another notebook"]
    assert arrays(explorer, PINS)[0] == [profile.nonzeros]
    low, high = explorer._plane.layout.xaxis.range
    assert low < np.log10(profile.nonzeros) < high  # a pin larger than the own model is in sight
    settle(explorer, size="file_bytes")
    assert arrays(explorer, PINS)[0] == [profile.file_bytes / 1e3]


def test_a_pin_asked_right_after_a_move_pins_what_was_moved_to(explorer: PruningExplorer) -> None:
    for ratio in (0.9, 0.35, 0.6):
        explorer.ratio.value = ratio
        explorer.pin(f"at {ratio}")
    explorer.wait(PATIENCE)
    pinned = board.frame()
    assert list(pinned["name"]) == ["at 0.9", "at 0.35", "at 0.6"]
    assert [settings["ratio"] for settings in pinned["settings"]] == [0.9, 0.35, 0.6]


def test_a_pin_with_size_zero_is_drawn_at_the_edge(explorer: PruningExplorer, digits: Dataset) -> None:
    nothing = dataclasses.replace(explorer.profile, flops=0, nonzeros=0)
    board.pin("no flops", nothing, dataset=digits.key, technique="quantised")
    explorer.read_board()
    for size in ("flops", "nonzeros"):
        settle(explorer, size=size)
        assert not is_error(explorer)


def test_a_name_taken_twice_is_refused(explorer: PruningExplorer) -> None:
    explorer.pin("mine")
    explorer.wait(PATIENCE)
    explorer.pin("mine")
    with pytest.raises(ValueError, match=r"name 'mine' is taken: .* for example 'mine \(2\)'"):
        explorer.wait(PATIENCE)
    assert is_error(explorer)
    assert "name 'mine' is taken" in words(explorer)
    assert len(board.frame()) == 1
    settle(explorer, ratio=0.7)
    assert_shows(explorer, Method(), 0.7)
    explorer.pin("mine (2)")
    explorer.wait(PATIENCE)
    assert list(board.frame()["name"]) == ["mine", "mine (2)"]


def make_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def make_damaged(path: Path) -> None:
    path.write_bytes(b"not a board at all" * 50)


@pytest.mark.parametrize(
    ("spoil", "sentence"), [(make_newer, "was written by a newer kit"), (make_damaged, "is damaged or not a board")]
)
def test_a_board_that_cannot_be_used_is_refused_and_left_alone(
    explorer: PruningExplorer, own_board: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    explorer.pin("before")
    explorer.wait(PATIENCE)
    spoil(own_board)
    content = own_board.read_bytes()
    explorer.pin("after")
    with pytest.raises(board.BoardError, match=sentence):
        explorer.wait(PATIENCE)
    assert is_error(explorer)
    assert sentence in words(explorer)
    assert "KIT_BOARD" in words(explorer)  # the way out
    settle(explorer, ratio=0.7)
    assert_shows(explorer, Method(), 0.7)
    assert own_board.read_bytes() == content


def test_a_locked_board_is_refused_and_free_again_later(
    explorer: PruningExplorer, own_board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_STORE", dataclasses.replace(board._STORE, busy_seconds=0.1))
    explorer.pin("before")
    explorer.wait(PATIENCE)
    lock = sqlite3.connect(own_board, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    explorer.pin("during")
    with pytest.raises(board.BoardError, match="was locked by another program"):
        explorer.wait(PATIENCE)
    assert "was locked by another program" in words(explorer)
    settle(explorer, ratio=0.7)
    assert_shows(explorer, Method(), 0.7)
    lock.execute("ROLLBACK")
    lock.close()
    explorer.pin("after")
    explorer.wait(PATIENCE)
    assert list(board.frame()["name"]) == ["before", "after"]


def test_an_explorer_opens_without_its_board_and_says_so(
    opened: Callable[..., PruningExplorer], digits: Dataset, own_board: Path
) -> None:
    make_damaged(own_board)
    explorer = opened(models.MLP((64, 10)), digits)
    with pytest.raises(board.BoardError, match="is damaged"):
        explorer.wait(PATIENCE)
    assert "is damaged" in words(explorer)  # still, after the first answer
    assert "of the weights removed" in words(explorer)
    explorer.wait_sweep(PATIENCE)
    assert len(explorer.points()) == 40


# --- stopping ---------------------------------------------------------------------------------------------------


def at_first_batch(explorer: PruningExplorer, act: Callable[[], None]) -> None:
    """Call `act` in the middle of the next fine-tuning, and let it take effect before the next batch."""

    def moved(change: Any) -> None:
        if change["new"] > 0:
            explorer.progress.unobserve(moved, "value")
            act()

    explorer.progress.observe(moved, "value")


def test_stop_in_the_middle_of_fine_tuning(explorer: PruningExplorer) -> None:
    before, picture = explorer.point, arrays(explorer, HERE)
    seen: dict[str, Any] = {}

    def stop() -> None:
        seen.update(disabled=explorer.stop_button.disabled, dimmed="kit-busy" in explorer._dom_classes)
        explorer.stop_button.click()

    at_first_batch(explorer, stop)
    settle(explorer, epochs=9)
    assert seen == {"disabled": False, "dimmed": True}
    assert "Stopped" in words(explorer)
    assert not is_error(explorer)
    assert explorer.stop_button.disabled
    assert "kit-busy" not in explorer._dom_classes
    assert explorer.progress.value == 0
    assert arrays(explorer, HERE) == picture
    assert explorer.point == before  # the latest answer
    settle(explorer, epochs=0, ratio=0.7)
    assert_shows(explorer, Method(), 0.7)


def test_after_a_stop_nothing_goes_on_in_the_background(
    explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.wait_sweep(PATIENCE)
    picture = [arrays(explorer, trace) for trace in (HERE, OWN)]
    trainings: list[int] = []
    original = prune.sweep.fine_tune

    def counted(*args: Any, **settings: Any) -> nn.Module:
        trainings.append(1)
        return original(*args, **settings)

    monkeypatch.setattr(prune.sweep, "fine_tune", counted)
    at_first_batch(explorer, explorer.stop_button.click)
    settle(explorer, epochs=8)
    time.sleep(0.2)
    assert trainings == [1]  # the stopped one
    assert "Stopped" in words(explorer)
    assert [arrays(explorer, trace) for trace in (HERE, OWN)] == picture  # the last good picture stays


def test_an_interrupt_in_the_middle_of_fine_tuning(explorer: PruningExplorer, own_board: Path) -> None:
    explorer.pin("before")
    explorer.wait(PATIENCE)

    def interrupt() -> None:
        _thread.interrupt_main()  # what the notebook's interrupt button does
        time.sleep(0.5)

    at_first_batch(explorer, interrupt)
    explorer.epochs.value = 10
    with pytest.raises(KeyboardInterrupt):
        explorer.wait(PATIENCE)
    explorer.wait(PATIENCE)
    assert explorer._sweep.known(Method(epochs=10), 0.5) is None
    assert list(board.frame()["name"]) == ["before"]
    settle(explorer, epochs=1, ratio=0.7)
    assert_shows(explorer, Method(epochs=1), 0.7)
    explorer.pin("after")
    explorer.wait(PATIENCE)
    assert list(board.frame()["name"]) == ["before", "after"]
    with sqlite3.connect(own_board) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_newer_move_cancels_fine_tuning(explorer: PruningExplorer) -> None:
    def move() -> None:
        explorer.epochs.value = 0

    said: list[str] = []
    explorer.status.observe(lambda change: said.append(words(explorer)), "value")
    at_first_batch(explorer, move)
    explorer.epochs.value = 10
    explorer.wait(PATIENCE)
    explorer.status.unobserve_all("value")
    assert not any("Stopped" in line for line in said)  # nobody pressed stop
    assert_shows(explorer, Method(), 0.5)
    assert explorer._sweep.known(Method(epochs=10), 0.5) is None


def test_an_error_while_answering_is_shown_and_raised(
    explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **settings: Any) -> Any:
        raise RuntimeError("<nothing> works & all is lost.")

    with monkeypatch.context() as patch:
        patch.setattr(room.plots, "kept_info", broken)
        explorer.ratio.value = 0.7
        with pytest.raises(RuntimeError, match="all is lost"):
            explorer.wait(PATIENCE)
        assert is_error(explorer)
        assert words(explorer) == "<nothing> works & all is lost."
    settle(explorer, ratio=0.75)
    assert_shows(explorer, Method(), 0.75)


def test_a_closed_explorer_does_not_answer_and_does_not_hang(digits: Dataset) -> None:
    explorer = PruningExplorer(models.MLP((64, 10)), digits)
    explorer.wait(PATIENCE)
    explorer.close()
    with pytest.raises(RuntimeError, match="closed"):
        explorer.ratio.value = 0.7
    explorer.close()  # twice is no harm


# --- what is shown ----------------------------------------------------------------------------------------------


def test_what_is_painted_is_strict_json(explorer: PruningExplorer) -> None:
    for controls in (
        {"ratio": 0.0},
        {"ratio": 0.999},
        {"what": "channels"},
        {"importance": "random", "size": "latency"},
        {"what": "weights", "scope": "layer"},
    ):
        settle(explorer, **controls)
        for figure in figures(explorer):
            state = {"data": figure.to_plotly_json()["data"], "layout": figure.to_plotly_json()["layout"]}
            assert "NaN" not in json.dumps(state, allow_nan=False)
            assert json.loads(json.dumps(state)) == json.loads(json.dumps(state, allow_nan=False))


def test_only_what_changed_is_painted(explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer.wait_sweep(PATIENCE)
    sent: list[tuple[dict[str, Any], dict[str, Any], list[int]]] = []

    def send(restyle_data: Any, relayout_data: Any, trace_indexes: Any = None, source_view_id: Any = None) -> None:
        sent.append((restyle_data, relayout_data, list(trace_indexes)))

    monkeypatch.setattr(explorer._plane, "_send_update_msg", send)
    settle(explorer, ratio=0.6)
    assert arrays(explorer, HERE)[0] == [explorer.point.sizes.nonzeros]
    assert not sent  # the curves are where they were, and the marker is not plotly's
    sent.clear()
    settle(explorer, ratio=0.6)
    assert sent == []


def test_the_display_bundle_has_a_stable_text(explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base_room.STILLS, raising=False)
    first, _ = explorer._repr_mimebundle_()
    settle(explorer, ratio=0.9, what="channels")
    second, _ = explorer._repr_mimebundle_()
    assert first["text/plain"] == second["text/plain"] == "PruningExplorer: ConvNet on digits"
    assert "application/vnd.jupyter.widget-view+json" in first
    assert "image/png" not in first


def test_the_display_bundle_has_a_still_where_one_is_asked_for(
    explorer: PruningExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(base_room.STILLS, "1")
    bundle, _ = explorer._repr_mimebundle_()
    png = base64.b64decode(bundle["image/png"], validate=True)
    assert png.startswith(b"\x89PNG")
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20  # something is drawn
    assert len(explorer.points()) == 40  # and the curves were complete


def test_stop_ends_the_growing_curves_until_a_control_moves(
    opened: Callable[..., PruningExplorer], digits: Dataset
) -> None:
    explorer = opened(models.MLP((64, 12, 10)), digits)
    settle(explorer, epochs=2)
    end = time.monotonic() + PATIENCE
    while explorer.stop_button.disabled and time.monotonic() < end:
        time.sleep(0.01)  # until the curves grow
    explorer.stop()
    explorer.wait_sweep(PATIENCE)
    measured = len(explorer.points())
    time.sleep(0.2)
    assert len(explorer.points()) == measured < 40
    assert "stopped" in explorer.sweep_note.value
    settle(explorer, epochs=0)
    explorer.wait_sweep(PATIENCE)
    assert len(explorer.points()) == 40
