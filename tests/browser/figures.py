"""Figures of explorers in a bare page of Chromium: real text widths, no kernel and no JupyterLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly
from playwright.sync_api import Browser, Page

from kit.explorers.base import Explorer
from kit.explorers.layout import LiveFigure
from kit.explorers.marks import STATIC, Mark
from kit.plots.curves import Panel
from tests.explorer_contract import parts

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
COLUMN, MAIN, DETAIL, STACKED = 248, 330, 220, 900  # pixels: width of the controls, heights, where all stack
Size = tuple[int, int]


def sizes(width: int, details: int) -> list[Size]:
    """Width and height of an explorer's figures, the main one first: beside the controls, or all stacked."""
    inner = width - 10 if width < STACKED else width - COLUMN
    return [(inner, MAIN), *[(max(280, inner // min(details or 1, inner // 280)), DETAIL)] * details]


def figure(panel: Panel) -> dict[str, Any]:
    """A panel as the page takes it."""
    live = LiveFigure(panel)
    drawn = live.to_plotly_json()
    return {**drawn, "labels": live.labels, "home": live.home}


def of_explorer(explorer: Explorer[Any, Any]) -> tuple[list[Any], list[Any]]:
    """The figures and the marks that an explorer shows now."""
    figures = [
        {**each.to_plotly_json(), "labels": each.labels, "home": each.home} for each in explorer.figures.values()
    ]
    names = ("kind", "values", "at", "text", "colour", "figure")
    marks = [{name: getattr(each, name) for name in names} for each in parts(explorer) if isinstance(each, Mark)]
    return figures, marks


def bare_page(browser: Browser) -> Page:
    """A page that can draw them: plotly and the explorers' own scripts."""
    page = browser.new_page(viewport={"width": 1900, "height": 1000})
    page.set_content(
        f"<html><style>body {{margin: 0}} {(STATIC / 'explorer.css').read_text()}</style><body></body></html>"
    )
    page.add_script_tag(path=PLOTLY)
    own, mark = (
        "\n".join((STATIC / name).read_text() for name in names) for names in (("labels.js", "figure.js"), ("mark.js",))
    )
    page.evaluate(
        """async ([own, mark]) => {
            const load = text => import(URL.createObjectURL(new Blob([text], {type: "text/javascript"})));
            const [scripts, {default: drawn}] = [await load(own), await load(mark)];
            window.kitScripts = {...scripts, mark: drawn};
        }""",
        [own + "\nexport {drawn, follow, listen, obstacles, place, wanted};", mark],
    )
    page.add_script_tag(path=Path(__file__).with_name("figures.js"))
    return page


def show(
    page: Page, figures: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]], boxes: Sequence[Size]
) -> None:
    """Draw figures, each in its box, with the marks over them."""
    page.evaluate("([figures, marks, sizes]) => kitFigures.show(figures, marks, sizes)", [figures, marks, boxes])


def faults(page: Page) -> list[str]:
    """What meets or is cut, a line each."""
    return list(page.evaluate("() => kitFigures.faults()"))
