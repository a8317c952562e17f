from __future__ import annotations

import dataclasses
import io
import json
import math
from typing import Any, get_args

import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor, nn

from kit import models, prune
from kit.data import Dataset
from kit.measure import Estimate, Profile, SizeName
from kit.models import ConvNet
from kit.plots import prune as plots
from kit.plots import still, style
from kit.prune.structured import thin

NOTHING = plots.line("nothing", "nonzeros", [])


def entry(size: float, correct: int, ratio: float) -> tuple[float, Estimate, float]:
    return size, Estimate.from_counts(correct, 100), ratio


def curve(label: str, size: SizeName = "nonzeros", lift: int = 0) -> plots.Line:
    entries = [entry(1000.0, 90, 0.0), entry(500.0, 60 + lift, 0.5), entry(100.0, 20 + lift, 0.9)]
    return plots.line(label, size, entries)


def plane(**changes: Any) -> plots.PlaneInfo:
    size: SizeName = changes.get("size", "nonzeros")
    info = plots.PlaneInfo(
        size=size,
        own=curve("magnitude", size, lift=20),
        rival=curve("random", size),
        dense=plots.line("dense", size, [entry(1000, 90, 0)]),
        here=plots.line("here", size, [entry(500, 80, 0.5)]),
        pins=plots.line("pins", size, [entry(3000, 95, 0), entry(2, 30, 1)]),
        pin_names=("large", "small"),
        dense_size=1000 / plots.SIZE_AXES[size].divisor,
        chance=10.0,
    )
    return info._replace(**changes)


EMPTY = plane(
    own=plots.line("taylor", "nonzeros", []), rival=NOTHING, dense=NOTHING, here=NOTHING, pins=NOTHING, pin_names=()
)


# --- the plane --------------------------------------------------------------------------------------------------


def test_a_line_is_sorted_by_ratio_and_in_per_cent() -> None:
    made = plots.line("some", "nonzeros", [entry(10, 50, 0.9), entry(100, 90, 0.0), entry(50, 80, 0.5)])
    assert made.label == "some"
    assert made.ratio == (0.0, 0.5, 0.9)
    assert made.size == (100, 50, 10)
    assert made.accuracy == (90, 80, 50)
    wilson = Estimate.from_counts(80, 100)
    assert (made.low[1], made.high[1]) == (100 * wilson.low, 100 * wilson.high)


@pytest.mark.parametrize(
    ("size", "base", "shown"),
    [("nonzeros", 1500, 1500), ("file_bytes", 1500, 1.5), ("flops", 1_500_000, 1.5), ("latency", 1.5, 1.5)],
)
def test_a_line_is_in_the_units_of_its_axis(size: SizeName, base: float, shown: float) -> None:
    assert plots.line("some", size, [entry(base, 50, 0)]).size == (shown,)
    title = plots.plane_figure(plane(size=size)).layout.xaxis.title.text
    assert title == plots.SIZE_AXES[size].title
    unit = {"nonzeros": "parameters", "file_bytes": "kB", "flops": "MFLOPs", "latency": "ms"}[size]
    assert unit in title


def test_a_size_of_zero_has_a_place_on_the_log_axis() -> None:
    made = plots.line("some", "file_bytes", [entry(0, 50, 0.999), entry(5000, 50, 0.5)], floor=2000)
    assert made.size == (5, 2)


@pytest.mark.parametrize("size", plots.SIZE_AXES)
@pytest.mark.parametrize("info", [plane(), EMPTY], ids=["full", "empty"])
def test_the_size_axis_covers_the_pins_the_dense_model_and_its_decades(info: plots.PlaneInfo, size: SizeName) -> None:
    info = info._replace(size=size)
    low, high = plots.plane_layout(info)["xaxis"]["range"]
    for shown in (*info.pins.size, info.dense_size, info.dense_size / 10 ** (plots.SIZE_AXES[size].decades - 0.01)):
        assert low < math.log10(shown) < high


@pytest.mark.parametrize(
    ("low", "high"), [(1, 10), (0.003, 0.2), (13, 1500), (9.8, 15_000), (2.5, 3.5), (4e-7, 3.0), (1.2, 1.9)]
)
def test_ticks_lie_in_range_and_are_neither_many_nor_few(low: float, high: float) -> None:
    ticks = plots._log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert all(
        tick / 10 ** math.floor(math.log10(tick) + 1e-9) == pytest.approx(1) or high / low < 300 for tick in ticks
    )
    assert len(ticks) <= 10
    if high / low > 5:
        assert len(ticks) >= 2


