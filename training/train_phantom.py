"""Trains ``lucency:phantom`` on simulated chest radiographs, and writes its weights, its numbers and its card.

    python training/train_phantom.py --work work/phantom --out src/lucency/classifier/weights

Each simulated patient is shown with and without fluid, and with and without nodules, everything else equal, so nothing
but the fluid and the nodules tell these films apart; an enlarged heart, devices, the projection and the exposure are
drawn independently of them. Nodules are a few pixels wide and hard to come by, so during training a second, auxiliary
head is told where they are; it is thrown away. Training, validation and test patients have seeds of their own. The
simulation is cached in ``--work`` as it goes, by ``--jobs`` processes, and a second run goes on where the first was
stopped. With ``--start`` an earlier net is trained further, on pictures of full size from the first step on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.classifier.networks import ResNet
from lucency.errors import ParameterError
from lucency.phantom import Anatomy, simulate
from lucency.phantom.parameters import SIDES, draw, stream
from scoring import auc, auc_interval, calibration

SIZE, MEAN, STD = 224, 0.42, 0.27
CLASSES = ["effusion", "nodule", "cardiomegaly"]
LOSS_WEIGHTS = torch.tensor([1.0, 2.0, 0.5])  # nodules are the hardest to learn
PLACE_WEIGHT, PLACE_BALANCE = 1.0, 8.0  # few of the 7 x 7 places hold a nodule
NODULE_SHOWS = 8  # grey levels of 255 by which a nodule must change a pixel to be there
WIDTH, BLOCKS = 16, (1, 1, 2, 2)
COARSE_SHARE = 0.6  # most of the way can be learnt on pictures of half the size, for a fifth of the work
FIRST = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000, "dry": 3_500_000}
SHARD = 50
PATIENTS = 16
TEST_VOLUMES = (25, 50, 100, 150, 200, 300, 500, 1000)
ROOT = Path(__file__).resolve().parents[1]


CARD = """# The model `lucency:phantom`

A small residual net that reads simulated chest radiographs. It exists so that explanations can be checked: on a phantom
the fluid is known ray by ray. **It is not made for real films**; for those see `lucency:effusion`.

*This card is written by `training/train_phantom.py` from what it measured.*

| | |
| --- | --- |
| Architecture | ResNet of basic blocks with batch norm, {parameters} million parameters, one grey channel, 224 x 224 |
| Outputs | three logits (effusion, nodule, cardiomegaly), each with its own sigmoid, scaled on validation |
| Training data | {films} films of {trained_on_patients} simulated patients, dry and wet, without and with nodules |
| Fluid | 40 to 250 ml and 150 to 1500 ml on a side; right, left or both |
| Validation, test | {validation_patients} and {patients} other patients; the test patients decided nothing |
| Test of the other findings | the dry films of {dry_patients} patients, those {patients} among them |
| Training | {training} |
| Augmentation | mirror, shift, scale, turn, tone, blur, grain, grey patches |

Nodules, an enlarged heart, pacemaker, lines, electrodes, side letters, collimation, projection and exposure are drawn
independently of the fluid, and every patient is shown with and without it, so nothing else tells the two apart.

## Effusion, by volume

AUC of films with this much fluid on each affected side against the same patients' dry films, with the 95 % interval of
a bootstrap over patients; sensitivity at a probability of one half (specificity there: {specificity}).

| ml | AUC | sensitivity |
| --- | --- | --- |
{by_volume}

200 ml and more: {large}. Simulated at 512 pixels and shrunk to 224, 200 ml, 40 patients: {shrunk}.
Expected calibration error on the test patients dry, with 100 and with 300 ml (half of them dry): {ece}.

## The other findings, on dry films

| finding | AUC | calibration error |
| --- | --- | --- |
| nodule | {nodule} | {nodule_ece} |
| cardiomegaly | {heart} | {heart_ece} |

## Does it look at the fluid?

