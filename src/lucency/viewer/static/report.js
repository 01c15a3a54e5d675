/**
 * The page of one explanation: its pictures give way to viewers, where the browser can show them.
 *
 * @module report
 */

import { carried } from "./carried.js";
import { link } from "./linked.js";
import { LucencyViewer, opened } from "./viewer.js";

/**
 * Each element with `data-plane` becomes a viewer that shows the layer named by its `data-layer`.
 *
 * @param {Document} page
 */
export async function comeAlive(page) {
  const data = page.getElementById("packed")?.textContent;
  if (!data || !LucencyViewer.supported || !("DecompressionStream" in window)) return;
  const planes = opened(await carried(data));
  const places = /** @type {HTMLElement[]} */ ([...page.querySelectorAll("[data-plane]")]);
  const viewers = places.map((place) => {
    const { film, layers } = planes[Number(place.dataset.plane)];
    const viewer = new LucencyViewer();
    viewer.setAttribute("aria-label", place.dataset.label ?? film.title);
    viewer.toggleAttribute("bare", places.length > 3);
    viewer.film = film;
    viewer.layers = layers;
    viewer.shown = place.dataset.layer || null;
    // What described the picture describes nothing that is left; the viewer has its own words.
    place.removeAttribute("role");
    place.removeAttribute("aria-label");
    place.append(viewer);
    return viewer;
  });
  const ids = new Set(places.map((place) => place.dataset.layer));
  planes.forEach((_, i) => link(viewers.filter((_, j) => Number(places[j].dataset.plane) === i)));
  link(viewers, { place: false, layer: ids.size === 1 });
  page.documentElement.classList.add("alive");
  page.dispatchEvent(new CustomEvent("alive", { detail: viewers }));
}

void comeAlive(document);
