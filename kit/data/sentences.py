"""Real English sentences without a download: the first sentences of the docstrings of installed libraries.

They are read from the files as they are, and no library is imported. What was read is cached in a file; see
`cache_folder`. The data card in `data/README.md` says what is in them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import secrets
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import numpy as np

from kit import checks
from kit.data.dataset import Dataset, Tokens
from kit.data.text import as_texts, from_texts

LIBRARIES = ("numpy", "scipy", "sklearn", "pandas", "matplotlib", "torch")
RECIPE = 1  # of what is read, cut and masked: another number, and every cache is made anew
MASK = "library"
# What gives a class away whatever the sentence says: names, and the short names that they are imported by. Words for
# what a library is about, such as tensor, DataFrame or axes, stay: to read those is the task.
NAMES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "sklearn",
    "scikit",
    "pandas",
    "matplotlib",
    "pyplot",
    "pylab",
    "torch",
    "plotly",
)
SHORT = ("np", "sp", "pd", "mpl", "plt", "px")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # what a package is installed by, where that has another name
# Folders with other people's code, which several libraries carry along, and with tests, which few libraries install.
LEFT_OUT = frozenset({"tests", "_vendor", "externals", "array_api_compat", "vendored_templates"})
SHORTEST, LONGEST, FEWEST = 20, 200, 4  # signs, signs and words of a sentence

_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!vs)(?<!etc)[.!?](?=\s|$)")
_MARKUP = re.compile(r":[\w:]+:(?=`)|`|(?<!\w)\*+(?=\w)|(?<=\w)\*+(?!\w)")  # roles, quotes and emphasis
_CODE = re.compile(r"--|==|::|>>>|\\")


def docstrings(
    libraries: Sequence[str] = LIBRARIES,
    *,
    per_class: int = 1000,
    tokens: Literal["words", "bytes"] | Tokens = "words",
    length: int = 32,
    vocabulary: int = 2000,
    seed: int = 0,
) -> Dataset:
    """Sentences of docstrings; the class is the library that a sentence comes from. No download.

    Half of them train, 30 % validate, 20 % test, all classes alike. `seed` says which stratified split to draw; the
    sentences are the same for every seed. The first call reads the libraries' files, which takes some seconds.

    Args:
        libraries: as in `docstring_texts`, like `per_class` and the errors.
        per_class: sentences of each library.
        tokens: as in `from_texts`, like `length` and `vocabulary`; 32 words are enough for 98 % of the sentences.
        length: ids a sentence.
        vocabulary: of "words": the most ids.
        seed: of the split.
    """
    texts, labels, names = docstring_texts(libraries, per_class=per_class)
    return from_texts(
        texts,
        labels,
        tokens=tokens,
        length=length,
        vocabulary=vocabulary,
        name="docstrings",
        validation=0.3,
        test=0.2,
        seed=seed,
        class_names=names,
    )


def docstring_texts(
    libraries: Sequence[str] = LIBRARIES, *, per_class: int = 1000
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """The sentences as texts, for those who bring a tokeniser: texts, labels int64 [n], and the names of the classes.

    Each is the first sentence of a docstring, of 20 to 200 signs and four words or more, without its markup. Names of
    libraries become "library". No two sentences are the same but for digits and capitals, in one class or in two.
    Files are read in an order that is drawn once for all, until there are enough; so the same versions of the libraries
    and of Python give the same sentences everywhere.

    Args:
        libraries: two or more installed packages, by the names that they are imported by.
        per_class: sentences of each library, 1 or more.

    Raises:
        ValueError: a library that is not installed or comes twice, only one, or one that has not as many sentences.
        TypeError: libraries that are no list of texts, or `per_class` that is no whole number.
    """
    names = tuple(as_texts("libraries", libraries))
    checks.whole("per_class", per_class, 1)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"libraries must be two or more different ones; got {', '.join(names) or 'none'}.")
    folders = {name: _folder(name) for name in names}
    versions = [metadata.version(DISTRIBUTIONS.get(name, name)) for name in names]
    recipe = json.dumps([RECIPE, *sys.version_info[:2], names, versions, int(per_class)])
    path = cache_folder() / f"docstrings-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.json"
    texts = _read(path)
    if texts is None:
        texts = _gather(folders, int(per_class))
        _write(path, texts)
    return texts, np.repeat(np.arange(len(names)), per_class), names


def cache_folder() -> Path:
    """Where sentences are kept: the environment variable KIT_CACHE, else data/cache beside `kit`, else ~/.cache/kit.

    Nothing but time is lost with what is in it. Where it cannot be written, sentences are read anew each time.
    """
    if named := os.environ.get("KIT_CACHE"):
        return Path(named).expanduser()
    beside = Path(__file__).resolve().parents[2] / "data"
    return beside / "cache" if os.access(beside, os.W_OK) else Path("~/.cache/kit").expanduser()


def _folder(name: str) -> Path:
    """Where a package is installed, found without importing it."""
    try:
        spec = util.find_spec(name) if name.isidentifier() else None  # of a dotted name it would import the front
        metadata.version(DISTRIBUTIONS.get(name, name))
    except (ValueError, ImportError):  # a module without a spec; none of this name
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"libraries must be installed packages, such as {', '.join(LIBRARIES)}; {name!r} is none.")
    return Path(next(iter(spec.submodule_search_locations)))


def _gather(folders: dict[str, Path], per_class: int) -> list[str]:
    """As many sentences of each library, one library after the other."""
    mask = _mask(folders)
    sources = {name: _sentences(folder, mask) for name, folder in folders.items()}
    found: dict[str, dict[str, str]] = {name: {} for name in folders}  # by what makes two of them the same
    wanted = dict.fromkeys(folders, per_class)
    while True:
        for name, source in sources.items():
            while len(found[name]) < wanted[name] and (sentence := next(source, None)) is not None:
                found[name].setdefault(re.sub(r"\d", "0", sentence.lower()), sentence)
        counts = Counter(key for sentences in found.values() for key in sentences)
        kept = {name: [text for key, text in each.items() if counts[key] == 1] for name, each in found.items()}
        for name, sentences in kept.items():
            if len(sentences) < per_class and len(found[name]) < wanted[name]:
                raise ValueError(f"per_class must be {len(sentences)} or less with {name} in it; got {per_class}.")
            wanted[name] += max(0, per_class - len(sentences))
        if all(len(sentences) >= per_class for sentences in kept.values()):
            return [text for sentences in kept.values() for text in sentences[:per_class]]


def _mask(libraries: dict[str, Path]) -> re.Pattern[str]:
    names = "|".join(sorted({*NAMES, *libraries}, key=len, reverse=True))
    return re.compile(rf"\w*(?:{names})\w*|\b(?:{'|'.join(SHORT)})\b", re.IGNORECASE)


def _sentences(folder: Path, mask: re.Pattern[str]) -> Iterator[str]:
    """The sentences of a library, file after file, in an order that depends on nothing but the files' names."""
    files = {path.relative_to(folder): path for path in folder.rglob("*.py")}
    drawn = sorted(files, key=lambda at: hashlib.sha256(at.as_posix().encode()).digest())
    for at in drawn:
        if LEFT_OUT.isdisjoint(at.parts):
            for docstring in _docstrings(files[at]):
                sentence = mask.sub(MASK, first_sentence(docstring))
                fits = SHORTEST <= len(sentence) <= LONGEST and len(sentence.split()) >= FEWEST
                if fits and sentence.isprintable() and not _CODE.search(sentence):
                    yield sentence


def _docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a file's module, classes and functions; none where Python cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's code
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node, clean=False) or ""


def first_sentence(docstring: str) -> str:
    """The first sentence of its first paragraph, in one line and without markup."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    line = _MARKUP.sub("", " ".join(paragraph.split()))
    end = _END.search(line)
    return line[: end.end()] if end else line


def _read(path: Path) -> list[str] | None:
    """What `_write` wrote; None where there is nothing, or where anything of it is damaged."""
    try:
        digest, body = path.read_text("ascii").split("\n", 1)
    except (OSError, ValueError):
        return None
    return json.loads(body) if hashlib.sha256(body.encode()).hexdigest() == digest else None


def _write(path: Path, texts: list[str]) -> None:
    """All or nothing, so that another program that reads or writes the same finds a whole file."""
    body = json.dumps(texts)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}", "ascii", newline="\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError:  # read-only, full, no folder: the next call reads the libraries again
        pass
