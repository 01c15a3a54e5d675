"""What one run can give besides one map: soft edges, a region, every class; thin volumes; tokens laid out as maps."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Classifier, Question
from lucency.engine import Engine, scorer
from lucency.errors import ParameterError, QuestionError
from lucency.masks import Patches
from lucency.methods import Method
from lucency.methods.cam import Cam, GradCam, LayerCam
from lucency.methods.guided_gradcam import GuidedGradCam
from lucency.methods.guided_occlusion import GuidedOcclusion
from lucency.methods.occlusion import Occlusion
from lucency.removal import Constant
from lucency.testing.methods import classifier_of, scan_of
from nets import Window
from nets import classifier_of as window_classifier
from test_every_method import cheap
from test_every_method import untrained as each

# -- soft edges and a region ----------------------------------------------------------------------------------------


def test_a_soft_patch_fades_like_a_gaussian_and_ends_where_its_box_does() -> None:
    patches = Patches((40, 40), (6, 4), (6, 4), soft=2.0)
    which = torch.arange(len(patches))
    hidden = 1 - patches.masks(which)
    for n in (0, 37, len(patches) - 1):
        rows, columns = (torch.arange(40).float() for _ in range(2))
        (top, bottom), (left, right) = patches.cores[n].tolist()
        away = [
            torch.maximum(low - at, at - (high - 1)).clamp_min(0)
            for at, low, high in ((rows, top, bottom), (columns, left, right))
        ]
        expected = torch.exp(-(away[0][:, None] ** 2 + away[1][None] ** 2) / 8)
        expected[(away[0] > 6)[:, None] | (away[1] > 6)[None]] = 0
        assert torch.allclose(hidden[n], expected, atol=1e-6)
        box = tuple(slice(a, b) for a, b in patches.boxes[n].tolist())
        assert float(hidden[n].sum()) == pytest.approx(float(hidden[n][box].sum()))


@pytest.mark.parametrize("tolerance", [None, 0.02])
@pytest.mark.parametrize("soft", [0.0, 1.5])
def test_soft_patches_are_exact_on_windows(
    soft: float, tolerance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))
    classifier = classifier_of("softmax", 2)
    maps = []
    for windows in (True, False):
        engine = Engine(classifier, device="cpu", windows=windows, tolerance=tolerance)
        method = Occlusion(patch=4, stride=3, soft=soft, order="spread", features=False)
        maps.append(explain(scan_of(2), classifier, target=1, method=method, engine=engine).heatmap)
    assert np.abs(maps[0]).max() > 0
    assert np.allclose(maps[0], maps[1], atol=1e-5 if tolerance is None else tolerance)


def test_a_soft_map_is_the_mean_weighted_by_what_is_hidden() -> None:
    classifier, scan = classifier_of("softmax", 2), scan_of(2)
    found = explain(scan, classifier, target=1, method=Occlusion(patch=4, stride=3, soft=1.0, features=False))
    patches = Patches(scan.shape, (4, 4), (3, 3), soft=1.0)
    masks = patches.masks(torch.arange(len(patches)))
    probe = Engine(classifier, windows=False).open(scan, Question(1, "b"), Constant())
    falls = probe.clean[0] - probe.scores(masks)[:, 0]
    expected = torch.einsum("n,nhw->hw", falls, 1 - masks) / (1 - masks).sum(0)
    assert np.allclose(found.heatmap, expected, atol=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("soft", [0.0, 1.0])
def test_only_a_region_is_asked_about_and_finely(axes: int, soft: float) -> None:
    classifier, scan = classifier_of("softmax", axes), scan_of(axes)
    box = tuple(n for size in scan.shape for n in (2, size - 3))
    inside = tuple(slice(a, b) for a, b in zip(box[::2], box[1::2], strict=True))
    found = explain(scan, classifier, target=1, method=Occlusion(patch=4, box=box, soft=soft, features=False))
    assert np.abs(found.heatmap[inside]).min() >= 0
    outside = found.heatmap.copy()
    outside[inside] = 0
    assert not outside.any()
    assert found.heatmap[inside].all()
    # A quarter of the patch apart.
    assert found.facts["patches"] == np.prod([size - 5 - 4 + 1 for size in scan.shape])


def test_a_region_is_where_it_is_on_a_resized_scan() -> None:
    net = Window((10, 20), (4, 12))
    classifier = window_classifier(net)
    classifier.input_size = (30, 30)
    scan = Scan(torch.rand(1, 60, 90))
    # The window on the scan: rows 20..40, columns 12..36.
    hit = explain(scan, classifier, target=0, watch="logit", method=Occlusion(patch=2, box=(20, 40, 12, 36)))
    miss = explain(scan, classifier, target=0, watch="logit", method=Occlusion(patch=2, box=(42, 60, 0, 90)))
    assert hit.heatmap.any()
    assert not miss.heatmap.any()


@pytest.mark.parametrize("box", [(0, 5), (5, 5, 0, 4), (0, 99, 0, 4), (-1, 4, 0, 4)])
def test_a_box_that_is_none_is_said(box: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="A box is start and stop along each axis"):
        explain(scan_of(2), classifier_of("softmax", 2), method=Occlusion(patch=4, box=box))


# -- thin volumes ---------------------------------------------------------------------------------------------------


@each
def test_a_volume_thinner_than_a_patch_is_explained(name: str) -> None:
    scan = Scan(torch.rand((1, 3, 21, 20), generator=torch.Generator().manual_seed(9)))
    method = Occlusion() if name == "occlusion" else cheap(name)
    found = explain(scan, classifier_of("softmax", 3), target=1, method=method)
    assert found.heatmap.shape == scan.shape
    assert np.isfinite(found.heatmap).all()
    if name == "occlusion":
        assert found.facts["patch cut to"] == "3 x 16 x 16"


def test_a_patch_that_fits_nowhere_is_still_refused() -> None:
    with pytest.raises(ParameterError, match="does not fit"):
        explain(scan_of(2), classifier_of("softmax", 2), method=Occlusion(patch=99))


# -- every class from one run ---------------------------------------------------------------------------------------

WITH_CLASSES: dict[str, dict[str, Any]] = {
    "occlusion": {"patch": 4, "stride": 3, "features": False},
    "occlusion spread": {"patch": 4, "stride": 3, "order": "spread"},
    "lime": {},
    "rise": {},
    "kernel_shap": {},
}


@pytest.mark.parametrize("kind", list(WITH_CLASSES))
def test_one_run_maps_every_class(kind: str) -> None:
    name = kind.split()[0]
    classifier, scan = classifier_of("softmax", 2), scan_of(2)
    one = dataclasses.replace(cheap(name), **WITH_CLASSES[kind])
    every = dataclasses.replace(one, all_classes=True)  # type: ignore[call-arg]
    shown = []

    def watch(step: Any) -> None:
        shown.append({label: make().clone() for label, make in step.also.items()})

    found = explain(scan, classifier, target=1, method=every, seed=3, on_step=watch)
    alone = [explain(scan, classifier, target=i, method=one, seed=3) for i in range(3)]
    assert np.allclose(found.heatmap, alone[1].heatmap, atol=1e-6)
    for i, label in ((0, "probability of a"), (2, "probability of c")):
        assert np.allclose(found.also[label], alone[i].heatmap, atol=1e-5)
        assert np.ptp(found.also[label]) > 0
        assert all(label in maps and bool(maps[label].isfinite().all()) for maps in shown)
    assert found.provenance.cost.evaluations == alone[1].provenance.cost.evaluations


# -- guided Grad-CAM ------------------------------------------------------------------------------------------------


class Modules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.ReLU())
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).flatten(2).mean(2))
        return out


@pytest.mark.filterwarnings("ignore")
def test_guided_gradcam_agrees_with_captum() -> None:
    net = Modules().eval()
    pixels = torch.rand((1, 23, 18), generator=torch.Generator().manual_seed(2))
    ours = explain(Scan(pixels), window_classifier(net, 3), target=1, watch="logit", method=GuidedGradCam())
    theirs = CaptumGuidedGradCam(net, net.body).attribute(
        pixels[None].requires_grad_(), target=1, interpolate_mode="bilinear"
    )[0, 0]
    assert float(theirs.abs().max()) > 0
    assert np.allclose(ours.heatmap, theirs.detach(), rtol=1e-4, atol=1e-7)
    assert ours.facts["layer"] == "body"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("watch", ["logit", "probability"])
def test_guided_occlusion_is_the_geometric_mean_of_two_maps(watch: str) -> None:
    scan, net = Scan(torch.rand((1, 23, 18), generator=torch.Generator().manual_seed(2))), Modules().eval()
    classifier = window_classifier(net, 3)

    def mapped(method: Method) -> NDArray[np.float64]:
        return np.asarray(explain(scan, classifier, target=1, watch=watch, method=method).heatmap, np.float64)

    falls = mapped(Occlusion(6, 3, Constant(0.5))).clip(0, None)
    weights = mapped(GradCam())
    assert falls.max() > 0
    assert weights.max() > 0
    expected = np.sqrt(falls * falls.max() * weights / weights.max())
    assert np.allclose(mapped(GuidedOcclusion(6, 3, Constant(0.5))), expected, rtol=1e-4, atol=1e-7)


def test_guided_occlusion_leaves_out_what_only_one_of_its_maps_shows() -> None:
    class Two(nn.Module):
        """Grad-CAM sees the upper left square alone: the other one reaches the logit past the feature maps."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(1, 1, 1)
            nn.init.ones_(self.body.weight)
            nn.init.zeros_(self.body.bias)

        def forward(self, x: Tensor) -> Tensor:
            upper = torch.zeros_like(x)
            upper[:, :, :8, :8] = 1
            seen = self.body(x * upper).mean((2, 3))
            return torch.cat([seen + 4 * x[:, :, 8:, 8:].mean((2, 3)), -seen], 1)

    scan, classifier = Scan(torch.full((1, 16, 16), 0.8)), window_classifier(Two().eval(), 2)
    found = {
        how.name: explain(scan, classifier, target=0, watch="logit", method=how).heatmap
        for how in (Occlusion(4, 4), GuidedOcclusion(4, 4, Constant()))
    }
    assert found["occlusion"][8:, 8:].min() > found["occlusion"][:8, :8].max() > 0
    assert found["guided_occlusion"][8:, 8:].max() == 0
    assert found["guided_occlusion"][:8, :8].min() > 0


