"""The slope of the validation loss in the hyper-parameters, three ways.

With w(h) the trained weights, L the training loss and V the validation loss,

    dV/dh = V_h + V_w dw/dh                                                             (chain rule)

and what differs is how dw/dh is had: by going through the steps of training (`Unrolled`), by the condition that they
have ended at a minimum (`Implicit`), or by training again, a little to the side (`Differences`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Event
from typing import Literal, NamedTuple, Protocol, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vmap

from kit import checks
from kit.search.gradient.problem import Problem, Pull, State, Tensors
from kit.training import Diverged, check_cancel

Mode = Literal["reverse", "forward"]
Solver = Literal["neumann", "cg"]
Product = Callable[[Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """A slope, and what it cost.

    Attributes:
        loss: validation loss where it was taken.
        slope: of the validation loss in each coordinate, by name, shaped as the hyper-parameters.
        cost: gradient evaluations: 1 for each gradient of the training loss, 2 for each product of a vector with its
            second derivatives, which is a gradient and the derivative of that (Pearlmutter 1994). So `Implicit` is
            charged too much rather than too little: its products share one gradient. The training that leads to `state`
            is not counted, those of `Differences` are.
        held: numbers that this way has to keep in memory at once, beside the weights; what `recompute=False` keeps of
            each step comes on top, and depends on the model.
        state: where the training ended.
        residual: of `Implicit` alone: |L_w| there, 0 at a minimum.
        note: why this slope is not to be trusted, in a sentence; empty where nothing is known against it.
    """

    loss: float
    slope: Tensors
    cost: int
    held: int
    state: State
    residual: float | None = None
    note: str = ""


class Way(Protocol):
    """A way to a hypergradient."""

    def at(
        self, problem: Problem, hyper: Tensors, path: list[State] | None = None, *, cancel: Event | None = None
    ) -> Hypergradient:
        """The hypergradient at these coordinates.

        Args:
            problem: what is trained.
            hyper: coordinates.
            path: states of a training at `hyper` from step 0 on, as `Problem.path` gives them; None trains now.
            cancel: looked at between steps.

        Raises:
            ValueError: hyper-parameters of other names, shapes or dtype, or with NaN or infinity; an empty path; a
                learning rate where the way is `Implicit`.
            training.Cancelled: `cancel` was set.
            training.Diverged: the training did, or the validation loss or a slope is no finite number.
        """
        ...


@dataclass(frozen=True)
class Unrolled:
    """Through the steps of training, as if they were the layers of one deep network.

    With w_{t+1} = step(w_t, h), the chain rule runs over t. Reverse mode goes back from the last step with one vector,
    and needs all states kept (Franceschi et al. 2017, arXiv:1703.01785, algorithm 1; Maclaurin et al. 2015,
    arXiv:1502.03492, run the training in reverse instead). Forward mode goes along with training and needs no state
    kept, but a vector for each single hyper-parameter (Franceschi et al. 2017, algorithm 2).

    Attributes:
        back: only so many of the last steps, 0 or more; None takes all (Shaban et al. 2019, arXiv:1810.10667: the error
            of leaving the others out shrinks geometrically where training contracts).
        mode: "reverse" or "forward"; both give the same number.
        recompute: whether reverse mode keeps the states alone and computes each step once more on its way back (Chen et
            al. 2016, arXiv:1604.06174: checkpointing). False keeps what each step computed, which takes much more
            memory and less time, where no `path` is given.
    """

    back: int | None = None
    mode: Mode = "reverse"
    recompute: bool = True

    def __post_init__(self) -> None:
        """Refuse other modes and counts."""
        checks.one_of("mode", self.mode, get_args(Mode))
        if self.back is not None:
            checks.whole("back", self.back)

    def at(
        self, problem: Problem, hyper: Tensors, path: list[State] | None = None, *, cancel: Event | None = None
    ) -> Hypergradient:
        """As in `Way`."""
        pulls: list[Pull] | None = None
        if path is None and self.mode == "reverse" and not self.recompute:
            path, pulls = problem.recorded_path(hyper, back=self.back, cancel=cancel)
        hyper, path = _trained(problem, hyper, path, cancel)
        last = len(path) - 1
        steps = last if self.back is None else min(self.back, last)
        size = 2 * _count(problem.start)  # of a state
        if self.mode == "reverse":
            with problem.one_thread():
                slope = next(islice(reverse(problem, hyper, path, pulls, cancel=cancel), steps, None))
            return _checked(problem, hyper, path, slope, 2 * steps, steps * size)
        slope = forward(problem, hyper, path[last - steps :], last - steps, cancel=cancel)
        return _checked(problem, hyper, path, slope, 2 * steps * _count(hyper), _count(hyper) * size)


@dataclass(frozen=True)
class Implicit:
    """By the condition that training has ended: L_w(w, h) = 0 holds along w(h), so that, derived once more in h,

        L_ww dw/dh + L_wh = 0,   dV/dh = V_h - V_w [L_ww + damping]^-1 L_wh

    The vector V_w [..]^-1 is found by products with L_ww alone: by conjugate gradients (Pedregosa 2016,
    arXiv:1602.02355), or by the Neumann series rate sum_i (1 - rate L_ww)^i, which is what reverse mode does when it
    stands still at the minimum (Lorraine et al. 2020, arXiv:1911.02590, section 4). In general: Blondel et al. 2022,
    arXiv:2105.15183. L is that of the last step, of its batch where there are batches.

    Where training has not ended the answer is wrong, however many terms: where no curvature is below m, the weights
    are up to |L_w| / m away from the minimum, and the slope is off in proportion to that and to what the terms leave
    unsolved (Pedregosa 2016; bounds with their constants: Grazzi et al. 2020, arXiv:2006.16218). A learning rate is
    refused: a minimum does not depend on it.

    Attributes:
        terms: products of conjugate gradients, or summands of the series, 1 or more.
        solver: "cg" or "neumann".
        damping: added to the curvature, 0 or more: it keeps directions of little or negative curvature from deciding.
        rate: of the Neumann series, above 0 and below 2 over the largest curvature; None takes the learning rate.
    """

    terms: int = 10
    solver: Solver = "cg"
    damping: float = 0.0
    rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot solve."""
        checks.whole("terms", self.terms, 1)
        checks.one_of("solver", self.solver, get_args(Solver))
        checks.number("damping", self.damping, least=0)
        if self.rate is not None:
            checks.number("rate", self.rate, above=0)

    def at(
        self, problem: Problem, hyper: Tensors, path: list[State] | None = None, *, cancel: Event | None = None
    ) -> Hypergradient:
        """As in `Way`; only the last state of the path is read. A `note` tells where the terms lead nowhere."""
        hyper, path = _trained(problem, hyper, path, cancel)
        with problem.one_thread():
            line, solutions, seen = self._solving(problem, hyper, path, cancel)
            [solution] = deque(solutions, maxlen=1)
            slope, note = line.slope(solution), ""
        length, curvature = seen[-1] if seen else (0.0, 0.0)
        if self.solver == "neumann" and not 0 <= curvature * self._rate(problem) <= 2:
            note = "the Neumann series grows: take a lower rate, or more damping where a curvature is negative"
        elif self.solver == "cg" and curvature <= 0 and length > 0.01 * float(line.right.norm()):  # else it is solved
            met = f"conjugate gradients met a curvature that is not positive in product {len(seen)}"
            note = f"{met}: here is no strict minimum; take fewer terms, more damping or more steps of training"
        found = _checked(problem, hyper, path, slope, 2 * len(seen) + 2, 4 * _count(problem.start))
        return replace(found, residual=float(line.residual.norm()), note=note)

    def slopes(
        self, problem: Problem, hyper: Tensors, path: list[State], *, cancel: Event | None = None
    ) -> Iterator[Callable[[], Tensors]]:
        """After each term, a call that gives the slope of so many terms; fewer where conjugate gradients end early."""
        line, solutions, _ = self._solving(problem, problem.check_hyper(hyper), path, cancel)
        return (partial(line.slope, each) for each in solutions)

    def _rate(self, problem: Problem) -> float:
        return problem.lr if self.rate is None else self.rate

    def _solving(
        self, problem: Problem, hyper: Tensors, path: list[State], cancel: Event | None
    ) -> tuple[Linear, Iterator[Tensor], list[tuple[float, float]]]:
        """The equations, their solutions of more and more terms; of each product its vector's length and curvature."""
        if "lr" in hyper:
            raise ValueError("lr has no slope by Implicit: where a minimum lies does not depend on it; take Unrolled.")
        line = linearised(problem, hyper, path[-1].weights, max(len(path) - 2, 0), self.damping)
        seen: list[tuple[float, float]] = []

        def product(v: Tensor) -> Tensor:
            check_cancel(cancel, "between two terms")
            image = line.product(v)
            seen.append((float(v.norm()), float(v @ image / (v @ v))))
            return image

        solving = conjugate_gradient(product, line.right)
        if self.solver == "neumann":
            solving = neumann(product, line.right, self._rate(problem))
        return line, islice(solving, self.terms), seen


