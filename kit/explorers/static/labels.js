// Names in a figure, drawn where there is room. `place` is a pure function of pixels; `follow` draws what it says over
// a figure of plotly, again after each painting of plotly and each move of a mark, and listens to clicks and zooms.
const FONT = 12, LINE = 16;  // pixels: of letters, and from one line of text to the next
const FAMILY = '"Open Sans", verdana, arial, sans-serif';  // as plotly's
const CELL = 3;  // pixels: side of a cell of the grid on which obstacles are looked up
const GAP = 4;  // pixels between a point and its name
const REACH = 110;  // pixels: longest leader
const LEADER = 12;  // pixels: a name that is nearer needs no leader
const CROSSING = 200;  // pixels of a leader that one crossing is worth
const COVERED = 0.5;  // pixels of a leader that a pixel of a covered line is worth
const STAY = 14;  // pixels that a name would gain by a move, at least: else it stays where it is
const CLOSE = 14;  // pixels: another line so near to a name makes a reader doubt which it names

// What lies where, in cells; `count` says how many cells of a rectangle are taken.
class Grid {
  constructor(width, height) {
    this.columns = Math.ceil(width / CELL) + 1;
    this.rows = Math.ceil(height / CELL) + 1;
    this.taken = new Uint8Array(this.columns * this.rows);
    this.sums = null;
  }

  box([left, top, right, bottom]) {
    const end = Math.min(this.columns - 1, Math.floor(right / CELL)), last = Math.min(this.rows - 1, Math.floor(bottom / CELL));
    for (let row = Math.max(0, Math.floor(top / CELL)); row <= last; row++) {
      for (let column = Math.max(0, Math.floor(left / CELL)); column <= end; column++) this.taken[row * this.columns + column] = 1;
    }
  }

  path(points) {
    for (let i = 1; i < points.length; i++) {
      const [x, y] = points[i - 1], across = points[i][0] - x, down = points[i][1] - y;
      const steps = Math.min(2000, Math.ceil(Math.hypot(across, down) / CELL)) || 1;
      for (let step = 0; step <= steps; step++) {
        const column = Math.floor((x + across * step / steps) / CELL), row = Math.floor((y + down * step / steps) / CELL);
        const inside = column >= 0 && column < this.columns && row >= 0 && row < this.rows;
        if (inside) this.taken[row * this.columns + column] = 1;
      }
    }
  }

  count([left, top, right, bottom]) {
    const wide = this.columns + 1;
    if (!this.sums) {
      this.sums = new Uint32Array(wide * (this.rows + 1));
      for (let row = 0; row < this.rows; row++) {
        for (let column = 0, along = 0; column < this.columns; column++) {
          along += this.taken[row * this.columns + column];
          this.sums[(row + 1) * wide + column + 1] = this.sums[row * wide + column + 1] + along;
        }
      }
    }
    const cut = (at, most) => Math.min(Math.max(Math.floor(at / CELL), 0), most);
    const from = cut(left, this.columns), to = Math.max(from, cut(right + CELL, this.columns));
    const over = cut(top, this.rows) * wide, under = Math.max(over, cut(bottom + CELL, this.rows) * wide);
    return this.sums[under + to] - this.sums[over + to] - this.sums[under + from] + this.sums[over + from];
  }
}

