// Enter in a text field goes to the kernel with what is typed: the field's own value may still be on its way there.
export default {
  initialize({model}) {
    const listen = event => {
      const {key, target, repeat, isComposing} = event;  // while composing, Enter chooses a word
      if (key !== "Enter" || repeat || isComposing || !target.closest?.(`.${model.get("field")}`)) return;
      model.send({entered: target.value});
    };
    document.addEventListener("keydown", listen, true);
    return () => document.removeEventListener("keydown", listen, true);
  },
};
