/**
 * Every word that the viewer shows or says, in one place, so that it can be translated.
 *
 * @module words
 */

export const WORDS = {
  viewer: "Film viewer",
  film: "Film",
  hint: "Press ? for the list of keys.",
  perturbed: "Film as perturbed now",
  reaction: "Reaction",
  done: "Share of the work done",
  noFilm: "No film is open.",
  noWebGL: "This browser has no WebGL2, which the viewer needs; switch on hardware acceleration or use a newer browser.",
  layer: "Map",
  toolbar: "Tools of the film",
  adjust: "Map, colours, opacity, threshold",
  noLayer: "No map",
  palette: "Colours",
  opacity: "Opacity",
  threshold: "Threshold",
  none: "off",
  supports: "supports",
  against: "against",
  keys: "Keys and gestures",
  close: "Close",
  row: "row",
  column: "column",
  millimetres: "mm",
  value: "value",
  map: "map",
  level: "level",
  width: "width",
  zoom: "zoom",
  mapHidden: "Film without its map",
  mapShown: "Film with its map",
  outlinesShown: "Outlines shown",
  outlinesHidden: "Outlines hidden",
  inverted: "Inverted",
  notInverted: "Not inverted",
  smooth: "Smooth",
  cells: "True pixels and cells",
  contour: "Contour at the threshold",
  colour: "Colour",
  reading: "The arrow keys move the cursor",
  panning: "The arrow keys move the film",
  whole: "Everything as it was at first",
  drawn: "Drawn",
  brush: "brush",
  pixels: "pixels",
  /** @type {Record<string, string>} */
  palettes: {
    diverging: "Orange and blue",
    sequential: "Inferno, support only",
    safe: "Yellow and indigo, also by lightness",
  },
  /** @type {Record<string, string>} */
  tools: {
    window: "Window: drag to change contrast and brightness",
    pan: "Move the film",
    rectangle: "Draw a rectangle",
    ellipse: "Draw an ellipse",
    brush: "Draw with a brush",
    pick: "Pick a region",
  },
  /** @type {Record<string, string>} */
  buttons: {
    invert: "Invert",
    reset: "Reset window and position",
    flicker: "Show or hide the map",
    contour: "Contour in place of colour",
    smooth: "Smooth, or true pixels and cells",
    help: "Keys and gestures",
  },
  /** @type {[string, string][]} */
  keyList: [
    ["Drag", "window: sideways its width, up and down its level"],
    ["Double click, R", "everything as it was at first"],
    ["Wheel, + −", "zoom, at the cursor"],
    ["Right or middle button, Space + drag", "move the film"],
    ["Arrow keys", "move the film; with a drawing tool, the cursor"],
    ["Shift + arrow keys", "window; with a drawing tool, the cursor in larger steps"],
    ["One finger", "window"],
    ["Two fingers", "zoom and move"],
    ["Space", "film with and without its map"],
    ["I", "invert"],
    ["F", "fit the film into the window"],
    ["L, Shift + L", "next or previous map"],
    ["O, Shift + O", "opacity down or up"],
    ["T, Shift + T", "threshold up or down"],
    ["C", "contour in place of colour"],
    ["P", "next colours"],
    ["S", "smooth, or true pixels and cells"],
    ["X", "cross at the maximum"],
    ["M", "outlines of masks"],
    ["K", "read values with the arrow keys"],
    ["1 to 6", "tools: window, move, rectangle, ellipse, brush, pick"],
    ["[ ]", "brush smaller or larger"],
    ["Enter, Esc", "with a drawing tool: set a corner, give up"],
    ["?", "this list"],
  ],
};

/**
 * A number with its sign and three digits, as on the project's pictures.
 *
 * @param {number} value
 */
export function signedNumber(value) {
  return (value > 0 || Object.is(value, 0) ? "+" : "") + plainNumber(value);
}

/**
 * A number with three digits.
 *
 * @param {number} value
 */
export function plainNumber(value) {
  return String(Number(value.toPrecision(3))).replaceAll("-", "−");
}

/**
 * A value of a film: as many decimals as 1/1000 of what its values span needs.
 *
 * @param {number} value
 * @param {[number, number]} range
 */
export function filmNumber(value, range) {
  const decimals = Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(range[1] - range[0]))));
  return value.toFixed(decimals).replaceAll("-", "−");
}
