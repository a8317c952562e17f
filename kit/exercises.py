"""Self-checks that the notebooks call: each says whether an answer is right, and if not, what is wrong with it.

Every check takes what the reader wrote and returns a `Verdict`; an exercise that is still untouched gets "Not yet" and
never an exception, so that a notebook runs from top to bottom without its answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit import prune


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        right: whether the answer passed.
        message: why, in one sentence or two.
    """

    right: bool
    message: str

    def __repr__(self) -> str:
        """The verdict as the notebook shows it."""
        return f"{'Right.' if self.right else 'Not yet.'} {self.message}"


class _Wrong(Exception):  # noqa: N818  (control flow inside this module)
    pass


def _verdict(check: Callable[[], str]) -> Verdict:
    """Run a check that returns praise or raises `_Wrong`; the reader's own exceptions are answers too."""
    try:
        return Verdict(True, check())
    except _Wrong as wrong:
        return Verdict(False, str(wrong))
    except Exception as error:
        return Verdict(
            False, f"It stopped with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )


def _answered(answer: Any) -> Any:
    if answer is None or answer is ...:
        raise _Wrong("Nothing is answered so far: replace the three dots.")
    return answer


def images_needed(answer: Callable[[float, float], float]) -> Verdict:
    """How many images does an interval of a given half width need?

    Args:
        answer: takes an accuracy p in (0, 1) and a half width in (0, 1); returns the number of images by the normal
            approximation, p (1 - p) (1.96 / half width)^2.
    """

    def check() -> str:
        for accuracy, half in ((0.9, 0.02), (0.97, 0.01), (0.5, 0.05)):
            got = float(_answered(answer(accuracy, half)))
            want = accuracy * (1 - accuracy) * (1.96 / half) ** 2
            case = f"For p = {accuracy:g} and a half width of {half:g}"
            if math.isclose(got, want / 4, rel_tol=0.03):
                raise _Wrong(f"{case} you took the half width for the whole width: the interval is twice as wide.")
            if math.isclose(got, math.sqrt(want), rel_tol=0.03):
                raise _Wrong(f"{case} the square is missing: to halve an interval takes four times the images.")
            if math.isclose(got, want / 1.96**2, rel_tol=0.03):
                raise _Wrong(f"{case} the 1.96 is missing: one standard error holds the truth in 68 % of cases only.")
            if not math.isclose(got, want, rel_tol=0.03):
                raise _Wrong(f"{case} about {want:.0f} images are needed; got {got:.0f}.")
        return "To be sure of one point takes over a thousand images; to be sure of a tenth takes a hundred times more."

    return _verdict(check)


def pareto_front(answer: Callable[[Sequence[tuple[float, float]]], Iterable[tuple[float, float]]]) -> Verdict:
    """Which models are worth having?

    Args:
        answer: takes (size, accuracy) pairs and returns those that no other pair beats: a pair is beaten when another
            is at most as large and at least as accurate, and better in one of the two.
    """

    def check() -> str:
        cases = (
            [(10.0, 0.90), (20.0, 0.95), (30.0, 0.94), (40.0, 0.97)],
            [(10.0, 0.90), (10.0, 0.92), (15.0, 0.92)],
            [(5.0, 0.50)],
        )
        for pairs in cases:
            got = sorted(tuple(pair) for pair in _answered(answer(list(pairs))))
            want = sorted(pair for pair in pairs if not any(_beats(other, pair) for other in pairs))
            if got != want:
                missing, extra = [p for p in want if p not in got], [p for p in got if p not in want]
                reason = f"{extra[0]} is beaten by another pair" if extra else f"{missing[0]} is beaten by none"
                raise _Wrong(f"Of {pairs}, {reason}, as (size, accuracy).")
        return "Everything off the front has a model beside it that is smaller, or better, or both."

    return _verdict(check)


def _beats(other: tuple[float, float], pair: tuple[float, float]) -> bool:
    return other[0] <= pair[0] and other[1] >= pair[1] and other != pair


def smallest_mask(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Write magnitude pruning of one tensor.

    Args:
        answer: takes a weight tensor of any shape and a ratio in [0, 1); returns a boolean tensor of that shape, True
            where a weight stays, with exactly round(ratio * n) of them False: those with the smallest absolute value.
    """

    def check() -> str:
        weight = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(1))  # [6, 5, 2], half negative
        for ratio in (0.0, 0.35, 0.8):
            mask = _answered(answer(weight.clone(), ratio))
            if not isinstance(mask, Tensor) or mask.shape != weight.shape:
                shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
                raise _Wrong(f"The mask must be a tensor of shape {tuple(weight.shape)}, like the weight; got {shape}.")
            mask = mask.bool()
            drop = round(ratio * weight.numel())
            want = weight.abs().flatten().argsort().argsort().view_as(weight) >= drop
            signed = weight.flatten().argsort().argsort().view_as(weight) >= drop
            if torch.equal(mask, ~want) and drop > 0:
                raise _Wrong("True and False are swapped: the mask is True where a weight stays.")
            if torch.equal(mask, signed) and not torch.equal(mask, want):
                raise _Wrong("Large negative weights went first: compare absolute values.")
            if int((~mask).sum()) != drop:
                gone = int((~mask).sum())
                raise _Wrong(f"At ratio {ratio:g}, {drop} of {weight.numel()} weights must go; {gone} went.")
            if not torch.equal(mask, want):
                raise _Wrong(
                    f"At ratio {ratio:g} the count is right, but smaller weights stayed while larger ones went."
                )
        return "Exactly the smallest went, at every ratio."

    return _verdict(check)


def sparse_break_even(answer: float | None) -> Verdict:
    """From which ratio on is the sparse file the smaller one?

    Args:
        answer: the share of zeros at which both are equal, when a dense weight takes 4 bytes and a non-zero weight in
            the sparse file 5 (4 for the value, 1 for the gap).
    """

    def check() -> str:
        got = float(_answered(answer))
        if math.isclose(got, 0.8, abs_tol=1e-3):
            raise _Wrong("0.8 is the share of weights that stay; asked is the share that is zero.")
        if math.isclose(got, 0.5, abs_tol=1e-3):
            raise _Wrong("Half would be right if a position took as many bytes as a value; here it takes one.")
        if not math.isclose(got, 0.2, abs_tol=1e-3):
            raise _Wrong(
                "Write both sizes for n weights with a share r of zeros, 4 n and 5 n (1 - r), and equate them."
            )
        return "From 20 % zeros on the sparse file is smaller; at 90 % it is eight times smaller than the dense one."

    return _verdict(check)


def repaired_listing(net_class: type[nn.Module], prune_half: Callable[[nn.Module], Any]) -> Verdict:
    """Mend the chapter's listing: a network for the 8x8 digits, half of its weights pruned.

    Args:
        net_class: called without arguments; its instance takes [n, 1, 8, 8] images to [n, 10] logits; not linear.
        prune_half: takes the instance and sets the half of all its conv and linear weights with the smallest absolute
            value to zero, in place, all layers ranked together.
    """

    def check() -> str:
        images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        net = net_class()
        try:
            logits = net(images)
        except RuntimeError as error:
            raise _Wrong(
                f"The network cannot take an 8x8 image: what reaches fc1 is not 64 * 6 * 6 wide ({error})."
            ) from None
        if logits.shape != (4, 10):
            raise _Wrong(f"The network must answer [4, 10] logits for 4 images; got {list(logits.shape)}.")
        with torch.no_grad():
            middle = net((images[:1] + images[1:2]) / 2)
            if torch.allclose(middle, (logits[:1] + logits[1:2]) / 2, atol=1e-5):
                raise _Wrong(
                    "The network is one linear map: the answer to a mean of two images is the mean of the answers. "
                    "Something has to stand between the layers."
                )
        try:
            prune_half(net)
        except (TypeError, ValueError, AttributeError) as error:
            raise _Wrong(
                f"The pruning call raises {type(error).__name__}: it needs a list of pairs, and a class."
            ) from None
        layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        zeros = [int((layer.weight == 0).sum()) for layer in layers]
        share = sum(zeros) / sum(layer.weight.numel() for layer in layers)
        if abs(share - 0.5) > 0.005:
            raise _Wrong(f"Half of all weights must be zero; {100 * share:.0f} % are.")
        shares = [count / layer.weight.numel() for count, layer in zip(zeros, layers, strict=True)]
        if max(shares) - min(shares) < 0.01:
            raise _Wrong("Every layer lost the same share: rank the weights of all layers together (global).")
        return "It runs on 8x8 images, it is not linear, and half of its weights are gone, ranked together."

    return _verdict(check)


def half_the_channels(answer: float | None) -> Verdict:
    """What share of a middle layer's weights is left when every layer loses half of its channels?

    Args:
        answer: the share left of a convolution's weight [out, in, k, k] after both its inputs and outputs are halved.
    """

    def check() -> str:
        got = float(_answered(answer))
        network = nn.Conv2d(32, 64, 3)
        left = prune.prunable(nn.Conv2d(16, 32, 3))["weight"].numel() / network.weight.numel()
        if math.isclose(got, 0.5, abs_tol=1e-3):
            raise _Wrong("Its outputs are halved, but its inputs are the outputs of the layer before: halved too.")
        if math.isclose(got, 0.75, abs_tol=1e-3):
            raise _Wrong("That is the share that is gone; asked is what is left.")
        if not math.isclose(got, left, abs_tol=1e-3):
            raise _Wrong("Count the weight before and after: out x in x k x k, with out and in both halved.")
        return "A quarter: channel pruning acts on both sides of a layer, so parameters and FLOPs fall with the square."

    return _verdict(check)
