"""A seeded hand does to each explorer whatever a reader can do, in any order: nothing breaks, and the end is right.

`HANDS=10000` makes that many moves; `HANDS_SEED=7` replays the run of a seed, up to the timing of its threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import ipywidgets as widgets
import pytest

from kit import models
from kit.data import Dataset
from kit.explorers import IntervalExplorer, SensitivityExplorer, base
from kit.explorers.base import Explorer
from kit.explorers.controls import StopSlider
from kit.explorers.pinning import PinningExplorer
from tests.explorer_contract import LOST, parts, picture, without_times
from tests.hands import PATIENCE
from tests.hands_cases import CASES, HandCase

MOVES = int(os.environ.get("HANDS", "2000"))
SEED = int(os.environ.get("HANDS_SEED", "0"))
CHECKS = 3  # comparisons with a fresh explorer on the way, and one at the end

# What is said to a reader who asks for something that cannot be had now.
REFUSALS = re.compile(
    r"no answer (yet|within)|nothing to pin yet|is taken: |is tried already|nothing to take back|nothing fits into"
    rf"|nothing is left to propose|no trial of \w+ is done|name must be a pin of|new must be a name|{re.escape(LOST)}"
)


class Hand:
    """Moves an explorer by dice, and notes what went wrong."""

    def __init__(self, explorer: Explorer, seed: int) -> None:
        self.explorer, self.dice = explorer, random.Random(seed)
        self.last: deque[str] = deque(maxlen=20)  # moves
        self.wrong: list[str] = []
        self.fail_in, self.others = 0, list[threading.Thread]()
        self.deeds = self._deeds()
        compute, say = explorer._compute, explorer._worker._on_error

        def sometimes(settings: Any, cancel: Event) -> Any:
            if self.fail_in:
                self.fail_in -= 1
                if not self.fail_in:
                    raise RuntimeError(LOST)
            return compute(settings, cancel)

        def note(error: Exception) -> None:
            self._note(error)
            say(error)

        explorer._compute = sometimes  # type: ignore[method-assign]
        explorer._worker._on_error = note

    def move(self) -> None:
        (deed,) = self.dice.choices([deed for deed, _ in self.deeds], [weight for _, weight in self.deeds])
        try:
            deed()
        except Exception as error:
            self._note(error)
        if (luck := self.dice.random()) < 0.1:
            time.sleep(0.04 if luck < 0.01 else 0.002)  # the worker comes to something; the longer, to growing curves

    def rest(self) -> None:
        """Let everything come to its end."""
        for thread in self.others:
            thread.join(PATIENCE)
        self.fail_in = 0
        with contextlib.suppress(Exception):  # noted
            self.explorer.wait(PATIENCE)

    def _note(self, error: BaseException) -> None:
        if not isinstance(error, TimeoutError) and not REFUSALS.search(str(error)):
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _say(self, code: str) -> None:
        self.last.append(code)

    # -- what a hand can do --------------------------------------------------------------------------------------------

    def _deeds(self) -> list[tuple[Callable[[], None], float]]:
        explorer = self.explorer
        buttons = [each for each in parts(explorer) if isinstance(each, widgets.Button)]
        asks = ["code", "table", "in_words", "settings"]
        found: list[tuple[Callable[[], None], float]] = [
            (self._turn, 50),
            (self._set, 10),
            (self._turn_elsewhere, 3),
            (self._wrong, 3),
            *((lambda each=each: self._press(each), 12 / len(buttons)) for each in buttons),
            *((lambda name=name: self._click(name), 3) for name in list(explorer.figures)[:1]),
            *((lambda name=name: self._ask(name), 0.3) for name in asks),
            (lambda: self._wait("wait"), 4),
            (lambda: self._wait("wait_curves"), 1),
            (self._fail, 1),
        ]
        return found + [(self._pin, 1)] * isinstance(explorer, PinningExplorer)

    def _value(self, name: str) -> Any:
        """One that the control takes."""
        control, dice = getattr(self.explorer, name), self.dice
        if isinstance(control, StopSlider):
            return dice.choice(control.stops[:4] if name in LITTLE else control.stops)
        if isinstance(control, widgets.widget_selection._Selection):
            return dice.choice([value for _, value in control._options_full])
        if isinstance(control, widgets.Checkbox):
            return dice.random() < 0.5
        if isinstance(control, widgets.Text):
            return dice.choice(["", "  ", "a", "<b>b</b>", "c" * 90])
        return dice.choice([control.min, *range(control.min, control.min + 4), control.max])

    def _turn(self) -> None:
        name = self.dice.choice(list(self.explorer._starts))
        value = self._value(name)
        self._say(f"explorer.{name}.value = {value!r}")
        getattr(self.explorer, name).value = value

    def _set(self) -> None:
        names = self.dice.sample(list(self.explorer._starts), self.dice.randint(1, len(self.explorer._starts)))
        values = {name: self._value(name) for name in names}
        self._say(f"explorer.set(**{values!r})")
        self.explorer.set(**values)

    def _turn_elsewhere(self) -> None:
        name = self.dice.choice(list(self.explorer._starts))
        value = self._value(name)
        self._say(f"Thread(target=lambda: explorer.set({name}={value!r})).start()")

        def turn() -> None:
            try:
                self.explorer.set(**{name: value})
            except Exception as error:
                self._note(error)

        self.others = [*(each for each in self.others if each.is_alive()), threading.Thread(target=turn)]
        self.others[-1].start()

    def _wrong(self) -> None:
        """Several controls, one of them wrong: nothing moves."""
        for thread in self.others:
            thread.join(PATIENCE)
        names = list(self.explorer._starts)
        values = {name: self._value(name) for name in self.dice.sample(names, self.dice.randint(1, len(names)))}
        picky = [
            name for name in names if not isinstance(getattr(self.explorer, name), (widgets.Text, widgets.Checkbox))
        ]
        wrong = self.dice.choice(["rato", *picky])
        values[wrong] = self.dice.choice(["nonsense", None, [1], math.nan, -7, 2.7])
        self._say(f"explorer.set(**{values!r})")
        before = self.explorer._values()
        with pytest.raises((AttributeError, ValueError)):
            self.explorer.set(**values)
        if self.explorer._values() != before:
            self.wrong.append(f"a refused set moved {before} to {self.explorer._values()}")

    def _press(self, button: widgets.Button) -> None:
        self._say(f"press {button.description or button.tooltip!r}")
        button.click()

    def _click(self, name: str) -> None:
        """On a point of a figure, or beside all points."""
        figure = self.explorer.figures[name]
        # Not strict: the worker may be painting, and then a trace has its new x and still its old y.
        points = [(each.name, x, y) for each in figure.data for x, y in zip(each.x or (), each.y or (), strict=False)]
        curve, x, y = self.dice.choice([*points, ("", self.dice.uniform(1e-6, 20), 50)])
        self._say(f"click on {curve!r} at {x!r}, {y!r}")
        if x is not None:
            figure.clicked = [(figure.clicked or [0])[0] + 1, curve, x, y]

    def _ask(self, name: str) -> None:
        self._say(f"explorer.{name}")
        value = getattr(self.explorer, name)
        if callable(value):
            value()

    def _wait(self, name: str) -> None:
        timeout = self.dice.choice([0, 0.001, 0.02])
        self._say(f"explorer.{name}({timeout})")
        getattr(self.explorer, name)(timeout)

    def _pin(self) -> None:
        name, replace = self.dice.choice([None, "a", "b", ""]), self.dice.random() < 0.5
        self._say(f"explorer.pin({name!r}, replace={replace})")
        self.explorer.pin(name, replace=replace)

    def _fail(self) -> None:
        self.fail_in = self.dice.randint(1, 3)
        self._say(f"the computing fails, {self.fail_in} from now")


LITTLE = ("seeds", "epochs", "repeats")  # what makes an answer dear


def shown(explorer: Explorer, memory: tuple[str, ...]) -> dict[str, Any]:
    """Words and figures, without what depends on the clock or on where the hand has been."""
    answer = explorer._answered
    assert answer is not None and answer.settings == explorer.settings
    panels = {name: panel() for name, panel in explorer._panels(answer).items()}
    assert all(explorer.figures[name]._panel == panel for name, panel in panels.items())
    panels = {name: panel for name, panel in panels.items() if name not in memory}
    return {"words": without_times(explorer.in_words), **panels}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between figures, nor before curves grow: no page paints them here."""
    for kind in Explorer.__subclasses__() + PinningExplorer.__subclasses__():
        monkeypatch.setattr(kind, "_rest", 0.0)
    for name in ("DETAIL_SECONDS", "BETWEEN_SECONDS"):
        monkeypatch.setattr(base, name, 0.0)


