"""What every explorer offers, by mouse and keyboard: tools, fields, compact views, a layout for each width."""

from __future__ import annotations

import csv
from pathlib import Path

from playwright.sync_api import Locator

from tests.browser.conftest import Open, Show, Write
from tests.browser.lab import SLOW, NotebookPage
from tests.browser.moves import wait_until

MAKE = (
    "from kit import data, models\nfrom kit.explorers import *\ndigits = data.digits()\n"
    "net = models.MLP((64, 16, 10), seed=0)\nexplorer = PruningExplorer(net, digits)\nexplorer.wait_curves()"
)
FAR = "print('\\n' * 150)"
VIEW = "explorer.view('ratio', 'seed', figures=['plane', 'kept'])"
OTHERS = (
    "history = __import__('kit').training.fit(net, digits, epochs=5)\n"
    "few = __import__('dataclasses').replace(digits, train=digits.train.first(200))\n"
    "more = [SensitivityExplorer(net, digits), IntervalExplorer(net, digits), DistillationExplorer(net, few),\n"
    "        SearchExplorer(few, points=4, epochs=3, trainings=9), BayesExplorer(few, points=8, seeds=2, epochs=2)]\n"
    "for each in more:\n    each.wait_curves()"
)
WINDOWS = (720, 1000, 1280, 1920)


def says(notebook: NotebookPage, explorer: Locator, words: str) -> None:
    wait_until(notebook, lambda: words in notebook.status(explorer), f"{words!r} is not said", 60)


def bars(explorer: Locator) -> str:
    """The widths of the bars of the figure "What each layer keeps", as the page has drawn them."""
    paths = explorer.locator(".kit-figure-1 .bars path")
    return str(paths.evaluate_all("paths => paths.map(path => path.getAttribute('d')).join()"))


def test_tools_and_fields_do_what_they_say(show: Show, tmp_path: Path) -> None:
    notebook, explorer = show(MAKE, "explorer")
    page, tool = notebook.page, lambda name: explorer.locator(f"button[title^='{name}']")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    handle = notebook.handle("ratio", explorer)
    assert (handle.get_attribute("aria-label"), handle.get_attribute("aria-valuetext")) == ("ratio", "50 %")
    assert tool("Undo").is_disabled()
    notebook.press("ratio", "End", explorer)
    says(notebook, explorer, "99.9 % of the weights")
    assert handle.get_attribute("aria-valuetext") == "99.9 %"
    tool("Undo").click()
    says(notebook, explorer, "50 % of the weights")
    tool("A / B").click()
    says(notebook, explorer, "This is A.")
    tool("Redo").click()
    says(notebook, explorer, "Against A (ratio 50 %)")
    assert explorer.locator(".kit-labels text", has_text="A").first.is_visible()
    tool("Swap").click()
    says(notebook, explorer, "Against A (ratio 99.9 %)")
    tool("Copy as code").click()
    says(notebook, explorer, "Copied: PruningExplorer(")
    assert page.evaluate("() => navigator.clipboard.readText()").startswith("PruningExplorer(model, dataset")
    for name, file in (("Save picture", "picture.png"), ("Save data", "data.csv")):
        with page.expect_download() as download:
            tool(name).click()
        download.value.save_as(tmp_path / file)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "data.csv").open()))
    assert len(rows) > 40 and {row["curve"] for row in rows} >= {"magnitude", "random"}
    tool("Help").click()
    explorer.locator(".kit-help", has_text="Share of the weights or channels to remove.").wait_for()
    tool("Help").click()

    field = notebook.control("seed", explorer).locator("input")
    for typed in ("2.7", "-5"):
        field.fill(typed)
        field.press("Enter")
        says(notebook, explorer, f"got {typed}")
        assert field.input_value() == "0"
    field.fill("12")
    field.press("Enter")
    wait_until(notebook, lambda: "got" not in notebook.status(explorer), "the refusal stays")
    assert field.input_value() == "12"
    untold = explorer.locator(
        ".kit-controls > :visible:not([title], :has(button[title])):not(.kit-heading, .kit-note, .kit-tools, .kit-work)"
    )
    assert untold.evaluate_all("all => all.map(each => each.outerHTML.slice(0, 200))") == []
    assert page.locator("[title=null]").count() == 0
    assert notebook.problems() == []


