/** Questions by hand: a region goes, or only it stays, and the probabilities of all classes answer. */

import { get, post, postPacked, remove } from "./api.js";
import { button, fill, h } from "./dom.js";
import { readable } from "./forms.js";
import { viewer } from "./panels.js";
import { modelField, removalField } from "./question.js";
import { complain, say } from "./voice.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("/viewer/types.js").Shape} Shape */

/**
 * @typedef {Record<string, unknown>} Region as the service takes it
 * @typedef {{id?: string, region: Region, mark: Shape, sense: "remove" | "keep", scan: string, model: string,
 *   removal: string, target: string, clean: Record<string, number>, perturbed: Record<string, number>,
 *   milliseconds: number, odd: boolean}} Asked `id` where the service keeps it
 */

/** The p-value below which a scan is unlike those that the model knows. */
const ODD = 0.01;

export class Ask {
  viewer = viewer(words.ask.label, "draw");
  /** @type {Asked[]} newest last */
  asked = [];
  /** @type {Asked | null} */
  shown = null;
  /** @type {"remove" | "keep"} */
  sense = "remove";
  #cut = "";
  #answers = h("tbody");
  #took = h("p", { class: "hint took" });
  #list = h("ol", { class: "asked" });
  /** The answer in one line, where the others are in a drawer. */
  #short = h("p", { class: "short" });
  #waiting = 0;

  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.viewer.addEventListener("shape", (event) => void this.#drawn(/** @type {CustomEvent<Shape>} */ (event).detail));
    const senses = /** @type {const} */ (["remove", "keep"]).map((sense) =>
      h(
        "label",
        null,
        h("input", { type: "radio", name: "sense", value: sense, checked: sense === this.sense, onchange: () => this.#turn(sense) }),
        words.ask[sense],
      ),
    );
    this.centre = h(
      "section",
      { class: "asking", "aria-label": words.ask.label },
      h("div", { class: "body" }, this.viewer),
      this.#short,
    );
    this.side = h(
      "div",
      { class: "question" },
      h("p", { class: "hint" }, words.ask.lead),
      h("fieldset", { class: "sides" }, h("legend", null, words.ask.sense), ...senses),
      h("h2", null, words.ask.answers),
      h(
        "table",
        { class: "answers" },
        h("colgroup", null, h("col"), ...["bars", "number", "number"].map((width) => h("col", { class: width }))),
        h("thead", { class: "unseen" }, h("tr", null, h("th", { scope: "col" }, words.ask_for.target), h("td"), h("th", { scope: "col" }, words.ask.now), h("th", { scope: "col" }, words.ask.change))),
        this.#answers,
      ),
      this.#took,
      h(
        "div",
        { class: "heading" },
        h("h2", null, words.ask.list),
        button(words.ask.undo, () => this.undo(), { icon: "undo", key: "u" }),
        button(words.ask.clear, () => this.#show(null), { text: true }),
      ),
      this.#list,
      modelField(store),
      removalField(store),
    );
    this.viewer.tool = "rectangle";
    store.on(["film"], () => {
      this.viewer.film = store.state.film;
      this.asked = [];
      this.#show(null);
    });
    store.on(["film", "mode", "choice"], () => {
      if (store.state.mode === "ask") this.#segments().catch(complain);
    });
    store.on(["scores", "choice", "models"], () => this.#drawAnswers());
    store.on(["choice"], () => {
      const { model } = store.state.choice;
      if (this.shown && this.shown.model !== model) this.#show(null);
    });
  }

  /** Fetches the questions asked about this scan before. */
  async load() {
    const scan = this.store.state.scan?.scan;
    if (!scan) return;
    const found = await get(`questions?scan=${encodeURIComponent(scan)}`);
    if (scan !== this.store.state.scan?.scan) return;
    this.asked = found.map(kept);
    this.#drawList();
  }

  /** Gives the viewer the superpixels to pick from. */
  async #segments() {
    const { scan, choice } = this.store.state;
    const cut = `${scan?.scan} ${choice.model}`;
    if (!scan || !choice.model || cut === this.#cut) return;
    this.#cut = cut;
    this.viewer.regions = null;
    try {
      const { header, arrays } = await postPacked("superpixels", { scan: scan.scan, model: choice.model });
      const { data, shape } = arrays.labels;
      if (cut !== this.#cut) return;
      this.viewer.regions = { width: shape[1], height: shape[0], data: /** @type {Uint16Array} */ (data), place: header.place };
      this.#outlinePiece();
    } catch (error) {
      this.#cut = "";
      throw error;
    }
  }

  /** @param {"remove" | "keep"} sense */
  #turn(sense) {
    this.sense = sense;
    if (this.shown) void this.#ask(this.shown.region, this.shown.mark).catch(complain);
  }

  /** @param {Shape} shape */
  async #drawn(shape) {
    /** @type {Region} */
    let region;
    if (shape.kind === "brush") region = { mask: { width: shape.width, height: shape.height, bits: bits(shape.mask) } };
    else if (shape.kind !== "pick") region = { [shape.kind]: { rows: shape.rows, columns: shape.columns } };
    else if (shape.label === null) return;
    else region = { superpixel: shape.label };
    await this.#ask(region, shape).catch(complain);
  }

  /**
   * @param {Region} region
   * @param {Shape} mark
   */
  async #ask(region, mark) {
    const { scan, choice } = this.store.state;
    if (!scan) return;
    const number = ++this.#waiting;
    const began = performance.now();
    const said = await post("ask", { scan: scan.scan, model: choice.model, [this.sense]: region, removal: choice.removal || null });
    if (number !== this.#waiting) return;
    /** @type {Asked} */
    const question = {
      region, mark, sense: this.sense, scan: scan.scan, model: choice.model, removal: choice.removal, target: this.store.target,
      clean: said.clean, perturbed: said.perturbed, odd: odd(said.out_of_distribution), milliseconds: performance.now() - began,
    };
    this.asked.push(question);
    this.#show(question);
    say(this.#sentence(question));
  }

  /**
   * Puts it into the report, or takes it out.
   * @param {Asked} question
   */
  async #pin(question) {
    if (question.id) {
      await remove(`questions/${question.id}`);
      question.id = "";
    } else {
      const { scan, model, sense, region, removal } = question;
      const { id } = await post("questions", { ask: { scan, model, [sense]: region, removal: removal || null }, note: "" });
      question.id = id;
    }
    this.#drawList();
  }

  /** Goes back to the question before. */
  undo() {
    const at = this.shown ? this.asked.indexOf(this.shown) : this.asked.length;
    this.#show(this.asked[at - 1] ?? null);
  }

  /** @param {Asked | null} question */
  #show(question) {
    this.shown = question;
    this.viewer.mark = question?.mark ?? null;
    this.#outlinePiece();
    this.#drawAnswers();
    this.#drawList();
  }

  /** Outlines the superpixel that was asked about. */
  #outlinePiece() {
    const { regions } = this.viewer;
    const mark = this.shown?.mark;
    if (!regions || mark?.kind !== "pick") {
      this.viewer.layers = [];
      return;
    }
    const data = Uint8Array.from(regions.data, (label) => Number(label === mark.label));
    this.viewer.layers = [{ ...regions, id: "region", title: words.ask.shapes.pick, kind: "mask", data }];
  }

  #drawAnswers() {
    const { scores } = this.store.state;
    const question = this.shown;
    const clean = question?.clean ?? scores ?? {};
    const now = question?.perturbed ?? clean;
    const names = Object.keys(clean).sort((a, b) => clean[b] - clean[a]);
    fill(
      this.#answers,
      ...names.map((name) => {
        const change = now[name] - clean[name];
        const bar = h("div", { class: "bar change", "aria-hidden": "true" }, h("span"), h("i"));
        const [inner, mark] = /** @type {[HTMLElement, HTMLElement]} */ (/** @type {unknown} */ ([...bar.children]));
        inner.style.width = `${100 * now[name]}%`;
        mark.style.left = `${100 * clean[name]}%`;
        return h(
          "tr",
          { class: name === this.store.target ? "chosen" : null },
          h("th", { scope: "row", title: readable(name) }, readable(name)),
          h("td", { class: "bars" }, bar),
          h("td", null, words.probability(now[name])),
          h("td", { class: change < -0.0005 ? "down" : change > 0.0005 ? "up" : null }, question ? words.signed(change) : ""),
        );
      }),
    );
    fill(
      this.#took,
      question ? words.ask.milliseconds(question.milliseconds) : "",
      question?.odd ? h("span", { class: "odd" }, words.ask.odd) : null,
    );
    fill(this.#short, question ? this.#sentence(question) : words.ask.lead);
    this.#took.dataset.milliseconds = question ? String(Math.round(question.milliseconds)) : "";
  }

  /** @param {Asked} question */
  #sentence(question) {
    const shape = words.ask.shapes[question.mark.kind];
    const what = question.sense === "keep" ? words.ask.only(shape) : words.ask.without(shape);
    const { target } = question;
    return words.ask.said(what, readable(target), question.clean[target] ?? NaN, question.perturbed[target] ?? NaN);
  }

