"""How near phantoms come to real films, in numbers: grey values and radial power spectra.

    python benchmarks/phantom_realism.py --films ../shared/xrays/nih --out work/realism

Writes ``realism.json`` and ``realism.png``: histograms and spectra of all films together, which show none of them.
With ``--sheet`` it also draws phantoms beside films, for looking; such a sheet shows real films and must not be
published with the project.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lucency.phantom import simulate

SIZE = 256
BANDS = ((2, 8), (8, 24), (24, 60), (60, 110))
CHEST = (slice(None), slice(64, 160), slice(48, 208))
Array = NDArray[np.float64]


def films(folder: Path, count: int) -> Array:
    """A fixed random choice of films, ``[count, 256, 256]`` in 0..1."""
    paths = sorted(folder.glob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(paths), count, replace=False)
    read = [Image.open(paths[i]).convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS) for i in chosen]
    return np.stack([np.asarray(picture, float) / 255 for picture in read])


def phantoms(first: int, count: int) -> Array:
    """Phantoms, every third with 300 ml of fluid (about the share of films with effusion)."""
    volumes = (0, 0, 300)
    seeds = range(first, first + count)
    return np.stack([simulate(s, volume_ml=volumes[s % 3], side="both", size=SIZE).image for s in seeds]).astype(float)


def spectrum(pictures: Array) -> Array:
    """Radial power spectrum under a Hann window, geometric mean over pictures, ``[128]`` (cycles a picture)."""
    window = np.hanning(SIZE)[:, None] * np.hanning(SIZE)[None]
    centred = (pictures - pictures.mean((1, 2), keepdims=True)) * window
    power = np.abs(np.fft.fft2(centred)) ** 2
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None]) * SIZE
    ring = f.astype(int).ravel()
    rings = np.stack([np.bincount(ring, p.ravel())[:128] / np.bincount(ring)[:128] for p in power])
    return np.exp(np.log(rings).mean(0))


def slope(values: Array, low: int, high: int) -> float:
    """Exponent of the power law that fits the spectrum between two frequencies."""
    f = np.arange(low, high)
    return float(np.polyfit(np.log(f), np.log(values[low:high]), 1)[0])


def distance(a: Array, b: Array) -> float:
    """Wasserstein distance between the grey values of two sets (0..1 greys)."""
    q = np.linspace(0.001, 0.999, 999)
    return float(np.abs(np.quantile(a, q) - np.quantile(b, q)).mean())


def compare(real: Array, simulated: Array) -> dict[str, object]:
    """All numbers; half of the films against the other half says how small a distance can be."""
    r, s = spectrum(real), spectrum(simulated)
    deciles = np.linspace(0.1, 0.9, 9)
    return {
        "films": len(real),
        "phantoms": len(simulated),
        "grey_distance": {"whole": distance(real, simulated), "chest": distance(real[CHEST], simulated[CHEST])},
        "grey_distance_between_halves_of_the_films": {
            "whole": distance(real[::2], real[1::2]),
            "chest": distance(real[CHEST][::2], real[CHEST][1::2]),
        },
        "chest_deciles": {
            "films": np.quantile(real[CHEST], deciles).round(3).tolist(),
            "phantoms": np.quantile(simulated[CHEST], deciles).round(3).tolist(),
        },
        "spectrum": {
            f"{low}-{high} cycles": {
                "slope_films": slope(r, low, high),
                "slope_phantoms": slope(s, low, high),
                "power_phantoms_over_films": float(np.exp(np.log(s[low:high] / r[low:high]).mean())),
            }
            for low, high in BANDS
        },
    }


def plot(real: Array, simulated: Array) -> Figure:
    """Histograms of the grey values and power spectra, films against phantoms."""
    figure = Figure((10, 3.4), layout="constrained")
    whole, chest, spectra = figure.subplots(1, 3)
    for pictures, name, colour in ((real, "films", "0.35"), (simulated, "phantoms", "tab:orange")):
        for axes, part, title in ((whole, pictures, "whole picture"), (chest, pictures[CHEST], "chest")):
            axes.hist(part.ravel(), 50, (0, 1), density=True, histtype="step", color=colour, label=name)
            axes.set(title=f"Grey values, {title}", xlabel="display value (1 = white)", ylabel="density", yscale="log")
        spectra.loglog(np.arange(2, 110), spectrum(pictures)[2:110], color=colour, label=name)
    spectra.set(title="Power spectrum", xlabel="cycles a picture", ylabel="power")
    for axes in (whole, chest, spectra):
        axes.legend(frameon=False)
    return figure


def sheet(real: Array, simulated: Array) -> Image.Image:
    """Eight phantoms above eight films."""
    rows = [np.concatenate(list(part[i : i + 4]), 1) for part in (simulated, real) for i in (0, 4)]
    return Image.fromarray(np.round(np.concatenate(rows) * 255).astype(np.uint8))


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60, help="how many phantoms; five times as many films")
    parser.add_argument("--sheet", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    real, simulated = films(args.films, 5 * args.count), phantoms(500, args.count)
    numbers = compare(real, simulated)
    (args.out / "realism.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(json.dumps(numbers, indent=2))
    plot(real, simulated).savefig(args.out / "realism.png", dpi=110)
    if args.sheet:
        sheet(real, simulated).save(args.out / "sheet.png")


if __name__ == "__main__":
    main()
