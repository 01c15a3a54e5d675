"""An explanation as the viewer reads it: its films, its maps, and everything that a page says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.explanation import Explanation
from lucency.viewer.maps import Shown, every_map
from lucency.viewer.packing import pack
from lucency.viewer.palette import Floats, Scale
from lucency.viewer.smooth import Edges, edges_on_scan
from lucency.viewer.views import View, views

WHITE = 65535


@dataclass(frozen=True)
class Over:
    """A map of an explanation as a layer; its id names it among all layers of a film."""

    id: str
    explanation: Explanation
    shown: Shown


def packed(explanation: Explanation) -> bytes:
    """The bytes that ``<lucency-viewer>`` shows, see :mod:`lucency.viewer.packing`; ``opened`` in viewer.js reads them.

    The header holds what the explanation says of itself, and ``planes``: for the scan, or for each of three slices of
    a volume through the maximum of the map, its ``film`` and the ``layers`` over it, which name their arrays.
    """
    planes, arrays = layered(explanation, layers_of(explanation))
    header = {
        "target": explanation.target,
        "answer": explanation.answer,
        "probabilities": explanation.probabilities,
        "facts": explanation.facts,
        "notices": list(explanation.notices),
        "complete": explanation.complete,
        "peak": explanation.peak,
        "verdict": {} if explanation.verdict is None else explanation.verdict.as_dict(),
        "provenance": explanation.provenance.as_dict(),
        "planes": planes,
    }
    return pack(header, arrays)


def layers_of(explanation: Explanation) -> list[Over]:
    """Every map of an explanation as a layer; the first is that which is shown first."""
    return [Over(one.name or "map", explanation, one) for one in every_map(explanation)]


def layered(explanation: Explanation, layers: Sequence[Over]) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """The planes of the scan of an explanation with these layers over each, all of this scan; and their arrays."""
    through = explanation.peak
    arrays: dict[str, NDArray[Any]] = {}
    planes: list[dict[str, Any]] = []
    for number, plane in enumerate(views(explanation, through=through)):
        film, arrays[f"film-{number}"] = packed_film(_pixels(explanation, plane))
        scan = explanation.provenance.scan
        black, white = scan.value_range
        film |= {key: [black + v * (white - black) for v in film[key]] for key in ("range", "shown")}
        title = plane.name or scan.source
        film |= {"spacing": plane.spacing, "title": title, "array": f"film-{number}"}
        planes.append({"name": plane.name, "film": film, "layers": []})
    for i, over in enumerate(layers):
        cells = edges_on_scan(over.explanation)
        for number, plane in enumerate(views(over.explanation, over.shown.heatmap, through=through)):
            arrays[f"map-{i}-{number}"] = plane.heatmap
            planes[number]["layers"].append({**_layer(over, plane, cells), "array": f"map-{i}-{number}"})
    return planes, arrays


def packed_film(pixels: Floats) -> tuple[dict[str, Any], NDArray[np.uint16]]:
    """What the viewer knows of a film, and its pixels.

    Args:
        pixels: float32 ``[C, rows, columns]``, display values: 0 is shown as black and 1 as white, others lie outside.

    Returns:
        ``width``, ``height``, ``channels`` (3, or 1 of the mean of all), ``range`` (the display values that 0 and 65535
        stand for), ``shown`` (those that are black and white at first), and uint16 ``[rows, columns]`` or
        ``[rows, columns, 3]``.
    """
    plain = np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels.mean(0)
    low, high = min(0.0, float(plain.min())), max(1.0, float(plain.max()))
    counted = np.rint((plain - low) * (WHITE / (high - low))).astype(np.uint16)
    rows, columns = plain.shape[:2]
    about = {"width": columns, "height": rows, "channels": 3 if plain.ndim == 3 else 1}
    return {**about, "range": [low, high], "shown": [0.0, 1.0]}, counted


def _pixels(explanation: Explanation, plane: View) -> Floats:
    pixels: Floats = explanation.pixels[(slice(None), *plane.cut)]
    return pixels


def _layer(over: Over, plane: View, cells: Sequence[Edges] | None) -> dict[str, Any]:
    rows, columns = plane.heatmap.shape
    one = over.shown
    name = one.name[:1].upper() + one.name[1:]
    return {
        "id": over.id,
        "title": name or over.explanation.provenance.method.title,
        "kind": one.kind,
        "width": columns,
        "height": rows,
        "place": None,
        "unit": one.unit,
        "signed": one.signed,
        # Of a volume, all slices share the scale of the whole.
        "limit": Scale.of(one.heatmap).limit,
        "peak": plane.peak,
        "cells": None
        if cells is None
        else {"rows": cells[plane.axes[0]].tolist(), "columns": cells[plane.axes[1]].tolist()},
    }
