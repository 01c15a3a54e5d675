/** The view in the address, so that a link opens it again. */

/** @typedef {import("/viewer/types.js").View} View */
/** @typedef {import("./store.js").Choice} Choice */
/** @typedef {import("./compare.js").Asked} Asked */

/**
 * What a link holds.
 * @typedef {{mode?: string, scan?: string, explanation?: string, choice?: Partial<Choice>, view?: View,
 *   columns?: Asked[], moment?: number}} Link
 */

/** @returns {Link} */
export function read() {
  /** @type {Record<string, any>} */
  const found = {};
  for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
    try {
      found[key] = ["mode", "scan", "explanation"].includes(key) ? text : JSON.parse(text);
    } catch {
      // A link that was cut short still opens what is left of it.
    }
  }
  return found;
}

/** @param {Link} link */
export function write(link) {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(link)) {
    if (value === undefined || value === null || value === "") continue;
    kept.set(key, typeof value === "string" ? value : JSON.stringify(value, rounded));
  }
  history.replaceState(null, "", `#${kept}`);
}

/** @param {string} _key @param {unknown} value */
const rounded = (_key, value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value);
