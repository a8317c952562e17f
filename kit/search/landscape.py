"""Landscapes: networks trained at every cell of one or two hyper-parameters, so that a whole search is an instant.

| to | call |
|---|---|
| train all of it | `train(digits, Space({"lr": Float(1e-4, 1, log=True)}))` |
| train it part by part | `for landscape in grow(digits, blank(space)): ...` |
| search it | `search(landscape, Random(0), budget=180)`, or `Study.run` with `landscape.objective()` |
| have one of its networks | `network(digits, landscape, cell, seed)` |

This part loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Protocol

import numpy as np
from torch import nn

from kit import checks, cohort, training
from kit.data import Dataset
from kit.search.networks import accuracies, check_tunable, drawn_seed
from kit.search.replay import Trajectory, replay
from kit.search.space import Choice, Config, Space
from kit.search.study import Study
from kit.search.trials import Method, Trial

CHUNK = 128  # networks that are trained at once while a landscape grows, at most
CHUNK_WORK = 2e10  # and as many as take about so many floating-point operations: less than a second
FEWEST = 4  # but no fewer: there are two cores at least


@dataclass(frozen=True)
class Landscape:
    """What networks reach at every cell of one or two hyper-parameters, after every epoch, really trained.

    Attributes:
        space: of the hyper-parameters.
        axes: the values along each, ascending.
        curves: validation accuracy, [seeds, *axes, epochs]; NaN where not trained, 0 from where a network diverged on.
        hidden: units of the one hidden layer (`cohort.template`), where `width` is not an axis.
        trained_on: key of the data set; empty while nothing is trained.
        samples: how many of the data set are trained on (`Dataset.part`); 0 is all.
    """

    space: Space
    axes: tuple[tuple[float, ...], ...]
    curves: np.ndarray
    hidden: int = 16
    trained_on: str = ""
    samples: int = 0

    def part(self, dataset: Dataset) -> Dataset:
        """What of a data set the networks are trained and scored on."""
        return dataset.part(self.samples) if self.samples else dataset

    def work(self, dataset: Dataset) -> float:
        """Floating-point operations of one network, roughly: six a weight and sample in training, two in scoring."""
        trained, scored = dataset.sizes_of(self.samples or len(dataset.train))
        weights = self.widest * (cohort.n_inputs(dataset) + dataset.n_classes)
        return weights * self.epochs * (6.0 * trained + 2.0 * scored)

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse another data set than the landscape was trained on (a ValueError), or none (a TypeError)."""
        training.check_dataset(dataset)
        if self.trained_on and self.trained_on != dataset.key:  # of a large one the key takes a moment
            raise ValueError(f"dataset must be that of the landscape, {self.trained_on}; got {dataset.key}.")

    def check_complete(self) -> None:
        """Refuse a landscape with networks that are not trained (a ValueError)."""
        if self.missing:
            raise ValueError(f"landscape must be complete; {self.missing} networks are not trained.")

    @property
    def epochs(self) -> int:
        """Epochs of every network."""
        return int(self.curves.shape[-1])

    @property
    def seeds(self) -> int:
        """Networks of each cell."""
        return int(self.curves.shape[0])

    @property
    def missing(self) -> int:
        """Networks that are not trained yet."""
        return int(np.isnan(self.curves).all(-1).sum())

    @property
    def mean(self) -> np.ndarray:
        """Accuracy after the last epoch, mean over the seeds that are trained. -> [*axes]."""
        last, counts = self.curves[..., -1], np.isfinite(self.curves[..., -1]).sum(0)
        return np.where(counts > 0, np.nansum(last, 0) / np.maximum(counts, 1), np.nan)

    def config(self, cell: Sequence[int]) -> Config:
        """The values at a cell."""
        return {name: axis[at] for name, axis, at in zip(self.space.names, self.axes, cell, strict=True)}

    @property
    def widest(self) -> int:
        """Hidden units of the widest network."""
        return int(max(self.axes[self.space.names.index("width")])) if "width" in self.space.names else self.hidden

    def objective(self, repeat: int = 0) -> LandscapeObjective:
        """Search it: trials of a cell read the same one of its networks; another `repeat` reads other networks."""
        return LandscapeObjective(self, repeat)


