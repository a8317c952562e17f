"""Tokenisers, and data sets of the reader's own texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from kit import data, inference, models, training
from kit.data.text import words_of

SPLITS = ("train", "validation", "test")
TEXTS = [
    f"{animal} number {at}, {'barks' if animal == 'dog' else 'purrs'}!" for at in range(15) for animal in ("cat", "dog")
]
LABELS = [0, 1] * 15
SCRIPTS = [
    "Größe: Ångström",
    "हिन्दी भाषा",
    "日本語の文",
    "سلام دنیا",
    "👩‍👩‍👧 ❤️ 👍🏽",
    "naïve café",
    "a\x00b\x1b[0m",
    "tab\tnew\nline",
]


class Letters:
    """A stranger's tokeniser: one id a letter, without `decode`, and more ids than it ever uses."""

    size = 300

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        return torch.tensor([[ord(sign) % 256 + 1 for sign in text[:length].ljust(length)] for text in texts])


def test_words_are_those_of_scikit_learn() -> None:
    """Its counts, of the pattern that is right for text without marks."""
    counter = CountVectorizer(token_pattern=r"\w+|[^\w\s]", lowercase=True).fit(TEXTS)
    counts = dict(zip(counter.get_feature_names_out(), counter.transform(TEXTS).sum(0).tolist()[0], strict=True))
    assert Counter(word for text in TEXTS for word in words_of(text)) == counts
    learned = data.Words.of(TEXTS, 12)
    assert learned.words == tuple(sorted(counts, key=lambda word: (-counts[word], word))[:10])
    assert learned.size == 12
    assert data.Words.of(TEXTS[::-1], 12) == learned, "the order of the texts must not count"
    assert data.Words.of(TEXTS, 10_000).size == len(counts) + 2


def test_words_become_ids_and_back() -> None:
    tokens = data.Words(("the", "cat", ",", "barks"))
    ids = tokens.encode(["The CAT, the dog", "", "the the the the the the the"], 5)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[2, 3, 4, 2, 1], [0] * 5, [2] * 5]
    assert [tokens.decode(row) for row in ids] == ["the cat , the [unknown]", "", "the the the the the"]
    assert tokens.decode([2, 0, 3]) == "the cat"
    assert repr(tokens) == "Words(4 words: 'the', 'cat', ',', 'barks')"
    assert data.Words.of([], 5).encode(["any"], 2).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),  # composed or not
        ("❤️👍 x_1", ["❤️", "👍", "x_1"]),
        ("don't (stop)", ["don", "'", "t", "(", "stop", ")"]),
        ("日本語", ["日本語"]),
        ("\ud83d\ude00 \ud83d", ["😀", "\ufffd"]),  # a pair of surrogates, and half of one
        ("a\x00b", ["a", "\x00", "b"]),
        (" \t\n", []),
    ],
)
def test_words_of_every_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words
    assert "".join(words_of(text)).encode().decode() == "".join(words)  # can be written anywhere


@pytest.mark.parametrize("text", SCRIPTS)
def test_bytes_lose_nothing(text: str) -> None:
    raw = text.encode()
    ids = data.Bytes().encode([text, ""], len(raw) + 3)
    assert ids.tolist() == [[byte + 1 for byte in raw] + [0] * 3, [0] * (len(raw) + 3)]
    assert data.Bytes().decode(ids[0]) == text
    assert data.Bytes().encode([text], 4).tolist()[0] == [byte + 1 for byte in raw[:4]]
    assert data.Bytes().size == 257


def test_bytes_that_make_no_sign_are_said() -> None:
    assert data.Bytes().decode(data.Bytes().encode(["é"], 1)[0]) == "\ufffd"
    assert set(data.Bytes().decode(data.Bytes().encode(["\ud800"], 9)[0])) == {"\ufffd"}


