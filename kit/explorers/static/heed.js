// anywidget gives a widget two seconds to begin; to one that a busy page let wait for longer it passes on nothing of
// what the kernel says, ever. Such a one listens for itself, and asks for what it has missed. Where the model behind
// the proxy is out of reach, all stays as it was.
function heed(proxy) {
  const model = proxy.set({}), nothing = {content: {data: {method: "nothing"}}};
  const ask = () => model?.comm?.send({method: "request_state"});
  model?._handle_comm_msg?.(nothing)?.catch?.(() => {
    const inherited = Object.getPrototypeOf(model.constructor.prototype)._handle_comm_msg;
    model.comm?.on_msg(inherited.bind(model));
    ask();
  });
  return ask;
}
