/** The service's answers, and its errors as the one sentence that it says. */

import { unpack } from "/viewer/packing.js";
import { login } from "./login.js";
import { words } from "./words.js";

/** @typedef {import("/viewer/packing.js").Packed} Packed */

const ROOT = "/api/v1/";

/** What went wrong, in one sentence for a person. */
export class ServiceError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where nothing answered
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{json?: unknown, body?: Blob, headers?: Record<string, string>, signal?: AbortSignal}} [how]
 * @returns {Promise<Response>}
 */
async function call(method, path, how = {}) {
  const headers = { ...how.headers };
  if (how.json !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(ROOT + path, {
      method,
      headers,
      body: how.json === undefined ? (how.body ?? null) : JSON.stringify(how.json),
      signal: how.signal ?? null,
      credentials: "same-origin",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ServiceError(words.errors.unreachable, 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await login();
    return call(method, path, how);
  }
  let said = "";
  try {
    const told = await answer.json();
    said = typeof told.error === "string" ? told.error : "";
  } catch {
    // Not JSON: something between the page and the service answered.
  }
  if (answer.status === 429) said ||= words.errors.busy(answer.headers.get("Retry-After") ?? "");
  throw new ServiceError(said || words.errors.status(answer.status), answer.status);
}

/** @param {string} path @param {AbortSignal} [signal] */
export const get = async (path, signal) => (await call("GET", path, { signal })).json();

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<Packed>} */
export const packed = async (path, signal) => unpack(await (await call("GET", path, { signal })).arrayBuffer());

/** @param {string} path @param {unknown} json @param {AbortSignal} [signal] */
export const post = async (path, json, signal) => (await call("POST", path, { json, signal })).json();

/** @param {string} path @param {unknown} json @returns {Promise<Packed>} */
export const postPacked = async (path, json) => unpack(await (await call("POST", path, { json })).arrayBuffer());

/** @param {string} path @param {unknown} json */
export const put = async (path, json) => {
  await call("PUT", path, { json });
};

/** @param {string} path */
export const remove = async (path) => {
  await call("DELETE", path);
};

/**
 * Opens a file.
 * @param {Blob} body
 * @param {string} name
 * @param {string} [type] of the body
 */
export const upload = async (body, name, type = "application/octet-stream") =>
  // A header holds Latin letters only.
  (await call("POST", "scans", { body, headers: { "X-Filename": encodeURIComponent(name), "Content-Type": type } })).json();

/**
 * Opens the slices of one volume.
 * @param {File[]} files
 * @param {string} name of the folder
 */
export function uploadFolder(files, name) {
  const text = JSON.stringify({ sizes: files.map((file) => file.size) });
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, new TextEncoder().encode(text).length, true);
  return upload(new Blob([length.buffer, text, ...files]), name, "application/x-lucency-folder");
}

/**
 * The address of what belongs to an explanation: a file to keep.
 * @param {string} id
 * @param {string} file
 */
export const address = (id, file) => `${ROOT}explanations/${encodeURIComponent(id)}/${file}`;