const meet = (one, other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
const nearest = ([left, top, right, bottom], x, y) => [Math.min(Math.max(x, left), right), Math.min(Math.max(y, top), bottom)];

// Whether two lines, [x, y, x, y] each, cross.
function cross(one, other) {
  const side = ([a, b, c, d], x, y) => (c - a) * (y - b) > (d - b) * (x - a);
  return side(one, other[0], other[1]) !== side(one, other[2], other[3]) &&
    side(other, one[0], one[1]) !== side(other, one[2], one[3]);
}

const crossesBox = (line, [left, top, right, bottom]) =>
  cross(line, [left, top, right, bottom]) || cross(line, [left, bottom, right, top]);

// Places to try for a name beside a point, nearest first: [length of the leader, right, down] of the name's middle.
const tried = new Map();
function around(wide, high, size) {
  const key = `${wide},${high},${size}`;
  if (!tried.has(key)) {
    const beside = wide / 2 + size + GAP, over = high / 2 + size + GAP, found = [];
    const columns = [beside, -beside, ...Array.from({length: 13}, (_, i) => (i - 6) * wide / 4)];
    const rows = [0, ...Array.from({length: 32}, (_, i) => (i % 2 ? 1 : -1) * (over + (i >> 1) * high / 2))];
    for (const across of columns) {
      for (const down of rows) {
        const length = Math.hypot(Math.max(Math.abs(across) - wide / 2, 0), Math.max(Math.abs(down) - high / 2, 0));
        if (length >= size && length <= REACH) found.push([length + 0.05 * Math.abs(across), across, down]);
      }
    }
    tried.set(key, found.sort((one, other) => one[0] - other[0]));
  }
  return tried.get(key);
}

// Points along a line, some 12 pixels apart.
function sampled(points, width, height) {
  const found = [];
  let left = 0;
  for (let i = 1; i < points.length; i++) {
    const [x, y] = points[i - 1], across = points[i][0] - x, down = points[i][1] - y, length = Math.hypot(across, down);
    for (; left <= length && length; left += 12) found.push([x + across * left / length, y + down * left / length]);
    left -= length;
  }
  return found.filter(([x, y]) => x >= 0 && x <= width && y >= 0 && y <= height);
}

// Where each name goes: of each its box [left, top, right, bottom] and the end of its leader, or null.
//   labels: {key, wide, high} and either {end: y}: beside the right end of the plot; {at: [x, y], size}: beside a point
//     of that radius; or {path, name}: along a line, which is called so. The first come first.
//   things: {boxes: [...], paths: [{name, points}]}: what must not, and what should not be covered.
//   before: a map from the key to what was returned before, so that names do not jump.
function place(labels, {width, height}, things, before = new Map()) {
  const hard = new Grid(width, height), soft = new Grid(width, height), boxes = [], leaders = [];
  for (const box of things.boxes) hard.box(box);
  for (const {points} of things.paths) soft.path(points);
  const free = box => box[0] >= 0 && box[1] >= 0 && box[2] <= width && box[3] <= height && !hard.count(box) &&
    !boxes.some(other => meet(box, other));
  const met = ([x, y, to, under], skipped) => {  // how many of its points, 6 pixels apart, a leader has on obstacles
    const length = Math.hypot(to - x, under - y);
    let found = 0;
    for (let at = skipped + 4; at < length; at += 6) {
      const [across, down] = [x + (to - x) * at / length, y + (under - y) * at / length];
      found += hard.count([across, down, across, down]) > 0;
    }
    return found;
  };
  const answers = new Map(), ends = atTheEnd(labels.filter(label => label.end !== undefined), width, height);

  for (const label of labels) {
    const {key, wide, high} = label, was = before.get(key);
    if (label.end !== undefined) { answers.set(key, ends.get(key)); continue; }
    let best = null, least = Infinity;
    const take = (anchor, across, down, cost) => {
      const box = [anchor[0] + across - wide / 2, anchor[1] + down - high / 2, anchor[0] + across + wide / 2, anchor[1] + down + high / 2];
      if (cost >= least || !free(box)) return;
      cost += COVERED * CELL * soft.count(box);
      const tip = nearest(box, ...anchor), line = [...anchor, ...tip];
      const long = Math.hypot(tip[0] - anchor[0], tip[1] - anchor[1]) > LEADER + (label.size || 0);
      if (label.at && cost < least) {
        for (const other of boxes) if (long && crossesBox(line, other)) cost += CROSSING;
        if (long) cost += CROSSING / 10 * met(line, label.size + 4);
        for (const other of leaders) if ((long && cross(line, other)) || crossesBox(other, box)) cost += CROSSING;
      }
      if (label.path) cost += doubt(box);
      if (cost < least) { least = cost; best = {box, leader: long ? line : null, across, down, anchor}; }
    };
    const others = label.path && new Grid(width, height);
    if (others) for (const {name, points} of things.paths) if (name !== label.name) others.path(points);
    const doubt = ([left, top, right, bottom]) =>
      2 * others.count([left - CLOSE / 2, top - CLOSE / 2, right + CLOSE / 2, bottom + CLOSE / 2]) +
      others.count([left - CLOSE, top - CLOSE, right + CLOSE, bottom + CLOSE]);
    if (label.at) {
      const off = was && Math.hypot(Math.max(Math.abs(was.across) - wide / 2, 0), Math.max(Math.abs(was.down) - high / 2, 0));
      if (was) take(label.at, was.across, was.down, off - STAY);
      for (const [length, across, down] of around(wide, high, label.size)) {
        if (length >= least) break;
        take(label.at, across, down, length);
      }
    } else {
      const points = sampled(label.path, width, height), over = high / 2 + GAP;
      if (was && points.length) {  // on the nearest point to where it was
        const off = ([x, y]) => Math.hypot(x - was.anchor[0], y - was.anchor[1]);
        const anchor = points.reduce((one, other) => (off(other) < off(one) ? other : one));
        take(anchor, was.across, was.down, -STAY);
      }
      points.forEach((anchor, i) => {
        const far = 2 * Math.abs(i / points.length - (label.from || 0));
        for (const across of [0, wide / 2, -wide / 2]) {
          for (const down of [-over, over]) take(anchor, across, down, far + Math.abs(across) / wide);
        }
        for (const across of [wide / 2 + GAP, -wide / 2 - GAP]) take(anchor, across, 0, far + 1);
      });
      for (let away = high; !best && away < REACH; away += high) {  // with a leader
        for (const anchor of points) for (const down of [-over - away, over + away]) take(anchor, 0, down, away);
      }
    }
    answers.set(key, best);
    if (best) {
      boxes.push(best.box);
      if (best.leader) leaders.push(best.leader);
    }
  }
  return answers;
}

// Names beside the right end of the plot, each level with where its line ends, but never over one another: those that
// would meet share the room around their middle. Where there is no room for all, the last ones are left out.
function atTheEnd(labels, width, height) {
  const kept = [];
  let used = 0;
  for (const label of labels) if ((used += label.high) <= height) kept.push(label); else used -= label.high;
  kept.sort((one, other) => one.end - other.end || labels.indexOf(one) - labels.indexOf(other));
  const blocks = [];  // [middle that its names want, height, names]
  for (const label of kept) {
    blocks.push({middles: label.end, high: label.high, names: [label]});
    for (let one, other; (one = blocks.at(-2)) && (other = blocks.at(-1)) && bottom(one) > top(other);) {
      const names = [...one.names, ...other.names];
      blocks.splice(-2, 2, {...joined(names), names});
    }
  }
  function joined(names) {
    const high = names.reduce((sum, each) => sum + each.high, 0);
    let above = 0, sum = 0;  // the middle of a block such that its names are moved as little as possible
    for (const each of names) { sum += each.end - (above + each.high / 2); above += each.high; }
    return {middles: sum / names.length + high / 2, high};
  }
  function top({middles, high}) { return Math.min(Math.max(middles - high / 2, 0), height - high); }
  function bottom(block) { return top(block) + block.high; }
  const answers = new Map();
  for (const block of blocks) {
    let at = top(block);
    for (const {key, wide, high, end} of block.names) {
      const inside = Math.min(Math.max(end, 0), height), moved = Math.abs(at + high / 2 - inside) > high / 2;
      const left = width + (moved ? 14 : 6);
      answers.set(key, {box: [left, at, left + wide, at + high], leader: moved ? [width, inside, left - 1, at + high / 2] : null});
      at += high;
    }
  }
  return answers;
}

// -- what there is in a figure of plotly ------------------------------------------------------------------------------

// A point far outside of the plot, brought nearer: a line to it is as steep, and is gone along in a moment.
const near = place => Math.max(-1e4, Math.min(1e4, place));

// The traces that are lines or points on the main axes, in pixels from the upper left corner of the plot.
function drawn(plot) {
  const {xaxis, yaxis} = plot._fullLayout, found = [];
  for (const trace of plot._fullData) {
    const main = trace.type === "scatter" && trace.visible === true && trace.xaxis === "x" && trace.mode;
    if (!main || !trace.x || !trace.x.length) continue;
    const points = Array.from(trace.x, (x, i) => [xaxis.d2p(x), yaxis.d2p(trace.y[i])].map(near));
    found.push({trace, points, markers: trace.mode.includes("markers"), lines: trace.mode.includes("lines") && trace.line.width > 0});
  }
  return found;
}

// Lines between gaps; steps get their corners.
function pieces({trace, points}) {
  const found = [[]], step = trace.line.shape === "hv";
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) { found.push([]); continue; }
    const last = found.at(-1);
    if (step && last.length) last.push([x, last.at(-1)[1]]);
    last.push([x, y]);
  }
  return found.filter(piece => piece.length);
}

