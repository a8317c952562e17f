"""Self-checks that the notebooks call: each says whether an answer is right, and if not, what is wrong with it.

Every check takes what the reader wrote and returns a `Verdict`; an exercise that is still untouched gets "Not yet" and
never an exception, so that a notebook runs from top to bottom without its answers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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
            approximation, p (1 - p) (1.96 / half width)^2; good enough when about ten answers are wrong or more.
    """

    def check() -> str:
        for accuracy, half in ((0.9, 0.02), (0.97, 0.01), (0.5, 0.05)):
            got = float(_answered(answer(accuracy, half)))
            want = accuracy * (1 - accuracy) * (1.96 / half) ** 2
            case = f"For p = {accuracy:g} and a half width of {half:g}"
            if math.isclose(got, want / 4, rel_tol=0.01):
                raise _Wrong(f"{case} you took the half width for the whole width: the interval is twice as wide.")
            if math.isclose(got, math.sqrt(want), rel_tol=0.05):
                raise _Wrong(f"{case} the square is missing: to halve an interval takes four times the images.")
            if math.isclose(got, want / 1.96**2, rel_tol=0.01):
                raise _Wrong(f"{case} the 1.96 is missing: one standard error holds the truth in 68 % of cases only.")
            if not math.isclose(got, want, rel_tol=0.05):
                raise _Wrong(f"{case} about {want:.0f} images are needed; got {got:.0f}.")
        return "Half the width takes four times the images; a tenth of it a hundred times."

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
            [(30.0, 0.94), (10.0, 0.90), (40.0, 0.97), (20.0, 0.95)],
            [(5.0, 0.50)],
        )
        for pairs in cases:
            got = sorted(tuple(pair) for pair in _answered(answer(list(pairs))))
            if len(set(got)) < len(got):
                raise _Wrong(f"Of {pairs}, the same pair comes twice.")
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
        tied = torch.tensor([2.0, -1.0, 1.0, 1.0, -3.0])  # which of the equal ones goes is free
        for tensor, ratio in ((weight, 0.35), (weight, 0.33), (weight, 0.8), (tied, 0.4), (weight, 0.0)):
            drop = round(ratio * tensor.numel())
            try:
                mask = _answered(answer(tensor.clone(), ratio))
            except (RuntimeError, IndexError) as error:
                if drop == 0:
                    raise _Wrong(f"At ratio 0 nothing goes, and your code stops: {error}") from None
                raise
            if not isinstance(mask, Tensor) or mask.shape != tensor.shape or mask.dtype != torch.bool:
                came = f"{mask.dtype}, {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise _Wrong(
                    f"The mask must be torch.bool and of the weight's shape {tuple(tensor.shape)}; got {came}."
                )
            _check_smallest(tensor, mask, drop, ratio)
        return "Exactly the smallest went, at every ratio."

    return _verdict(check)


def _check_smallest(weight: Tensor, mask: Tensor, drop: int, ratio: float) -> None:
    size = weight.abs()
    gone = int((~mask).sum())
    if gone == weight.numel() - drop and 0 < drop < weight.numel() and bool(size[mask].max() <= size[~mask].min()):
        raise _Wrong("True and False are swapped: the mask is True where a weight stays.")
    if gone != drop:
        raise _Wrong(f"At ratio {ratio:g}, round(ratio * n) = {drop} of {weight.numel()} weights must go; {gone} went.")
    if drop and bool(size[~mask].max() > size[mask].min()):
        if bool(weight[~mask].max() <= weight[mask].min()):
            raise _Wrong("Large negative weights went first: compare absolute values.")
        raise _Wrong(f"At ratio {ratio:g} the count is right, but smaller weights stayed while larger ones went.")


