"""Whose labels are wrong? One weight for each training sample, learned by the slope of the validation loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks, training
from kit.data import Dataset, Split
from kit.inference import copy_of
from kit.measure import Z95, Estimate
from kit.search.gradient.hypergradient import Way
from kit.search.gradient.problem import Problem, State

To = Literal["any", "next"]
APART = 2**31  # of 32 bits that torch reads
CONFUSED = 0.6  # of a class, where all its wrong labels are the same: most of its samples


def flip(dataset: Dataset, share: float, seed: int = 0, *, to: To = "any") -> tuple[Dataset, Tensor]:
    """Give some training samples the label of another class; validation and test stay right.

    Args:
        dataset: its training labels count as right.
        share: of the training labels that become wrong, in [0, 1]; at most 0.6 with "next".
        seed: of the draw.
        to: "any" of the other classes, each as likely; or "next": in one class after the other, in an order that is
            drawn, six samples in ten get the label that follows (after the last comes the first), until there are
            enough. Such wrong labels agree with each other.

    Returns:
        The data set with wrong labels, and which they are, bool [n].

    Raises:
        ValueError: a share out of range, a data set of one class.
        TypeError: an argument of another kind.
    """
    training.check_dataset(dataset)
    checks.one_of("to", to, get_args(To))
    if dataset.n_classes < 2:
        raise ValueError(f"dataset must have two classes or more; {dataset.name} has {dataset.n_classes}.")
    if checks.share("share", share) > CONFUSED and to == "next":
        raise ValueError(f"share must be {CONFUSED} or less with to='next'; got {share!r}.")
    # Not the plain seed: the first order of the batches that training draws by it would begin with the flipped.
    generator = torch.Generator().manual_seed(checks.whole("seed", seed) + APART)
    labels, n, classes = dataset.train.labels, len(dataset.train), dataset.n_classes
    rows, further = torch.randperm(n, generator=generator), torch.randint(1, classes, (n,), generator=generator)
    if to == "next":
        of_class = [rows[labels[rows] == label] for label in torch.randperm(classes, generator=generator)]
        most = [each.split(-(-len(each) * 6 // 10)) for each in of_class if len(each)]
        rows, further = torch.cat([part[0] for part in most]), torch.ones_like(further)
    rows = rows[: round(share * n)]
    flipped = torch.zeros(n, dtype=torch.bool)
    flipped[rows] = True
    wrong = torch.where(flipped, (labels + further) % classes, labels)
    return replace(dataset, train=Split(dataset.train.inputs, wrong)), flipped


def halves(dataset: Dataset, seed: int = 0) -> tuple[Dataset, Split]:
    """Two halves of the validation split, drawn by the seed: one that gives slopes, and one that measures.

    Weights of samples are fitted to the validation samples that give their slopes, so there the accuracy is too good.

    Returns:
        The data set, its validation split the first half; and the second half.

    Raises:
        ValueError: fewer than two validation samples.
    """
    split, generator = dataset.validation, torch.Generator().manual_seed(checks.whole("seed", seed))
    if len(split) < 2:
        raise ValueError(f"dataset must have two validation samples or more, to halve; got {len(split)}.")
    first, second = (
        Split(split.inputs[rows], split.labels[rows])
        for rows in torch.randperm(len(split), generator=generator).tensor_split(2)
    )
    return replace(dataset, validation=first), second


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Weights of the training samples after some steps of the outer loop, and what a training with them arrives at.

    Attributes:
        weights: of each training sample, [n], in [0, 1]: small where its label seems wrong.
        slope: of the validation loss in each, [n].
        total: each weight summed over all steps so far, [n]: of those that have reached 0, less for who fell first.
        loss: the validation loss, nats, on the samples that give the slope.
        state: the end of the training with these weights.
        spent: gradient evaluations up to here, trainings included.
    """

    weights: Tensor
    slope: Tensor
    total: Tensor
    loss: float
    state: State
    spent: int

    @property
    def suspects(self) -> Tensor:
        """Numbers of the training samples [n], the most suspect first; of equal weights, who fell first."""
        return torch.from_numpy(np.lexsort((self.total.numpy(), self.weights.numpy())))