  #drawList() {
    fill(
      this.#list,
      ...[...this.asked].reverse().map((question) => {
        const pin = button(
          question.id ? words.ask.unpin : words.ask.pin,
          () => void this.#pin(question).catch(complain),
          { icon: "pin" },
        );
        pin.setAttribute("aria-pressed", String(Boolean(question.id)));
        return h(
          "li",
          { "aria-current": question === this.shown ? "true" : null },
          h("button", { type: "button", class: "tile", onclick: () => this.#show(question) }, this.#sentence(question)),
          pin,
        );
      }),
      this.asked.length ? null : h("li", { class: "hint" }, words.ask.none),
    );
  }
}

/**
 * A question that the service kept.
 * @param {any} found
 * @returns {Asked}
 */
function kept({ id, ask, answer }) {
  const sense = ask.remove ? "remove" : "keep";
  const region = Object.fromEntries(Object.entries(ask[sense]).filter(([, value]) => value !== null));
  const best = Object.entries(/** @type {Record<string, number>} */ (answer.clean)).sort((a, b) => b[1] - a[1]);
  return {
    id, region, mark: markOf(region), sense, scan: ask.scan, model: ask.model, removal: ask.removal ?? "", target: best[0]?.[0] ?? "",
    clean: answer.clean, perturbed: answer.perturbed, milliseconds: answer.milliseconds, odd: odd(answer.out_of_distribution),
  };
}

/** @param {number | null} p */
const odd = (p) => p !== null && p < ODD;

/**
 * A region as the viewer outlines it.
 * @param {Record<string, any>} region
 * @returns {Shape}
 */
function markOf({ rectangle, ellipse, mask, superpixel }) {
  if (rectangle) return { kind: "rectangle", ...rectangle };
  if (ellipse) return { kind: "ellipse", ...ellipse };
  if (!mask) return { kind: "pick", row: 0, column: 0, label: superpixel };
  const { width, height } = mask;
  const bytes = Uint8Array.from(atob(mask.bits), (c) => c.charCodeAt(0));
  return { kind: "brush", width, height, mask: Uint8Array.from({ length: width * height }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1) };
}

/**
 * A mask of 0 and 1 as bits, the first the highest of its byte, in base64.
 * @param {Uint8Array} mask
 */
function bits(mask) {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((on, i) => {
    if (on) bytes[i >> 3] |= 128 >> (i & 7);
  });
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
