// What JupyterLab and Notebook 7 show in place of a widget whose kernel is gone: one sentence, and its still picture.
//
// A notebook holds of a widget only the name of a model in the kernel. Where that model is there, for example when a
// notebook is closed and opened again, the widget comes back. Where it is not, JupyterLab would write "Error displaying
// widget", or leave controls that nothing answers to. This is a prebuilt extension, written by hand: nothing to build.
(() => {
  const NAME = "model-optimisation-kit";
  const VIEW = "application/vnd.jupyter.widget-view+json";
  const STILL = "image/png";
  const SENTENCE = "Run this cell to bring it to life.";
  const GONE = new Set(["restarting", "autorestarting", "dead", "terminating"]); // what a kernel says as it ends
  const STYLE = `
    .kit-asleep > .kit-sentence { padding: 4px 8px; margin: 2px 0; border-left: 4px solid #0072B2;
      color: var(--jp-content-font-color1, #767676); font-family: var(--jp-content-font-family); }
    .kit-asleep .kit-controls, .kit-asleep .jupyter-widgets-disconnected::before { display: none !important; }
    .kit-asleep > img { max-width: 100%; display: block; }`;

  function sentence() {
    const said = document.createElement("div");
    said.className = "kit-sentence";
    said.setAttribute("role", "note");
    said.textContent = SENTENCE;
    return said;
  }

  // In place of a widget that was never drawn in this page.
  function lie(node, {data}) {
    node.replaceChildren(sentence());
    node.classList.add("kit-asleep");
    if (!data[STILL]) return;
    const still = document.createElement("img");
    still.src = `data:${STILL};base64,${data[STILL]}`;
    still.alt = String(data["text/plain"] ?? "");
    node.append(still);
  }

  // A widget that stands in the page: its figures stay as the picture, what a hand would move goes.
  function fallAsleep(node) {
    if (node.classList.contains("kit-asleep") || node.querySelector(".kit-table")) return;
    node.classList.add("kit-asleep");
    if (!node.querySelector(".kit-explorer")) node.replaceChildren();
    node.prepend(sentence());
    requestAnimationFrame(() => window.dispatchEvent(new Event("resize"))); // figures take the room of the controls
  }

  function wake(node) {
    node.classList.remove("kit-asleep");
    node.replaceChildren();
  }

  function follow(panel) {
    const {sessionContext: session, content: {rendermime}} = panel;
    const awake = new Set(); // renderers of widgets that live
    let models; // in the kernel, once it was asked

    const inPage = id => session.session?.kernel?.hasComm(id);
    const inKernel = async id => {
      await session.ready;
      models ??= session.session.kernel.requestCommInfo({target_name: "jupyter.widget"});
      return id in (await models).content.comms;
    };
    // A widget that the kernel has, and the page not yet: its state is some megabytes, and JupyterLab, asked to draw it,
    // gives up after two seconds.
    const arrived = async (id, renderer) => {
      while (!inPage(id)) {
        if (renderer.isDisposed || !session.session?.kernel) return false;
        await new Promise(go => { setTimeout(go, 100); });
      }
      return true;
    };
    const ended = () => {
      models = undefined;
      for (const renderer of awake) if (!renderer.isDisposed) fallAsleep(renderer.node);
      awake.clear();
    };

    const showing = {
      [VIEW](renderer) {
        const draw = renderer.renderModel.bind(renderer);
        renderer.renderModel = async model => {
          const id = model.data[VIEW].model_id;
          if (!inPage(id)) {
            lie(renderer.node, model);
            if (!await inKernel(id).catch(() => false) || !await arrived(id, renderer)) return;
            wake(renderer.node);
          }
          awake.add(renderer);
          renderer.disposed.connect(() => awake.delete(renderer));
          await draw(model);
        };
      },
      [STILL](renderer) {
        const draw = renderer.renderModel.bind(renderer);
        renderer.renderModel = async model => {
          await draw(model);
          if (model.metadata[STILL]?.still) lie(renderer.node, model);
        };
      },
    };
    const make = rendermime.createRenderer.bind(rendermime);
    rendermime.createRenderer = (kind, ...rest) => {
      const renderer = make(kind, ...rest);
      showing[kind]?.(renderer);
      return renderer;
    };
    session.kernelChanged.connect(ended);
    session.statusChanged.connect((_, status) => { if (GONE.has(status)) ended(); });
  }

  const plugin = {
    id: `${NAME}:life`,
    description: "Says how a widget without its kernel comes to life.",
    autoStart: true,
    activate(app) {
      document.head.append(Object.assign(document.createElement("style"), {textContent: STYLE}));
      app.docRegistry?.addWidgetExtension("Notebook", {createNew: panel => { follow(panel); }});
    },
  };

  (window._JUPYTERLAB ??= {})[NAME] = {
    init: async () => {},
    get: async () => () => ({__esModule: true, default: plugin}),
  };
})();
