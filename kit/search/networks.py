"""Networks as objectives: a cohort of MLPs, one a configuration; and landscapes, trained at every cell.

This part loads torch; the other parts of `kit.search` do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import numpy as np

from kit import cohort, models, training
from kit.data import Dataset
from kit.search.replay import Track, track
from kit.search.space import Choice, Config, Space
from kit.search.study import Study
from kit.search.trials import Method, Trial, check_whole

TUNABLE = ("lr", "weight_decay", "dropout", "label_smoothing", "width", "beta1", "beta2")
CHUNK = 128  # networks that are trained at once while a landscape grows


class Networks:
    """The validation accuracy of MLPs: a list of configurations in, one cohort trained; for `run(batch=...)`.

    Args:
        dataset: train fits, validation scores; test is not read.
        hidden: units of the one hidden layer, where a configuration does not say `width`.
        epochs: passes over the train split, where a trial does not say.
        n: networks a configuration, 1 or more; the scores are theirs.
        seed: what their own seeds are drawn from, together with the configuration: the same one scores the same again,
            and another seed gives a fresh measurement.
        batch_size: samples a step.

    Configurations may have the keys of `TUNABLE`. A network that diverged scores NaN, so its trial fails.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        hidden: int = 16,
        epochs: int = 20,
        n: int = 1,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        """Nothing is trained before the first call."""
        training.check_dataset(dataset)
        for name, value in {"hidden": hidden, "epochs": epochs, "n": n, "batch_size": batch_size}.items():
            check_whole(name, value, 1)
        check_whole("seed", seed, 0)
        self.dataset, self.hidden, self.epochs, self.n = dataset, hidden, epochs, n
        self.seed, self.batch_size = seed, batch_size

    def __call__(
        self, configs: Sequence[Config], *, epochs: int | None = None, cancel: Event | None = None
    ) -> list[list[float]]:
        """Train all of them; the accuracies of each configuration, [configurations][n].

        Raises:
            ValueError: a key that is not tunable, or a value that no network can have.
            training.Cancelled: `cancel` was set.
        """
        if isinstance(configs, Mapping):
            raise TypeError("configs must be a list of configurations: call `run` with batch=1 or more.")
        for config in configs:
            _check_tunable(config)
        epochs = self.epochs if epochs is None else epochs
        check_whole("epochs", epochs, 1)
        # Weights of its own for each network; the order of the samples is shared, which is quicker.
        members = [
            cohort.Member(
                seed=_drawn(self.seed, config) + number,
                order=self.seed * self.n + number,
                **{"width": self.hidden, **config},
            )
            for config in configs
            for number in range(self.n)
        ]
        # Dropout throws its dice for the widest of a cohort. So that a score does not depend on what else is in the
        # batch, networks with dropout are trained with those of their own width only.
        together: dict[int | None, list[int]] = {}
        for at, member in enumerate(members):
            together.setdefault(member.width if member.dropout else None, []).append(at)
        scores = np.empty(len(members))
        for places in together.values():
            part = [members[at] for at in places]
            networks = cohort.Cohort(_template(self.dataset, max(member.width or 0 for member in part)), part)
            cohort.fit(networks, self.dataset.train, epochs=epochs, batch_size=self.batch_size, cancel=cancel)
            scores[places] = _accuracies(networks, self.dataset)
        return scores.reshape(len(configs), self.n).tolist()


