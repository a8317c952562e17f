"""Texts as ids of tokens: two small tokenisers to look into, and data sets of the reader's own texts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from kit import checks
from kit.data.arrays import in_three
from kit.data.dataset import Dataset, Split, Tokens

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SPECIAL = 2  # ids that are no word: 0 pads, 1 is a word that is not in the vocabulary
UNKNOWN = "[unknown]"
_PLAIN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, repr=False)
class Words:
    """A tokeniser of whole words, for languages that put spaces between them: id 0 pads, 1 is any word not listed.

    A text is taken in lower case. A run of letters, digits and underscores of any script is a word; every other sign
    that is no space, such as a comma or an emoji, is a word of its own.

    Attributes:
        words: those that have an id: the first has 2, the next 3, and so on.

    Raises:
        TypeError: words that are no list of texts.
        ValueError: a word that comes twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Keep them as a tuple, so that nothing changes later."""
        object.__setattr__(self, "words", tuple(as_texts("words", self.words)))
        if twice := [word for word, count in Counter(self.words).items() if count > 1]:
            raise ValueError(
                f"words must differ from one another; {', '.join(map(repr, twice[:5]))} come twice or more."
            )

    @classmethod
    def of(cls, texts: Iterable[str], size: int = 2000) -> Words:
        """The most frequent words of some texts; of equally frequent ones, the first by the alphabet.

        Args:
            texts: give those of the train split alone: a vocabulary is chosen, and validation and test are for later.
            size: the most ids, 3 or more, with the two that are no word.
        """
        checks.whole("size", size, SPECIAL + 1)
        counts = Counter(word for text in as_texts("texts", texts) for word in words_of(text))
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))[: size - SPECIAL]))

    @property
    def size(self) -> int:
        """How many ids there are: the words and two more."""
        return len(self.words) + SPECIAL

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: at for at, word in enumerate(self.words, SPECIAL)}

    def encode(self, texts: Iterable[str], length: int) -> Tensor:
        """Ids int64 [n, length], each in 0 .. size - 1: the first `length` words of each text, then zeros."""
        ids = self._ids
        return _padded(([ids.get(word, 1) for word in words_of(text)] for text in as_texts("texts", texts)), length)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """The words of one row of ids [length], in lower case, with a space between them; "[unknown]" for id 1."""
        names = ("", UNKNOWN, *self.words)
        return " ".join(names[at] for at in _listed(ids, self.size) if at)

    def __repr__(self) -> str:
        """One line: how many words, and the first of them."""
        return (
            f"Words({len(self.words)} words: {', '.join(map(repr, self.words[:5]))}{', ...' * (len(self.words) > 5)})"
        )


@dataclass(frozen=True)
class Bytes:
    """A tokeniser of the bytes of a text in UTF-8, for any language: id 0 pads, and a byte b has the id b + 1.

    Nothing is unknown to it and nothing is lost, but a text is four to five times as long as in `Words`.
    """

    @property
    def size(self) -> int:
        """How many ids there are: 256 bytes and the padding."""
        return 257

    def encode(self, texts: Iterable[str], length: int) -> Tensor:
        """Ids int64 [n, length], each in 0 .. 256: the first `length` bytes of each text, then zeros."""
        cut = (text[:length].encode("utf-8", "surrogatepass") for text in as_texts("texts", texts))  # a sign is a byte+
        return _padded(([byte + 1 for byte in each] for each in cut), length)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """The text of one row of ids [length]; a sign that was cut in two becomes U+FFFD."""
        return bytes(at - 1 for at in _listed(ids, self.size) if at).decode("utf-8", "replace")


def from_texts(
    texts: Iterable[str],
    labels: ArrayLike | Tensor | Sequence[str],
    *,
    tokens: Literal["words", "bytes"] | Tokens = "words",
    length: int = 32,
    vocabulary: int = 2000,
    name: str = "yours",
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    noun: str = "",
) -> Dataset:
    """A data set from the reader's own texts, as ids of tokens, in splits that are drawn as by `from_arrays`.

    Args:
        texts: [n] texts in any language, none of them empty.
        labels: [n] whole numbers as in `from_arrays`, or texts, which name the classes, in the order of the alphabet.
        tokens: "words" learns `Words` from the train split; "bytes" is `Bytes`; or any object with `size` and
            `encode(texts, length)`, such as a pretrained model's; see `Tokens`, whose `decode` is for showing.
        length: ids a text, 1 or more. Longer texts are cut there. `print` of the data set says how many fill it.
        vocabulary: of "words": the most ids, 3 or more.
        name: as in `from_arrays`, like the others that follow.
        validation: share of the texts that validate.
        test: share of the texts that test.
        seed: which stratified split to draw.
        class_names: one name a class; by default the label numbers.
        noun: what words call them, in the plural; "texts" where it is empty.

    Returns:
        Inputs are ids int64 [n, length], padded with 0 at the end; the tokeniser is its `tokens`.

    Raises:
        ValueError: no texts, empty ones, or labels and shares as in `from_arrays`.
        TypeError: texts that are none, or an argument of another type.
    """
    given = as_texts("texts", texts)
    if not given:
        raise ValueError("texts is empty; it needs at least three a class.")
    if empty := [at for at, text in enumerate(given) if not text or text.isspace()]:
        raise ValueError(f"texts must not be empty; {len(empty)} of {len(given)} are, such as texts[{empty[0]}].")
    checks.instance("name", name, str, "a text")
    checks.whole("seed", seed, 0, 2**32 - 1)
    checks.whole("length", length, 1)
    numbers, class_names = _numbered(labels, class_names)
    targets, names, parts = in_three(numbers, len(given), class_names, validation, test, seed)
    maker = _tokens(tokens, [given[row] for row in parts[0]], vocabulary)
    ids = maker.encode(given, int(length))
    checks.instance("tokens.encode(texts, length)", ids, Tensor, "a tensor [n, length]")
    if ids.shape != (wanted := (len(given), length)):
        raise ValueError(f"tokens.encode(texts, length) must be ids of shape {wanted}; got {tuple(ids.shape)}.")
    train, chosen, last = (Split(ids[torch.from_numpy(rows)], torch.from_numpy(targets[rows])) for rows in parts)
    return Dataset(name, train, chosen, last, names, noun=noun, tokens=maker)


def words_of(text: str) -> list[str]:
    """The words of a text, as `Words` takes them; what looks the same is the same (Unicode's normal form C)."""
    if text.isascii():  # no marks to look for, which is three times as fast
        return _PLAIN.findall(text.lower())
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a pair cannot be printed
    return _pattern().findall(unicodedata.normalize("NFC", paired).lower())


@cache
def _pattern() -> re.Pattern[str]:
    r"""A word, or one sign, each with its marks: \w knows no vowel signs of Hindi, and no variants of emoji."""
    marks = "".join(chr(at) for at in range(0x300, 0x1E950) if unicodedata.category(chr(at))[0] == "M")
    return re.compile(rf"\w[\w{marks}]*|[^\w\s][{marks}]*")


def as_texts(argument: str, texts: Any) -> list[str]:
    """The texts as a list; a TypeError where they are none."""
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"{argument} must be a list of texts; got {_short(texts)}.")
    given = list(texts)
    if odd := [at for at, each in enumerate(given) if not isinstance(each, str)]:
        such = f"such as {argument}[{odd[0]}], {_short(given[odd[0]])}"
        raise TypeError(f"{argument} must all be texts; {len(odd)} of {len(given)} are not, {such}.")
    return given


