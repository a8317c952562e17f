"""The exercises on compression: right answers of other forms pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit import compress, exercises, models, prune
from kit.data import Dataset
from kit.exercises import Verdict
from kit.exercises import compress as checks


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


# -- a norm in front -----------------------------------------------------------------------------------------------


def folded(
    norm: nn.BatchNorm1d,
    layer: nn.Linear,
    *,
    scale: Callable[[Any], Any] = lambda norm: norm.weight / (norm.running_var + norm.eps) ** 0.5,
    weight: Callable[[Any, Any], Any] = lambda w, s: w * s,
    bias: Callable[..., Any] = lambda w, b, s, mean, beta: b + w @ (beta - s * mean),
) -> tuple[Tensor, Tensor]:
    """The right fold, unless something is another."""
    s = scale(norm)
    return weight(layer.weight, s), bias(layer.weight, layer.bias, s, norm.running_mean, norm.bias)


def as_one(norm: nn.BatchNorm1d, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Right by asking: what comes out for zeros is the bias, what each unit vector adds is a column."""
    both = nn.Sequential(norm, layer)
    bias = both(torch.zeros(1, norm.num_features).double())[0]
    return (both(torch.eye(norm.num_features).double()) - bias).T, bias


@pytest.mark.parametrize("right", [folded, as_one, lambda norm, layer: [*folded(norm.float(), layer.float())]])
def test_a_norm_is_folded(right: Any) -> None:
    verdict = exercises.fold_in_front(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"weight": lambda w, s: w * s[:, None]}, "scaled rows"),
        ({"weight": lambda w, s: w / s}, "you divided"),
        ({"weight": lambda w, s: w}, "weight is wrong: it is still the layer's own"),
        ({"weight": lambda w, s: w.T * s}, "shape|not that of the norm"),
        ({"scale": lambda norm: norm.weight / (norm.running_var + norm.eps)}, "by a variance"),
        ({"scale": lambda norm: norm.weight / norm.running_var.sqrt()}, "eps, here 0.01"),
        ({"scale": lambda norm: 1 / (norm.running_var + norm.eps).sqrt()}, "gamma, is missing"),
        ({"bias": lambda w, b, s, mean, beta: b}, "bias is wrong: it is still the layer's own"),
        ({"bias": lambda w, b, s, mean, beta: b + beta - s * mean}, "goes through the layer"),
        ({"bias": lambda w, b, s, mean, beta: w @ (beta - s * mean)}, "own bias is lost"),
        ({"bias": lambda w, b, s, mean, beta: b + w @ beta}, "takes a mean away"),
        ({"bias": lambda w, b, s, mean, beta: b - w @ (s * mean)}, "beta, is missing"),
        ({"bias": lambda w, b, s, mean, beta: b + w @ (beta - mean)}, "mean is scaled, too"),
        ({"bias": lambda w, b, s, mean, beta: b + (w * s) @ (beta - s * mean)}, "scaled twice"),
        ({"bias": lambda w, b, s, mean, beta: b + w @ (beta + s * mean)}, "sign of the mean"),
        ({"bias": lambda w, b, s, mean, beta: b + 1}, "try both on one input"),
        ({"bias": lambda w, b, s, mean, beta: b[:, None]}, r"shape \(4,\); got \(4, 1\)"),
    ],
)
def test_a_norm_is_folded_wrongly(slip: dict[str, Any], reason: str) -> None:
    refused(exercises.fold_in_front(lambda norm, layer: folded(norm, layer, **slip)), reason)


def test_a_fold_is_two_tensors() -> None:
    refused(exercises.fold_in_front(lambda norm, layer: layer.weight), "Return two tensors")  # type: ignore[arg-type,return-value]
    refused(exercises.fold_in_front(lambda norm, layer: (layer, norm)), "Return two tensors")  # type: ignore[arg-type,return-value]


# -- shorter blocks ------------------------------------------------------------------------------------------------

BY_HAND = {
    **{"000": "0", "001": "100", "010": "101", "100": "110"},
    **{"011": "11100", "101": "11101", "110": "11110", "111": "11111"},
}