def test_a_view_keeps_step_and_is_painted_when_it_comes_into_sight(show: Show) -> None:
    notebook, explorer = show(MAKE, "explorer", FAR, VIEW)
    view = notebook.explorers()[1]
    explorer.scroll_into_view_if_needed()
    before = bars(view)
    assert before
    notebook.press("ratio", "End", explorer)
    says(notebook, view, "99.9 % of the weights")
    notebook.wait_still(explorer)
    assert bars(view) == before  # out of sight
    view.scroll_into_view_if_needed()
    wait_until(notebook, lambda: bars(view) != before, "the view is not painted")
    there = notebook.wait_still(explorer)
    notebook.press("ratio", "Home", view)
    says(notebook, explorer, "0 % of the weights")
    explorer.scroll_into_view_if_needed()
    assert notebook.wait_change(there, explorer)
    assert notebook.value("ratio", explorer) == notebook.value("ratio", view) == 0
    assert notebook.problems() == []


def test_a_page_that_is_slow_shows_every_figure_whole(opened: Open, scratch: Write) -> None:
    with opened(
        scratch(MAKE.rpartition("\n")[0], "explorer", "explorer.ratio.value = 0.9\nexplorer.wait()")
    ) as notebook:
        notebook.page.context.new_cdp_session(notebook.page).send("Emulation.setCPUThrottlingRate", {"rate": 12})
        notebook.run_all()
        (explorer,) = notebook.explorers()
        says(notebook, explorer, "90 % of the weights")
        titles = explorer.locator(".gtitle")
        wait_until(notebook, lambda: titles.count() == 4, "a figure stays empty")
        notebook.wait_still(explorer)
        assert explorer.locator(".kit-figure-1 .bars text").all_inner_texts()  # what came while plotly was read, too
        drawn = explorer.locator(".kit-figure-0 .js-plotly-plot").evaluate("plot => plot.data[3].x.length")
        assert drawn > 30


def test_widgets_that_begin_too_late_for_anywidget_hear_the_kernel(opened: Open, scratch: Write) -> None:
    with opened(scratch(MAKE, "explorer")) as notebook:
        notebook.page.evaluate(
            "() => { const own = AbortSignal.timeout; AbortSignal.timeout = () => own.call(AbortSignal, 0); }"
        )
        notebook.run_all()
        (explorer,) = notebook.explorers()
        says(notebook, explorer, "50 % of the weights")
        notebook.wait_still(explorer)
        assert any(SLOW in error for error in notebook.console), "none of them was late"
        mark = explorer.locator(".kit-figure-0 .kit-point").first
        place, drawn = mark.get_attribute("transform"), bars(explorer)
        notebook.press("ratio", "ArrowRight", explorer, times=4)
        wait_until(notebook, lambda: mark.get_attribute("transform") != place, "the mark stays", 30)
        wait_until(notebook, lambda: bars(explorer) != drawn, "the bars stay", 30)
        assert notebook.problems() == []


def test_every_explorer_fits_the_window_and_stacks_where_it_is_narrow(show: Show) -> None:
    notebook, _ = show(MAKE, "explorer", OTHERS, *(f"more[{number}]" for number in range(5)), "BoardExplorer(digits)")
    page = notebook.page
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    for width in WINDOWS:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(500)
        for explorer in notebook.explorers():
            explorer.scroll_into_view_if_needed()
            notebook.wait_still(explorer)
            whole, main = explorer.bounding_box(), explorer.locator(".kit-main").bounding_box()
            assert whole is not None and main is not None
            assert (main["x"] > whole["x"] + 200) == (whole["width"] >= 720)  # beside the controls, or below them
            assert whole["height"] < 680 or whole["width"] < 900
            more = explorer.locator(".kit-status").evaluate("node => node.scrollHeight - node.clientHeight")
            assert more <= 1 or whole["width"] < 720, f"{notebook.status(explorer)!r} does not fit"
        assert notebook.overflow() == []
    assert notebook.problems() == []
