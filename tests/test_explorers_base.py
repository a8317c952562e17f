"""Parts of the base on their own: what is sent to the page, sliders over stops, the kinds of controls."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import math
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import numpy as np
import pytest
import traitlets
from jupyter_client.manager import KernelManager
from torch import nn

from kit.data import Dataset
from kit.explorers import IntervalExplorer, base, cells, layout
from kit.explorers.controls import Control, NumberField, StopError, StopSlider
from kit.explorers.layout import LiveFigure, ProgressBar, ProgressCallback
from kit.models import MLP
from kit.plots.curves import Label, Panel
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
    assert figure.layout.height is None  # the page decides
    figure._js2py_layoutDelta = {"layout_delta": {"width": 9}}
    figure._js2py_traceDeltas = {"trace_deltas": [{"y": [9]}]}
    assert (figure.layout.width, list(figure.data[0].y)) == (None, [1])
    with pytest.raises(ValueError, match="longer|shorter"):
        figure.show(panel({"y": [1]}, {"y": [2]}))  # always as many traces


def test_names_and_the_ranges_of_the_axes_are_sent_where_they_differ() -> None:
    layout = {"xaxis": {"range": [0, 1]}, "yaxis": {"autorange": "reversed"}}
    shown = Panel([{"y": [1]}], layout, labels=(Label("a", 1, 2),))
    figure = LiveFigure(shown)
    assert (figure.labels, figure.home) == ([Label("a", 1, 2)._asdict()], [[0, 1], None])
    assert len(figure.layout.annotations) == 0  # the page draws them
    assert not figure.show(dataclasses.replace(shown))
    heard: list[str] = []
    figure.observe(lambda change: heard.append(change["name"]), ("labels", "home"))
    assert figure.show(dataclasses.replace(shown, labels=(Label("b", 1, 2),)))
    assert figure.show(Panel([{"y": [1]}], {**layout, "xaxis": {"range": [0, 5]}}, labels=(Label("b", 1, 2),)))
    assert heard == ["labels", "home"] and figure.home[0] == [0, 5]


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
        (Control("a", "number", 3, "A number.", (0, 10)), NumberField, 0),
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


class WithCursor(ToyExplorer):
    """A mark that a hand moves at once."""

    _cursor = 0

    def _preview(self, settings: int) -> None:
        self._cursor = settings


@pytest.mark.parametrize("between", ["the move and its request", "the question and the drawing"])
def test_an_answer_that_is_late_does_not_take_back_what_a_hand_has_moved(
    between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker draws between what a hand moves and what it asks for; the hand moves while the worker draws."""
    toy = WithCursor()
    toy.wait(PATIENCE)
    late, request, preview = toy._latest(), WithCursor._request, WithCursor._preview
    drawing, moved = Event(), Event()

    def asked(self: WithCursor, job: Callable[[Event], None]) -> None:
        moved.set()
        time.sleep(0.2)
        request(self, job)

    def drawn(self: WithCursor, settings: int) -> None:
        if settings == late.settings:
            drawing.set()
            time.sleep(0.2)
        preview(self, settings)

    def draw(_: Event) -> None:
        if first:
            moved.wait(PATIENCE)
        toy._mark(late)
        time.sleep(0.2)

    first = between == "the move and its request"
    toy._request(draw)
    if first:
        monkeypatch.setattr(WithCursor, "_request", asked)
    else:
        monkeypatch.setattr(WithCursor, "_preview", drawn)
        assert drawing.wait(PATIENCE)
    toy.set(tosses=20)
    for _ in range(30):  # before the answer to the move hides it
        assert toy._cursor == 20
        time.sleep(0.01)
    toy.wait(PATIENCE)
    assert toy._cursor == 20
    toy.close()


def test_an_error_that_is_late_does_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = WithCursor()
    toy.wait(PATIENCE)
    toy.tosses.value = 20
    toy.wait(PATIENCE)
    monkeypatch.setattr(type(toy._worker), "newer", True)
    toy._preview(30)
    toy._back()
    assert toy._cursor == 30
    monkeypatch.undo()
    toy._back()
    assert toy._cursor == 20
    toy.close()


def test_curves_grow_once_the_hand_rests(toy: WithDetail) -> None:
    settle(toy, tosses=20)
    time.sleep(0.05)
    began = time.monotonic()
    settle(toy, tosses=30)
    assert set(toy._known) == {50, 20, 30}
    toy.wait_curves(PATIENCE)
    assert time.monotonic() - began > 0.3
    assert len(toy._known) == len(TOSSES)


def test_a_cell_that_runs_again_ends_what_it_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    parent: Any = None
    monkeypatch.setattr(cells, "get_ipython", lambda: SimpleNamespace(get_parent=lambda: parent))
    made: list[ToyExplorer] = []

    def run(message: Any, *, explorers: int = 1) -> list[bool]:
        """Run a cell; which of all explorers are closed then."""
        nonlocal parent
        parent = message
        made.extend(ToyExplorer() for _ in range(explorers))
        return [each._closed for each in made]

    def cell(name: str, number: int) -> dict[str, Any]:
        return {"metadata": {"cellId": name}, "header": {"msg_id": f"run {number}"}}

    assert run(cell("a", 1), explorers=2) == [False] * 2  # both are kept
    assert run(cell("b", 2)) == [False] * 3  # another cell
    for nameless in (None, {}, {"metadata": {}, "header": {"msg_id": "run 3"}}, {"metadata": {"cellId": "a"}}):
        assert run(nameless) == [False] * len(made)
    parent = cell("a", 4)
    with pytest.raises(ValueError, match="must be one of"):
        ToyExplorer(start=51)
    assert run(cell("a", 5)) == [True, True, *[False] * 6]
    for each in made:
        each.close()