def of_blocks(n: int) -> dict[str, str]:
    """The kit's code."""
    blocks = ["".join(each) for each in itertools.product("01", repeat=n)]
    lengths = compress.code_lengths([9 ** block.count("0") for block in blocks])
    words = zip(compress.code_words(lengths).tolist(), lengths.tolist(), strict=True)
    return {block: format(word, f"0{length}b") for block, (word, length) in zip(blocks, words, strict=True)}


@pytest.mark.parametrize("code", [BY_HAND, of_blocks(3), of_blocks(4), of_blocks(7)])
def test_longer_blocks_beat_the_pairs(code: dict[str, str]) -> None:
    verdict = exercises.shorter_blocks(code)
    assert verdict.right, verdict
    assert "the entropy is 0.469" in verdict.message


def test_the_score_is_that_of_a_long_row() -> None:
    ones = np.random.default_rng(0).random(300_000) < 0.1
    row = "".join("01"[bit] for bit in ones.astype(int))
    taken = sum(len(BY_HAND[row[at : at + 3]]) for at in range(0, len(row), 3)) / len(row)
    said = re.search(r"takes (\d\.\d+) bits", exercises.shorter_blocks(BY_HAND).message)
    assert said and float(said[1]) == pytest.approx(taken, abs=0.005)


UNARY = {block: "1" * at + "0" for at, block in enumerate(sorted(BY_HAND, key=lambda block: block.count("1")))}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"0": "0", "1": "1"}, "takes 1.000 .* One symbol at a time takes a whole bit"),
        (checks.PAIRS, "Pairs are the given ones"),
        ({"00": "0", "01": "10", "10": "110", "11": "1110"}, "even the best code for blocks of this length"),
        ({block: block for block in BY_HAND}, "all words are of the same length"),
        (BY_HAND | {"000": "100", "001": "0"}, "shortest word belongs to 001"),
        (UNARY, "blocks of 3 can do with 0.533"),
        ({block: word for block, word in BY_HAND.items() if block != "111"}, "111 has no word"),
        (BY_HAND | {"111": "111"}, "word 111 of 111 begins the word 11100 of 011"),
        (BY_HAND | {"111": "11110"}, "110 and 111 have the same word"),
        (BY_HAND | {"111": "2"}, "got '2'"),
        (BY_HAND | {"0000": "01"}, "must be of the same length"),
        (BY_HAND | {"abc": "01"}, "got 'abc'"),
        ({}, "must be of the same length"),
        (["0", "10"], "Give a dict"),
        ({"0": 0, "1": 1}, "Give a dict"),
    ],
)
def test_codes_that_do_not_beat_the_pairs(code: Any, reason: str) -> None:
    refused(exercises.shorter_blocks(code), reason)


# -- fewest bits ---------------------------------------------------------------------------------------------------


def least(
    net: nn.Module, target: float, *, factor: float = 10, power: int = 2, per: int | None = None
) -> dict[str, int]:
    """By hand, without the kit; right unless something is another."""
    found = {}
    for name, weight in net.named_parameters():
        if weight.ndim < 2:
            continue
        for bits in range(2, 9):
            largest = weight.abs().max() if per is None else weight.abs().amax(per, keepdim=True)
            step = largest / (2 ** (bits - 1) - 1)
            noise = ((weight / step).round() * step - weight).square().sum()
            ratio = (weight.square().sum() / noise) ** (power / 2)
            if factor * ratio.log10() >= target:
                break
        found[name] = bits
    return found