@pytest.mark.usefixtures("own_board", "quick")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whatever_a_hand_does_nothing_breaks_and_the_end_is_right(
    case: HandCase, tiny: Dataset, teacher: models.MLP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # models are saved
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    explorer = case.make(tiny, teacher)
    hand = Hand(explorer, SEED)
    try:
        for number in range(1, MOVES + 1):
            hand.move()
            assert not hand.wrong and not died
            if number % (MOVES // (CHECKS + 1)) == 0:
                hand.rest()
                if explorer._kept is not None:  # the other one has no A
                    explorer.keep()
                explorer.set(**case.cheap).wait(PATIENCE)
                explorer.wait_curves(PATIENCE)
                kind = type(explorer)
                with contextlib.closing(
                    eval(explorer.code(), {kind.__name__: kind, **case.given(tiny, teacher)})
                ) as other:
                    other.wait_curves(PATIENCE)
                    assert shown(explorer, case.memory) == shown(other, case.memory)
        assert not explorer._quiet
        hand.move()  # closed in the midst of it
    except BaseException:
        print(f"HANDS_SEED={SEED}, {type(explorer).__name__}, move {number}; {hand.wrong}; the last moves were:")
        print("\n".join(hand.last))
        raise
    finally:
        explorer.close()
        hand.rest()
    assert not died


@pytest.mark.parametrize("kind", [SensitivityExplorer, IntervalExplorer])
def test_a_model_that_answers_no_numbers_is_shown_all_the_same(kind: Callable[..., Explorer], tiny: Dataset) -> None:
    net = models.MLP((6, 8, 3), seed=0)
    next(net.parameters()).data.fill_(math.nan)
    with contextlib.closing(kind(net, tiny)) as explorer:
        for name in explorer._starts:
            control = getattr(explorer, name)
            control.value = control.options[-1][-1] if isinstance(control, StopSlider) else control.value
        explorer.wait_curves(PATIENCE)
        assert len(explorer.table())
        assert not re.search(r"\b(None|nan|inf)\b", picture(explorer) + explorer.in_words)
