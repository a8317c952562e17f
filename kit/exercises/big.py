"""Checks of the last exercises of the notebook on big models: texts that fit into memory, and the best small file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kit import compress, cost, data, measure, models, training
from kit.data import Dataset, Split
from kit.exercises.verdict import Wrong, answered, checked
from kit.measure import Estimate

GB = 1e9
FITS = (  # network, bytes of memory, tokens a text, bits of a weight
    (cost.LLAMA_7B, 80 * GB, 2048, 16),
    (cost.LLAMA2_70B, 80 * GB, 4096, 4),  # grouped queries
    (cost.GPT2, 1 * GB, 1000, 8),
    (cost.LLAMA_7B, 8 * GB, 2048, 16),  # the weights alone are too many
)

LIMIT = 2200  # bytes of the file, in `best_in_bytes`
WIDTH, VALUES, EPOCHS, RATE, DECAY = 2, 16, 20, 1e-2, 1e-4  # of the rival


@checked
def texts_that_fit(answer: Callable[[cost.Transformer, float, int, float], Any]) -> str:
    """Say how many texts a decoder can write at once.

    Args:
        answer: takes a network, the bytes of the memory, tokens of each text and bits of a weight; returns the largest
            whole number of texts whose caches, in 16 bits, fit beside the weights; 0 where the weights alone do not
            fit. Activations and scales are left out.
    """
    for network, memory, context, bits in FITS:
        weights = network.parameters * bits / 8
        head = network.width // network.heads
        each = 2 * network.layers * (network.kv_heads or network.heads) * head * context * 2  # bytes of a text's cache
        found = answered(answer(network, memory, context, bits))
        case = f"{network.name} in {bits} bits, {memory / GB:g} GB, {context:,} tokens a text: got {found!r}."
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise Wrong(f"{case} Return a whole number.")
        want = max(0, int((memory - weights) // each))
        if found == want:
            continue
        slips = [
            (max(0.0, (memory - weights) / each), "Half a text does not fit: a whole number, rounded down."),
            ((memory - weights) // each, "A number of texts is not below 0."),
            (want + 1, "One text less: round down, not up."),
            (2 * want, "A token keeps a key and a value."),
            (2 * want + 1, "A token keeps a key and a value."),
            (memory // each, "And the weights? They are in memory, too."),
            ((memory - weights) // (each // 2), "A number of 16 bits is 2 bytes, and a token keeps a key and a value."),
            ((memory - weights) // (each * 4), "A number of 16 bits is 2 bytes."),
            ((memory - weights) // (each / network.layers), "Each layer keeps keys and values of its own."),
            ((memory - weights) // (each * bits / 16), "The bits are those of the weights; the cache keeps its 16."),
            ((memory - network.parameters * bits) // each, "Bits are not bytes."),
            ((memory - network.bytes(cost.FLOAT16)) // each, "The weights have the bits that are given, not 16."),
            (
                (memory - weights) // (2 * network.layers * network.width * context * 2),
                "Its heads of queries share fewer heads of keys and values: kv_heads.",
            ),
        ]
        reasons = (reason for value, reason in slips if found in (value, max(0, value)))
        raise Wrong(f"{case} {next(reasons, 'Count the bytes of one text, then those that the weights leave.')}")
    return "The cache of each text, not the weights, says how many can be written at once."


@checked
def best_in_bytes(answer: Callable[[Dataset], nn.Module], *, seeds: Sequence[int] = range(200, 205)) -> str:
    """Name the library of a sentence as well as a file of 2,200 bytes allows: an open task, with a score.

    Args:
        answer: takes the docstrings with one half of their validation sentences (its test sentences are the same);
            returns a network that takes their ids, all of whose numbers are in its state dict. `compress.encode` makes
            the file; what is read back from it is judged.
        seeds: of the splits that judge, on the other half of the validation sentences. The rival is a bag of words of
            width 2, its numbers shared by 16 values a layer.
    """
    gains = []
    for seed in seeds:
        given, judging = _splits(seed)
        model = answered(answer(given))
        if not isinstance(model, nn.Module):
            raise Wrong(f"Return a network; got {type(model).__name__}.")
        logits = training.predict(model, judging.inputs[:64])
        if logits.shape != (64, given.n_classes) or not logits.isfinite().all():
            raise Wrong(
                f"It must answer 64 texts with [64, {given.n_classes}] finite logits; got {list(logits.shape)}."
            )
        file = compress.encode(model).data
        if len(file) > LIMIT:
            raise Wrong(f"Its file has {len(file):,} bytes; at most {LIMIT:,} are allowed, for each of the splits.")
        mine = measure.accuracy(_read(model, file, judging), judging).value
        gains.append(mine - _rival(seed))
    gain = Estimate.from_values(gains)
    score = f"Over {len(gains)} splits yours minus the rival: {gain.points}."
    if gain.low <= 0:
        raise Wrong(f"{score} The rival is beaten where the whole interval is above 0.")
    return f"{score} The whole interval is above 0: beaten. How far can you go?"


@functools.cache
def _splits(seed: int) -> tuple[Dataset, Split]:
    """What the answer gets, and the sentences that judge."""
    texts = data.docstrings(seed=seed)
    half = len(texts.validation) // 2
    judging = Split(texts.validation.inputs[half:], texts.validation.labels[half:])
    choosing = texts.validation.first(half)
    return replace(texts, validation=choosing, test=choosing), judging


@functools.cache
def _rival(seed: int) -> float:
    """Accuracy of the cheap rival."""
    given, judging = _splits(seed)
    assert given.tokens is not None
    net = models.BagOfWords(given.tokens.size, given.n_classes, WIDTH, seed=seed)
    training.fit(net, given, epochs=EPOCHS, lr=RATE, seed=seed, weight_decay=DECAY)
    return measure.accuracy(compress.share(net, VALUES), judging).value


def _read(model: nn.Module, file: bytes, judging: Split) -> nn.Module:
    """The network with the numbers of its file, and no others."""
    read = training.copy_of(model)
    with torch.no_grad():
        for tensor in read.state_dict().values():
            tensor.zero_()
    empty = training.predict(read, judging.inputs[:64])
    if empty.isfinite().all() and not torch.equal(*empty.aminmax(dim=0)):
        raise Wrong("With all numbers of its file at 0 it still tells texts apart: it keeps numbers elsewhere.")
    read.load_state_dict(compress.decode(file))
    return read
