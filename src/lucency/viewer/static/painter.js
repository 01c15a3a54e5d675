/**
 * The picture: a film in 16 bits and a map in floating point, put together by the graphics card.
 *
 * All viewers of a page share one WebGL2 context, since browsers allow about sixteen; each copies its picture out.
 *
 * @module painter
 */

import { fullAt, pyramid, shrunk, smoothed } from "./fields.js";
import { MASK_COLOUR, PALETTES } from "./palettes.js";

/** @typedef {import("./types.js").Film} Film */
/** @typedef {import("./types.js").Layer} Layer */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").View} View */

/**
 * What stands on the screen, in device pixels.
 *
 * @typedef {object} Scene
 * @property {number} width
 * @property {number} height
 * @property {[number, number]} centre row and column in the middle
 * @property {[number, number]} scale device pixels for each row and each column of the film
 * @property {number} line half the thickness of outlines
 */

const VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`;

// Choices are made when it is compiled, since a processor that stands in for a graphics card takes every branch. DRAWN:
// 0 the film alone, 1 with the map in colour, 2 with its outline, 3 only the outline of a mask. SMOOTHLY: interpolated.
// SMALL: a pixel of the screen covers several of the film. SAMPLES: how many points of the layer along each side.
const FRAGMENT = `
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D film;
uniform sampler2D layer;
uniform vec2 size;         // of the picture, device pixels
uniform vec2 filmSize;     // columns, rows
uniform vec2 centre;       // column, row
uniform vec2 scale;        // device pixels for each column and row
uniform int levels;
uniform int channels;
uniform vec2 grey;         // share of 65535 that is black; share that lies between black and white
uniform bool invert;
uniform vec4 place;        // column, row, width, height of the layer on the film
uniform float limit;
uniform float opacity;
uniform float threshold;
uniform bool both;
uniform float line;
uniform vec3 supports[5];
uniform vec3 against[5];
uniform vec3 maskColour;
out vec4 colour;

vec3 texel(ivec2 at, int level) {
  ivec2 last = textureSize(film, level) - 1;
  vec3 found = vec3(texelFetch(film, clamp(at, ivec2(0), last), level).rgb) / 65535.0;
  return channels == 1 ? found.rrr : found;
}

vec3 bilinear(vec2 at, int level) {
  vec2 p = at * vec2(textureSize(film, level)) / filmSize - 0.5;
  ivec2 i = ivec2(floor(p));
  vec2 f = p - vec2(i);
  return mix(mix(texel(i, level), texel(i + ivec2(1, 0), level), f.x),
             mix(texel(i + ivec2(0, 1), level), texel(i + ivec2(1, 1), level), f.x), f.y);
}

vec3 filmAt(vec2 at) {
#if SMALL
  float lod = clamp(log2(max(1.0 / scale.x, 1.0 / scale.y)), 0.0, float(levels - 1));
  int low = int(floor(lod));
  return mix(bilinear(at, low), bilinear(at, min(low + 1, levels - 1)), lod - float(low));
#elif SMOOTHLY
  return bilinear(at, 0);
#else
  return texel(ivec2(floor(at * vec2(textureSize(film, 0)) / filmSize)), 0);
#endif
}

float value(ivec2 at) {
  return texelFetch(layer, clamp(at, ivec2(0), textureSize(layer, 0) - 1), 0).r;
}

// Strength of the layer, -1..1, at a point of the film; 0 where the layer does not reach.
float single(vec2 at) {
  vec2 inside = (at - place.xy) / place.zw;
  if (any(lessThan(inside, vec2(0))) || any(greaterThanEqual(inside, vec2(1)))) return 0.0;
  vec2 p = inside * vec2(textureSize(layer, 0));
#if SMOOTHLY && DRAWN != 3
  p -= 0.5;
  ivec2 i = ivec2(floor(p));
  vec2 f = p - vec2(i);
  float found = mix(mix(value(i), value(i + ivec2(1, 0)), f.x), mix(value(i + ivec2(0, 1)), value(i + ivec2(1, 1)), f.x), f.y);
#else
  float found = value(ivec2(floor(p)));
#endif
  return clamp(found / limit, -1.0, 1.0);
}

// The mean over a pixel of the screen, where many of the layer lie in it.
float strength(vec2 at) {
#if SAMPLES == 1
  return single(at);
#else
  float sum = 0.0;
  for (int i = 0; i < SAMPLES * SAMPLES; i++) {
    sum += single(at + ((vec2(i % SAMPLES, i / SAMPLES) + 0.5) / float(SAMPLES) - 0.5) / scale);
  }
  return sum / float(SAMPLES * SAMPLES);
#endif
}

int side(vec2 at) {
  float t = strength(at);
#if DRAWN == 3
  return t > 0.0 ? 1 : 0;
#else
  return t >= threshold ? 1 : (both && t <= -threshold ? -1 : 0);
#endif
}

// On which side of zero a region begins within a line's thickness of a point that lies in none.
int outline(vec2 at) {
  if (side(at) != 0) return 0;
  for (int i = 0; i < 8; i++) {
    float turn = float(i) * 0.7853981633974483;
    int there = side(at + round(line * vec2(cos(turn), sin(turn))) / scale);
    if (there != 0) return there;
  }
  return 0;
}

