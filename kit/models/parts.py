"""What all networks share: their first weights, and refusals of what they cannot take."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kit import checks


def initialise(model: nn.Module, seed: int) -> None:
    """Draw a model's weights anew, in place, from a generator of their own.

    The law is PyTorch's default for linear and convolutional layers: uniform within 1 / sqrt(fan in) for weights
    and biases (He et al. 2015, arXiv:1502.01852, with a = sqrt(5)). Embeddings are normal with a standard deviation of
    0.02 (Devlin et al. 2019, arXiv:1810.04805). Normalisation layers go back to scale 1, shift 0.
    Parameters on the meta device get memory on the CPU first.

    Args:
        model: Linear, Conv, Embedding, BatchNorm, LayerNorm and GroupNorm layers; a TypeError for others that have
            parameters.
        seed: of the generator, 0 or more.
    """
    checks.instance("model", model, nn.Module, "a torch.nn.Module")
    generator = torch.Generator().manual_seed(checks.whole("seed", seed))
    if any(parameter.is_meta for parameter in model.parameters()):
        model.to_empty(device="cpu")
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            module.reset_parameters()  # constants: no random numbers
        elif any(True for _ in module.parameters(recurse=False)):
            which = f"{name or 'the module'} ({type(module).__name__})"
            raise TypeError(
                f"model: cannot initialise {which}; known are Linear, Conv, Embedding and normalisation layers."
            )


def whole_numbers(argument: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """The numbers as ints, each at least `least`; else a TypeError or ValueError that names the argument."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be whole numbers in a row, such as (16, 32); got {values!r}.")
    return tuple(checks.whole(argument, value, least) for value in values)


def pair(argument: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """As `whole_numbers`, two of them."""
    if len(two := whole_numbers(argument, values, least)) != 2:
        raise ValueError(f"{argument} must be two numbers; got {len(two)}.")
    return two


def check_images(x: Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuse a batch that the layers would refuse with a message about matrices."""
    came = tuple(x.shape[1:])
    if len(came) != len(shape) or any(want not in (None, have) for want, have in zip(shape, came, strict=True)):
        wanted = " x ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"inputs: the model takes images of {wanted} (channels x height x width); got {came}.")
