/**
 * The row of tools above a film.
 *
 * @module controls
 */

import { PALETTES } from "./palettes.js";
import { WORDS } from "./words.js";

/** @typedef {import("./types.js").Layer} Layer */
/** @typedef {import("./types.js").Tool} Tool */
/** @typedef {import("./types.js").View} View */

/** @type {Record<string, string>} drawn on a field of 24 by 24 */
const ICONS = {
  window: "M12 3v18M12 3a9 9 0 0 0 0 18M12 3a9 9 0 0 1 0 18",
  pan: "M12 3v18M3 12h18M9 6l3-3 3 3M9 18l3 3 3-3M6 9l-3 3 3 3M18 9l3 3-3 3",
  rectangle: "M4 6h16v12H4z",
  ellipse: "M12 6c5 0 9 2.7 9 6s-4 6-9 6-9-2.7-9-6 4-6 9-6z",
  brush: "M14 10l6-6M9 14c-3 0-3 4-6 5 3 2 8 1 8-3zM9 14l5-4M11 16l4-5",
  pick: "M4 4l7 16 2-7 7-2z",
  invert: "M4 4h16v16H4zM4 20L20 4M8 16h5v4M20 8h-5",
  reset: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  flicker: "M2 12s4-6 10-6 10 6 10 6-4 6-10 6-10-6-10-6zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  contour: "M5 13c-2-5 3-9 8-8s7 6 5 10-11 5-13-2zM9 12c0-2 2-3 4-2s2 4 0 5-4-1-4-3z",
  smooth: "M4 4h6v6h4v4h6v6H4z",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.5",
  more: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  close: "M6 6l12 12M18 6L6 18",
};

/** @param {string} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * An element with attributes, text and children.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * @param {string} name of the icon
 * @param {string} label
 * @param {() => void} act
 * @param {Record<string, string>} [attributes]
 */
export function iconButton(name, label, act, attributes = {}) {
  const button = made("button", { type: "button", "aria-label": label, title: label, ...attributes }, icon(name));
  button.addEventListener("click", act);
  return button;
}

/**
 * What the row can do to its viewer.
 *
 * @typedef {object} Handles
 * @property {(change: Partial<View>) => void} change
 * @property {() => void} reset
 * @property {() => void} help
 * @property {(tool: Tool) => void} tool
 * @property {(id: string | null) => void} show
 */

export class Controls {
  /**
   * @param {Handles} handles
   * @param {Tool[]} tools
   */
  constructor(handles, tools) {
    /** @type {View | null} */
    this.view = null;
    const toggle = (/** @type {"invert" | "flicker" | "contour" | "smooth"} */ name) =>
      iconButton(name, WORDS.buttons[name], () => this.view && handles.change({ [name]: !this.view[name] }), {
        "aria-pressed": "false",
      });
    this.tools = tools.map((tool, i) => {
      const label = `${WORDS.tools[tool]} (${i + 1})`;
      return iconButton(tool, label, () => handles.tool(tool), { "aria-pressed": "false", "data-tool": tool });
    });
    this.toggles = { flicker: toggle("flicker"), contour: toggle("contour"), smooth: toggle("smooth"), invert: toggle("invert") };
    this.toggles.contour.classList.add("wide");
    this.toggles.smooth.classList.add("wide");
    this.layer = made("select");
    this.layer.addEventListener("change", () => handles.show(this.layer.value || null));
    this.palette = made("select");
    for (const name of Object.keys(PALETTES)) this.palette.append(new Option(WORDS.palettes[name], name));
    this.palette.addEventListener("change", () => handles.change({ palette: this.palette.value }));
    this.opacity = made("input", { type: "range", min: "0", max: "100" });
    this.opacity.addEventListener("input", () => handles.change({ opacity: Number(this.opacity.value) / 100 }));
    this.threshold = made("input", { type: "range", min: "0", max: "99" });
    this.threshold.addEventListener("input", () => {
      handles.change({ threshold: Number(this.threshold.value) ? Number(this.threshold.value) / 100 : null });
    });
    this.more = made(
      "div",
      { class: "more" },
      made("label", {}, WORDS.layer, this.layer),
      made("label", {}, WORDS.palette, this.palette),
      made("label", {}, WORDS.opacity, this.opacity),
      made("label", {}, WORDS.threshold, this.threshold),
    );
    this.open = iconButton("more", WORDS.adjust, () => this.#fold(!this.more.classList.contains("opened")), {
      class: "open",
      "aria-expanded": "false",
    });
    this.more.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.#fold(false);
      this.open.focus();
    });
    this.element = made(
      "div",
      { class: "tools", role: "group", "aria-label": WORDS.toolbar },
      ...this.tools,
      ...(tools.length ? [made("span", { class: "apart" })] : []),
      this.toggles.flicker,
      this.toggles.contour,
      this.toggles.smooth,
      this.toggles.invert,
      iconButton("reset", WORDS.buttons.reset, handles.reset),
      made("span", { class: "gap" }),
      this.more,
      this.open,
      iconButton("help", WORDS.buttons.help, handles.help, { class: "help" }),
    );
  }

  /** @param {boolean} opened */
  #fold(opened) {
    this.more.classList.toggle("opened", opened);
    this.open.setAttribute("aria-expanded", String(opened));
  }

  /**
   * Shows how things stand.
   *
   * @param {View} view
   * @param {Tool} tool
   * @param {Layer[]} layers without masks
   * @param {string | null} shown
   */
  show(view, tool, layers, shown) {
    this.view = view;
    for (const button of this.tools) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    this.toggles.flicker.setAttribute("aria-pressed", String(!view.flicker));
    this.toggles.contour.setAttribute("aria-pressed", String(view.contour));
    this.toggles.smooth.setAttribute("aria-pressed", String(!view.smooth));
    this.toggles.invert.setAttribute("aria-pressed", String(view.invert));
    const options = [...layers.map(({ id, title }) => [title, id]), [WORDS.noLayer, ""]];
    const there = [...this.layer.options].map((o) => [o.text, o.value]);
    if (JSON.stringify(options) !== JSON.stringify(there)) {
      this.layer.replaceChildren(...options.map(([text, value]) => new Option(text, value)));
    }
    this.layer.value = shown ?? "";
    this.palette.value = view.palette;
    this.opacity.value = String(Math.round(view.opacity * 100));
    this.threshold.value = String(Math.round((view.threshold ?? 0) * 100));
    for (const input of [this.toggles.flicker, this.toggles.contour, this.palette, this.opacity, this.threshold]) {
      input.toggleAttribute("disabled", !layers.length);
    }
  }
}
