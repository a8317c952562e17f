"""Do the right inputs go with the removed channels? A check by experiment of what the dependency graph says.

The graph follows sums, concatenations and flattening, but not a permutation of channels. Where a model shuffles them,
or flattens an image with its channels last, inputs of other channels would be removed, and nothing would say so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kit import training

Marked = Mapping[nn.Module, Tensor]


def wrong_joint(model: nn.Module, outputs: Marked, inputs: Marked, samples: Tensor) -> nn.Module | None:
    """The first layer of `inputs` that would lose an input of another channel than those that go; else None.

    `outputs` and `inputs` are bool [channels] for each layer that loses some, True where one goes. The outputs of all
    layers are held at their values, except the marked (or the unmarked) channels, which are moved far up and down. A
    marked input that moves with the unmarked channels only, or the reverse, is a wrong one. An input that moves with
    neither (scaled by zero) or both (mixed by a normalisation) says nothing. `samples` are a batch for the model.
    """
    held: dict[nn.Module, list[Tensor]] = {}

    def record(layer: nn.Module, arguments: Any, output: Tensor) -> None:
        held.setdefault(layer, []).append(output.clone())

    with _listen(inputs) as before, hooked([layer.register_forward_hook(record) for layer in outputs]):
        training.predict(model, samples)
    moved = {goes: {layer: torch.zeros_like(marked) for layer, marked in inputs.items()} for goes in (True, False)}
    for goes, shift in itertools.product(moved, (10.0, -10.0)):
        with _listen(inputs) as after, _move(outputs, held, goes, shift):
            training.predict(model, samples)
        for layer in before:
            for old, new in zip(before[layer], after[layer], strict=False):
                moved[goes][layer] |= (old != new).any(dim=0)
    for layer, marked in inputs.items():
        by_gone, by_kept = moved[True][layer], moved[False][layer]
        if bool(((by_gone != by_kept) & (by_gone != marked)).any()):
            return layer
    return None


def _channels_at(layer: nn.Module) -> int:
    return -1 if isinstance(layer, nn.Linear) else 1


@contextmanager
def _listen(layers: Marked) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Collect what comes into each layer, one entry a call: [all positions, channels]."""
    heard: dict[nn.Module, list[Tensor]] = {}

    def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments:
            rows = arguments[0].movedim(_channels_at(layer), -1).flatten(0, -2)
            heard.setdefault(layer, []).append(rows.clone())  # before anything works in place

    with hooked([layer.register_forward_pre_hook(hook) for layer in layers]):
        yield heard


def _move(layers: Marked, held: Mapping[nn.Module, list[Tensor]], goes: bool, shift: float) -> ExitStack:
    """Let each layer answer as before, except in the channels whose mark is `goes`."""
    calls = {layer: iter(answers) for layer, answers in held.items()}

    def hook(layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        answer = next(calls[layer], output)
        # Not the same shift everywhere, or a normalisation of each channel would take it away again.
        far = answer + shift * (answer.abs().max() + 1) * torch.linspace(1, 2, answer.numel()).view_as(answer)
        at = _channels_at(layer)
        moves = (layers[layer] == goes).expand(answer.movedim(at, -1).shape).movedim(-1, at)
        return torch.where(moves, far, answer)

    return hooked([layer.register_forward_hook(hook) for layer in layers])


def hooked(handles: Iterable[Any]) -> ExitStack:
    """A context at whose end the hooks are removed."""
    stack = ExitStack()
    for handle in handles:
        stack.enter_context(handle)
    return stack
