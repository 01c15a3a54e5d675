/**
 * `<lucency-viewer>`: a film and the maps over it, in the hands of a radiologist.
 *
 * Attributes: `bare` (no row of tools; all keys work), `draw` (the row has the drawing tools), `aria-label`.
 * Events: `viewchange` (detail: View; only for what a person did), `cursor` (detail: Cursor, or null when it leaves),
 * `shape` (detail: Shape), `layerchange` (detail: the id now shown, or null).
 *
 * @module viewer
 */

import { Controls, iconButton, made } from "./controls.js";
import { PALETTES, colourAt } from "./palettes.js";
import { limitOf, painter, shownFrom } from "./painter.js";
import { Screen, moved, zoomed } from "./screen.js";
import { boxed, brushed } from "./shapes.js";
import { styleSheet } from "./styles.js";
import { WORDS, filmNumber, plainNumber, signedNumber } from "./words.js";

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").Layer} Layer */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Tool} Tool */
/** @typedef {import("./types.js").Cursor} Cursor */
/** @typedef {import("./types.js").Shape} Shape */
/** @typedef {import("./types.js").Regions} Regions */
/** @typedef {import("./screen.js").Pair} Pair */

/**
 * The films and layers of what `packed(explanation)` made.
 *
 * @param {import("./packing.js").Packed} packed
 * @returns {{name: string, film: Film, layers: Layer[]}[]} the scan, or three slices of a volume
 */
export function opened({ header, arrays }) {
  return header.planes.map((/** @type {any} */ { name, film, layers }) => ({
    name,
    film: { ...film, data: arrays[film.array].data },
    layers: layers.map((/** @type {any} */ layer) => ({ ...layer, data: arrays[layer.array].data })),
  }));
}

/** @type {Tool[]} */
const TOOLS = ["window", "pan", "rectangle", "ellipse", "brush", "pick"];
/** @type {Tool[]} */
const DRAWING = ["rectangle", "ellipse", "brush", "pick"];
/** Screen pixels of dragging that take the window once over all values. */
const DRAG = 400;
const WHEEL = 1.0015;
const KEY_ZOOM = 1.25;
const KEY_MOVE = 40;
const INK = "#ffffff";
const HALO = "rgb(0 0 0 / 75%)";

export class LucencyViewer extends HTMLElement {
  /** @type {Film | null} */
  #film = null;
  /** @type {Layer[]} */
  #layers = [];
  /** @type {string | null} */
  #shown = null;
  /** @type {Tool} */
  #tool = "window";
  #outlines = true;
  #crosses = true;
  /** @type {Shape | null} */
  #mark = null;
  /** @type {Regions | null} */
  #regions = null;
  /** @type {Layer | null} the region under the cursor */
  #region = null;
  /** @type {View} */
  #view = freshView(null);
  /** @type {Pair | null} continuous row and column under the cursor */
  #at = null;
  /** @type {Pair | null} the place that a linked viewer points at */
  #pointer = null;
  #reading = false;
  #brush = 12;
  #asked = 0;
  /** @type {Map<number, {x: number, y: number}>} fingers and buttons that are down */
  #down = new Map();
  /** @type {"window" | "pan" | "pinch" | "draw" | null} */
  #doing = null;
  /** @type {Pair[]} points of what is being drawn */
  #path = [];
  /** @type {{before: boolean, moved: boolean} | null} */
  #space = null;
  #frames = 0;
  #aboutEl;
  #readEl;
  #setEl;
  #scaleEl;
  #emptyEl;
  #liveEl;
  #helpEl;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [styleSheet()];
    this.canvas = made("canvas", { "aria-hidden": "true" });
    this.#aboutEl = made("div", { class: "title" });
    this.#readEl = made("div", { class: "read" });
    this.#setEl = made("div", { class: "set" });
    this.#scaleEl = made("div", { class: "scale", "aria-hidden": "true", hidden: "" });
    this.#emptyEl = made("div", { class: "empty" }, WORDS.noFilm);
    this.#liveEl = made("div", { class: "unseen", role: "status" });
    this.stage = made(
      "div",
      { class: "stage", tabindex: "0", role: "application", "data-tool": "window" },
      this.canvas,
      this.#scaleEl,
      made("div", { class: "said about" }, this.#aboutEl),
      made("div", { class: "said now" }, this.#readEl, this.#setEl),
      this.#emptyEl,
    );
    this.#helpEl = made("dialog", { "aria-label": WORDS.keys });
    this.pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { alpha: false }));
    this.controls = this.#controls();
    const frame = made("div", { class: "frame" }, this.controls.element, this.stage);
    root.append(frame, this.#helpEl, this.#liveEl);
    this.#listen();
    this.again = () => this.#later();
  }

