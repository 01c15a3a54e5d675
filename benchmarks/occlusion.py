"""Exact occlusion against Captum and MONAI: the same network, scan and patches, interleaved in one run.

    python benchmarks/occlusion.py [--networks resnet18 ...] [--sizes 224 512] [--rounds 3] [--whole] [--out FILE]

Each round measures every contender on the same patches, one after the other, and a ratio is taken within its round,
so that a busy machine slows both sides of it. Time is the processor time of this process (all its threads), because
other work on the machine stretches the time on the wall. The peers run at the batch size, of those tried, at which
Captum is fastest. MONAI knows whole grids only, so it runs on a box of as many patches; its time is for each
evaluation, and it is timed in the first round.

A whole map has hundreds of patches. Timed is a sample: patches of one alignment to the network's stride, which
cover the whole scan, and of another alignment in each round. Lucency has opened the scan and measured its ways of
computing before: on a whole map that costs it the time of some ten evaluations. With ``--whole`` it is the maps
themselves, by the classes that the packages offer, from a fresh engine on, once. The networks have random weights:
speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from lucency import Scan
from lucency.attribution import attribute
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.engine.graph import traced
from lucency.engine.incremental import Incremental
from lucency.masks import Patches
from lucency.methods.occlusion import Occlusion
from lucency.removal import Constant
from networks import network

PATCH, STRIDE = 16, 8
BATCHES = (1, 4, 16)


def clock(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """A result, and the processor seconds that it took."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


@contextmanager
def counted(net: nn.Module) -> Iterator[list[int]]:
    """How many scans go through the network."""
    seen: list[int] = []
    hook = net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        hook.remove()


def monai(net: nn.Module, x: Tensor, batch: int, patches: int) -> float:
    """Processor seconds for each evaluation of MONAI's occlusion."""
    from monai.visualize import OcclusionSensitivity

    rows = round(patches**0.5)
    box = [v for n in x.shape[2:] for v in (n // 2, n // 2 + PATCH + (rows - 1) * STRIDE)]
    how = OcclusionSensitivity(
        net, mask_size=PATCH, overlap=1 - STRIDE / PATCH, n_batch=batch, mode=0.5, verbose=False, activate="softmax"
    )
    with counted(net) as seen:
        _, seconds = clock(lambda: how(x, b_box=box)[0])
    return seconds / sum(seen)


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


def measure(name: str, size: int, rounds: int, samples: int) -> Iterator[dict[str, object]]:
    """The row so far, after each round."""
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
    probe = Engine(classifier, device="cpu").open(Scan(x[0]), question, Constant(0.5))

    def lucency(boxes: Tensor, masks: Tensor) -> Tensor:
        return (probe.clean - probe.scores(masks, boxes))[:, 0]

    boxes, masks = sample(0)
    with torch.no_grad():
        best = min(BATCHES, key=lambda b: clock(lambda: captum(net, x, target, boxes[:b], b))[1] / (b + 1))
        for _ in range(5):
            lucency(boxes, masks)
    theirs, ours, differences, ranks = [], [], [], []
    row: dict[str, object] = {
        "network": name, "size": size, "patches": len(patches), "timed": samples, "batch": best, "bound": bound(net, x)
    }  # fmt: skip
    for turn in range(rounds):
        boxes, masks = sample(turn)
        with torch.no_grad(), counted(net) as seen:
            falls, seconds = clock(partial(captum, net, x, target, boxes, best))
            theirs.append(seconds / sum(seen))
        with torch.no_grad():
            found, seconds = clock(partial(lucency, boxes, masks))
            ours.append(seconds / len(boxes))
            differences.append(float((found - falls).abs().max()))
            ranks.append(float(spearmanr(found, falls).statistic))
            if turn == 0:
                row["monai"] = 1e3 * monai(net, x, best, samples)
        ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
        yield row | {
            "rounds": turn + 1,
            "captum": 1e3 * statistics.median(theirs), "lucency": 1e3 * statistics.median(ours),
            "ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1],
            "difference": max(differences), "rank": min(ranks), "gigabytes": gigabytes(),
        }  # fmt: skip


def gigabytes() -> float:
    """The peak of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def whole(name: str, size: int) -> dict[str, object]:
    """One whole map by each contender."""
    from captum.attr import Occlusion as Captum
    from monai.visualize import OcclusionSensitivity

    net = network(name)
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = int(net(x).argmax())
    classifier = Classifier(
        net, name=name, classes=[str(i) for i in range(1000)], fingerprint=name, module=net, exclusive=True
    )
    probability = lambda inputs: net(inputs).softmax(1)  # noqa: E731
    monai = OcclusionSensitivity(
        net, mask_size=PATCH, overlap=1 - STRIDE / PATCH, n_batch=BATCHES[-1], mode=0.5, verbose=False,
        activate="softmax",
    )  # fmt: skip
    row: dict[str, object] = {"network": name, "size": size}
    with torch.no_grad():
        with counted(net) as seen:
            theirs, row["captum seconds"] = clock(
                lambda: Captum(probability).attribute(
                    x, (3, PATCH, PATCH), (3, STRIDE, STRIDE), baselines=0.5, target=target,
                    perturbations_per_eval=BATCHES[-1],
                )[0, 0]
            )  # fmt: skip
        row["captum evaluations"] = sum(seen)
        with counted(net) as seen:
            _, row["monai seconds"] = clock(lambda: monai(x)[0])
        row["monai evaluations"] = sum(seen)
    began = time.process_time()
    ours = attribute(
        Scan(x[0]),
        Engine(classifier, device="cpu"),
        Occlusion(patch=PATCH, stride=STRIDE, removal=Constant(0.5), features=False),
        target=target,
    )
    row["lucency seconds"] = time.process_time() - began
    row["lucency evaluations"] = ours.provenance.cost.evaluations
    row["difference"] = float((torch.from_numpy(ours.heatmap) - theirs).abs().max())
    row["rank"] = float(spearmanr(ours.heatmap.ravel(), theirs.numpy().ravel()).statistic)
    return row | {"gigabytes": gigabytes()}


def bound(net: nn.Module, x: Tensor) -> float:
    """How many times fewer multiplications the best windows need than the whole network, copies not counted."""
    graph = traced(net, x)
    assert graph is not None
    with torch.inference_mode():
        state = Incremental(graph, x)
    whole = state.plan((PATCH, PATCH), 0.0)
    return whole.products / min(state.plan((PATCH, PATCH), share).products for share in (0.6, 0.95, 1.5))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50", "densenet121", "vgg16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--whole", action="store_true", help="whole maps instead of samples of patches")
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
            samples = max(8, args.samples * 224 // size)
            for row in [whole(name, size)] if args.whole else measure(name, size, args.rounds, samples):
                print(json.dumps(row), flush=True)
                args.out.write_text(json.dumps({"machine": machine, "rows": [*rows, row]}, indent=1))
            rows.append(row)


if __name__ == "__main__":
    main()
