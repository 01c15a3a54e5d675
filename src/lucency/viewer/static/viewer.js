/**
 * `<lucency-viewer>`: a film and the maps over it, in the hands of a radiologist.
 *
 * Events: `viewchange` (detail: View), `cursor` (detail: Cursor, or null when it leaves), `shape` (detail: Shape).
 *
 * @module viewer
 */

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").Layer} Layer */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Tool} Tool */

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

export class LucencyViewer extends HTMLElement {
  constructor() {
    super();
    this.attachShadow({ mode: "open" });
    /** @type {Film | null} */
    this.film = null;
    /** @type {Layer[]} */
    this.layers = [];
    /** @type {string | null} the id of the shown layer; masks are drawn besides, as outlines */
    this.shown = null;
    this.outlines = true;
    /** @type {Tool} */
    this.tool = "window";
  }

  /** @type {View} */
  get view() {
    return {
      window: { level: 0.5, width: 1 },
      invert: false,
      zoom: 1,
      centre: [0, 0],
      opacity: 0.8,
      palette: "diverging",
      threshold: null,
      contour: false,
      smooth: true,
      flicker: false,
    };
  }

  set view(view) {}
}

if (!customElements.get("lucency-viewer")) customElements.define("lucency-viewer", LucencyViewer);
