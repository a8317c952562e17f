"""Parts of the base on their own: what is sent to the page, sliders over stops, the kinds of controls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as widgets
import pytest
import traitlets
from torch import nn

from kit.explorers import base, layout
from kit.explorers.controls import Control, StopError, StopSlider
from kit.explorers.layout import LiveFigure, ProgressBar, ProgressCallback
from kit.plots.curves import Panel
from kit.training import Progress
from tests.hands import PATIENCE, settle, words
from tests.toy_explorer import TOSSES, Answer, ToyExplorer


def panel(*traces: dict[str, Any], **settings: Any) -> Panel:
    return Panel([{"type": "scatter", **trace} for trace in traces], settings)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any], list[int]]]:
    """What a live figure sends: data, layout, numbers of the traces."""
    found: list[tuple[dict[str, Any], dict[str, Any], list[int]]] = []

    def send(self: Any, restyle_data: Any, relayout_data: Any, trace_indexes: Any, **more: Any) -> None:
        found.append((dict(restyle_data), dict(relayout_data), list(trace_indexes)))

    monkeypatch.setattr(LiveFigure, "_send_update_msg", send)
    return found


def test_nothing_is_sent_as_undefined_for_a_trace_that_keeps_it(sent: list[Any]) -> None:
    """The page would take it for removed."""

    def bars(*up: float) -> dict[str, Any]:
        return {"array": list(up), "arrayminus": [1.0] * 2, "type": "data"}

    figure = LiveFigure(panel({"x": [1, 2], "y": [1, 1]}, {"x": [2], "y": [2]}, {"y": [1, 2], "error_y": bars(1, 2)}))
    figure.show(panel({"x": [1, 2], "y": [4, 5]}, {"x": [3], "y": [3]}, {"y": [1, 2], "error_y": bars(1, 3)}))
    assert [(sorted(data), numbers) for data, _, numbers in sent] == [
        (["y"], [0]),
        (["x", "y"], [1]),
        (["error_y.array"], [2]),
    ]
    assert all(isinstance(value, tuple | list) for data, _, _ in sent for values in data.values() for value in values)


def test_only_what_differs_is_sent_by_kind_of_change_and_the_page_does_not_report_back(sent: list[Any]) -> None:
    figure = LiveFigure(panel({"y": [1, 2]}, {"y": [3, 4], "text": ["a", "b"]}, {"y": [5, 6]}, height=300))
    for _ in range(2):  # the second time, nothing differs
        figure.show(panel({"y": [1, 2]}, {"y": [3, 9], "text": ["a", "c"]}, {"y": [7, 6]}, height=300))
        assert [(sorted(data), numbers) for data, _, numbers in sent] == [(["text", "y"], [1]), (["y"], [2])]
    assert [list(trace.y) for trace in figure.data] == [[1, 2], [3, 9], [7, 6]]
    sent.clear()
    figure = LiveFigure(panel({"y": [1]}, height=300, title={"text": "a"}))
    figure.show(panel({"y": [1]}, height=300, title={"text": "b"}))
    assert [(data, settings) for data, settings, _ in sent] == [({}, {"title.text": "b"})]
    figure._js2py_layoutDelta = {"layout_delta": {"height": 9}}
    figure._js2py_traceDeltas = {"trace_deltas": [{"y": [9]}]}
    assert (figure.layout.height, list(figure.data[0].y)) == (300, [1])
    with pytest.raises(ValueError, match="longer|shorter"):
        figure.show(panel({"y": [1]}, {"y": [2]}))  # always as many traces


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(0.3, ", the nearest are 0 and 0.5"), (9, ", the nearest are 1"), (-1, ", the nearest are 0"), ("half", "")],
)
def test_a_slider_over_stops_refuses_what_is_none(value: Any, nearest: str) -> None:
    slider = StopSlider("share", (0.0, 0.5, 1.0), "{:g}".format, value=0.5)
    with pytest.raises(StopError) as caught:
        slider.value = value
    assert str(caught.value) == f"share must be one of the slider's 3 stops from 0 to 1; got {value!r}{nearest}."
    assert slider.value == 0.5
    link = traitlets.link((source := widgets.FloatText(0.5), "value"), (slider, "value"))
    for wrong, put in ((math.nan, slider), (None, slider), (0.3, source)):
        with pytest.raises(ValueError, match="must be one of"):
            put.value = wrong
        assert slider.value == 0.5
    link.unlink()
    with pytest.raises(StopError):
        slider.set_trait("value", 0.3)
    slider.index = 2  # what the page sets
    assert slider.value == 1.0
    with pytest.raises(ValueError, match=r"^kind must be one of x, y; got 'z'\.$"):
        Control("kind", "choice", "z", "A choice.", {"ex": "x", "why": "y"}).widget()


@pytest.mark.parametrize(
    ("control", "kind", "other"),
    [
        (Control("a", "stops", 1, "A stop.", (1, 2, 4)), StopSlider, 4),
        (Control("a", "choice", "x", "A choice.", ("x", "y")), widgets.Dropdown, "y"),
        (Control("a", "choice", 1, "A choice.", {"one": 1, "two": 2}), widgets.Dropdown, 2),
        (Control("a", "toggle", "x", "A toggle.", ("x", "y")), widgets.ToggleButtons, "y"),
        (Control("a", "slider", 3, "A slider.", (0, 10)), widgets.IntSlider, 10),
        (Control("a", "number", 3, "A number.", (0, 10)), widgets.BoundedIntText, 0),
        (Control("a", "check", False, "A check.", wide=True), widgets.Checkbox, True),
        (Control("a", "text", "", "A text.", "type here", label="name"), widgets.Text, "mine"),
    ],
)
def test_every_kind_of_control_begins_where_it_is_told_and_explains_itself(
    control: Control, kind: type[widgets.Widget], other: Any
) -> None:
    made = control.widget()
    assert isinstance(made, kind)
    assert (made.value, made.tooltip) == (control.start, control.help)
    assert made.description == ("" if kind is widgets.ToggleButtons else control.label or "a")
    assert ("kit-wide" in made._dom_classes) == control.wide
    made.value = other
    assert made.value == other


def test_a_fit_moves_the_bar_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.05, 1.2])
    monkeypatch.setattr(layout.time, "monotonic", lambda: next(clock))
    bar, seen = ProgressBar(), list[float]()
    bar.observe(lambda change: seen.append(change["new"]), "value")
    callback = ProgressCallback(bar)
    for batch in (1, 2, 3):
        callback.on_batch_end(
            Progress(epoch=0, epochs=1, batch=batch, batches=4, loss=1.0, seconds=1.0, model=nn.Linear(1, 1))
        )
    assert seen == [0.25, 0.75]
    assert bar.description.endswith(" s left")
    bar.move(0)
    assert bar.description == ""


class WithDetail(ToyExplorer):
    """The toy with a figure under the main one, and curves that wait for the hand to rest."""

    _bright = ("detail",)
    _rest = 0.3

    def _panels(self, answer: Answer | None) -> dict[str, Callable[[], Panel]]:
        said = "" if answer is None else f"{answer.settings} tosses"
        return {**super()._panels(answer), "detail": lambda: panel({"y": [1]}, title={"text": said})}


@pytest.fixture
def toy() -> Iterator[WithDetail]:
    made = WithDetail()
    made.wait(PATIENCE)
    yield made
    made.close()


def test_figures_under_the_main_one_give_way_to_a_newer_move(toy: WithDetail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "DETAIL_SECONDS", 0.2)
    painted: list[str] = []
    paint = toy._paint

    def noted(name: str, shown: Panel) -> None:
        painted.append(name)
        paint(name, shown)

    monkeypatch.setattr(toy, "_paint", noted)
    toy.set(tosses=20)
    while "of 20 tosses" not in words(toy):
        time.sleep(0.01)
    settle(toy, tosses=30)
    assert painted == ["heads", "heads", "detail"]
    assert toy.figures["detail"].layout.title.text == "30 tosses"
    assert "kit-bright" in toy.figures["detail"]._dom_classes


def test_curves_grow_once_the_hand_rests(toy: WithDetail) -> None:
    settle(toy, tosses=20)
    time.sleep(0.05)
    began = time.monotonic()
    settle(toy, tosses=30)
    assert set(toy._known) == {50, 20, 30}
    toy.wait_curves(PATIENCE)
    assert time.monotonic() - began > 0.3
    assert len(toy._known) == len(TOSSES)