def test_rebuilding_in_a_cell_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, taken = itertools.count(), list[int]()
    shell = SimpleNamespace(get_parent=lambda: {"metadata": {"cellId": "a"}, "header": {"msg_id": str(next(runs))}})
    monkeypatch.setattr(cells, "get_ipython", lambda: shell)
    tracemalloc.start()
    try:
        for _ in range(15):
            explorer = ToyExplorer()
            explorer.wait(PATIENCE)
            gc.collect()
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        explorer.close()
    assert (taken[-1] - taken[4]) / 10 < 40_000  # bytes a run; the figure alone takes more


@pytest.mark.parametrize(
    ("control", "wrong", "sentence"),
    [
        (Control("a", "choice", "x", "A choice.", ("x", "y")), None, "a must be one of x, y; got None."),
        (Control("a", "toggle", "x", "A toggle.", ("x", "y")), "z", "a must be one of x, y; got 'z'."),
        (Control("a", "slider", 3, "A slider.", (0, 10)), 11, "a must lie in 0 .. 10; got 11."),
        (Control("a", "number", 3, "A number.", (0, 10)), -1, "a must lie in 0 .. 10; got -1."),
        (Control("a", "number", 3, "A number.", (0, 10)), 2.7, "a must be a whole number; got 2.7."),
    ],
)
def test_a_control_refuses_by_its_name_what_it_would_bend(control: Control, wrong: Any, sentence: str) -> None:
    made = control.widget()
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(sentence)}$"):
        made.value = wrong
    assert made.value == control.start


@pytest.mark.parametrize(
    ("control", "kind"),
    [
        (Control("a", "stops", 1.0, "A stop.", (1.0, 2.0)), float),
        (Control("a", "choice", 1, "A choice.", {"one": 1, "two": 2}), int),
        (Control("a", "number", 1, "A number.", (0, 10)), int),
    ],
)
def test_a_number_of_numpy_is_taken_as_pythons(control: Control, kind: type) -> None:
    made = control.widget()
    made.value = np.array([kind(2)])[0]
    assert made.value == 2 and type(made.value) is kind  # `code` writes it down


def test_a_hand_in_another_thread_makes_nobody_deaf(tiny: Dataset, teacher: MLP) -> None:
    """Each of two threads moves a control in the midst of the other's move, if it can."""
    second_in, first_out, first_in = Event(), Event(), Event()
    with contextlib.closing(IntervalExplorer(teacher, tiny)) as explorer:

        def first() -> None:
            explorer.set(n=20)
            first_out.set()

        def midway(inside: Event, until: Event) -> Callable[[Any], None]:
            def pause(change: Any) -> None:
                inside.set()
                until.wait(0.2)

            return pause

        explorer.n.observe(midway(first_in, second_in), "value")
        explorer.seed.observe(midway(second_in, first_out), "value")
        threads = [Thread(target=first), Thread(target=lambda: explorer.set(seed=3))]
        threads[0].start()
        assert first_in.wait(PATIENCE)
        threads[1].start()
        for thread in threads:
            thread.join(PATIENCE)
        for settings in ({"n": 20, "seed": 3}, {"n": 10, "seed": 3}):
            settle(explorer, **settings)
            assert dataclasses.asdict(explorer._latest().settings) == settings


@pytest.mark.parametrize("wait", ["wait", "wait_curves"])
def test_waiting_takes_no_time_that_is_none(toy: WithDetail, wait: str) -> None:
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match=r"^timeout must be 0 or more; got "):
            getattr(toy, wait)(wrong)
    with pytest.raises(TypeError, match=r"^timeout must be a number; got 'long'"):
        getattr(toy, wait)("long")
    toy.wait_curves(PATIENCE)
    getattr(toy, wait)(0)  # nothing to wait for


def test_a_cell_that_runs_again_in_a_real_kernel_leaves_one_thread_and_its_widgets() -> None:
    """With the message that JupyterLab sends."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(Path(__file__).parents[1]), extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.client()
    client.start_channels()

    def run(code: str, **metadata: str) -> str:
        """What the cell prints, or the text of what it shows."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "stop_on_error": True}
        message = client.session.msg("execute_request", content, metadata=metadata)
        client.shell_channel.send(message)
        said = ""
        while True:
            answer = client.get_iopub_msg(PATIENCE)
            if answer["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            body = answer["content"]
            said += body.get("text", "") + body.get("data", {}).get("text/plain", "") + body.get("evalue", "")
            if body.get("execution_state") == "idle":
                return said.strip()

    try:
        client.wait_for_ready(PATIENCE)
        run("import threading; from tests.toy_explorer import ToyExplorer; from ipywidgets.widgets import widget")
        count = "explorer.wait(); print(sum(t.name == 'kit explorer' for t in threading.enumerate()), end=' ')\n"
        count += "print(len(widget._instances))"
        assert run("explorer = ToyExplorer()\nexplorer", cellId="one") == "ToyExplorer"
        alone = run(count, cellId="two")
        assert alone.startswith("1 ")
        run("first = explorer", cellId="three")
        for _ in range(3):
            assert run("explorer = ToyExplorer()\nexplorer", cellId="one") == "ToyExplorer"
            assert run("explorer", cellId="four") == "ToyExplorer"  # showing it again ends nothing
            assert run(count, cellId="two") == alone
        assert run("first", cellId="five") == run("first.wait()", cellId="five").split("RuntimeError: ")[-1]
        assert run("first.wait()") == "This explorer is closed; run its cell again."
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
