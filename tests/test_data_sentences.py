"""Sentences of docstrings: of small made-up libraries, and of the real ones."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from kit import data
from kit.data.sentences import LIBRARIES, cache_folder, first_sentence

Install = Callable[[str, Mapping[str, str | bytes]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put libraries of given files on the path, with a version, and keep the cache apart."""
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(name: str, files: Mapping[str, str | bytes]) -> None:
        for path, text in files.items():
            file = tmp_path / "site" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")

    return put


def module(*docstrings: str) -> str:
    """A file with a function for each docstring; it must not be run."""
    made = [f"def f{at}():\n    {docstring!r}\n" for at, docstring in enumerate(docstrings)]
    return "\n".join(["raise SystemExit('imported')", *made])


WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def numbered(what: str) -> list[str]:
    return [f"{what} the number {word} and more." for word in WORDS]


def of(texts: list[str], labels: np.ndarray, label: int) -> list[str]:
    return [text for text, own in zip(texts, labels, strict=True) if own == label]


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Add two arrays. Then rest.", "Add two arrays."),
        ("\n    Add two\n    arrays, e.g. these. And more.\n\n    Later.", "Add two arrays, e.g. these."),
        ("No full stop here\n\nNext paragraph.", "No full stop here"),
        ("Is version 1.2 there? Yes.", "Is version 1.2 there?"),
        ("Return a `~.Figure` or :class:`Axes`, *not* **kwargs.", "Return a ~.Figure or Axes, not kwargs."),
        ("Multiply 2 * 3 and a*b.", "Multiply 2 * 3 and a*b."),
        ("", ""),
    ],
)
def test_first_sentences(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring) == sentence


def test_every_kind_of_docstring_is_found_and_nothing_is_run(install: Install) -> None:
    nested = '''"""A module that says something."""
raise SystemExit("imported")
class Outer:
    """An outer class that holds more."""
    class Inner:
        """An inner class of the outer one."""
        async def late(self):
            """A method that others wait for."""
    def plain(self):
        "no docstring" + "of this one at all"
        """Not the first, so no docstring."""
if True:
    def hidden():
        """A function behind a condition, found."""
'''
    install("alpha", {"__init__.py": nested})
    install("beta", {"__init__.py": "", "deep/er/b.py": module(*numbered("Say"))})
    texts, labels, names = data.docstring_texts(("alpha", "beta"), per_class=5)
    assert names == ("alpha", "beta") and labels.tolist() == [0] * 5 + [1] * 5 and labels.dtype == np.int64
    assert set(of(texts, labels, 0)) == {
        "A module that says something.",
        "An outer class that holds more.",
        "An inner class of the outer one.",
        "A method that others wait for.",
        "A function behind a condition, found.",
    }
    assert set(of(texts, labels, 1)) < set(numbered("Say"))
    assert not {"alpha", "beta"} & sys.modules.keys()


def test_what_cannot_be_read_or_is_no_sentence_is_left_out(install: Install) -> None:
    bad = [
        "Too short.",
        "Threewordsonly aremuch tooshort.",
        "x " * 100 + "is too long.",
        "Parameters ---------- x : int",
    ]
    bad += [">>> a = these are lines of code", "bell \a is a control sign", "a half \ud800 of a pair of surrogates"]
    install(
        "alpha",
        {
            "__init__.py": module(*bad),
            "broken.py": 'def f(:\n    """A sentence in a broken file."""\n',
            "nul.py": b'"""A sentence beside a NUL byte."""\n\x00',
            "latin.py": '"""Ein Satz mit Umlaut: größer als."""'.encode("latin-1"),
            "said.py": '# coding: latin-1\n"""Ein Satz mit Umlaut: größer als das."""'.encode("latin-1"),
            "deep.py": "x = " + "(" * 5000 + ")" * 5000 + '\n"""No docstring in here, either."""',
            "tests/test_it.py": module("A sentence of a test is left out."),
            "_vendor/other.py": module("A sentence of somebody else's code."),
            "notes.txt": '"""A sentence in no Python file at all."""',
            "empty.py": "",
            "good.py": module("One good sentence is here.", "two"),
        },
    )
    install("beta", {"__init__.py": module(*numbered("Say"))})
    texts, labels, _ = data.docstring_texts(("alpha", "beta"), per_class=2)
    assert set(of(texts, labels, 0)) == {"One good sentence is here.", "Ein Satz mit Umlaut: größer als das."}
    with pytest.raises(ValueError, match="per_class must be 2 or less with alpha in it; got 3."):
        data.docstring_texts(("alpha", "beta"), per_class=3)