const each = (value, i) => (Array.isArray(value) || ArrayBuffer.isView(value) ? value[i] : value);

// Markers and error bars as boxes, lines as paths; marks over the figure say what they cover.
function obstacles(plot) {
  const {xaxis, yaxis, shapes = []} = plot._fullLayout, boxes = [], paths = [];
  for (const shown of drawn(plot)) {
    const {trace, points, markers, lines} = shown;
    if (lines) for (const piece of pieces(shown)) paths.push({name: trace.name, points: piece});
    points.forEach(([x, y], i) => {
      const size = markers && each(trace.marker.size, i) / 2;
      if (size) boxes.push([x - size, y - size, x + size, y + size]);
      for (const [bars, axis, across] of [[trace.error_y, yaxis, 0], [trace.error_x, xaxis, 1]]) {
        if (!bars || !bars.visible || !bars.array) continue;
        const here = across ? trace.x[i] : trace.y[i], less = bars.arrayminus || bars.array, half = bars.width || 0;
        const ends = [axis.d2p(here - less[i]), axis.d2p(here + bars.array[i])].sort((one, other) => one - other);
        boxes.push(across ? [ends[0], y - half, ends[1], y + half] : [x - half, ends[0], x + half, ends[1]]);
      }
    });
  }
  for (const {type, y0, y1} of shapes) {
    if (type === "line" && y0 === y1) paths.push({name: `level ${y0}`, points: [[0, yaxis.d2p(y0)], [xaxis._length, yaxis.d2p(y0)]]});
  }
  for (const mark of plot.kitMarks ? plot.kitMarks.values() : []) {
    boxes.push(...mark.boxes || []);
    if (mark.path) paths.push({name: mark.text, points: mark.path});
  }
  return {boxes, paths};
}