def test_every_tick_has_its_text() -> None:
    axis = plots.plane_layout(plane(dense_size=151_306.0))["xaxis"]
    assert len(axis["tickvals"]) == len(axis["ticktext"])
    pairs = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    assert pairs[1000.0] == "1k"
    assert pairs[100_000.0] == "100k"
    assert pairs[10.0] == "10"


def test_the_band_goes_along_the_upper_ends_and_back_along_the_lower() -> None:
    info = plane()
    for trace, line in ((0, info.rival), (2, info.own)):
        band = plots.plane_traces(info)[trace]
        assert band["x"] == [*line.size, *line.size[::-1]]
        assert band["y"] == [*line.high, *line.low[::-1]]
        assert all(up > down for up, down in zip(band["y"][:3], band["y"][:2:-1], strict=True))


def test_error_bars_reach_to_the_ends_of_the_interval() -> None:
    info = plane()
    pins = plots.plane_traces(info)[5]
    assert pins["text"] == ["", "small"]  # only the newest is written
    assert pins["hovertext"] == ["large", "small"]
    ends = zip(pins["y"], pins["error_y"]["array"], pins["error_y"]["arrayminus"], strict=True)
    reach = [(y - down, y + up) for y, up, down in ends]
    for at in range(2):
        assert reach[at] == pytest.approx((info.pins.low[at], info.pins.high[at]))


def test_here_is_one_point_with_its_interval_or_nothing() -> None:
    info = plane()
    assert plots.here_point(info) == [info.here.size[0], info.here.accuracy[0], info.here.low[0], info.here.high[0]]
    assert plots.here_point(EMPTY) == []


def test_labels_stand_where_the_curves_are_furthest_apart() -> None:
    info = plane(
        own=plots.line("magnitude", "nonzeros", [entry(1000, 90, 0), entry(500, 65, 0.5), entry(100, 60, 0.9)])
    )
    labels = {mark["text"]: mark for mark in plots.plane_layout(info)["annotations"]}
    assert set(labels) == {"guessing", "magnitude", "random", ""}
    assert labels["magnitude"]["x"] == labels["random"]["x"] == pytest.approx(math.log10(100))
    assert (labels["magnitude"]["y"], labels["random"]["y"]) == (60, 20)
    assert labels["magnitude"]["yshift"] > 0 > labels["random"]["yshift"]
    assert labels["guessing"]["y"] == 10


def test_another_importance_is_compared_with_magnitude() -> None:
    usual = plots.line("magnitude", "nonzeros", [entry(1000, 90, 0), entry(500, 80, 0.5)])
    info = plane(own=plots.line("taylor", "nonzeros", [entry(1000, 90, 0), entry(500, 65, 0.5)]))._replace(usual=usual)
    line = plots.plane_figure(info).data[-1]
    assert line.name == "magnitude, to compare"
    assert tuple(line.y) == (90, 80)
    assert {"taylor", "magnitude"} <= {mark["text"] for mark in plots.plane_layout(info)["annotations"]}


def test_there_are_always_as_many_labels() -> None:
    assert len(plots.plane_layout(plane())["annotations"]) == len(plots.plane_layout(EMPTY)["annotations"]) == 4


# --- what each layer keeps --------------------------------------------------------------------------------------


def test_kept_info_goes_from_input_to_output(trained: ConvNet) -> None:
    pruned = prune.weights(trained, ratio={"conv2.weight": 0.5, "fc2.weight": 0.25})
    shares = {name: float(mask.float().mean()) for name, mask in prune.masks(pruned).items()}
    info = plots.kept_info(trained, shares)
    assert info.layers == ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")
    assert info.kept == pytest.approx((100, 50, 100, 75))
    assert info.total == (72, 1152, 8192, 320)
    assert plots.kept_info(trained, {"conv1.weight": 0.5}).kept == (50, 0, 0, 0)  # a layer that is not there


def test_the_share_is_written_so_that_little_is_not_nothing() -> None:
    info = plots.KeptInfo(("a", "b", "c", "d"), (0.0, 0.123, 5.0, 99.6), (1, 1, 1, 1))
    assert plots.kept_traces(info)[0]["text"] == ["0 %", "0.12 %", "5 %", "100 %"]