@dataclass(frozen=True)
class Landscape:
    """What networks reach at every cell of one or two hyper-parameters, after every epoch, really trained.

    Attributes:
        space: of the hyper-parameters.
        axes: the values along each, ascending.
        curves: validation accuracy, [seeds, *axes, epochs]; NaN where not trained, 0 from where a network diverged on.
        hidden: units of the one hidden layer, where `width` is not an axis.
        trained_on: key of the data set; empty while nothing is trained.
    """

    space: Space
    axes: tuple[tuple[float, ...], ...]
    curves: np.ndarray
    hidden: int = 16
    trained_on: str = ""

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse another data set than the landscape was trained on.

        Raises:
            TypeError: no data set.
            ValueError: another one.
        """
        training.check_dataset(dataset)
        if self.trained_on not in ("", dataset.key):
            raise ValueError(f"dataset must be that of the landscape, {self.trained_on}; got {dataset.key}.")

    @property
    def epochs(self) -> int:
        """Epochs of every network."""
        return int(self.curves.shape[-1])

    @property
    def seeds(self) -> int:
        """Networks a cell."""
        return int(self.curves.shape[0])

    @property
    def missing(self) -> int:
        """Networks that are not trained yet."""
        return int(np.isnan(self.curves).all(-1).sum())

    @property
    def mean(self) -> np.ndarray:
        """Accuracy after the last epoch, mean over the seeds that are trained. -> [*axes]."""
        last = self.curves[..., -1]
        counts = np.isfinite(last).sum(0)
        total = np.nansum(last, 0)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    def config(self, cell: Sequence[int]) -> Config:
        """The values at a cell."""
        return {name: axis[at] for name, axis, at in zip(self.space.names, self.axes, cell, strict=True)}

    @property
    def widest(self) -> int:
        """Hidden units of the widest network."""
        return int(max(self.axes[self.space.names.index("width")])) if "width" in self.space.names else self.hidden

    def objective(self, repeat: int = 0) -> LandscapeObjective:
        """Search it: each trial reads one network of its cell, as one training run would give.

        Args:
            repeat: another number reads other networks.
        """
        return LandscapeObjective(self, repeat)


class LandscapeObjective:
    """A configuration in, the accuracy of one network of its cell out, after the epochs that are asked for.

    The later epochs of a network are those of the same training run, so a trial that goes on spends only new ones.

    Args:
        landscape: complete.
        repeat: which networks are read.
    """

    resumes = True

    def __init__(self, landscape: Landscape, repeat: int) -> None:
        """Encode the axes once: a search reads them often."""
        self.landscape, self.repeat = landscape, repeat
        self._places = [
            np.array([parameter.encode(value) for value in axis])
            for parameter, axis in zip(landscape.space.parameters.values(), landscape.axes, strict=True)
        ]

    def cell(self, config: Config) -> tuple[int, ...]:
        """The cell whose values lie nearest, on the unit interval."""
        place = self.landscape.space.encode(config)
        return tuple(int(np.abs(axis - at).argmin()) for axis, at in zip(self._places, place, strict=True))

    def seed(self, config: Config) -> int:
        """Which network of the cell a trial reads."""
        # Five digits: trials that differ in rounding only are the same, and other trials in one cell are not.
        return _drawn(self.repeat, {name: f"{value:.5g}" for name, value in config.items()}) % self.landscape.seeds

    def __call__(self, config: Config, *, epochs: int | None = None) -> float:
        """The accuracy.

        Raises:
            ValueError: more epochs than were trained.
        """
        epochs = self.landscape.epochs if epochs is None else epochs
        if not 1 <= epochs <= self.landscape.epochs:
            raise ValueError(f"epochs must lie in 1 .. {self.landscape.epochs}; got {epochs!r}.")
        return float(self.landscape.curves[(self.seed(config), *self.cell(config), epochs - 1)])

    def fresh(self, config: Config) -> float:
        """What the cell's other networks reach: a measurement that the search did not choose by."""
        last = self.landscape.curves[..., -1]  # [seeds, *axes]
        at = np.ravel_multi_index(self.cell(config), last.shape[1:])
        return float(np.delete(last.reshape(len(last), -1)[:, at], self.seed(config)).mean())


def search(
    landscape: Landscape,
    method: Method,
    *,
    budget: int,
    repeat: int = 0,
    on_trial: Callable[[tuple[Trial, ...]], None] | None = None,
    cancel: Event | None = None,
) -> Track:
    """Search a landscape, and measure what was chosen anew on the other networks of its cell.

    Args:
        landscape: complete.
        method: proposes.
        budget: epochs; a trial of which the method does not say how long is trained in full.
        repeat: which networks are read.
        on_trial: called after each trial with all of them.
        cancel: looked at between trials.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: a budget that is too small for one trial.
    """
    objective = landscape.objective(repeat)
    study = Study(landscape.space, maximise=True)
    study.run(
        objective,
        method,
        budget=budget,
        unit="epochs",
        epochs=landscape.epochs,
        on_trial=None if on_trial is None else lambda _: on_trial(study.trials),
        cancel=cancel,
    )
    if cancel is not None and cancel.is_set():
        raise training.Cancelled("cancelled in the middle of a search.")
    return track(study.trials, objective.fresh, maximise=True)


def network(dataset: Dataset, landscape: Landscape, cell: Sequence[int], seed: int) -> models.MLP:
    """One network of a landscape, trained again to its end: the same seed gives the same one.

    Args:
        dataset: that the landscape was trained on.
        landscape: names the values.
        cell: number along each axis.
        seed: which network of the cell.

    Raises:
        ValueError: a seed that the landscape does not have, or another data set.
    """
    landscape.check_dataset(dataset)
    if not 0 <= seed < landscape.seeds:
        raise ValueError(f"seed must lie in 0 .. {landscape.seeds - 1}; got {seed!r}.")
    one = cohort.Cohort(_template(dataset, landscape.widest), [cohort.Member(seed=seed, **landscape.config(cell))])
    cohort.fit(one, dataset.train, epochs=landscape.epochs)
    trained = one.model(0)
    assert isinstance(trained, models.MLP)
    return trained


