"""The quickest instance of every explorer, for thousands of moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kit import board, measure
from kit.data import Dataset
from kit.explorers import (
    ArchitectureExplorer,
    BayesExplorer,
    BoardExplorer,
    CompressionExplorer,
    CostExplorer,
    DistillationExplorer,
    FrontExplorer,
    GradientExplorer,
    IntervalExplorer,
    MergeExplorer,
    PruningExplorer,
    SearchExplorer,
    SensitivityExplorer,
    SuspectsExplorer,
    TogetherExplorer,
    WorkersExplorer,
)
from kit.explorers.base import Explorer
from kit.models import MLP
from kit.search import architecture
from tests.landscapes import made_up
from tests.test_explorers_bayes import hill
from tests.toy_together import Toy


def _given(dataset: Dataset, model: MLP) -> Mapping[str, Any]:
    return {"model": model, "teacher": model, "dataset": dataset}


def _normed(model: MLP) -> nn.Module:
    """With batch statistics, so that they can be renewed."""
    return nn.Sequential(nn.BatchNorm1d(model.sizes[0]), model).eval()


def _normed_given(dataset: Dataset, model: MLP) -> Mapping[str, Any]:
    return {"model": _normed(model), "dataset": dataset}


def _two(dataset: Dataset, model: MLP) -> dict[str, Any]:
    """Both with batch statistics."""
    return {"a": _normed(model), "b": _normed(MLP(model.sizes, seed=1)), "dataset": dataset}


@dataclass(frozen=True)
class HandCase:
    """How to make it, and how to compare it with a fresh one."""

    name: str
    make: Callable[[Dataset, MLP], Explorer]
    cheap: Mapping[str, Any] = field(default_factory=dict)  # controls to set before a comparison
    given: Callable[[Dataset, MLP], Mapping[str, Any]] = _given  # by the names that `code` writes
    memory: tuple[str, ...] = ()  # figures that show more of what was looked at than a fresh one knows


def _board(dataset: Dataset, model: MLP) -> BoardExplorer:
    profile = measure.profile(model, dataset.validation)
    for number in range(12):  # a hand removes many of them
        board.pin(f"<b>pin</b> {number}", profile, dataset=dataset.key, technique="dense")
    return BoardExplorer(dataset)


def _landscaped(landscape: Any) -> Callable[[Dataset, MLP], Mapping[str, Any]]:
    return lambda dataset, model: {"dataset": dataset, "landscape": landscape}


PLANE, HILL, TABLE = made_up(), hill(), architecture.load()
CASES = [
    HandCase(
        "pruning",
        lambda dataset, model: PruningExplorer(_normed(model), dataset),
        {"size": "flops", "epochs": 0},
        _normed_given,
    ),
    HandCase(
        "compression",
        lambda dataset, model: CompressionExplorer(_normed(model), dataset),
        {"epochs": 0},
        _normed_given,
    ),
    HandCase(
        "distillation", lambda dataset, model: DistillationExplorer(model, dataset, width=4), {"seeds": 4, "epochs": 5}
    ),
    HandCase(
        "search",
        lambda dataset, _: SearchExplorer(dataset, landscape=PLANE, trainings=9),
        {"repeats": 4},
        _landscaped(PLANE),
    ),
    HandCase(
        "architecture",
        lambda *_: ArchitectureExplorer(TABLE, trainings=10),
        {"repeats": 4},
        lambda *_: {"table": TABLE},
    ),
    HandCase(
        "workers",
        lambda *_: WorkersExplorer(TABLE, trainings=10),
        {"repeats": 4},
        lambda *_: {"trained": TABLE},
    ),
    HandCase(
        "together",
        lambda dataset, _: TogetherExplorer(Toy(dataset), trials=16, method="random"),
        {"repeats": 1},
        lambda dataset, _: {"problem": Toy(dataset)},
        ("volume",),
    ),
    HandCase("bayes", lambda dataset, _: BayesExplorer(dataset, landscape=HILL), given=_landscaped(HILL)),
    HandCase("front", lambda *_: FrontExplorer()),
    HandCase("cost", lambda *_: CostExplorer()),
    HandCase("interval", lambda dataset, model: IntervalExplorer(model, dataset)),
    HandCase("board", _board),
    HandCase("sensitivity", lambda dataset, model: SensitivityExplorer(_normed(model), dataset), given=_normed_given),
    HandCase("merge", lambda dataset, model: MergeExplorer(**_two(dataset, model), epochs=1), given=_two),
    HandCase("suspects", lambda dataset, model: SuspectsExplorer(model, dataset, steps=3)),
    HandCase(
        "gradient", lambda dataset, model: GradientExplorer(model, dataset, steps=3, samples=20), memory=("loss",)
    ),
]
