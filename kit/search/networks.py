"""Networks as objectives: a cohort of MLPs, or bags of words for texts, one for each configuration.

This part loads torch; the other parts of `kit.search` do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from threading import Event

import numpy as np

from kit import checks, cohort, training
from kit.data import Dataset
from kit.search.space import Config

TUNABLE = ("lr", "weight_decay", "dropout", "label_smoothing", "width", "beta1", "beta2")


class Networks:
    """The validation accuracy of small networks: configurations in, one cohort trained; for `run(batch=...)`.

    Args:
        dataset: train fits, validation scores; test is not read.
        hidden: units of the one hidden layer, or for texts numbers a token (`cohort.template`), where a configuration
            does not say `width`.
        epochs: passes over the train split, where a trial does not say.
        n: networks for each configuration, 1 or more; the scores are theirs.
        seed: what their own seeds are drawn from, together with the configuration: the same one scores the same again,
            and another seed trains other networks.
        batch_size: samples a step.

    Configurations may have the keys of `TUNABLE`. A network that diverged scores NaN, so its trial fails. A number out
    of range is a ValueError.
    """

    def __init__(
        self, dataset: Dataset, *, hidden: int = 16, epochs: int = 20, n: int = 1, seed: int = 0, batch_size: int = 64
    ) -> None:
        training.check_dataset(dataset)
        for name, value in {"hidden": hidden, "epochs": epochs, "n": n, "batch_size": batch_size}.items():
            checks.whole(name, value, 1)
        checks.whole("seed", seed)
        self.dataset, self.hidden, self.epochs, self.n = dataset, hidden, epochs, n
        self.seed, self.batch_size = seed, batch_size

    def __call__(
        self, configs: Sequence[Config], *, epochs: int | None = None, cancel: Event | None = None
    ) -> list[list[float]]:
        """Train all of them; the accuracies of each configuration, [configurations][n].

        Raises:
            ValueError: a key that is not tunable, or a value that no network can have.
            training.Cancelled: `cancel` was set.
        """
        if isinstance(configs, Mapping):
            raise TypeError("configs must be a list of configurations: call `run` with batch=1 or more.")
        for config in configs:
            check_tunable(config)
        epochs = self.epochs if epochs is None else checks.whole("epochs", epochs, 1)
        # Each network has its own weights; the order of the samples is shared, which is quicker.
        members = []
        for config in configs:
            first, settings = drawn_seed(self.seed, config), {"width": self.hidden, **config}
            orders = range(self.seed * self.n, (self.seed + 1) * self.n)
            members += [cohort.Member(seed=first + at, order=order, **settings) for at, order in enumerate(orders)]
        # Dropout draws for the widest of a cohort. So that a score does not depend on what else is in the
        # batch, networks with dropout are trained with those of their own width only.
        together: dict[int | None, list[int]] = {}
        for at, member in enumerate(members):
            together.setdefault(member.width if member.dropout else None, []).append(at)
        scores = np.empty(len(members))
        for places in together.values():
            part = [members[at] for at in places]
            networks = cohort.Cohort(cohort.template(self.dataset, max(member.width or 0 for member in part)), part)
            cohort.fit(networks, self.dataset.train, epochs=epochs, batch_size=self.batch_size, cancel=cancel)
            scores[places] = accuracies(networks, self.dataset)
        return scores.reshape(len(configs), self.n).tolist()


def accuracies(networks: cohort.Cohort, dataset: Dataset) -> np.ndarray:
    """Share of right answers on the validation split; NaN for a network that diverged. -> [K]."""
    named = cohort.answers(networks, dataset.validation.inputs).numpy()  # [K, n]
    right = (named == dataset.validation.labels.numpy()).mean(1)
    return np.where((named < 0).any(1), np.nan, right)


def drawn_seed(seed: int, config: Config) -> int:
    """A seed of its own for each configuration."""
    digest = hashlib.sha256(json.dumps([seed, sorted(config.items())]).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def check_tunable(config: Config) -> None:
    """Refuse a key that is not in `TUNABLE`: a ValueError."""
    for name in config:
        if name not in TUNABLE:
            raise ValueError(f"networks can be tuned by {', '.join(TUNABLE)}; got {name!r}.")
