"""Transformers by their dimensions: parameters, bytes, FLOPs, key-value cache, activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kit import checks
from kit.cost.roofline import Hardware, Step
from kit.cost.storage import FLOAT16, Storage

Head = Literal["tied", "own", "none"]
Parts = dict[str, int]


def factored(outputs: int, inputs: int, rank: float) -> int:
    """Weights of the two factors of a matrix; `rank` is a share of its smaller side, at least 1 is left."""
    return max(1, round(rank * min(outputs, inputs))) * (outputs + inputs)


@dataclass(frozen=True)
class Transformer:
    """A transformer (Vaswani et al. 2017, arXiv:1706.03762) by its dimensions; nothing is built.

    Attributes:
        name: of it.
        layers: blocks, each attention and a feed-forward part; all sizes are 1 or more, those that may be absent 0.
        width: numbers a token between the blocks.
        heads: of attention.
        hidden: width of the middle of the feed-forward part.
        vocabulary: tokens that it knows; 0 where it reads patches.
        context: tokens of its longest input.
        positions: rows of a learned table of positions; 0 where there is none (rotary).
        kv_heads: heads of keys and values, at most `heads`: fewer are grouped queries (Ainslie et al. 2023,
            arXiv:2305.13245); by default `heads`.
        head_width: numbers a head; by default `width // heads`.
        gated: whether the feed-forward part has a third matrix, its gate (Shazeer 2020, arXiv:2002.05202).
        biases: whether the matrices of the layers have biases.
        rms: whether normalisations have a scale and no shift (Zhang & Sennrich 2019, arXiv:1910.07467).
        decoder: whether a token sees those before it only, so that keys and values can be kept.
        segments: rows of a table of segments, as in BERT.
        head: what gives a logit to each word: the embeddings read backwards ("tied"), a matrix of its "own", "none".
        pooler: whether the first token passes one more square layer, as in BERT.
        classes: logits of a classifier.
        patch: numbers of an image's patch, where it reads patches; a token for the class is before them.
        rank: of the two factors that stand for each matrix of the blocks, as a share of its smaller side, [0, 1); 0
            where the matrices are whole.
        source: where the dimensions are from.

    Raises:
        ValueError: a dimension that is not allowed; TypeError for what is no whole number.
    """

    name: str
    layers: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    context: int
    positions: int = 0
    kv_heads: int | None = None
    head_width: int | None = None
    gated: bool = False
    biases: bool = True
    rms: bool = False
    decoder: bool = True
    segments: int = 0
    head: Head = "tied"
    pooler: bool = False
    classes: int = 0
    patch: int = 0
    rank: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no transformer."""
        for name in ("layers", "width", "heads", "hidden", "context"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("vocabulary", "positions", "segments", "classes", "patch"):
            checks.whole(name, getattr(self, name))
        checks.one_of("head", self.head, get_args(Head))
        checks.share("rank", self.rank, one=False)
        if self.kv_heads is not None:
            checks.whole("kv_heads", self.kv_heads, 1, self.heads)
        if self.head_width is not None:
            checks.whole("head_width", self.head_width, 1)
        elif self.width % self.heads:
            raise ValueError(f"heads must divide width, {self.width}, or head_width be given; got {self.heads}.")
        if not self.vocabulary and (not self.patch or self.head != "none"):
            raise ValueError("vocabulary must be 1 or more, but for patches without a head for words; got 0.")

    # -- parameters and bytes ------------------------------------------------------------------------------------------

    @property
    def query_width(self) -> int:
        """Numbers of all queries of a token."""
        return self.heads * (self.head_width or self.width // self.heads)

    @property
    def kv_width(self) -> int:
        """Numbers of all keys of a token; values have as many."""
        return (self.kv_heads or self.heads) * (self.head_width or self.width // self.heads)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Outputs and inputs of each matrix of one block, attention's four first."""
        query, keys, hidden = self.query_width, self.kv_width, self.hidden
        feed = ((hidden, self.width),) * (1 + self.gated) + ((self.width, hidden),)
        return ((query, self.width), (keys, self.width), (keys, self.width), (self.width, query), *feed)

    @property
    def matrices(self) -> int:
        """Weights of the blocks' matrices: what pruning, low rank and the like act on."""
        return self.layers * sum(self._weights(*shape) for shape in self.shapes)

    def _weights(self, outputs: int, inputs: int) -> int:
        return factored(outputs, inputs, self.rank) if self.rank else outputs * inputs

    @property
    def parts(self) -> Parts:
        """Parameters by part: embeddings, attention, feed-forward, norms, head; their sum is `parameters`."""
        width = self.width
        tables = (self.vocabulary + self.positions + self.segments) * width
        patches = (self.patch + 2) * width if self.patch else 0  # with their bias, and the token of the class
        sizes = [self._weights(*shape) + shape[0] * self.biases for shape in self.shapes]
        norms = (2 * self.layers + 1) * width * (1 if self.rms else 2)  # one more before or after the blocks
        head = self.vocabulary * width * (self.head == "own") + width * (width + 1) * self.pooler
        return {
            "embeddings": tables + patches,
            "attention": self.layers * sum(sizes[:4]),
            "feed-forward": self.layers * sum(sizes[4:]),
            "norms": norms,
            "head": head + self.classes * (width + 1),
        }

    @property
    def parameters(self) -> int:
        """All of them; a tied matrix counts once."""
        return sum(self.parts.values())

    def bytes(self, storage: Storage = FLOAT16) -> float:
        """Bytes of the weights. Biases and norms, which are few, have 16 bits at least."""
        return self._bytes(storage, lookups=True)

    def _bytes(self, storage: Storage, *, lookups: bool) -> float:
        parts = self.parts
        small = parts["norms"] + parts["attention"] + parts["feed-forward"] - self.matrices
        tables = parts["embeddings"] + parts["head"]
        if not lookups:  # a step reads a few rows of them, but for the words' where the head reads it backwards
            tables -= (self.vocabulary * (self.head != "tied") + self.positions + self.segments) * self.width
        return storage.bytes(self.matrices) + storage.dense.bytes(tables) + small * storage.activations / 8

    def cache(self, tokens: int, batch: int = 1, bits: float = 16) -> float:
        """Bytes of the keys and values of `tokens` tokens in each of `batch` texts; 0 of an encoder."""
        checks.whole("tokens", tokens), checks.whole("batch", batch, 1)
        return 2 * self.layers * self.kv_width * tokens * batch * bits / 8 * self.decoder

    def activations(self, tokens: int, batch: int = 1, bits: float = 16) -> float:
        """Bytes of what is alive at once while `tokens` tokens a text pass a layer: an estimate.

        Counted: the sum that runs through the blocks, its normalised copy, and the wider of queries, keys, values and
        their mix, and of the middle of the feed-forward part. Not counted: a matrix of all pairs of tokens, which
        fused attention never stores (Dao et al. 2022, arXiv:2205.14135), logits, and what a library holds back.
        """
        checks.whole("tokens", tokens, 1), checks.whole("batch", batch, 1)
        wider = max(2 * self.query_width + 2 * self.kv_width, self.hidden * (1 + self.gated))
        return batch * tokens * (2 * self.width + wider) * bits / 8

    # -- FLOPs and steps -----------------------------------------------------------------------------------------------

    def flops(self, tokens: int, *, cached: int = 0, logits: int = 1, share: float = 1.0) -> float:
        """FLOPs, two a multiply-add, for `tokens` new tokens of one text.

        Matrix products only, as `measure.flops`; no bias, norm, softmax or activation. A token of a decoder meets
        itself and those before it; kernels that compute all pairs and hide half of them do more.

        Args:
            tokens: new ones, 1 or more.
            cached: tokens whose keys and values are kept, 0 or more.
            logits: tokens that get a logit for each word: one to go on with, all to train.
            share: of the multiply-adds of the blocks' matrices that are done: one half for 2:4.
        """
        checks.whole("tokens", tokens, 1), checks.whole("cached", cached), checks.whole("logits", logits)
        pairs = tokens * cached + (tokens * (tokens + 1) // 2 if self.decoder else tokens * tokens)
        head = self.classes * self.width + self.pooler * self.width**2
        head += logits * self.vocabulary * self.width * (self.head != "none")
        patches = (tokens - 1) * self.patch * self.width
        return 2.0 * (share * tokens * self.matrices + 2 * self.layers * self.query_width * pairs + head + patches)

    def prefill(
        self, batch: int = 1, tokens: int | None = None, storage: Storage = FLOAT16, hardware: Hardware | None = None
    ) -> Step:
        """Reading `batch` texts of `tokens` tokens at once (by default the whole context); an encoder's only step.

        Moved: each weight once, and the cache that is written. Rows of embeddings and activations are left out, so
        that it stays a bound. Zeros save nothing, but for 2:4 on `hardware` that has it.
        """
        tokens = self.context if tokens is None else tokens
        stored = storage.in_memory(sparse=hardware is not None and hardware.sparse)
        flops = batch * self.flops(tokens, share=1 - stored.sparsity)
        moved = self._bytes(stored, lookups=False) + self.cache(tokens, batch, storage.activations)
        return Step(flops, moved, storage.arithmetic)

    def decode(
        self, batch: int = 1, context: int | None = None, storage: Storage = FLOAT16, hardware: Hardware | None = None
    ) -> Step:
        """Writing one more token for each of `batch` texts, the last of `context` tokens; moved as for `prefill`.

        Raises:
            ValueError: an encoder, which reads all tokens at once and writes none.
        """
        if not self.decoder:
            raise ValueError(f"decode: {self.name} is an encoder, which writes no tokens; ask for its prefill.")
        context = checks.whole("context", self.context if context is None else context, 1)
        stored = storage.in_memory(sparse=hardware is not None and hardware.sparse)
        flops = batch * self.flops(1, cached=context - 1, share=1 - stored.sparsity)
        moved = self._bytes(stored, lookups=False) + self.cache(context, batch, storage.activations)
        return Step(flops, moved, storage.arithmetic)

    def turning_batch(self, hardware: Hardware, context: int | None = None, storage: Storage = FLOAT16) -> float | None:
        """Texts from which on decoding is bound by compute; None where it never is: the cache grows with each text."""
        one, two = (self.decode(batch, context, storage, hardware) for batch in (1, 2))
        each = two.bytes - one.bytes
        gain = one.flops / hardware.rate(one.bits) - each / hardware.bandwidth  # seconds more to compute than to read
        return max(1.0, (one.bytes - each) / hardware.bandwidth / gain) if gain > 0 else None
