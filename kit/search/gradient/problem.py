"""Training as a function: hyper-parameters in, trained weights out, every step of it a formula that can be derived.

Hyper-parameters are tensors of coordinates: the logarithm of a value whose `Float` is logarithmic, else the value.

What has no slope is refused when a problem is made: whole numbers and choices, a score that is flat wherever it does
not jump, such as an accuracy, and a hyper-parameter that nothing depends on. What cannot be seen there: the tiny jumps
that ReLU's gradient brings into training, which a slope does not see and `Differences` span, and a training that does
not end at a minimum, which is what `Implicit` takes it for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from kit import checks, cores
from kit.inference import SMALL_MODEL
from kit.search.space import Config, Float, Space
from kit.training import Diverged, check_cancel

Tensors = dict[str, Tensor]
Pull = Callable[[Tensors], tuple[Tensors, Tensors]]  # v -> v L_ww, v L_wh


class State(NamedTuple):
    """Where a training stands.

    Attributes:
        weights: by name.
        velocity: of each, the running sum that momentum keeps.
    """

    weights: Tensors
    velocity: Tensors


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights that minimise a training loss, hyper-parameters that should minimise a validation loss.

        hyper* = argmin score(w*(hyper), hyper),   w*(hyper) = what `steps` steps on train(w, hyper) arrive at

    Attributes:
        train: the training loss of (weights, hyper, at), at step number `at`; a scalar, twice differentiable.
        score: the validation loss of (weights, hyper); a scalar.
        start: the weights before the first step, by name; float32 or float64. A copy is kept.
        space: the range of each hyper-parameter.
        hyper: coordinates to begin with, by name as in `space`, of any shape and of the dtype of `start`. A copy is
            kept. Each must act on the first step or on the validation loss.
        steps: of one training, 1 or more.
        lr: learning rate, above 0; where `space` has "lr", that is taken: one number, or one for each equal part of
            the training.
        momentum: in [0, 1).
        parts: names of the elements of a hyper-parameter that is no single number, such as its layers.

    Raises:
        ValueError: a number out of range, names that differ, tensors that are empty, not finite or of several dtypes, a
            loss that is no finite number at the start or has no slope, or a hyper-parameter that nothing depends on.
        TypeError: an argument of another kind; a whole number or a choice among the hyper-parameters.
    """

    train: Callable[[Tensors, Tensors, int], Tensor]
    score: Callable[[Tensors, Tensors], Tensor]
    start: Tensors
    space: Mapping[str, Float]
    hyper: Tensors
    steps: int = 100
    lr: float = 0.1
    momentum: float = 0.0
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be differentiated."""
        checks.instance("space", self.space, Mapping, "a dictionary of Float")
        for name, parameter in self.space.items():
            words = "a Float (a whole number or a choice has no slope; take grid, random or Bayesian search for it)"
            checks.instance(f"space[{name!r}]", parameter, Float, words)
        object.__setattr__(self, "start", _copies("start", self.start))
        object.__setattr__(self, "hyper", _ordered(_copies("hyper", self.hyper), self.space))
        dtypes = sorted({str(each.dtype) for each in (*self.start.values(), *self.hyper.values())})
        if len(dtypes) > 1:
            raise ValueError(f"start and hyper must be of one dtype; got {' and '.join(dtypes)}.")
        for name in self.hyper:
            if (count := len(self._names(name))) != self.hyper[name].numel():
                raise ValueError(f"parts[{name!r}] must hold {self.hyper[name].numel()} names; got {count}.")
        checks.whole("steps", self.steps, 1)
        checks.number("lr", self.lr, above=0)
        checks.share("momentum", self.momentum, one=False)
        self._check_slopes()

    def _check_slopes(self) -> None:
        """Refuse a loss without a slope, and a hyper-parameter of which neither the first step nor the score knows."""
        weights, hyper = _leaves(self.start), _leaves(self.hyper)
        with self.one_thread(), torch.enable_grad():
            steps = _slopes(_checked_loss("train", self.train(weights, hyper, 0)), weights)
            known = [_checked_loss("score", self.score(weights, hyper))]
            if not steps:
                raise ValueError("train has no slope in the weights: it does not depend on them.")
            if _slopes(known[0], weights):  # else what a step does is not seen
                known += [each.sum() for each in (*steps, self.rate(hyper, 0)) if isinstance(each, Tensor)]
            found = torch.autograd.grad(sum(known[1:], known[0]), list(hyper.values()), allow_unused=True)
        for name, each in zip(hyper, found, strict=True):
            if each is None:
                raise ValueError(f"hyper[{name!r}] has no slope: neither the first step nor the score depends on it.")

    def rate(self, hyper: Tensors, at: int) -> Tensor | float:
        """The learning rate of step `at`."""
        if "lr" not in hyper:
            return self.lr
        rates = self.value("lr", hyper).flatten()
        return rates[min(at, self.steps - 1) * len(rates) // self.steps]

    def value(self, name: str, hyper: Tensors) -> Tensor:
        """What the coordinates of a hyper-parameter stand for."""
        return values_of(self.space[name], hyper[name])

    def begin(self) -> State:
        """The start, at rest."""
        return State(self.start, {name: torch.zeros_like(each) for name, each in self.start.items()})

    def step(self, state: State, hyper: Tensors, at: int) -> State:
        """One step of gradient descent with momentum, as torch.optim.SGD takes it; torch.func differentiates it."""
        return self.moved(state, grad(self.train)(state.weights, hyper, at), self.rate(hyper, at))

    def moved(self, state: State, slope: Tensors, rate: Tensor | float) -> State:
        """The state after a step along minus the slope of the training loss."""
        velocity = {name: self.momentum * state.velocity[name] + each for name, each in slope.items()}
        return State({name: each - rate * velocity[name] for name, each in state.weights.items()}, velocity)

    def slope(self, weights: Tensors, hyper: Tensors, at: int) -> Tensors:
        """The slope of the training loss in the weights."""
        leaves = _leaves(weights)
        with torch.enable_grad():
            loss = self.train(leaves, hyper, at)
        return dict(zip(weights, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True), strict=True))

    def slopes_of_score(self, weights: Tensors, hyper: Tensors) -> tuple[Tensors, Tensors]:
        """The slopes V_w and V_h of the validation loss."""
        w, h = _leaves(weights), _leaves(hyper)
        with torch.enable_grad():
            return _pulled([self.score(w, h)], None, w, h)

    def linearised(self, weights: Tensors, hyper: Tensors, at: int) -> tuple[Tensors, Pull]:
        """The slope L_w of the training loss, and v -> (v L_ww, v L_wh): one derivative serves both products.

        The second costs nothing until it is called; what it needs of the forward pass is held as long as it is.
        """
        w, h = _leaves(weights), _leaves(hyper)
        with torch.enable_grad():
            found = torch.autograd.grad(
                self.train(w, h, at), list(w.values()), create_graph=True, materialize_grads=True
            )
        slope = dict(zip(w, found, strict=True))
        curved = {name: each for name, each in slope.items() if each.requires_grad}  # the others are constant

        def pull(v: Tensors) -> tuple[Tensors, Tensors]:
            return _pulled(list(curved.values()), [v[name] for name in curved], w, h)

        return {name: each.detach() for name, each in slope.items()}, pull

    def path(
        self,
        hyper: Tensors,
        *,
        state: State | None = None,
        steps: int | None = None,
        cancel: Event | None = None,
    ) -> list[State]:
        """Train: the state before the first step, and after each.

        Args:
            hyper: coordinates, shaped as the problem's own.
            state: to go on from; None for the start.
            steps: how many, 0 or more; None for all.
            cancel: looked at before each step.

        Raises:
            training.Cancelled: `cancel` was set.
            training.Diverged: the weights are no finite numbers any more.
            ValueError: hyper-parameters of other names or shapes, or with NaN or infinity.
        """
        steps = self.steps if steps is None else checks.whole("steps", steps)
        return self._path(self.slope, hyper, state or self.begin(), steps, cancel)

    def recorded_path(
        self, hyper: Tensors, *, back: int | None = None, cancel: Event | None = None
    ) -> tuple[list[State], list[Pull]]:
        """As `path`, with the pulls of the last `back` steps (None: all): what those computed is held."""
        pulls: list[Pull] = []

        def recorded(weights: Tensors, hyper: Tensors, at: int) -> Tensors:
            if back is not None and at < self.steps - back:
                return self.slope(weights, hyper, at)
            slope, pull = self.linearised(weights, hyper, at)
            pulls.append(pull)
            return slope

        return self._path(recorded, hyper, self.begin(), self.steps, cancel), pulls

    def _path(
        self, slope: Callable[..., Tensors], hyper: Tensors, state: State, steps: int, cancel: Event | None
    ) -> list[State]:
        hyper, states = self.check_hyper(hyper), [state]
        with self.one_thread():
            for at in range(steps):
                check_cancel(cancel, f"after {at} steps")
                state = self.moved(state, slope(state.weights, hyper, at), self.rate(hyper, at))
                states.append(state)
        if not _finite(state.weights):  # which lasts, so the end is enough to look at
            after = next(at for at, each in enumerate(states) if not _finite(each.weights))
            rate = float(self.rate(hyper, after - 1))
            raise Diverged(f"the training diverged in step {after}; try a smaller lr than {rate:g}.")
        return states

    def one_thread(self) -> AbstractContextManager[None]:
        """For small work."""
        return cores.one_thread(small=sum(each.numel() for each in self.start.values()) < SMALL_MODEL)

    def check_hyper(self, hyper: Tensors) -> Tensors:
        """The same without a history, in the problem's order; others than its names, shapes and dtype are refused."""
        hyper = _ordered(_copies("hyper", hyper), self.hyper)
        for name, own in self.hyper.items():
            if (hyper[name].shape, hyper[name].dtype) != (own.shape, own.dtype):
                raise ValueError(f"hyper[{name!r}] must be {_words(own)}; got {_words(hyper[name])}.")
        return hyper

    # -- beside other searches -----------------------------------------------------------------------------------------

    @property
    def wide(self) -> Space:
        """The space of every element, as other methods search it: "lr", "weight_decay[layers.0]" ..."""
        return Space({each: self.space[name] for name in self.space for each in self._names(name)})

    def config(self, hyper: Tensors) -> Config:
        """The values of every element, in the ranges of the space."""
        found: Config = {}
        for name, range_ in self.space.items():
            values = self.value(name, hyper).flatten().double().clamp(range_.low, range_.high).tolist()
            found |= dict(zip(self._names(name), values, strict=True))
        return found

    def coordinates(self, config: Config) -> Tensors:
        """The other way: the coordinates of a configuration."""
        config, found = self.wide.check(config), {}
        for name, own in self.hyper.items():
            values = torch.tensor([config[each] for each in self._names(name)], dtype=torch.float64)
            found[name] = coordinates_of(self.space[name], values).to(own.dtype).reshape(own.shape)
        return found

    def clamped(self, hyper: Tensors) -> Tensors:
        """The nearest coordinates that the space allows."""
        ends = {
            name: coordinates_of(each, torch.tensor([each.low, each.high], dtype=torch.float64)).tolist()
            for name, each in self.space.items()
        }
        return {name: each.clamp(*ends[name]) for name, each in hyper.items()}

    def objective(self, config: Config, *, epochs: int | None = None, cancel: Event | None = None) -> float:
        """For `Study.run`: the validation loss after a training from the start, of `epochs` steps (None: all)."""
        hyper = self.coordinates(config)
        return float(self.score(self.path(hyper, steps=epochs, cancel=cancel)[-1].weights, hyper))

    def _names(self, name: str) -> list[str]:
        parts = self.parts.get(name, tuple(map(str, range(self.hyper[name].numel()))))
        return [f"{name}[{part}]" for part in parts] if self.hyper[name].ndim else [name]