def test_the_kept_figure_names_each_layer_with_its_size() -> None:
    figure = plots.kept_figure(plots.KeptInfo(("conv1.weight", "fc.weight"), (50.0, 10.0), (72, 8192)))
    assert list(figure.data[0].y) == ["conv1<br>72", "fc<br>8,192"]
    assert figure.layout.yaxis.autorange == "reversed"  # the first layer on top
    assert figure.layout.height == plots.detail_height(2) == 270
    assert plots.detail_height(20) > 20 * 30


# --- the weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95])
def test_weights_info_counts_every_weight_once(trained: ConvNet, ratio: float) -> None:
    pruned = prune.weights(trained, ratio=ratio)
    info = plots.weights_info(trained, pruned, (0.3, 0.1, 0.3))
    values = torch.cat([w.detach().flatten() for w in prune.prunable(trained).values()])
    assert sum(info.dense) == len(values)
    assert sum(info.left) == sum(int(mask.sum()) for mask in prune.masks(pruned).values())
    assert all(left <= dense for left, dense in zip(info.left, info.dense, strict=True))
    assert len(info.centres) == len(info.dense) == len(info.left) == plots.BINS
    assert info.centres == pytest.approx([-centre for centre in info.centres[::-1]])
    width = info.centres[1] - info.centres[0]
    at = 40
    inside = (values >= info.centres[at] - width / 2) & (values < info.centres[at] + width / 2)
    assert info.dense[at] == pytest.approx(int(inside.sum()), abs=2)  # (the edges are rounded)
    assert info.thresholds == (0.1, 0.3)


def test_what_lies_far_out_is_counted_in_the_last_bins() -> None:
    net = nn.Linear(100, 10)
    with torch.no_grad():
        net.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
        net.weight[0, 0], net.weight[0, 1] = 1000, -1000
    info = plots.weights_info(net, net)
    assert sum(info.dense) == 1000
    assert info.centres[-1] < 1.1
    assert min(info.dense[0], info.dense[-1]) >= 1


def test_all_weights_zero_is_no_trouble() -> None:
    net = nn.Linear(4, 3)
    nn.init.zeros_(net.weight)
    info = plots.weights_info(net, net)
    assert sum(info.dense) == 12
    assert sum(info.left) == 0
    plots.weights_figure(info)


def test_thresholds_are_lines_on_both_sides_of_zero() -> None:
    info = plots.WeightsInfo((-1.0, 0.0, 1.0), (3, 7, 2), (3, 0, 2), (0.25, 0.5))
    lines = plots.weights_traces(info)[2]
    assert lines["x"] == [-0.25, -0.25, None, 0.25, 0.25, None, -0.5, -0.5, None, 0.5, 0.5, None]
    assert lines["y"] == [0, 7, None] * 4
    assert plots.weights_traces(info._replace(thresholds=()))[2] == {"x": [], "y": []}


# --- the filters ------------------------------------------------------------------------------------------------


def tiles(info: plots.FiltersInfo, side_y: int, side_x: int) -> list[np.ndarray]:
    """Cut the picture into its tiles again, in reading order, the empty places at the end left out."""
    picture = np.array(info.picture, dtype=float)
    rows, columns = (picture.shape[0] + 1) // (side_y + 1), (picture.shape[1] + 1) // (side_x + 1)
    assert picture.shape == (rows * (side_y + 1) - 1, columns * (side_x + 1) - 1)
    found = [
        picture[row * (side_y + 1) :, column * (side_x + 1) :][:side_y, :side_x]
        for row in range(rows)
        for column in range(columns)
    ]
    assert all(np.isnan(tile).all() for tile in found[info.shown :])
    return found[: info.shown]


def crosses(info: plots.FiltersInfo, side_y: int, side_x: int) -> np.ndarray:
    """Which weights carry a cross: bool [shown, side_y, side_x]."""
    marked = np.zeros(np.array(info.picture).shape, dtype=float)
    marked[list(info.gone_y), list(info.gone_x)] = 1
    assert marked.sum() == len(info.gone_x) == len(info.gone_y)
    within = tiles(info._replace(picture=tuple(map(tuple, np.where(_blank(info), np.nan, marked)))), side_y, side_x)
    assert sum(tile.sum() for tile in within) == len(info.gone_x)  # no cross between the filters
    return np.array(within).astype(bool)


def _blank(info: plots.FiltersInfo) -> np.ndarray:
    return np.isnan(np.array(info.picture, dtype=float))


