"""A cell that is run again in JupyterLab: its new explorer answers, and the one of the run before has ended."""

from __future__ import annotations

from tests.browser.conftest import Open, Write

MAKE = (
    "import threading\nfrom kit import data, models\nfrom kit.explorers import IntervalExplorer\ndigits = data.digits()"
)
SHOW = "explorer = IntervalExplorer(models.MLP((64, 8, 10), seed=0), digits)\nexplorer.wait()\nexplorer"
COUNT = (
    "running = [each.name for each in threading.enumerate() if each.name == 'kit explorer']\n"
    "assert len(running) == 1, running"
)


def test_a_cell_that_runs_again_ends_its_earlier_explorer(opened: Open, scratch: Write) -> None:
    with opened(scratch(MAKE, SHOW, COUNT)) as notebook:
        notebook.run_all()
        for _ in range(3):
            notebook.run_cell(1)
            notebook.run_cell(2)
        (explorer,) = notebook.explorers()
        notebook.wait_still(explorer)
        before = notebook.plot_state(explorer)
        notebook.press("images n", "ArrowLeft", explorer)
        assert notebook.wait_change(before, explorer)
        assert notebook.problems() == []
