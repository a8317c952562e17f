"""The file picker, by hand (list, button, field) and from code."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import pytest

from kit.explorers import FilePicker, picker


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilePicker:
    """A picker in the folder `mine`, which holds x.npz, B.npz, notes.txt, .hidden and the folder `more` with y.npz."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "more").mkdir(parents=True)
    (tmp_path / "mine" / ".hidden").mkdir()
    for name in ("x.npz", "B.npz", "notes.txt", "more/y.npz"):
        (tmp_path / "mine" / name).touch()
    return FilePicker("mine")


def shown(files: FilePicker) -> list[str]:
    return [name for name, _ in files.names.options]


def said(files: FilePicker) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", files.status.value))


def select(files: FilePicker, name: str) -> None:
    files.names.index = shown(files).index(name)


def test_a_selected_file_is_chosen_and_a_folder_waits_for_the_button(files: FilePicker) -> None:
    assert shown(files) == ["./", "../", "more/", "B.npz", "x.npz"]
    assert files.path is None and said(files) == "Folder: mine."
    heard: list[Path] = []
    files.observe(lambda change: heard.append(change.new), "path")
    select(files, "more/")
    assert files.path is None and not files.open_button.disabled
    select(files, "x.npz")
    assert files.path == Path("mine/x.npz") and files.open_button.disabled
    assert said(files) == "Chosen: mine/x.npz"
    select(files, "more/")
    files.open_button.click()
    assert shown(files) == ["./", "../", "y.npz"] and files.path == Path("mine/x.npz")
    select(files, "y.npz")
    assert files.path == Path("mine/more/y.npz")
    select(files, "../")
    files.open_button.click()
    assert shown(files)[-1] == "x.npz"
    Path("mine/new.npz").touch()
    select(files, "./")
    files.open_button.click()
    assert "new.npz" in shown(files)
    assert heard == [Path("mine/x.npz"), Path("mine/more/y.npz")]


@pytest.mark.parametrize("typed", ["mine/more/y.npz", ' "mine/more/y.npz" ', "mine/../mine/more/y.npz", "absolute"])
def test_a_typed_path_is_followed(files: FilePicker, typed: str) -> None:
    files.typed.value = str(Path.cwd() / "mine/more/y.npz") if typed == "absolute" else typed
    assert files.path == Path("mine/more/y.npz") == files.names.value and shown(files) == ["./", "../", "y.npz"]
    files.typed.value = ""
    assert files.path == Path("mine/more/y.npz")


def test_folders_are_typed_too_and_what_lies_elsewhere_keeps_its_whole_path(
    files: FilePicker, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    files.typed.value = str(elsewhere)
    assert shown(files) == ["./", "../"] and said(files) == f"Folder: {elsewhere.name}. No file here ends in .npz."
    (elsewhere / "<z>.npz").touch()
    files.open_button.click()
    select(files, "<z>.npz")
    assert files.path == elsewhere / "<z>.npz" and "<z>" in said(files)
    monkeypatch.setenv("HOME", str(elsewhere))
    files.typed.value = "~"
    assert shown(files)[-1] == "<z>.npz"


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("mine/z.npz", "path must be that of a file; mine/z.npz is none."),
        ("mine/notes.txt", "path must end in .npz; got notes.txt."),
    ],
)
def test_what_cannot_be_chosen_is_said_and_the_choice_stays(files: FilePicker, typed: str, answer: str) -> None:
    files.path = "mine/x.npz"
    files.typed.value = typed
    assert files.path == Path("mine/x.npz") and said(files) == answer
    with pytest.raises((FileNotFoundError, ValueError), match=re.escape(answer)):
        files.path = typed


def test_from_code(files: FilePicker) -> None:
    files.path = Path("mine/more/y.npz")
    assert files.names.value == files.path and said(files) == "Chosen: mine/more/y.npz"
    assert files._repr_mimebundle_()["text/plain"] == repr(files) == "FilePicker: y.npz"
    files.path = None
    assert said(files) == "Nothing is chosen." and files.names.index == 0
    Path("mine/more/late.npz").touch()
    files.path = "mine/more/late.npz"
    assert files.names.value == Path("mine/more/late.npz")
    with pytest.raises(FileNotFoundError, match="mine is a folder"):
        files.path = "mine"
    with pytest.raises(TypeError, match="path must be a path: text, or a Path; got 3"):
        files.path = 3


def test_other_endings_and_long_folders(files: FilePicker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(FilePicker("mine", (".txt", ".npz")))[-3:] == ["B.npz", "notes.txt", "x.npz"]
    monkeypatch.setattr(picker, "LISTED", 2)
    long = FilePicker("mine")
    assert shown(long) == ["./", "../", "more/", "B.npz"] and "2 of 3 names are listed." in said(long)
    long.path = "mine/x.npz"  # not in the list
    assert said(long) == "Chosen: mine/x.npz"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_said(files: FilePicker) -> None:
    Path("mine/more").chmod(0)
    select(files, "more/")
    files.open_button.click()
    assert said(files) == "folder mine/more cannot be listed (Permission denied)."


def test_a_folder_that_is_gone_is_said(files: FilePicker) -> None:
    select(files, "more/")
    Path("mine/more/y.npz").unlink()
    Path("mine/more").rmdir()
    files.open_button.click()
    assert said(files) == "path must be that of a file; mine/more is none."


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"folder nowhere cannot be listed \(No such file or directory\)."):
        FilePicker("nowhere")
    with pytest.raises(TypeError, match="folder must be a path"):
        FilePicker(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="endings must be a list of texts"):
        FilePicker(endings=".npz")
    with pytest.raises(ValueError, match="endings needs at least one"):
        FilePicker(endings=())
