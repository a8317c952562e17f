// Put into a bare page by figures.py, with plotly and the explorers' own scripts: draws figures as an explorer of a
// given width does, and measures what meets what. Everything hangs on window.kitFigures.
window.kitFigures = (() => {
  const model = state => ({
    get: name => state[name],
    set(name, value) {
      state[name] = value;
      for (const [names, heard] of state.heard || []) if (names === "change" || names.includes(`change:${name}`)) heard();
    },
    save_changes() {},
    on(names, heard) { (state.heard ??= []).push([names, heard]); },
    off() {},
  });

  // sizes: width and height of each figure's box.
  async function show(figures, marks, sizes) {
    document.body.innerHTML = "";
    const box = document.createElement("div");
    box.className = "kit-explorer";
    box.style.width = `${sizes[0][0] + 4}px`;
    document.body.append(box);
    const models = [];
    for (const [i, {data, layout, labels, home}] of figures.entries()) {
      const place = document.createElement("div"), plot = document.createElement("div");
      place.className = `kit-figure kit-figure-${i}`;
      place.style.cssText = `width: ${sizes[i][0]}px; height: ${sizes[i][1]}px; outline: 1px dotted #ddd; display: inline-block`;
      plot.style.cssText = "width: 100%; height: 100%";
      place.append(plot);
      box.append(place);
      models.push(model({labels, home, clicked: []}));
      await Plotly.newPlot(plot, structuredClone(data), structuredClone(layout), {displayModeBar: false, doubleClick: "reset", responsive: true});
      kitScripts.follow(plot, models[i]);
      kitScripts.listen(plot, models[i]);
    }
    window.kitFigures.marks = marks.map(mark => {
      const el = document.createElement("div"), made = model(structuredClone(mark));
      box.append(el);
      kitScripts.mark.render({model: made, el});
      return made;
    });
    await settled();
    window.kitFigures.models = models;
  }

  // Two frames: the marks are drawn in the first one, and the names keep off them in the second.
  const settled = async () => { for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame); };

  const KINDS = {
    label: ".kit-label text", title: ".gtitle", legend: ".legend", xtick: ".xtick text, .x2tick text", ytick: ".ytick text",
    xtitle: ".xtitle", ytitle: ".ytitle", marker: ".scatterlayer .point", bar: ".errorbar path", mark: ".kit-point > path, .kit-point > line",
    cursor: ".kit-cursor > line, .kit-expected > line", value: ".bartext, .kit-bars text",
  };
  const APART = [  // kinds that must not meet, in pairs
    ..."label title legend xtick ytick xtitle ytitle marker bar mark cursor".split(" ").map(kind => ["label", kind]),
    ["title", "legend"], ["title", "ytitle"], ["title", "ytick"], ["xtick", "xtick"], ["ytick", "ytick"], ["xtick", "xtitle"],
    ["ytick", "ytitle"], ["legend", "ytick"], ["value", "value"], ["ytitle", "xtitle"],
  ];

  function shapes(plot) {
    const found = {};
    for (const [kind, selector] of Object.entries(KINDS)) {
      found[kind] = [...plot.querySelectorAll(selector)].map(node => {
        const {left, top, right, bottom, width, height} = node.getBoundingClientRect();
        return {text: node.textContent || kind, left, top, right, bottom, empty: !(width + height)};
      }).filter(each => !each.empty);
    }
    const boxes = plot.querySelector(".nsewdrag")?.getBoundingClientRect();
    // What lies outside of the axes is clipped and not seen.
    for (const kind of ["marker", "bar"]) {
      found[kind] = found[kind].map(each => ({...each, left: Math.max(each.left, boxes.left), right: Math.min(each.right, boxes.right), top: Math.max(each.top, boxes.top), bottom: Math.min(each.bottom, boxes.bottom)}))
        .filter(each => each.left < each.right && each.top < each.bottom);
    }
    return found;
  }

  const SLACK = 1.5;  // pixels: the box of a text is higher than its letters
  const meet = (one, other) => one.left + SLACK < other.right && other.left + SLACK < one.right &&
    one.top + SLACK < other.bottom && other.top + SLACK < one.bottom;

  // What meets, and what is cut by its box; one line each.
  function faults() {
    const found = [];
    document.querySelectorAll(".js-plotly-plot").forEach((plot, number) => {
      const all = shapes(plot), box = plot.getBoundingClientRect();
      for (const [one, other] of APART) {
        all[one].forEach((a, i) => all[other].forEach((b, j) => {
          if ((one !== other || i < j) && meet(a, b)) found.push(`figure ${number}: ${one} "${a.text}" meets ${other} "${b.text}"`);
        }));
      }
      for (const kind of ["label", "title", "legend", "xtick", "ytick", "xtitle", "ytitle", "value"]) {
        for (const each of all[kind]) {
          const out = Math.max(box.left - each.left, each.right - box.right, box.top - each.top, each.bottom - box.bottom);
          if (out > 1) found.push(`figure ${number}: ${kind} "${each.text}" is cut by ${out.toFixed(1)} pixels`);
        }
      }
    });
    return found;
  }

  const names = () => [...document.querySelectorAll(".js-plotly-plot")].map(plot => [...plot.querySelectorAll(".kit-label text")].map(each => [...each.children].map(part => part.textContent).join("")));

  async function moveMark(number, values) {
    window.kitFigures.marks[number].set("values", values);
    await settled();
  }

  // Put a mark of the main figure over a name.
  async function moveMarkTo(number, name) {
    const plot = document.querySelector(".js-plotly-plot"), {xaxis, yaxis} = plot._fullLayout;
    const label = [...plot.querySelectorAll(".kit-label")].find(each => each.textContent.includes(name));
    const {left, top, width, height} = label.getBoundingClientRect(), frame = plot.getBoundingClientRect();
    const x = xaxis.p2d(left + width / 2 - frame.left - xaxis._offset);
    const y = yaxis.p2d(top + height / 2 - frame.top - yaxis._offset);
    await moveMark(number, [x, y, y - 1, y + 1]);
  }

  return {show, settled, moveMark, moveMarkTo, faults, names, models: []};
})();
