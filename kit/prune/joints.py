"""Do the right inputs go with the removed channels? A check by experiment of what the dependency graph says.

The graph follows sums, concatenations and flattening, but not a permutation of channels. Where a model shuffles them,
or flattens an image with its channels last, inputs of other channels would be removed, and nothing would say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kit import training

Marked = Mapping[nn.Module, Tensor]


def wrong_joint(model: nn.Module, outputs: Marked, inputs: Marked, samples: Tensor) -> nn.Module | None:
    """The first layer of `inputs` that would lose an input of another channel than those that go; else None.

    The outputs of all layers are held at what they are, but for the marked (or the unmarked) channels, which are moved
    far up and down. A marked input that moves with the unmarked channels only, or the reverse, is a wrong one. An input
    that moves with neither (scaled by zero) or both (mixed by a normalisation) says nothing.

    Args:
        model: any module.
        outputs: for each layer that loses outputs, bool [channels], True where one goes.
        inputs: for each layer that loses inputs, bool [channels], True where one goes.
        samples: [n, ...], a batch for the model.
    """
    held: dict[nn.Module, list[Tensor]] = {}
    with _listen(inputs) as before, _record(outputs, held):
        training.predict(model, samples)
    moved = {}
    for goes in (True, False):
        moved[goes] = {layer: torch.zeros_like(marked) for layer, marked in inputs.items()}
        for shift in (10.0, -10.0):
            with _listen(inputs) as after, _move(outputs, held, goes, shift):
                training.predict(model, samples)
            for layer in before:
                for old, new in zip(before[layer], after[layer], strict=False):
                    moved[goes][layer] |= (old != new).any(dim=0)
    for layer, marked in inputs.items():
        by_gone, by_kept = moved[True][layer], moved[False][layer]
        if bool(((marked & by_kept & ~by_gone) | (~marked & by_gone & ~by_kept)).any()):
            return layer
    return None


def _rows(values: Tensor, layer: nn.Module) -> Tensor:
    """Values as [all positions, channels]; linear layers have their channels last, convolutions second."""
    return (values if isinstance(layer, nn.Linear) else values.movedim(1, -1)).flatten(0, -2)


@contextmanager
def _listen(layers: Marked) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Collect what comes into each layer, one entry a call."""
    heard: dict[nn.Module, list[Tensor]] = {}

    def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments:
            heard.setdefault(layer, []).append(_rows(arguments[0], layer).clone())  # before anything works in place

    with _hooked([layer.register_forward_pre_hook(hook) for layer in layers]):
        yield heard


def _record(layers: Marked, held: dict[nn.Module, list[Tensor]]) -> Any:
    def hook(layer: nn.Module, arguments: Any, output: Tensor) -> None:
        held.setdefault(layer, []).append(output.clone())

    return _hooked([layer.register_forward_hook(hook) for layer in layers])


def _move(layers: Marked, held: Mapping[nn.Module, list[Tensor]], goes: bool, shift: float) -> Any:
    """Let each layer answer what it answered before, but for the channels whose mark is `goes`."""
    calls = {layer: iter(answers) for layer, answers in held.items()}

    def hook(layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        answer = next(calls[layer], output)
        # Not the same shift everywhere, or a normalisation of each channel would take it away again.
        far = answer + shift * (answer.abs().max() + 1) * torch.linspace(1, 2, answer.numel()).view_as(answer)
        shape = [1] * answer.ndim
        shape[-1 if isinstance(layer, nn.Linear) else 1] = -1
        return torch.where((layers[layer] == goes).view(shape), far, answer)

    return _hooked([layer.register_forward_hook(hook) for layer in layers])


@contextmanager
def _hooked(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
