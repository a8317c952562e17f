"""A click on a point of a curve goes there. The page sends the name of the curve and the place of the point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from kit.data import Dataset
from kit.explorers import DistillationExplorer, PruningExplorer, SearchExplorer
from kit.explorers.base import Explorer
from kit.models import ConvNet
from kit.prune import PruningMethod
from tests.explorer_cases import few, small_net
from tests.hands import PATIENCE
from tests.landscapes import made_up

pytestmark = pytest.mark.usefixtures("own_board")


def click(explorer: Explorer[Any, Any], figure: str, curve: str, at: int | tuple[float, float] = 0) -> None:
    """On the point `at` of a curve, or beside all points at a place."""
    place: tuple[float, float]
    if isinstance(at, int):
        (trace,) = [trace for trace in explorer.figures[figure].data if trace.name == curve and trace.x]
        place = trace.x[at], trace.y[at]
    else:
        place = at
    shown = explorer.figures[figure]
    shown.clicked = [(shown.clicked or [0])[0] + 1, curve, *place]
    explorer.wait(PATIENCE)


@pytest.fixture
def pruning(digits: Dataset) -> Iterator[PruningExplorer]:
    with contextlib.closing(PruningExplorer(small_net(), digits)) as explorer:
        explorer.wait_curves(PATIENCE)
        yield explorer


@pytest.mark.parametrize("size", ["nonzeros", "file_bytes"])
def test_pruning_goes_to_the_ratio_and_importance_of_the_curve(pruning: PruningExplorer, size: Any) -> None:
    pruning.size.value = size
    pruning.wait_curves(PATIENCE)
    for curve, at in (("magnitude", 30), ("random", 20), ("random", 5)):
        click(pruning, "plane", curve, at)
        method = PruningMethod(importance=curve)  # type: ignore[arg-type]
        assert (pruning.importance.value, pruning.ratio.value) == (curve, pruning.points(method)[at].ratio)
        assert pruning.point.ratio == pruning.ratio.value
    click(pruning, "plane", "dense model")
    assert (pruning.importance.value, pruning.ratio.value) == ("random", 0)
    for curve in ("", "on the board", "interval of random"):
        click(pruning, "plane", curve, (500.0, 50.0))
    click(pruning, "weights", "dense", (0.0, 3.0))
    assert (pruning.importance.value, pruning.ratio.value) == ("random", 0)


def test_distillation_goes_to_a_temperature_and_to_a_width(digits: Dataset, trained: ConvNet) -> None:
    made = DistillationExplorer(trained, few(digits), width=8).set(seeds=4, epochs=5)
    with contextlib.closing(made) as explorer:
        explorer.wait_curves(PATIENCE)
        click(explorer, "curve", "distilled", -1)
        assert explorer.temperature.value == 64 == explorer.group.recipe.temperature
        explorer.wait_curves(PATIENCE)
        click(explorer, "plane", "hard labels", 0)
        assert explorer.width.value == 4
        explorer.wait_curves(PATIENCE)
        click(explorer, "plane", "distilled", -1)
        click(explorer, "curve", "teacher", 0)
        click(explorer, "curve", "", (3.0, 50.0))
        assert (explorer.width.value, explorer.temperature.value) == (128, 64)


def test_the_race_goes_to_a_method_and_its_budget(digits: Dataset) -> None:
    with contextlib.closing(SearchExplorer(digits, landscape=made_up(), trainings=9)) as explorer:
        explorer.repeats.value = 4
        explorer.wait_curves(PATIENCE)
        (grid,) = [trace for trace in explorer.figures["race"].data if trace.name == "grid"]
        click(explorer, "race", "grid", 4)
        assert (explorer.method.value, explorer.budget.value) == ("grid", grid.x[4])
        click(explorer, "race", "best cell", (0.0, 90.0))
        assert (explorer.method.value, explorer.budget.value) == ("grid", grid.x[4])
