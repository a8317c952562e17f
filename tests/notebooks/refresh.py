"""Run the notebooks and store their outputs again, cleaned of everything that changes from run to run.

    python -m tests.notebooks.refresh            all notebooks, in reading order
    python -m tests.notebooks.refresh 01         those whose name starts so
    python -m tests.notebooks.refresh --check    run nothing; say whether the stored files are clean

Explorers and tables get a still picture, taken in Chromium, for viewers that have no kernel. A notebook in which a cell
fails is not written, and the exit code is 1; without a Chromium none is.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from playwright.sync_api import Error as PageError

from kit.lab import STILL, WIDGET_VIEW
from tests.browser.chromium import missing_chromium
from tests.notebooks import stills
from tests.notebooks.kernels import NOTEBOOKS, ROOT, kernel_environment, network_attempts

CELL_SECONDS = 480
KEPT_CELL_METADATA = ("jupyter", "tags")  # `jupyter` holds what is folded away, such as a solution
README_PICTURE = ROOT / "data" / "pictures" / "pruning_explorer.png"
SHOWN_IN_README = ("01_pruning.ipynb", 0)  # its first picture: 90 % removed, where it begins to hurt
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def clean_output(output: dict[str, Any], execution_count: int) -> dict[str, Any]:
    """Return one output without what changes from run to run.

    The widget view goes: it names a model of a kernel that is gone. Without it a viewer that has no kernel shows the
    still picture, or the text. Strict nbval compares neither the view nor the picture.
    """
    cleaned = dict(output)
    if "data" in cleaned:
        cleaned["data"] = {kind: cleaned["data"][kind] for kind in sorted(cleaned["data"]) if kind != WIDGET_VIEW}
    if cleaned["output_type"] == "execute_result":
        cleaned["execution_count"] = execution_count
    return cleaned


def merge_streams(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbouring pieces of one stream: where it is cut depends on the clock."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output["output_type"] == last["output_type"] == "stream" and output["name"] == last["name"]:
            merged[-1] = {**last, "text": last["text"] + output["text"]}
        else:
            merged.append(dict(output))
    return merged


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook as it is stored: sources, outputs, and nothing that changes from run to run.

    The id of a cell is a digest of its source, so it moves only when the cell does.
    """
    seen: Counter[str] = Counter()
    count, cells = 0, []
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        seen[text] += 1
        digest = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()
        metadata = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        kept: dict[str, Any] = {"cell_type": cell.cell_type, "id": digest[:8], "metadata": metadata}
        kept["source"] = cell.source
        if cell.get("attachments"):
            kept["attachments"] = cell.attachments
        if cell.cell_type == "code":
            count += 1
            kept["execution_count"] = count
            kept["outputs"] = [clean_output(output, count) for output in merge_streams(cell.outputs)]
        cells.append(kept)
    return nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})


def stored_form(notebook: nbformat.NotebookNode) -> str:
    """Return the exact text of the file that holds a notebook."""
    cleaned = clean(notebook)
    nbformat.validate(cleaned)
    return str(nbformat.writes(cleaned)).rstrip("\n") + "\n"


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook; an older minor version is brought up to date."""
    return nbformat.read(path, as_version=4)


def is_clean(path: Path) -> bool:
    """Say whether a stored notebook is what `make notebooks` would have written for its outputs."""
    return path.read_text(encoding="utf-8") == stored_form(read(path))


def run(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel, in its own folder, without network, and return it with its outputs.

    Raises:
        CellExecutionError: if a cell fails.
        RuntimeError: if the notebook tried to reach the network.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory(prefix="kit-notebook-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        environment = {**os.environ, **kernel_environment(scratch)}
        # The kernel of this very Python, not one that happens to be registered under a common name.
        manager = AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager())
        options: dict[str, Any] = {"timeout": CELL_SECONDS, "store_widget_state": False, "record_timing": False}
        client = NotebookClient(notebook, km=manager, resources={"metadata": {"path": str(path.parent)}}, **options)
        # What a kernel says on its own stderr is not part of the notebook (nbval drops it too).
        client.execute(env=environment, stderr=subprocess.DEVNULL)
        attempts = network_attempts(scratch)
    if attempts:
        raise RuntimeError(f"{path.name} tried to reach the network: {'; '.join(attempts)}")
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if picture := output.get("data", {}).get(STILL):
            output["data"][STILL] = base64.b64encode(stills.compact(base64.b64decode(picture))).decode()
    return notebook


def select(names: Sequence[str], folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks whose name starts with one of `names`, in reading order; without names, all.

    Raises:
        ValueError: if a name fits no notebook.
    """
    paths = sorted(folder.glob("*.ipynb"))
    starts = [Path(name).name for name in names]
    for start in starts:
        if not any(path.name.startswith(start) for path in paths):
            have = ", ".join(path.name for path in paths) or "none"
            raise ValueError(f"no notebook starts with {start!r}; there are: {have}.")
    return [path for path in paths if not starts or path.name.startswith(tuple(starts))]


def refresh(path: Path) -> bool:
    """Run one notebook and write it; say whether that worked."""
    start = time.perf_counter()
    try:
        notebook = run(path)
        pictures = stills.take(notebook, path, stored_form(notebook))
        text = stored_form(notebook)
    except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError, PageError) as error:
        sys.stderr.write(f"{path.name}: not written.\n{error}\n")
        return False
    changed = text != path.read_text(encoding="utf-8")
    if changed:
        path.write_text(text, encoding="utf-8", newline="\n")
    name, which = SHOWN_IN_README
    if path == NOTEBOOKS / name:
        README_PICTURE.write_bytes(pictures[which])
    sys.stdout.write(f"{path.name}: {'refreshed' if changed else 'unchanged'}, {time.perf_counter() - start:.1f} s\n")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks.refresh", description="Refresh the notebooks.")
    parser.add_argument("names", nargs="*", help="the notebooks, by the start of their names; without any: all")
    parser.add_argument("--check", action="store_true", help="run nothing; say whether the stored notebooks are clean")
    options = parser.parse_args(arguments)
    try:
        paths = select(options.names)
    except ValueError as error:
        parser.error(str(error))
    if options.check:
        dirty = [path for path in paths if not is_clean(path)]
        for path in dirty:
            sys.stderr.write(f"{path.name}: not clean; run 'make notebooks'.\n")
        return 1 if dirty else 0
    if missing := missing_chromium():
        sys.stderr.write(missing + "\n")
        return 1
    done = [refresh(path) for path in paths]  # all of them, also after one that failed
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
