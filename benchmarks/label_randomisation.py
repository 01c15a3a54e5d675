"""Does a map depend on what the labels taught? The second sanity check of Adebayo et al. (NeurIPS 2018).

    python benchmarks/label_randomisation.py [--films 300] [--scans 20] [--out FILE]

The same small network learns the same simulated films three times: with the true labels (effusion or not), with them
from another start, and with labels dealt out at random, which it can only learn by heart. A map of the net with random
labels should differ from the map of the first net more than that of the second does. Rank correlations over the pixels,
absolute values as in the paper, on simulated films with fluid that none of the three has seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lucency import Scan
from lucency.attribution import attribute
from lucency.classifier import Classifier
from lucency.classifier.networks import ResNet
from lucency.engine import Engine
from lucency.methods import Method, method_named
from lucency.methods.occlusion import Occlusion
from lucency.metrics.bootstrap import interval
from lucency.metrics.similarity import rank_correlation
from lucency.phantom import simulate

SIZE, SEEDS, OTHERS = 112, 11_000_000, 12_000_000
BATCH, ENOUGH = 32, 0.99
METHODS: dict[str, Method] = {
    **{
        name: method_named(name)
        for name in ("gradient", "gradient_x_input", "guided_backprop", "deconvnet", "integrated_gradients", "gradcam")
    },
    "occlusion": Occlusion(patch=8, features=False),
}


def film(seed: int, wet: bool) -> Tensor:
    """Float32 ``[1, 112, 112]`` in 0..1, with 100 to 800 ml of fluid or dry."""
    rng = np.random.default_rng(seed)
    volume, side = float(rng.uniform(100, 800)), str(rng.choice(["left", "right"]))
    made = simulate(seed, volume_ml=volume if wet else 0.0, side=side, size=2 * SIZE)
    return F.avg_pool2d(torch.from_numpy(made.image)[None], 2)


def trained(x: Tensor, labels: Tensor, seed: int, epochs: int) -> tuple[ResNet, float]:
    """A network and the share of the films that it has learnt; ends when it is nearly all of them."""
    torch.manual_seed(seed)
    net = ResNet(1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    right = 0.0
    for _ in range(epochs):
        net.train()
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.binary_cross_entropy_with_logits(net(x[batch])[:, 0], labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.inference_mode():
            right = float(((net(x)[:, 0] > 0) == (labels > 0.5)).float().mean())
        if right >= ENOUGH:
            break
    return net, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("out/bench/label_randomisation.json"))
    args = parser.parse_args()
    labels = (torch.arange(args.films) % 2).float()
    x = torch.stack([film(SEEDS + i, bool(labels[i])) for i in range(args.films)])
    dealt = labels[torch.randperm(args.films, generator=torch.Generator().manual_seed(0))]
    nets = {}
    for name, told, seed in (("true", labels, 0), ("again", labels, 1), ("random", dealt, 0)):
        net, right = trained(x, told, seed, args.epochs)
        print(f"{name}: has learnt {right:.1%} of {args.films} films", flush=True)
        nets[name] = Classifier(net, name=name, classes=["effusion"], fingerprint=name, module=net)
    rows = []
    for method, how in METHODS.items():
        alike: dict[str, list[float]] = {"again": [], "random": []}
        for i in range(args.scans):
            scan = Scan(film(OTHERS + i, True))
            maps = {
                n: np.abs(attribute(scan, Engine(c), how, target=0, watch="logit").heatmap) for n, c in nets.items()
            }
            for other, values in alike.items():
                values.append(rank_correlation(maps["true"], maps[other]))
        apart = [a - b for a, b in zip(alike["again"], alike["random"], strict=True)]
        rows.append({"method": method, **{k: interval(v) for k, v in alike.items()}, "apart": interval(apart)})
        print(json.dumps(rows[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
