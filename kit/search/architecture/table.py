"""A table of every network of the space, trained: each search reads from it what a training would have given.

| to | call |
|---|---|
| read the one that ships | `table = load()` |
| search it | `Study(table.space(flops=200_000), maximise=True).run(table.objective(), Evolution(), budget=100)` |
| search it, and retest what is found | `search(table, Evolution(), budget=100, limit={"flops": 200_000})` |
| train one of its networks again | `train(dataset, cell, seed)` |

It is made by `make table` (`kit.search.architecture.making`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from kit import checks, models, training
from kit.cells import Cell, as_cell, networks, parse
from kit.data import Dataset
from kit.search.architecture.space import space_of
from kit.search.networks import drawn_seed
from kit.search.replay import Trajectory, replay
from kit.search.space import Config, Space
from kit.search.study import Study
from kit.search.trials import Method, Trial

VERSION = 1
EPOCHS, SAMPLES = 8, 1000  # of one training
RECIPE: dict[str, Any] = {"optimiser": "adam", "lr": 0.02, "batch_size": 50, "schedule": "one-cycle"}
COSTS = ("parameters", "flops", "latency")
PATH = Path(__file__).resolve().parents[3] / "data" / "architectures.npz"


class TableError(ValueError):
    """A table that cannot be used; the sentence says why, and the way out."""


@dataclass(frozen=True, eq=False)
class Table:
    """What every network reached, and what it costs.

    Attributes:
        cells: canonical ones, [n].
        curves: validation accuracy after each epoch, [n, seeds, epochs].
        test: test accuracy after the last epoch, [n, seeds].
        parameters: of each network, [n].
        flops: of one image, [n].
        latency: milliseconds for one image: median, and the lower and upper end of its 95 % interval, [n, 3].
        made: how: "data" (key), "recipe", "versions", "date", "seconds" (of the processor, all
            trainings), "machine", "validated" and "tested" (images of each split).
    """

    cells: tuple[Cell, ...]
    curves: np.ndarray
    test: np.ndarray
    parameters: np.ndarray
    flops: np.ndarray
    latency: np.ndarray
    made: Mapping[str, Any]

    @property
    def seeds(self) -> int:
        """Trainings of each network."""
        return int(self.curves.shape[1])

    @property
    def epochs(self) -> int:
        """Epochs of each training."""
        return int(self.curves.shape[2])

    @cached_property
    def mean(self) -> np.ndarray:
        """Validation accuracy after the last epoch, mean over the seeds. -> [n]."""
        return self.curves[:, :, -1].mean(1)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The row of each network by the text of its canonical cell."""
        return {str(cell): at for at, cell in enumerate(self.cells)}

    def row(self, cell: Cell | str) -> int:
        """The row of a cell's network; a ValueError where the cell is malformed, or not connected."""
        return self.places[str(as_cell(cell).canonical)]

    def costs(self, what: str) -> np.ndarray:
        """One of `COSTS` for each network, [n]; all else is a ValueError."""
        checks.one_of("what", what, COSTS)
        return self.latency[:, 0] if what == "latency" else getattr(self, what)

    def within(self, **limits: float) -> np.ndarray:
        """Which networks cost no more than each limit, of `COSTS`. -> [n] of bool.

        Raises:
            ValueError: an unknown cost, or limits that no network keeps.
        """
        found = np.full(len(self.cells), True)
        for what, limit in limits.items():
            costs, most = self.costs(what), checks.number(what, limit, above=0)
            found &= costs <= most
            if not found.any():
                both = "" if len(limits) == 1 else " beside the other limits"
                raise ValueError(
                    f"{what} must be {costs.min():g} or more, as of the smallest network; got {most:g}{both}."
                )
        return found

    def space(self, **limits: float) -> Space:
        """The networks within the limits, to be searched; errors as in `within`."""
        return space_of([self.cells[at] for at in np.flatnonzero(self.within(**limits))])

    def objective(self, repeat: int = 0) -> TableObjective:
        """Search it: a trial reads one training of its network; another `repeat` reads other ones."""
        return TableObjective(self, repeat)


class TableObjective:
    """A configuration in, the validation accuracy of one training out, after the epochs that are asked for.

    The later epochs are those of the same training, so a trial that goes on spends only new ones.
    """

    resumes = True

    def __init__(self, table: Table, repeat: int) -> None:
        self.table, self.repeat = table, checks.whole("repeat", repeat)

    def seed(self, config: Config) -> int:
        """Which training a trial reads: the same for all trials of a network."""
        return drawn_seed(self.repeat, config) % self.table.seeds

    def __call__(self, config: Config, *, epochs: int | None = None) -> float:
        """The accuracy; a ValueError for more epochs than were trained."""
        most = self.table.epochs
        epochs = most if epochs is None else checks.whole("epochs", epochs, 1, most)
        return float(self.table.curves[self.table.places[config["cell"]], self.seed(config), epochs - 1])

    def retest(self, config: Config) -> float:
        """What the other trainings of the network reach: the mean of what no trial of this repeat has read."""
        last = self.table.curves[self.table.places[config["cell"]], :, -1]
        return float(np.delete(last, self.seed(config)).mean())