@dataclass(frozen=True)
class Differences:
    """By training twice more for each single hyper-parameter, a little above and below: the rival that needs no theory.

    Attributes:
        width: how far to each side, in coordinates, above 0.
    """

    width: float = 0.01

    def __post_init__(self) -> None:
        """Refuse no width."""
        checks.number("width", self.width, above=0)

    def at(
        self, problem: Problem, hyper: Tensors, path: list[State] | None = None, *, cancel: Event | None = None
    ) -> Hypergradient:
        """As in `Way`; the trainings begin where the path does, and take as many steps."""
        hyper, path = _trained(problem, hyper, path, cancel)
        steps, slope = len(path) - 1, Tensors()

        def loss(moved: Tensors) -> Tensor:
            end = problem.path(moved, state=path[0], steps=steps, cancel=cancel)[-1]
            return problem.score(end.weights, moved)

        for name, each in hyper.items():
            rises = []
            for place in range(each.numel()):
                by = self.width * F.one_hot(torch.tensor(place), each.numel()).to(each).reshape(each.shape)
                rises.append(loss({**hyper, name: each + by}) - loss({**hyper, name: each - by}))
            slope[name] = torch.stack(rises).reshape(each.shape) / (2 * self.width)
        return _checked(problem, hyper, path, slope, 2 * steps * _count(hyper), 0)