vec3 hue(float t) {
  float along = min(abs(t), 1.0) * 4.0;
  int i = min(int(floor(along)), 3);
  float f = along - float(i);
  return t < 0.0 ? mix(against[i], against[i + 1], f) : mix(supports[i], supports[i + 1], f);
}

void main() {
  vec2 at = centre + (vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) - 0.5 * size) / scale;
#if DRAWN == 3
  if (outline(at) == 0) discard;
  colour = vec4(maskColour, 1.0);
#else
  if (any(lessThan(at, vec2(0))) || any(greaterThanEqual(at, filmSize))) {
    colour = vec4(0.0, 0.0, 0.0, 1.0);
    return;
  }
  vec3 shown = clamp((filmAt(at) - grey.x) / grey.y, 0.0, 1.0);
  if (invert) shown = 1.0 - shown;
#if DRAWN == 1
  float t = strength(at);
  float share = abs(t) < threshold || (t < 0.0 && !both) ? 0.0 : abs(t) * opacity;
  shown = mix(shown, hue(t), share);
#elif DRAWN == 2
  int there = outline(at);
  if (there != 0) shown = hue(float(there));
#endif
  colour = vec4(shown, 1.0);
#endif
}`;

/** @typedef {{texture: WebGLTexture, holders: Set<object>, levels: number}} Held */

/** @typedef {{program: WebGLProgram, place: (name: string) => WebGLUniformLocation | null}} Program */

/** @type {Painter | null | undefined} */
let shared;

/** The context that all viewers share; null where the browser has none. */
export function painter() {
  if (shared === undefined) {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, stencil: false });
    shared = gl ? new Painter(canvas, gl) : null;
  }
  return shared;
}

export class Painter {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {WebGL2RenderingContext} gl
   */
  constructor(canvas, gl) {
    this.canvas = canvas;
    this.gl = gl;
    /** @type {Map<object, Map<string, Held>>} textures by the numbers that they show, and how these were prepared */
    this.held = new Map();
    /** @type {Set<() => void>} */
    this.redraw = new Set();
    this.largest = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    /** @type {Map<string, Program>} */
    this.programs = new Map();
    this.#start();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.held.clear();
      this.programs.clear();
      this.#start();
      this.redraw.forEach((again) => again());
    });
  }

  #start() {
    this.gl.bindVertexArray(this.gl.createVertexArray());
    this.gl.pixelStorei(this.gl.UNPACK_ALIGNMENT, 1);
  }

  /**
   * @param {Record<string, number>} choices
   * @returns {Program}
   */
  #program(choices) {
    const { gl } = this;
    const defines = Object.entries(choices).map(([name, value]) => `#define ${name} ${value}\n`).join("");
    const known = this.programs.get(defines);
    if (known) return known;
    const program = /** @type {WebGLProgram} */ (gl.createProgram());
    for (const [kind, source] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, `#version 300 es\n${defines}${FRAGMENT}`],
    ])) {
      const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const said = (gl.getAttachedShaders(program) ?? []).map((s) => gl.getShaderInfoLog(s)).join("\n");
      throw new Error(`The viewer's shader does not compile: ${said}`);
    }
    /** @type {Map<string, WebGLUniformLocation | null>} */
    const places = new Map();
    const place = (/** @type {string} */ name) => {
      if (!places.has(name)) places.set(name, gl.getUniformLocation(program, name));
      return places.get(name) ?? null;
    };
    this.programs.set(defines, { program, place });
    return { program, place };
  }

  /**
   * Draws a scene and copies it onto a 2-D context.
   *
   * @param {CanvasRenderingContext2D} pen
   * @param {object} holder whose textures these are: those it no longer draws are let go
   * @param {Film} film
   * @param {Layer | null} layer in colour
   * @param {Layer[]} masks as outlines
   * @param {View} view
   * @param {Scene} scene
   */
  paint(pen, holder, film, layer, masks, view, scene) {
    const { gl, canvas } = this;
    const { width, height } = scene;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    const used = new Set();
    const hold = (/** @type {object} */ data, /** @type {string} */ how, /** @type {() => Held} */ make) => {
      const kinds = this.held.get(data) ?? new Map();
      this.held.set(data, kinds);
      const held = kinds.get(how) ?? make();
      kinds.set(how, held);
      held.holders.add(holder);
      used.add(held);
      return held;
    };
    gl.viewport(0, 0, width, height);
    gl.activeTexture(gl.TEXTURE0);
    const picture = hold(film.data, "film", () => this.#film(film));
    const { supports, against } = PALETTES[view.palette] ?? PALETTES.diverging;
    /** @param {Layer | null} one @param {number} drawn */
    const draw = (one, drawn) => {
      const box = one?.place ?? { row: 0, column: 0, width: film.width, height: film.height };
      const many = one ? Math.max(one.width / box.width / scene.scale[1], one.height / box.height / scene.scale[0]) : 1;
      const { program, place } = this.#program({
        DRAWN: drawn,
        SMOOTHLY: Number(view.smooth),
        SMALL: Number(Math.min(...scene.scale) < 1),
        SAMPLES: drawn === 3 ? 1 : Math.min(Math.max(Math.ceil(many - 0.01), 1), 4),
      });
      gl.useProgram(program);
      if (one) {
        const made = Boolean(view.smooth && one.cells) && drawn !== 3;
        gl.activeTexture(gl.TEXTURE1);
        gl.bindTexture(gl.TEXTURE_2D, hold(one.data, made ? "smooth" : "map", () => this.#map(one, made)).texture);
        gl.uniform4f(place("place"), box.column, box.row, box.width, box.height);
        gl.uniform1f(place("limit"), drawn === 3 ? 1 : limitOf(one));
      }
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, picture.texture);
      gl.uniform1i(place("film"), 0);
      gl.uniform1i(place("layer"), 1);
      gl.uniform2f(place("size"), width, height);
      gl.uniform2f(place("filmSize"), film.width, film.height);
      gl.uniform2f(place("centre"), view.centre[1], view.centre[0]);
      gl.uniform2f(place("scale"), scene.scale[1], scene.scale[0]);
      gl.uniform1i(place("levels"), picture.levels);
      gl.uniform1i(place("channels"), film.channels);
      const [low, high] = film.range;
      const black = view.window.level - view.window.width / 2;
      gl.uniform2f(place("grey"), (black - low) / (high - low), view.window.width / (high - low));
      gl.uniform1i(place("invert"), Number(view.invert));
      gl.uniform1f(place("line"), scene.line);
      gl.uniform1i(place("both"), Number(against !== null));
      gl.uniform3fv(place("supports"), supports.flat().map((c) => c / 255));
      gl.uniform3fv(place("against"), (against ?? supports).flat().map((c) => c / 255));
      gl.uniform3fv(place("maskColour"), MASK_COLOUR.map((c) => c / 255));
      gl.uniform1f(place("opacity"), view.opacity);
      gl.uniform1f(place("threshold"), shownFrom(view));
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    };
    if (layer && !view.flicker) draw(layer, view.contour ? 2 : 1);
    else draw(null, 0);
    masks.forEach((mask) => draw(mask, 3));
    pen.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
    this.#release(holder, used);
  }

  /**
   * Lets go of everything that a holder drew.
   *
   * @param {object} holder
   */
  forget(holder) {
    this.#release(holder, new Set());
  }

  /**
   * @param {object} holder
   * @param {Set<Held>} used
   */
  #release(holder, used) {
    for (const [data, kinds] of this.held) {
      for (const [how, held] of kinds) {
        if (used.has(held) || !held.holders.delete(holder) || held.holders.size) continue;
        this.gl.deleteTexture(held.texture);
        kinds.delete(how);
      }
      if (!kinds.size) this.held.delete(data);
    }
  }

  /**
   * @param {Film} film
   * @returns {Held}
   */
  #film({ data, width, height, channels }) {
    const { gl } = this;
    const texture = this.#texture(gl.NEAREST_MIPMAP_NEAREST);
    let top = { data, width, height };
    const reduce = Math.max(width, height) / this.largest;
    if (reduce > 1) {
      const [w, h] = [Math.floor(width / reduce), Math.floor(height / reduce)];
      top = { data: shrunk(top, w, h, channels), width: w, height: h };
    }
    const levels = pyramid(top.data, top.width, top.height, channels);
    const [kept, given] = channels === 1 ? [gl.R16UI, gl.RED_INTEGER] : [gl.RGB16UI, gl.RGB_INTEGER];
    levels.forEach((level, i) => {
      gl.texImage2D(gl.TEXTURE_2D, i, kept, level.width, level.height, 0, given, gl.UNSIGNED_SHORT, level.data);
    });
    return { texture, holders: new Set(), levels: levels.length };
  }

  /**
   * @param {Layer} layer
   * @param {boolean} made smooth between the middles of its cells
   * @returns {Held}
   */
  #map({ data, width, height, cells }, made) {
    const { gl } = this;
    const texture = this.#texture(gl.NEAREST);
    const plain = data instanceof Float32Array ? data : Float32Array.from(data);
    const numbers = made && cells ? smoothed(plain, width, height, cells) : plain;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, width, height, 0, gl.RED, gl.FLOAT, numbers);
    return { texture, holders: new Set(), levels: 1 };
  }

  /** @param {number} filter */
  #texture(filter) {
    const { gl } = this;
    const texture = /** @type {WebGLTexture} */ (gl.createTexture());
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }
}

/** An outline needs a threshold. */
const CONTOUR_AT = 0.5;

/**
 * The strength from which a map is drawn.
 *
 * @param {View} view
 */
export function shownFrom(view) {
  return view.threshold ?? (view.contour ? CONTOUR_AT : 0);
}

/** @type {WeakMap<object, number>} */
const limits = new WeakMap();

/**
 * The value at which a layer's colour is full.
 *
 * @param {Layer} layer
 */
export function limitOf(layer) {
  if (layer.limit) return layer.limit;
  const known = limits.get(layer.data) ?? fullAt(layer.data);
  limits.set(layer.data, known);
  return known;
}
