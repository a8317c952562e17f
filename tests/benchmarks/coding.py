"""Of compression: how fast a million weights are coded and read back, and how near the bytes come to their bound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from torch import nn

from kit import compress, models, prune
from tests.benchmarks.registry import Say
from tests.benchmarks.rows import Row, Target

CLUSTERS = 32
ROUNDS = 5


def coding(say: Say) -> Iterator[Row]:
    """Encode and decode, and the bytes beside their bound and those of zlib and zstd."""
    for kept, words in ((1.0, "dense"), (0.1, "90 % zeros")):
        model = _normal(kept)
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            compress.decode(compress.encode(model).data)
            seconds.append(time.perf_counter() - began)
        say(f"{words}: {statistics.median(seconds):.2f} s")
        what = f"encode + decode 1 million weights, {CLUSTERS} clusters, {words} / 1 s"
        yield Row.of(f"compression.coding, {words}", what, statistics.median(seconds), 1.0, "s", Target("at most", 1))
    encoded, rivals = compress.encode(model), compress.rivals(model)
    ours, tables = len(encoded.data) / 1e3, encoded.ledger.tables / 1e3
    bound = rivals["entropy"] / 1e3 + tables
    yield Row.of(
        "compression.entropy", f"{words}: Huffman / entropy + tables", ours, bound, "kB", Target("at most", 1.01)
    )
    for name in ("zlib", "zstd", "zlib, symbols", "zstd, symbols"):
        what = f"{words}: the kit's file / {name} on {'the codes and gaps' if 'sym' in name else 'the float32 weights'}"
        yield Row.of(f"compression.{name}", what, ours, rivals[name] / 1e3, "kB", Target("at most", 1))


def _normal(kept: float) -> nn.Module:
    """A million normal weights in clusters, and so many of them not 0."""
    model = models.MLP((1000, 1000))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(generator=torch.Generator().manual_seed(0))
    return compress.share(prune.weights(model, ratio=1 - kept), clusters=CLUSTERS)