On dry films the effusion score should not know about the distractors (an AUC of 0.5 is ideal): nodule {by_nodule},
cardiomegaly {by_heart}.

## Known failures

- 25 ml lies in the posterior sulcus, behind the dome of the diaphragm, where a frontal film hardly shows it.
- Nodules (radius 5.5 to 14 mm) are a few pixels at this input size, and some lie behind the heart or among the vessels
  of the hilum. The AUC above says how far that output can be trusted: far less than the one for effusion.
- It has never seen consolidation, collapse, pleural thickening or a real patient; on real films its output means
  nothing.
- Only free fluid of an upright patient was simulated; fluid of a lying patient looks otherwise.

Train such a net again: `python training/train_phantom.py --work work/phantom` does all in one go.
"""


Film = tuple[NDArray[np.float32], list[float], float]
"""A picture ``[224, 224]``, its targets and its volume in ml."""


@dataclass(frozen=True)
class Shard:
    """Pictures uint8 ``[N, 224, 224]``, targets ``[N, 3]``, volumes ``[N]`` in ml, patients ``[N]``."""

    pixels: NDArray[np.uint8]
    targets: NDArray[np.float32]
    volumes: NDArray[np.float32]
    patients: NDArray[np.int64]


def films_of(seed: int, volumes: Iterable[float], side: str, nodules: int | None) -> Iterable[Film]:
    """One patient without fluid, and with each of these volumes."""
    anatomy = Anatomy(draw(seed, SIZE, 0.0, "right", None, nodules, None, None, None))
    found = [float(anatomy.p.nodules > 0), float(anatomy.p.cardiomegaly)]
    for i, volume in enumerate(volumes):
        try:
            shown = anatomy.render(float(volume), side)
        except ParameterError:
            continue
        if i == 0:
            yield shown.twin, [0.0, *found], 0.0
        yield shown.image, [1.0, *found], float(volume)


def patient(seed: int, part: str) -> Iterable[Film]:
    """Pictures of one patient: dry and with fluid.

    For training, both without nodules and with some, and another volume each time, so that nothing but a nodule tells
    of a nodule; otherwise with the nodules that the patient happens to have, for the test with the whole ladder of
    volumes, and once more for the test with none, from patients that serve the findings other than fluid.
    """
    rng = stream(seed, 99)
    volumes = TEST_VOLUMES if part == "test" else np.exp(rng.uniform(np.log((40, 150)), np.log((250, 1500))))
    side = SIDES[int(rng.integers(3))]
    if part == "dry":
        yield next(iter(films_of(seed, [0.0], side, None)))
    elif part == "train":
        some = int(rng.integers(1, 4))
        for nodules, volume in zip((0, some), rng.permutation(volumes), strict=True):
            yield from films_of(seed, [volume], side, nodules)
    else:
        yield from films_of(seed, volumes, side, None)


def make_shard(path: Path, first: int, part: str) -> None:
    """Simulates one shard of patients and stores it."""
    rows = [(seed, *row) for seed in range(first, first + SHARD) for row in patient(seed, part)]
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez_compressed(
        partial,
        pixels=np.stack([np.round(row[1] * 255).astype(np.uint8) for row in rows]),
        targets=np.array([row[2] for row in rows], np.float32),
        volumes=np.array([row[3] for row in rows], np.float32),
        patients=np.array([row[0] for row in rows], np.int64),
    )
    partial.rename(path)


def load(work: Path, part: str, shards: int) -> Shard:
    """The first shards of one part, together."""
    found = [np.load(work / f"{part}-{i:03d}.npz") for i in range(shards)]
    return Shard(*(np.concatenate([f[key] for f in found]) for key in ("pixels", "targets", "volumes", "patients")))


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 ``[B, H, W]`` -> display values ``[B, 1, H, W]``."""
    return torch.from_numpy(pixels).float().div_(255)[:, None]


