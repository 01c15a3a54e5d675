/** The workbench: what stands where, and what follows from what. */

import { opened } from "/viewer/viewer.js";
import { WORDS } from "/viewer/words.js";
import { answerPart } from "./answer.js";
import { ServiceError, get, packed, post } from "./api.js";
import { Ask } from "./ask.js";
import { Compare } from "./compare.js";
import { button, fill, h } from "./dom.js";
import { filmOf, momentOf } from "./films.js";
import { help, listen } from "./keys.js";
import * as link from "./link.js";
import { Live } from "./live.js";
import { Pacs } from "./pacs.js";
import { Panels, pointOf } from "./panels.js";
import { question } from "./question.js";
import { Scans, scanOf } from "./scans.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { complain, say, settled, voice } from "./voice.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Scan} Scan */
/** @typedef {import("./store.js").Moment} Moment */
/** @typedef {import("./live.js").Run} Run */
/** @typedef {import("/viewer/packing.js").Packed} Packed */

/** Moments that are kept of a run while it goes; then every other one goes. */
const MOMENTS = 240;
const MODES = /** @type {const} */ (["explain", "ask", "compare"]);

const store = new Store();
const live = new Live();
/** @type {Run | null} */
let run = null;

const scans = new Scans(store, (scan, explanation) => void show(scan, explanation).catch(complain));
const pacs = new Pacs();
const panels = new Panels(store);
const timeline = new Timeline(store, () => run?.cancel());
const ask = new Ask(store);
const compare = new Compare(store, live, () => scans.entries);

// What is shown ------------------------------------------------------------------------------------------------------

/**
 * A scan with its film, its probabilities and, where there is one, the answer about it.
 * @param {Scan} scan
 * @param {string} [explanation]
 */
async function show(scan, explanation) {
  run?.cancel();
  const film = filmOf(await packed(`scans/${scan.scan}/film`), scan.title);
  panels.truth = null;
  store.set({ scan, film, scores: null, doubts: [], moment: null, moments: [], trace: [], answer: null, truth: false, view: null });
  fold("scans", innerWidth < 1500);
  void scores();
  void ask.load().catch(complain);
  if (store.state.mode === "compare") compare.begin();
  if (explanation) await answered(explanation, false);
}

async function scores() {
  const { scan, choice } = store.state;
  if (!scan || !choice.model) return;
  store.set({ scores: null });
  try {
    const said = await post("scores", { scan: scan.scan, model: choice.model });
    if (store.state.scan === scan && store.state.choice.model === choice.model) store.set({ scores: said.probabilities, doubts: said.doubts });
  } catch (error) {
    complain(error);
  }
}

async function truth() {
  const { scan, film, truth } = store.state;
  if (!scan || !film) return;
  if (!panels.truth) {
    const { arrays } = await packed(`scans/${scan.scan}/truth`);
    const { data, shape } = arrays.data;
    panels.truth = {
      id: "truth", title: words.phantom.layer, kind: "mask", width: shape[shape.length - 1], height: shape[shape.length - 2],
      data: /** @type {Uint8Array} */ (data), place: null, unit: "", cells: null,
    };
  }
  store.set({ truth: !truth });
}

// What is run --------------------------------------------------------------------------------------------------------

async function start() {
  if (run) return run.cancel();
  const { scan, choice } = store.state;
  if (!scan) return;
  timeline.stop();
  store.set({ running: true, moment: null, moments: [], trace: [], answer: null });
  say(words.ask_for.began(store.method?.title ?? ""));
  const asked = {
    scan: scan.scan, model: choice.model, target: store.target || null, method: choice.method,
    parameters: choice.parameters[choice.method] ?? {}, removal: choice.removal || null, budget: choice.budget || null,
  };
  const mine = live.start(asked, async (step) => {
    if (run !== mine) return;
    if (scan.slices > 1) return;
    const moment = momentOf(step);
    let { moments } = store.state;
    if (moments.length >= MOMENTS) moments = moments.filter((_, i) => i % 2 === 0);
    const at = pointOf(moment);
    const { trace } = store.state;
    store.set({ moments: [...moments, moment], moment, trace: at ? [...trace, { done: moment.done, at }] : trace });
    await new Promise((painted) => requestAnimationFrame(painted));
  });
  run = mine;
  try {
    const id = await mine.answer;
    if (run === mine && store.state.scan === scan) await answered(id, true);
  } catch (error) {
    complain(error);
  }
  if (run === mine) run = null;
  store.set({ running: false });
}