class LandscapeObjective:
    """A configuration in, the accuracy of one network of its cell out, after the epochs that are asked for.

    The later epochs of a network are those of the same training run, so a trial that goes on spends only new ones.
    """

    resumes = True

    def __init__(self, landscape: Landscape, repeat: int) -> None:
        checks.whole("repeat", repeat)
        self.landscape, self.repeat = landscape, repeat
        pairs = zip(landscape.space.parameters.values(), landscape.axes, strict=True)
        self._places = [np.array(list(map(parameter.encode, axis))) for parameter, axis in pairs]

    def cell(self, config: Config) -> tuple[int, ...]:
        """The cell whose values lie nearest, on the unit interval."""
        place = self.landscape.space.encode(config)
        return tuple(int(np.abs(axis - at).argmin()) for axis, at in zip(self._places, place, strict=True))

    def seed(self, config: Config) -> int:
        """Which network of the cell a trial reads."""
        # The same for all trials of a cell: a search that comes back must not read what its retest is to measure.
        place = dict(zip(self.landscape.space.names, self.cell(config), strict=True))
        return drawn_seed(self.repeat, place) % self.landscape.seeds

    def __call__(self, config: Config, *, epochs: int | None = None) -> float:
        """The accuracy; a ValueError for more epochs than were trained."""
        most = self.landscape.epochs
        epochs = most if epochs is None else checks.whole("epochs", epochs, 1, most)
        return float(self.landscape.curves[(self.seed(config), *self.cell(config), epochs - 1)])

    def retest(self, config: Config) -> float:
        """What the cell's other networks reach: the mean of what no trial of this repeat has read."""
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
) -> Trajectory:
    """Search a landscape, and retest each incumbent on the other networks of its cell.

    Args:
        landscape: complete, or a ValueError.
        method: proposes.
        budget: epochs; a trial of which the method does not say how long is trained in full.
        repeat: which networks are read.
        on_trial: called after each trial with all of them.
        cancel: looked at between trials.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: a budget that is too small for one trial.
    """
    checks.instance("landscape", landscape, Landscape)
    landscape.check_complete()
    objective, epochs = landscape.objective(repeat), landscape.epochs
    return searched(landscape.space, objective, method, budget, epochs, on_trial, cancel)


class Retested(Protocol):
    """An objective whose choice can be measured anew."""

    def __call__(self, config: Config, *, epochs: int | None = None) -> float:
        """The accuracy after the epochs that are asked for."""
        ...

    def retest(self, config: Config) -> float:
        """What the networks of a configuration reach that no trial has read."""
        ...


def searched(
    space: Space,
    objective: Retested,
    method: Method,
    budget: int,
    epochs: int,
    on_trial: Callable[[tuple[Trial, ...]], None] | None,
    cancel: Event | None,
) -> Trajectory:
    """One search of trained networks, with a budget in epochs, and each incumbent retested; the rest as of `search`."""
    study = Study(space, maximise=True)
    listen = None if on_trial is None else lambda _: on_trial(study.trials)
    study.run(objective, method, budget=budget, unit="epochs", epochs=epochs, on_trial=listen, cancel=cancel)
    if cancel is not None and cancel.is_set():
        raise training.Cancelled("cancelled in the middle of a search.")
    return replay(study.trials, objective.retest, maximise=True)


def network(dataset: Dataset, landscape: Landscape, cell: Sequence[int], seed: int) -> nn.Module:
    """One network of a landscape, trained again to its end: the same seed gives the same one.

    Args:
        dataset: that the landscape was trained on; another one is a ValueError.
        landscape: names the values.
        cell: number along each axis.
        seed: which network of the cell; of both, what the landscape does not have is a ValueError.
    """
    landscape.check_dataset(dataset)
    checks.instance("cell", cell, Sequence, "a number for each axis")
    if len(cell) != len(landscape.axes):
        raise ValueError(f"cell must be {len(landscape.axes)} numbers, one for each axis; got {cell!r}.")
    for at, axis in zip(cell, landscape.axes, strict=True):
        checks.whole("cell", at, 0, len(axis) - 1)
    checks.whole("seed", seed, 0, landscape.seeds - 1)
    member = cohort.Member(seed=seed, **landscape.config(cell))
    one = cohort.Cohort(cohort.template(dataset, landscape.widest), [member])
    cohort.fit(one, landscape.part(dataset).train, epochs=landscape.epochs)
    return one.model(0)


def train(dataset: Dataset, space: Space, *, cancel: Event | None = None, **sizes: int) -> Landscape:
    """A landscape that is complete: `grow` to its end, from `blank(space, **sizes)`."""
    *_, last = grow(dataset, blank(space, **sizes), cancel=cancel)
    return last


