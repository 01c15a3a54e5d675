"""Trains the healthy-tissue in-painter, and writes its weights, its numbers and its card.

    python training/train_healthy.py --work work/healthy --phantoms work/phantom

It learns from pairs: a simulated film with fluid (and nodules) with a mask over it, and what the same patient shows
there when healthy; and from real films labelled "No Finding" of the training patients of ``films.py``, which must
restore themselves. Masks have every shape that the methods make. A linear model of healthy films comes first, then the
network that corrects it. The simulated films are those of ``train_phantom.py``, made where they are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from films import FINDINGS, part_of, read_boxes, read_films
from lucency import load_classifier
from lucency.removal import Blur, Constant, Custom, Healthy, LocalMean, Mean, Mirror, NoisyLinear, Removal, remove
from lucency.removal.healthy import painter, shipped
from lucency.removal.network import COARSE, Expected, InPainter
from train_effusion import normalised, pretrained
from train_phantom import FIRST, SHARD, as_input, load, make_shard

SIZE, BATCH, LOOK = 112, 16, 0.1
FULL = 224
REAL_SHARE = 0.45
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "src" / "lucency" / "removal" / "weights"

CARD = """# The in-painter behind `healthy`

Paints what a healthy chest would show where a mask hides it: the removal `healthy`
([`Healthy`][lucency.removal.healthy.Healthy]). Made so that a removed piece does not look like a finding of its own.
For grey frontal chest radiographs.

*This card is written by `training/train_healthy.py` from what it measured.*

| | |
| --- | --- |
| What it is | a linear model of healthy films (probabilistic principal components, 200 of them, at 56 x 56), and a U-Net of gated convolutions that corrects it ({parameters} million parameters, at 112 x 112) |
| Input, output | a film and a mask (1 = kept, anything between 0 and 1 allowed); the film with the hole painted. What is kept is never changed |
| Simulated films | {patients} simulated patients, each dry and with fluid, without nodules and with some: the target is always the dry one without nodules |
| Real films | {real} films labelled "No Finding" of the training patients (ChestX-ray14); no film or patient with a radiologist's box |
| Masks | squares of 8 to 72 pixels, superpixels, RISE grids, blobs, halves of the film, the fluid itself, and soft versions of these |
| Loss | mean absolute error in the hole, of the fill, of its slopes, and of its means over cells of 2 to 16 pixels, and of the first features of SqueezeNet (ImageNet), so that edges and texture count |
| Training | {steps} steps of 16 films, AdamW{history} |

## How far off is the fill?

Mean absolute error inside the hole in display values (0 to 1), and PSNR in dB, on {films} simulated and {films} real
films without findings, of patients that were never trained on. Sizes are in pixels of a film of 224 x 224. The mean
and the blur are made from the whole film, with what is beneath the mask: on a film without findings they are close to
the truth for that reason alone, and where there is fluid they leave some of it. The others see only what is kept.

Simulated, with 100, 200 or 500 ml; the truth is the same patient without fluid:

{phantoms}

Real, without findings; the truth is the film itself:

{normals}

## Does it remove fluid?

What `lucency:phantom` says of an effusion, on average over the {films} simulated films, when the fluid and four pixels
around it are removed ("the twin in place of the hole": what is right to put there):

| | probability |
| --- | --- |
{effusion}

## What the fills look like

On ten real films of held-out patients (five without findings, five with a radiologist's box around fluid, the box
hidden), beside blur, road and mirror:

- Good: borders of lung, heart and body go on through squares of 32 to 64 pixels; where a large box of fluid at the side
  was hidden, a dark lung with a chest wall stands there in three of four films, where blur and road leave white.
- Bad: ribs are hinted at and vessels are absent in large holes, so the fill is smoother than any lung; on a turned
  patient with a small lung the fill is blotchy, with a seam; a small box over the edge of the diaphragm shows as a dark
  patch; on a supine film the painted lung is too dark; a hole over more than half of the film gives an average chest
  with a cut-off lower border.

## Known failures

