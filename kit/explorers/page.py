"""Small helpers that live in the page: one fits figures to their place; two draw over a figure without redrawing it."""

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


# Both overlays: find figure number `figure` of the explorer, add a group to it, draw at every painting of plotly.
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
