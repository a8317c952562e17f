"""One call of an objective: its results judged, its errors caught, its time limited."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from threading import Event
from typing import Any

import numpy as np

from kit.search.space import Config

Objective = Callable[..., Any]
Outcome = dict[str, Any]  # of the attributes of a trial, those that a call says


class Call:
    """Calls an objective, and says what the call makes of its trials; arguments as in `Study.run`."""

    def __init__(self, objective: Objective, limit: float | None, cancel: Event | None) -> None:
        self._objective, self._limit, self._cancel = objective, limit, cancel
        self._takes_cancel, self._takes_epochs = _takes(objective, "cancel"), _takes(objective, "epochs", or_any=True)

    def __call__(self, configs: list[Config], epochs: int | None, *, batched: bool) -> list[Outcome]:
        """One outcome for each configuration."""
        if epochs is not None and not self._takes_epochs:
            raise TypeError(f"objective must have a parameter epochs: its trials are trained for {epochs} epochs here.")
        stop = Event()
        keywords: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        if self._takes_cancel:
            keywords["cancel"] = stop
        answer: list[Any] = []

        def work() -> None:
            try:
                result = self._objective(configs if batched else configs[0], **keywords)
                listed = batched and isinstance(result, Iterable) and not isinstance(result, (Mapping, str))
                answer.append(list(result) if listed else result)
            except BaseException as error:
                answer.append(error)

        if self._limit is None and (self._cancel is None or not self._takes_cancel):
            work()
        else:
            thread = threading.Thread(target=work, name="objective", daemon=True)
            late = time.monotonic() + (self._limit or math.inf)
            try:
                thread.start()  # an interrupt may come before it returns
                while thread.is_alive() and time.monotonic() < late and not (self._cancel and self._cancel.is_set()):
                    thread.join(0.02 if self._cancel else min(0.5, max(0.0, late - time.monotonic())))
            finally:  # interrupted, too
                stop.set()
            if self._cancel and self._cancel.is_set():
                thread.join(self._limit)  # an objective that takes `cancel` stops soon
                return [{"status": "lost"} for _ in configs]
            if thread.is_alive():
                reason = f"took longer than its limit of {self._limit:g} seconds"
                return [{"status": "timed out", "error": reason} for _ in configs]
        result = answer[0]
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result  # KeyboardInterrupt, SystemExit: meant for the program, not for one trial
        if not batched or isinstance(result, Exception):
            return [judged(result) for _ in configs]
        if not isinstance(result, list) or len(result) != len(configs):
            return [judged(TypeError(f"gave {result!r} for {len(configs)} configurations")) for _ in configs]
        return [judged(each) for each in result]


def judged(result: Any) -> Outcome:
    """What a result, or an exception in its place, says of its trial."""
    if isinstance(result, Exception):
        return {"status": "failed", "error": f"{type(result).__name__}: {result}"}
    try:
        values = list(result) if np.ndim(result) else [result]
        values = [value.item() if hasattr(value, "item") else value for value in values]
    except (ValueError, RuntimeError):  # lists of unequal lengths; tensors of several numbers
        values = []
    if not values or not all(isinstance(value, Real) for value in values):
        return {"status": "failed", "error": f"gave {result!r}, where a number is needed"}
    try:
        scores = tuple(float(value) for value in values)
        value = math.fsum(scores) / len(scores)
    except (OverflowError, ValueError):  # of the sum; infinities of both signs
        value = math.inf
    if not math.isfinite(value):
        return {"status": "failed", "error": f"gave {result!r}, where a finite number is needed"}
    return {"status": "done", "value": value, "scores": scores}


def _takes(objective: Objective, name: str, *, or_any: bool = False) -> bool:
    """Whether a callable has a parameter of that name; with `or_any`, also where it takes any keyword."""
    try:
        parameters = inspect.signature(objective).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return or_any
    return name in parameters or (or_any and any(each.kind is each.VAR_KEYWORD for each in parameters.values()))
