"""The exercises on tuning by gradients: other right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kit import exercises
from kit.exercises import Verdict
from kit.exercises import gradient as checks
from kit.search.gradient import Differences, Implicit, Unrolled
from kit.training import Diverged


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- ridge regression ----------------------------------------------------------------------------------------------


def ridge(
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    h: Any,
    *,
    decay: Callable[[Any], Any] = torch.exp,
    mean: bool = True,
    half: float = 0.5,
) -> Tensor:
    """The validation loss as a function of h, or slips of it."""
    n, p = x.shape
    per = n if mean else 1
    w = torch.linalg.solve(x.T @ x / per + decay(h) * torch.eye(p), x.T @ y / per)
    return half * (x_val @ w - y_val).square().mean()


def by_autograd(x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, at: float, **slip: Any) -> Tensor:
    """The slope, with no theory."""
    h = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(ridge(x, y, x_val, y_val, h, **slip), h)[0]


def by_theorem(x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, h: float, *, of: float = 1, w: float = 1) -> Tensor:
    """By the implicit function theorem; the decay's share in L_ww, and in the training, may be left out."""
    plain, eye = x.T @ x / len(y), math.exp(h) * torch.eye(x.shape[1]).double()
    weights = torch.linalg.solve(plain + w * eye, x.T @ y / len(y))
    return -math.exp(h) * (x_val @ weights - y_val) @ x_val @ torch.linalg.solve(plain + of * eye, weights) / len(y_val)


@pytest.mark.parametrize("right", [by_autograd, by_theorem, lambda *given: float(by_theorem(*given))])
def test_the_slope_of_ridge_regression(right: Any) -> None:
    verdict = exercises.ridge_slope(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda *given: -by_autograd(*given), "sign"),
        (lambda *given: by_autograd(*given) / math.exp(given[-1]), "slope in the decay. In its logarithm"),
        (lambda *given: by_autograd(*given) * math.exp(given[-1]), "is there twice"),
        (lambda *given: by_autograd(*given) * len(given[3]), "the sum over the 20 validation samples"),
        (lambda *given: by_autograd(*given, half=1.0), "twice too large"),
        (lambda *given: by_autograd(*given, half=0.25), "it is half"),
        (lambda *given: by_theorem(*given, of=0), "L_ww has a part"),
        (lambda *given: by_theorem(*given, w=0), "a training without decay"),
        (lambda *given: by_autograd(*given, mean=False), "you sum over 30 training samples"),
        (lambda x, y, x_val, y_val, h: by_autograd(x, y, x, y, h), "training samples' error"),
        (lambda *given: given[-1] * by_autograd(*given, decay=lambda h: h), "you take h for it"),
        (lambda *given: by_autograd(*given) + 1, "With n = 30, m = 20 and h = -1 it is .*; got"),
        (lambda x, *given: torch.ones(3), r"one number; got shape \(3,\)"),
    ],
)
def test_another_slope_of_ridge_regression(wrong: Any, reason: str) -> None:
    refused(exercises.ridge_slope(wrong), reason)


# -- a graph that is cut -------------------------------------------------------------------------------------------


def unrolled(
    loss: Any,
    score: Any,
    w: Tensor,
    h: Tensor,
    steps: int,
    *,
    numbers: Callable[[Tensor], Any] = lambda h: h.exp(),
    graph: bool = True,
    after: Callable[[Tensor], Tensor] = lambda w: w,
    last: Callable[[Tensor, Tensor], Any] = lambda slope, h: slope,
) -> Any:
    w, h = w.clone().requires_grad_(), h.clone().requires_grad_()
    rate, decay = numbers(h)
    for _ in range(steps):
        (down,) = torch.autograd.grad(loss(w), w, create_graph=graph)
        w = after(w - rate * (down + decay * w))
    return last(torch.autograd.grad(score(w), h, materialize_grads=True)[0], h)


def by_differences(loss: Any, score: Any, w: Tensor, h: Tensor, steps: int) -> Tensor:
    """Right with no graph at all."""

    def there(at: Tensor) -> float:
        rate, decay, now = *at.exp(), w.clone()
        for _ in range(steps):
            now.requires_grad_()
            now = (now - rate * (torch.autograd.grad(loss(now), now)[0] + decay * now)).detach()
        return float(score(now))

    return torch.tensor([(there(h + e) - there(h - e)) / 2e-4 for e in 1e-4 * torch.eye(2)], dtype=torch.float64)


@pytest.mark.parametrize("right", [unrolled, by_differences, lambda *given: (unrolled(*given),)])
def test_a_whole_graph(right: Any) -> None:
    verdict = exercises.attached_slope(right)
    assert verdict.right, verdict


