"""House rules for the stored notebooks that can be read off the files, and the script that keeps them so."""

from __future__ import annotations

import base64
import re
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.browser import chromium
from tests.notebooks import refresh, stills
from tests.notebooks.kernels import NOTEBOOKS, ROOT

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL = 12
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:-])/(?:home|root|Users|tmp|usr|opt|var|mnt|private|Volumes)/\w|\b[A-Za-z]:\\\w"
    rf"|{re.escape(str(ROOT))}|{re.escape(tempfile.gettempdir())}/"
)

stored = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def code_cells(path: Path) -> list[tuple[str, Any]]:
    """The code cells of a notebook, each with the words that say where it is."""
    cells = [cell for cell in refresh.read(path).cells if cell.cell_type == "code"]
    return [(f"{path.name}, code cell {number}", cell) for number, cell in enumerate(cells)]


def output_texts(output: Any) -> list[str]:
    """Return every text that an output shows (pictures left out)."""
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if not kind.startswith("image/") or kind.endswith("svg+xml")]
    return [*texts, str(output.get("text", "")), str(output.get("evalue", ""))]


@stored
def test_stored_form_is_clean(path: Path) -> None:
    assert refresh.is_clean(path), f"{path.name} holds noise, or was not run from top to bottom: 'make notebooks'."


@stored
def test_code_cells_are_short_and_checked_and_their_outputs_hold_no_errors_and_no_paths(path: Path) -> None:
    for where, cell in code_cells(path):
        lines = len(cell.source.splitlines())
        assert lines <= LONGEST_CELL, f"{where}: {lines} lines, at most {LONGEST_CELL}."
        tags = [tag.replace("-", "_").upper() for tag in cell.metadata.get("tags", [])]
        for mark in ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "PYTEST_VALIDATE_IGNORE_OUTPUT"):
            assert mark not in cell.source and mark not in tags, f"{where}: asks nbval to look away."
        for output in cell.outputs:
            assert output.output_type != "error", f"{where}: holds an error."
            assert output.get("name") != "stderr", f"{where}: holds stderr output: {output.text[:80]}"
            for text in output_texts(output):
                assert not (found := ABSOLUTE_PATH.search(text)), f"{where}: holds a path: {found.group()}"


def test_readme_lists_every_notebook() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.lstrip().startswith("|")]
    missing = [path.name for path in PATHS if not any(path.stem in row for row in rows)]
    assert not missing, f"README.md's table has no row for {', '.join(missing)}."


def test_glossary_is_in_order_and_its_links_lead_somewhere() -> None:
    text = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*(.+?)\*\*: .+ \[\w+\]\(\w+\.ipynb\)$", text, re.MULTILINE)
    assert len(terms) == text.count("\n**") >= 60, "each entry is one line: term, words, notebooks"
    assert terms == sorted(set(terms), key=str.casefold)
    for name in re.findall(r"\]\((.+?)\)", text):
        assert (NOTEBOOKS / name).exists(), f"glossary.md links to {name}, which is not there."


def test_paths_are_seen_and_what_is_no_path_is_left_alone() -> None:
    for text in ("/home/me/kit", "in /tmp/x", r"C:\Users", "'/Users/me'", str(ROOT)):
        assert ABSOLUTE_PATH.search(text), text
    for text in ("https://example.org/home/x", "and/or/home/x", "ratio 1/2", "data/board.sqlite"):
        assert not ABSOLUTE_PATH.search(text), text


def noisy() -> nbformat.NotebookNode:
    """A notebook as JupyterLab saves it, with all its noise."""
    view = {"model_id": "d0", "version_major": 2, "version_minor": 0}
    shown = {"text/plain": "VBox()", "image/png": "aGk=", refresh.WIDGET_VIEW: view}
    outputs = [new_output("stream", name="stdout", text=text) for text in ("one\n", "two\n")]
    outputs.append(new_output("execute_result", data=shown, execution_count=17))
    timing = {"execution": {"iopub.status.busy": "2020-01-01T00:00:00Z"}, "tags": ["hint"], "scrolled": True}
    first = new_code_cell("x = 1", execution_count=17, outputs=outputs, metadata=timing)
    metadata = {"widgets": {"state": {}}, "kernelspec": {"name": "other", "display_name": "Other"}}
    return new_notebook(
        cells=[new_markdown_cell("# Title"), first, new_code_cell("x = 1", execution_count=3)], metadata=metadata
    )