def test_filters_show_the_weights_and_cross_the_zeros(trained: ConvNet, digits: Dataset) -> None:
    pruned = prune.weights(trained, ratio=0.6, scope="layer")
    info = plots.filters_info(trained, pruned, digits.input_shape)
    weight = pruned.get_parameter("conv1.weight").detach()[:, 0]  # [8, 3, 3]
    assert np.allclose(tiles(info, 3, 3), weight)
    assert (crosses(info, 3, 3) == (weight == 0).numpy()).all()
    assert len(info.gone_x) == int((weight == 0).sum()) > 0
    assert info.reach == pytest.approx(float(trained.conv1.weight.detach().abs().max()))
    assert (info.shown, info.total, info.layer) == (8, 8, "conv1")
    assert plots.filters_info(trained, trained, digits.input_shape).gone_x == ()


def test_removed_filters_are_crossed_all_over(trained: ConvNet, digits: Dataset) -> None:
    thinned = thin(trained, ratio=0.5, dataset=digits)
    info = plots.filters_info(trained, thinned.model, digits.input_shape, thinned.kept["conv1"])
    gone = crosses(info, 3, 3)
    shown = tiles(info, 3, 3)
    for at in range(8):
        stays = at in thinned.kept["conv1"]
        assert gone[at].all() != stays
        assert gone[at].any() != stays
        expected = trained.conv1.weight.detach()[at, 0] if stays else torch.zeros(3, 3)
        assert np.allclose(shown[at], expected)
    assert info.total == 8


def test_a_linear_layer_is_shown_as_images(digits: Dataset) -> None:
    net = models.MLP((64, 70, 10))
    pruned = prune.weights(net, ratio=0.5)
    info = plots.filters_info(net, pruned, digits.input_shape)
    weight = pruned.get_parameter("layers.0.weight").detach()
    assert (info.shown, info.total, info.layer) == (plots.MAX_FILTERS, 70, "layers.0")
    assert np.allclose(tiles(info, 8, 8), weight[:64].view(64, 8, 8))
    assert (crosses(info, 8, 8) == (weight[:64] == 0).view(64, 8, 8).numpy()).all()
    assert plots.filters_figure(info).layout.title.text.startswith("layers.0: its first 64 of 70 filters")
    assert len(info.picture[0]) > len(info.picture)  # wider than high


def test_inputs_that_are_no_image_are_shown_as_rows() -> None:
    net = nn.Linear(5, 3)
    info = plots.filters_info(net, net, (5,))
    assert np.allclose(tiles(info, 1, 5), net.weight.detach()[:, None])
    assert info.layer == "weight".removesuffix(".weight")


def test_three_channels_are_averaged_and_crossed_only_where_all_are_gone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2))
    pruned = prune.weights(net, ratio=0.0)
    with torch.no_grad():
        pruned.get_parameter("0.weight")[0, :, 0, 0] = 0  # all three channels
        pruned.get_parameter("0.weight")[1, 1, 1, 1] = 0  # one of three
    info = plots.filters_info(net, pruned, (3, 6, 6))
    weight = pruned.get_parameter("0.weight").detach()
    assert np.allclose(tiles(info, 2, 2), weight.mean(dim=1))
    gone = crosses(info, 2, 2)
    assert gone[0, 0, 0]
    assert gone.sum() == 1


def test_a_linear_layer_over_colour_images_averages_the_channels() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 6))
    info = plots.filters_info(net, net, (3, 4, 5))
    assert np.allclose(tiles(info, 4, 5), net.get_parameter("1.weight").detach().view(6, 3, 4, 5).mean(dim=1))


class Positions(nn.Module):
    """Its first weight belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(1, 4, 16))
        self.rows, self.head = nn.Linear(16, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.rows(x.reshape(-1, 4, 16) + self.positions)).mean(dim=1))


class Upscaling(nn.Module):
    """Its first layer has its outputs in the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.ConvTranspose2d(1, 6, 2, stride=2), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.up(x)).mean(dim=(2, 3)))


