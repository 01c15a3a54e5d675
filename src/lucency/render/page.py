"""What the HTML pages share: pictures as data URIs, the template environment, plain words for parameters."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from lucency.records import Provenance
from lucency.render.output import written
from lucency.viewer import palette
from lucency.viewer.palette import Bytes, Floats, Scale
from lucency.viewer.views import View, resized

MOST_PIXELS = 1024
"""Longest side of a picture in a page."""
MEDIA = {".gif": "image/gif", ".webp": "image/webp", ".mp4": "video/mp4", ".png": "image/png"}


def size_of(view: View, most: int = MOST_PIXELS) -> tuple[int, int]:
    """Height and width in pixels at which a plane is shown: as fine as the scan, square millimetres, not above most."""
    scale = min(most, max(view.grey.shape)) / max(view.extent)
    return max(1, round(view.extent[0] * scale)), max(1, round(view.extent[1] * scale))


def scan_uri(view: View, size: tuple[int, int]) -> str:
    """The scan in grey, as a data URI."""
    grey: Bytes = np.rint(np.clip(resized(view.grey, *size), 0, 1) * 255).astype(np.uint8)
    return png_uri(grey)


def layer_uri(heatmap: Floats, scale: Scale, size: tuple[int, int]) -> str:
    """A map as a transparent layer, as a data URI."""
    return png_uri(palette.layer(scale.strength(resized(heatmap, *size))))


def png_uri(pixels: Bytes) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=pixels.size < 500_000)
    return uri(file.getvalue(), ".png")


def uri(data: bytes, suffix: str) -> str:
    return f"data:{MEDIA[suffix]};base64,{base64.b64encode(data).decode()}"


def save_page(template: str, path: str | Path, **what: Any) -> Path:
    """Fills a template and writes it; everything that comes from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lucency.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("background", "surface", "line", "text", "muted", "warning")
    themes = {
        "light": {name: palette.hexed(palette.LIGHT[name]) for name in names},
        "dark": {name: palette.hexed(getattr(palette, name.upper())) for name in names},
    }
    hues = {name: palette.hexed(getattr(palette, name.upper())) for name in ("supports", "against")}
    html = environment.get_template(template).render(
        themes=themes, hues=hues, opacity=round(palette.OPACITY * 100), percentile=palette.PERCENTILE, **what
    )
    with written(path, (".html", ".htm")) as part:
        # Names of files may hold bytes that are no text.
        part.write_text(html, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def spoken(value: Any) -> str:
    """A parameter, fact or setting in words: ``constant (value 0.0)``, ``16``, ``yes``."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        inner = value.get("parameters", {k: v for k, v in value.items() if k not in ("name", "repr")})
        said = ", ".join(f"{k} {spoken(v)}" for k, v in inner.items())
        name = str(value.get("name", value.get("repr", "")))
        return f"{name} ({said})" if name and said else name or said
    if isinstance(value, list | tuple):
        return ", ".join(spoken(v) for v in value) or "none"
    return str(value)


def how_made(provenance: Provenance) -> list[tuple[str, str]]:
    """Everything needed to repeat an explanation, as rows of a table."""
    scan, model, method, cost = provenance.scan, provenance.model, provenance.method, provenance.cost
    spent = f"{cost.evaluations:,} evaluations{f' ({provenance.spent_on})' if provenance.spent_on else ''}, "
    spent += f"{cost.gradients:,} gradients, "
    spent += f"{cost.seconds:.2f} s on {provenance.device}"
    spacing = "unknown" if scan.spacing is None else " × ".join(f"{s:.4g}" for s in scan.spacing) + " mm"
    return [
        ("Scan", f"{scan.source}, {' × '.join(map(str, scan.shape))} pixels, spacing {spacing}"),
        ("Scan SHA-256", scan.sha256),
        ("Model", f"{model.name}, input {' × '.join(map(str, model.grid))}"),
        ("Model fingerprint", model.fingerprint),
        ("Question", provenance.question.label),
        ("Method", f"{method.title}: {method.paper}"),
        *((f"  {k}", spoken(v)) for k, v in method.parameters.items()),
        ("Seed", str(provenance.seed)),
        ("Cost", spent),
        ("Time budget", "none" if provenance.budget is None else f"{provenance.budget:g} s"),
        ("Made", provenance.made),
        ("Versions", ", ".join(f"{k} {v}" for k, v in provenance.versions.items())),
    ]
