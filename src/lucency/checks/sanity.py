"""Does the map depend on what the model has learnt? Sanity checks by model randomisation.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim, "Sanity Checks for Saliency Maps", NeurIPS 2018. The weights of layers
are replaced by random ones, from the output down and more and more of them (cascading), or one layer at a time
(independent). A map that stays as it was shows the scan, an edge detector's view of it, and not the model.

New weights are drawn from a normal distribution with the mean and spread of the layer's own: the paper re-initialises,
which lets scores of deep nets vanish, and then no map is anything but rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lucency.attribution import attribute
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.explanation import describe
from lucency.methods import Method
from lucency.metrics.result import Result
from lucency.metrics.similarity import rank_correlation
from lucency.records import Record
from lucency.scan import Scan
from lucency.work import Stage, Streamed

Order = Literal["cascading", "independent"]

TRIES = 3
"""How many times as many sets of random weights are tried as are wanted."""
PASSES_BELOW = 0.5
"""A map of a model without any of its weights must correlate less than this with the real one."""


@dataclass(frozen=True)
class Randomised(Record):
    """How alike a map is after layers have lost what they had learnt.

    Attributes:
        layer: the layer that was randomised (cascading: with all after it).
        signed, absolute: rank correlation of the maps, and of their absolute values, with those of the real model.
    """

    layer: str
    signed: float
    absolute: float


@dataclass(frozen=True, repr=False)
class Randomisation(Result):
    """How a map changes while the model loses what it has learnt.

    Attributes:
        order: ``"cascading"`` or ``"independent"``.
        layers: from the output down; those so far where the work was stopped.
    """

    definition: ClassVar[str] = (
        "Spearman correlation of the map, signed and absolute, with that of a model whose layers have random weights, "
        "from the output down or one at a time (Adebayo et al. 2018); a map that depends on the model comes near 0."
    )

    order: Order
    layers: tuple[Randomised, ...]


@dataclass(frozen=True, repr=False)
class SanityResult(Result):
    """Whether a method passes the sanity check on a model.

    Attributes:
        passes: whether the correlation, the absolute one or the signed one, stays below :data:`PASSES_BELOW` in size.
        correlation: the larger of the two in size, of a model with all of its weights randomised, mean over seeds.
        scans: on how many scans.
    """

    definition: ClassVar[str] = (
        "Spearman correlation of maps of a model without any of its weights with the real ones, the larger in size of "
        "signed and absolute, mean over seeds (Adebayo et al. 2018)."
    )

    passes: bool
    correlation: float
    scans: int


def layers_of(classifier: Classifier) -> list[str]:
    """The layers with weights of their own, from the output to the input (in the order they are registered in).

    Raises:
        QuestionError: for a black box, or a network without weights that can be changed.
    """
    module = classifier.network()
    found = [name for name, child in module.named_modules() if any(True for _ in child.parameters(recurse=False))]
    if not found or any(isinstance(child, torch.jit.ScriptModule) for child in module.modules()):
        raise QuestionError(f"{classifier.name} has no weights that can be randomised; load the PyTorch module itself.")
    return found[::-1]


@contextmanager
def randomised(classifier: Classifier, layers: Sequence[str], generator: torch.Generator) -> Iterator[None]:
    """Within, the named layers have random weights; after, all of them are exactly as before, whatever happened."""
    named = dict(classifier.network().named_modules())
    weights = [p for name in layers for p in named[name].parameters(recurse=False)]
    before = [p.detach().clone() for p in weights]
    try:
        with torch.no_grad():
            for p in weights:
                p.copy_(_drawn(p, generator))
        yield
    finally:
        with torch.no_grad():
            for p, own in zip(weights, before, strict=True):
                p.copy_(own)


@Streamed
def randomisation(
    method: Method,
    scan: Scan,
    engine: Engine,
    *,
    target: str | int | None = None,
    watch: str = "probability",
    order: Order = "cascading",
    layers: Sequence[str] | None = None,
) -> Iterator[Stage[Randomisation]]:
    """How a map changes while the model loses what it has learnt, layer by layer: a :class:`Randomisation`.

    Args:
        method: what is judged.
        scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        order: ``"cascading"`` randomises each layer with all after it, ``"independent"`` each alone.
        layers: after which layers to look, from the output down; all of them when ``None``.

    Raises:
        QuestionError: for a black box.
    """
    every = layers_of(engine.classifier)
    wanted = every if layers is None else list(layers)
    if unknown := [name for name in wanted if name not in every]:
        raise QuestionError(f"{engine.classifier.name} has no layer {unknown[0]!r} with weights of its own.")
    target = engine.question(scan, target, watch).target
    found: tuple[Randomised, ...] = ()
    clean = _map(scan, engine, method, target, watch)
    yield Stage(1 / (len(wanted) + 1), "the map itself", partial(Randomisation, order, found))
    for name in wanted:
        gone = every[: every.index(name) + 1] if order == "cascading" else [name]
        with randomised(engine.classifier, gone, engine.generator()):
            other = _map(scan, engine, method, target, watch)
        # Never inside: whoever watches a step finds the model as it is.
        found = (*found, _compared(name, clean, other))
        yield Stage((len(found) + 1) / (len(wanted) + 1), f"without {name}", partial(Randomisation, order, found))


@Streamed
def check(
    method: Method,
    scans: Sequence[Scan],
    engine: Engine,
    *,
    target: str | int,
    watch: str = "probability",
    seeds: int = 2,
) -> Iterator[Stage[SanityResult | None]]:
    """Whether the maps of a model without any of its weights differ from the real ones; kept for :func:`known_result`.

    Costs ``1 + seeds`` maps a scan, and a few more where random weights give a map without relief. Gives a
    :class:`SanityResult`; ``None`` where it was stopped before the end.

    Args:
        method: what is judged.

    Raises:
        QuestionError: for a black box.
    """
    every = layers_of(engine.classifier)
    found: list[Randomised] = []

    def stage(number: int, maps: int, doing: str) -> Stage[SanityResult | None]:
        share = min(maps / (1 + seeds), 1.0)
        return Stage(min((number + share) / len(scans), 0.99), f"sanity check, {doing}", lambda: None)

    for number, scan in enumerate(scans):
        clean = _map(scan, engine, method, target, watch)
        yield stage(number, 1, "the map itself")
        told: list[Randomised] = []
        for seed in range(TRIES * seeds):
            generator = torch.Generator().manual_seed(engine.seed + seed)
            with randomised(engine.classifier, every, generator):
                other = _map(scan, engine, method, target, watch)
            # A map without any relief is unlike every other, and shows nothing; it counts when there are no others.
            told += [_compared("", clean, other)] if np.ptp(other) > 0 else []
            yield stage(number, 1 + len(told), f"random weights {seed + 1}")
            if len(told) == seeds:
                break
        found += told or [_compared("", clean, other)]
    means = [float(np.mean([getattr(one, kind) for one in found])) for kind in ("signed", "absolute")]
    worst = max(means, key=abs)
    result = SanityResult(abs(worst) < PASSES_BELOW, worst, len(scans))
    file = _file(engine.classifier, method, target, watch)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result.as_dict()) + "\n")
    except OSError:
        # Nowhere to keep it: the next one asks again.
        pass
    yield Stage(1.0, "sanity check", lambda: result)


def known_result(
    classifier: Classifier, method: Method, *, target: str | int, watch: str = "probability"
) -> SanityResult | None:
    """What :func:`check` found for these weights, this method with these parameters and this question, if it was ever
    asked."""
    try:
        return SanityResult.from_dict(json.loads(_file(classifier, method, target, watch).read_text()))
    except (OSError, ValueError, ParameterError):
        return None


def _file(classifier: Classifier, method: Method, target: str | int, watch: str) -> Path:
    about = [classifier.fingerprint, method.name, describe(method), classifier.index(target), watch]
    what = json.dumps(about, sort_keys=True)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "lucency" / "sanity" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"


def _map(scan: Scan, engine: Engine, method: Method, target: str | int, watch: str) -> NDArray[np.float32]:
    # A new engine, since this one may hold on to weights.
    fresh = Engine(engine.classifier, device=engine.device, batch_size=engine.batch_size, seed=engine.seed)
    return attribute(scan, fresh, method, target=target, watch=watch).heatmap


def _compared(layer: str, clean: NDArray[np.float32], other: NDArray[np.float32]) -> Randomised:
    return Randomised(layer, rank_correlation(clean, other), rank_correlation(np.abs(clean), np.abs(other)))


def _drawn(p: nn.Parameter, generator: torch.Generator) -> torch.Tensor:
    spread = p.std() if p.numel() > 1 else p.abs()[(0,) * p.ndim]
    return p.mean() + spread * torch.randn(p.shape, generator=generator).to(p)