def sparse_break_even(answer: float | None) -> Verdict:
    """From which ratio on is the sparse file the smaller one?

    Args:
        answer: the share of zeros at which both are equal, when a dense weight takes 4 bytes and a non-zero weight in
            the sparse file 5 (4 for the value, 1 for the gap).
    """

    def check() -> str:
        got = _share(answer)
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
        net_class: called without arguments; its instance takes [n, 1, 8, 8] images to [n, 10] logits, and something
            that is not linear stands between any two of its layers.
        prune_half: takes the instance and sets the half of all its conv and linear weights with the smallest absolute
            value to zero, in place, all layers ranked together.
    """

    def check() -> str:
        images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        net = net_class()
        layers = {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        seen: list[tuple[str, Tensor, Tensor]] = []  # name, what came in, what went out
        for name, layer in layers.items():
            layer.register_forward_hook(lambda _, came, out, name=name: seen.append((name, came[0], out)))
        try:
            logits = net(images)
        except RuntimeError as error:
            raise _Wrong(f"The network cannot take an 8x8 image. PyTorch says: {error}") from None
        if logits.shape != (4, 10):
            raise _Wrong(f"The network must answer [4, 10] logits for 4 images; got {list(logits.shape)}.")
        for (before, _, out), (after, came, _) in itertools.pairwise(seen):
            if out.numel() == came.numel() and torch.allclose(out.flatten(), came.flatten()):
                raise _Wrong(
                    f"Nothing stands between {before} and {after}: two linear maps in a row are one linear map."
                )
        dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        try:
            prune_half(net)
        except (TypeError, ValueError, AttributeError) as error:
            raise _Wrong(
                f"The pruning call raises {type(error).__name__}: {error}. "
                "It takes a list of pairs (module, name), and the method as a class."
            ) from None
        zero = {name: layers[name].weight.detach() == 0 for name in dense}
        share = sum(int(mask.sum()) for mask in zero.values()) / sum(mask.numel() for mask in zero.values())
        if abs(share - 0.5) > 0.005:
            raise _Wrong(f"Half of all weights must be zero; {100 * share:.0f} % are.")
        largest_gone = max(float(dense[name][mask].abs().max()) for name, mask in zero.items() if mask.any())
        smallest_left = min(float(dense[name][~mask].abs().min()) for name, mask in zero.items() if not mask.all())
        if largest_gone > smallest_left:
            raise _Wrong(
                "Larger weights went while smaller ones stayed: rank the absolute values of all layers together."
            )
        return "It runs on 8x8 images, no two linear maps touch, and the smallest half of all weights is gone."

    return _verdict(check)


def ratio_for_a_tenth(answer: float | None) -> Verdict:
    """Which channel ratio leaves a tenth of a middle layer's FLOPs?

    Args:
        answer: the share r of channels that every hidden layer loses, such that a convolution [out, in, k, k] between
            two of them keeps a tenth of its multiplications: (1 - r)^2 = 0.1.
    """

    def check() -> str:
        got = _share(answer)
        want = 1 - math.sqrt(0.1)
        if math.isclose(got, 0.9, abs_tol=5e-3):
            raise _Wrong("0.9 leaves a hundredth: the layer loses inputs as well as outputs.")
        if math.isclose(got, 1 - want, abs_tol=5e-3):
            raise _Wrong("That is the share that stays; asked is the ratio that goes.")
        if math.isclose(got, 0.95, abs_tol=5e-3) or math.isclose(got, 0.05, abs_tol=5e-3):
            raise _Wrong("The two sides multiply, they do not add: out x in, each times (1 - r).")
        if not math.isclose(got, want, abs_tol=5e-3):
            raise _Wrong("The multiplications are out x in x k x k for each place; both out and in shrink by (1 - r).")
        return "Two thirds of the channels take nine tenths of the work, because both sides of a layer shrink."

    return _verdict(check)


def _share(answer: float | None) -> float:
    got = float(_answered(answer))
    if not 0 <= got <= 1:
        raise _Wrong(f"Give a share between 0 and 1; got {got:g}.")
    return got
