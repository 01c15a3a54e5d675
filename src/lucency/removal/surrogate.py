"""Removal that the network knows: a copy of the classifier has learnt to answer from what is left."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lucency.asking import Buffers
from lucency.classifier import Classifier
from lucency.classifier.copying import copied
from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal

HIDDEN = -0.5
"""The display value of what is hidden: no scan has it, so the surrogate can tell hidden from black."""
FORMAT = "lucency-surrogate-1"


@dataclass(frozen=True)
class Surrogate(Removal):
    """Asks a surrogate: a copy of the classifier that has learnt to answer from a part of the scan.

    Where tissue is hidden the surrogate sees a value that no scan has, and it was trained on holes of every shape to
    give the classifier's answer on the whole scan, on average over what could stand there. No replacement is ever shown
    to a network that does not know it. One forward pass, and the fast engine, as for any other classifier.

    Covert, Lundberg & Lee, "Explaining by Removing", JMLR 2021, section 8.2; Jethani et al., "FastSHAP", ICLR 2022,
    equation 6. Train one with ``lucency surrogate train``.

    Attributes:
        path: the file of the surrogate; empty = the one that comes with a shipped model.
    """

    name: ClassVar[str] = "surrogate"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "nothing; a network of the same size answers"

    path: str = ""

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the file; of all that are shipped when none is named."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest() if self.path else _shipped_fingerprint()

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        hidden = torch.full_like(pixels, HIDDEN)[None]
        return lambda masks: hidden

    def classifier(self, of: Classifier) -> Classifier:
        """The surrogate of a classifier: the same in all but its weights.

        Raises:
            ParameterError: when there is none, or the file belongs to another classifier or is damaged.
        """
        of.network()
        data, what = _file(self.path, of)
        weights, about = _read(data, what)
        if about.get("classifier") != of.fingerprint:
            raise ParameterError(
                f"{what} was trained for {about.get('name', 'another model')} with other weights than {of.name}; train "
                "one with `lucency surrogate train`."
            )
        other = beside(of)
        try:
            other.network().load_state_dict(weights)
        except RuntimeError as error:
            raise ParameterError(f"{what} holds other layers than {of.name}; train it again.") from error
        return other


def beside(of: Classifier) -> Classifier:
    """A copy of a classifier whose network may learn something else.

    Raises:
        ParameterError: when it does more than its network does.
    """
    network = of.network()
    if of.forward is not network:
        raise ParameterError(f"{of.name} does more than its network, so no surrogate can stand in for it.")
    other = copy.copy(of)
    other.module = other.forward = copied(network)[0].to(of.device)
    other._buffers = Buffers(other.module)
    other.name = f"the surrogate of {of.name}"
    return other


def hatched(pixels: Tensor) -> Tensor:
    """Display values ``[..., rows, columns]`` as a picture in 0..1; what a surrogate does not see is hatched."""
    rows, columns = (torch.arange(n, device=pixels.device) for n in pixels.shape[-2:])
    stripes = torch.where((rows[:, None] + columns) % 8 < 4, 0.4, 0.15)
    # Noise may be as dark as that too, but hardly ever just that.
    return torch.where((pixels - HIDDEN).abs() < 1e-3, stripes.to(pixels), pixels).clamp(0, 1)


def written(module: nn.Module, of: Classifier, about: dict[str, str]) -> bytes:
    """The file of a trained surrogate of a classifier: half-precision weights, and what is known about it."""
    weights = {
        name: (value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()).contiguous()
        for name, value in module.state_dict().items()
    }
    return save(weights, {"format": FORMAT, "classifier": of.fingerprint, "name": of.name, **about})


def measured(path: str | Path) -> dict[str, str]:
    """What the file of a surrogate says about it: for which model, how it was trained, how well it agrees.

    Raises:
        ParameterError: when it is no such file.
    """
    return _read(Path(path).read_bytes(), str(path))[1]


@cache
def _shipped_fingerprint() -> str:
    every = sorted(
        (one for one in (files("lucency.removal") / "weights").iterdir() if one.name.startswith("surrogate-")),
        key=lambda one: one.name,
    )
    return hashlib.sha256(b"".join(one.read_bytes() for one in every)).hexdigest()


def _file(path: str, of: Classifier) -> tuple[bytes, str]:
    """The bytes of the file, and what to call it."""
    if path:
        try:
            return Path(path).read_bytes(), path
        except OSError as error:
            raise ParameterError(f"The surrogate {path} cannot be read ({error.strerror}); check the path.") from error
    shipped = files("lucency.removal") / "weights" / f"surrogate-{of.name.removeprefix('lucency:')}.safetensors"
    if not of.name.startswith("lucency:") or not shipped.is_file():
        raise ParameterError(
            f"No surrogate comes with {of.name}; train one with `lucency surrogate train` and give its file, as in "
            "--set removal.path=FILE."
        )
    return shipped.read_bytes(), "The shipped surrogate"


def _read(data: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        size = int.from_bytes(data[:8], "little")
        about = json.loads(data[8 : 8 + size])["__metadata__"]
        weights = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParameterError(f"{what} is damaged or no surrogate; train it again.") from error
    if about.get("format") != FORMAT:
        raise ParameterError(f"{what} holds weights of something else than a surrogate; train one.")
    return weights, about
