"""How much each weight matters: magnitude, first-order Taylor, and random as the baseline."""

from __future__ import annotations

from collections.abc import Collection
from threading import Event
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, inference, training
from kit.data import Dataset
from kit.prune.plain import as_plain, plain

Importance = Literal["magnitude", "taylor", "random"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)

TAYLOR_SAMPLES = 1024  # enough for a stable ranking; the whole training set of a big problem is not worth its time
TAYLOR_BATCH = 64  # samples whose activations are in memory at once

_LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)
_MULTIPLY = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def prunable(model: nn.Module, also: Collection[str] = (), *, embeddings: bool = False) -> dict[str, nn.Parameter]:
    """The weights that pruning may remove, by name: those by which a layer multiplies what comes in.

    That is, of linear, bilinear, convolutional, recurrent and attention layers (and `Conv1D` of transformers), every
    weight with two or more dimensions. Biases and normalisation scales are left alone, as they are few. Embeddings, and
    heads that share their weight, are looked up: a text reads few rows of a table, so zeros there save bytes but no
    FLOPs. A parameter that no such layer owns, such as a class token or a table of positions, is left alone, too: which
    of them multiply, only the reader knows, and may say by `also`.

    Args:
        model: any module; one whose weights are not plain (see `kit.prune.plain`) is read through a plain copy.
        also: names of further parameters with two or more dimensions; other names are passed over.
        embeddings: whether tables of embeddings count, too, as for what makes numbers smaller rather than fewer.

    Raises:
        TypeError: no module.
        ValueError: the model has no such weight.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    model = as_plain(model)
    modules = list(model.modules())
    looked_up = {id(m.weight) for m in modules if isinstance(m, _LOOKED_UP)}
    owned = {
        id(p)
        for m in modules
        if isinstance(m, _MULTIPLY) or type(m).__name__ == "Conv1D"
        for name, p in m.named_parameters(recurse=False)
        if "weight" in name
    }
    named = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    wanted = owned | looked_up if embeddings else owned - looked_up
    found = {name: p for name, p in named.items() if name in also or id(p) in wanted}
    if not found:
        way_out = f"; or name parameters: prune.weights(model, ratio={{{next(iter(named))!r}: 0.5}})" if named else ""
        needs = f"it needs a weight of a linear, convolutional, recurrent or attention layer{way_out}"
        raise ValueError(f"model: {type(model).__name__} has nothing to prune; {needs}.")
    return found


def score_weights(
    model: nn.Module,
    kind: Importance = "magnitude",
    *,
    dataset: Dataset | None = None,
    seed: int = 0,
    also: Collection[str] = (),
    cancel: Event | None = None,
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
        also: names of further parameters; see `prunable`.
        cancel: looked at between batches of "taylor".

    Returns:
        One non-negative tensor for each name in `prunable(model, also)`, shaped like the weight.

    Raises:
        ValueError: an unknown kind, "taylor" without a data set, with one that does not fit, or without finite
            gradients, or nothing to prune.
        training.Cancelled: `cancel` was set.
    """
    checks.one_of("importance", kind, IMPORTANCES)
    checks.whole("seed", seed)
    weights = {name: w.detach() for name, w in prunable(model, also).items()}
    if kind == "magnitude":
        return {name: w.abs() for name, w in weights.items()}
    if kind == "random":
        # Not torch's stream: first weights are drawn from that, often by the same seed, and would be ranked.
        rng = np.random.default_rng(seed)
        drawn = {name: torch.from_numpy(rng.random(w.shape, np.float32)) for name, w in weights.items()}
        return {name: _zeros_first(drawn[name], w) for name, w in weights.items()}
    if dataset is None:
        raise ValueError("importance 'taylor' needs a dataset to take gradients on; got None.")
    gradients = _gradients(model, dataset, also, cancel)
    return {name: _zeros_first((w * gradients[name]).abs(), w) for name, w in weights.items()}


def _gradients(model: nn.Module, dataset: Dataset, also: Collection[str], cancel: Event | None) -> dict[str, Tensor]:
    """By each prunable weight, of the mean cross-entropy; summed batch by batch, in single precision or better."""
    training.check_fits(model, dataset)
    samples, probe = dataset.train.first(TAYLOR_SAMPLES), plain(model).eval()
    weights = {name: w.requires_grad_(True) for name, w in prunable(probe, also).items()}  # frozen ones have them too
    sums = {name: torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for name, w in weights.items()}
    for start in range(0, len(samples), TAYLOR_BATCH):
        training.check_cancel(cancel, when := f"after the gradients of {start} of {len(samples)} samples")
        rows = slice(start, start + TAYLOR_BATCH)
        with torch.enable_grad(), inference.interruptible(probe, cancel, when):
            logits = inference.ask(probe, samples.inputs[rows])  # [b, n_classes]
            loss = F.cross_entropy(logits, samples.labels[rows], reduction="sum")  # nats
            try:
                parts = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            except RuntimeError as error:  # it runs under no_grad, or changes in place what the gradient needs
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"importance 'taylor': no gradient of the model ({reason}); use 'magnitude'."
                ) from error
        for total, part in zip(sums.values(), parts, strict=True):
            if part is not None:
                total += part / len(samples)
    if not all(total.isfinite().all() for total in sums.values()):
        raise ValueError("importance 'taylor': the gradients of the model hold NaN or infinity; use 'magnitude'.")
    return sums


def _zeros_first(scores: Tensor, weight: Tensor) -> Tensor:
    """Scores of 0 where the weight is zero, above 0 elsewhere, so that what is pruned always stays pruned."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny) * (weight != 0)
