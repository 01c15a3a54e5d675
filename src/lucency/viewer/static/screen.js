/**
 * Where a film lies on the screen, and back. Rows and columns are continuous: pixel i reaches from i to i + 1.
 *
 * @module screen
 */

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").View} View */
/** @typedef {[number, number]} Pair rows (down) first, then columns (across) */

export const ZOOM_LIMITS = /** @type {const} */ ([0.5, 64]);

/**
 * Screen pixels for each row and each column; a pixel of the film is as high and wide as its spacing says.
 *
 * @param {Film} film
 * @param {number} zoom
 * @param {number} width of the screen
 * @param {number} height
 * @returns {Pair}
 */
export function scaleOf(film, zoom, width, height) {
  const [down, across] = film.spacing ?? [1, 1];
  const fit = Math.min(height / (film.height * down), width / (film.width * across));
  return [fit * zoom * down, fit * zoom * across];
}

/** Turns points of a film into points of a screen, whose origin is its upper left corner. */
export class Screen {
  /**
   * @param {Film} film
   * @param {View} view
   * @param {number} width
   * @param {number} height
   */
  constructor(film, view, width, height) {
    this.width = width;
    this.height = height;
    this.centre = view.centre;
    this.scale = scaleOf(film, view.zoom, width, height);
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {Pair}
   */
  toFilm(x, y) {
    return [
      this.centre[0] + (y - this.height / 2) / this.scale[0],
      this.centre[1] + (x - this.width / 2) / this.scale[1],
    ];
  }

  /**
   * @param {Pair} point row and column
   * @returns {{x: number, y: number}}
   */
  toScreen([row, column]) {
    return {
      x: this.width / 2 + (column - this.centre[1]) * this.scale[1],
      y: this.height / 2 + (row - this.centre[0]) * this.scale[0],
    };
  }
}

/**
 * The view after a change of zoom that leaves one point of the screen where it is.
 *
 * @param {Film} film
 * @param {View} view
 * @param {number} zoom
 * @param {{x: number, y: number, width: number, height: number}} at a point, and the size of the screen
 * @returns {View}
 */
export function zoomed(film, view, zoom, { x, y, width, height }) {
  const wanted = Math.min(Math.max(zoom, ZOOM_LIMITS[0]), ZOOM_LIMITS[1]);
  const [row, column] = new Screen(film, view, width, height).toFilm(x, y);
  const [down, across] = scaleOf(film, wanted, width, height);
  return {
    ...view,
    zoom: wanted,
    centre: [row - (y - height / 2) / down, column - (x - width / 2) / across],
  };
}

/**
 * The view moved by so many pixels of the screen; the middle of the screen stays on the film.
 *
 * @param {Film} film
 * @param {View} view
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 * @returns {View}
 */
export function moved(film, view, x, y, width, height) {
  const [down, across] = scaleOf(film, view.zoom, width, height);
  return {
    ...view,
    centre: [
      Math.min(Math.max(view.centre[0] - y / down, 0), film.height),
      Math.min(Math.max(view.centre[1] - x / across, 0), film.width),
    ],
  };
}
