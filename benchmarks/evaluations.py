"""Fewer evaluations for the same answer, on simulated effusions and the shipped model, against the brute-force answer.

    python benchmarks/evaluations.py [--parts occlusion lime kernel_shap gradients masks] [--phantoms 3] [--out FILE]

occlusion   with a tolerance of 0.01 against every patch: evaluations, largest difference, rank correlation
lime        samples until the five superpixels on top agree between seeds to a Jaccard index of 0.9 (as a mean over
            pairs of seeds), for the ``lime`` package (its own segments, samples and fit) and for Lucency on the same
            segments; and where Lucency's own rule stops, and how well its runs agree there
kernel_shap error of the Shapley values of superpixels by evaluations, for Kernel SHAP and permutations of the ``shap``
            package and for Lucency, against 200 pairs of opposite permutations
gradients   gradients of the adaptive rule of integrated gradients for a completeness gap under 1 %, and the gap of
            Captum's rule by its number of steps (50 are its default)
masks       the score that learned masks leave, what they cover and how well they rank the pixels (area under deletion
            curves), by iterations and gradients; 300 iterations are the reference

Counts, so that a busy machine changes nothing. The phantoms come from seeds that nothing was trained or tuned on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from lucency import Scan, evaluate, load_classifier
from lucency.attribution import attribute
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.masks.designs import balanced_switches
from lucency.masks.smooth import resized
from lucency.masks.superpixels import Slic, switched
from lucency.methods import Method
from lucency.methods.cam import GradCam
from lucency.methods.extremal_perturbation import ExtremalPerturbation
from lucency.methods.igos_pp import IGOSpp
from lucency.methods.integrated_gradients import IntegratedGradients
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.lime import kernel, weighted_ridge
from lucency.methods.meaningful_perturbation import MeaningfulPerturbation
from lucency.methods.occlusion import Occlusion
from lucency.methods.repeatable import expected_agreement
from lucency.phantom import simulate
from lucency.removal import Mean, SegmentMean, of_pieces

SEEDS = 9_000_000
TOP, AGREEMENT = 5, 0.9
Row = dict[str, Any]


def phantom(index: int) -> Scan:
    rng = np.random.default_rng([SEEDS, index])
    made = simulate(SEEDS + index, volume_ml=float(rng.uniform(40, 160)), side=str(rng.choice(["left", "right"])))
    return Scan(torch.from_numpy(made.image)[None], spacing=made.spacing_mm, source=f"phantom {SEEDS + index}")


def occlusion(classifier: Classifier, scan: Scan) -> Iterator[Row]:
    every = attribute(scan, Engine(classifier, device="cpu"), "occlusion")
    near = attribute(scan, Engine(classifier, device="cpu", tolerance=0.01), "occlusion")
    yield {
        "evaluations": every.provenance.cost.evaluations,
        "with tolerance": near.provenance.cost.evaluations,
        "difference": float(np.abs(near.heatmap - every.heatmap).max()),
        "rank": float(spearmanr(near.heatmap.ravel(), every.heatmap.ravel()).statistic),
        "facts": dict(near.facts),
    }


def jaccard(tops: list[set[int]]) -> float:
    return statistics.mean(len(a & b) / len(a | b) for a, b in combinations(tops, 2))


def top(weights: Tensor | NDArray[np.float64]) -> set[int]:
    return set(np.argsort(-np.asarray(weights))[:TOP].tolist())


def needed(agreement: dict[int, float]) -> int | None:
    """The fewest samples from which on the agreement stays."""
    good = [n for n in agreement if all(v >= AGREEMENT for m, v in agreement.items() if m >= n)]
    return min(good, default=None)


def lime(classifier: Classifier, scan: Scan, runs: int = 4, most: int = 1000) -> Iterator[Row]:
    from lime.lime_base import LimeBase
    from lime.lime_image import LimeImageExplainer

    pixels = classifier.prepare(scan)
    labels = Slic().labels(pixels)
    pieces = int(labels.max()) + 1
    question = Question.ask(classifier, scan, None)
    engine = Engine(classifier, device="cpu")
    counts = [n for n in (64, 96, 128, 192, 256, 384, 512, 768, 1000) if n <= most]
    probe = engine.open(scan, question, of_pieces(SegmentMean(), labels))
    image = pixels[:1].permute(1, 2, 0).expand(-1, -1, 3).double().numpy()
    grey = np.stack([image[labels == s].mean(0) for s in range(pieces)])[labels]

    def predict(images: NDArray[np.float64]) -> NDArray[np.float64]:
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()[:, : pixels.shape[0]]
        return probe.scores_of(x)[:, :1].double().numpy()

    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    theirs: dict[int, list[set[int]]] = {n: [] for n in counts}
    ours: dict[int, list[set[int]]] = {n: [] for n in counts}
    stops, stopped = [], []
    for seed in range(runs):
        explainer = LimeImageExplainer(random_state=seed, feature_selection="none")
        on, scores = explainer.data_labels(image, grey, labels.numpy(), predict, most, batch_size=32)
        distance = 1 - np.sqrt(on.mean(1))
        for n in counts:
            weights = base.explain_instance_with_data(on[:n], scores[:n], distance[:n], 0, pieces, "none")[1]
            theirs[n].append(top(np.array([w for _, w in sorted(weights)])))
        switches = balanced_switches(most - 1, pieces, torch.Generator().manual_seed(seed))
        z = torch.cat([torch.ones_like(switches[:1]), switches])
        y = probe.scores(switched(labels, z))[:, 0]
        stop = None
        for n in (*range(16, most, 16), most):
            fit = weighted_ridge(z[:n], y[:n], kernel(z[:n], 0.25), 1.0)
            enough = n > 2.5 * (pieces + 1) and expected_agreement(fit.weights, fit.standard_error, TOP) >= AGREEMENT
            if stop is None and (enough or n == most):
                stop = n
                stopped.append(top(fit.weights))
        stops.append(stop)
        for n in counts:
            ours[n].append(top(weighted_ridge(z[:n], y[:n], kernel(z[:n], 0.25), 1.0).weights))
        if seed > 0:
            agree = [{n: jaccard(v) for n, v in side.items()} for side in (theirs, ours)]
            row = {
                "runs": seed + 1, "superpixels": pieces, "lime": agree[0], "lucency": agree[1],
                "lime needs": needed(agree[0]), "lucency needs": needed(agree[1]),
                "rule stops at": stops.copy(), "agreement there": jaccard(stopped),
            }  # fmt: skip
            print(json.dumps(row), flush=True)
    yield row


def kernel_shap(classifier: Classifier, scan: Scan, runs: int = 3, pairs: int = 200) -> Iterator[Row]:
    import shap

    labels = Slic().labels(classifier.prepare(scan))
    pieces = int(labels.max()) + 1
    engine = Engine(classifier, device="cpu")
    question = Question.ask(classifier, scan, None)
    probe = engine.open(scan, question, of_pieces(SegmentMean(), labels))

    def score(on: NDArray[np.float64]) -> NDArray[np.float64]:
        z = torch.from_numpy(np.asarray(on, np.float32))
        return np.concatenate([probe.scores(switched(labels, part))[:, 0].double() for part in z.split(64)])

    rng = np.random.default_rng(0)
    added = []
    for order in (o for p in (rng.permutation(pieces) for _ in range(pairs)) for o in (p, p[::-1])):
        ladder = np.zeros((pieces + 1, pieces))
        for step, piece in enumerate(order, 1):
            ladder[step:, piece] = 1
        added.append(np.empty(pieces))
        added[-1][order] = np.diff(score(ladder))
    reference = np.mean(added, 0)
    none, everything = np.zeros((1, pieces)), np.ones((1, pieces))
    of_reference = np.reshape(added, (pairs, 2, pieces)).mean(1).std(0, ddof=1) / np.sqrt(pairs)

    def kernel_shap(samples: int, seed: int) -> NDArray[np.float64]:
        np.random.seed(seed)  # noqa: NPY002 - the package draws from the generator of old
        explainer = shap.KernelExplainer(score, none)
        return np.asarray(explainer.shap_values(everything, nsamples=samples, l1_reg=False, silent=True)).reshape(-1)

    def permutations(samples: int, seed: int) -> NDArray[np.float64]:
        explainer = shap.PermutationExplainer(score, shap.maskers.Independent(none), seed=seed)
        return np.asarray(explainer(everything, max_evals=samples, silent=True).values).reshape(-1)

    def ours(samples: int, seed: int) -> NDArray[np.float64]:
        *_, last = KernelShap(samples=samples).steps(scan, question, engine.seeded(seed))
        total = torch.zeros(pieces).double().index_add_(0, labels.flatten(), last.heatmap().flatten().double())
        return (total / labels.flatten().bincount()).numpy()

    for samples in (256, 512, 1024):
        row: Row = {"superpixels": pieces, "samples": samples, "error of the reference": float(of_reference.mean())}
        for name, how in (("shap kernel", kernel_shap), ("shap permutation", permutations), ("lucency", ours)):
            off, asked = [], []
            for seed in range(runs):
                before = probe.evaluations
                off.append(how(samples, seed) - reference)
                asked.append(probe.evaluations - before)
            row[name] = float(np.sqrt(np.mean(np.square(off))))
            row[f"{name} evaluations"] = asked[0] if name != "lucency" else samples + 2
        yield row


def gradients(classifier: Classifier, scan: Scan) -> Iterator[Row]:
    from captum.attr import IntegratedGradients as Captum

    ours = attribute(scan, Engine(classifier, device="cpu"), IntegratedGradients())
    x = classifier.prepare(scan)[None]
    target = classifier.classes.index(ours.target)

    def probability(x: Tensor) -> Tensor:
        return classifier.probabilities(classifier(x))[:, target]

    gaps = {}
    for steps in (15, 25, 50, 100, 200, 400):
        theirs = Captum(probability).attribute(x, baselines=torch.zeros_like(x), n_steps=steps, internal_batch_size=5)
        difference = float(ours.facts["score difference"])
        gaps[steps] = abs(difference - float(theirs.sum())) / abs(difference)
    yield {
        "gradients": ours.provenance.cost.gradients, "gap": ours.facts["relative completeness gap"],
        "score difference": ours.facts["score difference"], "captum's gap by steps": gaps,
    }  # fmt: skip


# The papers' blur takes no fluid away from these phantoms.
MASKS: dict[str, Method] = {
    "meaningful_perturbation, 300": MeaningfulPerturbation(removal=Mean()),
    "meaningful_perturbation, 30": MeaningfulPerturbation(removal=Mean(), iterations=30),
    "meaningful_perturbation, 30 from nothing removed": MeaningfulPerturbation(
        removal=Mean(), iterations=30, start="blank"
    ),
    "meaningful_perturbation, 30 from Grad-CAM": MeaningfulPerturbation(removal=Mean(), iterations=30, start=GradCam()),
    "meaningful_perturbation, 30 from occlusion": MeaningfulPerturbation(
        removal=Mean(), iterations=30, start=Occlusion(features=False)
    ),
    "extremal_perturbation, 30": ExtremalPerturbation(removal=Mean(), iterations=30),
    "igos_pp, 15": IGOSpp(removal=Mean()),
}


def masks(classifier: Classifier, scan: Scan) -> Iterator[Row]:
    probe = Engine(classifier, device="cpu").open(scan, Question.ask(classifier, scan, None), Mean())
    for name, how in MASKS.items():
        found = attribute(scan, Engine(classifier, device="cpu"), how)
        curve = evaluate({name: found}, scan, classifier, curves=("deletion",), points=56, repeats=1)
        claimed = resized(torch.from_numpy(found.heatmap)[None], probe.grid)
        row = {
            "masks": name, "gradients": found.provenance.cost.gradients,
            "evaluations": found.provenance.cost.evaluations,
            "score under the mask": float(probe.scores(1 - claimed)[0, 0]), "area": float(claimed.mean()),
            "deletion": curve.curve(name, "deletion").auc.value,
        }  # fmt: skip
        yield row


PARTS = {"occlusion": occlusion, "gradients": gradients, "masks": masks, "lime": lime, "kernel_shap": kernel_shap}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--phantoms", type=int, default=3)
    parser.add_argument("--model", default="lucency:phantom")
    parser.add_argument("--out", type=Path, default=Path("out/bench/evaluations.json"))
    args = parser.parse_args()
    classifier = load_classifier(args.model)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for part in args.parts:
        for index in range(args.phantoms):
            for row in PARTS[part](classifier, phantom(index)):
                rows.append({"part": part, "model": args.model, "phantom": index, **row})
                print(json.dumps(rows[-1]), flush=True)
                args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
