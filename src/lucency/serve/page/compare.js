/** Up to four methods, models or films side by side, with one zoom, one cursor and one window. */

import { opened } from "/viewer/viewer.js";
import { get, packed, post } from "./api.js";
import { CURVES, curvesOf, numbers } from "./answer.js";
import { button, fill, h, select } from "./dom.js";
import { filmOf, layerOf, momentOf } from "./films.js";
import { Linked, viewer } from "./panels.js";
import { budgetField, probabilities, removalField } from "./question.js";
import { complain, say } from "./voice.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Answer} Answer */
/** @typedef {import("./live.js").Live} Live */
/** @typedef {import("./live.js").Run} Run */
/** @typedef {import("/viewer/viewer.js").LucencyViewer} Viewer */

const MOST = 4;

/**
 * @typedef {{scan: string, model: string, method: string, explanation: string}} Asked
 */

class Column {
  /** @type {Answer | null} */
  answer = null;
  /** @type {Run | null} */
  run = null;
  element = h("article", { class: "panel column" });
  said = h("span", { class: "fact" });
  /** @type {string} whose film is in the viewer */
  film = "";

  /** @param {Asked} asked */
  constructor(asked) {
    this.asked = asked;
    this.viewer = viewer(words.panels.map);
  }
}

export class Compare {
  linked = new Linked();
  /** @type {Column[]} */
  columns = [];
  #row = h("div", { class: "columns" });
  #add = button(words.compare.add, () => this.add(), { icon: "add", text: true });
  #go = button(words.compare.run, () => void this.run(), { class: "primary", icon: "play", text: true, key: "r" });
  #table = h("div", { class: "numbers" });
  #agreement = h("p", { class: "verdict" });
  #curves = h("div", { class: "curves-list" });
  #evaluate = button(words.compare.evaluate, () => void this.#measure());

