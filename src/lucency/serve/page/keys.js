/** Keys of the page; those of a film belong to the viewer. */

import { LucencyViewer } from "/viewer/viewer.js";
import { dialog, h } from "./dom.js";
import { words } from "./words.js";

/**
 * @param {Record<string, () => void>} keys what each does
 */
export function listen(keys) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const at = event.target;
    // A film keeps its own keys as long as it has the focus.
    if (event.key === "Escape" && at instanceof LucencyViewer) at.stage.blur();
    if (document.querySelector("dialog[open]")) return;
    if (at instanceof HTMLSelectElement || at instanceof HTMLTextAreaElement) return;
    if (at instanceof HTMLInputElement && !["checkbox", "radio", "range", "file"].includes(at.type)) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/**
 * The list of keys.
 * @param {[string, string][]} viewer those of the film
 */
export function help(viewer) {
  /** @param {[string, string][]} list @param {boolean} one whether each is a key or several, rather than words */
  const table = (list, one) =>
    h("dl", { class: "keys" }, ...list.map(([key, text]) => h("div", null, h("dt", null, ...(one ? key.split("  ").map((k) => h("kbd", null, k)) : [key])), h("dd", null, text))));
  dialog(words.keys.heading, [h("h3", null, words.keys.page), table(words.keys.list, true), h("h3", null, words.keys.viewer), table(viewer, false)], words.close);
}
