"""The harness itself: it fails where it should, and passes a sound explorer."""

from __future__ import annotations

from tests.browser.conftest import Open, Write
from tests.browser.lab import NOTEBOOKS
from tests.browser.moves import dead_explorers, wait_until

MAKE = """
import ipywidgets as widgets
import plotly.graph_objects as go

def explorer(answer, width=500):
    slider = widgets.FloatSlider(min=0, max=1, step=0.1, value=0.5, description="ratio")
    figure = go.FigureWidget(go.Scatter(x=[0.5], y=[0.5], mode="markers", name="you are here"))
    figure.update_layout(xaxis_range=[0, 1], yaxis_range=[0, 1], width=width, height=300)
    slider.observe(lambda change: answer(figure, change.new), "value")
    return widgets.VBox([slider, figure]).add_class("kit-explorer")

def move(figure, value):
    figure.data[0].x = [value]
"""


def test_sound_explorer_passes_by_keyboard_and_mouse(opened: Open, scratch: Write) -> None:
    with opened(scratch(MAKE, "explorer(move)")) as notebook:
        notebook.run_all()
        assert len(notebook.explorers()) == 1
        assert dead_explorers(notebook) == []
        explorer = notebook.explorers()[0]
        before = notebook.wait_still(explorer)
        notebook.drag("ratio", 0.95, explorer)
        assert notebook.value("ratio", explorer) > 0.85
        assert notebook.wait_change(before, explorer)
        notebook.press("ratio", "Home", explorer)
        assert notebook.value("ratio", explorer) == 0.0
        assert notebook.problems() == []
        assert notebook.overflow() == []
        assert not notebook.server.root.is_relative_to(NOTEBOOKS.parent), "a stored notebook would be rewritten"


def test_dead_explorers_are_found(opened: Open, scratch: Write) -> None:
    silent, broken = "explorer(lambda figure, value: None)", "explorer(lambda figure, value: 1 / 0)"
    wide = "explorer(move, width=3000)"
    with opened(scratch(MAKE, silent, broken, wide)) as notebook:
        notebook.run_all()
        wait_until(notebook, lambda: bool(notebook.overflow()), "what is too wide")
        assert notebook.problems() == []
        dead = dead_explorers(notebook, patience=8)
        assert [text.partition(":")[0] for text in dead] == ["explorer 0", "explorer 1"]


def test_each_kind_of_problem_is_found(opened: Open, scratch: Write) -> None:
    cells = (
        "import sys\nprint('a warning', file=sys.stderr)",
        "import ipywidgets, traitlets\nfrom IPython.display import HTML, Javascript\n"
        "class Gone(ipywidgets.IntSlider):\n    _model_module = traitlets.Unicode('nowhere').tag(sync=True)\nGone()",
        "HTML('<img src=\"http://elsewhere.invalid/a.png\">')",
        'Javascript(\'console.error("from a cell"); setTimeout(() => { throw new Error("from a timer") })\')',
        "1 / 0",
    )
    with opened(scratch(*cells)) as notebook:
        notebook.run_all()
        notebook.page.wait_for_timeout(1000)
        warning, traceback = notebook.errors()
        assert "a warning" in warning
        assert "ZeroDivisionError" in traceback
        assert notebook.missing_widgets()
        assert set(notebook.foreign) == {"http://elsewhere.invalid/a.png"}
        for text in ("from a cell", "from a timer"):
            assert [line for line in notebook.console if text in line]
        kinds = {line.partition(":")[0] for line in notebook.problems()}
        assert kinds == {"output", "missing widget", "console", "request to another host"}
