"""A table of every network of the space, trained: each search reads from it what a training would have given.

| to | call |
|---|---|
| read the one that ships | `table = load()` |
| search it | `Study(table.space(flops=200_000), maximise=True).run(table.objective(), Evolution(), budget=100)` |
| search it, and retest what is found | `search(table, Evolution(), budget=100, limits={"flops": 200_000})` |
| train one of its networks again | `train(dataset, cell, seed)` |

It is made by `make table` (`kit.search.architecture.making`).
"""

from __future__ import annotations

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
from kit.search.landscape import searched
from kit.search.networks import drawn_seed
from kit.search.replay import Trajectory
from kit.search.space import Config, Space
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
        """The row of a cell's network; a ValueError where it is malformed, not connected, or not in the table."""
        found = self.places.get(str(as_cell(cell).canonical))
        if found is None:
            raise ValueError(f"cell must be of the {len(self.cells):,} networks of the table; got {str(cell)!r}.")
        return found

    def costs(self, what: str) -> np.ndarray:
        """One of `COSTS` for each network, [n]; all else is a ValueError."""
        checks.one_of("what", what, COSTS)
        return self.latency[:, 0] if what == "latency" else getattr(self, what)

    def within(self, **limits: float) -> np.ndarray:
        """Which networks cost no more than each limit, of `COSTS`. -> [n] of bool.

        Raises:
            ValueError: an unknown cost, or limits that no network keeps.
            TypeError: a limit that is no number.
        """
        checks.named("limits", limits, COSTS, "limited")
        found = np.full(len(self.cells), True)
        for what, limit in limits.items():
            costs, most = self.costs(what), checks.number(what, limit, above=0)
            if not (found & (costs <= most)).any():
                which = "smallest network" if found.all() else "smallest network within the other limits"
                raise ValueError(f"{what} must be {costs[found].min():,} or more, as of the {which}; got {limit!r}.")
            found &= costs <= most
        return found

    def space(self, **limits: float) -> Space:
        """The networks within the limits, to be searched; errors as in `within`, and where they leave only one."""
        if not limits:
            return self._whole
        kept = [self.cells[at] for at in np.flatnonzero(self.within(**limits))]
        if len(kept) == 1:
            raise ValueError(f"{' and '.join(limits)} must leave two or more networks; only {str(kept[0])!r} is left.")
        return space_of(kept)

    @cached_property
    def _whole(self) -> Space:
        return space_of(self.cells)

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
        return drawn_seed(self.repeat, {"cell": str(self.table.cells[self._row(config)])}) % self.table.seeds

    def __call__(self, config: Config, *, epochs: int | None = None) -> float:
        """The accuracy; a ValueError for more epochs than were trained, or what is no cell of the table."""
        most = self.table.epochs
        epochs = most if epochs is None else checks.whole("epochs", epochs, 1, most)
        return float(self.table.curves[self._row(config), self.seed(config), epochs - 1])

    def retest(self, config: Config) -> float:
        """What the other trainings of the network reach: the mean of what no trial of this repeat has read.

        A ValueError where the table has one training of each network alone.
        """
        if self.table.seeds < 2:
            raise ValueError("table must have two trainings or more of each network to retest one; got 1.")
        last = self.table.curves[self._row(config), :, -1]
        return float(np.delete(last, self.seed(config)).mean())

    def _row(self, config: Config) -> int:
        return self.table.row(config.get("cell", ""))


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
        TypeError: one of another kind.
    """
    checks.instance("table", table, Table)
    checks.instance("limits", limits or {}, Mapping, "a dict, such as {'flops': 200_000}")
    space, objective = table.space(**limits or {}), table.objective(repeat)
    checks.whole("budget", budget, 1, int(space.count))
    return searched(space, objective, method, budget * table.epochs, table.epochs, on_trial, cancel)


def part(dataset: Dataset) -> Dataset:
    """What of a data set networks are trained and scored on: `SAMPLES` train, all of validation and test score."""
    return replace(dataset, train=dataset.part(SAMPLES).train)


def network(dataset: Dataset, cell: Cell | str, seed: int = 0) -> models.CellNet:
    """The untrained network of a cell for a data set of images, as in the table.

    A ValueError where the samples are no images, or the cell is malformed or not connected.
    """
    return models.CellNet(cell, **sizes_of(dataset), seed=seed)


def sizes_of(dataset: Dataset) -> dict[str, int]:
    """Arguments of `CellNet` for a data set of images: patches of a seventh of the side; a ValueError for others."""
    training.check_dataset(dataset)
    if len(dataset.input_shape) != 3:
        raise ValueError(f"dataset must be of images, channels x height x width; got samples of {dataset.input_shape}.")
    channels, *sides = dataset.input_shape
    return {"in_channels": channels, "patch": max(1, min(sides) // 7), "n_classes": dataset.n_classes}


def train(
    dataset: Dataset, cell: Cell | str, seed: int = 0, *, epochs: int = EPOCHS, cancel: Event | None = None
) -> tuple[models.CellNet, tuple[float, ...]]:
    """One training as in the table: the network, and its validation accuracy after each epoch.

    With those of the table it can be compared where the data set is the same, `dataset.key == table.made["data"]`.

    Args:
        dataset: images; `part` of it is used.
        cell: whose network.
        seed: of its weights and of the order of the samples.
        epochs: of the whole training, which sets its learning rates: fewer are no beginning of more.
        cancel: looked at before each batch.
    """
    model = network(dataset, cell, seed)
    record = _Record(used := part(dataset))
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
    head = {"version": VERSION, "cells": list(map(str, table.cells)), "made": dict(table.made)}
    new = path.with_name(f"{path.stem}.new.npz")
    np.savez_compressed(new, head=np.array(json.dumps(head)), **arrays)
    new.replace(path)


def load(path: Path | str = PATH) -> Table:
    """Read a table; `TableError` where it is missing, damaged, of another version, or of another space."""
    checks.instance("path", path, (Path, str), "a path")
    try:
        with np.load(path, allow_pickle=False) as file:
            if wrong := file.zip.testzip():
                raise ValueError(f"the sum of {wrong} is not what it says")
            head = json.loads(str(file["head"]))
            version = head["version"]
            arrays = {name: file[name] for name in ("right", "test_right", *COSTS) if version == VERSION}
    except FileNotFoundError as error:
        raise TableError(f"path: there is no table {path}; `make table` trains one.") from error
    except Exception as error:  # of zip, zlib, numpy and json, each in its own way
        raise TableError(f"path: {path} is damaged, or no table; get it anew, or `make table`.") from error
    if version != VERSION:
        came = f"version {version}, this kit reads version {VERSION}"
        raise TableError(f"path: {path} is of {came}; get it anew, or `make table`.")
    if head["cells"] != list(map(str, networks())):
        raise TableError(f"path: {path} is of another space of cells; get it anew, or `make table`.")
    made = head["made"]
    curves, test = arrays["right"] / made["validated"], arrays["test_right"] / made["tested"]
    costs = {name: arrays[name].astype(float if name == "latency" else int) for name in COSTS}
    return Table(tuple(map(parse, head["cells"])), curves, test, made=made, **costs)
