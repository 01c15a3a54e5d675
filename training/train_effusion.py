"""Trains ``lucency:effusion`` on the real films, and writes its weights, its numbers and its card.

    python training/train_effusion.py --work work/effusion

SqueezeNet v1.0, trained on ImageNet by others, is fine-tuned from its fourth fire module up on all findings at once.
The films come from three collections in which effusion is more or less frequent; the loss weighs films so that
within each collection fluid and no fluid count the same, so knowing the collection does not help. Several
fine-tunings from the same start are averaged weight by weight (Wortsman et al., "Model soups", ICML 2022); the
validation patients decide which members go in. The test patients are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from films import FINDINGS, Films, part_of, read_boxes, read_films, shared
from lucency.classifier.networks import Fire, SqueezeNet
from scoring import auc, auc_interval, calibration

SIZE, MEAN, STD = 224, 0.449, 0.226
FROZEN = 5
WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "lucency" / "classifier" / "weights"


def pretrained() -> SqueezeNet:
    """SqueezeNet with the ImageNet weights, its first layer folded from BGR 0..255 to one normalised grey channel."""
    net = SqueezeNet(len(FINDINGS))
    old = {k: v.float() for k, v in load_file(shared() / "weights" / "squeezenet1_0-imagenet-fp16.safetensors").items()}
    first = net.features[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    colour = torch.tensor([104.0, 117.0, 123.0])
    with torch.no_grad():
        first.weight.copy_(255 * STD * old["conv1.weight"].sum(1, keepdim=True))
        taps = old["conv1.weight"].sum((2, 3))
        first.bias.copy_(old["conv1.bias"] + (taps * (255 * MEAN - colour)).sum(1))
        fires = [m for m in net.features if isinstance(m, Fire)]
        for number, fire in enumerate(fires, 2):
            parts = {"squeeze": "conv1x1_1", "expand1": "conv1x1_2", "expand3": "conv3x3_2"}
            for ours, theirs in parts.items():
                layer = getattr(fire, ours)
                layer.weight.copy_(old[f"fire{number}/{theirs}.weight"])
                layer.bias.copy_(old[f"fire{number}/{theirs}.bias"])
    return net


def resized(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 ``[B, S, S]`` -> float ``[B, 1, 224, 224]`` in 0..1, the way the library's classifier resizes."""
    x = torch.from_numpy(pixels).float()[:, None] / 255
    return F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)