def by_kit(net: nn.Module, target: float, **grid: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for bits in range(8, 1, -1):
        reached = compress.sqnr(net, compress.quantise(net, bits, per="tensor", **grid))
        found |= {name: bits for name, value in reached.items() if value >= target}
    return found


def test_the_fewest_bits_of_each_layer() -> None:
    verdict = exercises.fewest_bits(least)
    assert verdict.right, verdict


def test_no_sqnr_of_that_exercise_is_near_a_target() -> None:
    net = checks._bell_flat_and_far()
    for bits in range(2, 9):
        for reached in compress.sqnr(net, compress.quantise(net, bits, per="tensor")).values():
            assert min(abs(reached - target) for target in (16.2, 27)) > 0.4


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda net, target: dict.fromkeys(least(net, target), max(least(net, target).values())), "one number for all"),
        (lambda net, target: {name: bits - 1 for name, bits in least(net, target).items()}, "last that miss"),
        (lambda net, target: {name: bits + 1 for name, bits in least(net, target).items()}, "one bit less"),
        (lambda net, target: dict.fromkeys(least(net, target), -int(-target // 6.02)), "6 dB a bit is the slope"),
        (lambda net, target: least(net, target, per=1), "one step a channel"),
        (lambda net, target: by_kit(net, target, clip=True), "neither clip"),
        (lambda net, target: by_kit(net, target, symmetric=False), "neither clip"),
        (lambda net, target: by_kit(net, target, clip=True, symmetric=False), "neither clip"),
        (lambda net, target: least(net, target, factor=20), "factor is 10"),
        (lambda net, target: least(net, target, power=1), "with no root"),
        (lambda net, target: least(net, target) | {"layers.1.weight": 8}, "layers.1.weight needs 4 bits; got 8"),
        (lambda net, target: 5, "Return a dict"),
        (lambda net, target: {"layers.0.weight": 5}, "Return a dict .* layers.2.weight"),
    ],
)
def test_other_bits(wrong: Any, reason: str) -> None:
    refused(exercises.fewest_bits(wrong), reason)


# -- an average ----------------------------------------------------------------------------------------------------

State = Mapping[str, Tensor]


def averaged(
    a: State,
    b: State,
    first: Tensor,
    second: Tensor,
    *,
    rows: bool = True,
    columns: tuple[bool, bool] = (True, True),
    biases: bool = True,
    back: bool = False,
    mean: Callable[[Tensor, Tensor], Tensor] = lambda a, b: (a + b) / 2,
) -> dict[str, Tensor]:
    """The right average, unless something is forgotten."""
    first, second = (order.argsort() if back else order for order in (first, second))
    moved = dict(b)
    if rows:
        moved["layers.0.weight"] = b["layers.0.weight"][first]
        moved["layers.1.weight"] = b["layers.1.weight"][second]
    if biases:
        moved["layers.0.bias"], moved["layers.1.bias"] = b["layers.0.bias"][first], b["layers.1.bias"][second]
    if columns[0]:
        moved["layers.1.weight"] = moved["layers.1.weight"][:, first]
    if columns[1]:
        moved["layers.2.weight"] = b["layers.2.weight"][:, second]
    return {name: mean(a[name], moved[name]) for name in a}


def in_place(a: State, b: State, first: Tensor, second: Tensor) -> State:
    found = averaged(a, b, first, second)
    for name, tensor in a.items():
        tensor.copy_(found[name])
    return a


def by_the_kit(a: State, b: State, first: Tensor, second: Tensor) -> State:
    """By the matrices of the permutations."""
    p, q = (torch.eye(len(order))[order] for order in (first, second))
    w0, b0, w1, b1, w2, b2 = b.values()
    moved = (p @ w0, p @ b0, q @ w1 @ p.T, q @ b1, w2 @ q.T, b2)
    return {name: torch.lerp(tensor, other, 0.5) for (name, tensor), other in zip(a.items(), moved, strict=True)}


@pytest.mark.parametrize("right", [averaged, by_the_kit])
def test_units_move_with_all_that_is_theirs(right: Any) -> None:
    verdict = exercises.average_matched(right)
    assert verdict.right, verdict


def swapped(a: State, b: State, first: Tensor, second: Tensor) -> State:
    """Layer 1 with its orders changed about: no error where both layers are as wide."""
    found = averaged(a, b, first, second)
    other = b["layers.1.weight"][first][:, second]
    return found | {"layers.1.weight": (a["layers.1.weight"] + other) / 2}


def transposed(a: State, b: State, first: Tensor, second: Tensor) -> State:
    """Columns in the inverse order."""
    p, q = first.argsort(), second.argsort()
    found = averaged(a, b, first, second)
    moved = {
        "layers.1.weight": b["layers.1.weight"][second][:, p],
        "layers.2.weight": b["layers.2.weight"][:, q],
    }
    return found | {name: (a[name] + moved[name]) / 2 for name in moved}


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"columns": (False, False), "biases": True}, "columns of the next layers"),
        ({"columns": (False, True)}, "must answer as before"),
        ({"columns": (True, False)}, "the last layer reads units"),
        ({"biases": False}, "takes its bias along"),
        ({"back": True}, "turned round"),
        ({"rows": False, "columns": (False, False), "biases": False}, "nothing of b was moved"),
        ({"mean": torch.add}, "this is the sum"),
        ({"columns": (False, True), "biases": False}, "must answer as before"),
        ({"mean": lambda a, b: b}, "must answer as before"),
    ],
)
def test_an_average_goes_wrong(slip: dict[str, Any], reason: str) -> None:
    refused(exercises.average_matched(lambda *given: averaged(*given, **slip)), reason)


