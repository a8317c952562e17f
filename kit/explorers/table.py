"""A table to read, inside a widget: measured digits that differ between machines stay out of the stored text."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import ipywidgets as widgets
import pandas as pd

from kit import checks
from kit.explorers.layout import TitledHTML
from kit.explorers.marks import style_tag

LONG = 50  # letters of a text that may be broken into lines
Format = str | Callable[[Any], str]


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
        TypeError: `frame` is no DataFrame, `title` no text, or a format is neither text nor a function.
        ValueError: a format for a column that is not there, or one that does not fit a value.
    """
    checks.instance("frame", frame, pd.DataFrame, "a pandas DataFrame")
    checks.instance("title", title, str, "a text")
    checks.instance("formats", formats, (Mapping, type(None)), "a format for each of some columns, by name")
    indexed = frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex)
    if indexed:
        frame = frame.rename_axis(index=frame.index.name or "").reset_index()
    names = [str(name) for name in frame.columns]
    formats = dict(formats or {})
    for name in formats:
        checks.one_of("a column in formats", name, names)
    head, columns = [], []
    for at, name in enumerate(names):
        values = frame.iloc[:, at].tolist()
        texts = [_written(name, value, formats.get(name)) for value in values]
        numeric = any(map(_is_number, values)) and not any(isinstance(value, str) for value in values)
        kind = "kit-number" if numeric else "kit-long" if any(len(text) > LONG for text in texts) else "kit-text"
        head.append(f'<th scope="col" class="{kind}">{html.escape(name)}</th>')
        opened, closed = ('th scope="row"', "th") if indexed and at == 0 else ("td", "td")
        columns.append([f'<{opened} class="{kind}">{html.escape(text)}</{closed}>' for text in texts])
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    caption = html.escape(title, quote=True)
    shown = TitledHTML(
        title,
        f'{style_tag("table.css")}<div role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody></table></div>",
        layout={"width": "100%", "margin": "0"},
    )
    return shown.add_class("kit-table")


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
