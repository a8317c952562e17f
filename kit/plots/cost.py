"""Figures of cost on paper: the roofline with a network's steps, where memory goes, what compressions would buy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kit.cost import Bought, Bound, Hardware, Step, bound
from kit.plots import curves, style
from kit.plots.curves import PREFIXES, Curve, Label, Panel, Trace, amount, three_digits
from kit.plots.search import DETAIL_HEIGHT

Phase = Literal["decode", "prefill"]
LOOKS = {
    "decode": style.Look(style.BLUE, "circle", "solid"),
    "prefill": style.Look(style.ORANGE, "square", "dash"),
    "bytes": style.Look(style.GREEN, "diamond", "solid"),
}
INTENSITIES = (0.1, 4e4)  # FLOPs a byte: ends of the axis, but for steps that are beyond
TIMES = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
TERA = 1e12


def count(value: float) -> str:
    """A number of parameters in three digits, as papers write it: `6.74 B`."""
    return amount(value, "").replace("G", "B").strip()


def seconds(value: float) -> str:
    """A time in three digits: `4.27 ms`, `8.43 hours`."""
    factor, unit = next((each for each in TIMES if value >= 0.9995 * each[0]), TIMES[-1])
    return f"{three_digits(value / factor)} {unit}"


def place(step: Step, limit: Bound) -> list[float]:
    """Where a step stands under the roof: FLOPs a byte; TFLOP/s that it reaches at most, and the interval of that."""
    return [step.intensity, *(step.flops / took / TERA for took in (limit.seconds, limit.high, limit.low))]


def roofline_panel(
    hardware: Hardware | None, steps: Mapping[Phase, tuple[Step, Bound]], batches: Sequence[tuple[int, Step, Bound]]
) -> Panel:
    """The roof of a machine, and how fast the steps of a network can run under it; both axes logarithmic.

    Args:
        hardware: whose roof; None while there is no answer.
        steps: of one batch, with their bounds; all have the same number of bits.
        batches: decoding by the number of texts; empty where there is none.
    """
    low = INTENSITIES[0]
    high = max(INTENSITIES[1], *(2 * step.intensity for step, _ in steps.values()), 0.0)
    bits = next((step.bits for step, _ in steps.values()), 16)
    xs = [low * (high / low) ** (at / 60) for at in range(61)]
    roof = Curve("roof")
    if hardware is not None:
        ridge = hardware.rate(bits) / hardware.bandwidth
        xs = sorted([*xs, ridge])
        limits = [bound(Step(x, 1.0, bits), hardware) for x in xs]
        roof = Curve(
            "roof",
            tuple(xs),
            *zip(*(place(Step(x, 1.0, bits), at)[1:] for x, at in zip(xs, limits, strict=True)), strict=True),
        )
    walk = _points("decode, by texts", [(step, limit) for _, step, limit in batches])
    traces: list[Trace] = [
        curves.band(roof, style.LOOKS["dense"]),
        _line(roof, style.NEUTRAL, "solid", "the roof: %{y:.3~g} TFLOP/s at %{x:.3~g} FLOPs a byte"),
        _line(walk, LOOKS["decode"].colour, "dot", "decode %{customdata} texts: %{y:.3~g} TFLOP/s at most")
        | {"customdata": [f"{texts:,}" for texts, _, _ in batches], "mode": "lines+markers"},
    ]
    found, labels = [walk], list[Label]()
    for phase in ("decode", "prefill"):
        here = [steps[phase]] if phase in steps else []
        curve, look = _points(phase, here), LOOKS[phase]
        found.append(curve)
        hover = "%{fullData.name}: at most %{y:.3~g} TFLOP/s, at %{x:.3~g} FLOPs a byte<extra></extra>"
        marker = {"symbol": look.marker, "size": 13, "color": look.colour}
        traces.append(
            {"name": phase, "mode": "markers", "x": list(curve.x), "y": list(curve.value), "marker": marker}
            | {"hovertemplate": hover}
        )
        for (_, limit), x, y in zip(here, curve.x, curve.value, strict=True):
            said = f"{curves.signed(phase, look)}: {seconds(limit.seconds)} or more"
            labels.append(Label(said, x, y, colour=look.colour))
    if hardware is not None:
        peak = hardware.rate(bits) / TERA
        labels.append(Label(f"compute, {bits} bits: {amount(peak * TERA, 'FLOP/s')}", high / 2, peak, rank=1))
        slope = 0.3 * hardware.rate(bits) / hardware.bandwidth
        at = max(slope / 30, low * 3)
        labels.append(Label(f"memory: {amount(hardware.bandwidth, 'B/s')}", at, at * hardware.bandwidth / TERA, rank=1))
    top = 4 * (hardware.rate(bits) / TERA if hardware else 1.0)
    bottom = 0.5 * low * (hardware.bandwidth / TERA if hardware else 1e-3)
    across = _log("arithmetic intensity, FLOPs for each byte that is moved", low, high)
    of = f" of {hardware.name}" if hardware else ""
    title = f"Roofline{of}: memory is the limit left of the bend, compute right of it"
    layout = style.layout(title, 330, across, _log("TFLOP/s, at most", bottom, top))
    return Panel(traces, layout, (*found, roof), tuple(labels))


def memory_panel(parts: Mapping[str, float], memory: float | None) -> Panel:
    """Bytes by what they are for, against the memory of the machine (None while there is no answer)."""
    longest = max([*parts.values(), 1.0])
    factor, prefix = next((each for each in PREFIXES if longest >= each[0]), (1.0, ""))
    colours = [style.BLUE, style.BLUE, style.BLUE, style.ORANGE, style.GREEN][: len(parts)]
    bars = curves.bars_right(
        list(parts),
        x=[size / factor for size in parts.values()],
        text=[amount(size, "B") for size in parts.values()],
        marker={"color": colours},
        hovertemplate="%{y}: %{text}<extra></extra>",
        name="bytes",
    )
    need = sum(parts.values())
    verdict = (
        "" if memory is None else f": {amount(need, 'B')} of {amount(memory, 'B')}" + ", too much" * (need > memory)
    )
    reach = 1.35 * longest / factor
    x = {"title": f"{prefix}B", "range": [0, reach]}
    y = {"autorange": "reversed", "type": "category", "showgrid": False, "ticks": ""}
    layout = style.layout(f"Where memory goes{verdict}", DETAIL_HEIGHT, x, y, margin={**style.MARGIN, "l": 92})
    return Panel([bars], layout)


def bought_panel(rows: Sequence[Bought], phase: Phase) -> Panel:
    """How many times less memory and time each compression takes than the first of the rows; logarithmic.

    Args:
        rows: as `cost.compressions` gives them; none while there is no answer.
        phase: whose time.
    """
    names, less = [each.name for each in rows[1:]], list[tuple[str, list[float]]]()
    if rows:
        first = rows[0]
        less.append(("bytes", [first.memory / each.memory for each in rows[1:]]))
        less.append((phase, [_time(first, phase) / _time(each, phase) for each in rows[1:]]))
    traces: list[Trace] = []
    for kind in ("bytes", "decode", "prefill"):
        values = next((found for name, found in less if name == kind), [])
        look = LOOKS[kind]
        size = 14 if kind == "bytes" else 8
        symbol = f"{look.marker}-open" if kind == "bytes" else look.marker
        what = "less memory" if kind == "bytes" else f"less time to {kind}"
        traces.append(
            {
                **{"name": kind, "mode": "markers", "x": values, "y": names[: len(values)]},
                "marker": {"symbol": symbol, "size": size, "color": look.colour, "line": {"width": 2}},
                "customdata": ["<br>".join(textwrap.wrap(each.why, 40)) for each in rows[1:]][: len(values)],
                "hovertemplate": f"%{{y}}: %{{x:.2~f}} times {what}<br>%{{customdata}}<extra></extra>",
            }
        )
    ticks = [1, 1.5, 2, 3, 4, 6, 8]
    most = max([2.0, *(value for _, found in less for value in found)])
    x: dict[str, Any] = {"type": "log", "title": "times less", "range": [math.log10(0.85), math.log10(1.15 * most)]}
    x |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks], "tickangle": 0}
    y = {"autorange": "reversed", "type": "category", "tickvals": names, "tickfont": {"size": 11}}
    title = f"What each would buy: ◇ memory, {curves.SIGNS[LOOKS[phase].marker]} time to {phase}"
    layout = style.layout(title, DETAIL_HEIGHT, x, y, margin={**style.MARGIN, "l": 118})
    return Panel(traces, layout)


def _time(row: Bought, phase: Phase) -> float:
    return (row.decode if phase == "decode" and row.decode else row.prefill).seconds


def _points(name: str, steps: Sequence[tuple[Step, Bound]]) -> Curve:
    if not steps:
        return Curve(name)
    return Curve(name, *map(tuple, zip(*(place(*each) for each in steps), strict=True)))


def _line(curve: Curve, colour: str, dash: str, said: str) -> Trace:
    look = {
        "mode": "lines",
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"size": 5, "color": colour},
    }
    return {
        "name": curve.label,
        "x": list(curve.x),
        "y": list(curve.value),
        **look,
        "hovertemplate": f"{said}<extra></extra>",
    }


def _log(title: str, low: float, high: float) -> dict[str, Any]:
    """A log axis with powers of ten."""
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    ticks = [10.0**decade for decade in decades]
    plain = [f"{tick:,g}" if 1e-3 < tick < 1e5 else f"10<sup>{math.log10(tick):.0f}</sup>" for tick in ticks]
    text = {"tickvals": ticks, "ticktext": plain, "tickangle": 0}
    return {"type": "log", "title": title, "range": [math.log10(low), math.log10(high)], **text}
