// Plotly's figure, its five megabytes read once for all figures of a page, when the first is shown and the page has
// nothing else to do: anywidget gives each widget two seconds to begin, and those that begin meanwhile would miss them.
const read = (globalThis.kitFigures ??= new Map());
const idle = () => new Promise(done => (globalThis.requestIdleCallback ?? setTimeout)(done, {timeout: 5000}));

async function load(text) {
  await idle();
  const address = URL.createObjectURL(new Blob([text], {type: "text/javascript"}));
  const module = await import(/* webpackIgnore: true */ address);
  tame(module.FigureView.prototype);
  return module;
}

async function figure(text) {
  if (!read.has(text)) read.set(text, load(text));
  return (await read.get(text)).default();
}

// A figure may be shown several times, as in a view. One that is out of sight is not painted: each painting takes the
// page some 20 ms. Once it comes into sight it is made whole. Nor does a figure report plotly's defaults to the kernel
// after each painting, which nothing here needs.
function tame(view) {
  for (const name of ["_sendTraceDeltas", "_sendLayoutDelta"]) view[name] = () => {};
  for (const name of ["do_restyle", "do_relayout", "do_update"]) {
    const paint = view[name];
    view[name] = function () {
      if (this.gone) return;
      if (this.hidden) this.stale = true; else paint.call(this);
    };
  }
  const render = view.perform_render, remove = view.remove;
  view.perform_render = function () {
    this.sight = new IntersectionObserver(entries => {
      this.hidden = !entries.at(-1).isIntersecting;
      if (!this.hidden && this.stale) { this.stale = false; whole(this); }
    }, {rootMargin: "300px", scrollMargin: "300px"});  // of the window, and of what scrolls in it
    this.hidden = true;
    const drawn = ({detail}) => {  // before that, a plot is not to be touched
      if (detail.element !== this.el) return;
      document.removeEventListener("plotlywidget-after-render", drawn);
      if (!this.gone) this.sight.observe(this.el);
    };
    for (const name of ["data", "layout"]) {  // all of it comes anew
      this.model.on(`change:_widget_${name}`, () => {
        if (this.hidden || this.gone) this.stale = true; else whole(this);
      });
    }
    document.addEventListener("plotlywidget-after-render", drawn);
    render.call(this);
  };
  view.remove = function () {
    this.gone = true;
    this.sight.disconnect();
    remove.call(this);
  };
  // By plotly's own steps, each given its message.
  const whole = self => {
    const model = self.model, data = structuredClone(model.get("_widget_data")), layout = structuredClone(model.get("_widget_layout"));
    const say = (step, message) => {
      self.model = new Proxy(model, {
        get: (target, name) => name === "get" ? key => key.startsWith("_py2js") ? message : target.get(key) : target[name],
      });
      try { view[step].call(self); } finally { self.model = model; }
    };
    say("do_deleteTraces", {delete_inds: self.el.data.map((_, at) => at)});
    say("do_addTraces", {trace_data: data});
    say("do_relayout", {relayout_data: layout, source_view_id: null});
  };
}

// Names drawn over the figure, and the line that says that it is zoomed; home: the ranges that a double click goes to.
function follow(plot, model) {
  let group = null, before = new Map(), pending = 0;
  const show = () => {
    pending = 0;
    const axes = plot._fullLayout;
    if (!axes || !axes.xaxis || !axes.yaxis) return;
    const zoomed = goHome(axes, model.get("home"));
    const names = wanted(plot, model.get("labels")), width = axes.xaxis._length, height = axes.yaxis._length;
    if (zoomed) {  // said along the edges, from the upper right corner on
      const path = [[width, 0], [0, 0], [0, height], [width, height]];
      names.unshift({key: ZOOMED, lines: [ZOOMED], wide: textWidth(ZOOMED), high: LINE, path, from: 0});
    }
    if (!names.length && !before.size) return;
    if (!group || !plot.contains(group)) {
      group = document.createElementNS(NS, "g");
      group.setAttribute("class", "kit-labels");
      group.setAttribute("pointer-events", "none");
      plot.querySelector(".main-svg").append(group);
    }
    group.setAttribute("transform", `translate(${axes.xaxis._offset},${axes.yaxis._offset})`);
    before = place(names, {width, height}, obstacles(plot), before);
    draw(group, names, before);
  };
  const soon = () => { pending ||= requestAnimationFrame(show); };
  // Plotly measures its place before it is in the page, and later listens to the window only; asked while it paints, it
  // may forget. A place that it cannot fill is asked for a few times.
  let tries = 0, last = "";
  const fit = () => {
    const {width, height} = plot._fullLayout || {}, {clientWidth: wide, clientHeight: high} = plot;
    if (!wide || !high || Math.max(Math.abs(width - wide), Math.abs(height - high)) <= 1) return;
    const place = `${wide},${high}`;
    tries = place === last ? tries + 1 : 0;
    last = place;
    if (tries < 5) plot._responsiveChartHandler?.();
  };
  const watch = new ResizeObserver(fit);
  const find = () => {
    pending = 0;
    if (!plot.on) { pending = requestAnimationFrame(find); return; }
    const painted = () => { squeeze(plot); fit(); soon(); };
    plot.on("plotly_afterplot", painted);
    if (plot._fullLayout) painted();
    watch.observe(plot);
  };
  model.on("change:labels change:home", soon);
  plot.addEventListener("kit-mark", soon);
  find();
  return () => {
    watch.disconnect();
    cancelAnimationFrame(pending);
    model.off("change:labels change:home", soon);
    plot.removeEventListener("kit-mark", soon);
  };
}