def fresh(w: Tensor) -> Tensor:
    return w.detach().requires_grad_()


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"numbers": lambda h: h.exp().tolist()}, "With 1 step it is 0: nothing leads"),
        ({"after": fresh}, "With 1 step it is 0"),
        ({"graph": False}, "With 4 steps the gradient of the loss is a constant"),
        ({"numbers": lambda h: (h.exp()[0], h[1].exp().item())}, "slope in the weight decay is 0"),
        ({"numbers": lambda h: (h.exp()[0].item(), h[1].exp())}, "slope in the learning rate is 0"),
        ({"numbers": lambda h: (h.exp()[0], h[1].exp().item()), "graph": False}, "slope in the weight decay is 0"),
        ({"last": lambda slope, h: slope / h.exp()}, "slope in rate and decay themselves"),
        ({"last": lambda slope, h: -slope}, "sign"),
        ({"last": lambda slope, h: slope + 1}, r"With 1 step autograd finds \[.*; got \["),
        ({"last": lambda slope, h: slope.sum()}, r"a tensor of shape \(2,\); got \(\)"),
        ({"last": lambda slope, h: slope.tolist()}, "got list"),
    ],
)
def test_a_graph_with_a_cut(slip: dict[str, Any], reason: str) -> None:
    refused(exercises.attached_slope(lambda *given: unrolled(*given, **slip)), reason)


@pytest.mark.parametrize("graph", [True, False])
def test_a_graph_of_the_last_step_alone(graph: bool) -> None:
    def step(loss: Any, w: Tensor, h: Tensor) -> Tensor:
        w = w.clone().requires_grad_()
        rate, decay = h.exp()
        return (w - rate * (torch.autograd.grad(loss(w), w)[0] + decay * w)).detach()

    def last(loss: Any, score: Any, w: Tensor, h: Tensor, steps: int) -> Tensor:
        for _ in range(steps - 1):
            w = step(loss, w, h)
        return unrolled(loss, score, w, h, 1, graph=graph)

    refused(exercises.attached_slope(last), "With 4 steps the last step alone counts")


def test_what_is_given_stays() -> None:
    def answer(loss: Any, score: Any, w: Tensor, h: Tensor, steps: int) -> Any:
        found = unrolled(loss, score, w, h, steps)
        w -= 1
        return found

    refused(exercises.attached_slope(answer), "has changed")


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_given_stays_without_a_graph(which: int) -> None:
    def answer(loss: Any, score: Any, *given: Any) -> Tensor:
        given[which].requires_grad_()
        return unrolled(loss, score, *given)

    refused(exercises.attached_slope(answer), "requires_grad on in the caller's")


# -- terms ---------------------------------------------------------------------------------------------------------


def terms(m: float, most: float, tolerance: float, rate: float | None = None) -> tuple[float, int]:
    """The fewest by trying one after the other; at the best rate, or another."""
    rate = 2 / (m + most) if rate is None else rate
    worst, k = max(abs(1 - rate * m), abs(1 - rate * most)), 1
    while worst**k > tolerance * (1 + 1e-12):
        k += 1
    return rate, k


def test_the_fewest_terms() -> None:
    verdict = exercises.terms_needed(terms)
    assert verdict.right, verdict
    assert exercises.terms_needed(lambda *given: (1.001 * terms(*given)[0], terms(*given)[1])).right is False


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda m, most, tolerance: terms(m, most, tolerance, 1 / most), "are enough, but another rate needs fewer"),
        (lambda m, most, tolerance: (2 / most, 5), "multiplies the error by .* -1: somewhere it does not shrink"),
        (lambda m, most, tolerance: (1 / m, 5), "somewhere it does not shrink"),
        (lambda *given: (terms(*given)[0], terms(*given)[1] + 1), "the last one is not needed"),
        (lambda *given: (terms(*given)[0], terms(*given)[1] - 1), "leave .* of the worst direction"),
        (lambda m, most, tolerance: (2 / (m + most), math.log(tolerance) / math.log((most - m) / (most + m))), "whole"),
        (lambda *given: (terms(*given)[0], 0), "1 or more"),
        (lambda *given: 7, "Return two numbers"),
    ],
)
def test_other_terms(wrong: Any, reason: str) -> None:
    refused(exercises.terms_needed(wrong), reason)


# -- which have a slope --------------------------------------------------------------------------------------------

RIGHT: dict[str, Any] = {name: right for name, (right, _) in checks.WHICH.items()}


def test_which_slopes() -> None:
    assert exercises.which_slopes(RIGHT).right
    assert set(RIGHT.values()) == set(checks.REASONS)


@pytest.mark.parametrize("name", RIGHT)
def test_which_slopes_are_others(name: str) -> None:
    other: Any = "gap" if RIGHT[name] != "gap" else "flat"
    refused(exercises.which_slopes({**RIGHT, name: other}), f"{name}: '{other}' means that .* But")
    refused(exercises.which_slopes({**RIGHT, name: "yes"}), "choose one of slope, gap, flat, absent; got 'yes'")
    untouched: dict[str, Any] = {**RIGHT, name: ...}
    refused(exercises.which_slopes(untouched), "three dots")
    refused(exercises.which_slopes({each: RIGHT[each] for each in RIGHT if each != name}), "three dots")


# -- the open task -------------------------------------------------------------------------------------------------