def _short(value: Any) -> str:
    came = repr(value)
    return came if len(came) < 80 and "\n" not in came else f"an object of type {type(value).__name__}"


def _padded(rows: Iterable[Iterable[int]], length: int) -> Tensor:
    """Rows of ids, cut and filled up with zeros. [n, length]"""
    cut = [list(islice(row, checks.whole("length", length, 1))) for row in rows]
    ids = np.zeros((len(cut), length), np.int64)
    for at, row in enumerate(cut):
        ids[at, : len(row)] = row
    return torch.from_numpy(ids)


def _listed(ids: Tensor | Sequence[int], size: int) -> list[int]:
    row = torch.as_tensor(ids)
    if row.ndim != 1 or row.is_floating_point() or (len(row) and not 0 <= int(row.min()) <= int(row.max()) < size):
        raise ValueError(f"ids must be one row of whole numbers in 0 .. {size - 1}; got {_short(ids)}.")
    return row.tolist()


def _numbered(labels: Any, class_names: Sequence[str] | None) -> tuple[Any, Sequence[str] | None]:
    """Labels that are texts as numbers with the names of the classes; others as they came."""
    listed = [] if isinstance(labels, (str, Tensor)) or not isinstance(labels, Iterable) else list(labels)
    if not listed or not all(isinstance(each, str) for each in listed):
        return labels, class_names
    if class_names is not None:
        raise ValueError(
            "class_names is for labels that are numbers; labels that are texts name the classes themselves."
        )
    names, numbers = np.unique(listed, return_inverse=True)
    return numbers, names.tolist()


def _tokens(tokens: Any, train: list[str], vocabulary: int) -> Tokens:
    if isinstance(tokens, str):
        checks.one_of("tokens", tokens, ("words", "bytes"))
        return Bytes() if tokens == "bytes" else Words.of(train, checks.whole("vocabulary", vocabulary, SPECIAL + 1))
    if not (hasattr(tokens, "encode") and hasattr(tokens, "size")):
        wanted = '"words", "bytes", or an object with `size` and `encode(texts, length)`'
        raise TypeError(f"tokens must be {wanted}; got {_short(tokens)}.")
    return tokens
