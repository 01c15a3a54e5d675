/** What the page knows, in one place; parts of the page listen for what they show. */

/** @typedef {import("/viewer/types.js").Film} Film */
/** @typedef {import("/viewer/types.js").Layer} Layer */
/** @typedef {import("/viewer/types.js").View} View */
/** @typedef {import("/viewer/types.js").Place} Place */

/**
 * A scan that the service holds.
 * @typedef {{scan: string, title: string, width: number, height: number, notices: string[], truth: boolean,
 *   slices: number}} Scan
 */

/**
 * @typedef {{name: string, type: string, default: unknown, minimum?: number, maximum?: number, choices?: string[],
 *   help?: string}} Parameter
 * @typedef {{name: string, title: string, paper: string, panel: "map" | "curve" | "scatter", axes: [string, string],
 *   unit: string, needs_gradients: boolean, removes: boolean, summary: string, parameters: Parameter[]}} Method
 * @typedef {{name: string, title: string, classes: string[], notices: string[], gradients: boolean, measures: boolean}} Model
 * @typedef {{name: string, summary: string}} Removal
 */

/**
 * What is asked; `target` empty is the most probable class, `budget` empty none.
 * @typedef {{model: string, target: string, method: string, removal: string, budget: string,
 *   parameters: Record<string, Record<string, string | number | boolean>>}} Choice `parameters` by method, only those
 *   that differ from the defaults
 */

/**
 * A moment of a run, on the model's grid.
 * @typedef {{done: number, evaluations: number, score: number | null, seconds: number, left: number | null,
 *   point: [number, number] | null, facts: Record<string, unknown>, heatmap: Grid, perturbed: Grid16 | null,
 *   reaction: Grid | null, place: Place | null}} Moment
 * @typedef {{data: Float32Array, width: number, height: number}} Grid
 * @typedef {{data: Uint16Array, width: number, height: number, channels: number}} Grid16 channel after channel
 */

/**
 * A place in the third panel, and the share of the work at which it was reached.
 * @typedef {{done: number, at: [number, number]}} Point
 */

/**
 * A finished explanation as the page shows it.
 * @typedef {{id: string, record: Record<string, any>, layers: Layer[]}} Answer
 */

/**
 * @typedef {object} State
 * @property {Model[]} models
 * @property {Method[]} methods
 * @property {Removal[]} removals
 * @property {Scan | null} scan
 * @property {Film | null} film
 * @property {Record<string, number> | null} scores of the clean scan, by class
 * @property {string[]} doubts why the scan cannot be what the model reads
 * @property {Choice} choice
 * @property {"explain" | "ask" | "compare"} mode
 * @property {boolean} running
 * @property {Moment | null} moment the one that is shown
 * @property {Moment[]} moments of the last run, the last of them its end
 * @property {Point[]} trace where the run went in its third panel
 * @property {Answer | null} answer
 * @property {View | null} view what the linked viewers show
 * @property {boolean} truth whether the phantom's truth is shown
 */

/** Dispatches `change` with the names of what changed. */
export class Store {
  /** @type {State} */
  state = {
    models: [],
    methods: [],
    removals: [],
    scan: null,
    film: null,
    scores: null,
    doubts: [],
    choice: { model: "", target: "", method: "occlusion", removal: "", budget: "", parameters: {} },
    mode: "explain",
    running: false,
    moment: null,
    moments: [],
    trace: [],
    answer: null,
    view: null,
    truth: false,
  };
  /** @type {{keys: Set<string>, tell: () => void}[]} */
  #listeners = [];

  /** @param {Partial<State>} patch */
  set(patch) {
    Object.assign(this.state, patch);
    const changed = Object.keys(patch);
    for (const { keys, tell } of this.#listeners) if (changed.some((key) => keys.has(key))) tell();
  }

  /** @param {Partial<Choice>} patch */
  choose(patch) {
    this.set({ choice: { ...this.state.choice, ...patch } });
  }

  /**
   * Calls `tell` now and whenever one of these changes.
   * @param {(keyof State)[]} keys
   * @param {() => void} tell
   */
  on(keys, tell) {
    this.#listeners.push({ keys: new Set(keys), tell });
    tell();
  }

  /** The chosen method, once the service has listed them. */
  get method() {
    return this.state.methods.find((method) => method.name === this.state.choice.method) ?? null;
  }

  /** The chosen model, once the service has listed them. */
  get model() {
    return this.state.models.find((model) => model.name === this.state.choice.model) ?? null;
  }

  /** The class that is asked about: the chosen one, or the most probable. */
  get target() {
    const { choice, scores } = this.state;
    if (choice.target) return choice.target;
    const sorted = Object.entries(scores ?? {}).sort((a, b) => b[1] - a[1]);
    return sorted[0]?.[0] ?? "";
  }
}
