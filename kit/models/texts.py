"""Networks for texts, which come as ids of tokens: a small transformer, and the mean of the embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit import checks
from kit.models.parts import initialise


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    How many heads there are follows from the width of `query`, so heads can be taken out. `width` is a multiple of
    `heads`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map [n, length, width] to the same shape; `there`, bool [n, length], says where there is a token."""
        value = self.split(self.value(x))  # [n, heads, length, head_width]
        mixed = self.weights(x, there) @ value  # [n, heads, length, head_width]
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, there: Tensor) -> Tensor:
        """How much each token takes of each: [n, heads, length, length], rows add up to 1."""
        query, key = self.split(self.query(x)), self.split(self.key(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(self.head_width)  # [n, heads, length, length]
        hidden = torch.finfo(scores.dtype).min  # not infinity: a text without a token would give NaN
        return scores.masked_fill(~there[:, None, None], hidden).softmax(3)

    def split(self, x: Tensor) -> Tensor:
        """[n, length, heads * head_width] -> [n, heads, length, head_width]."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention, then two linear layers on each token, each with a normalisation before and a sum around it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.hidden_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map [n, length, width] to the same shape."""
        x = x + self.attention(self.attention_norm(x), there)
        return x + self.fc2(F.gelu(self.fc1(self.hidden_norm(x))))


class Transformer(nn.Module):
    """A small encoder that classifies texts: ids of tokens -> embeddings -> blocks -> mean over tokens -> logits.

    Source: Vaswani et al. 2017, arXiv:1706.03762, with the normalisation before each part (Xiong et al. 2020,
    arXiv:2002.04745), which trains without warming up.

    Args:
        vocabulary: number of ids, such as `dataset.tokens.size`; all sizes at least 1 (else a ValueError).
        length: tokens of the longest text; id 0 pads.
        n_classes: number of logits.
        width: numbers a token.
        heads: of each attention; a divisor of `width` (else a ValueError).
        layers: number of blocks.
        hidden: width of the middle of a block; by default 4 times `width`.
        seed: of the first weights.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        n_classes: int = 2,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        hidden: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        vocabulary, n_classes = checks.whole("vocabulary", vocabulary, 1), checks.whole("n_classes", n_classes, 1)
        self.length, width = checks.whole("length", length, 1), checks.whole("width", width, 1)
        heads, layers = checks.whole("heads", heads, 1), checks.whole("layers", layers, 1)
        hidden = 4 * width if hidden is None else checks.whole("hidden", hidden, 1)
        if width % heads:
            raise ValueError(f"heads must divide width, {width}; got {heads}.")
        with torch.device("meta"):
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(self.length, width)
            self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden) for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_classes)
        initialise(self, seed)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids int64 [n, length], or shorter, to logits [n, n_classes]; ValueError for other inputs."""
        _check_ids(ids, self.length)
        there = ids != 0  # [n, length]
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]  # [n, length, width]
        for block in self.blocks:
            x = block(x, there)
        return self.head(mean_over(self.norm(x), there))


class BagOfWords(nn.Module):
    """The mean of the tokens' embeddings and one linear layer: which tokens there are, not in which order.

    Args:
        vocabulary: number of ids; all sizes at least 1 (else a ValueError).
        n_classes: number of logits.
        width: numbers a token.
        seed: of the first weights.
    """

    def __init__(self, vocabulary: int, n_classes: int = 2, width: int = 32, *, seed: int = 0) -> None:
        super().__init__()
        vocabulary, n_classes = checks.whole("vocabulary", vocabulary, 1), checks.whole("n_classes", n_classes, 1)
        with torch.device("meta"):
            self.tokens = nn.Embedding(vocabulary, checks.whole("width", width, 1))
            self.head = nn.Linear(width, n_classes)
        initialise(self, seed)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids int64 [n, any length] to logits [n, n_classes]; ValueError for other inputs."""
        _check_ids(ids)
        return self.head(mean_over(self.tokens(ids), ids != 0))


def mean_over(x: Tensor, there: Tensor) -> Tensor:
    """The mean of the tokens that are there, zeros where there is none. [n, length, width] -> [n, width]."""
    weights = there.to(x.dtype)[..., None]  # [n, length, 1]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def _check_ids(ids: Tensor, length: int | None = None) -> None:
    """Refuse what an embedding would refuse with a message about indices, or take without a word."""
    if ids.is_floating_point():
        raise ValueError(f"inputs: the model takes ids of tokens, int64; got {ids.dtype}.")
    if ids.ndim != 2 or (length is not None and ids.shape[1] > length):
        wanted = "any" if length is None else f"up to {length}"
        raise ValueError(f"inputs: the model takes ids [n, {wanted}]; got shape {tuple(ids.shape)}.")
