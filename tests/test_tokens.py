"""A vision transformer is not shown what is removed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.extremal_perturbation import ExtremalPerturbation
from lucency.methods.lime import Lime
from lucency.methods.occlusion import Occlusion
from lucency.methods.rise import Rise
from lucency.removal import Removal, Tokens
from nets import classifier_of

SIDE, PATCH, DIM = 32, 8, 12


class Block(nn.Module):
    """Attention that can be told to ignore some tokens, which leaving them out has to equal."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))
        self.ignored: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, key_padding_mask=self.ignored, need_weights=False)[0]
        return x + self.mlp(self.mlp_norm(x))


class ViT(nn.Module):
    """Patches and positions, some tokens in front, blocks, and the class token or the mean of all."""

    def __init__(self, front: int = 1, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.embed = nn.Conv2d(1, DIM, PATCH, PATCH)
        self.front = nn.Parameter(torch.randn(1, front, DIM))
        self.positions = nn.Parameter(torch.randn(1, front + (SIDE // PATCH) ** 2, DIM))
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, self.front.shape[1] :].mean(1) if self.mean else x[:, 0])


class Relative(ViT):
    """Positions inside the blocks: the order of the tokens matters there."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.front.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x + self.positions[:, : x.shape[1]])
        return self.head(x[:, 0])


@pytest.mark.parametrize("front", [1, 2, 5])
def test_what_is_left_out_is_what_attention_ignores(front: int) -> None:
    torch.manual_seed(front)
    net = ViT(front).eval()
    scan = Scan(torch.rand(1, SIDE, SIDE))
    masks = torch.ones(6, SIDE, SIDE)
    masks[0, :PATCH, :PATCH] = 0
    masks[1, PATCH:, 2 * PATCH :] = 0
    masks[2] = 0
    masks[3, 4:20, 9:26] = 0
    masks[4, 4:12, 4:12] = 0
    masks[5, 0:2, 0:3] = 0
    probe = Engine(classifier_of(net, 3)).open(scan, Question(1, "c1", "logit"), Tokens())
    found = probe.scores(masks)[:, 0]
    gone = 1 - F.avg_pool2d(masks[:, None], PATCH).flatten(1)
    # Half of a token; where there is none, the tokens of which most is gone.
    out = gone >= 0.5
    out[4, [0, 1, 4, 5]] = True
    out[5, 0] = True
    for block in net.blocks:
        block.ignored = torch.cat([torch.zeros(6, front, dtype=torch.bool), out], 1)
    with torch.no_grad():
        expected = net(scan.pixels.expand(6, 1, SIDE, SIDE))[:, 1]
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.std() > 1e-3
    assert probe.evaluations == 7
    assert probe.facts["engine"] == "tokens left out of 4 x 4"


@pytest.mark.parametrize("mean", [False, True])
def test_occlusion_and_lime_by_tokens(mean: bool) -> None:
    torch.manual_seed(7)
    net = ViT(mean=mean)
    with torch.no_grad():
        # The evidence is how bright the second patch is.
        net.embed.weight.fill_(1.0)
        net.positions[:, 1:].mul_(0.2)
    pixels = torch.full((1, SIDE, SIDE), 0.2)
    pixels[:, :PATCH, PATCH : 2 * PATCH] = 0.9
    for method in (Occlusion(patch=PATCH, stride=PATCH, removal=Tokens()), Lime(samples=64, removal=Tokens())):
        found = explain(Scan(pixels), classifier_of(net, 3), target=1, watch="logit", method=method)
        assert abs(found.heatmap).max() > 1e-4
    assert Removal.of("tokens") == Tokens()


def test_soft_masks_and_gradients_are_refused() -> None:
    torch.manual_seed(0)
    scan, classifier = Scan(torch.rand(1, SIDE, SIDE)), classifier_of(ViT(), 3)
    methods: list[Any] = [Rise(samples=8, removal=Tokens()), ExtremalPerturbation(removal=Tokens())]
    for method in methods:
        with pytest.raises(ParameterError, match="left out or shown"):
            explain(scan, classifier, target=1, method=method)


@pytest.mark.parametrize(
    "net",
    [nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), Relative()],
    ids=["convolutions", "positions inside"],
)
def test_other_networks_are_refused(net: nn.Module) -> None:
    torch.manual_seed(0)
    with pytest.raises(ParameterError, match="cannot be left out"):
        Engine(classifier_of(net, 3)).open(Scan(torch.rand(1, SIDE, SIDE)), Question(1, "c1", "logit"), Tokens())


def test_no_hook_is_left_behind() -> None:
    net = ViT().eval()
    probe = Engine(classifier_of(net, 3)).open(Scan(torch.rand(1, SIDE, SIDE)), Question(1, "c1", "logit"), Tokens())
    probe.scores(torch.zeros(1, SIDE, SIDE))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
