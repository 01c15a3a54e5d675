"""What the rays do: attenuation, scatter, noise and the tone of digital radiography.

Mass attenuation coefficients: Hubbell & Seltzer, NISTIR 5632 (NIST Standard Reference Database 126), tables 3 and 4,
with the tissues and densities of ICRU Report 44. The beam of 110-125 kVp behind a patient is taken as four lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

ENERGIES_KEV = (50.0, 60.0, 80.0, 100.0)
FLUENCE = np.array([0.22, 0.30, 0.31, 0.17])
MASS_ATTENUATION = {  # cm2/g at those energies, g/cm3
    "soft": ((0.2262, 0.2048, 0.1823, 0.1693), 1.06),
    "fat": ((0.2123, 0.1974, 0.1800, 0.1688), 0.95),
    "lung": ((0.2270, 0.2053, 0.1826, 0.1695), 0.21),
    "bone": ((0.4242, 0.3148, 0.2229, 0.1855), 1.92),
    "fluid": ((0.2269, 0.2059, 0.1837, 0.1707), 1.015),
    "metal": ((1.213, 0.7661, 0.4052, 0.2721), 4.54),
}
ATTENUATION = {name: np.array(values) * density / 10 for name, (values, density) in MASS_ATTENUATION.items()}
"""Linear attenuation in 1/mm at :data:`ENERGIES_KEV`; "metal" is titanium, "fluid" water at the density of
effusion, and "lung" is 0.21 g/cm3 rather than 0.26, because the vessels that one can see are drawn one by one."""


def transmission(paths: dict[str, Array]) -> Array:
    """Detected share of the beam (Beer-Lambert, energies weighted by what they deposit) behind paths in mm."""
    weights = FLUENCE * ENERGIES_KEV
    weights = weights / weights.sum()
    shape = next(iter(paths.values())).shape
    total = np.zeros(shape, np.float32)
    for i, weight in enumerate(weights):
        depth = np.zeros(shape, np.float32)
        for name, path in paths.items():
            depth += np.float32(ATTENUATION[name][i]) * path.astype(np.float32)
        total += np.float32(weight) * np.exp(-depth)
    return total.astype(np.float64)


def broad(image: Array, sigma: float) -> Array:
    """Gaussian blur of large ``sigma`` (pixels), computed on a reduced picture; edges repeat."""
    factor = max(1, int(sigma / 4))
    if factor == 1:
        return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest"))
    n, m = image.shape
    padded = np.pad(image, ((0, -n % factor), (0, -m % factor)), mode="edge")
    small = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor).mean((1, 3))
    small = ndimage.gaussian_filter(small, sigma / factor, mode="nearest")
    rows = (np.arange(n) + 0.5) / factor - 0.5
    columns = (np.arange(m) + 0.5) / factor - 0.5
    full = ndimage.map_coordinates(small, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    return np.asarray(full)


def scatter(primary: Array, ratio: float, spacing: float) -> Array:
    """Scattered light: a broad veil (35 and 90 mm) that carries ``ratio`` times the primary behind the patient."""
    behind = np.minimum(primary, 0.25)
    return ratio * (0.5 * broad(behind, 35 / spacing) + 0.5 * broad(behind, 90 / spacing))


def grain(rng: np.random.Generator, size: int) -> Array:
    """Unit noise with the short correlation of a scintillator, ``[size, size]``."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), 0.55, mode="wrap")
    return np.asarray(noise / 0.44)


def texture(rng: np.random.Generator, size: int, slope: float, cut: float) -> Array:
    """Random field of unit variance whose amplitude falls as ``frequency ** -slope`` above ``cut`` cycles a picture."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    field = np.fft.irfft2(spectrum * (f + cut) ** -slope * (f > 0), s=(size, size))
    return np.asarray(field / field.std())
