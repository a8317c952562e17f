"""The smallest explorer: one slider, one curve that grows. It is all that an explorer has to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from kit.explorers.base import Explorer
from kit.explorers.controls import Control
from kit.measure import Estimate
from kit.plots import curves, style
from kit.plots.curves import Curve, Panel

TOSSES = tuple(range(10, 210, 10))


@dataclass(frozen=True)
class Answer:
    settings: int
    heads: Estimate


class ToyExplorer(Explorer[int, Answer]):
    """How sure is one after so many tosses of a coin that falls on heads six times in ten?"""

    _first = _curves = ("heads",)

    def __init__(self, start: int = 50) -> None:
        self._known: dict[int, Estimate] = {}
        tosses = Control("tosses", "stops", start, "Tosses of the coin.", TOSSES)
        super().__init__("ToyExplorer", [tosses], ((), {"start": start}))
        self._move()

    @property
    def settings(self) -> int:
        return int(self.tosses.value)

    def _compute(self, settings: int, cancel: Event) -> Answer:
        return Answer(settings, self._known.setdefault(settings, Estimate.from_counts(settings * 6 // 10, settings)))

    def _missing(self, answer: Answer) -> tuple[Sequence[int], int]:
        return [tosses for tosses in TOSSES if tosses not in self._known], len(TOSSES)

    def _grow(self, answer: Answer, missing: Sequence[int], cancel: Event) -> None:
        self._compute(missing[0], cancel)

    def _panels(self, answer: Answer | None) -> Mapping[str, Callable[[], Panel]]:
        return {"heads": lambda: self._heads(answer)}

    def _heads(self, answer: Answer | None) -> Panel:
        known = Curve.of("heads", [(tosses, self._known[tosses]) for tosses in TOSSES if tosses in self._known])
        here = Curve.of("here", [] if answer is None else [(answer.settings, answer.heads)])
        axes = curves.count_axis(TOSSES[-1], "tosses"), curves.accuracy_axis(title="heads, %")
        traces = [curves.line(known, style.LOOKS["random"]), curves.points(here, style.LOOKS["here"])]
        return Panel(traces, style.layout("How many heads?", 300, *axes), (known, here))

    def _words(self, answer: Answer) -> str:
        return f"Heads in <b>{answer.heads.percent}</b> of {answer.settings} tosses, 95 % interval."
