"""How much an explorer does in the time that it is given: the fullest plan whose work fits, at a speed measured now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kit import checks, cohort, training
from kit.data import Dataset
from kit.search import Space
from kit.search import landscape as landscapes
from kit.search.landscape import Landscape

P = TypeVar("P")

SURE = 1e10  # floating-point operations a second that are taken for granted: below, nothing hangs on a clock


def check_seconds(seconds: float | None) -> None:
    """Refuse, as the time that an explorer is given, what is no number above 0, nor None: a TypeError or ValueError."""
    if seconds is not None:
        checks.number("seconds (None is all the time that it takes)", seconds, above=0)


def sure(work: float, seconds: float | None) -> bool:
    """Whether so many floating-point operations are done in time on any machine: then nothing is measured or sized."""
    return seconds is None or work <= SURE * seconds


def fullest(plans: Sequence[P], takes: Callable[[P], float], seconds: float | None) -> P:
    """The first plan, of those from the fullest on, that takes at most `seconds`; where none does, the last one."""
    return next((plan for plan in plans if seconds is None or takes(plan) <= seconds), plans[-1])


def coarse_first(stops: Sequence[float]) -> tuple[float, ...]:
    """At most 64 stops of a curve: each halves the distance between those before, so it has its shape early."""
    return tuple(sorted(stops, key=lambda stop: -((stops.index(stop) or 64) & -(stops.index(stop) or 64))))


def sentence(seconds: float | None, parts: Sequence[str], each: str = "") -> str:
    """How an explorer was sized, and how to ask for more; empty where it was not. `each`: of what the seconds are."""
    return f"Sized for {seconds:g} s{each} here: {', '.join(parts)}; seconds=None takes all." if parts else ""


def rungs(names: Sequence[str], *values: Sequence[float]) -> tuple[dict[str, float], ...]:
    """Plans as rows of values, each with the names."""
    return tuple(dict(zip(names, row, strict=True)) for row in values)


def landscape(
    dataset: Dataset,
    space: Space,
    asked: Mapping[str, int | None],
    plans: Sequence[Mapping[str, float]],
    seconds: float | None,
    always: Sequence[str],
) -> tuple[Landscape, dict[str, Any], str]:
    """The fullest landscape that is trained in time.

    Args:
        dataset: to train on.
        space: of the landscape.
        asked: its points, epochs, seeds and samples, None where that is left open.
        plans: numbers for what is left open, from the fullest on.
        seconds: to train it; None is as many as it takes.
        always: names of the arguments that are written down in any case.

    Returns:
        The landscape, of which nothing is trained; the arguments that make it again; in words, how it was sized.
    """
    everything = len(dataset.train)
    if asked["samples"] is not None:
        checks.whole("samples", asked["samples"], 1)
    filled = [{name: plan[name] if value is None else value for name, value in asked.items()} for plan in plans]
    filled = [{**each, "samples": 0 if each["samples"] >= everything else each["samples"]} for each in filled]
    made = [landscapes.blank(space, **each) for each in filled]  # type: ignore[arg-type]  # whole, or refused

    def work(each: Landscape) -> float:
        return each.missing * each.work(dataset)

    pairs = list(zip(filled, made, strict=True))
    sizes, chosen = pairs[0]
    if not sure(work(chosen), seconds):
        speed = cohort.speed(cohort.template(dataset, chosen.widest), dataset.train)
        sizes, chosen = fullest(pairs, lambda pair: work(pair[1]) / speed, seconds)
    if sizes == filled[0]:
        given = {name: value for name, value in asked.items() if value is not None}
        return chosen, {name: value for name, value in {**sizes, **given}.items() if name in {*always, *given}}, ""
    cells = " x ".join(str(len(axis)) for axis in chosen.axes)
    parts = [f"{cells} cells", f"{chosen.seeds} networks each", f"{chosen.epochs} epochs"]
    if chosen.samples:
        parts.append(f"{chosen.samples:,} of {everything:,} training {dataset.noun}")
    return chosen, {**sizes, "samples": chosen.samples or everything}, sentence(seconds, parts)


class Networks(training.Callback):
    """Tells how many networks the present cohort is worth so far, at most ten times a second."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell, self._last = tell, 0.0

    def on_batch_end(self, progress: training.Progress) -> None:
        """Tell it."""
        assert isinstance(progress.model, cohort.Cohort)
        if time.monotonic() - self._last > 0.1:
            self._last = time.monotonic()
            self._tell(progress.share * len(progress.model))
