"""Figures of two objectives by hand: the plane with its front, what each network adds, what each weight finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kit.plots import curves, style
from kit.plots.curves import Curve, Label, Panel, Trace

WEIGHTS = tuple(round(0.05 * at, 2) for at in range(21))
FRONT, BEATEN = style.Look(style.BLUE, "circle", "solid"), style.Look(style.NEUTRAL, "circle-open", "solid")
YOU, FOUND, CORNER = style.LOOKS["you"], style.LOOKS["proposal"], style.Look(style.NEUTRAL, "square-open", "solid")
SUMS = {"color": style.GREEN, "dash": "dash", "width": 2}
HOVER = "%{customdata}: %{x:g} kB, %{y:g} % error<extra></extra>"


def stairs(losses: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The border of what a front dominates, from the corner's height down to its width; none of no points.

    Args:
        losses: of the front, [k, 2].
        corner: where it ends, [2].
    """
    inside = losses[(losses < corner).all(1)]
    inside = inside[np.argsort(inside[:, 0])]
    heights = [corner[1], *inside[:, 1]]
    steps = [(x, y) for x, *ys in zip(inside[:, 0], heights, heights[1:], strict=False) for y in ys]
    ends = [(corner[0], heights[-1])] * bool(steps)
    return np.array([*steps, *ends]).reshape(-1, 2)


def plane_panel(
    names: Sequence[str], losses: np.ndarray, ahead: np.ndarray, corner: np.ndarray, sums: np.ndarray, chosen: int
) -> Panel:
    """Networks by size (kB) and error (per cent), the last one the reader's; less is better in both.

    Args:
        names: of the networks, [n].
        losses: size and error of each, [n, 2]; no rows where there is no answer yet.
        ahead: which of them are on the front, [n].
        corner: where the dominated area ends, [2].
        sums: two ends of the line of networks whose weighted sum is the smallest, [2, 2].
        chosen: the network whose sum that is.
    """
    edge = stairs(losses[ahead], corner)
    shape = np.vstack([edge, [corner], edge[:1]]) if len(edge) else edge
    area: Trace = {"name": "dominated area", "mode": "lines", "line": {"color": style.BLUE, "width": 1, "dash": "dot"}}
    area |= {"fill": "toself", "fillcolor": style.faint(style.BLUE, 0.15), "hoverinfo": "skip", **_xy(shape)}
    line: Trace = {"name": "equal sums", "mode": "lines", "line": SUMS, "hoverinfo": "skip", **_xy(sums)}
    yours = np.arange(len(losses)) == len(losses) - 1
    groups = (("dominated", ~ahead & ~yours, BEATEN), ("front", ahead & ~yours, FRONT), ("yours", yours, YOU))
    traces, found = [area, line], list[Curve]()
    star: Trace = {"name": "smallest sum", "mode": "markers", **_xy(losses[chosen : chosen + 1]), "hoverinfo": "skip"}
    traces.append(star | {"marker": {"symbol": "circle-open", "size": 22, "color": style.GREEN, "line": {"width": 3}}})
    for name, which, look in groups:
        x, y = losses[which].T.tolist()
        found.append(Curve(name, *map(tuple, (x, y, y, y))))
        marker: Trace = {"symbol": look.marker, "size": 11, "color": look.colour, "line": {"width": 2}}
        said = [each for each, here in zip(names, which, strict=True) if here]
        traces.append({"name": name, "mode": "markers", "marker": marker, "customdata": said, "hovertemplate": HOVER})
        traces[-1] |= {"x": x, "y": y}
    marker = {"symbol": CORNER.marker, "size": 11, "color": CORNER.colour, "line": {"width": 2}}
    traces.append({"name": "corner", "mode": "markers", "marker": marker, **_xy(corner[None]), "hoverinfo": "skip"})
    labels = [Label(name, x, y) for name, (x, y) in zip(names, losses, strict=True)]
    labels.append(Label("corner", float(corner[0]), float(corner[1]), rank=1))
    reach = np.maximum(1.08 * corner, [16.0, 27.0])
    x = {"title": "size, kB", "range": [0, float(reach[0])]}
    y = {"title": "error, %", "range": [0, float(reach[1])]}
    title = "● front, ○ dominated, ✖ yours; ring: the smallest sum"
    return Panel(traces, style.layout(title, 330, x, y), tuple(found), tuple(labels))


def alone_panel(names: Sequence[str], alone: Sequence[float], top: float) -> Panel:
    """The area that would be lost without each network, kB x per cent; `top` is the end of the axis."""
    bars: Trace = {"type": "bar", "x": list(names), "y": list(alone), "marker": {"color": style.BLUE}}
    bars |= {"name": "area lost", "hovertemplate": "without %{x}: %{y:.1f} kB x % less<extra></extra>"}
    x, y = {"title": "network on the front", "type": "category"}, {"title": "area lost, kB x %", "range": [0, top]}
    return Panel([bars], style.layout("Area that only this network adds", 220, x, y))


def weights_panel(sizes: Sequence[float], weight: float | None) -> Panel:
    """The size (kB) of the network with the smallest weighted sum, for each of `WEIGHTS`; a ring at the present one."""
    curve = Curve("chosen", WEIGHTS[: len(sizes)], tuple(sizes), tuple(sizes), tuple(sizes))
    said = {"at": "", "hovertemplate": "weight %{x:g}: %{y:g} kB<extra></extra>"}
    steps = curves.line(curve, FOUND, mode="markers", marker={"size": 7, "color": style.GREEN}, **said)
    at = [] if weight is None else [WEIGHTS.index(weight)]
    ring = {"symbol": "circle-open", "size": 18, "color": style.GREEN, "line": {"width": 3}}
    here: Trace = {"name": "here", "mode": "markers", "marker": ring, "hoverinfo": "skip"}
    here |= {"x": [WEIGHTS[each] for each in at], "y": [sizes[each] for each in at]}
    x, y = {"title": "weight of the error", "range": [-0.03, 1.03]}, {"title": "chosen size, kB", "range": [0, 16]}
    return Panel([steps, here], style.layout("What each weight chooses", 220, x, y), (curve,))


def _xy(points: np.ndarray) -> dict[str, list[float]]:
    """[n, 2] as plotly takes them."""
    x, y = points.reshape(-1, 2).T.tolist()
    return {"x": x, "y": y}
