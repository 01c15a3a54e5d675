"""``lucency phantom``: a simulated radiograph whose effusion is known exactly."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import AsJson, Seed

EXAMPLES = """[bold]Examples:[/bold]

  lucency phantom --seed 7 --volume 300 --side right --out out/phantom

  lucency explain out/phantom/scan.png --model lucency:phantom --target effusion --out out/phantom
"""


class Side(StrEnum):
    left = "left"
    right = "right"
    both = "both"


def phantom(
    folder: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to.")],
    seed: Seed = 0,
    volume: Annotated[float, typer.Option(metavar="ML", help="Pleural fluid in ml on each affected side.")] = 300.0,
    side: Annotated[Side, typer.Option(help="The patient's side that the fluid is on.")] = Side.right,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Pixels along each side of the picture.")] = 512,
    nodules: Annotated[
        int | None, typer.Option(metavar="N", help="How many nodules; the seed decides if left out.")
    ] = None,
    cardiomegaly: Annotated[
        bool | None,
        typer.Option("--cardiomegaly/--no-cardiomegaly", help="Too large a heart; the seed decides if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a frontal chest radiograph with a known effusion, and the same patient without it.

    DIR gets scan.png (16 bit), scan.npy, truth.npy (length of each ray in fluid, mm), twin.npy (the same patient
    without the fluid) and phantom.json (every parameter), all on one grid.
    """
    import numpy as np
    from PIL import Image

    from lucency.cli.console import print_json, say
    from lucency.cli.folder import results
    from lucency.phantom import simulate

    made = simulate(seed, volume_ml=volume, side=side.value, size=size, nodules=nodules, cardiomegaly=cardiomegaly)
    about = made.parameters.to_dict() | {
        "spacing_mm": list(made.spacing_mm),
        "fluid_pixels": int((made.truth_mm > 0).sum()),
        "deepest_fluid_mm": float(made.truth_mm.max()),
    }
    with results(folder, "phantom") as place:
        grey = (made.image.clip(0, 1) * 65535).round().astype(np.uint16)
        Image.fromarray(grey).save(place / "scan.png")
        np.save(place / "scan.npy", made.image)
        np.save(place / "truth.npy", made.truth_mm)
        np.save(place / "twin.npy", made.twin)
        (place / "phantom.json").write_text(json.dumps(about, indent=1) + "\n")
        names = sorted(file.name for file in place.iterdir())

    if as_json:
        print_json({**about, "files": [str(folder / name) for name in names]})
        return
    fluid = f"{volume:g} ml of fluid, {side.value}" if volume else "no fluid"
    say(f"A phantom from seed {seed}: {about['view']}, {size} x {size} pixels, {fluid}")
    say(f"Fluid in {about['fluid_pixels']} pixels, at most {about['deepest_fluid_mm']:.0f} mm along a ray")
    say(f"Wrote {', '.join(names)} to {folder}")
