"""Trains the network that tells how a chest film lies, on real and simulated films that are turned and inverted.

    python training/train_upright.py --work work/upright --minutes 12

Each film is seen in all sixteen ways (four turns, mirrored or not, negative or not) and only one of them is right;
pictures that are no chest film are wrong in all. Films of training patients alone are used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from films import part_of, read_boxes, read_films
from lucency.lungs.upright import SIZE, UprightNet, ranked, variants
from lucency.phantom import simulate

BASE = 96
"""Pixels along each side of the cached films, from which augmentation cuts."""
FIRST = 1_000_000
"""The patients that lucency:phantom is trained on."""
WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "lucency" / "lungs" / "upright.safetensors"
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "coins", "grass", "gravel", "horse", "page", "colorwheel", "immunohistochemistry",
    "moon", "shepp_logan_phantom",
)  # fmt: skip

Pictures = NDArray[np.uint8]


def phantoms(work: Path, count: int, first: int = FIRST) -> Pictures:
    """Simulated films, uint8 ``[count, BASE, BASE]``."""
    kept = work / f"phantoms-{first}-{count}.npy"
    if not kept.exists():
        images = [simulate(first + i, size=BASE).image for i in range(count)]
        np.save(kept, np.round(255 * np.clip(images, 0, 1)).astype(np.uint8))
    found: Pictures = np.load(kept)
    return found


def picture_of(name: str) -> Tensor:
    """A picture of scikit-image that is no film, grey, ``[1, 1, H, W]`` in 0..1."""
    picture = torch.from_numpy(np.asarray(getattr(skimage.data, name)(), np.float32))
    grey = picture[..., :3].mean(2) if picture.ndim == 3 else picture
    return (grey / max(float(grey.max()), 1e-6))[None, None]


def no_films(count: int, pictures: list[Tensor], generator: torch.Generator) -> Tensor:
    """Cut-outs of pictures, noise of every grain, gradients and shapes: ``[count, 1, SIZE, SIZE]``."""
    found = []
    for _ in range(count):
        kind = float(torch.rand((), generator=generator))
        if kind < 0.5:
            picture = pictures[int(torch.randint(len(pictures), (), generator=generator))]
            side = int((0.3 + 0.7 * torch.rand((), generator=generator)) * min(picture.shape[2:]))
            top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in picture.shape[2:])
            cut = picture[..., top : top + side, left : left + side]
            found.append(F.interpolate(cut, (SIZE, SIZE), mode="bilinear", antialias=True)[0])
        elif kind < 0.9:
            scale = int(2 ** (1 + 5 * torch.rand((), generator=generator)))
            noise = torch.randn((1, 1, scale, scale), generator=generator)
            tilt = torch.linspace(-1, 1, SIZE) * 2 * torch.randn((), generator=generator)
            smooth = F.interpolate(noise, (SIZE, SIZE), mode="bicubic")[0]
            found.append(smooth + (tilt[:, None] if kind < 0.6 else tilt[None] if kind < 0.7 else 0))
        else:
            shapes = torch.zeros(1, SIZE, SIZE)
            for _ in range(4):
                (a, b), (c, d) = (sorted(torch.randint(0, SIZE, (2,), generator=generator).tolist()) for _ in "yx")
                shapes[:, a : b + 1, c : d + 1] = torch.rand((), generator=generator)
            found.append(shapes)
    return torch.stack(found)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Films ``[B, 1, BASE, BASE]`` moved, cut, clipped and marked: ``[B, 1, SIZE, SIZE]``."""
    n = len(x)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (n, 1, 1, 1), generator=generator)

    angle, zoom, wide = between(-0.2, 0.2, n), between(0.75, 1.25, n), between(0.82, 1.2, n)
    theta = torch.stack([
        torch.stack([zoom * wide * angle.cos(), -zoom * angle.sin(), between(-0.13, 0.13, n)], 1),
        torch.stack([zoom * wide * angle.sin(), zoom * angle.cos(), between(-0.13, 0.13, n)], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, [n, 1, SIZE, SIZE], align_corners=False)
    filled = F.grid_sample(x, grid, align_corners=False)
    edge = F.grid_sample(x, grid, align_corners=False, padding_mode="border")
    x = torch.where(between(0, 1) < 0.5, filled, edge)
    # Windows that cut off the dark or the bright end.
    flat = x.flatten(1)
    low = flat.quantile(0.15 * float(torch.rand((), generator=generator)), 1).view(-1, 1, 1, 1)
    high = flat.quantile(1 - 0.15 * float(torch.rand((), generator=generator)), 1).view(-1, 1, 1, 1)
    x = torch.where(between(0, 1) < 0.5, x, x.clamp(low, torch.maximum(high, low + 1e-3)))
    field = F.interpolate(torch.randn((n, 1, 4, 4), generator=generator), x.shape[2:], mode="bicubic")
    x = x + between(0, 0.08) * field + between(0, 0.04) * torch.randn(x.shape, generator=generator)
    for i in range(n):
        for _ in range(int(torch.randint(0, 4, (1,), generator=generator))):
            h, w = (int(v) for v in between(2, 14, 2))
            top, left = (int(between(0, SIZE - side, 1)) for side in (h, w))
            x[i, :, top : top + h, left : left + w] = between(0, 1, 1)
        if between(0, 1, 1) < 0.25:
            t, b, le, r = (int(v) for v in between(0, 8, 4))
            tone = float(torch.rand((), generator=generator) < 0.2)
            x[i, :, :t], x[i, :, SIZE - b :] = tone, tone
            x[i, :, :, :le], x[i, :, :, SIZE - r :] = tone, tone
    return x


def tensors(films: Pictures) -> Tensor:
    return torch.from_numpy(films).float()[:, None] / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/upright"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--minutes", type=float, default=12)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    films = read_films(args.work, BASE)
    boxed = {str(films.patients[films.names.index(name)]) for name in read_boxes() if name in films.names}
    part = np.array(part_of(list(films.patients), boxed))
    train = np.concatenate([films.pixels[part == "train"], phantoms(args.work, 400)])
    validation = ranked(F.interpolate(tensors(films.pixels[part == "validation"]), (SIZE, SIZE), mode="area"))
    pictures = [picture_of(name) for name in PHOTOGRAPHS]

    torch.manual_seed(0)
    net, generator, rng = UprightNet(), torch.Generator().manual_seed(0), np.random.default_rng(0)
    print(f"{len(train)} films, {sum(p.numel() for p in net.parameters()):,} parameters", flush=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        optimiser.param_groups[0]["lr"] = 3e-3 * min((step + 1) / 30, 0.51 * (1 + np.cos(np.pi * done)))
        films_now = augment(tensors(train[rng.integers(0, len(train), 24)]), generator)
        others = no_films(48, pictures, generator)
        turned = torch.cat([variants(ranked(films_now)).flatten(0, 1), ranked(others)])
        scores = net(turned)
        each, wrong = scores[: 24 * 16].view(24, 16), scores[24 * 16 :]
        right = torch.zeros(24, dtype=torch.int64)
        # The sixteen are told from each other by the first term, films from all other pictures by the second.
        loss = F.cross_entropy(each, right) + 0.5 * (
            F.softplus(-each[:, 0]).mean() + F.softplus(each[:, 1:]).mean() + F.softplus(wrong).mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            net.eval()
            with torch.inference_mode():
                found = torch.cat([net(variants(v).flatten(0, 1)).view(-1, 16) for v in validation.split(64)])
            net.train()
            first = (found.argmax(1) == 0).float().mean()
            print(f"{step}, {60 * args.minutes * done:.0f} s: loss {loss.item():.3f}, right {first:.3f}", flush=True)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
