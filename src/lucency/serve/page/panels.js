/** The three panels: the film, the film as it is perturbed now, and the reaction growing. */

import { LucencyViewer } from "/viewer/viewer.js";
import { Chart, spoken } from "/viewer/chart.js";
import { button, fill, h } from "./dom.js";
import { layerOf, perturbedFilm } from "./films.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Moment} Moment */
/** @typedef {import("/viewer/types.js").Film} Film */
/** @typedef {import("/viewer/types.js").Layer} Layer */
/** @typedef {import("/viewer/types.js").View} View */
/** @typedef {import("/viewer/types.js").Cursor} Cursor */
/** @typedef {import("/viewer/viewer.js").LucencyViewer} Viewer */

/**
 * A new viewer with a name for screen readers.
 * @param {string} label
 * @param {string} [how] its attribute `bare` or `draw`
 */
export function viewer(label, how) {
  const made = new LucencyViewer();
  made.setAttribute("aria-label", label);
  if (how) made.setAttribute(how, "");
  return made;
}

/**
 * Viewers that show the same place with the same window: what is done to one happens to all.
 */
export class Linked {
  /** @type {{viewer: Viewer, sides: () => [number, number] | null}[]} */
  #members = [];
  #busy = false;
  /** @type {(view: View) => void} */
  onview = () => {};

  /** @param {Viewer} viewer */
  add(viewer) {
    const sides = () => (viewer.film ? /** @type {[number, number]} */ ([viewer.film.height, viewer.film.width]) : null);
    const member = { viewer, sides };
    this.#members.push(member);
    viewer.addEventListener("viewchange", (event) => {
      if (this.#busy) return;
      const view = /** @type {CustomEvent<View>} */ (event).detail;
      this.#spread(view, member);
      this.onview(this.#normal(view, member));
    });
    viewer.addEventListener("cursor", (event) => {
      const at = /** @type {CustomEvent<Cursor | null>} */ (event).detail;
      const from = sides();
      for (const other of this.#members) {
        const to = other.sides();
        if (other === member || !from || !to) continue;
        other.viewer.pointer = at && [((at.row + 0.5) / from[0]) * to[0], ((at.column + 0.5) / from[1]) * to[1]];
      }
    });
  }

  /** @param {Viewer} viewer */
  remove(viewer) {
    this.#members = this.#members.filter((member) => member.viewer !== viewer);
  }

  /**
   * The centre as shares of the sides, so that it fits films of any size.
   * @param {View} view
   * @param {{sides: () => [number, number] | null}} from
   */
  #normal(view, from) {
    const [height, width] = from.sides() ?? [1, 1];
    return { ...view, centre: /** @type {[number, number]} */ ([view.centre[0] / height, view.centre[1] / width]) };
  }

  /** @param {View} view @param {{viewer: Viewer, sides: () => [number, number] | null}} from */
  #spread(view, from) {
    const normal = this.#normal(view, from);
    for (const member of this.#members) if (member !== from) this.#give(member, normal);
  }

  /** @param {{viewer: Viewer, sides: () => [number, number] | null}} member @param {View} normal */
  #give(member, normal) {
    const sides = member.sides();
    if (!sides) return;
    this.#busy = true;
    member.viewer.view = { ...normal, centre: [normal.centre[0] * sides[0], normal.centre[1] * sides[1]] };
    this.#busy = false;
  }

