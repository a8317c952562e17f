"""A claim is checked where it is made: it is drawn, and a notebook stops where it does not hold."""

from __future__ import annotations

import io

from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kit import checks
from kit.plots.claim import Pairs, claim_figure


def claim(sentence: str, *rows: Pairs, unit: str = "%", of: str = "pairs") -> None:
    """Draw a claim, then stop where the numbers do not bear it out.

    It holds when in every row the whole 95 % interval of the mean difference lies where the row says. Strict comparing
    of stored outputs sees the sentence and the number of pairs only: put no measured digits into it.

    Args:
        sentence: the claim, plain text.
        rows: its comparisons.
        unit: `%` for shares, shown as per cent and points; any other text for numbers shown as they are.
        of: what a pair is: seeds, networks, images.

    Raises:
        AssertionError: it does not hold; the message gives the row, its interval and what was claimed.
        TypeError: `sentence`, `unit` or `of` is no text, or a row is no `Pairs`.
        ValueError: no row.
    """
    for name, text in (("sentence", sentence), ("unit", unit), ("of", of)):
        checks.instance(name, text, str, "a text")
    for row in rows:
        checks.instance("rows", row, Pairs, "comparisons, each a Pairs")
    if not rows:
        raise ValueError("rows needs at least one comparison, a Pairs; got none.")
    failed = [row.said(unit) for row in rows if not row.holds]
    counts = sorted({row.difference.n for row in rows})
    verdict = f"{'Does not hold' if failed else 'Holds'} over {' and '.join(map(str, counts))} {of}: {sentence}"
    picture = io.BytesIO()
    FigureCanvasAgg(claim_figure(sentence, rows, unit=unit, of=of)).print_png(picture)
    display({"image/png": picture.getvalue(), "text/plain": verdict}, raw=True)
    if failed:
        raise AssertionError(f"{verdict} Measured, {'; '.join(failed)}.")
