"""A made-up problem of two objectives that costs nothing: its front is known, and each trial is lucky or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from kit import compress, models, prune
from kit.data import Dataset
from kit.measure import Estimate
from kit.search import Float, Goal, Goals, Int, Space, Study

GOALS = Goals({"accuracy": Goal(maximise=True, limit=0.5), "bytes": Goal(log=True, limit=5000)})
SPREAD = 0.02  # of the luck of a trial, share


class Toy:
    """Wider networks are better and larger, pruned ones are smaller and worse; a learning rate near 0.01 is best."""

    space = Space({"width": Int(2, 32, log=True), "ratio": Float(0, 0.95), "lr": Float(1e-3, 0.1, log=True)})
    goals = GOALS

    def __init__(self, dataset: Dataset | None = None) -> None:
        self.dataset = dataset
        self.asked = 0  # configurations that were measured

    def __call__(self, config: Mapping[str, Any]) -> dict[str, float]:
        self.asked += 1
        return {"accuracy": self.accuracy(config, 0), "bytes": size(config)}

    def batch(self, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        return [self(config) for config in configs]

    def accuracy(self, config: Mapping[str, Any], seed: int) -> float:
        rng = np.random.default_rng([seed, config["width"], int(1e6 * config["ratio"])])
        return float(np.clip(worth(config) + SPREAD * rng.normal(), 0, 1))

    def retest(self, config: Mapping[str, Any]) -> tuple[Estimate, Estimate]:
        found = [self.accuracy(config, seed) for seed in range(1, 9)]
        same = size(config)
        return Estimate.from_values(found).share, Estimate(same, same, same, 8)

    def make(self, config: Mapping[str, Any]) -> tuple[nn.Module, bytes]:
        inputs = 64 if self.dataset is None else self.dataset.train.inputs[0].numel()
        classes = 10 if self.dataset is None else self.dataset.n_classes
        net = prune.weights(models.MLP((inputs, config["width"], classes)), ratio=config["ratio"])
        if config["width"] > 16:  # the layer from the pixels is two thin ones
            net = compress.low_rank(net, rank={"layers.0": 4}).model
        return net, compress.encode(net).data


def worth(config: Mapping[str, Any]) -> float:
    """Accuracy without luck."""
    off = math.log10(config["lr"] / 0.01)
    return 0.97 - 0.5 * config["width"] ** -0.8 - 0.3 * float(config["ratio"]) ** 6 - 0.1 * off**2


def size(config: Mapping[str, Any]) -> float:
    return float(round(60 + 130 * config["width"] * (1.02 - config["ratio"])))


def widest_first(budget: int, seed: int) -> Study:
    """A rival: it walks down from the widest network, nothing else."""
    toy = Toy()
    study = Study(Toy.space, objectives=GOALS.goals)
    for width in np.linspace(32, 2, budget).round().astype(int).tolist():
        trial = study.enqueue({"width": width, "ratio": 0.5, "lr": 0.003 + 0.001 * seed})
        study.tell(trial.number, toy(trial.config))
    return study
