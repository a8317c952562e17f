"""Huffman codes against all codes there are, Shannon's bounds, RFC 1951's example, and bits joined as text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kit.compress import huffman
from kit.compress.huffman import code_lengths, code_words, entropy, fixed_lengths, from_bits, to_bits

LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "even": lambda dice, k: dice.integers(1, 20, k),
    "uneven": lambda dice, k: (1e6 * dice.dirichlet(np.full(k, 0.1))).astype(int),
    "halving": lambda dice, k: 2 ** np.arange(k, dtype=np.int64)[::-1] % 2**40,
    "with gaps": lambda dice, k: dice.integers(1, 9, k) * (dice.random(k) < 0.4),
    "one": lambda dice, k: np.eye(k, dtype=int)[k // 2] * 9,
}
CASES = [(law, k, seed) for law in LAWS for k in (1, 2, 3, 7, 16, 100, 1000) for seed in range(3)]


def counted(law: str, k: int, seed: int) -> np.ndarray:
    return LAWS[law](np.random.default_rng([seed, k]), k).astype(np.int64)


def texts(lengths: np.ndarray) -> list[str]:
    """Each word as text of 0 and 1."""
    return [f"{word:0{length}b}" if length else "" for word, length in zip(code_words(lengths), lengths, strict=True)]


def joined(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    words = texts(lengths)
    bits = "".join(words[symbol] for symbol in symbols)
    bits += "0" * (-len(bits) % 8)
    return int(f"1{bits}", 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def best_of_all(counts: np.ndarray, longest: int) -> int:
    """Bits of the best prefix code: of all lengths that satisfy Kraft's inequality."""
    return min(
        int(np.dot(counts, lengths))
        for lengths in itertools.product(range(1, longest + 1), repeat=len(counts))
        if sum(0.5**length for length in lengths) <= 1
    )


def package_merge(counts: np.ndarray, longest: int) -> int:
    """Bits of the best code with words of `longest` bits at most (Larmore and Hirschberg 1990)."""
    coins: list[tuple[int, tuple[int, ...]]] = sorted((int(n), (symbol,)) for symbol, n in enumerate(counts) if n)
    row = coins
    for _ in range(longest - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[::2], row[1::2], strict=False)]
        row = sorted(coins + pairs)
    return sum(worth for worth, _ in row[: 2 * len(coins) - 2])


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_no_code_is_shorter(k: int) -> None:
    dice = np.random.default_rng(k)
    for _ in range(4):
        counts = dice.integers(1, 60, k) ** dice.integers(1, 4)
        lengths = code_lengths(counts)
        assert counts @ lengths == best_of_all(counts, k - 1)


@pytest.mark.parametrize(("law", "k", "seed"), CASES)
def test_lengths_lie_between_the_entropy_and_one_bit_more(law: str, k: int, seed: int) -> None:
    counts = counted(law, k, seed)
    lengths = code_lengths(counts)
    assert np.array_equal(lengths > 0, counts > 0)
    if np.count_nonzero(counts) > 1:
        assert sum(0.5 ** lengths[lengths > 0]) == 1  # no bit could be left out
        mean = counts @ lengths / counts.sum()
        assert entropy(counts) - 1e-9 <= mean < entropy(counts) + 1
        assert entropy(counts) == pytest.approx(stats.entropy(counts, base=2), abs=1e-9)


def test_where_all_shares_are_powers_of_a_half_the_entropy_is_reached() -> None:
    counts = [8, 4, 2, 1, 1]
    assert code_lengths(counts).tolist() == [1, 2, 3, 4, 4]
    assert entropy(counts) == np.dot(counts, [1, 2, 3, 4, 4]) / 16
    assert entropy([5]) == entropy([0, 0]) == entropy([]) == 0
    assert math.copysign(1, entropy([5])) == 1
    assert code_lengths([0, 7, 0]).tolist() == [0, 1, 0]
    assert code_lengths([0, 0]).tolist() == [0, 0]


def test_words_are_those_of_rfc_1951_and_none_begins_another() -> None:
    lengths = np.array([3, 3, 3, 3, 3, 2, 4, 4])  # the example of its section 3.2.2
    assert texts(lengths) == ["010", "011", "100", "101", "110", "00", "1110", "1111"]
    for law, k, seed in CASES:
        words = sorted(word for word in texts(code_lengths(counted(law, k, seed))) if word)
        assert not any(after.startswith(before) for before, after in itertools.pairwise(words))
    assert texts(fixed_lengths(5)) == ["000", "001", "010", "011", "100"]
    assert [fixed_lengths(k)[0] for k in (1, 2, 3, 4, 5, 256, 257)] == [1, 1, 2, 2, 3, 8, 9]


