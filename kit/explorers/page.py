"""Small helpers that live in the page: one fits figures to their place; others draw over one without redrawing it."""

from __future__ import annotations

import anywidget
import traitlets

from kit.plots import style


class Fit(anywidget.AnyWidget):
    """Refits the explorer's figures whenever its width changes.

    Plotly measures its place before it is in the page, and later listens to the window only; a figure would stay 700
    pixels wide after being shown late, or after the side bar is folded.
    """

    _esm = """
    export default { render({el}) {
      let last = 0;
      const watch = new ResizeObserver(([entry]) => {
        const width = Math.round(entry.contentRect.width);
        if (width && width !== last) { last = width; window.dispatchEvent(new Event("resize")); }
      });
      watch.observe(el);
      return () => watch.disconnect();
    } };
    """


# Overlays: find figure number `figure` of the explorer, add a group to it, draw at every painting of plotly.
_OVERLAY = """
    const SVG = "http://www.w3.org/2000/svg";
    const overlay = (model, el, kind, draw) => {
      let plot = null, group = null, stopped = false;
      const place = () => {
        const layout = plot && plot._fullLayout;
        if (!layout || !layout.xaxis) { if (group) group.style.display = "none"; return; }
        if (!group || !plot.contains(group)) {
          group = document.createElementNS(SVG, "g");
          group.setAttribute("class", kind);
          plot.querySelector(".main-svg .cartesianlayer").after(group);
        }
        draw(group, layout);
      };
      const find = () => {
        if (stopped) return;
        const box = el.closest(".kit-explorer");
        plot = box && box.querySelectorAll(".js-plotly-plot")[model.get("figure")];
        if (!plot || !plot.on) { requestAnimationFrame(find); return; }
        plot.on("plotly_afterplot", place);
        place();
      };
      model.on("change", place);
      find();
      return () => { stopped = true; model.off("change", place); if (group) group.remove(); };
    };
"""


class Here(anywidget.AnyWidget):
    """The marker "you are here" with its interval, drawn over an explorer's first figure.

    It moves without a redrawing of the figure, which takes plotly longer than the whole way through the kernel.

    Attributes:
        point: x, y, low, high in the figure's own units; empty hides the marker.
        colour: of the marker.
        figure: which of the explorer's figures, from 0.
    """

    point = traitlets.List(traitlets.Float()).tag(sync=True)
    colour = traitlets.Unicode(style.LOOKS["here"].colour).tag(sync=True)
    figure = traitlets.Int(0).tag(sync=True)
    _esm = (
        _OVERLAY
        + """
    export default { render({model, el}) {
      return overlay(model, el, "kit-here", (group, {xaxis, yaxis}) => {
        const [x, y, low, high] = model.get("point");
        if (x === undefined) { group.style.display = "none"; return; }
        if (!group.children.length) {
          const colour = model.get("colour");
          group.innerHTML = `<line stroke="${colour}" stroke-width="2.5"/>
            <line x1="-6" x2="6" stroke="${colour}" stroke-width="2.5"/>
            <line x1="-6" x2="6" stroke="${colour}" stroke-width="2.5"/>
            <path d="M-6,-6L6,6M-6,6L6,-6" stroke="#fff" stroke-width="6"/>
            <path d="M-6,-6L6,6M-6,6L6,-6" stroke="${colour}" stroke-width="4"/>`;
        }
        const across = xaxis.d2p(x), at = yaxis.d2p(y);
        const inside = across >= 0 && across <= xaxis._length && at >= 0 && at <= yaxis._length;
        group.style.display = inside ? "" : "none";
        group.setAttribute("transform", `translate(${xaxis._offset + across},${yaxis._offset + at})`);
        const ends = [yaxis.d2p(high) - at, yaxis.d2p(low) - at];
        const [stem, top, bottom] = group.children;
        stem.setAttribute("y1", ends[0]); stem.setAttribute("y2", ends[1]);
        [top, bottom].forEach((cap, i) => { cap.setAttribute("y1", ends[i]); cap.setAttribute("y2", ends[i]); });
      });
    } };
    """
    )


