"""What each compression would buy at a given size, and what it cannot: bytes and time bounds, from the formulae."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kit import checks
from kit.cost.convnet import ConvNet
from kit.cost.roofline import Bound, Hardware, bound
from kit.cost.storage import FLOAT16, Storage
from kit.cost.transformer import Transformer

Network = Transformer | ConvNet


@dataclass(frozen=True)
class Bought:
    """One compression of one network on one machine.

    Attributes:
        name: of the compression.
        why: what it does and does not buy, in a sentence.
        file: bytes of the weights on disk.
        memory: bytes of the weights where they are computed with.
        prefill: bound of reading a batch of texts, or of a pass of images.
        decode: bound of one more token for each text; None where there is none.
    """

    name: str
    why: str
    file: float
    memory: float
    prefill: Bound
    decode: Bound | None


def compressions(
    network: Network,
    hardware: Hardware,
    *,
    batch: int = 1,
    context: int | None = None,
    storage: Storage = FLOAT16,
    share: float = 0.5,
) -> list[Bought]:
    """What each compression of the course would buy, none combined; first the network as it is.

    All that is said is size and speed: what accuracy remains, only a measurement can say.

    Args:
        network: a `Transformer` or a `ConvNet`.
        hardware: what it would run on.
        batch: texts or images at once.
        context: tokens of each text; by default the longest. A `ConvNet` has none.
        storage: of the network as it is, without zeros.
        share: of the weights, channels, heads and ranks that is taken away, in (0, 1); 2:4 takes one half.

    Raises:
        TypeError: neither a `Transformer` nor a `ConvNet`.
        ValueError: an argument that is not allowed, or as for `Hardware.rate`.
    """
    checks.instance("network", network, (Transformer, ConvNet), "a cost.Transformer or a cost.ConvNet")
    checks.share("share", share, one=False)
    checks.number("share", share, above=0)
    if storage.pattern != "dense":
        raise ValueError(f"storage must be without zeros; got the pattern {storage.pattern}.")
    if isinstance(network, ConvNet) and context is not None:
        raise ValueError(f"context: {network.name} reads images, which have none; got {context!r}.")
    found = []
    for name, why, smaller, stored in _smaller(network, hardware, storage, share):
        decode = None
        if isinstance(smaller, Transformer):
            prefill = smaller.prefill(batch, context, stored, hardware)
            if smaller.decoder:
                decode = bound(smaller.decode(batch, context, stored, hardware), hardware)
        else:
            prefill = smaller.pass_over(batch, stored, hardware)
        memory = smaller.bytes(stored.in_memory(sparse=hardware.sparse))
        found.append(Bought(name, why, smaller.bytes(stored), memory, bound(prefill, hardware), decode))
    return found


def _smaller(
    network: Network, hardware: Hardware, storage: Storage, share: float
) -> Iterator[tuple[str, str, Network, Storage]]:
    """Name, why, network and storage of each compression."""
    gone, kept = f"{100 * share:g} %", 1 - share
    yield "as it is", "To compare with.", network, storage
    zeros = replace(storage, pattern="anywhere", sparsity=share)
    yield (
        f"{gone} zeros",
        "A zero is stored and multiplied like any number: only a sparse file is smaller.",
        network,
        zeros,
    )
    has = f"{hardware.name} {'has' if hardware.sparse else 'lacks'} units for it"
    speed = (
        "half the products are left out, and half the weights are read" if hardware.sparse else "only a file is smaller"
    )
    yield "2:4 zeros", f"{has}: {speed}.", network, replace(storage, pattern="2:4", sparsity=0.5)
    dense = "What is left is a smaller dense network, which any machine runs faster"
    rank = f"Two thin matrices for each, of rank {50 * kept:g} % of its smaller side: fewer weights, fewer products."
    if isinstance(network, Transformer):
        heads = max(1, round(kept * network.heads))
        kv_heads = network.kv_heads and max(1, min(heads, round(kept * network.kv_heads)))
        width = network.head_width or network.width // network.heads
        hidden = max(1, round(kept * network.hidden))
        thin = replace(network, heads=heads, kv_heads=kv_heads, head_width=width, hidden=hidden)
        yield f"{gone} heads, units", f"{dense}; its cache is smaller, too.", thin, storage
        yield "low rank", f"{rank} The cache stays.", replace(network, rank=kept / 2), storage
    else:
        why = f"{dense}; a kernel loses channels on both sides."
        yield f"{gone} channels", why, network.thinner(kept), storage
        yield "low rank", rank, network.factored(kept / 2), storage
    for bits, group, why in (
        (8, 0, "Fewer bytes to read, and products in 8 bits where the machine has them."),
        (4, 128, "Fewer bytes to read; products stay in 16 bits, so what is bound by compute gains nothing."),
    ):
        if bits < storage.bits:
            yield f"{bits} bits", why, network, replace(storage, bits=bits, group=group)
    if isinstance(network, Transformer) and network.layers > 1:
        half = replace(network, layers=network.layers // 2)
        yield (
            "half the layers",
            "A student trained by the whole network: half of it all, the embeddings apart.",
            half,
            storage,
        )
