"""Train every network of the space, and write the table: `make table`.

What is trained is kept line by line in `data/architectures.jsonl`, so that it goes on where it was stopped; delete that
file to begin again. Its first line says what is trained, and how: trainings of another kind are not mixed in.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import time
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit import cores, data, measure, sizes, training
from kit.cells import networks
from kit.data import Dataset
from kit.search.architecture import table as tables

SEEDS = 3
RUNS = 45  # of each latency


def one(work: tuple[str, int]) -> dict[str, Any]:
    """Train one network: its cell, its seed."""
    cell, seed = work
    began = time.process_time()
    model, curve = tables.train(_mnist(), cell, seed)
    found = training.evaluate(model, _mnist().test)
    seconds = time.process_time() - began
    return {"cell": cell, "seed": seed, "curve": curve, "test": found.correct / found.total, "seconds": seconds}


def recipe(dataset: Dataset) -> dict[str, Any]:
    """What a training follows from: those of another recipe do not belong into one table."""
    return {
        "data": dataset.key,
        "samples": tables.SAMPLES,
        "validated": len(dataset.validation),
        "tested": len(dataset.test),
        "recipe": {"epochs": tables.EPOCHS, **tables.RECIPE},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def rows(kept: Path, workers: int) -> Iterator[dict[str, Any]]:
    """All trainings, those of the file first; each new one is written to it at once.

    A TableError where the file holds trainings of other data, or by another recipe or other versions.
    """
    head = json.dumps(recipe(_mnist()))
    kept.touch()
    with kept.open("r+b") as file:  # a line that was cut off is trained again
        whole = file.read().rpartition(b"\n")
        file.truncate(file.seek(len(whole[0] + whole[1])))
        if not whole[0]:
            file.write(f"{head}\n".encode())
    first, *lines = kept.read_text().splitlines()
    if first != head:
        raise tables.TableError(
            f"kept: {kept} holds other trainings, of {first}, than {head}; delete it to begin again."
        )
    done = [json.loads(line) for line in lines]
    yield from done
    told = {(row["cell"], row["seed"]) for row in done}
    waiting = [(str(cell), seed) for seed in range(SEEDS) for cell in networks() if (str(cell), seed) not in told]
    with multiprocessing.get_context("spawn").Pool(workers) as pool, kept.open("a") as file:
        for row in pool.imap_unordered(one, waiting):
            file.write(json.dumps(row) + "\n")
            file.flush()
            yield row


def assembled(found: list[dict[str, Any]], dataset: Dataset) -> tables.Table:
    """The table of all trainings, and of what each network costs."""
    cells = networks()
    at = {str(cell): number for number, cell in enumerate(cells)}
    curves, test = np.zeros((len(cells), SEEDS, tables.EPOCHS)), np.zeros((len(cells), SEEDS))
    for row in found:
        curves[at[row["cell"]], row["seed"]] = row["curve"]
        test[at[row["cell"]], row["seed"]] = row["test"]
    models = [tables.network(dataset, cell) for cell in cells]
    images = dataset.validation.inputs[:1]
    with cores.one_thread():
        times = measure.latencies(models, images, runs=RUNS)
    made = {
        **recipe(dataset),
        "machine": f"{platform.machine()}, {cores.count()} cores",
        "date": date.today().isoformat(),
        "seconds": round(sum(row["seconds"] for row in found)),
    }
    return tables.Table(
        cells,
        curves,
        test,
        np.array([sizes.parameters(model) for model in models]),
        np.array([sizes.flops(model, images) for model in models]),
        np.array([(time.value, time.low, time.high) for time in times]),
        made,
    )


@cache
def _mnist() -> Dataset:
    return data.mnist()


def main(path: Path = tables.PATH) -> None:
    """Train what is missing, and write the table."""
    total, began, found = SEEDS * len(networks()), time.monotonic(), list[dict[str, Any]]()
    for row in rows(path.with_suffix(".jsonl"), cores.count()):
        found.append(row)
        if len(found) % 50 == 0:
            print(f"{len(found):,} of {total:,} trainings, {time.monotonic() - began:,.0f} s", flush=True)
    tables.save(assembled(found, _mnist()), path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