/**
 * Shows a finished explanation.
 * @param {string} id
 * @param {boolean} fresh whether it was just made here, with its moments seen
 */
async function answered(id, fresh) {
  const { scan, choice } = store.state;
  const [record, found] = await Promise.all([get(`explanations/${id}`), packed(`explanations/${id}/packed`)]);
  // Who runs something by now does not wait for an earlier answer any more.
  if (store.state.scan !== scan || (!fresh && store.state.running)) return;
  const [plane] = opened(found);
  const answer = { id, record, layers: plane.layers };
  // Of a volume the answer shows the slice of its maximum; its moments, which are volumes too, are not drawn.
  if (scan && scan.slices > 1) store.set({ film: plane.film });
  if (fresh) {
    store.set({ answer, running: false });
    say(record.verdict?.text || words.answer.no_verdict);
    if (scan) scans.answered(scan.scan, id);
  } else {
    // The class is chosen by itself when the probabilities come; all else only by the user.
    if (JSON.stringify({ ...store.state.choice, target: "" }) === JSON.stringify({ ...choice, target: "" })) {
      store.choose({ method: record.method.name, model: record.model, target: record.target });
    }
    store.set({ answer });
  }
  if (scan?.slices === 1) await replay(id);
}

/**
 * The kept moments of a run.
 * @param {string} id
 */
async function replay(id) {
  const { header, arrays } = await packed(`explanations/${id}/timeline`);
  if (store.state.answer?.id !== id) return;
  /** @type {Moment[]} */
  const moments = header.frames.map((/** @type {any} */ frame, /** @type {number} */ i) => {
    /** @type {Packed["arrays"]} */
    const own = {};
    for (const [name, { data, dtype, shape }] of Object.entries(arrays)) {
      const size = shape.slice(1).reduce((a, b) => a * b, 1);
      own[name] = { data: data.subarray(i * size, (i + 1) * size), dtype, shape: shape.slice(1) };
    }
    return momentOf({ header: { ...frame, place: header.place }, arrays: own });
  });
  if (!moments.length) return;
  /** @type {[number, number][]} */
  const scores = header.scores;
  const last = scores.at(-1)?.[0] || 1;
  /** @type {import("./store.js").Point[]} */
  let trace = header.points.map((/** @type {[number, [number, number]]} */ [done, at]) => ({ done, at }));
  if (!trace.length) trace = scores.map(([number, score]) => ({ done: number / last, at: [number, score] }));
  if (!trace.length) {
    trace = moments.flatMap((moment) => {
      const at = pointOf(moment);
      return at ? [{ done: moment.done, at }] : [];
    });
  }
  store.set({ moments, moment: moments[moments.length - 1], trace });
}

// The frame ----------------------------------------------------------------------------------------------------------

const title = h("p", { class: "open" });
const status = h("p", { class: "connection" });
const tabs = h("div", { class: "modes", role: "group", "aria-label": words.modes.label });
const left = h("aside", { id: "scans", "aria-label": words.open.heading }, pacs.element, scans.element);
const side = h("aside", { id: "question", "aria-label": words.ask_for.heading });
const stage = h("main", { id: "stage", tabindex: -1 });
const welcome = h(
  "section",
  { class: "welcome" },
  h("h2", null, words.open.welcome),
  h("p", null, words.open.lead),
  h(
    "div",
    { class: "buttons" },
    button(words.open.demo, () => scans.examples[0]?.open(), { class: "primary", id: "demo" }),
    button(words.open.file, () => scans.pick(), { icon: "open", text: true }),
    button(words.open.phantom, () => scans.phantom(), { icon: "phantom", text: true }),
  ),
);
const truthButton = button(words.phantom.truth, () => void truth().catch(complain));
const explain = h("div", { class: "explaining" }, panels.element, timeline.element, answerPart(store));
const explainSide = question(store, () => void start());
const shade = h("div", { class: "shade", "aria-hidden": "true" }, h("p", null, words.open.drop));

