"""The lung fields of a frontal film: what shows as lung, and where it would show if fluid did not hide it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage
from skimage.measure import regionprops
from torch import Tensor
from torch.nn import functional as F

from lucency.asking import one_at_a_time
from lucency.lungs.network import SIZE, LungNet
from lucency.lungs.upright import orientation
from lucency.scan import Scan

Mask = NDArray[np.bool_]

AREA = (0.025, 0.33)
"""Of one lung, as a share of the film: below it is a speck, above it no film of a chest."""
UNEQUAL = 3.5
"""How many times larger than the other one lung may be."""
SOLID = 0.72
"""Share of its convex hull that a lung fills at least (the heart cuts into the left one)."""
THREAD = 2.0
"""Half the width, in pixels of the network, below which a piece of lung is none."""
SURE = 0.85
"""Mean probability inside the masks below which they are a guess."""


@dataclass(frozen=True, eq=False)
class LungFields:
    """Right and left lung field of one film; "right" is the patient's, which is on the left of the picture.

    Attributes:
        right, left: bool ``[H, W]`` on the film's grid; rays that pass mostly lung, fluid counted as lung.
    """

    right: Mask
    left: Mask

    @property
    def both(self) -> Mask:
        """Bool ``[H, W]``."""
        return self.right | self.left


def lung_fields(scan: Scan) -> LungFields | None:
    """The lung fields, or ``None``: for what is no upright frontal chest film, or where no plausible pair is found.

    A small network trained on simulated films answers, on the film's tone taken out by equalisation. Under fluid it
    has learnt to answer where the lung would be. A second one tells first whether the film lies upright
    (:func:`lucency.lungs.upright.orientation`), since right and left would have each other's names on any other.
    """
    if len(scan.shape) != 2 or not orientation(scan).upright:
        return None
    probabilities = lung_probabilities(scan)
    found = [_largest(p) for p in probabilities]
    if not plausible(
        found, [float(p[m].mean()) if m.any() else 0.0 for p, m in zip(probabilities, found, strict=True)]
    ):
        return None
    return LungFields(*found)


def lung_probabilities(scan: Scan) -> NDArray[np.float32]:
    """Float32 ``[2, H, W]``: how probably each pixel belongs to the right and to the left lung field."""
    film = scan.display.mean(0, keepdim=True)
    rows, columns = film.shape[1:]
    side = max(rows, columns)
    # Black beside a film that is not square: the lungs keep their shape.
    before = ((side - rows) // 2, (side - columns) // 2)
    pads = [before[1], side - columns - before[1], before[0], side - rows - before[0]]
    square = F.pad(film[None], pads, value=float(film.min()))
    small = F.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)
    with one_at_a_time(), torch.inference_mode():
        p = _network()(equalised(small)).sigmoid()
        p = F.interpolate(p, (side, side), mode="bilinear")
    shown: NDArray[np.float32] = p[0, :, before[0] : before[0] + rows, before[1] : before[1] + columns].numpy()
    return shown


def equalised(x: Tensor) -> Tensor:
    """Each film ``[B, 1, H, W]`` with every pixel's rank among the film's pixels, 0..1."""
    flat = x.flatten(1)
    ranks = flat.argsort(1).argsort(1).to(x) / (flat.shape[1] - 1)
    return ranks.view_as(x)


def plausible(lungs: list[Mask], sure: list[float]) -> bool:
    """Whether right and left mask ``[H, W]``, with the mean probability inside each, can be the lungs of one film."""
    areas = [float(m.mean()) for m in lungs]
    if not all(AREA[0] <= a <= AREA[1] for a in areas) or max(areas) > UNEQUAL * min(areas) or min(sure) < SURE:
        return False
    right, left = (regionprops(m.astype(np.uint8))[0] for m in lungs)  # type: ignore[no-untyped-call]
    (top_r, _, bottom_r, _), (top_l, _, bottom_l, _) = right.bbox, left.bbox
    beside = min(bottom_r, bottom_l) - max(top_r, top_l) > 0.5 * min(bottom_r - top_r, bottom_l - top_l)
    apart = left.centroid[1] - right.centroid[1] > 0.5 * (right.axis_minor_length + left.axis_minor_length) / 2
    upright = all(lung.bbox[2] - lung.bbox[0] > 0.9 * (lung.bbox[3] - lung.bbox[1]) for lung in (right, left))
    return bool(beside and apart and upright and min(right.solidity, left.solidity) > SOLID)


def _largest(p: NDArray[np.float32]) -> Mask:
    """The largest connected piece at a probability of one half, without holes and without threads to other pieces."""
    fine = max(p.shape) / SIZE
    thick = ndimage.distance_transform_edt(ndimage.gaussian_filter(p, 0.8 * fine) > 0.5) > THREAD * fine
    if not thick.any():
        return np.zeros(p.shape, bool)
    opened = ndimage.distance_transform_edt(~thick) <= THREAD * fine
    labels, _ = ndimage.label(opened)
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax())), bool)


@cache
def _network() -> LungNet:
    net = LungNet()
    with as_file(files("lucency.lungs") / "lungs.safetensors") as path:
        state = load_file(path)
    net.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return net.eval()