def test_names_are_masked_and_the_same_sentence_comes_once(install: Install) -> None:
    twins = [
        "Take 3 alpha arrays of np now.",
        "take 4 Alpha arrays of np NOW.",
        "Take 5 AlphaBeta arrays of numpy now.",
    ]
    shared = [f"This sentence {word} is in both." for word in WORDS]
    install(
        "alpha", {"__init__.py": module(*shared, *twins), "z.py": module("What alpha_x and scikit-learn do for beta2.")}
    )
    install("beta", {"__init__.py": module(*shared, *numbered("Say"))})
    texts, labels, _ = data.docstring_texts(("alpha", "beta"), per_class=2)
    first, second = of(texts, labels, 0), of(texts, labels, 1)
    assert set(first) == {"Take 3 library arrays of library now.", "What library and library do for library."}
    assert set(second) < set(numbered("Say"))
    with pytest.raises(ValueError, match="per_class must be 2 or less with alpha"):
        data.docstring_texts(("alpha", "beta"), per_class=3)


def test_more_sentences_begin_with_those_of_fewer_and_the_order_of_files_is_drawn(install: Install) -> None:
    sentences = numbered("Say")
    install(
        "alpha",
        {f"{word}.py": module(line) for word, line in zip(sorted(WORDS), sentences, strict=True)} | {"__init__.py": ""},
    )
    install("beta", {"__init__.py": module(*numbered("Do"))})
    few, many = (data.docstring_texts(("alpha", "beta"), per_class=count)[0] for count in (4, 12))
    assert few[:4] == many[:4] and sorted(many[:12]) == sorted(sentences)
    assert many[:12] != sentences, "the order of the alphabet says nothing of the rest of a library"


def test_the_cache_is_used_rebuilt_when_damaged_and_renewed_with_a_version(install: Install, tmp_path: Path) -> None:
    install("alpha", {"__init__.py": module(*numbered("Say"))})
    install("beta", {"__init__.py": module(*numbered("Do"))})
    ask = lambda: data.docstring_texts(("alpha", "beta"), per_class=12)[0]  # noqa: E731
    before = ask()
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    install("alpha", {"__init__.py": module(*numbered("Ask"))})
    assert ask() == before, "the files are read once"
    file.write_bytes(whole.replace(b"Say the number one", b"Say the number two"))
    assert sum("Ask" in text for text in ask()) == 12
    renewed = file.read_bytes()
    for damaged in (b"", b"\n", renewed[:-1], renewed[:200], b"\xff\xfe" + renewed, b"[]", renewed.replace(b"\n", b"")):
        file.write_bytes(damaged)
        assert sum("Ask" in text for text in ask()) == 12
        assert file.read_bytes() == renewed
    info = tmp_path / "site" / "alpha-1.0.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("1.0", "1.1"))
    install("beta", {"__init__.py": module(*numbered("See"))})
    os.utime(tmp_path / "site", (0, time.time()))
    assert sum("See" in text for text in ask()) == 12
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_a_place_for_the_cache_it_works_all_the_same(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("alpha", {"__init__.py": module(*numbered("Say"))})
    install("beta", {"__init__.py": module(*numbered("Do"))})
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "file" / "cache"))
    assert len(data.docstring_texts(("alpha", "beta"), per_class=12)[0]) == 24
    monkeypatch.setenv("KIT_CACHE", "~/there")
    assert cache_folder() == Path.home() / "there"
    monkeypatch.delenv("KIT_CACHE")
    assert cache_folder() == Path(data.__file__).parents[2] / "data" / "cache"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_folder() == Path.home() / ".cache" / "kit"