let ruler = null;
const widths = new Map();
function textWidth(text) {
  if (!widths.has(text)) {
    ruler ??= document.createElement("canvas").getContext("2d");
    ruler.font = `${FONT}px ${FAMILY}`;
    widths.set(text, Math.ceil(ruler.measureText(text).width) + 4);
  }
  return widths.get(text);
}

// The names that a figure asks for, and those of the marks over it, in pixels; what must stay comes first.
function wanted(plot, labels) {
  const {xaxis, yaxis} = plot._fullLayout, {_length: width} = xaxis, {_length: height} = yaxis, found = [];
  const shown = drawn(plot), seen = new Map();
  const marks = [...plot.kitMarks ? plot.kitMarks.values() : []].filter(mark => mark.text && mark.path);
  const all = [...marks.map(({text, path}) => ({text, path, rank: -1})), ...labels];
  for (const label of all) {
    const {text, x, y, curve, end, rank, colour} = label, lines = text.split("\n");
    const wide = Math.max(...lines.map(textWidth)), high = LINE * lines.length;
    const turn = seen.get(text) || 0;
    seen.set(text, turn + 1);
    const name = {key: `${text} ${turn}`, lines, wide, high, rank, colour};
    if (label.path) found.push({...name, path: label.path, name: text, from: 0});
    else if (end) found.push({...name, end: yaxis.d2p(y)});
    else if (curve) {
      const line = shown.find(each => each.lines && each.trace.name === curve);
      const longest = line && pieces(line).reduce((one, other) => (other.length > one.length ? other : one));
      if (longest) found.push({...name, path: longest, name: curve, from: 0.5});
    } else if (x === null) found.push({...name, path: [[0, yaxis.d2p(y)], [width, yaxis.d2p(y)]], name: `level ${y}`});
    else {
      const at = [xaxis.d2p(x), yaxis.d2p(y)], inside = at[0] >= 0 && at[0] <= width && at[1] >= 0 && at[1] <= height;
      if (inside) found.push({...name, at, size: 6});
    }
  }
  return found.sort((one, other) => one.rank - other.rank);
}