  /**
   * Shows this everywhere; the centre in shares of the sides.
   * @param {View} normal
   */
  show(normal) {
    for (const member of this.#members) this.#give(member, normal);
  }

  /** What the first of them shows; the centre in shares of the sides. */
  get view() {
    const first = this.#members[0];
    return first?.sides() ? this.#normal(first.viewer.view, first) : null;
  }

  /**
   * Gives one the view of the first.
   * @param {Viewer} viewer
   */
  follow(viewer) {
    const view = this.view;
    const member = this.#members.find((m) => m.viewer === viewer);
    if (view && member) this.#give(member, view);
  }
}

/**
 * Where a moment stands in the third panel: as the method says, else its score over the scans it took.
 * @param {Moment} moment
 * @returns {[number, number] | null}
 */
export function pointOf(moment) {
  return moment.point ?? (moment.score === null ? null : [moment.evaluations, moment.score]);
}

export class Panels {
  linked = new Linked();
  #first = viewer(words.panels.film);
  #second = viewer(words.panels.perturbed, "bare");
  #third = viewer(words.panels.map, "bare");
  #chart = new Chart();
  #titles = [words.panels.film, words.panels.perturbed, words.panels.map].map((title) => h("h2", null, title));
  #facts = [0, 1, 2].map(() => h("p", { class: "fact" }));
  #empty = [words.panels.empty, words.panels.empty_third].map((text) => h("p", { class: "empty" }, text));
  /** @type {number | null} */
  #large = null;
  /** @type {HTMLElement[]} */
  #panels = [];
  /** @type {string | null | undefined} the layer that a person chose; undefined: none was */
  #chosen;
  element = h("section", { class: "panels", "aria-label": words.panels.label });

  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    const bodies = [
      [this.#first],
      [this.#second, this.#empty[0]],
      [this.#third, this.#chart.canvas, this.#empty[1]],
    ];
    this.#panels = bodies.map((body, i) =>
      h(
        "article",
        { class: "panel" },
        h(
          "header",
          null,
          this.#titles[i],
          button(words.panels.large, () => this.enlarge(i), { icon: "large", key: String(i + 1) }),
        ),
        i === 0 ? null : this.#facts[i],
        h("div", { class: "body" }, ...body),
      ),
    );
    // A mean of cells has no one maximum until it is whole.
    this.#third.crosses = false;
    this.#first.addEventListener("layerchange", (event) => {
      this.#chosen = /** @type {CustomEvent<string | null>} */ (event).detail;
      this.#draw();
    });
    this.element.append(...this.#panels);
    for (const each of [this.#first, this.#second, this.#third]) this.linked.add(each);
    this.linked.onview = (view) => store.set({ view });
    store.on(["film"], () => this.#film());
    store.on(["moment", "answer", "film", "running", "truth", "trace", "scores"], () => this.#draw());
  }

  /** @param {number} which */
  enlarge(which) {
    this.#large = this.#large === which ? null : which;
    this.element.dataset.large = this.#large === null ? "" : String(this.#large);
    this.#panels.forEach((panel, i) => {
      panel.classList.toggle("large", i === this.#large);
      const one = /** @type {HTMLButtonElement} */ (panel.querySelector("header > button"));
      const label = i === this.#large ? words.panels.small : words.panels.large;
      one.setAttribute("aria-label", label);
      one.title = `${label} (${i + 1})`;
    });
  }

  #film() {
    const { film, view } = this.store.state;
    // The page says whose film it is.
    const plain = film && { ...film, title: "" };
    for (const each of [this.#first, this.#second, this.#third]) each.film = plain;
    if (film && view) this.linked.show(view);
  }

  #draw() {
    const { film, moment, moments, answer, running } = this.store.state;
    const method = this.store.method;
    this.element.classList.toggle("reading", !running && !moments.length);
    if (!film) return;
    const unit = method?.unit ?? "";

    const growing = moment ? layerOf("now", words.panels.map, moment.heatmap, moment.place, unit, this.#limit(unit)) : null;
    const last = moments.length > 0 && moment === moments[moments.length - 1];
    const over = answer && !running && (last || !moment) ? answer.layers : growing ? [growing] : [];
    this.#offer(over, method?.panel ?? "map", Boolean(answer && !running));

    const empty = !moment;
    this.#empty[0].hidden = !empty;
    this.#second.hidden = empty;
    if (moment?.perturbed) {
      this.#second.film = perturbedFilm(film, moment.perturbed, moment.place);
      this.linked.follow(this.#second);
    }
    const clean = this.store.state.scores?.[this.store.target];
    fill(this.#facts[1], !moment || moment.score === null ? "" : words.panels.score(moment.score, clean));
        this.#reaction(moment, over, running);
  }

  /**
   * The scale of the finished map, so that a moment of its run is not shown louder than it was.
   * @param {string} unit
   */
  #limit(unit) {
    const whole = this.store.state.answer?.layers.find((layer) => layer.kind === "map" && layer.unit === unit);
    return whole?.limit ?? null;
  }

  /**
   * The first panel's layers, and which of them is shown.
   * @param {Layer[]} layers
   * @param {string} panel
   * @param {boolean} finished
   */
  #offer(layers, panel, finished) {
    const truth = this.store.state.truth ? this.truth : null;
    const all = truth ? [...layers, truth] : layers;
    this.#first.layers = all;
    const maps = layers.filter((layer) => layer.kind !== "mask");
    // A map that grows in the third panel leaves the film alone until it is whole.
    const usual = finished || panel !== "map" ? (maps[0]?.id ?? null) : null;
    const chosen = this.#chosen;
    const shown = chosen === null || maps.some((map) => map.id === chosen) ? chosen : usual;
    this.#first.shown = shown ?? null;
    fill(this.#titles[0], shown ? words.panels.film_map : words.panels.film);
  }

  /** @type {Layer | null} the phantom's truth */
  truth = null;

  /**
   * @param {Moment | null} moment
   * @param {Layer[]} over
   * @param {boolean} running
   */
  #reaction(moment, over, running) {
    const method = this.store.method;
    const panel = method?.panel ?? "map";
    const axes = method?.axes[0] ? method.axes : words.panels.axes;
    const { trace, scores } = this.store.state;
    const until = moment?.done ?? 1;
    const points = trace.filter((point) => point.done <= until).map((point) => point.at);
    // One step makes no curve.
    const charted = points.length > (panel === "map" ? 1 : 0);
    const mapped = panel !== "scatter" || !charted;
    const body = /** @type {HTMLElement} */ (this.#chart.canvas.parentElement);
    body.dataset.split = charted && mapped ? (panel === "map" ? "map" : "curve") : "";
    this.#empty[1].hidden = Boolean(moment) || over.length > 0;
    this.#third.hidden = !mapped || (!moment && !over.length);
    this.#chart.canvas.hidden = !charted;
    if (over.length > 1 && !running && panel === "map") {
      this.#third.layers = over;
      this.#third.shown = over[0].id;
    } else if (moment && mapped) {
      const grid = moment.reaction && running ? moment.reaction : moment.heatmap;
      const title = moment.reaction && running ? words.panels.reaction : words.panels.map;
      const limit = grid === moment.heatmap ? this.#limit(method?.unit ?? "") : null;
      this.#third.layers = [layerOf("third", title, grid, moment.place, method?.unit ?? "", limit)];
      this.#third.shown = "third";
    } else if (over.length) {
      this.#third.layers = over;
      this.#third.shown = over[0].id;
    }
    if (charted) {
      // A sweep may visit its places in any order.
      if (panel !== "scatter") points.sort((a, b) => a[0] - b[0]);
      this.#chart.draw([{ name: axes[1], points }], {
        axes: [axes[0], axes[1]],
        scatter: panel === "scatter",
        at: moment && pointOf(moment),
        level: scores?.[this.store.target] ?? null,
        label: spoken(points, [axes[0], axes[1]], words.panels.ends),
      });
    }
    const title =
      panel === "scatter" ? words.panels.scatter
      : panel === "curve" ? words.panels.mask
      : moment?.reaction && running ? words.panels.reaction
      : running ? words.panels.map
      : words.panels.map_done;
    fill(this.#titles[2], title);
    const cost = moment?.evaluations ? words.panels.evaluations(moment.evaluations) : "";
    fill(this.#facts[2], panel === "scatter" ? cost : [cost, method?.unit].filter(Boolean).join(" · "));
  }
}