def landscape(
    dataset: Dataset,
    space: Space,
    *,
    points: int = 20,
    seeds: int = 3,
    epochs: int = 20,
    hidden: int = 16,
    cancel: Event | None = None,
) -> Landscape:
    """Train a network at every cell of a line or plane: `grow` from `blank` to its end, whose arguments these are."""
    start = blank(space, points=points, seeds=seeds, epochs=epochs, hidden=hidden)
    *_, last = grow(dataset, start, cancel=cancel)
    return last


def grow(dataset: Dataset, start: Landscape, *, cancel: Event | None = None) -> Iterator[Landscape]:
    """Train what a landscape lacks, some at a time, evenly spread; the landscape after each part.

    Args:
        dataset: train fits, validation scores; test is not read.
        start: `blank(...)`, or what an earlier growing left.
        cancel: looked at before each batch.

    Raises:
        training.Cancelled: `cancel` was set; what was yielded before is whole.
        ValueError: another data set than the one before.
    """
    start.check_dataset(dataset)
    curves = start.curves
    waiting = [place for place in _spread(curves.shape[:-1]) if np.isnan(curves[place]).all()]
    for at in range(0, len(waiting), CHUNK):
        part = waiting[at : at + CHUNK]
        members = [cohort.Member(seed=seed, **start.config(cell)) for seed, *cell in part]
        networks = cohort.Cohort(_template(dataset, start.widest), members)
        record = _Record(dataset)
        cohort.fit(networks, dataset.train, epochs=start.epochs, callbacks=[record], cancel=cancel)
        curves = curves.copy()
        for place, curve in zip(part, np.stack(record.accuracies, 1), strict=True):
            curves[place] = np.nan_to_num(curve)  # one that diverged knows nothing; NaN would mean not trained
        yield replace(start, curves=curves, trained_on=dataset.key)
    if not waiting:
        yield start


def blank(space: Space, *, points: int = 20, seeds: int = 3, epochs: int = 20, hidden: int = 16) -> Landscape:
    """A landscape of which nothing is trained.

    Args:
        space: one or two hyper-parameters of `TUNABLE`, numbers.
        points: values along each, 2 or more.
        seeds: networks a cell, 2 or more, so that a cell has a spread.
        epochs: of each network, 1 or more.
        hidden: units of the one hidden layer, where `width` is not an axis.

    Raises:
        ValueError: an argument out of range, or a space with a value that no network can have.
        TypeError: a number that must be whole and is not.
    """
    if len(space) > 2 or any(isinstance(parameter, Choice) for parameter in space.parameters.values()):
        raise ValueError(f"space must have one or two parameters, Float or Int; got {', '.join(space.names)}.")
    _check_tunable(dict.fromkeys(space.names))
    for name, value, least in (
        ("points", points, 2),
        ("seeds", seeds, 2),
        ("epochs", epochs, 1),
        ("hidden", hidden, 1),
    ):
        check_whole(name, value, least)
    axes = tuple(
        tuple(dict.fromkeys(parameter.decode(place) for place in np.linspace(0, 1, points).tolist()))
        for parameter in space.parameters.values()
    )
    for name, axis in zip(space.names, axes, strict=True):
        for end in (axis[0], axis[-1]):  # what no network can have is said before any is trained
            one: Config = {name: end}
            cohort.Member(**one)
    return Landscape(space, axes, np.full((seeds, *map(len, axes), epochs), np.nan), hidden)


class _Record(training.Callback):
    """Keeps the accuracies after each epoch."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.accuracies: list[np.ndarray] = []  # [K] an epoch

    def on_epoch_end(self, progress: training.Progress) -> None:
        assert isinstance(progress.model, cohort.Cohort)
        self.accuracies.append(_accuracies(progress.model, self._dataset))


def _accuracies(networks: cohort.Cohort, dataset: Dataset) -> np.ndarray:
    """Share of right answers on the validation split; NaN for a network that diverged. -> [K]."""
    named = cohort.answers(networks, dataset.validation.inputs).numpy()  # [K, n]
    right = (named == dataset.validation.labels.numpy()).mean(1)
    return np.where((named < 0).any(1), np.nan, right)


def _template(dataset: Dataset, width: int) -> models.MLP:
    return models.MLP((dataset.train.inputs[0].numel(), width, dataset.n_classes))


def _drawn(seed: int, config: Config) -> int:
    """A seed of its own for each configuration."""
    digest = hashlib.sha256(json.dumps([seed, sorted(config.items())]).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _spread(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All cells of the first seed, then of the next: every fourth of each axis first, so the shape shows early."""

    def turn(place: tuple[int, ...]) -> tuple[Any, ...]:
        seed, *cell = place
        return seed, min(step for step in (0, 1, 2) if all(at % (4 >> step) == 0 for at in cell))

    return sorted((tuple(map(int, place)) for place in np.ndindex(*shape)), key=turn)


def _check_tunable(config: Config) -> None:
    for name in config:
        if name not in TUNABLE:
            raise ValueError(f"networks can be tuned by {', '.join(TUNABLE)}; got {name!r}.")