def augmented(pixels: NDArray[np.uint8], rng: torch.Generator) -> Tensor:
    """Small turns, shifts, zooms and flips; exposure, contrast and grain. uint8 ``[B, S, S]`` -> as above."""
    x = torch.from_numpy(pixels).float()[:, None] / 255
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    angle, zoom = draw(-0.14, 0.14), draw(0.85, 1.08)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = torch.stack([cos * flip, -sin, draw(-0.06, 0.06), sin * flip, cos, draw(-0.06, 0.06)], 1).view(n, 2, 3)
    grid = F.affine_grid(rows, [n, 1, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    gamma, gain, lift = (v.view(n, 1, 1, 1) for v in (draw(0.7, 1.4), draw(0.8, 1.2), draw(-0.08, 0.08)))
    x = (x.clamp(0, 1).pow(gamma) * gain + lift).clamp(0, 1)
    x = x + draw(0, 0.03).view(n, 1, 1, 1) * torch.randn(x.shape, generator=rng)
    # A blank corner or border must not mean anything: markers, tubes and collimators sit there.
    for i in range(n):
        if torch.rand(1, generator=rng) < 0.3:
            h, w = (int(v) for v in torch.randint(16, 64, (2,), generator=rng))
            top, left = (int(v) for v in torch.randint(0, SIZE - 64, (2,), generator=rng))
            x[i, :, top : top + h, left : left + w] = torch.rand(1, generator=rng)
    return x.clamp(0, 1)


def normalised(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


@torch.inference_mode()
def logits_of(net: nn.Module, pixels: NDArray[np.uint8], flip: bool = False) -> NDArray[np.float32]:
    net.eval()
    out = []
    for start in range(0, len(pixels), 64):
        x = normalised(resized(pixels[start : start + 64]))
        out.append((net(x) + net(x.flip(3))) / 2 if flip else net(x))
    return torch.cat(out).numpy()


def film_weights(films: Films, rows: NDArray[np.int_]) -> Tensor:
    """Weights that let fluid and no fluid count the same within each collection, none above 4."""
    fluid, where = films.labels[rows, 0] > 0.5, films.collections[rows]
    weights = np.ones(len(rows), np.float32)
    for collection in np.unique(where):
        for value in (True, False):
            members = (where == collection) & (fluid == value)
            if members.any():
                weights[members] = (where == collection).sum() / (2 * members.sum())
    return torch.from_numpy(np.clip(weights, 0, 4))


def probe_head(net: SqueezeNet, films: Films, rows: NDArray[np.int_]) -> None:
    """Logistic regression on the frozen features, so that fine-tuning starts from a head that fits."""
    net.eval()
    kept = []
    with torch.no_grad():
        for flip in (False, True):
            pixels = films.pixels[rows][:, :, ::-1].copy() if flip else films.pixels[rows]
            for start in range(0, len(pixels), 64):
                x = normalised(resized(pixels[start : start + 64]))
                kept.append(net.pool(net.features(x)).flatten(1))
    features = torch.cat(kept)
    labels = torch.from_numpy(films.labels[rows]).repeat(2, 1)
    weights = film_weights(films, rows).repeat(2)
    mean, std = features.mean(0), features.std(0) + 1e-4
    scaled = (features - mean) / std
    head = nn.Linear(512, len(FINDINGS))
    adam = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1.0)
    for _ in range(300):
        adam.zero_grad()
        loss_of(head(scaled), labels, weights).backward()
        adam.step()
    with torch.no_grad():
        net.head.weight.copy_(head.weight / std)
        net.head.bias.copy_(head.bias - (head.weight / std) @ mean)


def loss_of(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    fluid = F.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 0], reduction="none")
    others = F.binary_cross_entropy_with_logits(logits[:, 1:], labels[:, 1:], reduction="none")
    return (weights * fluid).mean() + others.mean()


def fine_tune(
    start: SqueezeNet, films: Films, train: NDArray[np.int_], check: NDArray[np.int_], epochs: int, seed: int
) -> tuple[SqueezeNet, float]:
    """One member: the moving average of the weights at its best epoch, and its validation score."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = copy.deepcopy(start)
    average = copy.deepcopy(start)
    frozen, upper = net.features[:FROZEN], net.features[FROZEN:]
    upper_parameters = list(upper.parameters())
    adam = torch.optim.AdamW(
        [{"params": upper_parameters, "lr": 2e-4}, {"params": net.head.parameters(), "lr": 1e-3}], weight_decay=2e-2
    )
    per_epoch = len(train) // 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, [2e-4, 1e-3], epochs * per_epoch, pct_start=0.15)
    weights = film_weights(films, train)
    best, best_net = -1.0, copy.deepcopy(average)
    for epoch in range(epochs):
        began = time.perf_counter()
        net.train()
        order = torch.randperm(len(train), generator=rng)[: per_epoch * 32]
        losses = []
        for batch in order.view(-1, 32):
            rows = train[batch.numpy()]
            x = normalised(augmented(films.pixels[rows], rng))
            with torch.no_grad():
                lower = frozen(x)
            logits = net.head(net.dropout(net.pool(upper(lower)).flatten(1)))
            loss = loss_of(logits, torch.from_numpy(films.labels[rows]), weights[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for ours, theirs in zip(average.parameters(), net.parameters(), strict=True):
                    ours.lerp_(theirs, 0.02)
        score = selection(films, check, logits_of(average, films.pixels[check])[:, 0])
        print(
            f"seed {seed} epoch {epoch}: loss {np.mean(losses):.3f} validation {score:.4f} "
            f"({time.perf_counter() - began:.0f} s)", flush=True,
        )  # fmt: skip
        if score > best:
            best, best_net = score, copy.deepcopy(average)
    return best_net, best


def selection(films: Films, rows: NDArray[np.int_], score: NDArray[np.float32]) -> float:
    """What validation is judged by: the mean of the AUC over all and the AUCs within each collection."""
    truth, where = films.labels[rows, 0], films.collections[rows]
    within = [auc(truth[where == c], score[where == c]) for c in np.unique(where)]
    return float(np.nanmean([auc(truth, score), *within]))


def calibrate(net: SqueezeNet, films: Films, rows: NDArray[np.int_]) -> None:
    """Platt scaling of each output on the validation patients, folded into the head."""
    logits = torch.from_numpy(logits_of(net, films.pixels[rows]))
    labels = torch.from_numpy(films.labels[rows])
    scale = torch.ones(logits.shape[1], requires_grad=True)
    shift = torch.zeros(logits.shape[1], requires_grad=True)
    lbfgs = torch.optim.LBFGS([scale, shift], max_iter=200)

    def closure() -> Tensor:
        lbfgs.zero_grad()
        # A pull towards scale 1 keeps findings with a handful of validation films from running away.
        loss = F.binary_cross_entropy_with_logits(logits * scale + shift, labels) + 1e-3 * (scale - 1).square().mean()
        loss.backward()
        return loss

    lbfgs.step(closure)
    with torch.no_grad():
        net.head.weight.mul_(scale[:, None])
        net.head.bias.mul_(scale).add_(shift)


def borders_blanked(pixels: NDArray[np.uint8], share: float = 0.08) -> NDArray[np.uint8]:
    edge = round(share * pixels.shape[1])
    blank = np.broadcast_to(pixels.mean((1, 2), keepdims=True), pixels.shape).astype(np.uint8).copy()
    blank[:, edge:-edge, edge:-edge] = pixels[:, edge:-edge, edge:-edge]
    return blank


@torch.inference_mode()
def boxes_found(net: SqueezeNet, films: Films, rows: NDArray[np.int_]) -> dict[str, float]:
    """The class activation map against the radiologists' effusion boxes: pointing game and share of mass, by chance."""
    boxes = read_boxes()
    hits, mass, chance = [], [], []
    for row in rows:
        if films.names[row] not in boxes:
            continue
        x, y, w, h = (v / 512 * SIZE for v in boxes[films.names[row]])
        features = net.features(normalised(resized(films.pixels[row][None])))
        cam = torch.einsum("k,khw->hw", net.head.weight[0], features[0]).clamp_min(0)
        cam = F.interpolate(cam[None, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
        at = divmod(int(cam.argmax()), SIZE)
        hits.append(x <= at[1] <= x + w and y <= at[0] <= y + h)
        inside = cam[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1].sum()
        mass.append(float(inside / cam.sum().clamp_min(1e-9)))
        chance.append(w * h / SIZE**2)
    return {
        "films": len(hits), "pointing_game": float(np.mean(hits)), "mass_in_box": float(np.mean(mass)),
        "chance": float(np.mean(chance)),
    }  # fmt: skip


def report(net: SqueezeNet, films: Films, rows: NDArray[np.int_]) -> dict[str, object]:
    """Everything the card says about the test patients."""
    logits = logits_of(net, films.pixels[rows])
    score, truth = logits[:, 0], films.labels[rows, 0]
    where, view, who = films.collections[rows], films.views[rows], films.patients[rows]
    blanked = logits_of(net, borders_blanked(films.pixels[rows]))[:, 0]
    probability = 1 / (1 + np.exp(-score.astype(np.float64)))
    return {
        "test_films": len(rows),
        "test_patients": len(np.unique(who)),
        "effusion": {
            "all": auc_interval(truth, score, who),
            **{
                f"collection {c}": auc_interval(truth[where == c], score[where == c], who[where == c])
                for c in np.unique(where)
            },
            **{f"view {v}": auc_interval(truth[view == v], score[view == v], who[view == v]) for v in np.unique(view)},
        },
        "calibration": calibration(truth, probability),
        "others": {
            name: auc_interval(films.labels[rows, i], logits[:, i], who)
            for i, name in enumerate(FINDINGS)
            if i and films.labels[rows, i].sum() >= 5
        },
        "collection_from_score": {
            f"{c} against the rest, films without effusion": auc_interval(
                (where[truth < 0.5] == c).astype(np.float32), score[truth < 0.5], who[truth < 0.5]
            )
            for c in np.unique(where)
        },
        "borders_blanked": {
            "auc": auc_interval(truth, blanked, who),
            "mean_change_of_probability": float(np.mean(np.abs(1 / (1 + np.exp(-blanked)) - probability))),
        },
        "boxes": boxes_found(net, films, rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/effusion"))
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=14)
    arguments = parser.parse_args()
    began = time.perf_counter()
    films = read_films(arguments.work)
    boxed = set(read_boxes())
    held_out = {p for n, p in zip(films.names, films.patients, strict=True) if n in boxed}
    parts = np.array(part_of(list(films.patients), held_out))
    train, check, test = (np.flatnonzero(parts == p) for p in ("train", "validation", "test"))
    print({p: (len(r), int(films.labels[r, 0].sum())) for p, r in (("train", train), ("val", check), ("test", test))})

    start = pretrained()
    probe_head(start, films, train)
    print(f"frozen features: validation {selection(films, check, logits_of(start, films.pixels[check])[:, 0]):.4f}")
    members = []
    soup, best = start, -1.0
    for seed in range(arguments.members):
        member, alone = fine_tune(start, films, train, check, arguments.epochs, seed)
        members.append(member)
        mixed = copy.deepcopy(start)
        with torch.no_grad():
            for ours, *theirs in zip(mixed.parameters(), *(m.parameters() for m in members), strict=True):
                ours.copy_(torch.stack(list(theirs)).mean(0))
        score = selection(films, check, logits_of(mixed, films.pixels[check])[:, 0])
        print(f"member {seed}: alone {alone:.4f}, soup of {len(members)} {score:.4f}", flush=True)
        if score >= best:
            soup, best = mixed, score
        else:
            members.pop()
        torch.save(soup.state_dict(), arguments.work / "soup.pt")
    net = soup.half().float()
    calibrate(net, films, check)
    net = net.half().float()
    results = {
        "validation": best,
        "members": len(members),
        "minutes": (time.perf_counter() - began) / 60,
        "films": {"train": len(train), "validation": len(check), "test": len(test)},
        **report(net, films, test),
    }
    export(net, results)


def export(net: SqueezeNet, results: dict[str, object]) -> None:
    """Weights in half precision, what a loader has to know, and the numbers for the card."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    path = WEIGHTS / "effusion.safetensors"
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, path)
    about = {
        "name": "lucency:effusion",
        "architecture": "SqueezeNet",
        "architecture_args": {"classes": len(FINDINGS)},
        "classes": list(FINDINGS),
        "input_size": [SIZE, SIZE],
        "channels": 1,
        "mean": [MEAN],
        "std": [STD],
        "outputs": "logits",
        "exclusive": False,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "card": "docs/models/effusion.md",
        "results": results,
    }
    (WEIGHTS / "effusion.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
