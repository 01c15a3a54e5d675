"""Trains ``lucency:phantom`` on simulated chest radiographs, and writes its weights, its numbers and its card.

    python training/train_phantom.py --work work/phantom --out src/lucency/classifier/weights

Each simulated patient is shown with and without fluid, everything else equal, so nothing but the fluid tells the two
apart; nodules, an enlarged heart, devices, the projection and the exposure are drawn independently of it. Training,
validation and test patients have seeds of their own. The simulation is cached in ``--work`` as it goes, by ``--jobs``
processes, and a second run goes on where the first was stopped.
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
WIDTH, BLOCKS = 16, (1, 1, 2, 2)
COARSE_SHARE = 0.7  # most of the way can be learnt on pictures of half the size, for a fifth of the work
FIRST = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
SHARD = 50
PAIRS = 32
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
| Training data | {films} films of {trained_on_patients} simulated patients, each once dry and twice with fluid |
| Fluid | 40 to 250 ml and 150 to 1500 ml on a side; right, left or both |
| Validation, test | {validation_patients} and {patients} other patients; the test patients decided nothing |
| Training | {epochs} passes, AdamW, one cycle, first on pictures of half the size |
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
- Nodules (radius 5 to 14 mm) are a few pixels at this input size, and few phantoms have one. Where the table above
  gives an AUC near 0.5, that output has learnt next to nothing: do not explain it as if it had.
- It has never seen consolidation, collapse, pleural thickening or a real patient; on real films its output means
  nothing.
- Only free fluid of an upright patient was simulated; fluid of a lying patient looks otherwise.

Train it again: `python training/train_phantom.py --work work/phantom`.
"""


@dataclass(frozen=True)
class Shard:
    """Pictures uint8 ``[N, 224, 224]``, targets ``[N, 3]``, volumes ``[N]`` in ml, patients ``[N]``."""

    pixels: NDArray[np.uint8]
    targets: NDArray[np.float32]
    volumes: NDArray[np.float32]
    patients: NDArray[np.int64]


def patient(seed: int, test: bool) -> Iterable[tuple[NDArray[np.float32], list[float], float]]:
    """Pictures of one patient: dry, and with fluid (two volumes for training, the whole ladder for the test)."""
    rng = stream(seed, 99)
    anatomy = Anatomy(draw(seed, SIZE, 0.0, "right", None, None, None, None, None))
    found = [float(anatomy.p.nodules > 0), float(anatomy.p.cardiomegaly)]
    volumes = TEST_VOLUMES if test else np.exp(rng.uniform(np.log((40, 150)), np.log((250, 1500))))
    side = SIDES[int(rng.integers(3))]
    for i, volume in enumerate(volumes):
        try:
            shown = anatomy.render(float(volume), side)
        except ParameterError:
            continue
        if i == 0:
            yield shown.twin, [0.0, *found], 0.0
        yield shown.image, [1.0, *found], float(volume)


