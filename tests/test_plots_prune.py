from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import models, prune
from kit.data import Dataset
from kit.measure import Estimate, SizeName
from kit.models import ConvNet
from kit.plots import prune as plots
from kit.plots import style
from kit.plots.curves import SIZE_AXES, Curve, Panel, short
from kit.prune.structured import remove_channels
from tests.texts import LENGTH, WORDS, ordered


def curve(label: str, *points: tuple[float, int]) -> Curve:
    """Points of a size and how many of 100 were right."""
    return Curve.of(label, [(size, Estimate.from_counts(correct, 100)) for size, correct in points])


FULL: dict[str, Any] = {
    "own": curve("magnitude", (1000, 90), (500, 80), (100, 40)),
    "random": curve("random", (1000, 90), (500, 60), (100, 20)),
    "magnitude": curve("magnitude"),
    "dense": curve("dense model", (1000, 90)),
    "pins": curve("pins", (3000, 95), (0.2, 30))._replace(said=("large", "small")),
}
EMPTY: dict[str, Any] = {**{name: curve(name) for name in FULL}, "own": curve("taylor")}


def plane(size: SizeName = "nonzeros", **changed: Any) -> Panel:
    return plots.plane_panel(size, **{**FULL, **changed}, dense_size=1000.0, chance=10.0)


@pytest.mark.parametrize("size", SIZE_AXES)
@pytest.mark.parametrize("curves", [FULL, EMPTY], ids=["full", "empty"])
def test_the_size_axis_covers_the_pins_the_dense_model_and_the_curves(curves: dict[str, Any], size: SizeName) -> None:
    panel = plane(size, **curves)
    assert len(panel.traces) == 7
    assert panel.layout["xaxis"]["title"]["text"] == SIZE_AXES[size].title
    low, high = panel.layout["xaxis"]["range"]
    for shown in (1000, *(x for name in ("own", "random", "pins") for x in curves[name].x)):
        assert low < math.log10(shown) < high
    unpinned = plane(size, **{**curves, "pins": curve("pins")}).layout["xaxis"]["range"]
    decades = {"nonzeros": 3, "file_bytes": 1}.get(size, 0.3)  # those that are sure to be filled are there at once
    assert unpinned[0] <= 3 - decades
    assert unpinned[0] > 3 - max(decades, 1 if curves is FULL else 0) - 0.5  # and little else: curves end at 100


def test_curves_the_dense_model_the_newest_pin_and_guessing_are_named() -> None:
    named = {label.text: label for label in plane().labels}
    assert list(named) == ["● magnitude", "◆ random", "dense", "small", "guessing"]
    assert (named["dense"].x, named["dense"].y) == (1000, pytest.approx(90))
    assert (named["small"].x, named["small"].y) == (0.2, pytest.approx(30))
    assert (named["guessing"].x, named["guessing"].y) == (None, 10)
    assert named["● magnitude"].curve == "magnitude" and named["guessing"].rank > named["dense"].rank
    own, magnitude = curve("taylor", (1000, 90), (500, 65)), curve("magnitude", (1000, 90), (500, 80))
    compared = plane(own=own, magnitude=magnitude)  # another importance with magnitude
    assert (compared.traces[-1]["name"], compared.traces[-1]["y"]) == ("magnitude", pytest.approx([90, 80]))
    assert {"■ taylor", "● magnitude"} <= {label.text for label in compared.labels}
    assert [label.text for label in plane(**EMPTY).labels] == ["guessing"]
    every = [trace["name"] for trace in compared.traces]
    assert all(every.count(label.curve) == 1 for label in compared.labels if label.curve)  # the page finds them by it