@pytest.mark.parametrize("tokens", ["words", "bytes"])
def test_data_sets_of_texts_are_the_texts(tokens: Any) -> None:
    dataset = data.from_texts(TEXTS, LABELS, tokens=tokens, length=40, name="animals", class_names=["cat", "dog"])
    assert dataset.tokens is not None
    parts = [getattr(dataset, name) for name in SPLITS]
    assert [split.labels.bincount().tolist() for split in parts] == [[9, 9], [3, 3], [3, 3]]
    assert {split.inputs.dtype for split in parts} == {torch.int64}
    got = [
        (dataset.tokens.decode(row), int(label))
        for split in parts
        for row, label in zip(split.inputs, split.labels, strict=True)
    ]
    assert all(text.startswith(dataset.class_names[label]) for text, label in got)
    if tokens == "bytes":
        assert Counter(text for text, _ in got) == Counter(TEXTS)
    else:  # what only validation or test have is unknown
        assert isinstance(dataset.tokens, data.Words)
        train = {word for text in TEXTS for word in words_of(text) if word in dataset.tokens.words}
        assert {word for row in dataset.train.inputs for word in dataset.tokens.decode(row).split()} == train
        assert "[unknown]" in dataset.tokens.decode(dataset.test.inputs.flatten())
        assert not (dataset.train.inputs == 1).any()
    assert (dataset.noun, dataset.scale, dataset.name, dataset.input_shape) == ("texts", 1, "animals", (40,))


def test_the_split_is_that_of_arrays_and_the_seed_decides() -> None:
    numbers = data.from_arrays(np.arange(30.0)[:, None], LABELS, seed=3)
    texts = data.from_texts([f"x{at}" for at in range(30)], LABELS, tokens="bytes", length=3, seed=3)
    for name in SPLITS:
        rows = getattr(numbers, name).inputs[:, 0].int().tolist()
        assert [texts.tokens.decode(row) for row in getattr(texts, name).inputs] == [f"x{at}" for at in rows]  # type: ignore[union-attr]
    again, other = (data.from_texts(TEXTS, LABELS, seed=seed).fingerprint for seed in (0, 1))
    assert data.from_texts(TEXTS, LABELS).fingerprint == again != other


def test_texts_and_labels_of_every_kind_are_the_same_samples() -> None:
    names = np.array(["cat", "dog"])[LABELS]
    expected = data.from_texts(TEXTS, LABELS, class_names=["cat", "dog"])
    for texts, labels in (
        (np.array(TEXTS), names),
        (pd.Series(TEXTS, index=range(30, 0, -1)), pd.Series(names)),
        (iter(TEXTS), names.tolist()),
        (tuple(TEXTS), names.astype(object)),
    ):
        dataset = data.from_texts(texts, labels)
        assert (dataset.class_names, dataset.fingerprint) == (("cat", "dog"), expected.fingerprint)
    assert data.from_texts(TEXTS, torch.tensor(LABELS)).fingerprint == expected.fingerprint
    assert data.from_texts(TEXTS, LABELS).class_names == ("0", "1")


def test_what_is_cut_is_said_and_parts_keep_the_tokens() -> None:
    dataset = data.from_texts(["a b c", "a b", "a"] * 20, [0, 1, 2] * 20, length=2, noun="reviews")
    assert repr(dataset) == (
        "Dataset(yours: 2 ids of 5, 3 classes, 36 train, 12 validation, 12 test, 67 % of them full or cut)"
    )
    part = dataset.part(9)
    assert part.tokens is dataset.tokens and part.noun == "reviews" and len(part.train) == 9
    assert part.fingerprint != dataset.fingerprint


def test_a_stranger_s_tokeniser() -> None:
    stranger: Any = Letters()
    dataset = data.from_texts(TEXTS, LABELS, tokens=stranger, length=7)
    assert dataset.train.inputs.shape == (18, 7)
    assert dataset.tokens is not None and dataset.tokens.size == 300