def test_other_averages() -> None:
    refused(exercises.average_matched(transposed), "not its inverse")
    refused(exercises.average_matched(swapped), "reads the first order")
    refused(exercises.average_matched(in_place), "a itself has changed")
    refused(exercises.average_matched(lambda a, b, *orders: {"layers.0.weight": a["layers.0.weight"]}), "Return a dict")
    refused(exercises.average_matched(lambda a, b, *orders: 0), "Return a dict")  # type: ignore[arg-type]


# -- the smallest file ---------------------------------------------------------------------------------------------


class Elsewhere(nn.Module):
    """Keeps its weights where no file sees them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.hidden = [net]

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.hidden[0](x)
        return answer


def by(recipe: compress.Recipe) -> Callable[[nn.Module, Dataset], nn.Module]:
    return lambda net, images: compress.pipeline(net, images, recipe).model


def spoilt(net: nn.Module, images: Dataset) -> nn.Module:
    with torch.no_grad():
        next(net.parameters()).fill_(torch.nan)
    return net


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks and a rival of little training; their seeds are no others'."""
    monkeypatch.setattr(checks, "EPOCHS", 3)
    monkeypatch.setattr(checks, "RIVAL", compress.Recipe(ratio=0.5, bits=5))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda net, images: ..., "three dots"),
        (lambda net, images: net, r"0\.\d\d times smaller.*kit is beaten where"),
        (
            lambda net, images: by(checks.RIVAL)(net, images),
            r"1\.00 times smaller \(1\.00 to 1\.00\).*kit is beaten where",
        ),
        (lambda net, images: prune.weights(net, ratio=0.995), "Too much is lost"),
        (lambda net, images: compress.pipeline(net, images, checks.RIVAL), "such as pipeline.*got Compressed"),
        (lambda net, images: models.MLP((784, 5)), r"got \[64, 5\]"),
        (lambda net, images: models.MLP((64, 10)), "ValueError"),
        (spoilt, "finite logits"),
        (lambda net, images: Elsewhere(net), "keeps numbers elsewhere"),
        (lambda net, images: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_makes_no_smaller_file(wrong: Any, reason: str) -> None:
    refused(exercises.smallest_file(wrong, seeds=range(1000, 1002)), reason)


def test_the_judging_images_are_not_given() -> None:
    given, judging = checks._splits()
    assert (len(given.validation), len(judging)) == (500, 1000)
    seen = torch.cat([split.inputs for split in (given.train, given.validation, given.test)]).flatten(1)
    assert torch.cdist(judging.inputs.flatten(1), seen).min() > 0


def test_the_rival_keeps_what_is_asked_for() -> None:
    given, judging = checks._splits()
    net, accuracy, rival = checks._judge(100)
    smaller = by(checks.RIVAL)(net, given)
    assert len(compress.encode(smaller).data) == rival()
    right = (smaller(judging.inputs).argmax(1) == judging.labels).double().mean()
    assert right > checks.KEPT * accuracy