def test_the_bars_go_from_input_to_output(trained: ConvNet) -> None:
    pruned = prune.weights(trained, ratio={"conv2.weight": 0.5, "fc2.weight": 0.25})
    shares = {name: float(mask.float().mean()) for name, mask in prune.masks(pruned).items()}
    panel = plots.kept_panel(trained, shares)
    (bars,) = panel.traces
    y = panel.layout["yaxis"]
    assert (bars["y"], y["ticktext"]) == ([0, 1, 2, 3], ["conv1", "conv2", "fc1", "fc2"]) and y["tickvals"] == bars["y"]
    assert bars["hovertext"][2] == "fc1: 8,192 weights"
    assert y["range"][0] > 3 > 0 > y["range"][1]  # the first layer on top
    assert bars["x"] == pytest.approx([100, 50, 100, 75])
    (some,) = plots.kept_panel(trained, {"conv1.weight": 0.00123}).traces
    assert some["x"] == pytest.approx([0.123, 0, 0, 0])  # layers that are not there
    assert some["text"] == ["0.12 %", "0 %", "0 %", "0 %"]  # little is not nothing


def test_of_many_layers_the_largest_have_rows_and_the_others_one() -> None:
    sizes = {f"layer{at}.weight": 100 - at if at % 2 else at + 1 for at in range(20)}
    rows = plots.layer_rows(sizes)
    assert len(rows) == plots.ROWS and rows[-1].name == "12 smaller ones"
    assert [row.name for row in rows[:-1]] == [f"layer{at}" for at in (1, 3, 5, 7, 9, 11, 13, 15)]  # in their order
    assert sum(sum(row.sizes.values()) for row in rows) == sum(sizes.values())
    shares = {name: at / 20 for at, name in enumerate(sizes)}
    others = rows[-1].sizes
    wanted = sum(shares[name] * sizes[name] for name in others) / sum(others.values())
    assert rows[-1].share(shares) == pytest.approx(wanted) and rows[0].share(shares) == 0.05
    nine = plots.layer_rows(dict(list(sizes.items())[:9]))
    assert [row.name for row in nine] == [f"layer{at}" for at in range(9)]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95])
def test_every_weight_is_counted_once(trained: ConvNet, ratio: float) -> None:
    pruned = prune.weights(trained, ratio=ratio)
    now, dense, lines = plots.weights_panel(trained, pruned, (0.3, 0.1, 0.3)).traces
    values = torch.cat([w.detach().flatten() for w in prune.prunable(trained).values()])
    assert sum(dense["y"]) == len(values)
    assert sum(now["y"]) == sum(int(mask.sum()) for mask in prune.masks(pruned).values())
    assert all(left <= all_of_it for left, all_of_it in zip(now["y"], dense["y"], strict=True))
    assert len(now["x"]) == len(now["y"]) == plots.BINS
    assert now["x"] == pytest.approx([-centre for centre in now["x"][::-1]])
    at, width = 40, now["x"][1] - now["x"][0]
    inside = (values >= now["x"][at] - width / 2) & (values < now["x"][at] + width / 2)
    assert dense["y"][at] == pytest.approx(int(inside.sum()), abs=2)  # (the edges are rounded)
    assert lines["x"] == [-0.1, -0.1, None, 0.1, 0.1, None, -0.3, -0.3, None, 0.3, 0.3, None]  # on both sides of 0
    assert lines["y"] == [0, max(dense["y"]), None] * 4
    assert plots.weights_panel(trained, pruned).traces[2]["x"] == []
    net = nn.Linear(100, 10)
    with torch.no_grad():
        net.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
        net.weight[0, 0], net.weight[0, 1] = 1000, -1000
    far = plots.weights_panel(net, net).traces[1]  # what lies far out is counted in the last bins
    assert sum(far["y"]) == 1000 and far["x"][-1] < 1.1 and min(far["y"][0], far["y"][-1]) >= 1


