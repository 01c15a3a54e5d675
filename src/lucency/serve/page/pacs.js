/** What came to the listener beside a PACS, what went, what failed and why; and once more. */

import { get, post } from "./api.js";
import { button, fill, h } from "./dom.js";
import { when } from "./scans.js";
import { complain, say } from "./voice.js";
import { words } from "./words.js";

/**
 * A film of the listener, as the service tells of it.
 * @typedef {{film: string, state: string, why: string, came: string, modality: string, view: string, target: string,
 *   probability: number | null, done: number, left_out: Record<string, string>, tries: number, again: string}} Received
 */

/** Milliseconds between two looks. */
const PAUSE = 5000;
const OVER = ["failed", "cancelled"];

export class Pacs {
  element = h("section", { class: "pacs", hidden: true });
  #counts = h("p", { class: "hint" });
  #list = h("ul", { tabindex: 0, "aria-label": words.pacs.heading });
  #all = button(words.pacs.all, () => void this.#retry(null), { text: true });
  #shown = "";

  constructor() {
    this.element.append(h("div", { class: "heading" }, h("h2", null, words.pacs.heading), this.#all), this.#counts, this.#list);
  }

  /** Asks the service, and again and again where it knows of a listener. */
  async load() {
    const found = await get("pacs");
    if (!found.listener) return;
    this.element.hidden = false;
    this.#draw(found);
    setTimeout(() => void this.#again(), PAUSE);
  }

  async #again() {
    try {
      if (!document.hidden) this.#draw(await get("pacs"));
    } catch {
      // That the service does not answer is said at the top, and it is asked again.
    }
    setTimeout(() => void this.#again(), PAUSE);
  }

  /** @param {string | null} film */
  async #retry(film) {
    try {
      const { films } = await post("pacs/retry", { film });
      say(words.pacs.tried(films.length), true);
      this.#draw(await get("pacs"));
    } catch (error) {
      complain(error);
    }
  }

  /** @param {{notice: string, counts: Record<string, number>, films: Received[]}} found */
  #draw({ notice, counts, films }) {
    // What has the focus keeps it while nothing changes.
    const now = JSON.stringify([notice, counts, films]);
    if (now === this.#shown) return;
    this.#shown = now;
    fill(this.#counts, notice || Object.entries(counts).map(([state, n]) => words.pacs.count(n, state)).join(", ") || words.pacs.none);
    this.#all.hidden = !OVER.some((state) => counts[state]);
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.film;
    fill(this.#list, ...films.map((film) => this.#row(film)));
    if (focused) /** @type {HTMLElement | null} */ (this.#list.querySelector(`[data-film="${focused}"]`))?.focus();
  }

  /** @param {Received} film */
  #row(film) {
    const what = [`${film.modality} ${film.view}`.trim(), film.target && `${film.target} ${film.probability === null ? "" : words.probability(film.probability)}`.trim()];
    const state = film.state === "explaining" ? `${words.pacs.states.explaining}, ${words.percent(film.done)}` : words.pacs.state(film.state);
    const why = Object.keys(film.left_out).length ? words.pacs.without(Object.keys(film.left_out)) : film.why;
    const again = button(words.pacs.again(film.film.slice(0, 12)), () => void this.#retry(film.film), { icon: "undo", class: "quiet" });
    again.dataset.film = film.film;
    return h(
      "li",
      { dataset: { state: film.state } },
      h("p", { class: "what" }, h("span", null, what.filter(Boolean).join(", ") || film.film.slice(0, 12)), h("span", { class: "when" }, when(film.came))),
      h("p", { class: "state" }, h("span", null, state), OVER.includes(film.state) ? again : null),
      why ? h("p", { class: "hint" }, why, film.again ? ` ${words.pacs.later(film.tries, when(film.again))}` : null) : null,
    );
  }
}