// -- drawing -----------------------------------------------------------------------------------------------------------

const NS = "http://www.w3.org/2000/svg";

function draw(group, names, answers) {
  const rows = names.filter(name => answers.get(name.key));
  while (group.children.length > rows.length) group.lastChild.remove();
  rows.forEach(({key, lines, colour}, i) => {
    const {box: [left, top], leader} = answers.get(key);
    const said = JSON.stringify([key, left, top, leader, colour]);
    let node = group.children[i];
    if (node && node.kitSaid === said) return;
    if (!node) group.append(node = document.createElementNS(NS, "g"));
    node.kitSaid = said;
    node.setAttribute("class", "kit-label");
    node.replaceChildren();
    if (leader) {
      const path = document.createElementNS(NS, "path");
      path.setAttribute("d", `M${leader[0]},${leader[1]}L${leader[2]},${leader[3]}`);
      path.setAttribute("style", "stroke: #808080; stroke-width: 1; fill: none");
      node.append(path);
    }
    const text = document.createElementNS(NS, "text");
    const halo = "paint-order: stroke; stroke: var(--jp-layout-color0, transparent); stroke-width: 3px; stroke-linejoin: round";
    text.setAttribute("style", `font: ${FONT}px ${FAMILY}; white-space: pre; fill: var(--jp-ui-font-color1, #767676); ${halo}`);
    lines.forEach((line, row) => {
      const [sign, ...rest] = colour && row === 0 ? [...line] : ["", line];
      const put = (word, attributes) => {
        const part = document.createElementNS(NS, "tspan");
        for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
        part.textContent = word;
        text.append(part);
      };
      const start = {x: left + 2, y: top + LINE * row + FONT - 0.5};
      if (sign) put(sign, {...start, style: `fill: ${colour}`});
      put(rest.join(""), sign ? {} : start);
    });
    node.append(text);
  });
}

// Titles that are wider than the figure are pressed together rather than cut.
function squeeze(plot) {
  const {width, height, _size: {l, r}} = plot._fullLayout;
  for (const [kind, room] of [["gtitle", width - 16], ["xtitle", Math.min(width, 2 * Math.min(l, r) + width - l - r) - 8], ["ytitle", height - 8]]) {
    for (const title of plot.querySelectorAll(`.${kind}`)) {
      title.removeAttribute("textLength");
      if (textWidth(title.textContent) < 0.85 * room) continue;
      const long = title.getComputedTextLength() > room;
      if (long) { title.setAttribute("textLength", room); title.setAttribute("lengthAdjust", "spacingAndGlyphs"); }
    }
  }
}