@pytest.mark.parametrize("longest", [5, 6, 9, 12, 16])
def test_words_are_no_longer_than_said_and_that_costs_little(longest: int) -> None:
    growing = [1, 1]
    while len(growing) < 30:
        growing.append(growing[-1] + growing[-2])  # the deepest tree there is
    for counts in (np.array(growing), np.cumsum(growing), np.array(growing)[::-1] * 3):
        lengths = code_lengths(counts, longest=longest)
        assert lengths.max() <= longest
        best = package_merge(counts, longest)
        assert best <= counts @ lengths <= 1.005 * best
    assert max(code_lengths([2**n for n in range(40)])) <= 16
    assert code_lengths(np.ones(16, int), longest=4).tolist() == [4] * 16


@pytest.mark.parametrize("piece", [1, 3, 1 << 15])
@pytest.mark.parametrize("law", list(LAWS))
def test_bits_are_those_of_the_joined_words_and_read_back(
    monkeypatch: pytest.MonkeyPatch, law: str, piece: int
) -> None:
    monkeypatch.setattr(huffman, "_PIECE", piece)
    for k, n, seed in itertools.product((1, 2, 5, 40, 300), (0, 1, 2, 9, 200, 3000), range(2)):
        counts = counted(law, k, seed)
        if not counts.any() or n * 2 > 400 * piece:
            continue
        symbols = np.random.default_rng(seed).choice(k, n, p=counts / counts.sum())
        for lengths in (code_lengths(counts), fixed_lengths(k)):
            data = to_bits(symbols, lengths)
            assert data == joined(symbols, lengths)
            back, used = from_bits(data + b"\xff\x00\xff", lengths, n)  # what follows belongs to somebody else
            assert (back.tolist(), used) == (symbols.tolist(), len(data))


def test_a_long_text_of_the_longest_words_reads_back() -> None:
    lengths = code_lengths([2**n for n in range(40)])
    symbols = np.random.default_rng(0).permutation(np.arange(40).repeat(2000))
    data = to_bits(symbols, lengths)
    back, used = from_bits(data, lengths, len(symbols))
    assert np.array_equal(back, symbols)
    assert used == len(data) == -(-int(lengths[symbols].sum()) // 8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: entropy([1, -1]), "counts must be one row of whole numbers, 0 or more; got"),
        (lambda: entropy(np.array([[1, 2]])), "counts must be one row"),
        (lambda: code_lengths(np.array([0.5, 0.5])), "counts must be one row"),
        (lambda: code_lengths([1, 2], longest=0), r"longest must lie in 1 \.\. 16; got 0"),
        (lambda: code_lengths([1, 2], longest=17), r"longest must lie in 1 \.\. 16; got 17"),
        (lambda: code_lengths([1, 2, 3], longest=1), "counts has 3 symbols; there are 2 words of 1 bits"),
        (lambda: code_words([1, 1, 1]), "lengths belong to no prefix code"),
        (lambda: code_words([17]), "lengths belong to no prefix code with words of 16 bits or fewer"),
        (lambda: to_bits(np.array([1]), [1, 0]), "symbols holds one without a word"),
        (lambda: to_bits(np.array([2]), [1, 1]), "symbols holds one without a word"),
        (lambda: to_bits(np.array([-1]), [1, 1]), "symbols holds one without a word"),
        (lambda: to_bits(np.array([0.5]), [1, 1]), "symbols holds one without a word"),
        (lambda: to_bits([2], [1, 1]), "symbols holds one without a word"),  # type: ignore[arg-type]
        (lambda: from_bits(b"\x00", [1, 1], -1), "n must be 0 or more; got -1"),
        (lambda: from_bits(b"\x00", [1, 1], 9), "9 symbols cannot stand in 1 bytes"),
        (lambda: from_bits(b"\x00\x00", [9, 9], 2), "the bits end"),
        (lambda: from_bits(b"\x00\x00", [9, 9], 16), "the bits end"),
        (lambda: from_bits(b"\xff", [1, 0], 1), "hold a word that is none"),
        (lambda: from_bits(b"\xff", [0, 0], 1), "hold a word that is none"),
        (lambda: from_bits(b"\xff", [2, 2, 2], 2), "hold a word that is none"),
    ],
)
def test_what_is_no_code_is_refused(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("part", [1, 5, 64])
def test_bits_that_are_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    symbols = np.random.default_rng(part).geometric(0.2, 300).clip(max=20)
    lengths = code_lengths(np.bincount(symbols, minlength=21))
    whole = to_bits(symbols, lengths)
    monkeypatch.setattr(huffman, "_PART", part)
    assert to_bits(symbols, lengths) == whole
    with pytest.raises(ValueError, match="symbols holds one without a word"):
        to_bits(np.append(symbols, 0), lengths)
