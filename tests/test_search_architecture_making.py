"""Making the table: every network trained, from where it was stopped, and nothing of another recipe mixed in."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import multiprocessing.dummy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import sizes
from kit.cells import parse
from kit.data import Dataset
from kit.search.architecture import TableError, load, making, train
from kit.search.architecture import table as tables

pytestmark = pytest.mark.usefixtures("one_thread")

TWO = tuple(map(parse, ("none | skip none | none pool", "none | conv3 none | none skip")))
ALL = {(str(cell), seed) for cell, seed in itertools.product(TWO, range(3))}


@pytest.fixture
def trained(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A space of two networks, and a recipe of one batch an epoch, in threads; what is trained, in its order."""
    work: list[tuple[str, int]] = []
    one = making.one

    def noted(item: tuple[str, int]) -> dict[str, Any]:
        work.append(item)
        return one(item)

    monkeypatch.setattr(making, "one", noted)
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: multiprocessing.dummy)
    monkeypatch.setattr(making, "_mnist", lambda: digits)
    monkeypatch.setattr(making.cores, "count", lambda: 1)
    monkeypatch.setattr(tables, "SAMPLES", 50)
    for module in (making, tables):
        monkeypatch.setattr(module, "networks", lambda: TWO)
    return work


def test_the_table_is_that_of_the_trainings(trained: list[tuple[str, int]], digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    making.main(path)
    assert set(trained) == ALL
    table = load(path)
    assert (table.cells, table.curves.shape, table.test.shape) == (TWO, (2, 3, 8), (2, 3))
    for (row, cell), seed in itertools.product(enumerate(TWO), range(3)):
        model, curve = train(digits, cell, seed)
        assert table.curves[row, seed].tolist() == pytest.approx(curve, abs=1e-9)
        right = (model.eval()(digits.test.inputs).argmax(1) == digits.test.labels).sum().item()
        assert table.test[row, seed] == right / len(digits.test)
    nets = [tables.network(digits, cell) for cell in TWO]
    assert table.parameters.tolist() == [sum(weight.numel() for weight in net.parameters()) for net in nets]
    assert table.flops.tolist() == [sizes.flops(net, digits.validation.inputs[:1]) for net in nets]
    assert (table.latency > 0).all()
    assert table.made["data"] == digits.key
    assert table.made["samples"] == 50
    assert table.made["recipe"]["lr"] == 0.02
    assert table.made["seconds"] >= 0


def test_it_goes_on_where_it_was_stopped(trained: list[tuple[str, int]], tmp_path: Path) -> None:
    """What was written stays; a last line that was cut off is trained again, at whatever byte it was cut."""
    kept = tmp_path / "table.jsonl"
    first = list(making.rows(kept, 1))
    whole, work = kept.read_bytes(), trained.copy()
    assert {(row["cell"], row["seed"]) for row in first} == set(work) == ALL
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 1 + len(work)
    for n, cut in ((0, 20), (1, 0), (1, 1), (3, 40), (6, len(lines[6]) - 1), (7, 0)):
        trained.clear()
        kept.write_bytes(b"".join(lines[:n]) + (lines[n][:cut] if n < len(lines) else b""))
        rows = list(making.rows(kept, 1))
        done = max(0, n - 1)
        assert trained == work[done:]
        assert [tell(row) for row in rows] == [tell(row) for row in first]
        assert [tell(json.loads(line)) for line in kept.read_text().splitlines()[1:]] == [tell(row) for row in first]


def tell(row: dict[str, Any]) -> dict[str, Any]:
    """As a file has it; all but what the clock says."""
    return {name: value for name, value in json.loads(json.dumps(row)).items() if name != "seconds"}


def test_one_that_is_interrupted_has_written_what_it_yielded(trained: list[tuple[str, int]], tmp_path: Path) -> None:
    kept = tmp_path / "table.jsonl"
    rows = making.rows(kept, 1)
    told = [next(rows) for _ in range(2)]
    rows.close()  # type: ignore[attr-defined]
    written = [json.loads(line) for line in kept.read_text().splitlines()[1:3]]
    assert list(map(tell, written)) == list(map(tell, told))
    assert {(row["cell"], row["seed"]) for row in making.rows(kept, 1)} == ALL
    assert len(kept.read_text().splitlines()) == 1 + len(ALL)


@pytest.mark.parametrize("change", ["lr", "epochs", "samples", "torch", "data", "no head"])
def test_trainings_of_another_kind_are_not_mixed_in(
    trained: list[tuple[str, int]], few_digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    kept = tmp_path / "table.jsonl"
    list(making.rows(kept, 1))
    changes: dict[str, tuple[Any, str, Any]] = {
        "lr": (tables, "RECIPE", {**tables.RECIPE, "lr": 0.01}),
        "epochs": (tables, "EPOCHS", 9),
        "samples": (tables, "SAMPLES", 60),
        "torch": (making.torch, "__version__", "1.0"),
        "data": (making, "_mnist", lambda: few_digits),
    }
    if change in changes:
        monkeypatch.setattr(*changes[change])
    else:
        kept.write_text("".join(kept.read_text().splitlines(keepends=True)[1:]))
    before = kept.read_bytes()
    trained.clear()
    with pytest.raises(TableError, match=r"^kept: .*table.jsonl holds other trainings, .*; delete it to begin again.$"):
        list(making.rows(kept, 1))
    assert (trained, kept.read_bytes()) == ([], before)


def test_a_training_that_fails_stops_it_and_the_rest_is_kept(
    trained: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "table.npz", tmp_path / "table.jsonl"
    one = making.one

    def fails(item: tuple[str, int]) -> dict[str, Any]:
        if item[1] == 1:
            raise MemoryError("none left")
        return one(item)

    with monkeypatch.context() as patch:
        patch.setattr(making, "one", fails)
        with pytest.raises(MemoryError):
            making.main(path)
    assert not path.exists()
    told = [json.loads(line) for line in kept.read_text().splitlines()[1:]]
    assert [row["seed"] for row in told] == [0, 0]
    making.main(path)
    assert np.all(load(path).curves > 0)
