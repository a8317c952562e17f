"""Make networks smaller, and see at once what it cost and what it bought.

The rooms of this package:

    checks       refuse a bad argument early, in one sentence
    cores        small work on one thread, independent pieces side by side
    data         data sets in three splits: digits, MNIST, your own arrays, or a file of them
    cells        small graphs of operations that a network is stacked of; which of them are the same network
    models       small networks to work on: MLP, ConvNet, LeNet, ResNet, networks of a cell
    inference    ask any model for its logits; its modes, its copy, its batch statistics
    training     fit and evaluate; fires callbacks, never draws
    files        weights on disk, dense or sparse, written and read back equal
    cohort       many small networks trained as one, each with its own seed and hyper-parameters
    store        one SQLite file, opened with care: what the board and a search remember
    sizes        parameters, non-zeros, bytes and FLOPs of a model
    measure      an accuracy with its interval; size, FLOPs and latency of a model
    board        the trade-off board: every model that you pin, on one plane, kept on disk
    prune        take weights or channels away; a new model each time
    compress     fold, factor, share, quantise and encode weights; merge several networks into one
    search       choose hyper-parameters: grid, random, halving, Bayesian; one loop, one record a trial
    together     a network's structure and its hyper-parameters, chosen together
    cost         cost on paper: parameters, bytes, FLOPs and time bounds of a network given by its dimensions
    cluster      the same searches on many machines, with Ray
    distill      teach a small network by a big one's answers; whole cohorts of students at once
    pretrained   a real pretrained model, MiniLM, from an installed package
    plots        numbers in, figure out
    explorers    a figure with its controls: move a slider, a real model answers
    exercises    the checks that the notebooks' exercises call
    lab          what Jupyter does for the notebooks: copies to work in, still pictures that stay

``import kit`` is cheap. A room, and what it needs (torch, plotly, ...), is loaded when it is first entered:
``from kit import data``, or simply ``kit.data``.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

# An explorer computes in a thread while the notebook goes on. By default GNU's OpenMP threads spin for milliseconds
# while they wait, and take each other's cores: two computations at once are then many times slower. A short spin costs
# nothing on an idle machine (none at all would: waking a thread takes longer than a small layer). Read as torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

__all__ = [
    "board",
    "cells",
    "checks",
    "cluster",
    "cohort",
    "compress",
    "cores",
    "cost",
    "data",
    "distill",
    "exercises",
    "explorers",
    "files",
    "inference",
    "lab",
    "measure",
    "models",
    "plots",
    "pretrained",
    "prune",
    "search",
    "sizes",
    "store",
    "together",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    """Load a room when it is first entered; AttributeError where the kit has none of that name."""
    if name not in __all__:
        raise AttributeError(f"kit has no module {name!r}; it has {', '.join(__all__)}.")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """List the rooms, loaded or not."""
    return sorted([*globals(), *__all__])