def tiles(panel: Panel, side_y: int, side_x: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the picture into its tiles again, in reading order: their values and their crosses, [n, side_y, side_x]."""
    heat, marks = panel.traces
    picture = np.array(heat["z"], dtype=float)
    crosses = np.zeros(picture.shape)
    crosses[marks["y"], marks["x"]] = 1
    assert crosses.sum() == len(marks["x"]) == len(marks["y"])
    assert not crosses[np.isnan(picture)].any()  # no cross between the filters
    rows, columns = (picture.shape[0] + 1) // (side_y + 1), (picture.shape[1] + 1) // (side_x + 1)
    assert picture.shape == (rows * (side_y + 1) - 1, columns * (side_x + 1) - 1)
    corners = [(row * (side_y + 1), column * (side_x + 1)) for row in range(rows) for column in range(columns)]
    values, gone = (
        np.array([whole[y : y + side_y, x : x + side_x] for y, x in corners]) for whole in (picture, crosses)
    )
    there = ~np.isnan(values).all(axis=(1, 2))
    assert there[: there.sum()].all()  # the empty places are at the end
    return values[there], gone[there].astype(bool)


def weight_of(net: nn.Module, name: str) -> np.ndarray:
    return net.get_parameter(name).detach().numpy()


def test_filters_show_the_weights_and_cross_the_zeros(trained: ConvNet, digits: Dataset) -> None:
    for net, name, side in ((trained, "conv1.weight", 3), (models.MLP((64, 70, 10)), "layers.0.weight", 8)):
        pruned = prune.weights(net, ratio=0.6, scope="layer")
        panel = plots.filters_panel(net, pruned, digits.input_shape)
        values, gone = tiles(panel, side, side)  # a linear layer's as images
        weight = weight_of(pruned, name)[:64].reshape(-1, side, side)  # the first 64 of 70
        assert np.allclose(values, weight)
        assert (gone == (weight == 0)).all() and gone.any()
        largest = np.abs(weight_of(net, name)).max()
        assert panel.traces[0]["zmax"] == -panel.traces[0]["zmin"] == pytest.approx(largest)
        assert plots.filters_panel(net, net, digits.input_shape).traces[1]["x"] == []
    assert panel.layout["title"]["text"] == "layers.0: 64 of 70 filters (✖ gone)"
    removal = remove_channels(trained, ratio=0.5, dataset=digits)
    values, gone = tiles(plots.filters_panel(trained, removal.model, digits.input_shape, removal.kept), 3, 3)
    stays = np.isin(np.arange(8), removal.kept["conv1"])  # removed filters are crossed all over
    assert (gone == ~stays[:, None, None]).all()
    assert np.allclose(values, weight_of(trained, "conv1.weight")[:, 0] * stays[:, None, None])


def test_of_large_filters_as_many_are_shown_as_one_can_see() -> None:
    """Rows of 28 x 28: 64 of them were 50,000 numbers in a picture of 200 pixels, and its crosses all of it."""
    net = models.MLP((784, 20, 10))
    pruned = prune.weights(net, ratio=0.5, scope="layer")
    panel = plots.filters_panel(net, pruned, (1, 28, 28))
    values, gone = tiles(panel, 28, 28)
    weight = weight_of(pruned, "layers.0.weight")[:8].reshape(-1, 28, 28)
    assert np.allclose(values, weight) and (gone == (weight == 0)).all()
    assert panel.layout["title"]["text"] == "layers.0: 8 of 20 filters (✖ gone)"
    width = len(panel.traces[0]["z"][0])
    assert panel.traces[1]["marker"]["size"] * width <= 200
    assert len(tiles(plots.filters_panel(huge := nn.Linear(9000, 3), huge, (9000,)), 1, 9000)[0]) == 1


def test_inputs_that_are_no_image_are_shown_as_rows_and_channels_are_averaged() -> None:
    net = nn.Linear(5, 3)
    assert np.allclose(tiles(plots.filters_panel(net, net, (5,)), 1, 5)[0], weight_of(net, "weight")[:, None])
    colour = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 6))
    shown, _ = tiles(plots.filters_panel(colour, colour, (3, 4, 5)), 4, 5)
    assert np.allclose(shown, weight_of(colour, "1.weight").reshape(6, 3, 4, 5).mean(axis=1), atol=1e-6)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 2))
    pruned = prune.weights(convolution, ratio=0.0)
    with torch.no_grad():
        pruned.get_parameter("0.weight")[0, :, 0, 0] = 0  # all three channels: a cross
        pruned.get_parameter("0.weight")[1, 1, 1, 1] = 0  # one of three: none
    values, gone = tiles(plots.filters_panel(convolution, pruned, (3, 6, 6)), 2, 2)
    assert np.allclose(values, weight_of(pruned, "0.weight").mean(axis=1), atol=1e-6)
    assert gone[0, 0, 0] and gone.sum() == 1


class HeadFirst(nn.Module):
    """Its layers are written down from the last to the first; its first weight belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(1, 64))
        self.head, self.body = nn.Linear(12, 10), nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x.flatten(1) + self.positions)))


