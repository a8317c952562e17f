"""House rules for the stored notebooks that can be read off the files, and the script that keeps them so."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks import refresh
from tests.notebooks.kernels import NOTEBOOKS, ROOT

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL = 12
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:-])/(?:home|root|Users|tmp|usr|opt|var|mnt|private|Volumes)/\w|\b[A-Za-z]:\\\w"
    rf"|{re.escape(str(ROOT))}|{re.escape(tempfile.gettempdir())}/"
)

stored = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in refresh.read(path).cells if cell.cell_type == "code"]


def output_texts(output: Any) -> list[str]:
    """Return every text that an output shows (pictures left out)."""
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if not kind.startswith("image/") or kind.endswith("svg+xml")]
    return [*texts, str(output.get("text", "")), str(output.get("evalue", ""))]


@stored
def test_stored_form_is_clean(path: Path) -> None:
    assert refresh.is_clean(path), f"{path.name} holds noise, or was not run from top to bottom: 'make notebooks'."


@stored
def test_code_cells_are_short(path: Path) -> None:
    for number, cell in enumerate(code_cells(path)):
        lines = len(cell.source.splitlines())
        assert lines <= LONGEST_CELL, f"{path.name}, code cell {number}: {lines} lines, at most {LONGEST_CELL}."


@stored
def test_outputs_hold_no_errors_and_no_paths(path: Path) -> None:
    for number, cell in enumerate(code_cells(path)):
        for output in cell.outputs:
            where = f"{path.name}, code cell {number}"
            assert output.output_type != "error", f"{where}: holds an error."
            assert output.get("name") != "stderr", f"{where}: holds stderr output: {output.text[:80]}"
            for text in output_texts(output):
                assert not (found := ABSOLUTE_PATH.search(text)), f"{where}: holds a path: {found.group()}"


@stored
def test_outputs_are_checked(path: Path) -> None:
    """No cell asks nbval to look away."""
    for number, cell in enumerate(code_cells(path)):
        marks = ["NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "PYTEST_VALIDATE_IGNORE_OUTPUT"]
        tags = [tag.replace("-", "_").upper() for tag in cell.metadata.get("tags", [])]
        assert not any(mark in cell.source or mark in tags for mark in marks), f"{path.name}, code cell {number}"


def test_readme_lists_every_notebook() -> None:
    readme = ROOT / "README.md"
    if not (PATHS and readme.exists()):
        pytest.skip("no notebooks or no README.md yet")
    rows = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("|")]
    missing = [path.name for path in PATHS if not any(path.stem in row for row in rows)]
    assert not missing, f"README.md's table has no row for {', '.join(missing)}."


@pytest.mark.parametrize("text", ["/home/me/kit", "in /tmp/x", r"C:\Users", "'/Users/me'", str(ROOT)])
def test_paths_are_seen(text: str) -> None:
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("text", ["https://example.org/home/x", "and/or/home/x", "ratio 1/2", "data/board.sqlite"])
def test_what_is_no_path_is_left_alone(text: str) -> None:
    assert not ABSOLUTE_PATH.search(text)


def noisy() -> nbformat.NotebookNode:
    """A notebook as JupyterLab saves it, with all its noise."""
    view = {"model_id": "d0", "version_major": 2, "version_minor": 0}
    shown = {"text/plain": "VBox()", "image/png": "aGk=", refresh.WIDGET_VIEW: view}
    outputs = [
        new_output("stream", name="stdout", text="one\n"),
        new_output("stream", name="stdout", text="two\n"),
        new_output("execute_result", data=shown, execution_count=17),
    ]
    timing = {"execution": {"iopub.status.busy": "2020-01-01T00:00:00Z"}, "tags": ["hint"], "scrolled": True}
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("x = 1", execution_count=17, outputs=outputs, metadata=timing),
            new_code_cell("x = 1", execution_count=3),
        ],
        metadata={"widgets": {"state": {}}, "kernelspec": {"name": "other", "display_name": "Other"}},
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


def test_clean_is_stable() -> None:
    once = refresh.stored_form(noisy())
    assert refresh.stored_form(nbformat.reads(once, as_version=4)) == once
    assert refresh.stored_form(noisy()) == once


def test_refresh_runs_cleans_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "00_small.ipynb"
    show = (
        "import os\nimport ipywidgets\nfrom IPython.display import display\n"
        "print(os.environ['KIT_STILLS'], os.path.basename(os.getcwd()) != '')\nipywidgets.IntSlider()"
    )
    nbformat.write(new_notebook(cells=[new_code_cell(show)]), path)
    assert not refresh.is_clean(path)
    assert refresh.refresh(path)
    assert refresh.is_clean(path)
    stream, result = code_cells(path)[0].outputs
    assert stream.text == "1 True\n"
    assert result.data == {"text/plain": "IntSlider(value=0)"}


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