def clean(
    problem: Problem, way: Way, *, rate: float = 0.1, after: Cleaned | None = None, cancel: Event | None = None
) -> Iterator[Cleaned]:
    """Learn the weights of the training samples: train, take the slope, step, for ever; the first has moved nothing.

    A weight falls where the validation loss falls with it. The step is the slope over its root mean square, times
    `rate`, and ends in the range: so clear cases move first (Franceschi et al. 2017, arXiv:1703.01785, section 5.1; Ren
    et al. 2018, arXiv:1803.09050, who take one step only). No `Study` keeps it: it would have a column for each sample.

    Args:
        problem: with "sample_weight" as its one hyper-parameter: `network(model, flipped, ["sample_weight"])`.
        way: to the slope. Few steps back suffice: `Unrolled(10)`.
        rate: how far the weights move in a step, as root mean square, above 0.
        after: goes on after this one; None begins with the problem's own weights.
        cancel: looked at between steps of training.

    Raises:
        ValueError: another hyper-parameter, or a rate out of range.
        training.Cancelled, training.Diverged: as `Way.at`, from the iterator.
    """
    checks.instance("problem", problem, Problem)
    rate = checks.number("rate", rate, above=0)
    if list(problem.hyper) != ["sample_weight"]:
        raise ValueError(f"problem must tune sample_weight alone; it tunes {', '.join(problem.hyper)}.")
    if problem.space["sample_weight"].log:
        raise ValueError("problem: sample_weight must be no logarithm, for a weight may be 0; give a plain Float.")
    return _cleaning(problem, way, rate, after, cancel)


def _cleaning(problem: Problem, way: Way, rate: float, last: Cleaned | None, cancel: Event | None) -> Iterator[Cleaned]:
    while True:
        hyper = problem.hyper
        if last is not None:
            size = last.slope.square().mean().sqrt().clamp(min=torch.finfo(last.slope.dtype).tiny)
            hyper = problem.clamped({"sample_weight": last.weights - rate / size * last.slope})
        found = way.at(problem, hyper, cancel=cancel)
        (weights,), (slope,) = hyper.values(), found.slope.values()
        total, spent = weights, problem.steps + found.cost
        if last is not None:
            total, spent = total + last.total, spent + last.spent
        last = Cleaned(weights, slope, total, found.loss, found.state, spent)
        yield last


def trained(model: nn.Module, state: State) -> nn.Module:
    """A copy of the model with the weights of a state of its training."""
    made = copy_of(model)
    made.load_state_dict(state.weights, strict=False)  # those that are frozen, and buffers, are not among them
    return made


def sample_losses(model: nn.Module, split: Split) -> Tensor:
    """Cross-entropy of each sample [n], nats: after training, the greatest are the rival's suspects.

    Networks learn right labels before wrong ones (Arpit et al. 2017, arXiv:1706.05394), and need no validation samples
    for it; but where most labels of a class are wrong in the same way, they learn those.
    """
    return F.cross_entropy(training.predict(model, split.inputs).float(), split.labels, reduction="none")


def auc(suspicion: Tensor, flipped: Tensor) -> Estimate:
    """How often a flipped sample is more suspect than a clean one: the area under the ROC curve, with its interval.

    Ties count half. The interval is DeLong, DeLong & Clarke-Pearson's (1988, Biometrics 44, 837).

    Args:
        suspicion: of each sample, [n], greater where its label seems wrong.
        flipped: whether it is, bool [n].

    Raises:
        ValueError: fewer than two samples of either kind.
    """
    wrong, right = suspicion[flipped].numpy(), suspicion[~flipped].numpy()
    if min(len(wrong), len(right)) < 2:
        raise ValueError(f"flipped must mark two samples or more, and leave two; got {len(wrong)} of {len(suspicion)}.")
    of_wrong, of_right = _above(wrong, right), 1 - _above(right, wrong)
    half = Z95 * float(np.sqrt(of_wrong.var(ddof=1) / len(wrong) + of_right.var(ddof=1) / len(right)))
    value = float(of_wrong.mean())
    return Estimate(value, value - half, value + half, len(suspicion)).share


def _above(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """The share of those that each of these exceeds; ties count half."""
    those = np.sort(those)
    return (np.searchsorted(those, these, "left") + np.searchsorted(those, these, "right")) / (2 * len(those))
