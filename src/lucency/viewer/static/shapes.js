/**
 * What is drawn on a film, in its pixels.
 *
 * @module shapes
 */

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").Shape} Shape */
/** @typedef {import("./screen.js").Pair} Pair */

/**
 * The box of all pixels that two corners touch.
 *
 * @param {"rectangle" | "ellipse"} kind
 * @param {Pair} from continuous row and column
 * @param {Pair} to
 * @param {Film} film
 * @returns {Shape | null} null where the box lies beside the film
 */
export function boxed(kind, from, to, film) {
  /** @param {number} axis @param {number} long @returns {Pair} */
  const ends = (axis, long) => {
    const [low, high] = [Math.min(from[axis], to[axis]), Math.max(from[axis], to[axis])];
    return [Math.max(Math.floor(low), 0), Math.min(Math.floor(high) + 1, long)];
  };
  const [rows, columns] = [ends(0, film.height), ends(1, film.width)];
  return rows[0] < rows[1] && columns[0] < columns[1] ? { kind, rows, columns } : null;
}

/**
 * The pixels whose middle lies within a brush's radius of a stroke.
 *
 * @param {Pair[]} points of the stroke, continuous rows and columns
 * @param {number} radius in columns of the film
 * @param {Film} film
 * @returns {Shape | null} null where the stroke lies beside the film
 */
export function brushed(points, radius, film) {
  const { width, height } = film;
  const tall = film.spacing ? film.spacing[0] / film.spacing[1] : 1;
  const mask = new Uint8Array(width * height);
  let any = false;
  points.forEach((end, i) => {
    const begin = points[Math.max(i - 1, 0)];
    const [y0, x0, y1, x1] = [begin[0] * tall, begin[1], end[0] * tall, end[1]];
    const long = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const first = Math.max(Math.floor((Math.min(y0, y1) - radius) / tall), 0);
    const last = Math.min(Math.ceil((Math.max(y0, y1) + radius) / tall), height - 1);
    const left = Math.max(Math.floor(Math.min(x0, x1) - radius), 0);
    const right = Math.min(Math.ceil(Math.max(x0, x1) + radius), width - 1);
    for (let row = first; row <= last; row++) {
      for (let column = left; column <= right; column++) {
        const [y, x] = [(row + 0.5) * tall, column + 0.5];
        const along = long ? Math.min(Math.max(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / long, 0), 1) : 0;
        if ((x - x0 - along * (x1 - x0)) ** 2 + (y - y0 - along * (y1 - y0)) ** 2 > radius ** 2) continue;
        mask[row * width + column] = 1;
        any = true;
      }
    }
  });
  return any ? { kind: "brush", mask, width, height } : null;
}
