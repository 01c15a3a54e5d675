/** The time-line of a run: scrub, play, slow down, step, save. */

import { address } from "./api.js";
import { button, fill, h, icon, select } from "./dom.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */

/** Moments a second at normal speed. */
const RATE = 10;

export class Timeline {
  #slider = h("input", { type: "range", min: 0, max: 0, value: "0", step: 1, "aria-label": words.line.scrub, oninput: () => this.go(Number(this.#slider.value)) });
  #said = h("output", { class: "said" });
  #play = button(words.line.play, () => this.play(), { icon: "play", key: "k" });
  #cancel;
  #exports = h("span", { class: "exports" });
  /** @type {number | null} */
  #playing = null;
  #speed = 1;
  #began = 0;
  #from = 0;
  element = h("section", { class: "line", "aria-label": words.line.label });

  /**
   * @param {Store} store
   * @param {() => void} cancel ends what runs
   */
  constructor(store, cancel) {
    this.store = store;
    // Where the question is folded away, so is its own button.
    this.#cancel = h("span", { class: "ending" }, button(words.ask_for.cancel, cancel, { class: "stop", text: true }));
    this.element.append(
      button(words.line.back, () => this.step(-1), { icon: "back", key: "," }),
      this.#play,
      button(words.line.next, () => this.step(1), { icon: "next", key: "." }),
      this.#slider,
      this.#said,
      select(words.line.speeds, "1", (speed) => this.#faster(Number(speed)), { "aria-label": words.line.speed }),
      this.#exports,
      this.#cancel,
    );
    store.on(["moment", "moments", "running", "answer"], () => this.#draw());
  }

  get #at() {
    const { moments, moment } = this.store.state;
    return moment ? moments.indexOf(moment) : -1;
  }

  /** @param {number} number */
  go(number) {
    const { moments } = this.store.state;
    if (moments.length) this.store.set({ moment: moments[Math.min(moments.length - 1, Math.max(0, number))] });
  }

  /** @param {number} by */
  step(by) {
    this.stop();
    this.go(this.#at + by);
  }

  /** Plays from here, or from the start where this is the end; again: stops. */
  play() {
    const { moments, running } = this.store.state;
    if (this.#playing !== null) return this.stop();
    if (running || moments.length < 2) return;
    this.#from = this.#at >= moments.length - 1 ? 0 : Math.max(0, this.#at);
    this.#began = performance.now();
    const tick = () => {
      const now = this.#from + Math.floor(((performance.now() - this.#began) / 1000) * RATE * this.#speed);
      if (now !== this.#at) this.go(now);
      if (now >= this.store.state.moments.length - 1) return this.stop();
      this.#playing = requestAnimationFrame(tick);
    };
    this.#playing = requestAnimationFrame(tick);
    this.#draw();
  }

  stop() {
    if (this.#playing === null) return;
    cancelAnimationFrame(this.#playing);
    this.#playing = null;
    this.#draw();
  }

  /** @param {number} speed */
  #faster(speed) {
    this.#from = Math.max(0, this.#at);
    this.#began = performance.now();
    this.#speed = speed;
  }

  #draw() {
    const { moments, moment, running, answer } = this.store.state;
    const at = this.#at;
    this.element.hidden = !running && !moments.length;
    const idle = running || moments.length < 2;
    this.#slider.max = String(Math.max(0, moments.length - 1));
    this.#slider.value = String(Math.max(0, at));
    this.#slider.disabled = idle;
    for (const each of this.element.querySelectorAll(":scope > button")) /** @type {HTMLButtonElement} */ (each).disabled = idle;
    this.#cancel.hidden = !running;
    let text = "";
    if (moment && at >= 0) {
      const done = words.percent(moment.done);
      const left = moment.left === null ? "" : words.time(moment.left);
      text = running ? words.ask_for.running(done, left) : words.line.at(at + 1, moments.length, done);
    }
    fill(this.#said, text);
    this.#slider.setAttribute("aria-valuetext", text);
    const playing = this.#playing !== null;
    this.#play.replaceChildren(icon(playing ? "pause" : "play"));
    this.#play.setAttribute("aria-label", playing ? words.line.pause : words.line.play);
    this.#play.title = `${playing ? words.line.pause : words.line.play} (k)`;
    const id = answer && !running ? answer.id : null;
    if (this.#exports.dataset.of === (id ?? "")) return;
    this.#exports.dataset.of = id ?? "";
    fill(
      this.#exports,
      ...(id === null
        ? []
        : /** @type {const} */ (["mp4", "webp", "gif"]).map((kind) =>
            h(
              "a",
              { class: "button", href: address(id, `animation.${kind}`), download: `lucency-${id.slice(0, 8)}.${kind}`, "aria-label": words.keep.label(words.keep[kind]) },
              words.keep[kind],
            ),
          )),
    );
  }
}