class HeadFirst(nn.Module):
    """Its layers are written down from the last to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(12, 10), nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x.flatten(1))))


@pytest.mark.parametrize("make", [Positions, Upscaling, HeadFirst])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_unusual_first_layers_do_not_break_the_picture(digits: Dataset, make: type[nn.Module], ratio: float) -> None:
    net = make()
    for pruned, rows in (
        (prune.weights(net, ratio=ratio), None),
        ((thinned := thin(net, ratio=ratio, dataset=digits)).model, thinned.kept),
    ):
        first = next(iter(prune.prunable(net))).removesuffix(".weight")
        info = plots.filters_info(net, pruned, digits.input_shape, None if rows is None else rows.get(first))
        plots.filters_figure(info)
        if ratio == 0:
            assert info.gone_x == ()


# --- figures ----------------------------------------------------------------------------------------------------


def figures(net: ConvNet, digits: Dataset) -> list[tuple[list[dict[str, Any]], go.Figure]]:
    pruned = prune.weights(net, ratio=0.5)
    kept = plots.kept_info(net, {name: float(mask.float().mean()) for name, mask in prune.masks(pruned).items()})
    weights = plots.weights_info(net, pruned, (0.1,))
    filters = plots.filters_info(net, pruned, digits.input_shape)
    return [
        (plots.plane_traces(plane()), plots.plane_figure(plane())),
        (plots.plane_traces(EMPTY), plots.plane_figure(EMPTY)),
        (plots.kept_traces(kept), plots.kept_figure(kept)),
        (plots.weights_traces(weights), plots.weights_figure(weights)),
        (plots.filters_traces(filters), plots.filters_figure(filters)),
    ]


def test_what_a_live_figure_changes_is_in_the_whole_figure(trained: ConvNet, digits: Dataset) -> None:
    for traces, figure in figures(trained, digits):
        assert len(traces) == len(figure.data)
        for arrays, drawn in zip(traces, figure.to_plotly_json()["data"], strict=True):
            assert set(arrays) <= set(drawn)
            for name, value in arrays.items():
                if isinstance(value, dict):  # the look adds to it
                    assert {key: list(drawn[name][key]) for key in ("array", "arrayminus") if key in value} == {
                        key: value[key] for key in ("array", "arrayminus") if key in value
                    }
                else:
                    assert list(drawn[name]) == list(value)


def test_figures_are_strict_json_with_units_on_their_axes(trained: ConvNet, digits: Dataset) -> None:
    for _, figure in figures(trained, digits):
        json.dumps(figure.to_plotly_json(), allow_nan=False)
        assert figure.layout.title.text
        if any(trace.type == "heatmap" for trace in figure.data):
            continue  # a picture: its axes are hidden
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text or figure.data[0].orientation == "h"


def test_every_look_of_a_figure_has_its_own_colour_and_marker() -> None:
    looks = [style.LOOKS[name] for name in (*prune.IMPORTANCES, "dense", "here", "board")]
    assert len({look.marker for look in looks}) == len(looks)
    assert len({look.colour for look in looks}) == len(looks)
    for importance in ("magnitude", "taylor"):  # told apart from the rival without colour, even as bare lines
        assert style.LOOKS[importance].dash != style.LOOKS["random"].dash


@pytest.mark.parametrize("look", style.LOOKS.values(), ids=style.LOOKS.keys())
def test_a_look_can_be_drawn_by_both_libraries(look: style.Look) -> None:
    assert look.colour[0] == "#"
    assert len(bytes.fromhex(look.colour[1:])) == 3
    go.Scatter(marker={"symbol": look.marker}, line={"dash": look.dash})  # plotly refuses what it does not know
    assert look.marker in still._MARKERS
    assert look.dash in still._DASHES


def test_faint_keeps_the_colour() -> None:
    assert style.faint("#0072B2", 0.25) == "rgba(0,114,178,0.25)"


def test_every_size_on_the_axis_is_one_of_a_profile() -> None:
    assert set(plots.SIZE_AXES) <= set(get_args(SizeName))
    assert set(plots.SIZE_AXES) <= {field.name for field in dataclasses.fields(Profile)}


@pytest.mark.parametrize("info", [plane(), plane(size="latency"), EMPTY], ids=["full", "latency", "empty"])
def test_the_still_picture_is_a_png_of_its_size(info: plots.PlaneInfo) -> None:
    png = still.plane_png(info)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(io.BytesIO(png))
    assert picture.shape[:2] == (420, 900)
    assert picture[0, 0, :3] == pytest.approx([1, 1, 1])  # on white
    assert still.plane_png(info) == png  # the same numbers, the same file


def test_the_still_picture_shows_the_curves() -> None:
    def pixels(info: plots.PlaneInfo, colour: str) -> int:
        picture = matplotlib.image.imread(io.BytesIO(still.plane_png(info)))[:, :, :3]
        wanted = np.array(list(bytes.fromhex(colour[1:]))) / 255
        return int((np.abs(picture - wanted).max(axis=2) < 0.02).sum())

    for name in ("magnitude", "random", "here", "board"):
        assert pixels(plane(), style.LOOKS[name].colour) > pixels(EMPTY, style.LOOKS[name].colour) + 30
