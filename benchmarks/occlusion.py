"""Occlusion against Captum: the same network, scan and patches, interleaved in one run.

    python benchmarks/occlusion.py [--networks resnet18 ...] [--sizes 224 512] [--rounds 2] [--out FILE]

Each round measures every contender on the same patches, one after the other, and a ratio is taken within its round,
so that a busy machine slows both sides of it. Time is the processor time of this process (all its threads), because
other work on the machine stretches the time on the wall. Captum runs at the batch size, of those tried, at which it is
fastest.

A whole map has hundreds of patches. Timed is a sample: the patches of one alignment to the network's stride, which
cover the whole scan, and of another alignment in each round. Both sides compute the very same ones. Lucency has
opened the scan and measured its ways of computing before: on a whole map that costs it the time of some ten
evaluations, and with a tolerance up to 112 evaluations more. The networks have random weights: speed does not depend
on them, but how fast a change fades does, so that what a tolerance saves on a trained network may differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from lucency import Scan
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.masks import Patches
from lucency.removal import Constant
from networks import network

PATCH, STRIDE = 16, 8
BATCHES = (4, 16)


def clock(work: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """A result, the processor seconds and the seconds on the wall that it took."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.process_time() - processor, time.perf_counter() - wall


def captum(net: nn.Module, x: Tensor, target: int, boxes: Tensor, batch: int) -> Tensor:
    """Falls by captum.attr.FeatureAblation, of which Captum's Occlusion is a subclass: here the patches are a sample,
    and Occlusion knows whole grids only."""
    from captum.attr import FeatureAblation

    mask = torch.zeros(x.shape[2:], dtype=torch.long)
    for i, ((top, bottom), (left, right)) in enumerate(boxes.tolist(), 1):
        mask[top:bottom, left:right] = i
    probability = lambda inputs: net(inputs).softmax(1)  # noqa: E731
    falls = FeatureAblation(probability).attribute(
        x, baselines=0.5, target=target, feature_mask=mask.expand(1, 1, -1, -1), perturbations_per_eval=batch
    )
    return torch.stack([falls[0, 0, top, left] for (top, _), (left, _) in boxes.tolist()])


def measure(name: str, size: int, rounds: int, samples: int) -> dict[str, object]:
    net = network(name)
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = int(net(x).argmax())
    patches = Patches((size, size), (PATCH,) * 2, (STRIDE,) * 2)

    def sample(turn: int) -> tuple[Tensor, Tensor]:
        at = torch.tensor([8 * (turn % 4), 8 * ((turn + 1) // 2 % 4)])
        (alike,) = (patches.boxes[:, :, 0] % 32 == at).all(1).nonzero(as_tuple=True)
        which = alike[torch.linspace(0, len(alike) - 1, samples).long()]
        return patches.boxes[which], patches.masks(which)

    classifier = Classifier(
        net, name=name, classes=[str(i) for i in range(1000)], fingerprint=name, module=net, exclusive=True
    )
    question = Question.ask(classifier, Scan(x[0]), target, "probability")
    engines = {
        "lucency": Engine(classifier, device="cpu"),
        "lucency, tolerance": Engine(classifier, device="cpu", tolerance=1e-2),
    }

    probes = {label: engine.open(Scan(x[0]), question, Constant(0.5)) for label, engine in engines.items()}

    def lucency(label: str, boxes: Tensor, masks: Tensor) -> Tensor:
        return (probes[label].clean - probes[label].scores(masks, boxes))[:, 0]

    boxes, masks = sample(0)
    with torch.no_grad():
        best = min(BATCHES, key=lambda b: clock(lambda: captum(net, x, target, boxes[:b], b))[1] / (b + 1))
        for label in engines:
            for _ in range(3):
                lucency(label, boxes, masks)
    seconds: dict[str, list[float]] = {"captum": [], **{label: [] for label in engines}}
    differences: dict[str, list[float]] = {label: [] for label in engines}
    ranks: dict[str, list[float]] = {label: [] for label in engines}
    for turn in range(rounds):
        boxes, masks = sample(turn)
        with torch.no_grad():
            theirs, processor, _ = clock(partial(captum, net, x, target, boxes, best))
            # Captum also hides the background, and looks at the clean scan.
            seconds["captum"].append(processor / (len(boxes) + 2))
            for label in engines:
                ours, processor, _ = clock(partial(lucency, label, boxes, masks))
                seconds[label].append(processor / len(boxes))
                differences[label].append(float((ours - theirs).abs().max()))
                ranks[label].append(float(spearmanr(ours, theirs).statistic))
    row: dict[str, object] = {
        "network": name, "size": size, "patches": samples, "captum's batch": best,
        "captum": {"milliseconds": 1e3 * statistics.median(seconds["captum"])},
        "facts": probes["lucency, tolerance"].facts,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip
    for label in engines:
        ratios = sorted(a / b for a, b in zip(seconds["captum"], seconds[label], strict=True))
        row[label] = {
            "milliseconds": 1e3 * statistics.median(seconds[label]),
            "ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1],
            "difference": max(differences[label]), "rank": min(ranks[label]),
        }  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50", "densenet121", "vgg16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("out/bench/occlusion.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    machine = f"{platform.machine()} {kind}, {threads} thread(s), PyTorch {torch.__version__}"
    rows: list[dict[str, object]] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for size in args.sizes:
        for name in args.networks:
            rows.append(measure(name, size, args.rounds, max(8, args.samples * 224 // size)))
            print(json.dumps(rows[-1]), flush=True)
            args.out.write_text(json.dumps({"machine": machine, "rounds": args.rounds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
