"""How often a film is doubted: good films, films turned, mirrored and inverted, noise, photographs, phantoms.

    python benchmarks/film_check.py --work work/upright

The films (``LUCENCY_SHARED``) are those of patients from whom neither a model nor the check has learnt: the validation
part, on which the two thresholds were chosen, and the test part, which is reported. Prints both as tables.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lucency import Scan, load_classifier
from lucency.checks.film import doubts
from lucency.classifier import Classifier
from lucency.lungs.upright import orientation
from lucency.phantom import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from films import part_of, read_boxes, read_films
from train_upright import picture_of

SIZE = 256
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "hubble_deep_field", "text", "retina", "cell", "clock")
FIRST = 8_200_000
"""Phantoms that nothing was trained on."""


def framed(x: Tensor) -> Tensor:
    """Two thirds of the picture's area, in the middle of black."""
    inner = F.interpolate(x[None], (200, 200), mode="bilinear", antialias=True)[0]
    return F.pad(inner, (28, 28, 28, 28))


def tilted(x: Tensor) -> Tensor:
    angle = torch.tensor(np.deg2rad(7.0), dtype=torch.float32)
    theta = torch.stack([torch.cos(angle), -torch.sin(angle), torch.zeros(()), torch.sin(angle), torch.cos(angle),
                         torch.zeros(())]).view(1, 2, 3)  # fmt: skip
    return F.grid_sample(x[None], F.affine_grid(theta, [1, *x.shape], align_corners=False), align_corners=False)[0]


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "cut to its middle 85 %": lambda x: x[:, 19:-19, 19:-19],
    "in a black frame": framed,
    "tilted by 7 degrees": tilted,
    "negative": lambda x: 1 - x,
    "upside down": lambda x: torch.rot90(x, 2, (1, 2)),
    "turned by 90 degrees clockwise": lambda x: torch.rot90(x, -1, (1, 2)),
    "turned by 90 degrees anticlockwise": lambda x: torch.rot90(x, 1, (1, 2)),
    "mirrored": lambda x: x.flip(2),
    "flipped top to bottom": lambda x: x.flip(1),
    "negative and upside down": lambda x: 1 - torch.rot90(x, 2, (1, 2)),
}
"""What is done to films ``[1, H, W]``; the first four leave a film that is to be read."""


def kind(said: tuple[str, ...]) -> str:
    """What a doubt is about."""
    if not said:
        return ""
    keys = {"negative (air": "negative", "degrees": "turned", "upside down": "turned", "mirrored": "mirrored",
            "does not look like": "no chest film", "seen nothing like": "unlike the model's"}  # fmt: skip
    return next(word for key, word in keys.items() if key in said[0])


def others(count: int) -> Iterator[tuple[str, Tensor]]:
    """What is no film."""
    generator, rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
    for _ in range(count):
        yield "white noise", torch.rand(1, SIZE, SIZE, generator=generator)
        grain = int(2 ** rng.uniform(2, 6))
        coarse = torch.randn(1, 1, grain, grain, generator=generator)
        smooth = F.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[0]
        yield "smooth noise", (smooth - smooth.min()) / (smooth.max() - smooth.min())
    for name in PHOTOGRAPHS:
        picture = picture_of(name)[0]
        yield "photographs", picture
        for _ in range(count // len(PHOTOGRAPHS)):
            side = int(rng.uniform(0.4, 1) * min(picture.shape[1:]))
            top, left = (int(rng.integers(n - side + 1)) for n in picture.shape[1:])
            yield "photographs", picture[:, top : top + side, left : left + side]


def row(what: str, found: list[str]) -> str:
    counts = Counter(found)
    named = ", ".join(f"{word} {n}" for word, n in counts.most_common() if word)
    return f"| {what} | {len(found)} | {100 * (1 - counts[''] / len(found)):.1f} % | {named} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/upright"))
    parser.add_argument("--phantoms", type=int, default=200)
    args = parser.parse_args()
    films = read_films(args.work, SIZE)
    boxed = {str(films.patients[films.names.index(name)]) for name in read_boxes() if name in films.names}
    part = np.array(part_of(list(films.patients), boxed))
    effusion, phantom = load_classifier("lucency:effusion"), load_classifier("lucency:phantom")

    def asked(x: Tensor, classifier: Classifier) -> str:
        return kind(doubts(Scan(x.contiguous()), classifier))

    for name in ("validation", "test"):
        pixels = torch.from_numpy(films.pixels[part == name]).float()[:, None] / 255
        print(f"\n{name}: {len(pixels)} films\n\n| what | how many | doubted | as what |\n| --- | --- | --- | --- |")
        for way, change in WAYS.items():
            print(row(way, [asked(change(x), effusion) for x in pixels]), flush=True)
        ends = [orientation(Scan(x)) for x in pixels]
        print(f"<!-- score {np.quantile([o.score for o in ends], [0, 0.005, 0.01, 0.02])}, "
              f"gain {np.quantile([o.gain for o in ends], [0.97, 0.98, 0.99, 0.995, 1])} -->")  # fmt: skip
        odd = [n for n, x in zip(np.array(films.names)[part == name], pixels, strict=True) if asked(x, effusion)]
        print("<!-- doubted as they are:", *odd, "-->")
    found: dict[str, list[str]] = {}
    for what, x in others(80):
        found.setdefault(what, []).append(asked(x, effusion))
    for i in range(args.phantoms):
        x = torch.from_numpy(simulate(FIRST + i, size=SIZE).image)[None]
        found.setdefault("phantoms, for lucency:phantom", []).append(asked(x, phantom))
        found.setdefault("phantoms in negative", []).append(asked(1 - x, phantom))
        found.setdefault("phantoms upside down", []).append(asked(torch.rot90(x, 2, (1, 2)), phantom))
    print("\n| what | how many | doubted | as what |\n| --- | --- | --- | --- |")
    for what, words in found.items():
        print(row(what, words))


if __name__ == "__main__":
    main()