def augment(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, shift, scale, turn, tone, blur, grain and a small grey patch: all blind to whether there is fluid.

    Args:
        x: ``[B, 2, H, W]``, pictures and where their nodules are; both are moved, the pictures changed in tone too.
    """
    n, size = len(x), x.shape[-1]

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (n,), generator=generator)

    angle, zoom = between(-0.09, 0.09), between(0.9, 1.1)
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.stack([
        torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), between(-0.06, 0.06)], 1),
        torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), between(-0.06, 0.06)], 1),
    ], 1)  # fmt: skip
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    x, where = x[:, :1], x[:, 1:]
    x = x.clamp(0, 1) ** between(0.75, 1.35).view(-1, 1, 1, 1)
    x = x * between(0.85, 1.12).view(-1, 1, 1, 1) + between(-0.06, 0.06).view(-1, 1, 1, 1)
    soft = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.lerp(x, soft, between(-0.3, 1.0).view(-1, 1, 1, 1))
    x = x + between(0.0, 0.025).view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    x = x.clamp(0, 1)
    for i in torch.nonzero(between(0, 1) < 0.4).flatten().tolist():
        h, w = (int(v) for v in between(size / 15, size / 3.2, 2))
        top, left = int(between(0, size - h, 1)), int(between(0, size - w, 1))
        x[i, :, top : top + h, left : left + w] = between(0, 1, 1)
        where[i, :, top : top + h, left : left + w] = 0
    return x, where


def nodules_of(data: Shard) -> NDArray[np.uint8]:
    """Where the nodules of each film are, 255 or 0: where the same patient's dry films with and without them differ."""
    where = np.zeros_like(data.pixels)
    for patient in np.unique(data.patients):
        rows = np.flatnonzero(data.patients == patient)
        dry = rows[data.volumes[rows] == 0]
        with_some, without = (dry[data.targets[dry, 1] == found] for found in (1, 0))
        if len(with_some) and len(without):
            change = data.pixels[with_some[0]].astype(int) - data.pixels[without[0]]
            where[rows[data.targets[rows, 1] == 1]] = 255 * (change > NODULE_SHOWS)
    return where


class Placed(nn.Module):
    """A net and, for training alone, a head that says at each place of its last features whether a nodule is there."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.net = net
        self.place = nn.Conv2d(net.head.in_features, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.stages(self.net.stem(x))
        return self.net.head(self.net.pool(features).flatten(1)), self.place(features)


def predict(net: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits ``[N, 3]``."""
    net.eval()
    with torch.inference_mode():
        parts = [net((as_input(pixels[i : i + 64]) - MEAN) / STD) for i in range(0, len(pixels), 64)]
    return torch.cat(parts).numpy()


def train(
    rank: int, jobs: int, work: Path, shards: dict[str, int], epochs: int, rate: float, start: Path | None
) -> None:
    """One of ``jobs`` processes that train one net together; the first keeps ``last.safetensors`` and ``log.txt``.

    One-cycle AdamW; each batch holds all films of its patients, which are shared out among the processes.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{(work / 'rendezvous').resolve()}", rank=rank, world_size=jobs)
    net = ResNet(len(CLASSES), WIDTH, BLOCKS)
    if start:
        net.load_state_dict(load_file(start))
    coarse = 0.0 if start else COARSE_SHARE
    together = nn.parallel.DistributedDataParallel(Placed(net).to(memory_format=torch.channels_last))
    data, val = load(work, "train", shards["train"]), load(work, "val", shards["val"])
    both = np.stack([data.pixels, nodules_of(data)], 1)
    generator, rng = torch.Generator().manual_seed(rank), np.random.default_rng(0)
    rows_of = [np.flatnonzero(data.patients == p) for p in np.unique(data.patients)]
    optimiser = torch.optim.AdamW(together.parameters(), lr=rate, weight_decay=0.02)
    a_pass = len(rows_of) // PATIENTS
    step, started, losses = 0, time.monotonic(), []
    for epoch in range(epochs):
        order = rng.permutation(len(rows_of))
        together.train()
        for batch in order[: a_pass * PATIENTS].reshape(a_pass, PATIENTS):
            done = step / (a_pass * epochs)
            optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 40, 0.51 * (1 + np.cos(np.pi * done)))
            index = np.concatenate([rows_of[i] for i in batch[rank::jobs]])
            drawn = torch.from_numpy(both[index]).float().div_(255)
            x, where = augment(F.avg_pool2d(drawn, 2) if done < coarse else drawn, generator)
            logits, places = together(((x - MEAN) / STD).contiguous(memory_format=torch.channels_last))
            there = (F.adaptive_max_pool2d(where, places.shape[-2:]) > 0.5).float()
            found = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(data.targets[index]), reduction="none")
            placed = F.binary_cross_entropy_with_logits(places, there, pos_weight=torch.tensor(PLACE_BALANCE))
            loss = (found * LOSS_WEIGHTS).mean() + PLACE_WEIGHT * placed
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append([*found.detach().mean(0).tolist(), float(placed.detach())])
            step += 1
        if rank:
            continue
        shown = " ".join(f"{value:.3f}" for value in np.mean(losses[-a_pass:], 0))
        line = f"epoch {epoch + 1} of {epochs}, {time.monotonic() - started:.0f} s: losses {shown}"
        if (epoch + 1) * 5 // epochs > epoch * 5 // epochs:
            scores = predict(net, val.pixels)
            aucs = {name: auc(val.targets[:, i], scores[:, i]) for i, name in enumerate(CLASSES)}
            line += ", validation AUC " + ", ".join(f"{name} {value:.4f}" for name, value in aucs.items())
            save_file({k: v.contiguous() for k, v in net.state_dict().items()}, work / "last.safetensors")
        with (work / "log.txt").open("a") as log:
            log.write(line + "\n")
    dist.destroy_process_group()


def temperatures(net: nn.Module, val: Shard) -> list[float]:
    """The factor for each logit, at most 1, that makes the validation probabilities honest (temperature scaling).

    Where validation is told apart without an error any larger factor looks better still. Probabilities would then be
    1 to the last digit, and have no gradient left to explain.
    """
    logits, weight = predict(net, val.pixels), balance(val)
    factors = np.exp(np.linspace(np.log(0.2), 0, 90))
    best = []
    for i in range(3):
        z, t = torch.from_numpy(logits[:, i]), torch.from_numpy(val.targets[:, i])
        w = torch.from_numpy(weight)
        losses = [float(F.binary_cross_entropy_with_logits(z * float(f), t, w)) for f in factors]
        best.append(float(factors[int(np.argmin(losses))]))
    return best


def balance(data: Shard) -> NDArray[np.float32]:
    """Weights under which films with and without fluid count the same."""
    wet = data.volumes > 0
    return np.where(wet, 0.5 / wet.mean(), 0.5 / (1 - wet.mean())).astype(np.float32)


def measure(net: nn.Module, test: Shard, more: Shard) -> dict[str, Any]:
    """What the card reports, from patients that no choice was made on; ``more`` are dry films of others."""
    logits = predict(net, test.pixels)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    names = test.patients.astype(str)
    dry = test.volumes == 0
    by_volume: dict[str, Any] = {}
    for volume in TEST_VOLUMES:
        at = dry | (test.volumes == volume)
        row: dict[str, float] = dict(auc_interval(test.targets[at, 0], logits[at, 0], names[at]))
        row["sensitivity_at_half"] = float((probability[test.volumes == volume, 0] > 0.5).mean())
        by_volume[str(volume)] = row
    large = dry | (test.volumes >= 200)
    some = dry | np.isin(test.volumes, (100, 300))
    pairs = np.flatnonzero(some)
    # As many films without as with fluid, for calibration at the prior the net was trained with.
    repeated = np.concatenate([pairs, np.flatnonzero(dry)])
    return {
        "patients": int(dry.sum()),
        "effusion_by_volume_ml": by_volume,
        "effusion_200_ml_and_more": auc_interval(test.targets[large, 0], logits[large, 0], names[large]),
        "specificity_at_half": float((probability[dry, 0] <= 0.5).mean()),
        "calibration_effusion_100_and_300_ml": calibration(test.targets[repeated, 0], probability[repeated, 0]),
        **others(
            np.concatenate([logits[dry], predict(net, more.pixels)]),
            np.concatenate([test.targets[dry], more.targets]),
            np.concatenate([names[dry], more.patients.astype(str)]),
        ),
    }


def others(logits: NDArray[np.float32], targets: NDArray[np.float32], names: NDArray[np.str_]) -> dict[str, Any]:
    """The findings other than fluid, and whether the score for fluid knows about them, on dry films."""
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    columns = ((1, "nodule"), (2, "cardiomegaly"))
    return {
        "dry_patients": len(names),
        **{
            name: {**auc_interval(targets[:, i], logits[:, i], names), **calibration(targets[:, i], probability[:, i])}
            for i, name in columns
        },
        "effusion_score_on_dry_films": {name: auc(targets[:, i], logits[:, 0]) for i, name in columns},
    }


def resized_512(net: nn.Module, count: int) -> dict[str, float]:
    """AUC at 200 ml when films are simulated at 512 pixels and shrunk, as a user's are."""
    pixels, truth = [], []
    for seed in range(FIRST["test"], FIRST["test"] + count):
        shown = simulate(seed, volume_ml=200, side=SIDES[seed % 3], size=512)
        for picture, label in ((shown.image, 1.0), (shown.twin, 0.0)):
            x = torch.from_numpy(picture)[None, None]
            small = F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)[0, 0]
            pixels.append(np.round(small.numpy() * 255).astype(np.uint8))
            truth.append(label)
    logits = predict(net, np.stack(pixels))[:, 0]
    names = np.repeat(np.arange(count), 2).astype(str)
    return auc_interval(np.array(truth), logits, names)