  static get observedAttributes() {
    return ["draw", "aria-label"];
  }

  /** Whether this browser can show films at all. */
  static get supported() {
    return painter() !== null;
  }

  attributeChangedCallback(/** @type {string} */ name) {
    if (name === "draw") {
      const fresh = this.#controls();
      this.controls.element.replaceWith(fresh.element);
      this.controls = fresh;
    }
    this.#later();
  }

  connectedCallback() {
    if (!this.hasAttribute("role")) this.setAttribute("role", "group");
    if (!this.hasAttribute("aria-label")) this.setAttribute("aria-label", WORDS.viewer);
    painter()?.redraw.add(this.again);
    this.sizes = new ResizeObserver(this.again);
    this.sizes.observe(this.stage);
    this.#later();
  }

  disconnectedCallback() {
    painter()?.redraw.delete(this.again);
    painter()?.forget(this);
    this.sizes?.disconnect();
  }

  /** @type {Film | null} */
  get film() {
    return this.#film;
  }

  set film(film) {
    const old = this.#film;
    this.#film = film;
    if (!film || !old || film.width !== old.width || film.height !== old.height) {
      this.#view = { ...freshView(film), ...only(this.#view, KEPT) };
      this.#mark = null;
      this.#at = null;
      this.#pointer = null;
    } else if (String([film.range, film.shown]) !== String([old.range, old.shown])) {
      this.#view = { ...this.#view, window: freshView(film).window };
    }
    this.#later();
  }

  /** @type {Layer[]} */
  get layers() {
    return this.#layers;
  }

  set layers(layers) {
    this.#layers = layers;
    if (this.#shown !== null && !this.#maps.some((layer) => layer.id === this.#shown)) this.#shown = null;
    this.#later();
  }

  /** @type {string | null} the layer in colour; masks are drawn besides, as outlines */
  get shown() {
    return this.#shown;
  }

  set shown(id) {
    this.#shown = id;
    this.#later();
  }

  /** Whether the masks among the layers are outlined. */
  get outlines() {
    return this.#outlines;
  }

  set outlines(on) {
    this.#outlines = on;
    this.#later();
  }

  /** Whether a cross stands at the maximum of the shown layer. */
  get crosses() {
    return this.#crosses;
  }

  set crosses(on) {
    this.#crosses = on;
    this.#later();
  }

  /** @type {View} */
  get view() {
    return structuredClone(this.#view);
  }

  set view(view) {
    this.#view = structuredClone({ ...this.#view, ...view });
    this.#later();
  }

  /** @type {Tool} */
  get tool() {
    return this.#tool;
  }

  set tool(tool) {
    this.#tool = tool;
    this.#path = [];
    this.#region = null;
    this.stage.dataset.tool = tool;
    this.#later();
  }

  /** @type {Shape | null} the shape that stands on the film: the last that was drawn, or any other */
  get mark() {
    return this.#mark;
  }

  set mark(shape) {
    this.#mark = shape;
    this.#later();
  }

  /** @type {Regions | null} what `pick` picks from */
  get regions() {
    return this.#regions;
  }

  set regions(regions) {
    this.#regions = regions;
    this.#region = null;
    this.#later();
  }

  /** @type {Pair | null} a place, continuous row and column, that a linked viewer points at */
  get pointer() {
    return this.#pointer;
  }

  set pointer(at) {
    this.#pointer = at;
    this.#later();
  }

  /** Pictures drawn so far, for whoever measures. */
  get frames() {
    return this.#frames;
  }

  get #maps() {
    return this.#layers.filter((layer) => layer.kind !== "mask");
  }

  get #layer() {
    return this.#maps.find((layer) => layer.id === this.#shown) ?? null;
  }

