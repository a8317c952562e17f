"""Data sets: labelled arrays in three stratified splits.

Train is for fitting, validation for every choice (a ratio, a temperature, a configuration), test for the last
word, read once (`kit.measure.final_test`).

| to | call |
|---|---|
| have real images at once, 8 x 8 or 28 x 28 | `digits()`, `mnist()` |
| bring arrays of your own | `from_arrays(inputs, labels)` |
| or a file of them | `from_npz("mine.npz")` |
| or the files of MNIST, Fashion-MNIST and their kin | `from_idx(folder)` |
| have real English sentences at once, by the library they document | `docstrings()`, `docstring_texts()` |
| bring texts of your own | `from_texts(texts, labels)` |
| see how a text becomes numbers | `Words.of(texts)`, `Bytes()` |
"""

# ruff: noqa: F401  (the names that the room offers)

from kit.data.arrays import from_arrays
from kit.data.dataset import Dataset, Split, Tokens
from kit.data.idx import from_idx
from kit.data.npz import from_npz
from kit.data.sentences import docstring_texts, docstrings
from kit.data.shipped import digits, mnist
from kit.data.text import Bytes, Words, from_texts
