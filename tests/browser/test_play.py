"""The page of `make play`: every explorer, no code, each with a sentence and a link to its notebook."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser

from kit import explorers
from kit.lab.__main__ import COPIES
from tests.browser.lab import NOTEBOOKS, ROOT, is_local, serve
from tests.notebooks.kernels import kernel_environment

PATIENCE = 300_000  # milliseconds, against hangs


def test_all_explorers_appear_and_a_slider_moves_the_picture(browser: Browser, tmp_path: Path) -> None:
    names = {name for name in vars(explorers) if name.endswith("Explorer")}
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    foreign: list[str] = []
    page.on("request", lambda request: None if is_local(request.url) else foreign.append(request.url))
    with serve(ROOT / "kit" / "lab", env=kernel_environment(tmp_path)) as server:
        refused = page.goto(f"{server.url}voila/render/play.ipynb")
        assert refused is not None and "/login" in page.url, "the token is asked for"
        page.goto(f"{server.url}voila/render/play.ipynb?token={server.token}", wait_until="commit")

        first = page.locator(".kit-explorer").first
        first.locator(".main-svg").first.wait_for()
        assert page.get_by_role("heading", level=2).count() == len(names), "each has a heading"
        assert page.locator("pre:visible, .jp-CodeMirrorEditor:visible, .cm-editor:visible").count() == 0, "no code"

        status = first.locator(".kit-status")
        before = status.inner_text()
        slider = first.get_by_role("slider").first
        slider.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("([node, before]) => node.innerText !== before", arg=[status.element_handle(), before])

        page.locator(".kit-explorer").nth(len(names) - 1).wait_for(state="attached")
        assert page.locator(".kit-explorer").count() == len(names)
        links = page.locator("a[href*='.ipynb']").evaluate_all("all => all.map(each => each.pathname)")
        linked = {found for link in links if (found := re.fullmatch(rf"/lab/tree/{COPIES}/(\w+\.ipynb)", link))}
        assert {found[1] for found in linked} <= {path.name for path in NOTEBOOKS.glob("*.ipynb")}
        assert len(linked) >= len(names), "each has its link"
        assert foreign == []
    context.close()