def main() -> None:
    """Simulate, train, scale, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the simulated films and the log")
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "lucency" / "classifier" / "weights")
    parser.add_argument("--card", type=Path, default=ROOT / "docs" / "models" / "phantom.md")
    parser.add_argument("--patients", type=int, default=800, help="simulated patients to train on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--jobs", type=int, default=2, help="processes that simulate, then train, one thread each")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--simulate-only", action="store_true")
    parser.add_argument("--measure-only", action="store_true", help="the net that was trained last")
    parser.add_argument("--draft", action="store_true", help="use the shards that are there already; no measuring")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    shards = {"val": 2, "train": -(-args.patients // SHARD), "test": 2, "dry": 2}
    todo = [
        (args.work / f"{part}-{i:03d}.npz", FIRST[part] + i * SHARD, part)
        for part, count in shards.items()
        for i in range(count)
    ]
    if args.draft:
        shards["train"] = sum((args.work / f"train-{i:03d}.npz").exists() for i in range(shards["train"]))
        todo = []
    todo = [job for job in todo if not job[0].exists()]
    if todo:
        with ProcessPoolExecutor(args.jobs) as pool:
            list(pool.map(make_shard, *zip(*todo, strict=True)))
    if args.simulate_only:
        return

    if not args.measure_only:
        for name in ("rendezvous", "log.txt"):
            (args.work / name).unlink(missing_ok=True)
        mp.spawn(train, (args.jobs, args.work, shards, args.epochs, args.rate, args.start), nprocs=args.jobs)
    log = (args.work / "log.txt").read_text().splitlines()
    data, val = load(args.work, "train", shards["train"]), load(args.work, "val", shards["val"])
    net = ResNet(len(CLASSES), WIDTH, BLOCKS)
    net.load_state_dict(load_file(args.work / "last.safetensors"))
    scale = temperatures(net, val)
    with torch.no_grad():
        net.head.weight.mul_(torch.tensor(scale)[:, None])
        net.head.bias.mul_(torch.tensor(scale))
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})

    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "phantom.safetensors"
    save_file(state, weights)
    numbers = {} if args.draft else {
        "trained_on_patients": len(np.unique(data.patients)),
        "films": len(data.volumes),
        "validation_patients": len(np.unique(val.patients)),
        "parameters": sum(q.numel() for q in net.parameters()),
        "epochs": len(log),
        "training": history(len(log), args.start),
        "log": log,
        "test": measure(net, load(args.work, "test", shards["test"]), load(args.work, "dry", shards["dry"])),
        "shrunk_from_512_at_200_ml": resized_512(net, 40),
    }  # fmt: skip
    description = {
        "name": "lucency:phantom",
        "architecture": "ResNet",
        "architecture_args": {"classes": len(CLASSES), "width": WIDTH, "blocks": list(BLOCKS)},
        "classes": CLASSES,
        "input_size": [SIZE, SIZE],
        "channels": 1,
        "mean": [MEAN],
        "std": [STD],
        "outputs": "logits",
        "exclusive": False,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "card": "docs/models/phantom.md",
        "results": {"effusion": parts(numbers["test"])} if numbers else {},
    }
    (args.out / "phantom.json").write_text(json.dumps(description, indent=2) + "\n")
    if numbers:
        (args.work / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n")
        args.card.parent.mkdir(parents=True, exist_ok=True)
        args.card.write_text(card(numbers))
        print(json.dumps(numbers, indent=2))


def history(epochs: int, start: Path | None) -> str:
    """How the net was trained, in words; what came before is read beside ``start``."""
    how = f"{epochs} passes, AdamW, one cycle"
    if start is None:
        return f"{how}, first on pictures of half the size"
    before = json.loads((start.parent / "numbers.json").read_text())
    return (
        f"{before['epochs']} passes over {before['trained_on_patients']} of these patients, first on pictures of half "
        f"the size; then {how}, over all of them at full size, nodules with twice the weight and shown to a second head"
    )


def parts(test: dict[str, Any]) -> dict[str, dict[str, float]]:
    """AUC for effusion by what the films held, as the model's description lists it."""
    found = {f"{volume} ml a side": row for volume, row in test["effusion_by_volume_ml"].items()}
    return {**found, "200 ml a side and more": test["effusion_200_ml_and_more"]}


