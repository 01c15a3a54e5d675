/** Forms from what the service says of a method's parameters; the docstrings are their help. */

import { button, field, fill, h, select } from "./dom.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Parameter} Parameter */
/** @typedef {Record<string, string | number | boolean>} Values only those that differ from the defaults */

/** @param {string} name */
export const readable = (name) => {
  const text = name.replaceAll(/[_-]/g, " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
};

/** @param {string} text */
const sentence = (text) => (text ? text.charAt(0).toUpperCase() + text.slice(1) : "");

/** @param {unknown} value */
const shown = (value) => (Array.isArray(value) ? value.join(", ") : value === null || value === undefined ? "" : String(value));

/**
 * @param {Parameter[]} parameters
 * @param {Values} values
 * @param {(values: Values) => void} onchange
 * @returns {HTMLElement}
 */
export function parameterForm(parameters, values, onchange) {
  const form = h("div", { class: "parameters" });
  /** @param {string} name @param {string | number | boolean | undefined} value undefined: the default again */
  const give = (name, value) => {
    const kept = { ...values };
    if (value === undefined) delete kept[name];
    else kept[name] = value;
    values = kept;
    onchange(values);
    reset.hidden = !Object.keys(values).length;
  };
  const reset = button(words.ask_for.defaults, () => {
    values = {};
    onchange(values);
    draw();
  });
  const draw = () => {
    reset.hidden = !Object.keys(values).length;
    fill(form, ...parameters.map((parameter) => control(parameter, values[parameter.name], give)), reset);
  };
  draw();
  return form;
}

/**
 * @param {Parameter} parameter
 * @param {string | number | boolean | undefined} value
 * @param {(name: string, value: string | number | boolean | undefined) => void} give
 */
function control(parameter, value, give) {
  const { name, type, choices } = parameter;
  const help = sentence(parameter.help ?? "");
  const now = value ?? parameter.default;
  const label = readable(name);
  if (type === "boolean") {
    const box = h("input", {
      type: "checkbox",
      checked: Boolean(now),
      onchange: () => give(name, box.checked === parameter.default ? undefined : box.checked),
    });
    return h("div", { class: "tick" }, field(label, box, help));
  }
  if (choices?.length) {
    const known = choices.includes(shown(parameter.default));
    const options = /** @type {[string, string][]} */ (choices.map((choice) => [choice, choice]));
    if (!known) options.unshift(["", shown(parameter.default) || words.ask_for.choose]);
    const made = select(options, known ? shown(now) : shown(value), (picked) =>
      give(name, picked === "" || picked === shown(parameter.default) ? undefined : picked),
    );
    return field(label, made, help);
  }
  const number = type === "integer" || type === "number";
  const input = h("input", {
    type: number ? "number" : "text",
    value: shown(now),
    min: number ? parameter.minimum : null,
    step: type === "integer" ? 1 : number ? "any" : null,
    placeholder: shown(parameter.default) || words.ask_for.choose,
    autocomplete: "off",
    spellcheck: "false",
    onchange: () => {
      const text = input.value.trim();
      if (!input.checkValidity()) input.reportValidity();
      else if (text === "" || text === shown(parameter.default)) give(name, undefined);
      else give(name, number ? Number(text) : text);
    },
  });
  return field(label, input, help);
}
