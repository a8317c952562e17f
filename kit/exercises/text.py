"""Checks of the notebook on language: attention, and heads that go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.exercises.verdict import Wrong, answered, checked
from kit.models import Attention
from kit.models.parts import initialise


@checked
def causal_attention(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> str:
    """Write the attention of a model that writes: each token takes from itself and from those before it.

    Args:
        answer: takes queries, keys and values, [n, heads, length, d] each, and where there is a token, bool
            [n, length], with padding anywhere; returns the mixed values, [n, heads, length, d], zeros for padding.
    """
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(3, 2, 5, 4, generator=generator) for _ in range(3))
    there = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 1, 0]]).bool()
    got = answered(answer(q.clone(), k.clone(), v.clone(), there.clone()))
    if not isinstance(got, Tensor) or got.shape != v.shape:
        came = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        raise Wrong(f"Return mixed values of the shape of the given ones, {tuple(v.shape)}; got {came}.")
    if bool(got.isnan().any()):
        raise Wrong("Some values are NaN: padding in front has nobody to take from; a softmax of -inf alone is NaN.")
    earlier = torch.ones(5, 5, dtype=torch.bool).tril()  # [from, to]
    listed, rows = there[:, None, None], there[:, None, :, None]  # who may be taken from; who takes
    scores = q @ k.transpose(2, 3)  # [n, heads, length, length]

    def mixed(seen: Tensor, *, scale: float = 0.5, hidden: float = -1e9) -> Tensor:
        return (scores * scale).masked_fill(~seen, hidden).softmax(3) @ v

    seen = earlier & listed
    for gives, reason in (
        (F.scaled_dot_product_attention(q, k, v, attn_mask=seen | ~rows), ""),
        (mixed(seen, scale=1.0), "the scores are not divided by the root of d."),
        (mixed(seen, scale=1 / 4), "the scores are divided by d; take its root."),
        (mixed(seen, scale=1 / math.sqrt(5)), "the scores are divided by the root of the length; take that of d."),
        (mixed(listed.expand_as(scores)), "tokens take from later ones, too."),
        (mixed(earlier.expand_as(scores)), "tokens take from padding, too."),
        (mixed(earlier.T & listed), "tokens take from later ones, and from none before: turn the mask round."),
        (
            mixed(seen, hidden=0.0),
            "a score of 0 is no weight of 0, as exp(0) is 1: hide by a very negative one.",
        ),
        ((scores / 2).softmax(3).masked_fill(~seen, 0) @ v, "the weights of a token no longer add up to 1."),
        ((scores / 2).masked_fill(~seen, -1e9).softmax(2) @ v, "the softmax goes over the tokens that are taken from."),
    ):
        if torch.allclose((got - gives) * rows, torch.zeros(()), atol=1e-5):
            if reason:
                raise Wrong(f"Not these: {reason}")
            break
    else:
        raise Wrong("PyTorch's own attention gives other values where there are tokens.")
    if bool((got * ~rows).any()):
        raise Wrong("Right where there are tokens; but padding must give zeros, or the next layer reads it.")
    return "PyTorch's own attention gives the same."


@checked
def without_heads(answer: Callable[[Attention, Sequence[int]], Attention]) -> str:
    """Take heads out of an attention: really smaller, with the answers of one whose heads are silent.

    Args:
        answer: takes a `models.Attention` and the numbers of the heads that go; returns another one without them.
    """
    for gone in ([2], [0, 1], [3, 0]):
        whole = Attention(12, 4)
        initialise(whole, seed=3)
        before = copy.deepcopy(whole.state_dict())
        generator = torch.Generator().manual_seed(7)
        x, there = torch.randn(2, 5, 12, generator=generator), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
        got = answered(answer(whole, list(gone)))
        if not isinstance(got, Attention):
            raise Wrong(f"Return a models.Attention; got {type(got).__name__}.")
        if any(not each.equal(before[name]) for name, each in whole.state_dict().items()):
            raise Wrong("The attention that was given has changed: work on a copy.")
        if got.head_width != whole.head_width:
            raise Wrong(f"A head is {whole.head_width} numbers wide; yours are {got.head_width}: its scores change.")
        stay = [head for head in range(4) if head not in gone]
        want = _silent(whole, gone)(x, there)
        try:
            mixed = got(x, there)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise Wrong(f"It does not run ({first}): which rows, biases and columns belong to a head?") from None
        if torch.allclose(mixed, _silent(whole, stay)(x, there), atol=1e-5):
            raise Wrong("These are the heads that should go; the others stay.")
        size, wanted = sum(each.numel() for each in got.parameters()), 12 * 3 * len(stay) * 4 + 9 * len(stay) + 12
        if size > wanted:
            way = "a head that gives zeros is still there" if torch.allclose(mixed, want, atol=1e-5) else "look again"
            raise Wrong(f"Without heads {gone} there are {wanted} parameters; yours has {size}: {way}.")
        if not torch.allclose(mixed, want, atol=1e-5):
            raise Wrong(f"Without heads {gone} the answers are not those with these heads silent.")
    return "The same answers as with silent heads, and smaller."


def _silent(attention: Attention, heads: Sequence[int]) -> Attention:
    """A copy in which nothing comes from some heads."""
    other, size = copy.deepcopy(attention), attention.head_width
    with torch.no_grad():
        for head in heads:
            other.out.weight[:, head * size : (head + 1) * size] = 0
    return other