def coordinates_of(range_: Float, values: Tensor) -> Tensor:
    """The coordinates of values of a hyper-parameter with this range."""
    return values.log() if range_.log else values


def values_of(range_: Float, coordinates: Tensor) -> Tensor:
    """The other way: the values that coordinates stand for."""
    return coordinates.exp() if range_.log else coordinates


def _ordered(hyper: Tensors, names: Mapping[str, object]) -> Tensors:
    if set(hyper) != set(names):
        raise ValueError(f"hyper must name {', '.join(names)}; got {', '.join(map(str, hyper))}.")
    return {name: hyper[name] for name in names}


def _copies(words: str, given: Tensors) -> Tensors:
    """Copies without a history; what is no dictionary of finite numbers is refused."""
    checks.instance(words, given, Mapping, "a dictionary of tensors")
    if not given:
        raise ValueError(f"{words} must hold at least one tensor; got none.")
    for name, each in given.items():
        checks.instance(f"{words}[{name!r}]", each, Tensor, "a tensor")
        if each.dtype not in (torch.float32, torch.float64) or not each.numel():
            raise ValueError(f"{words}[{name!r}] must hold numbers, float32 or float64; got {_words(each)}.")
    if not _finite(given):
        bad = next(name for name, each in given.items() if not _finite({name: each}))
        raise ValueError(f"{words}[{bad!r}] must hold finite numbers; got NaN or infinity.")
    return {name: each.detach().clone() for name, each in given.items()}


