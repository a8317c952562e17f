"""The exercise on differentiable architecture search: other right answers pass, wrong ones fail for their reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from kit import exercises
from kit.exercises import Verdict


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


def by_grad(
    train: Any,
    validation: Any,
    w: Tensor,
    alpha: Tensor,
    steps: int,
    rate: float,
    *,
    judge: Any = None,
    chosen: Any = lambda alpha: alpha[:, 1:].argmax(1) + 1,
    alpha_first: bool = False,
    at_once: bool = False,
    second_order: bool = False,
) -> Any:
    """Right with torch.func, which leaves nothing in .grad; or slips of it."""
    judge = judge or validation
    for _ in range(steps):
        before = w
        if not alpha_first:
            w = w - rate * torch.func.grad(train)(w, alpha)
        if second_order:
            step = lambda a, w=before: w - rate * torch.func.grad(train)(w, a)  # noqa: E731
            slope = torch.func.grad(lambda a, step=step: judge(step(a), a))(alpha)
        else:
            slope = torch.func.grad(judge, argnums=1)(before if at_once else w, alpha)
        alpha = alpha - rate * slope
        if alpha_first:
            w = w - rate * torch.func.grad(train)(w, alpha)
    return alpha, chosen(alpha)


def by_optimisers(
    train: Any,
    validation: Any,
    w: Tensor,
    alpha: Tensor,
    steps: int,
    rate: float,
    *,
    judged_by: str = "validation",
    clears: tuple[str, ...] = ("alpha", "w"),
    copies: bool = True,
) -> Any:
    if copies:
        w, alpha = w.clone(), alpha.clone()
    w.requires_grad_()
    alpha.requires_grad_()
    outer, inner = torch.optim.SGD([alpha], lr=rate), torch.optim.SGD([w], lr=rate)
    for _ in range(steps):
        if "w" in clears:
            inner.zero_grad()
        train(w, alpha).backward()
        inner.step()
        if "alpha" in clears:
            outer.zero_grad()
        (validation if judged_by == "validation" else train)(w, alpha).backward()
        outer.step()
    return alpha.detach(), (1 + alpha[:, 1:].argmax(1)).tolist()


def left_out(alpha: Tensor) -> Tensor:
    alpha[:, 0] = -torch.inf  # in place
    return alpha.argmax(1)


@pytest.mark.parametrize("right", [by_grad, by_optimisers, lambda *given: list(by_grad(*given))])
def test_mended(right: Any) -> None:
    verdict = exercises.mended_darts(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"judged_by": "train"}, "With 1 step alpha goes down the loss of the training images"),
        ({"judged_by": "train", "clears": ()}, "loss of the training images"),
        ({"clears": ("alpha",)}, "With 2 steps w learns from the validation images"),
        ({"clears": ("w",)}, "With 1 step alpha goes down the slopes of both losses"),
        ({"clears": ()}, "slopes of both losses"),
        ({"copies": False}, "has changed"),
    ],
)
def test_a_loop_with_optimisers_that_is_not_mended(slip: dict[str, Any], reason: str) -> None:
    refused(exercises.mended_darts(lambda *given: by_optimisers(*given, **slip)), reason)


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"chosen": lambda alpha: alpha.argmax(1)}, 'you choose "none"'),
        ({"chosen": lambda alpha: alpha[:, 1:].argmax(1)}, 'count from "none"'),
        ({"chosen": lambda alpha: [3, 3]}, r"strongest operations are \[1, \d\]; got \[3, 3\]"),
        ({"chosen": left_out}, "return alpha as the search left it"),
        ({"alpha_first": True}, "w goes first"),
        ({"at_once": True}, "w goes first"),
        ({"second_order": True}, "that is second order"),
    ],
)
def test_a_loop_of_slopes_with_a_slip(slip: dict[str, Any], reason: str) -> None:
    refused(exercises.mended_darts(lambda *given: by_grad(*given, **slip)), reason)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda t, v, w, alpha, steps, rate: by_grad(t, v, w, alpha, steps, -rate), "both climb"),
        (
            lambda t, v, w, alpha, steps, rate: by_grad(lambda w, a: 0 * w.sum(), v, w, alpha, steps, rate),
            "w goes first",
        ),
        (lambda t, v, w, alpha, steps, rate: (alpha, [1, 1]), "what it was"),
        (lambda t, v, w, alpha, steps, rate: alpha, "Return two things"),
        (lambda t, v, w, alpha, steps, rate: (alpha[0], [1, 1]), r"shape \(2, 4\); got \(4,\)"),
        (lambda *given: ..., "three dots"),
        (lambda *given: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_no_loop(wrong: Any, reason: str) -> None:
    refused(exercises.mended_darts(wrong), reason)