# -- tokens ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Vit(nn.Module):
    """Patches, ``extra`` tokens before them, blocks; the head reads the class token, or the mean of the others."""

    def __init__(self, axes: int = 2, extra: int = 1, head: str = "token") -> None:
        super().__init__()
        torch.manual_seed(5)
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.extra, self.reads = extra, head
        self.patches = conv(1, 12, 4, stride=4)
        self.tokens = nn.Parameter(torch.randn(1, extra, 12))
        self.blocks = nn.ModuleList([Block(12), Block(12)])
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        out: Tensor = self.head(x[:, 0] if self.reads == "token" else x[:, self.extra :].mean(1))
        return out


class Swin(nn.Module):
    """Channels last, and the grid is halved on the way."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.flat = flat
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.first, self.merge, self.second = Block(8), nn.Linear(32, 16), Block(16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = self.first(x.reshape(b, h * w, c)).reshape(b, h // 2, 2, w // 2, 2, c)
        x = self.merge(x.permute(0, 1, 3, 2, 4, 5).flatten(3))
        x = x.flatten(1, 2) if self.flat else x
        x = self.norm(self.second(x))
        out: Tensor = self.head(x.mean(1) if self.flat else x.mean((1, 2)))
        return out


def tokens_of(net: nn.Module, axes: int = 2) -> tuple[Scan, Classifier]:
    shape = (24, 16) if axes == 2 else (8, 12, 16)
    return Scan(torch.rand((1, *shape), generator=torch.Generator().manual_seed(3))), window_classifier(net, 3)


@pytest.mark.parametrize(
    ("net", "axes", "layer", "maps"),
    [
        (Vit(), 2, "blocks.1.norm1", "12x6x4"),
        (Vit(extra=5), 2, "blocks.1.norm1", "12x6x4"),
        (Vit(head="mean"), 2, "norm", "12x6x4"),
        (Vit(extra=0, head="mean"), 2, "norm", "12x6x4"),
        (Vit(axes=3), 3, "blocks.1.norm1", "12x2x3x4"),
        (Swin(), 2, "norm", "16x6x4"),
        (Swin(flat=True), 2, "norm", "16x6x4"),
    ],
)
def test_tokens_of_the_last_block_make_the_map_of_a_transformer(
    net: nn.Module, axes: int, layer: str, maps: str
) -> None:
    scan, classifier = tokens_of(net, axes)
    kept: list[Tensor] = []
    found = explain(scan, classifier, target=1, watch="logit", method=GradCam())
    assert (found.facts["layer"], found.facts["feature maps"]) == (layer, maps)

    # The same, written out.
    handle = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out))
    score = net(scan.pixels[None])[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[-1])
    grid = [int(n) for n in maps.split("x")[1:]]

    def laid(tokens: Tensor) -> Tensor:
        flat = tokens.flatten(1, -2)[0]
        return flat[len(flat) - int(np.prod(grid)) :].T.reshape(-1, *grid)

    a, g = laid(kept[-1].detach()), laid(gradient)
    coarse = (g.flatten(1).mean(1).view(-1, *[1] * len(grid)) * a).sum(0).clamp_min(0)
    mode = "bilinear" if axes == 2 else "trilinear"
    expected = F.interpolate(coarse[None, None], size=scan.shape, mode=mode)[0, 0]
    assert np.allclose(found.heatmap, expected, atol=1e-5)
    named = explain(scan, classifier, target=1, watch="logit", method=GradCam(layer=layer))
    assert np.allclose(named.heatmap, found.heatmap, atol=1e-6)
    assert named.facts["layer"] == layer
    assert np.isfinite(explain(scan, classifier, target=1, method=LayerCam()).heatmap).all()


def test_cam_reads_a_transformer_with_a_mean_for_a_head_and_refuses_one_with_a_token() -> None:
    scan, classifier = tokens_of(Vit(head="mean"))
    found = explain(scan, classifier, target=1, method=Cam())
    grid = F.interpolate(torch.from_numpy(found.heatmap)[None, None], size=(6, 4), mode="area")
    assert float(grid.mean() + float(found.facts["bias"])) == pytest.approx(
        float(classifier(scan.pixels[None])[0, 1].detach()), abs=0.2
    )
    scan, classifier = tokens_of(Vit())
    with pytest.raises(QuestionError, match="use gradcam"):
        explain(scan, classifier, target=1, method=Cam())


def test_tokens_of_no_grid_are_said() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = nn.Linear(16, 12), nn.LayerNorm(12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            # One token for each row.
            out: Tensor = self.head(self.norm(self.embed(x[:, 0, :13])).mean(1))
            return out

    scan, classifier = tokens_of(Sequence())
    with pytest.raises(QuestionError, match="no convolution and no tokens that lie on a grid"):
        explain(scan, classifier, target=1, method=GradCam())


@pytest.mark.parametrize("kind", ["softmax", "resized"])
def test_the_layer_of_a_convolutional_network_is_named(kind: str) -> None:
    found = explain(scan_of(2), classifier_of(kind, 2), target=1, method=GradCam())
    assert found.facts["layer"] == "body"
