"""Makes the picture of the removals in the documentation: `python docs/scripts/fills.py`.

Two phantoms with fluid, what is hidden, what some removals put there, and the same patients without fluid.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from lucency.phantom import simulate
from lucency.removal import Blur, Constant, Healthy, Mirror, NoisyLinear, Removal, remove

IMAGES = Path(__file__).resolve().parent.parent / "images"
REMOVALS: dict[str, Removal] = {
    "hidden": Constant(),
    "blur": Blur(),
    "road": NoisyLinear(),
    "mirror": Mirror(),
    "healthy": Healthy(),
}


def main() -> None:
    figure, axes = plt.subplots(2, 2 + len(REMOVALS), figsize=(14, 4.3), layout="constrained")
    for i, (seed, side) in enumerate(((7_000_001, "right"), (7_000_004, "left"))):
        shown = simulate(seed, volume_ml=400, side=side, size=224)
        wet, dry = (torch.from_numpy(x)[None] for x in (shown.image, shown.twin))
        masks = 1 - F.max_pool2d(((wet - dry).abs() > 0.02).float(), 9, 1, 4)
        pictures = {"with fluid": wet}
        for name, removal in REMOVALS.items():
            fill = removal.bind(wet, torch.Generator().manual_seed(0))(masks)
            pictures[name] = remove(wet, masks, fill)[0].detach()
        pictures["the same patient without"] = dry
        for axis, (name, picture) in zip(axes[i], pictures.items(), strict=True):
            axis.imshow(picture[0].numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if i == 0:
                axis.set_title(name, fontsize=10)
    figure.savefig(IMAGES / "fills.png", dpi=90)


if __name__ == "__main__":
    main()
