// Refits the explorer's figures whenever its width changes. Plotly measures its place before it is in the page, and
// later listens to the window only; a figure would stay 700 pixels wide after being shown late.
//
// And gives a control its keys. Notebook 7 looks for its shortcuts before a slider hears a key: an arrow would move to
// another cell, or fold a whole section. Shortcuts with Ctrl, Alt or Command stay the notebook's, and Shift + Enter.
function keep({target, key, ctrlKey, altKey, metaKey, shiftKey}) {
  if (!(target instanceof Element) || !target.closest(".jupyter-widgets")) return;
  const shortcut = ctrlKey || altKey || metaKey || (shiftKey && key === "Enter");
  target.toggleAttribute("data-lm-suppress-shortcuts", !shortcut); // on the target: the shortcuts match what has focus
}

export default {
  render({el}) {
    window.addEventListener("keydown", keep, true); // before the notebook's own
    let last = 0;
    const watch = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== last) { last = width; window.dispatchEvent(new Event("resize")); }
    });
    watch.observe(el);
    return () => {
      watch.disconnect();
      window.removeEventListener("keydown", keep, true);
    };
  },
};
