"""Huffman codes: frequent symbols get few bits, and no code word begins another, so that the bits need no commas.

A symbol is a whole number 0 .. k - 1; a code is known by the lengths of its k words alone, since the words follow from
them by a rule (canonical codes, RFC 1951, section 3.2.2). A fixed width is the code whose words are all as long.

Source: D. A. Huffman (1952), A method for the construction of minimum-redundancy codes.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kit import checks

Whole = NDArray[np.int64]
LONGEST: Final = 16  # bits: a word and the 7 bits before it in its byte then fit into 24 bits
_PART: Final = 1 << 16  # symbols encoded at a time, so that a large model is not in memory several times
_PIECE: Final = 1 << 15  # bytes decoded at a time, so that the tables of a piece stay in the processor's cache


def entropy(counts: Sequence[int] | NDArray[Any]) -> float:
    """Return the bits that a symbol needs at least, on average: the sum of -p log2 p (Shannon 1948).

    Args:
        counts: [k], how often each symbol occurs, 0 or more.

    Raises:
        ValueError: a negative count, or more than one dimension.
    """
    found = _counts(counts)
    shares = found[found > 0] / max(found.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0.0


def code_lengths(counts: Sequence[int] | NDArray[Any], *, longest: int = LONGEST) -> Whole:
    """Return the bits of each symbol's word, [k]; 0 for a symbol that does not occur, 1 where only one does.

    The two rarest trees become one, until one is left; a symbol's word has a bit for each joining that it took part
    in. No code of whole bits makes a shorter text. Where a word would have more than `longest` bits, all counts are
    halved, as bzip2 does: that costs next to nothing, since such a symbol is rare.

    Args:
        counts: [k], how often each symbol occurs, 0 or more.
        longest: most bits of a word, 1 .. 16.

    Raises:
        ValueError: a negative count, more than one dimension, or more symbols than words of `longest` bits.
    """
    found = _counts(counts)
    lengths = np.zeros(len(found), dtype=np.int64)
    alive = np.flatnonzero(found)
    checks.whole("longest", longest, 1, LONGEST)
    if len(alive) > 1 << longest:
        raise ValueError(f"counts has {len(alive):,} symbols; there are {1 << longest:,} words of {longest} bits.")
    if len(alive) == 1:
        lengths[alive] = 1
        return lengths
    while True:
        heap = [(int(found[symbol]), int(symbol), [int(symbol)]) for symbol in alive]  # count, tie-break, tree's leaves
        heapq.heapify(heap)
        while len(heap) > 1:
            (one, first, leaves), (other, _, more) = heapq.heappop(heap), heapq.heappop(heap)
            leaves = leaves + more
            lengths[leaves] += 1
            heapq.heappush(heap, (one + other, first, leaves))
        if not len(alive) or lengths.max() <= longest:
            return lengths
        found, lengths = (found + 1) // 2, np.zeros_like(lengths)


def fixed_lengths(k: int) -> Whole:
    """Return the lengths of `k` words that are all as long: ceil(log2 k) bits each, 1 at least."""
    return np.full(k, max(1, (k - 1).bit_length()), dtype=np.int64)


def code_words(lengths: Sequence[int] | NDArray[Any]) -> Whole:
    """Return the canonical word of each symbol as a number, [k]: shorter words first, equal lengths by symbol.

    Raises:
        ValueError: no prefix code has these lengths (Kraft's inequality), or a word is longer than 16 bits.
    """
    found = _checked(lengths)
    words = np.zeros(len(found), dtype=np.int64)
    order = np.lexsort((np.arange(len(found)), found))
    order = order[found[order] > 0]
    # As fractions of all words of 16 bits: each word begins where the one before it ends.
    spans = 1 << (LONGEST - found[order])
    words[order] = (np.cumsum(spans) - spans) >> (LONGEST - found[order])
    return words


def to_bits(symbols: NDArray[Any], lengths: Sequence[int] | NDArray[Any]) -> bytes:
    """Return the words of `symbols` [n], one after the other, the first bit highest; 0 to 7 zero bits fill the end.

    Raises:
        ValueError: as for `code_words`; or a symbol that has no word.
    """
    return bytes(in_bits(symbols, lengths))


def in_bits(symbols: NDArray[Any], lengths: Sequence[int] | NDArray[Any]) -> memoryview:
    """As `to_bits`, without a copy."""
    words, found, symbols = code_words(lengths), _checked(lengths), np.asarray(symbols)
    if not len(symbols):
        return memoryview(b"")
    whole = symbols.dtype.kind in "iu" and symbols.min() >= 0 and symbols.max() < len(found)
    parts = [symbols[start : start + _PART] for start in range(0, len(symbols), _PART)]
    if not whole or not all(found[part].all() for part in parts):
        raise ValueError("symbols holds one without a word: its count was 0, or it is no whole number of 0 or more.")
    length = sum(int(found[part].sum()) for part in parts)  # bits
    numbers, place = np.zeros(length // 32 + 1, dtype=np.uint32), 0
    for part in parts:
        some, bits = _in_a_row(words[part], found[part], place % 32)
        numbers[place // 32 : place // 32 + len(some)] |= some
        place += bits
    numbers = numbers if sys.byteorder == "big" else numbers.byteswap(inplace=True)
    return numbers.data.cast("B")[: (length + 7) // 8]


def _in_a_row(words: Whole, sizes: Whole, offset: int) -> tuple[NDArray[Any], int]:
    """Words [n] one after the other, the first at bit `offset`, as numbers of 32 bits; and their length in bits."""
    ends = np.cumsum(sizes) + offset
    starts = ends - sizes
    # Each word is put into 64 bits that begin at a multiple of 32, and then added to one or two numbers of 32 bits.
    wide = words.astype(np.uint64) << (64 - (starts & 31) - sizes).astype(np.uint64)
    at = starts >> 5
    first = np.flatnonzero(np.diff(at, prepend=-1))  # no number is skipped: words are shorter than 32 bits
    numbers = np.zeros(int(at[-1]) + 2, dtype=np.uint64)
    numbers[:-1] |= np.bitwise_or.reduceat(wide >> np.uint64(32), first)
    numbers[1:] |= np.bitwise_or.reduceat(wide & np.uint64(0xFFFFFFFF), first)
    return numbers[: -(-int(ends[-1]) // 32)].astype(np.uint32), int(ends[-1]) - offset


def from_bits(data: bytes | memoryview, lengths: Sequence[int] | NDArray[Any], n: int) -> tuple[Whole, int]:
    """Return the first `n` symbols [n] of what `to_bits` made, and how many bytes they take.

    Memory: a few bytes a symbol, and `n` is at most 8 a byte of `data`.

    Raises:
        ValueError: as for `code_words`; or the bits end before, or hold a word that is none.
    """
    every, place, end = np.zeros(0, dtype=np.int64), 0, 0
    for symbols, used in pieces(data, lengths, n):
        every = every if place else np.empty(n, symbols.dtype)  # what does not fit is found before
        every[place : place + len(symbols)] = symbols
        place, end = place + len(symbols), used
    return every, end


def pieces(
    data: bytes | memoryview, lengths: Sequence[int] | NDArray[Any], n: int
) -> Iterator[tuple[NDArray[Any], int]]:
    """As `from_bits`, piece by piece, one at least: symbols, and how many bytes all up to them take.

    For every bit of a piece at once: which word would begin here, and where does the next one begin? Then from word to
    word, a step a symbol.
    """
    found = _checked(lengths)
    k = len(found)
    checks.whole("n", n)
    if n > 8 * len(data):
        raise ValueError(f"{n} symbols cannot stand in {len(data)} bytes.")
    longest = max(int(found.max(initial=0)), 1)
    order = np.lexsort((np.arange(k), found))
    order = order[found[order] > 0]
    spans = 1 << (longest - found[order])
    rest = (1 << longest) - int(spans.sum())  # numbers of `longest` bits with which no word begins
    symbol_of = np.concatenate([np.repeat(order, spans), np.full(rest, k)])  # [2^longest]
    symbol_of = symbol_of.astype(np.min_scalar_type(k))
    step_of = np.concatenate([np.repeat(found[order], spans), np.ones(rest, dtype=np.int64)]).astype(np.uint8)
    if n == 0:
        yield symbol_of[:0], 0
    count, place = 0, 0  # symbols found, and the bit where the next one begins
    shifts = (24 - longest - np.arange(8)).astype(np.uint32)
    while count < n:
        start = place // 8
        size = min(_PIECE, len(data) - start, (n - count) * longest // 8 + 2)
        if size <= 0:
            raise ValueError(f"the bits end after {count} of {n} symbols.")
        raw = np.zeros(size + 2, dtype=np.uint32)
        there = np.frombuffer(data[start : start + size + 2], dtype=np.uint8)
        raw[: len(there)] = there
        three = raw[:-2] << 16 | raw[1:-1] << 8 | raw[2:]  # [size], each byte with the two after it
        windows = ((three[:, None] >> shifts) & np.uint32((1 << longest) - 1)).reshape(-1)  # [8 size], one a bit
        steps = step_of[windows].tobytes()
        places, at, end = [], place - 8 * start, 8 * size
        while at < end:
            places.append(at)
            at += steps[at]
        if len(places) > n - count:
            at = places[n - count]
        symbols = symbol_of[windows[np.array(places[: n - count], dtype=np.int64)]]
        if rest and symbols.max() == k:
            raise ValueError("the bits hold a word that is none.")
        count += len(symbols)
        place = 8 * start + at
        if place > 8 * len(data):
            raise ValueError(f"the bits end before the last of {n} symbols.")
        yield symbols, (place + 7) // 8


def _counts(counts: Any) -> Whole:
    found = np.asarray(counts)
    if found.ndim != 1 or (found.size and (found.dtype.kind not in "iu" or found.min() < 0)):
        raise ValueError(f"counts must be one row of whole numbers, 0 or more; got {counts!r}.")
    return found.astype(np.int64)


def _checked(lengths: Any) -> Whole:
    found = _counts(lengths)
    if found.max(initial=0) > LONGEST or (0.5 ** found[found > 0]).sum() > 1:
        raise ValueError(f"lengths belong to no prefix code with words of {LONGEST} bits or fewer.")
    return found