- It works at 112 x 112: a fill is softer than the film around it. Ribs go on across small holes and fade in large ones.
- On real films the network adds edges and nothing else to the linear model: the error is the same in large holes and a
  little worse in small squares. Most of what it learned is of simulated films, and it has seen few real ones.
- With nothing kept it paints an average chest, soft at every border, and `lucency:phantom` takes that for an effusion.
- What a hole hides entirely is unknown: side letters, devices and hands are not painted back, and a hole over half of a
  film gets an average chest, with lung borders in the wrong place by up to a few pixels.
- Real films that are turned, cut or of children are further from what it learned than the table says.
- It has learned to remove fluid and nodules. It fills any other finding from its surroundings, as far as these are kept.
- It is no diagnostic picture, and must not be used as one.

Train it again: `python training/train_healthy.py --work work/healthy --phantoms work/phantom`.
"""  # noqa: E501


@dataclass(frozen=True)
class Pairs:
    """Films uint8 ``[N, 224, 224]``, and the films ``healthy[twin[i]]`` that they should turn into."""

    films: NDArray[np.uint8]
    healthy: NDArray[np.uint8]
    twin: NDArray[np.int64]
    volumes: NDArray[np.float32]


def phantoms(work: Path, part: str, shards: int) -> Pairs:
    """Every simulated film, with the first one of its patient: dry, and for training without nodules."""
    data = load(work, part, shards)
    first = {p: i for i, p in reversed(list(enumerate(data.patients)))}
    twin = np.array([first[p] for p in data.patients])
    return Pairs(data.pixels, data.pixels, twin, data.volumes)


def normals(work: Path, part: str) -> Pairs:
    """The real films labelled "No Finding" of one part of the split; each is its own twin."""
    films = read_films(work, FULL)
    boxed = set(read_boxes())
    held_out = {p for name, p in zip(films.names, films.patients, strict=True) if name in boxed}
    parts = np.array(part_of(list(films.patients), held_out))
    pixels = films.pixels[(parts == part) & (films.labels[:, FINDINGS.index("no finding")] > 0)]
    return Pairs(pixels, pixels, np.arange(len(pixels)), np.zeros(len(pixels), np.float32))


class Masks:
    """Draws masks ``[H, W]`` in 0..1, 1 = kept."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size

    def field(self, cells: int, mode: str = "bicubic") -> Tensor:
        drawn = torch.from_numpy(self.rng.standard_normal((1, 1, cells, cells)).astype(np.float32))
        align = None if mode == "nearest" else False
        return F.interpolate(drawn, (self.size, self.size), mode=mode, align_corners=align)[0, 0]

    def squares(self) -> Tensor:
        mask = torch.ones(self.size, self.size)
        for _ in range(int(self.rng.integers(1, 5))):
            edge = round(float(np.exp(self.rng.uniform(np.log(8), np.log(72)))) * self.size / FULL)
            top, left = self.rng.integers(1 - edge // 2, self.size - edge // 2, 2)
            mask[max(top, 0) : top + edge, max(left, 0) : left + edge] = 0
        return mask

    def square(self, edge: int) -> Tensor:
        """One square of so many pixels, well inside the film."""
        mask = torch.ones(self.size, self.size)
        top, left = self.rng.integers(self.size // 8, self.size * 7 // 8 - edge, 2)
        mask[top : top + edge, left : left + edge] = 0
        return mask

    def superpixels(self) -> Tensor:
        grid = torch.stack(torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing="ij"), -1).view(-1, 2)
        seeds = torch.from_numpy(self.rng.uniform(0, 56, (int(self.rng.integers(30, 120)), 2)).astype(np.float32))
        owner = torch.cdist(grid, seeds).argmin(1).view(1, 1, 56, 56)
        gone = torch.from_numpy(self.rng.random(len(seeds)) < self.rng.uniform(0.03, 0.9))
        gone[int(self.rng.integers(len(seeds)))] = True
        return 1 - F.interpolate(gone[owner].float(), (self.size, self.size), mode="nearest")[0, 0]

    def grid(self) -> Tensor:
        """RISE (Petsiuk et al. 2018): a small random grid, enlarged and shifted."""
        cells = int(self.rng.integers(4, 14))
        kept = torch.from_numpy(
            (self.rng.random((1, 1, cells, cells)) < self.rng.uniform(0.15, 0.9)).astype(np.float32)
        )
        wide = F.interpolate(kept, (int(self.size * 1.2),) * 2, mode="bilinear", align_corners=False)[0, 0]
        top, left = self.rng.integers(0, wide.shape[0] - self.size, 2)
        return wide[top : top + self.size, left : left + self.size]

    def blob(self) -> Tensor:
        field = self.field(int(self.rng.integers(3, 9)))
        return (field > torch.quantile(field, float(self.rng.uniform(0.03, 0.6)))).float()

    def half(self) -> Tensor:
        angle, shift = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(-0.5, 0.8)
        if self.rng.random() < 0.6:
            angle, shift = np.pi / 2 * self.rng.integers(4), self.rng.uniform(-0.1, 0.5)
        line = torch.linspace(-1, 1, self.size)
        return (np.cos(angle) * line[:, None] + np.sin(angle) * line < shift).float()

    def lesion(self, sick: Tensor, healthy: Tensor) -> Tensor:
        """Over what tells the sick film ``[H, W]`` from its twin, more or less, or over a part of it."""
        found = ((sick - healthy).abs() > 0.03).float()
        reach = 2 * (int(self.rng.integers(0, 9)) * self.size // FULL) + 1
        mask = 1 - F.max_pool2d(found[None], reach, 1, reach // 2)[0]
        if self.rng.random() < 0.5:
            part = self.blob() if self.rng.random() < 0.5 else self.squares()
            mask = torch.maximum(mask, part)
        return mask

    def draw(self, sick: Tensor, healthy: Tensor) -> Tensor:
        """One mask for the film ``[H, W]`` and its twin."""
        shapes: list[Callable[[], Tensor]] = [self.squares, self.superpixels, self.grid, self.blob, self.half]
        if self.rng.random() < 0.5 and not torch.equal(sick, healthy):
            mask = self.lesion(sick, healthy)
        else:
            mask = shapes[int(self.rng.choice(5, p=(0.34, 0.2, 0.14, 0.2, 0.12)))]()
        if self.rng.random() < 0.2:
            # As an optimised mask is on its way: soft, and nowhere all gone.
            reach = 2 * int(self.rng.integers(0, 6)) + 1
            mask = F.avg_pool2d(mask[None], reach, 1, reach // 2, count_include_pad=False)[0]
            mask = 1 - float(self.rng.uniform(0.2, 1)) * (1 - mask)
        if float(mask.min()) > 0.9:
            mask = self.blob()
        return mask


def augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift, scale, turn and tone of films and their twins ``[B, 2, H, W]``, the same for both."""
    n = len(x)

    def between(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, n).astype(np.float32))

    angle, zoom = between(-0.08, 0.08), between(0.85, 1.05)
    theta = torch.stack([
        torch.stack([zoom * angle.cos(), -zoom * angle.sin(), between(-0.06, 0.06)], 1),
        torch.stack([zoom * angle.sin(), zoom * angle.cos(), between(-0.06, 0.06)], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)
    x = x ** between(0.75, 1.35).view(-1, 1, 1, 1)
    return (x * between(0.85, 1.1).view(-1, 1, 1, 1) + between(-0.05, 0.05).view(-1, 1, 1, 1)).clamp(0, 1)


class Look:
    """How unlike two films look: L1 between features of a network trained on ImageNet (Johnson et al., ECCV 2016).

    The mean of all films that fit a hole is what L1 between pixels asks for, and a classifier takes its blur for
    veiling by fluid. Edges and texture are what the first layers of such a network react to.
    """

    def __init__(self) -> None:
        self.layers = list(pretrained().features)[:6]
        self.told = (1, 3, 4, 5)
        for layer in self.layers:
            layer.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        found, y = [], normalised(x)
        for i, layer in enumerate(self.layers):
            y = layer(y)
            if i in self.told:
                found.append(y)
        return found

    def unlike(self, fill: Tensor, target: Tensor) -> Tensor:
        """``[B]``, summed over places, each layer in units of its own typical value."""
        with torch.no_grad():
            aims = self.features(target)
        total = fill.new_zeros(len(fill))
        for found, aim in zip(self.features(fill), aims, strict=True):
            scale = aim.square().mean((0, 2, 3), keepdim=True).sqrt().mean(1, keepdim=True) + 1e-3
            places = fill[0, 0].numel() / aim[0, 0].numel()
            total = total + places * ((found - aim).abs() / scale).mean(1).sum((1, 2))
        return total


def loss_of(fill: Tensor, target: Tensor, masks: Tensor, look: Look) -> Tensor:
    """L1 where something is gone, of the fill, its slopes and its means over ever larger cells; and the look of it."""
    gone = 1 - masks
    off = gone * (fill - target)
    area = gone.sum((1, 2, 3)).clamp(min=1.0)

    def part(values: Tensor, scale: float) -> Tensor:
        return scale * values.abs().sum((1, 2, 3)) / area

    total = part(off, 1.0)
    for axis in (2, 3):
        total = total + 0.5 * part(off.diff(dim=axis), 1.0)
    coarse = off
    for level in range(1, 5):
        coarse = F.avg_pool2d(coarse, 2)
        total = total + 0.5 * part(coarse, 4.0**level)
    total = total + LOOK * look.unlike(torch.lerp(fill, target, masks), target) / area
    # Small holes would weigh as much as large ones, and there are more of them.
    return (total * (area / masks[0].numel()).sqrt()).mean() * 2


def small(pixels: NDArray[np.uint8], size: int = SIZE) -> Tensor:
    """uint8 ``[B, 224, 224]`` -> display values ``[B, 1, size, size]``."""
    return F.avg_pool2d(as_input(pixels), FULL // size)


def fit(expected: Expected, sets: list[Pairs]) -> None:
    """Mean and principal components of the healthy films."""
    films = [small(data.healthy[np.unique(data.twin)], COARSE).flatten(1) for data in sets]
    x = torch.cat(films)
    mean = x.mean(0)
    # There are fewer films than pixels.
    values, vectors = torch.linalg.eigh(((x - mean) @ (x - mean).T).double() / len(x))
    count = len(expected.get_buffer("variance"))
    variance, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    basis = (x - mean).T.double() @ vectors / (variance * len(x)).sqrt()
    for name, value in (("mean", mean), ("variance", variance), ("basis", basis)):
        expected.get_buffer(name).copy_(value)


def batch_of(sets: list[Pairs], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Films, what they should turn into, and masks, ``[B, 1, SIZE, SIZE]``."""
    real = int(rng.binomial(BATCH, REAL_SHARE))
    rows = []
    for data, count in zip(sets, (BATCH - real, real), strict=True):
        # Most simulated films have something to remove.
        weight = np.where(data.volumes > 0, 4.0, 1.0)
        at = rng.choice(len(data.films), count, replace=False, p=weight / weight.sum())
        rows.append(torch.cat([small(data.films[at]), small(data.healthy[data.twin[at]])], 1))
    x = augment(torch.cat(rows), rng)
    draw = Masks(rng, SIZE)
    masks = torch.stack([draw.draw(film, twin) for film, twin in x])
    return x[:, :1], x[:, 1:], masks[:, None]


def state_of(net: InPainter) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in net.state_dict().items()}


def train(net: InPainter, sets: list[Pairs], work: Path, minutes: float, rate: float, before: int) -> None:
    """AdamW for so many minutes after ``before`` steps, with ``log.txt`` and ``last.safetensors`` on the way."""
    rng = np.random.default_rng(before)
    net.train().to(memory_format=torch.channels_last)
    look = Look()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    began = told = time.monotonic()
    losses: list[float] = []
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (len(losses) + 1) / 50) * (0.51 + 0.49 * np.cos(np.pi * done))
        x, target, masks = batch_of(sets, rng)
        loss = loss_of(net(x, masks), target, masks, look)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            with (work / "log.txt").open("a") as log:
                log.write(f"step {before + len(losses)}, {done:.0%}: loss {np.mean(losses[-100:]):.4f}\n")
            save_file(state_of(net), work / "last.safetensors")
    save_file(state_of(net), work / "last.safetensors")
    (work / "steps.txt").write_text(f"{before + len(losses)}\n")


def export(net: InPainter) -> None:
    """Writes the weights in half precision to where the removal that is measured reads them."""
    # The smallest variances are below what half precision holds.
    state = {name: value if name == "expected.variance" else value.half() for name, value in state_of(net).items()}
    save_file(state, OUT / "healthy.safetensors")
    shipped.cache_clear()
    painter.cache_clear()


def cases(sick: Tensor, healthy: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
    """Masks ``[B, H, W]`` by what they hide of the films ``[B, H, W]``."""
    draw = Masks(rng, sick.shape[-1])
    found = {f"a square of {edge}": torch.stack([draw.square(edge) for _ in sick]) for edge in (16, 32, 64)}
    found["superpixels"] = torch.stack([draw.superpixels() for _ in sick])
    found["about half of the film"] = torch.stack([draw.half() for _ in sick])
    if not torch.equal(sick, healthy):
        gone = ((sick - healthy).abs() > 0.02).float()[:, None]
        found = {"the fluid": 1 - F.max_pool2d(gone, 9, 1, 4)[:, 0], **found}
    return found


def linear_alone(pixels: Tensor, masks: Tensor) -> Tensor:
    """The fill before the network corrects it, at the film's own size."""
    return painter(pixels.device).first(pixels[None].expand(len(masks), -1, -1, -1), masks[:, None])[0]


@torch.no_grad()
def measure(sick: Tensor, healthy: Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """Mean absolute error and PSNR inside the holes by mask and removal, on films ``[B, H, W]`` and their twins."""
    removals: dict[str, Removal] = {
        r.name: r for r in (Mean(), Blur(), LocalMean(), NoisyLinear(), Mirror(), Healthy())
    }
    removals["linear model alone"] = Custom(linear_alone)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, masks in cases(sick, healthy, np.random.default_rng(0)).items():
        found[name] = {"hidden": {"share": float((1 - masks).mean())}}
        for kind, removal in removals.items():
            off, square = [], []
            for film, twin, mask in zip(sick, healthy, masks, strict=True):
                fill = removal.bind(film[None], torch.Generator().manual_seed(0))(mask[None])
                error = (fill.expand(1, 1, *film.shape)[0, 0] - twin)[mask < 0.5]
                off.append(float(error.abs().mean()))
                square.append(float(error.square().mean()))
            found[name][kind] = {"l1": float(np.mean(off)), "psnr": float(-10 * np.log10(np.mean(square)))}
    return found


@torch.no_grad()
def fluid_gone(sick: Tensor, healthy: Tensor) -> dict[str, float]:
    """What ``lucency:phantom`` says of effusion, on average, with the fluid, with it removed, and on the dry twin."""
    classifier = load_classifier("lucency:phantom")

    def say(x: Tensor) -> float:
        return float(classifier.probabilities(classifier(x[:, None]))[:, 0].mean())

    masks = cases(sick, healthy, np.random.default_rng(0))["the fluid"]
    found = {
        "with fluid": say(sick),
        "the twin in place of the hole": say(torch.lerp(healthy, sick, masks)),
        "the twin": say(healthy),
    }
    for removal in (Constant(), Blur(), NoisyLinear(), Mirror(), Healthy()):
        filled = [
            remove(film[None], mask[None], removal.bind(film[None], torch.Generator().manual_seed(0))(mask[None]))[0]
            for film, mask in zip(sick, masks, strict=True)
        ]
        found[removal.name] = say(torch.cat(filled))
    return found


def card(numbers: dict[str, Any]) -> str:
    """The model card, in Markdown."""

    def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
        names = ["mean", "blur", "local-mean", "road", "mirror", "linear model alone", "healthy"]
        lines = ["| hidden | share of the film | " + " | ".join(names) + " |", "| --- " * (len(names) + 2) + "|"]
        for name, row in rows.items():
            cells = [f"{row[n]['l1']:.3f} ({row[n]['psnr']:.1f})" for n in names]
            lines.append(f"| {name} | {row['hidden']['share']:.0%} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    said = numbers["effusion"]
    effusion = "\n".join(f"| {name} | {value:.2f} |" for name, value in said.items())
    return CARD.format(
        parameters=f"{numbers['parameters'] / 1e6:.2f}",
        patients=numbers["patients"],
        real=numbers["real_films"],
        steps=f"{numbers['steps']:,}",
        history=f"; {numbers['history']}" if numbers["history"] else "",
        films=len(numbers["volumes"]),
        phantoms=table(numbers["phantoms"]),
        normals=table(numbers["real"]),
        effusion=effusion,
    )


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the reduced films and the log")
    parser.add_argument("--phantoms", type=Path, required=True, help="where train_phantom.py keeps its films")
    parser.add_argument("--patients", type=int, default=800, help="simulated patients to train on")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--card", type=Path, default=ROOT / "docs" / "models" / "healthy.md")
    parser.add_argument("--films", type=int, default=40, help="held-out films of each kind to measure on")
    parser.add_argument("--measure-only", action="store_true", help="the network that was trained last")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--history", default="", help="for the card: how an earlier part of the training differed")
    parser.add_argument("--go-on", action="store_true", help="from where the last training ended")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    shards = {"train": -(-args.patients // SHARD), "test": 2}
    todo = [
        (args.phantoms / f"{part}-{i:03d}.npz", FIRST[part] + i * SHARD, part)
        for part, count in shards.items()
        for i in range(count)
    ]
    todo = [job for job in todo if not job[0].exists()]
    if todo:
        args.phantoms.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(make_shard, *zip(*todo, strict=True)))

    torch.manual_seed(0)
    net = InPainter()
    sets = [phantoms(args.phantoms, "train", shards["train"]), normals(args.work, "train")]
    steps = args.work / "steps.txt"
    if not args.measure_only:
        before = int(steps.read_text()) if args.go_on else 0
        if args.go_on:
            net.load_state_dict(load_file(args.work / "last.safetensors"))
        else:
            fit(net.expected, sets)
        train(net, sets, args.work, args.minutes, args.rate, before)
    net.load_state_dict(load_file(args.work / "last.safetensors"))
    export(net)

    test, real = phantoms(args.phantoms, "test", shards["test"]), normals(args.work, "test")
    # One film of each patient, by turns with 100, 200 and 500 ml.
    patients = np.split(np.arange(len(test.films)), np.flatnonzero(np.diff(test.twin)) + 1)
    at = [rows[(4, 6, 8)[i % 3]] for i, rows in enumerate(patients[: args.films])]
    sick, twins = as_input(test.films[at])[:, 0], as_input(test.healthy[test.twin[at]])[:, 0]
    clean = as_input(real.films[: args.films])[:, 0]
    numbers = {
        "parameters": sum(q.numel() for q in net.parameters()),
        "steps": int(steps.read_text()),
        "history": args.history,
        "patients": len(np.unique(sets[0].twin)),
        "real_films": len(sets[1].films),
        "phantoms": measure(sick, twins),
        "real": measure(clean, clean),
        "effusion": fluid_gone(sick, twins),
        "volumes": test.volumes[at].tolist(),
    }  # fmt: skip
    (args.work / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n")
    weights = OUT / "healthy.safetensors"
    description = {
        "name": "healthy",
        "architecture": "InPainter",
        "input_size": [SIZE, SIZE],
        "channels": 1,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "card": "docs/models/healthy.md",
        "results": {key: numbers[key] for key in ("phantoms", "real", "effusion")},
    }
    (OUT / "healthy.json").write_text(json.dumps(description, indent=2) + "\n")
    args.card.write_text(card(numbers))


if __name__ == "__main__":
    main()
