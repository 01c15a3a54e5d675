/** What can be opened: files, folders, examples, phantoms, and what was opened before. */

import { ServiceError, get, packed, post, put, upload, uploadFolder } from "./api.js";
import { button, dialog, field, fill, h } from "./dom.js";
import { filmOf, thumbnail } from "./films.js";
import { complain, say } from "./voice.js";
import { words } from "./words.js";

/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Scan} Scan */
/** @typedef {import("/viewer/types.js").View} View */
/** @typedef {import("/viewer/types.js").Film} Film */

/**
 * What the service's worklist says of a scan; `look` is the page's own: a small picture, and the last view.
 * @typedef {{scan: string, title: string, opened: string, look: {thumbnail?: string, view?: View | null},
 *   explanations: string[]} & Record<string, any>} Entry
 */

const THUMBNAIL = 96;

export class Scans {
  element = h("div", { class: "scans" });
  #gallery = h("ul", { class: "tiles" });
  #list = h("ul", { class: "tiles" });
  #none = h("p", { class: "hint" }, words.open.empty);
  /** @type {Entry[]} */
  entries = [];
  /** @type {{title: string, summary: string, open: () => void}[]} */
  examples = [];
  #file = h("input", { type: "file", multiple: true, hidden: true, "aria-label": words.open.file, onchange: () => this.#picked(this.#file) });
  #folder = h("input", { type: "file", webkitdirectory: true, hidden: true, "aria-label": words.open.folder, onchange: () => this.#picked(this.#folder) });

