/**
 * Viewers that go together: what is done to one is done to all.
 *
 * @module linked
 */

/** @typedef {import("./types.js").Cursor} Cursor */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./viewer.js").LucencyViewer} Viewer */

/**
 * Links viewers of one film, or of several planes of a volume.
 *
 * @param {Viewer[]} viewers
 * @param {{place?: boolean, layer?: boolean}} how `place`: they show the same place and point at it, not only with
 *   the same window and colours; `layer`: they show the layer of the same id
 */
export function link(viewers, { place = true, layer = false } = {}) {
  for (const one of viewers) {
    const others = viewers.filter((other) => other !== one);
    one.addEventListener("viewchange", (event) => {
      const view = /** @type {CustomEvent<View>} */ (event).detail;
      for (const other of others) {
        const { zoom, centre } = other.view;
        other.view = place ? view : { ...view, zoom, centre };
      }
    });
    if (place) {
      one.addEventListener("cursor", (event) => {
        const cursor = /** @type {CustomEvent<Cursor | null>} */ (event).detail;
        for (const other of others) other.pointer = cursor && [cursor.row + 0.5, cursor.column + 0.5];
      });
    }
    if (layer) {
      one.addEventListener("layerchange", (event) => {
        for (const other of others) other.shown = /** @type {CustomEvent<string | null>} */ (event).detail;
      });
    }
  }
}
