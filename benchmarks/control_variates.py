"""Would a control variate save evaluations of LIME, Kernel SHAP and RISE? Variances between seeds, with and without.

    python benchmarks/control_variates.py [--phantoms 2] [--seeds 4]

A control is a cheap game that behaves like the classifier and whose answer is known; only the difference between the
two has to be sampled, and the estimate stays unbiased when the game was not fitted to the very samples it corrects
(here it is fitted to the other half of them).

A game that adds up, whatever prior it is made of, changes nothing in LIME and Kernel SHAP: both are regressions, which
take what adds up off exactly. So their control here is the next simplest game, a logistic one. In RISE the control is
linear in the mask, its covariance with each pixel of a mask known in closed form: a multiple of Grad-CAM, or a ridge
regression. Printed is by how much the variance falls (above 1: fewer evaluations), and how much of the scores a control
explains on samples that it was not fitted to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from evaluations import phantom
from lucency import Scan, load_classifier
from lucency.engine import Engine
from lucency.masks import RandomGrids
from lucency.masks.designs import balanced_switches, random_pairs
from lucency.masks.superpixels import Slic, switched
from lucency.methods.cam import GradCam
from lucency.methods.kernel_shap import constrained_fit
from lucency.methods.lime import kernel, weighted_ridge
from lucency.removal import Constant, SegmentMean, of_pieces

COUNTS = (256, 512, 1024)
KNOWN = 16_384
"""Coalitions of a cheap game from which its own answer is taken."""
SIDE = 28
Estimate = Callable[[Tensor, Tensor], Tensor]


def logistic(on: Tensor, scores: Tensor, penalty: float = 1.0) -> Tensor:
    """Weights ``[1 + S]`` of a logistic game on switches ``[B, S]``, by Newton's method."""
    x = torch.cat([torch.ones(len(on), 1), on], 1).double()
    y, w = scores.double().clamp(1e-6, 1 - 1e-6), torch.zeros(x.shape[1], dtype=torch.float64)
    ridge = torch.full_like(w, penalty)
    ridge[0] = 1e-6
    for _ in range(12):
        p = torch.sigmoid(x @ w)
        curved = (x.T * (p * (1 - p)).clamp_min(1e-4)) @ x + torch.diag(ridge)
        step = torch.linalg.solve(curved, x.T @ (p - y) + ridge * w)
        w = w - step * min(1.0, 5 / float(step.abs().max()))
    return w


def played(w: Tensor, on: Tensor) -> Tensor:
    """What the logistic game is worth."""
    return torch.sigmoid(w[0] + on.double() @ w[1:])


