/** From the service's arrays to what the viewer shows. */

/** @typedef {import("/viewer/packing.js").Packed} Packed */
/** @typedef {import("/viewer/types.js").Film} Film */
/** @typedef {import("/viewer/types.js").Layer} Layer */
/** @typedef {import("/viewer/types.js").Place} Place */
/** @typedef {import("./store.js").Moment} Moment */
/** @typedef {import("./store.js").Grid16} Grid16 */

/** Longest side of a film on which a perturbed scan is drawn. */
const SIDE = 640;

/**
 * Channel after channel to pixel after pixel.
 * @param {Uint16Array} data
 * @param {number} channels
 */
function interleaved(data, channels) {
  if (channels === 1) return data;
  const size = data.length / channels;
  const made = new Uint16Array(data.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < size; i++) made[i * channels + c] = data[c * size + i];
  return made;
}

/**
 * The film that `GET scans/{id}/film` sends, array `data` as `[C, H, W]`.
 * @param {Packed} packed
 * @param {string} title
 * @returns {Film}
 */
export function filmOf({ header, arrays }, title) {
  const { data, shape } = arrays.data;
  const [height, width] = shape.slice(-2);
  const channels = shape.length === 3 && shape[0] === 3 ? 3 : 1;
  const whole = /** @type {Uint16Array} */ (data);
  return {
    width,
    height,
    channels,
    data: interleaved(channels === 1 ? whole.subarray(0, width * height) : whole, channels),
    spacing: header.spacing ?? null,
    range: header.range ?? [0, 1],
    title,
  };
}

/**
 * A step of a run, or a kept frame of one.
 * @param {Packed} packed
 * @returns {Moment}
 */
export function momentOf({ header, arrays }) {
  /** @param {string} name */
  const grid = (name) => {
    const found = arrays[name];
    if (!found) return null;
    const [height, width] = found.shape.slice(-2);
    return { data: /** @type {Float32Array} */ (found.data), width, height };
  };
  const seen = arrays.perturbed;
  const [height, width] = seen ? seen.shape.slice(-2) : [0, 0];
  return {
    done: header.done,
    evaluations: header.evaluations ?? 0,
    score: header.score ?? null,
    seconds: header.seconds ?? 0,
    left: header.left ?? null,
    point: header.point ?? null,
    facts: header.facts ?? {},
    place: header.place ?? null,
    heatmap: grid("heatmap") ?? { data: new Float32Array(1), width: 1, height: 1 },
    reaction: grid("reaction"),
    perturbed: seen
      ? { data: seen.dtype === "uint8" ? Uint16Array.from(seen.data, (v) => v * 257) : /** @type {Uint16Array} */ (seen.data), width, height, channels: seen.shape.length > 2 ? seen.shape[0] : 1 }
      : null,
  };
}

/**
 * The film with the perturbed scan in its place, so that it lies beside the film with the same zoom and the same
 * window. It is as fine as the screen needs.
 * @param {Film} film
 * @param {Grid16} grid
 * @param {Place | null} place
 * @returns {Film}
 */
export function perturbedFilm(film, grid, place) {
  const scale = Math.min(1, SIDE / Math.max(film.width, film.height));
  const width = Math.max(1, Math.round(film.width * scale));
  const height = Math.max(1, Math.round(film.height * scale));
  const channels = film.channels === 3 && grid.channels === 3 ? 3 : 1;
  const made = new Uint16Array(width * height * channels);
  const at = place ?? { row: 0, column: 0, height: film.height, width: film.width };
  const columns = cut(width, film.width, at.column, at.width, grid.width);
  const rows = cut(height, film.height, at.row, at.height, grid.height);
  const plane = grid.width * grid.height;
  for (let c = 0; c < channels; c++) {
    const from = c * plane;
    for (let y = 0; y < height; y++) {
      const up = rows.first[y];
      const lower = rows.second[y];
      const v = rows.share[y];
      const filmRow = Math.min(film.height - 1, Math.floor((y + 0.5) / scale)) * film.width;
      for (let x = 0; x < width; x++) {
        const to = (y * width + x) * channels + c;
        if (up < 0 || columns.first[x] < 0) {
          const pixel = filmRow + Math.min(film.width - 1, Math.floor((x + 0.5) / scale));
          made[to] = film.data[pixel * film.channels + Math.min(c, film.channels - 1)];
          continue;
        }
        const l = columns.first[x];
        const r = columns.second[x];
        const u = columns.share[x];
        const a = from + up * grid.width;
        const b = from + lower * grid.width;
        made[to] =
          (grid.data[a + l] * (1 - u) + grid.data[a + r] * u) * (1 - v) +
          (grid.data[b + l] * (1 - u) + grid.data[b + r] * u) * v;
      }
    }
  }
  const { spacing } = film;
  return {
    width,
    height,
    channels,
    data: made,
    spacing: spacing && [(spacing[0] * film.height) / height, (spacing[1] * film.width) / width],
    range: film.range,
    title: "",
  };
}

/**
 * For each pixel of a line, the two cells of the grid that it lies between, -1 outside, and the second's share.
 * @param {number} count
 * @param {number} whole
 * @param {number} start
 * @param {number} length
 * @param {number} cells
 */
function cut(count, whole, start, length, cells) {
  const first = new Int32Array(count).fill(-1);
  const second = new Int32Array(count);
  const share = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const inside = (((i + 0.5) * whole) / count - start) / length;
    if (inside < 0 || inside > 1) continue;
    const at = Math.min(cells - 1, Math.max(0, inside * cells - 0.5));
    first[i] = Math.floor(at);
    second[i] = Math.min(cells - 1, first[i] + 1);
    share[i] = at - first[i];
  }
  return { first, second, share };
}

/**
 * A map of a moment as a layer over the film.
 * @param {string} id
 * @param {string} title
 * @param {{data: Float32Array, width: number, height: number}} grid
 * @param {Place | null} place
 * @param {string} unit
 * @param {number | null} [limit] the value at which the colour is full
 * @returns {Layer}
 */
export function layerOf(id, title, grid, place, unit, limit = null) {
  return { id, title, kind: "map", ...grid, place, unit, cells: null, limit };
}

/**
 * A small picture of a film.
 * @param {Film} film
 * @param {number} side
 * @returns {string} a JPEG as a data URI
 */
export function thumbnail(film, side) {
  const scale = side / Math.max(film.width, film.height);
  const width = Math.max(1, Math.round(film.width * scale));
  const height = Math.max(1, Math.round(film.height * scale));
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const picture = pen.createImageData(width, height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const pixel = Math.floor((y + 0.5) / scale) * film.width + Math.floor((x + 0.5) / scale);
      for (let c = 0; c < 3; c++)
        picture.data[(y * width + x) * 4 + c] = film.data[pixel * film.channels + Math.min(c, film.channels - 1)] >> 8;
      picture.data[(y * width + x) * 4 + 3] = 255;
    }
  pen.putImageData(picture, 0, 0);
  return canvas.toDataURL("image/jpeg", 0.8);
}
