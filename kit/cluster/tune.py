"""Ray Tune with the kit's methods: a searcher, spaces as Ray's and back, and ASHA as Ray's scheduler.

All three are given to a `ray.tune.Tuner`, and take their metric and their mode from its `TuneConfig`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import choice, lograndint, loguniform, randint, uniform
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher, sample
from ray.tune.search.variant_generator import parse_spec_vars

from kit import checks
from kit.search.halving import ASHA, Rungs
from kit.search.pareto import Goal, Goals
from kit.search.running import check_method
from kit.search.space import Choice, Config, Float, Int, Parameter, Space
from kit.search.study import Study
from kit.search.trials import AnyMethod


class RayMethod(Searcher):
    """A method of the kit as Ray's searcher; the trials are kept in a study, in memory.

        searcher = RayMethod(Bayes())
        config = tune.TuneConfig(metric="loss", mode="min", search_alg=searcher, num_samples=30)
        tune.Tuner(train, param_space=to_ray(space), tune_config=config).fit()
        searcher.study.best

    A trial counts by its last result, whether it came to its end or a scheduler stopped it; one that raised, or gave no
    result, has failed. Its `spent` are the results that it reported. A second `fit` goes on with the same study.

    Ray asks for one trial more than it can run, so a method proposes knowing one result less than it could;
    `TuneConfig(max_concurrent_trials=1)` gives the trials of `Study.run`, one after the other.

    Args:
        method: proposes; none that continues trials, since Ray's schedulers decide which go on (`asha`).
        objectives: for several, as in `Study`; the results must have their names, and the `TuneConfig` then has neither
            a metric nor a mode.

    Attributes:
        study: the trials so far; a ValueError before the tuner has begun.
    """

    def __init__(self, method: AnyMethod, *, objectives: Mapping[str, Goal] | None = None) -> None:
        if isinstance(method, Rungs):
            instead = "let cluster.asha decide which go on, as Ray's scheduler, and RayMethod(Random()) which begin"
            raise ValueError(f"method must be one that begins each trial anew; got {method!r}: {instead}.")
        goals = None if objectives is None else Goals(objectives)
        check_method(method, goals)
        super().__init__()
        self.method, self.objectives = method, objectives
        self._metric: Any  # a text, or a list of texts; so is the mode
        self._mode: Any
        if goals is not None:
            self._metric = list(goals.names)
            self._mode = ["max" if goal.maximise else "min" for goal in goals.goals.values()]
        self._study: Study | None = None
        self._numbers: dict[str, int] = {}  # Ray's name of a trial -> ours, while it is under way

    @property
    def study(self) -> Study:
        """The trials so far."""
        if self._study is None:
            raise ValueError("param_space is needed, with the ranges to search: Tuner(..., param_space=to_ray(space)).")
        return self._study

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Ray's call as the tuner begins: begin the study, or go on with it.

        Raises:
            ValueError: a metric or a mode that is missing, or not the one of the objectives; another space or metric
                than before; what `from_ray` refuses.
        """
        if self.objectives is None:
            if metric is None or mode is None:
                raise ValueError(f"metric and mode must be given in the TuneConfig; got {metric!r} and {mode!r}.")
        elif metric is not None or mode is not None:
            raise ValueError(f"metric and mode must be None beside objectives; got {metric!r} and {mode!r}.")
        space, asked = from_ray(config), (metric or self._metric, mode or self._mode)
        if self._study is None:
            self._metric, self._mode = asked
            self._study = self._begin(space)
        elif (space, asked) != (self._study.space, (self._metric, self._mode)):
            raise ValueError("param_space, metric and mode must be those of the study so far; or use a new RayMethod.")
        return True

    def suggest(self, trial_id: str) -> Config | str | None:
        """Ray's call for a configuration: None until a trial under way is told, or that no more will come."""
        trial = self.study.ask(self.method)
        if trial is None:
            return None if self._numbers else Searcher.FINISHED
        self._numbers[trial_id] = trial.number
        return dict(trial.config)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray's call at the end of a trial: tell the study."""
        number = self._numbers.pop(trial_id, None)
        if number is None:  # not ours, or told
            return
        result = result or {}
        outcome: Any
        if error or not result:
            outcome = RuntimeError("the trial ended without a result; Ray's table of results has its error")
        elif self.objectives is None:
            outcome = result.get(self._metric)
        else:
            outcome = {name: result[name] for name in self._metric if name in result}
        spent, seconds = result.get("training_iteration"), result.get("time_total_s", 0.0)
        self.study.tell(number, outcome, spent=spent, seconds=seconds)

    def get_state(self) -> dict[str, Any]:
        """All that a file needs to go on: the study as its space and its trials."""
        study = self._study
        return vars(self) | {"_study": study and (study.space, study.trials)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.__dict__.update(state)
        if state["_study"] is not None:
            space, trials = state["_study"]
            self._study = self._begin(space)
            with self._study._book(write=True) as book:
                for trial in trials:
                    book.put(trial)

    __getstate__, __setstate__ = get_state, set_state

    def save(self, checkpoint_path: str) -> None:
        """Write the state to a file, as Ray does now and then, for `Tuner.restore`."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.get_state()))

    def restore(self, checkpoint_path: str) -> None:
        """Read it; a pickle, so only from where you trust."""
        self.set_state(pickle.loads(Path(checkpoint_path).read_bytes()))

    def _begin(self, space: Space) -> Study:
        if self.objectives is None:
            return Study(space, maximise=self._mode == "max")
        return Study(space, objectives=self.objectives)


def to_ray(space: Space) -> dict[str, sample.Domain]:
    """A space as the `param_space` of a `ray.tune.Tuner`.

    Bounds and values are the same, and `from_ray` gives the space again, but that the features of a `Choice` are lost.
    Ray's own random draws of a logarithmic Int follow a slightly different law: it rounds them down, the kit to the
    nearest.
    """
    checks.instance("space", space, Space)
    found: dict[str, sample.Domain] = {}
    for name, each in space.parameters.items():
        if isinstance(each, Choice):
            found[name] = choice(list(each.options))
        elif isinstance(each, Int):
            found[name] = (lograndint if each.log else randint)(each.low, each.high + 1)  # Ray leaves its upper out
        else:
            found[name] = (loguniform if each.log else uniform)(each.low, each.high)
    return found


def from_ray(param_space: Mapping[str, Any]) -> Space:
    """A `param_space` of Ray as a space; constants are left out, since Ray itself adds them to each configuration.

    Raises:
        TypeError: no mapping.
        ValueError: no range in it, one inside another mapping or list, one that a space cannot say (quantised, normal,
            a function, a grid), or bounds or options that `Float`, `Int` and `Choice` refuse.
    """
    checks.instance("param_space", param_space, Mapping, "a mapping of names to Ray's ranges")
    _, domains, grids = parse_spec_vars(dict(param_space))
    found: dict[str, Parameter] = {}
    for path, domain in [*domains, *grids]:
        name = "/".join(map(str, path))
        try:
            found[name] = _parameter(domain, nested=len(path) > 1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"param_space: {name}: {error}") from error
    if not found:
        has = ", ".join(map(str, param_space)) or "nothing"
        raise ValueError(f"param_space must have a range, such as tune.uniform(0, 1); it has {has}.")
    return Space(found)


def _parameter(domain: sample.Domain, *, nested: bool) -> Parameter:
    sampler = domain.get_sampler()
    log = isinstance(sampler, sample.LogUniform)
    if nested or not (log or isinstance(sampler, sample.Uniform)):
        kinds = {sample.Quantized: "quantised", sample.Normal: "normal", sample.Grid: "a grid_search"}
        came = "nested" if nested else next((word for kind, word in kinds.items() if isinstance(sampler, kind)), "")
        allowed = "uniform, loguniform, randint, lograndint or choice, by its name alone"
        raise ValueError(f"must be {allowed}; got one that is {came or 'a function, as of sample_from'}.")
    if isinstance(domain, sample.Categorical):
        return Choice(*domain.categories)
    if isinstance(domain, sample.Integer):
        return Int(domain.lower, domain.upper - 1, log)
    return Float(domain.lower, domain.upper, log)


def asha(method: ASHA, *, time_attr: str = "training_iteration") -> ASHAScheduler:
    """Ray's ASHA with the rungs of the kit's.

    The two decide differently. The kit's, as in the paper, stops every trial at a rung, and continues it later, once it
    is among the best 1 in eta of those that were told there. Ray's decides once, as a trial arrives at a rung: where it
    is worse than the best 1 in eta of those that came before it, it is stopped for good; the first one always goes on.
    So Ray's trials need no checkpoints, but a poor one that comes early is trained on, and one that turns out to be
    among the best when others have come is not taken up again.

    Args:
        method: its rungs; what begins is drawn by a searcher, such as `RayMethod(Random(seed))`.
        time_attr: what the results call an epoch; "training_iteration" counts reports.

    Raises:
        TypeError: another method.
        ValueError: `max_epochs` is not the first rung times a power of eta: Ray counts its rungs upwards from the first
            one, the kit downwards from the last.
    """
    checks.instance("method", method, ASHA)
    first, last = method.rungs[0], method.max_epochs
    near = first * method.eta ** (len(method.rungs) - 1)
    if near != last:
        allowed = f"the first rung, {first}, times a power of eta, {method.eta}, such as {near}"
        raise ValueError(f"max_epochs must be {allowed}; got {last}.")
    return ASHAScheduler(time_attr=time_attr, max_t=last, grace_period=first, reduction_factor=method.eta)
