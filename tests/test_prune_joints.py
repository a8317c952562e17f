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


@pytest.mark.parametrize(
    ("model", "module"),
    [
        (around(Detour(lambda x: torch.from_numpy(x.numpy() + 1))), r"1 \(Detour\)"),
        (around(Detour(lambda x: torch.from_numpy(x.detach().numpy() + 1))), r"1 \(Detour\)"),
        (around(Detour(lambda x: x.detach() + 1)), r"1 \(Detour\)"),
        (around(Detour(lambda x: x.flip(1))), r"3 \(Conv2d\)"),
        (around(nn.ChannelShuffle(2)), r"3 \(Conv2d\)"),
        (around(Detour(lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2))), r"3 \(Conv2d\)"),
        (around(Detour(lambda x: F.interpolate(F.pixel_shuffle(x, 2), 6)), 2), r"3 \(Conv2d\)"),
        (around(OwnWeight(), 5), r"3 \(Conv2d\)"),
        (
            nn.Sequential(nn.Conv2d(1, 8, 3), Detour(lambda x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(288, 10)),
            r"2 \(Linear\)",
        ),
    ],
    ids=["numpy", "detached numpy", "detach", "flip", "shuffle", "shuffle by hand", "pixels", "own", "channels last"],
)
def test_what_cannot_be_followed_is_refused(digits: Dataset, model: nn.Module, module: str) -> None:
    """Never a broken model: the module is named, and weights are offered instead, which do work."""
    with pytest.raises(prune.Untraceable, match=f"Sequential cannot be followed through {module}") as caught:
        prune.channels(model, ratio=0.5, dataset=digits, importance="random", seed=1)
    assert "Its weights can be pruned instead: prune.weights(model, ratio=...)." in str(caught.value)
    assert "\n" not in str(caught.value)
    training.predict(prune.weights(model, ratio=0.5), digits.test.inputs[:2])


def halves(width: int) -> Tensor:
    return torch.arange(width) < width // 2


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_joints_by_hand(scale: float) -> None:
    """Two layers with a reversal between them; with a scale of zero nothing gets through, and nothing can be said."""
    first, second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    straight = nn.Sequential(first, Detour(lambda x: F.relu(x) * scale), second)
    crossed = nn.Sequential(first, Detour(lambda x: F.relu(x).flip(1) * scale), second)
    marked = halves(8)
    assert wrong_joint(straight, {first: marked}, {second: marked}, x) is None
    assert wrong_joint(crossed, {first: marked}, {second: ~marked}, x) is None
    assert wrong_joint(crossed, {first: marked}, {second: marked}, x) is (second if scale else None)
    assert wrong_joint(straight, {first: marked}, {second: ~marked}, x) is (second if scale else None)
    one_off = marked.clone()
    one_off[0] = False
    assert wrong_joint(straight, {first: marked}, {second: one_off}, x) is (second if scale else None)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in straight.modules())


@pytest.mark.parametrize("mix", [lambda x: F.layer_norm(x, x.shape[1:]), lambda x: x.softmax(1)])
def test_channels_that_are_normalised_together_are_not_taken_for_a_wrong_joint(mix: Callable[[Tensor], Tensor]) -> None:
    first, second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(first, Detour(mix), second)
    assert wrong_joint(net, {first: halves(8)}, {second: halves(8)}, x) is None
