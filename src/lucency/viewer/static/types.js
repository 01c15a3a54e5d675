/**
 * What the viewer is given and what it tells.
 *
 * @module types
 */

/**
 * A film, or one slice of a volume.
 *
 * @typedef {object} Film
 * @property {number} width pixels
 * @property {number} height pixels
 * @property {1 | 3} channels three are red, green and blue, interleaved
 * @property {Uint16Array} data row after row, display value * 65535
 * @property {[number, number] | null} spacing millimetres between rows and between columns
 * @property {[number, number]} range what 0 and 65535 mean in the file's values
 * @property {[number, number]} [shown] the values that are black and white at first; `range` when missing
 * @property {string} title
 */

/**
 * Where a layer lies, in pixels of the film; may lie partly outside.
 *
 * @typedef {{row: number, column: number, height: number, width: number}} Place
 */

/**
 * A map over the film.
 *
 * @typedef {object} Layer
 * @property {string} id
 * @property {string} title
 * @property {"map" | "error" | "ood" | "mask"} kind a signed map, its standard error, how far out of distribution the
 *   perturbed scans are, or a mask (0 or not) that is drawn as an outline
 * @property {number} width
 * @property {number} height
 * @property {Float32Array | Uint8Array} data row after row
 * @property {Place | null} [place] null: the whole film
 * @property {string} [unit]
 * @property {{rows: number[], columns: number[]} | null} [cells] where the map is made of patches: the borders, in
 *   pixels of the layer, between which it is flat; drawn smoothly, it is interpolated between the middles
 * @property {boolean} [signed] of a map: whether values below zero speak against; as the data say when missing
 * @property {number | null} [limit] the value at which the colour is full; the 99.9th percentile when missing
 * @property {[number, number] | null} [peak] row and column of the layer's maximum, which gets a cross
 */

/**
 * What one sees of the film; linked viewers copy it.
 *
 * @typedef {object} View
 * @property {{level: number, width: number}} window in the file's values
 * @property {boolean} invert
 * @property {number} zoom 1: the film fits; 2: twice as large
 * @property {[number, number]} centre row and column of the film in the middle of the viewer, continuous: pixel i
 *   reaches from i to i + 1
 * @property {number} opacity 0..1
 * @property {string} palette "diverging", "sequential", or "safe" for every colour blindness
 * @property {number | null} threshold share 0..1 of the colour's full value; weaker parts of the map are not drawn
 * @property {boolean} contour only the outline at the threshold
 * @property {boolean} smooth interpolated, or true cells
 * @property {boolean} flicker the map is hidden: the film alone
 */

/** @typedef {"window" | "pan" | "rectangle" | "ellipse" | "brush" | "pick"} Tool */

/**
 * What lies under the cursor, whole numbers of film pixels.
 *
 * @typedef {object} Cursor
 * @property {number} row
 * @property {number} column
 * @property {[number, number] | null} mm from the film's upper left corner, down and across, to the pixel's middle
 * @property {number | number[]} value in the file's values
 * @property {number | null} mapValue of the shown layer
 */

/**
 * Numbered regions, such as superpixels.
 *
 * @typedef {object} Regions
 * @property {number} width
 * @property {number} height
 * @property {Uint16Array} data the number of the region of each pixel, row after row
 * @property {Place | null} [place]
 */

/**
 * What was drawn, in film pixels: `rows` and `columns` are [first, last + 1]; a mask holds 0 or 1, row after row; the
 * label is that of the region, where the viewer has regions.
 *
 * @typedef {{kind: "rectangle" | "ellipse", rows: [number, number], columns: [number, number]}
 *   | {kind: "brush", mask: Uint8Array, width: number, height: number}
 *   | {kind: "pick", row: number, column: number, label: number | null}} Shape
 */

export {};
