"""A small instance of every explorer for the contract, and what the contract needs to know."""

from __future__ import annotations

import dataclasses
from threading import Event

from kit import board, measure, models
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
from kit.explorers.board import Answer, Settings
from kit.models import ConvNet
from kit.search import architecture
from tests.explorer_contract import Case
from tests.test_explorers_bayes import hill
from tests.toy_explorer import ToyExplorer
from tests.toy_together import Toy


def small_net() -> models.MLP:
    net = models.MLP((64, 12, 10))
    models.initialise(net, seed=0)
    return net


def other_net() -> models.MLP:
    return models.MLP((64, 12, 10), seed=1)


def few(digits: Dataset) -> Dataset:
    """200 images to train on: four steps an epoch."""
    return dataclasses.replace(digits, train=digits.train.first(200))


def on_the_board(digits: Dataset, trained: ConvNet) -> BoardExplorer:
    explorer = BoardExplorer(digits)
    compute, profile = explorer._compute, measure.profile(trained, digits.validation)

    def pin_first(settings: Settings, cancel: Event) -> Answer:  # each test has an empty board of its own
        if board.frame(digits.key).empty:
            board.pin("all of it", profile, dataset=digits.key, technique="dense")
        return compute(settings, cancel)

    explorer._compute = pin_first  # type: ignore[method-assign]
    explorer.refresh()
    return explorer


CASES = [
    Case("toy", lambda *_: ToyExplorer(), ({"tosses": 20}, {"tosses": 170}), off_stop=("tosses", 55), grows=True),
    Case(
        "pruning",
        lambda digits, _: PruningExplorer(small_net(), digits),
        ({"ratio": 0.9}, {"what": "channels", "importance": "random", "seed": 3}),
        off_stop=("ratio", 0.51),
        pins=True,
        grows=True,
        given=lambda digits, _: {"model": small_net(), "dataset": digits},
    ),
    Case(
        "compression",
        lambda digits, _: CompressionExplorer(small_net(), digits),
        ({"ratio": 0.8, "bits": 3}, {"kind": "uniform", "huffman": False, "energy": 0.9, "epochs": 1, "seed": 3}),
        off_stop=("ratio", 0.51),
        pins=True,
        grows=True,
        given=lambda digits, _: {"model": small_net(), "dataset": digits},
    ),
    Case(
        "distillation",
        lambda digits, trained: DistillationExplorer(trained, few(digits), width=8),
        ({"temperature": 16, "seed": 64}, {"alpha": 0.5, "width": 4, "transfer": "without the class", "epochs": 5}),
        off_stop=("alpha", 0.55),
        pins=True,
        grows=True,
        given=lambda digits, trained: {"teacher": trained, "dataset": few(digits)},
    ),
    Case(
        "search",
        lambda digits, _: SearchExplorer(few(digits), points=4, epochs=3, trainings=9),
        ({"budget": 12}, {"method": "halving", "seed": 8, "project": "dropout"}),
        off_stop=("budget", 13),
        pins=True,
        grows=True,
        given=lambda digits, _: {"dataset": few(digits)},
    ),
    Case(
        "architecture",
        lambda *_: ArchitectureExplorer(architecture.load(), trainings=10),
        ({"budget": 7}, {"method": "halving", "seed": 3, "cost": "latency", "limit": 0.5, "cell": "best"}),
        off_stop=("limit", 0.07),
        grows=True,
        given=lambda *_: {"table": architecture.load()},
    ),
    Case(
        "together",
        lambda digits, _: TogetherExplorer(Toy(digits), trials=16, method="random"),
        ({"afford": 300}, {"method": "NSGA-II", "budget": 16, "against": "ParEGO", "seed": 3, "repeats": 2}),
        off_stop=("afford", 560),
        pins=True,
        grows=True,
        given=lambda digits, _: {"problem": Toy(digits)},
    ),
    Case(
        "bayes",
        lambda digits, _: BayesExplorer(digits, landscape=hill()),
        ({"length": 0.3, "truth": True}, {"acquisition": "ucb", "exploration": 3, "seed": 2}),
        off_stop=("length", 0.16),
        given=lambda digits, _: {"dataset": digits, "landscape": hill()},
    ),
    Case(
        "interval",
        lambda digits, trained: IntervalExplorer(trained, digits),
        ({"n": 20}, {"n": 100, "seed": 3}),
        off_stop=("n", 60),
    ),
    Case(
        "front",
        lambda *_: FrontExplorer(),
        ({"size": 3.0}, {"points": "hollow front", "weight": 0.3, "corner": 2.0}),
        off_stop=("error", 3.5),
        given=lambda *_: {},
    ),
    Case(
        "cost",
        lambda *_: CostExplorer(),
        (
            {"bits": 4},
            {"model": "GPT-2", "batch": 64, "phase": "prefill", "zeros": "90 %", "hardware": "iPhone 15 Pro"},
        ),
        off_stop=("layers", 7),
        given=lambda *_: {},
    ),
    Case("board", on_the_board, ({"size": "flops"}, {"size": "latency"})),
    Case(
        "sensitivity",
        lambda digits, _: SensitivityExplorer(small_net(), digits, ratio=0.5),
        ({"ratio": 0.9}, {"importance": "random", "ratio": 0.2}),
        off_stop=("ratio", 0.51),
        given=lambda digits, _: {"model": small_net(), "dataset": digits},
    ),
    Case(
        "merge",
        lambda digits, _: MergeExplorer(small_net(), other_net(), few(digits), epochs=1),
        ({"t": 0.2}, {"t": 0.8, "aligned": True, "show": "loss"}),
        off_stop=("t", 0.33),
        pins=True,
        grows=True,
        given=lambda digits, _: {"a": small_net(), "b": other_net(), "dataset": few(digits)},
    ),
    Case(
        "suspects",
        lambda digits, _: SuspectsExplorer(small_net(), few(digits), steps=10),
        ({"step": 2}, {"share": 0.4, "to": "next", "seed": 3}),
        off_stop=("share", 0.15),
        given=lambda digits, _: {"model": small_net(), "dataset": few(digits)},
    ),
    Case(
        "gradient",
        lambda digits, _: GradientExplorer(small_net(), digits, steps=6, samples=50),
        ({"weight_decay": 0.01}, {"weight_decay": 0.001, "back": 3, "solver": "neumann", "damping": 0.1, "seed": 2}),
        off_stop=("weight_decay", 0.0041),
        pins=True,
        grows=True,
        given=lambda digits, _: {"model": small_net(), "dataset": digits},
    ),
    Case(
        "workers",
        lambda *_: WorkersExplorer(architecture.load(), trainings=10),
        ({"workers": 4}, {"method": "ASHA", "slow": 3.0, "driver": 10.0, "seed": 3}),
        off_stop=("workers", 3),
        grows=True,
        given=lambda *_: {"trained": architecture.load()},
    ),
]
