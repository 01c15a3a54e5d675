/**
 * Curves and scatters on a canvas, in the colours of the page around them.
 *
 * @module chart
 */

/** @typedef {{name: string, points: [number, number][], band?: [number, number][]}} Series */

const HUES = ["--curve-1", "--curve-2", "--curve-3", "--curve-4", "--curve-5", "--curve-6"];
/**
 * What stands in where a page has no colours of its own; both are read on light and on dark.
 * @type {Record<string, string>}
 */
const PLAIN = { "--line": "#80808059", "--film": "#00000000", "--curve-1": "#2f8fe0", "--curve-2": "#e0702f" };
const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3], [1, 2], [10, 4]];

/**
 * @param {number} low
 * @param {number} high
 * @returns {number[]} round values between the two
 */
function ticksBetween(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return found;
}

/** @param {number} value @param {number} [step] to the next value */
function short(value, step) {
  const digits = step ? Math.max(0, Math.min(8, -Math.floor(Math.log10(step)))) : 0;
  return step ? value.toFixed(digits) : String(Number(value.toPrecision(3)));
}

/** @param {readonly number[]} values */
function endsOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(high > low)) return /** @type {[number, number]} */ (high === low ? [low - 0.5, high + 0.5] : [0, 1]);
  return /** @type {[number, number]} */ ([low, high]);
}

export class Chart {
  /** @type {HTMLCanvasElement} */
  canvas = document.createElement("canvas");
  /** @type {Series[]} */
  #series = [];
  /** @type {{axes: [string, string], scatter: boolean, at: [number, number] | null, level: number | null}} */
  #how = { axes: ["", ""], scatter: false, at: null, level: null };
  #drawing = false;

  constructor() {
    this.canvas.className = "chart";
    this.canvas.setAttribute("role", "img");
    new ResizeObserver(() => this.#later()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.#later());
    new MutationObserver(() => this.#later()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  /**
   * @param {Series[]} series
   * @param {{axes: [string, string], scatter?: boolean, at?: [number, number] | null, level?: number | null,
   *   label: string}} how `at`: the point of this moment; `level`: the score of the clean scan; `label`: what a screen
   *   reader says
   */
  draw(series, { axes, scatter = false, at = null, level = null, label }) {
    this.#series = series;
    this.#how = { axes, scatter, at, level };
    this.canvas.setAttribute("aria-label", label);
    this.#later();
  }

  #later() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#paint();
    });
  }

  #paint() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const style = getComputedStyle(canvas);
    /** @param {string} name */
    const colour = (name) => style.getPropertyValue(name).trim() || PLAIN[name] || style.color;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${style.fontFamily}`;

    const { axes, scatter, at, level } = this.#how;
    const all = this.#series.flatMap((one) => [...one.points, ...(one.band ?? []).flatMap(([l, u], i) =>
      /** @type {[number, number][]} */ ([[one.points[i]?.[0] ?? 0, l], [one.points[i]?.[0] ?? 0, u]]))]);
    const [left, right] = endsOf(all.map((p) => p[0]));
    let [low, high] = endsOf([...all.map((p) => p[1]), ...(level === null ? [] : [level])]);
    const room = (high - low) * 0.06;
    low -= room;
    high += room;
    const marks = ticksBetween(low, high);
    const apart = marks.length > 1 ? marks[1] - marks[0] : undefined;
    const below = ticksBetween(left, right);
    const beside = below.length > 1 ? below[1] - below[0] : undefined;
    const box = { left: 12 + Math.max(...marks.map((m) => pen.measureText(short(m, apart)).width), 8), top: axes[1] ? 24 : 8,
      right: width - 10, bottom: height - (axes[0] ? 36 : 20) };
    /** @param {number} x */
    const across = (x) => box.left + ((x - left) / (right - left)) * (box.right - box.left);
    /** @param {number} y */
    const down = (y) => box.bottom - ((y - low) / (high - low)) * (box.bottom - box.top);

    pen.lineWidth = 1;
    pen.strokeStyle = colour("--line");
    pen.fillStyle = colour("--muted");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const mark of marks) {
      const y = Math.round(down(mark)) + 0.5;
      pen.beginPath();
      pen.moveTo(box.left, y);
      pen.lineTo(box.right, y);
      pen.stroke();
      pen.fillText(short(mark, apart), box.left - 6, y);
    }
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const mark of below) {
      const x = across(mark);
      if (x < box.left - 1 || x > box.right + 1) continue;
      const half = pen.measureText(short(mark, beside)).width / 2;
      pen.fillText(short(mark, beside), Math.min(x, width - half - 1), box.bottom + 5);
    }
    if (axes[0]) pen.fillText(axes[0], (box.left + box.right) / 2, height - 15);
    pen.textAlign = "left";
    if (axes[1]) pen.fillText(axes[1], box.left, 5);
    if (!all.length) return;

    if (level !== null) {
      pen.setLineDash([4, 4]);
      pen.strokeStyle = colour("--muted");
      pen.beginPath();
      pen.moveTo(box.left, down(level));
      pen.lineTo(box.right, down(level));
      pen.stroke();
      pen.setLineDash([]);
    }
    this.#series.forEach((one, i) => {
      const hue = colour(HUES[i % HUES.length]);
      if (one.band?.length) {
        pen.globalAlpha = 0.15;
        pen.fillStyle = hue;
        pen.beginPath();
        one.band.forEach(([, upper], j) => pen.lineTo(across(one.points[j][0]), down(upper)));
        for (let j = one.band.length - 1; j >= 0; j--) pen.lineTo(across(one.points[j][0]), down(one.band[j][0]));
        pen.fill();
        pen.globalAlpha = 1;
      }
      if (scatter) {
        pen.fillStyle = hue;
        pen.globalAlpha = one.points.length > 300 ? 0.45 : 0.75;
        for (const [x, y] of one.points) {
          pen.beginPath();
          pen.arc(across(x), down(y), 2.2, 0, 7);
          pen.fill();
        }
        pen.globalAlpha = 1;
        return;
      }
      pen.strokeStyle = hue;
      pen.lineWidth = 1.8;
      pen.lineJoin = "round";
      pen.setLineDash(this.#series.length > 1 ? DASHES[i % DASHES.length] : []);
      pen.beginPath();
      for (const [x, y] of one.points) pen.lineTo(across(x), down(y));
      pen.stroke();
      pen.setLineDash([]);
    });
    if (at) {
      pen.fillStyle = colour("--text");
      pen.strokeStyle = colour("--surface");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(across(at[0]), down(at[1]), 4.5, 0, 7);
      pen.fill();
      pen.stroke();
    }
  }
}

/**
 * What a screen reader says of points: their ends.
 * @param {[number, number][]} points
 * @param {[string, string]} axes
 * @param {(y: string, from: string, to: string, x: string, left: string, right: string) => string} say
 */
export function spoken(points, axes, say) {
  const [left, right] = endsOf(points.map((p) => p[0]));
  const [low, high] = endsOf(points.map((p) => p[1]));
  return say(axes[1], short(low), short(high), axes[0], short(left), short(right));
}

/**
 * The key to several curves: names with their strokes.
 * @param {string[]} names
 */
export function keyTo(names) {
  const list = document.createElement("ul");
  list.className = "key";
  names.forEach((name, i) => {
    const entry = document.createElement("li");
    entry.className = `curve-${(i % HUES.length) + 1}`;
    entry.textContent = name;
    list.append(entry);
  });
  return list;
}
