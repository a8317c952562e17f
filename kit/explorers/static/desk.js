// What only the page can do for an explorer: copy to the clipboard, save a file, take a picture of a figure; and tell
// a screen reader what a slider is called and what it says.
const SVG = "http://www.w3.org/2000/svg";

// `meanings`: what each control is, by the text that stands before it; its tooltip.
function name(controls, meanings) {
  const set = (node, attribute, text) => {
    if (text && node.getAttribute(attribute) !== text) node.setAttribute(attribute, text);
  };
  for (const row of controls.querySelectorAll(":scope > *")) {
    const label = row.querySelector(".widget-label-basic, .widget-label:not(:empty)")?.textContent.trim();
    const handle = row.querySelector('[role="slider"]');
    set(row, "title", row.title || meanings[label]);
    if (!handle) continue;
    set(handle, "aria-label", label);
    set(handle, "aria-valuetext", row.querySelector(".widget-readout")?.textContent);
  }
  for (const icon of controls.querySelectorAll("button[title]")) {
    if (!icon.textContent.trim()) set(icon, "aria-label", icon.title);
  }
  for (const each of controls.closest(".kit-explorer")?.querySelectorAll('[title="null"]') || []) each.removeAttribute("title");
}

function save(blob, file) {
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(blob), download: file});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// All that plotly, the marks and the labels have drawn, in the colours of the page's theme, at twice the size.
async function picture(plot, file) {
  const {width, height} = plot.getBoundingClientRect(), theme = getComputedStyle(plot);
  const colour = (name, fallback) => theme.getPropertyValue(name) || fallback;
  const whole = document.createElementNS(SVG, "svg"), size = {width, height, viewBox: `0 0 ${width} ${height}`};
  for (const [key, value] of Object.entries(size)) whole.setAttribute(key, value);
  whole.style.fontFamily = theme.fontFamily;
  for (const each of plot.querySelectorAll(".main-svg")) {
    const copy = each.cloneNode(true);
    copy.style.background = "transparent";
    for (const text of copy.querySelectorAll("text")) text.style.fill = colour("--jp-ui-font-color1", "#222");
    whole.append(copy);
  }
  const image = new Image(), canvas = Object.assign(document.createElement("canvas"), {width: 2 * width, height: 2 * height});
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(whole))}`;
  await image.decode();
  const context = canvas.getContext("2d");
  context.fillStyle = colour("--jp-layout-color0", "#fff");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob(blob => save(blob, file));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no permission: the old way
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export default () => {
  const places = new Set();  // where this explorer is shown: as a whole, and its views
  return {
    initialize({model}) {
      heed(model);
      model.on("msg:custom", ({kind, text, file}) => {
        if (kind === "copy") copy(text);
        if (kind === "save") save(new Blob([text], {type: "text/csv"}), file);
        if (kind === "picture") {
          const plots = [...places].map(el => el.closest(".kit-explorer")?.querySelector(".kit-figure-0 .js-plotly-plot"));
          const shown = plots.filter(plot => plot && plot.offsetParent);
          if (shown.length) picture(shown[0], file);
        }
      });
    },
    render({model, el}) {
      places.add(el);
      let observer = null, stopped = false;
      const watch = () => {
        if (stopped) return;
        const controls = el.closest(".kit-explorer")?.querySelector(".kit-controls");
        if (!controls) { requestAnimationFrame(watch); return; }
        observer = new MutationObserver(() => name(controls, model.get("meanings")));
        observer.observe(controls, {
          subtree: true, childList: true, characterData: true, attributeFilter: ["aria-valuetext", "title"],
        });
        name(controls, model.get("meanings"));
      };
      watch();
      return () => { stopped = true; observer?.disconnect(); places.delete(el); };
    },
  };
};
