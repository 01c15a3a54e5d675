/**
 * Colours of maps: five stops from zero to full on either side, mixed in between; opacity grows with the value.
 *
 * @module palettes
 */

/** @typedef {[number, number, number]} Colour red, green, blue, 0..255 */
/** @typedef {{supports: Colour[], against: Colour[] | null}} Palette without `against`, only support is drawn */

/** Of the outlines of masks. */
export const MASK_COLOUR = /** @type {Colour} */ ([128, 226, 140]);

/**
 * @param {Colour} colour
 * @returns {Colour[]}
 */
const plainStops = (colour) => [colour, colour, colour, colour, colour];

/** @type {Record<string, Palette>} */
export const PALETTES = {
  // The house's own: both hues have one lightness and one chroma in OKLab, and anatomy stays legible beneath them.
  diverging: { supports: plainStops([229, 103, 49]), against: plainStops([40, 150, 245]) },
  // Inferno (Smith & van der Walt 2015) without its black end, which would hide the film.
  sequential: {
    supports: [
      [101, 21, 110],
      [159, 42, 99],
      [212, 72, 66],
      [245, 125, 21],
      [250, 193, 39],
    ],
    against: null,
  },
  // The two differ in lightness as well as along blue and yellow, so that they need no colour vision.
  safe: { supports: plainStops([255, 221, 64]), against: plainStops([92, 72, 214]) },
};

/**
 * The colour at a strength −1..1.
 *
 * @param {Palette} palette
 * @param {number} strength
 * @returns {Colour}
 */
export function colourAt(palette, strength) {
  const stops = (strength < 0 && palette.against) || palette.supports;
  const along = Math.min(Math.abs(strength), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(along), stops.length - 2);
  return /** @type {Colour} */ (stops[i].map((c, k) => c + (stops[i + 1][k] - c) * (along - i)));
}