class Token(nn.Module):
    """Its first parameter is a class token, its first layer attention, of which the rows that stay are not told."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.randn(1, 1, 16)), nn.TransformerEncoderLayer(16, 2, 32, 0.0)
        self.patches, self.head = nn.Conv2d(1, 16, 4, 4), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).permute(2, 0, 1)
        return self.head(self.layer(torch.cat([self.token.expand(-1, x.shape[1], -1), x]))[0])


def upscaling() -> nn.Module:
    """Its first layer has its outputs in the second dimension."""
    pooling = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.ConvTranspose2d(1, 6, 2, stride=2), *pooling, nn.Linear(6, 10))


@pytest.mark.parametrize("make", [upscaling, HeadFirst, Token])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_unusual_first_layers_do_not_break_the_picture(
    digits: Dataset, make: Callable[[], nn.Module], ratio: float
) -> None:
    net = make()
    removal = remove_channels(net, ratio=ratio, dataset=digits)
    for pruned, kept in ((prune.weights(net, ratio=ratio), None), (removal.model, removal.kept)):
        panel = plots.filters_panel(net, pruned, digits.input_shape, kept)
        json.dumps(panel.figure.to_plotly_json(), allow_nan=False)
        assert ratio > 0 or panel.traces[1]["x"] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_that_are_no_numbers_are_left_out_of_the_pictures(dtype: torch.dtype) -> None:
    net = nn.Linear(16, 4).to(dtype)
    with torch.no_grad():
        net.weight[0, :3] = torch.tensor([torch.nan, torch.inf, 0.0])
    now, dense, _ = plots.weights_panel(net, net).traces
    assert (sum(dense["y"]), sum(now["y"])) == (62, 61)
    panel = plots.filters_panel(net, net, (1, 4, 4))
    values, gone = tiles(panel, 4, 4)
    assert gone.sum() == 1 and gone[0, 0, 2] and np.isnan(values).sum() == 2
    assert panel.traces[0]["zmax"] == pytest.approx(float(net.weight[1:].detach().abs().max()), rel=0.3)
    json.dumps(panel.figure.to_plotly_json(), allow_nan=False)
    with torch.no_grad():
        net.weight.fill_(torch.nan)
    for broken in (plots.weights_panel(net, net), plots.filters_panel(net, net, (1, 4, 4))):
        json.dumps(broken.figure.to_plotly_json(), allow_nan=False)


def test_figures_are_strict_json_with_units_on_their_axes(trained: ConvNet, digits: Dataset) -> None:
    looks = [style.LOOKS[name] for name in (*prune.IMPORTANCES, "dense", "here", "board")]
    assert len({look.marker for look in looks}) == len({look.colour for look in looks}) == len(looks)
    pruned = prune.weights(trained, ratio=0.5)
    panels: dict[str, Panel] = {
        "plane": plane(),
        "empty plane": plane(**EMPTY),
        "kept": plots.kept_panel(trained, {}),
        "weights": plots.weights_panel(trained, pruned, (0.1,)),
        "filters": plots.filters_panel(trained, pruned, digits.input_shape),
    }
    for name, panel in panels.items():
        drawn: Any = panel.figure
        json.dumps(drawn.to_plotly_json(), allow_nan=False)
        assert drawn.layout.xaxis.title.text or name == "filters"  # a picture: its axes are hidden
        assert drawn.layout.yaxis.title.text or name in ("filters", "kept")


def by_hand(net: nn.Module, block: int, head: int) -> tuple[float, float]:
    """Of a head of four outputs, in the numbers of query, key and value: root mean square, and the share not zero."""
    parts = [
        net.get_parameter(f"blocks.{block}.attention.{part}.weight").detach() for part in ("query", "key", "value")
    ]
    numbers = torch.cat([part[4 * head : 4 * head + 4].flatten() for part in parts])
    return float(numbers.square().mean().sqrt()), float((numbers != 0).float().mean())


def test_heads_show_how_large_they_are_and_a_cross_where_one_is_gone() -> None:
    letters, net = ordered(), models.Transformer(WORDS, LENGTH, 2, width=16, heads=4, layers=3, seed=1)
    heads = prune.heads(net, letters)
    assert [each.count for each in heads.values()] == [4, 4, 4]
    assert heads["blocks.1.attention.query"].outputs["blocks.1.attention.value"].tolist() == [
        [*range(at, at + 4)] for at in (0, 4, 8, 12)
    ]
    pruned = prune.weights(net, ratio={"blocks.1.attention.query.weight": 0.5, "blocks.2.attention.value.weight": 0.9})
    with torch.no_grad():
        for part in ("query", "key", "value"):
            pruned.get_parameter(f"blocks.0.attention.{part}.weight")[8:12] = 0
    tiles, gone = plots.heads_panel(net, pruned, heads).traces
    assert np.allclose(tiles["z"], [[by_hand(pruned, block, head)[0] for head in range(4)] for block in range(3)])
    assert (gone["x"], gone["y"]) == ([2], [0])
    largest = max(by_hand(net, block, head)[0] for block in range(3) for head in range(4))
    assert (tiles["zmin"], tiles["zmax"]) == (0, pytest.approx(largest))
    assert tiles["text"][0][2] == "blocks.0.attention, head 2: 0 % kept"
    assert tiles["text"][1][3] == f"blocks.1.attention, head 3: {100 * by_hand(pruned, 1, 3)[1]:.0f} % kept"
    thinned = remove_channels(net, ratio=0.5, dataset=letters)
    panel = plots.heads_panel(net, thinned.model, heads, thinned.kept)
    tiles, gone = panel.traces
    assert len(gone["x"]) == 6
    for block in range(3):
        stay = sorted({output // 4 for output in thinned.kept[f"blocks.{block}.attention.value"]})
        assert [head for head in range(4) if tiles["z"][block][head]] == stay
        assert [tiles["z"][block][head] for head in stay] == pytest.approx(
            [by_hand(net, block, head)[0] for head in stay]
        )
    assert panel.layout["yaxis"]["ticktext"] == [short(f"blocks.{block}.attention") for block in range(3)]
    assert panel.layout["xaxis"]["range"] == [-0.5, 3.5] and panel.layout["yaxis"]["range"] == [2.5, -0.5]
    json.dumps(panel.figure.to_plotly_json(), allow_nan=False)


def test_of_many_attentions_some_are_named_and_unequal_ones_leave_places_empty() -> None:
    letters, net = ordered(), models.Transformer(WORDS, LENGTH, 2, width=8, heads=2, layers=26)
    heads = prune.heads(net, letters)
    few = prune.Heads(1, {name: at[:1] for name, at in heads["blocks.0.attention.query"].outputs.items()})
    panel = plots.heads_panel(net, net, heads | {"blocks.0.attention.query": few})
    assert panel.layout["yaxis"]["tickvals"] == [*range(0, 26, 3)] and panel.layout["xaxis"]["tickvals"] == [0, 1]
    assert panel.traces[0]["z"][0][1] is None and panel.traces[1]["x"] == []
    with torch.no_grad():
        net.get_parameter("blocks.3.attention.key.weight").fill_(torch.nan)
    json.dumps(plots.heads_panel(net, net, heads).figure.to_plotly_json(), allow_nan=False)


def test_the_plane_begins_where_pruning_ends() -> None:
    open_end, closed = (plane(**{**EMPTY, "least": least}).layout["xaxis"]["range"][0] for least in (0.0, 400.0))
    assert open_end < 0.1 and 2 < closed < 2.61  # powers of ten: from a thousandth of the dense size, or from 400