def _leaves(tensors: Tensors) -> Tensors:
    """To differentiate in."""
    return {name: each.detach().requires_grad_() for name, each in tensors.items()}


def _pulled(of: list[Tensor], along: list[Tensor] | None, w: Tensors, h: Tensors) -> tuple[Tensors, Tensors]:
    """The products of vectors `along` with the slopes of tensors in w and in h."""
    inputs = [*w.values(), *h.values()]
    both = torch.autograd.grad(of, inputs, along, retain_graph=True, materialize_grads=True)
    return dict(zip(w, both, strict=False)), dict(zip(h, both[len(w) :], strict=True))


def _finite(tensors: Tensors) -> bool:
    return all(bool(each.isfinite().all()) for each in tensors.values())


def _words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _checked_loss(name: str, loss: Tensor) -> Tensor:
    """Refuse what is not one finite number with a slope."""
    checks.instance(f"the answer of {name}", loss, Tensor, "a tensor")
    if loss.ndim or not bool(loss.isfinite()):
        came = _words(loss) if loss.ndim else float(loss.detach())
        raise ValueError(f"{name} must answer with one finite number at the start; got {came}.")
    if not loss.requires_grad:
        way_out = "a share of right answers has none, a cross-entropy has"
        raise ValueError(f"{name} has no slope, neither in the weights nor in the hyper-parameters; {way_out}.")
    return loss


def _slopes(loss: Tensor, weights: Tensors) -> list[Tensor]:
    """In the weights that it depends on, for another derivative."""
    found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    return [each for each in found if each is not None]
