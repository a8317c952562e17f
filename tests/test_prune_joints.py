"""Models whose channels cannot be followed: prune.structured and prune.joints refuse them, and name the module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import prune, training
from kit.data import Dataset
from kit.prune.joints import wrong_joint


class Detour(nn.Module):
    """Leaves autograd in the middle of a model, in one of the usual ways."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x)


def around(middle: nn.Module, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), middle, nn.ReLU(), nn.Conv2d(width, 6, 3), nn.Flatten(), nn.Linear(96, 10))


class OwnWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", self.weight, x)


CONVOLUTION, DETOUR = r"3 \(Conv2d\)", r"1 \(Detour\)"
CHANNELS_LAST = nn.Sequential(nn.Conv2d(1, 8, 3), Detour(lambda x: x.movedim(1, 3).flatten(1)), nn.Linear(288, 10))
REFUSED = {
    "numpy": (around(Detour(lambda x: torch.from_numpy(x.numpy() + 1))), DETOUR),
    "detached numpy": (around(Detour(lambda x: torch.from_numpy(x.detach().numpy() + 1))), DETOUR),
    "detach": (around(Detour(lambda x: x.detach() + 1)), DETOUR),
    "fixed width": (around(Detour(lambda x: x * torch.ones(8, 1, 1))), DETOUR),
    "flip": (around(Detour(lambda x: x.flip(1))), CONVOLUTION),
    "shuffle": (around(nn.ChannelShuffle(2)), CONVOLUTION),
    "shuffle by hand": (around(Detour(lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2))), CONVOLUTION),
    "before depthwise": (around(nn.Sequential(nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=8))), CONVOLUTION),
    "pixels": (around(Detour(lambda x: F.interpolate(F.pixel_shuffle(x, 2), 6)), 2), CONVOLUTION),
    "own": (around(OwnWeight(), 5), CONVOLUTION),
    "channels last": (CHANNELS_LAST, r"2 \(Linear\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_refused(digits: Dataset, case: str) -> None:
    """Never a broken model: the module is named, and weights are offered instead, which do work."""
    model, module = REFUSED[case]
    with pytest.raises(prune.Untraceable, match=f"Sequential cannot be followed through {module}") as caught:
        prune.channels(model, ratio=0.5, dataset=digits, importance="random", seed=1)
    assert "Its weights can be pruned instead: prune.weights(model, ratio=...)." in str(caught.value)
    assert "\n" not in str(caught.value)
    training.predict(prune.weights(model, ratio=0.5), digits.test.inputs[:2])


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_joints_by_hand(scale: float) -> None:
    """Two layers with a reversal between them; with a scale of zero nothing gets through, and nothing can be said."""
    first, second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    straight = nn.Sequential(first, Detour(lambda x: F.relu(x) * scale), second)
    crossed = nn.Sequential(first, Detour(lambda x: F.relu(x).flip(1) * scale), second)
    marked = torch.arange(8) < 4
    assert wrong_joint(straight, {first: marked}, {second: marked}, x) is None
    assert wrong_joint(crossed, {first: marked}, {second: ~marked}, x) is None
    assert wrong_joint(crossed, {first: marked}, {second: marked}, x) is (second if scale else None)
    assert wrong_joint(straight, {first: marked}, {second: ~marked}, x) is (second if scale else None)
    one_off = marked.clone()
    one_off[0] = False
    assert wrong_joint(straight, {first: marked}, {second: one_off}, x) is (second if scale else None)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in straight.modules())
    for mix in (lambda x: F.layer_norm(x, x.shape[1:]), lambda x: x.softmax(1)):
        together = nn.Sequential(first, Detour(mix), second)  # channels that are normalised together are no wrong joint
        assert wrong_joint(together, {first: marked}, {second: marked}, x) is None
