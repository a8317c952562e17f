"""What every explorer keeps to, said against the base. `test_explorers_contract.py` runs it on `explorer_cases.py`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
import html
import io
import json
import random
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets.widgets.widget import _instances

from kit import board, compress, files, models, prune
from kit.data import Dataset
from kit.explorers.base import Explorer
from kit.explorers.controls import NumberField
from kit.explorers.marks import Mark
from kit.explorers.pinning import PinningExplorer
from kit.explorers.worker import CLOSED
from kit.models import ConvNet
from kit.training import Cancelled
from tests.hands import PATIENCE, is_error, settle, words

LOST = "<nothing> works & all is lost."
Fresh = Callable[[], Any]  # makes another explorer of the case, which is closed at the end of the test


@dataclass(frozen=True)
class Case:
    """A small instance of one explorer.

    Attributes:
        name: of the case.
        make: makes it; answers within a second, and its curves are complete within a few.
        moves: values of controls, each of which changes the answer (and, where it pins, what is pinned).
        off_stop: a control and a value between two of its stops, if there is such a control.
        pins: whether it pins to the board.
        grows: whether it has curves that grow in the background.
        given: arguments by the names that `code` writes, where they are not `model` and `dataset`.
    """

    name: str
    make: Callable[[Dataset, ConvNet], Explorer]
    moves: tuple[dict[str, Any], ...]
    off_stop: tuple[str, Any] | None = None
    pins: bool = False
    grows: bool = False
    given: Callable[[Dataset, ConvNet], Mapping[str, Any]] = field(
        default=lambda digits, trained: {"model": trained, "dataset": digits}
    )


def parts(box: widgets.Widget) -> Iterator[widgets.Widget]:
    """A widget and everything inside it."""
    yield box
    for child in getattr(box, "children", ()):
        yield from parts(child)


def picture(explorer: Explorer) -> str:
    """All figures and marks as strict JSON; refuses NaN and infinities."""
    figures = [figure.to_plotly_json() for figure in explorer.figures.values()]
    marks = [[each.values, each.at, each.text] for each in parts(explorer) if isinstance(each, Mark)]
    return json.dumps([figures, marks], allow_nan=False)


def counts(explorer: Explorer) -> list[tuple[int, int]]:
    """How many traces and annotations each figure has."""
    return [(len(each.data), len(each.layout.annotations)) for each in explorer.figures.values()]


def without_times(text: str) -> str:
    """Words without measured times, which differ from one run to the next."""
    return re.sub(r"[\d.,]+ (ms|s|seconds)\b( \([\d.,]+ to [\d.,]+\))?", "", text)


def assert_answers(explorer: Explorer, **move: Any) -> None:
    """Move controls: the answer, the words and all figures are then those of the controls."""
    settle(explorer, **move)
    answer = explorer._answered
    assert answer is not None
    assert answer.settings == explorer.settings
    assert not is_error(explorer)
    assert words(explorer) == explorer.in_words
    assert_whole(explorer)


def assert_whole(explorer: Explorer) -> None:
    """All figures show the latest answer."""
    for name, panel in explorer._panels(explorer._answered).items():
        if name not in explorer._curves:  # those may lag behind the growing curves
            assert explorer.figures[name]._panel == panel()


class Hold:
    """The next computing goes on until it is cancelled or let go; later ones are not held."""

    def __init__(self, explorer: Any) -> None:
        self.began, self.goes_on, self.runs = Event(), Event(), 0
        self._explorer, self._compute = explorer, explorer._compute

    def __call__(self, settings: Any, cancel: Event) -> Any:
        self.runs += 1
        if not self.began.is_set():
            self._explorer._busy(True)
            self._explorer._progress(0.5)
            self.began.set()
            while not self.goes_on.wait(0.005):
                if cancel.is_set():
                    raise Cancelled("stopped.")
        return self._compute(settings, cancel)


def fails(*args: Any, **settings: Any) -> Any:
    raise RuntimeError(LOST)


class Contract:
    def test_every_move_is_answered_in_a_picture_and_in_words(self, explorer: Explorer, case: Case) -> None:
        before, seen = counts(explorer), {explorer.in_words}
        states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
        for move in case.moves:
            assert_answers(explorer, **move)
            picture(explorer)
            assert counts(explorer) == before
            assert words(explorer).strip()
            assert not re.search(r"\b(None|nan|inf)\b", words(explorer))
            assert re.match(r'<div role="status" aria-live="polite"', explorer.status.value)  # read aloud
            seen.add(explorer.in_words)
            bundle, _ = explorer._repr_mimebundle_()
            assert bundle["text/plain"] == explorer.title  # a stored notebook does not change
            assert "application/vnd.jupyter.widget-view+json" in bundle
            assert not any(kind.startswith("image/") for kind in bundle)
            table = explorer.table()
            assert list(table.columns) == ["curve", "x", "value", "low", "high"]
            assert len(table) and np.isfinite(table[["x", "value", "low", "high"]].to_numpy(float)).all()
            assert (table["low"] - 1e-9 <= table["value"]).all() and (table["value"] <= table["high"] + 1e-9).all()
        assert len(seen) == 1 + len(case.moves)
        explorer.wait_curves(PATIENCE)  # a fit in the background borrows torch's generator for a step
        assert torch.equal(states[0], torch.get_rng_state()), "the global generators are not moved"
        assert states[1:] == (random.getstate(), str(np.random.get_state()))
        picture(explorer)
        assert "complete" in explorer.curves_note.value or not case.grows

    def test_only_what_changed_is_sent(self, explorer: Explorer, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[Any] = []
        for figure in explorer.figures.values():
            monkeypatch.setattr(figure, "_send_update_msg", lambda **message: sent.append(message))
        for move in case.moves:
            settle(explorer, **move)
            explorer.wait_curves(PATIENCE)
        assert sent
        json.dumps(sent, default=np.ndarray.tolist)  # it refuses plotly's mark for undefined
        sent.clear()
        explorer._move()
        explorer.wait_curves(PATIENCE)
        assert sent == []

    def test_a_burst_of_moves_ends_at_the_last(self, explorer: Explorer, case: Case) -> None:
        for move in case.moves * 3:
            for name, value in move.items():
                getattr(explorer, name).value = value
        assert_answers(explorer)

    def test_a_move_in_the_middle_is_answered_by_the_newest(self, explorer: Explorer, case: Case, hold: Hold) -> None:
        said: list[str] = []
        explorer.status.observe(lambda change: said.append(change["new"]), "value")
        explorer.set(**case.moves[0])
        assert hold.began.wait(PATIENCE)
        explorer.set(**case.moves[1])
        assert_answers(explorer)
        explorer.status.unobserve_all("value")
        assert not any("Stopped" in line for line in said)  # nobody pressed stop

    def test_reset_goes_back_to_the_beginning(self, explorer: Explorer, case: Case) -> None:
        start, said = explorer._values(), explorer.in_words
        settle(explorer, **case.moves[1])
        assert explorer._values() != start
        (explorer.reset_button.click if hasattr(explorer, "reset_button") else explorer.reset)()
        assert_answers(explorer)
        assert explorer._values() == start
        assert without_times(explorer.in_words) == without_times(said)

    def test_undo_and_redo_go_back_and_forth(self, explorer: Explorer, case: Case) -> None:
        states = [explorer._state()]
        for move in case.moves:
            explorer.set(**move)
            states.append(explorer._state())
        explorer.reset()
        for state in reversed(states):  # a reset can be taken back, too
            explorer.undo_button.click()
            assert explorer._state() == state
        assert_answers(explorer)
        assert explorer.undo_button.disabled == (not explorer._history._past)
        for state in states[1:]:
            explorer.redo_button.click()
            assert explorer._state() == state
        for _ in case.moves:
            explorer.undo()
        explorer.set(**case.moves[1])  # another way: what was taken back is gone
        assert explorer.redo_button.disabled

    def test_a_block_leaves_the_explorer_as_it_was(self, explorer: Explorer, case: Case) -> None:
        settle(explorer, **case.moves[0])
        state, said = explorer._state(), explorer.in_words
        ends = explorer._history.ends
        with explorer.at(**case.moves[1]) as same:
            assert same is explorer and explorer._latest().settings == explorer.settings
            for name, value in case.moves[1].items():
                assert getattr(explorer, name).value == value
            explorer.reset()
        assert explorer._state() == state and explorer._history.ends == ends
        assert without_times(words(explorer)) == without_times(said)
        with pytest.raises(ZeroDivisionError), explorer.at(**case.moves[1]):
            _ = 1 / 0
        assert explorer._state() == state

    def test_a_state_is_kept_compared_and_swapped(self, explorer: Explorer, case: Case) -> None:
        start, said = explorer._state(), explorer.in_words
        explorer.keep_button.click()
        explorer.wait(PATIENCE)
        assert words(explorer).startswith("This is A. ") and not explorer.swap_button.disabled
        settle(explorer, **case.moves[0])
        there = explorer._state()
        compared = words(explorer)
        assert compared.startswith(("Against A (", "A (")) and compared == explorer.in_words
        for name, value in case.moves[0].items():
            row = explorer._table[name]
            assert value == start[name] or f"{row.title} {row.said(start[name])}" in compared
        explorer.swap_button.click()
        assert_answers(explorer)
        assert explorer._state() == start and explorer._kept is not None and explorer._kept.state == there
        explorer.keep_button.click()
        explorer.wait(PATIENCE)
        assert without_times(words(explorer)) == without_times(said) and explorer.swap_button.disabled

    def test_a_view_shows_parts_of_the_same_explorer(self, explorer: Explorer, case: Case) -> None:
        name, value = next(iter(case.moves[0].items()))
        shown = len(_instances)
        view, other = explorer.view(name), list(explorer.figures)[-1]
        explorer.view(name, "undo", figures=[other])
        inner = list(parts(view))
        main = next(iter(explorer.figures.values()))
        assert getattr(explorer, name) in inner and explorer.status in inner and main in inner
        bundle, _ = view._repr_mimebundle_()
        assert bundle["text/plain"] == f"{explorer.title}, {name}"
        explorer._busy(True)
        assert "kit-busy" in view._dom_classes
        explorer._busy(False)
        for wrong, said in [(("rato",), {}), ((name,), {"figures": ["rato"]})]:
            with pytest.raises(ValueError, match=r"of the view must be one of .* got 'rato'"):
                explorer.view(*wrong, **said)
        for each in explorer._views:
            each.close()
        assert len(_instances) == shown
        assert_answers(explorer, **{name: value})

    def test_the_tools_copy_save_and_explain(
        self, explorer: Explorer, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[dict[str, str]] = []
        monkeypatch.setattr(explorer.desk, "send", sent.append)
        for button in (explorer.copy_code_button, explorer.save_picture_button, explorer.save_data_button):
            button.click()
            explorer.wait(PATIENCE)
        code, picture_file, data = sent
        assert code == {"kind": "copy", "text": explorer.code()}
        assert picture_file["kind"] == "picture" and picture_file["file"].endswith(".png")
        assert pd.read_csv(io.StringIO(data["text"])).shape == explorer.table().shape
        explorer.explain_button.click()
        assert explorer.help.layout.display is None
        for row in explorer._table.values():
            assert html.escape(row.help) in explorer.help.value
        explorer.explain_button.click()
        assert explorer.help.layout.display == "none"
        settle(explorer)
        lines = str(explorer).splitlines()
        assert lines[0] == explorer.title and lines[-1] == words(explorer)
        for name, row in explorer._table.items():
            assert name not in explorer._starts or (f"{row.title} " in lines[1]) == row.moves

    def test_a_field_says_what_it_does_not_take(self, explorer: Explorer) -> None:
        fields = {name: each for name, each in vars(explorer).items() if isinstance(each, NumberField)}
        for name, each in fields.items():
            before, said = each.value, explorer.in_words
            for typed in (2.7, -5, each.max + 1):
                each.set_state({"value": typed})
                explorer.wait(PATIENCE)
                assert each.value == before
                refused, rest = words(explorer).split(" The picture shows the last answer: ")
                assert re.match(rf"{name} must (be a whole number|lie in).*; got {typed}", refused)
                assert without_times(rest) == without_times(said)
            each.set_state({"value": before + 1})
            assert_answers(explorer)
            assert each.value == before + 1

    def test_code_makes_the_same_explorer_again(
        self, explorer: Explorer, case: Case, digits: Dataset, trained: ConvNet
    ) -> None:
        for move in case.moves:
            settle(explorer, **move)
        kind = type(explorer)
        with contextlib.closing(eval(explorer.code(), {kind.__name__: kind, **case.given(digits, trained)})) as rebuilt:
            assert rebuilt._values() == explorer._values()
            for each in (rebuilt, explorer):  # what is known from the curves is part of the words
                each.wait_curves(PATIENCE)
            assert without_times(rebuilt.in_words) == without_times(explorer.in_words)

    def test_every_control_and_button_explains_itself(self, explorer: Explorer) -> None:
        buttons = [each for each in parts(explorer) if isinstance(each, widgets.Button)]
        for each in [*(getattr(explorer, name) for name in explorer._starts), *buttons]:
            assert re.fullmatch(r"[A-Z].* .*\.", each.tooltip)

    @pytest.mark.parametrize("step", ["_compute", "_paint"])
    def test_an_error_is_said_and_raised_and_the_last_answer_stays(
        self, explorer: Explorer, case: Case, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        explorer.wait_curves(PATIENCE)
        before, said = picture(explorer), explorer.in_words
        with monkeypatch.context() as patch:
            patch.setattr(explorer, step, fails)
            explorer.set(**case.moves[0])
            with pytest.raises(RuntimeError, match="all is lost"):
                explorer.wait(PATIENCE)
            assert html.escape(LOST) in explorer.status.value and is_error(explorer)
            if step == "_paint":  # what is computed is kept all the same
                assert words(explorer).startswith(LOST) and explorer._latest().settings == explorer.settings
                explorer.stop()
            else:
                assert words(explorer) == f"{LOST} The picture shows the last answer: {said}"
                explorer.wait_curves(PATIENCE)
                assert is_error(explorer) and picture(explorer) == before  # still
            with contextlib.suppress(RuntimeError):
                explorer.wait_curves(PATIENCE)
            assert "kit-busy" not in explorer._dom_classes
        assert_answers(explorer, **case.moves[1])

    def test_wrong_names_and_values_are_refused_and_change_nothing(self, explorer: Explorer, case: Case) -> None:
        before = explorer._values()
        with pytest.raises(AttributeError, match=f"{type(explorer).__name__} has no 'rato'; its controls are "):
            explorer.rato = 1
        for name in before:
            with pytest.raises(AttributeError, match=f"{name} is a control: set {name}.value = 1 instead"):
                setattr(explorer, name, 1)
        with pytest.raises(AttributeError, match=f"{type(explorer).__name__} has no control 'rato'; it has "):
            explorer.set(**case.moves[0], rato=1)
        kinds = (widgets.widget_selection._Selection, NumberField)
        picky = next(name for name in before if isinstance(getattr(explorer, name), kinds))
        with pytest.raises(ValueError, match=f"^{picky} (must be|does not take)"):
            explorer.set(**{**case.moves[0], **case.moves[1], picky: "nonsense"})
        assert explorer._values() == before
        assert_answers(explorer)

    def test_a_value_between_two_stops_is_refused(self, explorer: Explorer, case: Case) -> None:
        if case.off_stop is None:
            pytest.skip("no slider over given numbers")
        name, wrong = case.off_stop
        before = getattr(explorer, name).value
        for put in (setattr, lambda control, _, value: explorer.set(**{name: value})):
            with pytest.raises(ValueError, match=rf"must be one of .* got {wrong}.*, the nearest are"):
                put(getattr(explorer, name), "value", wrong)
            assert getattr(explorer, name).value == before
        assert_answers(explorer)

    @pytest.mark.parametrize("when", ["at once", "computing", "answered"])
    def test_a_closed_explorer_lets_go_of_everything(
        self, case: Case, digits: Dataset, trained: ConvNet, own_board: Path, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        died, heard, began = list[Any](), list[Any](), Event()
        monkeypatch.setattr(threading, "excepthook", died.append)

        def endless(settings: Any, cancel: Event) -> Any:
            began.set()
            assert cancel.wait(PATIENCE)
            raise Cancelled("stopped.")

        shown, data, net = len(_instances), dataclasses.replace(digits), copy.deepcopy(trained)
        explorer, parted = case.make(data, net), list[Any]([data, net])
        del data, net
        vars(explorer).pop("_compute", None)  # the board's case has its own
        if when != "at once":
            explorer.wait(PATIENCE)
            parted.append(explorer._answered)
        if when == "computing":
            explorer._compute = endless  # type: ignore[method-assign]
            explorer.set(**case.moves[0])
            assert began.wait(PATIENCE)
        name, value = next(iter(case.moves[0].items()))
        control, worker = getattr(explorer, name), explorer._worker
        control.observe(heard.append, "value")
        assert len(_instances) > shown + 20
        refs = [weakref.ref(each) for each in (*parted, worker, *parts(explorer)) if each not in (explorer, control)]
        thread = worker._thread
        del parted, worker
        explorer.close()
        explorer.close()
        assert thread is not None and not thread.is_alive()
        assert len(_instances) == shown
        gc.collect()
        assert [ref() for ref in refs] == [None] * len(refs)
        control.value = value
        assert died == heard == []

    def test_a_closed_explorer_says_so_whatever_it_is_asked(self, fresh: Fresh, case: Case) -> None:
        explorer = fresh()
        waiting: list[str] = []

        def wait() -> None:
            try:
                explorer.wait(PATIENCE)
            except RuntimeError as error:
                waiting.append(str(error))

        explorer.wait(PATIENCE)
        explorer._compute = lambda settings, cancel: time.sleep(0.2)
        explorer._move()
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        explorer.close()
        thread.join(PATIENCE)
        assert waiting == [repr(explorer)] == [CLOSED]
        asked = ["wait", "wait_curves", "reset", "stop", "code", "table", *["pin", "read_board"] * case.pins]
        public = [name for name in vars(type(explorer)) if not name.startswith("_")]
        names = [name for name in public if callable(getattr(type(explorer), name)) and name != "play"]
        for ask in [lambda: explorer.set(**case.moves[0]), *(getattr(explorer, name) for name in (*asked, *names))]:
            with pytest.raises(RuntimeError, match=f"^{re.escape(CLOSED)}$"):
                ask()
        for name in ("in_words", "rato", *case.moves[0], *(set(public) - set(names) - {"play"})):
            with pytest.raises(RuntimeError, match=f"^{re.escape(CLOSED)}$"):
                getattr(explorer, name)

    def test_a_stop_leaves_the_last_answer_and_nothing_goes_on(
        self, explorer: Explorer, case: Case, hold: Hold
    ) -> None:
        explorer.wait_curves(PATIENCE)
        before, said = picture(explorer), explorer.in_words
        explorer.set(**case.moves[0])
        assert hold.began.wait(PATIENCE)
        for wait in (explorer.wait, explorer.wait_curves):
            with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
                wait(0.05)
        assert "kit-busy" in explorer._dom_classes and not explorer.stop_button.disabled
        explorer.stop_button.click()
        explorer.wait_curves(PATIENCE)
        assert words(explorer) == f"Stopped. Move a control to go on. The picture shows the last answer: {said}"
        assert not is_error(explorer)
        assert picture(explorer) == before
        assert "kit-busy" not in explorer._dom_classes and explorer.stop_button.disabled
        assert explorer.progress.value == 0
        time.sleep(0.05)
        assert hold.runs == 1
        assert_answers(explorer, **case.moves[1])

    def test_a_stop_between_answer_and_picture_keeps_both_together(
        self, explorer: Explorer, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computed = explorer._computed

        def stopped(settings: Any, cancel: Event) -> Any:
            answer = computed(settings, cancel)
            explorer.stop()
            return answer

        monkeypatch.setattr(explorer, "_computed", stopped)
        assert_answers(explorer, **dict(list(case.moves[0].items())[:1]))  # of two, the stop might forget the second

    def test_a_stop_ends_growing_curves_until_a_control_moves(self, fresh: Fresh, case: Case) -> None:
        if not case.grows:
            pytest.skip("nothing grows")
        explorer = fresh()
        grow, began, pieces = explorer._grow, Event(), list[int]()

        def slow(answer: Any, missing: Any, cancel: Event) -> None:
            pieces.append(len(missing))
            if len(pieces) == 2:
                began.set()
                assert cancel.wait(PATIENCE)
                raise Cancelled("stopped.")
            grow(answer, missing, cancel)

        explorer._grow = slow
        assert began.wait(PATIENCE)
        explorer.stop_button.click()
        explorer.wait_curves(PATIENCE)
        assert "stopped" in explorer.curves_note.value
        assert len(pieces) == 2
        assert_answers(explorer)
        explorer.set(**case.moves[0])
        explorer.wait_curves(PATIENCE)
        assert len(pieces) > 2
        assert "complete" in explorer.curves_note.value


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def damaged(path: Path) -> None:
    path.write_bytes(b"not a board at all" * 50)


def enter(explorer: Any, typed: str) -> None:
    """As the page says that Enter is pressed in the explorer's text field."""
    explorer._enter._handle_custom_msg({"entered": typed}, [])


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def follows(explorer: PinningExplorer, names: list[str]) -> bool:
    """Whether it has taken up these pins, and painted them."""
    return explorer._pin_names == names and not explorer._worker.asked


