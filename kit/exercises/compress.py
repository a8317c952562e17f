"""Checks of the notebook on network compression."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from kit import compress, data, measure, models, training
from kit.data import Dataset, Split
from kit.exercises.verdict import Wrong, answered, checked
from kit.measure import Estimate

ZERO = Fraction(9, 10)  # of the row of zeros and ones in `shorter_blocks`
PAIRS = {"00": "0", "01": "10", "10": "110", "11": "111"}  # its best code for two symbols at a time

KEPT = 0.97  # of the dense accuracy, in `smallest_file`
RIVAL = compress.Recipe(ratio=0.95, bits=4, epochs=2)
EPOCHS = 10  # of the dense networks, which are trained as those of the notebook
CHOOSING = 500  # validation images that the answer gets; the others judge it

State = Mapping[str, Tensor]


@checked
def fold_in_front(answer: Callable[[nn.BatchNorm1d, nn.Linear], tuple[Tensor, Tensor]]) -> str:
    """Fold a batch norm into the linear layer behind it.

    Args:
        answer: takes the norm (n channels, in evaluation mode) and the layer [m, n] that gets its output; returns the
            weight [m, n] and the bias [m] of one layer that does both: with s = gamma / sqrt(variance + eps), the
            columns of the weight times s, and bias + weight (beta - s mean).
    """
    for n, m in ((4, 4), (5, 3)):  # square first: there rows and columns fit alike
        norm, layer = _norm_and_layer(n, m)
        found = answered(answer(copy.deepcopy(norm), copy.deepcopy(layer)))
        if not isinstance(found, (tuple, list)) or len(found) != 2 or not all(isinstance(e, Tensor) for e in found):
            raise Wrong("Return two tensors: the weight and the bias of the one layer.")
        w, b = layer.weight.detach(), layer.bias.detach()
        mean, var, gamma, beta = norm.running_mean, norm.running_var, norm.weight.detach(), norm.bias.detach()
        assert mean is not None and var is not None
        s = gamma / (var + norm.eps).sqrt()
        weights = [
            (w * s, ""),
            (w * s[:m, None], "you scaled rows. The norm stands in front: what are its channels to the weight?"),
            (w * gamma / (var + norm.eps), "the norm divides by a standard deviation; you divide by a variance."),
            (w * gamma / var.sqrt(), f"the norm adds eps, here {norm.eps:g}, to the variance before the root."),
            (w / (var + norm.eps).sqrt(), "the norm's own scale, its weight gamma, is missing."),
            (w / s, "you divided by the scale where it multiplies."),
            (w, "it is still the layer's own: what the norm multiplies with must go into it."),
        ]
        biases = [
            (b + w @ (beta - s * mean), ""),
            (b, "it is still the layer's own. With zeros as input, what does the norm put out?"),
            (b + (beta - s * mean)[:m], "the norm's shift goes through the layer before it adds to the bias."),
            (w @ (beta - s * mean), "the layer's own bias is lost."),
            (b + w @ beta, "the norm also takes a mean away."),
            (b - w @ (s * mean), "the norm's own shift, its bias beta, is missing."),
            (b + w @ (beta - mean), "the norm scales after it takes the mean away, so the mean is scaled, too."),
            (b + (w * s) @ (beta - s * mean), "the shift is scaled twice: is it before or after the norm's scale?"),
            (b + w @ (beta + s * mean), "the sign of the mean is wrong: the norm takes it away."),
        ]
        for what, got, cases in (("weight", found[0], weights), ("bias", found[1], biases)):
            _same(f"With {n} inputs and {m} outputs the {what}", got.detach(), cases)
    return "One layer answers as the two did: the norm costs nothing any more."


def _norm_and_layer(n: int, m: int) -> tuple[nn.BatchNorm1d, nn.Linear]:
    """A norm as after training, in evaluation mode, and a linear layer [m, n] behind it; float64."""
    generator = torch.Generator().manual_seed(n)
    norm, layer = nn.BatchNorm1d(n, eps=0.01).double().eval(), nn.Linear(n, m).double()
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.bias, *layer.parameters()):
            assert tensor is not None
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        for tensor in (norm.running_var, norm.weight):
            assert tensor is not None
            tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    return norm, layer


def _same(case: str, got: Tensor, cases: Sequence[tuple[Tensor, str]]) -> None:
    """Accept the first of the cases; Wrong with the words of the one that was given."""
    want = cases[0][0]
    if got.shape != want.shape:
        raise Wrong(f"{case} must have the shape {tuple(want.shape)}; got {tuple(got.shape)}.")
    fitting = (reason for gives, reason in cases if gives.shape == want.shape and _near(got, gives))
    if reason := next(fitting, "is not that of the norm and the layer together: try both on one input."):
        raise Wrong(f"{case} {'' if reason.startswith('is not') else 'is wrong: '}{reason}")


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6)


@checked
def shorter_blocks(answer: Mapping[str, str] | None) -> str:
    """Beat the best code of pairs, for a row of independent zeros and ones of which 90 % are zeros.

    Args:
        answer: words of 0 and 1 by block, each of the 2^n blocks of one length n: such as {"00": "0", "01": "10", ...};
            no word begins another, and the mean length is the least possible (Huffman 1952).
    """
    code = answered(answer)
    if not isinstance(code, Mapping) or not all(isinstance(each, str) for pair in code.items() for each in pair):
        raise Wrong('Give a dict of words by block, both as text: {"00": "0", "01": "10", ...}.')
    n = len(next(iter(code), ""))
    blocks = ["".join(bits) for bits in itertools.product("01", repeat=n)] if n <= 12 else []
    if n == 0 or not blocks or any(len(block) != n for block in code):
        raise Wrong(
            "All blocks must be of the same length, from 1 to 12 symbols: else the reader cannot know where one ends."
        )
    if missing := [block for block in blocks if block not in code]:
        raise Wrong(f"Block {missing[0]} has no word. It is rare, and it does occur: the file could not be written.")
    if unknown := [each for pair in code.items() for each in pair if not each or set(each) - set("01")]:
        raise Wrong(f"Blocks and words are made of 0 and 1; got {unknown[0]!r}.")
    _check_prefix_free(code)
    mean = sum(_share(block) * len(word) for block, word in code.items()) / n
    given = sum(_share(block) * len(word) for block, word in PAIRS.items()) / 2
    counts = [9 ** block.count("0") for block in blocks]
    best = Fraction(
        int(sum(c * w for c, w in zip(counts, compress.code_lengths(counts), strict=True))), sum(counts) * n
    )
    score = f"Your code takes {float(mean):.3f} bits a symbol, that of the pairs {float(given):.3f}"
    if mean > best:
        words = sorted(code, key=lambda block: (len(code[block]), block))
        if len({len(word) for word in code.values()}) == 1 and n > 1:
            reason = "all words are of the same length. A frequent block deserves a short word."
        elif _share(words[0]) < max(map(_share, words)):
            reason = f"the shortest word belongs to {words[0]}, which is not the most frequent block."
        elif best < given:
            reason = f"blocks of {n} can do with {float(best):.3f}. Which two blocks do you join first, and what then?"
        else:
            reason = "even the best code for blocks of this length is no shorter than that of the pairs."
        raise Wrong(f"{score}: {reason}")
    if best >= given:
        few = (
            "One symbol at a time takes a whole bit, however frequent it is." if n == 1 else "Pairs are the given ones."
        )
        raise Wrong(f"{score}. {few} It is the best code for blocks of {n}; what else can you change?")
    return f"{score}; the entropy is {compress.entropy([9, 1]):.3f}. A word has whole bits, and n symbols share them."


def _share(block: str) -> Fraction:
    """How often a block occurs."""
    return ZERO ** block.count("0") * (1 - ZERO) ** block.count("1")


def _check_prefix_free(code: Mapping[str, str]) -> None:
    by_word: dict[str, str] = {}
    for block, word in code.items():
        if word in by_word:
            raise Wrong(f"Blocks {by_word[word]} and {block} have the same word, {word}.")
        by_word[word] = block
    for word, block in by_word.items():
        for end in range(1, len(word)):
            if (first := by_word.get(word[:end])) is not None:
                raise Wrong(
                    f"The word {word[:end]} of {first} begins the word {word} of {block}: who reads it cannot know."
                )


@checked
def fewest_bits(answer: Callable[[nn.Module, float], Mapping[str, int]]) -> str:
    """Find the fewest bits of each layer at which the SQNR of its weight reaches a target.

    Args:
        answer: takes a network and a target in dB; returns, by the name of each weight, the least of 2 .. 8 bits at
            which a symmetric grid with one step a tensor, up to the largest weight, has at least that SQNR.
    """
    net = _bell_flat_and_far()
    for target in (16.2, 27.0):
        found = answered(answer(copy.deepcopy(net), target))
        wanted = _least(net, target)
        if not isinstance(found, Mapping) or set(found) != set(wanted):
            names = ", ".join(wanted)
            raise Wrong(f"Return a dict with the bits of each weight: {names}.")
        got = {name: int(bits) for name, bits in found.items()}
        most, rule = max(wanted.values()), math.ceil(target / (20 * math.log10(2)))
        for gives, reason in (
            (wanted, ""),
            (dict.fromkeys(wanted, most), "one number for all is more than some layers need: ask each by itself."),
            ({name: bits - 1 for name, bits in wanted.items()}, "these are the last that miss the target."),
            ({name: bits + 1 for name, bits in wanted.items()}, "each layer would do with one bit less."),
            (
                dict.fromkeys(wanted, rule),
                "6 dB a bit is the slope. Where the line begins depends on the weights: measure it.",
            ),
            (_least(net, target, "channel"), "one step a channel needs fewer bits; here there is one a tensor."),
            (_least(net, target, clip=True), _UP_TO_THE_LARGEST),
            (_least(net, target, symmetric=False), _UP_TO_THE_LARGEST),
            (_least(net, target / 2), "in dB of powers the factor is 10; 20 is for amplitudes, without the squares."),
            (_least(net, 2 * target), "your dB are half as many: the noise is a sum of squares, with no root."),
        ):
            if got == gives:
                if reason:
                    raise Wrong(f"At {target:g} dB {reason}")
                break
        else:
            name = next(name for name, bits in wanted.items() if got[name] != bits)
            raise Wrong(f"At {target:g} dB {name} needs {wanted[name]} bits; got {got[name]}.")
    return "One weight far from all others stretches the grid of its whole layer, which then needs more bits."


_UP_TO_THE_LARGEST = "neither clip the grid nor give it a zero point: it is symmetric, up to the largest weight."


def _bell_flat_and_far() -> nn.Module:
    """A network whose weights are normal, uniform, and normal with one large weight; no SQNR near a target."""
    net, generator = models.MLP((40, 30, 30, 10), seed=0), torch.Generator().manual_seed(0)
    first, second, third = (tensor for tensor in net.parameters() if tensor.ndim == 2)
    with torch.no_grad():
        first.copy_(torch.randn(first.shape, generator=generator))
        second.copy_(2 * torch.rand(second.shape, generator=generator) - 1)
        third.copy_(torch.randn(third.shape, generator=generator))
        third[3, 4] = 9.0
    return net


def _least(
    net: nn.Module, target: float, per: compress.Per = "tensor", *, symmetric: bool = True, clip: bool = False
) -> dict[str, int]:
    """By weight name the fewest bits with that SQNR; 9 where 8 are too few."""
    made = {bits: compress.quantise(net, bits, per=per, symmetric=symmetric, clip=clip) for bits in range(2, 9)}
    reached = {bits: compress.sqnr(net, each) for bits, each in made.items()}
    return {name: next((bits for bits in reached if reached[bits][name] >= target), 9) for name in reached[8]}


@checked
def average_matched(answer: Callable[[State, State, Tensor, Tensor], State]) -> str:
    """Mend an average of two networks in which units are put into another order in some tensors only.

    Args:
        answer: takes the state dicts of two `models.MLP` with two hidden layers, a and b, and for each hidden layer
            which unit of b goes to which place, [units]: place i gets unit order[i]. Returns the state dict with the
            means of a's tensors and of b's, once they are in that order. The notebook's slip, columns of layer 1 that
            are lost again, is not named.
    """
    for sizes in ((6, 5, 5, 4), (6, 7, 5, 4)):  # square first: there rows and columns fit alike
        a, b = (models.MLP(sizes, seed=seed).state_dict() for seed in (1, 2))
        generator = torch.Generator().manual_seed(0)
        first, second = (torch.randperm(n, generator=generator) for n in sizes[1:3])
        wanted = _moved(b, first, second)
        kept = [{name: tensor.clone() for name, tensor in each.items()} for each in (a, b)]
        found = answered(answer(a, b, first.clone(), second.clone()))
        if not isinstance(found, Mapping) or set(found) != set(a):
            raise Wrong(f"Return a dict with the tensors {', '.join(a)}.")
        for name, state, before in (("a", a, kept[0]), ("b", b, kept[1])):
            if any(not torch.equal(state[key], before[key]) for key in state):
                raise Wrong(f"{name} itself has changed: index makes new tensors, += and copy_ do not.")
        a, b = kept
        fit = [order.argsort() for order in (first, second)]
        tries = [
            (wanted, ""),
            ({k: 2 * wanted[k] + a[k] for k in a}, "this is the sum: half of each is the mean."),
            (b, "nothing of b was moved."),
            (_moved(b, *fit), "the orders are turned round: place i gets unit order[i], as in tensor[order]."),
            (_moved(b, first, second, columns=False), "and the columns of the next layers, which read these units?"),
            (_moved(b, first, second, biases=False), "a unit takes its bias along."),
            (wanted | {"layers.2.weight": b["layers.2.weight"]}, "the last layer reads units that have moved."),
            (wanted | _columns(b, second, *fit), "columns take the same order as the rows, not its inverse."),
        ]
        if sizes[1] == sizes[2]:
            swapped = b["layers.1.weight"][first][:, second]  # silent only where both layers are as wide
            tries.append(
                (wanted | {"layers.1.weight": swapped}, "layer 1 reads the first order and writes the second.")
            )
        for gives, reason in tries:
            if all(found[k].shape == a[k].shape and _near(found[k], (a[k] + gives[k]) / 2) for k in a):
                if reason:
                    raise Wrong(f"Not every tensor is right: {reason}")
                break
        else:
            raise Wrong(
                "The mean is not that of a and b: with its units in another order b must answer as before. Try that "
                "alone, before you average: tensor by tensor, which of its axes count units?"
            )
    return "Units move with all that belongs to them, so b answers as before; only now a mean makes sense."


def _moved(b: State, first: Tensor, second: Tensor, *, columns: bool = True, biases: bool = True) -> dict[str, Tensor]:
    """The units of an MLP's two hidden layers in another order; or slips of it."""
    moved = dict(b)
    for layer, order in ((0, first), (1, second)):
        into, out = f"layers.{layer}", f"layers.{layer + 1}.weight"
        moved[f"{into}.weight"] = moved[f"{into}.weight"][order]
        moved[f"{into}.bias"] = moved[f"{into}.bias"][order] if biases else b[f"{into}.bias"]
        moved[out] = moved[out][:, order] if columns else moved[out]
    return moved


