"""The open task on architecture search: several searches that beat random search, and plausible ones that do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kit import exercises
from kit.cells import parse
from kit.exercises import architecture_task as task

Cells = Mapping[str, int]


def by_size(cells: Cells, rng: Any) -> list[str]:
    return sorted(cells, key=lambda cell: (-cells[cell], rng.random()))


def halving(cells: Cells, read: Any, budget: int, rng: Any) -> str:
    left = by_size(cells, rng)[:80]
    for epochs in (1, 2, 4):
        left = sorted(left, key=lambda cell: read(cell, epochs))[-len(left) // 2 :]
    return max(left, key=read)


def climbing(cells: Cells, read: Any, budget: int, rng: Any) -> str:
    known = {cell: read(cell) for cell in rng.permutation(by_size(cells, rng)[:60])[:18].tolist()}
    while len(known) < 30:
        best = sorted(known, key=known.__getitem__)[-5:]
        near = {str(other) for cell in best for other in parse(cell).neighbours()} & cells.keys() - known.keys()
        cell = str(rng.choice(sorted(near, key=lambda cell: (cells[cell], cell))[-10:]))
        known[cell] = read(cell)
    return max(known, key=known.__getitem__)


def ten(cells: Cells, read: Any, budget: int, rng: Any) -> str:
    return max(by_size(cells, rng)[:10], key=read)


def half(cells: Cells, read: Any, budget: int, rng: Any) -> str:
    return max(rng.permutation(by_size(cells, rng)[: len(cells) // 2])[:30].tolist(), key=read)


def conv3(cells: Cells, read: Any, budget: int, rng: Any) -> str:
    return max(sorted(cells, key=lambda cell: (-cell.count("conv3"), rng.random()))[:30], key=read)


@pytest.mark.parametrize("right", [halving, climbing, ten, half, conv3])
def test_searches_among_large_cells_beat_random_search(right: Any) -> None:
    verdict = exercises.best_small_cell(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    "wrong",
    [
        lambda cells, read, budget, rng: max(rng.permutation(list(cells))[:30].tolist(), key=read),  # random search
        lambda cells, read, budget, rng: max(rng.permutation(list(cells))[:240].tolist(), key=lambda at: read(at, 1)),
        lambda cells, read, budget, rng: by_size(cells, rng)[0],  # not trained
        lambda cells, read, budget, rng: max(by_size(cells, rng)[-30:], key=read),  # small ones
    ],
)
def test_these_do_not_beat_it(wrong: Any) -> None:
    verdict = exercises.best_small_cell(wrong)
    assert not verdict.right
    assert "It counts as beaten when the whole interval is above 0" in verdict.message


def test_the_score_is_the_mean_difference_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "_judged", lambda answer, seed: (0.90, 0.92, 0.91)[seed])
    monkeypatch.setattr(task, "_rival", lambda seed: (0.89, 0.90, 0.90)[seed])
    verdict = exercises.best_small_cell(ten, seeds=range(3))
    half = 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # points; Student's t, 2 degrees of freedom; differences 1, 2, 1
    assert f" {4 / 3:.2f} points better" in verdict.message
    assert f"interval of the gain {4 / 3 - half:+.2f} to {4 / 3 + half:+.2f}, 3 searches" in verdict.message
    assert verdict.right == (4 / 3 - half > 0)
    monkeypatch.setattr(task, "_rival", lambda seed: 0.93)
    assert " 2.00 points worse" in exercises.best_small_cell(ten, seeds=range(3)).message


def test_what_is_read_and_what_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    table, seed = task.table(), 101
    seen: list[float] = []

    def answer(cells: Cells, read: Any, budget: int, rng: Any) -> str:
        assert budget == 240
        assert sorted(cells.values()) == sorted(table.flops[table.flops <= task.LIMITS[seed % 3]])
        some = list(cells)[:31]
        for epochs in (1, 4, 4, 2):  # each epoch is paid once
            seen.append(read(some[0], epochs))
        for cell in some[1:30]:
            read(cell)
        assert read(some[30], 4) > 0  # 4 + 29 * 8 + 4 epochs: all of it
        return some[0]

    judged = task._judged(answer, seed)
    curves = table.curves[table.row(next(iter(parsed_within(seed))))]  # [3, 8]
    mine = next(at for at in range(3) if np.isclose(curves[at, [0, 3, 3, 1]], seen).all())
    assert judged == pytest.approx(np.delete(curves[:, -1], mine).mean())


def parsed_within(seed: int) -> list[str]:
    table = task.table()
    return [str(cell) for cell, flops in zip(table.cells, table.flops, strict=True) if flops <= task.LIMITS[seed % 3]]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda cells, read, budget, rng: ..., "three dots"),
        (lambda cells, read, budget, rng: max(cells, key=read), r"You spend 248 epochs; the budget is 240"),
        (lambda cells, read, budget, rng: read("conv3 | conv3 conv3 | conv3 conv3"), "Read one of the cells"),
        (
            lambda cells, read, budget, rng: "conv3 | conv3 conv3 | conv3 conv3",
            "Return one of the cells .*; got 'conv3",
        ),
        (lambda cells, read, budget, rng: read(next(iter(cells)), 9), "epochs"),
        (lambda cells, read, budget, rng: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_search_that_is_none(monkeypatch: pytest.MonkeyPatch, wrong: Any, reason: str) -> None:
    monkeypatch.setattr(task, "_rival", lambda seed: 0.9)
    verdict = exercises.best_small_cell(wrong, seeds=range(2))
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message
