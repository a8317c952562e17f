"""What a worker does, in a process of its own."""

from __future__ import annotations

import os
import time
import traceback
from threading import Event
from typing import Any

from kit.search.calling import Call, Outcome
from kit.search.pareto import Goals
from kit.search.space import Config


class Worker:
    """Holds the objective, and calls it; Ray makes an actor of it, whose `stop` may be called meanwhile.

    Args:
        batched: whether the objective takes a list.
        goals: of the study.
        cores: threads that it may use.
    """

    def __init__(self, batched: bool, goals: Goals | None, cores: int) -> None:
        os.environ["KIT_CORES"] = os.environ["OMP_NUM_THREADS"] = str(cores)  # before what reads it is loaded
        self._batched, self._goals, self._cancel = batched, goals, Event()

    def take(self, objective: Any) -> None:
        """The objective, once."""
        self._call = Call(objective, None, self._cancel, batched=self._batched, goals=self._goals)

    def work(self, configs: list[Config], epochs: int | None) -> tuple[float, list[Outcome], str]:
        """Call it: the seconds, the outcomes, and where it raised, the traceback."""
        began = time.perf_counter()
        outcomes = self._call(configs, epochs)
        raised = self._call.raised
        error = "".join(traceback.format_exception(raised)) if raised is not None else ""
        return time.perf_counter() - began, outcomes, error

    def stop(self) -> None:
        """End what is under way, where the objective takes `cancel`."""
        self._cancel.set()
