/** The answer under the panels: verdict, notices, numbers, evaluation curves, and what can be kept. */

import { address, post } from "./api.js";
import { Chart, keyTo, spoken } from "/viewer/chart.js";
import { button, fill, h } from "./dom.js";
import { readable } from "./forms.js";
import { complain, say } from "./voice.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Answer} Answer */

/** Those that the page draws. */
export const CURVES = ["MoRF", "LeRF", "random", "deletion", "insertion"];

/** @param {unknown} value @returns {string} */
export function spelled(value) {
  if (typeof value === "boolean") return value ? words.answer.yes : words.answer.no;
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  if (value === null || value === undefined || value === "") return words.answer.none;
  if (Array.isArray(value)) return value.map(spelled).join(", ");
  return String(value);
}

/**
 * The numbers of an explanation as `[name, text]`.
 * @param {Record<string, any>} record
 * @returns {[string, string][]}
 */
export function numbers(record) {
  const { names } = words.answer;
  /** @type {[string, unknown][]} */
  const rows = [
    [names.class, record.target && readable(record.target)],
    [names.probability, typeof record.probability === "number" ? words.probability(record.probability) : null],
    [names.model, record.model],
    [names.method, record.method?.title],
    [names.removal, record.removal?.name],
    [names.place, record.verdict?.place],
    [names.evaluations, record.evaluations],
    [names.gradients, record.gradients || null],
    [names.seconds, record.seconds === undefined ? null : words.time(record.seconds)],
    ...Object.entries(record.facts ?? {})
      .filter(([name]) => name !== "warning")
      .map(([name, value]) => /** @type {[string, unknown]} */ ([readable(name), value])),
  ];
  return rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [name, spelled(value)]);
}

/**
 * What `POST evaluate` says, drawn: curves on one chart, their areas in a table.
 * @param {any} evaluation
 * @returns {HTMLElement}
 */
export function curvesOf(evaluation) {
  const chart = new Chart();
  /** @type {any[]} */
  const curves = evaluation.curves ?? [];
  const series = curves.map((curve) => ({
    name: curve.kind,
    points: curve.shares.map((/** @type {number} */ x, /** @type {number} */ i) => [x, curve.mean[i]]),
    band: curve.repeats > 1 ? curve.low.map((/** @type {number} */ low, /** @type {number} */ i) => [low, curve.high[i]]) : [],
  }));
  const axes = /** @type {[string, string]} */ ([words.answer.share, words.answer.score]);
  chart.draw(series, { axes, label: series.map((one) => `${one.name}: ${spoken(one.points, axes, words.panels.ends)}`).join("; ") });
  return h(
    "div",
    { class: "curves" },
    h("div", { class: "plot" }, chart.canvas),
    h("div", null, keyTo(series.map((one) => one.name)), areas(curves)),
  );
}

/** @param {any[]} curves */
function areas(curves) {
  return h(
    "table",
    null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, words.answer.curve), h("th", { scope: "col" }, words.answer.area), h("th", { scope: "col" }, words.answer.speaks))),
    h("tbody", null, ...curves.map((curve) => h("tr", null, h("th", { scope: "row", title: curve.definition }, `${curve.kind}, ${curve.measure}`), h("td", null, spelled(curve[curve.measure.toLowerCase()].value)), h("td", null, words.answer.better[/** @type {"neither"} */ (curve.better)])))),
  );
}

/** @param {Store} store */
export function answerPart(store) {
  const verdict = h("p", { class: "verdict" });
  const notices = h("ul", { class: "notices" });
  const table = h("tbody");
  const curves = h("div");
  const keep = h("div", { class: "keep" });
  const evaluate = button(words.answer.evaluate, () => void measure());
  const measure = async () => {
    const answer = store.state.answer;
    if (!answer) return;
    evaluate.disabled = true;
    fill(curves, h("p", { class: "hint" }, words.answer.evaluating));
    try {
      const evaluation = await post("evaluate", { explanation: answer.id, curves: CURVES });
      if (store.state.answer !== answer) return;
      fill(curves, curvesOf(evaluation));
      say(words.answer.curves);
    } catch (error) {
      fill(curves);
      complain(error);
    }
    evaluate.disabled = false;
  };
  const element = h(
    "section",
    { class: "answer", "aria-label": words.answer.label },
    h("div", { class: "said" }, h("h2", null, words.answer.verdict), verdict, notices, keep),
    h("div", { class: "numbers" }, h("h2", null, words.answer.numbers), h("table", null, table)),
    h("div", { class: "measured" }, h("h2", null, words.answer.curves), evaluate, curves),
  );
  /** @type {Answer | null} */
  let shown = null;
  store.on(["answer", "running", "scan", "doubts"], () => {
    const { answer, running, scan, doubts } = store.state;
    element.hidden = !answer && !scan?.notices.length && !doubts.length;
    element.classList.toggle("old", running);
    element.classList.toggle("bare", !answer);
    if (answer && answer === shown) return;
    shown = answer;
    fill(curves);
    evaluate.disabled = false;
    const record = answer?.record ?? {};
    fill(verdict, answer ? record.verdict?.text || words.answer.no_verdict : "");
    const said = [...(record.complete === false ? [words.ask_for.stopped] : []), ...(record.facts?.warning ? [record.facts.warning] : []), ...(record.notices ?? [...doubts, ...(scan?.notices ?? [])])];
    fill(notices, ...said.map((/** @type {string} */ text) => h("li", null, text)));
    fill(table, ...numbers(record).map(([name, text]) => h("tr", null, h("th", { scope: "row" }, name), h("td", null, text))));
    fill(
      keep,
      ...(answer
        ? [
            h("h3", null, words.keep.heading),
            ...[
              ["report.html", words.keep.report],
              ["overlay.png", words.keep.overlay],
              ["explanation.lucency", words.keep.file],
            ].map(([file, text]) =>
              h("a", { class: "button", href: address(answer.id, file), download: `lucency-${answer.id.slice(0, 8)}-${file}`, "aria-label": words.keep.label(text) }, text),
            ),
          ]
        : []),
    );
  });
  return element;
}
