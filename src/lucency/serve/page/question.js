/** What is asked: model, class, method with its parameters, removal, time allowed; and the button that runs it. */

import { button, field, fill, h, select } from "./dom.js";
import { parameterForm, readable } from "./forms.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Parameter} Parameter */

/**
 * @param {Store} store
 * @returns {HTMLElement} the choice of a model
 */
export function modelField(store) {
  const place = h("div");
  store.on(["models", "choice"], () => {
    const { models, choice } = store.state;
    const options = /** @type {[string, string][]} */ (models.map((model) => [model.name, model.name]));
    fill(place, field(words.ask_for.model, select(options, choice.model, (model) => store.choose({ model, target: "" }))));
  });
  return place;
}

/** @param {Store} store */
export function removalField(store) {
  const place = h("div");
  const draw = () => {
    const { removals, choice } = store.state;
    const options = /** @type {[string, string][]} */ (removals.map((r) => [r.name, readable(r.name)]));
    options.unshift(["", words.ask_for.auto]);
    const help = removals.find((r) => r.name === choice.removal)?.summary;
    const usable = store.state.mode === "ask" || (store.method?.removes ?? true);
    const made = select(options, choice.removal, (removal) => store.choose({ removal }), { disabled: !usable });
    fill(place, field(words.ask_for.removal, made, help));
  };
  store.on(["removals", "choice", "methods", "mode"], draw);
  return place;
}

/** @param {Store} store */
export function budgetField(store) {
  const place = h("div");
  store.on(["choice"], () => {
    if (place.contains(document.activeElement)) return;
    const { budget } = store.state.choice;
    const options = [...words.ask_for.budgets];
    if (!options.some(([value]) => value === budget)) options.push([budget, budget]);
    fill(place, field(words.ask_for.budget, select(options, budget, (b) => store.choose({ budget: b }))));
  });
  return place;
}

/**
 * Probabilities as bars; each is a choice of the class to explain.
 * @param {Store} store
 * @param {string} [group] name of the radio buttons, of which a page may hold several
 */
export function probabilities(store, group = "target") {
  const place = h("fieldset", { class: "probabilities" });
  store.on(["scores", "choice", "models"], () => {
    const { scores, choice } = store.state;
    const classes = store.model?.classes ?? [];
    const sorted = scores ? [...classes].sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0)) : classes;
    const focused = document.activeElement instanceof HTMLInputElement && place.contains(document.activeElement) ? document.activeElement.value : null;
    fill(
      place,
      h("legend", null, words.ask_for.target),
      ...sorted.map((name) => {
        const p = scores?.[name];
        const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span"));
        /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${100 * Math.min(1, Math.max(0, p ?? 0))}%`;
        const radio = h("input", { type: "radio", name: group, value: name, checked: name === store.target, onchange: () => store.choose({ target: name }) });
        return h("label", { class: "row" }, radio, h("span", { class: "name" }, readable(name)), bar, h("span", { class: "number" }, p === undefined ? "" : words.probability(p)));
      }),
    );
    place.dataset.chosen = choice.target;
    if (focused !== null) [...place.querySelectorAll("input")].find((input) => input.value === focused)?.focus();
  });
  return place;
}

/**
 * @param {Store} store
 * @param {() => void} run runs, or cancels what runs
 */
export function question(store, run) {
  const method = h("div");
  const about = h("p", { class: "hint" });
  const parameters = h("details");
  let shown = "";
  store.on(["methods", "choice", "models"], () => {
    const { methods, choice } = store.state;
    const blind = store.model?.gradients === false;
    const options = methods.map((m) => h("option", { value: m.name, disabled: blind && m.needs_gradients }, m.title));
    const made = h("select", { onchange: () => store.choose({ method: made.value }) }, options);
    made.value = choice.method;
    const focused = document.activeElement instanceof HTMLSelectElement && method.contains(document.activeElement);
    fill(method, field(words.ask_for.method, made));
    if (focused) made.focus();
    const chosen = store.method;
    fill(about, chosen?.summary ?? "", chosen?.paper ? h("span", { class: "paper" }, chosen.paper) : null);
    if (!chosen || shown === chosen.name) return;
    shown = chosen.name;
    const own = chosen.parameters.filter((p) => p.name !== "removal");
    parameters.hidden = !own.length;
    fill(
      parameters,
      h("summary", null, words.ask_for.parameters(own.length)),
      parameterForm(own, choice.parameters[chosen.name] ?? {}, (values) =>
        store.choose({ parameters: { ...store.state.choice.parameters, [chosen.name]: values } }),
      ),
    );
  });

  const go = button(words.ask_for.run, run, { class: "primary", text: true, icon: "play", id: "run", key: "r" });
  const left = h("p", { class: "left", "aria-hidden": "true" });
  const progress = h("progress", { max: 1, value: 0, "aria-label": words.ask_for.run });
  store.on(["running", "moment", "film"], () => {
    const { running, moment, film } = store.state;
    go.disabled = !film;
    go.classList.toggle("stop", running);
    fill(/** @type {Element} */ (go.querySelector("span")), running ? words.ask_for.cancel : words.ask_for.run);
    progress.hidden = !running;
    progress.value = moment?.done ?? 0;
    if (!film) fill(left, words.ask_for.scan_first);
    else if (!running) fill(left);
    else if (!moment) fill(left, words.ask_for.waiting);
    else fill(left, words.ask_for.running(words.percent(moment.done), moment.left === null ? "" : words.time(moment.left)));
  });

  return h(
    "div",
    { class: "question" },
    modelField(store),
    probabilities(store),
    method,
    about,
    parameters,
    removalField(store),
    budgetField(store),
    h("div", { class: "go" }, go, progress, left),
  );
}
