// Put into the page by lab.py. Everything hangs on window.kitLab.
window.kitLab = (() => {
  // All that plotly has drawn under an element, as a short digest of the SVG paths, places and words.
  function plotState(element) {
    let hash = 5381, n = 0;
    for (const svg of element.querySelectorAll('.js-plotly-plot .main-svg')) {
      for (const node of svg.querySelectorAll('path, rect, image, text, g.point, g[transform], use')) {
        const text = [node.getAttribute('d'), node.getAttribute('transform'), node.getAttribute('x'),
          node.getAttribute('y'), node.getAttribute('width'), node.getAttribute('height'),
          node.getAttribute('href'), node.getAttribute('style'),
          node.tagName === 'text' ? node.textContent : ''].join('|');
        for (let i = 0; i < text.length; i++) hash = ((hash * 33) ^ text.charCodeAt(i)) >>> 0;
        n += 1;
      }
    }
    return `${n}:${hash.toString(16)}`;
  }

  // What a probe looks at: {kind, root (CSS), ...}. `read` gives a string that changes with the picture.
  //   text:   the words of the element
  //   marker: the places of the points of one trace of one plotly figure, found by the trace's name
  //   image:  the source of an image
  function target(probe) {
    const root = document.querySelector(probe.root);
    if (!root) throw new Error(`nothing matches ${probe.root}`);
    if (probe.kind === 'text') return {node: root, read: () => root.textContent};
    if (probe.kind === 'image') {
      return {node: root, read: () => {
        const image = root.querySelector('img');
        return image ? `${image.src.length}:${image.src.slice(-4000)}` : '';
      }};
    }
    if (probe.kind === 'marker') {
      const wanted = new RegExp(probe.trace, 'i');
      for (const plot of root.querySelectorAll('.js-plotly-plot')) {
        const full = (plot._fullData || []).find(trace => wanted.test(trace.name || ''));
        if (!full) continue;
        // The group is looked up again each time: plotly may make a new one.
        const read = () => [...plot.querySelectorAll(`.trace${full.uid} .point`)]
          .map(point => point.getAttribute('transform')).join(';');
        return {node: plot, read};
      }
      throw new Error(`no trace under ${probe.root} is named like ${probe.trace}`);
    }
    if (probe.kind === 'shape') {
      return {node: root, read: () => [...root.querySelectorAll('.shapelayer path')].map(n => n.getAttribute('d')).join(';')};
    }
    throw new Error(`unknown kind of probe ${probe.kind}`);
  }

  // Arm before a key press: resolves to the milliseconds from the keydown event to the change, to the next frame,
  // to the end of that frame's painting, and to the frame after it. The same code measures every rival.
  function arm(probe, timeout) {
    const {node, read} = target(probe);
    const before = read();
    window.kitLab.pending = new Promise((resolve, reject) => {
      let pressed = null, seen = false;
      const onKey = event => { pressed ??= event.timeStamp; };
      window.addEventListener('keydown', onKey, true);
      const finish = () => { observer.disconnect(); window.removeEventListener('keydown', onKey, true); clearTimeout(timer); };
      const timer = setTimeout(() => { finish(); resolve(null); }, timeout);
      const observer = new MutationObserver(() => {
        if (seen || pressed === null || read() === before) return;
        seen = true;
        const changed = performance.now();
        requestAnimationFrame(() => {
          const frame = performance.now();
          const channel = new MessageChannel();
          let painted = null;
          channel.port1.onmessage = () => { painted = performance.now(); };
          channel.port2.postMessage(null);
          requestAnimationFrame(() => {
            finish();
            resolve({changed: changed - pressed, frame: frame - pressed, painted: (painted ?? NaN) - pressed,
              next: performance.now() - pressed});
          });
        });
      });
      observer.observe(node, {subtree: true, attributes: true, childList: true, characterData: true});
    });
    return true;
  }

  return {plotState, arm, pending: null};
})();