  /**
   * @param {Store} store
   * @param {(scan: Scan, explanation?: string) => void} show
   */
  constructor(store, show) {
    this.store = store;
    this.show = show;
    this.element.append(
      h(
        "div",
        { class: "buttons" },
        button(words.open.file, () => this.pick(), { icon: "open", text: true, key: "o" }),
        button(words.open.folder, () => this.#folder.click(), { icon: "folder", text: true }),
        button(words.open.phantom, () => this.phantom(), { icon: "phantom", text: true, key: "n" }),
        this.#file,
        this.#folder,
      ),
      h("h2", null, words.open.gallery),
      this.#gallery,
      h("h2", null, words.open.worklist),
      this.#none,
      this.#list,
    );
    store.on(["scan"], () => this.#draw());
  }

  pick() {
    this.#file.click();
  }

  /** Asks the service for examples and for what was opened before. */
  async load() {
    const [gallery, list] = await Promise.all([get("gallery"), get("worklist")]);
    this.entries = list.entries;
    this.examples = gallery.map((/** @type {any} */ example) => ({
      ...example,
      open: () => void this.#opening(() => post(`gallery/${example.name}`, {})),
    }));
    fill(
      this.#gallery,
      ...this.examples.map((example) =>
        h(
          "li",
          null,
          h("button", { type: "button", class: "tile", onclick: example.open }, h("span", { class: "title" }, example.title), h("span", { class: "hint" }, example.summary)),
        ),
      ),
    );
    this.#draw();
  }

  /** @param {() => Promise<any>} find */
  async #opening(find) {
    try {
      await this.open(await find());
    } catch (error) {
      complain(error);
    }
  }

  /** @param {HTMLInputElement} input */
  #picked(input) {
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length) void this.take(files);
    else complain(words.open.nothing);
  }

  /**
   * Opens every file that can be read, and says which could not.
   * @param {File[]} files
   */
  async take(files) {
    /** @type {[string, string][]} */
    const unread = [];
    const first = [];
    const many = files.filter((file) => !file.name.startsWith(".")).sort((a, b) => a.name.localeCompare(b.name));
    if (many.length > 1 && many.every((file) => /^[^.]*$|\.(dcm|dicom|ima)$/i.test(file.name))) {
      // The slices of one volume, if they fit together; films of their own, if not.
      try {
        say(words.open.opening(words.open.files(many.length)), true);
        await this.open(await uploadFolder(many, many[0].webkitRelativePath.split("/")[0]));
        return;
      } catch (error) {
        if (!(error instanceof ServiceError) || error.status !== 422) return complain(error);
      }
    }
    for (const file of many) {
      say(words.open.opening(file.name), true);
      try {
        const found = await upload(file, file.name);
        if (first.length) await this.#remember(found);
        else first.push(await this.open(found));
      } catch (error) {
        unread.push([file.name, error instanceof Error ? error.message : String(error)]);
      }
    }
    if (unread.length === 1 && many.length === 1) complain(unread[0][1]);
    else if (unread.length) {
      const names = unread.slice(0, 3).map(([name]) => name).join(", ") + (unread.length > 3 ? ", ..." : "");
      complain(words.open.unread(unread.length, names, unread[0][1]));
    }
    if (many.length > 1) say(words.open.several(many.length - unread.length, many.length), true);
  }

  /**
   * Shows a scan that the service has just opened.
   * @param {any} found what the service said of it
   */
  async open(found) {
    const entry = await this.#remember(found);
    this.show(scanOf(entry), entry.explanations.at(-1));
    say(words.open.opened(entry.title), true);
  }

  /**
   * Puts it on top of the list, with a picture.
   * @param {any} found
   * @returns {Promise<Entry>}
   */
  async #remember(found) {
    const known = this.entries.find((entry) => entry.scan === found.scan);
    const look = known?.look ?? {};
    if (!look.thumbnail) look.thumbnail = thumbnail(filmOf(await packed(`scans/${found.scan}/film`), found.title), THUMBNAIL);
    /** @type {Entry} */
    const entry = { explanations: [], ...known, ...found, look, opened: new Date().toISOString() };
    this.#put(entry);
    return entry;
  }

  /**
   * Remembers the last answer about a scan.
   * @param {string} scan
   * @param {string} explanation
   */
  answered(scan, explanation) {
    const known = this.entries.find((entry) => entry.scan === scan);
    if (known) known.explanations = [...known.explanations.filter((id) => id !== explanation), explanation];
  }

  /** @param {Entry} entry */
  #put(entry) {
    this.entries = [entry, ...this.entries.filter((other) => other.scan !== entry.scan)];
    this.#draw();
    put("worklist", { scan: entry.scan, look: entry.look }).catch(complain);
  }

  /** @param {Entry} entry */
  #forget(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.#draw();
    put("worklist", { scan: entry.scan, listed: false }).catch(complain);
  }

  /** @param {Entry} entry */
  async #reopen(entry) {
    try {
      await get(`scans/${entry.scan}`);
      this.show(scanOf(entry), entry.explanations.at(-1));
      this.#put({ ...entry, opened: new Date().toISOString() });
    } catch (error) {
      complain(error);
    }
  }

  #draw() {
    const now = this.store.state.scan?.scan;
    this.#none.hidden = this.entries.length > 0;
    fill(
      this.#list,
      ...this.entries.map((entry) =>
        h(
          "li",
          null,
          h(
            "button",
            { type: "button", class: "tile", "aria-current": entry.scan === now ? "true" : null, onclick: () => void this.#reopen(entry) },
            entry.look.thumbnail ? h("img", { src: entry.look.thumbnail, alt: "", width: 40, height: 40 }) : null,
            h("span", { class: "title" }, entry.title),
            h("span", { class: "when" }, when(entry.opened)),
          ),
          button(words.open.forget(entry.title), () => this.#forget(entry), { icon: "close", class: "quiet" }),
        ),
      ),
    );
  }

  /** Asks for a phantom's volume, side and seed. */
  phantom() {
    const volume = h("input", { type: "range", min: 0, max: 1000, step: 25, value: "300", oninput: () => fill(ml, words.phantom.ml(Number(volume.value))) });
    const ml = h("output", null, words.phantom.ml(300));
    const seed = h("input", { type: "range", min: 0, max: 999, step: 1, value: String(Math.floor(Math.random() * 1000)), oninput: () => fill(number, seed.value) });
    const number = h("output", null, seed.value);
    const sides = Object.entries(words.phantom.sides).map(([side, text]) =>
      h("label", null, h("input", { type: "radio", name: "side", value: side, checked: side === "right" }), text),
    );
    const make = button(words.phantom.make, () => void go(), { class: "primary" });
    const go = async () => {
      const side = sides.map((label) => /** @type {HTMLInputElement} */ (label.firstChild)).find((input) => input.checked)?.value ?? "right";
      make.disabled = true;
      say(words.phantom.making, true);
      try {
        const found = await post("phantoms", { volume: Number(volume.value), side, seed: Number(seed.value) });
        shown.close();
        await this.open(found);
      } catch (error) {
        make.disabled = false;
        complain(error);
      }
    };
    const shown = dialog(
      words.phantom.heading,
      [
        h("p", { class: "hint" }, words.phantom.lead),
        h("div", { class: "slide" }, field(words.phantom.volume, volume), ml),
        h("fieldset", { class: "sides" }, h("legend", null, words.phantom.side), ...sides),
        h("div", { class: "slide" }, field(words.phantom.seed, seed), number),
        make,
      ],
      words.close,
    );
  }
}

/** @param {any} found @returns {Scan} */
export function scanOf({ scan, title, width, height, notices, truth, slices }) {
  return { scan, title, width, height, notices, truth, slices };
}

/**
 * A moment in a few letters.
 * @param {string} iso
 */
export function when(iso) {
  const then = new Date(iso);
  const today = new Date().toDateString() === then.toDateString();
  return today
    ? then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : then.toLocaleDateString([], { day: "numeric", month: "short" });
}
