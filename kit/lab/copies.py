"""Notebooks to work in, with their glossary: copies, so that what a reader saves changes nothing that git keeps."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

BEFORE = "before"  # the folder, inside of that of the copies, for those that were replaced
RECORD = ".originals.json"  # file name of each copy: the digest of the original that it was made from


def bring(originals: Path, copies: Path, *, refresh: bool = False) -> list[str]:
    """Make a copy of each notebook that has none; bring those up to date that the reader never changed.

    Args:
        originals: the folder of the notebooks.
        copies: the folder of the copies; made when missing.
        refresh: begin again with every notebook that differs from its original, and keep the reader's in `before`.

    Returns:
        Lines that tell the reader what was done, or what may be.

    Raises:
        FileNotFoundError: there are no notebooks in `originals`.
    """
    notebooks = sorted(originals.glob("*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"no notebooks in {originals}: install the kit from its own folder, by 'pip install -e .'"
        )
    copies.mkdir(parents=True, exist_ok=True)
    record = _read(copies / RECORD)
    kept, outdated = [], []
    for original in [*notebooks, *originals.glob("*.md")]:
        copy, now = copies / original.name, _digest(original)
        have = _digest(copy) if copy.exists() else None
        if have == now:
            record[original.name] = now
            continue
        if have is not None and have != record.get(original.name):  # the reader's own by now
            if not refresh:
                outdated += [original.name] if now != record.get(original.name) else []
                continue
            kept.append(_put_aside(copy))
        shutil.copyfile(original, copy)
        if original in notebooks:  # as `jupyter trust`: what it shows may be shown again
            NotebookNotary().sign(nbformat.read(copy, as_version=4))
        record[original.name] = now
    (copies / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return [
        *(f"Fresh: {name}. Yours is kept in {copies.name}/{BEFORE}/{aside}." for name, aside in kept),
        *_said(outdated, copies.name),
    ]


def _said(outdated: list[str], folder: str) -> list[str]:
    if not outdated:
        return []
    return [
        f"Newer than your copy in {folder}: {', '.join(outdated)}. To take the new, and keep yours in "
        f"{folder}/{BEFORE}: make lab REFRESH=1 (or python -m kit.lab --refresh)."
    ]


def _put_aside(copy: Path) -> tuple[str, str]:
    """Move a copy to where no file is; its name before and after."""
    folder = copy.parent / BEFORE
    folder.mkdir(exist_ok=True)
    names = itertools.chain([copy.name], (f"{copy.stem}-{count}{copy.suffix}" for count in itertools.count(2)))
    free = next(name for name in names if not (folder / name).exists())
    copy.rename(folder / free)
    return copy.name, free


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(record: Path) -> dict[str, str]:
    """The record; an empty one where there is none, or where it cannot be read: then every copy is the reader's own."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
