"""The check of the exercise on differentiable architecture search."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from kit.exercises.verdict import Wrong, answered, checked

Loss = Callable[[Tensor, Tensor], Tensor]

AT_TRAINING = "alpha goes down the loss of the training images; it is there to be judged by others."
AT_BOTH = "alpha goes down the slopes of both losses: what the pass for w left in alpha.grad is still there."
LEAKED = "w learns from the validation images: what the pass for alpha left in w.grad is still there."
TOO_EARLY = "alpha is judged at a w that has not made its step: w goes first."
SECOND_ORDER = "alpha's slope goes back through the step of w: that is second order. First order takes w as it is."


@checked
def mended_darts(answer: Callable[..., Any]) -> str:
    """Repair the loop of first-order DARTS.

    Args:
        answer: takes the losses train and validation, both of (w, alpha); w [p]; alpha [edges, operations]; the number
            of steps, and the rate. In each step w takes rate times the slope of the training loss off, then alpha, at
            this w, that of the validation loss. Returns alpha, and for each edge the index of its strongest
            operation, all but index 0, which is "none". Leaves w and alpha as they were.
    """
    for seed, steps, rate in ((0, 1, 0.5), (1, 2, 0.3), (2, 4, 0.2)):
        train, validation, w, alpha = _toy(seed)
        given = w.clone(), alpha.clone()
        got, chosen = _pair(answer(train, validation, *given, steps, rate), alpha)
        case = f"With {steps} step{'s' * (steps > 1)}"
        want = _searched(train, validation, w, alpha, steps, rate)
        if got[:, 0].isinf().all() and _same(got[:, 1:], want[:, 1:]):
            raise Wrong('You leave out "none" in alpha itself: return alpha as the search left it.')
        if not _same(got, want):
            raise Wrong(f"{case} {_reason(got, train, validation, w, alpha, steps, rate)}")
        strongest = 1 + want[:, 1:].argmax(1)
        if chosen != strongest.tolist():
            if chosen == want.argmax(1).tolist():
                raise Wrong('alpha is right, but you choose "none" for an edge: index 0 takes no part in the choice.')
            if chosen == (strongest - 1).tolist():
                raise Wrong('alpha is right, but the indices of the operations count from "none", which is 0.')
            raise Wrong(f"alpha is right, but its strongest operations are {strongest.tolist()}; got {chosen}.")
        if not torch.equal(given[0], w) or not torch.equal(given[1], alpha):
            raise Wrong("The w or alpha that you were given has changed: take a clone of it first.")
    return "Each variable goes down its own loss, on images of its own, and an edge never chooses nothing."


def _pair(answer: Any, alpha: Tensor) -> tuple[Tensor, list[int]]:
    found = answered(answer)
    if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[0], Tensor):
        raise Wrong("Return two things: alpha, a tensor, and the indices of the strongest operations.")
    if found[0].shape != alpha.shape:
        raise Wrong(f"alpha must keep its shape {tuple(alpha.shape)}; got {tuple(found[0].shape)}.")
    return found[0].detach().double(), torch.as_tensor(found[1]).flatten().tolist()


def _same(got: Tensor, want: Tensor) -> bool:
    return torch.allclose(got, want, rtol=1e-6, atol=1e-9)


def _reason(got: Tensor, train: Loss, validation: Loss, w: Tensor, alpha: Tensor, steps: int, rate: float) -> str:
    """What went wrong with alpha, where it is one of the usual slips."""
    if _same(got, alpha):
        return "alpha is what it was."
    for at_training, left_w, left_alpha in itertools.product((False, True), repeat=3):
        slips = {"at_training": at_training, "left_w": left_w, "left_alpha": left_alpha}
        if _same(got, _searched(train, validation, w, alpha, steps, rate, **slips)):
            return AT_TRAINING if at_training else AT_BOTH if left_alpha else LEAKED
    if _same(got, _searched(train, validation, w, alpha, steps, -rate)):
        return "both climb: down is against the slope."
    if _same(got, _searched(train, validation, w, alpha, steps, rate, alpha_first=True)):
        return TOO_EARLY
    if _same(got, _second_order(train, validation, w, alpha, steps, rate)):
        return SECOND_ORDER
    return "alpha is something else. Each step: w down the training loss, then alpha down the validation loss."


def _searched(
    train: Loss,
    validation: Loss,
    w: Tensor,
    alpha: Tensor,
    steps: int,
    rate: float,
    *,
    at_training: bool = False,
    left_w: bool = False,
    left_alpha: bool = False,
    alpha_first: bool = False,
) -> Tensor:
    """Alpha after some steps; `left`: slopes of the other pass and of earlier steps stay in .grad."""
    w, alpha = w.clone().requires_grad_(), alpha.clone().requires_grad_()

    def moved(of: Loss, what: Tensor, other: Tensor, left: bool, left_other: bool) -> None:
        of(w, alpha).backward()
        assert what.grad is not None
        with torch.no_grad():
            what -= rate * what.grad
        if not left:
            what.grad = None
        if not left_other:
            other.grad = None

    turns = [
        lambda: moved(train, w, alpha, left_w, left_alpha),
        lambda: moved(train if at_training else validation, alpha, w, left_alpha, left_w),
    ]
    for _ in range(steps):
        for turn in reversed(turns) if alpha_first else turns:
            turn()
    return alpha.detach()


def _second_order(train: Loss, validation: Loss, w: Tensor, alpha: Tensor, steps: int, rate: float) -> Tensor:
    for _ in range(steps):

        def stepped(alpha: Tensor, w: Tensor = w) -> Tensor:
            return w - rate * grad(train)(w, alpha)

        def judged(alpha: Tensor, stepped: Callable[[Tensor], Tensor] = stepped) -> Tensor:
            return validation(stepped(alpha), alpha)

        w, alpha = stepped(alpha), alpha - rate * grad(judged)(alpha)
    return alpha


def _toy(seed: int) -> tuple[Loss, Loss, Tensor, Tensor]:
    """Two edges in a row with four operations each: nothing, the input, a matrix, the tanh of another."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(16, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    w = torch.randn(36, generator=generator, dtype=torch.float64) / 2
    alpha = torch.tensor([[0.1, 0.4, 0.0, -0.2], [3.0, 0.0, 0.2, 0.3]], dtype=torch.float64)  # "none" leads the second

    def loss(part: slice) -> Loss:
        def of(w: Tensor, alpha: Tensor) -> Tensor:
            node = x[part]
            for (first, second), mix in zip(w.view(2, 2, 3, 3), alpha.softmax(1), strict=True):
                node = mix[1] * node + mix[2] * node @ first + mix[3] * (node @ second).tanh()
            return (node - y[part]).square().mean()

        return of

    return loss(slice(8)), loss(slice(8, None)), w, alpha
