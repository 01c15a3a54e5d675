"""Writes ``docs/agreements.md``: every method beside an independent implementation, on the shipped model and scan.

Run it from the root of the repository: ``python docs/scripts/agreements.py``. It takes about two minutes; the tests
make the same comparisons on smaller networks, in three dimensions and with more settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from captum import attr
from lime.lime_base import LimeBase
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, evaluate, load_classifier, read_scan
from lucency.attribution import attribute
from lucency.engine import Engine
from lucency.masks.designs import balanced_switches
from lucency.masks.grids import RandomGrids
from lucency.masks.superpixels import Cells, Drawn, painted
from lucency.methods.base import Method
from lucency.methods.deconvnet import Deconvnet
from lucency.methods.integrated_gradients import IntegratedGradients
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.lime import Lime
from lucency.methods.occlusion import Occlusion
from lucency.methods.rise import Rise
from lucency.removal import Constant

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Agreement with independent implementations

Same network (`lucency:phantom`), same scan (the one of `make demo`, at the network's 224 pixels), same settings, one
run. The largest difference is over all pixels, as a share of the peer's largest value. This page is written by
`python docs/scripts/agreements.py`.

| method | settings | peer | largest difference |
| --- | --- | --- | --- |
"""
TAIL = """
Methods for which no maintained implementation could be installed beside PyTorch are compared in the tests with their
papers' equations written out again, or with cases whose answer is known in closed form: Grad-CAM++, Layer-CAM, CAM,
blur integrated gradients, expected gradients and SmoothGrad (`tests/test_cam.py`, `tests/test_gradients.py`),
meaningful and extremal perturbation and iGOS++ (`tests/test_learned_masks.py`), the projection of single units
(`tests/test_deconvnet.py`), deletion and insertion by pixels (`tests/test_metrics.py`, against Quantus too).
"""
TARGET = 0
Row = tuple[str, str, str, float]


class Network(nn.Module):
    """The shipped network on display values, as a peer wants it: one module, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = load_classifier("lucency:phantom")
        self.net = self.classifier.network()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x)


def apart(ours: NDArray[np.float32], theirs: Tensor) -> float:
    """The largest difference of two maps ``[H, W]``, as a share of the largest value of the second."""
    peer = theirs.detach().double().numpy()
    return float(np.abs(ours - peer).max() / np.abs(peer).max())


def captum() -> str:
    return f"Captum {version('captum')}"


def rows() -> Iterator[Row]:
    network = Network().eval()
    classifier = network.classifier
    scan = Scan(classifier.prepare(read_scan(ROOT / "src" / "lucency" / "phantom" / "demo.png")))
    x = scan.pixels[None].clone().requires_grad_()

    def ours(method: str | Method, watch: str = "logit", seed: int = 0) -> NDArray[np.float32]:
        return attribute(scan, Engine(classifier, seed=seed), method, target=TARGET, watch=watch).heatmap

    theirs = attr.Occlusion(network).attribute(x, (1, 24, 24), (1, 12, 12), baselines=0.0, target=TARGET)
    how: Method = Occlusion(patch=24, stride=12, removal=Constant(0.0))
    yield "Occlusion", "patch 24, stride 12, black", captum(), apart(ours(how), theirs[0, 0])

    theirs = attr.IntegratedGradients(network).attribute(x, target=TARGET, n_steps=50, method="gausslegendre")
    how = IntegratedGradients(rule="gauss-legendre", alphas=50, removal=Constant(0.0))
    yield "Integrated gradients", "50 Gauss-Legendre points, black", captum(), apart(ours(how), theirs[0, 0])

    peers: dict[str, tuple[str, Callable[[], Tensor]]] = {
        "gradient": ("Gradient", lambda: attr.Saliency(network).attribute(x, TARGET, abs=False)),
        "gradient_x_input": ("Gradient x input", lambda: attr.InputXGradient(network).attribute(x, TARGET)),
        "guided_backprop": ("Guided backprop", lambda: attr.GuidedBackprop(network).attribute(x, TARGET)),
    }
    for name, (title, peer) in peers.items():
        yield title, "of the logit", captum(), apart(ours(name), peer()[0, 0])
    theirs = attr.Deconvolution(network).attribute(x, TARGET)
    yield "Deconvnet", "from the class's logit", captum(), apart(ours(Deconvnet(tour=0)), theirs[0, 0])

    small = attr.LayerGradCam(network, network.net.stages).attribute(x, TARGET, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(small, tuple(scan.pixels.shape[1:]), "bilinear")
    yield "Grad-CAM", "last stage", captum(), apart(ours("gradcam"), theirs[0, 0])

    bands = Cells(3).labels(scan.pixels) // 3
    exact = attr.ShapleyValues(network).attribute(x, 0.0, TARGET, feature_mask=bands[None, None])
    how = KernelShap(superpixels=Drawn(bands), samples=1000, removal=Constant(0.0))
    yield "Kernel SHAP", "3 bands, all coalitions", f"{captum()}, every order", apart(ours(how), exact[0, 0])

    yield lime(scan, network, ours(Lime(Cells(6), samples=300, removal=Constant(0.0)), "probability", 5))
    yield rise(scan, network, ours(Rise(samples=200, centre=False), "probability", 7))
    yield curve(scan, network)


def lime(scan: Scan, network: Network, heatmap: NDArray[np.float32]) -> Row:
    """The package's own fit, of the samples that ours drew."""
    drawn = balanced_switches(299, 36, torch.Generator().manual_seed(5))
    on = torch.cat([torch.ones_like(drawn[:1]), drawn])
    labels = Cells(6).labels(scan.pixels)
    with torch.no_grad():
        parts = [network(scan.pixels * part[:, labels].float()[:, None]) for part in on.split(50)]
    scores = network.classifier.probabilities(torch.cat(parts)).double().numpy()
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    distances = pairwise_distances(on.numpy(), on[:1].numpy(), metric="cosine").ravel()
    _, weights, _, _ = base.explain_instance_with_data(
        on.double().numpy(), scores, distances, TARGET, 100, feature_selection="none"
    )
    theirs = painted(labels, torch.tensor([dict(weights)[s] for s in range(36)]))
    return "LIME", "36 cells, 300 samples, black", f"lime {version('lime')}", apart(heatmap, theirs)


