"""Choose a file on the machine that the kernel runs on: nothing is uploaded, nothing is read but names."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets

from kit import checks
from kit.explorers.layout import spoken
from kit.explorers.marks import Fit

LISTED = 500  # names: more make a page slow
_WIDE = {"width": "auto", "max_width": "640px"}
_LABEL = {"description_width": "86px"}


class FilePicker(widgets.VBox):
    """A list of folders and files, and a field for a typed or pasted path.

    Args:
        folder: where the list begins.
        endings: of the names of files that may be chosen.

    A file that is selected in the list is chosen; `Open folder` enters a folder, or lists the present one anew.
    `path` is the chosen file, None before; relative where it lies below the kernel's folder. Set it from code, too.

    Raises:
        FileNotFoundError: a folder, or a path that is set, is not there.
        ValueError: a path with another ending, or no endings.
        TypeError: an argument of another type.
    """

    path: Any = traitlets.Any(None)

    def __init__(self, folder: str | os.PathLike[str] = ".", endings: Sequence[str] = (".npz",)) -> None:
        checks.instance("folder", folder, (str, os.PathLike), "a path: text, or a Path")
        checks.instance("endings", endings, (tuple, list), "a list of texts, such as ['.npz']")
        if not endings:
            raise ValueError("endings needs at least one, such as '.npz'; got none.")
        self.endings = tuple(endings)
        self.names = widgets.Select(rows=5, description=", ".join(endings), layout=_WIDE, style=_LABEL)
        self.typed = widgets.Text(description="path", placeholder="or type or paste it, then Enter", style=_LABEL)
        self.typed.layout, self.typed.continuous_update = {"flex": "1", "width": "auto"}, False
        self.open_button = widgets.Button(description="Open folder", icon="folder-open", tooltip="Show what is in it")
        self.open_button.layout.width = "120px"
        self.status = widgets.HTML()
        row = widgets.HBox([self.typed, self.open_button], layout=_WIDE)
        keys = Fit(layout={"height": "0", "margin": "0"})  # without it arrow keys move the notebook's cells
        super().__init__([keys, self.names, row, self.status], layout={"flex": "1"})
        self.names.observe(lambda change: self._selected(change.new), "value")
        self.typed.observe(lambda change: self._go(change.new.strip(" \"'")), "value")  # as Windows copies a path
        self.open_button.on_click(lambda _: self._go(self.names.value))
        self._list(Path(folder))

    @traitlets.validate("path")
    def _checked(self, proposal: Any) -> Path | None:
        if proposal.value is None:
            return None
        checks.instance("path", proposal.value, (str, os.PathLike), "a path: text, or a Path")
        path = _short(Path(proposal.value))
        if not path.is_file():
            raise FileNotFoundError(f"path must be that of a file; {path} is {'a folder' * path.is_dir() or 'none'}.")
        if not path.name.endswith(self.endings):
            raise ValueError(f"path must end in {' or '.join(self.endings)}; got {path.name}.")
        return path

    @traitlets.observe("path")
    def _follow(self, _: Any = None) -> None:
        """Show in the list and in words what is chosen."""
        if self.path and not self._is_listed(self.path):
            self._list(self.path.parent)
        self.names.value = self.path if self._is_listed(self.path) else self._folders[0]
        self._say(f"Chosen: <b>{html.escape(str(self.path))}</b>" if self.path else "Nothing is chosen.")

    def _is_listed(self, path: Path | None) -> bool:
        return path in [each for _, each in self.names.options]

    def _selected(self, path: Path) -> None:
        """Choose a file at once; a folder waits for the button, so that arrow keys can pass over it."""
        self.open_button.disabled = path not in self._folders
        if self.open_button.disabled:
            self._go(path)

    def _go(self, path: Path | str) -> None:
        """Choose the file, or list the folder; what is wrong goes into words."""
        try:
            if path and Path(path).expanduser().is_dir():
                self._list(Path(path))
            elif path:
                self.path = path
                self._follow()
        except (OSError, ValueError) as error:
            self._say(f'<span style="color: var(--jp-error-color0, #b00020)">{html.escape(str(error))}</span>')

    def _list(self, folder: Path) -> None:
        folder = _short(folder)
        try:
            inside = sorted((not each.is_dir(), each.name.lower(), each.name) for each in os.scandir(folder))
        except OSError as error:
            raise type(error)(f"folder {folder} cannot be listed ({error.strerror}).") from error
        kept = [
            (name, plain) for plain, _, name in inside if (name.endswith(self.endings) if plain else name[0] != ".")
        ]
        names = [(name if plain else f"{name}/", folder / name) for name, plain in kept[:LISTED]]
        self._folders = [folder, _short(folder / ".."), *(path for name, path in names if name[-1] == "/")]
        self.names.options = [*zip(("./", "../"), self._folders, strict=False), *names]
        self.names.index = 0
        more = f" {LISTED} of {len(kept)} names are listed." * (len(kept) > LISTED)
        none = f" No file here ends in {' or '.join(self.endings)}." * (not any(plain for _, plain in kept))
        self._say(f"Folder: {html.escape(str(folder.absolute().name))}.{more}{none}")

    def _say(self, text: str) -> None:
        self.status.value = spoken(text)

    def __repr__(self) -> str:
        """What is chosen: the name alone, which is the same on every machine."""
        return f"FilePicker: {self.path.name if self.path else 'nothing chosen'}"


def _short(path: Path) -> Path:
    """The path without detours, relative where it lies below the present folder."""
    here = Path.cwd()
    whole = Path(os.path.normpath(here / path.expanduser()))
    return whole.relative_to(here) if whole.is_relative_to(here) else whole
