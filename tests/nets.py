"""What the tests of networks share: weights in a row, the ordinary loop, and an event set in the middle of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.cohort import Cohort
from kit.training import Callback, Progress


def vector(net: nn.Module) -> Tensor:
    """A copy of all parameters in one row."""
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether both hold the same numbers under the same names."""
    one, other = first.state_dict(), second.state_dict()
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def loop(
    nets: Sequence[nn.Module],
    n: int,
    loss: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    seed: int,
    lr: float = 1e-3,
    stepper: torch.optim.Optimizer | None = None,
    size: int = 64,
) -> None:
    """The loop of any PyTorch tutorial over batches of rows, with Adam if no other optimiser is given."""
    stepper = stepper or torch.optim.Adam([parameter for net in nets for parameter in net.parameters()], lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(size):
            stepper.zero_grad()
            loss(rows).backward()
            stepper.step()


class Counter(Callback):
    """Counts steps, and the networks of each cohort."""

    def __init__(self) -> None:
        self.batches = 0
        self.sizes: list[int] = []

    def on_batch_end(self, progress: Progress) -> None:
        self.batches += 1
        if isinstance(progress.model, Cohort) and progress.epoch == 0 and progress.batch == 1:
            self.sizes.append(len(progress.model))


class Recorder(Callback):
    """Steps and ends of epochs of a cohort's fit, in their order, and the weights of all networks after each step."""

    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.ends: list[Progress] = []
        self.order: list[tuple[str, int, int]] = []
        self.weights: list[list[Tensor]] = []

    def on_batch_end(self, progress: Progress) -> None:
        assert isinstance(progress.model, Cohort)
        self.steps.append(progress)
        self.order.append(("batch", progress.epoch, progress.batch))
        self.weights.append([vector(net) for net in progress.model.models()])

    def on_epoch_end(self, progress: Progress) -> None:
        self.ends.append(progress)
        self.order.append(("epoch", progress.epoch, progress.batch))


class SetAfter(Callback):
    """Sets an event after some batches."""

    def __init__(self, event: Event, batches: int) -> None:
        self.event, self.left = event, batches

    def on_batch_end(self, progress: Progress) -> None:
        self.left -= 1
        if not self.left:
            self.event.set()


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[Any, ...]]:
    """Let `module.name` do what it does, and note the first two arguments of each call."""
    calls: list[tuple[Any, ...]] = []
    original: Callable[..., Any] = getattr(module, name)

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(args[:2])
        return original(*args, **settings)

    monkeypatch.setattr(module, name, counted)
    return calls


def already_set() -> Event:
    """A cancel that comes before the start."""
    event = Event()
    event.set()
    return event
