"""The plane of two objectives: stairs with the area that the kit counts, panels with what they were given."""

from __future__ import annotations

import numpy as np

from kit.explorers.front import CORNER, POINTS
from kit.plots import front as plots
from kit.search import pareto


def area(edge: np.ndarray, corner: np.ndarray) -> float:
    """Under a closed outline, by the shoelace formula."""
    x, y = np.vstack([edge, [corner]]).T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def test_the_stairs_border_the_dominated_area() -> None:
    six = POINTS["six networks"]
    edge = plots.stairs(six[pareto.front(six)][::-1], CORNER)
    assert area(edge, CORNER) == 201
    assert edge[0].tolist() == [2, 25] and edge[-1].tolist() == [15, 4]


def test_stairs_of_what_lies_beyond_the_corner() -> None:
    assert plots.stairs(np.array([[20.0, 1.0], [1.0, 30.0]]), CORNER).shape == (0, 2)
    assert plots.stairs(np.empty((0, 2)), CORNER).shape == (0, 2)


def test_the_plane_tells_front_dominated_and_yours_apart() -> None:
    losses = np.array([[2.0, 20], [5, 21], [4, 10], [7, 16]])
    panel = plots.plane_panel("ABCD", losses, pareto.front(losses), CORNER, np.array([[0.0, 1], [1, 0]]), 2)
    shown = {curve.label: (curve.x, curve.value) for curve in panel.curves}
    assert shown == {"dominated": ((5,), (21,)), "front": ((2, 4), (20, 10)), "yours": ((7,), (16,))}
    assert [label.text for label in panel.labels] == ["A", "B", "C", "D", "corner"]
    ring = next(trace for trace in panel.traces if trace["name"] == "smallest sum")
    assert (ring["x"], ring["y"]) == ([4], [10])


def test_a_far_corner_is_in_sight() -> None:
    losses = np.array([[2.0, 20], [7, 16]])
    near, far = (
        plots.plane_panel("AB", losses, np.array([True, True]), times * CORNER, np.empty((0, 2)), 0) for times in (1, 2)
    )
    assert near.layout["xaxis"]["range"][1] < 30 < far.layout["xaxis"]["range"][1]
    assert far.layout["yaxis"]["range"][1] > 50


def test_weights_show_what_they_choose() -> None:
    sizes = [2.0] * 10 + [12.0] * 11
    panel = plots.weights_panel(sizes, 0.3)
    assert panel.curves[0].x == plots.WEIGHTS and panel.curves[0].value == tuple(sizes)
    assert (panel.traces[1]["x"], panel.traces[1]["y"]) == ([0.3], [2.0])
