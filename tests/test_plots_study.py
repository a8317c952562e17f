"""What a reader sees of a study of their own."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import pytest

from kit.plots.study import history, slices
from kit.search import Choice, Float, Int, Random, Space, Study, SuccessiveHalving

SPACE = Space({"lr": Float(1e-4, 1, log=True), "width": Int(1, 8), "optimiser": Choice("adam", 1, True, None, "<b>")})
CONFIGS = [
    {"lr": 10.0**-at, "width": at + 1, "optimiser": SPACE.parameters["optimiser"].decode(at / 5)} for at in range(5)
]


def told(*results: float | Exception, maximise: bool = False) -> Study:
    """A study whose trials gave these, in order."""
    study = Study(SPACE, maximise=maximise)
    for config, result in zip(CONFIGS, results, strict=False):
        study.tell(study.enqueue(config).number, result)
    return study


MIXED = (0.5, 0.7, ValueError("no <such> width"), 0.2, 0.3)


def trace(figure: go.Figure, name: str, x: str = "x") -> Any:
    return next(each for each in figure.data if each.name == name and (each.xaxis or "x") == x)


def points(figure: go.Figure, name: str, x: str = "x") -> list[tuple[float, float]]:
    drawn = trace(figure, name, x)
    return list(zip(drawn.x, drawn.y, strict=True))


@pytest.mark.parametrize(
    ("maximise", "best"),
    [(False, [(1, 0.5), (4, 0.2), (5, 0.2)]), (True, [(1, 0.5), (2, 0.7), (5, 0.7)])],
)
def test_the_best_so_far_steps_at_each_improvement_and_lasts_to_the_end(
    maximise: bool, best: list[tuple[float, float]]
) -> None:
    figure = history(told(*MIXED, maximise=maximise))
    assert points(figure, "best so far") == best
    assert trace(figure, "best so far").line.shape == "hv"  # nothing was found between two trials
    assert points(figure, "trials") == [(1, 0.5), (2, 0.7), (4, 0.2), (5, 0.3)]
    assert ("more is better" if maximise else "less is better") in figure.layout.yaxis.title.text


def test_failed_trials_stand_below_the_others_where_they_were_tried() -> None:
    study = told(*MIXED)
    for figure, places in ((history(study), {"x": 3}), (slices(study), {"x": 1e-2, "x2": 3, "x3": 2})):
        assert figure.layout.title.text == "5 trials, 1 of them failed"
        for axis, place in places.items():
            ((x, y),) = points(figure, "failed", axis)
            assert x == pytest.approx(place)
            assert y < 0.2
            assert "no &lt;such&gt; width" in trace(figure, "failed", axis).hovertext[0]


def test_epochs_are_counted_as_they_were_spent() -> None:
    halving = SuccessiveHalving(3, max_epochs=3)
    study = Study(SPACE).run(lambda config, epochs: 1 / epochs, halving, budget=6, unit="epochs")
    figure = history(study, unit="epochs")
    assert points(figure, "trials") == [(1, 1), (2, 1), (3, 1), (6, pytest.approx(1 / 3))]
    assert points(figure, "best so far") == [(1, 1), (6, pytest.approx(1 / 3)), (6, pytest.approx(1 / 3))]
    assert figure.layout.xaxis.title.text == "epochs spent"


def test_a_slice_shows_each_value_at_its_place() -> None:
    figure = slices(told(0.5, 0.7, 0.1, 0.2, 0.3))
    for axis, places in (("x", [1, 0.1, 0.01, 1e-3, 1e-4]), ("x2", [1, 2, 3, 4, 5]), ("x3", [0, 1, 2, 3, 4])):
        assert [x for x, _ in points(figure, "trials", axis)] == pytest.approx(places)
        assert [y for _, y in points(figure, "trials", axis)] == [0.5, 0.7, 0.1, 0.2, 0.3]
    assert figure.layout.xaxis.type == "log"
    low, high = figure.layout.xaxis.range
    assert 10**low < 1e-4 < 1 < 10**high
    # 1 and True are different options, and plotly reads no tags in them.
    assert list(figure.layout.xaxis3.ticktext) == ["adam", "1", "True", "None", "&lt;b&gt;"]
    assert list(figure.layout.xaxis3.tickvals) == [0, 1, 2, 3, 4]
    named = slices(told(*MIXED), "width", "lr")  # alone, and in this order
    assert [named.layout.xaxis.title.text, named.layout.xaxis2.title.text] == ["hidden units", "learning rate"]
    assert len(named.data) == 4


@pytest.mark.parametrize("count", [1, 4, 10])
def test_few_or_many_parameters_share_the_plot_without_overlap(count: int) -> None:
    space = Space({f"p{at}": Float(0, 1) for at in range(count)})
    figure = slices(Study(space).run(lambda config: sum(config.values()), Random(0), budget=6))
    numbers = [str(at + 1) if at else "" for at in range(count)]
    boxes = [(*figure.layout[f"xaxis{n}"].domain, *figure.layout[f"yaxis{n}"].domain) for n in numbers]
    assert len(set(boxes)) == count
    for at, (left, right, bottom, top) in enumerate(boxes):
        assert right - left > 0.2
        for other in boxes[:at]:
            apart = (right <= other[0], other[1] <= left, top <= other[2], other[3] <= bottom)
            assert any(apart)


@pytest.mark.parametrize("results", [(), (ValueError("no"),), (ValueError("no"), 0.5)], ids=["none", "failed", "one"])
def test_a_study_with_little_in_it_is_drawn_all_the_same(results: tuple[Any, ...]) -> None:
    study = told(*results)
    study.enqueue(CONFIGS[0])  # asked, and not told yet
    done = sum(isinstance(result, float) for result in results)
    for figure in (history(study), slices(study)):
        assert len(points(figure, "trials")) == done
        assert len(points(figure, "failed")) == len(results) - done
        assert json.dumps(figure.to_plotly_json(), allow_nan=False, default=list)
    assert bool(points(history(study), "best so far")) == bool(done)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(TypeError, match="study must be a Study; got 3"):
        history(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names must be one of lr, width, optimiser; got 'rate'"):
        slices(told(0.5), "rate")
    with pytest.raises(ValueError, match="unit must be one of trials, epochs; got 'hours'"):
        history(told(0.5), unit="hours")  # type: ignore[arg-type]
