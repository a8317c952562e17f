// A mark drawn over a figure of an explorer, without redrawing the figure: find figure number `figure`, add a group to
// it, draw again at every change of the mark and after every painting of plotly. `kind` says which of DRAW draws.
const SVG = "http://www.w3.org/2000/svg";
const STAR = "M0,-9L2.6,-3.2L9,-2.6L4.2,1.6L5.6,8L0,4.7L-5.6,8L-4.2,1.6L-9,-2.6L-2.6,-3.2Z";
const CAP = "M-6,0H6";

function make(group, tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  set(node, attributes);
  group.append(node);
  return node;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

function move(group, axes, x = 0, y = 0) {
  group.setAttribute("transform", `translate(${axes.xaxis._offset + x},${axes.yaxis._offset + y})`);
}

// Each returns what it covers, in pixels from the corner of the plot: `boxes`; and where its `text` may stand: along
// `path`.
const DRAW = {
  // values: x, y, low, high. A cross with its interval; a `text` stands beside it.
  point(group, axes, {values: [x, y, low, high], text, colour}) {
    const {xaxis, yaxis} = axes, across = xaxis.d2p(x), at = yaxis.d2p(y);
    if (!group.children.length) {
      make(group, "line", {stroke: colour, "stroke-width": 2.5});
      for (let end = 0; end < 2; end++) make(group, "path", {d: CAP, stroke: colour, "stroke-width": 2.5});
      for (const [stroke, wide] of [["#fff", 6], [colour, 4]]) {
        make(group, "path", {d: "M-6,-6L6,6M-6,6L6,-6", stroke, "stroke-width": wide});
      }
    }
    const inside = across >= 0 && across <= xaxis._length && at >= 0 && at <= yaxis._length;
    group.style.display = inside ? "" : "none";
    move(group, axes, across, at);
    const [stem, ...caps] = group.children, ends = [yaxis.d2p(high) - at, yaxis.d2p(low) - at];
    set(stem, {y1: ends[0], y2: ends[1]});
    ends.forEach((end, i) => set(caps[i], {transform: `translate(0,${end})`}));
    if (!inside) return {boxes: []};
    const boxes = [[across - 8, at - 8, across + 8, at + 8], [across - 7, at + ends[0], across + 7, at + ends[1]]];
    return {boxes, text, path: [[across, at - 10], [across, at + 10]]};
  },

  // values: heights at x = 0, 1, 2 ...; each is also written over its bar, as per cent, and over a point that is there.
  bars(group, axes, {values, colour}, [points]) {
    const {xaxis, yaxis} = axes, floor = yaxis.d2p(0), wide = 0.8 * (xaxis.d2p(1) - xaxis.d2p(0));
    move(group, axes);
    while (group.children.length > 2 * values.length) group.lastChild.remove();
    while (group.children.length < 2 * values.length) {
      make(group, "rect", {fill: colour});
      make(group, "text", {"text-anchor": "middle", "font-size": 12});
    }
    values.forEach((height, i) => {
      const [bar, text] = [group.children[2 * i], group.children[2 * i + 1]], top = yaxis.d2p(height);
      set(bar, {x: xaxis.d2p(i) - wide / 2, width: wide, y: top, height: Math.max(0, floor - top)});
      const point = points ? yaxis.d2p(points.y[i]) : NaN, over = point > top - 16 && point < top + 2 ? point : top;
      set(text, {x: xaxis.d2p(i), y: Math.min(top, over) - 4});
      text.textContent = (100 * height).toFixed(0);
    });
  },

  // values: trials, oldest first, each x, y, what was spent when it was told, its value (more is better), its size
  // (0 to 1) and, where there is one, its colour. Those told after `at` are hidden; the newest one shown has a ring, the
  // best a star.
  trials(group, axes, {values: trials, at: budget, colour}) {
    const {xaxis, yaxis} = axes;
    move(group, axes);
    const dots = [...group.querySelectorAll(".kit-dot")];
    while (dots.length > trials.length) dots.pop().remove();
    while (dots.length < trials.length) {
      dots.push(make(group, "circle", {class: "kit-dot", stroke: "#000", "stroke-width": 1.2}));
    }
    let best = -1, last = -1, shown = 0;
    trials.forEach(([x, y, spent, value, size, fill = "#fff"], i) => {
      const visible = spent <= budget;
      dots[i].style.display = visible ? "" : "none";
      if (!visible) return;
      set(dots[i], {cx: xaxis.d2p(x), cy: yaxis.d2p(y), r: 2 + 3 * size, fill});
      shown += 1; last = i;
      if (best < 0 || value > trials[best][3]) best = i;
    });
    for (const [name, index, tag, attributes] of [
      ["kit-newest", last, "circle", {r: 8, fill: "none", stroke: "#fff", "stroke-width": 2}],
      ["kit-best", best, "path", {d: STAR, fill: colour, stroke: "#fff", "stroke-width": 1.2}],
    ]) {
      const mark = group.querySelector(`.${name}`) || make(group, tag, {class: name, ...attributes});
      group.append(mark);  // on top
      mark.style.display = index < 0 ? "none" : "";
      if (index < 0) continue;
      const [x, y] = trials[index];
      set(mark, {transform: `translate(${xaxis.d2p(x)},${yaxis.d2p(y)})`});
    }
    group.setAttribute("data-shown", shown);
  },

  // A vertical line at `at`, with `text` beside it.
  cursor(group, axes, {at: x, text, colour}) {
    const {xaxis, yaxis} = axes, at = xaxis.d2p(x), length = yaxis._length;
    if (!group.children.length) make(group, "line", {stroke: colour, "stroke-width": 2});
    move(group, axes, at);
    set(group.firstChild, {y2: length});
    return {boxes: [[at - 1, 0, at + 1, length]], text, path: [[at, length], [at, 0]]};
  },

  // values: x, y, low, high. A vertical line with the interval that is expected there, cut at the ends of the axis.
  expected(group, axes, {values: [x, y, low, high], text, colour}) {
    const {xaxis, yaxis} = axes, at = xaxis.d2p(x), length = yaxis._length;
    if (!group.children.length) {
      make(group, "line", {stroke: colour, "stroke-width": 1, "stroke-dasharray": "2 3"});
      make(group, "line", {stroke: colour, "stroke-width": 2});
      for (let end = 0; end < 2; end++) make(group, "path", {d: CAP, stroke: colour, "stroke-width": 2});
      make(group, "circle", {r: 4, fill: colour});
    }
    const [whole, stem, top, bottom, dot] = group.children;
    const inside = height => Math.min(Math.max(yaxis.d2p(height), 0), length);
    move(group, axes, at);
    group.style.display = at >= 0 && at <= xaxis._length ? "" : "none";
    set(whole, {y2: length});
    set(stem, {y1: inside(high), y2: inside(low)});
    for (const [cap, height] of [[top, high], [bottom, low]]) set(cap, {transform: `translate(0,${inside(height)})`});
    set(dot, {cy: inside(y)});
    return {boxes: [[at - 6, inside(high), at + 6, inside(low)]], text, path: [[at, length], [at, 0]]};
  },
};

export default {
  initialize({model}) { heed(model); },
  render({model, el}) {
    const kind = model.get("kind");
    let plot = null, group = null, stopped = false;
    const plotOf = () => {
      const box = el.closest(".kit-explorer");
      return box && box.querySelector(`.kit-figure-${model.get("figure")} .js-plotly-plot`);
    };
    const draw = () => {
      const axes = plot && plot._fullLayout;
      const state = Object.fromEntries(["values", "at", "text", "colour"].map(name => [name, model.get(name)]));
      const empty = kind !== "cursor" && kind !== "trials" && !state.values.length;
      if (!axes || !axes.xaxis || empty) { tell(null); if (group) group.style.display = "none"; return; }
      if (!group || !plot.contains(group)) {
        group = document.createElementNS(SVG, "g");
        group.setAttribute("class", `kit-${kind}`);
        plot.querySelector(".main-svg .cartesianlayer").after(group);
      }
      group.style.display = "";
      tell(DRAW[kind](group, axes, state, plot._fullData.filter(trace => trace.mode === "markers")));
    };
    // What it covers and what it is called: names in the figure keep off it (`labels.js`, which draws its name, too).
    const tell = covers => {
      if (!plot) return;
      const marks = (plot.kitMarks ??= new Map()), moved = covers || marks.get(model)?.boxes;
      marks.set(model, covers || {});
      if (moved) plot.dispatchEvent(new Event("kit-mark"));  // what covers nothing moves no name
    };
    const find = () => {
      if (stopped) return;
      plot = plotOf();
      if (!plot || !plot.on) { requestAnimationFrame(find); return; }
      plot.on("plotly_afterplot", draw);
      draw();
    };
    model.on("change", draw);
    find();
    return () => {
      stopped = true;
      model.off("change", draw);
      if (plot && plot.kitMarks) plot.kitMarks.delete(model);
      if (group) group.remove();
    };
  },
};
