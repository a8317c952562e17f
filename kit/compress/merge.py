"""Several networks into one: averages of their weights, and ensembles.

An average of weights works between networks in one basin of the loss, such as those of one run. Two networks from
different starts have learned like units in another order: on the line between them (`kit.compress.line`) the loss
rises, until the units of one are put into the order of the other's (`kit.compress.align`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks, measure, training
from kit.data import Dataset
from kit.inference import ask
from kit.measure import Estimate
from kit.prune import plain
from kit.prune.unstructured import renewed

COUNTER = "num_batches_tracked"  # of batch normalisation: a statistic, though a whole number


# -- averages ----------------------------------------------------------------------------------------------------------


def average(
    models: Sequence[nn.Module], weights: Sequence[float] | None = None, *, dataset: Dataset | None = None
) -> nn.Module:
    """One network whose every weight is the mean of the models' weights (a soup).

    Statistics of batch normalisation are no weights: those of the average are measured anew, on the first 1024 training
    samples of `dataset`, without labels. Weights that are zero in all models stay zero.

    Args:
        models: one or more of the same class and shapes; not changed. Modes and frozen parts are those of the first.
        weights: a number of 0 or more a model, not all 0; they are divided by their sum. By default all the same.
        dataset: needed by models with batch statistics.

    Raises:
        ValueError: no model, models that do not match, weights out of range, or batch statistics without a `dataset`.
        TypeError: an argument of another type.

    Source: Wortsman et al. (2022), Model soups, arXiv:2203.05482, section 2; along one run, Izmailov et al. (2018),
    Averaging weights leads to wider optima, arXiv:1803.05407.
    """
    copies = alike({f"models[{at}]": each for at, each in enumerate(_listed(models))})
    checks.instance("weights", weights, (Iterable, type(None)), "numbers in a row, one a model")
    shares = [1.0] * len(copies) if weights is None else [checks.number("weights", each, least=0) for each in weights]
    if len(shares) != len(copies) or not sum(shares):
        raise ValueError(f"weights must be {len(copies)} numbers, one a model, not all 0; got {weights!r}.")
    return _settled(mixed(copies, [share / sum(shares) for share in shares]), dataset)


@torch.no_grad()
def mixed(models: Sequence[nn.Module], shares: Sequence[float]) -> nn.Module:
    """The sum of models that match, each times its share; statistics of batches, too, which are then wrong."""
    result = training.copy_of(models[0])
    others = [tensors_of(model) for model in models]
    for name, tensor in tensors_of(result).items():
        if _is_real(tensor):
            wide = torch.promote_types(tensor.dtype, torch.float64)
            parts = (share * each[name].to(wide) for share, each in zip(shares, others, strict=True) if share)
            tensor.copy_(torch.stack([*parts]).sum(0))
    return result


@dataclass(frozen=True)
class Soup:
    """What `soup` gives.

    Attributes:
        model: the average of those chosen.
        chosen: their places among the models, the best first.
        accuracy: of the average on the validation split. That split has chosen, so this is a little too good.
    """

    model: nn.Module
    chosen: tuple[int, ...]
    accuracy: Estimate


def soup(models: Sequence[nn.Module], dataset: Dataset) -> Soup:
    """A greedy soup: from the best model on, each joins the average if validation accuracy does not fall.

    Args:
        models: as `average` takes them.
        dataset: its validation split chooses.

    Raises:
        ValueError, TypeError: as in `average`, or samples that the models cannot take.

    Source: Wortsman et al. (2022), arXiv:2203.05482, recipe 1.
    """
    training.check_dataset(dataset)
    alone = [measure.accuracy(each, dataset.validation) for each in _listed(models)]
    best = Soup(models[0], (), Estimate(0, 0, 0, 1))
    for place in sorted(range(len(models)), key=lambda place: -alone[place].value):
        chosen = (*best.chosen, place)
        model = average([models[each] for each in chosen], dataset=dataset)
        accuracy = measure.accuracy(model, dataset.validation)
        if not best.chosen or accuracy.value >= best.accuracy.value:
            best = Soup(model, chosen, accuracy)
    return best


class Averaging(training.Callback):
    """Collects the network at the end of each epoch of a fit, to average it along the run (SWA).

    `training.fit(model, digits, epochs=20, callbacks=[run := Averaging(first=11)])`, then
    `average(run.models, dataset=digits)`. The learning rate should stay high, as it does in `training.fit`.

    Args:
        first: the epoch whose end is the first to be collected, from 1.

    Source: Izmailov et al. (2018), arXiv:1803.05407, algorithm 1.
    """

    def __init__(self, first: int = 1) -> None:
        self.first = checks.whole("first", first, 1)
        self.models: list[nn.Module] = []

    def on_epoch_end(self, progress: training.Progress) -> None:
        """Collect a copy."""
        if progress.epoch + 1 >= self.first:
            self.models.append(training.copy_of(progress.model))


# -- ensembles ---------------------------------------------------------------------------------------------------------


class Ensemble(nn.Module):
    """Several networks that answer as one; see `ensemble`. It holds copies of them, as `members`."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(training.copy_of(model) for model in models)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, ...] to the logarithms of mean probabilities [n, n_classes]."""
        answers = [ask(member, x).log_softmax(1) for member in self.members]
        if len({answer.shape[1] for answer in answers}) > 1:
            each = ", ".join(str(answer.shape[1]) for answer in answers)
            raise ValueError(f"the members of an ensemble must answer as many classes each; got {each}.")
        return torch.stack(answers).logsumexp(0) - math.log(len(answers))


