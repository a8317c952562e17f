"""A table to read, inside a widget: measured digits that differ between machines stay out of the stored text."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import ipywidgets as widgets
import pandas as pd

from kit.explorers.base import bundle_with
from kit.plots import still

LONG = 50  # letters of a text that may be broken into lines
Format = str | Callable[[Any], str]

_CSS = """<style>
.kit-table { max-width: 100%; min-width: 0; overflow: hidden; }
.kit-table > .widget-html-content { min-width: 0; flex: 1 1 0; overflow: hidden; }
.kit-table [role="region"] { overflow-x: auto; }
.kit-table [role="region"]:focus-visible { outline: 2px solid var(--jp-brand-color1, #2196f3); }
.kit-table table { border-collapse: collapse; border: none; font-size: 13px; line-height: 1.5;
  color: var(--jp-ui-font-color1, inherit); font-variant-numeric: tabular-nums; }
.kit-table caption { caption-side: top; text-align: left; font-weight: bold; padding: 4px 0;
  color: var(--jp-ui-font-color1, inherit); }
.kit-table th, .kit-table td { padding: 3px 12px; text-align: left; white-space: nowrap; border: none; }
.kit-table thead th { border-bottom: 1px solid var(--jp-border-color1, #9e9e9e); vertical-align: bottom; }
.kit-table tbody tr { border-bottom: 1px solid var(--jp-border-color2, #bdbdbd); }
.kit-table .kit-number { text-align: right; }
.kit-table .kit-long { white-space: normal; min-width: 20em; }
</style>"""


def table(frame: pd.DataFrame, title: str, formats: Mapping[str, Format] | None = None) -> widgets.HTML:
    """Show a table in a widget.

    Numbers stand on the right, everything else on the left. Without a format, whole numbers get thousands
    separators, other numbers four digits, and what is missing a dash. The index is shown where it has a
    name or is not just 0, 1, 2 ...

    Args:
        frame: the table; not changed.
        title: its caption, plain text; also all that strict comparing of stored outputs sees.
        formats: for a column's name a format as in `format(value, ".1f")`, or a function from a value to its text.

    Raises:
        TypeError: `frame` is no DataFrame, or a format is neither text nor a function.
        ValueError: a format for a column that is not there, or one that does not fit a value.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame must be a pandas DataFrame; got {type(frame).__name__}.")
    formats = dict(formats or {})
    indexed = frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex)
    if indexed:
        frame = frame.rename_axis(index=frame.index.name or "").reset_index()
    names = [str(name) for name in frame.columns]
    if unknown := [name for name in formats if name not in names]:
        raise ValueError(f"formats must name columns of the frame ({', '.join(names)}); got {unknown[0]!r}.")
    columns = [frame.iloc[:, at].tolist() for at in range(len(names))]
    texts = [
        [_written(name, value, formats.get(name)) for value in column]
        for name, column in zip(names, columns, strict=True)
    ]
    numeric = [
        any(map(_is_number, column)) and not any(isinstance(value, str) for value in column) for column in columns
    ]
    return _Table(title, names, [list(row) for row in zip(*texts, strict=True)], numeric, indexed)


class _Table(widgets.HTML):
    """The table itself: HTML with a stable text form, and a picture where one is asked for."""

    def __init__(self, title: str, names: list[str], rows: list[list[str]], numeric: list[bool], indexed: bool) -> None:
        self.title, self.names, self.rows, self.numeric = title, names, rows, numeric
        long = [any(len(row[at]) > LONG for row in rows) for at in range(len(names))]
        kinds = [
            f' class="{"kit-number" if number else "kit-long" if letters else "kit-text"}"'
            for number, letters in zip(numeric, long, strict=True)
        ]
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in zip(names, kinds, strict=True)
        )
        body = []
        for row in rows:
            cells = [f"<td{kind}>{html.escape(text)}</td>" for text, kind in zip(row, kinds, strict=True)]
            if indexed:
                cells[0] = f'<th scope="row"{kinds[0]}>{html.escape(row[0])}</th>'
            body.append(f"<tr>{''.join(cells)}</tr>")
        name = html.escape(title, quote=True)
        super().__init__(
            f'{_CSS}<div role="region" tabindex="0" aria-label="{name}"><table>'
            f"<caption>{name}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>",
            layout={"width": "100%", "margin": "0"},
        )
        self.add_class("kit-table")

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """As `bundle_with`."""
        bundle = super()._repr_mimebundle_(**settings)
        return bundle_with(bundle, self.title, lambda: still.table_png(self.title, self.names, self.rows, self.numeric))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _written(column: str, value: Any, how: Format | None) -> str:
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if how is None:
        if not _is_number(value):
            return str(value)
        return f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
    if not isinstance(how, str) and not callable(how):
        raise TypeError(f"formats[{column!r}] must be a format such as '.1f', or a function; got {how!r}.")
    try:
        return str(format(value, how) if isinstance(how, str) else how(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"formats[{column!r}] = {how!r} does not fit the value {value!r}: {error}.") from error
