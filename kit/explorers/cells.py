"""Which notebook cell made which explorer: when a cell runs again, what it made before ends."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from IPython.core.getipython import get_ipython
from ipywidgets import Widget

_made: WeakKeyDictionary[Widget, tuple[str, str]] = WeakKeyDictionary()  # the cell, and which run of it


def take_over(explorer: Widget) -> None:
    """Close the explorers that earlier runs of this cell have made, and remember this one.

    JupyterLab, Notebook 7 and VS Code send the cell's id with each run. Where none comes, as from nbclient, in a script
    or in a widget's callback, nothing is closed.
    """
    parent: Any = getattr(get_ipython(), "get_parent", dict)() or {}
    cell, run = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")
    if not cell or not run:
        return
    for other, (its_cell, its_run) in list(_made.items()):
        if its_cell == cell and its_run != run:
            other.close()
            del _made[other]
    _made[explorer] = cell, run