def crossed(on: Tensor, scores: Tensor, estimate: Callable[..., Tensor], answer: Callable[[Tensor], Tensor]) -> Tensor:
    """An estimate whose control for each half of the pairs is fitted to the other half."""
    half = (torch.arange(len(on)) // 2) % 2
    left, taken = scores.double().clone(), [logistic(on[half != k], scores[half != k]) for k in (0, 1)]
    for k in (0, 1):
        left[half == k] -= played(taken[k], on[half == k])
    found: Tensor = estimate(on, left, taken)
    return found + torch.stack([answer(game) for game in taken]).mean(0)


def explained(scores: Tensor, said: Tensor) -> float:
    return 1 - float((scores.double() - said).var() / scores.double().var())


def report(name: str, plain: Estimate, control: Estimate, runs: list[tuple[Tensor, Tensor]], share: float) -> None:
    """By how much the variance between seeds falls."""
    ratios = []
    for n in COUNTS:
        variances = [
            torch.stack([estimate(x[:n], y[:n]) for x, y in runs]).var(0).mean() for estimate in (plain, control)
        ]
        ratios.append(f"{float(variances[0] / variances[1]):.2f} at {n}")
    print(f"  {name}: {', '.join(ratios)}; the control explains {share:.0%}", flush=True)


def games(engine: Engine, scan: Scan, seeds: int) -> None:
    """What a logistic control does to LIME and Kernel SHAP."""
    question, labels = engine.question(scan, "effusion"), Slic().labels(engine.classifier.prepare(scan))
    pieces, most = int(labels.max()) + 1, COUNTS[-1]
    probe = engine.open(scan, question, of_pieces(SegmentMean(), labels))
    nothing, everything = torch.zeros(1, pieces), torch.ones(1, pieces)
    none, full = float(probe.scores(switched(labels, nothing))[0, 0]), float(probe.clean[0])
    print(f"p = {full:.3f}, {pieces} superpixels")

    def pairs(count: int, chance: torch.Generator) -> Tensor:
        half = random_pairs(pieces, count // 2, chance)
        return torch.stack([half, 1 - half], 1).flatten(0, 1)

    def flips(count: int, chance: torch.Generator) -> Tensor:
        return balanced_switches(count, pieces, chance)

    def between(on: Tensor, scores: Tensor, low: float, high: float) -> Tensor:
        return constrained_fit(on, scores, torch.ones(len(on), dtype=torch.float64), low, high, 1.0)[0]

    def shapley(on: Tensor, scores: Tensor, taken: Sequence[Tensor] = ()) -> Tensor:
        low, high = (sum(float(played(g, z)) for g in taken) / max(1, len(taken)) for z in (nothing, everything))
        return between(on, scores, none - low, full - high)

    def local(on: Tensor, scores: Tensor, _taken: Sequence[Tensor] = ()) -> Tensor:
        return weighted_ridge(on, scores, kernel(on, 0.25), 1.0).weights

    many, flipped = (draw(KNOWN, torch.Generator().manual_seed(seeds)) for draw in (pairs, flips))

    def shapley_of(game: Tensor) -> Tensor:
        return between(many, played(game, many), float(played(game, nothing)), float(played(game, everything)))

    def local_of(game: Tensor) -> Tensor:
        return weighted_ridge(flipped, played(game, flipped), kernel(flipped, 0.25), 1e-6).weights

    for name, draw, estimate, answer in (
        ("Kernel SHAP, logistic game", pairs, shapley, shapley_of),
        ("LIME, logistic game", flips, local, local_of),
    ):
        switches = [draw(most, torch.Generator().manual_seed(seed)) for seed in range(seeds)]
        runs = [(on, probe.scores(switched(labels, on))[:, 0]) for on in switches]
        control = partial(crossed, estimate=estimate, answer=answer)
        report(name, estimate, control, runs, explained(runs[1][1], played(logistic(*runs[0]), runs[1][0])))


def rise(engine: Engine, scan: Scan, seeds: int) -> None:
    """The same for RISE, whose controls are linear in the mask on every eighth pixel."""
    question = engine.question(scan, "effusion")
    probe = engine.open(scan, question, Constant())
    grids = RandomGrids(probe.grid)
    every = torch.arange(4, probe.grid[0], probe.grid[0] // SIDE)[:SIDE]
    # Covariance of two pixels of a mask: over coins in closed form, over shifts by going through all of them.
    cell = -(-probe.grid[0] // grids.cells)
    along = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for shift in range(cell):
        at = ((every + shift + 0.5) * grids.cells / ((grids.cells + 1) * cell) - 0.5).clamp(0, grids.cells - 1)
        matrix = (1 - (at[:, None] - torch.arange(grids.cells)).abs()).clamp_min(0).double()
        along += matrix @ matrix.T / cell
    covariance = grids.p * (1 - grids.p) * torch.kron(along, along)
    cam = GradCam().on_scan(engine.open(scan, question))[0][every][:, every].flatten().double()

    def plain(masks: Tensor, scores: Tensor) -> Tensor:
        return ((scores - scores.mean())[:, None] * masks).mean(0) / grids.p

    def ridge(masks: Tensor, scores: Tensor) -> Tensor:
        x = masks - masks.mean(0)
        return x.T @ torch.linalg.solve(x @ x.T + 10 * torch.eye(len(x), dtype=x.dtype), scores - scores.mean())

    def multiple(masks: Tensor, scores: Tensor) -> Tensor:
        said = (masks - masks.mean(0)) @ cam
        return cam * (said @ (scores - scores.mean())) / said.square().sum().clamp_min(1e-12)

    def controlled(fit: Estimate) -> Estimate:
        def estimate(masks: Tensor, scores: Tensor) -> Tensor:
            half, left, known = (torch.arange(len(masks)) // 2) % 2, scores.clone(), torch.zeros_like(cam)
            for k in (0, 1):
                w = fit(masks[half != k], scores[half != k])
                left[half == k] -= masks[half == k] @ w
                known += covariance @ w / grids.p / 2
            return plain(masks, left) + known

        return estimate

    runs = []
    for seed in range(seeds):
        coins, shifts = grids.draw(COUNTS[-1], torch.Generator().manual_seed(seed))
        small, scores = [], []
        for coin, shift in zip(coins.split(64), shifts.split(64), strict=True):
            masks = grids.masks(coin, shift)
            small.append(masks[:, every][:, :, every].flatten(1).double())
            scores.append(probe.scores(masks)[:, 0].double())
        runs.append((torch.cat(small), torch.cat(scores)))
    for name, fit in (("RISE, a multiple of Grad-CAM", multiple), ("RISE, ridge regression on the mask", ridge)):
        said = runs[1][0] @ fit(*runs[0])
        report(name, plain, controlled(fit), runs, explained(runs[1][1], said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(load_classifier("lucency:phantom"), device="cpu")
    for index in range(arguments.phantoms):
        games(engine, phantom(index), arguments.seeds)
        rise(engine, phantom(index), arguments.seeds)


if __name__ == "__main__":
    main()