class Bars(anywidget.AnyWidget):
    """Bars at 0, 1, 2 ... of a figure's x axis, drawn over it: they too move without a redrawing of the figure.

    Attributes:
        heights: in the units of the figure's y axis; each is also written over its bar, as per cent.
        colour: of the bars.
        figure: which of the explorer's figures, from 0.
    """

    heights = traitlets.List(traitlets.Float()).tag(sync=True)
    colour = traitlets.Unicode(style.LOOKS["distilled"].colour).tag(sync=True)
    figure = traitlets.Int(1).tag(sync=True)
    _esm = (
        _OVERLAY
        + """
    export default { render({model, el}) {
      return overlay(model, el, "kit-bars", (group, {xaxis, yaxis}) => {
        const heights = model.get("heights"), floor = yaxis.d2p(0), wide = 0.8 * (xaxis.d2p(1) - xaxis.d2p(0));
        group.setAttribute("transform", `translate(${xaxis._offset},${yaxis._offset})`);
        while (group.children.length > 2 * heights.length) group.lastChild.remove();
        while (group.children.length < 2 * heights.length) {
          const bar = document.createElementNS(SVG, "rect"), text = document.createElementNS(SVG, "text");
          bar.setAttribute("fill", model.get("colour"));
          text.setAttribute("text-anchor", "middle");
          text.style.fontSize = "12px";
          group.append(bar, text);
        }
        heights.forEach((height, i) => {
          const [bar, text] = [group.children[2 * i], group.children[2 * i + 1]], top = yaxis.d2p(height);
          bar.setAttribute("x", xaxis.d2p(i) - wide / 2); bar.setAttribute("width", wide);
          bar.setAttribute("y", top); bar.setAttribute("height", Math.max(0, floor - top));
          text.setAttribute("x", xaxis.d2p(i)); text.setAttribute("y", top - 4);
          text.textContent = (100 * height).toFixed(0);
        });
      });
    } };
    """
    )


class Trials(anywidget.AnyWidget):
    """The trials of a search up to a budget, drawn over a figure: a budget that moves sends one number.

    Attributes:
        trials: x, y, what was spent when it was told, its value (more is better), its size (0 to 1); oldest first.
        budget: trials that were told later are hidden. The newest one shown has a ring, the best a star.
        figure: which of the explorer's figures, from 0.
    """

    trials = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    budget = traitlets.Float(0.0).tag(sync=True)
    figure = traitlets.Int(1).tag(sync=True)
    _esm = (
        _OVERLAY
        + """
    const STAR = "M0,-9L2.6,-3.2L9,-2.6L4.2,1.6L5.6,8L0,4.7L-5.6,8L-4.2,1.6L-9,-2.6L-2.6,-3.2Z";
    export default { render({model, el}) {
      const make = (group, kind, settings) => {
        const node = document.createElementNS(SVG, kind);
        for (const [name, value] of Object.entries(settings)) node.setAttribute(name, value);
        group.append(node);
        return node;
      };
      return overlay(model, el, "kit-trials", (group, {xaxis, yaxis}) => {
        const trials = model.get("trials"), budget = model.get("budget");
        group.setAttribute("transform", `translate(${xaxis._offset},${yaxis._offset})`);
        const dots = [...group.querySelectorAll(".kit-dot")];
        while (dots.length > trials.length) dots.pop().remove();
        while (dots.length < trials.length) {
          dots.push(make(group, "circle", {class: "kit-dot", fill: "#fff", stroke: "#000", "stroke-width": 1.2}));
        }
        let best = -1, last = -1, shown = 0;
        trials.forEach(([x, y, spent, value, size], i) => {
          const visible = spent <= budget;
          dots[i].style.display = visible ? "" : "none";
          if (!visible) return;
          dots[i].setAttribute("cx", xaxis.d2p(x)); dots[i].setAttribute("cy", yaxis.d2p(y));
          dots[i].setAttribute("r", 2 + 3 * size);
          shown += 1; last = i;
          if (best < 0 || value > trials[best][3]) best = i;
        });
        for (const [name, at, kind, settings] of [
          ["kit-newest", last, "circle", {r: 8, fill: "none", stroke: "#fff", "stroke-width": 2}],
          ["kit-best", best, "path", {d: STAR, fill: "#D55E00", stroke: "#fff", "stroke-width": 1.2}],
        ]) {
          const mark = group.querySelector(`.${name}`) || make(group, kind, {class: name, ...settings});
          group.append(mark);  // on top
          mark.style.display = at < 0 ? "none" : "";
          if (at < 0) continue;
          const [x, y] = trials[at];
          mark.setAttribute("transform", `translate(${xaxis.d2p(x)},${yaxis.d2p(y)})`);
        }
        group.setAttribute("data-shown", shown);
      });
    } };
    """
    )


class Cursor(anywidget.AnyWidget):
    """A vertical line over a figure, with a word beside it.

    Attributes:
        x: where, in the figure's own units.
        text: beside the upper end of the line.
        figure: which of the explorer's figures, from 0.
    """

    x = traitlets.Float(0.0).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    figure = traitlets.Int(0).tag(sync=True)
    _esm = (
        _OVERLAY
        + """
    export default { render({model, el}) {
      return overlay(model, el, "kit-cursor", (group, {xaxis, yaxis}) => {
        if (!group.children.length) {
          group.innerHTML = `<line stroke="COLOUR" stroke-width="2"/><text font-size="13" dy="1em"></text>`;
        }
        const [line, text] = group.children, at = xaxis.d2p(model.get("x")), left = at > xaxis._length / 2;
        group.setAttribute("transform", `translate(${xaxis._offset + at},${yaxis._offset})`);
        line.setAttribute("y2", yaxis._length);
        text.setAttribute("x", left ? -6 : 6);
        text.setAttribute("text-anchor", left ? "end" : "start");
        text.setAttribute("y", yaxis._length - 22);
        text.textContent = model.get("text");
      });
    } };
    """.replace("COLOUR", style.LOOKS["here"].colour)
    )