def test_random_search_is_not_beaten_by_what_it_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_rival", lambda seed: checks._judged(checks._task(seed).hyper, seed))
    verdict = exercises.beat_random(lambda hyper, tangent, clamped, budget: hyper, seeds=range(3))
    refused(verdict, r"is 1\.00 times .*\(95 % interval 1\.00 to 1\.00, 3 problems\)\. It counts as beaten when")


@pytest.mark.parametrize(("rate", "decay", "smoothing"), [(0.2, 3e-3, 0.0), (0.3, 1e-3, 0.02), (0.5, 1e-3, 0.05)])
def test_no_constant_beats_random_search(rate: float, decay: float, smoothing: float) -> None:
    def constant(hyper: Any, *_: Any) -> Any:
        at = {"lr": math.log(rate), "weight_decay": math.log(decay), "label_smoothing": smoothing}
        return {name: torch.full_like(each, at[name]) for name, each in hyper.items()}

    refused(exercises.beat_random(constant), "It counts as beaten when the whole interval is below 1")


def test_five_learning_rates_beat_random_search_as_well() -> None:
    def five(hyper: Any, tangent: Any, clamped: Any, budget: int) -> Any:
        best, chosen = math.inf, hyper
        for rate in (0.03, 0.1, 0.3, 1, 3):
            at = {"lr": math.log(rate), "weight_decay": math.log(3e-3), "label_smoothing": 0.02}
            here = {name: torch.full_like(each, at[name]) for name, each in hyper.items()}
            with contextlib.suppress(Diverged):
                if (loss := tangent(here, Unrolled(back=0)).loss) < best:
                    best, chosen = loss, here
        return chosen

    verdict = exercises.beat_random(five)
    assert verdict.right, verdict


def test_a_ratio_is_that_of_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_judged", lambda hyper, seed: (1.0, 2.0, 4.0)[seed])
    monkeypatch.setattr(checks, "_rival", lambda seed: (2.0, 8.0, 8.0)[seed])
    verdict = exercises.beat_random(lambda hyper, *_: hyper, seeds=range(3))
    log2 = [-1, -2, -1]
    mean, half = sum(log2) / 3, 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # Student's t, 2 degrees of freedom
    low, middle, high = (f"{2**each:.2f}" for each in (mean - half, mean, mean + half))
    assert verdict.right == (mean + half < 0)
    assert f"{middle} times that of random search (95 % interval {low} to {high}" in verdict.message


def test_a_tangent_costs_its_training_and_its_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BUDGET", 314)
    costs = {Unrolled(): 120, Unrolled(back=10): 60, Unrolled(back=0): 40}
    costs |= {Unrolled(back=1, mode="forward"): 40 + 2 * 7}

    def answer(hyper: Any, tangent: Any, clamped: Any, budget: int) -> Any:
        assert budget == sum(costs.values()) + 20 + 20
        found = tangent(hyper, Unrolled(back=5), steps=10)
        tangent(hyper, Unrolled(back=5), state=found.state, steps=10)
        for way in costs:
            tangent(clamped(hyper), way)
        assert seen == []
        seen.append(hyper)  # all of the budget is spent
        return tangent(hyper, Unrolled(back=0), steps=1)

    seen: list[Any] = []
    refused(exercises.beat_random(answer, seeds=[3]), "spend 315 gradient evaluations; the budget is 314")
    assert seen[0].keys() == checks.SPACE.keys()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            lambda hyper, tangent, clamped, budget: tangent(hyper, Differences()),
            "Return the coordinates .*; got Hypergradient",
        ),
        (lambda hyper, tangent, clamped, budget: tangent(hyper, Implicit()), "lr has no slope by Implicit"),
        (lambda hyper, tangent, clamped, budget: tangent(hyper, "unrolled"), "way must be Unrolled, Implicit or"),
        (lambda hyper, tangent, clamped, budget: tangent(hyper, Unrolled(), steps=-1), "steps"),
        (lambda hyper, tangent, clamped, budget: {"lr": hyper["lr"]}, "hyper must name"),
        (lambda hyper, tangent, clamped, budget: 3, "got int"),
        (lambda hyper, tangent, clamped, budget: ..., "three dots"),
        (lambda hyper, tangent, clamped, budget: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_search_that_is_none(monkeypatch: pytest.MonkeyPatch, wrong: Any, reason: str) -> None:
    monkeypatch.setattr(checks, "_rival", lambda seed: 1.0)
    refused(exercises.beat_random(wrong, seeds=range(2)), reason)


def test_a_choice_that_diverges_guesses() -> None:
    task = checks._task(0, judging=True)
    wild = {**task.hyper, "lr": task.hyper["lr"] + 50}
    with pytest.raises(Diverged):
        task.path(wild)
    assert checks._judged(wild, 0) == math.log(10)


def test_searching_and_judging_share_training_images_alone() -> None:
    searched, judge = checks._task(1), checks._task(1, judging=True)
    assert not torch.equal(*(each.start["layers.0.weight"] for each in (searched, judge)))
    hyper = searched.hyper
    same = [each.train(searched.start, hyper, 0) for each in (searched, judge)]
    assert torch.equal(*same)
    assert not torch.equal(*(each.score(searched.start, hyper) for each in (searched, judge)))
    assert len(searched.wide) == 7