def rise(scan: Scan, network: Network, heatmap: NDArray[np.float32]) -> Row:
    """Equation 6 of the paper, one mask after the other: enlarge the grid, cut it at its shift, weigh it."""
    grid = tuple(scan.pixels.shape[1:])
    cells = Rise().cells
    coins, shifts = RandomGrids(grid, cells, 0.5).draw(200, torch.Generator().manual_seed(7))
    total = torch.zeros(grid, dtype=torch.float64)
    cell = [-(-n // cells) for n in grid]
    for coin, shift in zip(coins, shifts, strict=True):
        size = [(c + 1) * k for c, k in zip(coin.shape, cell, strict=True)]
        large = F.interpolate(coin[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        mask = large[tuple(slice(int(s), int(s) + n) for s, n in zip(shift, grid, strict=True))]
        with torch.no_grad():
            score = network.classifier.probabilities(network(scan.pixels[None] * mask))[0, TARGET]
        total += (score * mask).double() / (200 * 0.5)
    return "RISE", "200 masks", "the paper's equation 6, one mask at a time", apart(heatmap, total)


def curve(scan: Scan, network: Network) -> Row:
    """The perturbation curve of a map, region by region."""
    heatmap = attribute(scan, Engine(network.classifier), "gradcam", target=TARGET).heatmap
    metric = quantus.RegionPerturbation(
        patch_size=14,
        order="morf",
        regions_evaluation=50,
        perturb_baseline=0.25,
        normalise=False,
        disable_warnings=True,
    )
    pixels, asked = scan.pixels[None].numpy(), np.array([TARGET])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        falls = metric(network, pixels, asked, heatmap[None, None], device="cpu", softmax=False)
    ours = evaluate(
        heatmap, scan, network.classifier, target=TARGET, watch="logit", curves=["MoRF"], region=14, regions=50,
        removal=Constant(0.25),
    ).curves[0]  # fmt: skip
    difference = apart((ours.clean - ours.mean[1:]).astype(np.float32), torch.tensor(np.asarray(falls).ravel()))
    return "MoRF curve", "regions of 14 pixels, the 50 first", f"Quantus {version('quantus')}", difference


def main() -> None:
    warnings.filterwarnings("ignore", message="Setting")
    lines = []
    for method, settings, peer, difference in rows():
        lines.append(f"| {method} | {settings} | {peer} | {difference:.1e} |")
        print(lines[-1], flush=True)
    (ROOT / "docs" / "agreements.md").write_text(HEAD + "\n".join(lines) + "\n" + TAIL)


if __name__ == "__main__":
    main()