def reverse(
    problem: Problem,
    hyper: Tensors,
    path: list[State],
    pulls: Sequence[Pull] | None = None,
    *,
    cancel: Event | None = None,
) -> Iterator[Tensors]:
    """The slope by going back through 0, 1, 2 ... of the steps of `path`, last first.

    A step takes (w, u) to u' = momentum u + L_w(w, h), w' = w - rate u'. So a, the slope of V in w', and b, that in the
    u of the step before (0 after the last one), become those of w and u', and that in h grows, by

        b <- momentum b - rate a,   V_h <- V_h + b L_wh - (a u') rate_h,   a <- a + b L_ww

    Args:
        problem: what is trained.
        hyper: coordinates.
        path: states of the training.
        pulls: of the last steps, as `Problem.recorded_path` gives them; None makes each anew when it is needed.
        cancel: looked at between steps.
    """
    with problem.one_thread():
        a, slope = problem.slopes_of_score(path[-1].weights, hyper)
    yield slope
    b = {name: torch.zeros_like(each) for name, each in a.items()}
    for at in reversed(range(len(path) - 1)):
        check_cancel(cancel, f"with {at + 1} steps to go back")
        with problem.one_thread():
            pull = problem.linearised(path[at].weights, hyper, at)[1] if pulls is None else pulls[at + 1 - len(path)]
            rate = problem.rate(hyper, at)
            b = {name: problem.momentum * each - rate * a[name] for name, each in b.items()}
            bent, more = pull(b)
            if "lr" in hyper:
                moved = torch.stack([(a[name] * each).sum() for name, each in path[at + 1].velocity.items()]).sum()
                more["lr"] = more["lr"] - moved * grad(problem.rate)(hyper, at)["lr"]
            a = {name: each + bent[name] for name, each in a.items()}
            slope = {name: each + more[name] for name, each in slope.items()}
        yield slope


def forward(problem: Problem, hyper: Tensors, path: list[State], first: int, *, cancel: Event | None = None) -> Tensors:
    """The same slope on the way forward: how each state answers to a move of each hyper-parameter.

    Args:
        problem: what is trained.
        hyper: coordinates.
        path: states of the training, or its last part; each is looked at once, so none needs to be kept.
        first: number of the step that leaves path[0].
        cancel: looked at between steps.
    """
    sizes = [each.numel() for each in hyper.values()]
    units = torch.eye(sum(sizes)).split(sizes, dim=1)
    moves = {name: each.to(own).reshape(-1, *own.shape) for each, (name, own) in zip(units, hyper.items(), strict=True)}
    still = {name: each.new_zeros(sum(sizes), *each.shape) for name, each in problem.start.items()}
    tangent = State(still, still)

    def pushed(of: Callable[..., T], *at: State | Tensors) -> Callable[..., T]:
        return vmap(lambda *by: jvp(of, at, by)[1], randomness="same")

    with problem.one_thread():
        for at, state in enumerate(path[:-1], start=first):
            check_cancel(cancel, f"after {at} steps")
            tangent = pushed(partial(problem.step, at=at), state, hyper)(tangent, moves)
        flat = pushed(problem.score, path[-1].weights, hyper)(tangent.weights, moves)  # [elements]
    parts = zip(flat.split(sizes), hyper.items(), strict=True)
    return {name: part.reshape(own.shape) for part, (name, own) in parts}


