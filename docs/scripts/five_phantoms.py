"""Writes ``docs/five-phantoms.md``: five simulated effusions, explained on the command line, beside the truth.

Run it from the root of the repository: ``python docs/scripts/five_phantoms.py [FOLDER]``; FOLDER keeps everything that
the commands wrote. It takes about half a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lucency import Explanation
from lucency.metrics import localise

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = ((11, 100, "right"), (12, 200, "left"), (13, 300, "right"), (14, 500, "left"), (15, 800, "both"))
FLUID_MM = 5.0
SIDE = 380
HEAD = f"""# Five phantoms

Five simulated patients from seeds that no training has seen, explained by `lucency explain` with `lucency:phantom` and
its defaults. *Top 5 % on fluid* is the share of the highest 5 % of the map's pixels whose ray crosses at least
{FLUID_MM:g} mm of fluid; *chance* is the share of all pixels for which that is so, which is what a map that knows nothing gets.
Where there is less fluid than 5 % of the picture, no map can reach 1: *at best* says how far it can get.
[The league table](league.md) has more phantoms and all methods. This page is written by
`python docs/scripts/five_phantoms.py`.

| seed | fluid | probability | maximum on fluid | top 5 % on fluid | at best | chance | energy on fluid |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def lucency(*arguments: object) -> dict[str, object]:
    command = [sys.executable, "-m", "lucency", *map(str, arguments), "--json"]
    answer: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


def main(folder: Path) -> None:
    rows, tiles = [], []
    for seed, volume, side in PATIENTS:
        place = folder / str(seed)
        lucency("phantom", "--seed", seed, "--volume", volume, "--side", side, "--out", place)
        said = lucency(
            "explain", place / "scan.npy", "--model", "lucency:phantom", "--target", "effusion", "--out", place
        )
        truth = np.load(place / "truth.npy") >= FLUID_MM
        found = localise(np.load(place / "heatmap.npy"), truth)
        rows.append(
            f"| {seed} | {volume} ml, {side} | {said['probability']:.3f} | {'yes' if found.pointing_game else 'no'} "
            f"| {found.top:.2f} | {min(1.0, found.area / 0.05):.2f} | {found.area:.3f} | {found.energy:.2f} |"
        )
        print(rows[-1], flush=True)
        with Image.open(place / "overlay.png") as overlay:
            tiles.append(overlay.convert("RGB").resize((SIDE, round(SIDE * overlay.height / overlay.width))))
    sheet = Image.new("RGB", (3 * SIDE, 2 * tiles[0].height), (14, 17, 20))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % 3 * SIDE, i // 3 * tiles[0].height))
    sheet.save(ROOT / "docs" / "images" / "five-phantoms.webp", quality=85)
    weights = Explanation.load(folder / str(PATIENTS[0][0]) / "explanation.lucency").provenance.model.fingerprint
    made = f"Weights of `lucency:phantom`: {weights[:12]}."
    page = "\n".join(
        [HEAD + "\n".join(rows), "", made, "", "![The five maps over their scans](images/five-phantoms.webp)", ""]
    )
    (ROOT / "docs" / "five-phantoms.md").write_text(page)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
