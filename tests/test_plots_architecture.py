from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kit.cells import EDGES, NAMES, networks, parse
from kit.measure import Estimate
from kit.plots import architecture as plots
from kit.search import Random, architecture
from kit.search.architecture.table import Table


@pytest.fixture(scope="module")
def table() -> Table:
    return architecture.load()


@pytest.fixture(scope="module")
def accuracy(table: Table) -> list[Estimate]:
    return [Estimate.from_values(row).share for row in table.curves[:, :, -1].tolist()]


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, values = rng.integers(1, 8, 30).astype(float), rng.integers(0, 9, 30) / 10
        pairs = list(zip(costs.tolist(), values.tolist(), strict=True))
        free = {one for one in pairs if not any(a <= one[0] and b >= one[1] and (a, b) != one for a, b in pairs)}
        rows = plots.front(costs, values).tolist()
        assert [pairs[row] for row in rows] == sorted(free)


@pytest.mark.parametrize("what", plots.TITLES)
def test_the_cloud_has_every_network_and_fades_those_beyond_the_limit(
    table: Table, accuracy: list[Estimate], what: str
) -> None:
    limit = float(np.median(table.costs(what)))
    panel = plots.cloud_panel(table, what, table.within(**{what: limit}), accuracy)
    outline, cloud = panel.traces
    assert cloud["x"] == table.costs(what).tolist()
    assert np.allclose(cloud["y"], 100 - 100 * table.curves[:, :, -1].mean(1))
    seen = [opacity == plots.SEEN for opacity in cloud["marker"]["opacity"]]
    assert seen == [cost <= limit for cost in table.costs(what)] and 0 < sum(seen) < len(seen)
    assert {*cloud["marker"]["opacity"]} == {plots.SEEN, plots.FADED}
    row = table.row("conv3 | conv3 conv3 | conv3 conv3")
    text, value, low, high, costs = cloud["customdata"][row]
    mean, spread = 100 * table.mean[row], 100 * table.curves[row, :, -1].std(ddof=1) / math.sqrt(3)
    assert text == str(table.cells[row]) and value == pytest.approx(mean, abs=0.06)
    assert mean - 4.3027 * spread == pytest.approx(low, abs=0.06)
    assert high <= 100 and f"{table.parameters[row]:,} parameters" in costs
    assert set(zip(outline["x"], outline["y"], strict=True)) <= set(zip(cloud["x"], cloud["y"], strict=True))
    low, high = (10**end for end in panel.layout["xaxis"]["range"])
    assert low < min(cloud["x"]) and max(cloud["x"]) < high
    assert sum(low < tick < high for tick in panel.layout["xaxis"]["tickvals"]) >= 4
    assert np.allclose(panel.curves[0].value, 100 * table.mean)
    worst, best = (10**end for end in panel.layout["yaxis"]["range"])
    assert best < min(cloud["y"]) and max(cloud["y"]) < worst  # the best are at the top


def test_the_race_is_the_mean_of_what_is_retested(table: Table) -> None:
    repeats = [architecture.search(table, Random(seed), budget=20, repeat=seed) for seed in range(3)]
    panel = plots.race_panel({"random": repeats, "evolution": []}, [1, 5, 20], table.epochs, "random", 0.9)
    band, line, _, none = panel.traces
    assert line["x"] == [1, 5, 20] and none["x"] == []
    for budget, value in zip(line["x"], line["y"], strict=True):
        objectives = [table.objective(seed) for seed in range(3)]
        chosen = [max(each.trials[:budget], key=lambda trial: trial.value or 0).config for each in repeats]
        assert value == pytest.approx(
            100 * np.mean([each.retest(config) for each, config in zip(objectives, chosen, strict=True)])
        )
    assert band["y"][:3] == list(panel.curves[0].high)
    assert line["line"]["width"] > none["line"]["width"]
    assert [shape["y0"] for shape in panel.layout["shapes"]] == [90.0]
    assert [label.text for label in panel.labels] == ["◆ random", "best mean"]


def test_the_graph_has_the_edges_of_the_cell() -> None:
    for cell in [*networks()[::97], parse("none | conv3 none | none pool"), parse("skip | none none | skip none")]:
        *edges, nodes, words = plots.cell_panel(cell, "title", ("94 %",)).traces
        assert [edge["name"] for edge in edges] == [f"edge {name}" for name in NAMES]
        drawn = {
            (places.index((edge["x"][0], edge["y"][0])), places.index((edge["x"][-1], edge["y"][-1]))): edge
            for edge in edges
            if edge["x"]
            for places in [plots.PLACES]
        }
        present = {pair: each for pair, each in zip(EDGES, cell.operations, strict=True) if each != "none"}
        assert {pair: edge["text"][1].strip() for pair, edge in drawn.items()} == present
        assert len(nodes["x"]) == len(set(itertools.chain(*present)))
        assert {"in", "out"} <= set(nodes["text"])
        assert words["text"][0].replace("<br>", " ") == f"94 % {cell.formula}"
    empty = plots.cell_panel(None, "").traces
    assert len(empty) == 7 and not any(trace["x"] for trace in empty[:-1]) and empty[-1]["text"] == [""]


def test_every_operation_looks_different() -> None:
    looks = [tuple(line.values()) for line in plots.LINES.values()]
    assert len(set(looks)) == len(looks) and len({line["color"] for line in plots.LINES.values()}) == len(looks)


def test_shared_weights_stand_against_the_truth() -> None:
    scores, truth = np.array([0.2, np.nan, 0.55]), np.array([0.7, 0.8, 0.9])
    cloud, mark, words = plots.shared_panel(scores, truth, "title", shown=2).traces
    assert cloud["x"] == pytest.approx([20, 55]) and cloud["y"] == pytest.approx([30, 10])
    assert cloud["customdata"] == pytest.approx([70, 90]) and words["x"] == []
    assert mark["x"] == pytest.approx([55]) and mark["y"] == pytest.approx([10])
    assert plots.shared_panel(scores, truth, "", shown=1).traces[1]["x"] == []
    empty = plots.shared_panel(np.full(3, np.nan), truth, "")
    assert empty.traces[0]["x"] == [] and "Train supernet" in empty.traces[2]["text"][0]
    assert [plots.shared_panel(each, truth, "").layout["xaxis"]["visible"] for each in (scores, scores * np.nan)] == [
        True,
        False,
    ]


def test_trials_are_dark_to_bright() -> None:
    shades = [sum(map(int, colour[4:-1].split(","))) for colour in plots.order_colours(50)]
    assert shades == sorted(shades) and len(set(shades)) > 40
    assert plots.order_colours(0) == [] and len(plots.order_colours(1)) == 1
    assert plots.said("flops", 221_888) == "222 kFLOPs" and plots.said("parameters", 6362) == "6,362 parameters"
    assert plots.said("latency", 0.3125) == "0.312 ms"
