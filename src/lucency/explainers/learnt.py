"""A learnt explainer: a decoder, what it was taught and on which patients, how far it can be trusted, and its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lucency.classifier import Classifier
from lucency.classifier.feature_maps import Layout
from lucency.errors import ModelError
from lucency.explainers.decoder import Decoder, Grid, resized
from lucency.explainers.taps import Tap
from lucency.explainers.teachers import OcclusionTeacher, RiseTeacher, ShapleyTeacher, Teacher
from lucency.removal import Removal
from lucency.writing import whole

FORMAT = "lucency-explainer-1"
TEACHERS: Mapping[str, type[Teacher]] = {t.name: t for t in (OcclusionTeacher, ShapleyTeacher, RiseTeacher)}
COVERAGE = 0.9
"""Share of the places of a new scan that the band is to hold."""
LEAST = 0.01
"""Every error is expected to be at least this share of the largest value of the map: what a decoder expects of places
that it knows from its training is next to nothing, and a band around that would be wide everywhere else."""
FAR = 0.01
"""Share of scans like those of the training that may be called unlike them."""
DIRECTIONS = 32


@dataclass(frozen=True)
class Trust:
    """What was measured on patients that trained nothing.

    Attributes:
        factor: half of the band's width over the expected error, so that :data:`COVERAGE` of places are inside.
        covered: share of places inside, on yet other patients; NaN where there were none.
        threshold: the distance from the training scans above which :data:`FAR` of like scans lie.
        called_far: share of those other patients' scans above it.
        scans: how many scans calibrated, and how many measured.
    """

    factor: float = math.nan
    covered: float = math.nan
    threshold: float = math.inf
    called_far: float = math.nan
    scans: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A map without one perturbed scan.

    Attributes:
        lattice: the value of each place of the teacher, ``[*lattice]`` (of occlusion: each patch).
        inner: what the decoder said of each in its own unit (of occlusion falls of the log-odds, for probabilities).
        error: by how much it expects each value to be off, ``[*lattice]``; above 0, not calibrated.
        heatmap: ``[*grid]``.
        band: half of the width of the band around it, ``[*grid]``; it holds the slow map at a share
            :data:`COVERAGE` of places.
        distance: from the training scans, as a share of the threshold; above 1 the scan is unlike them.
    """

    lattice: Tensor
    inner: Tensor
    error: Tensor
    heatmap: Tensor
    band: Tensor
    distance: float


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a slow method would say of a scan, from the classifier's own feature maps.

    Attributes:
        teacher: the slow method.
        target: index of the class, and its name.
        name: the class.
        model: name and fingerprint of the classifier.
        taps: the layers that are read, coarsest first.
        decoder: reads them.
        usual: mean ``[D]``, directions ``[R, D]`` and the mean rest of the pooled features of the training scans.
        trust: what was measured.
        history: scans and patients of each part, their hash, looks, epochs, seed: what is needed to train it again.
    """

    teacher: Teacher
    target: int
    name: str
    model: tuple[str, str]
    taps: tuple[Tap, ...]
    decoder: Decoder
    usual: tuple[Tensor, Tensor, Tensor]
    trust: Trust
    history: Mapping[str, Any]

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that it reads."""
        return tuple(tap.name for tap in self.taps)

    def fits(self, classifier: Classifier) -> bool:
        """Whether it was trained for this classifier's weights."""
        return self.model[1] == classifier.fingerprint

    def predicted(self, maps: Sequence[Tensor], clean: float, grid: Grid) -> Prediction:
        """What the teacher would say.

        Args:
            maps: what the taps put out, ``[1, K, *spatial]`` each.
            clean: the score of the scan.
        """
        lattice = self.teacher.lattice(grid)
        score = torch.tensor([clean])
        fitted = fitted_maps(maps, lattice)
        with torch.inference_mode():
            raw = self.decoder(fitted, context(score), lattice)
            said = self.teacher.said(raw, score)
            both = self.teacher.painted(torch.cat([said.value, said.error]), grid)
            distance = float(distances(self.usual, self.pooled(fitted))[0])
        return Prediction(
            said.value[0],
            raw[0, 0],
            said.error[0],
            both[0],
            self.trust.factor * (both[1] + LEAST * both[0].abs().max()),
            distance / self.trust.threshold if math.isfinite(self.trust.threshold) else 0.0,
        )

    def pooled(self, maps: Sequence[Tensor]) -> Tensor:
        """Mean of each channel over space, ``[B, D]``, of maps ``[B, K, *spatial]``, in units of its spread."""
        return pooled(self.decoder, maps)

    def save(self, path: str | Path) -> None:
        """Writes it as safetensors in half precision, with everything else as metadata.

        Raises:
            OutputError: when the file cannot be written.
        """
        tensors = {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}
        tensors |= dict(zip(("usual.mean", "usual.directions", "usual.rest"), self.usual, strict=True))
        about = {
            "format": FORMAT,
            "teacher": {"name": self.teacher.name, **_plain(self.teacher)},
            "target": self.target,
            "class": self.name,
            "model": self.model,
            "taps": [asdict(tap) for tap in self.taps],
            "trust": asdict(self.trust),
            "history": self.history,
        }
        # Single numbers of a channel may be large or tiny, and take little room.
        small = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in tensors.items()}
        data = save(small, {"lucency": json.dumps(about)})
        with whole(path) as part:
            part.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> Learnt:
        """Reads what :meth:`save` wrote.

        Raises:
            ModelError: when the file is missing, damaged or something else.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["lucency"])
                tensors = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']!r:.40}")
            taps = tuple(Tap(t["name"], t["channels"], _layout(t["layout"])) for t in about["taps"])
            with torch.inference_mode(False):
                decoder = Decoder([tap.channels for tap in taps], len(taps[0].layout.grid))
                decoder.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("decoder.")})
            decoder.eval().requires_grad_(False)
            return cls(
                teacher_of(about["teacher"]),
                int(about["target"]),
                str(about["class"]),
                (str(about["model"][0]), str(about["model"][1])),
                taps,
                decoder,
                (tensors["usual.mean"], tensors["usual.directions"], tensors["usual.rest"]),
                Trust(**{**about["trust"], "scans": tuple(about["trust"]["scans"])}),
                about["history"],
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{path} is no explainer that Lucency reads ({why}); `lucency explainer train` makes one."
            ) from error


def context(clean: Tensor) -> Tensor:
    """What a decoder hears of clean scores ``[B]``: ``[B, 2]``, near and far from 0 and 1."""
    bounded = clean.clamp(1e-6, 1 - 1e-6)
    return torch.stack([clean.clamp(-10, 10), bounded.logit() / 5], 1)


def fitted_maps(maps: Sequence[Tensor], lattice: Grid) -> list[Tensor]:
    """Maps ``[B, K, *spatial]``, those that are finer than the lattice averaged on it."""
    return [resized(m, lattice) if m.shape[2:].numel() > torch.Size(lattice).numel() else m for m in maps]


def pooled(decoder: Decoder, maps: Sequence[Tensor]) -> Tensor:
    """Mean of each channel over space, ``[B, D]``, of maps ``[B, K, *spatial]``, in units of its spread."""
    found = []
    for i, one in enumerate(maps):
        mean, scale = getattr(decoder, f"mean{i}"), getattr(decoder, f"scale{i}")
        found.append((one.flatten(2).mean(2) - mean) * scale)
    return torch.cat(found, 1)


def usual_of(found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, whitening directions and mean rest of pooled features ``[N, D]`` (principal components)."""
    mean = found.mean(0)
    away = found - mean
    keep = max(1, min(DIRECTIONS, len(found) // 8, found.shape[1]))
    _, s, v = torch.linalg.svd(away, full_matrices=False)
    spread = s[:keep] / math.sqrt(max(1, len(found) - 1))
    spread = spread.clamp_min(max(1e-3, 1e-3 * float(spread[0])))
    directions = v[:keep] / spread[:, None]
    rest = _rest(away, directions).mean().clamp_min(1e-6)
    return mean, directions, rest[None]


def distances(usual: tuple[Tensor, Tensor, Tensor], features: Tensor) -> Tensor:
    """How far pooled features ``[B, D]`` lie from those of the training, ``[B]``: along the directions and off them."""
    mean, directions, rest = usual
    away = features - mean
    along = (away @ directions.T).square().mean(1)
    return (along + _rest(away, directions) / rest).sqrt()


def _rest(away: Tensor, directions: Tensor) -> Tensor:
    unit = directions / directions.norm(dim=1, keepdim=True)
    found: Tensor = (away.square().sum(1) - (away @ unit.T).square().sum(1)).clamp_min(0) / away.shape[1]
    return found


def conformal(scores: Tensor, share: float) -> float:
    """The value that a further score stays below with at least that probability: the ``ceil((n + 1) share)``-th.

    Args:
        scores: float ``[n]``, one of each scan.
    """
    n = len(scores)
    rank = math.ceil((n + 1) * share)
    return math.inf if rank > n else float(scores.sort().values[rank - 1])


def pooled_conformal(scores: Sequence[Tensor], share: float) -> float:
    """The same for a place drawn at random in a further scan, from scores ``[P]`` of places of each of n scans.

    Each scan weighs the same; a further one with infinite scores stands for the new scan.
    """
    n = len(scores)
    if not n:
        return math.inf
    flat = torch.cat(list(scores))
    weight = torch.cat([torch.full((len(s),), 1 / len(s)) for s in scores])
    order = flat.argsort()
    reached = weight[order].double().cumsum(0) / (n + 1)
    (enough,) = (reached >= share - 1e-12).nonzero(as_tuple=True)
    return float(flat[order][enough[0]]) if len(enough) else math.inf


def teacher_of(about: Mapping[str, Any]) -> Teacher:
    """A teacher from what :meth:`Learnt.save` wrote of it.

    Raises:
        KeyError, TypeError, ValueError: for anything else.
    """
    cls: Any = TEACHERS[str(about["name"])]
    given: dict[str, Any] = dict(about["parameters"])
    removal = given.pop("removal")
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    made: Any = Removal.of(str(removal["name"]))
    teacher: Teacher = cls(**settings, removal=replace(made, **removal["parameters"]))
    return teacher


def _plain(teacher: Teacher) -> dict[str, Any]:
    removal: Any = teacher.removal
    about = {"name": removal.name, "parameters": _parameters(removal)}
    return {"parameters": {**_parameters(teacher), "removal": about}}


def _parameters(thing: Any) -> dict[str, Any]:
    return {f.name: getattr(thing, f.name) for f in fields(thing) if f.name != "removal"}


def _layout(about: Mapping[str, Any]) -> Layout:
    return Layout(tuple(about["grid"]), int(about["extra"]), bool(about["channels_last"]))
