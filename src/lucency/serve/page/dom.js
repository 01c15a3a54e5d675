/** Elements made in one call, without a framework. */

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {Record<string, any>} Attributes `on...` are listeners, `class` and `aria-*` attributes, the rest properties
 *     where the element has one of that name.
 */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes | null} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden" || name === "multiple")
      /** @type {any} */ (made)[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  fill(made, ...children);
  return made;
}

/**
 * Puts these children in place of what was there.
 * @param {Element} parent
 * @param {...(Child | Child[])} children
 */
export function fill(parent, ...children) {
  const kept = children.flat().filter((c) => c !== null && c !== undefined && c !== false);
  parent.replaceChildren(...kept.map((c) => (c instanceof Node ? c : String(c))));
}

/**
 * A button with a name for screen readers and, beside or instead of it, a picture.
 * @param {string} label
 * @param {() => void} onclick
 * @param {{icon?: keyof typeof ICONS, text?: boolean, class?: string, key?: string, id?: string, disabled?: boolean}} [how]
 *     `text`: whether the label is shown; `key`: its shortcut, for the tooltip.
 */
export function button(label, onclick, how = {}) {
  const shown = how.text ?? !how.icon;
  return h(
    "button",
    {
      type: "button",
      id: how.id,
      class: [shown ? "" : "square", how.class ?? ""].join(" ").trim() || null,
      title: shown && !how.key ? null : how.key ? `${label} (${how.key})` : label,
      "aria-label": shown ? null : label,
      "aria-keyshortcuts": how.key ?? null,
      disabled: how.disabled ?? false,
      onclick,
    },
    how.icon ? icon(how.icon) : null,
    shown ? h("span", null, label) : null,
  );
}

/** Paths on a grid of 20 by 20. */
const ICONS = {
  open: "M3 6.5V16h14V7.5H9.5L8 5.5H3z",
  folder: "M3 16V5h5l2 2h7v9zM3 9h14",
  phantom: "M10 3.5c3 0 5 2 5 5 0 4-2 8-5 8s-5-4-5-8c0-3 2-5 5-5zM10 6v8",
  list: "M4 5.5h12M4 10h12M4 14.5h12",
  sliders: "M4 6h12M4 14h12M8 4v4M13 12v4",
  play: "M6 4.5v11l9-5.5z",
  pause: "M6.5 4.5v11M13.5 4.5v11",
  back: "M13 4.5v11L6.5 10zM5 4.5v11",
  next: "M7 4.5v11l6.5-5.5zM15 4.5v11",
  save: "M10 3.5v9M6.5 9l3.5 3.5L13.5 9M4 16h12",
  link: "M8.5 11.5l3-3M9 6.5l1.7-1.7a3.2 3.2 0 0 1 4.5 4.5L13.5 11M11 13.5l-1.7 1.7a3.2 3.2 0 0 1-4.5-4.5L6.5 9",
  help: "M7.2 7.5a2.8 2.8 0 1 1 4.2 2.4c-.9.5-1.4 1-1.4 2.1M10 14.7v.6",
  theme: "M10 4a6 6 0 1 0 0 12zM10 4a6 6 0 0 1 0 12",
  large: "M4 8V4h4M16 12v4h-4M4 4l5 5M16 16l-5-5",
  small: "M8.5 4.5v4h-4M11.5 15.5v-4h4",
  close: "M5 5l10 10M15 5L5 15",
  undo: "M7 5L4 8l3 3M4 8h7.5a4 4 0 0 1 0 8H8",
  pin: "M7 3.5h6l-1 5 2.5 3h-9l2.5-3zM10 11.5V17",
  add: "M10 4v12M4 10h12",
  rectangle: "M4 6h12v8H4z",
  ellipse: "M10 5.5c3.6 0 6.2 2 6.2 4.5s-2.6 4.5-6.2 4.5S3.8 12.500 3.800 10 6.400 5.500 10 5.500z",
  brush: "M4 16c3 0 4-1 4-3l7-8 1.500 1.500-8 7",
  pick: "M4.500 8l3-3.500h5l3 3.500-1.500 6-4.500 2-4-2z",
  pan: "M10 3v14M3 10h14M10 3L8 5M10 3l2 2M10 17l-2-2M10 17l2-2M3 10l2-2M3 10l2 2M17 10l-2-2M17 10l-2 2",
  window: "M10 4a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM10 4v12",
};

/** @param {keyof typeof ICONS} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * A labelled field.
 * @param {string} label
 * @param {HTMLElement} control
 * @param {string} [help]
 */
export function field(label, control, help) {
  control.id ||= `field-${++made}`;
  const hint = help ? h("p", { class: "hint", id: `${control.id}-hint` }, help) : null;
  if (hint) control.setAttribute("aria-describedby", hint.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint);
}
let made = 0;

/**
 * A selection; options are `[value, text]`.
 * @param {readonly (readonly [string, string])[]} options
 * @param {string} value
 * @param {(value: string) => void} onchange
 * @param {Attributes} [attributes]
 */
export function select(options, value, onchange, attributes) {
  const made = h(
    "select",
    { ...attributes, onchange: () => onchange(made.value) },
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  made.value = value;
  return made;
}

/**
 * A dialog that closes by Escape, by its button or by a click beside it; what had the focus gets it back.
 * @param {string} title
 * @param {Child[]} content
 * @param {string} [close] what the closing button says; without it only `close()` closes
 */
export function dialog(title, content, close) {
  const heading = h("h2", { id: `dialog-${++made}` }, title);
  /** @type {HTMLDialogElement} */
  const shown = h(
    "dialog",
    { "aria-labelledby": heading.id },
    h("header", null, heading, close ? button(close, () => shown.close(), { icon: "close" }) : null),
    h("div", { class: "content" }, ...content),
  );
  if (close) {
    shown.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      if (event.target === shown) shown.close();
    });
  } else shown.addEventListener("cancel", (/** @type {Event} */ event) => event.preventDefault());
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
  return shown;
}
