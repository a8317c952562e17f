// Put into the page by lab.py. Everything hangs on window.kitLab.
window.kitLab = (() => {
  const DRAWN = 'path, rect, image, text, use, g[transform]';
  const ATTRIBUTES = ['d', 'transform', 'x', 'y', 'width', 'height', 'href', 'style'];

  // A short digest of all that plotly has drawn under an element: paths, places and words.
  function plotState(element) {
    let hash = 5381, count = 0;
    for (const svg of element.querySelectorAll('.js-plotly-plot .main-svg')) {
      if (svg.closest('.modebar')) continue;
      for (const node of svg.querySelectorAll(DRAWN)) {
        const words = node.tagName === 'text' ? node.textContent : '';
        const text = ATTRIBUTES.map(name => node.getAttribute(name)).join('|') + words;
        for (let i = 0; i < text.length; i++) hash = ((hash * 33) ^ text.charCodeAt(i)) >>> 0;
        count += 1;
      }
    }
    return `${count}:${hash.toString(16)}`;
  }

  // What needs sideways scrolling, or is cut off: a part of an explorer that ends right of its output area, and any box
  // or output that scrolls sideways.
  function overflow() {
    const found = [];
    for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
      const end = area.getBoundingClientRect().right;
      if (!area.clientWidth) continue;
      for (const box of [area, ...area.querySelectorAll('.widget-box')]) {
        const scrolls = ['auto', 'scroll'].includes(getComputedStyle(box).overflowX);
        if (scrolls && box.scrollWidth > box.clientWidth + 1) {
          found.push(`${box.className}: ${box.scrollWidth} pixels in ${box.clientWidth}`);
        }
      }
      for (const part of area.querySelectorAll('.kit-explorer .jupyter-widgets, .kit-explorer .svg-container')) {
        const right = part.getBoundingClientRect().right;
        if (right > end + 2) found.push(`${part.className}: ends at ${right}, its output at ${end}`);
      }
    }
    return found;
  }

  // What a probe watches: a node, and a function whose answer changes with the picture (null: nothing is shown now).
  //   {kind: 'text', root}           the words of the element that the CSS selector `root` finds
  //   {kind: 'image', root}          the image under it
  //   {kind: 'marker', root, trace}  the places of the points of the plotly trace of that name under it
  //   {kind: 'bars', root, mark}     the tops of the bars (SVG rect) in the element `mark` under it
  //   {kind: 'attribute', root, mark, name}  an attribute of the element `mark` under it
  //   {kind: 'place', root, mark}    the place (SVG transform) of the element `mark` under it
  function target(probe) {
    const root = document.querySelector(probe.root);
    if (!root) throw new Error(`nothing matches ${probe.root}`);
    if (probe.kind === 'text') return {node: root, read: () => root.textContent};
    if (probe.kind === 'image') {
      const read = () => {
        const image = root.querySelector('img');
        return image && `${image.src.length}:${image.src.slice(0, 4000)}:${image.src.slice(-4000)}`;
      };
      return {node: root, read};
    }
    if (probe.kind === 'marker') {
      for (const plot of root.querySelectorAll('.js-plotly-plot')) {
        const trace = (plot._fullData || []).find(each => each.name === probe.trace);
        if (!trace) continue;
        // Looked up again at each change: plotly may make a new group.
        const read = () => [...plot.querySelectorAll(`.trace${trace.uid} .point`)]
          .map(point => point.getAttribute('transform')).join(';') || null;
        return {node: plot, read};
      }
      throw new Error(`no trace under ${probe.root} is named ${probe.trace}`);
    }
    if (probe.kind === 'bars') {
      const read = () => [...root.querySelectorAll(`${probe.mark} rect`)].map(bar => bar.getAttribute('y')).join(';') || null;
      return {node: root, read};
    }
    if (probe.kind === 'place') {
      return {node: root, read: () => root.querySelector(probe.mark)?.getAttribute('transform') ?? null};
    }
    if (probe.kind === 'attribute') {
      return {node: root, read: () => root.querySelector(probe.mark)?.getAttribute(probe.name) ?? null};
    }
    throw new Error(`unknown kind of probe ${probe.kind}`);
  }

  // Whether what a probe watches is in the page.
  function shows(probe) {
    try {
      return target(probe).read() !== null;
    } catch {
      return false;
    }
  }

  // Arm before a key press. `pending` resolves to milliseconds from the keydown event
  //   changed: to the change of the page,
  //   painted: to the end of the frame that paints it,
  //   shown:   to the frame after that one, when the changed frame is on the screen;
  // or to null when nothing changed in time. Every rival is measured by this same code.
  function arm(probe, timeout) {
    const {node, read} = target(probe);
    const before = read();
    window.kitLab.pending = new Promise(resolve => {
      let pressed = null, seen = false;
      const onKey = event => { pressed ??= event.timeStamp; };
      const finish = answer => {
        observer.disconnect();
        window.removeEventListener('keydown', onKey, true);
        clearTimeout(timer);
        resolve(answer);
      };
      const timer = setTimeout(() => finish(null), timeout);
      const observer = new MutationObserver(() => {
        if (seen || pressed === null) return;
        const now = read();
        if (now === null || now === before) return;
        seen = true;
        const changed = performance.now();
        let painted = null;
        requestAnimationFrame(() => {
          // A message posted inside a frame is delivered once that frame is painted.
          const channel = new MessageChannel();
          channel.port1.onmessage = () => { painted ??= performance.now(); };
          channel.port2.postMessage(null);
          requestAnimationFrame(() => {
            const shown = performance.now();
            finish({changed: changed - pressed, painted: (painted ?? shown) - pressed, shown: shown - pressed});
          });
        });
      });
      window.addEventListener('keydown', onKey, true);
      observer.observe(node, {subtree: true, attributes: true, childList: true, characterData: true});
    });
  }

  return {plotState, overflow, shows, arm, pending: null};
})();