def test_clean_removes_the_noise_and_keeps_the_rest() -> None:
    cleaned = refresh.clean(noisy())
    title, first, second = cleaned.cells
    assert cleaned.metadata == refresh.METADATA
    assert first.metadata == {"tags": ["hint"]}
    assert [cell.execution_count for cell in (first, second)] == [1, 2]
    assert first.outputs[0].text == "one\ntwo\n"
    assert first.outputs[1].data == {"text/plain": "VBox()", "image/png": "aGk="}
    assert first.outputs[1].execution_count == 1
    assert len({title.id, first.id, second.id}) == 3
    once = refresh.stored_form(noisy())
    assert refresh.stored_form(nbformat.reads(once, as_version=4)) == refresh.stored_form(noisy()) == once


def test_refresh_runs_photographs_cleans_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "00_small.ipynb"
    show = "import ipywidgets, os\nprint(os.path.basename(os.getcwd()) != '')\nipywidgets.IntSlider()"
    draw = "import matplotlib.pyplot as plt\nplt.imshow([[0, 1], [2, 3]])\nplt.show()"
    nbformat.write(new_notebook(cells=[new_code_cell(show), new_code_cell(draw)]), path)
    assert not refresh.is_clean(path)

    def take(notebook: nbformat.NotebookNode, path: Path, text: str) -> list[bytes]:
        assert "IntSlider(value=0)" in text and refresh.WIDGET_VIEW not in text
        (view,) = stills.views(notebook.cells[0])
        view.data["image/png"] = "aGk="
        return [b"hi"]

    monkeypatch.setattr(stills, "take", take)
    assert refresh.refresh(path)
    assert refresh.is_clean(path)
    (drawn,) = nbformat.read(path, as_version=4).cells[1].outputs
    assert Image.open(BytesIO(base64.b64decode(drawn.data["image/png"]))).mode == "P"  # a palette: small
    stream, result = refresh.read(path).cells[0].outputs
    assert stream.text == "True\n"
    assert result.data == {"text/plain": "IntSlider(value=0)", "image/png": "aGk="}


def test_a_notebook_without_widgets_needs_no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "browse", None)
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("1", outputs=[])])
    assert stills.take(notebook, tmp_path / "00_plain.ipynb", "") == []


def test_refresh_refuses_without_a_chromium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(refresh, "refresh", ran.append)
    monkeypatch.setenv("KIT_CHROMIUM", str(tmp_path / "chromium"))
    assert refresh.main(["00"]) == 1
    monkeypatch.delenv("KIT_CHROMIUM")
    monkeypatch.setattr(chromium, "USUAL_PLACES", ())
    monkeypatch.setenv("PATH", "")
    assert refresh.main(["00"]) == 1
    wrong, none = capsys.readouterr().err.splitlines()
    assert wrong.startswith("KIT_CHROMIUM is")
    assert none == chromium.HOW_TO_GET
    assert not ran


def test_pictures_become_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    noise[:, :300] = 255
    before, info = BytesIO(), PngInfo()
    info.add_text("Software", "made by hand")
    Image.fromarray(noise).save(before, "PNG", pnginfo=info)
    packed = stills.compact(before.getvalue())
    assert len(packed) <= stills.LARGEST < len(before.getvalue())
    after = Image.open(BytesIO(packed))
    assert after.mode == "P" and after.format == "PNG" and not after.info
    assert after.width / after.height == pytest.approx(1.5, abs=0.02)
    assert after.convert("RGB").getpixel((2, 2)) == (255, 255, 255)

    plain = BytesIO()
    Image.new("RGBA", (900, 600), "white").save(plain, "PNG")
    assert Image.open(BytesIO(stills.compact(plain.getvalue()))).size == (900, 600)
    with pytest.raises(ValueError, match="A picture of 900 x 600 pixels does not fit into 100 bytes"):
        stills.compact(before.getvalue(), 100)


HIDES_ITS_ATTEMPT = "import socket\ntry:\n    socket.gethostbyname('kit.invalid')\nexcept OSError:\n    pass"


@pytest.mark.parametrize(
    ("source", "said"), [("1 / 0", "ZeroDivisionError"), (HIDES_ITS_ATTEMPT, "tried to reach the network: socket.")]
)
def test_refresh_does_not_write_a_failing_notebook(
    tmp_path: Path, source: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "00_fails.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    before = path.read_bytes()
    assert not refresh.refresh(path)
    assert path.read_bytes() == before
    assert said in capsys.readouterr().err


def test_select(tmp_path: Path) -> None:
    for name in ("01_b.ipynb", "00_a.ipynb"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in refresh.select([], tmp_path)] == ["00_a.ipynb", "01_b.ipynb"]
    assert [path.name for path in refresh.select(["notebooks/01_b.ipynb"], tmp_path)] == ["01_b.ipynb"]
    with pytest.raises(ValueError, match="no notebook starts with '07'; there are: 00_a.ipynb, 01_b.ipynb"):
        refresh.select(["07"], tmp_path)