class Pinning:
    def test_what_is_said_of_a_pin_keeps_the_comparison_with_a(self, explorer: PinningExplorer, case: Case) -> None:
        explorer.keep()
        settle(explorer, **case.moves[0])
        explorer.wait_curves(PATIENCE)  # what the words say is then complete
        explorer.pin("compared")
        explorer.wait(PATIENCE)
        assert words(explorer).startswith("Pinned ") and words(explorer).endswith(explorer.in_words)
        assert "A (" in explorer.in_words
        explorer.keep()
        explorer.wait(PATIENCE)

    def test_the_model_is_saved_and_loaded_as_the_words_say(
        self,
        explorer: PinningExplorer,
        case: Case,
        trained: ConvNet,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for move in case.moves:
            settle(explorer, **move)
            explorer.save_model_button.click()
            explorer.wait(PATIENCE)
            load = re.findall(r"<code>(.*?)</code>", explorer.status.value)[0]
            given = case.given(explorer.dataset, trained).get("model")  # the reader has it
            names: dict[str, Any] = {"models": models, "prune": prune, "files": files, "compress": compress}
            names["model"] = copy.deepcopy(given)
            exec(html.unescape(load), names)
            loaded, state = names.get("smaller", names["model"]).state_dict(), explorer.model.state_dict()
            assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
        assert len(list(tmp_path.iterdir())) == len(case.moves)  # none is overwritten

    def test_the_button_pins_under_the_name_that_is_typed(self, explorer: PinningExplorer, case: Case) -> None:
        settle(explorer, **case.moves[0])
        explorer.pin_name.value = "  my <b>best</b>  "
        explorer.pin_button.click()
        explorer.wait(PATIENCE)
        row, profile = board.frame(explorer.dataset.key).iloc[0], explorer._pin(explorer._answered).profile
        assert (row["name"], row["technique"]) == ("my <b>best</b>", explorer._technique)
        assert (row["accuracy"], row["n"]) == (profile.accuracy.value, profile.accuracy.n)
        assert all(row[size] == getattr(profile, size) for size in ("nonzeros", "file_bytes", "flops"))
        assert words(explorer).startswith("Pinned ")
        assert "my &lt;b&gt;best&lt;/b&gt;" in explorer.status.value
        assert "my <b>best</b>" not in picture(explorer)  # plotly reads tags

    def test_a_pin_asked_right_after_a_move_pins_what_was_moved_to(self, explorer: PinningExplorer, case: Case) -> None:
        for move in case.moves:
            explorer.set(**move)
            explorer.pin()
        explorer.wait(PATIENCE)
        assert_whole(explorer)
        pinned = board.frame()
        assert pinned["name"].nunique() == len(case.moves)  # other settings make another name
        explorer.reset()
        for move, settings in zip(case.moves, pinned["settings"], strict=True):
            explorer.set(**move).wait(PATIENCE)
            assert settings == json.loads(json.dumps(explorer._pin(explorer._answered).settings))

    def test_a_name_is_taken_once_or_replaced(self, explorer: PinningExplorer, case: Case) -> None:
        explorer.wait_curves(PATIENCE)
        explorer.pin("mine")
        explorer.wait(PATIENCE)
        explorer.pin("mine")
        with pytest.raises(ValueError, match=r"name 'mine' is taken: .* for example 'mine \(2\)'"):
            explorer.wait(PATIENCE)
        assert is_error(explorer) and "name 'mine' is taken" in words(explorer)
        assert words(explorer).endswith(f"The picture shows the last answer: {explorer.in_words}")
        settle(explorer, **case.moves[0])
        explorer.pin("mine", replace=True)
        explorer.wait(PATIENCE)
        (settings,) = board.frame()["settings"]
        assert settings == json.loads(json.dumps(explorer._pin(explorer._answered).settings))

    def test_enter_pins_what_is_typed_and_leaving_the_field_does_not(self, explorer: PinningExplorer) -> None:
        explorer.pin_name.value = "half ty"  # all that has come so far
        explorer.wait(PATIENCE)
        assert board.frame().empty
        assert explorer._enter.field in explorer.pin_name._dom_classes
        enter(explorer, " typed ")
        explorer.wait(PATIENCE)
        assert list(board.frame()["name"]) == ["typed"] and words(explorer).startswith("Pinned ")

    def test_a_taken_name_is_replaced_when_a_hand_presses_again(self, explorer: PinningExplorer, case: Case) -> None:
        def press(name: str) -> None:
            explorer.wait_curves(PATIENCE)
            explorer.pin_name.value = name
            explorer.pin_button.click()
            explorer.wait(PATIENCE)

        press("mine")
        settle(explorer, **case.moves[0])
        for name in ("mine", "other", "mine"):  # after another name the next press is a first one again
            if name == "other":
                press(name)
                continue
            with pytest.raises(ValueError, match="^The name 'mine' is taken: press again to replace that pin, or type"):
                press(name)
            assert is_error(explorer) and words(explorer).endswith(explorer.in_words)  # the numbers stay
        before = board.frame().set_index("name")["settings"]
        press("mine")
        after = board.frame().set_index("name")["settings"]
        assert after["mine"] == json.loads(json.dumps(explorer._pin(explorer._answered).settings)) != before["mine"]
        assert words(explorer).startswith("Pinned ")
        profile = explorer._pin(explorer._answered).profile
        board.pin("theirs", profile, dataset="other data", technique="pruning")
        for _ in range(2):
            with pytest.raises(
                ValueError, match="^The name 'theirs' is taken by a pin of another data set: type anoth"
            ):
                press("theirs")
        assert list(board.frame("other data")["name"]) == ["theirs"]

    def test_pins_are_taken_back_newest_first(self, fresh: Fresh, case: Case) -> None:
        explorer = fresh()
        assert explorer.unpin_button.disabled
        for name in ("a", "b"):
            explorer.pin(name)
        explorer.wait(PATIENCE)
        (first, second), kept = board.frame()["settings"], board.frame()
        settle(explorer, **case.moves[0])
        explorer.pin("b", replace=True)
        explorer.wait_curves(PATIENCE)
        assert not explorer.unpin_button.disabled and list(board.frame()["settings"]) != [first, second]
        explorer.unpin_button.click()
        explorer.wait(PATIENCE)
        assert board.frame().equals(kept)
        assert words(explorer) == f"Took b off the board and put back the one that it replaced. {explorer.in_words}"
        explorer.unpin()
        explorer.wait(PATIENCE)
        assert list(board.frame()["name"]) == explorer._pin_names == ["a"]
        assert words(explorer) == f"Took b off the board. {explorer.in_words}"
        board.rename("a", "by another hand")
        explorer.unpin()
        with pytest.raises(ValueError, match="name must be a pin of .*; 'a' is removed or renamed already"):
            explorer.wait(PATIENCE)
        assert explorer.unpin_button.disabled and list(board.frame()["name"]) == ["by another hand"]
        explorer.unpin()
        with pytest.raises(RuntimeError, match="nothing to take back"):
            explorer.wait(PATIENCE)

    def test_the_board_is_followed_and_nothing_is_disturbed(
        self, explorer: PinningExplorer, case: Case, hold: Hold
    ) -> None:
        explorer.wait_curves(PATIENCE)
        profile = explorer._pin(explorer._answered).profile
        said, seen = explorer.status.value, list[str]()
        explorer.status.observe(lambda change: seen.append(change["new"]), "value")
        pinned = functools.partial(board.pin, profile=profile, dataset=explorer.dataset.key, technique="dense")
        for change, names in (
            (lambda: pinned("theirs"), ["theirs"]),
            (lambda: board.rename("theirs", "renamed"), ["renamed"]),
            (lambda: board.clear("renamed"), []),
        ):
            change()
            until(functools.partial(follows, explorer, names))
            for name, panel in explorer._panels(explorer._answered).items():
                assert explorer.figures[name]._panel == panel()
        assert hold.runs == 0 and seen == [] and explorer.status.value == said
        explorer.set(**case.moves[0])
        assert hold.began.wait(PATIENCE)
        pinned("meanwhile")
        time.sleep(0.05)
        assert "kit-busy" in explorer._dom_classes and seen == []
        hold.goes_on.set()
        explorer.wait(PATIENCE)
        until(functools.partial(follows, explorer, ["meanwhile"]))
        assert hold.runs == 1 and words(explorer) == explorer.in_words
        explorer.status.unobserve_all("value")

    @pytest.mark.parametrize(
        ("spoil", "sentence"), [(newer, "was written by a newer kit"), (damaged, "is damaged or not a board")]
    )
    def test_a_board_that_cannot_be_used_is_left_alone_and_stops_nothing(
        self, explorer: PinningExplorer, case: Case, own_board: Path, spoil: Callable[[Path], None], sentence: str
    ) -> None:
        explorer.pin("before")
        explorer.wait(PATIENCE)
        spoil(own_board)
        content = own_board.read_bytes()
        explorer.pin("after")
        with pytest.raises(board.BoardError, match=sentence):
            explorer.wait(PATIENCE)
        assert sentence in words(explorer) and "KIT_BOARD" in words(explorer)  # the way out
        assert_answers(explorer, **case.moves[0])
        assert own_board.read_bytes() == content

    def test_a_locked_board_is_said_and_free_again_later(
        self, explorer: PinningExplorer, case: Case, own_board: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(board, "_STORE", dataclasses.replace(board._STORE, busy_seconds=0.1))
        explorer.pin("before")
        explorer.wait(PATIENCE)
        with contextlib.closing(sqlite3.connect(own_board, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            explorer.pin("during")
            with pytest.raises(board.BoardError, match="was locked by another program"):
                explorer.wait(PATIENCE)
            assert "was locked by another program" in words(explorer)
            assert_answers(explorer, **case.moves[0])
        explorer.pin("after")
        explorer.wait(PATIENCE)
        assert list(board.frame()["name"]) == ["before", "after"]

    def test_an_explorer_opens_without_its_board_and_says_so(self, fresh: Fresh, case: Case, own_board: Path) -> None:
        damaged(own_board)
        explorer = fresh()
        with pytest.raises(board.BoardError, match="is damaged"):
            explorer.wait(PATIENCE)
        settle(explorer, **case.moves[0])
        assert "is damaged" in words(explorer)  # still
        assert explorer._latest().settings == explorer.settings

    def test_nothing_is_pinned_before_the_first_answer(
        self, explorer: PinningExplorer, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(self: Any, settings: Any, cancel: Event) -> Any:
            assert cancel.wait(PATIENCE)
            raise Cancelled("stopped.")

        monkeypatch.setattr(type(explorer), "_compute", never)
        empty = fresh()
        empty.stop()
        empty.wait(PATIENCE)
        assert words(empty) == "Stopped. Move a control to go on. There is no answer yet."
        empty.pin()
        with pytest.raises(RuntimeError, match="nothing to pin yet: wait for the first answer"):
            empty.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="no answer yet"):
            _ = empty.in_words
        assert board.frame().empty