def make_shard(path: Path, first: int, test: bool) -> None:
    """Simulates one shard of patients and stores it."""
    rows = [(seed, *row) for seed in range(first, first + SHARD) for row in patient(seed, test)]
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


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, shift, scale, turn, tone, blur, grain and a small grey patch: all blind to whether there is fluid."""
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
    return x


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

    One-cycle AdamW; each batch holds patients with fluid and the same patients without, shared out among the processes.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{(work / 'rendezvous').resolve()}", rank=rank, world_size=jobs)
    net = ResNet(len(CLASSES), WIDTH, BLOCKS)
    if start:
        net.load_state_dict(load_file(start))
    together = nn.parallel.DistributedDataParallel(net)
    data, val = load(work, "train", shards["train"]), load(work, "val", shards["val"])
    generator, rng = torch.Generator().manual_seed(rank), np.random.default_rng(0)
    wet = np.flatnonzero(data.volumes > 0)
    dry_of = {int(p): int(i) for i, p in enumerate(data.patients) if data.volumes[i] == 0}
    dry = np.array([dry_of[int(p)] for p in data.patients[wet]])
    n = len(data.pixels)
    halves = data.pixels.reshape(n, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4)).round().astype(np.uint8)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.02)
    a_pass = len(wet) // PAIRS
    step, started, losses = 0, time.monotonic(), []
    for epoch in range(epochs):
        order = rng.permutation(len(wet))
        together.train()
        for batch in order[: a_pass * PAIRS].reshape(a_pass, PAIRS):
            done = step / (a_pass * epochs)
            optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 40, 0.51 * (1 + np.cos(np.pi * done)))
            pairs = batch[rank::jobs]
            index = np.concatenate([wet[pairs], dry[pairs]])
            x = (augment(as_input((halves if done < COARSE_SHARE else data.pixels)[index]), generator) - MEAN) / STD
            loss = F.binary_cross_entropy_with_logits(together(x), torch.from_numpy(data.targets[index]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            step += 1
        if rank:
            continue
        line = (
            f"epoch {epoch + 1} of {epochs}, {time.monotonic() - started:.0f} s: loss {np.mean(losses[-a_pass:]):.3f}"
        )
        if (epoch + 1) * 5 // epochs > epoch * 5 // epochs:
            scores = predict(net, val.pixels)
            aucs = {name: auc(val.targets[:, i], scores[:, i]) for i, name in enumerate(CLASSES)}
            line += ", validation AUC " + ", ".join(f"{name} {value:.4f}" for name, value in aucs.items())
            save_file(net.state_dict(), work / "last.safetensors")
        with (work / "log.txt").open("a") as log:
            log.write(line + "\n")
    dist.destroy_process_group()


def temperatures(net: nn.Module, val: Shard) -> list[float]:
    """The factor for each logit that makes the validation probabilities honest (temperature scaling)."""
    logits, weight = predict(net, val.pixels), balance(val)
    factors = np.exp(np.linspace(np.log(0.2), np.log(2.5), 120))
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


def measure(net: nn.Module, test: Shard) -> dict[str, Any]:
    """What the card reports, from patients that no choice was made on."""
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
        **{
            name: {**auc_interval(test.targets[dry, i], logits[dry, i], names[dry]),
                   **calibration(test.targets[dry, i], probability[dry, i])}
            for i, name in ((1, "nodule"), (2, "cardiomegaly"))
        },
        "effusion_score_against_distractors_on_dry_films": {
            name: auc(test.targets[dry, i], logits[dry, 0]) for i, name in ((1, "nodule"), (2, "cardiomegaly"))
        },
    }  # fmt: skip


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
    parser.add_argument("--patients", type=int, default=300, help="simulated patients to train on")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--jobs", type=int, default=2, help="processes that simulate, then train, one thread each")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--simulate-only", action="store_true")
    parser.add_argument("--measure-only", action="store_true", help="the net that was trained last")
    parser.add_argument("--draft", action="store_true", help="use the shards that are there already; no measuring")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    shards = {"val": 2, "train": -(-args.patients // SHARD), "test": 2}
    todo = [
        (args.work / f"{part}-{i:03d}.npz", FIRST[part] + i * SHARD, part == "test")
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
        "log": log,
        "test": measure(net, load(args.work, "test", shards["test"])),
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
        **{key: numbers[key] for key in ("trained_on_patients", "films", "validation_patients", "epochs")},
        parameters=f"{numbers['parameters'] / 1e6:.2f}",
        patients=test["patients"],
        by_volume=by_volume,
        large=interval(test["effusion_200_ml_and_more"]),
        specificity=f"{test['specificity_at_half']:.2f}",
        ece=f"{test['calibration_effusion_100_and_300_ml']['ece']:.3f}",
        nodule=interval(test["nodule"]),
        nodule_ece=f"{test['nodule']['ece']:.3f}",
        heart=interval(test["cardiomegaly"]),
        heart_ece=f"{test['cardiomegaly']['ece']:.3f}",
        shrunk=interval(numbers["shrunk_from_512_at_200_ml"]),
        by_nodule=f"{test['effusion_score_against_distractors_on_dry_films']['nodule']:.2f}",
        by_heart=f"{test['effusion_score_against_distractors_on_dry_films']['cardiomegaly']:.2f}",
    )


if __name__ == "__main__":
    main()
