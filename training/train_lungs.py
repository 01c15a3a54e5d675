"""Trains the network that finds the lungs, on simulated films of which the lungs are known, also under fluid.

    python training/train_lungs.py --work work/lungs --minutes 10

It never sees a real film: the tone is taken out by equalisation, and everything else that differs between simulated
and real films is drowned in augmentation. The films are cached in ``--work``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from lucency.lungs.fields import equalised
from lucency.lungs.network import SIZE, LungNet
from lucency.phantom import Anatomy
from lucency.phantom.parameters import draw
from lucency.phantom.simulate import LUNG_FIELD_MM
from train_phantom import patient

FIRST = 1_000_000  # the patients that lucency:phantom is trained on
SHARD = 50
WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "lucency" / "lungs" / "lungs.safetensors"


def make_shard(path: Path, first: int) -> None:
    """The films that lucency:phantom learns from of 50 patients, at SIZE pixels, with the lungs."""
    films, lungs = [], []
    for seed in range(first, first + SHARD):
        anatomy = Anatomy(draw(seed, 2 * SIZE, 0.0, "right", None, None, None, None, None))
        truth = visible_lungs(anatomy).reshape(2, SIZE, 2, SIZE, 2).mean((2, 4))
        for film, _, _ in patient(seed, "train"):
            small = F.interpolate(torch.from_numpy(film)[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)
            films.append(small[0, 0].numpy())
            lungs.append(truth)
    np.savez(path, films=_bytes(np.stack(films)), lungs=_bytes(np.stack(lungs)))


def visible_lungs(anatomy: Anatomy) -> NDArray[np.bool_]:
    """Bool ``[2, H, W]``, right and left: rays of which lung takes more than heart, vessels, liver and stomach do."""
    z, y, _ = anatomy.grid
    wall = anatomy.chest.wall_at(y, z)
    return (anatomy.lungs > LUNG_FIELD_MM) & (anatomy.lungs > 0.5 * anatomy.project([(-wall, wall)]))


def _bytes(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(x * 255).astype(np.uint8)


def augment(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turns, scales and shifts films ``[B, 1, S, S]`` with their lungs ``[B, 2, S, S]``; then spoils the films."""
    n = len(x)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (n, 1, 1, 1), generator=generator)

    angle, zoom = between(-0.16, 0.16, n), between(0.75, 1.5, n)
    wide = between(0.75, 1.1, n)
    theta = torch.stack([
        torch.stack([zoom * wide * angle.cos(), -zoom * angle.sin(), between(-0.13, 0.13, n)], 1),
        torch.stack([zoom * wide * angle.sin(), zoom * angle.cos(), between(-0.15, 0.15, n)], 1),
    ], 1)  # fmt: skip
    both = torch.cat([x, y], 1)
    grid = F.affine_grid(theta, list(both.shape), align_corners=False)
    filled = F.grid_sample(both, grid, align_corners=False)
    # Beside the film there is either black, or what stands at its edge.
    edge = F.grid_sample(x, grid, align_corners=False, padding_mode="border")
    x, y = torch.where(between(0, 1) < 0.5, filled[:, :1], edge), filled[:, 1:]

    def field(scale: int) -> Tensor:
        coarse = torch.randn((n, 1, scale, scale), generator=generator)
        return F.interpolate(coarse, x.shape[2:], mode="bicubic", align_corners=False)

    x = x.clamp(1e-3, 1) ** between(0.6, 1.6)
    x = x + between(0, 0.10) * field(3) + between(0, 0.05) * field(8)
    # Disease whitens parts of lungs: smooth blotches, and a white base up to any height.
    inside = y.sum(1, keepdim=True).clamp(0, 1)
    blotch = torch.sigmoid(6 * (field(5) - between(0.3, 2.0)))
    rows = torch.linspace(0, 1, x.shape[2]).view(1, 1, -1, 1)
    base = torch.sigmoid(40 * (rows - between(0.35, 1.1) + 0.03 * field(4)))
    side = torch.where(between(0, 1) < 0.5, y[:, :1], y[:, 1:])
    dull = between(0.0, 0.8) * (between(0, 1) < 0.5) * torch.maximum(blotch * inside, base * side)
    x = x + dull * (x.amax((2, 3), keepdim=True) * between(0.6, 0.9) - x)
    soft = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.lerp(x, soft, between(-0.6, 1.0)) + between(0.0, 0.04) * torch.randn(x.shape, generator=generator)
    for i in range(n):
        for _ in range(int(torch.randint(0, 3, (1,), generator=generator))):
            h, w = (int(v) for v in between(3, 14, 2))
            top, left = int(between(0, SIZE - h, 1)), int(between(0, SIZE - w, 1))
            x[i, :, top : top + h, left : left + w] = between(0, 1, 1)
        if between(0, 1, 1) < 0.3:  # a black frame
            t, b, le, r = (int(v) for v in between(0, 9, 4))
            x[i, :, :t], x[i, :, SIZE - b :] = 0, 0
            x[i, :, :, :le], x[i, :, :, SIZE - r :] = 0, 0
    return equalised(x), y


def dice(found: Tensor, truth: Tensor) -> Tensor:
    """Dice coefficients ``[B, 2]`` of masks ``[B, 2, S, S]``."""
    a, b = (found > 0.5).float(), (truth > 0.5).float()
    return 2 * (a * b).sum((2, 3)) / (a.sum((2, 3)) + b.sum((2, 3))).clamp(min=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/lungs"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--shards", type=int, default=12, help="of 50 patients; the last one validates")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    paths = [args.work / f"films-{i:03d}.npz" for i in range(args.shards)]
    for i, path in enumerate(paths):
        if not path.exists():
            make_shard(path, FIRST + i * SHARD)
    data = [np.load(path) for path in paths]
    films, lungs = (np.concatenate([d[key] for d in data[:-1]]) for key in ("films", "lungs"))
    val_x = equalised(torch.from_numpy(data[-1]["films"]).float()[:, None] / 255)
    val_y = torch.from_numpy(data[-1]["lungs"]).float() / 255

    torch.manual_seed(0)
    net, generator, rng = LungNet(), torch.Generator().manual_seed(0), np.random.default_rng(0)
    if args.start:
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(args.start).items()})
    print(f"{len(films)} films, {sum(p.numel() for p in net.parameters()):,} parameters", flush=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.01)
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        optimiser.param_groups[0]["lr"] = 4e-3 * min((step + 1) / 30, 0.51 * (1 + np.cos(np.pi * done)))
        index = rng.integers(0, len(films), 16)
        x, y = augment(
            torch.from_numpy(films[index]).float()[:, None] / 255,
            torch.from_numpy(lungs[index]).float() / 255,
            generator,
        )
        logits = net(x)
        p = logits.sigmoid()
        overlap = 1 - (2 * (p * y).sum((2, 3)) + 1) / (p.sum((2, 3)) + y.sum((2, 3)) + 1)
        loss = F.binary_cross_entropy_with_logits(logits, y) + 0.3 * overlap.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 100 == 0:
            net.eval()
            with torch.inference_mode():
                score = dice(net(val_x).sigmoid(), val_y)
            net.train()
            print(f"{step}, {60 * args.minutes * done:.0f} s: loss {loss.item():.3f}, Dice {score.mean(0)}", flush=True)
            save_file({k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}, args.out)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
