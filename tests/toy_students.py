"""A stand-in for the joint problem that trains nothing: about how accuracy and bytes of its students go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit import together
from kit.measure import Estimate
from kit.search import Goals


class Formula:
    """Maps configurations of `together.space()` to accuracy and bytes, with luck that depends on the seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.space, self.goals = seed, together.space(), Goals(together.OBJECTIVES)

    def _one(self, given: Mapping[str, Any], seed: int) -> dict[str, float]:
        config = {**together.PLAIN, **given}
        rng = np.random.default_rng([self.seed, seed, int(1e6 * config["lr"])])
        kept = 1 - (config["ratio_in"] + 0.1 * config["ratio_out"]) / 1.1
        lost = (
            0.5 / config["width"] + 0.3 / 2 ** config["bits_in"] + 0.3 * config["ratio_out"] ** 2 / (1 + config["tune"])
        )
        lost += 0.1 * abs(np.log10(config["lr"] / 0.02)) + 0.5 * config["ratio_in"] ** 4 / (1 + config["tune"])
        size = 200 + 74 * config["width"] * kept * config["bits_in"] / 8 + 2 * 2 ** config["bits_in"]
        return {"accuracy": float(1 - lost + 0.01 * rng.normal()), "bytes": float(size)}

    def batch(self, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        return [self._one(config, 0) for config in configs]

    def retest(self, config: Mapping[str, Any], seeds: Sequence[int]) -> tuple[Estimate, Estimate]:
        made = [self._one(config, seed) for seed in seeds]
        accuracy, size = (Estimate.from_values([each[name] for each in made]) for name in ("accuracy", "bytes"))
        return accuracy, size
