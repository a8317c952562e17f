"""What Jupyter does for the notebooks, however it is started: by `make lab`, in conda, by a plain `jupyter lab`.

This is an extension of its server; Jupyter finds it through the files of `.jupyter`, which are installed with the
package. `python -m kit.lab` opens JupyterLab on a copy of the notebooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import nbformat
from jupyter_server.utils import ApiPath, to_os_path

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STILL = "image/png"
IS_STILL = {STILL: {"still": True}}  # metadata of an output: by this the page knows that its picture is a still


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kit.lab"}]


def _load_jupyter_server_extension(server: Any) -> None:
    server.contents_manager.register_pre_save_hook(keep_stills)
    settings, name = server.web_app.settings, "kernel_websocket_connection_class"
    settings[name] = prompt(settings[name])


def prompt(usual: type) -> type:
    """Return the usual connection between browser and kernel, made to send small messages at once.

    A slider's answer is a burst of small messages. By default each waits until the browser has acknowledged the one
    before, up to 40 ms (Nagle's algorithm meeting delayed acknowledgements), and a slider moved quickly feels slow.
    """

    def connect(self: Any) -> Any:
        self.websocket_handler.set_nodelay(True)
        return usual.connect(self)  # type: ignore[attr-defined]

    return type("PromptConnection", (usual,), {"connect": connect})


def keep_stills(model: Mapping[str, Any], path: str, contents_manager: Any, **_: Any) -> None:
    """Before a notebook is saved: give a widget that was shown anew the still picture that the file has of it.

    Only the name of the widget is saved with it. Its state is large, and of no use without the kernel.
    """
    if model["type"] != "notebook" or model["content"] is None:
        return
    model["content"]["metadata"].pop("widgets", None)
    bare = {
        place: output
        for place, output in _shown(model["content"])
        if WIDGET_VIEW in output["data"] and STILL not in output["data"]
    }
    if not bare:
        return
    try:
        stored = nbformat.read(to_os_path(ApiPath(path), str(contents_manager.root_dir)), as_version=4)
    except Exception:  # a new file, or none that can be read: there is nothing to keep, and saving must not fail
        return
    for place, output in _shown(stored):
        if place in bare and STILL in output["data"]:
            bare[place]["data"][STILL] = output["data"][STILL]
            bare[place]["metadata"] = {**bare[place].get("metadata", {}), **IS_STILL}


def _shown(notebook: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """The outputs that are shown by kind, each with its place: the cell, and the title."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "data" in output:
                yield (cell.get("id", ""), str(output["data"].get("text/plain", ""))), output
