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

from kit.search.pareto import Goals
from kit.search.space import Config

Objective = Callable[..., Any]
Outcome = dict[str, Any]  # of the attributes of a trial, those that a call says


class Call:
    """Calls an objective, and says what the call makes of its trials; arguments as in `Study.run`.

    Attributes:
        raised: what the latest call raised; None where it came to its end, or was left behind.
    """

    raised: Exception | None = None

    def __init__(
        self,
        objective: Objective,
        limit: float | None,
        cancel: Event | None,
        *,
        batched: bool,
        goals: Goals | None = None,
    ) -> None:
        self._objective, self._limit, self._cancel, self._batched = objective, limit, cancel, batched
        self._goals = goals
        self._takes_cancel, self._takes_epochs = takes(objective, "cancel"), takes(objective, "epochs", or_any=True)
        names = [name for name in ("epochs", "cancel") if takes(objective, name)]  # at most
        _check_call(objective, dict.fromkeys(names), batched)

    def __call__(self, configs: list[Config], epochs: int | None) -> list[Outcome]:
        """One outcome for each configuration."""
        if epochs is not None and not self._takes_epochs:
            raise TypeError(f"objective must have a parameter epochs: its trials are trained for {epochs} epochs here.")
        self.raised, stop = None, Event()
        keywords: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        if self._takes_cancel:
            keywords["cancel"] = stop
        _check_call(self._objective, keywords, self._batched)
        answer: list[Any] = []

        def work() -> None:
            try:
                result = self._objective(configs if self._batched else configs[0], **keywords)
                listed = self._batched and isinstance(result, Iterable) and not isinstance(result, (Mapping, str))
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
        self.raised = result if isinstance(result, Exception) else None
        if not self._batched or isinstance(result, Exception):
            return [judged(result, self._goals) for _ in configs]
        if not isinstance(result, list) or len(result) != len(configs):
            return [judged(TypeError(f"gave {_shown(result)} for {len(configs)} configurations")) for _ in configs]
        return [judged(each, self._goals) for each in result]


def judged(result: Any, goals: Goals | None = None) -> Outcome:
    """What a result, or an exception in its place, says of its trial; whatever an objective may give."""
    if isinstance(result, Exception):
        return {"status": "failed", "error": f"{type(result).__name__}: {result}"}
    if goals is not None:
        return _judged_each(result, goals)
    try:
        values = list(map(_plain, result if np.ndim(result) else [result]))
    except Exception:  # lists of unequal lengths; tensors of several numbers, or without any
        values = []
    if not values or not all(isinstance(value, Real) for value in values):
        return {"status": "failed", "error": f"gave {_shown(result)}, where a number is needed"}
    try:
        scores = tuple(float(value) for value in values)
        value = math.fsum(scores) / len(scores)
    except (OverflowError, ValueError):  # of the sum; infinities of both signs
        value = math.inf
    if not math.isfinite(value):
        return {"status": "failed", "error": f"gave {_shown(result)}, where a finite number is needed"}
    return {"status": "done", "value": value, "scores": scores}


def _judged_each(result: Any, goals: Goals) -> Outcome:
    """The same of several objectives: one that is no number, or has no logarithm where one is needed, spoils all."""
    try:
        found = {name: judged(each) for name, each in goals.judged(result).items()}
        for name, outcome in found.items():
            if outcome["status"] == "failed":
                return {"status": "failed", "error": f"{name}: {outcome['error']}"}
            if goals.goals[name].log and outcome["value"] <= 0:
                raise TypeError(f"{name}: gave {outcome['value']:g}, which has no logarithm, and its Goal is log=True")
    except TypeError as error:
        return {"status": "failed", "error": str(error)}
    return {"status": "done", "values": {name: outcome["value"] for name, outcome in found.items()}}


def _plain(value: Any) -> Any:
    """A number of NumPy or torch as Python's own; the value of an estimate with its interval."""
    if all(hasattr(value, name) for name in ("value", "low", "high")):  # measure.Estimate, which this room knows not
        value = value.value
    return value.item() if hasattr(value, "item") else value


def _shown(result: Any) -> str:
    came = " ".join(repr(result).split())
    return came if len(came) <= 80 else f"{came[:77]}..."


def _check_call(objective: Objective, keywords: Mapping[str, Any], batched: bool) -> None:
    """A TypeError where an objective cannot be called so; one without a signature may be."""
    first = "configs" if batched else "config"
    try:
        if signature := _signature(objective):
            signature.bind({}, **keywords)
    except TypeError as error:
        call = ", ".join([first, *(f"{name}=..." for name in keywords)])
        written = f"def objective({', '.join([first, *keywords])})"
        raise TypeError(f"objective cannot be called as objective({call}): {error}; write it as {written}.") from None


def takes(objective: Objective, name: str, *, or_any: bool = False) -> bool:
    """Whether a callable has a parameter of that name; with `or_any`, also where it takes any keyword, or may."""
    signature = _signature(objective)
    if signature is None:
        return or_any
    kinds = [each.kind for each in signature.parameters.values()]
    return name in signature.parameters or (or_any and inspect.Parameter.VAR_KEYWORD in kinds)


def _signature(objective: Objective) -> inspect.Signature | None:
    """None where it has none, as some builtins."""
    try:
        return inspect.signature(objective)
    except (TypeError, ValueError):
        return None