def _columns(b: State, second: Tensor, into: Tensor, out: Tensor) -> dict[str, Tensor]:
    """The weights behind the hidden layers, their rows in the right order, their columns in another."""
    one, two = b["layers.1.weight"], b["layers.2.weight"]
    return {"layers.1.weight": one[second][:, into], "layers.2.weight": two[:, out]}


@checked
def smallest_file(answer: Callable[[nn.Module, Dataset], nn.Module], *, seeds: Sequence[int] = range(100, 105)) -> str:
    """Make the smallest file of LeNet-300-100 that keeps 97 % of its accuracy: an open task, with a score.

    Args:
        answer: takes a trained network and MNIST with 500 validation images (its test images are the same); returns a
            network, any that takes these images, all of whose numbers are in its state dict. `compress.encode` makes
            the file.
        seeds: of the networks that judge, on the other 1,000 validation images. The rival is the kit's recipe: 95 %
            pruned at once, 4 bits shared, 2 epochs of fine-tuning after each step.
    """
    given, judging = _splits()
    sizes, margins, kits = [], [], []
    for seed in seeds:
        dense, accuracy, rival = _judge(seed)
        smaller = answered(answer(training.copy_of(dense), given))
        if not isinstance(smaller, nn.Module):
            raise Wrong(f"Return the compressed network, such as pipeline(...).model; got {type(smaller).__name__}.")
        _check_complete(smaller, judging)
        sizes.append(len(compress.encode(smaller).data))
        margins.append(measure.accuracy(smaller, judging).value - KEPT * accuracy)
        kits.append(rival() / sizes[-1])
    margin, times = Estimate.from_values(margins), Estimate.from_values(kits)
    said = f"{times.value:.2f} times smaller ({times.low:.2f} to {times.high:.2f})"
    score = (
        f"Over {len(sizes)} new networks your files have {statistics.fmean(sizes):,.0f} bytes, {said} than the kit's; "
        f"accuracy minus 97 % of the dense one: {margin.points}."
    )
    if times.low <= 1:
        raise Wrong(f"{score} The kit is beaten where the whole interval of the ratio is above 1.")
    if margin.low <= 0:
        raise Wrong(f"{score} Too much is lost: that whole interval must be above 0.")
    return f"{score} The kit is beaten. How small can you go?"


