// Refits the explorer's figures whenever its width changes. Plotly measures its place before it is in the page, and
// later listens to the window only; a figure would stay 700 pixels wide after being shown late.
export default {
  render({el}) {
    let last = 0;
    const watch = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== last) { last = width; window.dispatchEvent(new Event("resize")); }
    });
    watch.observe(el);
    return () => watch.disconnect();
  },
};
