"""How a network's weights are stored: bits, scales, zeros; and the bytes that this takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from kit import checks

Pattern = Literal["dense", "anywhere", "2:4"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
GAP = 256  # an index of one byte reaches so far
INDEX_BITS, PLACE_BITS = 8, 2


@dataclass(frozen=True)
class Storage:
    """How each weight of the layers' matrices is stored. Embeddings and the head take the bits, and no zeros.

    Attributes:
        bits: of a weight that is kept, above 0 and up to 64; a mean such as 3.7 is allowed.
        group: weights that share one scale of 16 bits; 0 for no scales. Groups as with GPTQ (Frantar et al. 2023,
            arXiv:2210.17323, section 5) and AWQ (Lin et al. 2024, arXiv:2306.00978); zero points are left out.
        pattern: where zeros are. "anywhere": each kept weight has an index of a byte, the gap to the one before, and
            a gap too long for it a filler (Han et al. 2016, arXiv:1510.00149, section 2). "2:4": two of four weights
            are kept, each with 2 bits that say where (Mishra et al. 2021, arXiv:2104.08378). ValueError for others.
        sparsity: share of zeros, [0, 1). Of "dense" it is 0, of "2:4" one half; else a ValueError.
    """

    bits: float = 16.0
    group: int = 0
    pattern: Pattern = "dense"
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no way to store a weight."""
        if checks.number("bits", self.bits, above=0) > 64:
            raise ValueError(f"bits must be 64 or less; got {self.bits!r}.")
        checks.whole("group", self.group)
        checks.one_of("pattern", self.pattern, PATTERNS)
        checks.share("sparsity", self.sparsity, one=False)
        wanted = {"dense": 0.0, "2:4": 0.5}.get(self.pattern, self.sparsity)
        if self.sparsity != wanted:
            raise ValueError(f"sparsity of the pattern {self.pattern} must be {wanted:g}; got {self.sparsity!r}.")

    @property
    def arithmetic(self) -> int:
        """Bits of the numbers that are multiplied: fewer than 8 bits are made 16 first, as in GPTQ."""
        return 32 if self.bits > 16 else 16 if self.bits > 8 or self.bits < 8 else 8

    @property
    def activations(self) -> int:
        """Bits of what flows between layers, and of the key-value cache: those of 8-bit layers stay in 16."""
        return 32 if self.bits > 16 else 16

    @property
    def dense(self) -> Storage:
        """The same bits and scales without zeros."""
        return replace(self, pattern="dense", sparsity=0.0)

    def in_memory(self, *, sparse: bool) -> Storage:
        """What it is where it is computed with: zeros are stored like any number, but for 2:4 on `sparse` hardware."""
        return self if sparse and self.pattern == "2:4" else self.dense

    def bytes(self, weights: float) -> float:
        """Bytes of so many weights; zeros `anywhere` in their sparse form only where that is smaller."""
        scales = 16 / self.group if self.group else 0.0
        bits = self.bits + scales
        if self.pattern == "2:4":
            bits = (self.bits + PLACE_BITS) / 2 + scales
        elif self.pattern == "anywhere":
            beyond = self.sparsity**GAP  # the chance that a gap is longer than its index
            stored = (1 - self.sparsity) / (1 - beyond)  # kept weights and fillers
            bits = min(bits, stored * (self.bits + INDEX_BITS) + scales)
        return weights * bits / 8


FLOAT16 = Storage()
