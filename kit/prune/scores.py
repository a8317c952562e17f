"""How much each weight matters: magnitude, first-order Taylor, and random as the baseline."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset

Importance = Literal["magnitude", "taylor", "random"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)

TAYLOR_SAMPLES = 1024  # enough for a stable ranking; the whole training set of a big problem is not worth its time


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that pruning may remove: every parameter with two or more dimensions, by name.

    Biases, normalisation scales and embeddings are left alone: they are few, or are looked up rather than multiplied.

    Raises:
        ValueError: the model has no such weight.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    found = {name: p for name, p in model.named_parameters() if p.ndim >= 2 and id(p) not in embeddings}
    if not found:
        kind = type(model).__name__
        raise ValueError(f"model: {kind} has nothing to prune; it needs a weight of a linear or convolutional layer.")
    return found


def score_weights(
    model: nn.Module, kind: Importance = "magnitude", *, dataset: Dataset | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Score each prunable weight; the lowest scores go first. A weight scores 0 if and only if it is zero already.

    Args:
        model: any module with a prunable weight; not changed.
        kind: "magnitude": |w| of each weight w (Han et al. 2015, arXiv:1506.02626).
            "taylor": |w g|, the loss change to first order if w became 0 (Molchanov et al. 2017, arXiv:1611.06440),
            g the gradient by w of the mean cross-entropy of at most 1024 training samples.
            "random": uniform numbers from `seed`.
        dataset: needed by "taylor" only; its train split is read.
        seed: used by "random" only.

    Returns:
        One non-negative tensor for each name in `prunable(model)`, shaped like the weight.

    Raises:
        ValueError: an unknown kind, "taylor" without a data set or with one that does not fit, or nothing to prune.
    """
    checks.one_of("importance", kind, IMPORTANCES)
    weights = prunable(model)
    if kind == "magnitude":
        return {name: w.detach().abs() for name, w in weights.items()}
    if kind == "random":
        generator = torch.Generator().manual_seed(seed)
        return {name: _zeros_first(torch.rand(w.shape, generator=generator), w.detach()) for name, w in weights.items()}
    if dataset is None:
        raise ValueError("importance 'taylor' needs a dataset to take gradients on; got None.")
    training.check_fits(model, dataset)
    samples, probe = dataset.train.first(TAYLOR_SAMPLES), copy.deepcopy(model).eval()
    weights = prunable(probe)
    with torch.enable_grad():
        for w in weights.values():
            w.requires_grad_(True)  # a frozen weight has a gradient too
        loss = F.cross_entropy(probe(samples.inputs), samples.labels)  # nats, mean over the samples
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: _zeros_first(torch.zeros_like(w) if g is None else (w.detach() * g).abs(), w.detach())
        for (name, w), g in zip(weights.items(), gradients, strict=True)
    }


def _zeros_first(scores: Tensor, weight: Tensor) -> Tensor:
    """Scores of 0 where the weight is zero, above 0 elsewhere, so that what is pruned always stays pruned."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny) * (weight != 0)
