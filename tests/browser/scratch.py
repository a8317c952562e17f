"""Notebooks made on the spot, for tests and benchmarks of the harness itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook of code cells without outputs; returns its path."""
    blank: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {
        "cells": [{**blank, "id": f"cell-{at}", "source": source.strip()} for at, source in enumerate(cells)],
        **{"metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