def grow(
    dataset: Dataset,
    start: Landscape,
    *,
    callbacks: Sequence[training.Callback] = (),
    cancel: Event | None = None,
) -> Iterator[Landscape]:
    """Train what a landscape lacks, some at a time, evenly spread; the landscape after each part.

    Args:
        dataset: train fits, validation scores; test is not read.
        start: `blank(...)`, or what an earlier growing left.
        callbacks: of each part, which is a cohort.
        cancel: looked at before each batch.

    Raises:
        training.Cancelled: `cancel` was set; what was yielded before is whole.
        ValueError: another data set than the one before.
    """
    start.check_dataset(dataset)
    curves, studied = start.curves, start.part(dataset)
    waiting = [place for place in _spread(curves.shape[:-1]) if np.isnan(curves[place]).all()]
    together = min(CHUNK, max(FEWEST, int(CHUNK_WORK / start.work(dataset))))
    for at in range(0, len(waiting), together):
        part = waiting[at : at + together]
        members = [cohort.Member(seed=seed, **start.config(cell)) for seed, *cell in part]
        networks = cohort.Cohort(cohort.template(dataset, start.widest), members)
        record = _Record(studied)
        cohort.fit(networks, studied.train, epochs=start.epochs, callbacks=[record, *callbacks], cancel=cancel)
        curves = curves.copy()
        for place, curve in zip(part, np.stack(record.accuracies, 1), strict=True):
            curves[place] = np.nan_to_num(curve)  # one that diverged knows nothing; NaN would mean not trained
        yield replace(start, curves=curves, trained_on=dataset.key)
    if not waiting:
        yield start


def blank(
    space: Space, *, points: int = 20, seeds: int = 3, epochs: int = 20, hidden: int = 16, samples: int = 0
) -> Landscape:
    """A landscape of which nothing is trained.

    Args:
        space: one or two hyper-parameters of `TUNABLE`, numbers.
        points: values along each, 2 or more.
        seeds: networks of each cell, 2 or more, so that a cell has a spread.
        epochs: of each network, 1 or more.
        hidden: units of the one hidden layer, where `width` is not an axis.
        samples: to train on; 0 is all.

    Raises:
        ValueError: an argument out of range, or a space with a value that no network can have.
        TypeError: a number that must be whole and is not.
    """
    checks.instance("space", space, Space)
    if len(space) > 2 or any(isinstance(parameter, Choice) for parameter in space.parameters.values()):
        raise ValueError(f"space must have one or two parameters, Float or Int; got {', '.join(space.names)}.")
    check_tunable(dict.fromkeys(space.names))
    checks.whole("points", points, 2)
    checks.whole("seeds", seeds, 2)
    checks.whole("epochs", epochs, 1)
    checks.whole("hidden", hidden, 1)
    checks.whole("samples", samples)
    places = np.linspace(0, 1, points).tolist()
    axes = tuple(tuple(dict.fromkeys(map(each.decode, places))) for each in space.parameters.values())
    for name, axis in zip(space.names, axes, strict=True):
        for end in (axis[0], axis[-1]):  # what no network can have is said before any is trained
            cohort.Member(**dict[str, Any]({name: end}))
    return Landscape(space, axes, np.full((seeds, *map(len, axes), epochs), np.nan), hidden, samples=samples)


def space_of(space: Space | None, landscape: Landscape | None, default: Space) -> Space:
    """The space that is given, or that of the landscape, or the default; a ValueError where both are given."""
    checks.instance("space", space, (Space, type(None)), "a Space or None")
    checks.instance("landscape", landscape, (Landscape, type(None)), "a Landscape or None")
    if landscape is not None and space is not None:
        raise ValueError("space must be left out where a landscape is given: it has one.")
    return landscape.space if landscape else space or default


class _Record(training.Callback):
    """Keeps the accuracies after each epoch."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.accuracies: list[np.ndarray] = []  # [K] each

    def on_epoch_end(self, progress: training.Progress) -> None:
        assert isinstance(progress.model, cohort.Cohort)
        self.accuracies.append(accuracies(progress.model, self._dataset))


def _spread(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All cells of the first seed, then of the next: every fourth of each axis first, so the shape shows early."""

    def turn(place: tuple[int, ...]) -> tuple[int, int]:
        return place[0], next(step for step in (0, 1, 2) if all(at % (4 >> step) == 0 for at in place[1:]))

    return sorted((tuple(map(int, place)) for place in np.ndindex(*shape)), key=turn)