def test_those_who_ask_at_once_agree(install: Install, tmp_path: Path) -> None:
    install(
        "alpha", {"__init__.py": "", **{f"{word}.py": module(f"Say {word} once more, and again.") for word in WORDS}}
    )
    install("beta", {"__init__.py": module(*numbered("Do"))})
    with ThreadPoolExecutor(4) as pool:  # for the files, threads are what programs are
        said = list(pool.map(lambda _: data.docstring_texts(("alpha", "beta"), per_class=12)[0], range(12)))
    assert all(texts == said[0] for texts in said)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_refusals(install: Install) -> None:
    install("alpha", {"__init__.py": module(*numbered("Say"))})
    install("empty", {"__init__.py": ""})
    for libraries, error, sentence in (
        ("numpy", TypeError, "libraries must be a list of texts; got 'numpy'."),
        (("numpy",), ValueError, "libraries must be two or more different ones; got numpy."),
        ((), ValueError, "libraries must be two or more different ones; got none."),
        (("numpy", "numpy"), ValueError, "libraries must be two or more different ones; got numpy, numpy."),
        (
            ("alpha", "nowhere"),
            ValueError,
            "libraries must be installed packages, such as numpy, scipy, .*; 'nowhere' is",
        ),
        (("alpha", "os.path"), ValueError, "'os.path' is none."),
        (("alpha", "json"), ValueError, "'json' is none."),  # of Python itself, without a version
        (("alpha", ""), ValueError, "'' is none."),
        (("alpha", "empty"), ValueError, "per_class must be 0 or less with empty in it; got 3."),
    ):
        with pytest.raises(error, match=sentence):
            data.docstring_texts(libraries, per_class=3)
    with pytest.raises(ValueError, match="per_class must be 1 or more; got 0."):
        data.docstring_texts(per_class=0)
    with pytest.raises(TypeError, match="per_class must be a whole number; got 2.5."):
        data.docstring_texts(per_class=2.5)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def real() -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    return data.docstring_texts()


def test_real_sentences_are_balanced_distinct_and_masked(real: tuple[list[str], np.ndarray, tuple[str, ...]]) -> None:
    texts, labels, names = real
    assert names == LIBRARIES and np.bincount(labels).tolist() == [1000] * 6
    assert len({re.sub(r"\d", "0", text.lower()) for text in texts}) == len(texts) == 6000
    for name in (*LIBRARIES, "scikit", "plotly", "pyplot"):
        assert not [text for text in texts if name in text.lower()]
    for short in ("np", "pd", "plt", "mpl"):
        assert not [text for text in texts if re.search(rf"\b{short}\b", text, re.IGNORECASE)]
    assert all(20 <= len(text) <= 200 and len(text.split()) >= 4 and text.isprintable() for text in texts)
    english = Counter(word for text in texts for word in text.lower().split())
    assert {word for word, _ in english.most_common(12)} >= {"the", "of", "a", "to"}


def test_real_data_set(real: tuple[list[str], np.ndarray, tuple[str, ...]]) -> None:
    dataset = data.docstrings()
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [3000, 1800, 1200]
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.labels.bincount().unique().numel() == 1 and split.inputs.dtype == torch.int64
    assert (dataset.class_names, dataset.name, dataset.noun, dataset.input_shape) == (
        LIBRARIES,
        "docstrings",
        "texts",
        (32,),
    )
    assert dataset.tokens is not None and dataset.tokens.size == 2000
    assert data.docstrings().fingerprint == dataset.fingerprint != data.docstrings(seed=1).fingerprint
    raw = data.docstrings(tokens="bytes", length=200)
    assert raw.tokens is not None
    parts = (raw.train, raw.validation, raw.test)
    rows = [
        (raw.tokens.decode(row), int(own)) for part in parts for row, own in zip(part.inputs, part.labels, strict=True)
    ]
    cut = Counter(
        (text.encode()[:200].decode("utf-8", "replace"), int(own)) for text, own in zip(*real[:2], strict=True)
    )
    assert Counter(rows) == cut
