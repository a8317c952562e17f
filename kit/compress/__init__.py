"""Network compression: fewer layers, fewer numbers, fewer bits, fewer bytes; and one network of several.

Each function takes a model and returns a new one, with plain weights; the given one is not changed.

| to | call |
|---|---|
| have one layer where nothing non-linear stands between two | `fold(model, digits)` |
| see what int8 is worth on this machine | `int8(model)` |
| split layers into two thin ones | `low_rank(model, budget=0.3)` |
| have such a model back from its file | `load_low_rank(model, path)` |
| give the weights of a layer a few values | `share(model, clusters=32)`, `codebook(tensor)` |
| train these values on | `fine_tune(model, digits, epochs=3)` |
| put weights on a grid of a few bits | `quantise(model, bits=4)`, `grid(tensor)` |
| train with that rounding | `fine_tune_quantised(model, digits, bits=4, epochs=3)` |
| see what each layer lost, in dB | `sqnr(model, smaller)` |
| have its smallest bytes, and where they are | `encoded = encode(model)`, `encoded.data`, `encoded.ledger` |
| have its tensors again | `decode(data)` |
| do so with a file | `write(model, path)`, `read(path)`, `load_into(model, path)` |
| know what zlib, zstd and the entropy say | `rivals(model)` |
| measure it with that file | `profile(model, digits.validation)` |
| have a Huffman code, and its bound | `code_lengths(counts)`, `code_words(lengths)`, `entropy(counts)` |
| write with it, and read | `data = to_bits(symbols, lengths)`, `from_bits(data, lengths, n)` |
| have one network with the mean weights of several | `average([a, b])`; a greedy choice: `soup(models, digits)` |
| collect networks along a run, to average them | `training.fit(..., callbacks=[run := Averaging(first=11)])` |
| have several answer as one, or teach one | `ensemble([a, b])`; `distill.fit(student, ensemble([a, b]), ...)` |
| match the units of one network with those of another | `align(b, to=a, dataset=digits)` |
| measure the line between two networks, and its barrier | `path(a, b, digits)` |
| do all that step by step, and see what each step saves | `pipeline(model, digits, Recipe(ratio=0.9, bits=5))` |
| move one of its parts, and do no step twice | `Compression(model, digits)` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.compress.align import Aligned, align
from kit.compress.encode import (
    Encoded,
    Ledger,
    decode,
    encode,
    file_bytes,
    load_into,
    profile,
    read,
    rivals,
    write,
)
from kit.compress.fold import Folded, fold
from kit.compress.huffman import code_lengths, code_words, entropy, from_bits, to_bits
from kit.compress.int8 import int8
from kit.compress.line import Path, path
from kit.compress.low_rank import Factored, LowRank, load_low_rank, low_rank, split
from kit.compress.merge import Averaging, Ensemble, Soup, average, ensemble, soup
from kit.compress.pipeline import KINDS, MOST_BITS, NOTHING, Compressed, Compression, Kind, Recipe, Step, pipeline
from kit.compress.quantise import PERS, Grid, Levels, Per, fine_tune_quantised, grid, levels_for, quantise, sqnr
from kit.compress.share import STARTS, Start, codebook, fine_tune, share
