"""One run of a study, here or on many machines: what it may spend, what is tried next, and when it gives up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit import checks
from kit.search.calling import Objective, Outcome, takes
from kit.search.pareto import Goals
from kit.search.study_file import StudyError
from kit.search.trials import AnyMethod, Trial

if TYPE_CHECKING:
    from kit.search.study import Study

Unit = Literal["trials", "epochs"]
Affords = Callable[[int, Sequence[Trial]], bool]  # whether a trial of that many epochs may follow these


class Run:
    """Asks and tells for a run; arguments and errors as in `Study.run`.

    | to | call |
    |---|---|
    | have what one call is to try | `run.next()`: trials of equal epochs; none where there is nothing, or not yet |
    | say what came out | `run.tell(trials, outcomes, seconds, raised)` |
    | end: what was not told is lost | `run.close()` |
    """

    def __init__(
        self,
        study: Study,
        objective: Objective,
        method: AnyMethod,
        *,
        budget: int,
        unit: Unit,
        epochs: int | None,
        batch: int | None,
        failures: int | None,
        on_trial: Callable[[Trial], None] | None,
        cancel: Event | None,
    ) -> None:
        check_method(method, study.goals)
        if not callable(objective):
            raise TypeError(f"objective must be callable; got {objective!r}.")
        if on_trial is not None and not callable(on_trial):
            raise TypeError(f"on_trial must be callable; got {on_trial!r}.")
        if cancel is not None and not hasattr(cancel, "is_set"):
            raise TypeError(f"cancel must be a threading.Event; got {cancel!r}.")
        checks.one_of("unit", unit, get_args(Unit))
        checks.whole("budget", budget, 1)
        check_counts(epochs=epochs, batch=batch, failures=failures)
        self._study, self._method, self._epochs, self._batch = study, method, epochs, batch or 1
        self._failures, self._on_trial, self._cancel = failures, on_trial, cancel
        self._affords, self._resumes = affords(budget, unit), bool(getattr(objective, "resumes", False))
        self._waiting: deque[list[Trial]] = deque()  # asked, and not given away yet
        self._untold: dict[int, Trial] = {}
        self._failed, self._done = 0, False

    @property
    def cancelled(self) -> bool:
        """Whether it should end."""
        return self._cancel is not None and self._cancel.is_set()

    def next(self) -> list[Trial]:
        """What the next call tries: trials of equal epochs; none where there is nothing to try, or not yet."""
        if not self._waiting:
            asked: list[Trial] = []
            while len(asked) < self._batch and (trial := self._ask()) is not None:
                asked.append(trial)
            totals = dict.fromkeys(trial.epochs for trial in asked)
            self._waiting.extend([trial for trial in asked if trial.epochs == total] for total in totals)
        return self._waiting.popleft() if self._waiting else []

    def tell(self, trials: Sequence[Trial], outcomes: Sequence[Outcome], seconds: float, raised: Any = None) -> None:
        """Write down what a call made of its trials.

        Args:
            trials: of the call.
            outcomes: of each.
            seconds: that the call took.
            raised: the exception that made them fail, where one did.

        Raises:
            RuntimeError: the objective failed from the first trial on.
        """
        for trial, outcome in zip(trials, outcomes, strict=True):
            told = self._study._finish(trial.number, {**outcome, "seconds": seconds / len(trials)}, trial)
            del self._untold[trial.number]
            self._done, self._failed = self._done or told.status == "done", self._failed + (told.status == "failed")
            if self._on_trial is not None:
                self._on_trial(told)
        if not self._done and self._failures is not None and self._failed >= self._failures:
            what = f"objective failed in each of {self._failed} trials, at last: {told.error.rstrip('.')}"
            raise RuntimeError(f"{what}; mend it, or go on with failures=None.") from raised

    def close(self) -> None:
        """What is under way is lost."""
        for number, trial in self._untold.items():
            with suppress(StudyError, ValueError):  # of a file that is gone or locked: the first error is told
                self._study._finish(number, {"status": "lost"}, trial)
        self._untold.clear()

    def _ask(self) -> Trial | None:
        trial = self._study._ask(self._method, self._epochs, self._resumes, self._affords)
        if trial is not None:
            self._untold[trial.number] = trial
        return trial


def cost(trial: Trial, unit: Unit) -> int:
    """What a trial spent, or will spend."""
    return 1 if unit == "trials" else trial.spent


def affords(budget: int, unit: Unit) -> Affords:
    """Whether a trial of some epochs may follow these; a ValueError where not even one trial fits into the budget."""

    def may_follow(price: int, trials: Sequence[Trial]) -> bool:
        if unit == "epochs" and not price:
            raise ValueError("epochs is needed: the budget is in epochs, and the method does not say how many.")
        price = 1 if unit == "trials" else price
        if price > budget and not trials:
            raise ValueError(f"budget must be {price} {unit} or more, for one trial; got {budget}.")
        return price <= budget - sum(cost(trial, unit) for trial in trials)

    return may_follow


def check_method(method: Any, goals: Goals | None) -> None:
    """A TypeError where it is no method, or none for as many objectives."""
    if isinstance(method, type) or not callable(getattr(method, "propose", None)):
        raise TypeError(f"method must be one such as Random(seed=0), with a propose of its own; got {method!r}.")
    if not takes(method.propose, "goals" if goals else "maximise", or_any=True):
        one, many = "one that searches for one objective, such as Bayes()", "Random, Sobol, NSGA2, ParEGO or EHVI"
        raise TypeError(f"method must be {f'{many}, for several objectives' if goals else one}; got {method!r}.")


def check_counts(**counts: int | None) -> None:
    """Refuse a number below 1; None is none."""
    for name, value in counts.items():
        if value is not None:
            checks.whole(name, value, 1)
