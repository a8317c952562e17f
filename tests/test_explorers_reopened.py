"""What a page is told that is opened after an explorer has changed."""

from __future__ import annotations

from typing import Any

from kit.explorers.layout import LiveFigure
from kit.plots.curves import Panel


def panel(y: list[float], **layout: Any) -> Panel:
    return Panel([{"x": [1, 2, 3], "y": y, "name": "measured"}], layout)


def test_a_page_opened_later_sees_what_a_figure_shows_now() -> None:
    figure = LiveFigure(panel([1.0, 2.0, 3.0], title={"text": "before"}))
    fresh = LiveFigure(now := panel([3.0, 2.0, 1.0], title={"text": "after"}))
    figure.show(now)
    for name in ("_widget_data", "_widget_layout"):
        told, wanted = figure.get_state()[name], fresh.get_state()[name]
        for trace in (*told, *wanted) if name == "_widget_data" else ():
            trace.pop("uid", None)
        assert told == wanted
    assert set(figure.get_state("_view_count")) == {"_view_count"}, "asked for one thing, it tells that alone"