@functools.cache
def _splits() -> tuple[Dataset, Split]:
    """What the answer gets, and the validation images that judge."""
    mnist = data.mnist()
    choosing = mnist.validation.first(CHOOSING)
    judging = Split(*(each[CHOOSING:] for each in (mnist.validation.inputs, mnist.validation.labels)))
    return replace(mnist, validation=choosing, test=choosing), judging


@functools.cache
def _judge(seed: int) -> tuple[nn.Module, float, Callable[[], int]]:
    """A network that no reader has tuned on, its accuracy, and how many bytes the kit's recipe makes of it."""
    net, (given, judging) = models.lenet_300_100(seed=seed), _splits()
    training.fit(net, given, epochs=EPOCHS, seed=seed, weight_decay=1e-4)
    rival = functools.cache(lambda: len(compress.pipeline(net, given, RIVAL).data))
    return net, measure.accuracy(net, judging).value, rival


def _check_complete(model: nn.Module, split: Split) -> None:
    """Refuse a network that cannot take the images, or that knows more than is in its file."""
    inputs = split.inputs[:64]
    logits = training.predict(model, inputs)
    if logits.shape != (len(inputs), 10) or not logits.isfinite().all():
        raise Wrong(f"The network must answer 64 images with [64, 10] finite logits; got {list(logits.shape)}.")
    empty = training.copy_of(model)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.zero_()
    if (answers := training.predict(empty, inputs)).isfinite().all() and not torch.equal(*answers.aminmax(dim=0)):
        raise Wrong("With all numbers of its file at 0 it still tells images apart: it keeps numbers elsewhere.")
