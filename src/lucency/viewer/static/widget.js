/**
 * In a notebook: film | film as perturbed now | reaction, while a method runs, and then the whole answer.
 *
 * @module widget
 */

import { Chart, spoken } from "./chart.js";
import { made } from "./controls.js";
import { link } from "./linked.js";
import { unpack } from "./packing.js";
import { LucencyViewer, opened } from "./viewer.js";
import { WORDS } from "./words.js";

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").Layer} Layer */
/** @typedef {{get: (name: string) => any, on: (event: string, act: () => void) => void, off: (event: string, act: () => void) => void}} Model */

const LIVE_RULES = `
.live { font: 13px/1.45 system-ui, sans-serif; max-width: 1100px; color: inherit; }
.panels { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { margin: 0 0 4px; font-weight: 600; }
.body { position: relative; aspect-ratio: 1; }
.panels lucency-viewer, .panels canvas { position: absolute; inset: 0; width: 100%; height: 100%; min-height: 0; }
.answer lucency-viewer { height: 560px; }
.answer { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
progress { width: 100%; margin-top: 8px; } p { margin: 6px 0; }
[hidden] { display: none !important; }
`;

/** @param {DataView} view bytes of a model, wherever they lie */
function bytesOf({ buffer, byteOffset, byteLength }) {
  return unpack(/** @type {ArrayBuffer} */ (buffer.slice(byteOffset, byteOffset + byteLength)));
}

class LivePanels {
  #film = new LucencyViewer();
  #perturbed = new LucencyViewer();
  #reaction = new LucencyViewer();
  #chart = new Chart();
  #progress = made("progress", { max: "1", value: "0", "aria-label": WORDS.done });
  #said = made("p", { role: "status" });
  #answer = made("div", { class: "answer" });

  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    const viewers = [this.#film, this.#perturbed, this.#reaction];
    const labels = [WORDS.film, WORDS.perturbed, WORDS.reaction];
    viewers.forEach((viewer, i) => {
      viewer.toggleAttribute("bare");
      viewer.setAttribute("aria-label", labels[i]);
    });
    link(viewers);
    const bodies = [[this.#film], [this.#perturbed], [this.#reaction, this.#chart.canvas]];
    this.panels = made(
      "div",
      { class: "panels" },
      ...bodies.map((body, i) => made("figure", {}, made("figcaption", {}, labels[i]), made("div", { class: "body" }, ...body))),
    );
    this.element = made("div", { class: "live" }, this.panels, this.#progress, this.#said, this.#answer);
    this.draw();
  }

  draw() {
    const { model } = this;
    const done = model.get("answer").byteLength > 0;
    this.panels.hidden = done;
    this.#progress.hidden = done;
    if (done) this.#whole(bytesOf(model.get("answer")));
    else if (model.get("film").byteLength) this.#step();
    if (!done) this.#said.textContent = model.get("said");
  }

  #step() {
    const { header, arrays } = bytesOf(this.model.get("film"));
    /** @type {Film} */
    const film = { ...header.film, data: arrays.film.data };
    // The same film at every step: what somebody set in its window stays.
    if (!this.#film.film) {
      this.#film.film = film;
      this.#reaction.film = film;
    }
    if (!this.model.get("step").byteLength) return;
    const step = bytesOf(this.model.get("step"));
    this.#progress.value = step.header.done;
    this.#perturbed.film = { ...step.header.film, data: step.arrays.perturbed.data };
    const charted = step.header.panel !== "map";
    this.#chart.canvas.hidden = !charted;
    this.#reaction.hidden = charted;
    const [height, width] = step.arrays.map.shape;
    const map = /** @type {Float32Array} */ (step.arrays.map.data);
    /** @type {Layer} */
    const layer = { id: "map", title: step.header.title, kind: "map", width, height, data: map, unit: step.header.unit };
    const shown = charted ? this.#film : this.#reaction;
    shown.layers = [layer];
    shown.shown = "map";
    if (!charted) return;
    const flat = step.arrays.points.data;
    const points = Array.from({ length: flat.length / 2 }, (_, i) => /** @type {[number, number]} */ ([flat[2 * i], flat[2 * i + 1]]));
    const { axes, panel } = step.header;
    const label = spoken(points, axes, (y, from, to, x, left, right) => `${y} ${from} – ${to}; ${x} ${left} – ${right}`);
    this.#chart.draw([{ name: axes[1], points }], { axes, scatter: panel === "scatter", at: points.at(-1) ?? null, label });
  }

  /** @param {import("./packing.js").Packed} packed */
  #whole(packed) {
    const planes = opened(packed);
    const viewers = planes.map(({ film, layers, name }) => {
      const viewer = new LucencyViewer();
      viewer.setAttribute("aria-label", name || WORDS.viewer);
      viewer.film = film;
      viewer.layers = layers;
      viewer.shown = layers[0].id;
      return viewer;
    });
    link(viewers, { place: false, layer: true });
    this.#answer.replaceChildren(...viewers);
    const { target, answer, verdict, notices } = packed.header;
    this.#said.textContent = [`${target}: ${answer}.`, verdict.text, ...notices].filter(Boolean).join(" ");
  }
}

/** @param {{model: Model, el: HTMLElement}} place */
function render({ model, el }) {
  const live = new LivePanels(model);
  const root = made("div");
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(LIVE_RULES);
  const shadow = root.attachShadow({ mode: "open" });
  shadow.adoptedStyleSheets = [sheet];
  shadow.append(live.element);
  el.append(root);
  const changed = () => live.draw();
  const names = ["film", "step", "said", "answer"];
  for (const name of names) model.on(`change:${name}`, changed);
  return () => {
    for (const name of names) model.off(`change:${name}`, changed);
    root.remove();
  };
}

export default { render };