const ZOOMED = "zoomed: double click to reset";

// Tell plotly where a double click goes to, which knows only the ranges of the first painting; whether it is elsewhere.
function goHome(axes, home) {
  return ["xaxis", "yaxis"].map((name, i) => {
    const axis = axes[name], range = home[i];
    if (!range) return axis.autorange === false;
    [axis._rangeInitial0, axis._rangeInitial1] = range;
    return range.some((end, j) => Math.abs(end - axis.range[j]) > 1e-6 * Math.abs(range[1] - range[0]));
  }).some(Boolean);
}

// Clicks are sent as [how many so far, the name of the curve whose point was met or "", x, y]. Listened to from outside
// of plotly, which covers the page while a button is down.
function listen(plot, model) {
  const STILL = 4;  // pixels: what moves further is a drag, which zooms
  const DOUBLE = 300;  // milliseconds: two clicks within them take a zoom back
  const NEAR = 10;  // pixels from a point
  let began = null, waiting = null;
  const at = event => {
    const axes = plot._fullLayout;
    if (!axes || !axes.xaxis || !axes.yaxis) return null;
    const frame = plot.getBoundingClientRect(), {xaxis, yaxis} = axes;
    const x = event.clientX - frame.left - xaxis._offset, y = event.clientY - frame.top - yaxis._offset;
    return x >= 0 && x <= xaxis._length && y >= 0 && y <= yaxis._length ? {x, y, xaxis, yaxis, axes} : null;
  };
  const met = ({x, y, xaxis, yaxis}) => {
    let found = ["", xaxis.p2d(x), yaxis.p2d(y)], least = NEAR;
    for (const {trace, points, markers} of drawn(plot)) {
      if (!markers || trace.hoverinfo === "skip") continue;
      points.forEach(([across, down], i) => {
        const off = Math.hypot(across - x, down - y);
        if (off < least) { least = off; found = [trace.name, trace.x[i], trace.y[i]]; }
      });
    }
    return found;
  };
  const handlers = {
    pointerdown(event) { began = event.button === 0 && plot.contains(event.target) && at(event) ? [event.clientX, event.clientY] : null; },
    pointerup(event) {
      const still = began && Math.hypot(event.clientX - began[0], event.clientY - began[1]) < STILL;
      began = null;
      const place = still && at(event);
      if (!place) return;
      if (waiting !== null) { clearTimeout(waiting); waiting = null; return; }  // the second of two
      const found = met(place);
      const send = () => {
        waiting = null;
        const [count = 0] = model.get("clicked");
        model.set("clicked", [count + 1, ...found]);
        model.save_changes();
      };
      if (goHome(place.axes, model.get("home"))) waiting = setTimeout(send, DOUBLE); else send();
    },
    pointercancel() { began = null; },
  };
  for (const [name, handler] of Object.entries(handlers)) document.addEventListener(name, handler, true);
  return () => {
    clearTimeout(waiting);
    for (const [name, handler] of Object.entries(handlers)) document.removeEventListener(name, handler, true);
  };
}

const STEPS = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update"];

export default () => {
  let begin, ready;
  return {
    initialize(context) {
      const {model} = context, ask = heed(model);
      let missed = false;
      const miss = () => { missed = true; };
      for (const step of STEPS) model.on(`change:_py2js_${step}`, miss);
      begin = async () => {
        const inner = await figure(model.get("_plotly"));
        for (const step of STEPS) model.off(`change:_py2js_${step}`, miss);
        inner.initialize(context);
        if (missed) ask();
        return inner;
      };
    },
    async render(context) {
      const inner = await (ready ??= begin()), {el, model} = context;
      await idle();
      const ends = [inner.render(context), follow(el, model), listen(el, model)];
      return () => ends.reverse().forEach(end => end?.());
    },
  };
};
