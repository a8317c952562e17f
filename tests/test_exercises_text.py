"""Exercises on language: other right answers pass, plausible wrong ones fail for their reason."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kit import exercises, models
from kit.exercises import Verdict
from kit.models import Attention


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    there: Tensor,
    scale: float | None = None,
    causal: Callable[[Tensor], Tensor] = torch.tril,
    dim: int = 3,
    hidden: float = -1e9,
    silent: bool = True,
) -> Tensor:
    seen = causal(torch.ones(q.shape[2], q.shape[2])).bool() & there[:, None, None]
    scores = q @ k.transpose(2, 3) * (scale or q.shape[3] ** -0.5)
    mixed = scores.masked_fill(~seen, hidden).softmax(dim) @ v
    return mixed * there[:, None, :, None] if silent else mixed


def by_torch(q: Tensor, k: Tensor, v: Tensor, there: Tensor) -> Tensor:
    seen = torch.ones(q.shape[2], q.shape[2]).bool().tril() & there[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).nan_to_num() * there[:, None, :, None]


def after_the_softmax(q: Tensor, k: Tensor, v: Tensor, there: Tensor) -> Tensor:
    seen = torch.ones(q.shape[2], q.shape[2]).tril() * there[:, None, None]
    return (q @ k.transpose(2, 3) / 2).softmax(3) * seen @ v


@pytest.mark.parametrize("right", [attend, by_torch])
def test_attention_may_be_written_in_several_ways(right: Callable[..., Tensor]) -> None:
    verdict = exercises.causal_attention(right)
    assert verdict.right, verdict


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda q, k, v, there: attend(q, k, v, there, scale=1), "not divided by the root of d"),
        (lambda q, k, v, there: attend(q, k, v, there, scale=1 / 4), "take its root"),
        (lambda q, k, v, there: attend(q, k, v, there, scale=1 / math.sqrt(5)), "root of the length"),
        (lambda q, k, v, there: attend(q, k, v, there, causal=lambda ones: ones), "from later ones, too"),
        (lambda q, k, v, there: attend(q, k, v, torch.ones_like(there)), "from padding, too"),
        (lambda q, k, v, there: attend(q, k, v, there, causal=torch.triu), "turn the mask round"),
        (lambda q, k, v, there: attend(q, k, v, there, hidden=0), "no weight of 0"),
        (lambda q, k, v, there: attend(q, k, v, there, hidden=-math.inf), "softmax of -inf alone"),
        (lambda q, k, v, there: attend(q, k, v, there, dim=2), "over the tokens that are taken from"),
        (lambda q, k, v, there: attend(q, k, v, there, silent=False), "padding must give zeros"),
        (lambda q, k, v, there: attend(k, q, v, there), "PyTorch's own"),
        (after_the_softmax, "no longer add up to 1"),
        (lambda q, k, v, there: attend(q, k, v, there)[0], r"shape of the given ones, \(3, 2, 5, 4\); got \(2, 5, 4\)"),
        (lambda q, k, v, there: 1.0, "got float"),
    ],
)
def test_what_is_wrong_with_an_attention(wrong: Callable[..., Tensor], reason: str) -> None:
    failed(exercises.causal_attention(wrong), reason)


def cut(attention: Attention, rows: Tensor, columns: Tensor | None = None, *, copied: bool = True) -> Attention:
    smaller = copy.deepcopy(attention) if copied else attention
    for layer in (smaller.query, smaller.key, smaller.value):
        layer.weight.data, layer.bias.data = layer.weight.data[rows], layer.bias.data[rows]
    smaller.out.weight.data = smaller.out.weight.data[:, rows if columns is None else columns]
    return smaller


def of_heads(heads: Sequence[int], size: int = 3) -> Tensor:
    return torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])


def others(gone: Sequence[int]) -> list[int]:
    return [head for head in range(4) if head not in gone]


def silenced(attention: Attention, gone: Sequence[int]) -> Attention:
    other = copy.deepcopy(attention)
    other.out.weight.data[:, of_heads(gone)] = 0
    return other


def made_anew(attention: Attention, gone: Sequence[int]) -> Attention:
    smaller = cut(attention, of_heads(others(gone)))
    smaller.head_width = 12 // len(others(gone))
    return smaller


def without_out_bias(attention: Attention, gone: Sequence[int]) -> Attention:
    smaller = cut(attention, of_heads(others(gone)))
    smaller.out.bias.data = torch.zeros(12)
    return smaller


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (silenced, "still there"),
        (lambda attention, gone: cut(attention, of_heads(gone)), "the others stay"),
        (lambda attention, gone: cut(attention, of_heads(others(gone)), of_heads(range(4))), "does not run"),
        (lambda attention, gone: cut(attention, of_heads(others(gone)), copied=False), "work on a copy"),
        (made_anew, r"3 numbers wide; yours are"),
        (without_out_bias, "not those with these heads silent"),
        (lambda attention, gone: Attention(12, 4), "look again"),
        (lambda attention, gone: models.MLP((12, 12)), "got MLP"),
    ],
)
def test_what_is_wrong_with_heads_that_went(wrong: Callable[..., Attention], reason: str) -> None:
    failed(exercises.without_heads(wrong), reason)


def failed(verdict: Verdict, reason: str) -> None:
    assert not verdict.right
    assert re.search(reason, verdict.message), verdict.message