class Aim(anywidget.AnyWidget):
    """Where a trial would be made: a line over a figure with the interval that is expected there; and clicks on it.

    Attributes:
        point: x, y, low, high in the figure's own units; empty hides the line.
        clicked: how many clicks there were, and x of the latest; empty before the first. The number makes a second
            click at the same place a change.
        figure: which of the explorer's figures, from 0.
    """

    point = traitlets.List(traitlets.Float()).tag(sync=True)
    clicked = traitlets.List(traitlets.Float()).tag(sync=True)
    figure = traitlets.Int(0).tag(sync=True)
    _esm = (
        _OVERLAY
        + """
    const STILL = 4;  // pixels: what moves further is a drag, which zooms
    const DOUBLE = 300;  // milliseconds: two clicks within them take a zoom back
    export default { render({model, el}) {
      const forget = overlay(model, el, "kit-aim", (group, {xaxis, yaxis}) => {
        const [x, y, low, high] = model.get("point");
        group.style.display = x === undefined ? "none" : "";
        if (x === undefined) return;
        if (!group.children.length) {
          group.innerHTML = `<line stroke="COLOUR" stroke-width="1" stroke-dasharray="2 3"/>
            <line stroke="COLOUR" stroke-width="2"/>
            <line x1="-6" x2="6" stroke="COLOUR" stroke-width="2"/>
            <line x1="-6" x2="6" stroke="COLOUR" stroke-width="2"/>
            <circle r="4" fill="COLOUR"/><text font-size="12" dy="-5">here</text>`;
        }
        const [whole, stem, top, bottom, dot, word] = group.children, at = xaxis.d2p(x), length = yaxis._length;
        const inside = height => Math.min(Math.max(yaxis.d2p(height), 0), length);
        group.setAttribute("transform", `translate(${xaxis._offset + at},${yaxis._offset})`);
        group.style.display = at >= 0 && at <= xaxis._length ? "" : "none";
        whole.setAttribute("y2", length);
        stem.setAttribute("y1", inside(high)); stem.setAttribute("y2", inside(low));
        for (const [cap, height] of [[top, high], [bottom, low]]) {
          cap.setAttribute("y1", inside(height)); cap.setAttribute("y2", inside(height));
        }
        dot.setAttribute("cy", inside(y));
        const left = at > xaxis._length / 2;
        word.setAttribute("x", left ? -5 : 5); word.setAttribute("text-anchor", left ? "end" : "start");
        word.setAttribute("y", length);
      });
      // Listened to from outside of plotly, which covers the page while a button is down.
      let began = null, waiting = null;
      const place = event => {
        const box = el.closest(".kit-explorer");
        const plot = box && box.querySelectorAll(".js-plotly-plot")[model.get("figure")];
        if (!plot || !plot._fullLayout || !plot._fullLayout.xaxis) return null;
        const {xaxis, yaxis} = plot._fullLayout, frame = plot.getBoundingClientRect();
        const x = event.clientX - frame.left - xaxis._offset, y = event.clientY - frame.top - yaxis._offset;
        const inside = x >= 0 && x <= xaxis._length && y >= 0 && y <= yaxis._length;
        return {x, inside, within: plot.contains(event.target), xaxis, yaxis};
      };
      const down = event => {
        const at = event.button === 0 && place(event);
        began = at && at.inside && at.within ? [event.clientX, event.clientY] : null;
      };
      const zoomed = axis => axis._rangeInitial0 !== undefined &&
        (axis.range[0] !== axis._rangeInitial0 || axis.range[1] !== axis._rangeInitial1);
      const up = event => {
        const still = began && Math.hypot(event.clientX - began[0], event.clientY - began[1]) < STILL;
        began = null;
        const at = still && place(event);
        if (!at || !at.inside) return;
        if (waiting !== null) { clearTimeout(waiting); waiting = null; return; }  // the second of two
        const send = () => {
          waiting = null;
          const [count = 0] = model.get("clicked");
          model.set("clicked", [count + 1, at.xaxis.p2d(at.x)]);
          model.save_changes();
        };
        if (zoomed(at.xaxis) || zoomed(at.yaxis)) waiting = setTimeout(send, DOUBLE); else send();
      };
      const cancel = () => { began = null; };
      document.addEventListener("pointerdown", down, true);
      document.addEventListener("pointerup", up, true);
      document.addEventListener("pointercancel", cancel, true);
      return () => {
        forget();
        clearTimeout(waiting);
        document.removeEventListener("pointerdown", down, true);
        document.removeEventListener("pointerup", up, true);
        document.removeEventListener("pointercancel", cancel, true);
      };
    } };
    """.replace("COLOUR", style.PURPLE)
    )
