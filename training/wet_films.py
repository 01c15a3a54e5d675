"""A bank of simulated fluid on real dry films, drawn once: each draw costs half a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from films import Films
from lucency import Scan
from lucency.errors import ParameterError
from lucency.lungs import lung_fields
from lucency.phantom.on_film import add_fluid

FLUID_MM = 5.0
"""A ray is on fluid from so many millimetres of it, or from half of what the thickest place of the film has."""
CHUNK = 50


@dataclass(frozen=True)
class WetFilms:
    """Films with simulated fluid, all from ``Films``.

    ``rows`` int ``[M]`` says which film each was; ``pixels`` uint8 ``[M, S, S]``; ``fluid`` bool ``[M, S, S]`` where
    the fluid lies.
    """

    rows: NDArray[np.int_]
    pixels: NDArray[np.uint8]
    fluid: NDArray[np.bool_]


def wet_films(films: Films, rows: NDArray[np.int_], cache: Path, seed: int, wide: bool) -> WetFilms:
    """One draw for each of ``rows``, kept in ``cache`` as far as they are made; films without lungs are left out.

    Args:
        wide: for training: 60 to 1,500 ml, on one side or both, with a meniscus of any shape. Else as in the trust
            table: 100 to 1,000 ml on one side.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(rows), CHUNK):
        kept = cache / f"{start:05d}.npz"
        if not kept.exists():
            drawn = [
                (row, _wet(films.pixels[row], np.random.default_rng([seed, i]), wide))
                for i, row in enumerate(rows[start : start + CHUNK], start)
            ]
            made = [(row, *wet) for row, wet in drawn if wet is not None]
            side = films.pixels.shape[1]
            half = kept.with_suffix(".part.npz")
            np.savez(
                half,
                rows=np.array([row for row, _, _ in made], np.int64),
                pixels=np.array([pixels for _, pixels, _ in made], np.uint8).reshape(-1, side, side),
                fluid=np.array([fluid for _, _, fluid in made], bool).reshape(-1, side, side),
            )
            half.rename(kept)
        with np.load(kept) as found:
            parts.append((found["rows"], found["pixels"], found["fluid"]))
    return WetFilms(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _wet(
    pixels: NDArray[np.uint8], rng: np.random.Generator, wide: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    film = pixels.astype(np.float32) / 255
    lungs = lung_fields(Scan(torch.from_numpy(film)[None]))
    if lungs is None:
        return None
    low, high = (60, 1500) if wide else (100, 1000)
    volume = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    side = str(rng.choice(["left", "right", "both"], p=[0.4, 0.4, 0.2] if wide else [0.5, 0.5, 0]))
    meniscus = {"rise_mm": rng.uniform(50, 110), "length_mm": rng.uniform(8, 18)} if wide else {}
    try:
        wet = add_fluid(film, lungs, volume, side, **meniscus)
    except ParameterError:
        return None
    fluid = wet.truth_mm >= min(FLUID_MM, float(wet.truth_mm.max()) / 2)
    return np.round(wet.image * 255).astype(np.uint8), fluid