/** @param {"scans" | "question"} which @param {boolean} [hide] the other way when left out */
function fold(which, hide) {
  const now = hide ?? !document.body.classList.contains(`no-${which}`);
  document.body.classList.toggle(`no-${which}`, now);
  // In a drawer, which opens over the film, there is room for one.
  if (!now && innerWidth < 1000) document.body.classList.add(which === "scans" ? "no-question" : "no-scans");
  for (const name of ["scans", "question"])
    document.getElementById(`fold-${name}`)?.setAttribute("aria-expanded", String(!document.body.classList.contains(`no-${name}`)));
}

/** @param {"explain" | "ask" | "compare"} mode */
function turnTo(mode) {
  timeline.stop();
  store.set({ mode });
  if (mode === "compare") compare.begin();
}

function theme() {
  const light = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "light"
    : matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme = light ? "dark" : "light";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

async function copyLink() {
  save();
  try {
    await navigator.clipboard.writeText(location.href);
    say(words.bar.linked, true);
  } catch {
    say(words.bar.unlinked, true);
  }
}

const saved = localStorage.getItem("theme");
if (saved) document.documentElement.dataset.theme = saved;

document.body.append(
  h("a", { class: "skip", href: "#stage", onclick: (/** @type {Event} */ event) => (event.preventDefault(), stage.focus()) }, words.bar.skip),
  h(
    "header",
    { class: "top" },
    button(words.bar.scans, () => fold("scans"), { icon: "list", id: "fold-scans", key: "[" }),
    h("h1", { class: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: 20, height: 20 }), words.brand),
    tabs,
    title,
    status,
    button(words.bar.link, () => void copyLink(), { icon: "link", key: "l" }),
    button(words.bar.theme, theme, { icon: "theme" }),
    button(words.bar.help, keys, { icon: "help", key: "?" }),
    button(words.bar.question, () => fold("question"), { icon: "sliders", id: "fold-question", key: "]" }),
  ),
  left,
  stage,
  side,
  h("footer", null, words.notice),
  voice,
  shade,
);
fold("scans", innerWidth < 1000);
fold("question", innerWidth < 1000);

store.on(["mode", "film"], () => {
  const { mode, film } = store.state;
  fill(tabs, ...MODES.map((one) => {
    const made = button(words.modes[one], () => turnTo(one), { text: true, key: one[0] });
    made.setAttribute("aria-pressed", String(one === mode));
    return made;
  }));
  document.body.dataset.mode = mode;
  fill(stage, film ? { explain, ask: ask.centre, compare: compare.element }[mode] : welcome);
  fill(side, { explain: explainSide, ask: ask.side, compare: compare.side }[mode]);
});
store.on(["scan", "truth"], () => {
  const { scan, truth: shown } = store.state;
  document.title = scan ? `${scan.title} · ${words.brand}` : words.brand;
  fill(/** @type {Element} */ (truthButton.querySelector("span")), shown ? words.phantom.hide : words.phantom.truth);
  fill(title, scan?.title ?? "", scan?.truth ? truthButton : null);
});

live.addEventListener("connection", () => {
  const now = live.connection;
  const before = status.dataset.now;
  status.dataset.now = now;
  fill(status, words.connection[now]);
  if (now === "lost" && before !== "lost") {
    say(words.connection.lost, true);
    // A server that was started anew may want another token, which a socket does not tell.
    get("models").catch(() => {});
  }
  if (now === "open" && before === "lost") {
    say(words.connection.again, true);
    settled(words.errors.unreachable);
  }
});

