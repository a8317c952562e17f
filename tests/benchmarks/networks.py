"""What the benchmarks share: a trained network, and scikit-learn's searches."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning

from kit import data, models, training

EPOCHS = 15


def trained(seed: int = 0) -> tuple[models.ConvNet, data.Dataset]:
    """The ConvNet of 151 306 parameters after 15 epochs on the digits."""
    digits, net = data.digits(), models.ConvNet(seed=seed)
    training.fit(net, digits, epochs=EPOCHS, seed=seed)
    return net.eval(), digits


def searched(kind: Any, network: Any, laws: dict[str, Any], digits: data.Dataset, **settings: Any) -> tuple[float, Any]:
    """A search of scikit-learn on the same split, two fits at a time: seconds (scoring is part of them), the search."""
    both = (digits.train, digits.validation)
    inputs = torch.cat([part.inputs for part in both]).flatten(1).numpy()
    labels = torch.cat([part.labels for part in both]).numpy()
    n_train = len(digits.train)
    one_split = [(range(n_train), range(n_train, len(labels)))]
    search = kind(network, laws, cv=one_split, n_jobs=2, refit=False, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        began = time.perf_counter()
        search.fit(inputs, labels)
        return time.perf_counter() - began, search