class Linear(NamedTuple):
    """What the implicit function theorem needs to know of trained weights, all of them in one row [P].

    Attributes:
        right: V_w [P].
        product: v [P] -> (L_ww + damping) v [P].
        slope: v [P] -> V_h - v L_wh, as the hyper-parameters.
        residual: L_w [P], 0 at a minimum.
    """

    right: Tensor
    product: Product
    slope: Callable[[Tensor], Tensors]
    residual: Tensor


def linearised(problem: Problem, hyper: Tensors, weights: Tensors, at: int, damping: float = 0.0) -> Linear:
    """The training loss of step `at` to second order about these weights: one derivative serves, of L_w in w and h."""
    sizes = [each.numel() for each in weights.values()]

    def unflat(v: Tensor) -> Tensors:
        parts = zip(v.split(sizes), weights.items(), strict=True)
        return {name: part.reshape(each.shape) for part, (name, each) in parts}

    def flat(tensors: Tensors) -> Tensor:
        return torch.cat([tensors[name].flatten() for name in weights])

    right, direct = problem.slopes_of_score(weights, hyper)
    residual, pull = problem.linearised(weights, hyper, at)

    def slope(v: Tensor) -> Tensors:
        mixed = pull(unflat(v))[1]
        return {name: each - mixed[name] for name, each in direct.items()}

    return Linear(flat(right), lambda v: flat(pull(unflat(v))[0]) + damping * v, slope, flat(residual))


def neumann(product: Product, right: Tensor, rate: float) -> Iterator[Tensor]:
    """Solve A x = right by x = rate sum_i (1 - rate A)^i right: x of 1, 2, 3 ... terms.

    The error shrinks by (1 - rate a) a term in each direction, a its eigenvalue: it grows where that is below -1 or
    above 1, so `rate` must lie below 2 over the largest, and no eigenvalue may be negative.

    Args:
        product: v -> A v, A symmetric.
        right: [P].
        rate: above 0.
    """
    term = right
    total = term
    while True:
        yield rate * total
        term = term - rate * product(term)
        total = total + term


def conjugate_gradient(product: Product, right: Tensor) -> Iterator[Tensor]:
    """Solve A x = right: x after 1, 2, 3 ... products (Hestenes & Stiefel 1952).

    It ends where x is exact to rounding, or where a direction of no or negative curvature is met: there it gives the x
    of the directions before once more, or `right` where there are none (Nocedal & Wright 2006, section 7.1).

    Args:
        product: v -> A v, A symmetric and positive definite.
        right: [P].
    """
    x, rest = torch.zeros_like(right), right
    direction, size = rest, rest @ rest
    least = torch.finfo(right.dtype).eps ** 2 * size
    while True:
        image = product(direction)
        curvature = direction @ image
        if not curvature > 0:
            yield x if bool(x.any()) else right
            return
        x = x + size / curvature * direction
        yield x
        rest = rest - size / curvature * image
        before, size = size, rest @ rest
        if size <= least:
            return
        direction = rest + size / before * direction


def _trained(
    problem: Problem, hyper: Tensors, path: list[State] | None, cancel: Event | None
) -> tuple[Tensors, list[State]]:
    hyper = problem.check_hyper(hyper)
    if path is None:
        return hyper, problem.path(hyper, cancel=cancel)
    if not path:
        raise ValueError("path must hold at least one state; got none.")
    return hyper, path


def _count(tensors: Tensors) -> int:
    return sum(each.numel() for each in tensors.values())


def _checked(
    problem: Problem, hyper: Tensors, path: list[State], slope: Tensors, cost: int, held: int
) -> Hypergradient:
    with problem.one_thread(), torch.no_grad():
        loss = problem.score(path[-1].weights, hyper)
    for words, each in {"the validation loss": loss, **{f"the slope in {name}": slope[name] for name in slope}}.items():
        if not bool(each.isfinite().all()):
            raise Diverged(f"{words} is no finite number; take a smaller lr, fewer steps back, or more damping.")
    return Hypergradient(float(loss), slope, cost, held, path[-1])