  /**
   * @param {Store} store
   * @param {Live} live
   * @param {() => import("./scans.js").Entry[]} entries the films that may be chosen
   */
  constructor(store, live, entries) {
    this.store = store;
    this.live = live;
    this.entries = entries;
    this.element = h(
      "section",
      { class: "comparing", "aria-label": words.compare.label },
      h("div", { class: "above" }, h("p", { class: "hint" }, words.compare.lead), this.#add),
      this.#row,
      h(
        "div",
        { class: "answer" },
        h("div", { class: "said" }, h("h2", null, words.compare.agreement), this.#agreement),
        h("div", { class: "numbers" }, h("h2", null, words.compare.table), this.#table),
        h("div", { class: "measured" }, h("h2", null, words.compare.curves), this.#evaluate, this.#curves),
      ),
    );
    this.side = h(
      "div",
      { class: "question" },
      probabilities(store, "compare"),
      removalField(store),
      budgetField(store),
      h("p", { class: "hint" }, words.compare.shared),
      h("div", { class: "go" }, this.#go),
    );
    store.on(["models", "methods"], () => this.#draw());
  }

  /** The columns as a link holds them. */
  get asked() {
    return this.columns.map((column) => column.asked);
  }

  /** Begins with the answer that is shown, and the same film by another method. */
  begin() {
    if (this.columns.length || !this.store.state.scan) return;
    this.add();
    this.add();
  }

  /**
   * Columns from a link.
   * @param {Asked[]} asked
   */
  async restore(asked) {
    for (const one of asked.slice(0, MOST)) this.#new(one);
    this.#draw();
    await Promise.all(this.columns.map((column) => this.#film(column)));
    await Promise.all(this.columns.map((column) => (column.asked.explanation ? this.#answered(column, column.asked.explanation) : null)));
    await this.#together();
  }

  add() {
    const { scan, choice, methods, answer } = this.store.state;
    if (!scan || this.columns.length >= MOST) return;
    const taken = this.columns.map((column) => column.asked.method);
    const blind = this.store.model?.gradients === false;
    const order = [choice.method, "occlusion", "rise", "lime", "integrated_gradients", ...methods.map((m) => m.name)];
    const method = order.find((name) => !taken.includes(name) && !(blind && methods.find((m) => m.name === name)?.needs_gradients)) ?? choice.method;
    const same = answer && this.columns.length === 0 && method === choice.method;
    const column = this.#new({ scan: scan.scan, model: choice.model, method, explanation: same ? answer.id : "" });
    this.#draw();
    void this.#film(column).then(() => (same ? this.#answered(column, answer.id) : null)).catch(complain);
  }

  /** @param {Asked} asked */
  #new(asked) {
    const column = new Column(asked);
    this.columns.push(column);
    this.linked.add(column.viewer);
    return column;
  }

  /** @param {Column} column */
  #take(column) {
    column.run?.cancel();
    this.linked.remove(column.viewer);
    this.columns = this.columns.filter((other) => other !== column);
    this.#draw();
    void this.#together().catch(complain);
  }

  /** @param {Column} column @param {Partial<Asked>} patch */
  #change(column, patch) {
    column.run?.cancel();
    column.asked = { ...column.asked, ...patch, explanation: "" };
    column.answer = null;
    column.viewer.layers = [];
    this.#draw();
    void this.#film(column).catch(complain);
    void this.#together().catch(complain);
    this.store.set({ view: this.store.state.view });
  }

  /** @param {Column} column */
  async #film(column) {
    const { scan, film } = this.store.state;
    if (column.film === column.asked.scan) return;
    const wanted = column.asked.scan;
    column.film = wanted;
    const title = this.entries().find((entry) => entry.scan === column.asked.scan)?.title ?? "";
    const shown = scan?.scan === column.asked.scan && film ? film : filmOf(await packed(`scans/${column.asked.scan}/film`), title);
    // Another one may have been chosen in the meantime.
    if (column.film !== wanted) return;
    column.viewer.film = shown;
    if (this.columns[0] !== column) this.linked.follow(column.viewer);
  }

  /**
   * Its number, its method, and the model or the film where that is not the same for all.
   * @param {Column} column
   */
  #name(column) {
    const title = this.store.state.methods.find((m) => m.name === column.asked.method)?.title ?? column.asked.method;
    const differs = (/** @type {"model" | "scan"} */ what) => new Set(this.columns.map((one) => one.asked[what])).size > 1;
    const parts = [title];
    if (differs("model")) parts.push(column.asked.model);
    if (differs("scan")) parts.push(this.entries().find((entry) => entry.scan === column.asked.scan)?.title ?? "");
    return `${this.columns.indexOf(column) + 1}  ${parts.join(", ")}`;
  }

  /** Runs what has no answer yet, or cancels what runs. */
  async run() {
    const busy = this.columns.filter((column) => column.run);
    if (busy.length) {
      for (const column of busy) column.run?.cancel();
      return;
    }
    this.#draw();
    await Promise.all(this.columns.filter((column) => !column.answer).map((column) => this.#explain(column)));
    await this.#together().catch(complain);
    if (this.columns.length > 1 && this.columns.every((column) => column.answer)) say(words.compare.done, true);
  }

  /** @param {Column} column */
  async #explain(column) {
    const { choice } = this.store.state;
    const { scan, model, method } = column.asked;
    const unit = this.store.state.methods.find((m) => m.name === method)?.unit ?? "";
    const target = choice.target || this.store.target;
    const known = this.store.state.models.find((m) => m.name === model)?.classes.includes(target);
    const asked = {
      scan, model, method, target: known ? target : null, removal: choice.removal || null, budget: choice.budget || null,
      parameters: choice.parameters[method] ?? {},
    };
    const run = this.live.start(asked, (step) => {
      const moment = momentOf(step);
      column.viewer.layers = [layerOf("now", words.panels.map, moment.heatmap, moment.place, unit)];
      column.viewer.shown = "now";
      fill(column.said, words.percent(moment.done));
    });
    column.run = run;
    this.#buttons();
    try {
      const id = await run.answer;
      if (column.run === run) await this.#answered(column, id);
    } catch (error) {
      complain(error);
    }
    if (column.run === run) column.run = null;
    this.#buttons();
  }

  /** @param {Column} column @param {string} id */
  async #answered(column, id) {
    const found = await packed(`explanations/${id}/packed`);
    const record = await get(`explanations/${id}`);
    const layers = opened(found)[0].layers;
    column.answer = { id, record, layers };
    column.asked = { ...column.asked, explanation: id };
    column.viewer.layers = layers;
    column.viewer.shown = layers.find((layer) => layer.kind === "map")?.id ?? null;
    fill(column.said, typeof record.probability === "number" ? words.probability(record.probability) : "");
    this.store.set({ view: this.store.state.view });
  }

  /** What the maps say together. */
  async #together() {
    const answers = this.columns.flatMap((column) => (column.answer ? [column.answer] : []));
    this.#evaluate.disabled = !answers.length;
    fill(this.#curves);
    this.#numbers(answers);
    const films = new Set(this.columns.filter((c) => c.answer).map((c) => c.asked.scan));
    if (answers.length < 2 || films.size > 1) return fill(this.#agreement);
    const { text } = await post("agreement", { explanations: answers.map((answer) => answer.id) });
    fill(this.#agreement, text);
  }

  /** @param {Answer[]} answers */
  #numbers(answers) {
    const all = answers.map((answer) => new Map(numbers(answer.record)));
    const names = [...new Set(all.flatMap((one) => [...one.keys()]))];
    const heads = this.columns.flatMap((column) => (column.answer ? [this.#name(column)] : []));
    fill(
      this.#table,
      answers.length
        ? h(
            "table",
            { tabindex: 0 },
            h("thead", null, h("tr", null, h("th", { scope: "col" }, words.compare.measure), ...heads.map((head) => h("th", { scope: "col" }, head)))),
            h("tbody", null, ...names.map((name) => h("tr", null, h("th", { scope: "row" }, name), ...all.map((one) => h("td", null, one.get(name) ?? ""))))),
          )
        : h("p", { class: "hint" }, words.compare.waiting),
    );
  }

  async #measure() {
    this.#evaluate.disabled = true;
    fill(this.#curves, h("p", { class: "hint" }, words.answer.evaluating));
    try {
      const made = [];
      for (const column of this.columns)
        if (column.answer) made.push([this.#name(column), await post("evaluate", { explanation: column.answer.id, curves: CURVES })]);
      fill(this.#curves, ...made.flatMap(([name, evaluation]) => [h("h3", null, String(name)), curvesOf(evaluation)]));
    } catch (error) {
      fill(this.#curves);
      complain(error);
    }
    this.#evaluate.disabled = false;
  }

  #buttons() {
    const busy = this.columns.some((column) => column.run);
    fill(/** @type {Element} */ (this.#go.querySelector("span")), busy ? words.ask_for.cancel : words.compare.run);
    this.#go.disabled = !this.columns.length;
    this.#add.disabled = this.columns.length >= MOST || !this.store.state.scan;
  }

  #draw() {
    const { models, methods } = this.store.state;
    this.#row.dataset.count = String(this.columns.length);
    for (const [i, column] of this.columns.entries()) {
      const films = /** @type {[string, string][]} */ (this.entries().map((entry) => [entry.scan, entry.title]));
      const blind = models.find((m) => m.name === column.asked.model)?.gradients === false;
      const usable = methods.filter((m) => !blind || !m.needs_gradients);
      fill(
        column.element,
        h(
          "header",
          null,
          h("h2", null, this.#name(column)),
          column.said,
          button(words.compare.take, () => this.#take(column), { icon: "close" }),
        ),
        h(
          "div",
          { class: "picks" },
          select(usable.map((m) => /** @type {[string, string]} */ ([m.name, m.title])), column.asked.method, (method) => this.#change(column, { method }), { "aria-label": `${words.ask_for.method}, ${words.compare.column(i + 1)}` }),
          select(models.map((m) => /** @type {[string, string]} */ ([m.name, m.name])), column.asked.model, (model) => this.#change(column, { model }), { "aria-label": `${words.ask_for.model}, ${words.compare.column(i + 1)}` }),
          select(films, column.asked.scan, (scan) => this.#change(column, { scan }), { "aria-label": `${words.compare.scan}, ${words.compare.column(i + 1)}` }),
        ),
        h("div", { class: "body" }, column.viewer),
      );
      if (!column.answer && !column.run) fill(column.said, words.compare.waiting);
    }
    fill(this.#row, ...this.columns.map((column) => column.element));
    this.#buttons();
    this.#numbers(this.columns.flatMap((column) => (column.answer ? [column.answer] : [])));
  }
}
