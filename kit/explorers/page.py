"""Two small helpers that live in the page: one fits figures to their place, one draws the marker "you are here"."""

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


class Here(anywidget.AnyWidget):
    """The marker "you are here" with its interval, drawn over an explorer's first figure.

    It moves without a redrawing of the figure, which takes plotly longer than the whole way through the kernel.

    Attributes:
        point: x, y, low, high in the figure's own units; empty hides the marker.
        colour: of the marker.
    """

    point = traitlets.List(traitlets.Float()).tag(sync=True)
    colour = traitlets.Unicode(style.LOOKS["here"].colour).tag(sync=True)
    _esm = """
    const SVG = "http://www.w3.org/2000/svg";
    export default { render({model, el}) {
      let plot = null, group = null, stopped = false;
      const place = () => {
        const [x, y, low, high] = model.get("point"), layout = plot && plot._fullLayout;
        if (x === undefined || !layout || !layout.xaxis) { if (group) group.style.display = "none"; return; }
        if (!group || !plot.contains(group)) {
          group = document.createElementNS(SVG, "g");
          group.setAttribute("class", "kit-here");
          const colour = model.get("colour");
          group.innerHTML = `<line stroke="${colour}" stroke-width="2.5"/>
            <line x1="-6" x2="6" stroke="${colour}" stroke-width="2.5"/>
            <line x1="-6" x2="6" stroke="${colour}" stroke-width="2.5"/>
            <path d="M-6,-6L6,6M-6,6L6,-6" stroke="#fff" stroke-width="6"/>
            <path d="M-6,-6L6,6M-6,6L6,-6" stroke="${colour}" stroke-width="4"/>`;
          plot.querySelector(".main-svg .cartesianlayer").after(group);
        }
        const {xaxis, yaxis} = layout, across = xaxis.d2p(x), at = yaxis.d2p(y);
        const inside = across >= 0 && across <= xaxis._length && at >= 0 && at <= yaxis._length;
        group.style.display = inside ? "" : "none";
        group.setAttribute("transform", `translate(${xaxis._offset + across},${yaxis._offset + at})`);
        const ends = [yaxis.d2p(high) - at, yaxis.d2p(low) - at];
        const [stem, top, bottom] = group.children;
        stem.setAttribute("y1", ends[0]); stem.setAttribute("y2", ends[1]);
        [top, bottom].forEach((cap, i) => { cap.setAttribute("y1", ends[i]); cap.setAttribute("y2", ends[i]); });
      };
      const find = () => {
        if (stopped) return;
        const box = el.closest(".kit-explorer");
        plot = box && box.querySelector(".js-plotly-plot");
        if (!plot || !plot.on) { requestAnimationFrame(find); return; }
        plot.on("plotly_afterplot", place);
        place();
      };
      model.on("change:point", place);
      find();
      return () => { stopped = true; model.off("change:point", place); if (group) group.remove(); };
    } };
    """
