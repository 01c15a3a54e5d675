/**
 * Arrays as bytes: the same as packing.py, which says how they lie.
 *
 * @module packing
 */

/** @typedef {Float32Array | Uint16Array | Uint8Array} Numbers */
/** @typedef {"float32" | "uint16" | "uint8"} Dtype */
/** @typedef {{data: Numbers, dtype: Dtype, shape: number[]}} PackedArray */
/** @typedef {{header: Record<string, any>, arrays: Record<string, PackedArray>}} Packed */

const KINDS = { float32: Float32Array, uint16: Uint16Array, uint8: Uint8Array };
const UNIT = 4;

/**
 * The header and the arrays; these are views of the bytes, not copies.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Packed}
 * @throws {RangeError} when the bytes are cut short, too long or something else
 */
export function unpack(buffer) {
  const damaged = () => new RangeError("These bytes are no packed arrays, or they are damaged; fetch them again.");
  if (buffer.byteLength < UNIT) throw damaged();
  const size = new DataView(buffer).getUint32(0, true);
  let at = UNIT + size;
  if (size % UNIT || at > buffer.byteLength) throw damaged();
  const text = new TextDecoder().decode(new Uint8Array(buffer, UNIT, size));
  /** @type {Record<string, any>} */
  let header;
  try {
    header = JSON.parse(text);
  } catch {
    throw damaged();
  }
  if (!Array.isArray(header?.arrays)) throw damaged();
  /** @type {Record<string, PackedArray>} */
  const arrays = {};
  for (const { name, dtype, shape } of header.arrays) {
    if (!Object.hasOwn(KINDS, dtype) || !Array.isArray(shape)) throw damaged();
    const Kind = KINDS[/** @type {Dtype} */ (dtype)];
    const count = shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
    if (!(count >= 0) || at + count * Kind.BYTES_PER_ELEMENT > buffer.byteLength) throw damaged();
    arrays[name] = { data: new Kind(buffer, at, count), dtype, shape };
    at += Math.ceil((count * Kind.BYTES_PER_ELEMENT) / UNIT) * UNIT;
  }
  if (at !== buffer.byteLength) throw damaged();
  delete header.arrays;
  return { header, arrays };
}

/**
 * The bytes of a header and its arrays.
 *
 * @param {Record<string, any>} header plain values, none of them called `arrays`
 * @param {Record<string, {data: Numbers, shape: number[]}>} arrays
 * @returns {ArrayBuffer}
 */
export function pack(header, arrays) {
  /** @param {Numbers} data */
  const kind = (data) => Object.entries(KINDS).find(([, Kind]) => data instanceof Kind)?.[0];
  const listed = Object.entries(arrays).map(([name, { data, shape }]) => ({ name, dtype: kind(data), shape }));
  let text = new TextEncoder().encode(JSON.stringify({ ...header, arrays: listed }));
  const room = Math.ceil(text.length / UNIT) * UNIT;
  const sizes = Object.values(arrays).map(({ data }) => Math.ceil(data.byteLength / UNIT) * UNIT);
  const bytes = new Uint8Array(UNIT + room + sizes.reduce((a, b) => a + b, 0));
  new DataView(bytes.buffer).setUint32(0, room, true);
  bytes.set(text, UNIT);
  bytes.fill(0x20, UNIT + text.length, UNIT + room);
  let at = UNIT + room;
  Object.values(arrays).forEach(({ data }, i) => {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += sizes[i];
  });
  return bytes.buffer;
}
