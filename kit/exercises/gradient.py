"""Checks of the notebook on tuning by gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kit import checks, data, models
from kit.data import Split
from kit.exercises.verdict import Wrong, answered, checked, compare, two
from kit.measure import Estimate
from kit.search import Float, Random, Study
from kit.search.gradient import Differences, Hypergradient, Implicit, Problem, State, Tensors, Unrolled, Way, network
from kit.training import Diverged

REASONS = {
    "slope": "a little more of it moves the validation loss a little",
    "gap": "it has no values between two neighbours",
    "flat": "it jumps, and between its jumps the slope is 0",
    "absent": "it does not stand in the equation that is derived",
}
WHICH = {  # what holds, and what to say to other answers
    "hidden units": ("gap", "a network has 16 of them, or 17."),
    "temperature of distillation": ("slope", "the training loss divides by it, and any number above 0 will do."),
    "accuracy as the outer loss": ("flat", "most small changes of the weights change no answer, some a whole one."),
    "learning rate, unrolled": ("slope", "each step is w - rate * gradient."),
    "learning rate, implicit": ("absent", "L_w = 0 says where the minimum is, not how it was reached."),
    "batch size": ("gap", "a batch has 32 images, or 33."),
}

STEPS, BUDGET, IMAGES, CHOOSING = 40, 800, 200, 270  # of the open task; budget: gradient evaluations
SPACE = {
    "weight_decay": Float(1e-6, 0.1, log=True),
    "lr": Float(0.003, 3, log=True),
    "label_smoothing": Float(0, 0.5),
}


@checked
def ridge_slope(answer: Callable[[Tensor, Tensor, Tensor, Tensor, float], Any]) -> str:
    """Derive the slope of ridge regression's validation loss in the logarithm of its decay.

    Args:
        answer: takes X [n, p], y [n], X_val [m, p], y_val [m] and h. With decay e^h the weights minimise
            |X w - y|^2 / (2 n) + e^h |w|^2 / 2, and the validation loss is |X_val w - y_val|^2 / (2 m). Returns its
            slope in h: with A = X^T X / n + e^h, g = X_val^T (X_val w - y_val) / m, it is -e^h g^T A^-1 w.
    """
    generator = torch.Generator().manual_seed(0)
    for n, m, p, h in ((30, 20, 4, -1.0), (12, 25, 6, 0.7), (40, 10, 3, -3.0)):
        x, x_val = (torch.randn(rows, p, generator=generator, dtype=torch.float64) for rows in (n, m))
        y, y_val = (torch.randn(rows, generator=generator, dtype=torch.float64) for rows in (n, m))
        got = torch.as_tensor(answered(answer(x.clone(), y.clone(), x_val.clone(), y_val.clone(), h)))
        if got.numel() != 1:
            raise Wrong(f"h is one number, so its slope is one number; got shape {tuple(got.shape)}.")
        plain, right, decay = x.T @ x / n, x.T @ y / n, math.exp(h) * torch.eye(p).double()

        def slope(a: Tensor, b: Tensor, of: Tensor, at: tuple[Tensor, Tensor] = (x_val, y_val)) -> float:
            """With the weights a^-1 b, and `of` for L_ww."""
            w = torch.linalg.solve(a, b)
            return -float((at[0] @ w - at[1]) @ at[0] @ torch.linalg.solve(of, w)) / len(at[1])

        full = plain + decay
        in_decay, summed = slope(full, right, full), n * plain + decay
        want, as_decay = math.exp(h) * in_decay, plain + h * torch.eye(p)
        mistakes = [
            (-want, "the sign is wrong: L_wh is on one side of the equation, dw/dh on the other."),
            (in_decay, "this is the slope in the decay. In its logarithm there is one more factor."),
            (math.exp(h) * want, "the factor e^h, from the decay to its logarithm, is there twice."),
            (want * m, f"you took the sum over the {m} validation samples; the loss is half of their mean."),
            (2 * want, "it is twice too large: both losses have a factor 1/2."),
            (want / 2, "it is half of that: derived, a square gives 2, which takes the 1/2 away."),
            (math.exp(h) * slope(full, right, plain), "the curvature L_ww has a part that comes from the decay, too."),
            (math.exp(h) * slope(plain, right, full), "your weights are those of a training without decay."),
            (math.exp(h) * slope(summed, n * right, summed), f"you sum over {n} training samples; L has their mean."),
            (math.exp(h) * slope(full, right, full, (x, y)), "this is the slope of the training samples' error."),
            (h * slope(as_decay, right, as_decay), "the decay is e^h; you take h for it."),
        ]
        case = f"With n = {n}, m = {m} and h = {h:g}"
        compare(float(got), want, case, mistakes, f"it is {want:.4g}; got {float(got):.4g}.")
    return "Your slope is exact to 6 digits. One system of equations with the curvature is enough for it."


@checked
def attached_slope(answer: Callable[..., Any]) -> str:
    """Repair an unrolled loop whose slope is 0, because its graph is cut in several places.

    Args:
        answer: takes loss and score, both of the weights; w [5]; h [2], the logarithms of learning rate and weight
            decay; and the number of steps. Each step takes rate (loss' + decay w) off w. Returns the slope of the score
            in h, [2], and leaves w and h as they are, their requires_grad too.
    """
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 5, generator=generator).double(), torch.tensor([0.0, 1.0] * 6).double()

    def loss(w: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x[:8] @ w, y[:8])

    def score(w: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x[8:] @ w, y[8:])

    for steps in (1, 4):
        w, h = torch.linspace(-1, 2, 5).double(), torch.tensor([0.8, 0.3]).double().log()
        given = w.clone(), h.clone()
        got = answered(answer(loss, score, *given, steps))
        got = got[0] if isinstance(got, tuple) and len(got) == 1 else got
        if not isinstance(got, Tensor) or got.shape != h.shape:
            came = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise Wrong(f"Return the slope in both, a tensor of shape (2,); got {came}.")
        case = f"With {steps} step{'s' * (steps > 1)}"
        slope = functools.partial(_unrolled, loss, score, w, h, steps)
        want, constant, last = slope(), slope(graph=False), slope(cut=True)
        rate, decay = torch.eye(2).double()
        for gives, reason in (
            (want, ""),
            (0 * want, "it is 0: nothing leads from h to the score. Which lines turn tensors into mere numbers?"),
            (constant, "the gradient of the loss is a constant to you; it depends on w, and so on h."),
            (last, "the last step alone counts: between the steps w loses its past."),
            (slope(cut=True, graph=False), "the last step alone counts: between the steps w loses its past."),
            (want / h.exp(), "this is the slope in rate and decay themselves; h are their logarithms."),
            (-want, "the sign is wrong."),
            (want * rate, "the slope in the weight decay is 0: what cuts it off?"),
            (constant * rate, "the slope in the weight decay is 0: what cuts it off?"),
            (want * decay, "the slope in the learning rate is 0: what cuts it off?"),
            (constant * decay, "the slope in the learning rate is 0: what cuts it off?"),
        ):
            if torch.allclose(got.detach().double(), gives, rtol=1e-5, atol=1e-9):
                if reason:
                    raise Wrong(f"{case} {reason}")
                break
        else:
            raise Wrong(f"{case} autograd finds {_row(want)} through all of them; got {_row(got)}.")
        if not torch.equal(given[0], w) or not torch.equal(given[1], h):
            raise Wrong("The w or h that you were given has changed: steps in place write into the caller's tensor.")
        if any(each.requires_grad for each in given):
            raise Wrong("You switch requires_grad on in the caller's own w or h; take a clone of it first.")
    return "The slope goes through all steps now, and the caller's tensors are as they were."


def _row(numbers: Tensor) -> str:
    return "[" + ", ".join(f"{each:.4g}" for each in numbers.tolist()) + "]"


def _unrolled(
    loss: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    w: Tensor,
    h: Tensor,
    steps: int,
    *,
    graph: bool = True,
    cut: bool = False,
) -> Tensor:
    """The slope, or what it is with the gradient as a constant, or with the weights cut off between steps."""
    w, h = w.clone().requires_grad_(), h.clone().requires_grad_()
    rate, decay = h.exp()
    for _ in range(steps):
        w = w.detach().requires_grad_() if cut else w
        (down,) = torch.autograd.grad(loss(w), w, create_graph=graph)
        w = w - rate * (down + decay * w)
    return torch.autograd.grad(score(w), h)[0]


@checked
def terms_needed(answer: Callable[[float, float, float], Any]) -> str:
    """Choose rate and number of terms of a Neumann series: an error under a tolerance at least cost.

    Args:
        answer: takes the smallest and the largest curvature m < M, both above 0, and the share of the exact solution
            that may be missing in the worst direction. Returns the rate 2 / (m + M) and the fewest terms k for which
            ((M - m) / (M + m))^k is at most the tolerance.
    """
    for m, most, tolerance in ((0.5, 2.0, 0.01), (1.0, 3.0, 0.25), (0.01, 1.0, 0.05), (2.0, 50.0, 0.1)):
        rate, terms = two(answer(m, most, tolerance), "Return two numbers: the rate and the number of terms.")
        fewest = math.ceil(math.log(tolerance) / math.log((most - m) / (most + m)) - 1e-9)
        case = f"With curvatures from {m:g} to {most:g} and a tolerance of {tolerance:g}"
        low, high = 1 - rate * m, 1 - rate * most
        if terms != round(terms) or terms < 1:
            raise Wrong(f"{case} you take {terms:g} terms: it must be a whole number, 1 or more.")
        if (worst := max(abs(low), abs(high))) >= 1:
            raise Wrong(f"{case} a term multiplies the error by {low:.3g} to {high:.3g}: somewhere it does not shrink.")
        if worst**terms > tolerance * (1 + 1e-9):
            raise Wrong(f"{case} {terms:g} terms at rate {rate:.4g} leave {worst**terms:.3g} of the worst direction.")
        if terms > fewest:
            spare = worst ** (terms - 1) <= tolerance
            why = "at your rate the last one is not needed" if spare else "another rate needs fewer"
            raise Wrong(f"{case} {terms:g} terms at rate {rate:.4g} are enough, but {why}.")
    return "Both ends shrink alike. A curvature 100 times smaller takes about 100 times the terms."


@checked
def which_slopes(answer: Mapping[str, str]) -> str:
    """Which of these have a slope, and why not the others?

    Args:
        answer: for each name in `WHICH` a word of `REASONS`: "slope", "gap", "flat" or "absent".
    """
    given = answered(answer)
    for name, (right, words) in WHICH.items():
        got = answered(given.get(name))
        if got not in REASONS:
            raise Wrong(f"{name}: choose one of {', '.join(REASONS)}; got {got!r}.")
        if got != right:
            raise Wrong(f"{name}: {got!r} means that {REASONS[got]}. But {words}")
    return "Where there is a gap, search. Where the score is flat, take a smooth loss. What is absent, unroll."


class Tangent(Protocol):
    """What the open task trains and takes slopes by."""

    def __call__(
        self, hyper: Tensors, way: Way, *, state: State | None = None, steps: int | None = None
    ) -> Hypergradient:
        """Train at these coordinates, from the start or from a state, and take the slope.

        It spends the steps of training (40 where None are given) and the `cost` of what it returns.
        """
        ...


Search = Callable[[Tensors, Tangent, Callable[[Tensors], Tensors], int], Tensors]


@checked
def beat_random(answer: Search, *, seeds: Sequence[int] = range(100, 110)) -> str:
    """The open task: the lowest validation loss for 800 gradient evaluations, against random search at the same cost.

    Seven hyper-parameters of a network: two weight decays, four learning rates one after the other, label smoothing.
    Each seed has its own first weights, its own factor that all images are multiplied by (1/8 to 8: with less, one
    choice for all problems beats random search, too), and one of four sets of 200 training images.

    Right is a search that chooses better: a network with other first weights is trained anew with its choice, and
    scored on validation images that no search has seen; the whole 95 % interval of the mean of log(yours / theirs) is
    below 0.

    Args:
        answer: takes the coordinates to begin with, a `Tangent`, a function that gives the nearest coordinates that are
            allowed, and the budget; returns the coordinates that it chooses.
        seeds: of the problems.
    """
    yours, theirs = [], []
    for seed in seeds:
        found = answered(_metered(answer, seed))
        if not isinstance(found, Mapping):
            raise Wrong(f"Return the coordinates that you choose, named as hyper; got {type(found).__name__}.")
        yours.append(_judged(dict(found), seed))
        theirs.append(_rival(seed))
    ratio = Estimate.from_pairs([math.log(each) for each in yours], [math.log(each) for each in theirs])
    value, low, high = (f"{math.exp(each):.2f}" for each in (ratio.value, ratio.low, ratio.high))
    score = f"Your loss is {value} times that of random search (95 % interval {low} to {high}, {ratio.n} problems)."
    if ratio.high >= 0:
        raise Wrong(f"{score} It counts as beaten when the whole interval is below 1.")
    return f"{score} The whole interval is below 1: beaten."


def _metered(answer: Search, seed: int) -> Any:
    """What an answer chooses within the budget."""
    problem, spent = _task(seed), 0

    def tangent(hyper: Tensors, way: Way, *, state: State | None = None, steps: int | None = None) -> Hypergradient:
        nonlocal spent
        if not isinstance(way, Unrolled | Implicit | Differences):
            raise Wrong(f"way must be Unrolled, Implicit or Differences, whose cost is known; got {way!r}.")
        spent += STEPS if steps is None else checks.whole("steps", steps)
        found = way.at(problem, hyper, problem.path(hyper, state=state, steps=steps))
        spent += found.cost
        if spent > BUDGET:
            raise Wrong(f"You spend {spent:,} gradient evaluations; the budget is {BUDGET:,}.")
        return found

    return answer({name: each.clone() for name, each in problem.hyper.items()}, tangent, problem.clamped, BUDGET)


def _judged(hyper: Tensors, seed: int) -> float:
    """The loss of a network trained anew; one that diverged counts as one that guesses."""
    problem = _task(seed, judging=True)
    try:
        return float(problem.score(problem.path(hyper)[-1].weights, hyper))
    except Diverged:
        return math.log(10)


@functools.cache
def _rival(seed: int) -> float:
    """What random search chooses, which begins at the same place."""
    problem = _task(seed)
    study = Study(problem.wide)
    study.enqueue(problem.config(problem.hyper))
    study.run(problem.objective, Random(seed=seed), budget=BUDGET, unit="epochs", epochs=STEPS)
    return _judged(problem.coordinates(study.best.config), seed)


def _task(seed: int, *, judging: bool = False) -> Problem:
    """What is searched; or, with other first weights and validation images, what judges."""
    digits, first = data.digits(), IMAGES * (seed % 4)
    factor = 64 ** (torch.rand((), generator=torch.Generator().manual_seed(seed)).item() - 0.5)

    def part(split: Split, start: int, stop: int) -> Split:
        return Split(factor * split.inputs[start:stop], split.labels[start:stop])

    seen = (CHOOSING, len(digits.validation)) if judging else (0, CHOOSING)
    train, validation = part(digits.train, first, first + IMAGES), part(digits.validation, *seen)
    dataset = replace(digits, train=train, validation=validation, test=validation)
    net = models.MLP((64, 16, 10), seed=seed + 1000 * judging)
    room: dict[str, Any] = {"per": "layer", "pieces": 4, "steps": STEPS, "space": SPACE}
    return network(net, dataset, list(SPACE), **room, lr=0.1, label_smoothing=0.2)