def search(
    table: Table,
    method: Method,
    *,
    budget: int,
    repeat: int = 0,
    limits: Mapping[str, float] | None = None,
    on_trial: Callable[[tuple[Trial, ...]], None] | None = None,
    cancel: Event | None = None,
) -> Trajectory:
    """Search a table, and retest each incumbent on the other trainings of its network.

    Args:
        table: of all networks.
        method: proposes.
        budget: trainings, 1 or more, and no more than there are networks within the limits; a method that stops
            trainings early spends as many epochs.
        repeat: which trainings are read.
        limits: as in `Table.within`.
        on_trial: called after each trial with all of them.
        cancel: looked at between trials.

    Raises:
        training.Cancelled: `cancel` was set.
        ValueError: an argument out of range.
    """
    checks.instance("table", table, Table)
    space, objective = table.space(**limits or {}), table.objective(repeat)
    checks.whole("budget", budget, 1, int(space.count))
    study = Study(space, maximise=True)
    listen = None if on_trial is None else lambda _: on_trial(study.trials)
    epochs: dict[str, Any] = {"budget": budget * table.epochs, "unit": "epochs", "epochs": table.epochs}
    study.run(objective, method, on_trial=listen, cancel=cancel, **epochs)
    if cancel is not None and cancel.is_set():
        raise training.Cancelled("cancelled in the middle of a search.")
    return replay(study.trials, objective.retest, maximise=True)


def part(dataset: Dataset) -> Dataset:
    """What of a data set networks are trained and scored on: `SAMPLES` train, all of validation and test score."""
    return replace(dataset, train=dataset.part(SAMPLES).train)


def network(dataset: Dataset, cell: Cell | str, seed: int = 0) -> models.CellNet:
    """The untrained network of a cell for a data set of images: patches of a seventh of the side, as in the table."""
    channels, _, side = dataset.input_shape
    return models.CellNet(cell, channels, max(1, side // 7), n_classes=dataset.n_classes, seed=seed)


def train(
    dataset: Dataset, cell: Cell | str, seed: int = 0, *, epochs: int = EPOCHS, cancel: Event | None = None
) -> tuple[models.CellNet, tuple[float, ...]]:
    """One training as in the table: the network, and its validation accuracy after each epoch.

    Args:
        dataset: images; `part` of it is used.
        cell: whose network.
        seed: of its weights and of the order of the samples.
        epochs: of the whole training, which sets its learning rates: fewer are no beginning of more.
        cancel: looked at before each batch.
    """
    record = _Record(used := part(dataset))
    model = network(dataset, cell, seed)
    training.fit(model, used, epochs=epochs, seed=seed, callbacks=[record], cancel=cancel, **RECIPE)
    return model, tuple(record.accuracies)


class _Record(training.Callback):
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.accuracies: list[float] = []

    def on_epoch_end(self, progress: training.Progress) -> None:
        found = training.evaluate(progress.model, self._dataset.validation)
        self.accuracies.append(found.correct / found.total)


def save(table: Table, path: Path = PATH) -> None:
    """Write a table, whole or not at all."""
    arrays = {
        "right": np.round(table.curves * table.made["validated"]).astype(np.uint16),
        "test_right": np.round(table.test * table.made["tested"]).astype(np.uint16),
        "parameters": table.parameters.astype(np.uint32),
        "flops": table.flops.astype(np.uint32),
        "latency": table.latency.astype(np.float32),
    }
    head = {"version": VERSION, "sum": _sum(arrays), "cells": list(map(str, table.cells)), "made": dict(table.made)}
    new = path.with_name(f"{path.stem}.new.npz")
    np.savez_compressed(new, head=np.array(json.dumps(head)), **arrays)
    new.replace(path)


def load(path: Path | str = PATH) -> Table:
    """Read a table; `TableError` where it is missing, damaged, of another version, or of another space."""
    checks.instance("path", path, (Path, str), "a path")
    try:
        with np.load(path, allow_pickle=False) as file:
            head, arrays = json.loads(str(file["head"])), {name: file[name] for name in file.files if name != "head"}
    except FileNotFoundError as error:
        raise TableError(f"path: there is no table {path}; `make table` trains one.") from error
    except Exception as error:  # of zip, zlib, numpy and json, each in its own way
        raise TableError(
            f"path: {path} is damaged, or no table; get it anew, or delete it and `make table`."
        ) from error
    if head.get("version") != VERSION:
        came = f"version {head.get('version')}"
        raise TableError(f"path: {path} is of {came}, this kit reads version {VERSION}; get it anew, or `make table`.")
    if head.get("sum") != _sum(arrays):
        raise TableError(f"path: {path} is damaged: its sum is not what it says; get it anew, or `make table`.")
    if head["cells"] != list(map(str, networks())):
        raise TableError(f"path: {path} is of another space of cells; get it anew, or `make table`.")
    made = head["made"]
    curves, test = arrays["right"] / made["validated"], arrays["test_right"] / made["tested"]
    costs = {name: arrays[name].astype(float if name == "latency" else int) for name in COSTS}
    return Table(tuple(map(parse, head["cells"])), curves, test, made=made, **costs)


def _sum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + str(arrays[name].shape).encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]