  get #size() {
    return { width: this.stage.clientWidth, height: this.stage.clientHeight };
  }

  /** @param {Film} film */
  #screen(film) {
    const { width, height } = this.#size;
    return new Screen(film, this.#view, width, height);
  }

  #controls() {
    return new Controls(
      {
        change: (change) => this.#change(change),
        reset: () => this.reset(),
        help: () => this.help(),
        tool: (tool) => {
          this.tool = tool;
        },
        show: (id) => this.#show(id),
      },
      this.hasAttribute("draw") ? TOOLS : TOOLS.slice(0, 2),
    );
  }

  /** Everything as it was at first: window, zoom, place. */
  reset() {
    const fresh = freshView(this.#film);
    this.#change({ window: fresh.window, zoom: fresh.zoom, centre: fresh.centre, invert: fresh.invert });
  }

  /** The list of keys and gestures. */
  help() {
    const list = made("dl");
    for (const [key, does] of WORDS.keyList) list.append(made("dt", {}, key), made("dd", {}, does));
    const close = iconButton("close", WORDS.close, () => this.#helpEl.close());
    this.#helpEl.replaceChildren(made("header", {}, made("h2", {}, WORDS.keys), close), list);
    this.#helpEl.show();
    close.focus();
  }

  /**
   * @param {Partial<View>} change
   * @param {string} [said] to screen readers
   */
  #change(change, said) {
    this.#view = { ...this.#view, ...change };
    this.#later();
    if (said) this.#liveEl.textContent = said;
    this.dispatchEvent(new CustomEvent("viewchange", { detail: this.view }));
  }

  /** @param {string | null} id */
  #show(id) {
    this.shown = id;
    this.#liveEl.textContent = this.#layer?.title ?? WORDS.noLayer;
    this.dispatchEvent(new CustomEvent("layerchange", { detail: id }));
  }

  // What hands do

  #listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#lift(event));
    stage.addEventListener("pointercancel", (event) => this.#lift(event));
    stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !this.#doing && this.#point(null));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("dblclick", () => !DRAWING.includes(this.#tool) && this.reset());
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.#key(event));
    stage.addEventListener("keyup", (event) => this.#keyUp(event));
    stage.addEventListener("blur", () => {
      this.#space = null;
    });
    this.#helpEl.addEventListener("keydown", (event) => event.key === "Escape" && this.#helpEl.close());
    this.#helpEl.addEventListener("close", () => stage.focus());
  }

  /** @param {{clientX: number, clientY: number}} event */
  #place(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {PointerEvent} event */
  #press(event) {
    const film = this.#film;
    if (!film) return;
    this.stage.focus({ preventScroll: true });
    try {
      this.stage.setPointerCapture(event.pointerId);
    } catch {
      // A pointer that a script made up cannot be captured.
    }
    const at = this.#place(event);
    this.#down.set(event.pointerId, at);
    if (this.#down.size === 2) {
      this.#doing = "pinch";
      this.#path = [];
    } else if (this.#space || event.button === 1 || event.button === 2 || (event.button === 0 && this.#tool === "pan")) {
      event.preventDefault();
      this.#doing = "pan";
      this.stage.classList.add("held");
    } else if (event.button === 0) {
      this.#doing = this.#tool === "window" ? "window" : "draw";
      if (this.#doing === "draw") this.#path = [this.#screen(film).toFilm(at.x, at.y)];
    }
    this.#point(this.#screen(film).toFilm(at.x, at.y));
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const film = this.#film;
    if (!film) return;
    const at = this.#place(event);
    const last = this.#down.get(event.pointerId);
    if (last && this.#doing) {
      const [x, y] = [at.x - last.x, at.y - last.y];
      const { width, height } = this.#size;
      if (this.#doing === "window") this.#drag(film, x, y);
      if (this.#doing === "pan") {
        if (this.#space) this.#space.moved = true;
        this.#change(moved(film, this.#view, x, y, width, height));
      }
      if (this.#doing === "draw") this.#path.push(this.#screen(film).toFilm(at.x, at.y));
      if (this.#doing === "pinch") this.#pinch(film, event.pointerId, at);
      this.#down.set(event.pointerId, at);
    }
    this.#point(this.#screen(film).toFilm(at.x, at.y));
  }

  /** @param {PointerEvent} event */
  #lift(event) {
    const film = this.#film;
    const known = this.#down.delete(event.pointerId);
    if (this.#down.size || !known) return;
    if (this.#doing === "draw" && film && event.type === "pointerup") this.#drew(film);
    this.#doing = null;
    this.#path = [];
    this.stage.classList.remove("held");
    if (event.pointerType !== "mouse") this.#point(null);
    this.#later();
  }

  /**
   * @param {Film} film
   * @param {number} x
   * @param {number} y
   */
  #drag(film, x, y) {
    const [low, high] = film.shown ?? film.range;
    const step = (high - low) / DRAG;
    const { level, width } = this.#view.window;
    this.#change({ window: { level: level + y * step, width: Math.max(width + x * step, step) } });
  }

  /**
   * @param {Film} film
   * @param {number} moving which of the two fingers
   * @param {{x: number, y: number}} to
   */
  #pinch(film, moving, to) {
    const [from, other] = [this.#down.get(moving), [...this.#down].find(([id]) => id !== moving)?.[1]];
    if (!from || !other) return;
    const apart = (/** @type {{x: number, y: number}} */ p) => Math.hypot(p.x - other.x, p.y - other.y);
    const { width, height } = this.#size;
    const view = moved(film, this.#view, (to.x - from.x) / 2, (to.y - from.y) / 2, width, height);
    const middle = { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2, width, height };
    this.#change(zoomed(film, view, view.zoom * (apart(to) / Math.max(apart(from), 1)), middle));
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    const film = this.#film;
    if (!film) return;
    event.preventDefault();
    // A line or a page of a coarse wheel in pixels, as browsers count them.
    const pixels = event.deltaY * [1, 40, 800][event.deltaMode];
    this.#change(zoomed(film, this.#view, this.#view.zoom * WHEEL ** -pixels, { ...this.#place(event), ...this.#size }));
    const { x, y } = this.#place(event);
    this.#point(this.#screen(film).toFilm(x, y));
  }

  /** @param {Film} film */
  #drew(film) {
    const shape = this.#shape(film, this.#path);
    this.#path = [];
    if (!shape) return;
    this.#mark = shape;
    this.#liveEl.textContent = shapeWords(shape);
    this.dispatchEvent(new CustomEvent("shape", { detail: shape }));
  }

  /**
   * @param {Film} film
   * @param {Pair[]} path
   * @returns {Shape | null}
   */
  #shape(film, path) {
    const [first, last] = [path[0], path[path.length - 1]];
    switch (this.#tool) {
      case "rectangle":
      case "ellipse":
        return boxed(this.#tool, first, last, film);
      case "brush":
        return brushed(path, this.#brush / this.#screen(film).scale[1], film);
      case "pick": {
        const [row, column] = [Math.floor(last[0]), Math.floor(last[1])];
        if (!within(film, last)) return null;
        return { kind: "pick", row, column, label: regionAt(this.#regions, film, last) };
      }
      default:
        return null;
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const film = this.#film;
    if (!film || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.#keyed(film, event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  /**
   * @param {Film} film
   * @param {KeyboardEvent} event
   * @returns {boolean} whether the key means anything here
   */
  #keyed(film, event) {
    const view = this.#view;
    const { width, height } = this.#size;
    const drawing = DRAWING.includes(this.#tool);
    const arrow = ARROWS[event.key];
    if (arrow) {
      if (drawing || this.#reading) this.#step(film, arrow, event.shiftKey ? 10 : 1);
      else if (event.shiftKey) {
        this.#drag(film, arrow[1] * 20, arrow[0] * 20);
        this.#liveEl.textContent = windowWords(this.#view, film);
      } else this.#change(moved(film, view, -arrow[1] * KEY_MOVE, -arrow[0] * KEY_MOVE, width, height));
      return true;
    }
    const up = event.shiftKey ? 1 : -1;
    const middle = { x: width / 2, y: height / 2, width, height };
    const zoom = (/** @type {number} */ factor) => {
      const next = zoomed(film, view, view.zoom * factor, middle);
      this.#change(next, `${WORDS.zoom} ${plainNumber(next.zoom)}`);
    };
    switch (event.key.length === 1 ? event.key.toLowerCase() : event.key) {
      case " ":
        if (!event.repeat) {
          this.#space = { before: view.flicker, moved: false };
          this.#change({ flicker: !view.flicker }, view.flicker ? WORDS.mapShown : WORDS.mapHidden);
        }
        return true;
      case "+":
      case "=":
        zoom(KEY_ZOOM);
        return true;
      case "-":
      case "_":
        zoom(1 / KEY_ZOOM);
        return true;
      case "f":
        this.#change({ zoom: 1, centre: freshView(film).centre });
        return true;
      case "r":
        this.reset();
        this.#liveEl.textContent = WORDS.whole;
        return true;
      case "i":
        this.#change({ invert: !view.invert }, view.invert ? WORDS.notInverted : WORDS.inverted);
        return true;
      case "c":
        this.#change({ contour: !view.contour }, view.contour ? WORDS.colour : WORDS.contour);
        return true;
      case "s":
        this.#change({ smooth: !view.smooth }, view.smooth ? WORDS.cells : WORDS.smooth);
        return true;
      case "o": {
        const opacity = Math.min(Math.max(Math.round(view.opacity * 10 + up) / 10, 0), 1);
        this.#change({ opacity }, `${WORDS.opacity} ${Math.round(opacity * 100)} %`);
        return true;
      }
      case "t": {
        const threshold = Math.min(Math.max(Math.round((view.threshold ?? 0) * 20 - up) / 20, 0), 0.95) || null;
        this.#change({ threshold }, `${WORDS.threshold} ${threshold ? `${Math.round(threshold * 100)} %` : WORDS.none}`);
        return true;
      }
      case "p": {
        const names = Object.keys(PALETTES);
        const palette = names[(names.indexOf(view.palette) + 1) % names.length];
        this.#change({ palette }, WORDS.palettes[palette]);
        return true;
      }
      case "l": {
        const ids = [...this.#maps.map((layer) => layer.id), null];
        const next = (ids.indexOf(this.#shown) + (event.shiftKey ? -1 : 1) + ids.length) % ids.length;
        this.#show(ids[next]);
        return true;
      }
      case "x":
        this.crosses = !this.#crosses;
        return true;
      case "m":
        this.outlines = !this.#outlines;
        this.#liveEl.textContent = this.#outlines ? WORDS.outlinesShown : WORDS.outlinesHidden;
        return true;
      case "k":
        this.#reading = !this.#reading;
        this.#liveEl.textContent = this.#reading ? WORDS.reading : WORDS.panning;
        this.#point(this.#reading ? (this.#at ?? view.centre) : null);
        return true;
      case "[":
      case "]":
        this.#brush = Math.min(Math.max(this.#brush * (event.key === "]" ? 1.25 : 0.8), 1), 200);
        this.#later();
        return true;
      case "?":
        this.help();
        return true;
      case "Enter":
        if (!drawing || !this.#at) return false;
        this.#path.push(this.#at);
        if (this.#tool === "pick" || this.#path.length > 1) this.#drew(film);
        this.#later();
        return true;
      case "Escape": {
        const busy = this.#path.length > 0 || this.#reading || this.#helpEl.open;
        this.#path = [];
        this.#doing = null;
        this.#reading = false;
        this.#helpEl.close();
        this.#later();
        return busy;
      }
    }
    const tool = TOOLS[Number(event.key) - 1];
    if (!tool || (DRAWING.includes(tool) && !this.hasAttribute("draw"))) return false;
    this.tool = tool;
    this.#liveEl.textContent = WORDS.tools[tool];
    return true;
  }

  /** @param {KeyboardEvent} event */
  #keyUp(event) {
    if (event.key !== " ") return;
    // What began as a flicker was meant to move the film.
    if (this.#space?.moved) this.#change({ flicker: this.#space.before });
    this.#space = null;
  }

  /**
   * Moves the cursor by pixels of the film.
   *
   * @param {Film} film
   * @param {readonly [number, number]} arrow
   * @param {number} far
   */
  #step(film, arrow, far) {
    const [row, column] = this.#at ?? [Math.floor(film.height / 2) + 0.5, Math.floor(film.width / 2) + 0.5];
    const to = /** @type {Pair} */ ([
      Math.min(Math.max(Math.floor(row) + 0.5 + arrow[0] * far, 0.5), film.height - 0.5),
      Math.min(Math.max(Math.floor(column) + 0.5 + arrow[1] * far, 0.5), film.width - 0.5),
    ]);
    this.#point(to);
    const there = this.#screen(film).toScreen(to);
    const { width, height } = this.#size;
    if (there.x < 0 || there.y < 0 || there.x > width || there.y > height) this.#change({ centre: to });
    this.#liveEl.textContent = this.#words();
  }

  /** @param {Pair | null} at */
  #point(at) {
    const inside = at && this.#film && within(this.#film, at) ? at : null;
    if (inside || this.#at) {
      this.#at = inside;
      this.dispatchEvent(new CustomEvent("cursor", { detail: this.#cursor(inside) }));
    }
    if (this.#tool === "pick" && this.#film) {
      const label = inside ? regionAt(this.#regions, this.#film, inside) : null;
      if (label !== (this.#region ? Number(this.#region.id) : null)) this.#region = regionLayer(this.#regions, label);
    }
    this.#later();
  }

  /**
   * @param {Pair | null} at
   * @returns {Cursor | null}
   */
  #cursor(at) {
    const film = this.#film;
    if (!film || !at) return null;
    const [row, column] = [Math.floor(at[0]), Math.floor(at[1])];
    const [low, high] = film.range;
    const values = Array.from({ length: film.channels }, (_, i) => {
      return low + (film.data[(row * film.width + column) * film.channels + i] / 65535) * (high - low);
    });
    return {
      row,
      column,
      mm: film.spacing && [(row + 0.5) * film.spacing[0], (column + 0.5) * film.spacing[1]],
      value: film.channels === 1 ? values[0] : values,
      mapValue: this.#layer && valueOf(this.#layer, film, row + 0.5, column + 0.5),
    };
  }

  // What stands on the screen

  #later() {
    if (this.#asked || !this.isConnected) return;
    this.#asked = requestAnimationFrame(() => {
      this.#asked = 0;
      this.#draw();
    });
  }

  #draw() {
    const film = this.#film;
    const shared = painter();
    this.stage.setAttribute("aria-label", this.#label());
    this.controls.show(this.#view, this.#tool, this.#maps, this.#shown);
    this.#emptyEl.hidden = Boolean(film && shared);
    this.#emptyEl.textContent = shared ? WORDS.noFilm : WORDS.noWebGL;
    const { width, height } = this.#size;
    if (!film || !shared || !width || !height) {
      this.#scaleEl.hidden = true;
      this.canvas.hidden = true;
      for (const one of [this.#aboutEl, this.#readEl, this.#setEl]) one.textContent = "";
      return;
    }
    this.canvas.hidden = false;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
    }
    const screen = this.#screen(film);
    const scale = /** @type {Pair} */ ([screen.scale[0] * (h / height), screen.scale[1] * (w / width)]);
    const masks = this.#outlines ? this.#layers.filter((layer) => layer.kind === "mask") : [];
    const scene = { width: w, height: h, centre: this.#view.centre, scale, line: Math.max(1, Math.round(1.5 * ratio)) };
    shared.paint(this.pen, this, film, this.#layer, this.#region ? [...masks, this.#region] : masks, this.#view, scene);
    this.#ink(film, screen, w / width);
    this.#say(film);
    this.#frames += 1;
  }

  /**
   * Lines over the picture: crosses, the scale bar, what is being drawn.
   *
   * @param {Film} film
   * @param {Screen} screen
   * @param {number} ratio
   */
  #ink(film, screen, ratio) {
    const { pen } = this;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.lineCap = "butt";
    const layer = this.#layer;
    if (layer?.peak && this.#crosses && !this.#view.flicker) {
      const { row, column, height, width } = layer.place ?? { row: 0, column: 0, height: film.height, width: film.width };
      const [r, c] = layer.peak;
      this.#cross(screen, [row + ((r + 0.5) * height) / layer.height, column + ((c + 0.5) * width) / layer.width], 7, 22);
    }
    if (this.#pointer) this.#cross(screen, this.#pointer, 3, 11);
    if (this.#at && (this.#reading || (DRAWING.includes(this.#tool) && !this.#doing))) this.#cross(screen, this.#at, 3, 11);
    if (film.spacing) this.#ruler(film.spacing[1], screen);
    if (this.#path.length && this.#doing === "draw") this.#outline(this.#tool === "brush" ? null : this.#shape(film, this.#path), screen, ratio);
    else if (this.#path.length && this.#at) this.#outline(this.#shape(film, [...this.#path, this.#at]), screen, ratio);
    else if (this.#mark) this.#outline(this.#mark, screen, ratio);
    if (this.#tool === "brush") {
      if (this.#path.length) this.#stroke(screen);
      if (this.#at) {
        const { x, y } = screen.toScreen(this.#at);
        this.#line(() => pen.arc(x, y, this.#brush, 0, 2 * Math.PI));
      }
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
  }

  /**
   * @param {() => void} trace
   * @param {number} [thick]
   */
  #line(trace, thick = 1.5) {
    const { pen } = this;
    for (const [colour, width] of /** @type {[string, number][]} */ ([[HALO, thick + 2.5], [INK, thick]])) {
      pen.beginPath();
      trace();
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.stroke();
    }
  }

  /**
   * @param {Screen} screen
   * @param {Pair} at
   * @param {number} hole
   * @param {number} arm
   */
  #cross(screen, at, hole, arm) {
    const { x, y } = screen.toScreen(at);
    this.#line(() => {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        this.pen.moveTo(x + dx * hole, y + dy * hole);
        this.pen.lineTo(x + dx * arm, y + dy * arm);
      }
    });
  }

  /**
   * A bar of a round number of millimetres, at the right end of the lower edge.
   *
   * @param {number} spacing millimetres between columns
   * @param {Screen} screen
   */
  #ruler(spacing, screen) {
    const { pen } = this;
    const perMm = screen.scale[1] / spacing;
    const mm = roundLength(Math.min(160, screen.width * 0.3) / perMm);
    const [long, right, y] = [mm * perMm, screen.width - 12, screen.height - 34];
    this.#line(() => {
      pen.moveTo(right - long, y - 4);
      pen.lineTo(right - long, y);
      pen.lineTo(right, y);
      pen.lineTo(right, y - 4);
    });
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 3;
    pen.strokeStyle = HALO;
    pen.fillStyle = INK;
    pen.strokeText(`${mm} ${WORDS.millimetres}`, right - long / 2, y - 8);
    pen.fillText(`${mm} ${WORDS.millimetres}`, right - long / 2, y - 8);
  }

  /**
   * @param {Shape | null} shape
   * @param {Screen} screen
   * @param {number} ratio
   */
  #outline(shape, screen, ratio) {
    const { pen } = this;
    if (shape?.kind === "rectangle" || shape?.kind === "ellipse") {
      const a = screen.toScreen([shape.rows[0], shape.columns[0]]);
      const b = screen.toScreen([shape.rows[1], shape.columns[1]]);
      this.#line(() => {
        if (shape.kind === "rectangle") pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
        else pen.ellipse((a.x + b.x) / 2, (a.y + b.y) / 2, (b.x - a.x) / 2, (b.y - a.y) / 2, 0, 0, 2 * Math.PI);
      });
    } else if (shape?.kind === "brush") {
      const from = screen.toScreen([0, 0]);
      pen.save();
      pen.translate(from.x, from.y);
      pen.scale(screen.scale[1], screen.scale[0]);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(stencil(shape.mask, shape.width, shape.height), 0, 0);
      pen.restore();
    } else if (shape?.kind === "pick" && this.#tool === "pick") {
      this.#cross(screen, [shape.row + 0.5, shape.column + 0.5], 2, 7);
    }
  }

  /** @param {Screen} screen */
  #stroke(screen) {
    const { pen } = this;
    pen.save();
    pen.beginPath();
    this.#path.forEach((point, i) => {
      const { x, y } = screen.toScreen(point);
      if (i) pen.lineTo(x, y);
      else pen.moveTo(x, y + 0.01);
      if (!i) pen.lineTo(x, y);
    });
    pen.lineCap = "round";
    pen.lineJoin = "round";
    pen.lineWidth = 2 * this.#brush;
    pen.strokeStyle = STROKE;
    pen.stroke();
    pen.restore();
  }

  #label() {
    const film = this.#film;
    if (!film) return WORDS.noFilm;
    const layer = this.#layer;
    const parts = [this.getAttribute("aria-label") ?? WORDS.viewer, film.title];
    if (layer) parts.push(`${WORDS.map}: ${layer.title}${layer.unit ? `, ${layer.unit}` : ""}`);
    return `${parts.filter(Boolean).join(". ")}. ${WORDS.hint}`;
  }

  /** What lies under the cursor, or under that of a linked viewer. */
  #words() {
    const film = this.#film;
    const at = this.#at ?? (this.#pointer && film && within(film, this.#pointer) ? this.#pointer : null);
    const cursor = this.#cursor(at);
    if (!film || !cursor) return "";
    const said = [`${WORDS.row} ${cursor.row}, ${WORDS.column} ${cursor.column}`];
    if (cursor.mm) said.push(`${cursor.mm.map((mm) => mm.toFixed(1)).join(", ")} ${WORDS.millimetres}`);
    said.push(`${WORDS.value} ${[cursor.value].flat().map((v) => filmNumber(v, film.range)).join(" ")}`);
    const layer = this.#layer;
    if (layer && cursor.mapValue !== null) {
      said.push(`${WORDS.map} ${isSigned(layer) ? signedNumber(cursor.mapValue) : plainNumber(cursor.mapValue)}`);
    }
    return said.join(" · ");
  }

  /** @param {Film} film */
  #say(film) {
    const layer = this.#layer;
    this.#aboutEl.textContent = [film.title, layer && !this.#view.flicker ? layer.title : ""].filter(Boolean).join(" · ");
    this.#readEl.textContent = this.#words();
    this.#setEl.textContent = `${windowWords(this.#view, film)} · ${WORDS.zoom} ${plainNumber(this.#view.zoom)}`;
    this.#scaleEl.hidden = !layer || this.#view.flicker;
    if (layer) this.#bar(layer);
  }

  /** @param {Layer} layer */
  #bar(layer) {
    const view = this.#view;
    const palette = PALETTES[view.palette] ?? PALETTES.diverging;
    const both = isSigned(layer) && palette.against !== null;
    const known = JSON.stringify([view.palette, view.opacity, view.threshold, view.contour, both, limitOf(layer), layer.unit]);
    if (this.#scaleEl.dataset.for === known) return;
    this.#scaleEl.dataset.for = known;
    const limit = limitOf(layer);
    const strip = made("div", { class: "strip" });
    const stops = Array.from({ length: 33 }, (_, i) => {
      const t = both ? 1 - i / 16 : 1 - i / 32;
      const share = Math.abs(t) < shownFrom(view) ? 0 : view.contour ? 1 : Math.abs(t) * view.opacity;
      return `rgb(${colourAt(palette, t).map((c) => Math.round(128 + (c - 128) * share)).join(" ")})`;
    });
    strip.style.background = `linear-gradient(to bottom, ${stops.join(", ")})`;
    for (const t of shownFrom(view) ? (both ? [1, -1] : [1]) : []) {
      const mark = made("span", { class: "mark" });
      mark.style.top = `${100 * (both ? (1 - t * shownFrom(view)) / 2 : 1 - shownFrom(view))}%`;
      strip.append(mark);
    }
    strip.append(made("span", { class: "unit" }, layer.unit ?? ""));
    const end = (/** @type {number} */ t) => (both ? signedNumber(t * limit) : plainNumber(t * limit));
    const word = (/** @type {string} */ text) => (isSigned(layer) ? [made("i", {}, ` ${text}`)] : []);
    this.#scaleEl.replaceChildren(
      made("span", {}, end(1), ...word(WORDS.supports)),
      strip,
      made("span", {}, both ? end(-1) : "0", ...(both ? word(WORDS.against) : [])),
    );
  }
}

/** @type {Record<string, readonly [number, number]>} down and across */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const STROKE = "rgb(93 180 255 / 55%)";
/**
 * What stays when a film of another size is opened.
 * @type {(keyof View)[]}
 */
const KEPT = ["opacity", "palette", "threshold", "contour", "smooth", "flicker"];

/**
 * @template {object} T
 * @param {T} whole
 * @param {(keyof T)[]} names
 * @returns {Partial<T>}
 */
function only(whole, names) {
  return /** @type {Partial<T>} */ (Object.fromEntries(names.map((name) => [name, whole[name]])));
}

/**
 * @param {Film | null} film
 * @returns {View}
 */
function freshView(film) {
  const [low, high] = film?.shown ?? film?.range ?? [0, 1];
  return {
    window: { level: (low + high) / 2, width: high - low },
    invert: false,
    zoom: 1,
    centre: film ? [film.height / 2, film.width / 2] : [0, 0],
    opacity: 0.8,
    palette: "diverging",
    threshold: null,
    contour: false,
    smooth: true,
    flicker: false,
  };
}

/**
 * @param {Film} film
 * @param {Pair} at
 */
function within(film, at) {
  return at[0] >= 0 && at[1] >= 0 && at[0] < film.height && at[1] < film.width;
}

/**
 * The layer's own number at a point of the film; null where it does not reach.
 *
 * @param {{data: ArrayLike<number>, width: number, height: number, place?: import("./types.js").Place | null}} layer
 * @param {Film} film
 * @param {number} row continuous
 * @param {number} column
 */
function valueOf(layer, film, row, column) {
  const place = layer.place ?? { row: 0, column: 0, height: film.height, width: film.width };
  const r = Math.floor(((row - place.row) / place.height) * layer.height);
  const c = Math.floor(((column - place.column) / place.width) * layer.width);
  return r >= 0 && c >= 0 && r < layer.height && c < layer.width ? layer.data[r * layer.width + c] : null;
}

/**
 * @param {Regions | null} regions
 * @param {Film} film
 * @param {Pair} at
 */
function regionAt(regions, film, at) {
  return regions && valueOf(regions, film, Math.floor(at[0]) + 0.5, Math.floor(at[1]) + 0.5);
}

/**
 * @param {Regions | null} regions
 * @param {number | null} label
 * @returns {Layer | null}
 */
function regionLayer(regions, label) {
  if (!regions || label === null) return null;
  const data = Uint8Array.from(regions.data, (one) => Number(one === label));
  const { width, height, place } = regions;
  return { id: String(label), title: "", kind: "mask", width, height, data, place };
}

/** @param {Layer} layer */
function isSigned(layer) {
  return layer.signed ?? layer.kind === "map";
}

/**
 * @param {View} view
 * @param {Film} film
 */
function windowWords({ window }, film) {
  const number = (/** @type {number} */ value) => filmNumber(value, film.range);
  return `${WORDS.level} ${number(window.level)} · ${WORDS.width} ${number(window.width)}`;
}

/** @param {Shape} shape */
function shapeWords(shape) {
  if (shape.kind === "pick") return `${WORDS.drawn}: ${WORDS.row} ${shape.row}, ${WORDS.column} ${shape.column}`;
  if (shape.kind === "brush") return `${WORDS.drawn}: ${WORDS.brush}, ${shape.mask.reduce((a, b) => a + b, 0)} ${WORDS.pixels}`;
  const [rows, columns] = [shape.rows, shape.columns].map(([first, end]) => `${first}–${end - 1}`);
  return `${WORDS.drawn}: ${WORDS.row} ${rows}, ${WORDS.column} ${columns}`;
}

/**
 * The longest of 1, 2, 5 times a power of ten that is not above a length.
 *
 * @param {number} most
 */
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Number(([5, 2, 1].find((n) => n * power <= most) ?? 1) * power);
}

/** @type {WeakMap<Uint8Array, HTMLCanvasElement>} */
const stencils = new WeakMap();

/**
 * A mask as a picture in the colour of the brush.
 *
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 */
function stencil(mask, width, height) {
  const known = stencils.get(mask);
  if (known) return known;
  const canvas = made("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const picture = pen.createImageData(width, height);
  mask.forEach((on, i) => on && picture.data.set([93, 180, 255, 140], 4 * i));
  pen.putImageData(picture, 0, 0);
  stencils.set(mask, canvas);
  return canvas;
}

if (!customElements.get("lucency-viewer")) customElements.define("lucency-viewer", LucencyViewer);