def card(numbers: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    test = numbers["test"]

    def interval(row: dict[str, float]) -> str:
        return f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

    by_volume = "\n".join(
        f"| {volume} | {interval(row)} | {row['sensitivity_at_half']:.2f} |"
        for volume, row in test["effusion_by_volume_ml"].items()
    )
    return CARD.format(
        **{key: numbers[key] for key in ("trained_on_patients", "films", "validation_patients", "training")},
        parameters=f"{numbers['parameters'] / 1e6:.2f}",
        patients=test["patients"],
        dry_patients=test["dry_patients"],
        by_volume=by_volume,
        large=interval(test["effusion_200_ml_and_more"]),
        specificity=f"{test['specificity_at_half']:.2f}",
        ece=f"{test['calibration_effusion_100_and_300_ml']['ece']:.3f}",
        nodule=interval(test["nodule"]),
        nodule_ece=f"{test['nodule']['ece']:.3f}",
        heart=interval(test["cardiomegaly"]),
        heart_ece=f"{test['cardiomegaly']['ece']:.3f}",
        shrunk=interval(numbers["shrunk_from_512_at_200_ml"]),
        by_nodule=f"{test['effusion_score_on_dry_films']['nodule']:.2f}",
        by_heart=f"{test['effusion_score_on_dry_films']['cardiomegaly']:.2f}",
    )


if __name__ == "__main__":
    main()
