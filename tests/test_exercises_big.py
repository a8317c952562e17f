"""The exercises on what fits and on small files: right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit import compress, exercises, models, training
from kit.cost import Transformer
from kit.data import Dataset
from kit.exercises import Verdict
from kit.exercises import big as checks

Fits = Callable[[Transformer, float, int, float], Any]
SEEDS = (200, 201)


def refused(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message


def fits(
    network: Transformer,
    memory: float,
    context: int,
    bits: float,
    *,
    kinds: int = 2,
    each: float = 2.0,
    weights: bool = True,
    kept: float = 16.0,
) -> float:
    """By the kit's own cache, or slips of it."""
    cache = network.cache(context) * kinds / 2 * each / 2 * kept / 16
    left = memory - network.parameters * bits / 8 * weights
    return max(0, int(left // cache))


def test_texts_that_fit_by_the_kits_cache_is_right() -> None:
    verdict = exercises.texts_that_fit(fits)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    "answer, reason",
    [
        (lambda n, m, c, b: fits(n, m, c, b, kinds=1), "key and a value"),
        (lambda n, m, c, b: fits(n, m, c, b, weights=False), "And the weights"),
        (lambda n, m, c, b: fits(n, m, c, b, each=16), "cache|2 bytes|Count the bytes"),
        (lambda n, m, c, b: fits(n, m, c, b, kept=b), "keeps its 16"),
        (lambda n, m, c, b: (m - n.parameters * b / 8) / n.cache(c), "rounded down"),
        (lambda n, m, c, b: int((m - n.parameters * b / 8) // n.cache(c)), "not below 0"),
        (lambda n, m, c, b: fits(n, m, c, b) + 1, "round down"),
        (lambda n, m, c, b: fits(n, m, c, b * 8), "Bits are not bytes"),
        (lambda n, m, c, b: max(0, int((m - n.parameters * b / 8) // (4 * n.layers * n.width * c))), "kv_heads"),
        (lambda n, m, c, b: "many", "whole number"),
        (lambda n, m, c, b: ..., "Nothing is answered"),
    ],
)
def test_slips_about_what_fits_are_named(answer: Fits, reason: str) -> None:
    refused(exercises.texts_that_fit(answer), reason)


# -- the best in so many bytes -----------------------------------------------------------------------------------------


def bag(texts: Dataset, width: int, values: int, epochs: int = 4) -> nn.Module:
    assert texts.tokens is not None
    net = models.BagOfWords(texts.tokens.size, texts.n_classes, width)
    training.fit(net, texts, epochs=epochs, lr=2e-2, seed=0)
    return compress.share(net, values) if values else net


class Hidden(nn.Module):
    """Keeps its numbers where no file has them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = [net]
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.net[0](ids) + 0 * self.scale


def test_more_numbers_of_fewer_values_beat_the_rival() -> None:
    verdict = exercises.best_in_bytes(lambda texts: bag(texts, 4, 4, 12), seeds=SEEDS)
    assert "minus the rival" in verdict.message
    assert float(re.findall(r"rival: \+([\d.]+)", verdict.message)[0]) > 1


@pytest.mark.parametrize(
    "answer, reason",
    [
        (lambda texts: bag(texts, 4, 0, 1), r"has \d\d,\d{3} bytes"),
        (lambda texts: bag(texts, 1, 2, 1), "where the whole interval is above 0"),
        (lambda texts: Hidden(bag(texts, 2, 0, 1)), "keeps numbers elsewhere"),
        (lambda texts: models.BagOfWords(texts.tokens.size, 3, 1), r"finite logits; got \[64, 3\]"),
        (lambda texts: "a network", "Return a network; got str"),
        (lambda texts: ..., "Nothing is answered"),
    ],
)
def test_files_that_do_not_count_are_refused(answer: Callable[[Dataset], nn.Module], reason: str) -> None:
    refused(exercises.best_in_bytes(answer, seeds=SEEDS), reason)


def test_the_judge_reads_other_sentences_than_the_answer_gets() -> None:
    given, judging = checks._splits(SEEDS[0])
    assert len(given.validation) == len(judging) and given.test is given.validation
    assert not set(map(tuple, given.validation.inputs.tolist())) >= set(map(tuple, judging.inputs.tolist()))
