/**
 * Numbers over a grid: films halved for small pictures, maps of patches made smooth, the value at which colour is full.
 *
 * @module fields
 */

/** @typedef {{data: Uint16Array, width: number, height: number}} Level */

/**
 * A film in all sizes, each half of the one before, down to one pixel; each pixel is the mean of what it covers.
 *
 * @param {Uint16Array} data interleaved
 * @param {number} width
 * @param {number} height
 * @param {number} channels
 * @returns {Level[]}
 */
export function pyramid(data, width, height, channels) {
  const levels = [{ data, width, height }];
  while (width > 1 || height > 1) {
    const last = levels[levels.length - 1];
    [width, height] = [Math.max(1, width >> 1), Math.max(1, height >> 1)];
    levels.push({ data: shrunk(last, width, height, channels), width, height });
  }
  return levels;
}

/**
 * The means of the pixels that each pixel of a smaller picture covers.
 *
 * @param {Level} level
 * @param {number} width
 * @param {number} height
 * @param {number} channels
 */
export function shrunk(level, width, height, channels) {
  const down = coverage(level.height, height);
  const across = coverage(level.width, width);
  const line = level.width * channels;
  const sums = new Float32Array(line);
  const out = new Uint16Array(width * height * channels);
  for (let row = 0, to = 0; row < height; row++) {
    sums.fill(0);
    for (let r = down.first[row]; r <= down.last[row]; r++) {
      const weight = down.weight(row, r);
      for (let i = 0, from = r * line; i < line; i++) sums[i] += weight * level.data[from + i];
    }
    for (let column = 0; column < width; column++) {
      const [first, last] = [across.first[column], across.last[column]];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let c = first; c <= last; c++) sum += across.weight(column, c) * sums[c * channels + channel];
        out[to++] = Math.round(sum);
      }
    }
  }
  return out;
}

/**
 * Which of `many` pixels each of `few` covers, and with which weight.
 *
 * @param {number} many
 * @param {number} few
 */
function coverage(many, few) {
  const ratio = many / few;
  return {
    first: Uint32Array.from({ length: few }, (_, i) => Math.floor(i * ratio + 1e-9)),
    last: Uint32Array.from({ length: few }, (_, i) => Math.min(Math.ceil((i + 1) * ratio - 1e-9), many) - 1),
    /** @param {number} i @param {number} at */
    weight: (i, at) => (Math.min((i + 1) * ratio, at + 1) - Math.max(i * ratio, at)) / ratio,
  };
}

/**
 * A map that is flat between borders, interpolated linearly between the middles of its cells; smooth.py is the same.
 *
 * @param {Float32Array} data row after row
 * @param {number} width
 * @param {number} height
 * @param {{rows: number[], columns: number[]}} cells
 */
export function smoothed(data, width, height, cells) {
  const down = between(cells.rows, height);
  const across = between(cells.columns, width);
  if (!down || !across) return data;
  const out = new Float32Array(data);
  const lines = new Float32Array(width * height);
  for (let row = 0; row < height; row++) {
    const { left, right, share } = down[row];
    for (let column = 0; column < width; column++) {
      lines[row * width + column] = data[left * width + column] * (1 - share) + data[right * width + column] * share;
    }
  }
  for (let row = 0; row < height; row++) {
    if (!down[row].inside) continue;
    for (let column = 0; column < width; column++) {
      const { left, right, share, inside } = across[column];
      if (inside) out[row * width + column] = lines[row * width + left] * (1 - share) + lines[row * width + right] * share;
    }
  }
  return out;
}

/**
 * @param {number[]} borders ascending
 * @param {number} long
 */
function between(borders, long) {
  const seen = [...new Set(borders.map((b) => Math.min(Math.max(b, 0), long)))];
  const middles = seen.slice(1).map((b, i) => (seen[i] + b) / 2);
  if (!middles.length) return null;
  let left = 0;
  return Array.from({ length: long }, (_, i) => {
    const at = i + 0.5;
    while (left + 1 < middles.length && middles[left + 1] <= at) left += 1;
    const right = Math.min(left + 1, middles.length - 1);
    const apart = right > left ? middles[right] - middles[left] : 1;
    const cell = (/** @type {number} */ m) => Math.min(Math.max(Math.floor(m), 0), long - 1);
    return {
      left: cell(middles[left]),
      right: cell(middles[right]),
      share: Math.min(Math.max((at - middles[left]) / apart, 0), 1),
      inside: at > borders[0] && at < borders[borders.length - 1],
    };
  });
}

const FULL = 0.999;

/**
 * The value at which the colour is full: the 99.9th percentile of the absolute value; palette.py is the same.
 *
 * @param {Float32Array | Uint8Array} data
 */
export function fullAt(data) {
  const sizes = Float32Array.from(data, Math.abs).sort();
  const at = FULL * (sizes.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sizes.length - 1);
  const limit = sizes[low] + (sizes[high] - sizes[low]) * (at - low) || sizes[sizes.length - 1];
  return limit > 0 && Number.isFinite(limit) ? limit : 1;
}
