"""Small problems for tests of gradients: ridge regression, whose slope is known, and a smooth one with odd shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kit.search import Float
from kit.search.gradient import Problem, State, Tensors

WIDE = Float(1e-6, 1e3, log=True)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y, X_NEW, Y_NEW = draw(60, 5), draw(60, seed=1), draw(40, 5, seed=2), draw(40, seed=3)


def ridge(steps: int = 120, **settings: Any) -> Problem:
    """|Xw - y|^2 / 2n + decay |w|^2 / 2, decay 0.3, by plain gradient descent of rate 0.3 from 0."""

    def train(w: Tensors, h: Tensors, at: int) -> Tensor:
        return (X @ w["w"] - Y).square().mean() / 2 + h["decay"].exp() * w["w"].square().sum() / 2

    def score(w: Tensors, h: Tensors) -> Tensor:
        return (X_NEW @ w["w"] - Y_NEW).square().mean() / 2

    start, hyper = {"w": torch.zeros(5, dtype=torch.float64)}, {"decay": torch.tensor(0.3, dtype=torch.float64).log()}
    return Problem(train, score, start, {"decay": WIDE}, hyper, steps, **{"lr": 0.3, **settings})


def curvature(decay: float = 0.3) -> Tensor:
    """The Hessian of the ridge's training loss, [5, 5]."""
    return X.T @ X / len(X) + decay * torch.eye(5, dtype=torch.float64)


def closed_form(decay: float = 0.3) -> tuple[Tensor, float]:
    """Weights [5] at the ridge's minimum, and the slope of the validation loss in log decay."""
    a = curvature(decay)
    w = torch.linalg.solve(a, X.T @ Y / len(X))
    down = X_NEW.T @ (X_NEW @ w - Y_NEW) / len(X_NEW)
    return w, float(-decay * down @ torch.linalg.solve(a, w))


def at_minimum(problem: Problem, decay: float = 0.3) -> State:
    w = {"w": closed_form(decay)[0]}
    return State(w, {"w": torch.zeros_like(w["w"])})


def smooth(dtype: torch.dtype = torch.float64, steps: int = 12, momentum: float = 0.9) -> Problem:
    """A net of tanh: 0-d and transposed weights, a decay for each element, a schedule of three rates, a shift of the
    targets that only the score knows, and another loss in each step."""

    def answer(w: Tensors, x: Tensor) -> Tensor:
        return torch.tanh(x @ w["first"] + w["shift"]).sum(1)

    def train(w: Tensors, h: Tensors, at: int) -> Tensor:
        decays = (h["decay"].exp() * w["first"].square()).sum()
        return (answer(w, x) - y * (1 + at / 20)).square().mean() + decays

    def score(w: Tensors, h: Tensors) -> Tensor:
        return (answer(w, x_new) - h["target"] * y_new).square().mean()

    x, y, x_new, y_new = (each.to(dtype) for each in (X, Y, X_NEW, Y_NEW))
    start = {"first": draw(3, 5, seed=5).T.to(dtype) / 3, "shift": torch.tensor(0.1, dtype=dtype)}
    hyper = {
        "decay": (draw(3, 5, seed=6).T - 3).to(dtype),
        "lr": torch.tensor([0.02, 0.05, 0.01], dtype=dtype).log(),
        "target": torch.tensor(0.7, dtype=dtype),
    }
    space = {"decay": WIDE, "lr": WIDE, "target": Float(-5, 5)}
    return Problem(train, score, start, space, hyper, steps, momentum=momentum)


def by_hand(problem: Problem, hyper: Tensors, back: int | None = None) -> Tensors:
    """The unrolled slope as written without the kit: a loop whose graph is kept, cut before the last steps."""
    h = {name: each.clone().requires_grad_() for name, each in hyper.items()}
    w = {name: each.clone().requires_grad_() for name, each in problem.start.items()}
    v = {name: torch.zeros_like(each) for name, each in w.items()}
    for at in range(problem.steps):
        if back is not None and at == problem.steps - back:
            w, v = ({name: each.detach().requires_grad_() for name, each in old.items()} for old in (w, v))
        slopes = torch.autograd.grad(problem.train(w, h, at), list(w.values()), create_graph=True)
        rate = h["lr"][3 * at // problem.steps].exp() if "lr" in h else problem.lr
        v = {name: problem.momentum * v[name] + each for name, each in zip(w, slopes, strict=True)}
        w = {name: w[name] - rate * v[name] for name in w}
    if back == 0:
        w = {name: each.detach() for name, each in w.items()}
    found = torch.autograd.grad(problem.score(w, h), list(h.values()), allow_unused=True)
    pairs = zip(h.items(), found, strict=True)
    return {name: torch.zeros_like(own) if each is None else each for (name, own), each in pairs}


def watched(problem: Problem, seen: Any) -> Problem:
    """The same, and `seen(at)` is called with each look at the training loss."""

    def train(w: Tensors, h: Tensors, at: int) -> Tensor:
        seen(at)
        return problem.train(w, h, at)

    return replace(problem, train=train)