def ensemble(models: Sequence[nn.Module]) -> Ensemble:
    """A module that answers with the mean of the models' probabilities, as logits: their logarithm.

    Probabilities, not logits: so each member has one vote, however large its logits are, and the ensemble's loss is at
    most the mean of the members' losses. It is as large and as slow as its members together. It can teach:
    `distill.fit(student, ensemble(models), digits.train, epochs=20)` makes one network of them.

    Args:
        models: one or more, of any classes, that answer as many classes each (with logits, in any way that
            `training.predict` takes); copied.

    Raises:
        ValueError: no model, or one that cannot be copied.
        TypeError: something that is no module.

    Source: Lakshminarayanan et al. (2017), Deep ensembles, arXiv:1612.01474, section 2.4.
    """
    for at, model in enumerate(_listed(models)):
        checks.instance(f"models[{at}]", model, nn.Module, "a torch.nn.Module")
    return Ensemble(models)


# -- what all merging checks -------------------------------------------------------------------------------------------


def _listed(models: Any) -> Sequence[Any]:
    if isinstance(models, nn.Module) or not isinstance(models, Sequence):
        raise TypeError(f"models must be networks in a row, such as [a, b]; got {type(models).__name__}.")
    if not models:
        raise ValueError("models is empty; it needs at least one network.")
    return models


def alike(models: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Plain copies of models that match in class, layers, tensors and whole numbers; a ValueError for others."""
    for argument, model in models.items():
        checks.instance(argument, model, nn.Module, "a torch.nn.Module")
    (first, like), *others = copies = [(argument, plain(model)) for argument, model in models.items()]
    for argument, model in others:
        if differs := _difference(like, model):
            raise ValueError(f"{argument} must match {first}: {differs}. Only networks of one architecture can merge.")
    return [model for _, model in copies]


def _difference(one: nn.Module, other: nn.Module) -> str:
    """Where one model is first of another kind than the other, in words; empty where nowhere."""
    pairs = itertools.zip_longest(one.named_modules(), other.named_modules(), fillvalue=("nothing", None))
    for (name, module), (other_name, match) in pairs:
        if name != other_name or type(module) is not type(match):
            kinds = [type(each).__name__ if each is not None else "missing" for each in (module, match)]
            return f"{name or 'the model'} is {kinds[0]} in one, {other_name or 'the model'} {kinds[1]} in the other"
    ours, theirs = tensors_of(one), tensors_of(other)
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in ours or name not in theirs:
            return f"{name} is a tensor of its own in one only"
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{name} is {_shown(a)} in one, {_shown(b)} in the other"
        if not (_is_real(a) or name.endswith(COUNTER) or torch.equal(a, b)):
            return f"{name}, of whole numbers, differs, and these have no mean"
    return ""


def _settled(model: nn.Module, dataset: Dataset | None) -> nn.Module:
    """The model with batch statistics measured anew, where it has such."""
    if dataset is not None:
        training.check_dataset(dataset)
    if not training.has_statistics(model):
        return model
    if dataset is None:
        kind = type(model).__name__
        why = f"the mean of two models' batch statistics is not that of the average {kind}"
        raise ValueError(f"dataset is needed to measure statistics again: {why}; give dataset=digits, say.")
    return renewed(model, dataset)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
