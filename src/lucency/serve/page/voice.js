/** What the page says aloud and what went wrong: read by screen readers, and kept until somebody dismisses it. */

import { ServiceError } from "./api.js";
import { button, fill, h } from "./dom.js";
import { words } from "./words.js";

const said = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
const list = h("ul", { class: "errors", "aria-label": words.errors.heading });
const news = h("div", { class: "news", "aria-hidden": "true" });
/** @type {ReturnType<typeof setTimeout> | undefined} */
let leaving;

/** Where both stand. */
export const voice = h("div", { class: "voice" }, said, news, h("div", { role: "alert" }, list));

/**
 * Says it, and shows it for a moment where `show` asks for that.
 * @param {string} text
 * @param {boolean} [show]
 */
export function say(text, show = false) {
  fill(said, text);
  if (!show) return;
  fill(news, text);
  clearTimeout(leaving);
  leaving = setTimeout(() => fill(news), 5000);
}

/**
 * An error's one sentence; it stays until it is dismissed.
 * @param {unknown} error
 */
export function complain(error) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  // What is not the service's own sentence is a fault of the page, and for whoever mends it.
  const known = typeof error === "string" ? error : error instanceof ServiceError ? error.message : null;
  if (known === null) console.error(error);
  const text = known ?? words.errors.script;
  for (const entry of list.children) if (entry.firstChild?.textContent === text) return;
  /** @type {HTMLLIElement} */
  const entry = h(
    "li",
    null,
    h("span", null, text),
    button(words.errors.dismiss, () => entry.remove(), { icon: "close" }),
  );
  list.append(entry);
}

/**
 * Takes back an error that is over.
 * @param {string} text
 */
export function settled(text) {
  for (const entry of [...list.children]) if (entry.firstChild?.textContent === text) entry.remove();
}