function keys() {
  help(WORDS.keyList);
}
listen({
  "?": keys,
  o: () => scans.pick(),
  n: () => scans.phantom(),
  e: () => turnTo("explain"),
  a: () => turnTo("ask"),
  c: () => turnTo("compare"),
  r: () => void (store.state.mode === "compare" ? compare.run() : start()),
  1: () => panels.enlarge(0),
  2: () => panels.enlarge(1),
  3: () => panels.enlarge(2),
  k: () => timeline.play(),
  ",": () => timeline.step(-1),
  ".": () => timeline.step(1),
  u: () => ask.undo(),
  l: () => void copyLink(),
  "[": () => fold("scans"),
  "]": () => fold("question"),
});

// Files dropped anywhere ---------------------------------------------------------------------------------------------

let over = 0;
addEventListener("dragenter", (event) => {
  event.preventDefault();
  over += 1;
  document.body.classList.add("dropping");
});
addEventListener("dragleave", () => {
  over -= 1;
  if (over <= 0) document.body.classList.remove("dropping");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  over = 0;
  document.body.classList.remove("dropping");
  void dropped(event.dataTransfer).then((files) => (files.length ? scans.take(files) : undefined));
});

/**
 * The files of what was dropped, those of folders included.
 * @param {DataTransfer | null} data
 * @returns {Promise<File[]>}
 */
async function dropped(data) {
  if (!data) return [];
  const entries = [...data.items].map((item) => item.webkitGetAsEntry()).flatMap((entry) => entry ?? []);
  /** @type {File[]} */
  const files = [];
  /** @param {FileSystemEntry} entry */
  const walk = async (entry) => {
    if (entry.isFile) {
      files.push(await new Promise((done, failed) => /** @type {FileSystemFileEntry} */ (entry).file(done, failed)));
      return;
    }
    const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
    for (;;) {
      /** @type {FileSystemEntry[]} */
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}

addEventListener("error", () => complain(words.errors.script));
addEventListener("unhandledrejection", (event) => complain(event.reason));

// The start ----------------------------------------------------------------------------------------------------------

function save() {
  const { scan, mode, answer, choice, view, moments, moment } = store.state;
  if (!scan) return;
  const at = moment ? moments.indexOf(moment) : -1;
  link.write({
    mode, scan: scan.scan, explanation: answer?.id, choice: { ...choice, parameters: choice.parameters[choice.method] ? { [choice.method]: choice.parameters[choice.method] } : {} },
    view: view ?? undefined, columns: mode === "compare" ? compare.asked : undefined,
    moment: answer && at >= 0 && at < moments.length - 1 ? at : undefined,
  });
}
let later = 0;
store.on(["scan", "mode", "answer", "choice", "view", "moment"], () => {
  clearTimeout(later);
  later = setTimeout(save, 250);
});

async function begin() {
  const asked = link.read();
  pacs.load().catch(complain);
  // The socket comes last: it cannot ask who is there.
  const [models, methods, removals] = await Promise.all([get("models"), get("methods"), get("removals"), scans.load()]).finally(() => live.open());
  store.set({
    models,
    methods,
    removals,
  });
  store.choose({ model: store.state.models[0]?.name ?? "", ...asked.choice });
  /** @type {string | null} */
  let model = null;
  store.on(["choice"], () => {
    if (model !== null && model !== store.state.choice.model) void scores();
    model = store.state.choice.model;
  });
  if (!asked.scan) return;
  try {
    await show(scanOf(await get(`scans/${asked.scan}`)), asked.explanation);
    const mode = MODES.find((one) => one === asked.mode);
    if (asked.columns) await compare.restore(asked.columns);
    if (mode) turnTo(mode);
    if (asked.view) {
      store.set({ view: asked.view });
      panels.linked.show(asked.view);
    }
    if (asked.moment !== undefined) timeline.go(asked.moment);
  } catch (error) {
    complain(error instanceof ServiceError && error.status === 404 ? words.errors.gone : error);
  }
}

begin().catch(complain);