def test_a_network_learns_them() -> None:
    dataset = data.from_texts(TEXTS * 4, LABELS * 4)
    assert dataset.tokens is not None
    net = models.BagOfWords(dataset.tokens.size, 2, seed=0)
    training.fit(net, dataset, epochs=10, lr=0.05)
    guesses = inference.predict(net, dataset.test.inputs).argmax(1)
    assert guesses.equal(dataset.test.labels)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"texts": []}, ValueError, "texts is empty; it needs at least three a class."),
        ({"texts": "cat"}, TypeError, "texts must be a list of texts; got 'cat'."),
        ({"texts": 3}, TypeError, "texts must be a list of texts; got 3."),
        ({"texts": {"cat": 1}}, TypeError, "texts must be a list of texts; got {'cat': 1}."),
        ({"texts": ["cat", b"dog", None]}, TypeError, "all be texts; 2 of 3 are not, such as texts[1], b'dog'."),
        ({"texts": [*TEXTS[:28], "", " \n"]}, ValueError, "texts must not be empty; 2 of 30 are, such as texts[28]."),
        ({"labels": LABELS[:-1]}, ValueError, "labels must have shape [30], one for each input; got shape (29,)."),
        ({"labels": ["cat", "dog"]}, ValueError, "labels must have shape [30], one for each input; got shape (2,)."),
        ({"labels": [0] * 30}, ValueError, "labels must be of two classes or more; all 30 are 0."),
        ({"labels": ["cat"] * 30}, ValueError, "labels must be of two classes or more; all 30 are 0."),
        ({"labels": ["a", "b"] * 15, "class_names": ["b", "a"]}, ValueError, "class_names is for labels that are num"),
        ({"labels": [0, None] * 15}, TypeError, "labels must be whole numbers"),
        ({"tokens": "letters"}, ValueError, "tokens must be one of words, bytes; got 'letters'."),
        ({"tokens": 3}, TypeError, "or an object with `size` and `encode(texts, length)`; got 3."),
        ({"length": 0}, ValueError, "length must be 1 or more; got 0."),
        ({"length": 2.5}, TypeError, "length must be a whole number; got 2.5."),
        ({"vocabulary": 2}, ValueError, "vocabulary must be 3 or more; got 2."),
        ({"seed": -1}, ValueError, "seed must lie in 0 .. 4294967295; got -1."),
        ({"name": 3}, TypeError, "name must be a text; got 3."),
        ({"noun": 3}, TypeError, "noun must be a text; got 3."),
        ({"validation": 0.8}, ValueError, "validation + test must stay below 1"),
    ],
    ids=str,
)  # fmt: skip
def test_refusals(change: dict[str, Any], error: type[Exception], sentence: str) -> None:
    settings: dict[str, Any] = {"texts": TEXTS, "labels": LABELS} | change
    with pytest.raises(error) as said:
        data.from_texts(**settings)
    assert sentence in str(said.value) and "\n" not in str(said.value)


class Wrong(Letters):
    """Ids as they are handed in."""

    def __init__(self, ids: Any) -> None:
        self.ids = ids

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        return self.ids


@pytest.mark.parametrize(
    ("ids", "error", "sentence"),
    [
        ([[1] * 4] * 30, TypeError, "tokens.encode(texts, length) must be a tensor [n, length]; got"),
        (
            torch.ones(30, 5).long(),
            ValueError,
            "tokens.encode(texts, length) must be ids of shape (30, 4); got (30, 5).",
        ),
        (torch.ones(30, 4), ValueError, "train must hold int64 inputs; got torch.float32."),
        (
            torch.full((30, 4), 300),
            ValueError,
            "train inputs must be ids in 0 .. 299, those of tokens; got ids from 300",
        ),
        (torch.full((30, 4), -1), ValueError, "train inputs must be ids in 0 .. 299, those of tokens; got ids from -1"),
    ],
    ids=["list", "shape", "floats", "above", "below"],
)
def test_tokenisers_that_answer_otherwise_are_refused(ids: Any, error: type[Exception], sentence: str) -> None:
    wrong: Any = Wrong(ids)
    with pytest.raises(error) as said:
        data.from_texts(TEXTS, LABELS, tokens=wrong, length=4)
    assert sentence in str(said.value)


def test_tokenisers_refuse() -> None:
    with pytest.raises(ValueError, match="words must differ from one another; 'a' come twice or more."):
        data.Words(("a", "b", "a"))
    with pytest.raises(TypeError, match="words must be a list of texts; got 'abc'."):
        data.Words("abc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be 3 or more; got 2."):
        data.Words.of(TEXTS, 2)
    for tokens in (data.Words(("a", "b")), data.Bytes()):
        with pytest.raises(TypeError, match="texts must be a list of texts; got 'a b'."):
            tokens.encode("a b", 3)
        with pytest.raises(ValueError, match="length must be 1 or more; got 0."):
            tokens.encode(["a b"], 0)
        for ids in ([tokens.size], [-1], torch.zeros(2, 2).long(), torch.zeros(2)):
            with pytest.raises(
                ValueError, match=f"ids must be one row of whole numbers in 0 .. {tokens.size - 1}; got"
            ):
                tokens.decode(ids)
