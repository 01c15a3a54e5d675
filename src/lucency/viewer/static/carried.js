/**
 * Packed arrays out of a text in a page; inlined.py writes it.
 *
 * @module carried
 */

import { unpack } from "./packing.js";

/** @typedef {import("./packing.js").Packed} Packed */

/**
 * @param {string} text base64 of compressed bytes
 * @returns {Promise<Packed>}
 */
export async function carried(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (one) => one.charCodeAt(0));
  // @ts-ignore TypeScript before 5.1 does not know DecompressionStream.
  const plain = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
  const packed = unpack(await plain.arrayBuffer());
  for (const [name, how] of Object.entries(packed.header.differences)) {
    packed.arrays[name] = summed(/** @type {Uint8Array} */ (packed.arrays[name].data), how);
  }
  return packed;
}

/**
 * @param {Uint8Array} bytes low ones, then high ones
 * @param {{dtype: "uint16" | "float32", shape: number[], low: number, step: number}} how
 */
function summed(bytes, { dtype, shape, low, step }) {
  const count = bytes.length / 2;
  const channels = shape[2] ?? 1;
  const line = shape[1] * channels;
  const data = new Uint16Array(count);
  for (let i = 0; i < count; i++) data[i] = bytes[i] + 256 * bytes[i + count] + (i < line ? 0 : data[i - line]);
  for (let i = 0; i < count; i++) if (i % line >= channels) data[i] += data[i - channels];
  if (dtype === "uint16") return { data, dtype, shape };
  return { data: Float32Array.from(data, (one) => low + one * step), dtype, shape };
}
