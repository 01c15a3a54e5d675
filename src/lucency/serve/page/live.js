/** Runs whose steps arrive while they are made, over one socket that is opened again when it breaks. */

import { unpack } from "/viewer/packing.js";
import { ServiceError } from "./api.js";
import { words } from "./words.js";

/** @typedef {import("/viewer/packing.js").Packed} Packed */
/** @typedef {"closed" | "open" | "lost"} Connection */

const WAITS = [500, 1000, 2000, 4000, 8000];

/**
 * One explanation that is being made.
 *
 * @typedef {object} Run
 * @property {Promise<string>} answer the id of the explanation
 * @property {() => void} cancel stops after the current step; the answer is the map so far
 */

/**
 * @typedef {object} Waiting
 * @property {number} number
 * @property {Record<string, unknown>} asked
 * @property {(step: Packed) => void | Promise<void>} onstep
 * @property {(id: string) => void} resolve
 * @property {(error: Error) => void} reject
 */

/** Dispatches `connection` (detail: Connection) as the socket opens and breaks. */
export class Live extends EventTarget {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Waiting[]} the first of them runs */
  #queue = [];
  #number = 0;
  #failures = 0;
  /** @type {Connection} */
  connection = "closed";

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1/live`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#failures = 0;
      this.#tell("open");
      // What the break cut off is asked again; the service remembers what it had finished.
      if (this.#queue.length) this.#send({ type: "start", run: this.#queue[0].number, ...this.#queue[0].asked });
    };
    socket.onmessage = ({ data }) => void (typeof data === "string" ? this.#told(JSON.parse(data)) : this.#step(data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#tell("lost");
      setTimeout(() => this.open(), WAITS[Math.min(this.#failures++, WAITS.length - 1)]);
    };
    this.#socket = socket;
  }

  /** @param {Connection} connection */
  #tell(connection) {
    this.connection = connection;
    this.dispatchEvent(new CustomEvent("connection", { detail: connection }));
  }

  /** @param {Record<string, unknown>} message */
  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /**
   * Asks for an explanation; several at once are made one after the other.
   *
   * @param {Record<string, unknown>} asked the fields of POST explanations
   * @param {(step: Packed) => void | Promise<void>} onstep the next step is sent once this one is done with
   * @returns {Run}
   */
  start(asked, onstep) {
    const number = ++this.#number;
    /** @type {Promise<string>} */
    const answer = new Promise((resolve, reject) => {
      this.#queue.push({ number, asked, onstep, resolve, reject });
    });
    if (this.#queue.length === 1) this.#send({ type: "start", run: number, ...asked });
    const cancel = () => {
      const at = this.#queue.findIndex((waiting) => waiting.number === number);
      if (at === 0 && this.connection === "open") this.#send({ type: "cancel", run: number });
      else if (at >= 0) this.#finish(this.#queue[at]).reject(new ServiceError(words.errors.cancelled, 0));
    };
    return { answer, cancel };
  }

  /** @param {ArrayBuffer} bytes */
  async #step(bytes) {
    const step = unpack(bytes);
    const running = this.#queue[0];
    try {
      if (running && step.header.run === running.number) await running.onstep(step);
    } finally {
      this.#send({ type: "ack", run: step.header.run, frame: step.header.frame });
    }
  }

  /** @param {{type: string, run?: number, explanation?: string, message?: string}} told */
  #told(told) {
    const running = this.#queue[0];
    if (!running || (told.run !== undefined && told.run !== running.number)) return;
    if (told.type === "done") this.#finish(running).resolve(told.explanation ?? "");
    if (told.type === "error") this.#finish(running).reject(new ServiceError(told.message ?? words.errors.run, 0));
  }

  /** @param {Waiting} done */
  #finish(done) {
    const first = this.#queue[0] === done;
    this.#queue = this.#queue.filter((waiting) => waiting !== done);
    const next = this.#queue[0];
    if (first && next) this.#send({ type: "start", run: next.number, ...next.asked });
    return done;
  }
}
